//! What a task's work needs of the world around it: the log of a swarm, or a test's.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use swarm_events::{Timestamp, ids::EventId, subject::TaskVerb, task};
use swarm_log::{Log, StoredMessage};
use uuid::Uuid;

use crate::{
    ask::Hints,
    blackboard::OnBus,
    handler::{Report, Voice},
    link::Link,
    messages::{Bus, Trace},
    protocol::Assignment,
    wire::{Identity, wall_clock},
};

/// The world around a task's work. Errors are words: it is tried again.
#[async_trait]
pub(crate) trait Ground: Send + Sync + 'static {
    /// A large value by its name; `None` if there is none.
    async fn object(&self, name: &str) -> Result<Option<Bytes>, String>;
    /// Stores a large value.
    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), String>;
    /// The message that stands at `sequence`; `None` if there is none.
    async fn message(&self, sequence: u64) -> Result<Option<StoredMessage>, String>;
    /// Tells progress. It may be lost.
    fn progress(&self, assignment: &Assignment, report: Report);
    /// Name under which the result of `assignment` is stored if it is large.
    fn result_name(&self, assignment: &Assignment) -> String;
    /// The wall clock.
    fn wall_clock(&self) -> Timestamp;
    /// What the work can say beside its result.
    fn voice(&self, assignment: &Assignment) -> Voice;
}

/// An incarnation of an agent on its swarm's log.
#[derive(Clone)]
pub(crate) struct OnLog {
    pub(crate) link: Link,
    pub(crate) me: Identity,
    pub(crate) incarnation: u64,
    pub(crate) bus: Arc<Bus>,
    pub(crate) board: Arc<OnBus>,
    pub(crate) hints: Arc<Hints>,
}

#[async_trait]
impl Ground for OnLog {
    async fn object(&self, name: &str) -> Result<Option<Bytes>, String> {
        let found = self.link.log().get_object(name).await;
        found.map_err(|error| error.to_string())
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), String> {
        let put = self.link.log().put_object(name, bytes).await;
        put.map_err(|error| error.to_string())
    }

    async fn message(&self, sequence: u64) -> Result<Option<StoredMessage>, String> {
        let found = self.link.log().get(sequence).await;
        found.map_err(|error| error.to_string())
    }

    /// Appended without waiting: a lost report is no loss, and what is appended later is stored later.
    fn progress(&self, assignment: &Assignment, (percent, message): Report) {
        let body = task::Progressed {
            assignment: assignment.sequence,
            incarnation: self.incarnation,
            percent,
            message,
        };
        let id = EventId(Uuid::now_v7());
        let subject = self.me.task_subject(TaskVerb::Progressed);
        let about = assignment.task.0;
        let message = self
            .me
            .message(id, &subject, about, Some(assignment), body.into());
        if let Ok(message) = message {
            drop(self.link.log().append(vec![message]));
        }
    }

    /// Named by the assignment, so that a late attempt cannot replace what its successor stored.
    fn result_name(&self, assignment: &Assignment) -> String {
        format!(
            "result/{}/{}/{}",
            self.me.place.swarm, assignment.task, assignment.sequence
        )
    }

    fn wall_clock(&self) -> Timestamp {
        wall_clock()
    }

    fn voice(&self, assignment: &Assignment) -> Voice {
        Voice {
            carrier: Some(self.bus.clone()),
            board: Some(self.board.clone()),
            asker: Some(Arc::new(self.clone())),
            trace: Trace {
                correlation: assignment.correlation,
                causation: Some(assignment.event.0),
                traceparent: assignment.traceparent.clone(),
            },
            assignment: Some(assignment.sequence),
            step: assignment.data.step,
            ..Voice::default()
        }
    }
}
