//! A swarm whose agents a host runs, and what a scene asks of them.

use serde_json::{Value, json};

use crate::support::{Installation, PATIENCE, Record, eventually};

/// A swarm, and what happened in it.
pub struct Crew<'a> {
    pub swarm: &'a Installation,
    /// The swarm's id.
    pub id: String,
    pub record: Record,
}

impl<'a> Crew<'a> {
    /// A swarm of this name.
    pub async fn of(swarm: &'a Installation, name: &str, configuration: Value) -> Self {
        let id = swarm.swarm(name, configuration).await;
        let record = Record::of(swarm, &id).await;
        Self { swarm, id, record }
    }

    /// Below its address.
    pub fn path(&self, rest: &str) -> String {
        format!("/v1/swarms/{}{rest}", self.id)
    }

    /// Adds one agent and answers with its id.
    pub async fn add(&self, spec: Value) -> String {
        let added = self.swarm.post(&self.path("/agents"), &spec).await;
        assert!(
            matches!(
                added["status"].as_str(),
                Some("pending" | "starting" | "idle")
            ),
            "{added}"
        );
        added["id"].as_str().expect("an id").to_owned()
    }

    /// Adds an agent whose command is run for each task.
    pub async fn exec(&self, name: &str, script: &str) -> String {
        self.add(json!({
            "agent_type": "exec", "agent_name": name, "adapter": "exec",
            "command": ["/bin/sh", "-c", script],
        }))
        .await
    }

    /// Adds an agent that is this script.
    pub async fn process(&self, name: &str, script: &str, restart: Value) -> String {
        self.add(json!({
            "agent_type": "script", "agent_name": name, "adapter": "process",
            "command": ["/bin/sh", "-c", script], "restart": restart,
        }))
        .await
    }

    /// The agent as it is shown once it is shown like this.
    pub async fn shown(&self, agent: &str, what: &str, like: impl Fn(&Value) -> bool) -> Value {
        let path = self.path(&format!("/agents/{agent}"));
        eventually(&format!("agent {agent} is {what}"), PATIENCE, || async {
            let (status, shown) = self
                .swarm
                .request(reqwest::Method::GET, &path, None)
                .await?;
            (status == 200 && like(&shown)).then_some(shown)
        })
        .await
    }

    /// The same by its status.
    pub async fn in_status(&self, agent: &str, status: &str) -> Value {
        self.shown(agent, status, |shown| shown["status"] == status)
            .await
    }

    /// Its process once it is idle.
    pub async fn idle(&self, agent: &str) -> u32 {
        let shown = self.in_status(agent, "idle").await;
        pid(&shown["pid"])
    }

    /// The next process of the agent that is launched behind a sequence: the sequence and the process id.
    pub async fn launched_after(&mut self, after: u64, agent: &str) -> (u64, u32) {
        let (at, launched) = self.record.agent_after(after, "launched", agent).await;
        (at, pid(&launched["data"]["pid"]))
    }

    /// Hands in a task and answers with its id.
    pub async fn task(&self, payload: Value) -> String {
        let task = json!({"task_type": "work", "payload": payload});
        self.swarm.task(&self.id, task).await
    }

    /// Takes an agent out.
    pub async fn delete(&self, agent: &str, query: &str) -> Value {
        let path = self.path(&format!("/agents/{agent}{query}"));
        let answer = self
            .swarm
            .request(reqwest::Method::DELETE, &path, None)
            .await;
        let (status, shown) = answer.expect("answers");
        assert_eq!(status, 200, "{shown}");
        shown
    }

    /// What is refused: the status, and the problem that must name this field.
    pub async fn refused(&self, rest: &str, body: Value, field: &str) -> Value {
        let (status, problem) = self
            .swarm
            .request(reqwest::Method::POST, &self.path(rest), Some(&body))
            .await
            .expect("answers");
        assert!((400..500).contains(&status), "{body}: {status} {problem}");
        let told = problem.to_string();
        assert!(told.contains(field), "{body} names no {field}: {problem}");
        problem
    }

    /// The swarm's status once it is this.
    pub async fn until_status(&self, status: &str) -> Value {
        let path = self.path("");
        eventually(&format!("the swarm is {status}"), PATIENCE, || async {
            let shown = self.swarm.get(&path).await;
            (shown["status"] == status).then_some(shown)
        })
        .await
    }
}

fn pid(value: &Value) -> u32 {
    value
        .as_u64()
        .and_then(|pid| u32::try_from(pid).ok())
        .unwrap_or_else(|| panic!("no process id: {value}"))
}

/// Waits until none of these processes is in the process table, not even as a zombie.
pub async fn until_gone(pids: &[u32]) {
    eventually("the processes are gone", PATIENCE, || async {
        let there = |pid: &u32| std::path::Path::new(&format!("/proc/{pid}")).exists();
        (!pids.iter().any(there)).then_some(())
    })
    .await;
}

/// Every process whose environment names this nats-server: agents, and what they have started.
pub fn processes_of(nats_url: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").expect("readable").flatten() {
        let environment = std::fs::read(entry.path().join("environ")).unwrap_or_default();
        let of_it = |variable: &[u8]| {
            variable.starts_with(b"SWARM_") && variable.ends_with(nats_url.as_bytes())
        };
        if environment.split(|byte| *byte == 0).any(of_it) {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            found.push(String::from_utf8_lossy(&line).replace('\0', " "));
        }
    }
    found
}
