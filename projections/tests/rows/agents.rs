//! Agents that hosts run, in the rows: life cycle, process, going, quarantine, and what their attempts came to.

use serde_json::{Value, json};
use swarm_events::AgentId;
use swarm_projections::{
    pool::reader,
    projector::Pace,
    queries::{self, PageRequest, SwarmFilter},
};
use swarm_servers::testing;

use crate::support::{
    everything::{A1, everything},
    managed::*,
    *,
};

async fn projected() -> (testing::TestPostgres, Script, sqlx::PgPool) {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    (postgres, s, pool)
}

async fn shown(pool: &sqlx::PgPool, s: &Script, agent: AgentId) -> Value {
    let row = queries::agent(pool, s.org, place(s).swarm, agent).await;
    let row = row.expect("reads").expect("is there");
    serde_json::to_value(row).expect("JSON")
}

/// Given agents in every phase, then each row says so, with the reason in words.
#[tokio::test]
async fn an_agent_is_shown_from_the_order_to_its_end() {
    let (_postgres, s, pool) = projected().await;
    let cases = [
        (UNFIT, "unhealthy", "quarantined since"),
        (
            CRASHED,
            "pending",
            "crashed 1 times in a row, last by exit code 3",
        ),
        (
            SLOT,
            "pending",
            "waits for its process, which is started by hand",
        ),
        (STARTING, "starting", "and has not joined"),
        (
            LOOPING,
            "unhealthy",
            "crash-looping: given up after 2 crashes",
        ),
        (GOING, "busy", "told to go (not needed)"),
        (GONE, "stopped", "drained"),
        (
            DECLINED,
            "pending",
            "wc is not on the list of allowed programs",
        ),
        (LOST, "pending", "its process is about to be requested"),
    ];
    for (agent, status, reason) in cases {
        let row = shown(&pool, &s, agent).await;
        assert_eq!(row["status"], status, "{row:#}");
        let words = row["status_reason"].as_str().unwrap_or_default();
        assert!(words.contains(reason), "{words}");
    }
    // By hand: nothing that only hosts say.
    let row = queries::agent(&pool, s.org, s.place.swarm, A1).await;
    let row = row.expect("reads").expect("is there");
    assert!(row.spec.is_none());
    let row = serde_json::to_value(row).expect("JSON");
    for field in [
        "adapter",
        "restart_policy",
        "spawn",
        "host",
        "pid",
        "limited_by",
        "last_exit",
        "draining",
    ] {
        assert_eq!(row[field], Value::Null, "{field}");
    }
    assert_eq!(row["quarantine"], json!([]));
    assert!(row["instance_id"].is_string(), "{row:#}");
}

#[tokio::test]
async fn a_row_holds_the_process_the_policy_and_how_it_ended() {
    let (_postgres, s, pool) = projected().await;
    let row = shown(&pool, &s, STARTING).await;
    assert_eq!(
        (
            &row["adapter"],
            &row["spawn"],
            &row["pid"],
            &row["limited_by"],
            &row["unlimited"]
        ),
        (
            &json!("exec"),
            &json!(1),
            &json!(4_000_000_000_u32),
            &json!("rlimit"),
            &json!(["cpu_percent"])
        )
    );
    assert_eq!(
        row["host"],
        json!({"instance": host(1).instance, "name": "host \u{FFFD} 1"}),
        "the first claim holds"
    );
    assert_eq!(row["restart_policy"]["crash_limit"], 2);
    assert_eq!(
        (&row["incarnation"], &row["instance_id"], &row["started_at"]),
        (&json!(0), &Value::Null, &Value::Null),
        "it has not joined"
    );
    assert_eq!(
        (&row["slots"], &row["waiting_limit"], &row["metadata"]),
        (&json!(2), &json!(1), &json!({"of": "the spec"}))
    );

    let crashed = shown(&pool, &s, CRASHED).await;
    let last = &crashed["last_exit"];
    assert_eq!(
        (
            &last["code"],
            &last["signal"],
            &last["uptime_ms"],
            &last["last_output"]
        ),
        (
            &json!(3),
            &Value::Null,
            &json!(12),
            &json!("no such \u{FFFD} file\n")
        )
    );
    assert_eq!(
        (&crashed["crashes"], &crashed["host"], &crashed["pid"]),
        (&json!(1), &Value::Null, &Value::Null)
    );
    assert!(crashed["restart_due"].is_string(), "{crashed:#}");
    let looping = shown(&pool, &s, LOOPING).await;
    assert_eq!(
        (
            &looping["spawn"],
            &looping["restarts"],
            &looping["crashes"],
            &looping["restart_due"]
        ),
        (&json!(2), &json!(1), &json!(2), &Value::Null)
    );

    let going = shown(&pool, &s, GOING).await;
    let draining = &going["draining"];
    assert_eq!(
        (
            &draining["grace_ms"],
            &draining["then"],
            &draining["reason"]
        ),
        (&json!(5_000), &json!("remove"), &json!("not needed"))
    );
    let time = |value: &Value| {
        let text = value.as_str().expect("a time");
        chrono::DateTime::parse_from_rfc3339(text).expect("RFC 3339")
    };
    let grace = time(&draining["due"]) - time(&draining["since"]);
    assert_eq!(grace.num_milliseconds(), 5_000);
    assert_eq!(going["capabilities"], json!(["count", "sum"]), "as updated");
    assert_eq!(going["current_task_id"], json!(TASK));
    let spec: Value = sqlx::query_scalar("SELECT spec FROM swarm_agents WHERE id = $1")
        .bind(GOING.0)
        .fetch_one(&pool)
        .await
        .expect("reads");
    assert_eq!(spec["command"], json!(["wc", "-l"]));
    assert_eq!(spec["env"], json!({"LANG": "C \u{FFFD}"}));
    assert_eq!(spec["capabilities"], json!(["count", "sum"]), "follows");

    let unfit = shown(&pool, &s, UNFIT).await;
    let causes: Vec<_> = unfit["quarantine"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|held| {
            (
                &held["cause"],
                &held["figures"]["value"],
                held["until"].is_null(),
            )
        })
        .collect();
    assert_eq!(
        causes,
        [
            (&json!("fast_failures"), &json!(5), false),
            (&json!("error_rate"), &json!(85), true),
        ],
        "what was released is not there"
    );
    assert!(unfit["quarantined_since"].is_string());
}

