use serde_json::{Value, json};

use super::*;
use crate::problem::Answer;

fn ids(count: usize) -> Vec<Uuid> {
    (0..count).map(|n| Uuid::from_u128(n as u128)).collect()
}

fn refused<T: std::fmt::Debug>(answer: Answer<T>) -> (u16, String, String) {
    let problem = answer.expect_err("must be refused");
    assert!(problem.problem.cure.is_some(), "{}", problem.problem);
    (
        problem.status.as_u16(),
        problem.problem.code.clone(),
        problem.problem.field.clone().unwrap_or_default(),
    )
}

fn cancel(body: &Value) -> Answer<(Target, Option<String>)> {
    CancelManyInput::read(body.to_string().as_bytes())
}

#[test]
fn one_to_a_thousand_tasks_are_taken() {
    for count in [1, ORDERS_MAX] {
        let body = json!({"task_ids": ids(count)}).to_string();
        let read = ManyInput::read(body.as_bytes()).expect("good");
        assert_eq!(read.len(), count);
        let (target, reason) = cancel(&json!({"task_ids": ids(count)})).expect("good");
        assert_eq!((target, reason), (Target::Tasks(read), None));
    }
    for count in [0, ORDERS_MAX + 1] {
        let body = json!({"task_ids": ids(count)});
        let expected = (422, "wrong-number".to_owned(), "task_ids".to_owned());
        assert_eq!(refused(cancel(&body)), expected);
        let read = ManyInput::read(body.to_string().as_bytes());
        assert_eq!(refused(read), expected);
    }
}

#[test]
fn a_wrong_order_is_refused_by_its_field() {
    let twice = [ids(2), ids(1)].concat();
    let graph = Uuid::from_u128(7);
    for (body, code, field) in [
        (json!({}), "missing-field", "task_ids"),
        (
            json!({"task_ids": ids(1), "graph_id": graph}),
            "two-targets",
            "graph_id",
        ),
        (json!({"task_ids": twice}), "duplicate-id", "task_ids[2]"),
        (
            json!({"task_ids": [graph, "x"]}),
            "wrong-value",
            "task_ids[1]",
        ),
        (json!({"graph_id": 7}), "wrong-value", "graph_id"),
        (json!({"tasks": ids(1)}), "unknown-field", "tasks"),
        (
            json!({"graph_id": graph, "reason": "x".repeat(1_001)}),
            "too-long",
            "reason",
        ),
    ] {
        let expected = (422, code.to_owned(), field.to_owned());
        assert_eq!(refused(cancel(&body)), expected, "{body}");
    }
    let longest = json!({"graph_id": graph, "reason": "x".repeat(1_000)});
    let (target, reason) = cancel(&longest).expect("at the limit");
    assert_eq!(target, Target::Graph(GraphId(graph)));
    assert_eq!(reason.map(|reason| reason.len()), Some(1_000));
}
