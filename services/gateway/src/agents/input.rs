//! What orders about agents take. What the coordinator would refuse is refused by its own checks, before anything is stored.

use std::{collections::BTreeMap, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, IntoDeserializer, MapAccess, SeqAccess, Visitor, value::MapAccessDeserializer},
};
use swarm_events::{
    Json, Problem,
    agent::{
        Adapter, AgentSpec, NAME_CHARS_MAX, ResourceLimits, Restart, RestartPolicy, TYPE_CHARS_MAX,
    },
    configuration::{AGENTS_MAX, Configuration, TIMEOUT_MS_MAX},
    swarm::SCALE_STEP_MAX,
    task::REASON_BYTES_MAX,
};
use utoipa::ToSchema;

use crate::{
    json,
    problem::{Answer, ApiProblem},
    swarms::present,
};

/// Most agents of one request: each is a command and an answer of its own, and all of them must be answered within the time
/// that a caller waits for one.
pub const COUNT_MAX: u32 = 1_000;

/// A command line: its words, or one text that is split as a shell does it. No shell runs it.
#[derive(Debug, Default)]
pub struct CommandLine(Vec<String>);

impl<'de> Deserialize<'de> for CommandLine {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Words;
        impl<'de> Visitor<'de> for Words {
            type Value = CommandLine;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of words, or one text")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<CommandLine, E> {
                let words = shlex::split(text);
                let open =
                    || E::custom("a quotation mark is not closed, or it ends in a backslash");
                words.map(CommandLine).ok_or_else(open)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut words: A) -> Result<CommandLine, A::Error> {
                let mut all = Vec::new();
                while let Some(word) = words.next_element()? {
                    all.push(word);
                }
                Ok(CommandLine(all))
            }
        }
        deserializer.deserialize_any(Words)
    }
}

/// A policy, or whether alone.
#[derive(Debug)]
struct Policy(RestartPolicy);

impl<'de> Deserialize<'de> for Policy {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Whole;
        impl<'de> Visitor<'de> for Whole {
            type Value = Policy;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("always, on_failure, never, or an object")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<Policy, E> {
                let restart = Restart::deserialize(word.into_deserializer())?;
                Ok(Policy(RestartPolicy {
                    restart,
                    ..RestartPolicy::default()
                }))
            }
            fn visit_map<A: MapAccess<'de>>(self, members: A) -> Result<Policy, A::Error> {
                RestartPolicy::deserialize(MapAccessDeserializer::new(members)).map(Policy)
            }
        }
        deserializer.deserialize_any(Whole)
    }
}

/// What adds agents.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"agent_type": "analyzer", "capabilities": ["text"], "adapter": "exec",
    "command": ["wc", "-l"], "count": 3, "restart": {"restart": "always", "crash_limit": 5}, "limits": {"memory_kib": 524_288}}))]
pub struct AgentInput {
    /// What kind, 1 to 50 characters.
    pub agent_type: String,
    /// Unique among the swarm's agents, 1 to 100 characters; derived from the agent's id if absent. Of several agents each has
    /// its number behind it: `name-1`, `name-2`, …
    pub agent_name: Option<String>,
    /// What it can do.
    #[serde(default)]
    pub capabilities: Vec<String>,
    /// `exec`: the command is run for each task. `process`: the command is the agent. `webhook`: the URL is called for each task.
    /// Absent: a place for an agent that is started by hand under the id that is answered.
    #[schema(value_type = Option<crate::openapi::Adapter>)]
    pub adapter: Option<Adapter>,
    /// For `exec` and `process`: program and arguments as a list, or one text that is split as a shell splits it. No shell runs
    /// it.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub command: CommandLine,
    /// For `webhook`: `http` or `https`.
    pub url: Option<String>,
    /// Tasks that it runs at once; the swarm's `agent_slots` if absent.
    #[schema(value_type = Option<u32>)]
    pub slots: Option<i64>,
    /// Tasks that may wait at it beyond its slots; the swarm's `agent_waiting` if absent.
    #[schema(value_type = Option<u32>)]
    pub waiting: Option<i64>,
    /// Environment beside the clean one. It is stored in the log for ever: pass secrets by `pass_env`.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Variables that its process gets from the host's own environment, if the host allows it.
    #[serde(default)]
    pub pass_env: Vec<String>,
    /// Where it works; a folder of its own if absent.
    pub working_dir: Option<String>,
    /// When its process is started again: `always`, `on_failure` or `never`, or a whole policy.
    #[serde(default, deserialize_with = "policy")]
    #[schema(value_type = crate::openapi::RestartPolicy)]
    pub restart: RestartPolicy,
    /// What its processes may use.
    #[serde(default)]
    #[schema(value_type = crate::openapi::ResourceLimits)]
    pub limits: ResourceLimits,
    /// Anything: a JSON object.
    #[schema(value_type = Object)]
    pub metadata: Option<Json>,
    /// How many, 1 to 1,000; 1 if absent.
    #[schema(value_type = Option<u32>)]
    pub count: Option<i64>,
}

