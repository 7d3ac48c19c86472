//! Commands of an agent against a real nats-server: what is taken away is gone from the process table, with its children.

#[path = "../../sdk/tests/support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process, test_kill_process_group},
};
use serde_json::json;
use support::Swarm;
use swarm_agent_adapters::{ExecAdapter, KILL_GRACE};
use swarm_events::{
    Body,
    subject::TaskVerb,
    task::{Carried, WithdrawReason},
};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// A command with a child of its own that ignores SIGTERM and one in a pipe, which tells their ids once all run.
fn script(file: &Path) -> String {
    format!(
        "cat > /dev/null\n(trap '' TERM; while :; do sleep 0.01; done) & stubborn=$!\nsleep 1000 | cat & piped=$!\n\
         echo '{{\"progress\": 10, \"message\": \"begun\"}}'\necho $$ $stubborn $piped > {0}.part && mv {0}.part {0}\nwait\n",
        file.display()
    )
}

fn pid(id: i32) -> Pid {
    Pid::from_raw(id).expect("a process id")
}

async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await; // between looks at the operating system
    }
}

#[tokio::test]
async fn a_command_that_is_taken_away_is_gone_with_all_its_children() {
    let mut swarm = Swarm::new().await;
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("processes");
    let command = ["sh", "-c", &script(&file)].map(str::to_owned).to_vec();
    let work = ExecAdapter::new(command)
        .expect("a command")
        .kill_grace(Duration::from_millis(200));
    let agent = swarm.joined(swarm.builder().any_raw_handler(work)).await;
    for reason in [WithdrawReason::Cancelled, WithdrawReason::NoProgress] {
        let (task, message) = swarm.assignment("work", Carried::Inline(json!({}).into()), 1);
        let assignment = swarm.append(message).await;
        // What it prints about its progress is in the log: that keeps a no-progress limit off.
        let told = swarm
            .until("progress", |r| match &r.event.body {
                Body::TaskProgressed(told) if told.assignment == assignment => {
                    Some((told.percent, told.message.clone()))
                }
                _ => None,
            })
            .await;
        assert_eq!(told, (Some(10), Some("begun".to_owned())));
        let ids = until("the command's processes", || fs::read_to_string(&file).ok()).await;
        let ids: Vec<i32> = ids
            .split_whitespace()
            .map(|id| id.parse().expect("an id"))
            .collect();
        assert_eq!(ids.len(), 3, "{ids:?}");
        for id in &ids {
            assert_eq!(test_kill_process(pid(*id)), Ok(()), "{id} runs");
        }
        let began = Instant::now();
        swarm
            .append(swarm.withdrawal_for(reason, task, assignment, 1, true))
            .await;
        // Not even as a zombie; the group is that of the first.
        until("the end of all of them", || {
            let gone = test_kill_process_group(pid(ids[0])) == Err(Errno::SRCH)
                && ids
                    .iter()
                    .all(|id| test_kill_process(pid(*id)) == Err(Errno::SRCH));
            gone.then_some(())
        })
        .await;
        assert!(began.elapsed() < KILL_GRACE, "{:?}", began.elapsed());
        fs::remove_file(&file).expect("it was there");
        assert_eq!(swarm.count(TaskVerb::AttemptFailed, assignment), 0);
    }
    agent.stop().await.expect("stops");
}
