//! Who waits for the outcome of a command or graph, and the outcomes of those that carry an idempotency key.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use swarm_events::{
    Body, Place, TaskId, Timestamp,
    decider::{REMEMBERED_MAX, REMEMBERED_MS},
    read::Recorded,
};
use tokio::sync::oneshot;
use uuid::Uuid;

/// The first valid event that names a command or graph.
pub type Outcome = Arc<Recorded>;

/// The id under which the cancellation of a task is waited for: one that reaches a running agent comes by way of a
/// withdrawal, so it need not name the command. A task's id alone would be shared by whoever reuses it elsewhere.
pub fn cancellation_of(place: Place, task: TaskId) -> Uuid {
    Uuid::new_v5(&place.swarm.0, task.0.as_bytes())
}

/// What is known of a command or graph whose id derives from an idempotency key.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Keyed {
    /// Stream sequence of the command.
    pub command: Option<u64>,
    /// Stream sequence of its outcome.
    pub outcome: Option<u64>,
    /// What its outcome will be noted under, if it is a cancellation.
    cancellation: Option<Uuid>,
}

/// Waiters and keyed outcomes.
#[derive(Default)]
pub struct Outcomes {
    waiting: HashMap<Uuid, Vec<(u64, oneshot::Sender<Outcome>)>>,
    tickets: u64,
    keyed: BTreeMap<Uuid, Keyed>,
    noted: VecDeque<(Uuid, Timestamp)>,
    /// Keyed cancellations that are open: what they wait for, and the command.
    cancelling: BTreeSet<(Uuid, Uuid)>,
}

/// A wait for one outcome. To be given back with [`Outcomes::leave`] when it is given up.
pub struct Wait {
    /// What is waited for.
    pub id: Uuid,
    ticket: u64,
    /// Where it arrives.
    pub outcome: oneshot::Receiver<Outcome>,
}

impl Outcomes {
    /// Waits for the outcome of `id`. To be called before `id` is published.
    pub fn wait(&mut self, id: Uuid) -> Wait {
        let (sender, outcome) = oneshot::channel();
        self.tickets += 1;
        self.waiting
            .entry(id)
            .or_default()
            .push((self.tickets, sender));
        Wait {
            id,
            ticket: self.tickets,
            outcome,
        }
    }
    /// Ends a wait.
    pub fn leave(&mut self, id: Uuid, ticket: u64) {
        if let Some(waiting) = self.waiting.get_mut(&id) {
            waiting.retain(|(other, _)| *other != ticket);
            if waiting.is_empty() {
                self.waiting.remove(&id);
            }
        }
    }
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
    /// A valid event that answers `id` was met.
    pub fn outcome(&mut self, id: Uuid, outcome: &Outcome, now: Timestamp) {
        let cancelled = self.cancelling.range((id, Uuid::nil())..=(id, Uuid::max()));
        let cancelled: Vec<Uuid> = cancelled.map(|(_, command)| *command).collect();
        for id in cancelled.into_iter().chain([id]) {
            self.close(id, outcome, now);
        }
    }
    fn close(&mut self, id: Uuid, outcome: &Outcome, now: Timestamp) {
        if let Some(keyed) = self.remember(id, now) {
            keyed.outcome.get_or_insert(outcome.sequence);
            let open = keyed.cancellation.map(|cancellation| (cancellation, id));
            open.map(|open| self.cancelling.remove(&open));
        }
        for (_, waiting) in self.waiting.remove(&id).unwrap_or_default() {
            // Who has given up is of no concern.
            let _ = waiting.send(outcome.clone());
        }
    }
    /// What is known of a keyed id.
    pub fn keyed(&self, id: Uuid) -> Keyed {
        self.keyed.get(&id).copied().unwrap_or_default()
    }
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
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

impl Wait {
    /// The pair to leave with.
    pub const fn ticket(&self) -> (Uuid, u64) {
        (self.id, self.ticket)
    }
}
