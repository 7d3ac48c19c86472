//! What the shell puts into assignments, from a log with the rules of the real one.

use bytes::Bytes;
use swarm_distributor::DistributorShell;
use swarm_events::{
    AgentId, Body, Event, EventId, Json, OrgId, Place, Subject, SwarmId,
    configuration::Algorithm,
    decider::{Decision, Hydrate},
    envelope::Source,
    subject::TaskVerb,
    task::{Assigned, Carried, Completed, INPUTS_BYTES_MAX, Submitted},
};
use swarm_log::{
    Log, Message,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_runtime::Shell;
use uuid::Uuid;

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)))
}
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
    let decision = DistributorShell::new(log.clone())
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
    let decision = DistributorShell::new(log)
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
