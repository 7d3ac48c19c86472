//! The log and the distributor as tests play them: the same rules, one process, no server.

mod ends;
mod place;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use swarm_events::{
    Timestamp,
    configuration::{Algorithm, Configuration, RetryPolicy},
    ids::{EventId, TaskId},
    task::{Assigned, Carried, Step},
    topology::Topology,
};
use tokio::{
    sync::watch,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use self::{
    place::Place,
    state::{Attempt, Member, State, Task},
};
use super::{
    TestEnd, TestEntry, TestEvent, TestTask,
    questions::Questions,
    talk::{self, TestBoard, Voiced},
};
use crate::{
    AgentBuilder,
    handler::Voice,
    messages::{Messages, Trace},
    protocol::Assignment,
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

pub(super) fn wall(began: Instant) -> Timestamp {
    let since = i64::try_from(began.elapsed().as_micros()).unwrap_or(i64::MAX);
    Timestamp::from_micros(EPOCH_MICROS.saturating_add(since))
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
