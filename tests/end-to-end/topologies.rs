//! Topologies as a scene through the real API and command line: each of the four routes tasks its way, one is changed into
//! another under load, leaders are replaced, tasks are split and handed to other swarms, and people are asked. Acts share an
//! installation, each with a swarm of its own.

mod abroad;
mod answered;
mod asked;
mod changes;
mod declared;
mod leaders;
mod parts;
mod routes;
mod talk;

use serde_json::{Value, json};

use crate::support::{Installation, PATIENCE, eventually, said};

/// Creates a swarm of this shape and answers with its id.
async fn shaped(
    swarm: &Installation,
    name: &str,
    topology: &str,
    options: Value,
    configuration: Value,
) -> String {
    let wanted = json!({
        "name": name, "topology": topology, "topology_configuration": options,
        "configuration": configuration,
    });
    let made = swarm.post("/v1/swarms", &wanted).await;
    assert_eq!(made["topology"], topology, "{made}");
    made["id"].as_str().expect("an id").to_owned()
}

/// The shape of a swarm once so many agents have their places in it.
async fn seated(swarm: &Installation, id: &str, agents: usize) -> Value {
    eventually(
        &format!("{agents} agents have places"),
        PATIENCE,
        || async {
            let shape = swarm.get(&format!("/v1/swarms/{id}/topology")).await;
            (shape["nodes"].as_array()?.len() == agents).then_some(shape)
        },
    )
    .await
}

/// A node of a shape, by its agent.
fn node<'a>(shape: &'a Value, agent: &str) -> &'a Value {
    let nodes = shape["nodes"].as_array().expect("nodes");
    nodes
        .iter()
        .find(|node| node["agent_id"] == agent)
        .unwrap_or_else(|| panic!("no node of {agent}: {shape}"))
}

/// The edges of a shape, each with the smaller id first.
fn edges(shape: &Value) -> Vec<(String, String)> {
    let edges = shape["edges"].as_array().expect("edges");
    let mut pairs: Vec<(String, String)> = edges
        .iter()
        .map(|edge| {
            let end = |name: &str| edge[name].as_str().expect("an id").to_owned();
            let (a, b) = (end("from"), end("to"));
            if a < b { (a, b) } else { (b, a) }
        })
        .collect();
    pairs.sort();
    pairs.dedup();
    pairs
}

/// What is refused: the problem, which must name this field.
async fn refused(swarm: &Installation, path: &str, body: Value, field: &str) -> Value {
    let (status, problem) = swarm
        .request(reqwest::Method::PUT, path, Some(&body))
        .await
        .expect("answers");
    assert!((400..500).contains(&status), "{body}: {status} {problem}");
    let told = problem.to_string();
    assert!(told.contains(field), "{body} names no {field}: {problem}");
    problem
}

async fn over(swarm: &Installation) {
    let audit = swarm.cli(&["audit"]).await;
    assert_eq!(audit.status.code(), Some(0), "{}", said(&audit));
}

#[tokio::test(flavor = "multi_thread")]
async fn each_topology_routes_tasks_its_way() {
    let swarm = Installation::start().await;
    tokio::join!(
        routes::star(&swarm),
        routes::mesh(&swarm),
        routes::tree(&swarm),
        routes::ring(&swarm),
    );
    routes::what_cannot_be(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_topology_becomes_every_other_under_load() {
    let swarm = Installation::start().await;
    changes::all_pairs(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_that_is_lost_is_replaced() {
    let swarm = Installation::start().await;
    leaders::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_done_in_parts_below_who_split_it() {
    let swarm = Installation::start().await;
    parts::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_ask_and_people_answer() {
    let swarm = Installation::start().await;
    asked::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn another_swarm_does_a_task_and_its_result_comes_back() {
    let swarm = Installation::start().await;
    abroad::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_says_what_a_swarm_is() {
    let swarm = Installation::start().await;
    declared::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_question_outlives_the_leader_that_was_asked() {
    let swarm = Installation::start().await;
    answered::all(&swarm).await;
    over(&swarm).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_talk_along_the_edges() {
    let swarm = Installation::start().await;
    talk::all(&swarm).await;
    over(&swarm).await;
}
