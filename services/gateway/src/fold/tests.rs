//! The layout of the fold in snapshots, and what a gateway alone knows.

use std::collections::BTreeSet;

use sha2::{Digest, Sha256};
use swarm_events::{
    AgentId, CommandId, Event, EventId, GraphId, InstanceId, Json, KeyId, Problem, UserId,
    agent::{Evidence, Joined, LivenessRule, Profile, Suspected},
    command::{Cancel, CancelGraph, ChangeTopology, Create, CreateOrg, Discard},
    configuration::{Configuration, TopologyKind},
    control::{Claimed, Observed},
    envelope::{Decided, Source},
    subject::{AgentVerb, CommandVerb, ControlVerb, OrgVerb, SwarmVerb},
    swarm::{AgentLoad, AgentSample, Measured, Sampled},
    topology::{
        LeaderElected, Seat, Seated, Topology, TopologyChanged, TopologyKept, TopologyPlanned,
        TopologySuggested,
    },
};

use super::*;

mod queues;

/// [`FORMAT`] without the parts of the cores, and the SHA-256 of the fold below in postcard.
const GOLDEN: (u32, &str) = (
    4,
    "e54482bc956544d7e3c9770da9455a1df90dfd030a3650798bfb17dad27238d2",
);

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
/// An id as an idempotency key gives it.
fn keyed_id(n: u8) -> Uuid {
    Uuid::new_v8([n; 16])
}

/// A log in miniature: each event is met as it is written.
struct Story {
    fold: Fold,
    outcomes: Outcomes,
    sequence: u64,
    epochs: BTreeMap<&'static str, (u64, u64)>,
}

impl Story {
    fn meet(&mut self, subject: &Subject, event: &Event) {
        self.sequence += 1;
        let time = Timestamp::ZERO.plus_millis(1_780_000_000_000 + self.sequence * 100);
        let payload = event.to_json().expect("JSON");
        let input = swarm_events::read(self.sequence, time, &subject.to_string(), &payload);
        self.fold.apply(input, &mut self.outcomes);
    }
    fn client(&mut self, id: Uuid, subject: Subject, about: Uuid, body: impl Into<Body>) {
        let source = Source::Client("/test".to_owned());
        let event = Event::new(EventId(id), source, Timestamp::ZERO, &subject, about, body);
        self.meet(&subject, &event);
    }
    fn claim(&mut self, service: Service, partition: Partition) {
        let claimed = Claimed {
            instance: InstanceId(Uuid::from_u128(3)),
            decider_version: 1,
            previous: 0,
            reason: "start".to_owned(),
            rejects: Vec::new(),
        };
        let subject = Subject::Control(service, partition, ControlVerb::Claimed);
        let source = Source::Service(service, InstanceId(Uuid::from_u128(3)));
        let id = EventId(Uuid::from_u128(u128::from(self.sequence)));
        let about = Event::about_partition(partition);
        let event = Event::new(id, source, Timestamp::ZERO, &subject, about, claimed);
        self.meet(&subject, &event);
        self.epochs.insert(service.as_str(), (self.sequence, 0));
    }
    /// What health's shell saw.
    fn observe(&mut self, partition: Partition, id: Uuid, observed: Observed) {
        let subject = Subject::Control(Service::Health, partition, ControlVerb::Observed);
        let source = Source::Service(Service::Health, InstanceId(Uuid::from_u128(3)));
        let about = Event::about_partition(partition);
        let event = Event::new(
            EventId(id),
            source,
            Timestamp::ZERO,
            &subject,
            about,
            observed,
        );
        self.meet(&subject, &event);
    }
    fn decide(
        &mut self,
        service: Service,
        cause: Uuid,
        subject: Subject,
        about: Uuid,
        body: impl Into<Body>,
    ) {
        let (epoch, ordinal) = self.epochs.get_mut(service.as_str()).expect("claimed");
        *ordinal += 1;
        let (epoch, ordinal) = (*epoch, *ordinal);
        let source = Source::Service(service, InstanceId(Uuid::from_u128(3)));
        let id = EventId::of_decision(service.as_str(), epoch, ordinal);
        let mut event = Event::new(id, source, Timestamp::ZERO, &subject, about, body);
        event.causation = Some(cause);
        event.decided = Some(Decided {
            cause_sequence: self.sequence,
            epoch,
            ordinal,
            decider_version: 1,
        });
        self.meet(&subject, &event);
    }
}

