//! The answer: what the core says, with what the log says of its assignment and its end.

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use chrono::{DateTime, Utc};
use schemars::JsonSchema;
use serde::Serialize;
use swarm_distributor_core::{
    Status,
    explain::{Ended, Explanation, Reason, TaskFacts, What},
};
use swarm_events::{AgentId, Body, GraphId, Input, Place, Recorded, TaskId, Timestamp};
use swarm_projections::queries::{self, TaskRow};

use super::assignment::Assignment;
use crate::{
    app::{App, Shared},
    command::unread,
    problem::{Answer, ApiProblem},
    reading,
    tail::input,
};

/// What an explanation rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// A fold of the log as of its end.
    Log,
    /// The read models: the task ended longer ago than the log's fold remembers.
    ReadModel,
}

/// Why a task is where it is, and what would change that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct TaskExplanation {
    /// What the distributor's core says.
    #[serde(flatten)]
    pub explanation: Explanation,
    /// What it rests on.
    pub source: Source,
    /// Why the agent that has it, or had it last, got it; null if none did, or the log does not tell.
    pub assignment: Option<Assignment>,
    /// Names of the agents that the answer speaks of.
    pub agent_names: BTreeMap<AgentId, String>,
}

/// The event stored at `sequence`.
async fn stored(app: &App, sequence: u64) -> Answer<Option<Recorded>> {
    let message = app
        .log
        .get(sequence)
        .await
        .map_err(|error| unread(&error))?;
    Ok(message.and_then(|message| match input(&message) {
        Input::Event(recorded) => Some(recorded),
        Input::Unreadable(_) => None,
    }))
}

/// Adds what the log says.
pub(super) async fn complete(
    app: &Shared,
    place: Place,
    mut explanation: Explanation,
) -> Answer<TaskExplanation> {
    let assignment = match &mut explanation.reason {
        Reason::Assigned(held) | Reason::Running(held) => Some(held.assignment),
        Reason::Ended(ended) => {
            let task = explanation.task_id;
            let told = ending(app, task, ended).await?;
            explanation.sentences.extend(told.sentence);
            told.assignment
        }
        _ => None,
    };
    let assignment = match assignment {
        Some(sequence) => assignment_at(app, explanation.task_id, sequence).await?,
        None => None,
    };
    if let (Reason::Ended(_), Some(assignment)) = (&explanation.reason, &assignment) {
        explanation.sentences.push(format!(
            "Agent {} had it last, as attempt {}.",
            assignment.agent_id, assignment.attempt
        ));
    }
    Ok(named(app, place, explanation, assignment, Source::Log))
}

async fn assignment_at(app: &App, task: TaskId, sequence: u64) -> Answer<Option<Assignment>> {
    let recorded = stored(app, sequence).await?;
    let own = recorded.filter(|recorded| recorded.event.about == task.0);
    Ok(own.as_ref().and_then(Assignment::of))
}

/// What the event that ended a task adds to what the state remembers.
#[derive(Default)]
struct Told {
    sentence: Option<String>,
    assignment: Option<u64>,
}

async fn ending(app: &App, task: TaskId, ended: &mut Ended) -> Answer<Told> {
    let Some(last) = stored(app, ended.sequence).await? else {
        return Ok(Told::default());
    };
    let mut told = Told::default();
    let mut because = |why: String| {
        // The state remembers why a task failed or was cancelled, if it can be retried.
        if ended.error.is_none() && !why.is_empty() {
            told.sentence = Some(format!("Why: {why}"));
            ended.error = Some(why);
        }
    };
    match &last.event.body {
        Body::TaskCompleted(completed) => told.assignment = Some(completed.assignment),
        Body::TaskFailed(failed) => {
            because(failed.error.clone());
            if ended.path.is_empty() {
                ended.path.clone_from(&failed.path);
            }
        }
        Body::TaskCancelled(cancelled) => because(cancelled.reason.clone()),
        Body::TaskRejected(rejected) => because(rejected.problem.to_string()),
        Body::TaskGraphRejected(rejected) => because(rejected.problem.to_string()),
        _ => {}
    }
    // What was met last before the end was decided is mostly what ended the assignment.
    if told.assignment.is_none()
        && let Some(decided) = &last.event.decided
        && let Some(cause) = stored(app, decided.cause_sequence).await?
        && cause.event.about == task.0
    {
        told.assignment = match &cause.event.body {
            Body::TaskAttemptFailed(failed) => Some(failed.assignment),
            Body::TaskWithdrawn(withdrawn) => Some(withdrawn.assignment),
            _ => None,
        };
    }
    Ok(told)
}

