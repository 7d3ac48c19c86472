use axum::http::{HeaderMap, HeaderName, HeaderValue};
use swarm_events::{OrgId, SwarmId, Timestamp};
use uuid::Uuid;

use super::*;

fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
    let pairs = pairs.iter();
    pairs
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .collect()
}

#[test]
fn a_write_rests_on_one_header() {
    let read = |pairs: &[_]| Precondition::of(&headers(pairs));
    for (pairs, expected) in [
        (&[][..], Precondition::None),
        (&[("if-match", "\"7\"")], Precondition::At(7)),
        (&[("if-match", "*")], Precondition::Present),
        (&[("if-none-match", "*")], Precondition::Absent),
        (&[("if-none-match", " \"7\" ")], Precondition::NotAt(7)),
    ] {
        assert_eq!(read(pairs).expect("good"), expected, "{pairs:?}");
    }
    for (pairs, field) in [
        (&[("if-match", "7")][..], "If-Match"),
        (&[("if-match", "W/\"7\"")], "If-Match"),
        (&[("if-match", "\"7\", \"8\"")], "If-Match"),
        (&[("if-none-match", "")], "If-None-Match"),
        (
            &[("if-none-match", "*"), ("if-match", "*")],
            "If-None-Match",
        ),
    ] {
        let problem = read(pairs).expect_err("refused");
        assert_eq!(problem.status, StatusCode::BAD_REQUEST);
        assert_eq!(problem.problem.field.as_deref(), Some(field), "{pairs:?}");
    }
}

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}

fn stored(key: &str, payload: &str, operation: Option<&str>) -> Stored {
    let mut headers = NatsHeaders::new();
    if let Some(operation) = operation {
        headers.insert(OPERATION, operation);
    }
    Stored {
        sequence: 7,
        at: Timestamp::ZERO,
        subject: subject(place(), key),
        headers,
        payload: Bytes::from(payload.to_owned()),
    }
}

#[test]
fn keys_are_found_by_what_they_begin_with() {
    let wanted = |prefix: &str| Wanted::of(place(), Some(prefix.to_owned())).expect("good");
    let root = subject(place(), "");
    for (prefix, filter) in [
        ("", ">"),
        ("plan", ">"),
        ("plan.", "plan.>"),
        ("plan.st", "plan.>"),
        ("a.b.c", "a.b.>"),
    ] {
        assert_eq!(
            wanted(prefix).filter(),
            format!("{root}{filter}"),
            "{prefix}"
        );
    }
    let step = stored("plan.step", "1", None);
    for (prefix, found) in [
        ("", true),
        ("plan.st", true),
        ("plan.x", false),
        ("an", false),
    ] {
        assert_eq!(wanted(prefix).key(&step).is_some(), found, "{prefix}");
    }
    let own = stored("_cursor.x", "1", None);
    assert_eq!(wanted("").key(&own), None, "it is the system's own");
    for prefix in ["_", "a b", "*", ".a", "a.."] {
        let problem = Wanted::of(place(), Some(prefix.to_owned())).expect_err(prefix);
        assert_eq!(problem.problem.field.as_deref(), Some("?prefix"));
    }
}

#[test]
fn what_is_no_json_is_shown_all_the_same() {
    let json = EntryView::of("k", &stored("k", "{\"a\": 1}", None));
    assert_eq!(
        (json.value.map(|v| v.as_str().to_owned()), json.value_base64),
        (Some("{\"a\": 1}".to_owned()), None)
    );
    let other = EntryView::of("k", &stored("k", "plain", None));
    assert_eq!(
        (other.value, other.value_base64.as_deref()),
        (None, Some("cGxhaW4="))
    );
    let gone = EntryView::of("k", &stored("k", "", Some("DEL")));
    assert_eq!((gone.value, gone.value_base64), (None, None));
}