fn policy<'de, D: Deserializer<'de>>(deserializer: D) -> Result<RestartPolicy, D::Error> {
    Policy::deserialize(deserializer).map(|policy| policy.0)
}

impl AgentInput {
    /// What each of the agents is, in their order; one if no count is given.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(super) fn read(bytes: &[u8], settings: &Configuration) -> Answer<Vec<AgentSpec>> {
        let input: Self = json::read(bytes)?;
        let count = input.count.unwrap_or(1);
        let count = number("count", count, 1, COUNT_MAX.into())?;
        let name = input.agent_name;
        let spec = AgentSpec {
            agent_type: input.agent_type,
            agent_name: None,
            capabilities: input.capabilities,
            adapter: input.adapter,
            command: input.command.0,
            url: input.url,
            slots: small("slots", input.slots)?,
            waiting: small("waiting", input.waiting)?,
            env: input.env,
            pass_env: input.pass_env,
            working_dir: input.working_dir,
            restart: input.restart,
            limits: input.limits,
            metadata: input.metadata.unwrap_or_else(Json::object),
        };
        let named = |at: i64| AgentSpec {
            agent_name: name.as_ref().map(|name| match count {
                1 => name.clone(),
                _ => format!("{name}-{at}"),
            }),
            ..spec.clone()
        };
        let specs: Vec<_> = (1..=count).map(named).collect();
        // They differ in their names alone, and the last one is the longest.
        if let Some(last) = specs.last() {
            check_spec(last, settings, count > 1)?;
        }
        Ok(specs)
    }
}

fn check_spec(spec: &AgentSpec, settings: &Configuration, numbered: bool) -> Answer<()> {
    let Err(mut problem) = swarm_coordinator_core::check_spec(spec, settings) else {
        return Ok(());
    };
    if numbered && problem.field.as_deref() == Some("agent_name") {
        let room = format!(
            "of several agents each has its number behind the name: all in all at most {NAME_CHARS_MAX} characters"
        );
        problem = problem.cure(room);
    }
    Err(with_cure(problem))
}

/// Every refusal says what to do.
fn with_cure(problem: Problem) -> ApiProblem {
    match problem.cure {
        Some(_) => problem.into(),
        None => problem.cure("see the schema in /openapi.json").into(),
    }
}

/// What changes an agent: a JSON merge patch (RFC 7396). Absent keeps.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"capabilities": ["text", "images"], "slots": 4}))]
pub struct AgentPatch {
    /// 1 to 100 characters.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<String>)]
    agent_name: Option<Json>,
    /// All of them.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<Vec<String>>)]
    capabilities: Option<Json>,
    /// Tasks that it runs at once.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    slots: Option<Json>,
    /// Tasks that may wait at it beyond its slots.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Option<u32>)]
    waiting: Option<Json>,
    /// Members to change; null takes one away.
    #[serde(default, deserialize_with = "present")]
    #[schema(value_type = Object)]
    metadata: Option<Json>,
}

impl AgentPatch {
    /// The patch as it came. Its fields are known ones, and at least one is there; what they hold is checked against the agent.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(super) fn read(bytes: &[u8]) -> Answer<Json> {
        let Self {
            agent_name,
            capabilities,
            slots,
            waiting,
            metadata,
        } = json::read(bytes)?;
        let fields = [&agent_name, &capabilities, &slots, &waiting, &metadata];
        if fields.iter().all(|field| field.is_none()) {
            return Err(Problem::new("nothing-to-change", "the patch is empty")
                .field("body")
                .cure("give agent_name, capabilities, slots, waiting or metadata")
                .into());
        }
        typed::<String>("agent_name", agent_name.as_ref(), "a text")?;
        typed::<Vec<String>>("capabilities", capabilities.as_ref(), "a list of texts")?;
        let number = "a whole number that is not negative";
        typed::<u32>("slots", slots.as_ref(), number)?;
        typed::<u32>("waiting", waiting.as_ref(), number)?;
        if let Some(metadata) = metadata
            .as_ref()
            .filter(|json| !json.is_null() && !json.is_object())
        {
            typed::<BTreeMap<String, Json>>("metadata", Some(metadata), "an object")?;
        }
        let text = std::str::from_utf8(bytes).unwrap_or_default();
        let whole = Json::parse(text.trim());
        Ok(whole
            .map_err(|error| Problem::new("malformed-json", error.to_string()).field("body"))?)
    }
}

