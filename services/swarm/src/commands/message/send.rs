//! `swarm message send`

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::{
    api::with_query,
    commands::text_or_json,
    connection::ServerArgs,
    exit::{Failure, Outcome},
    output::Format,
    progress::parse_duration,
    sse,
};

/// Arguments of `swarm message send`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
    /// What to say: JSON, @FILE with JSON, - for JSON from stdin, or plain text
    #[arg(value_name = "BODY")]
    pub body: String,
    /// To an agent (name or id), leader, a role (coordinator, supervisor, worker), or all
    #[arg(long, value_name = "RECIPIENT", required_unless_present = "topic")]
    pub to: Option<String>,
    /// What it is about; without --to it goes to those who have subscribed to this topic
    #[arg(long)]
    pub topic: Option<String>,
    /// Ask for an answer
    #[arg(long)]
    pub request: bool,
    /// Ask for a receipt: a process of the recipient has read it, or its handler has come to its end
    #[arg(long, value_parser = PossibleValuesParser::new(["delivered", "handled"]))]
    pub receipt: Option<String>,
    /// After this long nobody is to handle it any more, such as 60s
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub expires: Option<Duration>,
    /// Wait so long for the answer, or else for the receipt; past it the exit code is 4
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub wait: Option<Duration>,
    /// A repeat with the same key within two minutes says nothing twice
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

fn body(args: &Args) -> Outcome<Value> {
    if args.wait.is_some() && !args.request && args.receipt.is_none() {
        return Err(Failure::usage(
            "--wait waits for an answer (--request) or a receipt (--receipt): give one of them",
        ));
    }
    let millis = args
        .expires
        .map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
    let given = [
        ("to", args.to.as_ref().map(|text| json!(text))),
        ("topic", args.topic.as_ref().map(|text| json!(text))),
        ("body", Some(text_or_json(&args.body)?)),
        ("request", args.request.then_some(Value::Bool(true))),
        ("receipt", args.receipt.as_ref().map(|text| json!(text))),
        ("expires_ms", millis.map(|millis| json!(millis))),
    ];
    let given = given.into_iter();
    let members: Map<String, Value> = given
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect();
    Ok(Value::Object(members))
}

/// Sends a message, and waits if asked to.
pub(super) async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let body = body(&args)?;
    let api = crate::commands::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let path = format!("/v1/swarms/{id}/messages");
    let key = args.idempotency_key.as_deref();
    let sent = api.post(&path, &body, key).await?;
    let Some(patience) = args.wait else {
        return output.object(&sent);
    };
    let to_people = [("to", Some("people".to_owned()))];
    let path = with_query(&format!("{path}/stream"), &to_people);
    let mut events = sse::follow(api, path, sent["sequence"].as_u64());
    let answer = async {
        while let Some(event) = events.recv().await {
            let Ok(message) = serde_json::from_str::<Value>(&event?.data) else {
                continue;
            };
            if answers(&message, &sent["id"], args.request) {
                return Ok(message);
            }
        }
        Err(Failure::failed("the stream of messages ended"))
    };
    let late = |_| {
        let what = if args.request { "answer" } else { "receipt" };
        Failure::timeout(format!("no {what} came in time; the message is stored"))
    };
    let message = timeout(patience, answer).await.map_err(late)??;
    let missed = matches!(message["stage"].as_str(), Some("refused" | "failed"));
    output.object(&message)?;
    if missed {
        let why = message["detail"].as_str().unwrap_or("it was not handled");
        return Err(Failure::failed(why));
    }
    Ok(())
}

/// Whether a message ends the wait: the answer that was asked for, else a receipt; a refusal ends both.
fn answers(message: &Value, id: &Value, request: bool) -> bool {
    let refused = matches!(message["stage"].as_str(), Some("refused" | "failed"));
    &message["in_reply_to"] == id || (&message["receipt_of"] == id && (refused || !request))
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
        let words = ["send"].into_iter().chain(line.split(' '));
        body(&Line::try_parse_from(words).expect(line).args)
    }

    #[test]
    fn what_is_given_is_sent_and_nothing_else() {
        assert_eq!(
            made("s hello --to anna").expect("good"),
            json!({"to": "anna", "body": "hello"})
        );
        assert_eq!(
            made("s {\"n\":1} --topic news --receipt handled --expires 2s --request --wait 5s")
                .expect("good"),
            json!({"topic": "news", "body": {"n": 1}, "receipt": "handled", "expires_ms": 2_000, "request": true})
        );
    }

    #[test]
    fn what_makes_no_sense_is_a_usage_error() {
        assert_eq!(
            made("s x --to a --wait 1s").expect_err("for what?").code,
            Code::Usage
        );
        for line in ["s x", "s --to a", "s x --to a --receipt read"] {
            let words = ["send"].into_iter().chain(line.split(' '));
            assert!(Line::try_parse_from(words).is_err(), "{line}");
        }
    }

    #[test]
    fn a_wait_ends_with_the_answer_or_with_a_refusal() {
        let id = json!("m");
        let receipt = |stage: &str| json!({"receipt_of": "m", "stage": stage});
        assert!(answers(&json!({"in_reply_to": "m"}), &id, true));
        assert!(!answers(&json!({"in_reply_to": "n"}), &id, true));
        assert!(!answers(&receipt("delivered"), &id, true));
        assert!(answers(&receipt("refused"), &id, true));
        assert!(answers(&receipt("delivered"), &id, false));
    }
}
