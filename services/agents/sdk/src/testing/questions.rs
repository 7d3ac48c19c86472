//! Questions as tests play them: given to agents that answer, and to the test as a person.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use serde::Serialize;
use swarm_events::{
    Json, Timestamp,
    ids::{AgentId, CommandId},
    message::{Answered, AnsweredBy, Ask},
};
use tokio::{
    sync::{Notify, Semaphore, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::talk;
use crate::{
    answer::{self, ANSWERS_MAX, OnQuestion, ReceivedQuestion, Standing},
    ask::{AskError, Asker, is_choice},
    messages::{Carrier, Trace},
};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An agent under test, as far as it hears questions.
pub(super) struct Hearer {
    standing: Standing,
    handler: Option<OnQuestion>,
    carrier: Arc<dyn Carrier>,
    /// Ends with the swarm.
    over: CancellationToken,
    /// Ends with the incarnation.
    life: Mutex<CancellationToken>,
    places: Arc<Semaphore>,
}

impl Hearer {
    pub(super) fn new(
        standing: Standing,
        handler: Option<OnQuestion>,
        carrier: Arc<dyn Carrier>,
        over: &CancellationToken,
    ) -> Self {
        Self {
            standing,
            handler,
            carrier,
            over: over.clone(),
            life: Mutex::new(over.child_token()),
            places: Arc::new(Semaphore::new(ANSWERS_MAX)),
        }
    }

    /// Tells it a question, if it is the one to answer.
    fn tell(&self, me: AgentId, waiting: &Arc<Waiting>) {
        let Some(handler) = self.handler.clone() else {
            return;
        };
        if waiting.from == me || !self.standing.answers(waiting.ask.answerer) {
            return;
        }
        let question = ReceivedQuestion {
            id: waiting.id,
            from: waiting.from,
            question: waiting.ask.question.clone(),
            choices: waiting.ask.choices.clone(),
            default: waiting.ask.default.clone(),
            answerer: waiting.ask.answerer,
            asked_at: waiting.asked_at,
            deadline: waiting.asked_at.plus_millis(waiting.ask.timeout_ms),
            over: waiting.over.clone(),
            carrier: self.carrier.clone(),
            trace: waiting.trace.clone(),
        };
        let (waiting, places) = (waiting.clone(), self.places.clone());
        let life = lock(&self.life).clone();
        tokio::spawn(async move {
            let answered = async {
                let _place = places.acquire().await;
                if waiting.over.is_cancelled() {
                    return;
                }
                if let Some(answer) = answer::handle(handler, question).await {
                    waiting.answer(answer, AnsweredBy::Agent(me));
                }
            };
            tokio::select! {
                () = answered => {}
                () = life.cancelled() => {}
            }
        });
    }
}

/// A question that is open.
#[derive(Debug)]
struct Waiting {
    id: CommandId,
    from: AgentId,
    ask: Ask,
    asked_at: Timestamp,
    trace: Trace,
    /// Cancelled when it has ended.
    over: CancellationToken,
    answer: Mutex<Option<oneshot::Sender<(Json, AnsweredBy)>>>,
}

impl Waiting {
    /// The first answer counts.
    fn answer(&self, answer: Json, by: AnsweredBy) -> bool {
        if !is_choice(&self.ask.choices, &answer) {
            return false;
        }
        let waits = lock(&self.answer).take();
        waits.is_some_and(|waits| waits.send((answer, by)).is_ok())
    }
}

/// A question that an agent under test asks.
#[derive(Debug)]
pub struct TestQuestion {
    /// What it asks.
    pub ask: Ask,
    waiting: Arc<Waiting>,
}

impl TestQuestion {
    /// Answers it as a person would. `false`: it was over, or the answer is none of its choices.
    pub fn answer(self, answer: impl Serialize) -> bool {
        let answer = Json::from_value(&answer);
        answer.is_ok_and(|answer| self.waiting.answer(answer, AnsweredBy::Person(None)))
    }
}

/// The questions of a test's agents.
pub(super) struct Questions {
    agents: Vec<Hearer>,
    number: AtomicU64,
    open: Mutex<BTreeMap<CommandId, Arc<Waiting>>>,
    asked: Mutex<VecDeque<TestQuestion>>,
    came: Notify,
}

impl Questions {
    pub(super) fn new(agents: Vec<Hearer>) -> Arc<Self> {
        Arc::new(Self {
            agents,
            number: AtomicU64::new(0),
            open: Mutex::default(),
            asked: Mutex::default(),
            came: Notify::new(),
        })
    }

    /// The next one that was not given out here before.
    pub(super) async fn next(&self) -> TestQuestion {
        loop {
            let came = self.came.notified();
            if let Some(question) = lock(&self.asked).pop_front() {
                return question;
            }
            came.await;
        }
    }

    /// What the agent of this number asks with.
    pub(super) fn asker(self: &Arc<Self>, agent: usize) -> Arc<dyn Asker> {
        Arc::new(Voice {
            questions: self.clone(),
            agent,
        })
    }

    /// The agent is another incarnation: what it asked is over, and it is told anew what is open.
    pub(super) fn lose(&self, agent: usize) {
        let me = talk::id(agent);
        let own: Vec<_> = lock(&self.open)
            .extract_if(.., |_, waiting| waiting.from == me)
            .collect();
        for (_, waiting) in own {
            lock(&waiting.answer).take();
            waiting.over.cancel();
        }
        let Some(hearer) = self.agents.get(agent) else {
            return;
        };
        let next = hearer.over.child_token();
        std::mem::replace(&mut *lock(&hearer.life), next).cancel();
        for waiting in lock(&self.open).values() {
            hearer.tell(me, waiting);
        }
    }
}

/// An agent that asks.
struct Voice {
    questions: Arc<Questions>,
    agent: usize,
}

/// Ends a question, also if whoever asked it is dropped.
struct End<'a>(&'a Questions, Arc<Waiting>);
impl Drop for End<'_> {
    fn drop(&mut self) {
        lock(&self.0.open).remove(&self.1.id);
        self.1.over.cancel();
    }
}

