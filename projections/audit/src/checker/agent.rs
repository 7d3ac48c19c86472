//! What the checker knows of an agent as a member: its incarnation, what is said of it, and what it holds.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use swarm_events::{
    Timestamp,
    agent::{Cause, Joined, Profile},
    swarm::{AgentLoad, AgentSample},
};

/// Turns of an agent's life that are kept to judge a decision at its cause: a decision is stored within seconds of it.
const TURNS_KEPT_MAX: usize = 32;
/// Withdrawn assignments of an agent that are remembered: far more than one can hold.
const WITHDRAWN_KEPT_MAX: usize = 4_096;
/// Figures of an agent that are kept to judge a decision at its cause: they come once a second.
const FIGURES_KEPT_MAX: usize = 16;

/// How an agent stood.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) incarnation: u64,
    /// A healthy member.
    pub(super) living: bool,
    pub(super) member: bool,
    pub(super) failed: bool,
    pub(super) draining: bool,
    /// Since when it has been in quarantine without a break; zero if it is not.
    pub(super) quarantined_since: Timestamp,
}

/// Figures by the sequence at which they were told.
#[derive(Debug)]
pub(super) struct Told<T>(VecDeque<(u64, T)>);
impl<T> Default for Told<T> {
    fn default() -> Self {
        Self(VecDeque::new())
    }
}
impl<T> Told<T> {
    pub(super) fn note(&mut self, sequence: u64, figure: T) {
        if self.0.len() == FIGURES_KEPT_MAX {
            self.0.pop_front();
        }
        self.0.push_back((sequence, figure));
    }
    /// The last that was told up to `cause`. `Err(true)`: it is too long ago to tell.
    pub(super) fn at(&self, cause: u64) -> Result<&T, bool> {
        let found = self.0.iter().rev().find(|(at, _)| *at <= cause);
        found
            .map(|(_, figure)| figure)
            .ok_or(self.0.len() == FIGURES_KEPT_MAX)
    }
}

#[derive(Debug, Default)]
pub(super) struct Agent {
    pub(super) incarnation: u64,
    pub(super) places: usize,
    pub(super) capabilities: Box<[String]>,
    pub(super) slots: usize,
    member: bool,
    suspected: bool,
    failed: bool,
    draining: bool,
    /// By cause, until when if that was said.
    quarantine: BTreeMap<Cause, Option<Timestamp>>,
    quarantined_since: Timestamp,
    pub(super) holds: BTreeSet<u64>,
    pub(super) withdrawn: BTreeSet<u64>,
    turns: VecDeque<(u64, Seen)>,
    forgot_turns: bool,
    /// What the distributor told of it, and what was sampled of its processes.
    pub(super) loads: Told<AgentLoad>,
    pub(super) samples: Told<(u64, u32)>,
    /// Attempts of it that failed, one after another, since it joined or completed one.
    failures: Told<u32>,
    failed_in_a_row: u32,
    /// Where what it can do changed last.
    pub(super) described: u64,
    /// Where health's shell first saw that an incarnation was gone.
    gone_seen: Option<(u64, u64)>,
}

impl Agent {
    pub(super) const fn living(&self) -> bool {
        self.member && !self.suspected && !self.failed
    }
    pub(super) const fn is_member(&self) -> bool {
        self.member && !self.failed
    }
    /// A member that nothing speaks against.
    pub(super) fn free_of_doubt(&self) -> bool {
        self.living() && !self.draining && self.quarantine.is_empty()
    }
    /// Whether it was a member for someone who had met everything up to `cause`, or became one after that.
    pub(super) fn was_member_since(&self, cause: u64) -> bool {
        let is = |seen: &Seen| seen.member && !seen.failed;
        let since = self.turns.iter().any(|(at, seen)| *at > cause && is(seen));
        since
            || self
                .seen_at(cause)
                .map_or(self.forgot_turns, |seen| is(&seen))
    }
    pub(super) fn free(&self) -> bool {
        self.living()
            && !self.draining
            && self.quarantine.is_empty()
            && self.holds.len() < self.places
    }
    fn turn(&mut self, sequence: u64) {
        if self.turns.len() == TURNS_KEPT_MAX {
            self.turns.pop_front();
            self.forgot_turns = true;
        }
        let seen = Seen {
            incarnation: self.incarnation,
            living: self.living(),
            member: self.member,
            failed: self.failed,
            draining: self.draining,
            quarantined_since: self.quarantined_since,
        };
        self.turns.push_back((sequence, seen));
    }

