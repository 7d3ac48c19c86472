use serde_json::json;
use swarm_events::{
    Body,
    topology::{LeaderElected, Role, Seat, Seated, Topology, TopologyChanged, TopologyPlanned},
};
use swarm_topology::Shape;

use crate::world::{World, id, mesh, plain, ring, star, tree};

fn seated(generation: u64, place: u64) -> Body {
    Body::from(Seated {
        generation,
        seat: Some(Seat {
            place,
            works: true,
            ..Seat::default()
        }),
        named: None,
        reason: "a test".into(),
    })
}

#[test]
fn void_seats_change_nothing() {
    let mut world = World::of(ring(), 2);
    let before = world.shape.clone();
    let mut gone = seated(1, 1);
    if let Body::AgentSeated(body) = &mut gone {
        body.seat = None;
    }
    for (about, body, why) in [
        (Some(id(3)), seated(2, 9), "neither in force nor planned"),
        (Some(id(3)), seated(1, 2), "another agent has this place"),
        (Some(id(3)), gone, "it has no seat"),
        (None, seated(1, 3), "no agent"),
    ] {
        let void = world.shape.apply(about, &body).expect_err("void");
        assert!(void.contains(why), "{void}");
        assert_eq!(world.shape, before);
    }
}

#[test]
fn a_change_holds_from_changed_on_and_not_before() {
    let mut world = World::of(star(json!({})), 3);
    world.plan(&ring());
    assert_eq!(world.shape.staged_changes(&world.members).len(), 3);
    world.stage();
    assert_eq!((world.shape.generation(), world.talks(2, 3)), (1, false));
    world.changed();
    assert_eq!((world.shape.generation(), world.talks(2, 3)), (2, true));
    assert_eq!(world.shape.topology(), &ring());
    assert_eq!(world.seat(3).place, 3, "places are kept");
}

#[test]
fn a_change_that_is_kept_uses_its_number_up() {
    let mut world = World::of(star(json!({})), 2);
    world.plan(&ring());
    world.stage();
    world.kept();
    assert_eq!(
        (world.shape.generation(), world.shape.next_generation()),
        (1, 3)
    );
    assert!(world.shape.staged().is_none());
    world.change(&mesh(json!({})));
    assert_eq!(world.shape.generation(), 3);
}

#[test]
fn who_comes_or_goes_during_a_change_is_seated_in_both_with_the_same_place() {
    let mut world = World::of(star(json!({})), 3);
    world.plan(&tree(json!({})));
    world.stage();
    world.join(plain(4));
    world.leave(2);
    world.stage();
    let staged = world.shape.staged().expect("under way");
    assert_eq!((staged.len(), world.shape.seated()), (3, 3));
    assert_eq!(
        staged.seat(id(4)).map(|s| s.place),
        Some(world.seat(4).place)
    );
    world.changed();
    assert_eq!(world.shape.changes(&world.members), []);
}

#[test]
fn given_a_change_when_the_next_one_is_seated_first_then_places_do_not_collide() {
    let mut world = World::of(star(json!({})), 2);
    world.plan(&ring());
    // The newcomer is seated in the next generation first, and another one in the present one.
    world.come(plain(3));
    world.stage();
    world.come(plain(4));
    world.members.remove(id(3));
    let changes = world.shape.changes(&world.members);
    world.write(&changes);
    world.stage();
    world.changed();
    assert_eq!(world.shape.changes(&world.members), []);
}

#[test]
fn the_plan_counts_who_gets_another_role_or_parent() {
    let world = World::of(star(json!({})), 4);
    let plan = world.shape.plan(&ring(), &world.members);
    assert_eq!(
        (plan.generation, plan.agents, plan.moves),
        (2, 4, 1),
        "only the hub is something else"
    );
    let plan = world.shape.plan(&tree(json!({})), &world.members);
    // The hub stays coordinator; two become supervisors, and the worker gets a parent.
    assert_eq!((plan.agents, plan.moves), (4, 3));
}

