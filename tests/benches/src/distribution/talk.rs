//! What agents say to each other while they work, along the edges of their topology: each message is handled by whoever gets
//! it, and passed on by those between that it must go through, one after another at each agent.

use std::collections::{BTreeMap, VecDeque};

use anyhow::Context;
use swarm_topology::Shape;

use super::{
    engine::{DELIVER_MICROS, STORE_MICROS},
    random::Random,
};
use crate::feed;

/// What it takes an agent to handle a message or to pass it on, in microseconds: an assumption, not a measurement. Beside the
/// agent's tasks, but one message after another.
pub const HANDLE_MICROS: i64 = 500;

/// A message that gets to an agent.
pub struct Hop {
    at: usize,
    to: usize,
    /// Whose task waits for it.
    task: (usize, u64),
    /// It is being handled.
    handling: bool,
}

/// What is next.
pub enum Next {
    /// It is handled after so many microseconds.
    Hop(i64, Hop),
    /// It was handled, and gets to the next agent after so many microseconds.
    Passed(i64, Hop),
    /// It is handled.
    Handled,
    /// It is handled, and was the last one that the task waited for.
    All(usize, u64),
}

/// All that is on its way.
pub struct Talk {
    /// For each agent, to whom a message for each other one goes next.
    next: Vec<Vec<Option<usize>>>,
    /// Until when each agent handles what it has.
    busy: Vec<i64>,
    /// How many messages each task still waits for.
    open: BTreeMap<(usize, u64), u32>,
    random: Random,
}

impl Talk {
    /// Nobody talks yet. Without a shape nobody can.
    pub fn new(shape: Option<&Shape>, agents: usize, seed: u64) -> Self {
        let next = (0..agents).map(|to| shape.map_or_else(Vec::new, |s| routes(s, agents, to)));
        Self {
            next: next.collect(),
            busy: vec![0; agents],
            open: BTreeMap::new(),
            random: Random::new(seed),
        }
    }

    /// A task's agent sends so many messages, to whomever chance picks.
    ///
    /// # Errors
    /// There is no way to somebody.
    pub fn begin(&mut self, from: usize, assignment: u64, talks: u32) -> anyhow::Result<Vec<Hop>> {
        let task = (from, assignment);
        if talks > 0 {
            self.open.insert(task, talks);
        }
        let others = self.busy.len() as u64 - 1;
        (0..talks)
            .map(|_| {
                let to = self.random.below(others) as usize;
                let to = to + usize::from(to >= from);
                let next = self.next.get(to).and_then(|routes| routes.get(from));
                let at = next.copied().flatten().context("no way to an agent")?;
                Ok(Hop {
                    at,
                    to,
                    task,
                    handling: false,
                })
            })
            .collect()
    }

    /// A message is where it was to be, or handled there.
    pub fn at(&mut self, mut hop: Hop, now: i64) -> Next {
        if !hop.handling {
            let done = now.max(self.busy[hop.at]) + HANDLE_MICROS;
            self.busy[hop.at] = done;
            hop.handling = true;
            return Next::Hop(done - now, hop);
        }
        if let Some(next) = self.next[hop.to].get(hop.at).copied().flatten() {
            hop.at = next;
            hop.handling = false;
            return Next::Passed(STORE_MICROS + DELIVER_MICROS, hop);
        }
        match self.open.get_mut(&hop.task) {
            Some(open) if *open > 1 => {
                *open -= 1;
                Next::Handled
            }
            _ => {
                self.open.remove(&hop.task);
                Next::All(hop.task.0, hop.task.1)
            }
        }
    }
}

/// For each agent, to whom a message to `to` goes next on a shortest way; `None` at `to` itself.
fn routes(shape: &Shape, agents: usize, to: usize) -> Vec<Option<usize>> {
    let number = |id| feed::agent_number(id).map(|n| n as usize);
    // Against the edges, from the recipient on.
    let mut towards: Vec<Vec<usize>> = vec![Vec::new(); agents];
    for from in 0..agents {
        let id = u32::try_from(from).map(feed::agent_id);
        for next in id.into_iter().flat_map(|id| shape.neighbours(id)) {
            if let Some(next) = number(next) {
                towards[next].push(from);
            }
        }
    }
    let mut routes = vec![None; agents];
    let mut queue = VecDeque::from([to]);
    while let Some(at) = queue.pop_front() {
        for from in &towards[at] {
            if *from != to && routes[*from].is_none() {
                routes[*from] = Some(at);
                queue.push_back(*from);
            }
        }
    }
    routes
}

#[cfg(test)]
mod tests {
    use swarm_events::{configuration::TopologyKind, topology::Topology};

    use super::*;
    use crate::distribution::seats::seat;

    fn shape(kind: TopologyKind) -> Shape {
        let mut feed = feed::Feed::new();
        let seated = seat(&mut feed, &Topology::of(kind), 6).expect("a shape");
        seated.0
    }

    #[test]
    fn messages_take_the_shortest_way_over_the_edges() {
        let way = |kind, from: usize, to: usize| {
            let talk = Talk::new(Some(&shape(kind)), 6, 1);
            let mut way = vec![from];
            while let Some(next) = talk.next[to][way[way.len() - 1]] {
                way.push(next);
            }
            way
        };
        assert_eq!(way(TopologyKind::Star, 2, 4), [2, 0, 4]);
        assert_eq!(way(TopologyKind::Mesh, 2, 4), [2, 4]);
        assert_eq!(way(TopologyKind::Ring, 4, 1), [4, 5, 0, 1]);
        assert_eq!(
            way(TopologyKind::Hierarchical, 4, 5).len(),
            5,
            "up to the coordinator and down"
        );
    }

    #[test]
    fn an_agent_handles_one_message_after_another() {
        let mut talk = Talk::new(Some(&shape(TopologyKind::Ring)), 6, 1);
        let hop = || Hop {
            at: 1,
            to: 1,
            task: (0, 7),
            handling: false,
        };
        talk.open.insert((0, 7), 2);
        let Next::Hop(first, one) = talk.at(hop(), 0) else {
            panic!("it is handled")
        };
        let Next::Hop(second, two) = talk.at(hop(), 0) else {
            panic!("it waits and is handled")
        };
        assert_eq!((first, second), (HANDLE_MICROS, 2 * HANDLE_MICROS));
        assert!(matches!(talk.at(one, first), Next::Handled));
        assert!(matches!(talk.at(two, second), Next::All(0, 7)));
    }
}
