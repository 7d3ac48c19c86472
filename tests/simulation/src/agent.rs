//! A model of an agent process around the real protocol of the SDK.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use futures::FutureExt;
use rand::{Rng, rngs::StdRng};
use swarm_agent_sdk::protocol::{
    Assignment, Do, Fact, Outcome, Own, Protocol, Verdict, Via, Write, WriteKind, Written,
};
use swarm_events::{
    AgentId, Body, Event, EventId, Input, InstanceId, Json, Place, Recorded, Subject, Timestamp,
    command,
    envelope::Source,
    read,
    subject::{AgentVerb, CommandVerb, TaskVerb},
    task::{self, Carried},
};
use swarm_log::{AppendError, Fence, Log, Message, StoredMessage, simulated::SimulatedLog};

use crate::world::{Clock, Faultiness, new_id};

/// A join of which nothing is heard is sent again after this many microseconds.
const JOIN_RETRY: u64 = 2_000_000;
const HEARTBEAT: u64 = 1_000_000;

enum Stage {
    Down {
        until: u64,
    },
    Joining {
        command: EventId,
        sent: Option<u64>,
        from: u64,
    },
    Working(Box<Protocol>),
}
struct Sending {
    due: u64,
    writes: Vec<Write>,
}

pub struct ModelAgent {
    pub id: AgentId,
    pub name: String,
    place: Place,
    slots: u32,
    capabilities: Vec<String>,
    log: SimulatedLog,
    instance: InstanceId,
    incarnation: u64,
    stage: Stage,
    cursor: u64,
    running: BTreeMap<u64, (u64, Outcome)>,
    outbox: VecDeque<Sending>,
    answers: VecDeque<(u64, Vec<(u64, Written)>)>,
    pub paused_until: u64,
    next_beat: u64,
    pub runs: u64,
    /// Broken promises that only the agent can see.
    pub complaints: Vec<String>,
}

impl ModelAgent {
    pub fn new(
        number: u64,
        place: Place,
        log: SimulatedLog,
        slots: u32,
        capabilities: Vec<String>,
    ) -> Self {
        Self {
            id: AgentId(uuid::Uuid::from_u128(0xa6e0_0000 + u128::from(number))),
            name: format!("agent-{number}"),
            place,
            slots,
            capabilities,
            log,
            instance: InstanceId(uuid::Uuid::nil()),
            incarnation: 0,
            stage: Stage::Down { until: 0 },
            cursor: 0,
            running: BTreeMap::new(),
            outbox: VecDeque::new(),
            answers: VecDeque::new(),
            paused_until: 0,
            next_beat: 0,
            runs: 0,
            complaints: Vec::new(),
        }
    }

    pub fn crash(&mut self, until: u64) {
        self.stage = Stage::Down { until };
        self.running.clear();
        self.outbox.clear();
        self.answers.clear();
    }
    pub fn is_up(&self) -> bool {
        !matches!(self.stage, Stage::Down { .. })
    }
    pub fn rise(&mut self) {
        if let Stage::Down { until } = &mut self.stage {
            *until = 0;
        }
        self.paused_until = 0;
    }

    fn subject(&self, verb: TaskVerb) -> String {
        Subject::Task(self.place, verb, Some(self.id)).to_string()
    }

    /// One step; `Some(incarnation)` if a heartbeat goes out.
    pub fn step(
        &mut self,
        clock: &Clock,
        messages: &[StoredMessage],
        rng: &mut StdRng,
        faults: Faultiness,
    ) -> Option<u64> {
        let now = clock.micros();
        match &mut self.stage {
            Stage::Down { until } if *until <= now => {
                self.instance = InstanceId(new_id(clock, rng));
                let from = messages.last().map_or(0, |m| m.sequence);
                self.stage = Stage::Joining {
                    command: EventId(new_id(clock, rng)),
                    sent: None,
                    from,
                };
            }
            Stage::Down { .. } => return None,
            Stage::Joining { .. } => self.join(clock, messages, rng),
            Stage::Working(_) => self.work(clock, messages, rng, faults),
        }
        if self.is_up() && now >= self.next_beat {
            self.next_beat = now + HEARTBEAT;
            return Some(self.incarnation);
        }
        None
    }

