use serde_json::json;
use swarm_topology::{Members, Shape};

use crate::world::{World, id, made, mesh, plain, ring, star, tree};

#[test]
fn the_hub_leads_and_stays_when_another_one_becomes_hub() {
    let mut world = World::of(star(json!({})), 3);
    assert_eq!(world.shape.leader(), Some(id(1)));
    world.join(made(4, "coordinator"));
    assert_eq!((world.hubs(), world.shape.leader()), (vec![4], Some(id(1))));
    world.leave(1);
    assert_eq!(world.shape.leader(), Some(id(4)));
}

#[test]
fn the_top_of_the_tree_leads_and_whoever_takes_its_place() {
    let mut world = World::of(tree(json!({})), 6);
    assert_eq!(world.shape.leader(), Some(id(1)));
    world.leave(1);
    assert_eq!(
        world.shape.leader(),
        Some(world.shape.tops().next().expect("a top"))
    );
}

#[test]
fn without_a_hub_the_oldest_made_for_it_leads_and_else_the_oldest() {
    for topology in [
        mesh(json!({})),
        ring(),
        star(json!({"coordinator_count": 0})),
    ] {
        let mut world = World::of(topology, 2);
        assert_eq!(world.shape.leader(), Some(id(1)));
        world.join(made(3, "coordinator"));
        assert_eq!(world.shape.leader(), Some(id(1)), "the leader stays");
        world.leave(1);
        assert_eq!(world.shape.leader(), Some(id(3)));
    }
}

#[test]
fn a_suspicion_costs_nobody_the_lead_but_nobody_unhealthy_is_elected() {
    let mut world = World::of(ring(), 3);
    world.health(1, false);
    assert_eq!(world.shape.leader(), Some(id(1)));
    world.health(2, false);
    world.members.remove(id(1));
    let election = world.shape.elect(&world.members).expect("an election");
    assert_eq!((election.leader, election.eligible), (Some(id(3)), 1));
    assert!(
        election
            .reason
            .contains("the one before has gone or failed"),
        "{}",
        election.reason
    );
}

#[test]
fn when_nobody_is_healthy_nobody_leads_and_it_is_said_once() {
    let mut world = World::of(ring(), 2);
    world.health(2, false);
    world.leave(1);
    assert_eq!(world.shape.leader(), None);
    assert_eq!(world.shape.elect(&world.members), None);
    world.health(2, true);
    assert_eq!(world.shape.leader(), Some(id(2)));
    assert_eq!(Shape::new(ring()).elect(&Members::default()), None);
}

#[test]
fn among_hubs_the_one_with_the_lowest_place_leads_and_all_of_them_could() {
    let mut world = World::new(star(json!({"coordinator_count": 2})));
    for number in 1..=4 {
        world.come(plain(number));
    }
    let changes = world.shape.changes(&world.members);
    world.write(&changes);
    let election = world.shape.elect(&world.members).expect("an election");
    assert_eq!((election.leader, election.eligible), (Some(id(1)), 2));
}
