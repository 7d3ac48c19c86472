//! A steady load: tasks straight into the log, tasks and graphs through the gateways. What has no answer is sent again
//! under the same id until it has one, as a careful client does.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::ensure;
use serde_json::{Value, json};
use swarm_events::{EventId, Place, TaskId};
use swarm_log::{AppendError, Log};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::bus::{Bus, submission};

/// Attempts of every task: more than faults can use up, so that no task may fail.
pub const ATTEMPTS_MAX: u32 = 50;
/// Pause before a client sends again what had no answer.
const AGAIN: Duration = Duration::from_millis(100);
/// Longest wait for the answers that are still out when the load stops.
const ANSWERS_PATIENCE: Duration = Duration::from_secs(90);
/// How long a client waits for the gateway: longer than the gateway waits for the log, so that its word is heard.
const HTTP_PATIENCE: Duration = Duration::from_secs(15);
/// Every so many-th request to a gateway is a graph of three tasks.
const GRAPH_EACH: u64 = 6;
/// Every so many-th task of the log is called off again.
const CANCEL_EACH: u64 = 25;

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Pause between two tasks that go straight to the log.
    pub log: Duration,
    /// Pause between two requests to the gateways.
    pub api: Duration,
    /// Bytes of padding in each payload.
    pub padding: usize,
}

impl Default for Pace {
    /// About 35 tasks a second: with agents, services and servers on two cores something is always under way, and the
    /// queue stays short.
    fn default() -> Self {
        Self {
            log: Duration::from_millis(40),
            api: Duration::from_millis(200),
            padding: 40,
        }
    }
}

#[derive(Default)]
struct State {
    accepted: BTreeSet<TaskId>,
    commands: BTreeSet<EventId>,
    /// Refusals that sending again does not cure: none is expected.
    refused: Vec<String>,
    /// What kept clients waiting, with how often.
    trouble: BTreeMap<String, u64>,
}

struct Shared {
    bus: Bus,
    place: Place,
    pace: Pace,
    gateways: Vec<String>,
    key: String,
    http: reqwest::Client,
    state: Mutex<State>,
    numbers: AtomicU64,
    stop: CancellationToken,
}

/// A running load.
pub struct Load {
    shared: Arc<Shared>,
    clients: JoinSet<()>,
}

impl Load {
    /// Starts it.
    pub fn start(bus: &Bus, place: Place, pace: Pace, gateways: Vec<String>, key: &str) -> Self {
        let shared = Arc::new(Shared {
            bus: bus.clone(),
            place,
            pace,
            gateways,
            key: key.to_owned(),
            http: reqwest::Client::new(),
            state: Mutex::default(),
            numbers: AtomicU64::new(0),
            stop: CancellationToken::new(),
        });
        let mut clients = JoinSet::new();
        clients.spawn(to_log(shared.clone()));
        if !shared.gateways.is_empty() {
            clients.spawn(to_gateways(shared.clone()));
        }
        Self { shared, clients }
    }

    /// How many tasks have been acknowledged.
    pub fn accepted(&self) -> usize {
        self.shared.state().accepted.len()
    }

    /// What kept clients waiting so far, with how often.
    pub fn trouble(&self) -> BTreeMap<String, u64> {
        self.shared.state().trouble.clone()
    }

    /// Stops submitting and waits until everything that was begun has its answer.
    ///
    /// # Errors
    /// An answer is missing, or something was refused.
    pub async fn stop(mut self) -> anyhow::Result<Submitted> {
        self.shared.stop.cancel();
        let all = async { while self.clients.join_next().await.is_some() {} };
        let answered = timeout(ANSWERS_PATIENCE, all).await.is_ok();
        let state = self.shared.state();
        ensure!(
            answered,
            "submissions are still without an answer after {} s: {:?}",
            ANSWERS_PATIENCE.as_secs(),
            state.trouble
        );
        ensure!(state.refused.is_empty(), "refused: {:?}", state.refused);
        Ok(Submitted {
            tasks: state.accepted.clone(),
            commands: state.commands.clone(),
        })
    }
}

/// What a load has handed in, each of it acknowledged.
#[derive(Debug, Default)]
pub struct Submitted {
    /// Tasks.
    pub tasks: BTreeSet<TaskId>,
    /// Commands.
    pub commands: BTreeSet<EventId>,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
    fn trouble(&self, what: String) {
        *self.state().trouble.entry(what).or_default() += 1;
    }
    fn payload(&self) -> Value {
        let number = self.numbers.fetch_add(1, Ordering::Relaxed);
        json!({"number": number, "text": "x".repeat(self.pace.padding)})
    }
}

/// One task each tick, whatever became of those before: a client does not wait for others.
async fn to_log(shared: Arc<Shared>) {
    let mut ticks = interval(shared.pace.log);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pending = JoinSet::new();
    let mut count = 0u64;
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            Some(_) = pending.join_next(), if !pending.is_empty() => {}
            // What waits for an answer is bounded: a client that is never answered does not pile up more.
            _ = ticks.tick(), if pending.len() < PENDING_MAX => {
                count += 1;
                pending.spawn(one_to_log(shared.clone(), count.is_multiple_of(CANCEL_EACH)));
            }
        }
    }
    while pending.join_next().await.is_some() {}
}

