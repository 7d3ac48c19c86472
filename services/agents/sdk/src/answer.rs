//! Answering what other agents ask: an open question is told to whoever is to answer it, and the first answer counts.

mod follow;
mod open;

use std::{fmt, panic::AssertUnwindSafe, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt, future::BoxFuture};
use swarm_events::{
    Body, Input, Json, Problem, Timestamp,
    ids::{AgentId, CommandId, EventId, TaskId},
    message::{Answer, Answerer, MESSAGE_BYTES_MAX},
    subject::{CommandVerb, Subject, SwarmVerb, filter},
};
use swarm_log::{Log, LogError, Tailed};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    ask::is_choice,
    ground::OnLog,
    handler::{TaskContext, TaskError},
    join::{self, RETRY_PAUSE},
    live,
    messages::{Carrier, Messages, Trace},
};
pub(crate) use follow::run;
pub(crate) use open::Standing;

/// Questions for which a handler runs at the same time. More wait.
pub const ANSWERS_MAX: usize = 16;
/// Type of a question in the form of a task.
pub const QUESTION_TYPE: &str = "question";

/// Answers a question; `None` leaves it to others.
pub(crate) type OnQuestion = Arc<
    dyn Fn(ReceivedQuestion) -> BoxFuture<'static, Result<Option<Json>, TaskError>> + Send + Sync,
>;

/// Why an answer does not count.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AnswerError {
    /// It is none, the question is not this agent's to answer, or there is no such question: the problem names the field.
    #[error("the answer is refused: {0}")]
    Refused(Problem),
    /// The log takes or gives nothing.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The agent does not run.
    #[error("the agent does not run: nothing was answered")]
    NotRunning,
}

/// A question of another agent that waits for its answer.
#[derive(Clone)]
pub struct ReceivedQuestion {
    /// Its id.
    pub id: CommandId,
    /// The agent that asks.
    pub from: AgentId,
    /// In words.
    pub question: String,
    /// The answers to choose from; without any, any JSON is one.
    pub choices: Vec<String>,
    /// The answer if there is none in time.
    pub default: Option<Json>,
    /// Who is to answer. People always may.
    pub answerer: Answerer,
    /// When it was stored.
    pub asked_at: Timestamp,
    /// Until when it waits, by the log's clock.
    pub deadline: Timestamp,
    /// Cancelled when an answer is not wanted any more: there is one, nobody waits for it, or it is another agent's to give.
    pub over: CancellationToken,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) trace: Trace,
}
impl fmt::Debug for ReceivedQuestion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedQuestion")
            .field("id", &self.id)
            .field("from", &self.from)
            .field("question", &self.question)
            .field("choices", &self.choices)
            .field("answerer", &self.answerer)
            .finish_non_exhaustive()
    }
}
impl ReceivedQuestion {
    /// What is said because of it, as part of its trace.
    pub fn messages(&self) -> Messages {
        Messages::following(self.carrier.clone(), self.trace.clone())
    }

    /// The question in the form of a task, for what works on tasks only. Its id is the question's, its type [`QUESTION_TYPE`], its
    /// payload `{"from", "question", "choices", "default"}`; it is cancelled when an answer is not wanted any more.
    pub fn as_task(&self) -> TaskContext {
        let left = self.deadline.as_micros() - self.carrier.now().as_micros();
        let left = Duration::from_micros(u64::try_from(left).unwrap_or(0));
        let payload = serde_json::json!({
            "from": self.from, "question": self.question, "choices": self.choices, "default": self.default,
        });
        let (mut task, _) = TaskContext::detached(QUESTION_TYPE, payload.into(), left);
        task.id = TaskId(self.id.0);
        task.deadline = self.deadline;
        task.cancelled = self.over.clone();
        task.voice.carrier = Some(self.carrier.clone());
        task.voice.trace = self.trace.clone();
        task
    }
}

