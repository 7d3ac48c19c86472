//! Whole submissions against a scripted gateway: what is sent, under which keys, and what is left when it breaks off. (The
//! real one is in tests/end-to-end.)

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Mutex, PoisonError},
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use tempfile::TempDir;

use super::*;
use crate::connection;

const SWARM: &str = "0190f7a0-0000-7000-8000-000000000001";

/// What a gateway remembers: the body of each key, as the real one by its ids.
#[derive(Default)]
struct Remembered {
    stored: BTreeMap<String, Vec<u64>>,
    requests: usize,
    /// Their keys, in turn.
    keys: Vec<String>,
    /// Answers that come before it works: for the requests in turn, `None` is "as it should".
    script: VecDeque<Option<(u16, Value)>>,
}

#[derive(Clone, Default)]
struct Gateway(Arc<Mutex<Remembered>>);

impl Gateway {
    fn with<T>(&self, look: impl FnOnce(&mut Remembered) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn scripted(&self, answers: impl IntoIterator<Item = Option<(u16, Value)>>) {
        self.with(|all| all.script.extend(answers));
    }

    /// The `n` of every stored task, sorted.
    fn stored(&self) -> Vec<u64> {
        self.with(|all| {
            let mut stored: Vec<u64> = all.stored.values().flatten().copied().collect();
            stored.sort_unstable();
            stored
        })
    }

    async fn serve(&self, queue_limit: u64) -> Api {
        async fn bulk(
            State(gateway): State<Gateway>,
            headers: HeaderMap,
            Json(body): Json<Value>,
        ) -> Response {
            let key = headers["idempotency-key"]
                .to_str()
                .expect("text")
                .to_owned();
            gateway.with(|all| {
                all.requests += 1;
                all.keys.push(key.clone());
                if let Some(Some((status, answer))) = all.script.pop_front() {
                    let status = StatusCode::from_u16(status).expect("a status");
                    return (status, [(RETRY_AFTER, "0")], Json(answer)).into_response();
                }
                let tasks = body["tasks"].as_array().expect("tasks");
                let numbers = tasks
                    .iter()
                    .map(|task| task["payload"]["n"].as_u64().expect("n"));
                let numbers: Vec<u64> = numbers.collect();
                let earlier = all
                    .stored
                    .entry(key.clone())
                    .or_insert_with(|| numbers.clone());
                if *earlier != numbers {
                    let problem =
                        json!({"detail": "the key was used before", "field": "Idempotency-Key"});
                    return (StatusCode::UNPROCESSABLE_ENTITY, Json(problem)).into_response();
                }
                let items: Vec<Value> = numbers
                    .iter()
                    .map(|n| json!({"id": format!("id-{n}"), "status": "queued"}))
                    .collect();
                (StatusCode::ACCEPTED, Json(json!({ "items": items }))).into_response()
            })
        }
        let show =
            move || async move { Json(json!({"configuration": {"queue_limit": queue_limit}})) };
        let router = Router::new()
            .route(&format!("/v1/swarms/{SWARM}"), get(show))
            .route(&format!("/v1/swarms/{SWARM}/tasks/bulk"), post(bulk))
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Api::new(&connection::Target {
            api_urls: vec![url],
            api_key: Some("k".to_owned()),
            ..connection::Target::default()
        })
        .expect("a client")
    }
}

struct Scene {
    dir: TempDir,
    gateway: Gateway,
    api: Api,
    args: LinesArgs,
}

impl Scene {
    /// Chunks of ten lines.
    async fn new() -> Self {
        let gateway = Gateway::default();
        Self {
            dir: tempfile::tempdir().expect("a folder"),
            api: gateway.serve(40).await,
            gateway,
            args: LinesArgs {
                lines: false,
                skip_invalid: None,
                ids: None,
                chunk_lines: None,
            },
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, text: &str) {
        std::fs::write(self.path("tasks.jsonl"), text).expect("written");
    }

    fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).expect("there")
    }

    async fn submit(&self, key: Option<&str>) -> Outcome {
        let source = Source::open(&self.path("tasks.jsonl").display().to_string())?;
        run(
            &self.args,
            source,
            key,
            &self.api,
            self.dir.path(),
            SWARM,
            Format::Json,
        )
        .await
    }

    /// Progress files that are left.
    fn left(&self) -> usize {
        std::fs::read_dir(self.path("submissions")).map_or(0, Iterator::count)
    }
}

