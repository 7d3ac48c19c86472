//! The columns of all tables but `swarm_events`, as a batch fills them.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use crate::columns::columns;

pub(crate) type Time = DateTime<Utc>;

columns! {
    /// Rows of `swarm_tasks` that are new.
    NewTasks {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid",
        parent_task_id: Option<Uuid> => "uuid", task_type: String => "text", payload: String => "jsonb",
        priority: i32 => "integer", required_capabilities: String => "text[]", assigned_agent_id: Option<Uuid> => "uuid",
        status: &'static str => "text", attempt_count: i32 => "integer", max_attempts: i32 => "integer",
        result: Option<String> => "jsonb", error_message: Option<String> => "text", queued_at: Option<Time> => "timestamptz",
        started_at: Option<Time> => "timestamptz", completed_at: Option<Time> => "timestamptz",
        timeout_at: Option<Time> => "timestamptz", created_at: Time => "timestamptz", key: Option<String> => "text",
        graph_id: Option<Uuid> => "uuid", affinity_key: Option<String> => "text", timeout_ms: Option<i64> => "bigint",
        body_sha256: Option<String> => "text", accepted: bool => "boolean", rejected: bool => "boolean",
        dead_lettered: bool => "boolean", because_of: Option<Uuid> => "uuid", generation: i32 => "integer",
        progress_percent: Option<i16> => "smallint", progress_message: Option<String> => "text",
        failure_path: String => "uuid[]", discarded: bool => "boolean", queue_timeout_ms: Option<i64> => "bigint",
        progress_timeout_ms: Option<i64> => "bigint", waits_from: Option<Time> => "timestamptz",
        progressed_at: Option<Time> => "timestamptz", steals: i32 => "integer", declines: i32 => "integer", submitted_seq: i64 => "bigint",
        required_role: Option<&'static str> => "text", part: Option<i32> => "integer", parts: Option<i32> => "integer",
        hand_to: Option<Uuid> => "uuid", handed_task_id: Option<Uuid> => "uuid", handed_at: Option<Time> => "timestamptz",
        origin_swarm_id: Option<Uuid> => "uuid", origin_task_id: Option<Uuid> => "uuid",
        origin_generation: Option<i32> => "integer", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_tasks` that are there.
    TaskChanges {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid",
        assigned_agent_id: Option<Uuid> => "uuid", status: &'static str => "text", attempt_count: i32 => "integer",
        max_attempts: i32 => "integer", result: Option<String> => "jsonb", error_message: Option<String> => "text",
        queued_at: Option<Time> => "timestamptz", started_at: Option<Time> => "timestamptz",
        completed_at: Option<Time> => "timestamptz", timeout_at: Option<Time> => "timestamptz", accepted: bool => "boolean",
        rejected: bool => "boolean", dead_lettered: bool => "boolean", because_of: Option<Uuid> => "uuid",
        generation: i32 => "integer", progressed: bool => "boolean", progress_percent: Option<i16> => "smallint",
        progress_message: Option<String> => "text", progressed_at: Option<Time> => "timestamptz",
        failure_path: String => "uuid[]", discarded: bool => "boolean", waits_from: Option<Time> => "timestamptz",
        steals: i32 => "integer", declines: i32 => "integer", afresh: bool => "boolean", parts: Option<i32> => "integer",
        handed_task_id: Option<Uuid> => "uuid", handed_at: Option<Time> => "timestamptz", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Dead letters put away, of which the fold remembers no more than that.
    Discards {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", dead_lettered: bool => "boolean",
        discarded: bool => "boolean", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `task_attempts` that are new.
    NewAttempts {
        organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", task_id: Uuid => "uuid", assignment: i64 => "bigint",
        generation: i32 => "integer", attempt: i32 => "integer", agent_id: Uuid => "uuid", incarnation: i64 => "bigint",
        algorithm: &'static str => "text", affinity: Option<&'static str> => "text", stolen_from: Option<Uuid> => "uuid",
        assigned_at: Time => "timestamptz", started_at: Option<Time> => "timestamptz",
        ended_at: Option<Time> => "timestamptz", outcome: Option<&'static str> => "text", error: Option<String> => "text",
        retryable: Option<bool> => "boolean", step: &'static str => "text", path: String => "uuid[]",
        turn: Option<i64> => "bigint",
    }
}
columns! {
    /// Rows of `task_attempts` that are there.
    AttemptChanges {
        organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", task_id: Uuid => "uuid", assignment: i64 => "bigint",
        started_at: Option<Time> => "timestamptz", ended_at: Option<Time> => "timestamptz",
        outcome: Option<&'static str> => "text", error: Option<String> => "text", retryable: Option<bool> => "boolean",
    }
}
columns! {
    /// Rows of `task_dependencies`: never changed.
    Dependencies {
        organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", task_id: Uuid => "uuid",
        depends_on_task_id: Uuid => "uuid", dependency_type: &'static str => "text", alias: Option<String> => "text",
    }
}
columns! {
    /// Rows of `swarm_agents`, without what samples say.
    Agents {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", agent_type: String => "text",
        agent_name: String => "text", capabilities: String => "text[]", role: &'static str => "text",
        status: &'static str => "text", status_reason: Option<String> => "text", current_task_id: Option<Uuid> => "uuid",
        tasks_completed: i32 => "integer", tasks_failed: i32 => "integer", resource_usage: &'static str => "jsonb",
        metadata: String => "jsonb", started_at: Option<Time> => "timestamptz", stopped_at: Option<Time> => "timestamptz",
        created_at: Time => "timestamptz", incarnation: i64 => "bigint", instance_id: Option<Uuid> => "uuid",
        slots: i32 => "integer", waiting_limit: i32 => "integer", running: i32 => "integer", queue_depth: i32 => "integer",
        waiting_since: Option<Time> => "timestamptz", stop_reason: Option<String> => "text",
        adapter: Option<&'static str> => "text", spec: Option<String> => "jsonb", restart_policy: Option<String> => "jsonb",
        spawn: Option<i64> => "bigint", host: Option<String> => "jsonb", pid: Option<i64> => "bigint",
        limited_by: Option<&'static str> => "text", unlimited: String => "text[]", restarts: i64 => "bigint",
        crashes: i32 => "integer", restart_due: Option<Time> => "timestamptz", last_exit: Option<String> => "jsonb",
        draining: Option<String> => "jsonb", quarantine: String => "jsonb",
        quarantined_since: Option<Time> => "timestamptz", level: Option<i32> => "integer",
        parent_agent_id: Option<Uuid> => "uuid", place: Option<i64> => "bigint", standby: Option<bool> => "boolean",
        works: Option<bool> => "boolean", created_seq: i64 => "bigint", last_seq: i64 => "bigint",
    }
}
columns! {
    /// What its tasks move of a row of `swarm_agents`.
    AgentLoads {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", status: &'static str => "text",
        current_task_id: Option<Uuid> => "uuid", tasks_completed: i32 => "integer", tasks_failed: i32 => "integer",
        running: i32 => "integer", queue_depth: i32 => "integer", waiting_since: Option<Time> => "timestamptz",
        last_seq: i64 => "bigint",
    }
}
columns! {
    /// What samples say of agents.
    Samples {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid",
        last_heartbeat_at: Option<Time> => "timestamptz", resource_usage: String => "jsonb",
    }
}
columns! {
    /// Rows of `swarms`.
    Swarms {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", name: String => "text", description: Option<String> => "text",
        topology: String => "text", topology_configuration: String => "jsonb", topology_generation: i64 => "bigint",
        configuration: String => "jsonb", leader_agent_id: Option<Uuid> => "uuid", status: &'static str => "text", agent_count: i32 => "integer",
        desired_agents: i32 => "integer", partition: i16 => "smallint",
        created_by: Option<Uuid> => "uuid", created_at: Time => "timestamptz", updated_at: Time => "timestamptz",
        deleted_at: Option<Time> => "timestamptz", created_seq: i64 => "bigint", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `organizations`.
    Orgs {
        id: Uuid => "uuid", name: String => "text", queue_limit: Option<i64> => "bigint", created_at: Time => "timestamptz",
        created_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `users`.
    Users {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", name: String => "text", role: &'static str => "text",
        created_at: Time => "timestamptz", created_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `api_keys`.
    Keys {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", user_id: Uuid => "uuid", name: String => "text",
        role: &'static str => "text", sha256: String => "text", created_at: Time => "timestamptz",
        revoked_at: Option<Time> => "timestamptz", created_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_figures`.
    Figures {
        organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", pending: i64 => "bigint", queued: i64 => "bigint",
        assigned: i64 => "bigint", running: i64 => "bigint", completed: i64 => "bigint", failed: i64 => "bigint",
        cancelled: i64 => "bigint", oldest_wait_ms: i64 => "bigint", unmet: i64 => "bigint", affinity_hits: i64 => "bigint",
        affinity_misses: i64 => "bigint", steals: i64 => "bigint", retries: i64 => "bigint", measured_at: Time => "timestamptz",
        last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_outcomes`.
    Outcomes {
        organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", dimension: &'static str => "text", name: String => "text",
        completed: i64 => "bigint", failed: i64 => "bigint", measured_at: Time => "timestamptz", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_topologies`.
    Topologies {
        id: Uuid => "uuid", organization_id: Option<Uuid> => "uuid", name: String => "text",
        description: Option<String> => "text", best_for: Option<String> => "text", topology_type: &'static str => "text",
        configuration: String => "jsonb", is_system: bool => "boolean", created_at: Option<Time> => "timestamptz",
        updated_at: Option<Time> => "timestamptz", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_topologies` that are to go.
    GoneTopologies { id: Uuid => "uuid" }
}
columns! {
    /// Rows of `swarm_questions` that are new.
    NewQuestions {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", agent_id: Uuid => "uuid",
        incarnation: i64 => "bigint", assignment: Option<i64> => "bigint", task_id: Option<Uuid> => "uuid",
        answerer: &'static str => "text", question: String => "text", choices: String => "jsonb",
        fallback: Option<String> => "jsonb", status: &'static str => "text", answer: Option<String> => "jsonb",
        answered_by: Option<&'static str> => "text", answered_by_id: Option<Uuid> => "uuid",
        reason: Option<String> => "text", asked_at: Time => "timestamptz", due_at: Time => "timestamptz",
        ended_at: Option<Time> => "timestamptz", asked_seq: i64 => "bigint", last_seq: i64 => "bigint",
    }
}
columns! {
    /// Rows of `swarm_questions` that are there, and have ended.
    EndedQuestions {
        id: Uuid => "uuid", organization_id: Uuid => "uuid", swarm_id: Uuid => "uuid", status: &'static str => "text",
        answer: Option<String> => "jsonb", answered_by: Option<&'static str> => "text",
        answered_by_id: Option<Uuid> => "uuid", reason: Option<String> => "text", ended_at: Option<Time> => "timestamptz",
        last_seq: i64 => "bigint",
    }
}
