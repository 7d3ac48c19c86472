//! Agents that speak, played by the test.

use async_nats::jetstream::{self, message::PublishMessage};
use serde_json::{Value, json};
use swarm_events::{
    AgentId, Event, EventId, InstanceId, Place, Subject,
    envelope::Source,
    message::{Abroad, Ask, Purpose, Sent},
    subject::{CommandVerb, Recipient, Sender},
};
use swarm_gateway::app::App;
use uuid::Uuid;

use super::Stage;

/// What tells something, and nothing else.
pub fn told(body: Value) -> Sent {
    Sent {
        incarnation: 1,
        purpose: Purpose::Tell,
        topic: None,
        receipt: None,
        expires_ms: None,
        abroad: None,
        body: body.into(),
    }
}

/// What goes to another swarm.
pub fn abroad(to: Place, agent: Option<AgentId>, body: Value) -> Sent {
    Sent {
        abroad: Some(Abroad {
            swarm_id: to.swarm,
            agent_id: agent,
        }),
        ..told(body)
    }
}

impl Stage {
    /// JetStream, as whoever may do everything.
    pub fn jetstream(&self) -> jetstream::Context {
        jetstream::new(self.log.client().clone())
    }

    /// An agent of the swarm.
    pub async fn agent(&self, place: Place, name: &str) -> AgentId {
        let agent = AgentId(Uuid::now_v7());
        self.join(place, agent, InstanceId(Uuid::now_v7()), name)
            .await;
        agent
    }

    /// Says something as that agent: its id and its sequence.
    pub async fn say(
        &self,
        place: Place,
        agent: AgentId,
        to: Recipient,
        sent: Sent,
    ) -> (Uuid, u64) {
        let id = Uuid::now_v7();
        let subject = Subject::Message(place, Sender::Agent(agent), to);
        let mut event = Event::new(
            EventId(id),
            Source::Agent(agent),
            App::now(),
            &subject,
            agent.0,
            sent,
        );
        event.correlation = Some(Uuid::from_u128(77));
        event.traceparent = Some(TRACE.to_owned());
        let payload = event.to_json().expect("JSON");
        let sequence = self
            .say_raw(&subject.to_string(), &id.to_string(), payload)
            .await;
        (id, sequence)
    }

    /// Stores a message.
    pub async fn say_raw(&self, subject: &str, message_id: &str, payload: Vec<u8>) -> u64 {
        let message = PublishMessage::build()
            .message_id(message_id)
            .payload(payload.into());
        let sent = self
            .jetstream()
            .send_publish(subject.to_owned(), message)
            .await;
        sent.expect("sent").await.expect("stored").sequence
    }

    /// Asks as that agent: the question's id, once it is open.
    pub async fn ask(&self, place: Place, agent: AgentId, ask: Ask) -> Uuid {
        let id = Uuid::now_v7();
        let subject = Subject::Command(place, CommandVerb::Ask);
        let event = Event::new(
            EventId(id),
            Source::Client("/test".to_owned()),
            App::now(),
            &subject,
            agent.0,
            ask,
        );
        self.publish_raw(&subject.to_string(), &event.to_json().expect("JSON"))
            .await;
        let question = swarm_events::CommandId(id);
        self.eventually(|app| {
            let fold = app.fold.read();
            let swarm = fold.swarm(place.org, place.swarm);
            swarm.is_some_and(|swarm| swarm.question(question).is_some())
        })
        .await;
        id
    }

    /// The messages of a swarm, once there are as many that `wanted` takes.
    pub async fn messages(
        &self,
        place: Place,
        many: usize,
        wanted: impl Fn(&Value) -> bool,
    ) -> Vec<Value> {
        let path = format!("/v1/swarms/{}/messages?limit=1000", place.swarm);
        let look = async {
            let mut again = tokio::time::interval(std::time::Duration::from_millis(10));
            loop {
                let came = self.admin.get(&path).await;
                assert_eq!(came.status, 200, "{}", came.body);
                let all = came.body["items"].as_array().expect("items").clone();
                let found: Vec<Value> = all.into_iter().filter(|item| wanted(item)).collect();
                if found.len() >= many {
                    return found;
                }
                again.tick().await;
            }
        };
        tokio::time::timeout(super::PATIENCE, look)
            .await
            .unwrap_or_else(|_| panic!("{many} messages in time"))
    }
}

/// A question about nothing in particular.
pub fn question(text: &str) -> Ask {
    let ask = json!({"incarnation": 1, "question": text, "timeout_ms": 600_000});
    serde_json::from_value(ask).expect("a question")
}

/// The trace of all that is said here.
pub const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
