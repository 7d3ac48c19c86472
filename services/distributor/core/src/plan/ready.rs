//! Which queued task is next, and which agent can take it.
//!
//! Tasks wait in one ordered queue for each class (set of required capabilities) and priority; the queues' heads are
//! ordered by rank. An assignment looks at the first head and at the first agents of the kinds that have what the class
//! needs (`kinds`): its cost does not grow with the number of tasks or agents.

pub(crate) mod look;

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    Timestamp,
    configuration::Algorithm,
    task::{AffinityOutcome, CANDIDATES_MAX, PassedOver},
    topology::Role,
};

use super::{
    candidates::Tally,
    expiry::{Elders, Limit, Line},
    kinds::{AgentKey, AgentPlan, Kind, Standing, fitted},
    spot::{Roles, Route, Spot},
    steal::Waiting,
};
use crate::{
    affinity::{Key, key_of},
    agent::{Agent, Health, Membership},
    class::{Without, excluded_of, of_class, role_of, within_of},
    plan::Entry,
    strategy::{self, Strategy},
    swarm::{Life, Settings, Swarm, rank},
    task::Task,
};

/// Priorities are 1 to 10.
const PRIORITIES: usize = 10;

#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct TaskPlan {
    pub(crate) entry: Entry,
    /// The agent that an assignment or a steal under way keeps a place of.
    pub(crate) promised: Option<u32>,
    /// Where it waits, if it is ready.
    pub(super) ready: Option<(u32, u8, Timestamp, u64, Limit)>,
}

#[derive(Debug, Default)]
pub(crate) struct Class {
    text: Option<Box<str>>,
    /// How many capabilities it needs.
    pub(crate) needs: usize,
    /// Agents that have declined its tasks.
    pub(super) excluded: Box<[u32]>,
    /// They are not to get them even if there are no others.
    pub(super) strict: bool,
    /// The role that it asks for.
    pub(super) role: Option<Role>,
    /// Number of the agent below which its tasks are done, whether they are kept there, and at which version of the tree
    /// that was found out.
    pub(super) within: Option<u32>,
    pub(super) confined: bool,
    pub(super) confined_at: u64,
    /// Members that have what it needs, and not the place in the topology.
    pub(super) misplaced: u32,
    /// There is a kind of such agents, with members or without.
    pub(super) misplaced_any: bool,
    pub(crate) kinds: Vec<u32>,
    /// It has many kinds, and keeps those with a place ordered by their first agent, and the sums over all of them.
    pub(crate) indexed: bool,
    pub(crate) best: BTreeSet<(AgentKey, u32)>,
    pub(crate) tally: Tally,
    pub(super) queues: [Line; PRIORITIES],
    heads: [Option<(i64, u64)>; PRIORITIES],
    /// No agent that could take its tasks has a place: its heads are out of the order until one has.
    pub(crate) blocked: bool,
    /// Tasks that idle agents may take over: rank, sequence of the submission, task.
    pub(crate) waiting: BTreeSet<(i64, u64, u32)>,
}
impl Class {
    /// Its text; `None` while its number stands for no class.
    pub(crate) fn words(&self) -> Option<&str> {
        self.text.as_deref()
    }
    /// As if no kind had been looked at.
    pub(super) fn forget_kinds(&mut self) {
        self.confined = false;
        self.confined_at = u64::MAX;
        self.misplaced = 0;
        self.misplaced_any = false;
        self.kinds.clear();
        self.indexed = false;
        self.best.clear();
        self.tally = Tally::default();
        self.blocked = false;
    }
}

#[derive(Debug, Default)]
pub(crate) struct SwarmPlan {
    pub(crate) active: bool,
    /// Whether it is among the assignable swarms.
    pub(crate) listed: bool,
    /// Whether its figures have a mark already.
    pub(crate) measuring: bool,
    /// When it is next looked for tasks that idle agents may take over; zero if that is not due by time.
    pub(crate) steal_at: Timestamp,
    pub(crate) algorithm: Algorithm,
    pub(crate) priority_step_ms: u64,
    pub(crate) fast_failures_max: u32,
    pub(super) elders: Elders,
    /// The generation of the topology for which this holds; 0 at the beginning.
    pub(super) generation: u64,
    pub(super) route: Route,
    pub(super) roles: Roles,
    /// When it is looked again whose turn it is; zero if that is not due by time.
    pub(super) turn_at: Timestamp,
    pub(super) tasks: Vec<TaskPlan>,
    pub(crate) agents: Vec<AgentPlan>,
    pub(crate) kinds: Vec<Kind>,
    pub(crate) kind_numbers: BTreeMap<Box<[Box<str>]>, BTreeMap<Spot, u32>>,
    pub(crate) classes: Vec<Class>,
    pub(crate) members: u32,
    /// Agents with a free slot.
    pub(crate) idle: u32,
    /// Tasks held by and promised to the agents that are given work, and their slots.
    pub(crate) held_total: u64,
    pub(crate) slots_total: u64,
    /// Rank, sequence of the submission, class, index of the priority.
    pub(crate) heads: BTreeSet<(i64, u64, u32, u8)>,
    /// Where each task that idle agents may take over stands.
    pub(crate) waiting: BTreeMap<u32, Waiting>,
    pub(crate) waiting_classes: BTreeSet<u32>,
    /// Promises under way, and the number of the last assignment among them.
    pub(super) promises: u32,
    turn: u64,
    /// Keys whose first assignment is under way: agent, and how many decisions rely on it.
    homes: BTreeMap<Key, (u32, u32)>,
    /// The key that each of these decisions relies on, by task.
    keys: BTreeMap<u32, Key>,
}

