//! What a snapshot's bytes are.
//!
//! ```text
//! magic       8 bytes   "SWARMSNP"
//! version     2 bytes   of this container, little-endian
//! meta        2 bytes length, little-endian, then postcard: kind, partition, sequence, stream_created_micros, format
//! body        8 bytes length, little-endian
//! hash       32 bytes   SHA-256 of everything before it and of the body
//! the body              postcard of the state, to the end of the object
//! ```
//! The hash is checked before anything of the body is read, so that damage never reaches a state.

use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use sha2::{Digest, Sha256};
use swarm_events::{Partition, decider::Decider};

/// First bytes of every snapshot.
pub const MAGIC: [u8; 8] = *b"SWARMSNP";
/// Version of the container. The layout of the state within has its own: [`Meta::format`].
pub const VERSION: u16 = 1;
/// Most bytes of an encoded [`Meta`]: it has some 30; what claims more is damaged.
pub const META_BYTES_MAX: usize = 1024;
const HASH_BYTES: usize = 32;

/// What a snapshot is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meta {
    /// Name of the service, or `gateway`.
    pub kind: String,
    /// The partition; 00 for a kind that is not partitioned.
    pub partition: Partition,
    /// Last stream sequence that is folded in.
    pub sequence: u64,
    /// Creation time of the stream in microseconds since the Unix epoch: names the log that it is of.
    pub stream_created_micros: i64,
    /// Layout of the state.
    pub format: u32,
}

impl Meta {
    /// Of a deciding service's state as it is now.
    pub fn of<D: Decider>(state: &D, stream_created_micros: i64) -> Self {
        let head = state.head();
        Self {
            kind: D::SERVICE.as_str().to_owned(),
            partition: head.partition,
            sequence: head.sequence,
            stream_created_micros,
            format: D::FORMAT,
        }
    }
}

/// What a reader can use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// See [`Meta::kind`].
    pub kind: String,
    /// See [`Meta::partition`].
    pub partition: Partition,
    /// See [`Meta::stream_created_micros`].
    pub stream_created_micros: i64,
    /// See [`Meta::format`].
    pub format: u32,
}

impl Wanted {
    /// What a deciding service can start from.
    pub fn of<D: Decider>(partition: Partition, stream_created_micros: i64) -> Self {
        Self {
            kind: D::SERVICE.as_str().to_owned(),
            partition,
            stream_created_micros,
            format: D::FORMAT,
        }
    }
}

/// Why a state was not encoded.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// It has more bytes than the caller allows; encoding was given up there.
    #[error("the snapshot has more than {bytes_max} bytes")]
    TooLarge {
        /// The caller's bound.
        bytes_max: usize,
    },
    /// The kind's name is too long for the header.
    #[error(
        "the kind has {0} bytes, more than fit into a snapshot's header: choose a shorter name"
    )]
    Kind(usize),
    /// The state cannot be encoded, which its tests rule out.
    #[error("the state cannot be encoded: {0}")]
    State(postcard::Error),
}

/// Why bytes are not the snapshot that is wanted.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// Not a snapshot at all.
    #[error("it does not begin as a snapshot does")]
    Magic,
    /// A container of another version.
    #[error("its container has version {found}, and this program reads {VERSION}")]
    Version {
        /// Its version.
        found: u16,
    },
    /// It ends too early.
    #[error("it is cut off: {missing} bytes are missing")]
    Truncated {
        /// How many bytes at least.
        missing: u64,
    },
    /// It goes on too long.
    #[error("{surplus} bytes follow where it should end")]
    Trailing {
        /// How many.
        surplus: u64,
    },
    /// The header does not say what it is of.
    #[error("its header is damaged")]
    Meta,
    /// Something has changed since it was written.
    #[error("it is damaged: its SHA-256 is not the one that it was written with")]
    Hash,
    /// Of something else.
    #[error("it is of kind {found}, not {wanted}")]
    Kind {
        /// Its kind.
        found: String,
        /// The reader's.
        wanted: String,
    },
    /// Of another partition.
    #[error("it is of partition {found}, not {wanted}")]
    Partition {
        /// Its partition.
        found: Partition,
        /// The reader's.
        wanted: Partition,
    },
    /// Of another log.
    #[error(
        "it is of a log created at {found} µs, and this one was created at {wanted} µs since 1970"
    )]
    Stream {
        /// Creation time of its log.
        found: i64,
        /// Creation time of the reader's log.
        wanted: i64,
    },
    /// Of a program whose state has another layout.
    #[error("its state has layout {found}, and this program reads {wanted}")]
    Format {
        /// Its layout.
        found: u32,
        /// The reader's.
        wanted: u32,
    },
    /// Whole and of the right layout by its header, but no such state.
    #[error("its state cannot be read, though its layout is {format}: {cause}")]
    State {
        /// The layout.
        format: u32,
        /// What is wrong.
        cause: postcard::Error,
    },
}

