//! Tasks that have ended.

use swarm_events::TaskId;

use super::{Ended, Look, Reason, TaskFacts, words::number};
use crate::{
    swarm::Life,
    task::{self, How},
};

impl Look<'_> {
    pub(super) fn ended(&self, ended: &task::Ended) -> (Option<TaskFacts>, Reason, Vec<String>) {
        let definition = ended.definition.as_deref();
        let more = definition.and_then(|task| task.more.as_deref());
        let shown = Ended {
            at: ended.at,
            sequence: ended.sequence,
            rejected: ended.how == How::Rejected,
            dead_lettered: matches!(
                ended.how,
                How::Failed {
                    dead_lettered: true
                }
            ),
            discarded: ended.discarded,
            retryable: definition.is_some() && self.swarm.life == Life::Running,
            error: more.and_then(|more| more.error.as_deref().map(str::to_owned)),
            because_of: more.and_then(|more| more.because_of),
            path: more.map(|more| more.path.to_vec()).unwrap_or_default(),
        };
        let attempts = definition.map(|task| u32::from(task.attempts));
        let sentences = sentences(ended.how, &shown, attempts);
        (
            definition.map(|task| self.facts(task)),
            Reason::Ended(Box::new(shown)),
            sentences,
        )
    }
}

fn sentences(how: How, ended: &Ended, attempts: Option<u32>) -> Vec<String> {
    let verb = match how {
        How::Completed => "completed",
        How::Failed { .. } => "failed",
        How::Cancelled => "was cancelled",
        How::Rejected => "was refused before any agent could have it",
    };
    let after = match (how, attempts) {
        (How::Failed { .. }, Some(n)) => {
            format!(" after {}", number(u64::from(n), "attempt", "attempts"))
        }
        _ => String::new(),
    };
    let why = ended
        .error
        .as_deref()
        .filter(|error| !error.is_empty())
        .map_or_else(|| ".".to_owned(), |error| format!(": {error}"));
    let mut sentences = vec![format!("It {verb} at {}{after}{why}", ended.at)];
    sentences.extend(failure_path(&ended.path, ended.because_of));
    if ended.discarded {
        sentences.push("It was a dead letter, and a person has put it away.".to_owned());
    } else if ended.dead_lettered {
        sentences.push(
            "It is a dead letter: retry it once the cause is mended, or discard it.".to_owned(),
        );
    } else if ended.retryable {
        sentences.push("A retry gives it another generation.".to_owned());
    }
    sentences
}

/// How a failure came to a task.
fn failure_path(path: &[TaskId], because_of: Option<TaskId>) -> Option<String> {
    match (path, because_of) {
        ([first, .., last], _) => Some(format!(
            "The first to fail was task {first}; through {} the failure came here, by way of task {last}.",
            number(path.len() as u64, "task", "tasks")
        )),
        ([only], _) => Some(format!(
            "Task {only} failed first, and this one depends on it."
        )),
        ([], Some(other)) => Some(format!("It depends on task {other}.")),
        ([], None) => None,
    }
}
