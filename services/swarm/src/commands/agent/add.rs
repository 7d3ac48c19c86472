//! `swarm agent add`

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};

use super::table;
use crate::{
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::Format,
};

/// Arguments of `swarm agent add`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// What kind of agent [default: the adapter's name]
    #[arg(long = "type", value_name = "TYPE")]
    pub agent_type: Option<String>,
    /// Name, unique among the swarm's agents [default: made from the id]; of several each has its number behind it
    #[arg(long)]
    pub name: Option<String>,
    /// Something that it can do; tasks ask for it
    #[arg(long = "capability", value_name = "CAPABILITY")]
    pub capabilities: Vec<String>,
    /// exec: the command is run for each task; process: the command is the agent; webhook: the URL is called for each task
    /// [default: exec with a command, webhook with a URL, else a place for an agent that is started by hand]
    #[arg(long, value_parser = PossibleValuesParser::new(["exec", "process", "webhook"]))]
    pub adapter: Option<String>,
    /// Where tasks are sent
    #[arg(long, value_name = "URL", conflicts_with = "command")]
    pub url: Option<String>,
    /// How many, 1 to 1000
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub count: u32,
    /// Tasks at once [default: the swarm's setting]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub slots: Option<u32>,
    /// Tasks that may wait at it beyond its slots [default: the swarm's setting]
    #[arg(long, value_name = "N")]
    pub waiting: Option<u32>,
    /// Whether its process is started again when it ends [default: always]
    #[arg(long, value_parser = PossibleValuesParser::new(["always", "on_failure", "on-failure", "never"]))]
    pub restart: Option<String>,
    /// Crashes in a row after which it is given up; 0: never [default: 5]
    #[arg(long, value_name = "N")]
    pub crash_limit: Option<u32>,
    /// Memory that its processes may use, such as 512M or 2G
    #[arg(long, value_name = "SIZE", value_parser = kib)]
    pub memory: Option<u64>,
    /// CPU that its processes may use, in percent of one core
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u32).range(1..))]
    pub cpu: Option<u32>,
    /// Processes and threads that it may have
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub processes: Option<u32>,
    /// A variable of its environment; it is stored in the log, so no secrets
    #[arg(long, value_name = "NAME=VALUE")]
    pub env: Vec<String>,
    /// A variable that it gets from the host's own environment, if the host allows it
    #[arg(long, value_name = "NAME")]
    pub pass_env: Vec<String>,
    /// Where it works [default: a folder of its own]
    #[arg(long, value_name = "FOLDER")]
    pub working_dir: Option<String>,
    /// Anything, as a JSON object
    #[arg(long, value_name = "JSON")]
    pub metadata: Option<String>,
    /// A repeat with the same key adds nothing new
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// The program and its arguments
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<String>,
}

/// Reads `512M`, `2G`, `4096K`: kibibytes and their multiples.
fn kib(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size: give 65536K, 512M or 2G");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "K" | "k" | "KiB" => 1,
        "M" | "m" | "MiB" => 1_024,
        "G" | "g" | "GiB" => 1_024 * 1_024,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    let size = number.checked_mul(factor).filter(|size| *size > 0);
    size.ok_or_else(wrong)
}

/// What the gateway is sent.
fn body(args: &Args) -> Outcome<Value> {
    let guessed = match (&args.url, args.command.is_empty()) {
        (Some(_), _) => Some("webhook"),
        (None, false) => Some("exec"),
        (None, true) => None,
    };
    let adapter = args.adapter.as_deref().or(guessed);
    let agent_type = args.agent_type.as_deref().or(adapter).ok_or_else(|| {
        Failure::usage("what is added? Give a command after --, or --url, or --type for an agent that is started by hand")
    })?;
    let mut body = Map::new();
    body.insert("agent_type".to_owned(), json!(agent_type));
    let mut put = |name: &str, value: Value| {
        let empty = match &value {
            Value::Null => true,
            Value::Array(items) => items.is_empty(),
            Value::Object(members) => members.is_empty(),
            _ => false,
        };
        if !empty {
            body.insert(name.to_owned(), value);
        }
    };
    put("agent_name", json!(args.name));
    put("capabilities", json!(args.capabilities));
    put("adapter", json!(adapter));
    put("command", json!(args.command));
    put("url", json!(args.url));
    put("slots", json!(args.slots));
    put("waiting", json!(args.waiting));
    put("env", Value::Object(environment(&args.env)?));
    put("pass_env", json!(args.pass_env));
    put("working_dir", json!(args.working_dir));
    put("restart", Value::Object(restart(args)));
    put("limits", Value::Object(limits(args)));
    let metadata = args.metadata.as_deref().map(object).transpose()?;
    put("metadata", json!(metadata));
    if args.count > 1 {
        put("count", json!(args.count));
    }
    Ok(Value::Object(body))
}

