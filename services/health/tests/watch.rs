//! Who is silent when: the rules of the watch, in virtual time.

use std::time::Duration;

use swarm_events::{
    AgentId, Input, InstanceId, Json, OrgId, Partition, Place, Subject, SwarmId, Timestamp,
    agent::{Joined, Left, LivenessRule, Profile, Suspected},
    configuration::Configuration,
    control::{Observed, Sighting},
    decider::Decider,
    subject::{AgentVerb, Service, SwarmVerb},
    swarm::{AgentSample, Created, Heartbeat, SAMPLE_AGENTS_MAX},
    testing::World,
};
use swarm_health::{
    core::Health,
    samples::{FIRST_SAMPLE, SAMPLE_AGAIN, SAMPLE_INTERVAL},
    watch::{ASK_AGAIN, Heard, RETURN_GRACE, STARVED, TICK, Watch},
};
use uuid::Uuid;

const INTERVAL_MS: u64 = 1_000;

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
fn agent(n: u128) -> AgentId {
    AgentId(Uuid::from_u128(0xa0_0000 + n))
}
fn instance(n: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(0x10_0000 + n))
}
fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

struct Scene {
    world: World<Health>,
    epoch: u64,
    ordinal: u64,
    watch: Watch,
    now: Duration,
    /// Agents that beat every interval, with the figure they report.
    beating: Vec<(u128, u32)>,
    seen: Vec<Observed>,
}

impl Scene {
    fn new() -> Self {
        let mut world = World::<Health>::new(place().partition);
        let epoch = world.claim_of(Service::Coordinator);
        let mut scene = Self {
            world,
            epoch,
            ordinal: 0,
            watch: Watch::default(),
            now: ms(5_000),
            beating: Vec::new(),
            seen: Vec::new(),
        };
        assert!(scene.watch.tick(scene.now).is_empty());
        let created = Created {
            name: "s".into(),
            description: None,
            topology: Default::default(),
            configuration: Configuration {
                heartbeat_interval_ms: INTERVAL_MS,
                ..Configuration::default()
            },
            partition: place().partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(place(), SwarmVerb::Created);
        scene.coordinator(subject, place().swarm.0, created);
        scene
    }
    fn coordinator(&mut self, subject: Subject, about: Uuid, body: impl Into<swarm_events::Body>) {
        self.ordinal += 1;
        let (epoch, ordinal) = (self.epoch, self.ordinal);
        self.world
            .other(Service::Coordinator, subject, about, body, epoch, ordinal);
        self.sync();
    }
    fn sync(&mut self) {
        if let Some(swarm) = self.world.state.swarm(place().org, place().swarm) {
            self.watch.sync_swarm(swarm, self.now);
        }
    }
    fn joins(&mut self, n: u128, incarnation: u64, process: u128) {
        let joined = Joined {
            incarnation,
            instance: instance(process),
            profile: Profile {
                agent_type: "exec".into(),
                agent_name: format!("a{n}"),
                capabilities: Vec::new(),
                slots: 1,
                waiting: 0,
                metadata: Json::object(),
            },
        };
        let subject = Subject::Agent(place(), AgentVerb::Joined, agent(n));
        self.coordinator(subject, agent(n).0, joined);
    }
    fn beat(&mut self, n: u128, process: u128, memory_kib: u64) -> Heard {
        let beat = Heartbeat {
            instance: instance(process),
            incarnation: 1,
            counter: 1,
            status: "idle".into(),
            cpu_centipercent: 0,
            memory_kib,
            active_connections: 1,
            queue_depth: 0,
            current_tasks: Vec::new(),
            metadata: Json::object(),
        };
        let at = Timestamp::from_micros(i64::try_from(self.now.as_micros()).expect("small"));
        self.watch.beat(place(), agent(n), beat, at, self.now)
    }
    /// Time passes in ticks; those who beat do so every interval. Observations are gathered, not carried out.
    fn pass(&mut self, millis: u64) {
        let end = self.now + ms(millis);
        while self.now < end {
            self.now += TICK.min(end - self.now);
            if self.now.as_millis().is_multiple_of(u128::from(INTERVAL_MS)) {
                for (n, figure) in self.beating.clone() {
                    assert_eq!(self.beat(n, n, figure.into()), Heard::Member);
                }
            }
            let seen = self.watch.tick(self.now);
            self.seen
                .extend(seen.into_iter().map(|(partition, observed)| {
                    assert_eq!(partition, place().partition);
                    observed
                }));
        }
    }
    /// Gathered liveness observations: agent, sighting, rule, age.
    fn liveness(&mut self) -> Vec<(AgentId, Sighting, LivenessRule, u64)> {
        let (liveness, rest): (Vec<_>, Vec<_>) = std::mem::take(&mut self.seen)
            .into_iter()
            .partition(|o| matches!(o, Observed::Liveness { .. }));
        self.seen = rest;
        let figures = |observed| match observed {
            Observed::Liveness {
                agent_id,
                sighting,
                evidence,
                ..
            } => {
                assert!(evidence.age_ms > evidence.limit_ms || sighting == Sighting::Heard);
                (agent_id, sighting, evidence.rule, evidence.age_ms)
            }
            _ => unreachable!("parted above"),
        };
        liveness.into_iter().map(figures).collect()
    }
    fn sightings(&mut self) -> Vec<Sighting> {
        self.liveness().into_iter().map(|seen| seen.1).collect()
    }
    fn samples(&mut self) -> Vec<Vec<(AgentId, AgentSample)>> {
        std::mem::take(&mut self.seen)
            .into_iter()
            .filter_map(|observed| match observed {
                Observed::Samples { agents, .. } => Some(agents.into_iter().collect()),
                _ => None,
            })
            .collect()
    }
    /// The log says that the agent is suspected.
    fn suspected(&mut self, n: u128) {
        let Some(swarm) = self.world.state.swarm(place().org, place().swarm) else {
            panic!("the swarm is there");
        };
        let incarnation = swarm.agents[&agent(n)].incarnation;
        let evidence = swarm_events::agent::Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 1,
            limit_ms: 0,
        };
        let epoch = self.world.state.head().epoch(Service::Health).epoch;
        let subject = Subject::Agent(place(), AgentVerb::Suspected, agent(n));
        let body = Suspected {
            incarnation,
            evidence,
        };
        self.world
            .other(Service::Health, subject, agent(n).0, body, epoch, 1_000);
        self.sync();
    }
    fn process(&self, n: u128) -> (SwarmId, AgentId, InstanceId) {
        (place().swarm, agent(n), instance(n))
    }
}

