//! What the owner has beside the state: decisions under way, and the indexes that make deciding cheap. In no snapshot or
//! hash; made anew at every claim.
//!
//! Every index entry is derived from the state by one function for each kind of thing (`refresh_…`), at the start and
//! whenever the fold says that the thing changed. So the index after any history equals the one made anew.

mod candidates;
mod expiry;
mod follow;
pub(crate) mod kinds;
pub(crate) mod ready;
pub(crate) mod spot;
pub(crate) mod steal;
pub(crate) mod tree;
pub(crate) mod turn;

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    GraphId, TaskId, Timestamp,
    planted::{self, Bug},
};

use crate::{
    agent::START_LIMIT_MS,
    graph::Graph,
    state::Distributor,
    swarm::{Life, Swarm},
    task::{Phase, Task},
    trace::Trace,
};
use ready::SwarmPlan;
pub use steal::{STEAL_AFTER_MS, STEALS_MAX};

/// How often a swarm's figures are written at the most, in milliseconds.
pub const MEASURE_MS: u64 = 1_000;

/// Something that may be due. Those that opened at the same input are answered in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Mark {
    Refusal(u64),
    Command(u64),
    Graph(u32, GraphId),
    Task(u32, u32),
    Measure(u32),
}

/// Where a mark stands in the indexes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Entry {
    /// Its order among what is due; 0 if it is not.
    pub(crate) due: u64,
    /// When it falls due; zero if it does not by itself.
    pub(crate) timer: Timestamp,
    /// Decisions on it that were not met yet.
    pub(crate) under_way: u32,
}

/// What a thing demands now, by the state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Demand {
    /// Its order among what is due.
    pub(crate) due: Option<u64>,
    /// When it will be due.
    pub(crate) timer: Option<Timestamp>,
    /// It can be assigned.
    pub(crate) ready: bool,
}
impl Demand {
    fn at(order: u64, when: Timestamp, now: Timestamp) -> Self {
        if when <= now {
            return Self::now(order);
        }
        Self {
            timer: Some(when),
            ..Self::default()
        }
    }
    fn now(order: u64) -> Self {
        Self {
            due: Some(order),
            ..Self::default()
        }
    }
}

/// The overlay and the owner's indexes.
#[derive(Debug, Default)]
pub struct Plan {
    pub(crate) swarms: Vec<SwarmPlan>,
    pub(crate) due: BTreeSet<(u64, Mark)>,
    pub(crate) timers: BTreeSet<(Timestamp, Mark)>,
    /// All marks but tasks, which have theirs in their swarm.
    pub(crate) marks: BTreeMap<Mark, Entry>,
    /// Commands that wait until a decision on their task is met.
    pub(crate) behind: BTreeMap<(u32, u32), Vec<u64>>,
    /// Ended tasks that a command is about whose answer is under way, or waits itself: with the commands that wait until
    /// that answer is met.
    pub(crate) behind_ended: BTreeMap<(u32, TaskId), Vec<u64>>,
    /// The same tasks, by the command that came first.
    pub(crate) reopening: BTreeMap<u64, (u32, TaskId)>,
    /// Commands that wait until a graph is accepted or rejected.
    pub(crate) behind_graphs: BTreeMap<(u32, GraphId), Vec<u64>>,
    /// Swarms in which a queued task may find an agent.
    pub(crate) assignable: BTreeSet<u32>,
    /// Swarms in which an idle agent may find something to take over, and when that may be so in others.
    pub(crate) thieving: BTreeSet<u32>,
    pub(crate) steal_timers: BTreeSet<(Timestamp, u32)>,
    /// When it is looked again whose turn it is in rings.
    pub(crate) turn_timers: BTreeSet<(Timestamp, u32)>,
    /// Swarms in which tasks have waited longer than its setting allows, and when that will be so in others.
    pub(crate) outwaited: BTreeSet<u32>,
    pub(crate) elder_timers: BTreeSet<(Timestamp, u32)>,
    /// Stopping swarms, and how far their tasks have been looked at.
    pub(crate) sweeps: BTreeMap<u32, u32>,
    pub(crate) trace: Trace,
}

