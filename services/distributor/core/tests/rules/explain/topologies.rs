//! What an explanation says of roles, parts of a tree, rounds and turns.

use swarm_distributor_core::explain::{Standing, What};
use swarm_events::topology::{Hierarchical, Mesh, Ring, Role, Seat, Star, Topology};

use super::{explain, kinds, queued, told};
use crate::scene::{Scene, shape::seat};

fn says(s: &mut Scene, task: &str, sentence: &str) {
    let told = told(s, task);
    assert!(told.iter().any(|t| t == sentence), "{told:#?}");
}

#[test]
fn who_has_the_role_and_who_stands_in_for_it() {
    let mut s = Scene::shaped(Topology::Star(Star::default()));
    s.side_by_side(&["A", "B"]);
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    s.world.settle();
    let found = queued(&mut s, "t");
    assert_eq!(found.required_role, Some(Role::Supervisor));
    assert_eq!((found.agents.misplaced, found.agents.free), (2, 0));
    assert_eq!(found.items[0].standing, Standing::Misplaced);
    assert!(!found.assignable);
    says(
        &mut s,
        "t",
        "It asks for a supervisor: agents with another role do not get it.",
    );
    says(
        &mut s,
        "t",
        "It would be assigned if one more agent that is a supervisor had a free slot.",
    );
    let told = told(&mut s, "t");
    assert!(
        told[0].ends_with("of the 2 that could take it, 2 have another place in the topology."),
        "{told:#?}"
    );
    s.elect(Some("B"));
    let leader = s.agent_id("B");
    let found = queued(&mut s, "t");
    assert!(found.assignable);
    assert_eq!(found.stands_in, Some(leader));
    says(
        &mut s,
        "t",
        "It asks for a supervisor: no live agent is one, so the leader, agent B, takes it.",
    );
    assert_eq!(s.news(), ["assigned t to B"]);
}

#[test]
fn why_an_agent_that_only_leads_others_does_not_get_what_asks_for_no_role() {
    let mut s = Scene::shaped(Topology::Star(Star::default()));
    s.join("A");
    s.seat(
        "A",
        Seat {
            works: false,
            ..seat(Role::Coordinator, 0)
        },
    );
    s.submit("t");
    s.world.settle();
    let sentence = "It asks for no role: agents whose place in the topology is not one for work (coordinators or supervisors that \
                    were made for that, workers beyond the limit, or who has no place yet) do not get it.";
    says(&mut s, "t", sentence);
    s.join("B");
    s.submit("u");
    s.world.settle();
    // It has it now; and where nobody is passed over for it, nothing is said.
    s.run_held("t");
    s.leave("A");
    s.unseat("A");
    s.submit("v");
    s.world.settle();
    let told = told(&mut s, "v");
    assert!(
        !told.iter().any(|t| t.starts_with("It asks for no role")),
        "{told:#?}"
    );
}

#[test]
fn below_whom_a_part_is_done() {
    let mut s = Scene::shaped(Topology::Hierarchical(Hierarchical::default()));
    for name in ["top", "left", "a", "other"] {
        s.join(name);
    }
    s.seat_below("top", Role::Coordinator, None, 0, false);
    s.seat_below("left", Role::Supervisor, Some("top"), 1, false);
    s.seat_below("a", Role::Worker, Some("left"), 2, true);
    s.seat_below("other", Role::Worker, Some("top"), 3, true);
    s.submit_as("t", |t| t.required_role = Some(Role::Supervisor));
    s.begin("t");
    s.split("t", &["1", "2"]);
    assert_eq!(s.news(), ["assigned t to left", "assigned t/1 to a"]);
    let left = s.agent_id("left");
    let found = queued(&mut s, "t/2");
    assert_eq!(found.within, Some(left));
    assert_eq!(
        (found.agents.full, found.agents.misplaced, found.agents.free),
        (1, 3, 0)
    );
    says(
        &mut s,
        "t/2",
        "It is a part of what agent left split: it goes to an agent below that one.",
    );
    says(
        &mut s,
        "t/2",
        "It would be assigned if one more agent below agent left had a free slot.",
    );
    says(
        &mut s,
        "t/1",
        "It was handed down by agent top and agent left.",
    );
    // Nobody is below it any more: the sentence is gone, and the task with it.
    s.leave("a");
    s.unseat("a");
    assert_eq!(queued(&mut s, "t/2").within, None);
    assert!(queued(&mut s, "t/2").assignable);
}

#[test]
fn whose_turn_it_is_and_when_the_next_one_comes() {
    let mut s = Scene::shaped(Topology::Ring(Ring::default()));
    s.side_by_side(&["A", "B"]);
    for (task, priority) in [("1", 5), ("2", 1), ("3", 10)] {
        s.submit_as(task, |t| t.priority = priority);
    }
    s.world.settle();
    s.start("1");
    let (a, b) = (s.agent_id("A"), s.agent_id("B"));
    let found = queued(&mut s, "3");
    let token = found.token.clone().expect("a ring");
    assert_eq!(
        (token.turns, token.agent_id, token.next),
        (1, Some(a), None)
    );
    assert_eq!(token.task_id, Some(s.task_id("1")));
    assert_eq!(found.ahead.count, 1);
    assert_eq!((found.agents.full, found.agents.not_its_turn), (1, 1));
    assert_eq!(kinds(&found), ["turn"]);
    assert_eq!(
        told(&mut s, "3")[1..],
        [
            "1 task was submitted before it, and gets its turn first.",
            "In the ring, agent A has had the token since +0ms for task 1: it passes on when that has ended, at +5000ms at \
             the latest.",
            "It would be assigned if the token passed on 2 times, one for each task before it: the first time at +5000ms at \
             the latest."
        ]
    );
    // What it says comes true.
    let What::Turn { at: Some(at), .. } = queued(&mut s, "2").would_be_assigned_if[0].what else {
        panic!("no time is named");
    };
    s.world.now = at;
    s.wake();
    let found = queued(&mut s, "2");
    assert!(found.assignable);
    assert_eq!(found.token.and_then(|token| token.next), Some(b));
    says(&mut s, "2", "The next turn is that of agent B.");
    assert!(!queued(&mut s, "3").assignable);
    assert!(s.news().contains(&"assigned 2 to B".to_owned()));
}

#[test]
fn who_may_take_over_what_waits_and_from_when_on() {
    let mut s = Scene::shaped(Topology::Mesh(Mesh {
        gossip_interval_ms: 1_000,
        ..Mesh::default()
    }));
    s.join_as("A", 1, 1, &[]);
    s.seat("A", seat(Role::Worker, 0));
    let into = u64::try_from(s.world.now.as_millis()).expect("after 1970") % 1_000;
    s.world.later(1_000 - into + 300);
    s.submit("1");
    s.submit("2");
    s.world.settle();
    s.start("1");
    says(
        &mut s,
        "2",
        "A neighbour of it that has a free slot, what the task needs and nothing else to take takes it over, from +700ms on.",
    );
}

#[test]
fn what_is_taken_away_for_its_agents_place_says_so() {
    let mut s = Scene::shaped(Topology::Star(Star::default()));
    s.join("A");
    s.submit("1");
    s.world.settle();
    s.seat(
        "A",
        Seat {
            works: false,
            ..seat(Role::Coordinator, 0)
        },
    );
    let explanation = explain(&mut s, "1");
    let told = &explanation.sentences;
    assert!(
        told.iter()
            .any(|t| t == "It is being taken away: by its agent's place in the topology it is not for that agent any more."),
        "{told:#?}"
    );
}
