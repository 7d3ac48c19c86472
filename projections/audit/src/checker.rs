//! The promises, checked over the log by a reader that shares no code with the cores.

mod answers;
mod cause;
mod chosen;
mod claims;
mod notes;
mod outcomes;
mod submissions;
mod swarm;
mod tasks;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
    sync::Arc,
};

use swarm_events::{
    AgentId, Body, Input, OrgId, Place, Recorded, Service, Subject, SwarmId, TaskId, Timestamp,
    decider::{REMEMBERED_MAX, REMEMBERED_MS, Remembered},
    read::{Writer, writer},
    subject::{CommandVerb, ControlVerb, PARTITIONS},
};
use uuid::Uuid;

pub use claims::{CLAIMS_KEPT_MAX, Claim, Owner};
pub(crate) use notes::Notes;
pub use notes::{Tally, VIOLATIONS_KEPT_MAX};

use crate::{Gap, Invariant, Violation, waits::Waits};
use answers::Answers;
use cause::{Cause, News, Rules};
use claims::Admitted;
use swarm::{Swarm, Task};

/// Most ended tasks that are forgotten at one message, as the distributor does it.
const FORGET_TURN_MAX: usize = 1_000;

/// How much was met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages, whatever they are.
    pub messages: u64,
    /// Messages that are no events.
    pub unreadable: u64,
    /// Tasks that came to be (rejected ones among them; of graphs, those that were accepted).
    pub accepted: u64,
    /// Valid ends. A task that a person retried may have several, one in each generation.
    pub ended: u64,
    /// Generations that persons' retries opened.
    pub reopened: u64,
    /// Ends beyond the first within a generation.
    pub doubled: u64,
    /// Starts of an assignment beyond the first.
    pub started_again: u64,
    /// Graphs that were decided on.
    pub graphs: u64,
    /// Waiting tasks that were taken over from busy agents.
    pub steals: u64,
    /// Steals that came after the start, and so took nothing.
    pub steals_void: u64,
    /// Commands, without repeats.
    pub commands: u64,
}

/// Something that was begun and is not finished.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenItem {
    /// Sequence of what began it.
    pub sequence: u64,
    /// When that was stored.
    pub since: Timestamp,
    /// What it is and how it stands.
    pub what: String,
}

/// What is not finished yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Open {
    /// Tasks without an end, oldest first.
    pub tasks: Vec<OpenItem>,
    /// Commands without an answer.
    pub commands: Vec<OpenItem>,
    /// Graphs without a decision.
    pub graphs: Vec<OpenItem>,
}
impl Open {
    /// Nothing is open.
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty() && self.commands.is_empty() && self.graphs.is_empty()
    }
}

#[derive(Debug, Default)]
struct Home {
    now: Timestamp,
    /// Ended tasks in the order of their ends.
    ended: VecDeque<(Timestamp, usize, TaskId, u64)>,
    /// Tasks that are queued again at a time.
    delayed: BTreeSet<(Timestamp, usize, TaskId)>,
    cause: Cause,
    /// What is met is a decision of the distributor, and what it had met and decided before is known.
    judging: bool,
    owners: [Owner; Service::ALL.len()],
}

#[derive(Debug)]
struct OpenCommand {
    sequence: u64,
    since: Timestamp,
    verb: CommandVerb,
    home: usize,
}

type Key = (OrgId, Option<SwarmId>);

/// Whether the distributor meets what stands there.
fn is_read(subject: &Subject) -> bool {
    match subject {
        Subject::Swarm(..) | Subject::Agent(..) | Subject::Task(..) => true,
        Subject::Command(_, verb) => verb.service() == Service::Distributor,
        Subject::Control(service, _, verb) => {
            *service == Service::Distributor || *verb == ControlVerb::Claimed
        }
        _ => false,
    }
}

/// Reads the log once, in order, and notes what is broken.
///
/// It holds what is not finished, and of what is finished as much as the design lets a service remember: ended tasks and
/// commands for a day, at most 200,000 in a partition.
#[derive(Debug, Default)]
pub struct Checker {
    homes: Vec<Home>,
    numbers: BTreeMap<(OrgId, SwarmId), usize>,
    swarms: Vec<Swarm>,
    commands: BTreeMap<Uuid, OpenCommand>,
    commands_seen: BTreeMap<Key, Remembered>,
    answers: Answers,
    waits: Option<Box<Waits>>,
    counts: Counts,
    first: u64,
    last: (u64, Timestamp),
    notes: Notes,
    /// What was found, at most [`VIOLATIONS_KEPT_MAX`] for each promise.
    pub violations: Vec<Violation>,
    /// Valid ends so far.
    pub ended: u64,
}

