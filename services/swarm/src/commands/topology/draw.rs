//! A shape drawn for the terminal: a star and a tree as branches, a ring as a circle, a mesh by who is whose neighbour.

use std::{collections::HashMap, fmt::Write};

use serde_json::Value;

use super::graph::role;

/// Neighbours of an agent that are named one by one.
const NEIGHBOURS_NAMED: usize = 8;

fn list<'a>(shape: &'a Value, name: &str) -> &'a [Value] {
    shape[name].as_array().map_or(&[][..], Vec::as_slice)
}
fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value[name].as_str().unwrap_or_default()
}

/// The whole picture.
pub fn drawn(shape: &Value) -> String {
    let mut out = head(shape);
    let nodes = list(shape, "nodes");
    if nodes.is_empty() {
        out.push_str("no agent has a place yet\n");
        return out;
    }
    match text(shape, "topology") {
        "ring" => ring(nodes, &mut out),
        "mesh" => mesh(shape, nodes, &mut out),
        "hierarchical" => tree(nodes, &mut out),
        _ => star(nodes, &mut out),
    }
    out
}

fn head(shape: &Value) -> String {
    let nodes = list(shape, "nodes");
    let named = |id: &Value| {
        let found = nodes.iter().find(|node| node["agent_id"] == *id);
        found.map_or("?", |node| text(node, "agent_name"))
    };
    let mut out = format!(
        "{}, generation {}, {} {}",
        text(shape, "topology"),
        shape["generation"],
        nodes.len(),
        if nodes.len() == 1 { "agent" } else { "agents" }
    );
    if !shape["leader_agent_id"].is_null() {
        let _ = write!(out, ", led by {}", named(&shape["leader_agent_id"]));
    }
    if let Some(rate) = shape["messages"]["per_second"]
        .as_f64()
        .filter(|rate| *rate > 0.0)
    {
        let _ = write!(out, ", {rate:.1} messages/s");
    }
    out.push('\n');
    if let Some(options) = shape["configuration"]
        .as_object()
        .filter(|all| !all.is_empty())
    {
        let shown: Vec<String> = options
            .iter()
            .filter(|(_, value)| !is_nothing(value))
            .map(|(name, value)| format!("{name}={}", plain(value)))
            .collect();
        let _ = writeln!(out, "{}", shown.join(" "));
    }
    let change = &shape["change"];
    if change.is_object() {
        let _ = writeln!(
            out,
            "becomes {}: {} of {} agents have their new place ({})",
            text(change, "topology"),
            change["seated"],
            change["agents"],
            text(change, "reason")
        );
    }
    if let Some(suggestion) = list(shape, "suggestions").first()
        && suggestion["applied"] != true
    {
        let _ = writeln!(
            out,
            "{} would be better: {} is {}, above {}",
            text(suggestion, "topology"),
            text(suggestion, "rule"),
            suggestion["figure"],
            suggestion["limit"]
        );
    }
    out.push('\n');
    out
}

/// Null, or nothing in it.
fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(members) => members.values().all(is_nothing),
        _ => false,
    }
}

fn plain(value: &Value) -> String {
    value
        .as_str()
        .map_or_else(|| value.to_string(), str::to_owned)
}

/// An agent in one line.
fn line(node: &Value) -> String {
    let mut line = format!(
        "{}  {}  {}",
        text(node, "agent_name"),
        role(node),
        text(node, "status")
    );
    let running = node["running"].as_u64().unwrap_or(0);
    let waiting = node["waiting"].as_u64().unwrap_or(0);
    if running > 0 {
        let _ = write!(line, " {running}/{}", node["slots"]);
    }
    if waiting > 0 {
        let _ = write!(line, " +{waiting}");
    }
    line
}

/// Hubs, and below them everybody else: each has an edge to every hub.
fn star(nodes: &[Value], out: &mut String) {
    let (hubs, others): (Vec<&Value>, Vec<&Value>) =
        nodes.iter().partition(|node| node["role"] == "coordinator");
    for hub in &hubs {
        let _ = writeln!(out, "{}", line(hub));
    }
    if hubs.is_empty() {
        out.push_str("(the hub's place is empty)\n");
    }
    branches(&others, "", &mut |_, _, _| {}, out);
}

