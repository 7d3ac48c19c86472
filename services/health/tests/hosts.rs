//! Hosts and strangers: the rules of the watch, in virtual time.

mod support;

use support::{INTERVAL_MS, Scene, agent, instance, ms, place};
use swarm_events::{Place, SwarmId, agent::LivenessRule, control::Sighting, swarm::Heartbeat};
use swarm_health::{
    core::{DISCONNECT_GRACE_MS, HOST_DOWN_GRACE_MS},
    hosts::HOST_SILENT_MS,
    samples::{FIRST_SAMPLE, SAMPLE_INTERVAL},
    strangers::{STRANGER_AFTER, STRANGERS_MAX, STRANGERS_TOLD_EVERY},
    watch::{ASK_AGAIN, Heard, RETURN_GRACE, STARVED, TICK},
};
use uuid::Uuid;

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("small")
}

#[test]
fn a_host_that_beats_is_never_spoken_of() {
    let mut scene = Scene::new();
    scene.claims(9, 1);
    assert_eq!(scene.watch.hosts(), 1);
    for _ in 0..100 {
        scene.pass(1_000);
        scene.host_beat(9, &[]);
    }
    assert_eq!(scene.gone(), []);
}

#[test]
fn a_silent_host_is_gone_after_four_seconds_and_spoken_of_again_if_nothing_follows() {
    let mut scene = Scene::new();
    scene.claims(9, 1);
    scene.host_beat(9, &[]);
    scene.pass(HOST_SILENT_MS);
    assert_eq!(scene.gone(), [], "not above the limit yet");
    scene.pass(100);
    let expected = (instance(9), LivenessRule::Silence, HOST_SILENT_MS + 100);
    assert_eq!(scene.gone(), [expected]);
    scene.pass(millis(ASK_AGAIN) - 100);
    assert_eq!(scene.gone(), []);
    scene.pass(100);
    assert_eq!(scene.gone().len(), 1);
    scene.host_beat(9, &[]);
    scene.pass(millis(ASK_AGAIN));
    assert_eq!(scene.gone(), [], "heard again");
}

#[test]
fn a_host_that_never_beats_is_found_too_and_one_without_claims_is_not_watched() {
    let mut scene = Scene::new();
    scene.host_beat(9, &[]);
    assert!(!scene.watch.knows_host(instance(9)));
    scene.claims(9, 1);
    scene.pass(HOST_SILENT_MS + 100);
    assert_eq!(scene.gone().len(), 1);
    scene.watch.give_up(place().partition);
    assert_eq!(scene.watch.hosts(), 0);
    scene.pass(20_000);
    assert_eq!(scene.gone(), []);
    // Taken over again: its silence is reckoned from now on.
    let (state, now) = (scene.world.state.clone(), scene.now);
    scene.watch.adopt(&state, place().partition, now);
    scene.pass(HOST_SILENT_MS);
    assert_eq!(scene.gone(), []);
    scene.pass(100);
    assert_eq!(scene.gone().len(), 1);
}

#[test]
fn a_closed_connection_of_a_host_is_its_loss_after_half_a_second_unless_it_comes_back() {
    for back in ["not", "connection", "beat"] {
        let mut scene = Scene::new();
        scene.claims(9, 1);
        scene.host_beat(9, &[]);
        scene.watch.host_closed(instance(9), scene.now);
        scene.watch.host_closed(instance(8), scene.now);
        scene.pass(DISCONNECT_GRACE_MS);
        assert_eq!(scene.gone(), []);
        match back {
            "connection" => scene.watch.host_opened(instance(9)),
            "beat" => scene.host_beat(9, &[]),
            _ => {}
        }
        scene.pass(100);
        let lost = (instance(9), LivenessRule::Disconnected, 600);
        let expected = if back == "not" {
            vec![lost]
        } else {
            Vec::new()
        };
        assert_eq!(scene.gone(), expected, "back: {back}");
    }
}

#[test]
fn a_host_that_closes_with_all_its_agents_is_down_and_they_with_it() {
    // Who does not close, or comes back.
    for but in ["nobody", "an agent", "an agent that came back", "the host"] {
        let mut scene = Scene::new();
        for n in [1, 2] {
            scene.claims(9, n);
            scene.joins(n, 1, n);
        }
        // By hand, and of no concern to the host.
        scene.joins(3, 1, 3);
        scene.beating = vec![(3, 0)];
        scene.host_beat(9, &[]);
        let process = |n| (place().swarm, agent(n), instance(n));
        scene.watch.closed(process(1), scene.now);
        if but != "an agent" {
            scene.watch.closed(process(2), scene.now);
        }
        if but != "the host" {
            scene.watch.host_closed(instance(9), scene.now);
        }
        scene.pass(100);
        if but == "an agent that came back" {
            scene.watch.opened(process(2));
        }
        scene.pass(HOST_DOWN_GRACE_MS - 100);
        assert_eq!((scene.liveness(), scene.gone()), (vec![], vec![]), "{but}");
        scene.pass(1);
        let age = HOST_DOWN_GRACE_MS + 1;
        let rule = LivenessRule::Disconnected;
        if but == "nobody" {
            let lost = |n| (agent(n), Sighting::Gone, rule, age);
            assert_eq!(scene.liveness(), [lost(1), lost(2)]);
            assert_eq!(scene.gone(), [(instance(9), rule, age)]);
            continue;
        }
        assert_eq!((scene.liveness(), scene.gone()), (vec![], vec![]), "{but}");
        // Each for itself has the longer grace.
        scene.pass(DISCONNECT_GRACE_MS - age);
        assert_eq!((scene.liveness(), scene.gone()), (vec![], vec![]), "{but}");
        scene.pass(1);
        let lost = |n| (agent(n), Sighting::Gone, rule, DISCONNECT_GRACE_MS + 1);
        let agents = if but == "the host" {
            vec![lost(1), lost(2)]
        } else {
            vec![lost(1)]
        };
        assert_eq!(scene.liveness(), agents, "{but}");
    }
}

