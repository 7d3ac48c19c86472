//! What the shells of the three services do, without IO of their own.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::{
    Distributor,
    carried::{payload_of, result_of},
    outbox::Post,
};
use swarm_events::{
    AgentId, Body, Event, Input, InstanceId, Json, Partition, Place, Problem, SwarmId, TaskId,
    Timestamp,
    agent::{Evidence, LivenessRule},
    control::{Observed, Sighting},
    decider::{Decider, Decision},
    envelope::Source,
    read,
    task::{Carried, Then},
};
use swarm_health_core::{Health, Liveness, Thresholds};
use swarm_log::{Log, Message, simulated::SimulatedLog};

/// What a process of health hears beside the log, and what it has said of it.
#[derive(Default)]
pub struct Ears {
    /// When each agent was heard last, and as which incarnation.
    pub heard: BTreeMap<AgentId, (u64, u64)>,
    /// What was said of each agent last.
    said: BTreeMap<AgentId, (u64, Sighting)>,
    /// When each host was heard last.
    pub hosts: BTreeMap<InstanceId, u64>,
    /// Hosts that were said to be gone, by partition.
    gone: BTreeSet<(Partition, InstanceId)>,
}

/// Silence after which a host is gone, in milliseconds.
pub const HOST_SILENCE_MS: u64 = 4_000;

/// What a service's shell tells another partition.
pub struct Letter {
    /// Its name in its own partition.
    pub sequence: u64,
    /// What it is about: of several about one thing the first goes first.
    pub about: (SwarmId, TaskId, u32),
    pub message: Message,
}

/// The event at `sequence`. A shell that cannot read now would wait: this handle is never cut off.
fn event_at(log: &SimulatedLog, sequence: u64) -> Option<Event> {
    let log = log.handle("reader");
    let stored = log.get(sequence).now_or_never()?.ok()??;
    let time = Timestamp::from_micros(stored.time_micros);
    match read(stored.sequence, time, &stored.subject, &stored.payload) {
        Input::Event(recorded) => Some(recorded.event),
        Input::Unreadable(_) => None,
    }
}

/// A service's shell.
pub trait Shell: Decider {
    /// Fills in what a decision names.
    fn hydrate(_log: &SimulatedLog, decision: Decision) -> Result<Decision, Problem> {
        Ok(decision)
    }
    /// What goes to other partitions, in the order in which it is to be said.
    fn letters(
        _state: &Self,
        _log: &SimulatedLog,
        _source: &Source,
        _time: Timestamp,
    ) -> Vec<Letter> {
        Vec::new()
    }
    /// What is to be said of agents.
    fn observe(_state: &Self, _ears: &mut Ears, _now: u64, _time: Timestamp) -> Vec<Observed> {
        Vec::new()
    }
    /// Silence is counted from a takeover on: what was heard before is not known to the new owner.
    fn owned(_state: &Self, _ears: &mut Ears, _now: u64) {}
    /// What a version after this one decides otherwise.
    fn otherwise(_decision: &mut Decision) {}
    /// Whether a version before this one knows what an event says.
    fn known_before(_body: &Body) -> bool {
        true
    }
}
impl Shell for Coordinator {
    fn known_before(body: &Body) -> bool {
        !matches!(body, Body::AgentRecovered(_))
    }
}

impl Shell for Distributor {
    fn otherwise(decision: &mut Decision) {
        // Other pauses before the next attempt.
        match &mut decision.body {
            Body::TaskRetried(retried) => retried.delay_ms = retried.delay_ms / 2 + 7,
            Body::TaskWithdrawn(withdrawn) => {
                if let Then::RetryAfterMs(delay) = &mut withdrawn.then {
                    *delay = *delay / 2 + 7;
                }
            }
            _ => {}
        }
    }

    fn known_before(body: &Body) -> bool {
        !matches!(body, Body::TaskRetried(_))
    }

    fn hydrate(log: &SimulatedLog, mut decision: Decision) -> Result<Decision, Problem> {
        let Some(hydrate) = decision.hydrate.take() else {
            return Ok(decision);
        };
        let Body::TaskAssigned(assigned) = &mut decision.body else {
            return Ok(decision);
        };
        if let Some(event) = hydrate.payload_from.and_then(|at| event_at(log, at))
            && let Some(payload) = payload_of(event, decision.about)
        {
            assigned.payload = Carried::Inline(payload);
        }
        if !hydrate.inputs_from.is_empty() {
            let mut inputs = serde_json::Map::new();
            for (alias, sequence) in hydrate.inputs_from {
                if let Some(event) = event_at(log, sequence)
                    && let Some(Carried::Inline(result)) = result_of(event.body)
                {
                    inputs.insert(alias, result.to_value());
                }
            }
            assigned.inputs = Some(Carried::Inline(Json::from(serde_json::Value::Object(
                inputs,
            ))));
        }
        Ok(decision)
    }

