//! Alive, and not fit for work.

use rustix::process::Signal;
use serde_json::{Value, json};

use super::crew::Crew;
use crate::support::{Installation, PATIENCE, eventually, kill, said};

/// Each in a swarm of its own.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        it_fails_fast(swarm),
        it_makes_no_progress(swarm),
        it_declines(swarm),
        what_health_shows(swarm),
    );
}

/// What fails at once again and again is taken out before it eats the queue, and tried again later.
async fn it_fails_fast(swarm: &Installation) {
    let settings = json!({
        "max_attempts": 20, "retry": {"base_ms": 10, "factor_percent": 100, "cap_ms": 10},
        "health": {"quarantine_ms": 500},
    });
    let mut crew = Crew::of(swarm, "fast", settings).await;
    let mended = swarm.dir().join("mended-2");
    let breaks = format!("test -e {} || exit 7; echo '{{}}'", mended.display());
    let broken = crew.exec("broken", &breaks).await;
    let well = crew.exec("well", "sleep 0.1; echo '{}'").await;
    crew.idle(&broken).await;
    crew.idle(&well).await;
    let task = json!({"task_type": "work", "payload": {}});
    let body = json!({"tasks": vec![task; 30]});
    swarm.post(&crew.path("/tasks/bulk"), &body).await;
    let (at, quarantined) = crew.record.agent("quarantined", &broken).await;
    let data = &quarantined["data"];
    assert_eq!(data["cause"], "fast_failures", "{quarantined}");
    assert!(
        data["figures"]["value"].as_u64() >= Some(5),
        "{quarantined}"
    );
    assert!(data["until"].is_string(), "{quarantined}");
    let (at, _) = crew.record.agent_after(at, "released", &broken).await;
    crew.record.until_count("completed", 30).await;
    // Nothing was given to it between the two words.
    let (from, _) = crew.record.agent("quarantined", &broken).await;
    let given = crew
        .record
        .all("assigned")
        .into_iter()
        .filter(|(sequence, event)| {
            (from..at).contains(sequence)
                && event["data"]["candidates"][0]["agent_id"] == broken.as_str()
        });
    // One may have been under way when the word was met.
    assert!(given.count() <= 1);

    // Mended, it works again: alone, after its next release.
    std::fs::write(&mended, "").expect("written");
    crew.delete(&well, "?force=true").await;
    let task = crew.task(json!({})).await;
    let (_, completed) = crew.record.task("completed", &task).await;
    assert_eq!(
        completed["source"],
        format!("/swarm/agent/{broken}"),
        "{completed}"
    );
    crew.in_status(&broken, "idle").await;
}

/// A task without progress is reported while its agent is alive.
async fn it_makes_no_progress(swarm: &Installation) {
    let settings = json!({"health": {"stuck_after_ms": 1_000}});
    let mut crew = Crew::of(swarm, "stuck", settings).await;
    let agent = crew.exec("stuck", "sleep 1000").await;
    crew.idle(&agent).await;
    let task = crew.task(json!({})).await;
    let (_, quarantined) = crew.record.agent("quarantined", &agent).await;
    assert_eq!(quarantined["data"]["cause"], "stuck", "{quarantined}");
    let path = crew.path("/health");
    let of_agent = |health: &Value| {
        let agents = health["items"].as_array()?.iter();
        agents
            .clone()
            .find(|one| one["id"] == agent.as_str())
            .cloned()
    };
    let shown = eventually("health tells of it", PATIENCE, || async {
        let shown = of_agent(&swarm.get(&path).await)?;
        shown.to_string().contains("stuck").then_some(shown)
    })
    .await;
    assert!(
        shown["heartbeat_age_ms"]
            .as_u64()
            .is_some_and(|age| age < 10_000),
        "{shown}"
    );
    swarm
        .post(&crew.path(&format!("/tasks/{task}/cancel")), &json!({}))
        .await;
    crew.record.agent("released", &agent).await;
    crew.in_status(&agent, "idle").await;
}

/// A task that is not for one agent goes to another, without an attempt being counted.
async fn it_declines(swarm: &Installation) {
    let mut crew = Crew::of(swarm, "decline", json!({"max_attempts": 1})).await;
    let picky = crew
        .exec(
            "picky",
            "echo '{\"declined\": \"not my kind of work\"}'; exit 1",
        )
        .await;
    // The one that joined first is asked first.
    crew.idle(&picky).await;
    let willing = crew.exec("willing", "echo '{}'").await;
    crew.idle(&willing).await;
    let task = crew.task(json!({})).await;
    let (at, declined) = crew.record.task("declined", &task).await;
    assert_eq!(
        declined["data"]["reason"], "not my kind of work",
        "{declined}"
    );
    let (_, completed) = crew.record.task_after(at, "completed", &task).await;
    assert_eq!(
        completed["source"],
        format!("/swarm/agent/{willing}"),
        "{completed}"
    );
    let path = crew.path(&format!("/tasks/{task}"));
    let shown = eventually("the read model has its end", PATIENCE, || async {
        let shown = swarm.get(&path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(
        shown["attempts"].as_array().map(Vec::len),
        Some(2),
        "{shown}"
    );
}

/// One place shows who is well and why not, with ages.
async fn what_health_shows(swarm: &Installation) {
    let crew = Crew::of(swarm, "look", json!({"heartbeat_interval_ms": 250})).await;
    let one = crew.exec("one", "echo '{}'").await;
    let two = crew.exec("two", "echo '{}'").await;
    crew.idle(&one).await;
    let process = crew.idle(&two).await;
    crew.until_status("active").await;
    let health = swarm.get(&crew.path("/health")).await;
    assert_eq!(health["status"], "active", "{health}");
    assert_eq!(
        health["items"].as_array().map(Vec::len),
        Some(2),
        "{health}"
    );
    for agent in health["items"].as_array().expect("a list") {
        assert!(
            agent["heartbeat_age_ms"]
                .as_u64()
                .is_some_and(|age| age < 5_000),
            "{agent}"
        );
    }
    kill(process, Signal::STOP);
    let health = eventually("it is degraded, with the reason", PATIENCE, || async {
        let health = swarm.get(&crew.path("/health")).await;
        (health["status"] == "degraded").then_some(health)
    })
    .await;
    assert!(
        health["reasons"]
            .as_array()
            .is_some_and(|reasons| !reasons.is_empty()),
        "{health}"
    );
    crew.until_status("active").await;
    let printed = swarm.cli(&["health", &crew.id]).await;
    assert!(printed.status.success(), "{}", said(&printed));
    assert!(said(&printed).contains("two"), "{}", said(&printed));
}
