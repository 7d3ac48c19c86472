//! Which agent gets a task, by each algorithm, and what a live switch between them does.

use swarm_events::{
    Body, Input,
    configuration::{Algorithm, Configuration},
    decider::Verdict,
    task::{AffinityOutcome, Assigned},
};

use crate::scene::Scene;

fn by(algorithm: Algorithm) -> Scene {
    Scene::with(|c| {
        c.distribution_algorithm = algorithm;
        c.stealing = false;
    })
}

fn switch(s: &mut Scene, change: impl FnOnce(&mut Configuration)) {
    let mut configuration = Configuration {
        stealing: false,
        ..Configuration::default()
    };
    change(&mut configuration);
    s.configure(configuration);
}

/// The last assignment of a task as it stands in the log.
fn assigned(s: &mut Scene, task: &str) -> Assigned {
    s.assignment(task).2
}

#[test]
fn round_robin_goes_round_whatever_the_load() {
    let mut s = by(Algorithm::RoundRobin);
    for agent in ["A", "B", "C"] {
        s.join_as(agent, 1, 2, &[]);
    }
    for task in ["1", "2", "3", "4"] {
        s.submit(task);
    }
    assert_eq!(
        s.news(),
        [
            "assigned 1 to A",
            "assigned 2 to B",
            "assigned 3 to C",
            "assigned 4 to A"
        ]
    );
    // A finishes and is free, but it is B's turn.
    s.start("1");
    s.complete("1");
    s.submit("5");
    assert_eq!(s.news(), ["assigned 5 to B"]);
    assert_eq!(assigned(&mut s, "5").algorithm, Algorithm::RoundRobin);
}

#[test]
fn round_robin_passes_over_who_has_no_place_and_comes_back_to_it_first() {
    let mut s = by(Algorithm::RoundRobin);
    for agent in ["A", "B"] {
        s.join(agent);
    }
    for task in ["1", "2", "3"] {
        s.submit(task);
    }
    assert_eq!(s.news(), ["assigned 1 to A", "assigned 2 to B"]);
    s.run("2");
    assert_eq!(s.news(), ["assigned 3 to B"]);
    s.run("1");
    s.run("3");
    s.submit("4");
    assert_eq!(s.news(), ["assigned 4 to A"]);
}

#[test]
fn turns_under_way_count() {
    let mut s = by(Algorithm::RoundRobin);
    for agent in ["A", "B", "C"] {
        s.join_as(agent, 9, 0, &[]);
    }
    for task in ["1", "2", "3", "4", "5", "6", "7"] {
        s.submit(task);
    }
    // All are decided on before any decision is met.
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "assigned 1 to A",
            "assigned 2 to B",
            "assigned 3 to C",
            "assigned 4 to A",
            "assigned 5 to B",
            "assigned 6 to C",
            "assigned 7 to A"
        ]
    );
    s.folds_agree();
}

#[test]
fn capability_match_keeps_specialists_free() {
    let mut s = by(Algorithm::CapabilityMatch);
    s.join_as("expert", 2, 0, &["gpu", "ocr", "text"]);
    s.join_as("reader", 2, 0, &["ocr", "text"]);
    s.join_as("clerk", 2, 0, &["text"]);
    let text = |t: &mut swarm_events::task::Submitted| {
        t.required_capabilities = vec!["text".into()];
    };
    for task in ["1", "2", "3"] {
        s.submit_as(task, text);
    }
    s.submit_as("4", |t| t.required_capabilities = vec!["gpu".into()]);
    assert_eq!(
        s.news(),
        [
            "assigned 1 to clerk",
            "assigned 2 to clerk",
            "assigned 3 to reader",
            "assigned 4 to expert"
        ]
    );
    let third = assigned(&mut s, "3");
    assert!(
        third
            .candidates
            .windows(2)
            .all(|c| c[0].score <= c[1].score),
        "{third:?}"
    );
    assert_eq!(third.candidates.len(), 2);
}

#[test]
fn priority_queue_lets_nothing_wait_at_an_agent() {
    let mut s = by(Algorithm::PriorityQueue);
    s.join_as("A", 1, 5, &[]);
    s.submit("1");
    s.submit("2");
    assert_eq!(s.news(), ["assigned 1 to A"]);
    s.submit_as("urgent", |t| t.priority = 10);
    s.run("1");
    assert_eq!(s.news(), ["assigned urgent to A"]);
}

