//! A swarm's settings.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{json::Json, problem::Problem};

/// How agents are connected.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum TopologyKind {
    /// A hub and its workers.
    #[default]
    Star,
    /// Peers.
    Mesh,
    /// A tree.
    Hierarchical,
    /// A circle with a token.
    Ring,
}

/// How the distributor chooses among the agents that may take a task.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// The agent with the smallest load.
    #[default]
    LeastLoaded,
    /// Each agent in turn, in a circle, whatever its load.
    RoundRobin,
    /// The agent with the fewest capabilities beyond what the task needs; then by load.
    CapabilityMatch,
    /// The agent that had the last task of the same `affinity_key` (else of the same type), unless it has more than its
    /// share of the load; then by load.
    Affinity,
    /// Nothing waits at agents, so that the most urgent task gets the next free slot; then by load.
    PriorityQueue,
}
impl Algorithm {
    /// All of them.
    pub const ALL: [Self; 5] = [
        Self::RoundRobin,
        Self::CapabilityMatch,
        Self::LeastLoaded,
        Self::Affinity,
        Self::PriorityQueue,
    ];
}

/// Waits between attempts: `base_ms * factor_percent/100 ^ (attempt - 1)`, at most `cap_ms`, plus a jitter of up to a
/// quarter derived from the task's id.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryPolicy {
    /// Wait after the first failed attempt, in milliseconds.
    pub base_ms: u64,
    /// Growth from attempt to attempt, in percent (200: doubles).
    pub factor_percent: u32,
    /// Longest wait, in milliseconds.
    pub cap_ms: u64,
}
impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            base_ms: 500,
            factor_percent: 200,
            cap_ms: 60_000,
        }
    }
}

/// When an agent is held to be silent, stuck or unfit. 0 switches a rule off, if not said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthPolicy {
    /// Silence after which an agent is suspected and gets no new work, in milliseconds; 0: two and a half heartbeat intervals.
    pub suspect_after_ms: u64,
    /// Silence after which an agent is held to be dead, in milliseconds; 0: four heartbeat intervals.
    pub fail_after_ms: u64,
    /// A running task that shows no progress for this long is reported as stuck, in milliseconds.
    pub stuck_after_ms: u64,
    /// An attempt that fails, retryably, within this time of its start has failed fast, in milliseconds.
    pub fast_failure_ms: u64,
    /// So many of them in a row, and the agent is quarantined.
    pub fast_failures_max: u32,
    /// First quarantine for fast failures, in milliseconds; each further one is twice as long, up to thirty-two times.
    pub quarantine_ms: u64,
    /// Share of failed attempts within the window, in percent, from which on an agent is quarantined, if the other agents
    /// together fail less than half as often.
    pub error_rate_percent: u32,
    /// The sliding window of the error rates, in milliseconds.
    pub error_window_ms: u64,
    /// Fewest attempts within the window of which a rate says anything.
    pub error_attempts_min: u32,
    /// Resident memory of an agent's process tree from which on it is quarantined, in KiB.
    pub memory_kib_max: u64,
    /// CPU of an agent's process tree from which on it is quarantined, in hundredths of a percent of one core.
    pub cpu_centipercent_max: u32,
    /// An agent that has been quarantined for this long without a break is removed, in milliseconds. One that a host runs is
    /// started anew.
    pub remove_after_ms: u64,
}
impl Default for HealthPolicy {
    fn default() -> Self {
        Self {
            suspect_after_ms: 0,
            fail_after_ms: 0,
            stuck_after_ms: 60_000,
            fast_failure_ms: 1_000,
            fast_failures_max: 5,
            quarantine_ms: 5_000,
            error_rate_percent: 80,
            error_window_ms: 60_000,
            error_attempts_min: 20,
            memory_kib_max: 0,
            cpu_centipercent_max: 0,
            remove_after_ms: 300_000,
        }
    }
}

/// What becomes of a rule that says another topology would be better.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AdaptationMode {
    /// Nothing: nobody looks.
    #[default]
    Off,
    /// It is said.
    Suggest,
    /// It is said and done.
    Apply,
}

