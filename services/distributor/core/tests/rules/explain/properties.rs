//! What an explanation promises comes true, in random scenes and under every algorithm.

use proptest::prelude::*;
use swarm_distributor_core::explain::{Queued, Reason, What};
use swarm_events::configuration::Algorithm;

use super::explain;
use crate::scene::Scene;

const WORDS: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
struct Waits {
    priority: u8,
    words: u8,
    gap_ms: u64,
}

/// Agents whose places are all taken, and tasks that wait for them.
#[derive(Clone, Debug)]
struct Plot {
    algorithm: Algorithm,
    /// Slots, waiting places, capabilities.
    agents: Vec<(u32, u32, u8)>,
    tasks: Vec<Waits>,
}

fn words(bits: u8) -> Vec<&'static str> {
    (0..WORDS.len())
        .filter(|n| bits & (1 << n) != 0)
        .map(|n| WORDS[n])
        .collect()
}

fn plot() -> impl Strategy<Value = Plot> {
    let waits = (1..=10u8, 0..8u8, 0..2_500u64).prop_map(|(priority, words, gap_ms)| Waits {
        priority,
        words,
        gap_ms,
    });
    (
        proptest::sample::select(Algorithm::ALL.to_vec()),
        prop::collection::vec((1..3u32, 0..2u32, 0..8u8), 1..5),
        prop::collection::vec(waits, 1..10),
    )
        .prop_map(|(algorithm, agents, tasks)| Plot {
            algorithm,
            agents,
            tasks,
        })
}

fn agent(n: usize) -> String {
    format!("agent {n}")
}
fn task(n: usize) -> String {
    format!("task {n}")
}

impl Plot {
    fn able(&self, of: usize) -> Vec<usize> {
        let needed = self.tasks[of].words;
        (0..self.agents.len())
            .filter(|&n| self.agents[n].2 & needed == needed)
            .collect()
    }

    /// Given: every place is taken, every slot runs something, and all tasks wait; one of them at another priority.
    fn scene(&self, other: Option<(usize, u8)>) -> Scene {
        let mut s = Scene::with(|c| {
            c.distribution_algorithm = self.algorithm;
            c.priority_step_ms = 1_000;
            c.task_timeout_ms = 3_600_000;
        });
        let mut places = 0;
        for (n, &(slots, waiting, bits)) in self.agents.iter().enumerate() {
            s.join_as(&agent(n), slots, waiting, &words(bits));
            places += slots;
            if self.algorithm != Algorithm::PriorityQueue {
                places += waiting;
            }
        }
        for n in 0..places {
            s.submit_as(&format!("filler {n}"), |t| t.priority = 10);
        }
        s.world.settle();
        for (n, &(slots, ..)) in self.agents.iter().enumerate() {
            for _ in 0..slots {
                start_one(&mut s, &agent(n));
            }
        }
        for (n, waits) in self.tasks.iter().enumerate() {
            s.world.now = s.world.now.plus_millis(waits.gap_ms);
            s.submit_as(&task(n), |t| {
                t.priority = match other {
                    Some((of, priority)) if of == n => priority,
                    _ => waits.priority,
                };
                t.required_capabilities =
                    words(waits.words).into_iter().map(str::to_owned).collect();
            });
            s.world.settle();
        }
        s.news();
        s
    }

    /// The first task that is assigned when a place comes free at an agent.
    fn next_at(&self, at: usize, other: Option<(usize, u8)>) -> Option<String> {
        let mut s = self.scene(other);
        free_one(&mut s, &agent(at));
        assigned(&mut s).into_iter().next()
    }

    fn queued(&self, of: usize) -> Queued {
        let mut s = self.scene(None);
        match explain(&mut s, &task(of)).reason {
            Reason::Queued(queued) => *queued,
            other => panic!("it waits: {other:?}"),
        }
    }
}

/// An agent starts the first task that waits at it.
fn start_one(s: &mut Scene, agent: &str) {
    let id = s.agent_id(agent);
    let view = s.world.state.agent(s.place, id).expect("it has joined");
    if let Some(first) = view.waiting.first() {
        let name = s.named(&first.to_string());
        s.start(&name);
    }
}

/// An agent completes the first task that runs at it, and starts the next; the distributor has not answered.
fn free_one(s: &mut Scene, agent: &str) {
    let id = s.agent_id(agent);
    let view = s.world.state.agent(s.place, id).expect("it has joined");
    let name = s.named(
        &view
            .running
            .first()
            .expect("every slot runs something")
            .to_string(),
    );
    s.complete(&name);
    start_one(s, agent);
}

