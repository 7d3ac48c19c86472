//! What is written can be read: by a small parser of each language, as far as we write it.

use std::collections::BTreeMap;

use serde_json::json;

use super::*;

fn shape(topology: &str, names: &[&str], edges: &[(usize, usize, u64)]) -> Value {
    let id = |at: usize| format!("id-{at}");
    let nodes: Vec<Value> = names
        .iter()
        .enumerate()
        .map(|(at, name)| {
            json!({"agent_id": id(at), "agent_name": name, "role": if at == 0 { "coordinator" } else { "worker" },
                "level": u64::from(at > 0), "works": at > 0, "standby": at == 1, "status": "idle", "is_leader": at == 0})
        })
        .collect();
    let edges: Vec<Value> = edges
        .iter()
        .map(|(from, to, messages)| json!({"from": id(*from), "to": id(*to), "messages": messages}))
        .collect();
    json!({"topology": topology, "nodes": nodes, "edges": edges, "edges_truncated": false})
}

#[derive(Debug, Default, PartialEq)]
struct Read {
    directed: bool,
    labels: BTreeMap<String, String>,
    edges: Vec<(String, String, Option<String>)>,
}

/// The part of a text up to the closing quotation mark, with what was escaped, and the rest behind it.
fn string(text: &str) -> (String, &str) {
    let rest = text.strip_prefix('"').expect("a quotation mark");
    let mut read = String::new();
    let mut chars = rest.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return (read, &rest[at + 1..]),
            '\\' => match chars.next().expect("something escaped").1 {
                'n' => read.push('\n'),
                other => read.push(other),
            },
            c => read.push(c),
        }
    }
    panic!("{text} does not end");
}

fn read_dot(text: &str) -> Read {
    let mut lines = text.lines();
    let head = lines.next().expect("a head");
    let directed = match head {
        "digraph swarm {" => true,
        "graph swarm {" => false,
        other => panic!("{other}"),
    };
    let mut read = Read {
        directed,
        ..Read::default()
    };
    let arrow = if directed { " -> " } else { " -- " };
    let mut ended = false;
    for line in lines {
        assert!(!ended, "something behind the end: {line}");
        if line == "}" {
            ended = true;
            continue;
        }
        if line.trim_start().starts_with("//") || line.trim_start().starts_with("node [") {
            continue;
        }
        let statement = line.trim().strip_suffix(';').expect("a semicolon");
        let (what, attributes) = match statement.split_once(" [label=") {
            Some((what, label)) => {
                let (label, rest) = string(label);
                assert!(["]", ", penwidth=3]"].contains(&rest), "{rest}");
                (what, Some(label))
            }
            None => (statement, None),
        };
        match what.split_once(arrow) {
            Some((from, to)) => read
                .edges
                .push((from.to_owned(), to.to_owned(), attributes)),
            None => {
                let label = attributes.expect("a node has a label");
                assert_eq!(
                    read.labels.insert(what.to_owned(), label),
                    None,
                    "{what} twice"
                );
            }
        }
    }
    assert!(ended, "no end");
    read
}

fn read_mermaid(text: &str) -> Read {
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("flowchart TD"));
    let mut read = Read::default();
    for line in lines.map(str::trim) {
        if line.starts_with("%%") || line.starts_with("style ") {
            continue;
        }
        if let Some((id, label)) = line.split_once("[\"") {
            let label = label.strip_suffix("\"]").expect("its end");
            assert!(!label.contains('"'), "{label}");
            read.labels.insert(id.to_owned(), unescaped(label));
            continue;
        }
        read.directed = line.contains("-->");
        let arrow = if read.directed { " -->" } else { " ---" };
        let (from, rest) = line.split_once(arrow).expect("an edge");
        let (label, to) = match rest.strip_prefix('|') {
            Some(rest) => {
                let (label, to) = rest.split_once("| ").expect("a label's end");
                (Some(label.to_owned()), to)
            }
            None => (None, rest.trim()),
        };
        read.edges.push((from.to_owned(), to.to_owned(), label));
    }
    read
}

fn unescaped(label: &str) -> String {
    let parts: Vec<String> = label.split("<br/>").map(part).collect();
    parts.join("\n")
}
fn part(text: &str) -> String {
    let mut read = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('#') {
        let (number, behind) = after.split_once(';').expect("an entity's end");
        read.push_str(before);
        let number: u32 = number.parse().expect("a number");
        read.push(char::from_u32(number).expect("a character"));
        rest = behind;
    }
    read.push_str(rest);
    read
}

/// Names that could be taken for something else.
const NAMES: [&str; 5] = [
    "hub",
    "a \"b\" \\ c",
    "[x] --> y; |z|",
    "<br/>#35;",
    "grün } ]",
];

#[test]
fn every_node_and_edge_is_read_back_whatever_the_names_are() {
    for (topology, directed) in [
        ("ring", true),
        ("star", false),
        ("mesh", false),
        ("hierarchical", false),
    ] {
        let edges = [(0, 1, 0), (0, 2, 7), (0, 3, 0), (3, 4, 1)];
        let graph = Graph::of(&shape(topology, &NAMES, &edges));
        assert_eq!(
            (graph.nodes.len(), graph.edges.len(), graph.directed),
            (5, 4, directed)
        );
        for read in [read_dot(&dot(&graph)), read_mermaid(&mermaid(&graph))] {
            assert_eq!(read.directed, directed, "{topology}");
            assert_eq!(read.labels.len(), NAMES.len());
            for (at, name) in NAMES.iter().enumerate() {
                let role = ["coordinator, leader", "worker, stands by"]
                    .get(at)
                    .unwrap_or(&"worker");
                assert_eq!(
                    read.labels[&format!("n{at}")],
                    format!("{name}\n{role}\nidle")
                );
            }
            let wanted = edges.map(|(from, to, messages)| {
                let label = (messages > 0).then(|| messages.to_string());
                (format!("n{from}"), format!("n{to}"), label)
            });
            assert_eq!(read.edges, wanted);
            let known = |id: &String| read.labels.contains_key(id);
            assert!(
                read.edges
                    .iter()
                    .all(|(from, to, _)| known(from) && known(to))
            );
        }
    }
}

#[test]
fn edges_of_agents_that_are_not_there_are_left_out() {
    let mut shape = shape("mesh", &["a", "b"], &[(0, 1, 0)]);
    shape["edges"][0]["to"] = json!("somebody");
    assert_eq!(Graph::of(&shape).edges, []);
    assert_eq!(Graph::of(&json!({})), Graph::default());
}

#[test]
fn what_is_left_out_is_said() {
    let mut shape = shape("mesh", &["a", "b"], &[(0, 1, 0)]);
    shape["edges_truncated"] = json!(true);
    let graph = Graph::of(&shape);
    assert!(dot(&graph).contains("more edges") && mermaid(&graph).contains("more edges"));
}

#[test]
fn the_text_is_this() {
    let graph = Graph::of(&shape("star", &["hub", "w"], &[(0, 1, 3)]));
    assert_eq!(
        dot(&graph),
        "graph swarm {\n  node [shape=box, style=rounded];\n  n0 [label=\"hub\\ncoordinator, leader\\nidle\", penwidth=3];\n  \
         n1 [label=\"w\\nworker, stands by\\nidle\"];\n  n0 -- n1 [label=\"3\"];\n}\n"
    );
    assert_eq!(
        mermaid(&graph),
        "flowchart TD\n  n0[\"hub<br/>coordinator, leader<br/>idle\"]\n  n1[\"w<br/>worker, stands by<br/>idle\"]\n  \
         n0 ---|3| n1\n  style n0 stroke-width:3px\n"
    );
}
