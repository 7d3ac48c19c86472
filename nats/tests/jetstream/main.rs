//! What only a real server can show: restarts, lost connections, full streams, the loss of a node.

mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use support::{Server, jetstream_cluster, message, messages_until, open, server, subject, under};
use swarm_log::{
    AppendError, Log, StoredMessage, Tailed,
    definitions::{EVENTS_STREAM, Provision},
    jetstream::{Durability, JetStreamLog},
    provision::provision,
};

/// Bodies that were acknowledged, by sequence, and bodies of unknown outcome.
#[derive(Default)]
struct Written {
    stored: Vec<(u64, String)>,
    unknown: Vec<String>,
}

/// Appends in small calls until `stop`, several calls in flight.
async fn write(log: JetStreamLog, stop: Arc<AtomicBool>) -> Written {
    let mut written = Written::default();
    let mut in_flight = futures::stream::FuturesOrdered::new();
    let mut call = 0;
    loop {
        while in_flight.len() < 16 && !stop.load(Ordering::Relaxed) {
            call += 1;
            let bodies: Vec<_> = (0..call % 5 + 1)
                .map(|number| format!("{call}-{number}"))
                .collect();
            let outcome = log.append(
                bodies
                    .iter()
                    .map(|body| message(&subject("task.submitted"), body))
                    .collect(),
            );
            in_flight.push_back(async move {
                bodies.into_iter().zip(outcome.await).collect::<Vec<_>>()
            });
        }
        let Some(outcomes) = in_flight.next().await else {
            return written;
        };
        for (body, outcome) in outcomes {
            match outcome {
                Ok(appended) => written.stored.push((appended.sequence, body)),
                Err(AppendError::Unknown { .. }) => written.unknown.push(body),
                Err(other) => panic!("{body}: {other}"),
            }
        }
        tokio::task::yield_now().await;
    }
}

async fn survives_restarts(durability: Durability) {
    let mut server = server(durability).await;
    let log = open(&server.url, durability, &Provision::default()).await;
    let reader = open(&server.url, durability, &Provision::default()).await;
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(log.clone(), stop.clone()));
    let mut tail = reader.tail(vec!["swarm.evt.>".into()], 0);
    let mut met: Vec<StoredMessage> = Vec::new();
    let (mut interrupted, mut resumed, mut target) = (0, 0, 200);
    while resumed < 2 || met.len() < target {
        match tail
            .next()
            .await
            .expect("never ends")
            .expect("mends itself")
        {
            Tailed::Message(message) => met.push(message),
            Tailed::CaughtUp => {}
            Tailed::Interrupted => interrupted += 1,
            Tailed::Resumed => {
                resumed += 1;
                target = met.len() + 200;
            }
        }
        if interrupted == resumed && resumed < 2 && met.len() >= target {
            server.kill(); // SIGKILL with appends in flight
            server.restart().await;
            target = usize::MAX;
        }
    }
    stop.store(true, Ordering::Relaxed);
    let written = writing.await.expect("no panic");
    let last = log.info().await.expect("readable").last_sequence;
    while met.last().is_none_or(|message| message.sequence < last) {
        if let Tailed::Message(message) = tail
            .next()
            .await
            .expect("never ends")
            .expect("mends itself")
        {
            met.push(message);
        }
    }
    assert!(
        met.iter().map(|message| message.sequence).eq(1..=last),
        "no gap and no repeat, whatever was restarted"
    );
    assert!(
        !written.unknown.is_empty(),
        "kills with appends in flight leave doubt"
    );
    for (sequence, body) in &written.stored {
        let index = usize::try_from(*sequence).expect("small") - 1;
        assert_eq!(
            met[index].payload,
            body.as_bytes(),
            "what was acknowledged at {sequence}"
        );
    }
    // What is unknown may be there or not, but nothing else is.
    let mut known: Vec<&[u8]> = written
        .stored
        .iter()
        .map(|(_, body)| body.as_bytes())
        .collect();
    known.extend(written.unknown.iter().map(|body| body.as_bytes()));
    known.sort_unstable();
    assert!(
        met.iter()
            .all(|message| known.binary_search(&&message.payload[..]).is_ok())
    );
    let fresh = messages_until(&reader, vec!["swarm.>".into()], 0, last).await;
    assert_eq!(fresh, met);
}

#[tokio::test]
async fn restarts_lose_nothing_with_speed() {
    survives_restarts(Durability::Speed).await;
}

