//! What each user of the bus may publish and subscribe to, built from the subject module.
//!
//! The server enforces it: a service that is taken over, or simply wrong, cannot write what another decides. What a
//! permission cannot forbid (headers, reply subjects) is why these credentials go to operated components only, and why
//! every event is checked against its subject when it is read.

use uuid::Uuid;

use crate::{
    ids::{AgentId, OrgId, SwarmId},
    read::{Writer, writer},
    subject::{
        AgentVerb, CommandVerb, ControlVerb, OrgVerb, Partition, Place, Recipient, STREAM, Sender,
        Service, Subject, SwarmVerb, TaskVerb,
    },
};

/// Stream of the last heartbeats.
const HEARTBEATS: &str = "swarm_heartbeats";
/// Bucket of the services' presence keys.
const PRESENCE: &str = "swarm_presence";
/// Bucket of large payloads, inputs and results.
const OBJECTS: &str = "swarm_objects";
/// Bucket of snapshots, which agents neither read nor write.
const SNAPSHOTS: &str = "swarm_snapshots";
/// Stream of what agents and people say to each other.
const MESSAGES: &str = "swarm_messages";
/// Bucket of the swarms' blackboards.
const BLACKBOARD: &str = "swarm_blackboard";
/// What people, and other swarms by way of the gateway, say to agents, and what they write on blackboards.
const PEOPLE_SPEAK: [&str; 4] = [
    "swarm.msg.*.*.*.people.>",
    "swarm.msg.*.*.*.abroad.>",
    "$KV.swarm_blackboard.>",
    // The gateways share the consumer of what goes to other swarms, and acknowledge what they have carried there.
    "$JS.ACK.swarm_messages.courier.>",
];

/// The subject of a key of a swarm's blackboard: the keys of the bucket are prefixed by organization and swarm.
pub fn blackboard_key(place: crate::subject::Place, key: &str) -> String {
    format!("$KV.{BLACKBOARD}.{}.{}.{key}", place.org, place.swarm)
}
/// Replies. One prefix for all: what is asked over the bus is the log, which all of these may read.
const INBOX: &str = "_INBOX.>";
/// What the server republishes of the log.
const LIVE: &str = "swarm.live.>";
/// Messages that are published but not stored never reach a stream's consumers: these are core NATS.
const HEARTBEAT_SUBJECTS: &str = "swarm.hb.>";

/// Subjects (wildcards allowed) that a user may publish and subscribe to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Permissions {
    /// May be published to.
    pub publish: Vec<String>,
    /// May be subscribed to.
    pub subscribe: Vec<String>,
    /// It may answer what it is asked, on the reply subject of the request.
    pub responses: bool,
}

/// A user of the bus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// A deciding service.
    Service(Service),
    /// Folds the log into the read models.
    Projector,
    /// Turns requests into commands and submissions.
    Gateway,
    /// A person's command line: everything that clients and agents may write, on any swarm, and reading.
    Operator,
    /// One agent of one swarm.
    Agent(Place, AgentId),
    /// An agent host.
    Host,
}

