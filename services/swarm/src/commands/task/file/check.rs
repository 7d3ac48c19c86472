//! What is wrong with a line, told before anything is sent: by the rules of the gateway itself.

use swarm_gateway::{
    json,
    problem::ApiProblem,
    submission::{self, BulkInput, TaskInput},
};
use uuid::Uuid;

/// Why a line is no task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// The field, as a path in the line; `None`: the line as a whole.
    pub field: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What to do about it.
    pub cure: Option<String>,
}

impl Wrong {
    /// The line as a whole is wrong.
    pub fn line(problem: impl Into<String>, cure: &str) -> Self {
        Self {
            field: None,
            problem: problem.into(),
            cure: Some(cure.to_owned()),
        }
    }
}

impl std::fmt::Display for Wrong {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(field) = &self.field {
            write!(f, "{field}: ")?;
        }
        f.write_str(&self.problem)?;
        match &self.cure {
            Some(cure) => write!(f, " ({cure})"),
            None => Ok(()),
        }
    }
}

impl From<ApiProblem> for Wrong {
    fn from(refused: ApiProblem) -> Self {
        let problem = &refused.problem;
        if problem.code == "malformed-json" {
            let detail = problem.detail.replace("the body", "the line");
            return Self::line(detail, "write one JSON object in UTF-8 on each line");
        }
        // A line is checked as the only task of a submission.
        let field = problem.field.as_deref().map(|field| {
            let field = field.strip_prefix("tasks[0]").unwrap_or(field);
            field.trim_start_matches('.')
        });
        Self {
            field: field
                .filter(|field| !field.is_empty() && *field != "body")
                .map(str::to_owned),
            problem: problem.detail.clone(),
            cure: problem.cure.clone(),
        }
    }
}

/// Checks one line, as the gateway would.
///
/// # Errors
/// The first thing that is wrong with it.
pub fn check(line: &[u8]) -> Result<(), Wrong> {
    let task: TaskInput = json::read(line)?;
    // Ids are given by the gateway; here they only have to be there.
    submission::plan_bulk(BulkInput { tasks: vec![task] }, |_| Uuid::nil(), None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use swarm_events::task::PAYLOAD_BYTES_MAX;

    use super::*;

    fn wrong(line: &str) -> Wrong {
        check(line.as_bytes()).expect_err(line)
    }

    #[test]
    fn a_task_as_the_api_takes_it_is_a_good_line() {
        for line in [
            r#"{"task_type":"t","payload":{}}"#,
            r#"  {"task_type":"t","payload":[1],"priority":10,"required_capabilities":["gpu"],"affinity_key":"k"}"#,
            r#"{"task_type":"t","payload":null,"depends_on":[]}"#,
        ] {
            assert_eq!(check(line.as_bytes()), Ok(()), "{line}");
        }
    }

    #[test]
    fn what_is_wrong_is_named_by_its_field_with_a_cure() {
        for (line, field) in [
            (r#"{"task_type":"t"}"#, "payload"),
            (
                r#"{"task_type":"t","payload":{},"priority":11}"#,
                "priority",
            ),
            (
                r#"{"task_type":"t","payload":{},"timeout_ms":-1}"#,
                "timeout_ms",
            ),
            (r#"{"task_type":"","payload":{}}"#, "task_type"),
            (r#"{"task_type":"t","payload":{},"prio":1}"#, "prio"),
            (
                r#"{"task_type":"t","payload":{},"depends_on":[{"task_id":"00000000-0000-8000-8000-000000000001"}]}"#,
                "depends_on",
            ),
            (
                r#"{"task_type":"t","payload":{},"parent_task_id":"00000000-0000-8000-8000-000000000001"}"#,
                "parent_task_id",
            ),
        ] {
            let wrong = wrong(line);
            assert_eq!(wrong.field.as_deref(), Some(field), "{line}: {wrong}");
            assert!(wrong.cure.is_some(), "{line}: {wrong}");
        }
    }

    #[test]
    fn what_is_no_json_object_is_wrong_as_a_whole() {
        for line in ["{", "nonsense", "[1]", "7", "{} {}", "\u{0}"] {
            let wrong = wrong(line);
            assert!(
                wrong.field.is_none() || line == "{} {}",
                "{line}: {wrong:?}"
            );
            assert!(!wrong.to_string().contains("the body"), "{line}: {wrong}");
        }
        assert!(check(b"{\"task_type\":\"\xff\",\"payload\":1}").is_err());
    }

    #[test]
    fn a_payload_is_taken_up_to_its_limit() {
        let line = |bytes: usize| {
            format!(
                r#"{{"task_type":"t","payload":"{}"}}"#,
                "x".repeat(bytes - 2)
            )
        };
        assert_eq!(check(line(PAYLOAD_BYTES_MAX).as_bytes()), Ok(()));
        assert_eq!(
            wrong(&line(PAYLOAD_BYTES_MAX + 1)).field.as_deref(),
            Some("payload")
        );
    }
}
