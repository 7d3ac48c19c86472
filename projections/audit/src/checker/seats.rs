//! What is promised of topologies themselves: who leads, who sits where, and how a change ends. Seats are read by the same
//! fold as everybody's; whether they are as they must be is told from the design alone.

use std::collections::BTreeSet;

use swarm_events::{
    AgentId, Body, Recorded, Service, Timestamp,
    topology::{LeaderElected, Role, Seat, Seated, Topology},
};
use swarm_topology::Shape;

use super::{
    Checker,
    cause::News,
    processes::LATE_MS,
    swarm::{Agent, Swarm},
};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

impl Checker {
    /// An event about the topology, a seat or the leader. `None`: it is about something else.
    pub(super) fn shape_event(
        &mut self,
        number: usize,
        about: Option<AgentId>,
        recorded: &Recorded,
    ) -> Option<Outcome> {
        let body = &recorded.event.body;
        let invariant = match body {
            Body::SwarmLeaderElected(_) => Invariant::OneLeader,
            Body::AgentSeated(_)
            | Body::SwarmTopologyPlanned(_)
            | Body::SwarmTopologyChanged(_)
            | Body::SwarmTopologyKept(_) => Invariant::SeatsFollowTheRule,
            _ => return None,
        };
        let sequence = recorded.sequence;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &mut self.swarms[number];
        let home = swarm.home;
        // The coordinator alone writes them: if none of its decisions were lost, it knows of all that stand before this one.
        let whole = self.homes[home].owners[Service::Coordinator as usize].is_whole();
        let Some(shape) = swarm.shape.as_deref_mut() else {
            return Some(Err("unknown-swarm"));
        };
        self.notes.checked(invariant);
        if let Err(why) = shape.apply(about, body) {
            if whole {
                let what = body.type_name();
                self.notes
                    .broken(invariant, sequence, || format!("{what} is void: {why}"));
            }
            return Some(Err(why));
        }
        let swarm = &self.swarms[number];
        let wrong = match (body, about) {
            (Body::SwarmLeaderElected(elected), _) => misled(swarm, elected, cause),
            (Body::AgentSeated(seated), Some(agent)) => misplaced(swarm, agent, seated, cause),
            // A seat that was lost is given again.
            (Body::SwarmTopologyChanged(_), _) if whole => swarm
                .shape
                .as_deref()
                .and_then(|shape| unseated(swarm, shape, cause).or_else(|| unsound(shape))),
            _ => None,
        };
        if let Some(wrong) = wrong {
            self.notes.broken(invariant, sequence, || wrong);
        }
        let news = News::Shaped(number, about, Box::new(body.clone()));
        self.homes[home].cause.tell(sequence, news);
        Some(Ok(()))
    }

    /// At rest everybody has a seat, and somebody leads.
    pub(super) fn seats_are_settled(&mut self, last: u64) {
        let late = self.last.1.minus_millis(LATE_MS);
        for swarm in self.swarms.iter().filter(|swarm| swarm.changed < late) {
            let Some(shape) = swarm.shape.as_deref().filter(|_| !swarm.stopping()) else {
                continue;
            };
            let members: BTreeSet<AgentId> = swarm.members_now().collect();
            // Logs from before there were seats have none.
            if shape.seated() == 0 && shape.leader().is_none() {
                continue;
            }
            self.notes.checked(Invariant::SeatsFollowTheRule);
            let wrong = if shape.staged().is_some() {
                Some("a change of the topology is still under way".to_owned())
            } else if let Some(id) = members.iter().find(|id| shape.seat(**id).is_none()) {
                Some(format!("agent {id} has no seat"))
            } else if let Some((id, _)) = shape.seats().find(|(id, _)| !members.contains(id)) {
                Some(format!("agent {id} has a seat, and is no member"))
            } else {
                unsound(shape).or_else(|| idle(swarm, shape))
            };
            if let Some(wrong) = wrong {
                self.notes
                    .broken(Invariant::SeatsFollowTheRule, last, || wrong);
            }
            self.notes.checked(Invariant::OneLeader);
            let healthy = members.iter().any(|id| swarm.may_lead(*id, last));
            let wrong = match shape.leader() {
                Some(id) if !members.contains(&id) => {
                    Some(format!("agent {id} leads, and is no member"))
                }
                None if healthy => Some("nobody leads".to_owned()),
                _ => None,
            };
            if let Some(wrong) = wrong {
                self.notes.broken(Invariant::OneLeader, last, || wrong);
            }
        }
    }
}