/// What a task demands.
pub(crate) fn task_demand(swarm: &Swarm, task: &Task, now: Timestamp) -> Demand {
    let due = Demand::now(task.changed);
    // Nothing of it goes on.
    let stopping =
        swarm.life != Life::Running || (task.called_off() && !planted::is(Bug::CalledOffGoesOn));
    match &task.phase {
        Phase::Staged => Demand::default(),
        Phase::Ending | Phase::Failing | Phase::Handing => due,
        Phase::Pending { .. }
        | Phase::Delayed { .. }
        | Phase::Parted { .. }
        | Phase::Away
        | Phase::Queued
            if stopping =>
        {
            due
        }
        Phase::Pending { .. } | Phase::Delayed { .. } | Phase::Parted { .. } | Phase::Away => {
            Demand::default()
        }
        Phase::Queued => {
            // Those that go by the swarm's limit are found at the heads of their queues.
            let own = task.more.as_ref().and_then(|more| more.queue_timeout_ms);
            let limit = own.and_then(|_| task.queue_timeout_at(&swarm.settings));
            let demand = limit.map(|limit| Demand::at(task.changed, limit, now));
            let demand = demand.unwrap_or_default();
            Demand {
                ready: demand.due.is_none(),
                ..demand
            }
        }
        Phase::Assigned(held) | Phase::Running(held) => {
            let Some(agent) = swarm.agents.get(held.agent as usize) else {
                return Demand::default();
            };
            let bad = task.more.as_ref().is_some_and(|more| more.bad_result);
            // What it has not started it gives back.
            let misplaced = || swarm.misplaced(agent, task, held);
            let back = matches!(task.phase, Phase::Assigned(_))
                && (agent.rests().is_some() || misplaced())
                || planted::is(Bug::ChangeTakesTheStarted) && misplaced();
            if stopping || bad || back || agent.lost(held.incarnation).is_some() {
                return due;
            }
            if let Some(timeout) = task.timeout_at(&swarm.settings) {
                return Demand::at(task.changed, timeout, now);
            }
            let start = agent.clock.filter(|&(first, _)| first == held.assignment);
            let start = start.map(|(_, since)| since.plus_millis(START_LIMIT_MS));
            let limits = start
                .into_iter()
                .chain(task.queue_timeout_at(&swarm.settings));
            limits.min().map_or_else(Demand::default, |limit| {
                Demand::at(task.changed, limit, now)
            })
        }
    }
}

fn graph_demand(swarm: &Swarm, graph: &Graph, now: Timestamp) -> Demand {
    if graph.complete() || swarm.life != Life::Running {
        return Demand::now(graph.first);
    }
    Demand::at(graph.first, graph.deadline, now)
}

fn measure_demand(swarm: &Swarm, now: Timestamp) -> Demand {
    if !swarm.figures_moved() {
        return Demand::default();
    }
    // After everything else that is due: figures follow from it.
    Demand::at(u64::MAX, swarm.reported_at.plus_millis(MEASURE_MS), now)
}

impl Plan {
    /// The plan of a state with nothing under way.
    pub(crate) fn of(state: &Distributor) -> Self {
        let mut plan = Self::default();
        for swarm in &state.swarms {
            plan.refresh_swarm(state, swarm.number);
            for (at, _) in swarm.tasks.iter() {
                plan.refresh_task(state, swarm.number, at);
            }
        }
        for &sequence in state.commands.keys() {
            plan.refresh_mark(state, Mark::Command(sequence));
        }
        for &sequence in state.refusals.keys() {
            plan.refresh_mark(state, Mark::Refusal(sequence));
        }
        plan
    }

