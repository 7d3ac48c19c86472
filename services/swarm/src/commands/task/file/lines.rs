//! A file of lines, read in chunks: of no file more than a few chunks is in memory.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::check::{Wrong, check};

/// Tasks in a chunk: what the gateway stores in a few batches, and so little that a repeat after an interruption costs nothing.
pub const CHUNK_LINES: usize = 1_000;
/// A chunk that has so many bytes takes no further line: an eighth of what the gateway takes in one request.
pub const CHUNK_BYTES: usize = 1024 * 1024;
/// Longest line, in bytes: the largest payload and all that can stand beside it.
pub const LINE_BYTES_MAX: usize = 1024 * 1024;
/// How much is read at a time.
const READ_BYTES: usize = 256 * 1024;
/// What an editor may put before the first line.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// What can be read and read again.
pub trait Input: Read + Seek + Send {}
impl<T: Read + Seek + Send> Input for T {}

/// Where chunks end. Part of a submission's identity: with other sizes the same file has other chunks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Most tasks.
    pub lines: usize,
    /// Bytes from which on no further line is taken.
    pub bytes: usize,
}

/// How far a file has been read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Chunks so far.
    pub chunks: u64,
    /// Lines so far, empty ones too.
    pub lines: u64,
    /// Bytes so far.
    pub bytes: u64,
}

/// A line with its number in the file, from 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Its number.
    pub number: u64,
    /// Its text, without the line's end; empty if it is too long.
    pub text: Vec<u8>,
}

/// Lines that are submitted together.
#[derive(Debug)]
pub struct Chunk {
    /// Its number, from 0.
    pub index: u64,
    /// The tasks.
    pub tasks: Vec<Line>,
    /// Lines that are none.
    pub wrong: Vec<(Line, Wrong)>,
    /// How far the file has been read with it.
    pub end: Mark,
}

/// Lines one after the other.
struct Lines<R> {
    input: BufReader<R>,
    at: Mark,
}

impl<R: Read> Lines<R> {
    fn new(input: R, at: Mark) -> Self {
        Self {
            input: BufReader::with_capacity(READ_BYTES, input),
            at,
        }
    }

    /// The next line that is not empty. One that is too long comes without its text.
    fn next(&mut self) -> io::Result<Option<Result<Line, (Line, Wrong)>>> {
        loop {
            let mut text = Vec::new();
            let most = LINE_BYTES_MAX as u64 + 2; // with its end, of one or two bytes
            let read = (&mut self.input).take(most).read_until(b'\n', &mut text)?;
            if read == 0 {
                return Ok(None);
            }
            self.at.lines += 1;
            self.at.bytes += read as u64;
            let mut long = text.last() != Some(&b'\n') && read as u64 == most;
            if long {
                self.at.bytes += self.skip_line()?;
            }
            if self.at.lines == 1 && text.starts_with(BYTE_ORDER_MARK) {
                text.drain(..BYTE_ORDER_MARK.len());
            }
            let number = self.at.lines;
            let kept = text.trim_ascii_end().len();
            text.truncate(kept);
            long |= text.len() > LINE_BYTES_MAX;
            if long {
                let wrong = Wrong::line(
                    format!("the line has more than {LINE_BYTES_MAX} bytes"),
                    "store large data elsewhere and pass a reference to it",
                );
                let text = Vec::new();
                return Ok(Some(Err((Line { number, text }, wrong))));
            }
            if !text.trim_ascii_start().is_empty() {
                return Ok(Some(Ok(Line { number, text })));
            }
        }
    }

    /// Goes on behind the line's end; how many bytes that were.
    fn skip_line(&mut self) -> io::Result<u64> {
        let mut skipped = 0;
        loop {
            let buffer = self.input.fill_buf()?;
            if buffer.is_empty() {
                return Ok(skipped);
            }
            let end = buffer.iter().position(|byte| *byte == b'\n');
            let used = end.map_or(buffer.len(), |at| at + 1);
            self.input.consume(used);
            skipped += used as u64;
            if end.is_some() {
                return Ok(skipped);
            }
        }
    }
}

/// The chunks of a file.
pub struct Chunks<R> {
    lines: Lines<R>,
    sizes: Sizes,
    check: bool,
}

impl<R: Read + Seek> Chunks<R> {
    /// The chunks behind `from`. With `check`, lines that are no tasks are set apart; else all are taken as they are.
    ///
    /// # Errors
    /// If the file cannot be read there.
    pub fn new(mut input: R, from: Mark, sizes: Sizes, check: bool) -> io::Result<Self> {
        input.seek(SeekFrom::Start(from.bytes))?;
        Ok(Self {
            lines: Lines::new(input, from),
            sizes,
            check,
        })
    }

