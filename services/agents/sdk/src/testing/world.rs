//! The log and the distributor as tests play them: the same rules, one process, no server.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::Value;
use swarm_events::{
    Json, Timestamp,
    configuration::{Algorithm, Configuration, RetryPolicy},
    ids::{EventId, TaskId},
    task::{Assigned, Carried, Part, Step},
    topology::Topology,
};
use swarm_log::StoredMessage;
use tokio::{
    sync::watch,
    task::AbortHandle,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    DECLINES_MAX, TestEnd, TestEntry, TestEvent, TestTask,
    questions::Questions,
    talk::{self, TestBoard, Voiced},
};
use crate::{
    AgentBuilder,
    ground::Ground,
    handler::{Handlers, Report, Voice},
    messages::{Carrier, Messages, Trace},
    protocol::{Assignment, Outcome},
    session::CANCEL_GRACE,
    work::Work,
};

/// When the clock of a test begins: 2026-01-01, in microseconds since 1970. No test depends on the day it runs.
const EPOCH_MICROS: i64 = 1_767_225_600_000_000;

pub(super) struct World {
    began: Instant,
    retry: RetryPolicy,
    /// Ends what listens to messages.
    silence: CancellationToken,
    pub(super) board: Arc<TestBoard>,
    pub(super) questions: Arc<Questions>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    agents: Vec<Member>,
    tasks: Vec<Task>,
    /// By rank, then number.
    queue: BTreeSet<(i64, usize)>,
    /// By fencing token.
    attempts: BTreeMap<u64, Attempt>,
    sequence: u64,
    objects: BTreeMap<String, Bytes>,
    over: bool,
}

struct Member {
    name: String,
    speaker: Arc<dyn Carrier>,
    handlers: Arc<Handlers>,
    capabilities: BTreeSet<String>,
    slots: usize,
    incarnation: u64,
}

struct Task {
    id: TaskId,
    step: Step,
    /// Of which task it is a part, under which key.
    part_of: Option<(usize, String)>,
    /// Its parts that have not ended yet.
    parts_open: usize,
    /// Their results, by key.
    parts: BTreeMap<String, Value>,
    spec: TestTask,
    rank: i64,
    /// Attempts that count.
    attempts: u32,
    declines: u32,
    declined_by: BTreeSet<usize>,
    told: watch::Sender<Vec<TestEntry>>,
    ended: bool,
}

struct Attempt {
    task: usize,
    agent: usize,
    cancelled: CancellationToken,
    abort: AbortHandle,
}

/// What an attempt sees of the world. It holds no part of it alive: a handler that outlasts its swarm speaks to nobody.
struct Place {
    world: Weak<World>,
    began: Instant,
    agent: usize,
}

pub(super) fn wall(began: Instant) -> Timestamp {
    let since = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(EPOCH_MICROS.saturating_add(since))
}

#[async_trait]
impl Ground for Place {
    async fn object(&self, name: &str) -> Result<Option<Bytes>, String> {
        let world = self.world.upgrade();
        Ok(world.and_then(|world| world.locked().objects.get(name).cloned()))
    }
    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), String> {
        if let Some(world) = self.world.upgrade() {
            world.locked().objects.insert(name.to_owned(), bytes);
        }
        Ok(())
    }
    async fn message(&self, _: u64) -> Result<Option<StoredMessage>, String> {
        Ok(None) // nothing is carried by its place in a log
    }
    fn progress(&self, assignment: &Assignment, (percent, message): Report) {
        if let Some(world) = self.world.upgrade() {
            let state = world.locked();
            if let Some(attempt) = state.attempts.get(&assignment.sequence) {
                let event = TestEvent::Progressed { percent, message };
                world.tell(&state.tasks[attempt.task], event);
            }
        }
    }
    fn result_name(&self, assignment: &Assignment) -> String {
        format!("result/{}/{}", assignment.task, assignment.sequence)
    }
    fn wall_clock(&self) -> Timestamp {
        wall(self.began)
    }
    fn voice(&self, assignment: &Assignment) -> Voice {
        let world = self.world.upgrade();
        world.map_or_else(Voice::default, |world| world.voice(self.agent, assignment))
    }
}