#[test]
fn who_beats_is_never_spoken_of() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beating = vec![(1, 7)];
    scene.pass(120_000);
    assert_eq!(scene.sightings(), []);
}

#[test]
fn silence_is_seen_after_two_and_a_half_intervals_and_loss_after_four() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beat(1, 1, 0);
    scene.pass(2_500);
    assert_eq!(scene.sightings(), [], "not above the limit yet");
    scene.pass(100);
    assert_eq!(
        scene.liveness(),
        [(agent(1), Sighting::Silent, LivenessRule::Silence, 2_600)]
    );
    scene.suspected(1);
    scene.pass(1_400);
    assert_eq!(scene.sightings(), []);
    scene.pass(100);
    assert_eq!(
        scene.liveness(),
        [(agent(1), Sighting::Gone, LivenessRule::Silence, 4_100)]
    );
}

#[test]
fn an_agent_that_never_beats_is_found_too() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.pass(2_600);
    assert_eq!(scene.sightings(), [Sighting::Silent]);
}

#[test]
fn a_suspected_agent_is_heard_again_only_by_a_heartbeat() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.suspected(1);
    scene.pass(1_000);
    assert_eq!(
        scene.sightings(),
        [],
        "taken over from another owner: nothing was heard yet"
    );
    scene.beat(1, 1, 0);
    scene.pass(100);
    assert_eq!(scene.sightings(), [Sighting::Heard]);
}

