//! Following the questions of a swarm: hints first, the log where they may have been lost, and a handler for each that is to be
//! answered here.

use std::{collections::BTreeMap, future::Future, sync::Arc, time::Duration};

use futures::{StreamExt, stream::SelectAll};
use swarm_events::{Input, ids::CommandId, message::QUESTION_TIMEOUT_MS_MAX, subject::filter};
use swarm_log::{Log, LogError, StoredMessage, Tailed};
use tokio::{
    sync::watch,
    task::{Id, JoinError, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    ANSWERS_MAX, OnQuestion, ReceivedQuestion, handle,
    open::{Open, Questions, Standing},
};
use crate::{ground::OnLog, live, messages::cursor::Gaps, wire::wall_clock};

/// Pause before the log is read again where that failed.
const READ_PAUSE: Duration = Duration::from_millis(500);
/// How often the log is looked at though no hint came: one may be lost when a cluster's leader steps down. First, and last.
const LOOKS: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));
/// How far back open questions are looked for: as long as one may wait, and a day for clocks that differ.
const BACK_MS: u64 = QUESTION_TIMEOUT_MS_MAX + 24 * 3_600 * 1_000;

/// Tells the handler what is open and for this agent, until the incarnation ends.
pub(crate) async fn run(ground: Arc<OnLog>, handler: OnQuestion) {
    let closed = ground.bus.closed.clone();
    let work = async {
        loop {
            match Answering::open(ground.clone(), handler.clone()).await {
                Ok(answering) => return answering.work().await,
                Err(error) => tracing::warn!(%error, "questions cannot be followed yet"),
            }
            sleep(READ_PAUSE).await;
        }
    };
    tokio::select! {
        () = work => {}
        // Handlers that run are dropped: this incarnation can answer no more.
        () = closed.cancelled() => {}
    }
}

struct Answering {
    ground: Arc<OnLog>,
    handler: OnQuestion,
    live: SelectAll<async_nats::Subscriber>,
    doubts: watch::Receiver<u64>,
    shapes: watch::Receiver<u64>,
    questions: Questions,
    standing: Standing,
    /// The log has been read up to here without a gap; `None` before the first reading.
    read: Option<u64>,
    gaps: Gaps,
    /// What is open at the beginning is known only once all has been read.
    complete: bool,
    /// There may be something to be read.
    wanted: bool,
    not_before: Instant,
    look_at: Instant,
    look_pause: Duration,
    running: JoinSet<()>,
    busy: BTreeMap<Id, CommandId>,
    /// Of those for which a handler runs.
    over: BTreeMap<CommandId, CancellationToken>,
}

impl Answering {
    /// Subscribes. What was asked before is read later.
    async fn open(ground: Arc<OnLog>, handler: OnQuestion) -> Result<Self, LogError> {
        let mut doubts = ground.link.doubts();
        doubts.mark_unchanged();
        let mut live = SelectAll::new();
        for subject in filter::questions(ground.me.place, true) {
            let subscribed = ground.link.client().subscribe(subject).await;
            live.push(subscribed.map_err(|error| LogError::Unreachable(error.to_string()))?);
        }
        ground.bus.shape.ready().await?;
        let now = Instant::now();
        Ok(Self {
            live,
            doubts,
            shapes: ground.bus.shape.changes(),
            questions: Questions::new(ground.me.agent),
            standing: Standing::default(),
            read: None,
            gaps: Gaps::default(),
            complete: false,
            wanted: true,
            not_before: now,
            look_at: now + LOOKS.0,
            look_pause: LOOKS.0,
            running: JoinSet::new(),
            busy: BTreeMap::new(),
            over: BTreeMap::new(),
            ground,
            handler,
        })
    }

    async fn work(mut self) {
        loop {
            if self.wanted && Instant::now() >= self.not_before {
                self.catch_up().await;
            }
            self.tell();
            let wake = match self.wanted {
                true => self.not_before,
                false => self.look_at,
            };
            tokio::select! {
                Some(message) = self.live.next() => self.hear(&message),
                Ok(()) = self.shapes.changed() => {}
                Ok(()) = self.doubts.changed() => self.wanted = true,
                Some(ended) = self.running.join_next_with_id() => self.ended(ended),
                () = sleep_until(wake) => {
                    if Instant::now() >= self.look_at {
                        self.look_pause = (self.look_pause * 2).min(LOOKS.1);
                        self.wanted = true;
                    }
                }
            }
        }
    }

    /// Reads what was asked and answered since the last time, and what this agent is by now.
    async fn catch_up(&mut self) {
        self.wanted = false;
        self.look_at = Instant::now() + self.look_pause;
        let caught_up = async {
            self.read_on().await?;
            let shape = &self.ground.bus.shape;
            shape.look(self.ground.me.agent).await
        };
        if let Err(error) = caught_up.await {
            tracing::debug!(%error, "the questions cannot be read now");
            self.wanted = true;
            self.not_before = Instant::now() + READ_PAUSE;
        }
    }

