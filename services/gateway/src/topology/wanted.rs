//! Which topology a request wants: by its kind, by a merge patch over options, by a template, or by several of these.

use serde::Deserialize;
use serde_json::{Map, Value};
use swarm_events::{
    Json, Problem, configuration::TopologyKind, task::REASON_BYTES_MAX, topology::Topology,
};
use utoipa::ToSchema;

use crate::{
    json,
    problem::{Answer, ApiProblem},
    swarms::present,
};

/// What changes a swarm's topology.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"topology": "hierarchical", "configuration": {"parent_child_ratio": 8}, "reason": "more agents than one hub serves"}))]
pub struct TopologyInput {
    /// Which; the present one if absent. Without `configuration` its options are its defaults.
    #[schema(value_type = Option<crate::openapi::TopologyKind>)]
    pub topology: Option<TopologyKind>,
    /// A merge patch (RFC 7396) over its options as they are, over its defaults if it is another one, or over the template's.
    /// Null: its defaults.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<crate::openapi::TopologyOptions>)]
    pub configuration: Option<Json>,
    /// The name of a template that is begun from.
    pub template: Option<String>,
    /// Why, at most 1,000 bytes.
    pub reason: Option<String>,
}

impl TopologyInput {
    /// Reads a request.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(super) fn read(bytes: &[u8]) -> Answer<Self> {
        let input: Self = json::read(bytes)?;
        if input.topology.is_none() && input.configuration.is_none() && input.template.is_none() {
            return Err(Problem::new("nothing-to-change", "no topology is named")
                .field("body")
                .cure("give topology, configuration or template")
                .into());
        }
        let length = input.reason.as_ref().map_or(0, String::len);
        if length > REASON_BYTES_MAX {
            let detail = format!("has {length} bytes, more than {REASON_BYTES_MAX}");
            return Err(Problem::new("too-long", detail)
                .field("reason")
                .cure("shorten it")
                .into());
        }
        Ok(input)
    }
}

/// What a request says of a topology.
pub(crate) struct Wanted<'a> {
    /// Which.
    pub(crate) topology: Option<TopologyKind>,
    /// A merge patch; null for the defaults.
    pub(crate) configuration: Option<&'a Json>,
    /// The topology of the template that it names.
    pub(crate) template: Option<&'a Topology>,
    /// What the patch is called in the request.
    pub(crate) field: &'static str,
}

impl Wanted<'_> {
    /// The topology that is wanted, where there is `current`, in a swarm of at most `max_agents`.
    ///
    /// # Errors
    /// 422 naming the option that is unknown, out of its range or impossible.
    pub(crate) fn over(&self, current: Option<&Topology>, max_agents: u32) -> Answer<Topology> {
        let kind = match (self.topology, self.template) {
            (Some(kind), Some(template)) if kind != template.kind() => {
                let detail = format!("the template is of a {}", word(template.kind()));
                return Err(Problem::new("contradiction", detail)
                    .field("topology")
                    .cure("leave out one of topology and template")
                    .into());
            }
            (_, Some(template)) => template.kind(),
            (Some(kind), None) => kind,
            (None, None) => current.map_or_else(TopologyKind::default, Topology::kind),
        };
        let named = self.topology.is_some() || self.template.is_some();
        let reset = self.configuration.map_or(named, Json::is_null);
        let base = match (self.template, current) {
            (Some(template), _) => template.clone(),
            (None, Some(current)) if !reset && current.kind() == kind => current.clone(),
            _ => Topology::of(kind),
        };
        let nothing = Json::object();
        let patch = self
            .configuration
            .filter(|patch| !patch.is_null())
            .unwrap_or(&nothing);
        let wanted = base.changed(kind, patch, max_agents);
        wanted.map_err(|problem| self.refused(problem))
    }

    fn refused(&self, mut problem: Problem) -> ApiProblem {
        let rest = problem
            .field
            .as_deref()
            .and_then(|field| field.strip_prefix("configuration"));
        if let Some(rest) = rest {
            problem.field = Some(format!("{}{rest}", self.field));
        }
        problem
            .cure
            .get_or_insert_with(|| "see the options of this topology in /openapi.json".to_owned());
        problem.into()
    }
}

