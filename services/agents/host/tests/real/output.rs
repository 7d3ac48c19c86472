//! What agents write.

use futures::StreamExt;
use serde_json::Value;
use swarm_events::{AgentId, subject};
use tokio::time::timeout;

use crate::ground::{Ground, PATIENCE, agent};

async fn ask(ground: &Ground, agent: AgentId, what: &str) -> Value {
    let place = ground.place;
    let subject = subject::agent_log_tail(place.org, place.swarm, agent);
    let answer = ground.log.client().request(subject, what.to_owned().into());
    let answer = timeout(PATIENCE, answer).await.expect("in time");
    serde_json::from_slice(&answer.expect("an answer").payload).expect("JSON")
}

#[tokio::test(flavor = "multi_thread")]
async fn lines_are_passed_on_as_they_come_and_the_last_ones_are_kept() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    let place = ground.place;
    let client = ground.log.client();
    let follow = subject::agent_log(place.org, place.swarm, agent);
    let mut live = client.subscribe(follow).await.expect("subscribed");
    client.flush().await.expect("flushed");
    ground
        .request(agent, 1, "echo one; echo two >&2; echo three; exit 0")
        .await;
    ground.exited(agent).await;
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let line = timeout(PATIENCE, live.next())
            .await
            .expect("in time")
            .expect("a line");
        let line: Value = serde_json::from_slice(&line.payload).expect("JSON");
        assert!(line["at"].is_string());
        seen.push(format!("{} {}", line["stream"], line["text"]));
    }
    seen.sort();
    assert_eq!(
        seen,
        [
            "\"stderr\" \"two\"",
            "\"stdout\" \"one\"",
            "\"stdout\" \"three\""
        ]
    );
    // They can be asked for after it has ended.
    let kept = ask(&ground, agent, r#"{"lines": 2}"#).await;
    assert_eq!(kept["lines"].as_array().map(Vec::len), Some(2));
    assert_eq!(kept["dropped"], 0);
    let all = ask(&ground, agent, "").await;
    assert_eq!(all["lines"].as_array().map(Vec::len), Some(3));
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_holds_nobody_up_and_is_counted() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    // 50,000,000 lines; were it not read at once, it would never end.
    ground
        .request(
            agent,
            1,
            "yes | head -c 100000000; echo; echo the end; exit 4",
        )
        .await;
    let ended = ground.exited(agent).await;
    assert_eq!(ended.exit.code, Some(4), "{ended:?}");
    assert!(
        ended.last_output.ends_with("the end\n"),
        "{}",
        ended.last_output
    );
    assert!(ended.last_output.len() <= swarm_events::agent::LAST_OUTPUT_BYTES_MAX);
    let kept = ask(&ground, agent, r#"{"lines": 1000000}"#).await;
    let lines = kept["lines"].as_array().expect("lines").len() as u64;
    let dropped = kept["dropped"].as_u64().expect("a number");
    assert!(lines <= swarm_agent_host::TAIL_LINES_MAX as u64);
    assert!(dropped > 49_000_000, "{dropped}");
    host.stop().await;
    ground.assert_clean().await;
}
