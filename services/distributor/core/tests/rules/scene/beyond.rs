//! Words for tasks in parts, and for what goes from swarm to swarm.

use swarm_distributor_core::TaskView;
use swarm_events::{
    Body, Event, Input, Json, Service, Subject, TaskId, Timestamp,
    control::Observed,
    decider::Verdict,
    envelope::Source,
    ids::InstanceId,
    subject::{ControlVerb, TaskVerb},
    task::{Part, Split, Submitted, part_id},
};
use uuid::Uuid;

use super::{Scene, plain};

/// A part with nothing but a key and a type.
pub fn part(key: &str) -> Part {
    Part {
        key: key.to_owned(),
        task_type: "count".to_owned(),
        payload: Json::object(),
        priority: None,
        required_capabilities: Vec::new(),
        required_role: None,
        max_attempts: None,
        timeout_ms: None,
    }
}

impl Scene {
    /// Its agent splits a task into parts of these keys: `task/key` is the name of each.
    pub fn split(&mut self, task: &str, keys: &[&str]) -> Verdict {
        self.split_as(task, keys.iter().map(|key| part(key)).collect())
    }
    pub fn split_as(&mut self, task: &str, parts: Vec<Part>) -> Verdict {
        let (agent, assignment, assigned) = self.assignment(task);
        let parent = self.task_id(task);
        for (index, part) in (0..).zip(&parts) {
            let id = part_id(parent, assignment, index).0;
            let name = format!("{task}/{}", part.key);
            self.ids.insert(name.clone(), id);
            self.names.insert(id, name);
        }
        let split = Split {
            assignment,
            incarnation: assigned.incarnation,
            parts,
        };
        self.by_agent(task, agent, TaskVerb::Split, split)
    }
    /// Gives an id that somebody else made a name.
    pub fn call(&mut self, name: &str, id: Uuid) {
        self.ids.insert(name.to_owned(), id);
        self.names.insert(id, name.to_owned());
    }
    /// A task, if it is known.
    pub fn try_view(&mut self, task: &str) -> Option<TaskView> {
        let id = self.task_id(task);
        self.world.state.task(self.place, id)
    }
    /// Given: it is assigned and started.
    pub fn begin(&mut self, task: &str) {
        self.world.settle();
        assert_eq!(self.start(task), Verdict::Applied, "{task}");
    }

    /// What other swarms are to be told.
    pub fn letters(&self) -> Vec<(u64, Subject, Event)> {
        let source = Source::Service(Service::Distributor, InstanceId(Uuid::from_u128(1)));
        let letters = self.world.state.letters(0);
        letters
            .map(|post| {
                let read = match post.reads() {
                    Some(sequence) => self.body_at(sequence),
                    None => Err("nothing".to_owned()),
                };
                let (subject, event) = post.event(source.clone(), Timestamp::ZERO, read);
                (post.sequence, subject, event)
            })
            .collect()
    }
    fn body_at(&self, sequence: u64) -> Result<Body, String> {
        let found = self.world.log.iter().find(|m| m.sequence == sequence);
        match found.map(swarm_events::testing::Stored::input) {
            Some(Input::Event(recorded)) => Ok(recorded.event.body),
            other => Err(format!("{other:?}")),
        }
    }
    /// The log says that these were stored where they go.
    pub fn delivered(&mut self, sequences: Vec<u64>) -> Verdict {
        self.world.control(
            Service::Distributor,
            ControlVerb::Observed,
            Observed::Delivered { sequences },
        );
        *self.world.verdicts.last().expect("just met")
    }
    /// Everything that it has to say goes to `other`, and both settle. The number of letters.
    pub fn mail(&mut self, other: &mut Self) -> usize {
        self.world.settle();
        let letters = self.letters();
        for (_, subject, event) in &letters {
            let to = if subject.place() == Some(self.place) {
                &mut *self
            } else {
                assert_eq!(subject.place(), Some(other.place));
                &mut *other
            };
            to.world.event(subject, event);
        }
        if !letters.is_empty() {
            self.delivered(letters.iter().map(|(sequence, ..)| *sequence).collect());
        }
        self.world.settle();
        other.world.settle();
        letters.len()
    }

    /// Stores a submission as `source` writes it.
    pub fn submitted_by(
        &mut self,
        source: Source,
        id: TaskId,
        change: impl FnOnce(&mut Submitted),
    ) -> Verdict {
        let mut task = plain();
        change(&mut task);
        let subject = Subject::Task(self.place, TaskVerb::Submitted, None);
        let event_id = swarm_events::EventId(self.world.id());
        let event = Event::new(event_id, source, self.world.now, &subject, id.0, task);
        self.world.event(&subject, &event)
    }
}