impl User {
    /// What it may do.
    pub fn permissions(self) -> Permissions {
        let mut publish = match self {
            Self::Service(service) => written_by(
                |writer| matches!(writer, Writer::Service(s) | Writer::Shell(s) if s == service),
            ),
            Self::Projector => Vec::new(),
            Self::Gateway => written_by(|writer| writer == Writer::Client),
            Self::Operator => written_by(|writer| matches!(writer, Writer::Client | Writer::Agent)),
            Self::Agent(place, agent) => agent_writes(place, agent),
            Self::Host => written_by(|writer| writer == Writer::Host),
        };
        match self {
            // Tasks that are handed from one swarm to another, and called off there.
            Self::Service(Service::Distributor) => publish.extend(
                ["swarm.evt.*.*.*.task.submitted", "swarm.cmd.*.*.*.cancel"].map(str::to_owned),
            ),
            // Agents that are started by hand have these rights: they talk, and write on blackboards.
            Self::Operator => {
                publish.extend(["swarm.msg.>", "$KV.swarm_blackboard.>"].map(str::to_owned));
            }
            Self::Agent(place, agent) => {
                publish.push(format!("swarm.msg.{place}.{agent}.>"));
                publish.push(blackboard_key(place, ">"));
            }
            // What they run says, and how it fares.
            Self::Host => publish.extend(["swarm.hb.host.*", "swarm.log.*.*.*"].map(str::to_owned)),
            Self::Gateway => {
                publish.extend(["swarm.callback.>", "swarm.log.*.*.*.tail"].map(str::to_owned));
                publish.extend(PEOPLE_SPEAK.map(str::to_owned));
            }
            _ => {}
        }
        if matches!(self, Self::Agent(..)) {
            publish.extend(stream_reading(STREAM));
            publish.extend(stream_reading(&format!("OBJ_{OBJECTS}")));
            publish.extend(stream_reading(MESSAGES));
            publish.extend(stream_reading(&format!("KV_{BLACKBOARD}")));
            publish.sort();
            publish.dedup();
        } else {
            // Heartbeats, presence and snapshots too: all that there is. Named one by one, the rights would not fit into the
            // line in which a client brings them.
            publish.extend(stream_reading("*"));
        }
        // A single server forgets what it keeps in memory with its definition; whoever notices first makes it anew.
        if matches!(self, Self::Service(_)) {
            for stream in [format!("KV_{PRESENCE}"), HEARTBEATS.to_owned()] {
                publish.push(format!("$JS.API.STREAM.CREATE.{stream}"));
            }
        }
        // One's own only: who is not there must not be announced by another.
        publish.extend(self.presence().map(|own| format!("$KV.{PRESENCE}.{own}.>")));
        // Snapshots, and inputs that are too large for their event.
        if matches!(self, Self::Service(_) | Self::Projector | Self::Gateway) {
            publish.extend([OBJECTS, SNAPSHOTS].into_iter().flat_map(object_writing));
        }
        // A result that is too large for its event.
        if matches!(self, Self::Agent(..) | Self::Operator) {
            publish.push(format!("$O.{OBJECTS}.>"));
        }
        let mut subscribe = vec![INBOX.to_owned()];
        match self {
            Self::Agent(place, agent) => {
                subscribe.extend(crate::subject::filter::agent(place, agent, true));
                subscribe.push(crate::subject::callback(place, agent));
                subscribe.push(crate::subject::filter::settings(place));
                subscribe.extend(crate::subject::filter::shape(place, true));
                subscribe.extend(crate::subject::filter::messages(place, agent, true));
                // What becomes of its swarm's agents, itself among them, and what they ask: one right for all of it, as the
                // rights of an agent must be short.
                let agents = format!("swarm.live.evt.{place}.agent.");
                subscribe.retain(|subject| !subject.starts_with(&agents));
                subscribe.push(format!("{agents}*.*"));
            }
            Self::Host => subscribe.extend([LIVE.to_owned(), "swarm.log.*.*.*.tail".to_owned()]),
            Self::Gateway => subscribe.extend([
                LIVE.to_owned(),
                HEARTBEAT_SUBJECTS.to_owned(),
                "swarm.log.>".to_owned(),
            ]),
            _ => subscribe.extend([LIVE.to_owned(), HEARTBEAT_SUBJECTS.to_owned()]),
        }
        Permissions {
            publish,
            subscribe,
            responses: matches!(self, Self::Host | Self::Agent(..)),
        }
    }

    /// First token of its presence keys, `None` if it has none.
    pub fn presence(self) -> Option<String> {
        match self {
            Self::Service(service) => Some(service.to_string()),
            Self::Projector => Some("projector".to_owned()),
            Self::Gateway => Some("gateway".to_owned()),
            Self::Operator | Self::Agent(..) | Self::Host => None,
        }
    }
}

/// Ids that stand for "any" until they are replaced by wildcards.
const ANY: Uuid = Uuid::nil();

/// The subjects whose writer is one of those that `wanted` names, on every partition, organization and swarm.
fn written_by(wanted: impl Fn(Writer) -> bool) -> Vec<String> {
    let place = Place::new(OrgId(ANY), SwarmId(ANY));
    let mut subjects: Vec<String> = every(place, AgentId(ANY))
        .filter(|subject| wanted(writer(subject)))
        .map(|subject| wildcards(&subject))
        .collect();
    subjects.sort();
    subjects.dedup();
    subjects
}

/// What one agent writes: its own task events and heartbeats, and its own joining and leaving.
fn agent_writes(place: Place, agent: AgentId) -> Vec<String> {
    every(place, agent)
        .filter(|subject| match subject {
            Subject::Command(_, verb) => matches!(
                verb,
                CommandVerb::Join
                    | CommandVerb::Leave
                    | CommandVerb::UpdateAgent
                    | CommandVerb::Ask
                    | CommandVerb::Answer
            ),
            other => writer(other) == Writer::Agent,
        })
        .map(|subject| subject.to_string())
        .collect()
}

