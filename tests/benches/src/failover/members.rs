//! Which replicas are there and what they fold, by what they announce.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::bail;
use futures::StreamExt;
use serde::Deserialize;
use swarm_events::{InstanceId, Partition, subject::Service};
use swarm_log::{Log, PresenceNews, jetstream::JetStreamLog};
use tokio::{task::AbortHandle, time::sleep};

use super::watch::Watch;

/// Announcements are renewed every 500 ms.
const FRESH: Duration = Duration::from_millis(1_500);
/// A new replica folds the log first; a paused one has to find out what it missed.
const STEADY_PATIENCE: Duration = Duration::from_secs(120);
/// How often is looked whether it is so.
const LOOK: Duration = Duration::from_millis(50);

/// What a replica says of itself, as far as it matters here.
#[derive(Clone, Debug, Deserialize)]
struct Announcement {
    service: String,
    instance: InstanceId,
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    leaving: bool,
    /// By partition number.
    #[serde(default)]
    partitions: BTreeMap<u8, Folded>,
}

#[derive(Clone, Debug, Deserialize)]
struct Folded {
    role: String,
}

/// The replicas of all services, as they announce themselves. Clones are one.
#[derive(Clone)]
pub struct Members(Arc<Inner>);

struct Inner {
    said: Mutex<BTreeMap<InstanceId, Said>>,
    reader: AbortHandle,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

struct Said {
    last: Announcement,
    at: Instant,
    /// It removed its announcement, or somebody did.
    removed: bool,
}

impl Members {
    /// Follows the announcements.
    pub fn follow(log: &JetStreamLog) -> Self {
        let mut news = log.watch_presence("");
        Self(Arc::new_cyclic(|inner: &std::sync::Weak<Inner>| {
            let inner = inner.clone();
            let reader = tokio::spawn(async move {
                while let Some(news) = news.next().await {
                    let Some(inner) = inner.upgrade() else { return };
                    let mut said = inner.said.lock().unwrap_or_else(PoisonError::into_inner);
                    match news {
                        PresenceNews::Put { value, .. } => {
                            // What is no announcement says nothing about a replica.
                            if let Ok(last) = serde_json::from_slice::<Announcement>(&value) {
                                let at = Instant::now();
                                let removed = false;
                                said.insert(last.instance, Said { last, at, removed });
                            }
                        }
                        PresenceNews::Removed { key } => {
                            let instance = key.rsplit('.').next().and_then(|id| id.parse().ok());
                            if let Some(said) = instance.and_then(|id| said.get_mut(&id)) {
                                said.removed = true;
                            }
                        }
                        PresenceNews::Complete => {}
                    }
                }
            });
            Inner {
                said: Mutex::default(),
                reader: reader.abort_handle(),
            }
        }))
    }

    fn said(&self) -> MutexGuard<'_, BTreeMap<InstanceId, Said>> {
        self.0.said.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The name of the replica whose process `instance` is or was.
    pub fn name_of(&self, instance: InstanceId) -> Option<String> {
        self.said().get(&instance)?.last.name.clone()
    }

    /// Waits until the replicas `names` of `service`, and no others, share all partitions: each has one owner, which the log's
    /// last claim names too, and a standby if there is a second replica.
    ///
    /// # Errors
    /// It does not come to that; the message says what is missing.
    pub async fn steady(
        &self,
        watch: &Watch,
        service: Service,
        names: &[String],
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + STEADY_PATIENCE;
        loop {
            watch.check()?;
            let Err(missing) = self.shared(watch, service, names) else {
                return Ok(());
            };
            if Instant::now() > deadline {
                bail!(
                    "the replicas of {service} do not settle in {} s: {missing}",
                    STEADY_PATIENCE.as_secs()
                );
            }
            sleep(LOOK).await;
        }
    }

    fn shared(&self, watch: &Watch, service: Service, names: &[String]) -> Result<(), String> {
        let said = self.said();
        let live: Vec<&Announcement> = said
            .values()
            .filter(|said| {
                said.last.service == service.as_str() && !said.removed && !said.last.leaving
            })
            .filter(|said| said.at.elapsed() < FRESH)
            .map(|said| &said.last)
            .collect();
        for name in names {
            let of_name = |live: &&&Announcement| live.name.as_deref() == Some(name);
            if live.iter().filter(of_name).count() != 1 {
                return Err(format!("{name} does not announce itself"));
            }
        }
        if live.len() != names.len() {
            return Err(format!(
                "{} announce themselves instead of {names:?}",
                live.len()
            ));
        }
        for partition in Partition::all() {
            let with = |role: &str| {
                let holds = |one: &&&Announcement| {
                    let folded = one.partitions.get(&partition.number());
                    folded.is_some_and(|folded| folded.role == role)
                };
                live.iter()
                    .filter(holds)
                    .map(|one| one.instance)
                    .collect::<Vec<_>>()
            };
            let [owner] = with("owner")[..] else {
                return Err(format!("{partition} has {} owners", with("owner").len()));
            };
            let claimed = watch.owner(service, partition).map(|claim| claim.instance);
            if claimed != Some(owner) {
                return Err(format!(
                    "{partition} is claimed by {claimed:?} and announced by {owner}"
                ));
            }
            if names.len() > 1 && with("standby").is_empty() {
                return Err(format!("{partition} has no standby"));
            }
        }
        Ok(())
    }
}
