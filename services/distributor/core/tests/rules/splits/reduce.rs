//! The step that makes one result of those of the parts.

use swarm_events::{
    configuration::Algorithm,
    task::{AffinityOutcome, Step},
};

use super::{error, parted};
use crate::scene::Scene;

#[test]
fn the_reduce_keeps_the_results_over_its_attempts_and_has_attempts_of_its_own() {
    let mut s = Scene::with(|c| {
        c.max_attempts = 2;
        c.stealing = false;
    });
    s.join_as("A", 2, 0, &[]);
    s.submit("t");
    // The work needs both attempts.
    s.begin("t");
    s.fail_attempt("t", true);
    s.world.settle();
    s.world.later(60_000);
    s.start("t");
    s.split("t", &["a"]);
    s.run("t/a");
    // So does the reduce.
    s.start("t");
    s.fail_attempt("t", true);
    s.world.settle();
    s.world.later(60_000);
    let (_, _, assigned) = s.assignment("t");
    assert_eq!((assigned.step, assigned.attempt), (Step::Reduce, 2));
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_reduce_whose_agent_is_lost_goes_to_another_with_all_results() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join("A");
    s.submit("t");
    s.begin("t");
    s.join("B");
    s.split("t", &["a"]);
    s.run("t/a");
    let (agent, ..) = s.assignment("t");
    assert_eq!(agent, s.agent_id("A"), "who split it makes one of it");
    s.start("t");
    s.fail("A");
    s.world.settle();
    let (agent, _, assigned) = s.assignment("t");
    assert_eq!((agent, assigned.step), (s.agent_id("B"), Step::Reduce));
    s.run_held("t");
    assert_eq!(s.status("t"), "completed");
}

#[test]
fn a_reduce_leaves_the_key_at_home_where_it_is() {
    let mut s = Scene::with(|c| {
        (c.stealing, c.distribution_algorithm) = (false, Algorithm::Affinity);
    });
    for agent in ["A", "B"] {
        s.join_as(agent, 1, 0, &[]);
    }
    for task in ["1", "t"] {
        s.submit_as(task, |t| t.affinity_key = Some("x".into()));
    }
    assert_eq!(s.news(), ["assigned 1 to A", "assigned t to B"]);
    s.run_held("1");
    s.start("t");
    s.split("t", &["a"]);
    s.run("t/a");
    // A, where its key is at home, is idle; B split it.
    assert_eq!(s.holder("t"), "B");
    let (_, _, assigned) = s.assignment("t");
    assert_eq!(assigned.step, Step::Reduce);
    assert_eq!(assigned.affinity, Some(AffinityOutcome::Miss));
    s.run_held("t");
    s.news();
    s.submit_as("2", |t| t.affinity_key = Some("x".into()));
    assert_eq!(s.news(), ["assigned 2 to A"]);
    let (agent, _, assigned) = s.assignment("2");
    assert_eq!(
        (agent, assigned.affinity),
        (s.agent_id("A"), Some(AffinityOutcome::Hit))
    );
    s.folds_agree();
}

#[test]
fn a_reduce_is_not_split_again() {
    let mut s = parted();
    s.run("t/a");
    s.run_held("t/b");
    s.begin("t");
    s.split("t", &["c"]);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert!(error(&mut s, "t").contains("answer the reduce with a result"));
}
