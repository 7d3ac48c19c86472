//! The state of a partition.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use swarm_events::{
    Partition, Place, Problem, SwarmId, TaskId, Timestamp,
    decider::{Head, REMEMBERED_MAX, REMEMBERED_MS},
};
use uuid::Uuid;

use crate::{
    agent::{BARRED_MS, Bar, LAPSES_MAX},
    outbox::{Letter, Returned, last_word},
    swarm::{End, Moment, Swarm},
    task::{Outcome, Phase},
    trace::Trace,
};

/// Most ended tasks that are forgotten at one input: forgetting a day's worth at once would hold up decisions.
const FORGET_TURN_MAX: usize = 1_000;

/// A place as numbers; the partition follows from the swarm.
pub(crate) const fn number_of(place: Place) -> (u128, u128) {
    (place.swarm.0.as_u128(), place.org.0.as_u128())
}

/// What a person's command wants of a task, or of a graph.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wanted {
    Cancel { reason: Option<Box<str>> },
    Retry,
    CancelGraph { reason: Option<Box<str>> },
    Discard,
    HandBack(Back),
}

/// What another swarm says of a task that it was handed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Back {
    pub(crate) by: SwarmId,
    pub(crate) generation: u32,
    pub(crate) how: Returned,
}

/// A command that has no answer yet, by its sequence.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Command {
    pub(crate) id: Uuid,
    pub(crate) swarm: u32,
    /// The task, or the graph.
    pub(crate) about: Uuid,
    pub(crate) wanted: Wanted,
    pub(crate) correlation: Option<Uuid>,
}

/// A refusal that is still to be written, by the sequence of the last thing that it refuses.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    pub(crate) place: Place,
    pub(crate) about: Uuid,
    pub(crate) causation: Option<Uuid>,
    pub(crate) command: bool,
    pub(crate) subject: Box<str>,
    pub(crate) count: u32,
    pub(crate) problem: Problem,
    /// A sum waits for the end of its second.
    pub(crate) due: Timestamp,
}

/// The state of a partition: the fold of its log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Distributor {
    pub(crate) head: Head,
    /// Swarms by swarm and organization.
    pub(crate) numbers: BTreeMap<(u128, u128), u32>,
    pub(crate) swarms: Vec<Swarm>,
    /// Tasks that are queued again at a time: time, swarm, task.
    pub(crate) delayed: BTreeSet<(Timestamp, u32, u32)>,
    /// Tasks that go back to agents that declined them, if there is no other, from a time on: time, swarm, task.
    pub(crate) declined: BTreeSet<(Timestamp, u32, u32)>,
    /// Agents that are given work again at a time: time, swarm, agent.
    pub(crate) barred: BTreeSet<(Timestamp, u32, u32, Bar)>,
    /// Agents of which is looked at a time whether a task of theirs is stuck: time, swarm, agent.
    pub(crate) stuck_checks: BTreeSet<(Timestamp, u32, u32)>,
    /// Ended tasks in the order of their ends: time, swarm, task, sequence of the end.
    pub(crate) ended_order: VecDeque<(Timestamp, u32, TaskId, u64)>,
    pub(crate) commands: BTreeMap<u64, Command>,
    pub(crate) refusals: BTreeMap<u64, Refusal>,
    /// What other swarms are to be told, and what is not known to be stored there, by the sequence of the event that it
    /// follows from.
    pub(crate) letters: BTreeMap<u64, Letter>,
    /// The sums of the current second: source and code of the problem.
    pub(crate) sums: BTreeMap<(Place, Box<str>, Box<str>), u64>,
}

