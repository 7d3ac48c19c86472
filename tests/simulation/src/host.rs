//! A model of an agent host around the real fold of what the log wants of it, with model agents for its processes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use futures::FutureExt;
use rand::{Rng, rngs::StdRng};
use swarm_agent_host_core::{Fate, Key, Todo, Wishes};
use swarm_audit::Violation;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, Problem, Subject, Timestamp,
    agent::{
        AgentSpec, Exit, Exited, HostName, Launched, LimitedBy, SpawnClaimed, SpawnDeclined,
        SpawnRequested,
    },
    envelope::Source,
    planted::{self, Bug},
    subject::AgentVerb,
};
use swarm_log::{AppendError, Fence, Log, Message, simulated::SimulatedLog};

use crate::{
    agent::ModelAgent,
    clock::{Clock, new_id},
    journal::{Journal, Met},
    world::Faultiness,
};

/// How often a host says that it lives, in microseconds.
const BEAT: u64 = 1_000_000;
/// What an agent gets when its host goes, in microseconds.
const LEAVE_GRACE: u64 = 700_000;
/// Wait before a write is tried again, in microseconds.
const RETRY: u64 = 100_000;

/// What a program does, by its name in the command.
pub const PROGRAMS: [&str; 6] = [
    "works",
    "crashes",
    "ends",
    "fails-fast",
    "deaf",
    "forbidden",
];

struct Child {
    spawn: u64,
    agent: ModelAgent,
    since: u64,
    /// It ends by itself then, with this exit code.
    ends: Option<(u64, i32)>,
    /// It does not hear signals.
    deaf: bool,
    /// It is killed then.
    killed_at: Option<u64>,
}

struct Claiming {
    due: u64,
    key: Key,
    spawn: u64,
    last_claim: u64,
    id: EventId,
    /// The request.
    of: EventId,
}

/// A host process, and those that it starts one after another under the same name.
pub struct ModelHost {
    /// Its handle on the log.
    pub name: String,
    log: SimulatedLog,
    instance: InstanceId,
    wishes: Wishes,
    cursor: u64,
    /// It does not run until then.
    down_until: Option<u64>,
    pub paused_until: u64,
    /// SIGTERM came: it starts nothing more.
    leaving: bool,
    children: BTreeMap<Key, Child>,
    claims: Vec<Claiming>,
    claimed: BTreeMap<Key, EventId>,
    declined: BTreeMap<Key, EventId>,
    /// In order, each sent until it is stored.
    reports: VecDeque<(u64, Key, Message)>,
    next_beat: u64,
    pub found: Option<Violation>,
}

/// What a step of a host lets others hear.
#[derive(Default)]
pub struct Heard {
    pub agents: Vec<(AgentId, u64)>,
    pub host: Option<InstanceId>,
}

impl ModelHost {
    pub fn new(number: usize, log: SimulatedLog) -> Self {
        let instance = InstanceId(uuid::Uuid::nil());
        Self {
            name: format!("host-{number}"),
            log,
            instance,
            wishes: Wishes::new(instance),
            cursor: 0,
            down_until: Some(0),
            paused_until: 0,
            leaving: false,
            children: BTreeMap::new(),
            claims: Vec::new(),
            claimed: BTreeMap::new(),
            declined: BTreeMap::new(),
            reports: VecDeque::new(),
            next_beat: 0,
            found: None,
        }
    }

    pub const fn instance(&self) -> InstanceId {
        self.instance
    }

    /// SIGKILL: its processes die with it.
    pub fn kill(&mut self, until: u64) {
        self.children.clear();
        self.claims.clear();
        self.claimed.clear();
        self.declined.clear();
        self.reports.clear();
        self.leaving = false;
        self.down_until = Some(until);
    }

    /// SIGTERM.
    pub fn leave(&mut self, now: u64) {
        self.leaving = true;
        for child in self.children.values_mut() {
            child.stop(now, LEAVE_GRACE);
        }
    }

