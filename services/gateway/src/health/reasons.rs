//! Why a swarm's status is what it is, in words.

use swarm_coordinator_core::{Agent, Lifecycle, Swarm, SwarmStatus};

use crate::agents;

/// Agents that are spoken of one by one: who reads more than these reads the list of agents.
const SPOKEN_OF_MAX: usize = 20;

/// The reasons; none for a swarm that is active.
pub(super) fn of(swarm: &Swarm) -> Vec<String> {
    let (healthy, needed) = (swarm.healthy_agents(), swarm.agents_needed());
    let mut reasons = Vec::new();
    match swarm.status() {
        SwarmStatus::Active => {}
        SwarmStatus::Inactive => reasons.push(match swarm.deleted_at {
            Some(at) => format!("it was terminated at {at}"),
            None => "no agent has been added or has joined, and none is needed".to_owned(),
        }),
        SwarmStatus::Stopping => reasons.push(match &swarm.stopping {
            Some(stopping) => format!("it is being terminated since {}", stopping.since),
            None => "it is being terminated".to_owned(),
        }),
        SwarmStatus::Starting => {
            reasons.push(few(healthy, needed));
            speak(swarm, &mut reasons, |agent| {
                !matches!(agent.lifecycle(), Lifecycle::Ready)
            });
        }
        SwarmStatus::Degraded => {
            if healthy < needed {
                reasons.push(few(healthy, needed));
            }
            speak(swarm, &mut reasons, |agent| {
                let lacks = healthy < needed && agent.lifecycle() != Lifecycle::Ready;
                lacks || agent.lifecycle() == Lifecycle::Unhealthy
            });
        }
    }
    reasons
}

fn few(healthy: usize, needed: usize) -> String {
    let agents = if needed == 1 { "agent" } else { "agents" };
    format!("{healthy} of the {needed} {agents} needed are healthy")
}

/// Speaks of the agents of which `worth` says so, each with its own reason.
fn speak(swarm: &Swarm, reasons: &mut Vec<String>, worth: impl Fn(&Agent) -> bool) {
    let mut more = 0;
    let troubled = agents::present(swarm).filter(|(_, agent)| worth(agent));
    for (at, (_, agent)) in troubled.enumerate() {
        if at >= SPOKEN_OF_MAX {
            more += 1;
        } else if let Some(reason) = agent.status_reason() {
            reasons.push(format!("{}: {reason}", agent.profile.agent_name));
        }
    }
    if more > 0 {
        reasons.push(format!("and {more} more: see the agents"));
    }
}
