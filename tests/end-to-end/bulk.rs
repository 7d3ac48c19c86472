//! Files with a task on each line: interrupted, taken up again, refused, held up by a full queue; and orders about many tasks.

use std::{
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::process::Child;

use crate::support::{Agent, Installation, PATIENCE, count, eventually, kill, said, script, swarm};

/// Lines of the file that is interrupted: as many chunks as are surely not all sent before the interruption is.
const LINES: u64 = 20_000;
/// Lines of its chunks.
const CHUNK: &str = "100";

fn lines(from: u64, count: u64) -> String {
    let line = |n| {
        format!(
            "{{\"task_type\":\"t\",\"payload\":{{\"n\":{n}}},\"priority\":{}}}\n",
            n % 10 + 1
        )
    };
    (from..from + count).map(line).collect()
}

fn write(swarm: &Installation, name: &str, text: &str) -> String {
    let path = swarm.dir().join(name);
    std::fs::write(&path, text).expect("written");
    path.display().to_string()
}

/// What the progress file of the one submission under way says, while there is one.
fn progress(data: &Path) -> Option<Value> {
    let entries = std::fs::read_dir(data.join("submissions")).ok()?;
    let files: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|e| e == "json"))
        .collect();
    let [file] = &files[..] else { return None };
    serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()
}

/// Starts the submission and waits until some chunks more are acknowledged than before.
async fn begun(installation: &Installation, args: &[&str]) -> Child {
    let chunks = || progress(&installation.data())?["acknowledged"]["chunks"].as_u64();
    let before = chunks().unwrap_or(0);
    let mut child = swarm(&installation.data())
        .args(args)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    // Looked at without a pause: it must be met in the middle.
    let deadline = tokio::time::Instant::now() + PATIENCE;
    while chunks().unwrap_or(0) < before + 10 {
        let ended = child.try_wait().expect("ours");
        assert!(
            ended.is_none(),
            "it was over before it could be interrupted: {ended:?}"
        );
        assert!(
            tokio::time::Instant::now() < deadline,
            "nothing is acknowledged"
        );
        tokio::task::yield_now().await;
    }
    child
}

/// A count over the swarm's tasks, by the read model.
async fn stored(swarm: &Installation, id: &str, what: &str) -> i64 {
    let query = format!("SELECT {what} FROM swarm_tasks WHERE swarm_id = '{id}'");
    count(swarm.field("database_url"), &query).await
}

/// Waits until the read model holds `total` tasks, and checks that each line is one of them.
async fn each_line_once(swarm: &Installation, id: &str, total: u64) {
    let total = i64::try_from(total).expect("small");
    eventually("the read model has all tasks", PATIENCE, || async {
        (stored(swarm, id, "count(*)").await >= total).then_some(())
    })
    .await;
    assert_eq!(stored(swarm, id, "count(*)").await, total);
    let different = stored(swarm, id, "count(DISTINCT payload ->> 'n')").await;
    assert_eq!(different, total, "each line is one task");
    let open = stored(swarm, id, "count(*) FILTER (WHERE status = 'queued')").await;
    assert_eq!(open, total, "and none of them has ended");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_submission_that_is_killed_goes_on_where_it_stopped_and_each_line_is_one_task() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("bulk", json!({})).await;
    let file = write(&swarm, "tasks.jsonl", &lines(0, LINES));
    let ids = swarm.dir().join("ids").display().to_string();
    let submit = [
        "task",
        "submit",
        "bulk",
        "--file",
        &file,
        "--chunk-lines",
        CHUNK,
        "--ids",
        &ids,
    ];

    let mut first = begun(&swarm, &submit).await;
    kill(first.id().expect("it runs"), Signal::KILL);
    first.wait().await.expect("ours");
    let after_kill =
        progress(&swarm.data()).expect("it can be taken up")["acknowledged"]["lines"].clone();

    let second = begun(&swarm, &submit).await;
    kill(second.id().expect("it runs"), Signal::INT);
    let second = second.wait_with_output().await.expect("ours");
    let words = said(&second);
    assert_eq!(second.status.code(), Some(1), "{words}");
    assert!(
        words.contains("interrupted") && words.contains("run the same command again"),
        "{words}"
    );
    assert!(
        words.contains(&format!("going on behind line {after_kill}")),
        "{words}"
    );

    // And once with no memory of what was acknowledged: the keys alone keep it from being stored twice.
    let mut third = begun(&swarm, &submit).await;
    kill(third.id().expect("it runs"), Signal::KILL);
    third.wait().await.expect("ours");
    std::fs::remove_dir_all(swarm.data().join("submissions")).expect("ours");
    std::fs::remove_file(&ids).expect("ours");

    let done = swarm.cli_json(&submit).await;
    assert_eq!(
        (&done["tasks"], &done["lines"]),
        (&json!(LINES), &json!(LINES)),
        "{done}"
    );
    assert!(progress(&swarm.data()).is_none(), "nothing is left behind");
    each_line_once(&swarm, &id, LINES).await;
    let mut named: Vec<String> = std::fs::read_to_string(&ids)
        .expect("there")
        .lines()
        .map(str::to_owned)
        .collect();
    named.sort();
    named.dedup();
    assert_eq!(named.len() as u64, LINES);

    // The whole file again, by a pipe, is the same submission.
    let again = swarm_with_stdin(
        &swarm,
        &[
            "task",
            "submit",
            "bulk",
            "--file",
            "-",
            "--chunk-lines",
            CHUNK,
        ],
        &lines(0, LINES),
    )
    .await;
    assert!(again.status.success(), "{}", said(&again));
    each_line_once(&swarm, &id, LINES).await;
    let audit = swarm.cli(&["audit", "--read-model"]).await;
    assert!(audit.status.success(), "{}", said(&audit));
}

