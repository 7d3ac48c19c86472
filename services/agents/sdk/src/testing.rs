//! Tests of handlers and agents without servers, on a clock that the test owns.
//!
//! A [`TestSwarm`] hands tasks to agents as a swarm would: one attempt after another with rising fencing tokens, run limits,
//! waits between attempts, cancellation, declined tasks, an agent that is lost. The handlers run exactly as they do in an
//! agent that has joined; only the log and the distributor are played. Under tokio's paused clock
//! (`#[tokio::test(start_paused = true)]`, tokio's feature `test-util`) waiting costs no time: an hour passes as soon as
//! nothing else is left to do. Under the real clock it works as well.
//!
//! ```
//! use std::time::Duration;
//! use serde_json::json;
//! use swarm_agent_sdk::{AgentBuilder, TaskContext, TaskError, testing::{self, TestEnd, TestEvent, TestSwarm, TestTask}};
//!
//! /// The agent as the program runs it: from `Agent::from_env()` there, from the test here.
//! fn counting(agent: AgentBuilder) -> AgentBuilder {
//!     agent.name("counter").handler("count", async |task: TaskContext, text: String| {
//!         if task.attempt == 1 {
//!             tokio::time::sleep(Duration::from_secs(3_600)).await; // the first attempt hangs
//!         }
//!         task.progress(Some(50), Some("half"));
//!         Ok::<_, TaskError>(text.split(' ').count())
//!     })
//! }
//!
//! # tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(async {
//! // #[tokio::test(start_paused = true)]
//! let swarm = TestSwarm::new([counting(testing::agent())]);
//! let task = swarm.submit(TestTask::new("count", json!("a b c")).timeout(Duration::from_secs(60)));
//! assert_eq!(task.end().await, TestEnd::Completed(json!(3)));
//!
//! let history = task.history();
//! assert!(history.iter().any(|entry| matches!(entry.event, TestEvent::TimedOut { attempt: 1 })));
//! // A minute until the limit, half a second before the next attempt: of the virtual clock.
//! assert!(history.last().unwrap().at >= Duration::from_millis(60_500));
//! # });
//! ```

mod questions;
mod talk;
mod world;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde_json::Value;
use swarm_events::{
    configuration::{Configuration, RetryPolicy, TIMEOUT_MS_MAX, TopologyKind},
    ids::{OrgId, SwarmId, TaskId},
    task::PRIORITY_DEFAULT,
    topology::Topology,
};
use tokio::{sync::watch, time::timeout};
use uuid::Uuid;

use crate::{Agent, AgentBuilder, Blackboard, LinkSettings, Messages};
pub use questions::TestQuestion;
use world::World;

/// How long an end is awaited, by tokio's clock: longer than any run limit.
pub const PATIENCE: Duration = Duration::from_millis(2 * TIMEOUT_MS_MAX);
/// A task that was declined this often fails with the last reason: as in a swarm.
pub const DECLINES_MAX: u32 = 8;

/// An agent of no swarm, to give handlers to. It can be handed to a [`TestSwarm`] and nothing else.
pub fn agent() -> AgentBuilder {
    Agent::builder(
        LinkSettings::new("nats://no-swarm.invalid"),
        OrgId(Uuid::nil()),
        SwarmId(Uuid::nil()),
    )
}

/// A full mesh.
fn everybody() -> Topology {
    Topology::of(TopologyKind::Mesh)
}

/// A task to be submitted.
#[derive(Clone, Debug)]
#[must_use = "a task does nothing until it is submitted"]
pub struct TestTask {
    task_type: String,
    payload: Value,
    inputs: Option<Value>,
    priority: u8,
    required_capabilities: Vec<String>,
    max_attempts: u32,
    timeout: Duration,
}

impl TestTask {
    /// A task with a swarm's default settings.
    pub fn new(task_type: impl Into<String>, payload: impl Into<Value>) -> Self {
        let defaults = Configuration::default();
        Self {
            task_type: task_type.into(),
            payload: payload.into(),
            inputs: None,
            priority: PRIORITY_DEFAULT,
            required_capabilities: Vec::new(),
            max_attempts: defaults.max_attempts,
            timeout: Duration::from_millis(defaults.task_timeout_ms),
        }
    }
    /// Results of data dependencies by alias, as a swarm would hand them over.
    pub fn inputs(mut self, inputs: impl Into<Value>) -> Self {
        self.inputs = Some(inputs.into());
        self
    }
    /// 1 to 10, higher is more important.
    pub fn priority(mut self, priority: u8) -> Self {
        self.priority = priority;
        self
    }
    /// What its agent must be able to do.
    pub fn requires(mut self, capabilities: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.required_capabilities = capabilities.into_iter().map(Into::into).collect();
        self
    }
    /// Most attempts.
    pub fn max_attempts(mut self, attempts: u32) -> Self {
        self.max_attempts = attempts.max(1);
        self
    }
    /// Run limit of an attempt.
    pub fn timeout(mut self, limit: Duration) -> Self {
        self.timeout = limit;
        self
    }
}

