//! The answers to open marks. Each names its mark's id as its cause.

mod agents;
mod end;
mod join;
mod org;
mod process;
mod question;
mod scale;
mod swarm;
mod template;
mod topology;

use swarm_events::{
    OrgId, Partition, Problem, Subject, Timestamp,
    decider::Decision,
    ids::CommandId,
    org as org_events,
    subject::{OrgVerb, SwarmVerb},
    swarm as swarm_events_of,
};

use crate::{
    Coordinator, Plan,
    mark::{Mark, OrgOrder, Refusal, SwarmOrder, Wanted},
    plan::{Joining, Mode, Scope, Scopes, agent_scopes, ask_scopes, question_scopes, swarm_scope},
    unreadable::clipped,
};

pub use end::{STOP_WAIT_IDLE_MS, STOP_WAIT_MS_MAX, STOP_WAIT_PROCESSES_MS};
pub use question::CHOICE_BYTES_MAX;

/// What to do about a mark now.
pub(crate) enum Answer {
    /// These decisions; all of them name the mark's id as their cause.
    Decide(Vec<Decision>),
    /// A join, with what it promises.
    Join(Box<Decision>, Joining),
    /// Nothing yet: it hangs on what is under way, or on time.
    Wait,
}

impl Coordinator {
    pub(crate) fn answer(&self, plan: &mut Plan, limit: usize, out: &mut Vec<Decision>) {
        // A mark that must wait keeps its place: nothing behind it may take what it wants.
        let mut waiting = Scopes::default();
        let mut room = limit;
        self.fill_up(plan, &mut waiting, &mut room, out);
        self.answer_marks(plan, &mut waiting, &mut room, out);
        self.expire(plan, &waiting, &mut room, out);
        self.reconcile(plan, &mut waiting, &mut room, out);
        self.settle(plan, &waiting, &mut room, out);
    }

    fn answer_marks(
        &self,
        plan: &mut Plan,
        waiting: &mut Scopes,
        room: &mut usize,
        out: &mut Vec<Decision>,
    ) {
        let due: Vec<u64> = plan.due.iter().copied().collect();
        for sequence in due {
            if *room == 0 {
                return;
            }
            let Some(mark) = self.marks.get(&sequence) else {
                plan.due.remove(&sequence);
                continue;
            };
            let scopes = scopes(&mark.wanted);
            if !plan.is_free(&scopes) || !waiting.free(&scopes) || plan.is_under_way(mark.id) {
                waiting.hold(&scopes);
                continue;
            }
            let (mut decisions, joining) = match self.about(sequence, mark, plan, *room) {
                Answer::Wait => {
                    // A swarm's end waits for others; they must not wait for it.
                    if !matches!(mark.wanted, Wanted::Stopping(..)) {
                        waiting.hold(&scopes);
                    }
                    continue;
                }
                Answer::Decide(decisions) => (decisions, None),
                Answer::Join(decision, joining) => (vec![*decision], Some(joining)),
            };
            let joins = match (&mark.wanted, joining) {
                (Wanted::Swarm(place, order), Some(joining)) => order
                    .agent()
                    .map(|agent| ((place.org, place.swarm, agent), joining)),
                _ => None,
            };
            *room -= decisions.len().min(*room);
            plan.start(sequence, mark.id, decisions.len(), scopes, joins);
            for decision in &mut decisions {
                decision.causation = Some(mark.id);
                decision.correlation = mark.correlation;
            }
            out.append(&mut decisions);
        }
    }

    /// When a mark or an agent that waits for time falls due.
    pub(crate) fn deadline(&self, plan: &Plan) -> Option<Timestamp> {
        let marks =
            plan.due
                .iter()
                .filter_map(|sequence| match &self.marks.get(sequence)?.wanted {
                    Wanted::Refusal(refusal) => Some(refusal.due),
                    Wanted::Stopping(org, swarm) => {
                        self.swarm(*org, *swarm)?.end_wait(self.head.now)
                    }
                    _ => None,
                });
        let now = self.head.now;
        let alone = [
            plan.next_agent(now),
            plan.next_question(now),
            plan.next_change(now),
        ];
        marks.chain(alone.into_iter().flatten()).min()
    }

