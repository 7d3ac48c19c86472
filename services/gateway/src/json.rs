//! Reading request bodies: over-large, malformed and wrong ones are told apart, and the field is named.

use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use serde::de::{DeserializeOwned, IgnoredAny};
use swarm_events::{Json, Problem};

use crate::problem::{Answer, ApiProblem};

/// Largest body of a submission, in bytes: the most tasks that it may have (10,000, of a graph or in bulk) at 3 KiB each, and
/// a dozen of the largest payloads. While it is handled a process holds a small multiple of it.
pub const SUBMISSION_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Largest body of anything else, in bytes: a configuration with its description is far smaller.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The whole body, at most `limit` bytes.
///
/// # Errors
/// 413 if it is larger, 400 if the client broke off.
pub async fn whole(body: Body, limit: usize) -> Answer<Bytes> {
    axum::body::to_bytes(body, limit).await.map_err(|error| {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(inner) = cause {
            if inner.to_string().contains("length limit exceeded") {
                return ApiProblem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    Problem::new("body-too-large", format!("the body has more than {limit} bytes"))
                        .field("body")
                        .cure("split the submission, or store large data elsewhere and pass a reference to it"),
                );
            }
            cause = inner.source();
        }
        ApiProblem::new(
            StatusCode::BAD_REQUEST,
            Problem::new("broken-body", format!("the body could not be read: {error}")).field("body"),
        )
    })
}

/// Reads `bytes` as `T`.
///
/// # Errors
/// 400 if it is no JSON, 422 with the path of the field if it is JSON of another shape.
pub fn read<T: DeserializeOwned>(bytes: &[u8]) -> Answer<T> {
    // serde would read an array as the fields of a struct in their order.
    if bytes.trim_ascii_start().starts_with(b"[") {
        serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| refused(".", &error))?;
        return Err(named(".", "invalid type: sequence, expected an object").into());
    }
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let path = error.path().to_string();
        refused(&path, error.inner())
    })?;
    deserializer.end().map_err(|error| refused(".", &error))?;
    Ok(value)
}

/// Reads `bytes` as any JSON.
///
/// # Errors
/// 400 if it is none.
pub fn read_any(bytes: &[u8]) -> Answer<Json> {
    let text = std::str::from_utf8(bytes).unwrap_or_default().trim();
    Json::parse(text).map_err(|error| {
        let problem = Problem::new("malformed-json", format!("the body is not JSON: {error}"))
            .field("body")
            .cure("send one JSON value in UTF-8");
        ApiProblem::new(StatusCode::BAD_REQUEST, problem)
    })
}

fn refused(path: &str, error: &serde_json::Error) -> ApiProblem {
    if !error.is_data() {
        let detail = format!("the body is not JSON: {error}");
        let problem = Problem::new("malformed-json", detail)
            .field("body")
            .cure("send one JSON value in UTF-8");
        return ApiProblem::new(StatusCode::BAD_REQUEST, problem);
    }
    // serde_json appends the position; the path says it better.
    let text = error.to_string();
    let message = text.split(" at line ").next().unwrap_or(&text);
    named(path, message).into()
}

/// A shape error of serde as a problem whose field is the whole path.
pub fn named(path: &str, message: &str) -> Problem {
    let quoted = |prefix: &str| {
        message
            .strip_prefix(prefix)
            .and_then(|rest| rest.split('`').next())
    };
    let below = |name: &str| match path {
        "." | "" => name.to_owned(),
        _ if path == name || path.ends_with(&format!(".{name}")) => path.to_owned(),
        _ => format!("{path}.{name}"),
    };
    if let Some(name) = quoted("unknown field `") {
        let known = message
            .split_once("expected ")
            .map_or("none", |(_, known)| known);
        return Problem::new("unknown-field", format!("there is no field {name} here"))
            .field(below(name))
            .cure(format!("leave it out, or use {known}"));
    }
    if let Some(name) = quoted("missing field `") {
        return Problem::new("missing-field", format!("{name} is missing"))
            .field(below(name))
            .cure("see the schema in /openapi.json");
    }
    let path = if path == "." { "body" } else { path };
    Problem::new("wrong-value", message)
        .field(path)
        .cure("see the schema in /openapi.json")
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use swarm_events::Json;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Item {
        #[allow(dead_code, reason = "only its reading is tested")]
        priority: u8,
        #[allow(dead_code, reason = "only its reading is tested")]
        payload: Json,
    }
    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct List {
        tasks: Vec<Item>,
    }

    fn refusal(text: &str) -> (u16, String, String) {
        let problem = read::<List>(text.as_bytes()).expect_err(text);
        (
            problem.status.as_u16(),
            problem.problem.code.clone(),
            problem.problem.field.clone().unwrap_or_default(),
        )
    }

    #[test]
    fn what_is_wrong_is_named_by_its_path() {
        for (text, status, code, field) in [
            ("{", 400, "malformed-json", "body"),
            ("{\"tasks\":[]} x", 400, "malformed-json", "body"),
            ("[]", 422, "wrong-value", "body"),
            ("[1,", 400, "malformed-json", "body"),
            ("{}", 422, "missing-field", "tasks"),
            ("{\"tasks\":[],\"more\":1}", 422, "unknown-field", "more"),
            (
                r#"{"tasks":[{"priority":1,"payload":{},"prio":2}]}"#,
                422,
                "unknown-field",
                "tasks[0].prio",
            ),
            (
                r#"{"tasks":[{"priority":"x","payload":{}}]}"#,
                422,
                "wrong-value",
                "tasks[0].priority",
            ),
            (
                r#"{"tasks":[{"priority":300,"payload":{}}]}"#,
                422,
                "wrong-value",
                "tasks[0].priority",
            ),
            (
                r#"{"tasks":[{"priority":1}]}"#,
                422,
                "missing-field",
                "tasks[0].payload",
            ),
            ("\"text\"", 422, "wrong-value", "body"),
        ] {
            assert_eq!(
                refusal(text),
                (status, code.to_owned(), field.to_owned()),
                "{text}"
            );
        }
    }

    #[test]
    fn carried_json_keeps_its_text() {
        let list: List =
            read(br#"{"tasks":[{"priority":1,"payload":{"a": [1, 2.50]}}]}"#).expect("valid");
        assert_eq!(list.tasks[0].payload.as_str(), r#"{"a": [1, 2.50]}"#);
    }

    #[tokio::test]
    async fn a_body_may_be_as_large_as_the_limit_and_no_larger() {
        assert_eq!(
            whole(Body::from(vec![b' '; 64]), 64)
                .await
                .expect("at the limit")
                .len(),
            64
        );
        let problem = whole(Body::from(vec![b' '; 65]), 64)
            .await
            .expect_err("above the limit");
        assert_eq!(problem.status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(problem.problem.field.as_deref(), Some("body"));
        assert!(problem.problem.cure.is_some());
    }
}
