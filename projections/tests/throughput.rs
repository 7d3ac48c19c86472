//! How fast the projector is. The figure is printed; the limit is far below it, for machines that do other things too.

mod support;

use std::time::Instant;

use support::*;
use swarm_events::{AgentId, TaskId};
use swarm_projections::projector::Pace;
use swarm_servers::testing;

/// Life cycles of tasks, four events each.
const TASKS: u128 = 20_000;
/// What the 3,000 tasks a second need, with an unoptimized build's handicap taken off.
const TASKS_PER_SECOND_MIN: f64 = if cfg!(debug_assertions) {
    500.0
} else {
    3_000.0
};
const AGENTS: u128 = 20;

#[tokio::test(flavor = "multi_thread")]
async fn a_log_of_tasks_is_projected_fast_enough() {
    let postgres = testing::postgres().await;
    let mut s = Script::new().await;
    let agent = |number: u128| AgentId(id(100 + number % AGENTS));
    for number in 0..AGENTS {
        s.join(agent(number), 1, 100).await;
    }
    // In rounds of a hundred, so that the steps of a task lie apart as they do in life.
    for round in 0..TASKS / 100 {
        let tasks: Vec<_> = (0..100)
            .map(|at| (TaskId(id(10_000 + round * 100 + at)), agent(at)))
            .collect();
        for (task, _) in &tasks {
            s.submit(*task, submission()).await;
        }
        let mut assigned = Vec::new();
        for (task, agent) in &tasks {
            assigned.push(s.assign(*task, *agent, 1).await);
        }
        for ((task, agent), assignment) in tasks.iter().zip(&assigned) {
            s.start(*task, *agent, *assignment).await;
        }
        for ((task, agent), assignment) in tasks.iter().zip(&assigned) {
            s.complete(
                *task,
                *agent,
                *assignment,
                swarm_events::task::Carried::Inline(serde_json::json!({"n": 1}).into()),
            )
            .await;
        }
    }
    let last = s.log.last_sequence();
    for (name, messages_max) in [
        ("whole batches", Pace::default().messages_max),
        ("batches of 150", 150),
    ] {
        let url = postgres.fresh_database(&format!("m{messages_max}")).await;
        let start = Instant::now();
        let projector = Projector::start(
            &s.log,
            &url,
            Pace {
                messages_max,
                ..Pace::default()
            },
        );
        projector.until_committed(last).await;
        let seconds = start.elapsed().as_secs_f64();
        let state = projector.status.get();
        projector.stop().await;
        let rate = TASKS as f64 / seconds;
        println!(
            "{name}: {rate:.0} tasks/s, {:.0} messages/s, {} batches, {seconds:.2} s",
            last as f64 / seconds,
            state.batches
        );
        let done: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM swarm_tasks WHERE status = 'completed' AND result IS NOT NULL",
        )
        .fetch_one(&pool(&url).await)
        .await
        .expect("counts");
        assert_eq!(u128::try_from(done), Ok(TASKS));
        assert!(rate > TASKS_PER_SECOND_MIN, "{rate:.0} tasks/s");
    }
}
