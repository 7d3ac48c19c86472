//! One partition's deciding rules, without IO. Time is monotonic and passed in.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    time::Duration,
};

use swarm_events::{
    Body, Event, EventId, Input, Partition, Problem, Recorded, Subject, Timestamp,
    control::Stuck,
    decider::{Decider, Decision, Verdict},
    envelope::{Decided, Source},
    ids::InstanceId,
    planted::{self, Bug},
    subject::ControlVerb,
};
use uuid::Uuid;

/// Most decisions between two inputs: bounds how long one input can hold up the others (a few milliseconds of work).
pub const DECISIONS_PER_TURN_MAX: usize = 256;
/// Most decisions of a partition that are appended and not met yet. Enough to fill the pipeline at full speed.
pub const IN_FLIGHT_MAX: usize = 4_096;
/// An owner claims again when its claim is this many events back: a check against an old message reads its block.
pub const CLAIM_AGE_MAX: u64 = 50_000;
/// A claim of which nothing is heard is sent again after this long; it is idempotent by its fence.
pub const CLAIM_RETRY: Duration = Duration::from_millis(500);
/// Shortest wait before the next wake-up when the last one came too early for what it was meant for.
pub const WAKE_MIN: Duration = Duration::from_millis(10);
/// A wake-up of which nothing is heard counts as lost after this long.
const WAKE_LOST: Duration = Duration::from_secs(5);
/// Longest wait before a partition that panicked again and again is tried once more.
const PANIC_WAIT_MAX: Duration = Duration::from_secs(30);
/// After this many panics at the same input, the input is rejected with the next claim.
const PANICS_MAX: u32 = 2;

/// Where a partition stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// Folds only.
    Standby,
    /// Wants to own: a claim is to be sent, or was sent and is not met.
    Claiming,
    /// Decides under this epoch.
    Owner {
        /// Sequence of its claim.
        epoch: u64,
    },
}

/// What folding an input led to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Met {
    /// Nothing about ownership.
    Nothing,
    /// The own claim: this replica owns the partition.
    Owned,
    /// Another replica's claim: this one owns it no more.
    Lost,
}

/// What must be appended besides decisions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Need {
    /// A claim, fenced by the last one met.
    Claim {
        /// Sequence of the last claim met, 0 if none.
        expected: u64,
        /// Why.
        reason: &'static str,
        /// Inputs to be rejected.
        rejects: Vec<Stuck>,
    },
    /// An empty `woken`, fenced by the epoch.
    Wake {
        /// The epoch.
        epoch: u64,
    },
}

/// One partition of one service.
pub struct Machine<D: Decider> {
    state: D,
    plan: Option<D::Plan>,
    instance: InstanceId,
    mode: Mode,
    reason: &'static str,
    claim_due: Option<Duration>,
    ordinal: u64,
    /// Decisions that are appended and not met, under `deciding`.
    in_flight: usize,
    /// The epoch of the own claim that was met last.
    deciding: u64,
    /// Monotonic time at which the last input was met.
    met_at: Duration,
    wake_sent: Option<Duration>,
    wake_not_before: Duration,
    /// Sequence at which `decide` panicked first, and how often since without a turn that went well.
    panics: Option<(u64, u32)>,
    rejects: Vec<Stuck>,
    last_input: Option<Uuid>,
}

impl<D: Decider> Machine<D> {
    /// A standby with the empty state.
    pub fn new(partition: Partition, instance: InstanceId) -> Self {
        Self::from_state(D::new(partition), instance)
    }

    /// A standby that goes on from `state`.
    pub fn from_state(state: D, instance: InstanceId) -> Self {
        Self {
            state,
            plan: None,
            instance,
            mode: Mode::Standby,
            reason: "start",
            claim_due: None,
            ordinal: 0,
            in_flight: 0,
            deciding: 0,
            met_at: Duration::ZERO,
            wake_sent: None,
            wake_not_before: Duration::ZERO,
            panics: None,
            rejects: Vec::new(),
            last_input: None,
        }
    }

    /// The folded state.
    pub const fn state(&self) -> &D {
        &self.state
    }
    /// Where it stands.
    pub const fn mode(&self) -> Mode {
        self.mode
    }
    /// The partition.
    pub fn partition(&self) -> Partition {
        self.state.head().partition
    }
    /// Whether deciding failed here so often, at one input, that another replica should try.
    pub fn is_stuck(&self) -> bool {
        self.panics.is_some_and(|(_, count)| count > PANICS_MAX)
    }
    /// Id of the input that was met last: what a decision names as its cause if it names nothing else.
    pub const fn last_input(&self) -> Option<Uuid> {
        self.last_input
    }

