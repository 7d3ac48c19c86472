//! Who may have what by the topology, and what a change of it takes away.

use swarm_events::{
    Subject, TaskId,
    agent::{Evidence, LivenessRule, Suspected},
    configuration::Algorithm,
    subject::AgentVerb,
    task::{Part, Submitted, Then, WithdrawReason},
    topology::{Mesh, Role, Seat, Topology},
};

use super::{super::scene::*, below, part, shaped, spoke, star, tree, worker};
use crate::Invariant;

#[test]
fn routes_by_topology_to_those_that_work() {
    let mut scene = star();
    scene.submit(task(1));
    scene.assign(task(1), agent(2));
    scene.clean();
    scene.submit(task(2));
    let to_the_hub = scene.assign(task(2), agent(1));
    scene.broken(Invariant::RoutesByTopology, to_the_hub);
}

#[test]
fn routes_by_topology_are_judged_at_the_cause() {
    let mut scene = star();
    let before = scene.submit(task(1));
    scene.seat(
        agent(2),
        1,
        Some(Seat {
            works: false,
            ..spoke(2)
        }),
    );
    scene.forged.cause = Some(before);
    scene.assign(task(1), agent(2));
    scene.clean();
    scene.submit(task(2));
    let knowing = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, knowing);
}

#[test]
fn routes_by_topology_to_the_role_that_is_asked_for() {
    let asks = |t: &mut Submitted| t.required_role = Some(Role::Coordinator);
    let mut scene = star();
    scene.submit_with(task(1), asks);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.submit_with(task(2), asks);
    let wrong = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, wrong);
    // Nobody is a supervisor: the leader stands in, and nobody else.
    let asks = |t: &mut Submitted| t.required_role = Some(Role::Supervisor);
    let mut scene = star();
    scene.submit_with(task(1), asks);
    scene.assign(task(1), agent(1));
    scene.clean();
    scene.submit_with(task(2), asks);
    let wrong = scene.assign(task(2), agent(2));
    scene.broken(Invariant::RoutesByTopology, wrong);
}

#[test]
fn routes_by_topology_down_the_tree() {
    let of = |n: u128| below(n as u64, u32::from(n > 1), (n > 1).then_some(agent(1)));
    let mut scene = shaped(tree(4), 3, of);
    for n in 1..=2 {
        scene.submit(task(n));
    }
    scene.assign_with(task(1), agent(2), |a| a.path = vec![agent(1)]);
    scene.clean();
    let wrong = scene.assign_with(task(2), agent(3), |a| a.path = vec![agent(3)]);
    scene.broken(Invariant::RoutesByTopology, wrong);
}

/// A coordinator with one worker below it splits a task in two; only somebody with a `b` can do the first part.
fn parted_tree(words: &[&str]) -> (Scene, [TaskId; 2]) {
    let of = |n: u128| {
        let parent = (n > 1).then_some(agent(1));
        Seat {
            works: true,
            ..below(n as u64, u32::from(n > 1), parent)
        }
    };
    let mut scene = shaped(tree(4), 2, of);
    let mut words = words.to_vec();
    words.push("a");
    scene.join_with(agent(2), 2, 1, 2, &words);
    scene.submit(task(1));
    let assignment = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), assignment);
    let part = |key: &str, words: &[&str]| Part {
        required_capabilities: words.iter().map(|&word| word.to_owned()).collect(),
        ..part(key)
    };
    let parts = [part("x", &["a"]), part("y", &["b"])];
    let parts = scene.split_in(task(1), agent(1), assignment, parts.into());
    scene.clean();
    (scene, parts)
}

#[test]
fn routes_by_topology_below_who_split_it_while_somebody_there_can() {
    let (mut scene, [first, _]) = parted_tree(&[]);
    let wrong = scene.assign(first, agent(1));
    scene.broken(Invariant::RoutesByTopology, wrong);
    // Nobody below it can.
    let (mut scene, [first, second]) = parted_tree(&[]);
    scene.assign_with(first, agent(2), |a| {
        (a.incarnation, a.path) = (2, vec![agent(1)]);
    });
    scene.join_with(agent(1), 2, 1, 2, &["a", "b"]);
    scene.assign_with(second, agent(1), |a| a.incarnation = 2);
    scene.clean();
}

#[test]
fn priority_order_leaves_out_what_may_have_to_stay_below_another() {
    let (mut scene, _) = parted_tree(&[]);
    scene.submit(task(2));
    scene.assign(task(2), agent(1));
    scene.clean();
    // The worker below it is on its way out: whether the parts wait for it, nobody can tell surely.
    let (mut scene, _) = parted_tree(&[]);
    let subject = Subject::Agent(scene.place, AgentVerb::Suspected, agent(2));
    let evidence = Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 4_000,
        limit_ms: 4_000,
    };
    let suspected = Suspected {
        incarnation: 2,
        evidence,
    };
    scene.decide(HEALTH, subject, agent(2).0, suspected);
    scene.submit(task(2));
    scene.assign(task(2), agent(1));
    scene.clean();
    // It has failed: they come first.
    let (mut scene, _) = parted_tree(&[]);
    scene.fail_agent(agent(2), 2);
    scene.submit(task(2));
    let late = scene.assign(task(2), agent(1));
    scene.broken(Invariant::PriorityOrder, late);
}

