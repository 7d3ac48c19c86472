//! Refusals as RFC 9457 problems that name the field and the cure.

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};
use swarm_events::Problem;
use utoipa::ToSchema;

/// Content type of a problem.
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What a refused request is answered with (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
pub struct ProblemDocument {
    /// URI that names the kind of problem: `urn:swarm:problem:<code>`.
    pub r#type: String,
    /// The kind in words.
    pub title: String,
    /// HTTP status.
    pub status: u16,
    /// A stable kebab-case name, such as `unknown-swarm`.
    pub code: String,
    /// What is wrong this time.
    pub detail: String,
    /// The field it is about, as a path in the submitted document (`tasks[3].priority`), or the header or parameter.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cure: Option<String>,
    /// More figures, by the kind of problem: `stale_since`, `id`, `seq`.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub more: Map<String, Value>,
}

/// A refusal on its way out. Boxed, since every handler's answer has room for one.
#[derive(Clone, Debug)]
pub struct ApiProblem(Box<Refusal>);

/// What a refusal says.
#[derive(Clone, Debug)]
pub struct Refusal {
    /// HTTP status.
    pub status: StatusCode,
    /// What, where, and the cure.
    pub problem: Problem,
    /// Seconds for `Retry-After`.
    pub retry_after: Option<u64>,
    /// Members beside the standard ones.
    pub more: Map<String, Value>,
}

/// Every handler's answer.
pub type Answer<T = Response> = Result<T, ApiProblem>;

impl std::ops::Deref for ApiProblem {
    type Target = Refusal;
    fn deref(&self) -> &Refusal {
        &self.0
    }
}
impl std::ops::DerefMut for ApiProblem {
    fn deref_mut(&mut self) -> &mut Refusal {
        &mut self.0
    }
}

impl ApiProblem {
    /// A refusal with this status.
    pub fn new(status: StatusCode, problem: Problem) -> Self {
        Self(Box::new(Refusal {
            status,
            problem,
            retry_after: None,
            more: Map::new(),
        }))
    }
    /// Adds a member.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.more.insert(name.to_owned(), value.into());
        self
    }
    /// Says when to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u64) -> Self {
        self.retry_after = Some(seconds);
        self
    }
    /// 404 for an object that is not there, or not the caller's: the two look alike on purpose.
    pub fn unknown(what: &str, id: impl std::fmt::Display) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            Problem::new(
                &format!("unknown-{what}"),
                format!("there is no {what} {id} in this organization"),
            )
            .field("id")
            .cure(format!("list what there is, and use the {what}'s id")),
        )
    }
    /// 503 while a part of the installation is away.
    pub fn unavailable(code: &str, detail: impl Into<String>, cure: &str) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            Problem::new(code, detail).cure(cure),
        )
        .retry_after(1)
    }
    /// The status that belongs to a refusal by a deciding service.
    pub fn decided(mut problem: Problem) -> Self {
        problem
            .cure
            .get_or_insert_with(|| "read the object again to see how it stands now".to_owned());
        Self::new(status_of(&problem.code), problem)
    }
    /// As it goes over the wire.
    pub fn document(&self) -> ProblemDocument {
        ProblemDocument {
            r#type: format!("urn:swarm:problem:{}", self.problem.code),
            title: title(&self.problem.code),
            status: self.status.as_u16(),
            code: self.problem.code.clone(),
            detail: self.problem.detail.clone(),
            field: self.problem.field.clone(),
            cure: self.problem.cure.clone(),
            more: self.more.clone(),
        }
    }
}

/// The HTTP status of a refusal by its code. What is not about existence, state or load is about the content: 422.
fn status_of(code: &str) -> StatusCode {
    match code {
        "unknown-swarm"
        | "unknown-agent"
        | "unknown-task"
        | "unknown-graph"
        | "unknown-organization"
        | "unknown-key"
        | "unknown-question"
        | "unknown-template" => StatusCode::NOT_FOUND,
        "not-a-choice" => StatusCode::UNPROCESSABLE_ENTITY,
        "queue-full" | "queue-limit" | "shed" => StatusCode::TOO_MANY_REQUESTS,
        "name-taken"
        | "agent-limit"
        | "max-agents"
        | "max-workers"
        | "min-agents"
        | "nothing-alike"
        | "by-hand"
        | "not-hosted"
        | "cancelled"
        | "no-dead-letter"
        | "nothing-changes"
        | "change-under-way"
        | "nobody-there"
        | "reserved-name"
        | "duplicate-swarm"
        | "duplicate-organization"
        | "repeated-command" => StatusCode::CONFLICT,
        _ if code.starts_with("swarm-")
            || code.starts_with("task-")
            || code.starts_with("already-")
            || code.starts_with("not-")
            || code.ends_with("-exists")
            || code.ends_with("-taken")
            || code.ends_with("-ended") =>
        {
            StatusCode::CONFLICT
        }
        _ => StatusCode::UNPROCESSABLE_ENTITY,
    }
}

/// `unknown-swarm` → `Unknown swarm`.
fn title(code: &str) -> String {
    let words = code.replace('-', " ");
    let mut letters = words.chars();
    letters
        .next()
        .map(|first| first.to_uppercase().chain(letters).collect())
        .unwrap_or_default()
}

impl From<Problem> for ApiProblem {
    fn from(problem: Problem) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
    }
}

impl IntoResponse for ApiProblem {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(code = %self.problem.code, detail = %self.problem.detail, "request failed");
        }
        let body = serde_json::to_vec(&self.document()).unwrap_or_else(|_| b"{}".to_vec());
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer realm=\"swarm\""),
            );
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_has_every_member_of_the_standard_and_ours() {
        let problem = ApiProblem::from(
            Problem::new("out-of-range", "11 is outside 1 to 10")
                .field("tasks[3].priority")
                .cure("give a number from 1 to 10"),
        )
        .with("seq", 7);
        let document = serde_json::to_value(problem.document()).expect("JSON");
        assert_eq!(
            document,
            serde_json::json!({
                "type": "urn:swarm:problem:out-of-range", "title": "Out of range", "status": 422,
                "code": "out-of-range", "detail": "11 is outside 1 to 10", "field": "tasks[3].priority",
                "cure": "give a number from 1 to 10", "seq": 7
            })
        );
    }
}
