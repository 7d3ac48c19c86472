//! Hand-overs that are refused, by this swarm or the other, and their limits.

use swarm_events::{
    Body, Event, InstanceId, Service, Subject, TaskId,
    command::{HandBack, Outcome},
    envelope::Source,
    task::{
        DependencyType::{Completion, Data},
        HAND_OVERS_MAX, Origin, handed_id,
    },
    topology::Topology,
};
use uuid::Uuid;

use super::{THERE, delete, error, hand, known, swarm, two};
use crate::scene::Scene;

#[test]
fn a_swarm_that_is_gone_going_full_or_refuses_hands_back_with_the_reason() {
    let stopping = |there: &mut Scene| there.stop_swarm();
    let deleted = |there: &mut Scene| {
        there.stop_swarm();
        delete(there);
    };
    let full = |there: &mut Scene| {
        there.configure(swarm_events::configuration::Configuration {
            queue_limit: 1,
            ..Default::default()
        });
        there.leave("Z");
        there.submit("other");
    };
    type Given<'a> = &'a dyn Fn(&mut Scene);
    let cases: [(&str, Given<'_>); 3] = [
        ("is being terminated", &stopping),
        ("there is no swarm", &deleted),
        ("queue_limit is 1", &full),
    ];
    for (why, make) in cases {
        let (mut here, mut there) = two();
        make(&mut there);
        there.world.settle();
        hand(&mut here, "t");
        here.mail(&mut there);
        there.mail(&mut here);
        assert_eq!(here.status("t"), "failed", "{why}");
        let error = error(&mut here, "t");
        assert!(error.contains(why), "{error}");
        assert!(here.view("t").dead_lettered);
        there.folds_agree();
    }
    // Never created, in that organization.
    let (mut here, mut there) = two();
    here.submit_as("t", |t| t.hand_to = Some(swarm(0xDEAD)));
    here.world.settle();
    let (sequence, subject, event) = here.letters().remove(0);
    // Whoever folds that partition: the world there only checks that it is its own.
    let mut nowhere = Scene::at(swarm(0xF00D), Topology::default(), |_| {});
    let _ = (&mut there, &mut nowhere);
    let mut world = swarm_events::testing::World::<swarm_distributor_core::Distributor>::new(
        subject.partition(),
    );
    world.event(&subject, &event);
    world.settle();
    here.delivered(vec![sequence]);
    let source = Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let posts: Vec<_> = world.state.letters(0).collect();
    assert_eq!(posts.len(), 1);
    assert_eq!(posts[0].reads(), None);
    let (subject, event) = posts[0].event(source, world.now, Err(String::new()));
    here.world.event(&subject, &event);
    here.world.settle();
    assert_eq!(here.status("t"), "failed");
    assert!(error(&mut here, "t").contains("there is no swarm"));
}

#[test]
fn a_submission_that_says_wrong_things_of_other_swarms_is_rejected_by_field() {
    let (mut here, _) = two();
    let own = here.place.swarm;
    here.submit_as("self", |t| t.hand_to = Some(own));
    let edges = here.edges(&[("nothing", Completion), ("data", Data)]);
    here.submit("nothing");
    here.submit("data");
    here.submit_as("data there", |t| {
        t.hand_to = Some(swarm(THERE));
        t.depends_on = edges;
    });
    let origin = Origin {
        swarm_id: swarm(THERE),
        task_id: TaskId(Uuid::from_u128(1)),
        generation: 1,
        hops: 1,
    };
    // A client says that another swarm wants it.
    here.submit_as("made up", |t| t.origin = Some(origin));
    let mut rejected: Vec<String> = here
        .news()
        .into_iter()
        .filter(|n| n.starts_with("rejected"))
        .collect();
    rejected.sort();
    assert_eq!(
        rejected,
        [
            "rejected data there: depends_on[1].dependency_type",
            "rejected made up: origin",
            "rejected self: hand_to",
        ]
    );
    assert_eq!(
        here.letters().len(),
        0,
        "nobody is told of what nobody said"
    );
    // A distributor says it of another id, or of this swarm itself.
    let distributor = || Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let other = here.task_id("other");
    here.submitted_by(distributor(), other, |t| t.origin = Some(origin));
    let mine = Origin {
        swarm_id: own,
        ..origin
    };
    here.submitted_by(distributor(), handed_id(&mine), |t| t.origin = Some(mine));
    let both = Origin {
        generation: 2,
        ..origin
    };
    here.submitted_by(distributor(), handed_id(&both), |t| {
        t.origin = Some(both);
        t.hand_to = Some(swarm(0xD));
    });
    let rejected = here.news();
    assert_eq!(rejected.len(), 3, "{rejected:?}");
    assert!(
        rejected
            .iter()
            .all(|n| n.starts_with("rejected") && n.ends_with("origin")),
        "{rejected:?}"
    );
    here.folds_agree();
}

#[test]
fn a_chain_of_hand_overs_ends_at_its_limit() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    let distributor = || Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
    let from = |generation, hops| Origin {
        swarm_id: swarm(THERE),
        task_id: TaskId(Uuid::from_u128(1)),
        generation,
        hops,
    };
    for (generation, hops, on) in [(1, HAND_OVERS_MAX - 1, true), (2, HAND_OVERS_MAX, false)] {
        let origin = from(generation, hops);
        s.submitted_by(distributor(), handed_id(&origin), |t| {
            t.origin = Some(origin)
        });
        s.news();
        // Whoever does it hands on what it makes of it.
        let name = format!("on {hops}");
        s.submit_as(&name, |t| {
            t.parent_task_id = Some(handed_id(&origin));
            t.hand_to = Some(swarm(THERE));
        });
        let news = s.news();
        let rejected = format!("rejected {name}: hand_to");
        assert_eq!(s.view(&name).handed_over, on);
        assert_eq!(news.contains(&rejected), !on, "{news:?}");
    }
    let said = s
        .letters()
        .into_iter()
        .find_map(|(_, _, event)| match event.body {
            Body::TaskSubmitted(task) => task.origin,
            _ => None,
        });
    assert_eq!(said.map(|origin| origin.hops), Some(HAND_OVERS_MAX));
    let beyond = from(3, HAND_OVERS_MAX + 1);
    s.submitted_by(distributor(), handed_id(&beyond), |t| {
        t.origin = Some(beyond)
    });
    assert!(
        s.news()
            .iter()
            .any(|n| n.starts_with("rejected") && n.ends_with("origin"))
    );
}

