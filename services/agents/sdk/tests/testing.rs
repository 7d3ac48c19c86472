//! The harness for tests of agents: a swarm's rules on a virtual clock.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use serde_json::json;
use swarm_agent_sdk::{
    AgentBuilder, CANCEL_GRACE, TaskContext, TaskError,
    testing::{self, DECLINES_MAX, TestEnd, TestEvent, TestSwarm, TestTask},
};
use swarm_events::{Json, configuration::RetryPolicy, task::RESULT_BYTES_MAX};

const HOUR: Duration = Duration::from_secs(3_600);

fn named(name: &str) -> AgentBuilder {
    testing::agent().name(name)
}
fn retries(base_ms: u64) -> RetryPolicy {
    RetryPolicy {
        base_ms,
        ..RetryPolicy::default()
    }
}

#[tokio::test(start_paused = true)]
async fn progress_is_seen_as_it_is_told() {
    let agent = named("a").handler("walk", async |task: TaskContext, steps: u8| {
        for step in 1..=steps {
            task.progress(Some(step * 10), Some("on the way"));
            tokio::time::sleep(HOUR).await;
        }
        Ok::<_, TaskError>(steps)
    });
    let swarm = TestSwarm::new([agent]);
    let task = swarm.submit(TestTask::new("walk", 2).timeout(3 * HOUR));
    let half = |event: &TestEvent| matches!(event, TestEvent::Progressed { percent: Some(20), message: Some(m) } if m == "on the way");
    assert_eq!(task.until(half).await.expect("told").at, HOUR);
    assert_eq!(task.end().await, TestEnd::Completed(json!(2)));
    assert_eq!(task.history().last().expect("ended").at, 2 * HOUR);
}

#[tokio::test(start_paused = true)]
async fn a_failed_attempt_comes_again_after_its_wait_with_a_higher_token() {
    let agent = named("a").handler("flaky", async |task: TaskContext, _: Json| {
        if task.attempt < 3 {
            return Err(TaskError::retryable(format!("attempt {}", task.attempt)));
        }
        Ok(json!([task.attempt, task.fencing_token]))
    });
    let swarm = TestSwarm::with_retries([agent], retries(1_000));
    let task = swarm.submit(TestTask::new("flaky", json!({})));
    assert_eq!(task.end().await, TestEnd::Completed(json!([3, 3])));
    let tokens = task.fencing_tokens();
    assert_eq!(
        tokens.into_iter().collect::<Vec<_>>(),
        [(1, 1), (2, 2), (3, 3)]
    );
    let started = task
        .history()
        .into_iter()
        .filter(|entry| matches!(entry.event, TestEvent::Started { .. }));
    let at: Vec<_> = started.map(|entry| entry.at.as_millis()).collect();
    assert_eq!(at, [0, 1_000, 3_000]);
}

