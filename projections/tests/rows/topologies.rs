//! Topologies, leaders, templates, questions, parts and hand-overs, in the rows.

use serde_json::{Value, json};
use swarm_events::{
    AgentId, OrgId, TaskId,
    task::{Origin, handed_id, part_id},
};
use swarm_projections::{
    pool::reader,
    projector::Pace,
    queries::{self, PageRequest, QuestionFilter, TaskFilter},
    templates::template_id,
};
use swarm_servers::testing;

use crate::support::{
    everything::{everything, task},
    topologies::*,
    *,
};

async fn projected() -> (testing::TestPostgres, Script, sqlx::PgPool) {
    let postgres = testing::postgres().await;
    let s = everything().await;
    project(&s.log, &postgres.url, Pace::default()).await;
    let pool = reader(&postgres.url).expect("a pool");
    (postgres, s, pool)
}

async fn shown(pool: &sqlx::PgPool, s: &Script, id: TaskId) -> Value {
    let details = queries::task_details(pool, s.org, place(s).swarm, id).await;
    let details = details.expect("reads").expect("is there");
    serde_json::to_value(details).expect("JSON")
}

/// The assignment under which a task was split.
fn split_at(row: &Value) -> u64 {
    let attempts = row["attempts"].as_array().expect("attempts");
    let split = attempts
        .iter()
        .find(|attempt| attempt["outcome"] == "split");
    split.expect("was split")["assignment"]
        .as_u64()
        .expect("a sequence")
}

/// Given a change that was given up and one that holds, then the swarm's row has the topology in force with all its options,
/// the generation, and the leader that was elected last; and each agent its role and seat.
#[tokio::test]
async fn a_swarm_is_shown_with_its_topology_and_leader() {
    let (_postgres, s, pool) = projected().await;
    let swarm = queries::swarm(&pool, s.org, place(&s).swarm).await;
    let swarm = swarm.expect("reads").expect("is there");
    assert_eq!(swarm.topology, "ring");
    assert_eq!(swarm.leader_agent_id, Some(HUB.0), "not by a void election");
    let options: Value = serde_json::from_str(swarm.topology_configuration.get()).expect("JSON");
    assert_eq!(
        options,
        json!({"order": "sequential", "token_timeout_ms": 20_000, "skip_unhealthy": true})
    );
    let generation: i64 =
        sqlx::query_scalar("SELECT topology_generation FROM swarms WHERE id = $1")
            .bind(place(&s).swarm.0)
            .fetch_one(&pool)
            .await
            .expect("reads");
    assert_eq!(generation, 3);
    let seat = async |agent: AgentId| {
        let row = queries::agent(&pool, s.org, place(&s).swarm, agent).await;
        let row = serde_json::to_value(row.expect("reads").expect("is there")).expect("JSON");
        json!([
            row["role"],
            row["level"],
            row["place"],
            row["standby"],
            row["works"]
        ])
    };
    // Mesh and ring know workers only.
    assert_eq!(seat(HUB).await, json!(["leader", 0, 1, false, true]));
    assert_eq!(seat(NEXT).await, json!(["worker", 0, 2, false, true]));
    assert_eq!(seat(LEFT).await, json!(["worker", null, null, null, null]));
}

#[tokio::test]
async fn events_have_the_requirements_names() {
    let (_postgres, s, pool) = projected().await;
    let names: Vec<String> = sqlx::query_scalar(
        "SELECT DISTINCT event_type FROM swarm_events WHERE swarm_id = $1 AND event_type LIKE '%topology%' \
         OR event_type LIKE '%leader%' ORDER BY 1",
    )
    .bind(place(&s).swarm.0)
    .fetch_all(&pool)
    .await
    .expect("reads");
    assert_eq!(
        names,
        [
            "leader_election",
            "leader_election_void",
            "swarm_topology_kept",
            "swarm_topology_planned",
            "topology_changed"
        ]
    );
}

