//! A file system of a few MiB below nats-server: when it is full, it is full.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, ensure};

use crate::{acts::CannotPlay, installation::Installation};

/// Full after a few seconds of load.
const SMALL: &str = "48m";
/// Room for everything that was accepted to end in.
const LARGE: &str = "1g";
/// With less than this left, a write of a task does not fit.
const FULL_BYTES: u64 = 64 * 1024;

/// A mounted tmpfs.
pub struct Mounted(PathBuf);

impl Mounted {
    /// Mounts a small file system on nats-server's folder, before anything is started there.
    ///
    /// # Errors
    /// [`CannotPlay`] if this user may not mount, or this system has no tmpfs.
    pub fn below(installation: &Installation) -> anyhow::Result<Self> {
        let path = folder(installation);
        fs::create_dir_all(&path)?;
        mount(&path, &format!("size={SMALL},mode=0700"))
            .map_err(|error| CannotPlay(format!("no small file system: {error:#}")))?;
        Ok(Self(path))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg("--lazy").arg(&self.0).status();
        if !unmounted.is_ok_and(|status| status.success()) {
            eprintln!("chaos: {} could not be unmounted", self.0.display());
        }
    }
}

fn folder(installation: &Installation) -> PathBuf {
    installation.data().join("nats")
}

fn mount(path: &Path, options: &str) -> anyhow::Result<()> {
    let output = Command::new("mount")
        .args(["-t", "tmpfs", "-o", options, "tmpfs"])
        .arg(path)
        .output()
        .context("mount cannot be run")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}", said.trim());
    Ok(())
}

/// The disk of a running installation.
pub struct SmallDisk(PathBuf);

impl SmallDisk {
    /// The one that [`Mounted`] put there.
    ///
    /// # Errors
    /// There is none.
    pub fn below(installation: &Installation) -> anyhow::Result<Self> {
        let disk = Self(folder(installation));
        let size = rustix::fs::statvfs(&disk.0)?;
        ensure!(
            size.f_blocks * size.f_frsize < 1 << 30,
            "{} is on a large disk",
            disk.0.display()
        );
        Ok(disk)
    }
    /// Bytes that are left.
    pub fn free_bytes(&self) -> u64 {
        rustix::fs::statvfs(&self.0).map_or(0, |disk| disk.f_bavail * disk.f_frsize)
    }
    /// Whether nothing more fits.
    pub fn is_full(&self) -> bool {
        self.free_bytes() < FULL_BYTES
    }
    /// Makes room.
    ///
    /// # Errors
    /// The file system cannot be made larger.
    pub fn enlarge(&self) -> anyhow::Result<()> {
        mount(&self.0, &format!("remount,size={LARGE}"))
    }
}
