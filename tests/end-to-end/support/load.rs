//! Load with something always under way, and what the log says became of it.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use super::{Installation, PATIENCE, eventually};

/// Work that takes a moment, so that something is always under way.
pub const WORK: &str = "#!/bin/sh\ncat > /dev/null\nsleep 0.02\necho '{\"ok\": true}'\n";

/// Submits until `count` tasks more are stored, the first one as number `from`, through whatever happens to the gateways.
/// The same key is the same task, so a request that had no answer is simply sent again, to any of them.
pub async fn submit(swarm: &Installation, id: &str, from: usize, count: usize) {
    let http = reqwest::Client::new();
    let gateways = swarm.gateways();
    for n in from..from + count {
        let mut turn = 0;
        eventually("a gateway takes the task", PATIENCE, || {
            let gateway = &gateways[turn % gateways.len()];
            turn += 1;
            let request = http
                .post(format!("{gateway}/v1/swarms/{id}/tasks"))
                .bearer_auth(swarm.field("api_key"))
                .header("Idempotency-Key", format!("task-{n}"))
                .json(&json!({"task_type": "t", "payload": {"n": n}, "max_attempts": 20}));
            async move {
                let response = request.send().await.ok()?;
                response.status().is_success().then_some(())
            }
        })
        .await;
    }
}

/// How often each task ended, by the log. Void ends are among them.
pub async fn ends(swarm: &Installation, id: &str) -> BTreeMap<String, Vec<String>> {
    let mut ends: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in swarm.replay(&["--swarm", id]).await {
        let kind = line["event"]["type"].as_str().unwrap_or_default();
        if ["completed", "failed", "cancelled", "rejected"]
            .iter()
            .any(|end| kind == format!("swarm.task.{end}.v1"))
        {
            let task = line["event"]["subject"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            ends.entry(task).or_default().push(kind.to_owned());
        }
    }
    ends
}

/// How many completions the log holds; `None` while it cannot be read.
pub async fn try_completions(swarm: &Installation, id: &str) -> Option<usize> {
    let lines = swarm
        .try_replay(&["--swarm", id, "--type", "task.completed"])
        .await?;
    Some(lines.len())
}

/// How many completions the log holds.
pub async fn completions(swarm: &Installation, id: &str) -> usize {
    eventually("the log can be read", PATIENCE, || {
        try_completions(swarm, id)
    })
    .await
}

/// Waits until `count` more tasks have completed than at the moment.
pub async fn until_more_complete(swarm: &Installation, id: &str, count: usize) {
    let before = completions(swarm, id).await;
    eventually("tasks complete", PATIENCE, || async {
        (try_completions(swarm, id).await? >= before + count).then_some(())
    })
    .await;
}

/// Tasks that are open at any time under [`under_load`], about.
const OPEN: usize = 40;

/// Keeps the swarm busy while `trouble` does its work, and answers with how many tasks have been submitted in the end.
/// `from` were before.
pub async fn under_load(
    swarm: &Installation,
    id: &str,
    from: usize,
    trouble: impl Future<Output = ()>,
) -> usize {
    let over = CancellationToken::new();
    let load = async {
        let mut submitted = from;
        while !over.is_cancelled() {
            submit(swarm, id, submitted, OPEN / 2).await;
            submitted += OPEN / 2;
            eventually(
                "tasks complete, or the trouble is over",
                3 * PATIENCE,
                || async {
                    let enough = try_completions(swarm, id).await? + OPEN > submitted;
                    (enough || over.is_cancelled()).then_some(())
                },
            )
            .await;
        }
        submitted
    };
    let trouble = async {
        let _over = over.clone().drop_guard();
        until_more_complete(swarm, id, 5).await;
        trouble.await;
    };
    tokio::join!(load, trouble).0
}

/// Every one of `total` tasks has completed, and has one valid end. Results of attempts that no longer stood are void and
/// shown as such.
pub async fn assert_each_completed_once(swarm: &Installation, id: &str, total: usize) {
    let tasks = swarm.until_ended(id, total, 3 * PATIENCE).await;
    let other: Vec<&Value> = tasks
        .iter()
        .filter(|task| task["status"] != "completed")
        .collect();
    assert!(other.is_empty(), "{other:?}");
    let valid = format!(
        "SELECT count(*) FROM swarm_events WHERE swarm_id = '{id}' \
         AND event_type IN ('task_completed', 'task_failed', 'task_cancelled', 'task_rejected')"
    );
    let ended = super::count(swarm.field("database_url"), &valid).await;
    assert_eq!(ended, i64::try_from(total).expect("small"));
    assert_eq!(ends(swarm, id).await.len(), total);
}
