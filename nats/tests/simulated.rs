//! What only the simulated log can do: faults by plan, virtual time, cut-off handles.

mod support;

use futures::{FutureExt, StreamExt, stream::BoxStream};
use support::{message, simulated, subject, under};
use swarm_log::{
    AppendError, Appended, Log, LogError, Message, Tailed,
    simulated::{Fault, FaultRates, Faults, SimulatedLog, SimulatedSettings},
};

const CLAIMED: &str = "swarm.ctl.distributor.07.claimed";

/// Everything is immediate here, so nothing needs a runtime.
fn append(log: &SimulatedLog, message: Message) -> Result<Appended, AppendError> {
    log.append(vec![message])
        .now_or_never()
        .expect("immediate")
        .remove(0)
}

/// What the tail yields now: bodies, or what happened to it.
fn yielded(tail: &mut BoxStream<'static, Result<Tailed, LogError>>) -> Vec<String> {
    let mut items = Vec::new();
    while let Some(Some(item)) = tail.next().now_or_never() {
        items.push(match item.expect("no end") {
            Tailed::Message(message) => String::from_utf8_lossy(&message.payload).into_owned(),
            other => format!("{other:?}"),
        });
    }
    items
}

fn submitted(body: &str) -> Message {
    message(&subject("task.submitted"), body)
}

#[test]
fn a_lost_ack_and_a_lost_message_look_the_same() {
    let log = simulated(false).log;
    log.set_faults(
        "main",
        Faults::scripted([Some(Fault::LostAck), Some(Fault::LostMessage), None]),
    );
    for body in ["a", "b"] {
        assert!(matches!(
            append(&log, submitted(body)),
            Err(AppendError::Unknown { .. })
        ));
    }
    append(&log, submitted("c")).expect("no fault");
    assert_eq!(
        yielded(&mut log.tail(vec!["swarm.>".into()], 0)),
        ["a", "c", "CaughtUp"]
    );
}

#[test]
fn a_late_ghost_is_stopped_by_a_new_claim() {
    let log = simulated(false).log;
    let old = append(&log, under(message(CLAIMED, "old"), CLAIMED, 0))
        .expect("claimed")
        .sequence;
    log.set_faults(
        "main",
        Faults::scripted([Some(Fault::Ghost), Some(Fault::Ghost)]),
    );
    append(&log, under(submitted("fenced ghost"), CLAIMED, old)).expect_err("unknown");
    append(&log, submitted("free ghost")).expect_err("unknown");
    append(&log, under(message(CLAIMED, "new"), CLAIMED, old)).expect("claimed again");
    assert_eq!(
        (log.ghosts(), log.release_ghosts(), log.ghosts()),
        (2, 1, 0)
    );
    assert_eq!(
        yielded(&mut log.tail(vec!["swarm.>".into()], 0)),
        ["old", "new", "free ghost", "CaughtUp"]
    );
}

#[test]
fn on_a_cluster_a_ghost_holds_the_check_of_its_subject() {
    let log = simulated(true).log;
    let epoch = append(&log, under(message(CLAIMED, "a"), CLAIMED, 0))
        .expect("claimed")
        .sequence;
    log.set_faults("main", Faults::scripted([Some(Fault::Ghost)]));
    append(&log, under(submitted("ghost"), CLAIMED, epoch)).expect_err("unknown");
    let refusal = append(&log, under(submitted("b"), CLAIMED, epoch)).expect_err("in flight");
    assert!(matches!(&refusal, AppendError::FenceBusy { subject } if &**subject == CLAIMED));
    append(
        &log,
        under(submitted("other subject"), "swarm.ctl.health.07.claimed", 0),
    )
    .expect("not in its way");
    assert_eq!(log.release_ghosts(), 1);
    append(&log, under(submitted("b"), CLAIMED, epoch)).expect("free again");
}