/// The answer with the names of the agents that it speaks of.
fn named(
    app: &App,
    place: Place,
    explanation: Explanation,
    assignment: Option<Assignment>,
    source: Source,
) -> TaskExplanation {
    let mut agents: BTreeSet<AgentId> = BTreeSet::new();
    match &explanation.reason {
        Reason::Dependencies(dependencies) => {
            agents.extend(dependencies.items.iter().filter_map(|item| item.agent_id));
        }
        Reason::Queued(queued) => {
            agents.extend(queued.items.iter().map(|line| line.agent_id));
            agents.extend(queued.stands_in);
            agents.extend(queued.within);
            let token = queued.token.iter();
            agents.extend(token.flat_map(|token| token.agent_id.into_iter().chain(token.next)));
            let nearest = queued.lacking.iter().flat_map(|lacking| &lacking.nearest);
            agents.extend(nearest.map(|agent| agent.agent_id));
            for condition in &queued.would_be_assigned_if {
                match &condition.what {
                    What::Place { agent_ids, .. } | What::Well { agent_ids, .. } => {
                        agents.extend(agent_ids);
                    }
                    What::Back { agent_id, .. }
                    | What::PlaceBy { agent_id, .. }
                    | What::Released { agent_id, .. } => {
                        agents.insert(*agent_id);
                    }
                    What::Agents { .. }
                    | What::Priority { .. }
                    | What::Again { .. }
                    | What::Turn { .. } => {}
                }
            }
        }
        Reason::Assigned(held) | Reason::Running(held) => {
            agents.insert(held.agent_id);
        }
        Reason::Staged(_)
        | Reason::Delay(_)
        | Reason::Parts(_)
        | Reason::HandedOver(_)
        | Reason::Deciding(_)
        | Reason::Ended(_) => {}
    }
    if let Some(assignment) = &assignment {
        agents.insert(assignment.agent_id);
        agents.extend(assignment.stolen_from);
        agents.extend(assignment.candidates.iter().map(|c| c.agent_id));
    }
    // By whom it was handed down, and whoever else is spoken of.
    let assigned = assignment.iter().flat_map(|told| &told.sentences);
    let sentences = explanation.sentences.iter().chain(assigned);
    agents.extend(sentences.flat_map(|sentence| spoken_of(sentence)));
    let fold = app.fold.read();
    let swarm = fold.swarm(place.org, place.swarm);
    let agent_names = agents
        .into_iter()
        .filter_map(|id| {
            let agent = swarm?.agents.get(&id)?;
            Some((id, agent.profile.agent_name.clone()))
        })
        .collect();
    TaskExplanation {
        explanation,
        source,
        assignment,
        agent_names,
    }
}

/// The agents that a sentence names: "agent", then an id.
fn spoken_of(sentence: &str) -> impl Iterator<Item = AgentId> {
    let words = || sentence.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    let pairs = words().zip(words().skip(1));
    pairs.filter_map(|(before, id)| {
        let is_agent = before.eq_ignore_ascii_case("agent");
        is_agent.then(|| id.parse::<AgentId>().ok()).flatten()
    })
}

/// The task is not in the fold: the read models may remember it.
pub(super) async fn forgotten(app: &Shared, place: Place, task: TaskId) -> Answer<TaskExplanation> {
    if reading::answering(app).is_err() {
        return Err(unknown(app, task));
    }
    let row = reading::find(app, || {
        queries::task(&app.pool, place.org, place.swarm, task)
    });
    match row.await {
        Ok(Some(row)) => {
            let explanation = from_row(app, place, &row).ok_or_else(|| unknown(app, task))?;
            Ok(named(app, place, explanation, None, Source::ReadModel))
        }
        Ok(None) => Err(unknown(app, task)),
        Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {
            Err(unknown(app, task))
        }
        Err(problem) => Err(problem),
    }
}

