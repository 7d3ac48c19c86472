//! What orders about tasks take.

use std::collections::BTreeMap;

use serde::Deserialize;
use swarm_events::{GraphId, Problem, TaskId, task::REASON_BYTES_MAX};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{json, problem::Answer};

/// Most tasks of one request: each is a command and an answer of its own, and all of them must be answered within the time
/// that a caller waits for one.
pub const ORDERS_MAX: usize = 1_000;

/// Why a task is cancelled.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "not needed any more"}))]
pub struct CancelInput {
    /// At most 1,000 bytes.
    pub reason: Option<String>,
}

impl CancelInput {
    /// The reason in a body that may be empty.
    pub(super) fn read(bytes: &[u8]) -> Answer<Option<String>> {
        if bytes.trim_ascii().is_empty() {
            return Ok(None);
        }
        checked_reason(json::read::<Self>(bytes)?.reason)
    }
}

/// Which tasks are cancelled, or which graph: one of the two.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"task_ids": ["0190f7a0-0000-7000-8000-000000000001"], "reason": "not needed any more"}))]
pub struct CancelManyInput {
    /// 1 to 1,000 different tasks.
    pub task_ids: Option<Vec<Uuid>>,
    /// A graph: every task of it that has not ended.
    pub graph_id: Option<Uuid>,
    /// At most 1,000 bytes.
    pub reason: Option<String>,
}

/// What is cancelled.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Target {
    /// These.
    Tasks(Vec<TaskId>),
    /// All of it.
    Graph(GraphId),
}

impl CancelManyInput {
    pub(super) fn read(bytes: &[u8]) -> Answer<(Target, Option<String>)> {
        let input: Self = json::read(bytes)?;
        let target = match (input.task_ids, input.graph_id) {
            (Some(ids), None) => Target::Tasks(checked(ids)?),
            (None, Some(graph)) => Target::Graph(GraphId(graph)),
            (Some(_), Some(_)) => {
                return Err(
                    Problem::new("two-targets", "task_ids and graph_id are both given")
                        .field("graph_id")
                        .cure("give one of them")
                        .into(),
                );
            }
            (None, None) => {
                return Err(Problem::new(
                    "missing-field",
                    "neither task_ids nor graph_id is given",
                )
                .field("task_ids")
                .cure("give one of them")
                .into());
            }
        };
        Ok((target, checked_reason(input.reason)?))
    }
}

/// Which tasks.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"task_ids": ["0190f7a0-0000-7000-8000-000000000001", "0190f7a0-0000-7000-8000-000000000002"]}))]
pub struct ManyInput {
    /// 1 to 1,000 different tasks.
    pub task_ids: Vec<Uuid>,
}

impl ManyInput {
    pub(super) fn read(bytes: &[u8]) -> Answer<Vec<TaskId>> {
        checked(json::read::<Self>(bytes)?.task_ids)
    }
}

/// A body that is empty, or an object without members.
pub(super) fn nothing(bytes: &[u8]) -> Answer<()> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Nothing {}
    if !bytes.trim_ascii().is_empty() {
        json::read::<Nothing>(bytes)?;
    }
    Ok(())
}

fn checked(ids: Vec<Uuid>) -> Answer<Vec<TaskId>> {
    let count = ids.len();
    if !(1..=ORDERS_MAX).contains(&count) {
        return Err(Problem::new("wrong-number", format!("has {count} ids"))
            .field("task_ids")
            .cure(format!("give 1 to {ORDERS_MAX} ids in a request"))
            .into());
    }
    let mut seen = BTreeMap::new();
    for (at, id) in ids.iter().enumerate() {
        if let Some(first) = seen.insert(*id, at) {
            let detail = format!("task_ids[{first}] is the same task");
            return Err(Problem::new("duplicate-id", detail)
                .field(format!("task_ids[{at}]"))
                .cure("name each task once")
                .into());
        }
    }
    Ok(ids.into_iter().map(TaskId).collect())
}

fn checked_reason(reason: Option<String>) -> Answer<Option<String>> {
    let bytes = reason.as_ref().map_or(0, String::len);
    if bytes > REASON_BYTES_MAX {
        let detail = format!("has {bytes} bytes, more than {REASON_BYTES_MAX}");
        return Err(Problem::new("too-long", detail)
            .field("reason")
            .cure("shorten it")
            .into());
    }
    Ok(reason)
}
