//! Makes the tables. Forward only; the files lie in `migrations/`.

use std::{borrow::Cow, fmt};

use sqlx::{
    PgConnection,
    migrate::{MigrateError, Migrator},
};

/// For every database.
static POSTGRES: Migrator = sqlx::migrate!("../migrations/postgres");
/// Take the place of the same numbers above where TimescaleDB is.
static TIMESCALE: Migrator = sqlx::migrate!("../migrations/timescale");

/// What holds the tables that grow with time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeTables {
    /// PostgreSQL's own range partitions.
    Native,
    /// TimescaleDB's hypertables.
    Timescale,
}
impl TimeTables {
    /// As `/readyz` says it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Native => "native partitions",
            Self::Timescale => "timescaledb hypertables",
        }
    }
}
impl fmt::Display for TimeTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Every table of the read models: what a rebuild drops.
pub const TABLES: [&str; 13] = [
    "organizations",
    "users",
    "api_keys",
    "swarms",
    "swarm_agents",
    "swarm_tasks",
    "task_dependencies",
    "task_attempts",
    "swarm_figures",
    "swarm_outcomes",
    "swarm_topologies",
    "swarm_questions",
    "swarm_events",
];

/// Which kind is in use, or would be: the kind of the tables that are there, else by whether the extension is available.
///
/// # Errors
/// PostgreSQL does not answer.
pub async fn time_tables(connection: &mut PgConnection) -> Result<TimeTables, sqlx::Error> {
    // An extension that comes later changes nothing for tables that are there: they keep their kind until a rebuild.
    let kind: Option<String> = sqlx::query_scalar(
        "SELECT relkind::text FROM pg_class WHERE oid = to_regclass('swarm_events')",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let timescale =
        match kind.as_deref() {
            Some("p") => false,
            Some(_) => true,
            None => sqlx::query_scalar(
                "SELECT EXISTS (SELECT FROM pg_available_extensions WHERE name = 'timescaledb')",
            )
            .fetch_one(&mut *connection)
            .await?,
        };
    Ok(if timescale {
        TimeTables::Timescale
    } else {
        TimeTables::Native
    })
}

/// Brings the tables up to date. Safe to call at every start and from several processes at once.
///
/// # Errors
/// PostgreSQL does not answer, or the tables were made by a newer program.
pub async fn migrate(connection: &mut PgConnection) -> Result<TimeTables, MigrateError> {
    // `DROP SCHEMA public CASCADE` by an operator must heal too.
    sqlx::query("CREATE SCHEMA IF NOT EXISTS public")
        .execute(&mut *connection)
        .await?;
    let kind = time_tables(connection).await?;
    // Not `run`: its future is not Send for a borrowed connection.
    migrator(kind).run_direct(None, connection, false).await?;
    Ok(kind)
}

fn migrator(kind: TimeTables) -> Migrator {
    let mut migrations = POSTGRES.migrations.to_vec();
    if kind == TimeTables::Timescale {
        for migration in &mut migrations {
            if let Some(other) = TIMESCALE
                .migrations
                .iter()
                .find(|other| other.version == migration.version)
            {
                *migration = other.clone();
            }
        }
    }
    Migrator {
        migrations: Cow::Owned(migrations),
        ..Migrator::DEFAULT
    }
}

/// Drops every table of the read models and makes them anew, empty. A reader that comes in between meets no table.
///
/// # Errors
/// PostgreSQL does not answer or refuses.
pub async fn remake(connection: &mut PgConnection) -> Result<TimeTables, MigrateError> {
    drop_all(connection).await?;
    migrate(connection).await
}

async fn drop_all(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("CREATE SCHEMA IF NOT EXISTS public")
        .execute(&mut *connection)
        .await?;
    let tables = TABLES.join(", ");
    let drop =
        format!("DROP TABLE IF EXISTS {tables}, projection_checkpoint, _sqlx_migrations CASCADE");
    // Only our own constants are in it.
    sqlx::query(sqlx::AssertSqlSafe(drop))
        .execute(&mut *connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timescale_only_replaces_what_is_there() {
        for migration in TIMESCALE.migrations.iter() {
            let plain = POSTGRES
                .migrations
                .iter()
                .find(|other| other.version == migration.version);
            let plain = plain.unwrap_or_else(|| panic!("{} has no counterpart", migration.version));
            assert_eq!(plain.description, migration.description);
            assert_ne!(plain.checksum, migration.checksum);
        }
        let columns = |migrator: &Migrator| {
            let sql = migrator
                .migrations
                .iter()
                .map(|m| m.sql.as_str())
                .find(|s| s.contains("TABLE swarm_events"));
            let sql = sql.expect("has the table").to_owned();
            let start = sql.find("CREATE TABLE swarm_events (").expect("starts");
            let end = sql.find("PRIMARY KEY (seq, created_at)").expect("ends");
            sql[start..end].to_owned()
        };
        assert_eq!(columns(&POSTGRES), columns(&TIMESCALE));
    }

    #[test]
    fn nothing_in_the_tables_comes_from_the_database_itself() {
        for migrator in [&POSTGRES, &TIMESCALE] {
            for migration in migrator.migrations.iter() {
                let code = migration
                    .sql
                    .as_str()
                    .lines()
                    .map(|line| line.split("--").next().unwrap_or(""));
                let code = code.collect::<Vec<_>>().join("\n").to_lowercase();
                for word in ["now()", "random", "default", "serial", "current_timestamp"] {
                    let found = code.replace("create_default_indexes", "").contains(word);
                    assert!(!found, "{word} in migration {}", migration.version);
                }
            }
        }
    }
}
