//! Submissions that say whether the system is there: one every 100 ms, each judged on its own.

use std::{
    fmt,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde::Deserialize;
use swarm_events::{Json, Place, TaskId};
use swarm_log::{Log, jetstream::JetStreamLog};
use tokio::{
    task::JoinSet,
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use uuid::Uuid;

use super::{fleet::RETRY_AFTER, watch::now_micros};
use crate::pipeline::swarm::submission;

/// One probe each.
pub const EVERY: Duration = Duration::from_millis(100);
/// One of so many goes through the REST API.
pub const REST_EACH: u64 = 10;
/// Acknowledged and assigned within this time: good.
pub const GOOD_WITHIN: Duration = Duration::from_secs(5);
/// A gateway that does not answer within this is not waited for: the next one is asked.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);

/// How a probe goes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Published to its subject.
    Direct,
    /// `POST /v1/swarms/{id}/tasks` with an `Idempotency-Key`, at one gateway and, if that does not answer, the next.
    Rest,
}

/// A submission and what became of it. Times in microseconds since the Unix epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    pub way: Way,
    pub began: i64,
    pub acked: Option<i64>,
    pub task: Option<TaskId>,
    pub assigned: Option<i64>,
}

impl Probe {
    /// Whether it was acknowledged and assigned in time.
    pub fn is_good(&self) -> bool {
        let limit = self.began + i64::try_from(GOOD_WITHIN.as_micros()).unwrap_or(i64::MAX);
        let in_time = |at: Option<i64>| at.is_some_and(|at| at <= limit);
        in_time(self.acked) && in_time(self.assigned)
    }
}

/// Several bad probes in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadWindow {
    /// When the first and the last of them began.
    pub from: i64,
    pub until: i64,
    pub direct: u32,
    pub rest: u32,
    /// Of all of them, those that were never acknowledged in time.
    pub not_acked: u32,
}

impl fmt::Display for BadWindow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} bad probes within {:.1} s ({} direct, {} by REST; {} not even acknowledged in time)",
            self.direct + self.rest,
            (self.until - self.from) as f64 / 1e6,
            self.direct,
            self.rest,
            self.not_acked
        )
    }
}

/// The bad windows of `probes`, which are in the order in which they began. A good probe ends a window of its own way only:
/// the API may be away while the log is there.
pub fn bad_windows(probes: &[Probe]) -> Vec<BadWindow> {
    let mut windows: Vec<BadWindow> = Vec::new();
    for way in [Way::Direct, Way::Rest] {
        let mut open: Option<BadWindow> = None;
        for probe in probes.iter().filter(|probe| probe.way == way) {
            if probe.is_good() {
                windows.extend(open.take());
                continue;
            }
            let window = open.get_or_insert(BadWindow {
                from: probe.began,
                until: probe.began,
                direct: 0,
                rest: 0,
                not_acked: 0,
            });
            window.until = probe.began;
            match way {
                Way::Direct => window.direct += 1,
                Way::Rest => window.rest += 1,
            }
            window.not_acked += u32::from(probe.acked.is_none());
        }
        windows.extend(open);
    }
    windows.sort_by_key(|window| window.from);
    windows
}

/// Where probes go.
pub struct Prober {
    pub log: JetStreamLog,
    pub places: Vec<Place>,
    pub gateways: Vec<SocketAddr>,
    pub api_key: String,
    pub payload: Json,
}

#[derive(Deserialize)]
struct Accepted {
    id: Uuid,
}

impl Prober {
    /// Probes for `length`, and answers with all probes in the order in which they began, without their assignments.
    ///
    /// # Errors
    /// A probe cannot be built.
    pub async fn probe(self, length: Duration) -> anyhow::Result<Vec<Probe>> {
        let me = Arc::new(self);
        let client = reqwest::Client::builder()
            .timeout(ANSWER_PATIENCE)
            .build()?;
        let probes = Arc::new(Mutex::new(Vec::new()));
        let mut running = JoinSet::new();
        let mut tick = interval(EVERY);
        // A probe that is due is made, however late: those that are left out would be missing from the bad ones.
        tick.set_missed_tick_behavior(MissedTickBehavior::Burst);
        let many = length.as_millis() / EVERY.as_millis();
        for number in 0..u64::try_from(many)? {
            tick.tick().await;
            let (me, client, probes) = (me.clone(), client.clone(), probes.clone());
            running.spawn(async move {
                let probe = me.one(number, &client).await?;
                probes
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(probe);
                anyhow::Ok(())
            });
            while let Some(done) = running.try_join_next() {
                done??;
            }
        }
        while let Some(done) = running.join_next().await {
            done??;
        }
        let mut probes =
            std::mem::take(&mut *probes.lock().unwrap_or_else(PoisonError::into_inner));
        probes.sort_by_key(|probe: &Probe| probe.began);
        Ok(probes)
    }

