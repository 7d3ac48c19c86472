//! Writing to the log, and waiting for the answer of the service that decides.

use std::time::Duration;

use axum::http::StatusCode;
use bytes::Bytes;
use futures::future::{join_all, select_all};
use swarm_events::{Body, Event, EventId, Input, Problem, Subject, read::Recorded};
use swarm_log::{AppendError, Appended, LogError, Message};
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::{
    app::{App, OUTCOME_TIMEOUT},
    fold::{Waiting, outcomes::Outcome},
    idempotency::{self, Key},
    problem::{Answer, ApiProblem},
    tail::input,
};

/// Pause before a message without acknowledgement is sent again.
const RESEND_PAUSE: Duration = Duration::from_millis(50);

/// Code of a refusal: stored, and not answered in time.
const NO_ANSWER_YET: &str = "no-answer-yet";
/// Code of a refusal: the log does not say whether it is stored.
const LOG_SILENT: &str = "log-silent";

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
    /// The request that it is a part of, if there are others: of a repeat under a key it must be the same, too.
    pub request: Option<Uuid>,
    /// Another id under which it may be answered.
    pub also: Option<Uuid>,
}

impl Sending {
    /// One that no idempotency key names.
    pub fn new(subject: Subject, about: Uuid, body: impl Into<Body>) -> Self {
        Self {
            subject,
            id: Uuid::now_v7(),
            about,
            body: body.into(),
            keyed: false,
            request: None,
            also: None,
        }
    }
    /// The same under the id that derives from `key`, if there is one.
    #[must_use]
    pub fn keyed(mut self, key: Option<&Key>) -> Self {
        if let Some(key) = key {
            self.id = key.own_id();
            self.keyed = true;
        }
        self
    }
    /// The same as a part of the request that `key` names, if there is one.
    #[must_use]
    pub fn of_request(mut self, key: Option<&Key>) -> Self {
        self.request = key.map(Key::request_id);
        self
    }
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
            Problem::new(LOG_SILENT, error.to_string())
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

/// A command under way.
struct Order {
    sending: Sending,
    waiting: Vec<Waiting>,
    /// What answers it.
    heard: Option<Outcome>,
    /// Why it will never be answered.
    refused: Option<ApiProblem>,
    /// Sequence at which it is stored.
    stored: Option<u64>,
    /// What the log said, if that was nothing.
    silence: Option<ApiProblem>,
}

impl Order {
    /// Waits before anything is published, so that no answer is missed.
    fn new(app: &App, sending: Sending) -> Self {
        let ids = std::iter::once(sending.id).chain(sending.also);
        Self {
            waiting: ids.map(|id| app.fold.wait(id)).collect(),
            sending,
            heard: None,
            refused: None,
            stored: None,
            silence: None,
        }
    }

    fn is_open(&self) -> bool {
        self.heard.is_none() && self.refused.is_none()
    }

    /// Looks whether a command under the same key was met before, and how it was answered.
    async fn look(&mut self, app: &App) {
        let known = app.fold.read().keyed(self.sending.id);
        let Some(first) = known.command else { return };
        self.stored = Some(first);
        self.repeats(app, first, known.outcome).await;
    }

    /// What is stored at `first` must be the same command; `outcome` is where its answer is, if it is known.
    async fn repeats(&mut self, app: &App, first: u64, outcome: Option<u64>) {
        if let Err(problem) = check_same(app, first, &self.sending).await {
            // What was heard answers the other one.
            self.heard = None;
            self.refused = Some(problem);
        } else if let Some(outcome) = outcome {
            match answered(app, outcome).await {
                Ok(outcome) => self.heard = Some(outcome),
                Err(problem) => self.refused = Some(problem),
            }
        }
    }

    fn message(&self, app: &App) -> Answer<Message> {
        let Sending { subject, id, .. } = &self.sending;
        let mut event = Event::new(
            EventId(*id),
            app.source.clone(),
            App::now(),
            subject,
            self.sending.about,
            self.sending.body.clone(),
        );
        event.correlation = self.sending.request;
        message(subject, &event)
    }