impl Checker {
    /// A checker that reports only what lies within `range` of the log. It must meet what lies before as well: the state
    /// at the beginning of the range follows from that.
    #[must_use]
    pub fn of_range(range: RangeInclusive<u64>) -> Self {
        let mut checker = Self::default();
        checker.notes.range = range;
        checker
    }

    /// Measures how long `service` decided nothing while work was waiting for it.
    #[must_use]
    pub fn with_gaps(mut self, service: Service) -> Self {
        self.waits = Some(Box::new(Waits::new(service)));
        self
    }

    /// Meets the next message.
    pub fn meet(&mut self, input: &Input) {
        let reported = self.notes.range.contains(&input.sequence());
        self.meet_reported(input, reported);
    }

    /// Meets the next message, for those whose range is none of sequences: what it breaks is reported if `reported`.
    pub fn meet_reported(&mut self, input: &Input, reported: bool) {
        if self.homes.is_empty() {
            self.homes
                .resize_with(usize::from(PARTITIONS), Home::default);
            self.first = input.sequence();
        }
        let sequence = input.sequence();
        self.last = (sequence, self.last.1.max(input.time()));
        self.notes.inside = reported;
        if self.notes.inside {
            self.counts.messages += 1;
        }
        match input {
            Input::Event(recorded) => {
                let home = usize::from(recorded.subject.partition().number());
                if is_read(&recorded.subject) {
                    self.age(home, sequence, recorded.time);
                }
                let swarm = recorded
                    .subject
                    .place()
                    .and_then(|p| self.numbers.get(&(p.org, p.swarm)).copied());
                if self.admitted(home, recorded) {
                    self.look_back(home, recorded);
                    let tasks = self.decided_on(recorded);
                    self.event(home, recorded);
                    self.under_way(home, recorded, tasks);
                }
                if let Some(mut waits) = self.waits.take() {
                    waits.met(home, recorded, self.swarm_of(recorded).or(swarm), self);
                    self.waits = Some(waits);
                }
            }
            Input::Unreadable(unreadable) => {
                if let Some(subject) = unreadable.subject.as_ref().filter(|s| is_read(s)) {
                    let home = usize::from(subject.partition().number());
                    self.age(home, sequence, unreadable.time);
                }
                if self.notes.inside {
                    self.counts.unreadable += 1;
                }
                self.notes.void("unreadable");
            }
        }
        self.violations.append(&mut self.notes.violations);
    }

    fn swarm_of(&self, recorded: &Recorded) -> Option<usize> {
        let place = recorded.subject.place()?;
        self.numbers.get(&(place.org, place.swarm)).copied()
    }

    /// Lets time do its work, at those messages at which the distributor does.
    fn age(&mut self, home: usize, sequence: u64, time: Timestamp) {
        let state = &mut self.homes[home];
        if time > state.now {
            state.now = time;
            state.cause.tell(sequence, News::Now(time));
        }
        let now = state.now;
        while let Some(&(when, swarm, id)) = self.homes[home].delayed.first() {
            if when > now {
                break;
            }
            self.homes[home].delayed.pop_first();
            if let Some(task) = self.swarms[swarm].tasks.get_mut(&id)
                && task.delayed
                && task.ready_at == when
            {
                task.delayed = false;
                self.tell(swarm, id, sequence);
            }
        }
        let state = &mut self.homes[home];
        let horizon = state.now.minus_millis(REMEMBERED_MS);
        for _ in 0..FORGET_TURN_MAX {
            match state.ended.front() {
                Some((at, ..)) if *at < horizon || state.ended.len() > REMEMBERED_MAX => {}
                _ => break,
            }
            if let Some((_, swarm, id, end)) = state.ended.pop_front()
                && let Some(swarm) = self.swarms.get_mut(swarm)
            {
                swarm.past_horizon(id, end);
            }
        }
    }

