//! Messages and the blackboard as tests play them: the same checks, limits and order, in one process.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures::{StreamExt, stream::BoxStream};
use swarm_events::{
    Body, Json, Problem, Timestamp,
    ids::AgentId,
    message::Sent,
    subject::{Recipient, Sender, topic_key},
    topology::{Routing, Topology},
};
use swarm_topology::{Member, Members, MissingEdge, Shape};
use tokio::{
    sync::{Mutex as AsyncMutex, broadcast, mpsc},
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{questions::Hearer, world::wall};
use crate::{
    answer::{OnQuestion, Standing},
    blackboard::{Board, BoardChange, BoardError, Entry},
    messages::{
        Carrier, Outgoing, SendError, To,
        desk::{Desk, Dispatch, Incoming, OnMessages},
        rate::Rate,
    },
};

/// Changes of a blackboard that a watch may be behind by.
const CHANGES_MAX: usize = 1_024;

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent under test, as far as it talks.
pub(super) struct Voiced {
    pub(super) name: String,
    pub(super) agent_type: String,
    pub(super) capabilities: Vec<String>,
    pub(super) handlers: OnMessages,
    pub(super) questions: Option<OnQuestion>,
}

/// The id of an agent under test, by its number.
pub(super) fn id(number: usize) -> AgentId {
    AgentId(Uuid::from_u128(number as u128 + 1))
}

/// All agents of a test's swarm.
struct Room {
    began: Instant,
    shape: Shape,
    names: BTreeMap<String, AgentId>,
    sequence: AtomicU64,
    speakers: Mutex<BTreeMap<AgentId, Weak<Speaker>>>,
}

struct Speaker {
    me: AgentId,
    room: Arc<Room>,
    desk: Arc<Desk>,
    rate: AsyncMutex<Rate>,
    ear: mpsc::UnboundedSender<Incoming>,
}

/// What each agent speaks with, and how it hears questions, in their order.
pub(super) fn speakers(
    agents: Vec<Voiced>,
    topology: Topology,
    began: Instant,
    over: &CancellationToken,
) -> (Vec<Arc<dyn Carrier>>, Vec<Hearer>) {
    let members: Members = agents
        .iter()
        .enumerate()
        .map(|(number, agent)| Member {
            id: id(number),
            name: agent.name.clone(),
            agent_type: agent.agent_type.clone(),
            capabilities: agent.capabilities.clone(),
            arrived: number as u64,
            healthy: true,
        })
        .collect();
    let mut shape = Shape::new(topology);
    for change in shape.changes(&members) {
        let seated = Body::AgentSeated(change.seated(1));
        if let Err(why) = shape.apply(Some(change.agent), &seated) {
            tracing::warn!(agent.id = %change.agent, why, "an agent under test has no seat");
        }
    }
    if let Some(election) = shape.elect(&members) {
        let elected = swarm_events::topology::LeaderElected {
            leader: election.leader,
            incarnation: 1,
            before: None,
            reason: election.reason,
            eligible: election.eligible,
        };
        if let Err(why) = shape.apply(None, &Body::SwarmLeaderElected(elected)) {
            tracing::warn!(why, "nobody leads the agents under test");
        }
    }
    let names = agents.iter().enumerate();
    let names = names.map(|(number, agent)| (agent.name.clone(), id(number)));
    let room = Arc::new(Room {
        began,
        shape,
        names: names.collect(),
        sequence: AtomicU64::new(0),
        speakers: Mutex::default(),
    });
    let made = agents.into_iter().enumerate().map(|(number, agent)| {
        let (ear, mut heard) = mpsc::unbounded_channel();
        let speaker = Arc::new(Speaker {
            me: id(number),
            room: room.clone(),
            desk: Desk::new(agent.handlers),
            rate: AsyncMutex::default(),
            ear,
        });
        lock(&room.speakers).insert(id(number), Arc::downgrade(&speaker));
        let weak = Arc::downgrade(&speaker);
        let silence = over.clone();
        tokio::spawn(async move {
            let mut dispatch: Option<Dispatch> = None;
            loop {
                let ended = async {
                    match &mut dispatch {
                        Some(dispatch) => dispatch.ended().await,
                        None => std::future::pending().await,
                    }
                };
                let incoming: Option<Incoming> = tokio::select! {
                    incoming = heard.recv() => match incoming {
                        Some(incoming) => Some(incoming),
                        None => return,
                    },
                    _ = ended => None,
                    // What is being handled is dropped with it.
                    () = silence.cancelled() => return,
                };
                let Some(speaker) = weak.upgrade() else {
                    return;
                };
                let dispatch = dispatch.get_or_insert_with(|| Dispatch::new(speaker.clone()));
                if let Some(incoming) = incoming
                    && !speaker.desk.take_answer(&incoming)
                {
                    let (from, sequence, noted) =
                        (incoming.from, incoming.sequence, incoming.clone());
                    dispatch.inbox.resize(usize::MAX);
                    if dispatch
                        .inbox
                        .offer(&from, sequence, incoming, &mut Vec::new())
                    {
                        dispatch.admitted(&noted);
                    }
                }
                dispatch.start();
            }
        });
        let carrier: Arc<dyn Carrier> = speaker;
        let standing = Standing {
            leads: room.shape.leader() == Some(id(number)),
            role: room.shape.role(id(number)),
        };
        let hearer = Hearer::new(standing, agent.questions, carrier.clone(), over);
        (carrier, hearer)
    });
    made.unzip()
}

fn unknown(to: &To, why: &'static str) -> SendError {
    let to = to.to_string();
    SendError::UnknownRecipient { to, why }
}

impl Speaker {
    fn direct(&self, to: AgentId, as_given: &To) -> Result<Recipient, SendError> {
        if to != self.me && self.room.shape.seat(to).is_none() {
            return Err(unknown(as_given, "the swarm's topology has no seat for it"));
        }
        self.room.shape.may_message(self.me, to)?;
        Ok(Recipient::Agent(to))
    }

    fn address(&self, out: &Outgoing) -> Result<Recipient, SendError> {
        let shape = &self.room.shape;
        if let (false, To::Agent(agent)) = (out.counts(), &out.to) {
            return Ok(Recipient::Agent(*agent));
        }
        match &out.to {
            To::Agent(agent) => self.direct(*agent, &out.to),
            To::Name(name) => match self.room.names.get(name) {
                Some(agent) => self.direct(*agent, &out.to),
                None => Err(unknown(&out.to, "no agent of this name is in the swarm")),
            },
            To::Leader => match shape.leader() {
                Some(leader) => self.direct(leader, &out.to).map(|_| Recipient::Leader),
                None => Err(unknown(&out.to, "nobody leads the swarm now")),
            },
            To::Role(role) => Ok(Recipient::Role(*role)),
            To::All => match shape.topology() {
                Topology::Mesh(mesh) if mesh.routing == Routing::Targeted => {
                    let text = "in a mesh with targeted routing nothing goes to all";
                    let problem = Problem::new("targeted-only", text).field("to");
                    Err(SendError::Refused(problem))
                }
                _ => Ok(Recipient::All),
            },
            To::Topic(topic) => Ok(Recipient::Topic(topic_key(topic))),
            To::People => Ok(Recipient::People),
            To::Swarm(..) => Ok(Recipient::Abroad),
        }
    }
}

#[async_trait]
impl Carrier for Speaker {
    async fn send(&self, out: Outgoing) -> Result<u64, SendError> {
        out.check()?;
        let to = self.address(&out)?;
        if out.counts() {
            let mut rate = self.rate.lock().await;
            let now = || u64::try_from(self.room.began.elapsed().as_millis()).unwrap_or(u64::MAX);
            while let Err(wait) = rate.take(now(), self.desk.per_second_max()) {
                sleep(Duration::from_millis(wait)).await;
            }
        }
        let topic = out.topic.or(match out.to {
            To::Topic(topic) => Some(topic),
            _ => None,
        });
        let millis = |after: Duration| u64::try_from(after.as_millis()).unwrap_or(u64::MAX);
        let incoming = Incoming {
            id: out.id,
            sequence: self.room.sequence.fetch_add(1, Ordering::Relaxed) + 1,
            time: self.now(),
            from: Sender::Agent(self.me),
            to,
            sent: Sent {
                incarnation: 1,
                purpose: out.purpose,
                topic,
                receipt: out.receipt,
                expires_ms: out.expires.map(millis),
                abroad: None,
                body: out.body,
            },
            correlation: out.trace.correlation,
            traceparent: out.trace.traceparent,
        };
        self.desk.count_sent();
        let sequence = incoming.sequence;
        let others: Vec<Arc<Self>> = lock(&self.room.speakers)
            .values()
            .filter_map(Weak::upgrade)
            .filter(|other| other.me != self.me)
            .collect();
        let shape = &self.room.shape;
        for other in others {
            let meant = match to {
                Recipient::Agent(agent) => agent == other.me,
                Recipient::All => true,
                Recipient::Role(role) => shape.role(other.me) == Some(role),
                Recipient::Leader => shape.leader() == Some(other.me),
                Recipient::Topic(key) => other.desk.heeds(key),
                Recipient::People | Recipient::Abroad => false,
            };
            if meant {
                let _ = other.ear.send(incoming.clone()); // its swarm may be over
            }
        }
        Ok(sequence)
    }

    async fn listen(&self) -> Result<(), SendError> {
        Ok(())
    }

    async fn allows(&self, from: AgentId) -> Result<(), MissingEdge> {
        self.room.shape.may_message(from, self.me)
    }

    fn now(&self) -> Timestamp {
        wall(self.room.began)
    }

    fn desk(&self) -> &Arc<Desk> {
        &self.desk
    }
}

/// A blackboard in memory.
pub(super) struct TestBoard {
    values: Mutex<(u64, BTreeMap<String, Entry>)>,
    changes: broadcast::Sender<BoardChange>,
}
impl Default for TestBoard {
    fn default() -> Self {
        Self {
            values: Mutex::default(),
            changes: broadcast::channel(CHANGES_MAX).0,
        }
    }
}

#[async_trait]
impl Board for TestBoard {
    async fn get(&self, key: &str) -> Result<Option<Entry>, BoardError> {
        Ok(lock(&self.values).1.get(key).cloned())
    }

    async fn put(&self, key: &str, value: Json, revision: Option<u64>) -> Result<u64, BoardError> {
        let mut values = lock(&self.values);
        let there = values.1.get(key).map_or(0, |entry| entry.revision);
        let key = key.to_owned();
        match revision {
            Some(0) if there != 0 => return Err(BoardError::Exists { key }),
            Some(revision) if revision != there => {
                return Err(BoardError::Changed { key, revision });
            }
            _ => {}
        }
        values.0 += 1;
        let entry = Entry {
            key: key.clone(),
            value,
            revision: values.0,
        };
        values.1.insert(key, entry.clone());
        let _ = self.changes.send(BoardChange::Put(entry)); // nobody need watch
        Ok(values.0)
    }

    async fn delete(&self, key: &str, revision: Option<u64>) -> Result<(), BoardError> {
        let mut values = lock(&self.values);
        let there = values.1.get(key).map_or(0, |entry| entry.revision);
        let key = key.to_owned();
        if let Some(revision) = revision.filter(|revision| *revision != there) {
            return Err(BoardError::Changed { key, revision });
        }
        values.0 += 1;
        values.1.remove(&key);
        let revision = values.0;
        let _ = self.changes.send(BoardChange::Deleted { key, revision });
        Ok(())
    }

    async fn keys(&self, prefix: &str) -> Result<Vec<String>, BoardError> {
        let values = lock(&self.values);
        let keys = values.1.keys().filter(|key| key.starts_with(prefix));
        Ok(keys.cloned().collect())
    }

    async fn watch(
        &self,
        prefix: &str,
    ) -> Result<BoxStream<'static, Result<BoardChange, BoardError>>, BoardError> {
        let values = lock(&self.values);
        let changes = self.changes.subscribe();
        let prefix = prefix.to_owned();
        let all = values.1.values();
        let now: Vec<_> = all
            .filter(|entry| entry.key.starts_with(&prefix))
            .map(|entry| Ok(BoardChange::Put(entry.clone())))
            .collect();
        let later = futures::stream::unfold(changes, |mut changes| async move {
            let next = match changes.recv().await {
                Ok(change) => Ok(change),
                Err(broadcast::error::RecvError::Closed) => return None,
                Err(error) => Err(BoardError::Unreachable(error.to_string())),
            };
            Some((next, changes))
        });
        let later = later.filter(move |change| {
            let key = match change {
                Ok(BoardChange::Put(entry)) => &entry.key,
                Ok(BoardChange::Deleted { key, .. }) => key,
                Err(_) => return std::future::ready(true),
            };
            std::future::ready(key.starts_with(&prefix))
        });
        Ok(futures::stream::iter(now).chain(later).boxed())
    }
}
