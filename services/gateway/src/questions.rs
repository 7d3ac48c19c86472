//! `/swarms/{id}/questions`: what agents ask of people. While PostgreSQL is away those that are open come from the gateway's own
//! fold: they can be read and answered all the same.

mod view;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{HeaderMap, StatusCode, Uri},
};
use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId, Body, CommandId, Json, Place, Problem, Subject, UserId,
    message::{Answer as AnswerOrder, MESSAGE_BYTES_MAX},
    subject::CommandVerb,
};
use swarm_projections::queries::{self, Page, QuestionFilter, QuestionRow};
use utoipa::ToSchema;

use crate::{
    answer::Reply,
    app::{App, Shared},
    auth::{Action, Caller, May},
    command::{self, Sending},
    fold::Fold,
    idempotency::Key,
    json,
    params::{Params, id},
    problem::{Answer, ApiProblem, ProblemDocument},
    reading,
    swarms::{known, refusal, unexpected},
};

/// What a question can be.
const STATUSES: [&str; 4] = ["open", "answered", "fell_back", "unanswered"];

/// A page of questions.
#[derive(Serialize, ToSchema)]
pub struct QuestionPage {
    /// In the order in which they were asked.
    pub items: Vec<QuestionRow>,
    /// Where the next page begins; null on the last one.
    pub next_cursor: Option<String>,
}

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

/// Lists the questions of a swarm in the order in which they were asked. While PostgreSQL is away `?status=open` is answered
/// all the same, on one page.
#[utoipa::path(get, path = "/v1/swarms/{id}/questions", tag = "questions",
    params(("id" = Uuid, Path), ("status" = Option<String>, Query, description = "`open`, `answered`, `fell_back` (nobody answered in time: the default counts) or `unanswered`"),
        ("agent_id" = Option<Uuid>, Query), ("limit" = Option<u32>, Query), ("cursor" = Option<String>, Query), ("min_seq" = Option<u64>, Query)),
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
    let (page, min_seq) = (params.page()?, params.min_seq()?);
    let filter = QuestionFilter {
        status: params.one_of("status", &STATUSES)?,
        agent_id: params.value("agent_id", "give the id of an agent")?,
    };
    params.done()?;
    let rows = async {
        reading::until(&app, min_seq).await?;
        let rows = queries::questions(&app.pool, place.org, place.swarm, &filter, &page).await;
        rows.map_err(|error| reading::failed(&app, error))
    };
    let found = match rows.await {
        Ok(Page { items, next_cursor }) => QuestionPage { items, next_cursor },
        Err(problem) => {
            let first = page.cursor.is_none() && filter.status.as_deref() == Some("open");
            let fold = app.fold.read();
            if !first || !away(&problem, &fold, min_seq) {
                return Err(problem);
            }
            open(&fold, place, filter.agent_id)
        }
    };
    Ok(Reply::json(StatusCode::OK, &found))
}

/// Whether the fold can answer in place of PostgreSQL.
fn away(problem: &ApiProblem, fold: &Fold, min_seq: Option<u64>) -> bool {
    problem.status == StatusCode::SERVICE_UNAVAILABLE
        && min_seq.is_none_or(|sequence| sequence <= fold.sequence())
}

/// The open questions. There are at most as many as a page may hold.
fn open(fold: &Fold, place: Place, of: Option<AgentId>) -> QuestionPage {
    let swarm = fold.swarm(place.org, place.swarm);
    let mut items: Vec<QuestionRow> = swarm
        .into_iter()
        .flat_map(|swarm| {
            let all = swarm.questions();
            let wanted = all.filter(|(_, question)| of.is_none_or(|agent| agent == question.agent));
            wanted.map(|(id, question)| view::open(swarm, id, question))
        })
        .collect();
    items.sort_by_key(|row| row.asked_seq);
    QuestionPage {
        items,
        next_cursor: None,
    }
}

/// An open question, from the fold.
fn one(fold: &Fold, place: Place, question: CommandId) -> Option<QuestionRow> {
    let swarm = fold.swarm(place.org, place.swarm)?;
    let found = swarm.question(question)?;
    Some(view::open(swarm, question, found))
}

/// A question by the read model, or what is open by the fold while PostgreSQL is away.
async fn found(
    app: &App,
    place: Place,
    question: CommandId,
    min_seq: Option<u64>,
) -> Answer<QuestionRow> {
    let row = async {
        reading::until(app, min_seq).await?;
        reading::find(app, || {
            queries::question(&app.pool, place.org, place.swarm, question)
        })
        .await
    };
    match row.await {
        Ok(Some(row)) => Ok(row),
        Ok(None) => Err(unknown(question)),
        Err(problem) => {
            let fold = app.fold.read();
            let row = one(&fold, place, question).filter(|_| away(&problem, &fold, min_seq));
            row.ok_or(problem)
        }
    }
}

/// Shows a question. While PostgreSQL is away only those that are open are there.
#[utoipa::path(get, path = "/v1/swarms/{id}/questions/{question}", tag = "questions",
    params(("id" = Uuid, Path), ("question" = Uuid, Path), ("min_seq" = Option<u64>, Query)),
    responses((status = 200, body = QuestionRow),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 503, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path((swarm, question)): Path<(String, String)>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    let place = known(&app, &caller, &swarm)?;
    let min_seq = Params::only_min_seq(&uri)?;
    let question: CommandId = id("question", &question)?;
    let row = found(&app, place, question, min_seq).await?;
    Ok(Reply::json(StatusCode::OK, &row))
}

/// Answers a question as a person. The first answer counts.
#[utoipa::path(post, path = "/v1/swarms/{id}/questions/{question}/answer", tag = "questions", request_body = AnswerInput,
    params(("id" = Uuid, Path), ("question" = Uuid, Path), ("Idempotency-Key" = Option<String>, Header, description = "A repeat under the same key is the same answer, for as long as swarm-key-remembered-ms says")),
    responses((status = 200, body = QuestionRow, headers(("swarm-seq" = u64))),
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
    let asked = one(&app.fold.read(), place, question);
    let order = AnswerOrder {
        question_id: question,
        answer: input.answer,
        user_id: Some(UserId(caller.user.0)),
        agent: None,
    };
    let subject = Subject::Command(place, CommandVerb::Answer);
    let sending = Sending::new(subject, place.swarm.0, order).keyed(key.as_ref());
    let outcome = command::send(&app, sending).await?;
    let Body::AgentAnswered(answered) = &outcome.event.body else {
        return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome)));
    };
    let asked = match asked {
        Some(asked) => asked,
        // A repeat, or the fold had not met it: the read model has it.
        None => found(&app, place, question, None).await?,
    };
    let row = view::answered(asked, answered, outcome.time, outcome.sequence);
    Ok(Reply::json(StatusCode::OK, &row)
        .sequence(outcome.sequence)
        .keyed(key.is_some()))
}
