//! A supervisor splits a task, its subtree does the parts, and the supervisor makes one result of theirs.

use serde_json::{Value, json};

use super::{node, seated, shaped};
use crate::{
    agents::Crew,
    support::{Assignment, Installation, Record},
};

/// Splits a task into three parts, and adds their results up.
const SUPERVISOR: &str = r#"
task=$(cat)
case $task in
  *'"step":"reduce"'*)
    sum=0
    for n in $(printf %s "$task" | grep -o '"square": *[0-9]*' | grep -o '[0-9]*$'); do sum=$((sum + n)); done
    echo "{\"sum\": $sum}" ;;
  *)
    echo '{"split": [
      {"key": "a", "task_type": "square", "payload": {"n": 2}},
      {"key": "b", "task_type": "square", "payload": {"n": 3}},
      {"key": "c", "task_type": "square", "payload": {"n": 4}}]}' | tr -d '\n'
    echo ;;
esac
"#;
const WORKER: &str = r#"
n=$(grep -o '"n": *[0-9]*' | head -1 | grep -o '[0-9]*$')
echo "{\"square\": $((n * n))}"
"#;

pub async fn all(swarm: &Installation) {
    let options = json!({
        "levels": [
            {"role": "coordinator", "count": 1},
            {"role": "supervisor", "count": 2},
            {"role": "worker", "count": 2},
        ],
        "parent_child_ratio": 2,
    });
    let id = shaped(swarm, "parts", "hierarchical", options, json!({})).await;
    let record = Record::of(swarm, &id).await;
    let mut crew = Crew { swarm, id, record };
    let add = |name: String, kind: &'static str, script: &'static str| {
        json!({
            "agent_type": kind, "agent_name": name, "adapter": "exec",
            "command": ["/bin/sh", "-c", script],
        })
    };
    let mut all = vec![crew.add(add("top".into(), "coordinator", SUPERVISOR)).await];
    for name in ["left", "right"] {
        all.push(crew.add(add(name.into(), "supervisor", SUPERVISOR)).await);
    }
    for n in 0..4 {
        all.push(crew.add(add(format!("worker-{n}"), "worker", WORKER)).await);
    }
    for agent in &all {
        crew.idle(agent).await;
    }
    let shape = seated(swarm, &crew.id, 7).await;
    let task = json!({"task_type": "sum", "payload": {}, "required_role": "supervisor"});
    let task = swarm.task(&crew.id, task).await;
    let (_, split) = crew.record.task("split", &task).await;
    let supervisor = split["source"].as_str().expect("an agent");
    let supervisor = supervisor.trim_start_matches("/swarm/agent/").to_owned();
    assert_eq!(node(&shape, &supervisor)["role"], "supervisor", "{split}");
    let (_, completed) = crew.record.task("completed", &task).await;
    assert_eq!(
        completed["data"]["result"]["inline"]["sum"],
        4 + 9 + 16,
        "{completed}"
    );
    let reduced: Vec<Assignment> = crew
        .record
        .all("assigned")
        .into_iter()
        .map(Assignment::read)
        .collect();
    let (own, parts): (Vec<_>, Vec<_>) = reduced.into_iter().partition(|one| one.task == task);
    assert_eq!((own.len(), parts.len()), (2, 3), "{own:?} {parts:?}");
    assert_eq!(own[1].data["step"], "reduce", "{own:?}");
    assert_eq!(own[1].agent, supervisor, "the same one");
    for part in parts {
        assert_eq!(node(&shape, &part.agent)["parent"], *supervisor, "{part:?}");
        let shown: Value = swarm.get(&format!("/v1/tasks/{}", part.task)).await;
        assert_eq!(shown["parent_task_id"], *task, "{shown}");
    }
}
