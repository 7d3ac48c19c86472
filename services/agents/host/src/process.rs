//! One process of an agent, from its folder to its exit report.
//!
//! A shell holds the door: it is started as the leader of a group of its own, put into its cgroup and under its limits, made
//! known to the watchdog, and only then told to become the program. If this process dies before that, the shell reads the end of
//! its stdin and goes too. The leader is signalled by its id only while it has not been waited for.

use std::{
    io::Write,
    os::fd::OwnedFd,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Resource, Rlimit, Signal, WaitId, WaitIdOptions, kill_process, pidfd_open,
    prlimit, waitid,
};
use swarm_agent_adapters::{
    group::{Group, GroupEnd},
    watchdog::Watchdog,
};
use swarm_agent_host_core::Key;
use swarm_events::{
    agent::{Adapter, Exit, Exited, HostName, Launched, LimitedBy, SpawnRequested},
    subject::AgentVerb,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::watch,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{
    HostSettings,
    census::Census,
    cgroup::{CgroupOf, Cgroups},
    environment::{LIMIT_MEMORY_KIB, command_line, environment},
    folder::{AgentFolder, HostFolder},
    output::{Passing, Stream, Tail, pump},
    reports::Reports,
};

/// Waits for a line, then becomes what it is told, which reads nothing.
const DOOR: &str = r#"IFS= read -r _ || exit 125; exec "$@" </dev/null"#;
/// How long output is still read once all processes are gone: one that could not be found may hold the pipe.
const PIPE_GRACE: Duration = Duration::from_millis(200);
/// How often the end of a process is looked for where the kernel has no handles for processes.
const END_LOOK: Duration = Duration::from_millis(10);

/// What a process is told. A later order never gives it more time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// Go on.
    Run,
    /// Go within this; nothing: now.
    Go {
        grace: Duration,
        /// Because its host goes.
        leaving: bool,
    },
}

/// What all processes of this host share.
pub(crate) struct Context {
    pub(crate) settings: HostSettings,
    pub(crate) host: HostName,
    pub(crate) folder: HostFolder,
    pub(crate) cgroups: Option<Cgroups>,
    pub(crate) watchdog: Option<Arc<Watchdog>>,
    pub(crate) census: Arc<Census>,
    pub(crate) reports: Reports,
    pub(crate) passing: Passing,
}

/// A process that runs.
struct Running {
    child: Child,
    leader: Pid,
    group: Group,
    cgroup: Option<CgroupOf>,
    began: Instant,
    limited_by: LimitedBy,
    unlimited: Vec<String>,
}

/// Starts the process, reports it, follows its orders, reports its end.
pub(crate) async fn run(
    context: Arc<Context>,
    key: Key,
    request: Box<SpawnRequested>,
    mut orders: watch::Receiver<Order>,
    tail: Arc<Tail>,
) {
    let spawn = request.spawn;
    let exited = |exit: Exit| Exited {
        spawn,
        host: context.host.clone(),
        exit,
        uptime_ms: 0,
        host_leaving: false,
        left_behind: 0,
        last_output: String::new(),
    };
    let name = format!("{}-{spawn}", key.agent);
    let (shared, wanted, called) = (context.clone(), request, name);
    let made = spawn_blocking(move || {
        let folder = shared
            .folder
            .agent(&called)
            .map_err(|error| format!("its folder cannot be made: {error}"))?;
        match start(&shared, key, &wanted, &folder, &called) {
            Ok(running) => Ok((running, folder)),
            Err(error) => {
                folder.remove();
                Err(error)
            }
        }
    })
    .await
    .unwrap_or_else(|error| Err(format!("its start was interrupted: {error}")));
    let (mut running, folder) = match made {
        Ok(made) => made,
        Err(error) => {
            tracing::warn!(agent = %key.agent, spawn, error, "a process cannot be started");
            let exit = Exit {
                error: Some(error),
                ..Exit::default()
            };
            context.reports.say(key, AgentVerb::Exited, exited(exit));
            return;
        }
    };
    let pid = running.child.id();
    tracing::info!(agent = %key.agent, spawn, pid, "started");
    tail.begin();
    context.reports.say(
        key,
        AgentVerb::Launched,
        Launched {
            spawn,
            host: context.host.clone(),
            pid,
            limited_by: running.limited_by,
            unlimited: std::mem::take(&mut running.unlimited),
        },
    );
    let pumps = pumps(&mut running.child, key, &tail, &context.passing);
    let leaving = running.follow(&context, &mut orders).await;
    let uptime = running.began.elapsed();
    let end = running.end(&context).await;
    for pump in pumps {
        let abort = pump.abort_handle();
        if timeout(PIPE_GRACE, pump).await.is_err() {
            abort.abort();
        }
    }
    let report = Exited {
        exit: end.exit,
        uptime_ms: u64::try_from(uptime.as_millis()).unwrap_or(u64::MAX),
        host_leaving: leaving,
        left_behind: end.left_behind,
        last_output: tail.last_output(),
        ..exited(Exit::default())
    };
    tracing::info!(agent = %key.agent, spawn, pid, exit = ?report.exit, "ended");
    context.reports.say(key, AgentVerb::Exited, report);
    if let Some(cgroup) = end.cgroup {
        cgroup.remove().await;
    }
    let _ = spawn_blocking(move || folder.remove()).await; // it logs what goes wrong
}

