//! `swarm task cancel|retry|discard`: one task, many, a graph, or every dead letter.

use std::{
    fs::File,
    io::{self, BufRead, BufReader, IsTerminal, Write},
};

use anyhow::Context;
use serde_json::{Value, json};

use super::show;
use crate::{
    api::{Api, refusal},
    exit::{Code, Failure, Outcome},
    output::{Column, Format, Items},
};

/// Tasks in one request: what the gateway takes at the most.
const BATCH: usize = 1_000;
/// Tasks that are shown one by one; of more only those that were refused, and the rest is counted.
const SHOWN: usize = 20;
/// How often a request is sent whose outcomes are late: the gateway waits for them itself each time.
const OUTCOME_TRIES: u32 = 3;
/// Longest line of a file of ids: an id has 36 characters.
const ID_BYTES_MAX: u64 = 1_024;

/// Which tasks.
#[derive(clap::Args, Debug)]
pub struct Which {
    /// Ids of tasks
    #[arg(value_name = "TASK")]
    pub tasks: Vec<String>,
    /// Name or id of their swarm [default: each task is looked up]
    #[arg(long, value_name = "SWARM")]
    pub swarm: Option<String>,
    /// Ids of tasks from a file, one a line; - for stdin
    #[arg(
        short,
        long,
        value_name = "FILE",
        conflicts_with = "tasks",
        requires = "swarm"
    )]
    pub file: Option<String>,
}

/// Arguments of `swarm task cancel`.
#[derive(clap::Args, Debug)]
pub struct CancelArgs {
    /// Which tasks
    #[command(flatten)]
    pub which: Which,
    /// A whole graph: all of it that has not ended
    #[arg(long, value_name = "GRAPH", conflicts_with_all = ["tasks", "file"], requires = "swarm")]
    pub graph: Option<String>,
    /// Why, for the record
    #[arg(long)]
    pub reason: Option<String>,
}

/// Arguments of `swarm task retry` and `swarm task discard`.
#[derive(clap::Args, Debug)]
pub struct EndedArgs {
    /// Which tasks
    #[command(flatten)]
    pub which: Which,
    /// Every dead letter of the swarm
    #[arg(long, conflicts_with_all = ["tasks", "file"], requires = "swarm")]
    pub dead: bool,
    /// With --dead: only those of this type
    #[arg(long = "type", value_name = "TYPE", requires = "dead")]
    pub task_type: Option<String>,
    /// With --dead: do not ask
    #[arg(long, requires = "dead")]
    pub yes: bool,
}

/// What is done to the tasks, as the address says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Called off.
    Cancel,
    /// Given another generation.
    Retry,
    /// Put away.
    Discard,
}

impl Verb {
    const fn word(self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Discard => "discard",
        }
    }
}

/// Calls tasks off.
pub async fn cancel(args: CancelArgs, api: &Api, output: Format) -> Outcome {
    let Some(graph) = &args.graph else {
        if let [task] = &args.which.tasks[..] {
            return one(Verb::Cancel, task, args.reason, &args.which, api, output).await;
        }
        let mut many = Many::new(api, Verb::Cancel, args.reason, output);
        many.named(&args.which).await?;
        return many.end().await;
    };
    let swarm = swarm_of(&args.which, api).await?;
    let mut body = json!({ "graph_id": graph });
    if let Some(reason) = &args.reason {
        body["reason"] = json!(reason);
    }
    let answer = api
        .post(&format!("/v1/swarms/{swarm}/tasks/cancel"), &body, None)
        .await?;
    api.settle().await;
    output.object(&answer)
}

/// Retries tasks that have ended, or puts them away.
pub async fn ended(verb: Verb, args: EndedArgs, api: &Api, output: Format) -> Outcome {
    if let [task] = &args.which.tasks[..] {
        return one(verb, task, None, &args.which, api, output).await;
    }
    let mut many = Many::new(api, verb, None, output);
    if args.dead {
        many.dead(&args).await?;
    } else {
        many.named(&args.which).await?;
    }
    many.end().await
}

/// A task alone is answered with itself, and a refusal with its own exit code.
async fn one(
    verb: Verb,
    task: &str,
    reason: Option<String>,
    which: &Which,
    api: &Api,
    output: Format,
) -> Outcome {
    check_id(task)?;
    let swarm = match &which.swarm {
        Some(_) => swarm_of(which, api).await?,
        None => {
            let shown = show(api, task).await?;
            shown["swarm_id"].as_str().unwrap_or_default().to_owned()
        }
    };
    let body = reason.map_or_else(|| json!({}), |reason| json!({ "reason": reason }));
    let path = format!("/v1/swarms/{swarm}/tasks/{task}/{}", verb.word());
    let task = api.post(&path, &body, None).await?;
    api.settle().await;
    output.object(&task)
}

