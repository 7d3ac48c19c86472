//! Why a task is where it is, and what would change that: every sentence, and that what it says comes true.

mod others;
mod properties;
mod resting;
mod topologies;

use swarm_distributor_core::{
    Distributor,
    explain::{
        COUNT_MAX, Condition, Count, Explanation, ITEMS_MAX, Queued, Reason, Standing, What,
    },
};
use swarm_events::{Timestamp, configuration::Algorithm, decider::Decider};

use crate::scene::Scene;

/// What the state says of a task. A stranger who has followed the log with a plan of its own says the same.
fn explain(s: &mut Scene, task: &str) -> Explanation {
    let id = s.task_id(task);
    let state = &s.world.state;
    let fresh = state.explain(&state.plan(), s.place, id);
    let mut stranger = Distributor::new(s.place.partition);
    let mut plan = stranger.plan();
    for input in s.world.inputs() {
        stranger.evolve(&input, Some(&mut plan));
    }
    assert_eq!(stranger.explain(&plan, s.place, id), fresh);
    fresh.unwrap_or_else(|| panic!("{task} is not known"))
}

/// What it says in words, with names for ids and times as seen from now.
fn told(s: &mut Scene, task: &str) -> Vec<String> {
    let explanation = explain(s, task);
    let now = explanation.at;
    let time = |word: &str| {
        let bare = word.trim_end_matches([',', '.', ':', ';']);
        let Ok(at) = Timestamp::parse(bare) else {
            return word.to_owned();
        };
        let rest = &word[bare.len()..];
        let ms = (at.as_micros() - now.as_micros()) / 1_000;
        format!("{ms:+}ms{rest}")
    };
    explanation
        .sentences
        .iter()
        .map(|text| s.named(text))
        .map(|text| text.split(' ').map(time).collect::<Vec<_>>().join(" "))
        .collect()
}

fn queued(s: &mut Scene, task: &str) -> Queued {
    match explain(s, task).reason {
        Reason::Queued(queued) => *queued,
        other => panic!("{task} is not queued: {other:?}"),
    }
}

/// The conditions as names.
fn kinds(queued: &Queued) -> Vec<&'static str> {
    let kind = |condition: &Condition| match condition.what {
        What::Place { .. } => "place",
        What::Agents { .. } => "agents",
        What::Priority { .. } => "priority",
        What::Well { .. } => "well",
        What::Back { .. } => "back",
        What::PlaceBy { .. } => "place_by",
        What::Released { .. } => "released",
        What::Again { .. } => "again",
        What::Turn { .. } => "turn",
    };
    queued.would_be_assigned_if.iter().map(kind).collect()
}

fn exactly(count: u64) -> Count {
    Count {
        count,
        at_least: false,
    }
}

/// A scene in which one step of priority is worth a second.
fn scene() -> Scene {
    Scene::with(|c| c.priority_step_ms = 1_000)
}

#[test]
fn without_agents_it_says_what_one_would_need() {
    let mut s = scene();
    s.submit("t");
    s.world.later(4_200);
    assert_eq!(
        told(&mut s, "t"),
        [
            "It has waited 4.2 s for an agent: the swarm has none.",
            "No task before it competes for the same agents: it is next.",
            "It would be assigned if one more agent had a free slot.",
            "From +800ms on no newly queued task goes before it, whatever its priority."
        ]
    );
}

