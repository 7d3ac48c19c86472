//! The swarm's topology as an agent follows it: read once, when it first talks, and then by what is republished.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::SelectAll};
use swarm_events::{
    Body, Input, Recorded,
    ids::AgentId,
    subject::{AgentVerb, Place, Subject, filter},
};
use swarm_log::{LogError, Tailed};
use swarm_topology::{MissingEdge, Shape};
use tokio::{
    sync::{Mutex as AsyncMutex, OnceCell},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{link::Link, live};

/// An edge that is missing is looked for in the log once more before a message is refused, since hints may be late or lost;
/// so often at the most, so that somebody who keeps trying does not keep the log busy.
const REFRESH_PAUSE: Duration = Duration::from_millis(200);
/// How long a name is taken to mean the same agent.
const NAME_HELD: Duration = Duration::from_secs(10);
/// Most names that are remembered.
const NAMES_MAX: usize = 10_000;

struct Known {
    shape: Shape,
    /// Sequence of the last event that it holds.
    at: u64,
    /// What came while it is being read anew.
    meanwhile: Option<Vec<Recorded>>,
}

pub(super) struct Follow {
    link: Link,
    place: Place,
    known: Mutex<Known>,
    followed: OnceCell<()>,
    /// When the log was read last.
    refreshed: AsyncMutex<Option<Instant>>,
    names: Mutex<BTreeMap<String, (AgentId, Instant)>>,
    closed: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn apply(&mut self, recorded: &Recorded) {
        if recorded.sequence <= self.at {
            return;
        }
        self.at = recorded.sequence;
        let about = match recorded.subject {
            Subject::Agent(_, _, agent) => Some(agent),
            _ => None,
        };
        if let Err(why) = self.shape.apply(about, &recorded.event.body) {
            tracing::debug!(sequence = recorded.sequence, why, "void");
        }
    }
}

impl Follow {
    pub(super) fn new(link: Link, place: Place, closed: CancellationToken) -> Arc<Self> {
        let known = Known {
            shape: Shape::follower(),
            at: 0,
            meanwhile: None,
        };
        Arc::new(Self {
            link,
            place,
            known: Mutex::new(known),
            followed: OnceCell::new(),
            refreshed: AsyncMutex::new(None),
            names: Mutex::default(),
            closed,
        })
    }

    /// What follows from the shape as it is known.
    pub(super) fn with<T>(&self, look: impl FnOnce(&Shape) -> T) -> T {
        look(&lock(&self.known).shape)
    }

    /// Reads the shape, unless that was done, and follows it from then on.
    pub(super) async fn ready(self: &Arc<Self>) -> Result<(), LogError> {
        self.followed
            .get_or_try_init(|| async {
                let mut doubts = self.link.doubts();
                doubts.mark_unchanged();
                let mut live = SelectAll::new();
                for subject in filter::shape(self.place, true) {
                    let subscribed = self.link.client().subscribe(subject).await;
                    live.push(subscribed.map_err(|e| LogError::Unreachable(e.to_string()))?);
                }
                self.refresh(Instant::now()).await?;
                let follow = self.clone();
                tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            Some(message) = live.next() => follow.hear(&message),
                            Ok(()) = doubts.changed() => {
                                if let Err(error) = follow.refresh(Instant::now()).await {
                                    tracing::warn!(%error, "the topology cannot be read now: it is when an edge is missing");
                                }
                            }
                            () = follow.closed.cancelled() => return,
                        }
                    }
                });
                Ok(())
            })
            .await
            .copied()
    }

    fn hear(&self, message: &async_nats::Message) {
        let Some((stored, _)) = live::republished(message) else {
            return;
        };
        if let Input::Event(recorded) = live::read(&stored) {
            let mut known = lock(&self.known);
            known.apply(&recorded);
            if let Some(meanwhile) = &mut known.meanwhile {
                meanwhile.push(recorded);
            }
        }
    }

    /// Reads the last events that the shape follows from, unless somebody has begun to since `asked`.
    pub(super) async fn refresh(&self, asked: Instant) -> Result<(), LogError> {
        let mut refreshed = self.refreshed.lock().await;
        if let Some(last) = *refreshed {
            if last > asked {
                return Ok(());
            }
            sleep_until(last + REFRESH_PAUSE).await;
        }
        let began = Instant::now();
        lock(&self.known).meanwhile = Some(Vec::new());
        let read = self.last_of(filter::shape(self.place, false)).await;
        let mut known = lock(&self.known);
        let meanwhile = known.meanwhile.take().unwrap_or_default();
        let mut read = read?;
        *refreshed = Some(began);
        read.sort_by_key(|recorded| recorded.sequence);
        let mut anew = Known {
            shape: Shape::follower(),
            at: 0,
            meanwhile: None,
        };
        for recorded in read.iter().chain(&meanwhile) {
            anew.apply(recorded);
        }
        *known = anew;
        Ok(())
    }

    /// The last event of each subject.
    async fn last_of(&self, filters: Vec<String>) -> Result<Vec<Recorded>, LogError> {
        let mut tail = self.link.log().tail_last_first(filters);
        let mut all = Vec::new();
        while let Some(tailed) = tail.next().await {
            match tailed? {
                Tailed::Message(message) => {
                    if let Input::Event(recorded) = live::read(&message) {
                        all.push(recorded);
                    }
                }
                Tailed::CaughtUp => return Ok(all),
                Tailed::Interrupted | Tailed::Resumed => {}
            }
        }
        Err(LogError::Unreachable("the reading ended".to_owned()))
    }

    /// Whether `from` may speak to `to`, by the log if not by what is known here.
    pub(super) async fn allows(
        self: &Arc<Self>,
        from: AgentId,
        to: AgentId,
    ) -> Result<(), MissingEdge> {
        let asked = Instant::now();
        let known = self.with(|shape| shape.may_message(from, to));
        if known.is_ok() {
            return known;
        }
        if let Err(error) = self.refresh(asked).await {
            tracing::warn!(%error, "the topology cannot be read now");
        }
        self.with(|shape| shape.may_message(from, to))
    }

    /// The agent of this name: the one that has a seat, of several the one that was named last.
    pub(super) async fn named(&self, name: &str) -> Result<Option<AgentId>, LogError> {
        let now = Instant::now();
        if let Some((agent, until)) = lock(&self.names).get(name).copied()
            && now < until
            && self.with(|shape| shape.seat(agent).is_some())
        {
            return Ok(Some(agent));
        }
        let every = |verb: AgentVerb| {
            let one = Subject::Agent(self.place, verb, AgentId(uuid::Uuid::nil())).to_string();
            one.rsplit_once('.')
                .map_or_else(String::new, |(root, _)| format!("{root}.*"))
        };
        let filters = vec![every(AgentVerb::Joined), every(AgentVerb::Updated)];
        let mut read = self.last_of(filters).await?;
        read.sort_by_key(|recorded| recorded.sequence);
        let mut names: BTreeMap<AgentId, String> = BTreeMap::new();
        let mut order = Vec::new();
        for recorded in read {
            let agent = AgentId(recorded.event.about);
            let name = match recorded.event.body {
                Body::AgentJoined(data) => data.profile.agent_name,
                Body::AgentUpdated(data) => data.profile.agent_name,
                _ => continue,
            };
            names.insert(agent, name);
            order.push(agent);
        }
        let found: Vec<AgentId> = order
            .into_iter()
            .rev()
            .filter(|agent| names.get(agent).is_some_and(|of| of == name))
            .collect();
        let seated = self.with(|shape| {
            let mut found = found.iter();
            found.find(|agent| shape.seat(**agent).is_some()).copied()
        });
        let agent = seated.or_else(|| found.first().copied());
        if let Some(agent) = agent {
            let mut names = lock(&self.names);
            if names.len() >= NAMES_MAX {
                names.clear();
            }
            names.insert(name.to_owned(), (agent, now + NAME_HELD));
        }
        Ok(agent)
    }
}
