//! `swarm topology set`

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use crate::{
    commands::create::{KINDS, put},
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::{self, Format},
};

/// Arguments of `swarm topology set`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// Another topology, with its default options [default: the present one, with its options as they are]
    #[arg(value_parser = PossibleValuesParser::new(KINDS), conflicts_with = "template")]
    pub topology: Option<String>,
    /// Begin from the template of this name
    #[arg(long, value_name = "NAME")]
    pub template: Option<String>,
    /// Options
    #[command(flatten)]
    pub options: OptionArgs,
    /// An option to go back to its default
    #[arg(long, value_name = "NAME")]
    pub unset: Vec<String>,
    /// Why
    #[arg(long)]
    pub reason: Option<String>,
    /// Change nothing, and say what would be
    #[arg(long)]
    pub dry_run: bool,
}

/// Options of a topology, whole and one by one.
#[derive(clap::Args, Debug, Default)]
pub struct OptionArgs {
    /// Options as one JSON object
    #[arg(long, value_name = "JSON")]
    pub config: Option<String>,
    /// One option, such as max_workers=20; a value that is not JSON is text
    #[arg(long = "set", value_name = "NAME=VALUE")]
    pub set: Vec<String>,
}

impl OptionArgs {
    /// The options as a merge patch, empty if none was given.
    pub fn merged(&self) -> Outcome<Map<String, Value>> {
        options(self.config.as_deref(), &self.set, ("--config", "--set"))
    }
}

/// Options as they stand on a command line, under the names of these two arguments.
pub fn options(
    config: Option<&str>,
    set: &[String],
    (whole, single): (&str, &str),
) -> Outcome<Map<String, Value>> {
    let mut merged: Map<String, Value> = match config {
        None => Map::new(),
        Some(text) => serde_json::from_str(text)
            .map_err(|error| Failure::usage(format!("{whole} is not a JSON object: {error}")))?,
    };
    lay_over(&mut merged, set, single)?;
    Ok(merged)
}

/// Lays single values over an object; `argument` is what they are given by.
pub fn lay_over(merged: &mut Map<String, Value>, set: &[String], argument: &str) -> Outcome {
    for pair in set {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("{argument} {pair}: give NAME=VALUE")))?;
        let value = serde_json::from_str(value).unwrap_or_else(|_| Value::String(value.to_owned()));
        put(merged, name, value)
            .map_err(|part| Failure::usage(format!("{argument} {pair}: {part} is no object")))?;
    }
    Ok(())
}

fn body(args: &Args) -> Outcome<Value> {
    let mut options = args.options.merged()?;
    for name in &args.unset {
        put(&mut options, name, Value::Null)
            .map_err(|part| Failure::usage(format!("--unset {name}: {part} is no object")))?;
    }
    let mut body = Map::new();
    for (name, value) in [("topology", &args.topology), ("template", &args.template)] {
        body.extend(value.as_ref().map(|value| (name.to_owned(), json!(value))));
    }
    if !options.is_empty() {
        body.insert("configuration".to_owned(), Value::Object(options));
    }
    if body.is_empty() {
        return Err(Failure::usage(
            "nothing to change: give a topology, --template, --set, --unset or --config",
        ));
    }
    body.extend(
        args.reason
            .as_ref()
            .map(|reason| ("reason".to_owned(), json!(reason))),
    );
    Ok(Value::Object(body))
}

/// Changes a swarm's topology.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let body = body(&args)?;
    let api = crate::commands::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let query = if args.dry_run { "?dry_run=true" } else { "" };
    let path = format!("/v1/swarms/{id}/topology{query}");
    let changed = api.put(&path, &body).await?;
    if !args.dry_run {
        api.settle().await;
    }
    match output {
        Format::Json => output.object(&changed),
        Format::Table => output::line(&told(&changed)),
    }
}

