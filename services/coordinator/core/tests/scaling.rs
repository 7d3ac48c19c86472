//! Rules about how many agents a swarm has: by order, and at least as many as it is to have.

mod support;

use support::{
    Given, agent,
    hosts::{code, each_way, slot, spec},
    join, pair, place,
};
use swarm_coordinator_core::{Lifecycle, Membership};
use swarm_events::{
    AgentId, Body, Subject,
    agent::{AgentSpec, Restart},
    command::{Delete, Scale},
    subject::CommandVerb,
    swarm::{SCALE_STEP_MAX, Scaled},
};
use uuid::Uuid;

fn scaled(given: &Given, id: Uuid) -> Scaled {
    match given.0.answer(id).body {
        Body::SwarmScaled(scaled) => scaled,
        other => panic!("not scaled: {other:?}"),
    }
}

/// The agents that are wanted or live.
fn there(given: &Given) -> Vec<AgentId> {
    let agents = given.swarm(1).agents.iter();
    let there = agents.filter(|(_, agent)| agent.holds_place());
    there.map(|(id, _)| *id).collect()
}

#[test]
fn scaling_up_makes_agents_like_the_last_one_that_was_added() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.add(1, spec("other"));
        let mut wanted = spec("worker");
        wanted.agent_name = Some("ann".into());
        wanted.slots = Some(4);
        given.add(2, wanted);
        given.add(3, slot("place"));
        let id = given.scale(Some(6), None, None);
        let answer = scaled(&given, id);
        assert_eq!((answer.before, answer.desired), (3, 6));
        assert_eq!(answer.like, Some(agent(2)), "the last with an adapter");
        assert_eq!((answer.add.len(), answer.remove.len()), (3, 0));
        for new in &answer.add {
            let found = &given.swarm(1).agents[new];
            let managed = found.managed.as_ref().expect("it is wanted");
            let expected = AgentSpec {
                agent_name: Some(found.profile.agent_name.clone()),
                ..given.managed(2).spec.clone()
            };
            assert_eq!(managed.spec, expected);
            assert!(found.profile.agent_name.starts_with("worker-"));
            assert_eq!(managed.spawn, 1, "its process is requested");
        }
        assert_eq!(there(&given).len(), 6);
        // By type it counts and copies that type alone.
        let id = given.scale(None, Some(2), Some("other"));
        let answer = scaled(&given, id);
        assert_eq!(
            (answer.before, answer.desired, answer.like),
            (1, 3, Some(agent(1)))
        );
        assert_eq!(there(&given).len(), 8);
        // To the same number is no change, and says so.
        let id = given.scale(None, Some(0), None);
        let answer = scaled(&given, id);
        assert_eq!((answer.before, answer.desired, answer.add.len()), (8, 8, 0));
        assert_eq!(given.0.cold(), given.0.state);
    });
}

#[test]
fn scaling_down_takes_the_least_useful_first_and_lets_them_finish() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"drain_grace_ms": 4000}"#);
        given.join(1, join(1, None));
        given.join(2, join(2, None));
        given.running(3);
        given.running(4);
        let mut looping = spec("worker");
        looping.restart.crash_limit = 1;
        given.add(5, looping);
        given.claim(5, 1, 1);
        given.exit(5, 1, 1, code(1), 1);
        given.add(6, spec("worker"));
        given.add(7, slot("worker"));
        let mut order = Vec::new();
        for _ in 0..7 {
            let id = given.scale(None, Some(-1), None);
            let answer = scaled(&given, id);
            assert_eq!(answer.remove.len(), 1);
            order.push(answer.remove[0]);
        }
        // Given up; never joined, the youngest first; managed; by themselves.
        assert_eq!(order, [5, 7, 6, 4, 3, 2, 1].map(agent));
        for n in [5, 6, 7] {
            assert_eq!(given.agent(n).membership, Membership::Removed, "{n}");
        }
        for n in 1..=4 {
            let found = given.agent(n);
            let draining = found.draining.clone().expect("it drains");
            assert_eq!(draining.grace_ms, 4_000);
            assert!(
                found.is_live() && draining.reason.starts_with("scaled to "),
                "{}",
                draining.reason
            );
        }
        let id = given.scale(Some(0), None, None);
        let answer = scaled(&given, id);
        assert_eq!(
            (answer.before, answer.remove.len()),
            (0, 0),
            "they are on their way"
        );
        given.leave(3, 1);
        given.exit(3, 1, 1, code(0), 60_000);
        given.later(4_000);
        assert_eq!(given.swarm(1).live_agents(), 0);
        assert_eq!(given.requests(3).len(), 1);
        // From nothing up again, like the last one that was there.
        let id = given.scale(Some(1), None, None);
        assert_eq!(scaled(&given, id).like, Some(agent(6)));
    });
}

