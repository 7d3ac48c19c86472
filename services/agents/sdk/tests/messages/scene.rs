//! What tests of talking agents share: seats by hand, agents that tell what they hear, and messages past the checks.

use std::time::Duration;

use serde_json::{Value, json};
use swarm_agent_sdk::{AgentBuilder, AgentHandle, ReceivedMessage, Role};
use swarm_events::{
    Body, Event, Timestamp,
    configuration::{Configuration, MessagePolicy, TopologyKind},
    envelope::Source,
    ids::{AgentId, EventId},
    message::{Purpose, Sent},
    subject::{AgentVerb, Recipient, Sender, Service, Subject, SwarmVerb},
    swarm::Created,
    topology::{LeaderElected, Seat, Seated, Topology},
};
use swarm_log::definitions::MESSAGES_STREAM;
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

use crate::support::{Running, Swarm};

/// Nothing here takes this long unless it hangs.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    let waited = timeout(PATIENCE, wanted).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// What the coordinator writes of a topology, by hand.
pub struct Seats(u64);
impl Seats {
    pub async fn of(swarm: &Swarm, topology: Topology, messages: MessagePolicy) -> Self {
        let created = Created {
            name: "talk".to_owned(),
            description: None,
            topology,
            configuration: Configuration {
                messages,
                ..Configuration::default()
            },
            partition: swarm.place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(swarm.place, SwarmVerb::Created);
        let about = swarm.place.swarm.0;
        let created = swarm.decision(Service::Coordinator, subject, about, None, created);
        swarm.append(created).await;
        Self(0)
    }
    pub async fn star(swarm: &Swarm) -> Self {
        let star = Topology::of(TopologyKind::Star);
        Self::of(swarm, star, MessagePolicy::default()).await
    }
    pub async fn seat(&mut self, swarm: &Swarm, agent: AgentId, role: Role) {
        self.0 += 1;
        let seat = Seat {
            role,
            level: u32::from(role == Role::Worker),
            place: self.0,
            works: true,
            ..Seat::default()
        };
        self.write(swarm, agent, Some(seat)).await;
    }
    pub async fn write(&self, swarm: &Swarm, agent: AgentId, seat: Option<Seat>) {
        let seated = serde_json::from_value::<Seated>(json!({
            "generation": 1, "seat": seat, "reason": "by hand"
        }))
        .expect("a seat");
        let subject = Subject::Agent(swarm.place, AgentVerb::Seated, agent);
        swarm
            .append(swarm.decision(Service::Coordinator, subject, agent.0, None, seated))
            .await;
    }
    pub async fn lead(&self, swarm: &Swarm, agent: AgentId) {
        let elected = LeaderElected {
            leader: Some(agent),
            incarnation: 1,
            before: None,
            reason: "by hand".to_owned(),
            eligible: 1,
        };
        let subject = Subject::Swarm(swarm.place, SwarmVerb::LeaderElected);
        let about = swarm.place.swarm.0;
        swarm
            .append(swarm.decision(Service::Coordinator, subject, about, None, elected))
            .await;
    }
}

/// Another agent of the swarm than the one of `support`.
pub fn other(swarm: &Swarm, name: &str) -> (AgentBuilder, AgentId) {
    let id = AgentId(Uuid::now_v7());
    (swarm.builder().id(id).name(name), id)
}

pub trait Talks {
    /// Runs an agent that has joined; what it speaks with.
    async fn talks(&mut self, builder: AgentBuilder) -> (Running, AgentHandle);
}
impl Talks for Swarm {
    async fn talks(&mut self, builder: AgentBuilder) -> (Running, AgentHandle) {
        let (builder, handle) = builder.with_handle();
        let running = self.joined(builder).await;
        (running, handle)
    }
}

/// A handler that tells what came.
pub fn ear(said: &mpsc::UnboundedSender<ReceivedMessage>, builder: AgentBuilder) -> AgentBuilder {
    let said = said.clone();
    builder.on_message(move |message| {
        let said = said.clone();
        async move {
            said.send(message)?;
            Ok(())
        }
    })
}

/// How many messages the stream holds.
pub async fn stored(swarm: &Swarm) -> u64 {
    let stream = swarm.log.context().get_stream(MESSAGES_STREAM).await;
    stream.expect("there").cached_info().state.messages
}

/// A message as some process with rights writes it, past the SDK's checks.
pub async fn forge(swarm: &Swarm, from: Sender, to: Recipient, mut sent: Sent) -> Uuid {
    let (id, subject) = (Uuid::now_v7(), Subject::Message(swarm.place, from, to));
    let (source, about) = match from {
        Sender::Agent(agent) => (Source::Agent(agent), agent.0),
        _ => (Source::Client("test".to_owned()), swarm.place.swarm.0),
    };
    sent.incarnation = 1;
    let time = Timestamp::from_micros(1);
    let event = Event::new(EventId(id), source, time, &subject, about, sent);
    let payload = event.to_json().expect("JSON").into();
    let context = swarm.log.context();
    let ack = context.publish(subject.to_string(), payload).await;
    ack.expect("sent").await.expect("stored");
    id
}
pub fn said(body: Value) -> Sent {
    Sent {
        incarnation: 0,
        purpose: Purpose::Tell,
        topic: None,
        receipt: None,
        expires_ms: None,
        abroad: None,
        body: body.into(),
    }
}

/// The purpose of the first receipt of `id` in the stream.
pub async fn receipt_of(swarm: &Swarm, id: Uuid) -> Purpose {
    loop {
        for sent in all_sent(swarm).await {
            if matches!(&sent.purpose, Purpose::Receipt { of, .. } if *of == id) {
                return sent.purpose;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// All messages of the stream.
pub async fn all_sent(swarm: &Swarm) -> Vec<Sent> {
    let stream = swarm.log.context().get_stream(MESSAGES_STREAM).await;
    let stream = stream.expect("there");
    let state = &stream.cached_info().state;
    let mut all = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("there");
        let time = Timestamp::from_micros(1);
        let subject = message.subject.to_string();
        match swarm_events::read(sequence, time, &subject, &message.payload) {
            swarm_events::Input::Event(recorded) => match recorded.event.body {
                Body::MessageSent(sent) => all.push(sent),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    all
}