#[test]
fn an_observation_that_led_to_nothing_is_made_again() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.pass(2_600);
    assert_eq!(scene.sightings(), [Sighting::Silent]);
    scene.pass(1_400);
    assert_eq!(scene.sightings(), []);
    scene.pass(100);
    assert_eq!(scene.sightings(), [Sighting::Gone]);
    scene.pass(u64::try_from(ASK_AGAIN.as_millis()).expect("small") - 100);
    assert_eq!(scene.sightings(), []);
    scene.pass(100);
    assert_eq!(scene.sightings(), [Sighting::Gone]);
}

#[test]
fn an_outage_of_the_server_counts_for_nothing() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beat(1, 1, 0);
    scene.pass(2_400);
    scene.watch.cut_off(scene.now);
    scene.pass(60_000);
    assert_eq!(scene.sightings(), []);
    scene.watch.back(scene.now);
    let grace = u64::try_from(RETURN_GRACE.as_millis()).expect("small");
    scene.pass(grace + 2_500);
    assert_eq!(scene.sightings(), [], "everybody has time to come back");
    scene.pass(100);
    assert_eq!(
        scene.sightings(),
        [Sighting::Silent],
        "and no more than that"
    );
}

#[test]
fn what_a_starved_process_did_not_hear_counts_for_nothing() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beat(1, 1, 0);
    scene.pass(2_000);
    scene.now += TICK + STARVED + ms(1) + ms(60_000);
    assert!(scene.watch.tick(scene.now).is_empty());
    scene.pass(500);
    assert_eq!(scene.sightings(), []);
    scene.pass(100);
    assert_eq!(scene.sightings(), [Sighting::Silent]);
    // A tick that is late within the limit counts.
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.pass(2_000);
    scene.now += TICK + STARVED;
    assert_eq!(scene.watch.tick(scene.now).len(), 1);
}

#[test]
fn a_closed_connection_is_loss_after_half_a_second() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beat(1, 1, 0);
    let process = scene.process(1);
    scene.watch.closed(process, scene.now);
    scene.pass(500);
    assert_eq!(scene.sightings(), []);
    scene.pass(100);
    assert_eq!(
        scene.liveness(),
        [(agent(1), Sighting::Gone, LivenessRule::Disconnected, 600)]
    );
}

#[test]
fn who_comes_back_in_time_was_not_lost() {
    for back in ["connection", "heartbeat"] {
        let mut scene = Scene::new();
        scene.joins(1, 1, 1);
        let process = scene.process(1);
        scene.watch.closed(process, scene.now);
        scene.pass(400);
        if back == "connection" {
            scene.watch.opened(process);
        } else {
            scene.beat(1, 1, 0);
        }
        scene.pass(1_000);
        assert_eq!(scene.sightings(), [], "back by its {back}");
    }
}

#[test]
fn the_connection_of_another_process_says_nothing_of_this_one() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.joins(1, 2, 9);
    let old = scene.process(1);
    scene.watch.closed(old, scene.now);
    scene
        .watch
        .closed((place().swarm, agent(2), instance(9)), scene.now);
    scene.pass(1_000);
    assert_eq!(scene.sightings(), []);
    assert_eq!(scene.beat(1, 1, 0), Heard::OtherProcess);
    assert_eq!(scene.beat(1, 9, 0), Heard::Member);
    assert_eq!(scene.beat(2, 9, 0), Heard::Stranger);
}

#[test]
fn who_left_is_watched_no_more() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    let left = Left {
        incarnation: 1,
        reason: "done".into(),
    };
    scene.coordinator(
        Subject::Agent(place(), AgentVerb::Left, agent(1)),
        agent(1).0,
        left,
    );
    assert!(scene.watch.is_empty());
    scene.pass(10_000);
    assert_eq!(scene.sightings(), []);
    assert_eq!(scene.beat(1, 1, 0), Heard::Stranger);
}

#[test]
fn a_partition_that_is_given_up_is_watched_no_more() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    let other = Partition::all()
        .find(|p| *p != place().partition)
        .expect("64 of them");
    scene.watch.give_up(other);
    assert_eq!(scene.watch.len(), 1);
    scene.watch.give_up(place().partition);
    assert!(scene.watch.is_empty());
    scene
        .watch
        .adopt(&scene.world.state, place().partition, scene.now);
    assert_eq!(scene.watch.len(), 1);
}

