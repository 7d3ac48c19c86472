//! What a model agent's handlers do: what comes of a task, what they ask, and how they tell of their progress.

use std::sync::Arc;

use futures::FutureExt;
use rand::{Rng, rngs::StdRng};
use swarm_agent_sdk::protocol::{Assignment, Outcome};
use swarm_audit::{Invariant, Violation};
use swarm_events::{
    Body, Event, EventId, Json, Subject, Timestamp,
    envelope::Source,
    message::{Answerer, Ask},
    subject::{CommandVerb, TaskVerb},
    task::{self, Carried, Part, Step},
};
use swarm_log::{Log, Message};

use super::{ModelAgent, Run};
use crate::{
    clock::{Clock, new_id},
    journal::Journal,
    world::Faultiness,
};

impl ModelAgent {
    pub(super) fn run(
        &mut self,
        assignment: &Arc<Assignment>,
        clock: &Clock,
        journal: &Journal,
        rng: &mut StdRng,
        faults: Faultiness,
    ) {
        self.judge(assignment.sequence, journal);
        let fast = self.fails_fast && faults.failing > 0;
        let outcome = if fast {
            Outcome::failed("the model always says no", true)
        } else if rng.random_ratio(faults.declining, 1_000) {
            Outcome::declined("not for this model")
        } else if rng.random_ratio(faults.failing, 1_000) {
            Outcome::failed("the model says no", rng.random_ratio(9, 10))
        } else if assignment.data.step == Step::Work && rng.random_ratio(faults.splitting, 1_000) {
            Outcome::Split(parts(rng))
        } else {
            Outcome::Completed(Carried::Inline(Json::from(
                serde_json::json!({"by": self.name}),
            )))
        };
        // Some outlive their time limit without a word, and some take long and tell of it.
        let (takes, tells) = if fast {
            (rng.random_range(0..60_000), None)
        } else if rng.random_ratio(faults.slow, 1_000) {
            (8_000_000, None)
        } else if rng.random_ratio(faults.telling, 1_000) {
            (rng.random_range(500_000..3_000_000), Some(clock.micros()))
        } else {
            (rng.random_range(0..400_000), None)
        };
        if rng.random_ratio(faults.asking, 1_000) {
            self.ask(assignment.sequence, clock, rng);
        }
        let run = Run {
            ends: clock.micros() + takes,
            outcome,
            task: assignment.task,
            tells,
        };
        self.running.insert(assignment.sequence, run);
    }

    /// Asks a person something. Nobody waits for the answer.
    fn ask(&self, assignment: u64, clock: &Clock, rng: &mut StdRng) {
        let subject = Subject::Command(self.place, CommandVerb::Ask);
        let choices = ["yes", "no"].map(str::to_owned).to_vec();
        let body = Ask {
            incarnation: self.incarnation,
            assignment: Some(assignment),
            answerer: Answerer::default(),
            question: "Is it so?".to_owned(),
            choices: if rng.random() { choices } else { Vec::new() },
            default: rng
                .random::<bool>()
                .then(|| Json::from(serde_json::json!("no"))),
            timeout_ms: rng.random_range(1..3_000),
        };
        let (id, time) = (new_id(clock, rng), Timestamp::from_micros(clock.wall()));
        let source = Source::Agent(self.id);
        let event = Event::new(EventId(id), source, time, &subject, self.id.0, body);
        let message = Message {
            subject: subject.to_string(),
            payload: event.to_json().expect("JSON").into(),
            message_id: Some(id.to_string()),
            fence: None,
        };
        drop(self.log.append(vec![message]).now_or_never());
    }

    /// Tells how far the handlers are that do so.
    pub(super) fn report(&mut self, clock: &Clock, rng: &mut StdRng) {
        let now = clock.micros();
        let subject = Subject::Task(self.place, TaskVerb::Progressed, Some(self.id));
        for (assignment, run) in &mut self.running {
            if run.tells.is_none_or(|at| at > now) {
                continue;
            }
            run.tells = Some(now + rng.random_range(100_000..700_000));
            let body = task::Progressed {
                assignment: *assignment,
                incarnation: self.incarnation,
                percent: Some(50),
                message: None,
            };
            let (id, time) = (new_id(clock, rng), Timestamp::from_micros(clock.wall()));
            let source = Source::Agent(self.id);
            let event = Event::new(EventId(id), source, time, &subject, run.task.0, body);
            let message = Message {
                subject: subject.to_string(),
                payload: event.to_json().expect("JSON").into(),
                message_id: Some(id.to_string()),
                fence: None,
            };
            // Whether it arrives or not, nobody waits for it.
            drop(self.log.append(vec![message]).now_or_never());
        }
    }

    /// Whether a handler may be started.
    fn judge(&mut self, assignment: u64, journal: &Journal) {
        let withdrawn = journal
            .on(&self.subject(TaskVerb::Withdrawn))
            .find_map(|met| match &met.recorded()?.event.body {
                Body::TaskWithdrawn(w) if w.assignment == assignment => Some(met.sequence()),
                _ => None,
            });
        let started = journal
            .on(&self.subject(TaskVerb::Started))
            .find_map(|met| match &met.recorded()?.event.body {
                Body::TaskStarted(s) if s.assignment == assignment => Some(met.sequence()),
                _ => None,
            });
        let found = match (started, withdrawn) {
            (None, _) => Some((
                Invariant::NoStartAfterWithdrawal,
                format!("{assignment} runs and was not started"),
            )),
            (Some(s), Some(w)) if w < s => Some((
                Invariant::NoStartAfterWithdrawal,
                format!("{assignment} was withdrawn at {w} and started at {s}"),
            )),
            _ if !self.ran.insert(assignment) => Some((
                Invariant::OneStart,
                format!("the handler of {assignment} was started before"),
            )),
            _ => None,
        };
        self.found = self
            .found
            .take()
            .or(found.map(|(invariant, detail)| Violation {
                invariant,
                sequence: journal.last_sequence(),
                detail: format!("{}: {detail}", self.name),
            }));
    }
}

/// Parts of a task; now and then of the same name, which is refused.
fn parts(rng: &mut StdRng) -> Vec<Part> {
    let same = rng.random_ratio(1, 12);
    let part = |n: u32| Part {
        key: format!("part {}", if same { 0 } else { n }),
        task_type: "part".to_owned(),
        payload: Json::from(serde_json::json!({"n": n})),
        priority: None,
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: Some(2),
        timeout_ms: Some(5_000),
    };
    (0..rng.random_range(1..4)).map(part).collect()
}
