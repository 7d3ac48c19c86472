//! `swarm task submit`

use std::{io::Read, path::Path};

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::{file, wait};
use crate::{
    api::Api,
    exit::{Failure, Outcome},
    output::{Column, Format},
    progress::parse_duration,
};

/// Arguments of `swarm task submit`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// What kind of work
    #[arg(long = "type", value_name = "TYPE", required_unless_present = "file")]
    pub task_type: Option<String>,
    /// JSON, @FILE with JSON, or - for JSON from stdin
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub payload: String,
    /// 1 to 10, higher is more important
    #[arg(long)]
    pub priority: Option<u8>,
    /// A capability that the agent must have
    #[arg(long = "require", value_name = "CAPABILITY")]
    pub required_capabilities: Vec<String>,
    /// What must come first: TASK, TASK:completion, TASK:success, TASK:data or TASK:data:NAME
    #[arg(long = "after", value_name = "TASK[:TYPE[:NAME]]")]
    pub depends_on: Vec<String>,
    /// Attempts at the most
    #[arg(long)]
    pub max_attempts: Option<u32>,
    /// Limit of one attempt, such as 90s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub run_limit: Option<std::time::Duration>,
    /// The task that this one is a part of
    #[arg(long, value_name = "TASK")]
    pub parent: Option<String>,
    /// Tasks with the same key like the same agent
    #[arg(long, value_name = "KEY")]
    pub affinity_key: Option<String>,
    /// Only an agent with this role takes it
    #[arg(long, value_parser = PossibleValuesParser::new(["coordinator", "supervisor", "worker"]))]
    pub role: Option<String>,
    /// Name or id of another swarm that is to do it; its result comes back
    #[arg(long, value_name = "SWARM")]
    pub hand_to: Option<String>,
    /// Limit from when it is queued to its start, such as 10m; 0 for none
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub queue_limit: Option<std::time::Duration>,
    /// Limit of an attempt's time without progress, such as 30s; 0 for none
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub progress_limit: Option<std::time::Duration>,
    /// Tasks from a file, as the API takes them: one task on each line (JSON Lines, any number), or one JSON document with a
    /// graph {"tasks": […]} or a task; - for stdin
    #[arg(short, long, value_name = "FILE", conflicts_with_all = ["task_type", "required_capabilities", "depends_on", "role", "hand_to"])]
    pub file: Option<String>,
    /// A file with a task on each line
    #[command(flatten)]
    pub lines: file::LinesArgs,
    /// A repeat with the same key submits nothing new; for a file of lines it takes the place of the content's hash
    #[arg(long, visible_alias = "key", value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Wait until all of it has ended; a task that did not complete is a failure
    #[arg(long)]
    pub wait: bool,
    /// Longest wait
    #[arg(long, value_name = "DURATION", value_parser = parse_duration, requires = "wait")]
    pub timeout: Option<std::time::Duration>,
}

const COLUMNS: [Column; 4] = [
    ("KEY", "/key"),
    ("TYPE", "/task_type"),
    ("STATUS", "/status"),
    ("ID", "/id"),
];

/// Submits, and waits if asked to.
pub async fn run(args: Args, api: &Api, data: &Path, output: Format) -> Outcome {
    let mut body = match &args.file {
        None => body(&args)?,
        Some(name) => {
            let mut source = file::Source::open(name)?;
            if source.is_lines(&args.lines)? {
                return lines(&args, source, api, data, output).await;
            }
            parse(&source.text()?, name)?
        }
    };
    let id = api.swarm_id(&args.swarm).await?;
    if let Some(other) = &args.hand_to {
        body["hand_to"] = json!(api.swarm_id(other).await?);
    }
    let path = format!("/v1/swarms/{id}/tasks");
    let answer = api
        .post(&path, &body, args.idempotency_key.as_deref())
        .await?;
    let tasks = match &answer["items"] {
        Value::Array(items) => items.clone(),
        _ => vec![answer.clone()],
    };
    if args.wait {
        let ids = tasks
            .iter()
            .filter_map(|task| task["id"].as_str())
            .map(str::to_owned)
            .collect();
        return wait::until_ended(api, ids, args.timeout, output).await;
    }
    if answer["items"].is_array() {
        output.list(&tasks, &COLUMNS)
    } else {
        output.object(&answer)
    }
}

/// A file with a task on each line.
async fn lines(
    args: &Args,
    source: file::Source,
    api: &Api,
    data: &Path,
    output: Format,
) -> Outcome {
    if args.wait {
        return Err(Failure::usage(
            "--wait waits for what fits on a screen: `swarm metrics` shows how far many tasks are, \
             `swarm task list --status failed` what went wrong",
        ));
    }
    let id = api.swarm_id(&args.swarm).await?;
    let key = args.idempotency_key.as_deref();
    file::run(&args.lines, source, key, api, data, &id, output).await
}

