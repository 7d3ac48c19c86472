//! What only the owner knows.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

/// The owner's overlay: marks that are due, and marks that are answered by a decision which is not met yet.
#[derive(Debug, Default)]
pub struct Plan {
    pub(crate) due: BTreeSet<u64>,
    pub(crate) under_way: BTreeMap<Uuid, u64>,
}
