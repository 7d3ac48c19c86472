//! A batch as it is written: rows made of the state at its last message.

use std::collections::BTreeSet;

use chrono::{DateTime, NaiveDate, Utc};
use swarm_distributor_core::TaskView;
use swarm_events::{
    Json, OrgId, Place, SwarmId, Timestamp, org,
    task::{Carried, DependencyType},
    topology::Role,
};
use uuid::Uuid;

use crate::{
    changes::{Changes, FiguresChange, OutcomeChange, OutcomeKey, TaskChange},
    columns::{array_literal, uuid_array},
    event_row::Events,
    fold::Fold,
    jsonb::{clipped, storable, text},
    tables::{
        AgentLoads, Agents, AttemptChanges, Dependencies, Discards, EndedQuestions, Figures,
        GoneTopologies, Keys, NewAttempts, NewQuestions, NewTasks, Orgs, Outcomes, Samples, Swarms,
        TaskChanges, Time, Topologies, Users,
    },
    templates::word,
};

/// Rows of all tables, from one checkpoint to the next.
#[derive(Clone, Default)]
pub(crate) struct Batch {
    /// Sequence of the checkpoint before.
    pub(crate) from: u64,
    /// Sequence of the checkpoint behind.
    pub(crate) to: u64,
    /// Number of messages.
    pub(crate) messages: usize,
    /// Store time of the last one.
    pub(crate) log_time: DateTime<Utc>,
    pub(crate) events: Events,
    /// Days on which they were stored.
    pub(crate) days: BTreeSet<NaiveDate>,
    pub(crate) new_tasks: NewTasks,
    pub(crate) tasks: TaskChanges,
    pub(crate) discards: Discards,
    pub(crate) new_attempts: NewAttempts,
    pub(crate) attempt_changes: AttemptChanges,
    pub(crate) figures: Figures,
    pub(crate) outcomes: Outcomes,
    pub(crate) dependencies: Dependencies,
    pub(crate) agents: Agents,
    pub(crate) agent_loads: AgentLoads,
    pub(crate) samples: Samples,
    pub(crate) swarms: Swarms,
    pub(crate) orgs: Orgs,
    pub(crate) users: Users,
    pub(crate) keys: Keys,
    pub(crate) topologies: Topologies,
    pub(crate) gone_topologies: GoneTopologies,
    pub(crate) new_questions: NewQuestions,
    pub(crate) ended_questions: EndedQuestions,
    /// Results that are not in the event: which row, and where they are.
    pub(crate) results: Vec<(Place, Uuid, Carried)>,
}

