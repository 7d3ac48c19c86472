//! Which questions of a swarm are open, and which of them this agent has been told. Pure.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    Body, Recorded, Timestamp,
    ids::{AgentId, CommandId},
    message::{Answerer, Asked, QUESTIONS_OPEN_MAX},
    subject::Subject,
    topology::Role,
};

use crate::messages::Trace;

/// Most open questions that are remembered: as many as a swarm may have. There are more only if ends were missed; then the one
/// whose time is over first is forgotten.
pub const OPEN_MAX: usize = QUESTIONS_OPEN_MAX;
/// Most ends that are remembered for questions whose asking has not been met: a hint of it may come later. Beyond it the oldest
/// is forgotten; at the worst a handler is asked what has been answered.
pub const ENDED_MAX: usize = 10_000;

/// What decides whose questions an agent is to answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// It leads the swarm.
    pub leads: bool,
    /// Its role, if it has a seat.
    pub role: Option<Role>,
}
impl Standing {
    /// Whether a question for these is for this agent.
    pub fn answers(self, answerer: Answerer) -> bool {
        match answerer {
            Answerer::Anybody => true,
            Answerer::Leader => self.leads,
            Answerer::Role(role) => self.role == Some(role),
        }
    }
}

/// A question that waits for its answer.
#[derive(Clone, Debug)]
pub struct Open {
    /// The agent that asks.
    pub asker: AgentId,
    /// What it asks.
    pub asked: Asked,
    /// When it was stored.
    pub time: Timestamp,
    /// What is said because of it follows from it.
    pub trace: Trace,
    sequence: u64,
    told: bool,
}
impl Open {
    /// Until when it waits, by log time.
    pub fn deadline(&self) -> Timestamp {
        self.time.plus_millis(self.asked.timeout_ms)
    }
}

/// The open questions of a swarm but those of one agent. Events may be met in any order, and again.
#[derive(Debug)]
pub struct Questions {
    me: AgentId,
    open: BTreeMap<CommandId, Open>,
    by_deadline: BTreeSet<(Timestamp, CommandId)>,
    /// Those that the agent has not been told, by their place in the log.
    untold: BTreeSet<(u64, CommandId)>,
    /// What has ended above what was read, with the sequence of its end.
    ended: BTreeMap<CommandId, u64>,
    ended_by_sequence: BTreeSet<(u64, CommandId)>,
}

impl Questions {
    /// None is known.
    pub fn new(me: AgentId) -> Self {
        Self {
            me,
            open: BTreeMap::new(),
            by_deadline: BTreeSet::new(),
            untold: BTreeSet::new(),
            ended: BTreeMap::new(),
            ended_by_sequence: BTreeSet::new(),
        }
    }

    /// An event about a question, or another one. Answers with the question that is not open any more, if one was until now.
    pub fn meet(&mut self, recorded: &Recorded) -> Option<CommandId> {
        let sequence = recorded.sequence;
        match &recorded.event.body {
            Body::AgentAsked(asked) => self.asked(recorded, asked),
            Body::AgentAnswered(end) => self.end(end.question_id, sequence),
            Body::AgentUnanswered(end) => self.end(end.question_id, sequence),
            _ => None,
        }
    }

    fn asked(&mut self, recorded: &Recorded, asked: &Asked) -> Option<CommandId> {
        let Subject::Agent(_, _, asker) = recorded.subject else {
            return None;
        };
        let id = asked.question_id;
        if asker == self.me || self.open.contains_key(&id) || self.ended.contains_key(&id) {
            return None;
        }
        let event = &recorded.event;
        let open = Open {
            asker,
            asked: asked.clone(),
            time: recorded.time,
            trace: Trace {
                correlation: event.correlation.or(Some(event.id.0)),
                causation: Some(event.id.0),
                traceparent: event.traceparent.clone(),
            },
            sequence: recorded.sequence,
            told: false,
        };
        self.by_deadline.insert((open.deadline(), id));
        self.untold.insert((open.sequence, id));
        self.open.insert(id, open);
        if self.open.len() <= OPEN_MAX {
            return None;
        }
        let (_, first) = self.by_deadline.first().copied()?;
        tracing::warn!(question.id = %first, "more questions are open than a swarm may have: one of them is forgotten");
        self.remove(first);
        Some(first)
    }

    fn end(&mut self, id: CommandId, sequence: u64) -> Option<CommandId> {
        if self.ended.insert(id, sequence).is_none() {
            self.ended_by_sequence.insert((sequence, id));
        }
        if self.ended.len() > ENDED_MAX
            && let Some((_, oldest)) = self.ended_by_sequence.pop_first()
        {
            self.ended.remove(&oldest);
        }
        self.remove(id).then_some(id)
    }

    fn remove(&mut self, id: CommandId) -> bool {
        let Some(gone) = self.open.remove(&id) else {
            return false;
        };
        self.by_deadline.remove(&(gone.deadline(), id));
        self.untold.remove(&(gone.sequence, id));
        true
    }