    async fn read_on(&mut self) -> Result<(), LogError> {
        let log = self.ground.link.log().clone();
        let info = log.info().await?;
        let mut read = match self.read {
            Some(read) => read,
            None => {
                let back = i64::try_from(BACK_MS * 1_000).unwrap_or(i64::MAX);
                let since = wall_clock().as_micros().saturating_sub(back);
                let look = async |sequence| {
                    let found = log.get(sequence).await?;
                    Ok::<_, LogError>(found.map(|message| message.time_micros))
                };
                let all = (info.first_sequence.max(1), info.last_sequence);
                first_since(all, since, look).await?.saturating_sub(1)
            }
        };
        let mut tail = log.tail(filter::questions(self.ground.me.place, false), read + 1);
        loop {
            match tail.next().await {
                Some(Ok(Tailed::Message(message))) => {
                    read = message.sequence;
                    self.meet(&message);
                }
                // All that was stored before this was asked has been met.
                Some(Ok(Tailed::CaughtUp)) => break,
                Some(Ok(Tailed::Interrupted | Tailed::Resumed)) => {}
                Some(Err(error)) => return Err(error),
                None => return Err(LogError::Unreachable("the reading ended".to_owned())),
            }
        }
        let read = read.max(info.last_sequence);
        self.read = Some(read);
        self.complete = true;
        self.questions.settle(read);
        self.gaps.read(read);
        Ok(())
    }

    /// A hint came.
    fn hear(&mut self, message: &async_nats::Message) {
        let Some((stored, previous)) = live::republished(message) else {
            tracing::warn!(subject = %message.subject, "a live message without its place in the log is ignored");
            return;
        };
        let read = self.read.unwrap_or(0);
        if stored.sequence <= read {
            return;
        }
        self.look_pause = LOOKS.0;
        let (subject, sequence) = (&stored.subject, stored.sequence);
        self.wanted |= self.gaps.is_full() || self.gaps.missed(subject, sequence, previous, read);
        self.meet(&stored);
    }

    fn meet(&mut self, stored: &StoredMessage) {
        match live::read(stored) {
            Input::Event(recorded) => {
                if let Some(gone) = self.questions.meet(&recorded) {
                    self.call_off(gone);
                }
            }
            Input::Unreadable(unreadable) => {
                tracing::warn!(sequence = stored.sequence, problem = %unreadable.problem, "an unreadable question is passed over");
            }
        }
    }

    fn call_off(&self, id: CommandId) {
        if let Some(over) = self.over.get(&id) {
            over.cancel();
        }
    }

    /// Starts handlers for what is open and for this agent.
    fn tell(&mut self) {
        if !self.complete {
            return;
        }
        let me = self.ground.me.agent;
        let standing = self.ground.bus.shape.with(|shape| Standing {
            leads: shape.leader() == Some(me),
            role: shape.role(me),
        });
        if standing != self.standing {
            self.standing = standing;
            for gone in self.questions.recall(standing) {
                self.call_off(gone);
            }
        }
        while self.running.len() < ANSWERS_MAX {
            let busy = |id| self.over.contains_key(&id);
            let Some((id, open)) = self.questions.tell(standing, busy) else {
                return;
            };
            let over = CancellationToken::new();
            self.over.insert(id, over.clone());
            let (ground, handler) = (self.ground.clone(), self.handler.clone());
            let running = self.running.spawn(answer(ground, handler, id, open, over));
            self.busy.insert(running.id(), id);
        }
    }

    fn ended(&mut self, ended: Result<(Id, ()), JoinError>) {
        let task = match ended {
            Ok((task, ())) => task,
            Err(error) => error.id(),
        };
        if let Some(id) = self.busy.remove(&task) {
            self.over.remove(&id);
        }
    }
}

async fn answer(
    ground: Arc<OnLog>,
    handler: OnQuestion,
    id: CommandId,
    open: Open,
    over: CancellationToken,
) {
    let trace = open.trace.clone();
    let question = ReceivedQuestion {
        id,
        from: open.asker,
        deadline: open.deadline(),
        question: open.asked.question,
        choices: open.asked.choices,
        default: open.asked.default,
        answerer: open.asked.answerer,
        asked_at: open.time,
        over,
        carrier: ground.bus.clone(),
        trace: open.trace,
    };
    let Some(answer) = handle(handler, question).await else {
        return;
    };
    match ground.answer(id, answer, &trace).await {
        Ok(true) => tracing::debug!(question.id = %id, "answered"),
        Ok(false) => tracing::debug!(question.id = %id, "another answer was first"),
        Err(error) => tracing::warn!(question.id = %id, %error, "an answer does not count"),
    }
}

/// The first of these sequences that was stored at `since` or later, both ends included; the one after them if there is none. `look`
/// answers with the time of one; one that is not there counts as later.
async fn first_since<E, F>(
    (first, last): (u64, u64),
    since: i64,
    look: impl Fn(u64) -> F,
) -> Result<u64, E>
where
    F: Future<Output = Result<Option<i64>, E>>,
{
    let (mut low, mut high) = (first, last.saturating_add(1).max(first));
    while low < high {
        let middle = low + (high - low) / 2;
        match look(middle).await? {
            Some(time) if time < since => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(low)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    #[tokio::test]
    async fn what_is_too_old_to_be_open_is_not_read() {
        // Given a log that begins at 3
        let times = BTreeMap::from([(3, 10), (4, 20), (5, 20), (6, 30), (7, 40), (8, 50)]);
        let look = async |sequence| Ok::<_, Infallible>(times.get(&sequence).copied());
        for (since, expected) in [(0, 3), (10, 3), (11, 4), (20, 4), (21, 6), (41, 8), (51, 9)] {
            assert_eq!(first_since((3, 8), since, look).await, Ok(expected));
        }
        // What is not there counts as later: rather too much is read than too little.
        let hole = async |sequence| Ok::<_, Infallible>((sequence != 6).then_some(10));
        assert_eq!(first_since((3, 8), 50, hole).await, Ok(6));
        // An empty one
        let none = async |_| Ok::<_, Infallible>(None);
        assert_eq!(first_since((1, 0), 5, none).await, Ok(1));
    }
}
