//! Several replicas over the simulated log, in virtual time: who owns what, how long a takeover takes, and that nothing is
//! answered twice on the way.

mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use support::{Echo, HEAVY_BYTES, Replica, World, instance};
use swarm_events::{
    Body, Input, OrgId, Partition, Place, SwarmId, Timestamp,
    control::Observed,
    decider::Decider,
    ids::InstanceId,
    read,
    subject::{Service, Subject},
};
use swarm_log::{Log, Message, PresenceNews};
use swarm_runtime::{
    LoopSettings,
    deciding::{Announcement, Role, SNAPSHOT_INLINE_BYTES_MAX, join::fold_to_end, state_hash},
    snapshots,
};
use tokio::time::{Instant, sleep, timeout};
use uuid::Uuid;

/// Swarms enough for every partition to have some.
fn places() -> Vec<Place> {
    let org = OrgId(Uuid::from_u128(1));
    let mut by_partition = BTreeMap::new();
    for number in 0..2_000u128 {
        let place = Place::new(org, SwarmId(Uuid::from_u128(number)));
        by_partition.entry(place.partition).or_insert(place);
    }
    assert_eq!(by_partition.len(), 64);
    by_partition.into_values().collect()
}

struct Cluster {
    world: World,
    places: Vec<Place>,
    next: u128,
    _clock: tokio::task::JoinHandle<()>,
}

impl Cluster {
    fn new() -> Self {
        let world = World::new();
        let clock = world.clock();
        Self {
            world,
            places: places(),
            next: 1,
            _clock: clock,
        }
    }

    fn start(&self, name: &str) -> Replica {
        self.world.launch(name, LoopSettings::all(instance(name)))
    }

    /// A command to each partition.
    async fn commands(&mut self) {
        for place in &self.places {
            self.world.command_at(*place, self.next, None).await;
            self.next += 1;
        }
    }

    /// Waits until every command is answered; each exactly once.
    async fn answered(&self) {
        let all = usize::try_from(self.next - 1).expect("few");
        self.until("every command is answered", || {
            self.world.answers().len() == all
        })
        .await;
        assert!(self.world.answers().values().all(|n| *n == 1));
    }

    /// Waits in virtual time; answers with how long it took.
    async fn until(&self, what: &str, mut holds: impl FnMut() -> bool) -> Duration {
        let since = Instant::now();
        timeout(Duration::from_secs(120), async {
            while !holds() {
                sleep(Duration::from_millis(1)).await;
            }
        })
        .await
        .unwrap_or_else(|_| panic!("not in two minutes: {what}"));
        since.elapsed()
    }

    async fn owning(&self, replica: &Replica, owned: u64) -> Duration {
        self.until(&format!("{owned} partitions are owned"), || {
            replica.status.owned() == owned
        })
        .await
    }

    fn inputs(&self) -> Vec<Input> {
        let messages = self.world.log.messages();
        let read = |m: &swarm_log::StoredMessage| {
            let time = Timestamp::from_micros(m.time_micros);
            read(m.sequence, time, &m.subject, &m.payload)
        };
        messages.iter().map(read).collect()
    }

    /// Instance of the last claim of each partition.
    fn owners(&self) -> BTreeMap<Partition, InstanceId> {
        let mut owners = BTreeMap::new();
        for input in self.inputs() {
            if let Input::Event(recorded) = input
                && let (
                    Subject::Control(Service::Distributor, partition, _),
                    Body::Claimed(claimed),
                ) = (recorded.subject, recorded.event.body)
            {
                owners.insert(partition, claimed.instance);
            }
        }
        owners
    }

    fn claims(&self) -> usize {
        let is_claim = |input: &Input| matches!(input, Input::Event(r) if matches!(r.event.body, Body::Claimed(_)));
        self.inputs().iter().filter(|i| is_claim(i)).count()
    }

    fn cut_offs(&self) -> Vec<(InstanceId, bool)> {
        let mut found = Vec::new();
        for input in self.inputs() {
            if let Input::Event(recorded) = input
                && let Body::Observed(Observed::CutOff {
                    instance, until, ..
                }) = recorded.event.body
            {
                found.push((instance, until.is_some()));
            }
        }
        found
    }

    async fn announcements(&self) -> BTreeMap<InstanceId, Announcement> {
        use futures::StreamExt;
        let mut watch = self.world.log.handle("test").watch_presence("distributor.");
        let mut found = BTreeMap::new();
        while let Some(news) = watch.next().await {
            match news {
                PresenceNews::Put { value, .. } => {
                    let said: Announcement =
                        serde_json::from_slice(&value).expect("an announcement");
                    found.insert(said.instance, said);
                }
                PresenceNews::Removed { .. } => {}
                PresenceNews::Complete => break,
            }
        }
        found
    }
}

