//! The fold: what each input does to the state.

use swarm_events::{
    AgentId, Body, Event, Input, Place, Recorded, Subject,
    control::{Observed, Sighting},
    decider::{Admission, Verdict},
    planted::{self, Bug},
    subject::Service,
    swarm::SAMPLE_AGENTS_MAX,
};

use crate::{
    Agent, Health, Liveness, Mark, Swarm, Wanted,
    swarm::{Key, SwarmKey},
};

/// Name of the precondition that failed.
pub(crate) type Void = &'static str;

/// What an input touched: what the owner looks at again.
#[derive(Debug, Default)]
pub(crate) struct Touched {
    /// New observations, by sequence.
    pub(crate) opened: Vec<u64>,
    pub(crate) agents: Vec<Key>,
    /// Swarms of which every agent is to be looked at.
    pub(crate) swarms: Vec<SwarmKey>,
    /// Swarms of which those are to be looked at that were spared for the others' sake.
    pub(crate) others: Vec<SwarmKey>,
}

impl Health {
    pub(crate) fn fold(
        &mut self,
        admission: Admission,
        input: &Input,
        touched: &mut Touched,
    ) -> Verdict {
        match admission {
            Admission::Void(why) => return Verdict::Void(why),
            Admission::Claimed => {
                if let Input::Event(recorded) = input
                    && let Body::Claimed(claimed) = &recorded.event.body
                {
                    for stuck in &claimed.rejects {
                        self.set_aside(stuck.sequence);
                    }
                }
                return Verdict::Applied;
            }
            Admission::Admit => {}
        }
        let Input::Event(recorded) = input else {
            // The coordinator says what is unreadable about swarms and agents.
            return Verdict::Ignored;
        };
        self.event(recorded, touched).unwrap_or_else(|why| {
            self.head.voids += 1;
            Verdict::Void(why)
        })
    }

    fn event(&mut self, recorded: &Recorded, touched: &mut Touched) -> Result<Verdict, Void> {
        if recorded.subject.partition() != self.head.partition {
            return Ok(Verdict::Ignored);
        }
        match recorded.subject {
            Subject::Swarm(place, _) => self.swarm_event(place, recorded, touched),
            Subject::Agent(place, _, agent) => self
                .process_event(place, agent, recorded, touched)
                .or_else(|| self.quarantine_event(place, agent, recorded, touched))
                .unwrap_or_else(|| self.agent_event(place, agent, recorded, touched)),
            Subject::Control(Service::Health, ..) => match &recorded.event.body {
                Body::Observed(observed) => self.observed(recorded, observed, touched),
                _ => Ok(Verdict::Ignored),
            },
            _ => Ok(Verdict::Ignored),
        }
    }

    fn swarm_event(
        &mut self,
        place: Place,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let key = (place.org, place.swarm);
        if let Body::SwarmCreated(created) = &recorded.event.body {
            if self.swarms.contains_key(&key) {
                return Err("swarm-exists");
            }
            self.swarms
                .insert(key, Swarm::new(place, &created.configuration));
            return Ok(Verdict::Applied);
        }
        if matches!(recorded.event.body, Body::SwarmRefused(_)) {
            return Ok(Verdict::Ignored);
        }
        let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
        match &recorded.event.body {
            Body::SwarmUpdated(updated) => {
                if swarm.stopping {
                    return Err("swarm-stopping");
                }
                swarm.configure(&updated.configuration);
                touched.swarms.push(key);
            }
            Body::SwarmStopping(_) => {
                if swarm.stopping {
                    return Err("swarm-stopping");
                }
                swarm.stopping = true;
                touched.swarms.push(key);
            }
            Body::SwarmDeleted(_) => {
                if !swarm.stopping {
                    return Err("not-stopping");
                }
                if swarm.deleted {
                    return Err("swarm-deleted");
                }
                swarm.deleted = true;
                let settled: Vec<u64> = swarm.agents.values_mut().filter_map(Agent::go).collect();
                for sequence in settled {
                    self.close(sequence);
                }
                self.drop_claims(place);
                touched.swarms.push(key);
            }
            Body::SwarmMeasured(measured) => {
                return self.measured(place, recorded, measured, touched);
            }
            Body::SwarmScaled(scaled) => self.scaled(place, scaled),
            Body::SwarmSampled(sampled) => {
                if !self.close_cause(&recorded.event) {
                    return Err("already-answered");
                }
                self.sampled(place, sampled, recorded.event.id.0, touched);
            }
            _ => return Ok(Verdict::Ignored),
        }
        Ok(Verdict::Applied)
    }

