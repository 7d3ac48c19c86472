//! One row for each process: those of the installation, and the replicas that only their presence tells of.

use std::collections::BTreeSet;

use chrono::DateTime;
use serde_json::{Value, json};
use swarm_events::Timestamp;
use swarm_runtime::deciding::Role;

use super::{Seen, behind, presence};
use crate::{
    connection::ConnectionFile,
    installation::{
        SERVICES, ServiceName, probe,
        servers::{NATS, POSTGRES},
    },
};

/// Rows of everything that is known to be, in the order in which it is started. `file`: the running installation's.
pub async fn rows(file: Option<&ConnectionFile>, seen: &Seen) -> Vec<Value> {
    let mut rows = Vec::new();
    if let Some(file) = file {
        for name in names(file, NATS) {
            rows.push(server(file, NATS, &name).await);
        }
        if file.pids.contains_key(POSTGRES) {
            rows.push(server(file, POSTGRES, POSTGRES).await);
        }
    }
    for service in SERVICES {
        let kind = service.as_str();
        let mut replicas = seen.presence.of(kind);
        for name in file.map(|file| names(file, kind)).into_iter().flatten() {
            let mut row = process(file, service, &name, seen).await;
            // The newest of that name.
            let own = |one: &&presence::Seen| one.said.name.as_deref() == Some(&name);
            let newest = replicas
                .iter()
                .copied()
                .filter(own)
                .max_by_key(|one| (one.said.started_at, one.said.instance));
            if let Some(one) = newest {
                replicas.retain(|other| other.said.instance != one.said.instance);
                describe(&mut row, one, seen);
            }
            rows.push(row);
        }
        for one in replicas {
            let state = if one.rose() { "ready" } else { "not ready" };
            let mut row = bare(kind, json!(one.said.name), state);
            describe(&mut row, one, seen);
            rows.push(row);
        }
    }
    rows
}

/// The names under which a kind of process runs or should run, the first one first.
fn names(file: &ConnectionFile, kind: &str) -> Vec<String> {
    let number = |name: &str| -> Option<u16> {
        let rest = name.strip_prefix(kind)?;
        if rest.is_empty() {
            return Some(1);
        }
        rest.strip_prefix('-')?.parse().ok()
    };
    let known = file.pids.keys().chain(file.probes.keys());
    let names: BTreeSet<(u16, &String)> = known
        .filter_map(|name| Some((number(name)?, name)))
        .collect();
    names.into_iter().map(|(_, name)| name.clone()).collect()
}

fn bare(service: &str, name: Value, state: &str) -> Value {
    json!({
        "service": service, "name": name, "state": state, "pid": null, "uptime": null, "detail": "",
        "instance": null, "since": null, "role": null, "owned": null, "standby": null, "stuck": null,
        "leaving": null, "behind": null, "cut_off_since": null,
    })
}

/// A row with what the operating system and the process's own probe say.
async fn asked(file: &ConnectionFile, service: &str, name: &str, path: &str) -> Value {
    let pid = file.pids.get(name);
    let alive = pid.and_then(|pid| uptime(*pid));
    let readiness = match (alive.is_some(), file.probes.get(name)) {
        (true, Some(base)) => Some(probe::ask(base, path).await),
        _ => None,
    };
    let state = match &readiness {
        _ if alive.is_none() => "down",
        Some(readiness) if !readiness.ready => "not ready",
        _ => "ready",
    };
    let mut row = bare(service, json!(name), state);
    row["pid"] = json!(pid);
    row["uptime"] = json!(alive);
    row["detail"] = readiness.map_or(Value::Null, |readiness| readiness.detail);
    row
}

async fn server(file: &ConnectionFile, service: &str, name: &str) -> Value {
    asked(file, service, name, "/healthz").await
}

async fn process(
    file: Option<&ConnectionFile>,
    service: ServiceName,
    name: &str,
    seen: &Seen,
) -> Value {
    let Some(file) = file else {
        return bare(service.as_str(), json!(name), "down");
    };
    let mut row = asked(file, service.as_str(), name, "/readyz").await;
    let detail = &row["detail"];
    let (instance, since) = (detail["instance"].clone(), detail["started_at"].clone());
    match service {
        ServiceName::Projector => {
            let (role, behind) = (detail["phase"].clone(), projected(detail, seen));
            row["role"] = role;
            row["behind"] = behind;
        }
        ServiceName::AgentHost => {
            if let (Some(agents), Some(room)) = (detail["agents"].as_u64(), detail["room"].as_u64())
            {
                row["role"] = json!(format!("runs {agents} agents, room for {room}"));
            }
        }
        ServiceName::Gateway => {
            let (met, last) = (&detail["nats"]["met_seq"], &seen.gateways_read);
            if let (Some(met), Some(end)) = (met.as_u64(), last) {
                row["behind"] = json!({"events": end.saturating_sub(met), "ms": null});
            }
        }
        _ => {}
    }
    row["instance"] = instance;
    row["since"] = since;
    row
}

