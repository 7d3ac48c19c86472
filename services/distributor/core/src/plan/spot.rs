//! What an agent's place in the topology lets it take.
//!
//! It is part of an agent's kind, so that a class looks at it once for all agents that have the same capabilities and the
//! same place, and not at each assignment. In a star or a full mesh there are few different places, whatever the number of
//! agents; in a tree each group of siblings is one.

use swarm_events::{
    planted::{self, Bug},
    topology::{Role, Topology},
};

use super::{
    kinds::{AgentPlan, Kind},
    ready::SwarmPlan,
    tree::Tree,
    turn::Circle,
};
use crate::{
    agent::{Agent, Health, Membership, has},
    class::of_class,
    plan::Plan,
    state::Distributor,
    swarm::Swarm,
};

/// The number of no agent.
pub(crate) const NOBODY: u32 = u32::MAX;
const ROLES: [Role; 3] = [Role::Worker, Role::Supervisor, Role::Coordinator];

const fn bit(role: Role) -> u8 {
    1 << role as u8
}

/// A place in the topology, as far as it decides what an agent is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Spot {
    /// It is given tasks that ask for no role.
    pub(crate) works: bool,
    /// The roles for whose tasks it is asked: its own, and those that nobody has if it leads.
    roles: u8,
    /// In a tree: number of the agent among whose children it works.
    pub(crate) group: u32,
}
impl Spot {
    /// Whether it may be given tasks that ask for this role, or for none.
    pub(crate) fn takes(self, role: Option<Role>) -> bool {
        match role {
            Some(role) => self.roles & bit(role) != 0 || planted::is(Bug::RoleIgnored),
            None => self.works || planted::is(Bug::SeatsIgnored),
        }
    }
}
impl Default for Spot {
    fn default() -> Self {
        Self {
            works: false,
            roles: 0,
            group: NOBODY,
        }
    }
}

/// Who has which role, and who stands in where nobody does.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles {
    /// Live agents by role.
    live: [u32; ROLES.len()],
    /// Roles that no live agent has.
    vacant: u8,
    /// Number of the leader.
    leader: Option<u32>,
}

/// How tasks find their agents.
#[derive(Debug, Default)]
pub(crate) enum Route {
    /// To anybody, and from anybody to anybody.
    #[default]
    Open,
    /// To anybody, and on to neighbours only.
    Neighbours,
    /// Down a tree.
    Tree(Tree),
    /// One after another, to whose turn it is.
    Circle(Circle),
}

impl SwarmPlan {
    /// Begins anew in another topology: what agents may take is found out again for each of them. Each is to be judged after
    /// it.
    pub(crate) fn reshape(&mut self, swarm: &Swarm) {
        if self.generation == swarm.shape.generation() {
            return;
        }
        for at in 0..self.agents.len() as u32 {
            self.leave_kind(at);
        }
        self.generation = swarm.shape.generation();
        self.kinds.clear();
        self.kind_numbers.clear();
        self.roles = Roles::default();
        for entry in &mut self.agents {
            entry.role = None;
        }
        self.route = match swarm.shape.topology() {
            Topology::Mesh(mesh) if !is_full(mesh) => Route::Neighbours,
            Topology::Star(_) | Topology::Mesh(_) => Route::Open,
            Topology::Hierarchical(_) => Route::Tree(Tree::default()),
            Topology::Ring(_) => Route::Circle(Circle::default()),
        };
        for class in 0..self.classes.len() as u32 {
            let waiting = &mut self.classes[class as usize];
            waiting.forget_kinds();
            if let Route::Tree(tree) = &mut self.route
                && waiting.within.is_some()
            {
                tree.parted.insert(class);
            }
            self.fix_heads(class);
        }
        if matches!(self.route, Route::Circle(_)) {
            self.line_up();
        }
    }

