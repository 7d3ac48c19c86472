//! What agents' processes write: read at once, so that nobody waits for us, kept in a bounded tail, and passed on as far as a
//! rate allows. What is beyond it is counted, not kept.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use futures::StreamExt;
use serde::{Deserialize, Serialize};
use swarm_agent_host_core::Key;
use swarm_events::{
    Timestamp,
    agent::LAST_OUTPUT_BYTES_MAX,
    subject::{Place, agent_log, parse_agent_log_tail},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    sync::mpsc,
};

use crate::Tails;

/// Lines of an agent that are kept.
pub const TAIL_LINES_MAX: usize = 1_000;
/// Bytes of these lines: 100 agents cost 6 MiB at the most.
pub const TAIL_BYTES_MAX: usize = 64 * 1024;
/// A longer line is cut into several.
pub const LINE_BYTES_MAX: usize = 8 * 1024;
/// Lines of an agent that are kept and passed on in a second, with as many again at once: more than anybody reads.
pub const LINES_PER_SECOND: u32 = 200;
/// Bytes of these lines.
pub const BYTES_PER_SECOND: u32 = 128 * 1024;
/// Lines that are on their way to nats-server; what comes while it is slow or away is not passed on.
pub const UNDER_WAY_MAX: usize = 1_024;
/// Lines in an answer unless it was asked for more or fewer.
const LINES_DEFAULT: usize = 100;
const READ_BYTES: usize = 64 * 1024;

/// Where a line was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A line as it is kept and passed on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Line {
    /// When it was read, by the host's clock.
    pub at: Timestamp,
    /// Where it was written.
    pub stream: Stream,
    /// Without its end; what is not UTF-8 is replaced.
    pub text: String,
}

/// What is asked of a tail.
#[derive(Clone, Copy, Debug, Default, Deserialize)]
struct Ask {
    lines: Option<usize>,
}

/// The answer.
#[derive(Serialize)]
struct Answer {
    lines: Vec<Line>,
    dropped: u64,
}

/// The last lines of an agent, of all the processes that it has had here.
#[derive(Debug, Default)]
pub struct Tail(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    lines: VecDeque<Line>,
    bytes: usize,
    dropped: u64,
    /// The end of all that was written, whether it was kept or not.
    last: Vec<u8>,
    budget: Option<Budget>,
}

/// A second's worth of lines and bytes, filled as time passes.
#[derive(Debug)]
struct Budget {
    at: Instant,
    lines: f64,
    bytes: f64,
}

impl Budget {
    fn full(at: Instant) -> Self {
        Self {
            at,
            lines: 2.0 * f64::from(LINES_PER_SECOND),
            bytes: 2.0 * f64::from(BYTES_PER_SECOND),
        }
    }

    fn fill(&mut self, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        let full = Self::full(now);
        self.at = now;
        self.lines = full
            .lines
            .min(self.lines + passed * f64::from(LINES_PER_SECOND));
        self.bytes = full
            .bytes
            .min(self.bytes + passed * f64::from(BYTES_PER_SECOND));
    }

    fn spend(&mut self, bytes: usize) -> bool {
        #[allow(clippy::cast_precision_loss, reason = "a line is short")]
        let bytes = bytes as f64;
        if self.lines < 1.0 || self.bytes < bytes {
            return false;
        }
        self.lines -= 1.0;
        self.bytes -= bytes;
        true
    }
}

impl Tail {
    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `lines` of the last lines, and how many were not kept so far.
    pub fn last(&self, lines: usize) -> (Vec<Line>, u64) {
        let kept = self.lock();
        let skip = kept.lines.len().saturating_sub(lines);
        (
            kept.lines.iter().skip(skip).cloned().collect(),
            kept.dropped,
        )
    }

    /// The end of all that was written, at most [`LAST_OUTPUT_BYTES_MAX`] bytes.
    pub fn last_output(&self) -> String {
        let kept = self.lock();
        let text = String::from_utf8_lossy(&kept.last);
        // The first character may be a part of one; what replaces it is longer than it was.
        let text = text.trim_start_matches(char::REPLACEMENT_CHARACTER);
        let mut start = text.len().saturating_sub(LAST_OUTPUT_BYTES_MAX);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        text[start..].to_owned()
    }

    /// A new process begins: what the last one wrote is not its last output.
    pub(crate) fn begin(&self) {
        self.lock().last.clear();
    }

