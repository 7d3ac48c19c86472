//! A model of an agent process around the real protocol of the SDK.

mod handler;
mod wire;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::FutureExt;
use rand::{Rng, rngs::StdRng};
use swarm_agent_sdk::protocol::{Do, Outcome, Own, Protocol, Via, Write, Written};
use swarm_audit::Violation;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, Json, Place, Recorded, Subject, TaskId, Timestamp,
    command,
    envelope::Source,
    subject::{AgentVerb, CommandVerb, TaskVerb},
};
use swarm_log::{Log, Message, simulated::SimulatedLog};

use wire::{fact, verdict};

use crate::{
    clock::{Clock, new_id},
    journal::{Journal, Met},
    world::Faultiness,
};

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
/// A handler at work.
struct Run {
    ends: u64,
    outcome: Outcome,
    task: TaskId,
    /// When it tells of its progress next.
    tells: Option<u64>,
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
    running: BTreeMap<u64, Run>,
    outbox: VecDeque<Sending>,
    answers: VecDeque<(u64, Vec<(u64, Written)>)>,
    pub paused_until: u64,
    next_beat: u64,
    /// Assignments whose handler was started here.
    ran: BTreeSet<u64>,
    /// A broken promise that only the agent can see.
    pub found: Option<Violation>,
    /// Its attempts fail at once while things go wrong.
    pub fails_fast: bool,
    /// The request by which a host started it; `None`: it was started by hand, and comes back by itself.
    spawn: Option<u64>,
    /// It has been told to go by a signal.
    going: bool,
    /// When it last said that it leaves.
    left: Option<u64>,
    /// The exit code of a process that a host started, once it has ended.
    pub ended: Option<i32>,
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
            ran: BTreeSet::new(),
            found: None,
            fails_fast: false,
            spawn: None,
            going: false,
            left: None,
            ended: None,
        }
    }

    /// A process that a host starts.
    pub fn started(
        id: AgentId,
        place: Place,
        log: SimulatedLog,
        slots: u32,
        capabilities: Vec<String>,
        spawn: u64,
    ) -> Self {
        Self {
            id,
            name: format!("{id}-{spawn}"),
            spawn: Some(spawn),
            ..Self::new(0, place, log, slots, capabilities)
        }
    }

    /// SIGTERM.
    pub fn go(&mut self) {
        self.going = true;
    }

    /// What it runs is no more. One that a host started has ended with it.
    pub fn crash(&mut self, until: u64) {
        if self.spawn.is_some() {
            self.ended = Some(i32::from(!self.going));
        }
        self.left = None;
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
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) -> Option<u64> {
        let now = clock.micros();
        if self.ended.is_some() {
            return None;
        }
        match &mut self.stage {
            Stage::Joining { .. } if self.going => {
                self.crash(now);
                return None;
            }
            Stage::Down { until } if *until <= now => {
                self.instance = InstanceId(new_id(clock, rng));
                let from = journal.last_sequence();
                self.stage = Stage::Joining {
                    command: EventId(new_id(clock, rng)),
                    sent: None,
                    from,
                };
            }
            Stage::Down { .. } => return None,
            Stage::Joining { .. } => self.join(clock, journal, rng),
            Stage::Working(_) => self.work(clock, journal, rng, faults),
        }
        if self.is_up() && now >= self.next_beat {
            self.next_beat = now + HEARTBEAT;
            return Some(self.incarnation);
        }
        None
    }

    fn join(&mut self, clock: &Clock, journal: &Journal, rng: &mut StdRng) {
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
                agent_name: self.spawn.is_none().then(|| self.name.clone()),
                capabilities: self.capabilities.clone(),
                slots: Some(self.slots),
                waiting: None,
                metadata: Json::object(),
                spawn: self.spawn,
            };
            let time = Timestamp::from_micros(clock.wall());
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
        let mut joined = None;
        let mut refused = false;
        for met in journal.after(*from) {
            let Some(recorded) = met.recorded() else {
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
            let last = |verb| self.last(journal, verb);
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
            self.cursor = journal.last_sequence();
            self.stage = Stage::Working(Box::new(protocol));
        } else if refused {
            self.crash(now + 500_000);
        }
    }

    /// It goes by its own word, with nothing in its hands.
    fn leave(&self, clock: &Clock, rng: &mut StdRng) {
        let subject = Subject::Command(self.place, CommandVerb::Leave);
        let body = command::Leave {
            incarnation: self.incarnation,
            reason: Some("told to go".to_owned()),
        };
        let (id, time) = (new_id(clock, rng), Timestamp::from_micros(clock.wall()));
        let source = Source::Agent(self.id);
        let event = Event::new(EventId(id), source, time, &subject, self.id.0, body);
        let message = Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: Some(id.to_string()),
            fence: None,
        };
        drop(self.log.append(vec![message]).now_or_never());
    }

    fn last(&self, journal: &Journal, verb: TaskVerb) -> u64 {
        journal.last_of(&self.subject(verb))
    }

    fn work(&mut self, clock: &Clock, journal: &Journal, rng: &mut StdRng, faults: Faultiness) {
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
        self.listen(&mut protocol, journal, rng, faults);
        let due: Vec<u64> = self
            .running
            .iter()
            .filter(|(_, run)| run.ends <= now)
            .map(|(a, _)| *a)
            .collect();
        for assignment in due {
            if let Some(run) = self.running.remove(&assignment) {
                protocol.finished(assignment, run.outcome);
            }
        }
        self.report(clock, rng);
        if self.going {
            protocol.drain();
        }
        let leaves = self.going || protocol.stop().is_some();
        if leaves && protocol.is_idle() && self.left.is_none_or(|at| now >= at + JOIN_RETRY) {
            self.left = Some(now);
            self.leave(clock, rng);
        }
        for action in protocol.next(now_ms) {
            self.act(&mut protocol, action, clock, journal, rng, faults);
        }
        if protocol.over().is_some() {
            self.going |= protocol.stop().is_some();
            self.crash(now + faults.delay(rng));
            self.going &= self.spawn.is_some();
        } else {
            self.stage = Stage::Working(protocol);
        }
    }

    /// Live messages: some are lost.
    fn listen(
        &mut self,
        protocol: &mut Protocol,
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let from = std::mem::replace(&mut self.cursor, journal.last_sequence());
        for met in journal.after(from) {
            let Some((own, recorded)) = self.own(met) else {
                continue;
            };
            if rng.random_ratio(faults.lost_hints, 1_000) {
                continue;
            }
            match own {
                Some(own) => {
                    let previous = journal.previous(met);
                    protocol.heard(own, met.sequence(), Via::Live { previous }, fact(recorded));
                }
                None => verdict(recorded)
                    .into_iter()
                    .for_each(|v| protocol.verdict(v)),
            }
        }
        // A hint comes twice, or much too late.
        if rng.random_ratio(faults.lost_hints, 10_000) {
            let subject = self.subject(TaskVerb::Assigned);
            let back = rng.random_range(0..4);
            if let Some(met) = journal.on(&subject).rev().nth(back)
                && let Some(recorded) = met.recorded()
            {
                let previous = journal.previous(met);
                protocol.heard(
                    Own::Assigned,
                    met.sequence(),
                    Via::Live { previous },
                    fact(recorded),
                );
            }
        }
    }

    fn own<'a>(&self, met: &'a Met) -> Option<(Option<Own>, &'a Recorded)> {
        let recorded = met.recorded()?;
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
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let now = clock.micros();
        match action {
            Do::CatchUp { own, from } => {
                for met in journal.after(from.saturating_sub(1)) {
                    if let Some((Some(which), recorded)) = self.own(met)
                        && which == own
                    {
                        protocol.heard(own, met.sequence(), Via::CatchUp, fact(recorded));
                    }
                }
                protocol.caught_up(now / 1_000, own, true);
            }
            Do::Check { assigned, verdicts } => {
                let found = assigned.then(|| self.last(journal, TaskVerb::Assigned));
                let withdrawn = self.last(journal, TaskVerb::Withdrawn);
                if verdicts {
                    let mine = journal.all().iter().filter_map(|met| self.own(met));
                    mine.filter(|(own, _)| own.is_none())
                        .filter_map(|(_, recorded)| verdict(recorded))
                        .for_each(|v| protocol.verdict(v));
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
                let found = journal.find(write.id);
                protocol.looked_up(now / 1_000, write.assignment.sequence, Some(found));
            }
            Do::Run(assignment) => self.run(&assignment, clock, journal, rng, faults),
            Do::Kill { assignment } => {
                self.running.remove(&assignment);
            }
        }
    }
}