    pub(super) fn joined(&mut self, joined: &Joined, sequence: u64) -> Result<(), &'static str> {
        if joined.incarnation <= self.incarnation {
            return Err("old-incarnation");
        }
        self.incarnation = joined.incarnation;
        self.describe(&joined.profile, sequence);
        self.failures = Told::default();
        self.note_attempt(false, sequence);
        (self.member, self.suspected, self.failed) = (true, false, false);
        self.draining = false;
        self.quarantine.clear();
        self.quarantined_since = Timestamp::ZERO;
        // What an earlier incarnation did says nothing of this one.
        (self.loads, self.samples) = (Told::default(), Told::default());
        self.turn(sequence);
        Ok(())
    }

    fn describe(&mut self, profile: &Profile, sequence: u64) {
        self.described = sequence;
        self.slots = profile.slots as usize;
        self.places = (profile.slots.saturating_add(profile.waiting)) as usize;
        let mut capabilities = profile.capabilities.clone();
        capabilities.sort_unstable();
        self.capabilities = capabilities.into();
    }

    /// What it can do changed while it runs.
    pub(super) fn updated(
        &mut self,
        incarnation: u64,
        profile: &Profile,
        sequence: u64,
    ) -> Result<(), &'static str> {
        self.judged(incarnation)?;
        self.describe(profile, sequence);
        Ok(())
    }

    fn judged(&self, incarnation: u64) -> Result<(), &'static str> {
        if incarnation != self.incarnation {
            return Err("other-incarnation");
        }
        if self.member {
            Ok(())
        } else {
            Err("not-a-member")
        }
    }
    pub(super) fn gone(&mut self, incarnation: u64, sequence: u64) -> Result<(), &'static str> {
        self.judged(incarnation)?;
        self.member = false;
        self.turn(sequence);
        Ok(())
    }
    pub(super) fn suspect(
        &mut self,
        incarnation: u64,
        suspected: bool,
        sequence: u64,
    ) -> Result<(), &'static str> {
        self.judged(incarnation)?;
        if self.failed {
            // To work again it must join anew.
            return Err("failed");
        }
        self.suspected = suspected;
        self.turn(sequence);
        Ok(())
    }
    pub(super) fn fail(&mut self, incarnation: u64, sequence: u64) -> Result<(), &'static str> {
        self.judged(incarnation)?;
        self.failed = true;
        self.turn(sequence);
        Ok(())
    }

    pub(super) fn told_to_go(&mut self, incarnation: u64, sequence: u64) {
        if self.judged(incarnation).is_ok() {
            self.draining = true;
            self.turn(sequence);
        }
    }

    pub(super) fn quarantined(
        &mut self,
        incarnation: u64,
        cause: Cause,
        until: Option<Timestamp>,
        sequence: u64,
        at: Timestamp,
    ) -> Result<(), &'static str> {
        self.judged(incarnation)?;
        if self.quarantine.is_empty() {
            self.quarantined_since = at;
        }
        self.quarantine.insert(cause, until);
        self.turn(sequence);
        Ok(())
    }
    /// Answers with until when it was in quarantine for this.
    pub(super) fn released(
        &mut self,
        incarnation: u64,
        cause: Cause,
        sequence: u64,
    ) -> Result<Option<Timestamp>, &'static str> {
        self.judged(incarnation)?;
        let until = self.quarantine.remove(&cause).ok_or("not-in-quarantine")?;
        if self.quarantine.is_empty() {
            self.quarantined_since = Timestamp::ZERO;
        }
        self.turn(sequence);
        Ok(until)
    }
    /// Causes for which it is in quarantine although their time was over at `now`.
    pub(super) fn overdue(&self, now: Timestamp) -> impl Iterator<Item = (Cause, Timestamp)> {
        let member = self.is_member();
        self.quarantine
            .iter()
            .filter_map(|(cause, until)| Some((*cause, (*until)?)))
            .filter(move |(_, until)| member && *until < now)
    }

    /// An attempt of it ended.
    pub(super) fn note_attempt(&mut self, failed: bool, sequence: u64) {
        let before = self.failed_in_a_row;
        self.failed_in_a_row = if failed { before + 1 } else { 0 };
        if self.failed_in_a_row != before || self.failures.0.is_empty() {
            self.failures.note(sequence, self.failed_in_a_row);
        }
    }
    /// Whether it surely was to get work as usual, for someone who had met everything up to `cause`: so many attempts that
    /// failed fast in a row put it on probation.
    pub(super) fn works_at(&self, cause: u64, failures_max: u32) -> bool {
        let fails = self.failures.at(cause).copied();
        let on_probation = failures_max > 0 && fails.map_or(true, |fails| fails >= failures_max);
        !on_probation
            && self.seen_at(cause).is_some_and(|seen| {
                seen.living && !seen.draining && seen.quarantined_since == Timestamp::ZERO
            })
    }

    pub(super) fn sampled(&mut self, sample: &AgentSample, sequence: u64) {
        let figures = (sample.memory_kib, sample.cpu_centipercent);
        self.samples.note(sequence, figures);
    }

    pub(super) fn seen_to_be_gone(&mut self, incarnation: u64, sequence: u64) {
        if self.gone_seen.is_none_or(|(of, _)| of != incarnation) {
            self.gone_seen = Some((incarnation, sequence));
        }
    }
    pub(super) fn gone_seen(&self, incarnation: u64) -> Option<u64> {
        self.gone_seen
            .filter(|(of, _)| *of == incarnation)
            .map(|(_, at)| at)
    }

    /// How it stood for someone who had met everything up to `cause`; `None` if that is too long ago, or it had not joined.
    pub(super) fn seen_at(&self, cause: u64) -> Option<Seen> {
        let turn = self.turns.iter().rev().find(|(at, _)| *at <= cause);
        turn.map(|(_, seen)| *seen)
    }

    /// What is wrong with giving work to `incarnation` for someone who had met everything up to `cause`.
    pub(super) fn unfit(&self, incarnation: u64, cause: u64) -> Option<String> {
        match self.turns.iter().rev().find(|(at, _)| *at <= cause) {
            None if self.forgot_turns => None,
            None => Some("had not joined".to_owned()),
            Some((_, seen)) if seen.incarnation != incarnation => {
                Some(format!("was incarnation {}", seen.incarnation))
            }
            Some((at, seen)) if !seen.living => Some(format!("was no healthy member since {at}")),
            Some(_) => None,
        }
    }

    /// Whether it was surely a healthy member, and whether it was none, for someone who had met everything up to `cause`.
    pub(super) fn living_at(&self, cause: u64) -> Option<bool> {
        self.seen_at(cause).map(|seen| seen.living)
    }

    /// Whether it may have been a member that had not failed, for someone who had met everything up to `cause`.
    pub(super) fn may_be_live_at(&self, cause: u64) -> bool {
        let seen = self.seen_at(cause);
        seen.map_or(self.forgot_turns, |seen| seen.member && !seen.failed)
    }

    pub(super) fn withdraw(&mut self, assignment: u64) {
        self.holds.remove(&assignment);
        if self.withdrawn.len() == WITHDRAWN_KEPT_MAX {
            self.withdrawn.pop_first();
        }
        self.withdrawn.insert(assignment);
    }
}
