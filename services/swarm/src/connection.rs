//! How the command line finds its server: flags, environment, then `connection.json` of the data folder.

use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Args;
use serde::{Deserialize, Serialize};
use swarm_events::{InstanceId, OrgId};
use swarm_log::{
    connect::{ConnectSettings, Connection, Credentials, connect},
    jetstream::{Durability, JetStreamLog, LogSettings},
};

use crate::exit::{Failure, Outcome};

/// Name of the file in a data folder that says how to reach its installation.
pub const CONNECTION_FILE: &str = "connection.json";

/// Flags that name a server; each also has an environment variable.
#[derive(Args, Clone, Debug, Default)]
pub struct ServerArgs {
    /// Data folder of the installation [default: the user's data folder for swarm]
    #[arg(
        long,
        global = true,
        env = "SWARM_DATA",
        value_name = "DIR",
        help_heading = "Server"
    )]
    pub data: Option<PathBuf>,
    /// Address of the gateway, such as http://127.0.0.1:7700; of several gateways separated by commas
    #[arg(
        long,
        global = true,
        env = "SWARM_API_URL",
        value_name = "URL",
        help_heading = "Server"
    )]
    pub api_url: Option<String>,
    /// API key
    #[arg(
        long,
        global = true,
        env = "SWARM_API_KEY",
        value_name = "KEY",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub api_key: Option<String>,
    /// Address of nats-server, such as nats://127.0.0.1:7422
    #[arg(
        long,
        global = true,
        env = "SWARM_NATS_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub nats_url: Option<String>,
    /// File with NATS credentials
    #[arg(
        long,
        global = true,
        env = "SWARM_NATS_CREDS",
        value_name = "FILE",
        help_heading = "Server"
    )]
    pub nats_creds: Option<PathBuf>,
    /// Address of PostgreSQL, such as postgres://user:password@127.0.0.1:7432/swarm
    #[arg(
        long,
        global = true,
        env = "SWARM_DATABASE_URL",
        value_name = "URL",
        hide_env_values = true,
        help_heading = "Server"
    )]
    pub database_url: Option<String>,
}

/// `connection.json`, of mode 0600 because it holds a key and a password.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConnectionFile {
    /// Address of the first gateway.
    pub api_url: String,
    /// Addresses of all gateways, the first one included; any of them answers alike.
    #[serde(default)]
    pub api_urls: Vec<String>,
    /// The first admin's key.
    pub api_key: String,
    /// Address of nats-server; of a cluster's, separated by commas.
    pub nats_url: String,
    /// File with the credentials of the command line's user on the bus.
    pub nats_creds: Option<PathBuf>,
    /// Address of PostgreSQL.
    pub database_url: String,
    /// The first organization.
    pub org_id: Option<OrgId>,
    /// Process ids by service; empty while the installation is stopped.
    #[serde(default)]
    pub pids: BTreeMap<String, u32>,
    /// Where each service answers `/livez`, `/readyz` and `/metrics`.
    #[serde(default)]
    pub probes: BTreeMap<String, String>,
}

impl ConnectionFile {
    /// Reads the file of a data folder, `None` if there is none.
    pub fn read(data: &Path) -> anyhow::Result<Option<Self>> {
        let path = data.join(CONNECTION_FILE);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        };
        serde_json::from_str(&text)
            .map(Some)
            .with_context(|| format!("{} is damaged: run `swarm up` again", path.display()))
    }

    /// Writes the file, complete or not at all, readable by its owner only.
    pub fn write(&self, data: &Path) -> anyhow::Result<()> {
        let path = data.join(CONNECTION_FILE);
        let part = data.join(".connection.json.part");
        let write = || {
            // A part left by a crash may have another mode.
            let _ = fs::remove_file(&part);
            let mut file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(serde_json::to_string_pretty(self)?.as_bytes())?;
            file.write_all(b"\n")?;
            fs::rename(&part, &path)
        };
        write().with_context(|| format!("cannot write {}", path.display()))
    }
}