#[tokio::test]
async fn restarts_lose_nothing_with_sync_always() {
    survives_restarts(Durability::Always).await;
}

#[tokio::test]
async fn appends_while_disconnected_fail_at_once_and_are_not_sent_later() {
    let mut server = server(Durability::Speed).await;
    let log = open(&server.url, Durability::Speed, &Provision::default()).await;
    let mut news = log.connection().watch();
    server.kill();
    news.wait_for(|state| !state.connected).await.expect("told");
    let started = std::time::Instant::now();
    let outcome = log
        .append(vec![message(&subject("task.submitted"), "late")])
        .await
        .remove(0);
    assert!(
        matches!(outcome, Err(AppendError::Unknown { .. })),
        "{outcome:?}"
    );
    assert!(started.elapsed() < Duration::from_secs(1));
    server.restart().await;
    news.wait_for(|state| state.connected && state.losses > 0)
        .await
        .expect("told");
    // The first append after the return may still meet the client's own state.
    loop {
        match log
            .append(vec![message(&subject("task.submitted"), "next")])
            .await
            .remove(0)
        {
            Ok(appended) => {
                let stored = log
                    .get(appended.sequence)
                    .await
                    .expect("readable")
                    .expect("there");
                assert_eq!(&stored.payload[..], b"next");
                break;
            }
            Err(AppendError::Unknown { .. }) => tokio::time::sleep(Duration::from_millis(20)).await,
            Err(other) => panic!("{other}"),
        }
    }
    let last = log.info().await.expect("readable").last_sequence;
    let stored = messages_until(&log, vec!["swarm.>".into()], 0, last).await;
    assert!(stored.iter().all(|message| &message.payload[..] == b"next"));
    assert_eq!(log.stats().in_flight, 0);
}

async fn full_stream_says_so(durability: Durability) {
    let server = server(durability).await;
    let settings = Provision {
        max_bytes: 256 * 1024,
        ..Provision::default()
    };
    let log = open(&server.url, durability, &settings).await;
    let body = "x".repeat(8 * 1024);
    let outcomes = log
        .append(
            (0..60)
                .map(|_| message(&subject("task.submitted"), &body))
                .collect(),
        )
        .await;
    let stored = outcomes
        .iter()
        .take_while(|outcome| outcome.is_ok())
        .count();
    assert!((20..40).contains(&stored), "{stored}");
    for outcome in &outcomes[stored..] {
        assert!(
            matches!(outcome, Err(AppendError::Full { .. })),
            "{outcome:?}"
        );
    }
    let batch = log
        .append_atomic(
            (0..10)
                .map(|_| message(&subject("task.submitted"), &body))
                .collect(),
        )
        .await;
    assert!(matches!(batch, Err(AppendError::Full { .. })), "{batch:?}");
    let info = log.info().await.expect("readable");
    assert_eq!(
        (info.last_sequence, info.bytes_max),
        (stored as u64, 256 * 1024)
    );
    assert!(info.bytes <= 256 * 1024);
    // Raising the limit is all it takes.
    let larger = Provision {
        max_bytes: 1024 * 1024,
        ..Provision::default()
    };
    provision(log.context(), &larger).await.expect("raised");
    log.append(vec![message(&subject("task.submitted"), &body)])
        .await
        .remove(0)
        .expect("room again");
}

#[tokio::test]
async fn a_full_stream_says_so_with_speed() {
    full_stream_says_so(Durability::Speed).await;
}

#[tokio::test]
async fn a_full_stream_says_so_with_sync_always() {
    full_stream_says_so(Durability::Always).await;
}

#[tokio::test]
async fn sync_always_groups_what_waits() {
    let server = server(Durability::Always).await;
    let log = open(&server.url, Durability::Always, &Provision::default()).await;
    let claimed = "swarm.ctl.distributor.07.claimed";
    let epoch = log
        .append(vec![under(message(claimed, "a"), claimed, 0)])
        .await
        .remove(0)
        .expect("claimed")
        .sequence;
    let calls: Vec<_> = (0..1_500)
        .map(|number| {
            log.append(vec![under(
                message(&subject("task.assigned.a"), &format!("{number}")),
                claimed,
                epoch,
            )])
        })
        .collect();
    for call in calls {
        call.await.remove(0).expect("stored");
    }
    let stats = log.stats();
    assert_eq!((stats.appended, stats.in_flight), (1_501, 0));
    assert!(stats.batched >= 1_000, "{stats:?}");
    // A batch takes 500 at the most.
    assert!(stats.batched <= 500 * stats.batches, "{stats:?}");
}

