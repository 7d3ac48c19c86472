//! Adaptation: what the rules of [`AdaptationPolicy`] see of a swarm, and when one of them speaks.
//!
//! They look at the figures that the distributor and health tell: each `measured` and `sampled` is a look, and what counts is
//! what came since the look before. A rule speaks when its figure was at or above its limit at every look of `sustain_ms`; one
//! look below is a break, and it begins anew. So that a noisy load does not move a swarm to and fro:
//! - Of the rules in the order of their settings the first that speaks counts. If it speaks for the topology that there is,
//!   nothing is said, though others speak too.
//! - The rule for the topology that there is holds it until its figure has been below its limit for a whole cool-down: no rule
//!   after it is heard before.
//! - After a change or a suggestion nothing is said for the cool-down, whoever wanted the change.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, InstanceId, Timestamp,
    configuration::{AdaptationMode, AdaptationPolicy, TopologyKind},
    swarm::{Measured, Sampled},
    topology::{Topology, TopologySuggested},
};

use crate::Swarm;

/// Fewest ended attempts of which a share that failed is told: with fewer, one failure more is more than five percent.
pub const ATTEMPTS_MIN: u64 = 20;
/// How long attempts are collected for that, in milliseconds of log time: what failed minutes ago says nothing of now.
pub const ATTEMPTS_MS_MAX: u64 = 300_000;
/// Fewest waiting tasks of which a share that waits for others is told.
pub const WAITING_MIN: u64 = 10;
/// After so many milliseconds of log time without a sample an agent counts as sending nothing: health samples one whose figures
/// stand still once a minute, and the pause between samples is stretched for large swarms.
pub const SAMPLE_MS_MAX: u64 = 600_000;

/// A rule of adaptation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Rule {
    Failures,
    Pending,
    Messages,
    Agents,
}
impl Rule {
    /// In the order in which they count.
    const ALL: [Self; 4] = [Self::Failures, Self::Pending, Self::Messages, Self::Agents];

    const fn setting(self) -> &'static str {
        match self {
            Self::Failures => "failure_rate_percent",
            Self::Pending => "pending_percent",
            Self::Messages => "messages_per_second",
            Self::Agents => "agents_from",
        }
    }
    const fn limit(self, policy: &AdaptationPolicy) -> u64 {
        let limit = match self {
            Self::Failures => policy.failure_rate_percent,
            Self::Pending => policy.pending_percent,
            Self::Messages => policy.messages_per_second,
            Self::Agents => policy.agents_from,
        };
        limit as u64
    }
    const fn for_kind(self) -> TopologyKind {
        match self {
            Self::Failures => TopologyKind::Mesh,
            Self::Pending => TopologyKind::Ring,
            Self::Messages => TopologyKind::Star,
            Self::Agents => TopologyKind::Hierarchical,
        }
    }
}

/// What a rule has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seen {
    /// Since when its figure has been at or above its limit without a break, by log time.
    since: Option<Timestamp>,
    /// When it was so last.
    last: Option<Timestamp>,
    /// The figure at the last look.
    figure: u64,
}

/// Attempts that ended since they have been collected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Attempts {
    since: Timestamp,
    completed: u64,
    /// Reported, timed out or without progress.
    failed: u64,
    /// Attempts that followed one that failed or lost its agent.
    retried: u64,
}

/// The distributor's sums at the last look.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Sums {
    completed: u64,
    retries: u64,
    /// Failed attempts by task type: only those that moved are told.
    failed: BTreeMap<String, u64>,
}

/// Messages of an agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Sender {
    instance: InstanceId,
    sent: u64,
    at: Timestamp,
    /// Sent in a thousand seconds.
    rate: u64,
}

/// What the rules know of a swarm. Empty as long as nobody looks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Adaptation {
    seen: [Seen; 4],
    sums: Option<Sums>,
    attempts: Attempts,
    senders: BTreeMap<AgentId, Sender>,
    /// Log time of the last change or suggestion.
    quiet_since: Option<Timestamp>,
    /// What a rule said at the last look.
    says: Option<Said>,
}

