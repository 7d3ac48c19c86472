//! Which core meets which message: the same that the service's own loop would give it, so that the states are the same.

use swarm_events::{Partition, Subject, read::partition_of_subject, subject::Service};

/// Where a message is folded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Route {
    /// The partition; `None`: none.
    pub(crate) partition: Option<Partition>,
    /// Whether the coordinator, the distributor and health meet it.
    pub(crate) coordinator: bool,
    pub(crate) distributor: bool,
    pub(crate) health: bool,
}

impl Route {
    /// The route of a subject.
    pub(crate) fn of(subject: &str) -> Self {
        let mut tokens = subject.split('.').skip(1);
        let (mut coordinator, mut distributor, mut health) = (false, false, false);
        match tokens.next() {
            Some("evt") => {
                let mut rest = tokens.skip(2);
                match (rest.next(), rest.next(), rest.next()) {
                    (Some("org"), Some(_), None) | (Some(_), Some("swarm" | "agent"), Some(_)) => {
                        (coordinator, distributor, health) = (true, true, true);
                    }
                    (Some(_), Some("task"), Some(_)) => distributor = true,
                    _ => {}
                }
            }
            Some("cmd") => {
                let rest: Vec<_> = tokens.skip(1).collect();
                coordinator = !rest.is_empty();
                distributor = matches!(
                    rest[..],
                    [
                        _,
                        _,
                        "cancel" | "retry" | "cancel_graph" | "discard" | "hand_back"
                    ]
                );
            }
            Some("ctl") => {
                let (service, _, verb, end) =
                    (tokens.next(), tokens.next(), tokens.next(), tokens.next());
                let claimed = verb == Some("claimed");
                let of = |of: Service| {
                    end.is_none()
                        && (claimed
                            || (service == Some(of.as_str())
                                && matches!(verb, Some("woken" | "observed"))))
                };
                (coordinator, distributor, health) = (
                    of(Service::Coordinator),
                    of(Service::Distributor),
                    of(Service::Health),
                );
            }
            _ => {}
        }
        Self {
            partition: partition_of_subject(subject),
            coordinator,
            distributor,
            health,
        }
    }
}

/// Whose verdict on an event counts: the service to whose aggregate it belongs.
pub(crate) const fn judge(subject: &Subject) -> Service {
    use swarm_events::subject::{AgentVerb, SwarmVerb};
    match subject {
        Subject::Task(..) | Subject::Swarm(_, SwarmVerb::Measured) => Service::Distributor,
        Subject::Swarm(_, SwarmVerb::Sampled)
        | Subject::Agent(
            _,
            AgentVerb::Suspected
            | AgentVerb::Recovered
            | AgentVerb::Failed
            | AgentVerb::Quarantined
            | AgentVerb::Released
            | AgentVerb::HostFailed,
            _,
        ) => Service::Health,
        Subject::Swarm(..) | Subject::Agent(..) | Subject::Org(..) | Subject::OrgCommand(..) => {
            Service::Coordinator
        }
        Subject::Command(_, verb) => verb.service(),
        Subject::Control(service, ..) => *service,
        Subject::Heartbeat(..) | Subject::Message(..) => Service::Health,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_events::subject::filter;
    use swarm_log::filter::matches;

    #[test]
    fn each_core_meets_what_its_service_asks_for() {
        let subjects = [
            "swarm.evt.07.o.org.created",
            "swarm.evt.07.o.s.swarm.created",
            "swarm.evt.07.o.s.swarm.what.ever",
            "swarm.evt.07.o.s.agent.joined.a",
            "swarm.evt.07.o.s.task.submitted",
            "swarm.evt.07.o.s.task.completed.a",
            "swarm.evt.07.o.s.task",
            "swarm.evt.07.o.s.other.x",
            "swarm.evt.07.o.org",
            "swarm.evt.07.o",
            "swarm.cmd.07.o.s.cancel",
            "swarm.cmd.07.o.s.retry",
            "swarm.cmd.07.o.s.cancel_graph",
            "swarm.cmd.07.o.s.discard",
            "swarm.cmd.07.o.s.hand_back",
            "swarm.cmd.07.o.s.change_topology",
            "swarm.cmd.07.o.s.ask",
            "swarm.cmd.07.o.org.save_template",
            "swarm.evt.07.o.org.template_saved",
            "swarm.evt.07.o.s.agent.seated.a",
            "swarm.cmd.07.o.s.create",
            "swarm.cmd.07.o.org.create_org",
            "swarm.cmd.07.x",
            "swarm.cmd.07",
            "swarm.ctl.coordinator.07.claimed",
            "swarm.ctl.scaler.07.claimed",
            "swarm.ctl.distributor.07.woken",
            "swarm.ctl.health.07.observed",
            "swarm.ctl.health.07.observed.x",
            "swarm.ctl.health.07.else",
        ];
        for subject in subjects {
            let asked = |service| {
                filter::inputs(service, None)
                    .iter()
                    .any(|filter| matches(filter, subject))
            };
            let route = Route::of(subject);
            assert_eq!(
                route.coordinator,
                asked(Service::Coordinator),
                "coordinator {subject}"
            );
            assert_eq!(
                route.distributor,
                asked(Service::Distributor),
                "distributor {subject}"
            );
            assert_eq!(route.health, asked(Service::Health), "health {subject}");
            assert_eq!(route.partition.map(Partition::number), Some(7), "{subject}");
        }
    }
}
