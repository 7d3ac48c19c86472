//! Who is there, by the presence keys: two looks at each key tell who lives and who is cut off.

use std::{collections::BTreeMap, time::Duration};

use futures::StreamExt;
use serde_json::{Value, json};
use swarm_events::{Partition, Timestamp};
use swarm_log::{Log, PresenceNews};
use swarm_runtime::deciding::{Announcement, Role, members::DEAD_AFTER};
use tokio::time::{Instant, timeout_at};

/// How long a key may take to rise before its owner is shown as cut off: as long as the other replicas wait before they
/// take it for dead.
const RISE_PATIENCE: Duration = DEAD_AFTER;
/// How long the first look may take.
const FIRST_PATIENCE: Duration = Duration::from_secs(5);

/// One replica, as two looks showed it.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it said last.
    pub said: Announcement,
    /// When it said so, by the server's clock.
    pub written: Timestamp,
    /// The counter at the first look; `None`: it was not there yet.
    first: Option<u64>,
}

impl Seen {
    /// Whether it gave a sign of life between the looks.
    pub fn rose(&self) -> bool {
        self.first.is_none_or(|first| self.said.counter > first)
    }
}

/// All replicas of all deciding services, by presence key.
#[derive(Debug, Default)]
pub struct Presence {
    seen: BTreeMap<String, Seen>,
    complete: bool,
}

impl Presence {
    /// Looks until everybody has given a sign of life, or should have.
    pub async fn look(log: &impl Log) -> Self {
        let mut presence = Self::default();
        let mut news = log.watch_presence("");
        let mut deadline = Instant::now() + FIRST_PATIENCE;
        while let Ok(Some(next)) = timeout_at(deadline, news.next()).await {
            let was_complete = presence.complete;
            presence.meet(next);
            if presence.complete && !was_complete {
                deadline = Instant::now() + RISE_PATIENCE;
            }
            if presence.complete && presence.seen.values().all(Seen::rose) {
                break;
            }
        }
        presence
    }

    fn meet(&mut self, news: PresenceNews) {
        match news {
            PresenceNews::Put {
                key,
                value,
                written_micros,
            } => {
                // Keys of other processes are of other shapes.
                let Ok(said) = serde_json::from_slice::<Announcement>(&value) else {
                    return;
                };
                let first = match self.seen.get(&key) {
                    Some(seen) => seen.first,
                    None => (!self.complete).then_some(said.counter),
                };
                let written = Timestamp::from_micros(written_micros);
                self.seen.insert(
                    key,
                    Seen {
                        said,
                        written,
                        first,
                    },
                );
            }
            PresenceNews::Removed { key } => {
                self.seen.remove(&key);
            }
            PresenceNews::Complete => self.complete = true,
        }
    }

    /// The replicas of a service that have not been replaced by a newer process of the same name.
    pub fn of(&self, service: &str) -> Vec<&Seen> {
        let ours = || self.seen.values().filter(|one| one.said.service == service);
        let replaced = |one: &Seen| {
            one.said.name.is_some()
                && !one.rose()
                && ours().any(|other| {
                    other.said.name == one.said.name
                        && (other.said.started_at, other.said.instance)
                            > (one.said.started_at, one.said.instance)
                })
        };
        ours().filter(|one| !replaced(one)).collect()
    }

    /// Since when a replica is cut off: by its own word, or because its key stands still while others rise. `None`: it is
    /// not, or nobody rises, and then the keys say nothing about one.
    pub fn cut_off_since(&self, one: &Seen) -> Option<Timestamp> {
        if !one.rose() && self.seen.values().any(Seen::rose) {
            return Some(one.written);
        }
        one.said.cut_off_since
    }

    /// Who decides for which partition, at which epoch, and who stands by. Of two that say they decide the one with the
    /// later claim does; the other has not noticed yet, and the log refuses what it writes.
    pub fn partitions(&self, service: &str) -> Vec<Value> {
        let members = self.of(service);
        let holding = |partition: Partition, role: Role| {
            members.iter().filter_map(move |one| {
                let held = one.said.partitions.get(&partition)?;
                (held.role == role).then_some((*one, *held))
            })
        };
        let row = |partition: Partition| {
            let owner = holding(partition, Role::Owner).max_by_key(|(_, held)| held.epoch);
            let standby: Vec<Value> = holding(partition, Role::Standby)
                .map(|(one, held)| {
                    json!({"name": one.said.name, "instance": one.said.instance, "since": held.since})
                })
                .collect();
            let owner = owner.map(|(one, held)| {
                json!({
                    "name": one.said.name, "instance": one.said.instance, "epoch": held.epoch,
                    "since": held.since, "cut_off_since": self.cut_off_since(one),
                })
            });
            json!({"service": service, "partition": partition, "owner": owner, "standby": standby})
        };
        Partition::all().map(row).collect()
    }
}

/// How many partitions a replica has in a role.
pub fn count(said: &Announcement, role: Role) -> usize {
    said.partitions
        .values()
        .filter(|held| held.role == role)
        .count()
}