#[test]
fn message_ids_are_forgotten_after_the_window() {
    let log = simulated(false).log;
    let mut once = submitted("once");
    once.message_id = Some("id".into());
    let start = log.time();
    let first = append(&log, once.clone()).expect("stored");
    log.set_time(start + 29_999_999);
    assert_eq!(
        append(&log, once.clone()).expect("known"),
        Appended {
            sequence: first.sequence,
            duplicate: true
        }
    );
    log.set_time(start + 30_000_000);
    let again = append(&log, once).expect("forgotten");
    assert!(!again.duplicate && again.sequence > first.sequence);
    assert_eq!(log.messages()[1].time_micros, start + 30_000_000);
}

#[test]
fn a_node_checks_fences_before_duplicates_and_a_cluster_after() {
    for cluster in [false, true] {
        let log = simulated(cluster).log;
        let mut claim = under(message(CLAIMED, "a"), CLAIMED, 0);
        claim.message_id = Some("id".into());
        let first = append(&log, claim.clone()).expect("claimed");
        match append(&log, claim) {
            Ok(appended) => assert!(
                cluster
                    && appended
                        == Appended {
                            sequence: first.sequence,
                            duplicate: true
                        }
            ),
            Err(AppendError::Fenced { .. }) => assert!(!cluster),
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a_cut_off_handle_knows_it_and_resumes_without_a_gap() {
    let log = simulated(false).log;
    let replica = log.handle("replica-a");
    let mut tail = replica.tail(vec!["swarm.>".into()], 0);
    append(&log, submitted("a")).expect("stored");
    assert_eq!(yielded(&mut tail), ["a", "CaughtUp"]);
    log.disconnect("replica-a");
    append(&log, submitted("b")).expect("the other handle is connected");
    assert!(matches!(
        append(&replica, submitted("lost")),
        Err(AppendError::Unknown { .. })
    ));
    assert!(matches!(
        replica.info().now_or_never(),
        Some(Err(LogError::Unreachable(_)))
    ));
    assert_eq!(yielded(&mut tail), ["Interrupted"]);
    log.reconnect("replica-a");
    assert_eq!(yielded(&mut tail), ["Resumed", "b", "CaughtUp"]);
    log.interrupt_tails("replica-a");
    assert_eq!(yielded(&mut tail), ["Interrupted", "Resumed", "CaughtUp"]);
}

#[test]
fn a_prefix_of_a_batch_can_be_seen() {
    let log = simulated(false).log;
    let mut tail = log.tail(vec!["swarm.>".into()], 0);
    assert_eq!(yielded(&mut tail), ["CaughtUp"]);
    log.limit_tails("main", Some(1_001));
    log.append_atomic(["a", "b", "c"].map(submitted).into())
        .now_or_never()
        .expect("immediate")
        .expect("stored");
    assert_eq!(yielded(&mut tail), ["a", "b"]);
    let mut fresh = log.tail(vec!["swarm.>".into()], 0);
    assert_eq!(yielded(&mut fresh), ["a", "b"]); // not caught up: the third is stored
    log.limit_tails("main", None);
    assert_eq!(yielded(&mut tail), ["c"]);
    assert_eq!(yielded(&mut fresh), ["c", "CaughtUp"]);
}

#[test]
fn a_full_log_says_so() {
    let log = SimulatedLog::new(SimulatedSettings {
        bytes_max: 100,
        ..SimulatedSettings::default()
    });
    append(&log, submitted("a")).expect("fits");
    let refusal = append(&log, submitted(&"x".repeat(100))).expect_err("full");
    assert!(matches!(refusal, AppendError::Full { .. }));
    assert_eq!(log.messages().len(), 1);
}

#[test]
fn the_same_seed_gives_the_same_log() {
    let run = |seed: u64| {
        let log = simulated(true).log;
        log.set_faults(
            "main",
            Faults::seeded(
                seed,
                FaultRates {
                    lost_ack: 100,
                    lost_message: 100,
                    ghost: 100,
                    busy: 50,
                    full: 20,
                },
            ),
        );
        let outcomes: Vec<_> = (0..200)
            .map(|number| append(&log, submitted(&number.to_string())).is_ok())
            .collect();
        log.release_ghosts();
        (outcomes, log.messages())
    };
    assert_eq!(run(71), run(71));
    assert_ne!(run(71), run(72));
}