/// A fold with something in every field.
fn story() -> Story {
    let mut story = Story {
        fold: Fold::default(),
        outcomes: Outcomes::default(),
        sequence: 0,
        epochs: BTreeMap::new(),
    };
    let (place, agent) = (place(), AgentId(Uuid::from_u128(4)));
    let home = Partition::of(place.org.0);
    story.client(
        Uuid::from_u128(90),
        Subject::OrgCommand(home, place.org, CommandVerb::CreateOrg),
        place.org.0,
        CreateOrg {
            name: "first".to_owned(),
            user_id: UserId(Uuid::from_u128(5)),
            user_name: "admin".to_owned(),
            key_id: KeyId(Uuid::from_u128(6)),
            key_sha256: keys::hash("key"),
        },
    );
    story.claim(Service::Coordinator, home);
    let created = swarm_events::org::Created {
        name: "first".to_owned(),
    };
    let updated = swarm_events::org::Updated {
        name: "renamed".to_owned(),
        queue_limit: Some(10),
    };
    let of_org = |verb| Subject::Org(home, place.org, verb);
    for (verb, body) in [
        (OrgVerb::Created, Body::from(created)),
        (OrgVerb::Updated, Body::from(updated)),
    ] {
        let cause = Uuid::from_u128(90);
        story.decide(Service::Coordinator, cause, of_org(verb), place.org.0, body);
    }
    for service in [Service::Coordinator, Service::Distributor, Service::Health] {
        story.claim(service, place.partition);
    }
    story.client(
        keyed_id(1),
        Subject::Command(place, CommandVerb::Create),
        place.swarm.0,
        Create {
            topology_configuration: swarm_events::Json::object(),
            name: "s".to_owned(),
            description: None,
            topology: None,
            configuration: Json::object(),
            created_by: None,
            body_sha256: Some("ab".repeat(32)),
        },
    );
    let created = swarm_events::swarm::Created {
        name: "s".to_owned(),
        description: None,
        topology: Default::default(),
        // Of no default that may change.
        configuration: Configuration {
            agent_waiting: 0,
            ..Configuration::default()
        },
        partition: place.partition.number(),
        created_by: None,
    };
    let about = place.swarm.0;
    let of_swarm = |verb| Subject::Swarm(place, verb);
    story.decide(
        Service::Coordinator,
        keyed_id(1),
        of_swarm(SwarmVerb::Created),
        about,
        created,
    );
    let instance = InstanceId(Uuid::from_u128(7));
    let joined = Joined {
        incarnation: 1,
        instance,
        profile: Profile {
            agent_type: "exec".to_owned(),
            agent_name: "a".to_owned(),
            capabilities: Vec::new(),
            slots: 1,
            waiting: 0,
            metadata: Json::object(),
        },
    };
    let of_agent = |verb| Subject::Agent(place, verb, agent);
    story.decide(
        Service::Coordinator,
        Uuid::nil(),
        of_agent(AgentVerb::Joined),
        agent.0,
        joined,
    );
    for completed in [3, 5] {
        let measured = Measured {
            queued: 2,
            pending: 1,
            completed,
            agents: BTreeMap::from([(agent, AgentLoad::default())]),
            ..Measured::default()
        };
        story.decide(
            Service::Distributor,
            Uuid::nil(),
            of_swarm(SwarmVerb::Measured),
            about,
            measured,
        );
    }
    let sample = AgentSample {
        messages_read: 0,
        messages_sent: 0,
        instance,
        status: "busy".to_owned(),
        last_heartbeat_at: Timestamp::ZERO.plus_millis(9),
        cpu_centipercent: 1,
        memory_kib: 2,
        active_connections: 3,
        queue_depth: 4,
        current_tasks: vec![TaskId(Uuid::from_u128(8))],
    };
    let observed = Observed::Samples {
        org_id: place.org,
        swarm_id: place.swarm,
        agents: BTreeMap::from([(agent, sample.clone())]),
    };
    story.observe(place.partition, Uuid::from_u128(60), observed);
    let sampled = Sampled {
        agents: BTreeMap::from([(agent, sample)]),
    };
    story.decide(
        Service::Health,
        Uuid::from_u128(60),
        of_swarm(SwarmVerb::Sampled),
        about,
        sampled,
    );
    let suspected = Suspected {
        incarnation: 1,
        evidence: Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: Some(Timestamp::ZERO),
            age_ms: 3_000,
            limit_ms: 2_500,
        },
    };
    story.decide(
        Service::Health,
        Uuid::nil(),
        of_agent(AgentVerb::Suspected),
        agent.0,
        suspected,
    );
    topologies(&mut story, place, agent);
    // A cancellation that is open, and one that is refused.
    for n in [2, 3] {
        let task_id = TaskId(Uuid::from_u128(10 + u128::from(n)));
        let subject = Subject::Command(place, CommandVerb::Cancel);
        let cancel = Cancel {
            task_id,
            reason: None,
        };
        story.client(keyed_id(n), subject, task_id.0, cancel);
    }
    let refused = swarm_events::task::Refused {
        command_id: Some(CommandId(keyed_id(3))),
        refused_seq: story.sequence,
        refused_subject: String::new(),
        count: 1,
        problem: Problem::new("unknown-task", "no such task"),
    };
    let subject = Subject::Task(place, TaskVerb::Refused, None);
    story.decide(
        Service::Distributor,
        keyed_id(3),
        subject,
        keyed_id(3),
        refused,
    );
    story
}

