//! Keeps the plan in step with the fold.

use swarm_events::Timestamp;

use super::{ready::SwarmPlan, steal};
use crate::{
    plan::{Demand, Mark, Plan},
    state::Distributor,
    swarm::Life,
    trace::{Met, Trace},
};

impl Plan {
    /// Takes in what an input changed.
    pub(crate) fn follow(&mut self, state: &Distributor, trace: &Trace) {
        for &swarm in &trace.swarms {
            self.refresh_swarm(state, swarm);
        }
        if let Some(met) = &trace.met {
            self.arrived(state, trace, met);
        }
        for &(swarm, agent) in &trace.judged {
            self.judge(state, swarm, agent);
        }
        for &(swarm, _) in &trace.judged {
            self.settle_roles(state, swarm);
        }
        for &(swarm, at, _) in &trace.tasks {
            self.refresh_task(state, swarm, at);
        }
        for &(swarm, agent) in &trace.agents {
            self.refresh_agent(state, swarm, agent);
        }
        for &(swarm, id) in &trace.graphs {
            self.refresh_mark(state, Mark::Graph(swarm, id));
        }
        for &sequence in &trace.commands {
            self.refresh_mark(state, Mark::Command(sequence));
        }
        for &sequence in &trace.refusals {
            self.refresh_mark(state, Mark::Refusal(sequence));
        }
        let mut last = u32::MAX;
        let swarms = trace
            .tasks
            .iter()
            .map(|t| t.0)
            .chain(trace.agents.iter().map(|a| a.0));
        for swarm in swarms {
            if swarm != last {
                last = swarm;
                self.refresh_measure(state, swarm);
            }
        }
        self.ring(state);
    }

    /// Timers that have passed.
    fn ring(&mut self, state: &Distributor) {
        while let Some(&(when, swarm)) = self.steal_timers.first() {
            if when > state.head.now {
                break;
            }
            self.set_steal_timer(swarm, None);
            self.thieving.insert(swarm);
        }
        while let Some(&(when, swarm)) = self.turn_timers.first() {
            if when > state.head.now {
                break;
            }
            self.set_turn_timer(swarm, None);
            if let Some(plan) = self.swarms.get_mut(swarm as usize) {
                plan.look_whose_turn();
            }
            self.refresh_assignable(swarm);
        }
        self.ring_elders(state);
        while let Some(&(when, mark)) = self.timers.first() {
            if when > state.head.now {
                break;
            }
            match mark {
                Mark::Task(swarm, at) => self.refresh_task(state, swarm, at),
                _ => self.refresh_mark(state, mark),
            }
            if self.timers.first() == Some(&(when, mark)) {
                // Its thing is gone without a trace: nothing may ring for ever.
                self.timers.remove(&(when, mark));
            }
        }
    }

    /// A decision of ours was met, valid or void: it is under way no more.
    fn arrived(&mut self, state: &Distributor, trace: &Trace, met: &Met) {
        if let Some(sequence) = met.refusal {
            self.back(state, Mark::Refusal(sequence));
        }
        if let Some(sequence) = met.command {
            self.back(state, Mark::Command(sequence));
            let ended = self.reopening.remove(&sequence);
            for behind in ended
                .and_then(|ended| self.behind_ended.remove(&ended))
                .unwrap_or_default()
            {
                self.back(state, Mark::Command(behind));
            }
        }
        let Some(swarm) = met.swarm else {
            return;
        };
        if let Some(graph) = met.graph {
            self.back(state, Mark::Graph(swarm, graph));
            for sequence in self
                .behind_graphs
                .remove(&(swarm, graph))
                .unwrap_or_default()
            {
                self.back(state, Mark::Command(sequence));
            }
        }
        if met.measured {
            self.back(state, Mark::Measure(swarm));
        }
        if let Some(at) = met.task {
            if let Some(task) = self
                .swarms
                .get_mut(swarm as usize)
                .and_then(|s| s.task_mut(at))
            {
                task.entry.under_way = 0;
            }
            self.release(state, swarm, at);
            // Valid, it changed the task, which is refreshed below.
            if !trace.tasks.iter().any(|&(s, a, _)| (s, a) == (swarm, at)) {
                self.refresh_task(state, swarm, at);
            }
            for sequence in self.behind.remove(&(swarm, at)).unwrap_or_default() {
                self.back(state, Mark::Command(sequence));
            }
        }
    }

