//! How far a submission has come, in a file: what is acknowledged is not sent again, however late it is taken up.

use std::{
    fs,
    io::Write,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::lines::{Mark, Sizes, hex};
use crate::exit::{Failure, Outcome};

/// Folder of the progress files, in the data folder.
const FOLDER: &str = "submissions";

/// What a submission is: the same content (or the same `--key`) for the same swarm is the same submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// SHA-256, lower-case hex.
    id: String,
}

impl Identity {
    /// By the person's key if there is one, else by the content's hash.
    pub fn new(swarm: &str, key: Option<&str>, sha256: &str) -> Self {
        let mut hash = Sha256::new();
        // Each part with its length, so that no two triples read alike.
        for part in [
            swarm,
            if key.is_some() { "key" } else { "content" },
            key.unwrap_or(sha256),
        ] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        Self {
            id: hex(&hash.finalize()),
        }
    }

    /// The `Idempotency-Key` of a chunk. Other sizes are other chunks, and so other keys.
    pub fn chunk_key(&self, sizes: Sizes, chunk: u64) -> String {
        format!(
            "file-{}-{}x{}-{chunk}",
            &self.id[..32],
            sizes.lines,
            sizes.bytes
        )
    }
}

/// What is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Progress {
    /// Where the file was, for people.
    pub file: String,
    /// The swarm's id.
    pub swarm: String,
    /// SHA-256 of the whole file.
    pub sha256: String,
    /// Where its chunks end.
    pub sizes: Sizes,
    /// Everything up to here is stored.
    pub acknowledged: Mark,
    /// Tasks among it.
    pub tasks: u64,
    /// Lines among it that were left out.
    pub left_out: u64,
    /// The file of ids, if one is written.
    #[serde(default)]
    pub ids: Option<Grown>,
    /// The file of lines that were left out, if one is written.
    #[serde(default)]
    pub left_out_lines: Option<Grown>,
}

/// A file that has grown with the submission.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grown {
    /// Where it is.
    pub path: PathBuf,
    /// Its length, as far as it is acknowledged.
    pub bytes: u64,
}

/// The file.
#[derive(Debug)]
pub struct ProgressFile {
    path: PathBuf,
    /// What it says.
    pub progress: Progress,
    /// An earlier run has begun.
    pub resumed: bool,
}

impl ProgressFile {
    /// The submission's file in the data folder, made if it is not there.
    ///
    /// # Errors
    /// If it cannot be read or written, or was begun with another input under the same key.
    pub fn open(data: &Path, identity: &Identity, fresh: Progress) -> Outcome<Self> {
        let folder = data.join(FOLDER);
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .with_context(|| {
                format!(
                    "cannot make {}, where progress is kept: name a folder with --data",
                    folder.display()
                )
            })?;
        let path = folder.join(format!("{}.json", &identity.id[..32]));
        let earlier = match fs::read(&path) {
            Ok(text) => Some(serde_json::from_slice::<Progress>(&text).with_context(|| {
                format!(
                    "{} is damaged: remove it to begin again; what was stored within a day is not stored twice",
                    path.display()
                )
            })?),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => None,
            Err(error) => {
                return Err(anyhow::Error::from(error)
                    .context(format!("cannot read {}", path.display()))
                    .into());
            }
        };
        let resumed = earlier.is_some();
        let progress = earlier.unwrap_or(fresh.clone());
        if progress.sha256 != fresh.sha256 {
            return Err(Failure::usage(format!(
                "under this --key another content was begun ({} lines of {} are stored): give this one a key of its own, \
                 or go on with the content that was begun",
                progress.acknowledged.lines, progress.file
            )));
        }
        let file = Self {
            path,
            progress,
            resumed,
        };
        if !file.resumed {
            file.write()?;
        }
        Ok(file)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes it, complete or not at all. It is not flushed to the disk each time: after a power cut some chunks are sent
    /// again, which stores nothing twice.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self) -> Outcome {
        // Two processes at the same file do not write into each other's part.
        let part = self
            .path
            .with_extension(format!("{}.part", std::process::id()));
        let write = || {
            let _ = fs::remove_file(&part);
            let mut file = fs::File::options()
                .write(true)
                .create_new(true)
                .mode(0o600)
                .open(&part)?;
            file.write_all(serde_json::to_string_pretty(&self.progress)?.as_bytes())?;
            file.write_all(b"\n")?;
            fs::rename(&part, &self.path)
        };
        write().with_context(|| format!("cannot write {}", self.path.display()))?;
        Ok(())
    }

    /// Everything is stored: the file has done its work.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(self) -> Outcome {
        match fs::remove_file(&self.path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(anyhow::Error::from(error)
                    .context(format!("cannot remove {}", self.path.display()))
                    .into())
            }
            _ => Ok(()),
        }
    }
}

/// A file that grows with the submission: cut back to what is acknowledged, it goes on where the last run stopped.
pub struct Growing {
    file: fs::File,
    /// Where it is, and how long.
    pub grown: Grown,
}

