//! Joining the swarm: the command, and waiting for its answer.

use std::{convert::Infallible, time::Duration};

use async_nats::Subscriber;
use futures::StreamExt;
use swarm_events::{
    Body, Input, Problem,
    agent::Joined,
    command,
    ids::{CommandId, EventId},
    subject::{AgentVerb, CommandVerb, Subject, SwarmVerb},
};
use swarm_log::{AppendError, Log, LogError, Message, StoredMessage, Tailed};
use tokio::time::{Instant, sleep, sleep_until};
use uuid::Uuid;

use crate::{link::Link, live, wire::Identity};

/// The live answer is awaited this long before the log is read for it: a refusal, or a hint that was lost.
const HINT_WAIT: Duration = Duration::from_millis(500);
/// Pause before a command without an ack is sent again, and before a broken tail is made again.
pub(crate) const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// How often it is said that the answer is still awaited.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why there is no incarnation.
#[derive(Clone, Debug)]
pub(crate) enum NotJoined {
    Refused(Problem),
    Log(LogError),
}

/// This process's place in the swarm.
pub(crate) struct Place {
    /// Sequence of `joined`.
    pub(crate) sequence: u64,
    pub(crate) data: Joined,
}

enum Answer {
    Joined(Box<Place>),
    Refused(Problem),
}

/// Sends the command and waits for the answer, for as long as it takes: the coordinator may be down. `verdicts` is the live
/// subscription to the agent's own `agent.*` subjects, made before.
pub(crate) async fn join(
    link: &Link,
    me: &Identity,
    profile: command::Join,
    verdicts: &mut Subscriber,
) -> Result<Place, NotJoined> {
    let command = CommandId(Uuid::now_v7());
    let subject = Subject::Command(me.place, CommandVerb::Join);
    let body = command::Join {
        instance: me.instance,
        ..profile
    };
    let message = me
        .message(EventId(command.0), &subject, me.agent.0, None, body.into())
        .map_err(unwritable)?;
    let sequence = append(link, message).await.map_err(NotJoined::Log)?;
    tracing::debug!(command.id = %command, sequence, "asked to join");
    let answer = |message: &StoredMessage| answer(message, me, command);
    let hint = async {
        while let Some(message) = verdicts.next().await {
            if let Some(answer) =
                live::republished(&message).and_then(|(message, _)| answer(&message))
            {
                return answer;
            }
        }
        std::future::pending().await // the client has been closed: the tail says so
    };
    let read = async {
        sleep(HINT_WAIT).await;
        let filters = vec![
            Subject::Agent(me.place, AgentVerb::Joined, me.agent).to_string(),
            Subject::Swarm(me.place, SwarmVerb::Refused).to_string(),
        ];
        loop {
            let mut tail = link.log().tail(filters.clone(), sequence + 1);
            while let Some(tailed) = tail.next().await {
                match tailed {
                    Ok(Tailed::Message(message)) => {
                        if let Some(answer) = answer(&message) {
                            return Ok(answer);
                        }
                    }
                    Ok(_) => {}
                    Err(error @ LogError::Incompatible(_)) => return Err(NotJoined::Log(error)),
                    Err(error) => tracing::warn!(%error, "cannot read the answer to joining"),
                }
            }
            sleep(RETRY_PAUSE).await;
        }
    };
    let patience = patience(me);
    let answer = tokio::select! {
        answer = hint => answer,
        answer = read => answer?,
        never = patience => match never {},
    };
    match answer {
        Answer::Joined(place) => Ok(*place),
        Answer::Refused(problem) => Err(NotJoined::Refused(problem)),
    }
}

async fn patience(me: &Identity) -> Infallible {
    loop {
        sleep(PATIENCE).await;
        tracing::info!(agent.id = %me.agent, swarm.id = %me.place.swarm, "waiting for the coordinator to let this agent join");
    }
}

fn unwritable(error: serde_json::Error) -> NotJoined {
    NotJoined::Refused(Problem::new("unwritable", error.to_string()).field("metadata"))
}

fn answer(message: &StoredMessage, me: &Identity, command: CommandId) -> Option<Answer> {
    let Input::Event(recorded) = live::read(message) else {
        return None;
    };
    match recorded.event.body {
        Body::AgentJoined(data) if data.instance == me.instance => {
            Some(Answer::Joined(Box::new(Place {
                sequence: recorded.sequence,
                data,
            })))
        }
        Body::SwarmRefused(data) if recorded.event.causation == Some(command.0) => {
            Some(Answer::Refused(data.problem))
        }
        _ => None,
    }
}

/// Appends a command, again and again under the same id until its fate is known. Answers with its sequence.
pub(crate) async fn append(link: &Link, message: Message) -> Result<u64, LogError> {
    loop {
        let outcome = link.log().append(vec![message.clone()]).await.pop();
        match outcome {
            Some(Ok(appended)) => return Ok(appended.sequence),
            Some(Err(error @ (AppendError::TooLarge { .. } | AppendError::Refused { .. }))) => {
                return Err(LogError::Refused(error.to_string()));
            }
            Some(Err(error)) => tracing::warn!(%error, "a command is sent again"),
            None => {}
        }
        sleep(RETRY_PAUSE).await;
    }
}

/// Tells the swarm that this incarnation goes, and waits for the ack, `wait` at the most.
pub(crate) async fn leave(
    link: &Link,
    me: &Identity,
    incarnation: u64,
    reason: &str,
    wait: Duration,
) {
    let subject = Subject::Command(me.place, CommandVerb::Leave);
    let body = command::Leave {
        incarnation,
        reason: Some(reason.to_owned()),
    };
    let id = EventId(Uuid::now_v7());
    let Ok(message) = me.message(id, &subject, me.agent.0, None, body.into()) else {
        return;
    };
    let until = Instant::now() + wait;
    tokio::select! {
        sent = append(link, message) => {
            if let Err(error) = sent {
                tracing::warn!(%error, "could not say that this agent leaves: it will be held to be dead in a while");
            }
        }
        () = sleep_until(until) => tracing::warn!("nobody heard that this agent leaves: it will be held to be dead in a while"),
    }
}
