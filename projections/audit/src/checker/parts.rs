//! What is promised of tasks that are split into parts, and of those that another swarm does.

use std::collections::BTreeSet;

use swarm_events::{
    AgentId, Place, Recorded, SwarmId, TaskId,
    agent::CAPABILITIES_MAX,
    configuration::ATTEMPTS_MAX,
    task::{
        HandedBack, HandedOver, KEY_BYTES_MAX, Origin, PARTS_MAX, PAYLOAD_BYTES_MAX,
        PRIORITY_RANGE, Part, SPLIT_DEPTH_MAX, Split, Step, TYPE_CHARS_MAX, handed_id, part_id,
    },
    topology::{Role, Topology},
};

use super::{
    Checker,
    cause::{Facts, News},
    submissions::new_task,
    swarm::{End, State, Task},
};
use crate::Invariant;

type Outcome = Result<(), &'static str>;

/// What a task fails with that was split in a way in which it cannot be.
const NOT_SPLIT: &str = "it could not be split";

/// The parts of a task.
#[derive(Clone, Debug)]
pub(super) struct Parts {
    /// The assignment under which it was split, and the agent that did.
    assignment: u64,
    pub(super) by: AgentId,
    ids: Vec<TaskId>,
    /// How many have not completed.
    open: usize,
    /// One of them ended without a result.
    bad: bool,
}

/// What a part is a part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct PartOf {
    pub(super) parent: TaskId,
    assignment: u64,
    depth: u8,
}

/// Whether a part by itself is none.
fn malformed(part: &Part) -> bool {
    let within = |length: usize, most: usize| length == 0 || length > most;
    within(part.key.len(), KEY_BYTES_MAX)
        || within(part.task_type.chars().count(), TYPE_CHARS_MAX)
        || part.payload.len() > PAYLOAD_BYTES_MAX
        || part.priority.is_some_and(|p| !PRIORITY_RANGE.contains(&p))
        || part.required_capabilities.len() > CAPABILITIES_MAX
        || part
            .max_attempts
            .is_some_and(|n| n == 0 || n > ATTEMPTS_MAX)
}

/// Whether a task is surely not split in this way.
fn refused(task: &Task, split: &Split) -> bool {
    let mut keys = BTreeSet::new();
    task.parts.is_some()
        || task.part_of.is_some_and(|of| of.depth >= SPLIT_DEPTH_MAX)
        || split.parts.is_empty()
        || split.parts.len() > PARTS_MAX
        || split
            .parts
            .iter()
            .any(|part| malformed(part) || !keys.insert(&part.key))
}

impl Checker {
    /// The agent that runs a task hands it on in parts: its assignment has ended, and they exist from here on.
    pub(super) fn split(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        recorded: &Recorded,
        split: &Split,
    ) {
        let sequence = recorded.sequence;
        let swarm = &mut self.swarms[number];
        let Some(task) = swarm.tasks.get(&id) else {
            return;
        };
        if refused(task, split) {
            self.note_attempt_of(number, agent, true, sequence);
            self.set(number, id, State::Between, sequence);
            return;
        }
        self.notes.checked(Invariant::PartsEndOnce);
        let (parent, depth) = (
            task.facts.clone(),
            task.part_of.map_or(0, |of| of.depth) + 1,
        );
        // Whether the queue had room for them shows with what is decided next; if it is not full by far, it had.
        let admits = swarm.settings.at(u64::MAX).map_or(0, |s| s.admits);
        let vague = (swarm.tasks.len() + split.parts.len()) as u64 > admits;
        let inner = swarm.shape.as_deref().is_some_and(|shape| {
            matches!(shape.topology(), Topology::Hierarchical(_))
                && shape.role(agent).is_some_and(|role| role != Role::Worker)
        });
        let within = if inner { Some(agent) } else { parent.within };
        let mut ids = Vec::with_capacity(split.parts.len());
        for (index, part) in (0..).zip(&split.parts) {
            let part_of = PartOf {
                parent: id,
                assignment: split.assignment,
                depth,
            };
            let facts = Facts {
                submitted: sequence,
                priority: part.priority.unwrap_or(parent.priority),
                required: swarm.class(part.required_capabilities.clone()),
                queue_timeout_ms: None,
                progress_timeout_ms: None,
                key: format!("type {}", part.task_type).into(),
                role: part.required_role,
                within,
                vague,
            };
            let of = part_id(id, split.assignment, index);
            let task = Task {
                part_of: Some(part_of),
                ..new_task(recorded, facts, State::Waiting)
            };
            swarm.tasks.insert(of, task);
            ids.push(of);
        }
        if let Some(task) = swarm.tasks.get_mut(&id) {
            task.parts = Some(Box::new(Parts {
                assignment: split.assignment,
                by: agent,
                open: ids.len(),
                ids: ids.clone(),
                bad: false,
            }));
            task.attempt = 0;
        }
        self.note_attempt_of(number, agent, false, sequence);
        self.set(number, id, State::Parted, sequence);
        for id in ids {
            self.begins(number, id, sequence);
        }
    }

