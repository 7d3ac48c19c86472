//! What is promised of the choice: which task is next, who gets it, and what is taken over. Judged by what the owner had
//! met and decided before.

use swarm_events::{
    AgentId, Body, Recorded, Service, TaskId, Timestamp,
    configuration::Algorithm,
    read::{Writer, writer},
    task::{AffinityOutcome, Assigned, Then, WithdrawReason, Withdrawn},
};

use super::{
    Checker,
    cause::{Asked, Facts, Flight, News, Post, Rules, Seen, Standing, Token, View, rank},
    ring,
    routes::{self, misrouted, sits, sits_for, together},
    swarm::Swarm,
};
use crate::Invariant;

/// How long a task waits at its agent before an idle one may take it over, in milliseconds.
const STEAL_AFTER_MS: u64 = 50;
/// How often a task may be taken over in one generation.
const STEALS_MAX: u8 = 3;
/// Agents before the chosen one in the circle that are looked at: those that are full or gone stay in front.
const CIRCLE_LOOK_MAX: usize = 256;

type Found = (Invariant, Option<String>);

/// The limit that a task names, else that of its swarm; `None`: for ever.
fn limit(own: Option<u64>, swarm: u64) -> Option<u64> {
    Some(own.unwrap_or(swarm)).filter(|limit| *limit > 0)
}
pub(super) fn queue_limit(facts: &Facts, rules: &Rules) -> Option<u64> {
    limit(facts.queue_timeout_ms, rules.queue_timeout_ms)
}
fn progress_limit(facts: &Facts, rules: &Rules) -> Option<u64> {
    limit(facts.progress_timeout_ms, rules.progress_timeout_ms)
}

/// Whether an assignment makes its agent that of the task's key.
fn homed(assigned: &Assigned) -> bool {
    matches!(
        assigned.affinity,
        Some(AffinityOutcome::Hit | AffinityOutcome::New)
    )
}

impl Checker {
    /// Goes back to what was met at the cause of a decision of the distributor.
    pub(super) fn look_back(&mut self, home: usize, recorded: &Recorded) {
        let state = &mut self.homes[home];
        state.judging = match (writer(&recorded.subject), recorded.event.decided) {
            (Writer::Service(Service::Distributor), Some(decided)) => {
                state.cause.advance(decided.cause_sequence)
                    && state.owners[Service::Distributor as usize].is_whole()
            }
            _ => false,
        };
    }

    /// The tasks that a decision is about.
    pub(super) fn decided_on(&self, recorded: &Recorded) -> Vec<TaskId> {
        let Some(swarm) = self.swarm_of(recorded).map(|number| &self.swarms[number]) else {
            return Vec::new();
        };
        let about = recorded.event.about;
        match &recorded.event.body {
            Body::TaskAssigned(_)
            | Body::TaskWithdrawn(_)
            | Body::TaskRetried(_)
            | Body::TaskFailed(_)
            | Body::TaskCancelled(_)
            | Body::TaskHandedOver(_)
            | Body::TaskHandedBack(_)
            | Body::TaskRejected(_) => vec![TaskId(about)],
            Body::TaskRefused(refused) => swarm
                .fresh
                .get(&refused.refused_seq)
                .copied()
                .into_iter()
                .collect(),
            Body::TaskGraphCancelled(_) => swarm
                .members
                .get(&about)
                .into_iter()
                .flatten()
                .copied()
                .collect(),
            _ => Vec::new(),
        }
    }

