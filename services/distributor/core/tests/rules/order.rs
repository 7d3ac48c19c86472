//! In which order tasks go: by rank, under every algorithm, so that nothing starves and what is urgent overtakes.

use proptest::prelude::*;
use swarm_events::configuration::Algorithm;

use crate::scene::Scene;

/// Assignments in their order, by the names of the tasks.
fn order(s: &mut Scene) -> Vec<String> {
    let assigned = |line: String| {
        let task = line.strip_prefix("assigned ")?.split(' ').next()?;
        Some(task.to_owned())
    };
    s.news().into_iter().filter_map(assigned).collect()
}

#[test]
fn priority_ten_overtakes_within_one_assignment() {
    for algorithm in Algorithm::ALL {
        let mut s = Scene::with(|c| c.distribution_algorithm = algorithm);
        s.join("A");
        for n in 0..50 {
            s.submit_as(&format!("{n}"), |t| t.priority = 9);
        }
        assert_eq!(order(&mut s), ["0"]);
        s.submit_as("urgent", |t| t.priority = 10);
        s.run("0");
        assert_eq!(order(&mut s), ["urgent"], "{algorithm:?}");
    }
}

#[test]
fn priority_one_is_not_starved() {
    // One step is a second: nine of them let a task of priority 10 overtake for nine seconds and no longer.
    for algorithm in Algorithm::ALL {
        let mut s = Scene::with(|c| {
            c.distribution_algorithm = algorithm;
            c.priority_step_ms = 1_000;
        });
        s.join("A");
        s.submit("0");
        s.submit_as("low", |t| t.priority = 1);
        assert_eq!(order(&mut s), ["0"]);
        let mut at_work = "0".to_owned();
        let mut turns = 0;
        loop {
            // There is always something more important in the queue.
            for n in 0..2 {
                s.submit_as(&format!("high-{turns}-{n}"), |t| t.priority = 10);
            }
            s.world.later(500);
            s.run_held(&at_work);
            turns += 1;
            let next = order(&mut s);
            assert_eq!(next.len(), 1, "{next:?}");
            at_work.clone_from(&next[0]);
            if at_work == "low" {
                break;
            }
            assert!(turns < 100, "{algorithm:?}: starved");
        }
        // Two are submitted and one is done each half a second: those of the first 9 s before it are 18 turns' and what
        // was left of them, 36 turns.
        assert!((18..=38).contains(&turns), "{algorithm:?}: {turns}");
    }
}

#[test]
fn a_step_of_zero_is_first_come_first_served() {
    let mut s = Scene::with(|c| c.priority_step_ms = 0);
    s.submit_as("low", |t| t.priority = 1);
    s.submit_as("high", |t| t.priority = 10);
    s.join("A");
    assert_eq!(order(&mut s), ["low"]);
}

#[test]
fn another_step_reorders_what_waits() {
    let mut s = Scene::with(|c| c.priority_step_ms = 0);
    s.submit_as("low", |t| t.priority = 1);
    s.submit_as("high", |t| t.priority = 10);
    s.configure(swarm_events::configuration::Configuration::default());
    s.join("A");
    assert_eq!(order(&mut s), ["high"]);
}

proptest! {
    /// Whatever the algorithm, the tasks' needs and the agents: among the tasks that one agent can take, the order of
    /// assignment is the order of ranks.
    #[test]
    fn assignments_follow_ranks(
        algorithm in proptest::sample::select(Algorithm::ALL.to_vec()),
        step in proptest::sample::select(vec![0u64, 10, 1_000]),
        tasks in proptest::collection::vec((1..=10u8, any::<bool>(), 0..40u64), 1..40),
    ) {
        let mut s = Scene::with(|c| {
            c.distribution_algorithm = algorithm;
            c.priority_step_ms = step;
        });
        let mut ranks: Vec<(i64, usize, String)> = Vec::new();
        for (n, (priority, needs, pause)) in tasks.iter().enumerate() {
            s.world.later(*pause);
            let name = format!("t{n}");
            s.submit_as(&name, |t| {
                t.priority = *priority;
                if *needs {
                    t.required_capabilities = vec!["x".into()];
                }
            });
            let queued = s.view(&name).queued_at.expect("queued").as_micros();
            let rank = queued - i64::from(*priority) * step as i64 * 1_000;
            ranks.push((rank, n, name));
        }
        ranks.sort();
        s.join_as("A", 1, 0, &["x"]);
        let mut seen = order(&mut s);
        while seen.len() < tasks.len() {
            let next = seen[seen.len() - 1].clone();
            s.run_held(&next);
            seen.extend(order(&mut s));
        }
        let expected: Vec<String> = ranks.into_iter().map(|(.., name)| name).collect();
        prop_assert_eq!(seen, expected);
    }
}
