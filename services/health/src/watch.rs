//! Who is silent, and since when. No clock and no IO: time is monotonic and passed in, so that every rule can be tested.
//!
//! Ages are measured in *counted* time, which stands still while nothing can be heard: when nats-server is away, or when
//! this process itself got no turn. The watch compares what it hears with what the log says of an agent, and asks for a
//! verdict (an observation) only where the two differ.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use swarm_events::{
    AgentId, InstanceId, OrgId, Partition, Place, SwarmId, Timestamp,
    agent::{Evidence, LivenessRule},
    control::{Observed, Sighting},
    swarm::{AgentSample, Heartbeat, HostBeat, ProcessFigures, SAMPLE_AGENTS_MAX},
};
use swarm_health_core::{Agent, HOST_DOWN_GRACE_MS, Health, Liveness, Swarm, Thresholds};

use crate::{hosts::Hosts, samples::Sampling, strangers::Strangers};

/// How often the watch looks around.
pub const TICK: Duration = Duration::from_millis(100);
/// A tick that comes later than this beyond its time says that this process got no turn: what it did not hear counts for
/// nothing.
pub const STARVED: Duration = Duration::from_millis(500);
/// After an outage everybody has this long to come back before silence counts again: agents wait up to a second between
/// their attempts to reconnect, and the first heartbeat follows.
pub const RETURN_GRACE: Duration = Duration::from_secs(2);
/// An observation that led to nothing is made again after this long: its append may have been lost.
pub const ASK_AGAIN: Duration = Duration::from_secs(2);

/// An agent's place in the watch.
pub(crate) type Key = (OrgId, SwarmId, AgentId);

/// Whose heartbeat it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The current process of a member.
    Member,
    /// Another process of a member: an old one that was taken over, or one that has not joined yet.
    OtherProcess,
    /// Nobody that is watched.
    Stranger,
}

#[derive(Debug)]
pub(crate) struct Tracked {
    place: Place,
    incarnation: u64,
    pub(crate) instance: InstanceId,
    liveness: Liveness,
    thresholds: Thresholds,
    /// Counted time from which on silence is reckoned.
    since: Duration,
    /// Counted time of the last heartbeat.
    heard: Option<Duration>,
    /// Counted time at which its connection was seen to close.
    disconnected: Option<Duration>,
    /// The last observation of it, and its counted time.
    asked: Option<(Sighting, Duration)>,
    /// The last heartbeat, and when it came.
    pub(crate) beat: Option<(Heartbeat, Timestamp)>,
    /// A heartbeat has come since it was sampled last. Not told by the time of the last one: wall clocks jump.
    pub(crate) is_fresh: bool,
    /// What its host said last of its processes, and when in counted time.
    pub(crate) figures: Option<(ProcessFigures, Duration)>,
    /// What was sampled last, and when.
    pub(crate) sampled: Option<(AgentSample, Duration)>,
}

/// The watch over the agents of the partitions that this process owns.
#[derive(Debug, Default)]
pub struct Watch {
    agents: BTreeMap<Key, Tracked>,
    by_instance: BTreeMap<InstanceId, Key>,
    /// Last heartbeats from before the watch began.
    earlier: BTreeMap<Key, (Heartbeat, Timestamp)>,
    pub(crate) sampling: BTreeMap<(OrgId, SwarmId), Sampling>,
    /// Swarms of which strangers are told.
    swarms: BTreeSet<(OrgId, SwarmId)>,
    hosts: Hosts,
    strangers: Strangers,
    clock: Duration,
    last_tick: Option<Duration>,
    cut_off: bool,
}

impl Watch {
    /// How many agents are watched.
    pub fn len(&self) -> usize {
        self.agents.len()
    }
    /// Nobody?
    pub fn is_empty(&self) -> bool {
        self.agents.is_empty()
    }

    /// How many hosts are watched: those with claims on processes of the partitions that are watched.
    pub fn hosts(&self) -> usize {
        self.hosts.len()
    }
    /// Whether anything that this host says is of use here.
    pub fn knows_host(&self, host: InstanceId) -> bool {
        self.hosts.knows(host)
    }
    /// How many processes beat that are no agents, as far as they are told apart.
    pub fn strangers(&self) -> usize {
        self.strangers.len()
    }

