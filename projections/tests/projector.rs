//! How the projector fares when things around it go wrong, on a real PostgreSQL and for a log written by hand.

mod support;

use serde_json::{Value, json};
use support::{everything::*, *};
use swarm_events::{Subject, TaskId, subject::SwarmVerb};
use swarm_projections::{
    migrate::TimeTables,
    pool::reader,
    progress::Progress,
    projector::{Pace, ProjectorError},
    queries,
    rebuild::rebuild,
    status::Phase,
};
use swarm_servers::testing;
use tokio_util::sync::CancellationToken;

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
async fn on_a_quiet_log_too_dropped_tables_and_an_outage_are_noticed() {
    let mut postgres = testing::postgres().await;
    let s = everything().await;
    let projector = Projector::start(&s.log, &postgres.url, Pace::default());
    let last = s.log.last_sequence();
    projector.until_committed(last).await;
    let before = dump_all(&postgres.url).await;
    assert_eq!(rebuild(&postgres.url).await.expect("drops"), Some(last));
    projector
        .until("folds anew", |state| {
            state.folds == 2 && state.committed == last
        })
        .await;
    assert_same(&before, &dump_all(&postgres.url).await);

    postgres.kill();
    projector
        .until("notices", |state| state.stale_since.is_some())
        .await;
    postgres.restart().await;
    projector.until("is back", |state| state.is_ready()).await;
    assert_eq!(projector.status.get().folds, 2, "nothing was lost");
    projector.stop().await;
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
