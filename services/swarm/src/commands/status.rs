//! `swarm status`: what runs, who decides for what, and how far behind everybody is.
//!
//! `-o json` prints one object:
//! - `running`, `ready` (everything is), `data`, `supervisor_pid`, `api_url`, `api_urls`, `nats_url`, `database_url`, `org_id`;
//! - `log`: `first_sequence`, `last_sequence`, `bytes`, `bytes_max` (-1: unbounded), `replicas` (servers that hold it),
//!   `leader` (the server of a cluster that takes what is written; null without one); null if it cannot be read;
//! - `projection`: `log_sequence`, `projected_sequence`, `lag` (events);
//! - `services`, one entry for each process: `service` (`distributor`, `nats-server`, …), `name` (`distributor-2`; null for a
//!   replica without a name that another machine runs), `state` (`ready`, `not ready`, `down`, `cut off`), `pid`, `uptime`,
//!   `detail` (its own words), `instance`, `since` (its start, RFC 3339), `role` (projectors: `writing`, `standby`, …;
//!   agent hosts: how many agents they run, and for how many they have room),
//!   `owned` and `standby` (numbers of partitions that it decides for, and stands by for), `stuck` (partitions), `leaving`,
//!   `behind` (`events`: stream sequences between what it had met at its last sign of life and the end of what it reads;
//!   `ms`: the same in log time), `cut_off_since` (RFC 3339). What is not known or makes no sense for a process is null;
//! - with `--partitions`: `partitions`, one entry for each partition of each deciding service: `service`, `partition` (0 to
//!   63), `owner` (`name`, `instance`, `epoch`, `since`, `cut_off_since`; null if nobody says so), `standby` (a list of
//!   `name`, `instance`, `since`).

mod presence;
mod processes;

use std::time::Duration;

use async_nats::jetstream::stream::Stream;
use serde_json::{Value, json};
use swarm_events::{Service, Timestamp, subject::filter};
use swarm_log::{Log, LogInfo, definitions::EVENTS_STREAM};

use self::presence::Presence;
use super::up::without_password;
use crate::{
    connection::{ConnectionFile, ServerArgs, Target},
    exit::{Failure, Outcome},
    installation::{DataDir, Holder, Lock},
    output::{self, Column, Format},
};

/// Arguments of `swarm status`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Who decides for which partition, at which epoch, since when, and who stands by
    #[arg(long)]
    pub partitions: bool,
}

const COLUMNS: [Column; 10] = [
    ("SERVICE", "/name"),
    ("STATE", "/state"),
    ("PID", "/pid"),
    ("UPTIME", "/uptime"),
    ("INSTANCE", "/instance_end"),
    ("DECIDES", "/owned"),
    ("STANDS BY", "/standby"),
    ("BEHIND", "/behind_text"),
    ("CUT OFF SINCE", "/cut_off_since"),
    ("DETAIL", "/detail"),
];
const PARTITION_COLUMNS: [Column; 6] = [
    ("SERVICE", "/service"),
    ("PARTITION", "/partition"),
    ("OWNER", "/owner_name"),
    ("EPOCH", "/owner/epoch"),
    ("SINCE", "/owner/since"),
    ("STANDBY", "/standby_names"),
];

/// The services that decide.
const DECIDING: [Service; 3] = [Service::Coordinator, Service::Distributor, Service::Health];

/// How long the log and the database may take to say how far they are.
const LAG_PATIENCE: Duration = Duration::from_secs(5);

/// What the log says.
#[derive(Default)]
struct Seen {
    info: Option<LogInfo>,
    /// How many servers hold the log.
    copies: Option<usize>,
    /// The server of a cluster that takes what is written.
    leader: Option<String>,
    /// The last message of all.
    end: Option<End>,
    /// Sequence of the last message that the gateways read.
    gateways_read: Option<u64>,
    /// The last message that each deciding service reads, before anybody's sign of life.
    ends: Vec<(Service, Option<End>)>,
    presence: Presence,
}

