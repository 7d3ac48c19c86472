//! Tells other swarms what the state says they are to be told, until it is stored there.
//!
//! What is to be told is in the state, and stays there until the log says that it was delivered; here is only what is being
//! sent. An owner that begins anew says everything again that is left; each letter has the same id whoever says it, so that a
//! repeat is void where it is met.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use swarm_distributor_core::{Distributor, outbox::Post};
use swarm_events::{
    Body, Event, EventId, Partition, Recorded, Service, SwarmId, TaskId, Timestamp,
    control::{DELIVERED_MAX, Observed},
    envelope::Source,
    ids::InstanceId,
};
use swarm_log::{Log, Message};
use tokio::{sync::mpsc, task::JoinHandle, time::sleep};
use tracing::{debug, error, warn};

use crate::shell::event_at;

/// Most letters of a process that are being sent at a time: as many round trips fill the pipeline, and each may bring a
/// quarter of a megabyte.
pub const SENDING_MAX: usize = 64;
/// Wait before a letter is sent again for the first time; it doubles with each try.
pub const RETRY_FIRST: Duration = Duration::from_millis(100);
/// Longest wait before a letter is sent again.
pub const RETRY_LAST: Duration = Duration::from_secs(5);
/// Observations that wait for the loop.
const OBSERVED_MAX: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// It is being sent.
    Sending,
    /// It is stored where it goes; the log does not say so yet.
    Stored,
}

/// A letter on its way.
struct Parcel {
    partition: Partition,
    post: Post,
}
/// Something for the carrier to do.
enum Errand {
    Send(Parcel),
    /// The log is to be told again that this one is stored.
    Tell(Partition, u64),
}

/// A task that letters are about.
type About = (SwarmId, TaskId, u32);

/// The letters of the partitions that this process decides for.
pub struct Outbox<L> {
    log: L,
    instance: InstanceId,
    partitions: BTreeMap<Partition, BTreeMap<u64, Stage>>,
    /// To the carrier, once it runs.
    errands: Option<mpsc::UnboundedSender<Errand>>,
    stored: Option<mpsc::UnboundedReceiver<(Partition, u64)>>,
    carrier: Option<JoinHandle<()>>,
}
impl<L> Drop for Outbox<L> {
    fn drop(&mut self) {
        if let Some(carrier) = &self.carrier {
            carrier.abort();
        }
    }
}

impl<L: Log> Outbox<L> {
    /// Nothing is being sent.
    pub fn new(log: L, instance: InstanceId) -> Self {
        Self {
            log,
            instance,
            partitions: BTreeMap::new(),
            errands: None,
            stored: None,
            carrier: None,
        }
    }

    /// Starts sending; what was stored comes out as observations.
    pub fn start(&mut self) -> Option<mpsc::Receiver<(Partition, Observed)>> {
        let (errands, orders) = mpsc::unbounded_channel();
        let (told, stored) = mpsc::unbounded_channel();
        let (observations, observed) = mpsc::channel(OBSERVED_MAX);
        self.errands = Some(errands);
        self.stored = Some(stored);
        let carrier = Carrier {
            log: self.log.clone(),
            source: Source::Service(Service::Distributor, self.instance),
            told,
            observations,
        };
        self.carrier = Some(tokio::spawn(carrier.run(orders)));
        Some(observed)
    }

    /// The partition is decided for here from now on, or anew: everything that is left is said, unless it is being said.
    pub fn owned(&mut self, state: &Distributor) {
        let partition = state.head().partition;
        self.catch_up();
        let mut stages = self.partitions.remove(&partition).unwrap_or_default();
        stages.retain(|&sequence, _| state.letter(sequence).is_some());
        for post in state.letters(0) {
            let sequence = post.sequence;
            match stages.get(&sequence) {
                Some(Stage::Sending) => {}
                Some(Stage::Stored) => self.order(Errand::Tell(partition, sequence)),
                None => {
                    stages.insert(sequence, Stage::Sending);
                    self.order(Errand::Send(Parcel { partition, post }));
                }
            }
        }
        self.partitions.insert(partition, stages);
    }

    /// Somebody else says what is left. What is on its way may still arrive: it is the same.
    pub fn lost(&mut self, partition: Partition) {
        self.partitions.remove(&partition);
    }

    /// An input was met in a partition that is decided for here.
    pub fn met(&mut self, state: &Distributor, recorded: &Recorded) {
        let partition = state.head().partition;
        if let Body::Observed(Observed::Delivered { sequences }) = &recorded.event.body {
            self.catch_up();
            if let Some(stages) = self.partitions.get_mut(&partition) {
                for sequence in sequences {
                    stages.remove(sequence);
                }
            }
            return;
        }
        if let Some(post) = state.letter(recorded.sequence) {
            let stages = self.partitions.entry(partition).or_default();
            if stages.insert(post.sequence, Stage::Sending).is_none() {
                self.order(Errand::Send(Parcel { partition, post }));
            }
        }
    }

    /// Notes what the carrier has done.
    fn catch_up(&mut self) {
        while let Some((partition, sequence)) = self
            .stored
            .as_mut()
            .and_then(|stored| stored.try_recv().ok())
        {
            let stages = self.partitions.get_mut(&partition);
            if let Some(stage) = stages.and_then(|stages| stages.get_mut(&sequence)) {
                *stage = Stage::Stored;
            }
        }
    }

