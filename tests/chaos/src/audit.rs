//! `swarm audit` of the whole log: the promises by name, and the read models against the fold.

use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

use crate::installation::Installation;

/// What an audit may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// What an audit said.
#[derive(Clone, Debug)]
pub struct Audit {
    /// `None`: every promise was kept.
    pub broken: Option<String>,
    /// The report.
    pub report: Value,
}

/// Audits everything that the log holds, which must be at rest.
///
/// # Errors
/// The audit cannot be run.
pub async fn run(installation: &Installation) -> anyhow::Result<Audit> {
    let args = ["audit", "--settled", "--read-model", "-o", "json"];
    let (code, out, err) = installation.cli(&args, PATIENCE).await?;
    let report = serde_json::from_str(&out).unwrap_or(Value::Null);
    let broken = match code {
        Some(0) => None,
        Some(1) => Some(match &report {
            Value::Null => err.trim().to_owned(),
            report => report.to_string(),
        }),
        other => {
            return Err(anyhow::anyhow!("{}", err.trim()))
                .with_context(|| format!("swarm audit ended with {other:?}"));
        }
    };
    Ok(Audit { broken, report })
}