fn tree(nodes: &[Value], out: &mut String) {
    let mut children: HashMap<&str, Vec<&Value>> = HashMap::new();
    let is_there = |id: &str| nodes.iter().any(|node| text(node, "agent_id") == id);
    let mut tops = Vec::new();
    for node in nodes {
        match node["parent"].as_str().filter(|parent| is_there(parent)) {
            Some(parent) => children.entry(parent).or_default().push(node),
            None => tops.push(node),
        }
    }
    for top in tops {
        let _ = writeln!(out, "{}", line(top));
        below(text(top, "agent_id"), "", &children, out);
    }
}

fn below(id: &str, prefix: &str, children: &HashMap<&str, Vec<&Value>>, out: &mut String) {
    let Some(of) = children.get(id) else { return };
    branches(
        of,
        prefix,
        &mut |node, prefix, out| {
            below(text(node, "agent_id"), prefix, children, out);
        },
        out,
    );
}

/// One line for each, and what is below it.
fn branches(
    nodes: &[&Value],
    prefix: &str,
    then: &mut dyn FnMut(&Value, &str, &mut String),
    out: &mut String,
) {
    for (at, node) in nodes.iter().enumerate() {
        let (branch, trunk) = if at + 1 == nodes.len() {
            ("└─ ", "   ")
        } else {
            ("├─ ", "│  ")
        };
        let _ = writeln!(out, "{prefix}{branch}{}", line(node));
        then(node, &format!("{prefix}{trunk}"), out);
    }
}

/// From the lowest place around and back.
fn ring(nodes: &[Value], out: &mut String) {
    if let [alone] = nodes {
        let _ = writeln!(out, "⟳ {}", line(alone));
        return;
    }
    for (at, node) in nodes.iter().enumerate() {
        let side = match at {
            0 => "┌→",
            at if at + 1 == nodes.len() => "└─",
            _ => "│ ",
        };
        let _ = writeln!(out, "{side} {}", line(node));
        if at + 1 < nodes.len() {
            out.push_str("│  ↓\n");
        }
    }
}

