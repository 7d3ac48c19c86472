//! What an agent's process writes, asked of its host and heard as it is written. The host is played by the test.

use std::time::Duration;

use crate::support::{Stage, events, hosts::Host};
use async_nats::Client;
use futures::StreamExt;
use serde_json::{Value, json};
use swarm_events::{
    AgentId, InstanceId, Place,
    subject::{agent_log, agent_log_tail},
};
use tokio::task::JoinHandle;
use uuid::Uuid;

fn line(micros: u32, stream: &str, text: &str) -> Value {
    json!({"at": format!("2026-01-01T00:00:00.{micros:06}Z"), "stream": stream, "text": text})
}

/// Answers what is asked for the last lines, with as many as are wanted, and says that two are missing.
async fn keep(client: &Client, place: Place, agent: AgentId, lines: Vec<Value>) -> JoinHandle<()> {
    let subject = agent_log_tail(place.org, place.swarm, agent);
    let mut asked = client.subscribe(subject).await.expect("subscribed");
    let asker = client.clone();
    let client = client.clone();
    let keeping = tokio::spawn(async move {
        while let Some(request) = asked.next().await {
            let wanted: Value = serde_json::from_slice(&request.payload).expect("JSON");
            let wanted =
                usize::try_from(wanted["lines"].as_u64().expect("a number")).expect("small");
            let last = lines[lines.len().saturating_sub(wanted)..].to_vec();
            let told = json!({"lines": last, "dropped": 2}).to_string();
            let reply = request.reply.expect("a reply subject");
            client.publish(reply, told.into()).await.expect("published");
        }
    });
    // Once it answers, the server knows of it.
    let nothing = json!({"lines": 0}).to_string();
    let answer = asker.request(
        agent_log_tail(place.org, place.swarm, agent),
        nothing.into(),
    );
    answer.await.expect("an answer");
    keeping
}

async fn agent(stage: &Stage, place: Place) -> (AgentId, String) {
    let path = format!("/v1/swarms/{}/agents", place.swarm);
    let body = json!({"agent_type": "t", "adapter": "process", "command": ["x"]});
    let id = stage.admin.post(&path, &body).await.id();
    let agent = AgentId(id);
    Host::new(stage, "h").requested(place, agent).await;
    (agent, format!("{path}/{id}/logs"))
}

#[tokio::test]
async fn the_last_lines_come_from_the_host() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (agent, path) = agent(&stage, place).await;
    let none = stage.admin.get(&path).await;
    none.refused(503, "no-host-answers", None);
    let client = async_nats::connect(&stage.nats.url)
        .await
        .expect("connected");
    let lines = vec![
        line(1, "stdout", "a"),
        line(2, "stderr", "b"),
        line(3, "stdout", "c\td"),
    ];
    let _host = keep(&client, place, agent, lines.clone()).await;
    let all = stage.admin.get(&path).await;
    assert_eq!(
        (all.status, &all.body["dropped"]),
        (200, &json!(2)),
        "{}",
        all.body
    );
    let texts = |came: &Value| {
        let items = came["items"].as_array().expect("items").iter();
        items.map(|line| line["text"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(texts(&all.body), ["a", "b", "c\td"]);
    assert_eq!(all.body["items"][1]["stream"], "stderr");
    let last = stage.admin.get(&format!("{path}?lines=1")).await;
    assert_eq!(texts(&last.body), ["c\td"]);

    let by_hand = AgentId(Uuid::now_v7());
    stage
        .join(place, by_hand, InstanceId(Uuid::now_v7()), "hand")
        .await;
    let path = |id: Uuid| format!("/v1/swarms/{}/agents/{id}/logs", place.swarm);
    let came = stage.admin.get(&path(by_hand.0)).await;
    came.refused(409, "not-hosted", Some("agent"));
    let came = stage.admin.get(&path(Uuid::now_v7())).await;
    came.refused(404, "unknown-agent", Some("id"));
}

#[tokio::test]
async fn lines_are_followed_without_a_gap_or_a_repeat() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (agent, path) = agent(&stage, place).await;
    let client = async_nats::connect(&stage.nats.url)
        .await
        .expect("connected");
    let kept = vec![line(1, "stdout", "a"), line(2, "stdout", "b")];
    let _host = keep(&client, place, agent, kept.clone()).await;
    let subject = agent_log(place.org, place.swarm, agent);
    // The process goes on to write while somebody may be listening; what is in the tail comes once more on the way.
    let (writer, to) = (client.clone(), subject.clone());
    let _writing = tokio::spawn(async move {
        let mut pace = tokio::time::interval(Duration::from_millis(5));
        for micros in 2.. {
            pace.tick().await;
            let text = if micros == 2 {
                "b".to_owned()
            } else {
                format!("l{micros}")
            };
            let payload = line(micros, "stdout", &text).to_string();
            writer
                .publish(to.clone(), payload.into())
                .await
                .expect("published");
        }
    });
    let heard = events(
        &stage.admin,
        &format!("{path}?follow=true"),
        None,
        |(id, ..)| id % 1_000 > 100,
    )
    .await;
    let texts: Vec<_> = heard
        .iter()
        .map(|(_, _, data)| data["text"].clone())
        .collect();
    assert_eq!(texts[..2], ["a", "b"], "{heard:?}");
    assert_eq!(
        texts.iter().filter(|text| **text == "b").count(),
        1,
        "{texts:?}"
    );
    let ids: Vec<u64> = heard.iter().map(|(id, ..)| *id).collect();
    // From where it begins to be heard there is no gap.
    assert!(
        ids[2..].windows(2).all(|pair| pair[1] == pair[0] + 1),
        "{ids:?}"
    );
    assert!(heard.iter().all(|(_, name, _)| name == "line"));
    // Who comes back goes on behind the last line that was told, whatever the host still has.
    let last = ids[0];
    let more = events(
        &stage.admin,
        &format!("{path}?follow=true"),
        Some(last),
        |_| true,
    )
    .await;
    assert_eq!(more[0].2["text"], "b");
}
