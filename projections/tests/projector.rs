//! The projector on a real PostgreSQL and a log written by hand.

mod support;

use serde_json::{Value, json};
use support::*;
use swarm_events::{
    AgentId, GraphId, Json, Place, Service, Subject, SwarmId, TaskId, Timestamp,
    agent::{self, Evidence, LivenessRule},
    configuration::Configuration,
    subject::{AgentVerb, SwarmVerb, TaskVerb},
    swarm,
    task::{self, Carried, Dependency, DependencyType, GraphPart, Submitted},
};
use swarm_log::Log;
use swarm_projections::{
    migrate::TimeTables,
    pool::reader,
    progress::Progress,
    projector::{Pace, ProjectorError},
    queries::{self, PageRequest, SwarmFilter, TaskFilter},
    rebuild::rebuild,
    status::Phase,
};
use swarm_servers::testing;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const A1: AgentId = AgentId(id(101));
const A2: AgentId = AgentId(id(102));

fn task(number: u128) -> TaskId {
    TaskId(id(1_000 + number))
}

fn evidence() -> Evidence {
    Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 3_000,
        limit_ms: 2_000,
    }
}

fn sample(agent: AgentId, incarnation: u64, cpu: u32) -> swarm::AgentSample {
    swarm::AgentSample {
        instance: instance(agent, incarnation),
        status: "idle".to_owned(),
        last_heartbeat_at: Timestamp::from_micros(START + 5_000_000),
        cpu_centipercent: cpu,
        memory_kib: 2_048,
        active_connections: 2,
        queue_depth: 0,
        current_tasks: Vec::new(),
    }
}

