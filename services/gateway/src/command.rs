//! Writing to the log, and waiting for the answer of the service that decides.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures::future::select_all;
use swarm_events::{Body, Event, EventId, Input, Problem, Subject, read::Recorded};
use swarm_log::{AppendError, Appended, LogError, Message};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::{
    app::{App, OUTCOME_TIMEOUT},
    fold::{Waiting, outcomes::Outcome},
    idempotency,
    problem::{Answer, ApiProblem},
    tail::input,
};

/// Pause before a message without acknowledgement is sent again.
const RESEND_PAUSE: Duration = Duration::from_millis(50);

/// What a client sends.
pub struct Sending {
    /// Where it goes.
    pub subject: Subject,
    /// Id of the command.
    pub id: Uuid,
    /// What it is about.
    pub about: Uuid,
    /// What it says.
    pub body: Body,
    /// Whether the id derives from an idempotency key: then a repeat is answered as the first time.
    pub keyed: bool,
}

/// `event` as a message with its id for retries.
///
/// # Errors
/// Never in practice: an event's JSON texts were checked when they were read.
pub fn message(subject: &Subject, event: &Event) -> Answer<Message> {
    let payload = event.to_json().map_err(|error| {
        ApiProblem::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            Problem::new("unwritable-event", error.to_string()),
        )
    })?;
    Ok(Message {
        subject: subject.to_string(),
        payload: Bytes::from(payload),
        message_id: Some(event.id.to_string()),
        fence: None,
    })
}

/// A refusal by the log.
pub fn refused(error: &AppendError) -> ApiProblem {
    match error {
        AppendError::Full { .. } => ApiProblem::new(
            StatusCode::INSUFFICIENT_STORAGE,
            Problem::new("log-full", error.to_string()).cure("free disk space, or raise log_bytes_max; nothing was stored"),
        ),
        AppendError::TooLarge { .. } => ApiProblem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            Problem::new("event-too-large", error.to_string())
                .field("payload")
                .cure("store large data elsewhere and pass a reference to it"),
        ),
        AppendError::Unknown { .. } => ApiProblem::new(
            StatusCode::GATEWAY_TIMEOUT,
            Problem::new("log-silent", error.to_string())
                .cure("it may be stored all the same: look it up by its id, or send it again with the same Idempotency-Key"),
        ),
        other => ApiProblem::unavailable("log-refused", other.to_string(), "see the logs of nats-server and the gateway"),
    }
}

/// Reading the log failed.
pub fn unread(error: &LogError) -> ApiProblem {
    ApiProblem::unavailable(
        "log-unreachable",
        error.to_string(),
        "check that nats-server runs",
    )
}

/// Stores each of `messages`, sending again what is not acknowledged: message ids, and the services' own memory of ids,
/// make that safe. One outcome for each.
pub async fn store(app: &App, messages: Vec<Message>) -> Vec<Result<Appended, AppendError>> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let mut outcomes = app.log.append(messages.clone()).await;
    loop {
        let again: Vec<usize> = outcomes
            .iter()
            .enumerate()
            .filter(|(_, outcome)| matches!(outcome, Err(AppendError::Unknown { .. })))
            .map(|(at, _)| at)
            .collect();
        if again.is_empty() || Instant::now() + RESEND_PAUSE >= deadline {
            return outcomes;
        }
        tokio::time::sleep(RESEND_PAUSE).await;
        let resent = again.iter().map(|at| messages[*at].clone()).collect();
        let Ok(retried) = timeout_at(deadline, app.log.append(resent)).await else {
            return outcomes;
        };
        for (at, outcome) in again.into_iter().zip(retried) {
            outcomes[at] = outcome;
        }
    }
}

/// Stores one message.
///
/// # Errors
/// What the log says.
pub async fn store_one(app: &App, message: Message) -> Answer<Appended> {
    let id = message.message_id.clone();
    let outcome = store(app, vec![message]).await.pop();
    let outcome = outcome.unwrap_or_else(|| {
        Err(AppendError::Unknown {
            subject: String::new(),
            cause: "the log gave no outcome".to_owned(),
        })
    });
    outcome.map_err(|error| refused(&error).with("id", id.unwrap_or_default()))
}