#[tokio::test(start_paused = true)]
async fn attempts_end_at_their_number_and_at_a_failure_for_good() {
    let agent = named("a")
        .handler("flaky", async |_: TaskContext, _: Json| {
            Err::<(), _>(TaskError::retryable("again"))
        })
        .handler("hopeless", async |_: TaskContext, _: Json| {
            Err::<(), _>(TaskError::permanent("never"))
        });
    let swarm = TestSwarm::new([agent]);
    let flaky = swarm.submit(TestTask::new("flaky", json!({})).max_attempts(4));
    let failed = |error: &str| TestEnd::Failed {
        error: error.to_owned(),
    };
    assert_eq!(flaky.end().await, failed("again"));
    assert_eq!(flaky.fencing_tokens().len(), 4);
    let hopeless = swarm.submit(TestTask::new("hopeless", json!({})).max_attempts(4));
    assert_eq!(hopeless.end().await, failed("never"));
    assert_eq!(hopeless.fencing_tokens().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_payload_that_does_not_fit_names_the_field() {
    #[derive(serde::Deserialize, swarm_agent_sdk::schemars::JsonSchema)]
    #[schemars(crate = "swarm_agent_sdk::schemars")]
    struct Order {
        #[expect(dead_code, reason = "read by nobody: only its shape matters")]
        items: Vec<u8>,
    }
    let agent = named("a").handler("order", async |_: TaskContext, _: Order| {
        Ok::<_, TaskError>(())
    });
    let swarm = TestSwarm::new([agent]);
    for (payload, words) in [
        (
            json!({"items": [1, "x"]}),
            "payload.items[1]: not what order takes: invalid type: string \"x\", expected u8",
        ),
        (
            json!({}),
            "payload: not what order takes: missing field `items`",
        ),
        (
            json!(7),
            "payload: not what order takes: invalid type: integer `7`",
        ),
    ] {
        let TestEnd::Failed { error } = swarm.submit(TestTask::new("order", payload)).end().await
        else {
            panic!("it does not fit");
        };
        assert!(error.starts_with(words), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_hangs_is_cancelled_at_its_limit_and_dropped_after_the_grace() {
    struct Dropped(Arc<AtomicU32>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }
    let (heard, dropped) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (hears, drops) = (heard.clone(), dropped.clone());
    let agent = named("a").handler("hang", move |task: TaskContext, _: Json| {
        let (hears, gone) = (hears.clone(), Dropped(drops.clone()));
        async move {
            let _gone = gone;
            task.cancelled.cancelled().await;
            hears.fetch_add(1, Ordering::Relaxed);
            std::future::pending::<()>().await; // stubborn
            Ok::<_, TaskError>(())
        }
    });
    let swarm = TestSwarm::new([agent]);
    let task = swarm.submit(
        TestTask::new("hang", json!({}))
            .timeout(HOUR)
            .max_attempts(1),
    );
    let failed = TestEnd::Failed {
        error: "ran longer than its limit of 3600000 ms".to_owned(),
    };
    assert_eq!(task.end().await, failed);
    assert_eq!(task.history().last().expect("ended").at, HOUR);
    assert_eq!(dropped.load(Ordering::Relaxed), 0);
    tokio::time::sleep(CANCEL_GRACE + Duration::from_secs(1)).await;
    assert_eq!(
        (
            heard.load(Ordering::Relaxed),
            dropped.load(Ordering::Relaxed)
        ),
        (1, 1)
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_is_called_off_cancels_its_handler_and_frees_its_slot() {
    let agent = named("a")
        .handler("hold", async |task: TaskContext, _: Json| {
            task.cancelled.cancelled().await;
            Ok::<_, TaskError>("nobody wants this")
        })
        .handler("quick", async |_: TaskContext, _: Json| {
            Ok::<_, TaskError>("done")
        });
    let swarm = TestSwarm::new([agent]);
    let held = swarm.submit(TestTask::new("hold", json!({})));
    let waits = swarm.submit(TestTask::new("quick", json!({})));
    held.until(|event| matches!(event, TestEvent::Started { .. }))
        .await
        .expect("it starts");
    assert_eq!(waits.history(), []); // one slot
    held.cancel();
    assert_eq!(held.end().await, TestEnd::Cancelled);
    assert_eq!(waits.end().await, TestEnd::Completed(json!("done")));
    let ends = held
        .history()
        .into_iter()
        .filter(|entry| matches!(entry.event, TestEvent::Ended(_)));
    assert_eq!(ends.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_declined_task_goes_to_another_agent_and_costs_no_attempt() {
    let picky = named("picky")
        .slots(2)
        .handler("any", async |_: TaskContext, _: Json| {
            Err::<u32, _>(TaskError::decline("not mine"))
        });
    let other = named("other").handler("any", async |task: TaskContext, _: Json| {
        Ok::<_, TaskError>(task.attempt)
    });
    let swarm = TestSwarm::new([picky, other]);
    let task = swarm.submit(TestTask::new("any", json!({})).max_attempts(1));
    assert_eq!(task.end().await, TestEnd::Completed(json!(1)));
    let events: Vec<_> = task
        .history()
        .into_iter()
        .map(|entry| entry.event)
        .collect();
    let declined = TestEvent::Declined {
        agent: "picky".to_owned(),
        reason: "not mine".to_owned(),
    };
    assert_eq!(events[1], declined);
    assert!(
        matches!(&events[2], TestEvent::Started { agent, attempt: 1, fencing_token: 2 } if agent == "other"),
        "{events:?}"
    );
}

#[tokio::test(start_paused = true)]
async fn a_task_that_everybody_declines_fails_with_the_last_reason() {
    let picky = named("picky").handler("any", async |task: TaskContext, _: Json| {
        Err::<(), _>(TaskError::decline(format!("no {}", task.fencing_token)))
    });
    let swarm = TestSwarm::new([picky]);
    for (task_type, words) in [
        ("any", "no 8"),
        (
            "unknown",
            "this agent has no handler for tasks of type unknown",
        ),
    ] {
        let task = swarm.submit(TestTask::new(task_type, json!({})).max_attempts(1));
        assert_eq!(
            task.end().await,
            TestEnd::Failed {
                error: words.to_owned()
            }
        );
        let declines = task
            .history()
            .into_iter()
            .filter(|entry| matches!(entry.event, TestEvent::Declined { .. }));
        assert_eq!(declines.count(), DECLINES_MAX as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_lost_agent_ran_goes_to_another_and_its_late_result_counts_for_nothing() {
    let slow = |name: &str| {
        named(name).handler("slow", async |task: TaskContext, _: Json| {
            tokio::time::sleep(HOUR).await; // heeds no cancellation
            Ok::<_, TaskError>(task.fencing_token)
        })
    };
    let swarm = TestSwarm::new([slow("a"), slow("b")]);
    let task = swarm.submit(TestTask::new("slow", json!({})).timeout(2 * HOUR));
    task.until(|event| matches!(event, TestEvent::Started { .. }))
        .await
        .expect("it starts");
    swarm.lose("a");
    assert_eq!(task.end().await, TestEnd::Completed(json!(2)));
    assert!(task.history().iter().any(|entry| entry.event
        == TestEvent::AgentLost {
            agent: "a".to_owned(),
            attempt: 1
        }));
    assert_eq!(
        task.fencing_tokens().into_iter().collect::<Vec<_>>(),
        [(1, 1), (2, 2)]
    );
}

#[tokio::test(start_paused = true)]
async fn capabilities_slots_and_priority_are_heeded() {
    let hold = async |task: TaskContext, _: Json| {
        tokio::time::sleep(HOUR).await;
        Ok::<_, TaskError>(task.priority)
    };
    let able = named("able")
        .capabilities(["x"])
        .slots(2)
        .handler("t", hold);
    let swarm = TestSwarm::new([able, named("other").handler("t", hold)]);
    let submit = |priority| {
        swarm.submit(
            TestTask::new("t", json!({}))
                .requires(["x"])
                .priority(priority)
                .timeout(2 * HOUR),
        )
    };
    let (first, second, low, high) = (submit(5), submit(5), submit(1), submit(10));
    let mut began = Vec::new();
    for task in [&first, &second, &high, &low] {
        assert!(matches!(task.end().await, TestEnd::Completed(_)));
        let history = task.history();
        assert!(matches!(&history[0].event, TestEvent::Started { agent, .. } if agent == "able"));
        began.push(history[0].at);
    }
    assert_eq!(began, [Duration::ZERO, Duration::ZERO, HOUR, HOUR]);
    let tokens = |task: &testing::Submitted| task.fencing_tokens()[&1];
    assert!(tokens(&high) < tokens(&low), "the more important one first");
    let nobody = swarm.submit(TestTask::new("t", json!({})).requires(["y"]));
    assert_eq!(nobody.end().await, TestEnd::Open);
}

#[tokio::test(start_paused = true)]
async fn inputs_reach_the_handler_and_large_results_come_back_whole() {
    let agent = named("a")
        .handler("sum", async |task: TaskContext, _: Json| {
            Ok::<_, TaskError>(task.inputs.to_value())
        })
        .handler("large", async |_: TaskContext, length: usize| {
            Ok::<_, TaskError>("x".repeat(length))
        });
    let swarm = TestSwarm::new([agent]);
    let task = swarm.submit(TestTask::new("sum", json!({})).inputs(json!({"a": 1})));
    assert_eq!(task.end().await, TestEnd::Completed(json!({"a": 1})));
    let task = swarm.submit(TestTask::new("large", RESULT_BYTES_MAX));
    assert_eq!(
        task.end().await,
        TestEnd::Completed(json!("x".repeat(RESULT_BYTES_MAX)))
    );
}
