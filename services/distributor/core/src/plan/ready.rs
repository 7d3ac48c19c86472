//! Which queued task is next, and which agent can take it.
//!
//! Tasks wait in one ordered queue for each class (set of required capabilities) and priority; the queues' heads are
//! ordered by rank. Agents with the same capabilities are one kind; a kind orders those with a place by score. An
//! assignment looks at the first head and at the first agent of each kind that has what the class needs: its cost does
//! not grow with the number of tasks or agents.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    Timestamp,
    task::{CANDIDATES_MAX, PassedOver},
};

use crate::{
    agent::{Agent, Health, LAPSES_MAX, Membership, has},
    check::of_class,
    plan::Entry,
    strategy::{Load, Strategy},
    swarm::Swarm,
    task::Task,
};

/// Priorities are 1 to 10.
const PRIORITIES: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TaskPlan {
    pub(crate) entry: Entry,
    pub(crate) promised: Option<u32>,
    /// Where it waits, if it is ready.
    ready: Option<(u32, u8, Timestamp, u64)>,
}

/// The order of agents with a place: free slots first, then score, then who joined first.
pub(crate) type AgentKey = (u8, i64, u64);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Standing {
    #[default]
    Out,
    Unhealthy,
    Unresponsive,
    Full,
    Free(AgentKey),
}

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct AgentPlan {
    kind: Option<u32>,
    standing: Standing,
    pub(crate) promised: u32,
}

#[derive(Debug, Default)]
struct Kind {
    capabilities: Box<[Box<str>]>,
    members: u32,
    unhealthy: u32,
    unresponsive: u32,
    full: u32,
    free: BTreeSet<(AgentKey, u32)>,
    /// Classes whose tasks its agents can take.
    classes: Vec<u32>,
}

#[derive(Debug, Default)]
struct Class {
    text: Box<str>,
    kinds: Vec<u32>,
    queues: [BTreeSet<(Timestamp, u64, u32)>; PRIORITIES],
    heads: [Option<(i64, u64)>; PRIORITIES],
    /// No agent that could take its tasks has a place: its heads are out of the order until one has.
    blocked: bool,
}

#[derive(Debug, Default)]
pub(crate) struct SwarmPlan {
    pub(crate) active: bool,
    /// Whether it is among the assignable swarms.
    pub(crate) listed: bool,
    /// Whether its figures have a mark already.
    pub(crate) measuring: bool,
    pub(crate) priority_step_ms: u64,
    tasks: Vec<TaskPlan>,
    pub(crate) agents: Vec<AgentPlan>,
    kinds: Vec<Kind>,
    kind_numbers: BTreeMap<Box<[Box<str>]>, u32>,
    classes: Vec<Class>,
    members: u32,
    /// Rank, sequence of the submission, class, index of the priority.
    pub(crate) heads: BTreeSet<(i64, u64, u32, u8)>,
}

/// What an assignment is to be made of.
pub(crate) struct Match {
    pub(crate) task: u32,
    pub(crate) agent: u32,
    /// Agent numbers and scores, the chosen one first.
    pub(crate) candidates: Vec<(AgentKey, u32)>,
    pub(crate) passed_over: BTreeMap<PassedOver, u32>,
}

impl SwarmPlan {
    pub(crate) fn task(&self, at: u32) -> Option<&TaskPlan> {
        self.tasks.get(at as usize)
    }
    pub(crate) fn task_mut(&mut self, at: u32) -> Option<&mut TaskPlan> {
        self.tasks.get_mut(at as usize)
    }
    pub(crate) fn task_or_new(&mut self, at: u32) -> &mut TaskPlan {
        let at = at as usize;
        if self.tasks.len() <= at {
            self.tasks.resize(at + 1, TaskPlan::default());
        }
        &mut self.tasks[at]
    }

    /// Puts a task into its queue, or takes it out.
    pub(crate) fn set_ready(&mut self, at: u32, task: Option<&Task>, swarm: &Swarm) {
        let place = task.map(|task| {
            let priority = (task.priority.clamp(1, PRIORITIES as u8)) - 1;
            (task.class, priority, task.queued_at, task.submitted)
        });
        let before = std::mem::replace(&mut self.task_or_new(at).ready, place);
        if before == place {
            return;
        }
        if let Some((class, priority, queued_at, sequence)) = before
            && let Some(waiting) = self.classes.get_mut(class as usize)
        {
            waiting.queues[priority as usize].remove(&(queued_at, sequence, at));
            self.fix_head(class, priority);
        }
        if let Some((class, priority, queued_at, sequence)) = place {
            self.ensure_class(class, swarm.classes.get(class));
            self.classes[class as usize].queues[priority as usize]
                .insert((queued_at, sequence, at));
            self.fix_head(class, priority);
        }
    }