    /// Takes bytes of a stream; whole lines that are kept go to `pass`. `part` is the line that is being read.
    fn take(
        &self,
        stream: Stream,
        part: &mut Vec<u8>,
        bytes: &[u8],
        now: Instant,
        mut pass: impl FnMut(&Line),
    ) {
        let mut kept = self.lock();
        let end = &bytes[bytes.len().saturating_sub(LAST_OUTPUT_BYTES_MAX)..];
        kept.last.extend_from_slice(end);
        let over = kept.last.len().saturating_sub(LAST_OUTPUT_BYTES_MAX);
        kept.last.drain(..over);
        kept.budget
            .get_or_insert_with(|| Budget::full(now))
            .fill(now);
        let mut rest = bytes;
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            part.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            if !kept.keep(stream, part, &mut pass) {
                // A flood: the lines that follow are only counted.
                let lines = rest.iter().filter(|byte| **byte == b'\n').count();
                kept.dropped += lines as u64;
                let after = rest.iter().rposition(|byte| *byte == b'\n');
                rest = &rest[after.map_or(0, |at| at + 1)..];
            }
        }
        part.extend_from_slice(rest);
        while part.len() > LINE_BYTES_MAX {
            let mut line: Vec<u8> = part.drain(..LINE_BYTES_MAX).collect();
            kept.keep(stream, &mut line, &mut pass);
        }
    }

    fn end(&self, stream: Stream, part: &mut Vec<u8>, mut pass: impl FnMut(&Line)) {
        if !part.is_empty() {
            self.lock().keep(stream, part, &mut pass);
        }
    }
}

impl Kept {
    /// Keeps a line and empties it; says whether there was room for it in this second.
    fn keep(&mut self, stream: Stream, line: &mut Vec<u8>, pass: &mut impl FnMut(&Line)) -> bool {
        let affordable = match &mut self.budget {
            Some(budget) => budget.spend(line.len()),
            None => true,
        };
        if affordable {
            line.truncate(LINE_BYTES_MAX);
            let text = line.strip_suffix(b"\r").unwrap_or(line);
            let line = Line {
                at: Timestamp::from(chrono::Utc::now()),
                stream,
                text: String::from_utf8_lossy(text).into_owned(),
            };
            pass(&line);
            self.bytes += line.text.len();
            self.lines.push_back(line);
            while self.lines.len() > TAIL_LINES_MAX || self.bytes > TAIL_BYTES_MAX {
                let Some(oldest) = self.lines.pop_front() else {
                    break;
                };
                self.bytes -= oldest.text.len();
            }
        } else {
            self.dropped += 1;
        }
        line.clear();
        affordable
    }
}

/// Lines on their way to whoever follows them now.
#[derive(Clone)]
pub(crate) struct Passing(mpsc::Sender<(String, Vec<u8>)>);

impl Passing {
    /// Passes lines on by core NATS until all clones are gone.
    pub(crate) fn start(client: async_nats::Client) -> Self {
        let (sender, mut lines) = mpsc::channel::<(String, Vec<u8>)>(UNDER_WAY_MAX);
        tokio::spawn(async move {
            while let Some((subject, line)) = lines.recv().await {
                if let Err(error) = client.publish(subject, line.into()).await {
                    tracing::debug!(%error, "a line is not passed on");
                }
            }
        });
        Self(sender)
    }

    fn pass(&self, subject: &str, line: &Line) {
        if let Ok(line) = serde_json::to_vec(line) {
            let _ = self.0.try_send((subject.to_owned(), line)); // a hint: the tail has it
        }
    }
}

/// Reads a stream of a process to its end.
pub(crate) async fn pump(
    mut pipe: impl AsyncRead + Unpin,
    stream: Stream,
    key: Key,
    tail: Arc<Tail>,
    passing: Passing,
) {
    let subject = agent_log(key.place.org, key.place.swarm, key.agent);
    let (mut buffer, mut part) = (vec![0; READ_BYTES], Vec::new());
    loop {
        match pipe.read(&mut buffer).await {
            Ok(0) | Err(_) => break,
            Ok(read) => tail.take(stream, &mut part, &buffer[..read], Instant::now(), |line| {
                passing.pass(&subject, line);
            }),
        }
    }
    tail.end(stream, &mut part, |line| passing.pass(&subject, line));
}

