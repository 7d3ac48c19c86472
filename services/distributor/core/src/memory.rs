//! Compact places for many small things: a slab with stable numbers, and interned values.

use std::{collections::BTreeMap, marker::PhantomData};

use serde::{Deserialize, Serialize};
use swarm_events::{AgentId, TaskId};

/// Values under small numbers. A freed number is used again, the last freed first: the same history gives the same
/// numbers in every fold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Slab<T> {
    cells: Vec<Option<T>>,
    free: Vec<u32>,
}
impl<T> Default for Slab<T> {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            free: Vec::new(),
        }
    }
}
impl<T> Slab<T> {
    pub(crate) fn insert(&mut self, value: T) -> u32 {
        if let Some(at) = self.free.pop() {
            self.cells[at as usize] = Some(value);
            return at;
        }
        self.cells.push(Some(value));
        // A partition holds at most QUEUE_LIMIT_MAX tasks for each swarm, far below the range of u32.
        (self.cells.len() - 1) as u32
    }
    pub(crate) fn remove(&mut self, at: u32) -> Option<T> {
        let value = self.cells.get_mut(at as usize)?.take();
        if value.is_some() {
            self.free.push(at);
        }
        value
    }
    pub(crate) fn get(&self, at: u32) -> Option<&T> {
        self.cells.get(at as usize)?.as_ref()
    }
    pub(crate) fn get_mut(&mut self, at: u32) -> Option<&mut T> {
        self.cells.get_mut(at as usize)?.as_mut()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        (0u32..)
            .zip(&self.cells)
            .filter_map(|(at, cell)| Some((at, cell.as_ref()?)))
    }
    /// One above the highest number ever given.
    pub(crate) fn end(&self) -> u32 {
        self.cells.len() as u32
    }
}

/// Texts that many tasks share, each kept once for as long as someone holds its number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Interner {
    numbers: BTreeMap<Box<str>, u32>,
    values: Slab<(Box<str>, u32)>,
}
impl Interner {
    /// The number of a text, one holder more.
    pub(crate) fn hold(&mut self, value: &str) -> u32 {
        if let Some(&at) = self.numbers.get(value) {
            if let Some((_, holders)) = self.values.get_mut(at) {
                *holders += 1;
            }
            return at;
        }
        let at = self.values.insert((value.into(), 1));
        self.numbers.insert(value.into(), at);
        at
    }
    /// One holder less; forgets the text with the last.
    pub(crate) fn release(&mut self, at: u32) {
        let Some((value, holders)) = self.values.get_mut(at) else {
            return;
        };
        *holders -= 1;
        if *holders == 0 {
            self.numbers.remove(value);
            self.values.remove(at);
        }
    }
    pub(crate) fn get(&self, at: u32) -> &str {
        self.values.get(at).map_or("", |(value, _)| value)
    }
}

/// An id as a number: in the same order, and compared in two instructions instead of a call.
pub(crate) trait Numbered {
    fn number(&self) -> u128;
}
impl Numbered for TaskId {
    fn number(&self) -> u128 {
        self.0.as_u128()
    }
}
impl Numbered for AgentId {
    fn number(&self) -> u128 {
        self.0.as_u128()
    }
}

/// An ordered map by id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct IdMap<K, V> {
    values: BTreeMap<u128, V>,
    ids: PhantomData<K>,
}
impl<K, V> Default for IdMap<K, V> {
    fn default() -> Self {
        Self {
            values: BTreeMap::new(),
            ids: PhantomData,
        }
    }
}
impl<K: Numbered, V> IdMap<K, V> {
    pub(crate) fn get(&self, id: &K) -> Option<&V> {
        self.values.get(&id.number())
    }
    pub(crate) fn get_mut(&mut self, id: &K) -> Option<&mut V> {
        self.values.get_mut(&id.number())
    }
    pub(crate) fn contains_key(&self, id: &K) -> bool {
        self.values.contains_key(&id.number())
    }
    pub(crate) fn insert(&mut self, id: K, value: V) {
        self.values.insert(id.number(), value);
    }
    pub(crate) fn remove(&mut self, id: &K) -> Option<V> {
        self.values.remove(&id.number())
    }
    pub(crate) fn values(&self) -> impl Iterator<Item = &V> {
        self.values.values()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_freed_number_is_used_again() {
        let mut slab = Slab::default();
        let (a, b) = (slab.insert('a'), slab.insert('b'));
        assert_eq!(slab.remove(a), Some('a'));
        assert_eq!(slab.remove(a), None);
        assert_eq!(slab.insert('c'), a);
        assert_eq!(slab.iter().collect::<Vec<_>>(), [(a, &'c'), (b, &'b')]);
        assert_eq!(slab.end(), 2);
    }

    #[test]
    fn an_interned_value_lives_as_long_as_its_holders() {
        let mut words = Interner::default();
        let a = words.hold("a");
        assert_eq!(words.hold("a"), a);
        words.release(a);
        assert_eq!(words.get(a), "a");
        words.release(a);
        assert_eq!(words.get(a), "");
        assert_eq!(
            words,
            Interner {
                values: words.values.clone(),
                ..Interner::default()
            }
        );
    }
}
