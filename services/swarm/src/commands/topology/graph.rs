//! A shape as a graph in the languages of other programs.

use std::fmt::Write;

use serde_json::Value;

/// A swarm's shape, as far as it is drawn.
#[derive(Debug, Default, PartialEq)]
pub struct Graph {
    /// Edges lead one way.
    pub directed: bool,
    /// There are more edges than are here.
    pub truncated: bool,
    /// By id.
    pub nodes: Vec<Node>,
    /// By the numbers of their nodes, with the messages on them.
    pub edges: Vec<(usize, usize, u64)>,
}

/// An agent.
#[derive(Debug, Default, PartialEq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// What it is, in words.
    pub role: String,
    /// Its level in the tree.
    pub level: u64,
    /// `idle`, `busy`, …
    pub status: String,
    /// It leads.
    pub is_leader: bool,
}

impl Graph {
    /// The graph of what the gateway answers.
    pub fn of(shape: &Value) -> Self {
        let list = |name: &str| shape[name].as_array().map_or(&[][..], Vec::as_slice);
        let ids: Vec<&Value> = list("nodes").iter().map(|node| &node["agent_id"]).collect();
        let at: std::collections::HashMap<&str, usize> = ids
            .iter()
            .enumerate()
            .filter_map(|(at, id)| Some((id.as_str()?, at)))
            .collect();
        let end = |edge: &Value, name: &str| at.get(edge[name].as_str()?).copied();
        Self {
            directed: shape["topology"] == "ring",
            truncated: shape["edges_truncated"] == true,
            nodes: list("nodes").iter().map(Node::of).collect(),
            edges: list("edges")
                .iter()
                .filter_map(|edge| {
                    let messages = edge["messages"].as_u64().unwrap_or(0);
                    Some((end(edge, "from")?, end(edge, "to")?, messages))
                })
                .collect(),
        }
    }
}

impl Node {
    fn of(node: &Value) -> Self {
        let text = |name: &str| node[name].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("agent_name"),
            role: role(node),
            level: node["level"].as_u64().unwrap_or(0),
            status: text("status"),
            is_leader: node["is_leader"] == true,
        }
    }
}

/// What a node is: its role, and what is special about its place.
pub fn role(node: &Value) -> String {
    let mut role = node["role"].as_str().unwrap_or_default().to_owned();
    if node["is_leader"] == true {
        role.push_str(", leader");
    }
    if node["standby"] == true {
        role.push_str(", stands by");
    }
    let is_worker = node["role"] == "worker";
    match (is_worker, node["works"] == true) {
        (true, false) => role.push_str(", gets no tasks"),
        (false, true) => role.push_str(", works too"),
        _ => {}
    }
    role
}

/// The language of Graphviz.
pub fn dot(graph: &Graph) -> String {
    let (kind, arrow) = if graph.directed {
        ("digraph", "->")
    } else {
        ("graph", "--")
    };
    let mut text = format!("{kind} swarm {{\n  node [shape=box, style=rounded];\n");
    for (at, node) in graph.nodes.iter().enumerate() {
        let label = format!("{}\n{}\n{}", node.name, node.role, node.status);
        let bold = if node.is_leader { ", penwidth=3" } else { "" };
        let _ = writeln!(text, "  n{at} [label={}{bold}];", quoted(&label));
    }
    for (from, to, messages) in &graph.edges {
        let label = match messages {
            0 => String::new(),
            messages => format!(" [label=\"{messages}\"]"),
        };
        let _ = writeln!(text, "  n{from} {arrow} n{to}{label};");
    }
    if graph.truncated {
        text.push_str("  // more edges than are shown\n");
    }
    text.push_str("}\n");
    text
}

/// A string of Graphviz.
fn quoted(text: &str) -> String {
    let mut quoted = "\"".to_owned();
    for c in text.chars() {
        match c {
            '"' => quoted.push_str("\\\""),
            '\\' => quoted.push_str("\\\\"),
            '\n' => quoted.push_str("\\n"),
            c if c.is_control() => quoted.push(' '),
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// The language of Mermaid.
pub fn mermaid(graph: &Graph) -> String {
    let arrow = if graph.directed { "-->" } else { "---" };
    let mut text = "flowchart TD\n".to_owned();
    for (at, node) in graph.nodes.iter().enumerate() {
        let parts = [&node.name, &node.role, &node.status].map(|part| entities(part));
        let _ = writeln!(text, "  n{at}[\"{}\"]", parts.join("<br/>"));
    }
    for (from, to, messages) in &graph.edges {
        let label = match messages {
            0 => String::new(),
            messages => format!("|{messages}|"),
        };
        let _ = writeln!(text, "  n{from} {arrow}{label} n{to}");
    }
    for (at, _) in graph
        .nodes
        .iter()
        .enumerate()
        .filter(|(_, node)| node.is_leader)
    {
        let _ = writeln!(text, "  style n{at} stroke-width:3px");
    }
    if graph.truncated {
        text.push_str("  %% more edges than are shown\n");
    }
    text
}

/// Text for a label of Mermaid: what could end it, or be taken for markup, by number.
fn entities(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_alphanumeric() || " -_.,:/()".contains(c) {
            safe.push(c);
        } else {
            let _ = write!(safe, "#{};", u32::from(c));
        }
    }
    safe
}

#[cfg(test)]
mod tests;
