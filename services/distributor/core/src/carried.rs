//! Where the values are that an assignment, or an end, carries and the state does not hold.

use swarm_events::{
    Body, Event, Json, TaskId,
    command::{self, HandBack},
    task::{Carried, part_id},
};
use uuid::Uuid;

/// The payload of task `about` in the event that brought it: its submission, or the splitting of the task that it is a part
/// of.
pub fn payload_of(event: Event, about: Uuid) -> Option<Json> {
    match event.body {
        Body::TaskSubmitted(submitted) => Some(submitted.payload),
        Body::TaskSplit(split) => {
            let parent = TaskId(event.about);
            (0..)
                .zip(split.parts)
                .find(|(index, _)| part_id(parent, split.assignment, *index).0 == about)
                .map(|(_, part)| part.payload)
        }
        _ => None,
    }
}

/// The result that an event carries, or where it is: of a task that was completed, here or by another swarm.
pub fn result_of(body: Body) -> Option<Carried> {
    match body {
        Body::TaskCompleted(completed) => Some(completed.result),
        Body::TaskHandedBack(back) => Some(back.result),
        Body::HandBack(HandBack {
            outcome: command::Outcome::Completed { result },
            ..
        }) => Some(result),
        _ => None,
    }
}
