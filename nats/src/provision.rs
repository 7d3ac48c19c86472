//! Creates the streams and buckets of [`crate::definitions`], and refuses what differs.

use std::time::Duration;

use async_nats::jetstream::{
    Context, ErrorCode,
    context::{CreateStreamErrorKind, GetStreamErrorKind},
    stream::{Config, StorageType},
};
use serde_json::{Map, Value};
use tokio::time::{Instant, sleep};

use crate::{
    LogError,
    definitions::{self, Provision, SERVER_VERSION_MIN},
};

/// How long the servers of a cluster may take to find each other; an election takes 4 to 9 s.
const CLUSTER_WAIT: Duration = Duration::from_secs(30);
/// Pause between attempts while they do.
const CLUSTER_PAUSE: Duration = Duration::from_millis(250);

/// Creates what is missing, accepts what is identical, raises `max_bytes`, `max_msg_size` and `num_replicas`, and brings what
/// is kept in memory only up to date. Idempotent, and safe when several processes do it at once.
///
/// # Errors
/// [`LogError::Incompatible`] for an old server or a stream that differs otherwise (with both configurations),
/// [`LogError::Unreachable`] and [`LogError::Refused`] as the server answers.
pub async fn provision(context: &Context, provision: &Provision) -> Result<(), LogError> {
    check_server(&context.client())?;
    let deadline = Instant::now() + CLUSTER_WAIT;
    for wanted in definitions::streams(provision) {
        loop {
            match provision_stream(context, wanted.clone()).await {
                // The servers of a cluster that has just been started find each other one by one: until then it has too few
                // of them, or no leader that would answer.
                Err(LogError::Unreachable(cause))
                    if provision.replicas > 1 && Instant::now() + CLUSTER_PAUSE < deadline =>
                {
                    tracing::info!(cause, "waiting for the cluster");
                    sleep(CLUSTER_PAUSE).await;
                }
                outcome => break outcome?,
            }
        }
    }
    Ok(())
}

/// Creates the streams that are missing and leaves alone those that there are: an installation that an earlier version made
/// lacks what came later. Answers with the names of those that it made.
///
/// # Errors
/// [`LogError::Refused`] and [`LogError::Unreachable`] name the stream that could not be made: without the right to do so
/// nats-server does not answer.
pub async fn provision_missing(
    context: &Context,
    provision: &Provision,
) -> Result<Vec<String>, LogError> {
    let mut made = Vec::new();
    for wanted in definitions::streams(provision) {
        match context.get_stream(&wanted.name).await {
            Ok(_) => {}
            Err(error) if is_not_found(&error) => {
                let name = wanted.name.clone();
                create(context, wanted).await?;
                made.push(name);
            }
            Err(error) => {
                return Err(LogError::Unreachable(format!(
                    "stream {} cannot be read: {error}",
                    wanted.name
                )));
            }
        }
    }
    Ok(made)
}

/// Makes anew what is kept in memory only: a single server forgets the definitions of such streams when it is restarted.
///
/// # Errors
/// As [`provision`].
pub async fn provision_in_memory(context: &Context, replicas: usize) -> Result<(), LogError> {
    let provision = Provision {
        replicas,
        ..Provision::default()
    };
    for wanted in [
        definitions::presence(&provision),
        definitions::heartbeats(&provision),
    ] {
        provision_stream(context, wanted).await?;
    }
    Ok(())
}

/// Refuses servers older than [`SERVER_VERSION_MIN`].
///
/// # Errors
/// [`LogError::Incompatible`] with both versions.
pub fn check_server(client: &async_nats::Client) -> Result<(), LogError> {
    let (major, minor, patch) = SERVER_VERSION_MIN;
    if client.is_server_compatible(major, minor, patch) {
        return Ok(());
    }
    let version = client.server_info().version;
    Err(LogError::Incompatible(format!(
        "nats-server {version} is too old: Swarm needs {major}.{minor}.{patch} or newer (older ones check fences in atomic batches wrongly)"
    )))
}

