//! `swarm task submit --file tasks.jsonl`: a task on each line, however many there are.
//!
//! The input is read twice: once for its hash and for what is wrong with it, before anything is stored, and once to send it
//! in chunks. Each chunk goes under a key that derives from the content (or `--key`), the swarm and its number, so that
//! sending it again stores nothing twice; what is acknowledged is noted, so that a later run goes on behind it.

mod check;
mod display;
mod lines;
mod send;
mod state;

use std::{
    fs::File,
    io::{self, Read, Seek},
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};

use anyhow::Context;
use futures::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};
use swarm_events::configuration::queue_limit_for;
use tokio::{
    sync::mpsc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

use self::{
    display::Display,
    lines::{CHUNK_BYTES, CHUNK_LINES, Chunk, Chunks, Input, Mark, Sizes},
    send::{Stored, Target},
    state::{Growing, Grown, Identity, Progress, ProgressFile},
};
use crate::{
    api::Api,
    exit::{Code, Failure, Outcome},
    output::{self, Format},
};

/// Chunks that are on their way at a time: enough to keep the gateway busy while one is read and another answered.
const IN_FLIGHT: usize = 4;
/// A chunk is at most this part of the queue's limit.
const QUEUE_PARTS: u64 = 4;
/// What comes by a pipe is kept in memory up to this many bytes, and in a temporary file beyond.
const PIPE_BYTES_IN_MEMORY: usize = 8 * 1024 * 1024;

/// What `swarm task submit` says about a file of lines.
#[derive(clap::Args, Debug)]
pub struct LinesArgs {
    /// The file has a task on each line, whatever it looks like (known from .jsonl, .ndjson and its first lines)
    #[arg(long, requires = "file", conflicts_with = "task_type")]
    pub lines: bool,
    /// Leave out lines that are no tasks, and write them to this file with what is wrong
    #[arg(
        long,
        value_name = "FILE",
        requires = "file",
        conflicts_with = "task_type"
    )]
    pub skip_invalid: Option<PathBuf>,
    /// Write the id of each task to this file, one a line
    #[arg(
        long,
        value_name = "FILE",
        requires = "file",
        conflicts_with = "task_type"
    )]
    pub ids: Option<PathBuf>,
    /// Most lines sent in one request [default: 1000, fewer for a short queue]; in other chunks it is another submission
    #[arg(long, value_name = "N", requires = "file", conflicts_with = "task_type",
        value_parser = clap::value_parser!(u32).range(1..=i64::from(swarm_events::task::GRAPH_TASKS_MAX)))]
    pub chunk_lines: Option<u32>,
}

/// What `--file` names.
pub struct Source {
    name: String,
    input: Box<dyn Input>,
    bytes: u64,
    /// The file as it was when it was opened; `None` for a copy of our own.
    watched: Option<(File, SystemTime)>,
}

impl Source {
    /// Opens a file, or copies what comes by stdin (`-`) or another pipe, which can be read only once.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn open(name: &str) -> Outcome<Self> {
        let source = if name == "-" {
            Self::copy("stdin", io::stdin().lock())
        } else {
            File::open(name).and_then(|file| {
                let about = file.metadata()?;
                if !about.is_file() {
                    return Self::copy(name, file);
                }
                Ok(Self {
                    name: name.to_owned(),
                    bytes: about.len(),
                    watched: Some((file.try_clone()?, about.modified()?)),
                    input: Box::new(file),
                })
            })
        };
        Ok(source.with_context(|| format!("cannot read {name}"))?)
    }

    fn copy(name: &str, mut pipe: impl Read) -> io::Result<Self> {
        let mut copy = tempfile::spooled_tempfile(PIPE_BYTES_IN_MEMORY);
        let bytes = io::copy(&mut pipe, &mut copy)?;
        copy.rewind()?;
        Ok(Self {
            name: name.to_owned(),
            input: Box::new(copy),
            bytes,
            watched: None,
        })
    }

    /// All of it as text, for one JSON document.
    ///
    /// # Errors
    /// If it cannot be read as text.
    pub fn text(mut self) -> Outcome<String> {
        let mut text = String::new();
        let read = self
            .input
            .rewind()
            .and_then(|()| self.input.read_to_string(&mut text));
        read.with_context(|| format!("cannot read {}", self.name))?;
        Ok(text)
    }

    /// Whether it holds a task on each line, and not one JSON document.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn is_lines(&mut self, args: &LinesArgs) -> Outcome<bool> {
        let path = Path::new(&self.name);
        let named = path
            .extension()
            .is_some_and(|e| e == "jsonl" || e == "ndjson");
        let asked = args.lines || args.skip_invalid.is_some() || args.ids.is_some();
        Ok(asked || named || lines::looks_like_lines(&mut *self.input)?)
    }
}