/// When another topology would be better. A rule speaks when its figure has been above its limit for `sustain_ms` without a
/// break, and then nobody speaks for `cooldown_ms`. 0 switches a rule off. Of several that speak the first counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdaptationPolicy {
    /// What becomes of it.
    pub mode: AdaptationMode,
    /// Mesh: this share of the attempts of the last looks failed or lost their agent, in percent: nobody depends on one.
    pub failure_rate_percent: u32,
    /// Ring: this share of the tasks that wait do so for the task before them, in percent: they are pipelines.
    pub pending_percent: u32,
    /// Star: agents send each other this many messages in a second altogether: a hub needs the fewest.
    pub messages_per_second: u32,
    /// Hierarchical: there are this many live agents.
    pub agents_from: u32,
    /// How long a figure must be above its limit, in milliseconds.
    pub sustain_ms: u64,
    /// How long nothing is said or done after a change or a suggestion, in milliseconds.
    pub cooldown_ms: u64,
}
impl Default for AdaptationPolicy {
    fn default() -> Self {
        Self {
            mode: AdaptationMode::Off,
            failure_rate_percent: 30,
            pending_percent: 90,
            messages_per_second: 5_000,
            agents_from: 200,
            sustain_ms: 30_000,
            cooldown_ms: 600_000,
        }
    }
}
impl AdaptationPolicy {
    fn check(&self) -> Result<(), Problem> {
        for (field, value) in [
            ("adaptation.failure_rate_percent", self.failure_rate_percent),
            ("adaptation.pending_percent", self.pending_percent),
        ] {
            between(field, value, 0, 100)?;
        }
        between(
            "adaptation.messages_per_second",
            self.messages_per_second,
            0,
            10_000_000,
        )?;
        between("adaptation.agents_from", self.agents_from, 0, AGENTS_MAX)?;
        // Figures come once a second.
        between("adaptation.sustain_ms", self.sustain_ms, 1_000, 86_400_000)?;
        between(
            "adaptation.cooldown_ms",
            self.cooldown_ms,
            self.sustain_ms,
            TIMEOUT_MS_MAX,
        )
    }
}

/// How much agents may say to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MessagePolicy {
    /// Most messages that an agent sends in a second; what is more waits at the sender.
    pub per_second_max: u32,
    /// Most messages that wait at an agent to be handled; what is more is read again from the stream when there is room.
    pub inbox_max: u32,
}
impl Default for MessagePolicy {
    fn default() -> Self {
        Self {
            per_second_max: 200,
            inbox_max: 1_000,
        }
    }
}

/// A swarm's configuration: the PRD's fields and ours. Unknown fields are refused when it is submitted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Configuration {
    /// Fewest live agents with which the swarm is `active`; below it is `degraded`.
    pub min_agents: u32,
    /// Most agents that may join.
    pub max_agents: u32,
    /// Most workers of a star topology.
    pub max_workers: u32,
    /// The scaler's rules, carried as they are.
    pub scaling_policy: Json,
    /// How often an agent reports, in milliseconds.
    pub heartbeat_interval_ms: u64,
    /// Run limit of an attempt when the task names none, in milliseconds.
    pub task_timeout_ms: u64,
    /// Attempts of a task when it names no number.
    pub max_attempts: u32,
    /// How an agent is chosen.
    pub distribution_algorithm: Algorithm,
    /// Most tasks that may wait (pending or queued) in the swarm.
    pub queue_limit: u64,
    /// Shedding: from this share of `queue_limit` on, in percent, submissions of the lowest priority are refused, at the
    /// full limit also those of the highest, in even steps between. 100: nothing is shed before the limit.
    pub shed_from_percent: u32,
    /// How long a task that names no limit may wait from when it is queued to its start, in milliseconds; 0: for ever.
    pub queue_timeout_ms: u64,
    /// How long an attempt of a task that names no limit may go without progress, in milliseconds; 0: up to its run limit.
    pub progress_timeout_ms: u64,
    /// Whether idle agents take over what waits at busy ones.
    pub stealing: bool,
    /// Slots of an agent that names none when it joins.
    pub agent_slots: u32,
    /// How many tasks may wait at an agent beyond its slots. One saves it the round trip between two tasks; more would bind
    /// tasks to agents early.
    pub agent_waiting: u32,
    /// Ageing: one step of priority weighs as much as this many milliseconds of waiting.
    pub priority_step_ms: u64,
    /// Waits between attempts.
    pub retry: RetryPolicy,
    /// How long an agent that is to go may work on what it has, in milliseconds.
    pub drain_grace_ms: u64,
    /// When an agent is held to be silent, stuck or unfit.
    pub health: HealthPolicy,
    /// When another topology would be better.
    pub adaptation: AdaptationPolicy,
    /// How much agents may say to each other.
    pub messages: MessagePolicy,
}