/// Whether this can be the answer; why not.
fn check(choices: &[String], answer: &Json) -> Result<(), String> {
    let bytes = answer.len();
    if bytes > MESSAGE_BYTES_MAX {
        return Err(format!(
            "the answer has {bytes} bytes, at most {MESSAGE_BYTES_MAX} are taken"
        ));
    }
    if !is_choice(choices, answer) {
        return Err(format!(
            "the answer is none of the choices: {}",
            choices.join(", ")
        ));
    }
    Ok(())
}

/// What the handler answers. An error leaves the question open.
pub(crate) async fn handle(handler: OnQuestion, question: ReceivedQuestion) -> Option<Json> {
    let (id, choices) = (question.id, question.choices.clone());
    // The call itself may panic, too.
    let handled = AssertUnwindSafe(async move { handler(question).await });
    let why = match handled.catch_unwind().await {
        Ok(Ok(None)) => return None,
        Ok(Ok(Some(answer))) => match check(&choices, &answer) {
            Ok(()) => return Some(answer),
            Err(why) => why,
        },
        Ok(Err(error)) => error.message,
        Err(_) => "the handler panicked".to_owned(),
    };
    tracing::warn!(question.id = %id, why, "a question could not be answered: it stays open");
    None
}

impl OnLog {
    /// Answers a question, and reads the log on until that counts or does not. `false`: there was an answer before.
    pub(crate) async fn answer(
        &self,
        question_id: CommandId,
        answer: Json,
        trace: &Trace,
    ) -> Result<bool, AnswerError> {
        let command = CommandId(Uuid::now_v7());
        let me = &self.me;
        let subject = Subject::Command(me.place, CommandVerb::Answer);
        let body = Answer {
            question_id,
            answer,
            user_id: None,
            agent: Some((me.agent, self.incarnation)),
        };
        let message = me
            .traced(EventId(command.0), &subject, me.agent.0, trace, body.into())
            .map_err(|error| AnswerError::Refused(Problem::new("unwritable", error.to_string())))?;
        let mut from = join::append(&self.link, message).await? + 1;
        let mut filters = filter::questions(me.place, false);
        filters.push(Subject::Swarm(me.place, SwarmVerb::Refused).to_string());
        loop {
            let mut tail = self.link.log().tail(filters.clone(), from);
            while let Some(tailed) = tail.next().await {
                let message = match tailed {
                    Ok(Tailed::Message(message)) => message,
                    Ok(_) => continue,
                    Err(error @ LogError::Incompatible(_)) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%error, "cannot read what became of an answer");
                        continue;
                    }
                };
                from = message.sequence + 1;
                let Input::Event(recorded) = live::read(&message) else {
                    continue;
                };
                if recorded.event.causation != Some(command.0) {
                    continue;
                }
                match recorded.event.body {
                    Body::AgentAnswered(_) => return Ok(true),
                    Body::SwarmRefused(refused) if refused.problem.code == "already-answered" => {
                        return Ok(false);
                    }
                    Body::SwarmRefused(refused) => {
                        return Err(AnswerError::Refused(refused.problem));
                    }
                    _ => {}
                }
            }
            sleep(RETRY_PAUSE).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_answer_is_one_of_the_choices_and_not_too_large() {
        let choices = ["yes".to_owned(), "no".to_owned()];
        let answer = |value: serde_json::Value| Json::from(value);
        assert_eq!(check(&choices, &answer(json!("yes"))), Ok(()));
        assert_eq!(check(&[], &answer(json!({"any": 1}))), Ok(()));
        let none = check(&choices, &answer(json!("perhaps"))).expect_err("none of them");
        assert!(none.contains("none of the choices: yes, no"), "{none}");
        let largest = "x".repeat(MESSAGE_BYTES_MAX - 2);
        assert_eq!(check(&[], &answer(json!(largest))), Ok(()));
        let over = check(&[], &answer(json!(format!("{largest}x")))).expect_err("too large");
        assert!(over.contains("65537 bytes"), "{over}");
    }
}
