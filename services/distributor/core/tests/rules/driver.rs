//! What random worlds have in common: what may happen to any swarm, and how it comes to rest once the faults are over.

use proptest::sample::Index;
use swarm_distributor_core::Status;
use swarm_events::{
    Body, Input,
    agent::Cause,
    decider::Decider,
    subject::CommandVerb::{self, Cancel},
};

use crate::scene::Scene;

/// What each agent can have at once.
pub const SLOTS: u32 = 2;
/// And what may wait for it.
pub const WAITING: u32 = 1;

/// What may happen in every random world. Agents are numbers of the driver's list, tasks are chosen among those that were
/// submitted or assigned so far.
#[derive(Clone, Debug)]
pub enum Act {
    Join(usize),
    Fail(usize),
    Leave(usize),
    Suspect(usize),
    Drain(usize),
    Quarantine(usize, Cause),
    Release(usize, Cause),
    Start(Index),
    Complete(Index),
    FailAttempt(Index, bool),
    Decline(Index),
    Cancel(Index),
    Compare,
    Later(u64),
    Decide(usize),
    Deliver(usize),
    LoseAndClaim,
}

/// A random world under way.
pub struct Driver {
    pub s: Scene,
    /// Tasks that were submitted.
    pub names: Vec<String>,
    agents: &'static [&'static str],
    /// Tasks that were ever assigned, parts included.
    assigned: Vec<String>,
    seen: usize,
}

impl Driver {
    pub const fn new(s: Scene, agents: &'static [&'static str]) -> Self {
        Self {
            s,
            names: Vec::new(),
            agents,
            assigned: Vec::new(),
            seen: 0,
        }
    }

    /// The name of the next task.
    pub fn name(&mut self) -> String {
        let name = format!("t{}", self.names.len());
        self.names.push(name.clone());
        name
    }

    /// An agent joins. All but C have the capability that some tasks need.
    pub fn join(&mut self, at: usize) {
        let capabilities: &[&str] = if at == 2 { &[] } else { &["x"] };
        self.s
            .join_as(self.agents[at], SLOTS, WAITING, capabilities);
    }

    pub fn apply(&mut self, act: &Act) {
        match act {
            Act::Join(at) => self.join(*at),
            Act::Fail(at) => self.on_agent(*at, |s, agent| s.fail(agent)),
            Act::Leave(at) => self.s.leave(self.agents[*at]),
            Act::Suspect(at) => self.s.suspect(self.agents[*at]),
            Act::Drain(at) => {
                self.s.drain(self.agents[*at]);
            }
            Act::Quarantine(at, cause) => {
                self.on_agent(*at, |s, agent| s.quarantine(agent, *cause))
            }
            Act::Release(at, cause) => self.on_agent(*at, |s, agent| s.release(agent, *cause)),
            Act::Start(index) => self.on_assigned(index, |s, t| s.start(t)),
            Act::Complete(index) => self.on_assigned(index, |s, t| s.complete(t)),
            Act::FailAttempt(index, retryable) => {
                self.on_assigned(index, |s, t| s.fail_attempt(t, *retryable));
            }
            Act::Decline(index) => self.on_assigned(index, |s, t| s.decline(t)),
            Act::Cancel(index) => self.command(Cancel, index),
            Act::Compare => {
                if let Err(difference) = self.s.world.decide_twice(1_000) {
                    panic!("{}", self.s.named(&difference));
                }
            }
            Act::Later(millis) => {
                self.s.world.now = self.s.world.now.plus_millis(*millis);
                self.s.wake();
            }
            Act::Decide(limit) => {
                self.s.world.decide(*limit);
            }
            Act::Deliver(count) => {
                for _ in 0..*count {
                    self.s.world.deliver();
                }
            }
            Act::LoseAndClaim => self.s.world.claim(),
        }
    }

    /// Something about an agent that has joined at some time.
    pub fn on_agent<T>(&mut self, at: usize, act: impl FnOnce(&mut Scene, &str) -> T) {
        if self.s.joined(self.agents[at]) {
            act(&mut self.s, self.agents[at]);
        }
    }
    pub fn on_assigned<T>(&mut self, index: &Index, act: impl FnOnce(&mut Scene, &str) -> T) {
        if !self.assigned.is_empty() {
            let name = index.get(&self.assigned).clone();
            act(&mut self.s, &name);
        }
    }
    /// A person's command about any task.
    pub fn command(&mut self, verb: CommandVerb, index: &Index) {
        if !self.names.is_empty() {
            let name = index.get(&self.names).clone();
            self.s.command(verb, &name);
        }
    }

    /// Learns which tasks were assigned, parts included.
    pub fn look(&mut self) {
        for stored in &self.s.world.log[self.seen..] {
            if let Input::Event(recorded) = stored.input()
                && matches!(recorded.event.body, Body::TaskAssigned(_))
            {
                let name = self.s.named(&recorded.event.about.to_string());
                if !self.assigned.contains(&name) {
                    self.assigned.push(name);
                }
            }
        }
        self.seen = self.s.world.log.len();
    }

    /// The faults are over: agents do what they are given until nothing is left to do or to wait for. `check` is called
    /// in each of at most so many rounds.
    pub fn rest(&mut self, rounds: usize, mut check: impl FnMut(&mut Self)) {
        for _ in 0..rounds {
            self.s.world.settle();
            self.look();
            check(self);
            let mut open = false;
            for name in self.assigned.clone() {
                match self.s.try_view(&name).map(|view| view.status) {
                    Some(Status::Assigned) => {
                        self.s.start(&name);
                        open = true;
                    }
                    Some(Status::Running) => {
                        self.s.complete(&name);
                        open = true;
                    }
                    _ => {}
                }
            }
            if !open {
                match self.s.world.next_deadline() {
                    None => return,
                    Some(due) => {
                        let wait = due.millis_since(self.s.world.now).max(1);
                        self.s.world.later(wait);
                    }
                }
            }
        }
        let counters = self.s.world.state.counters(self.s.place);
        panic!("it never comes to rest: {counters:?}");
    }

    /// Everything has ended, and a plan made anew finds nothing that the old one missed.
    pub fn nothing_is_left(&self) {
        let state = &self.s.world.state;
        let c = state.counters(self.s.place).expect("known");
        let open = c.staged + c.pending + c.queued + c.assigned + c.running + c.ending;
        assert_eq!(open, 0, "{c:?}");
        let mut fresh = state.plan();
        let mut missed = Vec::new();
        state.decide(&mut fresh, 1_000, &mut missed);
        assert!(missed.is_empty(), "{missed:?}");
        assert_eq!(state.next_deadline(&fresh), self.s.world.next_deadline());
    }

    /// Whether every task that was ever assigned is known still.
    pub fn assigned_are_known(&mut self) {
        for name in self.assigned.clone() {
            self.s.view(&name);
        }
    }
}
