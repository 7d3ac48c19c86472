//! `Idempotency-Key`: the ids of what a request creates derive from organization, route and key, so that a repeat is the
//! same submission on any replica; a hash of the body tells a repeat from another request under the same key.

use axum::http::{HeaderMap, StatusCode};
use sha2::{Digest, Sha256};
use swarm_events::{OrgId, Problem, id_of_key};
use uuid::Uuid;

use crate::problem::{Answer, ApiProblem};

/// Longest key, in bytes: a UUID or a hash is far shorter.
pub const KEY_BYTES_MAX: usize = 255;
/// Number under which a request's command or graph is derived; its tasks count up from 0.
const OWN: u64 = u64::MAX;

/// The key of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    org: OrgId,
    route: String,
    key: String,
    /// SHA-256 of the request's body, lower-case hex.
    pub body_sha256: String,
}

impl Key {
    /// The key in `headers`, if there is one. `route` is the method and the path with its ids.
    ///
    /// # Errors
    /// 400 if it is empty, too long or not plain text.
    pub fn of(headers: &HeaderMap, org: OrgId, route: &str, body: &[u8]) -> Answer<Option<Self>> {
        let Some(header) = headers.get("idempotency-key") else {
            return Ok(None);
        };
        let key = header.to_str().unwrap_or_default();
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(ApiProblem::new(
                StatusCode::BAD_REQUEST,
                Problem::new(
                    "bad-idempotency-key",
                    format!("the key has {} bytes or is no plain text", header.len()),
                )
                .field("Idempotency-Key")
                .cure(format!(
                    "send 1 to {KEY_BYTES_MAX} printable ASCII characters, such as a UUID"
                )),
            ));
        }
        Ok(Some(Self {
            org,
            route: route.to_owned(),
            key: key.to_owned(),
            body_sha256: hex::encode(Sha256::digest(body)),
        }))
    }
    /// Id of the request's command or graph.
    pub fn own_id(&self) -> Uuid {
        id_of_key(self.org, &self.route, &self.key, OWN)
    }
    /// Id of the request itself, its body included: what a request of several commands marks each of them with.
    pub fn request_id(&self) -> Uuid {
        let key = format!("{}\n{}", self.key, self.body_sha256);
        id_of_key(self.org, &self.route, &key, OWN)
    }
    /// Id of the object number `index` that the request creates.
    pub fn id(&self, index: u64) -> Uuid {
        id_of_key(self.org, &self.route, &self.key, index)
    }
}

/// The key was used with another body.
pub fn reused() -> ApiProblem {
    Problem::new("key-reused", "the key was used before, with another body")
        .field("Idempotency-Key")
        .cure("send the same body again, or a new key for a new request")
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(key: &str) -> Answer<Option<Key>> {
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", key.parse().expect("a header"));
        Key::of(
            &headers,
            OrgId(Uuid::from_u128(1)),
            "POST /v1/swarms",
            b"{}",
        )
    }

    #[test]
    fn the_same_key_gives_the_same_ids_and_another_route_does_not() {
        let key = with("a").expect("good").expect("there");
        assert_eq!(key, with("a").expect("good").expect("there"));
        let elsewhere = Key {
            route: "POST /v1/swarms/x/tasks".to_owned(),
            ..key.clone()
        };
        let other_body = Key {
            body_sha256: "other".to_owned(),
            ..key.clone()
        };
        assert_eq!(other_body.own_id(), key.own_id());
        let ids = [
            key.request_id(),
            other_body.request_id(),
            key.own_id(),
            key.id(0),
            key.id(1),
            elsewhere.own_id(),
            elsewhere.id(0),
        ];
        for (at, id) in ids.iter().enumerate() {
            assert_eq!(id.get_version_num(), 8);
            assert!(!ids[..at].contains(id));
        }
    }

    #[test]
    fn a_key_is_taken_up_to_its_limit() {
        assert!(with(&"k".repeat(KEY_BYTES_MAX)).is_ok());
        for bad in [String::new(), "k".repeat(KEY_BYTES_MAX + 1)] {
            let problem = with(&bad).expect_err("bad").problem.clone();
            assert_eq!(problem.field.as_deref(), Some("Idempotency-Key"));
            assert!(problem.cure.is_some());
        }
        assert_eq!(
            Key::of(&HeaderMap::new(), OrgId(Uuid::nil()), "", b"").expect("none"),
            None
        );
    }
}
