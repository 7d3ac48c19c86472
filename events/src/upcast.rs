//! Old versions are read for ever: an upcaster turns the `data` of an old version into the next one.

use std::borrow::Cow;

use serde_json::Value;

use crate::topology::Topology;

/// One step from a version to the next. Kept for ever once an event of the old version may be stored.
pub struct Upcaster {
    /// The old type with its version, `swarm.task.progressed.v1`.
    pub from: &'static str,
    /// The next version, `swarm.task.progressed.v2`.
    pub to: &'static str,
    /// Turns `data` of the old version into that of the next, or says which field is wrong.
    pub convert: fn(Value) -> Result<Value, String>,
}

/// Nothing in the data differs: the newer version allows more (other algorithms, reasons, settings).
fn as_it_is(data: Value) -> Result<Value, String> {
    Ok(data)
}

/// The first version took an agent out at once; now it may finish what it has, unless `force` is set.
fn remove_at_once(mut data: Value) -> Result<Value, String> {
    let fields = data.as_object_mut().ok_or("must be an object")?;
    fields.insert("force".to_owned(), Value::Bool(true));
    Ok(data)
}

/// The topology was one word; now it stands with its options, which were the defaults.
fn topology_with_options(mut data: Value) -> Result<Value, String> {
    let fields = data.as_object_mut().ok_or("must be an object")?;
    let kind = fields.get("topology").cloned().unwrap_or_default();
    let kind = serde_json::from_value(kind).map_err(|e| format!("topology: {e}"))?;
    let topology = serde_json::to_value(Topology::of(kind)).map_err(|e| e.to_string())?;
    fields.insert("topology".to_owned(), topology);
    Ok(data)
}

/// All upcasters.
pub const UPCASTERS: &[Upcaster] = &[
    Upcaster {
        from: "swarm.swarm.created.v1",
        to: "swarm.swarm.created.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.swarm.updated.v1",
        to: "swarm.swarm.updated.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.task.assigned.v1",
        to: "swarm.task.assigned.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.task.assigned.v2",
        to: "swarm.task.assigned.v3",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.task.withdrawn.v1",
        to: "swarm.task.withdrawn.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.swarm.created.v2",
        to: "swarm.swarm.created.v3",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.swarm.updated.v2",
        to: "swarm.swarm.updated.v3",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.swarm.measured.v1",
        to: "swarm.swarm.measured.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.agent.failed.v1",
        to: "swarm.agent.failed.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.cmd.join.v1",
        to: "swarm.cmd.join.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.ctl.observed.v1",
        to: "swarm.ctl.observed.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.ctl.observed.v2",
        to: "swarm.ctl.observed.v3",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.cmd.remove_agent.v1",
        to: "swarm.cmd.remove_agent.v2",
        convert: remove_at_once,
    },
    Upcaster {
        from: "swarm.swarm.created.v3",
        to: "swarm.swarm.created.v4",
        convert: topology_with_options,
    },
    Upcaster {
        from: "swarm.swarm.updated.v3",
        to: "swarm.swarm.updated.v4",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.swarm.sampled.v1",
        to: "swarm.swarm.sampled.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.cmd.create.v1",
        to: "swarm.cmd.create.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.task.submitted.v1",
        to: "swarm.task.submitted.v2",
        convert: as_it_is,
    },
    Upcaster {
        from: "swarm.task.assigned.v3",
        to: "swarm.task.assigned.v4",
        convert: as_it_is,
    },
];

/// Follows `upcasters` from `name` to the newest version. `None`: nothing to do.
///
/// # Errors
/// What a step says is wrong with the data.
pub fn upcast<'a>(
    upcasters: &[Upcaster],
    name: &'a str,
    data: &str,
) -> Result<Option<(Cow<'a, str>, String)>, String> {
    let mut name = Cow::Borrowed(name);
    let mut value: Option<Value> = None;
    while let Some(step) = upcasters.iter().find(|u| u.from == name) {
        let current = match value.take() {
            Some(value) => value,
            None => serde_json::from_str(data).map_err(|e| e.to_string())?,
        };
        value = Some((step.convert)(current)?);
        name = Cow::Borrowed(step.to);
    }
    Ok(value.map(|value| (name, value.to_string())))
}