impl World {
    pub(super) fn new(
        agents: impl IntoIterator<Item = AgentBuilder>,
        retry: RetryPolicy,
        topology: Topology,
    ) -> Arc<Self> {
        let (began, silence) = (Instant::now(), CancellationToken::new());
        let agents: Vec<_> = (1_u64..)
            .zip(agents)
            .map(|(number, agent)| {
                let (join, handlers) = agent.into_member();
                (number, join, handlers)
            })
            .collect();
        let named = agents.iter().map(|(number, join, handlers)| Voiced {
            name: (join.agent_name.clone()).unwrap_or_else(|| format!("agent-{number}")),
            agent_type: join.agent_type.clone(),
            capabilities: join.capabilities.clone(),
            handlers: handlers.messages.clone(),
            questions: handlers.questions.clone(),
        });
        let (speakers, hearers) = talk::speakers(named.collect(), topology, began, &silence);
        let mut speakers = speakers.into_iter();
        let agents = agents.into_iter().filter_map(|(number, join, handlers)| {
            let slots = join.slots.unwrap_or(Configuration::default().agent_slots);
            Some(Member {
                speaker: speakers.next()?,
                name: join.agent_name.unwrap_or_else(|| format!("agent-{number}")),
                handlers: Arc::new(handlers),
                capabilities: join.capabilities.into_iter().collect(),
                slots: usize::try_from(slots).unwrap_or(usize::MAX).max(1),
                incarnation: 1,
            })
        });
        Arc::new(Self {
            began,
            retry,
            silence,
            board: Arc::default(),
            questions: Questions::new(hearers),
            state: Mutex::new(State {
                agents: agents.collect(),
                ..State::default()
            }),
        })
    }

    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn tell(&self, task: &Task, event: TestEvent) {
        let at = self.began.elapsed();
        task.told
            .send_modify(|history| history.push(TestEntry { at, event }));
    }

    pub(super) fn submit(
        self: &Arc<Self>,
        spec: TestTask,
    ) -> (usize, TaskId, watch::Receiver<Vec<TestEntry>>) {
        let mut state = self.locked();
        let made = self.add(&mut state, spec, None);
        self.dispatch(&mut state);
        made
    }

    fn add(
        &self,
        state: &mut State,
        spec: TestTask,
        part_of: Option<(usize, String)>,
    ) -> (usize, TaskId, watch::Receiver<Vec<TestEntry>>) {
        let number = state.tasks.len();
        let id = TaskId(Uuid::from_u128(number as u128 + 1));
        let (told, hear) = watch::channel(Vec::new());
        state.tasks.push(Task {
            id,
            step: Step::Work,
            part_of,
            parts_open: 0,
            parts: BTreeMap::new(),
            spec,
            rank: 0,
            attempts: 0,
            declines: 0,
            declined_by: BTreeSet::new(),
            told,
            ended: false,
        });
        self.queue(state, number);
        (number, id, hear)
    }

    /// The task waits for its parts.
    fn split(&self, state: &mut State, number: usize, parts: Vec<Part>) {
        let whole = &mut state.tasks[number];
        whole.parts_open = parts.len();
        whole.attempts = 0; // its last step has attempts of its own
        let (priority, count) = (whole.spec.priority, parts.len());
        self.tell(whole, TestEvent::Split { parts: count });
        for part in parts {
            let mut spec = TestTask::new(part.task_type, part.payload.to_value())
                .priority(part.priority.unwrap_or(priority))
                .requires(part.required_capabilities);
            if let Some(most) = part.max_attempts {
                spec = spec.max_attempts(most);
            }
            if let Some(limit) = part.timeout_ms {
                spec = spec.timeout(Duration::from_millis(limit));
            }
            self.add(state, spec, Some((number, part.key)));
        }
    }

