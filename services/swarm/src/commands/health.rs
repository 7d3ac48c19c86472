//! `swarm health`

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{self, Column, Format},
};

/// Arguments of `swarm health`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id
    pub swarm: String,
}

const AGENTS: [Column; 9] = [
    ("AGENT", "/name"),
    ("STATUS", "/status"),
    ("HEARD", "/heard"),
    ("TASKS", "/tasks"),
    ("ERRORS", "/errors"),
    ("CPU %", "/cpu"),
    ("MEMORY MB", "/memory"),
    ("HOST", "/host"),
    ("RESTARTS", "/restarts"),
];
const RATES: [Column; 4] = [
    ("OF", "/of"),
    ("NAME", "/name"),
    ("ATTEMPTS", "/attempts"),
    ("ERRORS", "/errors"),
];
const HOSTS: [Column; 4] = [
    ("HOST", "/name"),
    ("AGENTS", "/agents"),
    ("ROOM", "/room"),
    ("HEARD", "/heard"),
];

/// Shows a swarm's health: the whole with its reasons, its agents with theirs, hosts, and error rates.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let health = api.get(&format!("/v1/swarms/{id}/health"), &[]).await?;
    if output == Format::Json {
        return output.object(&health);
    }
    output::line(&summary(&health))?;
    for (rows, columns) in [
        (items(&health["items"]).map(agent).collect(), &AGENTS[..]),
        (items(&health["hosts"]).map(host).collect(), &HOSTS[..]),
        (rates(&health), &RATES[..]),
    ] {
        let rows: Vec<Value> = rows;
        if !rows.is_empty() {
            output::line("")?;
            output.list(&rows, columns)?;
        }
    }
    let notes = notes(&health);
    if notes.is_empty() {
        return Ok(());
    }
    output::line(&format!("\n{notes}"))
}

fn items(list: &Value) -> std::slice::Iter<'_, Value> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}

/// The status and its reasons, the figures, the limits.
fn summary(health: &Value) -> String {
    let mut text = health["status"].as_str().unwrap_or_default().to_owned();
    // Writing to a String cannot fail.
    for reason in items(&health["reasons"]) {
        let _ = write!(text, "\n  {}", reason.as_str().unwrap_or_default());
    }
    let counted = |of: &Value, names: &[&str]| {
        let counts = names.iter().filter_map(|name| {
            let count = of[*name].as_u64().filter(|count| *count > 0)?;
            Some(format!("{count} {}", name.replace('_', " ")))
        });
        counts.collect::<Vec<_>>().join(", ")
    };
    let agents = &health["agents"];
    let names = [
        "healthy",
        "idle",
        "busy",
        "pending",
        "starting",
        "unhealthy",
        "quarantined",
        "given_up",
        "draining",
        "stopped",
    ];
    let counts = counted(agents, &names);
    let counts = if counts.is_empty() {
        "none".to_owned()
    } else {
        counts
    };
    let _ = write!(text, "\nagents   {counts} ({} needed)", agents["needed"]);
    let tasks = &health["tasks"];
    if tasks.is_object() {
        let counts = counted(
            tasks,
            &["running", "stuck", "assigned", "queued", "pending", "unmet"],
        );
        let counts = if counts.is_empty() {
            "none open".to_owned()
        } else {
            counts
        };
        let _ = write!(text, "\ntasks    {counts}");
    }
    let limits = &health["thresholds"];
    let ms = |name: &str| limits[name].as_u64().map_or_else(String::new, age);
    let _ = write!(
        text,
        "\nlimits   suspected after {} of silence, failed after {}, or {} after its connection closed",
        ms("suspect_after_ms"),
        ms("fail_after_ms"),
        ms("disconnect_grace_ms")
    );
    if let Some(since) = health["stale_since"].as_str() {
        let _ = write!(
            text,
            "\nthe gateway has not heard from the log since {since}"
        );
    }
    if health["heartbeats_from"] == "log" {
        text.push_str(
            "\nthe last heartbeats could not be read: ages are those of the last samples",
        );
    }
    text
}

fn agent(agent: &Value) -> Value {
    let text = |name: &str| agent[name].as_str().unwrap_or_default();
    let number = |name: &str| agent[name].as_u64().unwrap_or(0);
    let decimal = |name: &str| agent[name].as_f64().map(|value| format!("{value:.1}"));
    let waiting = match number("queue_depth") {
        0 => String::new(),
        waiting => format!(" +{waiting}"),
    };
    json!({
        "name": text("agent_name"),
        "status": text("status"),
        "heard": heard(agent),
        "tasks": format!("{}{waiting}", number("running")),
        "errors": errors(agent),
        "cpu": decimal("cpu_percent"),
        "memory": decimal("memory_mb"),
        "host": agent["host"]["name"],
        "restarts": number("restarts"),
    })
}

/// `5 % of 20`, of the attempts within the window.
fn errors(rate: &Value) -> Option<String> {
    let share = rate["error_rate"].as_f64()?;
    Some(format!("{:.0} % of {}", share * 100.0, rate["attempts"]))
}

fn host(host: &Value) -> Value {
    let shown = host["name"].as_str().filter(|name| !name.is_empty());
    json!({
        "name": shown.or_else(|| host["instance"].as_str()),
        "agents": host["agents"],
        "room": host["room"],
        "heard": heard(host),
    })
}

fn heard(who: &Value) -> Option<String> {
    let millis = who["heartbeat_age_ms"].as_u64()?;
    Some(format!("{} ago", age(millis)))
}

/// A span of time, as exact as it matters.
fn age(millis: u64) -> String {
    match millis {
        0..1_000 => format!("{millis} ms"),
        1_000..60_000 => format!("{}.{} s", millis / 1_000, millis % 1_000 / 100),
        60_000..3_600_000 => format!("{} min", millis / 60_000),
        _ => format!("{} h", millis / 3_600_000),
    }
}

