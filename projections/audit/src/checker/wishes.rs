//! What the checker knows of an agent beyond its membership: whether it is wanted, and what became of its processes.

use std::collections::{BTreeMap, VecDeque};

use swarm_events::{
    InstanceId, Timestamp,
    agent::{AgentSpec, Exited, Restart, RestartPolicy, StopThen, Stopping},
};

/// Turns that are kept to judge a decision at its cause: a decision is stored within seconds of it.
const TURNS_KEPT_MAX: usize = 32;
/// Requests, and incarnations, of an agent whose host or process is remembered.
const REQUESTS_KEPT_MAX: usize = 16;

/// What became of the current request for a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Phase {
    /// There is no process, and none is asked for.
    #[default]
    Idle,
    /// No host has claimed it.
    Requested,
    Claimed(InstanceId),
    Running(InstanceId),
}

/// It has been told to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stop {
    pub(super) incarnation: u64,
    pub(super) spawn: u64,
    /// When its grace is over.
    pub(super) over: Timestamp,
    pub(super) then: StopThen,
}

/// Why a process ended last, as far as the next request must agree with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By the report of its host, which its policy judges.
    Exited,
    /// Its host was lost.
    HostLost,
    /// Its incarnation was taken out before its end was known.
    Removed,
}

/// How an agent stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turn {
    /// It was added, or starts again by order, and has not ended for good.
    pub(super) wanted: bool,
    /// The number of the last request.
    pub(super) spawn: u64,
    pub(super) phase: Phase,
    /// Crashes in a row; `None` if the log does not tell.
    pub(super) crashes: Option<u32>,
    /// No process is requested before this.
    pub(super) due: Timestamp,
    pub(super) given_up: bool,
    pub(super) stop: Option<Stop>,
    pub(super) ended: Option<Ended>,
    /// It is to be told to go, because fewer agents are wanted.
    pub(super) scaled_away: bool,
}

/// What was ordered when it was added.
#[derive(Clone, Debug)]
pub(super) struct Order {
    pub(super) adapter: bool,
    pub(super) restart: RestartPolicy,
    /// Where it was added.
    pub(super) sequence: u64,
}
impl Order {
    pub(super) fn of(spec: &AgentSpec, sequence: u64) -> Self {
        Self {
            adapter: spec.adapter.is_some(),
            restart: spec.restart,
            sequence,
        }
    }
    /// As that of another agent.
    pub(super) fn like(other: &Self, sequence: u64) -> Self {
        Self {
            sequence,
            ..other.clone()
        }
    }
}

/// An agent as it is wanted.
#[derive(Debug, Default)]
pub(super) struct Wish {
    /// `None`: it was started by hand.
    pub(super) order: Option<Order>,
    pub(super) now: Turn,
    turns: VecDeque<(u64, Turn)>,
    forgot: bool,
    /// The host whose claim on a request was met first while it held.
    claims: BTreeMap<u64, InstanceId>,
    /// Requests that are void because another decision overtook them.
    void_requests: BTreeMap<u64, ()>,
    /// The request that an incarnation came from.
    births: BTreeMap<u64, u64>,
    /// Where the end of a process was reported, by its request.
    exits: BTreeMap<u64, u64>,
    /// Where the current request was declined last.
    pub(super) declined: bool,
    /// Since when the request waits, or nothing is done about it.
    pub(super) since: Timestamp,
}

fn bounded<V>(map: &mut BTreeMap<u64, V>, key: u64, value: V) {
    map.entry(key).or_insert(value);
    if map.len() > REQUESTS_KEPT_MAX {
        map.pop_first();
    }
}

/// The wait after the `n`th crash in a row, in milliseconds.
pub(super) fn backoff_ms(policy: &RestartPolicy, n: u32) -> u64 {
    let doubled = (1..n.min(64)).try_fold(policy.backoff_ms, |wait, _| {
        (wait < policy.backoff_cap_ms).then(|| wait.saturating_mul(2))
    });
    doubled.map_or(policy.backoff_cap_ms, |wait| {
        wait.min(policy.backoff_cap_ms)
    })
}

impl Wish {
    /// Changes how it stands from `sequence` on.
    pub(super) fn turn(&mut self, sequence: u64, change: impl FnOnce(&mut Turn)) {
        let before = self.now;
        change(&mut self.now);
        if self.now == before && !self.turns.is_empty() {
            return;
        }
        if self.turns.len() == TURNS_KEPT_MAX {
            self.turns.pop_front();
            self.forgot = true;
        }
        self.turns.push_back((sequence, self.now));
    }

    /// How it stood for someone who had met everything up to `cause`; `None` if that is too long ago to tell.
    pub(super) fn at(&self, cause: u64) -> Option<Turn> {
        let found = self.turns.iter().rev().find(|(at, _)| *at <= cause);
        match found {
            Some((_, turn)) => Some(*turn),
            None => (!self.forgot).then(Turn::default),
        }
    }

