//! The command line against a real installation.

use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Installation, folder, said, swarm};

#[tokio::test(flavor = "multi_thread")]
async fn an_installation_in_a_closed_folder_is_shown_checked_and_stopped() {
    // Mode 0700, as `swarm up` makes it itself: also for root, whose PostgreSQL runs as another user.
    let dir = folder();
    let swarm_up = Installation::start_in(dir, &["--durability", "speed"]).await;
    let data = swarm_up.data();
    let mode = |path: &std::path::Path| {
        std::fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    assert_eq!(mode(&data), 0o700);
    assert_eq!(mode(&data.join("connection.json")), 0o600);
    for field in [
        "api_url",
        "api_key",
        "nats_url",
        "nats_creds",
        "database_url",
        "org_id",
    ] {
        assert!(!swarm_up.field(field).is_empty(), "{field}");
    }
    for service in [
        "coordinator",
        "distributor",
        "health",
        "projector",
        "gateway",
    ] {
        assert!(
            swarm_up.pid(service).is_some(),
            "{service} has a process id"
        );
    }

    let second = swarm_up.cli(&["up", "--detach", "--any-ports"]).await;
    assert_eq!(second.status.code(), Some(1), "{}", said(&second));
    assert!(
        said(&second).contains("runs in") && said(&second).contains("swarm down"),
        "{}",
        said(&second)
    );

    let status = swarm_up.cli_json(&["status"]).await;
    assert_eq!(
        (&status["running"], &status["ready"]),
        (&json!(true), &json!(true)),
        "{status}"
    );
    assert!(!status.to_string().contains("password"), "{status}");

    let doctor = swarm_up.cli(&["doctor"]).await;
    let report = said(&doctor);
    for check in [
        "nats-server version",
        "stream",
        "flush mode",
        "PostgreSQL",
        "disk space",
        "clock",
    ] {
        assert!(report.contains(check), "{check} is missing: {report}");
    }
    // It runs for speed, and doctor says what that risks.
    assert_eq!(doctor.status.code(), Some(1), "{report}");
    assert!(report.contains("power cut"), "{report}");

    let place = std::fs::read_to_string(data.join("postgres/place")).ok();
    let down = swarm_up.cli(&["down"]).await;
    assert!(down.status.success(), "{}", said(&down));
    let status = swarm_up.cli(&["status"]).await;
    assert_eq!(status.status.code(), Some(1), "{}", said(&status));
    let refused = swarm_up.cli(&["list"]).await;
    assert_eq!(refused.status.code(), Some(1), "{}", said(&refused));
    assert!(said(&refused).contains("swarm up"), "{}", said(&refused));
    assert!(
        swarm_up.cli(&["down"]).await.status.success(),
        "stopping what is stopped is no mistake"
    );
    if let Some(place) = place {
        // Where root's PostgreSQL had to go: nothing else removes it.
        std::fs::remove_dir_all(place.trim()).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn swarms_and_tasks_by_command_line_with_exit_codes_that_scripts_can_use() {
    let swarm = Installation::start().await;
    let made = swarm
        .cli_json(&[
            "create",
            "shop",
            "--description",
            "d",
            "--set",
            "max_agents=3",
        ])
        .await;
    let id = made["id"].as_str().expect("an id").to_owned();
    assert_eq!(made["configuration"]["max_agents"], 3, "{made}");
    let again = swarm.cli(&["create", "shop"]).await;
    assert_eq!(
        again.status.code(),
        Some(1),
        "a name that is taken: {}",
        said(&again)
    );
    assert!(said(&again).contains("name"), "{}", said(&again));

    let shown = swarm.cli_json(&["show", "shop"]).await;
    assert_eq!(shown["id"], id.as_str());
    let changed = swarm
        .cli_json(&["update", "shop", "--set", "max_agents=5", "--name", "store"])
        .await;
    assert_eq!(
        (&changed["name"], &changed["configuration"]["max_agents"]),
        (&json!("store"), &json!(5))
    );
    let listed = swarm.cli(&["list"]).await;
    assert!(
        said(&listed).contains("store") && said(&listed).contains("NAME"),
        "{}",
        said(&listed)
    );
    let bad = swarm
        .cli(&["update", "store", "--set", "max_agents=-1"])
        .await;
    assert_eq!(bad.status.code(), Some(1), "{}", said(&bad));
    assert!(said(&bad).contains("max_agents"), "{}", said(&bad));

    let task = swarm
        .cli_json(&[
            "task",
            "submit",
            "store",
            "--type",
            "t",
            "--require",
            "nobody-has-this",
        ])
        .await;
    let task = task["id"].as_str().expect("an id").to_owned();
    let waited = swarm
        .cli(&["task", "wait", &task, "--timeout", "300ms"])
        .await;
    assert_eq!(waited.status.code(), Some(4), "{}", said(&waited));
    let cancelled = swarm
        .cli_json(&["task", "cancel", &task, "--reason", "test"])
        .await;
    assert_eq!(cancelled["status"], "cancelled", "{cancelled}");
    let waited = swarm.cli(&["task", "wait", &task]).await;
    assert_eq!(
        waited.status.code(),
        Some(1),
        "it did not complete: {}",
        said(&waited)
    );

    let nobody = "0190f7a0-0000-7000-8000-000000000001";
    for args in [
        vec!["show", "nobody"],
        vec!["show", nobody],
        vec!["task", "show", nobody],
        vec!["health", nobody],
    ] {
        let output = swarm.cli(&args).await;
        assert_eq!(output.status.code(), Some(3), "{args:?}: {}", said(&output));
    }
    assert_eq!(swarm.cli(&["frobnicate"]).await.status.code(), Some(2));

    let health = swarm.cli_json(&["health", "store"]).await;
    assert_eq!(health["swarm_id"], id.as_str(), "{health}");
    let events = swarm
        .cli(&[
            "events", "store", "--from", "0", "--limit", "2", "-o", "json",
        ])
        .await;
    assert_eq!(
        String::from_utf8_lossy(&events.stdout).lines().count(),
        2,
        "{}",
        said(&events)
    );
    let history = swarm.replay(&["--swarm", &id]).await;
    assert!(
        history
            .iter()
            .any(|line| line["event"]["type"] == "swarm.cmd.create.v2"),
        "commands too"
    );
    assert!(
        history
            .iter()
            .any(|line| line["event"]["type"] == "swarm.swarm.created.v4")
    );

    let deleted = swarm.cli_json(&["delete", "store"]).await;
    assert!(deleted["id"].is_string(), "{deleted}");
    let shown = swarm.cli_json(&["show", &id]).await;
    assert!(
        matches!(shown["status"].as_str(), Some("inactive" | "stopping")),
        "still readable: {shown}"
    );
}

#[tokio::test]
async fn a_port_in_use_and_settings_that_make_no_sense_are_said_clearly() {
    let dir = folder();
    let data = dir.path().join("data");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let free = "0";
    let up = swarm(&data)
        .args([
            "up",
            "--detach",
            "--nats-port",
            &port,
            "--nats-ws-port",
            free,
            "--nats-monitor-port",
            free,
        ])
        .args(["--postgres-port", free, "--api-addr", "127.0.0.1:0"])
        .output()
        .await
        .expect("runs");
    assert_eq!(up.status.code(), Some(1), "{}", said(&up));
    assert!(
        said(&up).contains(&port) && said(&up).contains("SWARM_NATS_PORT"),
        "{}",
        said(&up)
    );

    let wrong = swarm(&data)
        .args(["up", "--durability", "maybe"])
        .output()
        .await
        .expect("runs");
    assert_eq!(wrong.status.code(), Some(2), "{}", said(&wrong));
    assert!(said(&wrong).contains("always or speed"), "{}", said(&wrong));
    if let Ok(place) = std::fs::read_to_string(data.join("postgres/place")) {
        std::fs::remove_dir_all(place.trim()).expect("removed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_of_somebody_else_are_used_where_addresses_are_given() {
    let nats = swarm_servers::testing::nats().await;
    let postgres = swarm_servers::testing::postgres().await;
    let args = ["--nats-url", &nats.url, "--database-url", &postgres.url];
    let swarm = Installation::start_in(folder(), &args).await;
    assert_eq!(swarm.field("nats_url"), nats.url);
    assert_eq!(swarm.field("database_url"), postgres.url);
    assert!(swarm.pid("nats-server").is_none() && swarm.pid("postgres").is_none());
    assert!(!swarm.data().join("nats").exists() && !swarm.data().join("postgres").exists());
    let made = swarm.cli_json(&["create", "elsewhere"]).await;
    let listed = swarm.cli_json(&["list"]).await;
    assert_eq!(
        listed["items"][0]["id"], made["id"],
        "what was written is in the next list"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn services_by_themselves_make_the_streams_and_the_first_organization() {
    let nats = swarm_servers::testing::nats().await;
    let postgres = swarm_servers::testing::postgres().await;
    let dir = folder();
    let start = |service: &str| {
        swarm(dir.path())
            .args([
                "service",
                service,
                "--nats-url",
                &nats.url,
                "--database-url",
                &postgres.url,
            ])
            .env("SWARM_API_ADDR", "127.0.0.1:0")
            .env("SWARM_LOG_BYTES_MAX", crate::support::LOG_BYTES_MAX)
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .expect("starts")
    };
    let _coordinator = start("coordinator");
    let mut gateway = start("gateway");
    let mut stdout = tokio::io::BufReader::new(gateway.stdout.take().expect("piped"));
    let mut line = String::new();
    let read = tokio::io::AsyncBufReadExt::read_line(&mut stdout, &mut line);
    tokio::time::timeout(crate::support::PATIENCE, read)
        .await
        .expect("in time")
        .expect("read");
    assert!(line.contains("admin key swk_"), "{line}");
    // A service that is told to stop ends well.
    crate::support::kill(gateway.id().expect("runs"), rustix::process::Signal::TERM);
    assert!(gateway.wait().await.expect("ours").success());
}