    /// Takes note of what the log says of an agent.
    pub fn sync(&mut self, swarm: &Swarm, id: AgentId, now: Duration) {
        let key = (swarm.place.org, swarm.place.swarm, id);
        let claimed = swarm.agents.get(&id).filter(|_| !swarm.deleted);
        let claimed = claimed.and_then(|agent| agent.process.host());
        let counted = self.counted(now);
        self.hosts
            .sync(key, claimed.map(|host| host.instance), counted);
        if swarm.deleted {
            self.swarms.remove(&(key.0, key.1));
        } else {
            self.swarms.insert((key.0, key.1));
        }
        let watched = |agent: &&Agent| agent.is_watched() && !swarm.deleted;
        let Some(agent) = swarm.agents.get(&id).filter(watched) else {
            self.forget(key);
            return;
        };
        if let Some(tracked) = self.agents.get_mut(&key)
            && tracked.incarnation == agent.incarnation
        {
            tracked.thresholds = swarm.thresholds;
            if tracked.liveness != agent.liveness {
                tracked.liveness = agent.liveness;
                tracked.asked = None;
            }
            return;
        }
        self.forget(key);
        self.strangers.is_known(key, agent.instance);
        let earlier = self.earlier.remove(&key);
        let beat = earlier.filter(|(beat, _)| beat.instance == agent.instance);
        let tracked = Tracked {
            place: swarm.place,
            incarnation: agent.incarnation,
            instance: agent.instance,
            liveness: agent.liveness,
            thresholds: swarm.thresholds,
            // An agent that never beats is found too.
            since: counted,
            heard: None,
            disconnected: None,
            asked: None,
            is_fresh: beat.is_some(),
            beat,
            figures: None,
            sampled: None,
        };
        self.by_instance.insert(agent.instance, key);
        self.agents.insert(key, tracked);
        self.sampling
            .entry((key.0, key.1))
            .or_insert_with(|| Sampling::starting(counted))
            .agents += 1;
    }

    /// As [`Watch::sync`] for all agents of a swarm.
    pub fn sync_swarm(&mut self, swarm: &Swarm, now: Duration) {
        let key = (swarm.place.org, swarm.place.swarm);
        if swarm.deleted {
            self.swarms.remove(&key);
        } else {
            self.swarms.insert(key);
        }
        for id in swarm.agents.keys() {
            self.sync(swarm, *id, now);
        }
    }

    /// Takes over a partition: silence is reckoned from now on.
    pub fn adopt(&mut self, state: &Health, partition: Partition, now: Duration) {
        for swarm in state.swarms() {
            self.sync_swarm(swarm, now);
        }
        self.earlier
            .retain(|(_, swarm, _), _| Partition::of(swarm.0) != partition);
    }

    /// Gives a partition up.
    pub fn give_up(&mut self, partition: Partition) {
        let gone: Vec<Key> = self
            .agents
            .iter()
            .filter(|(_, tracked)| tracked.place.partition == partition)
            .map(|(key, _)| *key)
            .collect();
        for key in gone {
            self.forget(key);
        }
        self.swarms
            .retain(|(_, swarm)| Partition::of(swarm.0) != partition);
        self.hosts.give_up(partition, self.clock);
        self.strangers.give_up(partition);
    }

    fn forget(&mut self, key: Key) {
        let Some(tracked) = self.agents.remove(&key) else {
            return;
        };
        if self.by_instance.get(&tracked.instance) == Some(&key) {
            self.by_instance.remove(&tracked.instance);
        }
        if let Some(sampling) = self.sampling.get_mut(&(key.0, key.1)) {
            sampling.agents -= 1;
            if sampling.agents == 0 {
                self.sampling.remove(&(key.0, key.1));
            }
        }
    }

    /// A heartbeat from before the watch began: it is evidence, but says nothing of the present.
    pub fn earlier(&mut self, place: Place, agent: AgentId, beat: Heartbeat, at: Timestamp) {
        let key = (place.org, place.swarm, agent);
        match self.agents.get_mut(&key) {
            Some(tracked) if tracked.beat.is_none() && tracked.instance == beat.instance => {
                tracked.beat = Some((beat, at));
                tracked.is_fresh = true;
            }
            Some(_) => {}
            None => {
                self.earlier.insert(key, (beat, at));
            }
        }
    }

