//! Presence, on every implementation of the log.

#[macro_use]
mod support;

use bytes::Bytes;
use futures::{FutureExt, Stream, StreamExt};
use support::{Fixture, Shared};
use swarm_log::{
    Log, LogError, PRESENCE_VALUE_BYTES_MAX, PresenceNews,
    simulated::{Fault, FaultRates, Faults, SimulatedLog},
};

contract!(
    others_see_what_is_put_and_removed,
    an_interruption_has_everything_told_again,
    strange_keys_and_large_values_are_refused,
);

/// The next news in short: `key=value`, `-key` or `complete`.
async fn next(watch: &mut (impl Stream<Item = PresenceNews> + Unpin)) -> String {
    short(watch.next().await.expect("never ends"))
}

fn short(news: PresenceNews) -> String {
    match news {
        PresenceNews::Put { key, value, .. } => {
            format!("{key}={}", String::from_utf8_lossy(&value))
        }
        PresenceNews::Removed { key } => format!("-{key}"),
        PresenceNews::Complete => "complete".to_owned(),
    }
}

/// News up to the next `complete`, sorted: keys are told in no particular order. An interruption in the middle, as a busy
/// machine can have, begins anew.
async fn until_complete(watch: &mut (impl Stream<Item = PresenceNews> + Unpin)) -> Vec<String> {
    let mut told = Vec::new();
    loop {
        match next(watch).await {
            news if news == "complete" => break,
            news => told.push(news),
        }
    }
    told.sort();
    told.dedup();
    told
}

/// Waits until `wanted` is told. Anything may be told again meanwhile.
async fn until(watch: &mut (impl Stream<Item = PresenceNews> + Unpin), wanted: &str) {
    while next(watch).await != wanted {}
}

async fn others_see_what_is_put_and_removed<L: Shared>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let other = log.as_process("other").await;
    // Given a key of our service, one of another service, and one that was removed before anybody looked.
    log.put_presence("health.a", "1".into()).await.expect("put");
    log.put_presence("distributor.a", "9".into())
        .await
        .expect("put");
    log.put_presence("health.gone", "1".into())
        .await
        .expect("put");
    log.remove_presence("health.gone").await.expect("removed");

    // When another process watches, then it is told what is there, and that this was all.
    let mut watch = other.watch_presence("health.");
    assert_eq!(until_complete(&mut watch).await, ["health.a=1"]);

    // And each change, its own ones too.
    log.put_presence("health.a", "2".into()).await.expect("put");
    until(&mut watch, "health.a=2").await;
    other
        .put_presence("health.b", "1".into())
        .await
        .expect("put");
    until(&mut watch, "health.b=1").await;
    log.remove_presence("health.a").await.expect("removed");
    until(&mut watch, "-health.a").await;
    log.put_presence("health.a", "3".into()).await.expect("put");
    until(&mut watch, "health.a=3").await;
}

async fn an_interruption_has_everything_told_again<L: Shared>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let other = log.as_process("other").await;
    for key in ["health.a", "health.b", "health.c"] {
        log.put_presence(key, "1".into()).await.expect("put");
    }
    let mut watch = other.watch_presence("health.");
    let all = ["health.a=1", "health.b=1", "health.c=1"];
    assert_eq!(until_complete(&mut watch).await, all);

    other.interrupt("other").await;
    log.put_presence("health.b", "2".into()).await.expect("put");
    log.remove_presence("health.c").await.expect("removed");

    // What was told before it noticed, and after: everything ends up as it is.
    let mut told = Vec::new();
    while !["health.a=1", "health.b=2", "-health.c", "complete"]
        .iter()
        .all(|wanted| told.iter().any(|news| news == wanted))
    {
        told.push(next(&mut watch).await);
    }
}

async fn strange_keys_and_large_values_are_refused<L: Shared>(fixture: Fixture<L>) {
    let log = &fixture.log;
    for key in ["", "health.", "health.*", "health.>", "health a"] {
        let refusal = log.put_presence(key, "x".into()).await;
        assert!(matches!(refusal, Err(LogError::Refused(_))), "{key}");
        let refusal = log.remove_presence(key).await;
        assert!(matches!(refusal, Err(LogError::Refused(_))), "{key}");
    }
    let value = |bytes: usize| Bytes::from(vec![b'x'; bytes]);
    log.put_presence("health.a", value(PRESENCE_VALUE_BYTES_MAX))
        .await
        .expect("at the limit");
    let refusal = log
        .put_presence("health.a", value(PRESENCE_VALUE_BYTES_MAX + 1))
        .await;
    assert!(matches!(refusal, Err(LogError::Refused(_))));
}

