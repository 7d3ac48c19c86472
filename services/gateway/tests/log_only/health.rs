//! A swarm's health: why it is as it is, how old the last heartbeats are, what is found of its agents, and its hosts.

use std::collections::BTreeMap;

use crate::support::{Came, PATIENCE, Stage, hosts::Host, open_log};
use async_nats::Client;
use serde_json::{Value, json};
use swarm_events::{
    AgentId, Event, EventId, InstanceId, Json, Partition, Place, Service, Subject,
    agent::{Evidence, LivenessRule},
    control::{Observed, Sighting},
    envelope::Source,
    subject::{ControlVerb, host_beat},
    swarm::{AgentSample, Heartbeat, HostBeat, ProcessFigures},
};
use swarm_gateway::app::App;
use swarm_health_core::Health;
use swarm_runtime::deciding::{self, LoopSettings, NoShell};
use tokio_util::sync::{CancellationToken, DropGuard};
use uuid::Uuid;

fn heartbeat(instance: InstanceId) -> Heartbeat {
    Heartbeat {
        messages_read: 0,
        messages_sent: 0,
        instance,
        incarnation: 1,
        counter: 1,
        status: "idle".to_owned(),
        cpu_centipercent: 150,
        memory_kib: 2_048,
        active_connections: 3,
        queue_depth: 0,
        current_tasks: Vec::new(),
        metadata: Json::object(),
    }
}

/// Publishes what is kept beside the log.
async fn beat(client: &Client, subject: String, said: &impl serde::Serialize) {
    let context = async_nats::jetstream::new(client.clone());
    let payload = serde_json::to_vec(said).expect("JSON");
    let sent = context
        .publish(subject, payload.into())
        .await
        .expect("sent");
    sent.await.expect("stored");
}

/// Health's deciding loop, whose shell is the test.
async fn health_decides(stage: &Stage) -> DropGuard {
    let stop = CancellationToken::new();
    let log = open_log(&stage.nats.url).await;
    let settings = LoopSettings::all(InstanceId(Uuid::now_v7()));
    tokio::spawn(deciding::run::<Health, _, _>(
        log,
        NoShell,
        settings,
        stop.clone(),
    ));
    stop.drop_guard()
}

async fn observe(stage: &Stage, place: Place, observed: Observed) {
    let partition: Partition = place.partition;
    let subject = Subject::Control(Service::Health, partition, ControlVerb::Observed);
    let source = Source::Service(Service::Health, InstanceId(Uuid::now_v7()));
    let about = Event::about_partition(partition);
    let id = EventId(Uuid::now_v7());
    let event = Event::new(id, source, App::now(), &subject, about, observed);
    stage
        .publish_raw(&subject.to_string(), &event.to_json().expect("JSON"))
        .await;
}

async fn until(stage: &Stage, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
    let mut look = tokio::time::interval(std::time::Duration::from_millis(20));
    let shown = async {
        loop {
            look.tick().await;
            let Came { status, body, .. } = stage.admin.get(path).await;
            assert_eq!(status, 200, "{body}");
            if holds(&body) {
                return body;
            }
        }
    };
    tokio::time::timeout(PATIENCE, shown)
        .await
        .expect("shown in time")
}

