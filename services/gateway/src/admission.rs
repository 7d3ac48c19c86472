//! Whether a submission still fits: by the figures that were last measured, before anything of it is stored. What is
//! stored all the same is ended by the distributor, which judges by the same function.

use axum::http::StatusCode;
use swarm_distributor_core::QUEUE_RETRY_AFTER_MS;
use swarm_events::{
    Place, Problem,
    configuration::{Configuration, queue_limit_for},
};

use crate::{
    app::App,
    fold::LetIn,
    problem::{Answer, ApiProblem},
};

/// When to try again after a refusal, in seconds: the distributor's own hint, after which figures are newer. Rounded up, as
/// `Retry-After` knows whole seconds only.
pub const RETRY_AFTER_SECONDS: u64 = QUEUE_RETRY_AFTER_MS.div_ceil(1_000);

/// How many tasks may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// In the swarm: `configuration.queue_limit`.
    pub swarm: u64,
    /// From which share of it on the swarm sheds: `configuration.shed_from_percent`.
    pub shed_from_percent: u32,
    /// In all swarms of the organization, if that is limited.
    pub organization: Option<u64>,
}

/// How many tasks wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waiting {
    /// In the swarm.
    pub swarm: u64,
    /// In all swarms of the organization.
    pub organization: u64,
}

/// Why a submission does not fit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Full {
    /// The swarm's queue would be longer than its limit.
    Swarm,
    /// The swarm has room, but none for this priority.
    Shed {
        /// The priority, 1 to 10.
        priority: u8,
        /// How many tasks may wait when one of it comes.
        limit: u64,
    },
    /// More would wait in the organization's swarms than may.
    Organization {
        /// How many may.
        limit: u64,
    },
}

/// Judges tasks of these priorities, one after the other as the distributor will meet them: each must find room for its
/// priority behind those before it, and all of them together within the organization's limit.
///
/// # Errors
/// What the first of them runs into.
pub fn judge(waiting: Waiting, limits: Limits, priorities: &[u8]) -> Result<(), Full> {
    let more = priorities.len() as u64;
    if waiting.swarm.saturating_add(more) > limits.swarm {
        return Err(Full::Swarm);
    }
    for (before, priority) in (0..).zip(priorities) {
        let limit = queue_limit_for(limits.swarm, limits.shed_from_percent, *priority);
        if waiting.swarm.saturating_add(before) >= limit {
            let priority = *priority;
            return Err(Full::Shed { priority, limit });
        }
    }
    match limits.organization {
        Some(limit) if waiting.organization.saturating_add(more) > limit => {
            Err(Full::Organization { limit })
        }
        _ => Ok(()),
    }
}

/// Lets tasks of these priorities into a swarm, in the order in which they will be stored. They count from now on; whoever
/// stored them says so.
///
/// # Errors
/// 429 with `Retry-After`
pub fn admit(
    app: &App,
    place: Place,
    configuration: &Configuration,
    priorities: impl Iterator<Item = u8>,
) -> Answer<LetIn> {
    let organization = app
        .fold
        .read()
        .organization(place.org)
        .and_then(|o| o.queue_limit);
    let limits = Limits {
        swarm: configuration.queue_limit,
        shed_from_percent: configuration.shed_from_percent,
        organization,
    };
    let priorities: Vec<u8> = priorities.collect();
    let more = priorities.len() as u64;
    app.fold
        .admit(place, limits, &priorities)
        .map_err(|(full, waiting)| refusal(full, waiting, limits, more))
}

/// 429: what is full, when to try again, and the cure.
pub fn refusal(full: Full, waiting: Waiting, limits: Limits, more: u64) -> ApiProblem {
    let (problem, waiting) = match full {
        Full::Swarm => {
            let limit = limits.swarm;
            let (waiting, detail) = (waiting.swarm, would_pass(waiting.swarm, more, limit));
            let cure = if more > limit {
                "submit fewer at a time, or raise the swarm's queue_limit: it is larger than the whole queue"
            } else {
                "submit again later, add agents, or raise the swarm's queue_limit"
            };
            let problem = Problem::new("queue-full", detail).field("configuration.queue_limit");
            (problem.cure(cure), waiting)
        }
        Full::Shed { priority, limit } => {
            let detail = format!(
                "{} tasks wait already; with {} percent of queue_limit {} kept for what is more important, tasks of \
                 priority {priority} are taken while fewer than {limit} wait",
                waiting.swarm,
                100 - limits.shed_from_percent.min(100),
                limits.swarm,
            );
            let cure = "submit again later, with a higher priority, or raise configuration.shed_from_percent or queue_limit";
            let problem = Problem::new("shed", detail).field("configuration.queue_limit");
            (problem.cure(cure), waiting.swarm)
        }
        Full::Organization { limit } => {
            let waiting = waiting.organization;
            let detail = format!(
                "in all swarms of the organization {}",
                would_pass(waiting, more, limit)
            );
            let cure = if more > limit {
                "submit fewer at a time, or have an admin raise it by PUT /v1/organization: more than all swarms may hold"
            } else {
                "submit again later, add agents, or have an admin raise it by PUT /v1/organization"
            };
            let problem = Problem::new("queue-full", detail).field("organization.queue_limit");
            (problem.cure(cure), waiting)
        }
    };
    ApiProblem::new(StatusCode::TOO_MANY_REQUESTS, problem)
        .retry_after(RETRY_AFTER_SECONDS)
        .with("waiting", waiting)
}

