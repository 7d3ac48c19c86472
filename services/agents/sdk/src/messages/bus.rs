//! Messages on a swarm's bus.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use async_nats::{HeaderMap, jetstream::context::PublishErrorKind};
use async_trait::async_trait;
use swarm_events::{
    Event, Problem, Timestamp,
    envelope::Source,
    ids::{AgentId, EventId},
    message::{Abroad, Purpose, Sent},
    subject::{Place, Recipient, Sender, Subject, topic_key},
    topology::{Routing, Topology},
};
use swarm_log::definitions::MESSAGES_STREAM;
use swarm_topology::MissingEdge;
use tokio::{
    sync::{Mutex, OnceCell, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    Carrier, Outgoing, SendError, To,
    desk::{Desk, OnMessages},
    listen::Listener,
    rate::Rate,
    shape::Follow,
};
use crate::{
    link::Link,
    wire::{Identity, wall_clock},
};

/// How long a message is tried to be stored, always under the same id: well within the time for which the stream knows ids.
const SEND_WAIT: Duration = Duration::from_secs(45);
/// No answer for this long: it is sent again.
const ACK_WAIT: Duration = Duration::from_secs(5);
/// Pause before it is.
const SEND_PAUSE: Duration = Duration::from_millis(200);
/// How long the end of an incarnation waits until it is kept up to where messages are handled.
const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// An incarnation of an agent on the bus.
pub(crate) struct Bus {
    pub(super) link: Link,
    pub(super) me: Identity,
    incarnation: u64,
    pub(super) desk: Arc<Desk>,
    pub(crate) shape: Arc<Follow>,
    /// Last sequence of the stream before the agent joined, where it listens from the beginning.
    pub(super) since: Option<u64>,
    rate: Mutex<Rate>,
    began: Instant,
    listening: OnceCell<()>,
    pub(crate) closed: CancellationToken,
    /// Told once what was handled is kept.
    pub(super) kept: watch::Sender<bool>,
    itself: Weak<Bus>,
}

/// The last sequence of the stream of messages; 0 if there is none.
pub(crate) async fn last_sequence(link: &Link) -> Option<u64> {
    let stream = link.log().context().get_stream(MESSAGES_STREAM).await;
    let stream = stream
        .inspect_err(|error| tracing::warn!(%error, "the stream of messages cannot be read"))
        .ok()?;
    Some(stream.cached_info().state.last_sequence)
}

impl Bus {
    pub(crate) fn new(
        link: &Link,
        me: Identity,
        incarnation: u64,
        handlers: OnMessages,
        since: Option<u64>,
    ) -> Arc<Self> {
        let closed = CancellationToken::new();
        Arc::new_cyclic(|itself| Self {
            link: link.clone(),
            me,
            incarnation,
            desk: Desk::new(handlers),
            shape: Follow::new(link.clone(), me.place, closed.clone()),
            since,
            rate: Mutex::default(),
            began: Instant::now(),
            listening: OnceCell::new(),
            closed,
            kept: watch::channel(true).0,
            itself: itself.clone(),
        })
    }

    pub(super) fn place(&self) -> Place {
        self.me.place
    }

    /// Ends it: nothing more is handled, and up to where it was is kept.
    pub(crate) async fn close(&self) {
        self.closed.cancel();
        let mut kept = self.kept.subscribe();
        let waited = timeout(CLOSE_WAIT, kept.wait_for(|kept| *kept)).await;
        if waited.is_err() {
            tracing::warn!(agent.id = %self.me.agent, "up to where messages were handled could not be kept: some may come again");
        }
    }

    /// To whom it goes, and whether it may.
    async fn address(&self, out: &Outgoing) -> Result<(Recipient, Option<Abroad>), SendError> {
        if let To::Swarm(swarm_id, agent_id) = out.to {
            let abroad = Abroad { swarm_id, agent_id };
            return Ok((Recipient::Abroad, Some(abroad)));
        }
        if out.to == To::People {
            return Ok((Recipient::People, None));
        }
        if !out.counts() {
            // What answers a message goes back the way that it came.
            return match out.to {
                To::Agent(agent) => Ok((Recipient::Agent(agent), None)),
                _ => Err(unknown(
                    &out.to,
                    "an answer goes to whoever said what it answers",
                )),
            };
        }
        self.shape
            .ready()
            .await
            .map_err(|error| SendError::Unreachable(error.to_string()))?;
        let recipient = match &out.to {
            To::Agent(agent) => self.direct(*agent, &out.to).await?,
            To::Name(name) => {
                let found = self.shape.named(name).await;
                let found = found.map_err(|error| SendError::Unreachable(error.to_string()))?;
                let agent = found
                    .ok_or_else(|| unknown(&out.to, "no agent of this name is in the swarm"))?;
                self.direct(agent, &out.to).await?
            }
            To::Leader => {
                let leader = self.shape.with(|shape| shape.leader());
                let leader =
                    leader.ok_or_else(|| unknown(&out.to, "nobody leads the swarm now"))?;
                self.direct(leader, &out.to).await?;
                Recipient::Leader
            }
            To::Role(role) => {
                let role = *role;
                self.many(&out.to, |shape, me| {
                    let mut of = shape.seats().filter(|(_, seat)| seat.role == role);
                    of.any(|(id, _)| shape.may_message(me, id).is_ok())
                })
                .await?;
                Recipient::Role(role)
            }
            To::All => {
                let targeted = self.shape.with(|shape| {
                    matches!(shape.topology(), Topology::Mesh(mesh) if mesh.routing == Routing::Targeted)
                });
                if targeted {
                    let problem = Problem::new(
                        "targeted-only",
                        "in a mesh with targeted routing nothing goes to all",
                    )
                    .field("to")
                    .cure("name an agent, a role or a topic, or set the topology's routing to broadcast");
                    return Err(SendError::Refused(problem));
                }
                self.many(&out.to, |shape, me| shape.neighbours(me).next().is_some())
                    .await?;
                Recipient::All
            }
            // Whether somebody listens is not known here.
            To::Topic(topic) => {
                self.many(&out.to, |shape, me| shape.seat(me).is_some())
                    .await?;
                Recipient::Topic(topic_key(topic))
            }
            To::People | To::Swarm(..) => return Err(unknown(&out.to, "it is no agent")),
        };
        Ok((recipient, None))
    }

    async fn direct(&self, to: AgentId, as_given: &To) -> Result<Recipient, SendError> {
        let me = self.me.agent;
        match self.shape.allows(me, to).await {
            Ok(()) => Ok(Recipient::Agent(to)),
            Err(_) if to != me && self.shape.with(|shape| shape.seat(to).is_none()) => {
                Err(unknown(as_given, "the swarm's topology has no seat for it"))
            }
            Err(missing) => Err(SendError::NoEdge(missing)),
        }
    }

    /// Whether there is anybody of those that are meant, by the log if not by what is known here.
    async fn many(
        &self,
        to: &To,
        is_there: impl Fn(&swarm_topology::Shape, AgentId) -> bool,
    ) -> Result<(), SendError> {
        let me = self.me.agent;
        let asked = Instant::now();
        if self.shape.with(|shape| is_there(shape, me)) {
            return Ok(());
        }
        if let Err(error) = self.shape.refresh(asked).await {
            return Err(SendError::Unreachable(error.to_string()));
        }
        if self.shape.with(|shape| is_there(shape, me)) {
            return Ok(());
        }
        Err(unknown(to, "this agent has an edge to nobody of them"))
    }

    /// Waits until one more may be sent.
    async fn pace(&self) {
        tokio::select! {
            () = self.desk.limits() => {}
            () = self.closed.cancelled() => return,
        }
        // Whoever waits holds the lock: they go in the order in which they came.
        let mut rate = self.rate.lock().await;
        loop {
            let now = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            match rate.take(now, self.desk.per_second_max()) {
                Ok(()) => return,
                Err(wait) => sleep(Duration::from_millis(wait)).await,
            }
        }
    }

    /// Publishes under one id until its fate is known. Many at once share the writes of the connection.
    async fn store(
        &self,
        subject: String,
        id: EventId,
        payload: Vec<u8>,
    ) -> Result<u64, SendError> {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Msg-Id", id.to_string());
        let payload = bytes::Bytes::from(payload);
        let until = Instant::now() + SEND_WAIT;
        loop {
            let cause = if self.link.connection().is_connected() {
                let published = async {
                    let context = self.link.log().context();
                    let ack = context
                        .publish_with_headers(subject.clone(), headers.clone(), payload.clone())
                        .await?;
                    ack.await
                };
                match timeout(ACK_WAIT, published).await {
                    Ok(Ok(ack)) => return Ok(ack.sequence),
                    Ok(Err(error)) if error.kind() == PublishErrorKind::MaxPayloadExceeded => {
                        let bytes = payload.len();
                        return Err(SendError::TooLarge { bytes });
                    }
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => "no answer".to_owned(),
                }
            } else {
                "not connected".to_owned()
            };
            if Instant::now() + SEND_PAUSE > until {
                return Err(SendError::Unreachable(format!("{subject}: {cause}")));
            }
            tracing::debug!(cause, "a message is sent again");
            sleep(SEND_PAUSE).await;
        }
    }
}

fn unknown(to: &To, why: &'static str) -> SendError {
    let to = to.to_string();
    SendError::UnknownRecipient { to, why }
}

#[async_trait]
impl Carrier for Bus {
    async fn send(&self, out: Outgoing) -> Result<u64, SendError> {
        out.check()?;
        if self.closed.is_cancelled() {
            let why = "this incarnation of the agent has ended";
            return Err(SendError::Unreachable(why.to_owned()));
        }
        let (recipient, abroad) = self.address(&out).await?;
        if out.counts() {
            self.pace().await;
        }
        let me = self.me.agent;
        let subject = Subject::Message(self.place(), Sender::Agent(me), recipient);
        let topic = out.topic.or(match out.to {
            To::Topic(topic) => Some(topic),
            _ => None,
        });
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let sent = Sent {
            incarnation: self.incarnation,
            purpose: out.purpose,
            topic,
            receipt: out.receipt,
            expires_ms: out.expires.map(millis),
            abroad,
            body: out.body,
        };
        let answers = matches!(sent.purpose, Purpose::Receipt { .. });
        let id = EventId(out.id);
        let source = Source::Agent(me);
        let mut event = Event::new(id, source, wall_clock(), &subject, me.0, sent);
        event.correlation = out.trace.correlation;
        event.causation = out.trace.causation;
        event.traceparent = out.trace.traceparent;
        let payload = event
            .to_json()
            .map_err(|error| SendError::NoJson(error.to_string()))?;
        let sequence = self.store(subject.to_string(), id, payload).await?;
        if !answers {
            self.desk.count_sent();
        }
        Ok(sequence)
    }

    async fn listen(&self) -> Result<(), SendError> {
        let unreachable = |error: String| SendError::Unreachable(error);
        self.listening
            .get_or_try_init(|| async {
                self.shape
                    .ready()
                    .await
                    .map_err(|error| unreachable(error.to_string()))?;
                let itself = self.itself.upgrade().ok_or(SendError::NoSwarm)?;
                let listener = Listener::open(itself).await.map_err(unreachable)?;
                tokio::spawn(listener.run());
                Ok(())
            })
            .await
            .copied()
    }

    async fn allows(&self, from: AgentId) -> Result<(), MissingEdge> {
        self.shape.allows(from, self.me.agent).await
    }

    fn now(&self) -> Timestamp {
        wall_clock()
    }

    fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}
