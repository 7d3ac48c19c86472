//! The answers to observations, and to what the state demands.

use swarm_events::{
    AgentId, Subject,
    agent::{
        Evidence, Failed, HostFailed, LivenessRule, Quarantined, Recovered, Released, Suspected,
    },
    control::Sighting,
    decider::Decision,
    planted::{self, Bug},
    subject::{AgentVerb, SwarmVerb},
    swarm::Sampled,
};

use crate::{
    Health, Liveness, Mark, Plan, Swarm, Wanted,
    agent::Agent,
    fold::verdict_on,
    plan::Kind,
    rules::{CAUSES, Demand},
    swarm::Key,
};

impl Health {
    pub(crate) fn answer(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        let room = limit - self.answer_observations(plan, limit, out).min(limit);
        self.answer_demands(plan, room, out);
    }

    fn answer_observations(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) -> usize {
        let before = out.len();
        while out.len() - before < limit
            && let Some(sequence) = plan.due.pop_first()
        {
            // A mark that was replaced or settled meanwhile is due no more.
            let Some(mark) = self.marks.get(&sequence) else {
                continue;
            };
            if let Some(decision) = self.about(mark) {
                plan.under_way.insert(mark.id, sequence);
                out.push(decision.caused_by(mark.id));
            }
        }
        out.len() - before
    }

    fn about(&self, mark: &Mark) -> Option<Decision> {
        let swarm = self.swarms.get(&(mark.org, mark.swarm))?;
        match &mark.wanted {
            Wanted::Sampled(agents) => {
                let sampled = Sampled {
                    agents: agents.clone(),
                };
                let subject = Subject::Swarm(swarm.place, SwarmVerb::Sampled);
                Some(Decision::new(subject, swarm.place.swarm.0, sampled))
            }
            Wanted::Verdict(agent, sighting, evidence) => {
                let found = swarm.agents.get(agent);
                if found.and_then(Agent::unjudged_exit).is_some()
                    && !planted::is(Bug::ExitNotJudged)
                {
                    // Its host knows better than who only saw its silence; the verdict on its end settles this too.
                    return None;
                }
                verdict(swarm, *agent, *sighting, evidence)
            }
        }
    }

    fn answer_demands(&self, plan: &mut Plan, mut room: usize, out: &mut Vec<Decision>) {
        let now = self.head.now;
        plan.ring(now);
        while let Some(&key) = plan.agents.first() {
            let found = self.swarms.get(&(key.0, key.1)).and_then(|swarm| {
                let agent = swarm.agents.get(&key.2)?;
                Some((swarm, agent))
            });
            let mut is_spared = false;
            let mut timer = None;
            if let Some((swarm, agent)) = found {
                for (kind, decision) in self.demands(swarm, key, agent) {
                    if plan.demands.contains(&(key, kind)) {
                        continue;
                    }
                    if room == 0 {
                        return;
                    }
                    room -= 1;
                    plan.demands.insert((key, kind));
                    out.push(decision);
                }
                is_spared = !swarm.stopping && agent.is_watched() && swarm.is_spared(agent, now);
                timer = swarm.timer(agent, now);
            }
            plan.agents.remove(&key);
            plan.set_timer(key, timer);
            if is_spared {
                plan.spared.insert(key);
            } else {
                plan.spared.remove(&key);
            }
        }
    }

    /// What the state demands about an agent: a pure function of it, so that a new owner finds the same.
    fn demands(&self, swarm: &Swarm, key: Key, agent: &Agent) -> Vec<(Kind, Decision)> {
        let about = |verb| Subject::Agent(swarm.place, verb, key.2);
        let id = key.2.0;
        let incarnation = agent.incarnation;
        let mut out = Vec::new();
        if swarm.deleted {
            return out;
        }
        if let Some((gone, host)) = self.gone_host_of(agent) {
            let failed = HostFailed {
                spawn: agent.process.spawn,
                host,
                evidence: gone.evidence.clone(),
            };
            let decision = Decision::new(about(AgentVerb::HostFailed), id, failed);
            out.push((Kind::HostFailed, decision.caused_by(gone.event)));
        }
        if let Some(event) = agent.unjudged_exit()
            && !planted::is(Bug::ExitNotJudged)
        {
            let failed = Failed {
                incarnation,
                // The host waited for its end: no age, and no limit to hold it against.
                evidence: Evidence {
                    rule: LivenessRule::Exited,
                    last_heartbeat_at: agent.usage.map(|usage| usage.last_heartbeat_at),
                    age_ms: 0,
                    limit_ms: 0,
                },
            };
            let decision = Decision::new(about(AgentVerb::Failed), id, failed);
            out.push((Kind::Exited, decision.caused_by(event)));
            return out;
        }
        if swarm.stopping || !agent.is_watched() {
            return out;
        }
        for cause in CAUSES {
            let decision = match swarm.demand(agent, cause, self.head.now) {
                None => continue,
                Some(Demand::Quarantine(figures, until, event)) => {
                    let quarantined = Quarantined {
                        incarnation,
                        cause,
                        figures,
                        until,
                    };
                    Decision::new(about(AgentVerb::Quarantined), id, quarantined).caused_by(event)
                }
                Some(Demand::Release(figures, event)) => {
                    let released = Released {
                        incarnation,
                        cause,
                        figures,
                    };
                    Decision::new(about(AgentVerb::Released), id, released).caused_by(event)
                }
            };
            out.push((Kind::Quarantine(cause), decision));
        }
        out
    }
}

fn verdict(
    swarm: &Swarm,
    id: AgentId,
    sighting: Sighting,
    evidence: &Evidence,
) -> Option<Decision> {
    let agent = swarm.agents.get(&id)?;
    let incarnation = agent.incarnation;
    let evidence = evidence.clone();
    let about = |verb| Subject::Agent(swarm.place, verb, id);
    Some(match verdict_on(agent.liveness, sighting)? {
        Liveness::Suspected => Decision::new(
            about(AgentVerb::Suspected),
            id.0,
            Suspected {
                incarnation,
                evidence,
            },
        ),
        Liveness::Alive => Decision::new(
            about(AgentVerb::Recovered),
            id.0,
            Recovered {
                incarnation,
                evidence,
            },
        ),
        Liveness::Failed => Decision::new(
            about(AgentVerb::Failed),
            id.0,
            Failed {
                incarnation,
                evidence,
            },
        ),
    })
}