/// How far a projector's tables are behind the end that was read before it was asked. One that stands by writes nothing.
fn projected(detail: &Value, seen: &Seen) -> Value {
    let (Some(info), Some(committed), "writing") = (
        &seen.info,
        detail["committed"].as_u64(),
        detail["phase"].as_str().unwrap_or_default(),
    ) else {
        return Value::Null;
    };
    let events = info.last_sequence.saturating_sub(committed);
    let log_time = detail["log_time"].as_str();
    let log_time = log_time.and_then(|text| DateTime::parse_from_rfc3339(text).ok());
    let ms = match (events, &seen.end, log_time) {
        (0, ..) => Some(0),
        (_, Some(end), Some(at)) => {
            let at = Timestamp::from_micros(at.timestamp_micros());
            Some(end.time.millis_since(at))
        }
        _ => None,
    };
    json!({"events": events, "ms": ms})
}

/// Adds what a replica says of itself.
fn describe(row: &mut Value, one: &presence::Seen, seen: &Seen) {
    let said = &one.said;
    let cut_off_since = seen.presence.cut_off_since(one);
    if cut_off_since.is_some() && row["state"] != "down" {
        row["state"] = json!("cut off");
    }
    let end = seen.ends.iter().find_map(|(service, end)| {
        (service.to_string() == said.service)
            .then_some(*end)
            .flatten()
    });
    row["instance"] = json!(said.instance);
    row["since"] = json!(said.started_at);
    row["owned"] = json!(presence::count(said, Role::Owner));
    row["standby"] = json!(presence::count(said, Role::Standby));
    row["stuck"] = json!(said.stuck);
    row["leaving"] = json!(said.leaving);
    row["behind"] = end.map_or(Value::Null, |end| behind(end, said.sequence, said.log_time));
    row["cut_off_since"] = json!(cut_off_since);
}

/// How long a process has run, in words; `None` if there is none.
fn uptime(pid: u32) -> Option<String> {
    let process = procfs::process::Process::new(i32::try_from(pid).ok()?).ok()?;
    let stat = process.stat().ok()?;
    let since_boot = std::fs::read_to_string("/proc/uptime").ok()?;
    let since_boot: f64 = since_boot.split(' ').next()?.parse().ok()?;
    #[allow(clippy::cast_precision_loss, reason = "a time for the eye")]
    let started = stat.starttime as f64 / procfs::ticks_per_second() as f64;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a time for the eye"
    )]
    Some(in_words((since_boot - started).max(0.0) as u64))
}

fn in_words(seconds: u64) -> String {
    match (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    ) {
        (0, 0, 0, s) => format!("{s}s"),
        (0, 0, m, s) => format!("{m}m {s}s"),
        (0, h, m, _) => format!("{h}h {m}m"),
        (d, h, _, _) => format!("{d}d {h}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn replicas_are_in_the_order_of_their_numbers_and_those_that_are_down_are_among_them() {
        let mut file = ConnectionFile::default();
        for name in ["health", "health-10", "health-2", "healthy", "nats-server"] {
            file.pids.insert(name.to_owned(), 1);
        }
        file.probes
            .insert("health-3".to_owned(), "http://x".to_owned());
        assert_eq!(
            names(&file, "health"),
            ["health", "health-2", "health-3", "health-10"]
        );
        assert_eq!(names(&file, NATS), [NATS]);
    }

    #[test]
    fn uptimes_are_short() {
        assert_eq!(
            [59, 61, 3_600, 90_000].map(in_words),
            ["59s", "1m 1s", "1h 0m", "1d 1h"]
        );
    }

    #[test]
    fn the_own_process_has_an_uptime_and_an_unused_id_has_none() {
        assert!(uptime(std::process::id()).is_some());
        assert!(uptime(u32::MAX).is_none());
    }
}