    /// The class of that number with that text: numbers are used again when a class has no task left.
    fn ensure_class(&mut self, class: u32, text: &str) {
        while self.classes.len() <= class as usize {
            // No class has this text, so that the first use fills it in.
            let text = "\n".into();
            self.classes.push(Class {
                text,
                ..Class::default()
            });
        }
        if &*self.classes[class as usize].text == text {
            return;
        }
        for kind in &mut self.kinds {
            kind.classes.retain(|c| *c != class);
        }
        let mut kinds = Vec::new();
        for (number, kind) in (0u32..).zip(&mut self.kinds) {
            if of_class(text).all(|word| has(&kind.capabilities, word)) {
                kinds.push(number);
                kind.classes.push(class);
            }
        }
        let fresh = &mut self.classes[class as usize];
        fresh.text = text.into();
        fresh.kinds = kinds;
        fresh.blocked = false;
    }

    fn fix_head(&mut self, class: u32, priority: u8) {
        let Some(waiting) = self.classes.get_mut(class as usize) else {
            return;
        };
        let first = waiting.queues[priority as usize]
            .first()
            .filter(|_| !waiting.blocked);
        let head = first.map(|&(queued_at, sequence, _)| {
            let boost = i64::try_from(self.priority_step_ms)
                .unwrap_or(i64::MAX)
                .saturating_mul(1_000)
                .saturating_mul(i64::from(priority) + 1);
            (queued_at.as_micros().saturating_sub(boost), sequence)
        });
        let before = std::mem::replace(&mut waiting.heads[priority as usize], head);
        if before == head {
            return;
        }
        if let Some((rank, sequence)) = before {
            self.heads.remove(&(rank, sequence, class, priority));
        }
        if let Some((rank, sequence)) = head {
            self.heads.insert((rank, sequence, class, priority));
        }
    }

    fn fix_heads(&mut self, class: u32) {
        for priority in 0..PRIORITIES as u8 {
            self.fix_head(class, priority);
        }
    }
    /// The weight of a priority changed.
    pub(crate) fn fix_all_heads(&mut self) {
        for class in 0..self.classes.len() as u32 {
            self.fix_heads(class);
        }
    }

    /// An agent joined, or joined again, perhaps with other capabilities.
    pub(crate) fn join(&mut self, at: u32, agent: &Agent) {
        self.stand(at, Standing::Out);
        let kind = match self.kind_numbers.get(&agent.capabilities) {
            Some(&kind) => kind,
            None => self.add_kind(agent),
        };
        self.agent_or_new(at).kind = Some(kind);
    }

    fn add_kind(&mut self, agent: &Agent) -> u32 {
        let number = self.kinds.len() as u32;
        self.kind_numbers.insert(agent.capabilities.clone(), number);
        let mut kind = Kind {
            capabilities: agent.capabilities.clone(),
            ..Kind::default()
        };
        for (class, waiting) in (0u32..).zip(&mut self.classes) {
            if &*waiting.text != "\n" && agent.has_all(of_class(&waiting.text)) {
                waiting.kinds.push(number);
                kind.classes.push(class);
            }
        }
        self.kinds.push(kind);
        number
    }

    fn agent_or_new(&mut self, at: u32) -> &mut AgentPlan {
        let at = at as usize;
        if self.agents.len() <= at {
            self.agents.resize(at + 1, AgentPlan::default());
        }
        &mut self.agents[at]
    }

    /// Puts an agent where its state, its load and what is promised to it belong.
    pub(crate) fn set_load(&mut self, at: u32, agent: &Agent, strategy: &dyn Strategy) {
        let promised = self.agent_or_new(at).promised;
        let held = (agent.running.len() + agent.waiting.len()) as u32 + promised;
        let standing = if agent.membership != Membership::Member {
            Standing::Out
        } else if agent.health != Health::Well {
            Standing::Unhealthy
        } else if agent.lapses >= LAPSES_MAX {
            Standing::Unresponsive
        } else if held >= agent.slots.saturating_add(agent.places) {
            Standing::Full
        } else {
            let score = strategy.score(Load {
                held,
                slots: agent.slots,
            });
            Standing::Free((u8::from(held >= agent.slots), score, agent.joined))
        };
        self.stand(at, standing);
    }

