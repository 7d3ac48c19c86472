//! `/swarms/{id}/topology`: who has which place, who may talk to whom, and changing both live.

pub mod answer;
pub mod traffic;
mod view;
pub(crate) mod wanted;
mod withdrawn;

use axum::{
    body::Body as HttpBody,
    extract::{Path, State},
    http::{StatusCode, Uri},
};
use swarm_coordinator_core::Swarm;
use swarm_events::{
    Body, Json, Place, Subject, command::ChangeTopology, subject::CommandVerb, topology::Topology,
};
use swarm_topology::Planned;

pub use view::{EDGES_MAX, MOVES_MAX};
pub use wanted::TopologyInput;
pub(crate) use wanted::word;
pub use withdrawn::WITHDRAWN_WAIT;

use answer::{CHANGED, ChangeAnswer, PLANNED, Shown, TopologyAnswer};
use view::Said;
use wanted::{Wanted, patch};

use crate::{
    answer::Reply,
    app::Shared,
    auth::{Action, Caller, May},
    command::{self, Sending},
    fold::Fold,
    json,
    params::Params,
    problem::{Answer, ApiProblem, ProblemDocument},
    swarms::{known, open, refusal, unexpected},
    templates,
};

/// Why a change is made if nobody says.
const BY_ORDER: &str = "by order";

/// Shows the shape of a swarm: its topology, the place and load of each agent, who may talk to whom and how much they do, and
/// what changes. From the log, so it is there while PostgreSQL is down.
#[utoipa::path(get, path = "/v1/swarms/{id}/topology", tag = "topologies", params(("id" = Uuid, Path)),
    responses((status = 200, body = TopologyAnswer),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json")))]
pub async fn show(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
) -> Answer<Reply> {
    caller.may(Action::Read)?;
    Params::of(&uri)?.done()?;
    let place = known(&app, &caller, &swarm)?;
    let bus = app.bus.as_ref();
    let (kept, rates) = tokio::join!(
        traffic::kept(bus, place),
        app.watched.rates(bus, place, &app.stop)
    );
    let said = Said { kept, rates };
    let fold = app.fold.read();
    let swarm = find(&fold, place)?;
    let answer = view::of(&fold, swarm, &said, app.tail_state());
    Ok(Reply::json(StatusCode::OK, &answer))
}

fn find(fold: &Fold, place: Place) -> Answer<&Swarm> {
    fold.swarm(place.org, place.swarm)
        .ok_or_else(|| ApiProblem::unknown("swarm", place.swarm))
}

/// Changes a swarm's topology or its options, while it works: every agent gets its new place before the new topology holds,
/// and no task is lost. The answer comes when it holds and what it took back is counted. With `?dry_run=true` nothing is changed, and the answer says what
/// would be.
#[utoipa::path(put, path = "/v1/swarms/{id}/topology", tag = "topologies", request_body = TopologyInput,
    params(("id" = Uuid, Path), ("dry_run" = Option<bool>, Query)),
    responses((status = 200, body = ChangeAnswer, headers(("swarm-seq" = u64))),
        (status = 403, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 404, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 409, body = ProblemDocument, content_type = "application/problem+json", description = "Nothing would change (`nothing-changes`), another change is under way (`change-under-way`, with its `generation`), or this one could not be completed and the old topology goes on (with `generation` and `kept`)"),
        (status = 422, body = ProblemDocument, content_type = "application/problem+json"),
        (status = 504, body = ProblemDocument, content_type = "application/problem+json", description = "It has not ended yet: the topology shows how far it is")))]