    /// What became of storing it.
    async fn acknowledged(&mut self, app: &App, outcome: Result<Appended, AppendError>) {
        match outcome {
            Ok(stored) => {
                self.stored = Some(stored.sequence);
                if stored.duplicate {
                    // What it was answered may have been met before this wait began.
                    let known = app.fold.read().keyed(self.sending.id);
                    self.repeats(app, stored.sequence, known.outcome).await;
                }
            }
            Err(error) => {
                let problem = refused(&error).with("id", self.sending.id.to_string());
                match error {
                    // It may be stored all the same, and answered.
                    AppendError::Unknown { .. } => self.silence = Some(problem),
                    _ => self.refused = Some(problem),
                }
            }
        }
    }

    /// Waits for what answers it. May be dropped and called again.
    async fn hear(&mut self) {
        if self.is_open() {
            self.heard = Some(any(&mut self.waiting).await);
        }
    }

    fn answer(self) -> Answer<Outcome> {
        if let Some(outcome) = self.heard {
            return Ok(outcome);
        }
        let silent = || unanswered(self.sending.id, self.stored);
        Err(self.refused.or(self.silence).unwrap_or_else(silent))
    }
}

/// Whether a refusal says that the outcome is not known (yet).
pub fn is_unknown(problem: &ApiProblem) -> bool {
    matches!(problem.problem.code.as_str(), NO_ANSWER_YET | LOG_SILENT)
}

/// Sends a command and waits for the first valid event that answers it.
///
/// # Errors
/// What the log says; 422 for a key that was used with another body; 504 with the command's id when no answer comes.
pub async fn send(app: &App, sending: Sending) -> Answer<Outcome> {
    let mut answers = send_all(app, vec![sending]).await?;
    answers
        .pop()
        .unwrap_or_else(|| Err(unanswered(Uuid::nil(), None)))
}

/// Sends commands together, and waits for the first valid event that answers each, for all of them together no longer than
/// for one. One answer for each, as for [`send`].
///
/// # Errors
/// 422, and nothing is sent, if one of them repeats a key that is known to have come with another body.
pub async fn send_all(app: &App, sendings: Vec<Sending>) -> Answer<Vec<Answer<Outcome>>> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let mut orders: Vec<Order> = sendings
        .into_iter()
        .map(|sending| Order::new(app, sending))
        .collect();
    let keyed = orders.iter_mut().filter(|order| order.sending.keyed);
    join_all(keyed.map(|order| order.look(app))).await;
    if let Some(problem) = orders.iter().find_map(|order| order.refused.clone()) {
        return Err(problem);
    }
    let fresh: Vec<usize> = (0..orders.len())
        .filter(|at| orders[*at].stored.is_none())
        .collect();
    let mut messages = Vec::with_capacity(fresh.len());
    for at in &fresh {
        messages.push(orders[*at].message(app)?);
    }
    if !messages.is_empty() {
        let all_heard = join_all(orders.iter_mut().map(Order::hear));
        let stored = tokio::select! {
            biased;
            stored = store(app, messages) => stored,
            // Acknowledgements can be lost; the log's own word is better.
            _ = all_heard => Vec::new(),
        };
        for (at, outcome) in fresh.into_iter().zip(stored) {
            orders[at].acknowledged(app, outcome).await;
        }
    }
    // What is not heard by then has no answer.
    let _ = timeout_at(deadline, join_all(orders.iter_mut().map(Order::hear))).await;
    Ok(orders.into_iter().map(Order::answer).collect())
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
    let outcome = timeout_at(deadline, any(waiting)).await;
    outcome.map_err(|_| unanswered(id, Some(stored)))
}

/// 504: no service has answered in time.
fn unanswered(id: Uuid, stored: Option<u64>) -> ApiProblem {
    let detail = format!("it is stored, and no service has answered it within {OUTCOME_TIMEOUT:?}");
    let problem = Problem::new(NO_ANSWER_YET, detail).cure(
        "it will be answered once the service runs again: read the object later, and see GET /readyz",
    );
    let problem = ApiProblem::new(StatusCode::GATEWAY_TIMEOUT, problem).with("id", id.to_string());
    match stored {
        Some(sequence) => problem.with("seq", sequence),
        None => problem,
    }
}

/// What is stored under the id of a keyed command must be the same command, of the same request.
async fn check_same(app: &App, sequence: u64, sending: &Sending) -> Answer<()> {
    let stored = event_at(app, sequence).await?;
    let same = stored.is_some_and(|stored| {
        stored.event.id.0 == sending.id
            && stored.event.correlation == sending.request
            && match (&stored.event.body, &sending.body) {
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
