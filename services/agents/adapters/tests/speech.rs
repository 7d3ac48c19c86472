//! What commands say and ask by lines on stdout.

use std::time::Duration;

use serde_json::json;
use swarm_agent_adapters::ExecAdapter;
use swarm_agent_sdk::{
    AgentBuilder, ReceivedMessage,
    testing::{self, TestEnd, TestEvent, TestSwarm, TestTask},
};
use swarm_events::{configuration::TopologyKind, topology::Topology};
use tokio::sync::mpsc;

fn sh(script: &str) -> ExecAdapter {
    let words = ["sh", "-c", script].map(str::to_owned);
    ExecAdapter::new(words.to_vec()).expect("a command")
}
fn agent(script: &str) -> AgentBuilder {
    testing::agent().name("sh").any_raw_handler(sh(script))
}
fn once() -> TestTask {
    TestTask::new("any", json!({}))
        .max_attempts(1)
        .timeout(Duration::from_secs(60))
}

#[tokio::test]
async fn a_command_says_something_to_agents_and_topics() {
    let (say, mut heard) = mpsc::unbounded_channel();
    let (direct, topic) = (say.clone(), say);
    let other = testing::agent()
        .name("other")
        .capabilities(["none"])
        .on_message(move |message: ReceivedMessage| {
            let say = direct.clone();
            async move {
                say.send(("direct", message.body.to_value()))?;
                Ok(())
            }
        })
        .on_topic("news", move |message: ReceivedMessage| {
            let say = topic.clone();
            async move {
                say.send(("news", message.body.to_value()))?;
                Ok(())
            }
        });
    let script = r#"
echo '{"message": {"to": "other", "body": {"n": 1}}}'
echo '{"message": {"topic": "news", "body": 2}}'
echo '{"message": "words for people"}'
echo '{"message": {"to": "nobody", "body": 3}}'
printf '{"message": {"to": "all", "body": 4}}'
"#;
    let able = agent(script).capabilities(["sh"]);
    let swarm = TestSwarm::new([able, other]);
    let task = swarm.submit(once().requires(["sh"]));
    // Control lines are no output, the last one without an end included.
    assert_eq!(task.end().await, TestEnd::Completed(json!({"stdout": ""})));
    let words = |event: &TestEvent| matches!(event, TestEvent::Progressed { message: Some(words), .. } if words == "words for people");
    assert!(task.history().iter().any(|entry| words(&entry.event)));
    for wanted in [
        ("direct", json!({"n": 1})),
        ("news", json!(2)),
        ("direct", json!(4)),
    ] {
        assert_eq!(heard.recv().await, Some(wanted));
    }
}

#[tokio::test]
async fn a_command_asks_and_reads_the_answer_on_stdin() {
    let script = r#"
read -r task
echo '{"message": {"to": "nobody", "body": 1}}'
read -r error
echo '{"ask": {"question": "Go on?", "choices": ["yes", "no"], "timeout_ms": 60000}}'
read -r answer
echo '{"ask": {"question": "Again?", "mistake": 1}}'
read -r mistake
printf '{"error": %s, "answer": %s, "mistake": %s}\n' "$error" "$answer" "$mistake"
"#;
    let adapter = sh(script).keep_stdin_open();
    let swarm = TestSwarm::new([testing::agent().any_raw_handler(adapter)]);
    let task = swarm.submit(once());
    let question = swarm.question().await.expect("asked");
    assert_eq!(question.ask.question, "Go on?");
    assert!(question.answer("yes"));
    let TestEnd::Completed(said) = task.end().await else {
        panic!("it failed: {:?}", task.history())
    };
    assert_eq!(
        said["answer"],
        json!({"answer": "yes", "by": {"person": null}})
    );
    let text = |name: &str| said[name]["error"].as_str().unwrap_or_default().to_owned();
    assert!(text("error").contains("nobody is unknown"), "{said}");
    assert!(
        text("mistake").contains("ask: unknown field `mistake`"),
        "{said}"
    );
}

