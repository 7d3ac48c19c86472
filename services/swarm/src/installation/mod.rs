//! An installation on this machine: a data folder, the servers, and every service as a child process.

pub mod child;
pub mod credentials;
pub mod ports;
pub mod probe;
pub mod servers;
mod shared;
pub mod supervisor;

use std::{
    fs::{self, File, TryLockError},
    io::{Read, Seek, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;

/// The services of an installation, in the order in which they are started and shown.
pub const SERVICES: [ServiceName; 6] = [
    ServiceName::Coordinator,
    ServiceName::Distributor,
    ServiceName::Health,
    ServiceName::Projector,
    ServiceName::Gateway,
    ServiceName::AgentHost,
];

/// A service that this binary can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub enum ServiceName {
    /// Decides on organizations, swarms and membership
    Coordinator,
    /// Decides on tasks
    Distributor,
    /// Decides on liveness
    Health,
    /// Folds the log into the read models
    Projector,
    /// Serves the API
    Gateway,
    /// Runs agents' processes
    AgentHost,
}
impl ServiceName {
    /// As it stands in arguments, file names and `connection.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Distributor => "distributor",
            Self::Health => "health",
            Self::Projector => "projector",
            Self::Gateway => "gateway",
            Self::AgentHost => "agent-host",
        }
    }
}

/// One process of a service, of which there can be several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Member {
    /// What it is.
    pub service: ServiceName,
    /// Counted from 1.
    pub number: u16,
}
impl Member {
    /// As it stands in `connection.json` and file names, and what a service calls itself to the others: the first one has
    /// its service's name, the second is `distributor-2`.
    pub fn name(self) -> String {
        numbered(self.service.as_str(), self.number)
    }
}

/// `replicas` of each service, in the order in which they are started and shown.
pub fn members(replicas: u16) -> impl Iterator<Item = Member> + Clone {
    SERVICES.into_iter().flat_map(move |service| {
        (1..=replicas.max(1)).map(move |number| Member { service, number })
    })
}

/// The first of a kind has the bare name; a number follows that of each further one.
pub fn numbered(name: &str, number: u16) -> String {
    if number <= 1 {
        name.to_owned()
    } else {
        format!("{name}-{number}")
    }
}

/// The folder that holds an installation.
#[derive(Clone, Debug)]
pub struct DataDir(PathBuf);

impl DataDir {
    /// Makes the folder (mode 0700: it holds keys and a password) if it is not there.
    pub fn create(path: &Path) -> anyhow::Result<Self> {
        let data = Self(path.to_owned());
        for dir in [data.path(), &data.logs(), &data.keys()] {
            fs::DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(dir)
                .with_context(|| format!("cannot create {}", dir.display()))?;
        }
        Ok(data)
    }
    /// The folder itself, whether it is there or not.
    pub fn at(path: &Path) -> Self {
        Self(path.to_owned())
    }
    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
    /// Logs of the services.
    pub fn logs(&self) -> PathBuf {
        self.0.join("logs")
    }
    /// Keys of the bus, and the credentials made from them.
    pub fn keys(&self) -> PathBuf {
        self.0.join("keys")
    }
    /// The part of a single nats-server.
    pub fn nats(&self) -> PathBuf {
        self.0.join("nats")
    }
    /// The part of a cluster: a folder for each of its servers.
    pub fn nats_cluster(&self) -> PathBuf {
        self.0.join("nats-cluster")
    }
    /// The folders of agents that run here.
    pub fn agents(&self) -> PathBuf {
        self.0.join("agents")
    }
    /// PostgreSQL's part.
    pub fn postgres(&self) -> PathBuf {
        self.0.join("postgres")
    }
    /// The log of a service.
    pub fn log_of(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }
}

/// The data folder is this process's until it ends, however it ends.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

/// Who holds a data folder.
#[derive(Debug, PartialEq, Eq)]
pub enum Holder {
    /// Nobody: nothing runs there.
    Nobody,
    /// The supervisor with this process id (`None` while it starts).
    Process(Option<u32>),
}

const LOCK_FILE: &str = "lock";

impl Lock {
    /// Takes the folder, or says who has it.
    pub fn take(data: &DataDir) -> anyhow::Result<Result<Self, Holder>> {
        let path = data.path().join(LOCK_FILE);
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))?;
        match file.try_lock() {
            Ok(()) => {
                file.set_len(0)?;
                writeln!(file, "{}", std::process::id())?;
                file.sync_all()?;
                Ok(Ok(Self { _file: file }))
            }
            Err(TryLockError::WouldBlock) => Ok(Err(Holder::Process(pid_in(&mut file)))),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot lock {}", path.display()))
            }
        }
    }

    /// Who has the folder, without taking it.
    pub fn holder(data: &DataDir) -> anyhow::Result<Holder> {
        let path = data.path().join(LOCK_FILE);
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Holder::Nobody);
            }
            Err(error) => {
                return Err(error).with_context(|| format!("cannot open {}", path.display()));
            }
        };
        // Shared: two that ask at the same time do not take each other for a holder.
        match file.try_lock_shared() {
            Ok(()) => Ok(Holder::Nobody),
            Err(TryLockError::WouldBlock) => Ok(Holder::Process(pid_in(&mut file))),
            Err(TryLockError::Error(error)) => {
                Err(error).with_context(|| format!("cannot ask for the lock {}", path.display()))
            }
        }
    }
}

fn pid_in(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// The last lines of a log, for a message.
pub fn log_tail(path: &Path, lines: usize) -> String {
    let text = fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let last: Vec<&str> = text.lines().rev().take(lines).collect();
    last.into_iter().rev().collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_first_replica_has_the_name_of_its_service() {
        let names: Vec<String> = members(2).map(Member::name).collect();
        assert_eq!(names[..3], ["coordinator", "coordinator-2", "distributor"]);
        assert_eq!(names.len(), 2 * SERVICES.len());
        assert_eq!(members(1).count(), SERVICES.len());
    }

    #[test]
    fn a_folder_has_one_holder_and_tells_who_it_is() {
        let dir = tempfile::tempdir().expect("a folder");
        let data = DataDir::create(&dir.path().join("d")).expect("created");
        let mode = fs::metadata(data.path())
            .expect("there")
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o700);
        assert_eq!(Lock::holder(&data).expect("asked"), Holder::Nobody);
        let lock = Lock::take(&data).expect("asked").expect("free");
        let me = Holder::Process(Some(std::process::id()));
        assert_eq!(Lock::holder(&data).expect("asked"), me);
        assert_eq!(Lock::take(&data).expect("asked").err(), Some(me));
        drop(lock);
        assert_eq!(Lock::holder(&data).expect("asked"), Holder::Nobody);
    }
}