#[tokio::test(start_paused = true)]
async fn two_replicas_share_the_partitions_and_both_fold_all_of_them() {
    let mut cluster = Cluster::new();
    let a = cluster.start("a");
    cluster.owning(&a, 64).await;
    cluster.commands().await;
    let b = cluster.start("b");
    cluster
        .until("the partitions are shared", || {
            a.status.owned() + b.status.owned() == 64 && b.status.owned() > 0
        })
        .await;
    cluster.commands().await;
    cluster.answered().await;
    sleep(Duration::from_secs(1)).await;
    assert!(
        (16..=48).contains(&a.status.owned()),
        "a owns {}",
        a.status.owned()
    );
    sleep(Duration::from_secs(1)).await;
    let said = cluster.announcements().await;
    assert!(said.values().all(|said| said.partitions.len() == 64));
    let owned = |said: &Announcement| {
        said.partitions
            .iter()
            .filter(|(_, held)| held.role == Role::Owner)
            .map(|(p, _)| *p)
            .collect::<BTreeSet<_>>()
    };
    let (of_a, of_b) = (owned(&said[&instance("a")]), owned(&said[&instance("b")]));
    assert!(of_a.is_disjoint(&of_b));
    assert_eq!(of_a.len() + of_b.len(), 64);
    assert!(a.status.ready() && b.status.ready());
}

#[tokio::test(start_paused = true)]
async fn of_three_replicas_two_fold_a_partition() {
    let mut cluster = Cluster::new();
    let replicas: Vec<_> = ["a", "b", "c"].map(|name| cluster.start(name)).into();
    cluster
        .until("all partitions are owned", || {
            replicas.iter().map(|r| r.status.owned()).sum::<u64>() == 64
                && replicas.iter().all(|r| r.status.owned() > 0)
        })
        .await;
    cluster.commands().await;
    cluster.answered().await;
    sleep(Duration::from_secs(3)).await;
    let said = cluster.announcements().await;
    for partition in Partition::all() {
        let folders = said
            .values()
            .filter(|said| said.partitions.contains_key(&partition))
            .count();
        assert_eq!(folders, 2, "{partition}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_dead_replicas_partitions_are_taken_over_within_two_and_a_half_seconds() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    cluster
        .until("shared", || {
            a.status.owned() + b.status.owned() == 64
                && a.status.owned() > 0
                && b.status.owned() > 0
        })
        .await;
    a.task.abort();
    cluster.commands().await;
    let took = cluster.owning(&b, 64).await;
    assert!(took <= Duration::from_millis(2_600), "{took:?}");
    assert!(took >= Duration::from_millis(1_000), "{took:?}: too eager");
    cluster.answered().await;
    cluster
        .until("it is recorded", || {
            cluster.cut_offs() == [(instance("a"), false)]
        })
        .await;
}

#[tokio::test(start_paused = true)]
async fn a_stopped_replica_hands_over_at_once_and_ends_in_order() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    cluster
        .until("shared", || {
            a.status.owned() + b.status.owned() == 64
                && a.status.owned() > 0
                && b.status.owned() > 0
        })
        .await;
    cluster.commands().await;
    a.stop.cancel();
    cluster.commands().await;
    let took = cluster.owning(&b, 64).await;
    assert!(took <= Duration::from_millis(300), "{took:?}");
    cluster.answered().await;
    a.task.await.expect("joined").expect("ended in order");
    assert_eq!(cluster.cut_offs(), []);
    assert_eq!(
        cluster
            .announcements()
            .await
            .into_keys()
            .collect::<Vec<_>>(),
        [instance("b")]
    );
}

#[tokio::test(start_paused = true)]
async fn the_last_replica_ends_without_waiting_for_others() {
    let cluster = Cluster::new();
    let a = cluster.start("a");
    cluster.owning(&a, 64).await;
    a.stop.cancel();
    let since = Instant::now();
    a.task.await.expect("joined").expect("ended in order");
    assert!(since.elapsed() < Duration::from_millis(200));
}

#[tokio::test(start_paused = true)]
async fn a_process_of_the_same_name_takes_the_place_of_the_one_before_at_once() {
    let cluster = Cluster::new();
    let named = |name: &str| {
        let settings = LoopSettings {
            name: Some("distributor".to_owned()),
            ..LoopSettings::all(instance(name))
        };
        cluster.world.launch(name, settings)
    };
    let first = named("first");
    cluster.owning(&first, 64).await;
    first.task.abort();
    // By this machine's clock: the later process starts later.
    let second = named("second");
    let took = cluster.owning(&second, 64).await;
    assert!(took < Duration::from_millis(200), "{took:?}");
    assert_eq!(cluster.cut_offs(), []);
}

#[tokio::test(start_paused = true)]
async fn the_standby_takes_over_as_soon_as_a_dead_owners_successor_shows() {
    let mut cluster = Cluster::new();
    let named = |cluster: &Cluster, process: &str, name: &str| {
        let settings = LoopSettings {
            name: Some(name.to_owned()),
            ..LoopSettings::all(instance(process))
        };
        cluster.world.launch(process, settings)
    };
    let a = named(&cluster, "a", "distributor");
    let b = named(&cluster, "b", "distributor-2");
    cluster
        .until("shared", || {
            a.status.owned() + b.status.owned() == 64 && a.status.owned() > 0
        })
        .await;
    sleep(Duration::from_secs(1)).await;
    a.task.abort();
    let again = named(&cluster, "a again", "distributor");
    cluster.commands().await;
    let took = cluster.owning(&b, 64).await;
    assert!(took < Duration::from_millis(100), "{took:?}");
    cluster
        .until("shared again", || {
            again.status.owned() + b.status.owned() == 64 && again.status.owned() > 0
        })
        .await;
    cluster.answered().await;
    assert_eq!(cluster.cut_offs(), []);
}

#[tokio::test(start_paused = true)]
async fn a_replica_that_is_cut_off_loses_its_partitions_and_gets_them_back() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    cluster
        .until("shared", || {
            a.status.owned() + b.status.owned() == 64
                && a.status.owned() > 0
                && b.status.owned() > 0
        })
        .await;
    let shared = cluster.owners();
    cluster.world.log.disconnect("a");
    cluster.commands().await;
    cluster
        .until("b owns all", || {
            cluster
                .owners()
                .values()
                .all(|owner| *owner == instance("b"))
        })
        .await;
    cluster.answered().await;
    sleep(Duration::from_secs(3)).await;
    cluster.world.log.reconnect("a");
    cluster.commands().await;
    cluster
        .until("each has what it had", || cluster.owners() == shared)
        .await;
    cluster.answered().await;
    assert_eq!(
        cluster.cut_offs(),
        [(instance("a"), false), (instance("a"), true)]
    );
}

