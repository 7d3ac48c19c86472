//! Results that are too large for their events.

use std::time::Duration;

use swarm_events::{Body, Input, Json, Timestamp, read, task::Carried};
use swarm_log::{Log, LogError};
use tokio::time::sleep;

use crate::{batch::Batch, status::ProjectorStatus};

/// Pause before the log is asked again.
const RETRY_PAUSE: Duration = Duration::from_secs(2);

/// Looks up results that are not in their events.
pub(crate) async fn resolve<L: Log>(log: &L, batch: &mut Batch, status: &ProjectorStatus) {
    for (place, task, carried) in std::mem::take(&mut batch.results) {
        let json = loop {
            match look_up(log, &carried).await {
                Ok(json) => break json,
                Err(error) => {
                    status.trouble(&error.to_string());
                    sleep(RETRY_PAUSE).await;
                }
            }
        };
        batch.set_result(place, task, &json);
    }
}

/// The value; where there is none any more, what it was called.
async fn look_up<L: Log>(log: &L, carried: &Carried) -> Result<Json, LogError> {
    let found = match carried {
        Carried::Inline(json) => Some(json.clone()),
        Carried::Object(name) => {
            let bytes = log.get_object(name).await?;
            bytes.and_then(|bytes| Json::parse(std::str::from_utf8(&bytes).ok()?).ok())
        }
        Carried::AtSequence(sequence) => log.get(*sequence).await?.and_then(|message| {
            let time = Timestamp::from_micros(message.time_micros);
            let Input::Event(recorded) =
                read(message.sequence, time, &message.subject, &message.payload)
            else {
                return None;
            };
            match recorded.event.body {
                Body::TaskCompleted(completed) => match completed.result {
                    Carried::Inline(json) => Some(json),
                    _ => None,
                },
                Body::TaskSubmitted(submitted) => Some(submitted.payload),
                _ => None,
            }
        }),
    };
    Ok(found.unwrap_or_else(|| Json::from(serde_json::json!({ "not_found": carried }))))
}