#[cfg(test)]
mod tests {
    use swarm_events::InstanceId;
    use swarm_runtime::deciding::Held;
    use uuid::Uuid;

    use super::*;

    fn said(id: u128, name: Option<&str>, counter: u64) -> Announcement {
        Announcement {
            service: "distributor".to_owned(),
            instance: InstanceId(Uuid::from_u128(id)),
            name: name.map(str::to_owned),
            started_at: Timestamp::from_micros(i64::try_from(id).expect("small")),
            counter,
            leaving: false,
            sequence: 7,
            log_time: Timestamp::from_micros(1),
            partitions: BTreeMap::new(),
            stuck: Vec::new(),
            cut_off_since: None,
        }
    }

    fn put(said: &Announcement, written_micros: i64) -> PresenceNews {
        PresenceNews::Put {
            key: format!("{}.{}", said.service, said.instance),
            value: serde_json::to_vec(said).expect("JSON").into(),
            written_micros,
        }
    }

    fn after(news: impl IntoIterator<Item = PresenceNews>) -> Presence {
        let mut presence = Presence::default();
        news.into_iter().for_each(|news| presence.meet(news));
        presence
    }

    #[test]
    fn given_a_key_that_stands_still_while_others_rise_then_it_is_cut_off_since_it_was_written() {
        let presence = after([
            put(&said(1, None, 5), 50),
            put(&said(2, None, 9), 70),
            PresenceNews::Complete,
            put(&said(2, None, 10), 80),
        ]);
        let since: Vec<_> = presence
            .of("distributor")
            .into_iter()
            .map(|one| presence.cut_off_since(one))
            .collect();
        assert_eq!(since, [Some(Timestamp::from_micros(50)), None]);
    }

    #[test]
    fn given_nobody_rises_then_nobody_is_called_cut_off() {
        let presence = after([
            put(&said(1, None, 5), 50),
            put(&said(2, None, 9), 70),
            PresenceNews::Complete,
            // Told again after an interruption: the same word, no sign of life.
            put(&said(2, None, 9), 70),
        ]);
        let members = presence.of("distributor");
        assert_eq!(members.len(), 2);
        assert!(
            members
                .iter()
                .all(|one| !one.rose() && presence.cut_off_since(one).is_none())
        );
    }

    #[test]
    fn given_a_replica_that_says_so_itself_then_its_word_counts() {
        let mut cut = said(1, None, 5);
        cut.cut_off_since = Some(Timestamp::from_micros(44));
        let mut next = cut.clone();
        next.counter = 6;
        let presence = after([put(&cut, 50), PresenceNews::Complete, put(&next, 60)]);
        let one = presence.of("distributor")[0];
        assert_eq!(presence.cut_off_since(one), cut.cut_off_since);
    }

    #[test]
    fn given_a_process_that_replaced_one_of_its_name_then_the_old_one_is_not_shown_unless_it_lives()
    {
        let news = [
            put(&said(1, Some("distributor"), 5), 50),
            put(&said(2, Some("distributor"), 1), 70),
            PresenceNews::Complete,
            put(&said(2, Some("distributor"), 2), 80),
        ];
        let presence = after(news.clone());
        assert_eq!(presence.of("distributor").len(), 1);
        let revived = after(
            news.into_iter()
                .chain([put(&said(1, Some("distributor"), 6), 90)]),
        );
        assert_eq!(revived.of("distributor").len(), 2);
        // Those of other services and those that have gone are none of these.
        assert!(presence.of("health").is_empty());
        let gone = PresenceNews::Removed {
            key: format!("distributor.{}", InstanceId(Uuid::from_u128(1))),
        };
        let left = after([put(&said(1, None, 5), 50), PresenceNews::Complete, gone]);
        assert!(left.of("distributor").is_empty());
    }

    #[test]
    fn given_two_that_say_they_decide_then_the_later_claim_counts() {
        let partition = Partition::all().next().expect("there are some");
        let held = |role, epoch| {
            BTreeMap::from([(
                partition,
                Held {
                    role,
                    epoch,
                    since: Timestamp::from_micros(3),
                },
            )])
        };
        let (mut a, mut b, mut c) = (said(1, None, 1), said(2, None, 1), said(3, None, 1));
        a.partitions = held(Role::Owner, 40);
        b.partitions = held(Role::Owner, 41);
        c.partitions = held(Role::Standby, 41);
        let presence = after([put(&a, 1), put(&b, 1), put(&c, 1), PresenceNews::Complete]);
        let rows = presence.partitions("distributor");
        assert_eq!(rows.len(), usize::from(swarm_events::subject::PARTITIONS));
        assert_eq!(rows[0]["owner"]["epoch"], 41);
        assert_eq!(rows[0]["owner"]["instance"], json!(b.instance));
        assert_eq!(rows[0]["standby"][0]["instance"], json!(c.instance));
        assert!(rows[1]["owner"].is_null() && rows[1]["partition"] == 1);
        assert_eq!((count(&a, Role::Owner), count(&a, Role::Standby)), (1, 0));
    }
}
