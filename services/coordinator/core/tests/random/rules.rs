//! What must hold in every history, at every step and at its end.

use std::collections::{BTreeMap, BTreeSet};

use swarm_coordinator_core::{Coordinator, Lifecycle, Membership, Swarm};
use swarm_events::{Body, CommandId, Place};

use crate::run::Run;

/// What must hold in every state.
pub fn invariants(state: &Coordinator) {
    for swarm in state.swarms() {
        let live: Vec<_> = swarm.agents.values().filter(|a| a.is_live()).collect();
        assert_eq!(live.len(), swarm.live_agents());
        assert_eq!(
            live.iter().filter(|a| a.is_healthy()).count(),
            swarm.healthy_agents()
        );
        let places: Vec<_> = swarm
            .agents
            .iter()
            .filter(|(_, a)| a.holds_place())
            .collect();
        assert_eq!(places.len(), swarm.places_taken());
        assert!(places.len() <= 3, "max_agents is 3");
        for (id, agent) in places {
            let name = &agent.profile.agent_name;
            assert_eq!(swarm.agent_named(name), Some(*id), "two agents of one name");
        }
        for agent in swarm.agents.values() {
            // Until what was told to go has gone, it is expected no more and shown as stopped.
            let there = agent.is_wanted() || agent.is_leaving();
            let expected = agent.membership == Membership::Expected;
            assert!(!expected || there, "expected and not wanted: {agent:?}");
            assert_eq!(
                agent.lifecycle() == Lifecycle::Stopped,
                !agent.holds_place(),
                "{agent:?}"
            );
            let _ = agent.status_reason();
            let Some(managed) = &agent.managed else {
                continue;
            };
            assert!(managed.spawn > 0 || !managed.has_process());
            assert!(managed.has_adapter() || managed.spawn == 0);
            assert!(managed.crashes <= 2, "crash_limit is 2");
            assert!(!agent.is_live() || agent.joined_spawn <= managed.spawn);
        }
        topology_invariants(swarm);
        if swarm.deleted_at.is_some() {
            assert!(live.is_empty(), "a deleted swarm has live agents");
            assert_eq!(swarm.places_taken(), 0, "a deleted swarm wants agents");
        }
        let others = state
            .swarms()
            .filter(|o| o.deleted_at.is_none() && o.name == swarm.name);
        assert!(
            swarm.deleted_at.is_some() || others.count() == 1,
            "two swarms of one name"
        );
    }
}

/// What must hold of its topology and its questions in every state.
fn topology_invariants(swarm: &Swarm) {
    let staged = swarm.shape.staged().map(|staged| staged.number());
    let change = swarm.change.as_ref().map(|change| change.generation);
    assert_eq!(staged, change, "one open change, the same for both");
    assert!(change.is_none_or(|generation| generation > swarm.shape.generation()));
    if let Some(leader) = swarm.leader() {
        assert!(swarm.agents[&leader].is_live());
    }
    let places: BTreeSet<u64> = swarm.shape.seats().map(|(_, seat)| seat.place).collect();
    assert_eq!(
        places.len(),
        swarm.shape.seated(),
        "no place is given twice"
    );
    for (id, question) in swarm.questions() {
        assert!(
            swarm.deleted_at.is_none(),
            "{id} is open in a deleted swarm"
        );
        assert!(swarm.agents.contains_key(&question.agent));
    }
}

/// What must hold of it when nothing is under way.
pub fn settled(swarm: &Swarm) {
    assert!(swarm.change.is_none(), "a change is left over");
    assert_eq!(swarm.questions().count(), 0, "a question is left over");
    if !swarm.is_open() {
        return;
    }
    let members = swarm.members();
    let mut seated: Vec<_> = swarm.shape.seats().map(|(id, _)| id).collect();
    seated.sort_by_key(|id| swarm.agents[id].arrived_seq);
    let there: Vec<_> = members.iter().map(|member| member.id).collect();
    assert_eq!(
        seated, there,
        "every live member has a place, nobody else has one"
    );
    match swarm.shape.leader() {
        Some(leader) => assert!(members.contains(leader), "the leader is a member"),
        None => assert!(
            members.iter().all(|member| !member.healthy),
            "somebody could lead"
        ),
    }
}

/// Every change that was planned ends exactly once, before the next one is planned; every question ends at most once.
pub fn ends_once(run: &Run) {
    let mut open: BTreeMap<Place, u64> = BTreeMap::new();
    let mut last: BTreeMap<Place, u64> = BTreeMap::new();
    let mut questions: BTreeMap<CommandId, bool> = BTreeMap::new();
    run.given.valid(|subject, body| {
        let place = subject.place();
        match body {
            Body::SwarmTopologyPlanned(planned) => {
                let place = place.expect("of a swarm");
                let before = open.insert(place, planned.generation);
                assert_eq!(before, None, "planned while another is open");
                let before = last.insert(place, planned.generation);
                assert!(before.is_none_or(|before| before < planned.generation));
            }
            Body::SwarmTopologyChanged(changed) => {
                let ended = open.remove(&place.expect("of a swarm"));
                assert_eq!(ended, Some(changed.generation));
            }
            Body::SwarmTopologyKept(kept) => {
                let ended = open.remove(&place.expect("of a swarm"));
                assert_eq!(ended, Some(kept.generation));
            }
            Body::AgentAsked(asked) => {
                let before = questions.insert(asked.question_id, true);
                assert_eq!(before, None, "asked twice");
            }
            Body::AgentAnswered(answered) => {
                let before = questions.insert(answered.question_id, false);
                assert_eq!(before, Some(true), "ended twice, or never asked");
            }
            Body::AgentUnanswered(unanswered) => {
                let before = questions.insert(unanswered.question_id, false);
                assert_eq!(before, Some(true), "ended twice, or never asked");
            }
            _ => {}
        }
        None::<()>
    });
    assert!(open.is_empty(), "a change is lost: {open:?}");
    assert!(questions.values().all(|open| !open), "a question is lost");
}
