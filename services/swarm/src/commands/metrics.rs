//! `swarm metrics`

use serde_json::{Value, json};

use crate::{
    connection::ServerArgs,
    exit::Outcome,
    output::{Column, Format},
};

/// Arguments of `swarm metrics`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Name or id of the swarm
    pub swarm: String,
}

const COLUMNS: [Column; 2] = [("FIGURE", "/name"), ("VALUE", "/value")];

/// Shows a swarm's figures: counts of tasks, then rates.
pub async fn run(args: Args, server: &ServerArgs, output: Format) -> Outcome {
    let api = super::api(server)?;
    let id = api.swarm_id(&args.swarm).await?;
    let figures = api.get(&format!("/v1/swarms/{id}/metrics"), &[]).await?;
    match output {
        Format::Json => output.object(&figures),
        Format::Table => output.list(&rows(&figures), &COLUMNS),
    }
}

/// One row for each figure, in the gateway's words. What no measurement tells yet has no row.
fn rows(figures: &Value) -> Vec<Value> {
    let mut rows = Vec::new();
    for (group, prefix) in [("tasks", "tasks "), ("metrics", "")] {
        for (name, value) in figures[group].as_object().into_iter().flatten() {
            rows.push(json!({"name": format!("{prefix}{name}"), "value": shown(value)}));
        }
    }
    for name in ["measured_at", "window_ms"] {
        if !figures[name].is_null() {
            rows.push(json!({"name": name, "value": figures[name]}));
        }
    }
    rows
}

/// A fraction with three places; what is whole, whole.
fn shown(value: &Value) -> Value {
    match value.as_f64() {
        Some(number) if number.fract() != 0.0 => json!(format!("{number:.3}")),
        Some(number) => json!(format!("{number:.0}")),
        None => value.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_figure_that_is_known_has_a_row() {
        let figures = json!({
            "swarm_id": "s", "measured_at": "2026-11-23T01:30:09Z", "seq": 9, "window_ms": null,
            "tasks": {"queued": 3}, "metrics": {"affinity_hit_rate": 2.0 / 3.0, "steals": 4.0},
        });
        let rows = rows(&figures);
        let told: Vec<_> = rows
            .iter()
            .map(|row| (&row["name"], &row["value"]))
            .collect();
        assert_eq!(
            told,
            [
                (&json!("tasks queued"), &json!("3")),
                (&json!("affinity_hit_rate"), &json!("0.667")),
                (&json!("steals"), &json!("4")),
                (&json!("measured_at"), &json!("2026-11-23T01:30:09Z")),
            ]
        );
    }
}
