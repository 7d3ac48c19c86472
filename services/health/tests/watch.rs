//! Who is silent when: the rules of the watch, in virtual time.

mod support;

use support::{Scene, agent, instance, ms, place};
use swarm_events::{
    AgentId, Input, Json, Partition, Subject, Timestamp,
    agent::{Left, LivenessRule},
    configuration::{Configuration, HealthPolicy},
    control::{Observed, Sighting},
    subject::{AgentVerb, Service, SwarmVerb},
    swarm::{Heartbeat, SAMPLE_AGENTS_MAX, Updated},
};
use swarm_health::{
    samples::{FIRST_SAMPLE, SAMPLE_AGAIN, SAMPLE_INTERVAL},
    watch::{ASK_AGAIN, Heard, RETURN_GRACE, STARVED, TICK},
};

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
        messages_read: 0,
        messages_sent: 0,
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
    assert_eq!(sizes, [SAMPLE_AGENTS_MAX], "a part at a time");
    scene.pass(u64::try_from(TICK.as_millis()).expect("small"));
    let sizes: Vec<usize> = scene.samples().iter().map(Vec::len).collect();
    assert_eq!(sizes, [1]);
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
        ["swarm.swarm.sampled.v2", "swarm.agent.suspected.v1"]
    );
}

#[test]
fn changed_limits_hold_at_once() {
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.pass(2_000);
    let configuration = Configuration {
        heartbeat_interval_ms: support::INTERVAL_MS,
        health: HealthPolicy {
            suspect_after_ms: 2_100,
            fail_after_ms: 2_200,
            ..HealthPolicy::default()
        },
        ..Configuration::default()
    };
    let updated = Updated {
        name: "s".into(),
        description: None,
        configuration,
    };
    let subject = Subject::Swarm(place(), SwarmVerb::Updated);
    scene.coordinator(subject, place().swarm.0, updated);
    scene.pass(200);
    assert_eq!(scene.sightings(), [Sighting::Silent]);
    scene.pass(100);
    assert_eq!(
        scene.liveness(),
        [(agent(1), Sighting::Gone, LivenessRule::Silence, 2_300)]
    );
}

#[test]
fn a_wall_clock_that_jumps_makes_nobody_old_or_young() {
    const HOUR_MS: i64 = 3_600_000;
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    scene.joins(2, 1, 2);
    scene.beating = vec![(1, 7)];
    scene.beat(2, 2, 0);
    for skew_ms in [0, 5 * HOUR_MS, -7 * HOUR_MS, 0, HOUR_MS] {
        scene.skew_ms = skew_ms;
        scene.pass(500);
    }
    assert_eq!(scene.sightings(), [], "2.5 s of the monotonic clock");
    scene.skew_ms = -20 * HOUR_MS;
    scene.pass(100);
    assert_eq!(
        scene.liveness(),
        [(agent(2), Sighting::Silent, LivenessRule::Silence, 2_600)]
    );
    // Samples go on too, although their time goes back.
    scene.samples();
    scene.pass(u64::try_from((SAMPLE_AGAIN + SAMPLE_INTERVAL).as_millis()).expect("small"));
    let again = scene.samples().into_iter().flatten();
    assert!(again.map(|(id, _)| id).any(|id| id == agent(1)));
}

#[test]
fn agents_that_are_starved_within_the_limits_are_not_lost() {
    // All of them get no turn for a while, health does: beats come late by what they were starved.
    let mut scene = Scene::new();
    for n in 1..=10 {
        scene.joins(n, 1, n);
        scene.beat(n, n, 0);
    }
    let all_beat = |scene: &mut Scene| {
        for n in 1..=10 {
            scene.beat(n, n, 0);
        }
    };
    for late_ms in [1_400, 1_500, 900, 1_500] {
        scene.pass(1_000 + late_ms);
        all_beat(&mut scene);
    }
    assert_eq!(scene.sightings(), [], "nobody is even suspected");
    // Several seconds more than the interval: suspected, so that they get no new work, and heard again; never lost.
    scene.pass(2_600);
    assert_eq!(scene.sightings(), [Sighting::Silent; 10]);
    for n in 1..=10 {
        scene.suspected(n);
    }
    scene.pass(1_400);
    all_beat(&mut scene);
    scene.pass(100);
    assert_eq!(scene.sightings(), [Sighting::Heard; 10]);
}

#[test]
fn a_watch_that_is_starved_again_and_again_loses_nobody() {
    // Each turn comes late, just within what counts; what waits is heard after the look around.
    let mut scene = Scene::new();
    scene.joins(1, 1, 1);
    for _ in 0..100 {
        scene.now += TICK + STARVED;
        let seen = scene.watch.tick(scene.now);
        assert!(
            seen.iter()
                .all(|(_, o)| matches!(o, Observed::Samples { .. }))
        );
        scene.beat(1, 1, 0);
    }
    // And far beyond it.
    for _ in 0..100 {
        scene.now += ms(30_000);
        let seen = scene.watch.tick(scene.now);
        assert!(
            seen.iter()
                .all(|(_, o)| matches!(o, Observed::Samples { .. }))
        );
        scene.beat(1, 1, 0);
    }
}
