//! The layout of the state in snapshots.

use sha2::{Digest, Sha256};
use swarm_distributor_core::Distributor;
use swarm_events::{
    Subject,
    agent::Cause,
    configuration::Algorithm,
    decider::Decider,
    subject::{CommandVerb, TaskVerb},
    task::DependencyType::{Completion, Data, Success},
};

use crate::scene::Scene;

/// [`Decider::FORMAT`], and the SHA-256 of the scene's state in postcard.
const GOLDEN: (u32, &str) = (
    6,
    "782772f74feab5bf756a32bd49ff235823a1c0748e6b93fbccb042bcc7b7cbae",
);

/// A state with something in every field: each phase, edges of each kind, ends of each kind, open commands, refusals, sums.
fn scene() -> Scene {
    let mut s = Scene::with(|c| {
        c.distribution_algorithm = Algorithm::Affinity;
        c.health.fast_failures_max = 1;
        c.health.stuck_after_ms = 5_000;
    });
    s.join_as("A", 2, 1, &["x", "y"]);
    s.join_as("B", 1, 0, &[]);
    s.submit_as("completed", |t| t.required_capabilities = vec!["x".into()]);
    s.submit("failed");
    s.submit("put away");
    s.world.settle();
    s.start("completed");
    s.start("failed");
    s.start("put away");
    s.complete("completed");
    s.fail_attempt("failed", false);
    s.fail_attempt("put away", false);
    s.world.settle();
    s.command(CommandVerb::Discard, "put away");
    s.world.settle();
    s.submit("cancelled");
    s.command(CommandVerb::Cancel, "cancelled");
    s.submit_as("rejected", |t| t.priority = 0);
    s.world.settle();
    s.submit("running");
    s.submit("delayed");
    s.submit("assigned");
    s.world.settle();
    s.start("running");
    s.start("delayed");
    s.fail_attempt("delayed", true);
    s.world.settle();
    s.suspect("B");
    s.part("g", 0, 2, "first", &[]);
    s.part(
        "g",
        1,
        2,
        "second",
        &[("first", Data), ("running", Success)],
    );
    s.world.settle();
    let edges = s.edges(&[("completed", Data), ("delayed", Completion)]);
    s.submit_as("pending", |t| t.depends_on = edges);
    for n in 0..4 {
        s.submit_as(&format!("queued {n}"), |t| {
            t.priority = 9;
            t.affinity_key = Some("left".to_owned());
            t.queue_timeout_ms = Some(60_000);
            t.progress_timeout_ms = Some(5_000);
        });
    }
    for n in 0..2 {
        s.part("off", n, 2, &format!("called off {n}"), &[]);
    }
    s.world.settle();
    s.world.later(1_000);
    s.world.settle();
    s.progress("running");
    // Agents that rest, each in a way of its own; a declined task; one that is stuck.
    for task in ["declined", "stuck", "fails fast"] {
        s.submit_as(task, |t| {
            t.required_capabilities = vec!["barred".into()];
            t.timeout_ms = Some(3_600_000);
            t.priority = 10;
        });
    }
    s.join_as("barred", 3, 0, &["barred"]);
    s.join("drains");
    s.join("rests");
    s.world.settle();
    s.decline("declined");
    s.world.settle();
    s.join_as("other", 1, 0, &["barred"]);
    s.world.settle();
    s.start("stuck");
    s.world.later(5_000);
    s.world.settle();
    s.drain("drains");
    s.quarantine("rests", Cause::Stuck);
    let until = s.world.now.plus_millis(1);
    s.quarantine_until("rests", Cause::FastFailures, Some(until));
    s.world.settle();
    s.start("fails fast");
    s.fail_attempt("fails fast", true);
    s.decline("declined");
    s.command(CommandVerb::CancelGraph, "off");
    s.world.decide(1);
    s.world.deliver();
    // From here on nothing is answered.
    s.part("staged", 0, 2, "staged part", &[]);
    s.command(CommandVerb::Retry, "failed");
    s.command(CommandVerb::Cancel, "running");
    s.command(CommandVerb::Cancel, "nobody");
    s.command(CommandVerb::CancelGraph, "no graph");
    s.command(CommandVerb::Discard, "failed");
    s.submit_as("ending", |t| t.priority = 0);
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None).to_string();
    s.world.store(&subject, br#"{"source": "broken"}"#.to_vec());
    s
}

#[test]
fn a_changed_layout_needs_a_higher_format() {
    let s = scene();
    for (task, status) in [
        ("completed", "completed"),
        ("failed", "failed"),
        ("cancelled", "cancelled"),
        ("running", "running"),
        ("pending", "pending"),
        ("queued 3", "queued"),
        ("called off 0", "queued"),
        ("put away", "failed"),
        ("declined", "queued"),
        ("stuck", "running"),
    ] {
        assert_eq!(scene().status(task), status, "{task}");
    }
    {
        let mut s = scene();
        assert!(s.agent("drains").draining);
        assert_eq!(s.agent("rests").quarantine.len(), 2);
        assert!(s.agent("barred").barred_until.is_some());
        assert_eq!(s.agent("barred").stuck, 1);
        assert_eq!(s.view("declined").declines, 2);
    }
    let bytes = postcard::to_stdvec(&s.world.state).expect("encoded");
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        (Distributor::FORMAT, hash.as_str()),
        GOLDEN,
        "if the layout of the state has changed, raise Distributor::FORMAT, so that snapshots of the old layout are passed \
         over; if only what this scene leads to has changed, leave it; then set GOLDEN to what is on the left"
    );
    s.folds_agree();
}
