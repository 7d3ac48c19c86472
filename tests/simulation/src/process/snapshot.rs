//! Snapshots that a process takes and stores.

use futures::FutureExt;
use rand::Rng;
use swarm_events::{
    Partition,
    decider::Decider,
    planted::{self, Bug},
};
use swarm_runtime::snapshots::{Meta, Store, Wanted, decode, encode};

use super::{Around, Process};
use crate::shells::Shell;

/// Longest that storing a snapshot takes in microseconds.
const SNAPSHOT_MAX: u64 = 500_000;

impl<D: Decider + Shell> Process<D> {
    pub(super) fn snapshot(&mut self, partition: Partition, around: &mut Around<'_>) {
        let Some(state) = self.replica.machine(partition).map(|m| m.state()) else {
            return;
        };
        let meta = Meta::of(state, self.created_micros);
        if meta.sequence == 0 || self.common.cut || self.storing.is_some() {
            return;
        }
        let bytes = encode(&meta, state).expect("a state can be encoded");
        let due = around.clock.micros() + around.rng.random_range(0..SNAPSHOT_MAX);
        self.storing = Some((due, meta, bytes));
    }

    /// A snapshot that was taken a while ago reaches the object store.
    pub(super) fn store(&mut self, around: &Around<'_>) {
        let due = self
            .storing
            .as_ref()
            .is_some_and(|s| s.0 <= around.clock.micros());
        let Some((_, mut meta, mut bytes)) = self.storing.take_if(|_| due) else {
            return;
        };
        if planted::is(Bug::SnapshotAhead) {
            // It is said to be of now.
            let wanted = Wanted::of::<D>(meta.partition, self.created_micros);
            let (_, state) = decode::<D>(&wanted, &bytes).expect("its own snapshot");
            meta.sequence = self.replica.position().max(meta.sequence);
            bytes = encode(&meta, &state).expect("a state can be encoded");
        }
        let (sequence, size) = (meta.sequence, bytes.len() as u64);
        let put = Store::new(self.log.clone())
            .put(&meta, bytes)
            .now_or_never();
        let taken = put
            .is_some_and(|outcome| outcome.is_ok())
            .then_some((sequence, size));
        self.common.snapshots += u64::from(taken.is_some());
        let now = self.clock.monotonic(around.clock);
        self.replica.snapshotted(meta.partition, taken, now);
    }
}
