//! Given a log, when it is read, then so much became of each task.

use swarm_events::{
    Event, EventId, Json, OrgId, Place, SwarmId, Timestamp,
    agent::{Joined, Profile},
    configuration::Algorithm,
    control::Claimed,
    envelope::Decided,
    subject::{AgentVerb, ControlVerb, TaskVerb},
    task::{Assigned, Carried, Completed, Failed, Started, Submitted},
};
use uuid::Uuid;

use super::*;

const AGENT: AgentId = AgentId(Uuid::from_u128(1));
const TASK: TaskId = TaskId(Uuid::from_u128(2));
const ME: InstanceId = InstanceId(Uuid::from_u128(3));

/// A log that is written message by message: each has the next sequence, and its time in milliseconds.
struct Log {
    fold: Fold,
    sequence: u64,
    epoch: u64,
    ordinal: u64,
}

impl Log {
    /// A distributor that has claimed, and an agent with one place.
    fn new() -> Self {
        let mut log = Self {
            fold: Fold::default(),
            sequence: 0,
            epoch: 0,
            ordinal: 0,
        };
        log.claim();
        let profile = Profile {
            agent_type: "t".into(),
            agent_name: "a".into(),
            capabilities: Vec::new(),
            slots: 1,
            waiting: 0,
            metadata: Json::object(),
        };
        let joined = Joined {
            incarnation: 1,
            instance: ME,
            profile,
        };
        let subject = Subject::Agent(place(), AgentVerb::Joined, AGENT);
        log.write(0, subject, AGENT.0, joined.into(), false);
        log
    }
    fn claim(&mut self) {
        let claimed = Claimed {
            instance: ME,
            decider_version: 1,
            previous: self.epoch,
            reason: "start".into(),
            rejects: Vec::new(),
        };
        let subject = Subject::Control(
            Service::Distributor,
            place().partition,
            ControlVerb::Claimed,
        );
        self.write(0, subject, Uuid::nil(), claimed.into(), false);
        (self.epoch, self.ordinal) = (self.sequence, 0);
    }
    fn submit(&mut self, millis: i64) {
        let submitted: Submitted =
            serde_json::from_str("{\"task_type\": \"t\"}").expect("a submission");
        let subject = Subject::Task(place(), TaskVerb::Submitted, None);
        self.write(millis, subject, TASK.0, submitted.into(), false);
    }
    fn assign(&mut self, millis: i64) -> u64 {
        let assigned = Assigned {
            path: Vec::new(),
            step: swarm_events::task::Step::Work,
            turn: None,
            task_type: "t".into(),
            payload: Carried::Inline(Json::null()),
            inputs: None,
            attempt: 1,
            generation: 1,
            incarnation: 1,
            priority: 5,
            timeout_ms: 1_000,
            algorithm: Algorithm::default(),
            candidates: Vec::new(),
            passed_over: BTreeMap::new(),
            affinity: None,
            stolen_from: None,
            queued_at: None,
        };
        let subject = Subject::Task(place(), TaskVerb::Assigned, Some(AGENT));
        self.write(millis, subject, TASK.0, assigned.into(), true);
        self.sequence
    }
    fn complete(&mut self, assignment: u64) {
        let started = Started {
            assignment,
            incarnation: 1,
        };
        let subject = Subject::Task(place(), TaskVerb::Started, Some(AGENT));
        self.write(0, subject, TASK.0, started.into(), false);
        let completed = Completed {
            assignment,
            incarnation: 1,
            result: Carried::Inline(Json::null()),
        };
        let subject = Subject::Task(place(), TaskVerb::Completed, Some(AGENT));
        self.write(0, subject, TASK.0, completed.into(), false);
    }
    fn fail(&mut self) {
        let failed = Failed {
            attempts: 1,
            generation: 1,
            error: "no".into(),
            dead_lettered: true,
            because_of: None,
            path: Vec::new(),
        };
        let subject = Subject::Task(place(), TaskVerb::Failed, None);
        self.write(0, subject, TASK.0, failed.into(), true);
    }
    fn write(&mut self, millis: i64, subject: Subject, about: Uuid, body: Body, decides: bool) {
        self.sequence += 1;
        let time = Timestamp::from_micros(millis * 1_000);
        let source = Source::Service(Service::Distributor, ME);
        let id = EventId(Uuid::from_u128(u128::from(self.sequence)));
        let mut event = Event::new(id, source, time, &subject, about, body);
        if decides {
            self.ordinal += 1;
            event.decided = Some(Decided {
                cause_sequence: self.sequence - 1,
                epoch: self.epoch,
                ordinal: self.ordinal,
                decider_version: 1,
            });
        }
        self.fold.meet(&Input::Event(Recorded {
            sequence: self.sequence,
            time,
            subject,
            content: 0,
            event,
        }));
    }
}

fn place() -> Place {
    Place::new(OrgId(Uuid::from_u128(8)), SwarmId(Uuid::from_u128(9)))
}

#[test]
fn a_result_ends_its_task_once() {
    let mut log = Log::new();
    log.submit(0);
    let assignment = log.assign(0);
    log.complete(assignment + 100);
    assert_eq!(log.fold.end_of(TASK), None, "of no standing assignment");
    log.complete(assignment);
    assert_eq!(log.fold.end_of(TASK), Some(End::Completed));
    log.complete(assignment);
    assert!(log.fold.doubled().is_empty(), "a late result is void");
    assert_eq!(log.fold.ended_since(0), 1);
}

#[test]
fn a_decision_about_an_ended_task_is_a_doubled_one_unless_it_is_void() {
    let mut log = Log::new();
    log.submit(0);
    let assignment = log.assign(0);
    log.complete(assignment);
    let old = log.epoch;
    log.claim();
    let new = std::mem::replace(&mut log.epoch, old);
    log.fail();
    assert!(log.fold.doubled().is_empty(), "of an older epoch");
    log.epoch = new;
    log.ordinal = 0;
    log.fail();
    assert_eq!(log.fold.doubled().len(), 1);
    assert_eq!(log.fold.end_of(TASK), Some(End::Completed));
}

#[test]
fn the_time_without_decisions_counts_while_work_waits_and_an_agent_has_room() {
    let mut log = Log::new();
    log.submit(1_000);
    let assignment = log.assign(1_700);
    assert_eq!(log.fold.gap_micros(), 700_000);
    log.complete(assignment);
    // Nobody had anything to decide for a long time.
    assert_eq!(log.fold.gap_micros(), 700_000);
}
