//! Rules about templates: topologies under a name of the organization's own.

mod support;

use std::collections::BTreeSet;

use support::{Given, org, pair, topologies::json};
use swarm_coordinator_core::{Coordinator, Touched};
use swarm_events::{
    OrgId,
    command::{DeleteTemplate, SaveTemplate},
    configuration::TopologyKind::{self, Hierarchical, Mesh, Ring, Star},
    decider::Decider,
    org::{TEMPLATE_NAME_CHARS_MAX, TEMPLATES_MAX},
    subject::CommandVerb,
    swarm::DESCRIPTION_BYTES_MAX,
    topology::Topology,
};
use uuid::Uuid;

fn template(name: &str, topology: TopologyKind, options: &str) -> SaveTemplate {
    SaveTemplate {
        name: name.into(),
        description: None,
        best_for: None,
        topology,
        configuration: json(options),
    }
}

impl Given {
    fn save(&mut self, order: SaveTemplate) -> Uuid {
        self.org_command(CommandVerb::SaveTemplate, order)
    }
    fn forget(&mut self, name: &str) -> Uuid {
        self.org_command(
            CommandVerb::DeleteTemplate,
            DeleteTemplate { name: name.into() },
        )
    }
    fn names(&self) -> Vec<&str> {
        self.0
            .state
            .templates(org())
            .map(|(name, _)| name)
            .collect()
    }
}

#[test]
fn a_template_is_kept_with_all_its_options() {
    let mut given = Given::an_organization();
    let mut order = template("night shift", Mesh, r#"{"neighbours": 8}"#);
    order.description = Some("few agents, long tasks".into());
    order.best_for = Some("video".into());
    let id = given.save(order);
    assert_eq!(given.answered_by(id), "swarm.org.template_saved.v1");
    let (name, found) = given.0.state.templates(org()).next().expect("saved");
    assert_eq!(name, "night shift");
    assert_eq!(found.description.as_deref(), Some("few agents, long tasks"));
    assert_eq!(found.best_for.as_deref(), Some("video"));
    let Topology::Mesh(mesh) = &found.topology else {
        panic!("{found:?}");
    };
    assert_eq!((mesh.neighbours, mesh.gossip_interval_ms), (8, 1_000));
    assert_eq!(found.created_at, found.updated_at);
}

#[test]
fn one_of_the_same_name_is_replaced_and_a_deleted_name_is_free() {
    let mut given = Given::an_organization();
    given.save(template("a", Mesh, "{}"));
    given.0.later(1_000);
    given.save(template("a", Ring, "{}"));
    let (_, found) = given.0.state.templates(org()).next().expect("saved");
    assert_eq!(found.topology.kind(), Ring);
    assert_eq!(found.updated_at.millis_since(found.created_at), 1_000);
    given.save(template("b", Star, "{}"));
    assert_eq!(given.names(), ["a", "b"]);
    let id = given.forget("a");
    assert_eq!(given.answered_by(id), "swarm.org.template_deleted.v1");
    assert_eq!(given.names(), ["b"]);
    let id = given.forget("a");
    assert_eq!(given.refused(id), pair("unknown-template", "name"));
    assert!(given.refusal(id).cure.is_some());
    given.0.later(1_000);
    given.save(template("a", Star, "{}"));
    let (_, found) = given.0.state.templates(org()).next().expect("saved");
    assert_eq!(found.created_at, found.updated_at);
}

#[test]
fn a_template_is_refused_by_the_field_that_is_wrong() {
    let mut given = Given::an_organization();
    let long = "x".repeat(DESCRIPTION_BYTES_MAX + 1);
    let mut cases = vec![
        (template("", Star, "{}"), "empty", "name"),
        (template("a\u{7}", Star, "{}"), "control-character", "name"),
        (
            template(&"n".repeat(TEMPLATE_NAME_CHARS_MAX + 1), Star, "{}"),
            "too-long",
            "name",
        ),
        (
            template("a", Hierarchical, r#"{"parent_child_ratio": 0}"#),
            "out-of-range",
            "configuration.parent_child_ratio",
        ),
        (
            template("a", Ring, r#"{"levels": []}"#),
            "bad-configuration",
            "configuration.levels",
        ),
        (template("a", Ring, "7"), "wrong-type", "configuration"),
    ];
    for name in ["star", "mesh", "hierarchical", "ring", "Ring"] {
        cases.push((template(name, Star, "{}"), "reserved-name", "name"));
    }
    let mut order = template("a", Star, "{}");
    order.description = Some(long.clone());
    cases.push((order, "too-long", "description"));
    let mut order = template("a", Star, "{}");
    order.best_for = Some(long);
    cases.push((order, "too-long", "best_for"));
    for (order, code, field) in cases {
        let id = given.save(order);
        assert_eq!(given.refused(id), pair(code, field));
    }
    let id = given.forget("star");
    assert_eq!(given.refused(id), pair("reserved-name", "name"));
    assert!(given.names().is_empty());
    let longest = "ü".repeat(TEMPLATE_NAME_CHARS_MAX);
    given.save(template(&longest, Star, "null"));
    assert_eq!(given.names(), [longest.as_str()]);
}

#[test]
fn an_organization_has_a_limit_of_templates_and_may_replace_at_the_limit() {
    let mut given = Given::an_organization();
    for n in 0..TEMPLATES_MAX {
        let id = given.save(template(&format!("t{n}"), Ring, "{}"));
        assert_eq!(given.answered_by(id), "swarm.org.template_saved.v1");
    }
    let id = given.save(template("more", Ring, "{}"));
    assert_eq!(given.refused(id), pair("too-many", "name"));
    assert!(given.refusal(id).cure.is_some());
    let id = given.save(template("t7", Mesh, "{}"));
    assert_eq!(given.answered_by(id), "swarm.org.template_saved.v1");
    given.forget("t7");
    let id = given.save(template("more", Ring, "{}"));
    assert_eq!(given.answered_by(id), "swarm.org.template_saved.v1");
}

#[test]
fn templates_are_those_of_one_organization_in_every_partition() {
    let mut given = Given::an_organization();
    given.save(template("a", Mesh, "{}"));
    let stranger = OrgId(support::id_here(101));
    assert_eq!(given.0.state.templates(stranger).count(), 0);
    let order = template("a", Mesh, "{}");
    let subject =
        swarm_events::Subject::OrgCommand(support::P, stranger, CommandVerb::SaveTemplate);
    let id = given.0.client(subject, stranger.0, order);
    given.0.settle();
    assert_eq!(given.refused(id), pair("unknown-organization", "org"));
    let elsewhere = swarm_events::Partition::new(8).expect("a partition");
    let mut other = Coordinator::new(elsewhere);
    let mut touched = Touched::default();
    for input in given.0.inputs() {
        other.evolve_traced(&input, &mut touched);
    }
    assert_eq!(other.templates(org()).count(), 1);
    assert_eq!(touched.templates, BTreeSet::from([(org(), "a".to_owned())]));
}
