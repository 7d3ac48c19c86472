//! Presence in the simulated world.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use bytes::Bytes;
use futures::Stream;

use super::{Fault, stream::World};
use crate::{LogError, PresenceNews};

/// The bucket: the last write of each key. `None` is a removal, which watchers hear of.
#[derive(Default)]
pub(super) struct Presence {
    revision: u64,
    entries: BTreeMap<String, Entry>,
    ghosts: VecDeque<(String, Option<Bytes>)>,
}

struct Entry {
    revision: u64,
    value: Option<Bytes>,
    written_micros: i64,
}

impl Presence {
    fn write(&mut self, key: &str, value: Option<Bytes>, written_micros: i64) {
        self.revision += 1;
        let entry = Entry {
            revision: self.revision,
            value,
            written_micros,
        };
        self.entries.insert(key.to_owned(), entry);
    }

    pub(super) fn release_ghosts(&mut self, time_micros: i64) {
        while let Some((key, value)) = self.ghosts.pop_front() {
            self.write(&key, value, time_micros);
        }
    }

    pub(super) fn drop_ghosts(&mut self) {
        self.ghosts.clear();
    }

    pub(super) fn forget(&mut self) {
        self.entries.clear();
    }

    /// The earliest write after `revision` of a key that starts with `prefix`.
    fn after(&self, revision: u64, prefix: &str) -> Option<(&String, &Entry)> {
        self.entries
            .range(prefix.to_owned()..)
            .take_while(|(key, _)| key.starts_with(prefix))
            .filter(|(_, entry)| entry.revision > revision)
            .min_by_key(|(_, entry)| entry.revision)
    }
}

impl World {
    /// Writes as `handle`, with what its plan has go wrong.
    pub(super) fn write_presence(
        &mut self,
        handle: &str,
        key: &str,
        value: Option<Bytes>,
    ) -> Result<(), LogError> {
        let lost = |what: &str| {
            Err(LogError::Unreachable(format!(
                "presence key {key}: {what} lost"
            )))
        };
        let outcome = match self.handle(handle).presence_faults.next() {
            Some(Fault::LostAck) => lost("acknowledgement"),
            Some(Fault::LostMessage) => return lost("message"),
            Some(Fault::Ghost) => {
                self.presence.ghosts.push_back((key.to_owned(), value));
                return lost("time"); // arrives late
            }
            Some(Fault::Full) => {
                return Err(LogError::Refused(format!(
                    "presence key {key}: no space left"
                )));
            }
            // Nothing is checked here, so nothing can be busy.
            Some(Fault::Busy) | None => Ok(()),
        };
        self.presence.write(key, value, self.time_micros);
        self.wake();
        outcome
    }
}

pub(super) struct Watch {
    world: Arc<Mutex<World>>,
    handle: Arc<str>,
    prefix: String,
    /// The handle's losses when this last began to tell everything.
    losses: Option<u64>,
    /// Revision up to which everything was told.
    told_to: u64,
    complete: bool,
    /// Keys told as put and not as removed since.
    known: BTreeSet<String>,
}

impl Watch {
    pub(super) fn new(world: Arc<Mutex<World>>, handle: Arc<str>, prefix: String) -> Self {
        Self {
            world,
            handle,
            prefix,
            losses: None,
            told_to: 0,
            complete: false,
            known: BTreeSet::new(),
        }
    }
}

impl Stream for Watch {
    type Item = PresenceNews;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = self.world.clone();
        let mut world = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = world.handle(&self.handle);
        let (connected, losses) = (handle.connected, handle.losses);
        if !connected {
            world.await_change(context.waker());
            return Poll::Pending;
        }
        if self.losses.replace(losses) != Some(losses) {
            self.told_to = 0;
            self.complete = false;
        }
        while let Some((key, entry)) = world.presence.after(self.told_to, &self.prefix) {
            self.told_to = entry.revision;
            if let Some(value) = &entry.value {
                self.known.insert(key.clone());
                return Poll::Ready(Some(PresenceNews::Put {
                    key: key.clone(),
                    value: value.clone(),
                    written_micros: entry.written_micros,
                }));
            }
            if self.known.remove(key) {
                return Poll::Ready(Some(PresenceNews::Removed { key: key.clone() }));
            }
        }
        if !std::mem::replace(&mut self.complete, true) {
            return Poll::Ready(Some(PresenceNews::Complete));
        }
        world.await_change(context.waker());
        Poll::Pending
    }
}
