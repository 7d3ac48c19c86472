//! What an agent knows of its assignments and what it does next, without clock, randomness or IO.
//!
//! The owner tells what it heard ([`Protocol::heard`], [`Protocol::written`], …) and does what [`Protocol::next`] asks for. The
//! rules are those of the log: an assignment is started once, only with the last withdrawal known (the server checks it), and
//! a result is written under the same check. A live message is a hint: it may be missing, late or repeated; what counts is that
//! nothing before it on its subject is unseen.

mod held;
mod track;
mod words;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use swarm_events::ids::{EventId, TaskId};

use held::{Held, Pending, Phase};
pub use held::{Outcome, Write, WriteKind, Written};
use track::Track;
pub use words::{Assignment, Do, Fact, Over, Own, Stop, Verdict, Via};

/// Monotonic milliseconds since an arbitrary start.
pub type Millis = u64;

/// Pauses between looks at the own subjects while a slot is free: the first after a second, then every 2, 4, 5 s.
pub const IDLE_CHECKS_MS: [Millis; 4] = [1_000, 2_000, 4_000, 5_000];
/// How often an agent whose slots are all taken looks for withdrawals whose hint was lost.
pub const BUSY_CHECK_MS: Millis = 5_000;
/// Every so many looks the verdicts on the agent itself are read too: they are rare, and each is a request more.
pub const VERDICTS_EVERY: u32 = 4;
/// Pause before a look that failed is tried again.
pub const CHECK_RETRY_MS: Millis = 500;
/// A refused check mostly means that a withdrawal is on its way here: it is waited for this long before a consumer is made.
pub const HINT_WAIT_MS: Millis = 20;
/// Pause before catching up again when catching up did not close the gap.
pub const CATCH_UP_RETRY_MS: Millis = 100;
/// Pause after "another checked write is in flight".
pub const BUSY_PAUSE_MS: Millis = 1;
/// By the assignment's number it is up to this much longer, so that two agents do not meet again and again.
pub const BUSY_PAUSE_SPREAD_MS: Millis = 5;
/// First and last pause before a write whose outcome is unknown is sent again.
pub const UNKNOWN_PAUSE_MS: (Millis, Millis) = (100, 1_000);
/// Pause after a refusal that time may cure, a full disk above all.
pub const REFUSED_PAUSE_MS: Millis = 1_000;
/// Most assignments held: the largest agent that a swarm's configuration allows. What comes beyond lapses by the start limit.
pub const HELD_MAX: usize =
    (swarm_events::configuration::SLOTS_MAX + swarm_events::configuration::WAITING_MAX) as usize;

/// The protocol of one incarnation.
pub struct Protocol {
    slots: usize,
    incarnation: u64,
    ids: Box<dyn FnMut() -> EventId + Send>,
    assigned: Track,
    withdrawn: Track,
    /// By sequence of the assignment, hence in the order of arrival.
    held: BTreeMap<u64, Held>,
    /// Withdrawals met before their assignment.
    early: BTreeSet<u64>,
    actions: Vec<Do>,
    appending: bool,
    /// When `next` was asked last.
    now: Millis,
    /// No append before this.
    paused_until: Millis,
    unknown_pause: Millis,
    draining: bool,
    stop: Option<Stop>,
    over: Option<Over>,
    free: bool,
    checking: bool,
    check_at: Millis,
    checks: u32,
    check_all: bool,
}

impl Protocol {
    /// The protocol of `incarnation`, which joined at sequence `joined`, with the last messages of the own subjects as read
    /// after subscribing (0: none). `ids` makes event ids that nobody can guess.
    pub fn new(
        slots: usize,
        incarnation: u64,
        joined: u64,
        last: (u64, u64),
        ids: Box<dyn FnMut() -> EventId + Send>,
    ) -> Self {
        Self {
            slots: slots.max(1),
            incarnation,
            ids,
            assigned: Track::new(joined, last.0),
            withdrawn: Track::new(joined, last.1),
            held: BTreeMap::new(),
            early: BTreeSet::new(),
            actions: Vec::new(),
            appending: false,
            now: 0,
            paused_until: 0,
            unknown_pause: UNKNOWN_PAUSE_MS.0,
            draining: false,
            stop: None,
            over: None,
            free: false,
            checking: false,
            check_at: 0,
            checks: 0,
            check_all: false,
        }
    }

