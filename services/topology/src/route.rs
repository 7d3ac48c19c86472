//! What follows from seats: who may take which task, and who may talk to whom.

use std::fmt;

use swarm_events::{
    AgentId,
    topology::{ConnectionStrategy, LEVELS_MAX, Mesh, Role, Seat, Topology},
};

use crate::Shape;

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

    /// To whom it has an edge, by place.
    pub fn neighbours(&self, agent: AgentId) -> Box<dyn Iterator<Item = AgentId> + '_> {
        let Some(seat) = self.seat(agent) else {
            return Box::new(std::iter::empty());
        };
        Box::new(
            self.seats()
                .map(|(id, _)| id)
                .filter(move |id| *id != agent && self.may_message(agent, *id).is_ok())
                .inspect(move |_| {
                    let _ = seat;
                }),
        )
    }
    /// All edges, by the sender's place: in a ring each once, elsewhere from the one with the lower place. In a full mesh of
    /// many agents there are very many: take as many as you need.
    pub fn edges(&self) -> Box<dyn Iterator<Item = (AgentId, AgentId)> + '_> {
        let ring = matches!(self.topology(), Topology::Ring(_));
        Box::new(self.seats().flat_map(move |(from, a)| {
            self.neighbours(from)
                .filter(move |to| ring || self.seat(*to).is_some_and(|b| b.place > a.place))
                .map(move |to| (from, to))
        }))
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
    /// Those without a parent, by place: in a tree its tops.
    pub fn tops(&self) -> impl Iterator<Item = AgentId> {
        self.standing.seats.tops()
    }
    /// Coordinators and supervisors, from the top, by place.
    pub fn inner(&self) -> impl Iterator<Item = AgentId> {
        self.standing.seats.inner()
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
        if !mesh.connections.is_empty() {
            let is = |text: &String, id: AgentId| {
                text.parse() == Ok(id) || self.standing.seats.name(id) == Some(text)
            };
            return mesh
                .connections
                .iter()
                .any(|[x, y]| (is(x, from) && is(y, to)) || (is(x, to) && is(y, from)));
        }
        match mesh.connection_strategy {
            ConnectionStrategy::Full => true,
            ConnectionStrategy::Nearest => {
                let each = usize::try_from(mesh.neighbours / 2).unwrap_or(usize::MAX);
                let seats = &self.standing.seats;
                let _ = b;
                seats.after(a.place).take(each).any(|id| id == to)
                    || seats.before(a.place).take(each).any(|id| id == to)
            }
        }
    }
}

fn is_hub(seat: &Seat) -> bool {
    seat.role == Role::Coordinator
}
