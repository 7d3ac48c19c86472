//! Explanations against a real nats-server: from the log's end, without PostgreSQL, bounded; and from the read models what
//! the log's fold has forgotten.

mod support;

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use support::{Came, Client, NO_DATABASE, PATIENCE, Stage, open_log};
use swarm_distributor_core::Distributor;
use swarm_events::{
    AgentId, InstanceId, Json, Partition, Place,
    subject::TaskVerb,
    task::{Carried, Completed, Started},
};
use swarm_gateway::{
    app::App,
    explain::followers::{Followers, Limits, begin},
    port::Port,
    serve_app,
};
use swarm_projections::pool;
use swarm_runtime::{
    deciding::join::fold_to_end,
    snapshots::{Meta, Store, encode},
};
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LOOK: Duration = Duration::from_millis(20);

async fn submit(client: &Client, place: Place, mut task: Value) -> Came {
    task["payload"] = json!({});
    let path = format!("/v1/swarms/{}/tasks", place.swarm);
    let came = client.post(&path, &task).await;
    assert_eq!(came.status, 202, "{}", came.body);
    came
}

fn path(place: Place, task: Uuid) -> String {
    format!("/v1/swarms/{}/tasks/{task}/explain", place.swarm)
}

/// The explanation once it has this status.
async fn explained(client: &Client, path: &str, status: &str) -> Value {
    let mut look = tokio::time::interval(LOOK);
    let shown = async {
        loop {
            let came = client.get(path).await;
            assert_eq!(came.status, 200, "{}", came.body);
            if came.body["status"] == status {
                return came.body;
            }
            look.tick().await;
        }
    };
    timeout(PATIENCE, shown)
        .await
        .unwrap_or_else(|_| panic!("never {status}"))
}

