//! Several replicas of each service: who dies, leaves or hangs is replaced, and every task ends once.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::{
    projection::until_same,
    support::{
        Agent, Installation, PATIENCE, WORK, assert_each_completed_once, eventually, kill, said,
        script, submit, under_load, until_more_complete,
    },
};

/// How long an owner hangs: three times as long as the others wait before they take it for dead.
const HANG: Duration = Duration::from_secs(6);
/// Tasks that the projector writes while it is killed.
const TASKS: usize = 60;

/// One busy swarm of an installation with two replicas of everything.
struct Scene {
    swarm: Installation,
    id: String,
    /// The swarm's partition.
    partition: u64,
    agents: Vec<Agent>,
    submitted: usize,
}

/// Who decides for the swarm's partition, as `swarm status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Owner {
    name: String,
    instance: String,
    epoch: u64,
    standby: Vec<String>,
}

impl Scene {
    async fn start() -> Self {
        let swarm = Installation::start_with(&["--replicas", "2"]).await;
        let id = swarm.swarm("replicas", json!({})).await;
        let shown = swarm.get(&format!("/v1/swarms/{id}")).await;
        let subject = shown["events_subject"].as_str().expect("a subject");
        let partition = subject.split('.').nth(2).expect("a partition");
        let work = script(swarm.dir(), "work.sh", WORK);
        let agents = (0..3)
            .map(|n| Agent::start(&swarm, &id, &format!("a{n}"), &[], &work))
            .collect();
        swarm.until_idle(&id, 3).await;
        Self {
            partition: partition.parse().expect("a number"),
            swarm,
            id,
            agents,
            submitted: 0,
        }
    }

    /// `trouble` under load; then everything that was submitted has completed once.
    async fn under_load(&mut self, trouble: impl AsyncFnOnce(&Self)) {
        let began = Instant::now();
        let trouble = trouble(self);
        let submitted = under_load(&self.swarm, &self.id, self.submitted, trouble).await;
        self.submitted = submitted;
        assert_each_completed_once(&self.swarm, &self.id, self.submitted).await;
        eprintln!("{submitted} tasks, the last scene in {:?}", began.elapsed());
    }

    /// The owner of the swarm's partition among the distributors, once it has a standby.
    async fn owner(&self) -> Owner {
        eventually("the partition has owner and standby", PATIENCE, || async {
            let status = status(&self.swarm, &["--partitions"]).await;
            let rows = status["partitions"].as_array()?;
            let row = rows.iter().find(|row| {
                row["service"] == "distributor" && row["partition"] == self.partition
            })?;
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let standby: Vec<String> = row["standby"]
                .as_array()?
                .iter()
                .filter_map(|one| text(&one["instance"]))
                .collect();
            let owner = &row["owner"];
            (!standby.is_empty() && owner["cut_off_since"].is_null()).then_some(())?;
            Some(Owner {
                name: text(&owner["name"])?,
                instance: text(&owner["instance"])?,
                epoch: owner["epoch"].as_u64()?,
                standby,
            })
        })
        .await
    }

    /// Claims of the swarm's partition by distributors: their sequences and who made them.
    async fn claims(&self) -> Vec<(u64, String)> {
        let partition = format!("{:02}", self.partition);
        let claims = self.swarm.replay(&["--type", "ctl.claimed"]).await;
        let ours = claims
            .iter()
            .filter(|line| line["subject"] == format!("swarm.ctl.distributor.{partition}.claimed"));
        ours.map(|line| {
            let instance = line["event"]["data"]["instance"].as_str().expect("an id");
            (
                line["sequence"].as_u64().expect("a number"),
                instance.to_owned(),
            )
        })
        .collect()
    }

    /// Waits for the first claim after `epoch`, and answers with who made it.
    async fn next_claim(&self, epoch: u64) -> (u64, String) {
        eventually("somebody claims the partition", PATIENCE, || async {
            let claims = self.claims().await;
            claims.into_iter().find(|(sequence, _)| *sequence > epoch)
        })
        .await
    }

