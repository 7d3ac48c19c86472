//! The envelope: structured-mode CloudEvents 1.0 JSON with Swarm's extension attributes.

use std::fmt;

use serde::Serialize;
use serde_json::value::RawValue;
use uuid::Uuid;

use crate::{
    body::Body,
    ids::{AgentId, EventId, InstanceId, OrgId, SwarmId},
    subject::{Partition, Service, Subject},
    time::Timestamp,
};

/// Content type of a structured-mode event.
pub const CONTENT_TYPE: &str = "application/cloudevents+json";

/// Who wrote an event: CloudEvents `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `/swarm/<service>/<instance>`
    Service(Service, InstanceId),
    /// `/swarm/agent/<id>`
    Agent(AgentId),
    /// `/swarm/agent-host/<instance>`
    Host(InstanceId),
    /// Anything else: gateways, the CLI, direct publishers.
    Client(String),
}
impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service, instance) => write!(f, "/swarm/{service}/{instance}"),
            Self::Agent(agent) => write!(f, "/swarm/agent/{agent}"),
            Self::Host(host) => write!(f, "/swarm/agent-host/{host}"),
            Self::Client(text) => f.write_str(text),
        }
    }
}
impl Source {
    /// Reads a `source`.
    pub fn parse(text: &str) -> Self {
        let known = text
            .strip_prefix("/swarm/")
            .and_then(|rest| rest.split_once('/'))
            .and_then(|(kind, id)| {
                match kind {
                    "agent" => return id.parse().ok().map(Self::Agent),
                    "agent-host" => return id.parse().ok().map(Self::Host),
                    _ => {}
                }
                Some(Self::Service(kind.parse().ok()?, id.parse().ok()?))
            });
        known.unwrap_or_else(|| Self::Client(text.to_owned()))
    }
}

/// What makes an event a decision.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Stream sequence of the last input that was met when it was decided.
    pub cause_sequence: u64,
    /// Sequence of the claim under which it was decided.
    pub epoch: u64,
    /// Rises within an epoch.
    pub ordinal: u64,
    /// Version of the decision code.
    pub decider_version: u32,
}

/// An event or command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// CloudEvents `id`: UUIDv7 from clients and agents, derived for decisions.
    pub id: EventId,
    /// CloudEvents `source`.
    pub source: Source,
    /// CloudEvents `time`: the writer's clock, for people; nothing is decided by it.
    pub time: Timestamp,
    /// CloudEvents `subject`: what it is about; for control events the number of the partition.
    pub about: Uuid,
    /// Extension `org`.
    pub org: Option<OrgId>,
    /// Extension `swarm`.
    pub swarm: Option<SwarmId>,
    /// Extension `correlationid`: the submission that all of this follows from.
    pub correlation: Option<Uuid>,
    /// Extension `causationid`: the event or command that this answers; nil is written as none.
    pub causation: Option<Uuid>,
    /// Extensions `causeseq`, `epoch`, `ordinal`, `deciderversion`.
    pub decided: Option<Decided>,
    /// Extension `traceparent` (W3C Trace Context).
    pub traceparent: Option<String>,
    /// `type` and `data`.
    pub body: Body,
}

#[derive(Serialize)]
struct Wire<'a> {
    specversion: &'static str,
    id: EventId,
    source: String,
    r#type: &'static str,
    subject: String,
    time: Timestamp,
    datacontenttype: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<OrgId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    swarm: Option<SwarmId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlationid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causationid: Option<Uuid>,
    #[serde(skip_serializing_if = "Option::is_none")]
    causeseq: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    epoch: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ordinal: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    deciderversion: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: &'a RawValue,
}

impl Event {
    /// An event for the place that `subject` names, by `source`, about `about`.
    pub fn new(
        id: EventId,
        source: Source,
        time: Timestamp,
        subject: &Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) -> Self {
        Self {
            id,
            source,
            time,
            about,
            org: subject.org(),
            swarm: subject.place().map(|place| place.swarm),
            correlation: None,
            causation: None,
            decided: None,
            traceparent: None,
            body: body.into(),
        }
    }

    /// The number that stands for a partition in `about`.
    pub const fn about_partition(partition: Partition) -> Uuid {
        Uuid::from_u128(partition.number() as u128)
    }

    /// As structured-mode CloudEvents JSON.
    ///
    /// # Errors
    /// Only if a carried JSON text is not JSON, which its constructor rules out.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let data = self.body.to_raw()?;
        let control = matches!(
            self.body,
            Body::Claimed(_) | Body::Woken(_) | Body::Observed(_)
        );
        let wire = Wire {
            specversion: "1.0",
            id: self.id,
            source: self.source.to_string(),
            r#type: self.body.type_name(),
            subject: if control {
                format!("{:02}", self.about.as_u128())
            } else {
                self.about.to_string()
            },
            time: self.time,
            datacontenttype: "application/json",
            org: self.org,
            swarm: self.swarm,
            correlationid: self.correlation,
            causationid: self.causation.filter(|id| !id.is_nil()),
            causeseq: self.decided.map(|d| d.cause_sequence),
            epoch: self.decided.map(|d| d.epoch),
            ordinal: self.decided.map(|d| d.ordinal),
            deciderversion: self.decided.map(|d| d.decider_version),
            traceparent: self.traceparent.as_deref(),
            data: &data,
        };
        serde_json::to_vec(&wire)
    }
}
