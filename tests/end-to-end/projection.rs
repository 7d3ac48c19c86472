//! The read models are made of the log and of nothing else.

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
    // Quiet, so that both dumps are of the same log: no agent, no figures that move.
    crate::support::kill(agent.pid(), rustix::process::Signal::TERM);
    agent.wait().await;
    let before = until_quiet(&swarm).await;
    assert!(before["swarm_events"].len() > 80, "something has happened");

    // By hand, with the projector killed meanwhile.
    let mut connection = PgConnection::connect(swarm.field("database_url"))
        .await
        .expect("connected");
    let drop = format!(
        "DROP TABLE {}, projection_checkpoint, _sqlx_migrations CASCADE",
        TABLES.join(", ")
    );
    sqlx::query(AssertSqlSafe(drop))
        .execute(&mut connection)
        .await
        .expect("dropped");
    swarm.kill_service("projector").await;
    swarm.until_ready().await;
    let after = until_quiet(&swarm).await;
    assert_same(&before, &after);

    // By the command, under the running projector.
    let rebuilt = swarm
        .cli(&["projection", "rebuild", "--timeout", "60s"])
        .await;
    assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    assert_same(&before, &until_quiet(&swarm).await);
}

/// Waits until the tables are as far as the log, and the log stands still; answers with the tables.
async fn until_quiet(swarm: &Installation) -> std::collections::BTreeMap<String, Vec<String>> {
    let last = std::cell::Cell::new(None);
    eventually("the log stands still", PATIENCE, || async {
        let status = swarm.cli_json(&["status"]).await;
        let now = status["projection"]["log_sequence"].as_u64();
        let still = status["projection"]["lag"] == 0 && now == last.get();
        last.set(now);
        still.then_some(())
    })
    .await;
    dump(swarm.field("database_url")).await
}

fn assert_same(
    before: &std::collections::BTreeMap<String, Vec<String>>,
    after: &std::collections::BTreeMap<String, Vec<String>>,
) {
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
