//! The gateway, as the command line sees it.

mod conditional;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
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

pub use conditional::{Condition, segment, with_query};

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

/// What a gateway answered, whatever it was.
pub struct Answer {
    /// HTTP status.
    pub status: StatusCode,
    /// When to try again, if it says so.
    pub retry_after: Option<Duration>,
    /// The body, as text.
    pub text: String,
}

impl Answer {
    /// A refusal in the gateway's own words.
    pub fn refusal(&self) -> Failure {
        problem(self.status, &self.text)
    }
}

/// A client of the gateways, of which any will do.
#[derive(Clone)]
pub struct Api {
    http: reqwest::Client,
    bases: Arc<[String]>,
    /// The one that answered last.
    current: Arc<AtomicUsize>,
    key: String,
    /// The highest stream sequence that one of its writes has reached.
    written: Arc<AtomicU64>,
}

impl Api {
    /// A client of the gateways that `target` names.
    pub fn new(target: &Target) -> Outcome<Self> {
        if target.api_urls.is_empty() {
            return Err(target.missing("gateway", "--api-url", "SWARM_API_URL"));
        }
        let bases = target
            .api_urls
            .iter()
            .map(|url| url.trim_end_matches('/').to_owned())
            .collect();
        let key = target
            .api_key
            .clone()
            .ok_or_else(|| target.missing("API key", "--api-key", "SWARM_API_KEY"))?;
        swarm_log::tls::choose();
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .build()
            .map_err(|error| Failure::failed(format!("no HTTP client: {error}")))?;
        Ok(Self {
            http,
            bases,
            current: Arc::default(),
            key,
            written: Arc::default(),
        })
    }

    /// Where the gateway is that answered last.
    pub fn base(&self) -> &str {
        &self.bases[self.current.load(Ordering::Relaxed) % self.bases.len()]
    }

    /// `GET path`, as JSON.
    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Outcome<Value> {
        self.send(Method::GET, path, |request| request.query(query))
            .await
    }
    /// `POST path` with a JSON body.
    pub async fn post(
        &self,
        path: &str,
        body: &Value,
        idempotency_key: Option<&str>,
    ) -> Outcome<Value> {
        self.send(Method::POST, path, |request| {
            let request = request.json(body);
            match idempotency_key {
                Some(key) => request.header("Idempotency-Key", key),
                None => request,
            }
        })
        .await
    }
    /// `POST path` with a body of JSON text, for callers that judge the answer themselves. A repeat under the same key is the
    /// same request, so another gateway is asked if one does not answer.
    ///
    /// # Errors
    /// Only if no gateway answers.
    pub async fn post_text(
        &self,
        path: &str,
        body: bytes::Bytes,
        idempotency_key: &str,
    ) -> Outcome<Answer> {
        let (sequence, answer) = self
            .at_any(true, |base| {
                let request = self
                    .http
                    .request(Method::POST, format!("{base}{path}"))
                    .bearer_auth(&self.key)
                    .timeout(REQUEST_TIMEOUT)
                    .header(header::CONTENT_TYPE, "application/json")
                    .header("Idempotency-Key", idempotency_key)
                    .body(body.clone());
                async move {
                    let response = request.send().await?;
                    let number = |name| {
                        let value: Option<&header::HeaderValue> = response.headers().get(name);
                        value?.to_str().ok()?.parse::<u64>().ok()
                    };
                    let sequence = number(SEQUENCE_HEADER);
                    let retry_after = number("retry-after").map(Duration::from_secs);
                    let status = response.status();
                    let text = response.text().await?;
                    Ok((
                        sequence,
                        Answer {
                            status,
                            retry_after,
                            text,
                        },
                    ))
                }
            })
            .await?;
        if let Some(sequence) = sequence {
            self.written.fetch_max(sequence, Ordering::Relaxed);
        }
        Ok(answer)
    }
    /// `PUT path` with a JSON body.
    pub async fn put(&self, path: &str, body: &Value) -> Outcome<Value> {
        self.send(Method::PUT, path, |request| request.json(body))
            .await
    }
    /// `DELETE path`.
    pub async fn delete(&self, path: &str) -> Outcome<Value> {
        self.send(Method::DELETE, path, |request| request).await
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
            let most = PAGE.min(limit - items.len());
            let (more, next) = self.page(path, query, most, cursor.take()).await?;
            items.extend(more);
            if next.is_none() {
                break;
            }
            cursor = next;
        }
        Ok(items)
    }

    /// One page of a list, of at most `most` items, and where the next one begins.
    pub async fn page(
        &self,
        path: &str,
        query: &[(&str, String)],
        most: usize,
        cursor: Option<String>,
    ) -> Outcome<(Vec<Value>, Option<String>)> {
        let mut query = query.to_vec();
        query.push(("limit", most.to_string()));
        if let Some(cursor) = cursor {
            query.push(("cursor", cursor));
        }
        let mut page = self.get(path, &query).await?;
        let items = match page.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => items,
            _ => Vec::new(),
        };
        let next = page.get("next_cursor").and_then(Value::as_str);
        Ok((items, next.map(str::to_owned)))
    }

    /// Opens a stream of server-sent events.
    pub async fn stream(
        &self,
        path: &str,
        last_event_id: Option<u64>,
    ) -> Outcome<reqwest::Response> {
        let response = self
            .at_any(true, |base| {
                let mut request = self
                    .http
                    .request(Method::GET, format!("{base}{path}"))
                    .bearer_auth(&self.key)
                    .header(header::ACCEPT, "text/event-stream");
                if let Some(id) = last_event_id {
                    request = request.header("Last-Event-ID", id.to_string());
                }
                request.send()
            })
            .await?;
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

    async fn send(
        &self,
        method: Method,
        path: &str,
        with: impl Fn(reqwest::RequestBuilder) -> reqwest::RequestBuilder,
    ) -> Outcome<Value> {
        let (status, sequence, text) = self
            .at_any(method == Method::GET, |base| {
                let request = self
                    .http
                    .request(method.clone(), format!("{base}{path}"))
                    .bearer_auth(&self.key)
                    .timeout(REQUEST_TIMEOUT);
                let request = with(request);
                async move {
                    let response = request.send().await?;
                    let sequence = response
                        .headers()
                        .get(SEQUENCE_HEADER)
                        .and_then(|value| value.to_str().ok()?.parse().ok());
                    Ok((response.status(), sequence, response.text().await?))
                }
            })
            .await?;
        if let Some(sequence) = sequence {
            self.written.fetch_max(sequence, Ordering::Relaxed);
        }
        if !status.is_success() {
            return Err(problem(status, &text));
        }
        if text.is_empty() {
            return Ok(Value::Null);
        }
        serde_json::from_str(&text).map_err(|error| {
            Failure::failed(format!(
                "{} answered with something else than JSON: {error}",
                self.base()
            ))
        })
    }

    /// Asks the gateway that answered last, then the others. A request that may have arrived is sent again only if it is
    /// `safe`.
    async fn at_any<T, F: Future<Output = reqwest::Result<T>>>(
        &self,
        safe: bool,
        ask: impl Fn(&str) -> F,
    ) -> Outcome<T> {
        let first = self.current.load(Ordering::Relaxed);
        let mut step = 0;
        loop {
            let index = (first + step) % self.bases.len();
            let error = match ask(&self.bases[index]).await {
                Ok(answer) => {
                    self.current.store(index, Ordering::Relaxed);
                    return Ok(answer);
                }
                Err(error) => error,
            };
            step += 1;
            // One that does not answer in time has had its time; the caller's patience is over too.
            let elsewhere = error.is_connect() || (safe && !error.is_timeout());
            if !elsewhere || step == self.bases.len() {
                return Err(self.unreachable(&self.bases[index], &error));
            }
        }
    }

    fn unreachable(&self, base: &str, error: &reqwest::Error) -> Failure {
        if error.is_timeout() {
            return Failure::timeout(format!("{base} did not answer in time"));
        }
        let mut causes = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(next) = cause {
            causes = next.to_string();
            cause = next.source();
        }
        let gateway = match self.bases.len() {
            1 => format!("the gateway at {base}"),
            bases => format!("any of {bases} gateways, the last at {base}"),
        };
        Failure::failed(format!(
            "cannot reach {gateway}: {causes}. Does it run? `swarm status` tells, `swarm up` starts it"
        ))
    }
}

