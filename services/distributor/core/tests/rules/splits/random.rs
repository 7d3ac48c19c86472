//! Wholes and parts in random worlds: whatever happens, each ends exactly once.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use swarm_events::{
    Body, Input,
    decider::Verdict,
    subject::CommandVerb::{Cancel, Retry},
};
use uuid::Uuid;

use crate::scene::Scene;

#[derive(Clone, Debug)]
enum Op {
    Submit,
    Start(Index),
    Complete(Index),
    Split(Index, usize),
    FailAttempt(Index, bool),
    Cancel(Index),
    Retry(Index),
    LoseAgent(usize),
    Decide(usize),
    Deliver(usize),
    Claim,
    Later(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<Index>;
    prop_oneof![
        2 => Just(Op::Submit),
        6 => at().prop_map(Op::Start),
        5 => at().prop_map(Op::Complete),
        5 => (at(), 1..4usize).prop_map(|(i, n)| Op::Split(i, n)),
        2 => (at(), any::<bool>()).prop_map(|(i, again)| Op::FailAttempt(i, again)),
        1 => at().prop_map(Op::Cancel),
        1 => at().prop_map(Op::Retry),
        1 => (0..3usize).prop_map(Op::LoseAgent),
        6 => (1..5usize).prop_map(Op::Decide),
        6 => (1..5usize).prop_map(Op::Deliver),
        1 => Just(Op::Claim),
        2 => (1..3_000u64).prop_map(Op::Later),
    ]
}

/// The tasks that live or lived, and how often each generation has ended, by the log alone.
fn ends(s: &Scene) -> BTreeMap<Uuid, usize> {
    let mut ends = BTreeMap::new();
    for (stored, verdict) in s.world.log.iter().zip(&s.world.verdicts) {
        let (Input::Event(recorded), Verdict::Applied) = (stored.input(), verdict) else {
            continue;
        };
        let about = recorded.event.about;
        match recorded.event.body {
            Body::TaskCompleted(_)
            | Body::TaskFailed(_)
            | Body::TaskCancelled(_)
            | Body::TaskRejected(_) => *ends.entry(about).or_default() += 1,
            // Another generation.
            Body::TaskRetried(retried) if retried.attempts == 0 && retried.generation > 1 => {
                *ends.entry(about).or_default() -= 1;
            }
            _ => {}
        }
        let open = ends.get(&about).copied().unwrap_or_default();
        assert!(open <= 1, "{about} ended twice");
    }
    ends
}

const AGENTS: [&str; 3] = ["A", "B", "C"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever happens, each task and each part ends exactly once, none is lost, and a whole ends after its parts decide
    /// how: it completes only if all of them have.
    #[test]
    fn wholes_and_parts_end_exactly_once(ops in proptest::collection::vec(op(), 1..120)) {
        let mut s = Scene::with(|c| {
            c.max_attempts = 2;
            c.queue_limit = 60;
        });
        for agent in AGENTS {
            s.join_as(agent, 2, 1, &[]);
        }
        let mut names: Vec<String> = Vec::new();
        let pick = |names: &Vec<String>, at: &Index| -> Option<String> {
            (!names.is_empty()).then(|| names[at.index(names.len())].clone())
        };
        for op in ops {
            match op {
                Op::Submit => {
                    let name = format!("t{}", names.len());
                    s.submit(&name);
                    names.push(name);
                }
                Op::Start(at) | Op::Complete(at) | Op::Split(at, _) | Op::FailAttempt(at, _)
                    if pick(&names, &at).is_none_or(|name| s.view(&name).assignment.is_none()) => {}
                Op::Start(at) => {
                    let name = pick(&names, &at).expect("some");
                    s.start(&name);
                }
                Op::Complete(at) => {
                    let name = pick(&names, &at).expect("some");
                    s.complete(&name);
                }
                Op::Split(at, parts) => {
                    let name = pick(&names, &at).expect("some");
                    let keys: Vec<String> = (0..parts).map(|n| format!("g{}p{n}", s.world.log.len())).collect();
                    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                    if s.split(&name, &keys) == Verdict::Applied && s.view(&name).parts.is_some() {
                        names.extend(keys.iter().map(|key| format!("{name}/{key}")));
                    }
                }
                Op::FailAttempt(at, again) => {
                    let name = pick(&names, &at).expect("some");
                    s.fail_attempt(&name, again);
                }
                Op::Cancel(at) => {
                    if let Some(name) = pick(&names, &at) {
                        s.command(Cancel, &name);
                    }
                }
                Op::Retry(at) => {
                    if let Some(name) = pick(&names, &at) {
                        s.command(Retry, &name);
                    }
                }
                Op::LoseAgent(n) => {
                    s.join_as(AGENTS[n], 2, 1, &[]);
                }
                Op::Decide(limit) => {
                    let decided = s.world.decide_twice(limit);
                    prop_assert!(decided.is_ok(), "{decided:?}");
                }
                Op::Deliver(n) => (0..n).for_each(|_| { s.world.deliver(); }),
                Op::Claim => s.world.claim(),
                Op::Later(ms) => s.world.later(ms),
            }
        }
        // The faults are over: agents do what they are given.
        for _ in 0..200 {
            s.world.later(2_000);
            let held: Vec<String> = names.iter().filter(|name| s.view(name).assignment.is_some()).cloned().collect();
            for name in held {
                s.start(&name);
                s.complete(&name);
            }
        }
        s.world.settle();
        let ends = ends(&s);
        for name in &names {
            let id = s.id(name);
            let view = s.view(name);
            prop_assert!(view.status.ended(), "{name}: {view:?}");
            prop_assert_eq!(ends.get(&id), Some(&1), "{}", name);
        }
        let counters = s.world.state.counters(s.place).expect("known");
        prop_assert_eq!(counters.pending + counters.queued + counters.assigned + counters.running + counters.ending, 0);
        prop_assert_eq!(counters.completed + counters.failed + counters.cancelled,
            s.world.verdicts.iter().zip(&s.world.log).filter(|(v, m)| **v == Verdict::Applied && matches!(m.input(), Input::Event(r) if matches!(r.event.body, Body::TaskCompleted(_) | Body::TaskFailed(_) | Body::TaskCancelled(_) | Body::TaskRejected(_)))).count() as u64);
        s.folds_agree();
    }
}
