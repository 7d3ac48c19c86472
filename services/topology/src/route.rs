//! What follows from seats: who may take which task, and who may talk to whom.

use std::fmt;

use swarm_events::{
    AgentId,
    topology::{ConnectionStrategy, LEVELS_MAX, Mesh, Role, Seat, Topology},
};

use crate::{Generation, Shape};

/// Why a message cannot go: the edge that there is not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MissingEdge {
    /// The sender.
    pub from: AgentId,
    /// The recipient.
    pub to: AgentId,
    /// The rule that would have to give it.
    pub why: &'static str,
}
impl fmt::Display for MissingEdge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no edge from {} to {}: {}", self.from, self.to, self.why)
    }
}
impl std::error::Error for MissingEdge {}

impl Shape {
    /// Whether it is given tasks that ask for no role. An agent without a seat works in a star, as agents did before there
    /// were seats, and nowhere else.
    pub fn works(&self, agent: AgentId) -> bool {
        match self.seat(agent) {
            Some(seat) => seat.works,
            None => matches!(self.topology(), Topology::Star(_)),
        }
    }

    /// Whether there is an edge from one agent to another. Replies and receipts go back along it: [`Self::may_reply`].
    ///
    /// # Errors
    /// The edge that is missing.
    pub fn may_message(&self, from: AgentId, to: AgentId) -> Result<(), MissingEdge> {
        let missing = |why| Err(MissingEdge { from, to, why });
        let (Some(a), Some(b)) = (self.seat(from), self.seat(to)) else {
            return missing("one of them has no seat in the topology");
        };
        if from == to {
            return missing("nobody sends to itself");
        }
        match self.topology() {
            Topology::Star(_) => {
                if is_hub(a) || is_hub(b) {
                    return Ok(());
                }
                missing("in a star workers talk to a hub, not to each other")
            }
            Topology::Mesh(mesh) => {
                if self.linked(mesh, (from, a), (to, b)) {
                    return Ok(());
                }
                missing("in a mesh only neighbours talk to each other")
            }
            Topology::Hierarchical(_) => {
                if a.parent == Some(to)
                    || b.parent == Some(from)
                    || (a.parent.is_none() && b.parent.is_none())
                {
                    return Ok(());
                }
                missing("in a tree only parent and child talk to each other, and those at the top")
            }
            Topology::Ring(_) => {
                if self.standing.seats.after(a.place).next() == Some(to) {
                    return Ok(());
                }
                missing("in a ring an agent talks to the next one only")
            }
        }
    }
    /// Whether a reply or a receipt may go from one agent to another: along an edge, or back along one.
    pub fn may_reply(&self, from: AgentId, to: AgentId) -> Result<(), MissingEdge> {
        self.may_message(from, to)
            .or_else(|missing| self.may_message(to, from).map_err(|_| missing))
    }

