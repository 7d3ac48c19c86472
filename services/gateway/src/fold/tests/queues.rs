//! How many tasks wait, as last measured and since.

use super::*;

const NO_LIMITS: Limits = Limits {
    swarm: u64::MAX,
    shed_from_percent: 100,
    organization: None,
};

fn measured(story: &mut Story, place: Place, queued: u64) {
    let subject = Subject::Swarm(place, SwarmVerb::Measured);
    let body = Measured {
        queued,
        ..Measured::default()
    };
    let about = place.swarm.0;
    story.decide(Service::Distributor, Uuid::nil(), subject, about, body);
}

#[test]
fn stored_tasks_count_until_they_are_measured() {
    let shared = Arc::new(SharedFold::default());
    let admit = |tasks: usize| {
        let let_in = shared.admit(place(), NO_LIMITS, &vec![5; tasks]);
        let_in.unwrap_or_else(|(full, _)| panic!("{full:?}"))
    };
    let waiting = || {
        let waiting = shared.waiting(place());
        assert_eq!(waiting.swarm, waiting.organization, "its only swarm");
        waiting.swarm
    };
    admit(4).stored(1);
    assert_eq!(waiting(), 4);
    let mut story = story();
    shared.replace(story.fold.clone());
    assert_eq!(waiting(), 3, "the measurement counts them");
    admit(2).stored(story.sequence + 1);
    let under_way = admit(2);
    drop(admit(9));
    assert_eq!(waiting(), 7, "what was not stored does not count");
    // Its service had met what was stored before it, and not what is under way.
    story.sequence += 1;
    measured(&mut story, place(), 0);
    shared.replace(story.fold.clone());
    assert_eq!(waiting(), 2);
    under_way.stored(story.sequence + 1);
    assert_eq!(waiting(), 2);
    story.sequence += 1;
    measured(&mut story, place(), 2);
    shared.replace(story.fold);
    assert_eq!(waiting(), 2);
}

#[test]
fn requests_at_the_same_time_share_what_is_free() {
    let shared = Arc::new(SharedFold::default());
    let limits = Limits {
        swarm: 10,
        organization: Some(4),
        ..NO_LIMITS
    };
    let other = Place::new(place().org, SwarmId(Uuid::from_u128(99)));
    let Ok(first) = shared.admit(place(), limits, &[5; 3]) else {
        panic!("no room");
    };
    let Err((full, waiting)) = shared.admit(other, limits, &[5; 2]) else {
        panic!("not full");
    };
    assert_eq!(full, Full::Organization { limit: 4 });
    assert_eq!((waiting.swarm, waiting.organization), (0, 3));
    drop(first);
    assert!(shared.admit(other, limits, &[5; 2]).is_ok());
}

#[test]
fn an_organizations_sum_is_that_of_its_swarms_whatever_comes_and_goes() {
    let mut story = story();
    let here = place();
    // Swarms of the same partition, so that the services' claims hold for them.
    let others: Vec<Place> = (100u128..)
        .map(|n| Place::new(here.org, SwarmId(Uuid::from_u128(n))))
        .filter(|place| place.partition == here.partition)
        .take(2)
        .collect();
    let added_up = |fold: &Fold| -> u64 {
        let open = fold
            .swarms_of(here.org)
            .filter(|swarm| swarm.deleted_at.is_none());
        open.filter_map(|swarm| fold.measure(swarm.place))
            .map(Measure::waiting)
            .sum()
    };
    for (n, place) in (20u8..).zip(&others) {
        let create = Create {
            topology_configuration: swarm_events::Json::object(),
            name: format!("s{n}"),
            description: None,
            topology: None,
            configuration: Json::object(),
            created_by: None,
            body_sha256: None,
        };
        let about = place.swarm.0;
        let subject = Subject::Command(*place, CommandVerb::Create);
        story.client(keyed_id(n), subject, about, create);
        let created = swarm_events::swarm::Created {
            name: format!("s{n}"),
            description: None,
            topology: Default::default(),
            configuration: Default::default(),
            partition: place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(*place, SwarmVerb::Created);
        story.decide(Service::Coordinator, keyed_id(n), subject, about, created);
    }
    let (a, b) = (others[0], others[1]);
    for (place, queued, sum) in [(a, 5, 8), (b, 7, 15), (a, 0, 10), (a, 2, 12), (here, 1, 10)] {
        measured(&mut story, place, queued);
        assert_eq!(story.fold.waiting_of(here.org), sum);
        assert_eq!(added_up(&story.fold), sum);
    }
    // A deleted swarm's last figures count no more, nor do later ones.
    let about = b.swarm.0;
    let stopping = Subject::Swarm(b, SwarmVerb::Stopping);
    let deleted = Subject::Swarm(b, SwarmVerb::Deleted);
    let service = Service::Coordinator;
    let none = Uuid::nil();
    story.decide(
        service,
        none,
        stopping,
        about,
        swarm_events::swarm::Stopping {},
    );
    assert_eq!(story.fold.waiting_of(here.org), 10, "still there");
    story.decide(
        service,
        none,
        deleted,
        about,
        swarm_events::swarm::Deleted {},
    );
    for queued in [7, 4] {
        assert_eq!(story.fold.waiting_of(here.org), 3);
        assert_eq!(added_up(&story.fold), 3);
        measured(&mut story, b, queued);
    }
    assert_eq!(story.fold.waiting_of(here.org), 3);
    assert_eq!(story.fold.voids(), 0);
}
