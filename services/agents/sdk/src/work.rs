//! One task being worked on: its inputs fetched, its handler run, its progress told, its result put where it belongs.

use std::{any::Any, convert::Infallible, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::FutureExt;
use swarm_events::{
    Body, Json, Timestamp,
    task::{Carried, Part, RESULT_BYTES_MAX},
};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    ground::Ground,
    handler::{Handlers, Progress, Report, TaskContext, TaskError},
    live,
    protocol::{Assignment, Outcome},
    session::CANCEL_GRACE,
};

/// Progress is told at most this often for a task: each report is an event, stored for ever.
pub const PROGRESS_INTERVAL: Duration = Duration::from_millis(500);
/// The distributor enforces run limits. An agent that cannot hear it stops by itself this much later.
pub const DEADLINE_SLACK: Duration = Duration::from_secs(1);
/// Largest result, in bytes; above [`RESULT_BYTES_MAX`] it goes to the object store.
pub const RESULT_OBJECT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often a large value is tried to be read or stored, half a second apart: a restart of the server is bridged.
const OBJECT_TRIES: u32 = 10;
const OBJECT_PAUSE: Duration = Duration::from_millis(500);

pub(crate) struct Work {
    pub(crate) ground: Arc<dyn Ground>,
    pub(crate) assignment: Arc<Assignment>,
    pub(crate) handlers: Arc<Handlers>,
    pub(crate) cancelled: CancellationToken,
}

/// How an attempt came to its end.
enum Ended {
    Result(Carried),
    Split(Vec<Part>),
}

impl Work {
    /// Runs the attempt to its end. Never panics with the handler.
    pub(crate) async fn run(self) -> (u64, Outcome) {
        let outcome = match self.attempt().await {
            Ok(Ended::Result(result)) => Outcome::Completed(result),
            Ok(Ended::Split(parts)) => Outcome::Split(parts),
            Err(error) if error.declined => Outcome::declined(error.message),
            Err(error) => Outcome::failed(error.message, error.retryable),
        };
        (self.assignment.sequence, outcome)
    }

    async fn attempt(&self) -> Result<Ended, TaskError> {
        let data = &self.assignment.data;
        let limit = Duration::from_millis(data.timeout_ms);
        let began = Instant::now();
        let (deadline, deadline_at) = (
            self.ground.wall_clock().plus_millis(data.timeout_ms),
            began + limit,
        );
        let Some(handler) = self.handlers.of(&data.task_type) else {
            return Err(TaskError::decline(format!(
                "this agent has no handler for tasks of type {}",
                data.task_type
            )));
        };
        let (progress, mut told) = watch::channel((None, None));
        let task = self
            .context(deadline, deadline_at, Progress(progress.clone()))
            .await?;
        let parts = task.clone();
        let mut handling = AssertUnwindSafe(handler.handle(task)).catch_unwind();
        let handled = {
            let mut telling = std::pin::pin!(self.tell(&mut told));
            tokio::select! {
                handled = &mut handling => handled,
                never = &mut telling => match never {},
                () = sleep_until(deadline_at + DEADLINE_SLACK) => {
                    self.cancelled.cancel();
                    let _ = timeout(CANCEL_GRACE, handling).await; // else it is dropped here
                    return Err(TaskError::retryable(format!("ran longer than its limit of {} ms", data.timeout_ms)));
                }
            }
        };
        let result = handled.map_err(|panic| {
            TaskError::retryable(format!("the handler panicked: {}", words(&*panic)))
        })??;
        if told.has_changed().unwrap_or(false) {
            self.report(told.borrow().clone());
        }
        match parts.take_parts() {
            Some(parts) => Ok(Ended::Split(parts)),
            None => self.carried(result).await.map(Ended::Result),
        }
    }