#[test]
fn one_that_is_being_restarted_can_be_scaled_away() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        given.restart(1, false);
        let id = given.scale(Some(0), None, None);
        assert_eq!(scaled(&given, id).remove, [agent(1)]);
        given.leave(1, 1);
        given.exit(1, 1, 1, code(0), 60_000);
        assert_eq!(given.requests(1).len(), 1);
        assert_eq!(given.agent(1).lifecycle(), Lifecycle::Stopped);
    });
}

#[test]
fn a_scaling_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm(r#"{"min_agents": 1, "max_agents": 4}"#);
    given.join(1, join(1, None));
    let id = given.scale(Some(2), None, None);
    let problem = given.refusal(id);
    assert_eq!(
        (problem.code.as_str(), problem.field.as_deref()),
        ("nothing-alike", Some("agent_type"))
    );
    let cure = problem.cure.expect("a cure");
    assert!(
        cure.contains("POST /swarms/{id}/agents with a command"),
        "{cure}"
    );
    given.add(2, slot("worker"));
    let id = given.scale(None, Some(1), None);
    assert_eq!(
        given.refused(id),
        pair("nothing-alike", "agent_type"),
        "places are no pattern"
    );
    given.add(3, spec("worker"));
    for (desired, delta, kind, code, field) in [
        (None, None, None, "missing", "desired"),
        (Some(1), Some(1), None, "contradiction", "delta"),
        (Some(5), None, None, "max-agents", "desired"),
        (None, Some(2), None, "max-agents", "delta"),
        (Some(0), None, None, "min-agents", "desired"),
        (None, Some(-3), None, "min-agents", "delta"),
        (None, Some(-4), None, "out-of-range", "delta"),
        (None, Some(i64::MAX), None, "out-of-range", "delta"),
        (None, Some(i64::MIN), None, "out-of-range", "delta"),
        (Some(u32::MAX), None, None, "too-many", "desired"),
        (None, Some(1), Some(""), "empty", "agent_type"),
        (
            None,
            Some(1),
            Some("unheard-of"),
            "nothing-alike",
            "agent_type",
        ),
        (None, Some(2), Some("exec"), "max-agents", "delta"),
    ] {
        let id = given.scale(desired, delta, kind);
        let found = given.refused(id);
        assert_eq!(found, pair(code, field), "{desired:?} {delta:?} {kind:?}");
    }
    let id = given.scale(Some(4), None, None);
    assert_eq!(scaled(&given, id).add.len(), 1, "at the limit");
    let id = given.scale(Some(1), None, None);
    assert_eq!(scaled(&given, id).remove.len(), 3);
    // By type, the others count for the limits of the whole.
    let id = given.scale(Some(0), None, Some("exec"));
    assert_eq!(given.refused(id), pair("min-agents", "desired"));
}

