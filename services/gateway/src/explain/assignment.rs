//! Why an agent got a task, from the `assigned` that says so.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use swarm_distributor_core::strategy::SURPLUS_WEIGHT_MAX;
use swarm_events::{
    AgentId, Body, Recorded, Timestamp,
    configuration::Algorithm,
    task::{AffinityOutcome, Assigned, CANDIDATES_MAX, PassedOver},
};

/// An assignment, as it was decided.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Assignment {
    /// Its stream sequence: the fencing token.
    pub sequence: u64,
    /// When it was stored.
    pub assigned_at: Timestamp,
    /// The agent that got the task.
    pub agent_id: AgentId,
    /// The agent's process.
    pub incarnation: u64,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// Rises when an ended task is retried, from 1.
    pub generation: u32,
    /// 1 to 10.
    pub priority: u8,
    /// Run limit, in milliseconds.
    pub timeout_ms: u64,
    /// Since when it had waited.
    pub queued_at: Option<Timestamp>,
    /// The rule that chose.
    pub algorithm: Algorithm,
    /// The best candidates, the chosen one first, at most 8.
    pub candidates: Vec<CandidateFacts>,
    /// How many agents were passed over, by reason.
    pub passed_over: BTreeMap<PassedOver, u32>,
    /// What became of its affinity (algorithm `affinity`).
    pub affinity: Option<AffinityOutcome>,
    /// The busy agent from which it was taken over.
    pub stolen_from: Option<AgentId>,
    /// The same in plain words.
    pub sentences: Vec<String>,
}

/// An agent that was considered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct CandidateFacts {
    /// The agent.
    pub agent_id: AgentId,
    /// Its score by the algorithm; the lowest is best.
    pub score: i64,
    /// What the score says.
    pub sentence: String,
}

impl Assignment {
    /// What an `assigned` says; `None` if it is another event.
    pub fn of(recorded: &Recorded) -> Option<Self> {
        let Body::TaskAssigned(assigned) = &recorded.event.body else {
            return None;
        };
        Some(Self {
            sequence: recorded.sequence,
            assigned_at: recorded.time,
            agent_id: recorded.subject.agent()?,
            incarnation: assigned.incarnation,
            attempt: assigned.attempt,
            generation: assigned.generation,
            priority: assigned.priority,
            timeout_ms: assigned.timeout_ms,
            queued_at: assigned.queued_at,
            algorithm: assigned.algorithm,
            candidates: assigned
                .candidates
                .iter()
                .map(|candidate| CandidateFacts {
                    agent_id: candidate.agent_id,
                    score: candidate.score,
                    sentence: meaning(assigned.algorithm, candidate.score),
                })
                .collect(),
            passed_over: assigned.passed_over.clone(),
            affinity: assigned.affinity,
            stolen_from: assigned.stolen_from,
            sentences: sentences(assigned, recorded.time),
        })
    }
}

/// What a score says.
fn meaning(algorithm: Algorithm, score: i64) -> String {
    match algorithm {
        Algorithm::LeastLoaded | Algorithm::PriorityQueue | Algorithm::Affinity => share(score),
        Algorithm::RoundRobin if score <= 0 => "it had not had a turn yet".to_owned(),
        Algorithm::RoundRobin => format!("its last turn was assignment {score} of the swarm"),
        Algorithm::CapabilityMatch => {
            let (surplus, load) = (score / SURPLUS_WEIGHT_MAX, score % SURPLUS_WEIGHT_MAX);
            let surplus = match surplus {
                0 => "it has no capability beyond those needed".to_owned(),
                1 => "it has 1 capability beyond those needed".to_owned(),
                n => format!("it has {n} capabilities beyond those needed"),
            };
            format!("{surplus}, and {}", share(load))
        }
    }
}

/// Thousandths of the slots.
fn share(score: i64) -> String {
    let taken = match score % 10 {
        0 => format!("{} %", score / 10),
        tenth => format!("{}.{tenth} %", score / 10),
    };
    if score < 1_000 {
        format!("{taken} of its slots were taken")
    } else {
        format!("its slots were taken to {taken}, so that it waits there")
    }
}

