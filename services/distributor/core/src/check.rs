//! Whether a submission may be taken: each refusal names the field and the cure.

use std::collections::BTreeSet;

use swarm_events::{
    Json, Problem, TaskId,
    agent::{CAPABILITIES_MAX, CAPABILITY_BYTES_MAX},
    configuration::{ATTEMPTS_MAX, TIMEOUT_MS_MAX},
    task::{
        DEPENDENCIES_MAX, DependencyType, GRAPH_TASKS_MAX, KEY_BYTES_MAX, PAYLOAD_BYTES_MAX,
        PRIORITY_DEFAULT, PRIORITY_RANGE, Part, Submitted, TYPE_CHARS_MAX,
    },
};

pub(crate) fn wrong(
    field: impl Into<String>,
    detail: impl Into<String>,
    cure: impl Into<String>,
) -> Problem {
    Problem::new("invalid-task", detail).field(field).cure(cure)
}

fn text(field: &str, value: &str) -> Result<(), Problem> {
    if value.is_empty() || value.len() > KEY_BYTES_MAX {
        return Err(wrong(
            field,
            format!("has {} bytes", value.len()),
            format!("give 1 to {KEY_BYTES_MAX} bytes, or leave it out"),
        ));
    }
    Ok(())
}

fn within(field: &str, value: u64, low: u64, high: u64) -> Result<(), Problem> {
    if (low..=high).contains(&value) {
        return Ok(());
    }
    Err(wrong(
        field,
        format!("{value} is outside {low} to {high}"),
        format!("give a number from {low} to {high}"),
    ))
}

/// Checks everything that can be told from the submission alone.
///
/// # Errors
/// The first field that is wrong.
pub(crate) fn check(id: TaskId, task: &Submitted) -> Result<(), Problem> {
    work(&task.task_type, &task.payload, task.priority)?;
    capabilities(&task.required_capabilities)?;
    limits(task.max_attempts, task.timeout_ms)?;
    for (field, limit) in [
        ("queue_timeout_ms", task.queue_timeout_ms),
        ("progress_timeout_ms", task.progress_timeout_ms),
    ] {
        if let Some(limit) = limit {
            within(field, limit, 0, TIMEOUT_MS_MAX)?;
        }
    }
    if let Some(key) = &task.affinity_key {
        text("affinity_key", key)?;
    }
    if let Some(key) = &task.key {
        text("key", key)?;
    }
    if task.parent_task_id == Some(id) {
        return Err(wrong(
            "parent_task_id",
            "is the task itself",
            "name another task, or leave it out",
        ));
    }
    if let Some(part) = &task.graph {
        within(
            "graph.of",
            u64::from(part.of),
            1,
            u64::from(GRAPH_TASKS_MAX),
        )?;
        within(
            "graph.index",
            u64::from(part.index),
            0,
            u64::from(part.of) - 1,
        )?;
    }
    edges(id, task)
}

/// Checks everything that can be told from a part alone.
///
/// # Errors
/// The first field that is wrong.
pub(crate) fn check_part(part: &Part) -> Result<(), Problem> {
    text("key", &part.key)?;
    work(
        &part.task_type,
        &part.payload,
        part.priority.unwrap_or(PRIORITY_DEFAULT),
    )?;
    capabilities(&part.required_capabilities)?;
    limits(part.max_attempts, part.timeout_ms)
}

/// What is to be done.
fn work(task_type: &str, payload: &Json, priority: u8) -> Result<(), Problem> {
    let chars = task_type.chars().count();
    if chars == 0 || chars > TYPE_CHARS_MAX {
        return Err(wrong(
            "task_type",
            format!("has {chars} characters"),
            format!("give 1 to {TYPE_CHARS_MAX} characters"),
        ));
    }
    if payload.len() > PAYLOAD_BYTES_MAX {
        return Err(wrong(
            "payload",
            format!("has {} bytes, more than {PAYLOAD_BYTES_MAX}", payload.len()),
            "pass large data by reference",
        ));
    }
    within(
        "priority",
        u64::from(priority),
        u64::from(*PRIORITY_RANGE.start()),
        u64::from(*PRIORITY_RANGE.end()),
    )
}

