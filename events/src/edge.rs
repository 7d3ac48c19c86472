//! Events at the edges, where they come from outside: built and checked by the CloudEvents SDK. The hot paths write and
//! read the same bytes by typed structs; a property test holds the two to agreement.

use cloudevents::{Event as SdkEvent, EventBuilder, EventBuilderV10};
use serde_json::Value;

use crate::{
    envelope::Event,
    problem::Problem,
    read::{Input, read},
    subject::Subject,
};

fn failed(what: &str, cause: impl ToString) -> Problem {
    Problem::new("malformed-event", format!("{what}: {}", cause.to_string()))
}

/// The event as the SDK's type, every attribute checked by the SDK's builder.
///
/// # Errors
/// An attribute that CloudEvents 1.0 does not allow, by name.
pub fn to_sdk(event: &Event) -> Result<SdkEvent, Problem> {
    let time = event
        .time
        .to_chrono()
        .ok_or_else(|| failed("time", "out of range").field("time"))?;
    let data: Value = event
        .body
        .to_raw()
        .and_then(|raw| serde_json::from_str(raw.get()))
        .map_err(|e| failed("data", e).field("data"))?;
    let mut builder = EventBuilderV10::new()
        .id(event.id.to_string())
        .source(event.source.to_string())
        .ty(event.body.type_name())
        .subject(event.about.to_string())
        .time(time)
        .data("application/json", data);
    let texts = [
        ("org", event.org.map(|id| id.to_string())),
        ("swarm", event.swarm.map(|id| id.to_string())),
        ("correlationid", event.correlation.map(|id| id.to_string())),
        ("causationid", event.causation.map(|id| id.to_string())),
        ("traceparent", event.traceparent.clone()),
    ];
    for (name, text) in texts {
        if let Some(text) = text {
            builder = builder.extension(name, text);
        }
    }
    if let Some(decided) = event.decided {
        let number = |n: u64| i64::try_from(n).map_err(|e| failed("extension", e));
        builder = builder
            .extension("causeseq", number(decided.cause_sequence)?)
            .extension("epoch", number(decided.epoch)?)
            .extension("ordinal", number(decided.ordinal)?)
            .extension("deciderversion", i64::from(decided.decider_version));
    }
    builder.build().map_err(|e| failed("attribute", e))
}

/// The bytes to publish on `subject`, built by the SDK and read back as every consumer will read them.
///
/// # Errors
/// What a consumer would find wrong with them.
pub fn to_bytes(event: &Event, subject: &Subject) -> Result<Vec<u8>, Problem> {
    let bytes = serde_json::to_vec(&to_sdk(event)?).map_err(|e| failed("event", e))?;
    match read(0, event.time, &subject.to_string(), &bytes) {
        Input::Event(_) => Ok(bytes),
        Input::Unreadable(unreadable) => Err(unreadable.problem),
    }
}
