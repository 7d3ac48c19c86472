//! What goes to other swarms: tasks that are handed over, what came of them, and that they are wanted no more.
//!
//! A pure function of the state: each letter follows from one event, and is in the state from there until the log says that
//! it is stored where it goes ([`swarm_events::control::Observed::Delivered`]). A new owner says again what is left. Its
//! ids derive from what it says, so that a repeat is void wherever it is met.

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Event, EventId, Place, Subject, SwarmId, TaskId, Timestamp,
    command::{self, HandBack},
    envelope::Source,
    ids::derived,
    subject::{CommandVerb, TaskVerb},
    task::{ERROR_BYTES_MAX, Origin, REASON_BYTES_MAX, Submitted, handed_id},
};
use uuid::Uuid;

use crate::{
    state::Distributor,
    swarm::{End, cut},
    task::{How, Task},
};

/// How a task ended that was done for another swarm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Returned {
    Completed,
    Failed(Box<str>),
    Cancelled(Box<str>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Says {
    /// A task is another swarm's to do, as it was submitted at that sequence.
    Do { submitted: u64 },
    /// It is wanted no more.
    Stop { reason: Box<str> },
    /// What came of it: completed by the event at the letter's own sequence, or not.
    Done(Returned),
}

/// Something that another swarm is to be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Letter {
    /// Whose task it is about.
    origin: Origin,
    /// Who says it.
    from: Place,
    to: SwarmId,
    correlation: Uuid,
    trace: Option<Box<str>>,
    says: Says,
}

/// A task as others know it to which it is handed.
pub(crate) fn origin_of(place: Place, task: &Task) -> Origin {
    Origin {
        swarm_id: place.swarm,
        task_id: task.id,
        generation: task.generation,
        hops: task.hops() + 1,
    }
}

/// What the end of a task means to another swarm: the one that it was done for, or the one that does it.
pub(crate) fn last_word(place: Place, task: &Task, end: &End) -> Option<Letter> {
    let text = |bytes| Box::from(cut(end.error.as_deref().unwrap_or_default(), bytes));
    let letter = |origin, to, trace, says| Letter {
        origin,
        from: place,
        to,
        correlation: task.correlation(),
        trace,
        says,
    };
    if let Some(done_for) = task.done_for() {
        let how = match end.how {
            How::Completed => Returned::Completed,
            How::Failed { .. } | How::Rejected => Returned::Failed(text(ERROR_BYTES_MAX)),
            How::Cancelled => Returned::Cancelled(text(REASON_BYTES_MAX)),
        };
        let (origin, trace) = (done_for.origin, done_for.trace.clone());
        return Some(letter(origin, origin.swarm_id, trace, Says::Done(how)));
    }
    let hand = task.hand().filter(|hand| hand.away)?;
    let says = Says::Stop {
        reason: text(REASON_BYTES_MAX),
    };
    let origin = origin_of(place, task);
    Some(letter(origin, hand.to, hand.trace.clone(), says))
}

impl Letter {
    /// A task was handed over.
    pub(crate) fn handed(place: Place, task: &Task) -> Option<Self> {
        let hand = task.hand()?;
        Some(Self {
            origin: origin_of(place, task),
            from: place,
            to: hand.to,
            correlation: task.correlation(),
            trace: hand.trace.clone(),
            says: Says::Do {
                submitted: task.submitted,
            },
        })
    }
    /// No task could come of what was handed over here.
    pub(crate) fn refused(
        from: Place,
        origin: Origin,
        correlation: Uuid,
        trace: Option<Box<str>>,
        why: &str,
    ) -> Self {
        Self {
            origin,
            from,
            to: origin.swarm_id,
            correlation,
            trace,
            says: Says::Done(Returned::Failed(cut(why, ERROR_BYTES_MAX).into())),
        }
    }

    fn outcome(&self, how: &Returned, read: Result<Body, String>) -> command::Outcome {
        match how {
            Returned::Completed => match read {
                Ok(Body::TaskCompleted(completed)) => command::Outcome::Completed {
                    result: completed.result,
                },
                Ok(_) => command::Outcome::Failed {
                    error: "its result cannot be found any more".to_owned(),
                },
                Err(why) => command::Outcome::Failed {
                    error: format!("its result cannot be read any more: {why}"),
                },
            },
            Returned::Failed(error) => command::Outcome::Failed {
                error: error.to_string(),
            },
            Returned::Cancelled(reason) => command::Outcome::Cancelled {
                reason: reason.to_string(),
            },
        }
    }