/// A bit of everything: every kind of row, every kind of end, and what must not be.
async fn everything() -> Script {
    let mut s = Script::new().await;
    s.join(A1, 1, 2).await;
    s.join(A2, 1, 1).await;

    s.whole_task(task(1), A1).await;
    // A repeat with the same content is nothing, one with other content is refused; neither touches the first.
    s.submit(task(1), submission()).await;
    s.submit(
        task(1),
        Submitted {
            task_type: "other".to_owned(),
            ..submission()
        },
    )
    .await;

    // A graph: 3 needs 2; what PostgreSQL cannot hold is in its payload and its result.
    let part = |index| {
        Some(GraphPart {
            id: GraphId(id(50)),
            index,
            of: 2,
        })
    };
    let odd = Json::parse(r#"{"nul":"\u0000","half":"\ud800","big":1e99999}"#).expect("is JSON");
    s.submit(
        task(2),
        Submitted {
            payload: odd.clone(),
            graph: part(0),
            key: Some("a".to_owned()),
            ..submission()
        },
    )
    .await;
    let needs = Dependency {
        task_id: task(2),
        dependency_type: DependencyType::Data,
        alias: Some("two".to_owned()),
    };
    s.submit(
        task(3),
        Submitted {
            depends_on: vec![needs],
            graph: part(1),
            ..submission()
        },
    )
    .await;
    s.by_distributor(
        TaskVerb::GraphAccepted,
        None,
        id(50),
        task::GraphAccepted { tasks: 2 },
    )
    .await;
    let assignment = s.assign(task(2), A1, 1).await;
    s.start(task(2), A1, assignment).await;
    let progress = task::Progressed {
        assignment,
        incarnation: 1,
        percent: Some(40),
        message: Some("half \0 way".to_owned()),
    };
    s.by_agent(TaskVerb::Progressed, A1, task(2), progress)
        .await;
    s.complete(task(2), A1, assignment, Carried::Inline(odd))
        .await;
    // A late result of an assignment that has ended.
    s.complete(
        task(2),
        A1,
        assignment,
        Carried::Inline(json!("late").into()),
    )
    .await;

    // Fails, is tried again, and is a dead letter.
    s.submit(
        task(4),
        Submitted {
            max_attempts: Some(1),
            ..submission()
        },
    )
    .await;
    let assignment = s.assign(task(4), A2, 1).await;
    s.start(task(4), A2, assignment).await;
    let failed = task::AttemptFailed {
        assignment,
        incarnation: 1,
        error: "broke\0n".to_owned(),
        retryable: true,
    };
    s.by_agent(TaskVerb::AttemptFailed, A2, task(4), failed)
        .await;
    let failed = task::Failed {
        attempts: 1,
        generation: 1,
        error: "broken".to_owned(),
        dead_lettered: true,
        because_of: None,
    };
    s.by_distributor(TaskVerb::Failed, None, task(4).0, failed)
        .await;

    // Called off while it waits.
    s.submit(task(5), submission()).await;
    let cancelled = task::Cancelled {
        generation: 1,
        reason: "not wanted".to_owned(),
    };
    s.by_distributor(TaskVerb::Cancelled, None, task(5).0, cancelled)
        .await;

    // Running at the end, with progress.
    s.submit(task(6), submission()).await;
    let assignment = s.assign(task(6), A1, 1).await;
    s.start(task(6), A1, assignment).await;
    let progress = task::Progressed {
        assignment,
        incarnation: 1,
        percent: Some(7),
        message: None,
    };
    s.by_agent(TaskVerb::Progressed, A1, task(6), progress)
        .await;

    // An agent is doubted, another has gone and come back as a new process; samples of a process that is no more.
    s.by_agent_subject(
        AgentVerb::Suspected,
        A1,
        agent::Suspected {
            incarnation: 1,
            evidence: evidence(),
        },
    )
    .await;
    let left = agent::Left {
        incarnation: 1,
        reason: "done".to_owned(),
    };
    s.by_agent_subject(AgentVerb::Left, A2, left).await;
    s.pass(86_400_000);
    s.join(A2, 2, 1).await;
    for (agent, incarnation, cpu) in [(A1, 1, 1_250), (A2, 1, 7_700), (A2, 2, 50)] {
        s.sample(agent, sample(agent, incarnation, cpu)).await;
    }

    // An owner that has been superseded changes nothing.
    let stopping = Subject::Swarm(s.place, SwarmVerb::Stopping);
    s.stale(stopping, s.place.swarm.0, swarm::Stopping {}).await;
    let updated = swarm::Updated {
        name: "renamed".to_owned(),
        description: None,
        configuration: Configuration {
            min_agents: 1,
            ..Configuration::default()
        },
    };
    s.decide(
        Subject::Swarm(s.place, SwarmVerb::Updated),
        s.place.swarm.0,
        updated,
    )
    .await;

    // What cannot be read.
    s.raw("swarm.evt.nonsense.x", "{").await;
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None).to_string();
    s.raw(&subject, "\t\\ not JSON \n").await;
    s.raw(
        &subject,
        format!(r#"{{"specversion":"1.0","id":"{}","source":"/x"}}"#, id(9)),
    )
    .await;

    // A swarm that comes and goes.
    let other = Place::new(s.org, SwarmId(id(77)));
    if !s.is_claimed(Service::Coordinator, other.partition) {
        s.claim(Service::Coordinator, other.partition).await;
    }
    s.swarm(other, "second").await;
    s.decide(
        Subject::Swarm(other, SwarmVerb::Stopping),
        other.swarm.0,
        swarm::Stopping {},
    )
    .await;
    s.decide(
        Subject::Swarm(other, SwarmVerb::Deleted),
        other.swarm.0,
        swarm::Deleted {},
    )
    .await;
    s
}

fn small() -> Pace {
    Pace {
        messages_max: 1,
        ..Pace::default()
    }
}

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
async fn a_restarted_projector_goes_on_where_it_was() {
    let postgres = testing::postgres().await;
    let whole = everything().await;
    project(&whole.log, &postgres.url, Pace::default()).await;
    let wanted = dump_all(&postgres.url).await;

    // The same log, met in three parts by three processes.
    let parts = postgres.fresh_database("parts").await;
    let last = whole.log.last_sequence();
    for visible in [last / 3, last / 2, last] {
        whole.log.limit_tails("main", Some(visible));
        let projector = Projector::start(
            &whole.log,
            &parts,
            Pace {
                messages_max: 3,
                ..Pace::default()
            },
        );
        projector.until_committed(visible).await;
        projector.stop().await;
    }
    assert_same(&wanted, &dump_all(&parts).await);
}

#[tokio::test]
async fn dropped_tables_come_back_the_same() {
    let postgres = testing::postgres().await;
    let mut s = everything().await;
    let projector = Projector::start(&s.log, &postgres.url, Pace::default());
    projector.until_committed(s.log.last_sequence()).await;
    let pool = pool(&postgres.url).await;
    for drop in [
        "DROP SCHEMA public CASCADE",
        "DROP TABLE swarm_tasks",
        "DELETE FROM projection_checkpoint",
    ] {
        sqlx::query(drop).execute(&pool).await.expect("drops");
        let folds = projector.status.get().folds;
        let new = TaskId(s.fresh_id());
        let last = s.submit(new, submission()).await;
        projector
            .until("folds anew", |state| {
                state.folds > folds && state.committed >= last
            })
            .await;
        assert_eq!(projector.status.get().stale_since, None);
    }
    let live = dump_all(&postgres.url).await;
    projector.stop().await;
    let fresh = postgres.fresh_database("fresh").await;
    project(&s.log, &fresh, Pace::default()).await;
    assert_same(&live, &dump_all(&fresh).await);
}

#[tokio::test]
async fn postgresql_may_go_and_come_back() {
    let mut postgres = testing::postgres().await;
    let mut s = everything().await;
    let projector = Projector::start(&s.log, &postgres.url, Pace::default());
    projector.until_committed(s.log.last_sequence()).await;
    let stop = CancellationToken::new();
    let progress = Progress::follow(reader(&postgres.url).expect("a pool"), stop.clone());
    progress
        .wait_for_sequence(s.log.last_sequence(), PATIENCE)
        .await
        .expect("is there");
    assert_eq!(progress.stale_since(), None);

    postgres.kill();
    for _ in 0..20 {
        let task = TaskId(s.fresh_id());
        s.submit(task, submission()).await;
    }
    projector
        .until("notices", |state| state.stale_since.is_some())
        .await;
    let last = s.log.last_sequence();
    let behind = progress
        .wait_for_sequence(last, std::time::Duration::from_secs(3))
        .await
        .expect_err("it is down");
    assert!(behind.stale_since.is_some(), "{behind}");
    assert!(
        queries::committed_sequence(&reader(&postgres.url).expect("a pool"))
            .await
            .is_err_and(|e| e.is_unavailable())
    );

    postgres.restart().await;
    projector.until_committed(last).await;
    progress
        .wait_for_sequence(last, PATIENCE)
        .await
        .expect("is there again");
    assert_eq!(projector.status.get().stale_since, None);
    assert_eq!(projector.status.get().folds, 1, "the fold was kept");
    projector.stop().await;
    let live = dump_all(&postgres.url).await;
    let fresh = postgres.fresh_database("fresh").await;
    project(&s.log, &fresh, Pace::default()).await;
    assert_same(&live, &dump_all(&fresh).await);
}

#[tokio::test]
async fn of_two_projectors_one_stands_by_and_takes_over() {
    let postgres = testing::postgres().await;
    let mut s = everything().await;
    let first = Projector::start(&s.log, &postgres.url, Pace::default());
    first.until_committed(s.log.last_sequence()).await;
    let second = Projector::start(&s.log, &postgres.url, Pace::default());
    second
        .until("stands by", |state| state.phase == Phase::Standby)
        .await;
    let last = s.submit(task(20), submission()).await;
    first.until_committed(last).await;
    assert_eq!(second.status.get().committed, 0);
    first.stop().await;
    let last = s.submit(task(21), submission()).await;
    second.until_committed(last).await;
    second.stop().await;
    let live = dump_all(&postgres.url).await;
    let fresh = postgres.fresh_database("fresh").await;
    project(&s.log, &fresh, Pace::default()).await;
    assert_same(&live, &dump_all(&fresh).await);
}

#[tokio::test]
async fn a_checkpoint_that_someone_else_moved_stops_the_batch() {
    let postgres = testing::postgres().await;
    let mut s = everything().await;
    let projector = Projector::start(&s.log, &postgres.url, Pace::default());
    projector.until_committed(s.log.last_sequence()).await;
    let before = dump_all(&postgres.url).await;
    // The database goes back, as by a restored backup of the checkpoint's row alone would: the guard holds the batch up.
    let pool = pool(&postgres.url).await;
    sqlx::query("UPDATE projection_checkpoint SET sequence = sequence + 1")
        .execute(&pool)
        .await
        .expect("moves it");
    let last = s.submit(task(30), submission()).await;
    projector
        .until("folds anew", |state| state.folds == 2)
        .await;
    let error = projector.status.get().last_error.unwrap_or_default();
    assert!(error.contains("another one has written"), "{error}");
    projector.stop().await;
    let after = dump_all(&postgres.url).await;
    assert_eq!(
        before["swarm_events"].len(),
        after["swarm_events"].len(),
        "sequence {last} was not written twice or torn"
    );
}

#[tokio::test]
async fn a_log_that_went_back_is_refused_and_both_are_named() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let before = dump_all(&postgres.url).await;

    let shorter = Script::new().await;
    let error = Projector::start(&shorter.log, &postgres.url, Pace::default())
        .ended()
        .await
        .expect_err("is refused");
    let text = error.to_string();
    assert!(matches!(error, ProjectorError::Log(_)), "{text}");
    let (at, end) = (s.log.last_sequence(), shorter.log.last_sequence());
    assert!(
        text.contains(&format!("at sequence {at}"))
            && text.contains(&format!("ends at sequence {end}")),
        "{text}"
    );
    assert!(text.contains("swarm projection rebuild"), "{text}");

    let settings = swarm_log::simulated::SimulatedSettings {
        created_micros: START + 1,
        ..Default::default()
    };
    let recreated = swarm_log::simulated::SimulatedLog::new(settings);
    let error = Projector::start(&recreated, &postgres.url, Pace::default())
        .ended()
        .await
        .expect_err("is refused");
    assert!(
        error.to_string().contains("2024-01-01 00:00:00.000001 UTC"),
        "{error}"
    );
    assert_same(&before, &dump_all(&postgres.url).await);
}