impl Growing {
    /// Opens it. Only one that an earlier run of this submission wrote is taken up; another one that is there already is
    /// somebody's.
    ///
    /// # Errors
    /// If it cannot be opened, or is shorter than it was.
    pub fn open(path: &Path, earlier: Option<&Grown>) -> Outcome<Self> {
        let path = std::path::absolute(path)?;
        let ours = earlier.filter(|earlier| earlier.path == path);
        let bytes = ours.map_or(0, |ours| ours.bytes);
        let open = || {
            let mut options = fs::File::options();
            options.append(true);
            let file = match ours {
                Some(_) => options.create(true).open(&path)?,
                None => options.create_new(true).open(&path)?,
            };
            let length = file.metadata()?.len();
            if length < bytes {
                return Err(std::io::Error::other(format!(
                    "it has {length} bytes and had {bytes} when the submission was interrupted"
                )));
            }
            file.set_len(bytes)?;
            Ok(file)
        };
        let file =
            open().with_context(|| format!("cannot write {}: name a new file", path.display()))?;
        let grown = Grown { path, bytes };
        Ok(Self { file, grown })
    }

    /// Appends `text`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, text: &str) -> Outcome {
        self.file
            .write_all(text.as_bytes())
            .with_context(|| format!("cannot write {}", self.grown.path.display()))?;
        self.grown.bytes += text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Code;

    fn fresh(sha256: &str) -> Progress {
        Progress {
            file: "tasks.jsonl".into(),
            swarm: "s".into(),
            sha256: sha256.into(),
            sizes: Sizes {
                lines: 10,
                bytes: 100,
            },
            acknowledged: Mark::default(),
            tasks: 0,
            left_out: 0,
            ids: None,
            left_out_lines: None,
        }
    }
    fn files(dir: &Path) -> Vec<PathBuf> {
        let entries = fs::read_dir(dir.join(FOLDER)).expect("a folder");
        entries
            .map(|entry| entry.expect("readable").path())
            .collect()
    }

    #[test]
    fn content_key_and_swarm_each_make_another_submission() {
        let all = [
            Identity::new("s", None, "a"),
            Identity::new("s", None, "b"),
            Identity::new("t", None, "a"),
            Identity::new("s", Some("a"), "a"),
            Identity::new("s", Some("b"), "a"),
        ];
        for (at, one) in all.iter().enumerate() {
            assert!(!all[..at].contains(one));
        }
        assert_eq!(
            Identity::new("s", Some("k"), "a"),
            Identity::new("s", Some("k"), "b")
        );
        let sizes = fresh("a").sizes;
        let other = Sizes { lines: 9, ..sizes };
        let keys = [
            all[0].chunk_key(sizes, 0),
            all[0].chunk_key(sizes, 1),
            all[0].chunk_key(other, 0),
            all[1].chunk_key(sizes, 0),
        ];
        for (at, key) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(key) && key.len() < 200, "{key}");
        }
    }

    #[test]
    fn what_was_written_is_found_again_and_gone_at_the_end() {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::new("s", None, "a");
        let mut first = ProgressFile::open(dir.path(), &identity, fresh("a")).expect("made");
        assert!(!first.resumed && first.path().exists());
        first.progress.acknowledged.lines = 7;
        first.write().expect("written");
        let mut other = fresh("a");
        other.sizes.lines = 99;
        let second = ProgressFile::open(dir.path(), &identity, other).expect("found");
        assert!(second.resumed);
        assert_eq!(
            second.progress, first.progress,
            "the sizes that were begun with stay"
        );
        assert_eq!(files(dir.path()), [first.path()]);
        second.remove().expect("removed");
        assert!(files(dir.path()).is_empty());
        first.remove().expect("another run has removed it already");
    }

    #[test]
    fn another_content_under_a_key_that_is_begun_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::new("s", Some("k"), "a");
        ProgressFile::open(dir.path(), &identity, fresh("a")).expect("made");
        let failure = ProgressFile::open(dir.path(), &identity, fresh("b")).expect_err("another");
        assert_eq!(failure.code, Code::Usage);
        assert!(failure.message.contains("tasks.jsonl"), "{failure}");
    }

    #[test]
    fn a_damaged_file_is_named() {
        let dir = tempfile::tempdir().expect("a folder");
        let identity = Identity::new("s", None, "a");
        let file = ProgressFile::open(dir.path(), &identity, fresh("a")).expect("made");
        fs::write(file.path(), "{").expect("written");
        let failure = ProgressFile::open(dir.path(), &identity, fresh("a")).expect_err("damaged");
        assert!(failure.message.contains("damaged"), "{failure}");
    }

    #[test]
    fn a_growing_file_is_cut_back_to_what_is_acknowledged() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("ids");
        let mut ids = Growing::open(&path, None).expect("made");
        ids.append("one\n").expect("written");
        let acknowledged = ids.grown.clone();
        ids.append("two\n").expect("written");
        assert!(Growing::open(&path, None).is_err(), "it is somebody's");
        let mut ids = Growing::open(&path, Some(&acknowledged)).expect("found");
        ids.append("TWO\n").expect("written");
        assert_eq!(fs::read_to_string(&path).expect("there"), "one\nTWO\n");
        let longer = Grown {
            bytes: 99,
            ..acknowledged.clone()
        };
        assert!(
            Growing::open(&path, Some(&longer)).is_err(),
            "it has lost something"
        );
        let begun = Grown {
            bytes: 0,
            ..acknowledged
        };
        let ids = Growing::open(&path, Some(&begun)).expect("nothing was acknowledged yet");
        assert_eq!(ids.grown.bytes, 0);
    }
}
