//! The file of `swarm apply`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use swarm_events::{
    Json, Problem,
    configuration::{AGENTS_MAX, Configuration, TopologyKind},
    swarm::NAME_CHARS_MAX,
    topology::Topology,
};

use super::diff::Current;
use crate::exit::Failure;

/// Most agents of a group: as many as one request adds.
const COUNT_MAX: u32 = 1_000;
/// Where an agent's metadata holds the hash of what it was started with.
pub(super) const APPLIED: &str = "applied_spec";

/// A swarm as it is wanted.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Declared {
    name: String,
    pub(super) description: Option<String>,
    topology: Option<TopologyKind>,
    topology_configuration: Option<Map<String, Value>>,
    template: Option<String>,
    pub(super) configuration: Option<Map<String, Value>>,
    pub(super) agents: Option<Vec<Group>>,
}

/// Agents that are alike.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Group {
    pub(super) agent_type: String,
    agent_name: Option<String>,
    #[serde(default = "one")]
    pub(super) count: u32,
    pub(super) capabilities: Option<Vec<String>>,
    pub(super) slots: Option<u32>,
    pub(super) waiting: Option<u32>,
    pub(super) metadata: Option<Map<String, Value>>,
    adapter: Option<Value>,
    command: Option<Value>,
    url: Option<Value>,
    env: Option<BTreeMap<String, String>>,
    pass_env: Option<Vec<String>>,
    working_dir: Option<Value>,
    restart: Option<Value>,
    limits: Option<Value>,
}

const fn one() -> u32 {
    1
}

/// A refusal of the file.
pub(super) fn refused(name: &str, problem: &Problem) -> Failure {
    Failure::usage(format!("{name}: {problem}"))
}

fn problem(field: &str, detail: impl Into<String>, cure: &str) -> Problem {
    Problem::new("bad-file", detail).field(field).cure(cure)
}

impl Declared {
    /// The swarm's name.
    pub(super) fn name(&self) -> &str {
        &self.name
    }
    /// The template that its topology begins from.
    pub(super) fn template(&self) -> Option<&str> {
        self.template.as_deref()
    }

    /// What can be told without asking the gateway.
    ///
    /// # Errors
    /// The field, and the cure.
    pub(super) fn check(&self) -> Result<(), Problem> {
        let chars = self.name.chars().count();
        if self.name.trim().is_empty() || chars > NAME_CHARS_MAX {
            let detail = format!("has {chars} characters, or nothing that can be read");
            let cure = format!("give 1 to {NAME_CHARS_MAX} printable characters");
            return Err(problem("name", detail, &cure));
        }
        if self.topology.is_some() && self.template.is_some() {
            let detail = "the template names a topology itself";
            return Err(problem(
                "topology",
                detail,
                "leave out one of topology and template",
            ));
        }
        self.settings()?;
        let groups = self.agents.as_deref().unwrap_or_default();
        for (at, group) in groups.iter().enumerate() {
            let field = |name: &str| format!("agents[{at}].{name}");
            if group.count > COUNT_MAX {
                let detail = format!("{} agents; a group has at most {COUNT_MAX}", group.count);
                return Err(problem(
                    &field("count"),
                    detail,
                    "make several groups of them",
                ));
            }
            let clash = groups[..at]
                .iter()
                .find(|other| other.takes(group.base()) || group.takes(other.base()));
            if let Some(other) = clash {
                let detail = format!("{} and {} cannot be told apart", other.base(), group.base());
                let cure = "give each group an agent_name of its own, none being another one's with a number behind it";
                return Err(problem(&field("agent_name"), detail, cure));
            }
        }
        Ok(())
    }

    /// All settings that are wanted, if the file has a section for them.
    ///
    /// # Errors
    /// The setting that cannot be.
    pub(super) fn settings(&self) -> Result<Option<Configuration>, Problem> {
        let Some(patch) = &self.configuration else {
            return Ok(None);
        };
        let patch = Json::from(Value::Object(patch.clone()));
        let merged = Configuration::default().merged(&patch).map_err(|problem| {
            let cure = "see Configuration in /openapi.json".to_owned();
            Problem {
                cure: problem.cure.clone().or(Some(cure)),
                ..problem
            }
        });
        merged.map(Some)
    }

