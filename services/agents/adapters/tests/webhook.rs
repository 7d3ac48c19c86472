//! The webhook adapter against a real HTTP server.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Response},
    routing::post,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::hmac;
use serde_json::{Value, json};
use swarm_agent_adapters::{ANSWER_BYTES_MAX, WebhookAdapter};
use swarm_agent_sdk::{CallbackRequest, Callbacks, Handler, TaskContext, TaskError};
use swarm_events::{AgentId, SwarmId};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(60);
const KEY: [u8; 24] = [7; 24];

/// A request as it came.
struct Came {
    headers: HeaderMap,
    body: Bytes,
}
impl Came {
    fn header(&self, name: &str) -> &str {
        self.headers[name].to_str().expect("text")
    }
    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

type Answer = Arc<dyn Fn(usize) -> Response<Body> + Send + Sync>;

struct Server {
    url: String,
    came: mpsc::UnboundedReceiver<Came>,
}

struct Serving {
    answer: Answer,
    say: mpsc::UnboundedSender<Came>,
    count: std::sync::atomic::AtomicUsize,
}

async fn take(
    State(serving): State<Arc<Serving>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let number = serving
        .count
        .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    let _ = serving.say.send(Came { headers, body });
    (serving.answer)(number)
}

/// A server that answers its n-th request (from 0) so.
async fn server(answer: impl Fn(usize) -> Response<Body> + Send + Sync + 'static) -> Server {
    let (say, came) = mpsc::unbounded_channel();
    let serving = Arc::new(Serving {
        answer: Arc::new(answer),
        say,
        count: Default::default(),
    });
    let hang = || async { std::future::pending::<()>().await };
    let app = Router::new()
        .route("/work", post(take))
        .route("/hang", post(hang).get(hang))
        .with_state(serving);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, app).await });
    Server { url, came }
}

fn answer(status: u16, headers: &[(&str, &str)], body: impl Into<Body>) -> Response<Body> {
    let mut answer = Response::builder().status(status);
    for (name, value) in headers {
        answer = answer.header(*name, *value);
    }
    answer.body(body.into()).expect("an answer")
}

fn ids() -> (SwarmId, AgentId) {
    (SwarmId(Uuid::from_u128(1)), AgentId(Uuid::from_u128(2)))
}
fn adapter(url: &str, desk: &Callbacks) -> WebhookAdapter {
    let (swarm, agent) = ids();
    WebhookAdapter::new(url, swarm, agent, desk.clone()).expect("an address")
}
fn desk() -> Callbacks {
    Callbacks::new().expect("random")
}
fn task() -> TaskContext {
    TaskContext::detached("count", json!({"path": "a b"}).into(), PATIENCE).0
}
async fn run(adapter: &WebhookAdapter, task: TaskContext) -> Result<Value, TaskError> {
    let handled = timeout(PATIENCE, adapter.handle(task)).await;
    handled.expect("it ends").map(|json| json.to_value())
}