#[tokio::test(start_paused = true)]
async fn an_outage_of_the_server_makes_nobody_dead() {
    let mut cluster = Cluster::new();
    let (a, b) = (cluster.start("a"), cluster.start("b"));
    cluster
        .until("shared", || {
            a.status.owned() + b.status.owned() == 64
                && a.status.owned() > 0
                && b.status.owned() > 0
        })
        .await;
    let owners = cluster.owners();
    for name in ["a", "b"] {
        cluster.world.log.disconnect(name);
    }
    sleep(Duration::from_secs(30)).await;
    for name in ["a", "b"] {
        cluster.world.log.reconnect(name);
    }
    cluster.commands().await;
    cluster.answered().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(cluster.owners(), owners);
    assert_eq!(cluster.cut_offs(), []);
}

#[tokio::test(start_paused = true)]
async fn replicas_that_come_and_go_leave_the_partitions_at_rest() {
    let mut cluster = Cluster::new();
    let mut replicas = vec![cluster.start("r0")];
    for number in 1..6 {
        replicas.push(cluster.start(&format!("r{number}")));
        cluster.commands().await;
        if number % 2 == 0 {
            replicas.remove(0).stop.cancel();
        }
        sleep(Duration::from_millis(700)).await;
    }
    cluster.answered().await;
    sleep(Duration::from_secs(10)).await;
    let claims = cluster.claims();
    assert_eq!(replicas.iter().map(|r| r.status.owned()).sum::<u64>(), 64);
    sleep(Duration::from_secs(60)).await;
    assert_eq!(cluster.claims(), claims, "nobody claims without a cause");
}

