//! Random histories: commands, other services' events, garbage, decisions that are stored late, in part or never, and new
//! claims at any point. The rules that must hold in every one of them.

mod others;
mod rules;
mod run;
mod step;
#[path = "../support/mod.rs"]
mod support;

use proptest::prelude::*;
use swarm_coordinator_core::Coordinator;
use swarm_events::{Body, decider::Decider};

use self::{
    rules::{ends_once, invariants, settled},
    run::Run,
    step::step,
};

fn bytes(state: &Coordinator) -> Vec<u8> {
    postcard::to_stdvec(state).expect("a state can be encoded")
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_is_answered_once_and_every_fold_agrees(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        let mut snapshot = None;
        for (n, step) in steps.iter().enumerate() {
            run.take(step);
            invariants(&run.given.0.state);
            if n == steps.len() / 2 {
                snapshot = Some((run.given.0.log.len(), bytes(&run.given.0.state)));
            }
        }
        run.given.0.claim();
        run.given.0.run_out();
        invariants(&run.given.0.state);
        prop_assert_eq!(run.given.0.state.open_marks(), 0);
        for swarm in run.given.0.state.swarms() {
            settled(swarm);
        }
        ends_once(&run);
        // No number of a request and no incarnation comes twice.
        let mut seen = std::collections::BTreeSet::new();
        run.given.valid(|subject, body| {
            let number = match body {
                Body::AgentSpawnRequested(r) => ("spawn", r.spawn),
                Body::AgentSpawnClaimed(c) => ("claim", c.spawn),
                Body::AgentLaunched(l) => ("launch", l.spawn),
                Body::AgentJoined(j) => ("join", j.incarnation),
                Body::AgentRemoved(r) => ("end", r.incarnation),
                Body::AgentLeft(l) => ("end", l.incarnation),
                Body::AgentCrashLooping(c) => ("loop", c.spawn),
                _ => return None::<()>,
            };
            let of = subject.to_string();
            let of = of.rsplit_once('.').map(|(_, agent)| agent.to_owned());
            let place = subject.place();
            assert!(seen.insert((place, of, number)), "twice: {number:?} {subject}");
            None
        });

        let world = &run.given.0;
        for id in &run.commands {
            let answers = world.answers(*id);
            let first = answers.first().map(|answer| &answer.body);
            // An organization comes as three events, a change of topology as two.
            let expected = match first {
                Some(Body::OrgCreated(_)) => 3,
                Some(Body::SwarmTopologyPlanned(_)) => 2,
                _ => 1,
            };
            prop_assert_eq!(answers.len(), expected, "answers to {}: {:?}", id, answers);
        }

        let owner = bytes(&world.state);
        prop_assert_eq!(&bytes(&world.cold()), &owner);
        let (from, state) = snapshot.expect("taken in the middle");
        let mut state: Coordinator = postcard::from_bytes(&state).expect("a snapshot can be read");
        for stored in &world.log[from..] {
            state.evolve(&stored.input(), None);
        }
        prop_assert_eq!(&bytes(&state), &owner);
    }
}
