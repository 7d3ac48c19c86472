//! The four templates that every organization has: they stand beside the table of the read models, so that both show the same.

use swarm_projections::templates::{SYSTEM, SystemTopology};

/// The one of this name.
pub fn find(name: &str) -> Option<&'static SystemTopology> {
    SYSTEM.iter().find(|system| system.name() == name)
}

/// Whether the name is that of a topology, and so of no organization's own template.
pub fn is_taken(name: &str) -> bool {
    find(name).is_some()
}

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
        assert_eq!(required.as_object().expect("an object").len(), SYSTEM.len());
        for system in SYSTEM.iter() {
            let wanted = &required[system.name()];
            assert_eq!(wanted["description"], system.description);
            assert_eq!(wanted["best_for"], system.best_for);
            let options = system.topology.configuration().to_value();
            for (name, value) in wanted["config"].as_object().expect("options") {
                assert_eq!(&options[name], value, "{}.{name}", system.name());
            }
            system.topology.check(1_000).expect("possible");
            assert!(is_taken(system.name()));
        }
        assert!(find("cube").is_none() && !is_taken("Star"));
    }
}
