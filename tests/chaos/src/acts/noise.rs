//! Repeats, garbage, wrong places and over-long payloads, while the distributor is killed.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use futures::StreamExt;
use serde_json::json;
use swarm_events::{
    Body, Input, Partition, Place, Subject, TaskId,
    subject::{CommandVerb, TaskVerb},
};
use swarm_log::{Log, Message, Tailed};
use tokio::time::{Instant, timeout_at};

use super::processes;
use crate::{
    bus::submission,
    catalog::{Part, Target},
    follow::as_input,
    stage::{PATIENCE, Stage},
};

/// Tasks that are published one to three times.
const REPEATED: usize = 60;
/// Rounds of everything that is no event.
const ROUNDS: usize = 5;
/// More than a payload may have, less than a message may have.
const OVERLONG_BYTES: usize = swarm_events::task::PAYLOAD_BYTES_MAX + 1;

/// Publishes all of it around a kill of the distributor; over when each repeated task has ended once and everything else
/// was answered with a refusal.
pub async fn make(stage: &Stage<'_>) -> anyhow::Result<String> {
    let from = stage.bus.log().info().await?.last_sequence + 1;
    let mut tasks = BTreeSet::new();
    let mut messages = Vec::new();
    for number in 0..REPEATED {
        let (task, message) = submission(stage.place, json!({"number": number}))?;
        tasks.insert(task);
        for copy in 0..=number % 3 {
            let mut message = message.clone();
            // Of the copies some carry the id by which the server knows a repeat, and some do not.
            if (number + copy).is_multiple_of(2) {
                message.message_id = None;
            }
            messages.push(message);
        }
    }
    let published = messages.len();
    let (before, after) = messages.split_at(published / 2);
    let mut stored_garbage = 0;
    publish(stage, before.to_vec()).await?;
    stored_garbage += publish_garbage(stage).await?;
    let owner = Target {
        part: Part::Distributor,
        standby: false,
    };
    let (killed, published_after, garbage_after) = tokio::join!(
        processes::kill(stage, std::slice::from_ref(&owner)),
        publish(stage, after.to_vec()),
        publish_garbage(stage)
    );
    killed?;
    published_after?;
    stored_garbage += garbage_after?;
    stage
        .follower
        .until("every repeated task has ended", PATIENCE, |fold| {
            tasks
                .iter()
                .all(|id| fold.end_of(*id).is_some())
                .then_some(())
        })
        .await?;
    let refused = refusals(stage, from, stored_garbage).await?;
    Ok(format!(
        "{REPEATED} tasks in {published} messages; {refused} refusals for {stored_garbage} messages that are no event"
    ))
}

/// Sends each until it is stored.
async fn publish(stage: &Stage<'_>, messages: Vec<Message>) -> anyhow::Result<()> {
    for message in messages {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let outcome = stage.bus.log().append(vec![message.clone()]).await;
            match outcome.into_iter().next().context("no outcome")? {
                Ok(_) => break,
                Err(error) => ensure!(Instant::now() < deadline, "{error}"),
            }
        }
    }
    Ok(())
}

/// Answers with the number of messages that are stored and must be refused.
async fn publish_garbage(stage: &Stage<'_>) -> anyhow::Result<usize> {
    let mut stored = 0;
    for _ in 0..ROUNDS {
        let messages = garbage(stage.place)?;
        stored += messages.len();
        publish(stage, messages).await?;
        // This one is over the server's limit: the client refuses it, and nothing is stored.
        let subject = Subject::Task(stage.place, TaskVerb::Submitted, None).to_string();
        let message = plain(&subject, "x".repeat(swarm_log::PAYLOAD_BYTES_MAX + 1));
        let refused = stage.bus.log().append(vec![message]).await;
        ensure!(
            refused.iter().all(Result::is_err),
            "a message over the limit was stored: {refused:?}"
        );
    }
    Ok(stored)
}

fn plain(subject: &str, payload: impl Into<String>) -> Message {
    Message {
        subject: subject.to_owned(),
        payload: payload.into().into(),
        message_id: None,
        fence: None,
    }
}

fn garbage(place: Place) -> anyhow::Result<Vec<Message>> {
    let submitted = Subject::Task(place, TaskVerb::Submitted, None).to_string();
    let cancel = Subject::Command(place, CommandVerb::Cancel).to_string();
    let create = Subject::Command(place, CommandVerb::Create).to_string();
    let next = Partition::new((place.partition.number() + 1) % 64).context("a partition")?;
    let elsewhere = Place {
        partition: next,
        ..place
    };
    let (_, mut displaced) = submission(place, json!({}))?;
    displaced.subject = Subject::Task(elsewhere, TaskVerb::Submitted, None).to_string();
    let (_, overlong) = submission(place, json!("x".repeat(OVERLONG_BYTES)))?;
    let (_, good) = submission(place, json!({}))?;
    let text = String::from_utf8(good.payload.to_vec())?;
    let task = TaskId(uuid::Uuid::now_v7());
    Ok(vec![
        plain(&submitted, "\u{0}\u{1} no JSON"),
        plain(&submitted, "{}"),
        plain(&submitted, "[[[[[[[["),
        plain(
            &submitted,
            text.replace("task.submitted.v2", "task.imagined.v9"),
        ),
        plain(
            &submitted,
            text.replace(&place.swarm.to_string(), &task.to_string()),
        ),
        plain(
            &submitted,
            text.replace("\"max_attempts\":", "\"max_attempts\":-"),
        ),
        plain(&cancel, "garbage"),
        plain(&create, "{\"specversion\":\"1.0\"}"),
        displaced,
        overlong,
    ])
}

/// Waits until refusals cover so many messages; answers with their sum.
async fn refusals(stage: &Stage<'_>, from: u64, wanted: usize) -> anyhow::Result<usize> {
    let org = stage.place.org;
    let filters = vec![
        format!("swarm.evt.*.{org}.*.task.{}", TaskVerb::Refused),
        format!("swarm.evt.*.{org}.*.task.{}", TaskVerb::Rejected),
        format!(
            "swarm.evt.*.{org}.*.swarm.{}",
            swarm_events::subject::SwarmVerb::Refused
        ),
    ];
    let mut tail = stage.bus.log().tail(filters, from);
    let deadline = Instant::now() + PATIENCE;
    let mut sum = 0;
    while sum < wanted {
        let next = timeout_at(deadline, tail.next()).await;
        let tailed = next
            .with_context(|| {
                format!("only {sum} of {wanted} messages that are no event were refused")
            })?
            .context("the log cannot be followed any more")??;
        let Tailed::Message(stored) = tailed else {
            continue;
        };
        let Input::Event(recorded) = as_input(&stored) else {
            continue;
        };
        sum += match recorded.event.body {
            Body::TaskRefused(refused) => refused.count as usize,
            Body::SwarmRefused(refused) => refused.count as usize,
            Body::TaskRejected(_) => 1,
            _ => 0,
        };
    }
    Ok(sum)
}
