//! Agents as a table that fits on a screen. `-o json` has everything.

use serde_json::{Value, json};

use crate::{
    exit::Outcome,
    output::{Column, Format},
};

/// Width that a table keeps to, in characters, as long as names and types are not very long.
const WIDTH: usize = 100;
/// A note shorter than this says nothing.
const NOTE_MIN: usize = 16;

const COLUMNS: [Column; 9] = [
    ("NAME", "/name"),
    ("STATUS", "/status"),
    ("TYPE", "/type"),
    ("ROLE", "/role"),
    ("TASKS", "/tasks"),
    ("DONE", "/done"),
    ("FAILED", "/failed"),
    ("HOST", "/host"),
    ("NOTE", "/note"),
];

/// Prints agents for people.
pub(super) fn print(agents: &[Value]) -> Outcome {
    Format::Table.list(&rows(agents), &COLUMNS)
}

/// What each column shows; the note takes the room that the others leave.
fn rows(agents: &[Value]) -> Vec<Value> {
    let mut rows: Vec<Value> = agents.iter().map(row).collect();
    let width = |(title, pointer): &Column| {
        let cells = rows.iter().filter_map(|row| row.pointer(pointer)?.as_str());
        let longest = cells.map(|cell| cell.chars().count()).max();
        longest.unwrap_or(0).max(title.len()) + 2
    };
    let others: usize = COLUMNS[..COLUMNS.len() - 1].iter().map(width).sum();
    let room = WIDTH.saturating_sub(others + 2).max(NOTE_MIN);
    for row in &mut rows {
        let note = row["note"].as_str().unwrap_or_default();
        row["note"] = Value::String(shortened(note, room));
    }
    rows
}

fn row(agent: &Value) -> Value {
    let text = |pointer: &str| {
        agent
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
    };
    let number = |name: &str| agent[name].as_u64().unwrap_or(0);
    let waiting = match number("queue_depth") {
        0 => String::new(),
        waiting => format!(" +{waiting}"),
    };
    json!({
        "name": text("/agent_name"),
        "status": text("/status"),
        "type": text("/agent_type"),
        "role": text("/role"),
        "tasks": format!("{}/{}{waiting}", number("running"), number("slots")),
        "done": number("tasks_completed").to_string(),
        "failed": number("tasks_failed").to_string(),
        "host": host(agent),
        "note": note(agent),
    })
}

/// The host's name, or its id; empty for an agent that is started by hand.
fn host(agent: &Value) -> String {
    let host = &agent["host"];
    let named = host.as_str().or_else(|| host["name"].as_str());
    let id = || host["id"].as_str().or_else(|| host["instance"].as_str());
    named.or_else(id).unwrap_or_default().to_owned()
}

/// Why it is as it is, and how often it was started again.
fn note(agent: &Value) -> String {
    let reason = [&agent["status_reason"], &agent["stop_reason"]]
        .into_iter()
        .find_map(Value::as_str);
    let restarts = match agent["restarts"].as_u64().unwrap_or(0) {
        0 => None,
        1 => Some("1 restart".to_owned()),
        n => Some(format!("{n} restarts")),
    };
    let parts: Vec<String> = reason
        .map(str::to_owned)
        .into_iter()
        .chain(restarts)
        .collect();
    parts.join("; ")
}

fn shortened(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    let kept: String = text.chars().take(most - 1).collect();
    format!("{}…", kept.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_says_what_matters_and_fits() {
        let agents = [
            json!({"agent_name": "crawler-12", "status": "busy", "agent_type": "browser", "role": "worker", "running": 2, "slots": 4,
                "queue_depth": 1, "tasks_completed": 1_234, "tasks_failed": 5, "host": "node-1", "restarts": 2}),
            json!({"agent_name": "crawler-13", "status": "unhealthy", "agent_type": "browser", "running": 0, "slots": 4,
                "queue_depth": 0, "status_reason": "given up after 5 crashes in a row: it ended with exit code 1 after 12 ms",
                "host": null, "restarts": 4}),
        ];
        let rows = rows(&agents);
        assert_eq!(
            (&rows[0]["tasks"], &rows[0]["note"]),
            (&json!("2/4 +1"), &json!("2 restarts"))
        );
        let note = rows[1]["note"].as_str().expect("a note");
        assert!(
            note.starts_with("given up after 5") && note.ends_with('…'),
            "{note}"
        );
        for row in &rows {
            let cells = COLUMNS.iter().map(|(title, pointer)| {
                let cell = row
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .expect("a text");
                cell.chars().count().max(title.len()) + 2
            });
            let width: usize = cells.sum();
            assert!(width <= WIDTH, "{width}: {row}");
        }
    }

    #[test]
    fn a_host_is_shown_by_its_name() {
        assert_eq!(host(&json!({"host": {"name": "h", "id": "1"}})), "h");
        assert_eq!(host(&json!({"host": null})), "");
    }
}