    fn letters(state: &Self, log: &SimulatedLog, source: &Source, time: Timestamp) -> Vec<Letter> {
        let letter = |post: Post| {
            let read = match post.reads().map(|at| event_at(log, at)) {
                Some(Some(event)) => Ok(event.body),
                _ => Err("nothing is there".to_owned()),
            };
            let (subject, event) = post.event(source.clone(), time, read);
            Letter {
                sequence: post.sequence,
                about: post.task(),
                message: Message {
                    subject: subject.to_string(),
                    payload: event.to_json().expect("JSON").into(),
                    message_id: Some(event.id.to_string()),
                    fence: None,
                },
            }
        };
        state.letters(0).take(LETTERS_MAX).map(letter).collect()
    }
}

/// Letters that are looked at in one step.
const LETTERS_MAX: usize = 16;

impl Shell for Health {
    fn owned(state: &Self, ears: &mut Ears, now: u64) {
        for agent in state.swarms().flat_map(|swarm| swarm.agents.keys()) {
            ears.said.remove(agent);
            if let Some((_, at)) = ears.heard.get_mut(agent) {
                *at = now;
            }
        }
        let partition = state.head().partition;
        ears.gone.retain(|(of, _)| *of != partition);
        for host in hosts(state) {
            ears.hosts.insert(host, now);
        }
    }

    fn known_before(body: &Body) -> bool {
        !matches!(body, Body::AgentRecovered(_))
    }

    fn observe(state: &Self, ears: &mut Ears, now: u64, time: Timestamp) -> Vec<Observed> {
        let mut out = Vec::new();
        let partition = state.head().partition;
        for host in hosts(state) {
            let age_ms = (now - *ears.hosts.entry(host).or_insert(now)) / 1_000;
            if age_ms > HOST_SILENCE_MS && ears.gone.insert((partition, host)) {
                let evidence = Evidence {
                    rule: LivenessRule::Silence,
                    last_heartbeat_at: Some(time.minus_millis(age_ms)),
                    age_ms,
                    limit_ms: HOST_SILENCE_MS,
                };
                out.push(Observed::HostGone { host, evidence });
            }
        }
        let Ears { heard, said, .. } = ears;
        for swarm in state.swarms() {
            let Thresholds {
                suspect_after_ms,
                fail_after_ms,
                ..
            } = swarm.thresholds;
            for (id, agent) in &swarm.agents {
                if !agent.is_watched() {
                    continue;
                }
                let (incarnation, at) = *heard.entry(*id).or_insert((agent.incarnation, now));
                let at = if incarnation == agent.incarnation {
                    at
                } else {
                    heard.insert(*id, (agent.incarnation, now));
                    now
                };
                let age_ms = (now - at) / 1_000;
                let (sighting, limit_ms) = match (agent.liveness, age_ms) {
                    (_, age) if age > fail_after_ms => (Sighting::Gone, fail_after_ms),
                    (Liveness::Alive, age) if age > suspect_after_ms => {
                        (Sighting::Silent, suspect_after_ms)
                    }
                    (Liveness::Suspected, age) if age <= suspect_after_ms => {
                        (Sighting::Heard, suspect_after_ms)
                    }
                    _ => continue,
                };
                if said.insert(*id, (agent.incarnation, sighting))
                    == Some((agent.incarnation, sighting))
                {
                    continue;
                }
                let rule = if sighting == Sighting::Heard {
                    LivenessRule::Heard
                } else {
                    LivenessRule::Silence
                };
                out.push(liveness(
                    swarm.place,
                    *id,
                    agent.incarnation,
                    sighting,
                    Evidence {
                        rule,
                        last_heartbeat_at: Some(time.minus_millis(age_ms)),
                        age_ms,
                        limit_ms,
                    },
                ));
            }
        }
        out
    }
}

/// Hosts with a process of this partition in their hands.
fn hosts(state: &Health) -> BTreeSet<InstanceId> {
    let agents = state.swarms().flat_map(|swarm| swarm.agents.values());
    agents
        .filter_map(|agent| Some(agent.process.host()?.instance))
        .collect()
}

fn liveness(
    place: Place,
    agent: AgentId,
    incarnation: u64,
    sighting: Sighting,
    evidence: Evidence,
) -> Observed {
    Observed::Liveness {
        org_id: place.org,
        swarm_id: place.swarm,
        agent_id: agent,
        incarnation,
        sighting,
        evidence,
    }
}