    fn join(&mut self, clock: &Clock, messages: &[StoredMessage], rng: &mut StdRng) {
        let Stage::Joining {
            command,
            sent,
            from,
        } = &mut self.stage
        else {
            return;
        };
        let now = clock.micros();
        if sent.is_none_or(|at| now >= at + JOIN_RETRY) {
            *sent = Some(now);
            let subject = Subject::Command(self.place, CommandVerb::Join);
            let body = command::Join {
                instance: self.instance,
                agent_type: "model".to_owned(),
                agent_name: Some(self.name.clone()),
                capabilities: self.capabilities.clone(),
                slots: Some(self.slots),
                waiting: None,
                metadata: Json::object(),
            };
            let time = Timestamp::from_micros(clock.log_time());
            let event = Event::new(
                *command,
                Source::Agent(self.id),
                time,
                &subject,
                self.id.0,
                body,
            );
            let message = Message {
                subject: subject.to_string(),
                payload: event.to_json().expect("JSON").into(),
                message_id: Some(command.to_string()),
                fence: None,
            };
            drop(self.log.append(vec![message]));
        }
        let start = messages.partition_point(|m| m.sequence <= *from);
        let mut joined = None;
        let mut refused = false;
        for message in &messages[start..] {
            let Some(recorded) = parse(message) else {
                continue;
            };
            match (&recorded.subject, &recorded.event.body) {
                (Subject::Agent(_, AgentVerb::Joined, agent), Body::AgentJoined(j))
                    if *agent == self.id && j.instance == self.instance =>
                {
                    joined = Some((j.incarnation, recorded.sequence));
                }
                (_, Body::SwarmRefused(_)) if recorded.event.causation == Some(command.0) => {
                    refused = true
                }
                _ => {}
            }
        }
        if let Some((incarnation, sequence)) = joined {
            let last = |verb| self.last(messages, verb);
            let seed: u64 = rng.random();
            let mut ids = <StdRng as rand::SeedableRng>::seed_from_u64(seed);
            let at = clock.clone();
            let protocol = Protocol::new(
                self.slots as usize,
                incarnation,
                sequence,
                (last(TaskVerb::Assigned), last(TaskVerb::Withdrawn)),
                Box::new(move || EventId(new_id(&at, &mut ids))),
            );
            self.incarnation = incarnation;
            self.cursor = messages.last().map_or(0, |m| m.sequence);
            self.stage = Stage::Working(Box::new(protocol));
        } else if refused {
            self.stage = Stage::Down {
                until: now + 500_000,
            };
        }
    }

    fn last(&self, messages: &[StoredMessage], verb: TaskVerb) -> u64 {
        let subject = self.subject(verb);
        messages
            .iter()
            .rev()
            .find(|m| *m.subject == *subject)
            .map_or(0, |m| m.sequence)
    }

