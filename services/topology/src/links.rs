//! The connections of a mesh that are given pair by pair, by name or id.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{AgentId, topology::Topology};

use crate::seats::Seats;

/// What stands at one end: an id, else a name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Id(AgentId),
    Name(String),
}
impl From<&String> for End {
    fn from(text: &String) -> Self {
        text.parse()
            .map_or_else(|_| Self::Name(text.clone()), Self::Id)
    }
}

/// All that is connected with each end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Links(BTreeMap<End, BTreeSet<End>>);

impl Links {
    pub(crate) fn of(topology: &Topology) -> Self {
        let mut links: BTreeMap<End, BTreeSet<End>> = BTreeMap::new();
        if let Topology::Mesh(mesh) = topology {
            for [a, b] in &mesh.connections {
                let (a, b) = (End::from(a), End::from(b));
                links.entry(a.clone()).or_default().insert(b.clone());
                links.entry(b).or_default().insert(a);
            }
        }
        Self(links)
    }
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
    /// Whether a name is that of an end.
    pub(crate) fn names(&self, name: &str) -> bool {
        self.0.contains_key(&End::Name(name.to_owned()))
    }
    /// Those that are connected with an agent and sit somewhere, by id.
    pub(crate) fn of_agent(&self, seats: &Seats<'_>, agent: AgentId) -> BTreeSet<AgentId> {
        let name = seats.sitting(agent).and_then(|s| s.named.clone());
        let ends = [Some(End::Id(agent)), name.map(End::Name)];
        let found = ends
            .iter()
            .flatten()
            .filter_map(|end| self.0.get(end))
            .flatten();
        found
            .filter_map(|end| match end {
                End::Id(id) => seats.get(*id).map(|_| *id),
                End::Name(name) => seats.named(name),
            })
            .filter(|id| *id != agent)
            .collect()
    }
}
