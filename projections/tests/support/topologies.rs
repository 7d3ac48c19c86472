//! A swarm whose topology changes, with a leader, templates, questions, a task in parts, and work that goes to another swarm
//! and comes from one.

use serde_json::json;
use swarm_events::{
    AgentId, Partition, Place, Service, Subject, SwarmId, TaskId, UserId, agent,
    configuration::TopologyKind,
    envelope::Source,
    ids::{CommandId, InstanceId},
    message::{Answered, AnsweredBy, Answerer, Asked, Unanswered},
    org,
    subject::{AgentVerb, OrgVerb, SwarmVerb, TaskVerb},
    task::{self, Carried, Origin, Part, Step, Submitted, handed_id, part_id},
    topology::{
        LeaderElected, Ring, Role, Seat, Seated, Topology, TopologyChanged, TopologyKept,
        TopologyPlanned,
    },
};

use super::{Script, assignment, everything::task, id, submission};

/// The hub, then the first in the circle, and the leader.
pub const HUB: AgentId = AgentId(id(141));
/// Next in the circle.
pub const NEXT: AgentId = AgentId(id(142));
/// Has no seat any more.
pub const LEFT: AgentId = AgentId(id(143));
/// Split, done in parts, reduced.
pub const WHOLE: u128 = 41;
/// Split in a way that cannot be.
pub const BROKEN: u128 = 42;
/// Done by another swarm.
pub const HANDED: u128 = 43;
/// Done by another swarm, which fails; tried once more by a person.
pub const HANDED_TWICE: u128 = 44;
/// Split, failed, and retried by a person: it is whole again.
pub const WHOLE_AGAIN: u128 = 45;

pub fn place(s: &Script) -> Place {
    Place::new(s.org, SwarmId(id(79)))
}
/// The swarm that does this one's work, and has it do its own.
pub fn other() -> SwarmId {
    SwarmId(id(80))
}
pub fn origin() -> Origin {
    Origin {
        swarm_id: other(),
        task_id: task(500),
        generation: 3,
        hops: 1,
    }
}
pub fn question(number: u128) -> CommandId {
    CommandId(id(700 + number))
}
pub fn ring() -> Topology {
    Topology::Ring(Ring {
        token_timeout_ms: 20_000,
        ..Ring::default()
    })
}

fn part(key: &str) -> Part {
    Part {
        key: key.to_owned(),
        task_type: "piece".to_owned(),
        payload: json!({ "of": key, "nul": "\0" }).into(),
        priority: Some(7),
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: None,
        timeout_ms: Some(5_000),
    }
}

impl Script {
    async fn seat(&mut self, agent: AgentId, generation: u64, seat: Option<Seat>) {
        let seated = Seated {
            generation,
            seat,
            named: None,
            reason: "by rule".to_owned(),
        };
        self.by_agent_subject(AgentVerb::Seated, agent, seated)
            .await;
    }

    async fn lead(&mut self, leader: Option<AgentId>, before: Option<AgentId>) {
        let elected = LeaderElected {
            leader,
            incarnation: 1,
            before,
            reason: "the only one".to_owned(),
            eligible: 1,
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::LeaderElected);
        self.decide(subject, self.place.swarm.0, elected).await;
    }

    async fn plan_topology(&mut self, generation: u64, before: &Topology, after: &Topology) {
        let planned = TopologyPlanned {
            generation,
            before: before.clone(),
            after: after.clone(),
            agents: 2,
            moves: 1,
            reason: "by order".to_owned(),
        };
        let subject = Subject::Swarm(self.place, SwarmVerb::TopologyPlanned);
        self.decide(subject, self.place.swarm.0, planned).await;
    }

    async fn ask(
        &mut self,
        number: u128,
        assignment: Option<u64>,
        change: impl FnOnce(&mut Asked),
    ) {
        let mut asked = Asked {
            question_id: question(number),
            incarnation: 1,
            assignment,
            answerer: Answerer::Anybody,
            question: "go \0 on?".to_owned(),
            choices: vec!["yes".to_owned(), "no".to_owned()],
            default: None,
            timeout_ms: 60_000,
        };
        change(&mut asked);
        self.by_agent_subject(AgentVerb::Asked, HUB, asked).await;
    }

    async fn answer(&mut self, number: u128, by: AnsweredBy) {
        let answered = Answered {
            question_id: question(number),
            answer: json!("yes").into(),
            by,
        };
        self.by_agent_subject(AgentVerb::Answered, HUB, answered)
            .await;
    }

    async fn split(&mut self, number: u128, assignment: u64, parts: Vec<Part>) {
        let split = task::Split {
            assignment,
            incarnation: 1,
            parts,
        };
        self.by_agent(TaskVerb::Split, HUB, task(number), split)
            .await;
    }

