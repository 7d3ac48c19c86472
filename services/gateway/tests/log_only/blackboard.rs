//! What the agents of a swarm share.

use std::time::Duration;

use futures::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use swarm_events::{Place, org::Role, permissions::blackboard_key};
use swarm_gateway::{
    app::App,
    blackboard::sweep::{LATE_MS, Sweep},
};
use swarm_log::definitions::{BLACKBOARD_BYTES_MAX, BLACKBOARD_KEY_BYTES_MAX};

use tokio::time::timeout;

use crate::support::{Came, Client, PATIENCE, Stage, events};

async fn put(client: &Client, path: &str, value: &Value, headers: &[(&str, &str)]) -> Came {
    let mut request = client.request(Method::PUT, path).json(value);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    client.send(request).await
}

async fn with(client: &Client, method: Method, path: &str, header: (&str, &str)) -> Came {
    let request = client.request(method, path).header(header.0, header.1);
    client.send(request).await
}

#[tokio::test]
async fn a_key_is_written_read_and_deleted_by_its_revision() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let board = format!("/v1/swarms/{}/blackboard", place.swarm);
    let path = format!("{board}/plan.step-1");
    stage
        .admin
        .get(&path)
        .await
        .refused(404, "unknown-key", Some("key"));
    let gone = stage.admin.delete(&path).await;
    gone.refused(404, "unknown-key", Some("key"));

    let made = put(
        &stage.admin,
        &path,
        &json!({"n": 1}),
        &[("If-None-Match", "*")],
    )
    .await;
    assert_eq!(
        (made.status, made.text("key")),
        (200, "plan.step-1"),
        "{}",
        made.body
    );
    let tag = made.header("etag").to_owned();
    let revision = made.body["revision"].as_u64().expect("a revision");
    assert_eq!(tag, format!("\"{revision}\""));
    let read = stage.admin.get(&path).await;
    assert_eq!(
        (&read.body, read.header("etag")),
        (&json!({"n": 1}), tag.as_str())
    );
    assert_eq!(read.header("content-type"), "application/json");
    let same = with(&stage.admin, Method::GET, &path, ("If-None-Match", &tag)).await;
    assert_eq!((same.status, same.header("etag")), (304, tag.as_str()));

    // It is there, and at this revision only.
    let twice = put(&stage.admin, &path, &json!(2), &[("If-None-Match", "*")]).await;
    twice.refused(412, "wrong-revision", Some("If-None-Match"));
    assert_eq!(twice.body["revision"], revision);
    let second = put(&stage.admin, &path, &json!(2), &[("If-Match", &tag)]).await;
    assert_eq!(second.status, 200);
    let stale = put(&stage.admin, &path, &json!(3), &[("If-Match", &tag)]).await;
    stale.refused(412, "wrong-revision", Some("If-Match"));
    assert_eq!(stale.body["revision"], second.body["revision"]);
    let stale = with(&stage.admin, Method::DELETE, &path, ("If-Match", &tag)).await;
    stale.refused(412, "wrong-revision", Some("If-Match"));
    assert_eq!(stage.admin.get(&path).await.body, 2);
    assert_eq!(
        put(&stage.admin, &path, &json!("three"), &[("If-Match", "*")])
            .await
            .status,
        200
    );
    assert_eq!(
        put(&stage.admin, &path, &json!(null), &[]).await.status,
        200
    );
    assert_eq!(stage.admin.get(&path).await.body, Value::Null);

    let latest = stage.admin.get(&path).await.header("etag").to_owned();
    let deleted = with(&stage.admin, Method::DELETE, &path, ("If-Match", &latest)).await;
    assert_eq!(deleted.status, 204, "{}", deleted.body);
    stage
        .admin
        .get(&path)
        .await
        .refused(404, "unknown-key", Some("key"));
    let absent = put(&stage.admin, &path, &json!(1), &[("If-Match", "*")]).await;
    absent.refused(412, "wrong-revision", Some("If-Match"));
    let again = put(&stage.admin, &path, &json!(1), &[("If-None-Match", "*")]).await;
    assert_eq!(
        again.status, 200,
        "what was deleted is not there: {}",
        again.body
    );
    // The same key of another swarm is another one.
    let other = stage.swarm(json!({"name": "b"})).await;
    let there = format!("/v1/swarms/{}/blackboard/plan.step-1", other.swarm);
    stage
        .admin
        .get(&there)
        .await
        .refused(404, "unknown-key", Some("key"));
}

