//! One settings struct: defaults, then `swarm.toml`, then `SWARM_…`, then flags; checked at the start with all mistakes
//! reported at once.

use std::{
    collections::BTreeMap,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
};

/// How acknowledged writes reach the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Durability {
    /// Every write is on disk before it is acknowledged.
    #[default]
    Always,
    /// The server flushes every two minutes: fast, and a power cut can lose acknowledged writes.
    Speed,
}
impl Durability {
    /// `always` or `speed`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::Speed => "speed",
        }
    }
}

/// Settings of a service or of the installation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Addresses of nats-server, comma-separated (`nats_url`).
    pub nats_url: String,
    /// Path of a `.creds` file (`nats_creds`).
    pub nats_creds: Option<PathBuf>,
    /// Path of the `.creds` file of the system account, for disconnect notices (`nats_sys_creds`).
    pub nats_sys_creds: Option<PathBuf>,
    /// PostgreSQL (`database_url`).
    pub database_url: String,
    /// Where the gateway listens (`api_addr`).
    pub api_addr: SocketAddr,
    /// Base URL of the API as clients reach it (`api_url`).
    pub api_url: String,
    /// Where a service other than the gateway serves its probes (`probe_addr`; port 0: a free one).
    pub probe_addr: SocketAddr,
    /// Durability of the log's server (`durability`: `always` or `speed`).
    pub durability: Durability,
    /// Replicas of every stream and bucket (`replicas`: 1, 3 or 5).
    pub replicas: usize,
    /// Most bytes that the event stream may hold (`log_bytes_max`).
    pub log_bytes_max: i64,
    /// Filter of log lines (`log`), see tracing-subscriber's `EnvFilter`.
    pub log: Option<String>,
    /// `text` or `json` (`log_format`).
    pub log_json: bool,
    /// The replica's name, the same whenever its process is started again, so that the new process replaces the old one at
    /// once instead of after the old one's silence (`replica_name`; none: each process is a replica of its own).
    pub replica_name: Option<String>,
    /// Name of an agent host, for people (`host_name`; the machine's if none).
    pub host_name: Option<String>,
    /// What an agent host may run: patterns of program paths or bare names, separated by commas (`host_allow`; none: nothing,
    /// and everything under `swarm up`).
    pub host_allow: Option<String>,
    /// Patterns of variables that an agent host passes on to agents that ask for them (`host_pass_env`).
    pub host_pass_env: String,
    /// Processes that an agent host runs at most (`host_agents_max`).
    pub host_agents_max: u32,
    /// The user that agents run as, a name or `<uid>:<gid>` (`host_user`; none: the host's own).
    pub host_user: Option<String>,
    /// Where agents' folders are made (`host_dir`; none: below the folder for temporary files).
    pub host_dir: Option<PathBuf>,
    /// File with the seed of the SWARM account, from which an agent host makes its agents' credentials
    /// (`host_account_seed`; none: nats-server asks for no credentials).
    pub host_account_seed: Option<PathBuf>,
}

/// Processes that an agent host runs unless it is told otherwise.
pub const HOST_AGENTS_DEFAULT: u32 = 100;
/// Most processes that an agent host can be told to run: what it says of them every second must fit into one message.
pub const HOST_AGENTS_MAX: u32 = 5_000;

/// Longest replica name: host names, which orchestrators use for it, have at most 63 characters.
pub const REPLICA_NAME_CHARS_MAX: usize = 63;

/// Most bytes of the event stream unless set otherwise: 64 GiB, what a small disk can spare.
pub const LOG_BYTES_MAX_DEFAULT: i64 = 64 << 30;

impl Default for Settings {
    fn default() -> Self {
        Self {
            nats_url: "nats://127.0.0.1:7422".to_owned(),
            nats_creds: None,
            nats_sys_creds: None,
            database_url: "postgres://swarm@127.0.0.1:7432/swarm".to_owned(),
            api_addr: SocketAddr::from(([127, 0, 0, 1], 7700)),
            api_url: "http://127.0.0.1:7700".to_owned(),
            probe_addr: SocketAddr::from(([127, 0, 0, 1], 0)),
            durability: Durability::Always,
            replicas: 1,
            log_bytes_max: LOG_BYTES_MAX_DEFAULT,
            log: None,
            log_json: false,
            replica_name: None,
            host_name: None,
            host_allow: None,
            host_pass_env: String::new(),
            host_agents_max: HOST_AGENTS_DEFAULT,
            host_user: None,
            host_dir: None,
            host_account_seed: None,
        }
    }
}

/// Everything that is wrong with the settings, each with its name, its source and the cure.
#[derive(Clone, Debug, Default, PartialEq, Eq, thiserror::Error)]
pub struct SettingsProblems(pub Vec<String>);
impl fmt::Display for SettingsProblems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} of the settings cannot be used:", self.0.len())?;
        for problem in &self.0 {
            writeln!(f, "  {problem}")?;
        }
        Ok(())
    }
}