    fn agent_event(
        &mut self,
        place: Place,
        agent: AgentId,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let swarm = self
            .swarms
            .get_mut(&(place.org, place.swarm))
            .ok_or("unknown-swarm")?;
        touched.agents.push((place.org, place.swarm, agent));
        let settled = match &recorded.event.body {
            Body::AgentJoined(joined) => {
                if swarm.stopping {
                    return Err("swarm-stopping");
                }
                let last = swarm.agents.get(&agent);
                if joined.incarnation != last.map_or(0, |a| a.incarnation) + 1 {
                    return Err("other-incarnation");
                }
                let window_ms = swarm.policy.error_window_ms;
                let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
                let found = swarm
                    .agents
                    .entry(agent)
                    .or_insert_with(|| Agent::new(window_ms));
                swarm.total.take_out(&found.window);
                found.begin(joined, recorded.sequence, cause, window_ms)
            }
            Body::AgentLeft(left) => end(swarm, agent, left.incarnation)?,
            Body::AgentRemoved(removed) => {
                let settled = end(swarm, agent, removed.incarnation)?;
                self.taken_out((place.org, place.swarm, agent));
                settled
            }
            Body::AgentSuspected(v) => {
                return self.judge(place, agent, v.incarnation, Liveness::Suspected);
            }
            Body::AgentRecovered(v) => {
                return self.judge(place, agent, v.incarnation, Liveness::Alive);
            }
            Body::AgentFailed(v) => {
                return self.judge(place, agent, v.incarnation, Liveness::Failed);
            }
            _ => return Ok(Verdict::Ignored),
        };
        if let Some(sequence) = settled {
            self.close(sequence);
        }
        Ok(Verdict::Applied)
    }

    /// Applies a verdict. The open observation is answered by it, unless it still says something new (a later one may have
    /// taken the place of the one that was judged).
    fn judge(
        &mut self,
        place: Place,
        agent: AgentId,
        incarnation: u64,
        to: Liveness,
    ) -> Result<Verdict, Void> {
        let key = (place.org, place.swarm);
        let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
        let found = current(swarm, agent, incarnation)?;
        match (found.liveness, to) {
            (Liveness::Alive, Liveness::Suspected | Liveness::Failed)
            | (Liveness::Suspected, Liveness::Alive | Liveness::Failed) => found.liveness = to,
            _ => return Err("nothing-new"),
        }
        if to == Liveness::Failed {
            found.ended = None;
        }
        if let Some(sequence) = found.open
            && let Some(mark) = self.marks.get(&sequence)
            && let Wanted::Verdict(_, sighting, _) = &mark.wanted
            && verdict_on(to, *sighting).is_none()
        {
            self.close(sequence);
        }
        Ok(Verdict::Applied)
    }

