//! Folders: one of the host, locked while it lives, and in it one for each process, which is emptied when that ends.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, chown},
    path::{Path, PathBuf},
};

use swarm_events::InstanceId;

use crate::user::RunUser;

const LOCK: &str = "lock";
const PREFIX: &str = "host-";

/// The host's folder. Dropped, it is removed with all that is in it.
#[derive(Debug)]
pub(crate) struct HostFolder {
    path: PathBuf,
    _lock: File,
    user: Option<RunUser>,
}

/// The folder of one process.
#[derive(Debug)]
pub(crate) struct AgentFolder {
    path: PathBuf,
}

impl HostFolder {
    /// Makes the folder of this host below `dir`, and removes those of hosts that have ended without doing so.
    pub(crate) fn create(dir: &Path, host: InstanceId, user: Option<RunUser>) -> io::Result<Self> {
        let named =
            |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", dir.display()));
        // Another user passes through to what is its own; nobody sees what there is.
        let mode = if user.is_some() { 0o711 } else { 0o700 };
        fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(dir)
            .map_err(named)?;
        // A folder that somebody else made may be changed by them at any time.
        let owner = fs::metadata(dir).map_err(named)?.uid();
        if owner != rustix::process::geteuid().as_raw() {
            return Err(named(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "it is another user's: choose another folder with SWARM_HOST_DIR",
            )));
        }
        if let Some(user) = &user {
            user.reaches(dir).map_err(named)?;
        }
        remove_abandoned(dir);
        let path = dir.join(format!("{PREFIX}{host}"));
        make(&path, mode)?;
        let lock = File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK))?;
        lock.lock()?;
        Ok(Self {
            path,
            _lock: lock,
            user,
        })
    }

    /// An empty folder of mode 0700 for one process, with `home`, `tmp` and `work` in it.
    pub(crate) fn agent(&self, name: &str) -> io::Result<AgentFolder> {
        let path = self.path.join(name);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let folder = AgentFolder { path };
        for dir in [
            folder.path.clone(),
            folder.home(),
            folder.tmp(),
            folder.work(),
        ] {
            make(&dir, 0o700)?;
            self.own(&dir)?;
        }
        Ok(folder)
    }

    /// Writes a file of mode 0600 into the folder of a process.
    pub(crate) fn secret(
        &self,
        folder: &AgentFolder,
        name: &str,
        text: &str,
    ) -> io::Result<PathBuf> {
        let path = folder.path.join(name);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)?;
        file.write_all(text.as_bytes())?;
        self.own(&path)?;
        Ok(path)
    }

    fn own(&self, path: &Path) -> io::Result<()> {
        match &self.user {
            Some(user) => chown(path, Some(user.uid), Some(user.gid)),
            None => Ok(()),
        }
    }
}

impl Drop for HostFolder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path); // the next host that starts tries again
    }
}

impl AgentFolder {
    pub(crate) fn home(&self) -> PathBuf {
        self.path.join("home")
    }
    pub(crate) fn tmp(&self) -> PathBuf {
        self.path.join("tmp")
    }
    pub(crate) fn work(&self) -> PathBuf {
        self.path.join("work")
    }
    /// Removes it with all that is in it.
    pub(crate) fn remove(&self) {
        if let Err(error) = fs::remove_dir_all(&self.path)
            && error.kind() != io::ErrorKind::NotFound
        {
            tracing::warn!(%error, folder = %self.path.display(), "an agent's folder cannot be removed");
        }
    }
}

/// A folder of exactly this mode, whatever the umask is.
fn make(path: &Path, mode: u32) -> io::Result<()> {
    fs::DirBuilder::new().mode(mode).create(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A living host holds the lock in its folder. One that is being made has no lock yet, and is let alone.
fn remove_abandoned(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let Ok(lock) = File::options().write(true).open(entry.path().join(LOCK)) else {
            continue;
        };
        match lock.try_lock() {
            Ok(()) => {
                let _ = fs::remove_dir_all(entry.path()); // the next host tries again
            }
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use swarm_events::InstanceId;
    use uuid::Uuid;

    use super::*;

    #[test]
    fn folders_are_private_and_those_of_dead_hosts_are_removed() {
        let dir = tempfile::tempdir().expect("a folder");
        let host = |n| InstanceId(Uuid::from_u128(n));
        let one = HostFolder::create(dir.path(), host(1), None).expect("made");
        let agent = one.agent("a").expect("made");
        let creds = one.secret(&agent, "creds", "x").expect("written");
        let mode = |path: &Path| fs::metadata(path).expect("there").mode() & 0o777;
        assert_eq!(mode(&agent.path), 0o700);
        assert_eq!(mode(&agent.work()), 0o700);
        assert_eq!(mode(&creds), 0o600);
        fs::write(agent.work().join("left"), "").expect("written");
        let again = one.agent("a").expect("made anew");
        assert!(!again.work().join("left").exists());
        // One that was killed leaves its folder, and no lock on it.
        let dead = dir.path().join("host-dead");
        fs::create_dir(&dead).expect("made");
        fs::write(dead.join(LOCK), "").expect("written");
        let two = HostFolder::create(dir.path(), host(2), None).expect("made");
        assert!(!dead.exists());
        assert!(one.path.exists(), "that of a living one stays");
        let gone = one.path.clone();
        drop(one);
        assert!(!gone.exists());
        drop(two);
    }
}