/// Given five agents that one `scaled` made, when the list is read two by two, then each comes once.
#[tokio::test]
async fn a_list_of_agents_that_one_event_made_pages_to_its_end() {
    let (_postgres, s, pool) = projected().await;
    let mut page = PageRequest {
        limit: Some(2),
        cursor: None,
    };
    let mut seen = Vec::new();
    loop {
        let found = queries::agents(&pool, s.org, place(&s).swarm, None, &page).await;
        let found = found.expect("a page");
        seen.extend(found.items.iter().map(|row| (row.id, row.created_seq)));
        match found.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => break,
        }
    }
    let ids: Vec<_> = seen.iter().map(|(id, _)| *id).collect();
    let mut wanted = vec![
        UNFIT, CRASHED, SLOT, STARTING, LOOPING, GOING, GONE, DECLINED, LOST,
    ];
    wanted.extend(scaled());
    let wanted: Vec<_> = wanted.iter().map(|agent| agent.0).collect();
    assert_eq!(ids, wanted);
    let tail: Vec<_> = seen[9..].iter().map(|(_, sequence)| *sequence).collect();
    assert!(tail.iter().all(|sequence| *sequence == tail[0]), "{tail:?}");

    let (filter, all) = (SwarmFilter::default(), PageRequest::default());
    let swarms = queries::swarms(&pool, s.org, &filter, &all).await;
    let swarms = swarms.expect("swarms").items;
    let managed = swarms.iter().find(|swarm| swarm.name == "managed");
    let managed = managed.expect("is there");
    // Nine were added; one is told to go, one has gone; five are new.
    assert_eq!((managed.agent_count, managed.desired_agents), (2, 12));
    assert_eq!(managed.status, "degraded");
}

/// Given a task that was declined after its start, then the assignment says so, counts for nothing, and the task goes on.
#[tokio::test]
async fn a_declined_task_has_lost_no_attempt() {
    let (_postgres, s, pool) = projected().await;
    let details = queries::task_details(&pool, s.org, place(&s).swarm, TASK).await;
    let details = details.expect("reads").expect("is there");
    let [second, first] = &details.attempts[..] else {
        panic!("{details:?}");
    };
    assert_eq!(
        (
            first.number,
            first.outcome.as_deref(),
            first.error.as_deref(),
            first.retryable
        ),
        (None, Some("declined"), Some("not \u{FFFD} mine"), None)
    );
    assert!(first.started_at.is_some() && first.ended_at >= first.started_at);
    assert_eq!((second.number, &second.outcome), (Some(1), &None));
    assert_eq!(
        (
            details.task.status.as_str(),
            details.task.attempt_count,
            details.task.declines
        ),
        ("running", 1, 1)
    );
    let events: Vec<(String, bool)> = sqlx::query_as(
        "SELECT DISTINCT event_type::text, void FROM swarm_events WHERE swarm_id = $1 ORDER BY 1",
    )
    .bind(place(&s).swarm.0)
    .fetch_all(&pool)
    .await
    .expect("reads");
    let names: Vec<_> = events.iter().map(|(name, _)| name.as_str()).collect();
    for name in [
        "agent_added",
        "agent_crash_looping",
        "agent_exited",
        "agent_host_failed",
        "agent_launched",
        "agent_quarantined",
        "agent_released",
        "agent_spawn_claimed",
        "agent_spawn_claimed_void",
        "agent_spawn_declined",
        "agent_spawn_requested",
        "agent_stopping",
        "agent_updated",
        "swarm_scaled",
        "task_declined",
    ] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    let void: Vec<_> = events.iter().filter(|(_, void)| *void).collect();
    assert_eq!(void.len(), 1, "{void:?}");
}

#[tokio::test]
async fn error_rates_are_told_by_type_and_capability() {
    let (_postgres, s, pool) = projected().await;
    let rates = |swarm| {
        let (pool, org) = (pool.clone(), s.org);
        async move {
            let rates = queries::error_rates(&pool, org, swarm).await;
            serde_json::to_value(rates.expect("reads")).expect("JSON")
        }
    };
    assert_eq!(
        rates(place(&s).swarm).await,
        json!([
            {"dimensions": {"task_type": "count"}, "metric_value": 0.3, "sample_count": 10, "completed": 7, "failed": 3},
            {"dimensions": {"capability": "count"}, "metric_value": 0.2222, "sample_count": 9, "completed": 7, "failed": 2},
            {"dimensions": {"task_type": "su\u{FFFD}m"}, "metric_value": 0.0, "sample_count": 1, "completed": 1, "failed": 0},
        ])
    );
    assert_eq!(
        rates(s.place.swarm).await,
        json!([
            {"dimensions": {"agent_type": "exec"}, "metric_value": 0.6667, "sample_count": 6, "completed": 2, "failed": 4},
        ])
    );
}
