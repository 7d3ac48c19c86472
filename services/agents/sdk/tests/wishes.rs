//! What the swarm wants of a running agent, and what the agent wants of its swarm, against a real nats-server.

mod support;

use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::json;
use swarm_agent_sdk::{
    AgentBuilder, AgentChange, AgentError, METADATA_BYTES_MAX, Stopped, TaskContext, TaskError,
    UpdateError,
};
use swarm_events::{
    Body, Json, Problem,
    agent::{Cause, Figures, Profile, Quarantined, Released, StopThen, Stopping, Updated},
    command::UpdateAgent,
    configuration::Configuration,
    subject::{AgentVerb, CommandVerb, Service, Subject, SwarmVerb, TaskVerb},
    swarm,
    task::DECLINE_REASON_BYTES_MAX,
};
use swarm_log::Message;
use tokio::sync::{mpsc, watch};

use support::{Swarm, double, held, json};

fn about(swarm: &Swarm, verb: AgentVerb, body: impl Into<Body>) -> Message {
    let subject = Subject::Agent(swarm.place, verb, swarm.agent);
    swarm.decision(Service::Coordinator, subject, swarm.agent.0, None, body)
}
fn judged(swarm: &Swarm, verb: AgentVerb, body: impl Into<Body>) -> Message {
    let subject = Subject::Agent(swarm.place, verb, swarm.agent);
    swarm.decision(Service::Health, subject, swarm.agent.0, None, body)
}
fn stopping(swarm: &Swarm, incarnation: u64, grace_ms: u64) -> Message {
    let stopping = Stopping {
        incarnation,
        spawn: 3,
        grace_ms,
        then: StopThen::Remove,
        reason: "scaled down".to_owned(),
    };
    about(swarm, AgentVerb::Stopping, stopping)
}
fn settings(swarm: &Swarm, heartbeat_interval_ms: u64) -> Message {
    let updated = swarm::Updated {
        name: "s".to_owned(),
        description: None,
        configuration: Configuration {
            heartbeat_interval_ms,
            ..Configuration::default()
        },
    };
    let subject = Subject::Swarm(swarm.place, SwarmVerb::Updated);
    swarm.decision(
        Service::Coordinator,
        subject,
        swarm.place.swarm.0,
        None,
        updated,
    )
}
fn profile(slots: u32) -> Profile {
    Profile {
        agent_type: "rust".to_owned(),
        agent_name: "n".to_owned(),
        capabilities: vec!["new".to_owned()],
        slots,
        waiting: 5,
        metadata: json!({"a": 1}).into(),
    }
}
const ASKED: fn() -> Stopped = || Stopped::Asked {
    reason: "scaled down".to_owned(),
    then: StopThen::Remove,
};

/// Reads on until the agent says that it leaves. Why.
async fn until_leave(swarm: &mut Swarm) -> Option<String> {
    let leave = swarm.until("leave", |r| match &r.event.body {
        Body::Leave(leave) => Some(leave.reason.clone()),
        _ => None,
    });
    leave.await
}

#[tokio::test]
async fn told_to_go_it_finishes_what_runs_and_leaves_with_the_reason() {
    let mut swarm = Swarm::with_permissions().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (let_go, go) = watch::channel(false);
    let builder = swarm.builder().slots(2).handler("hold", held(&said, &go));
    let agent = swarm.joined(builder).await;
    let running = swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    swarm.append(stopping(&swarm, 7, 0)).await; // another incarnation's
    let at = swarm.append(stopping(&swarm, 1, 60_000)).await;
    let late = swarm.assign("hold", json!({}), 1).await;
    swarm
        .until("the wish", |r| (r.sequence == at).then_some(()))
        .await;
    // A second one is not started: its hint comes on the same connection, behind the wish.
    let_go.send(true).expect("the handler waits");
    swarm.until_completed(running).await;
    assert_eq!(
        until_leave(&mut swarm).await.as_deref(),
        Some("scaled down")
    );
    assert_eq!(agent.end().await.expect("no error"), ASKED());
    assert_eq!(swarm.count(TaskVerb::Started, late), 0);
}

