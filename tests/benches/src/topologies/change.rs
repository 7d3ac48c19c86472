//! A live change in the real core: how long the owner is kept from handing out tasks.

use std::time::{Duration, Instant};

use anyhow::{bail, ensure};
use serde::Serialize;
use swarm_distributor_core::Distributor;
use swarm_events::{
    Body, Input, Json, Service, Subject,
    configuration::Configuration,
    decider::{Decider, Decision, Verdict},
    subject::{SwarmVerb, TaskVerb},
    topology::{Topology, TopologyChanged, TopologyPlanned},
};
use swarm_topology::Shape;
use uuid::Uuid;

use super::name;
use crate::{
    distribution::seats::{event, members, seat, write},
    feed::{self, BEGINNING, Feed},
};

const AGENTS: u32 = 100;
/// Tasks in the swarm's queue, beside those at agents.
const QUEUED: u64 = 1_000;
/// What the change is to keep assignment waiting at most.
const TARGET: Duration = Duration::from_millis(100);
/// As the deciding loop has it.
const DECISIONS_PER_TURN: usize = 256;

/// Microseconds of real time.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    from: &'static str,
    to: &'static str,
    /// Finding all seats of the new one, at the coordinator.
    planning: u128,
    /// Meeting the plan, the seats and the change, and deciding after each, at the distributor, altogether.
    meeting: u128,
    /// From the change on until the decisions that follow from it are made: what it withdraws, and what is assigned anew.
    pause: u128,
    withdrawn: usize,
    assigned: usize,
}

/// Measures and prints: from each of the four to each other one.
///
/// # Errors
/// The core does not do what it must.
pub fn run() -> anyhow::Result<Vec<Figures>> {
    println!(
        "\na live change with {AGENTS} agents, all of them full, and {QUEUED} tasks queued: real time of the cores (target below \
         {} ms for all of it)",
        TARGET.as_millis()
    );
    println!(
        "  {:<30} {:>12} {:>12} {:>12} {:>10} {:>10}",
        "change", "planning ms", "meeting ms", "pause ms", "withdrawn", "assigned"
    );
    let all = super::workloads::topologies();
    let mut figures = Vec::new();
    for from in &all {
        for to in all.iter().filter(|to| to.kind() != from.kind()) {
            figures.push(change(from, to)?);
        }
    }
    Ok(figures)
}

struct World {
    feed: Feed,
    state: Distributor,
    plan: <Distributor as Decider>::Plan,
}

impl World {
    /// The owner meets an input and decides until there is nothing left; its decisions reach the log at once.
    fn meet(&mut self, input: &Input) -> anyhow::Result<Vec<Decision>> {
        let verdict = self.state.evolve(input, Some(&mut self.plan));
        if let Verdict::Void(why) = verdict {
            bail!("{} is void: {why}", input.sequence());
        }
        let mut all = Vec::new();
        loop {
            let mut decisions = Vec::new();
            self.state
                .decide(&mut self.plan, DECISIONS_PER_TURN, &mut decisions);
            if decisions.is_empty() {
                return Ok(all);
            }
            all.extend(decisions);
        }
    }
    /// The decisions are met, and what follows from them.
    fn settle(&mut self, mut decisions: Vec<Decision>) -> anyhow::Result<()> {
        while !decisions.is_empty() {
            let mut next = Vec::new();
            for decision in decisions {
                let Decision {
                    subject,
                    about,
                    body,
                    ..
                } = decision;
                let cause = self.feed.sequence();
                let service = Service::Distributor;
                let input = self
                    .feed
                    .decided(service, BEGINNING, cause, subject, about, body);
                next.extend(self.meet(&input)?);
            }
            decisions = next;
        }
        Ok(())
    }
}

