//! The fold: each event's precondition, then its effect. Where the precondition fails the event is void, in every fold
//! alike. Nothing here panics or looks at anything but the state and the event.

mod assignment;
mod command;
mod decline;
mod ends;
mod failures;
mod hand;
mod member;
mod split;
mod submit;

pub(crate) use assignment::words;
pub use command::SUMS_MAX;
pub(crate) use ends::STOPPING;
pub use submit::QUEUE_RETRY_AFTER_MS;

use swarm_events::{
    Body, Input, Recorded, Service, Subject, TaskId,
    decider::{Admission, Verdict},
    ids::GraphId,
    read::{Writer, writer},
    subject::ControlVerb,
    task::{GraphAccepted, GraphCancelled, GraphRejected},
};

use crate::{
    state::Distributor,
    swarm::{CalledOff, End},
    task::{How, Phase},
    trace::{Met, Trace},
};

impl Distributor {
    /// Meets an input.
    pub(crate) fn step(&mut self, input: &Input, trace: &mut Trace) -> Verdict {
        let admission = self.head.admit(Service::Distributor, input);
        self.age(trace);
        let verdict = match (admission, input) {
            // Counted by the head.
            (Admission::Void(why), _) => return Verdict::Void(why),
            (Admission::Claimed, Input::Event(recorded)) => {
                if let Body::Claimed(claimed) = &recorded.event.body {
                    for stuck in &claimed.rejects {
                        self.reject_marks(stuck.sequence, &stuck.problem, trace);
                    }
                }
                Verdict::Applied
            }
            (_, Input::Event(recorded)) => {
                if recorded.subject.partition() != self.head.partition {
                    return Verdict::Ignored;
                }
                trace.met = self.met(recorded);
                self.event(recorded, trace)
            }
            (_, Input::Unreadable(unreadable)) => self.unreadable(unreadable, trace),
        };
        if matches!(verdict, Verdict::Void(_)) {
            self.head.voids += 1;
        }
        verdict
    }

    /// What a decision of ours was about, as the state knew it before.
    fn met(&self, recorded: &Recorded) -> Option<Met> {
        if writer(&recorded.subject) != Writer::Service(Service::Distributor) {
            return None;
        }
        let place = recorded.subject.place()?;
        let number = self.number(place);
        let swarm = number.and_then(|n| self.swarm(n));
        let about = recorded.event.about;
        let command = match (swarm, recorded.event.causation) {
            (Some(swarm), Some(id)) => swarm
                .commands_seen
                .get(id)
                .filter(|sequence| self.commands.contains_key(sequence)),
            _ => None,
        };
        let (mut task, mut graph, mut refusal, mut measured) = (None, None, None, false);
        match &recorded.event.body {
            Body::TaskGraphAccepted(_) | Body::TaskGraphRejected(_) => {
                graph = Some(GraphId(about));
            }
            Body::TaskRefused(refused) => refusal = Some(refused.refused_seq),
            Body::SwarmMeasured(_) => measured = true,
            // These are under way for their command alone.
            Body::TaskGraphCancelled(_) | Body::TaskDiscarded(_) => {}
            body => {
                // A retry of an ended task is under way for its command alone. It may come late, when another one has
                // brought the task back to life and other decisions on it are under way.
                let retry = matches!(body, Body::TaskRetried(_));
                task = swarm
                    .and_then(|s| s.task(TaskId(about)))
                    .filter(|(_, task)| !retry || task.phase == Phase::Failing)
                    .map(|(at, _)| at);
            }
        }
        Some(Met {
            swarm: number,
            task,
            graph,
            command,
            refusal,
            measured,
        })
    }

