//! What other services and hosts say in a random history.

use swarm_events::{
    Body, Event, EventId, Problem, Subject,
    agent::{
        Cause, Failed, HostFailed, Launched, LimitedBy, Quarantined, Recovered, Released,
        SpawnClaimed, SpawnDeclined, Suspected,
    },
    envelope::Source,
    subject::{AgentVerb, Service},
};

use crate::{
    run::Run,
    support::{
        self, agent,
        hosts::{code, exited, figures, host},
        place,
    },
};

impl Run {
    /// What a host says of the agent's current request, or of that number.
    pub fn host(&mut self, s: usize, a: u128, number: u64, what: u8, h: u128) {
        let current = self.given.0.state.swarm(support::org(), place(s).swarm);
        let current = current.and_then(|swarm| swarm.agents.get(&agent(a))?.managed.as_ref());
        let spawn = current.map_or(number, |managed| {
            (managed.spawn + 1).saturating_sub(number.min(2))
        });
        let (verb, body): (_, Body) = match what {
            0 | 1 => {
                let claimed = SpawnClaimed {
                    spawn,
                    host: host(h),
                };
                (AgentVerb::SpawnClaimed, claimed.into())
            }
            2 => {
                let launched = Launched {
                    spawn,
                    host: host(h),
                    pid: 9,
                    limited_by: LimitedBy::Rlimit,
                    unlimited: vec!["cpu_percent".into()],
                };
                (AgentVerb::Launched, launched.into())
            }
            3 => {
                let declined = SpawnDeclined {
                    spawn,
                    host: host(h),
                    problem: Problem::new("full", "no room"),
                };
                (AgentVerb::SpawnDeclined, declined.into())
            }
            what => {
                let status = i32::from(what == 4);
                let mut exit = exited(spawn, h, code(status), number * 4_000);
                exit.host_leaving = number == 3 && what == 5;
                (AgentVerb::Exited, exit.into())
            }
        };
        let subject = Subject::Agent(place(s), verb, agent(a));
        let source = Source::Host(host(h).instance);
        let world = &mut self.given.0;
        let id = EventId(world.id());
        let event = Event::new(id, source, world.now, &subject, agent(a).0, body);
        world.event(&subject, &event);
    }

    /// What health says of an agent.
    pub fn judge(&mut self, s: usize, a: u128, incarnation: u64, verdict: u8) {
        self.health.1 += 1;
        let (epoch, ordinal) = self.health;
        let evidence = support::evidence(1, 1);
        let at = |verb| Subject::Agent(place(s), verb, agent(a));
        let world = &mut self.given.0;
        let about = agent(a).0;
        match verdict {
            0 => world.other(
                Service::Health,
                at(AgentVerb::Suspected),
                about,
                Suspected {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
            1 => world.other(
                Service::Health,
                at(AgentVerb::Recovered),
                about,
                Recovered {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
            2 => {
                let quarantined = Quarantined {
                    incarnation,
                    cause: Cause::Stuck,
                    figures: figures(),
                    until: None,
                };
                let subject = at(AgentVerb::Quarantined);
                world.other(Service::Health, subject, about, quarantined, epoch, ordinal)
            }
            3 => {
                let released = Released {
                    incarnation,
                    cause: Cause::Stuck,
                    figures: figures(),
                };
                let subject = at(AgentVerb::Released);
                world.other(Service::Health, subject, about, released, epoch, ordinal)
            }
            4 => {
                let failed = HostFailed {
                    spawn: incarnation,
                    host: host(1),
                    evidence,
                };
                let subject = at(AgentVerb::HostFailed);
                world.other(Service::Health, subject, about, failed, epoch, ordinal)
            }
            _ => world.other(
                Service::Health,
                at(AgentVerb::Failed),
                about,
                Failed {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
        };
    }
}
