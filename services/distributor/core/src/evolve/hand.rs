//! Work that goes from swarm to swarm.

use swarm_events::{
    Body, Place, Problem, Recorded, Service, TaskId,
    command::{self, HandBack},
    control::Observed,
    decider::Verdict,
    envelope::Source,
    planted::{self, Bug},
    task::{
        DependencyType, ERROR_BYTES_MAX, HAND_OVERS_MAX, HandedOver, Origin, REASON_BYTES_MAX,
        Submitted, handed_id,
    },
};

use crate::{
    check::wrong,
    outbox::{Letter, Returned},
    state::{Back, Distributor, Wanted},
    swarm::{Swarm, cut},
    task::{For, Hand, Phase, Task},
    trace::Trace,
};

/// Longest `traceparent` that is kept, in bytes: the W3C's version 0 has 55.
const TRACE_BYTES_MAX: usize = 128;

/// The trace that a submission belongs to.
pub(super) fn trace_of(recorded: &Recorded) -> Option<Box<str>> {
    let trace = recorded.event.traceparent.as_deref()?;
    (trace.len() <= TRACE_BYTES_MAX).then(|| trace.into())
}

/// The task of another swarm that a submission is done for. Only a distributor may say so, and only of the id that follows.
pub(super) fn origin(recorded: &Recorded, submitted: &Submitted) -> Option<Origin> {
    let origin = submitted.origin?;
    let rightful = matches!(
        recorded.event.source,
        Source::Service(Service::Distributor, _)
    );
    (rightful && handed_id(&origin).0 == recorded.event.about).then_some(origin)
}

/// Checks what a submission says of other swarms.
///
/// # Errors
/// The first field that is wrong.
pub(super) fn check_hand(
    place: Place,
    recorded: &Recorded,
    submitted: &Submitted,
    hops: u8,
) -> Result<(), Problem> {
    if let Some(said) = &submitted.origin {
        if origin(recorded, submitted).is_none() {
            return Err(wrong(
                "origin",
                "is for distributors to write, of tasks that they hand over",
                "leave it out, and use hand_to in the other swarm",
            ));
        }
        if said.swarm_id == place.swarm {
            return Err(wrong(
                "origin",
                "is this swarm itself",
                "hand it to another",
            ));
        }
        if submitted.hand_to.is_some() || submitted.graph.is_some() {
            return Err(wrong(
                "origin",
                "a task that was handed over comes alone, and is done here",
                "hand it over where it was submitted",
            ));
        }
        if said.hops > HAND_OVERS_MAX {
            return Err(too_long("origin"));
        }
    }
    let Some(to) = submitted.hand_to else {
        return Ok(());
    };
    if to == place.swarm {
        return Err(wrong(
            "hand_to",
            "is this swarm itself",
            "leave it out: it is done here",
        ));
    }
    if hops >= HAND_OVERS_MAX {
        return Err(too_long("hand_to"));
    }
    let data = |edge: &swarm_events::task::Dependency| edge.dependency_type == DependencyType::Data;
    match submitted.depends_on.iter().position(data) {
        None => Ok(()),
        Some(n) => Err(wrong(
            format!("depends_on[{n}].dependency_type"),
            "a result cannot go along to another swarm",
            "use success, and pass what is needed by reference in the payload",
        )),
    }
}

fn too_long(field: &str) -> Problem {
    Problem::new(
        "handed-on-too-often",
        format!("the work was handed on {HAND_OVERS_MAX} times to come here"),
    )
    .field(field)
    .cure("do it here: two swarms that hand everything to each other never end")
}

impl Back {
    pub(super) fn of(back: &HandBack) -> Self {
        // What is held until the command is answered is no more than is written.
        let how = match &back.outcome {
            command::Outcome::Completed { .. } => Returned::Completed,
            command::Outcome::Failed { error } => {
                Returned::Failed(cut(error, ERROR_BYTES_MAX).into())
            }
            command::Outcome::Cancelled { reason } => {
                Returned::Cancelled(cut(reason, REASON_BYTES_MAX).into())
            }
        };
        Self {
            by: back.by,
            generation: back.generation,
            how,
        }
    }
}

