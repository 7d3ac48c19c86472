//! Every stream, bucket and consumer that Swarm keeps on nats-server, with the reason for each number.
//!
//! KV buckets and object stores are streams underneath and are defined as such, so that one comparison in
//! [`crate::provision`] covers all of them.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};

use crate::filter;

/// The one totally ordered stream: every event, command and control message.
pub const EVENTS_STREAM: &str = "swarm_events";
/// What [`EVENTS_STREAM`] stores.
pub const EVENTS_SUBJECTS: [&str; 3] = ["swarm.evt.>", "swarm.cmd.>", "swarm.ctl.>"];
/// Stored events are republished from here …
pub const REPUBLISH_SOURCE: &str = "swarm.evt.>";
/// … to here, with `Nats-Stream`, `Nats-Subject`, `Nats-Sequence`, `Nats-Time-Stamp` and `Nats-Last-Sequence` headers.
pub const REPUBLISH_DESTINATION: &str = "swarm.live.evt.>";

/// Heartbeats of agents: the last one each, in memory.
pub const HEARTBEATS_STREAM: &str = "swarm_heartbeats";
/// What [`HEARTBEATS_STREAM`] stores.
pub const HEARTBEATS_SUBJECT: &str = "swarm.hb.>";

/// KV bucket of the services' presence keys.
pub const PRESENCE_BUCKET: &str = "swarm_presence";
/// Object store of large payloads, inputs and results. Agents write to it too.
pub const OBJECTS_BUCKET: &str = "swarm_objects";
/// Object store of snapshots, which agents can neither read nor write: a forged one would be a forged state, and the rights
/// of the bus end at buckets (the names of objects are encoded in their subjects).
pub const SNAPSHOTS_BUCKET: &str = "swarm_snapshots";
/// Objects whose names begin with this are kept in [`SNAPSHOTS_BUCKET`].
pub const SNAPSHOT_PREFIX: &str = "snapshot.";

/// The oldest nats-server that will do: earlier ones have a wrong check inside atomic batches.
pub const SERVER_VERSION_MIN: (i64, i64, i64) = (2, 14, 4);

/// Long enough for a client's retries after a lost connection; each id costs memory for as long.
pub const DUPLICATE_WINDOW: Duration = Duration::from_secs(30);
/// Default upper bound of the events stream in bytes: about two million tasks at 4 KB. Operators set it below the disk's size.
pub const EVENTS_BYTES_MAX_DEFAULT: i64 = 8 * 1024 * 1024 * 1024;
/// nats-server's own `max_payload`; the stream's limit counts headers too.
pub const STORED_BYTES_MAX: i32 = 1024 * 1024;

/// A heartbeat that is a minute old says no more than none.
pub const HEARTBEAT_AGE_MAX: Duration = Duration::from_secs(60);
/// 64 MiB hold the last heartbeat of more than 50,000 agents at 1 KB.
pub const HEARTBEATS_BYTES_MAX: i64 = 64 * 1024 * 1024;
/// A presence key has some 200 bytes; a thousand processes use a fraction of this.
pub const PRESENCE_BYTES_MAX: i64 = 16 * 1024 * 1024;
/// The object store and KV clients expect the server's default window of two minutes.
const BUCKET_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);

/// A tail's consumer tells that it lives this often. A dead node shows after [`TAIL_SILENCE_MAX`].
pub const TAIL_HEARTBEAT: Duration = Duration::from_millis(500);
/// Three heartbeats: one or two go missing when a host is busy.
pub const TAIL_SILENCE_MAX: Duration = Duration::from_millis(1_500);
/// Messages per pull request: large, so that a fold is not slowed by round trips.
pub const TAIL_BATCH: usize = 1_000;
/// Bytes per pull request. Two are open at a time, and nats-server drops a connection with 64 MiB unread.
pub const TAIL_BATCH_BYTES: usize = 16 * 1024 * 1024;
/// How long a pull request waits on the server before it is renewed.
pub const TAIL_PULL_EXPIRES: Duration = Duration::from_secs(30);
/// The server forgets a tail's consumer after this long without a pull. A reader may pause for a while (then the consumer is
/// rebuilt), and a crashed one should not weigh on every publish for long.
pub const TAIL_CONSUMER_INACTIVE: Duration = Duration::from_secs(60);

