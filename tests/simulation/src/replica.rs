//! A replica of a deciding service: the real machine, with an outbox between it and the log.

use std::collections::{BTreeMap, VecDeque};

use futures::FutureExt;
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Body, Event, Input, Json, Partition, Place, Problem, Timestamp,
    agent::{Evidence, LivenessRule},
    control::{Claimed, Observed, Sighting, Woken},
    decider::{Decider, Decision},
    ids::InstanceId,
    read,
    subject::{ControlVerb, filter},
    task::Carried,
};
use swarm_health_core::{Health, Liveness, Thresholds};
use swarm_log::{AppendError, Appended, Log, Message, StoredMessage, simulated::SimulatedLog};
use swarm_runtime::deciding::{
    control_message, decision_message, epoch_fence,
    machine::{Machine, Met, Mode, Need},
    state_hash,
};

use crate::world::Clock;

struct Sent {
    due: u64,
    epoch: u64,
    claim: bool,
    messages: Vec<Message>,
}
struct Answer {
    due: u64,
    epoch: u64,
    claim: bool,
    results: Vec<Result<Appended, AppendError>>,
}

/// What a step needs of the world.
pub struct Around<'a> {
    pub clock: &'a Clock,
    pub messages: &'a [StoredMessage],
    /// Microseconds that a message or acknowledgement takes.
    pub delay: u64,
    /// Most messages read in this step.
    pub read: usize,
}

pub struct Replica<D: Decider> {
    pub name: String,
    instance: InstanceId,
    log: SimulatedLog,
    partition: Partition,
    machine: Machine<D>,
    cursor: u64,
    claimed: bool,
    outbox: VecDeque<Sent>,
    answers: VecDeque<Answer>,
    filters: Vec<String>,
    pub paused_until: u64,
    heard: BTreeMap<AgentId, (u64, u64)>,
    said: BTreeMap<AgentId, (u64, Sighting)>,
}

impl<D: Decider + Hydrates> Replica<D> {
    pub fn new(
        name: String,
        instance: InstanceId,
        log: SimulatedLog,
        partition: Partition,
    ) -> Self {
        let cursor = 0;
        Self {
            machine: Machine::new(partition, instance),
            filters: filter::inputs(D::SERVICE, Some(partition)),
            name,
            instance,
            log,
            partition,
            cursor,
            claimed: false,
            outbox: VecDeque::new(),
            answers: VecDeque::new(),
            paused_until: 0,
            heard: BTreeMap::new(),
            said: BTreeMap::new(),
        }
    }

    pub fn owns(&self) -> bool {
        matches!(self.machine.mode(), Mode::Owner { .. })
    }
    pub fn wants(&mut self, clock: &Clock) {
        self.claimed = true;
        self.machine.claim(clock.monotonic(), "takeover");
    }
    pub fn sequence(&self) -> u64 {
        self.machine.state().head().sequence
    }
    pub fn hash(&self) -> [u8; 32] {
        state_hash(self.machine.state()).unwrap_or_default()
    }
    /// An agent's heartbeat reaches it.
    pub fn hear(&mut self, agent: AgentId, incarnation: u64, now: u64) {
        self.heard.insert(agent, (incarnation, now));
    }

    /// One step: what is due leaves the outbox, acknowledgements come in, messages are met, decisions are made.
    pub fn step(&mut self, around: &Around<'_>) {
        let now = around.clock.micros();
        while self.outbox.front().is_some_and(|sent| sent.due <= now) {
            let Some(sent) = self.outbox.pop_front() else {
                break;
            };
            let results = self
                .log
                .append(sent.messages)
                .now_or_never()
                .unwrap_or_default();
            let due = now + around.delay;
            self.answers.push_back(Answer {
                due,
                epoch: sent.epoch,
                claim: sent.claim,
                results,
            });
        }
        while self.answers.front().is_some_and(|answer| answer.due <= now) {
            let Some(answer) = self.answers.pop_front() else {
                break;
            };
            self.answered(answer, around);
        }
        let mut met = 0;
        while met < around.read {
            let index = around
                .messages
                .partition_point(|m| m.sequence <= self.cursor);
            let Some(message) = around.messages.get(index) else {
                break;
            };
            self.cursor = message.sequence;
            if self
                .filters
                .iter()
                .any(|f| swarm_log::filter::matches(f, &message.subject))
            {
                self.meet(message, around);
                met += 1;
            }
        }
        if !self.claimed && met == 0 {
            // Folded to the end.
            self.claimed = true;
            self.machine.claim(around.clock.monotonic(), "start");
        }
        self.decide(around);
        self.poll(around);
    }

    fn meet(&mut self, message: &StoredMessage, around: &Around<'_>) {
        let time = Timestamp::from_micros(message.time_micros);
        let input = read(message.sequence, time, &message.subject, &message.payload);
        let (_, met) = self.machine.fold(&input, around.clock.monotonic());
        if met == Met::Owned {
            self.said.clear();
            // Silence is counted from the takeover: what was heard before is not known here.
            let now = around.clock.micros();
            self.heard.values_mut().for_each(|(_, at)| *at = now);
        }
        self.decide(around);
    }