    fn order(&self, errand: Errand) {
        // Only a loop that has ended has no carrier, and it decides for nothing.
        if let Some(errands) = &self.errands {
            let _ = errands.send(errand);
        }
    }
}

/// Sends letters, those about one task one after another.
struct Carrier<L> {
    log: L,
    source: Source,
    told: mpsc::UnboundedSender<(Partition, u64)>,
    observations: mpsc::Sender<(Partition, Observed)>,
}

impl<L: Log> Carrier<L> {
    async fn run(self, mut orders: mpsc::UnboundedReceiver<Errand>) {
        // What waits behind another letter about the same task, and what waits for a place.
        let mut behind: BTreeMap<About, VecDeque<Parcel>> = BTreeMap::new();
        let mut waiting: VecDeque<Parcel> = VecDeque::new();
        let mut sending = FuturesUnordered::new();
        let mut delivered: BTreeMap<Partition, Vec<u64>> = BTreeMap::new();
        loop {
            while sending.len() < SENDING_MAX
                && let Some(parcel) = waiting.pop_front()
            {
                sending.push(self.send(parcel));
            }
            tokio::select! {
                order = orders.recv() => match order {
                    None => return,
                    Some(Errand::Tell(partition, sequence)) => {
                        delivered.entry(partition).or_default().push(sequence);
                    }
                    Some(Errand::Send(parcel)) => match behind.entry(parcel.post.task()) {
                        std::collections::btree_map::Entry::Occupied(mut line) => {
                            line.get_mut().push_back(parcel);
                        }
                        std::collections::btree_map::Entry::Vacant(line) => {
                            line.insert(VecDeque::new());
                            waiting.push_back(parcel);
                        }
                    },
                },
                Some(parcel) = sending.next(), if !sending.is_empty() => {
                    self.arrived(parcel, &mut behind, &mut waiting, &mut delivered);
                    while let Some(Some(parcel)) = sending.next().now_or_never() {
                        self.arrived(parcel, &mut behind, &mut waiting, &mut delivered);
                    }
                }
            }
            for (partition, sequences) in std::mem::take(&mut delivered) {
                for sequences in sequences.chunks(DELIVERED_MAX) {
                    let sequences = sequences.to_vec();
                    let observed = Observed::Delivered { sequences };
                    if self.observations.send((partition, observed)).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    fn arrived(
        &self,
        parcel: Parcel,
        behind: &mut BTreeMap<About, VecDeque<Parcel>>,
        waiting: &mut VecDeque<Parcel>,
        delivered: &mut BTreeMap<Partition, Vec<u64>>,
    ) {
        let (partition, sequence) = (parcel.partition, parcel.post.sequence);
        let _ = self.told.send((partition, sequence));
        delivered.entry(partition).or_default().push(sequence);
        let about = parcel.post.task();
        match behind.get_mut(&about).and_then(VecDeque::pop_front) {
            Some(next) => waiting.push_back(next),
            None => {
                behind.remove(&about);
            }
        }
    }

    /// Sends a letter until it is stored.
    async fn send(&self, parcel: Parcel) -> Parcel {
        let mut wait = RETRY_FIRST;
        // A stranger that burnt the id must not keep the letter from arriving.
        let mut with_id = true;
        loop {
            match self.try_send(&parcel.post, with_id).await {
                Ok(true) => return parcel,
                Ok(false) => {
                    warn!(
                        sequence = parcel.post.sequence,
                        "something else was stored under a letter's id: it is sent without one"
                    );
                    with_id = false;
                    continue;
                }
                Err(why) => debug!(
                    partition = %parcel.partition, sequence = parcel.post.sequence, why,
                    "a letter to another swarm was not stored; it is sent again"
                ),
            }
            sleep(wait).await;
            wait = (wait * 2).min(RETRY_LAST);
        }
    }

    /// True: it is stored. False: something else is, under its id.
    async fn try_send(&self, post: &Post, with_id: bool) -> Result<bool, String> {
        let read = match post.reads() {
            Some(sequence) => event_at(&self.log, sequence)
                .await
                .map_err(|e| e.to_string())?
                .map(|event| event.body),
            None => Err(String::new()),
        };
        let time = Timestamp::from(chrono::Utc::now());
        let (subject, event) = post.event(self.source.clone(), time, read);
        let id = event.id;
        let payload = event.to_json().map_err(|e| {
            error!(error = %e, "a letter could not be written as JSON");
            e.to_string()
        })?;
        let message = Message {
            subject: subject.to_string(),
            payload: payload.into(),
            message_id: with_id.then(|| id.to_string()),
            fence: None,
        };
        let outcome = self.log.append(vec![message]).await;
        match outcome.into_iter().next() {
            Some(Ok(appended)) if appended.duplicate => {
                let stored = event_at(&self.log, appended.sequence).await;
                let stored = stored.map_err(|e| e.to_string())?;
                Ok(stored.is_ok_and(|stored| same(&stored, &event, id)))
            }
            Some(Ok(_)) => Ok(true),
            Some(Err(error)) => Err(error.to_string()),
            None => Err("no answer".to_owned()),
        }
    }
}

/// Whether what is stored is what was to be stored, by whichever replica.
fn same(stored: &Event, meant: &Event, id: EventId) -> bool {
    stored.id == id
        && matches!(stored.source, Source::Service(Service::Distributor, _))
        && stored.body == meant.body
        && stored.about == meant.about
        && stored.swarm == meant.swarm
        && stored.org == meant.org
}