    fn about(&self, sequence: u64, mark: &Mark, plan: &Plan, room: usize) -> Answer {
        let outcome = match &mark.wanted {
            Wanted::Refusal(refusal) => {
                if self.head.now < refusal.due {
                    return Answer::Wait;
                }
                return Answer::Decide(vec![refused(mark, refusal)]);
            }
            Wanted::Stopping(org, swarm) => return self.end(*org, *swarm, room),
            Wanted::Lost(org, swarm, agent, evidence) => {
                return self.remove_lost(*org, *swarm, *agent, evidence);
            }
            Wanted::Adapt(place, demanded) => self.adapt(*place, &demanded.0, &demanded.1),
            Wanted::Org(org, order) => match &**order {
                OrgOrder::CreateOrg(order) => self.create_org(*org, order, room),
                OrgOrder::CreateKey(order) => self.create_key(*org, order),
                OrgOrder::RevokeKey(order) => self.revoke_key(*org, order),
                OrgOrder::UpdateOrg(order) => self.update_org(*org, order),
                OrgOrder::SaveTemplate(order) => self.save_template(*org, order),
                OrgOrder::DeleteTemplate(order) => self.delete_template(*org, order),
            },
            Wanted::Swarm(place, order) => match &**order {
                SwarmOrder::Create(order, content) => self.create(*place, order, *content),
                SwarmOrder::Update(order) => self.update(*place, order),
                SwarmOrder::Delete => self.delete(*place),
                SwarmOrder::Join(agent, order) => self.join(*place, *agent, order, plan),
                SwarmOrder::Leave(agent, order) => self.leave(*place, *agent, order),
                SwarmOrder::RemoveAgent(agent, order) => self.remove(*place, *agent, order),
                SwarmOrder::AddAgent(agent, order, content) => {
                    self.add(*place, *agent, order, *content, plan)
                }
                SwarmOrder::RestartAgent(agent, order) => self.restart(*place, *agent, order, plan),
                SwarmOrder::UpdateAgent(agent, order) => {
                    self.update_agent(*place, *agent, order, plan)
                }
                SwarmOrder::Scale(order) => self.scale(*place, order, mark.id),
                SwarmOrder::ChangeTopology(order) => self.change_topology(*place, order),
                SwarmOrder::Ask(agent, order) => {
                    self.ask(*place, *agent, order, CommandId(mark.id), plan)
                }
                SwarmOrder::Answer(order) => self.answer_question(*place, order),
            },
        };
        outcome.unwrap_or_else(|problem| {
            let command = !matches!(mark.wanted, Wanted::Adapt(..));
            let (org, swarm, subject) = match &mark.wanted {
                Wanted::Swarm(place, order) => (
                    place.org,
                    Some(*place),
                    Subject::Command(*place, order.verb()).to_string(),
                ),
                Wanted::Adapt(place, _) => (
                    place.org,
                    Some(*place),
                    Subject::Swarm(*place, SwarmVerb::TopologySuggested).to_string(),
                ),
                Wanted::Org(org, order) => (
                    *org,
                    None,
                    Subject::OrgCommand(self.head.partition, *org, order.verb()).to_string(),
                ),
                // Only what is wanted in words is refused here.
                _ => return Answer::Wait,
            };
            let refusal = Refusal {
                org,
                swarm,
                command,
                subject,
                sequence,
                count: 1,
                problem: clipped(problem),
                due: self.head.now,
            };
            Answer::Decide(vec![refused(mark, &refusal)])
        })
    }
}

fn refused(mark: &Mark, refusal: &Refusal) -> Decision {
    let command_id = (refusal.command && refusal.count == 1).then_some(CommandId(mark.id));
    let problem = refusal.problem.clone();
    match refusal.swarm {
        Some(place) => {
            let body = swarm_events_of::Refused {
                command_id,
                refused_subject: refusal.subject.clone(),
                refused_seq: refusal.sequence,
                count: refusal.count,
                problem,
            };
            Decision::new(
                Subject::Swarm(place, SwarmVerb::Refused),
                place.swarm.0,
                body,
            )
        }
        None => {
            let body = org_events::Refused {
                command_id,
                problem,
            };
            Decision::new(
                org_subject(refusal.org, OrgVerb::Refused),
                refusal.org.0,
                body,
            )
        }
    }
}

/// The subject of an organization's event. Its partition follows from the organization, whichever partition speaks.
pub(crate) fn org_subject(org: OrgId, verb: OrgVerb) -> Subject {
    Subject::Org(Partition::of(org.0), org, verb)
}

/// What an answer is about.
fn scopes(wanted: &Wanted) -> Vec<(Scope, Mode)> {
    match wanted {
        Wanted::Refusal(_) => Vec::new(),
        Wanted::Org(org, _) => vec![(Scope::Org(*org), Mode::Alone)],
        Wanted::Stopping(org, swarm) => swarm_scope((*org, *swarm)).to_vec(),
        Wanted::Lost(org, swarm, agent, _) => agent_scopes((*org, *swarm, *agent)).to_vec(),
        Wanted::Adapt(place, _) => swarm_scope((place.org, place.swarm)).to_vec(),
        Wanted::Swarm(place, order) => match &**order {
            SwarmOrder::Create(..) | SwarmOrder::Update(_) => vec![
                (Scope::Names(place.org), Mode::Alone),
                (Scope::Swarm(place.org, place.swarm), Mode::Alone),
            ],
            SwarmOrder::Delete | SwarmOrder::Scale(_) | SwarmOrder::ChangeTopology(_) => {
                swarm_scope((place.org, place.swarm)).to_vec()
            }
            SwarmOrder::Ask(agent, _) => ask_scopes((place.org, place.swarm, *agent)).to_vec(),
            SwarmOrder::Answer(order) => {
                question_scopes((place.org, place.swarm, order.question_id)).to_vec()
            }
            SwarmOrder::Join(agent, _)
            | SwarmOrder::Leave(agent, _)
            | SwarmOrder::RemoveAgent(agent, _)
            | SwarmOrder::AddAgent(agent, ..)
            | SwarmOrder::RestartAgent(agent, _)
            | SwarmOrder::UpdateAgent(agent, _) => {
                agent_scopes((place.org, place.swarm, *agent)).to_vec()
            }
        },
    }
}

/// What answering a command comes to: decisions, or why it is refused.
pub(crate) type Outcome = Result<Answer, Problem>;

pub(crate) fn one(decision: Decision) -> Outcome {
    Ok(Answer::Decide(vec![decision]))
}
