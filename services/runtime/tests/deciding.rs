//! The deciding loop over the simulated log: every command is answered exactly once, whatever goes wrong with appends,
//! tails and owners. The decider is the smallest one that has open marks, a timer and a weakness.

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
    simulated::{Fault, FaultRates, Faults, SimulatedLog, SimulatedSettings},
};
use swarm_runtime::{
    LoopError, LoopSettings, NoShell,
    deciding::{run, state_hash},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Answers each cancel command with a refusal; `slow` ones only after ten seconds of log time; `poison` makes it panic.
#[derive(Serialize, Deserialize)]
struct Echo {
    head: Head,
    open: BTreeMap<u64, Mark>,
    answered: BTreeMap<Uuid, u32>,
    rejected: BTreeSet<u64>,
}
#[derive(Clone, Serialize, Deserialize)]
struct Mark {
    command: Uuid,
    place: Place,
    due: Timestamp,
    poison: bool,
}

const SLOW_MS: u64 = 10_000;

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

struct World {
    log: SimulatedLog,
    place: Place,
}

impl World {
    fn new() -> Self {
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
    fn clock(&self) -> JoinHandle<()> {
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

    async fn command(&self, id: u128, reason: Option<&str>) -> Uuid {
        let id = Uuid::from_u128(id);
        let subject = Subject::Command(self.place, CommandVerb::Cancel);
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

    fn start(&self, name: &str) -> Replica {
        let instance = InstanceId(Uuid::new_v5(&Uuid::nil(), name.as_bytes()));
        let stop = CancellationToken::new();
        let settings = LoopSettings {
            partitions: vec![self.place.partition],
            ..LoopSettings::all(instance)
        };
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
    fn cold(&self) -> Echo {
        let mut echo = Echo::new(self.place.partition);
        for message in self.log.messages() {
            let time = Timestamp::from_micros(message.time_micros);
            let input = read(message.sequence, time, &message.subject, &message.payload);
            echo.evolve(&input, None);
        }
        echo
    }

    /// Waits until every open mark is closed, in virtual time.
    async fn quiet(&self, commands: usize) {
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
    fn answers(&self) -> BTreeMap<Uuid, u32> {
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

struct Replica {
    task: JoinHandle<Result<(), LoopError>>,
    stop: CancellationToken,
    status: std::sync::Arc<swarm_runtime::LoopStatus>,
}

#[tokio::test(start_paused = true)]
async fn commands_are_answered_once_and_slow_ones_when_they_are_due() {
    let world = World::new();
    let clock = world.clock();
    let before = world.command(1, None).await;
    let replica = world.start("a");
    let after = world.command(2, Some("slow")).await;
    let sent = world.log.time();
    world.quiet(2).await;
    assert_eq!(world.answers(), [(before, 1), (after, 1)].into());
    let took_ms = (world.log.time() - sent) / 1_000;
    assert!(
        (10_000..10_500).contains(&took_ms),
        "woken after {took_ms} ms"
    );
    assert!(replica.status.ready());
    replica.stop.cancel();
    replica
        .task
        .await
        .expect("joined")
        .expect("stopped in order");
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_lost_acknowledgement_is_settled_by_a_new_claim() {
    for fault in [Fault::LostAck, Fault::LostMessage, Fault::Full] {
        let world = World::new();
        let clock = world.clock();
        let replica = world.start("a");
        // The claim goes well, the first decision does not.
        world
            .log
            .set_faults("a", Faults::scripted([None, Some(fault)]));
        let id = world.command(1, None).await;
        world.quiet(1).await;
        assert_eq!(world.answers(), [(id, 1)].into(), "{fault:?}");
        assert_eq!(replica.status.doubts(), 1, "{fault:?}");
        clock.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_ghost_of_an_older_epoch_is_never_stored() {
    let world = World::new();
    let clock = world.clock();
    let _replica = world.start("a");
    world
        .log
        .set_faults("a", Faults::scripted([None, Some(Fault::Ghost)]));
    let id = world.command(1, None).await;
    world.quiet(1).await;
    assert_eq!(world.log.ghosts(), 1);
    assert_eq!(
        world.log.release_ghosts(),
        0,
        "the fence refuses what comes late"
    );
    assert_eq!(world.answers(), [(id, 1)].into());
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_newer_owner_ends_the_older_ones_writes() {
    let world = World::new();
    let clock = world.clock();
    let old = world.start("old");
    world.command(1, None).await;
    world.quiet(1).await;
    // The old owner is cut off (a pause), a new one claims, the old one comes back and finds itself superseded.
    world
        .log
        .limit_tails("old", Some(world.log.last_sequence()));
    let new = world.start("new");
    world.command(2, None).await;
    world.quiet(2).await;
    world.log.limit_tails("old", None);
    world.command(3, None).await;
    world.quiet(3).await;
    assert!(
        world.answers().values().all(|n| *n == 1),
        "{:?}",
        world.answers()
    );
    assert_eq!((old.status.owned(), new.status.owned()), (0, 1));
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn a_poisoned_input_is_set_aside_and_the_rest_goes_on() {
    let world = World::new();
    let clock = world.clock();
    let replica = world.start("a");
    world.command(1, Some("poison")).await;
    let good = world.command(2, None).await;
    world.quiet(1).await;
    assert_eq!(world.answers(), [(good, 1)].into());
    assert_eq!(world.cold().rejected.len(), 1);
    assert!(!replica.task.is_finished(), "a panic never stops a replica");
    clock.abort();
}

#[tokio::test(start_paused = true)]
async fn whatever_goes_wrong_every_command_is_answered_exactly_once() {
    const COMMANDS: u128 = 40;
    for seed in 0..60u64 {
        let world = World::new();
        let clock = world.clock();
        let rates = FaultRates {
            lost_ack: 60,
            lost_message: 60,
            ghost: 40,
            full: 20,
            ..FaultRates::default()
        };
        let mut replicas = Vec::new();
        for number in 0..3u64 {
            let name = format!("{seed}-{number}");
            world
                .log
                .set_faults(&name, Faults::seeded(seed * 31 + number, rates));
            replicas.push((name.clone(), world.start(&name)));
            for k in 0..COMMANDS / 4 {
                let id = u128::from(number) * COMMANDS + k + 1;
                world.command(id, (k % 5 == 0).then_some("slow")).await;
                tokio::time::sleep(Duration::from_millis(
                    (seed * 7 + number * 13 + k as u64 * 5) % 40,
                ))
                .await;
                match (seed + k as u64) % 7 {
                    0 => world.log.interrupt_tails(&name),
                    1 => {
                        world.log.disconnect(&name);
                        tokio::time::sleep(Duration::from_millis(seed % 700)).await;
                        world.log.reconnect(&name);
                    }
                    2 => drop(world.log.release_ghosts()),
                    _ => {}
                }
            }
            // A crash, or a replica that stays and is superseded by the next one.
            if seed % 2 == 0 && number < 2 {
                replicas.last().expect("just pushed").1.task.abort();
            }
        }
        for (name, _) in &replicas {
            world.log.set_faults(name, Faults::none());
        }
        let commands = usize::try_from(3 * (COMMANDS / 4)).expect("few");
        world.quiet(commands).await;
        world.log.release_ghosts();
        let cold = world.cold();
        assert!(cold.answered.values().all(|n| *n == 1), "seed {seed}");
        assert!(
            cold.open.is_empty(),
            "seed {seed}: a ghost opened a mark again"
        );
        // Snapshot and tail lead to the same state as the cold fold.
        let bytes = postcard::to_stdvec(&cold).expect("encoded");
        let again: Echo = postcard::from_bytes(&bytes).expect("decoded");
        assert_eq!(
            state_hash(&again).expect("hashed"),
            state_hash(&cold).expect("hashed"),
            "seed {seed}"
        );
        for (_, replica) in &replicas {
            replica.task.abort();
        }
        clock.abort();
    }
}