/// A rule that speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Said {
    rule: Rule,
    figure: u64,
    since_ms: u64,
}

impl Adaptation {
    /// A change or a suggestion: nothing is said for the cool-down.
    pub(crate) const fn quiet(&mut self, now: Timestamp) {
        self.quiet_since = Some(now);
        self.says = None;
    }

    fn look(&mut self, rule: Rule, figure: Option<u64>, policy: &AdaptationPolicy, now: Timestamp) {
        let seen = &mut self.seen[rule as usize];
        let limit = rule.limit(policy);
        seen.figure = figure.unwrap_or(0);
        if limit > 0 && figure.is_some_and(|figure| figure >= limit) {
            seen.since.get_or_insert(now);
            seen.last = Some(now);
        } else {
            seen.since = None;
        }
    }

    /// The share of attempts that failed, if a look at them is due; `Err`: not yet.
    fn failures(&mut self, measured: &Measured, now: Timestamp) -> Result<Option<u64>, ()> {
        let told = Sums {
            completed: measured.completed,
            retries: measured.retries,
            failed: measured
                .types
                .iter()
                .map(|(name, outcomes)| (name.clone(), outcomes.failed))
                .collect(),
        };
        let Some(sums) = &mut self.sums else {
            self.sums = Some(told);
            self.attempts.since = now;
            return Err(());
        };
        let attempts = &mut self.attempts;
        attempts.completed += told.completed.saturating_sub(sums.completed);
        attempts.retried += told.retries.saturating_sub(sums.retries);
        (sums.completed, sums.retries) = (told.completed, told.retries);
        for (name, failed) in told.failed {
            let before = sums.failed.entry(name).or_default();
            attempts.failed += failed.saturating_sub(*before);
            *before = failed;
        }
        // One that failed shows in its type, and as a retry too if there is one; one that lost its agent only so.
        let failed = attempts.failed.max(attempts.retried);
        let all = attempts.completed.saturating_add(failed);
        let share = failed.saturating_mul(100) / all.max(1);
        if all >= ATTEMPTS_MIN {
            *attempts = Attempts {
                since: now,
                ..Attempts::default()
            };
            return Ok(Some(share));
        }
        if now.millis_since(attempts.since) >= ATTEMPTS_MS_MAX {
            *attempts = Attempts {
                since: now,
                ..Attempts::default()
            };
            return Ok(None);
        }
        Err(())
    }

    /// Messages that the agents send in a second altogether.
    fn messages(&mut self, sampled: &Sampled, now: Timestamp) -> u64 {
        for (id, sample) in &sampled.agents {
            let sender = Sender {
                instance: sample.instance,
                sent: sample.messages_sent,
                at: now,
                rate: 0,
            };
            let last = self.senders.entry(*id).or_insert(sender);
            let passed = now.millis_since(last.at);
            if passed == 0 {
                continue;
            }
            // A new process counts from zero.
            let before = if last.instance == sample.instance {
                last.sent
            } else {
                0
            };
            let sent = sample.messages_sent.saturating_sub(before);
            *last = Sender {
                rate: sent.saturating_mul(1_000_000) / passed,
                ..sender
            };
        }
        let fresh = |sender: &&Sender| now.millis_since(sender.at) < SAMPLE_MS_MAX;
        let rates = self.senders.values().filter(fresh);
        rates.map(|sender| sender.rate).sum::<u64>() / 1_000
    }