    /// Whether agents of a kind may be given tasks of a class: they have what it needs, and the place for it.
    pub(crate) fn fits(&self, class: u32, kind: &Kind) -> bool {
        let Some(class) = self.classes.get(class as usize) else {
            return false;
        };
        let text = class.words();
        kind.spot.takes(class.role)
            && text.is_some_and(|text| of_class(text).all(|word| has(&kind.capabilities, word)))
    }
    /// The same of one agent.
    pub(crate) fn agent_fits(&self, class: u32, agent: u32) -> bool {
        let entry = self.agents.get(agent as usize);
        let kind = entry.and_then(|entry| self.kinds.get(entry.kind? as usize));
        kind.is_some_and(|kind| self.fits(class, kind))
    }

    /// An agent's place, as far as it decides what it is given.
    fn spot(&self, swarm: &Swarm, at: u32, agent: &Agent) -> Spot {
        let mut roles = agent.role.map_or(0, bit);
        if agent.role.is_some() && self.roles.leader == Some(at) {
            roles |= self.roles.vacant;
        }
        let group = match &self.route {
            Route::Tree(_) => swarm.shape.group(agent.id),
            _ => None,
        };
        let group = group.and_then(|id| swarm.agent_numbers.get(&id).copied());
        Spot {
            works: agent.works,
            roles,
            group: group.unwrap_or(NOBODY),
        }
    }

    /// Counts who has which role. True: a role has its first agent, or lost its last one.
    fn count_role(&mut self, at: u32, agent: &Agent) -> bool {
        let live = agent.membership == Membership::Member && agent.health != Health::Failed;
        let role = agent.role.filter(|_| live);
        let entry: &mut AgentPlan = self.agent_or_new(at);
        let before = std::mem::replace(&mut entry.role, role);
        if before == role {
            return false;
        }
        if let Some(role) = before {
            self.roles.live[role as usize] -= 1;
        }
        if let Some(role) = role {
            self.roles.live[role as usize] += 1;
        }
        self.vacant() != self.roles.vacant
    }
    fn vacant(&self) -> u8 {
        let counts = ROLES.iter().zip(self.roles.live);
        counts.fold(0, |vacant, (role, live)| {
            vacant | if live == 0 { bit(*role) } else { 0 }
        })
    }

    /// The leader, where it stands in for this role.
    pub(crate) fn stands_in(&self, role: Role) -> Option<u32> {
        self.roles
            .leader
            .filter(|_| self.roles.vacant & bit(role) != 0)
    }
}

impl Plan {
    /// Puts an agent among those of its kind. What it may take is to be looked at after it.
    pub(super) fn find_kind(&mut self, state: &Distributor, number: u32, at: u32, agent: &Agent) {
        let (Some(swarm), Some(plan)) = (state.swarm(number), self.swarms.get_mut(number as usize))
        else {
            return;
        };
        plan.count_role(at, agent);
        let spot = plan.spot(swarm, at, agent);
        plan.join(at, agent, spot);
        plan.place_in_tree(swarm, at);
    }

    /// Once all that changed is known: who leads, and for which roles the leader stands in.
    pub(super) fn settle_roles(&mut self, state: &Distributor, number: u32) {
        let (Some(swarm), Some(plan)) = (state.swarm(number), self.swarms.get_mut(number as usize))
        else {
            return;
        };
        let leader = swarm.shape.leader();
        let leader = leader.and_then(|id| swarm.agent_numbers.get(&id).copied());
        let vacant = plan.vacant();
        let before = (plan.roles.leader, plan.roles.vacant);
        if before == (leader, vacant) {
            return;
        }
        plan.roles.leader = leader;
        plan.roles.vacant = vacant;
        let mut again = vec![leader];
        if before.0 != leader {
            again.push(before.0);
        }
        for at in again.into_iter().flatten() {
            if let Some(agent) = swarm.agents.get(at as usize) {
                self.find_kind(state, number, at, agent);
                self.refresh_agent(state, number, at);
            }
        }
    }
}

/// Whether everybody is everybody's neighbour.
pub(crate) fn is_full(mesh: &swarm_events::topology::Mesh) -> bool {
    mesh.connections.is_empty()
        && mesh.connection_strategy == swarm_events::topology::ConnectionStrategy::Full
}
