//! `swarm task`

mod file;
mod many;
mod shown;
mod submit;
mod wait;

use clap::builder::PossibleValuesParser;

use crate::{
    api::Api,
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::{Column, Format},
};

/// Commands on tasks.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Hand in a task, a graph of tasks, or a file with any number of tasks
    Submit(Box<submit::Args>),
    /// List the tasks of a swarm
    List(ListArgs),
    /// List dead letters: tasks that failed for good
    Dead(DeadArgs),
    /// Show a task with every attempt
    Show(TaskArgs),
    /// Call tasks off, or a whole graph
    Cancel(many::CancelArgs),
    /// Give ended tasks another try
    Retry(many::EndedArgs),
    /// Put dead letters away: they stay failed, and cannot be retried any more
    Discard(many::EndedArgs),
    /// Wait until tasks have ended
    Wait(wait::Args),
}

/// Arguments of `swarm task list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only tasks in this state
    #[arg(long, value_parser = PossibleValuesParser::new(
        ["pending", "queued", "assigned", "running", "completed", "failed", "cancelled"]))]
    pub status: Option<String>,
    /// Only dead letters
    #[arg(long)]
    pub dead: bool,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub task_type: Option<String>,
    /// Only of this graph
    #[arg(long, value_name = "GRAPH")]
    pub graph: Option<String>,
    /// Only parts of this task
    #[arg(long, value_name = "TASK")]
    pub parent: Option<String>,
    /// Only those that this agent (name or id) has, or had last
    #[arg(long, value_name = "AGENT")]
    pub agent: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT)]
    pub limit: usize,
}

/// What a person can look through; more on request.
const LIST_LIMIT: usize = 1_000;

/// Arguments of `swarm task dead`.
#[derive(clap::Args, Debug)]
pub struct DeadArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only of this type
    #[arg(long = "type", value_name = "TYPE")]
    pub task_type: Option<String>,
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT)]
    pub limit: usize,
}

/// Arguments that name a task.
#[derive(clap::Args, Debug)]
pub struct TaskArgs {
    /// Id of the task
    pub task: String,
}

const COLUMNS: [Column; 7] = [
    ("ID", "/id"),
    ("TYPE", "/task_type"),
    ("STATUS", "/status"),
    ("PRIORITY", "/priority"),
    ("ATTEMPTS", "/attempt_count"),
    ("AGENT", "/assigned_agent_id"),
    ("ERROR", "/error_message"),
];

const DEAD_COLUMNS: [Column; 6] = [
    ("ID", "/id"),
    ("TYPE", "/task_type"),
    ("ATTEMPTS", "/attempt_count"),
    ("GENERATION", "/generation"),
    ("FAILED", "/completed_at"),
    ("ERROR", "/error_message"),
];

/// Whether a status is an end.
pub fn ended(status: &str) -> bool {
    matches!(status, "completed" | "failed" | "cancelled")
}

/// Runs a command on tasks.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    match command {
        Command::Submit(args) => submit::run(*args, &api, &server.data_dir()?, output).await,
        Command::Wait(args) => wait::run(args, &api, output).await,
        Command::List(args) => list(args, &api, output).await,
        Command::Dead(args) => {
            let id = api.swarm_id(&args.swarm).await?;
            let mut query = vec![("dead_lettered", "true".to_owned())];
            query.extend(args.task_type.map(|kind| ("task_type", kind)));
            let tasks = api
                .list(&format!("/v1/swarms/{id}/tasks"), &query, Some(args.limit))
                .await?;
            output.list(&tasks, &DEAD_COLUMNS)
        }
        Command::Show(args) => shown::print(&show(&api, &args.task).await?, output),
        Command::Cancel(args) => many::cancel(args, &api, output).await,
        Command::Retry(args) => many::ended(many::Verb::Retry, args, &api, output).await,
        Command::Discard(args) => many::ended(many::Verb::Discard, args, &api, output).await,
    }
}

async fn list(args: ListArgs, api: &Api, output: Format) -> Outcome {
    let id = api.swarm_id(&args.swarm).await?;
    let agent = match &args.agent {
        Some(agent) => Some(super::agent::any_agent_id(api, &id, agent).await?),
        None => None,
    };
    let query: Vec<_> = [
        ("status", args.status),
        ("dead_lettered", args.dead.then(|| "true".to_owned())),
        ("task_type", args.task_type),
        ("graph_id", args.graph),
        ("parent_task_id", args.parent),
        ("agent_id", agent),
    ]
    .into_iter()
    .filter_map(|(name, value)| Some((name, value?)))
    .collect();
    let tasks = api
        .list(&format!("/v1/swarms/{id}/tasks"), &query, Some(args.limit))
        .await?;
    output.list(&tasks, &COLUMNS)
}

/// The task as the gateway has it.
pub async fn show(api: &Api, task: &str) -> Outcome<serde_json::Value> {
    if uuid::Uuid::parse_str(task).is_err() {
        return Err(Failure::usage(format!("{task} is no task id")));
    }
    api.get(&format!("/v1/tasks/{task}"), &[]).await
}