/// The container of `state`.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode<S: Serialize>(meta: &Meta, state: &S) -> Result<Vec<u8>, EncodeError> {
    encode_bounded(meta, state, usize::MAX)
}

/// The container of `state`, if it has at most `bytes_max` bytes; giving up costs no more than that.
///
/// # Errors
/// See [`EncodeError`].
pub fn encode_bounded<S: Serialize>(
    meta: &Meta,
    state: &S,
    bytes_max: usize,
) -> Result<Vec<u8>, EncodeError> {
    let too_large = EncodeError::TooLarge { bytes_max };
    let Header { mut bytes, body } = header(meta)?;
    if bytes.len() > bytes_max {
        return Err(too_large);
    }
    let bounded = Bounded {
        bytes: std::mem::take(&mut bytes),
        bytes_max,
    };
    let mut bytes = match postcard::serialize_with_flavor(state, bounded) {
        Ok(bytes) => bytes,
        Err(postcard::Error::SerializeBufferFull) => return Err(too_large),
        Err(cause) => return Err(EncodeError::State(cause)),
    };
    seal(&mut bytes, body);
    Ok(bytes)
}

struct Header {
    bytes: Vec<u8>,
    /// Where the body begins.
    body: usize,
}

/// The header with room for the body's length and the hash.
fn header(meta: &Meta) -> Result<Header, EncodeError> {
    let told = postcard::to_stdvec(&(
        &meta.kind,
        meta.partition.number(),
        meta.sequence,
        meta.stream_created_micros,
        meta.format,
    ))
    .map_err(EncodeError::State)?;
    let length = u16::try_from(told.len())
        .ok()
        .filter(|_| told.len() <= META_BYTES_MAX)
        .ok_or(EncodeError::Kind(meta.kind.len()))?;
    let mut bytes = Vec::with_capacity(told.len() + 256);
    bytes.extend(MAGIC);
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend(length.to_le_bytes());
    bytes.extend(told);
    bytes.extend([0; 8 + HASH_BYTES]);
    let body = bytes.len();
    Ok(Header { bytes, body })
}

/// Fills in the body's length and the hash.
fn seal(bytes: &mut [u8], body: usize) {
    let length = (bytes.len() - body) as u64;
    let hash_at = body - HASH_BYTES;
    bytes[hash_at - 8..hash_at].copy_from_slice(&length.to_le_bytes());
    let hash = hash(&bytes[..hash_at], &bytes[body..]);
    bytes[hash_at..body].copy_from_slice(&hash);
}

fn hash(head: &[u8], body: &[u8]) -> [u8; HASH_BYTES] {
    Sha256::new()
        .chain_update(head)
        .chain_update(body)
        .finalize()
        .into()
}

/// A vector that takes no more than so many bytes.
struct Bounded {
    bytes: Vec<u8>,
    bytes_max: usize,
}
impl Flavor for Bounded {
    type Output = Vec<u8>;

    fn try_extend(&mut self, data: &[u8]) -> postcard::Result<()> {
        if data.len() > self.bytes_max - self.bytes.len() {
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }
    fn try_push(&mut self, data: u8) -> postcard::Result<()> {
        self.try_extend(&[data])
    }
    fn finalize(self) -> postcard::Result<Vec<u8>> {
        Ok(self.bytes)
    }
}

/// A container whose hash holds: what it says of itself, and its body.
struct Opened<'a> {
    meta: Meta,
    body: &'a [u8],
}

