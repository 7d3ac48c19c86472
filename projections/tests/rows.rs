//! What stands in the rows, on a real PostgreSQL and for a log written by hand.

mod support;

use serde_json::{Value, json};
use support::{everything::*, *};
use swarm_events::task::Carried;
use swarm_log::Log;
use swarm_projections::{
    pool::reader,
    projector::Pace,
    queries::{self, PageRequest, SwarmFilter, TaskFilter},
    rebuild::rebuild,
};
use swarm_servers::testing;
use uuid::Uuid;

#[tokio::test]
async fn the_rows_say_what_the_log_says() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let page = PageRequest::default();

    let swarms = queries::swarms(&pool, s.org, &SwarmFilter::default(), &page)
        .await
        .expect("swarms");
    assert_eq!(swarms.items.len(), 1);
    let swarm = &swarms.items[0];
    assert_eq!(
        (
            swarm.name.as_str(),
            swarm.status.as_str(),
            swarm.agent_count
        ),
        ("renamed", "degraded", 2)
    );
    assert_eq!(
        swarm.created_at.timestamp_micros() / 1_000_000,
        START / 1_000_000
    );
    let all = SwarmFilter {
        deleted: true,
        ..SwarmFilter::default()
    };
    let swarms = queries::swarms(&pool, s.org, &all, &page)
        .await
        .expect("swarms");
    assert_eq!(
        swarms
            .items
            .iter()
            .map(|s| s.status.as_str())
            .collect::<Vec<_>>(),
        ["degraded", "inactive"]
    );
    assert_eq!(
        swarms.items[1].description.as_deref(),
        Some("of the \u{FFFD} test")
    );

    let agents = queries::agents(&pool, s.org, s.place.swarm, None, &page)
        .await
        .expect("agents")
        .items;
    let shown = |at: usize| serde_json::to_value(&agents[at]).expect("JSON");
    assert_eq!(shown(0)["status"], "unhealthy");
    assert_eq!(shown(0)["current_task_id"], json!(task(6)));
    assert_eq!(shown(0)["tasks_completed"], 2);
    assert_eq!(
        shown(0)["resource_usage"],
        json!({"cpu_percent": 12.50, "memory_mb": 2.00, "active_connections": 2, "queue_depth": 0})
    );
    assert_eq!(shown(0)["capabilities"], json!(["a \"b\"", "c,d"]));
    assert_eq!(shown(1)["status"], "idle");
    assert_eq!(shown(1)["incarnation"], 2);
    assert_eq!(shown(1)["tasks_failed"], 1);
    assert_eq!(
        shown(1)["resource_usage"]["cpu_percent"],
        0.5,
        "not of the process that is no more"
    );

    let tasks = queries::tasks(&pool, s.org, s.place.swarm, &TaskFilter::default(), &page)
        .await
        .expect("tasks")
        .items;
    let status: Vec<_> = tasks.iter().map(|task| task.status.as_str()).collect();
    assert_eq!(
        status,
        [
            "completed",
            "completed",
            "queued",
            "failed",
            "cancelled",
            "running"
        ]
    );
    let shown = |at: usize| serde_json::to_value(&tasks[at]).expect("JSON");
    assert_eq!(
        shown(0)["task_type"],
        "count",
        "a repeat does not touch the first"
    );
    assert_eq!(shown(0)["result"], json!({"n": 1}));
    assert_eq!(shown(0)["payload"], json!({"path": "a\tb\\c\n"}));
    let odd = json!({"nul": "\u{FFFD}", "half": "\u{FFFD}", "big": "1e99999"});
    assert_eq!((&shown(1)["payload"], &shown(1)["result"]), (&odd, &odd));
    assert_eq!(shown(1)["key"], "a");
    assert_eq!(shown(3)["dead_lettered"], true);
    assert_eq!(shown(3)["error_message"], "broken");
    assert_eq!(shown(5)["progress_percent"], 7);
    let dead = TaskFilter {
        dead_lettered: Some(true),
        ..TaskFilter::default()
    };
    let dead = queries::tasks(&pool, s.org, s.place.swarm, &dead, &page)
        .await
        .expect("tasks")
        .items;
    assert_eq!(
        dead.iter().map(|task| task.id).collect::<Vec<_>>(),
        [task(4).0]
    );
    let edges = queries::dependencies(&pool, s.org, s.place.swarm, task(3))
        .await
        .expect("edges");
    assert_eq!(
        serde_json::to_value(&edges).expect("JSON"),
        json!([{
            "task_id": task(3), "depends_on_task_id": task(2), "dependency_type": "data", "as": "two",
        }])
    );
    let found = queries::tasks_by_id(&pool, s.org, task(3))
        .await
        .expect("tasks");
    assert_eq!(found.len(), 1);
    let stranger = swarm_events::OrgId(Uuid::from_u128(99));
    assert!(
        queries::tasks_by_id(&pool, stranger, task(3))
            .await
            .expect("tasks")
            .is_empty()
    );

    let count: i64 = sqlx::query_scalar("SELECT count(*) FROM swarm_events")
        .fetch_one(&pool)
        .await
        .expect("counts");
    assert_eq!(
        u64::try_from(count),
        Ok(s.log.last_sequence()),
        "a row for each message"
    );
    let voids: Vec<String> =
        sqlx::query_scalar("SELECT event_type FROM swarm_events WHERE void ORDER BY seq")
            .fetch_all(&pool)
            .await
            .expect("voids");
    assert!(
        voids.contains(&"task_completed_void".to_owned()),
        "{voids:?}"
    );
    assert!(
        voids.contains(&"swarm_stopping_void".to_owned()),
        "{voids:?}"
    );
    assert!(
        voids.iter().all(|name| name.ends_with("_void")),
        "{voids:?}"
    );
    let unreadable: Vec<(Uuid, Value)> = sqlx::query_as(
        "SELECT id, event_data FROM swarm_events WHERE event_type = 'unreadable' ORDER BY seq",
    )
    .fetch_all(&pool)
    .await
    .expect("unreadable");
    assert_eq!(unreadable.len(), 3);
    assert_eq!(unreadable[2].0, id(9), "its own id, since it could be read");
    assert!(
        unreadable
            .iter()
            .all(|(_, data)| data["problem"]["detail"].is_string()),
        "{unreadable:?}"
    );
    let days: Vec<String> = sqlx::query_scalar(
        "SELECT c.relname::text FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid \
         WHERE inhparent = 'swarm_events'::regclass ORDER BY 1",
    )
    .fetch_all(&pool)
    .await
    .expect("partitions");
    assert_eq!(days, ["swarm_events_2024_01_01", "swarm_events_2024_01_02"]);
}

