//! The fold: what each input does to the state.

use swarm_events::{
    AgentId, Body, Event, Input, OrgId, Place, Problem, Recorded, Subject, SwarmId,
    decider::{Admission, Verdict},
    envelope::Source,
    planted::{self, Bug},
    read::Unreadable,
    subject::{CommandVerb, Service},
};
use uuid::Uuid;

use crate::{
    Coordinator, OpenTasks, Stopping, Swarm, Touched,
    adapt::by_rule,
    mark::{Mark, OrgOrder, Refusal, Wanted},
    membership::{Change, Met},
    order::{Order, order},
    unreadable::clipped,
};

/// Name of the precondition that failed.
pub(crate) type Void = &'static str;

impl Coordinator {
    pub(crate) fn fold(
        &mut self,
        admission: Admission,
        input: &Input,
        touched: &mut Touched,
        opened: &mut Vec<u64>,
    ) -> Verdict {
        match admission {
            Admission::Void(why) => {
                self.hidden_request(input, touched);
                return Verdict::Void(why);
            }
            Admission::Claimed => {
                if let Input::Event(recorded) = input
                    && let Body::Claimed(claimed) = &recorded.event.body
                {
                    // Here and not in `reject`, so that every reader of the log does it.
                    for stuck in &claimed.rejects {
                        self.set_aside(stuck.sequence, &stuck.problem);
                    }
                }
                return Verdict::Applied;
            }
            Admission::Admit => {}
        }
        let outcome = match input {
            Input::Event(recorded) => self.event(recorded, touched, opened),
            Input::Unreadable(message) => Ok(self.unreadable(message, opened)),
        };
        outcome.unwrap_or_else(|why| {
            self.head.voids += 1;
            Verdict::Void(why)
        })
    }

    /// A decision that does not count is the last on its subject all the same, and a host that begins reads no more of it
    /// than that: an older request hides the one that is open.
    fn hidden_request(&mut self, input: &Input, touched: &mut Touched) {
        if let Input::Event(recorded) = input
            && let Body::AgentSpawnRequested(hides) = &recorded.event.body
            && let Subject::Agent(place, _, id) = recorded.subject
            && place.partition == self.head.partition
            && let Some(swarm) = self.swarms.get_mut(&(place.org, place.swarm))
            && let Some(managed) = swarm.agents.get_mut(&id).and_then(|a| a.managed.as_mut())
            && managed.hidden_by(hides.spawn)
        {
            touched.agents.insert((place.org, place.swarm, id));
        }
    }

    fn event(
        &mut self,
        recorded: &Recorded,
        touched: &mut Touched,
        opened: &mut Vec<u64>,
    ) -> Result<Verdict, Void> {
        let here = recorded.subject.partition() == self.head.partition;
        match recorded.subject {
            // Every partition folds the events of all organizations.
            Subject::Org(_, org, _) => self.org_event(org, recorded, touched),
            Subject::Swarm(place, _) if here => self.swarm_event(place, recorded, touched, opened),
            Subject::Agent(place, _, agent) if here => {
                self.agent_event(place, agent, recorded, touched, opened)
            }
            Subject::Command(place, verb) if here && verb.service() == Service::Coordinator => {
                self.command(place.org, Some(place), verb, recorded, opened)
            }
            Subject::OrgCommand(_, org, verb) if here => {
                self.command(org, None, verb, recorded, opened)
            }
            _ => Ok(Verdict::Ignored),
        }
    }

    fn org_event(
        &mut self,
        org: OrgId,
        recorded: &Recorded,
        touched: &mut Touched,
    ) -> Result<Verdict, Void> {
        if matches!(recorded.event.body, Body::OrgRefused(_)) {
            // It may answer a mark of another partition, and changes nothing else.
            return Ok(if self.close_cause(&recorded.event) {
                Verdict::Applied
            } else {
                Verdict::Ignored
            });
        }
        let verdict = self.orgs.evolve(org, recorded, touched)?;
        let done = match self.mark_of_cause(&recorded.event) {
            Some((_, mark)) => match &mark.wanted {
                Wanted::Org(org, order) => match &**order {
                    OrgOrder::CreateOrg(order) => self.orgs.get(*org).is_some_and(|found| {
                        found.users.contains_key(&order.user_id)
                            && found.keys.contains_key(&order.key_id)
                    }),
                    _ => true,
                },
                _ => true,
            },
            None => false,
        };
        if done {
            self.close_cause(&recorded.event);
        }
        Ok(verdict)
    }

