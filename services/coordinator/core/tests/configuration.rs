//! Rules about what a swarm's configuration may hold.

mod support;

use support::{Given, create, pair};
use swarm_events::{Json, subject::CommandVerb};

#[test]
fn a_configuration_is_refused_by_the_setting_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    let config = |text: &str| Json::parse(text).expect("JSON");
    let mut cases = Vec::new();
    for (text, code, field) in [
        (
            r#"{"max_agents": 0}"#,
            "out-of-range",
            "configuration.max_agents",
        ),
        (
            r#"{"colour": 1}"#,
            "bad-configuration",
            "configuration.colour",
        ),
        (
            r#"{"max_agents": 3, "distribution_algorithm": "magic"}"#,
            "bad-configuration",
            "configuration.distribution_algorithm",
        ),
        (
            r#"{"retry": {"base_ms": 1, "base": 1}}"#,
            "bad-configuration",
            "configuration.retry.base",
        ),
        (
            r#"{"retry": 7}"#,
            "bad-configuration",
            "configuration.retry",
        ),
        // Only together out of range: named by the rule and not by a part.
        (
            r#"{"max_agents": 2, "min_agents": 3}"#,
            "out-of-range",
            "configuration.min_agents",
        ),
        (
            r#"{"shed_from_percent": 0}"#,
            "out-of-range",
            "configuration.shed_from_percent",
        ),
        (
            r#"{"shed_from_percent": 101}"#,
            "out-of-range",
            "configuration.shed_from_percent",
        ),
        (
            r#"{"queue_timeout_ms": -1}"#,
            "bad-configuration",
            "configuration.queue_timeout_ms",
        ),
        (
            r#"{"progress_timeout_ms": 2592000001}"#,
            "out-of-range",
            "configuration.progress_timeout_ms",
        ),
        (
            r#"{"stealing": "yes"}"#,
            "bad-configuration",
            "configuration.stealing",
        ),
        ("[]", "wrong-type", "configuration"),
    ] {
        let mut order = create("x");
        order.configuration = config(text);
        cases.push((order, code, field));
    }
    let mut order = create("x");
    order.configuration = config(&format!(
        r#"{{"scaling_policy": {{"a": "{}"}}}}"#,
        "x".repeat(16 * 1024)
    ));
    cases.push((order, "too-long", "configuration.scaling_policy"));
    for (order, code, field) in cases {
        let patch = format!(r#"{{"configuration": {}}}"#, order.configuration.as_str());
        let id = given.command(2, CommandVerb::Create, order);
        assert_eq!(given.refused(id), pair(code, field));
        let id = given.update(1, &patch);
        assert_eq!(given.refused(id), pair(code, field), "{patch}");
    }
}

#[test]
fn an_unknown_algorithm_is_answered_with_those_that_there_are() {
    let mut given = Given::a_swarm("{}");
    let id = given.update(
        1,
        r#"{"configuration": {"distribution_algorithm": "magic"}}"#,
    );
    let problem = given.refusal(id);
    assert_eq!(
        problem.field.as_deref(),
        Some("configuration.distribution_algorithm")
    );
    for name in [
        "least_loaded",
        "round_robin",
        "capability_match",
        "affinity",
        "priority_queue",
    ] {
        assert!(problem.detail.contains(name), "{problem}");
        let patch = format!(r#"{{"configuration": {{"distribution_algorithm": "{name}"}}}}"#);
        let id = given.update(1, &patch);
        assert_eq!(given.answered_by(id), "swarm.swarm.updated.v4");
    }
}