async fn provision_stream(context: &Context, wanted: Config) -> Result<(), LogError> {
    let existing = match context.get_stream(&wanted.name).await {
        Ok(stream) => stream.cached_info().config.clone(),
        Err(error) if is_not_found(&error) => {
            return create(context, wanted).await;
        }
        Err(error) => {
            return Err(LogError::Unreachable(format!(
                "stream {} cannot be read: {error}",
                wanted.name
            )));
        }
    };
    match compare(&existing, &wanted) {
        Verdict::Same => Ok(()),
        Verdict::Raise(raised) => {
            tracing::info!(stream = %wanted.name, "raising the limits of the stream");
            let name = wanted.name;
            match context.update_stream(*raised).await {
                Ok(_) => Ok(()),
                Err(error) => Err(LogError::Refused(format!(
                    "stream {name} cannot be updated: {error}"
                ))),
            }
        }
        Verdict::Incompatible(fields) => Err(LogError::Incompatible(format!(
            "stream {} exists with a configuration that Swarm cannot use (different: {}); \
             use another NATS account or remove the stream.\nexisting: {}\nneeded:   {}",
            wanted.name,
            fields.join(", "),
            Value::Object(normalized(&existing)),
            Value::Object(normalized(&wanted)),
        ))),
    }
}

/// Creates a stream. Creating is idempotent on the server for an equal configuration; a racing process asks for the same.
async fn create(context: &Context, wanted: Config) -> Result<(), LogError> {
    let error = match context.create_stream(wanted.clone()).await {
        Ok(_) => return Ok(()),
        Err(error) => error,
    };
    let text = format!("stream {} cannot be created: {error}", wanted.name);
    Err(match error.kind() {
        CreateStreamErrorKind::JetStream(cause) if is_gathering(cause.error_code()) => {
            LogError::Unreachable(text)
        }
        CreateStreamErrorKind::TimedOut => LogError::Unreachable(text),
        _ => LogError::Refused(text),
    })
}

/// Whether the cluster lacks servers or a leader at the moment.
fn is_gathering(code: ErrorCode) -> bool {
    code == ErrorCode::CLUSTER_NO_PEERS || code == ErrorCode::CLUSTER_NOT_AVAILABLE
}

fn is_not_found(error: &async_nats::jetstream::context::GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => {
            error.error_code() == async_nats::jetstream::ErrorCode::STREAM_NOT_FOUND
        }
        _ => false,
    }
}

enum Verdict {
    Same,
    Raise(Box<Config>),
    Incompatible(Vec<String>),
}

/// Fields that may differ: raised when ours is higher, left alone when the operator's is.
const RAISABLE: [&str; 3] = ["max_bytes", "max_msg_size", "num_replicas"];
/// Fields that say nothing about behaviour.
const IGNORED: [&str; 3] = ["metadata", "description", "placement"];

fn compare(existing: &Config, wanted: &Config) -> Verdict {
    let (have, want) = (normalized(existing), normalized(wanted));
    let mut different: Vec<String> = Vec::new();
    let mut raise = Vec::new();
    for field in have
        .keys()
        .chain(want.keys().filter(|field| !have.contains_key(*field)))
    {
        let (have, want) = (have.get(field), want.get(field));
        if have == want || IGNORED.contains(&field.as_str()) {
            continue;
        }
        if RAISABLE.contains(&field.as_str()) {
            if limit(want) > limit(have) {
                raise.push(field.as_str().to_owned());
            }
        } else {
            different.push(field.clone());
        }
    }
    if !different.iter().all(|field| can_change(wanted, field)) {
        return Verdict::Incompatible(different);
    }
    if !different.is_empty() {
        return Verdict::Raise(Box::new(Config {
            max_bytes: higher(existing.max_bytes, wanted.max_bytes),
            num_replicas: existing.num_replicas.max(wanted.num_replicas),
            ..wanted.clone()
        }));
    }
    if raise.is_empty() {
        return Verdict::Same;
    }
    let mut raised = existing.clone();
    raised.max_bytes = higher(existing.max_bytes, wanted.max_bytes);
    raised.max_message_size = higher(existing.max_message_size, wanted.max_message_size);
    raised.num_replicas = existing.num_replicas.max(wanted.num_replicas);
    Verdict::Raise(Box::new(raised))
}

