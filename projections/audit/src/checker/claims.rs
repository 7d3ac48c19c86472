//! Claims, epochs and ordinals: who may decide, and whether it was that one that did.

use std::collections::VecDeque;

use swarm_events::{
    InstanceId, Recorded, Service, Subject, Timestamp,
    control::{Claimed, Observed},
    envelope::{Decided, Source},
    ids::EventId,
    subject::{OrgVerb, SwarmVerb},
};
use uuid::Uuid;

use super::Notes;
use crate::Invariant;

/// Claims of one owner that are kept for the report: an owner claims anew every 50,000 events, so this is the recent past.
pub const CLAIMS_KEPT_MAX: usize = 16;
/// Decisions of an epoch that are remembered, to tell a late copy from another decision under the same ordinal. A copy is
/// at most as old as what one owner may have in flight.
const ORDINALS_KEPT_MAX: usize = 1_024;
/// Why a decision is void whose ordinal is not above the last one met.
pub(super) const REPEATED: &str = "repeated-decision";
/// How far a time in an observation may lie ahead of the store time: servers' clocks differ, but not by a minute.
const CLOCKS_DIFFER_MS_MAX: u64 = 60_000;
/// Instances of a partition whose last cut-off is remembered.
const CUT_OFF_KEPT_MAX: usize = 64;

/// A claim that was met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its sequence: the epoch.
    pub epoch: u64,
    /// Store time.
    pub time: Timestamp,
    /// Who claimed.
    pub instance: InstanceId,
    /// Why.
    pub reason: String,
}

/// What is known of the owners of one service in one partition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owner {
    /// The last claims, oldest first.
    pub claims: VecDeque<Claim>,
    /// How many claims there were.
    pub claimed: u64,
    /// Decisions met under an epoch of theirs.
    pub decisions: u64,
    /// Ordinals that were skipped: decisions that were lost, and decided anew after the next claim.
    pub skipped: u64,
    epoch: u64,
    ordinal: u64,
    /// Ordinal of the last measurement.
    measured: u64,
    /// Decisions of this epoch were lost: what was under way is not known.
    gap: bool,
    recent: VecDeque<(u64, Uuid, u64)>,
    /// By whom it was told of which, since when.
    cut_off: VecDeque<((InstanceId, InstanceId), Timestamp)>,
}

/// What a decision is to a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Admitted {
    Yes,
    Void(&'static str),
    /// A measurement that an event of a task overtook. It is void to whoever meets tasks' events; health and the coordinator
    /// do not, and go by it.
    Overtaken,
}

impl Owner {
    /// Every decision of this epoch up to now is in the log.
    pub(super) const fn is_whole(&self) -> bool {
        !self.gap
    }

    pub(super) fn claim(&mut self, recorded: &Recorded, claimed: &Claimed, notes: &mut Notes) {
        notes.checked(Invariant::EpochsRise);
        // The first claim that is met may follow one that the log does not hold any more.
        if self.epoch != 0 && claimed.previous != self.epoch {
            notes.broken(Invariant::EpochsRise, recorded.sequence, || {
                format!(
                    "the claim of {} follows {}, but the last one stands at {}",
                    claimed.instance, claimed.previous, self.epoch
                )
            });
        }
        notes.checked(Invariant::OneOwnerPerEpoch);
        if !matches!(&recorded.event.source, Source::Service(_, by) if *by == claimed.instance) {
            notes.broken(Invariant::OneOwnerPerEpoch, recorded.sequence, || {
                format!("{} claims for {}", recorded.event.source, claimed.instance)
            });
        }
        self.epoch = recorded.sequence;
        self.ordinal = 0;
        self.measured = 0;
        self.gap = false;
        self.recent.clear();
        self.claimed += 1;
        if self.claims.len() == CLAIMS_KEPT_MAX {
            self.claims.pop_front();
        }
        self.claims.push_back(Claim {
            epoch: recorded.sequence,
            time: recorded.time,
            instance: claimed.instance,
            reason: claimed.reason.clone(),
        });
    }