fn restart(args: &Args) -> Map<String, Value> {
    let word = args.restart.as_deref().map(|word| word.replace('-', "_"));
    let given = [
        ("restart", word.map(Value::String)),
        ("crash_limit", args.crash_limit.map(Value::from)),
    ];
    members(given)
}

fn limits(args: &Args) -> Map<String, Value> {
    members([
        ("memory_kib", args.memory.map(Value::from)),
        ("cpu_percent", args.cpu.map(Value::from)),
        ("processes", args.processes.map(Value::from)),
    ])
}

fn members<const N: usize>(given: [(&str, Option<Value>); N]) -> Map<String, Value> {
    let given = given.into_iter();
    given
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
}

fn environment(pairs: &[String]) -> Outcome<Map<String, Value>> {
    let mut all = Map::new();
    for pair in pairs {
        let (name, value) = pair
            .split_once('=')
            .ok_or_else(|| Failure::usage(format!("--env {pair}: give NAME=VALUE")))?;
        all.insert(name.to_owned(), json!(value));
    }
    Ok(all)
}

/// A JSON object that was given as text.
pub(super) fn object(text: &str) -> Outcome<Map<String, Value>> {
    serde_json::from_str(text)
        .map_err(|error| Failure::usage(format!("--metadata is not a JSON object: {error}")))
}

/// Adds the agents.
pub(super) async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let body = body(&args)?;
    let api = crate::commands::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let key = args.idempotency_key.as_deref();
    let added = api
        .post(&format!("/v1/swarms/{id}/agents"), &body, key)
        .await?;
    api.settle().await;
    let Some(items) = added["items"].as_array() else {
        return output.object(&added);
    };
    let (refused, made): (Vec<_>, Vec<_>) =
        items.iter().partition(|item| item.get("problem").is_some());
    match output {
        Format::Json => output.object(&added)?,
        Format::Table => {
            let made: Vec<Value> = made.into_iter().cloned().collect();
            table::print(&made)?;
        }
    }
    match refused.first() {
        None => Ok(()),
        Some(first) => Err(Failure::failed(format!(
            "{} of {} were refused, the first because {}",
            refused.len(),
            items.len(),
            crate::api::refusal(&first["problem"]).message
        ))),
    }
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
    fn sent(line: &str) -> Outcome<Value> {
        let words = ["add"].into_iter().chain(line.split(' '));
        body(&Line::try_parse_from(words).expect(line).args)
    }

    #[test]
    fn what_is_given_is_sent_and_nothing_else() {
        assert_eq!(
            sent("s -- wc -l").expect("good"),
            json!({"agent_type": "exec", "adapter": "exec", "command": ["wc", "-l"]})
        );
        assert_eq!(
            sent("s --url http://h/x --name n --count 3").expect("good"),
            json!({"agent_type": "webhook", "adapter": "webhook", "url": "http://h/x", "agent_name": "n", "count": 3})
        );
        assert_eq!(
            sent("s --type browser --capability a --slots 2 --waiting 0").expect("good"),
            json!({"agent_type": "browser", "capabilities": ["a"], "slots": 2, "waiting": 0})
        );
        assert_eq!(
            sent("s --adapter process --restart on-failure --crash-limit 0 --memory 2G --cpu 50 --env A=b=c --env D= --pass-env E -- p")
                .expect("good"),
            json!({"agent_type": "process", "adapter": "process", "command": ["p"],
                "restart": {"restart": "on_failure", "crash_limit": 0},
                "limits": {"memory_kib": 2_097_152, "cpu_percent": 50}, "env": {"A": "b=c", "D": ""}, "pass_env": ["E"]})
        );
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        for line in ["s", "s --env A -- wc", "s --metadata [1] -- wc"] {
            assert_eq!(sent(line).expect_err(line).code, Code::Usage, "{line}");
        }
        for line in [
            "--count 0",
            "--count 1001",
            "--memory 5",
            "--memory 0M",
            "--cpu 0",
            "--restart often",
        ] {
            let words = ["add", "s"].into_iter().chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }
}