    /// To whom it has an edge. In a full mesh that is everybody: take as many as you need.
    pub fn neighbours(&self, agent: AgentId) -> Box<dyn Iterator<Item = AgentId> + '_> {
        let seats = &self.standing.seats;
        let Some(seat) = seats.get(agent).copied() else {
            return Box::new(std::iter::empty());
        };
        let others = move || {
            let all = seats.iter().map(|(id, _)| id);
            Box::new(all.filter(move |id| *id != agent))
        };
        match self.topology() {
            Topology::Star(_) if is_hub(&seat) => others(),
            Topology::Star(_) => Box::new(self.inner()),
            Topology::Mesh(_) if !self.standing.links.is_empty() => {
                Box::new(self.standing.links.of_agent(seats, agent).into_iter())
            }
            Topology::Mesh(mesh) => match mesh.connection_strategy {
                ConnectionStrategy::Full => others(),
                ConnectionStrategy::Nearest if seats.len() <= neighbours(mesh) => others(),
                ConnectionStrategy::Nearest => {
                    let each = neighbours(mesh) / 2;
                    let after = seats.after(seat.place).take(each);
                    Box::new(after.chain(seats.before(seat.place).take(each)))
                }
            },
            Topology::Hierarchical(_) => {
                let tops = seat.parent.is_none().then(|| {
                    let tops = self.tops();
                    tops.filter(move |id| *id != agent && self.parent(*id).is_none())
                });
                let parent = seat.parent.filter(|parent| seats.get(*parent).is_some());
                let above = parent.into_iter().chain(tops.into_iter().flatten());
                Box::new(above.chain(seats.children(agent)))
            }
            Topology::Ring(_) => {
                let next = seats.after(seat.place).next();
                Box::new(next.filter(|next| *next != agent).into_iter())
            }
        }
    }
    /// All edges, by the place of the first end: in a ring from each to the next, elsewhere each once, from the one that came
    /// first. In a full mesh of many agents there are very many: take as many as you need.
    pub fn edges(&self) -> impl Iterator<Item = (AgentId, AgentId)> {
        let ring = matches!(self.topology(), Topology::Ring(_));
        self.seats().flat_map(move |(from, a)| {
            self.neighbours(from)
                .filter(move |to| ring || self.seat(*to).is_some_and(|b| b.place > a.place))
                .map(move |to| (from, to))
        })
    }

    /// Whether an idle agent may take over what waits at another one.
    pub fn may_steal(&self, thief: AgentId, holder: AgentId) -> bool {
        if thief == holder || !self.works(thief) {
            return false;
        }
        match self.topology() {
            Topology::Star(_) => true,
            Topology::Mesh(_) => self.may_message(thief, holder).is_ok(),
            Topology::Hierarchical(_) => {
                let group = self.group(thief);
                group.is_some() && group == self.group(holder)
            }
            Topology::Ring(_) => false,
        }
    }
    /// In a tree: the agent among whose children it works. A coordinator or supervisor counts as a child of its own.
    pub fn group(&self, agent: AgentId) -> Option<AgentId> {
        let seat = self.seat(agent)?;
        if seat.role == Role::Worker {
            seat.parent
        } else {
            Some(agent)
        }
    }
    /// Its parent, in a tree.
    pub fn parent(&self, agent: AgentId) -> Option<AgentId> {
        self.seat(agent)?.parent
    }
    /// Its children, in a tree, by place.
    pub fn children(&self, agent: AgentId) -> impl Iterator<Item = AgentId> {
        self.standing.seats.children(agent)
    }
    /// Those at the highest level that there is, by place: a tree's tops, a star's hubs, all peers.
    pub fn tops(&self) -> impl Iterator<Item = AgentId> {
        let seats = &self.standing.seats;
        let top = seats.top_level().unwrap_or(0);
        seats.level_from(top, 0).map(|(_, id)| id)
    }
    /// Coordinators and supervisors, from the top, by place.
    pub fn inner(&self) -> impl Iterator<Item = AgentId> {
        self.standing.seats.inner_by_place()
    }
    /// Those above it in a tree, from the top, without itself.
    pub fn path(&self, agent: AgentId) -> Vec<AgentId> {
        let mut path = Vec::new();
        let mut at = agent;
        while let Some(parent) = self.parent(at)
            && path.len() < LEVELS_MAX
        {
            path.push(parent);
            at = parent;
        }
        path.reverse();
        path
    }
    /// Whether it is below another one in a tree.
    pub fn is_below(&self, top: AgentId, agent: AgentId) -> bool {
        let mut at = agent;
        for _ in 0..LEVELS_MAX {
            match self.parent(at) {
                Some(parent) if parent == top => return true,
                Some(parent) => at = parent,
                None => return false,
            }
        }
        false
    }

    /// The first in the circle after an agent for which `may` holds, itself last; from the lowest place if there is none, or
    /// it has no seat.
    pub fn next_in_ring(
        &self,
        after: Option<AgentId>,
        may: impl FnMut(AgentId) -> bool,
    ) -> Option<AgentId> {
        let place = after
            .and_then(|agent| self.seat(agent))
            .map(|seat| seat.place);
        self.next_after_place(place, may)
    }
    /// The same after a place, which need not be taken any more.
    pub fn next_after_place(
        &self,
        place: Option<u64>,
        mut may: impl FnMut(AgentId) -> bool,
    ) -> Option<AgentId> {
        let from = place.unwrap_or(u64::MAX);
        self.standing.seats.after(from).find(|agent| may(*agent))
    }

    fn linked(&self, mesh: &Mesh, (from, a): (AgentId, &Seat), (to, b): (AgentId, &Seat)) -> bool {
        let Generation { links, seats, .. } = &self.standing;
        if !links.is_empty() {
            return links.of_agent(seats, from).contains(&to);
        }
        match mesh.connection_strategy {
            ConnectionStrategy::Full => true,
            ConnectionStrategy::Nearest => {
                let each = neighbours(mesh) / 2;
                // Places have gaps, but between two agents there are at most as many as the difference.
                let far = a.place.abs_diff(b.place);
                far <= u64::try_from(each).unwrap_or(u64::MAX)
                    || seats.after(a.place).take(each).any(|id| id == to)
                    || seats.before(a.place).take(each).any(|id| id == to)
            }
        }
    }
}

fn neighbours(mesh: &Mesh) -> usize {
    usize::try_from(mesh.neighbours).unwrap_or(usize::MAX)
}
fn is_hub(seat: &Seat) -> bool {
    seat.role == Role::Coordinator
}
