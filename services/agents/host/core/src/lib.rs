//! An agent host's core, what the log wants of it: which requests it may claim, which processes it has to start, which must end.
//!
//! A fold without IO. It is fed with the last message of each subject first, in the order of the log, and then with all that
//! follows; so a claim or an end can be met whose request was followed by a newer one, and is then of no account.
//!
//! A host does not know which decisions count. A request that does not is decided again under the same number, later in the
//! log: the later decision takes the place of the earlier one, with all that followed from it, and only claims behind it
//! count. The same decision stored twice is a repeat, and changes nothing.
#![forbid(unsafe_code)]
#![deny(clippy::float_arithmetic)]

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId,
    agent::{SpawnRequested, StopThen},
    envelope::Source,
    subject::Place,
};
use uuid::Uuid;

/// An agent, wherever it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Its swarm.
    pub place: Place,
    /// Its id there.
    pub agent: AgentId,
}

/// What is to be done for an agent of which no process runs here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Its request is open: claim it.
    Claim {
        /// The request.
        request: Box<SpawnRequested>,
        /// The event that holds it: the claim names it as its cause.
        id: EventId,
        /// Sequence of that event: a claim before it says nothing.
        requested_at: u64,
        /// Sequence of the last claim met on the subject of claims, 0 if none.
        last_claim: u64,
    },
    /// This host's claim was met as the first: start the process.
    Start(Box<SpawnRequested>),
    /// This host's claim was met, and the process was told to go before it was started.
    NeverMind {
        /// The request.
        spawn: u64,
    },
}

/// What becomes of a process that runs here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs on.
    Keep,
    /// It is told to go, and killed if it is still there after `grace_ms`.
    Stop {
        /// Milliseconds; 0: killed at once.
        grace_ms: u64,
        /// Why.
        why: &'static str,
    },
}

const KILL: fn(&'static str) -> Fate = |why| Fate::Stop { grace_ms: 0, why };

/// Why the current request wants no process any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Over {
    Exited,
    HostFailed,
    GivenUp,
    Removed,
}

/// The order of decisions about one agent: epoch, then ordinal.
type Rank = (u64, u64);

/// A claim that was met before its request.
#[derive(Clone, Copy, Debug)]
struct Early {
    spawn: u64,
    host: InstanceId,
    /// The request that it names.
    of: Option<Uuid>,
}

#[derive(Debug, Default)]
struct Record {
    /// The newest request met; 0: none.
    spawn: u64,
    /// The event that holds it.
    id: Option<EventId>,
    /// When it was decided.
    rank: Rank,
    /// Its sequence.
    requested_at: u64,
    /// What it asks for, while this host may have to know it.
    request: Option<Box<SpawnRequested>>,
    /// How long the process may take to go when this host is held to be dead.
    grace_ms: u64,
    /// The first valid claim.
    claimed_by: Option<InstanceId>,
    /// A claim of a request that was not met yet: what is met is the last of each subject first, and a request that is
    /// stored twice (which counts for nothing) stands behind the claim of its first copy. It counts if it names that request.
    claimed_before: Option<Early>,
    /// Sequence of the last claim on the subject, valid or not.
    last_claim: u64,
    /// The process of `spawn` was told to go.
    stopping: Option<(u64, StopThen)>,
    over: Option<Over>,
    /// The newest request for which this host has started a process, or has said that it does not.
    started: u64,
    /// What may run of `spawn` was started for a request whose place this one has taken.
    replaced: bool,
}

/// The fold.
#[derive(Debug)]
pub struct Wishes {
    me: InstanceId,
    agents: BTreeMap<Key, Record>,
}

impl Wishes {
    /// Nothing met yet, by the host `me`.
    pub fn new(me: InstanceId) -> Self {
        Self {
            me,
            agents: BTreeMap::new(),
        }
    }

    /// Whether something is known of an agent.
    pub fn knows(&self, key: Key) -> bool {
        self.agents.contains_key(&key)
    }

    /// Every agent that something is known of.
    pub fn keys(&self) -> Vec<Key> {
        self.agents.keys().copied().collect()
    }