/// A topology's name as it stands in JSON.
pub(crate) fn word(kind: TopologyKind) -> &'static str {
    match kind {
        TopologyKind::Star => "star",
        TopologyKind::Mesh => "mesh",
        TopologyKind::Hierarchical => "hierarchical",
        TopologyKind::Ring => "ring",
    }
}

/// The merge patch that makes `wanted` of what the coordinator lays it over: the options as they are, or the defaults of
/// another topology.
pub(crate) fn patch(current: Option<&Topology>, wanted: &Topology) -> Json {
    let base = match current {
        Some(current) if current.kind() == wanted.kind() => current.configuration(),
        _ => Topology::of(wanted.kind()).configuration(),
    };
    difference(&base.to_value(), &wanted.configuration().to_value()).into()
}

/// The merge patch (RFC 7396) that makes `to` of `from`, which are objects.
fn difference(from: &Value, to: &Value) -> Value {
    let (Value::Object(from), Value::Object(to)) = (from, to) else {
        return to.clone();
    };
    let mut patch = Map::new();
    for (name, value) in to {
        match from.get(name) {
            Some(before) if before == value => {}
            Some(before @ Value::Object(_)) if value.is_object() => {
                patch.insert(name.clone(), difference(before, value));
            }
            _ => {
                patch.insert(name.clone(), value.clone());
            }
        }
    }
    let gone = from.keys().filter(|name| !to.contains_key(*name));
    patch.extend(gone.map(|name| (name.clone(), Value::Null)));
    Value::Object(patch)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_events::topology::{
        ConnectionStrategy, Hierarchical, Level, Mesh, Ring, RingOrder, Role, Routing, Selector,
        Star,
    };

    use super::*;

    fn star(max_workers: Option<u32>) -> Topology {
        Topology::Star(Star {
            max_workers,
            ..Star::default()
        })
    }

    /// What a PUT with this body makes of `current`.
    fn put(current: &Topology, template: Option<&Topology>, body: Value) -> Answer<Topology> {
        let input = TopologyInput::read(body.to_string().as_bytes())?;
        Wanted {
            topology: input.topology,
            configuration: input.configuration.as_ref(),
            template,
            field: "configuration",
        }
        .over(Some(current), 100)
    }

    #[test]
    fn a_kind_alone_means_its_defaults_and_a_patch_keeps_what_it_does_not_name() {
        let current = star(Some(7));
        let options = |topology: Topology| topology.configuration().to_value();
        for (body, expected) in [
            (json!({"topology": "star"}), star(None)),
            (
                json!({"configuration": {"coordinator_count": 1}}),
                star(Some(7)),
            ),
            (
                json!({"topology": "star", "configuration": {}}),
                star(Some(7)),
            ),
            (json!({"configuration": null}), star(None)),
            (json!({"configuration": {"max_workers": null}}), star(None)),
            (
                json!({"topology": "ring"}),
                Topology::of(TopologyKind::Ring),
            ),
        ] {
            assert_eq!(
                put(&current, None, body.clone()).expect("good"),
                expected,
                "{body}"
            );
        }
        let ring = put(
            &current,
            None,
            json!({"topology": "ring", "configuration": {"token_timeout_ms": 9}}),
        );
        assert_eq!(options(ring.expect("good"))["token_timeout_ms"], 9);
    }

    #[test]
    fn a_template_is_begun_from_whatever_there_is() {
        let (current, template) = (star(Some(7)), star(Some(50)));
        let over = |body| put(&current, Some(&template), body).expect("good");
        assert_eq!(over(json!({"template": "t"})), template);
        assert_eq!(
            over(json!({"template": "t", "configuration": {"max_workers": 3}})),
            star(Some(3))
        );
        assert_eq!(
            over(json!({"template": "t", "configuration": null})),
            template
        );
        let other = put(
            &current,
            Some(&template),
            json!({"template": "t", "topology": "mesh"}),
        );
        let problem = other.expect_err("another kind").problem.clone();
        assert_eq!(
            (problem.code.as_str(), problem.field.as_deref()),
            ("contradiction", Some("topology"))
        );
    }

    #[test]
    fn what_cannot_be_is_refused_by_its_option() {
        let current = star(None);
        for (body, field) in [
            (json!({}), "body"),
            (json!({"reason": "x"}), "body"),
            (json!({"topology": "cube"}), "topology"),
            (json!({"configuration": []}), "configuration"),
            (
                json!({"configuration": {"ratio": 1}}),
                "configuration.ratio",
            ),
            (
                json!({"configuration": {"coordinator_count": 100}}),
                "configuration.coordinator_count",
            ),
            (
                json!({"configuration": {"coordinator_count": "two"}}),
                "configuration.coordinator_count",
            ),
            (
                json!({"topology": "mesh", "configuration": {"neighbours": 3}}),
                "configuration.neighbours",
            ),
            (
                json!({"topology": "mesh", "configuration": {"connections": [["a", "a"]]}}),
                "configuration.connections[0]",
            ),
            (
                json!({"topology": "hierarchical", "configuration": {"parent_child_ratio": 0}}),
                "configuration.parent_child_ratio",
            ),
            (
                json!({"topology": "hierarchical", "configuration": {"levels": [{"role": "boss", "count": 1}]}}),
                "configuration.levels[0].role",
            ),
            (
                json!({"topology": "hierarchical", "configuration": {"parents": {"a": "b", "b": "a"}}}),
                "configuration.parents.a",
            ),
            (
                json!({"topology": "ring", "configuration": {"token_timeout_ms": 0}}),
                "configuration.token_timeout_ms",
            ),
            (
                json!({"topology": "ring", "reason": "x".repeat(REASON_BYTES_MAX + 1)}),
                "reason",
            ),
            (json!({"topology": "ring", "colour": 1}), "colour"),
        ] {
            let problem = put(&current, None, body.clone())
                .expect_err(&body.to_string())
                .problem
                .clone();
            assert_eq!(problem.field.as_deref(), Some(field), "{body}: {problem}");
            assert!(problem.cure.is_some(), "{body}: {problem}");
        }
        let longest = json!({"topology": "ring", "reason": "x".repeat(REASON_BYTES_MAX)});
        put(&current, None, longest).expect("as long as may be");
    }

    #[test]
    fn the_patch_leads_from_anything_to_anything() {
        let tree = |ratio, parents: &[(&str, &str)]| {
            let owned =
                |(child, parent): &(&str, &str)| ((*child).to_owned(), (*parent).to_owned());
            Topology::Hierarchical(Hierarchical {
                levels: vec![
                    Level {
                        role: Role::Coordinator,
                        count: 1,
                    },
                    Level {
                        role: Role::Worker,
                        count: ratio,
                    },
                ],
                parent_child_ratio: ratio,
                parents: parents.iter().map(owned).collect(),
            })
        };
        let hub = Topology::Star(Star {
            coordinator: Selector {
                capability: Some("lead".to_owned()),
                ..Selector::default()
            },
            workers: vec!["a".to_owned()],
            ..Star::default()
        });
        let mesh = Topology::Mesh(Mesh {
            connection_strategy: ConnectionStrategy::Nearest,
            connections: vec![["a".to_owned(), "b".to_owned()]],
            routing: Routing::Targeted,
            ..Mesh::default()
        });
        let ring = Topology::Ring(Ring {
            order: RingOrder::Load,
            ..Ring::default()
        });
        let kinds = [
            TopologyKind::Star,
            TopologyKind::Mesh,
            TopologyKind::Hierarchical,
            TopologyKind::Ring,
        ];
        let mut all: Vec<Topology> = kinds.map(Topology::of).into();
        all.extend([star(Some(7)), hub, mesh, ring]);
        all.extend([
            tree(4, &[]),
            tree(5, &[("a", "b")]),
            tree(5, &[("c", "b"), ("a", "c")]),
        ]);
        for from in &all {
            for to in &all {
                let patch = patch(Some(from), to);
                let made = from.changed(to.kind(), &patch, 100).expect("possible");
                assert_eq!(&made, to, "{patch}");
            }
            let made = Topology::default().changed(from.kind(), &patch(None, from), 100);
            // What creates a swarm is laid over the defaults, whatever the kind.
            assert_eq!(&made.expect("possible"), from);
        }
        assert_eq!(patch(Some(&star(Some(7))), &star(Some(7))).as_str(), "{}");
    }
}