    /// A process of an agent is killed.
    pub fn kill_one(&mut self, rng: &mut StdRng) -> bool {
        let count = self.children.len();
        if count == 0 {
            return false;
        }
        let at = rng.random_range(0..count);
        if let Some(child) = self.children.values_mut().nth(at) {
            child.killed_at = Some(0);
        }
        true
    }

    /// An end of all faults.
    pub fn rise(&mut self) {
        self.paused_until = 0;
        if let Some(until) = &mut self.down_until {
            *until = 0;
        }
        for child in self.children.values_mut() {
            child.agent.rise();
        }
    }

    /// What runs here: agent and request.
    pub fn processes(&self) -> impl Iterator<Item = (Key, u64)> {
        self.children.iter().map(|(key, child)| (*key, child.spawn))
    }

    pub fn step(
        &mut self,
        clock: &Clock,
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) -> Heard {
        let now = clock.micros();
        let mut heard = Heard::default();
        if self.down_until.is_some_and(|until| until > now) {
            return heard;
        }
        if self.down_until.take().is_some() {
            self.begin(clock, journal, rng);
        }
        // Its processes go on while it hangs.
        for child in self.children.values_mut() {
            if let Some(incarnation) = child.agent.step(clock, journal, rng, faults) {
                heard.agents.push((child.agent.id, incarnation));
            }
            self.found = self.found.take().or(child.agent.found.take());
        }
        if self.paused_until > now {
            return heard;
        }
        if now >= self.next_beat {
            self.next_beat = now + BEAT;
            heard.host = Some(self.instance);
        }
        for met in journal.after(self.cursor) {
            self.meet(met);
        }
        self.cursor = journal.last_sequence();
        self.reap(clock, rng, faults);
        self.send_claims(clock, journal, rng, faults);
        self.send_reports(now, rng, faults);
        for key in self.wishes.keys() {
            self.reconcile(key, clock, rng, faults);
        }
        if self.leaving && self.children.is_empty() && self.reports.is_empty() {
            self.kill(now + rng.random_range(0..3_000_000));
        }
        heard
    }

    /// A new process reads the last message of each subject first, then all that follows.
    fn begin(&mut self, clock: &Clock, journal: &Journal, rng: &mut StdRng) {
        self.instance = InstanceId(new_id(clock, rng));
        self.wishes = Wishes::new(self.instance);
        self.cursor = journal.last_sequence();
        let mut subjects = BTreeSet::new();
        let mut last = Vec::new();
        for met in journal.all().iter().rev() {
            if is_read(met) && subjects.insert(met.stored.subject.clone()) {
                last.push(met);
            }
        }
        for met in last.into_iter().rev() {
            self.meet(met);
        }
    }

    fn meet(&mut self, met: &Met) {
        if let Some(recorded) = met.recorded().filter(|_| is_read(met))
            && let Subject::Agent(place, _, agent) = recorded.subject
        {
            let key = Key { place, agent };
            self.wishes.meet(key, recorded.sequence, &recorded.event);
        }
    }

    fn host(&self) -> HostName {
        HostName {
            instance: self.instance,
            name: self.name.clone(),
        }
    }