fn body(args: &Args) -> Outcome<Value> {
    let payload = match args.payload.as_str() {
        "-" => parse(&stdin()?, "stdin")?,
        text => match text.strip_prefix('@') {
            Some(file) => parse(&read(file)?, file)?,
            None => parse(text, "--payload")?,
        },
    };
    let mut body = Map::new();
    let mut put = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let some = |list: &[String]| (!list.is_empty()).then(|| json!(list));
    put("task_type", args.task_type.as_ref().map(|text| json!(text)));
    put("payload", Some(payload));
    put("priority", args.priority.map(|number| json!(number)));
    put("required_capabilities", some(&args.required_capabilities));
    put(
        "max_attempts",
        args.max_attempts.map(|number| json!(number)),
    );
    for (name, limit) in [
        ("timeout_ms", args.run_limit),
        ("queue_timeout_ms", args.queue_limit),
        ("progress_timeout_ms", args.progress_limit),
    ] {
        let millis = limit.map(|limit| u64::try_from(limit.as_millis()).unwrap_or(u64::MAX));
        put(name, millis.map(|millis| json!(millis)));
    }
    put(
        "parent_task_id",
        args.parent.as_ref().map(|text| json!(text)),
    );
    put("required_role", args.role.as_ref().map(|text| json!(text)));
    put(
        "affinity_key",
        args.affinity_key.as_ref().map(|text| json!(text)),
    );
    if !args.depends_on.is_empty() {
        let depends_on = args
            .depends_on
            .iter()
            .map(|text| dependency(text))
            .collect::<Outcome<Vec<_>>>()?;
        put("depends_on", Some(Value::Array(depends_on)));
    }
    Ok(Value::Object(body))
}

fn dependency(text: &str) -> Outcome<Value> {
    let mut parts = text.splitn(3, ':');
    let mut dependency = json!({ "task_id": parts.next().unwrap_or_default() });
    if let Some(kind) = parts.next() {
        if !matches!(kind, "completion" | "success" | "data") {
            return Err(Failure::usage(format!(
                "--after {text}: {kind} is none of completion, success, data"
            )));
        }
        dependency["dependency_type"] = json!(kind);
    }
    if let Some(name) = parts.next() {
        dependency["as"] = json!(name);
    }
    Ok(dependency)
}

fn stdin() -> Outcome<String> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn read(file: &str) -> Outcome<String> {
    std::fs::read_to_string(file)
        .map_err(|error| Failure::failed(format!("cannot read {file}: {error}")))
}

fn parse(text: &str, origin: &str) -> Outcome<Value> {
    serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("{origin} is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::exit::Code;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn made(line: &str) -> Outcome<Value> {
        let line = Line::try_parse_from(std::iter::once("submit").chain(line.split(' ')));
        body(&line.unwrap_or_else(|error| panic!("{error}")).args)
    }

    #[test]
    fn flags_become_the_fields_of_the_api() {
        let body = made(
            "s --type t --payload {\"a\":1} --priority 7 --require x --after 1:data:n --after 2 --run-limit 2s --queue-limit 1m --progress-limit 0",
        );
        let expected = json!({
            "task_type": "t", "payload": {"a": 1}, "priority": 7, "required_capabilities": ["x"], "timeout_ms": 2000,
            "queue_timeout_ms": 60_000, "progress_timeout_ms": 0,
            "depends_on": [{"task_id": "1", "dependency_type": "data", "as": "n"}, {"task_id": "2"}],
        });
        assert_eq!(body.expect("good"), expected);
    }

    #[test]
    fn mistakes_are_usage_errors_that_name_the_flag() {
        for (line, part) in [
            ("s --type t --payload {", "--payload"),
            ("s --type t --after 1:soon", "--after"),
        ] {
            let failure = made(line).expect_err(line);
            assert_eq!(failure.code, Code::Usage);
            assert!(failure.message.contains(part), "{}", failure.message);
        }
    }

    #[test]
    fn a_missing_file_is_a_failure_that_names_it() {
        let failure = file::Source::open("/does/not/exist")
            .err()
            .expect("missing");
        assert_eq!(failure.code, Code::Failed);
        assert!(failure.message.contains("/does/not/exist"));
        let failure = made("s --type t --payload @/does/not/exist").expect_err("missing");
        assert!(failure.message.contains("/does/not/exist"));
    }
}
