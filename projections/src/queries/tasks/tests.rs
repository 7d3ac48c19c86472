//! Every filter finds its rows by an index, with statistics and without, in a swarm of a hundred thousand tasks.

use serde_json::Value;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use swarm_servers::testing;
use uuid::Uuid;

use super::*;
use crate::{migrate, session::SETTINGS};

/// Tasks of the swarm; a tenth as many belong to others.
const TASKS: i64 = 100_000;
/// Rows that a list may read in vain: far below what there is of anything.
const IN_VAIN_MAX: u64 = 100;

const ORG: OrgId = OrgId(Uuid::from_u128(1));
const SWARM: SwarmId = SwarmId(Uuid::from_u128(2));
const GRAPH: GraphId = GraphId(Uuid::from_u128(0x5000_0000));
const PARENT: TaskId = TaskId(Uuid::from_u128(0x6000_0000));
const AGENT: AgentId = AgentId(Uuid::from_u128(0x7000_0007));

/// Of every thousand tasks one is of a kind that a filter asks for; at the end of the swarm some are open.
async fn fill(pool: &PgPool) {
    let sql = format!(
        "ALTER TABLE swarm_tasks SET (autovacuum_enabled = off); \
         INSERT INTO swarm_tasks (id, organization_id, swarm_id, parent_task_id, task_type, payload, priority, \
         required_capabilities, assigned_agent_id, status, attempt_count, max_attempts, created_at, graph_id, accepted, \
         rejected, dead_lettered, generation, failure_path, discarded, steals, declines, submitted_seq, last_seq) \
         SELECT lpad(to_hex(n + 1048576), 32, '0')::uuid, '{org}', \
         CASE WHEN n % 11 = 5 THEN lpad(to_hex(n % 100 + 4096), 32, '0')::uuid ELSE '{swarm}'::uuid END, \
         CASE WHEN n % 1000 = 1 THEN '{parent}'::uuid END, CASE WHEN n % 1000 = 2 THEN 'rare' ELSE 'common' END, '{{}}', 5, \
         '{{}}', lpad(to_hex(n % 1000 + 1879048192), 32, '0')::uuid, \
         CASE WHEN n % 1000 IN (3, 4) THEN 'failed' WHEN n % 1000 = 5 THEN 'cancelled' WHEN n % 1000 = 6 THEN 'running' \
         WHEN n % 1000 = 7 THEN 'assigned' WHEN n % 1000 = 8 THEN 'queued' WHEN n % 1000 = 9 THEN 'pending' ELSE 'completed' END, \
         1, 3, '2024-01-01Z', CASE WHEN n % 1000 = 10 THEN '{graph}'::uuid END, TRUE, FALSE, n % 1000 = 3, 1, '{{}}', FALSE, 0, 0, n, n \
         FROM generate_series(1, {TASKS} * 11 / 10) AS n",
        org = ORG.0,
        swarm = SWARM.0,
        parent = PARENT.0,
        graph = GRAPH.0,
    );
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(pool)
        .await
        .expect("filled");
}

/// What the planner did about `swarm_tasks`: by which indexes, how many rows in vain, and whether it sorted in between.
#[derive(Default)]
struct Plan {
    indexes: Vec<String>,
    in_vain: u64,
    read_all: bool,
    sorted_within: bool,
    text: String,
}
impl Plan {
    fn of(explained: &Value) -> Self {
        let mut plan = Self {
            text: format!("{explained:#}"),
            ..Self::default()
        };
        plan.look(&explained[0]["Plan"], false);
        plan
    }
    fn look(&mut self, node: &Value, within: bool) {
        let kind = node["Node Type"].as_str().unwrap_or_default();
        if let Some(index) = node["Index Name"]
            .as_str()
            .filter(|name| name.starts_with("swarm_tasks"))
        {
            self.indexes.push(index.to_owned());
        }
        if node["Relation Name"] == "swarm_tasks" {
            self.read_all |= kind == "Seq Scan";
            self.in_vain += node["Rows Removed by Filter"].as_u64().unwrap_or(0);
        }
        self.sorted_within |= within && kind == "Sort";
        let within = within || kind == "Limit";
        for child in node["Plans"].as_array().into_iter().flatten() {
            self.look(child, within);
        }
    }
}

async fn explained(connection: &mut PgConnection, filter: &TaskFilter) -> Plan {
    let mut query = QueryBuilder::new("EXPLAIN (ANALYZE, FORMAT JSON) ");
    page_rows(&mut query, ORG, SWARM, filter, (1_000, 0), 50);
    let explained: Value = query
        .build_query_scalar()
        .fetch_one(connection)
        .await
        .expect("explained");
    Plan::of(&explained)
}

