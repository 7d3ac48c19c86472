//! What the shell puts into assignments, from a log with the rules of the real one.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use swarm_distributor::{DistributorShell, READS_AT_ONCE};
use swarm_events::{
    AgentId, Body, Event, EventId, Json, OrgId, Place, Subject, SwarmId,
    configuration::Algorithm,
    decider::{Decision, Hydrate},
    envelope::Source,
    subject::TaskVerb,
    task::{Assigned, Carried, Completed, DEPENDENCIES_MAX, INPUTS_BYTES_MAX, Submitted},
};
use swarm_log::{
    AppendError, Appended, Log, LogError, LogInfo, Message, PresenceNews, StoredMessage, Tailed,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_runtime::Shell;
use uuid::Uuid;

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
const ME: swarm_events::ids::InstanceId = swarm_events::ids::InstanceId(Uuid::from_u128(6));

fn agent() -> AgentId {
    AgentId(Uuid::from_u128(3))
}
fn log() -> SimulatedLog {
    SimulatedLog::new(SimulatedSettings::default())
}
fn text(bytes: usize) -> Json {
    Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).expect("JSON")
}

async fn store(log: &SimulatedLog, subject: Subject, source: Source, body: impl Into<Body>) -> u64 {
    let id = EventId(Uuid::from_u128(9));
    let event = Event::new(
        id,
        source,
        Default::default(),
        &subject,
        Uuid::from_u128(4),
        body,
    );
    let message = Message {
        subject: subject.to_string(),
        payload: event.to_json().expect("JSON").into(),
        message_id: None,
        fence: None,
    };
    log.append(vec![message]).await[0]
        .as_ref()
        .expect("stored")
        .sequence
}
async fn submitted(log: &SimulatedLog, payload: Json) -> u64 {
    let mut task: Submitted = serde_json::from_str(r#"{"task_type": "t"}"#).expect("a task");
    task.payload = payload;
    let subject = Subject::Task(place(), TaskVerb::Submitted, None);
    store(log, subject, Source::Client("test".to_owned()), task).await
}
async fn completed(log: &SimulatedLog, result: Carried) -> u64 {
    let body = Completed {
        assignment: 1,
        incarnation: 1,
        result,
    };
    let subject = Subject::Task(place(), TaskVerb::Completed, Some(agent()));
    store(log, subject, Source::Agent(agent()), body).await
}

fn assignment(hydrate: Hydrate) -> Decision {
    let body = Assigned {
        path: Vec::new(),
        step: swarm_events::task::Step::Work,
        turn: None,
        task_type: "t".to_owned(),
        payload: Carried::AtSequence(hydrate.payload_from.unwrap_or(0)),
        inputs: None,
        attempt: 2,
        generation: 1,
        incarnation: 1,
        priority: 5,
        timeout_ms: 1,
        algorithm: Algorithm::LeastLoaded,
        candidates: Vec::new(),
        passed_over: Default::default(),
        affinity: None,
        stolen_from: None,
        queued_at: None,
    };
    let subject = Subject::Task(place(), TaskVerb::Assigned, Some(agent()));
    let mut decision = Decision::new(subject, Uuid::from_u128(4), body);
    decision.hydrate = Some(hydrate);
    decision
}
async fn assigned(log: &SimulatedLog, hydrate: Hydrate) -> Assigned {
    let decision = DistributorShell::new(log.clone(), ME)
        .hydrate(assignment(hydrate))
        .await
        .expect("read");
    match decision.body {
        Body::TaskAssigned(assigned) => assigned,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_payload_is_read_at_its_submission() {
    let log = log();
    let payload_from = Some(submitted(&log, text(5_000)).await);
    let got = assigned(
        &log,
        Hydrate {
            payload_from,
            inputs_from: Vec::new(),
        },
    )
    .await;
    assert_eq!(got.payload, Carried::Inline(text(5_000)));
    assert_eq!(got.inputs, None);
}

#[tokio::test]
async fn inputs_become_one_object_by_alias() {
    let log = log();
    let b = completed(&log, Carried::Inline(Json::parse("[1, 2]").expect("JSON"))).await;
    log.put_object("far", Bytes::from_static(b"{\"x\": 1.50}"))
        .await
        .expect("put");
    let a = completed(&log, Carried::Object("far".to_owned())).await;
    let inputs_from = vec![("b\"".to_owned(), b), ("a".to_owned(), a)];
    let got = assigned(
        &log,
        Hydrate {
            payload_from: None,
            inputs_from,
        },
    )
    .await;
    let expected = Json::parse(r#"{"a":{"x": 1.50},"b\"":[1, 2]}"#).expect("JSON");
    assert_eq!(got.inputs, Some(Carried::Inline(expected)));
}

#[tokio::test]
async fn inputs_over_the_limit_go_to_the_object_store() {
    let log = log();
    // {"a":"…"} adds 6 bytes.
    let fits = completed(&log, Carried::Inline(text(INPUTS_BYTES_MAX - 6))).await;
    let got = assigned(
        &log,
        Hydrate {
            payload_from: None,
            inputs_from: vec![("a".to_owned(), fits)],
        },
    )
    .await;
    assert!(matches!(got.inputs, Some(Carried::Inline(json)) if json.len() == INPUTS_BYTES_MAX));

    let over = completed(&log, Carried::Inline(text(INPUTS_BYTES_MAX - 5))).await;
    let got = assigned(
        &log,
        Hydrate {
            payload_from: None,
            inputs_from: vec![("a".to_owned(), over)],
        },
    )
    .await;
    let Some(Carried::Object(name)) = got.inputs else {
        panic!("{:?}", got.inputs);
    };
    let bytes = log
        .get_object(&name)
        .await
        .expect("reachable")
        .expect("there");
    assert_eq!(bytes.len(), INPUTS_BYTES_MAX + 1);
}

#[tokio::test]
async fn a_task_whose_payload_is_gone_ends_with_that_reason() {
    let log = log();
    let hydrate = Hydrate {
        payload_from: Some(99),
        inputs_from: Vec::new(),
    };
    let decision = DistributorShell::new(log, ME)
        .hydrate(assignment(hydrate))
        .await
        .expect("decided");
    assert_eq!(
        decision.subject,
        Subject::Task(place(), TaskVerb::Failed, None)
    );
    let Body::TaskFailed(failed) = decision.body else {
        panic!("{:?}", decision.body);
    };
    assert!(failed.error.contains("sequence 99"), "{}", failed.error);
    assert_eq!((failed.attempts, failed.dead_lettered), (1, true));
}

/// A log that takes a while to answer a read, and counts those under way.
#[derive(Clone)]
struct SlowLog {
    log: SimulatedLog,
    open: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
}

/// How long a read takes, in the virtual time of the test.
const ROUND_TRIP: Duration = Duration::from_millis(10);

impl Log for SlowLog {
    async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, LogError> {
        let open = self.open.fetch_add(1, Relaxed) + 1;
        self.most.fetch_max(open, Relaxed);
        tokio::time::sleep(ROUND_TRIP).await;
        self.open.fetch_sub(1, Relaxed);
        self.log.get(sequence).await
    }

    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>> {
        self.log.append(messages)
    }
    fn append_atomic(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        self.log.append_atomic(messages)
    }
    fn tail(
        &self,
        filters: Vec<String>,
        from: u64,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        self.log.tail(filters, from)
    }
    async fn last_of(&self, subject: &str) -> Result<Option<StoredMessage>, LogError> {
        self.log.last_of(subject).await
    }
    async fn info(&self) -> Result<LogInfo, LogError> {
        self.log.info().await
    }
    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), LogError> {
        self.log.put_object(name, bytes).await
    }
    async fn get_object(&self, name: &str) -> Result<Option<Bytes>, LogError> {
        self.log.get_object(name).await
    }
    async fn list_objects(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        self.log.list_objects(prefix).await
    }
    async fn delete_object(&self, name: &str) -> Result<(), LogError> {
        self.log.delete_object(name).await
    }
    async fn put_presence(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        self.log.put_presence(key, value).await
    }
    async fn remove_presence(&self, key: &str) -> Result<(), LogError> {
        self.log.remove_presence(key).await
    }
    fn watch_presence(&self, prefix: &str) -> BoxStream<'static, PresenceNews> {
        self.log.watch_presence(prefix)
    }
}

#[tokio::test(start_paused = true)]
async fn the_inputs_of_the_widest_reduce_are_read_in_parallel() {
    let log = log();
    let mut inputs_from = Vec::new();
    for n in 0..DEPENDENCIES_MAX {
        let result = Carried::Inline(Json::parse(&n.to_string()).expect("JSON"));
        inputs_from.push((format!("in{n:04}"), completed(&log, result).await));
    }
    let slow = SlowLog {
        log,
        open: Arc::default(),
        most: Arc::default(),
    };
    let start = tokio::time::Instant::now();
    let decision = DistributorShell::new(slow.clone(), ME)
        .hydrate(assignment(Hydrate {
            payload_from: None,
            inputs_from,
        }))
        .await
        .expect("read");
    let rounds = DEPENDENCIES_MAX.div_ceil(READS_AT_ONCE) as u32;
    assert_eq!(slow.most.load(Relaxed), READS_AT_ONCE, "never more at once");
    // One more: a later read may wait for the first of its round.
    assert!(
        start.elapsed() <= ROUND_TRIP * (rounds + 1),
        "{:?}",
        start.elapsed()
    );
    let Body::TaskAssigned(assigned) = decision.body else {
        panic!("{:?}", decision.body);
    };
    let Some(Carried::Inline(inputs)) = assigned.inputs else {
        panic!("not inline");
    };
    let inputs: std::collections::BTreeMap<String, usize> =
        serde_json::from_str(inputs.as_str()).expect("an object");
    assert_eq!(inputs.len(), DEPENDENCIES_MAX);
    assert!(inputs.iter().all(|(name, n)| *name == format!("in{n:04}")));
}

#[tokio::test]
async fn one_input_that_is_gone_ends_the_task() {
    let log = log();
    let here = completed(&log, Carried::Inline(Json::object())).await;
    let mut inputs_from: Vec<_> = (0..100).map(|n| (n.to_string(), here)).collect();
    inputs_from[50].1 = 9_999;
    let decision = DistributorShell::new(log, ME)
        .hydrate(assignment(Hydrate {
            payload_from: None,
            inputs_from,
        }))
        .await
        .expect("decided");
    let Body::TaskFailed(failed) = decision.body else {
        panic!("{:?}", decision.body);
    };
    assert!(failed.error.contains("sequence 9999"), "{}", failed.error);
}

#[tokio::test]
async fn a_part_s_payload_is_found_where_its_task_was_split() {
    let log = log();
    let part = |key: &str, payload| swarm_events::task::Part {
        key: key.to_owned(),
        task_type: "t".to_owned(),
        payload,
        priority: None,
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: None,
        timeout_ms: None,
    };
    let split = swarm_events::task::Split {
        assignment: 7,
        incarnation: 1,
        parts: vec![part("a", text(10)), part("b", text(2_000))],
    };
    let subject = Subject::Task(place(), TaskVerb::Split, Some(agent()));
    let sequence = store(&log, subject, Source::Agent(agent()), split).await;
    let mut decision = assignment(Hydrate {
        payload_from: Some(sequence),
        inputs_from: Vec::new(),
    });
    let stored = log.get(sequence).await.expect("read").expect("stored");
    let parent = serde_json::from_slice::<serde_json::Value>(&stored.payload).expect("JSON");
    let parent = parent["subject"]
        .as_str()
        .expect("an id")
        .parse()
        .expect("an id");
    decision.about = swarm_events::task::part_id(swarm_events::TaskId(parent), 7, 1).0;
    let decision = DistributorShell::new(log, ME)
        .hydrate(decision)
        .await
        .expect("read");
    let Body::TaskAssigned(assigned) = decision.body else {
        panic!("{:?}", decision.body);
    };
    assert_eq!(assigned.payload, Carried::Inline(text(2_000)));
}

#[tokio::test]
async fn a_result_that_another_swarm_handed_back_is_told_whole() {
    use swarm_events::{
        command::{HandBack, Outcome},
        ids::InstanceId,
        subject::CommandVerb,
        task::HandedBack,
    };
    let log = log();
    let back = HandBack {
        task_id: swarm_events::TaskId(Uuid::from_u128(8)),
        generation: 1,
        by: SwarmId(Uuid::from_u128(5)),
        outcome: Outcome::Completed {
            result: Carried::Inline(text(5_000)),
        },
    };
    let subject = Subject::Command(place(), CommandVerb::HandBack);
    let source = Source::Service(
        swarm_events::Service::Distributor,
        InstanceId(Uuid::from_u128(5)),
    );
    let sequence = store(&log, subject, source, back).await;
    let decide = |sequence| {
        let body = HandedBack {
            by: SwarmId(Uuid::from_u128(5)),
            generation: 1,
            result: Carried::AtSequence(sequence),
        };
        let subject = Subject::Task(place(), TaskVerb::HandedBack, None);
        let mut decision = Decision::new(subject, Uuid::from_u128(8), body);
        decision.hydrate = Some(Hydrate {
            payload_from: Some(sequence),
            inputs_from: Vec::new(),
        });
        decision
    };
    let shell = DistributorShell::new(log, ME);
    let decision = shell.hydrate(decide(sequence)).await.expect("read");
    let Body::TaskHandedBack(back) = decision.body else {
        panic!("{:?}", decision.body);
    };
    assert_eq!(back.result, Carried::Inline(text(5_000)));
    // One that is gone fails the task, which has no other end.
    let decision = shell.hydrate(decide(99)).await.expect("decided");
    assert!(
        matches!(decision.body, Body::TaskFailed(_)),
        "{:?}",
        decision.body
    );
    assert!(decision.subject.to_string().ends_with(".task.failed"));
}
