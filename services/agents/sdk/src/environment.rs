//! An agent as its process's environment says: how agent hosts hand over who it is and where its swarm is.

use std::{fmt, str::FromStr, time::Duration};

use serde::de::DeserializeOwned;
use swarm_events::{
    Json,
    ids::{AgentId, OrgId, SwarmId},
};

use crate::{Agent, AgentBuilder, Credentials, LinkSettings};

/// The variables that are read, and what each holds.
pub const ENVIRONMENT: [(&str, &str); 13] = [
    (
        "SWARM_NATS_URL",
        "addresses of nats-server, separated by commas",
    ),
    (
        "SWARM_NATS_CREDS",
        "file with credentials for it; not needed if it asks for none",
    ),
    ("SWARM_ORG_ID", "the organization, a UUID"),
    ("SWARM_SWARM_ID", "the swarm, a UUID"),
    ("SWARM_AGENT_ID", "the agent, a UUID; a new one if absent"),
    ("SWARM_AGENT_NAME", "its name; made from the id if absent"),
    (
        "SWARM_AGENT_TYPE",
        "its type; the program's own choice if absent",
    ),
    (
        "SWARM_AGENT_CAPABILITIES",
        "what it can do, a JSON array of strings",
    ),
    (
        "SWARM_AGENT_SLOTS",
        "tasks that it runs at once; the swarm's setting if absent",
    ),
    (
        "SWARM_AGENT_WAITING",
        "tasks that may wait at it; the swarm's setting if absent",
    ),
    ("SWARM_AGENT_METADATA", "anything, a JSON object"),
    (
        "SWARM_AGENT_SPAWN",
        "number of the request that started the process; absent if no host did",
    ),
    (
        "SWARM_DRAIN_GRACE_MS",
        "how long running work may go on after a stop, in milliseconds; the swarm's setting if absent",
    ),
];

/// What is wrong with the environment: all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvironmentError(pub Vec<String>);
impl fmt::Display for EnvironmentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}
impl std::error::Error for EnvironmentError {}

struct Reader<F> {
    var: F,
    mistakes: Vec<String>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// An empty variable is as good as none: a shell that passes one on unset makes it so.
    fn text(&self, name: &str) -> Option<String> {
        (self.var)(name).filter(|text| !text.is_empty())
    }

    fn wrong(&mut self, name: &str, text: &str, error: &dyn fmt::Display) {
        let means = ENVIRONMENT.iter().find(|(known, _)| *known == name);
        let means = means.map_or("", |(_, means)| means);
        self.mistakes.push(format!(
            "{name}={text} cannot be read ({error}): it holds {means}"
        ));
    }

    fn parsed<T: FromStr<Err: fmt::Display>>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        text.parse()
            .inspect_err(|error| self.wrong(name, &text, error))
            .ok()
    }

    fn json<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        serde_json::from_str(&text)
            .inspect_err(|error| self.wrong(name, &text, error))
            .ok()
    }

    fn needed<T>(&mut self, name: &str, value: Option<T>) -> Option<T> {
        if value.is_none() && self.text(name).is_none() {
            let means = ENVIRONMENT.iter().find(|(known, _)| *known == name);
            let means = means.map_or("", |(_, means)| means);
            self.mistakes
                .push(format!("{name} is not set: it holds {means}"));
        }
        value
    }
}