/// Most agents in a swarm: the largest pool that the benchmarks cover.
pub const AGENTS_MAX: u32 = 10_000;
/// Most slots of an agent: what one process can reasonably run at once.
pub const SLOTS_MAX: u32 = 1_024;
/// Most tasks that may wait at an agent beyond its slots.
pub const WAITING_MAX: u32 = 1_024;
/// Longest run limit: 30 days in milliseconds.
pub const TIMEOUT_MS_MAX: u64 = 30 * 24 * 3_600 * 1_000;
/// Most attempts of a task.
pub const ATTEMPTS_MAX: u32 = 100;
/// Largest queue limit of a swarm: what the distributor's memory bound (1.5 KB each) allows on a 24 GiB machine.
pub const QUEUE_LIMIT_MAX: u64 = 10_000_000;

impl Default for Configuration {
    fn default() -> Self {
        Self {
            min_agents: 0,
            max_agents: 1_000,
            max_workers: 1_000,
            scaling_policy: Json::object(),
            heartbeat_interval_ms: 1_000,
            task_timeout_ms: 300_000,
            max_attempts: 3,
            distribution_algorithm: Algorithm::default(),
            queue_limit: 100_000,
            shed_from_percent: 100,
            queue_timeout_ms: 0,
            progress_timeout_ms: 0,
            stealing: true,
            agent_slots: 1,
            agent_waiting: 1,
            priority_step_ms: 30_000,
            retry: RetryPolicy::default(),
            drain_grace_ms: 30_000,
            health: HealthPolicy::default(),
            adaptation: AdaptationPolicy::default(),
            messages: MessagePolicy::default(),
        }
    }
}

impl HealthPolicy {
    fn check(&self, interval_ms: u64) -> Result<(), Problem> {
        for (field, value) in [
            ("health.suspect_after_ms", self.suspect_after_ms),
            ("health.fail_after_ms", self.fail_after_ms),
        ] {
            // Sooner than two heartbeats are due, a single late one would be a silence.
            if value != 0 {
                between(field, value, interval_ms.saturating_mul(2), TIMEOUT_MS_MAX)?;
            }
        }
        let (suspect, fail) = self.silence(interval_ms);
        if fail <= suspect {
            return Err(Problem::new(
                "out-of-range",
                format!("{fail} is not above the {suspect} of suspect_after_ms"),
            )
            .field("configuration.health.fail_after_ms")
            .cure("suspicion comes first: give a larger number, or lower suspect_after_ms"));
        }
        for (field, value) in [
            ("health.stuck_after_ms", self.stuck_after_ms),
            ("health.fast_failure_ms", self.fast_failure_ms),
            ("health.remove_after_ms", self.remove_after_ms),
        ] {
            between(field, value, 0, TIMEOUT_MS_MAX)?;
        }
        between("health.fast_failures_max", self.fast_failures_max, 0, 1_000)?;
        between("health.quarantine_ms", self.quarantine_ms, 100, 3_600_000)?;
        between("health.error_rate_percent", self.error_rate_percent, 0, 100)?;
        between(
            "health.error_window_ms",
            self.error_window_ms,
            10_000,
            3_600_000,
        )?;
        between(
            "health.error_attempts_min",
            self.error_attempts_min,
            1,
            1_000_000,
        )
    }

    /// Silence after which an agent with this heartbeat interval is suspected, and after which it is held to be dead, both in
    /// milliseconds. Two misses and a half, so that one heartbeat lost and one delayed on a busy host are no suspicion; taking
    /// work away wrongly runs it twice, and four intervals at the default of a second are still far from the promised 30 s.
    pub fn silence(&self, interval_ms: u64) -> (u64, u64) {
        let or = |value: u64, tenths: u64| match value {
            0 => interval_ms.saturating_mul(tenths) / 10,
            set => set,
        };
        (or(self.suspect_after_ms, 25), or(self.fail_after_ms, 40))
    }
}

pub(crate) fn between<T: PartialOrd + std::fmt::Display>(
    field: &str,
    value: T,
    low: T,
    high: T,
) -> Result<(), Problem> {
    if value < low || value > high {
        return Err(Problem::new(
            "out-of-range",
            format!("{value} is outside {low} to {high}"),
        )
        .field(format!("configuration.{field}"))
        .cure(format!("give a number from {low} to {high}")));
    }
    Ok(())
}

