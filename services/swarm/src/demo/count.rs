//! What is counted in one file.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The figures of one file. A pure function of its bytes and name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Path below the root, with `/`.
    pub path: String,
    /// Lines; a last one without a line feed counts too.
    pub lines: u64,
    /// Runs of bytes between ASCII white space.
    pub words: u64,
    /// Size.
    pub bytes: u64,
    /// Bytes of the longest line, without its line feed.
    pub longest_line: u64,
    /// Language by the name's extension.
    pub language: String,
    /// SHA-256 in lower-case hex.
    pub sha256: String,
}

/// Counts one file.
pub fn count(path: &str, bytes: &[u8]) -> FileFacts {
    let lines = || bytes.split_inclusive(|byte| *byte == b'\n');
    let length = |line: &[u8]| line.strip_suffix(b"\n").unwrap_or(line).len() as u64;
    FileFacts {
        path: path.to_owned(),
        lines: lines().count() as u64,
        words: bytes
            .split(u8::is_ascii_whitespace)
            .filter(|word| !word.is_empty())
            .count() as u64,
        bytes: bytes.len() as u64,
        longest_line: lines().map(length).max().unwrap_or(0),
        language: language(path).to_owned(),
        sha256: hex(&Sha256::digest(bytes)),
    }
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Extensions and whole names, and the language that they stand for.
const LANGUAGES: [(&[&str], &str); 25] = [
    (&["rs"], "Rust"),
    (&["toml", "lock"], "TOML"),
    (&["md"], "Markdown"),
    (&["json", "ndjson"], "JSON"),
    (&["yaml", "yml"], "YAML"),
    (&["sql"], "SQL"),
    (&["py"], "Python"),
    (&["sh", "bash", "dev", "run"], "Shell"),
    (&["js", "mjs", "cjs"], "JavaScript"),
    (&["ts", "tsx"], "TypeScript"),
    (&["html", "htm"], "HTML"),
    (&["css"], "CSS"),
    (&["c", "h"], "C"),
    (&["cc", "cpp", "hpp", "cxx"], "C++"),
    (&["go"], "Go"),
    (&["java"], "Java"),
    (&["kt"], "Kotlin"),
    (&["rb"], "Ruby"),
    (&["php"], "PHP"),
    (&["swift"], "Swift"),
    (&["cs"], "C#"),
    (&["conf", "cfg", "ini"], "Configuration"),
    (&["xml", "svg"], "XML"),
    (&["proto"], "Protocol Buffers"),
    (&["makefile", "mk"], "Make"),
];

fn language(path: &str) -> &'static str {
    let name = path.rsplit('/').next().unwrap_or(path).to_ascii_lowercase();
    let extension = name.rsplit('.').next().unwrap_or(&name);
    LANGUAGES
        .iter()
        .find(|(extensions, _)| extensions.contains(&extension))
        .map_or("other", |(_, language)| language)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_those_of_the_usual_tools() {
        let facts = count("a/b.rs", b"one two\n\tthree  \n");
        assert_eq!(
            (facts.lines, facts.words, facts.bytes, facts.longest_line),
            (2, 3, 17, 8)
        );
        assert_eq!(facts.language, "Rust");
        // printf 'one two\n\tthree  \n' | sha256sum
        assert_eq!(facts.sha256.len(), 64);
    }

    #[test]
    fn a_known_text_has_its_known_hash() {
        let facts = count("x", b"abc");
        assert_eq!(
            facts.sha256,
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            (facts.lines, facts.longest_line, facts.language.as_str()),
            (1, 3, "other")
        );
    }

    #[test]
    fn an_empty_file_has_nothing() {
        let facts = count("e.md", b"");
        assert_eq!(
            (facts.lines, facts.words, facts.bytes, facts.longest_line),
            (0, 0, 0, 0)
        );
    }
}
