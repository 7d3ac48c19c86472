//! What `POST …/tasks` takes: one task, or a graph of tasks that may name each other by key. Everything that can be told
//! from the submission alone is refused here, with the path of the field; what the distributor knows, it decides.

mod cycle;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use axum::http::StatusCode;
use serde::{Deserialize, de::IgnoredAny};
use swarm_events::{
    GraphId, Json, Problem, SwarmId, TaskId,
    agent::{CAPABILITIES_MAX, CAPABILITY_BYTES_MAX},
    configuration::{ATTEMPTS_MAX, TIMEOUT_MS_MAX},
    task::{
        DEPENDENCIES_MAX, Dependency, DependencyType, GRAPH_TASKS_MAX, GraphPart, KEY_BYTES_MAX,
        PAYLOAD_BYTES_MAX, PRIORITY_DEFAULT, PRIORITY_RANGE, Submitted, TYPE_CHARS_MAX,
    },
    topology::Role,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    json,
    problem::{Answer, ApiProblem},
};

/// A task to be done.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"task_type": "resize", "payload": {"image": 1}, "priority": 8, "required_capabilities": ["gpu"],
    "max_attempts": 3, "timeout_ms": 60_000, "queue_timeout_ms": 600_000, "progress_timeout_ms": 10_000}))]
pub struct TaskInput {
    /// Name by which other tasks of the same submission may name this one; 1 to 200 bytes.
    pub key: Option<String>,
    /// What kind of work; 1 to 50 characters.
    pub task_type: String,
    /// What the agent gets: any JSON, at most 256 KiB.
    #[schema(value_type = Object)]
    pub payload: Json,
    /// 1 to 10, higher is more important; 5 if absent.
    pub priority: Option<i64>,
    /// An agent must have all of them.
    pub required_capabilities: Option<Vec<String>>,
    /// Attempts at the most, 1 to 100; the swarm's setting if absent.
    pub max_attempts: Option<i64>,
    /// Run limit of an attempt in milliseconds; the swarm's setting if absent.
    pub timeout_ms: Option<i64>,
    /// How long it may wait from when it is queued to its start, in milliseconds; the swarm's setting if absent, 0: for
    /// ever.
    pub queue_timeout_ms: Option<i64>,
    /// How long an attempt may go without progress, in milliseconds; the swarm's setting if absent, 0: up to its run limit.
    pub progress_timeout_ms: Option<i64>,
    /// The task that this one is a part of.
    pub parent_task_id: Option<Uuid>,
    /// Tasks with the same key like the same agent.
    pub affinity_key: Option<String>,
    /// What must come first.
    pub depends_on: Option<Vec<DependencyInput>>,
    /// Only an agent with this role takes it: `coordinator`, `supervisor` or `worker`.
    #[schema(value_type = Option<String>)]
    pub required_role: Option<Role>,
    /// Another swarm of the organization is to do it; its result comes back, and this task ends with it.
    pub hand_to: Option<Uuid>,
}

/// What a task waits for: another task, by `task_id` or, within the submission, by `key`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DependencyInput {
    /// The other task.
    pub task_id: Option<Uuid>,
    /// The key of another task of the submission.
    pub key: Option<String>,
    /// `completion` (it has ended, either way; the default), `success`, or `data` (success, and its result is an input).
    #[schema(value_type = Option<crate::openapi::DependencyType>)]
    pub dependency_type: Option<DependencyType>,
    /// Name of the input; the task's id if absent.
    pub r#as: Option<String>,
}

/// Several tasks, taken or refused together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tasks": [
    {"key": "left", "task_type": "count", "payload": {"file": "a"}},
    {"key": "right", "task_type": "count", "payload": {"file": "b"}},
    {"key": "sum", "task_type": "sum", "payload": {}, "depends_on": [
        {"key": "left", "dependency_type": "data", "as": "left"}, {"key": "right", "dependency_type": "data", "as": "right"}]}]}))]
pub struct GraphInput {
    /// 1 to 10,000 tasks.
    pub tasks: Vec<TaskInput>,
}

/// Independent tasks, stored together.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"tasks": [
    {"task_type": "resize", "payload": {"image": 1}},
    {"task_type": "resize", "payload": {"image": 2}, "priority": 8, "queue_timeout_ms": 60_000}]}))]
pub struct BulkInput {
    /// 1 to 10,000 tasks, none of which names another.
    pub tasks: Vec<TaskInput>,
}

/// Most tasks of one bulk submission: as many as a graph may have, so that both need as much memory here.
pub const BULK_TASKS_MAX: u32 = GRAPH_TASKS_MAX;

/// What came.
#[derive(Debug)]
pub enum Submission {
    /// One task alone.
    One(Box<TaskInput>),
    /// `{"tasks": […]}`
    Many(Vec<TaskInput>),
}