    /// Whether an event is more than a claim, an observation, or a decision that counts for nobody.
    fn admitted(&mut self, home: usize, recorded: &Recorded) -> bool {
        let owners = &mut self.homes[home].owners;
        match (&recorded.subject, &recorded.event.body) {
            (Subject::Control(service, _, _), Body::Claimed(claimed)) => {
                owners[*service as usize].claim(recorded, claimed, &mut self.notes);
                if *service == Service::Distributor {
                    // Whoever decides under it has met all this.
                    self.homes[home].cause.advance(recorded.sequence - 1);
                }
                return false;
            }
            (Subject::Control(service, _, _), Body::Observed(seen)) => {
                owners[*service as usize].observed(recorded, seen, &mut self.notes);
                return false;
            }
            (Subject::Control(..), _) => return false,
            _ => {}
        }
        let (Writer::Service(service), Some(decided)) =
            (writer(&recorded.subject), recorded.event.decided)
        else {
            return true;
        };
        match owners[service as usize].decision(service, recorded, decided, &mut self.notes) {
            Admitted::Void(why) => {
                self.notes.void(why);
                return false;
            }
            Admitted::Yes => {}
        }
        if let Some(cause) = recorded.event.causation {
            self.answered(cause);
        }
        true
    }

    fn answered(&mut self, command: Uuid) {
        let Some(open) = self.commands.remove(&command) else {
            return;
        };
        self.notes.checked(Invariant::CommandsAnswered);
        if open.verb.service() == Service::Coordinator
            && let Some(waits) = &mut self.waits
        {
            waits.command(open.home, -1, self.last);
        }
    }

    fn command(&mut self, home: usize, recorded: &Recorded, key: Key, verb: CommandVerb) {
        let id = recorded.event.id.0;
        let seen = self.commands_seen.entry(key).or_default();
        if seen.get(id).is_some() {
            self.notes.void("repeat");
            return;
        }
        seen.insert(id, recorded.sequence, recorded.time);
        if self.commands.contains_key(&id) {
            return;
        }
        self.counts.commands += 1;
        let open = OpenCommand {
            sequence: recorded.sequence,
            since: recorded.time,
            verb,
            home,
        };
        self.commands.insert(id, open);
        if verb.service() == Service::Coordinator
            && let Some(waits) = &mut self.waits
        {
            waits.command(home, 1, (recorded.sequence, recorded.time));
        }
    }

    fn event(&mut self, home: usize, recorded: &Recorded) {
        let outcome = match &recorded.subject {
            Subject::Command(place, verb) => {
                self.command(home, recorded, (place.org, Some(place.swarm)), *verb);
                Ok(())
            }
            Subject::OrgCommand(_, org, verb) => {
                self.command(home, recorded, (*org, None), *verb);
                Ok(())
            }
            Subject::Swarm(place, _) => self.swarm_event(*place, recorded),
            Subject::Agent(place, _, agent) => self.agent_event(*place, *agent, recorded),
            Subject::Task(place, _, agent) => self.task_event(*place, *agent, recorded),
            _ => Ok(()),
        };
        match outcome {
            Ok(()) => self.one_answer(recorded),
            Err(why) => self.notes.void(why),
        }
    }

    /// A valid decision that names a command.
    fn one_answer(&mut self, recorded: &Recorded) {
        let (Some(_), Some(cause)) = (recorded.event.decided, recorded.event.causation) else {
            return;
        };
        let key = match &recorded.subject {
            Subject::Swarm(place, _) | Subject::Agent(place, ..) | Subject::Task(place, ..) => {
                (place.org, Some(place.swarm))
            }
            Subject::Org(_, org, _) => (*org, None),
            _ => return,
        };
        if self
            .commands_seen
            .get(&key)
            .and_then(|seen| seen.get(cause))
            .is_none()
        {
            return;
        }
        self.notes.checked(Invariant::CommandsAnsweredOnce);
        if let Some(wrong) = self.answers.met(cause, &recorded.event.body) {
            self.notes
                .broken(Invariant::CommandsAnsweredOnce, recorded.sequence, || {
                    format!("command {cause} {wrong}")
                });
        }
    }

