//! Rules of the verdicts, and random histories in which every fold must agree, the coordinator's too.

mod support;

use proptest::prelude::*;
use support::{Scene, agent, evidence, instance, place};
use swarm_coordinator_core::{self as coordinator, Coordinator};
use swarm_events::{
    Body, Subject,
    agent::{Left, Removed},
    configuration::Configuration,
    control::Sighting,
    decider::{Decider, Verdict},
    subject::{AgentVerb, SwarmVerb},
    swarm::{Deleted, SAMPLE_AGENTS_MAX, Stopping, Updated},
};
use swarm_health_core::{Health, Liveness};

#[test]
fn silence_is_suspicion_and_a_heartbeat_lifts_it() {
    let mut scene = Scene::with_a_member();
    assert_eq!(scene.observe(1, 1, Sighting::Silent), Verdict::Applied);
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Suspected);
    assert_eq!(scene.observe(1, 1, Sighting::Heard), Verdict::Applied);
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Alive);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn loss_is_judged_at_once_or_after_suspicion_and_for_good() {
    for first in [None, Some(Sighting::Silent)] {
        let mut scene = Scene::with_a_member();
        if let Some(first) = first {
            scene.observe(1, 1, first);
            scene.world.settle();
        }
        scene.observe(1, 1, Sighting::Gone);
        scene.world.settle();
        assert_eq!(scene.liveness(1), Liveness::Failed);
        for late in [Sighting::Heard, Sighting::Silent, Sighting::Gone] {
            assert_eq!(scene.observe(1, 1, late), Verdict::Void("nothing-new"));
        }
    }
}

#[test]
fn a_verdict_carries_its_evidence_and_names_the_observation() {
    let mut scene = Scene::with_a_member();
    scene.observe(1, 1, Sighting::Gone);
    let observation = scene.world.inputs().last().expect("stored");
    let swarm_events::Input::Event(observation) = observation else {
        panic!("readable")
    };
    scene.world.settle();
    let answer = scene.world.answer(observation.event.id.0);
    let Body::AgentFailed(failed) = answer.body else {
        panic!("{answer:?}")
    };
    assert_eq!((failed.incarnation, failed.evidence), (1, evidence()));
}

#[test]
fn another_incarnation_or_nobody_is_not_judged() {
    let mut scene = Scene::with_a_member();
    scene.join(1, 2, 2);
    assert_eq!(
        scene.observe(1, 1, Sighting::Gone),
        Verdict::Void("other-incarnation")
    );
    assert_eq!(
        scene.observe(2, 1, Sighting::Gone),
        Verdict::Void("unknown-agent")
    );
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Alive);
}

#[test]
fn an_observation_of_who_leaves_meanwhile_is_dropped() {
    let mut scene = Scene::with_a_member();
    scene.observe(1, 1, Sighting::Gone);
    let left = Left {
        incarnation: 1,
        reason: "done".into(),
    };
    scene.coordinator(
        Subject::Agent(place(), AgentVerb::Left, agent(1)),
        agent(1).0,
        left,
    );
    assert_eq!(scene.world.state.open_marks(), 0);
    assert_eq!(scene.world.decide(10), 0);
}

#[test]
fn a_verdict_that_crosses_a_new_incarnation_is_void() {
    let mut scene = Scene::with_a_member();
    scene.observe(1, 1, Sighting::Gone);
    assert_eq!(scene.world.decide(10), 1);
    scene.join(1, 2, 2);
    assert_eq!(
        scene.world.deliver(),
        Some(Verdict::Void("other-incarnation"))
    );
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Alive);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn the_newest_observation_counts() {
    let mut scene = Scene::with_a_member();
    scene.observe(1, 1, Sighting::Silent);
    assert_eq!(
        scene.observe(1, 1, Sighting::Heard),
        Verdict::Applied,
        "it takes the silence back"
    );
    assert_eq!(scene.world.decide(10), 0);
    // Under way already: the loss behind it is judged all the same, also when its decision is lost.
    scene.observe(1, 1, Sighting::Silent);
    scene.world.decide(10);
    scene.observe(1, 1, Sighting::Gone);
    scene.world.deliver();
    assert_eq!(scene.liveness(1), Liveness::Suspected);
    scene.world.claim();
    scene.world.settle();
    assert_eq!(scene.liveness(1), Liveness::Failed);
    assert_eq!(scene.world.state.open_marks(), 0);
}

#[test]
fn samples_become_one_event_of_those_who_are_known() {
    let mut scene = Scene::with_a_member();
    let known = (agent(1), instance(1));
    let strangers = [(agent(1), instance(9)), (agent(7), instance(7))];
    assert_eq!(
        scene.sample(strangers.into_iter()),
        Verdict::Void("unknown-agents")
    );
    assert_eq!(
        scene.sample([known, strangers[1]].into_iter()),
        Verdict::Applied
    );
    scene.world.settle();
    let Some(swarm_events::Input::Event(last)) = scene.world.inputs().last() else {
        panic!("stored")
    };
    let Body::SwarmSampled(sampled) = last.event.body else {
        panic!("{:?}", last.event.body)
    };
    assert_eq!(
        sampled.agents.keys().copied().collect::<Vec<_>>(),
        [agent(1)]
    );
    assert_eq!(scene.world.state.open_marks(), 0);
    let many = (0..=SAMPLE_AGENTS_MAX as u128).map(|n| (agent(n), instance(n)));
    assert_eq!(scene.sample(many), Verdict::Void("part-too-large"));
}