/// The simulated log copies this order of checks.
#[tokio::test]
async fn a_node_checks_fences_before_duplicates_and_a_cluster_after() {
    let node = support::jetstream(Durability::Speed).await;
    let cluster = jetstream_cluster().await;
    for (log, is_cluster) in [(&node.log, false), (&cluster.log, true)] {
        let claimed = "swarm.ctl.distributor.07.claimed";
        let mut claim = under(message(claimed, "a"), claimed, 0);
        claim.message_id = Some("id".into());
        let first = log
            .append(vec![claim.clone()])
            .await
            .remove(0)
            .expect("claimed");
        match log.append(vec![claim]).await.remove(0) {
            Ok(appended) => {
                assert!(is_cluster && appended.duplicate && appended.sequence == first.sequence)
            }
            Err(AppendError::Fenced { .. }) => assert!(!is_cluster),
            Err(other) => panic!("{other}"),
        }
    }
}

#[tokio::test]
async fn on_a_cluster_checks_of_two_processes_on_one_subject_both_pass() {
    let fixture = jetstream_cluster().await;
    let Server::Cluster(cluster) = &fixture.server else {
        panic!("a cluster")
    };
    let settings = Provision {
        replicas: 3,
        max_bytes: 64 * 1024 * 1024,
        ..Provision::default()
    };
    let mut logs = vec![fixture.log.clone()];
    for node in &cluster.nodes[1..] {
        logs.push(open(&node.url, Durability::Always, &settings).await);
    }
    let claimed = "swarm.ctl.distributor.07.claimed";
    let epoch = logs[0]
        .append(vec![under(message(claimed, "a"), claimed, 0)])
        .await
        .remove(0)
        .expect("claimed")
        .sequence;
    let mut calls = Vec::new();
    for number in 0..60 {
        for log in &logs {
            calls.push(log.append(vec![under(
                message(&subject("task.assigned.a"), &format!("{number}")),
                claimed,
                epoch,
            )]));
        }
    }
    for call in calls {
        call.await.remove(0).expect("10164 is settled inside");
    }
    let last = logs[0].info().await.expect("readable").last_sequence;
    assert_eq!(last, epoch + 180);
}

#[tokio::test]
async fn the_loss_of_a_node_leaves_no_gap_in_a_tail() {
    let mut fixture = jetstream_cluster().await;
    let log = fixture.log.clone();
    let stop = Arc::new(AtomicBool::new(false));
    let writing = tokio::spawn(write(log.clone(), stop.clone()));
    let mut tail = log.tail(vec!["swarm.evt.>".into()], 0);
    let leader = log
        .context()
        .get_stream(EVENTS_STREAM)
        .await
        .expect("there")
        .cached_info()
        .cluster
        .clone();
    let leader = leader.and_then(|cluster| cluster.leader).expect("a leader");
    let Server::Cluster(cluster) = &mut fixture.server else {
        panic!("a cluster")
    };
    let number = cluster
        .nodes
        .iter()
        .position(|node| node.server.settings().name == leader)
        .expect("one of ours");
    let mut met = Vec::new();
    let mut killed = None;
    let mut written = None;
    let mut writing = Some(writing);
    loop {
        match tail
            .next()
            .await
            .expect("never ends")
            .expect("mends itself")
        {
            Tailed::Message(message) => met.push(message),
            Tailed::Interrupted | Tailed::Resumed | Tailed::CaughtUp => {}
        }
        if killed.is_none() && met.len() >= 200 {
            cluster.nodes[number].kill();
            killed = Some(met.len());
        }
        if killed.is_some_and(|at| met.len() >= at + 400)
            && let Some(writing) = writing.take()
        {
            stop.store(true, Ordering::Relaxed);
            written = Some((
                writing.await.expect("no panic"),
                log.info().await.expect("readable").last_sequence,
            ));
        }
        if written
            .as_ref()
            .is_some_and(|(_, last)| met.last().is_some_and(|message| message.sequence >= *last))
        {
            break;
        }
    }
    assert!(
        met.iter()
            .map(|message| message.sequence)
            .eq(1..=met.len() as u64),
        "no gap and no repeat"
    );
    for (sequence, body) in &written.expect("written").0.stored {
        assert_eq!(
            met[usize::try_from(*sequence).expect("small") - 1].payload,
            body.as_bytes()
        );
    }
}