/// A leader, a change that came about, a suggestion, and a change that is under way.
fn topologies(story: &mut Story, place: Place, agent: AgentId) {
    let (star, ring) = (
        Topology::of(TopologyKind::Star),
        Topology::of(TopologyKind::Ring),
    );
    let mut of_swarm = |verb, body: Body| {
        story.decide(
            Service::Coordinator,
            Uuid::nil(),
            Subject::Swarm(place, verb),
            place.swarm.0,
            body,
        );
    };
    let elected = LeaderElected {
        leader: Some(agent),
        incarnation: 1,
        before: None,
        reason: "the oldest".to_owned(),
        eligible: 1,
    };
    of_swarm(SwarmVerb::LeaderElected, elected.into());
    let suggested = TopologySuggested {
        after: Topology::of(TopologyKind::Mesh),
        rule: "failure_rate_percent".to_owned(),
        limit: 30,
        figure: 40,
        since_ms: 30_000,
        applied: false,
    };
    of_swarm(SwarmVerb::TopologySuggested, suggested.into());
    let seated = |story: &mut Story, generation| {
        let seat = Seat {
            place: 1,
            works: true,
            ..Seat::default()
        };
        let seated = Seated {
            generation,
            seat: Some(seat),
            named: None,
            reason: format!("rule {generation}"),
        };
        let subject = Subject::Agent(place, AgentVerb::Seated, agent);
        story.decide(Service::Coordinator, Uuid::nil(), subject, agent.0, seated);
    };
    let planned = |story: &mut Story, generation, before: &Topology, after: &Topology| {
        let planned = TopologyPlanned {
            generation,
            before: before.clone(),
            after: after.clone(),
            agents: 1,
            moves: 0,
            reason: "by order".to_owned(),
        };
        let subject = Subject::Swarm(place, SwarmVerb::TopologyPlanned);
        story.decide(
            Service::Coordinator,
            keyed_id(7),
            subject,
            place.swarm.0,
            planned,
        );
    };
    seated(story, 1);
    planned(story, 2, &star, &ring);
    seated(story, 2);
    let changed = TopologyChanged {
        generation: 2,
        before: star.clone(),
        after: ring.clone(),
        agents: 1,
        moves: 0,
        reason: "by order".to_owned(),
    };
    let subject = Subject::Swarm(place, SwarmVerb::TopologyChanged);
    story.decide(
        Service::Coordinator,
        keyed_id(7),
        subject,
        place.swarm.0,
        changed,
    );
    planned(story, 3, &ring, &star);
    seated(story, 3);
}

