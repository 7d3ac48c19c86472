//! A host that is killed takes its processes along. It is a process of its own: this test binary, started again.

use std::process::{Command, Stdio};

use swarm_events::{AgentId, InstanceId};
use swarm_log::connect::ConnectSettings;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::ground::{Ground, PATIENCE, agent, open};

const URL: &str = "HOST_TEST_NATS_URL";
const DIR: &str = "HOST_TEST_DIR";

/// No test: the host of the one below.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the test below, in a process of its own"]
async fn the_host() {
    let (Ok(url), Ok(dir)) = (std::env::var(URL), std::env::var(DIR)) else {
        return;
    };
    let settings = swarm_agent_host::HostSettings {
        instance: InstanceId(Uuid::now_v7()),
        name: "killed".into(),
        allow: swarm_agent_host::Allow::new("*", ""),
        agents_max: 100,
        user: None,
        dir: dir.into(),
        program: "/no/such/swarm".into(),
        nats_url: url.clone(),
        api_url: None,
        mint: std::sync::Arc::new(|_, _| Ok(None)),
        cgroups: true,
        whole_process: true,
        status: swarm_agent_host::HostStatus::default(),
    };
    let log = open(ConnectSettings::new(url, "host")).await;
    let ended = swarm_agent_host::run(log, settings, CancellationToken::new()).await;
    ended.expect("it never ends");
}

fn start_host(ground: &Ground) -> std::process::Child {
    Command::new(std::env::current_exe().expect("known"))
        .args([
            "--exact",
            "host_killed::the_host",
            "--ignored",
            "--nocapture",
        ])
        .env(URL, &ground.nats.url)
        .env(DIR, ground.dir.path().join("agents"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("this program")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_host_takes_its_processes_along_and_the_next_one_goes_on() {
    let mut ground = Ground::new().await;
    let mut host = start_host(&ground);
    let agents: Vec<AgentId> = (0..3).map(|_| agent()).collect();
    for agent in &agents {
        // Deaf, and with a child.
        let script = "trap '' TERM INT HUP; sleep 1000 & sleep 1001 & wait; wait";
        ground.request(*agent, 1, script).await;
        ground.launched(*agent).await;
    }
    assert!(ground.left().await.len() >= agents.len());
    host.kill().expect("ours");
    host.wait().expect("ours");
    let began = std::time::Instant::now();
    loop {
        let left = ground.left().await;
        if left.is_empty() {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{left:?}");
    }
    // The next host cleans the folders up, and claims what is asked for anew.
    let next = ground.host(ground.settings("next")).await;
    ground.request(agents[0], 2, "exec sleep 1000").await;
    let launched = ground.launched(agents[0]).await;
    assert_eq!(launched.host.instance, next.instance);
    next.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_orphans_do_not_fill_the_process_table() {
    let mut ground = Ground::new().await;
    let mut host = start_host(&ground);
    let agent = agent();
    // Orphans in sessions of their own that end soon, while the agent lives on.
    let script = "for i in 1 2 3 4 5 6 7 8; do (setsid true &); done; exec sleep 1000";
    ground.request(agent, 1, script).await;
    ground.launched(agent).await;
    let id = i32::try_from(host.id()).expect("small");
    let began = std::time::Instant::now();
    loop {
        let orphans = procfs::process::all_processes()
            .expect("/proc")
            .flatten()
            .filter_map(|process| process.stat().ok())
            .filter(|stat| stat.ppid == id && stat.state == 'Z')
            .count();
        let running = ground.left().await.len();
        if orphans == 0 && running == 1 {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{orphans} dead orphans stay");
    }
    ground.stop(agent, 1, 0).await;
    ground.exited(agent).await;
    host.kill().expect("ours");
    host.wait().expect("ours");
    let left = ground.left().await;
    assert!(left.is_empty(), "{left:?}");
}
