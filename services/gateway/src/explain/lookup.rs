//! Which swarm a task is of, when only its id is known.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use swarm_events::{OrgId, Partition, Place, TaskId};
use swarm_projections::queries;

use crate::{
    app::Shared,
    auth::Caller,
    problem::{Answer, ApiProblem},
    reading,
};

/// The places of the caller's organization with a task of this id.
///
/// The read models know. Without them the partitions of the organization's swarms are looked through, if that are no more
/// than may be followed at a time.
pub(super) async fn places(app: &Shared, caller: &Caller, task: TaskId) -> Answer<Vec<Place>> {
    match from_read_models(app, caller.org, task).await {
        Err(problem) if problem.status == StatusCode::SERVICE_UNAVAILABLE => {
            from_log(app, caller.org, task, problem).await
        }
        answer => answer,
    }
}

async fn from_read_models(app: &Shared, org: OrgId, task: TaskId) -> Answer<Vec<Place>> {
    reading::answering(app)?;
    let rows = reading::find(app, || async {
        let rows = queries::tasks_by_id(&app.pool, org, task).await?;
        Ok((!rows.is_empty()).then_some(rows))
    });
    let rows = rows.await?.unwrap_or_default();
    Ok(rows
        .into_iter()
        .map(|row| Place::new(org, row.swarm_id.into()))
        .collect())
}

async fn from_log(
    app: &Shared,
    org: OrgId,
    task: TaskId,
    problem: ApiProblem,
) -> Answer<Vec<Place>> {
    let mut places: BTreeMap<Partition, Vec<Place>> = BTreeMap::new();
    for swarm in app.fold.read().swarms_of(org) {
        places
            .entry(swarm.place.partition)
            .or_default()
            .push(swarm.place);
    }
    if places.len() > app.explain.most() {
        let mut problem = problem;
        problem.problem.detail = format!(
            "{}; and the organization's swarms lie in {} partitions, more than the {} that are looked through",
            problem.problem.detail,
            places.len(),
            app.explain.most()
        );
        problem.problem.cure =
            Some("name the swarm: GET /v1/swarms/{id}/tasks/{task}/explain".to_owned());
        return Err(problem);
    }
    let mut found = Vec::new();
    for (partition, places) in places {
        let tasks = app.explain.caught_up(&app.log, partition).await?;
        found.extend(
            places
                .into_iter()
                .filter(|place| tasks.explain(*place, task).is_some()),
        );
    }
    Ok(found)
}
