//! An agent asks, a person answers: by API, by command line, or not at all.

use serde_json::{Value, json};

use crate::{
    agents::Crew,
    support::{Installation, PATIENCE, eventually, said},
};

/// Asks, and gives the answer back as its result.
fn asks(default: &str, timeout_ms: u64) -> String {
    format!(
        r#"read -r task
echo '{{"ask": {{"question": "Publish it?", "choices": ["yes", "no"], {default} "timeout_ms": {timeout_ms}}}}}'
read -r answer
echo "{{\"answered\": $answer}}""#
    )
}

pub async fn all(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "asked", json!({})).await;
    let agent = asker(&crew, &asks("", 60_000)).await;
    crew.idle(&agent).await;

    let task = crew.task(json!({})).await;
    let open = question(&crew, "").await;
    let first = open["id"].as_str().expect("an id").to_owned();
    assert_eq!(open["question"], "Publish it?", "{open}");
    let path = crew.path(&format!(
        "/questions/{}/answer",
        open["id"].as_str().expect("an id")
    ));
    let answer = |answer: Value| {
        let path = path.clone();
        async move {
            let body = json!({"answer": answer});
            swarm
                .request(reqwest::Method::POST, &path, Some(&body))
                .await
                .expect("answers")
        }
    };
    let (status, problem) = answer(json!("perhaps")).await;
    assert_eq!(status, 422, "{problem}");
    let (status, told) = answer(json!("yes")).await;
    assert_eq!(status, 200, "{told}");
    let (status, problem) = answer(json!("no")).await;
    assert_eq!(status, 409, "the first answer counts: {problem}");
    let (_, completed) = crew.record.task("completed", &task).await;
    let result = &completed["data"]["result"]["inline"]["answered"];
    assert_eq!(result["answer"], "yes", "{completed}");

    // By the command line.
    let task = crew.task(json!({})).await;
    let open = question(&crew, &first).await;
    let id = open["id"].as_str().expect("an id");
    let told = swarm.cli(&["ask", "answer", &crew.id, id, "no"]).await;
    assert!(told.status.success(), "{}", said(&told));
    let (_, completed) = crew.record.task("completed", &task).await;
    let result = &completed["data"]["result"]["inline"]["answered"];
    assert_eq!(result["answer"], "no", "{completed}");

    // By nobody: the default counts.
    let mut crew = Crew::of(swarm, "unasked", json!({})).await;
    let agent = asker(&crew, &asks(r#""default": "no","#, 300)).await;
    crew.idle(&agent).await;
    let task = crew.task(json!({})).await;
    let (_, completed) = crew.record.task("completed", &task).await;
    let result = &completed["data"]["result"]["inline"]["answered"];
    assert_eq!(
        (&result["answer"], &result["by"]),
        (&json!("no"), &json!("default")),
        "{completed}"
    );
}

/// An agent whose command reads answers on its stdin.
async fn asker(crew: &Crew<'_>, script: &str) -> String {
    crew.add(json!({
        "agent_type": "exec", "agent_name": "asker", "adapter": "exec",
        "command": ["/bin/sh", "-c", script], "metadata": {"exec": {"stdin": "open"}},
    }))
    .await
}

/// The question that is open, and not this one: the read model may not have heard of its answer yet.
async fn question(crew: &Crew<'_>, but: &str) -> Value {
    let path = crew.path("/questions?status=open");
    eventually("a question is open", PATIENCE, || async {
        let open = crew.swarm.get(&path).await;
        let mut items = open["items"].as_array()?.iter();
        items.find(|one| one["id"] != *but).cloned()
    })
    .await
}
