//! An agent in the state: what it can take, and what it holds.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Timestamp,
    agent::Cause,
    planted::{self, Bug},
    swarm::AgentLoad,
    task::WithdrawReason,
    topology::Role,
};

/// How long an agent may leave a task unstarted while it has a free slot, in milliseconds: a live agent starts within a
/// round trip, and finds a missed hint by itself after 1 s (it reads its own subjects then).
pub const START_LIMIT_MS: u64 = 2_000;
/// Lapses in a row after which an agent gets no more work until it has written anything, is heard again after a suspicion,
/// or [`BARRED_MS`] have passed. Two: one may be a lost hint.
pub const LAPSES_MAX: u8 = 2;
/// How long that lasts at the most, in milliseconds. An agent that holds nothing has nothing to write, so that without an
/// end it would be out for good after a pause; then one more lapse bars it again, and five start limits keep the tasks that
/// it delays few. An agent that is barred for fast failures is out for as long, unless health's quarantine takes the place
/// of the bar, which is far sooner while there is a health service: its figures are told once a second.
pub const BARRED_MS: u64 = 5 * START_LIMIT_MS;

/// Health's verdict on an incarnation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Health {
    Well,
    Suspected,
    Failed,
}

/// Why an agent gets no new work, and gives back what waits at it. What runs there goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rest {
    /// It is to go.
    Draining,
    /// By health.
    Quarantined,
    /// By this service's own rule, until health has judged.
    FailedFast,
}

/// For what an agent is barred for a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) enum Bar {
    Lapses,
    FastFailures,
}

/// Whether an agent is a member.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Membership {
    Member,
    Left,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Agent {
    pub(crate) id: AgentId,
    pub(crate) incarnation: u64,
    /// Sequence of its last `joined`: ties go to the one that joined first.
    pub(crate) joined: u64,
    pub(crate) membership: Membership,
    pub(crate) health: Health,
    pub(crate) slots: u32,
    pub(crate) places: u32,
    /// Sorted, without repeats.
    pub(crate) capabilities: Box<[Box<str>]>,
    /// Assignments in a row that lapsed unstarted.
    pub(crate) lapses: u8,
    /// Assignments and task numbers, by assignment.
    pub(crate) running: Vec<(u64, u32)>,
    pub(crate) waiting: Vec<(u64, u32)>,
    /// The first waiting assignment, and since when a slot has been free for it.
    pub(crate) clock: Option<(u64, Timestamp)>,
    pub(crate) completed: u64,
    pub(crate) failed: u64,
    /// Number of the last assignment in the swarm that went to it; 0 if none did.
    pub(crate) turn: u64,
    /// Its incarnation is to go.
    pub(crate) draining: bool,
    /// Why health has its incarnation in quarantine, and until when each cause holds if that was said.
    pub(crate) quarantine: BTreeMap<Cause, Option<Timestamp>>,
    /// Attempts that failed fast, one after another since its last success.
    pub(crate) fast_failures: u32,
    /// Until when it is barred for them; zero if it is not.
    pub(crate) barred_until: Timestamp,
    /// Running tasks that show no progress, and since when the one that has shown none for longest.
    pub(crate) stuck: u32,
    pub(crate) stuck_since: Timestamp,
    /// When what it runs is looked at again for that; zero if it runs nothing that could come to it.
    pub(crate) stuck_check: Timestamp,
    /// What it is in the topology; nothing, where it has no seat and needs one.
    pub(crate) role: Option<Role>,
    /// It is given tasks that ask for no role.
    pub(crate) works: bool,
    /// Its figures in the last `measured` that named it. The time that something is stuck moves by itself, and is left out.
    pub(crate) reported: AgentLoad,
}

impl Agent {
    pub(crate) fn load(&self) -> AgentLoad {
        AgentLoad {
            running: self.running.len() as u32,
            waiting: self.waiting.len() as u32,
            completed: self.completed,
            failed: self.failed,
            fast_failures: self.fast_failures,
            stuck: self.stuck,
            stuck_ms: 0,
        }
    }
    /// Its figures as they are told at `now`.
    pub(crate) fn load_at(&self, now: Timestamp) -> AgentLoad {
        let stuck = (self.stuck > 0).then(|| now.millis_since(self.stuck_since));
        AgentLoad {
            stuck_ms: stuck.unwrap_or(0),
            ..self.load()
        }
    }

