//! Every stream, bucket and consumer that Swarm keeps on nats-server, with the reason for each number.
//!
//! KV buckets and object stores are streams underneath and are defined as such, so that one comparison in
//! [`crate::provision`] covers all of them.

use std::time::Duration;

use async_nats::jetstream::{
    consumer::{AckPolicy, DeliverPolicy, ReplayPolicy, pull},
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};

use swarm_events::Problem;

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

/// What agents and people say to each other. Apart from the log, since no state follows from it: a swarm that talks much
/// would otherwise fill what is kept for ever.
pub const MESSAGES_STREAM: &str = "swarm_messages";
/// What [`MESSAGES_STREAM`] stores, and republishes …
pub const MESSAGES_SUBJECT: &str = "swarm.msg.>";
/// … to here, as the log does: agents subscribe to what may be for them, and have no consumer each.
pub const MESSAGES_LIVE: &str = "swarm.live.msg.>";

/// KV bucket of the swarms' blackboards. Its keys are `<organization>.<swarm>.<key>`; see [`check_blackboard_key`].
pub const BLACKBOARD_BUCKET: &str = "swarm_blackboard";
/// Keys of a blackboard that begin with this are the system's own: nobody else's are taken, and lists leave them out.
pub const BLACKBOARD_OWN: char = '_';
/// First token of the keys `_cursor.<agent>`, which say up to where an agent has handled its messages.
pub const BLACKBOARD_CURSORS: &str = "_cursor";

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
/// A message that nobody handled for a day is of no use to who would read it then; who was away for longer goes on from here.
pub const MESSAGE_AGE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Most bytes of all messages, unless the log is small (then an eighth of it): a million of 1 KB. The oldest make room.
pub const MESSAGES_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// A body of 64 KiB ([`swarm_events::message::MESSAGE_BYTES_MAX`]), and more room for its envelope and headers than they take.
pub const MESSAGE_STORED_BYTES_MAX: i32 = 80 * 1024;
/// A message is sent again for as long as its sender waits for the stream, longer than one for the log: the ids expire
/// within the two minutes that are nats-server's own default, so that they weigh little.
pub const MESSAGE_DUPLICATE_WINDOW: Duration = Duration::from_secs(120);
/// Largest value on a blackboard, in bytes: as a message's body. Large things go to the object store.
pub const BLACKBOARD_BYTES_MAX: usize = 64 * 1024;
/// Longest key of a blackboard, in bytes: nats-server keeps each distinct subject in memory.
pub const BLACKBOARD_KEY_BYTES_MAX: usize = 200;
/// Most bytes of all blackboards, unless the log is small (then an eighth of it). What is more is refused: what
/// somebody wrote there does not vanish.
pub const BLACKBOARDS_BYTES_MAX: i64 = 1024 * 1024 * 1024;
/// How long the mark of a deletion stays, for who watches and was away. Without an end, marks of keys that are never used
/// again would add up.
pub const BLACKBOARD_DELETED_FOR: Duration = Duration::from_secs(3_600);
/// Headers of a key: its operation, revision, rollup and time to live.
const BUCKET_HEADERS_BYTES_MAX: i32 = 4 * 1024;
/// What stands beside the log takes at most this part of the log's own room …
const SIDE_PART: i64 = 8;
/// … and at least this much, however small the log is: a few thousand messages.
const SIDE_BYTES_MIN: i64 = 16 * 1024 * 1024;
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

impl Provision {
    /// Room for the messages, and for the blackboards: `most`, or an eighth of the log's if that is less. nats-server reserves
    /// what a stream may grow to, and the disk of a small installation is small.
    fn side_bytes(&self, most: i64) -> i64 {
        if self.max_bytes <= 0 {
            return most;
        }
        (self.max_bytes / SIDE_PART).clamp(SIDE_BYTES_MIN, most)
    }
}

