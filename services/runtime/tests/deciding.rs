//! The deciding loop over the simulated log: every command is answered exactly once, whatever goes wrong with appends,
//! tails and owners.

mod support;

use std::time::Duration;

use swarm_events::{
    Problem, Service, Subject, Timestamp, decider::Decision, envelope::Decided, subject::TaskVerb,
    task::Refused,
};
use swarm_log::{
    Log,
    simulated::{Fault, FaultRates, Faults},
};
use swarm_runtime::deciding::{decision_message, epoch_fence, state_hash};

use support::{Echo, World};

#[tokio::test(start_paused = true)]
async fn commands_are_answered_once_and_slow_ones_when_they_are_due() {
    let world = World::new();
    let clock = world.clock();
    let before = world.command(1, None).await;
    let replica = world.start("a");
    let after = world.command(2, Some("slow")).await;
    let sent = world.log.time();
    world.quiet(2).await;
    assert_eq!(world.answers(), [(before, 1), (after, 1)].into());
    let took_ms = (world.log.time() - sent) / 1_000;
    assert!(
        (10_000..10_500).contains(&took_ms),
        "woken after {took_ms} ms"
    );
    assert!(replica.status.ready());
    replica.stop.cancel();
    replica
        .task
        .await
        .expect("joined")
        .expect("stopped in order");
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_is_settled_by_a_new_claim() {
    for fault in [Fault::LostAck, Fault::LostMessage, Fault::Full] {
        let world = World::new();
        let clock = world.clock();
        let replica = world.start("a");
        // The claim goes well, the first decision does not.
        world
            .log
            .set_faults("a", Faults::scripted([None, Some(fault)]));
        let id = world.command(1, None).await;
        world.quiet(1).await;
        assert_eq!(world.answers(), [(id, 1)].into(), "{fault:?}");
        assert_eq!(replica.status.doubts(), 1, "{fault:?}");
        clock.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ghost_of_an_older_epoch_is_never_stored() {
    let world = World::new();
    let clock = world.clock();
    let _replica = world.start("a");
    world
        .log
        .set_faults("a", Faults::scripted([None, Some(Fault::Ghost)]));
    let id = world.command(1, None).await;
    world.quiet(1).await;
    assert_eq!(world.log.ghosts(), 1);
    assert_eq!(
        world.log.release_ghosts(),
        0,
        "the fence refuses what comes late"
    );
    assert_eq!(world.answers(), [(id, 1)].into());
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_newer_owner_ends_the_older_ones_writes() {
    let world = World::new();
    let clock = world.clock();
    let old = world.start("old");
    world.command(1, None).await;
    world.quiet(1).await;
    // The old owner is cut off (a pause), a new one claims, the old one comes back and finds itself superseded.
    world
        .log
        .limit_tails("old", Some(world.log.last_sequence()));
    let new = world.start("new");
    world.command(2, None).await;
    world.quiet(2).await;
    world.log.limit_tails("old", None);
    world.command(3, None).await;
    world.quiet(3).await;
    assert!(
        world.answers().values().all(|n| *n == 1),
        "{:?}",
        world.answers()
    );
    assert_eq!((old.status.owned(), new.status.owned()), (0, 1));
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_input_is_set_aside_and_the_rest_goes_on() {
    let world = World::new();
    let clock = world.clock();
    let replica = world.start("a");
    world.command(1, Some("poison")).await;
    let good = world.command(2, None).await;
    world.quiet(1).await;
    assert_eq!(world.answers(), [(good, 1)].into());
    assert_eq!(world.cold().rejected.len(), 1);
    assert!(!replica.task.is_finished(), "a panic never stops a replica");
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_every_command_is_answered_exactly_once() {
    const COMMANDS: u128 = 40;
    for seed in 0..60u64 {
        let world = World::new();
        let clock = world.clock();
        let rates = FaultRates {
            lost_ack: 60,
            lost_message: 60,
            ghost: 40,
            full: 20,
            ..FaultRates::default()
        };
        let mut replicas = Vec::new();
        for number in 0..3u64 {
            let name = format!("{seed}-{number}");
            world
                .log
                .set_faults(&name, Faults::seeded(seed * 31 + number, rates));
            replicas.push((name.clone(), world.start(&name)));
            for k in 0..COMMANDS / 4 {
                let id = u128::from(number) * COMMANDS + k + 1;
                world.command(id, (k % 5 == 0).then_some("slow")).await;
                tokio::time::sleep(Duration::from_millis(
                    (seed * 7 + number * 13 + k as u64 * 5) % 40,
                ))
                .await;
                match (seed + k as u64) % 7 {
                    0 => world.log.interrupt_tails(&name),
                    1 => {
                        world.log.disconnect(&name);
                        tokio::time::sleep(Duration::from_millis(seed % 700)).await;
                        world.log.reconnect(&name);
                    }
                    2 => drop(world.log.release_ghosts()),
                    _ => {}
                }
            }
            // A crash, or a replica that stays and is superseded by the next one.
            if seed % 2 == 0 && number < 2 {
                replicas.last().expect("just pushed").1.task.abort();
            }
        }
        for (name, _) in &replicas {
            world.log.set_faults(name, Faults::none());
        }
        let commands = usize::try_from(3 * (COMMANDS / 4)).expect("few");
        world.quiet(commands).await;
        world.log.release_ghosts();
        let cold = world.cold();
        assert!(cold.answered.values().all(|n| *n == 1), "seed {seed}");
        assert!(
            cold.open.is_empty(),
            "seed {seed}: a ghost opened a mark again"
        );
        // Snapshot and tail lead to the same state as the cold fold.
        let bytes = postcard::to_stdvec(&cold).expect("encoded");
        let again: Echo = postcard::from_bytes(&bytes).expect("decoded");
        assert_eq!(
            state_hash(&again).expect("hashed"),
            state_hash(&cold).expect("hashed"),
            "seed {seed}"
        );
        for (_, replica) in &replicas {
            replica.task.abort();
        }
        clock.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_forged_decision_under_the_own_epoch_leads_to_a_new_claim() {
    let world = World::new();
    let clock = world.clock();
    let replica = world.start("a");
    let first = world.command(1, None).await;
    world.quiet(1).await;
    // Somebody with the rights to it writes far ahead of the owner's ordinals: what the owner decides would be void.
    let epoch = world.cold().head.epoch(Service::Distributor).epoch;
    let subject = Subject::Task(world.place, TaskVerb::Refused, None);
    let forger = support::instance("forger");
    let decided = Decided {
        cause_sequence: epoch,
        epoch,
        ordinal: 1_000_000,
        decider_version: 1,
    };
    let refused = Refused {
        command_id: None,
        refused_subject: String::new(),
        refused_seq: 1,
        count: 1,
        problem: Problem::new("no", "no"),
    };
    let decision = Decision::new(subject, world.place.swarm.0, refused).caused_by(first);
    let message = decision_message(
        Service::Distributor,
        forger,
        epoch_fence(Service::Distributor, world.place.partition, epoch),
        decision,
        decided,
        None,
        Timestamp::ZERO,
    );
    let stored = world.log.append(vec![message.expect("JSON")]).await;
    assert!(stored[0].is_ok());
    let second = world.command(2, None).await;
    world.quiet(2).await;
    assert!(world.cold().head.epoch(Service::Distributor).epoch > epoch);
    assert_eq!(world.cold().answered, [(first, 1), (second, 1)].into());
    replica.task.abort();
    clock.abort();
}
