//! What an agent's author writes: handlers, and what they are given.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    future::Future,
    marker::PhantomData,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use async_trait::async_trait;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use swarm_events::{
    Json, Problem, Timestamp,
    ids::TaskId,
    task::{KEY_BYTES_MAX, PARTS_MAX, PRIORITY_RANGE, Part, Step, TYPE_CHARS_MAX},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    answer::OnQuestion,
    ask::{Asker, Question},
    blackboard::{Blackboard, Board},
    messages::{Carrier, Messages, Trace, desk::OnMessages},
    schemas::Types,
    wire::wall_clock,
};

/// Largest parts of a split together, in bytes: they come in one event, which has to fit into a message of the log.
pub const SPLIT_BYTES_MAX: usize = 768 * 1024;
/// Longest progress message, in bytes; a longer one is cut.
pub(crate) const PROGRESS_BYTES_MAX: usize = 1_024;

/// A task, as its handler sees it.
#[derive(Clone, Debug)]
pub struct TaskContext {
    /// The task.
    pub id: TaskId,
    /// What kind of work.
    pub task_type: String,
    /// What was submitted.
    pub payload: Json,
    /// Results of data dependencies by alias: one JSON object, `{}` if there are none.
    pub inputs: Json,
    /// Number of this attempt, from 1.
    pub attempt: u32,
    /// Rises when an ended task is retried, from 1.
    pub generation: u32,
    /// 1 to 10, higher is more important.
    pub priority: u8,
    /// Rises from assignment to assignment of the whole log: hand it to a store that refuses older ones, and a paused agent
    /// cannot overwrite what its successor did.
    pub fencing_token: u64,
    /// When the run limit is over, by the wall clock of this machine.
    pub deadline: Timestamp,
    /// Cancelled when the result is not wanted any more: stop soon; after [`crate::CANCEL_GRACE`] the handler is dropped.
    pub cancelled: CancellationToken,
    pub(crate) deadline_at: Instant,
    pub(crate) progress: Progress,
    pub(crate) voice: Voice,
}

/// What a handler can say beside its result.
#[derive(Clone, Default)]
pub(crate) struct Voice {
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    pub(crate) board: Option<Arc<dyn Board>>,
    pub(crate) asker: Option<Arc<dyn Asker>>,
    pub(crate) trace: Trace,
    /// The assignment, if it is one of a swarm.
    pub(crate) assignment: Option<u64>,
    pub(crate) step: Step,
    /// The parts into which the task is split.
    pub(crate) parts: Arc<Mutex<Option<Vec<Part>>>>,
}
impl fmt::Debug for Voice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Voice").finish_non_exhaustive()
    }
}

impl TaskContext {
    /// A context of no swarm, for a handler's own tests: the first attempt, with this run limit. Progress comes out of the
    /// receiver.
    pub fn detached(
        task_type: &str,
        payload: Json,
        limit: Duration,
    ) -> (Self, watch::Receiver<Report>) {
        let (progress, told) = watch::channel((None, None));
        let millis = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let context = Self {
            id: TaskId(uuid::Uuid::now_v7()),
            task_type: task_type.to_owned(),
            payload,
            inputs: Json::object(),
            attempt: 1,
            generation: 1,
            priority: swarm_events::task::PRIORITY_DEFAULT,
            fencing_token: 1,
            deadline: wall_clock().plus_millis(millis),
            cancelled: CancellationToken::new(),
            deadline_at: Instant::now() + limit,
            progress: Progress(progress),
            voice: Voice::default(),
        };
        (context, told)
    }

    /// What is said to other agents and to people, as part of the task's trace.
    pub fn messages(&self) -> Messages {
        Messages {
            carrier: self.voice.carrier.clone(),
            trace: self.voice.trace.clone(),
        }
    }

    /// The swarm's blackboard.
    pub fn blackboard(&self) -> Blackboard {
        Blackboard(self.voice.board.clone())
    }

    /// A question to a person, or to another agent. Await it to ask it; the run limit goes on meanwhile.
    pub fn ask(&self, question: impl Into<String>) -> Question {
        Question::new(
            self.voice.asker.clone(),
            self.voice.trace.clone(),
            self.voice.assignment,
            question.into(),
        )
    }

