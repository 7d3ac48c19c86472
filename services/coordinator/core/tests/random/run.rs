//! A history under way: each step as the messages that it stores.

use swarm_coordinator_core::Coordinator;
use swarm_events::{
    Body, CommandId, Json, KeyId, Subject,
    agent::Restart,
    command::{
        AddAgent, ChangeTopology, CreateKey, Delete, DeleteTemplate, Leave, RemoveAgent,
        RestartAgent, RevokeKey, SaveTemplate, Scale, Update, UpdateAgent, UpdateOrg,
    },
    decider::Verdict,
    message::{Answer, Answerer, Ask},
    org::Role,
    subject::{CommandVerb, Service, SwarmVerb},
    swarm::Measured,
    testing::World,
};
use uuid::Uuid;

use crate::{
    step::{Step, TOPOLOGIES},
    support::{
        self, Given, P, agent, create,
        hosts::{slot, spec},
        join, place, sha, user,
    },
};

/// Who has written what so far.
pub struct Run {
    pub given: Given,
    pub commands: Vec<Uuid>,
    asked: Vec<Uuid>,
    pub health: (u64, u64),
    distributor: (u64, u64),
}

impl Run {
    pub fn new() -> Self {
        let mut given = Given::nothing();
        let health = given.0.claim_of(Service::Health);
        let distributor = given.0.claim_of(Service::Distributor);
        Self {
            given,
            commands: Vec::new(),
            asked: Vec::new(),
            health: (health, 0),
            distributor: (distributor, 0),
        }
    }

    fn world(&mut self) -> &mut World<Coordinator> {
        &mut self.given.0
    }

