//! What a queued task asks of the agent that takes it, as one text. Tasks with the same text wait in one line, and what an
//! agent must be for it is looked at once for all of them.
//!
//! One line for each thing asked: the role, the agent below which it is to be done, the capabilities, sorted. A checked
//! capability holds no control character, so that nothing is taken for another. After all of them, behind a zero, the
//! agents that are not to get it.

use std::collections::BTreeSet;

use swarm_events::topology::Role;

/// Before the role that is asked for.
const ROLE: char = '\u{1}';
/// Before the number of the agent below which a task is to be done.
const WITHIN: char = '\u{2}';
/// Before the numbers of agents that are not to get a task even if there are no others.
const STRICT: &str = "!";

/// The class of tasks that ask for these capabilities, for an agent of this role if one is given, and for one below the
/// agent of this number if one is given.
pub(crate) fn class_of(required: &[String], role: Option<Role>, within: Option<u32>) -> String {
    if required.is_empty() && role.is_none() && within.is_none() {
        return String::new();
    }
    let set: BTreeSet<&str> = required.iter().map(String::as_str).collect();
    let role = role.map(|role| format!("{ROLE}{}", role.as_str()));
    let within = within.map(|agent| format!("{WITHIN}{agent}"));
    let lines: Vec<&str> = role
        .iter()
        .chain(&within)
        .map(String::as_str)
        .chain(set)
        .collect();
    lines.join("\n")
}

/// Whether agents that are not to get a task may have it if there are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Without {
    /// As long as there are others.
    Others,
    /// Not even then.
    Strictly,
}

/// The class of tasks that need what those of `class` need, and that certain agents are not to get: their numbers, sorted.
/// So none of them is in the way of others, or looked at one by one.
pub(crate) fn class_without(class: &str, agents: &[u32], how: Without) -> String {
    let asked = asked_of(class);
    if agents.is_empty() {
        return asked.to_owned();
    }
    let numbers: Vec<String> = agents.iter().map(u32::to_string).collect();
    let strict = match how {
        Without::Others => "",
        Without::Strictly => STRICT,
    };
    format!("{asked}\0{strict}{}", numbers.join(","))
}

/// What is asked, without those who are not to get it.
fn asked_of(class: &str) -> &str {
    class.split_once('\0').map_or(class, |(asked, _)| asked)
}

/// The agents that are not to get tasks of a class, and whether that holds if there are no others.
pub(crate) fn excluded_of(class: &str) -> (Box<[u32]>, Without) {
    let numbers = class.split_once('\0').map_or("", |(_, numbers)| numbers);
    let (numbers, how) = match numbers.strip_prefix(STRICT) {
        Some(numbers) => (numbers, Without::Strictly),
        None => (numbers, Without::Others),
    };
    let numbers = numbers.split(',').filter_map(|number| number.parse().ok());
    (numbers.collect(), how)
}

/// The capabilities of a class, sorted.
pub(crate) fn of_class(class: &str) -> impl Iterator<Item = &str> {
    asked_of(class)
        .split('\n')
        .filter(|word| !word.is_empty() && !word.starts_with([ROLE, WITHIN]))
}

/// The role that a class asks for.
pub(crate) fn role_of(class: &str) -> Option<Role> {
    let word = asked_of(class)
        .split('\n')
        .find_map(|line| line.strip_prefix(ROLE))?;
    [Role::Worker, Role::Supervisor, Role::Coordinator]
        .into_iter()
        .find(|role| role.as_str() == word)
}

/// The number of the agent below which tasks of a class are done.
pub(crate) fn within_of(class: &str) -> Option<u32> {
    let mut lines = asked_of(class).split('\n');
    lines
        .find_map(|line| line.strip_prefix(WITHIN))?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|w| (*w).to_owned()).collect()
    }

    #[test]
    fn a_class_is_a_set() {
        let class = |list: &[&str]| class_of(&words(list), None, None);
        assert_eq!(class(&["b", "a", "b"]), class(&["a", "b"]));
        assert_eq!(
            of_class(&class(&["b", "a"])).collect::<Vec<_>>(),
            ["a", "b"]
        );
        assert_eq!(of_class(&class(&[])).count(), 0);
    }

    #[test]
    fn role_and_part_of_the_tree_are_no_capabilities_and_stay_when_agents_are_excluded() {
        for role in [
            None,
            Some(Role::Worker),
            Some(Role::Supervisor),
            Some(Role::Coordinator),
        ] {
            for within in [None, Some(0), Some(70)] {
                for list in [&[][..], &["a"], &["b", "a"]] {
                    let class = class_of(&words(list), role, within);
                    let without = class_without(&class, &[3, 8], Without::Strictly);
                    for text in [
                        &class,
                        &without,
                        &class_without(&without, &[], Without::Others),
                    ] {
                        assert_eq!(role_of(text), role);
                        assert_eq!(within_of(text), within);
                        assert_eq!(of_class(text).count(), list.len());
                    }
                    assert_eq!(excluded_of(&without), ([3, 8].into(), Without::Strictly));
                    assert_eq!(class_without(&without, &[], Without::Others), class);
                }
            }
        }
        // A capability that reads like a role is none.
        let class = class_of(&words(&["supervisor"]), None, None);
        assert_eq!(role_of(&class), None);
        assert_ne!(class, class_of(&[], Some(Role::Supervisor), None));
    }
}
