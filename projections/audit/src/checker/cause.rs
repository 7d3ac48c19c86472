//! What the distributor's owner had met when it decided: the state at `causeseq`, with its own decisions under way on top.
//!
//! The checker folds what it meets at once, and tells its [`Cause`] what changed for the choice of tasks and agents. That
//! news is taken in only as far as the next decision's cause. Causes never go back (an owner meets the log in order, and
//! decides only behind its own claim), so that one pass serves every decision.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use swarm_events::{
    AgentId, Body, TaskId, Timestamp,
    configuration::{Algorithm, Configuration},
    topology::{Ring, Role, Topology},
};
use swarm_topology::Shape;

/// News that is kept for the next decision. An owner decides within seconds and claims anew every 50,000 events; if more
/// than this comes without a decision, the oldest is taken in, and decisions from before that are not judged.
const NEWS_KEPT_MAX: usize = 200_000;

/// Up to so many keys of affinity, none of them is forgotten.
const HOMES_KEPT_MIN: usize = 100_000;

/// What a submission says for good.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    /// Sequence of the submission: ties in rank go to the one that came first.
    pub(super) submitted: u64,
    pub(super) priority: u8,
    /// Sorted, without repeats.
    pub(super) required: Arc<[String]>,
    /// Its own limits in milliseconds; 0: none.
    pub(super) queue_timeout_ms: Option<u64>,
    pub(super) progress_timeout_ms: Option<u64>,
    /// The key of its affinity: its own, else its type.
    pub(super) key: Box<str>,
    /// The role that it asks for, and the agent below which it is to be done.
    pub(super) role: Option<Role>,
    pub(super) within: Option<AgentId>,
    /// Whether, or from when on, it exists showed later than it was submitted: nothing is promised of its order.
    pub(super) vague: bool,
}

/// The settings in force.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Rules {
    pub(super) algorithm: Algorithm,
    pub(super) priority_step_ms: u64,
    pub(super) queue_timeout_ms: u64,
    pub(super) progress_timeout_ms: u64,
    pub(super) stealing: bool,
}
impl From<&Configuration> for Rules {
    fn from(c: &Configuration) -> Self {
        Self {
            algorithm: c.distribution_algorithm,
            priority_step_ms: c.priority_step_ms,
            queue_timeout_ms: c.queue_timeout_ms,
            progress_timeout_ms: c.progress_timeout_ms,
            stealing: c.stealing,
        }
    }
}

/// Where a task stands that waits or runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It waits for an agent.
    Queued {
        /// What its rank derives from.
        queued_at: Timestamp,
        /// What its limit counts from.
        waits_from: Timestamp,
    },
    /// It is an agent's.
    Held {
        agent: AgentId,
        assignment: u64,
        /// When it was assigned.
        at: Timestamp,
        waits_from: Timestamp,
        /// By a turn of the ring.
        by_turn: bool,
        /// When the attempt was last heard of; `None` before its start.
        heard: Option<Timestamp>,
    },
}

/// Something that changed.
#[derive(Debug)]
pub(super) enum News {
    Now(Timestamp),
    Rules(usize, Rules),
    /// An agent joined, or can do something else.
    Described {
        swarm: usize,
        agent: AgentId,
        incarnation: u64,
        slots: usize,
        places: usize,
        capabilities: Box<[String]>,
    },
    /// An agent let an assignment lapse, or was heard again.
    Lapsed(usize, AgentId, bool),
    /// An assignment was met: whose turn it was, and the key whose agent that is now.
    Given {
        swarm: usize,
        agent: AgentId,
        turn: Option<u64>,
        key: Option<Box<str>>,
        /// Of the ring.
        token: Option<Token>,
    },
    /// The topology, a seat or the leader changed, by an event that is about this agent.
    Shaped(usize, Option<AgentId>, Box<Body>),
    /// A task has ended.
    Ended(usize, TaskId),
    /// A task stands elsewhere now; `None`: neither in a queue nor at an agent.
    Task(usize, TaskId, Option<(Arc<Facts>, Standing)>),
}

