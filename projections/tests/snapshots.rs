//! A projector that starts from the services' snapshots writes the same rows, and every event once across takeovers.

mod support;

use std::collections::BTreeMap;

use support::{everything::*, *};
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, Input, Partition, Subject, TaskId, Timestamp, decider::Decider, read, subject::filter,
};
use swarm_health_core::Health;
use swarm_log::{
    Log, Message,
    filter::matches,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_projections::projector::{Pace, ProjectorError};
use swarm_runtime::snapshots::{Meta, SnapshotError, Store, encode};
use swarm_servers::testing;

/// The state of a service's partition at a sequence, and its snapshot in the log's store.
async fn take<D: Decider>(log: &SimulatedLog, partition: Partition, at: u64) {
    let filters = filter::inputs(D::SERVICE, Some(partition));
    let mut state = D::new(partition);
    for message in log.messages() {
        if message.sequence > at || !filters.iter().any(|f| matches(f, &message.subject)) {
            continue;
        }
        let time = Timestamp::from_micros(message.time_micros);
        let input = read(message.sequence, time, &message.subject, &message.payload);
        let elsewhere = match &input {
            Input::Event(recorded) => {
                !matches!(recorded.subject, Subject::Org(..))
                    && recorded.subject.partition() != partition
            }
            Input::Unreadable(_) => read::partition_of_subject(&message.subject) != Some(partition),
        };
        if !elsewhere {
            state.evolve(&input, None);
        }
    }
    let info = log.info().await.expect("info");
    let meta = Meta {
        sequence: at,
        ..Meta::of(&state, info.created_micros)
    };
    let bytes = encode(&meta, &state).expect("encoded");
    Store::new(log.clone())
        .put(&meta, bytes)
        .await
        .expect("stored");
}

/// Snapshots of every service and partition.
async fn take_all(log: &SimulatedLog, at: u64) {
    for partition in Partition::all() {
        take::<Coordinator>(log, partition, at).await;
        take::<Distributor>(log, partition, at).await;
        take::<Health>(log, partition, at).await;
    }
}

/// The same log without what stands at or before a sequence, with all its objects.
async fn without_beginning(log: &SimulatedLog, gone: u64) -> SimulatedLog {
    let created_micros = log.info().await.expect("info").created_micros;
    let cut = SimulatedLog::new(SimulatedSettings {
        first_sequence: gone + 1,
        created_micros,
        ..SimulatedSettings::default()
    });
    for stored in log.messages().into_iter().filter(|m| m.sequence > gone) {
        cut.set_time(stored.time_micros);
        let message = Message {
            subject: stored.subject.to_string(),
            payload: stored.payload,
            message_id: None,
            fence: None,
        };
        let outcome = cut.append(vec![message]).await.remove(0);
        assert_eq!(outcome.expect("stored").sequence, stored.sequence);
    }
    for name in log.list_objects("").await.expect("listed") {
        let bytes = log.get_object(&name).await.expect("read").expect("there");
        cut.put_object(&name, bytes).await.expect("stored");
    }
    cut
}

async fn project_to(log: &SimulatedLog, url: &str, to: u64) {
    let projector = Projector::start(log, url, small());
    projector.until_committed(to).await;
    projector.stop().await;
}

#[tokio::test]
async fn rows_are_the_same_with_and_without_snapshots() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let wanted = dump_all(&postgres.url).await;
    let last = s.log.last_sequence();

    let parts = postgres.fresh_database("parts").await;
    // Services are not all at the same place, and the tables are elsewhere again.
    let (early, middle, late) = (last / 4, last / 2, last * 3 / 4);
    s.log.limit_tails("main", Some(middle));
    project_to(&s.log, &parts, middle).await;
    take_all(&s.log, early).await;
    for partition in Partition::all() {
        take::<Distributor>(&s.log, partition, middle - 3).await;
        // Past what is committed: not for this projector.
        take::<Health>(&s.log, partition, late).await;
    }
    s.log.limit_tails("main", Some(late));
    project_to(&s.log, &parts, late).await;
    // Nothing before the snapshots is needed any more: the rest is made of them and the tail.
    let cut = without_beginning(&s.log, early).await;
    project_to(&cut, &parts, last).await;
    assert_same(&wanted, &dump_all(&parts).await);
}

