//! Agents ask, people answer.

use serde_json::json;
use swarm_events::{message::MESSAGE_BYTES_MAX, org::Role};
use uuid::Uuid;

use crate::support::{Stage, talk::question};

#[tokio::test]
async fn a_question_is_answered_once_by_a_person() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let anna = stage.agent(place, "anna").await;
    let path = format!("/v1/swarms/{}/questions", place.swarm);
    let none = stage.admin.get(&format!("{path}?status=open")).await;
    assert_eq!(
        (none.status, &none.body),
        (200, &json!({"items": [], "next_cursor": null}))
    );

    let mut ask = question("Delete the old index?");
    ask.choices = vec!["yes".to_owned(), "no".to_owned()];
    ask.default = Some(json!("no").into());
    let id = stage.ask(place, anna, ask).await;
    let other = stage.ask(place, anna, question("How many?")).await;

    let open = stage.admin.get(&format!("{path}?status=open")).await;
    let items = open.body["items"].as_array().expect("items");
    assert_eq!(items.len(), 2, "{}", open.body);
    assert_eq!(
        (&items[0]["id"], &items[0]["agent_name"]),
        (&json!(id), &json!("anna"))
    );
    assert_eq!(
        (&items[0]["choices"], &items[0]["default"]),
        (&json!(["yes", "no"]), &json!("no"))
    );
    assert_eq!(
        (&items[0]["status"], &items[0]["answerer"]),
        (&json!("open"), &json!("anybody"))
    );
    let page = stage
        .admin
        .get(&format!("{path}?status=open&limit=1"))
        .await;
    let next = page.text("next_cursor").to_owned();
    let rest = stage
        .admin
        .get(&format!("{path}?status=open&limit=1&cursor={next}"))
        .await;
    assert_eq!(rest.body["items"][0]["id"], json!(other));
    assert_eq!(rest.body["next_cursor"], json!(null));

    // What is none of its choices is no answer.
    let answer = |question: Uuid| format!("{path}/{question}/answer");
    let wrong = stage
        .admin
        .post(&answer(id), &json!({"answer": "perhaps"}))
        .await;
    wrong.refused(422, "not-a-choice", Some("answer"));
    let told = stage
        .admin
        .post_keyed(&answer(id), &json!({"answer": "yes"}), "k")
        .await;
    assert_eq!(
        (told.status, told.text("status")),
        (200, "answered"),
        "{}",
        told.body
    );
    assert_eq!(
        (&told.body["answer"], &told.body["answered_by"]["kind"]),
        (&json!("yes"), &json!("person"))
    );
    assert!(
        told.body["answered_by"]["user_id"].is_string(),
        "{}",
        told.body
    );
    let event = stage
        .stored(&format!("swarm.evt.{place}.agent.answered.{anna}"))
        .await
        .remove(0);
    assert_eq!(
        (&event["data"]["question_id"], &event["data"]["answer"]),
        (&json!(id), &json!("yes"))
    );

    // The first answer counts, and a repeat of it is the same.
    let again = stage
        .admin
        .post_keyed(&answer(id), &json!({"answer": "yes"}), "k")
        .await;
    assert_eq!(
        (again.status, &again.body["answer"]),
        (200, &json!("yes")),
        "{}",
        again.body
    );
    let late = stage
        .admin
        .post(&answer(id), &json!({"answer": "no"}))
        .await;
    late.refused(409, "already-answered", Some("question_id"));
    let shown = stage.admin.get(&format!("{path}/{id}")).await;
    assert_eq!(
        (shown.text("status"), &shown.body["answer"]),
        ("answered", &json!("yes"))
    );
    let any = stage
        .admin
        .post(&answer(other), &json!({"answer": {"n": [7]}}))
        .await;
    assert_eq!(
        (any.status, &any.body["answer"]),
        (200, &json!({"n": [7]})),
        "{}",
        any.body
    );

    let all = stage.admin.get(&path).await;
    let ids: Vec<_> = all.body["items"]
        .as_array()
        .expect("items")
        .iter()
        .map(|it| it["id"].clone())
        .collect();
    assert_eq!(ids, [json!(id), json!(other)]);
    let first = stage
        .admin
        .get(&format!("{path}?status=answered&limit=1"))
        .await;
    assert_eq!(first.body["items"][0]["id"], json!(id));
    let next = first.text("next_cursor");
    let second = stage
        .admin
        .get(&format!("{path}?status=answered&limit=1&cursor={next}"))
        .await;
    assert_eq!(second.body["items"][0]["id"], json!(other));
    let none = stage.admin.get(&format!("{path}?status=unanswered")).await;
    assert_eq!(none.body["items"], json!([]));
}