#[derive(Clone, Debug)]
enum Step {
    Join(u128, u64),
    Left(u128, u64),
    Removed(u128, u64),
    Observe(u128, u64, u8),
    Update(u64),
    Stop,
    Delete,
    Sample(u128),
    Decide(usize),
    Deliver,
    Claim,
}
fn step() -> impl Strategy<Value = Step> {
    let agents = 1u128..4;
    prop_oneof![
        5 => (agents.clone(), 1u64..5).prop_map(|(a, i)| Step::Join(a, i)),
        1 => (agents.clone(), 1u64..5).prop_map(|(a, i)| Step::Left(a, i)),
        1 => (agents.clone(), 1u64..5).prop_map(|(a, i)| Step::Removed(a, i)),
        8 => (agents.clone(), 1u64..4, 0u8..3).prop_map(|(a, i, s)| Step::Observe(a, i, s)),
        1 => (100u64..5_000).prop_map(Step::Update),
        1 => Just(Step::Stop),
        1 => Just(Step::Delete),
        2 => agents.prop_map(Step::Sample),
        6 => (1usize..4).prop_map(Step::Decide),
        6 => Just(Step::Deliver),
        1 => Just(Step::Claim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_fold_agrees_and_nothing_stays_open(steps in prop::collection::vec(step(), 1..100)) {
        let mut scene = Scene::new();
        scene.create();
        let mut snapshot = None;
        let at = |verb, n| Subject::Agent(place(), verb, agent(n));
        for (n, step) in steps.iter().enumerate() {
            match *step {
                Step::Join(a, i) => { scene.join(a, i, a * 10 + u128::from(i)); }
                Step::Left(a, incarnation) => {
                    scene.coordinator(at(AgentVerb::Left, a), agent(a).0, Left { incarnation, reason: String::new() });
                }
                Step::Removed(a, incarnation) => {
                    scene.coordinator(at(AgentVerb::Removed, a), agent(a).0, Removed { incarnation, reason: String::new() });
                }
                Step::Observe(a, i, s) => {
                    let sighting = [Sighting::Silent, Sighting::Gone, Sighting::Heard][usize::from(s)];
                    scene.observe(a, i, sighting);
                }
                Step::Update(interval) => {
                    let configuration = Configuration { heartbeat_interval_ms: interval, ..Configuration::default() };
                    scene.swarm(SwarmVerb::Updated, Updated { name: "s".into(), description: None, configuration });
                }
                Step::Stop => { scene.swarm(SwarmVerb::Stopping, Stopping {}); }
                Step::Delete => { scene.swarm(SwarmVerb::Deleted, Deleted {}); }
                Step::Sample(a) => { scene.sample(std::iter::once((agent(a), instance(a * 10 + 1)))); }
                Step::Decide(limit) => { scene.world.decide(limit); }
                Step::Deliver => { scene.world.deliver(); }
                Step::Claim => scene.world.claim(),
            }
            if n == steps.len() / 2 {
                let bytes = postcard::to_stdvec(&scene.world.state).expect("encoded");
                snapshot = Some((scene.world.log.len(), bytes));
            }
        }
        scene.world.claim();
        scene.world.settle();
        prop_assert_eq!(scene.world.state.open_marks(), 0);
        let owner = postcard::to_stdvec(&scene.world.state).expect("encoded");
        prop_assert_eq!(&postcard::to_stdvec(&scene.world.cold()).expect("encoded"), &owner);
        let (from, bytes) = snapshot.expect("taken in the middle");
        let mut state: Health = postcard::from_bytes(&bytes).expect("decoded");
        for stored in &scene.world.log[from..] {
            state.evolve(&stored.input(), None);
        }
        prop_assert_eq!(&postcard::to_stdvec(&state).expect("encoded"), &owner);

        // The coordinator's fold of the same log finds the same of every agent, and the same events void.
        let mut other = Coordinator::new(place().partition);
        for (stored, verdict) in scene.world.log.iter().zip(&scene.world.verdicts) {
            let input = stored.input();
            let theirs = other.evolve(&input, None);
            if let swarm_events::Input::Event(recorded) = &input
                && matches!(recorded.subject, Subject::Agent(..))
            {
                prop_assert_eq!(theirs, *verdict, "{:?}", recorded);
            }
        }
        let theirs = other.swarm(place().org, place().swarm).expect("there");
        let ours = scene.world.state.swarm(place().org, place().swarm).expect("there");
        for (id, agent) in &ours.agents {
            let same = &theirs.agents[id];
            prop_assert_eq!(same.incarnation, agent.incarnation);
            prop_assert_eq!(same.is_live(), agent.member);
            let liveness = match agent.liveness {
                Liveness::Alive => coordinator::Liveness::Alive,
                Liveness::Suspected => coordinator::Liveness::Suspected,
                Liveness::Failed => coordinator::Liveness::Failed,
            };
            prop_assert_eq!(same.liveness, liveness);
        }
    }
}
