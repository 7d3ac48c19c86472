//! A web address for each task.

use std::{fmt, time::Duration};

use async_trait::async_trait;
use chrono::{DateTime, Utc};
use futures::StreamExt;
use reqwest::{Client, Response, StatusCode, Url, header, redirect};
use serde::Serialize;
use swarm_agent_sdk::{Awaited, Callbacks, Called, Handler, TaskContext, TaskError};
use swarm_events::{
    Json, Timestamp,
    ids::{AgentId, SwarmId, TaskId},
};
use tokio::time::sleep;

use crate::signature::Secret;

/// How long a connection may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Most bytes of an answer: what the agent's results can hold.
pub const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How much of an answer that is none an error shows.
const SHOWN_BYTES: usize = 1_024;
/// Longest `Retry-After` that is waited for within an attempt; a longer one fails the attempt.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);
/// Times that one attempt is sent again because the receiver asked for it.
const RESENT_MAX: u32 = 10;

/// Why there is no adapter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookError(String);
impl fmt::Display for WebhookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
impl std::error::Error for WebhookError {}

/// Calls a web address for each task.
///
/// POST with what the exec adapter writes to stdin, beside `type`, `timestamp` and `callback`, signed as Standard Webhooks says
/// (`webhook-id`, `webhook-timestamp`, `webhook-signature`) if there is a secret. 200 with JSON is the result. 202: the
/// result comes later, as a POST to `callback.path` of the gateway with `Authorization: Bearer <callback.token>`; progress may
/// come that way at any time. No answer, 408, 425, 429 and 5xx are failures for which another attempt may help; 429 and 503
/// with `Retry-After` are waited for within the attempt. Everything else is a failure for good: redirects are not followed.
/// Cancelled, the connection is closed.
pub struct WebhookAdapter {
    url: Url,
    client: Client,
    secret: Option<Secret>,
    callbacks: Callbacks,
    /// Path of the agent's callbacks at the gateway, without the assignment.
    path: String,
    /// Address of the gateway, if it is known.
    gateway: Option<String>,
}

/// What is sent.
#[derive(Serialize)]
struct Body<'a> {
    r#type: &'static str,
    timestamp: Timestamp,
    id: TaskId,
    task_type: &'a str,
    payload: &'a Json,
    inputs: &'a Json,
    attempt: u32,
    fencing_token: u64,
    deadline: Timestamp,
    callback: Callback<'a>,
}

/// How to answer later.
#[derive(Serialize)]
struct Callback<'a> {
    path: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    token: &'a str,
}

/// What came of a call.
enum Answered {
    Result(Json),
    /// The result comes by a callback.
    Later,
    /// To be sent again after this.
    Again(Duration, String),
}