    /// A heartbeat that came at `now` of the monotonic and `at` of the wall clock.
    pub fn beat(
        &mut self,
        place: Place,
        agent: AgentId,
        beat: Heartbeat,
        at: Timestamp,
        now: Duration,
    ) -> Heard {
        let counted = self.counted(now);
        let key = (place.org, place.swarm, agent);
        let found = self.agents.get_mut(&key);
        let outcome = match &found {
            None => Heard::Stranger,
            Some(tracked) if tracked.instance != beat.instance => Heard::OtherProcess,
            Some(_) => Heard::Member,
        };
        let Some(tracked) = found.filter(|_| outcome == Heard::Member) else {
            if self.swarms.contains(&(key.0, key.1)) {
                self.strangers.beat(key, beat.instance, counted);
            }
            return outcome;
        };
        tracked.since = tracked.since.max(counted);
        tracked.heard = Some(counted);
        tracked.disconnected = None;
        tracked.beat = Some((beat, at));
        tracked.is_fresh = true;
        Heard::Member
    }

    /// A host's beat that came at `now` of the monotonic and `at` of the wall clock. Its figures take the place of what its
    /// agents say of themselves.
    pub fn host_beat(&mut self, beat: &HostBeat, at: Timestamp, now: Duration) {
        let counted = self.counted(now);
        for (key, figures) in self.hosts.beat(beat, at, counted) {
            if let Some(tracked) = self.agents.get_mut(&key) {
                tracked.figures = Some((figures, counted));
            }
        }
    }

    /// nats-server says that the connection of a host closed.
    pub fn host_closed(&mut self, host: InstanceId, now: Duration) {
        let counted = self.counted(now);
        self.hosts.closed(host, counted);
    }

    /// nats-server says that a host has connected.
    pub fn host_opened(&mut self, host: InstanceId) {
        self.hosts.opened(host);
    }

    /// nats-server says that the connection of a process closed.
    pub fn closed(&mut self, process: (SwarmId, AgentId, InstanceId), now: Duration) {
        let counted = self.counted(now);
        if let Some(tracked) = self.process(process) {
            tracked.disconnected.get_or_insert(counted);
        }
    }

    /// nats-server says that a process has connected.
    pub fn opened(&mut self, process: (SwarmId, AgentId, InstanceId)) {
        if let Some(tracked) = self.process(process) {
            tracked.disconnected = None;
        }
    }

    fn process(
        &mut self,
        (swarm, agent, instance): (SwarmId, AgentId, InstanceId),
    ) -> Option<&mut Tracked> {
        let key = *self.by_instance.get(&instance)?;
        (key.1 == swarm && key.2 == agent).then_some(())?;
        self.agents.get_mut(&key)
    }

    /// nats-server is away: nothing can be heard, so nothing counts until [`Watch::back`].
    pub fn cut_off(&mut self, now: Duration) {
        self.clock = self.counted(now);
        self.last_tick = Some(now);
        self.cut_off = true;
    }

    /// nats-server is back: everybody starts afresh, with time to come back too.
    pub fn back(&mut self, now: Duration) {
        self.last_tick = Some(now);
        self.cut_off = false;
        for tracked in self.agents.values_mut() {
            tracked.since = self.clock + RETURN_GRACE;
            tracked.disconnected = None;
            tracked.asked = None;
        }
        self.hosts.back(self.clock);
    }

    /// Counted time at `now`.
    fn counted(&self, now: Duration) -> Duration {
        let passed = now.saturating_sub(self.last_tick.unwrap_or(now));
        if self.cut_off || passed > TICK + STARVED {
            self.clock
        } else {
            self.clock + passed
        }
    }

