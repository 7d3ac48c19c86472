//! The loop: what the log wants is compared with what runs, agent by agent.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::StreamExt;
use rustix::process::{getpid, set_child_subreaper};
use sha2::{Digest, Sha256};
use swarm_agent_adapters::watchdog::Watchdog;
use swarm_agent_host_core::{Fate, Key, Todo, Wishes};
use swarm_events::{
    EventId, Input, InstanceId, Timestamp,
    agent::{Exit, Exited, HostName, SpawnDeclined, SpawnRequested},
    read,
    subject::{AgentVerb, Subject, filter},
};
use swarm_log::{LogError, StoredMessage, Tailed, jetstream::JetStreamLog};
use tokio::{
    sync::{mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken;

use crate::{
    HostError, HostSettings, HostStatus, Tails,
    beat::{beat, look},
    census::Census,
    cgroup::Cgroups,
    claims::{Claimed, Open, claim},
    folder::HostFolder,
    output::{Passing, answer},
    process::{Context, Order, run as run_process},
    reports::Reports,
};

/// How much later a host claims for each process that it has: the emptier one is first.
pub const CLAIM_WAIT_STEP: Duration = Duration::from_micros(500);
/// Longest wait for that.
pub const CLAIM_WAIT_MAX: Duration = Duration::from_millis(50);
/// Two hosts that are equally full take the requests of a burst in different orders: a wait of up to this, by host and agent.
const CLAIM_SPREAD: Duration = Duration::from_millis(4);
/// What an agent gets between SIGTERM and SIGKILL when its host goes: below what a service may take to end.
pub const LEAVE_GRACE_MAX: Duration = Duration::from_secs(7);
/// How long a host that goes tries to bring its last reports to the log.
const LEAVE_REPORTS_MAX: Duration = Duration::from_secs(2);

/// A process that runs here.
struct Running {
    spawn: u64,
    orders: watch::Sender<Order>,
}

/// A claim that is under way, or whose outcome the tail will tell.
struct Claiming {
    id: EventId,
    task: AbortHandle,
}

struct Host {
    log: JetStreamLog,
    context: Arc<Context>,
    wishes: Wishes,
    tails: Arc<Tails>,
    running: BTreeMap<Key, Running>,
    processes: JoinSet<Key>,
    claiming: BTreeMap<Key, Claiming>,
    /// Each ends with its agent, and whether it was left before anything was sent.
    claims: JoinSet<(Key, bool)>,
    /// Requests that there is no room for.
    full: BTreeSet<Key>,
    /// The newest request of an agent that was declined.
    declined: BTreeMap<Key, EventId>,
    /// Everything that the log held at the start has been met.
    caught_up: bool,
    leaving: CancellationToken,
    status: HostStatus,
}

/// Runs the host until `stop`; then its agents are told to go, and reported as gone because of their host.
///
/// # Errors
/// See [`HostError`]; agents are stopped before.
pub async fn run(
    log: JetStreamLog,
    settings: HostSettings,
    stop: CancellationToken,
) -> Result<(), HostError> {
    set_child_subreaper(Some(getpid())).map_err(|error| HostError::Reaper(error.into()))?;
    let folder = HostFolder::create(&settings.dir, settings.instance, settings.user)
        .map_err(HostError::Folder)?;
    // Before the watchdog, which is moved along with this process.
    let watchdog = Watchdog::start().map_err(HostError::Watchdog)?;
    let cgroups = cgroups(&settings, watchdog.pid());
    let host = HostName {
        instance: settings.instance,
        name: settings.name.clone(),
    };
    let (reported_to, mut reported) = mpsc::unbounded_channel();
    let (reports, sending) = Reports::start(log.clone(), host.clone(), reported_to);
    let census = Arc::new(Census::new(settings.whole_process));
    let tails = Arc::new(Tails::default());
    let status = settings.status.clone();
    let mut services = JoinSet::new();
    services.spawn(look(census.clone()));
    services.spawn(beat(
        log.connection().clone(),
        host.clone(),
        census.clone(),
        status.clone(),
    ));
    services.spawn(answer(log.client().clone(), tails.clone()));
    let context = Arc::new(Context {
        host,
        folder,
        cgroups,
        watchdog: Some(Arc::new(watchdog)),
        census,
        reports,
        passing: Passing::start(log.client().clone()),
        settings,
    });
    let mut host = Host {
        wishes: Wishes::new(context.host.instance),
        log: log.clone(),
        context,
        tails,
        running: BTreeMap::new(),
        processes: JoinSet::new(),
        claiming: BTreeMap::new(),
        claims: JoinSet::new(),
        full: BTreeSet::new(),
        declined: BTreeMap::new(),
        caught_up: false,
        leaving: CancellationToken::new(),
        status,
    };
    let mut tail = log.tail_last_first(filter::host());
    let mut failed = None;
    let mut give_up: Option<Instant> = None;
    loop {
        host.show();
        if host.leaving.is_cancelled() && host.running.is_empty() {
            // A claim that is stored is answered for when it is met.
            let settled = host.claiming.is_empty() && host.context.reports.waiting() == 0;
            let at = *give_up.get_or_insert_with(|| Instant::now() + LEAVE_REPORTS_MAX);
            if settled || Instant::now() >= at {
                break;
            }
        }
        tokio::select! {
            item = tail.next(), if failed.is_none() => match item {
                Some(Ok(item)) => host.tailed(item),
                other => {
                    let error = match other {
                        Some(Err(error)) => error,
                        _ => LogError::Refused("the tail has ended".to_owned()),
                    };
                    tracing::error!(%error, "the log cannot be followed any more");
                    failed = Some(error);
                    host.leave();
                }
            },
            Some(ended) = host.processes.join_next() => match ended {
                Ok(key) => host.ended(key),
                Err(error) => tracing::error!(%error, "following a process was interrupted"),
            },
            Some(done) = host.claims.join_next() => {
                if let Ok((key, true)) = done {
                    host.claiming.remove(&key);
                }
            }
            Some(key) = reported.recv() => host.reconcile(key),
            () = stop.cancelled(), if !host.leaving.is_cancelled() => host.leave(),
            () = sleep_until(give_up.unwrap_or_else(Instant::now)), if give_up.is_some() => {}
        }
        host.fill();
    }
    services.shutdown().await;
    host.claims.shutdown().await;
    let unreported = host.context.reports.waiting();
    drop(host);
    if unreported > 0 {
        tracing::warn!(
            unreported,
            "the host goes before the log has all its reports"
        );
        sending.abort();
    }
    match failed {
        Some(error) => Err(error.into()),
        None => Ok(()),
    }
}

fn cgroups(settings: &HostSettings, watchdog: u32) -> Option<Cgroups> {
    if !settings.cgroups {
        settings
            .status
            .show_limits("memory by rlimit; no cgroup v2: not wanted".to_owned());
        return None;
    }
    let name = settings.instance.to_string();
    // Only a process that is nothing but a host may move itself.
    let family = [std::process::id(), watchdog];
    match Cgroups::detect(&name, &family) {
        Ok(cgroups) => {
            let words = match cgroups.controllers() {
                [] => "cgroup v2 without controllers; memory by rlimit".to_owned(),
                some => format!("cgroup v2 ({})", some.join(", ")),
            };
            settings.status.show_limits(words);
            Some(cgroups)
        }
        Err(why) => {
            tracing::info!(
                why,
                "no cgroups: memory is limited by rlimit, for each process"
            );
            settings
                .status
                .show_limits(format!("memory by rlimit; no cgroup v2: {why}"));
            None
        }
    }
}

impl Host {
    fn tailed(&mut self, item: Tailed) {
        match item {
            Tailed::Message(message) => self.meet(&message),
            Tailed::CaughtUp if !self.caught_up => {
                self.caught_up = true;
                for key in self.wishes.keys() {
                    self.reconcile(key);
                }
            }
            Tailed::CaughtUp | Tailed::Interrupted | Tailed::Resumed => {}
        }
    }

    fn meet(&mut self, message: &StoredMessage) {
        let time = Timestamp::from_micros(message.time_micros);
        let read = read::read(message.sequence, time, &message.subject, &message.payload);
        // What cannot be read is refused and shown by the services.
        let Input::Event(recorded) = read else { return };
        let Subject::Agent(place, _, agent) = recorded.subject else {
            return;
        };
        let key = Key { place, agent };
        self.wishes.meet(key, recorded.sequence, &recorded.event);
        if self.wishes.elsewhere(key) {
            self.tails.forget(key);
        }
        if self.caught_up {
            self.reconcile(key);
        }
    }

    /// Brings what runs for an agent to what the log wants.
    fn reconcile(&mut self, key: Key) {
        if let Some(running) = self.running.get(&key) {
            if let Fate::Stop { grace_ms, why } = self.wishes.fate(key, running.spawn) {
                running.go(key, Duration::from_millis(grace_ms), false, why);
            }
            return;
        }
        let todo = self.wishes.todo(key);
        if !matches!(todo, Todo::Claim { .. }) {
            self.full.remove(&key);
            if let Some(claiming) = self.claiming.remove(&key) {
                claiming.task.abort();
            }
        }
        match todo {
            Todo::Nothing => {
                self.wishes.forget_if_gone(key);
                if !self.wishes.knows(key) {
                    self.declined.remove(&key);
                }
            }
            Todo::NeverMind { spawn } => {
                self.never_started(key, spawn, "it was told to go before it was started")
            }
            Todo::Start(request) if self.leaving.is_cancelled() => {
                self.never_started(key, request.spawn, "its host is going");
            }
            Todo::Start(request) => self.start(key, request),
            Todo::Claim {
                request,
                id,
                requested_at,
                last_claim,
            } => {
                let open = Open {
                    spawn: request.spawn,
                    id,
                    requested_at,
                    last_claim,
                };
                self.consider(key, &request, open);
            }
        }
    }

    fn consider(&mut self, key: Key, request: &SpawnRequested, open: Open) {
        let (spawn, id) = (open.spawn, open.id);
        if !self.caught_up || self.leaving.is_cancelled() {
            return;
        }
        if self
            .claiming
            .get(&key)
            .is_some_and(|claiming| claiming.id == id)
        {
            return;
        }
        // What was said of the last process comes first; we are told when it is stored.
        if self.context.reports.waits(key) || self.declined.get(&key) == Some(&id) {
            return;
        }
        if let Err(problem) = self.context.settings.allow.check(&request.spec) {
            tracing::warn!(agent = %key.agent, spawn, %problem, "declined");
            self.declined.insert(key, id);
            let declined = SpawnDeclined {
                spawn,
                host: self.context.host.clone(),
                problem,
            };
            self.context.reports.decline(key, declined);
            return;
        }
        if self.room() == 0 {
            self.full.insert(key);
            return;
        }
        self.full.remove(&key);
        let wait = claim_wait(self.context.host.instance, key, self.load());
        let (log, host, leaving) = (
            self.log.clone(),
            self.context.host.clone(),
            self.leaving.clone(),
        );
        let task = self.claims.spawn(async move {
            tokio::select! {
                () = sleep(wait) => {}
                () = leaving.cancelled() => return (key, true),
            }
            match claim(&log, &host, key, open).await {
                Ok(Claimed::Stored) => tracing::debug!(agent = %key.agent, spawn, "claimed"),
                Ok(Claimed::Taken) => {
                    tracing::debug!(agent = %key.agent, spawn, "claimed by somebody")
                }
                Err(error) => tracing::error!(%error, "a claim cannot be written"),
            }
            (key, false)
        });
        if let Some(old) = self.claiming.insert(key, Claiming { id, task }) {
            old.task.abort();
        }
    }

    fn start(&mut self, key: Key, request: Box<SpawnRequested>) {
        let spawn = request.spawn;
        self.wishes.started(key, spawn);
        let (orders, follow) = watch::channel(Order::Run);
        let tail = self.tails.begin(key, self.running.len());
        let context = self.context.clone();
        self.processes.spawn(async move {
            run_process(context, key, request, follow, tail).await;
            key
        });
        self.running.insert(key, Running { spawn, orders });
    }

    /// The claim stands, so somebody waits for an end.
    fn never_started(&mut self, key: Key, spawn: u64, why: &str) {
        self.wishes.started(key, spawn);
        let exited = Exited {
            spawn,
            host: self.context.host.clone(),
            exit: Exit {
                error: Some(why.to_owned()),
                ..Exit::default()
            },
            uptime_ms: 0,
            host_leaving: self.leaving.is_cancelled(),
            left_behind: 0,
            last_output: String::new(),
        };
        self.context.reports.say(key, AgentVerb::Exited, exited);
    }

    fn ended(&mut self, key: Key) {
        self.running.remove(&key);
        self.reconcile(key);
    }

    /// Considers what there was no room for, as far as there is room now: a process has ended, or another host was first
    /// with what was to be claimed.
    fn fill(&mut self) {
        while !self.full.is_empty() && self.room() > 0 {
            let Some(key) = self.full.pop_first() else {
                return;
            };
            self.reconcile(key);
        }
    }

    /// Claims nothing more and tells everything to go.
    fn leave(&mut self) {
        tracing::info!(agents = self.running.len(), "the host is going");
        self.leaving.cancel();
        for (key, running) in &self.running {
            running.go(*key, LEAVE_GRACE_MAX, true, "its host is going");
        }
    }

    /// Processes that run, and those that may soon.
    fn load(&self) -> usize {
        let only_claimed = self
            .claiming
            .keys()
            .filter(|key| !self.running.contains_key(key));
        self.running.len() + only_claimed.count()
    }

    fn room(&self) -> usize {
        (self.context.settings.agents_max as usize).saturating_sub(self.load())
    }

    fn show(&self) {
        let room = match self.leaving.is_cancelled() {
            true => 0,
            false => self.room(),
        };
        let unreported = self.context.reports.waiting();
        self.status
            .show(self.caught_up, self.running.len(), room, unreported);
    }
}

impl Running {
    /// A later order never gives more time, and one because of the host's going stays one.
    fn go(&self, key: Key, grace: Duration, leaving: bool, why: &str) {
        self.orders.send_if_modified(|order| {
            let next = match *order {
                Order::Run => Order::Go { grace, leaving },
                Order::Go {
                    grace: before,
                    leaving: left,
                } => Order::Go {
                    grace: before.min(grace),
                    leaving: left || leaving,
                },
            };
            let news = next != *order;
            if news {
                tracing::info!(agent = %key.agent, spawn = self.spawn, ?grace, why, "is told to go");
            }
            *order = next;
            news
        });
    }
}

/// How long a host with `load` processes waits before it claims.
fn claim_wait(host: InstanceId, key: Key, load: usize) -> Duration {
    let steps = u32::try_from(load).unwrap_or(u32::MAX);
    let mut digest = Sha256::new();
    digest.update(host.0.as_bytes());
    digest.update(key.agent.0.as_bytes());
    let draw = u32::from(digest.finalize()[0]);
    CLAIM_WAIT_STEP.saturating_mul(steps).min(CLAIM_WAIT_MAX) + CLAIM_SPREAD * draw / 256
}

#[cfg(test)]
mod tests {
    use swarm_events::{AgentId, OrgId, SwarmId, subject::Place};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_fuller_host_claims_later_and_none_waits_long() {
        let key = |n| Key {
            place: Place::new(OrgId(Uuid::nil()), SwarmId(Uuid::nil())),
            agent: AgentId(Uuid::from_u128(n)),
        };
        let host = |n| InstanceId(Uuid::from_u128(n));
        // Ten processes make up for the spread.
        for n in 0..100 {
            assert!(claim_wait(host(1), key(n), 10) > claim_wait(host(2), key(n), 0));
            assert!(claim_wait(host(1), key(n), usize::MAX) < CLAIM_WAIT_MAX + CLAIM_SPREAD);
        }
        // Two that are equally full are first for about as many.
        let first = (0..1_000)
            .filter(|n| claim_wait(host(1), key(*n), 3) < claim_wait(host(2), key(*n), 3));
        assert!((400..600).contains(&first.count()));
    }
}