fn limits(max_attempts: Option<u32>, timeout_ms: Option<u64>) -> Result<(), Problem> {
    if let Some(attempts) = max_attempts {
        within(
            "max_attempts",
            u64::from(attempts),
            1,
            u64::from(ATTEMPTS_MAX),
        )?;
    }
    match timeout_ms {
        Some(timeout) => within("timeout_ms", timeout, 1, TIMEOUT_MS_MAX),
        None => Ok(()),
    }
}

fn capabilities(required: &[String]) -> Result<(), Problem> {
    if required.len() > CAPABILITIES_MAX {
        return Err(wrong(
            "required_capabilities",
            format!(
                "has {} entries, more than {CAPABILITIES_MAX}",
                required.len()
            ),
            "require fewer, coarser capabilities",
        ));
    }
    for (n, capability) in required.iter().enumerate() {
        if capability.is_empty()
            || capability.len() > CAPABILITY_BYTES_MAX
            || capability.chars().any(char::is_control)
        {
            return Err(wrong(
                format!("required_capabilities[{n}]"),
                format!("must have 1 to {CAPABILITY_BYTES_MAX} bytes and no control characters"),
                "name a capability that agents join with",
            ));
        }
    }
    Ok(())
}

fn edges(id: TaskId, task: &Submitted) -> Result<(), Problem> {
    if task.depends_on.len() > DEPENDENCIES_MAX {
        return Err(wrong(
            "depends_on",
            format!(
                "has {} entries, more than {DEPENDENCIES_MAX}",
                task.depends_on.len()
            ),
            "gather them in a task between",
        ));
    }
    let mut tasks = BTreeSet::new();
    let mut names = BTreeSet::new();
    for (n, edge) in task.depends_on.iter().enumerate() {
        let field = format!("depends_on[{n}].task_id");
        if edge.task_id == id {
            return Err(wrong(
                field,
                format!("task {id} cannot wait for itself"),
                "take it out",
            ));
        }
        if !tasks.insert(edge.task_id) {
            return Err(wrong(field, "is named twice", "name each task once"));
        }
        if let Some(alias) = &edge.alias {
            text(&format!("depends_on[{n}].as"), alias)?;
        }
        let name = edge
            .alias
            .clone()
            .unwrap_or_else(|| edge.task_id.to_string());
        if edge.dependency_type == DependencyType::Data && !names.insert(name) {
            return Err(wrong(
                format!("depends_on[{n}].as"),
                "names two inputs",
                "give each input a name of its own",
            ));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_events::{
        Json,
        task::{Dependency, GraphPart},
    };
    use uuid::Uuid;

    fn id(n: u128) -> TaskId {
        TaskId(Uuid::from_u128(n))
    }
    fn plain() -> Submitted {
        serde_json::from_str(r#"{"task_type": "count"}"#).expect("a minimal task")
    }
    fn edge(n: u128, kind: DependencyType, alias: Option<&str>) -> Dependency {
        Dependency {
            task_id: id(n),
            dependency_type: kind,
            alias: alias.map(str::to_owned),
        }
    }
    /// The field that is refused, `None` if the task is taken.
    fn refused(change: impl FnOnce(&mut Submitted)) -> Option<String> {
        let mut task = plain();
        change(&mut task);
        check(id(1), &task).err().map(|problem| {
            assert!(problem.cure.is_some(), "{problem}");
            problem.field.expect("a field")
        })
    }

    #[test]
    fn a_task_at_every_limit_is_taken() {
        let taken = refused(|t| {
            t.task_type = "ü".repeat(TYPE_CHARS_MAX);
            t.payload = Json::parse(&format!("\"{}\"", "x".repeat(PAYLOAD_BYTES_MAX - 2))).unwrap();
            t.priority = 10;
            t.required_capabilities = (0..CAPABILITIES_MAX)
                .map(|n| format!("{n:0width$}", width = CAPABILITY_BYTES_MAX))
                .collect();
            t.max_attempts = Some(ATTEMPTS_MAX);
            t.timeout_ms = Some(TIMEOUT_MS_MAX);
            t.queue_timeout_ms = Some(TIMEOUT_MS_MAX);
            t.progress_timeout_ms = Some(0);
            t.affinity_key = Some("k".repeat(KEY_BYTES_MAX));
            t.graph = Some(GraphPart {
                id: swarm_events::GraphId(Uuid::from_u128(9)),
                index: GRAPH_TASKS_MAX - 1,
                of: GRAPH_TASKS_MAX,
            });
            t.depends_on = (0..DEPENDENCIES_MAX as u128)
                .map(|n| edge(n + 2, DependencyType::Data, None))
                .collect();
        });
        assert_eq!(taken, None);
    }

    #[test]
    fn each_violation_names_its_field() {
        let over = |n: usize| "x".repeat(n + 1);
        let cases: Vec<(&str, Option<String>)> = vec![
            ("task_type", refused(|t| t.task_type = over(TYPE_CHARS_MAX))),
            ("task_type", refused(|t| t.task_type.clear())),
            (
                "payload",
                refused(|t| {
                    t.payload =
                        Json::parse(&format!("\"{}\"", over(PAYLOAD_BYTES_MAX - 2))).unwrap()
                }),
            ),
            ("priority", refused(|t| t.priority = 0)),
            ("priority", refused(|t| t.priority = 11)),
            (
                "required_capabilities",
                refused(|t| t.required_capabilities = vec!["a".into(); CAPABILITIES_MAX + 1]),
            ),
            (
                "required_capabilities[1]",
                refused(|t| t.required_capabilities = vec!["a".into(), over(CAPABILITY_BYTES_MAX)]),
            ),
            (
                "required_capabilities[0]",
                refused(|t| t.required_capabilities = vec!["a\nb".into()]),
            ),
            (
                "max_attempts",
                refused(|t| t.max_attempts = Some(ATTEMPTS_MAX + 1)),
            ),
            ("max_attempts", refused(|t| t.max_attempts = Some(0))),
            (
                "timeout_ms",
                refused(|t| t.timeout_ms = Some(TIMEOUT_MS_MAX + 1)),
            ),
            ("timeout_ms", refused(|t| t.timeout_ms = Some(0))),
            (
                "queue_timeout_ms",
                refused(|t| t.queue_timeout_ms = Some(TIMEOUT_MS_MAX + 1)),
            ),
            (
                "progress_timeout_ms",
                refused(|t| t.progress_timeout_ms = Some(TIMEOUT_MS_MAX + 1)),
            ),
            (
                "affinity_key",
                refused(|t| t.affinity_key = Some(over(KEY_BYTES_MAX))),
            ),
            ("key", refused(|t| t.key = Some(String::new()))),
            (
                "parent_task_id",
                refused(|t| t.parent_task_id = Some(id(1))),
            ),
            (
                "depends_on",
                refused(|t| {
                    t.depends_on = (0..=DEPENDENCIES_MAX as u128)
                        .map(|n| edge(n + 2, DependencyType::Success, None))
                        .collect();
                }),
            ),
            (
                "depends_on[0].task_id",
                refused(|t| t.depends_on = vec![edge(1, DependencyType::Success, None)]),
            ),
            (
                "depends_on[1].task_id",
                refused(|t| t.depends_on = vec![edge(2, DependencyType::Success, None); 2]),
            ),
            (
                "depends_on[0].as",
                refused(|t| {
                    t.depends_on = vec![edge(2, DependencyType::Data, Some(&over(KEY_BYTES_MAX)))]
                }),
            ),
            (
                "depends_on[1].as",
                refused(|t| {
                    t.depends_on = vec![
                        edge(2, DependencyType::Data, Some("in")),
                        edge(3, DependencyType::Data, Some("in")),
                    ];
                }),
            ),
            (
                "graph.of",
                refused(|t| {
                    t.graph = Some(GraphPart {
                        id: swarm_events::GraphId(Uuid::from_u128(9)),
                        index: 0,
                        of: GRAPH_TASKS_MAX + 1,
                    });
                }),
            ),
            (
                "graph.index",
                refused(|t| {
                    t.graph = Some(GraphPart {
                        id: swarm_events::GraphId(Uuid::from_u128(9)),
                        index: GRAPH_TASKS_MAX,
                        of: GRAPH_TASKS_MAX,
                    });
                }),
            ),
        ];
        for (field, got) in cases {
            assert_eq!(got.as_deref(), Some(field));
        }
    }
}
