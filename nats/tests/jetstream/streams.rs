//! What a real server makes of our streams and bucket: provisioning, republishing, filters, the last of each subject.

use crate::support::{connection, message, messages_until, open, server, subject};
use async_nats::jetstream::stream::Config;
use futures::StreamExt;
use swarm_log::{
    Log, LogError, Tailed,
    definitions::{self, EVENTS_STREAM, Provision},
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::{provision, provision_missing},
};

#[tokio::test]
async fn provisioning_is_idempotent() {
    let server = server(Durability::Speed).await;
    let connection = connection(&server.url).await;
    let context = async_nats::jetstream::new(connection.client().clone());
    let error = JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1))
        .await
        .err()
        .expect("nothing there");
    assert!(matches!(error, LogError::Incompatible(_)), "{error}");
    // Small: the server reserves what a stream may grow to, and the disk of the machine may be small too.
    let settings = Provision {
        max_bytes: 64 << 20,
        ..Provision::default()
    };
    // At once and again.
    let (a, b) = tokio::join!(
        provision(&context, &settings),
        provision(&context, &settings)
    );
    a.and(b).expect("created");
    provision(&context, &settings).await.expect("identical");
    for wanted in definitions::streams(&settings) {
        let stream = context.get_stream(&wanted.name).await.expect("there");
        let config = &stream.cached_info().config;
        assert_eq!(
            (config.num_replicas, config.storage, config.max_bytes),
            (1, wanted.storage, wanted.max_bytes),
            "{}",
            wanted.name
        );
    }
    let presence = context
        .get_key_value(definitions::PRESENCE_BUCKET)
        .await
        .expect("a KV bucket");
    let revision = presence
        .create("distributor.a", "{}".into())
        .await
        .expect("usable");
    presence
        .update("distributor.a", "{1}".into(), revision)
        .await
        .expect("usable");
    // Limits go up, never down.
    let raised = Provision {
        max_bytes: settings.max_bytes * 2,
        ..settings.clone()
    };
    provision(&context, &raised).await.expect("raised");
    provision(&context, &settings)
        .await
        .expect("the operator's higher limit stays");
    let stream = context.get_stream(EVENTS_STREAM).await.expect("there");
    assert_eq!(stream.cached_info().config.max_bytes, raised.max_bytes);
}

#[tokio::test]
async fn given_an_installation_of_an_earlier_version_then_only_what_it_lacks_is_made() {
    let server = server(Durability::Speed).await;
    let connection = connection(&server.url).await;
    let context = async_nats::jetstream::new(connection.client().clone());
    let settings = Provision {
        max_bytes: 64 << 20,
        ..Provision::default()
    };
    provision(&context, &settings).await.expect("created");
    let blackboard = format!("KV_{}", definitions::BLACKBOARD_BUCKET);
    let later = [definitions::MESSAGES_STREAM, &blackboard];
    for stream in later {
        context.delete_stream(stream).await.expect("deleted");
    }
    // What there is keeps its limits, whatever is wanted now.
    let wanted = Provision {
        max_bytes: settings.max_bytes * 2,
        ..settings.clone()
    };
    let made = provision_missing(&context, &wanted).await;
    assert_eq!(made.expect("made"), later);
    let stream = context.get_stream(EVENTS_STREAM).await.expect("there");
    assert_eq!(stream.cached_info().config.max_bytes, settings.max_bytes);
    let made = provision_missing(&context, &wanted).await;
    assert_eq!(made.expect("nothing to do"), [""; 0]);
}

