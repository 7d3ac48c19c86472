//! The way in for those who publish to the bus themselves, with a stock client.

use async_nats::jetstream;
use serde_json::{Value, json};
use uuid::Uuid;

use super::Installation;

/// Where direct publishers hand in tasks for a swarm.
pub struct Door {
    context: jetstream::Context,
    subject: String,
    org: String,
    swarm: String,
}

impl Door {
    /// The swarm's.
    pub async fn of(installation: &Installation, swarm: &str) -> Self {
        let shown = installation.get(&format!("/v1/swarms/{swarm}")).await;
        let creds = installation.field("nats_creds");
        let client = async_nats::ConnectOptions::with_credentials_file(creds)
            .await
            .expect("credentials")
            .connect(installation.field("nats_url"))
            .await
            .expect("connected");
        Self {
            context: jetstream::new(client),
            subject: shown["events_subject"]
                .as_str()
                .expect("where to publish")
                .to_owned(),
            org: installation.field("org_id").to_owned(),
            swarm: swarm.to_owned(),
        }
    }

    /// Hands in a task, which is stored when this is over.
    pub async fn publish(&self, task: &str, data: Value) {
        let event = json!({
            "specversion": "1.0", "id": Uuid::now_v7(), "source": "/test/plain-client",
            "type": "swarm.task.submitted.v1", "subject": task, "datacontenttype": "application/json",
            "org": self.org, "swarm": self.swarm, "data": data,
        });
        let sent = self
            .context
            .publish(self.subject.clone(), event.to_string().into())
            .await;
        sent.expect("sent").await.expect("stored");
    }
}
