//! Ordered sets and maps over others that they leave as they are: to try changes out in what is large, at the price of what
//! is changed.

use std::{
    collections::{BTreeMap, BTreeSet, btree_set},
    iter::Peekable,
    ops::{Bound, RangeBounds},
};

/// A set, or a few changes to one that is borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Set<'a, K: Ord> {
    base: Option<&'a BTreeSet<K>>,
    added: BTreeSet<K>,
    removed: BTreeSet<K>,
}
impl<K: Ord> Default for Set<'_, K> {
    fn default() -> Self {
        Self {
            base: None,
            added: BTreeSet::new(),
            removed: BTreeSet::new(),
        }
    }
}
impl<K: Ord> Set<'static, K> {
    /// Changes over this one, which must be no such changes itself.
    pub(crate) fn over(&self) -> Set<'_, K> {
        Set {
            base: Some(&self.added),
            ..Set::default()
        }
    }
}
impl<K: Ord + Copy> Set<'_, K> {
    pub(crate) fn insert(&mut self, key: K) {
        if !self.removed.remove(&key) && !self.base.is_some_and(|base| base.contains(&key)) {
            self.added.insert(key);
        }
    }
    pub(crate) fn remove(&mut self, key: K) {
        if !self.added.remove(&key) && self.base.is_some_and(|base| base.contains(&key)) {
            self.removed.insert(key);
        }
    }
    pub(crate) fn len(&self) -> usize {
        self.base.map_or(0, BTreeSet::len) - self.removed.len() + self.added.len()
    }
    pub(crate) fn iter(&self) -> impl Iterator<Item = K> {
        self.range(..)
    }
    pub(crate) fn range(&self, keys: impl RangeBounds<K> + Clone) -> impl Iterator<Item = K> {
        Merged {
            base: self.base_range(keys.clone()).peekable(),
            added: self.added.range(keys).peekable(),
            removed: &self.removed,
            before: |a, b| a < b,
        }
    }
    /// The same backwards.
    pub(crate) fn range_back(&self, keys: impl RangeBounds<K> + Clone) -> impl Iterator<Item = K> {
        Merged {
            base: self.base_range(keys.clone()).rev().peekable(),
            added: self.added.range(keys).rev().peekable(),
            removed: &self.removed,
            before: |a, b| a > b,
        }
    }
    fn base_range(&self, keys: impl RangeBounds<K>) -> Either<btree_set::Range<'_, K>> {
        self.base
            .map_or(Either(None), |base| Either(Some(base.range(keys))))
    }
}

/// A range, or nothing.
struct Either<I>(Option<I>);
impl<I: Iterator> Iterator for Either<I> {
    type Item = I::Item;
    fn next(&mut self) -> Option<I::Item> {
        self.0.as_mut()?.next()
    }
}
impl<I: DoubleEndedIterator> DoubleEndedIterator for Either<I> {
    fn next_back(&mut self) -> Option<I::Item> {
        self.0.as_mut()?.next_back()
    }
}

struct Merged<'a, K, A: Iterator<Item = &'a K>, B: Iterator<Item = &'a K>> {
    base: Peekable<A>,
    added: Peekable<B>,
    removed: &'a BTreeSet<K>,
    before: fn(&K, &K) -> bool,
}
impl<'a, K: Ord + Copy, A: Iterator<Item = &'a K>, B: Iterator<Item = &'a K>> Iterator
    for Merged<'a, K, A, B>
{
    type Item = K;
    fn next(&mut self) -> Option<K> {
        if !self.removed.is_empty() {
            while self
                .base
                .next_if(|key| self.removed.contains(*key))
                .is_some()
            {}
        }
        match (self.base.peek(), self.added.peek()) {
            (Some(a), Some(b)) if (self.before)(b, a) => self.added.next().copied(),
            (Some(_), _) => self.base.next().copied(),
            (None, _) => self.added.next().copied(),
        }
    }
}

/// A map, or a few changes to one that is borrowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Map<'a, K: Ord, V> {
    base: Option<&'a BTreeMap<K, Option<V>>>,
    /// `None`: taken out of the base.
    own: BTreeMap<K, Option<V>>,
}
impl<K: Ord, V> Default for Map<'_, K, V> {
    fn default() -> Self {
        Self {
            base: None,
            own: BTreeMap::new(),
        }
    }
}
impl<K: Ord, V> Map<'static, K, V> {
    /// Changes over this one, which must be no such changes itself.
    pub(crate) fn over(&self) -> Map<'_, K, V> {
        Map {
            base: Some(&self.own),
            own: BTreeMap::new(),
        }
    }
}
impl<K: Ord + Clone, V> Map<'_, K, V> {
    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        match self.own.get(key) {
            Some(own) => own.as_ref(),
            None => self.base?.get(key)?.as_ref(),
        }
    }
    pub(crate) fn insert(&mut self, key: K, value: V) {
        self.own.insert(key, Some(value));
    }
    pub(crate) fn remove(&mut self, key: &K) {
        match self.base {
            Some(base) if base.contains_key(key) => {
                self.own.insert(key.clone(), None);
            }
            _ => {
                self.own.remove(key);
            }
        }
    }
}

/// From a key on, itself excluded.
pub(crate) fn beyond<K>(key: K) -> (Bound<K>, Bound<K>) {
    (Bound::Excluded(key), Bound::Unbounded)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::{Map, Set};

    proptest! {
        #[test]
        fn a_layer_is_what_a_changed_copy_would_be(
            base in prop::collection::btree_set(0u8..40, 0..30),
            steps in prop::collection::vec((any::<bool>(), 0u8..40), 0..40),
            low in 0u8..40, high in 0u8..40,
        ) {
            let mut below = Set::default();
            let mut map_below = Map::default();
            for key in &base {
                below.insert(*key);
                map_below.insert(*key, *key);
            }
            let (mut layer, mut map, mut plain) = (below.over(), map_below.over(), base.clone());
            for (add, key) in steps {
                if add {
                    layer.insert(key);
                    map.insert(key, key);
                    plain.insert(key);
                } else {
                    layer.remove(key);
                    map.remove(&key);
                    plain.remove(&key);
                }
            }
            let (low, high) = (low.min(high), low.max(high));
            prop_assert_eq!(layer.len(), plain.len());
            prop_assert!(layer.iter().eq(plain.iter().copied()));
            prop_assert!(layer.range(low..high).eq(plain.range(low..high).copied()));
            prop_assert!(layer.range_back(low..=high).eq(plain.range(low..=high).rev().copied()));
            let found: BTreeSet<u8> = (0..40).filter(|key| map.get(key).is_some()).collect();
            prop_assert_eq!(found, plain);
            // What is below stays as it was.
            prop_assert!(below.iter().eq(base.iter().copied()));
            let found: BTreeSet<u8> = (0..40).filter(|key| map_below.get(key).is_some()).collect();
            prop_assert_eq!(found, base);
        }
    }
}