pub async fn update(
    State(app): State<Shared>,
    caller: Caller,
    Path(swarm): Path<String>,
    uri: Uri,
    body: HttpBody,
) -> Answer<Reply> {
    caller.may(Action::Configure)?;
    let mut params = Params::of(&uri)?;
    let dry_run = params.flag("dry_run")?;
    params.done()?;
    let bytes = json::whole(body, json::BODY_BYTES_MAX).await?;
    let input = TopologyInput::read(&bytes)?;
    let (place, settings) = open(&app, &caller, &swarm)?;
    let template = input.template.as_deref();
    let template = template
        .map(|name| templates::named(&app, caller.org, name))
        .transpose()?;
    let wanted = Wanted {
        topology: input.topology,
        configuration: input.configuration.as_ref(),
        template: template.as_ref(),
        field: "configuration",
    };
    let (before, assigned) = {
        let fold = app.fold.read();
        let measure = fold.measure(place);
        let assigned = measure.map(|measure| measure.last.assigned);
        (find(&fold, place)?.shape.clone(), assigned)
    };
    let after = wanted.over(Some(before.topology()), settings.max_agents)?;
    let reason = input.reason.unwrap_or_else(|| BY_ORDER.to_owned());
    let (shown, was) = (Shown::from(&after), Shown::from(before.topology()));
    let options = patch(Some(before.topology()), &after);
    if dry_run {
        let fold = app.fold.read();
        let swarm = find(&fold, place)?;
        let planned = preview(swarm, &after, &options)?;
        let (items, items_truncated) = view::planned(swarm, &planned);
        let answer = ChangeAnswer {
            swarm_id: place.swarm.0,
            outcome: PLANNED,
            generation: planned.generation,
            after: shown,
            before: was,
            agents: planned.agents,
            moves: planned.moves,
            withdrawn: None,
            withdrawn_at_most: assigned,
            reason,
            took_ms: None,
            items,
            items_truncated,
        };
        return Ok(Reply::json(StatusCode::OK, &answer));
    }
    let order = ChangeTopology {
        topology: after.kind(),
        configuration: options,
        reason: Some(reason),
    };
    let subject = Subject::Command(place, CommandVerb::ChangeTopology);
    let sending = Sending::new(subject, place.swarm.0, order);
    let outcome = command::send(&app, sending).await?;
    let changed = match &outcome.event.body {
        Body::SwarmTopologyChanged(changed) => changed,
        Body::SwarmTopologyKept(kept) => {
            let mut problem = ApiProblem::decided(kept.problem.clone());
            problem.status = StatusCode::CONFLICT;
            let going_on = serde_json::to_value(Shown::from(&kept.kept)).unwrap_or_default();
            return Err(problem
                .with("generation", kept.generation)
                .with("kept", going_on)
                .with("seq", outcome.sequence));
        }
        _ => return Err(refusal(&outcome).unwrap_or_else(|| unexpected(&outcome))),
    };
    let withdrawn = withdrawn::count(&app.log, place, outcome.sequence).await;
    let fold = app.fold.read();
    let changes = fold.changes(place);
    let ended = changes
        .and_then(|changes| changes.last.as_ref())
        .filter(|ended| ended.generation == changed.generation);
    let (items, items_truncated) = view::moves(find(&fold, place)?, &before, changes);
    let answer = ChangeAnswer {
        swarm_id: place.swarm.0,
        outcome: CHANGED,
        generation: changed.generation,
        after: Shown::from(&changed.after),
        before: Shown::from(&changed.before),
        agents: changed.agents,
        moves: changed.moves,
        withdrawn,
        withdrawn_at_most: assigned,
        reason: changed.reason.clone(),
        took_ms: ended.map(|ended| ended.took_ms),
        items,
        items_truncated,
    };
    Ok(Reply::json(StatusCode::OK, &answer).sequence(outcome.sequence))
}

/// What the change would do; what the coordinator would refuse, or give up, is refused.
fn preview(swarm: &Swarm, after: &Topology, options: &Json) -> Answer<Planned> {
    let refused = |problem| {
        let problem = ApiProblem::decided(problem);
        match &swarm.change {
            Some(change) => problem.with("generation", change.generation),
            None => problem,
        }
    };
    let (_, planned) = swarm.preview(after.kind(), options).map_err(refused)?;
    match swarm_topology::lacking(after, &swarm.members()) {
        None => Ok(planned),
        Some(problem) => Err(ApiProblem::new(StatusCode::CONFLICT, problem)),
    }
}