    /// Judges a decision by its envelope.
    pub(super) fn decision(
        &mut self,
        service: Service,
        recorded: &Recorded,
        decided: Decided,
        notes: &mut Notes,
    ) -> Admitted {
        let sequence = recorded.sequence;
        if decided.epoch != self.epoch
            && matches!(recorded.subject, Subject::Org(_, _, OrgVerb::Refused))
        {
            // What was refused about a swarm in a wrong partition is told to its organization by the one that met it.
            return Admitted::Yes;
        }
        notes.checked(Invariant::EpochsRise);
        if decided.epoch != self.epoch {
            notes.broken(Invariant::EpochsRise, sequence, || {
                format!(
                    "decided under the claim at {}, stored under the one at {}",
                    decided.epoch, self.epoch
                )
            });
            return Admitted::Void("stale-epoch");
        }
        if decided.cause_sequence < decided.epoch || decided.cause_sequence >= sequence {
            notes.broken(Invariant::EpochsRise, sequence, || {
                format!(
                    "decided at {}, which is not between its claim at {} and itself",
                    decided.cause_sequence, decided.epoch
                )
            });
        }
        notes.checked(Invariant::OneOwnerPerEpoch);
        if let (Source::Service(_, by), Some(owner)) = (&recorded.event.source, self.claims.back())
            && *by != owner.instance
        {
            notes.broken(Invariant::OneOwnerPerEpoch, sequence, || {
                format!(
                    "{service} {by} decided under the claim of {} at {}",
                    owner.instance, self.epoch
                )
            });
        }
        notes.checked(Invariant::OrdinalsRise);
        if recorded.event.id
            != EventId::of_decision(service.as_str(), decided.epoch, decided.ordinal)
        {
            notes.broken(Invariant::OrdinalsRise, sequence, || {
                format!(
                    "its id {} does not derive from epoch {} and ordinal {}",
                    recorded.event.id, decided.epoch, decided.ordinal
                )
            });
        }
        // Of the distributor's decisions measurements are all that those meet who meet no tasks' events.
        let measures = matches!(recorded.subject, Subject::Swarm(_, SwarmVerb::Measured));
        let rises = measures && decided.ordinal > self.measured;
        if rises {
            self.measured = decided.ordinal;
        }
        if decided.ordinal <= self.ordinal {
            // A late copy is void. What was overtaken is void too, and is decided anew after the next claim.
            let print = (recorded.event.about, decided.cause_sequence);
            let first = self.recent.iter().find(|r| r.0 == decided.ordinal);
            if let Some((_, about, cause)) = first
                && (*about, *cause) != print
            {
                notes.broken(Invariant::OrdinalsRise, sequence, || {
                    format!(
                        "ordinal {} of epoch {} stands for two decisions, about {about} and about {}",
                        decided.ordinal, decided.epoch, recorded.event.about
                    )
                });
            }
            return if rises {
                Admitted::Overtaken
            } else {
                Admitted::Void(REPEATED)
            };
        }
        self.skipped += decided.ordinal - self.ordinal - 1;
        self.gap |= decided.ordinal > self.ordinal + 1;
        self.ordinal = decided.ordinal;
        self.decisions += 1;
        if self.recent.len() == ORDINALS_KEPT_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back((
            decided.ordinal,
            recorded.event.about,
            decided.cause_sequence,
        ));
        Admitted::Yes
    }

    pub(super) fn observed(&mut self, recorded: &Recorded, seen: &Observed, notes: &mut Notes) {
        let Observed::CutOff {
            instance,
            since,
            until,
        } = seen
        else {
            return;
        };
        notes.checked(Invariant::CutOffsWellFormed);
        // Two of them may tell what they saw in another order than it happened: one may have been paused in between.
        let Source::Service(_, by) = recorded.event.source else {
            return;
        };
        let key = (*instance, by);
        let last = self.cut_off.iter().find(|(told, _)| *told == key).copied();
        let ahead = recorded.time.plus_millis(CLOCKS_DIFFER_MS_MAX);
        let wrong = if until.is_some_and(|until| until < *since) {
            Some("it ends before it begins".to_owned())
        } else if until.unwrap_or(*since).max(*since) > ahead {
            Some("it is from the future".to_owned())
        } else {
            last.filter(|(_, before)| since < before)
                .map(|(_, before)| format!("one since {before} is recorded already"))
        };
        if let Some(wrong) = wrong {
            notes.broken(Invariant::CutOffsWellFormed, recorded.sequence, || {
                format!("{instance} is said to be cut off since {since}: {wrong}")
            });
        }
        self.cut_off.retain(|(told, _)| *told != key);
        if self.cut_off.len() == CUT_OFF_KEPT_MAX {
            self.cut_off.pop_front();
        }
        self.cut_off.push_back((key, *since));
    }
}
