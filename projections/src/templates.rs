//! Topologies under a name: the four that every organization has, and those that it saved.

use std::sync::LazyLock;

use swarm_coordinator_core::Template;
use swarm_events::{
    OrgId,
    configuration::TopologyKind,
    ids::derived,
    topology::{Hierarchical, Mesh, Ring, Star, Topology},
};
use uuid::Uuid;

use crate::{
    batch::{Batch, int8, stored, time},
    jsonb::{clipped, text},
};

/// Workers of the system's star: more is for the other topologies.
const STAR_WORKERS_MAX: u32 = 50;

/// A topology that every organization has under the topology's own name, as the product's requirements give it.
pub struct SystemTopology {
    /// What it is.
    pub description: &'static str,
    /// What it is good for.
    pub best_for: &'static str,
    /// With all its options.
    pub topology: Topology,
}
impl SystemTopology {
    /// The topology's own name.
    pub const fn name(&self) -> &'static str {
        word(self.topology.kind())
    }
}

/// All of them, in the order of the requirements.
pub static SYSTEM: LazyLock<[SystemTopology; 4]> = LazyLock::new(|| {
    let star = Star {
        max_workers: Some(STAR_WORKERS_MAX),
        ..Star::default()
    };
    let system = |topology, description, best_for| SystemTopology {
        description,
        best_for,
        topology,
    };
    [
        system(
            Topology::Star(star),
            "Central coordinator with worker agents",
            "Simple task distribution, centralized control",
        ),
        system(
            Topology::Mesh(Mesh::default()),
            "Fully connected agents, peer-to-peer",
            "Collaborative tasks, no single point of failure",
        ),
        system(
            Topology::Hierarchical(Hierarchical::default()),
            "Tree structure with levels",
            "Complex workflows, delegation patterns",
        ),
        system(
            Topology::Ring(Ring::default()),
            "Circular token-passing topology",
            "Sequential processing, ordered tasks",
        ),
    ]
});

pub(crate) const fn word(kind: TopologyKind) -> &'static str {
    match kind {
        TopologyKind::Star => "star",
        TopologyKind::Mesh => "mesh",
        TopologyKind::Hierarchical => "hierarchical",
        TopologyKind::Ring => "ring",
    }
}

/// The id under which a topology is known: of the system's if it is nobody's.
pub fn template_id(org: Option<OrgId>, name: &str) -> Uuid {
    match org {
        Some(org) => derived("template", &[org.0.as_bytes(), name.as_bytes()]),
        None => derived("template", &[name.as_bytes()]),
    }
}

impl Batch {
    /// The rows with which every log begins.
    pub(crate) fn system_topologies(&mut self) {
        for system in SYSTEM.iter() {
            let rows = &mut self.topologies;
            rows.id.push(template_id(None, system.name()));
            rows.organization_id.push(None);
            rows.name.push(system.name().to_owned());
            rows.description.push(Some(system.description.to_owned()));
            rows.best_for.push(Some(system.best_for.to_owned()));
            rows.topology_type.push(system.name());
            rows.configuration
                .push(stored(&system.topology.configuration()));
            rows.is_system.push(true);
            rows.created_at.push(None);
            rows.updated_at.push(None);
            rows.last_seq.push(0);
        }
    }

    /// What an organization has under a name now.
    pub(crate) fn template(
        &mut self,
        org: OrgId,
        name: &str,
        found: Option<&Template>,
        sequence: u64,
    ) {
        let id = template_id(Some(org), name);
        let Some(template) = found else {
            self.gone_topologies.id.push(id);
            return;
        };
        let rows = &mut self.topologies;
        let words = |words: &Option<String>| words.as_ref().map(|words| text(words).into_owned());
        rows.id.push(id);
        rows.organization_id.push(Some(org.0));
        rows.name
            .push(clipped(name, swarm_events::org::TEMPLATE_NAME_CHARS_MAX));
        rows.description.push(words(&template.description));
        rows.best_for.push(words(&template.best_for));
        rows.topology_type.push(word(template.topology.kind()));
        rows.configuration
            .push(stored(&template.topology.configuration()));
        rows.is_system.push(false);
        rows.created_at.push(Some(time(template.created_at)));
        rows.updated_at.push(Some(time(template.updated_at)));
        rows.last_seq.push(int8(sequence));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The block of the requirements, word for word but for its alternatives (`full|nearest`), of which the first holds.
    #[test]
    fn the_systems_own_are_those_of_the_requirements() {
        let required = json!({
            "star": {
                "description": "Central coordinator with worker agents",
                "best_for": "Simple task distribution, centralized control",
                "config": {"coordinator_count": 1, "max_workers": 50, "failover_coordinator": true}
            },
            "mesh": {
                "description": "Fully connected agents, peer-to-peer",
                "best_for": "Collaborative tasks, no single point of failure",
                "config": {"connection_strategy": "full", "gossip_interval_ms": 1000, "routing": "broadcast"}
            },
            "hierarchical": {
                "description": "Tree structure with levels",
                "best_for": "Complex workflows, delegation patterns",
                "config": {
                    "levels": [
                        {"role": "coordinator", "count": 1},
                        {"role": "supervisor", "count": 3},
                        {"role": "worker", "count": 12}
                    ],
                    "parent_child_ratio": 4
                }
            },
            "ring": {
                "description": "Circular token-passing topology",
                "best_for": "Sequential processing, ordered tasks",
                "config": {"order": "sequential", "token_timeout_ms": 5000, "skip_unhealthy": true}
            }
        });
        assert_eq!(required.as_object().expect("an object").len(), SYSTEM.len());
        for system in SYSTEM.iter() {
            let wanted = &required[system.name()];
            assert_eq!(wanted["description"], system.description);
            assert_eq!(wanted["best_for"], system.best_for);
            let options = system.topology.configuration().to_value();
            for (name, value) in wanted["config"].as_object().expect("options") {
                assert_eq!(&options[name], value, "{}.{name}", system.name());
            }
        }
    }

    #[test]
    fn words_are_those_of_the_events() {
        for kind in [
            TopologyKind::Star,
            TopologyKind::Mesh,
            TopologyKind::Hierarchical,
            TopologyKind::Ring,
        ] {
            assert_eq!(json!(kind), word(kind));
        }
    }

    #[test]
    fn ids_of_organizations_are_their_own() {
        let org = |n| OrgId(Uuid::from_u128(n));
        let ids = [
            template_id(None, "a"),
            template_id(Some(org(1)), "a"),
            template_id(Some(org(2)), "a"),
            template_id(Some(org(1)), "b"),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[at + 1..].contains(id));
        }
    }
}
