//! What the protocol asks of the log, as futures that answer once.

use futures::{FutureExt, StreamExt, future::BoxFuture};
use swarm_events::subject::{AgentVerb, Place, Subject, SwarmVerb, TaskVerb};
use swarm_log::{AppendError, Appended, Log, LogError, StoredMessage, Tailed};

use crate::{
    link::Link,
    live,
    profile::{self, Wish},
    protocol::{Own, Verdict, Write, Written},
    session::JUDGING,
    wire::Identity,
};

/// Messages that one catch-up brings at the most; the rest is asked for again.
const CATCH_UP_MAX: usize = 1_000;

/// An answer.
pub(crate) enum Done {
    Written(Vec<(u64, Written)>),
    LookedUp(u64, Option<Option<u64>>),
    CaughtUp(Own, Vec<StoredMessage>, bool),
    Checked(Option<(Option<u64>, u64)>, Vec<StoredMessage>),
    Verdict(Verdict),
    /// A change of the agent has been answered, to whoever asked for it.
    Updated,
    /// What the log last said of the swarm's settings.
    Settings(Vec<StoredMessage>),
}

const fn verb(own: Own) -> TaskVerb {
    match own {
        Own::Assigned => TaskVerb::Assigned,
        Own::Withdrawn => TaskVerb::Withdrawn,
    }
}

/// Appends in one call, at once; the future only waits for the outcomes.
pub(crate) fn append(
    link: &Link,
    me: Identity,
    incarnation: u64,
    writes: Vec<Write>,
) -> BoxFuture<'static, Done> {
    let mut messages = Vec::with_capacity(writes.len());
    let mut outcomes = Vec::with_capacity(writes.len());
    let mut sent = Vec::with_capacity(writes.len());
    for write in writes {
        match me.checked(&write, incarnation) {
            Ok(message) => {
                messages.push(message);
                sent.push(write);
            }
            Err(error) => outcomes.push((
                write.assignment.sequence,
                Written::Refused(error.to_string()),
            )),
        }
    }
    let appended = link.log().append(messages);
    let link = link.clone();
    async move {
        for (write, result) in sent.iter().zip(appended.await) {
            outcomes.push((
                write.assignment.sequence,
                written(&link, &me, write, result).await,
            ));
        }
        Done::Written(outcomes)
    }
    .boxed()
}

async fn written(
    link: &Link,
    me: &Identity,
    write: &Write,
    result: Result<Appended, AppendError>,
) -> Written {
    match result {
        Ok(Appended {
            sequence,
            duplicate: false,
        }) => Written::Stored(sequence),
        Ok(Appended {
            sequence,
            duplicate: true,
        }) => match link.log().get(sequence).await {
            Ok(Some(message)) if is_ours(&message, me, write) => Written::Stored(sequence),
            Ok(_) => Written::Refused(format!("another message at {sequence} has its id")),
            Err(_) => Written::Unknown,
        },
        Err(AppendError::Fenced { .. }) => Written::Fenced,
        Err(AppendError::FenceBusy { .. }) => Written::Busy,
        Err(AppendError::Unknown { .. }) => Written::Unknown,
        Err(error @ AppendError::Full { .. }) => {
            tracing::warn!(%error, "the log takes nothing: trying again");
            Written::Full
        }
        Err(error @ (AppendError::TooLarge { .. } | AppendError::Refused { .. })) => {
            tracing::error!(%error, task.id = %write.assignment.task, "refused");
            Written::Refused(error.to_string())
        }
    }
}

/// Whether the stored message is this write.
fn is_ours(message: &StoredMessage, me: &Identity, write: &Write) -> bool {
    message.message_id.as_deref() == Some(write.id.to_string().as_str())
        && *message.subject == *me.subject_of(write).to_string()
}

/// Reads `own` from `from` to its end.
pub(crate) async fn catch_up(link: Link, me: Identity, own: Own, from: u64) -> Done {
    let mut tail = link
        .log()
        .tail(vec![me.task_subject(verb(own)).to_string()], from);
    let mut messages = Vec::new();
    let complete = loop {
        match tail.next().await {
            Some(Ok(Tailed::Message(message))) => messages.push(message),
            Some(Ok(Tailed::CaughtUp)) => break true,
            Some(Ok(Tailed::Interrupted | Tailed::Resumed)) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot catch up yet");
                break false;
            }
            None => break false,
        }
        if messages.len() >= CATCH_UP_MAX {
            break false;
        }
    };
    Done::CaughtUp(own, messages, complete)
}

