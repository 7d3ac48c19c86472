//! Messages from swarm to swarm. An agent writes them on its own subject, `swarm.msg.….<agent>.abroad`; the courier looks
//! whether they may go where they name, and says them there as `abroad`. Replies and receipts come back the same way.
//!
//! All gateways share one durable consumer, so each message is some gateway's, and nobody's death loses one: what is not
//! acknowledged within [`ACK_WAIT`] is given to another. What is written there carries an id that follows from the message's
//! ([`delivery_id`]), so that a second try within two minutes is a repeat to nats-server; a later one looks first whether the
//! message is there already. Between gateways no order is kept, from one gateway the messages of a batch go in theirs.

mod judge;

use std::{sync::Arc, time::Duration};

use async_nats::jetstream::{
    self, AckKind,
    consumer::{AckPolicy, Consumer, DeliverPolicy, ReplayPolicy, pull},
};
use futures::{FutureExt, StreamExt};
use swarm_events::{Event, EventId, Subject, Timestamp, subject::Sender};
use swarm_log::definitions::{EVENTS_STREAM, MESSAGES_STREAM};
use tokio::time::{Instant, sleep};

pub use judge::{Delivery, Refused, judge};

use crate::{
    app::App,
    bus::{Bus, KeepError, Stored},
    messages::{Read, message_of},
};

/// Name of the consumer that all gateways share. Their rights on the bus name it.
pub const CONSUMER: &str = "courier";
/// What it holds.
pub const FILTER: &str = "swarm.msg.*.*.*.*.abroad";
/// A message whose courier has not said that it is delivered is given to another after this long. It may be that the first one
/// is slow, and delivers it all the same: both store it under the same id, so that it is there once.
pub const ACK_WAIT: Duration = Duration::from_secs(10);
/// How long one message is tried to be stored: less than [`ACK_WAIT`].
const STORE_WAIT: Duration = Duration::from_secs(5);
/// Most messages under way at a time, in all gateways together: a few batches, so that one that hangs holds few.
pub const UNDER_WAY_MAX: i64 = 1_024;
/// Messages that one gateway takes at a time.
const BATCH: usize = 64;
/// How long a request for messages waits on the server.
const BATCH_WAIT: Duration = Duration::from_secs(10);
/// Pause before the consumer is asked for again, when nats-server is away.
const AWAY_PAUSE: Duration = Duration::from_secs(1);
/// When a message is tried again that could not be stored.
const AGAIN_AFTER: Duration = Duration::from_secs(2);
/// Messages of a swarm from abroad that are looked through at a time, for one that may be there.
const LOOK: usize = 500;

/// The id under which what follows from a message is known to nats-server. Not the message's own: under that its first copy,
/// in the same stream, is known.
pub fn delivery_id(message: EventId) -> String {
    format!("{message}.abroad")
}

/// Carries messages until the process stops. What it holds then it gives back, so that another takes it at once.
pub async fn run(app: Arc<App>) {
    let Some(bus) = app.bus.clone() else { return };
    // Before the log is folded to its end no swarm is known, and everything would be refused.
    let mut tail = app.tail.subscribe();
    tokio::select! {
        () = app.stop.cancelled() => return,
        _ = tail.wait_for(|tail| tail.caught_up) => {}
    }
    while !app.stop.is_cancelled() {
        if let Err(error) = carry(&app, &bus).await {
            tracing::debug!(error, "the courier waits for nats-server");
            tokio::select! {
                () = app.stop.cancelled() => {}
                () = sleep(AWAY_PAUSE) => {}
            }
        }
    }
}

/// The consumer, as every gateway defines it.
pub fn definition() -> pull::Config {
    pull::Config {
        durable_name: Some(CONSUMER.to_owned()),
        description: Some("Swarm: messages from swarm to swarm".to_owned()),
        deliver_policy: DeliverPolicy::All,
        ack_policy: AckPolicy::Explicit,
        ack_wait: ACK_WAIT,
        // What cannot be delivered is refused; what cannot be stored is tried until it is too old to be kept.
        max_deliver: -1,
        filter_subject: FILTER.to_owned(),
        replay_policy: ReplayPolicy::Instant,
        max_ack_pending: UNDER_WAY_MAX,
        ..pull::Config::default()
    }
}

/// Carries batch after batch, until the process stops or something is wrong with nats-server.
async fn carry(app: &App, bus: &Bus) -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let made = bus
        .context()
        .create_consumer_on_stream(definition(), MESSAGES_STREAM);
    let consumer: Consumer<pull::Config> = made.await.map_err(|error| text(&error))?;
    loop {
        let batch = consumer
            .batch()
            .max_messages(BATCH)
            .expires(BATCH_WAIT)
            .messages();
        let mut batch = batch.await.map_err(|error| text(&error))?;
        loop {
            let message = tokio::select! {
                biased;
                () = app.stop.cancelled() => {
                    give_back(&mut batch).await;
                    return Ok(());
                }
                message = batch.next() => message,
            };
            let Some(message) = message else { break };
            let message = message.map_err(|error| text(&error))?;
            let kind = match deliver(app, bus, &message).await {
                Ok(outcome) => {
                    metrics::counter!("swarm_gateway_courier_messages_total", "outcome" => outcome)
                        .increment(1);
                    AckKind::Ack
                }
                Err(error) => {
                    tracing::warn!(subject = %message.subject, %error, "a message to another swarm is tried again");
                    AckKind::Nak(Some(AGAIN_AFTER))
                }
            };
            // One that is lost has the message delivered again, which is found out.
            message.ack_with(kind).await.map_err(|error| text(&error))?;
        }
    }
}

