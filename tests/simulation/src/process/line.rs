//! The line to the log: what is sent takes time, in call order, and so do the answers.

use std::{collections::VecDeque, time::Duration};

use futures::FutureExt;
use rand::Rng;
use swarm_events::{
    Partition, Problem,
    decider::Decider,
    planted::{self, Bug},
};
use swarm_log::{AppendError, Appended, Log, Message, simulated::SimulatedLog};
use swarm_runtime::deciding::machine::{Machine, Mode};

use super::Around;

/// Wait before the next try while the log is full.
const FULL_RETRY: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Decisions { cause: u64 },
    Claim,
    Control,
}

struct Sent {
    due: u64,
    partition: Partition,
    epoch: u64,
    kind: Kind,
    messages: VecDeque<Message>,
    results: Vec<Result<Appended, AppendError>>,
}

/// What came of an append.
pub struct Settled {
    due: u64,
    pub partition: Partition,
    epoch: u64,
    kind: Kind,
    results: Vec<Result<Appended, AppendError>>,
}

#[derive(Default)]
pub struct Line {
    outbox: VecDeque<Sent>,
    answers: VecDeque<Settled>,
}

impl Line {
    pub fn send(
        &mut self,
        partition: Partition,
        epoch: u64,
        kind: Kind,
        messages: VecDeque<Message>,
        around: &mut Around<'_>,
    ) {
        let due = around.clock.micros() + around.faults.delay(around.rng);
        // In call order, whatever the delays.
        let due = self.outbox.back().map_or(due, |last| last.due.max(due));
        self.outbox.push_back(Sent {
            due,
            partition,
            epoch,
            kind,
            messages,
            results: Vec::new(),
        });
    }

    /// What is due reaches the log.
    pub fn flush(
        &mut self,
        log: &SimulatedLog,
        recent: &mut VecDeque<Message>,
        around: &mut Around<'_>,
    ) {
        let now = around.clock.micros();
        let mut again = VecDeque::new();
        'sends: while self.outbox.front().is_some_and(|sent| sent.due <= now) {
            let Some(mut sent) = self.outbox.pop_front() else {
                break;
            };
            while let Some(message) = sent.messages.pop_front() {
                let outcome = log.append(vec![message.clone()]).now_or_never();
                let Some(result) = outcome.and_then(|mut results| results.pop()) else {
                    continue;
                };
                match result {
                    // It alone is resent as it is, and everything waits behind it.
                    Err(AppendError::FenceBusy { .. }) => {
                        sent.messages.push_front(message);
                        sent.due = now + around.rng.random_range(1_000..5_000);
                        self.outbox.push_front(sent);
                        break 'sends;
                    }
                    Err(AppendError::Unknown { .. })
                        if planted::is(Bug::ResendWithoutClaim) && sent.kind != Kind::Claim =>
                    {
                        again.push_back(Sent {
                            due: now,
                            messages: VecDeque::from([message]),
                            results: Vec::new(),
                            ..sent
                        });
                    }
                    result => {
                        if matches!(sent.kind, Kind::Decisions { .. }) {
                            recent.push_front(message);
                        }
                        sent.results.push(result);
                    }
                }
            }
            let due = now + around.faults.delay(around.rng);
            let due = self.answers.back().map_or(due, |last| last.due.max(due));
            self.answers.push_back(Settled {
                due,
                partition: sent.partition,
                epoch: sent.epoch,
                kind: sent.kind,
                results: sent.results,
            });
        }
        self.outbox.extend(again);
    }

    /// The answers that have arrived.
    pub fn answers(&mut self, now: u64) -> Vec<Settled> {
        let arrived = self.answers.partition_point(|answer| answer.due <= now);
        self.answers.drain(..arrived).collect()
    }
}

impl Settled {
    /// As the driver of the real loop tells it.
    pub fn tell<D: Decider>(self, machine: &mut Machine<D>, now: Duration) {
        let owner = Mode::Owner { epoch: self.epoch };
        for result in self.results {
            match result {
                Ok(_) => {}
                // A claim's outcome is learnt from the log.
                Err(_) if self.kind == Kind::Claim => {}
                Err(AppendError::Fenced { .. }) => machine.fenced(self.epoch, now),
                Err(error @ (AppendError::TooLarge { .. } | AppendError::Refused { .. })) => {
                    if machine.mode() == owner {
                        match self.kind {
                            Kind::Decisions { cause } => {
                                let problem = Problem::new("refused-by-log", error.to_string());
                                machine.set_aside(cause, problem, now);
                            }
                            _ => machine.doubt(self.epoch, now),
                        }
                    }
                }
                Err(AppendError::Full { .. }) => machine.doubt(self.epoch, now + FULL_RETRY),
                Err(_) => machine.doubt(self.epoch, now),
            }
        }
    }
}