#[tokio::test]
async fn past_the_grace_what_runs_is_cancelled_and_a_shorter_grace_wins() {
    let mut swarm = Swarm::new().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (_hold, go) = watch::channel(false);
    let builder = swarm.builder().handler("hold", held(&said, &go));
    let agent = swarm.joined(builder).await;
    swarm.assign("hold", json!({}), 1).await;
    assert_eq!(hear.recv().await, Some("began"));
    swarm.append(stopping(&swarm, 1, 600_000)).await;
    swarm.append(stopping(&swarm, 1, 0)).await;
    assert_eq!(hear.recv().await, Some("cancelled"));
    until_leave(&mut swarm).await;
    assert_eq!(agent.end().await.expect("no error"), ASKED());
}

#[tokio::test]
async fn a_wish_whose_hint_was_lost_is_found_by_looking() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().handler("double", double))
        .await;
    swarm.republish_nothing().await;
    swarm.append(stopping(&swarm, 1, 1_000)).await;
    until_leave(&mut swarm).await;
    assert_eq!(agent.end().await.expect("no error"), ASKED());
}

#[tokio::test]
async fn quarantine_is_between_the_services_and_stops_nothing_here() {
    let mut swarm = Swarm::new().await;
    let agent = swarm
        .joined(swarm.builder().handler("double", double))
        .await;
    let figures = Figures {
        value: 5,
        limit: 5,
        attempts: 5,
    };
    let cause = Cause::FastFailures;
    let quarantined = Quarantined {
        incarnation: 1,
        cause,
        figures,
        until: None,
    };
    let released = Released {
        incarnation: 1,
        cause,
        figures,
    };
    swarm
        .append(judged(&swarm, AgentVerb::Quarantined, quarantined))
        .await;
    let first = swarm.assign("double", json!(1), 1).await;
    assert_eq!(json(&swarm.until_completed(first).await), json!(2));
    swarm
        .append(judged(&swarm, AgentVerb::Released, released))
        .await;
    let second = swarm.assign("double", json!(2), 1).await;
    assert_eq!(json(&swarm.until_completed(second).await), json!(4));
    assert_eq!(agent.stop().await.expect("stops"), Stopped::Left);
}

#[tokio::test]
async fn the_request_that_started_it_goes_with_the_join_and_superseded_ends_it() {
    let mut swarm = Swarm::new().await;
    let agent = swarm.run(swarm.builder().spawn(4).handler("double", double));
    let problem = Problem::new("superseded", "request 5 is the current one").field("spawn");
    swarm.refuse_join(problem.clone()).await;
    let joins = swarm.seen.iter().filter_map(|r| match &r.event.body {
        Body::Join(join) => join.spawn,
        _ => None,
    });
    assert_eq!(joins.collect::<Vec<_>>(), [4]);
    match agent.end().await {
        Err(error @ AgentError::Replaced { .. }) => {
            let said = error.to_string();
            assert!(
                said.contains("is not the agent") && said.contains("request 5 is the current one"),
                "{said}"
            );
        }
        other => panic!("{other:?}"),
    }
}

/// The time between two heartbeats of the agent, once it lies between these.
async fn until_interval(swarm: &Swarm, between: std::ops::Range<Duration>) {
    let subject = Subject::Heartbeat(swarm.place, swarm.agent).to_string();
    let client = swarm.log.client();
    let mut beats = client.subscribe(subject).await.expect("subscribes");
    let mut last = None;
    let search = async {
        while beats.next().await.is_some() {
            let before = last.replace(Instant::now());
            if before.is_some_and(|before: Instant| between.contains(&before.elapsed())) {
                return;
            }
        }
    };
    let found = tokio::time::timeout(Duration::from_secs(30), search).await;
    found.expect("heartbeats come at this interval");
}

