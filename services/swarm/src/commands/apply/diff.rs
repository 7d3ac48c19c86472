//! What differs between a file and what there is.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};
use swarm_events::{
    configuration::{Configuration, TopologyKind},
    topology::Topology,
};

use super::file::{APPLIED, Declared, Group, number, read_topology};

/// What there is.
#[derive(Clone, Debug)]
pub(super) struct Current {
    /// The swarm's id.
    pub(super) id: String,
    /// As `GET /swarms/{id}` shows it.
    pub(super) swarm: Value,
    /// As `GET /swarms/{id}/topology` shows it.
    pub(super) shape: Value,
    /// As `GET /swarms/{id}/agents` lists them.
    pub(super) agents: Vec<Value>,
}

impl Current {
    pub(super) fn kind(&self) -> TopologyKind {
        serde_json::from_value(self.shape["topology"].clone()).unwrap_or_default()
    }
    pub(super) fn max_agents(&self) -> u32 {
        let most = self.swarm["configuration"]["max_agents"].as_u64();
        let most = most.and_then(|most| u32::try_from(most).ok());
        most.unwrap_or_else(|| Configuration::default().max_agents)
    }
    /// Agents that are to stay.
    fn staying(&self) -> impl Iterator<Item = &Value> {
        self.agents
            .iter()
            .filter(|agent| agent["status"] != "stopped" && agent["draining"]["then"] != "remove")
    }
}

/// One thing that differs.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Change {
    /// There is no such swarm.
    Create {
        /// What it is to be created with.
        body: Value,
    },
    /// A field, or a setting.
    Set {
        /// Its path.
        field: String,
        /// What it is.
        before: Value,
        /// What it is to be; null is its default.
        after: Value,
    },
    /// The topology, or its options.
    Topology {
        /// What it is.
        before: Value,
        /// What it is to be.
        after: Value,
        /// What is to be asked for.
        body: Value,
        /// Agents that it names and that come by the same file: they must be there first, or it is refused.
        awaited: Vec<String>,
    },
    /// Agents that are missing.
    Add {
        /// The group's number in the file.
        group: usize,
        /// Its name.
        base: String,
        /// How many there are.
        before: usize,
        /// How many there are to be.
        after: usize,
        /// The names of those that are missing.
        names: Vec<String>,
    },
    /// Agents that are too many.
    Remove {
        /// Its group's name.
        base: String,
        /// How many there are.
        before: usize,
        /// How many there are to be.
        after: usize,
        /// Ids and names of those that are too many.
        agents: Vec<(String, String)>,
    },
    /// What an agent can do.
    Update {
        /// Its id.
        id: String,
        /// Its name.
        name: String,
        /// The merge patch.
        patch: Value,
    },
    /// How an agent's process is started.
    Replace {
        /// The group's number in the file.
        group: usize,
        /// Its id.
        id: String,
        /// Its name.
        name: String,
    },
}

impl Change {
    /// For programs.
    pub(super) fn json(&self) -> Value {
        match self {
            Self::Create { body } => json!({"action": "create", "what": "swarm", "after": body}),
            Self::Set {
                field,
                before,
                after,
            } => json!({"action": "set", "what": field, "before": before, "after": after}),
            Self::Topology {
                before,
                after,
                awaited,
                ..
            } => {
                json!({"action": "set", "what": "topology", "before": before, "after": after, "awaited": awaited})
            }
            Self::Add {
                base,
                before,
                after,
                names,
                ..
            } => {
                json!({"action": "add", "what": format!("agents {base}"), "before": before, "after": after, "names": names})
            }
            Self::Remove {
                base,
                before,
                after,
                agents,
            } => {
                let names: Vec<&String> = agents.iter().map(|(_, name)| name).collect();
                json!({"action": "remove", "what": format!("agents {base}"), "before": before, "after": after, "names": names})
            }
            Self::Update { name, patch, .. } => {
                json!({"action": "update", "what": format!("agent {name}"), "after": patch})
            }
            Self::Replace { name, .. } => {
                json!({"action": "replace", "what": format!("agent {name}")})
            }
        }
    }