    fn event(&mut self, recorded: &Recorded, trace: &mut Trace) -> Verdict {
        let place = match &recorded.subject {
            Subject::Swarm(place, _) => {
                return self.swarm_event(*place, &recorded.event.body, trace);
            }
            Subject::Agent(place, _, agent) => {
                return self.agent_event(*place, *agent, &recorded.event.body, trace);
            }
            Subject::Command(place, _) => return self.command(*place, recorded, trace),
            Subject::Task(place, _, _) => *place,
            Subject::Control(Service::Distributor, _, ControlVerb::Observed) => {
                return self.delivered(&recorded.event.body, trace);
            }
            _ => return Verdict::Ignored,
        };
        if let Body::TaskSubmitted(submitted) = &recorded.event.body {
            return self.submitted(place, recorded, submitted, trace);
        }
        if let Body::TaskRefused(refused) = &recorded.event.body {
            return self.refused(place, recorded, refused, trace);
        }
        let Some(swarm) = self.number(place) else {
            return Verdict::Void("unknown-swarm");
        };
        let graph = GraphId(recorded.event.about);
        let verdict = match &recorded.event.body {
            Body::TaskGraphAccepted(accepted) => self.graph_accepted(swarm, graph, accepted, trace),
            Body::TaskGraphRejected(rejected) => self.graph_rejected(swarm, graph, rejected, trace),
            Body::TaskGraphCancelled(cancelled) => {
                let command = recorded.event.causation;
                self.graph_cancelled(swarm, graph, cancelled, command, trace)
            }
            _ => match recorded.subject.agent() {
                Some(agent) => self.about_assignment(swarm, agent, recorded, trace),
                None => self.about_task(swarm, recorded, trace),
            },
        };
        if verdict == Verdict::Applied
            && let Some(command) = trace.met.and_then(|met| met.command)
        {
            // Answered: closed.
            self.commands.remove(&command);
            trace.command(command);
        }
        verdict
    }

    fn graph_accepted(
        &mut self,
        swarm: u32,
        id: GraphId,
        accepted: &GraphAccepted,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        match state.graphs.get(&id) {
            None => return Verdict::Void("unknown-graph"),
            Some(graph)
                if graph.doom.is_some() || !graph.complete() || graph.of != accepted.tasks =>
            {
                return Verdict::Void("graph-not-complete");
            }
            Some(_) => {}
        }
        let Some(graph) = state.graphs.remove(&id) else {
            return Verdict::Void("unknown-graph");
        };
        state
            .closed_graphs
            .insert(id.0, moment.sequence, moment.now);
        trace.graph(swarm, id);
        for at in graph.tasks() {
            state.link(at, moment, trace);
        }
        Verdict::Applied
    }

    fn graph_rejected(
        &mut self,
        swarm: u32,
        id: GraphId,
        rejected: &GraphRejected,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let Some(graph) = state.graphs.remove(&id) else {
            return Verdict::Void("unknown-graph");
        };
        state
            .closed_graphs
            .insert(id.0, moment.sequence, moment.now);
        trace.graph(swarm, id);
        let error: Box<str> = rejected.problem.to_string().into();
        for at in graph.tasks() {
            let end = End::new(How::Rejected, Some(error.clone()));
            self.end(swarm, at, end, trace);
        }
        Verdict::Applied
    }

    /// From here on each of its tasks that lives is to be cancelled, wherever it stands. One that is retried later lives
    /// anew, and is not.
    fn graph_cancelled(
        &mut self,
        swarm: u32,
        id: GraphId,
        cancelled: &GraphCancelled,
        command: Option<uuid::Uuid>,
        trace: &mut Trace,
    ) -> Verdict {
        let moment = self.moment();
        let Some(state) = self.swarms.get_mut(swarm as usize) else {
            return Verdict::Void("unknown-swarm");
        };
        let open: Vec<u32> = state.open_of_graph(id).map(|(at, _)| at).collect();
        if open.is_empty() {
            return Verdict::Void("nothing-to-cancel");
        }
        for &at in &open {
            if let Some(task) = state.tasks.get_mut(at) {
                task.more_mut().called_off = true;
                task.changed = moment.sequence;
                trace.task(swarm, at, task.id);
            }
        }
        let before = state.called_off.remove(&id).map_or(0, |c| c.open);
        let called_off = CalledOff {
            reason: (*cancelled.reason).into(),
            command,
            open: before + open.len() as u32,
        };
        state.called_off.insert(id, called_off);
        Verdict::Applied
    }
}