    async fn run(&mut self, id: TaskId, agent: AgentId, assigned: task::Assigned) -> u64 {
        let assignment = self.assign_as(id, agent, assigned).await;
        self.start(id, agent, assignment).await;
        assignment
    }

    async fn hand_over(&mut self, number: u128, generation: u32) {
        let origin = Origin {
            swarm_id: self.place.swarm,
            task_id: task(number),
            generation,
            hops: 1,
        };
        let over = task::HandedOver {
            to: other(),
            task_id: handed_id(&origin),
            generation,
        };
        self.by_distributor(TaskVerb::HandedOver, None, task(number).0, over)
            .await;
    }

    async fn template(&mut self, name: &str, topology: Topology) {
        let saved = org::TemplateSaved {
            name: name.to_owned(),
            description: Some("one \0 by one".to_owned()),
            best_for: Some("invoices".to_owned()),
            topology,
        };
        let subject = Subject::Org(Partition::of(self.org.0), self.org, OrgVerb::TemplateSaved);
        self.decide(subject, self.org.0, saved).await;
    }
}

/// Writes it all into a swarm of its own.
pub async fn topologies(s: &mut Script) {
    let home = s.place;
    s.place = place(s);
    for service in [Service::Coordinator, Service::Distributor, Service::Health] {
        if !s.is_claimed(service, s.place.partition) {
            s.claim(service, s.place.partition).await;
        }
    }
    s.swarm(s.place, "shaped").await;
    for agent in [HUB, NEXT, LEFT] {
        s.join(agent, 1, 4).await;
    }
    let star = Topology::default();
    let seat = |place, role: Role| Seat {
        role,
        level: u32::from(role == Role::Worker),
        place,
        works: true,
        standby: place == 2,
        ..Seat::default()
    };
    s.seat(HUB, 1, Some(seat(1, Role::Coordinator))).await;
    s.seat(NEXT, 1, Some(seat(2, Role::Worker))).await;
    s.seat(LEFT, 1, Some(seat(3, Role::Worker))).await;
    s.lead(Some(LEFT), None).await;
    questions(s).await;
    parts(s).await;
    hands(s).await;

    // One goes: no seat, another leader.
    let left = agent::Left {
        incarnation: 1,
        reason: "done".to_owned(),
    };
    s.by_agent_subject(AgentVerb::Left, LEFT, left).await;
    s.seat(LEFT, 1, None).await;
    s.lead(Some(HUB), Some(LEFT)).await;
    // An election that knows nothing of the last one is void.
    s.lead(Some(NEXT), Some(LEFT)).await;

    // A change that is given up, and one that holds.
    s.plan_topology(2, &star, &ring()).await;
    let kept = TopologyKept {
        generation: 2,
        kept: star.clone(),
        problem: swarm_events::Problem::new("too-late", "not in time"),
    };
    let subject = Subject::Swarm(s.place, SwarmVerb::TopologyKept);
    s.decide(subject, s.place.swarm.0, kept).await;
    s.plan_topology(3, &star, &ring()).await;
    for (place, agent) in [(1, HUB), (2, NEXT)] {
        let seat = Seat {
            place,
            works: true,
            ..Seat::default()
        };
        s.seat(agent, 3, Some(seat)).await;
    }
    let changed = TopologyChanged {
        generation: 3,
        before: star,
        after: ring(),
        agents: 2,
        moves: 1,
        reason: "by order".to_owned(),
    };
    let subject = Subject::Swarm(s.place, SwarmVerb::TopologyChanged);
    s.decide(subject, s.place.swarm.0, changed).await;
    s.submit(task(46), submission()).await;
    let turn = task::Assigned {
        turn: Some(1),
        ..assignment(1)
    };
    s.assign_as(task(46), NEXT, turn).await;

    // One is changed, one goes, one goes and comes again.
    s.template("invoices", ring()).await;
    s.template("invoices", Topology::of(TopologyKind::Mesh))
        .await;
    for name in ["gone", "again"] {
        s.template(name, ring()).await;
        let subject = Subject::Org(Partition::of(s.org.0), s.org, OrgVerb::TemplateDeleted);
        let deleted = org::TemplateDeleted {
            name: name.to_owned(),
        };
        s.decide(subject, s.org.0, deleted).await;
    }
    s.template("again", ring()).await;
    s.place = home;
}

