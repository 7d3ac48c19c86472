//! The answers to observations.

use swarm_events::{
    AgentId, Subject,
    agent::{Evidence, Failed, Recovered, Suspected},
    control::Sighting,
    decider::Decision,
    subject::{AgentVerb, SwarmVerb},
    swarm::Sampled,
};

use crate::{Health, Liveness, Mark, Plan, Swarm, Wanted, fold::verdict_on};

impl Health {
    pub(crate) fn answer(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        for _ in 0..limit {
            let decision = loop {
                let Some(sequence) = plan.due.pop_first() else {
                    return;
                };
                // A mark that was replaced or settled meanwhile is due no more.
                let Some(mark) = self.marks.get(&sequence) else {
                    continue;
                };
                if let Some(decision) = self.about(mark) {
                    plan.under_way.insert(mark.id, sequence);
                    break decision.caused_by(mark.id);
                }
            };
            out.push(decision);
        }
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
                verdict(swarm, *agent, *sighting, evidence)
            }
        }
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
