//! An agent hands its task on in parts.

use std::collections::BTreeSet;

use swarm_events::{
    Problem, Recorded, TaskId, Timestamp,
    decider::Verdict,
    task::{ERROR_BYTES_MAX, PARTS_MAX, Part, SPLIT_DEPTH_MAX, Split, part_id},
    topology::{Role, Topology},
};

use super::command::id_in_use;
use crate::{
    check::{check_part, wrong},
    class::{class_of, within_of},
    state::Distributor,
    swarm::{Moment, Swarm, cut},
    task::{More, PAYLOAD_HELD_BYTES_MAX, PartOf, Parts, Phase, Piece, Task},
    trace::Trace,
};

impl Distributor {
    /// The assignment ends, and the parts exist at once. A split that cannot be is a failed attempt, and none of its parts
    /// exists: the same handler would split it in the same way again.
    pub(super) fn split(
        &mut self,
        swarm: u32,
        agent: u32,
        recorded: &Recorded,
        event: &Split,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let id = TaskId(recorded.event.about);
        let at = match self.runs(swarm, agent, id, event.assignment, event.incarnation) {
            Ok(at) => at,
            Err(why) => return Verdict::Void(why),
        };
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        if let Err(problem) = state.may_split(at, event) {
            state.note_attempt(at, agent, false);
            if let Some(task) = state.tasks.get_mut(at) {
                let more = task.more_mut();
                let error = format!("it could not be split: {problem}");
                more.error = Some(cut(&error, ERROR_BYTES_MAX).into());
                more.last_agent = Some(agent);
                more.retryable = false;
                more.bad_result = false;
            }
            state.set_phase(at, Phase::Failing, moment, trace);
            self.runs_other(swarm, agent, trace);
            return Verdict::Applied;
        }
        state.part(at, agent, recorded, event, moment, trace);
        self.runs_other(swarm, agent, trace);
        self.succeeded(swarm, agent, trace);
        Verdict::Applied
    }
}

impl Swarm {
    /// Whether a task may be split in this way: all of it, or nothing.
    fn may_split(&self, at: u32, event: &Split) -> Result<(), Problem> {
        let Some(task) = self.tasks.get(at) else {
            return Err(wrong("parts", "its task is gone", "submit it again"));
        };
        if task.parts().is_some() {
            return Err(wrong(
                "parts",
                "its parts are done, and their results are to become one",
                "answer the reduce with a result",
            ));
        }
        if task
            .part()
            .is_some_and(|part| part.depth >= SPLIT_DEPTH_MAX)
        {
            return Err(wrong(
                "parts",
                format!("it is a part of a part, {SPLIT_DEPTH_MAX} deep"),
                "do it as it is",
            ));
        }
        if event.parts.is_empty() || event.parts.len() > PARTS_MAX {
            return Err(wrong(
                "parts",
                format!("has {} entries", event.parts.len()),
                format!("give 1 to {PARTS_MAX} parts, and let large ones be split again"),
            ));
        }
        let mut keys = BTreeSet::new();
        for (n, part) in event.parts.iter().enumerate() {
            let within = |problem: Problem| {
                let field = problem.field.clone().unwrap_or_default();
                problem.field(format!("parts[{n}].{field}"))
            };
            check_part(part).map_err(within)?;
            if !keys.insert(part.key.as_str()) {
                return Err(wrong(
                    format!("parts[{n}].key"),
                    format!("{:?} is the key of another part, too", part.key),
                    "give each part a key of its own",
                ));
            }
            let priority = part.priority.unwrap_or(task.priority);
            if let Some(full) = self.full_with(n as u64, priority) {
                return Err(full.field(format!("parts[{n}]")));
            }
            let id = part_id(task.id, event.assignment, n as u32);
            if self.live.get(&id).is_some() || self.ended.contains_key(&id) {
                return Err(id_in_use(id).field(format!("parts[{n}]")));
            }
        }
        Ok(())
    }

    /// Splits a task.
    fn part(
        &mut self,
        at: u32,
        agent: u32,
        recorded: &Recorded,
        event: &Split,
        moment: Moment,
        trace: &mut Trace,
    ) {
        let Some(parent) = self.tasks.get(at) else {
            return;
        };
        let base = Base {
            parent: parent.id,
            priority: parent.priority,
            correlation: parent.correlation(),
            hops: parent.hops(),
            within: self
                .stays_below(agent)
                .or_else(|| within_of(self.classes.get(parent.class))),
            of: PartOf {
                assignment: event.assignment,
                index: 0,
                depth: parent.part().map_or(0, |part| part.depth) + 1,
            },
        };
        let mut pieces = Vec::with_capacity(event.parts.len());
        for (index, part) in (0..).zip(&event.parts) {
            let id = part_id(base.parent, event.assignment, index);
            let of = PartOf { index, ..base.of };
            let task = self.task_of_part(id, recorded, part, &Base { of, ..base }, moment);
            self.insert(task, trace);
            let key = part.key.as_str().into();
            pieces.push(Piece { key, id, result: 0 });
        }
        let open = pieces.len() as u32;
        if let Some(task) = self.tasks.get_mut(at) {
            // The reduce has attempts of its own.
            task.attempts = 0;
            let more = task.more_mut();
            more.error = None;
            more.bad_result = false;
            more.parts = Some(Box::new(Parts {
                assignment: event.assignment,
                agent,
                pieces: pieces.into(),
            }));
        }
        self.set_phase(at, Phase::Parted { open }, moment, trace);
    }

    fn task_of_part(
        &mut self,
        id: TaskId,
        recorded: &Recorded,
        part: &Part,
        base: &Base,
        moment: Moment,
    ) -> Task {
        let settings = &self.settings;
        let timeout = part.timeout_ms.unwrap_or(settings.task_timeout_ms);
        let attempts = part.max_attempts.unwrap_or(settings.max_attempts);
        let class = class_of(&part.required_capabilities, part.required_role, base.within);
        Task {
            id,
            event: recorded.event.id.0,
            // Of no submission: whoever submits anything under this id is refused.
            content: [0, 0],
            submitted: recorded.sequence,
            created_at: recorded.time,
            queued_at: moment.now,
            started_at: Timestamp::ZERO,
            changed: moment.sequence,
            phase: Phase::Queued,
            payload: (part.payload.len() <= PAYLOAD_HELD_BYTES_MAX).then(|| part.payload.clone()),
            more: Some(Box::new(More {
                parent: Some(base.parent),
                correlation: Some(base.correlation),
                part: Some(base.of),
                hops: base.hops,
                ..More::default()
            })),
            task_type: self.types.hold(&part.task_type),
            class: self.classes.hold(&class),
            timeout_ms: u32::try_from(timeout).unwrap_or(u32::MAX),
            generation: 1,
            max_attempts: u8::try_from(attempts).unwrap_or(u8::MAX),
            attempts: 0,
            priority: part.priority.unwrap_or(base.priority),
        }
    }
}

/// What all parts of a task have of it.
#[derive(Clone, Copy)]
struct Base {
    parent: TaskId,
    priority: u8,
    correlation: uuid::Uuid,
    hops: u8,
    within: Option<u32>,
    of: PartOf,
}

impl Swarm {
    /// Number of the agent below which the parts stay that it makes: itself, if it stands above others in a tree.
    fn stays_below(&self, agent: u32) -> Option<u32> {
        let tree = matches!(self.shape.topology(), Topology::Hierarchical(_));
        let role = self.agents.get(agent as usize)?.role?;
        (tree && role != Role::Worker).then_some(agent)
    }
}