#[tokio::test]
async fn an_incompatible_stream_is_refused_with_both_configurations() {
    let server = server(Durability::Speed).await;
    let connection = connection(&server.url).await;
    let context = async_nats::jetstream::new(connection.client().clone());
    let foreign = Config {
        name: EVENTS_STREAM.into(),
        subjects: vec!["swarm.evt.>".into(), "orders.>".into()],
        ..Config::default()
    };
    context.create_stream(foreign).await.expect("created");
    let error = provision(&context, &Provision::default())
        .await
        .expect_err("must be refused");
    let LogError::Incompatible(text) = &error else {
        panic!("{error}")
    };
    for part in [
        EVENTS_STREAM,
        "subjects",
        "allow_atomic",
        "existing: {",
        "orders.>",
        "needed:   {",
        "swarm.ctl.>",
    ] {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
}

#[tokio::test]
async fn stored_events_are_republished() {
    let server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let assigned = subject("task.assigned.a");
    let mut live = log
        .client()
        .subscribe(assigned.replacen("swarm.evt", "swarm.live.evt", 1))
        .await
        .expect("subscribed");
    log.client().flush().await.expect("flushed");
    let outcomes = log
        .append(vec![
            message(&assigned, "1"),
            message(&subject("task.submitted"), "-"),
            message(&assigned, "2"),
        ])
        .await;
    let sequences: Vec<_> = outcomes
        .into_iter()
        .map(|outcome| outcome.expect("stored").sequence)
        .collect();
    for (body, sequence, previous) in [("1", sequences[0], 0), ("2", sequences[2], sequences[0])] {
        let message = live.next().await.expect("republished");
        let header = |name: &str| {
            message
                .headers
                .as_ref()
                .and_then(|headers| headers.get(name))
                .map(|value| value.as_str().to_owned())
        };
        assert_eq!(&message.payload[..], body.as_bytes());
        assert_eq!(header("Nats-Stream").as_deref(), Some(EVENTS_STREAM));
        assert_eq!(header("Nats-Subject"), Some(assigned.clone()));
        assert_eq!(header("Nats-Sequence"), Some(sequence.to_string()));
        assert_eq!(header("Nats-Last-Sequence"), Some(previous.to_string()));
        assert!(header("Nats-Time-Stamp").is_some());
    }
}

#[tokio::test]
async fn messages_are_kept_republished_and_known_by_their_ids() {
    let server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let subject = "swarm.msg.00.o.s.a.b";
    let live = subject.replacen("swarm.msg", "swarm.live.msg", 1);
    let mut live = log.client().subscribe(live).await.expect("subscribed");
    log.client().flush().await.expect("flushed");
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Msg-Id", "1");
    for (body, duplicate) in [("first", false), ("again", true)] {
        let context = log.context();
        let ack = context
            .publish_with_headers(subject, headers.clone(), body.into())
            .await
            .expect("sent");
        let ack = ack.await.expect("stored");
        assert_eq!((ack.sequence, ack.duplicate), (1, duplicate));
        assert_eq!(ack.stream, definitions::MESSAGES_STREAM);
    }
    let seen = live.next().await.expect("republished");
    let header = |name: &str| seen.headers.as_ref().and_then(|h| h.get(name));
    assert_eq!(&seen.payload[..], b"first");
    assert_eq!(
        header("Nats-Sequence").map(|value| value.as_str()),
        Some("1")
    );
    // The largest body has room, with its envelope; one that is larger by as much again has not.
    let limit = swarm_events::message::MESSAGE_BYTES_MAX;
    for (bytes, taken) in [(limit + 8 * 1024, true), (2 * limit, false)] {
        let ack = log
            .context()
            .publish(subject, vec![b'x'; bytes].into())
            .await;
        assert_eq!(ack.expect("sent").await.is_ok(), taken, "{bytes}");
    }
}

#[tokio::test]
async fn a_blackboard_compares_keeps_the_last_value_and_forgets_deletions() {
    let server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let board = log
        .context()
        .get_key_value(definitions::BLACKBOARD_BUCKET)
        .await
        .expect("there");
    let first = board.create("o.s.plan", "1".into()).await.expect("new");
    board
        .create("o.s.plan", "2".into())
        .await
        .expect_err("there is one");
    let second = board
        .update("o.s.plan", "2".into(), first)
        .await
        .expect("the revision is right");
    board
        .update("o.s.plan", "3".into(), first)
        .await
        .expect_err("the revision is old");
    // A value at the limit is taken, with the headers of a comparison; a larger one is not.
    let largest = vec![b'x'; definitions::BLACKBOARD_BYTES_MAX];
    let at_limit = board.update("o.s.plan", largest.clone().into(), second);
    at_limit.await.expect("taken");
    let over = [largest.as_slice(), &[b'x'; 8 * 1024]].concat();
    board
        .put("o.s.plan", over.into())
        .await
        .expect_err("too large");
    // A deletion is a mark that goes by itself.
    board
        .purge_with_ttl("o.s.plan", std::time::Duration::from_secs(1))
        .await
        .expect("deleted");
    assert_eq!(board.get("o.s.plan").await.expect("readable"), None);
    let gone = async {
        loop {
            let kept = board.stream.get_info().await.expect("readable");
            if kept.state.messages == 0 {
                break;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), gone)
        .await
        .expect("the mark goes");
}

#[tokio::test]
async fn overlapping_filters_end_the_tail_with_a_reason() {
    let server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let mut tail = log.tail(vec!["swarm.evt.>".into(), "swarm.evt.07.>".into()], 0);
    let error = tail
        .next()
        .await
        .expect("an answer")
        .expect_err("must be refused");
    assert!(error.to_string().contains("overlap"), "{error}");
    assert!(tail.next().await.is_none());
}

#[tokio::test]
async fn a_tail_can_begin_with_the_last_message_of_each_subject() {
    let mut server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let put = async |name: &str, body: &str| {
        let stored = log.append(vec![message(&subject(name), body)]).await;
        stored[0].as_ref().expect("stored").sequence
    };
    put("a", "1").await;
    let b = put("b", "2").await;
    let a = put("a", "3").await;
    put("other", "4").await;
    let mut tail = log.tail_last_first(vec![subject("a"), subject("b")]);
    let mut next = async || loop {
        match tail.next().await.expect("it goes on").expect("no error") {
            Tailed::Message(message) => return Some(message.sequence),
            Tailed::CaughtUp => return None,
            Tailed::Interrupted | Tailed::Resumed => {}
        }
    };
    assert_eq!(next().await, Some(b), "in the order of the log");
    assert_eq!(next().await, Some(a));
    assert_eq!(next().await, None);
    let live = put("b", "5").await;
    assert_eq!(next().await, Some(live));
    // Afterwards it is a tail like any other: nothing is left out, and nothing is told again.
    server.restart().await;
    let mut stored = Vec::new();
    while stored.len() < 2 {
        if let Ok(done) = &log.append(vec![message(&subject("b"), "6")]).await[0] {
            stored.push(done.sequence);
        }
    }
    let mut seen = Vec::new();
    while seen.last() != stored.last() {
        seen.extend(next().await);
    }
    assert!(stored.iter().all(|sequence| seen.contains(sequence)));
    assert!(seen.is_sorted() && seen[0] > live);
}

#[tokio::test]
async fn many_disjoint_filters_are_taken() {
    let server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let families = ["evt", "cmd"];
    let filters: Vec<_> = (0..64)
        .flat_map(|p| families.map(|family| format!("swarm.{family}.{p:02}.>")))
        .chain((0..64).flat_map(|p| {
            ["coordinator", "distributor", "health"]
                .map(|service| format!("swarm.ctl.{service}.{p:02}.>"))
        }))
        .collect();
    assert_eq!(filters.len(), 320);
    let sequence = log
        .append(vec![message(&subject("task.submitted"), "a")])
        .await
        .remove(0)
        .expect("stored")
        .sequence;
    assert_eq!(messages_until(&log, filters, 0, sequence).await.len(), 1);
}