    fn swarm_event(
        &mut self,
        place: Place,
        recorded: &Recorded,
        touched: &mut Touched,
        opened: &mut Vec<u64>,
    ) -> Result<Verdict, Void> {
        let key = (place.org, place.swarm);
        let (at, sequence) = (recorded.time, recorded.sequence);
        match &recorded.event.body {
            Body::SwarmRefused(_) => {
                return if self.close_cause(&recorded.event) {
                    Ok(Verdict::Applied)
                } else {
                    Err("already-answered")
                };
            }
            Body::SwarmCreated(created) => {
                if self.swarms.contains_key(&key) {
                    return Err("swarm-exists");
                }
                let ordered = self
                    .mark_of_cause(&recorded.event)
                    .and_then(|(_, mark)| match &mark.wanted {
                        Wanted::Swarm(_, order) => order.content(),
                        _ => None,
                    });
                let (body_sha256, create_content) = ordered.unwrap_or_default();
                let mut swarm = Swarm::new(place, created, at, sequence);
                (swarm.body_sha256, swarm.create_content) = (body_sha256, create_content);
                self.names
                    .insert((place.org, created.name.clone()), place.swarm);
                self.swarms.insert(key, swarm);
            }
            Body::SwarmUpdated(updated) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                if !swarm.is_open() {
                    return Err("swarm-stopping");
                }
                let old = std::mem::replace(&mut swarm.name, updated.name.clone());
                swarm.description.clone_from(&updated.description);
                let adaptation = swarm.configuration.adaptation;
                swarm.configuration = updated.configuration.clone();
                swarm.updated_at = at;
                swarm.reached |= swarm.live_agents() >= swarm.agents_needed();
                if swarm.configuration.adaptation != adaptation {
                    swarm.look_anew();
                }
                swarm.evolve_topology(None, recorded, self.head.now)?;
                self.forget_name(place, old);
                self.names
                    .insert((place.org, updated.name.clone()), place.swarm);
            }
            Body::SwarmStopping(_) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                if !swarm.is_open() {
                    return Err("swarm-stopping");
                }
                swarm.stopping = Some(Stopping {
                    event: recorded.event.id.0,
                    sequence,
                    since: self.head.now,
                    drained: false,
                });
                swarm.updated_at = at;
                self.open(
                    sequence,
                    recorded.event.id.0,
                    recorded.event.correlation,
                    Wanted::Stopping(place.org, place.swarm),
                    opened,
                );
            }
            Body::SwarmDeleted(_) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                let stopping = swarm.stopping.ok_or("not-stopping")?;
                if swarm.deleted_at.is_some() {
                    return Err("swarm-deleted");
                }
                swarm.deleted_at = Some(at);
                swarm.updated_at = at;
                let gone = swarm.dismiss_all(Met::new(recorded, self.head.now));
                touched
                    .agents
                    .extend(gone.iter().map(|agent| (place.org, place.swarm, *agent)));
                let name = swarm.name.clone();
                self.forget_name(place, name);
                self.close(stopping.sequence);
                touched.swarms.insert(key);
                return Ok(Verdict::Applied);
            }
            Body::SwarmScaled(scaled) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                let changed = swarm.scale(scaled, Met::new(recorded, self.head.now))?;
                touched
                    .agents
                    .extend(changed.iter().map(|agent| (place.org, place.swarm, *agent)));
            }
            Body::SwarmMeasured(measured) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                let count = measured
                    .pending
                    .saturating_add(measured.queued)
                    .saturating_add(measured.assigned)
                    .saturating_add(measured.running);
                let at = self.head.now;
                swarm.measured = Some(OpenTasks { at, count });
                swarm.look_at_tasks(measured, at);
                if let Some(stopping) = &mut swarm.stopping {
                    // Judged by what caused it: figures from before `stopping` say nothing of tasks that came in between.
                    let after = recorded
                        .event
                        .decided
                        .is_some_and(|d| d.cause_sequence >= stopping.sequence);
                    stopping.drained |= count == 0 && after;
                }
                return Ok(Verdict::Applied);
            }
            Body::SwarmSampled(sampled) => {
                let now = self.head.now;
                let looks = |swarm: &mut Swarm| swarm.look_at_samples(sampled, now);
                return Ok(if self.swarms.get_mut(&key).is_some_and(looks) {
                    Verdict::Applied
                } else {
                    Verdict::Ignored
                });
            }
            Body::SwarmTopologySuggested(suggested) => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                swarm.suggested(suggested, recorded, self.head.now);
                if suggested.applied {
                    let demanded = Box::new((suggested.after.clone(), by_rule(suggested)));
                    let event = &recorded.event;
                    let wanted = Wanted::Adapt(place, demanded);
                    self.open(sequence, event.id.0, event.correlation, wanted, opened);
                }
            }
            _ => {
                let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
                let now = self.head.now;
                let Some(changed) = swarm.evolve_topology(None, recorded, now)? else {
                    return Ok(Verdict::Ignored);
                };
                let changed = changed.into_iter();
                touched
                    .agents
                    .extend(changed.map(|agent| (place.org, place.swarm, agent)));
            }
        }
        self.close_cause(&recorded.event);
        touched.swarms.insert(key);
        Ok(Verdict::Applied)
    }

    fn agent_event(
        &mut self,
        place: Place,
        agent: AgentId,
        recorded: &Recorded,
        touched: &mut Touched,
        opened: &mut Vec<u64>,
    ) -> Result<Verdict, Void> {
        let key = (place.org, place.swarm);
        let origin = self
            .mark_of_cause(&recorded.event)
            .and_then(|(_, mark)| match &mark.wanted {
                Wanted::Swarm(_, order) => order.origin(),
                _ => None,
            });
        let swarm = self.swarms.get_mut(&key).ok_or("unknown-swarm")?;
        let now = self.head.now;
        if let Some(question) = swarm.evolve_question(agent, recorded, now)? {
            touched.questions.insert((place.org, place.swarm, question));
            self.close_cause(&recorded.event);
            return Ok(Verdict::Applied);
        }
        if let Some(changed) = swarm.evolve_topology(Some(agent), recorded, now)? {
            let changed = changed.into_iter();
            touched
                .agents
                .extend(changed.map(|agent| (place.org, place.swarm, agent)));
            return Ok(Verdict::Applied);
        }
        let change = swarm.evolve_agent(agent, recorded, origin, self.head.now)?;
        let Change::Made(settled) = change else {
            return Ok(Verdict::Ignored);
        };
        swarm.reached |= swarm.live_agents() >= swarm.agents_needed();
        touched.swarms.insert(key);
        touched.agents.insert((place.org, place.swarm, agent));
        if let Some(sequence) = settled {
            self.close(sequence);
        }
        if let Body::AgentFailed(failed) = &recorded.event.body {
            let evidence = Box::new(failed.evidence.clone());
            self.open(
                recorded.sequence,
                recorded.event.id.0,
                recorded.event.correlation,
                Wanted::Lost(place.org, place.swarm, agent, evidence),
                opened,
            );
        }
        // The removals of a swarm's end name its `stopping`, which stays open until the end is there.
        let stays = self
            .mark_of_cause(&recorded.event)
            .is_some_and(|(_, mark)| matches!(mark.wanted, Wanted::Stopping(..)));
        if !stays {
            self.close_cause(&recorded.event);
        }
        Ok(Verdict::Applied)
    }

    fn command(
        &mut self,
        org: OrgId,
        place: Option<Place>,
        verb: CommandVerb,
        recorded: &Recorded,
        opened: &mut Vec<u64>,
    ) -> Result<Verdict, Void> {
        let event = &recorded.event;
        let id = event.id.0;
        let known = self.commands.get(id).is_some() || self.open_ids.contains_key(&id);
        if known && !planted::is(Bug::RepeatedCommandCounts) {
            return Err("repeated-command");
        }
        if let Err(problem) = self.commands.check_time(id, self.head.now) {
            // Not remembered: an id from the future would push the horizon there when it is forgotten.
            let refusal = self.refusal(org, place, true, recorded, problem);
            self.open(recorded.sequence, id, event.correlation, refusal, opened);
            return Ok(Verdict::Applied);
        }
        let wanted = match (place, order(&event.body, event.about)) {
            (Some(place), Some(Order::Swarm(order))) => Wanted::Swarm(place, order),
            (None, Some(Order::Org(order))) => Wanted::Org(org, order),
            _ => {
                let problem = Problem::new(
                    "unknown-command",
                    format!("{verb} is no command of the coordinator"),
                );
                self.refusal(org, place, true, recorded, problem)
            }
        };
        self.commands.insert(id, recorded.sequence, self.head.now);
        self.open(recorded.sequence, id, event.correlation, wanted, opened);
        Ok(Verdict::Applied)
    }

    fn refusal(
        &self,
        org: OrgId,
        swarm: Option<Place>,
        command: bool,
        recorded: &Recorded,
        problem: Problem,
    ) -> Wanted {
        Wanted::Refusal(Box::new(Refusal {
            org,
            swarm,
            command,
            subject: recorded.subject.to_string(),
            sequence: recorded.sequence,
            count: 1,
            problem: clipped(problem),
            due: self.head.now,
        }))
    }

    /// Opens a mark.
    pub(crate) fn open(
        &mut self,
        sequence: u64,
        id: Uuid,
        correlation: Option<Uuid>,
        wanted: Wanted,
        opened: &mut Vec<u64>,
    ) {
        self.open_ids.insert(id, sequence);
        let mark = Mark {
            id,
            correlation,
            wanted,
        };
        self.marks.insert(sequence, mark);
        opened.push(sequence);
    }

    /// Closes a mark, if it is open.
    pub(crate) fn close(&mut self, sequence: u64) {
        if let Some(mark) = self.marks.remove(&sequence) {
            self.open_ids.remove(&mark.id);
            self.unreadable_groups.retain(|_, of| *of != sequence);
        }
    }

    /// The open mark that an event answers. Other services may name the same cause, and answer nothing here.
    pub(crate) fn mark_of_cause(&self, event: &Event) -> Option<(u64, &Mark)> {
        if !is_own(event) {
            return None;
        }
        let sequence = *self.open_ids.get(&event.causation?)?;
        Some((sequence, self.marks.get(&sequence)?))
    }

    fn close_cause(&mut self, event: &Event) -> bool {
        let Some((sequence, _)) = self.mark_of_cause(event) else {
            return false;
        };
        self.close(sequence);
        true
    }

    fn forget_name(&mut self, place: Place, name: String) {
        let key = (place.org, name);
        if self.names.get(&key) == Some(&place.swarm) {
            self.names.remove(&key);
        }
    }
}

/// Whether the coordinator decided it.
pub(crate) fn is_own(event: &Event) -> bool {
    event.decided.is_some() && matches!(event.source, Source::Service(Service::Coordinator, _))
}

/// A swarm's key in the state.
pub(crate) type Key = (OrgId, SwarmId);

impl Coordinator {
    /// As [`swarm_events::decider::Decider::evolve`] for a reader, noting what changed in `touched`.
    pub fn evolve_traced(&mut self, input: &Input, touched: &mut Touched) -> Verdict {
        let admission = self.head.admit(Service::Coordinator, input);
        self.fold(admission, input, touched, &mut Vec::new())
    }

    fn unreadable(&mut self, message: &Unreadable, opened: &mut Vec<u64>) -> Verdict {
        self.note_unreadable(message, opened)
    }
}
