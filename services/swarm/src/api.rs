//! The gateway, as the command line sees it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use tokio::time::Instant;

use crate::{
    connection::Target,
    exit::{Failure, Outcome},
};

/// The gateway answers a write within seconds (504 if the outcome is late): past this it does not answer at all.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// Items per page of a list: the fewest round trips that still answer at once.
const PAGE: usize = 500;
/// Says in an answer which stream sequence its write has reached.
const SEQUENCE_HEADER: &str = "swarm-seq";
/// How long a write waits for the lists to show it.
const SETTLE_WAIT: Duration = Duration::from_secs(2);
/// The lists are a moment behind the log: a name that was just given may not be in them yet.
const NAME_WAIT: Duration = Duration::from_secs(1);
/// How often it is looked for.
const NAME_LOOK: Duration = Duration::from_millis(100);

/// A client of the gateway.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    base: String,
    key: String,
    /// The highest stream sequence that one of its writes has reached.
    written: Arc<AtomicU64>,
}

impl Api {
    /// A client of the gateway that `target` names.
    pub fn new(target: &Target) -> Outcome<Self> {
        let base = target
            .api_url
            .as_deref()
            .ok_or_else(|| target.missing("gateway", "--api-url", "SWARM_API_URL"))?;
        let key = target
            .api_key
            .clone()
            .ok_or_else(|| target.missing("API key", "--api-key", "SWARM_API_KEY"))?;
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Failure::failed(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            base: base.trim_end_matches('/').to_owned(),
            key,
            written: Arc::default(),
        })
    }

    /// Where the gateway is.
    pub fn base(&self) -> &str {
        &self.base
    }

    /// `GET path`, as JSON.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Outcome<Value> {
        self.send(self.request(Method::GET, path).query(query))
            .await
    }
    /// `POST path` with a JSON body.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Outcome<Value> {
        let mut request = self.request(Method::POST, path).json(body);
        if let Some(key) = idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        self.send(request).await
    }
    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.send(self.request(Method::PUT, path).json(body)).await
    }
    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Outcome<Value> {
        self.send(self.request(Method::DELETE, path)).await
    }

    /// Waits until the lists show what was written, so that the next command sees it. Not for long: with PostgreSQL down
    /// they will not, and what was written is written.
    pub async fn settle(&self) {
        let query = [
            ("limit", "1".to_owned()),
            ("min_seq", self.written.load(Ordering::Relaxed).to_string()),
        ];
        let seen = self.get("/v1/swarms", &query);
        let _ = tokio::time::timeout(SETTLE_WAIT, seen).await;
    }

    /// All items of a list, page by page, up to `limit`.
    pub async fn list(
        &self,
        path: &str,
        query: &[(&str, String)],
        limit: Option<usize>,
    ) -> Outcome<Vec<Value>> {
        let limit = limit.unwrap_or(usize::MAX);
        let mut items = Vec::new();
        let mut cursor: Option<String> = None;
        while items.len() < limit {
            let mut query = query.to_vec();
            query.push(("limit", PAGE.min(limit - items.len()).to_string()));
            if let Some(cursor) = cursor.take() {
                query.push(("cursor", cursor));
            }
            let mut page = self.get(path, &query).await?;
            if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
                items.extend(more);
            }
            match page.get("next_cursor").and_then(Value::as_str) {
                Some(next) => cursor = Some(next.to_owned()),
                None => break,
            }
        }
        Ok(items)
    }

    /// Opens a stream of server-sent events.
    pub async fn stream(
        &self,
        path: &str,
        last_event_id: Option<u64>,
    ) -> Outcome<reqwest::Response> {
        let mut request = self
            .http
            .request(Method::GET, format!("{}{path}", self.base))
            .bearer_auth(&self.key)
            .header(header::ACCEPT, "text/event-stream");
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id.to_string());
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        Err(problem(
            response.status(),
            &response.text().await.unwrap_or_default(),
        ))
    }

    /// The id of the swarm that `name_or_id` names.
    pub async fn swarm_id(&self, name_or_id: &str) -> Outcome<String> {
        if uuid::Uuid::parse_str(name_or_id).is_ok() {
            return Ok(name_or_id.to_owned());
        }
        let deadline = Instant::now() + NAME_WAIT;
        loop {
            for deleted in ["false", "true"] {
                let query = [
                    ("name", name_or_id.to_owned()),
                    ("deleted", deleted.to_owned()),
                ];
                // A name is free again once its swarm has been deleted: of several the last one.
                let swarms = self.list("/v1/swarms", &query, None).await?;
                if let Some(id) = swarms.last().and_then(|swarm| swarm["id"].as_str()) {
                    return Ok(id.to_owned());
                }
            }
            if Instant::now() > deadline {
                return Err(Failure::not_found(format!(
                    "no swarm is called {name_or_id}: `swarm list` shows all"
                )));
            }
            tokio::time::sleep(NAME_LOOK).await;
        }
    }

    fn request(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.http
            .request(method, format!("{}{path}", self.base))
            .bearer_auth(&self.key)
            .timeout(REQUEST_TIMEOUT)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Outcome<Value> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let sequence = response.headers().get(SEQUENCE_HEADER);
        if let Some(sequence) = sequence.and_then(|value| value.to_str().ok()?.parse().ok()) {
            self.written.fetch_max(sequence, Ordering::Relaxed);
        }
        let text = response
            .text()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if !status.is_success() {
            return Err(problem(status, &text));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| {
            Failure::failed(format!(
                "{} answered with something else than JSON: {error}",
                self.base
            ))
        })
    }

    fn unreachable(&self, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::timeout(format!("{} did not answer in time", self.base));
        }
        let mut causes = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            causes = next.to_string();
            cause = next.source();
        }
        Failure::failed(format!(
            "cannot reach the gateway at {}: {causes}. Does it run? `swarm status` tells, `swarm up` starts it",
            self.base
        ))
    }
}

/// A refusal in the gateway's own words (RFC 9457), with the exit code that fits its status.
fn problem(status: StatusCode, body: &str) -> Failure {
    let read: Value = serde_json::from_str(body).unwrap_or_default();
    let text = |name: &str| read[name].as_str().filter(|text| !text.is_empty());
    let mut message = match text("detail").or_else(|| text("title")) {
        Some(detail) => detail.to_owned(),
        None => format!("the gateway answered {status}"),
    };
    if let Some(field) = text("field")
        && !message.starts_with(field)
    {
        message = format!("{field}: {message}");
    }
    if let Some(cure) = text("cure") {
        message = format!("{message} ({cure})");
    }
    match status {
        StatusCode::NOT_FOUND => Failure::not_found(message),
        StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT => Failure::timeout(message),
        _ => Failure::failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    #[test]
    fn a_problem_names_the_field_and_the_cure() {
        let body = r#"{"title":"Unprocessable","status":422,"detail":"must be 1 to 10","field":"priority","cure":"leave it out"}"#;
        let failure = problem(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(failure.message, "priority: must be 1 to 10 (leave it out)");
        assert_eq!(failure.code, Code::Failed);
    }

    #[test]
    fn statuses_become_exit_codes() {
        assert_eq!(problem(StatusCode::NOT_FOUND, "").code, Code::NotFound);
        assert_eq!(
            problem(StatusCode::GATEWAY_TIMEOUT, "{}").code,
            Code::Timeout
        );
        let other = problem(StatusCode::BAD_GATEWAY, "<html>");
        assert_eq!(other.code, Code::Failed);
        assert!(other.message.contains("502"), "{}", other.message);
    }
}