impl Swarm {
    /// How often work was handed on that is done for a task of this swarm.
    pub(super) fn hops_of(&self, parent: Option<TaskId>) -> u8 {
        let Some(parent) = parent else {
            return 0;
        };
        let live = self.task(parent).map(|(_, task)| task);
        let ended = || self.ended.get(&parent)?.definition.as_deref();
        live.or_else(ended).map_or(0, Task::hops)
    }

    /// Notes what a checked submission says of other swarms.
    pub(super) fn note_hands(&self, task: &mut Task, recorded: &Recorded, submitted: &Submitted) {
        let hops = self.hops_of(submitted.parent_task_id);
        if hops > 0 {
            task.more_mut().hops = hops;
        }
        if let Some(to) = submitted.hand_to {
            task.more_mut().hand = Some(Box::new(Hand {
                to,
                away: false,
                trace: trace_of(recorded),
            }));
        }
    }

    /// Notes whom it is done for, valid or not: they wait for its end.
    pub(super) fn note_origin(task: &mut Task, recorded: &Recorded, submitted: &Submitted) {
        if let Some(origin) = origin(recorded, submitted) {
            let more = task.more_mut();
            more.hops = origin.hops;
            more.done_for = Some(Box::new(For {
                origin,
                trace: trace_of(recorded),
            }));
        }
    }
}

impl Distributor {
    /// Nothing can come of a submission: whoever handed it over is told.
    pub(super) fn tell_refused(
        &mut self,
        place: Place,
        recorded: &Recorded,
        submitted: &Submitted,
        why: &Problem,
    ) {
        let Some(origin) = origin(recorded, submitted) else {
            return;
        };
        let correlation = recorded.event.correlation.unwrap_or(origin.task_id.0);
        let trace = trace_of(recorded);
        let letter = Letter::refused(place, origin, correlation, trace, &why.to_string());
        self.letters.insert(recorded.sequence, letter);
    }

    pub(super) fn handed_over(
        &mut self,
        swarm: u32,
        id: TaskId,
        over: &HandedOver,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some((at, task)) = state.task(id) else {
            return Verdict::Void("not-live");
        };
        if task.phase != Phase::Handing || task.hand().map(|hand| hand.to) != Some(over.to) {
            return Verdict::Void("not-to-be-handed-over");
        }
        if task.generation != over.generation {
            return Verdict::Void("other-generation");
        }
        let letter = Letter::handed(state.place, task);
        if let Some(hand) = state
            .tasks
            .get_mut(at)
            .and_then(|task| task.more_mut().hand.as_mut())
        {
            hand.away = true;
        }
        let here = planted::is(Bug::HandedOverStaysHere);
        let phase = if here { Phase::Queued } else { Phase::Away };
        state.set_phase(at, phase, moment, trace);
        if let Some(letter) = letter {
            self.letters.insert(moment.sequence, letter);
        }
        Verdict::Applied
    }

    /// Whether what was met answers the swarm that a task was handed to: it need not be told of the end.
    pub(super) fn answers_hand_back(&self, trace: &Trace) -> bool {
        let command = trace.met.and_then(|met| met.command);
        command
            .and_then(|sequence| self.commands.get(&sequence))
            .is_some_and(|command| matches!(command.wanted, Wanted::HandBack(_)))
    }

    /// A task that was handed over is with the other swarm no more.
    pub(super) fn is_back(&mut self, swarm: u32, at: u32) {
        let task = self
            .swarms
            .get_mut(swarm as usize)
            .and_then(|state| state.tasks.get_mut(at));
        if let Some(hand) = task.and_then(|task| task.more.as_mut()?.hand.as_mut()) {
            hand.away = false;
        }
    }

    /// Letters are stored where they go.
    pub(super) fn delivered(&mut self, body: &Body, _: &mut Trace) -> Verdict {
        let Body::Observed(Observed::Delivered { sequences }) = body else {
            return Verdict::Ignored;
        };
        let before = self.letters.len();
        for sequence in sequences {
            self.letters.remove(sequence);
        }
        if self.letters.len() == before {
            return Verdict::Void("nothing-to-deliver");
        }
        Verdict::Applied
    }
}
