use serde_json::json;
use swarm_events::{
    AgentId, Body,
    configuration::Configuration,
    swarm::{Created, Updated},
};
use swarm_topology::{Member, lacking};

use crate::world::{NOBODY, World, id, made, plain, star, whose};

#[test]
fn given_plain_agents_when_they_come_then_the_first_is_hub_and_all_work() {
    let world = World::of(star(json!({})), 4);
    assert_eq!(world.hubs(), [1]);
    assert_eq!(world.workers(), [1, 2, 3, 4]);
    assert_eq!((world.seat(1).level, world.seat(2).level), (0, 1));
    assert_eq!(world.who(|seat| seat.standby), [2]);
}

#[test]
fn given_one_that_is_made_for_it_when_it_comes_last_then_it_is_hub_and_does_only_that() {
    let mut world = World::of(star(json!({})), 3);
    let changes = world.join(made(9, "coordinator"));
    assert_eq!(world.hubs(), [9]);
    assert_eq!(world.workers(), [1, 2, 3]);
    assert_eq!(whose(&changes), [1, 9], "the others keep their seats");
    let by_capability = Member {
        capabilities: vec!["coordinator".into()],
        ..plain(1)
    };
    let mut world = World::new(star(json!({})));
    world.join(plain(2));
    world.join(by_capability);
    assert_eq!(world.hubs(), [1]);
}

#[test]
fn given_only_agents_made_for_it_when_nobody_else_is_there_then_they_work_until_somebody_comes() {
    let mut world = World::new(star(json!({})));
    world.join(made(1, "coordinator"));
    assert_eq!((world.hubs(), world.workers()), (vec![1], vec![1]));
    world.join(plain(2));
    assert_eq!(world.workers(), [2]);
    world.leave(2);
    assert_eq!(world.workers(), [1]);
}

#[test]
fn coordinator_count_is_the_number_of_hubs_and_none_if_it_is_none() {
    assert_eq!(
        World::of(star(json!({"coordinator_count": 3})), 5).hubs(),
        [1, 2, 3]
    );
    let world = World::of(star(json!({"coordinator_count": 3})), 2);
    assert_eq!(
        (world.hubs(), world.workers()),
        (vec![1, 2], vec![1, 2]),
        "too few agents"
    );
    let world = World::of(star(json!({"coordinator_count": 0})), 3);
    assert_eq!(
        (world.hubs(), world.who(|seat| seat.standby)),
        (vec![], vec![])
    );
    assert!(!world.talks(1, 2), "without a hub nobody talks");
    assert_eq!(world.workers(), [1, 2, 3]);
}

#[test]
fn given_failover_when_the_hub_is_lost_then_the_standby_has_its_place_and_the_next_one_stands_by() {
    let mut world = World::of(star(json!({})), 4);
    let changes = world.leave(1);
    assert_eq!(
        (world.hubs(), world.who(|seat| seat.standby)),
        (vec![2], vec![3])
    );
    assert_eq!(whose(&changes), [1, 2, 3]);
    assert_eq!(changes[1].reason, "hub: it stood by");
    // Back again, it is one of the workers.
    world.join(plain(1));
    assert_eq!(world.hubs(), [2]);
}

#[test]
fn given_a_standby_that_is_made_for_it_then_it_comes_before_older_ones() {
    let mut world = World::new(star(json!({})));
    for member in [made(1, "coordinator"), plain(2), made(3, "coordinator")] {
        world.join(member);
    }
    assert_eq!(
        (world.hubs(), world.who(|seat| seat.standby)),
        (vec![1], vec![3])
    );
    assert_eq!(world.workers(), [2, 3], "who stands by works");
    world.leave(1);
    assert_eq!((world.hubs(), world.workers()), (vec![3], vec![2]));
    assert_eq!(world.who(|seat| seat.standby), [2]);
}

