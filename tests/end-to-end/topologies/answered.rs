//! An agent asks the leader: the one that leads is killed before it answers, and the next one does.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::seated;
use crate::{
    agents::Crew,
    support::{Installation, PATIENCE, eventually, kill},
};

/// Asks the leader, and gives the answer back as its result.
const ASKS: &str = r#"read -r task
echo '{"ask": {"question": "Publish it?", "choices": ["yes", "no"], "answerer": "leader", "timeout_ms": 120000}}'
read -r answer
echo "{\"answered\": $answer}""#;

pub async fn all(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "answered", json!({})).await;
    // Given a leader that says when it is asked something, and never answers
    let mark = swarm.dir().join("asked");
    let mute = format!(
        "read -r task; echo \"$task\" > {}; exec sleep 1000",
        mark.display()
    );
    let eldest = answering(&crew, "eldest", &mute).await;
    crew.idle(&eldest).await;
    let second = answering(&crew, "second", "echo yes").await;
    crew.idle(&second).await;
    let asking = crew
        .add(json!({
            "agent_type": "exec", "agent_name": "asking", "adapter": "exec", "capabilities": ["ask"],
            "command": ["/bin/sh", "-c", ASKS], "metadata": {"exec": {"stdin": "open"}},
        }))
        .await;
    crew.idle(&asking).await;
    let shape = seated(swarm, &crew.id, 3).await;
    assert_eq!(shape["leader_agent_id"], eldest, "{shape}");

    // When an agent asks the leader
    let task = json!({"task_type": "work", "payload": {}, "required_capabilities": ["ask"]});
    let task = swarm.task(&crew.id, task).await;
    let told = eventually("the leader is asked", PATIENCE, || async {
        let text = std::fs::read_to_string(&mark).ok()?;
        serde_json::from_str::<Value>(&text).ok()
    })
    .await;
    assert_eq!(told["task_type"], "question", "{told}");
    assert_eq!(told["payload"]["question"], "Publish it?", "{told}");
    assert_eq!(told["payload"]["from"], asking.as_str(), "{told}");
    // And that one is killed
    let process = crew
        .shown(&eldest, "running", |shown| shown["pid"].is_u64())
        .await;
    let process = process["pid"]
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok());
    kill(process.expect("a process"), Signal::KILL);
    // Then the next one is told the open question, and its answer is the asker's result
    let (_, completed) = crew.record.task("completed", &task).await;
    let result = &completed["data"]["result"]["inline"]["answered"];
    assert_eq!(result["answer"], "yes", "{completed}");
    assert_eq!(result["by"]["agent"], second.as_str(), "{completed}");
    let shape = seated(swarm, &crew.id, 3).await;
    assert_eq!(shape["leader_agent_id"], second, "{shape}");
    assert_eq!(crew.record.all("assigned").len(), 1, "it was one attempt");
}

/// An agent whose command answers questions.
async fn answering(crew: &Crew<'_>, name: &str, script: &str) -> String {
    crew.add(json!({
        "agent_type": "exec", "agent_name": name, "adapter": "exec",
        "command": ["/bin/sh", "-c", script], "metadata": {"exec": {"answers": true}},
    }))
    .await
}