#[test]
fn of_a_change_of_the_topology_its_end_is_the_answer() {
    let mut story = story();
    let place = place();
    let shown = story.fold.changes(place).expect("there").clone();
    let last = shown.last.as_ref().expect("one ended");
    assert_eq!(
        (last.generation, last.kept.as_ref(), last.took_ms),
        (2, None, 200)
    );
    let open = shown.planned.as_ref().expect("one is open");
    assert_eq!((open.generation, open.seated()), (3, 1));
    let agent = AgentId(Uuid::from_u128(4));
    assert_eq!(
        shown.reason(agent),
        Some("rule 2"),
        "the new place does not hold yet"
    );
    assert_eq!(shown.suggestions.len(), 1);
    let command = keyed_id(8);
    story.client(
        command,
        Subject::Command(place, CommandVerb::ChangeTopology),
        place.swarm.0,
        ChangeTopology {
            topology: TopologyKind::Star,
            configuration: Json::object(),
            reason: None,
        },
    );
    let mut waiting = story.outcomes.wait(command);
    let kept = TopologyKept {
        generation: 3,
        kept: Topology::of(TopologyKind::Ring),
        problem: Problem::new("late", "it took too long"),
    };
    let agent_subject = Subject::Agent(place, AgentVerb::Seated, agent);
    let seated = Seated {
        generation: 3,
        seat: None,
        named: None,
        reason: "gone".to_owned(),
    };
    story.decide(
        Service::Coordinator,
        command,
        agent_subject,
        agent.0,
        seated,
    );
    assert!(waiting.outcome.try_recv().is_err(), "a seat is no answer");
    let subject = Subject::Swarm(place, SwarmVerb::TopologyKept);
    story.decide(Service::Coordinator, command, subject, place.swarm.0, kept);
    let outcome = waiting.outcome.try_recv().expect("the end is");
    assert!(matches!(outcome.event.body, Body::SwarmTopologyKept(_)));
    let shown = story.fold.changes(place).expect("there");
    let last = shown.last.as_ref().expect("one ended");
    assert_eq!(
        (last.generation, last.kept.as_ref().map(|p| p.code.as_str())),
        (3, Some("late"))
    );
    assert!(shown.planned.is_none());
    assert_eq!(shown.reason(agent), Some("rule 2"));
}

#[test]
fn a_changed_layout_needs_a_higher_format() {
    let Story { fold, sequence, .. } = story();
    assert_eq!(fold.voids(), 0);
    assert_eq!(fold.sequence(), sequence);
    assert!(fold.measure(place()).expect("measured").rates().is_some());
    let organization = fold.organization(place().org).expect("there");
    assert_eq!(
        (organization.name.as_str(), organization.queue_limit),
        ("renamed", Some(10))
    );
    assert_eq!(fold.waiting_of(place().org), 3);
    let outcomes: BTreeSet<_> = (1..=3)
        .map(|n| fold.keyed(keyed_id(n)).outcome.is_some())
        .collect();
    assert_eq!(outcomes.len(), 2, "some have an outcome, one has none yet");
    let bytes = postcard::to_stdvec(&fold).expect("encoded");
    let back: Fold = postcard::from_bytes(&bytes).expect("decoded");
    assert!(back == fold, "what was read differs from what was written");
    assert_eq!(
        (LAYOUT, hex::encode(Sha256::digest(&bytes)).as_str()),
        GOLDEN,
        "if the layout of the gateway's own part has changed, raise LAYOUT, so that snapshots of the old one are passed over; \
         if that of a core has, its FORMAT is in this one already; then set GOLDEN to what is on the left"
    );
}