/// What a patch says of a field must be of its type; it cannot be reset, as an agent always has it.
fn typed<T: serde::de::DeserializeOwned>(
    field: &str,
    value: Option<&Json>,
    what: &str,
) -> Answer<()> {
    let Some(value) = value else { return Ok(()) };
    let problem = if value.is_null() {
        Problem::new("null", "cannot be reset: an agent always has it")
    } else if value.to::<T>().is_err() {
        Problem::new("wrong-type", format!("must be {what}"))
    } else {
        return Ok(());
    };
    let cure = format!("give {what}, or leave it out");
    Err(problem.field(field).cure(cure).into())
}

/// How an agent's process is started anew.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "a new version of its program", "grace_ms": 10_000}))]
pub struct RestartInput {
    /// At once: its work goes to others. Otherwise it finishes what runs first.
    #[serde(default)]
    pub force: bool,
    /// How long it may take to finish, in milliseconds; the swarm's `drain_grace_ms` if absent.
    #[schema(value_type = Option<u64>)]
    pub grace_ms: Option<i64>,
    /// At most 1,000 bytes.
    pub reason: Option<String>,
}

/// A checked [`RestartInput`].
pub(super) struct Going {
    pub(super) force: bool,
    pub(super) grace_ms: Option<u64>,
    pub(super) reason: Option<String>,
}

impl RestartInput {
    /// What is in a body that may be empty.
    pub(super) fn read(bytes: &[u8]) -> Answer<Going> {
        let input: Self = if bytes.trim_ascii().is_empty() {
            Self::default()
        } else {
            json::read(bytes)?
        };
        let most = i64::try_from(TIMEOUT_MS_MAX).unwrap_or(i64::MAX);
        if input.force && input.grace_ms > Some(0) {
            return Err(Problem::new("contradiction", "force leaves no time")
                .field("grace_ms")
                .cure("leave out one of force and grace_ms")
                .into());
        }
        let grace_ms = input.grace_ms;
        let grace_ms = grace_ms.map(|grace| number("grace_ms", grace, 0, most));
        Ok(Going {
            force: input.force,
            grace_ms: grace_ms
                .transpose()?
                .and_then(|grace| grace.try_into().ok()),
            reason: checked_reason(input.reason)?,
        })
    }
}

/// How many agents there are to be: `desired`, or `delta` more (or fewer, if negative).
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"desired": 8}))]
pub struct ScaleInput {
    /// How many, within `min_agents` and `max_agents`.
    #[schema(value_type = Option<u32>)]
    pub desired: Option<i64>,
    /// How many more; negative: how many fewer.
    pub delta: Option<i64>,
    /// Only agents of this type are counted, added and taken out.
    pub agent_type: Option<String>,
    /// At most 1,000 bytes.
    pub reason: Option<String>,
}

impl ScaleInput {
    /// What the coordinator is told.
    ///
    /// # Errors
    /// 400, or 422 naming the field.
    pub(crate) fn read(bytes: &[u8]) -> Answer<swarm_events::command::Scale> {
        let Self {
            desired,
            delta,
            agent_type,
            reason,
        } = json::read(bytes)?;
        let step = i64::try_from(SCALE_STEP_MAX).unwrap_or(i64::MAX);
        let (desired, delta) = match (desired, delta) {
            (Some(desired), None) => {
                let desired = number("desired", desired, 0, AGENTS_MAX.into())?;
                (u32::try_from(desired).ok(), None)
            }
            (None, Some(delta)) => (None, Some(number("delta", delta, -step, step)?)),
            (Some(_), Some(_)) => {
                return Err(Problem::new("contradiction", "desired is given, too")
                    .field("delta")
                    .cure("give exactly one of desired and delta")
                    .into());
            }
            (None, None) => {
                return Err(
                    Problem::new("missing", "neither desired nor delta is given")
                        .field("desired")
                        .cure("give exactly one of desired and delta")
                        .into(),
                );
            }
        };
        if let Some(kind) = &agent_type {
            let chars = kind.chars().count();
            if chars > TYPE_CHARS_MAX || kind.trim().is_empty() {
                let detail = format!("has {chars} characters, or only blanks");
                return Err(Problem::new("wrong-length", detail)
                    .field("agent_type")
                    .cure(format!("give 1 to {TYPE_CHARS_MAX} characters"))
                    .into());
            }
        }
        Ok(swarm_events::command::Scale {
            desired,
            delta,
            agent_type,
            reason: checked_reason(reason)?,
        })
    }
}

