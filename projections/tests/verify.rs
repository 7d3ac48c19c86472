//! The tables held against the log, on a real PostgreSQL.

mod support;

use sqlx::AssertSqlSafe;
use support::{everything::*, *};
use swarm_projections::{
    migrate::TABLES,
    projector::Pace,
    verify::{ROWS_SHOWN_MAX, Verified, VerifyError, verify},
};
use swarm_servers::testing;

async fn change(url: &str, sql: &str) -> u64 {
    let pool = pool(url).await;
    let done = sqlx::query(AssertSqlSafe(sql.to_owned()))
        .execute(&pool)
        .await;
    done.unwrap_or_else(|error| panic!("{sql}: {error}"))
        .rows_affected()
}

fn differing(verified: &Verified) -> Vec<(&'static str, i64, i64)> {
    verified
        .tables
        .iter()
        .filter(|t| t.missing > 0 || t.surplus > 0)
        .map(|t| (t.table, t.missing, t.surplus))
        .collect()
}

#[tokio::test]
async fn tables_of_the_projector_equal_the_log_and_any_change_shows() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    let url = &postgres.url;
    let nothing = verify(&s.log, url).await;
    assert!(matches!(nothing, Err(VerifyError::NoTables)), "{nothing:?}");

    project(&s.log, url, Pace::default()).await;
    let verified = verify(&s.log, url).await.expect("compared");
    assert!(verified.is_equal(), "{verified:#?}");
    assert!(verified.tables.iter().all(|t| t.rows > 0), "{verified:#?}");
    assert_eq!(verified.tables.len(), TABLES.len());

    // A changed row is one that is missing and one too many.
    assert_eq!(
        change(
            url,
            "UPDATE users SET name = name || 'x' WHERE id = (SELECT min(id::text)::uuid FROM users)"
        )
        .await,
        1
    );
    let verified = verify(&s.log, url).await.expect("compared");
    assert_eq!(differing(&verified), [("users", 1, 1)]);
    change(
        url,
        "UPDATE users SET name = left(name, -1) WHERE name LIKE '%x'",
    )
    .await;

    // Rows that are gone are missing, at most so many are shown.
    let gone = change(url, "DELETE FROM swarm_events").await;
    let verified = verify(&s.log, url).await.expect("compared");
    let gone = i64::try_from(gone).expect("small");
    assert!(gone > ROWS_SHOWN_MAX);
    assert_eq!(differing(&verified), [("swarm_events", gone, 0)]);
    let events = verified.tables.iter().find(|t| t.table == "swarm_events");
    let shown = &events.expect("is there").shown;
    assert_eq!(i64::try_from(shown.len()), Ok(ROWS_SHOWN_MAX), "{shown:?}");

    // Nothing is left of it, and it changed nothing.
    let temporary = "SELECT FROM pg_class WHERE relpersistence = 't' AND relname = 'swarm_tasks'";
    assert_eq!(change(url, temporary).await, 0);
}

#[tokio::test]
async fn the_log_is_folded_to_exactly_the_committed_sequence() {
    let postgres = testing::postgres().await;
    let mut s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let before = verify(&s.log, &postgres.url).await.expect("compared");
    // The log goes on, the projector does not.
    s.whole_task(task(900), A2).await;
    let verified = verify(&s.log, &postgres.url).await.expect("compared");
    assert_eq!(verified, before);
    assert!(verified.is_equal(), "{verified:#?}");
}

#[tokio::test]
async fn tables_of_another_log_are_refused() {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    change(
        &postgres.url,
        "UPDATE projection_checkpoint SET sequence = sequence + 1",
    )
    .await;
    let behind = verify(&s.log, &postgres.url).await;
    assert!(
        matches!(behind, Err(VerifyError::OtherLog(_))),
        "{behind:?}"
    );
    change(
        &postgres.url,
        "UPDATE projection_checkpoint SET stream_created = stream_created + interval '1 second'",
    )
    .await;
    let other = verify(&s.log, &postgres.url).await;
    assert!(matches!(other, Err(VerifyError::OtherLog(_))), "{other:?}");
}
