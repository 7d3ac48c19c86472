//! `swarm task`

mod file;
mod submit;
mod wait;

use clap::builder::PossibleValuesParser;
use serde_json::json;

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
    /// Show a task
    Show(TaskArgs),
    /// Call a task off
    Cancel(CancelArgs),
    /// Give an ended task another try
    Retry(TaskArgs),
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
    /// At most so many
    #[arg(long, value_name = "N", default_value_t = LIST_LIMIT)]
    pub limit: usize,
}

/// What a person can look through; more on request.
const LIST_LIMIT: usize = 1_000;

/// Arguments that name a task.
#[derive(clap::Args, Debug)]
pub struct TaskArgs {
    /// Id of the task
    pub task: String,
}

/// Arguments of `swarm task cancel`.
#[derive(clap::Args, Debug)]
pub struct CancelArgs {
    /// Id of the task
    pub task: String,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
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
        Command::List(args) => {
            let id = api.swarm_id(&args.swarm).await?;
            let query: Vec<_> = args
                .status
                .map(|status| ("status", status))
                .into_iter()
                .collect();
            let tasks = api
                .list(&format!("/v1/swarms/{id}/tasks"), &query, Some(args.limit))
                .await?;
            output.list(&tasks, &COLUMNS)
        }
        Command::Show(args) => output.object(&show(&api, &args.task).await?),
        Command::Cancel(args) => {
            let body = match args.reason {
                Some(reason) => json!({ "reason": reason }),
                None => json!({}),
            };
            let path = format!("{}/cancel", path(&api, &args.task).await?);
            let task = api.post(&path, &body, None).await?;
            api.settle().await;
            output.object(&task)
        }
        Command::Retry(args) => {
            let path = format!("{}/retry", path(&api, &args.task).await?);
            let task = api.post(&path, &json!({}), None).await?;
            api.settle().await;
            output.object(&task)
        }
    }
}

/// The task as the gateway has it.
pub async fn show(api: &Api, task: &str) -> Outcome<serde_json::Value> {
    if uuid::Uuid::parse_str(task).is_err() {
        return Err(Failure::usage(format!("{task} is no task id")));
    }
    api.get(&format!("/v1/tasks/{task}"), &[]).await
}

async fn path(api: &Api, task: &str) -> Outcome<String> {
    let shown = show(api, task).await?;
    let swarm = shown["swarm_id"].as_str().unwrap_or_default();
    Ok(format!("/v1/swarms/{swarm}/tasks/{task}"))
}