    /// It is wanted from here on.
    pub(super) fn added(&mut self, order: Order, at: Timestamp) {
        let sequence = order.sequence;
        self.since = at;
        self.order = Some(order);
        self.turn(sequence, |turn| {
            turn.wanted = true;
            turn.crashes = Some(0);
        });
    }

    pub(super) fn requested(&mut self, spawn: u64, crashes: u32, sequence: u64, at: Timestamp) {
        self.declined = false;
        self.since = at;
        self.turn(sequence, |turn| {
            turn.wanted = true;
            turn.spawn = spawn;
            turn.phase = Phase::Requested;
            turn.crashes = Some(crashes);
            turn.given_up = false;
            turn.stop = None;
            turn.ended = None;
        });
    }

    /// A claim is met. Answers whether it holds.
    pub(super) fn claimed(&mut self, spawn: u64, host: InstanceId, sequence: u64) -> bool {
        if spawn != self.now.spawn || self.now.phase != Phase::Requested {
            return false;
        }
        bounded(&mut self.claims, spawn, host);
        self.turn(sequence, |turn| turn.phase = Phase::Claimed(host));
        true
    }

    /// Takes note of a request that is void because another decision overtook it, or stored before. One that is older than
    /// the open one hides that from hosts that begin: the open one is taken back, and who claims it does so in good faith.
    pub(super) fn void_request(&mut self, spawn: u64, sequence: u64, at: Timestamp) {
        bounded(&mut self.void_requests, spawn, ());
        if spawn < self.now.spawn && self.now.phase == Phase::Requested {
            bounded(&mut self.void_requests, self.now.spawn, ());
            self.since = at;
            self.turn(sequence, |turn| turn.phase = Phase::Idle);
        }
    }

    /// Whether a host may hold a request for valid that is not.
    pub(super) fn may_be_believed(&self, spawn: u64) -> bool {
        self.void_requests.contains_key(&spawn)
    }

    /// It was told to go, and nothing of it was there.
    pub(super) fn nothing_to_stop(&mut self, sequence: u64, at: Timestamp) {
        self.since = at;
        self.turn(sequence, |turn| {
            turn.stop = None;
            turn.scaled_away = false;
            turn.wanted = false;
        });
    }

    /// Whose claim on a request held; `None`: nobody's, or it is too long ago to tell.
    pub(super) fn claimant(&self, spawn: u64) -> Result<InstanceId, bool> {
        let found = self.claims.get(&spawn).copied();
        let forgotten = self.claims.len() == REQUESTS_KEPT_MAX
            && self
                .claims
                .first_key_value()
                .is_some_and(|(first, _)| spawn < *first);
        found.ok_or(forgotten)
    }

    /// Whether the process of the current request is in the hands of `host`.
    fn is_held_by(&self, spawn: u64, host: InstanceId) -> bool {
        spawn == self.now.spawn
            && matches!(self.now.phase, Phase::Claimed(by) | Phase::Running(by) if by == host)
    }

    pub(super) fn launched(&mut self, spawn: u64, host: InstanceId, sequence: u64) -> bool {
        let holds = spawn == self.now.spawn && self.now.phase == Phase::Claimed(host);
        if holds {
            self.turn(sequence, |turn| turn.phase = Phase::Running(host));
        }
        holds
    }

    /// The end of a process is reported. Answers whether it is that of the current request.
    pub(super) fn exited(&mut self, exited: &Exited, sequence: u64, at: Timestamp) -> bool {
        let held = self.is_held_by(exited.spawn, exited.host.instance);
        // It was taken out before: only that it is to stay down is news.
        let taken_out = !held
            && exited.spawn == self.now.spawn
            && self.now.ended == Some(Ended::Removed)
            && self.claims.get(&exited.spawn) == Some(&exited.host.instance);
        // The claim of a host that was held to be dead is void, and its word too.
        if held || taken_out {
            bounded(&mut self.exits, exited.spawn, sequence);
        }
        let Some(policy) = self.order.as_ref().map(|order| order.restart) else {
            return false;
        };
        let again = match policy.restart {
            Restart::Always => true,
            Restart::OnFailure => exited.host_leaving || !exited.exit.is_success(),
            Restart::Never => exited.host_leaving,
        };
        if !held {
            if taken_out && !again {
                self.turn(sequence, |turn| turn.wanted = false);
            }
            return taken_out;
        }
        self.since = at;
        let crashed = exited.uptime_ms < policy.stable_ms || exited.exit.error.is_some();
        self.turn(sequence, |turn| {
            turn.phase = Phase::Idle;
            turn.ended = Some(Ended::Exited);
            turn.due = Timestamp::ZERO;
            if turn.stop.is_some() || turn.scaled_away {
                turn.crashes = None;
            } else if exited.host_leaving {
                // Not its own end: it moves, and nothing is counted.
            } else if !again {
                turn.wanted = false;
            } else if crashed {
                turn.crashes = turn.crashes.map(|n| n.saturating_add(1));
                let wait = turn
                    .crashes
                    .map_or(policy.backoff_ms, |n| backoff_ms(&policy, n));
                turn.due = at.plus_millis(wait);
            } else {
                turn.crashes = Some(0);
            }
        });
        true
    }

