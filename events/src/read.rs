//! Reading what the stream holds. Never panics; what cannot be read says what is wrong with which field.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::{
    body::{Body, type_stem},
    envelope::{Decided, Event, Source},
    ids::{EventId, OrgId, SwarmId},
    problem::Problem,
    subject::{
        AgentVerb, CommandVerb, ControlVerb, Partition, Sender, Service, Subject, SwarmVerb,
        TaskVerb,
    },
    time::Timestamp,
    upcast::{UPCASTERS, Upcaster, upcast},
};

/// An event at its place in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Stream sequence.
    pub sequence: u64,
    /// The server's store time.
    pub time: Timestamp,
    /// Where it was published.
    pub subject: Subject,
    /// First 16 bytes of the SHA-256 of `data` as it came: two submissions with the same id are the same if these are.
    /// Zero for other types.
    pub content: u128,
    /// The event.
    pub event: Event,
}

/// A message that is no event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unreadable {
    /// Stream sequence.
    pub sequence: u64,
    /// The server's store time.
    pub time: Timestamp,
    /// The subject, if it is one of ours.
    pub subject: Option<Subject>,
    /// Its text.
    pub subject_text: String,
    /// CloudEvents `id`, if that much could be read.
    pub id: Option<EventId>,
    /// CloudEvents `source`, if that much could be read; at most 200 bytes.
    pub source: Option<String>,
    /// A type or version that this program does not know, on a subject that services write: a newer service wrote it.
    pub newer: bool,
    /// What is wrong.
    pub problem: Problem,
}

/// What a fold meets.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nearly every input is an event")]
pub enum Input {
    /// An event or command.
    Event(Recorded),
    /// Something else.
    Unreadable(Unreadable),
}
impl Input {
    /// Stream sequence.
    pub const fn sequence(&self) -> u64 {
        match self {
            Self::Event(e) => e.sequence,
            Self::Unreadable(u) => u.sequence,
        }
    }
    /// Store time.
    pub const fn time(&self) -> Timestamp {
        match self {
            Self::Event(e) => e.time,
            Self::Unreadable(u) => u.time,
        }
    }
}

/// Who may write on a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// That service, as a decision.
    Service(Service),
    /// That service's shell, not as a decision.
    Shell(Service),
    /// The agent that the subject names.
    Agent,
    /// An agent host.
    Host,
    /// Anyone with the right to.
    Client,
}

/// Who writes on `subject`.
pub const fn writer(subject: &Subject) -> Writer {
    match subject {
        Subject::Swarm(_, SwarmVerb::Measured) => Writer::Service(Service::Distributor),
        Subject::Swarm(_, SwarmVerb::Sampled) => Writer::Service(Service::Health),
        Subject::Swarm(..) | Subject::Org(..) => Writer::Service(Service::Coordinator),
        Subject::Agent(
            _,
            AgentVerb::Suspected
            | AgentVerb::Recovered
            | AgentVerb::Failed
            | AgentVerb::Quarantined
            | AgentVerb::Released
            | AgentVerb::HostFailed,
            _,
        ) => Writer::Service(Service::Health),
        Subject::Agent(_, verb, _) if verb.by_host() => Writer::Host,
        Subject::Agent(..) => Writer::Service(Service::Coordinator),
        // Said in another swarm's partition, and again after each claim: an order there, no decision.
        Subject::Command(_, CommandVerb::HandBack) => Writer::Shell(Service::Distributor),
        Subject::Task(_, TaskVerb::Submitted, _)
        | Subject::Command(..)
        | Subject::OrgCommand(..) => Writer::Client,
        Subject::Task(_, verb, _) if verb.by_agent() => Writer::Agent,
        Subject::Task(..) => Writer::Service(Service::Distributor),
        Subject::Control(
            service,
            _,
            ControlVerb::Claimed | ControlVerb::Woken | ControlVerb::Observed,
        ) => Writer::Shell(*service),
        Subject::Message(_, Sender::People | Sender::Abroad, _) => Writer::Client,
        Subject::Heartbeat(..) | Subject::Message(..) => Writer::Agent,
    }
}

#[derive(Deserialize)]
struct Wire<'a> {
    #[serde(borrow)]
    specversion: Cow<'a, str>,
    id: Uuid,
    #[serde(borrow)]
    source: Cow<'a, str>,
    #[serde(borrow)]
    r#type: Cow<'a, str>,
    #[serde(borrow)]
    subject: Cow<'a, str>,
    time: Option<Timestamp>,
    org: Option<OrgId>,
    swarm: Option<SwarmId>,
    correlationid: Option<Uuid>,
    causationid: Option<Uuid>,
    causeseq: Option<u64>,
    epoch: Option<u64>,
    ordinal: Option<u64>,
    deciderversion: Option<u32>,
    #[serde(borrow)]
    traceparent: Option<Cow<'a, str>>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
}