/// What `bytes` say that they are a snapshot of, whoever wants it.
///
/// # Errors
/// They are no whole snapshot.
pub fn meta_of(bytes: &[u8]) -> Result<Meta, DecodeError> {
    open(bytes).map(|opened| opened.meta)
}

/// The state in `bytes`, if they are the snapshot that is wanted.
///
/// # Errors
/// The first thing that is wrong with them, see [`DecodeError`].
pub fn decode<S: DeserializeOwned>(
    wanted: &Wanted,
    bytes: &[u8],
) -> Result<(Meta, S), DecodeError> {
    let Opened { meta, body } = open(bytes)?;
    if meta.kind != wanted.kind {
        return Err(DecodeError::Kind {
            found: meta.kind,
            wanted: wanted.kind.clone(),
        });
    }
    if meta.partition != wanted.partition {
        return Err(DecodeError::Partition {
            found: meta.partition,
            wanted: wanted.partition,
        });
    }
    if meta.stream_created_micros != wanted.stream_created_micros {
        return Err(DecodeError::Stream {
            found: meta.stream_created_micros,
            wanted: wanted.stream_created_micros,
        });
    }
    if meta.format != wanted.format {
        return Err(DecodeError::Format {
            found: meta.format,
            wanted: wanted.format,
        });
    }
    // postcard allocates no more than the bytes that are there can fill (serde bounds what a length alone asks for).
    let (state, rest) = postcard::take_from_bytes(body).map_err(|cause| DecodeError::State {
        format: meta.format,
        cause,
    })?;
    if !rest.is_empty() {
        return Err(DecodeError::Trailing {
            surplus: rest.len() as u64,
        });
    }
    Ok((meta, state))
}

fn open(bytes: &[u8]) -> Result<Opened<'_>, DecodeError> {
    let mut rest = Rest(bytes);
    if !bytes.starts_with(&MAGIC) {
        return Err(DecodeError::Magic);
    }
    rest.take(MAGIC.len())?;
    let version = u16::from_le_bytes(rest.array()?);
    if version != VERSION {
        return Err(DecodeError::Version { found: version });
    }
    let length = usize::from(u16::from_le_bytes(rest.array()?));
    if length > META_BYTES_MAX {
        return Err(DecodeError::Meta);
    }
    let told = rest.take(length)?;
    let body_length = u64::from_le_bytes(rest.array()?);
    let head = &bytes[..bytes.len() - rest.0.len()];
    let expected: [u8; HASH_BYTES] = rest.array()?;
    let body = rest.0;
    let there = body.len() as u64;
    if there < body_length {
        return Err(DecodeError::Truncated {
            missing: body_length - there,
        });
    }
    if there > body_length {
        return Err(DecodeError::Trailing {
            surplus: there - body_length,
        });
    }
    if hash(head, body) != expected {
        return Err(DecodeError::Hash);
    }
    let meta = read_meta(told).ok_or(DecodeError::Meta)?;
    Ok(Opened { meta, body })
}

fn read_meta(told: &[u8]) -> Option<Meta> {
    #[derive(Deserialize)]
    struct Told(String, u8, u64, i64, u32);
    let (Told(kind, partition, sequence, stream_created_micros, format), rest) =
        postcard::take_from_bytes(told).ok()?;
    rest.is_empty().then_some(())?;
    Some(Meta {
        kind,
        partition: Partition::new(partition)?,
        sequence,
        stream_created_micros,
        format,
    })
}

/// What is left to read.
struct Rest<'a>(&'a [u8]);
impl<'a> Rest<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let (taken, rest) =
            self.0
                .split_at_checked(count)
                .ok_or_else(|| DecodeError::Truncated {
                    missing: (count - self.0.len()) as u64,
                })?;
        self.0 = rest;
        Ok(taken)
    }
    fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }
}

#[cfg(test)]
mod tests;
