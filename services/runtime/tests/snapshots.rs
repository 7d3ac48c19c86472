//! Snapshots in the object store of the simulated log: what is damaged, lost or strange is passed over or refused by name.

use std::collections::BTreeMap;

use bytes::Bytes;
use swarm_events::Partition;
use swarm_log::{
    Log, Message,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_runtime::snapshots::{
    DECODE_INLINE_BYTES_MAX, EVERY, Loaded, Meta, SnapshotError, Store, Wanted, encode, name_of,
    sequence_of, whole_history,
};

type State = BTreeMap<u64, String>;

const KIND: &str = "distributor";

fn partition() -> Partition {
    Partition::new(9).expect("below 64")
}

struct Scene {
    log: SimulatedLog,
    store: Store<SimulatedLog>,
}

impl Scene {
    /// A log of so many messages.
    async fn of(messages: u64) -> Self {
        Self::with(SimulatedSettings::default(), messages).await
    }
    async fn with(settings: SimulatedSettings, messages: u64) -> Self {
        let log = SimulatedLog::new(settings);
        let store = Store::new(log.clone());
        let scene = Self { log, store };
        scene.grow(messages).await;
        scene
    }
    async fn grow(&self, messages: u64) {
        let message = Message {
            subject: "swarm.ctl.distributor.09.woken".to_owned(),
            payload: Bytes::from_static(b"{}"),
            message_id: None,
            fence: None,
        };
        for outcome in self.log.append(vec![message; messages as usize]).await {
            outcome.expect("stored");
        }
    }
    async fn created(&self) -> i64 {
        self.log.info().await.expect("info").created_micros
    }
    async fn wanted(&self) -> Wanted {
        Wanted {
            kind: KIND.to_owned(),
            partition: partition(),
            stream_created_micros: self.created().await,
            format: 1,
        }
    }
    async fn meta(&self, sequence: u64) -> Meta {
        let Wanted {
            kind,
            partition,
            stream_created_micros,
            format,
        } = self.wanted().await;
        Meta {
            kind,
            partition,
            sequence,
            stream_created_micros,
            format,
        }
    }
    async fn put(&self, sequence: u64) {
        self.put_as(self.meta(sequence).await).await;
    }
    async fn put_as(&self, meta: Meta) {
        let bytes = encode(&meta, &state(meta.sequence)).expect("encoded");
        self.store.put(&meta, bytes).await.expect("stored");
    }
    async fn newest(&self, at_most: Option<u64>) -> Result<Option<Loaded<State>>, SnapshotError> {
        self.store.newest(&self.wanted().await, at_most).await
    }
    /// The sequence of what a start would go on from.
    async fn found(&self, at_most: Option<u64>) -> Option<u64> {
        let loaded = self.newest(at_most).await.expect("readable")?;
        assert_eq!(loaded.state, state(loaded.meta.sequence));
        Some(loaded.meta.sequence)
    }
    async fn change(&self, sequence: u64, change: impl FnOnce(&mut Vec<u8>)) {
        let name = name_of(KIND, partition(), sequence);
        let bytes = self.log.get_object(&name).await.expect("read");
        let mut bytes = bytes.expect("there").to_vec();
        change(&mut bytes);
        self.log
            .put_object(&name, bytes.into())
            .await
            .expect("stored");
    }
}

fn state(sequence: u64) -> State {
    (0..sequence).map(|n| (n, format!("entry {n}"))).collect()
}

#[tokio::test]
async fn a_start_without_snapshots_folds_the_whole_log() {
    let scene = Scene::of(5).await;
    assert_eq!(scene.found(None).await, None);
}

#[tokio::test]
async fn a_start_goes_on_from_the_newest_or_the_newest_that_it_may() {
    let scene = Scene::of(100).await;
    for sequence in [20, 40, 60] {
        scene.put(sequence).await;
    }
    assert_eq!(scene.found(None).await, Some(60));
    assert_eq!(scene.found(Some(60)).await, Some(60));
    assert_eq!(scene.found(Some(59)).await, Some(40));
    assert_eq!(scene.found(Some(19)).await, None);
}

#[tokio::test]
async fn partitions_and_kinds_do_not_mix() {
    let scene = Scene::of(100).await;
    scene.put(10).await;
    let elsewhere = Meta {
        partition: Partition::new(10).expect("below 64"),
        ..scene.meta(20).await
    };
    scene.put_as(elsewhere).await;
    let gateway = Meta {
        kind: "gateway".to_owned(),
        ..scene.meta(30).await
    };
    scene.put_as(gateway).await;
    assert_eq!(scene.found(None).await, Some(10));
}

#[tokio::test]
async fn damage_leads_to_an_older_one_and_in_the_end_to_the_whole_log() {
    let scene = Scene::of(100).await;
    for sequence in [20, 40, 60] {
        scene.put(sequence).await;
    }
    scene
        .change(60, |bytes| *bytes.last_mut().expect("bytes") ^= 1)
        .await;
    assert_eq!(scene.found(None).await, Some(40));
    scene
        .change(40, |bytes| bytes.truncate(bytes.len() / 2))
        .await;
    assert_eq!(scene.found(None).await, Some(20));
    scene.change(20, Vec::clear).await;
    assert_eq!(scene.found(None).await, None);
}

#[tokio::test]
async fn a_lost_object_leads_to_an_older_one() {
    let scene = Scene::of(100).await;
    scene.put(20).await;
    scene.put(40).await;
    let name = name_of(KIND, partition(), 40);
    scene.log.delete_object(&name).await.expect("deleted");
    assert_eq!(scene.found(None).await, Some(20));
}

#[tokio::test]
async fn a_snapshot_under_a_wrong_name_is_passed_over() {
    let scene = Scene::of(100).await;
    scene.put(20).await;
    let meta = scene.meta(20).await;
    let bytes = encode(&meta, &state(20)).expect("encoded");
    let wrong = name_of(KIND, partition(), 50);
    scene
        .log
        .put_object(&wrong, bytes.into())
        .await
        .expect("stored");
    assert_eq!(scene.found(None).await, Some(20));
}

#[tokio::test]
async fn another_layout_is_passed_over() {
    let scene = Scene::of(100).await;
    scene.put(20).await;
    let newer = Meta {
        format: 2,
        ..scene.meta(40).await
    };
    scene.put_as(newer).await;
    assert_eq!(scene.found(None).await, Some(20));
    assert_eq!(scene.found(Some(40)).await, Some(20));
}

#[tokio::test]
async fn a_log_that_ends_before_a_snapshot_is_refused() {
    let scene = Scene::of(30).await;
    scene.put(20).await;
    scene.put(31).await;
    let refused = scene.newest(None).await.expect_err("the log went back");
    let words = refused.to_string();
    assert!(
        words.contains("the log went back behind a snapshot"),
        "{words}"
    );
    assert!(
        words.contains("ends at sequence 30") && words.contains("of 31"),
        "{words}"
    );
    assert!(words.contains("snapshot.distributor.09."), "{words}");
    // Whatever is asked for: an older one would hide it.
    assert!(scene.newest(Some(20)).await.is_err());
    scene.grow(1).await;
    assert_eq!(scene.found(None).await, Some(31));
}

#[tokio::test]
async fn snapshots_of_another_log_alone_are_refused_and_beside_own_ones_passed_over() {
    let scene = Scene::of(100).await;
    let other = Meta {
        stream_created_micros: 5,
        ..scene.meta(40).await
    };
    scene.put_as(other).await;
    let refused = scene.newest(None).await.expect_err("of another log");
    let words = refused.to_string();
    assert!(
        words.contains("the log went back behind a snapshot"),
        "{words}"
    );
    assert!(words.contains("of a log created at 5 µs"), "{words}");
    scene.put(20).await;
    assert_eq!(scene.found(None).await, Some(20));
}

#[tokio::test]
async fn an_outage_is_no_missing_snapshot() {
    let scene = Scene::of(100).await;
    scene.put(20).await;
    let wanted = scene.wanted().await;
    scene.log.disconnect("main");
    let refused = scene.store.newest::<State>(&wanted, None).await;
    assert!(matches!(refused, Err(SnapshotError::Log(_))));
}

#[tokio::test]
async fn a_snapshot_before_the_logs_beginning_is_no_start() {
    let settings = SimulatedSettings {
        first_sequence: 1_000,
        ..SimulatedSettings::default()
    };
    let scene = Scene::with(settings, 10).await;
    scene.put(998).await;
    assert_eq!(scene.found(None).await, None);
    let info = scene.log.info().await.expect("info");
    let words = whole_history(&info, "the gateway")
        .expect_err("half a history")
        .to_string();
    assert!(words.contains("begins at sequence 1000"), "{words}");
    scene.put(999).await;
    assert_eq!(scene.found(None).await, Some(999));
}

#[tokio::test]
async fn a_whole_history_is_one_from_the_first_event() {
    let scene = Scene::of(0).await;
    whole_history(&scene.log.info().await.expect("info"), "all").expect("empty");
    scene.grow(1).await;
    whole_history(&scene.log.info().await.expect("info"), "all").expect("from 1 on");
}

#[tokio::test]
async fn a_large_one_is_read_apart() {
    let scene = Scene::of(1).await;
    let large: State = BTreeMap::from([(1, "x".repeat(DECODE_INLINE_BYTES_MAX + 1))]);
    let meta = scene.meta(1).await;
    let bytes = encode(&meta, &large).expect("encoded");
    let size = bytes.len();
    scene.store.put(&meta, bytes).await.expect("stored");
    let loaded = scene.newest(None).await.expect("readable").expect("there");
    assert_eq!((loaded.state, loaded.bytes), (large, size));
}

#[tokio::test]
async fn old_ones_are_thinned_by_their_kind_and_partition() {
    let settings = SimulatedSettings {
        // Any end will do: the log itself is not read here.
        first_sequence: 200 * EVERY,
        ..SimulatedSettings::default()
    };
    let scene = Scene::with(settings, 1).await;
    let elsewhere = Meta {
        kind: "health".to_owned(),
        ..scene.meta(EVERY).await
    };
    scene.put_as_small(elsewhere).await;
    for n in 1..=30 {
        let meta = scene.meta(n * EVERY).await;
        scene.put_as_small(meta).await;
    }
    let kept = scene
        .store
        .sequences(KIND, partition())
        .await
        .expect("listed");
    let kept: Vec<u64> = kept.iter().map(|sequence| sequence / EVERY).collect();
    assert_eq!(kept[kept.len() - 3..], [28, 29, 30]);
    assert!(kept.len() <= 5 && kept[0] < 20, "{kept:?}");
    let others = scene.store.sequences("health", partition()).await;
    assert_eq!(others.expect("listed"), [EVERY]);
}

impl Scene {
    async fn put_as_small(&self, meta: Meta) {
        let bytes = encode(&meta, &State::new()).expect("encoded");
        self.store.put(&meta, bytes).await.expect("stored");
    }
}

#[test]
fn names_sort_as_sequences_do() {
    let name = name_of("gateway", Partition::new(0).expect("below 64"), 12);
    assert_eq!(name, "snapshot.gateway.00.00000000000000000012");
    assert_eq!(sequence_of(&name, "snapshot.gateway.00."), Some(12));
    for other in ["snapshot.gateway.00.12", "snapshot.gateway.00.x", "input.1"] {
        assert_eq!(sequence_of(other, "snapshot.gateway.00."), None, "{other}");
    }
}