    async fn context(
        &self,
        deadline: Timestamp,
        deadline_at: Instant,
        progress: Progress,
    ) -> Result<TaskContext, TaskError> {
        let data = &self.assignment.data;
        let inputs = match &data.inputs {
            None => Json::object(),
            Some(inputs) => self.resolve("inputs", inputs).await?,
        };
        Ok(TaskContext {
            id: self.assignment.task,
            task_type: data.task_type.clone(),
            payload: self.resolve("payload", &data.payload).await?,
            inputs,
            attempt: data.attempt,
            generation: data.generation,
            priority: data.priority,
            fencing_token: self.assignment.sequence,
            deadline,
            cancelled: self.cancelled.clone(),
            deadline_at,
            progress,
            voice: self.ground.voice(&self.assignment),
        })
    }

    /// The value that is carried, wherever it is.
    async fn resolve(&self, what: &str, carried: &Carried) -> Result<Json, TaskError> {
        if let Carried::Inline(json) = carried {
            return Ok(json.clone());
        }
        let mut problem = String::new();
        for _ in 0..OBJECT_TRIES {
            match self.fetch(carried).await {
                Ok(Some(json)) => return Ok(json),
                Ok(None) => {
                    return Err(TaskError::permanent(format!(
                        "{what}: {carried:?} is not there any more"
                    )));
                }
                Err(error) => problem = error,
            }
            self.pause().await?;
        }
        Err(TaskError::retryable(format!(
            "{what}: {carried:?} cannot be read: {problem}"
        )))
    }

    async fn fetch(&self, carried: &Carried) -> Result<Option<Json>, String> {
        let mut carried = carried.clone();
        loop {
            carried = match carried {
                Carried::Inline(json) => return Ok(Some(json)),
                Carried::Object(name) => {
                    let Some(bytes) = self.ground.object(&name).await? else {
                        return Ok(None);
                    };
                    let text = std::str::from_utf8(&bytes).map_err(|e| e.to_string())?;
                    return Json::parse(text).map(Some).map_err(|e| e.to_string());
                }
                Carried::AtSequence(sequence) => {
                    let Some(message) = self.ground.message(sequence).await? else {
                        return Ok(None);
                    };
                    match live::read(&message) {
                        swarm_events::Input::Event(recorded) => match recorded.event.body {
                            Body::TaskSubmitted(data) => Carried::Inline(data.payload),
                            // The result of a result: at most once, since a result names no sequence.
                            Body::TaskCompleted(data)
                                if !matches!(data.result, Carried::AtSequence(_)) =>
                            {
                                data.result
                            }
                            _ => return Ok(None),
                        },
                        swarm_events::Input::Unreadable(unreadable) => {
                            return Err(unreadable.problem.to_string());
                        }
                    }
                }
            }
        }
    }

    async fn pause(&self) -> Result<(), TaskError> {
        tokio::select! {
            () = sleep(OBJECT_PAUSE) => Ok(()),
            () = self.cancelled.cancelled() => Err(TaskError::retryable("cancelled")),
        }
    }

    /// Tells progress as it comes, not too often.
    async fn tell(&self, told: &mut watch::Receiver<Report>) -> Infallible {
        while told.changed().await.is_ok() {
            let latest = told.borrow_and_update().clone();
            self.report(latest);
            sleep(PROGRESS_INTERVAL).await;
        }
        std::future::pending().await
    }

    fn report(&self, report: Report) {
        self.ground.progress(&self.assignment, report);
    }

    /// The result in the event, or in the object store if it is large.
    async fn carried(&self, result: Json) -> Result<Carried, TaskError> {
        let bytes = result.len();
        if bytes <= RESULT_BYTES_MAX {
            return Ok(Carried::Inline(result));
        }
        if bytes > RESULT_OBJECT_BYTES_MAX {
            return Err(TaskError::permanent(format!(
                "the result has {bytes} bytes, more than the limit of {RESULT_OBJECT_BYTES_MAX}: store it elsewhere and answer with a reference"
            )));
        }
        let name = self.ground.result_name(&self.assignment);
        let mut problem = String::new();
        for _ in 0..OBJECT_TRIES {
            let bytes = result.as_str().to_owned().into();
            match self.ground.put_object(&name, bytes).await {
                Ok(()) => return Ok(Carried::Object(name)),
                Err(error) => problem = error,
            }
            self.pause().await?;
        }
        Err(TaskError::retryable(format!(
            "the result of {bytes} bytes could not be stored: {problem}"
        )))
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("without words")
}