/// Everything that blocks.
fn start(
    context: &Context,
    key: Key,
    request: &SpawnRequested,
    folder: &AgentFolder,
    name: &str,
) -> Result<Running, String> {
    let (settings, spec) = (&context.settings, &request.spec);
    let creds = (settings.mint)(key.place, key.agent)
        .map_err(|error| format!("its credentials cannot be made: {error}"))?;
    let creds = match creds {
        Some(text) => Some(
            context
                .folder
                .secret(folder, "nats.creds", &text)
                .map_err(|error| format!("its credentials cannot be written: {error}"))?,
        ),
        None => None,
    };
    let work = spec
        .working_dir
        .as_deref()
        .map_or_else(|| folder.work(), Into::into);
    if !work.is_dir() {
        return Err(format!(
            "working_dir: the folder {} does not exist",
            work.display()
        ));
    }
    let mut environment = environment(settings, key, request, folder, creds.as_deref())?;
    let line = command_line(settings, spec, &work)?;

    let mut held = crate::cgroup::Held::default();
    let mut cgroup = None;
    match context
        .cgroups
        .as_ref()
        .map(|all| all.group(name, &spec.limits))
    {
        Some(Ok((group, holds))) => (cgroup, held) = (Some(group), holds),
        Some(Err(error)) => tracing::warn!(%error, "a cgroup cannot be made"),
        None => {}
    }
    if cgroup.is_none() {
        let asked = [
            ("memory_kib", spec.limits.memory_kib.is_some()),
            ("cpu_percent", spec.limits.cpu_percent.is_some()),
            ("processes", spec.limits.processes.is_some()),
        ];
        held.not_held = asked
            .into_iter()
            .filter(|ask| ask.1)
            .map(|ask| ask.0)
            .collect();
    }
    let by_rlimit = spec
        .limits
        .memory_kib
        .filter(|_| held.not_held.contains(&"memory_kib"));
    let mut rlimit = None;
    match (by_rlimit, spec.adapter) {
        (Some(kib), Some(Adapter::Exec)) => {
            environment.push((LIMIT_MEMORY_KIB.to_owned(), kib.to_string()));
            held.not_held.retain(|name| *name != "memory_kib");
        }
        (Some(kib), Some(Adapter::Process)) => {
            rlimit = Some(kib.saturating_mul(1_024));
            held.not_held.retain(|name| *name != "memory_kib");
        }
        // There is no command, and our own program could not work within it.
        _ => {}
    }
    let limited_by = if !held.held.is_empty() {
        LimitedBy::Cgroup
    } else if by_rlimit.is_some() && !held.not_held.contains(&"memory_kib") {
        LimitedBy::Rlimit
    } else {
        LimitedBy::Nothing
    };

    let mut command = Command::new("/bin/sh");
    command
        .args(["-c", DOOR, "swarm-agent"])
        .arg(&line.program)
        .args(&line.arguments)
        .env_clear()
        .envs(environment)
        .current_dir(&work)
        .process_group(0)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    if let Some(user) = &settings.user {
        command.uid(user.uid).gid(user.gid);
    }
    let mut child = context
        .census
        .spawn(key, request.spawn, &mut command)
        .map_err(|error| format!("{} cannot be started: {error}", line.program.display()))?;
    let began = Instant::now();
    // A process id is positive.
    let leader = Pid::from_child(&child);
    let group = Group::new(leader, context.watchdog.clone());
    if let Some(cgroup) = &cgroup
        && let Err(error) = cgroup.add(child.id())
    {
        tracing::warn!(%error, "a process cannot be put into its cgroup");
        // Nothing is held for a process that is not in it.
        held.not_held.append(&mut held.held);
    }
    if let Some(bytes) = rlimit {
        let limit = Rlimit {
            current: Some(bytes),
            maximum: Some(bytes),
        };
        if let Err(error) = prlimit(Some(leader), Resource::As, limit) {
            tracing::warn!(%error, "a memory limit cannot be set");
            held.not_held.push("memory_kib");
        }
    }
    // Opens the door. One that is gone already has ended, and that is told in its turn.
    if let Some(mut door) = child.stdin.take() {
        let _ = door.write_all(b"\n");
    }
    Ok(Running {
        child,
        leader,
        group,
        cgroup,
        began,
        limited_by: if held.held.is_empty() && limited_by == LimitedBy::Cgroup {
            LimitedBy::Nothing
        } else {
            limited_by
        },
        unlimited: held.not_held.into_iter().map(str::to_owned).collect(),
    })
}

