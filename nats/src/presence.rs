//! Presence: small values in memory, one key for each process, for efficiency only. Safety comes from the log.

use bytes::Bytes;

use crate::{LogError, filter};

/// A presence value is renewed twice a second by every process: small, or it weighs on the cluster. A hundred times what an
/// announcement of all 64 partitions takes would still pass.
pub const PRESENCE_VALUE_BYTES_MAX: usize = 64 * 1024;

/// What [`crate::Log::watch_presence`] yields.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceNews {
    /// `key` was put (or is there, at the beginning and after an interruption).
    Put {
        /// The whole key.
        key: String,
        /// As it was put.
        value: Bytes,
        /// The server's store time in microseconds since the Unix epoch. Server clocks differ and step: compare it with
        /// nothing but itself.
        written_micros: i64,
    },
    /// `key`, which this watch has told of before, was removed by [`crate::Log::remove_presence`].
    Removed {
        /// The whole key.
        key: String,
    },
    /// Everything that was there has been told. After an interruption all of it is told again and then this once more: a key
    /// that was not told in between may be gone, or its memory was lost with the server and its owner has not renewed it yet.
    Complete,
}

/// Refuses keys and values that must not be sent.
pub(crate) fn check(key: &str, bytes: usize) -> Result<(), LogError> {
    if !filter::is_literal(key) {
        return Err(LogError::Refused(format!(
            "presence key {key:?}: use tokens without wildcards and spaces, joined by dots"
        )));
    }
    if bytes > PRESENCE_VALUE_BYTES_MAX {
        return Err(LogError::Refused(format!(
            "the presence value of {key} has {bytes} bytes, more than the limit of {PRESENCE_VALUE_BYTES_MAX}: announce less"
        )));
    }
    Ok(())
}