#[tokio::test]
async fn rows_do_not_depend_on_where_batches_end_nor_on_rebuilds() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let once = dump_all(&postgres.url).await;
    assert!(
        once.values().all(|rows| !rows.is_empty()),
        "every table has rows: {once:?}"
    );

    let one_by_one = postgres.fresh_database("one_by_one").await;
    project(&s.log, &one_by_one, small()).await;
    assert_same(&once, &dump_all(&one_by_one).await);

    assert_eq!(
        rebuild(&postgres.url).await.expect("drops"),
        Some(s.log.last_sequence())
    );
    project(&s.log, &postgres.url, Pace::default()).await;
    assert_same(&once, &dump_all(&postgres.url).await);
}

#[tokio::test]
async fn results_by_reference_are_looked_up() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 4).await;
    s.log
        .put_object("results/1", r#"{"large":true}"#.into())
        .await
        .expect("puts");
    for (number, name) in [(1, "results/1"), (2, "results/none")] {
        s.submit(task(number), submission()).await;
        let assignment = s.assign(task(number), A1, 1).await;
        s.start(task(number), A1, assignment).await;
        s.complete(
            task(number),
            A1,
            assignment,
            Carried::Object(name.to_owned()),
        )
        .await;
    }
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let result = |number| {
        let (pool, org, swarm) = (pool.clone(), s.org, s.place.swarm);
        async move {
            let row = queries::task(&pool, org, swarm, task(number))
                .await
                .expect("reads")
                .expect("is there");
            serde_json::to_value(&row.result).expect("JSON")
        }
    };
    assert_eq!(result(1).await, json!({"large": true}));
    assert_eq!(
        result(2).await,
        json!({"not_found": {"object": "results/none"}})
    );
}

#[tokio::test]
async fn lists_page_by_cursor_to_their_end() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 1).await;
    for number in 0..5 {
        s.submit(task(number), submission()).await;
    }
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let (mut page, mut seen, mut pages) = (
        PageRequest {
            limit: Some(2),
            cursor: None,
        },
        Vec::new(),
        0,
    );
    loop {
        let found = queries::tasks(&pool, s.org, s.place.swarm, &TaskFilter::default(), &page)
            .await
            .expect("a page");
        seen.extend(found.items.iter().map(|task| task.id));
        pages += 1;
        match found.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(
        (seen, pages),
        ((0..5).map(|n| task(n).0).collect::<Vec<_>>(), 3)
    );
    let wrong = queries::agents(&pool, s.org, s.place.swarm, None, &page)
        .await
        .expect_err("a task's cursor");
    assert!(wrong.to_string().starts_with("cursor:"), "{wrong}");
}