    /// Notes that a decision is under way for those that were made before it was met.
    pub(super) fn under_way(&mut self, home: usize, recorded: &Recorded, tasks: Vec<TaskId>) {
        let Some(number) = self.swarm_of(recorded).filter(|_| !tasks.is_empty()) else {
            return;
        };
        let (agent, turn, homed) = match &recorded.event.body {
            Body::TaskAssigned(assigned) => {
                let task = self.swarms[number].tasks.get(&TaskId(recorded.event.about));
                let stolen = task.is_some_and(|task| task.stolen);
                (recorded.subject.agent(), !stolen, homed(assigned))
            }
            Body::TaskWithdrawn(withdrawn) => (withdrawn.thief, false, false),
            _ => (None, false, false),
        };
        let swarm = &self.swarms[number];
        for task in tasks {
            let facts = swarm.tasks.get(&task).map(|task| &task.facts);
            self.homes[home].cause.depart(Flight {
                sequence: recorded.sequence,
                swarm: number,
                task,
                agent,
                turn,
                key: facts.filter(|_| homed).map(|facts| facts.key.clone()),
            });
        }
    }

    /// An assignment is met, and counts.
    pub(super) fn given(
        &mut self,
        number: usize,
        (agent, task): (AgentId, TaskId),
        facts: &Facts,
        recorded: &Recorded,
        assigned: &Assigned,
    ) {
        let sequence = recorded.sequence;
        let since = self.homes[self.swarms[number].home].now;
        // What was taken over is no turn, even if it goes to somebody who could not have taken it over.
        let stolen = (self.swarms[number].tasks.get(&task)).is_some_and(|task| task.stolen);
        let token = assigned.turn.map(|turn| Token {
            turn,
            agent,
            task,
            assignment: sequence,
            since,
            place: None,
        });
        let news = News::Given {
            token,
            swarm: number,
            agent,
            turn: (!stolen).then_some(sequence),
            key: homed(assigned).then(|| facts.key.clone()),
        };
        self.homes[self.swarms[number].home]
            .cause
            .tell(sequence, news);
    }

    fn found(&mut self, sequence: u64, found: Vec<Found>) {
        for (invariant, wrong) in found {
            self.notes.checked(invariant);
            if let Some(wrong) = wrong {
                self.notes.broken(invariant, sequence, || wrong);
            }
        }
    }

    /// Judges the choice of a task and its agent. False: nothing can be told.
    pub(super) fn chosen(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        recorded: &Recorded,
        assigned: &Assigned,
    ) -> bool {
        let swarm = &self.swarms[number];
        let home = &self.homes[swarm.home];
        let Some(view) = home.cause.swarm(number).filter(|_| home.judging) else {
            return false;
        };
        let post = view.agents.get(&agent);
        let Some(post) = post.filter(|post| post.incarnation == assigned.incarnation) else {
            return false;
        };
        let seen = view.tasks.get(&id).filter(|seen| !seen.facts.vague);
        let Some((seen, queued_at)) = seen.and_then(|seen| match seen.standing {
            Standing::Queued { queued_at, .. } if !view.is_under_way(id) => Some((seen, queued_at)),
            _ => None,
        }) else {
            return false;
        };
        let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
        let stolen = swarm.tasks.get(&id).is_some_and(|task| task.stolen);
        let (load, rules) = (post.load(), &view.rules);
        let mut found: Vec<Found> =
            vec![
            (
                Invariant::SlotsKept,
                (load >= post.places).then(|| {
                    format!(
                        "agent {agent} is given {id}, and had {load} tasks at {cause} on {} places",
                        post.places
                    )
                }),
            ),
            (
                Invariant::AssignedToTheAble,
                (!post.can(&seen.facts.required)).then(|| {
                    format!("{id} requires {:?}, which agent {agent} has not", seen.facts.required)
                }),
            ),
            (
                Invariant::RoutesByTopology,
                misrouted(swarm, view, (agent, id), &seen.facts, cause)
                    .or_else(|| routes::astray(view, agent, assigned))
                    .map(|wrong| format!("{id} is given to agent {agent}: {wrong}")),
            ),
            (
                Invariant::AlgorithmInForce,
                (assigned.algorithm != rules.algorithm).then(|| {
                    format!(
                        "{id} is assigned by {:?}, when {:?} was in force at {cause}",
                        assigned.algorithm, rules.algorithm
                    )
                }),
            ),
        ];
        let ring = view.is_ring();
        if ring || assigned.turn.is_some() {
            let at = (cause, home.cause.now);
            let wrong = ring::out_of_turn(swarm, view, (agent, id), seen, assigned, at);
            found.push((Invariant::RingOrder, wrong));
        }
        if !ring {
            let wrong = out_of_order(
                swarm,
                view,
                (agent, post),
                id,
                (seen, queued_at),
                assigned,
                cause,
            );
            found.push((Invariant::PriorityOrder, wrong));
        }
        if rules.algorithm == Algorithm::PriorityQueue && !ring {
            let wrong = (load >= post.slots).then(|| {
                format!(
                    "{id} has to wait at agent {agent}, which had {load} tasks at {cause} on {} slots",
                    post.slots
                )
            });
            found.push((Invariant::NothingWaitsUnderPriorityQueue, wrong));
        }
        // Who split it makes its parts' results one, whosever turn it is.
        let parts = swarm.tasks.get(&id).and_then(|task| task.parts.as_ref());
        let stays = parts.is_some_and(|parts| parts.by == agent);
        if rules.algorithm == Algorithm::RoundRobin && !stolen && !stays && !ring {
            let wrong = out_of_turn(swarm, view, agent, (post, id), seen, cause);
            found.push((Invariant::CircleKept, wrong));
        }
        if rules.algorithm == Algorithm::Affinity && !ring || assigned.affinity.is_some() {
            let wrong = astray(swarm, view, (agent, id), seen, assigned, cause);
            found.push((Invariant::AffinityTold, wrong));
        }
        self.found(recorded.sequence, found);
        self.nothing_overdue(number, recorded);
        true
    }

