//! Commands, refusals, and what cannot be read.

use swarm_events::{
    Body, Place, Recorded, Service, Subject, TaskId, Timestamp, Unreadable,
    decider::Verdict,
    planted::{self, Bug},
    subject::{CommandVerb, TaskVerb},
    task::{REASON_BYTES_MAX, Refused},
};

use crate::{
    state::{Back, Command, Distributor, Refusal, Wanted},
    swarm::cut,
    trace::Trace,
};

/// Most sums of unreadable messages in one second of a partition; beyond it their sources are summed too. Each becomes an
/// event, and a flood of made-up sources must not become a flood of events.
pub const SUMS_MAX: usize = 256;

impl Command {
    /// Where it was published.
    pub(crate) const fn subject(&self, place: Place) -> Subject {
        let verb = match self.wanted {
            Wanted::Cancel { .. } => CommandVerb::Cancel,
            Wanted::Retry => CommandVerb::Retry,
            Wanted::CancelGraph { .. } => CommandVerb::CancelGraph,
            Wanted::Discard => CommandVerb::Discard,
            Wanted::HandBack(_) => CommandVerb::HandBack,
        };
        Subject::Command(place, verb)
    }
}

impl Distributor {
    pub(super) fn command(
        &mut self,
        place: Place,
        recorded: &Recorded,
        trace: &mut Trace,
    ) -> Verdict {
        // A reason is held until its command is answered: no more of it than is written.
        let short = |reason: &Option<String>| {
            let reason = reason.as_deref()?;
            Some(Box::from(cut(reason, REASON_BYTES_MAX)))
        };
        let (about, wanted) = match &recorded.event.body {
            Body::Cancel(cancel) => {
                let reason = short(&cancel.reason);
                (cancel.task_id.0, Wanted::Cancel { reason })
            }
            Body::CancelGraph(cancel) => {
                let reason = short(&cancel.reason);
                (cancel.graph_id.0, Wanted::CancelGraph { reason })
            }
            Body::Retry(retry) => (retry.task_id.0, Wanted::Retry),
            Body::Discard(discard) => (discard.task_id.0, Wanted::Discard),
            Body::HandBack(back) => (back.task_id.0, Wanted::HandBack(Back::of(back))),
            _ => return Verdict::Ignored,
        };
        let id = recorded.event.id.0;
        let moment = self.moment();
        let problem = match self.number(place) {
            None => unknown_swarm(place),
            Some(number) => {
                let Some(swarm) = self.swarms.get_mut(number as usize) else {
                    return Verdict::Ignored;
                };
                if swarm.commands_seen.get(id).is_some() && !planted::is(Bug::RepeatedCommandCounts)
                {
                    return Verdict::Void("repeat");
                }
                match swarm.commands_seen.check_time(id, moment.now) {
                    Ok(()) => {
                        swarm.commands_seen.insert(id, moment.sequence, moment.now);
                        let command = Command {
                            id,
                            swarm: number,
                            about,
                            wanted,
                            correlation: recorded.event.correlation,
                        };
                        self.commands.insert(moment.sequence, command);
                        trace.command(moment.sequence);
                        return Verdict::Applied;
                    }
                    Err(problem) => problem,
                }
            }
        };
        let refusal = Refusal {
            place,
            about,
            causation: Some(id),
            command: true,
            subject: recorded.subject.to_string().into(),
            count: 1,
            problem,
            due: moment.now,
        };
        self.refuse(refusal, trace);
        Verdict::Applied
    }

    /// A refusal is met: its mark, or its command's, is closed.
    pub(super) fn refused(
        &mut self,
        place: Place,
        recorded: &Recorded,
        refused: &Refused,
        trace: &mut Trace,
    ) -> Verdict {
        let mine = |r: &Refusal| r.place == place;
        if self.refusals.get(&refused.refused_seq).is_some_and(mine) {
            self.refusals.remove(&refused.refused_seq);
            trace.refusal(refused.refused_seq);
            return Verdict::Applied;
        }
        let command = recorded
            .event
            .causation
            .and_then(|id| self.swarm_at(place)?.commands_seen.get(id));
        if let Some(sequence) = command
            && self.commands.remove(&sequence).is_some()
        {
            trace.command(sequence);
            return Verdict::Applied;
        }
        Verdict::Void("nothing-to-refuse")
    }

    pub(super) fn unreadable(&mut self, unreadable: &Unreadable, trace: &mut Trace) -> Verdict {
        let (place, command) = match unreadable.subject {
            // A refusal that cannot be read is not refused in turn: that would have no end.
            Some(Subject::Task(_, TaskVerb::Refused, _)) => return Verdict::Void("unreadable"),
            Some(Subject::Task(place, _, _)) => (place, false),
            Some(Subject::Command(place, verb)) if verb.service() == Service::Distributor => {
                (place, true)
            }
            _ => return Verdict::Ignored,
        };
        if place.partition != self.head.partition || unreadable.newer {
            return Verdict::Ignored;
        }
        let id = unreadable.id.map(|id| id.0);
        let now = self.head.now;
        let refusal = Refusal {
            place,
            about: id.unwrap_or(place.swarm.0),
            causation: id,
            command,
            subject: (*unreadable.subject_text).into(),
            count: 1,
            problem: unreadable.problem.clone(),
            due: now,
        };
        if command && id.is_some() {
            // A command's refusal names it: somebody waits for it.
            self.refuse(refusal, trace);
            return Verdict::Applied;
        }
        self.sum_up(refusal, unreadable, trace);
        Verdict::Applied
    }

    /// Adds to the sum of this source and kind of problem in this second, or begins one.
    fn sum_up(&mut self, mut refusal: Refusal, unreadable: &Unreadable, trace: &mut Trace) {
        let now = self.head.now;
        let sequence = self.head.sequence;
        // All sums are of the same second: time never goes back.
        if let Some(last) = self.sums.values().next()
            && self.refusals.get(last).is_none_or(|r| r.due <= now)
        {
            self.sums.clear();
        }
        let mut key = (
            refusal.place,
            Box::from(unreadable.source.as_deref().unwrap_or_default()),
            Box::from(refusal.problem.code.as_str()),
        );
        if self.sums.len() >= SUMS_MAX && !self.sums.contains_key(&key) {
            key.1 = Box::default();
        }
        if let Some(last) = self.sums.insert(key, sequence)
            && let Some(before) = self.refusals.remove(&last)
        {
            trace.refusal(last);
            refusal.count = before.count.saturating_add(1);
        }
        refusal.due =
            Timestamp::from_micros((now.as_micros().div_euclid(1_000_000) + 1) * 1_000_000);
        self.refuse(refusal, trace);
    }
}

/// The refusal of anything that is addressed to a swarm that is not there.
pub(crate) fn unknown_swarm(place: Place) -> swarm_events::Problem {
    swarm_events::Problem::new(
        "unknown-swarm",
        format!(
            "there is no swarm {} in organization {}",
            place.swarm, place.org
        ),
    )
    .field("swarm")
    .cure("create it first, or correct the subject")
}

/// The refusal of an id that stands for something else.
pub(crate) fn id_in_use(id: TaskId) -> swarm_events::Problem {
    swarm_events::Problem::new(
        "id-in-use",
        format!("task {id} was submitted before with other content"),
    )
    .field("id")
    .cure("submit it under a new id")
}