    /// One that has not joined yet.
    pub(crate) fn new(id: AgentId) -> Self {
        Self {
            id,
            incarnation: 0,
            joined: 0,
            membership: Membership::Left,
            health: Health::Well,
            slots: 0,
            places: 0,
            capabilities: Box::default(),
            lapses: 0,
            running: Vec::new(),
            waiting: Vec::new(),
            clock: None,
            completed: 0,
            failed: 0,
            turn: 0,
            draining: false,
            quarantine: BTreeMap::new(),
            fast_failures: 0,
            barred_until: Timestamp::ZERO,
            stuck: 0,
            stuck_since: Timestamp::ZERO,
            stuck_check: Timestamp::ZERO,
            role: None,
            works: false,
            reported: AgentLoad::default(),
        }
    }

    /// A new process begins with a clean slate.
    pub(crate) fn begin_anew(&mut self, incarnation: u64, sequence: u64) {
        self.incarnation = incarnation;
        self.joined = sequence;
        self.membership = Membership::Member;
        self.health = Health::Well;
        self.lapses = 0;
        self.draining = false;
        self.quarantine.clear();
        self.fast_failures = 0;
        self.barred_until = Timestamp::ZERO;
    }

    /// Why it is given nothing, if there is a reason for which it also gives back what waits at it.
    pub(crate) fn rests(&self) -> Option<Rest> {
        if self.draining && !planted::is(Bug::DrainingGetsWork) {
            return Some(Rest::Draining);
        }
        if !self.quarantine.is_empty() && !planted::is(Bug::QuarantinedGetsWork) {
            return Some(Rest::Quarantined);
        }
        (self.barred_until != Timestamp::ZERO).then_some(Rest::FailedFast)
    }
    /// Its attempts failed fast `max` times in a row, and it is on probation: one task at a time, until one succeeds.
    pub(crate) fn half_open(&self, max: u32) -> bool {
        max > 0 && self.fast_failures >= max && self.rests().is_none()
    }
    /// Slots and waiting places that may be used.
    pub(crate) fn limits(&self, fills_places: bool, fast_failures_max: u32) -> (u32, u32) {
        if self.half_open(fast_failures_max) {
            return (1, 0);
        }
        (self.slots, if fills_places { self.places } else { 0 })
    }

    /// Why an assignment to `incarnation` must be taken away, if it must.
    pub(crate) fn lost(&self, incarnation: u64) -> Option<WithdrawReason> {
        if self.incarnation != incarnation {
            return Some(WithdrawReason::AgentRestarted);
        }
        match (self.membership, self.health) {
            (Membership::Left, _) => Some(WithdrawReason::AgentLeft),
            (Membership::Removed, _) => Some(WithdrawReason::AgentRemoved),
            (Membership::Member, Health::Failed) => Some(WithdrawReason::AgentFailed),
            (Membership::Member, _) => None,
        }
    }

    pub(crate) fn has_all<'a>(&self, mut required: impl Iterator<Item = &'a str>) -> bool {
        required.all(|word| has(&self.capabilities, word))
    }

    pub(crate) fn give(&mut self, assignment: u64, task: u32, now: Timestamp) {
        insert(&mut self.waiting, assignment, task);
        self.wind(now);
    }
    pub(crate) fn start(&mut self, assignment: u64, now: Timestamp) {
        if let Some(task) = remove(&mut self.waiting, assignment) {
            insert(&mut self.running, assignment, task);
        }
        self.wind(now);
    }
    pub(crate) fn take(&mut self, assignment: u64, now: Timestamp) {
        if remove(&mut self.running, assignment).is_none() {
            remove(&mut self.waiting, assignment);
        }
        self.wind(now);
    }
    /// Sets the clock of the start limit: it runs for the first waiting assignment while a slot is free. The others wait
    /// behind that one.
    pub(crate) fn wind(&mut self, now: Timestamp) {
        let free = self.running.len() < self.slots as usize;
        self.clock = match (self.waiting.first(), self.clock) {
            (Some(&(first, _)), Some((timed, since))) if free && first == timed => {
                Some((first, since))
            }
            (Some(&(first, _)), _) if free => Some((first, now)),
            _ => None,
        };
    }
    /// All that it holds.
    pub(crate) fn held(&self) -> impl Iterator<Item = u32> {
        self.running
            .iter()
            .chain(&self.waiting)
            .map(|&(_, task)| task)
    }
}

pub(crate) fn has(capabilities: &[Box<str>], word: &str) -> bool {
    capabilities
        .binary_search_by(|have| (**have).cmp(word))
        .is_ok()
}

fn insert(list: &mut Vec<(u64, u32)>, assignment: u64, task: u32) {
    let at = list.partition_point(|&(a, _)| a < assignment);
    list.insert(at, (assignment, task));
}
fn remove(list: &mut Vec<(u64, u32)>, assignment: u64) -> Option<u32> {
    let at = list.binary_search_by_key(&assignment, |&(a, _)| a).ok()?;
    Some(list.remove(at).1)
}
