//! What a log shows of the distribution of tasks: a simulation that came by none of it would go on being green.

use swarm_events::{
    Body,
    agent::LivenessRule,
    configuration::Algorithm,
    message::AnsweredBy,
    task::{AffinityOutcome, Step, WithdrawReason},
    topology::Topology,
};

use crate::journal::Met;

/// What a failed task says that waited too long.
const WAITED_TOO_LONG: &str = "it waited longer than its queue_timeout_ms";

/// What one message shows, by name.
pub fn distributed(met: &Met) -> Vec<&'static str> {
    let mut shown = Vec::new();
    let Some(recorded) = met.recorded() else {
        return shown;
    };
    match &recorded.event.body {
        Body::SwarmUpdated(_) => shown.push("settings changed"),
        Body::SwarmTopologyChanged(changed) => shown.push(match changed.after {
            Topology::Star(_) => "changed into a star",
            Topology::Mesh(_) => "changed into a mesh",
            Topology::Hierarchical(_) => "changed into a tree",
            Topology::Ring(_) => "changed into a ring",
        }),
        Body::SwarmLeaderElected(elected) if elected.before.is_some() => {
            shown.push("leaders replaced");
        }
        Body::TaskSplit(_) => shown.push("tasks split"),
        Body::TaskHandedOver(_) => shown.push("tasks handed over"),
        Body::TaskHandedBack(_) => shown.push("tasks handed back"),
        Body::AgentAnswered(answered) => shown.push(match answered.by {
            AnsweredBy::Default => "questions ended by their default",
            _ => "questions answered",
        }),
        Body::AgentUnanswered(_) => shown.push("questions unanswered"),
        Body::TaskAssigned(a) => {
            shown.push(match a.algorithm {
                Algorithm::LeastLoaded => "by least_loaded",
                Algorithm::RoundRobin => "by round_robin",
                Algorithm::CapabilityMatch => "by capability_match",
                Algorithm::Affinity => "by affinity",
                Algorithm::PriorityQueue => "by priority_queue",
            });
            shown.extend(a.stolen_from.map(|_| "stolen and assigned"));
            shown.extend(a.turn.map(|_| "turns in a ring"));
            shown.extend((!a.path.is_empty()).then_some("handed down a tree"));
            shown.extend((a.step == Step::Reduce).then_some("parts made one"));
            shown.extend(a.affinity.map(|outcome| match outcome {
                AffinityOutcome::Hit => "affinity hit",
                AffinityOutcome::Miss => "affinity miss",
                AffinityOutcome::New => "affinity new",
            }));
        }
        Body::TaskWithdrawn(w) => match w.reason {
            WithdrawReason::QueueTimeout => shown.push("waited too long at its agent"),
            WithdrawReason::NoProgress => shown.push("no progress"),
            WithdrawReason::Topology => shown.push("withdrawn for another topology"),
            _ => {}
        },
        Body::TaskFailed(f) => {
            if f.error == WAITED_TOO_LONG {
                shown.push("waited too long");
            }
            shown.extend((f.path.len() > 1).then_some("failures by a path of two or more"));
            shown.extend((f.path.len() > 3).then_some("failures by a path of four or more"));
        }
        Body::TaskRejected(r) if ["queue-full", "shed"].contains(&&*r.problem.code) => {
            shown.push("not admitted");
        }
        Body::TaskDeclined(_) => shown.push("tasks declined"),
        Body::AgentAdded(a) if a.reason == "min_agents" => shown.push("added for the minimum"),
        Body::AgentSpawnRequested(s) => shown.push(match s.spawn {
            1 => "processes started",
            _ => "processes started again",
        }),
        Body::AgentSpawnDeclined(_) => shown.push("processes declined"),
        Body::AgentHostFailed(_) => shown.push("hosts lost"),
        Body::AgentCrashLooping(_) => shown.push("crash loops"),
        Body::AgentStopping(_) => shown.push("told to go"),
        Body::AgentUpdated(_) => shown.push("updates of agents"),
        Body::AgentQuarantined(_) => shown.push("quarantines"),
        Body::AgentReleased(_) => shown.push("releases"),
        Body::AgentFailed(f) if f.evidence.rule == LivenessRule::Exited => {
            shown.push("failures by an exit");
        }
        Body::SwarmScaled(s) => {
            shown.extend((!s.add.is_empty()).then_some("agents scaled up"));
            shown.extend((!s.remove.is_empty()).then_some("agents scaled down"));
        }
        Body::TaskGraphCancelled(_) => shown.push("graphs called off"),
        Body::TaskDiscarded(_) => shown.push("dead letters put away"),
        _ => {}
    }
    shown
}
