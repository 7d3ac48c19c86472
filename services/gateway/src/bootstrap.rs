//! The first organization, its admin and the admin's key; and another key when that one was lost.
//!
//! Both need the right to publish commands on the bus, which only the installation itself has.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use bytes::Bytes;
use chrono::Utc;
use futures::{StreamExt, stream::BoxStream};
use swarm_events::{
    Body, Event, EventId, InstanceId, KeyId, OrgId, Partition, Problem, Subject, UserId,
    command::{CreateKey, CreateOrg},
    envelope::Source,
    org::Role,
    subject::CommandVerb,
};
use swarm_log::{AppendError, Log, LogError, Message, Tailed};
use swarm_runtime::snapshots::SnapshotError;
use tokio::time::{Instant, timeout_at};
use uuid::Uuid;

use crate::{
    auth::KEY_PREFIX,
    fold::{Fold, filters, keys::hash, outcomes::Outcomes},
    snapshot,
    tail::input,
};

/// How long the coordinator's answer is awaited: at a first start it may still be starting.
pub const BOOTSTRAP_TIMEOUT: Duration = Duration::from_secs(60);
/// Message id of the creation of the first organization: of two processes that both find none, one is the duplicate.
const ONCE: &str = "swarm-bootstrap";

/// What the first start made.
#[derive(Clone, PartialEq, Eq)]
pub struct Bootstrap {
    /// The organization.
    pub org_id: OrgId,
    /// The admin's key, shown this once: only its hash is stored.
    pub api_key: String,
}
impl std::fmt::Debug for Bootstrap {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bootstrap")
            .field("org_id", &self.org_id)
            .finish_non_exhaustive()
    }
}

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    /// There is an organization already: its admin has a key, or [`admin_key`] makes another one.
    #[error("organization {org_id} exists already")]
    Exists {
        /// The first of them by id.
        org_id: OrgId,
    },
    /// Another process is doing the same at this moment.
    #[error("another process creates the first organization at this moment")]
    Concurrent,
    /// The organization is not there, or has no admin.
    #[error("organization {org_id} has no admin")]
    NoAdmin {
        /// The organization.
        org_id: OrgId,
    },
    /// The log cannot be read.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The state cannot be made from what the log and its snapshots hold.
    #[error(transparent)]
    Start(#[from] SnapshotError),
    /// The command was not stored.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The coordinator refused.
    #[error("the coordinator refused: {0}")]
    Refused(Problem),
    /// No coordinator answered in time.
    #[error(
        "no coordinator answered within {BOOTSTRAP_TIMEOUT:?}; check that the coordinator service runs"
    )]
    NoAnswer,
    /// The event cannot be written, which its types rule out.
    #[error("the command cannot be written as JSON: {0}")]
    Json(#[from] serde_json::Error),
}

/// Creates the organization `name` with its first admin, if there is no organization yet, and waits until the key holds.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn bootstrap<L: Log>(log: L, name: &str) -> Result<Bootstrap, BootstrapError> {
    let mut folding = Folding::to_the_end(&log).await?;
    if let Some((org_id, _)) = folding.fold.organizations().iter().next() {
        return Err(BootstrapError::Exists { org_id });
    }
    let (org, api_key) = (OrgId(Uuid::now_v7()), random_key());
    let order = CreateOrg {
        name: name.to_owned(),
        user_id: UserId(Uuid::now_v7()),
        user_name: "admin".to_owned(),
        key_id: KeyId(Uuid::now_v7()),
        key_sha256: hash(&api_key),
    };
    let key = order.key_id;
    folding
        .order(
            &log,
            org,
            CommandVerb::CreateOrg,
            order.into(),
            Some(ONCE),
            key,
        )
        .await?;
    Ok(Bootstrap {
        org_id: org,
        api_key,
    })
}