    /// A message of an own subject came.
    pub fn heard(&mut self, own: Own, sequence: u64, via: Via, fact: Fact) {
        let track = match own {
            Own::Assigned => &mut self.assigned,
            Own::Withdrawn => &mut self.withdrawn,
        };
        if !track.meets(sequence, via) {
            return;
        }
        match fact {
            Fact::Assigned(assignment) => self.assign(assignment),
            Fact::Withdrawn {
                assignment,
                incarnation,
                force,
            } if incarnation == self.incarnation => {
                self.withdraw(assignment, sequence, force);
            }
            Fact::Withdrawn { .. } | Fact::Unreadable => {}
        }
        let met = self.assigned.last();
        self.early.retain(|assignment| *assignment > met);
    }

    fn assign(&mut self, assignment: Arc<Assignment>) {
        let ours = assignment.data.incarnation == self.incarnation && self.over.is_none();
        if !ours || self.early.remove(&assignment.sequence) || self.held.len() >= HELD_MAX {
            return;
        }
        self.held.insert(assignment.sequence, Held::new(assignment));
    }

    fn withdraw(&mut self, assignment: u64, at: u64, force: bool) {
        let Some(held) = self.held.get_mut(&assignment) else {
            if assignment > self.assigned.last() {
                self.early.insert(assignment);
            }
            return;
        };
        match &held.phase {
            Phase::Waiting => {
                self.held.remove(&assignment);
            }
            Phase::Running => {
                if force {
                    self.held.remove(&assignment);
                    self.actions.push(Do::Kill { assignment });
                }
            }
            // Without `force` it is void: `started` stands.
            Phase::Finishing(..) if !force => {}
            Phase::Starting(pending) | Phase::Finishing(_, pending) => {
                if pending.undecided() {
                    held.withdrawn = Some((at, force));
                } else {
                    self.held.remove(&assignment);
                }
            }
        }
    }

    /// The catch-up on `own` has read all that was there when it began (`complete`), or ended early.
    pub fn caught_up(&mut self, now: Millis, own: Own, complete: bool) {
        let track = match own {
            Own::Assigned => &mut self.assigned,
            Own::Withdrawn => &mut self.withdrawn,
        };
        track.caught_up(now, complete);
    }

    /// Live messages may be lost: the connection broke, or the client dropped some.
    pub fn doubt(&mut self, now: Millis) {
        self.check_at = now;
        self.check_all = true;
    }

    /// Answers [`Do::Check`] with the last sequences found on `assigned` (if asked) and `withdrawn`; `None`: it failed.
    pub fn checked(&mut self, now: Millis, found: Option<(Option<u64>, u64)>) {
        self.checking = false;
        match found {
            None => self.check_at = now + CHECK_RETRY_MS,
            Some((assigned, withdrawn)) => {
                self.assigned.announced(assigned.unwrap_or(0));
                self.withdrawn.announced(withdrawn);
                self.checks += 1;
                if !self.check_all {
                    self.check_at = now + self.check_pause();
                }
            }
        }
    }

    /// A verdict on this agent, however it was read.
    pub fn verdict(&mut self, verdict: Verdict) {
        let over = match verdict {
            Verdict::Joined {
                incarnation,
                instance,
            } if incarnation > self.incarnation => Over::Superseded {
                incarnation,
                instance,
            },
            Verdict::Failed { incarnation } if incarnation == self.incarnation => Over::Failed,
            Verdict::Removed {
                incarnation,
                reason,
            } if incarnation == self.incarnation => Over::Removed { reason },
            Verdict::Stopping { incarnation, stop } if incarnation == self.incarnation => {
                self.drain();
                self.stop = Some(stop);
                return;
            }
            Verdict::Slots { incarnation, slots } if incarnation == self.incarnation => {
                // Fewer than run: those end as they would, and nothing is started until one is free.
                self.slots = usize::try_from(slots).unwrap_or(usize::MAX).max(1);
                return;
            }
            _ => return,
        };
        self.over.get_or_insert(over);
    }

    /// The last wish of the swarm that this incarnation goes. Nothing more is started; what runs may end within its grace.
    pub fn stop(&self) -> Option<&Stop> {
        self.stop.as_ref()
    }

    /// Why this incarnation is over, once it is. Nothing may run any more.
    pub fn over(&self) -> Option<&Over> {
        self.over.as_ref()
    }

