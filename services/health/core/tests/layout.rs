//! The layout of the state: snapshots of another one are passed over.

mod support;

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};
use support::{Scene, agent, instance};
use swarm_events::{
    agent::Cause,
    configuration::HealthPolicy,
    control::Sighting,
    decider::Decider,
    swarm::{AgentLoad, Measured, Outcomes},
};
use swarm_health_core::{Health, Liveness};

/// [`Decider::FORMAT`], and the SHA-256 of the state below in postcard.
const GOLDEN: (u32, &str) = (
    3,
    "3bf3bf85a2526b9aa4a778caceafe6d237d581483375a079788414c68f1ca570",
);

#[test]
fn a_changed_layout_needs_a_higher_format() {
    // Something in every field: agents in each state, answered and open observations of each kind.
    let policy = HealthPolicy {
        memory_kib_max: 100,
        ..HealthPolicy::default()
    };
    let mut scene = Scene::with(policy, 5);
    // Processes in each phase, and a host that is gone.
    for (n, by) in [(6, 61), (7, 61), (8, 62), (9, 61)] {
        scene.runs(by, n);
    }
    scene.requested(10, 1);
    scene.claimed(61, 10, 1);
    scene.requested(11, 1);
    scene.exited(61, 7, 1);
    scene.host_gone(62);
    scene.world.settle();
    // Figures, and quarantines of both kinds.
    scene.uses(6, 100, 3);
    scene.measured(Measured {
        agents: BTreeMap::from([
            (
                agent(1),
                AgentLoad {
                    completed: 3,
                    failed: 5,
                    fast_failures: 5,
                    ..AgentLoad::default()
                },
            ),
            (
                agent(2),
                AgentLoad {
                    running: 1,
                    stuck: 1,
                    stuck_ms: 60_001,
                    ..AgentLoad::default()
                },
            ),
        ]),
        types: BTreeMap::from([(
            "a".to_owned(),
            Outcomes {
                completed: 3,
                failed: 5,
            },
        )]),
        capabilities: BTreeMap::from([("b".to_owned(), Outcomes::default())]),
        ..Measured::default()
    });
    scene.world.settle();
    assert_eq!(scene.causes(1), [Cause::FastFailures]);
    assert_eq!(scene.causes(2), [Cause::Stuck]);
    assert_eq!(scene.causes(6), [Cause::Memory]);
    for (n, sighting) in [
        (2, Sighting::Silent),
        (3, Sighting::Silent),
        (3, Sighting::Gone),
    ] {
        scene.observe(n, 1, sighting);
        scene.world.settle();
    }
    scene.sample([(agent(1), instance(1)), (agent(2), instance(2))].into_iter());
    scene.world.settle();
    scene.observe(2, 1, Sighting::Heard);
    scene.observe(4, 1, Sighting::Silent);
    scene.sample(std::iter::once((agent(5), instance(5))));
    assert_eq!(scene.liveness(2), Liveness::Suspected);
    assert_eq!(scene.liveness(3), Liveness::Failed);
    // One that was taken out, one whose next process is asked for before its end is judged, and one that is to go.
    for n in [12, 13, 14] {
        scene.runs(63, n);
    }
    scene.removed(12, 1);
    scene.exited(63, 13, 1);
    scene.requested(13, 2);
    scene.scaled_down(14);
    scene.host_gone(61);
    assert_eq!(scene.world.state.open_marks(), 4);
    let bytes = postcard::to_stdvec(&scene.world.state).expect("encoded");
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        (Health::FORMAT, hash.as_str()),
        GOLDEN,
        "if the layout of the state has changed, raise Health::FORMAT, so that snapshots of the old layout are passed over; \
         if only what this world leads to has changed, leave it; then set GOLDEN to what is on the left"
    );
}