    /// Where it goes, what it is about, and what it says.
    fn message(&self, read: Result<Body, String>) -> (Subject, Uuid, Body) {
        let there = |swarm| Place::new(self.from.org, swarm);
        let back = |to, by, outcome| {
            let body = HandBack {
                task_id: self.origin.task_id,
                generation: self.origin.generation,
                by,
                outcome,
            };
            let subject = Subject::Command(there(to), CommandVerb::HandBack);
            (subject, self.origin.task_id.0, body.into())
        };
        match &self.says {
            Says::Do { .. } => match read {
                Ok(Body::TaskSubmitted(task)) => {
                    let id = handed_id(&self.origin);
                    let subject = Subject::Task(there(self.to), TaskVerb::Submitted, None);
                    (subject, id.0, handed(task, self.origin).into())
                }
                other => {
                    // It can be told to nobody what is to be done: that is the end of it, here.
                    let why = other
                        .err()
                        .unwrap_or_else(|| "it is another event".to_owned());
                    let error = format!("its submission cannot be read any more: {why}");
                    back(self.from.swarm, self.to, command::Outcome::Failed { error })
                }
            },
            Says::Stop { reason } => {
                let id = handed_id(&self.origin);
                let body = command::Cancel {
                    task_id: id,
                    reason: Some(reason.to_string()),
                };
                let subject = Subject::Command(there(self.to), CommandVerb::Cancel);
                (subject, id.0, body.into())
            }
            Says::Done(how) => back(self.to, self.from.swarm, self.outcome(how, read)),
        }
    }
}

/// What another swarm is to do: what does not belong to this one's own order of things.
fn handed(task: Submitted, origin: Origin) -> Submitted {
    Submitted {
        parent_task_id: None,
        depends_on: Vec::new(),
        key: None,
        graph: None,
        hand_to: None,
        body_sha256: None,
        origin: Some(origin),
        ..task
    }
}

/// A letter that is to be sent.
#[derive(Clone, Debug)]
pub struct Post {
    /// Sequence of the event that it follows from: its name in this partition.
    pub sequence: u64,
    letter: Letter,
}
impl Post {
    /// Sequence of the event that has to be read for it: the submission of a task that is handed over, the result of one that
    /// is handed back.
    pub fn reads(&self) -> Option<u64> {
        match &self.letter.says {
            Says::Do { submitted } => Some(*submitted),
            Says::Done(Returned::Completed) => Some(self.sequence),
            Says::Stop { .. } | Says::Done(_) => None,
        }
    }

    /// The task here that it is about: letters about one are sent one after another, so that none is called off before it is
    /// handed over.
    pub fn task(&self) -> (SwarmId, TaskId, u32) {
        let origin = &self.letter.origin;
        (origin.swarm_id, origin.task_id, origin.generation)
    }

    /// The event and where it goes. Each time it is said it has the same id. `read` is what stands at [`Post::reads`], or why
    /// it cannot be read any more (nothing of it is looked at where that is none).
    pub fn event(
        &self,
        source: Source,
        time: Timestamp,
        read: Result<Body, String>,
    ) -> (Subject, Event) {
        let letter = &self.letter;
        let (subject, about, body) = letter.message(read);
        let origin = &letter.origin;
        let parts: [&[u8]; 5] = [
            origin.swarm_id.0.as_bytes(),
            origin.task_id.0.as_bytes(),
            &origin.generation.to_be_bytes(),
            letter.from.swarm.0.as_bytes(),
            &self.sequence.to_be_bytes(),
        ];
        let id = EventId(derived(body.type_name(), &parts));
        let mut event = Event::new(id, source, time, &subject, about, body);
        event.correlation = Some(letter.correlation);
        event.traceparent = letter.trace.as_deref().map(str::to_owned);
        (subject, event)
    }
}

impl Distributor {
    /// What is to be sent and not known to be stored, behind the letter of sequence `behind`, in the order of the log.
    pub fn letters(&self, behind: u64) -> impl Iterator<Item = Post> {
        self.letters
            .range(behind.saturating_add(1)..)
            .map(|(&sequence, letter)| Post {
                sequence,
                letter: letter.clone(),
            })
    }

    /// The letter that followed from the event at `sequence`, if it is still to be sent.
    pub fn letter(&self, sequence: u64) -> Option<Post> {
        let letter = self.letters.get(&sequence)?.clone();
        Some(Post { sequence, letter })
    }

    /// Whether a task that was handed over is still to be told of where it goes.
    pub(crate) fn is_handing(&self, origin: &Origin) -> bool {
        self.letters
            .values()
            .any(|letter| letter.origin == *origin && matches!(letter.says, Says::Do { .. }))
    }

    /// How many letters are to be sent.
    pub fn letters_open(&self) -> usize {
        self.letters.len()
    }
}