    /// The handler of `assignment` has ended.
    pub fn finished(&mut self, assignment: u64, outcome: Outcome) {
        if let Some(held) = self.held.get_mut(&assignment)
            && matches!(held.phase, Phase::Running)
        {
            held.phase = Phase::Finishing(outcome, Pending::new((self.ids)()));
        }
    }

    /// Answers [`Do::Append`], one outcome for each of its writes.
    pub fn written(&mut self, now: Millis, outcomes: Vec<(u64, Written)>) {
        self.appending = false;
        let mut unknown = false;
        for (assignment, written) in outcomes {
            let Some(pending) = self.pending_of(assignment) else {
                continue;
            };
            pending.in_flight = false;
            let doubtful = pending.doubtful;
            match written {
                Written::Stored(sequence) => self.settled(assignment, Some(sequence)),
                Written::Fenced => {
                    self.withdrawn.refused(now);
                    self.not_stored(assignment, doubtful);
                }
                Written::Unknown => {
                    pending.doubtful = true;
                    unknown = true;
                }
                Written::Busy | Written::Full => {
                    let busy = BUSY_PAUSE_MS + assignment % BUSY_PAUSE_SPREAD_MS;
                    self.pause(
                        now + if written == Written::Busy {
                            busy
                        } else {
                            REFUSED_PAUSE_MS
                        },
                    );
                    if !doubtful {
                        // Not stored for sure: what was withdrawn meanwhile goes.
                        self.settled(assignment, None);
                    }
                }
                Written::Refused(why) => {
                    self.pause(now + REFUSED_PAUSE_MS);
                    if !doubtful {
                        self.refused(assignment, &why);
                    }
                    self.not_stored(assignment, doubtful);
                }
            }
        }
        if unknown {
            self.pause(now + self.unknown_pause);
            self.unknown_pause = (self.unknown_pause * 2).min(UNKNOWN_PAUSE_MS.1);
        } else {
            self.unknown_pause = UNKNOWN_PAUSE_MS.0;
        }
    }

    /// This copy was not stored; if an earlier one may have been, the log is asked. It is a final answer: under a check that
    /// holds no more nothing can be stored later.
    fn not_stored(&mut self, assignment: u64, doubtful: bool) {
        if !doubtful {
            return self.settled(assignment, None);
        }
        let Some(held) = self.held.get(&assignment) else {
            return;
        };
        if let Some(write) = held.write() {
            self.actions.push(Do::LookUp(write));
        }
        if let Some(pending) = self.pending_of(assignment) {
            pending.in_flight = true;
        }
    }

    /// A result that the server will not take becomes a failed attempt, so that the task does not hang.
    fn refused(&mut self, assignment: u64, why: &str) {
        let id = (self.ids)();
        let Some(held) = self.held.get_mut(&assignment) else {
            return;
        };
        if let Phase::Finishing(outcome @ (Outcome::Completed(_) | Outcome::Split(_)), _) =
            &mut held.phase
        {
            *outcome = Outcome::failed(format!("the result could not be stored: {why}"), false);
        }
        if let Some(pending) = held.pending() {
            *pending = Pending::new(id); // somebody may have used the old one
        }
    }

    /// Answers [`Do::LookUp`]; `None`: the log could not be read.
    pub fn looked_up(&mut self, now: Millis, assignment: u64, found: Option<Option<u64>>) {
        let Some(pending) = self.pending_of(assignment) else {
            return;
        };
        pending.in_flight = false;
        match found {
            Some(stored) => self.settled(assignment, stored),
            None => self.pause(now + REFUSED_PAUSE_MS), // then it is sent again under the same check
        }
    }

    /// It is certain now whether the write of `assignment` is stored.
    fn settled(&mut self, assignment: u64, stored: Option<u64>) {
        let Some(held) = self.held.get_mut(&assignment) else {
            return;
        };
        let withdrawn = held.withdrawn.take();
        if let Phase::Starting(pending) | Phase::Finishing(_, pending) = &mut held.phase {
            pending.doubtful = false;
        }
        let gone = match (&held.phase, stored, withdrawn) {
            (Phase::Starting(_), Some(_), Some((_, true))) => true,
            // The withdrawal was taken before the start was: it holds.
            (Phase::Starting(_), Some(started), Some((at, false))) if at < started => true,
            (Phase::Starting(_), Some(_), _) => {
                held.phase = Phase::Running;
                self.actions.push(Do::Run(held.assignment.clone()));
                false
            }
            (Phase::Finishing(..), Some(_), _) | (_, None, Some(_)) => true,
            (_, _, None) | (Phase::Waiting | Phase::Running, ..) => false,
        };
        if gone {
            self.held.remove(&assignment);
        }
    }

