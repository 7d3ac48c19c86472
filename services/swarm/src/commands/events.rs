//! `swarm events`

use serde_json::{Value, json};

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{self, Format},
    sse::{self, SseEvent},
};

/// Arguments of `swarm events`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// Start after this stream sequence instead of now (0: from the beginning)
    #[arg(long, value_name = "SEQUENCE")]
    pub from: Option<u64>,
    /// Only types with this in their name, such as task.completed
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
    /// End after so many
    #[arg(long, value_name = "N")]
    pub limit: Option<u64>,
}

/// Prints events as they happen; as JSON one object per line.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let mut events = sse::follow(api, format!("/v1/swarms/{id}/events"), args.from);
    let mut left = args.limit.unwrap_or(u64::MAX);
    while left > 0 {
        let Some(event) = events.recv().await else {
            break;
        };
        let event = event?;
        let Ok(data) = serde_json::from_str::<Value>(&event.data) else {
            continue;
        };
        let kind = data["type"].as_str().unwrap_or_default();
        if !args.types.is_empty()
            && !args
                .types
                .iter()
                .any(|wanted| kind.contains(wanted.as_str()))
        {
            continue;
        }
        output::line(&render(&event, &data, output))?;
        left -= 1;
    }
    Ok(())
}

fn render(event: &SseEvent, data: &Value, output: Format) -> String {
    if output == Format::Json {
        return json!({"sequence": event.id, "event": data}).to_string();
    }
    let text = |name: &str| data[name].as_str().unwrap_or_default();
    let kind = text("type").trim_start_matches("swarm.");
    format!(
        "{:>8}  {}  {:<24} {}  {}",
        event.id.map_or_else(String::new, |id| id.to_string()),
        text("time"),
        kind.rsplit_once(".v").map_or(kind, |(stem, _)| stem),
        text("subject"),
        data["data"],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_names_sequence_type_and_subject() {
        let event = SseEvent {
            id: Some(12),
            event: None,
            data: String::new(),
        };
        let data = json!({"type": "swarm.task.started.v1", "subject": "t1", "time": "now", "data": {"a": 1}});
        let line = render(&event, &data, Format::Table);
        assert!(line.contains("12  now  task.started "), "{line}");
        assert!(line.ends_with("t1  {\"a\":1}"), "{line}");
        let read: Value = serde_json::from_str(&render(&event, &data, Format::Json)).expect("JSON");
        assert_eq!(read["event"]["subject"], "t1");
    }
}