#[async_trait]
impl Asker for Voice {
    async fn ask(&self, ask: Ask, trace: Trace) -> Result<Answered, AskError> {
        let questions = &*self.questions;
        let Some(own) = questions.agents.get(self.agent) else {
            return Err(AskError::NoSwarm);
        };
        let (answer, answered) = oneshot::channel();
        let wait = Duration::from_millis(ask.timeout_ms);
        let number = questions.number.fetch_add(1, Ordering::Relaxed) + 1;
        let waiting = Arc::new(Waiting {
            id: CommandId(Uuid::from_u128(number.into())),
            from: talk::id(self.agent),
            ask: ask.clone(),
            asked_at: own.carrier.now(),
            trace,
            over: CancellationToken::new(),
            answer: Mutex::new(Some(answer)),
        });
        let id = waiting.id;
        lock(&questions.open).insert(id, waiting.clone());
        let end = End(questions, waiting.clone());
        for (number, agent) in questions.agents.iter().enumerate() {
            agent.tell(talk::id(number), &waiting);
        }
        let default = ask.default.clone();
        lock(&questions.asked).push_back(TestQuestion { ask, waiting });
        questions.came.notify_one();
        let said = timeout(wait, async {
            match answered.await {
                Ok(answer) => answer,
                // The incarnation that asked is over: its end comes.
                Err(_) => std::future::pending().await,
            }
        });
        let said = said.await;
        drop(end);
        let (answer, by) = match (said, default) {
            (Ok(answer), _) => answer,
            (Err(_), Some(default)) => (default, AnsweredBy::Default),
            (Err(_), None) => {
                let reason = format!("nobody answered within {} ms", wait.as_millis());
                return Err(AskError::Unanswered(reason));
            }
        };
        Ok(Answered {
            question_id: id,
            answer,
            by,
        })
    }

    fn incarnation(&self) -> u64 {
        1
    }
}