/// Shows the installation of the data folder. Exit code 1 if it does not run or something is not ready.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let data = DataDir::at(&server.data_dir()?);
    let holder = Lock::holder(&data)?;
    let file = ConnectionFile::read(data.path())?.unwrap_or_default();
    let running = holder != Holder::Nobody;
    let target = server.resolve()?;
    // Services elsewhere are known by their presence alone.
    let (seen, lag) = if running || server.nats_url.is_some() {
        let seen = look(&target).await;
        let lag = lag(&target, seen.info.as_ref()).await;
        (seen, lag)
    } else {
        (Seen::default(), Value::Null)
    };
    let services = processes::rows(running.then_some(&file), &seen).await;
    let all_ready =
        !services.is_empty() && services.iter().all(|service| service["state"] == "ready");
    let supervisor = match holder {
        Holder::Process(pid) => json!(pid),
        Holder::Nobody => Value::Null,
    };
    let partitions: Vec<Value> = DECIDING
        .iter()
        .filter(|_| args.partitions)
        .flat_map(|service| seen.presence.partitions(&service.to_string()))
        .collect();
    if output == Format::Json {
        let log = seen.info.as_ref().map(|info| {
            json!({
                "first_sequence": info.first_sequence, "last_sequence": info.last_sequence,
                "bytes": info.bytes, "bytes_max": info.bytes_max,
                "replicas": seen.copies, "leader": seen.leader,
            })
        });
        let mut all = json!({
            "running": running, "ready": all_ready, "data": data.path(), "supervisor_pid": supervisor,
            "api_url": file.api_url, "api_urls": file.api_urls, "nats_url": file.nats_url,
            "database_url": without_password(&file.database_url),
            "org_id": file.org_id, "services": services, "log": log, "projection": lag,
        });
        if args.partitions {
            all["partitions"] = json!(partitions);
        }
        output.object(&all)?;
    } else if services.is_empty() {
        output::line(&format!(
            "Nothing runs in {}: `swarm up` starts an installation.",
            data.path().display()
        ))?;
    } else {
        if running {
            output.object(&json!({
                "data folder": data.path(), "API": file.api_urls, "nats-server": file.nats_url,
                "PostgreSQL": without_password(&file.database_url), "supervisor": supervisor,
                "log": lag["log_sequence"], "projection": lag["projected_sequence"], "projection lag": lag["lag"],
            }))?;
        }
        output.list(&for_people(services), &COLUMNS)?;
        if args.partitions {
            output.list(&named(partitions), &PARTITION_COLUMNS)?;
        }
    }
    if all_ready {
        Ok(())
    } else {
        Err(Failure::failed(""))
    }
}

/// What a service says of itself is of use to a person only when it is not ready.
fn for_people(mut services: Vec<Value>) -> Vec<Value> {
    for service in &mut services {
        if service["state"] == "ready" {
            service["detail"] = service["role"].clone();
        }
        if service["name"].is_null() {
            service["name"] = service["service"].clone();
        }
        // The beginning of a UUIDv7 is a time, and the same for all that start together.
        let instance = service["instance"].as_str().unwrap_or_default();
        let end = instance.rsplit('-').next().unwrap_or_default().to_owned();
        service["instance_end"] = Value::String(end);
        let behind = match (
            service["behind"]["events"].as_u64(),
            service["behind"]["ms"].as_u64(),
        ) {
            (Some(0), _) => "0".to_owned(),
            (Some(events), Some(ms)) => format!("{events} ({ms} ms)"),
            (Some(events), None) => events.to_string(),
            (None, _) => String::new(),
        };
        service["behind_text"] = Value::String(behind);
    }
    services
}

/// Replicas are called by name, those without by instance.
fn named(mut partitions: Vec<Value>) -> Vec<Value> {
    let name = |one: &Value| {
        let name = one["name"].as_str().or_else(|| one["instance"].as_str());
        name.unwrap_or_default().to_owned()
    };
    for row in &mut partitions {
        row["owner_name"] = Value::String(name(&row["owner"]));
        let standby = row["standby"].as_array();
        let standby: Vec<String> = standby.into_iter().flatten().map(name).collect();
        row["standby_names"] = Value::String(standby.join(", "));
    }
    partitions
}