    fn back(&mut self, state: &Distributor, mark: Mark) {
        if let Some(entry) = self.marks.get_mut(&mark) {
            entry.under_way = entry.under_way.saturating_sub(1);
        }
        self.refresh_mark(state, mark);
    }

    /// A place that was promised for a task is promised no more.
    fn release(&mut self, state: &Distributor, swarm: u32, at: u32) {
        let taken = self
            .swarms
            .get_mut(swarm as usize)
            .and_then(|plan| plan.take_back(at));
        if let Some(agent) = taken {
            self.refresh_agent(state, swarm, agent);
        }
    }

    /// Sets when it is looked again for something to take over.
    pub(crate) fn set_steal_timer(&mut self, swarm: u32, when: Option<Timestamp>) {
        let Some(plan) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let when = when.unwrap_or(Timestamp::ZERO);
        let before = std::mem::replace(&mut plan.steal_at, when);
        if before != Timestamp::ZERO {
            self.steal_timers.remove(&(before, swarm));
        }
        if when != Timestamp::ZERO {
            self.steal_timers.insert((when, swarm));
        }
    }

    /// Sets when it is looked again whose turn it is.
    pub(crate) fn set_turn_timer(&mut self, swarm: u32, when: Option<Timestamp>) {
        let Some(plan) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let when = when.unwrap_or(Timestamp::ZERO);
        let before = std::mem::replace(&mut plan.turn_at, when);
        if before == when {
            return;
        }
        if before != Timestamp::ZERO {
            self.turn_timers.remove(&(before, swarm));
        }
        if when != Timestamp::ZERO {
            self.turn_timers.insert((when, swarm));
        }
    }

    /// Figures are written at the most once a second: once a timer runs, nothing more is to be looked at.
    pub(crate) fn refresh_measure(&mut self, state: &Distributor, swarm: u32) {
        let mark = Mark::Measure(swarm);
        if self.swarms.get(swarm as usize).is_some_and(|s| s.measuring) {
            return;
        }
        self.refresh_mark(state, mark);
    }

    /// A swarm is new, or its settings or life changed.
    pub(crate) fn refresh_swarm(&mut self, state: &Distributor, number: u32) {
        let Some(swarm) = state.swarm(number) else {
            return;
        };
        while self.swarms.len() <= number as usize {
            self.swarms.push(super::ready::SwarmPlan::default());
        }
        if let Some(plan) = self.swarms.get_mut(number as usize) {
            plan.reshape(swarm);
            plan.configure(&swarm.settings, swarm.life);
        }
        for agent in 0..swarm.agents.len() as u32 {
            self.judge(state, number, agent);
        }
        self.settle_roles(state, number);
        if swarm.life != Life::Running {
            self.sweeps.insert(number, 0);
        }
        self.refresh_elders(state, number);
        for &id in swarm.graphs.keys() {
            self.refresh_mark(state, Mark::Graph(number, id));
        }
        // Not by a timer that runs already: a change of the topology wants them at once.
        self.refresh_mark(state, Mark::Measure(number));
        self.refresh_assignable(number);
    }

    /// An agent's fitness or capabilities changed: so may what it holds.
    pub(crate) fn judge(&mut self, state: &Distributor, swarm: u32, agent: u32) {
        let Some(known) = state
            .swarm(swarm)
            .and_then(|s| s.agents.get(agent as usize))
        else {
            return;
        };
        self.find_kind(state, swarm, agent, known);
        self.refresh_agent(state, swarm, agent);
        let held: Vec<u32> = known.held().collect();
        for at in held {
            self.refresh_task(state, swarm, at);
        }
    }