#[tokio::test]
async fn a_message_of_a_newer_service_stops_the_projector_and_is_named() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    let subject = Subject::Swarm(s.place, SwarmVerb::Updated);
    let mut event: Value =
        serde_json::from_slice(&s.log.messages().last().expect("created").payload).expect("JSON");
    event["type"] = json!("swarm.swarm.updated.v9");
    event["ordinal"] = json!(99);
    let at = s.raw(&subject.to_string(), event.to_string()).await;
    let error = Projector::start(&s.log, &postgres.url, Pace::default())
        .ended()
        .await
        .expect_err("stops");
    assert!(matches!(error, ProjectorError::Newer(_)), "{error}");
    assert!(
        error.to_string().contains(&format!("at sequence {at}")),
        "{error}"
    );
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

#[tokio::test]
async fn it_says_which_kind_of_time_tables_is_in_use() {
    let postgres = testing::postgres().await;
    let s = Script::new().await;
    let projector = Projector::start(&s.log, &postgres.url, Pace::default());
    projector.until_committed(s.log.last_sequence()).await;
    let mut connection = pool(&postgres.url)
        .await
        .acquire()
        .await
        .expect("a connection");
    let kind = swarm_projections::migrate::time_tables(&mut connection)
        .await
        .expect("reads");
    assert_eq!(projector.status.get().time_tables, Some(kind.as_str()));
    let there: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')",
    )
    .fetch_one(&mut *connection)
    .await
    .expect("reads");
    assert_eq!(kind == TimeTables::Timescale, there);
    projector.stop().await;
}