#[test]
fn given_no_failover_when_the_hub_is_lost_then_its_place_waits_for_it() {
    let options = json!({"failover_coordinator": false});
    let mut world = World::of(star(options.clone()), 3);
    assert_eq!(world.who(|seat| seat.standby), NOBODY);
    world.leave(1);
    assert_eq!(world.hubs(), NOBODY, "nobody takes its place");
    world.join(plain(4));
    assert_eq!(
        world.hubs(),
        NOBODY,
        "a newcomer that is not made for it neither"
    );
    world.join(plain(1));
    assert_eq!(world.hubs(), [1], "it is back");

    let mut world = World::of(star(options), 3);
    world.leave(1);
    world.join(made(5, "coordinator"));
    assert_eq!(world.hubs(), [5], "one that is made for it has come");
    world.join(plain(1));
    assert_eq!(world.hubs(), [5], "its place is taken");
}

#[test]
fn given_no_failover_when_one_made_for_it_was_there_before_the_loss_then_the_place_waits_all_the_same()
 {
    let mut world = World::new(star(json!({"failover_coordinator": false})));
    for member in [made(1, "coordinator"), made(2, "coordinator"), plain(3)] {
        world.join(member);
    }
    world.leave(1);
    assert_eq!(world.hubs(), NOBODY);
    world.join(made(4, "coordinator"));
    assert_eq!(world.hubs(), [4]);
}

#[test]
fn given_a_snapshot_when_it_is_read_again_then_the_lost_hub_is_still_awaited() {
    let mut world = World::of(star(json!({"failover_coordinator": false})), 3);
    world.leave(1);
    let bytes = postcard::to_allocvec(&world.shape).expect("bytes");
    world.shape = postcard::from_bytes(&bytes).expect("a shape");
    world.settle();
    assert_eq!(world.hubs(), NOBODY);
    world.join(plain(1));
    assert_eq!(world.hubs(), [1]);
}

#[test]
fn the_selector_says_who_may_be_hub_and_nobody_else_is() {
    let options = json!({"coordinator": {"agent_type": "boss", "capability": "plan"}});
    let mut world = World::of(star(options), 2);
    assert_eq!((world.hubs(), world.workers()), (vec![], vec![1, 2]));
    world.join(made(3, "boss"));
    assert_eq!(world.hubs(), NOBODY, "it lacks the capability");
    let both = Member {
        capabilities: vec!["plan".into()],
        ..made(4, "boss")
    };
    world.join(both);
    assert_eq!((world.hubs(), world.workers()), (vec![4], vec![1, 2, 3]));
    world.leave(4);
    assert_eq!(
        world.hubs(),
        NOBODY,
        "the standby is one that may be hub, and there is none"
    );

    for options in [
        json!({"coordinator": {"agent_name": "agent-2"}}),
        json!({"coordinator": {"agent_id": id(2)}}),
    ] {
        let world = World::of(star(options), 3);
        assert_eq!((world.hubs(), world.workers()), (vec![2], vec![1, 3]));
    }
}

#[test]
fn given_a_hub_when_its_profile_changes_so_that_it_may_not_be_one_then_it_is_a_worker() {
    let options = json!({"coordinator": {"agent_type": "boss"}});
    let mut world = World::new(star(options));
    world.join(made(1, "boss"));
    world.join(plain(2));
    assert_eq!(world.hubs(), [1]);
    world.members.insert(Member {
        arrived: 1,
        ..plain(1)
    });
    world.around(id(1));
    assert_eq!((world.hubs(), world.workers()), (vec![], vec![1, 2]));
}

#[test]
fn workers_that_are_named_are_the_only_ones_by_name_or_id() {
    let options = json!({"workers": ["agent-2", id(3), "nobody"]});
    let mut world = World::of(star(options), 4);
    assert_eq!(world.workers(), [2, 3]);
    let reason = world.join(plain(5))[0].reason.clone();
    assert!(
        reason.contains("not one of the workers that are named"),
        "{reason}"
    );
    world.leave(2);
    assert_eq!(
        world.workers(),
        [3],
        "nobody takes the place of one that is named"
    );
    world.leave(3);
    assert_eq!(world.workers(), NOBODY);
}