impl WebhookAdapter {
    /// An adapter that calls `url` for the tasks of this agent, and hears of late answers by `callbacks`, which the agent has,
    /// too.
    ///
    /// # Errors
    /// In words, when the address is none of `http` or `https`.
    pub fn new(
        url: &str,
        swarm: SwarmId,
        agent: AgentId,
        callbacks: Callbacks,
    ) -> Result<Self, WebhookError> {
        let wrong = |why: String| WebhookError(format!("the webhook address {url}: {why}"));
        let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
        if !matches!(parsed.scheme(), "http" | "https") {
            return Err(wrong("it must begin with http:// or https://".to_owned()));
        }
        swarm_log::tls::choose();
        let client = Client::builder()
            .user_agent(concat!("swarm/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .redirect(redirect::Policy::none())
            .no_proxy()
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        Ok(Self {
            url: parsed,
            client,
            secret: None,
            callbacks,
            path: format!("/v1/swarms/{swarm}/agents/{agent}/callbacks/"),
            gateway: None,
        })
    }

    /// Signs each request with this secret: `whsec_` and base64 of 24 to 64 bytes.
    ///
    /// # Errors
    /// In words, without the secret.
    pub fn secret(mut self, text: &str) -> Result<Self, WebhookError> {
        let secret =
            Secret::read(text).map_err(|why| WebhookError(format!("the secret: {why}")))?;
        self.secret = Some(secret);
        Ok(self)
    }

    /// Also says where the gateway is (`callback.url`).
    #[must_use]
    pub fn gateway(mut self, url: impl Into<String>) -> Self {
        self.gateway = Some(url.into().trim_end_matches('/').to_owned());
        self
    }

    async fn call(&self, id: &str, body: &[u8]) -> Result<Answered, TaskError> {
        let seconds = Utc::now().timestamp();
        let mut request = self
            .client
            .post(self.url.clone())
            .header(header::CONTENT_TYPE, "application/json")
            .header("webhook-id", id)
            .header("webhook-timestamp", seconds)
            .body(body.to_vec());
        if let Some(secret) = &self.secret {
            request = request.header("webhook-signature", secret.sign(id, seconds, body));
        }
        let response = request.send().await.map_err(|error| self.unheard(error))?;
        self.answered(response).await
    }

    /// The connection failed, in all its causes' words.
    fn unheard(&self, error: reqwest::Error) -> TaskError {
        let error = TaskError::from(error.without_url());
        TaskError::retryable(format!(
            "{} does not answer: {}",
            self.name(),
            error.message
        ))
    }

    /// The address without what it may hold of credentials.
    fn name(&self) -> String {
        let mut url = self.url.clone();
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_query(None);
        url.to_string()
    }

    async fn answered(&self, response: Response) -> Result<Answered, TaskError> {
        let status = response.status();
        match status {
            StatusCode::OK => {
                let bytes = self.whole(response, ANSWER_BYTES_MAX).await?.ok_or_else(|| {
                    TaskError::permanent(format!(
                        "{} answered with more than {ANSWER_BYTES_MAX} bytes: store large results elsewhere and answer with a reference",
                        self.name()
                    ))
                })?;
                let text = String::from_utf8_lossy(&bytes);
                Json::parse(&text).map(Answered::Result).map_err(|error| {
                    TaskError::permanent(format!(
                        "{} answered 200 without JSON: {error}",
                        self.name()
                    ))
                })
            }
            StatusCode::ACCEPTED => Ok(Answered::Later),
            _ => {
                let wait = retry_after(&response);
                let location = response.headers().get(header::LOCATION).cloned();
                let said = self.start_of(response).await;
                let mut message = format!("{} answered {status}{said}", self.name());
                let busy = matches!(
                    status,
                    StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
                );
                if let (true, Some(wait)) = (busy, wait) {
                    return Ok(Answered::Again(wait, message));
                }
                if status.is_redirection() {
                    let to = location
                        .as_ref()
                        .and_then(|to| to.to_str().ok())
                        .unwrap_or("nowhere");
                    message.push_str(&format!(
                        " (to {to}): redirects are not followed, name the address itself"
                    ));
                } else if status.is_success() {
                    message.push_str(
                        ": 200 with the result, or 202 and a callback, is what is understood",
                    );
                }
                let again = busy
                    || status.is_server_error()
                    || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY);
                Err(if again {
                    TaskError::retryable(message)
                } else {
                    TaskError::permanent(message)
                })
            }
        }
    }

    /// The body, `None` if it has more than `most` bytes. Reading stops there.
    async fn whole(&self, response: Response, most: usize) -> Result<Option<Vec<u8>>, TaskError> {
        if response
            .content_length()
            .is_some_and(|length| length > most as u64)
        {
            return Ok(None);
        }
        let mut bytes = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(chunk) = chunks.next().await {
            let chunk = chunk.map_err(|error| self.unheard(error))?;
            if bytes.len() + chunk.len() > most {
                return Ok(None);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(Some(bytes))
    }

    /// The first of what was said with an error.
    async fn start_of(&self, response: Response) -> String {
        let mut bytes = Vec::new();
        let mut chunks = response.bytes_stream();
        while let Some(Ok(chunk)) = chunks.next().await {
            bytes.extend_from_slice(&chunk);
            if bytes.len() >= SHOWN_BYTES {
                bytes.truncate(SHOWN_BYTES);
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes);
        match text.trim() {
            "" => String::new(),
            text => format!(": {text}"),
        }
    }

    /// Calls, again if the receiver wants it so, until there is a result or one is to come.
    async fn until_answered(
        &self,
        id: &str,
        body: &[u8],
        task: &TaskContext,
    ) -> Result<Option<Json>, TaskError> {
        let mut resent = 0;
        loop {
            let (wait, message) = match self.call(id, body).await? {
                Answered::Result(result) => return Ok(Some(result)),
                Answered::Later => return Ok(None),
                Answered::Again(wait, message) => (wait, message),
            };
            resent += 1;
            if wait > RETRY_AFTER_MAX || wait >= task.time_left() || resent > RESENT_MAX {
                let seconds = wait.as_secs();
                return Err(TaskError::retryable(format!(
                    "{message} (Retry-After: {seconds} s)"
                )));
            }
            sleep(wait).await;
        }
    }
}

/// Until when the receiver wants to be left alone, from now: in seconds or as a date.
fn retry_after(response: &Response) -> Option<Duration> {
    let text = response.headers().get(header::RETRY_AFTER)?.to_str().ok()?;
    read_retry_after(text, Utc::now())
}

fn read_retry_after(text: &str, now: DateTime<Utc>) -> Option<Duration> {
    let text = text.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    // One in the past: now.
    Some(
        (until.with_timezone(&Utc) - now)
            .to_std()
            .unwrap_or_default(),
    )
}

/// Until the first end that is called back; progress is passed on.
async fn until_called(awaited: &mut Awaited, task: &TaskContext) -> Result<Json, TaskError> {
    loop {
        match awaited.next().await {
            Called::Result(result) => return Ok(result),
            Called::Error {
                error,
                retryable: true,
            } => return Err(TaskError::retryable(error)),
            Called::Error { error, .. } => return Err(TaskError::permanent(error)),
            Called::Declined(reason) => return Err(TaskError::decline(reason)),
            Called::Progress { percent, message } => task.progress(percent, message.as_deref()),
        }
    }
}

#[async_trait]
impl Handler for WebhookAdapter {
    async fn handle(&self, task: TaskContext) -> Result<Json, TaskError> {
        let mut awaited = self.callbacks.open(task.fencing_token);
        let path = format!("{}{}", self.path, task.fencing_token);
        let token = awaited.token.clone();
        let body = serde_json::to_vec(&Body {
            r#type: "task.assigned",
            timestamp: Utc::now().into(),
            id: task.id,
            task_type: &task.task_type,
            payload: &task.payload,
            inputs: &task.inputs,
            attempt: task.attempt,
            fencing_token: task.fencing_token,
            deadline: task.deadline,
            callback: Callback {
                url: self.gateway.as_ref().map(|url| format!("{url}{path}")),
                path: &path,
                token: &token,
            },
        })?;
        // The same for each sending of the attempt: by it the receiver knows a repeat.
        let id = format!("task_{}_{}", task.id.0, task.fencing_token);
        let work = async {
            let mut called = std::pin::pin!(until_called(&mut awaited, &task));
            tokio::select! {
                // What was called back while the request was under way counts, whatever that is answered with.
                biased;
                ended = &mut called => ended,
                answered = self.until_answered(&id, &body, &task) => match answered? {
                    Some(result) => Ok(result),
                    None => called.await,
                }
            }
        };
        tokio::select! {
            ended = work => ended,
            () = task.cancelled.cancelled() => Err(TaskError::retryable("cancelled")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-11-06T08:49:37Z")
            .expect("a time")
            .with_timezone(&Utc);
        for (text, seconds) in [
            ("0", Some(0)),
            (" 120 ", Some(120)),
            ("Fri, 06 Nov 2026 08:50:07 GMT", Some(30)),
            ("Fri, 06 Nov 2026 08:00:00 GMT", Some(0)),
            ("-1", None),
            ("soon", None),
        ] {
            assert_eq!(
                read_retry_after(text, now),
                seconds.map(Duration::from_secs),
                "{text}"
            );
        }
    }
}
