//! What is asked and heard over the bus beside the log: the last heartbeats, what agents' processes write, and the streams
//! of messages and blackboards.

mod stored;

use std::{collections::BTreeMap, time::Duration};

use async_nats::{
    Client, HeaderMap, HeaderValue, RequestErrorKind, StatusCode, Subscriber,
    header::{NATS_SUBJECT, NATS_TIME_STAMP},
    jetstream::Context,
};
use bytes::Bytes;
use futures::StreamExt;
use serde_json::json;
use swarm_events::Timestamp;
use swarm_log::definitions::HEARTBEATS_STREAM;
use tokio::time::{error::Elapsed, timeout};

pub use stored::{Found, KeepError, Kept, PAGE_BYTES_MAX, Stored};

/// How long the last heartbeats are waited for: health is asked for in an outage above all, and must answer then.
pub const BEATS_WAIT: Duration = Duration::from_secs(1);
/// Subjects in one request for last messages: nats-server answers with at most 1,024, and the request must fit into a message.
const SUBJECTS_MAX: usize = 1_000;
/// Status of the message that ends an answer of several messages.
const END_OF_BATCH: u16 = 204;
/// Status: there is nothing under any of the subjects.
const NOTHING_FOUND: u16 = 404;

/// Why the bus gave no answer.
#[derive(Clone, Debug, thiserror::Error)]
pub enum BusError {
    /// Nobody is there who would answer.
    #[error("nobody answers on {0}")]
    Nobody(String),
    /// No answer in time.
    #[error("no answer on {0} in time")]
    Late(String),
    /// nats-server has no such stream.
    #[error("nats-server lacks a stream: {0}")]
    Missing(String),
    /// The client, or the server, said something else.
    #[error("nats-server: {0}")]
    Refused(String),
}

impl From<Elapsed> for BusError {
    fn from(_: Elapsed) -> Self {
        Self::Late(HEARTBEATS_STREAM.to_owned())
    }
}

/// The last message of a subject.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Last {
    /// When nats-server stored it, by its clock.
    pub at: Timestamp,
    /// What it says.
    pub payload: Bytes,
}

/// The bus.
#[derive(Clone, Debug)]
pub struct Bus(Client, Context);

impl Bus {
    /// Over this connection.
    pub fn new(client: Client) -> Self {
        let context = async_nats::jetstream::new(client.clone());
        Self(client, context)
    }

    /// Asks whoever listens on `subject`.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn request(
        &self,
        subject: String,
        payload: Bytes,
        wait: Duration,
    ) -> Result<Bytes, BusError> {
        let request = async_nats::Request::new()
            .payload(payload)
            .timeout(Some(wait));
        match self.0.send_request(subject.clone(), request).await {
            Ok(answer) => Ok(answer.payload),
            Err(error) => Err(match error.kind() {
                RequestErrorKind::NoResponders => BusError::Nobody(subject),
                RequestErrorKind::TimedOut => BusError::Late(subject),
                _ => BusError::Refused(error.to_string()),
            }),
        }
    }

    /// Hears what is published on `subject` from now on: what a request that is made after it is answered with, and what comes
    /// then, leave no gap.
    ///
    /// # Errors
    /// See [`BusError`].
    pub async fn hear(&self, subject: String) -> Result<Subscriber, BusError> {
        let refused = |error: String| BusError::Refused(error);
        let heard = self.0.subscribe(subject).await;
        let heard = heard.map_err(|error| refused(error.to_string()))?;
        let flushed = self.0.flush().await;
        flushed.map_err(|error| refused(error.to_string()))?;
        Ok(heard)
    }

    /// The last message of each of these subjects of the stream of heartbeats, those that there are: one request for a
    /// thousand.
    ///
    /// # Errors
    /// See [`BusError`]; after [`BEATS_WAIT`] at the latest.
    pub async fn last_beats(
        &self,
        subjects: &[String],
    ) -> Result<BTreeMap<String, Last>, BusError> {
        timeout(BEATS_WAIT, async {
            let mut found = BTreeMap::new();
            for some in subjects.chunks(SUBJECTS_MAX) {
                self.last_of(some, &mut found).await?;
            }
            Ok(found)
        })
        .await?
    }

    async fn last_of(
        &self,
        subjects: &[String],
        found: &mut BTreeMap<String, Last>,
    ) -> Result<(), BusError> {
        let refused = |error: String| BusError::Refused(error);
        let inbox = self.0.new_inbox();
        let mut answers = self.hear(inbox.clone()).await?;
        let asked = json!({ "multi_last": subjects, "batch": SUBJECTS_MAX }).to_string();
        let to = format!("$JS.API.DIRECT.GET.{HEARTBEATS_STREAM}");
        let sent = self.0.publish_with_reply(to.clone(), inbox, asked.into());
        sent.await.map_err(|error| refused(error.to_string()))?;
        while let Some(answer) = answers.next().await {
            match answer.status.map(|status: StatusCode| status.as_u16()) {
                Some(END_OF_BATCH | NOTHING_FOUND) => return Ok(()),
                Some(503) => return Err(BusError::Nobody(to)),
                Some(status) => {
                    let said = answer.description.unwrap_or_default();
                    return Err(refused(format!("{status} {said}")));
                }
                None => {
                    let headers = answer.headers.unwrap_or_default();
                    if let Some((subject, at)) = stored(&headers) {
                        let payload = answer.payload;
                        found.insert(subject, Last { at, payload });
                    }
                }
            }
        }
        Err(BusError::Nobody(to))
    }
}

/// Subject and store time of a message in an answer.
fn stored(headers: &HeaderMap) -> Option<(String, Timestamp)> {
    let text = |name| headers.get(name).map(HeaderValue::as_str);
    let at = Timestamp::parse(text(NATS_TIME_STAMP)?).ok()?;
    Some((text(NATS_SUBJECT)?.to_owned(), at))
}
