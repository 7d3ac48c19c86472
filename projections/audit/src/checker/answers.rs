//! One answer for each command.

use std::collections::{BTreeMap, VecDeque};

use swarm_events::Body;
use uuid::Uuid;

/// Answered commands that are kept: a second answer follows soon, or not at all.
const KEPT_MAX: usize = 10_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Answer {
    Refused,
    Retried,
    /// In whatever else it takes: some commands need several events.
    CarriedOut,
}

/// What was answered lately.
#[derive(Debug, Default)]
pub(super) struct Answers {
    by_command: BTreeMap<Uuid, Answer>,
    order: VecDeque<Uuid>,
}

impl Answers {
    /// A valid decision names `command` as its cause. Answers with what is wrong about that.
    pub(super) fn met(&mut self, command: Uuid, body: &Body) -> Option<&'static str> {
        let answer = match body {
            Body::TaskRefused(_) | Body::SwarmRefused(_) | Body::OrgRefused(_) => Answer::Refused,
            Body::TaskRetried(_) => Answer::Retried,
            _ => Answer::CarriedOut,
        };
        match (self.by_command.insert(command, answer), answer) {
            (None, _) => {
                self.order.push_back(command);
                if self.order.len() > KEPT_MAX
                    && let Some(oldest) = self.order.pop_front()
                {
                    self.by_command.remove(&oldest);
                }
                None
            }
            (Some(Answer::Refused), Answer::Refused) => Some("is refused twice"),
            (Some(Answer::Refused), _) => Some("is carried out after it was refused"),
            (Some(_), Answer::Refused) => Some("is refused after it was carried out"),
            (Some(Answer::Retried), Answer::Retried) => Some("is carried out twice"),
            (Some(_), _) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::{
        Problem, swarm,
        task::{Cancelled, Retried},
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
            assert_eq!(answers.met(Uuid::nil(), &first), None);
            answers.met(Uuid::nil(), &then)
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
    fn memory_is_bounded() {
        let mut answers = Answers::default();
        for number in 0..=KEPT_MAX as u128 {
            answers.met(Uuid::from_u128(number), &refused());
        }
        assert_eq!(answers.by_command.len(), KEPT_MAX);
        assert_eq!(answers.met(Uuid::from_u128(0), &refused()), None);
        assert!(
            answers
                .met(Uuid::from_u128(KEPT_MAX as u128), &refused())
                .is_some()
        );
    }
}
