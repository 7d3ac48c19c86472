//! The real core in virtual time: it decides, a model of the log stores, model agents work.
//!
//! A decision takes [`STORE_MICROS`] to the log and [`DELIVER_MICROS`] from there to its owner and to the agent, so that
//! the owner decides on what it knows then: its overlay and the races between starts and withdrawals are those of the
//! real thing. The log's order is the referee.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, bail, ensure};
use swarm_distributor_core::Distributor;
use swarm_events::{
    Body, Input, Json, Service, Subject, TaskId, Timestamp,
    configuration::{AGENTS_MAX, Algorithm, Configuration, QUEUE_LIMIT_MAX},
    control::Woken,
    decider::{Decider, Decision, Verdict},
    ids::GraphId,
    subject::{ControlVerb, TaskVerb},
    task::{
        AffinityOutcome, Carried, Completed, Dependency, DependencyType, GraphPart, Part, Split,
        Started, Step, WithdrawReason, part_id,
    },
    topology::Topology,
};
use uuid::Uuid;

use super::{
    agents::{Done, Kind, ModelAgent, Write},
    seats::seat,
    talk::{Hop, Next, Talk},
    workload::Workload,
};
use crate::feed::{self, BEGINNING, Feed};

/// From a writer to the log, in microseconds: half of what a fenced write took where the pipeline was measured.
pub const STORE_MICROS: i64 = 500;
/// From the log to its readers.
pub const DELIVER_MICROS: i64 = 500;
/// As the deciding loop has it.
const DECISIONS_PER_TURN: usize = 256;
/// A timer whose time has not come by the log is looked at again after this long, as the deciding loop does it.
const WAKE_AGAIN_MICROS: i64 = 10_000;
/// Longer than any workload takes: ten days.
const END_MICROS: i64 = 10 * 24 * 3_600 * 1_000_000;

/// What became of a task, in microseconds of log time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Track {
    pub submitted: i64,
    pub started: i64,
    pub ended: i64,
    /// Valid starts.
    pub starts: u32,
    /// Valid ends.
    pub ends: u32,
}

/// What became of a workload.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// By the number of the task.
    pub tasks: Vec<Track>,
    /// By the number of the agent.
    pub agents: Vec<Done>,
    pub hits: u64,
    pub misses: u64,
    pub news: u64,
    /// Tasks that were taken away for an idle agent.
    pub steals: u64,
    /// Such withdrawals that lost against a start.
    pub void_steals: u64,
    /// Appends of agents that lost against a withdrawal.
    pub refused_appends: u64,
    /// Messages in the log.
    pub messages: u64,
    /// Times that an agent handled or passed on a message of another one.
    pub handled: u64,
}

enum Happening {
    Submit,
    Store(Box<Decision>, u64),
    Wake,
    StoreWoken,
    Meet(Box<Input>),
    Assigned(usize, u64, usize),
    Withdrawn(usize, u64, u64),
    Append(usize, Vec<Write>, u64),
    Taken(usize, Vec<Write>),
    Refused(usize, Vec<Write>),
    Ran(usize, u64),
    Hop(Hop),
}

struct Engine<'a> {
    workload: &'a Workload,
    feed: Feed,
    state: Distributor,
    plan: <Distributor as Decider>::Plan,
    agents: Vec<ModelAgent>,
    /// Sequence of the last withdrawal of each agent in the log.
    withdrawn: Vec<u64>,
    /// What is to happen, by time; at the same time in the order in which it came up.
    ahead: BTreeMap<(i64, u64), Happening>,
    came_up: u64,
    now: i64,
    /// The next look at the timers.
    wake: Option<(i64, u64)>,
    /// A `woken` is on its way.
    waking: bool,
    /// When the last one was met.
    woken: i64,
    submitted: usize,
    ended: usize,
    /// Ids of tasks by number, and back, and the numbers of their keys.
    ids: Vec<Uuid>,
    numbers: BTreeMap<Uuid, usize>,
    keys: Vec<Option<u32>>,
    /// What a task takes at its first and at its second step.
    runs: Vec<[u64; 2]>,
    /// Assignments whose step is the second one.
    reduces: BTreeSet<u64>,
    talk: Talk,
    /// Tasks name each other: all are one graph.
    graph: bool,
    outcome: Outcome,
}