    fn work(
        &mut self,
        clock: &Clock,
        messages: &[StoredMessage],
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let now = clock.micros();
        let now_ms = now / 1_000;
        let Stage::Working(protocol) = &mut self.stage else {
            return;
        };
        let mut protocol = std::mem::replace(
            protocol,
            Box::new(Protocol::new(
                1,
                0,
                0,
                (0, 0),
                Box::new(|| EventId(uuid::Uuid::nil())),
            )),
        );
        while self.outbox.front().is_some_and(|s| s.due <= now) {
            let Some(sending) = self.outbox.pop_front() else {
                break;
            };
            let outcome = self.append(clock, &sending.writes);
            self.answers.push_back((now + faults.delay(rng), outcome));
        }
        while self.answers.front().is_some_and(|(due, _)| *due <= now) {
            let Some((_, outcome)) = self.answers.pop_front() else {
                break;
            };
            protocol.written(now_ms, outcome);
        }
        self.listen(&mut protocol, messages, rng, faults);
        let due: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, (at, _))| *at <= now)
            .map(|(a, _)| *a)
            .collect();
        for assignment in due {
            if let Some((_, outcome)) = self.running.remove(&assignment) {
                protocol.finished(assignment, outcome);
            }
        }
        for action in protocol.next(now_ms) {
            self.act(&mut protocol, action, clock, messages, rng, faults);
        }
        if protocol.over().is_some() {
            self.crash(now + faults.delay(rng));
        } else {
            self.stage = Stage::Working(protocol);
        }
    }

    /// Live messages: some are lost.
    fn listen(
        &mut self,
        protocol: &mut Protocol,
        messages: &[StoredMessage],
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let start = messages.partition_point(|m| m.sequence <= self.cursor);
        for (index, message) in messages.iter().enumerate().skip(start) {
            self.cursor = message.sequence;
            let Some((own, recorded)) = self.own(message) else {
                continue;
            };
            if rng.random_ratio(faults.lost_hints, 1_000) {
                continue;
            }
            match own {
                Some(own) => {
                    let earlier = messages[..index]
                        .iter()
                        .rev()
                        .find(|m| m.subject == message.subject);
                    let via = Via::Live {
                        previous: earlier.map_or(0, |m| m.sequence),
                    };
                    protocol.heard(own, message.sequence, via, fact(&recorded));
                }
                None => verdict(&recorded)
                    .into_iter()
                    .for_each(|v| protocol.verdict(v)),
            }
        }
    }

    fn own(&self, message: &StoredMessage) -> Option<(Option<Own>, Recorded)> {
        let recorded = parse(message)?;
        let own = match recorded.subject {
            Subject::Task(_, TaskVerb::Assigned, Some(agent)) if agent == self.id => {
                Some(Own::Assigned)
            }
            Subject::Task(_, TaskVerb::Withdrawn, Some(agent)) if agent == self.id => {
                Some(Own::Withdrawn)
            }
            Subject::Agent(_, _, agent) if agent == self.id => None,
            _ => return None,
        };
        Some((own, recorded))
    }

    fn act(
        &mut self,
        protocol: &mut Protocol,
        action: Do,
        clock: &Clock,
        messages: &[StoredMessage],
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let now = clock.micros();
        match action {
            Do::CatchUp { own, from } => {
                for message in messages.iter().filter(|m| m.sequence >= from) {
                    if let Some((Some(which), recorded)) = self.own(message)
                        && which == own
                    {
                        protocol.heard(own, message.sequence, Via::CatchUp, fact(&recorded));
                    }
                }
                protocol.caught_up(now / 1_000, own, true);
            }
            Do::Check { assigned, verdicts } => {
                let found = assigned.then(|| self.last(messages, TaskVerb::Assigned));
                let withdrawn = self.last(messages, TaskVerb::Withdrawn);
                if verdicts {
                    let mine = messages
                        .iter()
                        .filter_map(|m| self.own(m))
                        .filter(|(own, _)| own.is_none());
                    let all: Vec<Verdict> = mine
                        .filter_map(|(_, recorded)| verdict(&recorded))
                        .collect();
                    all.into_iter().for_each(|v| protocol.verdict(v));
                }
                protocol.checked(now / 1_000, Some((found, withdrawn)));
            }
            Do::Append(writes) => {
                self.outbox.push_back(Sending {
                    due: now + faults.delay(rng),
                    writes,
                });
            }
            Do::LookUp(write) => {
                let found = messages.iter().rev().find_map(|m| {
                    parse(m)
                        .filter(|recorded| recorded.event.id == write.id)
                        .map(|recorded| recorded.sequence)
                });
                protocol.looked_up(now / 1_000, write.assignment.sequence, Some(found));
            }
            Do::Run(assignment) => self.run(&assignment, clock, messages, rng, faults),
            Do::Kill { assignment } => {
                self.running.remove(&assignment);
            }
        }
    }

    fn run(
        &mut self,
        assignment: &Arc<Assignment>,
        clock: &Clock,
        messages: &[StoredMessage],
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        self.runs += 1;
        let withdrawn = messages.iter().find_map(|m| {
            let (own, recorded) = self.own(m)?;
            let Body::TaskWithdrawn(w) = &recorded.event.body else {
                return None;
            };
            (own == Some(Own::Withdrawn) && w.assignment == assignment.sequence)
                .then_some(m.sequence)
        });
        let started = messages.iter().find_map(|m| {
            let recorded = parse(m)?;
            let Body::TaskStarted(s) = &recorded.event.body else {
                return None;
            };
            (s.assignment == assignment.sequence && recorded.subject.agent() == Some(self.id))
                .then_some(m.sequence)
        });
        match (started, withdrawn) {
            (None, _) => self
                .complaints
                .push(format!("{} runs and was not started", assignment.sequence)),
            (Some(s), Some(w)) if w < s => {
                self.complaints.push(format!(
                    "{} was withdrawn at {w} and started at {s}",
                    assignment.sequence
                ));
            }
            _ => {}
        }
        let outcome = if rng.random_ratio(faults.failing, 1_000) {
            Outcome::failed("the model says no", rng.random_ratio(9, 10))
        } else {
            Outcome::Completed(Carried::Inline(Json::from(
                serde_json::json!({"by": self.name}),
            )))
        };
        // Some outlive their time limit.
        let takes = if rng.random_ratio(faults.slow, 1_000) {
            8_000_000
        } else {
            rng.random_range(0..400_000)
        };
        self.running
            .insert(assignment.sequence, (clock.micros() + takes, outcome));
    }

    fn append(&self, clock: &Clock, writes: &[Write]) -> Vec<(u64, Written)> {
        let fence = self.subject(TaskVerb::Withdrawn);
        let messages = writes
            .iter()
            .map(|write| {
                let (verb, body): (TaskVerb, Body) = match &write.kind {
                    WriteKind::Started => (
                        TaskVerb::Started,
                        task::Started {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Completed(result)) => (
                        TaskVerb::Completed,
                        task::Completed {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            result: result.clone(),
                        }
                        .into(),
                    ),
                    WriteKind::Ended(Outcome::Failed { error, retryable }) => (
                        TaskVerb::AttemptFailed,
                        task::AttemptFailed {
                            assignment: write.assignment.sequence,
                            incarnation: self.incarnation,
                            error: error.clone(),
                            retryable: *retryable,
                        }
                        .into(),
                    ),
                };
                let subject = Subject::Task(self.place, verb, Some(self.id));
                let time = Timestamp::from_micros(clock.log_time());
                let event = Event::new(
                    write.id,
                    Source::Agent(self.id),
                    time,
                    &subject,
                    write.assignment.task.0,
                    body,
                );
                Message {
                    subject: subject.to_string(),
                    payload: event.to_json().expect("JSON").into(),
                    message_id: Some(write.id.to_string()),
                    fence: Some(Fence {
                        subject: fence.clone().into(),
                        sequence: write.fence,
                    }),
                }
            })
            .collect();
        let results = self.log.append(messages).now_or_never().unwrap_or_default();
        writes
            .iter()
            .zip(results)
            .map(|(write, result)| {
                let written = match result {
                    Ok(appended) => Written::Stored(appended.sequence),
                    Err(AppendError::Fenced { .. }) => Written::Fenced,
                    Err(AppendError::FenceBusy { .. }) => Written::Busy,
                    Err(AppendError::Unknown { .. }) => Written::Unknown,
                    Err(AppendError::Full { .. }) => Written::Full,
                    Err(e) => Written::Refused(e.to_string()),
                };
                (write.assignment.sequence, written)
            })
            .collect()
    }
}