#[tokio::test]
async fn a_question_that_nobody_answers_ends_by_itself() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let anna = stage.agent(place, "anna").await;
    let path = format!("/v1/swarms/{}/questions", place.swarm);
    let mut with = question("Go on?");
    with.default = Some(json!("yes").into());
    let with = stage.ask(place, anna, with).await;
    let without = stage.ask(place, anna, question("And now?")).await;
    // The one that asked goes: both are ended, as nobody hears the answer.
    let agents = format!("/v1/swarms/{}/agents/{anna}?force=true", place.swarm);
    assert_eq!(stage.admin.delete(&agents).await.status, 200);
    stage
        .eventually(|app| {
            let fold = app.fold.read();
            let swarm = fold.swarm(place.org, place.swarm);
            swarm.is_some_and(|swarm| swarm.questions().next().is_none())
        })
        .await;
    for id in [with, without] {
        let shown = stage.admin.get(&format!("{path}/{id}")).await;
        assert_eq!(shown.text("status"), "unanswered", "{}", shown.body);
        assert!(shown.text("reason").contains("gone"), "{}", shown.body);
        let late = stage
            .admin
            .post(&format!("{path}/{id}/answer"), &json!({"answer": 1}))
            .await;
        late.refused(409, "already-answered", Some("question_id"));
    }
    let ended = stage.admin.get(&format!("{path}?status=unanswered")).await;
    assert_eq!(
        ended.body["items"].as_array().map(Vec::len),
        Some(2),
        "{}",
        ended.body
    );
}

#[tokio::test]
async fn a_bad_answer_is_refused_by_field_and_cure() {
    let stage = Stage::without_database().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let anna = stage.agent(place, "anna").await;
    let path = format!("/v1/swarms/{}/questions", place.swarm);
    let id = stage.ask(place, anna, question("What?")).await;
    let answer = format!("{path}/{id}/answer");
    let large = json!({"answer": "x".repeat(MESSAGE_BYTES_MAX)});
    stage
        .admin
        .post(&answer, &large)
        .await
        .refused(413, "answer-too-large", Some("answer"));
    stage
        .admin
        .post(&answer, &json!({}))
        .await
        .refused(422, "missing-field", Some("answer"));
    let more = json!({"answer": 1, "by": "me"});
    stage
        .admin
        .post(&answer, &more)
        .await
        .refused(422, "unknown-field", Some("by"));
    stage
        .admin
        .get(&format!("{path}?status=lost"))
        .await
        .refused(400, "bad-parameter", Some("?status"));
    for (question, field) in [
        (Uuid::now_v7().to_string(), "question_id"),
        ("x".to_owned(), "id"),
    ] {
        let unknown = stage
            .admin
            .post(&format!("{path}/{question}/answer"), &json!({"answer": 1}))
            .await;
        unknown.refused(404, "unknown-question", Some(field));
        let unknown = stage.admin.get(&format!("{path}/{question}")).await;
        unknown.refused(404, "unknown-question", Some("id"));
    }
    let (_, stranger) = stage.other_org().await;
    for came in [
        stranger.get(&path).await,
        stranger.get(&format!("{path}/{id}")).await,
        stranger.post(&answer, &json!({"answer": 1})).await,
    ] {
        came.refused(404, "unknown-swarm", Some("id"));
    }
    let analyst = stage.with_role(Role::Analyst).await;
    let came = analyst.post(&answer, &json!({"answer": 1})).await;
    came.refused(403, "forbidden", Some("Authorization"));
}