impl Distributor {
    /// The empty state of a partition.
    pub fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
            numbers: BTreeMap::new(),
            swarms: Vec::new(),
            delayed: BTreeSet::new(),
            declined: BTreeSet::new(),
            barred: BTreeSet::new(),
            stuck_checks: BTreeSet::new(),
            ended_order: VecDeque::new(),
            commands: BTreeMap::new(),
            refusals: BTreeMap::new(),
            letters: BTreeMap::new(),
            sums: BTreeMap::new(),
        }
    }

    /// Time, sequence, claims.
    pub const fn head(&self) -> &Head {
        &self.head
    }

    pub(crate) const fn moment(&self) -> Moment {
        Moment {
            now: self.head.now,
            sequence: self.head.sequence,
        }
    }

    pub(crate) fn number(&self, place: Place) -> Option<u32> {
        self.numbers.get(&number_of(place)).copied()
    }
    pub(crate) fn swarm(&self, number: u32) -> Option<&Swarm> {
        self.swarms.get(number as usize)
    }
    pub(crate) fn swarm_at(&self, place: Place) -> Option<&Swarm> {
        self.swarm(self.number(place)?)
    }

    /// Lets time do its work: delays, waits and bars that have passed, ids past their horizon.
    pub(crate) fn age(&mut self, trace: &mut Trace) {
        let moment = self.moment();
        while let Some(&(until, swarm, at)) = self.delayed.first() {
            if until > moment.now {
                break;
            }
            self.delayed.pop_first();
            if let Some(swarm) = self.swarms.get_mut(swarm as usize) {
                swarm.set_phase(at, Phase::Queued, moment, trace);
            }
        }
        while let Some(&(until, swarm, at)) = self.declined.first() {
            if until > moment.now {
                break;
            }
            self.declined.pop_first();
            if let Some(swarm) = self.swarms.get_mut(swarm as usize) {
                swarm.offer_again(at, trace);
            }
        }
        while let Some(&(until, number, at, bar)) = self.barred.first() {
            if until > moment.now {
                break;
            }
            self.barred.pop_first();
            let swarm = self.swarms.get_mut(number as usize);
            let Some(agent) = swarm.and_then(|s| s.agents.get_mut(at as usize)) else {
                continue;
            };
            match bar {
                Bar::Lapses if agent.lapses >= LAPSES_MAX => agent.lapses = LAPSES_MAX - 1,
                // Of an older bar nothing is left to do.
                Bar::FastFailures if agent.barred_until == until => {
                    agent.barred_until = Timestamp::ZERO;
                    trace.judged(number, at);
                }
                _ => continue,
            }
            trace.agent(number, at);
        }
        while let Some(&(when, number, at)) = self.stuck_checks.first() {
            if when > moment.now {
                break;
            }
            self.stuck_checks.pop_first();
            self.look_for_stuck(number, at, trace);
        }
        let horizon = moment.now.minus_millis(REMEMBERED_MS);
        for _ in 0..FORGET_TURN_MAX {
            match self.ended_order.front() {
                Some((at, ..)) if *at < horizon || self.ended_order.len() > REMEMBERED_MAX => {}
                _ => break,
            }
            if let Some((_, swarm, id, sequence)) = self.ended_order.pop_front()
                && let Some(swarm) = self.swarms.get_mut(swarm as usize)
            {
                swarm.past_horizon(id, sequence);
            }
        }
    }

    /// Queues a task again after `delay_ms`.
    pub(crate) fn delay(&mut self, swarm: u32, at: u32, delay_ms: u64, trace: &mut Trace) {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        if let Some(task) = state.tasks.get_mut(at) {
            task.queued_at = Timestamp::ZERO;
            if let Some(more) = &mut task.more {
                more.requeued_at = Timestamp::ZERO;
            }
        }
        if delay_ms == 0 {
            state.set_phase(at, Phase::Queued, moment, trace);
            return;
        }
        let until = moment.now.plus_millis(delay_ms);
        state.set_phase(at, Phase::Delayed { until }, moment, trace);
        self.delayed.insert((until, swarm, at));
    }

    /// Bars an agent whose attempts fail fast, until health has judged.
    pub(crate) fn bar(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let until = self.head.now.plus_millis(BARRED_MS);
        let state = self.swarms.get_mut(swarm as usize);
        if let Some(agent) = state.and_then(|s| s.agents.get_mut(at as usize)) {
            agent.barred_until = until;
            self.barred.insert((until, swarm, at, Bar::FastFailures));
            trace.agent(swarm, at);
            trace.judged(swarm, at);
        }
    }

    /// The bar of an agent is over before its time.
    pub(crate) fn unbar(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let state = self.swarms.get_mut(swarm as usize);
        if let Some(agent) = state.and_then(|s| s.agents.get_mut(at as usize))
            && agent.barred_until != Timestamp::ZERO
        {
            let until = std::mem::replace(&mut agent.barred_until, Timestamp::ZERO);
            self.barred.remove(&(until, swarm, at, Bar::FastFailures));
            trace.agent(swarm, at);
            trace.judged(swarm, at);
        }
    }

    /// What an agent runs has changed. Its next look at what is stuck stands in most cases: it comes early at worst, and
    /// then sets the next one.
    pub(crate) fn runs_other(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let Some(state) = self.swarms.get(swarm as usize) else {
            return;
        };
        let Some(agent) = state.agents.get(at as usize) else {
            return;
        };
        let watched = agent.stuck_check != Timestamp::ZERO;
        let watch = state.settings.stuck_after_ms > 0 && !agent.running.is_empty();
        if agent.stuck > 0 || watched != watch {
            self.look_for_stuck(swarm, at, trace);
        }
    }

    /// Counts the running tasks of an agent that show no progress, and sets when to look again.
    pub(crate) fn look_for_stuck(&mut self, swarm: u32, at: u32, trace: &mut Trace) {
        let now = self.head.now;
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let limit = state.settings.stuck_after_ms;
        let Some(agent) = state.agents.get_mut(at as usize) else {
            return;
        };
        let (mut stuck, mut since, mut next) = (0, None, None);
        let running = agent.running.iter().filter(|_| limit > 0);
        for heard in running.filter_map(|&(_, at)| {
            let task = state.tasks.get(at)?;
            Some(task.heard_at(task.phase.held()?))
        }) {
            let when = heard.plus_millis(limit);
            if when <= now {
                stuck += 1;
                since = Some(since.map_or(heard, |since: Timestamp| since.min(heard)));
            } else {
                next = Some(next.map_or(when, |next: Timestamp| next.min(when)));
            }
        }
        let next = next.unwrap_or(Timestamp::ZERO);
        let before = std::mem::replace(&mut agent.stuck_check, next);
        if before != next && before != Timestamp::ZERO {
            self.stuck_checks.remove(&(before, swarm, at));
        }
        if next != Timestamp::ZERO {
            self.stuck_checks.insert((next, swarm, at));
        }
        agent.stuck_since = since.unwrap_or(Timestamp::ZERO);
        if std::mem::replace(&mut agent.stuck, stuck) != stuck {
            state.note_load(at, trace);
        }
    }

    /// Ends a task.
    pub(crate) fn end(&mut self, swarm: u32, at: u32, end: End, trace: &mut Trace) {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let Some(task) = state.tasks.get(at) else {
            return;
        };
        let id = task.id;
        let agent = task.phase.held().map(|held| held.agent);
        if let Phase::Delayed { until } = task.phase {
            self.delayed.remove(&(until, swarm, at));
        }
        if let Some(declines) = task.declines() {
            self.declined.remove(&(declines.until, swarm, at));
        }
        if let Some(letter) = last_word(state.place, task, &end) {
            self.letters.insert(moment.sequence, letter);
        }
        state.end(at, end, moment, trace);
        if let Some(agent) = agent {
            self.runs_other(swarm, agent, trace);
        }
        self.ended_order
            .push_back((moment.now, swarm, id, moment.sequence));
    }

    /// Notes a refusal of what was met last.
    pub(crate) fn refuse(&mut self, refusal: Refusal, trace: &mut Trace) {
        let sequence = self.head.sequence;
        trace.refusal(sequence);
        self.refusals.insert(sequence, refusal);
    }

    /// Closes the marks that what stands at `sequence` opened.
    pub(crate) fn reject_marks(&mut self, sequence: u64, problem: &Problem, trace: &mut Trace) {
        let moment = self.moment();
        if self.refusals.remove(&sequence).is_some() {
            trace.refusal(sequence);
        }
        if let Some(command) = self.commands.remove(&sequence) {
            trace.command(sequence);
            if let Some(swarm) = self.swarm(command.swarm) {
                let refusal = Refusal {
                    place: swarm.place,
                    about: command.about,
                    causation: Some(command.id),
                    command: true,
                    subject: command.subject(swarm.place).to_string().into(),
                    count: 1,
                    problem: problem.clone(),
                    due: moment.now,
                };
                trace.refusal(sequence);
                self.refusals.insert(sequence, refusal);
            }
        }
        for swarm in &mut self.swarms {
            let stuck: Vec<(u32, Phase)> = swarm
                .tasks
                .iter()
                .filter(|(_, task)| task.changed == sequence && task.phase.held().is_none())
                .filter(|(_, task)| task.phase != Phase::Staged)
                .map(|(at, task)| (at, task.phase))
                .collect();
            for (at, phase) in stuck {
                if let Phase::Delayed { until } = phase {
                    self.delayed.remove(&(until, swarm.number, at));
                }
                let outcome = Outcome::Rejected {
                    problem: problem.clone(),
                    retry_after_ms: None,
                };
                swarm.doom(at, outcome, moment, trace);
            }
        }
    }
}