/// Every kind of subject, for one place and agent.
fn every(place: Place, agent: AgentId) -> impl Iterator<Item = Subject> {
    let (p, org) = (place.partition, place.org);
    let swarm = SwarmVerb::ALL
        .iter()
        .map(move |verb| Subject::Swarm(place, *verb));
    let agents = AgentVerb::ALL
        .iter()
        .map(move |verb| Subject::Agent(place, *verb, agent));
    let tasks = TaskVerb::ALL
        .iter()
        .map(move |verb| Subject::Task(place, *verb, verb.names_agent().then_some(agent)));
    let orgs = OrgVerb::ALL
        .iter()
        .map(move |verb| Subject::Org(p, org, *verb));
    let commands = CommandVerb::ALL.iter().map(move |verb| {
        if verb.of_org() {
            Subject::OrgCommand(p, org, *verb)
        } else {
            Subject::Command(place, *verb)
        }
    });
    let control = Service::ALL.iter().flat_map(move |service| {
        ControlVerb::ALL
            .iter()
            .map(move |verb| Subject::Control(*service, p, *verb))
    });
    swarm
        .chain(agents)
        .chain(tasks)
        .chain(orgs)
        .chain(commands)
        .chain(control)
        .chain([
            Subject::Heartbeat(place, agent),
            Subject::Message(place, Sender::Agent(agent), Recipient::All),
            Subject::Message(place, Sender::People, Recipient::All),
        ])
}

/// A subject with wildcards for its partition and ids.
fn wildcards(subject: &Subject) -> String {
    let any = |token: &str| token.parse::<Partition>().is_ok() || Uuid::parse_str(token).is_ok();
    subject
        .to_string()
        .split('.')
        .map(|token| if any(token) { "*" } else { token })
        .collect::<Vec<_>>()
        .join(".")
}

/// The parts of JetStream's API that reading a stream takes: its state, single messages, short-lived consumers.
fn stream_reading(stream: &str) -> Vec<String> {
    // Of one stream: to make, look at and delete its consumers, in one line, as an agent's rights must be short.
    let consumers = if stream == "*" {
        vec![
            format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
            format!("$JS.API.CONSUMER.INFO.{stream}.*"),
            format!("$JS.API.CONSUMER.DELETE.{stream}.*"),
        ]
    } else {
        vec![format!("$JS.API.CONSUMER.*.{stream}.>")]
    };
    let mut subjects = vec![
        "$JS.API.INFO".to_owned(),
        format!("$JS.API.STREAM.INFO.{stream}"),
        format!("$JS.API.STREAM.MSG.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}"),
        format!("$JS.API.DIRECT.GET.{stream}.>"),
        format!("$JS.API.CONSUMER.CREATE.{stream}"),
        format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.*"),
        format!("$JS.FC.{stream}.>"),
    ];
    subjects.extend(consumers);
    subjects
}

