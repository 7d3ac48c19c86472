//! Whose key it is.

use sha2::{Digest, Sha256};
use swarm_events::{KeyId, OrgId, UserId, org::Role};

/// Who sends a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The key's organization: the boundary of everything that it reads and writes.
    pub org: OrgId,
    /// Whose key it is.
    pub user: UserId,
    /// The key.
    pub key: KeyId,
    /// What it allows.
    pub role: Role,
}

/// The hash under which a key is stored: SHA-256 in lower-case hex.
pub fn hash(key: &str) -> String {
    hex::encode(Sha256::digest(key.as_bytes()))
}
