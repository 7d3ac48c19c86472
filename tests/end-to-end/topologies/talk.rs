//! Agents talk along the edges: one that is lacked is named, topics are followed, people take part.

use serde_json::{Value, json};
use swarm_agent_sdk::{Messages, SendError};

use super::{seated, shaped};
use crate::support::{Installation, PATIENCE, Team, eventually};

pub async fn all(swarm: &Installation) {
    let id = shaped(swarm, "talk", "star", json!({}), json!({})).await;
    let team = Team::of(swarm, &id).await;
    let (hub, hub_id) = agent(swarm, &team, "hub", "coordinator").await;
    let (left, _) = agent(swarm, &team, "left", "worker").await;
    let (_right, right_id) = agent(swarm, &team, "right", "worker").await;
    seated(swarm, &id, 3).await;

    // Between workers of a star there is no edge.
    let refused = left.tell(right_id.as_str(), json!({"psst": 1})).await;
    let Err(error @ SendError::NoEdge(_)) = refused else {
        panic!("not refused: {refused:?}");
    };
    let why = error.to_string();
    assert!(why.contains(&right_id), "names no edge: {why}");

    // A topic is followed along the edges.
    let mut news = hub.subscribe("news").await.expect("subscribed");
    left.publish("news", json!({"headline": "it works"}))
        .await
        .expect("stored");
    let heard = tokio::time::timeout(PATIENCE, news.next()).await;
    let heard = heard.expect("in time").expect("the hub runs");
    assert_eq!(heard.body.to_value(), json!({"headline": "it works"}));
    left.tell(hub_id.as_str(), json!({"for": "the hub alone"}))
        .await
        .expect("there is an edge");

    // People may talk to anybody, and what was said can be read again.
    let body = json!({"to": right_id, "body": {"hello": "right"}});
    let path = format!("/v1/swarms/{id}/messages");
    swarm.post(&path, &body).await;
    let kept = eventually("all that was said is kept", PATIENCE, || async {
        let kept = swarm.get(&path).await;
        (kept["items"].as_array()?.len() >= 3).then_some(kept)
    })
    .await;
    let said: Vec<&Value> = kept["items"].as_array().expect("items").iter().collect();
    assert!(said.iter().any(|one| one["body"] == body["body"]), "{kept}");
    assert!(
        !said.iter().any(|one| one["body"] == json!({"psst": 1})),
        "{kept}"
    );

    // A blackboard refuses what was written over meanwhile.
    let board = format!("/v1/swarms/{id}/blackboard/stock");
    let put = |value: Value, revision: Option<String>| {
        let board = board.clone();
        async move {
            let url = format!("{}{board}", swarm.field("api_url"));
            let mut request = reqwest::Client::new()
                .put(url)
                .bearer_auth(swarm.field("api_key"))
                .json(&value);
            if let Some(revision) = revision {
                request = request.header("If-Match", revision);
            }
            let answer = request.send().await.expect("answers");
            let tag = answer.headers().get("etag");
            let tag = tag.and_then(|tag| tag.to_str().ok()).map(str::to_owned);
            (answer.status().as_u16(), tag)
        }
    };
    let (status, first) = put(json!({"apples": 3}), None).await;
    assert!((200..300).contains(&status), "{status}");
    let (status, _) = put(json!({"apples": 2}), first.clone()).await;
    assert!((200..300).contains(&status), "{status}");
    let (status, _) = put(json!({"apples": 1}), first).await;
    assert_eq!(status, 412, "another was first");
}

/// An agent of this type, and what it speaks with.
async fn agent(
    swarm: &Installation,
    team: &Team,
    name: &str,
    agent_type: &str,
) -> (Messages, String) {
    let mut voice = None;
    let id = team
        .join(swarm, name, |agent| {
            let (agent, handle) = agent.agent_type(agent_type).with_handle();
            voice = Some(handle);
            agent
        })
        .await;
    let voice = voice.expect("it was made").messages().await;
    (voice.expect("it has joined"), id)
}