impl Swarm {
    fn members_now(&self) -> impl Iterator<Item = AgentId> {
        let agents = self.agents.iter();
        agents
            .filter(|(_, agent)| agent.is_member())
            .map(|(id, _)| *id)
    }
    /// Whether nothing spoke against an agent for someone who had met everything up to `cause`, and nothing does now.
    fn may_lead(&self, id: AgentId, cause: u64) -> bool {
        let agent = self.agents.get(&id);
        let then = agent.and_then(|agent| agent.seen_at(cause));
        let leaves = self.wishes.get(&id).is_some_and(|wish| {
            let turn = wish.now;
            turn.scaled_away || turn.stop.is_some()
        });
        !leaves
            && agent.is_some_and(Agent::free_of_doubt)
            && then.is_some_and(|seen| {
                seen.living && !seen.draining && seen.quarantined_since == Timestamp::ZERO
            })
    }
    /// Whether an agent was a member for someone who had met everything up to `cause`, and still is.
    pub(super) fn stays(&self, id: AgentId, cause: u64) -> bool {
        let Some(agent) = self.agents.get(&id) else {
            return false;
        };
        let then = agent.seen_at(cause);
        agent.is_member() && then.is_some_and(|seen| seen.member && !seen.failed)
    }
    /// Whether it was one then, or at any time since.
    fn has_been(&self, id: AgentId, cause: u64) -> bool {
        let agent = self.agents.get(&id);
        agent.is_some_and(|agent| agent.was_member_since(cause))
    }
}

/// What is wrong with an election.
fn misled(swarm: &Swarm, elected: &LeaderElected, cause: u64) -> Option<String> {
    if let Some(before) = elected.before
        && elected.leader != Some(before)
        && swarm.stays(before, cause)
    {
        return Some(format!(
            "agent {before} leads and is a member, and another is elected"
        ));
    }
    let Some(leader) = elected.leader else {
        let mut members = swarm.members_now();
        return members
            .find(|id| swarm.may_lead(*id, cause))
            .map(|id| format!("nobody is elected, and agent {id} could have been"));
    };
    if elected.before == Some(leader) {
        return Some(format!("agent {leader} leads already"));
    }
    if !swarm.has_been(leader, cause) {
        return Some(format!("agent {leader} is elected, and is no member"));
    }
    let incarnation = swarm.agents.get(&leader).map_or(0, |a| a.incarnation);
    (elected.incarnation > incarnation)
        .then(|| format!("agent {leader} has no incarnation {}", elected.incarnation))
}

/// What is wrong with a seat by itself.
fn misplaced(swarm: &Swarm, agent: AgentId, seated: &Seated, cause: u64) -> Option<String> {
    let Some(seat) = &seated.seat else {
        return swarm
            .stays(agent, cause)
            .then(|| format!("agent {agent} loses its seat, and is a member"));
    };
    if !swarm.has_been(agent, cause) {
        return Some(format!("agent {agent} is seated, and is no member"));
    }
    let shape = swarm.shape.as_deref()?;
    let generations = [Some(shape.standing()), shape.staged()];
    let mut generations = generations.into_iter().flatten();
    let of = generations.find(|of| of.number() == seated.generation)?;
    strange(of.topology(), seat).map(|wrong| format!("agent {agent} {wrong}"))
}