    /// For people.
    pub(super) fn line(&self) -> String {
        match self {
            Self::Create { body } => {
                let parts = ["topology", "topology_configuration", "configuration"];
                let given = parts.iter().filter(|part| !body[**part].is_null());
                let given: Vec<String> = given
                    .map(|part| format!("{part}: {}", plain(&body[*part])))
                    .collect();
                format!("+ {}", given.join("\n  + "))
            }
            Self::Set {
                field,
                before,
                after,
            } => format!("~ {field}: {} → {}", plain(before), plain(after)),
            Self::Topology {
                before,
                after,
                awaited,
                ..
            } => {
                let then = match awaited.as_slice() {
                    [] => String::new(),
                    names => format!(" (once {} are there)", names.join(", ")),
                };
                let kinds = (&before["topology"], &after["topology"]);
                if kinds.0 == kinds.1 {
                    let options = leaves("", &before["configuration"], &after["configuration"]);
                    let options: Vec<String> = options
                        .iter()
                        .map(|(name, before, after)| {
                            format!("{name} {} → {}", plain(before), plain(after))
                        })
                        .collect();
                    return format!(
                        "~ topology {}: {}{then}",
                        plain(kinds.0),
                        options.join(", ")
                    );
                }
                format!(
                    "~ topology: {} → {} {}{then}",
                    plain(kinds.0),
                    plain(kinds.1),
                    plain(&after["configuration"])
                )
            }
            Self::Add {
                base,
                before,
                after,
                names,
                ..
            } => format!("+ agents {base}: {before} → {after} ({})", names.join(", ")),
            Self::Remove {
                base,
                before,
                after,
                agents,
            } => {
                let names: Vec<&str> = agents.iter().map(|(_, name)| name.as_str()).collect();
                format!("- agents {base}: {before} → {after} ({})", names.join(", "))
            }
            Self::Update { name, patch, .. } => format!("~ agent {name}: {patch}"),
            Self::Replace { name, .. } => {
                format!("± agent {name}: goes, and is added anew with another command")
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// What is to be asked for to have the topology changed, if that can be asked as things are.
pub(super) fn topology_body(changes: &[Change]) -> Option<Value> {
    changes.iter().find_map(|change| match change {
        Change::Topology { body, awaited, .. } if awaited.is_empty() => Some(body.clone()),
        _ => None,
    })
}

/// Everything that differs, in the order in which it is to be done.
pub(super) fn changes(
    declared: &Declared,
    topology: Option<&Topology>,
    current: Option<&Current>,
) -> Vec<Change> {
    let mut changes = Vec::new();
    match current {
        None => changes.push(created(declared, topology)),
        Some(current) => {
            settings(declared, current, &mut changes);
            changes.extend(topology.and_then(|wanted| shape(wanted, current)));
        }
    }
    for (at, group) in declared.agents.iter().flatten().enumerate() {
        agents(at, group, current, &mut changes);
    }
    await_who_comes(topology, declared, current, &mut changes);
    // Room first, then who comes, who changes, and at last who goes.
    changes.sort_by_key(|change| match change {
        Change::Create { .. } | Change::Set { .. } => 0,
        Change::Topology { awaited, .. } if awaited.is_empty() => 1,
        Change::Add { .. } => 2,
        Change::Topology { .. } => 3,
        Change::Update { .. } => 4,
        Change::Replace { .. } => 5,
        Change::Remove { .. } => 6,
    });
    changes
}

/// Notes at a change of the topology whom of those that it names the file itself brings: who is missing, and whose process
/// has not joined since an earlier attempt.
fn await_who_comes(
    topology: Option<&Topology>,
    declared: &Declared,
    current: Option<&Current>,
    changes: &mut [Change],
) {
    let named = topology.map(named).unwrap_or_default();
    let mut coming: BTreeSet<String> = BTreeSet::new();
    for change in &*changes {
        if let Change::Add { names, .. } = change {
            coming.extend(names.iter().cloned());
        }
    }
    let starting = current.into_iter().flat_map(Current::staying);
    let starting = starting.filter(|agent| agent["status"] == "starting");
    let names = starting.filter_map(|agent| agent["agent_name"].as_str());
    let ours = |name: &&str| {
        let mut groups = declared.agents.iter().flatten();
        groups.any(|group| group.takes(name))
    };
    coming.extend(names.filter(ours).map(str::to_owned));
    for change in &*changes {
        if let Change::Remove { agents, .. } = change {
            coming.retain(|name| agents.iter().all(|(_, gone)| gone != name));
        }
    }
    coming.retain(|name| named.contains(name.as_str()));
    for change in changes {
        if let Change::Topology { awaited, .. } = change {
            *awaited = coming.iter().cloned().collect();
        }
    }
}

/// The agents that a topology names.
fn named(topology: &Topology) -> BTreeSet<&str> {
    let text = String::as_str;
    match topology {
        Topology::Star(star) => {
            let hub = star.coordinator.agent_name.iter();
            star.workers.iter().chain(hub).map(text).collect()
        }
        Topology::Mesh(mesh) => mesh.connections.iter().flatten().map(text).collect(),
        Topology::Hierarchical(tree) => {
            let parents = tree.parents.iter();
            parents
                .flat_map(|(child, parent)| [child, parent])
                .map(text)
                .collect()
        }
        Topology::Ring(_) => BTreeSet::new(),
    }
}

fn created(declared: &Declared, topology: Option<&Topology>) -> Change {
    let mut body = json!({"name": declared.name()});
    if let Some(description) = &declared.description {
        body["description"] = json!(description);
    }
    if let Some(topology) = topology {
        body["topology"] = json!(topology.kind());
        body["topology_configuration"] = topology.configuration().to_value();
    }
    if let Some(configuration) = &declared.configuration {
        body["configuration"] = Value::Object(configuration.clone());
    }
    Change::Create { body }
}

fn settings(declared: &Declared, current: &Current, changes: &mut Vec<Change>) {
    if let Some(description) = &declared.description
        && current.swarm["description"] != **description
    {
        changes.push(Change::Set {
            field: "description".to_owned(),
            before: current.swarm["description"].clone(),
            after: json!(description),
        });
    }
    // The file was checked before.
    let Ok(Some(wanted)) = declared.settings() else {
        return;
    };
    let wanted = serde_json::to_value(wanted).unwrap_or_default();
    let differ = leaves("configuration", &current.swarm["configuration"], &wanted);
    changes.extend(
        differ
            .into_iter()
            .map(|(field, before, after)| Change::Set {
                field,
                before,
                after,
            }),
    );
}

/// The merge patch that the changes of a swarm's own fields come to; `None` if there are none.
pub(super) fn patch(changes: &[Change]) -> Option<Value> {
    let mut patch = Map::new();
    for change in changes {
        let Change::Set { field, after, .. } = change else {
            continue;
        };
        let mut at = &mut patch;
        let mut parts = field.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                at.insert(part.to_owned(), after.clone());
                break;
            }
            let inner = at.entry(part).or_insert_with(|| json!({}));
            match inner {
                Value::Object(inner) => at = inner,
                _ => break,
            }
        }
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}

/// The members that differ, by their paths: down to what is no object, or what one of the two does not have.
fn leaves(path: &str, before: &Value, after: &Value) -> Vec<(String, Value, Value)> {
    let (Value::Object(old), Value::Object(new)) = (before, after) else {
        return if before == after {
            Vec::new()
        } else {
            vec![(path.to_owned(), before.clone(), after.clone())]
        };
    };
    let names: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
    let below = |name: &str| {
        if path.is_empty() {
            name.to_owned()
        } else {
            format!("{path}.{name}")
        }
    };
    let null = Value::Null;
    let each = names.into_iter().flat_map(|name| {
        let (old, new) = (
            old.get(name).unwrap_or(&null),
            new.get(name).unwrap_or(&null),
        );
        // A name with a dot is no path: the whole object is given.
        leaves(&below(name), old, new)
    });
    each.collect()
}

fn shape(wanted: &Topology, current: &Current) -> Option<Change> {
    let is = read_topology(&current.shape["topology"], &current.shape["configuration"]);
    if is.as_ref() == Some(wanted) {
        return None;
    }
    let configuration = wanted.configuration().to_value();
    let mut patch = configuration.clone();
    // Maps that are merged: what is not wanted any more is taken out.
    if let (Some(was), Some(patch)) = (
        current.shape["configuration"]["parents"].as_object(),
        patch["parents"].as_object_mut(),
    ) {
        for child in was.keys() {
            patch.entry(child.clone()).or_insert(Value::Null);
        }
    }
    Some(Change::Topology {
        before: json!({"topology": current.shape["topology"], "configuration": current.shape["configuration"]}),
        after: json!({"topology": wanted.kind(), "configuration": configuration}),
        body: json!({"topology": wanted.kind(), "configuration": patch, "reason": "by a file"}),
        awaited: Vec::new(),
    })
}

fn agents(at: usize, group: &Group, current: Option<&Current>, changes: &mut Vec<Change>) {
    let all: Vec<&Value> = current.into_iter().flat_map(Current::staying).collect();
    let text = |agent: &Value, name: &str| agent[name].as_str().unwrap_or_default().to_owned();
    let base = group.base().to_owned();
    let mut own: Vec<(u32, &Value)> = all
        .iter()
        .filter(|agent| agent["agent_type"] == *group.agent_type)
        .filter_map(|agent| Some((number(&base, agent["agent_name"].as_str()?)?, *agent)))
        .collect();
    own.sort_by_key(|(number, _)| *number);
    let (before, after) = (
        own.len(),
        usize::try_from(group.count).unwrap_or(usize::MAX),
    );
    if before < after {
        let taken: BTreeSet<String> = all.iter().map(|agent| text(agent, "agent_name")).collect();
        let alone = (group.count == 1).then(|| base.clone());
        let numbered = (1_u64..).map(|number| format!("{base}-{number}"));
        let names = alone
            .into_iter()
            .chain(numbered)
            .filter(|name| !taken.contains(name))
            .take(after - before)
            .collect();
        changes.push(Change::Add {
            group: at,
            base: base.clone(),
            before,
            after,
            names,
        });
    }
    if before > after {
        let beyond = own.split_off(after);
        let agents = beyond
            .iter()
            .map(|(_, agent)| (text(agent, "id"), text(agent, "agent_name")));
        changes.push(Change::Remove {
            base,
            before,
            after,
            agents: agents.collect(),
        });
    }
    for (_, agent) in own {
        let (id, name) = (text(agent, "id"), text(agent, "agent_name"));
        let spec = agent["metadata"][APPLIED].as_str();
        // What was not started by a file may have been started by the same command.
        if spec.is_some_and(|spec| spec != group.spec()) {
            changes.push(Change::Replace {
                group: at,
                id,
                name,
            });
        } else if let Some(patch) = update(group, agent) {
            changes.push(Change::Update { id, name, patch });
        }
    }
}

/// What a running agent is to be told.
fn update(group: &Group, agent: &Value) -> Option<Value> {
    let mut patch = Map::new();
    let is_set = |value: &Value| -> BTreeSet<String> {
        let items = value.as_array().map_or(&[][..], Vec::as_slice);
        items
            .iter()
            .filter_map(|item| Some(item.as_str()?.to_owned()))
            .collect()
    };
    if let Some(capabilities) = &group.capabilities
        && is_set(&agent["capabilities"]) != capabilities.iter().cloned().collect()
    {
        patch.insert("capabilities".to_owned(), json!(capabilities));
    }
    for (name, shown, wanted) in [
        ("slots", "slots", group.slots),
        ("waiting", "waiting_limit", group.waiting),
    ] {
        if let Some(wanted) = wanted.filter(|wanted| agent[shown] != *wanted) {
            patch.insert(name.to_owned(), json!(wanted));
        }
    }
    let mut metadata = Map::new();
    for (name, value) in group.metadata.iter().flatten() {
        if agent["metadata"][name] != *value {
            metadata.insert(name.clone(), value.clone());
        }
    }
    if !metadata.is_empty() {
        patch.insert("metadata".to_owned(), Value::Object(metadata));
    }
    (!patch.is_empty()).then_some(Value::Object(patch))
}