impl Configuration {
    /// Checks every range.
    ///
    /// # Errors
    /// The first field that is out of its range, by name.
    pub fn check(&self) -> Result<(), Problem> {
        between("max_agents", self.max_agents, 1, AGENTS_MAX)?;
        between("min_agents", self.min_agents, 0, self.max_agents)?;
        between("max_workers", self.max_workers, 1, AGENTS_MAX)?;
        between(
            "heartbeat_interval_ms",
            self.heartbeat_interval_ms,
            100,
            60_000,
        )?;
        between("task_timeout_ms", self.task_timeout_ms, 1, TIMEOUT_MS_MAX)?;
        between("max_attempts", self.max_attempts, 1, ATTEMPTS_MAX)?;
        between("queue_limit", self.queue_limit, 1, QUEUE_LIMIT_MAX)?;
        between("shed_from_percent", self.shed_from_percent, 1, 100)?;
        between("queue_timeout_ms", self.queue_timeout_ms, 0, TIMEOUT_MS_MAX)?;
        between(
            "progress_timeout_ms",
            self.progress_timeout_ms,
            0,
            TIMEOUT_MS_MAX,
        )?;
        between("agent_slots", self.agent_slots, 1, SLOTS_MAX)?;
        between("agent_waiting", self.agent_waiting, 0, WAITING_MAX)?;
        between("priority_step_ms", self.priority_step_ms, 0, 86_400_000)?;
        between(
            "retry.factor_percent",
            self.retry.factor_percent,
            100,
            1_000,
        )?;
        between("retry.cap_ms", self.retry.cap_ms, 0, TIMEOUT_MS_MAX)?;
        between("retry.base_ms", self.retry.base_ms, 0, TIMEOUT_MS_MAX)?;
        between("drain_grace_ms", self.drain_grace_ms, 0, TIMEOUT_MS_MAX)?;
        self.health.check(self.heartbeat_interval_ms)?;
        self.adaptation.check()?;
        between(
            "messages.per_second_max",
            self.messages.per_second_max,
            1,
            100_000,
        )?;
        between("messages.inbox_max", self.messages.inbox_max, 1, 100_000)?;
        if !self.scaling_policy.is_object() {
            return Err(Problem::new("wrong-type", "must be an object")
                .field("configuration.scaling_policy"));
        }
        Ok(())
    }

    /// How many tasks may wait when one of this priority (1 to 10) is submitted.
    pub fn queue_limit_for(&self, priority: u8) -> u64 {
        queue_limit_for(self.queue_limit, self.shed_from_percent, priority)
    }

    /// Applies a JSON merge patch (RFC 7396: absent keeps, null resets to the default) and checks the outcome.
    ///
    /// # Errors
    /// An unknown field, a wrong type or a value out of range, by name.
    pub fn merged(&self, patch: &Json) -> Result<Self, Problem> {
        let shape = |e: serde_json::Error| {
            Problem::new("bad-configuration", e.to_string())
                .field("configuration")
                .cure("see the fields of Configuration in /openapi.json")
        };
        let serde_json::Value::Object(patch) = patch.to_value() else {
            return Err(Problem::new("wrong-type", "must be an object").field("configuration"));
        };
        let mut current = serde_json::to_value(self).map_err(shape)?;
        merge(&mut current, &patch);
        let merged: Self = serde_json::from_value(current).map_err(shape)?;
        merged.check()?;
        Ok(merged)
    }
}

/// The share of `queue_limit` that tasks of this priority (1 to 10) may fill: `shed_from_percent` at 1, all of it at 10, in
/// even steps between; at least 1.
pub fn queue_limit_for(queue_limit: u64, shed_from_percent: u32, priority: u8) -> u64 {
    let steps = u64::from(priority.clamp(1, 10)) - 1;
    let from = u64::from(shed_from_percent.min(100));
    // In ninths of a percent, so that nothing is rounded before the end.
    let ninths = from * 9 + (100 - from) * steps;
    let limit = u128::from(queue_limit) * u128::from(ninths) / 900;
    u64::try_from(limit).unwrap_or(u64::MAX).max(1)
}

/// RFC 7396 on objects.
pub(crate) fn merge(
    target: &mut serde_json::Value,
    patch: &serde_json::Map<String, serde_json::Value>,
) {
    if !target.is_object() {
        *target = serde_json::Value::Object(serde_json::Map::new());
    }
    let Some(object) = target.as_object_mut() else {
        return;
    };
    for (key, value) in patch {
        match value {
            serde_json::Value::Null => {
                object.remove(key);
            }
            serde_json::Value::Object(inner) => {
                merge(
                    object.entry(key.clone()).or_insert(serde_json::Value::Null),
                    inner,
                );
            }
            other => {
                object.insert(key.clone(), other.clone());
            }
        }
    }
}