#[test]
fn what_health_decides_counts_by_healths_own_rules() {
    let mut story = story();
    let (place, agent) = (place(), AgentId(Uuid::from_u128(4)));
    let before = story
        .fold
        .samples(place)
        .and_then(|s| s.get(agent))
        .cloned();
    let sample = before.as_ref().and_then(|heard| heard.sample.clone());
    let sampled = Sampled {
        agents: BTreeMap::from([(
            agent,
            AgentSample {
                cpu_centipercent: 99,
                ..sample.expect("a sample")
            },
        )]),
    };
    // Nothing was observed that it would answer.
    let subject = Subject::Swarm(place, SwarmVerb::Sampled);
    story.decide(
        Service::Health,
        Uuid::nil(),
        subject,
        place.swarm.0,
        sampled,
    );
    assert_eq!(story.fold.voids(), 1);
    let after = story
        .fold
        .samples(place)
        .and_then(|s| s.get(agent))
        .cloned();
    assert_eq!(after, before);
    let found = story.fold.health(place).expect("the swarm");
    assert_eq!(
        found.agents[&agent].liveness,
        swarm_health_core::Liveness::Suspected
    );
}

#[test]
fn another_layout_of_a_core_is_another_format() {
    assert_eq!(
        (FORMAT >> 16, (FORMAT >> 8) & 0xff, FORMAT & 0xff),
        (LAYOUT, Health::FORMAT, Coordinator::FORMAT)
    );
}

#[test]
fn orders_about_graphs_and_dead_letters_are_answered_by_their_own_events() {
    let mut story = story();
    let place = place();
    let graph = GraphId(Uuid::from_u128(40));
    let task = TaskId(Uuid::from_u128(41));
    let of_task = |verb| Subject::Task(place, verb, None);
    let mut heard = Vec::new();
    for n in [30, 31] {
        let cancel = CancelGraph {
            graph_id: graph,
            reason: None,
        };
        let subject = Subject::Command(place, CommandVerb::CancelGraph);
        heard.push((n, story.outcomes.wait(keyed_id(n))));
        story.client(keyed_id(n), subject, graph.0, cancel);
    }
    let discard = Discard { task_id: task };
    let subject = Subject::Command(place, CommandVerb::Discard);
    heard.push((32, story.outcomes.wait(keyed_id(32))));
    story.client(keyed_id(32), subject, task.0, discard);
    let mut of_graph = story.outcomes.wait(graph.0);

    let service = Service::Distributor;
    let cancelled = swarm_events::task::GraphCancelled {
        reason: "no more".to_owned(),
        tasks: 3,
    };
    let subject = of_task(TaskVerb::GraphCancelled);
    story.decide(service, keyed_id(30), subject, graph.0, cancelled);
    assert!(
        of_graph.outcome.try_recv().is_err(),
        "it says nothing of the acceptance"
    );
    // Called off before all of its parts were there: who submits it and who cancels it hear of it alike.
    let rejected = swarm_events::task::GraphRejected {
        problem: Problem::new(CANCELLED_GRAPH, "called off"),
        task_id: None,
    };
    let subject = of_task(TaskVerb::GraphRejected);
    story.decide(service, keyed_id(31), subject, graph.0, rejected);
    of_graph.outcome.try_recv().expect("rejected");
    let discarded = swarm_events::task::Discarded { generation: 1 };
    let subject = of_task(TaskVerb::Discarded);
    story.decide(service, keyed_id(32), subject, task.0, discarded);
    for (n, mut wait) in heard {
        let outcome = wait.outcome.try_recv().expect("answered");
        assert_eq!(
            story.fold.keyed(keyed_id(n)).outcome,
            Some(outcome.sequence),
            "{n}"
        );
    }
}
