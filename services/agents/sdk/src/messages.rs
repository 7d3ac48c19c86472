//! What agents say to each other and to people.
//!
//! A message goes along an edge of the swarm's topology, or to people, or to another swarm. It is stored before
//! [`Messages::tell`] comes back, and read by whom it is meant for, also after a restart: at least once, each sender's in
//! order. What is known of it later are receipts, and each says what it proves ([`Stage`]).

mod bus;
pub(crate) mod cursor;
pub(crate) mod desk;
pub(crate) mod inbox;
mod listen;
pub(crate) mod rate;
mod shape;

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use serde::Serialize;
use swarm_events::{
    Json, Problem, Timestamp,
    ids::{AgentId, EventId, SwarmId},
    message::{Abroad, MESSAGE_BYTES_MAX, Purpose, Stage, TOPIC_BYTES_MAX},
    subject::{Recipient, Sender},
    topology::Role,
};
use swarm_topology::MissingEdge;
use tokio::{sync::mpsc, time::timeout};
use uuid::Uuid;

pub(crate) use bus::{Bus, last_sequence};
use desk::{Answer, Answers, Desk};

/// Messages of a subscription that wait for its owner. Beyond it they wait at the agent, and then in the stream.
pub const SUBSCRIPTION_MAX: usize = 256;

/// To whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// An agent of the swarm.
    Agent(AgentId),
    /// The agent of this name.
    Name(String),
    /// Every agent to which there is an edge and which has this role.
    Role(Role),
    /// The swarm's leader, if there is an edge to it.
    Leader,
    /// Every agent to which there is an edge.
    All,
    /// Whoever looks at the swarm.
    People,
    /// Those who have subscribed to the topic, and to whom there is an edge.
    Topic(String),
    /// Another swarm of the organization: an agent there, or its leader.
    Swarm(SwarmId, Option<AgentId>),
}
impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Agent(id) => id.fmt(f),
            Self::Name(name) => f.write_str(name),
            Self::Role(role) => f.write_str(role.as_str()),
            Self::Leader => f.write_str("leader"),
            Self::All => f.write_str("all"),
            Self::People => f.write_str("people"),
            Self::Topic(topic) => write!(f, "topic {topic}"),
            Self::Swarm(swarm, _) => write!(f, "swarm {swarm}"),
        }
    }
}
/// An id, `leader`, `all`, `people` or a role's word; else a name.
impl From<&str> for To {
    fn from(text: &str) -> Self {
        if let Ok(id) = text.parse() {
            return Self::Agent(id);
        }
        match text {
            "leader" => Self::Leader,
            "all" => Self::All,
            "people" => Self::People,
            "worker" => Self::Role(Role::Worker),
            "supervisor" => Self::Role(Role::Supervisor),
            "coordinator" => Self::Role(Role::Coordinator),
            name => Self::Name(name.to_owned()),
        }
    }
}
impl From<AgentId> for To {
    fn from(id: AgentId) -> Self {
        Self::Agent(id)
    }
}
impl From<Role> for To {
    fn from(role: Role) -> Self {
        Self::Role(role)
    }
}

/// Who said it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Speaker {
    /// An agent of the swarm.
    Agent(AgentId),
    /// A person, by API, CLI or dashboard.
    People,
    /// Another swarm of the organization: an agent of it, if it was one.
    Swarm(SwarmId, Option<AgentId>),
}

/// Why a message was not sent. What is not sent is not stored, unless it says that nobody knows.
#[derive(Clone, Debug, thiserror::Error)]
pub enum SendError {
    /// The topology has no such edge.
    #[error("{0}")]
    NoEdge(#[from] MissingEdge),
    /// The topology does not let it through, for another reason.
    #[error("{0}")]
    Refused(Problem),
    /// Nobody of this name, id or role is in the swarm.
    #[error("{to} is unknown: {why}")]
    UnknownRecipient {
        /// As it was given.
        to: String,
        /// What there is not.
        why: &'static str,
    },
    /// The body is too large.
    #[error(
        "body: the message has {bytes} bytes, more than the limit of {MESSAGE_BYTES_MAX}: put it on the blackboard or in a store, and send its key"
    )]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The topic's name is empty or too long.
    #[error("topic: its name has {bytes} bytes, it takes 1 to {TOPIC_BYTES_MAX}")]
    Topic {
        /// Its size.
        bytes: usize,
    },
    /// The body is no JSON.
    #[error("body: {0}")]
    NoJson(String),
    /// The bus does not answer: the message may or may not be stored.
    #[error("the message may not have been stored: {0}")]
    Unreachable(String),
    /// There is no swarm here.
    #[error("there is no swarm here to talk to")]
    NoSwarm,
}

