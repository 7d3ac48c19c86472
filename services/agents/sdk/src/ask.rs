//! Asking a person, or another agent, and waiting for the answer.

use std::{future::IntoFuture, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures::{StreamExt, future::BoxFuture};
use serde::Serialize;
use swarm_events::{
    Body, Input, Json, Problem,
    ids::{CommandId, EventId},
    message::{self, Answered, Answerer, CHOICES_MAX, QUESTION_BYTES_MAX, QUESTION_TIMEOUT_MS_MAX},
    subject::{AgentVerb, CommandVerb, Subject, SwarmVerb},
};
use swarm_log::{Log, LogError, Tailed};
use tokio::{sync::watch, time::sleep};
use uuid::Uuid;

use crate::{ground::OnLog, join, live, messages::Trace};

/// How long a question waits if nobody says otherwise: as long as somebody who is there needs.
pub const QUESTION_WAIT_DEFAULT: Duration = Duration::from_secs(600);
/// Pause between looks for an answer whose hint was lost: the first, and the longest.
const LOOKS: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Why there is no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AskError {
    /// The question is none, or the swarm does not take it: the problem names the field.
    #[error("the question is refused: {0}")]
    Refused(Problem),
    /// Nobody answered in time, and there is no default.
    #[error("nobody answered: {0}")]
    Unanswered(String),
    /// The log takes or gives nothing.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is no swarm here.
    #[error("there is no swarm here to ask")]
    NoSwarm,
}

/// Whether it can be the answer to a question that offers these; one that offers none takes any.
pub(crate) fn is_choice(choices: &[String], answer: &Json) -> bool {
    let text: Result<String, _> = answer.to();
    choices.is_empty() || text.is_ok_and(|text| choices.contains(&text))
}

/// What takes questions: a swarm's log, or a test.
#[async_trait]
pub(crate) trait Asker: Send + Sync + 'static {
    async fn ask(&self, ask: message::Ask, trace: Trace) -> Result<Answered, AskError>;
    fn incarnation(&self) -> u64;
}

/// A question, before it is asked. Awaited, it answers with what was answered and by whom.
#[derive(Clone)]
#[must_use = "a question is asked when it is awaited"]
pub struct Question {
    pub(crate) asker: Option<Arc<dyn Asker>>,
    pub(crate) trace: Trace,
    pub(crate) assignment: Option<u64>,
    question: String,
    answerer: Answerer,
    choices: Vec<String>,
    default: Option<Result<Json, String>>,
    wait: Duration,
}

impl Question {
    pub(crate) fn new(
        asker: Option<Arc<dyn Asker>>,
        trace: Trace,
        assignment: Option<u64>,
        question: String,
    ) -> Self {
        Self {
            asker,
            trace,
            assignment,
            question,
            answerer: Answerer::default(),
            choices: Vec::new(),
            default: None,
            wait: QUESTION_WAIT_DEFAULT,
        }
    }
    /// The answers to choose from; without any, any JSON is one.
    pub fn choices(mut self, choices: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.choices = choices.into_iter().map(Into::into).collect();
        self
    }
    /// The answer if there is none in time. Without it that is an error.
    pub fn default(mut self, answer: impl Serialize) -> Self {
        self.default = Some(Json::from_value(&answer).map_err(|error| error.to_string()));
        self
    }
    /// How long it waits; [`QUESTION_WAIT_DEFAULT`] if not given. The task's own limit goes on meanwhile.
    pub fn timeout(mut self, wait: Duration) -> Self {
        self.wait = wait;
        self
    }
    /// Who is to answer: anybody, the leader, or an agent of a role. People may always.
    pub fn of(mut self, answerer: Answerer) -> Self {
        self.answerer = answerer;
        self
    }

