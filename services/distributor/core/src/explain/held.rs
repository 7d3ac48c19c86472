//! Tasks that an agent has.

use swarm_events::{AgentId, Timestamp, task::WithdrawReason, topology::Topology};

use super::{
    Held, Look, Reason,
    words::{duration, list},
};
use crate::{
    agent::{Agent, START_LIMIT_MS},
    decide::take_away,
    evolve::words as why,
    plan::{steal, task_demand},
    task::{self, Task},
};

impl Look<'_> {
    /// Why an assignment is being taken away, if it is: by the same rule as the decision.
    fn taken_away(&self, task: &Task, agent: &Agent, held: &task::Held) -> Option<WithdrawReason> {
        let now = self.now();
        if task_demand(self.swarm, task, now).due.is_some() {
            return Some(take_away(self.swarm, agent, task, held, now).0);
        }
        // What is left is a command that has no answer yet.
        self.demanded(task).map(|_| WithdrawReason::Cancelled)
    }

    /// By which coordinators and supervisors it came to an agent, in a tree.
    fn handed_down(&self, agent: AgentId) -> Option<String> {
        if !matches!(self.swarm.shape.topology(), Topology::Hierarchical(_)) {
            return None;
        }
        let path = self.swarm.shape.path(agent);
        let names: Vec<String> = path.iter().map(|id| format!("agent {id}")).collect();
        (!names.is_empty()).then(|| format!("It was handed down by {}.", list(&names, "and")))
    }

    fn held(&self, task: &Task, held: &task::Held) -> Option<(Held, &Agent)> {
        let agent = self.swarm.agents.get(held.agent as usize)?;
        let shown = Held {
            agent_id: agent.id,
            incarnation: held.incarnation,
            assignment: held.assignment,
            since: held.at,
            since_ms: self.now().millis_since(held.at),
            slots: agent.slots,
            running: agent.running.len() as u32,
            ahead: 0,
            start_limit_at: None,
            queue_timeout_at: None,
            may_be_taken_over: false,
            timeout_at: None,
            no_progress_at: None,
            heard_at: None,
            taken_away_for: self.taken_away(task, agent, held),
        };
        Some((shown, agent))
    }

    pub(super) fn assigned(&self, task: &Task, held: &task::Held) -> (Reason, Vec<String>) {
        let Some((mut shown, agent)) = self.held(task, held) else {
            return self.deciding(task);
        };
        let before = |&&(assignment, _): &&(u64, u32)| assignment < held.assignment;
        shown.ahead = agent.waiting.iter().filter(before).count() as u32;
        shown.start_limit_at = agent
            .clock
            .filter(|&(first, _)| first == held.assignment)
            .map(|(_, since)| since.plus_millis(START_LIMIT_MS));
        shown.queue_timeout_at = task.queue_timeout_at(&self.swarm.settings);
        shown.may_be_taken_over = steal::waiting(self.swarm, task).is_some();
        let since = duration(shown.since_ms);
        let busy = format!("{} of its {} slots are taken", shown.running, shown.slots);
        let mut sentences = vec![match shown.ahead {
            0 => format!(
                "It has waited at agent {} for {since} and is the next to start there: {busy}.",
                agent.id
            ),
            n => format!(
                "It has waited at agent {} for {since}, behind {n} that came before it: {busy}.",
                agent.id
            ),
        }];
        sentences.extend(gone(&shown));
        if let Some(at) = shown.start_limit_at {
            sentences.push(format!(
                "The agent has a free slot for it: if it does not start it by {at}, another agent gets it."
            ));
        }
        sentences.extend(self.handed_down(agent.id));
        if shown.may_be_taken_over {
            let (who, since) = match self.swarm.shape.topology() {
                Topology::Star(_) => ("An agent", String::new()),
                Topology::Mesh(_) => (
                    "A neighbour of it",
                    format!(", from {} on", steal::ripe_at(self.swarm, held)),
                ),
                Topology::Hierarchical(_) => ("An agent with the same parent", String::new()),
                Topology::Ring(_) => ("Nobody", String::new()),
            };
            sentences.push(format!(
                "{who} that has a free slot, what the task needs and nothing else to take takes it over{since}."
            ));
        }
        sentences.extend(shown.queue_timeout_at.map(fails_first));
        (Reason::Assigned(Box::new(shown)), sentences)
    }

    pub(super) fn running(&self, task: &Task, held: &task::Held) -> (Reason, Vec<String>) {
        let Some((mut shown, agent)) = self.held(task, held) else {
            return self.deciding(task);
        };
        shown.timeout_at = task.run_timeout_at();
        shown.no_progress_at = task.progress_timeout_at(&self.swarm.settings);
        shown.heard_at = shown.no_progress_at.map(|_| task.heard_at(held));
        let mut sentences = vec![format!(
            "It has run at agent {} for {}; this is attempt {} of {}.",
            agent.id,
            duration(shown.since_ms),
            task.attempts,
            task.max_attempts
        )];
        sentences.extend(gone(&shown));
        if let Some(at) = shown.timeout_at {
            sentences.push(format!(
                "Its run limit ends at {at}: if it still runs then, it is taken away."
            ));
        }
        if let (Some(at), Some(heard)) = (shown.no_progress_at, shown.heard_at) {
            sentences.push(format!(
                "It was last heard of at {heard}: without progress by {at} it is taken away."
            ));
        }
        (Reason::Running(Box::new(shown)), sentences)
    }
}

fn gone(held: &Held) -> Option<String> {
    held.taken_away_for
        .map(|reason| format!("It is being taken away: {}.", why(reason)))
}

pub(super) fn fails_first(at: Timestamp) -> String {
    format!("If it has not started by {at}, it fails: its queue_timeout_ms is over then.")
}