#[tokio::test(start_paused = true)]
async fn a_partition_that_a_newer_version_wrote_to_is_given_up_alone() {
    let mut cluster = Cluster::new();
    let a = cluster.start("a");
    cluster.owning(&a, 64).await;
    let place = cluster.places[7];
    let event = serde_json::json!({
        "specversion": "1.0", "id": Uuid::from_u128(77), "type": "swarm.task.failed.v9",
        "source": format!("/swarm/distributor/{}", Uuid::from_u128(5)), "subject": place.swarm.to_string(),
        "time": "2026-11-22T10:00:00Z", "org": place.org, "swarm": place.swarm, "causeseq": 1, "epoch": 1, "ordinal": 1,
        "data": {},
    });
    let subject = format!("swarm.evt.{place}.task.failed");
    let message = Message {
        subject,
        payload: event.to_string().into(),
        message_id: None,
        fence: None,
    };
    let stored = cluster.world.log.append(vec![message]).await.remove(0);
    stored.expect("stored");
    cluster.owning(&a, 63).await;
    assert!(!a.status.ready());
    assert_eq!(a.status.unfoldable(), 1);
    assert!(!a.task.is_finished());
    // One that starts now does not fold it either, nor claim it.
    let claimed = cluster.owners()[&place.partition];
    let b = cluster.start("b");
    cluster
        .until("b takes its share", || {
            a.status.owned() + b.status.owned() == 63 && b.status.owned() > 0
        })
        .await;
    assert_eq!(cluster.owners()[&place.partition], claimed);
    // The rest goes on.
    cluster.places.remove(7);
    cluster.commands().await;
    cluster.answered().await;
}

const EVERY: u64 = 200;

#[tokio::test(start_paused = true)]
async fn snapshots_are_taken_and_a_start_from_them_leads_to_the_same_state() {
    let mut cluster = Cluster::new();
    let settings = |name: &str| LoopSettings {
        snapshot_every: EVERY,
        ..LoopSettings::all(instance(name))
    };
    let a = cluster.world.launch("a", settings("a"));
    cluster.owning(&a, 64).await;
    for _ in 0..8 {
        cluster.commands().await;
        cluster.answered().await;
        sleep(Duration::from_secs(5)).await;
    }
    let log = cluster.world.log.handle("test");
    let names = log
        .list_objects("snapshot.distributor.")
        .await
        .expect("listed");
    for partition in Partition::all() {
        let prefix = snapshots::prefix_of("distributor", partition);
        let of_it = names.iter().filter(|n| n.starts_with(&prefix)).count();
        assert!((1..=5).contains(&of_it), "{partition}: {of_it} snapshots");
    }
    let all: Vec<Partition> = Partition::all().collect();
    let folded = fold_to_end::<Echo, _>(&log, &all).await.expect("folded");
    assert_eq!(folded.joined.len(), 64);
    for joined in folded.joined {
        let partition = joined.state.head().partition;
        assert!(
            joined.snapshot.0 > 0,
            "{partition} did not start from a snapshot"
        );
        let mut cold = Echo::new(partition);
        for input in cluster.inputs() {
            let of_it = match &input {
                Input::Event(recorded) => recorded.subject.partition() == partition,
                Input::Unreadable(_) => false,
            };
            if of_it {
                cold.evolve(&input, None);
            }
        }
        assert_eq!(
            state_hash(&cold).expect("hash"),
            state_hash(&joined.state).expect("hash"),
            "{partition}"
        );
    }
    // A replica that starts from them goes on.
    a.task.abort();
    let b = cluster.world.launch("b", settings("b"));
    cluster.owning(&b, 64).await;
    cluster.commands().await;
    cluster.answered().await;
}

#[tokio::test(start_paused = true)]
async fn a_state_that_is_too_large_for_a_turn_is_folded_again_beside_the_loop() {
    let cluster = Cluster::new();
    let settings = LoopSettings {
        snapshot_every: 30,
        partitions: vec![cluster.world.place.partition],
        ..LoopSettings::all(instance("a"))
    };
    let a = cluster.world.launch("a", settings);
    cluster.owning(&a, 1).await;
    let log = cluster.world.log.handle("test");
    let sizes = || async {
        let mut sizes = Vec::new();
        for name in log.list_objects("snapshot.").await.expect("listed") {
            let object = log.get_object(&name).await.expect("read");
            sizes.extend(object.map(|bytes| bytes.len()));
        }
        sizes
    };
    let heavy = 2 * SNAPSHOT_INLINE_BYTES_MAX / HEAVY_BYTES;
    for number in 0..heavy {
        let id = number as u128 + 1;
        cluster.world.command(id, Some("heavy")).await;
        sleep(Duration::from_millis(200)).await;
    }
    cluster.world.quiet(heavy).await;
    let taken = async {
        while !sizes()
            .await
            .iter()
            .any(|bytes| *bytes > SNAPSHOT_INLINE_BYTES_MAX)
        {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(60), taken)
        .await
        .expect("taken");
    assert!(
        sizes()
            .await
            .iter()
            .any(|bytes| *bytes < SNAPSHOT_INLINE_BYTES_MAX),
        "the first ones were small"
    );
}