/// Every stream of an installation, buckets included.
pub fn streams(provision: &Provision) -> Vec<Config> {
    vec![
        events(provision),
        heartbeats(provision),
        messages(provision),
        blackboard(provision),
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

/// What agents and people say to each other.
pub fn messages(provision: &Provision) -> Config {
    Config {
        subjects: vec![MESSAGES_SUBJECT.to_owned()],
        storage: StorageType::File,
        discard: DiscardPolicy::Old,
        max_bytes: provision.side_bytes(MESSAGES_BYTES_MAX),
        max_age: MESSAGE_AGE_MAX,
        max_message_size: MESSAGE_STORED_BYTES_MAX,
        duplicate_window: MESSAGE_DUPLICATE_WINDOW,
        republish: Some(Republish {
            source: MESSAGES_SUBJECT.to_owned(),
            destination: MESSAGES_LIVE.to_owned(),
            headers_only: false,
        }),
        ..base(
            MESSAGES_STREAM,
            "Swarm: what agents and people say",
            provision,
        )
    }
}

/// The blackboards. One value for each key: who wants to know what was before keeps it under another key.
pub fn blackboard(provision: &Provision) -> Config {
    let value = i32::try_from(BLACKBOARD_BYTES_MAX).unwrap_or(i32::MAX);
    Config {
        subjects: vec![format!("$KV.{BLACKBOARD_BUCKET}.>")],
        storage: StorageType::File,
        discard: DiscardPolicy::New,
        max_messages_per_subject: 1,
        max_bytes: provision.side_bytes(BLACKBOARDS_BYTES_MAX),
        max_message_size: value.saturating_add(BUCKET_HEADERS_BYTES_MAX),
        duplicate_window: BUCKET_DUPLICATE_WINDOW,
        allow_rollup: true,
        allow_message_ttl: true,
        deny_delete: true,
        ..base(
            &format!("KV_{BLACKBOARD_BUCKET}"),
            "Swarm: blackboards",
            provision,
        )
    }
}

/// Whether `key` may be one of a blackboard: 1 to [`BLACKBOARD_KEY_BYTES_MAX`] bytes, letters, digits and `-/_=`, in tokens
/// between dots; not one of the system's own.
///
/// # Errors
/// Names the field and the rule.
pub fn check_blackboard_key(key: &str) -> Result<(), Problem> {
    let problem = |code: &str, message: String| Err(Problem::new(code, message).field("key"));
    if key.is_empty() {
        return problem("empty", "a key has at least one character".to_owned());
    }
    if key.len() > BLACKBOARD_KEY_BYTES_MAX {
        let text = format!(
            "the key has {} bytes, at most {BLACKBOARD_KEY_BYTES_MAX} are taken",
            key.len()
        );
        return problem("too-long", text);
    }
    let taken = |c: char| c.is_ascii_alphanumeric() || "-/_=".contains(c);
    if let Some(other) = key.chars().find(|c| !taken(*c) && *c != '.') {
        let text = format!("{other:?} is in it: letters, digits, and -/_=. are taken");
        return problem("bad-character", text);
    }
    if key.split('.').any(str::is_empty) {
        let text = "a dot stands at its end, or beside another one".to_owned();
        return problem("empty-token", text);
    }
    if key.starts_with(BLACKBOARD_OWN) {
        let text = format!("keys that begin with {BLACKBOARD_OWN} are the system's own");
        return problem("reserved", text);
    }
    Ok(())
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
    fn what_stands_beside_the_log_is_small_where_the_log_is() {
        let side = |max_bytes| {
            let provision = Provision {
                max_bytes,
                ..Provision::default()
            };
            let of = [messages(&provision), blackboard(&provision)];
            of.map(|config| config.max_bytes)
        };
        let (gib, mib) = (1 << 30, 1 << 20);
        assert_eq!(side(EVENTS_BYTES_MAX_DEFAULT), [gib; 2]);
        assert_eq!(side(-1), [gib; 2]);
        assert_eq!(side(100 * gib), [gib; 2]);
        assert_eq!(side(gib), [128 * mib; 2]);
        assert_eq!(side(mib), [16 * mib; 2]);
    }

    #[test]
    fn keys_of_a_blackboard_are_of_letters_in_tokens() {
        let longest = "k".repeat(BLACKBOARD_KEY_BYTES_MAX);
        for key in ["a", "plan.step-1/x_y=z", "A.B", longest.as_str()] {
            assert_eq!(check_blackboard_key(key), Ok(()), "{key}");
        }
        let code = |key: &str| check_blackboard_key(key).err().map(|problem| problem.code);
        for (key, wanted) in [
            ("", "empty"),
            ("a b", "bad-character"),
            ("a.*", "bad-character"),
            (">", "bad-character"),
            ("straße", "bad-character"),
            (".a", "empty-token"),
            ("a..b", "empty-token"),
            ("a.", "empty-token"),
            ("_cursor.x", "reserved"),
            (&format!("{longest}k"), "too-long"),
        ] {
            assert_eq!(code(key).as_deref(), Some(wanted), "{key}");
        }
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
