//! The stream and its checks, as nats-server has them.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    task::Waker,
};

use bytes::Bytes;

use super::{Fault, Faults, SimulatedSettings, presence::Presence};
use crate::{
    AppendError, Appended, Fence, Message, StoredMessage, definitions::DUPLICATE_WINDOW,
    jetstream::wire,
};

/// nats-server's `err_code` for a batch that holds a message id which it knows.
const BATCH_HAS_DUPLICATE: u64 = 10201;

#[derive(Debug)]
pub(super) struct Handle {
    pub(super) connected: bool,
    /// How often its tails lost their source.
    pub(super) losses: u64,
    pub(super) faults: Faults,
    pub(super) presence_faults: Faults,
    pub(super) visible_to: Option<u64>,
}

pub(super) struct World {
    pub(super) settings: SimulatedSettings,
    pub(super) time_micros: i64,
    pub(super) messages: Vec<StoredMessage>,
    pub(super) bytes: u64,
    pub(super) objects: BTreeMap<String, Bytes>,
    pub(super) ghosts: VecDeque<Vec<Message>>,
    pub(super) presence: Presence,
    last_by_subject: BTreeMap<Arc<str>, u64>,
    /// Message ids with the sequence of the first copy, and in the order of storing for forgetting.
    known_ids: BTreeMap<Arc<str>, u64>,
    known_ids_by_age: VecDeque<(i64, Arc<str>)>,
    handles: BTreeMap<Arc<str>, Handle>,
    wakers: Vec<Waker>,
}

impl World {
    pub(super) fn new(settings: SimulatedSettings) -> Self {
        Self {
            time_micros: settings.created_micros,
            settings,
            messages: Vec::new(),
            bytes: 0,
            objects: BTreeMap::new(),
            ghosts: VecDeque::new(),
            presence: Presence::default(),
            last_by_subject: BTreeMap::new(),
            known_ids: BTreeMap::new(),
            known_ids_by_age: VecDeque::new(),
            handles: BTreeMap::new(),
            wakers: Vec::new(),
        }
    }

    pub(super) fn handle(&mut self, name: &str) -> &mut Handle {
        self.handles.entry(name.into()).or_insert_with(|| Handle {
            connected: true,
            losses: 0,
            faults: Faults::none(),
            presence_faults: Faults::none(),
            visible_to: None,
        })
    }

    pub(super) fn set_connected(&mut self, name: &str, connected: bool) {
        let handle = self.handle(name);
        if handle.connected && !connected {
            handle.losses += 1;
        }
        handle.connected = connected;
        self.wake();
    }

    pub(super) fn last_sequence(&self) -> u64 {
        self.settings.first_sequence + self.messages.len() as u64 - 1
    }

    pub(super) fn get(&self, sequence: u64) -> Option<&StoredMessage> {
        let index = sequence.checked_sub(self.settings.first_sequence)?;
        self.messages.get(usize::try_from(index).ok()?)
    }

    /// Sequence of the last message of `subject`, 0 if there is none.
    pub(super) fn last_of(&self, subject: &str) -> u64 {
        self.last_by_subject.get(subject).copied().unwrap_or(0)
    }

    /// Appends one message, or a batch of which all or none is stored, as `handle`, with what its plan has go wrong.
    pub(super) fn append(
        &mut self,
        handle: &str,
        messages: Vec<Message>,
    ) -> Result<Appended, AppendError> {
        let Some(first) = messages.first() else {
            return Err(AppendError::Refused {
                subject: String::new(),
                code: 0,
                description: "nothing to append".to_owned(),
            });
        };
        let subject = first.subject.clone();
        let handle = self.handle(handle);
        if !handle.connected {
            return Err(wire::unknown(&subject, "not connected"));
        }
        let fence = messages.iter().find_map(|message| message.fence.clone());
        match (handle.faults.next(), fence) {
            (Some(Fault::LostAck), _) => {
                let stored = self.store(&messages);
                Err(wire::unknown(
                    &subject,
                    if stored.is_ok() {
                        "acknowledgement lost"
                    } else {
                        "refusal lost"
                    },
                ))
            }
            (Some(Fault::LostMessage), _) => Err(wire::unknown(&subject, "message lost")),
            (Some(Fault::Ghost), _) => {
                self.ghosts.push_back(messages);
                Err(wire::unknown(&subject, "message late"))
            }
            (Some(Fault::Full), _) => Err(AppendError::Full {
                description: "no space left".to_owned(),
            }),
            (Some(Fault::Busy), Some(fence)) if self.settings.cluster => {
                Err(AppendError::FenceBusy {
                    subject: fence.subject,
                })
            }
            (Some(Fault::Busy) | None, _) => self.store(&messages),
        }
    }

