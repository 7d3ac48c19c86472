//! Which agent had the last task of a key: what the algorithm `affinity` goes by.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{swarm::Swarm, task::Task};

/// Most keys that a swarm remembers; the one that was used least recently is forgotten for another. Some 150 bytes each.
pub const KEYS_MAX: usize = 100_000;
/// An agent without a free slot is given a task of its key only while it holds less than this share of the mean load, in
/// percent, and one task more: a hot key cannot drown one agent, and yet a task may wait for its agent where others are idle
/// (until one of those takes it over). The factor is that of consistent hashing with bounded loads
/// (Mirrokni, Thorup, Zadimoghaddam, 2018).
pub const LOAD_PERCENT_MAX: u64 = 125;

/// A key's hash: nothing tells it from the key in practice, and it is small.
pub(crate) type Key = u128;

/// The key of a task: its `affinity_key`, else its type.
pub(crate) fn key_of(swarm: &Swarm, task: &Task) -> Key {
    let own = task.more.as_ref().and_then(|more| more.affinity.as_deref());
    // Two name spaces, so that a key that reads like a type is not that type.
    let (space, text) = match own {
        Some(key) => (Uuid::NAMESPACE_OID, key),
        None => (Uuid::NAMESPACE_X500, swarm.types.get(task.task_type)),
    };
    Uuid::new_v5(&space, text.as_bytes()).as_u128()
}

/// Keys and their agents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Homes {
    /// Number of the agent, and the sequence at which the key was used last.
    by_key: BTreeMap<Key, (u32, u64)>,
    by_use: BTreeMap<u64, Key>,
}
impl Homes {
    pub(crate) fn get(&self, key: Key) -> Option<u32> {
        self.by_key.get(&key).map(|&(agent, _)| agent)
    }
    /// Remembers that a task of this key went to its agent at `sequence`.
    pub(crate) fn used(&mut self, key: Key, agent: u32, sequence: u64) {
        if let Some((_, before)) = self.by_key.insert(key, (agent, sequence)) {
            self.by_use.remove(&before);
        }
        self.by_use.insert(sequence, key);
        if self.by_key.len() > KEYS_MAX
            && let Some((_, oldest)) = self.by_use.pop_first()
        {
            self.by_key.remove(&oldest);
        }
    }
}

/// Whether an agent that holds `held` tasks on `slots` slots may be given another one for the sake of its key, when all
/// agents together hold `held_total` on `slots_total`.
pub(crate) fn within_bound(held: u32, slots: u32, held_total: u64, slots_total: u64) -> bool {
    let share = LOAD_PERCENT_MAX * (held_total + 1) * u64::from(slots.max(1));
    u64::from(held.saturating_sub(1)) * 100 * slots_total.max(1) < share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_that_was_used_least_recently_is_forgotten_at_the_limit() {
        let mut homes = Homes::default();
        for key in 0..KEYS_MAX as u64 {
            homes.used(Key::from(key), 1, key);
        }
        homes.used(0, 2, KEYS_MAX as u64);
        homes.used(Key::MAX, 3, KEYS_MAX as u64 + 1);
        assert_eq!(homes.get(0), Some(2));
        assert_eq!(homes.get(1), None);
        assert_eq!(homes.get(2), Some(1));
        assert_eq!(homes.get(Key::MAX), Some(3));
        assert_eq!(homes.by_key.len(), KEYS_MAX);
        assert_eq!(homes.by_use.len(), KEYS_MAX);
    }

    #[test]
    fn an_agent_may_have_a_quarter_more_than_the_mean_and_one_task() {
        // 10 agents of one slot hold 39: the mean with the next one is 4, a quarter more is 5.
        assert!(within_bound(5, 1, 39, 10));
        assert!(!within_bound(6, 1, 39, 10));
        // Slots count: with two of them it is twice as much.
        assert!(within_bound(10, 2, 43, 11));
        assert!(!within_bound(11, 2, 43, 11));
        // In a swarm with little to do one task may wait behind another of its key, and no more.
        assert!(within_bound(1, 1, 1, 10));
        assert!(!within_bound(2, 1, 2, 10));
    }
}
