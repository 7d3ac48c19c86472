//! Which files the demo analyses.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, bail};

/// How much of a file is looked at to tell text from the rest, as git does.
const TEXT_BYTES: usize = 8_000;

/// Files to analyse.
pub struct Input {
    /// What they are below of.
    pub root: PathBuf,
    /// Paths below it, with `/`, sorted.
    pub files: Vec<String>,
    /// How many were left out because they are no text.
    pub skipped: usize,
}

/// The text files below `dir`, or those that git tracks in the repository of the current folder.
pub fn find(dir: Option<&Path>) -> anyhow::Result<Input> {
    let (root, mut paths) = match dir {
        Some(dir) => {
            let root = dir
                .canonicalize()
                .with_context(|| format!("cannot open {}", dir.display()))?;
            let mut paths = Vec::new();
            walk(&root, &root, &mut paths)?;
            (root, paths)
        }
        None => {
            let root = git(Path::new("."), &["rev-parse", "--show-toplevel"])
                .context("the current folder is in no git repository: name a folder with --dir")?;
            let root = PathBuf::from(root.trim_end());
            let listed = git(&root, &["ls-files", "-z"])?;
            let paths = listed
                .split('\0')
                .filter(|path| !path.is_empty())
                .map(str::to_owned)
                .collect();
            (root, paths)
        }
    };
    paths.sort();
    let all = paths.len();
    let mut files = Vec::new();
    for path in paths {
        if is_text(&root.join(&path))? {
            files.push(path);
        }
    }
    if files.is_empty() {
        bail!("there is no text file below {}", root.display());
    }
    Ok(Input {
        skipped: all - files.len(),
        root,
        files,
    })
}

fn git(dir: &Path, args: &[&str]) -> anyhow::Result<String> {
    let out = Command::new("git")
        .arg("-C")
        .arg(dir)
        .args(args)
        .output()
        .context("cannot run git")?;
    if !out.status.success() {
        bail!("git: {}", String::from_utf8_lossy(&out.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&out.stdout).into_owned())
}

fn walk(root: &Path, dir: &Path, paths: &mut Vec<String>) -> anyhow::Result<()> {
    let entries = fs::read_dir(dir).with_context(|| format!("cannot list {}", dir.display()))?;
    for entry in entries {
        let entry = entry?;
        let kind = entry.file_type()?;
        if kind.is_dir() && entry.file_name() != ".git" {
            walk(root, &entry.path(), paths)?;
        } else if kind.is_file()
            && let Ok(below) = entry.path().strip_prefix(root)
            // A name that is no UTF-8 cannot stand in a payload.
            && let Some(below) = below.to_str()
        {
            paths.push(below.to_owned());
        }
    }
    Ok(())
}

/// Whether it is a plain file without a zero byte at its beginning. Links and files that git tracks but that are gone
/// are none.
fn is_text(path: &Path) -> anyhow::Result<bool> {
    use std::io::Read;
    if !fs::symlink_metadata(path).is_ok_and(|file| file.is_file()) {
        return Ok(false);
    }
    let mut start = Vec::new();
    let file = fs::File::open(path).with_context(|| format!("cannot read {}", path.display()))?;
    file.take(TEXT_BYTES as u64).read_to_end(&mut start)?;
    Ok(!start.contains(&0))
}

/// Copies the files below `to`, so that the swarm and the direct computation see the same even if somebody edits one.
pub fn copy(input: &Input, to: &Path) -> anyhow::Result<()> {
    for file in &input.files {
        let target = to.join(file);
        if let Some(parent) = target.parent() {
            fs::create_dir_all(parent)
                .with_context(|| format!("cannot create {}", parent.display()))?;
        }
        fs::copy(input.root.join(file), &target).with_context(|| format!("cannot copy {file}"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_files_below_a_folder_are_found_in_order() {
        let dir = tempfile::tempdir().expect("a folder");
        for (name, bytes) in [
            ("b.txt", &b"b"[..]),
            ("sub/a.rs", b"a"),
            ("image.png", b"\x89P\0"),
            (".git/config", b"x"),
        ] {
            let path = dir.path().join(name);
            fs::create_dir_all(path.parent().expect("below")).expect("made");
            fs::write(path, bytes).expect("written");
        }
        std::os::unix::fs::symlink("b.txt", dir.path().join("link")).expect("linked");
        let input = find(Some(dir.path())).expect("found");
        assert_eq!(input.files, ["b.txt", "sub/a.rs"]);
        assert_eq!(
            input.skipped, 1,
            "the image; links and git's own files are not counted"
        );
        let copied = tempfile::tempdir().expect("a folder");
        copy(&input, copied.path()).expect("copied");
        assert_eq!(find(Some(copied.path())).expect("found").files, input.files);
    }

    #[test]
    fn an_empty_folder_is_refused() {
        let dir = tempfile::tempdir().expect("a folder");
        assert!(find(Some(dir.path())).is_err());
    }
}