impl Submission {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`json::read`].
    pub fn read(body: &[u8]) -> Answer<Self> {
        #[derive(Deserialize)]
        struct Peek {
            tasks: Option<IgnoredAny>,
        }
        let many = serde_json::from_slice::<Peek>(body).is_ok_and(|peek| peek.tasks.is_some());
        if many {
            Ok(Self::Many(json::read::<GraphInput>(body)?.tasks))
        } else {
            Ok(Self::One(Box::new(json::read(body)?)))
        }
    }
}

/// A submission as it is stored.
#[derive(Debug)]
pub struct Plan {
    /// The graph, unless it is a plain task.
    pub graph: Option<GraphId>,
    /// Its tasks, in the order in which they came.
    pub tasks: Vec<(TaskId, Submitted)>,
    /// It came as `{"tasks": […]}`.
    pub many: bool,
}

/// Checks a submission and gives ids to it: `id_of(n)` is that of task number `n`, `graph` that of the graph.
///
/// # Errors
/// 422 (413 for a payload) naming the first field that is wrong, or the cycle.
pub fn plan(
    submission: Submission,
    id_of: impl Fn(u64) -> Uuid,
    graph: GraphId,
    body_sha256: Option<&str>,
) -> Answer<Plan> {
    let (inputs, many) = match submission {
        Submission::One(input) => (vec![*input], false),
        Submission::Many(inputs) => (inputs, true),
    };
    let of = size(inputs.len(), "graph-size", GRAPH_TASKS_MAX)?;
    let prefixes: Vec<String> = (0..inputs.len())
        .map(|at| if many { prefix(at) } else { String::new() })
        .collect();
    let ids: Vec<TaskId> = (0..u64::from(of)).map(|at| TaskId(id_of(at))).collect();
    let keys = keys(&inputs, &prefixes)?;
    cycle::refuse(&inputs, &keys)?;
    let names_others = inputs.iter().any(|t| {
        t.parent_task_id.is_some() || t.depends_on.as_ref().is_some_and(|d| !d.is_empty())
    });
    let graph = (many || names_others).then_some(graph);
    let mut tasks = Vec::with_capacity(inputs.len());
    for (index, (at, input)) in (0u32..).zip(inputs.into_iter().enumerate()) {
        let part = graph.map(|id| GraphPart { id, index, of });
        let task = Checked {
            prefix: &prefixes[at],
            keys: &keys,
            ids: &ids,
            at,
        }
        .task(input, part, body_sha256)?;
        tasks.push((ids[at], task));
    }
    Ok(Plan { graph, tasks, many })
}

/// Checks independent tasks and gives ids to them, as [`plan`] does.
///
/// # Errors
/// As [`plan`]; 422 also for a task that names another one.
pub fn plan_bulk(
    input: BulkInput,
    id_of: impl Fn(u64) -> Uuid,
    body_sha256: Option<&str>,
) -> Answer<Vec<(TaskId, Submitted)>> {
    let of = size(input.tasks.len(), "bulk-size", BULK_TASKS_MAX)?;
    let keys = BTreeMap::new();
    let mut tasks = Vec::with_capacity(input.tasks.len());
    for (at, input) in (0..u64::from(of)).zip(input.tasks) {
        let prefix = prefix(usize::try_from(at).unwrap_or(usize::MAX));
        let names_others = [
            ("parent_task_id", input.parent_task_id.is_some()),
            (
                "depends_on",
                input.depends_on.as_ref().is_some_and(|on| !on.is_empty()),
            ),
        ];
        if let Some((name, _)) = names_others.iter().find(|(_, names)| *names) {
            return Err(wrong(
                "names-others",
                format!("{prefix}{name}"),
                "tasks of a bulk submission stand alone",
                "submit them as a graph: POST …/tasks with the same body",
            ));
        }
        if let Some(key) = &input.key {
            text(format!("{prefix}key"), key)?;
        }
        let id = TaskId(id_of(at));
        let checked = Checked {
            prefix: &prefix,
            keys: &keys,
            ids: &[id],
            at: 0,
        };
        tasks.push((id, checked.task(input, None, body_sha256)?));
    }
    Ok(tasks)
}

/// The number of tasks, 1 to `max`.
fn size(count: usize, code: &str, max: u32) -> Answer<u32> {
    let within = u32::try_from(count)
        .ok()
        .filter(|of| (1..=max).contains(of));
    within.ok_or_else(|| {
        let cure = format!("send 1 to {max} tasks");
        wrong(code, "tasks", format!("{count} tasks"), &cure)
    })
}

