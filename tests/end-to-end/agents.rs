//! Agents that a host runs, as a scene through the real API and command line: their lives, their ends, what becomes of those
//! that are not fit, and how many there are. Acts share an installation, each with a swarm of its own.

mod crew;
mod ends;
mod fitness;
mod life;
mod numbers;

pub use crew::Crew;

use crate::support::{Installation, said};

/// Every promise holds by the log, and after the end nothing is in the process table that any of the swarms has started.
async fn over(swarm: &Installation) {
    let audit = swarm.cli(&["audit"]).await;
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
    let down = swarm.cli(&["down"]).await;
    assert!(down.status.success(), "{}", said(&down));
    let left = crew::processes_of(swarm.field("nats_url"));
    assert!(left.is_empty(), "left behind: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_live_work_change_and_go() {
    let swarm = Installation::start().await;
    tokio::join!(life::all(&swarm), numbers::all(&swarm));
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_an_agents_process_does_ends_in_a_clear_word_and_a_clean_process_table() {
    let swarm = Installation::start().await;
    ends::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_that_are_not_fit_get_no_work_and_come_back_or_go() {
    let swarm = Installation::start().await;
    fitness::all(&swarm).await;
    over(&swarm).await;
}
