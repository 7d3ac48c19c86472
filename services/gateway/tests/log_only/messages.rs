//! What people and agents say to each other.

use serde_json::{Value, json};
use swarm_events::{
    message::{MESSAGE_BYTES_MAX, Purpose, Stage as Reached},
    org::Role,
    subject::{Recipient, topic_key},
};
use swarm_log::{
    definitions::{MESSAGES_STREAM, Provision},
    provision::provision_missing,
};
use uuid::Uuid;

use crate::support::{Client, Stage, events, talk::told};

fn path(place: swarm_events::Place) -> String {
    format!("/v1/swarms/{}/messages", place.swarm)
}

#[tokio::test]
async fn what_people_say_is_stored_where_its_recipient_hears_it() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let anna = stage.agent(place, "anna").await;
    let path = path(place);
    for (body, to, subject) in [
        (
            json!({"to": "anna", "body": 1}),
            anna.to_string(),
            anna.to_string(),
        ),
        (
            json!({"to": anna, "body": {"n": [1]}}),
            anna.to_string(),
            anna.to_string(),
        ),
        (
            json!({"to": "leader", "topic": "news"}),
            "leader".to_owned(),
            "leader".to_owned(),
        ),
        (
            json!({"to": "supervisor"}),
            "supervisor".to_owned(),
            "supervisor".to_owned(),
        ),
        (
            json!({"to": "all", "request": true}),
            "all".to_owned(),
            "all".to_owned(),
        ),
        (
            json!({"topic": "news", "receipt": "handled", "expires_ms": 5_000}),
            "topic".to_owned(),
            format!("topic.{:016x}", topic_key("news")),
        ),
    ] {
        let sent = stage.admin.post(&path, &body).await;
        assert_eq!(
            (sent.status, sent.text("to")),
            (202, to.as_str()),
            "{}",
            sent.body
        );
        assert_eq!(sent.text("from"), "people");
        let stream = stage
            .jetstream()
            .get_stream("swarm_messages")
            .await
            .expect("there");
        let sequence = sent.body["sequence"].as_u64().expect("a sequence");
        let stored = stream.get_raw_message(sequence).await.expect("stored");
        assert_eq!(
            stored.subject.as_str(),
            format!("swarm.msg.{place}.people.{subject}")
        );
        let event: Value = serde_json::from_slice(&stored.payload).expect("JSON");
        assert_eq!(
            (&event["id"], &event["type"]),
            (&sent.body["id"], &json!("swarm.message.sent.v1"))
        );
        let said = body.get("body").cloned().unwrap_or_else(|| json!({}));
        assert_eq!(event["data"]["body"], said);
        assert_eq!(
            event["subject"],
            json!(place.swarm),
            "people speak for the swarm"
        );
        assert_eq!(event["data"]["topic"], body["topic"]);
        let purpose = if body["request"] == true {
            "request"
        } else {
            "tell"
        };
        assert_eq!(event["data"]["purpose"], purpose);
        assert_eq!(
            event["data"]["expires_ms"].as_u64(),
            body["expires_ms"].as_u64()
        );
    }
}

#[tokio::test]
async fn a_bad_message_is_refused_by_field_and_cure() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let gone = stage.agent(place, "gone").await;
    let agents = format!("/v1/swarms/{}/agents", place.swarm);
    let removed = stage
        .admin
        .delete(&format!("{agents}/{gone}?force=true"))
        .await;
    assert_eq!(removed.status, 200, "{}", removed.body);
    let path = path(place);
    let large = json!({"to": "leader", "body": "x".repeat(MESSAGE_BYTES_MAX)});
    for (body, status, code, field) in [
        (json!({}), 422, "missing-field", "to"),
        (json!({"to": "nobody"}), 422, "unknown-recipient", "to"),
        (json!({"to": "abroad"}), 422, "unknown-recipient", "to"),
        (json!({"to": Uuid::now_v7()}), 422, "unknown-agent", "to"),
        (json!({"to": gone}), 409, "agent-gone", "to"),
        (json!({"topic": "\u{7}"}), 422, "bad-topic", "topic"),
        (
            json!({"to": "leader", "receipt": "failed"}),
            422,
            "bad-receipt",
            "receipt",
        ),
        (
            json!({"to": "leader", "expires_ms": 86_400_001}),
            422,
            "out-of-range",
            "expires_ms",
        ),
        (large, 413, "message-too-large", "body"),
    ] {
        let came = stage.admin.post(&path, &body).await;
        came.refused(status, code, Some(field));
    }
    stage
        .admin
        .post_text(&path, "{")
        .await
        .refused(400, "malformed-json", Some("body"));
    let list = |query: &str| format!("{path}?{query}");
    for (query, field) in [
        ("from=nobody", "?from"),
        ("to=nobody", "?to"),
        ("cursor=7", "?cursor"),
        ("limit=0", "?limit"),
        ("colour=red", "?colour"),
    ] {
        stage
            .admin
            .get(&list(query))
            .await
            .refused(400, "bad-parameter", Some(field));
    }
    // Nobody hears of another organization's swarm, and who only reads says nothing.
    let (_, stranger) = stage.other_org().await;
    let hello = json!({"to": "leader"});
    for came in [
        stranger.post(&path, &hello).await,
        stranger.get(&path).await,
        stranger.get(&format!("{path}/stream")).await,
    ] {
        came.refused(404, "unknown-swarm", Some("id"));
    }
    let analyst = stage.with_role(Role::Analyst).await;
    analyst
        .post(&path, &hello)
        .await
        .refused(403, "forbidden", Some("Authorization"));
    assert_eq!(analyst.get(&path).await.status, 200);
    // A swarm that is gone hears nothing, and what was said can be read.
    let before = stage.admin.post(&path, &hello).await;
    assert_eq!(before.status, 202);
    let swarm = format!("/v1/swarms/{}", place.swarm);
    assert_eq!(stage.admin.delete(&swarm).await.status, 202);
    let after = stage.admin.post(&path, &hello).await;
    assert_eq!(after.status, 409, "{}", after.body);
    let all = stage.admin.get(&path).await;
    assert_eq!(
        all.body["items"].as_array().map(Vec::len),
        Some(1),
        "{}",
        all.body
    );
}