/// Refuses tasks that are to be handed to a swarm that their organization does not have, or to their own. `known` says which
/// swarms there are.
///
/// # Errors
/// 422 naming the first `hand_to` that is wrong.
pub fn check_hand_overs(
    tasks: &[(TaskId, Submitted)],
    many: bool,
    own: SwarmId,
    known: impl Fn(SwarmId) -> bool,
) -> Answer<()> {
    for (at, (_, task)) in tasks.iter().enumerate() {
        let Some(to) = task.hand_to else { continue };
        let field = format!("{}hand_to", if many { prefix(at) } else { String::new() });
        if to == own {
            return Err(wrong(
                "own-swarm",
                field,
                "is the swarm itself",
                "leave it out, or name another swarm",
            ));
        }
        if !known(to) {
            return Err(wrong(
                "unknown-swarm",
                field,
                format!("there is no swarm {to} in this organization"),
                "list the swarms, and use the id of one of them",
            ));
        }
    }
    Ok(())
}

fn prefix(at: usize) -> String {
    format!("tasks[{at}].")
}

fn wrong(
    code: &str,
    field: impl Into<String>,
    detail: impl Into<String>,
    cure: &str,
) -> ApiProblem {
    Problem::new(code, detail).field(field).cure(cure).into()
}

fn text(field: String, value: &str) -> Answer<()> {
    if (1..=KEY_BYTES_MAX).contains(&value.len()) {
        return Ok(());
    }
    let cure = format!("give 1 to {KEY_BYTES_MAX} bytes, or leave it out");
    Err(wrong(
        "wrong-length",
        field,
        format!("has {} bytes", value.len()),
        &cure,
    ))
}

fn within(field: String, value: i64, low: u64, high: u64) -> Answer<u64> {
    u64::try_from(value)
        .ok()
        .filter(|value| (low..=high).contains(value))
        .ok_or_else(|| {
            wrong(
                "out-of-range",
                field,
                format!("{value} is outside {low} to {high}"),
                &format!("give a number from {low} to {high}"),
            )
        })
}

/// Which task has which key.
fn keys(inputs: &[TaskInput], prefixes: &[String]) -> Answer<BTreeMap<String, usize>> {
    let mut keys = BTreeMap::new();
    for (at, input) in inputs.iter().enumerate() {
        let Some(key) = &input.key else { continue };
        text(format!("{}key", prefixes[at]), key)?;
        if let Some(other) = keys.insert(key.clone(), at) {
            let detail = format!("tasks[{other}] has the key {key:?} too");
            return Err(wrong(
                "duplicate-key",
                format!("{}key", prefixes[at]),
                detail,
                "give each task a key of its own",
            ));
        }
    }
    Ok(keys)
}

/// A task under check.
struct Checked<'a> {
    prefix: &'a str,
    keys: &'a BTreeMap<String, usize>,
    ids: &'a [TaskId],
    at: usize,
}