/// Prefix of environment variables.
const ENV_PREFIX: &str = "SWARM_";
/// Variables with the prefix that are no settings: they belong to clients, tools and the agents' own environment.
const ENV_OTHER: &[&str] = &[
    "api_key",
    "data",
    "cache",
    "nats_server_bin",
    "postgres_bin_dir",
    "task_id",
    "attempt",
    "fencing_token",
    "org_id",
    "swarm_id",
    "agent_id",
    "agent_name",
    "agent_type",
    "agent_capabilities",
    "agent_slots",
    "agent_waiting",
    "agent_metadata",
    "agent_spawn",
    "drain_grace_ms",
    "limit_memory_kib",
    "test_seed",
];

/// Where settings come from besides the defaults. Tests need no process environment.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Text of `swarm.toml` with its path, if there is one.
    pub file: Option<(PathBuf, String)>,
    /// Environment variables.
    pub env: BTreeMap<String, String>,
    /// Flags by setting name.
    pub flags: BTreeMap<String, String>,
}

impl Sources {
    /// The file at `path` (if given, it must be readable), the process's environment and `flags`.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn of_process(
        path: Option<&Path>,
        flags: BTreeMap<String, String>,
    ) -> std::io::Result<Self> {
        let file = match path {
            Some(path) => Some((path.to_owned(), std::fs::read_to_string(path)?)),
            None => None,
        };
        let env = std::env::vars_os()
            .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
            .filter(|(k, _)| k.starts_with(ENV_PREFIX))
            .collect();
        Ok(Self { file, env, flags })
    }
}

impl Settings {
    /// Merges the sources over the defaults.
    ///
    /// # Errors
    /// All mistakes at once.
    pub fn load(sources: &Sources) -> Result<Self, SettingsProblems> {
        let mut settings = Self::default();
        let mut problems = Vec::new();
        if let Some((path, text)) = &sources.file {
            match text.parse::<toml::Table>() {
                Err(e) => problems.push(format!("{}: not TOML: {e}", path.display())),
                Ok(table) => {
                    for (name, value) in table {
                        let value = match value {
                            toml::Value::String(s) => s,
                            other => other.to_string(),
                        };
                        settings.set(
                            &name,
                            &value,
                            &format!("{name} in {}", path.display()),
                            &mut problems,
                        );
                    }
                }
            }
        }
        for (variable, value) in &sources.env {
            let Some(name) = variable
                .strip_prefix(ENV_PREFIX)
                .map(str::to_ascii_lowercase)
            else {
                continue;
            };
            if !ENV_OTHER.contains(&name.as_str()) {
                settings.set(&name, value, variable, &mut problems);
            }
        }
        for (name, value) in &sources.flags {
            settings.set(
                name,
                value,
                &format!("--{}", name.replace('_', "-")),
                &mut problems,
            );
        }
        if problems.is_empty() {
            Ok(settings)
        } else {
            Err(SettingsProblems(problems))
        }
    }