/// What the simulated watch tells now.
fn told(watch: &mut (impl Stream<Item = PresenceNews> + Unpin)) -> Vec<String> {
    let mut all = Vec::new();
    while let Some(Some(news)) = watch.next().now_or_never() {
        all.push(short(news));
    }
    all
}

fn put(log: &SimulatedLog, key: &str, value: &str) -> Result<(), LogError> {
    log.put_presence(key, value.to_owned().into())
        .now_or_never()
        .expect("immediate")
}

#[test]
fn a_cut_off_handle_neither_puts_nor_hears() {
    let log = SimulatedLog::default();
    let cut_off = log.handle("replica-a");
    let (mut its, mut ours) = (
        cut_off.watch_presence("health."),
        log.watch_presence("health."),
    );
    put(&cut_off, "health.a", "1").expect("connected");
    assert_eq!(told(&mut its), ["health.a=1", "complete"]);
    assert_eq!(told(&mut ours), ["health.a=1", "complete"]);

    log.disconnect("replica-a");
    assert!(matches!(
        put(&cut_off, "health.a", "2"),
        Err(LogError::Unreachable(_))
    ));
    put(&log, "health.b", "1").expect("connected");
    assert_eq!(told(&mut its), [] as [&str; 0]);
    assert_eq!(told(&mut ours), ["health.b=1"]);

    log.reconnect("replica-a");
    assert_eq!(told(&mut its), ["health.a=1", "health.b=1", "complete"]);
}

#[test]
fn a_restart_of_the_server_forgets_presence() {
    let log = SimulatedLog::default();
    let mut watch = log.watch_presence("");
    put(&log, "health.a", "1").expect("put");
    assert_eq!(told(&mut watch), ["health.a=1", "complete"]);
    log.forget_presence();
    log.interrupt_tails("main");
    // Not told as removed: its owner lives, and renews it.
    assert_eq!(told(&mut watch), ["complete"]);
    put(&log, "health.a", "2").expect("put");
    assert_eq!(told(&mut watch), ["health.a=2"]);
}

#[test]
fn puts_are_lost_and_late_as_planned() {
    let log = SimulatedLog::default();
    let mut watch = log.watch_presence("");
    let script = [
        Some(Fault::LostAck),
        Some(Fault::LostMessage),
        Some(Fault::Ghost),
        Some(Fault::Busy),
    ];
    log.set_presence_faults("main", Faults::scripted(script));
    put(&log, "a", "1").expect_err("the acknowledgement is lost");
    put(&log, "b", "1").expect_err("lost");
    put(&log, "c", "1").expect_err("late");
    put(&log, "d", "1").expect("nothing is checked here");
    assert_eq!(told(&mut watch), ["a=1", "d=1", "complete"]);
    log.release_ghosts();
    assert_eq!(told(&mut watch), ["c=1"]);
}

#[test]
fn presence_does_not_move_the_draws_of_appends() {
    // Given a plan for a third of everything; when one run puts presence between its appends and the other does not, then the
    // same appends fail.
    let rates = FaultRates {
        lost_message: 333,
        ..FaultRates::default()
    };
    let run = |presence: bool| {
        let log = SimulatedLog::default();
        log.set_faults("main", Faults::seeded(7, rates));
        let mut failed = (Vec::new(), 0);
        for number in 0..100 {
            let message = support::message(&support::subject("task.submitted"), "x");
            let outcome = log.append(vec![message]).now_or_never().expect("immediate");
            if outcome[0].is_err() {
                failed.0.push(number);
            }
            if presence && put(&log, "a", "1").is_err() {
                failed.1 += 1;
            }
        }
        failed
    };
    let (with, without) = (run(true), run(false));
    assert_eq!(with.0, without.0);
    assert!((10..60).contains(&with.1), "{}", with.1);
}