/// Why a request has no reply.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RequestError {
    /// It was not sent.
    #[error(transparent)]
    Send(#[from] SendError),
    /// Nobody replied in time.
    #[error("nobody replied within {} ms", .0.as_millis())]
    TimedOut(Duration),
    /// The recipient did not take it.
    #[error("the recipient refused it: {0}")]
    Refused(String),
    /// The recipient's handler failed.
    #[error("the recipient failed: {0}")]
    Failed(String),
    /// The recipient's handler came to its end without a reply.
    #[error("the recipient handled it and did not reply")]
    NoReply,
}

/// What a recipient says became of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who says so.
    pub from: Speaker,
    /// What it proves.
    pub stage: Stage,
    /// In words, where it was not taken or failed.
    pub detail: Option<String>,
}

/// What follows from what: passed on from a task or a message to what is said because of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {
    pub(crate) correlation: Option<Uuid>,
    pub(crate) causation: Option<Uuid>,
    pub(crate) traceparent: Option<String>,
}

/// A message that is to be sent.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    pub(crate) id: Uuid,
    pub(crate) to: To,
    pub(crate) purpose: Purpose,
    pub(crate) topic: Option<String>,
    pub(crate) receipt: Option<Stage>,
    pub(crate) expires: Option<Duration>,
    pub(crate) body: Json,
    pub(crate) trace: Trace,
}

impl Outgoing {
    pub(crate) fn check(&self) -> Result<(), SendError> {
        let bytes = self.body.len();
        if bytes > MESSAGE_BYTES_MAX {
            return Err(SendError::TooLarge { bytes });
        }
        let topic = match (&self.topic, &self.to) {
            (Some(topic), _) | (None, To::Topic(topic)) => topic,
            (None, _) => return Ok(()),
        };
        match topic.len() {
            1..=TOPIC_BYTES_MAX => Ok(()),
            bytes => Err(SendError::Topic { bytes }),
        }
    }
    /// Whether it counts against the limit of messages in a second. Receipts and replies do not: each answers one that did.
    pub(crate) fn counts(&self) -> bool {
        matches!(self.purpose, Purpose::Tell | Purpose::Request)
    }
}

/// What brings messages: a swarm's bus, or a test.
#[async_trait]
pub(crate) trait Carrier: Send + Sync + 'static {
    /// Checks the edge, waits for the limit, and stores it. The sequence that it got.
    async fn send(&self, out: Outgoing) -> Result<u64, SendError>;
    /// Sees to it that what comes from now on is met.
    async fn listen(&self) -> Result<(), SendError>;
    /// Whether an agent may speak to this one.
    async fn allows(&self, from: AgentId) -> Result<(), MissingEdge>;
    /// The wall clock.
    fn now(&self) -> Timestamp;
    fn desk(&self) -> &Arc<Desk>;
}

/// What an agent says. Clones speak for the same agent.
#[derive(Clone)]
pub struct Messages {
    pub(crate) carrier: Option<Arc<dyn Carrier>>,
    pub(crate) trace: Trace,
}
impl fmt::Debug for Messages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Messages").finish_non_exhaustive()
    }
}

impl Messages {
    fn carrier(&self) -> Result<&Arc<dyn Carrier>, SendError> {
        self.carrier.as_ref().ok_or(SendError::NoSwarm)
    }

    /// A message to `to`, with options.
    pub fn message(&self, to: impl Into<To>) -> Draft {
        Draft {
            messages: self.clone(),
            to: to.into(),
            topic: None,
            receipt: None,
            expires: None,
        }
    }

    /// Says something. It is stored when this comes back; whether anybody reads it, only a receipt says
    /// ([`Draft::receipt`]). Waits if the agent has sent as many messages in a second as the swarm allows.
    ///
    /// # Errors
    /// The topology has no edge to the recipient, there is none, or the body is too large: then nothing is stored.
    pub async fn tell(
        &self,
        to: impl Into<To>,
        body: impl Serialize,
    ) -> Result<SentMessage, SendError> {
        self.message(to).send(body).await
    }

