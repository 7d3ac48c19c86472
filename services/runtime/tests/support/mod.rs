//! The smallest decider that has open marks, a timer and a weakness; and a world for it to live in.

#![allow(dead_code, reason = "each test uses its share")]

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use swarm_events::{
    Body, Event, EventId, Input, OrgId, Partition, Place, Problem, Service, Subject, SwarmId,
    TaskId, Timestamp, command,
    decider::{Admission, Decider, Decision, Head, Verdict},
    envelope::Source,
    ids::InstanceId,
    read,
    subject::{CommandVerb, TaskVerb},
    task,
};
use swarm_log::{
    Log, Message,
    simulated::{SimulatedLog, SimulatedSettings},
};
use swarm_runtime::{LoopError, LoopSettings, NoShell, deciding::run};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Answers each cancel command with a refusal; `slow` ones only after ten seconds of log time; `heavy` ones make the state
/// larger; `poison` makes it panic.
#[derive(Serialize, Deserialize)]
pub struct Echo {
    pub head: Head,
    pub open: BTreeMap<u64, Mark>,
    pub answered: BTreeMap<Uuid, u32>,
    pub rejected: BTreeSet<u64>,
    pub ballast: Vec<u8>,
}
#[derive(Clone, Serialize, Deserialize)]
pub struct Mark {
    command: Uuid,
    place: Place,
    due: Timestamp,
    poison: bool,
}

const SLOW_MS: u64 = 10_000;
/// What a heavy command adds to the state.
pub const HEAVY_BYTES: usize = 64 * 1024;

impl Decider for Echo {
    const SERVICE: Service = Service::Distributor;
    const VERSION: u32 = 1;
    const FORMAT: u32 = 1;
    type Plan = BTreeSet<u64>;

    fn new(partition: Partition) -> Self {
        Self {
            head: Head::new(partition),
            open: BTreeMap::new(),
            answered: BTreeMap::new(),
            rejected: BTreeSet::new(),
            ballast: Vec::new(),
        }
    }
    fn head(&self) -> &Head {
        &self.head
    }
    fn evolve(&mut self, input: &Input, plan: Option<&mut BTreeSet<u64>>) -> Verdict {
        match self.head.admit(Self::SERVICE, input) {
            Admission::Void(why) => return Verdict::Void(why),
            Admission::Claimed => {
                if let Input::Event(recorded) = input
                    && let Body::Claimed(claimed) = &recorded.event.body
                {
                    for stuck in &claimed.rejects {
                        self.reject(stuck.sequence, &stuck.problem);
                    }
                }
                return Verdict::Applied;
            }
            Admission::Admit => {}
        }
        let Input::Event(recorded) = input else {
            return Verdict::Ignored;
        };
        match &recorded.event.body {
            Body::Cancel(cancel) => {
                let Some(place) = recorded.subject.place() else {
                    return Verdict::Ignored;
                };
                let command = recorded.event.id.0;
                if self.answered.contains_key(&command)
                    || self.open.values().any(|m| m.command == command)
                {
                    return Verdict::Void("repeat");
                }
                if cancel.reason.as_deref() == Some("heavy") {
                    self.ballast.resize(self.ballast.len() + HEAVY_BYTES, 1);
                }
                let slow = cancel.reason.as_deref() == Some("slow");
                let due = if slow {
                    self.head.now.plus_millis(SLOW_MS)
                } else {
                    self.head.now
                };
                let poison = cancel.reason.as_deref() == Some("poison");
                self.open.insert(
                    recorded.sequence,
                    Mark {
                        command,
                        place,
                        due,
                        poison,
                    },
                );
                Verdict::Applied
            }
            Body::TaskRefused(refused) => {
                if let Some(plan) = plan {
                    plan.remove(&refused.refused_seq);
                }
                let Some(mark) = self.open.remove(&refused.refused_seq) else {
                    return Verdict::Void("answered");
                };
                *self.answered.entry(mark.command).or_default() += 1;
                Verdict::Applied
            }
            _ => Verdict::Ignored,
        }
    }
    fn plan(&self) -> BTreeSet<u64> {
        BTreeSet::new()
    }
    fn decide(&self, plan: &mut BTreeSet<u64>, limit: usize, out: &mut Vec<Decision>) {
        for (&sequence, mark) in &self.open {
            if out.len() == limit {
                return;
            }
            if mark.due > self.head.now || !plan.insert(sequence) {
                continue;
            }
            assert!(!mark.poison, "poison");
            let subject = Subject::Task(mark.place, TaskVerb::Refused, None);
            let body = task::Refused {
                command_id: None,
                refused_subject: String::new(),
                refused_seq: sequence,
                count: 1,
                problem: Problem::new("no", "no"),
            };
            out.push(Decision::new(subject, mark.place.swarm.0, body).caused_by(mark.command));
        }
    }
    fn next_deadline(&self, plan: &BTreeSet<u64>) -> Option<Timestamp> {
        self.open
            .iter()
            .filter(|(s, _)| !plan.contains(s))
            .map(|(_, mark)| mark.due)
            .min()
    }
    fn reject(&mut self, sequence: u64, _problem: &Problem) {
        // The poisoned input is the last one met when `decide` failed, or was met before it: the oldest open poison.
        self.rejected.insert(sequence);
        self.open.retain(|_, mark| !mark.poison);
    }
}

