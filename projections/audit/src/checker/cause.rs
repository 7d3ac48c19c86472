//! What the distributor's owner had met when it decided: the state at `causeseq`, with its own decisions under way on top.
//!
//! The checker folds what it meets at once, and tells its [`Cause`] what changed for the choice of tasks and agents. That
//! news is taken in only as far as the next decision's cause. Causes never go back (an owner meets the log in order, and
//! decides only behind its own claim), so that one pass serves every decision.

mod view;

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use swarm_events::{
    AgentId, Body, TaskId, Timestamp,
    configuration::{Algorithm, Configuration},
    topology::Role,
};

pub(super) use view::{Asked, Post, Seen, Token, View, rank};

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