fn line(n: u64) -> String {
    format!("{{\"task_type\":\"t\",\"payload\":{{\"n\":{n}}}}}\n")
}
fn lines(count: u64) -> String {
    (0..count).map(line).collect()
}
fn numbers(count: u64) -> Vec<u64> {
    (0..count).collect()
}
/// `count` answers as they should be.
fn good(count: usize) -> Vec<Option<(u16, Value)>> {
    vec![None; count]
}

#[tokio::test]
async fn every_line_is_stored_once_and_nothing_is_left_behind() {
    let mut scene = Scene::new().await;
    scene.write(&lines(95));
    scene.args.ids = Some(scene.path("ids"));
    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.gateway.stored(), numbers(95));
    assert_eq!(scene.gateway.with(|all| all.stored.len()), 10, "chunks");
    assert_eq!(scene.left(), 0);
    let ids: Vec<String> = (0..95).map(|n| format!("id-{n}")).collect();
    assert_eq!(scene.read("ids").lines().collect::<Vec<_>>(), ids);
}

#[tokio::test]
async fn given_the_same_file_again_then_it_is_the_same_submission() {
    let scene = Scene::new().await;
    scene.write(&lines(25));
    scene.submit(None).await.expect("submitted");
    scene.submit(None).await.expect("submitted again");
    assert_eq!(scene.gateway.stored(), numbers(25));
    // Under a key of its own it is another one.
    scene.submit(Some("again")).await.expect("submitted");
    assert_eq!(scene.gateway.stored().len(), 50);
}

#[tokio::test]
async fn given_a_full_queue_then_it_waits_and_goes_on() {
    let scene = Scene::new().await;
    scene.write(&lines(30));
    let full = || Some((429, json!({"detail": "100 tasks wait already"})));
    scene
        .gateway
        .scripted([full(), None, full(), full(), full()]);
    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.gateway.stored(), numbers(30));
    assert_eq!(scene.gateway.with(|all| all.requests), 7);
}

#[tokio::test]
async fn given_a_gateway_that_breaks_off_then_the_chunk_is_sent_again_under_its_key() {
    let scene = Scene::new().await;
    scene.write(&lines(10));
    let away = Some((503, json!({"detail": "the log is away"})));
    scene.gateway.scripted([away.clone(), away]);
    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.gateway.stored(), numbers(10));
}

#[tokio::test]
async fn given_an_interruption_then_a_later_run_sends_only_what_is_not_acknowledged() {
    let mut scene = Scene::new().await;
    scene.write(&lines(200));
    scene.args.ids = Some(scene.path("ids"));
    // The key is revoked in the middle.
    let mut script = good(7);
    script.extend(vec![Some((401, json!({"detail": "unknown key"}))); 4]);
    scene.gateway.scripted(script);
    let failure = scene.submit(None).await.expect_err("refused");
    assert!(failure.message.contains("unknown key"), "{failure}");
    assert!(
        failure.message.contains("run the same command again"),
        "{failure}"
    );
    assert_eq!(scene.left(), 1, "it can be taken up");
    let acknowledged = scene.read("ids").lines().count();
    let (before, noted) = scene.gateway.with(|all| {
        all.script.clear();
        let whole = all.stored.iter();
        let whole = whole.filter(|(_, lines)| lines.iter().all(|n| *n < acknowledged as u64));
        let noted: Vec<String> = whole.map(|(key, _)| key.clone()).collect();
        (all.keys.len(), noted)
    });
    assert_eq!(noted.len(), acknowledged / 10);
    assert!((40..=70).contains(&acknowledged), "{acknowledged}");

    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.gateway.stored(), numbers(200));
    // What was under way when the first run was refused may come late, but nothing that it had noted comes at all.
    let again = scene.gateway.with(|all| all.keys.split_off(before));
    assert!(
        !again.iter().any(|key| noted.contains(key)),
        "acknowledged chunks are not sent again"
    );
    assert_eq!(scene.read("ids").lines().count(), 200);
    assert_eq!(scene.left(), 0);
}

#[tokio::test]
async fn given_an_interruption_before_anything_is_acknowledged_then_the_files_that_were_begun_are_taken_up()
 {
    let mut scene = Scene::new().await;
    scene.write(&lines(20));
    scene.args.ids = Some(scene.path("ids"));
    let unknown = Some((401, json!({"detail": "unknown key"})));
    scene.gateway.scripted(vec![unknown; 2]);
    scene.submit(None).await.expect_err("refused");
    scene.gateway.with(|all| all.script.clear());
    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.read("ids").lines().count(), 20);
    // Somebody's file is not written over.
    scene.write(&lines(30));
    let failure = scene.submit(None).await.expect_err("it is there");
    assert!(failure.message.contains("name a new file"), "{failure}");
    assert_eq!(scene.read("ids").lines().count(), 20);
}