/// Task types and capabilities of which attempts ended within the window.
fn rates(health: &Value) -> Vec<Value> {
    let of = [("task type", "task_types"), ("capability", "capabilities")];
    let all = of.into_iter().flat_map(|(of, name)| {
        let rates = health[name].as_object().into_iter().flatten();
        rates.filter_map(move |(name, rate)| {
            let errors = errors(rate)?;
            Some(json!({"of": of, "name": name, "attempts": rate["attempts"], "errors": errors}))
        })
    });
    all.collect()
}

/// What there is to say of agents, one by one, beyond what the reasons of the whole say.
fn notes(health: &Value) -> String {
    let said: Vec<&str> = items(&health["reasons"])
        .filter_map(Value::as_str)
        .collect();
    let mut notes = Vec::new();
    for agent in items(&health["items"]) {
        let name = agent["agent_name"].as_str().unwrap_or_default();
        if let Some(reason) = agent["status_reason"].as_str() {
            let note = format!("{name}: {reason}");
            if !said.contains(&note.as_str()) {
                notes.push(note);
            }
        }
        if let Some(stuck) = agent["stuck_ms"].as_u64() {
            let (tasks, span) = (&agent["stuck"], age(stuck));
            notes.push(format!(
                "{name}: {tasks} stuck, the longest without progress for {span}"
            ));
        }
        let last = &agent["last_exit"];
        if last.is_object() {
            let output = last["last_output"].as_str().unwrap_or_default();
            let line = output.lines().next_back().unwrap_or_default();
            let said = if line.is_empty() {
                String::new()
            } else {
                format!(", saying {line:?}")
            };
            let ran = last["uptime_ms"].as_u64().map_or_else(String::new, age);
            let at = last["at"].as_str().unwrap_or_default();
            notes.push(format!(
                "{name}: its last process ended at {at} by {} after {ran}{said}",
                ended(last)
            ));
        }
    }
    notes.join("\n")
}

/// How a process ended.
fn ended(exit: &Value) -> String {
    if exit["out_of_memory"] == true {
        return "the memory limit".to_owned();
    }
    match (
        exit["error"].as_str(),
        exit["code"].as_i64(),
        exit["signal"].as_i64(),
    ) {
        (Some(error), ..) => format!("not starting ({error})"),
        (None, Some(code), _) => format!("exit code {code}"),
        (None, None, Some(signal)) => format!("signal {signal}"),
        _ => "an unknown end".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health() -> Value {
        json!({"status": "degraded", "reasons": ["1 of the 2 agents needed are healthy", "b: suspected: not heard for a while"],
            "agents": {"needed": 2, "healthy": 1, "idle": 1, "unhealthy": 1, "busy": 0},
            "thresholds": {"suspect_after_ms": 2_500, "fail_after_ms": 4_000, "disconnect_grace_ms": 500},
            "tasks": {"running": 1, "queued": 4}, "heartbeats_from": "log",
            "task_types": {"crawl": {"attempts": 20, "failed": 1, "error_rate": 0.05}, "idle": {"attempts": 0, "error_rate": null}},
            "capabilities": {},
            "items": [
                {"agent_name": "a", "status": "idle", "heartbeat_age_ms": 412, "running": 0, "cpu_percent": 1.25,
                    "host": {"name": "h"}, "restarts": 1, "attempts": 3, "error_rate": 0.0, "status_reason": null,
                    "last_exit": {"at": "then", "code": 1, "uptime_ms": 61_000, "last_output": "x\nno memory\n"}},
                {"agent_name": "b", "status": "unhealthy", "heartbeat_age_ms": 3_210, "running": 1, "queue_depth": 2,
                    "stuck": 1, "stuck_ms": 70_000, "status_reason": "suspected: not heard for a while"}]})
    }

    #[test]
    fn the_whole_is_told_with_its_reasons_and_limits() {
        let text = summary(&health());
        for part in [
            "degraded\n  1 of the 2 agents",
            "agents   1 healthy, 1 idle, 1 unhealthy (2 needed)",
            "tasks    1 running, 4 queued",
            "suspected after 2.5 s of silence, failed after 4.0 s, or 500 ms after",
            "could not be read",
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }

    #[test]
    fn an_agents_row_has_ages_and_rates() {
        let health = health();
        let rows: Vec<Value> = items(&health["items"]).map(agent).collect();
        assert_eq!(
            (&rows[0]["heard"], &rows[0]["errors"], &rows[0]["cpu"]),
            (&json!("412 ms ago"), &json!("0 % of 3"), &json!("1.2"))
        );
        assert_eq!(
            (&rows[1]["heard"], &rows[1]["tasks"]),
            (&json!("3.2 s ago"), &json!("1 +2"))
        );
        assert_eq!(rows[1]["errors"], Value::Null);
        let rates = rates(&health);
        assert_eq!((rates.len(), &rates[0]["errors"]), (1, &json!("5 % of 20")));
    }

    #[test]
    fn what_was_said_of_the_whole_is_not_said_again() {
        let notes = notes(&health());
        assert!(!notes.contains("suspected"), "{notes}");
        assert!(
            notes.contains("b: 1 stuck, the longest without progress for 1 min"),
            "{notes}"
        );
        assert!(
            notes.contains(r#"a: its last process ended at then by exit code 1 after 1 min, saying "no memory""#),
            "{notes}"
        );
    }

    #[test]
    fn ages_are_as_exact_as_it_matters() {
        for (millis, text) in [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_050, "1.0 s"),
            (59_999, "59.9 s"),
            (60_000, "1 min"),
            (7_200_000, "2 h"),
        ] {
            assert_eq!(age(millis), text);
        }
    }
}
