//! Agents ask, people answer, with PostgreSQL away.

use serde_json::json;
use swarm_events::{message::MESSAGE_BYTES_MAX, org::Role};
use uuid::Uuid;

use crate::support::{Stage, talk::question};

#[tokio::test]
async fn an_open_question_is_read_and_answered_while_postgres_is_away() {
    let stage = Stage::guarded().await;
    let place = stage.swarm(json!({"name": "a"})).await;
    let (anna, ben) = (
        stage.agent(place, "anna").await,
        stage.agent(place, "ben").await,
    );
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
    let other = stage.ask(place, ben, question("How many?")).await;
    let open = stage.admin.get(&format!("{path}?status=open")).await;
    let items = open.body["items"].as_array().expect("items");
    assert_eq!(items.len(), 2, "{}", open.body);
    assert_eq!(
        (&items[0]["id"], &items[0]["agent_id"]),
        (&json!(id), &json!(anna))
    );
    assert_eq!(
        (&items[0]["choices"], &items[0]["default"]),
        (&json!(["yes", "no"]), &json!("no"))
    );
    assert_eq!(
        (&items[0]["status"], &items[0]["answerer"]),
        (&json!("open"), &json!("anybody"))
    );
    assert_eq!(
        (&items[1]["id"], &items[1]["choices"]),
        (&json!(other), &json!([]))
    );
    let of = stage
        .admin
        .get(&format!("{path}?status=open&agent_id={ben}"))
        .await;
    assert_eq!(of.body["items"][0]["id"], json!(other));
    let shown = stage.admin.get(&format!("{path}/{id}")).await;
    assert_eq!(
        (shown.status, shown.text("question")),
        (200, "Delete the old index?")
    );
    // How others ended only the read model knows.
    for query in ["", "?status=answered", "?status=open&cursor=x"] {
        let away = stage.admin.get(&format!("{path}{query}")).await;
        assert_eq!(away.status, 503, "{query}: {}", away.body);
    }

    // What is none of its choices is no answer; the first answer counts.
    let answer = format!("{path}/{id}/answer");
    let wrong = stage
        .admin
        .post(&answer, &json!({"answer": "perhaps"}))
        .await;
    wrong.refused(422, "not-a-choice", Some("answer"));
    let told = stage.admin.post(&answer, &json!({"answer": "yes"})).await;
    assert_eq!(
        (told.status, told.text("status")),
        (200, "answered"),
        "{}",
        told.body
    );
    assert_eq!(
        (&told.body["answer"], &told.body["answered_by"]),
        (&json!("yes"), &json!("person"))
    );
    assert!(told.body["answered_by_id"].is_string(), "{}", told.body);
    let event = stage
        .stored(&format!("swarm.evt.{place}.agent.answered.{anna}"))
        .await
        .remove(0);
    assert_eq!(
        (&event["data"]["question_id"], &event["data"]["answer"]),
        (&json!(id), &json!("yes"))
    );
    let late = stage.admin.post(&answer, &json!({"answer": "no"})).await;
    late.refused(409, "already-answered", Some("question_id"));
    let left = stage.admin.get(&format!("{path}?status=open")).await;
    assert_eq!(
        left.body["items"].as_array().map(Vec::len),
        Some(1),
        "{}",
        left.body
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
    let lost = stage.admin.get(&format!("{path}?status=lost")).await;
    lost.refused(400, "bad-parameter", Some("?status"));
    for (question, field) in [
        (Uuid::now_v7().to_string(), "question_id"),
        ("x".to_owned(), "id"),
    ] {
        let path = format!("{path}/{question}/answer");
        let unknown = stage.admin.post(&path, &json!({"answer": 1})).await;
        unknown.refused(404, "unknown-question", Some(field));
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
