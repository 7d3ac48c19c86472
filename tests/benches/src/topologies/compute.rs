//! Real time that computing a topology takes, and what a join or a leave takes.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::ensure;
use serde::Serialize;
use swarm_events::{
    AgentId,
    topology::{Hierarchical, Topology},
};
use swarm_topology::{Member, Members, Shape};

use super::name;
use crate::distribution::seats::{members, write};

/// What computing all of it is to take at most.
const TARGET: Duration = Duration::from_millis(50);
/// Joins and leaves whose mean is taken.
const TIMES: u32 = 1_000;
/// Times that the whole is computed, of which the fastest counts: the others were held up by something else.
const WHOLE: u32 = 5;

/// Microseconds; those of one join or leave in hundredths.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    topology: &'static str,
    agents: usize,
    /// All seats, from nothing.
    whole: u128,
    /// A look at everybody when nothing is to be changed.
    settled: u128,
    join_hundredths: u128,
    /// Seats that a join changed, in hundredths of one on average.
    join_seats_hundredths: u128,
    leave_hundredths: u128,
    leave_seats_hundredths: u128,
    /// When whoever is above all others goes.
    top_leaves: u128,
    top_seats: usize,
}

/// Measures and prints.
///
/// # Errors
/// What is computed is not settled.
pub fn run(agents: u32) -> anyhow::Result<Vec<Figures>> {
    println!(
        "\ncomputing the topology of {agents} agents (the fastest of {WHOLE}; target below {} ms), and a join or leave of one \
         (mean of {TIMES})",
        TARGET.as_millis()
    );
    println!(
        "  {:<13} {:>10} {:>13} {:>10} {:>12} {:>10} {:>12} {:>22}",
        "topology",
        "whole ms",
        "settled ms",
        "join µs",
        "seats",
        "leave µs",
        "seats",
        "the top goes µs/seats"
    );
    let [star, mesh, _, ring] = super::workloads::topologies();
    let tree = Topology::Hierarchical(Hierarchical::default());
    [star, mesh, tree, ring]
        .iter()
        .map(|topology| measure(topology, agents as usize))
        .collect()
}

fn measure(topology: &Topology, agents: usize) -> anyhow::Result<Figures> {
    let mut all = members(agents);
    let mut shape = Shape::new(topology.clone());
    let mut whole = Duration::MAX;
    let mut changes = Vec::new();
    for _ in 0..WHOLE {
        let began = Instant::now();
        changes = shape.changes(&all);
        whole = whole.min(began.elapsed());
    }
    ensure!(changes.len() == agents, "everybody is to be seated");
    for change in &changes {
        write(&mut shape, change, 1)?;
    }
    let began = Instant::now();
    ensure!(shape.changes(&all).is_empty(), "it is not settled");
    let settled = began.elapsed();

    let (mut joins, mut leaves) = (Duration::ZERO, Duration::ZERO);
    let (mut join_seats, mut leave_seats) = (0, 0);
    for number in 0..u64::from(TIMES) {
        // Newcomers come, and agents from all over the swarm go.
        let newcomer = newcomer(number);
        let id = newcomer.id;
        all.insert(newcomer);
        let (took, seats) = around(&mut shape, &all, id)?;
        joins += took;
        join_seats += seats;
        let at = usize::try_from(number)? * 7_919 % all.len();
        let goes = all.iter().nth(at).map(|member| member.id);
        let goes = goes.unwrap_or(id);
        all.remove(goes);
        let (took, seats) = around(&mut shape, &all, goes)?;
        leaves += took;
        leave_seats += seats;
    }
    let top = shape.tops().next();
    let (top_leaves, top_seats) = match top {
        Some(top) => {
            all.remove(top);
            around(&mut shape, &all, top)?
        }
        None => (Duration::ZERO, 0),
    };
    ensure!(
        shape.changes(&all).is_empty(),
        "it is not settled at the end"
    );
    let times = u128::from(TIMES);
    let figures = Figures {
        topology: name(topology),
        agents,
        whole: whole.as_micros(),
        settled: settled.as_micros(),
        join_hundredths: joins.as_nanos() / 10 / times,
        join_seats_hundredths: join_seats as u128 * 100 / times,
        leave_hundredths: leaves.as_nanos() / 10 / times,
        leave_seats_hundredths: leave_seats as u128 * 100 / times,
        top_leaves: top_leaves.as_micros(),
        top_seats,
    };
    let hundredths = |value: u128| format!("{}.{:02}", value / 100, value % 100);
    println!(
        "  {:<13} {:>10} {:>13} {:>10} {:>12} {:>10} {:>12} {:>22} {}",
        figures.topology,
        hundredths(figures.whole / 10),
        hundredths(figures.settled / 10),
        hundredths(figures.join_hundredths),
        hundredths(figures.join_seats_hundredths),
        hundredths(figures.leave_hundredths),
        hundredths(figures.leave_seats_hundredths),
        format!("{}/{}", figures.top_leaves, figures.top_seats),
        if whole < TARGET {
            ""
        } else {
            "ABOVE THE TARGET"
        }
    );
    Ok(figures)
}

fn newcomer(number: u64) -> Member {
    let id = uuid::Uuid::from_u128(1_000_000 + u128::from(number));
    Member {
        id: AgentId(id),
        name: format!("newcomer-{number}"),
        agent_type: "bench".to_owned(),
        capabilities: Vec::new(),
        arrived: 1_000_000 + number,
        healthy: true,
    }
}

/// Finds and folds what follows from one agent: how long finding it took, and how many seats changed.
fn around(shape: &mut Shape, all: &Members, agent: AgentId) -> anyhow::Result<(Duration, usize)> {
    let agent = BTreeSet::from([agent]);
    let began = Instant::now();
    let changes = shape.changes_around(&agent, all);
    let took = began.elapsed();
    for change in &changes {
        write(shape, change, 1)?;
    }
    Ok((took, changes.len()))
}
