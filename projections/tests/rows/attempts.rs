//! Attempts, limits and results in the rows.

use chrono::{DateTime, Utc};
use serde_json::json;
use swarm_events::{
    Subject,
    configuration::Configuration,
    subject::{SwarmVerb, TaskVerb},
    swarm,
    task::{Carried, Progressed, RESULT_BYTES_MAX, Then, WithdrawReason},
};
use swarm_projections::{
    pool::reader,
    projector::Pace,
    queries::{self, ATTEMPTS_SHOWN_MAX, AgentRow, Children, PageRequest},
};
use swarm_servers::testing;

use crate::support::{everything::*, *};

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