#[derive(Debug)]
pub(super) struct Seen {
    pub(super) facts: Arc<Facts>,
    pub(super) standing: Standing,
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
pub(super) struct Post {
    pub(super) incarnation: u64,
    pub(super) slots: usize,
    /// Slots and waiting places.
    pub(super) places: usize,
    pub(super) capabilities: Box<[String]>,
    holds: BTreeSet<u64>,
    runs: BTreeSet<u64>,
    /// Assignments to it, and steals on its account, that are under way.
    promised: usize,
    /// Sequence of the last assignment to it that counts as its turn: met, and under way.
    met_turn: u64,
    flying_turns: BTreeSet<u64>,
    /// It let an assignment lapse, and has not been heard since.
    pub(super) lapsed: bool,
}
impl Post {
    /// How many tasks it holds, or is about to be given.
    pub(super) fn load(&self) -> usize {
        self.holds.len() + self.promised
    }
    pub(super) fn turn(&self) -> u64 {
        let flying = self.flying_turns.last().copied();
        flying.unwrap_or(0).max(self.met_turn)
    }
    /// Each of its slots runs something.
    pub(super) fn is_busy(&self) -> bool {
        self.runs.len() >= self.slots
    }
    pub(super) fn can(&self, required: &[String]) -> bool {
        required
            .iter()
            .all(|word| self.capabilities.binary_search(word).is_ok())
    }
}

type Waiting = BTreeSet<(Timestamp, u64, TaskId)>;
/// Capabilities, the role, and the agent below which it is to be done.
pub(super) type Asked = (Arc<[String]>, Option<Role>, Option<AgentId>);

/// A turn of the ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token {
    pub(super) turn: u64,
    pub(super) agent: AgentId,
    pub(super) task: TaskId,
    pub(super) assignment: u64,
    /// Since when the agent has it for this task.
    pub(super) since: Timestamp,
    /// That agent's place in the circle then: it may have another one now, or none.
    pub(super) place: Option<u64>,
}

/// A swarm as it was at the cause.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) rules: Rules,
    pub(super) tasks: BTreeMap<TaskId, Seen>,
    pub(super) agents: BTreeMap<AgentId, Post>,
    /// The agent of each key of affinity, and those that decisions under way say, by their sequence.
    homes: BTreeMap<Box<str>, AgentId>,
    flying_homes: BTreeMap<Box<str>, BTreeMap<u64, AgentId>>,
    /// Queued tasks on which nothing is under way, by what they ask for and by priority, and by submission.
    ready: BTreeMap<(Asked, u8), Waiting>,
    pub(super) by_submission: BTreeSet<(u64, TaskId)>,
    /// The topology as it was.
    pub(super) shape: Option<Box<Shape>>,
    pub(super) token: Option<Token>,
    /// Unstarted tasks on which nothing is under way: those with the swarm's limit by since when they wait, those with
    /// their own by when it is over.
    by_waiting: BTreeSet<(Timestamp, TaskId)>,
    by_limit: BTreeSet<(Timestamp, TaskId)>,
    /// Agents by the sequence of the last assignment to them.
    pub(super) by_turn: BTreeSet<(u64, AgentId)>,
    under_way: BTreeMap<TaskId, u32>,
}

/// Smaller is sooner: one step of priority weighs as much as so many milliseconds of waiting.
pub(super) fn rank(queued_at: Timestamp, priority: u8, step_ms: u64) -> i64 {
    let boost = i64::try_from(step_ms)
        .unwrap_or(i64::MAX)
        .saturating_mul(1_000)
        .saturating_mul(i64::from(priority));
    queued_at.as_micros().saturating_sub(boost)
}