#[test]
fn affinity_goes_where_the_key_was_before_and_else_by_load() {
    let mut s = by(Algorithm::Affinity);
    for agent in ["A", "B", "C"] {
        s.join_as(agent, 2, 0, &[]);
    }
    let key = |key: &'static str| {
        move |t: &mut swarm_events::task::Submitted| t.affinity_key = Some(key.into())
    };
    s.submit_as("1", key("x"));
    s.submit_as("2", key("y"));
    s.submit_as("3", key("x"));
    s.submit_as("4", key("y"));
    // The first of each key is still under way when the second is decided on.
    s.world.decide(64);
    assert_eq!(
        s.news(),
        [
            "assigned 1 to A",
            "assigned 2 to B",
            "assigned 3 to A",
            "assigned 4 to B"
        ]
    );
    let outcomes: Vec<_> = ["1", "2", "3", "4"]
        .map(|task| assigned(&mut s, task).affinity)
        .into();
    use AffinityOutcome::{Hit, Miss, New};
    assert_eq!(outcomes, [Some(New), Some(New), Some(Hit), Some(Hit)]);
    // A is full: the next of its key goes elsewhere, and the key stays A's.
    s.submit_as("5", key("x"));
    assert_eq!(s.news(), ["assigned 5 to C"]);
    assert_eq!(assigned(&mut s, "5").affinity, Some(Miss));
    s.run("1");
    s.submit_as("6", key("x"));
    assert_eq!(s.news(), ["assigned 6 to A"]);
    let counters = s.world.state.counters(s.place).expect("the swarm");
    assert_eq!((counters.affinity_hits, counters.affinity_misses), (3, 1));
    s.folds_agree();
}

#[test]
fn without_a_key_the_type_is_the_key_and_not_the_same_as_a_key_of_that_name() {
    let mut s = by(Algorithm::Affinity);
    for agent in ["A", "B"] {
        s.join_as(agent, 5, 0, &[]);
    }
    s.submit_as("1", |t| t.task_type = "ocr".into());
    s.submit_as("2", |t| t.affinity_key = Some("ocr".into()));
    s.submit_as("3", |t| t.task_type = "ocr".into());
    s.submit_as("4", |t| t.affinity_key = Some("ocr".into()));
    assert_eq!(
        s.news(),
        [
            "assigned 1 to A",
            "assigned 2 to B",
            "assigned 3 to A",
            "assigned 4 to B"
        ]
    );
}

#[test]
fn a_hot_key_cannot_drown_its_agent() {
    let mut s = by(Algorithm::Affinity);
    for agent in ["A", "B", "C", "D"] {
        s.join_as(agent, 1, 20, &[]);
    }
    for n in 0..40 {
        s.submit_as(&format!("{n}"), |t| t.affinity_key = Some("hot".into()));
    }
    s.world.settle();
    let a = s.agent_id("A");
    let view = s.world.state.agent(s.place, a).expect("A");
    let held = view.running.len() + view.waiting.len();
    // The mean is 10; a quarter more and one task.
    assert!((10..=14).contains(&held), "{held}");
}

#[test]
fn a_key_finds_a_new_home_when_its_agent_is_gone() {
    let mut s = by(Algorithm::Affinity);
    for agent in ["A", "B"] {
        s.join_as(agent, 2, 0, &[]);
    }
    let key = |t: &mut swarm_events::task::Submitted| t.affinity_key = Some("x".into());
    s.submit_as("1", key);
    s.world.settle();
    s.run_held("1");
    s.fail("A");
    s.submit_as("2", key);
    s.news();
    assert_eq!(assigned(&mut s, "2").affinity, Some(AffinityOutcome::New));
    // Back again, A is not the key's home any more.
    s.join_as("A", 2, 0, &[]);
    s.submit_as("3", key);
    assert_eq!(s.news(), ["assigned 3 to B"]);
}