/// The tasks assigned since this was asked last.
fn assigned(s: &mut Scene) -> Vec<String> {
    let assigned = |line: String| {
        let (task, _) = line.strip_prefix("assigned ")?.split_once(" to ")?;
        Some(task.to_owned())
    };
    s.news().into_iter().filter_map(assigned).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    /// At the stated priority it is next wherever a place comes free; one below there is an agent at which it is not.
    #[test]
    fn the_stated_priority_is_enough_and_the_one_below_is_not(plot in plot(), pick in any::<prop::sample::Index>()) {
        let of = pick.index(plot.tasks.len());
        let (queued, able) = (plot.queued(of), plot.able(of));
        let next_everywhere = |priority: u8| {
            able.iter().all(|&at| plot.next_at(at, Some((of, priority))) == Some(task(of)))
        };
        let stated = queued.would_be_assigned_if.iter().find_map(|c| match c.what {
            What::Priority { least } => Some(least),
            _ => None,
        });
        prop_assert!(!queued.assignable);
        match stated {
            Some(least) => {
                prop_assert!(least > plot.tasks[of].priority);
                prop_assert!(next_everywhere(least), "not next at {least}");
                prop_assert!(!next_everywhere(least - 1), "next at {} already", least - 1);
            }
            None if able.is_empty() => {}
            None if queued.ahead.count == 0 => prop_assert!(next_everywhere(plot.tasks[of].priority)),
            None => prop_assert!(!next_everywhere(10), "next at 10"),
        }
    }

    /// So many slots of agents with the stated capabilities get it assigned, and one less does not.
    #[test]
    fn the_stated_agents_are_enough_and_one_slot_less_is_not(plot in plot(), pick in any::<prop::sample::Index>()) {
        let of = pick.index(plot.tasks.len());
        let queued = plot.queued(of);
        let stated = queued.would_be_assigned_if.iter().find_map(|c| match &c.what {
            What::Agents { capabilities, slots, .. } => Some((capabilities.clone(), *slots)),
            _ => None,
        });
        let (capabilities, slots) = stated.expect("agents always help");
        prop_assert!(!slots.at_least);
        let capabilities: Vec<&str> = capabilities.iter().map(String::as_str).collect();
        let status_with = |slots: u32| {
            let mut s = plot.scene(None);
            s.join_as("new", slots, 0, &capabilities);
            s.world.settle();
            s.status(&task(of))
        };
        let slots = slots.count as u32;
        prop_assert_eq!(status_with(slots), "assigned");
        if slots > 1 {
            prop_assert_eq!(status_with(slots - 1), "queued");
        }
    }

    /// With so many places at the stated agents it is assigned, and with one less it is not.
    #[test]
    fn the_stated_places_are_enough_and_one_less_is_not(plot in plot(), pick in any::<prop::sample::Index>()) {
        let of = pick.index(plot.tasks.len());
        let queued = plot.queued(of);
        let stated = queued.would_be_assigned_if.iter().find_map(|c| match &c.what {
            What::Place { agent_ids, places, .. } => Some((agent_ids.clone(), *places)),
            _ => None,
        });
        prop_assert_eq!(stated.is_none(), plot.able(of).is_empty());
        if let Some((agents, places)) = stated {
            let mut s = plot.scene(None);
            let agents: Vec<String> = agents.iter().map(|id| s.named(&id.to_string())).collect();
            for n in 0..places.count {
                prop_assert_eq!(s.status(&task(of)), "queued", "after {} places", n);
                free_one(&mut s, &agents[n as usize % agents.len()]);
                s.world.settle();
                for agent in &agents {
                    start_one(&mut s, agent);
                }
            }
            prop_assert_ne!(s.status(&task(of)), "queued");
        }
    }

    /// What is said to be assignable is assigned by the next decisions.
    #[test]
    fn what_is_assignable_is_assigned(
        agents in prop::collection::vec((1..3u32, 0..2u32, 0..8u8), 1..4),
        tasks in prop::collection::vec((1..=10u8, 0..8u8), 1..8),
        algorithm in proptest::sample::select(Algorithm::ALL.to_vec()),
    ) {
        let mut s = Scene::with(|c| c.distribution_algorithm = algorithm);
        for (n, &(slots, waiting, bits)) in agents.iter().enumerate() {
            s.join_as(&agent(n), slots, waiting, &words(bits));
        }
        for (n, &(priority, bits)) in tasks.iter().enumerate() {
            s.submit_as(&task(n), |t| {
                t.priority = priority;
                t.required_capabilities = words(bits).into_iter().map(str::to_owned).collect();
            });
        }
        let mut assignable = Vec::new();
        for n in 0..tasks.len() {
            if let Reason::Queued(queued) = explain(&mut s, &task(n)).reason
                && queued.assignable
            {
                assignable.push(n);
            }
        }
        s.world.settle();
        for n in assignable {
            prop_assert_eq!(s.status(&task(n)), "assigned", "{}", task(n));
        }
    }
}