/// Makes another key for the first admin of `org`: for an installation that has lost the one it had.
///
/// # Errors
/// See [`BootstrapError`].
pub async fn admin_key<L: Log>(log: L, org: OrgId) -> Result<Bootstrap, BootstrapError> {
    let mut folding = Folding::to_the_end(&log).await?;
    let no_admin = || BootstrapError::NoAdmin { org_id: org };
    let found = folding.fold.organizations().get(org).ok_or_else(no_admin)?;
    let (user, _) = found
        .users
        .iter()
        .find(|(_, user)| user.role == Role::Admin)
        .ok_or_else(no_admin)?;
    let api_key = random_key();
    let order = CreateKey {
        key_id: KeyId(Uuid::now_v7()),
        user_id: *user,
        name: "admin key of the installation".to_owned(),
        role: Role::Admin,
        sha256: hash(&api_key),
    };
    let key = order.key_id;
    folding
        .order(&log, org, CommandVerb::CreateKey, order.into(), None, key)
        .await?;
    Ok(Bootstrap {
        org_id: org,
        api_key,
    })
}

/// 256 random bits behind the prefix that secret scanners know it by.
fn random_key() -> String {
    format!(
        "{KEY_PREFIX}{}",
        URL_SAFE_NO_PAD.encode(rand::random::<[u8; 32]>())
    )
}

struct Folding {
    fold: Fold,
    outcomes: Outcomes,
    tail: BoxStream<'static, Result<Tailed, LogError>>,
}

impl Folding {
    async fn to_the_end<L: Log>(log: &L) -> Result<Self, BootstrapError> {
        let start = snapshot::start(log).await?;
        let mut folding = Self {
            fold: start.fold,
            outcomes: Outcomes::default(),
            tail: log.tail(filters(), start.from),
        };
        while !matches!(folding.next().await?, Tailed::CaughtUp) {}
        Ok(folding)
    }

    async fn next(&mut self) -> Result<Tailed, LogError> {
        let ended = || LogError::Unreachable("the log's tail ended".to_owned());
        let item = self.tail.next().await.ok_or_else(ended)??;
        if let Tailed::Message(message) = &item {
            self.fold.apply(input(message), &mut self.outcomes);
        }
        Ok(item)
    }

    /// Sends a command about `org` and folds on until `key` holds.
    async fn order<L: Log>(
        &mut self,
        log: &L,
        org: OrgId,
        verb: CommandVerb,
        body: Body,
        message_id: Option<&str>,
        key: KeyId,
    ) -> Result<(), BootstrapError> {
        let deadline = Instant::now() + BOOTSTRAP_TIMEOUT;
        let subject = Subject::OrgCommand(Partition::of(org.0), org, verb);
        let id = Uuid::now_v7();
        let source = Source::Client(format!("/swarm/bootstrap/{}", InstanceId(Uuid::now_v7())));
        let event = Event::new(
            EventId(id),
            source,
            Utc::now().into(),
            &subject,
            org.0,
            body,
        );
        let message = Message {
            subject: subject.to_string(),
            payload: Bytes::from(event.to_json()?),
            message_id: Some(message_id.map_or_else(|| id.to_string(), str::to_owned)),
            fence: None,
        };
        let mut answer = self.outcomes.wait(id);
        let stored = log.append(vec![message]).await.pop().transpose()?;
        if stored.is_some_and(|stored| stored.duplicate) {
            return Err(BootstrapError::Concurrent);
        }
        loop {
            let item = timeout_at(deadline, self.next()).await;
            item.map_err(|_| BootstrapError::NoAnswer)??;
            if let Ok(outcome) = answer.outcome.try_recv()
                && let Body::OrgRefused(refused) = &outcome.event.body
            {
                return Err(BootstrapError::Refused(refused.problem.clone()));
            }
            // The organization, its user and its key are events of their own.
            let holds = self
                .fold
                .organizations()
                .get(org)
                .is_some_and(|org| org.keys.contains_key(&key));
            if holds {
                return Ok(());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_256_random_bits_behind_its_prefix() {
        let (one, other) = (random_key(), random_key());
        assert_ne!(one, other);
        let bits = URL_SAFE_NO_PAD
            .decode(one.strip_prefix("swk_").expect("the prefix"))
            .expect("base64url");
        assert_eq!(bits.len(), 32);
        assert!(
            !format!(
                "{:?}",
                Bootstrap {
                    org_id: OrgId(Uuid::nil()),
                    api_key: one.clone()
                }
            )
            .contains(&one)
        );
    }
}