/// Refuses to go on with a file that is not what it was.
fn unchanged(watched: Option<&(File, SystemTime)>, bytes: u64) -> io::Result<()> {
    let Some((file, modified)) = watched else {
        return Ok(());
    };
    let now = file.metadata()?;
    if now.len() == bytes && now.modified()? == *modified {
        return Ok(());
    }
    Err(io::Error::other("it was changed while it was submitted"))
}

/// A submission under way.
struct Submission<'a> {
    api: &'a Api,
    args: &'a LinesArgs,
    name: String,
    identity: Identity,
    file: ProgressFile,
    ids: Option<Growing>,
    left_out: Option<Growing>,
}

/// Submits every line.
pub async fn run(
    args: &LinesArgs,
    source: Source,
    key: Option<&str>,
    api: &Api,
    data: &Path,
    swarm: &str,
    output: Format,
) -> Outcome {
    let stop = swarm_runtime::shutdown::on_signals()?;
    let (source, scan) = scan(source, &stop).await?;
    if let (Some((number, wrong)), None) = (&scan.first_wrong, &args.skip_invalid) {
        let more = match scan.wrong - 1 {
            0 => String::new(),
            more => format!(", and {more} more lines are no tasks either"),
        };
        let failure = send::refused(*number, wrong).message;
        return Err(Failure::failed(format!(
            "{failure}{more}. Nothing of this run was stored; correct the file, or leave such lines out with --skip-invalid FILE"
        )));
    }
    let sizes = Sizes {
        lines: chunk_lines(args, api, swarm).await?,
        bytes: CHUNK_BYTES,
    };
    let identity = Identity::new(swarm, key, &scan.sha256);
    let fresh = Progress {
        file: source.name.clone(),
        swarm: swarm.to_owned(),
        sha256: scan.sha256.clone(),
        sizes,
        acknowledged: Mark::default(),
        tasks: 0,
        left_out: 0,
        ids: None,
        left_out_lines: None,
    };
    let mut file = ProgressFile::open(data, &identity, fresh)?;
    let grow = |path: &Option<PathBuf>, earlier: &Option<Grown>| {
        path.as_ref()
            .map(|path| Growing::open(path, earlier.as_ref()))
            .transpose()
    };
    let ids = grow(&args.ids, &file.progress.ids)?;
    let left_out = grow(&args.skip_invalid, &file.progress.left_out_lines)?;
    // Before anything is written into them: a later run knows them for its own.
    file.progress.ids = ids.as_ref().map(|ids| ids.grown.clone());
    file.progress.left_out_lines = left_out.as_ref().map(|lines| lines.grown.clone());
    file.write()?;
    let mut submission = Submission {
        api,
        args,
        name: source.name.clone(),
        identity,
        ids,
        left_out,
        file,
    };
    let before = submission.file.progress.clone();
    if submission.file.resumed {
        eprintln!(
            "{}: going on behind line {} of {} ({})",
            source.name,
            before.acknowledged.lines,
            scan.lines,
            submission.file.path().display()
        );
    }
    let began = Instant::now();
    submission.send_all(source, &scan, swarm, &stop).await?;
    let took = began.elapsed();
    let after = submission.file.progress.clone();
    submission.file.remove()?;
    report(args, &before, &after, scan.lines, took, output)
}