/// What an assignment is to be made of.
pub(crate) struct Match {
    pub(crate) task: u32,
    pub(crate) agent: u32,
    /// Agent numbers and scores, the chosen one first.
    pub(crate) candidates: Vec<(AgentKey, u32)>,
    pub(crate) passed_over: BTreeMap<PassedOver, u32>,
    pub(crate) affinity: Option<(Key, AffinityOutcome)>,
    /// It goes from the busy agent from which it was taken to one that may have it from there.
    pub(crate) taken_over: bool,
    /// In a ring: the number of the token's turn.
    pub(crate) turn: Option<u64>,
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
    pub(crate) const fn route(&self) -> &Route {
        &self.route
    }
    pub(crate) fn strategy(&self) -> &'static dyn Strategy {
        strategy::within(matches!(self.route, Route::Circle(_)), self.algorithm)
    }

    /// Takes over settings. Each agent is to be judged anew after it.
    pub(crate) fn configure(&mut self, settings: &Settings, life: Life) {
        self.look_whose_turn();
        if self.algorithm != settings.algorithm {
            // They stand by the old rules: out, before the rules change.
            for at in 0..self.agents.len() as u32 {
                self.stand(at, Standing::Out);
            }
            self.algorithm = settings.algorithm;
        }
        self.active = life == Life::Running;
        self.fast_failures_max = settings.fast_failures_max;
        self.set_queue_limit_ms(settings.queue_timeout_ms);
        if self.priority_step_ms != settings.priority_step_ms {
            self.priority_step_ms = settings.priority_step_ms;
            for class in 0..self.classes.len() as u32 {
                self.fix_heads(class);
            }
        }
    }

    /// Puts a task into its queue, or takes it out.
    pub(crate) fn set_ready(&mut self, at: u32, task: Option<&Task>, swarm: &Swarm) {
        let place = task.map(|task| {
            let priority = (task.priority.clamp(1, PRIORITIES as u8)) - 1;
            (
                task.class,
                priority,
                task.queued_at,
                task.submitted,
                Limit::of(task),
            )
        });
        let before = std::mem::replace(&mut self.task_or_new(at).ready, place);
        if before == place {
            return;
        }
        if let Some((class, priority, queued_at, sequence, limit)) = before
            && let Some(waiting) = self.classes.get_mut(class as usize)
        {
            waiting.queues[priority as usize].remove((queued_at, sequence, at), limit);
            if let Route::Circle(circle) = &mut self.route {
                circle.remove(class, (sequence, at));
            }
            self.fix_head(class, priority);
            self.moved(at, (class, priority), limit, false);
        }
        if let Some((class, priority, queued_at, sequence, limit)) = place {
            self.ensure_class(class, swarm.classes.get(class));
            self.classes[class as usize].queues[priority as usize]
                .insert((queued_at, sequence, at), limit);
            if let Route::Circle(circle) = &mut self.route {
                circle.insert(class, (sequence, at));
            }
            self.fix_head(class, priority);
            self.moved(at, (class, priority), limit, true);
        }
    }

    /// The class of that number with that text: numbers are used again when a class has no task left.
    pub(crate) fn ensure_class(&mut self, class: u32, text: &str) {
        while self.classes.len() <= class as usize {
            self.classes.push(Class::default());
        }
        if self.classes[class as usize].words() == Some(text) {
            return;
        }
        self.unlink(class);
        let fresh = &mut self.classes[class as usize];
        fresh.text = Some(text.into());
        fresh.needs = of_class(text).count();
        let (excluded, how) = excluded_of(text);
        fresh.excluded = excluded;
        fresh.strict = how == Without::Strictly;
        fresh.role = role_of(text);
        fresh.within = within_of(text);
        fresh.forget_kinds();
        let within = fresh.within.is_some();
        if let Route::Tree(tree) = &mut self.route {
            if within {
                tree.parted.insert(class);
            } else {
                tree.parted.remove(&class);
            }
        }
        for number in 0..self.kinds.len() as u32 {
            self.link_if_able(class, number);
        }
    }

    pub(super) fn fix_head(&mut self, class: u32, priority: u8) {
        let Some(waiting) = self.classes.get_mut(class as usize) else {
            return;
        };
        let first = waiting.queues[priority as usize]
            .first()
            .filter(|_| !waiting.blocked);
        let head = first.map(|&(queued_at, sequence, _)| {
            let rank = rank(queued_at, priority + 1, self.priority_step_ms);
            (rank, sequence)
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

    pub(crate) fn fix_heads(&mut self, class: u32) {
        for priority in 0..PRIORITIES as u8 {
            self.fix_head(class, priority);
        }
    }

    /// The next task and its agent, if any agent with a place can take any of the tasks that wait.
    pub(crate) fn next_match(&mut self, swarm: &Swarm, now: Timestamp) -> Option<Match> {
        if matches!(self.route, Route::Circle(_)) {
            return self.next_turn(swarm, now);
        }
        loop {
            let &(_, _, class, priority) = self.heads.first()?;
            self.confine(class);
            let mut candidates = self.candidates(class);
            let Some(&(_, mut agent)) = candidates.first() else {
                self.classes.get_mut(class as usize)?.blocked = true;
                self.fix_heads(class);
                continue;
            };
            let &(_, _, at) =
                self.classes.get(class as usize)?.queues[priority as usize].first()?;
            let task = swarm.tasks.get(at)?;
            let stolen = task.stolen();
            let affinity = (self.algorithm == Algorithm::Affinity).then(|| key_of(swarm, task));
            let affinity = affinity.map(|key| (key, self.home(swarm, task, key, stolen)));
            let open = matches!(self.route, Route::Open);
            // It was taken from a busy agent for an idle one that may have it from there.
            let thief = match task.more.as_ref().and_then(|more| more.stolen_from) {
                Some(from) if !open => self.thief_for(swarm, class, from),
                _ => None,
            };
            let preferred = match affinity {
                // Who split it makes its parts' results one.
                _ if let Some(at) = self.splitter(task) => Some(at),
                _ if thief.is_some() => thief,
                Some((_, Home::Here(at))) => Some(at),
                None if stolen && open && !self.strategy().slots_first() => {
                    self.idle_for(class).map(|(_, at)| at)
                }
                _ => None,
            };
            if let Some(preferred) = preferred {
                agent = preferred;
                self.put_first(class, preferred, &mut candidates);
            }
            return Some(Match {
                task: at,
                agent,
                candidates,
                passed_over: self.passed_over(class, agent),
                affinity: affinity.map(|(key, home)| (key, home.outcome(agent))),
                taken_over: open || thief == Some(agent),
                turn: None,
            });
        }
    }

    /// The agent that split a task, if it can take it now.
    fn splitter(&self, task: &Task) -> Option<u32> {
        let at = task.prefers()?;
        let free = self.agents.get(at as usize)?.standing.is_free();
        let may = self.agent_fits(task.class, at) && !self.excluded(task.class).contains(&at);
        // It may have split what is to be done below it, or elsewhere, while nobody was there.
        (free && may && self.is_placed(task.class, at)).then_some(at)
    }

    /// Whether an agent's place is one for tasks of a class.
    pub(crate) fn is_placed(&self, class: u32, at: u32) -> bool {
        let entry = self.agents.get(at as usize);
        let kind = entry.and_then(|entry| self.kinds.get(entry.kind? as usize));
        let role = self.classes.get(class as usize).and_then(|c| c.role);
        kind.is_some_and(|kind| {
            kind.spot.takes(role)
                && match (&self.route, self.confined_to(class)) {
                    (Route::Tree(tree), Some(top)) => at != top && tree.is_in(kind.spot.group, top),
                    _ => true,
                }
        })
    }

    fn put_first(&self, class: u32, agent: u32, candidates: &mut Vec<(AgentKey, u32)>) {
        if let Some(found) = candidates.iter().position(|&(_, at)| at == agent) {
            candidates[..=found].rotate_right(1);
            return;
        }
        let Some(AgentPlan {
            kind: Some(kind),
            standing: Standing::Free { key, .. },
            ..
        }) = self.agents.get(agent as usize)
        else {
            return;
        };
        let fit = self.fit(class, self.kinds[*kind as usize].capabilities.len());
        candidates.insert(0, (fitted(*key, fit), agent));
        candidates.truncate(CANDIDATES_MAX);
    }

    /// Where the last task of a key went, and whether this one may go there.
    fn home(&self, swarm: &Swarm, task: &Task, key: Key, stolen: bool) -> Home {
        let under_way = self.homes.get(&key).map(|&(agent, _)| agent);
        let Some(at) = under_way.or_else(|| swarm.homes.get(key)) else {
            return Home::None;
        };
        let needed = swarm.classes.get(task.class);
        let fit = |agent: &&Agent| {
            agent.membership == Membership::Member
                && agent.health != Health::Failed
                && agent.rests().is_none()
                && agent.has_all(of_class(needed))
                && self.is_placed(task.class, at)
                && !self.excluded(task.class).contains(&at)
        };
        if swarm.agents.get(at as usize).filter(fit).is_none() {
            return Home::None;
        }
        match self.may_have_more(at, stolen) {
            Some(_) => Home::Here(at),
            None => Home::Busy,
        }
    }

    /// Notes an assignment under way.
    pub(crate) fn promise(&mut self, found: &Promise, turns: u64) {
        self.promises += 1;
        self.task_or_new(found.task).promised = Some(found.agent);
        if !found.stolen {
            self.turn = self.turn.max(turns) + 1;
        }
        let turn = self.turn;
        if let Some(agent) = self.agents.get_mut(found.agent as usize) {
            agent.promised += 1;
            if !found.stolen {
                agent.turn = turn;
            }
        }
        let (Some((key, outcome)), agent) = (found.affinity, found.agent) else {
            return;
        };
        // The first one of a key under way says where its home will be; those after it rely on that.
        let home = match outcome {
            AffinityOutcome::New => Some(self.homes.entry(key).or_insert((agent, 0))),
            AffinityOutcome::Hit => self.homes.get_mut(&key),
            AffinityOutcome::Miss => None,
        };
        if let Some(home) = home {
            if outcome == AffinityOutcome::New {
                home.0 = agent;
            }
            home.1 += 1;
            self.keys.insert(found.task, key);
        }
    }

    /// Keeps a slot of an idle agent for a task that is being taken over.
    pub(crate) fn reserve(&mut self, task: u32, thief: u32) {
        self.promises += 1;
        self.task_or_new(task).promised = Some(thief);
        if let Some(agent) = self.agents.get_mut(thief as usize) {
            agent.promised += 1;
        }
    }

    /// Takes back what was promised for a task. The agent's load is to be set after it.
    pub(crate) fn take_back(&mut self, task: u32) -> Option<u32> {
        let agent = self.task_mut(task)?.promised.take()?;
        self.promises = self.promises.saturating_sub(1);
        if self.promises == 0 {
            self.turn = 0;
        }
        if let Some(entry) = self.agents.get_mut(agent as usize) {
            entry.promised = entry.promised.saturating_sub(1);
            if entry.promised == 0 {
                entry.turn = 0;
            }
        }
        if let Some(key) = self.keys.remove(&task)
            && let Some(home) = self.homes.get_mut(&key)
        {
            home.1 -= 1;
            if home.1 == 0 {
                self.homes.remove(&key);
            }
        }
        Some(agent)
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
                    .all(|&kind| self.kinds[kind as usize].tally.members == 0)
            })
            .flat_map(|class| &class.queues)
            .map(|queue| queue.len() as u64)
            .sum()
    }
}

/// An assignment that is being decided on.
pub(crate) struct Promise {
    pub(crate) task: u32,
    pub(crate) agent: u32,
    /// It was taken over from a busy agent: no turn of the one that gets it.
    pub(crate) stolen: bool,
    pub(crate) affinity: Option<(Key, AffinityOutcome)>,
}

/// Where the last task of a key went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Home {
    /// It may go there, too.
    Here(u32),
    /// That agent cannot take it now.
    Busy,
    /// Nowhere, or to an agent that is no more, or cannot do this one.
    None,
}
impl Home {
    /// What it is to go to this agent. A task that has to go elsewhere though its key is at home here (who split it makes one
    /// of it, who took it over has it) leaves the key where it is.
    const fn outcome(self, agent: u32) -> AffinityOutcome {
        match self {
            Self::Here(home) if home == agent => AffinityOutcome::Hit,
            Self::Here(_) | Self::Busy => AffinityOutcome::Miss,
            Self::None => AffinityOutcome::New,
        }
    }
}
