//! Messages that cannot be read: they stop nobody, and are refused in words, summed up per source and second.

use swarm_events::{
    EventId, OrgId, Partition, Place, Problem, Subject, SwarmId, decider::Verdict,
    read::Unreadable, subject::Service,
};

use crate::{
    Coordinator,
    mark::{Refusal, Wanted},
};

/// Unreadable messages of a source are summed up for this long, in milliseconds of log time: garbage at any rate costs one
/// event per source and second.
pub const SUM_MS: u64 = 1_000;
/// Most sources that are summed up at once in a partition; those beyond share one sum. Sources are the senders' own words,
/// so without a bound a sender could make one event per message after all.
pub const SOURCES_MAX: usize = 64;
/// Longest text of a problem's fields in an answer, in bytes: parsers quote what they choke on.
pub const PROBLEM_BYTES_MAX: usize = 1_000;

/// The place and source whose unreadable messages are summed up.
pub(crate) type Group = (OrgId, Option<SwarmId>, String);

impl Coordinator {
    pub(crate) fn note_unreadable(
        &mut self,
        message: &Unreadable,
        opened: &mut Vec<u64>,
    ) -> Verdict {
        if message.newer {
            return Verdict::Ignored;
        }
        // A subject that is none of ours names nobody to tell; control messages concern the services alone. They are counted.
        let Some((subject, org)) = message.subject.and_then(|s| Some((s, s.org()?))) else {
            self.unattributed += 1;
            return Verdict::Ignored;
        };
        let (swarm, command) = match subject {
            Subject::Command(_, verb) if verb.service() != Service::Coordinator => {
                return Verdict::Ignored;
            }
            Subject::Command(place, _) => (Some(place), true),
            Subject::OrgCommand(..) => (None, true),
            Subject::Swarm(place, _) | Subject::Agent(place, ..) => (Some(place), false),
            Subject::Org(..) => (None, false),
            Subject::Task(..)
            | Subject::Heartbeat(..)
            | Subject::Control(..)
            | Subject::Message(..) => {
                return Verdict::Ignored;
            }
        };
        if subject.partition() != self.head.partition {
            return Verdict::Ignored;
        }
        // In a wrong partition a swarm's own subject is not ours to write on: the organization hears of it.
        let swarm = swarm.filter(|place| Partition::of(place.swarm.0) == place.partition);
        let mut group = group(org, swarm, message.source.clone().unwrap_or_default());
        if !self.unreadable_groups.contains_key(&group)
            && self.unreadable_groups.len() >= SOURCES_MAX
        {
            group.2 = "…".to_owned();
        }
        if let Some(first) = self.unreadable_groups.get(&group)
            && let Some(mark) = self.marks.get_mut(first)
            && let Wanted::Refusal(refusal) = &mut mark.wanted
            && self.head.now < refusal.due
        {
            refusal.count = refusal.count.saturating_add(1);
            refusal.sequence = message.sequence;
            refusal.subject.clone_from(&message.subject_text);
            refusal.problem = clipped(message.problem.clone());
            return Verdict::Applied;
        }
        let id = message
            .id
            .map(|id| id.0)
            .filter(|id| !self.open_ids.contains_key(id))
            .unwrap_or_else(|| EventId::of_decision("unreadable", message.sequence, 0).0);
        let wanted = Wanted::Refusal(Box::new(Refusal {
            org,
            swarm,
            command,
            subject: message.subject_text.clone(),
            sequence: message.sequence,
            count: 1,
            problem: clipped(message.problem.clone()),
            due: self.head.now.plus_millis(SUM_MS),
        }));
        self.unreadable_groups.insert(group, message.sequence);
        self.open(message.sequence, id, None, wanted, opened);
        Verdict::Applied
    }
}

fn group(org: OrgId, swarm: Option<Place>, source: String) -> Group {
    (org, swarm.map(|place| place.swarm), source)
}

/// A problem whose texts are cut to what an answer can carry.
pub(crate) fn clipped(mut problem: Problem) -> Problem {
    let cut = |text: &mut String| {
        if text.len() > PROBLEM_BYTES_MAX {
            let mut end = PROBLEM_BYTES_MAX;
            while !text.is_char_boundary(end) {
                end -= 1;
            }
            text.truncate(end);
            text.push('…');
        }
    };
    cut(&mut problem.code);
    cut(&mut problem.detail);
    problem.field.as_mut().map(cut);
    problem.cure.as_mut().map(cut);
    problem
}