    /// Says something to every agent to which there is an edge.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub async fn broadcast(&self, body: impl Serialize) -> Result<SentMessage, SendError> {
        self.tell(To::All, body).await
    }

    /// Says something to those who have subscribed to `topic`, and to whom there is an edge.
    ///
    /// # Errors
    /// As [`Self::tell`].
    pub async fn publish(
        &self,
        topic: impl Into<String>,
        body: impl Serialize,
    ) -> Result<SentMessage, SendError> {
        self.tell(To::Topic(topic.into()), body).await
    }

    /// Asks something and waits for the reply, `wait` at the most; after that nobody is to handle it any more.
    ///
    /// # Errors
    /// It was not sent; nobody replied in time; the recipient refused it, or failed.
    pub async fn request(
        &self,
        to: impl Into<To>,
        body: impl Serialize,
        wait: Duration,
    ) -> Result<Json, RequestError> {
        let mut draft = self.message(to);
        draft.expires = Some(wait);
        let asked = async {
            let sent = draft.store(Purpose::Request, body, true).await?;
            let Some(mut answers) = sent.answers else {
                return Err(RequestError::Send(SendError::NoSwarm));
            };
            loop {
                match answers.next().await {
                    Answer::Reply(body) => return Ok(body),
                    Answer::Receipt(receipt) => {
                        let detail = receipt.detail.unwrap_or_default();
                        match receipt.stage {
                            Stage::Refused => return Err(RequestError::Refused(detail)),
                            Stage::Failed => return Err(RequestError::Failed(detail)),
                            Stage::Handled => return Err(RequestError::NoReply),
                            Stage::Delivered => {}
                        }
                    }
                }
            }
        };
        match timeout(wait, asked).await {
            Ok(answer) => answer,
            Err(_) => Err(RequestError::TimedOut(wait)),
        }
    }

    /// What is said on `topic` from now on, by those who have an edge to this agent, for as long as the subscription is held.
    /// [`crate::AgentBuilder::on_topic`] also brings what was said while the agent was away.
    ///
    /// # Errors
    /// The bus does not answer, or the name is empty or too long.
    pub async fn subscribe(&self, topic: impl Into<String>) -> Result<Subscription, SendError> {
        let (carrier, topic) = (self.carrier()?, topic.into());
        if topic.is_empty() || topic.len() > TOPIC_BYTES_MAX {
            let bytes = topic.len();
            return Err(SendError::Topic { bytes });
        }
        let (sender, messages) = mpsc::channel(SUBSCRIPTION_MAX);
        carrier.desk().subscribe(topic, sender);
        carrier.listen().await?;
        Ok(Subscription(messages))
    }

    /// The same messages, as part of the same trace as what they follow from.
    pub(crate) fn following(carrier: Arc<dyn Carrier>, trace: Trace) -> Self {
        Self {
            carrier: Some(carrier),
            trace,
        }
    }
}

/// What is said on a topic.
pub struct Subscription(mpsc::Receiver<ReceivedMessage>);
impl Subscription {
    /// The next message; `None` once the agent has ended.
    pub async fn next(&mut self) -> Option<ReceivedMessage> {
        self.0.recv().await
    }
}

/// A message before it is sent.
#[derive(Clone, Debug)]
#[must_use = "a draft does nothing until it is sent"]
pub struct Draft {
    messages: Messages,
    to: To,
    topic: Option<String>,
    receipt: Option<Stage>,
    expires: Option<Duration>,
}

impl Draft {
    /// Its topic: what it is about. The recipient's handler of that topic gets it, if there is one.
    pub fn topic(mut self, topic: impl Into<String>) -> Self {
        self.topic = Some(topic.into());
        self
    }
    /// Asks for a receipt: [`Stage::Delivered`], or [`Stage::Handled`]. See [`SentMessage::receipt`].
    pub fn receipt(mut self, stage: Stage) -> Self {
        self.receipt = Some(stage);
        self
    }
    /// After so long nobody is to handle it any more.
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }
    /// Sends it.
    ///
    /// # Errors
    /// As [`Messages::tell`].
    pub async fn send(self, body: impl Serialize) -> Result<SentMessage, SendError> {
        let awaited = self.receipt.is_some();
        self.store(Purpose::Tell, body, awaited).await
    }

    async fn store(
        self,
        purpose: Purpose,
        body: impl Serialize,
        awaited: bool,
    ) -> Result<SentMessage, SendError> {
        let body = Json::from_value(&body).map_err(|error| SendError::NoJson(error.to_string()))?;
        let carrier = self.messages.carrier()?.clone();
        let out = Outgoing {
            id: Uuid::now_v7(),
            to: self.to,
            purpose,
            topic: self.topic,
            receipt: self.receipt,
            expires: self.expires,
            body,
            trace: self.messages.trace,
        };
        out.check()?;
        let id = EventId(out.id);
        let mut answers = None;
        if awaited {
            carrier.listen().await?;
            let by = match out.to {
                To::Agent(agent) => Some(agent),
                _ => None,
            };
            answers = Some(carrier.desk().await_answers(out.id, by));
        }
        let sequence = carrier.send(out).await?;
        Ok(SentMessage {
            id,
            sequence,
            answers,
        })
    }
}

