//! Who is there: the live replicas of a service, judged by their presence keys, and the order in which they stand for each
//! partition. Without clock or IO.
//!
//! Presence is for efficiency alone. If two replicas judge differently, both may want a partition, and the fence lets one of
//! them write.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use swarm_events::{Partition, Timestamp, ids::InstanceId, subject::PARTITIONS};

/// A replica renews its presence key this often.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// A replica whose counter stood still for this long is dead: three renewals may go missing on a busy machine.
pub const DEAD_AFTER: Duration = Duration::from_secs(2);
/// A replica whose connection closed, by nats-server's notice, has this long to come back.
pub const DEAD_AFTER_NOTICE: Duration = Duration::from_millis(500);
/// Between two of one's own acknowledged renewals at most this much time counts. What is longer was an outage of the server
/// or a pause of one's own, and says nothing of the others.
const COUNTED_MAX: Duration = Duration::from_millis(750);
/// A key whose member has been dead for this long is removed.
const FORGET_AFTER: Duration = Duration::from_secs(60);
/// So many replicas fold a partition: its owner, and the next in order as a hot standby.
pub const FOLDERS: usize = 2;

/// What a replica does for a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// It decides.
    Owner,
    /// It folds, to take over at any time.
    Standby,
}

/// A partition that a replica has folded to the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// What it does for it.
    pub role: Role,
    /// Sequence of the last claim that it has met, its own or another's; 0 if none.
    pub epoch: u64,
    /// Since when it has this role, by the log's time.
    pub since: Timestamp,
}

/// What a replica says of itself in its presence key `<service>.<instance>`, as JSON.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// The service's name.
    pub service: String,
    /// The process.
    pub instance: InstanceId,
    /// A name that outlives the process: the next process of this name takes this one's place at once.
    pub name: Option<String>,
    /// When it started, by its own clock.
    pub started_at: Timestamp,
    /// Raised with every renewal.
    pub counter: u64,
    /// It hands over and ends.
    pub leaving: bool,
    /// Last stream sequence met.
    pub sequence: u64,
    /// Highest store time met.
    pub log_time: Timestamp,
    /// What it has folded to the end.
    pub partitions: BTreeMap<Partition, Held>,
    /// Partitions that it cannot decide for.
    pub stuck: Vec<Partition>,
    /// Since when it does not hear the log, if so.
    pub cut_off_since: Option<Timestamp>,
}

/// What changed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// A member counts as dead from now on.
    Died {
        /// Which.
        instance: InstanceId,
        /// Its last sign of life, by the server's clock.
        since: Timestamp,
        /// Whether another of its name has taken its place.
        replaced: bool,
    },
    /// A member that counted as dead gave a sign of life.
    Returned {
        /// Which.
        instance: InstanceId,
        /// Its last sign of life before, by the server's clock.
        since: Timestamp,
        /// Its sign of life now.
        until: Timestamp,
    },
}

#[derive(Debug)]
struct Member {
    said: Announcement,
    /// When its counter rose last: counted time, and the server's clock.
    rose: Duration,
    written: Timestamp,
    /// Counted time of the server's notice that its connection closed.
    noticed: Option<Duration>,
    /// Counted time at which it was found dead.
    dead: Option<Duration>,
}

/// The replicas of a service as one of them sees them.
#[derive(Debug)]
pub struct Members {
    me: InstanceId,
    name: Option<String>,
    started_at: Timestamp,
    leaving: bool,
    stuck: Vec<Partition>,
    others: BTreeMap<InstanceId, Member>,
    /// Time that counted so far, and the own renewal that was acknowledged last.
    counted: Duration,
    renewed: Option<Duration>,
    own_written: Option<Timestamp>,
    order: Vec<Vec<InstanceId>>,
}

