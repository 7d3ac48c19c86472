//! A leader that is lost is replaced, and does not come back as one.

use rustix::process::Signal;
use serde_json::json;

use super::seated;
use crate::{
    agents::Crew,
    support::{Installation, PATIENCE, eventually, kill},
};

/// The hub of a star is killed: the one that stands by takes its place.
pub async fn all(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "leaders", json!({})).await;
    let mut agents = Vec::new();
    for name in ["eldest", "second", "third"] {
        let agent = crew.exec(name, "echo '{}'").await;
        crew.idle(&agent).await;
        agents.push(agent);
    }
    let shape = seated(swarm, &crew.id, 3).await;
    assert_eq!(shape["leader_agent_id"], agents[0], "{shape}");
    let path = crew.path("");
    eventually("the read model shows the leader", PATIENCE, || async {
        (swarm.get(&path).await["leader_agent_id"] == agents[0]).then_some(())
    })
    .await;
    let process = crew.idle(&agents[0]).await;
    kill(process, Signal::KILL);
    let (_, elected) = crew
        .record
        .until("another one leads", |_, event| {
            event["type"] == "swarm.swarm.leader_elected.v1" && event["data"]["before"] == agents[0]
        })
        .await;
    assert_eq!(elected["data"]["leader"], agents[1], "{elected}");
    let why = elected["data"]["reason"].as_str().expect("why");
    assert!(!why.is_empty(), "{elected}");
    // The host has started the first one anew: it is a worker now, and nothing flaps.
    crew.idle(&agents[0]).await;
    let shape = seated(swarm, &crew.id, 3).await;
    assert_eq!(shape["leader_agent_id"], agents[1], "{shape}");
    let task = crew.task(json!({})).await;
    crew.record.task("completed", &task).await;
}
