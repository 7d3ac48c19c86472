//! What an input changed: the plan of an owner and the rows of a projector follow from it.

use swarm_events::{GraphId, TaskId};

use crate::view::TaskView;

/// A decision of ours that was met, valid or void: it is under way no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Met {
    pub(crate) swarm: Option<u32>,
    pub(crate) task: Option<u32>,
    pub(crate) graph: Option<GraphId>,
    /// Sequence of the command that it answers, if that was open.
    pub(crate) command: Option<u64>,
    /// Sequence of what it refuses.
    pub(crate) refusal: Option<u64>,
    pub(crate) measured: bool,
}

/// Gathers while it is on; costs nothing while it is off.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    pub(crate) on: bool,
    pub(crate) tasks: Vec<(u32, u32, TaskId)>,
    pub(crate) agents: Vec<(u32, u32)>,
    /// Agents whose fitness or settings changed: everything that they hold is to be looked at.
    pub(crate) judged: Vec<(u32, u32)>,
    pub(crate) graphs: Vec<(u32, GraphId)>,
    pub(crate) commands: Vec<u64>,
    pub(crate) refusals: Vec<u64>,
    /// Swarms whose life or settings changed.
    pub(crate) swarms: Vec<u32>,
    pub(crate) met: Option<Met>,
    /// Whether the last views of tasks that end are wanted.
    pub(crate) keep_views: bool,
    pub(crate) ended: Vec<TaskView>,
}

impl Trace {
    pub(crate) fn task(&mut self, swarm: u32, at: u32, id: TaskId) {
        if self.on && self.tasks.last() != Some(&(swarm, at, id)) {
            self.tasks.push((swarm, at, id));
        }
    }
    pub(crate) fn agent(&mut self, swarm: u32, at: u32) {
        if self.on && self.agents.last() != Some(&(swarm, at)) {
            self.agents.push((swarm, at));
        }
    }
    pub(crate) fn command(&mut self, sequence: u64) {
        if self.on {
            self.commands.push(sequence);
        }
    }
    pub(crate) fn refusal(&mut self, sequence: u64) {
        if self.on {
            self.refusals.push(sequence);
        }
    }
    pub(crate) fn graph(&mut self, swarm: u32, id: GraphId) {
        if self.on {
            self.graphs.push((swarm, id));
        }
    }
    pub(crate) fn judged(&mut self, swarm: u32, agent: u32) {
        if self.on {
            self.judged.push((swarm, agent));
        }
    }
    pub(crate) fn swarm(&mut self, swarm: u32) {
        if self.on {
            self.swarms.push(swarm);
        }
    }
    pub(crate) fn clear(&mut self) {
        self.tasks.clear();
        self.agents.clear();
        self.judged.clear();
        self.graphs.clear();
        self.commands.clear();
        self.refusals.clear();
        self.swarms.clear();
        self.met = None;
        self.ended.clear();
    }
}