async fn swarm_of(which: &Which, api: &Api) -> Outcome<String> {
    match &which.swarm {
        Some(swarm) => api.swarm_id(swarm).await,
        None => Err(Failure::usage("which swarm? give --swarm")),
    }
}

/// Requests for many tasks, and what came of them.
struct Many<'a> {
    api: &'a Api,
    verb: Verb,
    reason: Option<String>,
    output: Format,
    items: Items,
    shown: Vec<Value>,
    done: u64,
    refused: u64,
    unknown: u64,
}

impl<'a> Many<'a> {
    fn new(api: &'a Api, verb: Verb, reason: Option<String>, output: Format) -> Self {
        Self {
            api,
            verb,
            reason,
            output,
            items: Items::default(),
            shown: Vec::new(),
            done: 0,
            refused: 0,
            unknown: 0,
        }
    }

    /// Tasks by their ids.
    async fn named(&mut self, which: &Which) -> Outcome {
        if let Some(file) = &which.file {
            let swarm = swarm_of(which, self.api).await?;
            return self.listed(&swarm, file).await;
        }
        if which.tasks.is_empty() {
            return Err(Failure::usage(
                "which tasks? give their ids, or --file with one id on each line",
            ));
        }
        for id in &which.tasks {
            check_id(id)?;
        }
        if which.swarm.is_some() {
            let swarm = swarm_of(which, self.api).await?;
            for batch in which.tasks.chunks(BATCH) {
                self.send(&swarm, batch).await?;
            }
            return Ok(());
        }
        for id in &which.tasks {
            match show(self.api, id).await {
                Ok(task) => {
                    let swarm = task["swarm_id"].as_str().unwrap_or_default();
                    self.send(swarm, std::slice::from_ref(id)).await?;
                }
                Err(failure) if failure.code == Code::NotFound => {
                    let problem = json!({"status": 404, "detail": failure.message});
                    self.note(json!({"id": id, "problem": problem}))?;
                }
                Err(failure) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Tasks whose ids a file lists.
    async fn listed(&mut self, swarm: &str, file: &str) -> Outcome {
        let mut input: Box<dyn BufRead> = if file == "-" {
            Box::new(BufReader::new(io::stdin()))
        } else {
            let opened = File::open(file).with_context(|| format!("cannot read {file}"))?;
            Box::new(BufReader::new(opened))
        };
        let (mut batch, mut number) = (Vec::with_capacity(BATCH), 0u64);
        while let Some(line) =
            next_line(&mut input).with_context(|| format!("cannot read {file}"))?
        {
            number += 1;
            let id = line.trim();
            if id.is_empty() {
                continue;
            }
            check_id(id).map_err(|failure| {
                let before = self.done + self.refused;
                Failure::usage(format!(
                    "line {number}: {failure}; the {before} ids in requests before it have been dealt with"
                ))
            })?;
            batch.push(id.to_owned());
            if batch.len() == BATCH {
                self.send(swarm, &batch).await?;
                batch.clear();
            }
        }
        self.send(swarm, &batch).await
    }

    /// Every dead letter, a page after the other. The pages go forward, so one that dies again is not met twice.
    async fn dead(&mut self, args: &EndedArgs) -> Outcome {
        let swarm = swarm_of(&args.which, self.api).await?;
        if !args.yes {
            self.ask(args)?;
        }
        let mut query = vec![("dead_lettered", "true".to_owned())];
        query.extend(args.task_type.clone().map(|kind| ("task_type", kind)));
        let path = format!("/v1/swarms/{swarm}/tasks");
        let mut cursor = None;
        loop {
            let (tasks, next) = self.api.page(&path, &query, BATCH / 2, cursor).await?;
            let ids: Vec<String> = tasks
                .iter()
                .filter_map(|task| task["id"].as_str().map(str::to_owned))
                .collect();
            self.send(&swarm, &ids).await?;
            if next.is_none() {
                return Ok(());
            }
            cursor = next;
        }
    }

    fn ask(&self, args: &EndedArgs) -> Outcome {
        if !io::stdin().is_terminal() {
            return Err(Failure::usage(
                "nobody is there to be asked: give --yes as well",
            ));
        }
        eprint!(
            "{} every dead letter{} of {}? [y/N] ",
            self.verb.word(),
            args.task_type
                .as_ref()
                .map_or_else(String::new, |kind| format!(" of type {kind}")),
            args.which.swarm.as_deref().unwrap_or_default()
        );
        io::stderr().flush()?;
        let mut answer = String::new();
        io::stdin().read_line(&mut answer)?;
        match answer.trim() {
            "y" | "Y" | "yes" => Ok(()),
            _ => Err(Failure::failed("nothing was done")),
        }
    }

    async fn send(&mut self, swarm: &str, ids: &[String]) -> Outcome {
        if ids.is_empty() {
            return Ok(());
        }
        let mut body = json!({ "task_ids": ids });
        if let Some(reason) = &self.reason {
            body["reason"] = json!(reason);
        }
        let path = format!("/v1/swarms/{swarm}/tasks/{}", self.verb.word());
        let body: bytes::Bytes = body.to_string().into();
        // A repeat under the key is the same request, so what has no outcome yet can be asked again.
        let key = uuid::Uuid::now_v7().to_string();
        let mut tries = 0;
        let answer = loop {
            let answer = self.api.post_text(&path, body.clone(), &key).await?;
            tries += 1;
            let late = answer.status == reqwest::StatusCode::GATEWAY_TIMEOUT;
            if !late || tries == OUTCOME_TRIES {
                break answer;
            }
        };
        if !answer.status.is_success() {
            return Err(answer.refusal());
        }
        let mut answer: Value = serde_json::from_str(&answer.text).unwrap_or_default();
        let Value::Array(items) = answer["items"].take() else {
            return Err(Failure::failed("the gateway names no tasks in its answer"));
        };
        for item in items {
            self.note(item)?;
        }
        Ok(())
    }

    fn note(&mut self, item: Value) -> Outcome {
        let refused = item["problem"].is_object();
        if refused {
            self.refused += 1;
            self.unknown += u64::from(item["problem"]["status"] == 404);
        } else {
            self.done += 1;
        }
        if self.output == Format::Json {
            return self.items.item(&item);
        }
        let few = self.done + self.refused <= SHOWN as u64;
        if self.shown.len() < SHOWN && (few || refused) {
            self.shown.push(row(item));
        }
        Ok(())
    }

    async fn end(mut self) -> Outcome {
        self.api.settle().await;
        let all = self.done + self.refused;
        if self.output == Format::Json {
            self.items.end()?;
        } else if all <= SHOWN as u64 {
            self.output.list(&self.shown, &COLUMNS)?;
        } else {
            // Those that were shown while it looked like few are not worth a line any more.
            self.shown.retain(|row| !row["problem"].is_null());
            if !self.shown.is_empty() {
                self.output.list(&self.shown, &COLUMNS)?;
            }
            crate::output::line(&format!(
                "{}: {} of {all} tasks, {} refused",
                self.verb.word(),
                self.done,
                self.refused
            ))?;
        }
        if self.refused == 0 {
            return Ok(());
        }
        let message = format!("{} of {all} tasks were refused", self.refused);
        Err(if self.unknown == all {
            Failure::not_found(message)
        } else {
            Failure::failed(message)
        })
    }
}

const COLUMNS: [Column; 3] = [
    ("ID", "/id"),
    ("STATUS", "/status"),
    ("PROBLEM", "/problem"),
];

/// The problem in words.
fn row(mut item: Value) -> Value {
    if item["problem"].is_object() {
        item["problem"] = json!(refusal(&item["problem"]).message);
    }
    item
}

fn check_id(id: &str) -> Outcome {
    match uuid::Uuid::parse_str(id) {
        Ok(_) => Ok(()),
        Err(_) => Err(Failure::usage(format!("{id:?} is no task id"))),
    }
}

/// A line, of which no more than that of an id is read.
fn next_line(input: &mut dyn BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut part = io::Read::take(input, ID_BYTES_MAX);
    if part.read_until(b'\n', &mut line)? == 0 {
        return Ok(None);
    }
    Ok(Some(String::from_utf8_lossy(&line).into_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_ids_are_read_one_by_one_and_never_without_bound() {
        let mut input: Box<dyn BufRead> = Box::new(io::Cursor::new("a\r\n\nb"));
        let mut lines = Vec::new();
        while let Some(line) = next_line(&mut input).expect("readable") {
            lines.push(line.trim().to_owned());
        }
        assert_eq!(lines, ["a", "", "b"]);
        let long = "x".repeat(3 * 1_024);
        let mut input: Box<dyn BufRead> = Box::new(io::Cursor::new(long));
        let line = next_line(&mut input).expect("readable").expect("a line");
        assert_eq!(line.len() as u64, ID_BYTES_MAX);
        assert_eq!(check_id(&line).expect_err("no id").code, Code::Usage);
    }

    #[test]
    fn a_refused_task_shows_its_problem_in_words() {
        let shown = row(
            json!({"id": "a", "problem": {"status": 409, "detail": "has completed", "cure": "leave it"}}),
        );
        assert_eq!(shown["problem"], "has completed (leave it)");
    }
}