/// A message that is stored.
#[derive(Debug)]
pub struct SentMessage {
    /// Its id.
    pub id: EventId,
    /// Its place in the stream of messages.
    pub sequence: u64,
    answers: Option<Answers>,
}

impl SentMessage {
    /// The next receipt, if one was asked for and comes within `wait`: one of each recipient. [`Stage::Delivered`] proves that a
    /// process of the recipient has read the message, and nothing more; [`Stage::Handled`] and [`Stage::Failed`] that its
    /// handler came to its end; [`Stage::Refused`] that it will not be handled. None proves that it was not handled.
    pub async fn receipt(&mut self, wait: Duration) -> Option<Receipt> {
        let answers = self.answers.as_mut()?;
        let next = async {
            loop {
                if let Answer::Receipt(receipt) = answers.next().await {
                    return receipt;
                }
            }
        };
        timeout(wait, next).await.ok()
    }
}

/// A message that came.
#[derive(Clone)]
pub struct ReceivedMessage {
    /// Its id. The same one can come twice, after a restart above all.
    pub id: EventId,
    /// Who said it.
    pub from: Speaker,
    /// To whom, as it was addressed.
    pub to: Recipient,
    /// What it is about.
    pub topic: Option<String>,
    /// What it says.
    pub body: Json,
    /// Its place in the stream of messages.
    pub sequence: u64,
    /// When it was stored.
    pub stored_at: Timestamp,
    /// Whether a reply is expected.
    pub wants_reply: bool,
    pub(crate) carrier: Arc<dyn Carrier>,
    pub(crate) replied: Arc<std::sync::atomic::AtomicBool>,
    pub(crate) trace: Trace,
}
impl fmt::Debug for ReceivedMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReceivedMessage")
            .field("id", &self.id)
            .field("from", &self.from)
            .field("to", &self.to)
            .field("topic", &self.topic)
            .field("body", &self.body)
            .finish_non_exhaustive()
    }
}

impl ReceivedMessage {
    /// Answers it. Replies go back along an edge, whatever the topology says of the way back.
    ///
    /// # Errors
    /// As [`Messages::tell`].
    pub async fn reply(&self, body: impl Serialize) -> Result<(), SendError> {
        let body = Json::from_value(&body).map_err(|error| SendError::NoJson(error.to_string()))?;
        let out = Outgoing {
            id: Uuid::now_v7(),
            to: self.from.into(),
            purpose: Purpose::Reply { to: self.id.0 },
            topic: None,
            receipt: None,
            expires: None,
            body,
            trace: self.trace.clone(),
        };
        out.check()?;
        self.carrier.send(out).await?;
        self.replied
            .store(true, std::sync::atomic::Ordering::Relaxed);
        Ok(())
    }

    /// What is said because of it, as part of its trace.
    pub fn messages(&self) -> Messages {
        Messages::following(self.carrier.clone(), self.trace.clone())
    }
}

impl From<Speaker> for To {
    fn from(speaker: Speaker) -> Self {
        match speaker {
            Speaker::Agent(agent) => Self::Agent(agent),
            Speaker::People => Self::People,
            Speaker::Swarm(swarm, agent) => Self::Swarm(swarm, agent),
        }
    }
}

/// Who a message is from, by its subject and, from abroad, its body.
pub(crate) fn speaker(sender: Sender, abroad: Option<Abroad>) -> Option<Speaker> {
    Some(match sender {
        Sender::Agent(agent) => Speaker::Agent(agent),
        Sender::People => Speaker::People,
        Sender::Abroad => {
            let other = abroad?;
            Speaker::Swarm(other.swarm_id, other.agent_id)
        }
    })
}
