//! The outcomes of commands and graphs whose ids derive from an idempotency key: part of the fold, so that a repeat is
//! answered as the first time by any gateway, however it started.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Place, TaskId, Timestamp,
    decider::{REMEMBERED_MAX, REMEMBERED_MS},
    read::Recorded,
};
use uuid::Uuid;

/// The id under which the cancellation of a task is waited for: one that reaches a running agent comes by way of a
/// withdrawal, so it need not name the command. A task's id alone would be shared by whoever reuses it elsewhere.
pub fn cancellation_of(place: Place, task: TaskId) -> Uuid {
    Uuid::new_v5(&place.swarm.0, task.0.as_bytes())
}

/// What is known of a command or graph whose id derives from an idempotency key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keyed {
    /// Stream sequence of the command.
    pub command: Option<u64>,
    /// Stream sequence of its outcome.
    pub outcome: Option<u64>,
    /// What its outcome will be noted under, if it is a cancellation.
    cancellation: Option<Uuid>,
}

/// By id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyedOutcomes {
    keyed: BTreeMap<Uuid, Keyed>,
    noted: VecDeque<(Uuid, Timestamp)>,
    /// Keyed cancellations that are open: what they wait for, and the command.
    cancelling: BTreeSet<(Uuid, Uuid)>,
}

impl KeyedOutcomes {
    /// A command was met.
    pub fn command(&mut self, recorded: &Recorded, now: Timestamp) {
        let id = recorded.event.id.0;
        let cancellation = match (&recorded.event.body, recorded.subject.place()) {
            (Body::Cancel(cancel), Some(place)) => Some(cancellation_of(place, cancel.task_id)),
            _ => None,
        };
        let Some(keyed) = self.remember(id, now) else {
            return;
        };
        // The first one counts: repeats are void.
        if keyed.command.is_none() {
            keyed.command = Some(recorded.sequence);
            keyed.cancellation = cancellation;
            self.cancelling
                .extend(cancellation.map(|cancellation| (cancellation, id)));
        }
    }
    /// A valid event that answers `id` was met at `sequence`. Answers with the ids whose outcome it is: keyed cancellations
    /// that wait for it, and `id`.
    pub fn outcome(&mut self, id: Uuid, sequence: u64, now: Timestamp) -> Vec<Uuid> {
        let cancelled = self.cancelling.range((id, Uuid::nil())..=(id, Uuid::max()));
        let mut closed: Vec<Uuid> = cancelled.map(|(_, command)| *command).collect();
        closed.push(id);
        for id in &closed {
            if let Some(keyed) = self.remember(*id, now) {
                keyed.outcome.get_or_insert(sequence);
                let open = keyed.cancellation.map(|cancellation| (cancellation, *id));
                open.map(|open| self.cancelling.remove(&open));
            }
        }
        closed
    }
    /// What is known of a keyed id.
    pub fn get(&self, id: Uuid) -> Keyed {
        self.keyed.get(&id).copied().unwrap_or_default()
    }

    /// Ids of version 8 derive from keys. They are remembered as long as the deciding services remember ended tasks and
    /// handled commands, and as many.
    fn remember(&mut self, id: Uuid, now: Timestamp) -> Option<&mut Keyed> {
        if id.get_version_num() != 8 {
            return None;
        }
        if !self.keyed.contains_key(&id) {
            self.noted.push_back((id, now));
        }
        let horizon = now.minus_millis(REMEMBERED_MS);
        while let Some(&(first, noted)) = self.noted.front() {
            if first == id || (noted >= horizon && self.noted.len() <= REMEMBERED_MAX) {
                break;
            }
            self.noted.pop_front();
            let forgotten = self.keyed.remove(&first);
            let open = forgotten
                .and_then(|keyed| keyed.cancellation)
                .map(|cancellation| (cancellation, first));
            open.map(|open| self.cancelling.remove(&open));
        }
        Some(self.keyed.entry(id).or_default())
    }
}
