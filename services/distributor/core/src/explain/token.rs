//! Tasks that wait for their turn in a ring, and what else of the topology a waiting task goes by.

use schemars::JsonSchema;
use serde::Serialize;
use swarm_events::{AgentId, TaskId, Timestamp};

use super::{
    COUNT_MAX, Condition, Count, Look, Queued, What,
    words::{count, number},
};
use crate::{
    class::role_of,
    plan::{ready::SwarmPlan, spot::Route, turn::Turn},
    task::Task,
};

/// The token of a ring.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TokenLine {
    /// Turns so far.
    pub turns: u64,
    /// Who had the last one; absent if there was none.
    pub agent_id: Option<AgentId>,
    /// The task for which it keeps the token; absent if it has passed on.
    pub task_id: Option<TaskId>,
    /// When it got the token for that task.
    pub since: Option<Timestamp>,
    /// When it passes on at the latest, though the task still runs.
    pub until: Option<Timestamp>,
    /// Whose turn it is now for the next task; absent if it is nobody's.
    pub next: Option<AgentId>,
}

impl Asked {
    /// The agent that would be right for it, in words.
    pub(super) fn who(&self) -> String {
        let role = self.role.filter(|_| self.stands_in.is_none());
        let role = role.map(|role| format!(" that is a {}", role.as_str()));
        let within = self.within.map(|top| format!(" below agent {top}"));
        [role, within].into_iter().flatten().collect()
    }
}

impl Look<'_> {
    pub(super) fn index(&self) -> Option<&SwarmPlan> {
        self.plan.swarms.get(self.swarm.number as usize)
    }
    fn agent_id(&self, at: u32) -> Option<AgentId> {
        Some(self.swarm.agents.get(at as usize)?.id)
    }

    /// Whose turn it is, in a ring.
    pub(super) fn turn(&self) -> Option<Turn> {
        self.swarm.ring()?;
        Some(self.index()?.whose_turn(self.swarm, self.now()))
    }

    /// Queued tasks that go before one in a ring.
    pub(super) fn before_in_ring(&self, at: u32, task: &Task) -> Option<Count> {
        let Route::Circle(circle) = self.index()?.route() else {
            return None;
        };
        let count = circle.before((task.submitted, at), COUNT_MAX);
        Some(Count {
            count,
            at_least: count == COUNT_MAX,
        })
    }

    pub(super) fn token(&self) -> Option<TokenLine> {
        let ring = self.swarm.ring()?;
        let token = &self.swarm.token;
        let task = token.task.and_then(|at| self.swarm.tasks.get(at));
        let kept = task.is_some();
        Some(TokenLine {
            turns: token.turns,
            agent_id: token.agent.and_then(|at| self.agent_id(at)),
            task_id: task.map(|task| task.id),
            since: kept.then_some(token.since),
            until: kept.then(|| token.since.plus_millis(ring.token_timeout_ms)),
            next: match self.turn() {
                Some(Turn::Now { agent, .. }) => self.agent_id(agent),
                _ => None,
            },
        })
    }

    /// What a ring is waiting for.
    pub(super) fn turn_condition(&self, ahead: Count) -> Option<Condition> {
        let at = match self.turn()? {
            Turn::Later(at) => Some(at),
            Turn::Now { .. } | Turn::Nobody => None,
        };
        let turns = Count {
            count: ahead.count + 1,
            ..ahead
        };
        let when = match at {
            Some(at) => format!("at {at} at the latest"),
            None => "as soon as an agent that can take it has a free slot".to_owned(),
        };
        let sentence = match ahead.count {
            0 => format!("the token passed on: {when}"),
            _ => format!(
                "the token passed on {}, one for each task before it: the first time {when}",
                count(turns, "time", "times")
            ),
        };
        Some(Condition {
            sentence,
            what: What::Turn { at, turns },
        })
    }

    /// What a task asks of an agent's place.
    pub(super) fn asked(&self, task: &Task) -> Asked {
        let index = self.index();
        let role = role_of(self.swarm.classes.get(task.class));
        Asked {
            role,
            stands_in: role.and_then(|role| self.agent_id(index?.stands_in(role)?)),
            within: index
                .and_then(|index| index.confined_to(task.class))
                .and_then(|at| self.agent_id(at)),
        }
    }

    /// What of the topology a waiting task goes by, in words.
    pub(super) fn topology_sentences(&self, queued: &Queued) -> Vec<String> {
        let mut sentences = Vec::new();
        if let Some(role) = queued.required_role {
            let role = role.as_str();
            sentences.push(match queued.stands_in {
                Some(leader) => format!(
                    "It asks for a {role}: no live agent is one, so the leader, agent {leader}, takes it."
                ),
                None => format!("It asks for a {role}: agents with another role do not get it."),
            });
        }
        if queued.required_role.is_none() && queued.within.is_none() && queued.agents.misplaced > 0
        {
            sentences.push(
                "It asks for no role: agents whose place in the topology is not one for work (coordinators or supervisors that \
                 were made for that, workers beyond the limit, or who has no place yet) do not get it."
                    .to_owned(),
            );
        }
        sentences.extend(queued.within.map(|top| {
            format!("It is a part of what agent {top} split: it goes to an agent below that one.")
        }));
        let Some(token) = &queued.token else {
            return sentences;
        };
        let turn = number(token.turns, "turn", "turns");
        sentences.push(match (token.agent_id, token.task_id, token.since, token.until) {
            (Some(agent), Some(task), Some(since), Some(until)) => format!(
                "In the ring, agent {agent} has had the token since {since} for task {task}: it passes on when that has ended, \
                 at {until} at the latest."
            ),
            (Some(agent), ..) => format!(
                "In the ring, agent {agent} had the last of {turn}, and the token has passed on."
            ),
            _ => "In the ring, nobody has had the token yet.".to_owned(),
        });
        sentences.extend(
            token
                .next
                .map(|agent| format!("The next turn is that of agent {agent}.")),
        );
        sentences
    }
}

/// What a task asks of an agent's place in the topology.
pub(super) struct Asked {
    pub(super) role: Option<swarm_events::topology::Role>,
    pub(super) stands_in: Option<AgentId>,
    pub(super) within: Option<AgentId>,
}