/// What can be read of a message that is not whole.
#[derive(Deserialize)]
struct Remains<'a> {
    #[serde(borrow)]
    id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    source: Option<Cow<'a, str>>,
}

/// Longest `source` that is kept of an unreadable message, in bytes.
const SOURCE_BYTES_MAX: usize = 200;

/// Reads a message of the stream.
pub fn read(sequence: u64, time: Timestamp, subject: &str, payload: &[u8]) -> Input {
    read_with(UPCASTERS, sequence, time, subject, payload)
}

/// As [`read`], with a table of upcasters.
pub fn read_with(
    upcasters: &[Upcaster],
    sequence: u64,
    time: Timestamp,
    subject: &str,
    payload: &[u8],
) -> Input {
    let parsed = Subject::parse(subject);
    let outcome = parsed
        .as_ref()
        .map_err(|e| (false, Problem::new("unknown-subject", e.to_string())))
        .and_then(|s| read_event(upcasters, s, time, payload));
    match outcome {
        Ok((event, content)) => {
            // `outcome` is Ok only if the subject was.
            let Ok(subject) = parsed else {
                unreachable!("read without a subject")
            };
            Input::Event(Recorded {
                sequence,
                time,
                subject,
                content,
                event,
            })
        }
        Err((newer, problem)) => {
            let remains = serde_json::from_slice::<Remains<'_>>(payload).ok();
            let cut = |s: &str| {
                let mut end = s.len().min(SOURCE_BYTES_MAX);
                while !s.is_char_boundary(end) {
                    end -= 1;
                }
                s[..end].to_owned()
            };
            Input::Unreadable(Unreadable {
                sequence,
                time,
                subject: parsed.ok(),
                subject_text: cut(subject),
                id: remains.as_ref().and_then(|r| r.id.as_ref()?.parse().ok()),
                source: remains.and_then(|r| r.source.map(|s| cut(&s))),
                newer,
                problem,
            })
        }
    }
}

type Unread = (bool, Problem);

fn wrong(code: &str, field: &str, detail: String) -> Unread {
    (false, Problem::new(code, detail).field(field))
}