#[test]
fn void_changes_change_nothing() {
    let mut world = World::of(star(json!({})), 2);
    let planned = |generation, before: &Topology| {
        Body::from(TopologyPlanned {
            generation,
            before: before.clone(),
            after: ring(),
            agents: 2,
            moves: 0,
            reason: "by order".into(),
        })
    };
    let changed = |generation, after: &Topology| {
        Body::from(TopologyChanged {
            generation,
            before: star(json!({})),
            after: after.clone(),
            agents: 2,
            moves: 0,
            reason: "by order".into(),
        })
    };
    let elected = Body::from(LeaderElected {
        leader: Some(id(2)),
        incarnation: 1,
        before: Some(id(2)),
        reason: "a test".into(),
        eligible: 1,
    });
    let before = world.shape.clone();
    for body in [
        planned(3, &star(json!({}))),
        planned(2, &ring()),
        changed(2, &ring()),
        elected,
    ] {
        assert!(world.shape.apply(None, &body).is_err(), "{body:?}");
        assert_eq!(world.shape, before);
    }
    world.plan(&ring());
    let before = world.shape.clone();
    for body in [
        planned(3, &star(json!({}))),
        changed(3, &ring()),
        changed(2, &mesh(json!({}))),
    ] {
        assert!(world.shape.apply(None, &body).is_err(), "{body:?}");
        assert_eq!(world.shape, before);
    }
    assert_eq!(
        world
            .shape
            .apply(None, &Body::from(swarm_events::swarm::Measured::default())),
        Ok(false)
    );
}

/// The events of a swarm's life, each with its subject: a follower is given the last of each, then the live ones.
#[test]
fn a_follower_of_the_last_events_comes_to_the_same_seats() {
    let mut world = World::of(star(json!({})), 3);
    world.change(&ring());
    world.change(&tree(json!({})));
    let mut follower = Shape::follower();
    for (agent, seat) in world.shape.seats() {
        let body = Body::from(Seated {
            generation: 3,
            seat: Some(*seat),
            named: None,
            reason: "".into(),
        });
        assert_eq!(follower.apply(Some(agent), &body), Ok(true));
    }
    let old = seated(2, 9);
    assert!(
        follower.apply(Some(id(8)), &old).is_err(),
        "of a generation that is past"
    );
    let body = Body::from(TopologyChanged {
        generation: 3,
        before: ring(),
        after: tree(json!({})),
        agents: 3,
        moves: 3,
        reason: "by order".into(),
    });
    assert_eq!(follower.apply(None, &body), Ok(true));
    assert!(follower.seats().eq(world.shape.seats()));
    assert_eq!(
        (follower.generation(), follower.topology()),
        (3, world.shape.topology())
    );
    // Live: a join, and the leader.
    world.join(plain(4));
    let body = Body::from(Seated {
        generation: 3,
        seat: world.shape.seat(id(4)).copied(),
        named: None,
        reason: "".into(),
    });
    assert_eq!(follower.apply(Some(id(4)), &body), Ok(true));
    assert_eq!(follower.role(id(4)), Some(Role::Worker));
    let body = Body::from(LeaderElected {
        leader: Some(id(1)),
        incarnation: 1,
        before: Some(id(7)),
        reason: "".into(),
        eligible: 1,
    });
    assert_eq!(follower.apply(None, &body), Ok(true));
    assert_eq!(follower.leader(), Some(id(1)));
}

#[test]
fn a_snapshot_is_the_shape() {
    let mut world = World::of(tree(json!({})), 20);
    world.plan(&mesh(json!({"connections": [["agent-1", "agent-2"]]})));
    world.stage();
    let bytes = postcard::to_allocvec(&world.shape).expect("bytes");
    let again: Shape = postcard::from_bytes(&bytes).expect("a shape");
    assert_eq!(again, world.shape);
}