    /// The topology that is wanted, if the file has a section for it.
    ///
    /// # Errors
    /// The option that cannot be.
    pub(super) fn topology(
        &self,
        template: Option<&Value>,
        current: Option<&Current>,
    ) -> Result<Option<Topology>, Problem> {
        if self.topology.is_none() && self.topology_configuration.is_none() && template.is_none() {
            return Ok(None);
        }
        let most = match (self.settings()?, current) {
            (Some(settings), _) => settings.max_agents,
            (None, Some(current)) => current.max_agents(),
            (None, None) => Configuration::default().max_agents,
        };
        let base = match (template, self.topology) {
            (Some(template), _) => {
                read_topology(&template["topology_type"], &template["configuration"]).ok_or_else(
                    || {
                        problem(
                            "template",
                            "is of no topology that is known here",
                            "use a newer swarm command",
                        )
                    },
                )?
            }
            (None, Some(kind)) => Topology::of(kind),
            (None, None) => Topology::of(current.map_or_else(TopologyKind::default, Current::kind)),
        };
        let patch = self.topology_configuration.clone().unwrap_or_default();
        let wanted = base.changed(base.kind(), &Json::from(Value::Object(patch)), most);
        wanted.map(Some).map_err(|mut problem| {
            problem.field = problem.field.map(|field| format!("topology_{field}"));
            problem
        })
    }
}

/// A topology as the gateway shows it.
pub(super) fn read_topology(kind: &Value, configuration: &Value) -> Option<Topology> {
    let kind = serde_json::from_value(kind.clone()).ok()?;
    let options = Json::from(configuration.clone());
    Topology::of(kind).changed(kind, &options, AGENTS_MAX).ok()
}

impl Group {
    /// What the names of its agents begin with.
    pub(super) fn base(&self) -> &str {
        self.agent_name.as_deref().unwrap_or(&self.agent_type)
    }
    /// Whether an agent of this name is one of its.
    pub(super) fn takes(&self, name: &str) -> bool {
        number(self.base(), name).is_some()
    }

    /// The body that adds agents under this name, with their numbers behind it if there are several.
    pub(super) fn body(&self, name: &str, count: u32) -> Value {
        let mut body = self.fixed();
        let mut put = |name: &str, value: Option<Value>| {
            body.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("agent_type", Some(Value::from(self.agent_type.as_str())));
        put("agent_name", Some(Value::from(name)));
        put("count", (count > 1).then(|| Value::from(count)));
        put("capabilities", self.capabilities.clone().map(Value::from));
        put("slots", self.slots.map(Value::from));
        put("waiting", self.waiting.map(Value::from));
        let mut metadata = self.metadata.clone().unwrap_or_default();
        metadata.insert(APPLIED.to_owned(), Value::String(self.spec()));
        put("metadata", Some(Value::Object(metadata)));
        Value::Object(body)
    }

    /// What an agent keeps for its life: how its process is started.
    fn fixed(&self) -> Map<String, Value> {
        let mut fixed = Map::new();
        let mut put = |name: &str, value: Option<Value>| {
            fixed.extend(value.map(|value| (name.to_owned(), value)));
        };
        put("adapter", self.adapter.clone());
        put("command", self.command.clone());
        put("url", self.url.clone());
        let env = |env: &BTreeMap<String, String>| serde_json::to_value(env).unwrap_or_default();
        put("env", self.env.as_ref().map(env));
        put("pass_env", self.pass_env.clone().map(Value::from));
        put("working_dir", self.working_dir.clone());
        put("restart", self.restart.clone());
        put("limits", self.limits.clone());
        fixed
    }
    /// A hash of that: what it was started with cannot be read back, as it may hold what is not for everybody.
    pub(super) fn spec(&self) -> String {
        let text = Value::Object(self.fixed()).to_string();
        let digest = Sha256::digest(text.as_bytes());
        digest[..8]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect()
    }
}

/// The number behind a name: 0 for the name itself, `None` for another one's.
pub(super) fn number(base: &str, name: &str) -> Option<u32> {
    if name == base {
        return Some(0);
    }
    let digits = name.strip_prefix(base)?.strip_prefix('-')?;
    let plain = !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|_| plain)
}
