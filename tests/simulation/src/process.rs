//! A process of a deciding service: the real replica, with a line to the log on which everything takes time.

mod line;
mod post;
mod snapshot;

use std::collections::{BTreeMap, VecDeque};

use futures::{FutureExt, StreamExt, stream::BoxStream};
use rand::{Rng, rngs::StdRng};
use swarm_audit::Violation;
use swarm_events::{
    AgentId, Body, Event, EventId, Input, InstanceId, Partition, Subject,
    control::{Claimed, Woken},
    decider::Decider,
    envelope::Source,
    planted::{self, Bug},
    subject::ControlVerb,
};
use swarm_log::{Log, Message, PresenceNews, simulated::SimulatedLog};
use swarm_runtime::{
    deciding::{
        Announcement, decision_message, epoch_fence,
        machine::{Met as Owning, Mode, Need},
        replica::{Action, Joined, Replica},
    },
    snapshots::{Meta, Store, Wanted},
};

use crate::{
    clock::{Clock, OwnClock, new_id},
    folds::Folds,
    journal::{Journal, Met},
    shells::{Ears, Shell},
    versions::Version,
    world::Faultiness,
};
use line::{Kind, Line};
use post::Mail;

/// What a step needs of the world.
pub struct Around<'a> {
    pub clock: &'a Clock,
    pub journal: &'a Journal,
    pub folds: &'a Folds,
    pub rng: &'a mut StdRng,
    pub faults: Faultiness,
}

/// What the world knows of a process, whatever its service.
pub struct Common {
    /// Its name on the log.
    pub handle: String,
    /// The name that its presence carries, if any: the next process of that name takes its place.
    pub name: Option<String>,
    pub instance: InstanceId,
    pub version: Version,
    pub paused_until: u64,
    /// Its renewals stay on their way until then, while it goes on deciding.
    pub silent_until: u64,
    /// Cut off from the log.
    pub cut: bool,
    /// It has handed over and ended.
    pub ended: bool,
    pub leaving: bool,
    /// What it sent lately.
    pub sent: VecDeque<Message>,
    pub found: Option<Violation>,
    pub joins: u64,
    pub snapshots: u64,
    /// Joins that began at a snapshot.
    pub resumed: u64,
}

/// A process, whatever its service and version.
pub trait Member {
    fn common(&self) -> &Common;
    fn common_mut(&mut self) -> &mut Common;
    /// One step: what is due leaves and arrives, messages are met, decisions are made.
    fn step(&mut self, around: &mut Around<'_>);
    /// SIGTERM.
    fn leave(&mut self, clock: &Clock);
    /// An agent's heartbeat reaches it.
    fn hear(&mut self, agent: AgentId, incarnation: u64, now: u64);
    /// It hears of an agent host, as of that time.
    fn hear_host(&mut self, host: InstanceId, at: u64);
    /// nats-server says that a member's connection closed.
    fn noticed(&mut self, instance: InstanceId, clock: &Clock);
}

pub struct Process<D: Decider> {
    common: Common,
    log: SimulatedLog,
    created_micros: i64,
    clock: OwnClock,
    partitions: Vec<Partition>,
    replica: Replica<D>,
    line: Line,
    watch: BoxStream<'static, PresenceNews>,
    /// Renewals on their way, and acknowledgements of such.
    renewals: VecDeque<(u64, Option<Announcement>)>,
    joining: Option<(u64, Vec<Partition>)>,
    /// A snapshot on its way.
    storing: Option<(u64, Meta, Vec<u8>)>,
    was_cut: bool,
    ears: Ears,
    /// What was told to other partitions, by its own.
    mail: BTreeMap<Partition, Mail>,
}

/// Longest that a join takes in microseconds.
const JOIN_MAX: u64 = 300_000;
/// Messages that are kept to be repeated.
const SENT_MAX: usize = 64;

impl<D: Decider + Shell> Process<D> {
    pub fn new(
        mut common: Common,
        log: SimulatedLog,
        partitions: &[Partition],
        clock: &Clock,
        rng: &mut StdRng,
    ) -> Self {
        let own = OwnClock::draw(clock, rng);
        let created_micros = log.info().now_or_never().and_then(Result::ok);
        common.cut = false;
        Self {
            replica: Replica::new(
                common.instance,
                common.name.clone(),
                own.wall(clock),
                partitions.to_vec(),
            ),
            watch: log.watch_presence(&format!("{}.", D::SERVICE.as_str())),
            line: Line::default(),
            created_micros: created_micros.map_or(0, |info| info.created_micros),
            clock: own,
            partitions: partitions.to_vec(),
            renewals: VecDeque::new(),
            joining: None,
            storing: None,
            was_cut: false,
            ears: Ears::default(),
            mail: BTreeMap::new(),
            common,
            log,
        }
    }