    fn answered(&mut self, answer: Answer, around: &Around<'_>) {
        let now = around.clock.monotonic();
        for result in answer.results {
            match result {
                Ok(_) => {}
                Err(_) if answer.claim => {}
                Err(AppendError::Fenced { .. }) => self.machine.fenced(answer.epoch, now),
                Err(_) => self.machine.doubt(answer.epoch, now),
            }
        }
    }

    fn decide(&mut self, around: &Around<'_>) {
        loop {
            let decisions = self.machine.decide(around.clock.monotonic());
            let Some((_, first)) = decisions.first() else {
                return;
            };
            let epoch = first.epoch;
            let fence = epoch_fence(D::SERVICE, self.partition, epoch);
            let last = self.machine.last_input();
            let mut messages = Vec::new();
            for (decision, decided) in decisions {
                let decision =
                    D::hydrate(&self.log, decision).expect("what is in the log can be read");
                let message = decision_message(
                    D::SERVICE,
                    self.instance,
                    fence.clone(),
                    decision,
                    decided,
                    last,
                    Timestamp::from_micros(around.clock.log_time()),
                );
                messages.push(message.expect("JSON"));
            }
            self.send(epoch, false, messages, around);
        }
    }

    fn poll(&mut self, around: &Around<'_>) {
        let time = Timestamp::from_micros(around.clock.log_time());
        while let Some(need) = self.machine.poll(around.clock.monotonic()) {
            match need {
                Need::Claim {
                    expected,
                    reason,
                    rejects,
                } => {
                    assert!(rejects.is_empty(), "decide panicked: {rejects:?}");
                    let body = Claimed {
                        instance: self.instance,
                        decider_version: D::VERSION,
                        previous: expected,
                        reason: reason.to_owned(),
                        rejects,
                    };
                    self.control(expected, true, ControlVerb::Claimed, body, time, around);
                }
                Need::Wake { epoch } => {
                    self.control(epoch, false, ControlVerb::Woken, Woken {}, time, around)
                }
            }
        }
        let Mode::Owner { epoch } = self.machine.mode() else {
            return;
        };
        let now = around.clock.micros();
        for observed in D::observe(
            self.machine.state(),
            &mut self.heard,
            &mut self.said,
            now,
            time,
        ) {
            self.control(epoch, false, ControlVerb::Observed, observed, time, around);
        }
    }

    fn control(
        &mut self,
        expected: u64,
        claim: bool,
        verb: ControlVerb,
        body: impl Into<Body>,
        time: Timestamp,
        around: &Around<'_>,
    ) {
        let fence = epoch_fence(D::SERVICE, self.partition, expected);
        let message = control_message(
            D::SERVICE,
            self.partition,
            verb,
            self.instance,
            body,
            fence,
            time,
        );
        self.send(expected, claim, vec![message.expect("JSON")], around);
    }

    fn send(&mut self, epoch: u64, claim: bool, messages: Vec<Message>, around: &Around<'_>) {
        let due = around.clock.micros() + around.delay;
        // In call order, whatever the delays.
        let due = self.outbox.back().map_or(due, |last| last.due.max(due));
        self.outbox.push_back(Sent {
            due,
            epoch,
            claim,
            messages,
        });
    }
}

/// What the shells of the three services do, without IO of their own.
pub trait Hydrates: Decider {
    fn hydrate(_log: &SimulatedLog, decision: Decision) -> Result<Decision, Problem> {
        Ok(decision)
    }
    fn observe(
        _state: &Self,
        _heard: &mut BTreeMap<AgentId, (u64, u64)>,
        _said: &mut BTreeMap<AgentId, (u64, Sighting)>,
        _now: u64,
        _time: Timestamp,
    ) -> Vec<Observed> {
        Vec::new()
    }
}
impl Hydrates for Coordinator {}

impl Hydrates for Distributor {
    fn hydrate(log: &SimulatedLog, mut decision: Decision) -> Result<Decision, Problem> {
        let Some(hydrate) = decision.hydrate.take() else {
            return Ok(decision);
        };
        // A handle that is never cut off: a shell would wait until it can read again.
        let log = log.handle("reader");
        let body = |sequence: u64| -> Option<Event> {
            let stored = log.get(sequence).now_or_never()?.ok()??;
            let time = Timestamp::from_micros(stored.time_micros);
            match read(stored.sequence, time, &stored.subject, &stored.payload) {
                Input::Event(recorded) => Some(recorded.event),
                Input::Unreadable(_) => None,
            }
        };
        let Body::TaskAssigned(assigned) = &mut decision.body else {
            return Ok(decision);
        };
        if let Some(sequence) = hydrate.payload_from
            && let Some(Event {
                body: Body::TaskSubmitted(submitted),
                ..
            }) = body(sequence)
        {
            assigned.payload = Carried::Inline(submitted.payload);
        }
        if !hydrate.inputs_from.is_empty() {
            let mut inputs = serde_json::Map::new();
            for (alias, sequence) in hydrate.inputs_from {
                if let Some(Event {
                    body: Body::TaskCompleted(completed),
                    ..
                }) = body(sequence)
                    && let Carried::Inline(result) = completed.result
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
}

impl Hydrates for Health {
    fn observe(
        state: &Self,
        heard: &mut BTreeMap<AgentId, (u64, u64)>,
        said: &mut BTreeMap<AgentId, (u64, Sighting)>,
        now: u64,
        time: Timestamp,
    ) -> Vec<Observed> {
        let mut out = Vec::new();
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