    fn stand(&mut self, at: u32, standing: Standing) {
        let entry = self.agent_or_new(at);
        let before = std::mem::replace(&mut entry.standing, standing);
        let Some(kind) = entry.kind.filter(|_| before != standing) else {
            return;
        };
        let Some(state) = self.kinds.get_mut(kind as usize) else {
            return;
        };
        match before {
            Standing::Out => {}
            Standing::Unhealthy => state.unhealthy -= 1,
            Standing::Unresponsive => state.unresponsive -= 1,
            Standing::Full => state.full -= 1,
            Standing::Free(key) => {
                state.free.remove(&(key, at));
            }
        }
        let had_none = state.free.is_empty();
        match standing {
            Standing::Out => {}
            Standing::Unhealthy => state.unhealthy += 1,
            Standing::Unresponsive => state.unresponsive += 1,
            Standing::Full => state.full += 1,
            Standing::Free(key) => {
                state.free.insert((key, at));
            }
        }
        let (was, is) = (before != Standing::Out, standing != Standing::Out);
        if was != is {
            let step = |n: &mut u32| if is { *n += 1 } else { *n -= 1 };
            step(&mut state.members);
            step(&mut self.members);
        }
        if had_none && matches!(standing, Standing::Free(_)) {
            self.unblock(kind);
        }
    }

    fn unblock(&mut self, kind: u32) {
        let classes = std::mem::take(&mut self.kinds[kind as usize].classes);
        for &class in &classes {
            let waiting = &mut self.classes[class as usize];
            if waiting.blocked {
                waiting.blocked = false;
                self.fix_heads(class);
            }
        }
        self.kinds[kind as usize].classes = classes;
    }

    /// The next task and its agent, if any agent with a place can take any of the tasks that wait.
    pub(crate) fn next_match(&mut self) -> Option<Match> {
        loop {
            let &(_, _, class, priority) = self.heads.first()?;
            let waiting = self.classes.get(class as usize)?;
            let mut free: Vec<(AgentKey, u32)> = Vec::with_capacity(CANDIDATES_MAX);
            for &kind in &waiting.kinds {
                free.extend(self.kinds[kind as usize].free.iter().take(CANDIDATES_MAX));
            }
            if waiting.kinds.len() > 1 {
                free.sort_unstable();
                free.truncate(CANDIDATES_MAX);
            }
            let Some(&(_, agent)) = free.first() else {
                self.classes[class as usize].blocked = true;
                self.fix_heads(class);
                continue;
            };
            let &(_, _, task) = waiting.queues[priority as usize].first()?;
            return Some(Match {
                task,
                agent,
                candidates: free,
                passed_over: self.passed_over(waiting),
            });
        }
    }

    fn passed_over(&self, class: &Class) -> BTreeMap<PassedOver, u32> {
        let (mut able, mut full, mut unhealthy, mut unresponsive) = (0, 0, 0, 0);
        for &kind in &class.kinds {
            let kind = &self.kinds[kind as usize];
            able += kind.members;
            full += kind.full;
            unhealthy += kind.unhealthy;
            unresponsive += kind.unresponsive;
        }
        let all = [
            (PassedOver::Capability, self.members - able),
            (PassedOver::Full, full),
            (PassedOver::Unhealthy, unhealthy),
            (PassedOver::Unresponsive, unresponsive),
        ];
        all.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// When the task that has waited longest was queued.
    pub(crate) fn oldest(&self) -> Option<Timestamp> {
        self.classes
            .iter()
            .flat_map(|class| &class.queues)
            .filter_map(|queue| queue.first().map(|&(queued_at, ..)| queued_at))
            .min()
    }

    /// Queued tasks that no member has the capabilities for.
    pub(crate) fn unmet(&self) -> u64 {
        self.classes
            .iter()
            .filter(|class| {
                class
                    .kinds
                    .iter()
                    .all(|&kind| self.kinds[kind as usize].members == 0)
            })
            .flat_map(|class| &class.queues)
            .map(|queue| queue.len() as u64)
            .sum()
    }
}