    fn number(&self, place: Place) -> Result<usize, &'static str> {
        self.numbers
            .get(&(place.org, place.swarm))
            .copied()
            .ok_or("unknown-swarm")
    }

    fn swarm_event(&mut self, place: Place, recorded: &Recorded) -> Result<(), &'static str> {
        match &recorded.event.body {
            Body::SwarmCreated(created) => {
                if self.number(place).is_ok() {
                    return Err("swarm-exists");
                }
                let number = self.swarms.len();
                self.numbers.insert((place.org, place.swarm), number);
                let home = usize::from(place.partition.number());
                self.swarms.push(Swarm::of(home));
                let rules = News::Rules(number, Rules::from(&created.configuration));
                self.homes[home].cause.tell(recorded.sequence, rules);
            }
            Body::SwarmUpdated(updated) => {
                let number = self.number(place)?;
                let rules = News::Rules(number, Rules::from(&updated.configuration));
                let home = self.swarms[number].home;
                self.homes[home].cause.tell(recorded.sequence, rules);
            }
            Body::SwarmStopping(_) => {
                let number = self.number(place)?;
                self.swarms[number].stopping = true;
            }
            Body::SwarmDeleted(_) => {
                let number = self.number(place)?;
                if std::mem::replace(&mut self.swarms[number].deleted, true) {
                    return Err("swarm-ended");
                }
            }
            Body::SwarmMeasured(measured) => {
                let number = self.number(place)?;
                let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
                if let Some(counted) = self.swarms[number].completed_at(cause) {
                    self.notes.checked(Invariant::ResultOfStandingAssignment);
                    if measured.completed != counted {
                        self.notes.broken(
                            Invariant::ResultOfStandingAssignment,
                            recorded.sequence,
                            || {
                                format!(
                                    "the distributor counts {} completed tasks at {cause}, where {counted} results were valid",
                                    measured.completed
                                )
                            },
                        );
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn agent_event(
        &mut self,
        place: Place,
        id: AgentId,
        recorded: &Recorded,
    ) -> Result<(), &'static str> {
        let number = self.number(place)?;
        let swarm = &mut self.swarms[number];
        let sequence = recorded.sequence;
        if let Body::AgentJoined(joined) = &recorded.event.body {
            let agent = swarm.agents.entry(id).or_default();
            agent.joined(joined, sequence)?;
            let news = News::Joined {
                swarm: number,
                agent: id,
                incarnation: agent.incarnation,
                slots: agent.slots,
                places: agent.places,
                capabilities: agent.capabilities.clone(),
            };
            self.homes[swarm.home].cause.tell(sequence, news);
            return Ok(());
        }
        let agent = swarm.agents.get_mut(&id).ok_or("unknown-agent")?;
        match &recorded.event.body {
            Body::AgentLeft(e) => agent.gone(e.incarnation, sequence),
            Body::AgentRemoved(e) => agent.gone(e.incarnation, sequence),
            Body::AgentSuspected(e) => agent.suspect(e.incarnation, true, sequence),
            Body::AgentRecovered(e) => agent.suspect(e.incarnation, false, sequence),
            Body::AgentFailed(e) => agent.fail(e.incarnation, sequence),
            _ => Ok(()),
        }
    }

    /// Tasks that came to be.
    pub fn accepted(&self) -> usize {
        self.counts.accepted as usize
    }
    /// How much was met, within the range.
    pub fn counts(&self) -> Counts {
        Counts {
            ended: self.ended,
            ..self.counts
        }
    }
    /// How often each promise was checked and found broken, those never checked included.
    pub fn tallies(&self) -> impl Iterator<Item = (Invariant, Tally)> {
        Invariant::ALL
            .iter()
            .map(|&i| (i, self.notes.tallies.get(&i).copied().unwrap_or_default()))
    }
    /// Events that changed nothing, by the name of the precondition that failed.
    pub fn voids(&self) -> &BTreeMap<&'static str, u64> {
        &self.notes.voids
    }
    /// Who owned what: service and partition with its claims, those without a claim left out.
    pub fn owners(&self) -> impl Iterator<Item = (Service, u8, &Owner)> {
        Service::ALL.iter().flat_map(move |&service| {
            (0u8..).zip(&self.homes).filter_map(move |(p, home)| {
                let owner = &home.owners[service as usize];
                (owner.claimed > 0).then_some((service, p, owner))
            })
        })
    }
    /// First and last sequence met, and the highest store time.
    pub const fn met(&self) -> (u64, u64, Timestamp) {
        (self.first, self.last.0, self.last.1)
    }
    /// The longest times without a decision while work was waiting, longest first. A wait that still lasts is among them,
    /// up to the last message met.
    pub fn gaps(&self) -> Vec<Gap> {
        self.waits
            .as_ref()
            .map(|waits| waits.longest(self.last))
            .unwrap_or_default()
    }

    fn open_tasks(&self) -> impl Iterator<Item = (&TaskId, &Task)> {
        self.swarms.iter().flat_map(|swarm| {
            swarm.tasks.iter().filter(|(_, task)| {
                !task.state.ended()
                    && !task.uncertain
                    && !matches!(task.state, swarm::State::Staged(_))
            })
        })
    }

    /// What is begun and not finished, oldest first.
    pub fn open(&self) -> Open {
        let mut tasks: Vec<OpenItem> = self
            .open_tasks()
            .map(|(id, task)| OpenItem {
                sequence: task.submitted,
                since: task.submitted_at,
                what: format!("{id} {:?}", task.state),
            })
            .collect();
        let mut commands: Vec<OpenItem> = self
            .commands
            .iter()
            .map(|(id, open)| OpenItem {
                sequence: open.sequence,
                since: open.since,
                what: format!("{id} {}", open.verb),
            })
            .collect();
        let mut graphs: Vec<OpenItem> = self
            .swarms
            .iter()
            .flat_map(|swarm| &swarm.graphs)
            .filter(|(_, graph)| graph.certain)
            .map(|(id, graph)| OpenItem {
                sequence: graph.first,
                since: graph.first_at,
                what: format!("{id} {} of {} parts", graph.parts.len(), graph.of),
            })
            .collect();
        for list in [&mut tasks, &mut commands, &mut graphs] {
            list.sort_by_key(|item| item.sequence);
        }
        Open {
            tasks,
            commands,
            graphs,
        }
    }

    /// What must hold once everything is quiet: nothing is open. `last` is the sequence at which that is judged.
    pub fn finish(&mut self, last: u64) {
        let open = self.open();
        self.notes.inside = true;
        self.all_called_off(last);
        if self.counts.accepted > 0 {
            self.notes.checked(Invariant::EveryTaskEnds);
        }
        if !open.tasks.is_empty() {
            let first: Vec<&str> = open.tasks.iter().take(5).map(|t| &*t.what).collect();
            self.notes.broken(Invariant::EveryTaskEnds, last, || {
                format!("{} open, {}", open.tasks.len(), first.join("; "))
            });
        }
        self.nothing_waits_too_long(last);
        for item in &open.graphs {
            self.notes
                .broken(Invariant::GraphsDecided, item.sequence, || {
                    format!("graph {} is not decided on", item.what)
                });
        }
        for item in &open.commands {
            self.notes
                .broken(Invariant::CommandsAnswered, item.sequence, || {
                    format!("command {} has no answer", item.what)
                });
        }
        self.violations.append(&mut self.notes.violations);
    }

    /// Whether everything that was begun is finished.
    pub fn quiet(&self) -> bool {
        self.commands.is_empty()
            && self.open_tasks().next().is_none()
            && self
                .swarms
                .iter()
                .all(|swarm| swarm.graphs.values().all(|graph| !graph.certain))
    }

    /// What a task requires, whether it is queued, and from when on; `None` if it is not there.
    pub(crate) fn readiness(
        &self,
        swarm: usize,
        id: TaskId,
    ) -> Option<(Arc<[String]>, bool, Timestamp)> {
        let state = self.swarms.get(swarm)?;
        let task = state.tasks.get(&id)?;
        let ready = task.state == swarm::State::Waiting
            && !task.uncertain
            && state.unmet(id, u64::MAX).is_none();
        Some((task.facts.required.clone(), ready, task.ready_at))
    }

    /// Whether an agent is free that can take a task of one of these requirements.
    pub(crate) fn can_serve<'a>(
        &self,
        swarm: usize,
        mut classes: impl Iterator<Item = &'a Arc<[String]>>,
    ) -> bool {
        let Some(state) = self.swarms.get(swarm) else {
            return false;
        };
        classes.any(|required| {
            state.agents.values().any(|agent| {
                agent.free()
                    && required
                        .iter()
                        .all(|word| agent.capabilities.binary_search(word).is_ok())
            })
        })
    }

    /// A task's state has changed, or that of one it waits for.
    fn touch(&mut self, swarm: usize, id: TaskId) {
        if let Some(waits) = &mut self.waits {
            waits.touched.push((swarm, id));
        }
    }
}