#[tokio::test]
async fn of_many_that_create_a_key_one_does() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let path = format!("/v1/swarms/{}/blackboard/leader", place.swarm);
    let tries = (0..16).map(|n| {
        let (client, path) = (stage.admin.clone(), path.clone());
        async move {
            put(&client, &path, &json!(n), &[("If-None-Match", "*")])
                .await
                .status
        }
    });
    let mut statuses = join_all(tries).await;
    statuses.sort_unstable();
    assert_eq!(statuses[0], 200);
    assert!(
        statuses[1..].iter().all(|status| *status == 412),
        "{statuses:?}"
    );
}

#[tokio::test]
async fn a_bad_key_or_value_is_refused_by_field_and_cure() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let board = format!("/v1/swarms/{}/blackboard", place.swarm);
    let longest = "k".repeat(BLACKBOARD_KEY_BYTES_MAX);
    for (key, code) in [
        ("a%20b", "bad-character"),
        ("a.*", "bad-character"),
        ("a..b", "empty-token"),
        ("_cursor.x", "reserved"),
        (&format!("{longest}k"), "too-long"),
    ] {
        let path = format!("{board}/{key}");
        for came in [
            stage.admin.get(&path).await,
            put(&stage.admin, &path, &json!(1), &[]).await,
            stage.admin.delete(&path).await,
        ] {
            came.refused(422, code, Some("key"));
        }
    }
    let path = format!("{board}/{longest}");
    let text = "x".repeat(BLACKBOARD_BYTES_MAX - 2);
    assert_eq!(
        put(&stage.admin, &path, &json!(text), &[]).await.status,
        200
    );
    let larger = put(&stage.admin, &path, &json!(format!("{text}x")), &[]).await;
    larger.refused(413, "value-too-large", Some("body"));
    let request = stage.admin.request(Method::PUT, &path).body("no JSON");
    stage
        .admin
        .send(request)
        .await
        .refused(400, "malformed-json", Some("body"));
    for (name, value) in [
        ("If-Match", "7"),
        ("If-Match", "W/\"7\""),
        ("If-None-Match", "x"),
    ] {
        let came = put(&stage.admin, &path, &json!(1), &[(name, value)]).await;
        came.refused(400, "bad-header", Some(name));
    }
    let listed = stage.admin.get(&format!("{board}?prefix=a%20b")).await;
    listed.refused(400, "bad-parameter", Some("?prefix"));
    let (_, stranger) = stage.other_org().await;
    for came in [
        stranger.get(&board).await,
        stranger.get(&path).await,
        put(&stranger, &path, &json!(1), &[]).await,
        stranger.delete(&path).await,
    ] {
        came.refused(404, "unknown-swarm", Some("id"));
    }
    let analyst = stage.with_role(Role::Analyst).await;
    let came = put(&analyst, &path, &json!(1), &[]).await;
    came.refused(403, "forbidden", Some("Authorization"));
    assert_eq!(analyst.get(&path).await.status, 200);
}