fn sentences(assigned: &Assigned, at: Timestamp) -> Vec<String> {
    let mut sentences = vec![rule(assigned)];
    if let Some(from) = assigned.stolen_from {
        sentences.push(format!(
            "It had waited at agent {from}, which was busy: an idle agent took it over."
        ));
    }
    let candidates = assigned.candidates.len();
    let tie = matches!(assigned.candidates.as_slice(), [first, second, ..] if first.score == second.score);
    sentences.push(match candidates {
        0 | 1 => "No other agent could have taken it.".to_owned(),
        CANDIDATES_MAX.. => {
            format!("The {CANDIDATES_MAX} best agents that could have taken it are listed.")
        }
        n => format!("{n} agents could have taken it."),
    });
    if tie && assigned.affinity != Some(AffinityOutcome::Hit) {
        sentences.push("Among equals the one that joined first is chosen.".to_owned());
    }
    let passed: Vec<String> = assigned
        .passed_over
        .iter()
        .map(|(reason, n)| match reason {
            PassedOver::Capability => format!("{n} for a missing capability"),
            PassedOver::Full => format!("{n} because every place was taken"),
            PassedOver::Unhealthy => format!("{n} because of suspected failure"),
            PassedOver::Unresponsive => format!("{n} for letting assignments lapse"),
            PassedOver::Draining => format!("{n} because of being about to go"),
            PassedOver::Quarantined => format!("{n} because of a quarantine"),
            PassedOver::FailedFast => format!("{n} because attempts failed fast in a row"),
            PassedOver::Declined => format!("{n} for having declined this task"),
            PassedOver::Topology => format!("{n} for their place in the topology"),
            PassedOver::Turn => format!("{n} because it was not their turn in the ring"),
        })
        .collect();
    if !passed.is_empty() {
        sentences.push(format!("Passed over: {}.", passed.join(", ")));
    }
    if let Some(queued_at) = assigned.queued_at {
        sentences.push(format!(
            "It had waited {} ms since it was queued.",
            at.millis_since(queued_at)
        ));
    }
    sentences
}

/// What the algorithm looks at.
fn rule(assigned: &Assigned) -> String {
    match (assigned.algorithm, assigned.affinity) {
        (Algorithm::LeastLoaded, _) => {
            "least_loaded: a free slot before a waiting place, then the agent with the smallest share of its slots taken."
        }
        (Algorithm::RoundRobin, _) => {
            "round_robin: the agent with a place whose last turn was longest ago."
        }
        (Algorithm::CapabilityMatch, _) => {
            "capability_match: a free slot before a waiting place, then the agent with the fewest capabilities beyond those \
             needed, then the smallest share of its slots taken."
        }
        (Algorithm::PriorityQueue, _) => {
            "priority_queue: nothing waits at agents; the agent with a free slot and the smallest share of its slots taken."
        }
        (Algorithm::Affinity, Some(AffinityOutcome::Hit)) => {
            "affinity: the agent that had the last task of the same key (affinity_key, else the type)."
        }
        (Algorithm::Affinity, Some(AffinityOutcome::Miss)) => {
            "affinity: the agent that had the last task of the same key could not take it, or had more than its share of the \
             load; so the least loaded one."
        }
        (Algorithm::Affinity, _) => {
            "affinity: no agent was remembered for its key; the least loaded one, which is remembered from here on."
        }
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scores_are_told_by_what_the_algorithm_counts() {
        for (algorithm, score, words) in [
            (Algorithm::LeastLoaded, 0, "0 % of its slots were taken"),
            (
                Algorithm::LeastLoaded,
                333,
                "33.3 % of its slots were taken",
            ),
            (
                Algorithm::PriorityQueue,
                500,
                "50 % of its slots were taken",
            ),
            (
                Algorithm::Affinity,
                1_500,
                "its slots were taken to 150 %, so that it waits there",
            ),
            (Algorithm::RoundRobin, 0, "it had not had a turn yet"),
            (
                Algorithm::RoundRobin,
                42,
                "its last turn was assignment 42 of the swarm",
            ),
            (
                Algorithm::CapabilityMatch,
                0,
                "it has no capability beyond those needed, and 0 % of its slots were taken",
            ),
            (
                Algorithm::CapabilityMatch,
                2 * SURPLUS_WEIGHT_MAX + 250,
                "it has 2 capabilities beyond those needed, and 25 % of its slots were taken",
            ),
        ] {
            assert_eq!(meaning(algorithm, score), words);
        }
    }
}
