//! Hand-overs in random worlds: whatever is repeated, lost or called off, each has one end here.

use std::collections::BTreeMap;

use proptest::{prelude::*, sample::Index};
use swarm_events::{
    Body, Input,
    decider::Verdict,
    subject::CommandVerb::{Cancel, Retry},
    topology::Topology,
};
use uuid::Uuid;

use super::{THERE, hand, known, swarm};
use crate::scene::Scene;

#[derive(Clone, Debug)]
enum Op {
    Hand,
    Decide(bool, usize),
    Deliver(bool, usize),
    Claim(bool),
    /// A letter arrives, perhaps for the second time, and perhaps the log does not say so.
    Carry(bool, Index, bool),
    CancelHere(Index),
    CancelThere(Index),
    RetryHere(Index),
    RetryThere(Index),
    Start(Index),
    Complete(Index),
    Fail(Index),
    StopThere,
}

fn op() -> impl Strategy<Value = Op> {
    let at = any::<Index>;
    prop_oneof![
        3 => Just(Op::Hand),
        6 => (any::<bool>(), 1..4usize).prop_map(|(h, n)| Op::Decide(h, n)),
        6 => (any::<bool>(), 1..4usize).prop_map(|(h, n)| Op::Deliver(h, n)),
        1 => any::<bool>().prop_map(Op::Claim),
        8 => (any::<bool>(), at(), any::<bool>()).prop_map(|(h, i, said)| Op::Carry(h, i, said)),
        2 => at().prop_map(Op::CancelHere),
        1 => at().prop_map(Op::CancelThere),
        1 => at().prop_map(Op::RetryHere),
        1 => at().prop_map(Op::RetryThere),
        4 => at().prop_map(Op::Start),
        3 => at().prop_map(Op::Complete),
        1 => at().prop_map(Op::Fail),
        1 => Just(Op::StopThere),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Whatever is repeated, lost or called off, on either side: each generation of a task that is handed over has exactly
    /// one end here.
    #[test]
    fn what_is_handed_over_has_exactly_one_end_here(ops in proptest::collection::vec(op(), 1..150), stop in any::<bool>()) {
        let mut here = Scene::with(|c| c.queue_limit = 12);
        let mut there = Scene::at(swarm(THERE), Topology::default(), |c| { c.queue_limit = 6; c.max_attempts = 1; });
        there.join_as("Z", 2, 1, &[]);
        let mut tasks: Vec<String> = Vec::new();
        let mut over: Vec<String> = Vec::new();
        let mut stopped = false;
        let pick = |names: &Vec<String>, at: &Index| (!names.is_empty()).then(|| names[at.index(names.len())].clone());
        for op in ops {
            // Those that are known there by now.
            let handed: Vec<(String, u32)> = tasks.iter().filter_map(|task| Some((task.clone(), here.try_view(task)?.generation))).collect();
            over.clear();
            for (task, generation) in handed {
                let name = known(&mut here, &mut there, &task, generation);
                if there.try_view(&name).is_some() { over.push(name); }
            }
            match op {
                Op::Hand => {
                    let name = format!("t{}", tasks.len());
                    hand(&mut here, &name);
                    tasks.push(name);
                }
                Op::Decide(at_home, n) => {
                    let scene = if at_home { &mut here } else { &mut there };
                    // How far a stopping swarm's tasks have been looked at is the plan's own.
                    if stopped && !at_home {
                        scene.world.decide(n);
                        continue;
                    }
                    let decided = scene.world.decide_twice(n);
                    prop_assert!(decided.is_ok(), "{decided:?}");
                }
                Op::Deliver(at_home, n) => {
                    let scene = if at_home { &mut here } else { &mut there };
                    for _ in 0..n { scene.world.deliver(); }
                }
                Op::Claim(at_home) => if at_home { here.world.claim() } else { there.world.claim() },
                Op::Carry(at_home, at, said) => {
                    let (from, to) = if at_home { (&mut here, &mut there) } else { (&mut there, &mut here) };
                    let letters = from.letters();
                    if letters.is_empty() { continue; }
                    let (sequence, subject, event) = &letters[at.index(letters.len())];
                    to.world.event(subject, event);
                    if said { from.delivered(vec![*sequence]); }
                }
                Op::CancelHere(at) => if let Some(name) = pick(&tasks, &at) { here.command(Cancel, &name); },
                Op::RetryHere(at) => if let Some(name) = pick(&tasks, &at) { here.command(Retry, &name); },
                Op::CancelThere(at) => if let Some(name) = pick(&over, &at) { there.command(Cancel, &name); },
                Op::RetryThere(at) => if let Some(name) = pick(&over, &at) { there.command(Retry, &name); },
                Op::Start(at) | Op::Complete(at) | Op::Fail(at)
                    if pick(&over, &at).is_none_or(|name| there.view(&name).assignment.is_none()) => {}
                Op::Start(at) => { there.start(&pick(&over, &at).expect("some")); }
                Op::Complete(at) => { there.complete(&pick(&over, &at).expect("some")); }
                Op::Fail(at) => { there.fail_attempt(&pick(&over, &at).expect("some"), false); }
                Op::StopThere => if stop { there.stop_swarm(); stopped = true; },
            }
        }
        for _ in 0..40 {
            here.mail(&mut there);
            there.world.later(2_000);
            for task in &tasks {
                let generation = here.view(task).generation;
                let name = known(&mut here, &mut there, task, generation);
                if there.try_view(&name).is_some_and(|view| view.assignment.is_some()) {
                    there.start(&name);
                    there.complete(&name);
                }
            }
            there.mail(&mut here);
            here.world.later(2_000);
        }
        let mut ends: BTreeMap<(Uuid, u32), usize> = BTreeMap::new();
        for (stored, verdict) in here.world.log.iter().zip(&here.world.verdicts) {
            let (Input::Event(r), Verdict::Applied) = (stored.input(), verdict) else { continue };
            let about = r.event.about;
            let generation = match r.event.body {
                Body::TaskHandedBack(e) => e.generation,
                Body::TaskFailed(e) => e.generation,
                Body::TaskCancelled(e) => e.generation,
                Body::TaskRejected(_) => 1,
                Body::TaskAssigned(_) => { prop_assert!(false, "it was assigned here"); 0 }
                _ => continue,
            };
            *ends.entry((about, generation)).or_default() += 1;
        }
        for task in &tasks {
            let view = here.view(task);
            prop_assert!(view.status.ended(), "{task}: {view:?}");
            let id = here.id(task);
            let mut generations = 0;
            for (_, count) in ends.range((id, 0)..=(id, u32::MAX)) {
                prop_assert_eq!(*count, 1, "{}", task);
                generations += 1;
            }
            prop_assert!(generations >= 1, "{}", task);
        }
        prop_assert!(here.letters().is_empty() && there.letters().is_empty());
        let counters = here.world.state.counters(here.place).expect("known");
        prop_assert_eq!(counters.pending + counters.queued + counters.ending, 0);
        here.folds_agree();
        there.folds_agree();
    }
}