#[tokio::test]
async fn heartbeats_follow_the_swarms_setting_while_it_runs() {
    let mut swarm = Swarm::with_permissions().await;
    swarm.append(settings(&swarm, 300)).await;
    let plain = swarm_agent_sdk::Agent::builder(swarm.link(), swarm.place.org, swarm.place.swarm);
    let agent = swarm
        .joined(plain.id(swarm.agent).handler("double", double))
        .await;
    let millis = Duration::from_millis;
    until_interval(&swarm, millis(250)..millis(600)).await;
    swarm.append(settings(&swarm, 2_000)).await;
    until_interval(&swarm, millis(1_800)..millis(3_000)).await;
    agent.stop().await.expect("stops");
}

fn declining() -> impl Fn(TaskContext, String) -> std::future::Ready<Result<(), TaskError>> {
    |_, reason| std::future::ready(Err(TaskError::decline(reason)))
}

#[tokio::test]
async fn a_task_is_given_back_with_its_reason_and_the_slot_is_free_again() {
    let mut swarm = Swarm::with_permissions().await;
    let builder = swarm
        .builder()
        .handler("no", declining())
        .handler("double", double);
    let agent = swarm.joined(builder).await;
    let long = "ä".repeat(DECLINE_REASON_BYTES_MAX);
    for (task_type, payload, words) in [
        ("no", json!("no such file here"), "no such file here"),
        ("no", json!(long), " …"),
        ("other", json!({}), "no handler for tasks of type other"),
    ] {
        let assignment = swarm.assign(task_type, payload, 1).await;
        let reason = swarm
            .until("declined", |r| match (&r.event.body, r.subject) {
                (Body::TaskDeclined(d), Subject::Task(_, TaskVerb::Declined, Some(_)))
                    if d.assignment == assignment && d.incarnation == 1 =>
                {
                    Some(d.reason.clone())
                }
                _ => None,
            })
            .await;
        assert!(reason.ends_with(words), "{reason}");
        assert!(reason.len() <= DECLINE_REASON_BYTES_MAX, "{}", reason.len());
        assert_eq!(swarm.count(TaskVerb::AttemptFailed, assignment), 0);
    }
    let next = swarm.assign("double", json!(2), 1).await;
    assert_eq!(json(&swarm.until_completed(next).await), json!(4));
    agent.stop().await.expect("stops");
}

/// Answers the next wish of the agent with this profile; the wish.
async fn let_change(swarm: &mut Swarm, profile: Profile) -> UpdateAgent {
    let (id, wish) = swarm
        .until("a change", |r| match (&r.event.body, r.subject) {
            (Body::UpdateAgent(wish), Subject::Command(_, CommandVerb::UpdateAgent)) => {
                Some((r.event.id.0, wish.clone()))
            }
            _ => None,
        })
        .await;
    let updated = Updated {
        incarnation: 1,
        profile,
    };
    let subject = Subject::Agent(swarm.place, AgentVerb::Updated, swarm.agent);
    let agent = swarm.agent.0;
    swarm
        .append(swarm.decision(Service::Coordinator, subject, agent, Some(id), updated))
        .await;
    wish
}

#[tokio::test]
async fn a_running_agent_is_changed_and_joins_again_as_what_it_became() {
    let mut swarm = Swarm::with_permissions().await;
    let (said, mut hear) = mpsc::unbounded_channel();
    let (let_go, go) = watch::channel(false);
    let (builder, handle) = swarm.builder().with_handle();
    let agent = swarm
        .joined(builder.handler("hold", held(&said, &go)))
        .await;
    let change = AgentChange::new()
        .slots(2)
        .capabilities(["new"])
        .metadata(&json!({"a": 1}).into());
    let asking = tokio::spawn(async move { (handle.update(change).await, handle) });
    let wish = let_change(&mut swarm, profile(2)).await;
    assert_eq!(wish.incarnation, Some(1));
    let patch = json!({"slots": 2, "capabilities": ["new"], "metadata": {"a": 1}});
    assert_eq!(wish.patch.to_value(), patch);
    let (answer, handle) = asking.await.expect("no panic");
    assert_eq!(answer.expect("taken"), profile(2));
    // Two at once now.
    swarm.assign("hold", json!({}), 1).await;
    swarm.assign("hold", json!({}), 1).await;
    assert_eq!(
        (hear.recv().await, hear.recv().await),
        (Some("began"), Some("began"))
    );
    let_go.send(true).expect("they wait");
    swarm.fail(1).await;
    let again = swarm.until("a join", |r| match &r.event.body {
        Body::Join(join) => Some(join.clone()),
        _ => None,
    });
    let again = again.await;
    assert_eq!((again.slots, again.waiting), (Some(2), Some(5)));
    assert_eq!(again.capabilities, ["new"]);
    agent.stop().await.expect("stops");
    let change = AgentChange::new().slots(1);
    assert!(matches!(
        handle.update(change).await,
        Err(UpdateError::NotRunning)
    ));
}

