//! A swarm of agents that hosts run: every phase of a process, quarantine, going, scaling, and a declined task.

use serde_json::json;
use swarm_events::{
    AgentId, InstanceId, Json, Partition, Place, Problem, Service, Subject, SwarmId, TaskId,
    agent::{
        self, Adapter, AgentSpec, Cause, Evidence, Exit, Figures, HostName, LimitedBy,
        LivenessRule, RestartPolicy, SpawnReason, StopThen,
    },
    envelope::Source,
    subject::{AgentVerb, SwarmVerb, TaskVerb},
    swarm::{self, Outcomes},
    task,
};

use super::{START, Script, id, submission};

/// Works, and is quarantined.
pub const UNFIT: AgentId = AgentId(id(111));
/// Crashed, and is started again later.
pub const CRASHED: AgentId = AgentId(id(112));
/// A place for a process that is started by hand.
pub const SLOT: AgentId = AgentId(id(113));
/// Its process runs, and has not joined.
pub const STARTING: AgentId = AgentId(id(114));
/// Crashed too often.
pub const LOOPING: AgentId = AgentId(id(115));
/// Told to go.
pub const GOING: AgentId = AgentId(id(116));
/// Gone.
pub const GONE: AgentId = AgentId(id(117));
/// No host has taken it, one has declined.
pub const DECLINED: AgentId = AgentId(id(118));
/// Its host was lost before it started.
pub const LOST: AgentId = AgentId(id(119));
/// The task that is declined.
pub const TASK: TaskId = TaskId(id(1_020));

/// What `scale` added, in one event.
pub fn scaled() -> Vec<AgentId> {
    (0..5).map(|number| AgentId(id(130 + number))).collect()
}

pub fn place(s: &Script) -> Place {
    Place::new(s.org, SwarmId(id(78)))
}

pub fn host(number: u128) -> HostName {
    HostName {
        instance: InstanceId(id(40 + number)),
        name: format!("host \0 {number}"),
    }
}

fn spec(agent: AgentId) -> AgentSpec {
    AgentSpec {
        agent_type: "counter".to_owned(),
        agent_name: Some(format!("managed {}", agent.0.as_u128() & 0xffff)),
        capabilities: vec!["count".to_owned()],
        adapter: Some(Adapter::Exec),
        command: vec!["wc".to_owned(), "-l".to_owned()],
        url: None,
        slots: Some(2),
        waiting: Some(1),
        env: [("LANG".to_owned(), "C \0".to_owned())].into(),
        pass_env: Vec::new(),
        working_dir: None,
        restart: RestartPolicy {
            crash_limit: 2,
            ..RestartPolicy::default()
        },
        limits: agent::ResourceLimits::default(),
        metadata: Json::from(json!({"of": "the spec"})),
    }
}

fn figures(value: u64, limit: u64, attempts: u64) -> Figures {
    Figures {
        value,
        limit,
        attempts,
    }
}

impl Script {
    async fn by_host(
        &mut self,
        verb: AgentVerb,
        agent: AgentId,
        host: &HostName,
        body: impl Into<swarm_events::Body>,
    ) -> u64 {
        let subject = Subject::Agent(self.place, verb, agent);
        self.by(Source::Host(host.instance), subject, agent.0, body)
            .await
    }

    async fn add(&mut self, agent: AgentId, spec: AgentSpec) -> u64 {
        let reason = "by order".to_owned();
        let added = agent::Added { spec, reason };
        self.by_agent_subject(AgentVerb::Added, agent, added).await
    }

    async fn request(&mut self, agent: AgentId, spawn: u64, reason: SpawnReason) {
        let requested = agent::SpawnRequested {
            spawn,
            reason,
            crashes: 0,
            spec: spec(agent),
            grace_ms: 30_000,
        };
        self.by_agent_subject(AgentVerb::SpawnRequested, agent, requested)
            .await;
    }

