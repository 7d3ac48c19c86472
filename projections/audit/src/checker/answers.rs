//! One answer for each command.

use std::collections::{BTreeMap, VecDeque};

use swarm_events::Body;
use uuid::Uuid;

/// The code of a refusal by a swarm that is not there.
const UNKNOWN_SWARM: &str = "unknown-swarm";

/// Answered commands that are kept: a second answer follows soon, or not at all.
const KEPT_MAX: usize = 10_000;

/// Events of which one is enough that are kept of a command: an order for many agents is one event, only the end of a swarm
/// takes one for each.
const ONCE_KEPT_MAX: usize = 16;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Refused,
    /// By an event of which one is enough.
    Once,
    /// In whatever else it takes: some commands need several events.
    CarriedOut,
}

/// A kind of event, and what it is about.
type Given = (&'static str, Uuid);

/// A command, and the sequence of one copy of it if each is answered by itself, else 0.
type CopyOf = (Uuid, u64);

/// The distributor remembers what it answered with the swarm: of one that is not there it remembers nothing, and each copy of a
/// command that is stored more than once is refused.
fn copy_of(command: Uuid, body: &Body) -> CopyOf {
    match body {
        Body::TaskRefused(refused) if refused.problem.code == UNKNOWN_SWARM => {
            (command, refused.refused_seq)
        }
        _ => (command, 0),
    }
}

/// What was answered lately.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_command: BTreeMap<CopyOf, (Answer, Vec<Given>)>,
    order: VecDeque<CopyOf>,
}

impl Answers {
    /// A valid decision on `about` names `command` as its cause. Answers with what is wrong about that.
    pub(super) fn met(&mut self, command: Uuid, about: Uuid, body: &Body) -> Option<&'static str> {
        let answer = match body {
            Body::TaskRefused(_) | Body::SwarmRefused(_) | Body::OrgRefused(_) => Answer::Refused,
            Body::TaskRetried(_)
            | Body::SwarmUpdated(_)
            | Body::SwarmScaled(_)
            | Body::SwarmTopologyPlanned(_)
            | Body::SwarmTopologyChanged(_)
            | Body::SwarmTopologyKept(_)
            | Body::AgentAsked(_)
            | Body::AgentAnswered(_)
            | Body::TaskHandedBack(_)
            | Body::AgentAdded(_)
            | Body::AgentUpdated(_)
            | Body::AgentStopping(_)
            | Body::AgentRemoved(_)
            | Body::AgentSpawnRequested(_) => Answer::Once,
            _ => Answer::CarriedOut,
        };
        let command = copy_of(command, body);
        let Some((first, once)) = self.by_command.get_mut(&command) else {
            let once = (answer == Answer::Once).then(|| (body.type_name(), about));
            let once = once.into_iter().collect();
            self.by_command.insert(command, (answer, once));
            self.order.push_back(command);
            if self.order.len() > KEPT_MAX
                && let Some(oldest) = self.order.pop_front()
            {
                self.by_command.remove(&oldest);
            }
            return None;
        };
        match (*first, answer) {
            (Answer::Refused, Answer::Refused) => Some("is refused twice"),
            (Answer::Refused, _) => Some("is carried out after it was refused"),
            (_, Answer::Refused) => Some("is refused after it was carried out"),
            (_, Answer::Once) => {
                let what = (body.type_name(), about);
                if once.contains(&what) {
                    return Some("is carried out twice");
                }
                // A swarm's end names one command in the events of all its agents: the first ones are enough.
                if once.len() < ONCE_KEPT_MAX {
                    once.push(what);
                }
                None
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::{
        Problem, swarm,
        task::{self, Cancelled, Retried},
    };

    use super::*;

    fn refused() -> Body {
        Body::SwarmRefused(swarm::Refused {
            command_id: None,
            refused_subject: String::new(),
            refused_seq: 1,
            count: 1,
            problem: Problem::new("no", "no"),
        })
    }
    fn retried() -> Body {
        Body::TaskRetried(Retried {
            attempts: 0,
            delay_ms: 0,
            generation: 2,
            error: None,
        })
    }
    fn cancelled() -> Body {
        Body::TaskCancelled(Cancelled {
            generation: 1,
            reason: String::new(),
        })
    }

    #[test]
    fn a_command_has_one_answer() {
        let second = |first: Body, then: Body| {
            let mut answers = Answers::default();
            assert_eq!(answers.met(Uuid::nil(), Uuid::nil(), &first), None);
            answers.met(Uuid::nil(), Uuid::nil(), &then)
        };
        assert_eq!(second(refused(), refused()), Some("is refused twice"));
        assert_eq!(
            second(refused(), cancelled()),
            Some("is carried out after it was refused")
        );
        assert_eq!(
            second(cancelled(), refused()),
            Some("is refused after it was carried out")
        );
        assert_eq!(second(retried(), retried()), Some("is carried out twice"));
        assert_eq!(
            second(cancelled(), cancelled()),
            None,
            "some take several events"
        );
    }

    #[test]
    fn each_copy_is_answered_once_by_a_swarm_that_is_not_there() {
        let refused = |sequence, code| {
            Body::TaskRefused(task::Refused {
                command_id: None,
                refused_subject: String::new(),
                refused_seq: sequence,
                count: 1,
                problem: Problem::new(code, "no"),
            })
        };
        let second = |first: Body, then: Body| {
            let mut answers = Answers::default();
            assert_eq!(answers.met(Uuid::nil(), Uuid::nil(), &first), None);
            answers.met(Uuid::nil(), Uuid::nil(), &then)
        };
        let unknown = |sequence| refused(sequence, UNKNOWN_SWARM);
        assert_eq!(second(unknown(1), unknown(2)), None);
        assert_eq!(
            second(unknown(1), cancelled()),
            None,
            "it was created since"
        );
        assert_eq!(second(unknown(1), unknown(1)), Some("is refused twice"));
        let other = |sequence| refused(sequence, "unknown-task");
        assert_eq!(second(other(1), other(2)), Some("is refused twice"));
    }

    #[test]
    fn memory_is_bounded() {
        let mut answers = Answers::default();
        for number in 0..=KEPT_MAX as u128 {
            answers.met(Uuid::from_u128(number), Uuid::nil(), &refused());
        }
        assert_eq!(answers.by_command.len(), KEPT_MAX);
        assert_eq!(
            answers.met(Uuid::from_u128(0), Uuid::nil(), &refused()),
            None
        );
        assert!(
            answers
                .met(Uuid::from_u128(KEPT_MAX as u128), Uuid::nil(), &refused())
                .is_some()
        );
    }
}