async fn swarm_with_stdin(
    installation: &Installation,
    args: &[&str],
    text: &str,
) -> std::process::Output {
    use tokio::io::AsyncWriteExt;
    let mut child = swarm(&installation.data())
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut stdin = child.stdin.take().expect("a pipe");
    stdin.write_all(text.as_bytes()).await.expect("it reads");
    drop(stdin);
    child.wait_with_output().await.expect("ours")
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_lines_stop_a_file_before_anything_is_stored_or_are_kept_apart() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("lines", json!({})).await;
    let bad = r#"{"task_type":"t","payload":{},"priority":11}"#;
    let file = write(
        &swarm,
        "bad.jsonl",
        &format!("{}{bad}\n{}nonsense", lines(0, 5), lines(5, 5)),
    );
    let refused = swarm
        .cli(&["task", "submit", "lines", "--file", &file])
        .await;
    let words = said(&refused);
    assert_eq!(refused.status.code(), Some(1), "{words}");
    for part in ["line 6", "priority", "1 to 10", "1 more"] {
        assert!(words.contains(part), "{part}: {words}");
    }
    let apart = swarm.dir().join("apart").display().to_string();
    let taken = swarm
        .cli_json(&[
            "task",
            "submit",
            "lines",
            "--file",
            &file,
            "--skip-invalid",
            &apart,
        ])
        .await;
    assert_eq!(
        (&taken["tasks"], &taken["left_out"]),
        (&json!(10), &json!(2)),
        "{taken}"
    );
    each_line_once(&swarm, &id, 10).await;
    let kept = std::fs::read_to_string(&apart).expect("there");
    let numbers: Vec<Value> = kept
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["line"].clone())
        .collect();
    assert_eq!(numbers, [json!(6), json!(12)], "{kept}");
    let unknown = swarm
        .cli(&["task", "submit", "nobody", "--file", &file])
        .await;
    assert_eq!(unknown.status.code(), Some(3), "{}", said(&unknown));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_waits_for_room_in_a_short_queue_and_every_task_is_done() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("short", json!({"queue_limit": 40})).await;
    let work = script(
        swarm.dir(),
        "work.sh",
        "#!/bin/sh\ncat > /dev/null\necho '{}'\n",
    );
    let _agent = Agent::start(&swarm, &id, "a", &["--slots", "4"], &work);
    swarm.until_idle(&id, 1).await;
    let file = write(&swarm, "tasks.jsonl", &lines(0, 200));
    let output = swarm
        .cli(&["task", "submit", "short", "--file", &file])
        .await;
    assert!(output.status.success(), "{}", said(&output));
    assert!(
        said(&output).contains("waiting 1 s"),
        "it says what it waits for: {}",
        said(&output)
    );
    let tasks = swarm.until_ended(&id, 200, Duration::from_secs(120)).await;
    let other: Vec<&Value> = tasks
        .iter()
        .filter(|task| task["status"] != "completed")
        .collect();
    assert!(other.is_empty(), "{other:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tasks_are_called_off_retried_and_put_away_each_with_its_own_outcome() {
    let swarm = Installation::start().await;
    let id = swarm.swarm("many", json!({})).await;
    let file = write(&swarm, "tasks.jsonl", &lines(0, 1_500));
    let ids = swarm.dir().join("ids").display().to_string();
    swarm
        .cli_json(&["task", "submit", "many", "--file", &file, "--ids", &ids])
        .await;
    // More than go into one request; one of them is unknown.
    let strange = "0190f7a0-0000-7000-8000-000000000001";
    let named = std::fs::read_to_string(&ids).expect("there");
    std::fs::write(&ids, format!("{named}{strange}\n")).expect("ours");
    let cancelled = swarm
        .cli(&[
            "task", "cancel", "--swarm", "many", "--file", &ids, "--reason", "r", "-o", "json",
        ])
        .await;
    assert_eq!(
        cancelled.status.code(),
        Some(1),
        "one is unknown: {}",
        said(&cancelled)
    );
    let items: Value = serde_json::from_slice(&cancelled.stdout).expect("JSON");
    let items = items["items"].as_array().expect("items").clone();
    let good = items
        .iter()
        .filter(|item| item["status"] == "cancelled")
        .count();
    assert_eq!((items.len(), good), (1_501, 1_500));
    let unknown = items
        .iter()
        .find(|item| item["id"] == strange)
        .expect("named");
    assert_eq!(unknown["problem"]["status"], 404, "{unknown}");
    assert_eq!(
        swarm
            .cli(&["task", "cancel", "--swarm", "many", strange])
            .await
            .status
            .code(),
        Some(3)
    );
    assert_eq!(
        swarm.cli(&["task", "cancel", strange]).await.status.code(),
        Some(3)
    );

    // A graph as a whole.
    let graph = json!({"tasks": [
        {"key": "a", "task_type": "t", "payload": {}},
        {"key": "b", "task_type": "t", "payload": {}, "depends_on": [{"key": "a", "dependency_type": "success"}]}]});
    let made = swarm.post(&format!("/v1/swarms/{id}/tasks"), &graph).await;
    let graph = made["graph_id"].as_str().expect("a graph").to_owned();
    let off = swarm
        .cli_json(&["task", "cancel", "--swarm", "many", "--graph", &graph])
        .await;
    assert_eq!(
        (&off["graph_id"], &off["tasks"]),
        (&json!(graph), &json!(2)),
        "{off}"
    );

    // Dead letters.
    let fails = script(
        swarm.dir(),
        "fails.sh",
        "#!/bin/sh\ncat > /dev/null\necho '{\"error\": \"no such user\", \"retryable\": false}'\nexit 1\n",
    );
    let _agent = Agent::start(
        &swarm,
        &id,
        "a",
        &["--slots", "4", "--capability", "x"],
        &fails,
    );
    let dead: Vec<Value> = (0..30)
        .map(|n| json!({"task_type": "d", "payload": {"n": n}, "required_capabilities": ["x"], "max_attempts": 5}))
        .collect();
    let made = swarm
        .post(
            &format!("/v1/swarms/{id}/tasks/bulk"),
            &json!({ "tasks": dead }),
        )
        .await;
    let one = made["items"][0]["id"].as_str().expect("an id").to_owned();
    let listed = |wanted: usize| {
        let swarm = &swarm;
        async move {
            eventually("dead letters are listed", PATIENCE, || async {
                let dead = swarm.cli_json(&["task", "dead", "many"]).await["items"].take();
                (dead.as_array()?.len() == wanted).then_some(dead)
            })
            .await
        }
    };
    let letters = listed(30).await;
    assert_eq!(
        letters[0]["error_message"]
            .as_str()
            .map(|e| e.contains("no such user")),
        Some(true),
        "{letters}"
    );
    assert_eq!(
        letters[0]["attempt_count"], 1,
        "it was not retryable: {letters}"
    );

    let unasked = swarm
        .cli(&["task", "discard", "--swarm", "many", "--dead"])
        .await;
    assert_eq!(unasked.status.code(), Some(2), "{}", said(&unasked));
    let retried = swarm.cli(&["task", "retry", &one]).await;
    assert!(retried.status.success(), "{}", said(&retried));
    eventually("it died again", PATIENCE, || async {
        let shown = swarm.cli_json(&["task", "show", &one]).await;
        (shown["generation"] == 2 && shown["status"] == "failed").then_some(())
    })
    .await;
    let shown = swarm.cli(&["task", "show", &one]).await;
    let words = said(&shown);
    assert!(
        words.contains("GENERATION") && words.matches("no such user").count() >= 2,
        "every attempt: {words}"
    );

    let discarded = swarm
        .cli_json(&["task", "discard", "--swarm", "many", "--dead", "--yes"])
        .await;
    assert_eq!(
        discarded["items"].as_array().map(Vec::len),
        Some(30),
        "{discarded}"
    );
    listed(0).await;
    let again = swarm.cli(&["task", "retry", &one]).await;
    assert_eq!(
        again.status.code(),
        Some(1),
        "it is put away: {}",
        said(&again)
    );

    let explained = swarm.cli(&["explain", &one]).await;
    assert!(
        explained.status.success() && said(&explained).contains("failed"),
        "{}",
        said(&explained)
    );
    let agents = swarm.cli(&["agent", "list", "many"]).await;
    assert!(said(&agents).contains("TASKS"), "{}", said(&agents));
    let figures = swarm.cli(&["metrics", "many"]).await;
    assert!(said(&figures).contains("steals"), "{}", said(&figures));
    let limited = swarm
        .cli_json(&["org", "set", "--queue-limit", "500000"])
        .await;
    assert_eq!(limited["queue_limit"], 500_000, "{limited}");
    let free = swarm
        .cli_json(&["org", "set", "--queue-limit", "none"])
        .await;
    assert_eq!(free["queue_limit"], Value::Null, "{free}");
}
