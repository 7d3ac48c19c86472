//! What the tests of the coordinator's rules share.
#![allow(dead_code, reason = "each test file uses its part")]

pub mod hosts;
pub mod topologies;

use std::sync::LazyLock;

use swarm_coordinator_core::{Agent, Coordinator, Swarm};
use swarm_events::{
    AgentId, Body, Event, InstanceId, Json, KeyId, OrgId, Partition, Place, Problem, Subject,
    SwarmId, UserId,
    agent::{Evidence, Failed, LivenessRule, Suspected},
    command::{Create, CreateOrg, Delete, Join, Leave, RemoveAgent, Update},
    subject::{AgentVerb, CommandVerb, Service, SwarmVerb},
    swarm::Measured,
    testing::World,
};
use uuid::Uuid;

pub const P: Partition = match Partition::new(7) {
    Some(p) => p,
    None => panic!("7 is a partition"),
};

/// The `n`th id (from 1 to 300) that falls into the partition of the tests.
pub fn id_here(n: usize) -> Uuid {
    static IDS: LazyLock<Vec<Uuid>> = LazyLock::new(|| {
        let all = (1u128..).map(Uuid::from_u128);
        all.filter(|id| Partition::of(*id) == P).take(300).collect()
    });
    IDS[n - 1]
}

pub fn org() -> OrgId {
    OrgId(id_here(100))
}
pub fn user() -> UserId {
    UserId(Uuid::from_u128(900))
}
pub fn place(n: usize) -> Place {
    Place::new(org(), SwarmId(id_here(n)))
}
pub fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(0xa000 + n))
}
pub fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0x1000 + n))
}
pub fn sha(n: u8) -> String {
    format!("{n:02x}").repeat(32)
}

pub fn create_org() -> CreateOrg {
    CreateOrg {
        name: "Acme".into(),
        user_id: user(),
        user_name: "Ada".into(),
        key_id: KeyId(Uuid::from_u128(901)),
        key_sha256: sha(1),
    }
}
pub fn create(name: &str) -> Create {
    Create {
        topology_configuration: swarm_events::Json::object(),
        name: name.into(),
        description: None,
        topology: None,
        configuration: Json::object(),
        created_by: Some(user()),
        body_sha256: None,
    }
}
pub fn join(n: u128, name: Option<&str>) -> Join {
    Join {
        instance: instance(n),
        agent_type: "exec".into(),
        agent_name: name.map(Into::into),
        capabilities: vec!["b".into(), "a".into(), "b".into()],
        slots: None,
        waiting: None,
        metadata: Json::object(),
        spawn: None,
    }
}

/// A world and the shorthand of the tests.
pub struct Given(pub World<Coordinator>);

impl Given {
    pub fn nothing() -> Self {
        Self(World::new(P))
    }
    pub fn an_organization() -> Self {
        let mut given = Self::nothing();
        given.org_command(CommandVerb::CreateOrg, create_org());
        given
    }
    /// An organization and swarm 1 with this configuration.
    pub fn a_swarm(configuration: &str) -> Self {
        let mut given = Self::an_organization();
        let mut order = create("s1");
        order.configuration = Json::parse(configuration).expect("JSON");
        given.command(1, CommandVerb::Create, order);
        given
    }