    async fn claim_spawn(&mut self, agent: AgentId, spawn: u64, host: &HostName) {
        let claimed = agent::SpawnClaimed {
            spawn,
            host: host.clone(),
        };
        self.by_host(AgentVerb::SpawnClaimed, agent, host, claimed)
            .await;
    }

    async fn launch(&mut self, agent: AgentId, spawn: u64, host: &HostName) {
        let launched = agent::Launched {
            spawn,
            host: host.clone(),
            pid: 4_000_000_000,
            limited_by: LimitedBy::Rlimit,
            unlimited: vec!["cpu_percent".to_owned()],
        };
        self.by_host(AgentVerb::Launched, agent, host, launched)
            .await;
    }

    /// From `added` to `launched` at host 1.
    async fn launched(&mut self, agent: AgentId) {
        self.add(agent, spec(agent)).await;
        self.request(agent, 1, SpawnReason::Added).await;
        self.claim_spawn(agent, 1, &host(1)).await;
        self.launch(agent, 1, &host(1)).await;
    }

    async fn exit(&mut self, agent: AgentId, spawn: u64) {
        let exited = agent::Exited {
            spawn,
            host: host(1),
            exit: Exit {
                code: Some(3),
                ..Exit::default()
            },
            uptime_ms: 12,
            host_leaving: false,
            left_behind: 0,
            last_output: "no such \0 file\n".to_owned(),
        };
        self.by_host(AgentVerb::Exited, agent, &host(1), exited)
            .await;
    }

    async fn stop(&mut self, agent: AgentId) {
        let stopping = agent::Stopping {
            incarnation: 1,
            spawn: 1,
            grace_ms: 5_000,
            then: StopThen::Remove,
            reason: "not needed".to_owned(),
        };
        self.by_agent_subject(AgentVerb::Stopping, agent, stopping)
            .await;
    }
}

/// Writes it all into a swarm of its own.
pub async fn managed(s: &mut Script) {
    let home = s.place;
    s.place = place(s);
    for service in [Service::Coordinator, Service::Distributor, Service::Health] {
        if !s.is_claimed(service, Partition::of(s.place.swarm.0)) {
            s.claim(service, s.place.partition).await;
        }
    }
    s.swarm(s.place, "managed").await;

    s.launched(UNFIT).await;
    s.join_as(UNFIT, 1, spec_profile(UNFIT)).await;
    // Another host's claim comes too late.
    s.claim_spawn(UNFIT, 1, &host(2)).await;

    s.launched(CRASHED).await;
    s.exit(CRASHED, 1).await;

    let by_hand = AgentSpec {
        adapter: None,
        command: Vec::new(),
        slots: None,
        ..spec(SLOT)
    };
    s.add(SLOT, by_hand).await;

    s.launched(STARTING).await;

    s.launched(LOOPING).await;
    s.exit(LOOPING, 1).await;
    s.pass(60_000);
    s.request(LOOPING, 2, SpawnReason::Exited).await;
    s.claim_spawn(LOOPING, 2, &host(1)).await;
    s.launch(LOOPING, 2, &host(1)).await;
    s.exit(LOOPING, 2).await;
    let looping = agent::CrashLooping {
        spawn: 2,
        crashes: 2,
        exit: Exit {
            code: Some(3),
            ..Exit::default()
        },
    };
    s.by_agent_subject(AgentVerb::CrashLooping, LOOPING, looping)
        .await;

    for leaving in [GOING, GONE] {
        s.launched(leaving).await;
        s.join_as(leaving, 1, spec_profile(leaving)).await;
    }
    let mut profile = spec_profile(GOING);
    profile.capabilities.push("sum".to_owned());
    let updated = agent::Updated {
        incarnation: 1,
        profile,
    };
    s.by_agent_subject(AgentVerb::Updated, GOING, updated).await;

    // Declined after its start: it is no attempt. Another agent has it then.
    s.submit(TASK, submission()).await;
    let first = s.assign(TASK, UNFIT, 1).await;
    s.start(TASK, UNFIT, first).await;
    let declined = task::Declined {
        assignment: first,
        incarnation: 1,
        reason: "not \0 mine".to_owned(),
    };
    s.by_agent(TaskVerb::Declined, UNFIT, TASK, declined).await;
    let second = s.assign(TASK, GOING, 1).await;
    s.start(TASK, GOING, second).await;

    s.stop(GOING).await;
    s.stop(GONE).await;
    let left = agent::Left {
        incarnation: 1,
        reason: "drained".to_owned(),
    };
    s.by_agent_subject(AgentVerb::Left, GONE, left).await;
    s.exit(GONE, 1).await;

    s.add(DECLINED, spec(DECLINED)).await;
    s.request(DECLINED, 1, SpawnReason::Added).await;
    let refusal = agent::SpawnDeclined {
        spawn: 1,
        host: host(2),
        problem: Problem::new("not-allowed", "wc is not on the list of allowed programs"),
    };
    s.by_host(AgentVerb::SpawnDeclined, DECLINED, &host(2), refusal)
        .await;

    s.add(LOST, spec(LOST)).await;
    s.request(LOST, 1, SpawnReason::Added).await;
    s.claim_spawn(LOST, 1, &host(2)).await;
    let failed = agent::HostFailed {
        spawn: 1,
        host: host(2),
        evidence: Evidence {
            rule: LivenessRule::Disconnected,
            last_heartbeat_at: None,
            age_ms: 700,
            limit_ms: 500,
        },
    };
    s.by_agent_subject(AgentVerb::HostFailed, LOST, failed)
        .await;

    quarantines(s).await;
    let scaled = swarm::Scaled {
        before: 7,
        desired: 12,
        like: Some(UNFIT),
        add: scaled(),
        remove: Vec::new(),
        reason: "by order".to_owned(),
    };
    s.decide(
        Subject::Swarm(s.place, SwarmVerb::Scaled),
        s.place.swarm.0,
        scaled,
    )
    .await;
    outcomes(s).await;
    s.place = home;
}

