//! Limits: by cgroup v2 where this machine lets us, by rlimits elsewhere.

use swarm_agent_host::Cgroups;
use swarm_events::agent::LimitedBy;

use crate::ground::{Ground, agent};

/// What a cgroup on this machine can limit.
fn controllers() -> Vec<&'static str> {
    let own = [std::process::id()];
    Cgroups::detect("probe", &own).map_or_else(
        |why| {
            eprintln!("no cgroup v2 for tests: {why}");
            Vec::new()
        },
        |cgroups| cgroups.controllers().to_vec(),
    )
}

/// Takes 400 MB, and says how it went.
const GREEDY: &str = r#"x=$(head -c 400000000 /dev/zero | tr '\0' a); echo "has ${#x}""#;

#[tokio::test(flavor = "multi_thread")]
async fn one_that_uses_too_much_memory_ends_and_no_other() {
    let by_cgroup = controllers().contains(&"memory");
    if !by_cgroup {
        eprintln!("SKIPPED in part: no memory controller of cgroup v2 here; by rlimit only");
    }
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let (greedy, modest) = (agent(), agent());
    ground
        .request_spec(
            modest,
            1,
            serde_json::json!({
                "command": ["sh", "-c", "ulimit -v; exec sleep 1000"],
                "limits": {"memory_kib": 65_536},
            }),
        )
        .await;
    let limited = ground.launched(modest).await;
    assert!(limited.unlimited.is_empty(), "{limited:?}");
    ground
        .request_spec(
            greedy,
            1,
            serde_json::json!({"command": ["sh", "-c", GREEDY], "limits": {"memory_kib": 65_536}}),
        )
        .await;
    let launched = ground.launched(greedy).await;
    let ended = ground.exited(greedy).await;
    assert!(!ended.exit.is_success(), "{ended:?}");
    assert!(!ended.last_output.contains("has 4"), "{ended:?}");
    if by_cgroup {
        assert_eq!(launched.limited_by, LimitedBy::Cgroup);
        assert!(ended.exit.out_of_memory, "{ended:?}");
    } else {
        assert_eq!(launched.limited_by, LimitedBy::Rlimit);
    }
    ground.stop(modest, 1, 0).await;
    let ended = ground.exited(modest).await;
    if !by_cgroup {
        assert_eq!(ended.last_output, "65536\n", "its limit, in KiB");
    }
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_that_cannot_be_held_is_named() {
    let controllers = controllers();
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    let limits = serde_json::json!({"cpu_percent": 50, "processes": 8});
    ground
        .request_spec(
            agent,
            1,
            serde_json::json!({"command": ["sleep", "1000"], "limits": limits}),
        )
        .await;
    let launched = ground.launched(agent).await;
    let held = |controller: &str| controllers.contains(&controller);
    let mut expected = Vec::new();
    if !held("cpu") {
        expected.push("cpu_percent".to_owned());
    }
    if !held("pids") {
        expected.push("processes".to_owned());
    }
    assert_eq!(launched.unlimited, expected);
    let by = match expected.len() {
        2 => LimitedBy::Nothing,
        _ => LimitedBy::Cgroup,
    };
    assert_eq!(launched.limited_by, by);
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test]
async fn a_cgroup_knows_and_kills_its_members_whatever_session_they_are_in() {
    let own = [std::process::id()];
    let cgroups = match Cgroups::detect(&uuid::Uuid::now_v7().to_string(), &own) {
        Ok(cgroups) => cgroups,
        Err(why) => return eprintln!("SKIPPED: no cgroup v2 on this machine: {why}"),
    };
    let (group, _) = cgroups.group("a", &Default::default()).expect("made");
    let mut child = std::process::Command::new("sh")
        .args(["-c", "read -r _; setsid sleep 1000 & exec sleep 1001"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .expect("sh");
    group.add(child.id()).expect("added");
    drop(child.stdin.take());
    while group.members().len() < 2 {
        tokio::task::yield_now().await;
    }
    group.kill();
    child.wait().expect("ours");
    while !group.members().is_empty() {
        tokio::task::yield_now().await;
    }
    assert!(!group.out_of_memory());
    group.remove().await;
}