    /// What had waited too long had been decided on before anything was assigned.
    fn nothing_overdue(&mut self, number: usize, recorded: &Recorded) {
        let swarm = &self.swarms[number];
        let home = &self.homes[swarm.home];
        let view = home.cause.swarm(number);
        let Some(view) = view.filter(|_| home.judging && !swarm.stopping) else {
            return;
        };
        let now = home.cause.now;
        let wrong = view.overdue(now).map(|(id, over)| {
            format!("{id} had waited too long at {over}, and nothing was decided on it by {now}")
        });
        self.found(recorded.sequence, vec![(Invariant::QueueLimitsKept, wrong)]);
    }

    /// At rest nothing is left that has waited past its limit.
    pub(super) fn nothing_waits_too_long(&mut self, last: u64) {
        for (number, swarm) in self.swarms.iter().enumerate() {
            let cause = &mut self.homes[swarm.home].cause;
            cause.advance(last);
            let overdue = cause
                .swarm(number)
                .filter(|_| !swarm.stopping)
                .and_then(|view| view.overdue(cause.now));
            if let Some((id, over)) = overdue {
                self.notes.broken(Invariant::QueueLimitsKept, last, || {
                    format!("{id} had waited too long at {over}, and has not ended")
                });
            }
        }
    }

    /// Judges why an assignment is taken away.
    pub(super) fn taken_away(
        &mut self,
        number: usize,
        agent: AgentId,
        id: TaskId,
        recorded: &Recorded,
        withdrawn: &Withdrawn,
    ) {
        let swarm = &self.swarms[number];
        let home = &self.homes[swarm.home];
        let Some(view) = home.cause.swarm(number).filter(|_| home.judging) else {
            return;
        };
        let Some(seen) = view.tasks.get(&id).filter(|seen| !seen.facts.vague) else {
            return;
        };
        let Standing::Held {
            assignment,
            at,
            waits_from,
            by_turn,
            heard,
            ..
        } = seen.standing
        else {
            return;
        };
        if assignment != withdrawn.assignment {
            return;
        }
        let (now, rules) = (home.cause.now, &view.rules);
        let found = match withdrawn.reason {
            WithdrawReason::Steal => {
                let cause = recorded.event.decided.map_or(0, |d| d.cause_sequence);
                let steals = swarm.tasks.get(&id).map_or(0, |task| task.steals);
                let wrong = if heard.is_some() {
                    Some("it had started".to_owned())
                } else if steals >= STEALS_MAX {
                    Some(format!("it has been taken over {steals} times"))
                } else if now < at.plus_millis(STEAL_AFTER_MS) {
                    Some(format!("it had waited since {at}, and it was {now}"))
                } else {
                    unfair(swarm, view, agent, seen, withdrawn, cause)
                };
                let by_topology = withdrawn
                    .thief
                    .filter(|_| wrong.is_none())
                    .and_then(|thief| routes::no_thief(view, thief, agent, (at, now)));
                let told =
                    |wrong: String| format!("{id} is taken over from agent {agent}: {wrong}");
                let found = vec![
                    (Invariant::StealsFair, wrong.map(told)),
                    (Invariant::RoutesByTopology, by_topology.map(told)),
                ];
                self.found(recorded.sequence, found);
                return;
            }
            WithdrawReason::Topology => {
                let held = (heard.is_some(), by_turn);
                let wrong = routes::taken_in_vain(view, agent, &seen.facts, held, withdrawn);
                (
                    Invariant::NoTaskLostByAChange,
                    wrong.map(|wrong| {
                        format!("{id} is taken from agent {agent} by the topology: {wrong}")
                    }),
                )
            }
            WithdrawReason::QueueTimeout => {
                let over = queue_limit(&seen.facts, rules).map(|ms| waits_from.plus_millis(ms));
                let wrong = not_due(over.filter(|_| heard.is_none()), now);
                (
                    Invariant::TimeoutsDue,
                    wrong.map(|wrong| format!("{id} is said to have waited too long: {wrong}")),
                )
            }
            WithdrawReason::NoProgress => {
                let over =
                    progress_limit(&seen.facts, rules).and_then(|ms| Some(heard?.plus_millis(ms)));
                (
                    Invariant::TimeoutsDue,
                    not_due(over, now)
                        .map(|wrong| format!("{id} is said to make no progress: {wrong}")),
                )
            }
            _ => return,
        };
        self.found(recorded.sequence, vec![found]);
    }

