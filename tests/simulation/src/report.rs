//! What a run covered, and how it failed.

use std::{collections::BTreeMap, fmt, time::Duration};

use swarm_audit::Violation;

/// Every fault that is injected, by the name under which it is counted. Beside them each message may be delayed, lost, stored
/// with its acknowledgement lost, stored late, or refused because of a check in flight.
pub const FAULTS: [&str; 26] = [
    "agent killed",
    "agent paused",
    "closed connection told",
    "decision repeated",
    "ghosts stored",
    "host killed",
    "host paused",
    "host stopped",
    "log full",
    "message repeated",
    "planned stop",
    "planned stop done",
    "presence expired",
    "presence lost",
    "process added",
    "process cut off",
    "process killed",
    "process of an agent killed",
    "process paused",
    "projector killed",
    "projector paused",
    "restart under the same name",
    "snapshot damaged",
    "snapshot lost",
    "version after",
    "version before",
];
/// What else a run must come by.
pub const COVERED: [&str; 52] = [
    "added for the minimum",
    "affinity hit",
    "affinity miss",
    "affinity new",
    "agents scaled down",
    "agents scaled up",
    "batches projected",
    "by affinity",
    "by capability_match",
    "by least_loaded",
    "by priority_queue",
    "by round_robin",
    "changed into a mesh",
    "changed into a ring",
    "changed into a star",
    "changed into a tree",
    "crash loops",
    "dead letters put away",
    "failures by a path of two or more",
    "graphs called off",
    "failures by an exit",
    "handed down a tree",
    "hosts lost",
    "joins",
    "leaders replaced",
    "no progress",
    "not admitted",
    "partitions from a snapshot",
    "parts made one",
    "processes declined",
    "processes started",
    "processes started again",
    "quarantines",
    "questions answered",
    "questions ended by their default",
    "questions unanswered",
    "releases",
    "settings changed",
    "snapshots",
    "states compared",
    "steals",
    "steals that came too late",
    "stolen and assigned",
    "tasks declined",
    "tasks handed back",
    "tasks handed over",
    "tasks split",
    "told to go",
    "turns in a ring",
    "updates of agents",
    "waited too long",
    "withdrawn for another topology",
];

/// How long and how hard a run is.
#[derive(Clone, Debug)]
pub struct Options {
    /// Steps with faults.
    pub steps: u64,
    /// Steps of healing after which what is open counts as stuck.
    pub healing_max: u64,
    /// Steps of healing at least, so that what should not happen has time to happen.
    pub healing_min: u64,
    /// Agents.
    pub agents: u64,
}
impl Default for Options {
    fn default() -> Self {
        Self {
            steps: 3_000,
            healing_max: 60_000,
            healing_min: 2_000,
            agents: 5,
        }
    }
}

/// What a run covered. All of it is counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// Steps taken, healing included.
    pub steps: u64,
    /// Virtual time in microseconds.
    pub micros: u64,
    /// Messages in the log.
    pub messages: u64,
    /// Tasks accepted.
    pub accepted: u64,
    /// Valid ends of tasks.
    pub ended: u64,
    /// Claims met.
    pub claims: u64,
    /// Faults injected, by name.
    pub faults: BTreeMap<&'static str, u64>,
    /// What else happened, by name.
    pub covered: BTreeMap<&'static str, u64>,
    /// Messages by what stands behind the place in their subject.
    pub kinds: BTreeMap<String, u64>,
    /// Hash of every byte of the log: the same seed gives the same run.
    pub fingerprint: u64,
}

impl Report {
    /// Adds another run to a sum.
    pub fn add(&mut self, other: &Self) {
        self.steps += other.steps;
        self.micros += other.micros;
        self.messages += other.messages;
        self.accepted += other.accepted;
        self.ended += other.ended;
        self.claims += other.claims;
        for (name, count) in &other.faults {
            *self.faults.entry(name).or_default() += count;
        }
        for (name, count) in &other.covered {
            *self.covered.entry(name).or_default() += count;
        }
        for (kind, count) in &other.kinds {
            *self.kinds.entry(kind.clone()).or_default() += count;
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} steps, {:.1} s of virtual time, {} messages, {} tasks, {} claims\n  faults: {}\n  covered: {}\n  messages: {}",
            self.steps,
            Duration::from_micros(self.micros).as_secs_f32(),
            self.messages,
            self.accepted,
            self.claims,
            listed(&self.faults),
            listed(&self.covered),
            listed(&self.kinds),
        )
    }
}

fn listed<K: fmt::Display>(counts: &BTreeMap<K, u64>) -> String {
    let parts: Vec<String> = counts
        .iter()
        .map(|(name, n)| format!("{name} {n}"))
        .collect();
    parts.join(", ")
}

/// A broken promise, and the run so far.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Which.
    pub violation: Violation,
    /// The run.
    pub report: Report,
}
impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seed = self.report.seed;
        write!(
            f,
            "seed {seed} failed: {}\n  again: ./dev sim --seed {seed}\n  {}",
            self.violation, self.report
        )
    }
}
