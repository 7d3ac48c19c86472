//! A log with a bit of everything.

use serde_json::json;
use swarm_events::{
    AgentId, GraphId, Json, Place, Service, Subject, SwarmId, TaskId, Timestamp,
    agent::{self, Evidence, LivenessRule},
    configuration::Configuration,
    subject::{AgentVerb, SwarmVerb, TaskVerb},
    swarm,
    task::{self, Carried, Dependency, DependencyType, GraphPart, Submitted},
};
use swarm_projections::projector::Pace;

use super::{START, Script, id, instance, submission};

pub const A1: AgentId = AgentId(id(101));
pub const A2: AgentId = AgentId(id(102));

pub fn task(number: u128) -> TaskId {
    TaskId(id(1_000 + number))
}

fn evidence() -> Evidence {
    Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 3_000,
        limit_ms: 2_000,
    }
}

fn sample(agent: AgentId, incarnation: u64, cpu: u32) -> swarm::AgentSample {
    swarm::AgentSample {
        instance: instance(agent, incarnation),
        status: "idle".to_owned(),
        last_heartbeat_at: Timestamp::from_micros(START + 5_000_000),
        cpu_centipercent: cpu,
        memory_kib: 2_048,
        active_connections: 2,
        queue_depth: 0,
        current_tasks: Vec::new(),
    }
}

/// A bit of everything: every kind of row, every kind of end, and what must not be.
pub async fn everything() -> Script {
    let mut s = Script::new().await;
    s.join(A1, 1, 2).await;
    s.join(A2, 1, 1).await;

    s.whole_task(task(1), A1).await;
    // A repeat with the same content is nothing, one with other content is refused; neither touches the first.
    s.submit(task(1), submission()).await;
    s.submit(
        task(1),
        Submitted {
            task_type: "other".to_owned(),
            ..submission()
        },
    )
    .await;

    // A graph: 3 needs 2; what PostgreSQL cannot hold is in its payload and its result.
    let part = |index| {
        Some(GraphPart {
            id: GraphId(id(50)),
            index,
            of: 2,
        })
    };
    let odd = Json::parse(r#"{"nul":"\u0000","half":"\ud800","big":1e99999}"#).expect("is JSON");
    s.submit(
        task(2),
        Submitted {
            payload: odd.clone(),
            graph: part(0),
            key: Some("a".to_owned()),
            ..submission()
        },
    )
    .await;
    let needs = Dependency {
        task_id: task(2),
        dependency_type: DependencyType::Data,
        alias: Some("two".to_owned()),
    };
    s.submit(
        task(3),
        Submitted {
            depends_on: vec![needs],
            graph: part(1),
            ..submission()
        },
    )
    .await;
    s.by_distributor(
        TaskVerb::GraphAccepted,
        None,
        id(50),
        task::GraphAccepted { tasks: 2 },
    )
    .await;
    let assignment = s.assign(task(2), A1, 1).await;
    s.start(task(2), A1, assignment).await;
    let progress = task::Progressed {
        assignment,
        incarnation: 1,
        percent: Some(40),
        message: Some("half \0 way".to_owned()),
    };
    s.by_agent(TaskVerb::Progressed, A1, task(2), progress)
        .await;
    s.complete(task(2), A1, assignment, Carried::Inline(odd))
        .await;
    // A late result of an assignment that has ended.
    s.complete(
        task(2),
        A1,
        assignment,
        Carried::Inline(json!("late").into()),
    )
    .await;

    // Fails, is tried again, and is a dead letter.
    s.submit(
        task(4),
        Submitted {
            max_attempts: Some(1),
            ..submission()
        },
    )
    .await;
    let assignment = s.assign(task(4), A2, 1).await;
    s.start(task(4), A2, assignment).await;
    let failed = task::AttemptFailed {
        assignment,
        incarnation: 1,
        error: "broke\0n".to_owned(),
        retryable: true,
    };
    s.by_agent(TaskVerb::AttemptFailed, A2, task(4), failed)
        .await;
    let failed = task::Failed {
        attempts: 1,
        generation: 1,
        error: "broken".to_owned(),
        dead_lettered: true,
        because_of: None,
        path: Vec::new(),
    };
    s.by_distributor(TaskVerb::Failed, None, task(4).0, failed)
        .await;

    // Called off while it waits.
    s.submit(task(5), submission()).await;
    let cancelled = task::Cancelled {
        generation: 1,
        reason: "not wanted".to_owned(),
    };
    s.by_distributor(TaskVerb::Cancelled, None, task(5).0, cancelled)
        .await;

    // Running at the end, with progress.
    s.submit(task(6), submission()).await;
    let assignment = s.assign(task(6), A1, 1).await;
    s.start(task(6), A1, assignment).await;
    let progress = task::Progressed {
        assignment,
        incarnation: 1,
        percent: Some(7),
        message: None,
    };
    s.by_agent(TaskVerb::Progressed, A1, task(6), progress)
        .await;

    // An agent is doubted, another has gone and come back as a new process; samples of a process that is no more.
    s.by_agent_subject(
        AgentVerb::Suspected,
        A1,
        agent::Suspected {
            incarnation: 1,
            evidence: evidence(),
        },
    )
    .await;
    let left = agent::Left {
        incarnation: 1,
        reason: "done".to_owned(),
    };
    s.by_agent_subject(AgentVerb::Left, A2, left).await;
    s.pass(86_400_000);
    s.join(A2, 2, 1).await;
    for (agent, incarnation, cpu) in [(A1, 1, 1_250), (A2, 1, 7_700), (A2, 2, 50)] {
        s.sample(agent, sample(agent, incarnation, cpu)).await;
    }

    // An owner that has been superseded changes nothing.
    let stopping = Subject::Swarm(s.place, SwarmVerb::Stopping);
    s.stale(stopping, s.place.swarm.0, swarm::Stopping {}).await;
    let updated = swarm::Updated {
        name: "renamed".to_owned(),
        description: None,
        configuration: Configuration {
            min_agents: 1,
            ..Configuration::default()
        },
    };
    s.decide(
        Subject::Swarm(s.place, SwarmVerb::Updated),
        s.place.swarm.0,
        updated,
    )
    .await;

    // What cannot be read.
    s.raw("swarm.evt.nonsense.x", "{").await;
    let subject = Subject::Task(s.place, TaskVerb::Submitted, None).to_string();
    s.raw(&subject, "\t\\ not JSON \n").await;
    s.raw(
        &subject,
        format!(r#"{{"specversion":"1.0","id":"{}","source":"/x"}}"#, id(9)),
    )
    .await;

    // A swarm that comes and goes.
    let other = Place::new(s.org, SwarmId(id(77)));
    if !s.is_claimed(Service::Coordinator, other.partition) {
        s.claim(Service::Coordinator, other.partition).await;
    }
    s.swarm(other, "second").await;
    s.decide(
        Subject::Swarm(other, SwarmVerb::Stopping),
        other.swarm.0,
        swarm::Stopping {},
    )
    .await;
    s.decide(
        Subject::Swarm(other, SwarmVerb::Deleted),
        other.swarm.0,
        swarm::Deleted {},
    )
    .await;
    s
}

/// Each message a batch of its own.
pub fn small() -> Pace {
    Pace {
        messages_max: 1,
        ..Pace::default()
    }
}
