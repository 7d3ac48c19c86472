//! How processes end, and that nothing of them stays.

use crate::ground::{Ground, agent};

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_does_not_exist_is_reported_in_words() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    for (spec, words) in [
        (
            serde_json::json!({"command": ["no-such-program-anywhere"]}),
            "no-such-program-anywhere does not exist",
        ),
        (
            serde_json::json!({"command": ["/no/such/program"]}),
            "/no/such/program does not exist",
        ),
        (
            serde_json::json!({"command": ["/etc/passwd"]}),
            "/etc/passwd is not executable",
        ),
        (
            serde_json::json!({"command": ["sh"], "working_dir": "/no/such/folder"}),
            "/no/such/folder does not exist",
        ),
        (
            serde_json::json!({"command": ["sh"], "env": {"1x": ""}}),
            "is no name of a variable",
        ),
        (
            serde_json::json!({"adapter": "exec", "command": ["no-such-program-anywhere"]}),
            "no-such-program-anywhere does not exist",
        ),
    ] {
        let agent = agent();
        ground.request_spec(agent, 1, spec).await;
        let exit = ground.exited(agent).await.exit;
        let error = exit.error.expect("an error");
        assert!(error.contains(words), "{error}");
        assert_eq!((exit.code, exit.signal), (None, None));
    }
    let status = host.status.clone();
    host.stop().await;
    assert_eq!(status.running(), 0);
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ends_at_once_is_reported_with_its_last_words() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground
        .request(agent, 1, "echo bye; echo 'no config' >&2; exit 7")
        .await;
    let launched = ground.launched(agent).await;
    let ended = ground.exited(agent).await;
    assert_eq!((ended.spawn, ended.exit.code), (1, Some(7)));
    assert_eq!(ended.host, launched.host);
    assert!(ended.last_output.contains("bye") && ended.last_output.contains("no config"));
    assert_eq!((ended.left_behind, ended.host_leaving), (0, false));
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_heeds_its_stop_ends_by_itself() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground
        .request(
            agent,
            1,
            "trap 'echo drained; exit 0' TERM; echo up; while :; do sleep 0.05; done",
        )
        .await;
    ground.launched(agent).await;
    ground.up(agent).await;
    ground.stop(agent, 1, 20_000).await;
    let ended = ground.exited(agent).await;
    assert_eq!((ended.exit.code, ended.exit.signal), (Some(0), None));
    assert!(ended.last_output.contains("drained"));
    assert!(ended.uptime_ms < 20_000);
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_ignores_its_stop_is_killed_after_its_grace() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground
        .request(
            agent,
            1,
            "trap '' TERM; echo up; while :; do sleep 1000; done",
        )
        .await;
    ground.launched(agent).await;
    ground.up(agent).await;
    let began = std::time::Instant::now();
    ground.stop(agent, 1, 700).await;
    let ended = ground.exited(agent).await;
    assert_eq!(ended.exit.signal, Some(9));
    assert!(began.elapsed() >= std::time::Duration::from_millis(700));
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_without_grace_kills_at_once() {
    let mut ground = Ground::new().await;
    let host = ground.host(ground.settings("one")).await;
    let agent = agent();
    ground
        .request(
            agent,
            1,
            "trap 'sleep 1000' TERM; echo up; sleep 1000 & wait",
        )
        .await;
    ground.launched(agent).await;
    ground.up(agent).await;
    // It hears the first and goes on; the second takes its time away.
    ground.stop(agent, 1, 1_000_000).await;
    ground.stop(agent, 1, 0).await;
    let ended = ground.exited(agent).await;
    assert_eq!(ended.exit.signal, Some(9));
    assert!(ended.left_behind >= 1, "{ended:?}");
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_process_leaves_behind_is_killed_and_counted() {
    // By cgroup, if this machine has it; without, by group, tree and environment.
    for cgroups in [true, false] {
        let mut ground = Ground::new().await;
        let mut settings = ground.settings("one");
        settings.cgroups = cgroups;
        let host = ground.host(settings).await;
        let agent = agent();
        // Two in its group, one in a session of its own whose parent is gone.
        let script = "sleep 1000 & sleep 1001 & (setsid sleep 1002 &) ; sleep 0.2; exit 5";
        ground.request(agent, 1, script).await;
        let ended = ground.exited(agent).await;
        assert_eq!((ended.exit.code, ended.left_behind), (Some(5), 3));
        let left = ground.left().await;
        assert!(left.is_empty(), "gone before the end is told: {left:?}");
        host.stop().await;
        ground.assert_clean().await;
    }
}
