//! What deciding failed on: a claim names it, and it is set aside, so that it stops nobody.

use swarm_events::{Problem, Subject};

use crate::{
    Coordinator,
    mark::{Refusal, Wanted},
    unreadable::clipped,
};

impl Coordinator {
    /// Sets the mark aside on which `decide` failed at an input: the one that the input left, else the last one before it.
    /// A command is refused for it, anything else is dropped.
    pub(crate) fn set_aside(&mut self, input: u64, problem: &Problem) {
        let now = self.head.now;
        if self.set_agents_aside(input) {
            return;
        }
        let Some((&sequence, mark)) = self.marks.range_mut(..=input).next_back() else {
            return;
        };
        let refusal = match &mark.wanted {
            Wanted::Swarm(place, order) => Refusal {
                org: place.org,
                swarm: Some(*place),
                command: true,
                subject: Subject::Command(*place, order.verb()).to_string(),
                sequence,
                count: 1,
                problem: clipped(problem.clone()),
                due: now,
            },
            Wanted::Org(org, order) => Refusal {
                org: *org,
                swarm: None,
                command: true,
                subject: Subject::OrgCommand(self.head.partition, *org, order.verb()).to_string(),
                sequence,
                count: 1,
                problem: clipped(problem.clone()),
                due: now,
            },
            Wanted::Refusal(_) | Wanted::Stopping(..) | Wanted::Lost(..) | Wanted::Adapt(..) => {
                self.close(sequence);
                return;
            }
        };
        mark.wanted = Wanted::Refusal(Box::new(refusal));
    }
}

impl Coordinator {
    /// Sets the agents and topologies aside that an input changed last: nothing is decided on them until something changes
    /// them.
    fn set_agents_aside(&mut self, input: u64) -> bool {
        if self.marks.contains_key(&input) {
            return false;
        }
        let mut any = false;
        for swarm in self.swarms.values_mut() {
            let agents = swarm.agents.values_mut();
            let mut changed = swarm.shape_seq == input;
            for agent in agents.filter(|agent| agent.changed.1 == input) {
                agent.set_aside = true;
                changed = true;
            }
            if changed {
                // It may have been the topology that could not be decided on.
                swarm.settle_aside = true;
                any = true;
            }
        }
        any
    }
}