    pub(super) fn release_ghosts(&mut self) -> usize {
        let mut stored = 0;
        while let Some(messages) = self.ghosts.pop_front() {
            // Its own check is no longer in flight, those behind it still are: release them in order.
            let behind = std::mem::take(&mut self.ghosts);
            if self
                .store(&messages)
                .is_ok_and(|appended| !appended.duplicate)
            {
                stored += messages.len();
            }
            self.ghosts = behind;
        }
        self.presence.release_ghosts(self.time_micros);
        self.wake();
        stored
    }

    fn store(&mut self, messages: &[Message]) -> Result<Appended, AppendError> {
        self.forget_ids();
        // A single node checks the fence before its duplicate table, a cluster the other way round.
        if self.settings.cluster {
            if let Some(answer) = self.check_ids(messages) {
                return answer;
            }
            self.check_fences(messages)?;
        } else {
            self.check_fences(messages)?;
            if let Some(answer) = self.check_ids(messages) {
                return answer;
            }
        }
        let bytes: u64 = messages
            .iter()
            .map(|message| (message.payload.len() + message.subject.len()) as u64)
            .sum();
        if u64::try_from(self.settings.bytes_max).is_ok_and(|limit| self.bytes + bytes > limit) {
            return Err(AppendError::Full {
                description: "maximum bytes exceeded".to_owned(),
            });
        }
        self.bytes += bytes;
        for message in messages {
            let sequence = self.last_sequence() + 1;
            let subject: Arc<str> = message.subject.as_str().into();
            let message_id: Option<Arc<str>> = message.message_id.as_deref().map(Into::into);
            if let Some(id) = &message_id {
                self.known_ids.insert(id.clone(), sequence);
                self.known_ids_by_age
                    .push_back((self.time_micros, id.clone()));
            }
            self.last_by_subject.insert(subject.clone(), sequence);
            let (time_micros, payload) = (self.time_micros, message.payload.clone());
            self.messages.push(StoredMessage {
                sequence,
                time_micros,
                subject,
                payload,
                message_id,
            });
        }
        Ok(Appended {
            sequence: self.last_sequence(),
            duplicate: false,
        })
    }

    fn check_fences(&self, messages: &[Message]) -> Result<(), AppendError> {
        for Fence { subject, sequence } in
            messages.iter().filter_map(|message| message.fence.as_ref())
        {
            if self.settings.cluster && self.is_check_in_flight(subject) {
                return Err(AppendError::FenceBusy {
                    subject: subject.clone(),
                });
            }
            if self.last_of(subject) != *sequence {
                return Err(AppendError::Fenced {
                    subject: subject.clone(),
                    expected: *sequence,
                });
            }
        }
        Ok(())
    }

    fn is_check_in_flight(&self, subject: &str) -> bool {
        let mut fences = self
            .ghosts
            .iter()
            .flatten()
            .filter_map(|message| message.fence.as_ref());
        fences.any(|fence| &*fence.subject == subject)
    }

    /// The answer for known message ids: a duplicate when alone, a refusal inside a batch.
    fn check_ids(&self, messages: &[Message]) -> Option<Result<Appended, AppendError>> {
        for (index, message) in messages.iter().enumerate() {
            let Some(id) = message.message_id.as_deref() else {
                continue;
            };
            let known = self.known_ids.get(id);
            if let (Some(&sequence), 1) = (known, messages.len()) {
                return Some(Ok(Appended {
                    sequence,
                    duplicate: true,
                }));
            }
            if known.is_some()
                || messages[..index]
                    .iter()
                    .any(|earlier| earlier.message_id.as_deref() == Some(id))
            {
                let description = "atomic publish batch contains duplicate message id".to_owned();
                return Some(Err(AppendError::Refused {
                    subject: message.subject.clone(),
                    code: BATCH_HAS_DUPLICATE,
                    description,
                }));
            }
        }
        None
    }

    fn forget_ids(&mut self) {
        let window = i64::try_from(DUPLICATE_WINDOW.as_micros()).unwrap_or(i64::MAX);
        while let Some((stored, _)) = self.known_ids_by_age.front()
            && stored.saturating_add(window) <= self.time_micros
            && let Some((_, id)) = self.known_ids_by_age.pop_front()
        {
            self.known_ids.remove(&id);
        }
    }

    pub(super) fn await_change(&mut self, waker: &Waker) {
        if !self.wakers.iter().any(|known| known.will_wake(waker)) {
            self.wakers.push(waker.clone());
        }
    }

    /// Wakes every tail: something has changed.
    pub(super) fn wake(&mut self) {
        for waker in self.wakers.drain(..) {
            waker.wake();
        }
    }
}