/// Given the system's four and those that an organization saved, changed and deleted, then a list has what there is now, and
/// nobody sees another's.
#[tokio::test]
async fn templates_are_the_systems_and_ones_own() {
    let (_postgres, s, pool) = projected().await;
    let all = queries::topologies(&pool, s.org, &PageRequest::default())
        .await
        .expect("reads")
        .items;
    let names = |rows: &[queries::TopologyRow]| {
        let mut names: Vec<_> = rows.iter().map(|row| row.name.clone()).collect();
        names[..4].sort();
        names[4..].sort();
        names
    };
    let system = ["hierarchical", "mesh", "ring", "star"];
    assert_eq!(
        names(&all),
        [&system[..], &["again", "invoices"]].concat(),
        "the system's first"
    );
    assert!(
        all[..4]
            .iter()
            .all(|row| row.is_system && row.created_at.is_none())
    );
    let stranger = queries::topologies(&pool, OrgId(id(99)), &PageRequest::default()).await;
    assert_eq!(names(&stranger.expect("reads").items), system);

    let own = queries::topology(&pool, s.org, "invoices").await;
    let own = own.expect("reads").expect("is there");
    assert_eq!(own.id, template_id(Some(s.org), "invoices"));
    assert_eq!(own.topology_type, "mesh", "as it was saved last");
    assert_eq!(own.description.as_deref(), Some("one \u{FFFD} by one"));
    assert!(
        own.created_at < own.updated_at,
        "and made when it was first"
    );
    let star = queries::topology(&pool, s.org, "star").await;
    let star = serde_json::to_value(star.expect("reads").expect("is there")).expect("JSON");
    assert_eq!(star["configuration"]["max_workers"], 50);
    let gone = queries::topology(&pool, s.org, "gone").await;
    assert!(gone.expect("reads").is_none());

    // Page by page the same.
    let (mut page, mut seen) = (
        PageRequest {
            limit: Some(1),
            cursor: None,
        },
        Vec::new(),
    );
    loop {
        let found = queries::topologies(&pool, s.org, &page)
            .await
            .expect("reads");
        seen.extend(found.items.iter().map(|row| row.id));
        match found.next_cursor {
            Some(cursor) => page.cursor = Some(cursor),
            None => break,
        }
    }
    assert_eq!(seen, all.iter().map(|row| row.id).collect::<Vec<_>>());
}

#[tokio::test]
async fn questions_are_shown_with_what_became_of_them() {
    let (_postgres, s, pool) = projected().await;
    let all = queries::questions(
        &pool,
        s.org,
        place(&s).swarm,
        &QuestionFilter::default(),
        &PageRequest::default(),
    )
    .await
    .expect("reads")
    .items;
    let rows: Vec<Value> = all
        .iter()
        .map(|row| serde_json::to_value(row).expect("JSON"))
        .collect();
    let summary: Vec<_> = rows
        .iter()
        .map(|row| {
            json!([
                row["status"],
                row["answerer"],
                row["answer"],
                row["answered_by"],
                row["answered_by_id"]
            ])
        })
        .collect();
    assert_eq!(
        summary,
        [
            json!(["open", "anybody", null, null, null]),
            json!(["answered", "leader", "yes", "person", id(3)]),
            json!(["answered", "supervisor", "yes", "agent", NEXT]),
            json!(["fell_back", "anybody", "yes", null, null]),
            json!(["unanswered", "anybody", null, null, null]),
        ],
        "the first answer counts"
    );
    assert_eq!(rows[0]["question"], "go \u{FFFD} on?");
    assert_eq!(rows[0]["choices"], json!(["yes", "no"]));
    assert_eq!(rows[0]["task_id"], json!(task(40)), "by its assignment");
    assert_eq!(rows[1]["task_id"], Value::Null);
    assert_eq!(rows[2]["choices"], json!([]));
    assert_eq!(rows[3]["default"], "no");
    assert_eq!(rows[4]["reason"], "nobody \u{FFFD} answered in time");
    let minute = all[0].due_at - all[0].asked_at;
    assert_eq!(minute.num_milliseconds(), 60_000);
    assert!(rows[0]["ended_at"].is_null() && rows[4]["ended_at"].is_string());

    for (status, wanted) in [
        ("open", 1),
        ("answered", 2),
        ("fell_back", 1),
        ("nonsense", 0),
    ] {
        let filter = QuestionFilter {
            status: Some(status.to_owned()),
            agent_id: Some(HUB),
        };
        let page = PageRequest::default();
        let found = queries::questions(&pool, s.org, place(&s).swarm, &filter, &page).await;
        assert_eq!(found.expect("reads").items.len(), wanted, "{status}");
    }
    let one = queries::question(&pool, s.org, place(&s).swarm, question(2)).await;
    assert_eq!(one.expect("reads").map(|row| row.id), Some(question(2).0));
    let strangers = queries::question(&pool, OrgId(id(99)), place(&s).swarm, question(2)).await;
    assert!(strangers.expect("reads").is_none());
}