    /// A part has ended: its task goes on to its last step when all have, or fails with it.
    fn part_ended(&self, state: &mut State, whole: usize, key: String, end: TestEnd) {
        if state.tasks[whole].ended {
            return;
        }
        match end {
            TestEnd::Completed(result) => {
                let task = &mut state.tasks[whole];
                task.parts.insert(key, result);
                task.parts_open -= 1;
                if task.parts_open == 0 {
                    task.step = Step::Reduce;
                    self.queue(state, whole);
                }
            }
            TestEnd::Failed { error } => {
                let error = format!("part {key}: {error}");
                self.end_task(state, whole, TestEnd::Failed { error });
            }
            TestEnd::Cancelled | TestEnd::Open => {}
        }
    }

    /// What was split off from it, and has not ended.
    fn end_parts(&self, state: &mut State, whole: usize) {
        let parts: Vec<usize> = (0..state.tasks.len())
            .filter(|part| {
                let task = &state.tasks[*part];
                !task.ended && matches!(&task.part_of, Some((of, _)) if *of == whole)
            })
            .collect();
        for part in parts {
            for attempt in state.attempts.extract_if(.., |_, a| a.task == part) {
                Self::take_away(&attempt.1);
            }
            self.end_task(state, part, TestEnd::Cancelled);
        }
    }

    /// What the handlers of an agent can say.
    fn voice(self: &Arc<Self>, agent: usize, assignment: &Assignment) -> Voice {
        let state = self.locked();
        let Some(member) = state.agents.get(agent) else {
            return Voice::default();
        };
        Voice {
            carrier: Some(member.speaker.clone()),
            board: Some(self.board.clone()),
            asker: Some(self.questions.asker(agent)),
            trace: Trace::default(),
            assignment: Some(assignment.sequence),
            step: assignment.data.step,
            ..Voice::default()
        }
    }

    /// What an agent says beside its tasks.
    pub(super) fn messages(&self, agent: &str) -> Option<Messages> {
        let state = self.locked();
        let mut of = state.agents.iter();
        let member = of.find(|member| member.name == agent)?;
        Some(Messages {
            carrier: Some(member.speaker.clone()),
            trace: Trace::default(),
        })
    }

    /// Puts a task into the queue as of now.
    fn queue(&self, state: &mut State, number: usize) {
        let task = &mut state.tasks[number];
        let now = i64::try_from(self.began.elapsed().as_millis()).unwrap_or(i64::MAX);
        let step = i64::try_from(Configuration::default().priority_step_ms).unwrap_or(i64::MAX);
        task.rank = now.saturating_sub(i64::from(task.spec.priority).saturating_mul(step));
        state.queue.insert((task.rank, number));
    }

    /// Gives what waits to agents that have a free slot, the best-ranked task first.
    fn dispatch(self: &Arc<Self>, state: &mut State) {
        if state.over {
            return;
        }
        let waiting: Vec<_> = state.queue.iter().copied().collect();
        for (rank, number) in waiting {
            if let Some(agent) = state.choose(number) {
                state.queue.remove(&(rank, number));
                self.start(state, number, agent);
            }
        }
    }

    fn start(self: &Arc<Self>, state: &mut State, number: usize, agent: usize) {
        state.sequence += 1;
        let sequence = state.sequence;
        let inputs = state.inputs(number);
        let (task, member) = (&mut state.tasks[number], &state.agents[agent]);
        let limit = task.spec.timeout;
        task.attempts += 1;
        let assignment = Arc::new(Assignment {
            sequence,
            task: task.id,
            event: EventId(Uuid::from_u128(sequence.into())),
            correlation: None,
            traceparent: None,
            data: Assigned {
                path: Vec::new(),
                step: task.step,
                turn: None,
                task_type: task.spec.task_type.clone(),
                payload: Carried::Inline(task.spec.payload.clone().into()),
                inputs: inputs.map(|inputs| Carried::Inline(inputs.into())),
                attempt: task.attempts,
                generation: 1,
                incarnation: member.incarnation,
                priority: task.spec.priority,
                timeout_ms: u64::try_from(limit.as_millis()).unwrap_or(u64::MAX),
                algorithm: Algorithm::default(),
                candidates: Vec::new(),
                passed_over: BTreeMap::new(),
                affinity: None,
                stolen_from: None,
                queued_at: None,
            },
        });
        let started = TestEvent::Started {
            agent: member.name.clone(),
            attempt: task.attempts,
            fencing_token: sequence,
        };
        let cancelled = CancellationToken::new();
        let place = Place {
            world: Arc::downgrade(self),
            began: self.began,
            agent,
        };
        let work = Work {
            ground: Arc::new(place),
            assignment,
            handlers: member.handlers.clone(),
            cancelled: cancelled.clone(),
        };
        self.tell(&state.tasks[number], started);
        let running = tokio::spawn(work.run());
        let attempt = Attempt {
            task: number,
            agent,
            cancelled,
            abort: running.abort_handle(),
        };
        state.attempts.insert(sequence, attempt);
        let world = Arc::downgrade(self);
        tokio::spawn(async move {
            let ended = tokio::select! {
                biased;
                ended = running => ended.ok(),
                () = sleep(limit) => None,
            };
            match (world.upgrade(), ended) {
                (Some(world), Some((_, outcome))) => world.ended(sequence, outcome),
                (Some(world), None) => world.timed_out(sequence),
                (None, _) => {}
            }
        });
    }