    /// An input as this version reads it: `None` if a newer one wrote it.
    fn reads(&self, input: &Input) -> bool {
        match input {
            Input::Event(recorded) => {
                self.common.version != Version::Before || D::known_before(&recorded.event.body)
            }
            Input::Unreadable(unreadable) => !unreadable.newer,
        }
    }

    fn connection(&mut self, around: &Around<'_>) {
        if self.common.cut == self.was_cut {
            return;
        }
        self.was_cut = self.common.cut;
        let (now, wall) = (
            self.clock.monotonic(around.clock),
            self.clock.wall(around.clock),
        );
        if self.was_cut {
            self.replica.interrupted(now, wall);
        } else {
            self.replica.resumed(now, wall);
        }
    }

    fn presence(&mut self, around: &mut Around<'_>) {
        let (micros, now) = (around.clock.micros(), self.clock.monotonic(around.clock));
        while self.renewals.front().is_some_and(|(due, _)| *due <= micros) {
            match self.renewals.pop_front() {
                Some((_, Some(announcement))) => {
                    let key = key::<D>(announcement.instance);
                    let value = serde_json::to_vec(&announcement).expect("JSON");
                    let put = self.log.put_presence(&key, value.into()).now_or_never();
                    if put.is_some_and(|outcome| outcome.is_ok()) {
                        let due = micros + around.faults.delay(around.rng);
                        self.renewals.push_back((due, None));
                    }
                }
                Some((_, None)) => self.replica.renewed(now),
                None => {}
            }
        }
        for _ in 0..around.rng.random_range(1..12) {
            let Some(Some(news)) = self.watch.next().now_or_never() else {
                break;
            };
            match news {
                PresenceNews::Put {
                    value,
                    written_micros,
                    ..
                } => {
                    let written = swarm_events::Timestamp::from_micros(written_micros);
                    let said: Announcement = serde_json::from_slice(&value).expect("its own JSON");
                    self.replica.heard(said, written, now);
                }
                PresenceNews::Removed { key } => {
                    let id = key.rsplit('.').next().and_then(|id| id.parse().ok());
                    if let Some(id) = id {
                        self.replica.removed(InstanceId(id));
                    }
                }
                PresenceNews::Complete => self.replica.complete(now),
            }
        }
    }

    fn answers(&mut self, around: &mut Around<'_>) {
        self.line.flush(&self.log, &mut self.common.sent, around);
        let now = self.clock.monotonic(around.clock);
        for settled in self.line.answers(around.clock.micros()) {
            let partition = settled.partition;
            if let Some(machine) = self.replica.machine_mut(partition) {
                settled.tell(machine, now);
                self.replica.touched(partition);
            }
        }
    }

    fn join(&mut self, around: &mut Around<'_>) {
        let due = self
            .joining
            .as_ref()
            .is_some_and(|(due, _)| *due <= around.clock.micros());
        let Some((_, partitions)) = self.joining.take_if(|_| due) else {
            return;
        };
        let now = self.clock.monotonic(around.clock);
        let upto = around.journal.last_sequence();
        let mut joined = Vec::new();
        let mut unfoldable = Vec::new();
        for partition in partitions {
            match self.fold_to(partition, upto, around) {
                None => {
                    self.replica.join_failed(now);
                    return;
                }
                Some(Some(found)) => joined.push(found),
                Some(None) => unfoldable.push(partition),
            }
        }
        self.common.joins += 1;
        self.replica.joined(joined, upto, now);
        for partition in unfoldable {
            self.replica.cannot_fold(partition);
        }
    }