    /// What counts of what the rules say, for a swarm of this topology.
    fn judge(&self, policy: &AdaptationPolicy, kind: TopologyKind, now: Timestamp) -> Option<Said> {
        let cool = policy.cooldown_ms;
        if self
            .quiet_since
            .is_some_and(|since| now.millis_since(since) < cool)
        {
            return None;
        }
        for rule in Rule::ALL {
            if rule.limit(policy) == 0 {
                continue;
            }
            let seen = self.seen[rule as usize];
            let is_ours = rule.for_kind() == kind;
            if is_ours && seen.last.is_some_and(|last| now.millis_since(last) < cool) {
                return None;
            }
            let since_ms = seen.since.map_or(0, |since| now.millis_since(since));
            if seen.since.is_some() && since_ms >= policy.sustain_ms {
                let said = Said {
                    rule,
                    figure: seen.figure,
                    since_ms,
                };
                return (!is_ours).then_some(said);
            }
        }
        None
    }
}

impl Swarm {
    fn is_looked_at(&self) -> bool {
        self.configuration.adaptation.mode != AdaptationMode::Off && self.is_open()
    }

    /// Looks at the distributor's figures.
    pub(crate) fn look_at_tasks(&mut self, measured: &Measured, now: Timestamp) {
        if !self.is_looked_at() {
            return;
        }
        let policy = self.configuration.adaptation;
        let seen = &mut self.adaptation;
        if let Ok(share) = seen.failures(measured, now) {
            seen.look(Rule::Failures, share, &policy, now);
        }
        let waiting = measured.pending.saturating_add(measured.queued);
        let share = measured.pending.saturating_mul(100) / waiting.max(1);
        let share = (waiting >= WAITING_MIN).then_some(share);
        seen.look(Rule::Pending, share, &policy, now);
        self.look_at_agents(now);
    }

    /// Looks at health's figures. `false`: nobody looks.
    pub(crate) fn look_at_samples(&mut self, sampled: &Sampled, now: Timestamp) -> bool {
        if !self.is_looked_at() {
            return false;
        }
        let policy = self.configuration.adaptation;
        let agents = &self.agents;
        let seen = &mut self.adaptation;
        seen.senders
            .retain(|id, _| agents.get(id).is_some_and(crate::Agent::is_live));
        let rate = seen.messages(sampled, now);
        seen.look(Rule::Messages, Some(rate), &policy, now);
        self.look_at_agents(now);
        true
    }

    fn look_at_agents(&mut self, now: Timestamp) {
        let policy = self.configuration.adaptation;
        let live = u64::try_from(self.live_agents()).unwrap_or(u64::MAX);
        let kind = self.topology().kind();
        let seen = &mut self.adaptation;
        seen.look(Rule::Agents, Some(live), &policy, now);
        seen.says = seen.judge(&policy, kind, now);
    }

    /// The settings have changed: what was seen under the old ones counts no more.
    pub(crate) fn look_anew(&mut self) {
        let quiet_since = self.adaptation.quiet_since;
        self.adaptation = Adaptation {
            quiet_since,
            ..Adaptation::default()
        };
    }

    /// The suggestion that a rule demands.
    pub(crate) fn suggestion(&self) -> Option<TopologySuggested> {
        let said = self.adaptation.says.filter(|_| self.is_looked_at())?;
        if self.change.is_some() {
            return None;
        }
        let policy = &self.configuration.adaptation;
        let after = Topology::of(said.rule.for_kind());
        // Its defaults may ask for more agents than the swarm may have.
        after.check(self.configuration.max_agents).ok()?;
        Some(TopologySuggested {
            after,
            rule: said.rule.setting().to_owned(),
            limit: said.rule.limit(policy),
            figure: said.figure,
            since_ms: said.since_ms,
            applied: policy.mode == AdaptationMode::Apply,
        })
    }
}

/// A rule that spoke, in words: why a change is planned.
pub(crate) fn by_rule(suggested: &TopologySuggested) -> String {
    let TopologySuggested {
        rule,
        limit,
        figure,
        since_ms,
        ..
    } = suggested;
    format!("adaptation: {rule} is {figure}, at or above {limit} for {since_ms} ms")
}