/// The agent that the variables describe.
pub(crate) fn builder(
    var: impl Fn(&str) -> Option<String>,
) -> Result<AgentBuilder, EnvironmentError> {
    let mut read = Reader {
        var,
        mistakes: Vec::new(),
    };
    let url = read.text("SWARM_NATS_URL");
    let url = read.needed("SWARM_NATS_URL", url);
    let org = read.parsed::<OrgId>("SWARM_ORG_ID");
    let org = read.needed("SWARM_ORG_ID", org);
    let swarm = read.parsed::<SwarmId>("SWARM_SWARM_ID");
    let swarm = read.needed("SWARM_SWARM_ID", swarm);
    let id = read.parsed::<AgentId>("SWARM_AGENT_ID");
    let capabilities = read.json::<Vec<String>>("SWARM_AGENT_CAPABILITIES");
    let metadata = read.json::<Json>("SWARM_AGENT_METADATA");
    if let Some(metadata) = metadata.as_ref().filter(|metadata| !metadata.is_object()) {
        read.wrong("SWARM_AGENT_METADATA", metadata.as_str(), &"not an object");
    }
    let (slots, waiting) = (
        read.parsed::<u32>("SWARM_AGENT_SLOTS"),
        read.parsed::<u32>("SWARM_AGENT_WAITING"),
    );
    let spawn = read.parsed::<u64>("SWARM_AGENT_SPAWN");
    let grace = read.parsed::<u64>("SWARM_DRAIN_GRACE_MS");
    let (Some(url), Some(org), Some(swarm), true) = (url, org, swarm, read.mistakes.is_empty())
    else {
        return Err(EnvironmentError(read.mistakes));
    };
    let mut link = LinkSettings::new(url);
    link.creds = read
        .text("SWARM_NATS_CREDS")
        .map(|file| Credentials::File(file.into()));
    let mut agent = Agent::builder(link, org, swarm);
    if let Some(id) = id {
        agent = agent.id(id);
    }
    if let Some(name) = read.text("SWARM_AGENT_NAME") {
        agent = agent.name(name);
    }
    if let Some(agent_type) = read.text("SWARM_AGENT_TYPE") {
        agent = agent.agent_type(agent_type);
    }
    if let Some(capabilities) = capabilities {
        agent = agent.capabilities(capabilities);
    }
    if let Some(metadata) = metadata {
        agent = agent.metadata(metadata);
    }
    if let Some(slots) = slots {
        agent = agent.slots(slots);
    }
    if let Some(waiting) = waiting {
        agent = agent.waiting(waiting);
    }
    if let Some(spawn) = spawn {
        agent = agent.spawn(spawn);
    }
    if let Some(grace) = grace {
        agent = agent.drain_grace(Duration::from_millis(grace));
    }
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read(set: &[(&str, &str)]) -> Result<AgentBuilder, EnvironmentError> {
        let set: BTreeMap<&str, &str> = set.iter().copied().collect();
        builder(|name| set.get(name).map(|text| (*text).to_owned()))
    }
    const ID: &str = "0190a000-0000-7000-8000-000000000001";
    const LEAST: [(&str, &str); 3] = [
        ("SWARM_NATS_URL", "nats://h:1"),
        ("SWARM_ORG_ID", ID),
        ("SWARM_SWARM_ID", ID),
    ];

    #[test]
    fn every_variable_has_its_place_in_the_agent() {
        let all = [
            ("SWARM_NATS_CREDS", "/a/b.creds"),
            ("SWARM_AGENT_ID", ID),
            ("SWARM_AGENT_NAME", "one"),
            ("SWARM_AGENT_TYPE", "analyzer"),
            ("SWARM_AGENT_CAPABILITIES", r#"["b","a"]"#),
            ("SWARM_AGENT_SLOTS", "3"),
            ("SWARM_AGENT_WAITING", "0"),
            ("SWARM_AGENT_METADATA", r#"{"a":1}"#),
            ("SWARM_AGENT_SPAWN", "7"),
            ("SWARM_DRAIN_GRACE_MS", "250"),
        ];
        let agent = read(&[&LEAST[..], &all[..]].concat()).expect("complete");
        let (link, place, join, grace) = agent.parts();
        assert_eq!(link.nats_url, "nats://h:1");
        assert!(matches!(&link.creds, Some(Credentials::File(file)) if file.ends_with("b.creds")));
        assert_eq!(place.org.to_string(), ID);
        assert_eq!(agent.agent_id().to_string(), ID);
        assert_eq!(join.agent_name.as_deref(), Some("one"));
        assert_eq!(join.agent_type, "analyzer");
        assert_eq!(join.capabilities, ["a", "b"]);
        assert_eq!(
            (join.slots, join.waiting, join.spawn),
            (Some(3), Some(0), Some(7))
        );
        assert_eq!(join.metadata.as_str(), r#"{"a":1}"#);
        assert_eq!(grace, Some(Duration::from_millis(250)));
    }

    #[test]
    fn what_is_absent_or_empty_is_the_swarms_setting() {
        let agent = read(
            &[
                &LEAST[..],
                &[("SWARM_AGENT_SLOTS", ""), ("SWARM_AGENT_NAME", "")],
            ]
            .concat(),
        );
        let agent = agent.expect("complete");
        let (link, _, join, grace) = agent.parts();
        assert!(link.creds.is_none());
        assert_eq!((join.slots, join.spawn, grace), (None, None, None));
        assert_eq!(join.agent_name, None);
    }

    #[test]
    fn all_mistakes_are_told_at_once() {
        let error = read(&[
            ("SWARM_ORG_ID", "x"),
            ("SWARM_AGENT_SLOTS", "-1"),
            ("SWARM_AGENT_CAPABILITIES", "a,b"),
            ("SWARM_AGENT_METADATA", "[]"),
        ])
        .err()
        .expect("refused")
        .to_string();
        for part in [
            "SWARM_NATS_URL is not set",
            "SWARM_ORG_ID=x cannot be read",
            "SWARM_SWARM_ID is not set",
            "SWARM_AGENT_SLOTS=-1 cannot be read",
            "a JSON array of strings",
            "SWARM_AGENT_METADATA=[] cannot be read (not an object)",
        ] {
            assert!(error.contains(part), "{part} is not in {error}");
        }
    }
}
