//! Random histories: commands, other services' events, garbage, decisions that are stored late, in part or never, and new
//! claims at any point. The rules that must hold in every one of them.

mod support;

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use support::{
    Given, P, agent, create,
    hosts::{code, exited, figures, host, slot, spec},
    join, place, sha, user,
};
use swarm_coordinator_core::{Coordinator, Lifecycle, Membership, Swarm};
use swarm_events::{
    Body, CommandId, Event, EventId, Json, KeyId, Place, Problem, Subject,
    agent::{
        Cause, Failed, HostFailed, Launched, LimitedBy, Quarantined, Recovered, Released, Restart,
        SpawnClaimed, SpawnDeclined, Suspected,
    },
    command::{
        AddAgent, ChangeTopology, CreateKey, Delete, DeleteTemplate, Leave, RemoveAgent,
        RestartAgent, RevokeKey, SaveTemplate, Scale, Update, UpdateAgent, UpdateOrg,
    },
    configuration::TopologyKind,
    decider::{Decider, Verdict},
    envelope::Source,
    message::{Answer, Answerer, Ask},
    org::Role,
    subject::{AgentVerb, CommandVerb, Service, SwarmVerb},
    swarm::Measured,
    testing::World,
};
use uuid::Uuid;

#[derive(Clone, Debug)]
enum Step {
    CreateOrg,
    UpdateOrg(u8),
    Key(u8, bool),
    Create(usize, u8),
    Update(usize, u8),
    Delete(usize),
    Join(usize, u128, u128, u8),
    Leave(usize, u128, u64),
    Remove(usize, u128, bool),
    Add(usize, u128, u8),
    Restart(usize, u128, bool),
    Change(usize, u128, u8),
    Scale(usize, i64),
    Host(usize, u128, u64, u8, u128),
    Judge(usize, u128, u64, u8),
    Measured(usize, u64),
    Topology(usize, u8),
    Ask(usize, u128, u64, u8),
    Answer(usize, u8, u128),
    Template(u8, bool),
    Garbage(usize),
    Repeat(usize),
    Decide(usize),
    DecideTwice,
    Deliver(usize),
    Claim,
    Later(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let swarm = 1usize..4;
    let agents = 1u128..5;
    prop_oneof![
        1 => Just(Step::CreateOrg),
        1 => (0u8..4).prop_map(Step::UpdateOrg),
        1 => (2u8..5, any::<bool>()).prop_map(|(n, revoke)| Step::Key(n, revoke)),
        3 => (swarm.clone(), 0u8..3).prop_map(|(s, n)| Step::Create(s, n)),
        2 => (swarm.clone(), 0u8..3).prop_map(|(s, n)| Step::Update(s, n)),
        1 => swarm.clone().prop_map(Step::Delete),
        6 => (swarm.clone(), agents.clone(), 1u128..9, 0u8..4)
            .prop_map(|(s, a, i, n)| Step::Join(s, a, i, n)),
        2 => (swarm.clone(), agents.clone(), 1u64..4).prop_map(|(s, a, i)| Step::Leave(s, a, i)),
        2 => (swarm.clone(), agents.clone(), any::<bool>()).prop_map(|(s, a, f)| Step::Remove(s, a, f)),
        4 => (swarm.clone(), agents.clone(), 0u8..6).prop_map(|(s, a, n)| Step::Add(s, a, n)),
        2 => (swarm.clone(), agents.clone(), any::<bool>()).prop_map(|(s, a, f)| Step::Restart(s, a, f)),
        1 => (swarm.clone(), agents.clone(), 0u8..4).prop_map(|(s, a, n)| Step::Change(s, a, n)),
        2 => (swarm.clone(), -2i64..3).prop_map(|(s, n)| Step::Scale(s, n)),
        10 => (swarm.clone(), agents.clone(), 1u64..4, 0u8..6, 1u128..3)
            .prop_map(|(s, a, n, v, h)| Step::Host(s, a, n, v, h)),
        6 => (swarm.clone(), agents, 1u64..4, 0u8..6).prop_map(|(s, a, i, v)| Step::Judge(s, a, i, v)),
        2 => (swarm.clone(), 0u64..2).prop_map(|(s, open)| Step::Measured(s, open)),
        5 => (swarm.clone(), 0u8..7).prop_map(|(s, n)| Step::Topology(s, n)),
        3 => (swarm.clone(), 1u128..5, 1u64..4, 0u8..4).prop_map(|(s, a, i, n)| Step::Ask(s, a, i, n)),
        3 => (swarm.clone(), 0u8..3, 0u128..5).prop_map(|(s, n, by)| Step::Answer(s, n, by)),
        1 => (0u8..3, any::<bool>()).prop_map(|(n, delete)| Step::Template(n, delete)),
        1 => swarm.prop_map(Step::Garbage),
        1 => (0usize..100).prop_map(Step::Repeat),
        8 => (1usize..6).prop_map(Step::Decide),
        8 => (1usize..6).prop_map(Step::Deliver),
        4 => Just(Step::DecideTwice),
        2 => Just(Step::Claim),
        2 => (1u64..3_000).prop_map(Step::Later),
    ]
}

/// Topologies that three agents can have, and one that cannot be.
const TOPOLOGIES: [(TopologyKind, &str); 7] = [
    (TopologyKind::Star, "{}"),
    (
        TopologyKind::Mesh,
        r#"{"connection_strategy": "nearest", "neighbours": 2}"#,
    ),
    (
        TopologyKind::Hierarchical,
        r#"{"levels": [{"role": "coordinator", "count": 1}, {"role": "worker", "count": 1}],
            "parent_child_ratio": 2}"#,
    ),
    (TopologyKind::Ring, "{}"),
    (TopologyKind::Star, r#"{"failover_coordinator": false}"#),
    (TopologyKind::Star, r#"{"workers": ["a1"]}"#),
    (TopologyKind::Hierarchical, r#"{"parent_child_ratio": 0}"#),
];

struct Run {
    given: Given,
    commands: Vec<Uuid>,
    asked: Vec<Uuid>,
    health: (u64, u64),
    distributor: (u64, u64),
}

impl Run {
    fn new() -> Self {
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

    fn take(&mut self, step: &Step) {
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

    /// What a host says of the agent's current request, or of that number.
    fn host(&mut self, s: usize, a: u128, number: u64, what: u8, h: u128) {
        let current = self.given.0.state.swarm(support::org(), place(s).swarm);
        let current = current.and_then(|swarm| swarm.agents.get(&agent(a))?.managed.as_ref());
        let spawn = current.map_or(number, |managed| {
            (managed.spawn + 1).saturating_sub(number.min(2))
        });
        let (verb, body): (_, Body) = match what {
            0 | 1 => {
                let claimed = SpawnClaimed {
                    spawn,
                    host: host(h),
                };
                (AgentVerb::SpawnClaimed, claimed.into())
            }
            2 => {
                let launched = Launched {
                    spawn,
                    host: host(h),
                    pid: 9,
                    limited_by: LimitedBy::Rlimit,
                    unlimited: vec!["cpu_percent".into()],
                };
                (AgentVerb::Launched, launched.into())
            }
            3 => {
                let declined = SpawnDeclined {
                    spawn,
                    host: host(h),
                    problem: Problem::new("full", "no room"),
                };
                (AgentVerb::SpawnDeclined, declined.into())
            }
            what => {
                let status = i32::from(what == 4);
                let mut exit = exited(spawn, h, code(status), number * 4_000);
                exit.host_leaving = number == 3 && what == 5;
                (AgentVerb::Exited, exit.into())
            }
        };
        let subject = Subject::Agent(place(s), verb, agent(a));
        let source = Source::Host(host(h).instance);
        let world = &mut self.given.0;
        let id = EventId(world.id());
        let event = Event::new(id, source, world.now, &subject, agent(a).0, body);
        world.event(&subject, &event);
    }

    fn judge(&mut self, s: usize, a: u128, incarnation: u64, verdict: u8) {
        self.health.1 += 1;
        let (epoch, ordinal) = self.health;
        let evidence = support::evidence(1, 1);
        let at = |verb| Subject::Agent(place(s), verb, agent(a));
        let world = &mut self.given.0;
        let about = agent(a).0;
        match verdict {
            0 => world.other(
                Service::Health,
                at(AgentVerb::Suspected),
                about,
                Suspected {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
            1 => world.other(
                Service::Health,
                at(AgentVerb::Recovered),
                about,
                Recovered {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
            2 => {
                let quarantined = Quarantined {
                    incarnation,
                    cause: Cause::Stuck,
                    figures: figures(),
                    until: None,
                };
                let subject = at(AgentVerb::Quarantined);
                world.other(Service::Health, subject, about, quarantined, epoch, ordinal)
            }
            3 => {
                let released = Released {
                    incarnation,
                    cause: Cause::Stuck,
                    figures: figures(),
                };
                let subject = at(AgentVerb::Released);
                world.other(Service::Health, subject, about, released, epoch, ordinal)
            }
            4 => {
                let failed = HostFailed {
                    spawn: incarnation,
                    host: host(1),
                    evidence,
                };
                let subject = at(AgentVerb::HostFailed);
                world.other(Service::Health, subject, about, failed, epoch, ordinal)
            }
            _ => world.other(
                Service::Health,
                at(AgentVerb::Failed),
                about,
                Failed {
                    incarnation,
                    evidence,
                },
                epoch,
                ordinal,
            ),
        };
    }
}

fn bytes(state: &Coordinator) -> Vec<u8> {
    postcard::to_stdvec(state).expect("a state can be encoded")
}

/// What must hold in every state.
fn invariants(state: &Coordinator) {
    for swarm in state.swarms() {
        let live: Vec<_> = swarm.agents.values().filter(|a| a.is_live()).collect();
        assert_eq!(live.len(), swarm.live_agents());
        assert_eq!(
            live.iter().filter(|a| a.is_healthy()).count(),
            swarm.healthy_agents()
        );
        let places: Vec<_> = swarm
            .agents
            .iter()
            .filter(|(_, a)| a.holds_place())
            .collect();
        assert_eq!(places.len(), swarm.places_taken());
        assert!(places.len() <= 3, "max_agents is 3");
        for (id, agent) in places {
            let name = &agent.profile.agent_name;
            assert_eq!(swarm.agent_named(name), Some(*id), "two agents of one name");
        }
        for agent in swarm.agents.values() {
            // Until what was told to go has gone, it is expected no more and shown as stopped.
            let there = agent.is_wanted() || agent.is_leaving();
            let expected = agent.membership == Membership::Expected;
            assert!(!expected || there, "expected and not wanted: {agent:?}");
            assert_eq!(
                agent.lifecycle() == Lifecycle::Stopped,
                !agent.holds_place(),
                "{agent:?}"
            );
            let _ = agent.status_reason();
            let Some(managed) = &agent.managed else {
                continue;
            };
            assert!(managed.spawn > 0 || !managed.has_process());
            assert!(managed.has_adapter() || managed.spawn == 0);
            assert!(managed.crashes <= 2, "crash_limit is 2");
            assert!(!agent.is_live() || agent.joined_spawn <= managed.spawn);
        }
        topology_invariants(swarm);
        if swarm.deleted_at.is_some() {
            assert!(live.is_empty(), "a deleted swarm has live agents");
            assert_eq!(swarm.places_taken(), 0, "a deleted swarm wants agents");
        }
        let others = state
            .swarms()
            .filter(|o| o.deleted_at.is_none() && o.name == swarm.name);
        assert!(
            swarm.deleted_at.is_some() || others.count() == 1,
            "two swarms of one name"
        );
    }
}

/// What must hold of its topology and its questions in every state.
fn topology_invariants(swarm: &Swarm) {
    let staged = swarm.shape.staged().map(|staged| staged.number());
    let change = swarm.change.as_ref().map(|change| change.generation);
    assert_eq!(staged, change, "one open change, the same for both");
    assert!(change.is_none_or(|generation| generation > swarm.shape.generation()));
    if let Some(leader) = swarm.leader() {
        assert!(swarm.agents[&leader].is_live());
    }
    let places: BTreeSet<u64> = swarm.shape.seats().map(|(_, seat)| seat.place).collect();
    assert_eq!(
        places.len(),
        swarm.shape.seated(),
        "no place is given twice"
    );
    for (id, question) in swarm.questions() {
        assert!(
            swarm.deleted_at.is_none(),
            "{id} is open in a deleted swarm"
        );
        assert!(swarm.agents.contains_key(&question.agent));
    }
}

/// What must hold of it when nothing is under way.
fn settled(swarm: &Swarm) {
    assert!(swarm.change.is_none(), "a change is left over");
    assert_eq!(swarm.questions().count(), 0, "a question is left over");
    if !swarm.is_open() {
        return;
    }
    let members = swarm.members();
    let mut seated: Vec<_> = swarm.shape.seats().map(|(id, _)| id).collect();
    seated.sort_by_key(|id| swarm.agents[id].arrived_seq);
    let there: Vec<_> = members.iter().map(|member| member.id).collect();
    assert_eq!(
        seated, there,
        "every live member has a place, nobody else has one"
    );
    match swarm.shape.leader() {
        Some(leader) => assert!(members.contains(leader), "the leader is a member"),
        None => assert!(
            members.iter().all(|member| !member.healthy),
            "somebody could lead"
        ),
    }
}

/// Every change that was planned ends exactly once, before the next one is planned; every question ends at most once.
fn ends_once(run: &Run) {
    let mut open: BTreeMap<Place, u64> = BTreeMap::new();
    let mut last: BTreeMap<Place, u64> = BTreeMap::new();
    let mut questions: BTreeMap<CommandId, bool> = BTreeMap::new();
    run.given.valid(|subject, body| {
        let place = subject.place();
        match body {
            Body::SwarmTopologyPlanned(planned) => {
                let place = place.expect("of a swarm");
                let before = open.insert(place, planned.generation);
                assert_eq!(before, None, "planned while another is open");
                let before = last.insert(place, planned.generation);
                assert!(before.is_none_or(|before| before < planned.generation));
            }
            Body::SwarmTopologyChanged(changed) => {
                let ended = open.remove(&place.expect("of a swarm"));
                assert_eq!(ended, Some(changed.generation));
            }
            Body::SwarmTopologyKept(kept) => {
                let ended = open.remove(&place.expect("of a swarm"));
                assert_eq!(ended, Some(kept.generation));
            }
            Body::AgentAsked(asked) => {
                let before = questions.insert(asked.question_id, true);
                assert_eq!(before, None, "asked twice");
            }
            Body::AgentAnswered(answered) => {
                let before = questions.insert(answered.question_id, false);
                assert_eq!(before, Some(true), "ended twice, or never asked");
            }
            Body::AgentUnanswered(unanswered) => {
                let before = questions.insert(unanswered.question_id, false);
                assert_eq!(before, Some(true), "ended twice, or never asked");
            }
            _ => {}
        }
        None::<()>
    });
    assert!(open.is_empty(), "a change is lost: {open:?}");
    assert!(questions.values().all(|open| !open), "a question is lost");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_command_is_answered_once_and_every_fold_agrees(steps in prop::collection::vec(step(), 1..120)) {
        let mut run = Run::new();
        let mut snapshot = None;
        for (n, step) in steps.iter().enumerate() {
            run.take(step);
            invariants(&run.given.0.state);
            if n == steps.len() / 2 {
                snapshot = Some((run.given.0.log.len(), bytes(&run.given.0.state)));
            }
        }
        run.given.0.claim();
        run.given.0.run_out();
        invariants(&run.given.0.state);
        prop_assert_eq!(run.given.0.state.open_marks(), 0);
        for swarm in run.given.0.state.swarms() {
            settled(swarm);
        }
        ends_once(&run);
        // No number of a request and no incarnation comes twice.
        let mut seen = std::collections::BTreeSet::new();
        run.given.valid(|subject, body| {
            let number = match body {
                Body::AgentSpawnRequested(r) => ("spawn", r.spawn),
                Body::AgentSpawnClaimed(c) => ("claim", c.spawn),
                Body::AgentLaunched(l) => ("launch", l.spawn),
                Body::AgentJoined(j) => ("join", j.incarnation),
                Body::AgentRemoved(r) => ("end", r.incarnation),
                Body::AgentLeft(l) => ("end", l.incarnation),
                Body::AgentCrashLooping(c) => ("loop", c.spawn),
                _ => return None::<()>,
            };
            let of = subject.to_string();
            let of = of.rsplit_once('.').map(|(_, agent)| agent.to_owned());
            let place = subject.place();
            assert!(seen.insert((place, of, number)), "twice: {number:?} {subject}");
            None
        });

        let world = &run.given.0;
        for id in &run.commands {
            let answers = world.answers(*id);
            let first = answers.first().map(|answer| &answer.body);
            // An organization comes as three events, a change of topology as two.
            let expected = match first {
                Some(Body::OrgCreated(_)) => 3,
                Some(Body::SwarmTopologyPlanned(_)) => 2,
                _ => 1,
            };
            prop_assert_eq!(answers.len(), expected, "answers to {}: {:?}", id, answers);
        }

        let owner = bytes(&world.state);
        prop_assert_eq!(&bytes(&world.cold()), &owner);
        let (from, state) = snapshot.expect("taken in the middle");
        let mut state: Coordinator = postcard::from_bytes(&state).expect("a snapshot can be read");
        for stored in &world.log[from..] {
            state.evolve(&stored.input(), None);
        }
        prop_assert_eq!(&bytes(&state), &owner);
    }
}
