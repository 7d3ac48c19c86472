//! What goes next and where: a steal, an overtaking by priority and one by age, and explanations that prove true.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Agent, Installation, PATIENCE, Record, Team, eventually, said, script};

fn held(name: &str) -> Value {
    json!({"task_type": "t", "payload": {"hold": name}})
}

fn with(mut task: Value, name: &str, value: Value) -> Value {
    task[name] = value;
    task
}

/// A steal, two overtakings, two explanations.
pub async fn all(swarm: &Installation) {
    tokio::join!(
        a_steal(swarm),
        urgent_before_patient(swarm),
        old_before_urgent(swarm),
        explained_until_assigned(swarm),
        explained_until_next(swarm),
    );
}

/// What waits behind long work goes to an idle agent, and runs there and nowhere else.
async fn a_steal(swarm: &Installation) {
    let configuration = json!({"agent_slots": 1, "agent_waiting": 1, "stealing": true});
    let id = swarm.swarm("stealing", configuration).await;
    let mut record = Record::of(swarm, &id).await;
    let (dir, go) = (swarm.dir().display(), swarm.dir().join("steal-go"));
    // Each run leaves a line behind: what is done twice shows.
    let work = |name: &str| {
        let text = format!(
            "#!/bin/sh\nline=$(cat)\necho \"$SWARM_TASK_ID\" >> {dir}/runs-{name}\n\
             case \"$line\" in *long*) while ! test -e {}; do sleep 0.05; done;; esac\necho '{{\"by\": \"{name}\"}}'\n",
            go.display()
        );
        script(swarm.dir(), &format!("{name}.sh"), &text)
    };
    let runs = |name: &str| {
        let runs = std::fs::read_to_string(swarm.dir().join(format!("runs-{name}")));
        let runs = runs.unwrap_or_default();
        runs.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let _busy = Agent::start(swarm, &id, "busy", &[], &work("busy"));
    swarm.until_idle(&id, 1).await;
    let long = swarm
        .task(&id, json!({"task_type": "t", "payload": "long"}))
        .await;
    record.task("started", &long).await;
    let short = swarm
        .task(&id, json!({"task_type": "t", "payload": "short"}))
        .await;
    let at_busy = record.assigned(&short).await;
    let _idle = Agent::start(swarm, &id, "idle", &[], &work("idle"));

    let (withdrawn, event) = record.task("withdrawn", &short).await;
    let told = &event["data"];
    assert_eq!(
        (&told["reason"], &told["force"], &told["then"]),
        (&json!("steal"), &json!(false), &json!("queue")),
        "{told}"
    );
    assert_eq!(told["assignment"], at_busy.sequence, "{told}");
    let (at, _) = record.task_after(withdrawn, "assigned", &short).await;
    let at_idle = record.assigned_after(at - 1).await;
    assert_ne!(at_idle.agent, at_busy.agent);
    assert_eq!(told["thief"], at_idle.agent, "{told}");
    assert_eq!(at_idle.data["stolen_from"], at_busy.agent, "{at_idle:?}");
    // It keeps its place in the order.
    assert_eq!(at_idle.data["queued_at"], at_busy.data["queued_at"]);
    let (_, done) = record.task("completed", &short).await;
    assert_eq!(done["data"]["result"], json!({"inline": {"by": "idle"}}));
    std::fs::write(&go, "").expect("written");
    record.task("completed", &long).await;

    assert_eq!(runs("busy"), std::slice::from_ref(&long));
    assert_eq!(runs("idle"), std::slice::from_ref(&short));
    assert_eq!(record.all("started").len(), 2, "one for each task");
    let path = format!("/v1/swarms/{id}/tasks/{short}");
    let shown = eventually("it is shown as completed", PATIENCE, || async {
        let shown = swarm.get(&path).await;
        (shown["status"] == "completed").then_some(shown)
    })
    .await;
    assert_eq!(shown["steals"], 1, "{shown}");
    // The newest first; what was withdrawn unstarted is no attempt.
    let attempts = shown["attempts"].as_array().expect("a list");
    let told: Vec<[&Value; 4]> = attempts
        .iter()
        .map(|one| ["number", "agent_id", "outcome", "stolen_from"].map(|name| &one[name]))
        .collect();
    let (idle, busy) = (json!(at_idle.agent), json!(at_busy.agent));
    assert_eq!(
        told,
        [
            [&json!(1), &idle, &json!("completed"), &busy],
            [&Value::Null, &busy, &json!("withdrawn:steal"), &Value::Null],
        ],
        "{shown}"
    );
    eventually("the steal is measured", PATIENCE, || async {
        let figures = swarm.get(&format!("/v1/swarms/{id}/metrics")).await;
        (figures["metrics"]["steals"] == json!(1.0)).then_some(())
    })
    .await;
}

/// Priority 10 waits for one assignment at the most: the next one is its own.
async fn urgent_before_patient(swarm: &Installation) {
    let configuration = json!({"agent_slots": 1, "agent_waiting": 1, "priority_step_ms": 30_000});
    let id = swarm.swarm("urgent", configuration).await;
    let (team, mut record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    team.join(swarm, "A", |agent| agent).await;
    let first = swarm.task(&id, held("first")).await;
    record.task("started", &first).await;
    let mut patient = Vec::new();
    for priority in [5, 9, 1, 5] {
        let task = with(held("patient"), "priority", json!(priority));
        patient.push(swarm.task(&id, task).await);
    }
    // The first of them waits at the agent; the rest is still in the queue.
    record.assigned(&patient[0]).await;
    let urgent = with(held("urgent"), "priority", json!(10));
    let urgent = swarm.task(&id, urgent).await;
    let (came, _) = record.task("submitted", &urgent).await;
    team.release("first");
    let next = record.assigned_after(came).await;
    assert_eq!(next.task, urgent, "{patient:?}: {next:?}");
    // And then by priority.
    for name in ["patient", "urgent"] {
        team.release(name);
    }
    record.until_count("completed", 6).await;
    let order: Vec<Value> = record
        .all("assigned")
        .iter()
        .map(|(_, event)| event["data"]["priority"].clone())
        .collect();
    assert_eq!(order, [5, 5, 10, 9, 5, 1].map(Value::from));
}

/// A step of priority weighs as much as 20 ms of waiting here: what has waited more than nine steps goes before anything new.
async fn old_before_urgent(swarm: &Installation) {
    const STEP: Duration = Duration::from_millis(20);
    let configuration = json!({"agent_slots": 1, "agent_waiting": 0, "priority_step_ms": 20});
    let id = swarm.swarm("ageing", configuration).await;
    let (team, mut record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    team.join(swarm, "A", |agent| agent).await;
    let first = swarm.task(&id, held("first")).await;
    record.task("started", &first).await;
    let quick = json!({"task_type": "t", "payload": {}});
    let old = swarm
        .task(&id, with(quick.clone(), "priority", json!(1)))
        .await;
    // It is stored by now, so its age is at least this.
    let stored = Instant::now();
    let mut count = 2;
    while stored.elapsed() <= 9 * STEP {
        let more = with(quick.clone(), "priority", json!(1));
        swarm.task(&id, more).await;
        count += 1;
    }
    let urgent = with(quick.clone(), "priority", json!(10));
    let urgent = swarm.task(&id, urgent).await;
    team.release("first");
    record.until_count("completed", count + 1).await;
    let (old, urgent) = (record.assigned(&old).await, record.assigned(&urgent).await);
    assert!(old.sequence < urgent.sequence, "{old:?} {urgent:?}");
    // It was no matter of who came last: the urgent one went before those that had waited less.
    let newer = record.all("assigned");
    let newer = newer.iter().filter(|(at, _)| *at > urgent.sequence);
    assert!(newer.count() > 0, "nobody was overtaken");
}

/// A task that nobody can take: the explanation says who is missing; once there is one, it is assigned.
async fn explained_until_assigned(swarm: &Installation) {
    let id = swarm.swarm("explained", json!({"agent_waiting": 0})).await;
    let (team, mut record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    let plain = team.join(swarm, "plain", |agent| agent.slots(1)).await;
    let running = swarm.task(&id, held("running")).await;
    let (started, _) = record.task("started", &running).await;
    let why = explained(swarm, &id, &running, started).await;
    assert_eq!(why["status"], "running", "{why}");
    assert_eq!(why["reason"]["kind"], "running", "{why}");
    assert_eq!(why["reason"]["agent_id"], plain.as_str(), "{why}");
    let assigned = record.assigned(&running).await;
    let chosen = &why["assignment"];
    assert_eq!(chosen["sequence"], assigned.sequence, "{why}");
    assert_eq!(chosen["agent_id"], plain.as_str(), "{why}");
    assert_eq!(chosen["algorithm"], "least_loaded", "{why}");
    assert_eq!(chosen["candidates"][0]["score"], 0, "{why}");
    assert_eq!(why["agent_names"][&plain], "plain", "{why}");
    let told = swarm.cli(&["explain", &running]).await;
    assert!(told.status.success(), "{}", said(&told));
    for word in ["running", "plain", "least_loaded"] {
        assert!(said(&told).contains(word), "{word}: {}", said(&told));
    }

    let needs = with(held("gpu"), "required_capabilities", json!(["gpu"]));
    let waiting = swarm.task(&id, needs).await;
    let (came, _) = record.task("submitted", &waiting).await;
    let why = explained(swarm, &id, &waiting, came).await;
    assert_eq!(why["reason"]["kind"], "queued", "{why}");
    assert_eq!(why["reason"]["agents"]["missing_capability"], 1, "{why}");
    assert_eq!(
        why["reason"]["lacking"]["capabilities"],
        json!([{"capability": "gpu", "agents": 1}]),
        "{why}"
    );
    let cures = why["reason"]["would_be_assigned_if"]
        .as_array()
        .expect("a list");
    assert_eq!(cures.len(), 1, "nothing else would help: {why}");
    assert_eq!(
        (
            &cures[0]["kind"],
            &cures[0]["capabilities"],
            &cures[0]["slots"]["count"]
        ),
        (&json!("agents"), &json!(["gpu"]), &json!(1)),
        "{why}"
    );
    let told = swarm.cli(&["explain", &waiting, "--swarm", &id]).await;
    assert!(
        said(&told).contains("one more agent with gpu had a free slot"),
        "{}",
        said(&told)
    );
    let joined = team.join(swarm, "painter", |agent| agent.capabilities(["gpu"]));
    let painter = joined.await;
    let (started, _) = record.task("started", &waiting).await;
    assert_eq!(record.assigned(&waiting).await.agent, painter);
    let why = explained(swarm, &id, &waiting, started).await;
    assert_eq!(why["assignment"]["agent_id"], painter.as_str(), "{why}");
    assert_eq!(why["assignment"]["passed_over"]["capability"], 1, "{why}");
}

/// A task behind others: at the priority that the explanation names it would be next, and below it would not.
async fn explained_until_next(swarm: &Installation) {
    let configuration = json!({"agent_waiting": 0, "agent_slots": 1, "priority_step_ms": 30_000});
    let id = swarm.swarm("next", configuration).await;
    let (team, mut record) = (Team::of(swarm, &id).await, Record::of(swarm, &id).await);
    let agent = team.join(swarm, "A", |agent| agent).await;
    let first = swarm.task(&id, held("first")).await;
    record.task("started", &first).await;
    let quick = |priority: u64| json!({"task_type": "t", "payload": {}, "priority": priority});
    for priority in [5, 3, 6] {
        swarm.task(&id, quick(priority)).await;
    }
    let last = swarm.task(&id, quick(1)).await;
    let (came, _) = record.task("submitted", &last).await;
    let why = explained(swarm, &id, &last, came).await;
    assert_eq!(
        why["reason"]["ahead"],
        json!({"count": 3, "at_least": false}),
        "{why}"
    );
    let cures = why["reason"]["would_be_assigned_if"]
        .as_array()
        .expect("a list");
    let cure = |kind: &str| {
        cures
            .iter()
            .find(|cure| cure["kind"] == kind)
            .unwrap_or_else(|| panic!("no {kind}: {why}"))
    };
    assert_eq!(
        (
            &cure("place")["places"]["count"],
            &cure("place")["agent_ids"]
        ),
        (&json!(4), &json!([agent])),
        "{why}"
    );
    assert_eq!(cure("agents")["slots"]["count"], 4, "{why}");
    let least = cure("priority")["least"].as_u64().expect("a priority");
    assert_eq!(least, 7, "{why}");
    let told = swarm.cli(&["explain", &last]).await;
    assert!(
        said(&told).contains("priority 7 or more"),
        "{}",
        said(&told)
    );

    // Their like at that priority, and at one below.
    let below = swarm.task(&id, quick(least - 1)).await;
    let twin = swarm.task(&id, quick(least)).await;
    let (came, _) = record.task("submitted", &twin).await;
    team.release("first");
    assert_eq!(record.assigned_after(came).await.task, twin);
    record.until_count("completed", 7).await;
    let order: Vec<(Value, bool)> = record
        .all("assigned")
        .iter()
        .map(|(_, event)| {
            (
                event["data"]["priority"].clone(),
                event["subject"] == below.as_str(),
            )
        })
        .collect();
    let order: Vec<(u64, bool)> = order
        .iter()
        .map(|(priority, below)| (priority.as_u64().expect("a number"), *below))
        .collect();
    let expected = [5, 7, 6, 6, 5, 3, 1];
    assert_eq!(order.iter().map(|(p, _)| *p).collect::<Vec<_>>(), expected);
    assert!(order[3].1, "what was queued later comes later: {order:?}");
}

/// The explanation of a task as of a sequence, by both addresses.
async fn explained(swarm: &Installation, id: &str, task: &str, seq: u64) -> Value {
    let paths = [
        format!("/v1/swarms/{id}/tasks/{task}/explain"),
        format!("/v1/tasks/{task}/explain"),
    ];
    let mut answers = Vec::new();
    for path in paths {
        let found = eventually(
            "the explanation is as new as the test",
            PATIENCE,
            || async {
                let answer = swarm
                    .request(reqwest::Method::GET, &path, None)
                    .await
                    .filter(|(status, answer)| {
                        *status == 200 && answer["seq"].as_u64().is_some_and(|at| at >= seq)
                    });
                answer.map(|(_, answer)| answer)
            },
        );
        answers.push(found.await);
    }
    let [by_swarm, alone] = &answers[..] else {
        unreachable!("two paths");
    };
    for name in ["task_id", "status", "assignment"] {
        assert_eq!(by_swarm[name], alone[name], "{name}");
    }
    answers.swap_remove(0)
}