/// Output is read from the first byte on.
fn pumps(child: &mut Child, key: Key, tail: &Arc<Tail>, passing: &Passing) -> Vec<JoinHandle<()>> {
    let mut pumps = Vec::new();
    let stdout = child
        .stdout
        .take()
        .map(tokio::process::ChildStdout::from_std);
    if let Some(Ok(pipe)) = stdout {
        let (tail, passing) = (tail.clone(), passing.clone());
        pumps.push(tokio::spawn(pump(pipe, Stream::Stdout, key, tail, passing)));
    }
    let stderr = child
        .stderr
        .take()
        .map(tokio::process::ChildStderr::from_std);
    if let Some(Ok(pipe)) = stderr {
        let (tail, passing) = (tail.clone(), passing.clone());
        pumps.push(tokio::spawn(pump(pipe, Stream::Stderr, key, tail, passing)));
    }
    pumps
}

/// How a process ended.
struct Ended {
    exit: Exit,
    left_behind: u32,
    cgroup: Option<CgroupOf>,
}

impl Running {
    /// Until the leader has ended; it has not been waited for then. Answers whether it was told to go because its host does.
    async fn follow(&self, context: &Context, orders: &mut watch::Receiver<Order>) -> bool {
        let ended = ended(self.leader);
        tokio::pin!(ended);
        let mut told = false;
        let mut kill_at: Option<Instant> = None;
        let mut killed = false;
        let mut leaves = false;
        loop {
            let order = *orders.borrow_and_update();
            if let Order::Go { grace, leaving } = order {
                leaves = leaving;
                let at = Instant::now() + grace;
                kill_at = Some(kill_at.map_or(at, |before| before.min(at)));
                if !told && !grace.is_zero() {
                    told = true;
                    // The leader alone: what it works with may be needed for ending well.
                    if let Err(error) = kill_process(self.leader, Signal::TERM) {
                        tracing::warn!(%error, "a process cannot be told to go");
                    }
                }
            }
            let due = kill_at.filter(|_| !killed);
            tokio::select! {
                () = &mut ended => return leaves,
                changed = orders.changed() => {
                    if changed.is_err() {
                        // Nobody is there to want it.
                        self.kill(context).await;
                        (&mut ended).await;
                        return leaves;
                    }
                }
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    killed = true;
                    self.kill(context).await;
                }
            }
        }
    }

    async fn kill(&self, context: &Context) {
        // Whom it has elsewhere can only be seen while it lives.
        let (census, leader) = (context.census.clone(), self.leader);
        let _ = spawn_blocking(move || census.note(leader)).await; // at worst nobody is found
        self.group.signal(Signal::KILL);
        if let Some(cgroup) = &self.cgroup {
            cgroup.kill();
        }
    }

    /// Clears away what is left, once the leader has ended.
    async fn end(self, context: &Context) -> Ended {
        let own = self.child.id();
        let others = self.cgroup.as_ref().map(|cgroup| {
            let members = cgroup.members().into_iter().filter(|pid| *pid != own);
            let others = members.count();
            cgroup.kill();
            others
        });
        let GroupEnd {
            leader,
            left_behind,
        } = self.group.end().await;
        let strays = context.census.sweep(self.leader).await;
        let mut exit = Exit {
            code: leader.and_then(|status| status.exit_status()),
            signal: leader.and_then(|status| status.terminating_signal()),
            out_of_memory: false,
            error: None,
        };
        if let Some(cgroup) = &self.cgroup {
            exit.out_of_memory = cgroup.out_of_memory();
        }
        let found = left_behind.saturating_add(strays);
        let others = others.map_or(0, |others| u32::try_from(others).unwrap_or(u32::MAX));
        Ended {
            exit,
            left_behind: found.max(others),
            cgroup: self.cgroup,
        }
    }
}

/// Ends when the process has, and leaves it to be waited for.
async fn ended(leader: Pid) {
    #[expect(
        deprecated,
        reason = "an owned descriptor stays what it is, which is all that the successor asks for, in unsafe code"
    )]
    let handle = pidfd_open(leader, PidfdFlags::NONBLOCK)
        .map_err(std::io::Error::from)
        .and_then(|handle: OwnedFd| AsyncFd::with_interest(handle, Interest::READABLE));
    match handle {
        Ok(handle) => {
            if handle.readable().await.is_ok() {
                return;
            }
        }
        Err(error) => tracing::debug!(%error, "no handle for a process: it is looked at instead"),
    }
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    while let Ok(None) = waitid(WaitId::Pid(leader), look) {
        sleep(END_LOOK).await;
    }
}
