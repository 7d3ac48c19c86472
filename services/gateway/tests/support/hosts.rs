//! A host's part, played by a test: it claims, launches and reports as the log wants it.

use std::time::Duration;

use serde_json::Value;
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, Json, Place, Subject,
    agent::{Exit, Exited, HostName, Launched, LimitedBy, SpawnClaimed, SpawnRequested},
    command::Join,
    envelope::Source,
    subject::{AgentVerb, CommandVerb},
};
use swarm_gateway::app::App;
use tokio::time::timeout;
use uuid::Uuid;

use super::{PATIENCE, Stage};

pub struct Host<'a> {
    stage: &'a Stage,
    pub name: HostName,
}

impl<'a> Host<'a> {
    pub fn new(stage: &'a Stage, name: &str) -> Self {
        let name = HostName {
            instance: InstanceId(Uuid::now_v7()),
            name: name.to_owned(),
        };
        Self { stage, name }
    }

    /// The request for the agent's first process.
    pub async fn requested(&self, place: Place, agent: AgentId) -> SpawnRequested {
        self.requested_again(place, agent, 0).await
    }

    /// The request after the one with this number.
    pub async fn requested_again(
        &self,
        place: Place,
        agent: AgentId,
        after: u64,
    ) -> SpawnRequested {
        let subject = Subject::Agent(place, AgentVerb::SpawnRequested, agent).to_string();
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let found = async {
            loop {
                look.tick().await;
                let last = self.stage.stored(&subject).await.pop();
                let data = last.map(|event| event["data"].clone());
                let request: Option<SpawnRequested> =
                    data.and_then(|data| serde_json::from_value(data).ok());
                if let Some(request) = request.filter(|request| request.spawn > after) {
                    // The gateway has met it, too.
                    let known = |app: &App| {
                        let fold = app.fold.read();
                        let swarm = fold.swarm(place.org, place.swarm);
                        let managed = swarm.and_then(|s| s.agents.get(&agent)?.managed.as_ref());
                        managed.is_some_and(|managed| managed.spawn >= request.spawn)
                    };
                    self.stage.eventually(known).await;
                    return request;
                }
            }
        };
        timeout(PATIENCE, found)
            .await
            .expect("a process is requested")
    }

    async fn says(&self, place: Place, agent: AgentId, verb: AgentVerb, body: impl Into<Body>) {
        let subject = Subject::Agent(place, verb, agent);
        let source = Source::Host(self.name.instance);
        let id = EventId(Uuid::now_v7());
        let event = Event::new(id, source, App::now(), &subject, agent.0, body);
        let payload = event.to_json().expect("JSON");
        self.stage.publish_raw(&subject.to_string(), &payload).await;
    }

    pub async fn claim(&self, place: Place, agent: AgentId, spawn: u64) {
        let host = self.name.clone();
        self.says(
            place,
            agent,
            AgentVerb::SpawnClaimed,
            SpawnClaimed { spawn, host },
        )
        .await;
    }

    pub async fn launch(&self, place: Place, agent: AgentId, spawn: u64, pid: u32) {
        let launched = Launched {
            spawn,
            host: self.name.clone(),
            pid,
            limited_by: LimitedBy::Nothing,
            unlimited: Vec::new(),
        };
        self.says(place, agent, AgentVerb::Launched, launched).await;
    }

    /// The process ends after 12 ms with this exit code, having written a word.
    pub async fn exit(&self, place: Place, agent: AgentId, spawn: u64, code: i32) {
        let exited = Exited {
            spawn,
            host: self.name.clone(),
            exit: Exit {
                code: Some(code),
                ..Exit::default()
            },
            uptime_ms: 12,
            host_leaving: false,
            left_behind: 0,
            last_output: "oh\n".to_owned(),
        };
        self.says(place, agent, AgentVerb::Exited, exited).await;
    }

    /// The process joins. Answers with its instance.
    pub async fn join(&self, place: Place, agent: AgentId, spawn: u64) -> InstanceId {
        let instance = InstanceId(Uuid::now_v7());
        let join = Join {
            instance,
            agent_type: "analyzer".to_owned(),
            agent_name: None,
            capabilities: Vec::new(),
            slots: None,
            waiting: None,
            metadata: Json::object(),
            spawn: Some(spawn),
        };
        let subject = Subject::Command(place, CommandVerb::Join);
        self.stage.publish(&subject, agent.0, join.into()).await;
        let live = |app: &App| {
            let fold = app.fold.read();
            let swarm = fold.swarm(place.org, place.swarm);
            let agent = swarm.and_then(|swarm| swarm.agents.get(&agent));
            agent.is_some_and(|agent| agent.is_live() && agent.instance == instance)
        };
        self.stage.eventually(live).await;
        instance
    }

    /// All of it: the process is requested, claimed, launched, and joins.
    pub async fn run(&self, place: Place, agent: AgentId) -> InstanceId {
        let spawn = self.requested(place, agent).await.spawn;
        self.claim(place, agent, spawn).await;
        self.launch(place, agent, spawn, 4_711).await;
        self.join(place, agent, spawn).await
    }

    /// The agent at `path`, once it is so.
    pub async fn shown(&self, path: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let mut look = tokio::time::interval(Duration::from_millis(10));
        let shown = async {
            loop {
                look.tick().await;
                let came = self.stage.admin.get(path).await;
                assert_eq!(came.status, 200, "{}", came.body);
                if holds(&came.body) {
                    return came.body;
                }
            }
        };
        timeout(PATIENCE, shown).await.expect("shown in time")
    }
}
