//! The projector on real servers, both of them.

mod support;

use support::*;
use swarm_events::{AgentId, TaskId};
use swarm_log::{
    Log, Message,
    connect::{ConnectSettings, Connection, ConnectionState, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
    simulated::SimulatedLog,
};
use swarm_projections::{projector::Pace, rebuild::rebuild};
use swarm_servers::testing;

async fn open(url: &str) -> (JetStreamLog, Connection) {
    let connection = connect(ConnectSettings::new(url, "test"))
        .await
        .expect("connects");
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, &Provision::default())
        .await
        .expect("provisions");
    let log = JetStreamLog::open(&connection, LogSettings::new(Durability::Speed, 1)).await;
    (log.expect("opens"), connection)
}

/// Stores what is in `script` behind sequence `from` under the same sequences.
async fn copy(script: &SimulatedLog, from: u64, to: &JetStreamLog) -> u64 {
    let mut last = from;
    for stored in script
        .messages()
        .into_iter()
        .filter(|stored| stored.sequence > from)
    {
        let message = Message {
            subject: stored.subject.to_string(),
            payload: stored.payload,
            message_id: None,
            fence: None,
        };
        let outcome = to.append(vec![message]).await.remove(0);
        last = outcome.unwrap_or_else(|error| panic!("{error}")).sequence;
        assert_eq!(last, stored.sequence, "epochs are sequences");
    }
    last
}

#[tokio::test]
async fn rows_survive_restarts_of_both_servers_and_equal_a_rebuild() {
    let (mut nats, mut postgres) = tokio::join!(testing::nats(), testing::postgres());
    let mut s = Script::new().await;
    let agent = AgentId(id(101));
    s.join(agent, 1, 1).await;
    let (log, connection) = open(&nats.url).await;
    let at = copy(&s.log, 0, &log).await;
    let projector = Projector::start(&log, &postgres.url, Pace::default());
    projector.until_committed(at).await;

    for number in 0..20 {
        s.whole_task(TaskId(id(1_000 + number)), agent).await;
    }
    let losses = connection.losses();
    nats.restart().await;
    // A writer of its own would send again; this one waits until it can write.
    let back = |state: &ConnectionState| state.connected && state.losses > losses;
    connection.watch().wait_for(back).await.expect("reconnects");
    let at = copy(&s.log, at, &log).await;
    projector.until_committed(at).await;

    postgres.kill();
    for number in 20..40 {
        s.whole_task(TaskId(id(1_000 + number)), agent).await;
    }
    let at = copy(&s.log, at, &log).await;
    postgres.restart().await;
    projector.until_committed(at).await;
    let live = dump_all(&postgres.url).await;
    assert_eq!(live["swarm_tasks"].len(), 40);
    assert!(
        live["swarm_tasks"]
            .iter()
            .all(|row| row.contains(r#""status": "completed""#))
    );
    assert_eq!(live["swarm_events"].len() as u64, at);

    let folds = projector.status.get().folds;
    assert_eq!(rebuild(&postgres.url).await.expect("drops"), Some(at));
    // It notices at its next batch.
    s.whole_task(TaskId(id(2_000)), agent).await;
    let last = copy(&s.log, at, &log).await;
    projector
        .until("folds anew", |state| {
            state.folds > folds && state.committed >= last
        })
        .await;
    projector.stop().await;
    let again = dump_all(&postgres.url).await;
    for (table, rows) in &live {
        // The one more task has changed its agent's row and the checkpoint, and nothing else that was there.
        if !["swarm_agents", "projection_checkpoint"].contains(table) {
            assert!(rows.iter().all(|row| again[table].contains(row)), "{table}");
        }
    }
    let fresh = postgres.fresh_database("fresh").await;
    project(&log, &fresh, Pace::default()).await;
    assert_same(&again, &dump_all(&fresh).await);
}