impl Batch {
    /// The rows that `changes` names, as they are in `fold` now.
    pub(crate) fn of(from: u64, fold: &Fold, changes: Changes) -> Self {
        let mut batch = Self {
            from,
            to: fold.sequence,
            messages: changes.messages,
            log_time: time(Timestamp::from_micros(changes.time_micros)),
            events: changes.events,
            days: changes.days,
            ..Self::default()
        };
        if from == 0 {
            batch.system_topologies();
        }
        for ((org, name), sequence) in &changes.templates {
            let found = fold.organization(*org);
            let found = found.and_then(|org| org.templates.get(name));
            batch.template(*org, name, found, *sequence);
        }
        for (key, change) in changes.questions {
            batch.question(key, change);
        }
        for ((place, id), mut change) in changes.tasks {
            batch.attempts(place, id, std::mem::take(&mut change.attempts));
            let view = match change.ended.take() {
                Some(mut view) if change.discarded => {
                    (view.discarded, view.dead_lettered) = (true, false);
                    Some(view)
                }
                Some(view) => Some(view),
                None if change.discarded => {
                    batch.discarded(place, id.0, change.sequence);
                    None
                }
                None => fold.distributor(place.partition).task(place, id),
            };
            if let Some(view) = view {
                batch.task(view, change);
            }
        }
        for ((org, swarm), figures) in changes.figures {
            batch.figures(org, swarm, &figures);
        }
        for (key, outcomes) in changes.outcomes {
            batch.outcomes(key, &outcomes);
        }
        for ((org, swarm, id), change) in changes.agents {
            batch.agent(fold, (org, swarm, id), &change);
        }
        for ((org, id), sequence) in changes.swarms {
            if let Some(swarm) = fold.swarm(org, id) {
                batch.swarm(swarm, sequence);
            }
        }
        for (org, sequence) in changes.orgs {
            if let Some(found) = fold.organization(org) {
                let rows = &mut batch.orgs;
                rows.id.push(org.0);
                rows.name.push(text(&found.name).into_owned());
                rows.queue_limit.push(found.queue_limit.map(int8));
                rows.created_at.push(time(found.created_at));
                rows.created_seq.push(int8(sequence));
            }
        }
        for ((org, id), sequence) in changes.users {
            if let Some(found) = fold.organization(org).and_then(|org| org.users.get(&id)) {
                let rows = &mut batch.users;
                rows.id.push(id.0);
                rows.organization_id.push(org.0);
                rows.name.push(text(&found.name).into_owned());
                rows.role.push(role(found.role));
                rows.created_at.push(time(found.created_at));
                rows.created_seq.push(int8(sequence));
            }
        }
        for ((org, id), sequence) in changes.keys {
            if let Some(found) = fold.organization(org).and_then(|org| org.keys.get(&id)) {
                let rows = &mut batch.keys;
                rows.id.push(id.0);
                rows.organization_id.push(org.0);
                rows.user_id.push(found.user.0);
                rows.name.push(text(&found.name).into_owned());
                rows.role.push(role(found.role));
                rows.sha256.push(text(&found.sha256).into_owned());
                rows.created_at.push(time(found.created_at));
                rows.revoked_at.push(found.revoked_at.map(time));
                rows.created_seq.push(int8(sequence));
            }
        }
        batch
    }

