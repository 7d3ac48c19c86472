//! Fills in what an assignment carries and the state does not hold: large payloads, and results of data dependencies.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::value::RawValue;
use swarm_distributor_core::{Distributor, PAYLOAD_HELD_BYTES_MAX};
use swarm_events::{
    Body, Input, Json, Problem, Subject, Timestamp,
    decider::{Decision, Hydrate, Verdict},
    read,
    subject::TaskVerb,
    task::{Assigned, Carried, Failed, INPUTS_BYTES_MAX},
};
use swarm_log::Log;
use swarm_runtime::Shell;
use tracing::warn;

use crate::recent::Recent;

/// Most inputs of an assignment that are read at a time. Each read is a round trip, and a reduce has a thousand of them; more
/// at once only queue up at the server, and each may bring a quarter of a megabyte.
pub const READS_AT_ONCE: usize = 32;

/// The distributor's impure side.
pub struct DistributorShell<L> {
    log: L,
    recent: Recent,
}

/// Why a value is not to be had.
enum Missing {
    /// The log cannot be reached now.
    Now(Problem),
    /// It is not there and will not be.
    Forever(String),
}

impl<L: Log> DistributorShell<L> {
    /// A shell that reads from `log`.
    pub fn new(log: L) -> Self {
        Self {
            log,
            recent: Recent::default(),
        }
    }

    /// The payload of the `submitted`, or the result of the `completed`, at `sequence`.
    async fn at(&self, sequence: u64) -> Result<Carried, Missing> {
        if let Some(value) = self.recent.get(sequence) {
            return Ok(value.clone());
        }
        let stored = self.log.get(sequence).await.map_err(unreachable)?;
        let stored =
            stored.ok_or_else(|| gone(format!("nothing is stored at sequence {sequence}")))?;
        let time = Timestamp::from_micros(stored.time_micros);
        match read(sequence, time, &stored.subject, &stored.payload) {
            Input::Event(recorded) => value_of(recorded.event.body).ok_or_else(|| {
                gone(format!(
                    "the event at sequence {sequence} carries no such value"
                ))
            }),
            Input::Unreadable(unreadable) => Err(gone(unreadable.problem.to_string())),
        }
    }

    /// The value's text, wherever it is.
    async fn text(&self, value: Carried) -> Result<Json, Missing> {
        match value {
            Carried::Inline(json) => Ok(json),
            Carried::AtSequence(sequence) => match self.at(sequence).await? {
                Carried::Inline(json) => Ok(json),
                Carried::Object(name) => self.object(&name).await,
                Carried::AtSequence(_) => Err(gone(format!("sequence {sequence} only points on"))),
            },
            Carried::Object(name) => self.object(&name).await,
        }
    }

    async fn object(&self, name: &str) -> Result<Json, Missing> {
        let bytes = self.log.get_object(name).await.map_err(unreachable)?;
        let bytes = bytes.ok_or_else(|| gone(format!("there is no object {name}")))?;
        let text = std::str::from_utf8(&bytes)
            .map_err(|e| gone(format!("object {name} is not UTF-8: {e}")))?;
        Json::parse(text).map_err(|e| gone(format!("object {name} is not JSON: {e}")))
    }

    async fn input<'a>(
        &self,
        (alias, sequence): &'a (String, u64),
    ) -> Result<(&'a str, Json), Missing> {
        let result = self.at(*sequence).await?;
        Ok((alias, self.text(result).await?))
    }

    async fn fill(
        &self,
        about: uuid::Uuid,
        assigned: &mut Assigned,
        hydrate: &Hydrate,
    ) -> Result<(), Missing> {
        if let Some(sequence) = hydrate.payload_from {
            let payload = self.at(sequence).await?;
            assigned.payload = Carried::Inline(self.text(payload).await?);
        }
        if hydrate.inputs_from.is_empty() {
            return Ok(());
        }
        let mut reads = Vec::with_capacity(hydrate.inputs_from.len());
        for input in &hydrate.inputs_from {
            reads.push(self.input(input));
        }
        let inputs: Vec<(&str, Json)> = stream::iter(reads)
            .buffered(READS_AT_ONCE)
            .try_collect()
            .await?;
        let inputs = object_of(&inputs).map_err(|e| gone(e.to_string()))?;
        assigned.inputs = Some(if inputs.len() <= INPUTS_BYTES_MAX {
            Carried::Inline(inputs)
        } else {
            // The same task, generation and attempt has the same inputs: putting them twice changes nothing.
            let name = format!(
                "inputs.{about}.{}.{}",
                assigned.generation, assigned.attempt
            );
            let bytes = inputs.as_str().as_bytes().to_vec().into();
            self.log
                .put_object(&name, bytes)
                .await
                .map_err(unreachable)?;
            Carried::Object(name)
        });
        Ok(())
    }
}

fn unreachable(error: swarm_log::LogError) -> Missing {
    Missing::Now(Problem::new("log-unreachable", error.to_string()))
}
fn gone(detail: String) -> Missing {
    Missing::Forever(detail)
}

fn value_of(body: Body) -> Option<Carried> {
    match body {
        Body::TaskSubmitted(submitted) => Some(Carried::Inline(submitted.payload)),
        Body::TaskCompleted(completed) => Some(completed.result),
        _ => None,
    }
}

/// One JSON object of named values, each as it came.
fn object_of(values: &[(&str, Json)]) -> Result<Json, serde_json::Error> {
    let mut object = std::collections::BTreeMap::new();
    for (name, value) in values {
        object.insert(*name, serde_json::from_str::<&RawValue>(value.as_str())?);
    }
    Json::from_value(&object)
}

impl<L: Log> Shell<Distributor> for DistributorShell<L> {
    fn met(&mut self, _: &Distributor, input: &Input, verdict: Verdict) {
        let (Input::Event(recorded), Verdict::Applied) = (input, verdict) else {
            return;
        };
        match &recorded.event.body {
            Body::TaskSubmitted(s) if s.payload.len() > PAYLOAD_HELD_BYTES_MAX => {
                self.recent
                    .insert(recorded.sequence, Carried::Inline(s.payload.clone()));
            }
            Body::TaskCompleted(c) => self.recent.insert(recorded.sequence, c.result.clone()),
            _ => {}
        }
    }

    async fn hydrate(&self, mut decision: Decision) -> Result<Decision, Problem> {
        let Some(hydrate) = decision.hydrate.take() else {
            return Ok(decision);
        };
        let Body::TaskAssigned(assigned) = &mut decision.body else {
            return Ok(decision);
        };
        match self.fill(decision.about, assigned, &hydrate).await {
            Ok(()) => Ok(decision),
            Err(Missing::Now(problem)) => Err(problem),
            Err(Missing::Forever(detail)) => {
                // Such a task can never run. Its end is written in place of the assignment: both are valid for a queued
                // task, and the place that was promised is free again when this is met.
                warn!(task.id = %decision.about, detail, "what the task needs is gone");
                let failed = Failed {
                    attempts: assigned.attempt.saturating_sub(1),
                    generation: assigned.generation,
                    error: format!("what the task needs cannot be read any more: {detail}"),
                    dead_lettered: true,
                    because_of: None,
                    path: Vec::new(),
                };
                if let Subject::Task(place, ..) = decision.subject {
                    decision.subject = Subject::Task(place, TaskVerb::Failed, None);
                }
                decision.body = failed.into();
                Ok(decision)
            }
        }
    }
}
