//! What a deleted swarm leaves on its blackboard is deleted, too.
//!
//! It goes by what there is, not by what happens: every few seconds the swarms that the fold knows as deleted and at whose
//! blackboards this process has not looked yet are looked at. So nothing is left behind because nobody was there when a swarm
//! was deleted; a process that begins looks at all of them once. Several gateways do the same without harm: a key is deleted
//! at the revision at which it was found.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use async_nats::HeaderValue as NatsValue;
use bytes::Bytes;
use swarm_events::{OrgId, Place, SwarmId, Timestamp};
use swarm_log::definitions::BLACKBOARD_BUCKET;
use tokio::time::{Instant, sleep};

use super::{EXPECTED, STREAM, deletion, entry::is_deleted, subject};
use crate::{
    app::{App, OUTCOME_TIMEOUT},
    bus::{Bus, BusError, KeepError},
    fold::Fold,
};

/// How often it is looked whether a swarm was deleted: nobody waits for it.
pub const LOOK: Duration = Duration::from_secs(5);
/// A swarm is looked at once more so long after its deletion: its agents' processes write down how far they have read until
/// they have heard of it, at the latest when they come back from an outage of this length.
pub const LATE_MS: u64 = 120_000;
/// So many swarms are looked at one by one; if there are more, nats-server is asked once which of them have keys at all.
const ONE_BY_ONE_MAX: usize = 32;
/// Keys that are looked at in one go.
const PAGE: usize = 500;

/// What this process has looked at.
#[derive(Debug, Default)]
pub struct Sweep {
    /// Deleted swarms, and whether that was the last look.
    looked: BTreeMap<Place, bool>,
}

impl Sweep {
    /// Swarms that are to be looked at, and whether it is for the last time.
    fn due(&self, fold: &Fold, now: Timestamp) -> Vec<(Place, bool)> {
        let deleted = fold.deleted();
        let due = deleted.filter_map(|(place, at)| {
            let last = now.millis_since(at) >= LATE_MS;
            let due = match self.looked.get(&place) {
                None => true,
                Some(was_last) => last && !was_last,
            };
            due.then_some((place, last))
        });
        due.collect()
    }

    /// Looks once, and answers with the number of keys that it deleted.
    ///
    /// # Errors
    /// nats-server does not answer, or refuses: what is left is found by the next look.
    pub async fn look(&mut self, app: &App, bus: &Bus, now: Timestamp) -> Result<u64, BusError> {
        let due = self.due(&app.fold.read(), now);
        let held = match due.len() {
            0 => return Ok(0),
            1..=ONE_BY_ONE_MAX => None,
            _ => Some(with_keys(bus).await?),
        };
        let mut cleared = 0;
        for (place, last) in due {
            let mut settled = true;
            if held.as_ref().is_none_or(|held| held.contains(&place)) {
                let found = clear(bus, place).await?;
                settled = found.contended == 0;
                cleared += found.cleared;
                if found.cleared > 0 {
                    let keys = found.cleared;
                    tracing::info!(swarm.id = %place.swarm, keys, "a deleted swarm's blackboard is cleared");
                }
            }
            if settled {
                self.looked.insert(place, last);
            }
        }
        Ok(cleared)
    }
}

/// Looks until the process stops.
pub async fn run(app: Arc<App>) {
    let Some(bus) = app.bus.clone() else { return };
    let mut tail = app.tail.subscribe();
    tokio::select! {
        () = app.stop.cancelled() => return,
        _ = tail.wait_for(|tail| tail.caught_up) => {}
    }
    let mut sweep = Sweep::default();
    loop {
        tokio::select! {
            () = app.stop.cancelled() => return,
            looked = sweep.look(&app, &bus, App::now()) => {
                if let Err(error) = looked {
                    tracing::debug!(%error, "blackboards of deleted swarms are cleared later");
                }
            }
        }
        tokio::select! {
            () = app.stop.cancelled() => return,
            () = sleep(LOOK) => {}
        }
    }
}

/// The swarms that have a key, or the mark of one.
async fn with_keys(bus: &Bus) -> Result<BTreeSet<Place>, BusError> {
    let all = format!("$KV.{BLACKBOARD_BUCKET}.>");
    let subjects = bus.subjects(STREAM, &all).await?;
    Ok(subjects.iter().filter_map(|text| place_of(text)).collect())
}

/// Whose blackboard a key is on.
fn place_of(subject: &str) -> Option<Place> {
    let mut tokens = subject.split('.').skip(2);
    let org = OrgId(tokens.next()?.parse().ok()?);
    let swarm = SwarmId(tokens.next()?.parse().ok()?);
    tokens.next().map(|_| Place::new(org, swarm))
}

/// What became of a swarm's keys.
#[derive(Debug, Default)]
struct Cleared {
    cleared: u64,
    /// Keys that somebody else changed at the same moment.
    contended: u64,
}

async fn clear(bus: &Bus, place: Place) -> Result<Cleared, BusError> {
    let filters = [subject(place, ">")];
    let mut done = Cleared::default();
    let mut from = 1;
    loop {
        // The system's keys too: how far agents have read.
        let found = bus.headers(STREAM, &filters, from, PAGE).await?;
        for stored in found.items.iter().filter(|stored| !is_deleted(stored)) {
            let mut headers = deletion();
            headers.insert(EXPECTED, NatsValue::from(stored.sequence));
            let deadline = Instant::now() + OUTCOME_TIMEOUT;
            let nothing = Bytes::new();
            let kept = bus.keep(STREAM, &stored.subject, &headers, &nothing, deadline);
            match kept.await {
                Ok(_) => done.cleared += 1,
                Err(KeepError::Changed(_) | KeepError::Unknown(_)) => done.contended += 1,
                Err(error) => return Err(BusError::Refused(error.to_string())),
            }
        }
        let last = found.items.last().map(|last| last.sequence);
        match last.filter(|_| found.more) {
            Some(last) => from = last.saturating_add(1),
            None => return Ok(done),
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::permissions::blackboard_key;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_key_says_whose_blackboard_it_is_on() {
        let place = Place::new(OrgId(Uuid::from_u128(7)), SwarmId(Uuid::from_u128(8)));
        for key in ["a", "a.b", "_cursor.x"] {
            assert_eq!(place_of(&blackboard_key(place, key)), Some(place));
        }
        for other in ["", "$KV.swarm_blackboard.x.y.z", "$KV.swarm_blackboard"] {
            assert_eq!(place_of(other), None, "{other}");
        }
    }
}
