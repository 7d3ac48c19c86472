//! What an agent's settings may hold. Nothing is passed over in silence: what would have no effect is refused, too.

use swarm_events::{
    AgentId, Problem,
    agent::{
        Adapter, AgentSpec, COMMAND_BYTES_MAX, ENV_BYTES_MAX, ENV_MAX, NAME_CHARS_MAX,
        ResourceLimits, RestartPolicy,
    },
    configuration::{Configuration, SLOTS_MAX, TIMEOUT_MS_MAX, WAITING_MAX},
};
use uuid::Uuid;

use crate::{check, membership::profile_of};

/// Longest URL of a webhook, in bytes: what servers commonly take.
pub const URL_BYTES_MAX: usize = 2_048;
/// Longest folder name, in bytes: Linux's own limit of a path.
pub const WORKING_DIR_BYTES_MAX: usize = 4_096;
/// Shortest wait after a crash and shortest life that is none, in milliseconds: whatever its policy, an agent whose process
/// ends at once is started at most ten times a second.
pub const RESTART_MS_MIN: u64 = 100;
/// Most crashes in a row that a policy may allow; 0 allows any number.
pub const CRASH_LIMIT_MAX: u32 = 1_000;
/// Least memory limit, in KiB: below 4 MiB hardly a program starts.
pub const MEMORY_KIB_MIN: u64 = 4 * 1024;
/// Highest memory limit, in KiB: 64 TiB, above any machine.
pub const MEMORY_KIB_MAX: u64 = 64 * 1024 * 1024 * 1024;
/// Highest CPU limit, in percent of one core: a thousand cores.
pub const CPU_PERCENT_MAX: u32 = 100_000;
/// Most processes and threads: Linux's own limit of ids.
pub const PROCESSES_MAX: u32 = 4_194_304;

/// Start of the names of variables that the host itself sets.
const OWN_PREFIX: &str = "SWARM_";

/// Checks the settings of an agent that is to be added as the coordinator does: for those who send such an order, so that what
/// it would refuse is refused before it is stored.
///
/// # Errors
/// What the coordinator would say, by field.
pub fn check_spec(spec: &AgentSpec, settings: &Configuration) -> Result<(), Problem> {
    check(spec)?;
    check::profile(&profile_of(AgentId(Uuid::nil()), spec, settings))
}

/// Checks all that is not checked with the profile.
pub(crate) fn check(spec: &AgentSpec) -> Result<(), Problem> {
    check::text(
        "agent_type",
        &spec.agent_type,
        swarm_events::agent::TYPE_CHARS_MAX,
    )?;
    if let Some(name) = &spec.agent_name {
        check::text("agent_name", name, NAME_CHARS_MAX)?;
    }
    if let Some(slots) = spec.slots {
        check::range("slots", slots, 1, SLOTS_MAX)?;
    }
    if let Some(waiting) = spec.waiting {
        check::range("waiting", waiting, 0, WAITING_MAX)?;
    }
    match spec.adapter {
        None => return by_hand(spec),
        Some(Adapter::Exec | Adapter::Process) => {
            absent("url", spec.url.is_none(), "only webhook agents have one")?;
            command(&spec.command)?;
        }
        Some(Adapter::Webhook) => {
            let none = spec.command.is_empty();
            absent("command", none, "webhook agents have a url instead")?;
            match &spec.url {
                Some(url) => webhook(url)?,
                None => {
                    return Err(Problem::new("missing", "a webhook agent needs a url")
                        .field("url")
                        .cure("give the address to which tasks are sent"));
                }
            }
        }
    }
    environment(spec)?;
    if let Some(folder) = &spec.working_dir {
        working_dir(folder)?;
    }
    restart(&spec.restart)?;
    limits(&spec.limits)
}

/// Without an adapter no host starts anything, so whatever says how is a mistake.
fn by_hand(spec: &AgentSpec) -> Result<(), Problem> {
    let why = "without an adapter the agent is started by hand";
    for (field, none) in [
        ("command", spec.command.is_empty()),
        ("url", spec.url.is_none()),
        ("env", spec.env.is_empty()),
        ("pass_env", spec.pass_env.is_empty()),
        ("working_dir", spec.working_dir.is_none()),
        ("restart", spec.restart == RestartPolicy::default()),
        ("limits", spec.limits == ResourceLimits::default()),
    ] {
        absent(field, none, why)?;
    }
    Ok(())
}

fn absent(field: &str, none: bool, why: &str) -> Result<(), Problem> {
    if none {
        return Ok(());
    }
    Err(
        Problem::new("not-for-adapter", format!("has no effect: {why}"))
            .field(field)
            .cure("leave it out, or name the adapter: exec, process or webhook"),
    )
}

fn too_long(field: impl Into<String>, bytes: usize, max: usize) -> Result<(), Problem> {
    if bytes <= max {
        return Ok(());
    }
    let detail = format!("has {bytes} bytes, at most {max} are allowed");
    Err(Problem::new("too-long", detail)
        .field(field)
        .cure("shorten it"))
}

fn no_nul(field: impl Into<String>, text: &str) -> Result<(), Problem> {
    if !text.contains('\0') {
        return Ok(());
    }
    Err(Problem::new(
        "control-character",
        "holds a NUL, which no system call takes",
    )
    .field(field)
    .cure("leave it out"))
}