/// What an installation chooses.
#[derive(Clone, Debug)]
pub struct Provision {
    /// Copies of every stream and bucket: 1 on a single node, 3 on a cluster.
    pub replicas: usize,
    /// Upper bound of [`EVENTS_STREAM`] in bytes, -1 for none. Below the disk's size: a full disk wedges a single node.
    pub max_bytes: i64,
    /// Upper bound of [`OBJECTS_BUCKET`], and of [`SNAPSHOTS_BUCKET`], in bytes, -1 for none.
    pub objects_max_bytes: i64,
}

impl Default for Provision {
    fn default() -> Self {
        Self {
            replicas: 1,
            max_bytes: EVENTS_BYTES_MAX_DEFAULT,
            objects_max_bytes: -1,
        }
    }
}

/// Every stream of an installation, buckets included.
pub fn streams(provision: &Provision) -> Vec<Config> {
    vec![
        events(provision),
        heartbeats(provision),
        presence(provision),
        objects(OBJECTS_BUCKET, "Swarm: large inputs and results", provision),
        objects(SNAPSHOTS_BUCKET, "Swarm: snapshots", provision),
    ]
}

/// Fields that all definitions share, with every limit explicit (the server writes 0 as -1).
fn base(name: &str, description: &str, provision: &Provision) -> Config {
    Config {
        name: name.to_owned(),
        description: Some(description.to_owned()),
        retention: RetentionPolicy::Limits,
        max_bytes: -1,
        max_messages: -1,
        max_messages_per_subject: -1,
        max_message_size: -1,
        max_consumers: -1,
        num_replicas: provision.replicas,
        allow_direct: true,
        ..Config::default()
    }
}

/// The log. No compression: every check reads the last message of its subject, and unpacking an 8 MB block for each is slow.
/// No rollup, TTL, delete or purge: what is stored is stored for ever.
pub fn events(provision: &Provision) -> Config {
    Config {
        subjects: EVENTS_SUBJECTS.map(str::to_owned).to_vec(),
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: provision.max_bytes,
        max_message_size: STORED_BYTES_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        allow_atomic_publish: true,
        deny_delete: true,
        deny_purge: true,
        republish: Some(Republish {
            source: REPUBLISH_SOURCE.to_owned(),
            destination: REPUBLISH_DESTINATION.to_owned(),
            headers_only: false,
        }),
        ..base(EVENTS_STREAM, "Swarm: the log", provision)
    }
}

/// Last heartbeat of each agent.
pub fn heartbeats(provision: &Provision) -> Config {
    Config {
        subjects: vec![HEARTBEATS_SUBJECT.to_owned()],
        storage: StorageType::Memory,
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        max_bytes: HEARTBEATS_BYTES_MAX,
        max_message_size: STORED_BYTES_MAX,
        max_age: HEARTBEAT_AGE_MAX,
        duplicate_window: DUPLICATE_WINDOW,
        ..base(HEARTBEATS_STREAM, "Swarm: last heartbeats", provision)
    }
}

/// The presence bucket: counters that stand still tell more than keys that expire, hence no TTL.
pub fn presence(provision: &Provision) -> Config {
    Config {
        subjects: vec![format!("$KV.{PRESENCE_BUCKET}.>")],
        storage: StorageType::Memory,
        // The removed keys of processes that ended are the oldest: they make room, and a renewal never fails for them.
        discard: DiscardPolicy::Old,
        max_messages_per_subject: 1,
        max_bytes: PRESENCE_BYTES_MAX,
        duplicate_window: BUCKET_DUPLICATE_WINDOW,
        allow_rollup: true,
        deny_delete: true,
        ..base(
            &format!("KV_{PRESENCE_BUCKET}"),
            "Swarm: presence of services",
            provision,
        )
    }
}