    /// The handler is told to stop, and dropped if it does not.
    fn take_away(attempt: &Attempt) {
        attempt.cancelled.cancel();
        let abort = attempt.abort.clone();
        tokio::spawn(async move {
            sleep(CANCEL_GRACE).await;
            abort.abort();
        });
    }

    fn ended(self: &Arc<Self>, sequence: u64, outcome: Outcome) {
        let mut state = self.locked();
        let Some(attempt) = state.attempts.remove(&sequence) else {
            return; // taken away meanwhile: nobody wants it
        };
        let number = attempt.task;
        match outcome {
            Outcome::Completed(result) => {
                let result = state.resolve(&result);
                self.end_task(&mut state, number, TestEnd::Completed(result));
            }
            Outcome::Failed { error, retryable } => {
                let event = TestEvent::AttemptFailed {
                    error: error.clone(),
                    retryable,
                };
                self.tell(&state.tasks[number], event);
                self.again(&mut state, number, error, retryable);
            }
            Outcome::Split(parts) => self.split(&mut state, number, parts),
            Outcome::Declined { reason } => self.declined(&mut state, &attempt, reason),
        }
        self.dispatch(&mut state);
    }

    fn declined(&self, state: &mut State, attempt: &Attempt, reason: String) {
        let number = attempt.task;
        let agent = state.agents[attempt.agent].name.clone();
        let task = &mut state.tasks[number];
        task.attempts -= 1; // it was none
        task.declines += 1;
        task.declined_by.insert(attempt.agent);
        let (rank, too_often) = (task.rank, task.declines >= DECLINES_MAX);
        let error = reason.clone();
        self.tell(task, TestEvent::Declined { agent, reason });
        if too_often {
            self.end_task(state, number, TestEnd::Failed { error });
        } else {
            state.queue.insert((rank, number));
        }
    }

    fn timed_out(self: &Arc<Self>, sequence: u64) {
        let mut state = self.locked();
        let Some(attempt) = state.attempts.remove(&sequence) else {
            return;
        };
        Self::take_away(&attempt);
        let task = &state.tasks[attempt.task];
        let limit = task.spec.timeout.as_millis();
        let event = TestEvent::TimedOut {
            attempt: task.attempts,
        };
        self.tell(task, event);
        let error = format!("ran longer than its limit of {limit} ms");
        self.again(&mut state, attempt.task, error, true);
        self.dispatch(&mut state);
    }

    /// Another attempt after a wait, or the end.
    fn again(self: &Arc<Self>, state: &mut State, number: usize, error: String, retryable: bool) {
        let task = &state.tasks[number];
        if !retryable || task.attempts >= task.spec.max_attempts {
            self.end_task(state, number, TestEnd::Failed { error });
            return;
        }
        let wait = wait(&self.retry, task.attempts);
        let world = Arc::downgrade(self);
        tokio::spawn(async move {
            sleep(wait).await;
            if let Some(world) = world.upgrade() {
                let mut state = world.locked();
                if !state.tasks[number].ended {
                    world.queue(&mut state, number);
                    world.dispatch(&mut state);
                }
            }
        });
    }