#[tokio::test]
async fn a_signed_request_is_answered_with_the_result() {
    let mut server = server(|_| answer(200, &[], r#"{"sum": 6}"#)).await;
    let secret = format!("whsec_{}", STANDARD.encode(KEY));
    let adapter = adapter(&format!("{}/work", server.url), &desk())
        .secret(&secret)
        .expect("a secret")
        .gateway("http://gateway:7700/");
    let task = task();
    let id = task.id;
    assert_eq!(run(&adapter, task).await, Ok(json!({"sum": 6})));
    let came = server.came.recv().await.expect("it was called");
    let message = came.header("webhook-id");
    assert_eq!(message, format!("task_{}_1", id.0));
    let signed = [message, ".", came.header("webhook-timestamp"), "."].concat();
    let content = [signed.as_bytes(), &came.body].concat();
    let signature = came
        .header("webhook-signature")
        .strip_prefix("v1,")
        .expect("version 1");
    let signature = STANDARD.decode(signature).expect("base64");
    let key = hmac::Key::new(hmac::HMAC_SHA256, &KEY);
    hmac::verify(&key, &content, &signature).expect("it is signed");
    // Another secret, or another body, does not verify.
    let other = hmac::Key::new(hmac::HMAC_SHA256, &[8; 24]);
    assert!(hmac::verify(&other, &content, &signature).is_err());
    assert!(hmac::verify(&key, &content[..content.len() - 1], &signature).is_err());
    let body = came.json();
    assert_eq!(came.header("content-type"), "application/json");
    let path = format!("/v1/swarms/{}/agents/{}/callbacks/1", ids().0, ids().1);
    for (pointer, expected) in [
        ("/type", json!("task.assigned")),
        ("/id", json!(id)),
        ("/task_type", json!("count")),
        ("/payload", json!({"path": "a b"})),
        ("/inputs", json!({})),
        ("/attempt", json!(1)),
        ("/fencing_token", json!(1)),
        ("/callback/path", json!(path)),
        ("/callback/url", json!(format!("http://gateway:7700{path}"))),
    ] {
        assert_eq!(body.pointer(pointer), Some(&expected), "{pointer}");
    }
}

#[tokio::test]
async fn answers_that_are_none_say_whether_another_attempt_helps() {
    for (status, headers, body, words, retryable) in [
        (
            500,
            &[][..],
            "oh no",
            "answered 500 Internal Server Error: oh no",
            true,
        ),
        (502, &[], "", "answered 502 Bad Gateway", true),
        (503, &[], "", "answered 503", true),
        (429, &[], "", "answered 429", true),
        (408, &[], "", "answered 408", true),
        (
            400,
            &[],
            "no such field",
            "answered 400 Bad Request: no such field",
            false,
        ),
        (
            401,
            &[],
            "bad signature",
            "answered 401 Unauthorized: bad signature",
            false,
        ),
        (404, &[], "", "answered 404", false),
        (410, &[], "", "answered 410", false),
        (
            302,
            &[("location", "/hang")],
            "",
            "(to /hang): redirects are not followed",
            false,
        ),
        (
            307,
            &[("location", "/hang")],
            "",
            "redirects are not followed",
            false,
        ),
        (204, &[], "", "is what is understood", false),
        (200, &[], "no JSON", "answered 200 without JSON", false),
        (200, &[], "", "answered 200 without JSON", false),
        (
            503,
            &[("retry-after", "3600")],
            "busy",
            "busy (Retry-After: 3600 s)",
            true,
        ),
        (
            429,
            &[("retry-after", "61")],
            "",
            "(Retry-After: 61 s)",
            true,
        ),
    ] {
        let mut server = server(move |_| answer(status, headers, body)).await;
        let adapter = adapter(&format!("{}/work", server.url), &desk());
        let error = run(&adapter, task()).await.expect_err("no result");
        assert!(error.message.contains(words), "{status}: {error}");
        assert_eq!(
            (error.retryable, error.declined),
            (retryable, false),
            "{status}: {error}"
        );
        server.came.recv().await.expect("it was called");
        assert!(server.came.try_recv().is_err(), "{status}: called once");
    }
}

#[tokio::test]
async fn who_asks_for_a_moment_gets_the_same_request_again() {
    let mut server = server(|number| match number {
        0 => answer(503, &[("retry-after", "0")], ""),
        1 => answer(429, &[("retry-after", "1")], ""),
        _ => answer(200, &[], "[1]"),
    })
    .await;
    let adapter = adapter(&format!("{}/work", server.url), &desk());
    assert_eq!(run(&adapter, task()).await, Ok(json!([1])));
    let mut ids = Vec::new();
    for _ in 0..3 {
        let came = server.came.recv().await.expect("it was called");
        ids.push((came.header("webhook-id").to_owned(), came.body));
    }
    assert!(
        ids[0] == ids[1] && ids[1] == ids[2],
        "the receiver knows a repeat"
    );
}

#[tokio::test]
async fn nobody_there_may_help_another_time_and_no_password_is_shown() {
    let closed = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = closed.local_addr().expect("an address");
    drop(closed);
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://user:secret@{address}/work?key=secret");
        let error = run(&adapter(&url, &desk()), task())
            .await
            .expect_err("nobody there");
        assert!(error.message.contains("does not answer"), "{error}");
        assert!(!error.message.contains("secret"), "{error}");
        assert!(error.retryable, "{error}");
    }
    // One that does not speak TLS.
    let server = server(|_| answer(200, &[], "1")).await;
    let url = format!("{}/work", server.url).replace("http:", "https:");
    let error = run(&adapter(&url, &desk()), task())
        .await
        .expect_err("no TLS");
    assert!(
        error.retryable && error.message.contains("does not answer"),
        "{error}"
    );
}

#[tokio::test]
async fn a_receiver_that_hangs_is_let_go_when_the_task_is_called_off() {
    let server = server(|_| answer(200, &[], "1")).await;
    let adapter = adapter(&format!("{}/hang", server.url), &desk());
    let task = task();
    let cancel = task.cancelled.clone();
    let handling = tokio::spawn(async move { run(&adapter, task).await });
    cancel.cancel();
    let ended = handling.await.expect("no panic");
    assert_eq!(ended, Err(TaskError::retryable("cancelled")));
}

#[tokio::test]
async fn an_answer_without_end_is_cut_off() {
    let flood = || {
        Body::from_stream(futures::stream::repeat_with(|| {
            Ok::<_, std::io::Error>(vec![b' '; 64 * 1024])
        }))
    };
    let said = ANSWER_BYTES_MAX.saturating_add(1);
    let mut servers = vec![server(move |_| answer(200, &[], flood())).await];
    servers.push(server(move |_| answer(200, &[], vec![b' '; said])).await);
    for server in servers {
        let adapter = adapter(&format!("{}/work", server.url), &desk());
        let error = run(&adapter, task()).await.expect_err("too much");
        assert!(
            error.message.contains("more than 16777216 bytes"),
            "{error}"
        );
        assert!(!error.retryable, "{error}");
    }
}

fn call(desk: &Callbacks, assignment: u64, token: &str, body: Value) -> u16 {
    let request = CallbackRequest {
        assignment,
        token: token.to_owned(),
        body: body.into(),
    };
    desk.answer(&serde_json::to_vec(&request).expect("JSON"))
        .status
}

#[tokio::test]
async fn a_receiver_that_says_later_calls_back() {
    for (body, expected) in [
        (json!({"result": [1]}), Ok(json!([1]))),
        (
            json!({"error": "no", "retryable": false}),
            Err(TaskError::permanent("no")),
        ),
        (
            json!({"error": "later"}),
            Err(TaskError::retryable("later")),
        ),
        (
            json!({"declined": "not mine"}),
            Err(TaskError::decline("not mine")),
        ),
    ] {
        let mut server = server(|_| answer(202, &[], "")).await;
        let desk = desk();
        let adapter = adapter(&format!("{}/work", server.url), &desk);
        let (task, mut told) = TaskContext::detached("count", json!({}).into(), PATIENCE);
        let handling = tokio::spawn(async move { run(&adapter, task).await });
        let came = server.came.recv().await.expect("it was called").json();
        let token = came["callback"]["token"].as_str().expect("a token");
        assert_eq!(call(&desk, 1, "00", body.clone()), 401, "another token");
        assert_eq!(
            call(&desk, 2, token, body.clone()),
            404,
            "another assignment"
        );
        assert_eq!(
            call(
                &desk,
                1,
                token,
                json!({"progress": {"percent": 40, "message": "m"}})
            ),
            200
        );
        told.wait_for(|told| *told == (Some(40), Some("m".to_owned())))
            .await
            .expect("told");
        assert_eq!(call(&desk, 1, token, body.clone()), 200);
        assert_eq!(handling.await.expect("no panic"), expected);
        assert_eq!(call(&desk, 1, token, body), 410, "once");
    }
}

#[tokio::test]
async fn what_is_called_back_while_the_request_hangs_counts() {
    let server = server(|_| answer(200, &[], "1")).await;
    let desk = desk();
    let adapter = adapter(&format!("{}/hang", server.url), &desk);
    // The token is the same for each opening of an assignment by one process.
    let token = desk.open(1).token.clone();
    let handling = tokio::spawn(async move { run(&adapter, task()).await });
    let began = std::time::Instant::now();
    while call(&desk, 1, &token, json!({"result": 5})) != 200 {
        assert!(began.elapsed() < PATIENCE, "the task is not waited for");
        tokio::task::yield_now().await; // until the handler has opened it
    }
    assert_eq!(handling.await.expect("no panic"), Ok(json!(5)));
}

#[test]
fn mistakes_show_before_anything_is_called() {
    let (swarm, agent) = ids();
    for (url, words) in [
        ("nowhere", "the webhook address nowhere"),
        ("ftp://host/", "must begin with http:// or https://"),
        ("", "the webhook address"),
    ] {
        let error = WebhookAdapter::new(url, swarm, agent, desk())
            .map(|_| ())
            .expect_err(url);
        assert!(error.to_string().contains(words), "{error}");
    }
    let secret = adapter("http://h/", &desk())
        .secret("whsec_short")
        .map(|_| ());
    assert!(
        secret
            .expect_err("short")
            .to_string()
            .starts_with("the secret: ")
    );
}
