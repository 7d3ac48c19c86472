//! Folds partitions to the log's end beside the loop: each from its newest snapshot, else from the log's first event.

use futures::{StreamExt, TryStreamExt};
use swarm_events::{
    Input, Partition, Subject, Timestamp,
    decider::Decider,
    read,
    read::partition_of_subject,
    subject::{Service, filter},
};
use swarm_log::{Log, LogError, StoredMessage, Tailed, filter::matches};

use super::replica::Joined;
use crate::snapshots::{self, SnapshotError, Store, Wanted};

/// Partitions that lie further back than this behind the others are read by themselves: what they have is little, and the
/// server finds it without sending the rest.
const LAGGARD_AFTER: u64 = 2 * snapshots::EVERY;

/// Snapshots that are loaded at a time: each is a few round trips, most of them a few kilobytes.
const LOADS_MAX: usize = 8;

/// What a join came to.
#[derive(Debug)]
pub struct Folded<D> {
    /// The partitions, each with all of the log up to `upto`, and perhaps more.
    pub joined: Vec<Joined<D>>,
    /// Partitions that hold what this version cannot fold, with what and where.
    pub unfoldable: Vec<(Partition, String)>,
    /// A sequence up to which everything is folded.
    pub upto: u64,
    /// The stream's creation time in microseconds since the Unix epoch.
    pub created_micros: i64,
}

/// Folds `partitions` to the log's end.
///
/// # Errors
/// The log or its snapshots cannot be read, or the log went back behind them.
pub async fn fold_to_end<D: Decider, L: Log>(
    log: &L,
    partitions: &[Partition],
) -> Result<Folded<D>, SnapshotError> {
    let store = Store::new(log.clone());
    let catalogue = store.catalogue(D::SERVICE.as_str()).await?;
    let info = catalogue.info().clone();
    let load = |partition: Partition| {
        let (store, catalogue, info) = (&store, &catalogue, &info);
        async move {
            let wanted = Wanted::of::<D>(partition, info.created_micros);
            let loaded = store.newest_in::<D>(catalogue, &wanted, None).await?;
            Ok::<_, SnapshotError>(match loaded {
                Some(loaded) => Core {
                    partition,
                    from: loaded.meta.sequence,
                    snapshot: (loaded.meta.sequence, loaded.bytes as u64),
                    state: Some(loaded.state),
                },
                None => Core {
                    partition,
                    from: info.first_sequence.saturating_sub(1),
                    snapshot: (0, 0),
                    state: Some(D::new(partition)),
                },
            })
        }
    };
    let cores: Vec<Core<D>> = futures::stream::iter(partitions.iter().copied().map(load))
        .buffered(LOADS_MAX)
        .try_collect()
        .await?;
    let newest = cores.iter().map(|core| core.from).max().unwrap_or(0);
    let (mut near, mut far): (Vec<_>, Vec<_>) = cores
        .into_iter()
        .partition(|core| core.from.saturating_add(LAGGARD_AFTER) >= newest);
    let mut unfoldable = Vec::new();
    // Those read by themselves first: what is stored meanwhile is behind the place that the others are read from, or is met
    // again by the loop.
    let filters = filters_for(D::SERVICE, far.iter().map(|core| core.partition));
    let mut upto = follow(log, &mut far, filters, &mut unfoldable).await?;
    if !near.is_empty() {
        let end = follow(log, &mut near, filters_of(D::SERVICE), &mut unfoldable).await?;
        upto = if far.is_empty() { end } else { upto.min(end) };
    }
    let joined = near
        .into_iter()
        .chain(far)
        .filter_map(|core| {
            Some(Joined {
                state: core.state?,
                snapshot: core.snapshot,
            })
        })
        .collect();
    Ok(Folded {
        joined,
        unfoldable,
        upto,
        created_micros: info.created_micros,
    })
}

struct Core<D> {
    partition: Partition,
    from: u64,
    snapshot: (u64, u64),
    /// None once it has met what it cannot fold.
    state: Option<D>,
}

