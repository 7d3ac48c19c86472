//! What PostgreSQL holds.

use std::collections::BTreeMap;

use sqlx::{AssertSqlSafe, Connection, PgConnection, Row};

async fn connect(url: &str) -> PgConnection {
    PgConnection::connect(url)
        .await
        .expect("PostgreSQL answers")
}

/// A query's one number.
pub async fn count(url: &str, query: &str) -> i64 {
    let mut connection = connect(url).await;
    // Only the tests' own text.
    let row = sqlx::query(AssertSqlSafe(query.to_owned()))
        .fetch_one(&mut connection)
        .await;
    row.expect("it answers").get(0)
}

/// A query's rows of two texts, as a map.
pub async fn query_pairs(url: &str, query: &str) -> BTreeMap<String, String> {
    let mut connection = connect(url).await;
    let rows = sqlx::query(AssertSqlSafe(query.to_owned()))
        .fetch_all(&mut connection)
        .await;
    rows.expect("it answers")
        .iter()
        .map(|row| (row.get(0), row.get(1)))
        .collect()
}

/// Every row of every read-model table, as sorted JSON lines by table.
pub async fn dump(url: &str) -> BTreeMap<String, Vec<String>> {
    let mut connection = connect(url).await;
    let mut tables = BTreeMap::new();
    for table in swarm_projections::migrate::TABLES {
        let query = format!("SELECT to_jsonb(t)::text FROM {table} t ORDER BY 1");
        let rows = sqlx::query(AssertSqlSafe(query))
            .fetch_all(&mut connection)
            .await
            .expect("the table is there");
        tables.insert(
            table.to_owned(),
            rows.iter().map(|row| row.get(0)).collect(),
        );
    }
    tables
}
