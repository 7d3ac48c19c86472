//! A gateway that starts from a snapshot knows what one that folds the whole log knows.

mod support;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use support::{NO_DATABASE, PATIENCE, decide, open_log};
use swarm_events::{
    AgentId, Body, Event, EventId, GraphId, InstanceId, Json, OrgId, Partition, Place, Subject,
    SwarmId, TaskId,
    command::{Cancel, Create, Join},
    envelope::Source,
    subject::{CommandVerb, TaskVerb},
    task::{GraphPart, Submitted},
};
use swarm_gateway::{
    app::App,
    bootstrap,
    fold::{Fold, filters, outcomes::Outcomes},
    port::Port,
    snapshot::{self, KIND},
    tail::{self, TailError, input},
};
use swarm_log::{
    Log, Message,
    filter::matches,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_projections::pool;
use swarm_runtime::snapshots::{SnapshotError, Store};
use tokio::{task::JoinHandle, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Events from one snapshot to the next here.
const EVERY: u64 = 40;

fn partition() -> Partition {
    Partition::new(0).expect("below 64")
}

struct Scene<L> {
    log: L,
    org: OrgId,
    stop: CancellationToken,
    clients: u128,
}

struct Gateway {
    app: Arc<App>,
    task: JoinHandle<Result<(), TailError>>,
}
impl Gateway {
    async fn until(&self, holds: impl Fn(&Fold) -> bool) {
        until(async || holds(&self.app.fold.read())).await;
    }
    async fn met(&self, sequence: u64) {
        self.until(|fold| fold.sequence() >= sequence).await;
    }
}
impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn until(holds: impl AsyncFn() -> bool) {
    let mut look = tokio::time::interval(Duration::from_millis(5));
    let shown = async {
        while !holds().await {
            look.tick().await;
        }
    };
    timeout(PATIENCE, shown).await.expect("in time");
}

impl<L: Log> Scene<L> {
    async fn new(log: L) -> Self {
        let stop = CancellationToken::new();
        decide(&log, &stop);
        let first = bootstrap(log.clone(), "first")
            .await
            .expect("the first organization");
        Self {
            log,
            org: first.org_id,
            stop,
            clients: 0,
        }
    }

    async fn publish(&self, id: Uuid, subject: Subject, about: Uuid, body: impl Into<Body>) {
        let source = Source::Client("/test".to_owned());
        let event = Event::new(EventId(id), source, App::now(), &subject, about, body);
        let message = Message {
            subject: subject.to_string(),
            payload: Bytes::from(event.to_json().expect("JSON")),
            message_id: None,
            fence: None,
        };
        let outcomes = self.log.append(vec![message]).await;
        outcomes[0].as_ref().expect("stored");
    }

    /// An id as an idempotency key gives it.
    fn keyed(&mut self) -> Uuid {
        self.clients += 1;
        Uuid::new_v8(self.clients.to_be_bytes())
    }

    /// A swarm with agents, a graph, a task that is cancelled and one that is not there: most under keys. Answers with ids
    /// under keys, all of whose outcomes `gateway` knows.
    async fn episode(&mut self, gateway: &Gateway) -> Vec<Uuid> {
        let place = Place::new(self.org, SwarmId(Uuid::now_v7()));
        let create = Create {
            topology_configuration: swarm_events::Json::object(),
            name: place.swarm.to_string(),
            description: None,
            topology: None,
            configuration: Json::object(),
            created_by: None,
            body_sha256: Some("ab".repeat(32)),
        };
        let mut ids = vec![self.keyed()];
        let command = |verb| Subject::Command(place, verb);
        self.publish(ids[0], command(CommandVerb::Create), place.swarm.0, create)
            .await;
        self.answered(gateway, &ids).await;
        for _ in 0..5 {
            let join = Join {
                instance: InstanceId(Uuid::now_v7()),
                agent_type: "exec".to_owned(),
                agent_name: None,
                capabilities: Vec::new(),
                slots: None,
                waiting: None,
                metadata: Json::object(),

                spawn: None,
            };
            let agent = AgentId(Uuid::now_v7());
            self.publish(Uuid::now_v7(), command(CommandVerb::Join), agent.0, join)
                .await;
        }
        let graph = GraphId(self.keyed());
        let task: Submitted =
            serde_json::from_str(r#"{"task_type": "t", "required_capabilities": ["none"]}"#)
                .expect("a task");
        let mut last = TaskId(Uuid::nil());
        for index in 0..2 {
            last = TaskId(Uuid::now_v7());
            let part = Submitted {
                graph: Some(GraphPart {
                    id: graph,
                    index,
                    of: 2,
                }),
                ..task.clone()
            };
            let subject = Subject::Task(place, TaskVerb::Submitted, None);
            self.publish(Uuid::now_v7(), subject, last.0, part).await;
        }
        ids.push(graph.0);
        for task_id in [last, TaskId(Uuid::now_v7())] {
            let id = self.keyed();
            let cancel = Cancel {
                task_id,
                reason: None,
            };
            self.publish(id, command(CommandVerb::Cancel), task_id.0, cancel)
                .await;
            ids.push(id);
        }
        self.answered(gateway, &ids).await;
        ids
    }

    fn app(&self) -> Arc<App> {
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let pool = pool::reader(NO_DATABASE).expect("a URL");
        let log = Port::new(self.log.clone());
        let mut app = App::new(log, pool, recorder.handle(), self.stop.child_token());
        app.snapshot_every = EVERY;
        Arc::new(app)
    }
    fn gateway(&self) -> Gateway {
        let app = self.app();
        let task = tokio::spawn(tail::follow(app.clone()));
        Gateway { app, task }
    }
    /// The gateway knows the outcome of all of `ids`.
    async fn answered(&self, gateway: &Gateway, ids: &[Uuid]) {
        let known = |fold: &Fold| ids.iter().all(|id| fold.keyed(*id).outcome.is_some());
        gateway.until(known).await;
    }
    async fn snapshots(&self) -> Vec<u64> {
        let store = Store::new(self.log.clone());
        store.sequences(KIND, partition()).await.expect("listed")
    }
    /// The fold of the whole log up to a sequence.
    async fn cold(&self, to: u64) -> Fold {
        let (mut fold, mut outcomes) = (Fold::default(), Outcomes::default());
        let filters = filters();
        for sequence in 1..=to {
            let message = self.log.get(sequence).await.expect("read").expect("there");
            if filters
                .iter()
                .any(|filter| matches(filter, &message.subject))
            {
                fold.apply(input(&message), &mut outcomes);
            }
        }
        fold
    }
    /// Folds to the end from what is there, and stops at what it has met then.
    async fn started(&self) -> (u64, Fold) {
        let from = snapshot::start(&self.log).await.expect("a start").from;
        let gateway = self.gateway();
        let mut tail = gateway.app.tail.subscribe();
        let caught_up = tail.wait_for(|tail| tail.caught_up);
        timeout(PATIENCE, caught_up)
            .await
            .expect("in time")
            .expect("alive");
        let fold = gateway.app.fold.read().clone();
        (from, fold)
    }
}

/// The whole story on any log.
async fn snapshot_and_tail<L: Log>(log: L) {
    let mut scene = Scene::new(log).await;
    let gateway = scene.gateway();
    let mut ids = Vec::new();
    while scene.snapshots().await.is_empty() {
        ids.extend(scene.episode(&gateway).await);
    }
    // A tail behind it.
    ids.extend(scene.episode(&gateway).await);
    let (from, fold) = scene.started().await;
    assert!(from > EVERY, "it began at {from}: not from a snapshot");
    let cold = scene.cold(fold.sequence()).await;
    assert!(
        fold == cold,
        "a start from {from} leads to another state at {}",
        fold.sequence()
    );
    assert_eq!(
        postcard::to_stdvec(&fold).expect("encoded"),
        postcard::to_stdvec(&cold).expect("encoded")
    );
    for id in ids {
        assert!(fold.keyed(id).outcome.is_some(), "{id}");
    }
    // The one that took it went on from its own state, and has the same.
    gateway.met(fold.sequence()).await;
    let live = gateway.app.fold.read().clone();
    assert!(live == scene.cold(live.sequence()).await);
}

/// A simulated log whose time is the wall clock's, from which clients' ids derive.
fn simulated() -> SimulatedLog {
    let log = SimulatedLog::default();
    log.set_time(App::now().as_micros());
    let clock = log.clone();
    tokio::spawn(async move {
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        loop {
            tick.tick().await;
            clock.set_time(App::now().as_micros());
        }
    });
    log
}

#[tokio::test]
async fn a_start_from_a_snapshot_is_worth_a_cold_fold() {
    snapshot_and_tail(simulated()).await;
}

#[tokio::test]
async fn a_start_from_a_snapshot_is_worth_a_cold_fold_on_a_real_log() {
    let nats = swarm_servers::testing::nats().await;
    snapshot_and_tail(open_log(&nats.url).await).await;
}

#[tokio::test]
async fn several_gateways_take_turns() {
    let mut scene = Scene::new(simulated()).await;
    let gateways = [scene.gateway(), scene.gateway(), scene.gateway()];
    while scene.snapshots().await.len() < 3 {
        let ids = scene.episode(&gateways[0]).await;
        for gateway in &gateways {
            scene.answered(gateway, &ids).await;
        }
    }
    let sequences = scene.snapshots().await;
    // Those that look at the same moment may both take one, at about the same place; never is there one long before it is due.
    let places: Vec<u64> = sequences
        .iter()
        .map(|sequence| sequence / (EVERY / 2))
        .collect();
    let apart: std::collections::BTreeSet<_> = places.iter().collect();
    assert!(apart.len() >= 2 && sequences.len() <= 5, "{sequences:?}");
    assert!(sequences[0] >= EVERY, "{sequences:?}");
}

#[tokio::test]
async fn a_damaged_snapshot_is_passed_over() {
    let mut scene = Scene::new(simulated()).await;
    let gateway = scene.gateway();
    while scene.snapshots().await.is_empty() {
        scene.episode(&gateway).await;
    }
    drop(gateway);
    for name in scene
        .log
        .list_objects("snapshot.gateway.")
        .await
        .expect("listed")
    {
        scene
            .log
            .put_object(&name, Bytes::from_static(b"SWARMSNP?"))
            .await
            .expect("stored");
    }
    let (from, fold) = scene.started().await;
    assert_eq!(from, 1);
    assert!(fold == scene.cold(fold.sequence()).await);
}

#[tokio::test]
async fn half_a_history_is_no_start() {
    let log = SimulatedLog::new(SimulatedSettings {
        first_sequence: 500,
        ..SimulatedSettings::default()
    });
    let message = Message {
        subject: "swarm.ctl.coordinator.00.woken".to_owned(),
        payload: Bytes::from_static(b"{}"),
        message_id: None,
        fence: None,
    };
    log.append(vec![message]).await;
    let refused = snapshot::start(&log).await.err().expect("half a history");
    assert!(matches!(
        refused,
        SnapshotError::Incomplete { first: 500, .. }
    ));
    assert!(
        refused.to_string().contains("the gateway's state"),
        "{refused}"
    );
}

#[tokio::test]
async fn a_log_that_went_back_is_no_start() {
    let mut scene = Scene::new(simulated()).await;
    let gateway = scene.gateway();
    while scene.snapshots().await.is_empty() {
        scene.episode(&gateway).await;
    }
    // The snapshots beside a log that has less.
    let restored = simulated();
    for name in scene.log.list_objects("snapshot.").await.expect("listed") {
        let bytes = scene
            .log
            .get_object(&name)
            .await
            .expect("read")
            .expect("there");
        restored.put_object(&name, bytes).await.expect("stored");
    }
    let refused = snapshot::start(&restored)
        .await
        .err()
        .expect("it went back");
    let words = refused.to_string();
    assert!(
        words.contains("the log went back behind a snapshot"),
        "{words}"
    );
}