    /// Judges the end of a task that was queued and is said to have waited too long.
    pub(super) fn waited_too_long(&mut self, number: usize, id: TaskId, recorded: &Recorded) {
        let swarm = &self.swarms[number];
        let home = &self.homes[swarm.home];
        let view = home.cause.swarm(number).filter(|_| home.judging);
        let Some((view, seen)) = view.and_then(|view| Some((view, view.tasks.get(&id)?))) else {
            return;
        };
        let Standing::Queued { waits_from, .. } = seen.standing else {
            return;
        };
        if seen.facts.vague {
            return;
        }
        let over = queue_limit(&seen.facts, &view.rules).map(|ms| waits_from.plus_millis(ms));
        let wrong = not_due(over, home.cause.now)
            .map(|wrong| format!("{id} is said to have waited too long: {wrong}"));
        self.found(recorded.sequence, vec![(Invariant::TimeoutsDue, wrong)]);
    }
}

fn not_due(over: Option<Timestamp>, now: Timestamp) -> Option<String> {
    match over {
        None => Some("it had no such limit".to_owned()),
        Some(over) if over > now => Some(format!("that is so from {over}, and it was {now}")),
        Some(_) => None,
    }
}

/// What comes before it in the queue, if anything that this agent can take does.
fn out_of_order(
    swarm: &Swarm,
    view: &View,
    (agent, post): (AgentId, &Post),
    id: TaskId,
    (seen, queued_at): (&Seen, Timestamp),
    assigned: &Assigned,
    cause: u64,
) -> Option<String> {
    let facts = &seen.facts;
    if assigned.queued_at.is_some_and(|told| told != queued_at) {
        return Some(format!(
            "{id} has waited since {queued_at}, and not since {:?}",
            assigned.queued_at
        ));
    }
    if assigned.priority != facts.priority {
        return Some(format!(
            "{id} has priority {}, and not {}",
            facts.priority, assigned.priority
        ));
    }
    let step = view.rules.priority_step_ms;
    let own = (rank(queued_at, facts.priority, step), facts.submitted);
    let sits = |asked: &Asked| sits(swarm, view, agent, asked, cause);
    let (best, other) = view.best(post, sits, |other| swarm.has_declined(agent, other))?;
    (best < own).then(|| {
        format!("{id} of rank {own:?} is assigned, and {other} of rank {best:?} comes before it")
    })
}