/// One cause comes and goes, two stay.
async fn quarantines(s: &mut Script) {
    let until = swarm_events::Timestamp::from_micros(START + 3_600_000_000);
    for (cause, figures, until) in [
        (Cause::Memory, figures(2_048, 1_024, 0), None),
        (Cause::FastFailures, figures(5, 5, 5), Some(until)),
        (Cause::ErrorRate, figures(85, 80, 20), None),
    ] {
        let quarantined = agent::Quarantined {
            incarnation: 1,
            cause,
            figures,
            until,
        };
        s.by_agent_subject(AgentVerb::Quarantined, UNFIT, quarantined)
            .await;
    }
    let released = agent::Released {
        incarnation: 1,
        cause: Cause::Memory,
        figures: figures(512, 1_024, 0),
    };
    s.by_agent_subject(AgentVerb::Released, UNFIT, released)
        .await;
}

/// Figures by type and capability; those that did not move are left out of the second measurement.
async fn outcomes(s: &mut Script) {
    let counts = |completed, failed| Outcomes { completed, failed };
    let first = swarm::Measured {
        completed: 9,
        types: [
            ("count".to_owned(), counts(6, 2)),
            ("su\0m".to_owned(), counts(1, 0)),
        ]
        .into(),
        capabilities: [("count".to_owned(), counts(7, 2))].into(),
        ..swarm::Measured::default()
    };
    let second = swarm::Measured {
        completed: 10,
        types: [("count".to_owned(), counts(7, 3))].into(),
        ..swarm::Measured::default()
    };
    for measured in [first, second] {
        let subject = Subject::Swarm(s.place, SwarmVerb::Measured);
        s.decide(subject, s.place.swarm.0, measured).await;
    }
}

/// What a process of the agent says of itself when it joins.
fn spec_profile(agent: AgentId) -> agent::Profile {
    let spec = spec(agent);
    agent::Profile {
        agent_type: spec.agent_type,
        agent_name: spec.agent_name.unwrap_or_default(),
        capabilities: spec.capabilities,
        slots: 2,
        waiting: 1,
        metadata: spec.metadata,
    }
}
