//! `swarm explain`

use std::fmt::Write;

use serde_json::Value;

use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::{self, Format},
};

/// Arguments of `swarm explain`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Id of the task
    pub task: String,
    /// Name or id of its swarm [default: it is looked up]
    #[arg(long, value_name = "SWARM")]
    pub swarm: Option<String>,
}

/// Says why a task is where it is.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    if uuid::Uuid::parse_str(&args.task).is_err() {
        return Err(Failure::usage(format!("{} is no task id", args.task)));
    }
    let api = super::api(server)?;
    let path = match &args.swarm {
        None => format!("/v1/tasks/{}/explain", args.task),
        Some(swarm) => {
            let swarm = api.swarm_id(swarm).await?;
            format!("/v1/swarms/{swarm}/tasks/{}/explain", args.task)
        }
    };
    let explained = api.get(&path, &[]).await?;
    match output {
        Format::Json => output.object(&explained),
        Format::Table => output::line(&told(&explained)),
    }
}

/// The explanation for people: its sentences, then the assignment's with the scores.
fn told(explained: &Value) -> String {
    let names = &explained["agent_names"];
    let named = |text: &str| with_names(text, names);
    let mut text = String::new();
    let task = &explained["task"];
    let kind = task["task_type"].as_str().unwrap_or("task");
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "{kind} {}: {}",
        explained["task_id"].as_str().unwrap_or_default(),
        explained["status"].as_str().unwrap_or_default()
    );
    if let (Some(seq), Some(at)) = (explained["seq"].as_u64(), explained["at"].as_str()) {
        let _ = write!(text, " (as of sequence {seq}, {at})");
    }
    text.push('\n');
    for sentence in texts(&explained["sentences"]) {
        let _ = writeln!(text, "  {}", named(sentence));
    }
    let assignment = &explained["assignment"];
    if assignment.is_object() {
        let _ = writeln!(
            text,
            "\nAssigned to {} at {} (attempt {}, fencing token {})",
            named(assignment["agent_id"].as_str().unwrap_or_default()),
            assignment["assigned_at"].as_str().unwrap_or_default(),
            assignment["attempt"],
            assignment["sequence"],
        );
        for sentence in texts(&assignment["sentences"]) {
            let _ = writeln!(text, "  {}", named(sentence));
        }
        let candidates = assignment["candidates"].as_array();
        for candidate in candidates.map_or(&[][..], Vec::as_slice) {
            let _ = writeln!(
                text,
                "  {:>12}  {}  {}",
                candidate["score"].to_string(),
                named(candidate["agent_id"].as_str().unwrap_or_default()),
                candidate["sentence"].as_str().unwrap_or_default()
            );
        }
    }
    text
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array()
        .into_iter()
        .flatten()
        .filter_map(Value::as_str)
}

/// The text with the name of each agent before its id.
fn with_names(text: &str, names: &Value) -> String {
    let mut text = text.to_owned();
    for (id, name) in names.as_object().into_iter().flatten() {
        if let Some(name) = name.as_str() {
            text = text.replace(id.as_str(), &format!("{name} ({id})"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_task_that_runs_is_told_with_agents_names_and_scores() {
        let (one, three) = (
            "0198c6a0-0000-7000-8000-0000000000b1",
            "0198c6a0-0000-7000-8000-0000000000b3",
        );
        let text = told(&json!({
            "task_id": "t-1", "status": "running", "seq": 4711, "at": "2026-11-23T01:30:09Z",
            "task": {"task_type": "render"},
            "sentences": [format!("It has run at agent {one} for 4 s.")],
            "assignment": {
                "sequence": 4650, "assigned_at": "2026-11-23T01:30:04Z", "agent_id": one, "attempt": 1,
                "candidates": [
                    {"agent_id": one, "score": 0, "sentence": "0.0 % of its slots were taken"},
                    {"agent_id": three, "score": 500, "sentence": "50.0 % of its slots were taken"}],
                "sentences": ["Chosen by least_loaded."],
            },
            "agent_names": {one: "worker-1", three: "worker-3"},
        }));
        for part in [
            "render t-1: running (as of sequence 4711",
            "It has run at agent worker-1 (0198c6a0",
            "fencing token 4650",
            "Chosen by least_loaded.",
            "500  worker-3 (0198c6a0",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }

    #[test]
    fn what_only_the_read_model_knows_is_told_without_a_sequence() {
        let text = told(&json!({
            "task_id": "t-1", "status": "failed", "seq": null, "at": null, "task": null,
            "sentences": ["It failed after 3 attempts: exit code 1"], "assignment": null, "agent_names": {},
        }));
        assert_eq!(
            text,
            "task t-1: failed\n  It failed after 3 attempts: exit code 1\n"
        );
    }
}