/// What no seat in such a topology is.
fn strange(topology: &Topology, seat: &Seat) -> Option<&'static str> {
    let flat = seat
        .parent
        .is_some()
        .then_some("has a parent, and it is no tree");
    match topology {
        Topology::Star(_) => {
            let hub = seat.role == Role::Coordinator;
            flat.or((seat.role == Role::Supervisor).then_some("is a supervisor in a star"))
                .or((hub != (seat.level == 0)).then_some("has not the level of its role"))
                .or((hub && seat.standby).then_some("stands by for itself"))
        }
        Topology::Mesh(_) | Topology::Ring(_) => flat
            .or((seat.role != Role::Worker).then_some("has a role among equals"))
            .or((seat.level != 0).then_some("has a level among equals"))
            .or(seat.standby.then_some("stands by for nobody")),
        Topology::Hierarchical(tree) => {
            let level = usize::try_from(seat.level).ok();
            let level = level.and_then(|at| tree.levels.get(at));
            match level {
                None => Some("is on a level that there is not"),
                Some(level) if level.role != seat.role => Some("has not the role of its level"),
                Some(_) if seat.standby => Some("stands by in a tree"),
                Some(_) => None,
            }
        }
    }
}

/// A member without a seat, when a topology changed.
fn unseated(swarm: &Swarm, shape: &Shape, cause: u64) -> Option<String> {
    let mut members = swarm.members_now();
    members
        .find(|id| swarm.stays(*id, cause) && shape.seat(*id).is_none())
        .map(|id| format!("the topology changed, and agent {id} has no seat in it"))
}

/// What is wrong with the seats as a whole.
fn unsound(shape: &Shape) -> Option<String> {
    let count = |is: fn(&Seat) -> bool| shape.seats().filter(|(_, seat)| is(seat)).count();
    match shape.topology() {
        Topology::Star(star) => {
            let hubs = count(|seat| seat.role == Role::Coordinator);
            let most = star.coordinator_count as usize;
            if hubs > most {
                return Some(format!("{hubs} hubs, and {most} are the most"));
            }
            let standby = count(|seat| seat.standby);
            if standby > usize::from(star.failover_coordinator) {
                return Some(format!("{standby} agents stand by"));
            }
            let working = count(|seat| seat.works);
            let most = star.max_workers? as usize;
            (working > most).then(|| format!("{working} agents work, and {most} are the most"))
        }
        Topology::Mesh(_) | Topology::Ring(_) => shape
            .seats()
            .find(|(_, seat)| !seat.works)
            .map(|(id, _)| format!("agent {id} is one among equals, and does not work")),
        Topology::Hierarchical(tree) => {
            let ratio = tree.parent_child_ratio as usize;
            // As deep as it gets: with a level between, agents without a parent stand at the top one that there is.
            let top = shape.seats().map(|(_, seat)| seat.level).min();
            shape.seats().find_map(|(id, seat)| match seat.parent {
                None => (Some(seat.level) != top)
                    .then(|| format!("agent {id} is below the top, and has no parent")),
                Some(parent) => match shape.seat(parent) {
                    None => Some(format!("agent {parent}, the parent of {id}, has no seat")),
                    Some(above) if above.level >= seat.level => {
                        Some(format!("agent {parent} is not above {id}, its child"))
                    }
                    Some(_) => {
                        let children = shape.children(parent).count();
                        (children > ratio).then(|| {
                            format!("agent {parent} has {children} children, and {ratio} are the most")
                        })
                    }
                },
            })
        }
    }
}

/// Nobody works although there is somebody.
fn idle(swarm: &Swarm, shape: &Shape) -> Option<String> {
    let named = matches!(shape.topology(), Topology::Star(star) if !star.workers.is_empty());
    let works = shape.seats().any(|(_, seat)| seat.works);
    let alone = swarm.members_now().next().is_some() && !works;
    (alone && !named).then(|| "there are agents, and none of them works".to_owned())
}