    /// Where the end of a process was reported.
    pub(super) fn exit_of(&self, spawn: u64) -> Option<u64> {
        self.exits.get(&spawn).copied()
    }

    pub(super) fn host_failed(
        &mut self,
        spawn: u64,
        host: InstanceId,
        sequence: u64,
        at: Timestamp,
    ) -> bool {
        if !self.is_held_by(spawn, host) {
            return false;
        }
        self.since = at;
        self.turn(sequence, |turn| {
            turn.phase = Phase::Idle;
            turn.ended = Some(Ended::HostLost);
            turn.due = Timestamp::ZERO;
        });
        true
    }

    pub(super) fn stopping(&mut self, stopping: &Stopping, sequence: u64, at: Timestamp) {
        self.since = at;
        let starts = self.order.as_ref().is_some_and(|order| order.adapter);
        self.turn(sequence, |turn| {
            turn.stop = Some(Stop {
                incarnation: stopping.incarnation,
                spawn: stopping.spawn,
                over: at.plus_millis(stopping.grace_ms),
                then: stopping.then,
            });
            turn.scaled_away = false;
            match stopping.then {
                StopThen::Remove => turn.wanted = false,
                // One that ended by its policy is wanted again from here on, and not from its request on.
                StopThen::Restart => turn.wanted |= starts,
            }
            // Nobody has it yet: nothing is to be waited for.
            if turn.phase == Phase::Requested {
                turn.phase = Phase::Idle;
            }
        });
    }

    /// A process of it joined.
    pub(super) fn joined(&mut self, incarnation: u64, sequence: u64) {
        let born = match self.now.phase {
            Phase::Claimed(_) | Phase::Running(_) => self.now.spawn,
            // Its end may have been reported before its joining was answered.
            Phase::Idle if self.now.ended == Some(Ended::Exited) => self.now.spawn,
            Phase::Idle | Phase::Requested => 0,
        };
        bounded(&mut self.births, incarnation, born);
        self.turn(sequence, |turn| {
            if turn
                .stop
                .is_some_and(|stop| stop.incarnation < incarnation && stop.incarnation > 0)
            {
                turn.stop = None;
            }
        });
    }

    /// The request that an incarnation came from, 0 if it was started by hand.
    pub(super) fn born_of(&self, incarnation: u64) -> u64 {
        self.births.get(&incarnation).copied().unwrap_or(0)
    }

    /// An incarnation has gone, by its own word or not.
    pub(super) fn gone(&mut self, incarnation: u64, by_word: bool, sequence: u64, at: Timestamp) {
        let born = self.born_of(incarnation);
        self.since = at;
        let never = self
            .order
            .as_ref()
            .is_some_and(|order| order.restart.restart == Restart::Never);
        self.turn(sequence, |turn| {
            // One that was taken out runs no more for the swarm, whatever its host says later.
            if !by_word
                && born != 0
                && born == turn.spawn
                && matches!(turn.phase, Phase::Claimed(_) | Phase::Running(_))
            {
                if turn.stop.is_some() || turn.scaled_away {
                    return;
                }
                if never {
                    turn.wanted = false;
                    return;
                }
                turn.phase = Phase::Idle;
                turn.ended = Some(Ended::Removed);
                turn.crashes = None;
                turn.due = Timestamp::ZERO;
            }
        });
    }

    /// Its process is in the hands of a host, or a host is asked for it.
    pub(super) const fn has_process(&self) -> bool {
        !matches!(self.now.phase, Phase::Idle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wait_doubles_up_to_its_cap() {
        let policy = RestartPolicy {
            backoff_ms: 500,
            backoff_cap_ms: 3_000,
            ..RestartPolicy::default()
        };
        let waits = [1, 2, 3, 4, 5, u32::MAX].map(|n| backoff_ms(&policy, n));
        assert_eq!(waits, [500, 1_000, 2_000, 3_000, 3_000, 3_000]);
        let none = RestartPolicy {
            backoff_ms: 0,
            backoff_cap_ms: 0,
            ..policy
        };
        assert_eq!(backoff_ms(&none, 9), 0);
    }

    #[test]
    fn what_is_kept_of_an_agent_is_bounded() {
        let mut wish = Wish::default();
        for n in 1..=1_000u64 {
            wish.requested(n, 0, n * 10, Timestamp::ZERO);
            wish.claimed(n, InstanceId(uuid::Uuid::nil()), n * 10 + 1);
            wish.joined(n, n * 10 + 2);
        }
        assert_eq!(wish.turns.len(), TURNS_KEPT_MAX);
        assert_eq!(wish.claims.len(), REQUESTS_KEPT_MAX);
        assert_eq!(wish.births.len(), REQUESTS_KEPT_MAX);
        assert_eq!(wish.at(5), None, "too long ago to tell");
        assert_eq!(wish.claimant(1), Err(true));
        assert_eq!(wish.claimant(2_000), Err(false));
    }
}
