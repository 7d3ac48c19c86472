//! The read models are made of the log and of nothing else.

use std::collections::BTreeMap;

use serde_json::json;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use swarm_projections::migrate::TABLES;

use crate::support::{Agent, Installation, PATIENCE, dump, eventually, said, script};

#[tokio::test(flavor = "multi_thread")]
async fn dropped_tables_are_made_anew_exactly_as_they_were() {
    let swarm = Installation::start().await;
    let id = swarm
        .swarm(
            "tables",
            json!({"max_attempts": 2, "retry": {"base_ms": 10}}),
        )
        .await;
    // Some succeed, some fail.
    let work = script(
        swarm.dir(),
        "work.py",
        "#!/usr/bin/env python3\nimport json, sys\nn = json.load(sys.stdin)[\"payload\"][\"n\"]\nprint(n)\nsys.exit(n % 5 == 4)\n",
    );
    let mut agent = Agent::start(&swarm, &id, "a", &["--slots", "3"], &work);
    swarm.until_idle(&id, 1).await;
    for n in 0..20 {
        swarm
            .post(
                &format!("/v1/swarms/{id}/tasks"),
                &json!({"task_type": "t", "payload": {"n": n}}),
            )
            .await;
    }
    let tasks = swarm.until_ended(&id, 20, PATIENCE).await;
    let with = |status: &str| tasks.iter().filter(|task| task["status"] == status).count();
    assert_eq!((with("completed"), with("failed")), (16, 4), "{tasks:?}");
    // No agent, so that soon nothing moves.
    crate::support::kill(agent.pid(), rustix::process::Signal::TERM);
    agent.wait().await;

    // By hand, with the projector killed meanwhile.
    until_same(&swarm, || async {
        let mut connection = PgConnection::connect(swarm.field("database_url"))
            .await
            .expect("connected");
        let tables = TABLES.join(", ");
        let drop = format!("DROP TABLE {tables}, projection_checkpoint, _sqlx_migrations CASCADE");
        let dropped = sqlx::query(AssertSqlSafe(drop))
            .execute(&mut connection)
            .await;
        dropped.expect("dropped");
        swarm.kill_service("projector").await;
        swarm.until_ready().await;
    })
    .await;

    // By the command, under the running projector.
    until_same(&swarm, || async {
        let rebuilt = swarm
            .cli(&["projection", "rebuild", "--timeout", "60s"])
            .await;
        assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    })
    .await;
}

/// Rebuilds in between two dumps that are of the same log, and compares them.
pub async fn until_same<F: AsyncFn()>(swarm: &Installation, rebuild: F) {
    for _ in 0..TRIES {
        let (sequence, before) = tables_at_the_end(swarm).await;
        assert!(before["swarm_events"].len() > 80, "something has happened");
        rebuild().await;
        let (now, after) = tables_at_the_end(swarm).await;
        // The distributor's last figures may come a second after the last task.
        if now == sequence {
            assert_same(&before, &after);
            return;
        }
    }
    panic!("the log never stood still");
}

/// How often the log may move between two dumps.
const TRIES: u32 = 5;

type Tables = BTreeMap<String, Vec<String>>;

/// The tables once they are as far as the log, and how far that is.
async fn tables_at_the_end(swarm: &Installation) -> (u64, Tables) {
    eventually("the tables are as far as the log", PATIENCE, || async {
        let before = end_of(swarm).await?;
        let tables = dump(swarm.field("database_url")).await;
        (end_of(swarm).await? == before).then_some((before, tables))
    })
    .await
}

async fn end_of(swarm: &Installation) -> Option<u64> {
    let status = swarm.cli_json(&["status"]).await;
    let projection = &status["projection"];
    projection["log_sequence"]
        .as_u64()
        .filter(|_| projection["lag"] == 0)
}

fn assert_same(before: &Tables, after: &Tables) {
    for (table, rows) in before {
        let (old, new): (Vec<_>, Vec<_>) = (
            rows.iter()
                .filter(|row| !after[table].contains(row))
                .take(3)
                .collect(),
            after[table]
                .iter()
                .filter(|row| !rows.contains(row))
                .take(3)
                .collect(),
        );
        assert!(
            old.is_empty() && new.is_empty(),
            "{table}\n  before {old:#?}\n  after {new:#?}"
        );
        assert_eq!(rows.len(), after[table].len(), "{table}");
    }
}
