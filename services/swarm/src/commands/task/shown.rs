//! `swarm task show`: the task, its parts, how its failure came to it, and every attempt.

use serde_json::Value;

use crate::{
    exit::Outcome,
    output::{self, Column, Format},
};

const ATTEMPTS: [Column; 9] = [
    ("ATTEMPT", "/number"),
    ("GENERATION", "/generation"),
    ("AGENT", "/agent_id"),
    ("ASSIGNMENT", "/assignment"),
    ("ASSIGNED", "/assigned_at"),
    ("STARTED", "/started_at"),
    ("ENDED", "/ended_at"),
    ("OUTCOME", "/outcome"),
    ("ERROR", "/error"),
];

/// Prints a task.
pub fn print(task: &Value, output: Format) -> Outcome {
    if output == Format::Json {
        return output.object(task);
    }
    let (task, attempts, lines) = parts(task);
    output.object(&task)?;
    for line in lines {
        output::line(&line)?;
    }
    if attempts.is_empty() {
        return Ok(());
    }
    output::line("")?;
    output.list(&attempts, &ATTEMPTS)
}

/// The plain fields, the attempts, and what is said in a line of its own.
fn parts(task: &Value) -> (Value, Vec<Value>, Vec<String>) {
    let mut task = task.clone();
    let mut take = |name: &str| {
        let fields = task.as_object_mut();
        fields
            .and_then(|fields| fields.remove(name))
            .unwrap_or_default()
    };
    let attempts = match take("attempts") {
        Value::Array(attempts) => attempts,
        _ => Vec::new(),
    };
    let (children, path) = (take("children"), take("failure_path"));
    let mut lines = Vec::new();
    if children["total"].as_u64().is_some_and(|total| total > 0) {
        lines.push(format!(
            "children: {} of {} completed, {} failed, {} cancelled, {} open",
            children["completed"],
            children["total"],
            children["failed"],
            children["cancelled"],
            children["open"]
        ));
    }
    let path: Vec<&str> = path
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|step| step.as_str().or_else(|| step["id"].as_str()))
        .collect();
    if !path.is_empty() {
        lines.push(format!("failed because of: {}", path.join(" → ")));
    }
    (task, attempts, lines)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn attempts_children_and_the_path_of_a_failure_stand_apart() {
        let (task, attempts, lines) = parts(&json!({
            "id": "t", "status": "failed", "attempts": [{"number": 1, "error": "no"}],
            "children": {"total": 3, "completed": 1, "failed": 1, "cancelled": 0, "open": 1},
            "failure_path": ["a", "b"],
        }));
        assert_eq!(task, json!({"id": "t", "status": "failed"}));
        assert_eq!(attempts.len(), 1);
        assert_eq!(
            lines,
            [
                "children: 1 of 3 completed, 1 failed, 0 cancelled, 1 open",
                "failed because of: a → b"
            ]
        );
    }

    #[test]
    fn a_task_without_any_of_it_has_no_further_lines() {
        let none = json!({"id": "t", "attempts": [], "failure_path": [],
            "children": {"total": 0, "completed": 0, "failed": 0, "cancelled": 0, "open": 0}});
        let (_, attempts, lines) = parts(&none);
        assert!(attempts.is_empty() && lines.is_empty());
    }
}