async fn questions(s: &mut Script) {
    s.submit(task(40), submission()).await;
    let running = s.run(task(40), HUB, assignment(1)).await;
    s.ask(1, Some(running), |_| {}).await;
    s.ask(2, None, |asked| asked.answerer = Answerer::Leader)
        .await;
    s.answer(2, AnsweredBy::Person(Some(UserId(id(3))))).await;
    // The first counts.
    s.answer(2, AnsweredBy::Agent(NEXT)).await;
    s.ask(3, None, |asked| {
        asked.answerer = Answerer::Role(Role::Supervisor);
        asked.choices = Vec::new();
    })
    .await;
    s.answer(3, AnsweredBy::Agent(NEXT)).await;
    s.ask(4, None, |asked| asked.default = Some(json!("no").into()))
        .await;
    s.answer(4, AnsweredBy::Default).await;
    s.ask(5, Some(running), |_| {}).await;
    let unanswered = Unanswered {
        question_id: question(5),
        reason: "nobody \0 answered in time".to_owned(),
    };
    s.by_agent_subject(AgentVerb::Unanswered, HUB, unanswered)
        .await;
}

async fn parts(s: &mut Script) {
    // Done in two parts, of which the second ends first; then they become one.
    s.submit(task(WHOLE), submission()).await;
    let handed_down = task::Assigned {
        path: vec![HUB, NEXT],
        ..assignment(1)
    };
    let split = s.run(task(WHOLE), HUB, handed_down).await;
    s.split(WHOLE, split, vec![part("a"), part("b")]).await;
    for number in [1, 0] {
        let id = part_id(task(WHOLE), split, number);
        let assignment = s.run(id, NEXT, assignment(1)).await;
        let result = Carried::Inline(json!({ "part": number }).into());
        s.complete(id, NEXT, assignment, result).await;
    }
    let reduce = task::Assigned {
        step: Step::Reduce,
        ..assignment(1)
    };
    let reducing = s.run(task(WHOLE), HUB, reduce).await;
    let result = Carried::Inline(json!("whole").into());
    s.complete(task(WHOLE), HUB, reducing, result).await;

    // Two parts of one name: a failed attempt, and no part is there.
    s.submit(task(BROKEN), submission()).await;
    let split = s.run(task(BROKEN), HUB, assignment(1)).await;
    s.split(BROKEN, split, vec![part("a"), part("a")]).await;
    s.fail(task(BROKEN), 1, "it could not be split", None).await;

    // A part fails for good, the whole fails for it, and the other part is cancelled. A person tries again.
    s.submit(task(WHOLE_AGAIN), submission()).await;
    let split = s.run(task(WHOLE_AGAIN), HUB, assignment(1)).await;
    let once = Part {
        max_attempts: Some(1),
        ..part("a")
    };
    s.split(WHOLE_AGAIN, split, vec![once, part("b")]).await;
    let [first, second] = [0, 1].map(|number| part_id(task(WHOLE_AGAIN), split, number));
    let running = s.run(first, NEXT, assignment(1)).await;
    s.attempt_failed(first, NEXT, running, "broken").await;
    let failed = |because_of: Option<TaskId>| task::Failed {
        attempts: 1,
        generation: 1,
        error: "broken".to_owned(),
        dead_lettered: because_of.is_some(),
        because_of,
        path: because_of.into_iter().collect(),
    };
    s.by_distributor(TaskVerb::Failed, None, first.0, failed(None))
        .await;
    s.by_distributor(
        TaskVerb::Failed,
        None,
        task(WHOLE_AGAIN).0,
        failed(Some(first)),
    )
    .await;
    let cancelled = task::Cancelled {
        generation: 1,
        reason: "the task of which it is a part has ended".to_owned(),
    };
    s.by_distributor(TaskVerb::Cancelled, None, second.0, cancelled)
        .await;
    s.retry(WHOLE_AGAIN).await;
}

async fn hands(s: &mut Script) {
    let hand = || Submitted {
        hand_to: Some(other()),
        ..submission()
    };
    s.submit(task(HANDED), hand()).await;
    s.hand_over(HANDED, 1).await;
    let back = task::HandedBack {
        by: other(),
        generation: 1,
        result: Carried::Inline(json!({"from": "afar"}).into()),
    };
    s.by_distributor(TaskVerb::HandedBack, None, task(HANDED).0, back)
        .await;

    s.submit(task(HANDED_TWICE), hand()).await;
    s.hand_over(HANDED_TWICE, 1).await;
    s.fail(task(HANDED_TWICE), 0, "it failed there", None).await;
    s.retry(HANDED_TWICE).await;

    // Only a distributor may say for whom a task is done.
    let done_for = Submitted {
        origin: Some(origin()),
        required_role: Some(Role::Worker),
        ..submission()
    };
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None);
    let source = Source::Service(Service::Distributor, InstanceId(id(10)));
    s.by(source, subject, handed_id(&origin()).0, done_for)
        .await;
}

impl Script {
    /// A person tries once more.
    async fn retry(&mut self, number: u128) {
        let retried = task::Retried {
            attempts: 0,
            delay_ms: 0,
            generation: 2,
            error: None,
        };
        self.by_distributor(TaskVerb::Retried, None, task(number).0, retried)
            .await;
    }
}