    /// Takes in what the log holds at `sequence` about an agent.
    pub fn meet(&mut self, key: Key, sequence: u64, event: &Event) {
        let me = self.me;
        // Only these say something new of an agent that nothing is known of.
        if !matches!(
            event.body,
            Body::AgentSpawnRequested(_) | Body::AgentSpawnClaimed(_)
        ) && !self.agents.contains_key(&key)
        {
            return;
        }
        let record = self.agents.entry(key).or_default();
        match &event.body {
            Body::AgentSpawnRequested(request)
                if request.spawn > record.spawn
                    || request.spawn == record.spawn && rank(event) > record.rank =>
            {
                let before = record
                    .claimed_before
                    .filter(|early| early.spawn == request.spawn && early.of == Some(event.id.0));
                let claimed_by = before.map(|early| early.host);
                // A repeat of an older request may be the last on its subject: the claim of a newer one tells.
                let newer = record
                    .claimed_before
                    .filter(|early| early.spawn > request.spawn);
                let open = newer.is_none() && claimed_by.is_none_or(|host| host == me);
                let again = request.spawn == record.spawn;
                let ran = again && record.started == record.spawn;
                *record = Record {
                    spawn: request.spawn,
                    id: Some(event.id),
                    rank: rank(event),
                    requested_at: sequence,
                    request: open.then(|| Box::new(request.clone())),
                    claimed_by,
                    claimed_before: newer,
                    grace_ms: request.grace_ms,
                    last_claim: record.last_claim,
                    started: match ran {
                        true => request.spawn.saturating_sub(1),
                        false => record.started,
                    },
                    replaced: ran || again && record.replaced,
                    ..Record::default()
                };
            }
            Body::AgentSpawnClaimed(claim) => {
                record.last_claim = record.last_claim.max(sequence);
                // Nobody claims for another.
                let own_word = event.source == Source::Host(claim.host.instance);
                let open = record.claimed_by.is_none() && record.over.is_none();
                let known = record.claimed_before.map_or(record.spawn, |c| c.spawn);
                if claim.spawn > known && own_word {
                    record.claimed_before = Some(Early {
                        spawn: claim.spawn,
                        host: claim.host.instance,
                        of: event.causation,
                    });
                    record.request = None;
                }
                let behind = sequence > record.requested_at;
                if claim.spawn == record.spawn && behind && open && own_word {
                    record.claimed_by = Some(claim.host.instance);
                    if claim.host.instance != me {
                        record.request = None;
                    }
                }
            }
            Body::AgentExited(exited)
                if exited.spawn == record.spawn
                    && record.claimed_by == Some(exited.host.instance) =>
            {
                record.end(Over::Exited);
            }
            Body::AgentHostFailed(failed)
                if failed.spawn == record.spawn
                    && record.claimed_by == Some(failed.host.instance) =>
            {
                record.end(Over::HostFailed);
            }
            Body::AgentCrashLooping(given_up) if given_up.spawn == record.spawn => {
                record.end(Over::GivenUp);
            }
            Body::AgentStopping(stopping) if stopping.spawn == record.spawn && record.spawn > 0 => {
                record.stopping = Some((stopping.grace_ms, stopping.then));
            }
            Body::AgentRemoved(_) if record.stopping.is_some() => record.end(Over::Removed),
            _ => {}
        }
    }

    /// What is to be done for an agent of which no process runs here.
    pub fn todo(&self, key: Key) -> Todo {
        let Some(record) = self.agents.get(&key) else {
            return Todo::Nothing;
        };
        let (Some(request), Some(id)) = (&record.request, record.id) else {
            return Todo::Nothing;
        };
        if record.over.is_some() || record.started >= record.spawn {
            return Todo::Nothing;
        }
        match record.claimed_by {
            Some(host) if host != self.me => Todo::Nothing,
            Some(_) if record.stopping.is_some() => Todo::NeverMind {
                spawn: record.spawn,
            },
            Some(_) => Todo::Start(request.clone()),
            None if record.stopping.is_some() => Todo::Nothing,
            None => Todo::Claim {
                request: request.clone(),
                id,
                requested_at: record.requested_at,
                last_claim: record.last_claim,
            },
        }
    }

    /// A process for this request was started here, or is not going to be: it is not started again.
    pub fn started(&mut self, key: Key, spawn: u64) {
        if let Some(record) = self.agents.get_mut(&key) {
            record.started = record.started.max(spawn);
            record.replaced = false;
        }
    }

    /// What becomes of the process that runs here for the request `spawn`.
    pub fn fate(&self, key: Key, spawn: u64) -> Fate {
        let Some(record) = self.agents.get(&key) else {
            return KILL("nothing is known of its agent");
        };
        if record.spawn != spawn || record.replaced {
            return KILL("another process was asked for");
        }
        if record.claimed_by != Some(self.me) {
            return KILL("it was claimed by another host");
        }
        match (record.over, record.stopping) {
            (Some(Over::Removed), _) => KILL("it was told to go, and removed"),
            (Some(Over::GivenUp), _) => KILL("it was given up"),
            (Some(Over::HostFailed), _) => Fate::Stop {
                grace_ms: record.grace_ms,
                why: "its host was held to be dead",
            },
            (_, Some((grace_ms, _))) => Fate::Stop {
                grace_ms,
                why: "it was told to go",
            },
            (Some(Over::Exited) | None, None) => Fate::Keep,
        }
    }

    /// Whether the agent is somebody else's to show: its process was claimed by another host.
    pub fn elsewhere(&self, key: Key) -> bool {
        let claimed_by = self.agents.get(&key).and_then(|record| record.claimed_by);
        claimed_by.is_some_and(|host| host != self.me)
    }

    /// Forgets an agent that is gone for good and has no process here. The sequence of its last claim is forgotten too: a
    /// claim checked against 0 is refused, and the host reads it back.
    pub fn forget_if_gone(&mut self, key: Key) {
        let gone = self.agents.get(&key).is_some_and(|record| {
            record.over.is_some() && matches!(record.stopping, Some((_, StopThen::Remove)))
        });
        if gone {
            self.agents.remove(&key);
        }
    }
}

/// What nobody decided comes before all that was.
fn rank(event: &Event) -> Rank {
    let decided = event.decided.map(|by| (by.epoch, by.ordinal));
    decided.unwrap_or_default()
}

impl Record {
    fn end(&mut self, over: Over) {
        // A removal takes more than an end does: it stays.
        if self.over != Some(Over::Removed) {
            self.over = Some(over);
        }
        self.request = None;
    }
}