#[test]
fn an_earlier_heartbeat_is_evidence_and_no_sign_of_life() {
    let mut scene = Scene::new();
    let beat = Heartbeat {
        instance: instance(1),
        incarnation: 1,
        counter: 1,
        status: "idle".into(),
        cpu_centipercent: 0,
        memory_kib: 0,
        active_connections: 0,
        queue_depth: 0,
        current_tasks: Vec::new(),
        metadata: Json::object(),
    };
    let at = Timestamp::from_micros(77);
    scene.watch.earlier(place(), agent(1), beat, at);
    scene.joins(1, 1, 1);
    scene.pass(2_600);
    let Some(Observed::Liveness { evidence, .. }) = scene
        .seen
        .iter()
        .find(|o| matches!(o, Observed::Liveness { .. }))
    else {
        panic!("it is silent");
    };
    assert_eq!(evidence.last_heartbeat_at, Some(at));
}

#[test]
fn figures_are_sampled_when_they_move_and_now_and_then() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.joins(2, 1, 2);
    scene.beating = vec![(1, 10), (2, 20)];
    let first = u64::try_from(FIRST_SAMPLE.as_millis()).expect("small");
    let interval = u64::try_from(SAMPLE_INTERVAL.as_millis()).expect("small");
    scene.pass(first);
    let parts = scene.samples();
    assert_eq!(parts.len(), 1);
    assert_eq!(
        parts[0]
            .iter()
            .map(|(_, s)| s.memory_kib)
            .collect::<Vec<_>>(),
        [10, 20]
    );
    scene.pass(interval);
    assert!(scene.samples().is_empty(), "nothing moved");
    scene.beating = vec![(1, 11), (2, 20)];
    scene.pass(interval);
    let parts = scene.samples();
    assert_eq!(parts.len(), 1);
    assert_eq!(
        parts[0]
            .iter()
            .map(|(id, s)| (*id, s.memory_kib))
            .collect::<Vec<_>>(),
        [(agent(1), 11)]
    );
    scene.pass(u64::try_from(SAMPLE_AGAIN.as_millis()).expect("small"));
    let again: Vec<AgentId> = scene
        .samples()
        .into_iter()
        .flatten()
        .map(|(id, _)| id)
        .collect();
    assert!(again.contains(&agent(1)) && again.contains(&agent(2)));
    // Who falls silent is not sampled again.
    scene.beating.clear();
    scene.pass(2 * u64::try_from(SAMPLE_AGAIN.as_millis()).expect("small"));
    assert!(scene.samples().len() <= 1);
}

#[test]
fn a_part_holds_no_more_agents_than_an_event_may() {
    let mut scene = Scene::new();
    let count = SAMPLE_AGENTS_MAX as u128 + 1;
    for n in 1..=count {
        scene.joins(n, 1, n);
        scene.beat(n, n, 1);
    }
    scene.pass(u64::try_from(FIRST_SAMPLE.as_millis()).expect("small"));
    let sizes: Vec<usize> = scene.samples().iter().map(Vec::len).collect();
    assert_eq!(sizes, [SAMPLE_AGENTS_MAX, 1]);
}

#[test]
fn what_is_observed_can_be_stored_and_judged() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.beat(1, 1, 3);
    scene.pass(2_600);
    for observed in std::mem::take(&mut scene.seen) {
        scene.world.control(
            Service::Health,
            swarm_events::subject::ControlVerb::Observed,
            observed,
        );
    }
    scene.world.settle();
    let types: Vec<_> = scene
        .world
        .inputs()
        .filter_map(|input| match input {
            Input::Event(recorded) if recorded.event.decided.is_some() => {
                Some(recorded.event.body.type_name())
            }
            _ => None,
        })
        .skip(2)
        .collect();
    assert_eq!(
        types,
        ["swarm.swarm.sampled.v1", "swarm.agent.suspected.v1"]
    );
}
