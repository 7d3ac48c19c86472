//! Answers that succeed.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// Stream sequence that a write reached; a read with `?min_seq=` of it sees the write.
pub const SEQUENCE_HEADER: HeaderName = HeaderName::from_static("swarm-seq");
/// For how long an idempotency key is remembered, in milliseconds.
pub const KEY_REMEMBERED_HEADER: HeaderName = HeaderName::from_static("swarm-key-remembered-ms");

/// An answer under way.
pub struct Reply {
    response: Response,
}

impl Reply {
    /// `body` as JSON.
    pub fn json(status: StatusCode, body: &impl Serialize) -> Self {
        Self {
            response: (status, Json(body)).into_response(),
        }
    }
    /// Names the sequence that a write reached.
    #[must_use]
    pub fn sequence(mut self, sequence: u64) -> Self {
        self.response
            .headers_mut()
            .insert(SEQUENCE_HEADER, HeaderValue::from(sequence));
        self
    }
    /// Names where the new object is.
    #[must_use]
    pub fn location(mut self, path: &str) -> Self {
        // Paths are made of ids and fixed words.
        if let Ok(value) = HeaderValue::from_str(path) {
            self.response.headers_mut().insert(header::LOCATION, value);
        }
        self
    }
    /// Says for how long the idempotency key that came with the request holds.
    #[must_use]
    pub fn keyed(mut self, keyed: bool) -> Self {
        if keyed {
            let remembered = HeaderValue::from(swarm_events::decider::REMEMBERED_MS);
            self.response
                .headers_mut()
                .insert(KEY_REMEMBERED_HEADER, remembered);
        }
        self
    }
    /// Says that it holds for another time: what is not in the log has no memory of its own.
    #[must_use]
    pub fn remembered(mut self, time: Duration) -> Self {
        let remembered = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        self.response
            .headers_mut()
            .insert(KEY_REMEMBERED_HEADER, HeaderValue::from(remembered));
        self
    }
    /// Names the revision of what was read or written, for `If-Match`.
    #[must_use]
    pub fn revision(mut self, revision: u64) -> Self {
        // Digits between quotes.
        if let Ok(value) = HeaderValue::from_str(&format!("\"{revision}\"")) {
            self.response.headers_mut().insert(header::ETAG, value);
        }
        self
    }
}

impl From<Response> for Reply {
    fn from(response: Response) -> Self {
        Self { response }
    }
}
impl IntoResponse for Reply {
    fn into_response(self) -> Response {
        self.response
    }
}
