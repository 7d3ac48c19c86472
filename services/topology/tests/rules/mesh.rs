use serde_json::json;

use crate::world::{NOBODY, World, id, mesh, plain, whose};

#[test]
fn in_a_full_mesh_everybody_works_and_talks_to_everybody() {
    let world = World::of(mesh(json!({})), 5);
    assert_eq!(world.workers(), [1, 2, 3, 4, 5]);
    assert!(world.who(|seat| seat.level == 0).len() == 5);
    assert_eq!(world.neighbours(2), [1, 3, 4, 5]);
    assert_eq!(world.shape.edges().count(), 10);
    assert!(world.shape.may_steal(id(1), id(5)));
}

#[test]
fn the_nearest_are_half_of_them_on_each_side_of_the_circle() {
    let mut world = World::of(
        mesh(json!({"connection_strategy": "nearest", "neighbours": 4})),
        10,
    );
    assert_eq!(world.neighbours(5), [3, 4, 6, 7]);
    assert_eq!(world.neighbours(1), [2, 3, 9, 10]);
    assert!(world.talks(1, 9) && !world.talks(1, 8) && world.shape.may_steal(id(10), id(2)));
    assert!(!world.shape.may_steal(id(1), id(5)));
    let changes = world.leave(4);
    assert_eq!(whose(&changes), [4], "nobody's seat changes");
    assert_eq!(world.neighbours(5), [2, 3, 6, 7], "the circle closes");
    assert_eq!(world.shape.edges().count(), 9 * 2);
}

#[test]
fn given_no_more_agents_than_neighbours_then_everybody_is_one() {
    let world = World::of(
        mesh(json!({"connection_strategy": "nearest", "neighbours": 4})),
        4,
    );
    assert_eq!(
        (world.neighbours(1), world.shape.edges().count()),
        (vec![2, 3, 4], 6)
    );
    let world = World::of(
        mesh(json!({"connection_strategy": "nearest", "neighbours": 2})),
        1,
    );
    assert_eq!((world.neighbours(1), world.workers()), (vec![], vec![1]));
}

#[test]
fn connections_that_are_given_alone_count_by_name_or_id() {
    let options = json!({"connections": [["agent-1", "agent-2"], ["agent-2", id(3)], ["agent-9", "agent-1"]]});
    let mut world = World::of(mesh(options), 4);
    assert_eq!(
        (
            world.neighbours(2),
            world.neighbours(1),
            world.neighbours(4)
        ),
        (vec![1, 3], vec![2], vec![])
    );
    assert!(world.talks(3, 2) && !world.talks(1, 3) && !world.talks(1, 4));
    assert!(world.shape.may_steal(id(2), id(1)) && !world.shape.may_steal(id(4), id(1)));
    world.join(plain(9));
    assert_eq!(world.neighbours(1), [2, 9], "it was awaited");
    world.leave(2);
    assert_eq!(
        (world.neighbours(1), world.neighbours(3)),
        (vec![9], vec![])
    );

    // The seats alone tell the names, also after a snapshot.
    let bytes = postcard::to_allocvec(&world.shape).expect("bytes");
    let again: swarm_topology::Shape = postcard::from_bytes(&bytes).expect("a shape");
    assert_eq!(again, world.shape);
    assert!(again.may_message(id(1), id(9)).is_ok());
}

#[test]
fn given_connections_by_name_when_an_agent_is_renamed_then_its_seat_says_so() {
    let mut world = World::of(mesh(json!({"connections": [["agent-1", "pilot"]]})), 2);
    assert_eq!(world.neighbours(1), NOBODY);
    let mut renamed = world.members.get(id(2)).expect("there").clone();
    renamed.name = "pilot".into();
    world.members.insert(renamed);
    let changes = world.around(id(2));
    assert_eq!(changes[0].named.as_deref(), Some("pilot"));
    assert_eq!(world.neighbours(1), [2]);
}