    /// Brings a task's entries up to date.
    pub(crate) fn refresh_task(&mut self, state: &Distributor, swarm: u32, at: u32) {
        let mark = Mark::Task(swarm, at);
        let task = state.swarm(swarm).and_then(|s| s.tasks.get(at));
        if task.is_none() {
            self.release(state, swarm, at);
            self.behind
                .remove(&(swarm, at))
                .into_iter()
                .flatten()
                .for_each(|sequence| {
                    self.back(state, Mark::Command(sequence));
                });
        }
        let Some(plan) = self.swarms.get_mut(swarm as usize) else {
            return;
        };
        let before = *plan.task_or_new(at);
        let mut entry = before.entry;
        if task.is_none() {
            entry.under_way = 0;
        }
        let demand = match task {
            Some(_) if entry.under_way == 0 => Self::demand(state, mark),
            _ => Demand::default(),
        };
        let ready = task.filter(|_| demand.ready);
        if let Some(swarm) = state.swarm(swarm) {
            plan.look_whose_turn();
            // A ring's token stays while its task waits for another attempt, if its agent fits the task's class. A plan made
            // anew in that wait has not met the class in any queue, and would pass the token on.
            if let Some(task) = task.filter(|_| swarm.token.task == Some(at)) {
                plan.ensure_class(task.class, swarm.classes.get(task.class));
            }
            plan.set_ready(at, ready, swarm);
            let free = task.filter(|_| entry.under_way == 0 && demand.due.is_none());
            let place = free.and_then(|task| steal::waiting(swarm, task));
            let class = task.map_or("", |task| swarm.classes.get(task.class));
            plan.set_waiting(at, place, class);
        }
        self.place(&mut entry, mark, demand);
        if let Some(plan) = self.swarms.get_mut(swarm as usize) {
            plan.task_or_new(at).entry = entry;
        }
        self.refresh_elders(state, swarm);
        self.refresh_assignable(swarm);
    }

    /// Brings an agent's entry up to date, and the timer of its first waiting task.
    pub(crate) fn refresh_agent(&mut self, state: &Distributor, swarm: u32, agent: u32) {
        let Some(known) = state
            .swarm(swarm)
            .and_then(|s| s.agents.get(agent as usize))
        else {
            return;
        };
        let busy = known.running.len() >= known.slots as usize;
        let mut turned = false;
        if let Some(plan) = self.swarms.get_mut(swarm as usize) {
            plan.look_whose_turn();
            plan.set_load(agent, known);
            turned = plan.set_busy(agent, busy);
        }
        // The first one's timer; all of them, if they may now be taken over, or no more.
        let look = if turned { known.waiting.len() } else { 1 };
        for &(_, at) in known.waiting.iter().take(look) {
            self.refresh_task(state, swarm, at);
        }
        self.refresh_assignable(swarm);
    }

    pub(crate) fn refresh_assignable(&mut self, swarm: u32) {
        let Some(plan) = self.swarms.get(swarm as usize) else {
            return;
        };
        let assignable = plan.active && plan.may_assign();
        if assignable != plan.listed {
            if assignable {
                self.assignable.insert(swarm);
            } else {
                self.assignable.remove(&swarm);
            }
            if let Some(plan) = self.swarms.get_mut(swarm as usize) {
                plan.listed = assignable;
            }
        }
        let plan = self.swarms.get(swarm as usize);
        if plan.is_some_and(|plan| plan.turn_at != Timestamp::ZERO && !plan.has_turns()) {
            self.set_turn_timer(swarm, None);
        }
        let plan = self.swarms.get(swarm as usize);
        if plan.is_some_and(SwarmPlan::may_steal) {
            self.thieving.insert(swarm);
        } else if plan.is_some_and(|plan| plan.steal_at != Timestamp::ZERO) {
            self.set_steal_timer(swarm, None);
        }
    }
}