    fn end_task(&self, state: &mut State, number: usize, end: TestEnd) {
        let task = &mut state.tasks[number];
        task.ended = true;
        state.queue.remove(&(task.rank, number));
        self.tell(task, TestEvent::Ended(end.clone()));
        let part_of = task.part_of.clone();
        self.end_parts(state, number);
        if let Some((whole, key)) = part_of {
            self.part_ended(state, whole, key, end);
        }
    }

    pub(super) fn cancel(self: &Arc<Self>, number: usize) {
        let mut state = self.locked();
        if state.tasks[number].ended {
            return;
        }
        for attempt in state.attempts.extract_if(.., |_, a| a.task == number) {
            Self::take_away(&attempt.1);
        }
        self.end_task(&mut state, number, TestEnd::Cancelled);
        self.dispatch(&mut state);
    }

    pub(super) fn lose(self: &Arc<Self>, agent: &str) {
        let mut state = self.locked();
        let Some(lost) = state.agents.iter().position(|member| member.name == agent) else {
            return;
        };
        state.agents[lost].incarnation += 1;
        self.questions.lose(lost);
        let taken: Vec<Attempt> = state
            .attempts
            .extract_if(.., |_, attempt| attempt.agent == lost)
            .map(|(_, attempt)| attempt)
            .collect();
        for attempt in taken {
            Self::take_away(&attempt);
            let task = &state.tasks[attempt.task];
            let event = TestEvent::AgentLost {
                agent: agent.to_owned(),
                attempt: task.attempts,
            };
            self.tell(task, event);
            let error = format!("agent {agent} was lost");
            self.again(&mut state, attempt.task, error, true);
        }
        self.dispatch(&mut state);
    }

    pub(super) fn end(&self) {
        let mut state = self.locked();
        state.over = true;
        self.silence.cancel();
        for attempt in std::mem::take(&mut state.attempts).into_values() {
            attempt.cancelled.cancel();
            attempt.abort.abort();
        }
    }
}

impl State {
    /// What a task is given beside its payload.
    fn inputs(&self, number: usize) -> Option<Value> {
        let task = &self.tasks[number];
        match task.step {
            Step::Work => task.spec.inputs.clone(),
            Step::Reduce => Some(task.parts.clone().into_iter().collect()),
        }
    }

    /// The agent with most free slots among those that can take the task; one that declined it only if no other can.
    fn choose(&self, number: usize) -> Option<usize> {
        let task = &self.tasks[number];
        let able = |member: &Member| {
            let mut required = task.spec.required_capabilities.iter();
            required.all(|capability| member.capabilities.contains(capability))
        };
        let all = || self.agents.iter().enumerate().filter(|(_, m)| able(m));
        let others = all().any(|(agent, _)| !task.declined_by.contains(&agent));
        all()
            .filter(|(agent, _)| !others || !task.declined_by.contains(agent))
            .map(|(agent, member)| {
                let used = self.attempts.values().filter(|a| a.agent == agent).count();
                (member.slots.saturating_sub(used), agent)
            })
            .filter(|(free, _)| *free > 0)
            .max_by_key(|(free, agent)| (*free, std::cmp::Reverse(*agent)))
            .map(|(_, agent)| agent)
    }

    fn resolve(&self, result: &Carried) -> Value {
        match result {
            Carried::Inline(json) => json.to_value(),
            Carried::Object(name) => self
                .objects
                .get(name)
                .and_then(|bytes| std::str::from_utf8(bytes).ok())
                .and_then(|text| Json::parse(text).ok())
                .map_or(Value::Null, |json| json.to_value()),
            Carried::AtSequence(_) => Value::Null, // no handler answers so
        }
    }
}

/// The wait after the `attempts`-th attempt.
fn wait(policy: &RetryPolicy, attempts: u32) -> Duration {
    let mut wait = policy.base_ms;
    for _ in 1..attempts {
        wait = (wait.saturating_mul(policy.factor_percent.into()) / 100).min(policy.cap_ms);
    }
    Duration::from_millis(wait.min(policy.cap_ms))
}