    /// What this assignment is to do: the work (or its splitting), or making one result of those of the parts.
    pub fn step(&self) -> Step {
        self.voice.step
    }

    /// The inputs by their names, each read as `T`: the results of data dependencies by alias, or of the parts by key.
    ///
    /// # Errors
    /// One of them is no `T`; the error names it.
    pub fn inputs<T: DeserializeOwned>(&self) -> Result<BTreeMap<String, T>, TaskError> {
        let all: BTreeMap<String, Value> = self
            .inputs
            .to()
            .map_err(|error| TaskError::permanent(format!("inputs: {error}")))?;
        all.into_iter()
            .map(|(name, value)| {
                let read = serde_json::from_value(value);
                read.map(|read| (name.clone(), read))
                    .map_err(|error| TaskError::permanent(format!("inputs.{name}: {error}")))
            })
            .collect()
    }

    /// Hands the task on in parts. That takes effect when the handler comes to its end without an error; what it returns then
    /// does not count. The parts' results come back as the inputs, by their keys, of a further assignment of this task whose
    /// [`Self::step`] is [`Step::Reduce`]; if a part fails for good, so does the task.
    ///
    /// # Errors
    /// No part or too many, two of one key, or a value that a task cannot have, by field: the task fails for good with it.
    pub fn split(&self, parts: Vec<Part>) -> Result<(), TaskError> {
        check_parts(&parts).map_err(|problem| TaskError::permanent(problem.to_string()))?;
        *self
            .voice
            .parts
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = Some(parts);
        Ok(())
    }

    /// The parts that were handed on, once.
    #[doc(hidden)]
    pub fn take_parts(&self) -> Option<Vec<Part>> {
        let mut parts = self.voice.parts.lock();
        parts
            .as_mut()
            .map_or_else(|e| e.get_mut().take(), |p| p.take())
    }

    /// Tells how far the work is: parts done (0 to 100), words, or both. Told at most once in [`crate::PROGRESS_INTERVAL`]; the
    /// latest counts.
    pub fn progress(&self, percent: Option<u8>, message: Option<&str>) {
        self.progress.set(percent, message);
    }

    /// The reporting end alone, for code that outlives the context.
    pub fn progress_handle(&self) -> Progress {
        self.progress.clone()
    }

    /// What is left of the run limit.
    pub fn time_left(&self) -> Duration {
        self.deadline_at.saturating_duration_since(Instant::now())
    }
}

/// Whether a task can be split so.
fn check_parts(parts: &[Part]) -> Result<(), Problem> {
    let wrong = |field: String, detail: String| Err(Problem::new("bad-split", detail).field(field));
    let count = parts.len();
    if count == 0 || count > PARTS_MAX {
        let detail = format!("{count} parts, 1 to {PARTS_MAX} are taken");
        return wrong("parts".to_owned(), detail);
    }
    let mut keys = BTreeSet::new();
    for (at, part) in parts.iter().enumerate() {
        let field = |name: &str| format!("parts[{at}].{name}");
        let bytes = part.key.len();
        if bytes == 0 || bytes > KEY_BYTES_MAX {
            let detail = format!("it has {bytes} bytes, it takes 1 to {KEY_BYTES_MAX}");
            return wrong(field("key"), detail);
        }
        if !keys.insert(&part.key) {
            return wrong(field("key"), format!("{} stands there twice", part.key));
        }
        let chars = part.task_type.chars().count();
        if chars == 0 || chars > TYPE_CHARS_MAX {
            let detail = format!("it has {chars} characters, it takes 1 to {TYPE_CHARS_MAX}");
            return wrong(field("task_type"), detail);
        }
        if let Some(priority) = part.priority
            && !PRIORITY_RANGE.contains(&priority)
        {
            let (low, high) = (PRIORITY_RANGE.start(), PRIORITY_RANGE.end());
            let detail = format!("{priority}, it takes {low} to {high}");
            return wrong(field("priority"), detail);
        }
    }
    let bytes = serde_json::to_vec(parts).map_or(usize::MAX, |text| text.len());
    if bytes > SPLIT_BYTES_MAX {
        let detail = format!(
            "together they have {bytes} bytes, more than the limit of {SPLIT_BYTES_MAX}: pass large data by reference"
        );
        return wrong("parts".to_owned(), detail);
    }
    Ok(())
}