/// The user's data folder for swarm: `$XDG_DATA_HOME/swarm`, else `~/.local/share/swarm`.
pub fn default_data_dir(var: impl Fn(&str) -> Option<PathBuf>) -> Option<PathBuf> {
    // The XDG specification: a relative path is invalid and ignored.
    var("XDG_DATA_HOME")
        .filter(|path| path.is_absolute())
        .or_else(|| Some(var("HOME")?.join(".local/share")))
        .map(|base| base.join("swarm"))
}

impl ServerArgs {
    /// The data folder, whether it exists or not.
    pub fn data_dir(&self) -> Outcome<PathBuf> {
        if let Some(data) = &self.data {
            return Ok(std::path::absolute(data)?);
        }
        default_data_dir(|name| {
            std::env::var_os(name)
                .filter(|value| !value.is_empty())
                .map(PathBuf::from)
        })
        .ok_or_else(|| {
            Failure::usage("neither HOME nor XDG_DATA_HOME is set: name a folder with --data")
        })
    }

    /// `connection.json` of the data folder with the flags and environment laid over it.
    pub fn resolve(&self) -> Outcome<Target> {
        let data = self.data_dir()?;
        let file = ConnectionFile::read(&data)?;
        Ok(self.over(data, file))
    }

    fn over(&self, data: PathBuf, file: Option<ConnectionFile>) -> Target {
        let from_file = |field: fn(&ConnectionFile) -> &String| {
            file.as_ref()
                .map(field)
                .filter(|text| !text.is_empty())
                .cloned()
        };
        // Another server's credentials are nothing that this folder's server gave out.
        let other_server = self.nats_url.is_some();
        let creds = file
            .as_ref()
            .filter(|_| !other_server)
            .and_then(|file| file.nats_creds.clone());
        Target {
            api_urls: match (&self.api_url, &file) {
                (Some(given), _) => given
                    .split(',')
                    .map(|url| url.trim().to_owned())
                    .filter(|url| !url.is_empty())
                    .collect(),
                // A file of an earlier version names one.
                (None, Some(file)) if file.api_urls.is_empty() => {
                    from_file(|f| &f.api_url).into_iter().collect()
                }
                (None, Some(file)) => file.api_urls.clone(),
                (None, None) => Vec::new(),
            },
            api_key: self.api_key.clone().or_else(|| from_file(|f| &f.api_key)),
            nats_url: self.nats_url.clone().or_else(|| from_file(|f| &f.nats_url)),
            nats_creds: self.nats_creds.clone().or(creds),
            database_url: self
                .database_url
                .clone()
                .or_else(|| from_file(|f| &f.database_url)),
            org_id: file.and_then(|file| file.org_id),
            data,
        }
    }
}

/// What is known of the server.
#[derive(Clone, Debug, Default)]
pub struct Target {
    /// The data folder.
    pub data: PathBuf,
    /// Addresses of the gateways; none if none is known.
    pub api_urls: Vec<String>,
    /// API key.
    pub api_key: Option<String>,
    /// Address of nats-server.
    pub nats_url: Option<String>,
    /// File with NATS credentials.
    pub nats_creds: Option<PathBuf>,
    /// Address of PostgreSQL.
    pub database_url: Option<String>,
    /// The organization of the installation in the data folder.
    pub org_id: Option<OrgId>,
}

impl Target {
    /// What to say when a part is not known.
    pub fn missing(&self, what: &str, flag: &str, variable: &str) -> Failure {
        Failure::failed(format!(
            "no {what} is known: start an installation with `swarm up` (looked in {}), or name one with {flag} or {variable}",
            self.data.join(CONNECTION_FILE).display()
        ))
    }

    /// Connects to nats-server under the name `name`.
    pub async fn connect(&self, name: &str) -> Outcome<Connection> {
        let url = self
            .nats_url
            .clone()
            .ok_or_else(|| self.missing("nats-server", "--nats-url", "SWARM_NATS_URL"))?;
        let instance = InstanceId(uuid::Uuid::now_v7());
        let mut settings = ConnectSettings::new(url, format!("swarm {name} {instance}"));
        settings.creds = self.nats_creds.clone().map(Credentials::File);
        Ok(connect(settings).await?)
    }

