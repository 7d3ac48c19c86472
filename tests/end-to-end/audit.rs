//! `swarm audit` over the log of a real installation: clean after load, unmoved by forgeries that are void, and loud when
//! a promise is really broken.

use async_nats::jetstream;
use serde_json::{Value, json};
use swarm_servers::{Authority, Permissions};
use uuid::Uuid;

use crate::support::{Agent, Installation, PATIENCE, eventually, said, script};

/// Reads its task, fails one in seven times, and says something else.
const WORK: &str = "#!/usr/bin/env python3\nimport json, sys\nn = json.load(sys.stdin)[\"payload\"][\"n\"]\nprint(json.dumps({\"n\": n}))\nsys.exit(n % 7 == 6)\n";

/// A client that may write everything: no permission stands between it and the log.
async fn unrestricted(swarm: &Installation) -> jetstream::Context {
    let authority = Authority::load_or_create(&swarm.data().join("keys")).expect("the keys");
    let credentials = authority
        .mint("forger", &Permissions::all())
        .expect("minted");
    let client = async_nats::ConnectOptions::with_credentials(&credentials)
        .expect("credentials")
        .connect(swarm.field("nats_url"))
        .await
        .expect("connected");
    jetstream::new(client)
}

/// Stores an event as it is; answers with its sequence.
async fn store(context: &jetstream::Context, subject: &str, event: &Value) -> u64 {
    let published = context
        .publish(subject.to_owned(), event.to_string().into())
        .await
        .expect("published");
    published.await.expect("stored").sequence
}

/// The exit code and what was found.
async fn audit(swarm: &Installation, args: &[&str]) -> (Option<i32>, Value) {
    let output = swarm.cli(&[&["audit", "-o", "json"], args].concat()).await;
    let found = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    (output.status.code(), found)
}

/// The promises that are broken, and where.
fn broken(found: &Value) -> Vec<(String, Vec<u64>)> {
    let promises = found["invariants"].as_array().expect("a list");
    promises
        .iter()
        .filter(|promise| promise["violated"] != 0)
        .map(|promise| {
            let places = promise["violations"].as_array().expect("a list");
            let at = places.iter().filter_map(|v| v["sequence"].as_u64());
            let name = promise["name"].as_str().expect("a name").to_owned();
            (name, at.collect())
        })
        .collect()
}