#[test]
fn a_live_switch_loses_and_reorders_nothing() {
    let mut s = by(Algorithm::LeastLoaded);
    s.join_as("A", 1, 1, &[]);
    let names: Vec<String> = (0..30).map(|n| format!("t{n}")).collect();
    for name in &names {
        s.submit(name);
    }
    s.news();
    let mut order = vec!["t0".to_owned(), "t1".to_owned()];
    for (turn, algorithm) in (0..).zip(Algorithm::ALL.into_iter().cycle().take(28)) {
        switch(&mut s, |c| c.distribution_algorithm = algorithm);
        // A decision of before the switch is met after it now and then.
        if turn % 3 == 0 {
            s.world.decide(1);
        }
        s.run_held(&order[turn].clone());
        for line in s.news() {
            let task = line
                .strip_prefix("assigned ")
                .and_then(|l| l.strip_suffix(" to A"))
                .unwrap_or_else(|| panic!("{line}"));
            order.push(task.to_owned());
        }
        s.folds_agree();
    }
    while order.len() < names.len() {
        let next = order[order.len() - 1].clone();
        s.run_held(&next);
        order.extend(
            s.news()
                .iter()
                .map(|l| l["assigned ".len()..l.len() - 5].to_owned()),
        );
    }
    assert_eq!(order, names);
}

#[test]
fn after_a_switch_the_next_assignment_is_by_the_new_rule_and_names_it() {
    let mut s = by(Algorithm::LeastLoaded);
    s.join_as("A", 4, 0, &[]);
    s.join_as("B", 2, 0, &[]);
    for task in ["1", "2", "3"] {
        s.submit(task);
    }
    // 0 and 0; 250 and 0; 250 and 500.
    assert_eq!(
        s.news(),
        ["assigned 1 to A", "assigned 2 to B", "assigned 3 to A"]
    );
    switch(&mut s, |c| c.distribution_algorithm = Algorithm::RoundRobin);
    s.submit("4");
    assert_eq!(s.news(), ["assigned 4 to B"]);
    assert_eq!(assigned(&mut s, "4").algorithm, Algorithm::RoundRobin);
    let scores: Vec<i64> = assigned(&mut s, "4")
        .candidates
        .iter()
        .map(|c| c.score)
        .collect();
    assert_eq!(scores, [2, 3], "the numbers of their last turns");
}

#[test]
fn many_kinds_of_agents_are_chosen_from_as_few_are() {
    // More kinds than are looked at one by one.
    for algorithm in Algorithm::ALL {
        let mut s = by(algorithm);
        let names: Vec<String> = (0..12).map(|n| format!("a{n:02}")).collect();
        for (n, name) in names.iter().enumerate() {
            let own: Vec<String> = (0..=n).map(|n| format!("c{n}")).collect();
            let mut all: Vec<&str> = own.iter().map(String::as_str).collect();
            all.push("text");
            s.join_as(name, 1, 0, &all);
        }
        for n in 0..12 {
            s.submit_as(&format!("{n}"), |t| {
                t.required_capabilities = vec!["text".into()];
            });
        }
        let mut got: Vec<String> = s
            .news()
            .iter()
            .map(|line| line.rsplit(' ').next().unwrap_or_default().to_owned())
            .collect();
        if algorithm == Algorithm::CapabilityMatch {
            assert_eq!(got, names, "the fewest surplus capabilities first");
        }
        got.sort();
        assert_eq!(got, names, "{algorithm:?}: each has one");
        let last = assigned(&mut s, "11");
        assert_eq!(last.candidates.len(), 1, "{last:?}");
        assert_eq!(
            last.passed_over.values().sum::<u32>(),
            11,
            "the sums are kept: {last:?}"
        );
    }
}

#[test]
fn an_old_assignment_without_an_outcome_teaches_affinity_nothing() {
    let mut s = by(Algorithm::LeastLoaded);
    s.join_as("A", 2, 0, &[]);
    s.submit("1");
    s.world.settle();
    for stored in &s.world.log {
        if let Input::Event(recorded) = stored.input()
            && let Body::TaskAssigned(body) = recorded.event.body
        {
            assert_eq!(body.affinity, None);
        }
    }
    switch(&mut s, |c| c.distribution_algorithm = Algorithm::Affinity);
    s.submit("2");
    s.news();
    assert_eq!(assigned(&mut s, "2").affinity, Some(AffinityOutcome::New));
    assert_eq!(s.start("2"), Verdict::Applied);
}
