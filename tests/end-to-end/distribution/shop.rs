//! A swarm with one agent whose work is a script that does whatever a task's type asks for.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Agent, Installation, PATIENCE, Record, eventually, script};

/// What a task's type asks for. A family is a process with a child; both stay until they are killed.
const WORK: &str = r#"#!/bin/sh
line=$(cat)
asked() { case "$line" in *"\"task_type\":\"$1\""*) return 0 ;; esac; return 1; }
if asked broken && ! test -e "DIR/mended"; then
    echo "attempt $SWARM_ATTEMPT met a broken machine" >&2
    exit 3
fi
if asked hopeless; then
    echo '{"error": "there is no such user", "retryable": false}'
    exit 1
fi
if asked family; then
    sleep 1000 &
    echo "$$ $!" > "DIR/new-$SWARM_TASK_ID"
    mv "DIR/new-$SWARM_TASK_ID" "DIR/pids-$SWARM_TASK_ID"
    wait
fi
if asked chatty; then
    for percent in 5 10 15 20 25 30 35 40 45 50 55 60 65 70 75 80 85 90 95 100; do
        echo "{\"progress\": $percent}"
        sleep 0.1
    done
fi
echo '{"ok": true}'
"#;

/// A swarm with an agent of eight slots that does [`WORK`] in a folder of its own.
pub struct Shop {
    /// The swarm.
    pub id: String,
    /// The folder.
    pub dir: PathBuf,
    /// What happened in it.
    pub record: Record,
    _agent: Agent,
}

impl Shop {
    /// Opens one; its name is the swarm's, the folder's and the agent's.
    pub async fn open(swarm: &Installation, name: &str) -> Self {
        let configuration = json!({
            "retry": {"base_ms": 10, "factor_percent": 100, "cap_ms": 10}, "stealing": false,
        });
        let id = swarm.swarm(name, configuration).await;
        let dir = swarm.dir().join(name);
        std::fs::create_dir(&dir).expect("made");
        let text = WORK.replace("DIR", dir.to_str().expect("UTF-8"));
        let work = script(&dir, "work.sh", &text);
        let agent = Agent::start(swarm, &id, name, &["--slots", "8"], &work);
        swarm.until_idle(&id, 1).await;
        let record = Record::of(swarm, &id).await;
        Self {
            id,
            dir,
            record,
            _agent: agent,
        }
    }

    /// Below the address of its tasks.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/swarms/{}/tasks{rest}", self.id)
    }

    /// The task once it is shown as ended in this way.
    pub async fn ended(&self, swarm: &Installation, task: &str, status: &str) -> Value {
        let path = self.path(&format!("/{task}"));
        eventually(&format!("{task} is {status}"), PATIENCE, || async {
            let shown = swarm.get(&path).await;
            (shown["status"] == status).then_some(shown)
        })
        .await
    }

    /// The processes of a task of the type `family`.
    pub async fn family(&self, task: &str) -> Vec<u32> {
        let path = self.dir.join(format!("pids-{task}"));
        let text = eventually("the processes run", PATIENCE, || async {
            std::fs::read_to_string(&path).ok()
        })
        .await;
        let pids = text
            .split_whitespace()
            .map(|pid| pid.parse().expect("a number"));
        let pids: Vec<u32> = pids.collect();
        assert_eq!(pids.len(), 2, "{text}");
        assert!(pids.iter().all(|pid| in_table(*pid)), "{pids:?}");
        pids
    }
}

/// Whether there is a process of this number at all, a zombie included.
fn in_table(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

/// Waits until none of them is in the process table.
pub async fn until_gone(pids: &[u32]) {
    eventually("the processes are gone", PATIENCE, || async {
        (!pids.iter().any(|pid| in_table(*pid))).then_some(())
    })
    .await;
}
