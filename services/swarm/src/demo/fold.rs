//! Folding counts: files into folders, folders into the whole, the whole into a report.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::count::{FileFacts, hex};

/// Sums over several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sums {
    /// Files.
    pub files: u64,
    /// Lines.
    pub lines: u64,
    /// Words.
    pub words: u64,
    /// Bytes.
    pub bytes: u64,
}
impl Sums {
    fn add(&mut self, other: &Self) {
        self.files += other.files;
        self.lines += other.lines;
        self.words += other.words;
        self.bytes += other.bytes;
    }
}

/// The longest line of several files.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Longest {
    /// Its bytes.
    pub bytes: u64,
    /// Where it is; of several equally long ones the last by path.
    pub path: String,
}

/// What a folder, or the whole, comes to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Folded {
    /// The folder; empty for the whole.
    pub folder: String,
    /// Sums.
    pub sums: Sums,
    /// Sums by language.
    pub languages: BTreeMap<String, Sums>,
    /// The longest line.
    pub longest: Longest,
    /// SHA-256 over the sorted hashes and names below: equal only if every byte of every file is.
    pub digest: String,
}

/// The report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The whole.
    pub totals: Folded,
    /// How many folders.
    pub folders: u64,
    /// For people.
    pub markdown: String,
}

/// Folds the files of a folder.
pub fn folder(name: &str, files: &[FileFacts]) -> Folded {
    let mut folded = Folded {
        folder: name.to_owned(),
        ..Folded::default()
    };
    for file in files {
        let sums = Sums {
            files: 1,
            lines: file.lines,
            words: file.words,
            bytes: file.bytes,
        };
        folded.sums.add(&sums);
        folded
            .languages
            .entry(file.language.clone())
            .or_default()
            .add(&sums);
        folded.longest = folded.longest.max(Longest {
            bytes: file.longest_line,
            path: file.path.clone(),
        });
    }
    folded.digest = digest(
        files
            .iter()
            .map(|file| (file.sha256.as_str(), file.path.as_str())),
    );
    folded
}

/// Folds folders into the whole.
pub fn whole(folders: &[Folded]) -> Folded {
    let mut all = Folded::default();
    for folder in folders {
        all.sums.add(&folder.sums);
        for (language, sums) in &folder.languages {
            all.languages.entry(language.clone()).or_default().add(sums);
        }
        all.longest = all.longest.max(folder.longest.clone());
    }
    all.digest = digest(
        folders
            .iter()
            .map(|folder| (folder.digest.as_str(), folder.folder.as_str())),
    );
    all
}

fn digest<'a>(parts: impl Iterator<Item = (&'a str, &'a str)>) -> String {
    let mut lines: Vec<String> = parts
        .map(|(hash, name)| format!("{hash}  {name}\n"))
        .collect();
    lines.sort();
    hex(&Sha256::digest(lines.concat()))
}

/// Makes the report.
pub fn report(title: &str, folders: &[Folded]) -> Report {
    let totals = whole(folders);
    let markdown = markdown(title, &totals, folders);
    Report {
        folders: folders.len() as u64,
        totals,
        markdown,
    }
}

/// Folders in the report's table; a person reads no more, and all of them are in the totals.
const FOLDERS_SHOWN: usize = 10;

fn markdown(title: &str, totals: &Folded, folders: &[Folded]) -> String {
    let mut text = String::new();
    let head = |first: &str| {
        format!("| {first} | files | lines | words | bytes |\n|---|--:|--:|--:|--:|\n")
    };
    let row = |name: &str, s: &Sums| {
        format!(
            "| {name} | {} | {} | {} | {} |\n",
            s.files, s.lines, s.words, s.bytes
        )
    };
    // Writing to a string cannot fail.
    let _ = write!(text, "# {title}\n\n{}", head("language"));
    let mut languages: Vec<_> = totals.languages.iter().collect();
    languages.sort_by(|a, b| (b.1.lines, a.0).cmp(&(a.1.lines, b.0)));
    for (language, sums) in languages {
        text.push_str(&row(language, sums));
    }
    text.push_str(&row("**all**", &totals.sums));
    let mut largest: Vec<&Folded> = folders.iter().collect();
    largest.sort_by(|a, b| (b.sums.lines, &a.folder).cmp(&(a.sums.lines, &b.folder)));
    let _ = write!(text, "\n{}", head("folder"));
    for folder in largest.iter().take(FOLDERS_SHOWN) {
        text.push_str(&row(&folder.folder, &folder.sums));
    }
    if let Some(more) = folders
        .len()
        .checked_sub(FOLDERS_SHOWN)
        .filter(|more| *more > 0)
    {
        let _ = writeln!(text, "\n… and {more} folders more.");
    }
    let _ = write!(
        text,
        "\nLongest line: {} bytes, in `{}`. SHA-256 over all: `{}`.\n",
        totals.longest.bytes, totals.longest.path, totals.digest
    );
    text
}

/// Every leaf in which two JSON values differ, by its path.
pub fn differences(path: &str, ours: &Value, theirs: &Value) -> Vec<String> {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
            names.sort();
            names.dedup();
            names
                .into_iter()
                .flat_map(|name| {
                    let below = if path.is_empty() {
                        name.clone()
                    } else {
                        format!("{path}.{name}")
                    };
                    differences(
                        &below,
                        &a.get(name).cloned().unwrap_or_default(),
                        &b.get(name).cloned().unwrap_or_default(),
                    )
                })
                .collect()
        }
        (a, b) if a == b => Vec::new(),
        (a, b) => vec![format!(
            "{path}: the swarm says {a}, the direct computation {b}"
        )],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::demo::count::count;

    fn files() -> Vec<FileFacts> {
        vec![
            count("a/x.rs", b"fn main() {}\n"),
            count("a/y.md", b"# y\nlong line here\n"),
            count("b/z.rs", b"//\n"),
        ]
    }

    #[test]
    fn folding_in_parts_is_folding_the_whole() {
        let files = files();
        let parts = [folder("a", &files[..2]), folder("b", &files[2..])];
        let all = whole(&parts);
        assert_eq!(
            all.sums,
            Sums {
                files: 3,
                lines: 4,
                words: 9,
                bytes: 35
            }
        );
        assert_eq!(all.languages["Rust"].files, 2);
        assert_eq!(
            all.longest,
            Longest {
                bytes: 14,
                path: "a/y.md".into()
            }
        );
        let mut turned = parts.clone();
        turned.reverse();
        assert_eq!(whole(&turned), all, "the order does not matter");
    }

    #[test]
    fn one_changed_byte_changes_the_digest() {
        let mut files = files();
        let before = folder("a", &files);
        files[0] = count("a/x.rs", b"fn main() {};");
        assert_ne!(folder("a", &files).digest, before.digest);
    }

    #[test]
    fn the_report_shows_the_totals() {
        let report = report("Title", &[folder("a", &files())]);
        assert!(
            report.markdown.contains("| **all** | 3 | 4 | 9 | 35 |"),
            "{}",
            report.markdown
        );
        assert!(report.markdown.starts_with("# Title\n"));
    }

    #[test]
    fn differences_are_named_by_their_path() {
        let a = serde_json::json!({"sums": {"lines": 1, "words": 2}, "x": 1});
        let b = serde_json::json!({"sums": {"lines": 3, "words": 2}});
        let found = differences("", &a, &b);
        assert_eq!(found.len(), 2);
        assert!(
            found[0].starts_with("sums.lines: the swarm says 1,"),
            "{found:?}"
        );
        assert!(differences("", &a, &a).is_empty());
    }
}
