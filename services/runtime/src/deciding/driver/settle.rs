//! What came of an append, and what follows from it.

use std::time::Duration;

use swarm_events::{Problem, decider::Decider};
use swarm_log::{AppendError, Log};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Driver, FULL_RETRY, Kind, Outcome, Shell};
use crate::deciding::machine::Mode;

impl<D: Decider, L: Log, S: Shell<D>> Driver<D, L, S> {
    pub(super) fn settle(&mut self, outcome: Outcome) {
        let now = self.now();
        let position = self.replica.position();
        let Some(machine) = self.replica.machine_mut(outcome.partition) else {
            return;
        };
        for result in outcome.results {
            match result {
                Ok(appended) => {
                    if appended.sequence > position && self.acked.is_none() {
                        self.acked = Some((appended.sequence, Instant::now()));
                    }
                }
                // A claim's outcome is learnt from the log: met, or sent again.
                Err(error) if outcome.kind == Kind::Claim => {
                    debug!(partition = %outcome.partition, %error, "claim not acknowledged");
                }
                Err(AppendError::Fenced { .. }) => machine.fenced(outcome.epoch, now),
                Err(error @ (AppendError::TooLarge { .. } | AppendError::Refused { .. })) => {
                    error!(partition = %outcome.partition, %error, "refused");
                    if machine.mode()
                        == (Mode::Owner {
                            epoch: outcome.epoch,
                        })
                    {
                        self.status.add_doubts(1);
                        match outcome.kind {
                            Kind::Decisions { cause } => {
                                machine.set_aside(
                                    cause,
                                    Problem::new("refused-by-log", error.to_string()),
                                    now,
                                );
                            }
                            _ => machine.doubt(outcome.epoch, now),
                        }
                    }
                }
                Err(error) => {
                    if machine.mode()
                        == (Mode::Owner {
                            epoch: outcome.epoch,
                        })
                    {
                        warn!(partition = %outcome.partition, %error, "in doubt: claiming again");
                        self.status.add_doubts(1);
                        let wait = if matches!(error, AppendError::Full { .. }) {
                            FULL_RETRY
                        } else {
                            Duration::ZERO
                        };
                        machine.doubt(outcome.epoch, now + wait);
                    }
                }
            }
        }
        self.replica.touched(outcome.partition);
        self.count();
    }
}
