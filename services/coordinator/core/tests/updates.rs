//! Rules about changing what a running agent is.

mod support;

use support::{Given, agent, hosts::each_way, join, pair};
use swarm_events::{command::UpdateAgent, subject::CommandVerb};

#[test]
fn a_running_agent_changes_what_it_can_do() {
    each_way(|| {
        let mut given = Given::a_swarm("{}");
        given.running(1);
        let patch = r#"{"agent_name": "ann", "capabilities": ["c", "a", "c"], "slots": 3, "waiting": 0, "metadata": {"x": {"y": 1}}}"#;
        let id = given.patch(1, patch);
        assert_eq!(given.answered_by(id), "swarm.agent.updated.v1");
        given.patch(1, r#"{"metadata": {"x": {"y": null, "z": [2]}}}"#);
        let found = given.agent(1);
        let profile = &found.profile;
        assert_eq!(profile.agent_name, "ann");
        assert_eq!(profile.capabilities, ["a", "c"]);
        assert_eq!((profile.slots, profile.waiting), (3, 0));
        assert_eq!(profile.metadata.as_str(), r#"{"x":{"z":[2]}}"#);
        let spec = &given.managed(1).spec;
        assert_eq!(spec.agent_name.as_deref(), Some("ann"));
        assert_eq!(
            (spec.capabilities.len(), spec.slots, spec.waiting),
            (2, Some(3), Some(0))
        );
        assert_eq!(spec.metadata, profile.metadata);
        assert_eq!(given.swarm(1).agent_named("ann"), Some(agent(1)));
        // Its next process is told so.
        given.restart(1, true);
        assert_eq!(given.requests(1)[1].spec, given.managed(1).spec);
        given.patch(1, r#"{"metadata": null}"#);
        assert_eq!(
            given.agent(1).profile.metadata.as_str(),
            "{}",
            "also while none runs"
        );
        assert_eq!(given.requests(1).len(), 2);
    });
}

#[test]
fn a_change_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::a_swarm("{}");
    given.join(1, join(1, Some("ann")));
    given.join(2, join(2, Some("bob")));
    let before = given.agent(1).clone();
    for (patch, code, field) in [
        ("[]", "wrong-type", "patch"),
        (r#"{"agent_type": "x"}"#, "unknown-field", "agent_type"),
        (r#"{"agent_name": null}"#, "null", "agent_name"),
        (r#"{"capabilities": null}"#, "null", "capabilities"),
        (r#"{"slots": null}"#, "null", "slots"),
        (r#"{"waiting": null}"#, "null", "waiting"),
        (r#"{"agent_name": 3}"#, "wrong-type", "agent_name"),
        (r#"{"agent_name": ""}"#, "empty", "agent_name"),
        (r#"{"agent_name": "bob"}"#, "name-taken", "agent_name"),
        (r#"{"capabilities": "a"}"#, "wrong-type", "capabilities"),
        (
            r#"{"capabilities": ["a", 1]}"#,
            "wrong-type",
            "capabilities[1]",
        ),
        (r#"{"capabilities": [""]}"#, "empty", "capabilities[0]"),
        (r#"{"slots": 0}"#, "out-of-range", "slots"),
        (r#"{"slots": -1}"#, "wrong-type", "slots"),
        (r#"{"slots": 1.5}"#, "wrong-type", "slots"),
        (r#"{"slots": 4294967296}"#, "wrong-type", "slots"),
        (r#"{"waiting": 1025}"#, "out-of-range", "waiting"),
        (r#"{"metadata": []}"#, "wrong-type", "metadata"),
    ] {
        let id = given.patch(1, patch);
        assert_eq!(given.refused(id), pair(code, field), "{patch}");
    }
    let of = |incarnation| UpdateAgent {
        incarnation: Some(incarnation),
        patch: swarm_events::Json::object(),
    };
    let id = given.order(1, CommandVerb::UpdateAgent, of(2));
    assert_eq!(given.refused(id), pair("other-incarnation", "incarnation"));
    assert_eq!(given.agent(1), &before);
    let id = given.order(1, CommandVerb::UpdateAgent, of(1));
    assert_eq!(given.answered_by(id), "swarm.agent.updated.v1");
    let id = given.patch(3, "{}");
    assert_eq!(given.refused(id), pair("unknown-agent", "agent"));
    given.leave(2, 1);
    let id = given.patch(2, "{}");
    assert_eq!(given.refused(id), pair("already-stopped", "agent"));
}