fn full(topology: &Topology) -> anyhow::Result<(World, Shape)> {
    let mut feed = Feed::new();
    let state = Distributor::new(feed.place.partition);
    let mut inputs = feed.claims(BEGINNING);
    let configuration = Configuration::default();
    inputs.push(feed.created_as(BEGINNING, configuration, topology.clone()));
    inputs.extend((0..AGENTS).map(|n| feed.joined(BEGINNING, n, Vec::new(), 1, 2)));
    let (shape, seats) = seat(&mut feed, topology, AGENTS as usize)?;
    inputs.extend(seats);
    let plan = state.plan();
    let mut world = World { feed, state, plan };
    for input in &inputs {
        let decisions = world.meet(input)?;
        world.settle(decisions)?;
    }
    // In a ring only one at a time leaves the queue.
    let at_agents = match topology {
        Topology::Ring(_) => 1,
        _ => u64::from(AGENTS) * 3,
    };
    for _ in 0..QUEUED + at_agents {
        let id = world.feed.id(BEGINNING);
        let subject = Subject::Task(world.feed.place, TaskVerb::Submitted, None);
        let task = feed::task(Json::object(), 5);
        let input = world.feed.fact(BEGINNING, subject, id, task.into());
        let decisions = world.meet(&input)?;
        world.settle(decisions)?;
    }
    ensure!(
        world.state.backlog() == QUEUED,
        "{} are queued in a {}",
        world.state.backlog(),
        name(topology)
    );
    Ok((world, shape))
}

fn change(from: &Topology, to: &Topology) -> anyhow::Result<Figures> {
    let (mut world, mut shape) = full(from)?;
    let members = members(AGENTS as usize);
    let began = Instant::now();
    let planned = shape.plan(to, &members);
    let planning = began.elapsed();
    let generation = planned.generation;
    let swarm = |world: &mut World, verb, body: Body| {
        let subject = Subject::Swarm(world.feed.place, verb);
        let about: Uuid = world.feed.place.swarm.0;
        world.feed.by_coordinator(BEGINNING, subject, about, body)
    };
    let body = Body::from(TopologyPlanned {
        generation,
        before: from.clone(),
        after: to.clone(),
        agents: planned.agents,
        moves: planned.moves,
        reason: "by order".to_owned(),
    });
    ensure!(shape.apply(None, &body) == Ok(true), "the plan is void");
    let mut inputs = vec![swarm(&mut world, SwarmVerb::TopologyPlanned, body)];
    for change in shape.staged_changes(&members) {
        write(&mut shape, &change, generation)?;
        inputs.push(event(&mut world.feed, &change, generation));
    }
    let mut meeting = Duration::ZERO;
    for input in &inputs {
        let began = Instant::now();
        let decisions = world.meet(input)?;
        meeting += began.elapsed();
        world.settle(decisions)?;
    }
    let body = Body::from(TopologyChanged {
        generation,
        before: from.clone(),
        after: to.clone(),
        agents: planned.agents,
        moves: planned.moves,
        reason: "by order".to_owned(),
    });
    let changed = swarm(&mut world, SwarmVerb::TopologyChanged, body);
    let began = Instant::now();
    let mut decisions = world.meet(&changed)?;
    let mut pause = began.elapsed();
    let (mut withdrawn, mut assigned) = (0, 0);
    while !decisions.is_empty() {
        let mut inputs = Vec::new();
        for decision in decisions {
            match &decision.body {
                Body::TaskWithdrawn(_) => withdrawn += 1,
                Body::TaskAssigned(_) => assigned += 1,
                _ => {}
            }
            let cause = world.feed.sequence();
            let Decision {
                subject,
                about,
                body,
                ..
            } = decision;
            let service = Service::Distributor;
            inputs.push(
                world
                    .feed
                    .decided(service, BEGINNING, cause, subject, about, body),
            );
        }
        decisions = Vec::new();
        let began = Instant::now();
        for input in &inputs {
            decisions.extend(world.meet(input)?);
        }
        pause += began.elapsed();
    }
    meeting += pause;
    let figures = Figures {
        from: name(from),
        to: name(to),
        planning: planning.as_micros(),
        meeting: meeting.as_micros(),
        pause: pause.as_micros(),
        withdrawn,
        assigned,
    };
    let ms = |micros: u128| format!("{}.{:03}", micros / 1_000, micros % 1_000);
    println!(
        "  {:<30} {:>12} {:>12} {:>12} {:>10} {:>10} {}",
        format!("{} to {}", figures.from, figures.to),
        ms(figures.planning),
        ms(figures.meeting),
        ms(figures.pause),
        withdrawn,
        assigned,
        if planning + meeting < TARGET {
            ""
        } else {
            "ABOVE THE TARGET"
        }
    );
    Ok(figures)
}
