//! What clients want of topologies: another one, in the middle of everything; and answers to what agents ask.

use rand::{Rng, rngs::StdRng, seq::IndexedRandom};
use serde_json::{Value, json};
use swarm_events::{
    Body, CommandId, Json, Partition, Place, Subject, SwarmId, TaskId, command::ChangeTopology,
    configuration::TopologyKind, message::Answer, subject::CommandVerb, task::Submitted,
    topology::Role,
};

use super::Client;
use crate::{
    clock::{Clock, new_id},
    journal::Met,
};

/// A topology with some of its options. Tokens time out soon: a ring takes one task at a time, and a seed has many.
pub fn topology(rng: &mut StdRng) -> (TopologyKind, Value) {
    match rng.random_range(0..8) {
        0..3 => {
            let options = [
                json!({}),
                json!({"failover_coordinator": false}),
                json!({"coordinator_count": 2}),
                json!({"coordinator_count": 0}),
            ];
            (TopologyKind::Star, drawn(rng, &options))
        }
        3..5 => {
            let options = [
                json!({}),
                json!({"connection_strategy": "nearest", "neighbours": 2, "gossip_interval_ms": 100}),
                json!({"gossip_interval_ms": 0, "routing": "targeted"}),
                json!({"connections": [["agent-0", "agent-1"], ["agent-2", "agent-3"]]}),
            ];
            (TopologyKind::Mesh, drawn(rng, &options))
        }
        5..7 => {
            let levels = |supervisors| {
                json!([
                    {"role": "coordinator", "count": 1},
                    {"role": "supervisor", "count": supervisors},
                    {"role": "worker", "count": 2},
                ])
            };
            let options = [
                json!({"levels": levels(1), "parent_child_ratio": 2}),
                json!({"levels": levels(2), "parent_child_ratio": 3}),
                json!({"levels": levels(1), "parents": {"agent-1": "agent-0"}}),
            ];
            (TopologyKind::Hierarchical, drawn(rng, &options))
        }
        _ => {
            let options = [
                json!({"token_timeout_ms": 40}),
                json!({"token_timeout_ms": 150, "order": "load"}),
                json!({"token_timeout_ms": 80, "skip_unhealthy": false}),
            ];
            (TopologyKind::Ring, drawn(rng, &options))
        }
    }
}

fn drawn(rng: &mut StdRng, from: &[Value]) -> Value {
    from.choose(rng).cloned().unwrap_or_else(|| json!({}))
}

/// A swarm that nobody ever creates, where somebody decides all the same.
pub(super) fn unknown_swarm(places: &[Place]) -> SwarmId {
    let home = places.first().map(|place| place.partition);
    let ids = (0xdead_0000..).map(|n| SwarmId(uuid::Uuid::from_u128(n)));
    let mut ids = ids.filter(|id| Some(Partition::of(id.0)) == home || home.is_none());
    ids.next().unwrap_or(SwarmId(uuid::Uuid::nil()))
}

impl Client {
    /// Another topology, or other options; now and then some that cannot be.
    pub(super) fn change_topology(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let (topology, mut configuration) = topology(rng);
        if rng.random_ratio(1, 10) {
            configuration = json!({"coordinator_count": 10_000});
        }
        let place = self.places[at];
        let subject = Subject::Command(place, CommandVerb::ChangeTopology);
        let body = ChangeTopology {
            topology,
            configuration: Json::from(configuration),
            reason: None,
        };
        let message = self.event(clock, new_id(clock, rng), &subject, place.swarm.0, body);
        self.send(message);
    }

    /// What a task asks for beyond its capabilities: a role, or another swarm (of which some are unknown, and some its own).
    pub(super) fn ask_for(&self, task: &mut Submitted, rng: &mut StdRng) {
        if rng.random_ratio(1, 15) {
            let roles = [Role::Worker, Role::Supervisor, Role::Coordinator];
            task.required_role = roles.choose(rng).copied();
            // Nobody who has the role may be able to do it, for ever.
            task.required_capabilities.clear();
        }
        if rng.random_ratio(1, 15) {
            let known = self.places.choose(rng).map(|place| place.swarm);
            task.hand_to = known
                .filter(|_| !rng.random_ratio(1, 8))
                .or(Some(self.unknown));
        }
    }

    /// Takes note of what agents ask.
    pub(super) fn hear_question(&mut self, met: &Met) {
        let Some(recorded) = met.recorded() else {
            return;
        };
        if let (Body::AgentAsked(asked), Some(place)) =
            (&recorded.event.body, recorded.subject.place())
            && let Some(at) = self.places.iter().position(|known| *known == place)
        {
            self.asked[at].push(asked.question_id);
        }
    }

    /// Takes note of what other swarms are to do.
    pub(super) fn hear_of_other_swarms(&mut self, met: &Met) {
        if let Some(recorded) = met.recorded()
            && matches!(recorded.event.body, Body::TaskHandedOver(_))
            && let Some(place) = recorded.subject.place()
            && let Some(at) = self.places.iter().position(|known| *known == place)
        {
            self.away[at] = Some(TaskId(recorded.event.about));
        }
    }

    /// Calls off what was handed over last, and mostly wants it again at once: what comes back may be of either time.
    pub(super) fn call_back(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let Some(id) = self.away[at] else {
            return;
        };
        self.command_on(id, at, clock, rng, CommandVerb::Cancel);
        if rng.random_ratio(3, 4) {
            self.command_on(id, at, clock, rng, CommandVerb::Retry);
        }
    }

    /// Answers a question, of those that are open or were: the first answer counts.
    pub(super) fn answer(&mut self, at: usize, clock: &Clock, rng: &mut StdRng) {
        let question_id = match self.asked[at].choose(rng) {
            Some(id) if !rng.random_ratio(1, 20) => *id,
            _ => CommandId(new_id(clock, rng)),
        };
        let place = self.places[at];
        let subject = Subject::Command(place, CommandVerb::Answer);
        let body = Answer {
            question_id,
            answer: Json::from(json!(
                *["yes", "no", "perhaps"].choose(rng).unwrap_or(&"yes")
            )),
            user_id: None,
            agent: None,
        };
        let message = self.event(clock, new_id(clock, rng), &subject, place.swarm.0, body);
        self.send(message);
    }
}
