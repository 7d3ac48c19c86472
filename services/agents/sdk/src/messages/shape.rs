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
    subject::{AgentVerb, Place, Subject, SwarmVerb, filter},
};
use swarm_log::{LogError, Tailed};
use swarm_topology::{MissingEdge, Shape};
use tokio::{
    sync::{Mutex as AsyncMutex, OnceCell, watch},
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
    /// Sequence of the last event of each kind that it holds, of seats for each agent. Kinds come by subscriptions of their own,
    /// so that a later one may overtake an earlier one of another kind; of one kind they come in order.
    at: BTreeMap<Kind, u64>,
    /// What came while it is being read anew.
    meanwhile: Option<Vec<Recorded>>,
}

/// What an event that the shape follows from is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Created,
    Changed,
    Elected,
    Seated(AgentId),
}
impl Kind {
    fn of(recorded: &Recorded) -> Option<Self> {
        Some(match (recorded.subject, &recorded.event.body) {
            (_, Body::SwarmCreated(_)) => Self::Created,
            (_, Body::SwarmTopologyChanged(_)) => Self::Changed,
            (_, Body::SwarmLeaderElected(_)) => Self::Elected,
            (Subject::Agent(_, _, agent), Body::AgentSeated(_)) => Self::Seated(agent),
            _ => return None,
        })
    }
}

pub(crate) struct Follow {
    link: Link,
    place: Place,
    known: Mutex<Known>,
    followed: OnceCell<()>,
    /// When the log was read last.
    refreshed: AsyncMutex<Option<Instant>>,
    names: Mutex<BTreeMap<String, (AgentId, Instant)>>,
    /// Rises with every change of the shape.
    changes: watch::Sender<u64>,
    closed: CancellationToken,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Known {
    fn none() -> Self {
        Self {
            shape: Shape::follower(),
            at: BTreeMap::new(),
            meanwhile: None,
        }
    }

    fn apply(&mut self, recorded: &Recorded) {
        let Some(kind) = Kind::of(recorded) else {
            return;
        };
        let at = self.at.entry(kind).or_default();
        if recorded.sequence <= *at {
            return;
        }
        *at = recorded.sequence;
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
        Arc::new(Self {
            link,
            place,
            known: Mutex::new(Known::none()),
            followed: OnceCell::new(),
            refreshed: AsyncMutex::new(None),
            names: Mutex::default(),
            changes: watch::channel(0).0,
            closed,
        })
    }

    /// Changes whenever the shape may be another one.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// What follows from the shape as it is known.
    pub(crate) fn with<T>(&self, look: impl FnOnce(&Shape) -> T) -> T {
        look(&lock(&self.known).shape)
    }

    /// Reads the shape, unless that was done, and follows it from then on.
    pub(crate) async fn ready(self: &Arc<Self>) -> Result<(), LogError> {
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
            self.meet(recorded);
        }
    }

    fn meet(&self, recorded: Recorded) {
        let mut known = lock(&self.known);
        known.apply(&recorded);
        if let Some(meanwhile) = &mut known.meanwhile {
            meanwhile.push(recorded);
        }
        drop(known);
        self.changes.send_modify(|count| *count += 1);
    }

    /// Looks whether a hint was lost of what decides the part that this agent has: the topology, the leader, its own seat.
    pub(crate) async fn look(&self, agent: AgentId) -> Result<(), LogError> {
        let asked = Instant::now();
        let mut last = Vec::new();
        for subject in [
            Subject::Swarm(self.place, SwarmVerb::TopologyChanged),
            Subject::Swarm(self.place, SwarmVerb::LeaderElected),
            Subject::Agent(self.place, AgentVerb::Seated, agent),
        ] {
            let found = self.link.last_of(&subject.to_string()).await?;
            if let Some(Input::Event(recorded)) = found.as_ref().map(live::read) {
                last.push(recorded);
            }
        }
        let is_other = |recorded: &Recorded| {
            let at = |kind| lock(&self.known).at.get(&kind).copied();
            Kind::of(recorded) == Some(Kind::Changed)
                && at(Kind::Changed).is_none_or(|at| at < recorded.sequence)
        };
        if last.iter().any(is_other) {
            return self.refresh(asked).await; // every seat may be another one
        }
        last.into_iter().for_each(|recorded| self.meet(recorded));
        Ok(())
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
        let mut anew = Known::none();
        for recorded in read.iter().chain(&meanwhile) {
            anew.apply(recorded);
        }
        *known = anew;
        drop(known);
        self.changes.send_modify(|count| *count += 1);
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

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_events::{
        Event, Timestamp,
        envelope::Source,
        ids::{EventId, InstanceId, OrgId, SwarmId},
        subject::Service,
        topology::{LeaderElected, Role, Seated},
    };
    use uuid::Uuid;

    use super::*;

    fn decided(
        sequence: u64,
        subject: impl Fn(Place) -> Subject,
        body: impl Into<Body>,
    ) -> Recorded {
        let subject = subject(Place::new(OrgId(Uuid::nil()), SwarmId(Uuid::nil())));
        let source = Source::Service(Service::Coordinator, InstanceId(Uuid::nil()));
        let (id, time) = (EventId(Uuid::nil()), Timestamp::from_micros(0));
        Recorded {
            sequence,
            time,
            subject,
            content: 0,
            event: Event::new(id, source, time, &subject, Uuid::nil(), body),
        }
    }
    fn seated(sequence: u64, agent: AgentId, role: Role, place: u64) -> Recorded {
        let seat = json!({
            "generation": 1, "reason": "by hand",
            "seat": {"role": role, "level": 1, "place": place, "standby": false, "works": true},
        });
        let seat: Seated = serde_json::from_value(seat).expect("a seat");
        decided(
            sequence,
            |at| Subject::Agent(at, AgentVerb::Seated, agent),
            seat,
        )
    }

    #[test]
    fn an_election_that_overtakes_seats_does_not_hide_them() {
        let (one, two) = (AgentId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)));
        let elected = LeaderElected {
            leader: Some(one),
            incarnation: 1,
            before: None,
            reason: "by hand".to_owned(),
            eligible: 2,
        };
        let elected = decided(
            7,
            |at| Subject::Swarm(at, SwarmVerb::LeaderElected),
            elected,
        );
        // Given two seats and then an election, when the election is met before the second seat
        let mut known = Known::none();
        known.apply(&seated(5, one, Role::Coordinator, 1));
        known.apply(&elected);
        known.apply(&seated(6, two, Role::Worker, 2));
        // Then all of it holds
        assert_eq!(known.shape.leader(), Some(one));
        assert_eq!(known.shape.role(two), Some(Role::Worker));
        // And what is older of the same agent changes nothing any more
        known.apply(&seated(4, two, Role::Coordinator, 3));
        assert_eq!(known.shape.role(two), Some(Role::Worker));
    }
}