/// Where a workload is run.
pub struct Setting {
    pub algorithm: Algorithm,
    pub stealing: bool,
    /// With it, all agents have seats; without, they work as in a swarm without any.
    pub topology: Option<Topology>,
}

/// Runs a workload through the core.
///
/// # Errors
/// A task does not end, or something is void that must not be.
pub fn run(workload: &Workload, algorithm: Algorithm, stealing: bool) -> anyhow::Result<Outcome> {
    let setting = Setting {
        algorithm,
        stealing,
        topology: None,
    };
    run_in(workload, &setting)
}

/// The same in a topology.
///
/// # Errors
/// A task does not end, or something is void that must not be.
pub fn run_in(workload: &Workload, setting: &Setting) -> anyhow::Result<Outcome> {
    let mut engine = Engine::new(workload, setting)?;
    engine.later(0, Happening::Submit);
    while engine.ended < engine.outcome.tasks.len() {
        let Some(((at, _), happening)) = engine.ahead.pop_first() else {
            bail!("nothing is left to happen: {}", engine.standing());
        };
        ensure!(at < END_MICROS, "no end in sight: {}", engine.standing());
        engine.now = at;
        engine.happen(happening)?;
    }
    engine.outcome.agents = engine.agents.iter().map(|agent| agent.done).collect();
    engine.outcome.messages = engine.feed.sequence();
    Ok(engine.outcome)
}

impl<'a> Engine<'a> {
    fn new(workload: &'a Workload, setting: &Setting) -> anyhow::Result<Self> {
        let mut feed = Feed::new();
        let mut state = Distributor::new(feed.place.partition);
        let configuration = Configuration {
            distribution_algorithm: setting.algorithm,
            stealing: setting.stealing,
            queue_limit: QUEUE_LIMIT_MAX,
            max_agents: AGENTS_MAX,
            max_workers: AGENTS_MAX,
            ..Configuration::default()
        };
        let mut inputs = feed.claims(BEGINNING);
        let topology = setting.topology.clone();
        inputs.push(feed.created_as(BEGINNING, configuration, topology.unwrap_or_default()));
        let mut agents = Vec::new();
        for (number, crew) in (0..).zip(workload.agents()) {
            let words = crew.capabilities.clone();
            inputs.push(feed.joined(BEGINNING, number, words, crew.slots, crew.waiting));
            agents.push(ModelAgent::new(crew, workload.header.cache));
        }
        let mut shape = None;
        if let Some(topology) = &setting.topology {
            let (seated, seats) = seat(&mut feed, topology, agents.len())?;
            inputs.extend(seats);
            shape = Some(seated);
        }
        for input in &inputs {
            let verdict = state.evolve(input, None);
            ensure!(
                !matches!(verdict, Verdict::Void(_)),
                "the pool cannot be made: {verdict:?}"
            );
        }
        let mut known = BTreeMap::new();
        let keys = workload.tasks.iter().map(|task| {
            let key = task.key.as_deref()?;
            let next = known.len() as u32;
            Some(*known.entry(key).or_insert(next))
        });
        Ok(Self {
            keys: keys.collect(),
            runs: workload
                .tasks
                .iter()
                .map(|task| {
                    [
                        task.run,
                        task.split.as_ref().map_or(0, |split| split.reduce),
                    ]
                })
                .collect(),
            reduces: BTreeSet::new(),
            graph: workload.tasks.iter().any(|task| task.after.is_some()),
            talk: Talk::new(shape.as_ref(), agents.len(), workload.header.seed),
            plan: state.plan(),
            state,
            feed,
            withdrawn: vec![0; agents.len()],
            agents,
            workload,
            ahead: BTreeMap::new(),
            came_up: 0,
            now: 0,
            wake: None,
            waking: false,
            woken: -WAKE_AGAIN_MICROS,
            submitted: 0,
            ended: 0,
            ids: vec![Uuid::nil(); workload.tasks.len()],
            numbers: BTreeMap::new(),
            outcome: Outcome {
                tasks: vec![Track::default(); workload.tasks.len()],
                ..Outcome::default()
            },
        })
    }