/// Whose turn it was, if it was somebody else's.
fn out_of_turn(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    (post, task): (&Post, TaskId),
    seen: &Seen,
    cause: u64,
) -> Option<String> {
    let before = view.by_turn.iter().take(CIRCLE_LOOK_MAX);
    let (turn, id) = before
        .take_while(|(turn, _)| *turn < post.turn())
        .find(|(_, id)| {
            let other = view.agents.get(id);
            swarm.works_at(id, cause)
                && !swarm.has_declined(*id, task)
                && together(view, agent, *id)
                && sits_for(swarm, view, *id, &seen.facts, cause)
                && other.is_some_and(|other| {
                    !other.lapsed && other.load() < other.places && other.can(&seen.facts.required)
                })
        })?;
    Some(format!(
        "agent {agent} was given one at {}, and agent {id} at {turn}: it has a place, and it was its turn",
        post.turn()
    ))
}

/// What is wrong with what is told of a task's affinity.
fn astray(
    swarm: &Swarm,
    view: &View,
    (agent, task): (AgentId, TaskId),
    seen: &Seen,
    assigned: &Assigned,
    cause: u64,
) -> Option<String> {
    let key = &seen.facts.key;
    let home = view.home(key);
    match (view.rules.algorithm, assigned.affinity) {
        (Algorithm::Affinity, None) => Some("nothing is told of its affinity".to_owned()),
        (Algorithm::Affinity, Some(AffinityOutcome::Hit)) => (home != Some(agent))
            .then(|| format!("agent {agent} is said to be that of {key:?}, which is {home:?}")),
        (Algorithm::Affinity, Some(AffinityOutcome::Miss)) => home
            .is_none()
            .then(|| format!("{key:?} is said to have an agent, and has none")),
        (Algorithm::Affinity, Some(AffinityOutcome::New)) => {
            let able = |id: &AgentId| {
                let post = view.agents.get(id);
                swarm.works_at(id, cause)
                    && !swarm.has_declined(*id, task)
                    && together(view, agent, *id)
                    && sits_for(swarm, view, *id, &seen.facts, cause)
                    && post.is_some_and(|post| post.can(&seen.facts.required))
            };
            home.filter(|id| able(id) && view.remembers_homes())
                .map(|id| format!("{key:?} is said to have no agent, and agent {id} is it"))
        }
        (_, Some(_)) => Some("affinity is told of, and not what was gone by".to_owned()),
        (_, None) => None,
    }
}

/// What is wrong with a steal: its form, the agent that it takes from, or the one that it takes for.
fn unfair(
    swarm: &Swarm,
    view: &View,
    agent: AgentId,
    seen: &Seen,
    withdrawn: &Withdrawn,
    cause: u64,
) -> Option<String> {
    if !view.rules.stealing {
        return Some("the swarm does not allow it".to_owned());
    }
    if withdrawn.force || withdrawn.then != Then::Queue {
        return Some("a steal has no force and leads back to the queue".to_owned());
    }
    if view.agents.get(&agent).is_some_and(|post| !post.is_busy()) {
        return Some("that agent had a free slot".to_owned());
    }
    let Some(thief) = withdrawn.thief else {
        return Some("it names nobody on whose account".to_owned());
    };
    let Some(post) = view.agents.get(&thief) else {
        return Some(format!("agent {thief} never joined"));
    };
    if swarm.agents.get(&thief).and_then(|a| a.living_at(cause)) == Some(false) {
        return Some(format!("agent {thief} was no healthy member"));
    }
    if !post.can(&seen.facts.required) {
        return Some(format!("agent {thief} cannot take it"));
    }
    (post.load() >= post.slots).then(|| format!("agent {thief} had no free slot"))
}