impl Checked<'_> {
    fn field(&self, name: impl std::fmt::Display) -> String {
        format!("{}{name}", self.prefix)
    }

    fn task(
        &self,
        input: TaskInput,
        graph: Option<GraphPart>,
        body_sha256: Option<&str>,
    ) -> Answer<Submitted> {
        let chars = input.task_type.chars().count();
        if !(1..=TYPE_CHARS_MAX).contains(&chars) || input.task_type.chars().any(char::is_control) {
            let cure =
                format!("give 1 to {TYPE_CHARS_MAX} characters, none of them a control character");
            return Err(wrong(
                "wrong-length",
                self.field("task_type"),
                format!("has {chars} characters"),
                &cure,
            ));
        }
        if input.payload.len() > PAYLOAD_BYTES_MAX {
            let detail = format!(
                "has {} bytes, more than {PAYLOAD_BYTES_MAX}",
                input.payload.len()
            );
            let problem = Problem::new("payload-too-large", detail)
                .field(self.field("payload"))
                .cure("store large data elsewhere and pass a reference to it");
            return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
        }
        let priority = input.priority.unwrap_or(i64::from(PRIORITY_DEFAULT));
        let (low, high) = (
            u64::from(*PRIORITY_RANGE.start()),
            u64::from(*PRIORITY_RANGE.end()),
        );
        let priority = within(self.field("priority"), priority, low, high)?;
        let attempts = input
            .max_attempts
            .map(|n| within(self.field("max_attempts"), n, 1, u64::from(ATTEMPTS_MAX)));
        let timeout = input
            .timeout_ms
            .map(|n| within(self.field("timeout_ms"), n, 1, TIMEOUT_MS_MAX));
        let from_zero = |name: &str, value: Option<i64>| {
            let within = value.map(|n| within(self.field(name), n, 0, TIMEOUT_MS_MAX));
            within.transpose()
        };
        let queue_timeout_ms = from_zero("queue_timeout_ms", input.queue_timeout_ms)?;
        let progress_timeout_ms = from_zero("progress_timeout_ms", input.progress_timeout_ms)?;
        if let Some(key) = &input.affinity_key {
            text(self.field("affinity_key"), key)?;
        }
        let required_capabilities = input.required_capabilities.unwrap_or_default();
        self.capabilities(&required_capabilities)?;
        Ok(Submitted {
            hand_to: input.hand_to.map(SwarmId),
            origin: None,
            required_role: input.required_role,
            task_type: input.task_type,
            payload: input.payload,
            // In range, so it fits.
            priority: u8::try_from(priority).unwrap_or(PRIORITY_DEFAULT),
            required_capabilities,
            max_attempts: attempts.transpose()?.and_then(|n| u32::try_from(n).ok()),
            timeout_ms: timeout.transpose()?,
            queue_timeout_ms,
            progress_timeout_ms,
            parent_task_id: input.parent_task_id.map(TaskId),
            affinity_key: input.affinity_key,
            depends_on: self.dependencies(input.depends_on.unwrap_or_default())?,
            key: input.key,
            graph,
            body_sha256: body_sha256.map(str::to_owned),
        })
    }

    fn capabilities(&self, required: &[String]) -> Answer<()> {
        if required.len() > CAPABILITIES_MAX {
            let detail = format!(
                "has {} entries, more than {CAPABILITIES_MAX}",
                required.len()
            );
            return Err(wrong(
                "too-many",
                self.field("required_capabilities"),
                detail,
                "require fewer, coarser capabilities",
            ));
        }
        for (at, capability) in required.iter().enumerate() {
            if !(1..=CAPABILITY_BYTES_MAX).contains(&capability.len())
                || capability.chars().any(char::is_control)
            {
                let detail = format!(
                    "must have 1 to {CAPABILITY_BYTES_MAX} bytes and no control characters"
                );
                let field = self.field(format_args!("required_capabilities[{at}]"));
                return Err(wrong(
                    "wrong-length",
                    field,
                    detail,
                    "name a capability that agents join with",
                ));
            }
        }
        Ok(())
    }

    fn dependencies(&self, inputs: Vec<DependencyInput>) -> Answer<Vec<Dependency>> {
        if inputs.len() > DEPENDENCIES_MAX {
            let detail = format!("has {} entries, more than {DEPENDENCIES_MAX}", inputs.len());
            return Err(wrong(
                "too-many",
                self.field("depends_on"),
                detail,
                "gather them in a task between",
            ));
        }
        let (mut tasks, mut names) = (BTreeSet::new(), BTreeSet::new());
        let mut edges = Vec::with_capacity(inputs.len());
        for (at, input) in inputs.into_iter().enumerate() {
            let field = |name: &str| self.field(format_args!("depends_on[{at}].{name}"));
            let (by, task_id) = self.target(&input, &field)?;
            if task_id == self.ids[self.at] {
                return Err(wrong(
                    "self-dependency",
                    field(by),
                    "is the task itself",
                    "take it out",
                ));
            }
            if !tasks.insert(task_id) {
                return Err(wrong(
                    "duplicate-dependency",
                    field(by),
                    "is named twice",
                    "name each task once",
                ));
            }
            if let Some(alias) = &input.r#as {
                text(field("as"), alias)?;
            }
            let dependency_type = input.dependency_type.unwrap_or_default();
            let name = input.r#as.clone().unwrap_or_else(|| task_id.to_string());
            if dependency_type == DependencyType::Data && !names.insert(name) {
                return Err(wrong(
                    "duplicate-alias",
                    field("as"),
                    "names two inputs",
                    "give each input a name of its own",
                ));
            }
            edges.push(Dependency {
                task_id,
                dependency_type,
                alias: input.r#as,
            });
        }
        Ok(edges)
    }

    fn target(
        &self,
        input: &DependencyInput,
        field: &dyn Fn(&str) -> String,
    ) -> Answer<(&'static str, TaskId)> {
        match (input.task_id, &input.key) {
            (Some(id), None) => Ok(("task_id", TaskId(id))),
            (None, Some(key)) => match self.keys.get(key) {
                Some(at) => Ok(("key", self.ids[*at])),
                None => Err(wrong(
                    "unknown-key",
                    field("key"),
                    format!("no task of this submission has the key {key:?}"),
                    "name a key of this submission, or another task by task_id",
                )),
            },
            (Some(_), Some(_)) => Err(wrong(
                "two-targets",
                field("key"),
                "task_id and key are both given",
                "give one of them",
            )),
            (None, None) => Err(wrong(
                "missing-field",
                field("task_id"),
                "neither task_id nor key is given",
                "give one of them",
            )),
        }
    }
}