    fn standing(&self) -> String {
        let all = self.outcome.tasks.len();
        format!("{} of {all} tasks have ended", self.ended)
    }

    fn time(&self) -> Timestamp {
        Timestamp::from_micros(BEGINNING.as_micros() + self.now)
    }

    fn later(&mut self, micros: i64, happening: Happening) -> (i64, u64) {
        self.came_up += 1;
        let key = (self.now + micros, self.came_up);
        self.ahead.insert(key, happening);
        key
    }

    fn happen(&mut self, happening: Happening) -> anyhow::Result<()> {
        match happening {
            Happening::Submit => self.submit()?,
            Happening::Store(decision, cause) => self.store(*decision, cause)?,
            Happening::Meet(input) => return self.meet(&input),
            Happening::Wake => {
                self.wake = None;
                self.waking = true;
                self.later(STORE_MICROS, Happening::StoreWoken);
            }
            Happening::StoreWoken => {
                let partition = self.feed.place.partition;
                let subject = Subject::Control(Service::Distributor, partition, ControlVerb::Woken);
                let woken = self
                    .feed
                    .fact(self.time(), subject, Uuid::nil(), Woken {}.into());
                self.later(DELIVER_MICROS, Happening::Meet(Box::new(woken)));
            }
            Happening::Assigned(agent, assignment, task) => {
                self.agent(agent)?.assigned(assignment, task);
                self.act(agent)?;
            }
            Happening::Withdrawn(agent, sequence, assignment) => {
                self.agent(agent)?.withdrawn(sequence, assignment);
                self.act(agent)?;
            }
            Happening::Append(agent, writes, fence) => self.append(agent, writes, fence),
            Happening::Taken(agent, writes) => {
                for write in self.agent(agent)?.taken(&writes) {
                    let step = usize::from(self.reduces.contains(&write.assignment));
                    let (run, key) = (self.runs[write.task][step], self.keys[write.task]);
                    let takes = i64::try_from(self.agent(agent)?.takes(run, key))?;
                    self.later(takes, Happening::Ran(agent, write.assignment));
                }
                self.act(agent)?;
            }
            Happening::Refused(agent, writes) => {
                self.outcome.refused_appends += 1;
                self.agent(agent)?.refused(&writes);
                self.act(agent)?;
            }
            Happening::Ran(agent, assignment) => {
                let task = self.agent(agent)?.task(assignment);
                let talks = task.and_then(|task| self.workload.tasks.get(task));
                let talks = talks.map_or(0, |task| task.talks);
                for hop in self.talk.begin(agent, assignment, talks)? {
                    self.later(STORE_MICROS + DELIVER_MICROS, Happening::Hop(hop));
                }
                if talks == 0 {
                    self.agent(agent)?.ran(assignment);
                    self.act(agent)?;
                }
            }
            Happening::Hop(hop) => match self.talk.at(hop, self.now) {
                Next::Hop(micros, hop) => {
                    self.later(micros, Happening::Hop(hop));
                }
                Next::Passed(micros, hop) => {
                    self.outcome.handled += 1;
                    self.later(micros, Happening::Hop(hop));
                }
                Next::Handled => self.outcome.handled += 1,
                Next::All(agent, assignment) => {
                    self.outcome.handled += 1;
                    self.agent(agent)?.ran(assignment);
                    self.act(agent)?;
                }
            },
        }
        Ok(())
    }

    fn agent(&mut self, number: usize) -> anyhow::Result<&mut ModelAgent> {
        self.agents.get_mut(number).context("no such agent")
    }