    fn set(&mut self, name: &str, value: &str, origin: &str, problems: &mut Vec<String>) {
        let mut bad = |cure: &str| problems.push(format!("{origin} = {value:?}: {cure}"));
        match name {
            "nats_url" if value.is_empty() => {
                bad("give at least one address, like nats://127.0.0.1:7422")
            }
            "nats_url" => value.clone_into(&mut self.nats_url),
            "nats_creds" => self.nats_creds = Some(value.into()),
            "nats_sys_creds" => self.nats_sys_creds = Some(value.into()),
            "database_url"
                if !value.starts_with("postgres://") && !value.starts_with("postgresql://") =>
            {
                bad("give a URL that starts with postgres://");
            }
            "database_url" => value.clone_into(&mut self.database_url),
            "api_url" if !value.starts_with("http://") && !value.starts_with("https://") => {
                bad("give a URL that starts with http:// or https://");
            }
            "api_url" => value.trim_end_matches('/').clone_into(&mut self.api_url),
            "api_addr" => match value.parse() {
                Ok(addr) => self.api_addr = addr,
                Err(_) => bad("give an address and a port, like 127.0.0.1:7700"),
            },
            "probe_addr" => match value.parse() {
                Ok(addr) => self.probe_addr = addr,
                Err(_) => bad("give an address and a port, like 127.0.0.1:0"),
            },
            "durability" => match value {
                "always" => self.durability = Durability::Always,
                "speed" => self.durability = Durability::Speed,
                _ => bad("give always or speed"),
            },
            "replicas" => match value.parse() {
                Ok(replicas @ (1 | 3 | 5)) => self.replicas = replicas,
                _ => bad("give 1, 3 or 5"),
            },
            "log_bytes_max" => match value.parse() {
                Ok(bytes) if bytes >= 1 << 20 => self.log_bytes_max = bytes,
                _ => bad("give a number of bytes, at least 1048576"),
            },
            "log" => self.log = Some(value.to_owned()),
            "log_format" => match value {
                "text" => self.log_json = false,
                "json" => self.log_json = true,
                _ => bad("give text or json"),
            },
            "replica_name" | "host_name" => {
                let fits = (1..=REPLICA_NAME_CHARS_MAX).contains(&value.len())
                    && value
                        .bytes()
                        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
                if !fits {
                    bad("give 1 to 63 letters, digits, dashes, underscores or dots");
                } else if name == "host_name" {
                    self.host_name = Some(value.to_owned());
                } else {
                    self.replica_name = Some(value.to_owned());
                }
            }
            "host_allow" => self.host_allow = Some(value.to_owned()),
            "host_pass_env" => value.clone_into(&mut self.host_pass_env),
            "host_agents_max" => match value.parse() {
                Ok(most @ 1..=HOST_AGENTS_MAX) => self.host_agents_max = most,
                _ => bad("give a number from 1 to 5000"),
            },
            "host_user" if value.is_empty() => bad("give a user's name, or <uid>:<gid>"),
            "host_user" => self.host_user = Some(value.to_owned()),
            "host_dir" if !value.starts_with('/') => bad("give the whole path of a folder"),
            "host_dir" => self.host_dir = Some(value.into()),
            "host_account_seed" => self.host_account_seed = Some(value.into()),
            _ => problems.push(format!("{origin}: there is no such setting")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
            .collect()
    }

    #[test]
    fn later_sources_win() {
        let sources = Sources {
            file: Some((
                "swarm.toml".into(),
                "replicas = 3\nlog = \"debug\"\napi_url = \"http://a/\"".to_owned(),
            )),
            env: pairs(&[("SWARM_LOG", "warn"), ("SWARM_API_KEY", "not a setting")]),
            flags: pairs(&[("replicas", "5")]),
        };
        let settings = Settings::load(&sources).expect("good settings");
        assert_eq!(
            (
                settings.replicas,
                settings.log.as_deref(),
                settings.api_url.as_str()
            ),
            (5, Some("warn"), "http://a")
        );
    }

    #[test]
    fn a_replica_name_has_at_most_63_plain_characters() {
        let load = |name: &str| {
            Settings::load(&Sources {
                env: pairs(&[("SWARM_REPLICA_NAME", name)]),
                ..Sources::default()
            })
        };
        let longest = "x".repeat(REPLICA_NAME_CHARS_MAX);
        for name in ["distributor-2", "a.b_C", &longest] {
            let settings = load(name).expect("good");
            assert_eq!(settings.replica_name.as_deref(), Some(name));
        }
        assert_eq!(Settings::default().replica_name, None);
        for name in ["", "a b", "ä", &format!("{longest}x")] {
            assert!(load(name).is_err(), "{name}");
        }
    }

    #[test]
    fn an_agent_host_runs_1_to_5000_processes() {
        let load = |most: &str| {
            Settings::load(&Sources {
                env: pairs(&[("SWARM_HOST_AGENTS_MAX", most)]),
                ..Sources::default()
            })
            .map(|settings| settings.host_agents_max)
        };
        assert_eq!(Settings::default().host_agents_max, HOST_AGENTS_DEFAULT);
        assert_eq!(load("1"), Ok(1));
        assert_eq!(load("5000"), Ok(HOST_AGENTS_MAX));
        for wrong in ["0", "5001", "many"] {
            let problems = load(wrong).expect_err("wrong").to_string();
            assert!(problems.contains("SWARM_HOST_AGENTS_MAX"), "{problems}");
        }
    }

    #[test]
    fn all_mistakes_are_reported_at_once_with_source_and_cure() {
        let sources = Sources {
            file: Some(("swarm.toml".into(), "replicas = 2\nunknown = 1".to_owned())),
            env: pairs(&[
                ("SWARM_DURABILITY", "maybe"),
                ("SWARM_DATABASE_URL", "mysql://x"),
            ]),
            flags: pairs(&[("api_addr", "nowhere")]),
        };
        let problems = Settings::load(&sources).expect_err("bad settings");
        assert_eq!(problems.0.len(), 5, "{problems}");
        let text = problems.to_string();
        for part in [
            "replicas in swarm.toml",
            "unknown in swarm.toml: there is no such setting",
            "SWARM_DURABILITY",
            "always or speed",
            "--api-addr",
        ] {
            assert!(text.contains(part), "{part} is missing in {text}");
        }
    }
}