    fn task(&mut self, view: TaskView, change: TaskChange) {
        let result = match change.result {
            None => None,
            Some(Carried::Inline(json)) => Some(stored(&json)),
            Some(elsewhere) => {
                self.results.push((view.place, view.id.0, elsewhere));
                None
            }
        };
        let progressed = change.progress.is_some();
        let progress = change.progress.unwrap_or_default();
        let percent = progress.percent.map(i16::from);
        let words = progress.words.map(|words| text(&words).into_owned());
        let error = view.error.as_deref().map(|error| text(error).into_owned());
        let parts = change.parts.map(bounded);
        // A struct of arrays twice: most columns of a new row are those of a changed one.
        macro_rules! both {
            ($rows:ident) => {
                $rows.id.push(view.id.0);
                $rows.organization_id.push(view.place.org.0);
                $rows.swarm_id.push(view.place.swarm.0);
                $rows
                    .assigned_agent_id
                    .push(view.agent.map(|agent| agent.0));
                $rows.status.push(view.status.as_str());
                $rows.attempt_count.push(int4(view.attempt_count));
                $rows.max_attempts.push(int4(view.max_attempts));
                $rows.result.push(result);
                $rows.error_message.push(error);
                $rows.queued_at.push(view.queued_at.map(time));
                $rows.started_at.push(view.started_at.map(time));
                $rows.completed_at.push(view.completed_at.map(time));
                $rows.timeout_at.push(view.run_timeout_at.map(time));
                $rows.accepted.push(view.accepted);
                $rows.rejected.push(view.rejected);
                $rows.dead_lettered.push(view.dead_lettered);
                $rows.because_of.push(view.because_of.map(|task| task.0));
                $rows.generation.push(int4(view.generation));
                $rows.progress_percent.push(percent);
                $rows.progress_message.push(words);
                $rows.progressed_at.push(progress.at.map(time));
                $rows
                    .failure_path
                    .push(uuid_array(view.failure_path.iter().map(|task| task.0)));
                $rows.discarded.push(view.discarded);
                $rows.waits_from.push(view.waits_from.map(time));
                $rows.steals.push(int4(view.steals));
                $rows.declines.push(int4(view.declines));
                $rows.parts.push(parts);
                $rows.handed_task_id.push(change.handed.map(|(id, _)| id.0));
                $rows.handed_at.push(change.handed.map(|(_, at)| time(at)));
                $rows.last_seq.push(int8(change.sequence));
            };
        }
        let Some(submitted) = change.submitted else {
            let rows = &mut self.tasks;
            rows.progressed.push(progressed);
            rows.afresh.push(change.afresh);
            both!(rows);
            return;
        };
        let rows = &mut self.new_tasks;
        rows.parent_task_id.push(view.parent.map(|task| task.0));
        rows.task_type
            .push(clipped(&view.task_type, swarm_events::task::TYPE_CHARS_MAX));
        rows.payload.push(stored(&submitted.payload));
        rows.priority.push(i32::from(view.priority));
        rows.required_capabilities
            .push(array_literal(&view.required_capabilities));
        rows.created_at.push(time(view.created_at));
        rows.key
            .push(submitted.key.map(|key| text(&key).into_owned()));
        rows.graph_id.push(view.graph.map(|graph| graph.0));
        rows.affinity_key
            .push(submitted.affinity_key.map(|key| text(&key).into_owned()));
        rows.timeout_ms.push(submitted.timeout_ms.map(int8));
        rows.queue_timeout_ms
            .push(submitted.queue_timeout_ms.map(int8));
        rows.progress_timeout_ms
            .push(submitted.progress_timeout_ms.map(int8));
        rows.body_sha256
            .push(submitted.body_sha256.map(|hash| text(&hash).into_owned()));
        rows.submitted_seq.push(int8(view.submitted));
        rows.required_role
            .push(submitted.required_role.map(Role::as_str));
        rows.part.push(submitted.part.map(bounded));
        rows.hand_to.push(submitted.hand_to.map(|swarm| swarm.0));
        let origin = submitted.origin;
        rows.origin_swarm_id.push(origin.map(|of| of.swarm_id.0));
        rows.origin_task_id.push(origin.map(|of| of.task_id.0));
        rows.origin_generation
            .push(origin.map(|of| int4(of.generation)));
        both!(rows);
        for edge in &view.dependencies {
            let rows = &mut self.dependencies;
            rows.organization_id.push(view.place.org.0);
            rows.swarm_id.push(view.place.swarm.0);
            rows.task_id.push(view.id.0);
            rows.depends_on_task_id.push(edge.task_id.0);
            rows.dependency_type.push(match edge.dependency_type {
                DependencyType::Completion => "completion",
                DependencyType::Success => "success",
                DependencyType::Data => "data",
            });
            rows.alias
                .push(edge.alias.as_deref().map(|alias| text(alias).into_owned()));
        }
    }

    /// A dead letter that ended in an earlier batch is put away.
    fn discarded(&mut self, place: Place, id: Uuid, sequence: u64) {
        let rows = &mut self.discards;
        rows.id.push(id);
        rows.organization_id.push(place.org.0);
        rows.swarm_id.push(place.swarm.0);
        rows.dead_lettered.push(false);
        rows.discarded.push(true);
        rows.last_seq.push(int8(sequence));
    }

    fn figures(&mut self, org: OrgId, swarm: SwarmId, change: &FiguresChange) {
        let (rows, measured) = (&mut self.figures, &change.measured);
        rows.organization_id.push(org.0);
        rows.swarm_id.push(swarm.0);
        rows.pending.push(int8(measured.pending));
        rows.queued.push(int8(measured.queued));
        rows.assigned.push(int8(measured.assigned));
        rows.running.push(int8(measured.running));
        rows.completed.push(int8(measured.completed));
        rows.failed.push(int8(measured.failed));
        rows.cancelled.push(int8(measured.cancelled));
        rows.oldest_wait_ms.push(int8(measured.oldest_wait_ms));
        rows.unmet.push(int8(measured.unmet));
        rows.affinity_hits.push(int8(measured.affinity_hits));
        rows.affinity_misses.push(int8(measured.affinity_misses));
        rows.steals.push(int8(measured.steals));
        rows.retries.push(int8(measured.retries));
        rows.measured_at.push(time(change.at));
        rows.last_seq.push(int8(change.sequence));
    }

