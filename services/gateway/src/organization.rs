//! `/organization`: the caller's own, from the gateway's fold, so it is there while PostgreSQL is down.

use axum::{
    body::Body as HttpBody,
    extract::State,
    http::{StatusCode, Uri},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Json, Problem, Subject,
    command::UpdateOrg,
    org::QUEUE_LIMIT_MAX,
    subject::{CommandVerb, Partition},
    swarm::NAME_CHARS_MAX,
};
use utoipa::ToSchema;
use uuid::Uuid;

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    json,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{present, refusal, unexpected},
};

/// An organization.
#[derive(Debug, Serialize, ToSchema)]
#[schema(example = json!({"id": "0190f7a0-0000-7000-8000-000000000001", "name": "Acme", "queue_limit": 1_000_000,
    "waiting": 1_234, "created_at": "2026-01-02T03:04:05Z"}))]
pub struct OrganizationAnswer {
    /// The organization.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Most tasks that may wait in all its swarms together; null: no limit.
    pub queue_limit: Option<u64>,
    /// Tasks that wait in all its swarms, as last measured.
    pub waiting: u64,
    /// When it was created.
    pub created_at: Option<DateTime<Utc>>,
}

/// What changes an organization: a JSON merge patch (RFC 7396). Absent keeps.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"queue_limit": 1_000_000}))]
pub struct OrganizationPatch {
    /// 1 to 100 characters; an organization always has a name.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    pub name: Option<Json>,
    /// 1 to 10,000,000,000; null: no limit.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u64>)]
    pub queue_limit: Option<Json>,
}

/// Shows the caller's organization.
#[utoipa::path(get, path = "/v1/organization", tag = "organization",
    responses((status = 200, body = OrganizationAnswer),
        (status = 401, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(State(app): State<Shared>, caller: Caller, uri: Uri) -> Answer<Reply> {
    caller.may(Action::Read)?;
    Params::of(&uri)?.done()?;
    Ok(Reply::json(StatusCode::OK, &shown(&app, &caller)?))
}

/// Changes the caller's organization by a JSON merge patch.
#[utoipa::path(put, path = "/v1/organization", tag = "organization", request_body = OrganizationPatch,
    responses((status = 200, body = OrganizationAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn update(State(app): State<Shared>, caller: Caller, body: HttpBody) -> Answer<Reply> {
    caller.may(Action::Administer)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let patch = checked(&bytes)?;
    let org = caller.org;
    let subject = Subject::OrgCommand(Partition::of(org.0), org, CommandVerb::UpdateOrg);
    let sending = Sending::new(subject, org.0, UpdateOrg { patch });
    let outcome = command::send(&app, sending).await?;
    let Body::OrgUpdated(updated) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let mut answer = shown(&app, &caller)?;
    answer.name.clone_from(&updated.name);
    answer.queue_limit = updated.queue_limit;
    Ok(Reply::json(StatusCode::OK, &answer).sequence(outcome.sequence))
}

fn shown(app: &App, caller: &Caller) -> Answer<OrganizationAnswer> {
    let fold = app.fold.read();
    let found = fold
        .organization(caller.org)
        .ok_or_else(|| ApiProblem::unknown("organization", caller.org))?;
    Ok(OrganizationAnswer {
        id: caller.org.0,
        name: found.name.clone(),
        queue_limit: found.queue_limit,
        waiting: fold.waiting_of(caller.org),
        created_at: found.created_at.to_chrono(),
    })
}

/// Reads and checks a patch: the coordinator would refuse it too, a round trip later.
fn checked(bytes: &[u8]) -> Answer<Json> {
    let patch: OrganizationPatch = json::read(bytes)?;
    if let Some(name) = &patch.name {
        let name: String = name
            .to()
            .map_err(|_| wrong_value("name", "must be a text", "give a JSON string"))?;
        let chars = name.chars().count();
        let blank = name.trim().is_empty() || name.chars().any(char::is_control);
        if blank || chars > NAME_CHARS_MAX {
            let cure = format!("give 1 to {NAME_CHARS_MAX} printable characters");
            let detail = format!("has {chars} characters, or nothing that can be read");
            return Err(Problem::new("wrong-length", detail)
                .field("name")
                .cure(cure)
                .into());
        }
    }
    if let Some(limit) = patch.queue_limit.as_ref().filter(|limit| !limit.is_null()) {
        let cure = format!("give a whole number from 1 to {QUEUE_LIMIT_MAX}, or null for no limit");
        let number: serde_json::Number = limit
            .to()
            .map_err(|_| wrong_value("queue_limit", "must be a number or null", &cure))?;
        let within = number
            .as_u64()
            .is_some_and(|n| (1..=QUEUE_LIMIT_MAX).contains(&n));
        if !within {
            let detail = format!("{number} is no whole number from 1 to {QUEUE_LIMIT_MAX}");
            return Err(Problem::new("out-of-range", detail)
                .field("queue_limit")
                .cure(cure)
                .into());
        }
    }
    let text = std::str::from_utf8(bytes).unwrap_or_default();
    Json::parse(text.trim()).map_err(|error| {
        Problem::new("malformed-json", error.to_string())
            .field("body")
            .into()
    })
}

fn wrong_value(field: &str, detail: &str, cure: &str) -> ApiProblem {
    Problem::new("wrong-value", detail)
        .field(field)
        .cure(cure)
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_patch_is_refused_by_its_field() {
        let long = format!(r#"{{"name": "{}"}}"#, "x".repeat(101));
        let over = format!(r#"{{"queue_limit": {}}}"#, QUEUE_LIMIT_MAX + 1);
        for (patch, code, field) in [
            ("[]", "wrong-value", "body"),
            (r#"{"colour": 1}"#, "unknown-field", "colour"),
            (r#"{"name": null}"#, "wrong-value", "name"),
            (r#"{"name": " "}"#, "wrong-length", "name"),
            (long.as_str(), "wrong-length", "name"),
            (r#"{"queue_limit": 0}"#, "out-of-range", "queue_limit"),
            (r#"{"queue_limit": -1}"#, "out-of-range", "queue_limit"),
            (r#"{"queue_limit": 1.5}"#, "out-of-range", "queue_limit"),
            (over.as_str(), "out-of-range", "queue_limit"),
            (r#"{"queue_limit": "9"}"#, "wrong-value", "queue_limit"),
        ] {
            let problem = checked(patch.as_bytes()).expect_err(patch).problem.clone();
            assert_eq!(
                (problem.code.as_str(), problem.field.as_deref()),
                (code, Some(field)),
                "{patch}"
            );
            assert!(problem.cure.is_some(), "{patch}");
        }
        let max = format!(r#"{{"queue_limit": {QUEUE_LIMIT_MAX}}}"#);
        for patch in [
            "{}",
            r#"{"queue_limit": null}"#,
            r#"{"queue_limit": 1}"#,
            max.as_str(),
        ] {
            assert_eq!(checked(patch.as_bytes()).expect(patch).as_str(), patch);
        }
    }
}
