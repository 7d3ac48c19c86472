//! How much is said between the agents of a swarm: how many messages are kept, by nats-server's own count, and how many come
//! in a second, counted as they are stored, for swarms that somebody looks at.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, TryStreamExt};
use swarm_events::{
    AgentId, Place, Subject,
    subject::{Recipient, Sender},
};
use swarm_log::definitions::MESSAGES_STREAM;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::bus::Bus;

/// How long the count is waited for: a topology is looked at in an outage above all, and must be shown then.
const COUNT_WAIT: Duration = Duration::from_secs(1);
/// Length of a step of the count.
const STEP: Duration = Duration::from_secs(1);
/// Steps of the window: long enough that a message a second shows, short enough to follow what happens.
const STEPS: usize = 10;
/// A swarm at which nobody has looked for so long is watched no more.
const UNWATCHED_AFTER: Duration = Duration::from_secs(60);
/// Most swarms that are watched at a time: each has all its messages sent to this gateway.
const WATCHED_MAX: usize = 256;

/// From whom, and to whom.
type Pair = (Sender, Recipient);

/// Messages by pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts(BTreeMap<Pair, u64>);

impl Counts {
    fn add(&mut self, pair: Pair, more: u64) {
        *self.0.entry(pair).or_default() += more;
    }
    /// All of them.
    pub(super) fn all(&self) -> u64 {
        self.0.values().sum()
    }
    /// Those of one agent to whomsoever.
    pub(super) fn by_sender(&self) -> BTreeMap<AgentId, u64> {
        let mut by_sender = BTreeMap::new();
        for ((from, _), count) in &self.0 {
            if let Sender::Agent(agent) = from {
                *by_sender.entry(*agent).or_default() += count;
            }
        }
        by_sender
    }
    /// Those between two agents, in both directions.
    pub(super) fn between(&self, a: AgentId, b: AgentId) -> u64 {
        let one = |from, to| {
            let pair = (Sender::Agent(from), Recipient::Agent(to));
            self.0.get(&pair).copied().unwrap_or(0)
        };
        one(a, b) + one(b, a)
    }
}

/// How many messages of a swarm are kept, by nats-server's count; `None` if it does not say.
pub(super) async fn kept(bus: Option<&Bus>, place: Place) -> Option<Counts> {
    let context = bus?.context().clone();
    let count = async {
        let stream = context.get_stream_no_info(MESSAGES_STREAM).await.ok()?;
        let subjects = stream.info_with_subjects(format!("swarm.msg.{place}.>"));
        let mut subjects = subjects.await.ok()?;
        let mut counts = Counts::default();
        while let Some((subject, count)) = subjects.try_next().await.ok()? {
            if let Ok(Subject::Message(_, from, to)) = Subject::parse(&subject) {
                counts.add((from, to), u64::try_from(count).unwrap_or(u64::MAX));
            }
        }
        Some(counts)
    };
    let counted = timeout(COUNT_WAIT, count).await.ok().flatten();
    if counted.is_none() {
        tracing::warn!(swarm.id = %place.swarm, "the messages cannot be counted");
    }
    counted
}

/// What came in the last whole steps.
#[derive(Debug)]
struct Window {
    began: Instant,
    /// Steps that are over, by their number; those in which nothing came are not there.
    steps: VecDeque<(u64, Counts)>,
    looked: Instant,
}

impl Window {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            steps: VecDeque::new(),
            looked: now,
        }
    }
    fn step(&self, now: Instant) -> u64 {
        let steps = (now - self.began).as_millis() / STEP.as_millis();
        u64::try_from(steps).unwrap_or(u64::MAX)
    }
    fn forget(&mut self, step: u64) {
        let first = step.saturating_sub(STEPS as u64);
        while self.steps.front().is_some_and(|(at, _)| *at < first) {
            self.steps.pop_front();
        }
    }
    fn came(&mut self, pair: Pair, now: Instant) {
        let step = self.step(now);
        self.forget(step);
        match self.steps.back_mut() {
            Some((at, counts)) if *at == step => counts.add(pair, 1),
            _ => {
                let mut counts = Counts::default();
                counts.add(pair, 1);
                self.steps.push_back((step, counts));
            }
        }
    }
    /// What came in the steps that are over; `None` before the first one is.
    fn rates(&mut self, now: Instant) -> Option<Rates> {
        self.looked = now;
        let step = self.step(now);
        self.forget(step);
        let whole = step.min(STEPS as u64);
        if whole == 0 {
            return None;
        }
        let mut counts = Counts::default();
        for (_, some) in self.steps.iter().filter(|(at, _)| *at < step) {
            for (pair, count) in &some.0 {
                counts.add(*pair, *count);
            }
        }
        let millis = u64::try_from(STEP.as_millis()).unwrap_or(u64::MAX);
        Some(Rates {
            counts,
            window_ms: whole * millis,
        })
    }
}

/// What came in a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rates {
    /// By pair.
    pub(super) counts: Counts,
    /// Its length.
    pub(super) window_ms: u64,
}

impl Rates {
    /// So many in the window, in a second.
    pub(super) fn per_second(&self, count: u64) -> f64 {
        count as f64 * 1_000.0 / self.window_ms as f64
    }
}

/// The swarms that are watched.
#[derive(Clone, Debug, Default)]
pub struct Watched(Arc<Mutex<BTreeMap<Place, Window>>>);