impl View {
    /// The agent of a key of affinity.
    pub(super) fn home(&self, key: &str) -> Option<AgentId> {
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
    pub(super) fn remembers_homes(&self) -> bool {
        self.homes.len() + self.flying_homes.len() < HOMES_KEPT_MIN
    }
    /// Sets an agent's turns anew.
    fn turn(&mut self, id: AgentId, change: impl FnOnce(&mut Post)) {
        if let Some(post) = self.agents.get_mut(&id) {
            self.by_turn.remove(&(post.turn(), id));
            change(post);
            self.by_turn.insert((post.turn(), id));
        }
    }

    pub(super) fn is_under_way(&self, id: TaskId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// The queued task with the best rank among those that an agent with these capabilities can take and surely `sits` right
    /// for, by role and place in a tree; those left out that are `not_for` it.
    pub(super) fn best(
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
    pub(super) fn overdue(&self, now: Timestamp) -> Option<(TaskId, Timestamp)> {
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

    fn reshape(&mut self, about: Option<AgentId>, body: &Body) {
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
    pub(super) fn is_ring(&self) -> bool {
        self.ring().is_some()
    }
    pub(super) fn ring(&self) -> Option<&Ring> {
        match self.shape.as_deref()?.topology() {
            Topology::Ring(ring) => Some(ring),
            _ => None,
        }
    }
    /// Another attempt at the same task does not give its agent more time.
    fn pass_to(&mut self, token: Token) {
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
    pub(super) fn promises(&self) -> usize {
        self.agents.values().map(|post| post.promised).sum()
    }

    fn depart(&mut self, id: TaskId) {
        self.leave(id);
        *self.under_way.entry(id).or_default() += 1;
    }
    fn arrive(&mut self, id: TaskId) {
        let left = self.under_way.get_mut(&id).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            self.under_way.remove(&id);
            self.enter(id);
        }
    }

    fn stand(&mut self, id: TaskId, now: Option<(Arc<Facts>, Standing)>) {
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

/// A decision that is under way.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) sequence: u64,
    pub(super) swarm: usize,
    pub(super) task: TaskId,
    /// The agent that has a place promised for it.
    pub(super) agent: Option<AgentId>,
    /// It is that agent's turn.
    pub(super) turn: bool,
    /// That agent is the one of the task's key.
    pub(super) key: Option<Box<str>>,
}

/// A partition as the owner of its distributor had met it.
#[derive(Debug, Default)]
pub(super) struct Cause {
    /// Highest store time.
    pub(super) now: Timestamp,
    /// Everything up to here is taken in.
    sequence: u64,
    news: VecDeque<(u64, News)>,
    flights: VecDeque<Flight>,
    swarms: BTreeMap<usize, View>,
}

impl Cause {
    pub(super) fn tell(&mut self, sequence: u64, news: News) {
        if self.news.len() == NEWS_KEPT_MAX
            && let Some((oldest, _)) = self.news.front()
        {
            self.advance(*oldest);
        }
        self.news.push_back((sequence, news));
    }

    /// Takes in what had been met at `cause`. False: more than that is taken in already.
    pub(super) fn advance(&mut self, cause: u64) -> bool {
        if cause < self.sequence {
            return false;
        }
        self.sequence = cause;
        while self.news.front().is_some_and(|(at, _)| *at <= cause) {
            if let Some((at, news)) = self.news.pop_front() {
                self.land_to(at - 1);
                self.take(news);
            }
        }
        self.land_to(cause);
        true
    }

    fn land_to(&mut self, sequence: u64) {
        while self.flights.front().is_some_and(|f| f.sequence <= sequence) {
            if let Some(flight) = self.flights.pop_front() {
                self.land(&flight);
            }
        }
    }

    fn take(&mut self, news: News) {
        match news {
            News::Now(now) => self.now = now,
            News::Rules(swarm, rules) => self.swarms.entry(swarm).or_default().rules = rules,
            News::Described {
                swarm,
                agent,
                incarnation,
                slots,
                places,
                capabilities,
            } => {
                let view = self.swarms.entry(swarm).or_default();
                let post = view.agents.entry(agent).or_default();
                post.lapsed &= post.incarnation == incarnation;
                post.incarnation = incarnation;
                (post.slots, post.places) = (slots, places);
                post.capabilities = capabilities;
                view.by_turn.insert((post.turn(), agent));
            }
            News::Lapsed(swarm, agent, lapsed) => {
                if let Some(view) = self.swarms.get_mut(&swarm)
                    && let Some(post) = view.agents.get_mut(&agent)
                {
                    post.lapsed = lapsed;
                }
            }
            News::Given {
                swarm,
                agent,
                turn,
                key,
                token,
            } => {
                let view = self.swarms.entry(swarm).or_default();
                if let Some(token) = token {
                    view.pass_to(token);
                }
                if let Some(turn) = turn {
                    view.turn(agent, |post| post.met_turn = turn);
                }
                view.homes.extend(key.map(|key| (key, agent)));
            }
            News::Shaped(swarm, about, body) => {
                self.swarms.entry(swarm).or_default().reshape(about, &body);
            }
            News::Ended(swarm, id) => {
                let Some(view) = self.swarms.get_mut(&swarm) else {
                    return;
                };
                if !view.is_under_way(id) {
                    return;
                }
                // A steal of it will take nothing: what was kept for the thief is free.
                let flights = self.flights.iter_mut();
                for flight in flights.filter(|f| f.swarm == swarm && f.task == id) {
                    if let Some(agent) = flight.agent.take() {
                        view.turn(agent, |post| post.promised -= 1);
                    }
                }
            }
            News::Task(swarm, id, standing) => {
                self.swarms.entry(swarm).or_default().stand(id, standing);
            }
        }
    }

    pub(super) fn swarm(&self, number: usize) -> Option<&View> {
        self.swarms.get(&number)
    }

    /// A decision stands in the log: it is under way for those that were made before it was met.
    pub(super) fn depart(&mut self, mut flight: Flight) {
        let Some(view) = self.swarms.get_mut(&flight.swarm) else {
            return;
        };
        view.depart(flight.task);
        // A decision on an agent that is not there yet has promised nothing.
        flight.agent = flight.agent.filter(|id| view.agents.contains_key(id));
        if let Some(agent) = flight.agent {
            view.turn(agent, |post| {
                post.promised += 1;
                if flight.turn {
                    post.flying_turns.insert(flight.sequence);
                }
            });
            if let Some(key) = &flight.key {
                let homes = view.flying_homes.entry(key.clone()).or_default();
                homes.insert(flight.sequence, agent);
            }
        }
        self.flights.push_back(flight);
    }

    /// It was met: what became of it is in the news.
    fn land(&mut self, flight: &Flight) {
        let Some(view) = self.swarms.get_mut(&flight.swarm) else {
            return;
        };
        view.arrive(flight.task);
        let Some(agent) = flight.agent else {
            return;
        };
        view.turn(agent, |post| {
            post.promised -= 1;
            post.flying_turns.remove(&flight.sequence);
        });
        if let Some(key) = &flight.key
            && let Some(homes) = view.flying_homes.get_mut(key)
        {
            homes.remove(&flight.sequence);
            if homes.is_empty() {
                view.flying_homes.remove(key);
            }
        }
    }
}
