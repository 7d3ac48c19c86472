//! What PostgreSQL's errors mean.

use sqlx::Error;

/// The table or its schema is gone (or not there yet).
pub(crate) fn is_missing_table(error: &Error) -> bool {
    // undefined_table, undefined_column (a table of an older form), invalid_schema_name
    matches!(code(error).as_deref(), Some("42P01" | "42703" | "3F000"))
}

/// Nothing is wrong with the question: PostgreSQL is away, starting, stopping, or out of connections or memory.
pub(crate) fn is_unavailable(error: &Error) -> bool {
    match error {
        Error::Io(_)
        | Error::Tls(_)
        | Error::PoolTimedOut
        | Error::PoolClosed
        | Error::WorkerCrashed
        | Error::Protocol(_) => true,
        // connection exceptions, insufficient resources, operator intervention (shutdown, cancel), system errors
        Error::Database(_) => code(error).is_some_and(|code| {
            ["08", "53", "57", "58"]
                .iter()
                .any(|class| code.starts_with(class))
                || code == "25006"
        }),
        _ => false,
    }
}

/// SQLSTATE.
pub(crate) fn code(error: &Error) -> Option<String> {
    error
        .as_database_error()
        .and_then(|e| e.code())
        .map(|code| code.into_owned())
}