#[tokio::test]
async fn keys_are_listed_and_watched_by_what_they_begin_with() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let other = stage.swarm(json!({"name": "b"})).await;
    let board = format!("/v1/swarms/{}/blackboard", place.swarm);
    let elsewhere = format!("/v1/swarms/{}/blackboard/plan.x", other.swarm);
    put(&stage.admin, &elsewhere, &json!("other"), &[]).await;
    for (key, value) in [
        ("plan.a", 1),
        ("planet", 2),
        ("plan.b", 3),
        ("x/y=z", 4),
        ("plan.c", 5),
    ] {
        let came = put(&stage.admin, &format!("{board}/{key}"), &json!(value), &[]).await;
        assert_eq!(came.status, 200, "{}", came.body);
    }
    // What an agent keeps for the system is not shown, what it has written otherwise is.
    let bucket = stage.jetstream();
    for (key, value) in [("_cursor.1", "7"), ("raw", "plain text")] {
        let stored = bucket
            .publish(blackboard_key(place, key), value.into())
            .await;
        stored.expect("sent").await.expect("stored");
    }
    stage.admin.delete(&format!("{board}/plan.b")).await;
    let keys = async |query: &str| {
        let (mut found, mut path) = (Vec::new(), format!("{board}?{query}"));
        loop {
            let came = stage.admin.get(&path).await;
            assert_eq!(came.status, 200, "{}", came.body);
            let items = came.body["items"].as_array().expect("items");
            found.extend(
                items
                    .iter()
                    .map(|item| item["key"].as_str().expect("a key").to_owned()),
            );
            match came.body["next_cursor"].as_str() {
                None => return found,
                Some(next) => path = format!("{board}?{query}&cursor={next}"),
            }
        }
    };
    assert_eq!(
        keys("").await,
        ["plan.a", "planet", "x/y=z", "plan.c", "raw"]
    );
    assert_eq!(
        keys("limit=1").await,
        ["plan.a", "planet", "x/y=z", "plan.c", "raw"]
    );
    assert_eq!(keys("prefix=plan").await, ["plan.a", "planet", "plan.c"]);
    assert_eq!(keys("prefix=plan.&limit=1").await, ["plan.a", "plan.c"]);
    assert_eq!(keys("prefix=x/").await, ["x/y=z"]);
    let all = stage.admin.get(&board).await;
    assert_eq!(all.body["items"][0]["value"], 1);
    assert_eq!(all.body["items"][4]["value_base64"], "cGxhaW4gdGV4dA==");
    let raw = stage.admin.get(&format!("{board}/raw")).await;
    assert_eq!(raw.header("content-type"), "application/octet-stream");

    // A watch tells what there is, then what changes, and goes on where it left off.
    let (client, path) = (
        stage.admin.clone(),
        format!("{board}?follow=true&prefix=plan."),
    );
    let watching = tokio::spawn(async move {
        events(&client, &path, None, |(_, name, data)| {
            name == "delete" && data["key"] == "plan.d"
        })
        .await
    });
    let made = put(&stage.admin, &format!("{board}/plan.d"), &json!(6), &[]).await;
    put(&stage.admin, &format!("{board}/other"), &json!(7), &[]).await;
    stage.admin.delete(&format!("{board}/plan.d")).await;
    let told = tokio::time::timeout(Duration::from_secs(30), watching).await;
    let told = told.expect("in time").expect("no panic");
    // One value for each key is kept: what a key was before its last change may be gone when the watch begins.
    let mut seen: Vec<(String, String)> = told
        .iter()
        .map(|(_, name, data)| {
            (
                name.clone(),
                data["key"].as_str().expect("a key").to_owned(),
            )
        })
        .collect();
    let end = seen.pop();
    assert_eq!(end, Some(("delete".to_owned(), "plan.d".to_owned())));
    assert_eq!(seen[0], ("put".to_owned(), "plan.a".to_owned()), "{seen:?}");
    assert!(
        seen.iter().all(|(_, key)| key.starts_with("plan.")),
        "{seen:?}"
    );
    let revision = made.body["revision"].as_u64().expect("a revision");
    let path = format!("{board}?follow=true&prefix=plan.");
    let rest = events(&stage.admin, &path, Some(revision), |_| true).await;
    assert_eq!(
        (rest[0].1.as_str(), &rest[0].2["key"]),
        ("delete", &json!("plan.d"))
    );
}

