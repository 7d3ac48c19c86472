//! Whose turn it is in a ring. Tasks go in the order in which they were submitted, whatever their priority, one at a time: the
//! next one once that of the token's holder has ended, or its time is over.
//!
//! A task that nobody could take now or soon is passed over until somebody can; otherwise it would stop the ring. So is an
//! agent without a free slot, without what the task needs, or about to go. What is not healthy is passed over, too, or the
//! token waits for its timeout there.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    AgentId, Timestamp,
    planted::{self, Bug},
    topology::{Ring, RingOrder},
};

use super::{
    kinds::Standing,
    ready::{Match, SwarmPlan},
    spot::Route,
};
use crate::{
    strategy::share_of,
    swarm::Swarm,
    task::{Phase, Task},
};

/// The queue of a ring.
#[derive(Debug, Default)]
pub(crate) struct Circle {
    /// Queued tasks of each class, by the sequence of their submission.
    lines: BTreeMap<u32, BTreeSet<(u64, u32)>>,
    /// Something has changed since it was looked whose turn it is.
    pub(super) look: bool,
    /// When it is to be looked again, by the last look.
    pub(super) later: Option<Timestamp>,
}
impl Circle {
    pub(super) fn insert(&mut self, class: u32, place: (u64, u32)) {
        self.lines.entry(class).or_default().insert(place);
    }
    pub(super) fn remove(&mut self, class: u32, place: (u64, u32)) {
        if let Some(line) = self.lines.get_mut(&class) {
            line.remove(&place);
            if line.is_empty() {
                self.lines.remove(&class);
            }
        }
    }
    pub(super) fn is_empty(&self) -> bool {
        self.lines.is_empty()
    }
    /// How many queued tasks were submitted before a place, up to `max`.
    pub(crate) fn before(&self, place: (u64, u32), max: u64) -> u64 {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        let mut count = 0;
        for line in self.lines.values() {
            count += line.range(..place).take(max - count).count();
        }
        count as u64
    }
}

/// What the token does at an agent on its way.
enum Pass {
    /// It goes on.
    On,
    /// It waits for its timeout there.
    Waits,
    /// It stays.
    Stays,
}

/// Whose turn it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
    /// This task goes to this agent.
    Now { task: u32, agent: u32 },
    /// Nobody's before then.
    Later(Timestamp),
    /// Nobody's until something changes.
    Nobody,
}

impl SwarmPlan {
    /// Puts all that is queued into the order of a ring.
    pub(super) fn line_up(&mut self) {
        let ready = (0u32..).zip(&self.tasks);
        let ready: Vec<(u32, (u64, u32))> = ready
            .filter_map(|(at, task)| {
                let (class, _, _, submitted, _) = task.ready?;
                Some((class, (submitted, at)))
            })
            .collect();
        if let Route::Circle(circle) = &mut self.route {
            for (class, place) in ready {
                circle.insert(class, place);
            }
        }
    }

    /// Whether there are tasks that wait for their turn.
    pub(super) fn has_turns(&self) -> bool {
        matches!(&self.route, Route::Circle(circle) if self.active && !circle.is_empty())
    }
    /// Whether a queued task may find an agent.
    pub(super) fn may_assign(&self) -> bool {
        match &self.route {
            Route::Circle(circle) => circle.look && !circle.is_empty(),
            _ => !self.heads.is_empty(),
        }
    }
    /// When it is to be looked again whose turn it is.
    pub(crate) fn next_look(&self) -> Option<Timestamp> {
        match &self.route {
            Route::Circle(circle) => circle.later.filter(|_| !circle.is_empty()),
            _ => None,
        }
    }

    /// Something has changed that may decide whose turn it is.
    pub(super) fn look_whose_turn(&mut self) {
        if let Route::Circle(circle) = &mut self.route {
            circle.look = true;
        }
    }

    /// The next task of a ring and its agent, if it is somebody's turn.
    pub(super) fn next_turn(&mut self, swarm: &Swarm, now: Timestamp) -> Option<Match> {
        let turn = if self.promises > 0 {
            // One at a time.
            Turn::Nobody
        } else {
            self.whose_turn(swarm, now)
        };
        if let Route::Circle(circle) = &mut self.route {
            circle.look = matches!(turn, Turn::Now { .. });
            circle.later = match turn {
                Turn::Later(when) => Some(when),
                _ => None,
            };
        }
        let Turn::Now { task, agent } = turn else {
            return None;
        };
        let class = swarm.tasks.get(task)?.class;
        let Standing::Free { key, .. } = self.agents.get(agent as usize)?.standing else {
            return None;
        };
        Some(Match {
            task,
            agent,
            candidates: vec![(key, agent)],
            passed_over: self.passed_over(class, agent),
            affinity: None,
            taken_over: false,
            turn: Some(swarm.token.turns + 1),
        })
    }

    /// Whose turn it is at `now`.
    pub(crate) fn whose_turn(&self, swarm: &Swarm, now: Timestamp) -> Turn {
        let (Route::Circle(circle), Some(ring)) = (&self.route, swarm.ring()) else {
            return Turn::Nobody;
        };
        let token = &swarm.token;
        let over = token.since.plus_millis(ring.token_timeout_ms);
        let mut free_at = token.free_at;
        if let Some((task, agent)) = token.task.zip(token.agent) {
            if now < over
                && !planted::is(Bug::TurnTooSoon)
                && let Some(turn) = self.kept(swarm, ring, task, agent, over)
            {
                return turn;
            }
            free_at = if now < over { token.since } else { over };
        }
        let heads = circle
            .lines
            .iter()
            .filter(|(class, _)| self.is_takeable(**class, ring));
        let head = heads
            .filter_map(|(&class, line)| {
                let last = planted::is(Bug::TurnsOutOfOrder);
                let next = if last { line.last() } else { line.first() };
                Some((*next?, class))
            })
            .min();
        let Some(((_, task), class)) = head else {
            return Turn::Nobody;
        };
        let queued_at = swarm
            .tasks
            .get(task)
            .map_or(Timestamp::ZERO, |task| task.queued_at);
        let from = free_at.max(queued_at);
        self.next_holder(swarm, ring, class, from, now)
            .map_agent(task)
    }

