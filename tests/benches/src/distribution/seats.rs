//! What the coordinator writes of a topology: the seats of all agents, and who leads.

use anyhow::{Context, anyhow, ensure};
use swarm_events::{
    Body, Input, Subject,
    subject::{AgentVerb, SwarmVerb},
    topology::{LeaderElected, Topology},
};
use swarm_topology::{Change, Member, Members, Shape};

use crate::feed::{self, BEGINNING, Feed};

/// Plain agents 0 to `agents` − 1, as the rules see them.
pub fn members(agents: usize) -> Members {
    (0..agents)
        .filter_map(|number| u32::try_from(number).ok())
        .map(|number| Member {
            id: feed::agent_id(number),
            name: format!("bench-{number}"),
            agent_type: "bench".to_owned(),
            capabilities: Vec::new(),
            arrived: u64::from(number) + 1,
            healthy: true,
        })
        .collect()
}

/// The shape of so many agents, and the events that say so.
///
/// # Errors
/// A seat is void, or not all are settled by them.
pub fn seat(
    feed: &mut Feed,
    topology: &Topology,
    agents: usize,
) -> anyhow::Result<(Shape, Vec<Input>)> {
    let members = members(agents);
    let mut shape = Shape::new(topology.clone());
    let mut inputs = Vec::new();
    for change in shape.changes(&members) {
        write(&mut shape, &change, 1)?;
        inputs.push(event(feed, &change, 1));
    }
    ensure!(
        shape.changes(&members).is_empty(),
        "the seats do not settle"
    );
    let election = shape.elect(&members).context("nobody is elected")?;
    let elected = LeaderElected {
        leader: election.leader,
        incarnation: 1,
        before: None,
        reason: election.reason,
        eligible: election.eligible,
    };
    let body = Body::from(elected);
    shape.apply(None, &body).map_err(|why| anyhow!(why))?;
    let subject = Subject::Swarm(feed.place, SwarmVerb::LeaderElected);
    let swarm = feed.place.swarm.0;
    inputs.push(feed.by_coordinator(BEGINNING, subject, swarm, body));
    Ok((shape, inputs))
}

/// Folds a change.
///
/// # Errors
/// It is void.
pub fn write(shape: &mut Shape, change: &Change, generation: u64) -> anyhow::Result<()> {
    let body = Body::from(change.seated(generation));
    let applied = shape.apply(Some(change.agent), &body);
    applied.map(|_| ()).map_err(|why| anyhow!(why))
}

/// A change as the log has it.
pub fn event(feed: &mut Feed, change: &Change, generation: u64) -> Input {
    let subject = Subject::Agent(feed.place, AgentVerb::Seated, change.agent);
    let body = change.seated(generation).into();
    feed.by_coordinator(BEGINNING, subject, change.agent.0, body)
}