    async fn one(&self, number: u64, client: &reqwest::Client) -> anyhow::Result<Probe> {
        let many = self.places.len().max(1) as u64;
        // Each round begins one swarm later, so that every swarm is probed both ways.
        let place = self.places[usize::try_from((number + number / many) % many)?];
        let way = if number.is_multiple_of(REST_EACH) {
            Way::Rest
        } else {
            Way::Direct
        };
        let began = now_micros();
        let submitted = async {
            match way {
                Way::Direct => self.publish(place).await,
                Way::Rest => self.post(place, number, client).await,
            }
        };
        let submitted = match timeout(GOOD_WITHIN, submitted).await {
            Ok(submitted) => Some((submitted?, now_micros())),
            Err(_) => None,
        };
        Ok(Probe {
            way,
            began,
            acked: submitted.map(|(_, at)| at),
            task: submitted.map(|(task, _)| task),
            assigned: None,
        })
    }

    /// As a client does that may lose its connection: again, under the same id, until it is acknowledged.
    async fn publish(&self, place: Place) -> anyhow::Result<TaskId> {
        let task = TaskId(Uuid::now_v7());
        let message = submission(place, task, &self.payload)?;
        loop {
            let outcomes = self.log.append(vec![message.clone()]).await;
            if outcomes.iter().all(Result::is_ok) {
                return Ok(task);
            }
            sleep(RETRY_AFTER).await;
        }
    }

    async fn post(
        &self,
        place: Place,
        number: u64,
        client: &reqwest::Client,
    ) -> anyhow::Result<TaskId> {
        let key = Uuid::now_v7().to_string();
        let body = serde_json::json!({ "task_type": "noop", "payload": self.payload });
        let first = usize::try_from(number / REST_EACH)?;
        for gateway in self
            .gateways
            .iter()
            .cycle()
            .skip(first % self.gateways.len().max(1))
        {
            let answer = client
                .post(format!("http://{gateway}/v1/swarms/{}/tasks", place.swarm))
                .bearer_auth(&self.api_key)
                .header("Idempotency-Key", &key)
                .json(&body)
                .send()
                .await;
            if let Ok(answer) = answer
                && answer.status().is_success()
                && let Ok(accepted) = answer.json::<Accepted>().await
            {
                return Ok(TaskId(accepted.id));
            }
            sleep(RETRY_AFTER).await;
        }
        anyhow::bail!("there is no gateway")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000;

    fn probe(way: Way, began: i64, acked: Option<i64>, assigned: Option<i64>) -> Probe {
        Probe {
            way,
            began,
            acked: acked.map(|after| began + after),
            task: None,
            assigned: assigned.map(|after| began + after),
        }
    }

    #[test]
    fn a_probe_is_good_up_to_the_limit_and_not_after_it() {
        let limit = 5 * SECOND;
        assert!(probe(Way::Direct, 0, Some(limit), Some(limit)).is_good());
        assert!(!probe(Way::Direct, 0, Some(limit + 1), Some(limit)).is_good());
        assert!(!probe(Way::Direct, 0, Some(1), Some(limit + 1)).is_good());
        assert!(!probe(Way::Direct, 0, None, Some(1)).is_good());
        assert!(!probe(Way::Direct, 0, Some(1), None).is_good());
    }

    #[test]
    fn bad_probes_in_a_row_are_one_window_of_their_way() {
        let good = Some(1);
        let probes = [
            probe(Way::Direct, 0, good, good),
            probe(Way::Rest, 1, None, None),
            probe(Way::Direct, 2, good, None),
            probe(Way::Direct, 3, None, None),
            probe(Way::Direct, 4, good, good),
            probe(Way::Rest, 5, None, None),
            probe(Way::Direct, 6, good, None),
        ];
        let windows = bad_windows(&probes);
        let shape = |window: &BadWindow| {
            (
                window.from,
                window.until,
                window.direct,
                window.rest,
                window.not_acked,
            )
        };
        assert_eq!(
            windows.iter().map(shape).collect::<Vec<_>>(),
            [(1, 5, 0, 2, 2), (2, 3, 2, 0, 1), (6, 6, 1, 0, 0)]
        );
    }
}