#[tokio::test]
async fn a_command_that_ends_before_its_answer_does_not_wait_for_it() {
    let adapter = sh(r#"read -r task; echo '{"ask": {"question": "Go on?"}}'; echo '{"done": 1}'"#);
    let swarm = TestSwarm::new([testing::agent().any_raw_handler(adapter.keep_stdin_open())]);
    let task = swarm.submit(once());
    assert_eq!(task.end().await, TestEnd::Completed(json!({"done": 1})));
}

#[tokio::test]
async fn with_its_stdin_closed_a_command_that_asks_reads_the_end() {
    let script = r#"
read -r task
echo '{"ask": {"question": "Go on?"}}'
read -r answer || echo '{"answered": false}'
"#;
    let swarm = TestSwarm::new([agent(script)]);
    let task = swarm.submit(once());
    assert_eq!(
        task.end().await,
        TestEnd::Completed(json!({"answered": false}))
    );
}

#[tokio::test]
async fn a_command_hands_its_task_on_in_parts() {
    let script = r#"
read -r task
case "$task" in
*'"task_type":"one"'*) echo '{"one": 1}' ;;
*'"step":"reduce"'*) printf '%s\n' "$task" ;;
*) echo '{"split": [{"key": "a", "task_type": "one"}, {"key": "b", "task_type": "one"}]}' ;;
esac
"#;
    let swarm = TestSwarm::new([agent(script)]);
    let task = swarm.submit(once());
    let TestEnd::Completed(reduced) = task.end().await else {
        panic!("it failed: {:?}", task.history())
    };
    assert_eq!(reduced["inputs"], json!({"a": {"one": 1}, "b": {"one": 1}}));
    assert_eq!(reduced["step"], json!("reduce"));
}

#[tokio::test]
async fn parts_that_are_none_fail_for_good_by_field() {
    for (split, words) in [
        (r#"[]"#, "parts: 0 parts"),
        (r#"[{"key": "a"}]"#, "split: missing field `task_type`"),
        (r#"[{"key": "", "task_type": "t"}]"#, "parts[0].key"),
        (
            r#"[{"key": "a", "task_type": "t", "priority": 11}]"#,
            "parts[0].priority",
        ),
    ] {
        let swarm = TestSwarm::new([agent(&format!("echo '{{\"split\": {split}}}'"))]);
        let task = swarm.submit(once());
        let TestEnd::Failed { error } = task.end().await else {
            panic!("{split} was taken")
        };
        assert!(error.contains(words), "{split}: {error}");
    }
}

#[tokio::test]
async fn a_command_answers_what_another_one_asks_the_leader() {
    // Given a command that leads a star and answers questions, and another that asks the leader
    let answering = r#"
read -r task
case "$task" in
*'"task_type":"question"'*Publish*) echo yes ;;
*'"task_type":"question"'*) echo '{"declined": "not for me"}'; exit 1 ;;
*) echo '{"done": true}' ;;
esac
"#;
    let leader = sh(answering).answer_questions();
    let leader = leader.serve(testing::agent().name("leader").capabilities(["lead"]));
    let asking = r#"
read -r task
case "$task" in
*twice*) question=Delete; default='"default": "no",' ;;
*) question=Publish; default= ;;
esac
echo '{"ask": {"question": "'$question' it?", "choices": ["yes", "no"], "answerer": "leader", '$default' "timeout_ms": 2000}}'
read -r answer
echo "{\"answered\": $answer}"
"#;
    let asking = sh(asking).keep_stdin_open();
    let asking = asking.serve(testing::agent().name("asking").capabilities(["ask"]));
    let swarm = TestSwarm::with_topology([leader, asking], Topology::of(TopologyKind::Star));
    // Then its answer is the asker's
    let task = swarm.submit(once().requires(["ask"]));
    let TestEnd::Completed(result) = task.end().await else {
        panic!("{:?}", task.history())
    };
    assert_eq!(result["answered"]["answer"], "yes", "{result}");
    assert!(result["answered"]["by"]["agent"].is_string(), "{result}");
    // What it does not want to answer is left to others: here to the default
    let task = swarm.submit(TestTask::new("twice", json!({})).requires(["ask"]));
    let TestEnd::Completed(result) = task.end().await else {
        panic!("{:?}", task.history())
    };
    assert_eq!(result["answered"], json!({"answer": "no", "by": "default"}));
    // Its tasks are what they were
    let task = swarm.submit(once().requires(["lead"]));
    assert_eq!(task.end().await, TestEnd::Completed(json!({"done": true})));
}