    fn observed(
        &mut self,
        recorded: &Recorded,
        observed: &Observed,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        let (org, swarm, wanted, replaces) = match observed {
            Observed::Liveness {
                org_id,
                swarm_id,
                agent_id,
                incarnation,
                sighting,
                evidence,
            } => {
                let swarm = self
                    .swarms
                    .get_mut(&(*org_id, *swarm_id))
                    .ok_or("unknown-swarm")?;
                let agent = current(swarm, *agent_id, *incarnation)?;
                let replaces = agent.open.take();
                let new = verdict_on(agent.liveness, *sighting).is_some();
                if new {
                    agent.open = Some(recorded.sequence);
                } else if replaces.is_none() {
                    return Err("nothing-new");
                }
                let evidence = Box::new(evidence.clone());
                let wanted = new.then_some(Wanted::Verdict(*agent_id, *sighting, evidence));
                (*org_id, *swarm_id, wanted, replaces)
            }
            Observed::Samples {
                org_id,
                swarm_id,
                agents,
            } => {
                let swarm = self
                    .swarms
                    .get(&(*org_id, *swarm_id))
                    .ok_or("unknown-swarm")?;
                if agents.len() > SAMPLE_AGENTS_MAX {
                    return Err("part-too-large");
                }
                let mut known = agents.clone();
                known.retain(|id, sample| {
                    swarm
                        .agents
                        .get(id)
                        .is_some_and(|a| a.member && a.instance == sample.instance)
                });
                if known.is_empty() {
                    return Err("unknown-agents");
                }
                (*org_id, *swarm_id, Some(Wanted::Sampled(known)), None)
            }
            Observed::HostGone { .. } => return self.host_gone(recorded, observed, touched),
            Observed::CutOff { .. } | Observed::Stranger { .. } | Observed::Delivered { .. } => {
                return Ok(Verdict::Ignored);
            }
        };
        // The newest observation of an agent is what counts.
        if let Some(sequence) = replaces {
            self.marks
                .remove(&sequence)
                .map(|mark| self.open_ids.remove(&mark.id));
        }
        if let Some(wanted) = wanted {
            let id = recorded.event.id.0;
            let mark = Mark {
                id,
                org,
                swarm,
                wanted,
            };
            self.open_ids.insert(id, recorded.sequence);
            self.marks.insert(recorded.sequence, mark);
            touched.opened.push(recorded.sequence);
        }
        Ok(Verdict::Applied)
    }

    fn close_cause(&mut self, event: &Event) -> bool {
        let found = event.causation.and_then(|id| self.open_ids.get(&id));
        let Some(sequence) = found.copied() else {
            return false;
        };
        self.close(sequence);
        true
    }

    fn close(&mut self, sequence: u64) {
        let Some(mark) = self.marks.remove(&sequence) else {
            return;
        };
        self.open_ids.remove(&mark.id);
        if let Wanted::Verdict(agent, ..) = mark.wanted
            && let Some(swarm) = self.swarms.get_mut(&(mark.org, mark.swarm))
            && let Some(agent) = swarm.agents.get_mut(&agent)
            && agent.open == Some(sequence)
        {
            agent.open = None;
        }
    }

    /// Drops the observation on which `decide` failed: the shell observes anew what still holds. What the state demands is
    /// found by rules that cannot fail.
    fn set_aside(&mut self, input: u64) {
        let last = self.marks.range(..=input).next_back();
        if let Some(sequence) = last.map(|(sequence, _)| *sequence) {
            self.close(sequence);
        }
    }
}

/// What a sighting makes of an agent; `None` if nothing new.
pub(crate) const fn verdict_on(now: Liveness, sighting: Sighting) -> Option<Liveness> {
    match (now, sighting) {
        (Liveness::Alive, Sighting::Silent) => Some(Liveness::Suspected),
        (Liveness::Alive | Liveness::Suspected, Sighting::Gone) => Some(Liveness::Failed),
        (Liveness::Suspected, Sighting::Heard) => Some(Liveness::Alive),
        _ => None,
    }
}

pub(crate) fn current(
    swarm: &mut Swarm,
    agent: AgentId,
    incarnation: u64,
) -> Result<&mut Agent, Void> {
    let found = swarm.agents.get_mut(&agent).ok_or("unknown-agent")?;
    if found.incarnation != incarnation && !planted::is(Bug::OldIncarnationFailed) {
        return Err("other-incarnation");
    }
    if !found.member {
        return Err("not-a-member");
    }
    Ok(found)
}

fn end(swarm: &mut Swarm, agent: AgentId, incarnation: u64) -> Result<Option<u64>, Void> {
    Ok(current(swarm, agent, incarnation)?.go())
}