    /// Every decision on the swarm's tasks was stored under the last claim before it: a superseded owner wrote nothing.
    async fn assert_no_decision_of_a_superseded_owner(&self) {
        let claims = self.claims().await;
        let mut decisions = 0;
        for line in self.swarm.replay(&["--swarm", &self.id]).await {
            let event = &line["event"];
            let by_distributor = event["source"]
                .as_str()
                .is_some_and(|source| source.starts_with("/swarm/distributor/"));
            let (true, Some(epoch)) = (by_distributor, event["epoch"].as_u64()) else {
                continue;
            };
            let sequence = line["sequence"].as_u64().expect("a number");
            let last = claims.iter().rev().find(|(claim, _)| *claim < sequence);
            assert_eq!(last.map(|(claim, _)| *claim), Some(epoch), "{line}");
            decisions += 1;
        }
        assert!(decisions >= self.submitted, "{decisions} decisions");
    }

    fn pid(&self, name: &str) -> u32 {
        self.swarm
            .pid(name)
            .unwrap_or_else(|| panic!("{name} runs"))
    }
}

/// `swarm status -o json`, whether everything is ready or not.
async fn status(swarm: &Installation, args: &[&str]) -> Value {
    let output = swarm.cli(&[&["status", "-o", "json"], args].concat()).await;
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", said(&output)))
}