#[test]
fn only_the_swarm_that_has_it_hands_it_back() {
    let (mut here, mut there) = two();
    hand(&mut here, "t");
    let back = |here: &mut Scene, by: u128, generation: u32| {
        let task_id = here.task_id("t");
        let body = HandBack {
            task_id,
            generation,
            by: swarm(by),
            outcome: Outcome::Cancelled {
                reason: "no".to_owned(),
            },
        };
        let subject = Subject::Command(here.place, swarm_events::subject::CommandVerb::HandBack);
        let source = Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(5)));
        let id = here.world.id();
        let event = Event::new(
            swarm_events::EventId(id),
            source,
            here.world.now,
            &subject,
            task_id.0,
            body,
        );
        here.world.event(&subject, &event);
        here.world.settle();
        match here.world.answer(id).body {
            Body::TaskRefused(refused) => refused.problem.code,
            other => panic!("{other:?}"),
        }
    };
    here.world.settle();
    assert_eq!(back(&mut here, 0xD, 1), "not-handed-over");
    assert_eq!(back(&mut here, THERE, 2), "not-handed-over");
    here.mail(&mut there);
    let name = known(&mut here, &mut there, "t", 1);
    there.run(&name);
    there.mail(&mut here);
    assert_eq!(back(&mut here, THERE, 1), "task-ended");
    assert_eq!(here.status("t"), "completed");
}

#[test]
fn what_is_handed_over_counts_against_the_queue_limit_here() {
    let mut here = Scene::with(|c| {
        c.queue_limit = 2;
        c.shed_from_percent = 100;
    });
    for task in ["1", "2", "3"] {
        hand(&mut here, task);
    }
    assert_eq!(
        here.news(),
        [
            "handed over 1: 1",
            "handed over 2: 1",
            "rejected 3: configuration.queue_limit"
        ]
    );
}