#[tokio::test]
async fn given_a_bad_line_then_nothing_at_all_is_stored() {
    let scene = Scene::new().await;
    let bad = "{\"task_type\":\"t\",\"payload\":{},\"priority\":11}\n";
    scene.write(&format!("{}{bad}{}", lines(95), lines(5)));
    let failure = scene.submit(None).await.expect_err("a bad line");
    for part in ["line 96", "priority", "1 to 10", "--skip-invalid"] {
        assert!(failure.message.contains(part), "{part}: {failure}");
    }
    assert_eq!(
        (scene.gateway.with(|all| all.requests), scene.left()),
        (0, 0)
    );
}

#[tokio::test]
async fn given_skip_invalid_then_bad_lines_are_kept_apart_with_what_is_wrong() {
    let mut scene = Scene::new().await;
    let refused = json!({"detail": "the gateway knows better", "field": "tasks[2].payload.n", "cure": "another"});
    scene.gateway.scripted([Some((422, refused))]);
    scene.args.skip_invalid = Some(scene.path("bad"));
    scene.write(&format!("{}nonsense\n{}", lines(5), line(5)));
    scene.submit(None).await.expect("submitted");
    assert_eq!(scene.gateway.stored(), [0, 1, 3, 4, 5]);
    let kept: Vec<Value> = scene
        .read("bad")
        .lines()
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    let told: Vec<_> = kept
        .iter()
        .map(|bad| (&bad["line"], &bad["field"], &bad["text"]))
        .collect();
    let third = line(2);
    assert_eq!(
        told,
        [
            (&json!(3), &json!("payload.n"), &json!(third.trim())),
            (&json!(6), &Value::Null, &json!("nonsense"))
        ]
    );
}

#[tokio::test]
async fn given_a_line_that_only_the_gateway_refuses_then_it_stops_there_and_skipping_goes_on() {
    let mut scene = Scene::new().await;
    scene.write(&lines(30));
    let refused = || {
        Some((
            422,
            json!({"detail": "not today", "field": "tasks[4].task_type"}),
        ))
    };
    // The second chunk; those after it are on their way already.
    scene.gateway.scripted([None, refused()]);
    let failure = scene.submit(None).await.expect_err("refused");
    assert!(failure.message.contains(": not today"), "{failure}");
    assert!(failure.message.contains("--skip-invalid"), "{failure}");
    scene.args.skip_invalid = Some(scene.path("bad"));
    scene.submit(None).await.expect("submitted");
    let mut stored = scene.gateway.stored();
    stored.dedup();
    assert_eq!(
        stored,
        numbers(30),
        "the gateway has changed its mind; nothing is stored twice"
    );
    assert_eq!(scene.gateway.stored().len(), 30);
}

#[tokio::test]
async fn given_a_file_that_changes_meanwhile_then_it_stops() {
    let scene = Scene::new().await;
    scene.write(&lines(50));
    let source = Source::open(&scene.path("tasks.jsonl").display().to_string()).expect("there");
    scene.write(&lines(60));
    let outcome = run(
        &scene.args,
        source,
        None,
        &scene.api,
        scene.dir.path(),
        SWARM,
        Format::Json,
    );
    let failure = outcome.await.expect_err("changed");
    assert!(failure.message.contains("changed"), "{failure}");
    assert!(scene.gateway.stored().is_empty());
}

#[tokio::test]
async fn an_empty_file_is_nothing_to_do() {
    let scene = Scene::new().await;
    scene.write("\n\n");
    scene.submit(None).await.expect("nothing to do");
    assert_eq!(
        (scene.gateway.with(|all| all.requests), scene.left()),
        (0, 0)
    );
}

#[test]
fn a_chunk_is_a_part_of_what_the_queue_has_room_for() {
    let none = json!({});
    for (configuration, organization, lines) in [
        (json!({"queue_limit": 100_000}), &none, CHUNK_LINES),
        (json!({"queue_limit": 800}), &none, 200),
        // What the lowest priority may fill.
        (
            json!({"queue_limit": 1_000, "shed_from_percent": 20}),
            &none,
            50,
        ),
        (json!({"queue_limit": 1}), &none, 1),
        (json!({"queue_limit": 800}), &json!({"queue_limit": 40}), 10),
        (
            json!({"queue_limit": 800}),
            &json!({"queue_limit": null}),
            200,
        ),
        (none.clone(), &none, CHUNK_LINES),
    ] {
        let fits = fitting(&configuration, organization);
        assert_eq!(fits, lines, "{configuration} {organization}");
    }
}
