//! `swarm replay`: history straight from the log.

use std::io::{BufWriter, Write};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use swarm_events::{Subject, SwarmId, Timestamp, subject::filter};
use swarm_log::{Log, StoredMessage, Tailed};

use crate::{connection::ServerArgs, exit::Outcome};

/// Arguments of `swarm replay`.
#[derive(clap::Args, Debug, Default)]
pub struct Args {
    /// First stream sequence
    #[arg(long, value_name = "SEQUENCE", default_value_t = 1)]
    pub from: u64,
    /// Last stream sequence [default: the last one now]
    #[arg(long, value_name = "SEQUENCE")]
    pub to: Option<u64>,
    /// Only this swarm's events and commands
    #[arg(long, value_name = "ID")]
    pub swarm: Option<SwarmId>,
    /// Only types with this in their name, such as task.completed
    #[arg(long = "type", value_name = "TYPE")]
    pub types: Vec<String>,
}

/// Prints one JSON object per line: `sequence`, `time`, `subject`, `event` (or `unreadable`, the text of what is none).
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let log = server.resolve()?.log("replay").await?;
    let last = log.info().await?.last_sequence;
    let to = args.to.map_or(last, |to| to.min(last));
    let mut out = BufWriter::new(std::io::stdout().lock());
    if args.from <= to {
        let mut tail = log.tail(filter::all(), args.from);
        while let Some(item) = tail.next().await {
            match item? {
                Tailed::Message(message) if message.sequence > to => break,
                Tailed::Message(message) => {
                    if let Some(line) = args.line(&message) {
                        writeln!(out, "{line}")?;
                    }
                    if message.sequence == to {
                        break;
                    }
                }
                Tailed::CaughtUp => break,
                Tailed::Interrupted | Tailed::Resumed => {}
            }
        }
    }
    Ok(out.flush()?)
}

impl Args {
    fn line(&self, message: &StoredMessage) -> Option<String> {
        if let Some(swarm) = self.swarm {
            let place = Subject::parse(&message.subject).ok()?.place()?;
            if place.swarm != swarm {
                return None;
            }
        }
        let text = String::from_utf8_lossy(&message.payload);
        let event: Option<&RawValue> = serde_json::from_str(&text).ok();
        if !self.types.is_empty() {
            let kind = serde_json::from_str::<Typed>(event?.get()).ok()?.r#type;
            if !self
                .types
                .iter()
                .any(|wanted| kind.contains(wanted.as_str()))
            {
                return None;
            }
        }
        let line = Line {
            sequence: message.sequence,
            time: Timestamp::from_micros(message.time_micros),
            subject: &message.subject,
            event,
            unreadable: event.is_none().then_some(&*text),
        };
        // Line breaks between the tokens of an event would end the line; within its texts they are escaped.
        serde_json::to_string(&line)
            .ok()
            .map(|line| line.replace(['\n', '\r'], " "))
    }
}

#[derive(Deserialize)]
struct Typed {
    r#type: String,
}

#[derive(Serialize)]
struct Line<'a> {
    sequence: u64,
    time: Timestamp,
    subject: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unreadable: Option<&'a str>,
}

#[cfg(test)]
mod tests {
    use serde_json::Value;
    use swarm_events::{OrgId, Place};
    use uuid::Uuid;

    use super::*;

    fn message(swarm: u128, payload: &'static str) -> StoredMessage {
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(swarm)));
        let subject = Subject::Task(place, swarm_events::subject::TaskVerb::Submitted, None);
        StoredMessage {
            sequence: 5,
            time_micros: 0,
            subject: subject.to_string().into(),
            payload: payload.as_bytes().into(),
            message_id: None,
        }
    }

    fn read(args: &Args, message: &StoredMessage) -> Value {
        let line = args.line(message).expect("kept");
        assert!(!line.contains('\n'), "{line}");
        serde_json::from_str(&line).expect("JSON")
    }

    #[test]
    fn an_event_of_several_lines_is_one_line_here() {
        let line = read(&Args::default(), &message(2, "{\"type\":\n\"a\\nb\"}"));
        assert_eq!(line["event"]["type"], "a\nb");
    }

    #[test]
    fn filters_leave_what_they_name() {
        let args = Args {
            swarm: Some(SwarmId(Uuid::from_u128(2))),
            types: vec!["task.submitted".into()],
            ..Args::default()
        };
        let event = r#"{"type":"swarm.task.submitted.v2"}"#;
        assert_eq!(read(&args, &message(2, event))["sequence"], 5);
        assert!(args.line(&message(3, event)).is_none(), "another swarm");
        assert!(
            args.line(&message(2, r#"{"type":"swarm.task.started.v1"}"#))
                .is_none(),
            "another type"
        );
    }

    #[test]
    fn what_cannot_be_read_is_shown_as_it_is() {
        let line = read(&Args::default(), &message(2, "{no json"));
        assert_eq!(line["unreadable"], "{no json");
        assert!(line.get("event").is_none());
    }
}