/// Folds the cores to the log's end, and says up to where that is at least.
async fn follow<D: Decider, L: Log>(
    log: &L,
    cores: &mut [Core<D>],
    filters: Vec<String>,
    unfoldable: &mut Vec<(Partition, String)>,
) -> Result<u64, LogError> {
    let Some(from) = cores.iter().map(|core| core.from).min() else {
        return Ok(0);
    };
    let mut upto = log.info().await?.last_sequence.max(from);
    let inputs = filter::inputs(D::SERVICE, None);
    let mut tail = log.tail(filters, from + 1);
    while let Some(item) = tail.next().await {
        match item? {
            Tailed::Message(message) => {
                upto = upto.max(message.sequence);
                if inputs.iter().any(|f| matches(f, &message.subject)) {
                    meet(cores, &message, unfoldable);
                }
            }
            Tailed::CaughtUp => return Ok(upto),
            Tailed::Interrupted | Tailed::Resumed => {}
        }
    }
    Err(LogError::Refused("the tail ended".to_owned()))
}

fn meet<D: Decider>(
    cores: &mut [Core<D>],
    message: &StoredMessage,
    unfoldable: &mut Vec<(Partition, String)>,
) {
    let of_all = may_concern_all(D::SERVICE, &message.subject);
    let home = partition_of_subject(&message.subject);
    let behind = |core: &Core<D>| core.from < message.sequence;
    if !of_all && !cores.iter().any(|c| Some(c.partition) == home && behind(c)) {
        return;
    }
    let time = Timestamp::from_micros(message.time_micros);
    let input = read(message.sequence, time, &message.subject, &message.payload);
    let of_all = of_all && concerns_all(&input);
    for core in cores {
        if core.from >= message.sequence || !of_all && Some(core.partition) != home {
            continue;
        }
        if let Some(detail) = newer(&input) {
            if core.state.take().is_some() {
                unfoldable.push((core.partition, detail));
            }
        } else if let Some(state) = &mut core.state {
            state.evolve(&input, None);
        }
    }
}

/// Whether a message may concern every partition of `service`: what is said of organizations does, and the coordinator alone
/// reads it.
pub(super) fn may_concern_all(service: Service, subject: &str) -> bool {
    service == Service::Coordinator
        && subject.starts_with("swarm.evt.")
        && matches!(Subject::parse(subject), Ok(Subject::Org(..)))
}

/// Of what may concern every partition, whether it does: a message that cannot be read concerns its own.
pub(super) fn concerns_all(input: &Input) -> bool {
    match input {
        Input::Event(recorded) => matches!(recorded.subject, Subject::Org(..)),
        Input::Unreadable(unreadable) => unreadable.newer,
    }
}

/// What a newer version wrote, if it did.
pub(super) fn newer(input: &Input) -> Option<String> {
    match input {
        Input::Unreadable(unreadable) if unreadable.newer => Some(format!(
            "{} at sequence {} was written by a newer version ({}): upgrade this service",
            unreadable.subject_text, unreadable.sequence, unreadable.problem
        )),
        _ => None,
    }
}

/// Whether nearly everything in the log is an input of `service`: then it reads all of it and picks here, since a consumer
/// with several filters costs nats-server more for each message than everything else together.
pub(super) const fn reads_most(service: Service) -> bool {
    matches!(service, Service::Distributor)
}

/// What a service reads, whatever its partitions: those that it does not fold are passed over unread.
pub(super) fn filters_of(service: Service) -> Vec<String> {
    if reads_most(service) {
        filter::all()
    } else {
        filter::inputs(service, None)
    }
}

/// What a service reads of some partitions, in as few filters as possible.
fn filters_for(service: Service, partitions: impl Iterator<Item = Partition>) -> Vec<String> {
    let mut filters: Vec<String> = partitions
        .flat_map(|partition| match service {
            // The organizations' filter would overlap with a wider one.
            Service::Coordinator => filter::inputs(service, Some(partition)),
            _ => vec![
                format!("swarm.evt.{partition}.>"),
                format!("swarm.cmd.{partition}.>"),
                format!("swarm.ctl.*.{partition}.>"),
            ],
        })
        .collect();
    filters.sort_unstable();
    filters.dedup();
    filters
}