fn command(words: &[String]) -> Result<(), Problem> {
    if words
        .first()
        .is_none_or(|program| program.trim().is_empty())
    {
        return Err(Problem::new("missing", "names no program")
            .field("command")
            .cure("give the program and its arguments, as a list"));
    }
    too_long(
        "command",
        words.iter().map(String::len).sum(),
        COMMAND_BYTES_MAX,
    )?;
    for (n, word) in words.iter().enumerate() {
        no_nul(format!("command[{n}]"), word)?;
    }
    Ok(())
}

/// The address of a webhook, as far as it can be judged without asking anybody: scheme, host, and nothing in it that does
/// not belong into the log.
fn webhook(url: &str) -> Result<(), Problem> {
    too_long("url", url.len(), URL_BYTES_MAX)?;
    let wrong = |code: &str, detail: &str, cure: &str| {
        Err(Problem::new(code, detail).field("url").cure(cure))
    };
    let rest = ["http://", "https://"].into_iter().find_map(|scheme| {
        let head = url.get(..scheme.len())?;
        head.eq_ignore_ascii_case(scheme)
            .then(|| &url[scheme.len()..])
    });
    let Some(rest) = rest else {
        return wrong(
            "wrong-scheme",
            "is neither http nor https",
            "give http://… or https://…",
        );
    };
    if !url.chars().all(|c| c.is_ascii_graphic()) {
        let cure = "percent-encode what is not printable ASCII";
        return wrong(
            "wrong-format",
            "holds a character that no URL may hold",
            cure,
        );
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.contains('@') {
        let cure = "leave them out: requests are signed, and the log would keep them for ever";
        return wrong("credentials", "holds credentials", cure);
    }
    if rest.contains('#') {
        return wrong(
            "wrong-format",
            "has a fragment, which no server sees",
            "leave it out",
        );
    }
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let good_port = port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0));
    if host.is_empty() || !good_port {
        return wrong(
            "wrong-format",
            "names no host and port",
            "give https://host:port/path",
        );
    }
    Ok(())
}

fn environment(spec: &AgentSpec) -> Result<(), Problem> {
    let count = spec.env.len() + spec.pass_env.len();
    if count > ENV_MAX {
        let detail = format!("{count} variables, at most {ENV_MAX} are allowed");
        let field = if spec.env.len() > ENV_MAX {
            "env"
        } else {
            "pass_env"
        };
        return Err(Problem::new("too-many", detail)
            .field(field)
            .cure("put them into a file that the program reads"));
    }
    let bytes = |(name, value): (&String, &String)| name.len() + value.len();
    too_long("env", spec.env.iter().map(bytes).sum(), ENV_BYTES_MAX)?;
    for (name, value) in &spec.env {
        let field = format!("env.{name}");
        variable(&field, name)?;
        no_nul(field, value)?;
    }
    too_long(
        "pass_env",
        spec.pass_env.iter().map(String::len).sum(),
        ENV_BYTES_MAX,
    )?;
    for (n, name) in spec.pass_env.iter().enumerate() {
        let field = format!("pass_env[{n}]");
        variable(&field, name)?;
        if spec.env.contains_key(name) || spec.pass_env[..n].contains(name) {
            return Err(Problem::new("repeated", format!("{name} is given twice"))
                .field(field)
                .cure("give it once, in env or in pass_env"));
        }
    }
    Ok(())
}

fn variable(field: &str, name: &str) -> Result<(), Problem> {
    let mut letters = name.bytes();
    let first = letters
        .next()
        .is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    if !first || !letters.all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Err(Problem::new("wrong-format", "is no name of a variable")
            .field(field)
            .cure("use letters, digits and _, not beginning with a digit"));
    }
    if name.starts_with(OWN_PREFIX) {
        return Err(Problem::new(
            "reserved",
            format!("names that begin with {OWN_PREFIX} are set by the host"),
        )
        .field(field)
        .cure("choose another name"));
    }
    Ok(())
}

fn working_dir(folder: &str) -> Result<(), Problem> {
    too_long("working_dir", folder.len(), WORKING_DIR_BYTES_MAX)?;
    no_nul("working_dir", folder)?;
    if !folder.starts_with('/') {
        return Err(Problem::new("wrong-format", "is no absolute path")
            .field("working_dir")
            .cure("begin it with /, or leave it out: the agent then gets a folder of its own"));
    }
    Ok(())
}

fn restart(policy: &RestartPolicy) -> Result<(), Problem> {
    let ms = |field, value, low| check::range(field, value, low, TIMEOUT_MS_MAX);
    ms("restart.backoff_ms", policy.backoff_ms, RESTART_MS_MIN)?;
    ms(
        "restart.backoff_cap_ms",
        policy.backoff_cap_ms,
        policy.backoff_ms,
    )?;
    ms("restart.stable_ms", policy.stable_ms, RESTART_MS_MIN)?;
    check::range(
        "restart.crash_limit",
        policy.crash_limit,
        0,
        CRASH_LIMIT_MAX,
    )
}

fn limits(limits: &ResourceLimits) -> Result<(), Problem> {
    if let Some(kib) = limits.memory_kib {
        check::range("limits.memory_kib", kib, MEMORY_KIB_MIN, MEMORY_KIB_MAX)?;
    }
    if let Some(percent) = limits.cpu_percent {
        check::range("limits.cpu_percent", percent, 1, CPU_PERCENT_MAX)?;
    }
    if let Some(processes) = limits.processes {
        check::range("limits.processes", processes, 1, PROCESSES_MAX)?;
    }
    Ok(())
}