#[test]
fn those_that_are_about_to_go_still_have_their_places() {
    let mut given = Given::a_swarm(r#"{"max_agents": 2}"#);
    given.running(1);
    given.running(2);
    given.scale(Some(1), None, None);
    let id = given.scale(Some(2), None, None);
    let problem = given.refusal(id);
    assert_eq!(problem.code, "max-agents");
    assert!(problem.detail.contains("1 of them"), "{}", problem.detail);
    given.leave(2, 1);
    let id = given.scale(Some(2), None, None);
    assert_eq!(scaled(&given, id).add.len(), 1);
}

#[test]
fn a_step_has_a_limit_and_at_the_limit_it_is_taken() {
    let mut given = Given::a_swarm(r#"{"max_agents": 5000, "max_workers": 5000}"#);
    given.add(1, spec("worker"));
    let step = u32::try_from(SCALE_STEP_MAX).expect("small");
    let id = given.scale(Some(step + 2), None, None);
    assert_eq!(given.refused(id), pair("too-many", "desired"));
    let id = given.scale(Some(step + 1), None, None);
    assert_eq!(scaled(&given, id).add.len(), SCALE_STEP_MAX);
    let subject = Subject::Swarm(place(1), swarm_events::subject::SwarmVerb::Scaled).to_string();
    let stored = given.0.log.iter().find(|stored| stored.subject == subject);
    assert!(stored.expect("stored").payload.len() < 100_000);
    assert_eq!(there(&given).len(), SCALE_STEP_MAX + 1);
    let all = given.swarm(1).agents.values();
    assert!(
        all.clone()
            .all(|a| a.managed.as_ref().is_some_and(|m| m.spawn == 1))
    );
    let id = given.scale(Some(1), None, None);
    assert_eq!(scaled(&given, id).remove.len(), SCALE_STEP_MAX);
    assert_eq!(there(&given), [agent(1)]);
}

#[test]
fn a_repeat_of_the_command_is_void_and_another_makes_other_agents() {
    let mut given = Given::a_swarm("{}");
    given.add(1, spec("worker"));
    let order = || Scale {
        desired: None,
        delta: Some(1),
        agent_type: None,
        reason: Some("more".into()),
    };
    let first = given.order_swarm(CommandVerb::Scale, order());
    let subject = Subject::Command(place(1), CommandVerb::Scale);
    given.0.client_as(first, subject, place(1).swarm.0, order());
    given.settle();
    let second = given.order_swarm(CommandVerb::Scale, order());
    let (first, second) = (scaled(&given, first), scaled(&given, second));
    assert_ne!(first.add, second.add);
    assert_eq!(first.reason, "more");
    assert_eq!(there(&given).len(), 3);
}

#[test]
fn the_least_number_of_agents_is_kept() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"min_agents": 3}"#);
        assert_eq!(there(&given).len(), 0, "there is nothing to be like");
        given.add(1, spec("worker"));
        assert_eq!(there(&given).len(), 3);
        let added = given.valid(|_, body| match body {
            Body::AgentAdded(added) => Some(added.clone()),
            _ => None,
        });
        let reasons: Vec<_> = added.iter().map(|a| a.reason.as_str()).collect();
        assert_eq!(reasons, ["by order", "min_agents", "min_agents"]);
        assert_eq!(added[1].spec.command, added[0].spec.command);
        // No answer to anybody.
        let caused = given.0.inputs().filter_map(|input| match input {
            swarm_events::Input::Event(r) if matches!(r.event.body, Body::AgentAdded(_)) => {
                Some(r.event.causation)
            }
            _ => None,
        });
        assert_eq!(caused.flatten().count(), 1);
        // Whoever is taken out is replaced.
        given.drain(1, 0);
        assert_eq!(there(&given).len(), 3);
        assert!(!there(&given).contains(&agent(1)));
        given.join(2, join(2, None));
        given.join(3, join(3, None));
        assert_eq!(there(&given).len(), 5);
        let others = there(&given);
        for id in others
            .iter()
            .filter(|id| **id != agent(2) && **id != agent(3))
        {
            let order = swarm_events::command::RemoveAgent {
                reason: None,
                force: true,
                grace_ms: None,
            };
            given.send(1, CommandVerb::RemoveAgent, id.0, order);
        }
        given.settle();
        assert_eq!(
            there(&given).len(),
            3,
            "those that came by themselves count"
        );
        // A suspicion is over soon; a death is not.
        given.suspected(2, 1);
        assert_eq!(there(&given).len(), 3);
        given.fails(2, 1);
        assert_eq!(there(&given).len(), 3);
        given.update(1, r#"{"configuration": {"min_agents": 5}}"#);
        assert_eq!(there(&given).len(), 5);
        given.update(1, r#"{"configuration": {"min_agents": 0}}"#);
        assert_eq!(there(&given).len(), 5, "nobody goes for it");
        assert_eq!(given.0.cold(), given.0.state);
    });
}

#[test]
fn a_crash_loop_is_not_fed_with_new_agents() {
    each_way(|| {
        let mut given = Given::a_swarm(r#"{"min_agents": 1}"#);
        let mut looping = spec("worker");
        looping.restart.crash_limit = 2;
        given.add(1, looping);
        for spawn in 1..=2 {
            given.claim(1, 1, spawn);
            given.exit(1, 1, spawn, code(1), 1);
            given.later(30_000);
        }
        assert!(given.managed(1).is_given_up());
        assert_eq!(given.0.run_out(), 0);
        assert_eq!(there(&given), [agent(1)]);
        // Nor is one that ends by its policy as soon as it starts.
        let mut given = Given::a_swarm(r#"{"min_agents": 1}"#);
        let mut short = spec("worker");
        short.restart.restart = Restart::Never;
        given.add(1, short);
        given.claim(1, 1, 1);
        given.exit(1, 1, 1, code(0), 9_999);
        assert_eq!(given.0.run_out(), 0);
        assert_eq!(there(&given).len(), 0);
        // One that did its work is followed by another.
        given.restart(1, false);
        given.claim(1, 1, 2);
        given.exit(1, 1, 2, code(0), 10_000);
        assert_eq!(there(&given).len(), 1);
    });
}

#[test]
fn the_least_number_gives_way_to_the_most() {
    let mut given = Given::a_swarm(r#"{"min_agents": 2, "max_agents": 2}"#);
    given.add(1, spec("worker"));
    assert_eq!(there(&given).len(), 2);
    given.runs(1);
    given.drain(1, 5_000);
    assert_eq!(there(&given).len(), 2, "it still has its place");
    given.leave(1, 1);
    assert_eq!(there(&given).len(), 2);
    assert!(!there(&given).contains(&agent(1)));
    given.order_swarm(CommandVerb::Delete, Delete {});
    given.0.run_out();
    assert_eq!(there(&given).len(), 0);
}
