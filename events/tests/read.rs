//! Reading: agreement with the CloudEvents SDK, and words for everything that cannot be read.

use cloudevents::AttributesReader;
use proptest::prelude::*;
use swarm_events::{
    AgentId, Event, EventId, Input, Json, OrgId, Partition, Place, Service, Subject, SwarmId,
    TaskId, Timestamp, edge,
    envelope::{Decided, Source},
    ids::InstanceId,
    read,
    read::{Writer, writer},
    subject::{AgentVerb, CommandVerb, ControlVerb, OrgVerb, SwarmVerb, TaskVerb, filter},
    task,
};
use uuid::Uuid;

fn uuids() -> impl Strategy<Value = Uuid> {
    any::<u128>().prop_map(|n| Uuid::from_u128(n | 1))
}
fn places() -> impl Strategy<Value = Place> {
    (uuids(), uuids()).prop_map(|(org, swarm)| Place::new(OrgId(org), SwarmId(swarm)))
}
fn subjects() -> impl Strategy<Value = Subject> {
    let agent = || uuids().prop_map(AgentId);
    prop_oneof![
        (places(), prop::sample::select(SwarmVerb::ALL)).prop_map(|(p, v)| Subject::Swarm(p, v)),
        (places(), prop::sample::select(AgentVerb::ALL), agent())
            .prop_map(|(p, v, a)| Subject::Agent(p, v, a)),
        (places(), prop::sample::select(TaskVerb::ALL), agent())
            .prop_map(|(p, v, a)| Subject::Task(p, v, v.names_agent().then_some(a))),
        (uuids(), prop::sample::select(OrgVerb::ALL)).prop_map(|(o, v)| Subject::Org(
            Partition::of(o),
            OrgId(o),
            v
        )),
        (places(), prop::sample::select(CommandVerb::ALL)).prop_map(|(p, v)| {
            if v.of_org() {
                Subject::OrgCommand(Partition::of(p.org.0), p.org, v)
            } else {
                Subject::Command(p, v)
            }
        }),
        (
            prop::sample::select(Service::ALL),
            0u8..64,
            prop::sample::select(ControlVerb::ALL)
        )
            .prop_map(|(s, p, v)| Subject::Control(
                s,
                Partition::new(p).expect("below 64"),
                v
            )),
        (places(), agent()).prop_map(|(p, a)| Subject::Heartbeat(p, a)),
    ]
}
fn payloads() -> impl Strategy<Value = Json> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(serde_json::Value::from),
        ".*".prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
        Just(serde_json::Value::Null),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(serde_json::Value::from),
            prop::collection::btree_map("[a-z\u{e9}\"\\\\]{0,6}", inner, 0..4)
                .prop_map(|m| serde_json::Value::Object(m.into_iter().collect())),
        ]
    })
    .prop_map(Json::from)
}