#[tokio::test]
async fn a_change_that_the_swarm_refuses_names_the_field() {
    let mut swarm = Swarm::new().await;
    let (builder, handle) = swarm.builder().with_handle();
    let agent = swarm.joined(builder.handler("double", double)).await;
    let asking = tokio::spawn(async move { handle.update(AgentChange::new().slots(0)).await });
    let (id, sequence) = swarm
        .until("a change", |r| match &r.event.body {
            Body::UpdateAgent(_) => Some((r.event.id.0, r.sequence)),
            _ => None,
        })
        .await;
    let problem = Problem::new("out-of-range", "0 is outside 1 to 1024").field("slots");
    let refused = swarm::Refused {
        command_id: Some(id.into()),
        refused_subject: Subject::Command(swarm.place, CommandVerb::UpdateAgent).to_string(),
        refused_seq: sequence,
        count: 1,
        problem: problem.clone(),
    };
    let subject = Subject::Swarm(swarm.place, SwarmVerb::Refused);
    let swarm_id = swarm.place.swarm.0;
    let message = swarm.decision(Service::Coordinator, subject, swarm_id, Some(id), refused);
    swarm.append(message).await;
    match asking.await.expect("no panic") {
        Err(UpdateError::Refused(refused)) => assert_eq!(refused, problem),
        other => panic!("{other:?}"),
    }
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn what_typed_handlers_take_and_give_shows_in_the_metadata_but_not_in_heartbeats() {
    let mut swarm = Swarm::new().await;
    let subject = Subject::Heartbeat(swarm.place, swarm.agent).to_string();
    let client = swarm.log.client();
    let mut beats = client.subscribe(subject).await.expect("subscribes");
    let builder = swarm.builder().metadata(json!({"zone": "a"}).into());
    let agent = swarm.joined(builder.handler("double", double)).await;
    let shown = swarm.seen.iter().find_map(|r| match &r.event.body {
        Body::Join(join) => Some(join.metadata.to_value()),
        _ => None,
    });
    let shown = shown.expect("it joined");
    assert_eq!(shown["zone"], "a");
    assert_eq!(shown["task_types"]["double"]["input"]["type"], "integer");
    assert_eq!(shown["task_types"]["double"]["output"]["minimum"], 0);
    let beat = beats.next().await.expect("a heartbeat");
    let beat: swarm::Heartbeat = serde_json::from_slice(&beat.payload).expect("readable");
    assert_eq!(beat.metadata.to_value(), json!({"zone": "a"}));
    agent.stop().await.expect("stops");
}

#[tokio::test]
async fn schemas_that_do_not_fit_end_it_before_it_connects() {
    let swarm = Swarm::new().await;
    let filled = |builder: AgentBuilder| {
        let text = "x".repeat(METADATA_BYTES_MAX - r#"{"x":""}"#.len());
        let metadata: Json = json!({"x": text}).into();
        builder.metadata(metadata).handler("double", double)
    };
    match swarm.run(filled(swarm.builder())).end().await {
        Err(error @ AgentError::Metadata(_)) => {
            assert!(
                error.to_string().contains("task type double alone"),
                "{error}"
            );
        }
        other => panic!("{other:?}"),
    }
    let mut swarm = swarm;
    let agent = swarm
        .joined(filled(swarm.builder()).without_schemas())
        .await;
    agent.stop().await.expect("stops");
}