    fn pending_of(&mut self, assignment: u64) -> Option<&mut Pending> {
        match &mut self.held.get_mut(&assignment)?.phase {
            Phase::Starting(pending) | Phase::Finishing(_, pending) => Some(pending),
            Phase::Waiting | Phase::Running => None,
        }
    }

    fn pause(&mut self, until: Millis) {
        self.paused_until = self.paused_until.max(until);
    }

    /// Starts nothing more; what runs may finish.
    pub fn drain(&mut self) {
        self.draining = true;
    }

    /// Whether nothing runs and nothing is being written.
    pub fn is_idle(&self) -> bool {
        self.held
            .values()
            .all(|held| matches!(held.phase, Phase::Waiting))
    }

    /// Tasks started or being finished, and how many wait here.
    pub fn load(&self) -> (Vec<TaskId>, u32) {
        let (mut tasks, mut waiting) = (Vec::new(), 0);
        for held in self.held.values() {
            match held.phase {
                Phase::Waiting | Phase::Starting(_) => waiting += 1,
                Phase::Running | Phase::Finishing(..) => tasks.push(held.assignment.task),
            }
        }
        (tasks, waiting)
    }

    /// What is to be done now, each thing told once.
    pub fn next(&mut self, now: Millis) -> Vec<Do> {
        self.now = now;
        if self.over.is_some() {
            return Vec::new();
        }
        for (own, track) in [
            (Own::Assigned, &mut self.assigned),
            (Own::Withdrawn, &mut self.withdrawn),
        ] {
            if let Some(from) = track.catch_up(now) {
                self.actions.push(Do::CatchUp { own, from });
            }
        }
        if !self.appending && now >= self.paused_until {
            let writes = self.writes();
            if !writes.is_empty() {
                self.appending = true;
                self.actions.push(Do::Append(writes));
            }
        }
        self.check(now);
        std::mem::take(&mut self.actions)
    }

    fn used(&self) -> usize {
        self.held
            .values()
            .filter(|held| matches!(held.phase, Phase::Starting(_) | Phase::Running))
            .count()
    }

    /// What can be appended: results first, so that the log shows a slot free before it is taken again.
    fn writes(&mut self) -> Vec<Write> {
        let fence = self.withdrawn.fence();
        if let (Some(_), false) = (fence, self.draining) {
            let mut free = self.slots.saturating_sub(self.used());
            for held in self.held.values_mut() {
                if free == 0 {
                    break;
                }
                if matches!(held.phase, Phase::Waiting) {
                    held.phase = Phase::Starting(Pending::new((self.ids)()));
                    free -= 1;
                }
            }
        }
        let mut writes = Vec::new();
        for finishing in [true, false] {
            for held in self.held.values_mut() {
                if matches!(held.phase, Phase::Finishing(..)) == finishing
                    && let Some(pending) = held.pending()
                    && pending.send(fence)
                {
                    writes.extend(held.write());
                }
            }
        }
        writes
    }

    fn check_pause(&self) -> Millis {
        if !self.free {
            return BUSY_CHECK_MS;
        }
        let step = usize::try_from(self.checks).unwrap_or(usize::MAX);
        IDLE_CHECKS_MS[step.min(IDLE_CHECKS_MS.len() - 1)]
    }

    fn check(&mut self, now: Millis) {
        let free = self.used() < self.slots;
        if free != self.free || self.check_at == 0 {
            self.free = free;
            self.checks = 0;
            if !self.check_all {
                self.check_at = now + self.check_pause();
            }
        }
        if self.checking || now < self.check_at {
            return;
        }
        let all = std::mem::take(&mut self.check_all);
        let verdicts = all || self.checks % VERDICTS_EVERY == VERDICTS_EVERY - 1;
        self.checking = true;
        self.actions.push(Do::Check {
            assigned: all || free,
            verdicts,
        });
    }

    /// When [`Protocol::next`] has something to do again if nothing is heard meanwhile.
    pub fn wake_at(&self) -> Millis {
        let mut at = if self.checking {
            Millis::MAX
        } else {
            self.check_at
        };
        if self.paused_until > self.now {
            at = at.min(self.paused_until);
        }
        [&self.assigned, &self.withdrawn]
            .iter()
            .filter_map(|track| track.wake_at())
            .fold(at, Millis::min)
    }
}
