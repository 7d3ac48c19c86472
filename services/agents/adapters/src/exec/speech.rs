//! What a command says to others and asks, by lines on its stdout.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use swarm_agent_sdk::{Answerer, Part, TaskContext, TaskError, To};
use swarm_events::Json;
use tokio::{sync::mpsc, task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;

use crate::output::Control;

/// Sayings that wait for those before them. Beyond it the command waits.
const SAYINGS_MAX: usize = 64;
/// How long what a command said before it ended is still tried to be sent.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// A line that others are meant by.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Saying {
    Message(Value),
    Ask(Value),
}

impl Saying {
    pub(super) fn of(control: &Control) -> Option<Self> {
        if let Some(ask) = &control.ask {
            return Some(Self::Ask(ask.clone()));
        }
        control.said().map(|message| Self::Message(message.clone()))
    }
}

/// `{"to"?, "topic"?, "body"}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Message {
    to: Option<String>,
    topic: Option<String>,
    #[serde(default)]
    body: Value,
}

/// `{"question", "answerer"?, "choices"?, "default"?, "timeout_ms"?}`
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    question: String,
    #[serde(default)]
    answerer: Answerer,
    #[serde(default)]
    choices: Vec<String>,
    default: Option<Value>,
    timeout_ms: Option<u64>,
}

/// Sends what the command says, in order.
pub(super) struct Speech {
    speaking: JoinHandle<()>,
    ended: CancellationToken,
}

impl Speech {
    /// Answers go to `answers`, if the command can read them.
    pub(super) fn new(
        task: TaskContext,
        answers: Option<mpsc::Sender<Vec<u8>>>,
    ) -> (Self, mpsc::Sender<Saying>) {
        let (say, mut said) = mpsc::channel(SAYINGS_MAX);
        let ended = CancellationToken::new();
        let gone = ended.clone();
        let speaking = tokio::spawn(async move {
            while let Some(saying) = said.recv().await {
                let asks = matches!(saying, Saying::Ask(_));
                tokio::select! {
                    () = self::say(&task, saying, answers.as_ref()) => {}
                    // Nobody reads the answer.
                    () = gone.cancelled(), if asks => {}
                }
            }
        });
        (Self { speaking, ended }, say)
    }

    /// Nothing more is said.
    pub(super) fn abort(self) {
        self.speaking.abort();
    }

    /// The command has ended.
    pub(super) async fn end(self) {
        self.ended.cancel();
        let abort = self.speaking.abort_handle();
        if timeout(LAST_WORDS, self.speaking).await.is_err() {
            tracing::warn!("a command has ended, and what it said could not be sent");
            abort.abort();
        }
    }
}

/// Sends one of them; errors and answers go to the command, if it can read them.
pub(super) async fn say(
    task: &TaskContext,
    saying: Saying,
    answers: Option<&mpsc::Sender<Vec<u8>>>,
) {
    let answer = match saying {
        Saying::Message(message) => match send(task, message).await {
            Ok(()) => return,
            Err(error) => {
                tracing::warn!(task.id = %task.id, error, "a command's message was not sent");
                json!({ "error": error })
            }
        },
        Saying::Ask(_) if answers.is_none() => {
            tracing::warn!(task.id = %task.id, "a command asks something, and its stdin is closed: nobody is asked. Set exec.stdin to open in the agent's metadata");
            return;
        }
        Saying::Ask(ask) => match self::ask(task, ask).await {
            Ok(answer) => answer,
            Err(error) => json!({ "error": error }),
        },
    };
    if let Some(answers) = answers {
        let mut line = answer.to_string().into_bytes();
        line.push(b'\n');
        let _ = answers.send(line).await; // it may have closed its stdin
    }
}

async fn send(task: &TaskContext, message: Value) -> Result<(), String> {
    let Message { to, topic, body } =
        serde_json::from_value(message).map_err(|error| format!("message: {error}"))?;
    let to = match (&to, &topic) {
        (Some(to), _) => To::from(to.as_str()),
        (None, Some(topic)) => To::Topic(topic.clone()),
        (None, None) => return Err("message: it says neither to nor topic".to_owned()),
    };
    let mut draft = task.messages().message(to);
    if let Some(topic) = topic {
        draft = draft.topic(topic);
    }
    let sent = draft.send(body).await;
    sent.map(|_| ()).map_err(|error| error.to_string())
}

async fn ask(task: &TaskContext, ask: Value) -> Result<Value, String> {
    let Asked {
        question,
        answerer,
        choices,
        default,
        timeout_ms,
    } = serde_json::from_value(ask).map_err(|error| format!("ask: {error}"))?;
    let mut asked = task.ask(question).of(answerer).choices(choices);
    if let Some(default) = default {
        asked = asked.default(default);
    }
    if let Some(millis) = timeout_ms {
        asked = asked.timeout(Duration::from_millis(millis));
    }
    let answered = asked.answer().await.map_err(|error| error.to_string())?;
    Ok(json!({ "answer": answered.answer, "by": answered.by }))
}

/// The parts that a result hands the task on in: `{"split": […]}` and nothing else.
pub(super) fn parts(result: &Json) -> Result<Option<Vec<Part>>, TaskError> {
    let Value::Object(mut members) = result.to_value() else {
        return Ok(None);
    };
    if members.len() != 1 {
        return Ok(None);
    }
    let Some(parts) = members.remove("split") else {
        return Ok(None);
    };
    serde_json::from_value(parts)
        .map(Some)
        .map_err(|error| TaskError::permanent(format!("split: {error}")))
}