/// Most submissions of one client without an answer.
const PENDING_MAX: usize = 200;

async fn one_to_log(shared: Arc<Shared>, cancel: bool) {
    let (task, message) = match submission(shared.place, shared.payload()) {
        Ok(made) => made,
        Err(error) => return shared.state().refused.push(format!("{error:#}")),
    };
    loop {
        let outcome = shared.bus.log().append(vec![message.clone()]).await;
        match outcome.into_iter().next() {
            Some(Ok(_)) => break,
            Some(Err(error)) => shared.trouble(kind_of(&error)),
            None => shared.trouble("no outcome".to_owned()),
        }
        sleep(AGAIN).await;
    }
    shared.state().accepted.insert(task);
    if cancel {
        // Sent once: without an answer it may or may not have been stored, and either is well.
        match shared.bus.cancel(shared.place, task).await {
            Ok(id) => {
                shared.state().commands.insert(id);
            }
            Err(error) => shared.trouble(format!("cancel: {error}")),
        }
    }
}

/// The error without what differs from message to message.
fn kind_of(error: &AppendError) -> String {
    match error {
        AppendError::Fenced { .. } => "fenced".to_owned(),
        AppendError::FenceBusy { .. } => "fence busy".to_owned(),
        AppendError::TooLarge { .. } => "too large".to_owned(),
        AppendError::Full { description } => format!("full: {description}"),
        AppendError::Unknown { .. } => "no acknowledgement".to_owned(),
        AppendError::Refused {
            code, description, ..
        } => format!("refused with {code}: {description}"),
    }
}

async fn to_gateways(shared: Arc<Shared>) {
    let mut ticks = interval(shared.pace.api);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut pending = JoinSet::new();
    let mut count = 0u64;
    loop {
        tokio::select! {
            biased;
            () = shared.stop.cancelled() => break,
            Some(_) = pending.join_next(), if !pending.is_empty() => {}
            _ = ticks.tick(), if pending.len() < PENDING_MAX => {
                count += 1;
                pending.spawn(one_to_gateways(shared.clone(), count));
            }
        }
    }
    while pending.join_next().await.is_some() {}
}

async fn one_to_gateways(shared: Arc<Shared>, number: u64) {
    let one = |key: &str| json!({"key": key, "task_type": "chaos", "payload": shared.payload(), "max_attempts": ATTEMPTS_MAX});
    let mut body = one("a");
    if number.is_multiple_of(GRAPH_EACH) {
        let (mut b, mut c) = (one("b"), one("c"));
        b["depends_on"] = json!([{"key": "a", "dependency_type": "data", "as": "before"}]);
        c["depends_on"] = json!([{"key": "a"}, {"key": "b", "dependency_type": "completion"}]);
        body = json!({"tasks": [body, b, c]});
    }
    let key = Uuid::now_v7().to_string();
    // Neighbours begin at different gateways, and go on to the next one when theirs does not answer.
    let mut turn = usize::try_from(number).unwrap_or(0);
    loop {
        let gateway = &shared.gateways[turn % shared.gateways.len()];
        turn += 1;
        let sent = shared
            .http
            .post(format!("{gateway}/v1/swarms/{}/tasks", shared.place.swarm))
            .bearer_auth(&shared.key)
            .header("Idempotency-Key", &key)
            .timeout(HTTP_PATIENCE)
            .json(&body)
            .send()
            .await;
        match sent {
            Ok(response) => {
                let status = response.status();
                let answer: Value = response.json().await.unwrap_or(Value::Null);
                if status.is_success() {
                    let ids = tasks_in(&answer);
                    let mut state = shared.state();
                    if ids.is_empty() {
                        state.refused.push(format!("no task in {answer}"));
                    }
                    state.accepted.extend(ids);
                    return;
                }
                let code = answer["code"].as_str().unwrap_or("no code");
                let text = format!("gateway: {status} {code}");
                let passes =
                    status.is_server_error() || matches!(status.as_u16(), 408 | 409 | 425 | 429);
                if !passes {
                    return shared.state().refused.push(format!("{text}: {answer}"));
                }
                shared.trouble(text);
            }
            Err(error) if error.is_timeout() => shared.trouble("gateway: no answer".to_owned()),
            Err(_) => shared.trouble("gateway: not reached".to_owned()),
        }
        sleep(AGAIN).await;
    }
}

fn tasks_in(answer: &Value) -> Vec<TaskId> {
    let id = |value: &Value| value["id"].as_str()?.parse().ok();
    match answer["items"].as_array() {
        Some(items) => items.iter().filter_map(id).collect(),
        None => id(answer).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tasks_of_an_answer_are_found_in_both_shapes() {
        let (a, b) = (
            Uuid::from_u128(1).to_string(),
            Uuid::from_u128(2).to_string(),
        );
        assert_eq!(tasks_in(&json!({"id": a, "status": "queued"})).len(), 1);
        assert_eq!(tasks_in(&json!({"items": [{"id": a}, {"id": b}]})).len(), 2);
        assert!(tasks_in(&json!({"detail": "no"})).is_empty());
    }
}