    /// The log has been read up to here: nothing before it is met again.
    pub fn settle(&mut self, read: u64) {
        while let Some((sequence, id)) = self.ended_by_sequence.first().copied()
            && sequence <= read
        {
            self.ended_by_sequence.pop_first();
            self.ended.remove(&id);
        }
    }

    /// The oldest question that is for the agent, and that it has not been told; from here on it has. Those for which `busy`
    /// holds wait.
    pub fn tell(
        &mut self,
        standing: Standing,
        busy: impl Fn(CommandId) -> bool,
    ) -> Option<(CommandId, Open)> {
        let for_it = |(_, id): &&(u64, CommandId)| {
            let answerer = self.open.get(id).map(|open| open.asked.answerer);
            answerer.is_some_and(|answerer| standing.answers(answerer)) && !busy(*id)
        };
        let (sequence, id) = self.untold.iter().find(for_it).copied()?;
        self.untold.remove(&(sequence, id));
        let open = self.open.get_mut(&id)?;
        open.told = true;
        Some((id, open.clone()))
    }

    /// The agent has another standing: what it was told and is not for it any more. If it is again, it is told again.
    pub fn recall(&mut self, standing: Standing) -> Vec<CommandId> {
        let mut gone = Vec::new();
        for (id, open) in &mut self.open {
            if open.told && !standing.answers(open.asked.answerer) {
                open.told = false;
                self.untold.insert((open.sequence, *id));
                gone.push(*id);
            }
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use swarm_events::{
        Event,
        envelope::Source,
        ids::{EventId, OrgId, SwarmId},
        message::{Answered, AnsweredBy, Unanswered},
        subject::{AgentVerb, Place},
    };
    use uuid::Uuid;

    use super::*;

    const NOBODY: Standing = Standing {
        leads: false,
        role: None,
    };
    const LEADER: Standing = Standing {
        leads: true,
        role: None,
    };

    fn agent(number: u128) -> AgentId {
        AgentId(Uuid::from_u128(number))
    }
    fn question(number: u128) -> CommandId {
        CommandId(Uuid::from_u128(number))
    }
    fn me() -> AgentId {
        agent(1)
    }
    fn event(sequence: u64, verb: AgentVerb, about: AgentId, body: impl Into<Body>) -> Recorded {
        let place = Place::new(OrgId(Uuid::nil()), SwarmId(Uuid::nil()));
        let subject = Subject::Agent(place, verb, about);
        let id = EventId(Uuid::from_u128(sequence.into()));
        let (source, time) = (Source::Agent(about), Timestamp::from_micros(0));
        Recorded {
            sequence,
            time,
            subject,
            content: 0,
            event: Event::new(id, source, time, &subject, about.0, body),
        }
    }
    fn asked_by(
        asker: AgentId,
        sequence: u64,
        number: u128,
        answerer: Answerer,
        timeout_ms: u64,
    ) -> Recorded {
        let asked = Asked {
            question_id: question(number),
            incarnation: 1,
            assignment: None,
            answerer,
            question: "?".to_owned(),
            choices: Vec::new(),
            default: None,
            timeout_ms,
        };
        event(sequence, AgentVerb::Asked, asker, asked)
    }
    fn asked(sequence: u64, number: u128, answerer: Answerer) -> Recorded {
        asked_by(agent(2), sequence, number, answerer, 1_000)
    }
    fn answered(sequence: u64, number: u128) -> Recorded {
        let answered = Answered {
            question_id: question(number),
            answer: json!("yes").into(),
            by: AnsweredBy::Person(None),
        };
        event(sequence, AgentVerb::Answered, agent(2), answered)
    }
    fn unanswered(sequence: u64, number: u128) -> Recorded {
        let unanswered = Unanswered {
            question_id: question(number),
            reason: "nobody was there".to_owned(),
        };
        event(sequence, AgentVerb::Unanswered, agent(2), unanswered)
    }
    fn of(events: &[Recorded]) -> Questions {
        let mut questions = Questions::new(me());
        for event in events {
            questions.meet(event);
        }
        questions
    }
    /// Everything that is told now, in order.
    fn told(questions: &mut Questions, standing: Standing) -> Vec<CommandId> {
        let tell = || questions.tell(standing, |_| false).map(|(id, _)| id);
        std::iter::from_fn(tell).collect()
    }

    #[test]
    fn a_question_is_told_once_to_whom_it_is_for() {
        // Given one for anybody, one for the leader, and one for those with a role
        let worker = Answerer::Role(Role::Worker);
        let all = [
            asked(5, 3, Answerer::Anybody),
            asked(6, 2, Answerer::Leader),
            asked(7, 1, worker),
        ];
        let works = Standing {
            role: Some(Role::Worker),
            ..NOBODY
        };
        for (standing, expected) in [
            (NOBODY, vec![question(3)]),
            (LEADER, vec![question(3), question(2)]),
            (works, vec![question(3), question(1)]),
        ] {
            let mut questions = of(&all);
            // Then each is told those that are for it, the oldest first, and none twice
            assert_eq!(told(&mut questions, standing), expected);
            assert_eq!(told(&mut questions, standing), []);
        }
    }

    #[test]
    fn an_agents_own_questions_are_not_for_it() {
        let own = asked_by(me(), 5, 1, Answerer::Anybody, 1_000);
        assert_eq!(told(&mut of(&[own]), LEADER), []);
    }

    #[test]
    fn what_has_ended_is_not_told_in_whatever_order_that_was_met() {
        for end in [answered(9, 1), unanswered(9, 1)] {
            let asked = asked(5, 1, Answerer::Anybody);
            let mut questions = Questions::new(me());
            assert_eq!(questions.meet(&asked), None);
            assert_eq!(questions.meet(&end), Some(question(1)));
            // It is read again, after a gap
            assert_eq!(questions.meet(&asked), None);
            assert_eq!(questions.meet(&end), None);
            assert_eq!(told(&mut questions, LEADER), []);
            // The hint of the end overtook the other one
            let mut questions = of(&[end, asked]);
            assert_eq!(told(&mut questions, LEADER), []);
        }
    }

    #[test]
    fn an_end_is_forgotten_once_the_log_was_read_behind_it() {
        let mut questions = of(&[answered(9, 1), answered(12, 2)]);
        questions.settle(9);
        let kept: Vec<_> = questions.ended.keys().copied().collect();
        assert_eq!(kept, [question(2)]);
        assert_eq!(questions.ended_by_sequence.len(), 1);
    }

    #[test]
    fn who_becomes_the_leader_is_told_what_is_open() {
        // Given a question for the leader, which this agent is not
        let mut questions = of(&[
            asked(5, 1, Answerer::Leader),
            asked(6, 2, Answerer::Anybody),
        ]);
        assert_eq!(told(&mut questions, NOBODY), [question(2)]);
        // When it becomes the leader, then it is told that one; what it was told before is not told again
        assert_eq!(questions.recall(LEADER), []);
        assert_eq!(told(&mut questions, LEADER), [question(1)]);
        // When it leads no more, then that is taken back; and if it leads again, told again
        assert_eq!(questions.recall(NOBODY), [question(1)]);
        assert_eq!(questions.recall(NOBODY), []);
        assert_eq!(told(&mut questions, NOBODY), []);
        assert_eq!(told(&mut questions, LEADER), [question(1)]);
    }

    #[test]
    fn a_question_whose_handler_runs_waits_for_its_end() {
        let mut questions = of(&[
            asked(5, 1, Answerer::Anybody),
            asked(6, 2, Answerer::Anybody),
        ]);
        let first = questions.tell(NOBODY, |id| id == question(1));
        assert_eq!(first.map(|(id, _)| id), Some(question(2)));
        assert_eq!(told(&mut questions, NOBODY), [question(1)]);
    }

    #[test]
    fn beyond_the_limit_the_one_whose_time_is_over_first_is_forgotten() {
        // Given as many open questions as may be, of which number 7 has least time
        let mut questions = Questions::new(me());
        let time = |number: u128| if number == 7 { 500 } else { 1_000 };
        for number in 1..=OPEN_MAX as u128 {
            let at = u64::try_from(number).expect("small");
            let event = asked_by(agent(2), at, number, Answerer::Anybody, time(number));
            assert_eq!(questions.meet(&event), None);
        }
        assert_eq!(questions.open.len(), OPEN_MAX);
        // When another one is asked, then that one goes
        let at = OPEN_MAX as u64 + 1;
        let more = asked_by(agent(2), at, at.into(), Answerer::Anybody, 1_000);
        assert_eq!(questions.meet(&more), Some(question(7)));
        // And one that has less time than all of them is not even taken
        let short = asked_by(agent(2), at + 1, 999_999, Answerer::Anybody, 1);
        assert_eq!(questions.meet(&short), Some(question(999_999)));
        assert_eq!(questions.open.len(), OPEN_MAX);
        assert_eq!(questions.by_deadline.len(), OPEN_MAX);
        let told = told(&mut questions, NOBODY);
        assert_eq!(told.len(), OPEN_MAX);
        assert!(!told.contains(&question(7)) && told.contains(&question(at.into())));
    }

    #[test]
    fn beyond_the_limit_the_oldest_end_is_forgotten() {
        let mut questions = Questions::new(me());
        for number in 0..=ENDED_MAX as u64 {
            questions.meet(&answered(number + 10, u128::from(number)));
        }
        assert_eq!(questions.ended.len(), ENDED_MAX);
        assert_eq!(questions.ended_by_sequence.len(), ENDED_MAX);
        assert!(!questions.ended.contains_key(&question(0)));
    }
}