#[tokio::test]
async fn half_a_history_makes_no_tables() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    let last = s.log.last_sequence();
    let cut = without_beginning(&s.log, last / 2).await;
    // New tables want every event; tables that are further on want a state.
    project_to(&s.log, &postgres.url, last).await;
    let fresh = postgres.fresh_database("fresh").await;
    for (url, what) in [(&fresh, "the read models"), (&postgres.url, "partition 00")] {
        let error = Projector::start(&cut, url, Pace::default())
            .ended()
            .await
            .expect_err("is refused");
        let incomplete = matches!(
            &error,
            ProjectorError::Snapshot(SnapshotError::Incomplete { first, .. }) if *first == last / 2 + 1
        );
        assert!(incomplete, "{error}");
        assert!(error.to_string().contains(what), "{error}");
    }
}

#[tokio::test]
async fn a_damaged_snapshot_costs_time_and_no_row() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    let last = s.log.last_sequence();
    s.log.limit_tails("main", Some(last / 2));
    project_to(&s.log, &postgres.url, last / 2).await;
    take_all(&s.log, last / 3).await;
    for name in s
        .log
        .list_objects("snapshot.distributor.")
        .await
        .expect("listed")
    {
        let mut bytes = s
            .log
            .get_object(&name)
            .await
            .expect("read")
            .expect("there")
            .to_vec();
        *bytes.last_mut().expect("bytes") ^= 1;
        s.log.put_object(&name, bytes.into()).await.expect("stored");
    }
    s.log.limit_tails("main", None);
    project_to(&s.log, &postgres.url, last).await;
    let fresh = postgres.fresh_database("fresh").await;
    project(&s.log, &fresh, Pace::default()).await;
    assert_same(&dump_all(&fresh).await, &dump_all(&postgres.url).await);
}

/// Tasks of a round: at [`few`] messages a batch, some fifty batches.
const ROUND_TASKS: usize = 40;
const ROUNDS: usize = 9;
/// Many small batches, so that a kill falls into the middle of them.
fn few() -> Pace {
    Pace {
        messages_max: 3,
        ..small()
    }
}

#[tokio::test]
async fn takeovers_in_the_middle_of_load_apply_every_event_once() {
    let postgres = testing::postgres().await;
    let admin = pool(&postgres.url).await;
    let mut s = everything().await;
    let agent = AgentId(id(901));
    s.join(agent, 1, 4).await;
    let mut projectors = vec![
        Projector::start(&s.log, &postgres.url, few()),
        Projector::start(&s.log, &postgres.url, few()),
    ];
    let mut in_the_middle = 0;
    let mut kinds: BTreeMap<usize, usize> = BTreeMap::new();
    for round in 0..ROUNDS {
        let before = s.log.last_sequence();
        for _ in 0..ROUND_TASKS {
            let task = TaskId(s.fresh_id());
            s.whole_task(task, agent).await;
        }
        take_all(&s.log, before).await;
        let last = s.log.last_sequence();
        let middle = before + (last - before) / 3;
        let active = first_at(&projectors, middle).await;
        let committed = projectors[active].status.get().committed;
        in_the_middle += usize::from(committed < last);
        *kinds.entry(round % 3).or_default() += 1;
        match round % 3 {
            // As a crash: the connection goes with the task, in whatever transaction.
            0 => {
                projectors.swap_remove(active).kill().await;
                projectors.push(Projector::start(&s.log, &postgres.url, few()));
            }
            // PostgreSQL ends the connection that holds the lock; either may take it next.
            1 => {
                let ended: Vec<bool> = sqlx::query_scalar(
                    "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted",
                )
                .fetch_all(&admin)
                .await
                .expect("ends");
                assert_eq!(ended, [true], "one holds the lock");
            }
            _ => {
                projectors.swap_remove(active).stop().await;
                projectors.push(Projector::start(&s.log, &postgres.url, few()));
            }
        }
    }
    assert_eq!(kinds, BTreeMap::from([(0, 3), (1, 3), (2, 3)]));
    assert!(in_the_middle >= ROUNDS - 2, "{in_the_middle} of {ROUNDS}");
    let last = s.log.last_sequence();
    first_at(&projectors, last).await;
    for projector in projectors {
        projector.stop().await;
    }
    let live = dump_all(&postgres.url).await;
    let fresh = postgres.fresh_database("fresh").await;
    project(&s.log, &fresh, Pace::default()).await;
    assert_same(&dump_all(&fresh).await, &live);
    let events: i64 = sqlx::query_scalar("SELECT count(*) FROM swarm_events")
        .fetch_one(&admin)
        .await
        .expect("counts");
    assert_eq!(events as usize, s.log.messages().len());
}

/// Waits until one of the projectors has committed `sequence`, and says which.
async fn first_at(projectors: &[Projector], sequence: u64) -> usize {
    let waits = projectors
        .iter()
        .map(|projector| Box::pin(projector.until_committed(sequence)));
    futures::future::select_all(waits).await.1
}