/// Reads the ends first and the presence keys after them: whoever has not met an end by its next sign of life is behind.
async fn look(target: &Target) -> Seen {
    let mut seen = Seen::default();
    let Ok(log) = target.log("status").await else {
        return seen;
    };
    let asked = tokio::time::timeout(LAG_PATIENCE, async {
        seen.info = log.info().await.ok();
        let context = async_nats::jetstream::new(log.client().clone());
        let stream = context.get_stream(EVENTS_STREAM).await.ok()?;
        let stored = stream.cached_info();
        seen.copies = Some(stored.config.num_replicas);
        seen.leader = stored
            .cluster
            .as_ref()
            .and_then(|cluster| cluster.leader.clone());
        seen.end = end_of(&stream, &filter::all()).await;
        for service in DECIDING {
            let end = end_of(&stream, &filter::inputs(service, None)).await;
            seen.ends.push((service, end));
        }
        let end = end_of(&stream, &swarm_gateway::fold::filters()).await;
        seen.gateways_read = end.map(|end| end.sequence);
        Some(())
    });
    // What it did not say in time is not known.
    let _ = asked.await;
    seen.presence = Presence::look(&log).await;
    seen
}

/// The end of what is read through a filter or several.
#[derive(Clone, Copy, Debug)]
struct End {
    sequence: u64,
    time: Timestamp,
}

/// The last message that matches one of `filters`, wildcards included. Asked of the leader: a follower may lag behind.
async fn end_of(stream: &Stream, filters: &[String]) -> Option<End> {
    let asked = filters
        .iter()
        .map(|filter| stream.get_last_raw_message_by_subject(filter));
    let last = futures::future::join_all(asked).await.into_iter().flatten();
    let last = last.max_by_key(|message| message.sequence)?;
    let micros = last.time.unix_timestamp_nanos() / 1_000;
    Some(End {
        sequence: last.sequence,
        time: Timestamp::from_micros(i64::try_from(micros).ok()?),
    })
}

/// How far behind the `end` of what it reads somebody is who has met everything up to `sequence` and `log_time`.
fn behind(end: End, sequence: u64, log_time: Timestamp) -> Value {
    let events = end.sequence.saturating_sub(sequence);
    let ms = match events {
        0 => 0,
        _ => end.time.millis_since(log_time),
    };
    json!({"events": events, "ms": ms})
}

/// How far the log and the read models are.
async fn lag(target: &Target, info: Option<&LogInfo>) -> Value {
    let log = info.map(|info| info.last_sequence);
    let projected = tokio::time::timeout(LAG_PATIENCE, super::projection::sequence(target))
        .await
        .ok()
        .and_then(Result::ok);
    let lag = log
        .zip(projected)
        .map(|(log, projected)| log.saturating_sub(projected));
    json!({"log_sequence": log, "projected_sequence": projected, "lag": lag})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn behind_is_counted_to_the_end_of_what_is_read() {
        let end = End {
            sequence: 10,
            time: Timestamp::from_micros(5_000_000),
        };
        let at =
            |sequence, millis: i64| behind(end, sequence, Timestamp::from_micros(millis * 1_000));
        assert_eq!(at(7, 4_800), json!({"events": 3, "ms": 200}));
        assert_eq!(at(10, 4_800), json!({"events": 0, "ms": 0}));
        assert_eq!(at(12, 5_200), json!({"events": 0, "ms": 0}));
    }

    #[test]
    fn replicas_are_called_by_name_and_those_without_by_instance() {
        let rows = named(vec![json!({
            "owner": {"name": "distributor", "instance": "i"},
            "standby": [{"name": null, "instance": "j"}, {"name": "distributor-2", "instance": "k"}],
        })]);
        assert_eq!(rows[0]["owner_name"], "distributor");
        assert_eq!(rows[0]["standby_names"], "j, distributor-2");
        assert_eq!(
            named(vec![json!({"owner": null, "standby": []})])[0]["owner_name"],
            ""
        );
    }
}
