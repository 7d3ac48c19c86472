//! Who leads.

use swarm_events::{
    AgentId,
    planted::{self, Bug},
    topology::Role,
};

use crate::{Members, Shape};

/// Another leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Election {
    /// Who; nobody, if no agent is healthy.
    pub leader: Option<AgentId>,
    /// By what rule, and what became of the one before.
    pub reason: String,
    /// How many agents could have been.
    pub eligible: u32,
}

impl Shape {
    /// Who leads from now on; `None`: whoever leads stays. To be asked once the seats are settled: a hub that is not seated
    /// yet cannot be found.
    ///
    /// The hub with the lowest place, or the top of the tree; else the oldest healthy agent made for coordinator; else the
    /// one that has been there the longest. It stays until it goes or fails.
    pub fn elect(&self, members: &Members) -> Option<Election> {
        let before = self.leader;
        if before.is_some_and(|leader| members.contains(leader)) && !planted::is(Bug::ElectsAnyway)
        {
            return None;
        }
        let fate = match before {
            Some(_) => "the one before has gone or failed",
            None => "nobody led",
        };
        let healthy = |id: &AgentId| members.get(*id).is_some_and(|member| member.healthy);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let elected = |leader, rule: &str, eligible: usize| {
            (before != Some(leader)).then(|| Election {
                leader: Some(leader),
                reason: format!("{rule}; {fate}"),
                eligible: count(eligible),
            })
        };
        let seats = &self.standing.seats;
        let coordinator = |id: &AgentId| {
            let role = seats.get(*id).map(|seat| seat.role);
            role == Some(Role::Coordinator)
        };
        let mut hubs = seats
            .inner_by_place()
            .take_while(coordinator)
            .filter(healthy);
        if let Some(hub) = hubs.next() {
            return elected(
                hub,
                "the coordinator with the lowest place",
                1 + hubs.count(),
            );
        }
        let mut made = members
            .made(Role::Coordinator, Members::OLDEST)
            .filter(|member| member.healthy);
        if let Some(first) = made.next() {
            return elected(
                first.id,
                "the oldest healthy agent that is made for coordinator",
                1 + made.count(),
            );
        }
        let mut rest = members.iter().filter(|member| member.healthy);
        if let Some(first) = rest.next() {
            return elected(
                first.id,
                "the healthy agent that has been there the longest",
                1 + rest.count(),
            );
        }
        before.map(|_| Election {
            leader: None,
            reason: format!("no agent is healthy; {fate}"),
            eligible: 0,
        })
    }
}
