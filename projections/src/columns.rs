//! Rows on their way to PostgreSQL: an array for each column, so that a statement takes any number of rows.

use sqlx::{postgres::PgArguments, query::Query};

pub(crate) type Statement<'q> = Query<'q, sqlx::Postgres, PgArguments>;

/// A struct of arrays: for each column its name, what is pushed, and its type in the table.
macro_rules! columns {
    ($(#[$doc:meta])* $name:ident { $($column:ident: $value:ty => $kind:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Default)]
        pub(crate) struct $name { $(pub(crate) $column: Vec<$value>),+ }
        impl $name {
            #[allow(dead_code, reason = "a statement that deletes rows names their key itself")]
            pub(crate) const COLUMNS: &'static [(&'static str, &'static str)] = &[$(($crate::columns::bare(stringify!($column)), $kind)),+];
            pub(crate) fn len(&self) -> usize {
                [$(self.$column.len()),+].into_iter().max().unwrap_or(0)
            }
            /// Every row has a value for every column.
            #[cfg(test)]
            #[allow(dead_code, reason = "not every table has a test of its own")]
            pub(crate) fn assert_whole(&self) {
                $(assert_eq!(self.$column.len(), self.len(), stringify!($column));)+
            }
            /// Binds the arrays in the order of `COLUMNS`.
            pub(crate) fn bind<'q>(&'q self, statement: $crate::columns::Statement<'q>) -> $crate::columns::Statement<'q> {
                $(let statement = statement.bind(&self.$column);)+
                statement
            }
        }
    };
}
pub(crate) use columns;

/// The name of a column that is also a keyword of Rust.
pub(crate) const fn bare(name: &'static str) -> &'static str {
    match name.as_bytes() {
        b"r#type" => "type",
        _ => name,
    }
}

type Columns = &'static [(&'static str, &'static str)];

/// `unnest($1::…[], …) AS u (…)`. JSON and arrays travel as text: an array of arrays must be rectangular.
fn unnest(columns: Columns) -> String {
    let arrays: Vec<_> = columns
        .iter()
        .enumerate()
        .map(|(at, (_, kind))| {
            let kind = if is_text(kind) { "text" } else { kind };
            format!("${}::{kind}[]", at + 1)
        })
        .collect();
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    format!("unnest({}) AS u ({})", arrays.join(", "), names.join(", "))
}

/// Whether a column's values travel as text.
fn is_text(kind: &str) -> bool {
    matches!(kind, "jsonb" | "text[]" | "uuid[]")
}

fn value(name: &str, kind: &str) -> String {
    if is_text(kind) {
        format!("u.{name}::{kind}")
    } else {
        format!("u.{name}")
    }
}

/// Inserts rows that are new.
pub(crate) fn insert(table: &str, columns: Columns) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let values: Vec<_> = columns
        .iter()
        .map(|(name, kind)| value(name, kind))
        .collect();
    format!(
        "INSERT INTO {table} ({}) SELECT {} FROM {}",
        names.join(", "),
        values.join(", "),
        unnest(columns)
    )
}

/// Inserts rows, or changes those that are there (all columns but `key` and `kept`).
pub(crate) fn upsert(table: &str, columns: Columns, key: &[&str], kept: &[&str]) -> String {
    let names: Vec<_> = columns.iter().map(|(name, _)| *name).collect();
    let changes: Vec<_> = names
        .iter()
        .filter(|name| !key.contains(name) && !kept.contains(name))
        .map(|name| format!("{name} = excluded.{name}"))
        .collect();
    let (insert, key, changes) = (insert(table, columns), key.join(", "), changes.join(", "));
    format!("{insert} ON CONFLICT ({key}) DO UPDATE SET {changes}")
}

/// Changes rows that are there. `rules` says how a column gets its value where that is not the new one.
pub(crate) fn update(
    table: &str,
    columns: Columns,
    key: &[&str],
    rules: &[(&str, &str)],
) -> String {
    let own = |name: &str| {
        rules
            .iter()
            .find(|(column, _)| *column == name)
            .map(|(_, rule)| *rule)
    };
    let changes: Vec<_> = columns
        .iter()
        .filter(|(name, _)| !key.contains(name))
        .filter_map(|(name, kind)| match own(name) {
            Some("") => None,
            Some(rule) => Some(format!("{name} = {rule}")),
            None => Some(format!("{name} = {}", value(name, kind))),
        })
        .collect();
    let same: Vec<_> = key
        .iter()
        .map(|name| format!("t.{name} = u.{name}"))
        .collect();
    format!(
        "UPDATE {table} t SET {} FROM {} WHERE {}",
        changes.join(", "),
        unnest(columns),
        same.join(" AND ")
    )
}

/// A PostgreSQL array literal of texts.
pub(crate) fn array_literal(items: &[String]) -> String {
    let mut literal = String::from("{");
    for (at, item) in items.iter().enumerate() {
        if at > 0 {
            literal.push(',');
        }
        literal.push('"');
        for character in item.chars() {
            match character {
                '"' | '\\' => literal.extend(['\\', character]),
                '\0' => literal.push('\u{FFFD}'),
                other => literal.push(other),
            }
        }
        literal.push('"');
    }
    literal.push('}');
    literal
}

/// A PostgreSQL array literal of UUIDs.
pub(crate) fn uuid_array(ids: impl Iterator<Item = uuid::Uuid>) -> String {
    let mut literal = String::from("{");
    for id in ids {
        if literal.len() > 1 {
            literal.push(',');
        }
        literal.push_str(id.hyphenated().encode_lower(&mut [0; 36]));
    }
    literal.push('}');
    literal
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAMPLE: Columns = &[("id", "bigint"), ("tags", "text[]"), ("seen", "bigint")];

    #[test]
    fn statements_name_every_column() {
        assert_eq!(
            upsert("t", SAMPLE, &["id"], &["seen"]),
            "INSERT INTO t (id, tags, seen) SELECT u.id, u.tags::text[], u.seen \
             FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS u (id, tags, seen) \
             ON CONFLICT (id) DO UPDATE SET tags = excluded.tags",
        );
        assert_eq!(
            update(
                "t",
                SAMPLE,
                &["id"],
                &[("tags", ""), ("seen", "t.seen + u.seen")]
            ),
            "UPDATE t t SET seen = t.seen + u.seen \
             FROM unnest($1::bigint[], $2::text[], $3::bigint[]) AS u (id, tags, seen) WHERE t.id = u.id",
        );
    }

    #[test]
    fn array_literals_quote_everything() {
        let items = ["a", "", "NULL", "b,\"c\\", "{}"].map(str::to_owned);
        assert_eq!(array_literal(&items), r#"{"a","","NULL","b,\"c\\","{}"}"#);
        assert_eq!(array_literal(&[]), "{}");
    }

    #[test]
    fn array_literals_of_ids() {
        assert_eq!(uuid_array([].into_iter()), "{}");
        let ids = [uuid::Uuid::nil(), uuid::Uuid::max()];
        assert_eq!(
            uuid_array(ids.into_iter()),
            "{00000000-0000-0000-0000-000000000000,ffffffff-ffff-ffff-ffff-ffffffffffff}"
        );
    }
}