    fn message(
        &self,
        clock: &Clock,
        id: EventId,
        key: Key,
        verb: AgentVerb,
        causation: Option<EventId>,
        body: impl Into<Body>,
    ) -> Message {
        let subject = Subject::Agent(key.place, verb, key.agent);
        let time = Timestamp::from_micros(clock.wall());
        let source = Source::Host(self.instance);
        let mut event = Event::new(id, source, time, &subject, key.agent.0, body);
        event.causation = causation.map(|id| id.0);
        Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: Some(id.to_string()),
            fence: None,
        }
    }

    fn say(
        &mut self,
        key: Key,
        verb: AgentVerb,
        body: impl Into<Body>,
        (clock, rng, faults): (&Clock, &mut StdRng, Faultiness),
    ) {
        let id = EventId(new_id(clock, rng));
        let message = self.message(clock, id, key, verb, None, body);
        let due = clock.micros() + faults.delay(rng);
        self.reports.push_back((due, key, message));
    }

    /// Reports what has ended.
    fn reap(&mut self, clock: &Clock, rng: &mut StdRng, faults: Faultiness) {
        let now = clock.micros();
        let calm = faults.failing == 0;
        let mut over = Vec::new();
        for (key, child) in &mut self.children {
            let killed = child.killed_at.is_some_and(|at| at <= now);
            let own = child.ends.filter(|(at, _)| *at <= now && !calm);
            if killed || own.is_some() || child.agent.ended.is_some() {
                let code = own.map(|(_, code)| code).or(child.agent.ended);
                let exit = Exit {
                    code: code.filter(|_| !killed),
                    signal: killed.then_some(9),
                    ..Exit::default()
                };
                over.push((*key, child.spawn, exit, (now - child.since) / 1_000));
            }
        }
        for (key, spawn, exit, uptime_ms) in over {
            self.children.remove(&key);
            let exited = self.exited(spawn, exit, uptime_ms);
            self.say(key, AgentVerb::Exited, exited, (clock, rng, faults));
        }
    }

    fn exited(&self, spawn: u64, exit: Exit, uptime_ms: u64) -> Exited {
        Exited {
            spawn,
            host: self.host(),
            exit,
            uptime_ms,
            host_leaving: self.leaving,
            left_behind: 0,
            last_output: String::new(),
        }
    }

    fn send_claims(
        &mut self,
        clock: &Clock,
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        let now = clock.micros();
        let due: Vec<Claiming> = self
            .claims
            .extract_if(.., |claim| claim.due <= now)
            .collect();
        for mut claim in due {
            let body = SpawnClaimed {
                spawn: claim.spawn,
                host: self.host(),
            };
            let mut message = self.message(
                clock,
                claim.id,
                claim.key,
                AgentVerb::SpawnClaimed,
                Some(claim.of),
                body,
            );
            if !planted::is(Bug::SecondClaimStarts) {
                message.fence = Some(Fence {
                    subject: message.subject.as_str().into(),
                    sequence: claim.last_claim,
                });
            }
            let subject = message.subject.clone();
            let outcome = self.log.append(vec![message]).now_or_never();
            match outcome.and_then(|mut results| results.pop()) {
                // Whose claim holds, the log tells.
                Some(Ok(_)) => continue,
                Some(Err(AppendError::Fenced { .. } | AppendError::Unknown { .. })) => {
                    let last = journal.last_of(&subject);
                    if last > claim.last_claim {
                        // Somebody claimed; what is open is considered anew when that is met.
                        self.claimed.remove(&claim.key);
                        continue;
                    }
                }
                _ => {}
            }
            claim.due = now + RETRY + faults.delay(rng);
            self.claims.push(claim);
        }
    }

    fn send_reports(&mut self, now: u64, rng: &mut StdRng, faults: Faultiness) {
        let mut held = BTreeSet::new();
        let mut later = VecDeque::new();
        while let Some((due, key, message)) = self.reports.pop_front() {
            if due > now || held.contains(&key) {
                held.insert(key);
                later.push_back((due, key, message));
                continue;
            }
            let outcome = self.log.append(vec![message.clone()]).now_or_never();
            let stored = outcome.is_some_and(|results| results.iter().all(Result::is_ok));
            if !stored {
                held.insert(key);
                later.push_back((now + RETRY + faults.delay(rng), key, message));
            }
        }
        self.reports = later;
    }

    fn reconcile(&mut self, key: Key, clock: &Clock, rng: &mut StdRng, faults: Faultiness) {
        let now = clock.micros();
        if let Some(child) = self.children.get_mut(&key) {
            if let Fate::Stop { grace_ms, .. } = self.wishes.fate(key, child.spawn) {
                child.stop(now, grace_ms * 1_000);
            }
            return;
        }
        let around = (clock, rng, faults);
        match self.wishes.todo(key) {
            Todo::Nothing => self.wishes.forget_if_gone(key),
            Todo::NeverMind { spawn } => self.never_started(key, spawn, around),
            Todo::Start(request) if self.leaving => self.never_started(key, request.spawn, around),
            Todo::Start(request) => self.start(key, &request, around),
            Todo::Claim {
                request,
                id,
                last_claim,
                ..
            } => self.consider(key, &request, (id, last_claim), around),
        }
    }

    fn never_started(&mut self, key: Key, spawn: u64, around: (&Clock, &mut StdRng, Faultiness)) {
        self.wishes.started(key, spawn);
        let exit = Exit {
            error: Some("it was not to be started any more".to_owned()),
            ..Exit::default()
        };
        let exited = self.exited(spawn, exit, 0);
        self.say(key, AgentVerb::Exited, exited, around);
    }

    fn consider(
        &mut self,
        key: Key,
        request: &SpawnRequested,
        (of, last_claim): (EventId, u64),
        (clock, rng, faults): (&Clock, &mut StdRng, Faultiness),
    ) {
        let spawn = request.spawn;
        let waits = self.reports.iter().any(|(_, of, _)| *of == key);
        if self.leaving
            || waits
            || self.claimed.get(&key) == Some(&of)
            || self.declined.get(&key) == Some(&of)
        {
            return;
        }
        if program(&request.spec) == "forbidden" {
            self.declined.insert(key, of);
            let declined = SpawnDeclined {
                spawn,
                host: self.host(),
                problem: Problem::new("not-allowed", "the model allows no such program"),
            };
            self.say(
                key,
                AgentVerb::SpawnDeclined,
                declined,
                (clock, rng, faults),
            );
            return;
        }
        self.claimed.insert(key, of);
        self.claims.push(Claiming {
            due: clock.micros() + faults.delay(rng),
            key,
            spawn,
            last_claim,
            id: EventId(new_id(clock, rng)),
            of,
        });
        if planted::is(Bug::SecondClaimStarts) {
            self.start(key, request, (clock, rng, faults));
        }
    }

    fn start(
        &mut self,
        key: Key,
        request: &SpawnRequested,
        (clock, rng, faults): (&Clock, &mut StdRng, Faultiness),
    ) {
        let now = clock.micros();
        let (spec, spawn) = (&request.spec, request.spawn);
        self.wishes.started(key, spawn);
        if faults.failing > 0 && rng.random_ratio(1, 30) {
            self.never_started(key, spawn, (clock, rng, faults));
            return;
        }
        let launched = Launched {
            spawn,
            host: self.host(),
            pid: rng.random_range(1..30_000),
            limited_by: LimitedBy::Nothing,
            unlimited: Vec::new(),
        };
        self.say(key, AgentVerb::Launched, launched, (clock, rng, faults));
        let mut agent = ModelAgent::started(
            key.agent,
            key.place,
            self.log.clone(),
            spec.slots.unwrap_or(1),
            spec.capabilities.clone(),
            spawn,
        );
        let what = program(spec);
        agent.fails_fast = what == "fails-fast";
        let ends = match what {
            "crashes" => Some((now + rng.random_range(0..300_000), 1)),
            "ends" => Some((now + rng.random_range(0..2_000_000), 0)),
            _ => None,
        };
        let child = Child {
            spawn,
            agent,
            since: now,
            ends,
            deaf: what == "deaf",
            killed_at: None,
        };
        self.children.insert(key, child);
    }
}

impl Child {
    /// Told to go, and killed after a while: a later word never gives more time.
    fn stop(&mut self, now: u64, grace: u64) {
        if !self.deaf && grace > 0 {
            self.agent.go();
        }
        let at = now + grace;
        self.killed_at = Some(self.killed_at.map_or(at, |before| before.min(at)));
    }
}

fn program(spec: &AgentSpec) -> &str {
    spec.command.first().map_or("", String::as_str)
}

/// What a host reads.
fn is_read(met: &Met) -> bool {
    met.recorded().is_some_and(|recorded| {
        matches!(
            recorded.subject,
            Subject::Agent(
                _,
                AgentVerb::SpawnRequested
                    | AgentVerb::SpawnClaimed
                    | AgentVerb::Exited
                    | AgentVerb::HostFailed
                    | AgentVerb::CrashLooping
                    | AgentVerb::Stopping
                    | AgentVerb::Removed,
                _
            )
        )
    })
}