fn would_pass(waiting: u64, more: u64, limit: u64) -> String {
    format!("{waiting} tasks wait already, and {more} more would pass the limit of {limit}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const NO_ORGANIZATION: Limits = Limits {
        swarm: 100,
        shed_from_percent: 100,
        organization: None,
    };

    fn swarm(swarm: u64) -> Waiting {
        Waiting {
            swarm,
            organization: swarm,
        }
    }

    #[test]
    fn a_queue_is_filled_to_its_limit_and_no_further() {
        for (waiting, more, outcome) in [
            (99, 1, Ok(())),
            (100, 1, Err(Full::Swarm)),
            (0, 100, Ok(())),
            (0, 101, Err(Full::Swarm)),
            (u64::MAX, 1, Err(Full::Swarm)),
        ] {
            for priority in [1, 5, 10] {
                let priorities = vec![priority; more];
                assert_eq!(
                    judge(swarm(waiting), NO_ORGANIZATION, &priorities),
                    outcome,
                    "{waiting} and {more} of priority {priority}"
                );
            }
        }
    }

    #[test]
    fn low_priorities_are_shed_first_each_at_the_functions_own_limit() {
        let limits = Limits {
            shed_from_percent: 50,
            ..NO_ORGANIZATION
        };
        for priority in 1..=10 {
            let limit = queue_limit_for(100, 50, priority);
            assert_eq!(judge(swarm(limit - 1), limits, &[priority]), Ok(()));
            let full = if limit == 100 {
                Full::Swarm
            } else {
                Full::Shed { priority, limit }
            };
            assert_eq!(judge(swarm(limit), limits, &[priority]), Err(full));
        }
        assert_eq!(queue_limit_for(100, 50, 1), 50);
        assert_eq!(queue_limit_for(100, 50, 10), 100);
    }

    #[test]
    fn each_task_counts_for_those_behind_it() {
        let limits = Limits {
            shed_from_percent: 50,
            ..NO_ORGANIZATION
        };
        let shed = Full::Shed {
            priority: 1,
            limit: 50,
        };
        assert_eq!(judge(swarm(48), limits, &[1, 1, 10]), Ok(()));
        assert_eq!(judge(swarm(48), limits, &[1, 1, 1]), Err(shed));
        assert_eq!(judge(swarm(48), limits, &[10, 10, 1]), Err(shed));
        assert_eq!(judge(swarm(48), limits, &[1, 10, 10]), Ok(()));
    }

    #[test]
    fn an_organizations_limit_counts_all_its_swarms() {
        let limits = Limits {
            organization: Some(10),
            ..NO_ORGANIZATION
        };
        let waiting = Waiting {
            swarm: 2,
            organization: 9,
        };
        assert_eq!(judge(waiting, limits, &[5]), Ok(()));
        let full = Full::Organization { limit: 10 };
        assert_eq!(judge(waiting, limits, &[5, 5]), Err(full));
        assert_eq!(judge(waiting, NO_ORGANIZATION, &[5; 90]), Ok(()));
    }

    #[test]
    fn a_refusal_names_the_setting_the_time_and_the_cure() {
        let limits = Limits {
            shed_from_percent: 50,
            organization: Some(10),
            ..NO_ORGANIZATION
        };
        let shed = Full::Shed {
            priority: 2,
            limit: 55,
        };
        for (full, code, field, waiting) in [
            (Full::Swarm, "queue-full", "configuration.queue_limit", 60),
            (shed, "shed", "configuration.queue_limit", 60),
            (
                Full::Organization { limit: 10 },
                "queue-full",
                "organization.queue_limit",
                70,
            ),
        ] {
            let counts = Waiting {
                swarm: 60,
                organization: 70,
            };
            let refused = refusal(full, counts, limits, 3);
            assert_eq!(refused.status, StatusCode::TOO_MANY_REQUESTS);
            assert_eq!(refused.retry_after, Some(1));
            assert_eq!(refused.problem.code, code);
            assert_eq!(refused.problem.field.as_deref(), Some(field));
            assert_eq!(refused.more["waiting"], waiting);
            let cure = refused.problem.cure.clone().expect("a cure");
            assert!(cure.starts_with("submit again later"), "{cure}");
        }
        let never = refusal(Full::Swarm, Waiting::default(), limits, 101);
        let cure = never.problem.cure.clone().expect("a cure");
        assert!(cure.starts_with("submit fewer at a time"), "{cure}");
    }
}
