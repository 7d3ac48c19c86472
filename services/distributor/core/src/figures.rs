//! Attempts by name, for as many names as the figures may have.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use swarm_events::swarm::{MEASURED_NAMES_MAX, OTHER_NAMES, Outcomes};

/// What is known of a name, and what was told of it last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Figures {
    now: Outcomes,
    told: Outcomes,
}

/// Outcomes of attempts by name. The names are the users': the first ones met are kept, those after them summed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ByName {
    figures: BTreeMap<Box<str>, Figures>,
    /// How many differ from what was told.
    moved: u32,
}

impl ByName {
    pub(crate) fn has_moved(&self) -> bool {
        self.moved > 0
    }

    /// Counts an attempt.
    pub(crate) fn count(&mut self, name: &str, completed: bool) {
        if let Some(figures) = self.figures.get_mut(name) {
            return add(figures, completed, &mut self.moved);
        }
        // One place is kept for the others.
        let name = match self.figures.len() + 1 < MEASURED_NAMES_MAX {
            true => name,
            false => OTHER_NAMES,
        };
        let figures = self.figures.entry(name.into()).or_default();
        add(figures, completed, &mut self.moved);
    }

    /// Takes over what was told.
    pub(crate) fn told(&mut self, told: &BTreeMap<String, Outcomes>) {
        for (name, &outcomes) in told {
            if let Some(figures) = self.figures.get_mut(&**name) {
                let moved = figures.now != figures.told;
                figures.told = outcomes;
                self.moved -= u32::from(moved);
                self.moved += u32::from(figures.now != outcomes);
            }
        }
    }

    /// What has moved since it was told.
    pub(crate) fn moved(&self) -> BTreeMap<String, Outcomes> {
        if self.moved == 0 {
            return BTreeMap::new();
        }
        self.figures
            .iter()
            .filter(|(_, figures)| figures.now != figures.told)
            .map(|(name, figures)| (name.to_string(), figures.now))
            .collect()
    }
}

fn add(figures: &mut Figures, completed: bool, moved: &mut u32) {
    *moved -= u32::from(figures.now != figures.told);
    if completed {
        figures.now.completed += 1;
    } else {
        figures.now.failed += 1;
    }
    *moved += u32::from(figures.now != figures.told);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn outcomes(completed: u64, failed: u64) -> Outcomes {
        Outcomes { completed, failed }
    }

    #[test]
    fn what_moved_is_told_once() {
        let mut names = ByName::default();
        names.count("a", true);
        names.count("a", false);
        let moved = names.moved();
        assert_eq!(moved, BTreeMap::from([("a".to_owned(), outcomes(1, 1))]));
        names.count("a", true);
        names.told(&moved);
        assert!(names.has_moved(), "it moved on while that was written");
        names.told(&names.moved());
        assert!(!names.has_moved());
        assert_eq!(names.moved(), BTreeMap::new());
    }

    #[test]
    fn names_beyond_the_limit_are_summed_and_those_before_it_are_not() {
        let mut names = ByName::default();
        for n in 0..MEASURED_NAMES_MAX - 1 {
            names.count(&format!("n{n}"), true);
        }
        assert!(!names.moved().contains_key(OTHER_NAMES));
        names.count("one more", true);
        names.count("and another", false);
        names.count("n0", false);
        let moved = names.moved();
        assert_eq!(moved.len(), MEASURED_NAMES_MAX);
        assert_eq!(moved[OTHER_NAMES], outcomes(1, 1));
        assert_eq!(moved["n0"], outcomes(1, 1));
    }
}