impl Members {
    /// Alone. `name` and `started_at` are this replica's own.
    pub fn new(me: InstanceId, name: Option<String>, started_at: Timestamp) -> Self {
        let mut members = Self {
            me,
            name,
            started_at,
            leaving: false,
            stuck: Vec::new(),
            others: BTreeMap::new(),
            counted: Duration::ZERO,
            renewed: None,
            own_written: None,
            order: Vec::new(),
        };
        members.rank();
        members
    }

    /// An own renewal was acknowledged.
    pub fn renewed(&mut self, now: Duration) {
        if let Some(before) = self.renewed {
            self.counted += now.saturating_sub(before).min(COUNTED_MAX);
        }
        self.renewed = Some(now);
    }

    /// Monotonic time in which the own renewals were acknowledged.
    fn counted(&self, now: Duration) -> Duration {
        let since = self
            .renewed
            .map_or(Duration::ZERO, |at| now.saturating_sub(at).min(COUNTED_MAX));
        self.counted + since
    }

    /// A presence key was read, which the server stored at `written`.
    pub fn heard(&mut self, said: Announcement, written: Timestamp, now: Duration) -> Option<News> {
        if said.instance == self.me {
            self.own_written = Some(written);
            return None;
        }
        let counted = self.counted(now);
        let instance = said.instance;
        let replaced = self.is_replaced(&said);
        let mut news = None;
        match self.others.get_mut(&instance) {
            None => {
                let member = Member {
                    said,
                    rose: counted,
                    written,
                    noticed: None,
                    dead: None,
                };
                self.others.insert(instance, member);
            }
            Some(member) => {
                if said.counter <= member.said.counter {
                    return None;
                }
                if !replaced && member.dead.take().is_some() {
                    news = Some(News::Returned {
                        instance,
                        since: member.written,
                        until: written,
                    });
                }
                member.said = said;
                member.rose = counted;
                member.written = written;
                member.noticed = None;
            }
        }
        self.rank();
        news
    }

    /// Every key that is there has been read. A key that is older than one's own by more than the limit, by the server's
    /// clock, is that of a dead member.
    pub fn complete(&mut self, now: Duration) {
        let Some(own) = self.own_written else { return };
        let counted = self.counted(now);
        let limit = u64::try_from(DEAD_AFTER.as_millis()).unwrap_or(u64::MAX);
        for member in self.others.values_mut() {
            if own.millis_since(member.written) > limit {
                member.dead.get_or_insert(counted);
            }
        }
        self.rank();
    }

    /// A presence key is gone.
    pub fn removed(&mut self, instance: InstanceId) {
        if self.others.remove(&instance).is_some() {
            self.rank();
        }
    }

    /// nats-server says that this member's connection closed.
    pub fn noticed(&mut self, instance: InstanceId, now: Duration) {
        let counted = self.counted(now);
        if let Some(member) = self.others.get_mut(&instance) {
            member.noticed = Some(counted);
        }
    }

    /// Judges who is dead.
    pub fn check(&mut self, now: Duration) -> Vec<News> {
        let counted = self.counted(now);
        let replaced: Vec<InstanceId> = self
            .others
            .values()
            .filter(|member| self.is_replaced(&member.said))
            .map(|member| member.said.instance)
            .collect();
        let mut news = Vec::new();
        for (&instance, member) in &mut self.others {
            if member.dead.is_some() {
                continue;
            }
            let replaced = replaced.contains(&instance);
            if replaced || member.dies_at() <= counted {
                member.dead = Some(counted);
                news.push(News::Died {
                    instance,
                    since: member.written,
                    replaced,
                });
            }
        }
        if !news.is_empty() {
            self.rank();
        }
        news
    }

    /// Monotonic time at which [`Members::check`] may find somebody dead, should nothing be heard.
    pub fn next_check(&self, now: Duration) -> Option<Duration> {
        let counted = self.counted(now);
        self.others
            .values()
            .filter(|member| member.dead.is_none())
            .map(|member| now + member.dies_at().saturating_sub(counted))
            .min()
    }