/// Gives back what has come of a batch and is not carried.
async fn give_back(batch: &mut pull::Batch) {
    while let Some(Some(Ok(message))) = batch.next().now_or_never() {
        // What is not given back is given to another after a while.
        let _ = message.ack_with(AckKind::Nak(None)).await;
    }
}

/// Delivers one message, or has its sender told why not. What became of it, in a word.
async fn deliver(
    app: &App,
    bus: &Bus,
    message: &jetstream::Message,
) -> Result<&'static str, KeepError> {
    let broken = |error: async_nats::Error| KeepError::Refused(error.to_string());
    let info = message.info().map_err(broken)?;
    let stored = Stored {
        sequence: info.stream_sequence,
        at: Timestamp::from_micros(
            i64::try_from(info.published.unix_timestamp_nanos() / 1_000).unwrap_or(i64::MAX),
        ),
        subject: message.subject.to_string(),
        headers: message.headers.clone().unwrap_or_default(),
        payload: message.payload.clone(),
    };
    let read = match Read::of(&stored) {
        Ok(read) => read,
        Err(unreadable) => {
            // It has no id that its sender would know it by.
            tracing::warn!(subject = %stored.subject, problem = %unreadable.problem.code, "a message to another swarm cannot be read");
            return Ok("unreadable");
        }
    };
    let delivery = match carried(app, bus, &read, stored.at).await? {
        Ok(delivery) => Some(delivery),
        Err(refused) => refused.receipt(&read),
    };
    send(bus, app, delivery.as_ref(), &stored, info.delivered).await
}

/// What becomes of a message.
async fn carried(
    app: &App,
    bus: &Bus,
    read: &Read,
    stored: Timestamp,
) -> Result<Result<Delivery, Refused>, KeepError> {
    let Some(to) = read.sent.abroad else {
        return Ok(Err(Refused::new(
            "the message does not name the other swarm (abroad)",
        )));
    };
    let place = judge::target(read, to);
    let judged = || {
        let fold = app.fold.read();
        let found = fold.swarm(place.org, place.swarm);
        judge(found, read, to, stored, App::now())
    };
    match judged() {
        Err(refused) if !refused.told_by.is_empty() => {
            // It may have come a moment ago: then the log has it.
            meet(app, bus, &refused.told_by).await?;
            Ok(judged())
        }
        judged => Ok(judged),
    }
}

/// Waits until the fold has met the last message of each of these subjects of the log.
async fn meet(app: &App, bus: &Bus, subjects: &[String]) -> Result<(), KeepError> {
    let mut wanted = 0;
    for subject in subjects {
        let last = bus.last_of_subject(EVENTS_STREAM, subject).await;
        let last = last.map_err(|error| KeepError::Unknown(error.to_string()))?;
        wanted = last.map_or(wanted, |last| wanted.max(last.sequence));
    }
    let deadline = Instant::now() + STORE_WAIT;
    // The tail tells nobody how far it is; it is milliseconds behind.
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while app.fold.read().sequence() < wanted {
        if Instant::now() >= deadline {
            let behind = "the gateway's fold is behind the log".to_owned();
            return Err(KeepError::Unknown(behind));
        }
        look.tick().await;
    }
    Ok(())
}

/// Stores what follows from a message, once.
async fn send(
    bus: &Bus,
    app: &App,
    delivery: Option<&Delivery>,
    stored: &Stored,
    tries: i64,
) -> Result<&'static str, KeepError> {
    let Some(delivery) = delivery else {
        return Ok("dropped");
    };
    let outcome = if delivery.is_refusal {
        "refused"
    } else {
        "delivered"
    };
    if tries > 1 && is_there(bus, delivery, stored.sequence).await? {
        return Ok("repeated");
    }
    let subject = Subject::Message(delivery.place, Sender::Abroad, delivery.to);
    let mut event = Event::new(
        delivery.id,
        app.source.clone(),
        App::now(),
        &subject,
        delivery.about,
        delivery.sent.clone(),
    );
    event.correlation = delivery.correlation;
    event.traceparent.clone_from(&delivery.traceparent);
    let (headers, payload) = message_of(&event, &delivery_id(delivery.id))
        .map_err(|problem| KeepError::Refused(problem.problem.detail.clone()))?;
    let deadline = Instant::now() + STORE_WAIT;
    let to = subject.to_string();
    bus.keep(MESSAGES_STREAM, &to, &headers, &payload, deadline)
        .await?;
    Ok(outcome)
}

/// Whether an earlier try has stored it: it is behind the message that it follows from.
async fn is_there(bus: &Bus, delivery: &Delivery, after: u64) -> Result<bool, KeepError> {
    let filters = [format!("swarm.msg.{}.abroad.>", delivery.place)];
    let mut from = after.saturating_add(1);
    loop {
        let page = bus.page(MESSAGES_STREAM, &filters, from, LOOK).await;
        let page = page.map_err(|error| KeepError::Unknown(error.to_string()))?;
        let mut read = page.items.iter().filter_map(|stored| Read::of(stored).ok());
        if read.any(|read| read.id == delivery.id) {
            return Ok(true);
        }
        match page.items.last() {
            Some(last) if page.more => from = last.sequence.saturating_add(1),
            _ => return Ok(false),
        }
    }
}
