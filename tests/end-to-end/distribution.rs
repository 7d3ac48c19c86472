//! How tasks are distributed, as a scene through the real API and command line. Acts that need no more than a swarm of their
//! own share an installation and run at the same time.

mod algorithms;
mod ends;
mod graphs;
mod limits;
mod load;
mod order;
mod shop;

use crate::support::{Installation, said};

/// Every promise holds by the log; with `--settled` also that everything has ended.
async fn audited(swarm: &Installation, args: &[&str]) {
    let audit = swarm.cli(&[&["audit"], args].concat()).await;
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_rule_shows_in_the_log_and_explanations_prove_true() {
    let swarm = Installation::start().await;
    tokio::join!(algorithms::all(&swarm), order::all(&swarm));
    audited(&swarm, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn failures_travel_dead_letters_live_again_and_what_is_over_a_limit_is_refused() {
    let swarm = Installation::start().await;
    tokio::join!(ends::all(&swarm), limits::all(&swarm));
    limits::a_full_organization(&swarm).await;
    audited(&swarm, &[]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_repeated_or_reordered_under_load_and_in_the_largest_graphs() {
    let swarm = Installation::start().await;
    load::live_switches(&swarm).await;
    graphs::taken_and_called_off(&swarm).await;
    graphs::worked_off(&swarm).await;
    audited(&swarm, &["--settled"]).await;
}