#[test]
fn what_could_not_be_heard_of_a_host_counts_for_nothing() {
    let mut scene = Scene::new();
    scene.claims(9, 1);
    scene.host_beat(9, &[]);
    scene.watch.host_closed(instance(9), scene.now);
    scene.watch.cut_off(scene.now);
    scene.pass(60_000);
    scene.watch.back(scene.now);
    scene.pass(millis(RETURN_GRACE) + HOST_SILENT_MS);
    assert_eq!(scene.gone(), []);
    // Nor while this process got no turn.
    scene.host_beat(9, &[]);
    scene.pass(HOST_SILENT_MS - 100);
    scene.now += TICK + STARVED + ms(60_000);
    scene.watch.tick(scene.now);
    scene.pass(100);
    assert_eq!(scene.gone(), []);
    scene.pass(100);
    assert_eq!(scene.gone().len(), 1);
}

#[test]
fn the_figures_of_its_host_take_the_place_of_the_agents_own() {
    let mut scene = Scene::new();
    scene.claims(9, 1);
    scene.joins(1, 1, 1);
    scene.joins(2, 1, 2);
    scene.beating = vec![(1, 11), (2, 22)];
    // Of an agent that is not the host's it says nothing.
    scene.host_beat(9, &[(1, 500), (2, 600)]);
    scene.pass(millis(FIRST_SAMPLE));
    let parts = scene.samples();
    let figures = |parts: &[Vec<(swarm_events::AgentId, swarm_events::swarm::AgentSample)>]| {
        let all = parts.iter().flatten();
        all.map(|(id, s)| (*id, s.memory_kib, s.cpu_centipercent, s.active_connections))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        figures(&parts),
        [(agent(1), 500, 5, 6), (agent(2), 22, 0, 1)]
    );
    // The host says nothing more: the agent's own word is what there is.
    scene.pass(millis(SAMPLE_INTERVAL));
    assert_eq!(figures(&scene.samples()), [(agent(1), 11, 0, 1)]);
}

#[test]
fn a_stranger_is_told_of_when_it_goes_on_and_at_most_once_a_minute() {
    let mut scene = Scene::new();
    let mut beats = 0;
    let mut pass = |scene: &mut Scene, millis: u64| {
        for _ in 0..millis / INTERVAL_MS {
            assert_eq!(scene.beat(7, 7, 0), Heard::Stranger);
            assert_eq!(scene.beat(8, 8, 0), Heard::Stranger);
            beats += 2;
            scene.pass(INTERVAL_MS);
        }
        beats
    };
    pass(&mut scene, millis(STRANGER_AFTER));
    assert_eq!(scene.strangers(), [], "it may be about to join");
    let count = pass(&mut scene, 1_000);
    assert_eq!(scene.strangers(), [(agent(7), instance(7), count)]);
    let before = pass(&mut scene, millis(STRANGERS_TOLD_EVERY) - 1_000);
    assert_eq!(scene.strangers(), []);
    let after = pass(&mut scene, 1_000);
    let told = scene.strangers();
    assert_eq!(told.len(), 1);
    assert!(u64::from(told[0].2) >= u64::from(before - count) && told[0].2 <= after - count);
}

#[test]
fn who_joins_in_time_was_no_stranger_and_an_old_process_is_one() {
    let mut scene = Scene::new();
    for _ in 0..5 {
        assert_eq!(scene.beat(1, 1, 0), Heard::Stranger);
        scene.pass(1_000);
    }
    scene.joins(1, 1, 1);
    assert_eq!(scene.watch.strangers(), 0);
    scene.beating = vec![(1, 1)];
    scene.pass(60_000);
    assert_eq!(scene.strangers(), []);
    // Another process takes its place, and the old one goes on.
    scene.beating.clear();
    scene.joins(1, 2, 2);
    for _ in 0..12 {
        assert_eq!(scene.beat(1, 1, 0), Heard::OtherProcess);
        assert_eq!(scene.beat(1, 2, 0), Heard::Member);
        scene.pass(1_000);
    }
    let told = scene.strangers();
    assert_eq!(
        (told.len(), told[0].0, told[0].1),
        (1, agent(1), instance(1))
    );
}

#[test]
fn strangers_are_bounded_and_those_of_unknown_swarms_are_not_told_of() {
    let mut scene = Scene::new();
    for n in 0..STRANGERS_MAX as u128 + 10 {
        scene.beat(1_000 + n, n, 0);
    }
    assert_eq!(scene.watch.strangers(), STRANGERS_MAX);
    let mut scene = Scene::new();
    let elsewhere = Place::new(place().org, SwarmId(Uuid::from_u128(99)));
    for _ in 0..20 {
        let beat: Heartbeat = serde_json::from_value(serde_json::json!({
            "instance": Uuid::from_u128(5), "incarnation": 0, "counter": 1, "status": "idle",
            "cpu_centipercent": 0, "memory_kib": 0, "active_connections": 0, "queue_depth": 0,
            "current_tasks": [],
        }))
        .expect("a heartbeat");
        let (at, now) = (scene.at(), scene.now);
        let heard = scene.watch.beat(elsewhere, agent(1), beat, at, now);
        assert_eq!(heard, Heard::Stranger);
        scene.pass(1_000);
    }
    assert_eq!(scene.strangers(), []);
    assert_eq!(scene.watch.strangers(), 0);
}