#[test]
fn missing_capabilities_are_counted_and_the_nearest_agents_named() {
    let mut s = scene();
    s.join_as("A", 1, 0, &["linux"]);
    s.join_as("B", 1, 0, &["linux", "arm"]);
    s.join_as("C", 1, 0, &["arm"]);
    s.submit_as("t", |t| {
        t.required_capabilities = vec!["gpu".to_owned(), "linux".to_owned()];
    });
    s.world.settle();
    assert_eq!(
        told(&mut s, "t"),
        [
            "It has waited 0 ms for an agent with gpu and linux: none of the 3 that there are has all of that.",
            "Of the 3 agents, 3 lack gpu and 1 lacks linux.",
            "No task before it competes for the same agents: it is next.",
            "It would be assigned if one more agent with gpu and linux had a free slot (the nearest agent lacks only gpu).",
            "From +5000ms on no newly queued task goes before it, whatever its priority."
        ]
    );
    let queued = queued(&mut s, "t");
    let lacking = queued.lacking.expect("nobody is able");
    assert_eq!(lacking.fewest, Some(1));
    let nearest: Vec<String> = lacking
        .nearest
        .iter()
        .map(|agent| s.named(&format!("{} {:?}", agent.agent_id, agent.missing)))
        .collect();
    assert_eq!(nearest, [r#"A ["gpu"]"#, r#"B ["gpu"]"#]);
    assert_eq!(queued.agents.missing_capability, 3);
    // Then: with such an agent it is assigned.
    s.join_as("D", 1, 0, &["gpu", "linux"]);
    assert_eq!(s.news(), ["assigned t to D"]);
}

#[test]
fn assigned_if_one_more_agent_had_gpu_or_at_priority_seven_or_more() {
    // Given: one agent has gpu; it is full, and a task of priority 6 waits for it that was queued half a second before.
    let mut s = scene();
    s.join_as("A", 1, 0, &["gpu"]);
    s.join_as("B", 1, 0, &[]);
    let gpu = |priority| {
        move |t: &mut swarm_events::task::Submitted| {
            t.required_capabilities = vec!["gpu".to_owned()];
            t.priority = priority;
            t.timeout_ms = Some(60_000);
        }
    };
    s.submit_as("first", gpu(5));
    s.world.settle();
    s.start("first");
    s.submit_as("rival", gpu(6));
    s.world.later(500);
    s.submit_as("t", gpu(5));
    s.world.settle();
    // Then
    assert_eq!(
        told(&mut s, "t"),
        [
            "It has waited 0 ms for a place at an agent with gpu: of the one that could take it, 1 is full.",
            "1 task before it competes for the same agents.",
            "It would be assigned if 2 places came free at agent A: the tasks before it get theirs first.",
            "It would be assigned if it had priority 7 or more: it would be the next to get a place.",
            "It would be assigned if more agents with gpu brought 2 free slots: the tasks before it get theirs first.",
            "From +5000ms on no newly queued task goes before it, whatever its priority."
        ]
    );
    let queued = queued(&mut s, "t");
    assert_eq!(queued.ahead, exactly(1));
    assert!(
        queued
            .would_be_assigned_if
            .iter()
            .any(|c| c.what == What::Priority { least: 7 })
    );
    let standings: Vec<Standing> = queued.items.iter().map(|line| line.standing).collect();
    assert_eq!(standings, [Standing::Full, Standing::MissingCapability]);
    // When the rival has got the place, it is next.
    s.complete("first");
    s.world.settle();
    let told = told(&mut s, "t");
    assert_eq!(
        told[1],
        "No task before it competes for the same agents: it is next."
    );
    assert_eq!(
        told[2],
        "It would be assigned if a place came free at agent A."
    );
}

#[test]
fn the_priority_that_is_enough_is_solved_with_the_ties_of_ranks() {
    // Ranks tie at priority 7: the one that was submitted first goes first, so that 8 is needed.
    for (earlier, least) in [(999, 7), (1_000, 8), (1_001, 8)] {
        let mut s = scene();
        s.join("A");
        s.submit("at work");
        s.world.settle();
        s.start("at work");
        s.submit_as("rival", |t| t.priority = 6);
        s.world.later(earlier);
        s.submit_as("t", |t| t.priority = 5);
        s.world.settle();
        let what = queued(&mut s, "t").would_be_assigned_if;
        let found = what.iter().find_map(|c| match c.what {
            What::Priority { least } => Some(least),
            _ => None,
        });
        assert_eq!(found, Some(least), "{earlier} ms");
    }
}

#[test]
fn no_priority_is_named_if_none_is_enough() {
    let mut s = scene();
    s.join("A");
    s.submit("at work");
    s.world.settle();
    s.submit_as("rival", |t| t.priority = 10);
    s.world.later(1);
    s.submit_as("t", |t| t.priority = 1);
    s.world.settle();
    assert_eq!(kinds(&queued(&mut s, "t")), ["place", "agents"]);
    // Without ageing priorities count for nothing at all.
    let mut s = Scene::with(|c| c.priority_step_ms = 0);
    s.join("A");
    s.submit("at work");
    s.world.settle();
    s.submit("rival");
    s.submit("t");
    s.world.settle();
    let queued = queued(&mut s, "t");
    assert_eq!(kinds(&queued), ["place", "agents"]);
    assert_eq!(queued.ageing_wins_at, None);
}

#[test]
fn a_place_comes_free_at_the_latest_with_a_run_limit() {
    let mut s = scene();
    s.join_as("A", 2, 1, &[]);
    for (name, timeout) in [("a", 9_000), ("b", 7_000), ("c", 1_000)] {
        s.submit_as(name, |t| t.timeout_ms = Some(timeout));
    }
    s.world.settle();
    s.start("a");
    s.start("b");
    s.submit("t");
    s.world.settle();
    let told = told(&mut s, "t");
    assert_eq!(
        told[2..4],
        [
            "It would be assigned if a place came free at agent A.",
            "It would be assigned if the run limit of task b ends at agent A: at +7000ms a place comes free there at the latest."
        ]
    );
    // Then
    s.world.later(7_000);
    assert_eq!(s.status("t"), "assigned");
}

#[test]
fn suspected_agents_with_a_place_count_once_they_are_well() {
    let mut s = scene();
    s.join("A");
    s.join("B");
    s.suspect("A");
    s.suspect("B");
    s.submit("t");
    s.world.settle();
    let queued = queued(&mut s, "t");
    assert_eq!(queued.agents.unhealthy, 2);
    assert_eq!(kinds(&queued), ["well", "agents"]);
    let told = told(&mut s, "t");
    assert_eq!(
        told[0],
        "It has waited 0 ms for a place at an agent: of the 2 that could take it, 2 are suspected or failed."
    );
    assert_eq!(
        told[2],
        "It would be assigned if one of the 2 suspected agents with a place for it were well again."
    );
}

#[test]
fn an_agent_that_lets_assignments_lapse_comes_back_at_a_time_that_is_told() {
    let mut s = scene();
    s.join("A");
    s.submit("t");
    s.world.settle();
    // Two lapses.
    s.world.later(2_000);
    s.world.later(2_000);
    let queued = queued(&mut s, "t");
    assert_eq!(queued.agents.unresponsive, 1);
    assert_eq!(kinds(&queued), ["back", "agents"]);
    let told = told(&mut s, "t");
    assert_eq!(
        told[0],
        "It has waited 4 s for a place at an agent: of the one that could take it, 1 let assignments lapse."
    );
    assert_eq!(
        told[2],
        "It would be assigned if agent A, which let assignments lapse, is given work again: at +10000ms, or once it writes \
         anything."
    );
    // Then
    s.world.later(9_999);
    assert_eq!(s.status("t"), "queued");
    s.world.later(1);
    assert_eq!(s.status("t"), "assigned");
}

#[test]
fn what_ageing_alone_does_is_told() {
    let mut s = scene();
    s.join("A");
    s.submit("at work");
    s.world.settle();
    s.start("at work");
    s.submit_as("t", |t| t.priority = 3);
    s.world.later(6_999);
    assert_eq!(
        told(&mut s, "t").last().map(String::as_str),
        Some("From +1ms on no newly queued task goes before it, whatever its priority.")
    );
    s.world.later(1);
    assert_eq!(
        told(&mut s, "t").last().map(String::as_str),
        Some("It has waited so long that no task that is queued from now on goes before it.")
    );
    // Then: not even one of priority 10.
    s.submit_as("urgent", |t| t.priority = 10);
    s.complete("at work");
    assert_eq!(s.news().pop().as_deref(), Some("assigned t to A"));
}

#[test]
fn a_queue_timeout_that_comes_first_is_told() {
    let mut s = Scene::with(|c| c.queue_timeout_ms = 5_000);
    s.submit("t");
    s.world.later(2_000);
    assert_eq!(
        told(&mut s, "t").last().map(String::as_str),
        Some("If it has not started by +3000ms, it fails: its queue_timeout_ms is over then.")
    );
    s.world.now = s.world.now.plus_millis(3_000);
    s.wake();
    assert_eq!(
        told(&mut s, "t")[0],
        "It fails: it waited longer than its queue_timeout_ms"
    );
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
}

#[test]
fn a_decision_that_is_under_way_is_said_to_be() {
    let mut s = scene();
    s.join_as("A", 1, 1, &[]);
    s.submit("t");
    s.submit("u");
    s.submit("v");
    for name in ["t", "u"] {
        let queued = queued(&mut s, name);
        assert!(queued.assignable && queued.would_be_assigned_if.is_empty());
    }
    assert_eq!(
        told(&mut s, "u")[..3],
        [
            "It has waited 0 ms and can be assigned as things are: only the decision is under way.",
            "If this answer stays, no distributor decides for this swarm: see `swarm status`.",
            "1 task before it competes for the same agents."
        ]
    );
    // The third one is not to be: the two before it take what is free.
    assert_eq!(
        told(&mut s, "v")[..3],
        [
            "It has waited 0 ms for a place at an agent: of the one that could take it, 1 will be taken by tasks before it.",
            "2 tasks before it compete for the same agents.",
            "It would be assigned if a place came free at agent A."
        ]
    );
    s.world.settle();
    assert_eq!(
        ["t", "u", "v"].map(|name| s.status(name)),
        ["assigned", "assigned", "queued"]
    );
}

#[test]
fn the_priority_queue_keeps_nothing_waiting_at_agents() {
    let mut s = Scene::with(|c| c.distribution_algorithm = Algorithm::PriorityQueue);
    s.join_as("A", 1, 5, &[]);
    s.submit("at work");
    s.submit("t");
    s.world.settle();
    let queued = queued(&mut s, "t");
    assert_eq!((queued.agents.full, queued.agents.free), (1, 0));
}

#[test]
fn counting_is_exact_where_it_is_cheap_and_bounded_where_it_is_not() {
    let mut s = scene();
    s.join("A");
    s.submit("at work");
    s.world.settle();
    let all = 2 * COUNT_MAX + 4;
    for n in 0..all {
        s.submit(&n.to_string());
    }
    s.world.settle();
    let ahead = |s: &mut Scene, n: u64| queued(s, &n.to_string()).ahead;
    // From either end it is exact, up to the limit.
    assert_eq!(ahead(&mut s, 0), exactly(0));
    assert_eq!(ahead(&mut s, COUNT_MAX - 1), exactly(COUNT_MAX - 1));
    assert_eq!(ahead(&mut s, all - 1), exactly(all - 1));
    let late = all - COUNT_MAX + 1;
    assert_eq!(ahead(&mut s, late), exactly(late));
    // In the middle it is not.
    let middle = ahead(&mut s, COUNT_MAX + 1);
    assert_eq!(
        middle,
        Count {
            count: COUNT_MAX,
            at_least: true
        }
    );
    let told = told(&mut s, &(COUNT_MAX + 1).to_string());
    assert_eq!(
        told[1],
        "At least 1000 tasks before it compete for the same agents."
    );
}

#[test]
fn at_most_eight_agents_are_named_and_all_are_counted() {
    let mut s = scene();
    for n in 0..ITEMS_MAX + 2 {
        s.join_as(&n.to_string(), 1, 0, &["linux"]);
    }
    s.submit_as("t", |t| t.required_capabilities = vec!["gpu".to_owned()]);
    s.world.settle();
    let queued = queued(&mut s, "t");
    assert_eq!(queued.items.len(), ITEMS_MAX);
    assert_eq!(queued.agents.members as usize, ITEMS_MAX + 2);
    assert_eq!(
        queued.lacking.expect("nobody is able").nearest.len(),
        ITEMS_MAX
    );
}

#[test]
fn tasks_for_other_agents_are_not_before_it() {
    let mut s = scene();
    s.join_as("A", 1, 0, &["a"]);
    s.join_as("B", 1, 0, &["b"]);
    for (name, word) in [("1", "a"), ("2", "b"), ("3", "b"), ("4", "b"), ("t", "a")] {
        s.submit_as(name, |t| t.required_capabilities = vec![word.to_owned()]);
    }
    s.world.settle();
    assert_eq!(queued(&mut s, "t").ahead, exactly(0));
    // An agent that can do both makes them rivals.
    s.join_as("C", 1, 0, &["a", "b"]);
    s.suspect("C");
    s.world.settle();
    assert_eq!(queued(&mut s, "t").ahead, exactly(2));
}

#[test]
fn the_answer_is_json_with_a_kind() {
    let mut s = scene();
    s.submit("t");
    let json = serde_json::to_value(explain(&mut s, "t")).expect("JSON");
    assert_eq!(json["status"], "queued");
    assert_eq!(json["reason"]["kind"], "queued");
    let condition = &json["reason"]["would_be_assigned_if"][0];
    assert_eq!(condition["kind"], "agents");
    assert_eq!(condition["sentence"], "one more agent had a free slot");
    assert_eq!(condition["slots"]["count"], 1);
}
