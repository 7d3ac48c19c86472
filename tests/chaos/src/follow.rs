//! Follows one swarm in the log: every wait of a scene is a wait for something that the log says.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use anyhow::{Context, bail};
use futures::StreamExt;
use swarm_events::{Body, Input};
use swarm_events::{
    InstanceId, Place, Service, Subject, Timestamp, read,
    subject::{ControlVerb, Partition},
};
use swarm_log::{Log, StoredMessage, Tailed, jetstream::JetStreamLog};
use tokio::{
    sync::watch,
    task::JoinHandle,
    time::{Instant, timeout_at},
};

use crate::fold::{Claim, Fold};

/// The services that decide.
pub const DECIDING: [Service; 3] = [Service::Coordinator, Service::Distributor, Service::Health];

/// The fold of one swarm, kept up to date by a task of its own. Ends when dropped.
pub struct Follower {
    fold: Arc<Mutex<Fold>>,
    news: watch::Receiver<u64>,
    task: JoinHandle<()>,
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Follower {
    /// Follows the swarm at `place` from now on.
    ///
    /// # Errors
    /// The log cannot be read.
    pub async fn start(log: &JetStreamLog, place: Place) -> anyhow::Result<Self> {
        let from = log.info().await?.last_sequence + 1;
        let mut claims = Vec::new();
        for service in DECIDING {
            // A newer one is met by the tail.
            if let Some(claim) = last_claim(log, service, place.partition).await?
                && claim.epoch < from
            {
                claims.push(claim);
            }
        }
        let fold = Arc::new(Mutex::new(Fold::after(claims)));
        let (told, news) = watch::channel(0);
        let mut filters = vec![format!("swarm.evt.{place}.>")];
        filters.extend(DECIDING.map(|service| {
            Subject::Control(service, place.partition, ControlVerb::Claimed).to_string()
        }));
        let mut tail = log.tail(filters, from);
        let folding = fold.clone();
        let task = tokio::spawn(async move {
            while let Some(Ok(tailed)) = tail.next().await {
                if let Tailed::Message(stored) = tailed {
                    let input = as_input(&stored);
                    lock(&folding).meet(&input);
                    told.send_replace(stored.sequence);
                }
            }
        });
        Ok(Self { fold, news, task })
    }

    /// Asks the fold as it stands.
    pub fn see<T>(&self, look: impl FnOnce(&Fold) -> T) -> T {
        look(&lock(&self.fold))
    }

    /// Waits until the log shows `what`.
    ///
    /// # Errors
    /// It does not within `patience`, or the log cannot be read any more.
    pub async fn until<T>(
        &self,
        what: &str,
        patience: Duration,
        mut look: impl FnMut(&Fold) -> Option<T>,
    ) -> anyhow::Result<T> {
        let mut news = self.news.clone();
        let deadline = Instant::now() + patience;
        loop {
            news.borrow_and_update();
            if let Some(found) = self.see(&mut look) {
                return Ok(found);
            }
            match timeout_at(deadline, news.changed()).await {
                Ok(changed) => changed.context("the log cannot be followed any more")?,
                Err(_) => bail!("not within {} s: {what}", patience.as_secs()),
            }
        }
    }
}

fn lock(fold: &Mutex<Fold>) -> MutexGuard<'_, Fold> {
    fold.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stored message as folds meet it.
pub fn as_input(stored: &StoredMessage) -> Input {
    let time = Timestamp::from_micros(stored.time_micros);
    read(stored.sequence, time, &stored.subject, &stored.payload)
}

/// The last claim of a partition by a service.
///
/// # Errors
/// The log cannot be read.
pub async fn last_claim(
    log: &JetStreamLog,
    service: Service,
    partition: Partition,
) -> anyhow::Result<Option<Claim>> {
    let subject = Subject::Control(service, partition, ControlVerb::Claimed).to_string();
    let Some(stored) = log.last_of(&subject).await? else {
        return Ok(None);
    };
    Ok(claim_in(&stored).map(|instance| Claim {
        service,
        epoch: stored.sequence,
        instance,
    }))
}

/// Who claims with this message, if it is a claim.
pub fn claim_in(stored: &StoredMessage) -> Option<InstanceId> {
    match as_input(stored) {
        Input::Event(recorded) => match recorded.event.body {
            Body::Claimed(claimed) => Some(claimed.instance),
            _ => None,
        },
        Input::Unreadable(_) => None,
    }
}
