//! `swarm message`

mod send;

use serde_json::Value;

use crate::{
    api::with_query,
    connection::ServerArgs,
    exit::Outcome,
    output::{self, Format},
    sse,
};

/// Commands on messages.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Say something to agents
    Send(send::Args),
    /// List what agents and people have said to each other in the last day
    List(ListArgs),
    /// Follow what they say, until Ctrl-C
    Follow(FollowArgs),
}

/// Which messages.
#[derive(clap::Args, Debug)]
pub struct WhichArgs {
    /// Name or id of the swarm
    pub swarm: String,
    /// Only from this agent (name or id), `people`, or `abroad`: other swarms
    #[arg(long, value_name = "SENDER")]
    pub from: Option<String>,
    /// Only to this agent (name or id), leader, a role, all, people or abroad
    #[arg(long, value_name = "RECIPIENT")]
    pub to: Option<String>,
    /// Only on this topic
    #[arg(long)]
    pub topic: Option<String>,
}

/// Arguments of `swarm message list`.
#[derive(clap::Args, Debug)]
pub struct ListArgs {
    /// Which
    #[command(flatten)]
    pub which: WhichArgs,
    /// At most so many, the oldest first
    #[arg(long, value_name = "N", default_value_t = 1_000)]
    pub limit: usize,
}

/// Arguments of `swarm message follow`.
#[derive(clap::Args, Debug)]
pub struct FollowArgs {
    /// Which
    #[command(flatten)]
    pub which: WhichArgs,
    /// Begin behind the message with this sequence instead of now (0: with the oldest that is kept)
    #[arg(long, value_name = "SEQUENCE")]
    pub after: Option<u64>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

impl WhichArgs {
    fn parameters(&self) -> [(&'static str, Option<String>); 3] {
        [
            ("from", self.from.clone()),
            ("to", self.to.clone()),
            ("topic", self.topic.clone()),
        ]
    }
}

/// Runs a command on messages.
pub async fn run(command: Command, server: &ServerArgs, output: Format) -> Outcome {
    match command {
        Command::Send(args) => send::run(args, server, output).await,
        Command::List(args) => list(args, server, output).await,
        Command::Follow(args) => follow(args, server, output).await,
    }
}

async fn list(args: ListArgs, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.which.swarm).await?;
    let query: Vec<(&str, String)> = args
        .which
        .parameters()
        .into_iter()
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let path = format!("/v1/swarms/{id}/messages");
    let messages = api.list(&path, &query, Some(args.limit)).await?;
    match output {
        Format::Json => output.list(&messages, &[]),
        Format::Table => {
            let rows: Vec<Value> = messages.iter().map(row).collect();
            output.list(&rows, &COLUMNS)
        }
    }
}

const COLUMNS: [output::Column; 6] = [
    ("SEQUENCE", "/sequence"),
    ("AT", "/at"),
    ("FROM", "/from"),
    ("TO", "/to"),
    ("WHAT", "/what"),
    ("BODY", "/body"),
];

/// A message in the words of a table: names instead of ids, and what it is for.
fn row(message: &Value) -> Value {
    let text = |name: &str| message[name].as_str().filter(|text| !text.is_empty());
    let short = |id: &str| id.split('-').next().unwrap_or(id).to_owned();
    let party = |name: &str, id: &str| {
        text(name)
            .or_else(|| text(id))
            .unwrap_or_default()
            .to_owned()
    };
    let to = match (text("to"), text("topic")) {
        (Some("topic"), Some(topic)) => format!("#{topic}"),
        (_, Some(topic)) => format!("{} #{topic}", party("to_name", "to")),
        _ => party("to_name", "to"),
    };
    let purpose = text("purpose").unwrap_or_default();
    let what = match (purpose, text("in_reply_to"), text("receipt_of")) {
        (_, Some(id), _) => format!("reply to {}", short(id)),
        (_, _, Some(id)) => format!("{} {}", text("stage").unwrap_or_default(), short(id)),
        _ => format!("{purpose} {}", short(text("id").unwrap_or_default())),
    };
    let body = match text("detail") {
        Some(detail) => Value::String(detail.to_owned()),
        None => message["body"].clone(),
    };
    serde_json::json!({
        "sequence": message["sequence"], "at": message["at"], "from": party("from_name", "from"), "to": to,
        "what": what, "body": body,
    })
}

async fn follow(args: FollowArgs, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.which.swarm).await?;
    let path = format!("/v1/swarms/{id}/messages/stream");
    let path = with_query(&path, &args.which.parameters());
    let mut events = sse::follow(api, path, args.after);
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(event) = events.recv().await else {
            break;
        };
        let event = event?;
        let Ok(message) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        output::line(&line(&message, output))?;
        left -= 1;
    }
    Ok(())
}

fn line(message: &Value, output: Format) -> String {
    if output == Format::Json {
        return message.to_string();
    }
    let row = row(message);
    let text = |name: &str| row[name].as_str().unwrap_or_default();
    format!(
        "{:>8}  {}  {} → {}  {:<18} {}",
        row["sequence"],
        text("at"),
        text("from"),
        text("to"),
        text("what"),
        row["body"],
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_names_who_says_what_to_whom() {
        let message = json!({"id": "0190f7a0-1", "sequence": 7, "at": "now", "from": "people", "to": "a-1", "to_name": "anna",
            "purpose": "request", "body": {"n": 1}});
        let text = line(&message, Format::Table);
        assert!(text.contains("people → anna  request 0190f7a0"), "{text}");
        assert!(text.ends_with(r#"{"n":1}"#), "{text}");
        let read: Value = serde_json::from_str(&line(&message, Format::Json)).expect("JSON");
        assert_eq!(read, message);
    }

    #[test]
    fn receipts_and_replies_name_their_message() {
        let receipt = row(
            &json!({"id": "x-1", "from": "a", "from_name": "anna", "to": "people", "purpose": "receipt",
            "receipt_of": "0190f7a0-1", "stage": "refused", "detail": "no edge"}),
        );
        assert_eq!(
            (&receipt["what"], &receipt["body"]),
            (&json!("refused 0190f7a0"), &json!("no edge"))
        );
        let reply = row(
            &json!({"id": "x-1", "to": "topic", "topic": "news", "purpose": "reply", "in_reply_to": "0190f7a0-1"}),
        );
        assert_eq!(
            (&reply["what"], &reply["to"]),
            (&json!("reply to 0190f7a0"), &json!("#news"))
        );
    }
}
