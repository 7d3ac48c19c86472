//! A key of a blackboard with its value, and what a write may rest on.

use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;
use swarm_events::{Json, Problem, Timestamp};
use utoipa::ToSchema;

use super::OPERATION;
use crate::{
    bus::Stored,
    problem::{Answer, ApiProblem},
};

/// A key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(example = json!({"key": "plan.step", "revision": 7, "updated_at": "2026-01-01T00:00:00.000001Z", "bytes": 12,
    "value": {"step": 3}}))]
pub struct EntryView {
    /// The key.
    pub key: String,
    /// Its revision: what `If-Match` takes, and where a stream goes on.
    pub revision: u64,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    pub updated_at: Timestamp,
    /// Size of the value.
    pub bytes: usize,
    /// The value; absent if the key was deleted, or if the value is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub value: Option<Json>,
    /// A value that is no JSON.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub value_base64: Option<String>,
}

/// A page of keys.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EntryPage {
    /// In the order of their last changes.
    pub items: Vec<EntryView>,
    /// Where the next page begins; null on the last one. What is changed meanwhile comes again.
    pub next_cursor: Option<String>,
}

impl EntryView {
    /// The key of a stored message.
    pub fn of(key: &str, stored: &Stored) -> Self {
        let gone = is_deleted(stored);
        let value = value_of(&stored.payload).filter(|_| !gone);
        let value_base64 = (value.is_none() && !gone).then(|| STANDARD.encode(&stored.payload));
        Self {
            key: key.to_owned(),
            revision: stored.sequence,
            updated_at: stored.at,
            bytes: stored.payload.len(),
            value,
            value_base64,
        }
    }
}

/// A value as JSON, if it is.
pub fn value_of(payload: &[u8]) -> Option<Json> {
    Json::parse(std::str::from_utf8(payload).ok()?).ok()
}

/// Whether a message is the mark of a deletion, by a client or by the server.
pub fn is_deleted(stored: &Stored) -> bool {
    let operation = stored.headers.get(OPERATION).map(|value| value.as_str());
    matches!(operation, Some("DEL" | "PURGE")) || stored.headers.get("Nats-Marker-Reason").is_some()
}

/// What a request rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// Nothing.
    None,
    /// `If-Match`: the key is at this revision.
    At(u64),
    /// `If-Match: *`: there is something under the key.
    Present,
    /// `If-None-Match: *`: there is nothing.
    Absent,
    /// `If-None-Match`: the key is not at this revision.
    NotAt(u64),
}

impl Precondition {
    /// Reads the headers.
    ///
    /// # Errors
    /// 400 for what is no ETag of a key, or both headers at once.
    pub fn of(headers: &HeaderMap) -> Answer<Self> {
        let of = |name: HeaderName| match headers.get(&name) {
            None => Ok(None),
            Some(value) => {
                let text = value.to_str().unwrap_or_default().trim();
                if text == "*" {
                    return Ok(Some(None));
                }
                let quoted = text
                    .strip_prefix('"')
                    .and_then(|text| text.strip_suffix('"'));
                let revision = quoted.and_then(|text| text.parse::<u64>().ok());
                revision
                    .map(|revision| Some(Some(revision)))
                    .ok_or_else(|| wrong(&name, "it is neither * nor one ETag"))
            }
        };
        match (of(header::IF_MATCH)?, of(header::IF_NONE_MATCH)?) {
            (None, None) => Ok(Self::None),
            (Some(None), None) => Ok(Self::Present),
            (Some(Some(revision)), None) => Ok(Self::At(revision)),
            (None, Some(None)) => Ok(Self::Absent),
            (None, Some(Some(revision))) => Ok(Self::NotAt(revision)),
            (Some(_), Some(_)) => Err(wrong(&header::IF_NONE_MATCH, "If-Match is given too")),
        }
    }

    /// The header that it came in.
    pub const fn field(self) -> &'static str {
        match self {
            Self::None | Self::At(_) | Self::Present => "If-Match",
            Self::Absent | Self::NotAt(_) => "If-None-Match",
        }
    }
}

fn wrong(name: &HeaderName, detail: &str) -> ApiProblem {
    let name = if *name == header::IF_MATCH {
        "If-Match"
    } else {
        "If-None-Match"
    };
    let problem = Problem::new("bad-header", detail)
        .field(name)
        .cure("send the ETag of a read or a write, with its quotes, or *, in one of the two");
    ApiProblem::new(StatusCode::BAD_REQUEST, problem)
}