    /// When something falls due by itself.
    pub(crate) fn next_timer(&self) -> Option<Timestamp> {
        let timer = self.timers.first().map(|&(when, _)| when);
        let steal = self.steal_timers.first().map(|&(when, _)| when);
        let elder = self.elder_timers.first().map(|&(when, _)| when);
        let turn = self.turn_timers.first().map(|&(when, _)| when);
        let all = timer.into_iter().chain(steal).chain(elder);
        all.chain(turn).min()
    }

    pub(crate) fn demand(state: &Distributor, mark: Mark) -> Demand {
        let now = state.head.now;
        let demand = match mark {
            Mark::Refusal(sequence) => state
                .refusals
                .get(&sequence)
                .map(|refusal| Demand::at(sequence, refusal.due, now)),
            Mark::Command(sequence) => state.commands.get(&sequence).map(|_| Demand::now(sequence)),
            Mark::Graph(swarm, id) => state
                .swarm(swarm)
                .and_then(|s| Some(graph_demand(s, s.graphs.get(&id)?, now))),
            Mark::Task(swarm, at) => state
                .swarm(swarm)
                .and_then(|s| Some(task_demand(s, s.tasks.get(at)?, now))),
            Mark::Measure(swarm) => state.swarm(swarm).map(|s| measure_demand(s, now)),
        };
        demand.unwrap_or_default()
    }

    /// Brings the indexes of a mark that is no task up to date.
    pub(crate) fn refresh_mark(&mut self, state: &Distributor, mark: Mark) {
        let mut entry = self.marks.get(&mark).copied().unwrap_or_default();
        let demand = if entry.under_way > 0 {
            Demand::default()
        } else {
            Self::demand(state, mark)
        };
        self.place(&mut entry, mark, demand);
        if entry.due == 0 && entry.timer == Timestamp::ZERO && entry.under_way == 0 {
            self.marks.remove(&mark);
        } else {
            self.marks.insert(mark, entry);
        }
        if let Mark::Measure(swarm) = mark
            && let Some(plan) = self.swarms.get_mut(swarm as usize)
        {
            plan.measuring = self.marks.contains_key(&mark);
        }
    }

    /// Moves a mark's entries to where a demand puts them.
    pub(crate) fn place(&mut self, entry: &mut Entry, mark: Mark, demand: Demand) {
        let due = demand.due.unwrap_or(0);
        if entry.due != due {
            if entry.due != 0 {
                self.due.remove(&(entry.due, mark));
            }
            if due != 0 {
                self.due.insert((due, mark));
            }
            entry.due = due;
        }
        let timer = demand.timer.unwrap_or(Timestamp::ZERO);
        if entry.timer != timer {
            if entry.timer != Timestamp::ZERO {
                self.timers.remove(&(entry.timer, mark));
            }
            if timer != Timestamp::ZERO {
                self.timers.insert((timer, mark));
            }
            entry.timer = timer;
        }
    }

    /// Notes that decisions on a mark are under way.
    pub(crate) fn depart(&mut self, state: &Distributor, mark: Mark, decisions: u32) {
        if let Mark::Task(swarm, at) = mark {
            if let Some(entry) = self
                .swarms
                .get_mut(swarm as usize)
                .and_then(|s| s.task_mut(at))
            {
                entry.entry.under_way += decisions;
            }
            self.refresh_task(state, swarm, at);
            return;
        }
        self.marks.entry(mark).or_default().under_way += decisions;
        self.refresh_mark(state, mark);
    }

    pub(crate) fn under_way(&self, swarm: u32, at: u32) -> bool {
        self.swarms
            .get(swarm as usize)
            .and_then(|s| s.task(at))
            .is_some_and(|task| task.entry.under_way > 0)
    }

    /// Whether a task is spoken for: by a decision under way, or by one that is due before any command.
    pub(crate) fn busy(&self, state: &Distributor, swarm: u32, id: TaskId) -> Option<u32> {
        let (at, task) = state.swarm(swarm)?.task(id)?;
        (self.under_way(swarm, at) || task.phase == Phase::Ending).then_some(at)
    }
}
