//! Splits that cannot be, and what nobody may do to parts.

use swarm_events::{
    Json, TaskId,
    agent::CAPABILITIES_MAX,
    decider::Verdict,
    envelope::Source,
    task::{PARTS_MAX, PAYLOAD_BYTES_MAX, Part, SPLIT_DEPTH_MAX, part_id},
};

use super::{error, parted, running};
use crate::scene::{Scene, beyond::part};

/// The field that a split is refused for.
fn refused(parts: Vec<Part>) -> Option<String> {
    let mut s = Scene::with(|c| c.queue_limit = 2_000);
    s.join("A");
    s.submit("t");
    s.begin("t");
    s.news();
    assert_eq!(s.split_as("t", parts), Verdict::Applied);
    if s.status("t") != "pending" || s.view("t").parts.is_some() {
        return None;
    }
    s.world.settle();
    let view = s.view("t");
    assert_eq!(view.status.as_str(), "failed");
    assert!(view.dead_lettered);
    assert_eq!(s.agent("A").failed, 1, "a failed attempt");
    let counters = s.world.state.counters(s.place).expect("known");
    assert_eq!(
        (counters.failed, counters.queued, counters.pending),
        (1, 0, 0)
    );
    let error = error(&mut s, "t");
    let fields = ["parts[", "parts"];
    let at = fields.iter().filter_map(|field| error.find(field)).min()?;
    let field = &error[at..];
    let end = field
        .find(|c: char| !c.is_ascii_alphanumeric() && !"[]._".contains(c))
        .unwrap_or(field.len());
    Some(field[..end].trim_end_matches('.').to_owned())
}

#[test]
fn a_split_that_cannot_be_is_refused_as_a_whole_and_names_the_field() {
    let text = |bytes: usize| Json::parse(&format!("\"{}\"", "x".repeat(bytes - 2))).expect("JSON");
    let many = |n: usize| (0..n).map(|n| part(&n.to_string())).collect::<Vec<_>>();
    let second = |change: fn(&mut Part)| {
        let mut parts = many(2);
        change(&mut parts[1]);
        parts
    };
    let cases = [
        ("parts", Vec::new()),
        ("parts", many(PARTS_MAX + 1)),
        ("parts[1].key", second(|p| p.key.clear())),
        ("parts[1].key", second(|p| p.key = "0".to_owned())),
        ("parts[1].task_type", second(|p| p.task_type.clear())),
        ("parts[1].priority", second(|p| p.priority = Some(11))),
        (
            "parts[1].max_attempts",
            second(|p| p.max_attempts = Some(0)),
        ),
        ("parts[1].timeout_ms", second(|p| p.timeout_ms = Some(0))),
        (
            "parts[1].required_capabilities",
            second(|p| p.required_capabilities = vec!["a".to_owned(); CAPABILITIES_MAX + 1]),
        ),
        (
            "parts[0].payload",
            vec![Part {
                payload: text(PAYLOAD_BYTES_MAX + 1),
                ..part("large")
            }],
        ),
    ];
    for (field, parts) in cases {
        assert_eq!(refused(parts).as_deref(), Some(field));
    }
    assert_eq!(refused(many(1)), None);
    assert_eq!(refused(many(PARTS_MAX)), None);
    assert_eq!(
        refused(vec![Part {
            payload: text(PAYLOAD_BYTES_MAX),
            ..part("large")
        }]),
        None
    );
}

#[test]
fn parts_count_against_the_queue_limit_all_or_none() {
    for (parts, fits) in [(3, true), (4, false)] {
        let mut s = Scene::with(|c| {
            c.queue_limit = 4;
            c.shed_from_percent = 100;
        });
        s.join("A");
        s.submit("t");
        s.begin("t");
        s.submit("waits");
        let parts = (0..parts).map(|n| part(&n.to_string())).collect();
        s.split_as("t", parts);
        s.world.settle();
        assert_eq!(s.status("t") == "pending", fits);
        if !fits {
            let error = error(&mut s, "t");
            assert!(
                error.contains("parts[3]") && error.contains("queue_limit"),
                "{error}"
            );
            assert_eq!(
                s.world.state.tasks(s.place).count(),
                1,
                "none of them exists"
            );
        }
    }
}

#[test]
fn what_is_split_again_and_again_comes_to_an_end() {
    let mut s = Scene::with(|c| c.stealing = false);
    s.join("A");
    s.submit("t");
    let mut name = "t".to_owned();
    for _ in 0..SPLIT_DEPTH_MAX {
        s.begin(&name);
        s.split(&name, &["p"]);
        name = format!("{name}/p");
    }
    s.begin(&name);
    s.split(&name, &["p"]);
    s.world.settle();
    assert_eq!(s.status(&name), "failed");
    assert!(error(&mut s, &name).contains("8 deep"));
    assert_eq!(
        s.status("t"),
        "failed",
        "and with it all that it is a part of"
    );
    assert_eq!(s.view("t").failure_path.len(), usize::from(SPLIT_DEPTH_MAX));
    assert_eq!(s.world.state.tasks(s.place).count(), 0);
}

#[test]
fn only_who_runs_a_task_splits_it_and_only_once() {
    let mut s = Scene::new();
    s.join_as("A", 4, 0, &[]);
    s.submit("t");
    s.world.settle();
    assert_eq!(s.split("t", &["a"]), Verdict::Void("not-started"));
    s.start("t");
    assert_eq!(s.split("t", &["a"]), Verdict::Applied);
    assert_eq!(s.split("t", &["a"]), Verdict::Void("late"));
    assert_eq!(s.complete("t"), Verdict::Void("late"));
    s.join("A");
    s.world.settle();
    assert_eq!(s.split("t", &["a"]), Verdict::Void("late"));
}

#[test]
fn nobody_can_submit_anything_under_the_id_of_a_part() {
    // Before the split: the id is taken, so nothing of it exists.
    let mut s = running();
    let (_, assignment, _) = s.assignment("t");
    let id = part_id(s.task_id("t"), assignment, 1);
    s.submitted_by(Source::Client("x".to_owned()), id, |_| {});
    s.split("t", &["a", "b"]);
    s.world.settle();
    assert_eq!(s.status("t"), "failed");
    assert!(error(&mut s, "t").contains("parts[1]"));
    // After it: refused, and the part is untouched.
    let mut s = parted();
    let id = TaskId(s.id("t/a"));
    s.submitted_by(Source::Client("x".to_owned()), id, |t| t.priority = 9);
    assert_eq!(
        s.news(),
        [
            "refused t/a: id-in-use ×1",
            "assigned t/a to A",
            "assigned t/b to A"
        ]
    );
    assert_eq!(s.view("t/a").priority, 5);
}