/// The first reading.
async fn scan(mut source: Source, stop: &CancellationToken) -> Outcome<(Source, lines::Scan)> {
    let display = Arc::new(Display::new("checking (bytes)", source.bytes));
    let (shown, stopped) = (display.clone(), stop.clone());
    let read = tokio::task::spawn_blocking(move || {
        let told = |bytes| {
            shown.more(bytes);
            if stopped.is_cancelled() {
                return Err(io::Error::other("interrupted: nothing was submitted"));
            }
            Ok(())
        };
        let scan = lines::scan(&mut *source.input, &told);
        scan.map(|scan| (source, scan))
    });
    let read = read.await.context("reading ended early")?;
    display.end();
    Ok(read.context("the first reading")?)
}

/// Lines in a chunk: no more than a part of what fits into the queue at a time, so that the gateway can take one while others
/// are worked on.
async fn chunk_lines(args: &LinesArgs, api: &Api, swarm: &str) -> Outcome<usize> {
    if let Some(lines) = args.chunk_lines {
        return Ok(usize::try_from(lines).unwrap_or(CHUNK_LINES));
    }
    let swarm = match api.get(&format!("/v1/swarms/{swarm}"), &[]).await {
        Err(failure) if failure.code == Code::NotFound => return Err(failure),
        // Sending has more patience than this look.
        looked => looked.unwrap_or_default(),
    };
    let organization = api.get("/v1/organization", &[]).await.unwrap_or_default();
    Ok(fitting(&swarm["configuration"], &organization))
}

fn fitting(configuration: &Value, organization: &Value) -> usize {
    let shed = configuration["shed_from_percent"]
        .as_u64()
        .and_then(|percent| u32::try_from(percent).ok())
        .unwrap_or(100);
    let room = [
        // What tasks of the lowest priority may fill.
        configuration["queue_limit"]
            .as_u64()
            .map(|limit| queue_limit_for(limit, shed, 1)),
        organization["queue_limit"].as_u64(),
    ];
    let part = room
        .into_iter()
        .flatten()
        .min()
        .map(|room| room / QUEUE_PARTS);
    part.and_then(|part| usize::try_from(part.max(1)).ok())
        .map_or(CHUNK_LINES, |part| part.min(CHUNK_LINES))
}

impl Submission<'_> {
    /// Sends what is not acknowledged yet, a few chunks at a time, and notes each acknowledgement in order.
    async fn send_all(
        &mut self,
        source: Source,
        scan: &lines::Scan,
        swarm: &str,
        stop: &CancellationToken,
    ) -> Outcome {
        let display = Display::new("submitting", scan.lines);
        display.begin_at(self.file.progress.acknowledged.lines);
        let path = format!("/v1/swarms/{swarm}/tasks/bulk");
        let target = Target {
            api: self.api,
            path: &path,
            leave_out: self.args.skip_invalid.is_some(),
            display: &display,
        };
        let (identity, sizes) = (self.identity.clone(), self.file.progress.sizes);
        let read = read_chunks(
            source,
            self.file.progress.acknowledged,
            sizes,
            scan.wrong > 0,
        );
        let read = stream::unfold(read, async |mut read| Some((read.recv().await?, read)));
        let sent = read
            .map_err(|error| Failure::failed(format!("{}: {error}", self.name)))
            .map_ok(|chunk| {
                let key = identity.chunk_key(sizes, chunk.index);
                target.send(chunk, key)
            })
            .try_buffered(IN_FLIGHT);
        let mut sent = std::pin::pin!(sent);
        let outcome = loop {
            let next = tokio::select! {
                next = sent.next() => next,
                () = stop.cancelled() => break Err(Failure::failed("interrupted")),
            };
            match next {
                None => break Ok(()),
                Some(Ok(stored)) => {
                    if let Err(failure) =
                        note(&mut self.file, &mut self.ids, &mut self.left_out, stored)
                    {
                        break Err(failure);
                    }
                    display.at(self.file.progress.acknowledged.lines);
                }
                Some(Err(failure)) => break Err(failure),
            }
        };
        display.end();
        outcome.map_err(|failure| self.how_to_go_on(failure, scan.lines))
    }

    fn how_to_go_on(&self, failure: Failure, lines: u64) -> Failure {
        let again = if self.name == "stdin" {
            "run the same command again with the same input"
        } else {
            "run the same command again"
        };
        Failure {
            code: failure.code,
            message: format!(
                "{}. The first {} of {lines} lines are stored for sure; to go on without storing any twice, {again}{} \
                 (progress is kept in {})",
                failure.message.trim_end_matches('.'),
                self.file.progress.acknowledged.lines,
                if failure.message.starts_with("line ") && self.args.skip_invalid.is_none() {
                    " with --skip-invalid FILE, which leaves out such lines"
                } else {
                    ""
                },
                self.file.path().display()
            ),
        }
    }
}

