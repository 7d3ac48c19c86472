//! A swarm as the owner of its distributor had met it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_events::{
    AgentId, Body, TaskId, Timestamp,
    topology::{Ring, Role, Topology},
};
use swarm_topology::Shape;

use super::{Facts, Rules, Standing};

/// Up to so many keys of affinity, none of them is forgotten.
const HOMES_KEPT_MIN: usize = 100_000;

#[derive(Debug)]
pub(in super::super) struct Seen {
    pub(in super::super) facts: Arc<Facts>,
    pub(in super::super) standing: Standing,
}
impl Seen {
    /// When it has waited too long, if it has a limit and has not started.
    fn queue_limit(&self) -> Option<(Timestamp, Option<u64>)> {
        match self.standing {
            Standing::Queued { waits_from, .. }
            | Standing::Held {
                waits_from,
                heard: None,
                ..
            } => Some((waits_from, self.facts.queue_timeout_ms)),
            Standing::Held { .. } => None,
        }
    }
}

/// An agent's places.
#[derive(Debug, Default)]
pub(in super::super) struct Post {
    pub(in super::super) incarnation: u64,
    pub(in super::super) slots: usize,
    /// Slots and waiting places.
    pub(in super::super) places: usize,
    pub(in super::super) capabilities: Box<[String]>,
    pub(super) holds: BTreeSet<u64>,
    pub(super) runs: BTreeSet<u64>,
    /// Assignments to it, and steals on its account, that are under way.
    pub(super) promised: usize,
    /// Sequence of the last assignment to it that counts as its turn: met, and under way.
    pub(super) met_turn: u64,
    pub(super) flying_turns: BTreeSet<u64>,
    /// It let an assignment lapse, and has not been heard since.
    pub(in super::super) lapsed: bool,
}
impl Post {
    /// How many tasks it holds, or is about to be given.
    pub(in super::super) fn load(&self) -> usize {
        self.holds.len() + self.promised
    }
    pub(in super::super) fn turn(&self) -> u64 {
        let flying = self.flying_turns.last().copied();
        flying.unwrap_or(0).max(self.met_turn)
    }
    /// Each of its slots runs something.
    pub(in super::super) fn is_busy(&self) -> bool {
        self.runs.len() >= self.slots
    }
    pub(in super::super) fn can(&self, required: &[String]) -> bool {
        required
            .iter()
            .all(|word| self.capabilities.binary_search(word).is_ok())
    }
}

type Waiting = BTreeSet<(Timestamp, u64, TaskId)>;
/// Capabilities, the role, and the agent below which it is to be done.
pub(in super::super) type Asked = (Arc<[String]>, Option<Role>, Option<AgentId>);

/// A turn of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in super::super) struct Token {
    pub(in super::super) turn: u64,
    pub(in super::super) agent: AgentId,
    pub(in super::super) task: TaskId,
    pub(in super::super) assignment: u64,
    /// Since when the agent has it for this task.
    pub(in super::super) since: Timestamp,
    /// That agent's place in the circle then: it may have another one now, or none.
    pub(in super::super) place: Option<u64>,
}

/// A swarm as it was at the cause.
#[derive(Debug, Default)]
pub(in super::super) struct View {
    pub(in super::super) rules: Rules,
    pub(in super::super) tasks: BTreeMap<TaskId, Seen>,
    pub(in super::super) agents: BTreeMap<AgentId, Post>,
    /// The agent of each key of affinity, and those that decisions under way say, by their sequence.
    pub(super) homes: BTreeMap<Box<str>, AgentId>,
    pub(super) flying_homes: BTreeMap<Box<str>, BTreeMap<u64, AgentId>>,
    /// Queued tasks on which nothing is under way, by what they ask for and by priority, and by submission.
    ready: BTreeMap<(Asked, u8), Waiting>,
    pub(in super::super) by_submission: BTreeSet<(u64, TaskId)>,
    /// The topology as it was.
    pub(in super::super) shape: Option<Box<Shape>>,
    pub(in super::super) token: Option<Token>,
    /// Unstarted tasks on which nothing is under way: those with the swarm's limit by since when they wait, those with
    /// their own by when it is over.
    by_waiting: BTreeSet<(Timestamp, TaskId)>,
    by_limit: BTreeSet<(Timestamp, TaskId)>,
    /// Agents by the sequence of the last assignment to them.
    pub(in super::super) by_turn: BTreeSet<(u64, AgentId)>,
    under_way: BTreeMap<TaskId, u32>,
}

