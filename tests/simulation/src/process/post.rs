//! What an owner tells other partitions.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use rand::Rng;
use swarm_events::{
    control::Observed,
    decider::Decider,
    envelope::Source,
    planted::{self, Bug},
    subject::ControlVerb,
};
use swarm_log::Log;
use swarm_runtime::deciding::machine::Mode;

use super::{Around, Process, line::Kind};
use crate::shells::Shell;

/// What an owner has told other partitions under one claim.
#[derive(Default)]
pub(super) struct Mail {
    epoch: u64,
    /// Letters that are stored where they go, and when that was said last.
    stored: BTreeMap<u64, u64>,
}

/// What is stored and not known to be is said again after this many microseconds.
const TELL_AGAIN: u64 = 2_000_000;

impl<D: Decider + Shell> Process<D> {
    /// Tells other partitions what is for them, one letter at a time about one thing, and that they have it.
    pub(super) fn post(&mut self, around: &mut Around<'_>) {
        if self.common.cut || around.rng.random_ratio(3, 4) {
            return;
        }
        let now = around.clock.micros();
        let source = Source::Service(D::SERVICE, self.common.instance);
        for at in 0..self.partitions.len() {
            let partition = self.partitions[at];
            let Some((Mode::Owner { epoch }, state)) = self
                .replica
                .machine(partition)
                .map(|machine| (machine.mode(), machine.state()))
            else {
                self.mail.remove(&partition);
                continue;
            };
            let letters = D::letters(state, &self.log, &source, self.clock.wall(around.clock));
            let mail = self.mail.entry(partition).or_default();
            if mail.epoch != epoch {
                *mail = Mail {
                    epoch,
                    ..Mail::default()
                };
                if planted::is(Bug::LettersForgotten) {
                    mail.stored = letters
                        .iter()
                        .map(|letter| (letter.sequence, now))
                        .collect();
                }
            }
            let open: BTreeSet<u64> = letters.iter().map(|letter| letter.sequence).collect();
            mail.stored.retain(|sequence, _| open.contains(sequence));
            let mut waiting = BTreeSet::new();
            let mut sequences = Vec::new();
            for letter in letters {
                let told = mail.stored.get(&letter.sequence).copied();
                if told.is_none() {
                    // Behind one about the same thing that is not there yet.
                    if !waiting.insert(letter.about) {
                        continue;
                    }
                    let stored = self.log.append(vec![letter.message]).now_or_never();
                    if !stored.is_some_and(|outcomes| outcomes.iter().all(Result::is_ok)) {
                        continue;
                    }
                }
                if told.is_none_or(|at| now > at + TELL_AGAIN) {
                    mail.stored.insert(letter.sequence, now);
                    sequences.push(letter.sequence);
                }
            }
            if !sequences.is_empty() {
                let observed = Observed::Delivered { sequences };
                let verb = ControlVerb::Observed;
                self.control(partition, epoch, Kind::Control, verb, observed, around);
            }
        }
    }
}