#[tokio::test]
async fn parts_are_rows_of_their_own_that_one_split_made() {
    let (_postgres, s, pool) = projected().await;
    let whole = shown(&pool, &s, task(WHOLE)).await;
    assert_eq!(whole["status"], "completed");
    assert_eq!(whole["result"], "whole");
    assert_eq!(
        (&whole["parts"], &whole["step"], &whole["part"]),
        (&json!(2), &json!("reduce"), &Value::Null)
    );
    assert_eq!(whole["children"]["completed"], 2);
    let attempts: Vec<_> = whole["attempts"]
        .as_array()
        .expect("attempts")
        .iter()
        .map(|attempt| json!([attempt["step"], attempt["outcome"], attempt["path"]]))
        .collect();
    assert_eq!(
        attempts,
        [
            json!(["reduce", "completed", []]),
            json!(["work", "split", [HUB, NEXT]])
        ]
    );
    let split = split_at(&whole);
    for (number, key) in [(0, "a"), (1, "b")] {
        let row = shown(&pool, &s, part_id(task(WHOLE), split, number)).await;
        assert_eq!(
            json!([
                row["part"],
                row["key"],
                row["parent_task_id"],
                row["task_type"],
                row["priority"],
                row["timeout_ms"]
            ]),
            json!([number, key, task(WHOLE), "piece", 7, 5_000])
        );
        assert_eq!(row["payload"], json!({"of": key, "nul": "\u{FFFD}"}));
        assert_eq!(row["result"], json!({ "part": number }));
        assert_eq!(row["step"], "work");
    }

    // What could not be split failed, and nothing came of it.
    let broken = shown(&pool, &s, task(BROKEN)).await;
    assert_eq!(
        json!([broken["status"], broken["parts"]]),
        json!(["failed", null])
    );
    let attempt = &broken["attempts"][0];
    assert_eq!(attempt["outcome"], "failed");
    assert_eq!(attempt["retryable"], false);
    let error = attempt["error"].as_str().unwrap_or_default();
    assert!(error.contains("parts[1].key"), "{error}");
    assert_eq!(broken["children"]["total"], 0);

    // A person's retry begins anew: whole.
    let again = shown(&pool, &s, task(WHOLE_AGAIN)).await;
    assert_eq!(
        json!([
            again["status"],
            again["generation"],
            again["parts"],
            again["step"]
        ]),
        json!(["queued", 2, null, "work"])
    );
    let split = split_at(&again);
    let states = async |number| {
        let row = shown(&pool, &s, part_id(task(WHOLE_AGAIN), split, number)).await;
        row["status"].clone()
    };
    assert_eq!(states(0).await, "failed");
    assert_eq!(states(1).await, "cancelled");
}

/// Rows of one split have one sequence: pages go by their numbers.
#[tokio::test]
async fn a_list_pages_through_parts() {
    let (_postgres, s, pool) = projected().await;
    let list = async |limit: u32| {
        let (mut page, mut seen) = (
            PageRequest {
                limit: Some(limit),
                cursor: None,
            },
            Vec::new(),
        );
        loop {
            let all = TaskFilter::default();
            let found = queries::tasks(&pool, s.org, place(&s).swarm, &all, &page).await;
            let found = found.expect("a page");
            seen.extend(
                found
                    .items
                    .iter()
                    .map(|row| (row.submitted_seq, row.part, row.id)),
            );
            match found.next_cursor {
                Some(cursor) => page.cursor = Some(cursor),
                None => break,
            }
        }
        seen
    };
    let whole = list(1_000).await;
    assert_eq!(list(1).await, whole);
    assert_eq!(list(2).await, whole);
    let mut sorted = whole.clone();
    sorted.sort();
    assert_eq!(sorted, whole);
    assert_eq!(
        whole.iter().filter(|(_, part, _)| part.is_some()).count(),
        4
    );
}

#[tokio::test]
async fn work_that_goes_to_another_swarm_shows_where() {
    let (_postgres, s, pool) = projected().await;
    let there = |number, generation| {
        let origin = Origin {
            swarm_id: place(&s).swarm,
            task_id: task(number),
            generation,
            hops: 1,
        };
        handed_id(&origin)
    };
    let done = shown(&pool, &s, task(HANDED)).await;
    assert_eq!(
        json!([
            done["status"],
            done["result"],
            done["hand_to"],
            done["handed_task_id"]
        ]),
        json!(["completed", {"from": "afar"}, other(), there(HANDED, 1)])
    );
    assert!(done["handed_at"].is_string());
    assert_eq!(done["attempts"], json!([]), "no agent of this swarm had it");
    let again = shown(&pool, &s, task(HANDED_TWICE)).await;
    assert_eq!(
        json!([
            again["status"],
            again["generation"],
            again["handed_task_id"],
            again["handed_at"]
        ]),
        json!(["pending", 2, null, null]),
        "what was handed over belongs to the generation before"
    );
    let done_for = shown(&pool, &s, handed_id(&origin())).await;
    assert_eq!(
        json!([
            done_for["origin_swarm_id"],
            done_for["origin_task_id"],
            done_for["origin_generation"],
            done_for["required_role"]
        ]),
        json!([other(), task(500), 3, "worker"])
    );
    let turn: Option<i64> = sqlx::query_scalar("SELECT turn FROM task_attempts WHERE task_id = $1")
        .bind(task(46).0)
        .fetch_one(&pool)
        .await
        .expect("reads");
    assert_eq!(turn, Some(1));
}
