//! Three nats-servers: one of them is lost, and work goes on.

use serde_json::json;

use crate::support::{
    Agent, Installation, PATIENCE, WORK, assert_each_completed_once, eventually, said, script,
    under_load, until_more_complete,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_loses_the_leader_of_its_log_and_no_task() {
    let swarm = Installation::start_with(&["--cluster"]).await;
    let status = swarm.cli_json(&["status"]).await;
    let services = status["services"].as_array().expect("services");
    let servers = services
        .iter()
        .filter(|row| row["service"] == "nats-server");
    assert_eq!(servers.count(), 3, "{status}");
    assert_eq!(status["log"]["replicas"], 3, "{status}");
    assert_eq!(swarm.field("nats_url").split(',').count(), 3);
    let leader = status["log"]["leader"]
        .as_str()
        .expect("a leader")
        .to_owned();

    let id = swarm.swarm("cluster", json!({})).await;
    let work = script(swarm.dir(), "work.sh", WORK);
    let _agents: Vec<Agent> = (0..3)
        .map(|n| Agent::start(&swarm, &id, &format!("a{n}"), &[], &work))
        .collect();
    swarm.until_idle(&id, 3).await;
    let submitted = under_load(&swarm, &id, 0, async {
        swarm.kill_service(&leader).await;
        until_more_complete(&swarm, &id, 5).await;
    })
    .await;
    assert_each_completed_once(&swarm, &id, submitted).await;
    eventually("the killed server is healthy again", PATIENCE, || async {
        let status = swarm.cli(&["status"]).await;
        eprintln!("{}", said(&status));
        status.status.success().then_some(())
    })
    .await;

    // Its log is that of a cluster: a single server would not find it, and says so.
    let down = swarm.cli(&["down"]).await;
    assert!(down.status.success(), "{}", said(&down));
    let single = swarm.cli(&["up", "--detach", "--any-ports"]).await;
    assert_eq!(single.status.code(), Some(1), "{}", said(&single));
    assert!(said(&single).contains("--cluster"), "{}", said(&single));
}
