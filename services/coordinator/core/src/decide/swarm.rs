//! Creating, changing and terminating swarms.

use serde_json::Value;
use swarm_events::{
    Json, Place, Problem, Subject,
    command::{Create, Update},
    configuration::Configuration,
    decider::Decision,
    subject::SwarmVerb,
    swarm::{Created, Stopping, Updated},
    topology::Topology,
};

use super::{Outcome, one, topology::options};
use crate::{Coordinator, Swarm, check};

impl Coordinator {
    pub(super) fn create(&self, place: Place, order: &Create, content: u128) -> Outcome {
        self.known_org(place.org)?;
        if let Some(found) = self.swarm(place.org, place.swarm) {
            return Err(repeated(found, order, content));
        }
        check::swarm_name(&order.name)?;
        check::description(order.description.as_deref())?;
        let patch = options(&order.configuration);
        let configuration = check::merged(&Configuration::default(), &patch)?;
        check::configuration(&configuration)?;
        let kind = order.topology.unwrap_or_default();
        let patch = options(&order.topology_configuration);
        let topology = Topology::of(kind).changed(kind, &patch, configuration.max_agents)?;
        self.name_is_free(place, &order.name)?;
        one(about(
            place,
            SwarmVerb::Created,
            Created {
                name: order.name.clone(),
                description: order.description.clone(),
                topology,
                configuration,
                partition: place.partition.number(),
                created_by: order.created_by,
            },
        ))
    }

    pub(super) fn update(&self, place: Place, order: &Update) -> Outcome {
        let found = self.open_swarm(place)?;
        let Value::Object(patch) = order.patch.to_value() else {
            return Err(Problem::new("wrong-type", "must be an object").field("patch"));
        };
        let mut updated = Updated {
            name: found.name.clone(),
            description: found.description.clone(),
            configuration: found.configuration.clone(),
        };
        for (field, value) in patch {
            match (field.as_str(), value) {
                ("name", Value::String(name)) => updated.name = name,
                ("name", _) => {
                    return Err(Problem::new(
                        "wrong-type",
                        "must be a text; a swarm always has a name",
                    )
                    .field("name"));
                }
                ("description", Value::Null) => updated.description = None,
                ("description", Value::String(text)) => updated.description = Some(text),
                ("description", _) => {
                    return Err(
                        Problem::new("wrong-type", "must be a text or null").field("description")
                    );
                }
                ("configuration", Value::Null) => updated.configuration = Configuration::default(),
                ("configuration", patch) => {
                    updated.configuration =
                        check::merged(&updated.configuration, &Json::from(patch))?;
                }
                (unknown, _) => {
                    return Err(Problem::new(
                        "unknown-field",
                        "is no field of a swarm that can be changed",
                    )
                    .field(unknown)
                    .cure("change name, description or configuration"));
                }
            }
        }
        check::swarm_name(&updated.name)?;
        check::description(updated.description.as_deref())?;
        check::configuration(&updated.configuration)?;
        let most = updated.configuration.max_agents;
        if most != found.configuration.max_agents {
            fits(found.topology(), most)?;
            if let Some(change) = &found.change {
                fits(&change.after, most)?;
            }
        }
        self.name_is_free(place, &updated.name)?;
        one(about(place, SwarmVerb::Updated, updated))
    }

    pub(super) fn delete(&self, place: Place) -> Outcome {
        self.open_swarm(place)?;
        one(about(place, SwarmVerb::Stopping, Stopping {}))
    }

    /// The swarm, if it takes agents and changes.
    pub(super) fn open_swarm(&self, place: Place) -> Result<&Swarm, Problem> {
        let found = self.known_swarm(place)?;
        if found.deleted_at.is_some() {
            return Err(Problem::new("swarm-deleted", "the swarm was deleted").field("swarm"));
        }
        if found.stopping.is_some() {
            return Err(
                Problem::new("swarm-stopping", "the swarm is being terminated").field("swarm"),
            );
        }
        Ok(found)
    }

    pub(super) fn known_swarm(&self, place: Place) -> Result<&Swarm, Problem> {
        self.swarm(place.org, place.swarm).ok_or_else(|| {
            Problem::new(
                "unknown-swarm",
                format!("there is no swarm {}", place.swarm),
            )
            .field("swarm")
            .cure("create it first")
        })
    }

    fn name_is_free(&self, place: Place, name: &str) -> Result<(), Problem> {
        match self.swarm_named(place.org, name) {
            Some(other) if other.place.swarm != place.swarm => Err(Problem::new(
                "name-taken",
                format!("swarm {} has this name", other.place.swarm),
            )
            .field("name")
            .cure("choose another name, or delete that swarm")),
            _ => Ok(()),
        }
    }
}

/// Whether a topology can be in a swarm of at most so many agents.
fn fits(topology: &Topology, max_agents: u32) -> Result<(), Problem> {
    topology.check(max_agents).map_err(|problem| {
        Problem::new(&problem.code, problem.detail)
            .field("configuration.max_agents")
            .cure("give a larger number, or change the swarm's topology first")
    })
}

/// Why a swarm is not created a second time. A gateway takes `already-exists` for success.
fn repeated(found: &Swarm, order: &Create, content: u128) -> Problem {
    let swarm = found.place.swarm;
    let same = match (&found.body_sha256, &order.body_sha256) {
        (Some(first), Some(second)) => first == second,
        _ => found.create_content == content,
    };
    if same {
        return Problem::new(
            "already-exists",
            format!("swarm {swarm} was created by the same request"),
        )
        .field("id");
    }
    if found.body_sha256.is_some() && order.body_sha256.is_some() {
        return Problem::new(
            "key-reused",
            format!("swarm {swarm} was created under this Idempotency-Key with another body"),
        )
        .field("Idempotency-Key")
        .cure("send the same body, or choose a new key");
    }
    Problem::new("id-taken", format!("swarm {swarm} exists"))
        .field("id")
        .cure("choose a new id")
}

pub(super) fn about(
    place: Place,
    verb: SwarmVerb,
    body: impl Into<swarm_events::Body>,
) -> Decision {
    Decision::new(Subject::Swarm(place, verb), place.swarm.0, body)
}