/// The last message of a type, as `swarm replay` prints it.
async fn last(swarm: &Installation, kind: &str) -> Value {
    let mut events = swarm.replay(&["--type", kind]).await;
    events.pop().unwrap_or_else(|| panic!("no {kind}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn the_audit_is_clean_after_load_and_finds_what_is_really_broken() {
    const TASKS: u64 = 60;
    let swarm = Installation::start().await;
    let configuration = json!({"max_attempts": 2, "retry": {"base_ms": 10}});
    let id = swarm.swarm("audited", configuration).await;
    let work = script(swarm.dir(), "work.py", WORK);
    let _agents: Vec<Agent> = (0..2)
        .map(|n| Agent::start(&swarm, &id, &format!("a{n}"), &["--slots", "2"], &work))
        .collect();
    swarm.until_idle(&id, 2).await;
    let path = format!("/v1/swarms/{id}/tasks");
    for n in 0..TASKS - 2 {
        let task = json!({"task_type": "t", "payload": {"n": n}});
        swarm.post(&path, &task).await;
        if n == TASKS / 2 {
            // In the middle: what is open breaks nothing, and the tables equal the log where they are.
            let (code, found) = audit(&swarm, &["--read-model"]).await;
            assert_eq!((code, broken(&found)), (Some(0), vec![]), "{found:#}");
            let tables = found["read_model"]["tables"].as_array().expect("tables");
            assert_eq!(tables.len(), swarm_projections::migrate::TABLES.len());
        }
    }
    let graph = json!({"tasks": [
        {"key": "a", "task_type": "t", "payload": {"n": 0}},
        {"key": "b", "task_type": "t", "payload": {"n": 1},
         "depends_on": [{"key": "a", "dependency_type": "data"}]},
    ]});
    swarm.post(&path, &graph).await;
    let total = usize::try_from(TASKS).expect("small");
    swarm.until_ended(&id, total, PATIENCE).await;

    // Given a log that has come to rest, when it is audited, then every promise is kept and nothing is open.
    let (code, found) = audit(
        &swarm,
        &["--settled", "--read-model", "--gaps", "distributor"],
    )
    .await;
    assert_eq!((code, broken(&found)), (Some(0), vec![]), "{found:#}");
    assert_eq!(found["clean"], true);
    let tasks = &found["tasks"];
    assert_eq!(
        (
            &tasks["accepted"],
            &tasks["ended"],
            &tasks["lost"],
            &tasks["doubled"]
        ),
        (&json!(TASKS), &json!(TASKS), &json!(0), &json!(0)),
        "{tasks}"
    );
    for name in [
        "one-terminal-state",
        "dependencies-respected",
        "assigned-to-the-living",
        "graphs-decided",
        "result-of-standing-assignment",
        "one-owner-per-epoch",
        "read-model-equals-fold",
    ] {
        let promises = found["invariants"].as_array().expect("a list");
        let promise = promises.iter().find(|p| p["name"] == name).expect(name);
        assert!(
            promise["checked"].as_u64() > Some(0),
            "{promise} was not put to the test"
        );
    }
    assert!(found["gaps"].is_array(), "{found:#}");
    for owner in found["owners"].as_array().expect("owners") {
        assert!(owner["claims"][0]["instance"].is_string(), "{owner}");
    }

    // When somebody forges a second result, then it is void, and the log is as clean as before.
    let context = unrestricted(&swarm).await;
    let completed = last(&swarm, "task.completed").await;
    let mut second = completed["event"].clone();
    second["id"] = json!(Uuid::now_v7());
    let subject = completed["subject"].as_str().expect("a subject");
    let forged = store(&context, subject, &second).await;
    let late = found["voids"]["late"].as_u64().unwrap_or(0);
    let (code, found) = audit(&swarm, &["--settled"]).await;
    assert_eq!((code, broken(&found)), (Some(0), vec![]), "{found:#}");
    assert_eq!(found["voids"]["late"], late + 1, "the one at {forged}");
    eventually("the tables hold it as void", PATIENCE, || async {
        let (code, found) = audit(&swarm, &["--settled", "--read-model"]).await;
        assert_eq!((code, broken(&found)), (Some(0), vec![]), "{found:#}");
        (found["read_model"]["sequence"].as_u64() >= Some(forged)).then_some(())
    })
    .await;

    // When a row is changed behind the projector's back, then the tables do not equal the log.
    let url = swarm.field("database_url");
    let task = second["subject"].as_str().expect("a task");
    let change = |attempts: &str| {
        format!(
            "WITH done AS (UPDATE swarm_tasks SET attempt_count = attempt_count {attempts} WHERE id = '{task}' RETURNING 1) SELECT count(*) FROM done"
        )
    };
    assert_eq!(crate::support::count(url, &change("+ 1")).await, 1);
    let (code, found) = audit(&swarm, &["--read-model"]).await;
    let names: Vec<String> = broken(&found).into_iter().map(|(name, _)| name).collect();
    assert_eq!(
        (code, names),
        (Some(1), vec!["read-model-equals-fold".to_owned()])
    );
    assert_eq!(crate::support::count(url, &change("- 1")).await, 1);

    // When another instance decides under an owner's claim, then the audit names the promise and the place.
    let decision = last(&swarm, "task.assigned").await;
    let mut foreign = decision["event"].clone();
    let ordinal = foreign["ordinal"].as_u64().expect("a decision") + 1_000_000;
    let epoch = foreign["epoch"].as_u64().expect("a decision");
    foreign["source"] = json!(format!("/swarm/distributor/{}", Uuid::now_v7()));
    foreign["ordinal"] = json!(ordinal);
    foreign["id"] = json!(swarm_events::ids::EventId::of_decision("distributor", epoch, ordinal).0);
    foreign["subject"] = json!(Uuid::now_v7());
    let subject = decision["subject"].as_str().expect("a subject");
    let at = store(&context, subject, &foreign).await;
    let (code, found) = audit(&swarm, &[]).await;
    assert_eq!(
        (code, broken(&found)),
        (Some(1), vec![("one-owner-per-epoch".to_owned(), vec![at])]),
        "{found:#}"
    );
    // Then a range that leaves it out is clean, and one that begins at it is not.
    let (before, from) = ((at - 1).to_string(), at.to_string());
    let (code, found) = audit(&swarm, &["--to", &before]).await;
    assert_eq!((code, broken(&found)), (Some(0), vec![]), "{found:#}");
    let output = swarm.cli(&["audit", "--from", &from]).await;
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(
        text.contains("one-owner-per-epoch") && text.contains("whole log"),
        "{text}"
    );
}

#[tokio::test]
async fn the_promises_can_be_listed_without_an_installation() {
    let folder = crate::support::folder();
    let output = crate::support::swarm(folder.path())
        .args(["audit", "--list", "-o", "json"])
        .output()
        .await
        .expect("runs");
    assert!(output.status.success(), "{}", said(&output));
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let names: Vec<&str> = list["items"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|item| item["name"].as_str())
        .collect();
    for name in [
        "one-terminal-state",
        "epochs-rise",
        "read-model-equals-fold",
    ] {
        assert!(names.contains(&name), "{names:?}");
    }
}