/// The subjects of a swarm's keys that hold a value.
async fn kept(stage: &Stage, place: Place) -> Vec<String> {
    let bus = stage.app.bus.as_ref().expect("a bus");
    let filters = [blackboard_key(place, ">")];
    let found = bus.page("KV_swarm_blackboard", &filters, 1, 1_000).await;
    let items = found.expect("read").items;
    let values = items
        .into_iter()
        .filter(|stored| !stored.payload.is_empty());
    values.map(|stored| stored.subject).collect()
}

async fn until_cleared(stage: &Stage, place: Place) {
    let mut look = tokio::time::interval(Duration::from_millis(50));
    let cleared = async {
        while !kept(stage, place).await.is_empty() {
            look.tick().await;
        }
    };
    timeout(PATIENCE, cleared).await.expect("cleared in time");
}

/// A key of the system's, as an agent writes it.
async fn written(stage: &Stage, place: Place, key: &str) {
    let context = async_nats::jetstream::new(stage.log.client().clone());
    let stored = context.publish(blackboard_key(place, key), "1".into());
    stored.await.expect("sent").await.expect("stored");
}

#[tokio::test]
async fn what_a_deleted_swarm_leaves_is_deleted_with_the_gateways_own_rights() {
    let stage = Stage::guarded().await;
    let gone = stage.swarm(json!({"name": "a"})).await;
    let stays = stage.swarm(json!({"name": "b"})).await;
    for place in [gone, stays] {
        for key in ["x", "y.z"] {
            let path = format!("/v1/swarms/{}/blackboard/{key}", place.swarm);
            assert_eq!(put(&stage.admin, &path, &json!(1), &[]).await.status, 200);
        }
        written(&stage, place, "_cursor.a").await;
    }
    let deleted = stage
        .admin
        .delete(&format!("/v1/swarms/{}", gone.swarm))
        .await;
    assert!(deleted.status < 300, "{}", deleted.body);
    until_cleared(&stage, gone).await;
    assert_eq!(kept(&stage, stays).await.len(), 3);
}

#[tokio::test]
async fn given_a_gateway_that_begins_after_a_deletion_then_it_clears_what_is_left_and_again_what_comes_late()
 {
    let stage = Stage::without_database().await;
    let (app, bus) = (&stage.app, stage.app.bus.as_ref().expect("a bus"));
    // More than are looked at one by one.
    let mut places = Vec::new();
    for n in 0..34 {
        places.push(stage.swarm(json!({"name": format!("s{n}")})).await);
    }
    for place in &places {
        written(&stage, *place, "early").await;
        let path = format!("/v1/swarms/{}", place.swarm);
        assert!(stage.admin.delete(&path).await.status < 300);
    }
    // The stage's own gateway has looked at all of them then, and does so again only when they have been deleted for long.
    for place in &places {
        until_cleared(&stage, *place).await;
    }
    let (first, last) = (places[0], places[33]);
    written(&stage, first, "late").await;
    written(&stage, last, "late").await;
    // A process that begins now.
    let (mut sweep, now) = (Sweep::default(), App::now());
    let looked = sweep.look(app, bus, now).await;
    assert_eq!(looked.expect("looked"), 2);
    assert!(kept(&stage, first).await.is_empty() && kept(&stage, last).await.is_empty());
    written(&stage, first, "later").await;
    let looked = sweep.look(app, bus, now.plus_millis(LATE_MS / 2)).await;
    assert_eq!(looked.expect("looked"), 0, "it has looked at it");
    let long_after = now.plus_millis(LATE_MS);
    let looked = sweep.look(app, bus, long_after).await;
    assert_eq!(looked.expect("looked"), 1);
    written(&stage, first, "too-late").await;
    let looked = sweep.look(app, bus, long_after).await;
    assert_eq!(looked.expect("looked"), 0, "that was the last look");
}
