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
    use super::*;

    // That they are the requirements' own is tested where they stand.
    #[test]
    fn the_names_of_the_four_are_taken() {
        for system in SYSTEM.iter() {
            system.topology.check(1_000).expect("possible");
            assert!(is_taken(system.name()));
        }
        assert!(find("cube").is_none() && !is_taken("Star"));
    }
}