/// 404 for a task that nobody remembers.
pub(super) fn unknown(app: &App, task: TaskId) -> ApiProblem {
    let mut problem = ApiProblem::unknown("task", task);
    let hours = swarm_events::decider::REMEMBERED_MS / 3_600_000;
    problem.problem.cure = Some(format!(
        "check the id and the swarm; of a task that ended more than {hours} hours ago only the read models and the log itself \
         tell: GET /v1/swarms/{{id}}/tasks/{{task}} once PostgreSQL answers, or `swarm replay`"
    ));
    match app.progress.stale_since() {
        Some(since) => problem.with("stale_since", since.to_rfc3339()),
        None => problem,
    }
}

fn time(at: DateTime<Utc>) -> Timestamp {
    at.into()
}
fn count(n: i32) -> u32 {
    u32::try_from(n).unwrap_or(0)
}
fn sequence(n: i64) -> u64 {
    u64::try_from(n).unwrap_or(0)
}

/// What the read models say of an ended task; `None` of one that has not ended, which the fold would know.
fn from_row(app: &App, place: Place, row: &TaskRow) -> Option<Explanation> {
    let status = match row.status.as_str() {
        "completed" => Status::Completed,
        "failed" => Status::Failed,
        "cancelled" => Status::Cancelled,
        _ => return None,
    };
    let at = time(row.completed_at?);
    let mut sentences = vec![match (status, row.rejected, &row.error_message) {
        (_, true, _) => format!("It was refused before any agent could have it at {at}."),
        (Status::Completed, ..) => format!("It completed at {at}."),
        (Status::Cancelled, ..) => format!("It was cancelled at {at}."),
        _ => format!("It failed at {at} after {} attempts.", row.attempt_count),
    }];
    sentences.extend(row.error_message.as_ref().map(|why| format!("Why: {why}")));
    sentences.extend(
        row.assigned_agent_id
            .map(|agent| format!("Agent {agent} had it last.")),
    );
    sentences.push(
        "It ended so long ago that only the read models remember it: it can be read, and not be retried.".to_owned(),
    );
    let (seq, now) = {
        let fold = app.fold.read();
        (app.progress.known().sequence, fold.now())
    };
    Some(Explanation {
        task_id: TaskId(row.id),
        swarm_id: place.swarm,
        status,
        seq,
        at: now,
        task: Some(TaskFacts {
            task_type: row.task_type.clone(),
            priority: u8::try_from(row.priority).unwrap_or(0),
            required_capabilities: row.required_capabilities.clone(),
            generation: count(row.generation),
            attempts: count(row.attempt_count),
            max_attempts: count(row.max_attempts),
            steals: count(row.steals),
            declines: count(row.declines),
            // The read models have it with the attempts.
            decline_reason: None,
            error: row.error_message.clone(),
            created_at: time(row.created_at),
            submitted: sequence(row.submitted_seq),
            graph_id: row.graph_id.map(GraphId),
        }),
        reason: Reason::Ended(Box::new(Ended {
            at,
            sequence: sequence(row.last_seq),
            rejected: row.rejected,
            dead_lettered: row.dead_lettered,
            discarded: row.discarded,
            retryable: false,
            error: row.error_message.clone(),
            because_of: row.because_of.map(TaskId),
            path: row.failure_path.iter().copied().map(TaskId).collect(),
        })),
        sentences,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_agents_that_a_sentence_names_are_found() {
        let (a, b) = (
            "0198c6a0-0000-7000-8000-0000000000b1",
            "0198c6a0-0000-7000-8000-0000000000b2",
        );
        let task = "0198c6a0-0000-7000-8000-0000000000c1";
        let found = |sentence: String| -> Vec<String> {
            let found = spoken_of(&sentence);
            found.map(|id| id.to_string()).collect()
        };
        for (sentence, ids) in [
            (
                format!("It was handed down by agent {a} and agent {b}."),
                &[a, b][..],
            ),
            (
                format!(
                    "Agent {a} had it last; no live agent is one, so the leader, agent {b}, takes it."
                ),
                &[a, b],
            ),
            (
                format!("In the ring, agent {a} has had the token for task {task}."),
                &[a],
            ),
            (format!("The agent has task {task}."), &[]),
        ] {
            assert_eq!(found(sentence.clone()), ids, "{sentence}");
        }
    }
}