/// One of four in a circle of neighbours is busy, and one task waits at it.
fn busy(mesh: Mesh) -> (Scene, u64) {
    let mut scene = shaped(Topology::Mesh(mesh), 4, |n| worker(n as u64));
    for n in 1..=2 {
        scene.submit(task(n));
    }
    let first = scene.assign(task(1), agent(1));
    let second = scene.assign(task(2), agent(1));
    scene.start(task(1), agent(1), first);
    (scene, second)
}

#[test]
fn routes_by_topology_hold_for_steals() {
    let near = || Mesh {
        connection_strategy: swarm_events::topology::ConnectionStrategy::Nearest,
        neighbours: 2,
        gossip_interval_ms: 0,
        ..Mesh::default()
    };
    let (mut scene, held) = busy(near());
    scene.later(60);
    scene.progress(task(1), agent(1), held - 1);
    scene.steal(task(2), agent(1), held, agent(2));
    scene.clean();
    let (mut scene, held) = busy(near());
    scene.later(60);
    scene.progress(task(1), agent(1), held - 1);
    let far = scene.steal(task(2), agent(1), held, agent(3));
    scene.broken(Invariant::RoutesByTopology, far);
}

#[test]
fn routes_by_topology_wait_for_the_next_round_of_gossip() {
    let round = 60_000;
    let mesh = || Mesh {
        gossip_interval_ms: round,
        ..Mesh::default()
    };
    for (later, told) in [(100, false), (round, true)] {
        let (mut scene, held) = busy(mesh());
        scene.later(later);
        scene.progress(task(1), agent(1), held - 1);
        let steal = scene.steal(task(2), agent(1), held, agent(3));
        if told {
            scene.clean();
        } else {
            scene.broken(Invariant::RoutesByTopology, steal);
        }
    }
}

#[test]
fn circle_kept_counts_no_turn_for_what_was_taken_over_whoever_gets_it() {
    let mut scene = shaped(Topology::Mesh(Mesh::default()), 3, |n| worker(n as u64));
    scene.set(|c| c.distribution_algorithm = Algorithm::RoundRobin);
    for n in 1..=4 {
        scene.submit(task(n));
    }
    let first = scene.assign(task(1), agent(1));
    scene.start(task(1), agent(1), first);
    scene.assign(task(2), agent(2));
    scene.assign(task(3), agent(3));
    let waiting = scene.assign(task(4), agent(1));
    scene.start(task(2), agent(2), waiting - 2);
    scene.later(60_000);
    scene.complete(task(2), agent(2), waiting - 2);
    scene.steal(task(4), agent(1), waiting, agent(2));
    // It goes to somebody else, and `stolen_from` is not told: still no turn of that one.
    scene.assign(task(4), agent(3));
    scene.submit(task(5));
    scene.submit(task(6));
    scene.assign(task(5), agent(2));
    scene.assign(task(6), agent(3));
    scene.clean();
}

#[test]
fn no_task_lost_by_a_change() {
    let by_topology = |scene: &mut Scene, assignment: u64, force: bool, then: Then| {
        scene.withdraw_with(task(1), agent(2), assignment, |withdrawn| {
            withdrawn.reason = WithdrawReason::Topology;
            (withdrawn.force, withdrawn.then) = (force, then);
        })
    };
    let given = |works: bool| {
        let mut scene = star();
        scene.submit(task(1));
        let assignment = scene.assign(task(1), agent(2));
        scene.seat(agent(2), 1, Some(Seat { works, ..spoke(2) }));
        (scene, assignment)
    };
    let (mut scene, assignment) = given(false);
    by_topology(&mut scene, assignment, false, Then::Queue);
    scene.clean();
    for (works, force, then) in [
        (true, false, Then::Queue),
        (false, true, Then::Queue),
        (false, false, Then::End),
    ] {
        let (mut scene, assignment) = given(works);
        let wrong = by_topology(&mut scene, assignment, force, then);
        scene.broken(Invariant::NoTaskLostByAChange, wrong);
    }
    // What has started stays.
    let (mut scene, assignment) = given(false);
    scene.start(task(1), agent(2), assignment);
    let late = by_topology(&mut scene, assignment, false, Then::Queue);
    scene.broken(Invariant::NoTaskLostByAChange, late);
}
