//! The processes that hosts run: requests, claims and ends, with the same validity as in the coordinator's fold.

use swarm_events::{
    AgentId, Body, InstanceId, Place, Recorded,
    agent::{HostName, Restart, SpawnRequested, Stopping},
    control::Observed,
    decider::Verdict,
    envelope::Source,
    planted::{self, Bug},
    swarm::Scaled,
};

use crate::{
    Health,
    agent::{Agent, Phase, Process},
    fold::{Touched, Void},
    swarm::{Gone, Host, Key},
};

impl Health {
    /// Applies an event about an agent's process; `None` if it is about something else.
    pub(crate) fn process_event(
        &mut self,
        place: Place,
        agent: AgentId,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Option<Result<Verdict, Void>> {
        let key = (place.org, place.swarm, agent);
        let by = &recorded.event.source;
        let outcome = match &recorded.event.body {
            Body::AgentSpawnRequested(e) => self.requested(key, e),
            Body::AgentSpawnClaimed(e) => {
                speaks(by, &e.host).and_then(|()| self.claimed(key, e.spawn, &e.host))
            }
            Body::AgentLaunched(e) => {
                speaks(by, &e.host).and_then(|()| self.launched(key, e.spawn, &e.host))
            }
            Body::AgentExited(e) => {
                speaks(by, &e.host).and_then(|()| self.exited(key, e.spawn, &e.host, recorded))
            }
            Body::AgentHostFailed(e) => self.host_failed(key, e.spawn, &e.host),
            Body::AgentStopping(e) => self.told_to_go(key, e),
            _ => return None,
        };
        if outcome.is_ok() {
            touched.agents.push(key);
        }
        Some(outcome.map(|()| Verdict::Applied))
    }

    fn requested(&mut self, key: Key, requested: &SpawnRequested) -> Result<(), Void> {
        let swarm = self
            .swarms
            .get_mut(&(key.0, key.1))
            .ok_or("unknown-swarm")?;
        if swarm.stopping {
            return Err("swarm-stopping");
        }
        let window_ms = swarm.policy.error_window_ms;
        let found = swarm
            .agents
            .entry(key.2)
            .or_insert_with(|| Agent::new(window_ms));
        if requested.spawn != found.process.spawn + 1 {
            return Err("other-spawn");
        }
        let is_final = requested.spec.restart.restart == Restart::Never;
        let process = Process::open(requested.spawn, is_final);
        let before = std::mem::replace(&mut found.process, process);
        self.drop_claim(key, &before.phase);
        Ok(())
    }

    fn claimed(&mut self, key: Key, spawn: u64, host: &HostName) -> Result<(), Void> {
        let process = self.process(key, spawn)?;
        if process.phase != Phase::Open {
            return Err("already-claimed");
        }
        process.phase = Phase::Claimed(host.clone());
        let claims = self.hosts.entry(host.instance).or_insert_with(|| Host {
            agents: std::collections::BTreeSet::new(),
            gone: None,
        });
        claims.agents.insert(key);
        Ok(())
    }

    fn launched(&mut self, key: Key, spawn: u64, host: &HostName) -> Result<(), Void> {
        let process = self.process(key, spawn)?;
        match &process.phase {
            Phase::Claimed(by) if by.instance == host.instance => {
                process.phase = Phase::Running(host.clone());
                Ok(())
            }
            Phase::Running(by) if by.instance == host.instance => Err("nothing-new"),
            _ => Err("not-claimed"),
        }
    }

    fn exited(
        &mut self,
        key: Key,
        spawn: u64,
        host: &HostName,
        recorded: &Recorded,
    ) -> Result<(), Void> {
        let found = self.agent_of(key, spawn)?;
        let process = &mut found.process;
        if !process.is_held_by(host.instance) && process.phase != Phase::TakenOut(host.instance) {
            return Err("not-claimed");
        }
        let event = recorded.event.id.0;
        let exited = Phase::Exited {
            event,
            sequence: recorded.sequence,
        };
        let phase = std::mem::replace(&mut process.phase, exited);
        if found.is_watched() && found.is_of(found.process.spawn) {
            found.ended = Some(event);
        }
        self.drop_claim(key, &phase);
        Ok(())
    }

    fn host_failed(&mut self, key: Key, spawn: u64, host: &HostName) -> Result<(), Void> {
        let process = self.process(key, spawn)?;
        if !process.is_held_by(host.instance) {
            return Err("not-claimed");
        }
        let phase = std::mem::replace(&mut process.phase, Phase::HostLost);
        self.drop_claim(key, &phase);
        Ok(())
    }

    /// The incarnation was taken out. Unless it had been told to go, that ends its process too: another one is asked for, and
    /// whether its host is still there is of no concern any more.
    pub(crate) fn taken_out(&mut self, key: Key) {
        let swarm = self.swarms.get_mut(&(key.0, key.1));
        let Some(found) = swarm.and_then(|swarm| swarm.agents.get_mut(&key.2)) else {
            return;
        };
        let process = &found.process;
        if process.told || process.is_final || !found.is_of(process.spawn) {
            return;
        }
        let Some(host) = process.host().map(|host| host.instance) else {
            return;
        };
        let phase = std::mem::replace(&mut found.process.phase, Phase::TakenOut(host));
        self.drop_claim(key, &phase);
    }

    /// These are to go: they are told so one after another.
    pub(crate) fn scaled(&mut self, place: Place, scaled: &Scaled) {
        let Some(swarm) = self.swarms.get_mut(&(place.org, place.swarm)) else {
            return;
        };
        for id in &scaled.remove {
            if let Some(found) = swarm.agents.get_mut(id) {
                found.process.told = true;
            }
        }
    }

    /// A request that no host has claimed is withdrawn by it; a process that runs ends later.
    fn told_to_go(&mut self, key: Key, stopping: &Stopping) -> Result<(), Void> {
        let swarm = self
            .swarms
            .get_mut(&(key.0, key.1))
            .ok_or("unknown-swarm")?;
        // One of whom no process was ever wanted is unknown here.
        let Some(found) = swarm.agents.get_mut(&key.2) else {
            return Ok(());
        };
        let is_current = found.member && found.incarnation == stopping.incarnation;
        if stopping.incarnation != 0 && !is_current {
            return Err("other-incarnation");
        }
        if stopping.spawn != 0 && stopping.spawn != found.process.spawn {
            return Err("other-spawn");
        }
        found.process.told = true;
        if found.process.spawn != 0 && found.process.phase == Phase::Open {
            found.process.phase = Phase::Withdrawn;
        }
        Ok(())
    }

    /// The process of the current request.
    fn process(&mut self, key: Key, spawn: u64) -> Result<&mut Process, Void> {
        Ok(&mut self.agent_of(key, spawn)?.process)
    }

    /// The agent, if this is its current request.
    fn agent_of(&mut self, key: Key, spawn: u64) -> Result<&mut Agent, Void> {
        let swarm = self
            .swarms
            .get_mut(&(key.0, key.1))
            .ok_or("unknown-swarm")?;
        let found = swarm.agents.get_mut(&key.2).ok_or("unknown-agent")?;
        let is_current = found.process.spawn == spawn && spawn != 0;
        if !is_current && !planted::is(Bug::OldSpawnExitCounts) {
            return Err("other-spawn");
        }
        Ok(found)
    }

    /// A process of this phase is claimed no more.
    fn drop_claim(&mut self, key: Key, phase: &Phase) {
        let Some(by) = phase.host().map(|host| host.instance) else {
            return;
        };
        if let Some(host) = self.hosts.get_mut(&by) {
            host.agents.remove(&key);
            // Without a claim there is nothing more to say of it.
            if host.agents.is_empty() {
                self.hosts.remove(&by);
            }
        }
    }

    /// Ends all claims on the processes of a swarm that is no more.
    pub(crate) fn drop_claims(&mut self, place: Place) {
        for host in self.hosts.values_mut() {
            host.agents
                .retain(|key| (key.0, key.1) != (place.org, place.swarm));
        }
        self.hosts.retain(|_, host| !host.agents.is_empty());
    }

    /// A host was seen to be gone: its claims are void, one after another.
    pub(crate) fn host_gone(
        &mut self,
        recorded: &Recorded,
        observed: &Observed,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let Observed::HostGone { host, evidence } = observed else {
            return Ok(Verdict::Ignored);
        };
        let found = self.hosts.get_mut(host).ok_or("no-claims")?;
        if found.gone.is_some() {
            return Err("nothing-new");
        }
        found.gone = Some(Gone {
            event: recorded.event.id.0,
            evidence: evidence.clone(),
        });
        touched.agents.extend(found.agents.iter().copied());
        Ok(Verdict::Applied)
    }

    /// The host that was seen to be gone and still has a claim on the process.
    pub(crate) fn gone_host_of(&self, agent: &Agent) -> Option<(&Gone, HostName)> {
        let host = agent.process.host()?;
        let gone = self.hosts.get(&host.instance)?.gone.as_ref()?;
        Some((gone, host.clone()))
    }
}

/// A host speaks for itself only.
fn speaks(source: &Source, host: &HostName) -> Result<(), Void> {
    match source {
        Source::Host(instance) if *instance == host.instance => Ok(()),
        _ => Err("other-host"),
    }
}

impl Process {
    fn is_held_by(&self, instance: InstanceId) -> bool {
        self.host().is_some_and(|host| host.instance == instance)
    }
}