/// Where progress is reported.
#[derive(Clone, Debug)]
pub struct Progress(pub(crate) watch::Sender<Report>);

/// A report of progress: parts done (0 to 100), and words.
pub type Report = (Option<u8>, Option<String>);

impl Progress {
    /// As [`TaskContext::progress`].
    pub fn set(&self, percent: Option<u8>, message: Option<&str>) {
        let message = message.map(|text| {
            let mut end = text.len().min(PROGRESS_BYTES_MAX);
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text[..end].to_owned()
        });
        self.0
            .send_replace((percent.map(|percent| percent.min(100)), message));
    }
}

/// Why there is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError {
    /// In words; cut at [`swarm_events::task::ERROR_BYTES_MAX`] bytes, or [`swarm_events::task::DECLINE_REASON_BYTES_MAX`] if
    /// `declined`.
    pub message: String,
    /// Whether another attempt could help.
    pub retryable: bool,
    /// The task is given back: it was no attempt, and other agents get it first. See [`TaskError::decline`].
    pub declined: bool,
}

impl TaskError {
    /// Another attempt may help.
    pub fn retryable(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: true,
            declined: false,
        }
    }
    /// No other attempt will help.
    pub fn permanent(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            retryable: false,
            declined: false,
        }
    }
    /// This agent is not the one for the task, without anything having gone wrong: a file that it has not got, a quota that is
    /// used up. The task goes back to the queue under its old rank and costs no attempt; this agent does not get it again
    /// while others may take it. A task that is declined again and again fails in the end with the last reason.
    pub fn decline(reason: impl Into<String>) -> Self {
        Self {
            message: reason.into(),
            retryable: true,
            declined: true,
        }
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// `?` in a handler: retryable, with all causes in the text. (So this type is no `std::error::Error` itself.)
impl<E: std::error::Error> From<E> for TaskError {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(next) = cause {
            message.push_str(&format!(": {next}"));
            cause = next.source();
        }
        Self::retryable(message)
    }
}

/// Does the work of tasks, on their JSON as it is.
#[async_trait]
pub trait Handler: Send + Sync + 'static {
    /// Works on one attempt and answers with its result. Dropped if it does not heed [`TaskContext::cancelled`] in time.
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError>;
}

#[async_trait]
impl<H: Handler> Handler for Arc<H> {
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError> {
        (**self).handle(task).await
    }
}

/// A function from payload to result.
pub(crate) struct Typed<F, In> {
    pub(crate) function: F,
    pub(crate) input: PhantomData<fn(In)>,
}

#[async_trait]
impl<F, In, Out, Fut> Handler for Typed<F, In>
where
    F: Fn(TaskContext, In) -> Fut + Send + Sync + 'static,
    In: DeserializeOwned + Send + 'static,
    Out: Serialize,
    Fut: Future<Output = Result<Out, TaskError>> + Send,
{
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError> {
        let mut text = serde_json::Deserializer::from_str(task.payload.as_str());
        let input: In = serde_path_to_error::deserialize(&mut text).map_err(|error| {
            let path = error.path().to_string();
            let (dot, path) = match path.as_str() {
                "." => ("", ""),
                path if path.starts_with('[') => ("", path),
                path => (".", path),
            };
            TaskError::permanent(format!(
                "payload{dot}{path}: not what {} takes: {}",
                task.task_type,
                error.inner()
            ))
        })?;
        let output = (self.function)(task, input).await?;
        Json::from_value(&output)
            .map_err(|error| TaskError::permanent(format!("the result is no JSON: {error}")))
    }
}

/// The handlers of an agent.
#[derive(Clone, Default)]
pub(crate) struct Handlers {
    pub(crate) by_type: BTreeMap<String, Arc<dyn Handler>>,
    pub(crate) other: Option<Arc<dyn Handler>>,
    /// What the typed ones take and give, by task type.
    pub(crate) types: BTreeMap<String, Types>,
    /// What is done with messages.
    pub(crate) messages: OnMessages,
    /// What answers questions.
    pub(crate) questions: Option<OnQuestion>,
}

impl Handlers {
    pub(crate) fn of(&self, task_type: &str) -> Option<&Arc<dyn Handler>> {
        self.by_type.get(task_type).or(self.other.as_ref())
    }
}
