//! When agents that rest are given work again, and those that declined a task get it again.

use swarm_events::{Timestamp, agent::Cause};

use super::{
    Condition, Standing, What,
    agents::Seen,
    words::{list, number},
};
use crate::agent::Agent;

/// The first of these that is given work again, as far as that is known.
pub(super) fn released(resting: &[&Seen<'_>]) -> Option<Condition> {
    let over = |agent: &Agent| match agent.barred_until {
        Timestamp::ZERO => agent.quarantine.values().copied().max_by_key(|until| {
            // It is over with the last of its causes; one without an end is the last.
            (until.is_none(), *until)
        })?,
        until => Some(until),
    };
    let times = resting.iter().map(|seen| (over(seen.agent), seen));
    let (at, seen) = times.min_by_key(|(at, _)| (at.is_none(), *at))?;
    let agent_id = seen.agent.id;
    let why = match seen.standing {
        Standing::FailedFast => format!(
            "agent {agent_id}, which is barred because {} failed fast in a row, is given work again",
            number(u64::from(seen.agent.fast_failures), "attempt", "attempts")
        ),
        _ => {
            let causes: Vec<String> = seen
                .agent
                .quarantine
                .keys()
                .map(|c| cause(*c).to_owned())
                .collect();
            format!(
                "agent {agent_id}, which is in quarantine for {}, is released",
                list(&causes, "and")
            )
        }
    };
    let sentence = match at {
        Some(at) => format!("{why}: at {at}, or when health says so"),
        None => format!("{why}: when its figures are back below the limit"),
    };
    Some(Condition {
        sentence,
        what: What::Released { agent_id, at },
    })
}

/// The wait of a task that whoever is left has declined.
pub(super) fn again(at: Timestamp) -> Condition {
    Condition {
        sentence: format!(
            "its wait since it was declined were over: at {at} it is offered again to who declined it, as there is no other"
        ),
        what: What::Again { at },
    }
}

const fn cause(cause: Cause) -> &'static str {
    match cause {
        Cause::FastFailures => "fast failures",
        Cause::ErrorRate => "its error rate",
        Cause::Memory => "its memory",
        Cause::Cpu => "its CPU",
        Cause::Stuck => "a task without progress",
    }
}