    /// A partition from its newest snapshot or from the start to `upto`; `None`: not now, `Some(None)`: not by this version.
    fn fold_to(
        &mut self,
        partition: Partition,
        upto: u64,
        around: &Around<'_>,
    ) -> Option<Option<Joined<D>>> {
        let wanted = Wanted::of::<D>(partition, self.created_micros);
        let store = Store::new(self.log.clone());
        let loaded = store
            .newest::<D>(&wanted, Some(upto))
            .now_or_never()?
            .ok()?;
        let (mut state, from, snapshot) = match loaded {
            Some(loaded) => {
                self.common.resumed += 1;
                let sequence = loaded.meta.sequence;
                (loaded.state, sequence, (sequence, loaded.bytes as u64))
            }
            None => (D::new(partition), 0, (0, 0)),
        };
        for met in around.journal.after(from) {
            if !met.is_for(D::SERVICE, partition) {
                continue;
            }
            if self.reads(&met.input) {
                state.evolve(&met.input, None);
            } else if !planted::is(Bug::NewerSkipped) {
                return Some(None);
            }
        }
        let who = format!("{} (from {from})", self.common.handle);
        self.common.found = self
            .common
            .found
            .take()
            .or(around.folds.compare(&state, &who));
        Some(Some(Joined { state, snapshot }))
    }

    fn read(&mut self, around: &mut Around<'_>) {
        if self.common.cut || !self.replica.follows() {
            return;
        }
        let mut left = around.rng.random_range(1..40);
        let journal = around.journal;
        for met in journal.after(self.replica.position()) {
            self.replica.passed(met.sequence(), met.input.time());
            for at in 0..self.partitions.len() {
                let partition = self.partitions[at];
                if met.is_for(D::SERVICE, partition)
                    && self.replica.wants(partition, met.sequence())
                {
                    self.meet(partition, met, around);
                    left -= 1;
                }
            }
            if left <= 0 {
                break;
            }
        }
    }

    fn meet(&mut self, partition: Partition, met: &Met, around: &mut Around<'_>) {
        if !self.reads(&met.input) {
            if !planted::is(Bug::NewerSkipped) {
                self.replica.cannot_fold(partition);
            }
            return;
        }
        let now = self.clock.monotonic(around.clock);
        let Some((_, owning)) = self.replica.fold(partition, &met.input, now) else {
            return;
        };
        if let Some(machine) = self.replica.machine(partition) {
            if owning == Owning::Owned {
                let micros = around.clock.micros();
                D::owned(machine.state(), &mut self.ears, micros);
            }
            if around.folds.sampling.takes(met.sequence()) {
                let found = around.folds.compare(machine.state(), &self.common.handle);
                self.common.found = self.common.found.take().or(found);
            }
        }
        self.decide(partition, around);
    }

    fn decide(&mut self, partition: Partition, around: &mut Around<'_>) {
        loop {
            let decisions = self
                .replica
                .decide(partition, self.clock.monotonic(around.clock));
            let Some((_, first)) = decisions.first() else {
                return;
            };
            let (epoch, cause) = (first.epoch, first.cause_sequence);
            let fence = epoch_fence(D::SERVICE, partition, epoch);
            let last = self.replica.machine(partition).and_then(|m| m.last_input());
            let mut messages = VecDeque::new();
            for (decision, decided) in decisions {
                let decision =
                    D::hydrate(&self.log, decision).expect("what is in the log can be read");
                let message = decision_message(
                    D::SERVICE,
                    self.common.instance,
                    fence.clone(),
                    decision,
                    decided,
                    last,
                    self.clock.wall(around.clock),
                );
                let mut message = message.expect("JSON");
                if planted::is(Bug::NoFence) {
                    message.fence = None;
                }
                messages.push_back(message);
            }
            self.line.send(
                partition,
                epoch,
                Kind::Decisions { cause },
                messages,
                around,
            );
        }
    }

    fn poll(&mut self, around: &mut Around<'_>) {
        let now = self.clock.monotonic(around.clock);
        for action in self.replica.poll(now) {
            match action {
                Action::Announce(announcement) => {
                    let micros = around.clock.micros() + around.faults.delay(around.rng);
                    let due = micros.max(self.common.silent_until);
                    self.renewals.push_back((due, Some(*announcement)));
                }
                Action::Remove(instance) => {
                    drop(self.log.remove_presence(&key::<D>(instance)).now_or_never());
                }
                Action::Append(partition, need) => self.need(partition, need, around),
                Action::Observe(partition, observed) => {
                    if let Some(Mode::Owner { epoch }) =
                        self.replica.machine(partition).map(|m| m.mode())
                    {
                        let verb = ControlVerb::Observed;
                        self.control(partition, epoch, Kind::Control, verb, observed, around);
                    }
                }
                Action::Join(partitions) => {
                    let due = around.clock.micros() + around.rng.random_range(0..JOIN_MAX);
                    self.joining = Some((due, partitions));
                }
                Action::Snapshot(partition) => self.snapshot(partition, around),
                Action::End => self.common.ended = true,
            }
        }
    }

