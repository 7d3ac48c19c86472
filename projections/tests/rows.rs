//! What stands in the rows, on a real PostgreSQL and for a log written by hand.

mod support;

use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use support::{everything::*, *};
use swarm_events::{
    GraphId, Subject,
    configuration::Configuration,
    decider::REMEMBERED_MS,
    subject::{SwarmVerb, TaskVerb},
    swarm,
    task::{Carried, Progressed, RESULT_BYTES_MAX, Then, WithdrawReason},
};
use swarm_log::Log;
use swarm_projections::{
    pool::reader,
    projector::Pace,
    queries::{self, ATTEMPTS_SHOWN_MAX, AgentRow, Children, PageRequest, SwarmFilter, TaskFilter},
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
    assert_eq!(shown(1)["tasks_failed"], 3);
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
async fn a_task_shows_every_attempt_its_parts_and_how_it_failed() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let details = |number| {
        let (pool, org, swarm) = (pool.clone(), s.org, s.place.swarm);
        async move {
            let found = queries::task_details(&pool, org, swarm, task(number)).await;
            found.expect("reads").expect("is there")
        }
    };

    // The newest first; what was stolen before it started is no attempt; what was late changed nothing.
    let stolen = details(7).await;
    let attempts: Vec<_> = stolen
        .attempts
        .iter()
        .map(|a| {
            (
                a.number,
                a.agent_id,
                a.outcome.as_deref(),
                a.error.as_deref(),
                a.retryable,
            )
        })
        .collect();
    let (one, two) = (A1.0, A2.0);
    assert_eq!(
        attempts,
        [
            (Some(2), two, Some("failed"), Some("in vain"), Some(true)),
            (
                Some(1),
                two,
                Some("withdrawn:timeout"),
                Some("it ran longer than its timeout_ms"),
                None
            ),
            (None, one, Some("withdrawn:steal"), None, None),
        ]
    );
    let [third, second, first] = &stolen.attempts[..] else {
        panic!("{stolen:?}");
    };
    assert_eq!(
        [first, second, third].map(|a| (
            a.algorithm.as_str(),
            a.affinity.as_deref(),
            a.stolen_from
        )),
        [
            ("affinity", Some("new"), None),
            ("affinity", Some("miss"), Some(one)),
            ("affinity", Some("hit"), None),
        ]
    );
    assert!(third.assignment > second.assignment && second.assignment > first.assignment);
    assert_eq!(
        (first.started_at, third.started_at),
        (None, stolen.task.started_at)
    );
    assert!(
        stolen
            .attempts
            .iter()
            .all(|a| a.ended_at >= a.started_at && a.ended_at >= Some(a.assigned_at))
    );
    assert!(
        stolen
            .attempts
            .iter()
            .all(|a| (a.generation, a.incarnation) == (1, 1))
    );
    let row = &stolen.task;
    assert_eq!(
        (row.status.as_str(), row.dead_lettered, row.discarded),
        ("failed", false, true)
    );
    assert_eq!(
        (row.error_message.as_deref(), row.attempt_count),
        (Some("in vain"), 2),
        "nothing else is forgotten"
    );

    let fell = details(9).await;
    assert_eq!(fell.task.failure_path, [task(8).0]);
    assert_eq!(fell.task.because_of, Some(task(8).0));
    assert_eq!((fell.attempts.len(), fell.depends_on.len()), (0, 1));

    // A parent knows its parts; a running attempt has no end yet.
    let parent = details(6).await;
    let parts = Children {
        total: 3,
        completed: 0,
        failed: 2,
        cancelled: 0,
        open: 1,
    };
    assert_eq!(parent.children, parts);
    assert_eq!(parent.attempts.len(), 1);
    assert_eq!(
        (parent.attempts[0].number, &parent.attempts[0].outcome),
        (Some(1), &None)
    );
    assert_eq!(details(7).await.children, Children::default());
    assert!(
        parent.task.progressed_at > parent.task.started_at,
        "{parent:?}"
    );

    let waits = details(10).await;
    let wait = &waits.attempts[0];
    assert_eq!(
        (wait.number, wait.started_at, &wait.outcome),
        (None, None, &None)
    );
    let queued_at = waits.task.queued_at.expect("was queued");
    let due = waits
        .task
        .queue_timeout_at
        .map(|at| (at - queued_at).num_milliseconds());
    assert_eq!(due, Some(90_000));
    let run = parent.task.timeout_at.zip(parent.task.started_at);
    let limit = Configuration::default().task_timeout_ms;
    assert_eq!(
        run.map(|(due, from)| (due - from).num_milliseconds()),
        i64::try_from(limit).ok()
    );

    let agents = queries::agents(&pool, s.org, s.place.swarm, None, &PageRequest::default()).await;
    let agents = agents.expect("agents").items;
    let shown = |a: &AgentRow| {
        (
            a.slots,
            a.waiting_limit,
            a.running,
            a.queue_depth,
            a.waiting_since,
        )
    };
    assert_eq!(shown(&agents[0]), (2, 0, 1, 1, Some(wait.assigned_at)));
    assert_eq!(shown(&agents[1]), (1, 0, 0, 0, None));

    let figures = queries::figures(&pool, s.org, s.place.swarm)
        .await
        .expect("reads")
        .expect("measured");
    assert_eq!(
        (
            figures.affinity_hits,
            figures.affinity_misses,
            figures.steals,
            figures.retries,
            figures.failed
        ),
        (1, 1, 1, 1, 4)
    );
    let org = queries::organization(&pool, s.org)
        .await
        .expect("reads")
        .expect("is there");
    assert_eq!(
        (org.name.as_str(), org.queue_limit),
        ("Org \u{FFFD} Two", Some(5_000))
    );
    let types: Vec<String> = sqlx::query_scalar(
        "SELECT event_type FROM swarm_events WHERE event_type IN ('task_discarded', 'org_updated') ORDER BY seq",
    )
    .fetch_all(&pool)
    .await
    .expect("reads");
    assert_eq!(types, ["task_discarded", "org_updated"]);
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
async fn deadlines_follow_the_swarms_settings() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 1).await;
    for number in [1, 2] {
        s.submit(task(number), submission()).await;
    }
    let assignment = s.assign(task(1), A1, 1).await;
    s.start(task(1), A1, assignment).await;
    let updated = swarm::Updated {
        name: "limits".to_owned(),
        description: None,
        configuration: Configuration {
            queue_timeout_ms: 7_000,
            progress_timeout_ms: 3_000,
            ..Configuration::default()
        },
    };
    let subject = Subject::Swarm(s.place, SwarmVerb::Updated);
    s.decide(subject, s.place.swarm.0, updated).await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let one_by_one = postgres.fresh_database("one_by_one").await;
    project(&s.log, &one_by_one, small()).await;
    assert_same(&dump_all(&postgres.url).await, &dump_all(&one_by_one).await);

    let pool = reader(&one_by_one).expect("a pool");
    let (org, swarm) = (s.org, s.place.swarm);
    let row = |number| {
        let pool = pool.clone();
        async move {
            let row = queries::task(&pool, org, swarm, task(number)).await;
            row.expect("reads").expect("is there")
        }
    };
    let millis = |due: Option<DateTime<Utc>>, from: Option<DateTime<Utc>>| {
        due.zip(from)
            .map(|(due, from)| (due - from).num_milliseconds())
    };
    let (runs, waits) = (row(1).await, row(2).await);
    assert_eq!(millis(waits.queue_timeout_at, waits.queued_at), Some(7_000));
    assert_eq!(waits.timeout_at, None);
    assert_eq!(millis(runs.timeout_at, runs.started_at), Some(3_000));
    assert_eq!(runs.queue_timeout_at, None, "it has started");

    // Progress moves the one of progress.
    let progress = Progressed {
        assignment,
        incarnation: 1,
        percent: None,
        message: None,
    };
    s.by_agent(TaskVerb::Progressed, A1, task(1), progress)
        .await;
    project(&s.log, &one_by_one, Pace::default()).await;
    let runs = row(1).await;
    assert_eq!(millis(runs.timeout_at, runs.progressed_at), Some(3_000));
    assert!(runs.progressed_at > runs.started_at);
}

