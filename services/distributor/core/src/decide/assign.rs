//! Assignments: the best-ranked task that finds an agent, to the best-scored agent that can take it.

use swarm_events::{
    AgentId, Subject,
    decider::{Decision, Hydrate},
    subject::TaskVerb,
    task::{Assigned, Candidate, Carried, DependencyType},
    topology::Topology,
};

use crate::{
    plan::{
        Mark, Plan,
        kinds::AgentKey,
        ready::{Match, Promise},
    },
    state::Distributor,
    swarm::Swarm,
    task::{How, Task},
};

impl Distributor {
    pub(super) fn assign(&self, plan: &mut Plan, number: u32, end: usize, out: &mut Vec<Decision>) {
        let Some(swarm) = self.swarm(number) else {
            return;
        };
        while out.len() < end {
            let found = plan
                .swarms
                .get_mut(number as usize)
                .and_then(|p| p.next_match(swarm, self.head.now));
            let Some(found) = found else {
                break;
            };
            let promise = Promise {
                task: found.task,
                agent: found.agent,
                stolen: swarm.tasks.get(found.task).is_some_and(Task::stolen),
                affinity: found.affinity,
            };
            let (task, agent) = (found.task, found.agent);
            let Some(decision) = assignment(swarm, found) else {
                break;
            };
            out.push(decision);
            if let Some(plan) = plan.swarms.get_mut(number as usize) {
                plan.promise(&promise, swarm.turns);
            }
            plan.depart(self, Mark::Task(number, task), 1);
            plan.refresh_agent(self, number, agent);
        }
        let later = plan.swarms.get(number as usize).and_then(|p| p.next_look());
        plan.set_turn_timer(number, later);
        plan.refresh_assignable(number);
    }
}

/// By which coordinators and supervisors a task came to an agent, from the top.
fn path(swarm: &Swarm, agent: AgentId) -> Vec<AgentId> {
    match swarm.shape.topology() {
        Topology::Hierarchical(_) => swarm.shape.path(agent),
        _ => Vec::new(),
    }
}

fn assignment(swarm: &Swarm, found: Match) -> Option<Decision> {
    let task = swarm.tasks.get(found.task)?;
    let agent = swarm.agents.get(found.agent as usize)?;
    let candidate = |&((_, score, _), at): &(AgentKey, u32)| {
        Some(Candidate {
            agent_id: swarm.agents.get(at as usize)?.id,
            score,
        })
    };
    let body = Assigned {
        task_type: swarm.types.get(task.task_type).to_owned(),
        payload: match &task.payload {
            Some(payload) => Carried::Inline(payload.clone()),
            None => Carried::AtSequence(task.submitted),
        },
        inputs: None,
        attempt: u32::from(task.attempts) + 1,
        generation: task.generation,
        incarnation: agent.incarnation,
        priority: task.priority,
        timeout_ms: u64::from(task.timeout_ms),
        algorithm: swarm.settings.algorithm,
        candidates: found.candidates.iter().filter_map(candidate).collect(),
        passed_over: found.passed_over,
        affinity: found.affinity.map(|(_, outcome)| outcome),
        stolen_from: stolen_from(swarm, task).filter(|_| found.taken_over),
        queued_at: Some(task.queued_at),
        step: task.step(),
        path: path(swarm, agent.id),
        turn: found.turn,
    };
    let subject = Subject::Task(swarm.place, TaskVerb::Assigned, Some(agent.id));
    let mut decision = Decision::new(subject, task.id.0, body)
        .correlated(Some(task.correlation()))
        .caused_by(task.event);
    decision.hydrate = hydrate(swarm, task);
    Some(decision)
}

fn stolen_from(swarm: &Swarm, task: &Task) -> Option<AgentId> {
    let from = task.more.as_ref()?.stolen_from?;
    Some(swarm.agents.get(from as usize)?.id)
}

/// What the shell must look up: a payload that the state does not hold, and results of data dependencies.
fn hydrate(swarm: &Swarm, task: &Task) -> Option<Hydrate> {
    let payload_from = task.payload.is_none().then_some(task.submitted);
    if let Some(parts) = task.parts() {
        return Some(Hydrate {
            payload_from,
            inputs_from: parts.results().collect(),
        });
    }
    let inputs_from: Vec<(String, u64)> = task
        .edges()
        .iter()
        .filter(|edge| edge.kind == DependencyType::Data)
        .filter_map(|edge| {
            let ended = swarm
                .ended
                .get(&edge.task)
                .filter(|e| e.how == How::Completed)?;
            let alias = edge
                .alias
                .as_deref()
                .map_or_else(|| edge.task.to_string(), str::to_owned);
            Some((alias, ended.sequence))
        })
        .collect();
    (payload_from.is_some() || !inputs_from.is_empty()).then_some(Hydrate {
        payload_from,
        inputs_from,
    })
}