fn filters() -> Vec<(TaskFilter, &'static str)> {
    let none = TaskFilter::default;
    let with = |status: &str| TaskFilter {
        status: Some(status.to_owned()),
        ..none()
    };
    let mut all: Vec<_> = [
        "pending",
        "queued",
        "assigned",
        "running",
        "failed",
        "cancelled",
        "nonsense",
    ]
    .into_iter()
    .map(|status| (with(status), "swarm_tasks_by_stage"))
    .collect();
    all.extend([
        (
            TaskFilter {
                task_type: Some("rare".to_owned()),
                ..none()
            },
            "swarm_tasks_by_type",
        ),
        (
            TaskFilter {
                dead_lettered: Some(true),
                ..none()
            },
            "swarm_tasks_dead_lettered",
        ),
        (
            TaskFilter {
                graph_id: Some(GRAPH),
                ..none()
            },
            "swarm_tasks_by_graph",
        ),
        (
            TaskFilter {
                parent_task_id: Some(PARENT),
                ..none()
            },
            "swarm_tasks_by_parent",
        ),
        (
            TaskFilter {
                agent_id: Some(AGENT),
                ..none()
            },
            "swarm_tasks_by_agent",
        ),
        // What nearly all tasks are is found in the order of the list as well.
        (
            TaskFilter {
                dead_lettered: Some(false),
                ..none()
            },
            "swarm_tasks_by_submission",
        ),
        (none(), "swarm_tasks_by_submission"),
        (with("completed"), "swarm_tasks_by_stage"),
        // Of several the one that says most leads.
        (
            TaskFilter {
                task_type: Some("common".to_owned()),
                ..with("failed")
            },
            "swarm_tasks_by_stage",
        ),
        (
            TaskFilter {
                task_type: Some("rare".to_owned()),
                ..with("completed")
            },
            "swarm_tasks_by_type",
        ),
        (
            TaskFilter {
                graph_id: Some(GRAPH),
                task_type: Some("common".to_owned()),
                ..with("completed")
            },
            "swarm_tasks_by_graph",
        ),
    ]);
    all
}

#[tokio::test]
async fn every_filter_finds_its_rows_by_an_index() {
    let postgres = testing::postgres().await;
    let pool = PgPool::connect(&postgres.url).await.expect("connected");
    let mut connection = pool.acquire().await.expect("a connection");
    migrate::migrate(&mut connection).await.expect("migrated");
    fill(&pool).await;
    for statistics in ["none", "fresh"] {
        if statistics == "fresh" {
            sqlx::query("ANALYZE")
                .execute(&pool)
                .await
                .expect("analyzed");
        }
        for (filter, index) in filters() {
            let plan = explained(&mut connection, &filter).await;
            let about = format!("statistics: {statistics}, {filter:?}: {}", plan.text);
            assert!(!plan.read_all && !plan.sorted_within, "{about}");
            assert!(plan.in_vain <= IN_VAIN_MAX, "{about}");
            assert_eq!(plan.indexes, [index], "{about}");
        }
        let children: Value = sqlx::query_scalar(AssertSqlSafe(format!(
            "EXPLAIN (ANALYZE, FORMAT JSON) {CHILDREN}"
        )))
        .bind(ORG.0)
        .bind(SWARM.0)
        .bind(PARENT.0)
        .fetch_one(&mut *connection)
        .await
        .expect("explained");
        let plan = Plan::of(&children);
        assert_eq!(
            (plan.indexes, plan.in_vain),
            (vec!["swarm_tasks_by_parent".to_owned()], 0),
            "{}",
            plan.text
        );
    }
    let counted = children(&pool, ORG, SWARM, PARENT).await.expect("counted");
    let parts: i64 = (1..=TASKS * 11 / 10)
        .filter(|n| n % 1000 == 1 && n % 11 != 5)
        .count()
        .try_into()
        .expect("small");
    assert_eq!(
        (counted.total, counted.completed, counted.open),
        (parts, parts, 0)
    );
}

/// The projector plans by the keys, whatever else is indexed.
#[tokio::test]
async fn a_single_task_is_found_by_its_key() {
    let postgres = testing::postgres().await;
    let pool = PgPool::connect(&postgres.url).await.expect("connected");
    let mut connection = pool.acquire().await.expect("a connection");
    migrate::migrate(&mut connection).await.expect("migrated");
    fill(&pool).await;
    let changed = crate::columns::update(
        "swarm_tasks",
        &[
            ("id", "uuid"),
            ("organization_id", "uuid"),
            ("swarm_id", "uuid"),
            ("steals", "integer"),
        ],
        &["organization_id", "swarm_id", "id"],
        &[],
    );
    let id = Uuid::from_u128(1_048_576 + 500);
    for statistics in ["none", "fresh"] {
        if statistics == "fresh" {
            sqlx::query("ANALYZE")
                .execute(&pool)
                .await
                .expect("analyzed");
        }
        sqlx::raw_sql("RESET ALL")
            .execute(&mut *connection)
            .await
            .expect("reset");
        let mut query = QueryBuilder::new("EXPLAIN (ANALYZE, FORMAT JSON) ");
        rows(&mut query, |query| {
            query.push_bind(ORG.0);
            query.push(" AND id = ").push_bind(id);
            query.push(" AND swarm_id = ").push_bind(SWARM.0);
        });
        let read: Value = query
            .build_query_scalar()
            .fetch_one(&mut *connection)
            .await
            .expect("explained");
        sqlx::raw_sql(SETTINGS)
            .execute(&mut *connection)
            .await
            .expect("set");
        let written: Value = sqlx::query_scalar(AssertSqlSafe(format!(
            "EXPLAIN (ANALYZE, FORMAT JSON) {changed}"
        )))
        .bind(vec![id])
        .bind(vec![ORG.0])
        .bind(vec![SWARM.0])
        .bind(vec![1])
        .fetch_one(&mut *connection)
        .await
        .expect("explained");
        for explained in [read, written] {
            let plan = Plan::of(&explained);
            assert_eq!(
                (plan.indexes, plan.in_vain),
                (vec!["swarm_tasks_pkey".to_owned()], 0),
                "{}",
                plan.text
            );
        }
    }
}
