//! `/swarms/{id}/questions`: what agents ask of people. Those that are open come from the gateway's own fold, how the others
//! ended from the log: people can read and answer them while PostgreSQL is away.

mod ended;
mod view;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::Deserialize;
use swarm_events::{
    Body, CommandId, Json, Place, Problem, Subject, UserId,
    message::{Answer as AnswerOrder, MESSAGE_BYTES_MAX},
    subject::CommandVerb,
};
use utoipa::ToSchema;
use uuid::Uuid;

pub use view::{AnsweredByView, QuestionPage, QuestionView};

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    idempotency::Key,
    json,
    messages::{bus, cursor, next_cursor},
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{known, refusal, unexpected},
};

/// What a question can be.
const STATUSES: [&str; 3] = ["open", "answered", "unanswered"];

/// An answer.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"answer": "yes"}))]
pub struct AnswerInput {
    /// One of the question's choices; without any, any JSON. At most 64 KiB.
    #[schema(value_type = Object)]
    pub answer: Json,
}

fn unknown(question: impl std::fmt::Display) -> ApiProblem {
    let problem = Problem::new(
        "unknown-question",
        format!("there is no question {question} in this swarm"),
    )
    .field("id")
    .cure("list the open ones: GET …/questions?status=open");
    ApiProblem::new(StatusCode::NOT_FOUND, problem)
}

/// Lists the questions of a swarm in the order in which they were asked. Those that are open are there even while PostgreSQL
/// is away.
#[utoipa::path(get, path = "/v1/swarms/{id}/questions", tag = "questions",
    params(("id" = Uuid, Path), ("status" = Option<String>, Query, description = "`open`, `answered` or `unanswered`"),
        ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query)),
    responses((status = 200, body = QuestionPage),
        (status = 400, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn list(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    let mut params = Params::of(&uri)?;
    let status = params.one_of("status", &STATUSES)?;
    let (limit, from) = (params.limit()?, cursor(&mut params)?);
    params.done()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    let page = if status.as_deref() == Some("open") {
        open(&app, place, from, most)?
    } else {
        let status = status.as_deref();
        let wanted = ended::Wanted { place, status };
        ended::page(&app, &bus(&app)?, wanted, from, most).await?
    };
    Ok(Reply::json(StatusCode::OK, &page))
}

/// Shows a question, open or ended.
#[utoipa::path(get, path = "/v1/swarms/{id}/questions/{question}", tag = "questions",
    params(("id" = Uuid, Path), ("question" = Uuid, Path)),
    responses((status = 200, body = QuestionView),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, question)): Path<(String, String)>,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    let question: CommandId = id("question", &question)?;
    let found = match one(&app, place, question) {
        Some(found) => Some(found),
        None => ended::one(&app, &bus(&app)?, place, question).await?,
    };
    let found = found.ok_or_else(|| unknown(question))?;
    Ok(Reply::json(StatusCode::OK, &found))
}

/// The open questions that were asked from the sequence `from` on.
fn open(app: &App, place: Place, from: u64, most: usize) -> Answer<QuestionPage> {
    let fold = app.fold.read();
    let swarm = fold
        .swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))?;
    let mut items: Vec<_> = swarm
        .questions()
        .filter(|(_, question)| question.asked_seq >= from)
        .collect();
    items.sort_by_key(|(_, question)| question.asked_seq);
    let more = items.len() > most;
    items.truncate(most);
    let last = items.last().map(|(_, question)| question.asked_seq);
    Ok(QuestionPage {
        items: items
            .into_iter()
            .map(|(id, question)| QuestionView::open(swarm, id, question))
            .collect(),
        next_cursor: last.filter(|_| more).map(next_cursor),
    })
}

/// An open question, from the fold.
fn one(app: &App, place: Place, question: CommandId) -> Option<QuestionView> {
    let fold = app.fold.read();
    let swarm = fold.swarm(place.org, place.swarm)?;
    let found = swarm.question(question)?;
    Some(QuestionView::open(swarm, question, found))
}

/// Answers a question as a person. The first answer counts.
#[utoipa::path(post, path = "/v1/swarms/{id}/questions/{question}/answer", tag = "questions", request_body = AnswerInput,
    params(("id" = Uuid, Path), ("question" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same answer, for as long as swarm-key-remembered-ms says")),
    responses((status = 200, body = QuestionView, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "It is answered already, or ended without an answer"),
        (status = 413, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json", description = "It is none of the choices"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn answer(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, question)): Path<(String, String)>,
    headers: HeaderMap,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Talk)?;
    let place = known(&app, &caller, &swarm)?;
    let question: CommandId = id("question", &question)?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let input: AnswerInput = json::read(&bytes)?;
    if input.answer.len() > MESSAGE_BYTES_MAX {
        let detail = format!(
            "has {} bytes, more than {MESSAGE_BYTES_MAX}",
            input.answer.len()
        );
        let problem = Problem::new("answer-too-large", detail)
            .field("answer")
            .cure("put it on the blackboard, and answer with its key");
        return Err(ApiProblem::new(StatusCode::PAYLOAD_TOO_LARGE, problem));
    }
    let route = format!(
        "POST /v1/swarms/{}/questions/{question}/answer",
        place.swarm
    );
    let key = Key::of(&headers, caller.org, &route, &bytes)?;
    let asked = one(&app, place, question);
    let order = AnswerOrder {
        question_id: question,
        answer: input.answer,
        user_id: Some(UserId(caller.user.0)),
        agent: None,
    };
    let sending = Sending {
        subject: Subject::Command(place, CommandVerb::Answer),
        id: key.as_ref().map_or_else(Uuid::now_v7, Key::own_id),
        about: place.swarm.0,
        body: order.into(),
        keyed: key.is_some(),
        request: None,
        also: None,
    };
    let outcome = command::send(&app, sending).await?;
    let Body::AgentAnswered(answered) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    // It was open when it was answered, and asked before: the log knows it, if the fold has not met it in time.
    let asked = match asked {
        Some(asked) => Some(asked),
        None => ended::one(&app, &bus(&app)?, place, question).await?,
    };
    let asked = asked.ok_or_else(|| unknown(question))?;
    let view = asked.answered(answered, outcome.time);
    Ok(Reply::json(StatusCode::OK, &view)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}
