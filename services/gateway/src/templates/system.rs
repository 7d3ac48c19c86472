//! The four templates that every organization has, as the product's requirements give them (topology configurations).

use std::sync::LazyLock;

use swarm_events::{
    configuration::TopologyKind,
    topology::{Hierarchical, Mesh, Ring, Star, Topology},
};

use crate::topology::word;

/// Workers of the star: more is for the other topologies.
const STAR_WORKERS_MAX: u32 = 50;

/// A template that nobody changes.
pub struct System {
    /// The topology's own name.
    pub name: &'static str,
    /// What it is.
    pub description: &'static str,
    /// What it is good for.
    pub best_for: &'static str,
    /// With all its options.
    pub topology: Topology,
}

/// All of them, in the order of the requirements.
pub static ALL: LazyLock<[System; 4]> = LazyLock::new(|| {
    let star = Star {
        max_workers: Some(STAR_WORKERS_MAX),
        ..Star::default()
    };
    let system = |topology: Topology, description, best_for| System {
        name: word(topology.kind()),
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

/// The one of this name.
pub fn find(name: &str) -> Option<&'static System> {
    ALL.iter().find(|system| system.name == name)
}

/// Whether the name is that of a topology, and so of no organization's own template.
pub fn is_taken(name: &str) -> bool {
    find(name).is_some()
}

const _: fn(TopologyKind) = |kind| match kind {
    // Another topology needs a template here.
    TopologyKind::Star | TopologyKind::Mesh | TopologyKind::Hierarchical | TopologyKind::Ring => {}
};

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// The block of the requirements, word for word but for its alternatives (`full|nearest`), of which the first holds.
    fn required() -> Value {
        json!({
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
        })
    }

    #[test]
    fn the_four_are_those_of_the_requirements() {
        let required = required();
        assert_eq!(required.as_object().expect("an object").len(), ALL.len());
        for system in ALL.iter() {
            let wanted = &required[system.name];
            assert_eq!(wanted["description"], system.description);
            assert_eq!(wanted["best_for"], system.best_for);
            let options = system.topology.configuration().to_value();
            for (name, value) in wanted["config"].as_object().expect("options") {
                assert_eq!(&options[name], value, "{}.{name}", system.name);
            }
            system.topology.check(1_000).expect("possible");
            assert!(is_taken(system.name));
        }
        assert!(find("cube").is_none() && !is_taken("Star"));
    }
}
