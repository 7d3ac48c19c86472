//! Questions that are not open any more: what was asked and how it ended stands in the log, and is read from there. They are
//! as many as people can answer, so a look through them is short.

use std::collections::BTreeMap;

use swarm_events::{
    AgentId, Body, CommandId, Input, Place, Timestamp,
    message::{Answered, Asked, Unanswered},
    read,
    subject::{AgentVerb, Subject},
};
use swarm_log::definitions::EVENTS_STREAM;
use tokio::time::Instant;

use super::{QuestionPage, QuestionView};
use crate::{
    app::{App, OUTCOME_TIMEOUT},
    bus::{Bus, Stored},
    messages::{next_cursor, unreachable},
    problem::{Answer, ApiProblem},
};

/// Events that are read at a time.
const LOOK: usize = 1_000;

enum End {
    Answered(Answered),
    Unanswered(Unanswered),
}

struct Question {
    agent: AgentId,
    asked: Asked,
    at: Timestamp,
    sequence: u64,
}

/// Which questions are wanted, by the word for their status; all if absent.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    pub place: Place,
    pub status: Option<&'a str>,
}

fn filter(place: Place, verb: AgentVerb) -> String {
    format!("swarm.evt.{place}.agent.{verb}.*")
}

fn asked(stored: &Stored) -> Option<Question> {
    let input = read(stored.sequence, stored.at, &stored.subject, &stored.payload);
    let Input::Event(recorded) = input else {
        return None;
    };
    match (recorded.subject, recorded.event.body) {
        (Subject::Agent(_, _, agent), Body::AgentAsked(asked)) => Some(Question {
            agent,
            asked,
            at: stored.at,
            sequence: stored.sequence,
        }),
        _ => None,
    }
}

fn ended(stored: &Stored) -> Option<(CommandId, End)> {
    let input = read(stored.sequence, stored.at, &stored.subject, &stored.payload);
    let Input::Event(recorded) = input else {
        return None;
    };
    match recorded.event.body {
        Body::AgentAnswered(end) => Some((end.question_id, End::Answered(end))),
        Body::AgentUnanswered(end) => Some((end.question_id, End::Unanswered(end))),
        _ => None,
    }
}

fn late() -> ApiProblem {
    ApiProblem::unavailable(
        "too-many-questions",
        format!(
            "the questions of this swarm could not be looked through within {OUTCOME_TIMEOUT:?}"
        ),
        "ask for ?status=open, or for a page further on",
    )
}

/// Every message of the log on these subjects from `from` on, until `taken` has enough.
async fn each(
    bus: &Bus,
    filters: &[String],
    mut from: u64,
    most: usize,
    mut taken: impl FnMut(Stored) -> bool,
) -> Answer<()> {
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    loop {
        let page = bus.page(EVENTS_STREAM, filters, from, most).await;
        let page = page.map_err(|error| unreachable(&error))?;
        let last = page.items.last().map(|last| last.sequence);
        for stored in page.items {
            if !taken(stored) {
                return Ok(());
            }
        }
        match last.filter(|_| page.more) {
            None => return Ok(()),
            Some(_) if Instant::now() >= deadline => return Err(late()),
            Some(last) => from = last.saturating_add(1),
        }
    }
}

/// How each of these questions ended, or that it is open.
async fn views(
    app: &App,
    bus: &Bus,
    place: Place,
    some: Vec<Question>,
) -> Answer<Vec<QuestionView>> {
    let Some(first) = some.first().map(|question| question.sequence) else {
        return Ok(Vec::new());
    };
    // Before the fold is asked: what ends meanwhile is found in one of the two.
    let open: Vec<bool> = {
        let fold = app.fold.read();
        let swarm = fold.swarm(place.org, place.swarm);
        let open = |question: &Question| {
            swarm.is_some_and(|swarm| swarm.question(question.asked.question_id).is_some())
        };
        some.iter().map(open).collect()
    };
    let mut missing: usize = open.iter().filter(|open| !**open).count();
    let mut ends: BTreeMap<CommandId, Option<(End, Timestamp)>> = some
        .iter()
        .zip(&open)
        .filter(|(_, open)| !**open)
        .map(|(question, _)| (question.asked.question_id, None))
        .collect();
    if missing > 0 {
        let filters = [AgentVerb::Answered, AgentVerb::Unanswered].map(|verb| filter(place, verb));
        each(bus, &filters, first, LOOK, |stored| {
            if let Some((id, end)) = ended(&stored)
                && let Some(slot) = ends.get_mut(&id)
                && slot.is_none()
            {
                *slot = Some((end, stored.at));
                missing -= 1;
            }
            missing > 0
        })
        .await?;
    }
    let fold = app.fold.read();
    let swarm = fold
        .swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    let shown = some.into_iter().zip(open).filter_map(|(question, open)| {
        let Question {
            agent, asked, at, ..
        } = question;
        let view = QuestionView::asked(swarm, agent, &asked, at);
        if open {
            return Some(view);
        }
        // One that is neither open nor ended never counted: its event was void.
        match ends.remove(&asked.question_id)?? {
            (End::Answered(end), at) => Some(view.answered(&end, at)),
            (End::Unanswered(end), at) => Some(view.unanswered(&end, at)),
        }
    });
    Ok(shown.collect())
}

/// A page of the questions that were asked from the sequence `from` on.
///
/// # Errors
/// 503
pub async fn page(
    app: &App,
    bus: &Bus,
    wanted: Wanted<'_>,
    mut from: u64,
    most: usize,
) -> Answer<QuestionPage> {
    let filters = [filter(wanted.place, AgentVerb::Asked)];
    let deadline = Instant::now() + OUTCOME_TIMEOUT;
    let mut items = Vec::new();
    loop {
        let found = bus.page(EVENTS_STREAM, &filters, from, most - items.len());
        let found = found.await.map_err(|error| unreachable(&error))?;
        let last = found.items.last().map(|last| last.sequence);
        let some = found.items.iter().filter_map(asked).collect();
        let views = views(app, bus, wanted.place, some).await?;
        items.extend(
            views
                .into_iter()
                .filter(|view| wanted.status.is_none_or(|status| status == view.status)),
        );
        match last.filter(|_| found.more) {
            None => {
                return Ok(QuestionPage {
                    items,
                    next_cursor: None,
                });
            }
            Some(last) if items.len() >= most || Instant::now() >= deadline => {
                return Ok(QuestionPage {
                    items,
                    next_cursor: Some(next_cursor(last)),
                });
            }
            Some(last) => from = last.saturating_add(1),
        }
    }
}

/// One question; `None`: there is none of this id.
///
/// # Errors
/// 503
pub async fn one(
    app: &App,
    bus: &Bus,
    place: Place,
    question: CommandId,
) -> Answer<Option<QuestionView>> {
    let filters = [filter(place, AgentVerb::Asked)];
    let mut found = None;
    each(bus, &filters, 1, LOOK, |stored| {
        found = asked(&stored).filter(|it| it.asked.question_id == question);
        found.is_none()
    })
    .await?;
    let some: Vec<Question> = found.into_iter().collect();
    Ok(views(app, bus, place, some).await?.pop())
}
