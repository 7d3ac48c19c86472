//! Fills in what an assignment carries and the state does not hold: large payloads, and results of data dependencies.

use futures::{StreamExt, TryStreamExt, stream};
use serde_json::value::RawValue;
use swarm_distributor_core::{
    Distributor, PAYLOAD_HELD_BYTES_MAX,
    carried::{payload_of, result_of},
};
use swarm_events::{
    Body, Event, Input, Json, Partition, Problem, Subject, TaskId, Timestamp,
    control::Observed,
    decider::{Decision, Hydrate, Verdict},
    ids::InstanceId,
    read,
    subject::TaskVerb,
    task::{Assigned, Carried, Failed, HandedBack, INPUTS_BYTES_MAX, Step, part_id},
};
use swarm_log::{Log, LogError};
use swarm_runtime::Shell;
use tokio::sync::mpsc;
use tracing::warn;
use uuid::Uuid;

use crate::{outbox::Outbox, recent::Recent};

/// Most inputs of an assignment that are read at a time. Each read is a round trip, and a reduce has a thousand of them; more
/// at once only queue up at the server, and each may bring a quarter of a megabyte.
pub const READS_AT_ONCE: usize = 32;

/// The distributor's impure side.
pub struct DistributorShell<L> {
    log: L,
    recent: Recent,
    outbox: Outbox<L>,
}

/// Why a value is not to be had.
enum Missing {
    /// The log cannot be reached now.
    Now(Problem),
    /// It is not there and will not be.
    Forever(String),
}

impl<L: Log> DistributorShell<L> {
    /// The shell of process `instance`, which reads from `log` and tells other swarms through it.
    pub fn new(log: L, instance: InstanceId) -> Self {
        Self {
            outbox: Outbox::new(log.clone(), instance),
            log,
            recent: Recent::default(),
        }
    }

    async fn event(&self, sequence: u64) -> Result<Event, Missing> {
        match event_at(&self.log, sequence).await.map_err(unreachable)? {
            Ok(event) => Ok(event),
            Err(why) => Err(gone(why)),
        }
    }

    /// The result of the `completed`, `handed_back` or `hand_back` at `sequence`.
    async fn result(&self, sequence: u64) -> Result<Carried, Missing> {
        if let Some(value) = self.recent.get(sequence, Uuid::nil()) {
            return Ok(value.clone());
        }
        let event = self.event(sequence).await?;
        result_of(event.body).ok_or_else(|| no_value(sequence))
    }

    /// The payload of a task, in the `submitted` or `split` at `sequence`.
    async fn payload(&self, about: Uuid, sequence: u64) -> Result<Json, Missing> {
        if let Some(Carried::Inline(payload)) = self.recent.get(sequence, about) {
            return Ok(payload.clone());
        }
        let event = self.event(sequence).await?;
        payload_of(event, about).ok_or_else(|| no_value(sequence))
    }