    fn need(&mut self, partition: Partition, need: Need, around: &mut Around<'_>) {
        match need {
            Need::Claim {
                expected,
                reason,
                rejects,
            } => {
                assert!(rejects.is_empty(), "decide panicked: {rejects:?}");
                let body = Claimed {
                    instance: self.common.instance,
                    decider_version: D::VERSION,
                    previous: expected,
                    reason: reason.to_owned(),
                    rejects,
                };
                let verb = ControlVerb::Claimed;
                self.control(partition, expected, Kind::Claim, verb, body, around);
            }
            Need::Wake { .. } if planted::is(Bug::NeverWakes) => {}
            Need::Wake { epoch } => {
                let verb = ControlVerb::Woken;
                self.control(partition, epoch, Kind::Control, verb, Woken {}, around);
            }
        }
    }

    fn control(
        &mut self,
        partition: Partition,
        expected: u64,
        kind: Kind,
        verb: ControlVerb,
        body: impl Into<Body>,
        around: &mut Around<'_>,
    ) {
        let subject = Subject::Control(D::SERVICE, partition, verb);
        // With an id that derives from the seed: otherwise as `control_message` makes it.
        let event = Event::new(
            EventId(new_id(around.clock, around.rng)),
            Source::Service(D::SERVICE, self.common.instance),
            self.clock.wall(around.clock),
            &subject,
            Event::about_partition(partition),
            body,
        );
        let message = Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: None,
            fence: Some(epoch_fence(D::SERVICE, partition, expected)),
        };
        self.line
            .send(partition, expected, kind, VecDeque::from([message]), around);
    }

    fn observe(&mut self, around: &mut Around<'_>) {
        for at in 0..self.partitions.len() {
            let partition = self.partitions[at];
            let Some(machine) = self.replica.machine(partition) else {
                continue;
            };
            let Mode::Owner { epoch } = machine.mode() else {
                continue;
            };
            let observed = D::observe(
                machine.state(),
                &mut self.ears,
                around.clock.micros(),
                self.clock.wall(around.clock),
            );
            for observed in observed {
                let verb = ControlVerb::Observed;
                self.control(partition, epoch, Kind::Control, verb, observed, around);
            }
        }
    }
}

impl<D: Decider + Shell> Member for Process<D> {
    fn common(&self) -> &Common {
        &self.common
    }
    fn common_mut(&mut self) -> &mut Common {
        &mut self.common
    }
    fn step(&mut self, around: &mut Around<'_>) {
        self.connection(around);
        self.presence(around);
        self.answers(around);
        self.join(around);
        self.store(around);
        self.read(around);
        for at in 0..self.partitions.len() {
            self.decide(self.partitions[at], around);
        }
        self.poll(around);
        self.observe(around);
        self.post(around);
        // Far more often than a replica asks for them: any of them may be taken, and be started from.
        if around.rng.random_ratio(1, 60) {
            let partition = self.partitions[around.rng.random_range(0..self.partitions.len())];
            self.snapshot(partition, around);
        }
        self.common.sent.truncate(SENT_MAX);
    }
    fn leave(&mut self, clock: &Clock) {
        self.common.leaving = true;
        self.replica.leave(self.clock.monotonic(clock));
    }
    fn hear(&mut self, agent: AgentId, incarnation: u64, now: u64) {
        if !self.common.cut {
            self.ears.heard.insert(agent, (incarnation, now));
        }
    }
    fn hear_host(&mut self, host: InstanceId, at: u64) {
        if !self.common.cut {
            self.ears.hosts.insert(host, at);
        }
    }
    fn noticed(&mut self, instance: InstanceId, clock: &Clock) {
        if !self.common.cut {
            self.replica.noticed(instance, self.clock.monotonic(clock));
        }
    }
}

fn key<D: Decider>(instance: InstanceId) -> String {
    format!("{}.{instance}", D::SERVICE.as_str())
}