#[tokio::test]
async fn a_repeat_under_the_same_key_is_the_same_message() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let path = path(place);
    let first = stage
        .admin
        .post_keyed(&path, &json!({"to": "all", "body": 1}), "k")
        .await;
    assert_eq!(
        (first.status, first.header("swarm-key-remembered-ms")),
        (202, "120000")
    );
    let again = stage
        .admin
        .post_keyed(&path, &json!({"to": "all", "body": 1}), "k")
        .await;
    assert_eq!((again.status, &again.body), (202, &first.body));
    let other = stage
        .admin
        .post_keyed(&path, &json!({"to": "all", "body": 2}), "k")
        .await;
    other.refused(422, "key-reused", Some("Idempotency-Key"));
    let all = stage.admin.get(&path).await;
    assert_eq!(
        all.body["items"].as_array().map(Vec::len),
        Some(1),
        "{}",
        all.body
    );
}

async fn sequences(client: &Client, path: &str) -> Vec<u64> {
    let (mut found, mut path) = (Vec::new(), path.to_owned());
    let base = path.clone();
    loop {
        let came = client.get(&path).await;
        assert_eq!(came.status, 200, "{}", came.body);
        let items = came.body["items"].as_array().expect("items");
        found.extend(
            items
                .iter()
                .map(|item| item["sequence"].as_u64().expect("a sequence")),
        );
        match came.body["next_cursor"].as_str() {
            None => return found,
            Some(next) => path = format!("{base}&cursor={next}"),
        }
    }
}

#[tokio::test]
async fn what_was_said_is_listed_by_sender_recipient_and_topic() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let other = stage.swarm(json!({"name": "b"})).await;
    let (anna, ben) = (
        stage.agent(place, "anna").await,
        stage.agent(place, "ben").await,
    );
    let path = path(place);
    let mut all = Vec::new();
    let mut say = async |agent, to, sent| {
        let (id, sequence) = stage.say(place, agent, to, sent).await;
        all.push(sequence);
        id
    };
    let asked = say(anna, Recipient::Agent(ben), told(json!("one"))).await;
    say(anna, Recipient::Leader, told(json!("two"))).await;
    let mut topic = told(json!("three"));
    topic.topic = Some("news".to_owned());
    say(ben, Recipient::Topic(topic_key("news")), topic).await;
    let mut receipt = told(Value::Null);
    receipt.purpose = Purpose::Receipt {
        of: asked,
        stage: Reached::Handled,
        detail: None,
    };
    say(ben, Recipient::Agent(anna), receipt).await;
    // Another swarm's, and what is no message at all, are not shown.
    let stranger = stage.agent(other, "c").await;
    stage
        .say(other, stranger, Recipient::All, told(json!("four")))
        .await;
    stage
        .say_raw(
            &format!("swarm.msg.{place}.{anna}.all"),
            "x",
            b"no event".to_vec(),
        )
        .await;
    let told = stage
        .admin
        .post(&path, &json!({"to": "ben", "body": 5}))
        .await;
    all.push(told.body["sequence"].as_u64().expect("a sequence"));

    for limit in [1, 2, 100] {
        assert_eq!(
            sequences(&stage.admin, &format!("{path}?limit={limit}")).await,
            all,
            "{limit}"
        );
    }
    for (query, wanted) in [
        ("from=anna".to_owned(), vec![all[0], all[1]]),
        (format!("from={ben}"), vec![all[2], all[3]]),
        ("from=people".to_owned(), vec![all[4]]),
        ("to=ben".to_owned(), vec![all[0], all[4]]),
        ("from=anna&to=leader".to_owned(), vec![all[1]]),
        ("topic=news".to_owned(), vec![all[2]]),
        ("topic=olds".to_owned(), vec![]),
        ("to=leader&topic=news".to_owned(), vec![]),
        ("to=worker".to_owned(), vec![]),
    ] {
        let found = sequences(&stage.admin, &format!("{path}?{query}")).await;
        assert_eq!(found, wanted, "{query}");
    }
    let came = stage.admin.get(&format!("{path}?from=ben")).await;
    let items = &came.body["items"];
    assert_eq!(
        (&items[0]["to"], &items[0]["topic"]),
        (&json!("topic"), &json!("news"))
    );
    assert_eq!(
        (&items[1]["from_name"], &items[1]["to_name"]),
        (&json!("ben"), &json!("anna"))
    );
    assert_eq!(
        (&items[1]["receipt_of"], &items[1]["stage"]),
        (&json!(asked), &json!("handled"))
    );
}