    /// A task has ended: what that is to the one that it is a part of, and to its own parts.
    pub(super) fn part_ended(&mut self, number: usize, id: TaskId, end: End, recorded: &Recorded) {
        let sequence = recorded.sequence;
        let swarm = &mut self.swarms[number];
        let now = self.homes[swarm.home].now;
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return;
        };
        // It has no parts any more: what lives of them is called off.
        let (own, of) = (task.parts.take(), task.part_of);
        if let Some(own) = own {
            self.call_off_parts(number, &own.ids, sequence);
        }
        let Some(of) = of else {
            return;
        };
        let Some(parent) = self.swarms[number].tasks.get_mut(&of.parent) else {
            return;
        };
        // Of an earlier generation, or of a task that is to end already.
        if parent.state != State::Parted {
            return;
        }
        let Some(parts) = &mut parent.parts else {
            return;
        };
        if parts.assignment != of.assignment {
            return;
        }
        if end == End::Completed {
            parts.open = parts.open.saturating_sub(1);
            if parts.open == 0 {
                parent.requeued_at = now;
                self.set(number, of.parent, State::Waiting, sequence);
            }
            return;
        }
        parts.bad = true;
        let rest = parts.ids.clone();
        self.set(number, of.parent, State::Between, sequence);
        self.call_off_parts(number, &rest, sequence);
    }

    fn call_off_parts(&mut self, number: usize, ids: &[TaskId], sequence: u64) {
        for id in ids {
            let Some(task) = self.swarms[number].tasks.get_mut(id) else {
                continue;
            };
            if task.state.ended() || task.is_called_off() {
                continue;
            }
            task.called_off = (task.generation, sequence);
            self.tell(number, *id, sequence);
            self.touch(number, *id);
        }
    }

    /// A task fails that was to be split, and could not be: its parts never were.
    pub(super) fn was_not_split(&mut self, number: usize, id: TaskId, error: &str, sequence: u64) {
        let swarm = &mut self.swarms[number];
        let Some(task) = swarm.tasks.get_mut(&id) else {
            return;
        };
        if task.state != State::Parted || !error.starts_with(NOT_SPLIT) {
            return;
        }
        let Some(parts) = task.parts.take_if(|parts| !parts.bad) else {
            return;
        };
        task.state = State::Between;
        for part in parts.ids {
            swarm.tasks.remove(&part);
            let news = News::Task(number, part, None);
            self.homes[swarm.home].cause.tell(sequence, news);
            let counted = u64::from(self.notes.inside);
            self.counts.accepted = self.counts.accepted.saturating_sub(counted);
        }
    }

    /// Judges what an assignment is to do with a task that may have been split, or is another swarm's.
    pub(super) fn whole(&mut self, number: usize, id: TaskId, recorded: &Recorded, step: Step) {
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let swarm = &self.swarms[number];
        let Some(task) = swarm.tasks.get(&id) else {
            return;
        };
        if let Some(to) = task.hand_to {
            self.notes.checked(Invariant::HandedBackOnce);
            self.notes
                .broken(Invariant::HandedBackOnce, recorded.sequence, || {
                    format!("{id} is assigned, and swarm {to} is to do it")
                });
        }
        let wrong = match &task.parts {
            None if step == Step::Reduce => Some("is to be reduced, and was not split".to_owned()),
            None => None,
            Some(_) if step == Step::Work => {
                Some("was split, and is to be done as a whole".to_owned())
            }
            Some(parts) => {
                let late = parts.ids.iter().find(|part| {
                    let part = swarm.tasks.get(part);
                    part.is_some_and(|part| part.completed == 0 || part.completed > cause)
                });
                late.map(|part| {
                    format!("is to be reduced, and its part {part} had not completed at {cause}")
                })
            }
        };
        if task.parts.is_some() || wrong.is_some() {
            self.notes.checked(Invariant::PartsEndOnce);
        }
        if let Some(wrong) = wrong {
            self.notes
                .broken(Invariant::PartsEndOnce, recorded.sequence, || {
                    format!("{id} {wrong}")
                });
        }
    }

    /// Another swarm is to do a task from here on.
    pub(super) fn handed_over(
        &mut self,
        number: usize,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        over: &HandedOver,
    ) -> Outcome {
        let sequence = recorded.sequence;
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        self.notes.checked(Invariant::HandedBackOnce);
        let swarm = &self.swarms[number];
        let Some((task, place)) = swarm.tasks.get(&id).zip(recorded.subject.place()) else {
            return Err("unknown-task");
        };
        if task.generation != over.generation {
            return Err("other-generation");
        }
        let wrong = if task.hand_to != Some(over.to) {
            Some(format!("it is for {:?} to do", task.hand_to))
        } else if state == State::Away {
            Some("swarm has it already".to_owned())
        } else if over.task_id != handed_id(&origin(place, id, over.generation)) {
            Some(format!("it is not known as {} there", over.task_id))
        } else {
            None
        };
        if let Some(wrong) = wrong {
            self.notes.broken(Invariant::HandedBackOnce, sequence, || {
                format!("{id} is handed over to swarm {}: {wrong}", over.to)
            });
            return Err("not-to-be-handed-over");
        }
        match state {
            State::Waiting => {}
            State::Ended(_) => {
                self.notes.broken(Invariant::OneTerminal, sequence, || {
                    format!("{id} is handed over after its end")
                });
                return Err("ended");
            }
            _ => return Err("not-to-be-handed-over"),
        }
        self.called_off(number, id, recorded);
        self.notes.checked(Invariant::DependenciesRespected);
        if let Some(why) = self.swarms[number].unmet(id, cause) {
            self.notes
                .broken(Invariant::DependenciesRespected, sequence, || why);
        }
        self.set(number, id, State::Away, sequence);
        Ok(())
    }

    /// Another swarm has done a task.
    pub(super) fn handed_back(
        &mut self,
        number: usize,
        id: TaskId,
        state: State,
        recorded: &Recorded,
        back: &HandedBack,
    ) -> Outcome {
        self.notes.checked(Invariant::HandedBackOnce);
        let sequence = recorded.sequence;
        let swarm = &self.swarms[number];
        let Some((task, place)) = swarm.tasks.get(&id).zip(recorded.subject.place()) else {
            return Err("unknown-task");
        };
        let wrong = if state != State::Away {
            (!state.ended()).then(|| "it was not handed over".to_owned())
        } else if task.hand_to != Some(back.by) {
            Some(format!("{:?} has it", task.hand_to))
        } else if task.generation != back.generation {
            return Err("other-generation");
        } else {
            self.not_done(place, id, back)
        };
        if let Some(wrong) = wrong {
            self.notes.broken(Invariant::HandedBackOnce, sequence, || {
                format!("{id} is handed back by swarm {}: {wrong}", back.by)
            });
            return Err("not-handed-over");
        }
        self.end_decided(
            number,
            id,
            state,
            Some(back.generation),
            End::Completed,
            recorded,
        )
    }

    /// How a task stands in the swarm that is said to have done it, if it has not.
    fn not_done(&self, place: Place, id: TaskId, back: &HandedBack) -> Option<String> {
        let there: SwarmId = back.by;
        let number = *self.numbers.get(&(place.org, there))?;
        let known_as = handed_id(&origin(place, id, back.generation));
        // It may be forgotten.
        let task = self.swarms[number].tasks.get(&known_as)?;
        (task.state != State::Ended(End::Completed))
            .then(|| format!("{known_as} there is {:?}", task.state))
    }
}

fn origin(place: Place, task_id: TaskId, generation: u32) -> Origin {
    Origin {
        swarm_id: place.swarm,
        task_id,
        generation,
        hops: 1,
    }
}

/// Whether a failure is that of a part of the task that fails for it.
pub(super) fn is_part(task: Option<&Task>, of: TaskId) -> bool {
    task.and_then(|task| task.part_of)
        .is_some_and(|part| part.parent == of)
}
