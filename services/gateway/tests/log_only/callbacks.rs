//! Late answers of those who work on a task elsewhere: through the gateway, over the bus, to a real agent.

use crate::support::Stage;
use serde_json::json;
use swarm_agent_sdk::{Agent, Callbacks, Called, LinkSettings, Stopped, TaskContext, TaskError};
use swarm_events::{AgentId, Json};
use swarm_gateway::{app::App, callbacks::CALLBACK_BYTES_MAX};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[tokio::test]
async fn a_late_answer_reaches_its_agent_by_the_token_alone() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let desk = Callbacks::new().expect("random");
    let (agent, stop) = (AgentId(Uuid::now_v7()), CancellationToken::new());
    let builder = Agent::builder(LinkSettings::new(&stage.nats.url), place.org, place.swarm)
        .id(agent)
        .callbacks(desk.clone())
        .handler("t", async |_: TaskContext, _: Json| Ok::<_, TaskError>(()));
    let running = tokio::spawn(builder.run(stop.clone()));
    let joined = |app: &App| {
        let fold = app.fold.read();
        fold.swarm(place.org, place.swarm)
            .is_some_and(|swarm| swarm.agents.contains_key(&agent))
    };
    stage.eventually(joined).await;

    let mut awaited = desk.open(42);
    let other = desk.open(43);
    let agents = format!("/v1/swarms/{}/agents", place.swarm);
    let path = format!("{agents}/{agent}/callbacks/42");
    let caller = stage.client(&awaited.token);
    let result = json!({"result": {"sum": 6}});

    // Who has no token, another one, or an API key instead, gets nowhere.
    let bare = stage
        .admin
        .http
        .post(format!("{}{path}", stage.url))
        .json(&result);
    assert_eq!(bare.send().await.expect("an answer").status().as_u16(), 401);
    for wrong in ["00", &other.token, &stage.admin.key] {
        let answer = stage.client(wrong).post(&path, &result).await;
        answer.refused(401, "wrong-token", Some("Authorization"));
    }
    // Nor what names nothing that is there.
    for (path, code) in [
        (
            format!("/v1/swarms/{}/agents/{agent}/callbacks/42", Uuid::now_v7()),
            "unknown-swarm",
        ),
        (
            format!("{agents}/{}/callbacks/42", Uuid::now_v7()),
            "unknown-agent",
        ),
        (format!("{agents}/x/callbacks/42"), "unknown-agent"),
        (
            format!("{agents}/{agent}/callbacks/x"),
            "unknown-assignment",
        ),
        (
            format!("{agents}/{agent}/callbacks/44"),
            "unknown-assignment",
        ),
    ] {
        let answer = caller.post(&path, &result).await;
        assert_eq!((answer.status, answer.text("code")), (404, code), "{path}");
    }
    // Nor what says nothing.
    caller
        .post_text(&path, "{")
        .await
        .refused(400, "malformed-json", Some("body"));
    let answer = caller
        .post(&path, &json!({"progress": {"percent": 101}}))
        .await;
    answer.refused(422, "bad-callback", Some("progress.percent"));
    let large = json!({"result": "x".repeat(CALLBACK_BYTES_MAX)});
    assert_eq!(caller.post(&path, &large).await.status, 413);

    let taken = caller
        .post(&path, &json!({"progress": {"percent": 50}}))
        .await;
    assert_eq!(
        (taken.status, &taken.body),
        (200, &json!({"accepted": true}))
    );
    let unversioned = path.trim_start_matches("/v1");
    assert_eq!(caller.post(unversioned, &result).await.status, 200);
    let half = Called::Progress {
        percent: Some(50),
        message: None,
    };
    assert_eq!(awaited.next().await, half);
    assert_eq!(
        awaited.next().await,
        Called::Result(json!({"sum": 6}).into())
    );
    caller
        .post(&path, &result)
        .await
        .refused(410, "assignment-ended", Some("assignment"));

    stop.cancel();
    assert_eq!(
        running.await.expect("no panic").expect("leaves"),
        Stopped::Left
    );
    let gone = caller.post(&path, &result).await;
    gone.refused(504, "agent-gone", Some("agent"));
}
