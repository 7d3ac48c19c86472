//! Who may do what. The key comes as `Authorization: Bearer swk_…` and is looked up in the gateway's own fold.

use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
};
use swarm_events::{Problem, org::Role};

use crate::{
    app::Shared,
    problem::{Answer, ApiProblem},
};

pub use crate::fold::keys::Caller;

/// Prefix of every key, so that secret scanners can tell one.
pub const KEY_PREFIX: &str = "swk_";

/// What a request wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Look.
    Read,
    /// Hand in tasks.
    Submit,
    /// Say something to agents: messages, answers, what is on their blackboards.
    Talk,
    /// Create and configure swarms.
    Configure,
    /// Cancel, retry and discard tasks.
    Direct,
    /// Add, change, restart, scale and remove agents, terminate swarms.
    Operate,
    /// Change the organization itself.
    Administer,
}
impl Action {
    /// Whether `role` may. An analyst reads only; above a user each role may what the one below may, and more.
    pub fn allowed_to(self, role: Role) -> bool {
        match self {
            Self::Read => true,
            Self::Submit | Self::Talk => role != Role::Analyst,
            Self::Configure | Self::Direct => role >= Role::Developer,
            Self::Operate => role >= Role::Operator,
            Self::Administer => role == Role::Admin,
        }
    }
    const fn in_words(self) -> (&'static str, &'static str) {
        match self {
            Self::Read => ("read", "user"),
            Self::Submit => ("submit tasks", "user"),
            Self::Talk => (
                "send messages, answer questions or write on blackboards",
                "user",
            ),
            Self::Configure => ("create or configure swarms", "developer"),
            Self::Direct => ("cancel, retry or discard tasks", "developer"),
            Self::Operate => (
                "add, change, scale, restart or remove agents, or terminate swarms",
                "operator",
            ),
            Self::Administer => ("change the organization", "admin"),
        }
    }
}

/// Refuses what the caller's role does not allow.
pub trait May {
    /// # Errors
    /// 403 naming the role that would do.
    fn may(&self, action: Action) -> Answer<()>;
}
impl May for Caller {
    fn may(&self, action: Action) -> Answer<()> {
        if action.allowed_to(self.role) {
            return Ok(());
        }
        let role = format!("{:?}", self.role).to_lowercase();
        let (what, least) = action.in_words();
        Err(ApiProblem::new(
            StatusCode::FORBIDDEN,
            Problem::new(
                "forbidden",
                format!("a key with the role {role} may not {what}"),
            )
            .field("Authorization")
            .cure(format!("use a key with the role {least} or a higher one")),
        ))
    }
}

fn unauthorized(code: &str, detail: &str) -> ApiProblem {
    ApiProblem::new(
        StatusCode::UNAUTHORIZED,
        Problem::new(code, detail)
            .field("Authorization")
            .cure("send the header Authorization: Bearer <key>; `swarm up` prints the admin key and keeps it in connection.json"),
    )
}

impl FromRequestParts<Shared> for Caller {
    type Rejection = ApiProblem;

    async fn from_request_parts(parts: &mut Parts, app: &Shared) -> Result<Self, ApiProblem> {
        let header = parts
            .headers
            .get(header::AUTHORIZATION)
            .ok_or_else(|| unauthorized("no-key", "the request carries no API key"))?;
        let key = header
            .to_str()
            .ok()
            .and_then(|text| {
                let (scheme, key) = text.split_once(' ')?;
                scheme.eq_ignore_ascii_case("bearer").then_some(key.trim())
            })
            .filter(|key| !key.is_empty())
            .ok_or_else(|| {
                unauthorized(
                    "bad-authorization",
                    "the header is not of the form Bearer <key>",
                )
            })?;
        app.fold
            .read()
            .caller(key)
            .ok_or_else(|| unauthorized("unknown-key", "the API key is unknown or revoked"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_allow_what_they_say() {
        use Action::{Administer, Configure, Direct, Operate, Read, Submit, Talk};
        let developer = [Read, Submit, Talk, Configure, Direct];
        for (role, allowed) in [
            (Role::User, vec![Read, Submit, Talk]),
            (Role::Analyst, vec![Read]),
            (Role::Developer, developer.to_vec()),
            (Role::Operator, [&developer[..], &[Operate]].concat()),
            (
                Role::Admin,
                [&developer[..], &[Operate, Administer]].concat(),
            ),
        ] {
            for action in [Read, Submit, Talk, Configure, Direct, Operate, Administer] {
                assert_eq!(
                    action.allowed_to(role),
                    allowed.contains(&action),
                    "{role:?} {action:?}"
                );
            }
        }
    }
}