/// Smaller is sooner: one step of priority weighs as much as so many milliseconds of waiting.
pub(in super::super) fn rank(queued_at: Timestamp, priority: u8, step_ms: u64) -> i64 {
    let boost = i64::try_from(step_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000)
        .saturating_mul(i64::from(priority));
    queued_at.as_micros().saturating_sub(boost)
}

impl View {
    /// The agent of a key of affinity.
    pub(in super::super) fn home(&self, key: &str) -> Option<AgentId> {
        let flying = self
            .flying_homes
            .get(key)
            .and_then(BTreeMap::last_key_value);
        flying
            .map(|(_, agent)| agent)
            .or_else(|| self.homes.get(key))
            .copied()
    }
    /// Few enough keys have an agent that none of them has been forgotten.
    pub(in super::super) fn remembers_homes(&self) -> bool {
        self.homes.len() + self.flying_homes.len() < HOMES_KEPT_MIN
    }
    /// Sets an agent's turns anew.
    pub(super) fn turn(&mut self, id: AgentId, change: impl FnOnce(&mut Post)) {
        if let Some(post) = self.agents.get_mut(&id) {
            self.by_turn.remove(&(post.turn(), id));
            change(post);
            self.by_turn.insert((post.turn(), id));
        }
    }

    pub(in super::super) fn is_under_way(&self, id: TaskId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// The queued task with the best rank among those that an agent with these capabilities can take and surely `sits` right
    /// for, by role and place in a tree; those left out that are `not_for` it.
    pub(in super::super) fn best(
        &self,
        post: &Post,
        sits: impl Fn(&Asked) -> bool,
        not_for: impl Fn(TaskId) -> bool,
    ) -> Option<((i64, u64), TaskId)> {
        let mut last: Option<(&Asked, bool)> = None;
        let mut best = None;
        for ((asked, priority), waiting) in &self.ready {
            let fits = match last {
                Some((before, fits)) if before == asked => fits,
                _ => post.can(&asked.0) && sits(asked),
            };
            last = Some((asked, fits));
            let mut first = waiting.iter().filter(|_| fits);
            if let Some(&(queued_at, submitted, id)) = first.find(|(_, _, id)| !not_for(*id)) {
                let rank = (
                    rank(queued_at, *priority, self.rules.priority_step_ms),
                    submitted,
                );
                if best.is_none_or(|(before, _)| rank < before) {
                    best = Some((rank, id));
                }
            }
        }
        best
    }

    /// The task that has waited past its limit the longest, with its limit, by the time `now`.
    pub(in super::super) fn overdue(&self, now: Timestamp) -> Option<(TaskId, Timestamp)> {
        let limit = self.rules.queue_timeout_ms;
        let by_swarm = self
            .by_waiting
            .first()
            .filter(|_| limit > 0)
            .map(|&(from, id)| (from.plus_millis(limit), id));
        let own = self.by_limit.first().copied();
        [by_swarm, own]
            .into_iter()
            .flatten()
            .min()
            .filter(|(over, _)| *over <= now)
            .map(|(over, id)| (id, over))
    }

    fn enter(&mut self, id: TaskId) {
        self.index(id, true);
    }
    fn leave(&mut self, id: TaskId) {
        self.index(id, false);
    }
    fn index(&mut self, id: TaskId, enter: bool) {
        if self.under_way.contains_key(&id) {
            return;
        }
        let Some(seen) = self.tasks.get(&id).filter(|seen| !seen.facts.vague) else {
            return;
        };
        let facts = &seen.facts;
        if let Standing::Queued { queued_at, .. } = seen.standing {
            let asked = (facts.required.clone(), facts.role, facts.within);
            let key = (asked, facts.priority);
            let entry = (queued_at, facts.submitted, id);
            if enter {
                self.by_submission.insert((facts.submitted, id));
            } else {
                self.by_submission.remove(&(facts.submitted, id));
            }
            if enter {
                self.ready.entry(key).or_default().insert(entry);
            } else if let Some(waiting) = self.ready.get_mut(&key) {
                waiting.remove(&entry);
                if waiting.is_empty() {
                    self.ready.remove(&key);
                }
            }
        }
        let (list, entry) = match seen.queue_limit() {
            None | Some((_, Some(0))) => return,
            Some((queued_at, None)) => (&mut self.by_waiting, (queued_at, id)),
            Some((queued_at, Some(limit))) => {
                (&mut self.by_limit, (queued_at.plus_millis(limit), id))
            }
        };
        if enter {
            list.insert(entry);
        } else {
            list.remove(&entry);
        }
    }

    pub(super) fn reshape(&mut self, about: Option<AgentId>, body: &Body) {
        let was = self.is_ring();
        match (&mut self.shape, body) {
            (None, Body::SwarmCreated(created)) => {
                self.shape = Some(Box::new(Shape::of(created)));
            }
            // Only what counts is told.
            (Some(shape), _) => drop(shape.apply(about, body)),
            (None, _) => {}
        }
        if self.is_ring() != was {
            self.token = None;
        }
    }
    pub(in super::super) fn is_ring(&self) -> bool {
        self.ring().is_some()
    }
    pub(in super::super) fn ring(&self) -> Option<&Ring> {
        match self.shape.as_deref()?.topology() {
            Topology::Ring(ring) => Some(ring),
            _ => None,
        }
    }
    /// Another attempt at the same task does not give its agent more time.
    pub(super) fn pass_to(&mut self, token: Token) {
        let since = match self.token {
            Some(before) if (before.agent, before.task) == (token.agent, token.task) => {
                before.since
            }
            _ => token.since,
        };
        let seat = self
            .shape
            .as_deref()
            .and_then(|shape| shape.seat(token.agent));
        let place = seat.map(|seat| seat.place);
        let place = place.or(self.token.and_then(|before| before.place));
        self.token = Some(Token {
            since,
            place,
            ..token
        });
    }
    /// Assignments of it that are under way.
    pub(in super::super) fn promises(&self) -> usize {
        self.agents.values().map(|post| post.promised).sum()
    }

    pub(super) fn depart(&mut self, id: TaskId) {
        self.leave(id);
        *self.under_way.entry(id).or_default() += 1;
    }
    pub(super) fn arrive(&mut self, id: TaskId) {
        let left = self.under_way.get_mut(&id).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.under_way.remove(&id);
            self.enter(id);
        }
    }

    pub(super) fn stand(&mut self, id: TaskId, now: Option<(Arc<Facts>, Standing)>) {
        self.leave(id);
        let before = match now {
            Some((facts, standing)) => self.tasks.insert(id, Seen { facts, standing }),
            None => self.tasks.remove(&id),
        };
        if let Some(Standing::Held {
            agent, assignment, ..
        }) = before.map(|seen| seen.standing)
            && let Some(post) = self.agents.get_mut(&agent)
        {
            post.holds.remove(&assignment);
            post.runs.remove(&assignment);
        }
        if let Some(Standing::Held {
            agent,
            assignment,
            heard,
            ..
        }) = self.tasks.get(&id).map(|seen| seen.standing)
            && let Some(post) = self.agents.get_mut(&agent)
        {
            post.holds.insert(assignment);
            if heard.is_some() {
                post.runs.insert(assignment);
            }
        }
        self.enter(id);
    }
}
