//! What becomes of an agent's process: requests, the words of hosts, the verdict on a host, and being told to go.

use swarm_events::{
    AgentId, Body,
    agent::{
        CrashLooping, Exited, HostFailed, HostName, Launched, SpawnClaimed, SpawnDeclined,
        SpawnReason, SpawnRequested, StopThen, Stopping,
    },
    envelope::Source,
    planted::{self, Bug},
};

use crate::{
    Agent, Draining, LastExit, Managed, Membership, Phase, Swarm,
    fold::Void,
    membership::{Change, Met},
};

impl Swarm {
    /// Applies an event about an agent's process.
    pub(crate) fn process(
        &mut self,
        agent: AgentId,
        body: &Body,
        source: &Source,
        met: Met,
    ) -> Result<Change, Void> {
        let open = self.is_open();
        let found = self.agents.get_mut(&agent).ok_or("unknown-agent");
        match body {
            Body::AgentSpawnRequested(requested) => found?.requested(requested, open, met)?,
            Body::AgentSpawnClaimed(claimed) => found?.claimed(claimed, source, met)?,
            Body::AgentSpawnDeclined(declined) => found?.declined(declined, source)?,
            Body::AgentLaunched(launched) => found?.launched(launched, source, met)?,
            Body::AgentExited(exited) => found?.exited(exited, source, met)?,
            Body::AgentHostFailed(failed) => found?.host_failed(failed, met)?,
            Body::AgentCrashLooping(looping) => found?.crash_looping(looping)?,
            Body::AgentStopping(stopping) => found?.stopping(stopping, met)?,
            _ => return Ok(Change::None),
        }
        Ok(Change::Made(None))
    }
}

/// A host speaks for itself only.
fn speaks(source: &Source, host: &HostName) -> Result<(), Void> {
    match source {
        Source::Host(instance) if *instance == host.instance => Ok(()),
        _ => Err("other-host"),
    }
}

impl Agent {
    fn managed(&mut self) -> Result<&mut Managed, Void> {
        self.managed.as_mut().ok_or("not-managed")
    }

    /// The request that a host speaks of, if it is the current one.
    fn current(&mut self, spawn: u64) -> Result<&mut Managed, Void> {
        let managed = self.managed()?;
        if managed.spawn != spawn || spawn == 0 {
            return Err("other-spawn");
        }
        Ok(managed)
    }

    fn requested(&mut self, requested: &SpawnRequested, open: bool, met: Met) -> Result<(), Void> {
        let managed = self.managed()?;
        if !managed.has_adapter() {
            return Err("by-hand");
        }
        if !open {
            return Err("swarm-stopping");
        }
        if requested.spawn != managed.spawn + 1 {
            return Err("other-spawn");
        }
        if !managed.wanted && !planted::is(Bug::StoppedRespawns) {
            return Err("not-wanted");
        }
        managed.restarts = managed.spawn;
        managed.spawn = requested.spawn;
        managed.phase = Phase::Requested { since: met.now };
        managed.declined = None;
        managed.restart_due = None;
        managed.unfit = None;
        managed.host_lost = false;
        managed.unlimited.clear();
        self.draining = None;
        Ok(())
    }

    fn claimed(&mut self, claimed: &SpawnClaimed, source: &Source, met: Met) -> Result<(), Void> {
        speaks(source, &claimed.host)?;
        let managed = self.current(claimed.spawn)?;
        if !matches!(managed.phase, Phase::Requested { .. }) {
            return Err("not-requested");
        }
        managed.phase = Phase::Claimed {
            host: claimed.host.clone(),
            since: met.now,
        };
        managed.declined = None;
        Ok(())
    }

    fn declined(&mut self, declined: &SpawnDeclined, source: &Source) -> Result<(), Void> {
        speaks(source, &declined.host)?;
        let managed = self.current(declined.spawn)?;
        if !matches!(managed.phase, Phase::Requested { .. }) {
            return Err("not-requested");
        }
        managed.declined = Some((declined.host.clone(), declined.problem.clone()));
        Ok(())
    }

    fn launched(&mut self, launched: &Launched, source: &Source, met: Met) -> Result<(), Void> {
        speaks(source, &launched.host)?;
        let managed = self.current(launched.spawn)?;
        match &managed.phase {
            Phase::Claimed { host, .. } if host.instance == launched.host.instance => {}
            _ => return Err("not-claimed"),
        }
        managed.phase = Phase::Running {
            host: launched.host.clone(),
            pid: launched.pid,
            since: met.now,
            limited_by: launched.limited_by,
        };
        managed.unlimited.clone_from(&launched.unlimited);
        Ok(())
    }