/// A result that is too large to be used ends nothing: the assignment is withdrawn for it, and no row shows the result.
#[tokio::test]
async fn a_result_that_cannot_be_used_is_not_shown() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 1).await;
    s.submit(task(1), submission()).await;
    let assignment = s.assign(task(1), A1, 1).await;
    s.start(task(1), A1, assignment).await;
    let large = json!("x".repeat(RESULT_BYTES_MAX)).into();
    s.complete(task(1), A1, assignment, Carried::Inline(large))
        .await;
    s.withdraw(
        task(1),
        A1,
        assignment,
        WithdrawReason::BadResult,
        Then::End,
    )
    .await;
    s.fail(task(1), 1, "too large", None).await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let details = queries::task_details(&pool, s.org, s.place.swarm, task(1)).await;
    let details = details.expect("reads").expect("is there");
    assert_eq!(
        (details.task.status.as_str(), details.task.result.is_some()),
        ("failed", false)
    );
    let outcome = details.attempts[0].outcome.as_deref();
    assert_eq!(
        (details.attempts.len(), outcome),
        (1, Some("withdrawn:bad_result"))
    );
}

/// Given one assignment more than is shown, the oldest is left out.
#[tokio::test]
async fn of_many_attempts_the_newest_are_shown() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    s.join(A1, 1, 1).await;
    s.submit(task(1), submission()).await;
    let mut last = 0;
    for _ in 0..=ATTEMPTS_SHOWN_MAX {
        last = s.assign(task(1), A1, 1).await;
        s.withdraw(task(1), A1, last, WithdrawReason::Steal, Then::Queue)
            .await;
    }
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    let shown = queries::attempts(&pool, s.org, s.place.swarm, task(1))
        .await
        .expect("reads");
    assert_eq!(u32::try_from(shown.len()), Ok(ATTEMPTS_SHOWN_MAX));
    assert_eq!(u64::try_from(shown[0].assignment), Ok(last));
    let all: i64 = sqlx::query_scalar("SELECT count(*) FROM task_attempts")
        .fetch_one(&pool)
        .await
        .expect("counts");
    assert_eq!(all, i64::from(ATTEMPTS_SHOWN_MAX) + 1);
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
