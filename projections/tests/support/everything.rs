//! A log with a bit of everything.

use serde_json::json;
use swarm_events::{
    AgentId, GraphId, Json, Partition, Place, Service, Subject, SwarmId, TaskId, Timestamp,
    agent::{self, Evidence, LivenessRule},
    configuration::{Algorithm, Configuration},
    org,
    subject::{AgentVerb, OrgVerb, SwarmVerb, TaskVerb},
    swarm,
    task::{
        self, AffinityOutcome, Carried, Dependency, DependencyType, GraphPart, Submitted, Then,
        WithdrawReason,
    },
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
        messages_read: 0,
        messages_sent: 0,
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

    distribution(&mut s).await;

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

    super::managed::managed(&mut s).await;

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
    super::topologies::topologies(&mut s).await;
    s
}

/// What full distribution adds: a steal, attempts of every kind, a failure that goes on, a dead letter put away, figures,
/// and an organization with a limit.
async fn distribution(s: &mut Script) {
    // Stolen before it started; run out of time; tried once more in vain; put away.
    s.submit(
        task(7),
        Submitted {
            affinity_key: Some("k".to_owned()),
            ..submission()
        },
    )
    .await;
    let affine = |attempt, affinity| task::Assigned {
        algorithm: Algorithm::Affinity,
        affinity: Some(affinity),
        ..super::assignment(attempt)
    };
    let first = s
        .assign_as(task(7), A1, affine(1, AffinityOutcome::New))
        .await;
    s.withdraw(task(7), A1, first, WithdrawReason::Steal, Then::Queue)
        .await;
    let stolen = task::Assigned {
        stolen_from: Some(A1),
        ..affine(1, AffinityOutcome::Miss)
    };
    let second = s.assign_as(task(7), A2, stolen).await;
    s.start(task(7), A2, second).await;
    let then = Then::RetryAfterMs(0);
    s.withdraw(task(7), A2, second, WithdrawReason::Timeout, then)
        .await;
    s.wake(10).await;
    let third = s
        .assign_as(task(7), A2, affine(2, AffinityOutcome::Hit))
        .await;
    s.start(task(7), A2, third).await;
    s.attempt_failed(task(7), A2, third, "in vain").await;
    // A late word of an attempt that has ended is nobody's.
    s.attempt_failed(task(7), A2, second, "late").await;
    s.fail(task(7), 2, "in vain", None).await;
    let discarded = task::Discarded { generation: 1 };
    s.by_distributor(TaskVerb::Discarded, None, task(7).0, discarded)
        .await;

    // A graph whose first task fails, and takes the second along; both are parts of task 6.
    let part = |index| {
        Some(GraphPart {
            id: GraphId(id(60)),
            index,
            of: 2,
        })
    };
    let needs = Dependency {
        task_id: task(8),
        dependency_type: DependencyType::Success,
        alias: None,
    };
    for (number, index, depends_on) in [(8, 0, vec![]), (9, 1, vec![needs])] {
        s.submit(
            task(number),
            Submitted {
                depends_on,
                graph: part(index),
                parent_task_id: Some(task(6)),
                ..submission()
            },
        )
        .await;
    }
    let accepted = task::GraphAccepted { tasks: 2 };
    s.by_distributor(TaskVerb::GraphAccepted, None, id(60), accepted)
        .await;
    let assignment = s.assign(task(8), A2, 1).await;
    s.start(task(8), A2, assignment).await;
    s.attempt_failed(task(8), A2, assignment, "no").await;
    s.fail(task(8), 1, "no", None).await;
    s.fail(task(9), 0, "what it depends on failed", Some(task(8)))
        .await;

    // Waits at an agent, started at none.
    s.submit(
        task(10),
        Submitted {
            queue_timeout_ms: Some(90_000),
            parent_task_id: Some(task(6)),
            ..submission()
        },
    )
    .await;
    s.assign(task(10), A1, 1).await;

    let measured = swarm::Measured {
        assigned: 1,
        running: 1,
        completed: 2,
        failed: 4,
        affinity_hits: 1,
        affinity_misses: 1,
        steals: 1,
        retries: 1,
        ..swarm::Measured::default()
    };
    let subject = Subject::Swarm(s.place, SwarmVerb::Measured);
    s.decide(subject, s.place.swarm.0, measured).await;
    let updated = org::Updated {
        name: "Org \0 Two".to_owned(),
        queue_limit: Some(5_000),
    };
    let home = Partition::of(s.org.0);
    s.decide(
        Subject::Org(home, s.org, OrgVerb::Updated),
        s.org.0,
        updated,
    )
    .await;
}

/// Each message a batch of its own.
pub fn small() -> Pace {
    Pace {
        messages_max: 1,
        ..Pace::default()
    }
}