    /// Wants the partition: a claim is due at once.
    pub fn claim(&mut self, now: Duration, reason: &'static str) {
        self.mode = Mode::Claiming;
        if !planted::is(Bug::PlanKeptAtClaim) {
            self.plan = None;
        }
        self.reason = reason;
        self.claim_due = Some(now);
        self.in_flight = 0;
        self.wake_sent = None;
    }

    /// Wants the partition again before its claim grows old. Nothing is in doubt: what is under way is stored before the new
    /// claim or refused, so if all of it is met by then, the plan still holds.
    fn refresh(&mut self, now: Duration) {
        let (plan, in_flight) = (self.plan.take(), self.in_flight);
        self.claim(now, "refresh");
        (self.plan, self.in_flight) = (plan, in_flight);
    }

    /// Wants it no more (a clean stop or another's turn).
    pub fn stand_by(&mut self) {
        self.mode = Mode::Standby;
        self.plan = None;
        self.claim_due = None;
        self.wake_sent = None;
    }

    /// Folds an input.
    pub fn fold(&mut self, input: &Input, now: Duration) -> (Verdict, Met) {
        let before = self.state.head().epoch(D::SERVICE).ordinal;
        let verdict = self.state.evolve(input, self.plan.as_mut());
        self.met_at = now;
        self.last_input = match input {
            Input::Event(recorded) => Some(recorded.event.id.0),
            Input::Unreadable(unreadable) => unreadable.id.map(|id| id.0),
        };
        let Input::Event(recorded) = input else {
            return (verdict, Met::Nothing);
        };
        match (&recorded.subject, &recorded.event.body) {
            (
                Subject::Control(service, partition, ControlVerb::Claimed),
                Body::Claimed(claimed),
            ) if *service == D::SERVICE && *partition == self.partition() => {
                (verdict, self.met_claim(claimed.instance, recorded.sequence))
            }
            (Subject::Control(service, partition, ControlVerb::Woken), _)
                if *service == D::SERVICE && *partition == self.partition() =>
            {
                self.wake_sent = None;
                self.wake_not_before = now + WAKE_MIN;
                (verdict, Met::Nothing)
            }
            _ => {
                // Other services' decisions of this partition come by as well: their epochs are other sequences.
                if recorded
                    .event
                    .decided
                    .is_some_and(|decided| decided.epoch == self.deciding)
                {
                    // One that is met again was counted the first time.
                    if self.state.head().epoch(D::SERVICE).ordinal > before {
                        self.in_flight = self.in_flight.saturating_sub(1);
                    }
                    if recorded.event.source != Source::Service(D::SERVICE, self.instance) {
                        // Somebody writes under this epoch. Its ordinals may lie ahead and make the own decisions void.
                        self.doubt(self.deciding, now);
                    }
                }
                (verdict, Met::Nothing)
            }
        }
    }

    fn met_claim(&mut self, by: InstanceId, sequence: u64) -> Met {
        self.wake_sent = None;
        let under_way = std::mem::take(&mut self.in_flight);
        let mine = by == self.instance || planted::is(Bug::DecidesUnderAnothersClaim);
        if mine && self.mode != Mode::Standby {
            // The barrier: nothing of an older epoch can be stored behind it, so the log up to here is the whole truth.
            self.mode = Mode::Owner { epoch: sequence };
            self.deciding = sequence;
            self.ordinal = 0;
            self.claim_due = None;
            self.rejects.clear();
            if under_way > 0 || self.plan.is_none() {
                self.plan = Some(match self.plan.take() {
                    Some(kept) if planted::is(Bug::PlanKeptAtClaim) => kept,
                    _ if planted::is(Bug::RepairSkipped) => D::new(self.partition()).plan(),
                    _ => self.state.plan(),
                });
            }
            Met::Owned
        } else {
            let lost = self.mode != Mode::Standby;
            self.stand_by();
            if lost { Met::Lost } else { Met::Nothing }
        }
    }

    /// Decides, if it owns the partition: at most [`DECISIONS_PER_TURN_MAX`] answers, each with what makes it a decision.
    /// A full turn means that there may be more.
    pub fn decide(&mut self, now: Duration) -> Vec<(Decision, Decided)> {
        let (Mode::Owner { epoch }, Some(plan)) = (self.mode, self.plan.as_mut()) else {
            return Vec::new();
        };
        let room = IN_FLIGHT_MAX
            .saturating_sub(self.in_flight)
            .min(DECISIONS_PER_TURN_MAX);
        if room == 0 {
            return Vec::new();
        }
        let state = &self.state;
        let decided = catch_unwind(AssertUnwindSafe(|| {
            let mut out = Vec::new();
            state.decide(plan, room, &mut out);
            out
        }));
        let Ok(decisions) = decided else {
            self.panicked(now);
            return Vec::new();
        };
        self.panics = None;
        let cause_sequence = self.state.head().sequence;
        self.in_flight += decisions.len();
        let decided: Vec<_> = decisions
            .into_iter()
            .map(|decision| {
                self.ordinal += 1;
                let decided = Decided {
                    cause_sequence,
                    epoch,
                    ordinal: self.ordinal,
                    decider_version: D::VERSION,
                };
                (decision, decided)
            })
            .collect();
        if planted::is(Bug::AppliedAtCause) {
            self.apply_at_cause(&decided);
        }
        decided
    }

