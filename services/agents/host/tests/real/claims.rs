//! Which host starts what.

use std::collections::{BTreeMap, BTreeSet};

use swarm_agent_host::Allow;
use swarm_events::{
    Body,
    agent::{Evidence, HostFailed, HostName, LivenessRule},
    subject::AgentVerb,
};

use crate::ground::{Ground, PATIENCE, agent};

const SLEEP: &str = "exec sleep 1000";

#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_start_each_process_once_and_share_the_work() {
    let mut ground = Ground::new().await;
    let one = ground.host(ground.settings("one")).await;
    let two = ground.host(ground.settings("two")).await;
    let agents: Vec<_> = (0..20).map(|_| agent()).collect();
    for agent in &agents {
        ground.request(*agent, 1, SLEEP).await;
    }
    let mut launched = BTreeMap::new();
    while launched.len() < agents.len() {
        let (about, host) = ground
            .next(|event| match &event.body {
                Body::AgentLaunched(launched) => Some((event.about, launched.host.instance)),
                _ => None,
            })
            .await;
        assert!(launched.insert(about, host).is_none(), "started twice");
    }
    let hosts: BTreeSet<_> = launched.values().copied().collect();
    assert_eq!(hosts, BTreeSet::from([one.instance, two.instance]));
    // One process for each, and no second one: a shell that became `sleep`.
    assert_eq!(ground.left().await.len(), agents.len());
    one.stop().await;
    two.stop().await;
    let all = ground.all().await;
    let ends = all.iter().filter_map(|event| match &event.body {
        Body::AgentExited(exited) => Some((event.about, exited.host.instance, exited.host_leaving)),
        _ => None,
    });
    let ends: BTreeMap<_, _> = ends
        .map(|(about, host, leaving)| {
            assert!(leaving);
            (about, host)
        })
        .collect();
    assert_eq!(ends, launched, "each host reports its own");
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_starts_later_claims_what_is_open_and_nothing_else() {
    let mut ground = Ground::new().await;
    let (open, done) = (agent(), agent());
    ground.request(done, 1, "exit 3").await;
    let first = ground.host(ground.settings("first")).await;
    ground.exited(done).await;
    first.stop().await;
    ground.request(open, 1, SLEEP).await;
    let second = ground.host(ground.settings("second")).await;
    let launched = ground.launched(open).await;
    assert_eq!(launched.host.instance, second.instance);
    second.stop().await;
    let all = ground.all().await;
    let starts = all
        .iter()
        .filter(|event| matches!(event.body, Body::AgentLaunched(_)));
    assert_eq!(starts.count(), 2);
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_host_claims_when_there_is_room_again() {
    let mut ground = Ground::new().await;
    let mut settings = ground.settings("small");
    settings.agents_max = 1;
    let host = ground.host(settings).await;
    let (first, second) = (agent(), agent());
    ground.request(first, 1, SLEEP).await;
    ground.launched(first).await;
    ground.request(second, 1, SLEEP).await;
    ground.stop(first, 1, 1_000).await;
    ground.exited(first).await;
    ground.launched(second).await;
    assert_eq!((host.status.running(), host.status.room()), (1, 0));
    host.stop().await;
    ground.assert_clean().await;
}

/// Both look at the same requests first, and only one of them gets each.
#[tokio::test(flavor = "multi_thread")]
async fn two_hosts_with_little_room_take_all_that_there_is_room_for() {
    let mut ground = Ground::new().await;
    let agents: Vec<_> = (0..8).map(|_| agent()).collect();
    for agent in &agents {
        ground.request(*agent, 1, SLEEP).await;
    }
    let mut hosts = Vec::new();
    for name in ["one", "two"] {
        let mut settings = ground.settings(name);
        settings.agents_max = 4;
        hosts.push(ground.host(settings).await);
    }
    let mut launched = BTreeSet::new();
    while launched.len() < agents.len() {
        let next = ground
            .next(|event| matches!(event.body, Body::AgentLaunched(_)).then_some(event.about));
        launched.insert(next.await);
    }
    for host in &hosts {
        assert_eq!((host.status.running(), host.status.room()), (4, 0));
    }
    for host in hosts {
        host.stop().await;
    }
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_host_may_not_run_is_declined_once_and_left_to_others() {
    let mut ground = Ground::new().await;
    let mut settings = ground.settings("strict");
    settings.allow = Allow::new("python3", "");
    let strict = ground.host(settings).await;
    let agent = agent();
    ground.request(agent, 1, SLEEP).await;
    let declined = ground
        .next(|event| match &event.body {
            Body::AgentSpawnDeclined(declined) => Some(declined.clone()),
            _ => None,
        })
        .await;
    assert_eq!(declined.host.instance, strict.instance);
    assert_eq!(declined.problem.field.as_deref(), Some("command"));
    assert_eq!(declined.spawn, 1);
    let open = ground.host(ground.settings("open")).await;
    let launched = ground.launched(agent).await;
    assert_eq!(launched.host.instance, open.instance);
    open.stop().await;
    strict.stop().await;
    let all = ground.all().await;
    let declines = all
        .iter()
        .filter(|event| matches!(event.body, Body::AgentSpawnDeclined(_)));
    assert_eq!(declines.count(), 1);
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_newer_request_takes_the_place_of_a_running_process() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground.request(agent, 1, SLEEP).await;
    let old = ground.launched(agent).await;
    ground.request(agent, 2, SLEEP).await;
    let ended = ground.exited(agent).await;
    assert_eq!((ended.spawn, ended.exit.signal), (1, Some(9)));
    let new = ground.launched(agent).await;
    assert_eq!(new.spawn, 2);
    assert_ne!(new.pid, old.pid);
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_is_held_to_be_dead_stops_what_it_runs() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground
        .request(
            agent,
            1,
            "trap 'exit 0' TERM; echo up; while :; do sleep 0.05; done",
        )
        .await;
    ground.launched(agent).await;
    ground.up(agent).await;
    let failed = HostFailed {
        spawn: 1,
        host: HostName {
            instance: host.instance,
            name: "one".into(),
        },
        evidence: Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 4_000,
            limit_ms: 4_000,
        },
    };
    ground.say(AgentVerb::HostFailed, agent, failed).await;
    let ended = ground.exited(agent).await;
    assert_eq!(ended.exit.code, Some(0), "in good order: {ended:?}");
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_end_waits_while_nats_server_is_away() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground.request(agent, 1, SLEEP).await;
    let pid = ground.launched(agent).await.pid;
    ground.nats.kill();
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("small")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("ours");
    let began = std::time::Instant::now();
    while host.status.unreported() == 0 {
        assert!(began.elapsed() < PATIENCE, "the end is seen");
        tokio::task::yield_now().await;
    }
    ground.nats.restart().await;
    let ended = ground.exited(agent).await;
    assert_eq!(ended.exit.signal, Some(9));
    // And it goes on: the next request is claimed.
    ground.request(agent, 2, SLEEP).await;
    ground.launched(agent).await;
    host.stop().await;
    ground.assert_clean().await;
}