    fn outcomes(&mut self, (org, swarm, dimension, name): OutcomeKey, change: &OutcomeChange) {
        let rows = &mut self.outcomes;
        rows.organization_id.push(org.0);
        rows.swarm_id.push(swarm.0);
        rows.dimension.push(dimension);
        rows.name.push(name);
        rows.completed.push(int8(change.outcomes.completed));
        rows.failed.push(int8(change.outcomes.failed));
        rows.measured_at.push(time(change.at));
        rows.last_seq.push(int8(change.sequence));
    }

    fn swarm(&mut self, swarm: &swarm_coordinator_core::Swarm, sequence: u64) {
        let rows = &mut self.swarms;
        rows.id.push(swarm.place.swarm.0);
        rows.organization_id.push(swarm.place.org.0);
        rows.name
            .push(clipped(&swarm.name, swarm_events::swarm::NAME_CHARS_MAX));
        rows.description.push(
            swarm
                .description
                .as_deref()
                .map(|words| text(words).into_owned()),
        );
        let topology = swarm.topology();
        rows.topology.push(word(topology.kind()).to_owned());
        rows.topology_configuration
            .push(stored(&topology.configuration()));
        rows.topology_generation
            .push(int8(swarm.shape.generation()));
        rows.leader_agent_id.push(swarm.leader().map(|id| id.0));
        rows.configuration.push(
            Json::from_value(&swarm.configuration)
                .map_or_else(|_| "{}".to_owned(), |json| stored(&json)),
        );
        rows.status.push(swarm.status().as_str());
        rows.agent_count
            .push(i32::try_from(swarm.live_agents()).unwrap_or(i32::MAX));
        let wanted = swarm.agents.values();
        let wanted = wanted.filter(|agent| agent.holds_place() && !agent.is_leaving());
        rows.desired_agents
            .push(i32::try_from(wanted.count()).unwrap_or(i32::MAX));
        rows.partition
            .push(i16::from(swarm.place.partition.number()));
        rows.created_by.push(swarm.created_by.map(|user| user.0));
        rows.created_at.push(time(swarm.created_at));
        rows.updated_at.push(time(swarm.updated_at));
        rows.deleted_at.push(swarm.deleted_at.map(time));
        rows.created_seq.push(int8(swarm.created_seq));
        rows.last_seq.push(int8(sequence));
    }

    /// Puts a result in that was looked up.
    pub(crate) fn set_result(&mut self, place: Place, id: Uuid, json: &Json) {
        let set = |ids: &[Uuid], orgs: &[Uuid], swarms: &[Uuid], results: &mut [Option<String>]| {
            let found = (0..ids.len()).find(|&at| {
                ids[at] == id && orgs[at] == place.org.0 && swarms[at] == place.swarm.0
            });
            if let Some(at) = found {
                results[at] = Some(stored(json));
            }
        };
        let rows = &mut self.new_tasks;
        set(
            &rows.id,
            &rows.organization_id,
            &rows.swarm_id,
            &mut rows.result,
        );
        let rows = &mut self.tasks;
        set(
            &rows.id,
            &rows.organization_id,
            &rows.swarm_id,
            &mut rows.result,
        );
    }
}

const fn role(role: org::Role) -> &'static str {
    match role {
        org::Role::User => "user",
        org::Role::Analyst => "analyst",
        org::Role::Developer => "developer",
        org::Role::Operator => "operator",
        org::Role::Admin => "admin",
    }
}

pub(crate) fn stored(json: &Json) -> String {
    storable(json.as_str()).into_owned()
}
/// A value as it is stored. None of those that come here can fail to be JSON.
pub(crate) fn json<T: serde::Serialize>(value: &T) -> String {
    let json = serde_json::to_string(value).unwrap_or_else(|_| "null".to_owned());
    storable(&json).into_owned()
}
/// Out of chrono's range is out of PostgreSQL's too; no server stores such a time.
pub(crate) fn time(time: Timestamp) -> Time {
    time.to_chrono().unwrap_or_default()
}
/// A count.
pub(crate) fn bounded<T: TryInto<i32>>(number: T) -> i32 {
    number.try_into().unwrap_or(i32::MAX)
}
pub(crate) fn int4(value: u32) -> i32 {
    i32::try_from(value).unwrap_or(i32::MAX)
}
pub(crate) fn int8(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