/// What became of it, for people.
pub fn told(changed: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (before, after) = (
        text(&changed["before"]["topology"]),
        text(&changed["topology"]),
    );
    let (is, gets) = match changed["outcome"].as_str() {
        Some("planned") => ("would be", "would get"),
        _ => ("is", "got"),
    };
    let what = if before == after {
        format!("{after} {is} changed")
    } else {
        format!("{before} {is} {after} now")
    };
    let mut told = format!(
        "{what}, generation {}: {} agents, {} {gets} another role or parent",
        changed["generation"], changed["agents"], changed["moves"]
    );
    let tasks = |field: &str| changed[field].as_u64();
    match (tasks("withdrawn"), tasks("withdrawn_at_most")) {
        (Some(0), _) | (None, None | Some(0)) => {}
        (Some(1), _) => told.push_str("; 1 task that had not started went back into the queue"),
        (Some(tasks), _) => told.push_str(&format!(
            "; {tasks} tasks that had not started went back into the queue"
        )),
        (None, Some(most)) => told.push_str(&format!(
            "; at most {most} waiting tasks go back into the queue"
        )),
    }
    if let Some(took) = changed["took_ms"].as_u64() {
        told.push_str(&format!("; it took {took} ms"));
    }
    for item in changed["items"].as_array().map_or(&[][..], Vec::as_slice) {
        let role = |place: &Value| match place["role"].as_str() {
            Some(role) => format!("{role} on level {}", place["level"]),
            None => "no place".to_owned(),
        };
        let (was, now) = (role(&item["before"]), role(&item["after"]));
        if was != now {
            let name = text(&item["agent_name"]);
            told.push_str(&format!(
                "\n  {name}: {was} → {now} ({})",
                text(&item["reason"])
            ));
        }
    }
    told
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
    fn of(line: &str) -> Outcome<Value> {
        let words = ["set", "s"].into_iter().chain(line.split_whitespace());
        body(&Line::try_parse_from(words).expect(line).args)
    }

    #[test]
    fn only_what_is_given_is_in_the_request() {
        for (line, expected) in [
            ("ring", json!({"topology": "ring"})),
            ("--template t", json!({"template": "t"})),
            (
                "mesh --set neighbours=6 --set connection_strategy=nearest --unset routing --reason r",
                json!({"topology": "mesh", "reason": "r",
                    "configuration": {"neighbours": 6, "connection_strategy": "nearest", "routing": null}}),
            ),
            (
                r#"--config {"coordinator":{"agent_type":"t"}} --set coordinator.capability=c"#,
                json!({"configuration": {"coordinator": {"agent_type": "t", "capability": "c"}}}),
            ),
        ] {
            assert_eq!(of(line).expect(line), expected, "{line}");
        }
        for bad in [
            "",
            "--reason r",
            "--config 7",
            "--set x",
            "--config {\"a\":1} --set a.b=1",
        ] {
            assert_eq!(of(bad).expect_err(bad).code, Code::Usage, "{bad}");
        }
    }

    #[test]
    fn what_became_of_it_is_said_in_words() {
        let mut changed = json!({"outcome": "changed", "generation": 3, "topology": "ring", "before": {"topology": "star"},
            "agents": 2, "moves": 1, "withdrawn_at_most": 4, "took_ms": 12, "items": [
                {"agent_name": "a", "before": {"role": "coordinator", "level": 0}, "after": {"role": "worker", "level": 0}, "reason": "r"},
                {"agent_name": "b", "before": {"role": "worker", "level": 0}, "after": {"role": "worker", "level": 0}, "reason": "r"}]});
        assert_eq!(
            told(&changed),
            "star is ring now, generation 3: 2 agents, 1 got another role or parent; at most 4 waiting tasks go back into the \
             queue; it took 12 ms\n  a: coordinator on level 0 → worker on level 0 (r)"
        );
        let end = |changed: &Value| {
            let told = told(changed);
            let first = told.lines().next().expect("a line").to_owned();
            first.split("; ").nth(1).map(str::to_owned)
        };
        for (withdrawn, words) in [
            (1, "1 task that had not started went back into the queue"),
            (2, "2 tasks that had not started went back into the queue"),
            (0, "it took 12 ms"),
        ] {
            changed["withdrawn"] = json!(withdrawn);
            assert_eq!(end(&changed).as_deref(), Some(words));
        }
        changed["withdrawn"] = Value::Null;
        changed["outcome"] = json!("planned");
        changed["before"]["topology"] = json!("ring");
        changed["withdrawn_at_most"] = Value::Null;
        changed["took_ms"] = Value::Null;
        changed["items"] = json!([]);
        assert_eq!(
            told(&changed),
            "ring would be changed, generation 3: 2 agents, 1 would get another role or parent"
        );
    }
}