/// Whether the server lets this field of the stream change, and nothing is lost by it: what is in memory is for the moment.
fn can_change(wanted: &Config, field: &str) -> bool {
    wanted.storage == StorageType::Memory && matches!(field, "discard" | "max_age")
}

/// The higher of two limits, where nothing above zero means none.
fn higher<T: Copy + Ord + Into<i64>>(a: T, b: T) -> T {
    match (a.into() <= 0, b.into() <= 0) {
        (true, _) => a,
        (_, true) => b,
        _ => a.max(b),
    }
}

fn limit(value: Option<&Value>) -> i64 {
    match value.and_then(Value::as_i64) {
        None | Some(..=0) => i64::MAX,
        Some(limit) => limit,
    }
}

/// A configuration as JSON without the fields that are at their defaults, so that what the server fills in does not count.
fn normalized(config: &Config) -> Map<String, Value> {
    let Ok(Value::Object(mut fields)) = serde_json::to_value(config) else {
        return Map::new();
    };
    if let Some(Value::Array(subjects)) = fields.get_mut("subjects") {
        subjects.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
    }
    fields.retain(|field, value| match value {
        Value::Null | Value::Bool(false) => false,
        Value::Number(number) => !matches!(number.as_i64(), Some(0 | -1)),
        Value::Object(object) => {
            !object.is_empty()
                && field != "metadata"
                && object.values().any(|value| !value.is_null())
        }
        Value::Array(items) => !items.is_empty(),
        Value::String(text) if field == "compression" => text != "none",
        Value::String(text) => !text.is_empty(),
        Value::Bool(true) => true,
    });
    // "default" is what the server writes for an unset persistence mode, and zeroed consumer limits for unset ones.
    if fields
        .get("persist_mode")
        .is_some_and(|mode| mode == "default")
    {
        fields.remove("persist_mode");
    }
    if let Some(Value::Object(limits)) = fields.get("consumer_limits")
        && limits
            .values()
            .all(|value| value.as_i64().is_none_or(|number| number <= 0))
    {
        fields.remove("consumer_limits");
    }
    fields
}

#[cfg(test)]
mod tests {
    use async_nats::jetstream::stream::DiscardPolicy;

    use super::*;

    #[test]
    fn higher_limits_of_the_operator_stay() {
        let wanted = definitions::events(&Provision {
            replicas: 1,
            max_bytes: 100,
            objects_max_bytes: -1,
        });
        let existing = Config {
            max_bytes: 200,
            num_replicas: 3,
            ..wanted.clone()
        };
        assert!(matches!(compare(&existing, &wanted), Verdict::Same));
    }

    #[test]
    fn lower_limits_are_raised_and_the_rest_is_kept() {
        let wanted = definitions::events(&Provision {
            replicas: 3,
            max_bytes: -1,
            objects_max_bytes: -1,
        });
        let existing = Config {
            max_bytes: 200,
            num_replicas: 1,
            ..wanted.clone()
        };
        let Verdict::Raise(raised) = compare(&existing, &wanted) else {
            panic!("must be raised")
        };
        assert_eq!((raised.max_bytes, raised.num_replicas), (-1, 3));
    }

    #[test]
    fn what_is_in_memory_is_brought_up_to_date() {
        let wanted = definitions::presence(&Provision::default());
        let before = Config {
            discard: DiscardPolicy::New,
            num_replicas: 3,
            ..wanted.clone()
        };
        let Verdict::Raise(changed) = compare(&before, &wanted) else {
            panic!("must be changed")
        };
        assert_eq!(
            (changed.discard, changed.num_replicas),
            (DiscardPolicy::Old, 3)
        );
        let on_disk = Config {
            storage: StorageType::File,
            ..before
        };
        assert!(matches!(
            compare(&on_disk, &wanted),
            Verdict::Incompatible(_)
        ));
    }

    #[test]
    fn other_differences_are_named() {
        let wanted = definitions::events(&Provision::default());
        let existing = Config {
            allow_atomic_publish: false,
            subjects: vec!["swarm.evt.>".into()],
            ..wanted.clone()
        };
        let Verdict::Incompatible(fields) = compare(&existing, &wanted) else {
            panic!("must be refused")
        };
        assert_eq!(fields, ["subjects", "allow_atomic"]);
    }
}
