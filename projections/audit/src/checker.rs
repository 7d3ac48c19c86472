//! The promises, checked over the log by a reader that shares no code with the cores.

mod agent;
mod answers;
mod cause;
mod chosen;
mod claims;
mod declines;
mod members;
mod notes;
mod outcomes;
mod parts;
mod processes;
mod quarantine;
mod questions;
mod report;
mod ring;
mod routes;
mod scaling;
mod seats;
mod submissions;
mod swarm;
mod tasks;
#[cfg(test)]
mod tests;
mod wishes;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::RangeInclusive,
};

use swarm_events::{
    Body, Input, InstanceId, OrgId, Place, Recorded, Service, Subject, SwarmId, TaskId, Timestamp,
    decider::{REMEMBERED_MAX, REMEMBERED_MS, Remembered},
    read::{Writer, writer},
    subject::{CommandVerb, ControlVerb, PARTITIONS},
};
use uuid::Uuid;

pub use claims::{CLAIMS_KEPT_MAX, Claim, Owner};
pub(crate) use notes::Notes;
pub use notes::{Tally, VIOLATIONS_KEPT_MAX};
pub use report::{Counts, Open, OpenItem};

use crate::{Invariant, Violation, waits::Waits};
use answers::Answers;
use cause::{Cause, News};
use claims::{Admitted, REPEATED};
use processes::Times;
use swarm::Swarm;

/// Most ended tasks that are forgotten at one message, as the distributor does it.
const FORGET_TURN_MAX: usize = 1_000;

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
        // Organizations' are of no use to it, but for their order, and for what time it is.
        Subject::Org(..) | Subject::Swarm(..) | Subject::Agent(..) | Subject::Task(..) => true,
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
    times: Times,
    /// Hosts that started a process and are not known to be lost.
    hosts: BTreeSet<InstanceId>,
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
        self.times.note(sequence, input.time());
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
                self.sighted(recorded.sequence, seen);
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
                self.void_request(recorded);
                return false;
            }
            Admitted::Overtaken => {
                self.notes.void(REPEATED);
                self.overtaken(recorded);
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
        if let Some(wrong) = self
            .answers
            .met(cause, recorded.event.about, &recorded.event.body)
        {
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

    /// A task's state has changed, or that of one it waits for.
    fn touch(&mut self, swarm: usize, id: TaskId) {
        if let Some(waits) = &mut self.waits {
            waits.touched.push((swarm, id));
        }
    }
}
