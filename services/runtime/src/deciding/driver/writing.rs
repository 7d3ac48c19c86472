//! What a replica appends: decisions, claims, wake-ups and observations, each under its fence.

use futures::{FutureExt, StreamExt};
use swarm_events::{
    Partition, Problem,
    control::{Claimed, Observed, Woken},
    decider::Decider,
    subject::ControlVerb,
};
use swarm_log::{Log, Message};
use tracing::error;

use super::{Driver, FULL_RETRY, Kind, Outcome, Shell, wall_clock};
use crate::deciding::{
    encode::{control_message, decision_message, epoch_fence},
    machine::{Machine, Mode, Need},
};

impl<D: Decider, L: Log, S: Shell<D>> Driver<D, L, S> {
    pub(super) async fn decide(&mut self, partition: Partition) {
        loop {
            let decisions = self.replica.decide(partition, self.now());
            let Some((_, first)) = decisions.first() else {
                break;
            };
            let (epoch, cause) = (first.epoch, first.cause_sequence);
            let fence = epoch_fence(D::SERVICE, partition, epoch);
            let last_input = self
                .replica
                .machine(partition)
                .and_then(Machine::last_input);
            let mut messages = Vec::with_capacity(decisions.len());
            for (decision, decided) in decisions {
                let about = decision.about;
                let decision = if decision.hydrate.is_some() {
                    self.shell.hydrate(decision).await
                } else {
                    Ok(decision)
                };
                let message = decision.and_then(|decision| {
                    let (time, fence) = (wall_clock(), fence.clone());
                    decision_message(
                        D::SERVICE,
                        self.instance,
                        fence,
                        decision,
                        decided,
                        last_input,
                        time,
                    )
                    .map_err(|e| Problem::new("not-json", e.to_string()))
                });
                match message {
                    Ok(message) => messages.push(message),
                    Err(problem) => {
                        // Nothing behind it in this turn may be appended: an ordinal would be missing in the middle.
                        error!(%partition, %about, %problem, "a decision could not be completed");
                        let retry = self.now() + FULL_RETRY;
                        if let Some(machine) = self.replica.machine_mut(partition) {
                            machine.doubt(epoch, retry);
                        }
                        break;
                    }
                }
            }
            self.status.add_decisions(messages.len() as u64);
            self.append(partition, epoch, Kind::Decisions { cause }, messages);
            // Outcomes are looked at between turns, so that a refused write stops the deciding.
            while let Some(Some(outcome)) = self.outcomes.next().now_or_never() {
                self.settle(outcome);
            }
        }
        self.replica.touched(partition);
    }

    pub(super) fn append(
        &mut self,
        partition: Partition,
        epoch: u64,
        kind: Kind,
        messages: Vec<Message>,
    ) {
        if messages.is_empty() {
            return;
        }
        let outcome = self.log.append(messages);
        self.outcomes.push(
            async move {
                Outcome {
                    partition,
                    epoch,
                    kind,
                    results: outcome.await,
                }
            }
            .boxed(),
        );
    }

    pub(super) fn observe(&mut self, partition: Partition, observed: Observed) {
        let Some(machine) = self.replica.machine(partition) else {
            return;
        };
        let Mode::Owner { epoch } = machine.mode() else {
            return;
        };
        self.control(
            partition,
            epoch,
            ControlVerb::Observed,
            observed,
            Kind::Control,
        );
    }

    pub(super) fn control(
        &mut self,
        partition: Partition,
        expected: u64,
        verb: ControlVerb,
        body: impl Into<swarm_events::Body>,
        kind: Kind,
    ) {
        let fence = epoch_fence(D::SERVICE, partition, expected);
        let message = control_message(
            D::SERVICE,
            partition,
            verb,
            self.instance,
            body,
            fence,
            wall_clock(),
        );
        match message {
            Ok(message) => self.append(partition, expected, kind, vec![message]),
            Err(error) => {
                error!(%partition, %error, "a control message could not be written as JSON")
            }
        }
    }

    pub(super) fn need(&mut self, partition: Partition, need: Need) {
        match need {
            Need::Claim {
                expected,
                reason,
                rejects,
            } => {
                let claimed = Claimed {
                    instance: self.instance,
                    decider_version: D::VERSION,
                    previous: expected,
                    reason: reason.to_owned(),
                    rejects,
                };
                self.control(
                    partition,
                    expected,
                    ControlVerb::Claimed,
                    claimed,
                    Kind::Claim,
                );
            }
            Need::Wake { epoch } => {
                self.control(
                    partition,
                    epoch,
                    ControlVerb::Woken,
                    Woken {},
                    Kind::Control,
                );
            }
        }
    }
}