/// Last sequences of `assigned` (if wanted) and `withdrawn`.
pub(crate) async fn last_of_own(
    link: &Link,
    me: &Identity,
    assigned: bool,
) -> Result<(Option<u64>, u64), LogError> {
    let last = async |own| {
        let message = link
            .last_of(&me.task_subject(verb(own)).to_string())
            .await?;
        Ok::<_, LogError>(message.map_or(0, |message| message.sequence))
    };
    let (assigned, withdrawn) = futures::future::try_join(
        async {
            if assigned {
                last(Own::Assigned).await.map(Some)
            } else {
                Ok(None)
            }
        },
        last(Own::Withdrawn),
    )
    .await?;
    Ok((assigned, withdrawn))
}

/// Looks at the last messages of the own subjects.
pub(crate) async fn check(link: Link, me: Identity, assigned: bool, verdicts: bool) -> Done {
    let looked = async {
        let found = last_of_own(&link, &me, assigned).await?;
        let mut judged = Vec::new();
        for verb in if verdicts { &JUDGING[..] } else { &[] } {
            judged.extend(
                link.last_of(&Subject::Agent(me.place, *verb, me.agent).to_string())
                    .await?,
            );
        }
        Ok::<_, LogError>((found, judged))
    };
    match looked.await {
        Ok((found, judged)) => Done::Checked(Some(found), judged),
        Err(error) => {
            tracing::debug!(%error, "cannot look at the own subjects");
            Done::Checked(None, Vec::new())
        }
    }
}

/// Whether the event `write.id` is stored behind its assignment.
pub(crate) async fn look_up(link: Link, me: Identity, write: Write) -> Done {
    let assignment = write.assignment.sequence;
    let mut tail = link
        .log()
        .tail(vec![me.subject_of(&write).to_string()], assignment + 1);
    let found = loop {
        match tail.next().await {
            Some(Ok(Tailed::Message(message))) if is_ours(&message, &me, &write) => {
                break Some(Some(message.sequence));
            }
            Some(Ok(Tailed::CaughtUp)) => break Some(None),
            Some(Ok(_)) => {}
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot look up a write yet");
                break None;
            }
            None => break None,
        }
    };
    Done::LookedUp(assignment, found)
}

/// Tells a removal that follows health's verdict from one that somebody asked for.
pub(crate) async fn removed(link: Link, me: Identity, incarnation: u64, reason: String) -> Done {
    let failed = link
        .last_of(&Subject::Agent(me.place, AgentVerb::Failed, me.agent).to_string())
        .await;
    let judged = failed
        .ok()
        .flatten()
        .and_then(|message| live::verdict(&message));
    Done::Verdict(match judged {
        Some(
            verdict @ Verdict::Failed {
                incarnation: failed,
            },
        ) if failed == incarnation => verdict,
        _ => Verdict::Removed {
            incarnation,
            reason,
        },
    })
}

/// Reads what the log last said of the swarm's settings. A failure is repaired at the next reconnect, or by the next change.
pub(crate) async fn settings(link: Link, place: Place) -> Done {
    let mut messages = Vec::new();
    for verb in [SwarmVerb::Created, SwarmVerb::Updated] {
        match link.last_of(&Subject::Swarm(place, verb).to_string()).await {
            Ok(message) => messages.extend(message),
            Err(error) => {
                tracing::warn!(%error, "the swarm's settings cannot be read: the defaults hold")
            }
        }
    }
    Done::Settings(messages)
}

/// Asks for a change of the agent, and passes on the answer.
pub(crate) async fn update(link: Link, me: Identity, incarnation: u64, wish: Wish) -> Done {
    let Wish { patch, mut answer } = wish;
    tokio::select! {
        answered = profile::update(&link, &me, incarnation, patch) => {
            let _ = answer.send(answered); // whoever asked may have gone meanwhile
        }
        () = answer.closed() => {}
    }
    Done::Updated
}
