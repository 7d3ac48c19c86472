//! What `swarm audit` prints.

use std::{collections::BTreeMap, time::Instant};

use serde::Serialize;
use serde_json::{Value, json};
use swarm_audit::{Checker, Counts, Invariant, Judge, Open, OpenItem};
use swarm_events::{InstanceId, Service, Timestamp};
use swarm_log::LogInfo;
use swarm_projections::verify::Verified;

use super::Args;
use crate::{
    exit::Outcome,
    output::{Format, line},
};

/// Violations of one promise, and open things of one kind, that are shown.
const SHOWN_MAX: usize = 20;

#[derive(Serialize)]
struct Promise {
    name: &'static str,
    meaning: &'static str,
    checked: u64,
    violated: u64,
    violations: Vec<Broken>,
}

#[derive(Serialize)]
struct Broken {
    sequence: u64,
    detail: String,
}

#[derive(Serialize)]
struct Claim {
    epoch: u64,
    time: Timestamp,
    instance: InstanceId,
    reason: String,
}

#[derive(Serialize)]
struct Owner {
    service: Service,
    partition: u8,
    claimed: u64,
    decisions: u64,
    /// Unknown where one swarm is read alone: the others' decisions have the ordinals between.
    skipped_ordinals: Option<u64>,
    claims: Vec<Claim>,
}

#[derive(Serialize)]
struct Tasks {
    accepted: u64,
    ended: u64,
    reopened: u64,
    open: usize,
    /// Accepted and without an end, in a log that has come to rest.
    lost: Option<usize>,
    doubled: u64,
    started_again: u64,
    /// Waiting ones that were taken over from busy agents.
    steals: u64,
    /// Steals that came after the start, and so took nothing.
    steals_void: u64,
}

#[derive(Serialize)]
struct Gap {
    partition: u8,
    from: u64,
    from_time: Timestamp,
    to: u64,
    millis: f64,
    lasting: bool,
}

/// What was found.
#[derive(Serialize)]
pub(super) struct Report {
    clean: bool,
    settled: bool,
    first_sequence: u64,
    last_sequence: u64,
    report_from: Option<u64>,
    report_since: Option<Timestamp>,
    events: u64,
    unreadable: u64,
    tasks: Tasks,
    graphs: u64,
    commands: u64,
    open: BTreeMap<&'static str, Value>,
    invariants: Vec<Promise>,
    voids: BTreeMap<&'static str, u64>,
    owners: Vec<Owner>,
    #[serde(skip_serializing_if = "Option::is_none")]
    gaps: Option<Vec<Gap>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    read_model: Option<Verified>,
    elapsed_ms: u64,
}

fn shown(items: &[OpenItem]) -> Value {
    let first: Vec<Value> = items
        .iter()
        .take(SHOWN_MAX)
        .map(|item| json!({"sequence": item.sequence, "since": item.since, "what": item.what}))
        .collect();
    json!({"count": items.len(), "first": first})
}

fn promises(checker: &Checker, read_model: Option<&Verified>) -> Vec<Promise> {
    let mut promises = Vec::new();
    for (invariant, tally) in checker.tallies() {
        let mut promise = Promise {
            name: invariant.name(),
            meaning: invariant.meaning(),
            checked: tally.checked,
            violated: tally.violated,
            violations: checker
                .violations
                .iter()
                .filter(|v| v.invariant == invariant)
                .take(SHOWN_MAX)
                .map(|v| Broken {
                    sequence: v.sequence,
                    detail: v.detail.clone(),
                })
                .collect(),
        };
        match (invariant.judge(), read_model) {
            (Judge::Log, _) => {}
            (Judge::Tables, Some(verified)) => {
                let rows = |n: i64| u64::try_from(n).unwrap_or(0);
                promise.checked = verified.tables.iter().map(|t| rows(t.rows)).sum();
                for table in &verified.tables {
                    if table.missing > 0 || table.surplus > 0 {
                        promise.violated += rows(table.missing.max(table.surplus));
                        promise.violations.push(Broken {
                            sequence: verified.sequence,
                            detail: format!(
                                "{}: {} rows missing, {} too many; {}",
                                table.table,
                                table.missing,
                                table.surplus,
                                table.shown.join("; ")
                            ),
                        });
                    }
                }
            }
            // Nobody judges it here.
            _ => continue,
        }
        promises.push(promise);
    }
    promises
}

