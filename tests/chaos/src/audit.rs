//! `swarm audit` of the whole log: the promises by name, and the read models against the fold.

use std::time::Duration;

use anyhow::bail;
use serde_json::Value;
use swarm_events::{Partition, Service};

use crate::installation::Installation;

/// What an audit may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an audit said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    /// `None`: every promise was kept.
    pub broken: Option<String>,
    /// Tasks of the whole log that have not ended.
    pub lost: u64,
    /// Tasks of the whole log that ended more than once.
    pub doubled: u64,
    /// Longest time, since `from` and in the partition asked for, in which the distributor decided nothing while work waited
    /// and an agent had room, in milliseconds.
    pub without_decisions_ms: u64,
}

/// Audits everything that the log holds, which must be at rest. Gaps count in `partition` from the sequence `from` on.
///
/// # Errors
/// The audit cannot be run.
pub async fn run(
    installation: &Installation,
    partition: Partition,
    from: u64,
) -> anyhow::Result<Audit> {
    let gaps = Service::Distributor.as_str();
    let args = [
        "audit",
        "--settled",
        "--read-model",
        "--gaps",
        gaps,
        "-o",
        "json",
    ];
    let (code, out, err) = installation.cli(&args, PATIENCE).await?;
    let report: Value = serde_json::from_str(&out).unwrap_or(Value::Null);
    if !matches!(code, Some(0 | 1)) || report.is_null() {
        bail!("swarm audit ended with {code:?}: {}", err.trim());
    }
    Ok(Audit {
        broken: (code == Some(1)).then(|| violations(&report)),
        ..figures(&report, partition, from)
    })
}

fn figures(report: &Value, partition: Partition, from: u64) -> Audit {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let gaps = report["gaps"].as_array().into_iter().flatten();
    let here = gaps.filter(|gap| {
        number(&gap["partition"]) == u64::from(partition.number()) && number(&gap["from"]) >= from
    });
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a few seconds in milliseconds"
    )]
    let longest = here
        .filter_map(|gap| gap["millis"].as_f64())
        .fold(0.0, f64::max) as u64;
    Audit {
        broken: None,
        lost: number(&report["tasks"]["lost"]),
        doubled: number(&report["tasks"]["doubled"]),
        without_decisions_ms: longest,
    }
}

/// What is broken, by name, with the first violation of each; for anything else that an audit can find, the report.
fn violations(report: &Value) -> String {
    let promises = report["invariants"].as_array().into_iter().flatten();
    let broken: Vec<String> = promises
        .filter(|promise| promise["violated"].as_u64().unwrap_or(0) > 0)
        .map(|promise| {
            let first = &promise["violations"][0];
            format!(
                "{} ({}): at {} {}",
                promise["name"].as_str().unwrap_or_default(),
                promise["violated"],
                first["sequence"],
                first["detail"].as_str().unwrap_or_default()
            )
        })
        .collect();
    if broken.is_empty() {
        report.to_string()
    } else {
        broken.join("; ")
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_gaps_of_the_scene_count() {
        let here = Partition::new(7).expect("a partition");
        let gap = |partition: u8, from: u64, millis: f64| json!({"partition": partition, "from": from, "millis": millis});
        let report = json!({
            "tasks": {"lost": 1, "doubled": 2},
            "gaps": [gap(7, 99, 900.0), gap(7, 100, 30.5), gap(7, 200, 40.9), gap(8, 300, 800.0)],
        });
        let audit = figures(&report, here, 100);
        assert_eq!((audit.lost, audit.doubled), (1, 2));
        assert_eq!(audit.without_decisions_ms, 40);
    }

    #[test]
    fn what_is_broken_is_named() {
        let report = json!({"invariants": [
            {"name": "kept", "violated": 0, "violations": []},
            {"name": "one-terminal", "violated": 2, "violations": [{"sequence": 5, "detail": "twice"}]},
        ]});
        assert_eq!(violations(&report), "one-terminal (2): at 5 twice");
    }
}