fn checked_reason(reason: Option<String>) -> Answer<Option<String>> {
    let bytes = reason.as_ref().map_or(0, String::len);
    if bytes > REASON_BYTES_MAX {
        let detail = format!("has {bytes} bytes, more than {REASON_BYTES_MAX}");
        return Err(Problem::new("too-long", detail)
            .field("reason")
            .cure("shorten it")
            .into());
    }
    Ok(reason)
}

/// A number in its range, negative ones refused like those that are too large.
fn number(field: &str, value: i64, low: i64, high: i64) -> Answer<i64> {
    if (low..=high).contains(&value) {
        return Ok(value);
    }
    let detail = format!("{value} is outside {low} to {high}");
    Err(Problem::new("out-of-range", detail)
        .field(field)
        .cure(format!("give a number from {low} to {high}"))
        .into())
}

/// A number that the coordinator's checks know the range of.
fn small(field: &str, value: Option<i64>) -> Answer<Option<u32>> {
    let value = value.map(|value| number(field, value, 0, u32::MAX.into()));
    Ok(value.transpose()?.and_then(|value| value.try_into().ok()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn with(more: Value) -> Value {
        let mut body = json!({"agent_type": "t", "adapter": "exec", "command": ["wc"]});
        for (name, value) in more.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body
    }
    fn specs(more: Value) -> Vec<AgentSpec> {
        AgentInput::read(with(more).to_string().as_bytes(), &Configuration::default())
            .expect("good")
    }
    fn refused(more: Value) -> (String, String) {
        let body = with(more).to_string();
        let problem = AgentInput::read(body.as_bytes(), &Configuration::default());
        let problem = problem.expect_err(&body);
        let problem = problem.problem.clone();
        assert!(problem.cure.is_some(), "{problem:?}");
        (problem.code, problem.field.unwrap_or_default())
    }

    #[test]
    fn a_command_is_a_list_or_is_split_as_a_shell_does_it() {
        let command = |value| specs(json!({ "command": value })).remove(0).command;
        assert_eq!(command(json!(["a b", "$c"])), ["a b", "$c"]);
        assert_eq!(
            command(json!(r#"grep -c "two words" 'it''s' *.txt"#)),
            ["grep", "-c", "two words", "its", "*.txt"]
        );
        for bad in [json!("say 'no"), json!(7), json!(["a", 7])] {
            let (code, field) = refused(json!({ "command": bad }));
            assert_eq!(code, "wrong-value");
            assert!(field.starts_with("command"), "{field}");
        }
    }

    #[test]
    fn a_restart_policy_is_a_word_or_an_object() {
        let policy = |value| specs(json!({ "restart": value })).remove(0).restart;
        assert_eq!(policy(json!("never")).restart, Restart::Never);
        let whole = policy(json!({"restart": "on_failure", "crash_limit": 2}));
        assert_eq!(
            (whole.restart, whole.crash_limit, whole.stable_ms),
            (Restart::OnFailure, 2, RestartPolicy::default().stable_ms)
        );
        assert_eq!(
            refused(json!({"restart": "sometimes"})),
            ("wrong-value".to_owned(), "restart".to_owned())
        );
        assert_eq!(
            refused(json!({"restart": {"crash_limit": -1}})),
            ("wrong-value".to_owned(), "restart.crash_limit".to_owned())
        );
        assert_eq!(
            refused(json!({"restart": {"limit": 1}})),
            ("unknown-field".to_owned(), "restart.limit".to_owned())
        );
    }

    #[test]
    fn of_several_agents_each_has_its_number_behind_the_name() {
        let names = |more| {
            let specs = specs(more).into_iter();
            specs.map(|spec| spec.agent_name).collect::<Vec<_>>()
        };
        assert_eq!(names(json!({"agent_name": "a"})), [Some("a".to_owned())]);
        assert_eq!(
            names(json!({"agent_name": "a", "count": 2})),
            [Some("a-1".to_owned()), Some("a-2".to_owned())]
        );
        assert_eq!(names(json!({"count": 2})), [None, None]);
        let most = "n".repeat(NAME_CHARS_MAX - 3);
        assert_eq!(specs(json!({"agent_name": most, "count": 99})).len(), 99);
        let (_, field) = refused(json!({"agent_name": most, "count": 100}));
        assert_eq!(field, "agent_name");
    }

    #[test]
    fn a_count_holds_at_its_limits() {
        assert_eq!(specs(json!({"count": 1})).len(), 1);
        assert_eq!(specs(json!({"count": COUNT_MAX})).len(), 1_000);
        for count in [0, -1, i64::from(COUNT_MAX) + 1] {
            let refused = refused(json!({ "count": count }));
            assert_eq!(refused, ("out-of-range".to_owned(), "count".to_owned()));
        }
    }

    #[test]
    fn scaling_takes_one_of_two_figures() {
        let read = |body: Value| ScaleInput::read(body.to_string().as_bytes());
        let scale = read(json!({"delta": -2, "agent_type": "t"})).expect("good");
        assert_eq!((scale.desired, scale.delta), (None, Some(-2)));
        assert_eq!(read(json!({"desired": 0})).expect("good").desired, Some(0));
        for (body, field) in [
            (json!({}), "desired"),
            (json!({"desired": 1, "delta": 1}), "delta"),
            (json!({"desired": -1}), "desired"),
            (json!({"desired": 10_001}), "desired"),
            (json!({"delta": 1_001}), "delta"),
            (json!({"delta": -1_001}), "delta"),
            (json!({"delta": 1.5}), "delta"),
            (json!({"desired": 1, "agent_type": ""}), "agent_type"),
            (json!({"desired": 1, "reason": "r".repeat(1_001)}), "reason"),
            (json!({"wanted": 1}), "wanted"),
        ] {
            let problem = read(body.clone()).expect_err("bad");
            assert_eq!(problem.problem.field.as_deref(), Some(field), "{body}");
            assert!(problem.problem.cure.is_some(), "{body}");
        }
    }

    #[test]
    fn a_restart_needs_no_body() {
        let going = RestartInput::read(b" ").expect("empty");
        assert_eq!(
            (going.force, going.grace_ms, going.reason),
            (false, None, None)
        );
        let going = RestartInput::read(br#"{"force": true, "grace_ms": 0}"#).expect("good");
        assert_eq!((going.force, going.grace_ms), (true, Some(0)));
        for (body, field) in [
            (r#"{"grace_ms": -1}"#, "grace_ms"),
            (r#"{"grace_ms": 2592000001}"#, "grace_ms"),
            (r#"{"force": true, "grace_ms": 1}"#, "grace_ms"),
            (r#"{"force": "yes"}"#, "force"),
            (r#"{"now": true}"#, "now"),
        ] {
            let problem = RestartInput::read(body.as_bytes()).err().expect(body);
            assert_eq!(problem.problem.field.as_deref(), Some(field), "{body}");
        }
    }

    #[test]
    fn a_patch_changes_something_and_nothing_unknown() {
        let patch = AgentPatch::read(br#" {"slots": 2, "metadata": {"a": null}} "#);
        assert_eq!(
            patch.expect("good").as_str(),
            r#"{"slots": 2, "metadata": {"a": null}}"#
        );
        for (body, field) in [
            ("{}", "body"),
            (r#"{"agent_type": "t"}"#, "agent_type"),
            (r#"{"slots": null}"#, "slots"),
            (r#"{"slots": -1}"#, "slots"),
            (r#"{"agent_name": 7}"#, "agent_name"),
            (r#"{"capabilities": "a"}"#, "capabilities"),
            (r#"{"metadata": [1]}"#, "metadata"),
        ] {
            let problem = AgentPatch::read(body.as_bytes()).expect_err(body);
            assert_eq!(problem.problem.field.as_deref(), Some(field), "{body}");
        }
    }
}