    /// The value's text, wherever it is.
    async fn text(&self, value: Carried) -> Result<Json, Missing> {
        match value {
            Carried::Inline(json) => Ok(json),
            Carried::AtSequence(sequence) => match self.result(sequence).await? {
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
        let result = self.result(*sequence).await?;
        Ok((alias, self.text(result).await?))
    }

    async fn fill(
        &self,
        about: Uuid,
        assigned: &mut Assigned,
        hydrate: &Hydrate,
    ) -> Result<(), Missing> {
        if let Some(sequence) = hydrate.payload_from {
            assigned.payload = Carried::Inline(self.payload(about, sequence).await?);
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
            // The same task, generation, step and attempt has the same inputs: putting them twice changes nothing.
            let step = match assigned.step {
                Step::Work => "",
                Step::Reduce => ".reduce",
            };
            let name = format!(
                "inputs.{about}.{}.{}{step}",
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

    /// The result that another swarm handed back, in this one's own words.
    async fn take_over(&self, back: &mut HandedBack, hydrate: &Hydrate) -> Result<(), Missing> {
        if let Some(sequence) = hydrate.payload_from {
            back.result = self.result(sequence).await?;
        }
        Ok(())
    }
}

/// The event at `sequence`, or why it cannot be read, now or ever.
///
/// # Errors
/// The log cannot be reached now.
pub(crate) async fn event_at<L: Log>(
    log: &L,
    sequence: u64,
) -> Result<Result<Event, String>, LogError> {
    let Some(stored) = log.get(sequence).await? else {
        return Ok(Err(format!("nothing is stored at sequence {sequence}")));
    };
    let time = Timestamp::from_micros(stored.time_micros);
    Ok(
        match read(sequence, time, &stored.subject, &stored.payload) {
            Input::Event(recorded) => Ok(recorded.event),
            Input::Unreadable(unreadable) => Err(unreadable.problem.to_string()),
        },
    )
}

fn unreachable(error: LogError) -> Missing {
    Missing::Now(Problem::new("log-unreachable", error.to_string()))
}
fn gone(detail: String) -> Missing {
    Missing::Forever(detail)
}
fn no_value(sequence: u64) -> Missing {
    gone(format!(
        "the event at sequence {sequence} carries no such value"
    ))
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
    fn met(&mut self, state: &Distributor, input: &Input, verdict: Verdict) {
        let (Input::Event(recorded), Verdict::Applied) = (input, verdict) else {
            return;
        };
        self.outbox.met(state, recorded);
        let (sequence, about) = (recorded.sequence, recorded.event.about);
        match &recorded.event.body {
            Body::TaskSubmitted(s) if s.payload.len() > PAYLOAD_HELD_BYTES_MAX => {
                let payload = Carried::Inline(s.payload.clone());
                self.recent.insert(sequence, about, payload);
            }
            Body::TaskSplit(split) => {
                let large = (0..).zip(&split.parts);
                for (index, part) in large.filter(|(_, p)| p.payload.len() > PAYLOAD_HELD_BYTES_MAX)
                {
                    let id = part_id(TaskId(about), split.assignment, index);
                    let payload = Carried::Inline(part.payload.clone());
                    self.recent.insert(sequence, id.0, payload);
                }
            }
            body @ (Body::TaskCompleted(_) | Body::TaskHandedBack(_) | Body::HandBack(_)) => {
                if let Some(result) = result_of(body.clone()) {
                    self.recent.insert(sequence, Uuid::nil(), result);
                }
            }
            _ => {}
        }
    }

    fn owned(&mut self, state: &Distributor) {
        self.outbox.owned(state);
    }

    fn lost(&mut self, partition: Partition) {
        self.outbox.lost(partition);
    }

    fn observations(&mut self) -> Option<mpsc::Receiver<(Partition, Observed)>> {
        self.outbox.start()
    }

    async fn hydrate(&self, mut decision: Decision) -> Result<Decision, Problem> {
        let Some(hydrate) = decision.hydrate.take() else {
            return Ok(decision);
        };
        let about = decision.about;
        // Such a task can never run, or has no result that could be had. Its end is written in place of what was decided:
        // both are valid for it, and the place that was promised is free again when this is met.
        let (attempts, generation, filled) = match &mut decision.body {
            Body::TaskAssigned(assigned) => (
                assigned.attempt.saturating_sub(1),
                assigned.generation,
                self.fill(about, assigned, &hydrate).await,
            ),
            Body::TaskHandedBack(back) => {
                (0, back.generation, self.take_over(back, &hydrate).await)
            }
            _ => return Ok(decision),
        };
        match filled {
            Ok(()) => Ok(decision),
            Err(Missing::Now(problem)) => Err(problem),
            Err(Missing::Forever(detail)) => {
                warn!(task.id = %about, detail, "what the task needs is gone");
                let failed = Failed {
                    attempts,
                    generation,
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