    /// Looks around: observations to be appended, and samples that are due.
    pub fn tick(&mut self, now: Duration) -> Vec<(Partition, Observed)> {
        self.clock = self.counted(now);
        self.last_tick = Some(now);
        if self.cut_off {
            return Vec::new();
        }
        let clock = self.clock;
        let mut out = Vec::new();
        let agents = &self.agents;
        let down = self
            .hosts
            .down(|key| agents.get(key).map(|tracked| tracked.disconnected));
        for (key, tracked) in &mut self.agents {
            let host = self.hosts.of(key);
            let down = host.and_then(|host| down.get(&host).copied());
            if let Some((sighting, evidence)) = tracked.look(clock, down) {
                let observed = Observed::Liveness {
                    org_id: key.0,
                    swarm_id: key.1,
                    agent_id: key.2,
                    incarnation: tracked.incarnation,
                    sighting,
                    evidence,
                };
                out.push((tracked.place.partition, observed));
            }
        }
        self.hosts.look(clock, &down, &mut out);
        self.strangers.look(clock, &mut out);
        self.sample(clock, &mut out);
        out
    }

    fn sample(&mut self, clock: Duration, out: &mut Vec<(Partition, Observed)>) {
        for (&(org, swarm), sampling) in &mut self.sampling {
            let Some(from) = sampling.take_due(clock) else {
                continue;
            };
            // A part at a time: nobody waits for the watch until all of a large swarm is sampled.
            let first = (org, swarm, from);
            let mut agents = self
                .agents
                .range_mut(first..)
                .take_while(|(key, _)| key.0 == org && key.1 == swarm)
                .map(|(key, tracked)| (key.2, tracked));
            let part = crate::samples::part(agents.by_ref().take(SAMPLE_AGENTS_MAX), clock);
            sampling.next = agents.next().map(|(id, _)| id);
            if !part.is_empty() {
                let observed = Observed::Samples {
                    org_id: org,
                    swarm_id: swarm,
                    agents: part,
                };
                out.push((Partition::of(swarm.0), observed));
            }
        }
    }
}

impl Tracked {
    /// What is to be said of it now, if that is anything new. `down`: since when its host is down with all its agents.
    fn look(&mut self, clock: Duration, down: Option<Duration>) -> Option<(Sighting, Evidence)> {
        let silent_ms = millis(clock.saturating_sub(self.since));
        let limits = self.thresholds;
        let closed_ms = self.disconnected.map(|at| millis(clock.saturating_sub(at)));
        let down_ms = down.map(|at| millis(clock.saturating_sub(at)));
        let (sighting, rule, age_ms, limit_ms) = match closed_ms {
            _ if down_ms.is_some_and(|age| age > HOST_DOWN_GRACE_MS) => (
                Sighting::Gone,
                LivenessRule::Disconnected,
                down_ms.unwrap_or_default(),
                HOST_DOWN_GRACE_MS,
            ),
            Some(age) if age > limits.disconnect_grace_ms => (
                Sighting::Gone,
                LivenessRule::Disconnected,
                age,
                limits.disconnect_grace_ms,
            ),
            _ if silent_ms > limits.fail_after_ms => (
                Sighting::Gone,
                LivenessRule::Silence,
                silent_ms,
                limits.fail_after_ms,
            ),
            _ if silent_ms > limits.suspect_after_ms => (
                Sighting::Silent,
                LivenessRule::Silence,
                silent_ms,
                limits.suspect_after_ms,
            ),
            _ => {
                // Heard in truth, not just met or given time.
                let age = millis(clock.saturating_sub(self.heard?));
                if age > limits.suspect_after_ms {
                    return None;
                }
                (
                    Sighting::Heard,
                    LivenessRule::Heard,
                    age,
                    limits.suspect_after_ms,
                )
            }
        };
        let new = match sighting {
            Sighting::Silent => self.liveness == Liveness::Alive,
            Sighting::Gone => self.liveness != Liveness::Failed,
            Sighting::Heard => self.liveness == Liveness::Suspected,
        };
        if !new {
            self.asked = None;
            return None;
        }
        if let Some((asked, at)) = self.asked
            && asked == sighting
            && clock.saturating_sub(at) < ASK_AGAIN
        {
            return None;
        }
        self.asked = Some((sighting, clock));
        let evidence = Evidence {
            rule,
            last_heartbeat_at: self.beat.as_ref().map(|(_, at)| *at),
            age_ms,
            limit_ms,
        };
        Some((sighting, evidence))
    }
}

pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
