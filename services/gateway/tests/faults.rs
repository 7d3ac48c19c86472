//! What the gateway says when the log misbehaves, on the simulated log and a clock that is not waited for.

mod support;

use std::sync::Arc;

use axum::{
    body::{Body, to_bytes},
    http::Request,
};
use serde_json::{Value, json};
use support::{NO_DATABASE, PATIENCE, decide};
use swarm_gateway::{
    app::{App, OUTCOME_TIMEOUT},
    bootstrap,
    port::Port,
    router::router,
    tail,
};
use swarm_log::simulated::{Fault, Faults, SimulatedLog};
use swarm_projections::pool;
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;

struct Scene {
    log: SimulatedLog,
    app: Arc<App>,
    key: String,
    /// Ends the deciding services, and them alone.
    services: CancellationToken,
    deciding: Vec<JoinHandle<()>>,
}

impl Scene {
    async fn new() -> Self {
        let log = SimulatedLog::default();
        log.set_time(chrono::Utc::now().timestamp_micros());
        let services = CancellationToken::new();
        let deciding = decide(&log.handle("services"), &services);
        let made = bootstrap(log.clone(), "first")
            .await
            .expect("the first organization");
        let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
        let pool = pool::reader(NO_DATABASE).expect("a URL");
        let port = Port::new(log.handle("gateway"));
        let app = Arc::new(App::new(
            port,
            pool,
            recorder.handle(),
            CancellationToken::new(),
        ));
        let mut tail = app.tail.subscribe();
        tokio::spawn(tail::follow(app.clone()));
        timeout(PATIENCE, tail.wait_for(|tail| tail.caught_up))
            .await
            .expect("in time")
            .expect("alive");
        Self {
            log,
            app,
            key: made.api_key,
            services,
            deciding,
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = Request::post(path)
            .header("Authorization", format!("Bearer {}", self.key))
            .body(Body::from(body.to_string()))
            .expect("a request");
        let response = router(self.app.clone())
            .oneshot(request)
            .await
            .expect("an answer");
        let status = response.status().as_u16();
        let bytes = to_bytes(response.into_body(), 1 << 20)
            .await
            .expect("a body");
        (status, serde_json::from_slice(&bytes).expect("JSON"))
    }

    fn submitted(&self) -> usize {
        self.log
            .messages()
            .iter()
            .filter(|message| message.subject.ends_with(".task.submitted"))
            .count()
    }
}

fn task() -> Value {
    json!({"task_type": "t", "payload": {}})
}

#[tokio::test(start_paused = true)]
async fn a_command_that_nobody_answers_is_handed_back_by_its_id() {
    let mut scene = Scene::new().await;
    scene.services.cancel();
    for service in std::mem::take(&mut scene.deciding) {
        service.await.expect("a clean end");
    }
    let asked = Instant::now();
    let (status, body) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    assert_eq!(
        (status, &body["code"]),
        (504, &json!("no-answer-yet")),
        "{body}"
    );
    assert!(asked.elapsed() >= OUTCOME_TIMEOUT);
    let last = scene
        .log
        .messages()
        .into_iter()
        .rfind(|m| m.subject.contains(".create"))
        .expect("the command");
    let stored: Value = serde_json::from_slice(&last.payload).expect("JSON");
    assert_eq!(
        (&body["id"], &body["seq"]),
        (&stored["id"], &json!(last.sequence))
    );
    assert!(body["cure"].is_string());
    assert_eq!(
        scene.app.fold.outcomes().waiting(),
        0,
        "the wait is given up"
    );
}

#[tokio::test(start_paused = true)]
async fn of_many_orders_those_without_an_answer_are_named() {
    let mut scene = Scene::new().await;
    let (_, swarm) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/tasks", swarm["id"].as_str().expect("an id"));
    scene.services.cancel();
    for service in std::mem::take(&mut scene.deciding) {
        service.await.expect("a clean end");
    }
    let ids: Vec<_> = (1..=3).map(uuid::Uuid::from_u128).collect();
    let asked = Instant::now();
    let (status, body) = scene
        .post(&format!("{path}/cancel"), &json!({"task_ids": ids}))
        .await;
    assert_eq!(
        (status, &body["code"], &body["unknown_ids"]),
        (504, &json!("no-answer-yet"), &json!(ids)),
        "{body}"
    );
    // One deadline for all of them.
    let took = asked.elapsed();
    assert!(took >= OUTCOME_TIMEOUT && took < 2 * OUTCOME_TIMEOUT);
    let items = body["items"].as_array().expect("items");
    assert_eq!(items.len(), 3);
    let code = |item: &Value| item["problem"]["code"].clone();
    assert!(items.iter().all(|item| code(item) == "no-answer-yet"));
    let commands = scene.log.messages().into_iter();
    assert_eq!(
        commands.filter(|m| m.subject.ends_with(".cancel")).count(),
        3
    );
    assert_eq!(scene.app.fold.outcomes().waiting(), 0, "no wait is left");
}

#[tokio::test(start_paused = true)]
async fn a_bulk_submission_that_breaks_off_says_what_is_stored() {
    let scene = Scene::new().await;
    let (_, swarm) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    let path = format!(
        "/v1/swarms/{}/tasks/bulk",
        swarm["id"].as_str().expect("an id")
    );
    let faults = [None, Some(Fault::Full), None];
    scene.log.set_faults("gateway", Faults::scripted(faults));
    let body = json!({"tasks": vec![task(); 300]});
    let (status, body) = scene.post(&path, &body).await;
    assert_eq!((status, &body["code"]), (507, &json!("log-full")), "{body}");
    let items = body["items"].as_array().expect("items");
    let with = |status: &str| items.iter().filter(|item| item["status"] == status).count();
    assert_eq!(items.len(), 300);
    assert_eq!(with("queued"), scene.submitted());
    assert_eq!(with("queued") + with("not_stored"), 300);
    assert!(with("queued") > 0 && with("not_stored") > 0, "{body}");
    assert_eq!(items[1]["status"], "not_stored");
}

#[tokio::test(start_paused = true)]
async fn lost_acknowledgements_and_messages_make_no_second_task() {
    let scene = Scene::new().await;
    let (_, swarm) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/tasks", swarm["id"].as_str().expect("an id"));
    for (fault, stored) in [(Fault::LostAck, 1), (Fault::LostMessage, 2)] {
        scene
            .log
            .set_faults("gateway", Faults::scripted([Some(fault)]));
        let (status, body) = scene.post(&path, &task()).await;
        assert_eq!(
            (status, scene.submitted()),
            (202, stored),
            "{fault:?}: {body}"
        );
    }
    // A graph whose first and third part go wrong.
    let faults = [Some(Fault::LostAck), None, Some(Fault::LostMessage)];
    scene.log.set_faults("gateway", Faults::scripted(faults));
    let (status, body) = scene
        .post(&path, &json!({"tasks": [task(), task(), task()]}))
        .await;
    assert_eq!((status, scene.submitted()), (202, 5), "{body}");
    assert_eq!(body["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_counts_even_if_the_acknowledgement_never_comes() {
    let scene = Scene::new().await;
    scene
        .log
        .set_faults("gateway", Faults::scripted([Some(Fault::LostAck); 500]));
    let (status, body) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    assert_eq!(status, 201, "{body}");
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_is_reported_as_such() {
    let scene = Scene::new().await;
    let (_, swarm) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    scene.log.set_faults(
        "gateway",
        Faults::scripted([Some(Fault::Full), Some(Fault::Full)]),
    );
    let path = format!("/v1/swarms/{}/tasks", swarm["id"].as_str().expect("an id"));
    for (path, body) in [
        (path.as_str(), task()),
        ("/v1/swarms", json!({"name": "b"})),
    ] {
        let (status, body) = scene.post(path, &body).await;
        assert_eq!((status, &body["code"]), (507, &json!("log-full")), "{body}");
        assert!(
            body["cure"]
                .as_str()
                .is_some_and(|cure| cure.contains("free disk space")),
            "{body}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_log_that_stays_silent_is_no_success() {
    let scene = Scene::new().await;
    let (_, swarm) = scene.post("/v1/swarms", &json!({"name": "a"})).await;
    scene.log.disconnect("gateway");
    let path = format!("/v1/swarms/{}/tasks", swarm["id"].as_str().expect("an id"));
    let (status, body) = scene.post(&path, &task()).await;
    assert_eq!(
        (status, &body["code"]),
        (504, &json!("log-silent")),
        "{body}"
    );
    assert!(body["id"].is_string() && body["cure"].is_string());
    assert_eq!(scene.submitted(), 0);
}
