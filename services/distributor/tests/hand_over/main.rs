//! Tasks that go from swarm to swarm, by the distributor as it runs: loop, shell, outbox and core, each swarm's partition in a
//! process of its own. On the simulated log under faults, and on a real nats-server.

mod scene;

use std::{collections::BTreeMap, time::Duration};

use swarm_events::{
    Body, Input, Json, Place, Subject, TaskId, Timestamp,
    control::Observed,
    envelope::Source,
    ids::InstanceId,
    read,
    subject::TaskVerb,
    task::{Carried, part_id},
};
use swarm_log::{
    Log, Message,
    connect::ConnectSettings,
    jetstream::JetStreamLog,
    simulated::{FaultRates, Faults, SimulatedLog, SimulatedSettings},
};
use swarm_runtime::Shell;
use tokio::time::timeout;
use uuid::Uuid;

use scene::{PATIENCE, TRACE, Two, correlation, delivered, ends, id, real, simulated, text};

#[tokio::test(start_paused = true)]
async fn under_faults_and_killed_owners_each_task_has_one_end_here() {
    const TASKS: u128 = 12;
    for seed in 0..8u64 {
        let (log, clock) = simulated();
        let two = Two::new(log.clone(), 1).await;
        let rates = FaultRates {
            lost_ack: 60,
            lost_message: 60,
            ghost: 40,
            full: 10,
            ..FaultRates::default()
        };
        let start = |place: Place, round: u64, faults: Faults| {
            let name = format!("{seed}-{}-{round}", place.swarm);
            log.set_faults(&name, faults);
            Two::<SimulatedLog>::start(log.handle(&name), place, &name)
        };
        let mut task = 0;
        for round in 0..4 {
            let faults = |n| Faults::seeded(seed * 31 + round * 7 + n, rates);
            let here = start(two.here, round, faults(1));
            let there = start(two.there, round, faults(2));
            for _ in 0..TASKS / 4 {
                two.hand(id(task), |t| t.payload = text(task, 2_000)).await;
                task += 1;
            }
            tokio::time::sleep(Duration::from_millis(3_000 + 137 * (seed + round))).await;
            // Killed, not stopped: what it has acknowledged and not noted is said again.
            drop((here, there));
        }
        log.release_ghosts();
        let _here = start(two.here, 9, Faults::none());
        let _there = start(two.there, 9, Faults::none());
        let mut open: Vec<Uuid> = (0..TASKS).map(|n| id(n).0).collect();
        two.until(two.here, |recorded| {
            if ends(&recorded.event.body) {
                open.retain(|about| *about != recorded.event.about);
            }
            open.is_empty()
        })
        .await;
        // A while later, when everything that was said twice has been met, too.
        tokio::time::sleep(Duration::from_secs(30)).await;
        let mut state = swarm_distributor_core::Distributor::new(two.here.partition);
        let mut count: BTreeMap<Uuid, u32> = BTreeMap::new();
        for message in log.messages() {
            let time = Timestamp::from_micros(message.time_micros);
            let input = read(message.sequence, time, &message.subject, &message.payload);
            let verdict = swarm_events::decider::Decider::evolve(&mut state, &input, None);
            if let Input::Event(recorded) = input
                && verdict == swarm_events::decider::Verdict::Applied
                && recorded.subject.place() == Some(two.here)
                && ends(&recorded.event.body)
            {
                *count.entry(recorded.event.about).or_default() += 1;
            }
        }
        for n in 0..TASKS {
            assert_eq!(count.get(&id(n).0), Some(&1), "seed {seed}, task {n}");
            let view = state.task(two.here, id(n)).expect("remembered");
            assert_eq!(view.status.as_str(), "completed", "seed {seed}, task {n}");
        }
        assert_eq!(
            state.letters_open(),
            0,
            "seed {seed}: all is noted as delivered"
        );
        clock.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn an_id_that_a_stranger_has_burnt_keeps_no_letter_from_arriving() {
    let (log, clock) = simulated();
    let two = Two::new(log.clone(), 0).await;
    let here = Two::<SimulatedLog>::start(log.handle("here"), two.here, "here");
    two.hand(id(0), |_| {}).await;
    let over = two
        .until(two.here, |r| {
            matches!(r.event.body, Body::TaskHandedOver(_))
        })
        .await;
    let last = over.last().expect("it is handed over").sequence;
    here.end().await;
    clock.abort();
    // The same log up to there, and its state.
    let second = SimulatedLog::new(SimulatedSettings::default());
    let mut state = swarm_distributor_core::Distributor::new(two.here.partition);
    for stored in log.messages().into_iter().filter(|m| m.sequence <= last) {
        let time = Timestamp::from_micros(stored.time_micros);
        let input = read(stored.sequence, time, &stored.subject, &stored.payload);
        swarm_events::decider::Decider::evolve(&mut state, &input, None);
        let message = Message {
            subject: stored.subject.to_string(),
            payload: stored.payload,
            message_id: None,
            fence: None,
        };
        let again = second.append(vec![message]).await.remove(0);
        assert_eq!(again.expect("stored").sequence, stored.sequence);
    }
    let letter = state.letters(0).next().expect("a letter");
    let source = || Source::Client("stranger".to_owned());
    let (subject, event) = letter.event(source(), Timestamp::ZERO, Err(String::new()));
    let burnt = event.id.to_string();
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: Some(burnt.clone()),
        fence: None,
    };
    assert!(second.append(vec![message]).await.remove(0).is_ok());
    let me = InstanceId(Uuid::from_u128(6));
    let mut shell = swarm_distributor::DistributorShell::new(second.clone(), me);
    let mut observations = shell.observations().expect("it tells what it has done");
    shell.owned(&state);
    let told = timeout(PATIENCE, observations.recv())
        .await
        .expect("in time");
    let sequences = vec![letter.sequence];
    assert_eq!(
        told,
        Some((two.here.partition, Observed::Delivered { sequences }))
    );
    let there = Subject::Task(two.there, TaskVerb::Submitted, None).to_string();
    assert!(second.messages().iter().any(|m| *m.subject == *there));
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_real_server_a_task_goes_to_another_swarm_and_its_result_comes_back() {
    let nats = swarm_servers::testing::nats().await;
    let log = real(ConnectSettings::new(&nats.url, "test")).await;
    let mut two = Two::new(log.clone(), 1).await;
    let here = Two::<JetStreamLog>::start(log.clone(), two.here, "here");
    let there = Two::<JetStreamLog>::start(log.clone(), two.there, "there");
    let ended = async |two: &Two<JetStreamLog>, place, id: TaskId| {
        let mut seen = two
            .until(place, |r| r.event.about == id.0 && ends(&r.event.body))
            .await;
        seen.retain(|r| {
            r.event.correlation == Some(correlation(self::id(0))) || r.event.about == id.0
        });
        seen
    };

    // Done there, in parts, one of them too large for the state to hold.
    two.hand(id(0), |t| {
        t.task_type = "split".to_owned();
        t.payload = text(7, 4_000);
    })
    .await;
    let seen = ended(&two, two.here, id(0)).await;
    let Some(Body::TaskHandedBack(back)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    let expected = format!(r#"{{"long":{},"short":{}}}"#, text(7, 4_000), text(1, 10));
    assert_eq!(
        back.result,
        Carried::Inline(Json::parse(&expected).expect("JSON"))
    );
    assert_eq!(back.by, two.there.swarm);
    let words: Vec<&str> = seen.iter().map(|r| r.event.body.type_name()).collect();
    assert_eq!(
        words,
        [
            "swarm.task.submitted.v2",
            "swarm.task.handed_over.v1",
            "swarm.cmd.hand_back.v1",
            "swarm.task.handed_back.v1",
        ]
    );
    for recorded in &seen {
        assert_eq!(
            recorded.event.correlation,
            Some(correlation(id(0))),
            "{recorded:?}"
        );
    }
    assert_eq!(seen[2].event.traceparent.as_deref(), Some(TRACE));
    // There it is a task of the same correlation and trace, as are its parts.
    let Body::TaskHandedOver(over) = &seen[1].event.body else {
        panic!("{:?}", seen[1]);
    };
    let done = ended(&two, two.there, over.task_id).await;
    assert_eq!(done[0].event.about, over.task_id.0);
    assert_eq!(done[0].event.traceparent.as_deref(), Some(TRACE));
    let split = done.iter().find_map(|r| match &r.event.body {
        Body::TaskSplit(split) => Some(split.assignment),
        _ => None,
    });
    for index in 0..2 {
        let part = part_id(over.task_id, split.expect("it was split"), index);
        let mut parts = done.iter().filter(|r| r.event.about == part.0);
        let assigned = parts.find(|r| matches!(r.event.body, Body::TaskAssigned(_)));
        let assigned = assigned.expect("each part was assigned");
        assert_eq!(assigned.event.correlation, Some(correlation(id(0))));
    }

    // The other swarm is terminated while it has another one: that is its end, here too.
    two.hand(id(1), |t| t.task_type = "hold".to_owned()).await;
    let there_id = two
        .until(two.here, |r| {
            r.event.about == id(1).0 && matches!(r.event.body, Body::TaskHandedOver(_))
        })
        .await;
    let Some(Body::TaskHandedOver(over)) = there_id.last().map(|r| r.event.body.clone()) else {
        panic!("not handed over");
    };
    two.until(two.there, |r| {
        r.event.about == over.task_id.0 && matches!(r.event.body, Body::TaskStarted(_))
    })
    .await;
    two.terminate(two.there).await;
    let seen = ended(&two, two.here, id(1)).await;
    let Some(Body::TaskCancelled(cancelled)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    assert_eq!(cancelled.reason, "the swarm is being terminated");

    // And once it is deleted, nothing can be handed to it.
    two.delete(two.there).await;
    two.hand(id(2), |_| {}).await;
    let seen = ended(&two, two.here, id(2)).await;
    let Some(Body::TaskFailed(failed)) = seen.last().map(|r| r.event.body.clone()) else {
        panic!("{:?}", seen.last());
    };
    assert!(
        failed.error.contains("there is no swarm"),
        "{}",
        failed.error
    );
    assert!(failed.dead_lettered);

    // All that was said is noted as said, so that no later owner says it again.
    delivered(&log, two.here, 3).await;
    delivered(&log, two.there, 3).await;
    here.end().await;
    there.end().await;
}