/// Another gateway on the same log, with these limits and without PostgreSQL.
async fn second(stage: &Stage, limits: Limits) -> (Arc<App>, Client, CancellationToken) {
    let stop = CancellationToken::new();
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let log = open_log(&stage.nats.url).await;
    let pool = pool::reader(NO_DATABASE).expect("a URL");
    let app = App::new(Port::new(log), pool, recorder.handle(), stop.clone());
    let app = Arc::new(App {
        explain: Followers::new(limits),
        ..app
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let mut tail = app.tail.subscribe();
    tokio::spawn(serve_app(app.clone(), listener));
    timeout(PATIENCE, tail.wait_for(|tail| tail.caught_up))
        .await
        .expect("in time")
        .expect("alive");
    let client = Client {
        url,
        ..stage.admin.clone()
    };
    (app, client, stop)
}

/// Two swarms in different partitions.
async fn two_swarms(stage: &Stage) -> [Place; 2] {
    let first = stage.swarm(json!({"name": "s0"})).await;
    for n in 1..20 {
        let other = stage.swarm(json!({"name": format!("s{n}")})).await;
        if other.partition != first.partition {
            return [first, other];
        }
    }
    panic!("twenty swarms in one partition");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_task_says_what_would_get_it_assigned() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let agent = AgentId(Uuid::now_v7());
    stage
        .join(place, agent, InstanceId(Uuid::now_v7()), "worker-1")
        .await;
    let task = json!({"task_type": "render", "required_capabilities": ["gpu"]});
    let came = submit(&stage.admin, place, task).await;
    // The write is seen at once.
    let asked = format!("{}?min_seq={}", path(place, came.id()), came.sequence());
    let told = stage.admin.get(&asked).await;
    assert_eq!(told.status, 200, "{}", told.body);
    let told = told.body;
    assert_eq!(told["source"], "log");
    assert_eq!(told["status"], "queued");
    assert_eq!(told["task"]["task_type"], "render");
    assert!(told["seq"].as_u64() >= Some(came.sequence()), "{told}");
    let reason = &told["reason"];
    assert_eq!(reason["kind"], "queued");
    assert_eq!(reason["agents"]["missing_capability"], 1);
    assert_eq!(reason["lacking"]["nearest"][0]["missing"], json!(["gpu"]));
    let condition = &reason["would_be_assigned_if"][0];
    assert_eq!(
        (condition["kind"].as_str(), &condition["capabilities"]),
        (Some("agents"), &json!(["gpu"]))
    );
    assert_eq!(told["assignment"], Value::Null);
    assert_eq!(told["agent_names"][agent.to_string()], "worker-1");
    let sentences = told["sentences"].as_array().expect("sentences");
    assert!(
        sentences.contains(&json!(
            "It would be assigned if one more agent with gpu had a free slot (the nearest agent lacks only gpu)."
        )),
        "{told}"
    );
    // By its id alone, too, though PostgreSQL is away.
    let alone = stage
        .admin
        .get(&format!("/v1/tasks/{}/explain", came.id()))
        .await;
    assert_eq!(
        (alone.status, &alone.body["reason"]["kind"]),
        (200, &json!("queued")),
        "{}",
        alone.body
    );
    assert_eq!(stage.app.explain.followed(), [place.partition]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_assigned_task_says_why_this_agent_and_an_ended_one_how() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let agent = AgentId(Uuid::now_v7());
    stage
        .join(place, agent, InstanceId(Uuid::now_v7()), "worker-1")
        .await;
    let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
    let path = path(place, came.id());
    let told = explained(&stage.admin, &path, "assigned").await;
    let assignment = &told["assignment"];
    assert_eq!(assignment["agent_id"], agent.to_string());
    assert_eq!(assignment["algorithm"], "least_loaded");
    assert_eq!(assignment["candidates"][0]["score"], 0);
    assert_eq!(
        assignment["candidates"][0]["sentence"],
        "0 % of its slots were taken"
    );
    assert_eq!(assignment["sequence"], told["reason"]["assignment"]);
    assert_eq!(
        assignment["sentences"][0],
        "least_loaded: a free slot before a waiting place, then the agent with the smallest share of its slots taken."
    );
    assert_eq!(told["agent_names"][agent.to_string()], "worker-1");
    let assignment = assignment["sequence"].as_u64().expect("a sequence");
    let incarnation = 1;
    let started = Started {
        assignment,
        incarnation,
    };
    stage
        .publish_as_agent(place, agent, TaskVerb::Started, came.id(), started.into())
        .await;
    // What is stored when it is asked is in the answer.
    let told = stage.admin.get(&path).await;
    assert_eq!(told.body["status"], "running", "{}", told.body);
    assert!(told.body["reason"]["timeout_at"].is_string());
    let completed = Completed {
        assignment,
        incarnation,
        result: Carried::Inline(Json::object()),
    };
    stage
        .publish_as_agent(
            place,
            agent,
            TaskVerb::Completed,
            came.id(),
            completed.into(),
        )
        .await;
    let told = stage.admin.get(&path).await.body;
    assert_eq!(told["status"], "completed", "{told}");
    assert_eq!(told["reason"]["kind"], "ended");
    assert_eq!(told["assignment"]["sequence"], assignment);
    assert_eq!(
        told["sentences"][1],
        format!("Agent {agent} had it last, as attempt 1.")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_refused_says_why() {
    let stage = Stage::without_database().await;
    let place = stage
        .swarm(json!({"name": "s", "configuration": {"queue_limit": 1}}))
        .await;
    submit(&stage.admin, place, json!({"task_type": "count"})).await;
    // Past the gateway, as a direct publisher may.
    let task = Uuid::now_v7();
    let subject = swarm_events::Subject::Task(place, TaskVerb::Submitted, None);
    let body: swarm_events::task::Submitted =
        serde_json::from_value(json!({"task_type": "count"})).expect("a task");
    stage.publish(&subject, task, body.into()).await;
    let told = explained(&stage.admin, &path(place, task), "failed").await;
    assert_eq!(told["reason"]["rejected"], true);
    assert!(
        told["reason"]["error"]
            .as_str()
            .is_some_and(|why| why.contains("queue")),
        "{told}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_sees_another_organizations_tasks_and_unknown_ones_name_the_cure() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
    let (_, stranger) = stage.other_org().await;
    stranger
        .get(&path(place, came.id()))
        .await
        .refused(404, "unknown-swarm", Some("id"));
    stranger
        .get(&format!("/v1/tasks/{}/explain", came.id()))
        .await
        .refused(404, "unknown-task", Some("id"));
    let unknown = stage.admin.get(&path(place, Uuid::now_v7())).await;
    unknown.refused(404, "unknown-task", Some("id"));
    assert!(
        unknown.text("cure").contains("24 hours"),
        "{}",
        unknown.body
    );
    assert!(
        unknown.body["stale_since"].is_string(),
        "PostgreSQL may know, and is away: {}",
        unknown.body
    );
    let query = format!("{}?min_seq=x", path(place, came.id()));
    stage
        .admin
        .get(&query)
        .await
        .refused(400, "bad-parameter", Some("?min_seq"));
    let ahead = format!("{}?min_seq={}", path(place, came.id()), u64::MAX);
    stage
        .admin
        .get(&ahead)
        .await
        .refused(503, "log-behind", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_make_room_for_each_other_and_go_when_nobody_asks() {
    let stage = Stage::without_database().await;
    let places = two_swarms(&stage).await;
    let mut tasks = Vec::new();
    for place in places {
        let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
        tasks.push((place, came.id()));
    }
    let limits = Limits {
        partitions: 1,
        idle: Duration::from_millis(100),
        ..Limits::default()
    };
    let (app, client, _stop) = second(&stage, limits).await;
    for (place, task) in tasks.iter().cycle().take(4) {
        let told = client.get(&path(*place, *task)).await;
        assert_eq!(told.body["status"], "queued", "{}", told.body);
        assert_eq!(app.explain.followed(), [place.partition]);
    }
    let mut look = tokio::time::interval(LOOK);
    let gone = async {
        while !app.explain.followed().is_empty() {
            look.tick().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("idle ones go");
    // More partitions than may be followed are not looked through for an id alone.
    let alone = client
        .get(&format!("/v1/tasks/{}/explain", tasks[0].1))
        .await;
    alone.refused(503, "read-models-unavailable", None);
    assert!(
        alone.text("cure").contains("name the swarm"),
        "{}",
        alone.body
    );
    // And it begins anew.
    let told = client.get(&path(tasks[0].0, tasks[0].1)).await;
    assert_eq!(told.body["status"], "queued", "{}", told.body);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_waits_too_long_is_told_to_ask_again() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
    let limits = Limits {
        wait: Duration::ZERO,
        ..Limits::default()
    };
    let (_app, client, _stop) = second(&stage, limits).await;
    let late = client.get(&path(place, came.id())).await;
    late.refused(504, "explanation-late", None);
    assert_eq!(late.header("retry-after"), "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_begins_at_the_distributors_newest_snapshot() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
    let partition: Partition = place.partition;
    let folded = fold_to_end::<Distributor, _>(&stage.log, &[partition])
        .await
        .expect("the log can be read");
    let state = folded.joined.into_iter().next().expect("one").state;
    let meta = Meta::of(&state, folded.created_micros);
    let bytes = encode(&meta, &state).expect("it encodes");
    Store::new(stage.log.clone())
        .put(&meta, bytes)
        .await
        .expect("stored");
    let begun = begin(stage.log.clone(), partition)
        .await
        .expect("it begins");
    assert_eq!(begun.from, state.head().sequence + 1);
    assert!(begun.from > came.sequence());
    let told = stage.admin.get(&path(place, came.id())).await;
    assert_eq!(told.body["status"], "queued", "{}", told.body);
    // Nothing was ever decided by asking: only the distributor's replicas have claimed.
    let claims = stage
        .stored(&format!("swarm.ctl.distributor.{partition}.claimed"))
        .await;
    assert_eq!(claims.len(), 1, "{claims:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_read_models_tell_of_what_is_forgotten() {
    let stage = Stage::whole().await;
    let place = stage.swarm(json!({"name": "s"})).await;
    let came = submit(&stage.admin, place, json!({"task_type": "count"})).await;
    let cancelled = stage
        .admin
        .post(
            &format!("/v1/swarms/{}/tasks/{}/cancel", place.swarm, came.id()),
            &json!({"reason": "not needed"}),
        )
        .await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.body);
    let read = format!(
        "/v1/swarms/{}/tasks/{}?min_seq={}",
        place.swarm,
        came.id(),
        cancelled.sequence()
    );
    assert_eq!(stage.admin.get(&read).await.body["status"], "cancelled");
    let known = stage
        .admin
        .get(&format!("/v1/tasks/{}/explain", came.id()))
        .await;
    assert_eq!(known.body["source"], "log", "{}", known.body);
    assert_eq!(known.body["reason"]["error"], "not needed");
    // A row whose task the log's fold does not know: as after a day.
    let old = Uuid::now_v7();
    let database = &stage.postgres.as_ref().expect("PostgreSQL").url;
    let pool = sqlx::PgPool::connect(database).await.expect("PostgreSQL");
    let moved = sqlx::query("UPDATE swarm_tasks SET id = $1 WHERE id = $2")
        .bind(old)
        .bind(came.id())
        .execute(&pool)
        .await
        .expect("a row");
    assert_eq!(moved.rows_affected(), 1);
    for path in [path(place, old), format!("/v1/tasks/{old}/explain")] {
        let told = stage.admin.get(&path).await;
        assert_eq!(told.status, 200, "{}", told.body);
        assert_eq!(told.body["source"], "read_model");
        assert_eq!(told.body["status"], "cancelled");
        assert_eq!(told.body["reason"]["kind"], "ended");
        assert_eq!(told.body["reason"]["error"], "not needed");
        assert_eq!(told.body["task"]["task_type"], "count");
    }
    stage
        .admin
        .get(&path(place, Uuid::now_v7()))
        .await
        .refused(404, "unknown-task", Some("id"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_document_describes_the_answer_and_nothing_else_lost_its_name() {
    let stage = Stage::without_database().await;
    let document = stage.admin.get("/openapi.json").await.body;
    for path in [
        "/v1/swarms/{id}/tasks/{task}/explain",
        "/v1/tasks/{task}/explain",
    ] {
        let schema = &document["paths"][path]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"]["$ref"];
        assert_eq!(schema, "#/components/schemas/TaskExplanation", "{path}");
    }
    let schemas = &document["components"]["schemas"];
    for field in ["reason", "sentences", "assignment", "agent_names", "source"] {
        assert!(
            schemas["TaskExplanation"]["properties"][field].is_object(),
            "{field} is not described"
        );
    }
    let kinds = schemas["TaskReason"]["oneOf"].as_array().expect("kinds");
    assert_eq!(kinds.len(), 10);
    // The counts of a swarm's health have a name of their own.
    assert!(schemas["AgentCounts"]["properties"]["needed"].is_object());
    assert!(schemas["WaitingAgentCounts"]["properties"]["missing_capability"].is_object());
}