    /// The next chunk, `None` at the end.
    ///
    /// # Errors
    /// If the file cannot be read.
    pub fn next(&mut self) -> io::Result<Option<Chunk>> {
        let (mut tasks, mut wrong, mut bytes) = (Vec::new(), Vec::new(), 0);
        while tasks.len() + wrong.len() < self.sizes.lines && bytes < self.sizes.bytes {
            match self.lines.next()? {
                None => break,
                Some(Err(long)) => wrong.push(long),
                Some(Ok(line)) => {
                    bytes += line.text.len();
                    match if self.check {
                        check(&line.text)
                    } else {
                        Ok(())
                    } {
                        Ok(()) => tasks.push(line),
                        Err(problem) => wrong.push((line, problem)),
                    }
                }
            }
        }
        if tasks.is_empty() && wrong.is_empty() {
            return Ok(None);
        }
        let index = self.lines.at.chunks;
        self.lines.at.chunks += 1;
        Ok(Some(Chunk {
            index,
            tasks,
            wrong,
            end: self.lines.at,
        }))
    }
}

/// What a first reading finds.
#[derive(Debug, PartialEq, Eq)]
pub struct Scan {
    /// SHA-256 of all bytes, lower-case hex.
    pub sha256: String,
    /// Lines, empty ones too.
    pub lines: u64,
    /// Lines that are no tasks.
    pub wrong: u64,
    /// The first of them.
    pub first_wrong: Option<(u64, Wrong)>,
}

struct Hashing<'a, R> {
    input: R,
    hash: Sha256,
    told: &'a (dyn Fn(u64) -> io::Result<()> + Sync),
}

impl<R: Read> Read for Hashing<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.input.read(buffer)?;
        self.hash.update(&buffer[..read]);
        (self.told)(read as u64)?;
        Ok(read)
    }
}

/// Reads all of it once: its hash, its length, and whether every line is a task. `told` hears how many bytes were read, and
/// ends the reading by an error.
///
/// # Errors
/// If it cannot be read, or `told` ends it.
pub fn scan(
    input: &mut dyn Input,
    told: &(dyn Fn(u64) -> io::Result<()> + Sync),
) -> io::Result<Scan> {
    input.rewind()?;
    let hashing = Hashing {
        input,
        hash: Sha256::new(),
        told,
    };
    let mut lines = Lines::new(hashing, Mark::default());
    let (mut wrong, mut first_wrong) = (0, None);
    while let Some(line) = lines.next()? {
        let problem = match line {
            Ok(line) => check(&line.text).map_err(|wrong| (line.number, wrong)),
            Err((line, wrong)) => Err((line.number, wrong)),
        };
        if let Err(problem) = problem {
            wrong += 1;
            first_wrong.get_or_insert(problem);
        }
    }
    let sha256 = lines.input.into_inner().hash.finalize();
    Ok(Scan {
        sha256: hex(&sha256),
        lines: lines.at.lines,
        wrong,
        first_wrong,
    })
}

/// Lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether it holds a task on each line, and not one JSON document: its first line is a whole object that is no graph, and
/// another line follows.
///
/// # Errors
/// If it cannot be read.
pub fn looks_like_lines(input: &mut dyn Input) -> io::Result<bool> {
    #[derive(Deserialize)]
    struct Peek {
        tasks: Option<serde::de::IgnoredAny>,
    }
    input.rewind()?;
    let mut lines = Lines::new(input, Mark::default());
    let first = match lines.next()? {
        Some(Ok(first)) => first,
        // Nothing at all, or a document in one long line.
        None | Some(Err(_)) => return Ok(false),
    };
    let alone =
        serde_json::from_slice::<Peek>(&first.text).is_ok_and(|document| document.tasks.is_none());
    Ok(alone && lines.next()?.is_some())
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    const GOOD: &str = r#"{"task_type":"t","payload":{}}"#;

    fn chunks(text: &[u8], sizes: Sizes, from: Mark) -> Vec<Chunk> {
        let mut chunks = Chunks::new(Cursor::new(text), from, sizes, true).expect("readable");
        std::iter::from_fn(|| chunks.next().expect("readable")).collect()
    }
    const fn sizes(lines: usize, bytes: usize) -> Sizes {
        Sizes { lines, bytes }
    }
    fn scanned(text: &[u8]) -> Scan {
        scan(&mut Cursor::new(text.to_vec()), &|_| Ok(())).expect("readable")
    }

    #[test]
    fn a_chunk_ends_at_its_lines_or_behind_its_bytes() {
        let text = format!("{GOOD}\n").repeat(7);
        let tasks = |sizes| -> Vec<usize> {
            chunks(text.as_bytes(), sizes, Mark::default())
                .iter()
                .map(|chunk| chunk.tasks.len())
                .collect()
        };
        assert_eq!(tasks(sizes(3, CHUNK_BYTES)), [3, 3, 1]);
        assert_eq!(tasks(sizes(7, CHUNK_BYTES)), [7]);
        assert_eq!(tasks(sizes(100, GOOD.len() * 2)), [2, 2, 2, 1]);
        assert_eq!(tasks(sizes(100, GOOD.len() * 2 + 1)), [3, 3, 1]);
    }

    #[test]
    fn reading_on_behind_a_chunk_gives_the_chunks_that_follow() {
        let text = format!("{GOOD}\n\n  \r\n{GOOD}\r\n").repeat(5);
        let all = chunks(text.as_bytes(), sizes(3, CHUNK_BYTES), Mark::default());
        for (at, chunk) in all.iter().enumerate() {
            let rest = chunks(text.as_bytes(), sizes(3, CHUNK_BYTES), chunk.end);
            assert_eq!(rest.len(), all.len() - at - 1);
            for (a, b) in rest.iter().zip(&all[at + 1..]) {
                assert_eq!((a.index, &a.tasks, a.end), (b.index, &b.tasks, b.end));
            }
        }
        let numbers: Vec<u64> = all
            .iter()
            .flat_map(|chunk| chunk.tasks.iter().map(|line| line.number))
            .collect();
        assert_eq!(numbers, [1, 4, 5, 8, 9, 12, 13, 16, 17, 20]);
        assert_eq!(all.last().expect("some").end.bytes, text.len() as u64);
    }

    #[test]
    fn what_is_no_task_is_set_apart_and_counts_for_the_chunk() {
        let text = format!("\u{feff}{GOOD}\nbad\n{GOOD}\n{{\"task_type\":1}}\n{GOOD}");
        let all = chunks(text.as_bytes(), sizes(2, CHUNK_BYTES), Mark::default());
        let told: Vec<(usize, Vec<u64>)> = all
            .iter()
            .map(|chunk| {
                let wrong = chunk.wrong.iter().map(|(line, _)| line.number);
                (chunk.tasks.len(), wrong.collect())
            })
            .collect();
        assert_eq!(told, [(1, vec![2]), (1, vec![4]), (1, vec![])]);
        let scan = scanned(text.as_bytes());
        assert_eq!((scan.lines, scan.wrong), (5, 2));
        assert_eq!(scan.first_wrong.expect("one").0, 2);
    }

    #[test]
    fn a_line_is_read_up_to_the_limit_and_never_held_beyond() {
        for end in ["\n", "\r\n"] {
            for (bytes, long) in [
                (LINE_BYTES_MAX, false),
                (LINE_BYTES_MAX + 1, true),
                (LINE_BYTES_MAX + 2, true),
                (3 * LINE_BYTES_MAX, true),
            ] {
                let text = format!("{}{end}{GOOD}{end}", "x".repeat(bytes));
                let all = chunks(text.as_bytes(), sizes(10, usize::MAX), Mark::default());
                let (line, wrong) = &all[0].wrong[0];
                assert_eq!((line.number, line.text.is_empty()), (1, long), "{bytes}");
                assert_eq!(wrong.problem.contains("more than"), long, "{wrong}");
                assert_eq!(all[0].tasks[0].number, 2, "{bytes}");
                assert_eq!(all[0].end.bytes, text.len() as u64);
            }
        }
        // What lies beyond the limit is not passed over because blanks come first.
        let text = format!("{GOOD}{}{{}}\n", " ".repeat(LINE_BYTES_MAX));
        let all = chunks(text.as_bytes(), sizes(10, usize::MAX), Mark::default());
        assert_eq!((all[0].tasks.len(), all[0].wrong.len()), (0, 1));
    }

    #[test]
    fn an_empty_file_has_no_chunk() {
        for text in ["", "\n", "\n\n \n"] {
            assert!(chunks(text.as_bytes(), sizes(2, 10), Mark::default()).is_empty());
            assert_eq!(scanned(text.as_bytes()).wrong, 0);
        }
    }

    #[test]
    fn the_hash_is_that_of_all_bytes() {
        let text = format!("{GOOD}\n\n{GOOD}");
        assert_eq!(scanned(text.as_bytes()).sha256, hex(&Sha256::digest(&text)));
    }

    #[test]
    fn a_first_reading_can_be_ended() {
        let mut input = Cursor::new(GOOD.as_bytes().to_vec());
        let stopped = scan(&mut input, &|_| Err(io::Error::other("stopped")));
        assert_eq!(stopped.expect_err("stopped").to_string(), "stopped");
    }

    #[test]
    fn lines_are_told_from_a_document() {
        let looks = |text: &str| {
            looks_like_lines(&mut Cursor::new(text.as_bytes().to_vec())).expect("readable")
        };
        assert!(looks(&format!("{GOOD}\n{GOOD}\n")));
        assert!(looks(&format!("\n{GOOD}\nbad")));
        assert!(!looks(GOOD));
        assert!(!looks(&format!("{GOOD}\n\n")));
        assert!(!looks("{\"tasks\": []}\n{}\n"));
        assert!(!looks("{\n\"tasks\": []\n}\n"));
        assert!(!looks(""));
    }
}