proptest! {
    #[test]
    fn a_subject_is_parsed_as_it_was_built(subject in subjects()) {
        let text = subject.to_string();
        prop_assert_eq!(Subject::parse(&text), Ok(subject));
        prop_assert_eq!(read::partition_of_subject(&text), Some(subject.partition()));
    }

    #[test]
    fn any_text_as_subject_and_any_bytes_as_event_are_answered_in_words(
        subject in "[a-z0-9.*> -]{0,60}", bytes in prop::collection::vec(any::<u8>(), 0..200)
    ) {
        let input = read(7, Timestamp::ZERO, &subject, &bytes);
        let Input::Unreadable(unreadable) = input else { return Err(TestCaseError::fail("read noise")) };
        prop_assert!(!unreadable.problem.detail.is_empty());
    }

    #[test]
    fn the_typed_reader_and_the_sdk_agree(
        place in places(), agent in uuids(), id in uuids(), result in payloads(),
        micros in 0i64..4_000_000_000_000_000, assignment in any::<u32>(),
        decided in prop::option::of((any::<u32>(), any::<u32>(), any::<u32>())),
        correlation in prop::option::of(uuids()),
    ) {
        // An agent's event, or, with figures, a distributor's.
        let agent = AgentId(agent);
        let instance = InstanceId(id);
        let (subject, source, body): (_, _, swarm_events::Body) = match decided {
            None => (
                Subject::Task(place, TaskVerb::Completed, Some(agent)),
                Source::Agent(agent),
                task::Completed {
                    assignment: assignment.into(), incarnation: 1, result: task::Carried::Inline(result),
                }.into(),
            ),
            Some(_) => (
                Subject::Task(place, TaskVerb::Cancelled, None),
                Source::Service(Service::Distributor, instance),
                task::Cancelled { generation: 1, reason: result.to_string() }.into(),
            ),
        };
        let mut event = Event::new(EventId(id), source, Timestamp::from_micros(micros), &subject, TaskId(id).0, body);
        event.correlation = correlation;
        event.decided = decided.map(|(c, e, o)| Decided {
            cause_sequence: c.into(), epoch: e.into(), ordinal: o.into(), decider_version: 1,
        });
        let bytes = event.to_json().expect("JSON");

        let Input::Event(recorded) = read(1, Timestamp::ZERO, &subject.to_string(), &bytes) else {
            return Err(TestCaseError::fail(format!("not read: {}", String::from_utf8_lossy(&bytes))));
        };
        prop_assert_eq!(&recorded.event, &event);

        let sdk: cloudevents::Event = serde_json::from_slice(&bytes).expect("the SDK reads it");
        prop_assert_eq!(sdk.id(), event.id.to_string());
        prop_assert_eq!(sdk.ty(), event.body.type_name());
        prop_assert_eq!(sdk.source().as_str(), event.source.to_string());
        prop_assert_eq!(sdk.subject().map(str::to_owned), Some(event.about.to_string()));
        prop_assert_eq!(sdk.time().map(|t| t.timestamp_micros()), Some(micros));
        prop_assert_eq!(sdk.extension("org").map(ToString::to_string), event.org.map(|o| o.to_string()));
        prop_assert_eq!(
            sdk.extension("epoch").map(ToString::to_string),
            event.decided.map(|d| d.epoch.to_string())
        );
        let built = edge::to_bytes(&event, &subject).expect("the edge builds it");
        let Input::Event(built) = read(1, Timestamp::ZERO, &subject.to_string(), &built) else {
            return Err(TestCaseError::fail("what the edge built is not read"));
        };
        prop_assert_eq!(&built.event, &event);
        let again: Event = {
            let text = serde_json::to_vec(&sdk).expect("the SDK writes it");
            let Input::Event(recorded) = read(1, Timestamp::ZERO, &subject.to_string(), &text) else {
                return Err(TestCaseError::fail("what the SDK wrote is not read"));
            };
            recorded.event
        };
        prop_assert_eq!(again.about, event.about);
        prop_assert_eq!(again.decided, event.decided);
    }
}

fn problem_of(subject: &str, event: &serde_json::Value) -> String {
    match read(
        9,
        Timestamp::ZERO,
        subject,
        &serde_json::to_vec(event).expect("JSON"),
    ) {
        Input::Unreadable(unreadable) => unreadable.problem.to_string(),
        Input::Event(recorded) => panic!("must not be read: {recorded:?}"),
    }
}

#[test]
fn what_is_wrong_is_said_with_its_field() {
    let text = include_str!("../golden/swarm.task.submitted.v1.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let subject = file["nats_subject"].as_str().expect("text");
    let good = &file["event"];
    let with = |field: &str, value: serde_json::Value| {
        let mut event = good.clone();
        event[field] = value;
        event
    };
    for (field, value, words) in [
        ("specversion", "0.3".into(), "specversion: must be 1.0"),
        (
            "type",
            "swarm.task.completed.v1".into(),
            "type: this subject takes swarm.task.submitted.v<N>",
        ),
        (
            "type",
            "swarm.task.submitted.v9".into(),
            "type: swarm.task.submitted.v9 is not known here",
        ),
        (
            "org",
            Uuid::nil().to_string().into(),
            "org: must be the organization that the NATS subject names",
        ),
        (
            "swarm",
            Uuid::nil().to_string().into(),
            "swarm: must be the swarm that the NATS subject names",
        ),
        ("subject", "a task".into(), "subject: must be the UUID"),
        (
            "data",
            serde_json::json!({"payload": {}}),
            "task_type: missing field `task_type`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "prio": 1}),
            "prio: unknown field `prio`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "payload": {"b": [1, {}]}, "timeout_ms": -5}),
            "timeout_ms: invalid value: integer `-5`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "queue_timeout_ms": -5}),
            "queue_timeout_ms: invalid value: integer `-5`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "progress_timeout_ms": 1.5}),
            "progress_timeout_ms: invalid type: floating point `1.5`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "priority": -1}),
            "priority: invalid value: integer `-1`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "depends_on": [
                {"task_id": Uuid::from_u128(7)},
                {"task_id": Uuid::from_u128(8), "dependency_type": "maybe"},
            ]}),
            "depends_on[1].dependency_type: unknown variant `maybe`",
        ),
        (
            "data",
            serde_json::json!({"task_type": "a", "depends_on": [{"dependency_type": "data"}]}),
            "depends_on[0].task_id: missing field `task_id`",
        ),
        ("data", serde_json::json!([]), "data: invalid length 0"),
        (
            "data",
            serde_json::json!("text"),
            "data: invalid type: string",
        ),
    ] {
        let problem = problem_of(subject, &with(field, value));
        assert!(
            problem.starts_with(words),
            "{problem:?} does not start with {words:?}"
        );
    }
    let mut tokens: Vec<&str> = subject.split('.').collect();
    let wrong = if tokens[2] == "00" { "01" } else { "00" };
    let right = tokens[2].to_owned();
    tokens[2] = wrong;
    let problem = problem_of(&tokens.join("."), good);
    assert!(
        problem.contains(&format!("publish to partition {right}")),
        "{problem}"
    );
    assert!(problem_of("swarm.evt.nothing", good).contains("is not a subject of Swarm"));
}