/// What happened to a task.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestEvent {
    /// An attempt began.
    Started {
        /// Name of the agent.
        agent: String,
        /// Its number, from 1.
        attempt: u32,
        /// Rises from one to the next in all of the swarm.
        fencing_token: u64,
    },
    /// Its handler told how far it is.
    Progressed {
        /// Parts done, 0 to 100.
        percent: Option<u8>,
        /// In words.
        message: Option<String>,
    },
    /// Its handler failed.
    AttemptFailed {
        /// What went wrong.
        error: String,
        /// Whether another attempt could help.
        retryable: bool,
    },
    /// Its handler handed it on in parts. They are tasks of their own.
    Split {
        /// How many.
        parts: usize,
    },
    /// Its agent gave it back: it was no attempt.
    Declined {
        /// Name of the agent.
        agent: String,
        /// Why.
        reason: String,
    },
    /// It ran longer than its limit.
    TimedOut {
        /// Its number.
        attempt: u32,
    },
    /// Its agent was lost.
    AgentLost {
        /// Name of the agent.
        agent: String,
        /// Number of the attempt.
        attempt: u32,
    },
    /// It ended.
    Ended(TestEnd),
}

/// How a task ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TestEnd {
    /// With this result.
    Completed(Value),
    /// Without: for good, or after its last attempt.
    Failed {
        /// Error of the last attempt.
        error: String,
    },
    /// It was called off.
    Cancelled,
    /// Not at all within [`PATIENCE`]: no agent can take it, or its handler waits for what never comes.
    Open,
}

/// What happened, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEntry {
    /// Since the swarm began, by tokio's clock.
    pub at: Duration,
    /// What.
    pub event: TestEvent,
}

/// A swarm of the agents under test. Dropped, it stops all handlers at once.
pub struct TestSwarm(Arc<World>);

impl TestSwarm {
    /// A swarm of these agents, each with its capabilities and slots. Agents without a name are `agent-1`, `agent-2`, …
    pub fn new(agents: impl IntoIterator<Item = AgentBuilder>) -> Self {
        Self::with_retries(agents, RetryPolicy::default())
    }

    /// The same with other waits between attempts. (A swarm spreads them by a quarter; here they are exact.)
    pub fn with_retries(
        agents: impl IntoIterator<Item = AgentBuilder>,
        retry: RetryPolicy,
    ) -> Self {
        Self(World::new(agents, retry, everybody()))
    }

    /// The same with a topology, whose seats are given by a swarm's own rules: who may talk to whom follows from it. (Which
    /// agent gets which task does not, here.) Without one everybody may talk to everybody.
    pub fn with_topology(
        agents: impl IntoIterator<Item = AgentBuilder>,
        topology: Topology,
    ) -> Self {
        Self(World::new(agents, RetryPolicy::default(), topology))
    }

    /// What an agent says, beside its tasks. `None`: there is no agent of this name.
    pub fn messages(&self, agent: &str) -> Option<Messages> {
        self.0.messages(agent)
    }

    /// The swarm's blackboard.
    pub fn blackboard(&self) -> Blackboard {
        Blackboard(Some(self.0.board.clone()))
    }

    /// The next question that an agent asks, and has not been given out here before; `None` if none comes within
    /// [`PATIENCE`]. Without an answer it ends at its timeout, as in a swarm. Agents under test that answer
    /// ([`AgentBuilder::on_question`]) are told it as well, by the seats of the topology and the leader that follows from it: the
    /// first answer counts.
    pub async fn question(&self) -> Option<TestQuestion> {
        timeout(PATIENCE, self.0.questions.next()).await.ok()
    }

    /// Submits a task.
    pub fn submit(&self, task: TestTask) -> Submitted {
        let (number, id, told) = self.0.submit(task);
        Submitted {
            world: self.0.clone(),
            number,
            id,
            told,
        }
    }

    /// Loses an agent as a swarm does that holds it to be dead: its handlers are cancelled, what it ran goes to others as the
    /// next attempt, what it says of it later counts for nothing. It comes back at once as a new incarnation.
    pub fn lose(&self, agent: &str) {
        self.0.lose(agent);
    }
}

impl Drop for TestSwarm {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// A task that was submitted.
pub struct Submitted {
    world: Arc<World>,
    number: usize,
    id: TaskId,
    told: watch::Receiver<Vec<TestEntry>>,
}

impl Submitted {
    /// Its id.
    pub const fn id(&self) -> TaskId {
        self.id
    }

    /// Calls it off: its handler is cancelled, and its result is not wanted any more.
    pub fn cancel(&self) {
        self.world.cancel(self.number);
    }

    /// All that has happened so far.
    pub fn history(&self) -> Vec<TestEntry> {
        self.told.borrow().clone()
    }

    /// Waits until something has happened, or finds it in the past; `None` if it did not within [`PATIENCE`].
    pub async fn until(&self, wanted: impl Fn(&TestEvent) -> bool) -> Option<TestEntry> {
        let mut told = self.told.clone();
        let find =
            |history: &[TestEntry]| history.iter().find(|entry| wanted(&entry.event)).cloned();
        let waited = timeout(PATIENCE, told.wait_for(|history| find(history).is_some())).await;
        match waited {
            Ok(Ok(history)) => find(&history),
            _ => None,
        }
    }

    /// Waits for its end.
    pub async fn end(&self) -> TestEnd {
        let ended = self
            .until(|event| matches!(event, TestEvent::Ended(_)))
            .await;
        match ended.map(|entry| entry.event) {
            Some(TestEvent::Ended(end)) => end,
            _ => TestEnd::Open,
        }
    }

    /// Fencing token of each attempt, in order.
    pub fn fencing_tokens(&self) -> BTreeMap<u32, u64> {
        let started = |entry: &TestEntry| match entry.event {
            TestEvent::Started {
                attempt,
                fencing_token,
                ..
            } => Some((attempt, fencing_token)),
            _ => None,
        };
        self.told.borrow().iter().filter_map(started).collect()
    }
}