/// The bucket in which the object `name` is kept.
pub fn bucket_of(name: &str) -> &'static str {
    if name.starts_with(SNAPSHOT_PREFIX) {
        SNAPSHOTS_BUCKET
    } else {
        OBJECTS_BUCKET
    }
}

/// An object store: what is in it can be thrown away or outlives its use, so purge and delete are allowed here.
pub fn objects(bucket: &str, description: &str, provision: &Provision) -> Config {
    Config {
        subjects: vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_bytes: provision.objects_max_bytes,
        duplicate_window: BUCKET_DUPLICATE_WINDOW,
        allow_rollup: true,
        // Whatever the replicas: on a cluster a direct get may be answered by a follower that lags behind.
        allow_direct: false,
        ..base(&format!("OBJ_{bucket}"), description, provision)
    }
}

/// The consumer behind a tail: short-lived, in memory, one replica even on a cluster (it is rebuilt, not replicated).
/// `filters` must be disjoint: the server refuses overlapping ones.
///
/// Filters that cover the stream are left out: with several of them the server searches the subjects of a block anew for each
/// message. With two such readers and 100 agents that was half of its processor time.
pub fn tail_consumer(filters: &[String], from: u64) -> pull::Config {
    pull::Config {
        description: Some("Swarm: tail".to_owned()),
        deliver_policy: DeliverPolicy::ByStartSequence {
            start_sequence: from.max(1),
        },
        ack_policy: AckPolicy::None,
        replay_policy: ReplayPolicy::Instant,
        filter_subjects: if covers_everything(filters) {
            Vec::new()
        } else {
            filters.to_vec()
        },
        inactive_threshold: TAIL_CONSUMER_INACTIVE,
        num_replicas: 1,
        memory_storage: true,
        ..pull::Config::default()
    }
}

/// A tail that begins with the last message of each subject that matches, in sequence order, and goes on with all that is
/// stored after it was made.
pub fn last_first_consumer(filters: &[String]) -> pull::Config {
    pull::Config {
        deliver_policy: DeliverPolicy::LastPerSubject,
        // The server looks for last messages by filter only.
        filter_subjects: filters.to_vec(),
        ..tail_consumer(filters, 1)
    }
}

/// Whether `filters` leave nothing of [`EVENTS_STREAM`] out.
fn covers_everything(filters: &[String]) -> bool {
    EVENTS_SUBJECTS
        .iter()
        .all(|subject| filters.iter().any(|filter| filter == subject))
}

/// Whether `subject` is a literal that [`EVENTS_STREAM`] stores.
pub fn stores(subject: &str) -> bool {
    filter::is_literal(subject)
        && EVENTS_SUBJECTS
            .iter()
            .any(|filter| filter::matches(filter, subject))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tail_of_everything_has_no_filter() {
        let all = EVENTS_SUBJECTS.map(str::to_owned).to_vec();
        assert!(tail_consumer(&all, 1).filter_subjects.is_empty());
        assert_eq!(tail_consumer(&all[1..], 1).filter_subjects, all[1..]);
    }

    #[test]
    fn the_log_stores_its_three_families_and_no_wildcards() {
        assert!(stores("swarm.evt.00.o.s.task.submitted"));
        assert!(stores("swarm.ctl.distributor.07.claimed"));
        for other in [
            "swarm.evt",
            "swarm.live.evt.a",
            "swarm.evt.*",
            "swarm.evt.>",
            "swarm.evt..a",
            "swarm.evt.a b",
            "",
        ] {
            assert!(!stores(other), "{other}");
        }
    }
}