impl Watched {
    fn all(&self) -> MutexGuard<'_, BTreeMap<Place, Window>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What came in the last moments. The first look at a swarm begins to watch it, and knows nothing yet.
    pub(super) async fn rates(
        &self,
        bus: Option<&Bus>,
        place: Place,
        stop: &CancellationToken,
    ) -> Option<Rates> {
        let bus = bus?;
        {
            let mut all = self.all();
            if let Some(window) = all.get_mut(&place) {
                return window.rates(Instant::now());
            }
            if all.len() >= WATCHED_MAX {
                return None;
            }
            // Before the subscription is there: another look at the same moment must not begin another one.
            all.insert(place, Window::new(Instant::now()));
        }
        match bus.hear(format!("swarm.live.msg.{place}.>")).await {
            Ok(heard) => {
                if let Some(window) = self.all().get_mut(&place) {
                    *window = Window::new(Instant::now());
                }
                let payloads = heard.map(|message| message.subject.to_string());
                tokio::spawn(self.clone().watch(place, payloads, stop.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "messages cannot be watched");
                self.all().remove(&place);
            }
        }
        None
    }

    async fn watch(
        self,
        place: Place,
        mut subjects: impl futures::Stream<Item = String> + Unpin,
        stop: CancellationToken,
    ) {
        loop {
            let Some(until) = self
                .all()
                .get(&place)
                .map(|window| window.looked + UNWATCHED_AFTER)
            else {
                return;
            };
            tokio::select! {
                subject = subjects.next() => {
                    let Some(subject) = subject else { break };
                    let pair = pair(&subject);
                    if let (Some(pair), Some(window)) = (pair, self.all().get_mut(&place)) {
                        window.came(pair, Instant::now());
                    }
                }
                () = sleep_until(until) => {
                    let mut all = self.all();
                    let is_left = all.get(&place).is_some_and(|window| window.looked + UNWATCHED_AFTER <= Instant::now());
                    if is_left {
                        all.remove(&place);
                        return;
                    }
                }
                () = stop.cancelled() => break,
            }
        }
        self.all().remove(&place);
    }
}

/// Who speaks to whom on a subject on which messages are republished.
fn pair(live: &str) -> Option<Pair> {
    let stored = format!("swarm.{}", live.strip_prefix("swarm.live.")?);
    match Subject::parse(&stored) {
        Ok(Subject::Message(_, from, to)) => Some((from, to)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use swarm_events::{OrgId, SwarmId};
    use uuid::Uuid;

    use super::*;

    fn agent(n: u128) -> AgentId {
        AgentId(Uuid::from_u128(n))
    }
    fn direct(from: u128, to: u128) -> Pair {
        (Sender::Agent(agent(from)), Recipient::Agent(agent(to)))
    }
    fn place() -> Place {
        Place::new(OrgId(Uuid::from_u128(8)), SwarmId(Uuid::from_u128(9)))
    }

    #[test]
    fn a_window_counts_whole_steps_and_forgets_what_is_older() {
        let began = Instant::now();
        let at = |millis| began + Duration::from_millis(millis);
        let mut window = Window::new(began);
        window.came(direct(1, 2), at(10));
        window.came(direct(2, 1), at(20));
        assert_eq!(window.rates(at(999)), None, "no step is over");
        window.came(direct(1, 2), at(1_500));
        let rates = window.rates(at(1_600)).expect("one step");
        assert_eq!((rates.window_ms, rates.counts.all()), (1_000, 2));
        assert_eq!(
            rates.per_second(rates.counts.between(agent(1), agent(2))),
            2.0
        );
        let rates = window.rates(at(4_000)).expect("four steps");
        assert_eq!((rates.window_ms, rates.counts.all()), (4_000, 3));
        let rates = window.rates(at(11_000)).expect("the last ten");
        assert_eq!((rates.window_ms, rates.counts.all()), (10_000, 1));
        assert_eq!(
            window.rates(at(60_000)).expect("nothing came").counts.all(),
            0
        );
    }

    #[test]
    fn counts_are_summed_by_sender_and_by_pair() {
        let mut counts = Counts::default();
        counts.add(direct(1, 2), 3);
        counts.add(direct(2, 1), 1);
        counts.add((Sender::Agent(agent(1)), Recipient::All), 5);
        counts.add((Sender::People, Recipient::Agent(agent(1))), 7);
        assert_eq!(counts.all(), 16);
        assert_eq!(counts.between(agent(2), agent(1)), 4);
        assert_eq!(counts.between(agent(1), agent(3)), 0);
        assert_eq!(
            counts.by_sender(),
            BTreeMap::from([(agent(1), 8), (agent(2), 1)])
        );
    }

    #[test]
    fn the_pair_is_read_off_the_live_subject() {
        let (from, to) = direct(1, 2);
        let subject = Subject::Message(place(), from, to).to_string();
        let live = subject.replacen("swarm.", "swarm.live.", 1);
        assert_eq!(pair(&live), Some(direct(1, 2)));
        assert_eq!(pair(&subject), None);
        assert_eq!(pair("swarm.live.evt.00.x"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn given_nobody_looks_for_a_minute_then_the_swarm_is_watched_no_more() {
        let watched = Watched::default();
        let began = Instant::now();
        watched.all().insert(place(), Window::new(began));
        let watching = tokio::spawn(watched.clone().watch(
            place(),
            stream::pending(),
            CancellationToken::new(),
        ));
        tokio::time::sleep(Duration::from_secs(40)).await;
        if let Some(window) = watched.all().get_mut(&place()) {
            window.rates(Instant::now());
        }
        watching.await.expect("it ends");
        assert!(watched.all().is_empty());
        assert_eq!(began.elapsed(), Duration::from_secs(100));
    }
}
