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
    AgentId, TaskId, Timestamp,
    configuration::{Algorithm, Configuration},
};

/// News that is kept for the next decision. An owner decides within seconds and claims anew every 50,000 events; if more
/// than this comes without a decision, the oldest is taken in, and decisions from before that are not judged.
const NEWS_KEPT_MAX: usize = 200_000;

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
    /// It waits for an agent, since then.
    Queued(Timestamp),
    /// It is an agent's.
    Held {
        agent: AgentId,
        assignment: u64,
        /// When it was assigned.
        at: Timestamp,
        /// Since when it has been in the queue of its swarm or agent.
        queued_at: Timestamp,
        /// When the attempt was last heard of; `None` before its start.
        heard: Option<Timestamp>,
    },
}

/// Something that changed.
#[derive(Debug)]
pub(super) enum News {
    Now(Timestamp),
    Rules(usize, Rules),
    Joined {
        swarm: usize,
        agent: AgentId,
        incarnation: u64,
        slots: usize,
        places: usize,
        capabilities: Box<[String]>,
    },
    /// An agent let an assignment lapse, or was heard again.
    Lapsed(usize, AgentId, bool),
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
            Standing::Queued(queued_at)
            | Standing::Held {
                queued_at,
                heard: None,
                ..
            } => Some((queued_at, self.facts.queue_timeout_ms)),
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
    /// Sequence of the last assignment to it.
    pub(super) turn: u64,
    /// It let an assignment lapse, and has not been heard since.
    pub(super) lapsed: bool,
}
impl Post {
    /// How many tasks it holds, or is about to be given.
    pub(super) fn load(&self) -> usize {
        self.holds.len() + self.promised
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

/// A swarm as it was at the cause.
#[derive(Debug, Default)]
pub(super) struct View {
    pub(super) rules: Rules,
    pub(super) tasks: BTreeMap<TaskId, Seen>,
    pub(super) agents: BTreeMap<AgentId, Post>,
    /// The agent of each key of affinity.
    pub(super) homes: BTreeMap<Box<str>, AgentId>,
    /// Queued tasks on which nothing is under way, by what they require and by priority.
    ready: BTreeMap<(Arc<[String]>, u8), Waiting>,
    /// Unstarted tasks on which nothing is under way: those with the swarm's limit by when they were queued, those with
    /// their own by when it is over.
    by_queued: BTreeSet<(Timestamp, TaskId)>,
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
    pub(super) fn is_under_way(&self, id: TaskId) -> bool {
        self.under_way.contains_key(&id)
    }

    /// The queued task with the best rank among those that an agent with these capabilities can take.
    pub(super) fn best(&self, post: &Post) -> Option<((i64, u64), TaskId)> {
        let mut last: Option<(&Arc<[String]>, bool)> = None;
        let mut best = None;
        for ((required, priority), waiting) in &self.ready {
            let fits = match last {
                Some((before, fits)) if before == required => fits,
                _ => post.can(required),
            };
            last = Some((required, fits));
            if let Some(&(queued_at, submitted, id)) = waiting.first().filter(|_| fits) {
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
            .by_queued
            .first()
            .filter(|_| limit > 0)
            .map(|&(queued_at, id)| (queued_at.plus_millis(limit), id));
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
        if let Standing::Queued(queued_at) = seen.standing {
            let key = (facts.required.clone(), facts.priority);
            let entry = (queued_at, facts.submitted, id);
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
            Some((queued_at, None)) => (&mut self.by_queued, (queued_at, id)),
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

/// A decision that is under way: a task, and the agent that has a place promised for it.
#[derive(Debug)]
struct Flight {
    sequence: u64,
    swarm: usize,
    task: TaskId,
    agent: Option<AgentId>,
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
            if let Some((_, news)) = self.news.pop_front() {
                self.take(news);
            }
        }
        while self.flights.front().is_some_and(|f| f.sequence <= cause) {
            if let Some(flight) = self.flights.pop_front()
                && let Some(view) = self.swarms.get_mut(&flight.swarm)
            {
                view.arrive(flight.task);
                if let Some(post) = flight.agent.and_then(|a| view.agents.get_mut(&a)) {
                    post.promised -= 1;
                }
            }
        }
        true
    }

    fn take(&mut self, news: News) {
        match news {
            News::Now(now) => self.now = now,
            News::Rules(swarm, rules) => self.swarms.entry(swarm).or_default().rules = rules,
            News::Joined {
                swarm,
                agent,
                incarnation,
                slots,
                places,
                capabilities,
            } => {
                let view = self.swarms.entry(swarm).or_default();
                let post = view.agents.entry(agent).or_default();
                post.incarnation = incarnation;
                (post.slots, post.places) = (slots, places);
                post.capabilities = capabilities;
                post.lapsed = false;
                view.by_turn.insert((post.turn, agent));
            }
            News::Lapsed(swarm, agent, lapsed) => {
                if let Some(view) = self.swarms.get_mut(&swarm)
                    && let Some(post) = view.agents.get_mut(&agent)
                {
                    post.lapsed = lapsed;
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

    /// A decision on a task stands at `sequence`: it is under way for those that were made before it was met. A place is
    /// promised to `agent` meanwhile.
    pub(super) fn depart(
        &mut self,
        sequence: u64,
        swarm: usize,
        task: TaskId,
        agent: Option<AgentId>,
    ) {
        let Some(view) = self.swarms.get_mut(&swarm) else {
            return;
        };
        view.depart(task);
        // A decision on an agent that is not there yet has promised nothing.
        let post = agent.and_then(|id| Some((id, view.agents.get_mut(&id)?)));
        let agent = post.map(|(id, post)| {
            post.promised += 1;
            id
        });
        self.flights.push_back(Flight {
            sequence,
            swarm,
            task,
            agent,
        });
    }

    /// An assignment is decided on: it was the agent's turn, and with `homed` the agent is that of the task's key.
    pub(super) fn given(
        &mut self,
        sequence: u64,
        swarm: usize,
        task: TaskId,
        agent: AgentId,
        homed: bool,
    ) {
        let Some(view) = self.swarms.get_mut(&swarm) else {
            return;
        };
        if let Some(post) = view.agents.get_mut(&agent) {
            view.by_turn.remove(&(post.turn, agent));
            post.turn = sequence;
            view.by_turn.insert((sequence, agent));
        }
        if let Some(seen) = view.tasks.get(&task).filter(|_| homed) {
            view.homes.insert(seen.facts.key.clone(), agent);
        }
    }
}
