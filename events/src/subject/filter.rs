//! Filters (NATS wildcards) for consumers. The filters that one function gives never overlap.

use super::{AgentId, Partition, Place, Service};

/// What a service's partition is decided from; `partition` `None` means all of them.
pub fn inputs(service: Service, partition: Option<Partition>) -> Vec<String> {
    let p = partition.map_or_else(|| "*".to_owned(), |p| p.to_string());
    // Claims of every service: a decision counts only under the last claim of its writer. `*` for the service would
    // overlap with nothing here.
    let claims = format!("swarm.ctl.*.{p}.claimed");
    let woken = format!("swarm.ctl.{service}.{p}.woken");
    let observed = format!("swarm.ctl.{service}.{p}.observed");
    // Of no use to the others but for their order: whoever heeds one decision of the coordinator has to meet all of its
    // partition, or one that was overtaken by an organization's is void here and valid there.
    let orgs = format!("swarm.evt.{p}.*.org.*");
    match service {
        Service::Coordinator => vec![
            // Organizations concern every partition of the coordinator.
            "swarm.evt.*.*.org.*".to_owned(),
            format!("swarm.evt.{p}.*.*.swarm.>"),
            format!("swarm.evt.{p}.*.*.agent.>"),
            format!("swarm.cmd.{p}.>"),
            claims,
            woken,
            observed,
        ],
        Service::Distributor => vec![
            orgs,
            format!("swarm.evt.{p}.*.*.swarm.>"),
            format!("swarm.evt.{p}.*.*.agent.>"),
            format!("swarm.evt.{p}.*.*.task.>"),
            format!("swarm.cmd.{p}.*.*.cancel"),
            format!("swarm.cmd.{p}.*.*.retry"),
            format!("swarm.cmd.{p}.*.*.cancel_graph"),
            format!("swarm.cmd.{p}.*.*.discard"),
            format!("swarm.cmd.{p}.*.*.hand_back"),
            claims,
            woken,
            observed,
        ],
        Service::Health | Service::Scaler => vec![
            orgs,
            format!("swarm.evt.{p}.*.*.swarm.>"),
            format!("swarm.evt.{p}.*.*.agent.>"),
            claims,
            woken,
            observed,
        ],
    }
}
/// Everything.
pub fn all() -> Vec<String> {
    super::STREAM_SUBJECTS
        .iter()
        .map(|s| (*s).to_owned())
        .collect()
}
/// All events of a swarm, for live views and replays.
pub fn swarm(place: Place) -> Vec<String> {
    vec![format!("swarm.evt.{place}.>")]
}
/// Heartbeats of all agents.
pub fn heartbeats() -> String {
    "swarm.hb.>".to_owned()
}
/// The change of a swarm's settings, which its agents heed. On the live subject.
pub fn settings(place: Place) -> String {
    format!("swarm.live.evt.{place}.swarm.updated")
}
/// What the shape of a swarm follows from: its topology, leader, and the seats of all agents. On the live subjects if
/// `live`; of the stored ones the last of each subject is enough.
pub fn shape(place: Place, live: bool) -> Vec<String> {
    let root = if live { "swarm.live.evt" } else { "swarm.evt" };
    vec![
        format!("{root}.{place}.swarm.created"),
        format!("{root}.{place}.swarm.topology_changed"),
        format!("{root}.{place}.swarm.leader_elected"),
        format!("{root}.{place}.agent.seated.*"),
    ]
}
/// The questions of a swarm's agents and how they ended, for agents that answer. On the live subjects if `live`.
pub fn questions(place: Place, live: bool) -> Vec<String> {
    let root = if live { "swarm.live.evt" } else { "swarm.evt" };
    ["asked", "answered", "unanswered"]
        .map(|verb| format!("{root}.{place}.agent.{verb}.*"))
        .to_vec()
}
/// The messages that an agent may be meant by, on the subjects on which the stream republishes them if `live`. Which of
/// them are for it follows from its role and its subscriptions.
pub fn messages(place: Place, agent: AgentId, live: bool) -> Vec<String> {
    let root = if live { "swarm.live.msg" } else { "swarm.msg" };
    let words = [
        "all",
        "leader",
        "worker",
        "supervisor",
        "coordinator",
        "topic.*",
    ];
    let mut filters = vec![format!("{root}.{place}.*.{agent}")];
    filters.extend(words.map(|word| format!("{root}.{place}.*.{word}")));
    filters
}
/// What an agent host must know: the wishes for processes, and how they ended.
pub fn host() -> Vec<String> {
    [
        "spawn_requested",
        "spawn_claimed",
        "exited",
        "host_failed",
        "crash_looping",
        "stopping",
        "removed",
    ]
    .map(|verb| format!("swarm.evt.*.*.*.agent.{verb}.*"))
    .to_vec()
}
/// What an agent must hear: its assignments, withdrawals, and the verdicts on itself. On the live subjects if `live`.
pub fn agent(place: Place, agent: AgentId, live: bool) -> Vec<String> {
    let root = if live { "swarm.live.evt" } else { "swarm.evt" };
    vec![
        format!("{root}.{place}.task.assigned.{agent}"),
        format!("{root}.{place}.task.withdrawn.{agent}"),
        format!("{root}.{place}.agent.*.{agent}"),
    ]
}