/// Notes a stored chunk: first in the files that grow with it, then in the one that says how far they count.
fn note(
    file: &mut ProgressFile,
    ids: &mut Option<Growing>,
    left_out: &mut Option<Growing>,
    stored: Stored,
) -> Outcome {
    let Stored { chunk, ids: named } = stored;
    let progress = &mut file.progress;
    if let Some(ids) = ids {
        let mut text = named.join("\n");
        if !named.is_empty() {
            text.push('\n');
        }
        ids.append(&text)?;
        progress.ids = Some(ids.grown.clone());
    }
    let mut wrong = chunk.wrong;
    wrong.sort_by_key(|(line, _)| line.number);
    if let Some(left_out) = left_out {
        for (line, wrong) in &wrong {
            let line = json!({
                "line": line.number, "field": wrong.field, "problem": wrong.problem, "cure": wrong.cure,
                "text": String::from_utf8_lossy(&line.text),
            });
            left_out.append(&format!("{line}\n"))?;
        }
        progress.left_out_lines = Some(left_out.grown.clone());
    }
    progress.tasks += named.len() as u64;
    progress.left_out += wrong.len() as u64;
    progress.acknowledged = chunk.end;
    file.write()
}

/// Reads on a thread of its own, one chunk ahead.
fn read_chunks(
    source: Source,
    from: Mark,
    sizes: Sizes,
    check: bool,
) -> mpsc::Receiver<io::Result<Chunk>> {
    let (give, take) = mpsc::channel(1);
    tokio::task::spawn_blocking(move || {
        let Source {
            input,
            bytes,
            watched,
            ..
        } = source;
        let read = || -> io::Result<()> {
            let mut chunks = Chunks::new(input, from, sizes, check)?;
            while let Some(chunk) = chunks.next()? {
                unchanged(watched.as_ref(), bytes)?;
                if give.blocking_send(Ok(chunk)).is_err() {
                    break; // nobody waits for more
                }
            }
            Ok(())
        };
        if let Err(error) = read() {
            let _ = give.blocking_send(Err(error));
        }
    });
    take
}

fn report(
    args: &LinesArgs,
    before: &Progress,
    after: &Progress,
    lines: u64,
    took: Duration,
    output: Format,
) -> Outcome {
    let tasks = after.tasks - before.tasks;
    let seconds = took.as_secs_f64();
    let rate = if seconds > 0.0 {
        tasks as f64 / seconds
    } else {
        0.0
    };
    if output == Format::Json {
        return output.object(&json!({
            "file": after.file, "sha256": after.sha256, "swarm_id": after.swarm, "lines": lines, "tasks": after.tasks,
            "left_out": after.left_out, "tasks_this_run": tasks, "seconds": (seconds * 1e3).round() / 1e3,
            "tasks_per_second": rate.round(), "ids_file": args.ids, "left_out_file": args.skip_invalid,
        }));
    }
    let earlier = match before.tasks {
        0 => String::new(),
        earlier => format!(", {earlier} were before"),
    };
    let left_out = match (&args.skip_invalid, after.left_out) {
        (_, 0) | (None, _) => String::new(),
        (Some(path), left_out) => format!("; {left_out} lines left out: {}", path.display()),
    };
    output::line(&format!(
        "{tasks} tasks submitted in {seconds:.1} s ({rate:.0} tasks/s){earlier}{left_out}"
    ))
}

#[cfg(test)]
mod tests;