    fn checked(&self, incarnation: u64) -> Result<message::Ask, Problem> {
        let wrong = |field: &str, detail: String| Problem::new("bad-question", detail).field(field);
        let bytes = self.question.len();
        if bytes == 0 || bytes > QUESTION_BYTES_MAX {
            let detail = format!("it has {bytes} bytes, it takes 1 to {QUESTION_BYTES_MAX}");
            return Err(wrong("question", detail));
        }
        let count = self.choices.len();
        if count > CHOICES_MAX {
            let detail = format!("{count} choices, at most {CHOICES_MAX} are taken");
            return Err(wrong("choices", detail));
        }
        let timeout_ms = u64::try_from(self.wait.as_millis()).unwrap_or(u64::MAX);
        if timeout_ms == 0 || timeout_ms > QUESTION_TIMEOUT_MS_MAX {
            let detail = format!("{timeout_ms}, it takes 1 to {QUESTION_TIMEOUT_MS_MAX}");
            return Err(wrong("timeout_ms", detail));
        }
        let default = match &self.default {
            None => None,
            Some(Ok(answer)) => Some(answer.clone()),
            Some(Err(error)) => return Err(wrong("default", error.clone())),
        };
        let chosen = |answer: &Json| is_choice(&self.choices, answer);
        if default.as_ref().is_some_and(|answer| !chosen(answer)) {
            let detail = "it is none of the choices".to_owned();
            return Err(wrong("default", detail));
        }
        Ok(message::Ask {
            incarnation,
            assignment: self.assignment,
            answerer: self.answerer,
            question: self.question.clone(),
            choices: self.choices.clone(),
            default,
            timeout_ms,
        })
    }

    /// Asks it and waits for the answer.
    ///
    /// # Errors
    /// It is refused by field; nobody answers in time and there is no default; the log does not answer.
    pub async fn answer(self) -> Result<Answered, AskError> {
        let asker = self.asker.clone().ok_or(AskError::NoSwarm)?;
        let ask = self
            .checked(asker.incarnation())
            .map_err(AskError::Refused)?;
        asker.ask(ask, self.trace).await
    }
}

impl IntoFuture for Question {
    type Output = Result<Answered, AskError>;
    type IntoFuture = BoxFuture<'static, Self::Output>;
    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.answer())
    }
}

/// Counts the hints that a question of this agent has ended.
pub(crate) struct Hints(watch::Sender<u64>);
impl Default for Hints {
    fn default() -> Self {
        Self(watch::channel(0).0)
    }
}
impl Hints {
    pub(crate) fn came(&self) {
        self.0.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Asker for OnLog {
    async fn ask(&self, ask: message::Ask, trace: Trace) -> Result<Answered, AskError> {
        let command = CommandId(Uuid::now_v7());
        let subject = Subject::Command(self.me.place, CommandVerb::Ask);
        let message = self
            .me
            .traced(
                EventId(command.0),
                &subject,
                self.me.agent.0,
                &trace,
                ask.into(),
            )
            .map_err(|error| AskError::Refused(Problem::new("unwritable", error.to_string())))?;
        let mut hints = self.hints.0.subscribe();
        let mut from = join::append(&self.link, message).await? + 1;
        let filters = vec![
            Subject::Agent(self.me.place, AgentVerb::Answered, self.me.agent).to_string(),
            Subject::Agent(self.me.place, AgentVerb::Unanswered, self.me.agent).to_string(),
            Subject::Swarm(self.me.place, SwarmVerb::Refused).to_string(),
        ];
        let mut pause = LOOKS.0;
        loop {
            hints.mark_unchanged();
            let mut tail = self.link.log().tail(filters.clone(), from);
            while let Some(tailed) = tail.next().await {
                let message = match tailed {
                    Ok(Tailed::Message(message)) => message,
                    Ok(Tailed::CaughtUp) => break,
                    Ok(_) => continue,
                    Err(error @ LogError::Incompatible(_)) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read the answer to a question");
                        break;
                    }
                };
                from = message.sequence + 1;
                let Input::Event(recorded) = live::read(&message) else {
                    continue;
                };
                match recorded.event.body {
                    Body::AgentAnswered(answered) if answered.question_id == command => {
                        return Ok(answered);
                    }
                    Body::AgentUnanswered(none) if none.question_id == command => {
                        return Err(AskError::Unanswered(none.reason));
                    }
                    Body::SwarmRefused(refused) if recorded.event.causation == Some(command.0) => {
                        return Err(AskError::Refused(refused.problem));
                    }
                    _ => {}
                }
            }
            drop(tail);
            tokio::select! {
                _ = hints.changed() => {}
                () = sleep(pause) => pause = (pause * 2).min(LOOKS.1),
            }
        }
    }

    fn incarnation(&self) -> u64 {
        self.incarnation
    }
}
