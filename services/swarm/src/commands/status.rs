//! `swarm status`

use std::time::Duration;

use serde_json::{Value, json};
use swarm_log::Log;

use super::up::without_password;
use crate::{
    connection::{ConnectionFile, ServerArgs, Target},
    exit::{Failure, Outcome},
    installation::{DataDir, Holder, Lock, SERVICES, probe},
    output::{self, Column, Format},
};

/// Arguments of `swarm status`.
#[derive(clap::Args, Debug)]
pub struct Args {}

const COLUMNS: [Column; 5] = [
    ("SERVICE", "/service"),
    ("STATE", "/state"),
    ("PID", "/pid"),
    ("UPTIME", "/uptime"),
    ("DETAIL", "/detail"),
];

/// How long the log and the database may take to say how far they are.
const LAG_PATIENCE: Duration = Duration::from_secs(5);

/// Shows the installation of the data folder. Exit code 1 if it does not run or something is not ready.
pub async fn run(_: Args, server: &ServerArgs, output: Format) -> Outcome {
    let data = DataDir::at(&server.data_dir()?);
    let holder = Lock::holder(&data)?;
    let file = ConnectionFile::read(data.path())?.unwrap_or_default();
    let running = holder != Holder::Nobody;
    let services = if running {
        services(&file).await
    } else {
        Vec::new()
    };
    let lag = if running {
        lag(&server.resolve()?).await
    } else {
        Value::Null
    };
    let all_ready = running && services.iter().all(|service| service["state"] == "ready");
    let supervisor = match holder {
        Holder::Process(pid) => json!(pid),
        Holder::Nobody => Value::Null,
    };
    if output == Format::Json {
        output.object(&json!({
            "running": running, "ready": all_ready, "data": data.path(), "supervisor_pid": supervisor,
            "api_url": file.api_url, "nats_url": file.nats_url, "database_url": without_password(&file.database_url),
            "org_id": file.org_id, "services": services, "projection": lag,
        }))?;
    } else if running {
        output.object(&json!({
            "data folder": data.path(), "API": file.api_url, "nats-server": file.nats_url,
            "PostgreSQL": without_password(&file.database_url), "supervisor": supervisor,
            "log": lag["log_sequence"], "projection": lag["projected_sequence"], "projection lag": lag["lag"],
        }))?;
        output.list(&for_people(services.clone()), &COLUMNS)?;
    } else {
        output::line(&format!(
            "Nothing runs in {}: `swarm up` starts an installation.",
            data.path().display()
        ))?;
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
            service["detail"] = Value::Null;
        }
    }
    services
}

async fn services(file: &ConnectionFile) -> Vec<Value> {
    let mut rows = Vec::new();
    for name in ["nats-server", "postgres"] {
        if let Some(pid) = file.pids.get(name) {
            let alive = uptime(*pid);
            let state = if alive.is_some() { "ready" } else { "down" };
            rows.push(
                json!({"service": name, "state": state, "pid": pid, "uptime": alive, "detail": ""}),
            );
        }
    }
    for service in SERVICES {
        let name = service.as_str();
        let pid = file.pids.get(name);
        let alive = pid.and_then(|pid| uptime(*pid));
        let readiness = match (alive.is_some(), file.probes.get(name)) {
            (true, Some(base)) => Some(probe::readyz(base).await),
            _ => None,
        };
        let state = match &readiness {
            None => "down",
            Some(readiness) if readiness.ready => "ready",
            Some(_) => "not ready",
        };
        let detail = readiness.map_or(Value::Null, |readiness| readiness.detail);
        rows.push(
            json!({"service": name, "state": state, "pid": pid, "uptime": alive, "detail": detail}),
        );
    }
    rows
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

/// How far the log and the read models are.
async fn lag(target: &Target) -> Value {
    let log = async { Ok::<_, Failure>(target.log("status").await?.info().await?.last_sequence) };
    let log = tokio::time::timeout(LAG_PATIENCE, log)
        .await
        .ok()
        .and_then(Result::ok);
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