    /// Opens the log.
    pub async fn log(&self, name: &str) -> Outcome<JetStreamLog> {
        let connection = self.connect(name).await?;
        // Reading does not depend on either; the few messages that the command line writes go one by one.
        let settings = LogSettings::new(Durability::Speed, 1);
        Ok(JetStreamLog::open(&connection, settings).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn file() -> ConnectionFile {
        ConnectionFile {
            api_url: "http://127.0.0.1:7700".into(),
            api_urls: vec![
                "http://127.0.0.1:7700".into(),
                "http://127.0.0.1:7701".into(),
            ],
            api_key: "k".into(),
            nats_url: "nats://127.0.0.1:7422".into(),
            nats_creds: Some("/d/operator.creds".into()),
            database_url: "postgres://x".into(),
            org_id: None,
            pids: BTreeMap::from([("gateway".into(), 7)]),
            probes: BTreeMap::new(),
        }
    }

    #[test]
    fn flags_win_over_the_file() {
        let args = ServerArgs {
            api_url: Some("http://elsewhere".into()),
            ..ServerArgs::default()
        };
        let target = args.over("/d".into(), Some(file()));
        assert_eq!(target.api_urls, ["http://elsewhere"]);
        assert_eq!(target.api_key.as_deref(), Some("k"));
        assert_eq!(target.nats_creds, Some("/d/operator.creds".into()));
    }

    #[test]
    fn all_gateways_are_known() {
        let urls = |args: ServerArgs, file| args.over("/d".into(), file).api_urls;
        assert_eq!(urls(ServerArgs::default(), Some(file())), file().api_urls);
        let of_before = ConnectionFile {
            api_urls: Vec::new(),
            ..file()
        };
        assert_eq!(
            urls(ServerArgs::default(), Some(of_before)),
            ["http://127.0.0.1:7700"]
        );
        let args = ServerArgs {
            api_url: Some("http://a, http://b".into()),
            ..ServerArgs::default()
        };
        assert_eq!(urls(args, Some(file())), ["http://a", "http://b"]);
        assert!(urls(ServerArgs::default(), None).is_empty());
    }

    #[test]
    fn credentials_of_the_folder_are_not_shown_to_another_server() {
        let args = ServerArgs {
            nats_url: Some("nats://elsewhere".into()),
            ..ServerArgs::default()
        };
        assert_eq!(args.over("/d".into(), Some(file())).nats_creds, None);
    }

    #[test]
    fn the_file_is_written_whole_and_for_its_owner_only() {
        let dir = tempfile::tempdir().expect("a folder");
        file().write(dir.path()).expect("it is written");
        file().write(dir.path()).expect("and again");
        let path = dir.path().join(CONNECTION_FILE);
        let mode = fs::metadata(&path)
            .expect("it is there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(
            ConnectionFile::read(dir.path()).expect("readable"),
            Some(file())
        );
        assert_eq!(fs::read_dir(dir.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        fs::write(dir.path().join(CONNECTION_FILE), "{").expect("written");
        let error = ConnectionFile::read(dir.path()).expect_err("damaged");
        assert!(format!("{error:#}").contains(CONNECTION_FILE));
    }

    #[test]
    fn the_default_folder_follows_the_desktop_specification() {
        let with = |pairs: &'static [(&str, &str)]| {
            default_data_dir(move |name| {
                pairs
                    .iter()
                    .find(|(n, _)| *n == name)
                    .map(|(_, v)| PathBuf::from(v))
            })
        };
        assert_eq!(
            with(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]),
            Some("/x/swarm".into())
        );
        assert_eq!(
            with(&[("XDG_DATA_HOME", "x"), ("HOME", "/h")]),
            Some("/h/.local/share/swarm".into())
        );
        assert_eq!(with(&[]), None);
    }
}