/// Answers those who ask for the last lines of an agent that this host knows, until the connection ends.
pub(crate) async fn answer(client: async_nats::Client, tails: Arc<Tails>) {
    let subscribed = client.subscribe("swarm.log.*.*.*.tail").await;
    let mut asked = match subscribed {
        Ok(asked) => asked,
        Err(error) => {
            tracing::warn!(%error, "nobody can ask for what agents wrote");
            return;
        }
    };
    while let Some(message) = asked.next().await {
        let (Some(reply), Some((org, swarm, agent))) =
            (message.reply, parse_agent_log_tail(&message.subject))
        else {
            continue;
        };
        // Another host may know it: who does not says nothing.
        let key = Key {
            place: Place::new(org, swarm),
            agent,
        };
        let Some(tail) = tails.get(key) else { continue };
        let ask: Ask = serde_json::from_slice(&message.payload).unwrap_or_default();
        let (lines, dropped) = tail.last(ask.lines.unwrap_or(LINES_DEFAULT));
        if let Ok(answer) = serde_json::to_vec(&Answer { lines, dropped })
            && let Err(error) = client.publish(reply, answer.into()).await
        {
            tracing::debug!(%error, "an answer is not sent");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn texts(tail: &Tail) -> Vec<String> {
        let lines = tail.last(usize::MAX).0;
        lines.into_iter().map(|line| line.text).collect()
    }

    #[test]
    fn lines_are_put_together_from_what_comes() {
        let (tail, mut part, mut passed) = (Tail::default(), Vec::new(), 0);
        let now = Instant::now();
        for bytes in [&b"on"[..], b"e\r\ntw", b"o\n\nthr", b"ee"] {
            tail.take(Stream::Stdout, &mut part, bytes, now, |_| passed += 1);
        }
        assert_eq!(texts(&tail), ["one", "two", ""]);
        tail.end(Stream::Stdout, &mut part, |_| passed += 1);
        assert_eq!(texts(&tail), ["one", "two", "", "three"]);
        assert_eq!(passed, 4);
        assert_eq!(tail.last(1).0[0].text, "three");
        assert_eq!(tail.last_output(), "one\r\ntwo\n\nthree");
    }

    #[test]
    fn a_flood_is_counted_and_its_end_is_there() {
        let (tail, mut part) = (Tail::default(), Vec::new());
        let now = Instant::now();
        let flood = b"y\n".repeat(10_000);
        tail.take(Stream::Stdout, &mut part, &flood, now, |_| ());
        let kept = 2 * LINES_PER_SECOND as usize;
        assert_eq!(texts(&tail).len(), kept);
        assert_eq!(tail.last(0).1, 10_000 - kept as u64);
        assert_eq!(tail.last_output().len(), LAST_OUTPUT_BYTES_MAX);
        let later = now + Duration::from_secs(1);
        tail.take(Stream::Stdout, &mut part, b"calm\n", later, |_| ());
        assert_eq!(texts(&tail).last().map(String::as_str), Some("calm"));
    }

    #[test]
    fn a_tail_keeps_so_many_lines_and_bytes_and_cuts_long_lines() {
        let (tail, mut part) = (Tail::default(), Vec::new());
        let mut now = Instant::now();
        for number in 0..=TAIL_LINES_MAX {
            now += Duration::from_secs(1);
            let line = format!("{number}\n");
            tail.take(Stream::Stderr, &mut part, line.as_bytes(), now, |_| ());
        }
        assert_eq!(texts(&tail).len(), TAIL_LINES_MAX);
        assert_eq!(texts(&tail)[0], "1");
        let long = vec![b'x'; LINE_BYTES_MAX + 1];
        tail.take(Stream::Stderr, &mut part, &long, now, |_| ());
        assert_eq!(texts(&tail).last().map(String::len), Some(LINE_BYTES_MAX));
        assert_eq!(part.len(), 1);
        for _ in 0..TAIL_BYTES_MAX / LINE_BYTES_MAX {
            now += Duration::from_secs(1);
            tail.take(Stream::Stderr, &mut part, &long, now, |_| ());
        }
        let bytes: usize = texts(&tail).iter().map(String::len).sum();
        assert!(bytes <= TAIL_BYTES_MAX);
        assert_eq!(tail.last(0).1, 0, "what was pushed out was kept once");
    }

    #[test]
    fn the_last_output_begins_with_a_whole_character() {
        let (tail, mut part) = (Tail::default(), Vec::new());
        let text = "ä".repeat(LAST_OUTPUT_BYTES_MAX);
        let odd = format!("{text}x");
        tail.take(
            Stream::Stdout,
            &mut part,
            odd.as_bytes(),
            Instant::now(),
            |_| (),
        );
        let last = tail.last_output();
        assert!(last.len() <= LAST_OUTPUT_BYTES_MAX && last.ends_with("äx"));
        assert!(last.starts_with('ä'));
        tail.begin();
        assert_eq!(tail.last_output(), "");
    }
}
