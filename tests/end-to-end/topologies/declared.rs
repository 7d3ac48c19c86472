//! A swarm as a file says it: made, shown as a difference, changed, and left alone when nothing differs.

use serde_json::json;

use super::seated;
use crate::support::{Installation, said};

const FILE: &str = "\
name: declared
description: Three readers in a ring
topology: ring
topology_configuration:
  token_timeout_ms: 2000
configuration:
  min_agents: 1
agents:
  - agent_type: reader
    agent_name: reader
    count: 3
    adapter: exec
    command: [cat]
";

/// The hub and one of the two who work are not there yet.
const NAMED: &str = "\
name: declared
topology: star
topology_configuration:
  coordinator: {agent_name: head}
  workers: [reader-1, reader-4]
agents:
  - {agent_type: reader, agent_name: reader, count: 4, adapter: exec, command: [cat]}
  - {agent_type: hub, agent_name: head, adapter: exec, command: [cat]}
";

pub async fn all(swarm: &Installation) {
    let file = swarm.dir().join("swarm.yaml");
    std::fs::write(&file, FILE).expect("written");
    let path = file.to_str().expect("UTF-8");
    let planned = swarm.cli(&["apply", "-f", path, "--dry-run"]).await;
    assert!(planned.status.success(), "{}", said(&planned));
    let listed = swarm.get("/v1/swarms?limit=100").await;
    let there = |listed: &serde_json::Value| {
        let items = listed["items"].as_array().expect("items").iter();
        items
            .clone()
            .find(|one| one["name"] == "declared")
            .map(|one| one["id"].as_str().expect("an id").to_owned())
    };
    assert_eq!(there(&listed), None, "a dry run makes nothing");
    let applied = swarm.cli(&["apply", "-f", path]).await;
    assert!(applied.status.success(), "{}", said(&applied));
    let id = there(&swarm.get("/v1/swarms?limit=100").await).expect("made");
    let shape = seated(swarm, &id, 3).await;
    assert_eq!(shape["topology"], "ring", "{shape}");
    assert_eq!(shape["configuration"]["token_timeout_ms"], 2_000, "{shape}");
    // Again: nothing to do.
    let again = swarm.cli_json(&["apply", "-f", path]).await;
    assert_eq!(again["changes"], json!([]), "{again}");
    let changed = FILE.replace("topology: ring", "topology: mesh").replace(
        "  token_timeout_ms: 2000\n",
        "  connection_strategy: nearest\n",
    );
    std::fs::write(&file, changed).expect("written");
    let applied = swarm.cli(&["apply", "-f", path]).await;
    assert!(applied.status.success(), "{}", said(&applied));
    let shape = seated(swarm, &id, 3).await;
    assert_eq!(shape["topology"], "mesh", "{shape}");
    // A topology that names agents which come by the same file waits for them.
    std::fs::write(&file, NAMED).expect("written");
    let applied = swarm.cli(&["apply", "-f", path]).await;
    assert!(applied.status.success(), "{}", said(&applied));
    let shape = seated(swarm, &id, 5).await;
    assert_eq!(shape["topology"], "star", "{shape}");
    let nodes = shape["nodes"].as_array().expect("nodes");
    let named = |wanted: &dyn Fn(&serde_json::Value) -> bool| {
        let found = nodes.iter().filter(|node| wanted(node));
        let names = found.map(|node| node["agent_name"].as_str().expect("a name"));
        names.collect::<std::collections::BTreeSet<_>>()
    };
    let hubs = named(&|node| node["role"] == "coordinator");
    assert_eq!(hubs, ["head"].into(), "{shape}");
    let workers = named(&|node| node["works"] == true);
    assert_eq!(workers, ["reader-1", "reader-4"].into(), "{shape}");
}
