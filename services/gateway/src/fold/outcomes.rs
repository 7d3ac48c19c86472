//! Who waits for the outcome of a command or graph.

use std::{collections::HashMap, sync::Arc};

use swarm_events::read::Recorded;
use tokio::sync::oneshot;
use uuid::Uuid;

/// The first valid event that names a command or graph.
pub type Outcome = Arc<Recorded>;

/// Those who wait.
#[derive(Default)]
pub struct Outcomes {
    waiting: HashMap<Uuid, Vec<(u64, oneshot::Sender<Outcome>)>>,
    tickets: u64,
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
    /// `outcome` answers `id`: whoever waits for it hears of it.
    pub fn answer(&mut self, id: Uuid, outcome: &Outcome) {
        for (_, waiting) in self.waiting.remove(&id).unwrap_or_default() {
            // Who has given up is of no concern.
            let _ = waiting.send(outcome.clone());
        }
    }
    /// How many wait.
    pub fn waiting(&self) -> usize {
        self.waiting.len()
    }
}

impl Wait {
    /// The pair to leave with.
    pub const fn ticket(&self) -> (Uuid, u64) {
        (self.id, self.ticket)
    }
}
