//! The worker that the demo's agents start for each task (hidden): a task on stdin, its result on stdout.

use std::{
    collections::BTreeMap,
    io::Read,
    path::Path,
    time::{Duration, Instant},
};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    demo::{
        count::{self, FileFacts},
        fold::{self, Folded},
        graph,
    },
    exit::{Failure, Outcome},
    output,
    progress::parse_duration,
};

/// Arguments of the worker.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// A task takes at least this long
    #[arg(long, value_name = "DURATION", default_value = "0", value_parser = parse_duration)]
    pub pace: Duration,
}

#[derive(Deserialize)]
struct Task {
    task_type: String,
    #[serde(default)]
    payload: Value,
    #[serde(default)]
    inputs: Option<BTreeMap<String, Value>>,
}

/// Does the work of one task.
pub fn run(args: Args) -> Outcome {
    let began = Instant::now();
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let task: Task = serde_json::from_str(&text)
        .map_err(|error| Failure::failed(format!("stdin holds no task: {error}")))?;
    let result = work(&task)?;
    // So that a person can watch, and a kill meets a task in the middle.
    std::thread::sleep(args.pace.saturating_sub(began.elapsed()));
    output::line(&result.to_string())
}

fn work(task: &Task) -> Outcome<Value> {
    let payload = |name: &str| {
        task.payload[name]
            .as_str()
            .ok_or_else(|| Failure::failed(format!("payload.{name} is missing")))
    };
    match task.task_type.as_str() {
        graph::COUNT => {
            let root = Path::new(payload("root")?);
            match &task.payload["paths"] {
                Value::Array(paths) => {
                    let paths = paths.iter().filter_map(Value::as_str);
                    let files = paths
                        .map(|path| count_file(root, path))
                        .collect::<Outcome<Vec<_>>>()?;
                    Ok(json!({ "files": files }))
                }
                _ => json_of(&count_file(root, payload("path")?)?),
            }
        }
        graph::FOLD => {
            let mut files: Vec<FileFacts> = Vec::new();
            for input in inputs(task) {
                match input.get("files") {
                    Some(group) => files.extend(read::<Vec<FileFacts>>(group)?),
                    None => files.push(read(input)?),
                }
            }
            json_of(&fold::folder(payload("folder")?, &files))
        }
        graph::REPORT => {
            let folders = inputs(task).map(read).collect::<Outcome<Vec<Folded>>>()?;
            json_of(&fold::report(payload("title")?, &folders))
        }
        other => Err(Failure::failed(format!(
            "{other} is no work of this worker"
        ))),
    }
}

fn inputs(task: &Task) -> impl Iterator<Item = &Value> {
    task.inputs.iter().flat_map(BTreeMap::values)
}

fn count_file(root: &Path, path: &str) -> Outcome<FileFacts> {
    let bytes = std::fs::read(root.join(path))
        .map_err(|error| Failure::failed(format!("cannot read {path}: {error}")))?;
    Ok(count::count(path, &bytes))
}

fn read<T: for<'de> Deserialize<'de>>(value: &Value) -> Outcome<T> {
    T::deserialize(value)
        .map_err(|error| Failure::failed(format!("an input cannot be used: {error}")))
}

fn json_of<T: serde::Serialize>(value: &T) -> Outcome<Value> {
    serde_json::to_value(value)
        .map_err(|error| Failure::failed(format!("the result is not JSON: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(task: Value) -> Outcome<Value> {
        work(&serde_json::from_value(task).expect("a task"))
    }

    #[test]
    fn a_graph_worked_through_by_hand_gives_the_report() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("a.rs"), "fn a() {}\n").expect("written");
        std::fs::write(dir.path().join("b.rs"), "fn b() {}\nfn c() {}\n").expect("written");
        let root = dir.path();
        let one = done(json!({"task_type": "count", "payload": {"root": root, "path": "a.rs"}}))
            .expect("counted");
        let group =
            done(json!({"task_type": "count", "payload": {"root": root, "paths": ["b.rs"]}}))
                .expect("counted");
        let inputs = json!({"c0": one, "c1": group});
        let folder =
            done(json!({"task_type": "fold-folder", "payload": {"folder": "."}, "inputs": inputs}));
        let inputs = json!({"f0": folder.expect("folded")});
        let report =
            done(json!({"task_type": "report", "payload": {"title": "t"}, "inputs": inputs}))
                .expect("reported");
        assert_eq!(
            report["totals"]["sums"],
            json!({"files": 2, "lines": 3, "words": 9, "bytes": 30})
        );
    }

    #[test]
    fn what_cannot_be_done_says_why() {
        let missing =
            done(json!({"task_type": "count", "payload": {"root": "/", "path": "no/such/file"}}));
        assert!(
            missing
                .expect_err("missing")
                .message
                .contains("no/such/file")
        );
        assert!(
            done(json!({"task_type": "dance"}))
                .expect_err("unknown")
                .message
                .contains("dance")
        );
    }
}