/// Each with its neighbours; of a full one that is said once.
fn mesh(shape: &Value, nodes: &[Value], out: &mut String) {
    let edges = list(shape, "edges");
    let count = nodes.len();
    if shape["edges_truncated"] == true || (count > 2 && edges.len() == count * (count - 1) / 2) {
        for node in nodes {
            let _ = writeln!(out, "● {}", line(node));
        }
        out.push_str("each is the neighbour of all the others\n");
        return;
    }
    let names: HashMap<&str, &str> = nodes
        .iter()
        .map(|node| (text(node, "agent_id"), text(node, "agent_name")))
        .collect();
    let mut neighbours: HashMap<&str, Vec<&str>> = HashMap::new();
    for edge in edges {
        let (from, to) = (text(edge, "from"), text(edge, "to"));
        for (one, other) in [(from, to), (to, from)] {
            let name = names.get(other).copied().unwrap_or("?");
            neighbours.entry(one).or_default().push(name);
        }
    }
    for node in nodes {
        let of = neighbours.get(text(node, "agent_id"));
        let of = of.map_or(&[][..], Vec::as_slice);
        let shown = of[..of.len().min(NEIGHBOURS_NAMED)].join(", ");
        let more = match of.len().saturating_sub(NEIGHBOURS_NAMED) {
            0 => String::new(),
            more => format!(" and {more} more"),
        };
        let _ = match of {
            [] => writeln!(out, "● {}", line(node)),
            _ => writeln!(out, "● {} ─ {shown}{more}", line(node)),
        };
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn node(name: &str, role: &str, parent: Option<&str>) -> Value {
        json!({"agent_id": name, "agent_name": name, "role": role, "parent": parent, "works": role == "worker",
            "standby": false, "status": "idle", "is_leader": false, "running": 0, "waiting": 0, "slots": 1})
    }
    fn shape(topology: &str, nodes: Vec<Value>, edges: &[(&str, &str)]) -> Value {
        let edges: Vec<Value> = edges
            .iter()
            .map(|(from, to)| json!({"from": from, "to": to}))
            .collect();
        json!({"topology": topology, "generation": 2, "leader_agent_id": nodes.first().map(|node| node["agent_id"].clone()),
            "configuration": {}, "nodes": nodes, "edges": edges, "edges_truncated": false, "messages": {"per_second": null},
            "change": null, "suggestions": []})
    }
    /// The picture without its head.
    fn picture(shape: &Value) -> String {
        let drawn = drawn(shape);
        drawn.split_once("\n\n").expect("a head").1.to_owned()
    }

    #[test]
    fn a_tree_has_branches_down_to_the_last_level() {
        let mut busy = node("w1", "worker", Some("left"));
        busy["status"] = json!("busy");
        busy["running"] = json!(1);
        busy["waiting"] = json!(2);
        let nodes = vec![
            node("top", "coordinator", None),
            node("left", "supervisor", Some("top")),
            node("right", "supervisor", Some("top")),
            busy,
            node("w2", "worker", Some("left")),
            node("w3", "worker", Some("right")),
        ];
        assert_eq!(
            picture(&shape("hierarchical", nodes, &[])),
            "\
top  coordinator  idle
├─ left  supervisor  idle
│  ├─ w1  worker  busy 1/1 +2
│  └─ w2  worker  idle
└─ right  supervisor  idle
   └─ w3  worker  idle
"
        );
    }

    #[test]
    fn a_child_whose_parent_is_not_there_is_drawn_at_the_top() {
        let nodes = vec![node("w", "worker", Some("gone"))];
        assert_eq!(
            picture(&shape("hierarchical", nodes, &[])),
            "w  worker  idle\n"
        );
    }

    #[test]
    fn a_star_has_its_hub_above_and_says_who_stands_by() {
        let mut standby = node("b", "worker", None);
        standby["standby"] = json!(true);
        let mut beyond = node("c", "worker", None);
        beyond["works"] = json!(false);
        let mut hub = node("hub", "coordinator", None);
        hub["works"] = json!(true);
        hub["is_leader"] = json!(true);
        assert_eq!(
            picture(&shape("star", vec![hub, standby.clone(), beyond], &[])),
            "\
hub  coordinator, leader, works too  idle
├─ b  worker, stands by  idle
└─ c  worker, gets no tasks  idle
"
        );
        let empty = picture(&shape("star", vec![standby], &[]));
        assert!(
            empty.starts_with("(the hub's place is empty)\n└─ b"),
            "{empty}"
        );
    }

    #[test]
    fn a_ring_goes_around() {
        let workers = |names: &[&str]| {
            names
                .iter()
                .map(|name| node(name, "worker", None))
                .collect()
        };
        assert_eq!(
            picture(&shape("ring", workers(&["a", "b", "c"]), &[])),
            "┌→ a  worker  idle\n│  ↓\n│  b  worker  idle\n│  ↓\n└─ c  worker  idle\n"
        );
        assert_eq!(
            picture(&shape("ring", workers(&["a"]), &[])),
            "⟳ a  worker  idle\n"
        );
        assert_eq!(
            picture(&shape("ring", Vec::new(), &[])),
            "no agent has a place yet\n"
        );
    }

    #[test]
    fn a_mesh_names_neighbours_unless_it_is_full() {
        let workers = || {
            ["a", "b", "c"]
                .map(|name| node(name, "worker", None))
                .to_vec()
        };
        let some = picture(&shape("mesh", workers(), &[("a", "b"), ("b", "c")]));
        assert_eq!(
            some,
            "● a  worker  idle ─ b\n● b  worker  idle ─ a, c\n● c  worker  idle ─ b\n"
        );
        let full = picture(&shape(
            "mesh",
            workers(),
            &[("a", "b"), ("b", "c"), ("a", "c")],
        ));
        assert!(
            full.ends_with("each is the neighbour of all the others\n") && !full.contains('─'),
            "{full}"
        );
        let none = picture(&shape("mesh", workers(), &[]));
        assert_eq!(
            none,
            "● a  worker  idle\n● b  worker  idle\n● c  worker  idle\n"
        );
    }

    #[test]
    fn the_head_says_what_holds_what_comes_and_what_would_be_better() {
        let mut shape = shape("star", vec![node("a", "worker", None)], &[]);
        shape["configuration"] = json!({"coordinator_count": 1, "max_workers": null, "workers": [], "coordinator": {"agent_id": null}});
        shape["messages"] = json!({"per_second": 2.5});
        shape["change"] =
            json!({"topology": "ring", "seated": 1, "agents": 3, "reason": "by order"});
        shape["suggestions"] = json!([{"topology": "mesh", "rule": "failure_rate_percent", "figure": 40, "limit": 30, "applied": false}]);
        let drawn = drawn(&shape);
        assert_eq!(
            drawn.split_once("\n\n").expect("a head").0,
            "\
star, generation 2, 1 agent, led by a, 2.5 messages/s
coordinator_count=1
becomes ring: 1 of 3 agents have their new place (by order)
mesh would be better: failure_rate_percent is 40, above 30"
        );
    }
}