/// The row of a process.
async fn row(swarm: &Installation, name: &str) -> Value {
    let status = status(swarm, &[]).await;
    let rows = status["services"].as_array().expect("services");
    let row = rows.iter().find(|row| row["name"] == name);
    row.unwrap_or_else(|| panic!("no {name} in {status}"))
        .clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_owner_that_dies_leaves_or_hangs_is_replaced_and_every_task_ends_once() {
    let mut scene = Scene::start().await;
    both_have_work(&scene).await;
    scene.under_load(a_killed_owner_is_replaced).await;
    scene.under_load(a_leaving_owner_hands_over).await;
    scene
        .under_load(a_hanging_owner_changes_nothing_when_it_is_back)
        .await;
    scene.assert_no_decision_of_a_superseded_owner().await;
    scene.under_load(another_gateway_answers).await;
    a_killed_projector_is_replaced(scene).await;
}

async fn both_have_work(scene: &Scene) {
    let status = status(&scene.swarm, &["--partitions"]).await;
    for service in ["coordinator", "distributor", "health"] {
        let rows = status["services"].as_array().expect("services");
        let rows: Vec<&Value> = rows
            .iter()
            .filter(|row| row["service"] == service)
            .collect();
        let sum = |field: &str| {
            rows.iter()
                .filter_map(|row| row[field].as_u64())
                .sum::<u64>()
        };
        assert_eq!(rows.len(), 2, "{rows:?}");
        assert_eq!((sum("owned"), sum("standby")), (64, 64), "{rows:?}");
        // Rendezvous hashing gives one of two less than a tenth of 64 once in 10^12 starts.
        assert!(
            rows.iter().all(|row| row["owned"].as_u64() > Some(6)),
            "{rows:?}"
        );
        assert!(
            rows.iter()
                .all(|row| row["pid"].is_u64() && row["behind"]["events"].is_u64())
        );
    }
}

async fn a_killed_owner_is_replaced(scene: &Scene) {
    let owner = scene.owner().await;
    kill(scene.pid(&owner.name), Signal::KILL);
    // The standby, though the supervisor starts the dead one's successor at once.
    let (_, heir) = scene.next_claim(owner.epoch).await;
    assert!(owner.standby.contains(&heir), "{owner:?} {heir}");
    until_more_complete(&scene.swarm, &scene.id, 5).await;
    scene.swarm.until_ready().await;
}

async fn a_leaving_owner_hands_over(scene: &Scene) {
    let owner = scene.owner().await;
    kill(scene.pid(&owner.name), Signal::TERM);
    let (_, heir) = scene.next_claim(owner.epoch).await;
    assert!(owner.standby.contains(&heir), "{owner:?} {heir}");
    until_more_complete(&scene.swarm, &scene.id, 5).await;
    scene.swarm.until_ready().await;
}

async fn a_hanging_owner_changes_nothing_when_it_is_back(scene: &Scene) {
    let owner = scene.owner().await;
    let pid = scene.pid(&owner.name);
    kill(pid, Signal::STOP);
    let back = Instant::now() + HANG;
    let (_, heir) = scene.next_claim(owner.epoch).await;
    assert!(owner.standby.contains(&heir), "{owner:?} {heir}");
    let shown = row(&scene.swarm, &owner.name).await;
    assert!(shown["cut_off_since"].is_string(), "{shown}");
    assert_ne!(shown["state"], "ready", "{shown}");
    // The fault's length, not a wait for anything.
    sleep_until(back).await;
    kill(pid, Signal::CONT);
    until_more_complete(&scene.swarm, &scene.id, 5).await;
    eventually("it is among the living again", PATIENCE, || async {
        let shown = row(&scene.swarm, &owner.name).await;
        (shown["cut_off_since"].is_null() && shown["state"] == "ready").then_some(())
    })
    .await;
    assert_eq!(
        scene.swarm.pid(&owner.name),
        Some(pid),
        "it was not started again"
    );
}

async fn another_gateway_answers(scene: &Scene) {
    let gateways = scene.swarm.gateways();
    assert_eq!(gateways.len(), 2);
    assert_eq!(gateways[0], scene.swarm.field("api_url"));
    kill(scene.pid("gateway"), Signal::KILL);
    // The command line by itself, and the second gateway asked by name.
    let shown = scene.swarm.cli(&["show", &scene.id]).await;
    assert!(shown.status.success(), "{}", said(&shown));
    let answer = reqwest::Client::new()
        .get(format!("{}/v1/swarms/{}", gateways[1], scene.id))
        .bearer_auth(scene.swarm.field("api_key"))
        .send()
        .await
        .expect("answers");
    assert_eq!(answer.status().as_u16(), 200);
    scene.swarm.until_ready().await;
}

async fn a_killed_projector_is_replaced(mut scene: Scene) {
    let roles = async |role: &str| {
        let mut found = Vec::new();
        for name in ["projector", "projector-2"] {
            if row(&scene.swarm, name).await["role"] == role {
                found.push(name);
            }
        }
        found
    };
    let (active, standby) = (roles("writing").await, roles("standby").await);
    assert_eq!(
        (active.len(), standby.len()),
        (1, 1),
        "{active:?} {standby:?}"
    );
    // In the middle of its work.
    submit(&scene.swarm, &scene.id, scene.submitted, TASKS).await;
    scene.submitted += TASKS;
    let killed = scene.pid(active[0]);
    kill(killed, Signal::KILL);
    // The standby asks for the lock twice a second. The killed one may have been started again before that, and be first.
    eventually("one of them writes", PATIENCE, || async {
        let restarted = scene.swarm.pid(active[0]).is_some_and(|pid| pid != killed);
        for (name, may) in [(standby[0], true), (active[0], restarted)] {
            if may && row(&scene.swarm, name).await["role"] == "writing" {
                return Some(());
            }
        }
        None
    })
    .await;
    assert_each_completed_once(&scene.swarm, &scene.id, scene.submitted).await;
    // No agent, so that soon nothing moves.
    for agent in &mut scene.agents {
        kill(agent.pid(), Signal::TERM);
        agent.wait().await;
    }
    until_same(&scene.swarm, || async {
        let rebuilt = scene
            .swarm
            .cli(&["projection", "rebuild", "--timeout", "60s"])
            .await;
        assert!(rebuilt.status.success(), "{}", said(&rebuilt));
    })
    .await;
}
