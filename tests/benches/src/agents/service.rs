//! A service that takes its time: what latency-bound tasks call.

use std::{net::SocketAddr, time::Duration};

use axum::{Json, Router, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

/// The service; it ends when dropped.
pub struct Service {
    pub address: SocketAddr,
    task: JoinHandle<()>,
}

impl Drop for Service {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Service {
    /// Answers every POST after `latency`.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(latency: Duration) -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let answer = move |Json(_): Json<Value>| async move {
            // The latency is what is asked for here, not something that is waited for.
            sleep(latency).await;
            Json(json!({"ok": true}))
        };
        let router = Router::new().route("/", post(answer));
        let task = tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                eprintln!("the local service ended: {error}");
            }
        });
        Ok(Self { address, task })
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address)
    }
}
