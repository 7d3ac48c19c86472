//! A swarm's events, by SSE, as a stock client reads them.

use std::time::Duration;

use futures::StreamExt;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::Installation;

/// An open stream of events.
pub struct Events {
    response: futures::stream::BoxStream<'static, reqwest::Result<bytes::Bytes>>,
    text: String,
}

impl Events {
    /// Follows a swarm from the beginning.
    pub async fn of(installation: &Installation, swarm: &str) -> Self {
        let url = format!("{}/v1/swarms/{swarm}/events", installation.field("api_url"));
        let response = reqwest::Client::new()
            .get(url)
            .bearer_auth(installation.field("api_key"))
            .header("Last-Event-ID", "0")
            .send()
            .await
            .expect("answers");
        assert_eq!(response.status().as_u16(), 200);
        Self {
            response: response.bytes_stream().boxed(),
            text: String::new(),
        }
    }

    /// The next event: its id and its data.
    pub async fn next(&mut self, deadline: Instant) -> (u64, Value) {
        self.next_by(deadline).await.expect("an event in time")
    }

    /// The same; `None` if none comes in time.
    pub async fn next_by(&mut self, deadline: Instant) -> Option<(u64, Value)> {
        loop {
            while let Some((block, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    block
                        .lines()
                        .find_map(|line| line.strip_prefix(name))
                        .map(str::trim_start)
                };
                let found = field("data:").map(|data| {
                    let id = field("id:")
                        .and_then(|id| id.parse().ok())
                        .expect("an event has its sequence");
                    (id, serde_json::from_str(data).expect("JSON"))
                });
                self.text = rest.to_owned();
                if found.is_some() {
                    return found;
                }
            }
            let chunk = timeout_at(deadline, self.response.next()).await.ok()?;
            let chunk = chunk.expect("the stream goes on").expect("readable");
            self.text
                .push_str(std::str::from_utf8(&chunk).expect("UTF-8"));
        }
    }

    /// Reads until `count` tasks have completed, and answers with their ids in that order.
    pub async fn until_completed(&mut self, count: usize, patience: Duration) -> Vec<String> {
        let deadline = Instant::now() + patience;
        let mut completed = Vec::new();
        let mut last = 0;
        while completed.len() < count {
            let (id, event) = self.next(deadline).await;
            assert!(id > last, "sequences rise: {id} after {last}");
            last = id;
            if event["type"] == "swarm.task.completed.v1" {
                completed.push(event["subject"].as_str().expect("a task").to_owned());
            }
        }
        completed
    }
}