    pub fn org_command(&mut self, verb: CommandVerb, body: impl Into<Body>) -> Uuid {
        let subject = Subject::OrgCommand(P, org(), verb);
        let id = self.0.client(subject, org().0, body);
        self.settle();
        id
    }
    pub fn send(
        &mut self,
        n: usize,
        verb: CommandVerb,
        about: Uuid,
        body: impl Into<Body>,
    ) -> Uuid {
        self.0.client(Subject::Command(place(n), verb), about, body)
    }
    pub fn command(&mut self, n: usize, verb: CommandVerb, body: impl Into<Body>) -> Uuid {
        let id = self.send(n, verb, place(n).swarm.0, body);
        self.settle();
        id
    }
    pub fn update(&mut self, n: usize, patch: &str) -> Uuid {
        let patch = Json::parse(patch).expect("JSON");
        self.command(n, CommandVerb::Update, Update { patch })
    }
    pub fn delete(&mut self, n: usize) -> Uuid {
        self.command(n, CommandVerb::Delete, Delete {})
    }
    pub fn join(&mut self, a: u128, order: Join) -> Uuid {
        let id = self.send(1, CommandVerb::Join, agent(a).0, order);
        self.settle();
        id
    }
    pub fn leave(&mut self, a: u128, incarnation: u64) -> Uuid {
        let order = Leave {
            incarnation,
            reason: None,
        };
        let id = self.send(1, CommandVerb::Leave, agent(a).0, order);
        self.settle();
        id
    }
    pub fn remove(&mut self, a: u128) -> Uuid {
        let order = RemoveAgent {
            reason: None,
            force: true,
            grace_ms: None,
        };
        let id = self.send(1, CommandVerb::RemoveAgent, agent(a).0, order);
        self.settle();
        id
    }

    /// Health's verdict `failed`, after a claim of its own.
    pub fn failed(&mut self, a: u128, incarnation: u64) {
        let failed = Failed {
            incarnation,
            evidence: evidence(4_100, 4_000),
        };
        self.health(a, AgentVerb::Failed, failed);
    }
    pub fn suspected(&mut self, a: u128, incarnation: u64) {
        let suspected = Suspected {
            incarnation,
            evidence: evidence(2_600, 2_500),
        };
        self.health(a, AgentVerb::Suspected, suspected);
    }
    pub fn health(&mut self, a: u128, verb: AgentVerb, body: impl Into<Body>) {
        let epoch = self.0.claim_of(Service::Health);
        let subject = Subject::Agent(place(1), verb, agent(a));
        self.0
            .other(Service::Health, subject, agent(a).0, body, epoch, 1);
        self.settle();
    }
    /// The distributor's figures, with this many open tasks.
    pub fn measured(&mut self, queued: u64) {
        let measured = Measured {
            queued,
            ..Measured::default()
        };
        let epoch = self.0.claim_of(Service::Distributor);
        let subject = Subject::Swarm(place(1), SwarmVerb::Measured);
        let about = place(1).swarm.0;
        self.0
            .other(Service::Distributor, subject, about, measured, epoch, 1);
        self.settle();
    }

    pub fn swarm(&self, n: usize) -> &Swarm {
        let found = self.0.state.swarm(org(), place(n).swarm);
        found.unwrap_or_else(|| panic!("there is no swarm {n}"))
    }
    pub fn agent(&self, a: u128) -> &Agent {
        &self.swarm(1).agents[&agent(a)]
    }
    /// The one answer to a command, which must be a refusal: its problem.
    pub fn refusal(&self, id: Uuid) -> Problem {
        let answer = self.0.answer(id);
        match answer.body {
            Body::SwarmRefused(refused) => {
                assert_eq!(refused.command_id.map(|c| c.0), Some(id));
                refused.problem
            }
            Body::OrgRefused(refused) => {
                assert_eq!(refused.command_id.map(|c| c.0), Some(id));
                refused.problem
            }
            other => panic!("not refused: {other:?}"),
        }
    }
    /// Code and field of the refusal of a command.
    pub fn refused(&self, id: Uuid) -> (String, String) {
        let problem = self.refusal(id);
        (problem.code, problem.field.unwrap_or_default())
    }
    /// The CloudEvents type of the one answer to a command.
    pub fn answered_by(&self, id: Uuid) -> &'static str {
        self.0.answer(id).body.type_name()
    }
    pub fn last_events(&self, count: usize) -> Vec<Event> {
        let all: Vec<Event> = self
            .0
            .inputs()
            .filter_map(|input| match input {
                swarm_events::Input::Event(recorded) => Some(recorded.event),
                swarm_events::Input::Unreadable(_) => None,
            })
            .collect();
        all[all.len().saturating_sub(count)..].to_vec()
    }
}

pub fn evidence(age_ms: u64, limit_ms: u64) -> Evidence {
    Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms,
        limit_ms,
    }
}

pub fn pair(code: &str, field: &str) -> (String, String) {
    (code.to_owned(), field.to_owned())
}