/// The id of the replica with this name.
pub fn instance(name: &str) -> InstanceId {
    InstanceId(Uuid::new_v5(&Uuid::nil(), name.as_bytes()))
}

pub struct World {
    pub log: SimulatedLog,
    pub place: Place,
}

impl World {
    pub fn new() -> Self {
        let settings = SimulatedSettings {
            first_sequence: 1_000,
            ..SimulatedSettings::default()
        };
        let place = Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2)));
        Self {
            log: SimulatedLog::new(settings),
            place,
        }
    }

    /// Log time follows tokio's paused clock.
    pub fn clock(&self) -> JoinHandle<()> {
        let log = self.log.clone();
        let start = log.time();
        let began = tokio::time::Instant::now();
        tokio::spawn(async move {
            loop {
                log.set_time(
                    start + i64::try_from(began.elapsed().as_micros()).expect("a short test"),
                );
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
    }

    pub async fn command(&self, id: u128, reason: Option<&str>) -> Uuid {
        self.command_at(self.place, id, reason).await
    }

    pub async fn command_at(&self, place: Place, id: u128, reason: Option<&str>) -> Uuid {
        let id = Uuid::from_u128(id);
        let subject = Subject::Command(place, CommandVerb::Cancel);
        let body = command::Cancel {
            task_id: TaskId(id),
            reason: reason.map(str::to_owned),
        };
        let event = Event::new(
            EventId(id),
            Source::Client("/test".to_owned()),
            Timestamp::ZERO,
            &subject,
            id,
            body,
        );
        let payload = event.to_json().expect("JSON").into();
        let message = Message {
            subject: subject.to_string(),
            payload,
            message_id: None,
            fence: None,
        };
        self.log
            .append(vec![message])
            .await
            .remove(0)
            .expect("stored");
        id
    }

    pub fn start(&self, name: &str) -> Replica {
        let settings = LoopSettings {
            partitions: vec![self.place.partition],
            ..LoopSettings::all(instance(name))
        };
        self.launch(name, settings)
    }

    pub fn launch(&self, name: &str, settings: LoopSettings) -> Replica {
        let stop = CancellationToken::new();
        let status = settings.status.clone();
        let task = tokio::spawn(run::<Echo, _, _>(
            self.log.handle(name),
            NoShell,
            settings,
            stop.clone(),
        ));
        Replica { task, stop, status }
    }

    /// What the log says, folded from its beginning.
    pub fn cold(&self) -> Echo {
        let mut echo = Echo::new(self.place.partition);
        for message in self.log.messages() {
            let time = Timestamp::from_micros(message.time_micros);
            let input = read(message.sequence, time, &message.subject, &message.payload);
            echo.evolve(&input, None);
        }
        echo
    }

    /// Waits until every open mark is closed, in virtual time.
    pub async fn quiet(&self, commands: usize) {
        let quiet = async {
            loop {
                let cold = self.cold();
                if cold.open.is_empty() && cold.answered.len() == commands {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(300), quiet)
            .await
            .expect("everything is answered in the end");
    }

    /// Answers in the raw log by command, void ones included.
    pub fn answers(&self) -> BTreeMap<Uuid, u32> {
        let mut answers = BTreeMap::new();
        for message in self
            .log
            .messages()
            .iter()
            .filter(|m| m.subject.contains(".task.refused"))
        {
            let input = read(
                message.sequence,
                Timestamp::ZERO,
                &message.subject,
                &message.payload,
            );
            let Input::Event(recorded) = input else {
                panic!("unreadable decision")
            };
            *answers
                .entry(recorded.event.causation.expect("a cause"))
                .or_default() += 1;
        }
        answers
    }
}

pub struct Replica {
    pub task: JoinHandle<Result<(), LoopError>>,
    pub stop: CancellationToken,
    pub status: std::sync::Arc<swarm_runtime::LoopStatus>,
}