fn read_event(
    upcasters: &[Upcaster],
    subject: &Subject,
    time: Timestamp,
    payload: &[u8],
) -> Result<(Event, u128), Unread> {
    let wire: Wire<'_> = serde_json::from_slice(payload).map_err(|e| {
        let problem = Problem::new(
            "malformed-event",
            format!("not a structured-mode CloudEvent in JSON: {e}"),
        )
        .cure("publish CloudEvents 1.0 JSON with the attributes that ARCHITECTURE.md lists");
        (false, problem)
    })?;
    if wire.specversion != "1.0" {
        return Err(wrong(
            "wrong-specversion",
            "specversion",
            format!("must be 1.0, not {}", wire.specversion),
        ));
    }
    let stem = type_stem(subject);
    let version = wire
        .r#type
        .strip_prefix(stem)
        .and_then(|rest| rest.strip_prefix(".v"));
    if version.is_none() {
        return Err(wrong(
            "wrong-type",
            "type",
            format!("this subject takes {stem}.v<N>, not {}", wire.r#type),
        ));
    }
    let source = Source::parse(&wire.source);
    check_writer(subject, &source)?;
    check_place(subject, &wire)?;
    let about = match subject {
        Subject::Control(_, partition, _) => {
            if wire.subject.parse() != Ok(*partition) {
                return Err(wrong(
                    "wrong-subject",
                    "subject",
                    format!("must be {partition}"),
                ));
            }
            Event::about_partition(*partition)
        }
        _ => Uuid::parse_str(&wire.subject).map_err(|e| {
            wrong(
                "wrong-subject",
                "subject",
                format!("must be the UUID of what it is about: {e}"),
            )
        })?,
    };
    if matches!(subject, Subject::Agent(..)) && subject.agent().map(|a| a.0) != Some(about) {
        return Err(wrong(
            "wrong-subject",
            "subject",
            "must be the agent that the NATS subject names".to_owned(),
        ));
    }
    let decided = match (writer(subject), wire.causeseq, wire.epoch, wire.ordinal) {
        (Writer::Service(_), Some(cause_sequence), Some(epoch), Some(ordinal)) => Some(Decided {
            cause_sequence,
            epoch,
            ordinal,
            decider_version: wire.deciderversion.unwrap_or(0),
        }),
        (Writer::Service(_), ..) => {
            return Err(wrong(
                "not-a-decision",
                "epoch",
                "a decision carries causeseq, epoch and ordinal".to_owned(),
            ));
        }
        _ => None,
    };
    let data = wire
        .data
        .ok_or_else(|| wrong("missing-data", "data", "is missing".to_owned()))?;
    let body = read_body(upcasters, &wire.r#type, data, decided.is_some())?;
    let content = if matches!(body, Body::TaskSubmitted(_)) {
        let digest = Sha256::digest(data.get().as_bytes());
        let mut first = [0u8; 16];
        first.copy_from_slice(&digest[..16]);
        u128::from_be_bytes(first)
    } else {
        0
    };
    let event = Event {
        id: EventId(wire.id),
        source,
        time: wire.time.unwrap_or(time),
        about,
        org: wire.org,
        swarm: wire.swarm,
        correlation: wire.correlationid,
        causation: wire.causationid,
        decided,
        traceparent: wire.traceparent.map(Cow::into_owned),
        body,
    };
    Ok((event, content))
}

fn read_body(
    upcasters: &[Upcaster],
    name: &str,
    data: &RawValue,
    decided: bool,
) -> Result<Body, Unread> {
    let upcasted = upcast(upcasters, name, data.get()).map_err(|e| wrong("bad-data", "data", e))?;
    let raw;
    let (name, data) = match &upcasted {
        None => (name, data),
        Some((name, text)) => {
            raw = RawValue::from_string(text.clone())
                .map_err(|e| wrong("bad-data", "data", e.to_string()))?;
            (&**name, &*raw)
        }
    };
    match Body::parse(name, data) {
        Some(Ok(body)) => Ok(body),
        Some(Err(e)) => {
            let field = Body::wrong_field(name, data).unwrap_or_else(|| "data".to_owned());
            let (newer, problem) = wrong("bad-data", &field, e.to_string());
            Err((newer, problem.cure(format!("send what {name} allows"))))
        }
        // Only what a service decided can come from a newer service; a client's unknown version is its mistake.
        None => Err((
            decided,
            Problem::new("unknown-type", format!("{name} is not known here")).field("type"),
        )),
    }
}

fn check_writer(subject: &Subject, source: &Source) -> Result<(), Unread> {
    let right = match writer(subject) {
        Writer::Service(service) | Writer::Shell(service) => {
            matches!(source, Source::Service(s, _) if *s == service)
        }
        Writer::Agent => {
            matches!((source, subject.agent()), (Source::Agent(a), Some(b)) if *a == b)
        }
        Writer::Host => matches!(source, Source::Host(_)),
        Writer::Client => true,
    };
    if right {
        Ok(())
    } else {
        Err(wrong(
            "wrong-source",
            "source",
            format!("{source} does not write on this subject"),
        ))
    }
}

fn check_place(subject: &Subject, wire: &Wire<'_>) -> Result<(), Unread> {
    if wire.org != subject.org() {
        return Err(wrong(
            "wrong-organization",
            "org",
            "must be the organization that the NATS subject names".to_owned(),
        ));
    }
    if wire.swarm != subject.place().map(|place| place.swarm) {
        return Err(wrong(
            "wrong-swarm",
            "swarm",
            "must be the swarm that the NATS subject names".to_owned(),
        ));
    }
    // A refusal stands where what it refuses stands, in the partition of whoever met it: were it unreadable for being
    // there, it would be refused in turn, for ever.
    if matches!(subject, Subject::Task(_, TaskVerb::Refused, _)) {
        return Ok(());
    }
    match subject.rightful_partition() {
        Some(rightful) if rightful != subject.partition() => Err((
            false,
            Problem::new("wrong-partition", format!("{} is not its partition", subject.partition()))
                .field("partition")
                .cure(format!("publish to partition {rightful}: the first byte of the SHA-256 of the id's bytes, modulo 64")),
        )),
        _ => Ok(()),
    }
}

/// The partition that a message belongs to when it is folded: the one that its subject names.
pub fn partition_of_subject(subject: &str) -> Option<Partition> {
    let mut tokens = subject.split('.').skip(1);
    match tokens.next()? {
        "evt" | "cmd" | "hb" => tokens.next()?.parse().ok(),
        "ctl" => tokens.nth(1)?.parse().ok(),
        _ => None,
    }
}
