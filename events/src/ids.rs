//! Typed ids, all from one registry: swapping a task id for an agent id does not compile.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::time::Timestamp;

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident => $prefix:literal),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// The id as the bare UUID, as it stands on the wire and in the database.
            pub const fn as_uuid(&self) -> Uuid {
                self.0
            }
        }
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "_{}"), self.0)
            }
        }
        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }
        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                // Only the canonical form: one id must have one spelling, in subjects above all.
                let id = Uuid::parse_str(text)?;
                if text.len() == 36 { Ok(Self(id)) } else { Uuid::try_parse("not canonical").map(Self) }
            }
        }
    )+};
}

ids! {
    /// An organization: the boundary of every read and write.
    OrgId => "org",
    /// A user of an organization.
    UserId => "user",
    /// An API key.
    KeyId => "key",
    /// A swarm.
    SwarmId => "swarm",
    /// An agent. It keeps its id over restarts; each start is a new incarnation.
    AgentId => "agent",
    /// One start of an agent process or service process.
    InstanceId => "instance",
    /// A task.
    TaskId => "task",
    /// A graph of tasks submitted together.
    GraphId => "graph",
    /// A command.
    CommandId => "cmd",
    /// An event.
    EventId => "event",
}

/// Namespace of the ids that decisions get (RFC 9562 version 5).
const DECISION_NAMESPACE: Uuid = Uuid::from_u128(0x6f1d_0b1e_5a52_5d3c_9e0a_7c1f_53aa_9d01);

impl EventId {
    /// The id of a decision, derived from its service, epoch and ordinal, which together are unique in a log.
    pub fn of_decision(service: &str, epoch: u64, ordinal: u64) -> Self {
        let mut name = Vec::with_capacity(service.len() + 17);
        name.extend_from_slice(service.as_bytes());
        name.push(0);
        name.extend_from_slice(&epoch.to_be_bytes());
        name.extend_from_slice(&ordinal.to_be_bytes());
        Self(Uuid::new_v5(&DECISION_NAMESPACE, &name))
    }
}

/// A UUIDv8 that follows from what it stands for: the first 16 bytes of the SHA-256 of `what` and the parts, each with its
/// length before it.
pub fn derived(what: &str, parts: &[&[u8]]) -> Uuid {
    let mut hash = Sha256::new();
    for part in [what.as_bytes()].iter().chain(parts) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// The UUIDv8 that an idempotency key stands for: the same key on the same route of the same organization is the same id
/// on every replica. `index` tells several objects of one request apart.
pub fn id_of_key(org: OrgId, route: &str, key: &str, index: u64) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(org.0.as_bytes());
    for part in [route.as_bytes(), key.as_bytes()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(index.to_be_bytes());
    let digest = hash.finalize();
    let mut bytes = [0u8; 16];
    bytes.copy_from_slice(&digest[..16]);
    Uuid::new_v8(bytes)
}

/// The time in a UUIDv7, `None` for other versions.
pub fn time_of_v7(id: Uuid) -> Option<Timestamp> {
    if id.get_version_num() != 7 {
        return None;
    }
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    Some(Timestamp::from_micros(
        i64::try_from(seconds).ok()?.checked_mul(1_000_000)? + i64::from(nanos / 1_000),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decision_ids_differ_by_each_part() {
        let base = EventId::of_decision("distributor", 7, 1);
        assert_eq!(base, EventId::of_decision("distributor", 7, 1));
        for other in [
            ("health", 7, 1),
            ("distributor", 8, 1),
            ("distributor", 7, 2),
        ] {
            assert_ne!(base, EventId::of_decision(other.0, other.1, other.2));
        }
    }

    #[test]
    fn only_the_canonical_spelling_is_an_id() {
        let id: TaskId = "0190f7a0-0000-7000-8000-000000000001"
            .parse()
            .expect("canonical");
        assert_eq!(id.to_string(), "0190f7a0-0000-7000-8000-000000000001");
        assert!(
            "0190f7a0000070008000000000000001"
                .parse::<TaskId>()
                .is_err()
        );
        assert!(
            "{0190f7a0-0000-7000-8000-000000000001}"
                .parse::<TaskId>()
                .is_err()
        );
    }

    #[test]
    fn key_ids_are_v8_and_depend_on_every_part() {
        let org = OrgId(Uuid::from_u128(1));
        let id = id_of_key(org, "POST /v1/swarms", "k", 0);
        assert_eq!(id.get_version_num(), 8);
        assert_ne!(id, id_of_key(org, "POST /v1/swarms", "k", 1));
        assert_ne!(id, id_of_key(org, "POST /v1/swarmsk", "", 0));
    }
}