/// Replacing or deleting an object purges its old chunks.
fn object_writing(bucket: &str) -> Vec<String> {
    vec![
        format!("$O.{bucket}.>"),
        format!("$JS.API.STREAM.PURGE.OBJ_{bucket}"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    const SERVICES: [Service; 3] = [Service::Coordinator, Service::Distributor, Service::Health];

    fn covers(filter: &str, subject: &str) -> bool {
        let (mut f, mut s) = (filter.split('.'), subject.split('.'));
        loop {
            match (f.next(), s.next()) {
                (Some(">"), Some(_)) => return true,
                (Some("*"), Some(_)) => {}
                (Some(a), Some(b)) if a == b => {}
                (None, None) => return true,
                _ => return false,
            }
        }
    }

    fn may_publish(user: User, subject: &Subject) -> bool {
        let text = subject.to_string();
        user.permissions().publish.iter().any(|f| covers(f, &text))
    }

    fn somewhere(number: u128) -> Place {
        Place::new(OrgId(Uuid::from_u128(7)), SwarmId(Uuid::from_u128(number)))
    }

    #[test]
    fn a_service_may_write_exactly_what_it_decides() {
        let place = somewhere(1);
        for subject in every(place, AgentId(Uuid::from_u128(3))) {
            for service in SERVICES {
                let rightful = matches!(
                    writer(&subject),
                    Writer::Service(s) | Writer::Shell(s) if s == service
                ) || (service == Service::Distributor
                    && matches!(
                        subject,
                        Subject::Task(_, TaskVerb::Submitted, _)
                            | Subject::Command(_, CommandVerb::Cancel)
                    ));
                assert_eq!(
                    may_publish(User::Service(service), &subject),
                    rightful,
                    "{service} on {subject}"
                );
            }
            let client = writer(&subject) == Writer::Client;
            assert_eq!(may_publish(User::Gateway, &subject), client, "{subject}");
            assert!(!may_publish(User::Projector, &subject), "{subject}");
            let host = writer(&subject) == Writer::Host;
            assert_eq!(may_publish(User::Host, &subject), host, "{subject}");
        }
    }

    #[test]
    fn an_agent_speaks_as_itself_only() {
        let (here, there) = (somewhere(1), somewhere(2));
        let (me, other) = (AgentId(Uuid::from_u128(3)), AgentId(Uuid::from_u128(4)));
        let user = User::Agent(here, me);
        assert!(may_publish(
            user,
            &Subject::Task(here, TaskVerb::Started, Some(me))
        ));
        assert!(may_publish(
            user,
            &Subject::Command(here, CommandVerb::Join)
        ));
        assert!(may_publish(user, &Subject::Heartbeat(here, me)));
        for subject in [
            Subject::Task(here, TaskVerb::Started, Some(other)),
            Subject::Task(there, TaskVerb::Started, Some(me)),
            Subject::Task(here, TaskVerb::Assigned, Some(me)),
            Subject::Task(here, TaskVerb::Submitted, None),
            Subject::Command(here, CommandVerb::Delete),
            Subject::Command(there, CommandVerb::Join),
        ] {
            assert!(!may_publish(user, &subject), "{subject}");
        }
    }

    #[test]
    fn agents_have_nothing_to_do_with_snapshots() {
        let agent = User::Agent(somewhere(1), AgentId(Uuid::from_u128(3)));
        let named = |user: User| {
            let Permissions {
                publish, subscribe, ..
            } = user.permissions();
            let all = publish.into_iter().chain(subscribe);
            all.filter(|subject| subject.contains(SNAPSHOTS) || subject.starts_with("$O.>"))
                .count()
        };
        assert_eq!(named(agent), 0);
        assert_ne!(named(User::Gateway), 0);
        let publish = agent.permissions().publish;
        assert!(
            !publish
                .iter()
                .any(|f| covers(f, "$JS.API.STREAM.INFO.OBJ_swarm_snapshots"))
        );
    }

    #[test]
    fn rights_fit_into_the_line_that_brings_them() {
        // Our configurations of nats-server say `max_control_line: 8KB`: it holds the token, in which three bytes take four,
        // its signature and the options of the client.
        const RIGHTS_BYTES_MAX: usize = 5_200;
        for user in SERVICES.map(User::Service).into_iter().chain([
            User::Projector,
            User::Gateway,
            User::Operator,
            User::Host,
            User::Agent(somewhere(1), AgentId(Uuid::from_u128(3))),
        ]) {
            let Permissions {
                publish, subscribe, ..
            } = user.permissions();
            let bytes: usize = publish.iter().chain(&subscribe).map(|s| s.len() + 3).sum();
            assert!(bytes <= RIGHTS_BYTES_MAX, "{user:?}: {bytes}");
        }
    }

    #[test]
    fn presence_is_announced_by_oneself_alone() {
        let users = SERVICES.map(User::Service).into_iter().chain([
            User::Projector,
            User::Gateway,
            User::Operator,
            User::Host,
            User::Agent(somewhere(1), AgentId(Uuid::from_u128(3))),
        ]);
        for user in users {
            let publish = user.permissions().publish;
            let may = |subject: &str| publish.iter().any(|f| covers(f, subject));
            for name in [
                "coordinator",
                "distributor",
                "health",
                "projector",
                "gateway",
            ] {
                assert_eq!(
                    may(&format!("$KV.swarm_presence.{name}.0190")),
                    user.presence().as_deref() == Some(name),
                    "{user:?} as {name}"
                );
            }
            assert!(!may("$KV.swarm_presence.>"), "{user:?}");
            // Everybody but agents follows who is there.
            assert_eq!(
                may("$JS.API.CONSUMER.CREATE.KV_swarm_presence.x.$KV.swarm_presence.>"),
                !matches!(user, User::Agent(..)),
                "{user:?}"
            );
        }
    }

    #[test]
    fn nobody_may_publish_what_only_the_server_republishes() {
        let users = SERVICES.map(User::Service).into_iter().chain([
            User::Projector,
            User::Gateway,
            User::Operator,
            User::Host,
        ]);
        for user in users {
            let publish = user.permissions().publish;
            assert!(
                !publish
                    .iter()
                    .any(|f| covers(f, "swarm.live.evt.x") || f.starts_with("swarm.live")),
                "{user:?}"
            );
        }
    }
}