    /// What [`Bug::AppliedAtCause`] does.
    fn apply_at_cause(&mut self, decisions: &[(Decision, Decided)]) {
        for (decision, decided) in decisions {
            let id = EventId::of_decision(D::SERVICE.as_str(), decided.epoch, decided.ordinal);
            let (source, now) = (
                Source::Service(D::SERVICE, self.instance),
                self.state.head().now,
            );
            let body = decision.body.clone();
            let mut event = Event::new(id, source, now, &decision.subject, decision.about, body);
            event.causation = decision.causation.or(self.last_input);
            event.decided = Some(*decided);
            let input = Input::Event(Recorded {
                sequence: decided.cause_sequence,
                time: now,
                subject: decision.subject,
                content: 0,
                event,
            });
            self.state.evolve(&input, self.plan.as_mut());
        }
    }

    /// A panic in `decide` leaves the plan in doubt: it is made anew under a new claim. If that does not help, the input at
    /// which it began is set aside with the claim after it. Each try waits longer, so that a partition that stays stuck
    /// costs the others nothing.
    fn panicked(&mut self, now: Duration) {
        let (sequence, before) = self.panics.unwrap_or((self.state.head().sequence, 0));
        let count = before + 1;
        self.panics = Some((sequence, count));
        if count == PANICS_MAX {
            let problem = Problem::new(
                "stuck",
                "deciding on this input failed twice; it was set aside",
            );
            self.rejects.push(Stuck { sequence, problem });
        }
        self.claim(now, "doubt");
        self.claim_due = Some(now + (CLAIM_RETRY * before).min(PANIC_WAIT_MAX));
    }

    /// An append under `epoch` failed or its outcome is unknown: settled by claiming again.
    pub fn doubt(&mut self, epoch: u64, now: Duration) {
        if self.mode == (Mode::Owner { epoch }) {
            self.claim(now, "doubt");
        }
    }

    /// The server refused a write under `epoch` because there is a newer claim: it is waited for. Should none be met
    /// (the log was restored, say), this replica claims again.
    pub fn fenced(&mut self, epoch: u64, now: Duration) {
        if self.mode == (Mode::Owner { epoch }) {
            self.claim(now, "doubt");
            self.claim_due = Some(now + CLAIM_RETRY);
        }
    }

    /// An input that cannot be answered because the answer cannot be stored: set aside with the next claim.
    pub fn set_aside(&mut self, sequence: u64, problem: Problem, now: Duration) {
        self.rejects.push(Stuck { sequence, problem });
        self.claim(now, "doubt");
    }

    /// What must be appended now besides decisions.
    pub fn poll(&mut self, now: Duration) -> Option<Need> {
        match self.mode {
            Mode::Standby => None,
            Mode::Claiming => {
                if self.claim_due.is_none_or(|due| now < due) {
                    return None;
                }
                self.claim_due = Some(now + CLAIM_RETRY);
                let expected = self.state.head().epoch(D::SERVICE).epoch;
                Some(Need::Claim {
                    expected,
                    reason: self.reason,
                    rejects: self.rejects.clone(),
                })
            }
            Mode::Owner { epoch } => {
                if self.claim_is_old(epoch) {
                    self.refresh(now);
                    return self.poll(now);
                }
                let due = self.wake_due()?;
                if now < due {
                    return None;
                }
                self.wake_sent = Some(now);
                Some(Need::Wake { epoch })
            }
        }
    }

    /// Monotonic time at which [`Machine::poll`] wants to be called.
    pub fn next_poll(&self) -> Option<Duration> {
        match self.mode {
            Mode::Standby => None,
            Mode::Claiming => self.claim_due,
            Mode::Owner { epoch } if self.claim_is_old(epoch) => Some(Duration::ZERO),
            Mode::Owner { .. } => self.wake_due(),
        }
    }

    fn claim_is_old(&self, epoch: u64) -> bool {
        self.state.head().sequence.saturating_sub(epoch) > CLAIM_AGE_MAX
    }

    fn wake_due(&self) -> Option<Duration> {
        if let Some(sent) = self.wake_sent {
            return Some(sent + WAKE_LOST);
        }
        let deadline = self.state.next_deadline(self.plan.as_ref()?)?;
        let left = micros_between(self.state.head().now, deadline);
        Some((self.met_at + left).max(self.wake_not_before))
    }
}

fn micros_between(now: Timestamp, deadline: Timestamp) -> Duration {
    let micros = deadline.as_micros().saturating_sub(now.as_micros());
    Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