#[tokio::test]
async fn ages_are_those_of_the_last_heartbeats_and_figures_those_of_the_host() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/health", place.swarm);
    let agents = format!("/v1/swarms/{}/agents", place.swarm);
    let empty = stage.admin.get(&path).await;
    assert_eq!(
        (empty.status, empty.text("status")),
        (200, "inactive"),
        "{}",
        empty.body
    );
    assert_eq!(empty.body["reasons"].as_array().map(Vec::len), Some(1));
    let body =
        json!({"agent_type": "analyzer", "agent_name": "ann", "adapter": "exec", "command": ["x"]});
    let agent = AgentId(stage.admin.post(&agents, &body).await.id());
    let host = Host::new(&stage, "node-1");
    host.requested(place, agent).await;
    let starting = stage.admin.get(&path).await.body;
    assert_eq!(
        (&starting["status"], &starting["items"][0]["status"]),
        (&json!("starting"), &json!("pending"))
    );
    let reasons = starting["reasons"].to_string();
    assert!(
        reasons.contains("0 of the 1 agent needed") && reasons.contains("ann: no host has taken"),
        "{reasons}"
    );
    assert_eq!(
        (
            &starting["agents"]["wanted"],
            &starting["agents"]["pending"]
        ),
        (&json!(1), &json!(1))
    );

    let instance = host.run(place, agent).await;
    let client = async_nats::connect(&stage.nats.url)
        .await
        .expect("connected");
    let subject = Subject::Heartbeat(place, agent).to_string();
    // One of another process says nothing of this one.
    beat(
        &client,
        subject.clone(),
        &heartbeat(InstanceId(Uuid::now_v7())),
    )
    .await;
    let silent = stage.admin.get(&path).await.body;
    assert_eq!(
        (&silent["status"], &silent["reasons"]),
        (&json!("active"), &json!([]))
    );
    assert_eq!(silent["heartbeats_from"], "stream");
    assert_eq!(
        silent["items"][0]["heartbeat_age_ms"],
        Value::Null,
        "{silent}"
    );
    beat(&client, subject, &heartbeat(instance)).await;
    let own = stage.admin.get(&path).await.body["items"][0].clone();
    let age = own["heartbeat_age_ms"].as_u64().expect("an age");
    assert!(age < 30_000, "{own}");
    assert_eq!(
        (
            &own["cpu_percent"],
            &own["memory_mb"],
            &own["active_connections"]
        ),
        (&json!(1.5), &json!(2.0), &json!(3))
    );
    // Its host sees the whole tree of processes.
    let figures = ProcessFigures {
        cpu_centipercent: 2_500,
        memory_kib: 10_240,
        active_connections: 7,
        processes: 2,
    };
    let said = HostBeat {
        host: host.name.instance,
        name: "node-1".to_owned(),
        counter: 1,
        room: 9,
        agents: BTreeMap::from([(agent, figures)]),
    };
    beat(&client, host_beat(host.name.instance), &said).await;
    let health = stage.admin.get(&path).await.body;
    let one = &health["items"][0];
    assert_eq!(
        (&one["cpu_percent"], &one["memory_mb"]),
        (&json!(25.0), &json!(10.0)),
        "{one}"
    );
    assert_eq!(
        (&one["host"]["name"], &one["pid"]),
        (&json!("node-1"), &json!(4_711))
    );
    let shown = &health["hosts"][0];
    assert_eq!(
        (&shown["name"], &shown["agents"], &shown["room"]),
        (&json!("node-1"), &json!(1), &json!(9))
    );
    assert!(shown["heartbeat_age_ms"].is_u64(), "{shown}");
    let limits = &health["thresholds"];
    assert_eq!(
        (
            &limits["suspect_after_ms"],
            &limits["fail_after_ms"],
            &limits["policy"]["fast_failures_max"]
        ),
        (&json!(2_500), &json!(4_000), &json!(5))
    );
}

#[tokio::test]
async fn what_health_decides_degrades_the_swarm_with_its_reasons() {
    let stage = Stage::without_database().await;
    let settings = json!({"name": "a", "configuration": {"health": {"memory_kib_max": 1_000}}});
    let place = stage.swarm(settings).await;
    let path = format!("/v1/swarms/{}/health", place.swarm);
    let _deciding = health_decides(&stage).await;
    let (agent, instance) = (AgentId(Uuid::now_v7()), InstanceId(Uuid::now_v7()));
    stage.join(place, agent, instance, "ann").await;
    let sample = |memory_kib| AgentSample {
        messages_read: 0,
        messages_sent: 0,
        instance,
        status: "idle".to_owned(),
        last_heartbeat_at: App::now(),
        cpu_centipercent: 0,
        memory_kib,
        active_connections: 0,
        queue_depth: 0,
        current_tasks: Vec::new(),
    };
    let samples = |memory_kib| Observed::Samples {
        org_id: place.org,
        swarm_id: place.swarm,
        agents: BTreeMap::from([(agent, sample(memory_kib))]),
    };
    observe(&stage, place, samples(5_000)).await;
    let unfit = until(&stage, &path, |health| health["agents"]["quarantined"] == 1).await;
    let one = &unfit["items"][0];
    assert_eq!(
        (&unfit["status"], &one["status"]),
        (&json!("degraded"), &json!("unhealthy")),
        "{unfit}"
    );
    let cause = &one["quarantine"][0];
    assert_eq!(
        (
            &cause["cause"],
            &cause["figures"]["value"],
            &cause["figures"]["limit"],
            &cause["until"]
        ),
        (&json!("memory"), &json!(5_000), &json!(1_000), &Value::Null)
    );
    assert!(
        cause["since"].is_string()
            && one["status_reason"]
                .as_str()
                .is_some_and(|why| why.contains("5000 KiB")),
        "{one}"
    );
    assert!(
        unfit["reasons"].to_string().contains("ann: quarantined"),
        "{unfit}"
    );
    observe(&stage, place, samples(500)).await;
    let fit = until(&stage, &path, |health| health["status"] == "active").await;
    assert_eq!(
        (&fit["items"][0]["quarantine"], &fit["items"][0]["status"]),
        (&json!([]), &json!("idle"))
    );

    let silent = Observed::Liveness {
        org_id: place.org,
        swarm_id: place.swarm,
        agent_id: agent,
        incarnation: 1,
        sighting: Sighting::Silent,
        evidence: Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 2_700,
            limit_ms: 2_500,
        },
    };
    observe(&stage, place, silent).await;
    let suspected = until(&stage, &path, |health| health["status"] == "degraded").await;
    let one = &suspected["items"][0];
    assert_eq!(
        (&one["status"], &one["evidence"]["age_ms"]),
        (&json!("unhealthy"), &json!(2_700))
    );
    assert!(
        suspected["reasons"].to_string().contains("ann: suspected"),
        "{suspected}"
    );
}