    fn exited(&mut self, exited: &Exited, source: &Source, met: Met) -> Result<(), Void> {
        speaks(source, &exited.host)?;
        let (told, joined_spawn, live) = (
            self.draining.is_some() || self.dismissed.is_some(),
            self.joined_spawn,
            self.is_live(),
        );
        let any = planted::is(Bug::OldSpawnExitCounts);
        let managed = if any {
            self.managed()?
        } else {
            self.current(exited.spawn)?
        };
        let claimed = managed.host().map(|host| host.instance);
        let taken_out = claimed.is_none() && managed.unfit == Some(exited.host.instance);
        if claimed != Some(exited.host.instance) && !taken_out && !any {
            return Err("not-claimed");
        }
        managed.last_exit = Some(LastExit {
            at: met.at,
            exit: exited.exit.clone(),
            uptime_ms: exited.uptime_ms,
            last_output: exited.last_output.clone(),
        });
        managed.unfit = None;
        if taken_out {
            // Its end was judged when it was taken out; only that it is to stay down is news.
            let (due, crashes) = (managed.restart_due, managed.crashes);
            let success = exited.exit.is_success() && !exited.host_leaving;
            if managed.wanted && managed.judge_end(false, success, met.now) {
                (managed.restart_due, managed.crashes) = (due, crashes);
            }
        } else {
            managed.phase = Phase::Idle;
            if !told && managed.wanted {
                managed.after_exit(exited, met);
            }
        }
        let down = !managed.wanted;
        self.process_ended |= live && joined_spawn == exited.spawn;
        if down && !live && self.membership == Membership::Expected {
            self.membership = Membership::Left;
            self.left_at = Some(met.at);
            self.left_reason = Some(format!(
                "its process ended by {} and is not started again by its policy",
                crate::agent::ended_by(&exited.exit)
            ));
        }
        self.settle(met);
        Ok(())
    }

    fn host_failed(&mut self, failed: &HostFailed, met: Met) -> Result<(), Void> {
        let told = self.draining.is_some();
        let managed = self.current(failed.spawn)?;
        if managed.host().map(|host| host.instance) != Some(failed.host.instance) {
            return Err("not-claimed");
        }
        if planted::is(Bug::HostFailedKeepsClaim) {
            return Ok(());
        }
        managed.phase = Phase::Idle;
        managed.restart_due = None;
        managed.host_lost = true;
        if !told {
            managed.next = SpawnReason::HostLost;
        }
        self.settle(met);
        Ok(())
    }

    fn crash_looping(&mut self, looping: &CrashLooping) -> Result<(), Void> {
        let managed = self.current(looping.spawn)?;
        if !matches!(managed.phase, Phase::Idle) || !managed.wanted {
            return Err("not-ended");
        }
        managed.phase = Phase::GivenUp;
        managed.restart_due = None;
        Ok(())
    }

    fn stopping(&mut self, stopping: &Stopping, met: Met) -> Result<(), Void> {
        let current = self.is_live() && self.incarnation == stopping.incarnation;
        if stopping.incarnation != 0 && !current {
            return Err("other-incarnation");
        }
        if stopping.spawn != 0 {
            self.current(stopping.spawn)?;
        }
        let by_policy = self.dismissed.as_ref().is_some_and(|d| d.by_policy);
        match (&mut self.managed, stopping.then) {
            (Some(managed), then) if then == StopThen::Remove || managed.has_adapter() => {
                if matches!(managed.phase, Phase::Requested { .. } | Phase::GivenUp) {
                    managed.phase = Phase::Idle;
                }
                managed.restart_due = None;
                managed.declined = None;
                managed.wanted = then == StopThen::Restart;
                managed.ended &= by_policy;
                if managed.wanted {
                    managed.crashes = 0;
                    managed.next = SpawnReason::Restart;
                }
            }
            (_, StopThen::Restart) => return Err("by-hand"),
            _ => {}
        }
        self.dismissed = None;
        self.draining = Some(Draining {
            since: met.now,
            grace_ms: stopping.grace_ms,
            then: stopping.then,
            reason: stopping.reason.clone(),
        });
        if stopping.then == StopThen::Restart && !self.is_live() {
            self.membership = Membership::Expected;
        }
        self.settle(met);
        Ok(())
    }

    /// Ends the going of an agent of which nothing is left: no incarnation and no process.
    pub(crate) fn settle(&mut self, met: Met) {
        if self.is_live() || self.managed.as_ref().is_some_and(|m| m.host().is_some()) {
            return;
        }
        let Some(draining) = self.draining.take() else {
            return;
        };
        match draining.then {
            StopThen::Restart => {}
            StopThen::Remove if self.membership == Membership::Expected => {
                self.membership = Membership::Removed;
                self.left_at = Some(met.at);
                self.left_reason = Some(draining.reason);
            }
            StopThen::Remove => {}
        }
    }
}

impl Managed {
    /// Takes an open request back that an older one hides from hosts that begin. Answers whether it did: the next one asks
    /// for the same under a new number, and whoever has claimed this one meanwhile meets that and ends what it started.
    pub(crate) fn hidden_by(&mut self, spawn: u64) -> bool {
        let hidden = spawn < self.spawn && matches!(self.phase, Phase::Requested { .. });
        if hidden {
            self.phase = Phase::Idle;
        }
        hidden
    }

    /// What its policy makes of an end.
    fn after_exit(&mut self, exited: &Exited, met: Met) {
        if exited.host_leaving {
            // Not its own end: it moves.
            self.next = SpawnReason::HostLost;
            self.restart_due = None;
            return;
        }
        let exit = &exited.exit;
        let crashed = exited.uptime_ms < self.spec.restart.stable_ms || exit.error.is_some();
        if self.judge_end(crashed, exit.is_success(), met.now) {
            self.next = SpawnReason::Exited;
        }
    }
}