#[test]
fn a_refusal_of_what_came_in_a_wrong_partition_can_be_read_there() {
    let text = include_str!("../golden/swarm.task.refused.v1.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let subject = file["nats_subject"].as_str().expect("text");
    let mut tokens: Vec<&str> = subject.split('.').collect();
    tokens[2] = if tokens[2] == "00" { "01" } else { "00" };
    let bytes = serde_json::to_vec(&file["event"]).expect("JSON");
    // Otherwise its owner would refuse its own refusal, once a second, for ever.
    assert!(matches!(
        read(9, Timestamp::ZERO, &tokens.join("."), &bytes),
        Input::Event(_)
    ));
}

#[test]
fn a_decision_needs_its_service_and_its_figures() {
    let text = include_str!("../golden/swarm.task.assigned.v1.json");
    let file: serde_json::Value = serde_json::from_str(text).expect("JSON");
    let subject = file["nats_subject"].as_str().expect("text");
    let mut event = file["event"].clone();
    event["source"] = "/someone/else".into();
    assert!(
        problem_of(subject, &event)
            .starts_with("source: /someone/else does not write on this subject")
    );
    let mut event = file["event"].clone();
    event.as_object_mut().expect("object").remove("epoch");
    assert!(problem_of(subject, &event).starts_with("epoch: a decision carries"));
    // A newer service may have written an unknown version of a decision: a replica must not fold past it.
    let mut event = file["event"].clone();
    event["type"] = "swarm.task.assigned.v9".into();
    let Input::Unreadable(unreadable) = read(
        9,
        Timestamp::ZERO,
        subject,
        &serde_json::to_vec(&event).expect("JSON"),
    ) else {
        panic!("must not be read")
    };
    assert!(unreadable.newer);
}

/// Whether a NATS filter matches a subject: written from the rules of wildcards, for these tests.
fn matches(filter: &str, subject: &str) -> bool {
    let (mut f, mut s) = (filter.split('.'), subject.split('.'));
    loop {
        match (f.next(), s.next()) {
            (Some(">"), Some(_)) | (None, None) => return true,
            (Some("*"), Some(_)) => {}
            (Some(a), Some(b)) if a == b => {}
            _ => return false,
        }
    }
}

proptest! {
    #[test]
    fn no_subject_matches_two_filters_of_a_consumer(subject in subjects(), service in prop::sample::select(Service::ALL)) {
        let text = subject.to_string();
        for filters in [filter::inputs(service, None), filter::inputs(service, Some(subject.partition()))] {
            let hits = filters.iter().filter(|f| matches(f, &text)).count();
            prop_assert!(hits <= 1, "{text} matches {hits} of {filters:?}");
        }
    }
}

#[test]
fn who_heeds_the_coordinator_meets_all_that_it_decides_in_the_partition() {
    // Its decisions are valid in the order of their numbers: who does not meet one judges those behind it differently.
    let org = OrgId(Uuid::from_u128(1));
    let swarm = SwarmId(Uuid::from_u128(2));
    let agent = AgentId(Uuid::from_u128(3));
    let place = Place::new(org, swarm);
    let subjects = OrgVerb::ALL
        .iter()
        .map(|verb| Subject::Org(place.partition, org, *verb))
        .chain(
            SwarmVerb::ALL
                .iter()
                .map(|verb| Subject::Swarm(place, *verb)),
        )
        .chain(
            AgentVerb::ALL
                .iter()
                .map(|verb| Subject::Agent(place, *verb, agent)),
        );
    for subject in subjects {
        if writer(&subject) != Writer::Service(Service::Coordinator) {
            continue;
        }
        let text = subject.to_string();
        for &service in Service::ALL {
            for filters in [
                filter::inputs(service, None),
                filter::inputs(service, Some(subject.partition())),
            ] {
                assert!(
                    filters.iter().any(|f| matches(f, &text)),
                    "{service} does not meet {text}"
                );
            }
        }
    }
}