impl Report {
    pub(super) fn new(
        args: &Args,
        info: &LogInfo,
        reached: u64,
        checker: &Checker,
        open: &Open,
        read_model: Option<Verified>,
        began: Instant,
    ) -> Self {
        let Counts {
            messages,
            unreadable,
            accepted,
            ended,
            reopened,
            doubled,
            started_again,
            graphs,
            steals,
            steals_void,
            commands,
        } = checker.counts();
        let invariants = promises(checker, read_model.as_ref());
        let owners = checker.owners().map(|(service, partition, owner)| Owner {
            service,
            partition,
            claimed: owner.claimed,
            decisions: owner.decisions,
            skipped_ordinals: args.swarm.is_none().then_some(owner.skipped),
            claims: owner
                .claims
                .iter()
                .map(|claim| Claim {
                    epoch: claim.epoch,
                    time: claim.time,
                    instance: claim.instance,
                    reason: claim.reason.clone(),
                })
                .collect(),
        });
        Self {
            clean: invariants.iter().all(|promise| promise.violated == 0),
            settled: args.settled,
            first_sequence: info.first_sequence,
            last_sequence: reached,
            report_from: args.from,
            report_since: args.since,
            events: messages,
            unreadable,
            tasks: Tasks {
                accepted,
                ended,
                reopened,
                open: open.tasks.len(),
                lost: args.settled.then_some(open.tasks.len()),
                doubled,
                started_again,
                steals,
                steals_void,
            },
            graphs,
            commands,
            open: BTreeMap::from([
                ("tasks", shown(&open.tasks)),
                ("commands", shown(&open.commands)),
                ("graphs", shown(&open.graphs)),
            ]),
            voids: checker.voids().clone(),
            owners: owners.collect(),
            gaps: args.gaps.map(|_| {
                let gap = |gap: &swarm_audit::Gap| Gap {
                    partition: gap.partition,
                    from: gap.from,
                    from_time: gap.from_time,
                    to: gap.to,
                    millis: gap.micros as f64 / 1_000.0,
                    lasting: gap.lasting,
                };
                checker.gaps().iter().map(gap).collect()
            }),
            read_model,
            invariants,
            elapsed_ms: u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Names of the promises that are broken.
    pub(super) fn broken(&self) -> Vec<&'static str> {
        let broken = |promise: &&Promise| promise.violated > 0;
        self.invariants
            .iter()
            .filter(broken)
            .map(|promise| promise.name)
            .collect()
    }

    pub(super) fn print(&self, output: Format) -> Outcome {
        match output {
            Format::Json => output.object(&serde_json::to_value(self).unwrap_or_default()),
            Format::Table => line(&self.words()),
        }
    }

    fn words(&self) -> String {
        let mut lines = vec![format!(
            "{} events read, sequences {} to {}, in {} ms",
            self.events, self.first_sequence, self.last_sequence, self.elapsed_ms
        )];
        if self.first_sequence > 1 {
            lines
                .push("The log begins later than at 1: what came before is not judged.".to_owned());
        }
        let begin = self
            .report_from
            .map(|from| format!("sequence {from}"))
            .or_else(|| self.report_since.map(|since| since.to_string()));
        if let Some(begin) = begin {
            lines.push(format!(
                "Reported is what happened from {begin} on; the state there comes from the whole log."
            ));
        }
        let tasks = &self.tasks;
        lines.push(format!(
            "tasks     {} accepted, {} ended, {} open, {} opened again, {} doubled, {} started again{}",
            tasks.accepted,
            tasks.ended,
            tasks.open,
            tasks.reopened,
            tasks.doubled,
            tasks.started_again,
            tasks.lost.map_or(String::new(), |lost| format!(", {lost} lost"))
        ));
        lines.push(format!(
            "          {} stolen ({} steals too late), {} graphs decided, {} commands, {} unreadable messages",
            tasks.steals, tasks.steals_void, self.graphs, self.commands, self.unreadable
        ));
        for (what, items) in &self.open {
            for item in items["first"].as_array().into_iter().flatten() {
                lines.push(format!(
                    "open      {what} {} since {}: {}",
                    item["sequence"],
                    item["since"].as_str().unwrap_or_default(),
                    item["what"].as_str().unwrap_or_default()
                ));
            }
        }
        let voids: Vec<String> = self
            .voids
            .iter()
            .map(|(why, n)| format!("{why} {n}"))
            .collect();
        if !voids.is_empty() {
            lines.push(format!("void      {}", voids.join(", ")));
        }
        for service in Service::ALL {
            let own: Vec<&Owner> = self
                .owners
                .iter()
                .filter(|o| o.service == *service)
                .collect();
            if own.is_empty() {
                continue;
            }
            let sum = |of: fn(&Owner) -> u64| own.iter().map(|o| of(o)).sum::<u64>();
            let mut now: BTreeMap<InstanceId, usize> = BTreeMap::new();
            for claim in own.iter().filter_map(|owner| owner.claims.last()) {
                *now.entry(claim.instance).or_default() += 1;
            }
            let now: Vec<String> = now.iter().map(|(i, n)| format!("{i} owns {n}")).collect();
            lines.push(format!(
                "owners    {service}: {} partitions, {} claims, {} decisions, {} ordinals skipped; {}",
                own.len(),
                sum(|o| o.claimed),
                sum(|o| o.decisions),
                sum(|o| o.skipped_ordinals.unwrap_or(0)),
                now.join(", ")
            ));
        }
        for gap in self.gaps.iter().flatten() {
            lines.push(format!(
                "gap       {:.1} ms in partition {:02}, from {} at {} to {}{}",
                gap.millis,
                gap.partition,
                gap.from,
                gap.from_time,
                gap.to,
                if gap.lasting { " (lasting)" } else { "" }
            ));
        }
        if let Some(verified) = &self.read_model {
            let tables: Vec<String> = verified
                .tables
                .iter()
                .map(|t| format!("{} {}", t.table, t.rows))
                .collect();
            lines.push(format!(
                "tables    at sequence {}: rows by the log: {}",
                verified.sequence,
                tables.join(", ")
            ));
        }
        lines.push(String::new());
        for promise in &self.invariants {
            let state = match (promise.violated, promise.checked) {
                (0, 0) => "-".to_owned(),
                (0, _) => "kept".to_owned(),
                (n, _) => format!("BROKEN {n} times"),
            };
            lines.push(format!(
                "{:<32}{:>12} checked  {state}",
                promise.name, promise.checked
            ));
            for broken in &promise.violations {
                lines.push(format!("    at {}: {}", broken.sequence, broken.detail));
            }
        }
        lines.join("\n")
    }
}

/// Prints the registry.
pub(super) fn list(output: Format) -> Outcome {
    let judge = |invariant: &Invariant| match invariant.judge() {
        Judge::Log => "log",
        Judge::Folds => "simulation",
        Judge::Tables => "--read-model",
    };
    let items: Vec<Value> = Invariant::ALL
        .iter()
        .map(|invariant| {
            json!({
                "name": invariant.name(), "meaning": invariant.meaning(), "design": invariant.design(),
                "judged_by": judge(invariant),
            })
        })
        .collect();
    let columns = [
        ("PROMISE", "/name"),
        ("JUDGED BY", "/judged_by"),
        ("OF", "/design"),
        ("MEANING", "/meaning"),
    ];
    output.list(&items, &columns)
}