#[tokio::test]
async fn what_is_said_is_followed_without_a_gap_or_a_repeat() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let anna = stage.agent(place, "anna").await;
    let path = path(place);
    let stream = |query: &str| format!("{path}/stream?{query}");
    let mut said = Vec::new();
    for n in 0..5 {
        let to = if n % 2 == 0 {
            Recipient::Leader
        } else {
            Recipient::All
        };
        said.push(stage.say(place, anna, to, told(json!(n))).await.1);
    }
    let last = said[4];
    let all = events(&stage.admin, &stream("after=0"), None, |(id, ..)| {
        *id == last
    })
    .await;
    let ids: Vec<u64> = all.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, said);
    assert!(all.iter().all(|(_, name, _)| name == "message"));
    assert_eq!(all[3].2["body"], 3);
    let some = events(
        &stage.admin,
        &stream("after=0&to=leader"),
        None,
        |(id, ..)| *id == last,
    )
    .await;
    assert_eq!(some.len(), 3, "{some:?}");
    // Who comes back goes on where it left off; what comes then is told as it comes.
    let (client, at) = (stage.admin.clone(), stream(""));
    let first = said[2];
    let coming = tokio::spawn(async move {
        events(&client, &at, Some(first), |(_, _, data)| {
            data["body"] == "end"
        })
        .await
    });
    for n in 5..8 {
        said.push(
            stage
                .say(place, anna, Recipient::All, told(json!(n)))
                .await
                .1,
        );
    }
    said.push(
        stage
            .say(place, anna, Recipient::All, told(json!("end")))
            .await
            .1,
    );
    let rest = coming.await.expect("no panic");
    let ids: Vec<u64> = rest.iter().map(|(id, ..)| *id).collect();
    assert_eq!(ids, said[3..]);
    let bad = stage.admin.get(&stream("after=x")).await;
    bad.refused(400, "bad-parameter", Some("?after"));
}

#[tokio::test]
async fn given_an_installation_of_an_earlier_version_then_the_answers_name_the_cure() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let context = async_nats::jetstream::new(stage.log.client().clone());
    for stream in [MESSAGES_STREAM, "KV_swarm_blackboard"] {
        context.delete_stream(stream).await.expect("deleted");
    }
    let root = format!("/v1/swarms/{}", place.swarm);
    let value = json!({"to": "all", "body": 1});
    let admin = &stage.admin;
    let (messages, board, key) = (
        format!("{root}/messages"),
        format!("{root}/blackboard"),
        format!("{root}/blackboard/x"),
    );
    let answers = [
        admin.get(&messages).await,
        admin.post(&messages, &value).await,
        admin.get(&board).await,
        admin.get(&key).await,
        admin.put(&key, &value).await,
    ];
    for came in answers {
        came.refused(503, "not-provisioned", None);
        assert!(came.text("cure").contains("swarm up"), "{}", came.body);
    }
    // What made the rest makes these, and the messages go on.
    let made = provision_missing(&context, &Provision::default()).await;
    assert_eq!(
        made.expect("made"),
        [MESSAGES_STREAM, "KV_swarm_blackboard"]
    );
    assert_eq!(admin.post(&messages, &value).await.status, 202);
    assert_eq!(admin.put(&key, &value).await.status, 200);
}