    /// Whether another process of its name has started after it. One that is dead replaces nobody: it may have started under
    /// a clock that was ahead.
    fn is_replaced(&self, said: &Announcement) -> bool {
        let before = (said.started_at, said.instance);
        said.name.is_some()
            && (self.name == said.name && (self.started_at, self.me) > before
                || self.others.values().any(|other| {
                    other.dead.is_none()
                        && other.said.name == said.name
                        && (other.said.started_at, other.said.instance) > before
                }))
    }

    /// A key of a member that has been dead for long, if it is this replica's turn to remove such.
    pub fn forgettable(&self, now: Duration) -> Option<InstanceId> {
        let counted = self.counted(now);
        self.is_first().then(|| {
            self.others
                .iter()
                .find(|(_, member)| member.dead.is_some_and(|at| counted >= at + FORGET_AFTER))
                .map(|(instance, _)| *instance)
        })?
    }

    /// From here on it is nobody's owner.
    pub fn leave(&mut self) {
        self.leaving = true;
        self.rank();
    }

    /// Partitions that this replica cannot decide for.
    pub fn set_stuck(&mut self, stuck: Vec<Partition>) {
        if self.stuck != stuck {
            self.stuck = stuck;
            self.rank();
        }
    }

    /// Whether this replica speaks for all where one is enough.
    pub fn is_first(&self) -> bool {
        !self.leaving
            && self
                .others
                .iter()
                .all(|(id, member)| !member.is_live() || *id > self.me)
    }

    /// Whether nobody else is there.
    pub fn is_alone(&self) -> bool {
        !self.others.values().any(Member::is_live)
    }

    /// The live members that can decide for `partition`, in rendezvous order (highest random weight first).
    pub fn order(&self, partition: Partition) -> &[InstanceId] {
        &self.order[usize::from(partition.number())]
    }

    /// Whether another live member has folded `partition` to the end.
    pub fn has_folded(&self, instance: InstanceId, partition: Partition) -> bool {
        self.others.get(&instance).is_some_and(|member| {
            member.is_live() && member.said.partitions.contains_key(&partition)
        })
    }

    fn rank(&mut self) {
        let me = (!self.leaving).then_some((self.me, self.stuck.as_slice()));
        let others = self
            .others
            .iter()
            .filter(|(_, member)| member.is_live())
            .map(|(id, member)| (*id, member.said.stuck.as_slice()));
        let live: Vec<_> = me.into_iter().chain(others).collect();
        self.order = Partition::all()
            .map(|partition| {
                let mut order: Vec<_> = live
                    .iter()
                    .map(|(id, stuck)| (stuck.contains(&partition), weight(*id, partition), *id))
                    .collect();
                // If it sticks everywhere, somebody must go on trying.
                if order.iter().any(|(stuck, ..)| !stuck) {
                    order.retain(|(stuck, ..)| !stuck);
                }
                order.sort_unstable_by(|a, b| b.cmp(a));
                order.into_iter().map(|(_, _, id)| id).collect()
            })
            .collect();
        debug_assert_eq!(self.order.len(), usize::from(PARTITIONS));
    }
}

impl Member {
    fn is_live(&self) -> bool {
        self.dead.is_none() && !self.said.leaving
    }
    /// Counted time at which it is dead unless its counter rises.
    fn dies_at(&self) -> Duration {
        let silent = self.rose + DEAD_AFTER;
        match self.noticed {
            Some(noticed) => silent.min(noticed + DEAD_AFTER_NOTICE),
            None => silent,
        }
    }
}

/// Highest random weight (rendezvous hashing, Thaler and Ravishankar 1998): the first eight bytes of SHA-256 over instance
/// and partition.
fn weight(instance: InstanceId, partition: Partition) -> u64 {
    let mut hash = Sha256::new();
    hash.update(instance.0.as_bytes());
    hash.update([partition.number()]);
    let digest = hash.finalize();
    digest[..8]
        .iter()
        .fold(0, |weight, byte| weight << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests;