/// The event at `sequence`.
///
/// # Errors
/// 503 if the log cannot be read.
pub async fn event_at(app: &App, sequence: u64) -> Answer<Option<Recorded>> {
    let stored = app
        .log
        .get(sequence)
        .await
        .map_err(|error| unread(&error))?;
    Ok(stored.and_then(|message| match input(&message) {
        Input::Event(recorded) => Some(recorded),
        Input::Unreadable(_) => None,
    }))
}

/// Sends a command and waits for the first valid event that names it. `also` are other ids under which it may be answered.
///
/// # Errors
/// What the log says; 422 for a key that was used with another body; 504 with the command's id when no answer comes.
pub async fn send(app: &App, sending: Sending, also: &[Uuid]) -> Answer<Outcome> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let Sending {
        subject,
        id,
        about,
        body,
        keyed,
    } = sending;
    // Before anything is published, so that no answer is missed.
    let mut waiting: Vec<Waiting> = std::iter::once(&id)
        .chain(also)
        .map(|id| app.fold.wait(*id))
        .collect();
    if keyed {
        let known = app.fold.read().keyed(id);
        if let Some(first) = known.command {
            check_same(app, first, id, &body).await?;
            return match known.outcome {
                Some(outcome) => answered(app, outcome).await,
                None => first_of(&mut waiting, deadline, id, first).await,
            };
        }
    }
    let event = Event::new(
        EventId(id),
        app.source.clone(),
        App::now(),
        &subject,
        about,
        body.clone(),
    );
    let message = message(&subject, &event)?;
    let stored = tokio::select! {
        biased;
        stored = store_one(app, message) => stored?,
        // Acknowledgements can be lost; the log's own word is better.
        outcome = any(&mut waiting) => return Ok(outcome),
    };
    if stored.duplicate {
        check_same(app, stored.sequence, id, &body).await?;
        // What it was answered may have been met before this wait began.
        let known = app.fold.read().keyed(id);
        if let Some(outcome) = known.outcome {
            return answered(app, outcome).await;
        }
    }
    first_of(&mut waiting, deadline, id, stored.sequence).await
}

async fn answered(app: &App, sequence: u64) -> Answer<Outcome> {
    let gone = || {
        ApiProblem::unavailable(
            "log-gap",
            format!("the event at {sequence} is gone"),
            "read the object instead",
        )
    };
    event_at(app, sequence)
        .await?
        .map(Outcome::new)
        .ok_or_else(gone)
}

async fn any(waiting: &mut [Waiting]) -> Outcome {
    let outcomes = waiting.iter_mut().map(|wait| {
        Box::pin(async {
            match wait.outcome().await {
                Some(outcome) => outcome,
                // Its sender is gone without a word, which it never is; another one may still answer.
                None => std::future::pending().await,
            }
        })
    });
    select_all(outcomes).await.0
}

/// The first outcome to come.
///
/// # Errors
/// 504 with the id and the sequence of what waits for its answer.
pub async fn first_of(
    waiting: &mut [Waiting],
    deadline: Instant,
    id: Uuid,
    stored: u64,
) -> Answer<Outcome> {
    timeout_at(deadline, any(waiting)).await.map_err(|_| {
        ApiProblem::new(
            StatusCode::GATEWAY_TIMEOUT,
            Problem::new("no-answer-yet", format!("it is stored, and no service has answered it within {OUTCOME_TIMEOUT:?}"))
                .cure("it will be answered once the service runs again: read the object later, and see GET /readyz"),
        )
        .with("id", id.to_string())
        .with("seq", stored)
    })
}

/// What is stored under the id of a keyed command must be the same command.
async fn check_same(app: &App, sequence: u64, id: Uuid, body: &Body) -> Answer<()> {
    let stored = event_at(app, sequence).await?;
    let same = stored.is_some_and(|stored| {
        stored.event.id.0 == id
            && match (&stored.event.body, body) {
                // Whoever of the organization repeats it, it is the same request.
                (Body::Create(stored), Body::Create(body)) => {
                    stored.body_sha256 == body.body_sha256
                }
                (stored, body) => stored == body,
            }
    });
    if same {
        Ok(())
    } else {
        Err(idempotency::reused())
    }
}
