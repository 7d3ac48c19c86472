use std::path::PathBuf;

/// Why a server could not be found, started or stopped. Each message names the thing and the cure.
#[derive(Debug, thiserror::Error)]
#[expect(
    missing_docs,
    reason = "each field is explained by the message that it stands in"
)]
pub enum ServerError {
    /// No source holds a usable server.
    #[error("no {server} {wanted} found; tried: {tried}. Install it, or name it with {setting}")]
    NotFound {
        server: &'static str,
        wanted: &'static str,
        tried: String,
        setting: &'static str,
    },
    /// The server named by a setting cannot be used.
    #[error("{setting} names {path}, which {problem}; correct or unset it")]
    BadSetting {
        setting: &'static str,
        path: PathBuf,
        problem: String,
    },
    /// Someone else listens there.
    #[error(
        "port {port} for {server} is in use by another program: stop that program, or choose another port with {setting}"
    )]
    PortInUse {
        server: &'static str,
        port: u16,
        setting: &'static str,
    },
    /// Another process runs the server of this folder.
    #[error(
        "{path} is in use: another process runs a {server} in it. Stop that one (`swarm down`), or choose another data folder"
    )]
    FolderInUse { server: &'static str, path: PathBuf },
    /// The server ended instead of becoming ready.
    #[error("{server} ended at once ({status}); the end of {log} says: {tail}")]
    Exited {
        server: &'static str,
        status: String,
        log: PathBuf,
        tail: String,
    },
    /// The server runs and does not answer.
    #[error(
        "{server} was not ready after {seconds} s and was stopped; the end of {log} says: {tail}"
    )]
    NotReady {
        server: &'static str,
        seconds: u64,
        log: PathBuf,
        tail: String,
    },
    /// The database on disk was made by another major version.
    #[error(
        "the database in {path} was made by PostgreSQL {on_disk}, and the one found is {found}: name the older one with SWARM_POSTGRES_BIN_DIR, or move {path} away (all read models are rebuilt from the log)"
    )]
    OtherMajorVersion {
        path: PathBuf,
        on_disk: String,
        found: u32,
    },
    /// A helper program of a server failed.
    #[error("{program} failed ({status}): {output}")]
    Helper {
        program: String,
        status: String,
        output: String,
    },
    /// A key or token could not be made or read.
    #[error(
        "the keys in {path} cannot be used: {problem}; restore them, or remove the folder to make new ones (all credentials made from them end)"
    )]
    Keys { path: PathBuf, problem: String },
    /// The operating system refused something.
    #[error("cannot {doing} {path}: {source}")]
    Io {
        doing: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl ServerError {
    /// For `map_err`: names what was being done, and to what.
    pub(crate) fn io(
        doing: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io {
            doing,
            path,
            source,
        }
    }
}
