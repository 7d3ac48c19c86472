//! Snapshots: a fold's state in the object store, so that a start costs the same whatever the history's length.
//!
//! A snapshot can always be thrown away: what cannot be read is passed over for an older one, and in the end for the whole
//! log. [`format`](self::decode) says what the bytes are and refuses everything else; [`thin`] says which are kept; [`Store`]
//! keeps them over a [`swarm_log::Log`].

mod format;
mod store;
pub mod thin;

pub use format::{
    DecodeError, EncodeError, MAGIC, META_BYTES_MAX, Meta, VERSION, Wanted, decode, encode,
    encode_bounded, meta_of,
};
pub use store::{
    Catalogue, DECODE_INLINE_BYTES_MAX, Loaded, SnapshotError, Store, name_of, prefix_of,
    sequence_of, whole_history,
};

/// A snapshot is due this many stream events after the last one. Folding as many takes about a second, so a start takes
/// that long on top of loading; and a partition that holds a million tasks writes its 400 MB only as often as that.
pub const EVERY: u64 = 100_000;
