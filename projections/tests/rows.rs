//! What stands in the rows, on a real PostgreSQL and for a log written by hand.

#[path = "rows/agents.rs"]
mod agents;
#[path = "rows/attempts.rs"]
mod attempts;
mod support;
#[path = "rows/topologies.rs"]
mod topologies;

use serde_json::{Value, json};
use support::{everything::*, *};
use swarm_events::{GraphId, decider::REMEMBERED_MS, task::Carried};
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
    assert_eq!(
        swarms.items.len(),
        3,
        "with those of managed agents and of topologies"
    );
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
        ["degraded", "degraded", "inactive", "active"]
    );
    assert_eq!(
        swarms.items[2].description.as_deref(),
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
    assert_eq!(
        shown(1)["tasks_failed"],
        4,
        "three were reported, one ran out of time"
    );
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
            "running",
            "failed",
            "failed",
            "failed",
            "assigned"
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
        [task(4).0, task(8).0],
        "what was put away is none any more"
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
async fn a_list_takes_each_filter() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let with = TaskFilter::default;
    let status = |status: &str| TaskFilter {
        status: Some(status.to_owned()),
        ..with()
    };
    let cases: [(TaskFilter, &[u128]); 15] = [
        (status("assigned"), &[10]),
        (status("running"), &[6]),
        (status("queued"), &[3]),
        (status("completed"), &[1, 2]),
        (status("failed"), &[4, 7, 8, 9]),
        (status("cancelled"), &[5]),
        (status("held"), &[]),
        (
            TaskFilter {
                task_type: Some("count".to_owned()),
                ..status("failed")
            },
            &[4, 7, 8, 9],
        ),
        (
            TaskFilter {
                task_type: Some("other".to_owned()),
                ..with()
            },
            &[],
        ),
        (
            TaskFilter {
                dead_lettered: Some(true),
                ..with()
            },
            &[4, 8],
        ),
        (
            TaskFilter {
                dead_lettered: Some(false),
                ..status("failed")
            },
            &[7, 9],
        ),
        (
            TaskFilter {
                graph_id: Some(GraphId(id(60))),
                ..with()
            },
            &[8, 9],
        ),
        (
            TaskFilter {
                parent_task_id: Some(task(6)),
                ..with()
            },
            &[8, 9, 10],
        ),
        (
            TaskFilter {
                agent_id: Some(A1),
                ..with()
            },
            &[1, 2, 6, 10],
        ),
        (
            TaskFilter {
                agent_id: Some(A1),
                ..status("completed")
            },
            &[1, 2],
        ),
    ];
    for (filter, wanted) in cases {
        let page = queries::tasks(
            &pool,
            s.org,
            s.place.swarm,
            &filter,
            &PageRequest::default(),
        )
        .await;
        let found: Vec<Uuid> = page
            .expect("a page")
            .items
            .iter()
            .map(|task| task.id)
            .collect();
        let wanted: Vec<Uuid> = wanted.iter().map(|number| task(*number).0).collect();
        assert_eq!(found, wanted, "{filter:?}");
    }
}

/// The swarm's settings move deadlines without touching a task: they are reckoned when they are read, so that a row is the
/// same wherever batches end.
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

/// Given a task that is forgotten, when its id is used again, then the row is that of the new task, and nothing of the old
/// one's attempts is left, wherever batches end.
#[tokio::test]
async fn a_forgotten_id_begins_anew() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 1).await;
    s.whole_task(task(1), A1).await;
    s.wake(i64::try_from(REMEMBERED_MS).expect("fits") + 1)
        .await;
    s.submit(task(1), submission()).await;
    let assignment = s.assign(task(1), A1, 1).await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let one_by_one = postgres.fresh_database("one_by_one").await;
    project(&s.log, &one_by_one, small()).await;
    assert_same(&dump_all(&postgres.url).await, &dump_all(&one_by_one).await);
    let pool = reader(&one_by_one).expect("a pool");
    let details = queries::task_details(&pool, s.org, s.place.swarm, task(1)).await;
    let details = details.expect("reads").expect("is there");
    assert_eq!(details.task.status, "assigned");
    let shown: Vec<_> = details.attempts.iter().map(|a| a.assignment).collect();
    assert_eq!(shown, [i64::try_from(assignment).expect("fits")]);
}
