//! Where a projector's fold begins: each core from the newest snapshot of its service at or below the committed sequence,
//! else from the log's first event. Behind that, up to the committed sequence, it folds silently.

use futures::{StreamExt, TryStreamExt, stream};
use swarm_coordinator_core::Coordinator;
use swarm_distributor_core::Distributor;
use swarm_events::{Partition, decider::Decider};
use swarm_health_core::Health;
use swarm_log::{Log, LogError, LogInfo, Tailed};
use swarm_runtime::snapshots::{EVERY, SnapshotError, Store, Wanted, whole_history};
use tracing::info;

use crate::fold::{Fold, Newer};

/// Snapshots that are looked for at a time: each takes a few round trips.
const LOOKS_MAX: usize = 16;
/// Partitions that lie further back than this behind the newest snapshot are read by themselves: little happens in them, and
/// the server finds it without sending the rest.
const LAGGARD_AFTER: u64 = 2 * EVERY;

/// Why there is no state to begin with.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StartError {
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error(transparent)]
    Newer(#[from] Newer),
}
impl From<LogError> for StartError {
    fn from(error: LogError) -> Self {
        Self::Snapshot(error.into())
    }
}

/// The cores of a service, and the sequence up to which each has met everything.
struct Loaded<D> {
    cores: Vec<D>,
    met: Vec<u64>,
    snapshots: usize,
}

/// A fold whose `sequence` is at most `committed`.
pub(crate) async fn start<L: Log>(
    log: &L,
    info: &LogInfo,
    committed: u64,
) -> Result<Fold, StartError> {
    let mut fold = Fold::new();
    if committed == 0 {
        // Every row is to be written, so every event is to be met.
        whole_history(info, "the read models")?;
        fold.sequence = info.first_sequence.saturating_sub(1);
        return Ok(fold);
    }
    let store = Store::new(log.clone());
    let coordinators = load::<Coordinator, L>(&store, info, committed).await?;
    let distributors = load::<Distributor, L>(&store, info, committed).await?;
    let healths = load::<Health, L>(&store, info, committed).await?;
    let snapshots = coordinators.snapshots + distributors.snapshots + healths.snapshots;
    // By partition, the least of the three.
    let met: Vec<u64> = Partition::all()
        .map(|partition| {
            let at = usize::from(partition.number());
            coordinators.met[at]
                .min(distributors.met[at])
                .min(healths.met[at])
        })
        .collect();
    fold.coordinators = coordinators.cores;
    fold.distributors = distributors.cores;
    fold.healths = healths.cores;
    let newest = met.iter().copied().max().unwrap_or(0);
    let is_far = |met: u64| met.saturating_add(LAGGARD_AFTER) < newest;
    let near = met.iter().copied().filter(|met| !is_far(*met)).min();
    let near = near.unwrap_or(newest);
    let far: Vec<Partition> = Partition::all()
        .zip(&met)
        .filter(|(_, met)| is_far(**met))
        .map(|(partition, _)| partition)
        .collect();
    if let Some(from) = met.iter().copied().filter(|met| is_far(*met)).min() {
        catch_up(log, &mut fold, filters_of(&far), from + 1, near).await?;
    }
    fold.sequence = near;
    info!(snapshots, from = near + 1, committed, "folding on");
    Ok(fold)
}

/// The newest snapshots of a service at or below `committed`.
async fn load<D: Decider, L: Log>(
    store: &Store<L>,
    info: &LogInfo,
    committed: u64,
) -> Result<Loaded<D>, SnapshotError> {
    let catalogue = &store.catalogue(D::SERVICE.as_str()).await?;
    let looks = Partition::all().map(|partition| async move {
        let wanted = Wanted::of::<D>(partition, info.created_micros);
        let loaded = store
            .newest_in::<D>(catalogue, &wanted, Some(committed))
            .await?;
        Ok::<_, SnapshotError>((partition, loaded))
    });
    let mut found = stream::iter(looks).buffered(LOOKS_MAX);
    let mut all = Loaded {
        cores: Vec::new(),
        met: Vec::new(),
        snapshots: 0,
    };
    while let Some((partition, loaded)) = found.try_next().await? {
        let (core, met) = match loaded {
            Some(loaded) => {
                all.snapshots += 1;
                (loaded.state, loaded.meta.sequence)
            }
            None => {
                whole_history(info, &format!("{} partition {partition}", D::SERVICE))?;
                (D::new(partition), info.first_sequence.saturating_sub(1))
            }
        };
        all.cores.push(core);
        all.met.push(met);
    }
    Ok(all)
}

/// Has the cores that are behind meet what matches `filters`, up to and including `to`.
async fn catch_up<L: Log>(
    log: &L,
    fold: &mut Fold,
    filters: Vec<String>,
    from: u64,
    to: u64,
) -> Result<(), StartError> {
    let mut tail = log.tail(filters, from);
    while let Some(item) = tail.next().await {
        match item? {
            Tailed::Message(message) if message.sequence > to => return Ok(()),
            Tailed::Message(message) => fold.meet(&message, None)?,
            Tailed::CaughtUp => return Ok(()),
            Tailed::Interrupted | Tailed::Resumed => {}
        }
    }
    Err(LogError::Refused("the tail ended".to_owned()).into())
}

/// All that the cores of some partitions meet, in filters that do not overlap (the server refuses others).
fn filters_of(partitions: &[Partition]) -> Vec<String> {
    // Organizations concern the coordinators of all partitions.
    let mut filters = vec!["swarm.evt.*.*.org.*".to_owned()];
    filters.extend(partitions.iter().flat_map(|partition| {
        [
            format!("swarm.evt.{partition}.*.*.swarm.>"),
            format!("swarm.evt.{partition}.*.*.agent.>"),
            format!("swarm.evt.{partition}.*.*.task.>"),
            format!("swarm.cmd.{partition}.>"),
            format!("swarm.ctl.*.{partition}.>"),
        ]
    }));
    filters
}

#[cfg(test)]
mod tests {
    use swarm_events::{Service, subject::filter};
    use swarm_log::filter::matches;

    use super::*;

    #[test]
    fn a_partition_that_is_read_by_itself_is_read_whole() {
        let partition = Partition::new(7).expect("below 64");
        let own = filters_of(&[partition]);
        for service in [Service::Coordinator, Service::Distributor, Service::Health] {
            for wanted in filter::inputs(service, Some(partition)) {
                let subject = wanted.replace('>', "x").replace('*', "o");
                let found = own
                    .iter()
                    .filter(|filter| matches(filter, &subject))
                    .count();
                assert_eq!(found, 1, "{subject}");
            }
        }
        assert!(
            !own.iter()
                .any(|filter| matches(filter, "swarm.cmd.08.o.s.cancel"))
        );
    }
}