fn parse(message: &StoredMessage) -> Option<Recorded> {
    let time = Timestamp::from_micros(message.time_micros);
    match read(message.sequence, time, &message.subject, &message.payload) {
        Input::Event(recorded) => Some(recorded),
        Input::Unreadable(_) => None,
    }
}

fn fact(recorded: &Recorded) -> Fact {
    match &recorded.event.body {
        Body::TaskAssigned(data) => Fact::Assigned(Arc::new(Assignment {
            sequence: recorded.sequence,
            task: swarm_events::TaskId(recorded.event.about),
            event: recorded.event.id,
            correlation: recorded.event.correlation,
            data: data.clone(),
        })),
        Body::TaskWithdrawn(w) => Fact::Withdrawn {
            assignment: w.assignment,
            incarnation: w.incarnation,
            force: w.force,
        },
        _ => Fact::Unreadable,
    }
}

fn verdict(recorded: &Recorded) -> Option<Verdict> {
    Some(match &recorded.event.body {
        Body::AgentJoined(j) => Verdict::Joined {
            incarnation: j.incarnation,
            instance: j.instance,
        },
        Body::AgentFailed(f) => Verdict::Failed {
            incarnation: f.incarnation,
        },
        Body::AgentRemoved(r) => Verdict::Removed {
            incarnation: r.incarnation,
            reason: r.reason.clone(),
        },
        Body::AgentLeft(l) => Verdict::Removed {
            incarnation: l.incarnation,
            reason: l.reason.clone(),
        },
        _ => return None,
    })
}
