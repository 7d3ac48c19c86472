//! What was met lately and may be asked for again: payloads and results by the sequence of their event (of which one may carry many: the parts of a task).

use std::collections::{BTreeMap, VecDeque};

use swarm_events::task::Carried;
use uuid::Uuid;

/// Most bytes of payloads and results that are kept. What is not here is read from the log; a read takes a round trip,
/// and this covers several hundred of the largest values.
pub const RECENT_BYTES_MAX: usize = 64 << 20;
/// What an entry costs beside its text, in bytes: two nodes and the text's own header.
const ENTRY_BYTES: usize = 96;

/// Carried values, the last met are kept.
#[derive(Debug, Default)]
pub struct Recent {
    values: BTreeMap<(u64, Uuid), Carried>,
    order: VecDeque<(u64, Uuid)>,
    bytes: usize,
}

fn weight(value: &Carried) -> usize {
    ENTRY_BYTES
        + match value {
            Carried::Inline(json) => json.len(),
            Carried::Object(name) => name.len(),
            Carried::AtSequence(_) => 0,
        }
}

impl Recent {
    /// Keeps the value that was met at `sequence`: the payload of task `about`, or a result (of nil).
    pub fn insert(&mut self, sequence: u64, about: Uuid, value: Carried) {
        let key = (sequence, about);
        self.bytes += weight(&value);
        if let Some(before) = self.values.insert(key, value) {
            self.bytes -= weight(&before);
        } else {
            self.order.push_back(key);
        }
        while self.bytes > RECENT_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else {
                break;
            };
            if let Some(value) = self.values.remove(&oldest) {
                self.bytes -= weight(&value);
            }
        }
    }
    /// The value that was met at `sequence`, if it is still kept.
    pub fn get(&self, sequence: u64, about: Uuid) -> Option<&Carried> {
        self.values.get(&(sequence, about))
    }
    /// Bytes kept.
    pub const fn bytes(&self) -> usize {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use swarm_events::Json;

    fn text(bytes: usize) -> Carried {
        Carried::Inline(Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).expect("JSON"))
    }

    #[test]
    fn the_oldest_goes_when_the_bytes_are_used_up() {
        let mut recent = Recent::default();
        let half = RECENT_BYTES_MAX / 2 - ENTRY_BYTES;
        recent.insert(1, Uuid::nil(), text(half));
        recent.insert(2, Uuid::nil(), text(half));
        assert_eq!(recent.bytes(), RECENT_BYTES_MAX);
        assert!(recent.get(1, Uuid::nil()).is_some() && recent.get(2, Uuid::nil()).is_some());
        recent.insert(3, Uuid::nil(), text(2));
        assert!(recent.get(1, Uuid::nil()).is_none());
        assert!(recent.get(2, Uuid::nil()).is_some() && recent.get(3, Uuid::nil()).is_some());
    }

    #[test]
    fn a_value_met_again_counts_once() {
        let mut recent = Recent::default();
        recent.insert(1, Uuid::nil(), text(100));
        let once = recent.bytes();
        recent.insert(1, Uuid::nil(), text(100));
        assert_eq!(recent.bytes(), once);
    }
}