    /// Stores all tasks whose time has come.
    fn submit(&mut self) -> anyhow::Result<()> {
        while let Some(entry) = self.workload.tasks.get(self.submitted) {
            let at = i64::try_from(entry.at)?;
            if at > self.now {
                self.later(at - self.now, Happening::Submit);
                break;
            }
            let mut task = feed::task(Json::object(), entry.priority);
            task.affinity_key.clone_from(&entry.key);
            task.required_capabilities.clone_from(&entry.needs);
            task.required_role = entry.role;
            let time = self.time();
            let id = self.feed.id(time);
            if let Some(before) = entry.after.and_then(|before| self.ids.get(before)) {
                task.depends_on.push(Dependency {
                    task_id: TaskId(*before),
                    dependency_type: DependencyType::Success,
                    alias: None,
                });
            }
            if self.graph {
                task.graph = Some(GraphPart {
                    id: GraphId(Uuid::from_u128(5)),
                    index: u32::try_from(self.submitted)?,
                    of: u32::try_from(self.workload.tasks.len())?,
                });
            }
            self.numbers.insert(id, self.submitted);
            self.ids[self.submitted] = id;
            self.outcome.tasks[self.submitted].submitted = self.now;
            let subject = Subject::Task(self.feed.place, TaskVerb::Submitted, None);
            let input = self.feed.fact(time, subject, id, task.into());
            self.later(DELIVER_MICROS, Happening::Meet(Box::new(input)));
            self.submitted += 1;
        }
        Ok(())
    }

    /// A decision reaches the log.
    fn store(&mut self, decision: Decision, cause: u64) -> anyhow::Result<()> {
        let time = self.time();
        let sequence = self.feed.sequence() + 1;
        let agent = decision.subject.agent().and_then(feed::agent_number);
        let heard = match (&decision.body, agent) {
            (Body::TaskAssigned(assigned), Some(agent)) => {
                if assigned.step == Step::Reduce {
                    self.reduces.insert(sequence);
                }
                let task = *self
                    .numbers
                    .get(&decision.about)
                    .context("an unknown task")?;
                Some(Happening::Assigned(agent as usize, sequence, task))
            }
            (Body::TaskWithdrawn(withdrawn), Some(agent)) => {
                ensure!(!withdrawn.force, "nothing here is taken by force");
                if let Some(last) = self.withdrawn.get_mut(agent as usize) {
                    *last = sequence;
                }
                let (agent, assignment) = (agent as usize, withdrawn.assignment);
                Some(Happening::Withdrawn(agent, sequence, assignment))
            }
            _ => None,
        };
        let input = self.feed.decided(
            Service::Distributor,
            time,
            cause,
            decision.subject,
            decision.about,
            decision.body,
        );
        self.later(DELIVER_MICROS, Happening::Meet(Box::new(input)));
        if let Some(heard) = heard {
            self.later(DELIVER_MICROS, heard);
        }
        Ok(())
    }

    /// An agent does what it can.
    fn act(&mut self, agent: usize) -> anyhow::Result<()> {
        if let Some((writes, fence)) = self.agent(agent)?.append() {
            self.later(STORE_MICROS, Happening::Append(agent, writes, fence));
        }
        Ok(())
    }

    /// What an agent appends reaches the log, which takes all of it or nothing.
    fn append(&mut self, agent: usize, writes: Vec<Write>, fence: u64) {
        if self.withdrawn[agent] != fence {
            self.later(DELIVER_MICROS, Happening::Refused(agent, writes));
            return;
        }
        let time = self.time();
        let from = u32::try_from(agent).map(feed::agent_id).ok();
        for write in &writes {
            let incarnation = 1;
            let assignment = write.assignment;
            let (verb, body): (TaskVerb, Body) = match write.kind {
                Kind::Started => (
                    TaskVerb::Started,
                    Started {
                        assignment,
                        incarnation,
                    }
                    .into(),
                ),
                Kind::Completed if self.splits(write) => {
                    (TaskVerb::Split, self.split(write).into())
                }
                Kind::Completed => (
                    TaskVerb::Completed,
                    Completed {
                        assignment,
                        incarnation,
                        result: Carried::Inline(Json::object()),
                    }
                    .into(),
                ),
            };
            let subject = Subject::Task(self.feed.place, verb, from);
            let input = self.feed.fact(time, subject, self.ids[write.task], body);
            self.later(DELIVER_MICROS, Happening::Meet(Box::new(input)));
        }
        self.later(DELIVER_MICROS, Happening::Taken(agent, writes));
    }