    /// The token stays with its holder: its task runs, or is to be tried again there.
    fn kept(
        &self,
        swarm: &Swarm,
        ring: &Ring,
        at: u32,
        agent: u32,
        over: Timestamp,
    ) -> Option<Turn> {
        let task: &Task = swarm.tasks.get(at)?;
        if matches!(
            task.phase,
            Phase::Assigned(_) | Phase::Running(_) | Phase::Failing
        ) {
            return Some(Turn::Later(over));
        }
        let entry = self.agents.get(agent as usize)?;
        let pass =
            if self.agent_fits(task.class, agent) && !self.excluded(task.class).contains(&agent) {
                self.pass(entry.standing, ring)
            } else {
                Pass::On
            };
        let ready = self.task(at).is_some_and(|task| task.ready.is_some());
        match (pass, entry.standing) {
            (Pass::Stays, _) if ready => Some(Turn::Now { task: at, agent }),
            (Pass::Stays | Pass::Waits, _) | (_, Standing::Full) => Some(Turn::Later(over)),
            (Pass::On, _) => None,
        }
    }

    fn pass(&self, standing: Standing, ring: &Ring) -> Pass {
        match standing {
            Standing::Free { slot: true, .. } => Pass::Stays,
            Standing::Suspected
            | Standing::Unresponsive
            | Standing::Quarantined
            | Standing::FailedFast
                if !ring.skip_unhealthy =>
            {
                Pass::Waits
            }
            _ => Pass::On,
        }
    }

    /// Whether somebody could take tasks of a class, now or as soon as a slot comes free or a doubt is over.
    fn is_takeable(&self, class: u32, ring: &Ring) -> bool {
        let Some(waiting) = self.classes.get(class as usize) else {
            return false;
        };
        let counts = |standing: Standing| match standing {
            Standing::Free { .. } | Standing::Full => true,
            Standing::Suspected | Standing::Unresponsive => true,
            Standing::Quarantined | Standing::FailedFast => !ring.skip_unhealthy,
            Standing::Out | Standing::Failed | Standing::Draining => false,
        };
        let of_kinds = |number: &u32| {
            self.kinds[*number as usize]
                .tally
                .soon(!ring.skip_unhealthy)
        };
        let all: u32 = waiting.kinds.iter().map(of_kinds).sum();
        let not = self.excluded(class).iter().filter(|&&at| {
            let entry = self.agents.get(at as usize);
            entry.is_some_and(|entry| counts(entry.standing)) && self.agent_fits(class, at)
        });
        all > not.count() as u32
    }

    /// To whom the token goes for a task of a class, if it is free since `from`.
    fn next_holder(
        &self,
        swarm: &Swarm,
        ring: &Ring,
        class: u32,
        from: Timestamp,
        now: Timestamp,
    ) -> Holder {
        let excluded = self.excluded(class);
        let judge = |id: AgentId| {
            let at = *swarm.agent_numbers.get(&id)?;
            if excluded.contains(&at) || !self.agent_fits(class, at) {
                return None;
            }
            let entry = self.agents.get(at as usize)?;
            match self.pass(entry.standing, ring) {
                Pass::On => None,
                pass => Some((
                    at,
                    share_of(entry.counted.0.into(), entry.counted.1.into()),
                    pass,
                )),
            }
        };
        let mut due = from;
        let mut wait = |pass: &Pass| {
            if matches!(pass, Pass::Waits) {
                due = due.plus_millis(ring.token_timeout_ms);
                return (due > now).then_some(due);
            }
            None
        };
        let anybody = planted::is(Bug::TurnToAnybody);
        let place = swarm.token.place.filter(|_| !anybody);
        let mut found = Holder::Nobody;
        match ring.order {
            RingOrder::Sequential if !anybody => {
                swarm.shape.next_after_place(place, |id| {
                    let Some((at, _, pass)) = judge(id) else {
                        return false;
                    };
                    found = match wait(&pass) {
                        Some(due) => Holder::Later(due),
                        None if matches!(pass, Pass::Waits) => return false,
                        None => Holder::Is(at),
                    };
                    true
                });
            }
            RingOrder::Sequential | RingOrder::Load => {
                let mut all = Vec::new();
                swarm.shape.next_after_place(place, |id| {
                    let Some((at, share, pass)) = judge(id) else {
                        return false;
                    };
                    all.push((share, all.len(), at, pass));
                    // Nobody has less, and who comes later in the circle comes later among equals.
                    share == 0 && ring.skip_unhealthy
                });
                all.sort_by_key(|&(share, order, ..)| (share, order));
                for (_, _, at, pass) in all {
                    found = match wait(&pass) {
                        Some(due) => Holder::Later(due),
                        None if matches!(pass, Pass::Waits) => continue,
                        None => Holder::Is(at),
                    };
                    break;
                }
            }
        }
        found
    }
}

/// Who gets the token.
enum Holder {
    Is(u32),
    Later(Timestamp),
    Nobody,
}
impl Holder {
    fn map_agent(self, task: u32) -> Turn {
        match self {
            Self::Is(agent) => Turn::Now { task, agent },
            Self::Later(when) => Turn::Later(when),
            Self::Nobody => Turn::Nobody,
        }
    }
}