    pub fn take(&mut self, step: &Step) {
        match *step {
            Step::CreateOrg => {
                let subject = Subject::OrgCommand(P, support::org(), CommandVerb::CreateOrg);
                let id = self
                    .world()
                    .client(subject, support::org().0, support::create_org());
                self.commands.push(id);
            }
            Step::UpdateOrg(n) => {
                let limit = if n == 3 {
                    "null".to_owned()
                } else {
                    n.to_string()
                };
                let patch = format!(r#"{{"name": "org{n}", "queue_limit": {limit}}}"#);
                let patch = Json::parse(&patch).expect("JSON");
                let subject = Subject::OrgCommand(P, support::org(), CommandVerb::UpdateOrg);
                let id = self
                    .world()
                    .client(subject, support::org().0, UpdateOrg { patch });
                self.commands.push(id);
            }
            Step::Key(n, revoke) => {
                let key_id = KeyId(Uuid::from_u128(950 + u128::from(n)));
                let verb = if revoke {
                    CommandVerb::RevokeKey
                } else {
                    CommandVerb::CreateKey
                };
                let subject = Subject::OrgCommand(P, support::org(), verb);
                let id = if revoke {
                    self.world().client(subject, key_id.0, RevokeKey { key_id })
                } else {
                    let order = CreateKey {
                        key_id,
                        user_id: user(),
                        name: "k".into(),
                        role: Role::User,
                        sha256: sha(n),
                    };
                    self.world().client(subject, key_id.0, order)
                };
                self.commands.push(id);
            }
            Step::Create(s, n) => {
                let mut order = create(&format!("n{n}"));
                let mode = if n == 2 { "apply" } else { "off" };
                let text = format!(
                    r#"{{"max_agents": 3, "adaptation": {{"mode": "{mode}", "sustain_ms": 1000, "cooldown_ms": 2000}}}}"#
                );
                order.configuration = Json::parse(&text).expect("JSON");
                let id = self
                    .given
                    .send(s, CommandVerb::Create, place(s).swarm.0, order);
                self.commands.push(id);
            }
            Step::Update(s, n) => {
                let after = u64::from(n) * 900;
                let text = format!(
                    r#"{{"name": "n{n}", "configuration": {{"min_agents": {n}, "health": {{"remove_after_ms": {after}}}}}}}"#
                );
                let patch = Json::parse(&text).expect("JSON");
                let about = place(s).swarm.0;
                let id = self
                    .given
                    .send(s, CommandVerb::Update, about, Update { patch });
                self.commands.push(id);
            }
            Step::Delete(s) => {
                let id = self
                    .given
                    .send(s, CommandVerb::Delete, place(s).swarm.0, Delete {});
                self.commands.push(id);
            }
            Step::Join(s, a, i, n) => {
                let name = (n > 0).then(|| format!("a{n}"));
                let mut order = join(i, name.as_deref());
                // That of the current process, where there is one.
                order.spawn = self
                    .given
                    .0
                    .state
                    .swarm(support::org(), place(s).swarm)
                    .and_then(|swarm| swarm.agents.get(&agent(a))?.managed.as_ref())
                    .filter(|managed| managed.has_adapter() && n < 3)
                    .map(|managed| managed.spawn);
                let id = self.given.send(s, CommandVerb::Join, agent(a).0, order);
                self.commands.push(id);
            }
            Step::Leave(s, a, incarnation) => {
                let order = Leave {
                    incarnation,
                    reason: None,
                };
                let id = self.given.send(s, CommandVerb::Leave, agent(a).0, order);
                self.commands.push(id);
            }
            Step::Remove(s, a, force) => {
                let order = RemoveAgent {
                    reason: None,
                    force,
                    grace_ms: (!force).then_some(700),
                };
                self.order(s, CommandVerb::RemoveAgent, a, order);
            }
            Step::Add(s, a, n) => {
                let mut spec = if n == 0 { slot("exec") } else { spec("exec") };
                spec.agent_name = (n < 3).then(|| format!("a{n}"));
                if n > 0 {
                    spec.restart.crash_limit = 2;
                    spec.restart.restart = match n {
                        4 => Restart::OnFailure,
                        5 => Restart::Never,
                        _ => Restart::Always,
                    };
                }
                let order = AddAgent {
                    spec,
                    body_sha256: None,
                };
                self.order(s, CommandVerb::AddAgent, a, order);
            }
            Step::Restart(s, a, force) => {
                let order = RestartAgent {
                    reason: None,
                    force,
                    grace_ms: (!force).then_some(700),
                };
                self.order(s, CommandVerb::RestartAgent, a, order);
            }
            Step::Change(s, a, n) => {
                let patch = format!(r#"{{"agent_name": "a{n}", "slots": {}}}"#, n + 1);
                let order = UpdateAgent {
                    incarnation: (n == 3).then_some(1),
                    patch: Json::parse(&patch).expect("JSON"),
                };
                self.order(s, CommandVerb::UpdateAgent, a, order);
            }
            Step::Scale(s, delta) => {
                let order = Scale {
                    desired: None,
                    delta: Some(delta),
                    agent_type: (delta == 2).then(|| "exec".into()),
                    reason: None,
                };
                let about = place(s).swarm.0;
                let id = self.given.send(s, CommandVerb::Scale, about, order);
                self.commands.push(id);
            }
            Step::Host(s, a, spawn, what, h) => self.host(s, a, spawn, what, h),
            Step::Judge(s, a, incarnation, verdict) => self.judge(s, a, incarnation, verdict),
            Step::Measured(s, queued) => {
                let measured = Measured {
                    queued,
                    pending: queued * 40,
                    ..Measured::default()
                };
                self.distributor.1 += 1;
                let (epoch, ordinal) = self.distributor;
                let subject = Subject::Swarm(place(s), SwarmVerb::Measured);
                self.world().other(
                    Service::Distributor,
                    subject,
                    place(s).swarm.0,
                    measured,
                    epoch,
                    ordinal,
                );
            }
            Step::Topology(s, n) => {
                let (topology, options) = TOPOLOGIES[usize::from(n)];
                let order = ChangeTopology {
                    topology,
                    configuration: Json::parse(options).expect("JSON"),
                    reason: None,
                };
                let about = place(s).swarm.0;
                let id = self
                    .given
                    .send(s, CommandVerb::ChangeTopology, about, order);
                self.commands.push(id);
            }
            Step::Ask(s, a, incarnation, n) => {
                let order = Ask {
                    incarnation,
                    assignment: None,
                    answerer: if n == 1 {
                        Answerer::Leader
                    } else {
                        Answerer::Anybody
                    },
                    question: "well?".into(),
                    choices: Vec::new(),
                    default: (n == 2).then(|| Json::parse("1").expect("JSON")),
                    timeout_ms: u64::from(n) * 1_500,
                };
                let id = self.given.send(s, CommandVerb::Ask, agent(a).0, order);
                self.asked.push(id);
                self.commands.push(id);
            }
            Step::Answer(s, n, by) => {
                let last = self.asked.len().checked_sub(1 + usize::from(n));
                let question = last.map_or(Uuid::from_u128(1), |at| self.asked[at]);
                let order = Answer {
                    question_id: CommandId(question),
                    answer: Json::parse("2").expect("JSON"),
                    user_id: None,
                    agent: (by > 0).then(|| (agent(by), 1)),
                };
                let about = place(s).swarm.0;
                let id = self.given.send(s, CommandVerb::Answer, about, order);
                self.commands.push(id);
            }
            Step::Template(n, delete) => {
                let name = format!("t{n}");
                let (topology, options) = TOPOLOGIES[usize::from(n)];
                let (verb, body): (_, Body) = if delete {
                    (CommandVerb::DeleteTemplate, DeleteTemplate { name }.into())
                } else {
                    let order = SaveTemplate {
                        name,
                        description: None,
                        best_for: None,
                        topology,
                        configuration: Json::parse(options).expect("JSON"),
                    };
                    (CommandVerb::SaveTemplate, order.into())
                };
                let subject = Subject::OrgCommand(P, support::org(), verb);
                let id = self.world().client(subject, support::org().0, body);
                self.commands.push(id);
            }
            Step::Garbage(s) => {
                let subject = Subject::Command(place(s), CommandVerb::Join).to_string();
                self.world().store(&subject, b"{}".to_vec());
            }
            Step::Repeat(n) => {
                if let Some(id) = self.commands.get(n % self.commands.len().max(1)).copied() {
                    let subject = Subject::Command(place(1), CommandVerb::Delete);
                    let verdict = self
                        .world()
                        .client_as(id, subject, place(1).swarm.0, Delete {});
                    assert_eq!(verdict, Verdict::Void("repeated-command"));
                }
            }
            Step::Decide(limit) => {
                self.world().decide(limit);
            }
            Step::DecideTwice => {
                let outcome = self.world().decide_twice(4);
                if let Err(difference) = outcome {
                    panic!("a plan made anew decides otherwise: {difference}");
                }
            }
            Step::Deliver(count) => {
                for _ in 0..count {
                    // Decided on facts alone: what is stored in the order of its decision is never void here, unless a
                    // host's word came between by which the agent is not to run any more.
                    let not_wanted = ["not-wanted", "not-ended", "not-a-member"];
                    if let Some(Verdict::Void(why)) = self.world().deliver()
                        && !not_wanted.contains(&why)
                    {
                        panic!("an own decision is void: {why}");
                    }
                }
            }
            Step::Claim => self.world().claim(),
            Step::Later(millis) => {
                let now = self.world().now;
                self.world().now = now.plus_millis(millis);
            }
        }
    }

    fn order(&mut self, s: usize, verb: CommandVerb, a: u128, body: impl Into<Body>) {
        let id = self.given.send(s, verb, agent(a).0, body);
        self.commands.push(id);
    }
}