/// A refusal inside another answer: a problem document with its own status.
pub fn refusal(document: &Value) -> Failure {
    let status = document["status"].as_u64().and_then(|status| {
        let status = u16::try_from(status).ok()?;
        StatusCode::from_u16(status).ok()
    });
    problem(
        status.unwrap_or(StatusCode::CONFLICT),
        &document.to_string(),
    )
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

    /// A gateway that answers every request with its name and counts them.
    async fn gateway(name: &'static str) -> (String, Arc<AtomicUsize>) {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                let mut request = [0u8; 4096];
                let _ = stream.read(&mut request).await;
                // One that is called `broken` takes the request and says nothing.
                if name != "broken" {
                    let body = format!("{{\"name\":\"{name}\"}}");
                    let head = format!(
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    let _ = stream.write_all((head + &body).as_bytes()).await;
                }
            }
        });
        (url, asked)
    }

    fn api(urls: &[&str]) -> Api {
        Api::new(&Target {
            api_urls: urls.iter().map(|url| (*url).to_owned()).collect(),
            api_key: Some("k".to_owned()),
            ..Target::default()
        })
        .expect("made")
    }

    /// An address where nobody listens.
    fn nobody() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        format!("http://{}", listener.local_addr().expect("bound"))
    }

    #[tokio::test]
    async fn given_a_gateway_that_refuses_the_connection_then_the_next_one_is_asked_and_stays() {
        let (url, asked) = gateway("second").await;
        let api = api(&[&nobody(), &url]);
        let posted = api.post("/x", &Value::Null, None).await.expect("answered");
        assert_eq!(posted["name"], "second");
        assert_eq!(api.base(), url);
        api.get("/x", &[]).await.expect("answered");
        assert_eq!(asked.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn given_a_request_that_may_have_arrived_then_only_a_read_is_sent_elsewhere() {
        let (broken, taken) = gateway("broken").await;
        let (url, asked) = gateway("second").await;
        let writes = api(&[&broken, &url]);
        assert!(writes.post("/x", &Value::Null, None).await.is_err());
        assert_eq!(
            asked.load(Ordering::SeqCst),
            0,
            "a write might be done twice"
        );
        assert!(taken.load(Ordering::SeqCst) > 0);
        let read = api(&[&broken, &url])
            .get("/x", &[])
            .await
            .expect("answered");
        assert_eq!(read["name"], "second");
    }

    #[tokio::test]
    async fn given_no_gateway_then_the_message_counts_them() {
        let failure = api(&[&nobody(), &nobody()])
            .get("/x", &[])
            .await
            .expect_err("nobody");
        assert!(failure.message.contains("any of 2 gateways"), "{failure}");
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