#[test]
fn beyond_max_workers_the_youngest_wait_and_the_first_of_them_takes_a_place_that_is_free() {
    let mut world = World::of(star(json!({"max_workers": 3})), 5);
    assert_eq!(world.workers(), [1, 2, 3]);
    let changes = world.leave(3);
    assert_eq!(
        (world.workers(), whose(&changes)),
        (vec![1, 2, 4], vec![3, 4])
    );
    // Named ones too.
    let named = json!({"workers": ["agent-1", "agent-2", "agent-3"], "max_workers": 2});
    assert_eq!(World::of(star(named), 4).workers(), [1, 2]);
}

#[test]
fn without_a_limit_of_its_own_the_swarm_s_max_workers_holds() {
    let mut created = Created {
        name: "limited".into(),
        description: None,
        topology: star(json!({})),
        configuration: Configuration::default(),
        partition: 0,
        created_by: None,
    };
    created.configuration.max_workers = 2;
    let mut world = World::of(star(json!({})), 4);
    world.shape = swarm_topology::Shape::of(&created);
    world.settle();
    assert_eq!(world.workers(), [1, 2]);
    let updated = Updated {
        name: created.name,
        description: None,
        configuration: Configuration {
            max_workers: 3,
            ..created.configuration
        },
    };
    assert_eq!(world.shape.apply(None, &Body::from(updated)), Ok(true));
    world.settle();
    assert_eq!(world.workers(), [1, 2, 3]);
}

#[test]
fn messages_go_between_workers_and_hubs() {
    let world = World::of(star(json!({"coordinator_count": 2})), 4);
    assert!(world.talks(1, 3) && world.talks(3, 1) && world.talks(1, 2));
    let missing = world.shape.may_message(id(3), id(4)).expect_err("no edge");
    assert_eq!((missing.from, missing.to), (id(3), id(4)));
    assert!(
        missing.to_string().contains("workers talk to a hub"),
        "{missing}"
    );
    assert_eq!(
        (world.neighbours(3), world.neighbours(1)),
        (vec![1, 2], vec![2, 3, 4])
    );
    assert!(world.shape.may_message(id(1), id(1)).is_err(), "to itself");
    assert!(
        world
            .shape
            .may_message(id(1), AgentId(uuid::Uuid::nil()))
            .is_err()
    );
}

#[test]
fn all_workers_steal_from_each_other_but_not_those_that_do_not_work() {
    let world = World::of(star(json!({"max_workers": 2})), 3);
    assert!(world.shape.may_steal(id(1), id(2)) && !world.shape.may_steal(id(3), id(2)));
    assert!(!world.shape.may_steal(id(1), id(1)));
    assert!(
        world.shape.works(id(99)),
        "before it is seated an agent works"
    );
}

#[test]
fn an_unhealthy_agent_keeps_its_role_and_gets_no_new_one() {
    let mut world = World::of(star(json!({})), 3);
    assert!(
        world.health(1, false).is_empty(),
        "a suspicion moves nobody"
    );
    world.health(2, false);
    world.leave(1);
    assert_eq!(world.hubs(), [3], "the one that stood by is not healthy");
    let mut world = World::new(star(json!({})));
    world.join(Member {
        healthy: false,
        ..plain(1)
    });
    assert_eq!((world.hubs(), world.workers()), (vec![], vec![1]));
    world.health(1, true);
    assert_eq!(world.hubs(), [1]);
}

#[test]
fn a_topology_whose_named_agents_are_all_missing_lacks_somebody() {
    let world = World::of(star(json!({})), 2);
    let field = |options| lacking(&star(options), &world.members).and_then(|p| p.field);
    assert_eq!(field(json!({})), None);
    assert_eq!(field(json!({"workers": ["x", "agent-1"]})), None);
    assert_eq!(
        field(json!({"workers": ["x"]})).as_deref(),
        Some("configuration.workers")
    );
    assert_eq!(
        field(json!({"coordinator": {"agent_name": "agent-2"}})),
        None
    );
    let boss = json!({"coordinator": {"agent_name": "boss"}});
    assert_eq!(field(boss).as_deref(), Some("configuration.coordinator"));
    let kind = json!({"coordinator": {"agent_type": "boss"}});
    assert_eq!(field(kind), None, "one of that type may come");
}