    fn splits(&self, write: &Write) -> bool {
        let task = self.workload.tasks.get(write.task);
        task.is_some_and(|task| task.split.is_some()) && !self.reduces.contains(&write.assignment)
    }
    /// The parts of a task are there from now on.
    fn split(&mut self, write: &Write) -> Split {
        let runs = self.workload.tasks[write.task].split.iter();
        let runs: Vec<u64> = runs.flat_map(|split| split.parts.clone()).collect();
        let task = TaskId(self.ids[write.task]);
        let mut parts = Vec::new();
        for (index, run) in (0..).zip(runs) {
            let id = part_id(task, write.assignment, index);
            self.numbers.insert(id.0, self.ids.len());
            self.ids.push(id.0);
            self.keys.push(None);
            self.runs.push([run, 0]);
            self.outcome.tasks.push(Track {
                submitted: self.now,
                ..Track::default()
            });
            parts.push(Part {
                key: index.to_string(),
                task_type: "part".to_owned(),
                payload: Json::object(),
                priority: None,
                required_capabilities: Vec::new(),
                required_role: None,
                max_attempts: None,
                timeout_ms: None,
            });
        }
        Split {
            assignment: write.assignment,
            incarnation: 1,
            parts,
        }
    }

    /// The owner meets an input and decides, as the deciding loop does it.
    fn meet(&mut self, input: &Input) -> anyhow::Result<()> {
        let verdict = self.state.evolve(input, Some(&mut self.plan));
        self.count(input, verdict)?;
        let cause = input.sequence();
        loop {
            let mut decisions = Vec::new();
            self.state
                .decide(&mut self.plan, DECISIONS_PER_TURN, &mut decisions);
            if decisions.is_empty() {
                break;
            }
            for decision in decisions {
                self.later(STORE_MICROS, Happening::Store(Box::new(decision), cause));
            }
        }
        self.set_timer();
        Ok(())
    }

    /// The next look at the timers: when the first falls due by the log's time.
    fn set_timer(&mut self) {
        if self.waking {
            return;
        }
        let deadline = self.state.next_deadline(&self.plan);
        let earliest = self.now.max(self.woken + WAKE_AGAIN_MICROS);
        let due = deadline.map(|at| (at.as_micros() - BEGINNING.as_micros()).max(earliest));
        if self.wake.map(|(at, _)| at) == due {
            return;
        }
        if let Some(before) = self.wake.take() {
            self.ahead.remove(&before);
        }
        self.wake = due.map(|at| self.later(at - self.now, Happening::Wake));
    }

    /// Notes what an input was, by the fold's verdict.
    fn count(&mut self, input: &Input, verdict: Verdict) -> anyhow::Result<()> {
        let Input::Event(recorded) = input else {
            bail!("the log holds only events");
        };
        let at = recorded.time.as_micros() - BEGINNING.as_micros();
        let body = &recorded.event.body;
        let steal = matches!(body, Body::TaskWithdrawn(e) if e.reason == WithdrawReason::Steal);
        if let Verdict::Void(why) = verdict {
            ensure!(steal, "{} is void: {why}", recorded.subject);
            self.outcome.void_steals += 1;
            return Ok(());
        }
        let track = self.numbers.get(&recorded.event.about);
        let track = track.and_then(|task| self.outcome.tasks.get_mut(*task));
        match (body, track) {
            (Body::TaskAssigned(assigned), _) => match assigned.affinity {
                Some(AffinityOutcome::Hit) => self.outcome.hits += 1,
                Some(AffinityOutcome::Miss) => self.outcome.misses += 1,
                Some(AffinityOutcome::New) => self.outcome.news += 1,
                None => {}
            },
            (Body::TaskStarted(_), Some(track)) => {
                track.starts += 1;
                track.started = at;
            }
            (Body::TaskCompleted(_), Some(track)) => {
                track.ends += 1;
                track.ended = at;
                self.ended += 1;
            }
            (Body::TaskWithdrawn(withdrawn), _) => {
                ensure!(steal, "withdrawn: {:?}", withdrawn.reason);
                self.outcome.steals += 1;
            }
            (Body::TaskFailed(_) | Body::TaskCancelled(_) | Body::TaskRejected(_), _) => {
                bail!("a task did not complete: {body:?}");
            }
            (Body::Woken(_), _) => {
                self.waking = false;
                self.woken = self.now;
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
