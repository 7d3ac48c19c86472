//! The projector: reads the log, folds it, writes the rows. It never blocks a decision and holds nothing that the log does
//! not.
//!
//! One task folds, one writes: while a batch is on its way the next one gathers, so batches are as large as PostgreSQL is
//! slow. The fold is kept while PostgreSQL is away.

use std::time::Duration;

use futures::StreamExt;
use sqlx::postgres::PgConnectOptions;
use swarm_events::subject::filter;
use swarm_log::{Log, LogError, LogInfo, Tailed};
use swarm_runtime::snapshots::SnapshotError;
use tokio::{
    sync::mpsc,
    task::yield_now,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tracing::{info, warn};

use crate::{
    batch::Batch,
    changes::Changes,
    fold::{Fold, Newer},
    pg,
    results::resolve,
    session::{OpenError, Session, created},
    start::{StartError, start},
    status::{Phase, ProjectorStatus},
    write::{WriteError, write},
};

/// Most messages of a batch: about 10 MB of rows, and at full speed a few batches a second.
pub const BATCH_MESSAGES_MAX: usize = 5_000;
/// Most bytes of event rows in a batch, so that the largest payloads do not add up to gigabytes.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How long a batch gathers: a commit costs the same for one row as for a thousand, and a reader that waits for its own
/// write does not notice this much.
pub const BATCH_WAIT: Duration = Duration::from_millis(25);
/// First and last pause before PostgreSQL is tried again.
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(100);
/// See [`RETRY_PAUSE_MIN`].
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(2);
/// How often a standby tries the lock: how long a takeover takes at the most.
const STANDBY_PAUSE: Duration = Duration::from_millis(500);
/// How often the tables are looked at while nothing is written.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Longest wait for that look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest time of one batch; past it the connection is held to be dead.
const WRITE_TIMEOUT: Duration = Duration::from_secs(60);

/// How large batches are; tests vary it, since rows must not depend on it.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// Most messages of a batch.
    pub messages_max: usize,
    /// How long a batch gathers.
    pub wait: Duration,
}
impl Default for Pace {
    fn default() -> Self {
        Self {
            messages_max: BATCH_MESSAGES_MAX,
            wait: BATCH_WAIT,
        }
    }
}

/// Why a projector gave up. An outage of PostgreSQL or of the log is no reason.
#[derive(Debug, thiserror::Error)]
pub enum ProjectorError {
    /// The database URL is none.
    #[error(transparent)]
    Url(#[from] crate::pool::UrlError),
    /// The log is another one than the tables were made of, or has lost what is in them.
    #[error(transparent)]
    Log(#[from] LogError),
    /// There is nothing to make the state of: above all, the log's beginning is gone.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A newer service wrote something that this program does not know.
    #[error(transparent)]
    Newer(#[from] Newer),
    /// A newer program made the tables.
    #[error(
        "the read models cannot be migrated: {0}; run the newest program, or `swarm projection rebuild`"
    )]
    Migrate(String),
}

/// Keeps the tables in step with `log` until `stop`.
///
/// # Errors
/// See [`ProjectorError`].
pub async fn run<L: Log>(
    log: L,
    database_url: &str,
    pace: Pace,
    status: ProjectorStatus,
    stop: CancellationToken,
) -> Result<(), ProjectorError> {
    let options = crate::pool::projector_options(database_url)?;
    let ended = tokio::select! {
        () = stop.cancelled() => Ok(()),
        outcome = run_for_ever(&log, &options, pace, &status) => match outcome {
            Ok(never) => match never {},
            Err(error) => Err(error),
        },
    };
    status.change(|state| {
        state.phase = Phase::Ended;
        if let Err(error) = &ended {
            state.last_error = Some(error.to_string());
        }
    });
    ended
}

type Never = std::convert::Infallible;

impl From<StartError> for ProjectorError {
    fn from(error: StartError) -> Self {
        match error {
            StartError::Snapshot(error) => Self::Snapshot(error),
            StartError::Newer(error) => Self::Newer(error),
        }
    }
}

/// Why a fold is given up for a new one.
enum End {
    /// The tables are not where this fold is: from the beginning.
    Again(String),
    /// For good.
    Fatal(ProjectorError),
}
impl<E: Into<ProjectorError>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Fatal(error.into())
    }
}

async fn run_for_ever<L: Log>(
    log: &L,
    options: &PgConnectOptions,
    pace: Pace,
    status: &ProjectorStatus,
) -> Result<Never, ProjectorError> {
    loop {
        let info = info_of(log, status).await?;
        let session = open(options, &info, status).await?;
        // Again: while this one stood by, the log has grown, and so have the tables.
        let info = info_of(log, status).await?;
        check(&session, &info)?;
        let End::Again(why) = (match follow(log, options, pace, status, session, info).await {
            Ok(never) => match never {},
            Err(End::Fatal(error)) => return Err(error),
            Err(again) => again,
        }) else {
            continue;
        };
        warn!(why, "the projection folds anew");
        status.trouble(&why);
    }
}

/// One fold, from the snapshots that the committed sequence allows, else from the beginning of the log.
async fn follow<L: Log>(
    log: &L,
    options: &PgConnectOptions,
    pace: Pace,
    status: &ProjectorStatus,
    session: Session,
    info: LogInfo,
) -> Result<Never, End> {
    let committed = session.checkpoint.sequence;
    info!(committed, log = info.last_sequence, tables = %session.kind, "projecting");
    status.change(|state| {
        state.folds += 1;
        state.phase = if committed > 0 {
            Phase::Folding
        } else {
            Phase::Writing
        };
        state.stale_since = None;
        state.folded = 0;
        state.committed = committed;
        state.log_last = info.last_sequence;
        state.log_time = Some(session.checkpoint.log_time);
        state.time_tables = Some(session.kind.as_str());
    });
    let (batches, queue) = mpsc::channel(1);
    let writer = Writer {
        options: options.clone(),
        info: info.clone(),
        status: status.clone(),
        queue,
    };
    let mut writing = AbortOnDropHandle::new(tokio::spawn(writer.run(session)));
    let folder = Folder {
        log,
        pace,
        status,
        info,
        committed,
        batches,
    };
    tokio::select! {
        outcome = folder.run() => match outcome {
            // The writer has ended, and says why.
            Ok(()) => ended(writing.await),
            Err(end) => Err(end),
        },
        outcome = &mut writing => ended(outcome),
    }
}

fn ended(outcome: Result<End, tokio::task::JoinError>) -> Result<Never, End> {
    Err(outcome.unwrap_or_else(|error| End::Again(format!("writing ended: {error}"))))
}

struct Folder<'a, L> {
    log: &'a L,
    pace: Pace,
    status: &'a ProjectorStatus,
    info: LogInfo,
    /// The checkpoint that the next batch starts from.
    committed: u64,
    batches: mpsc::Sender<Batch>,
}

impl<L: Log> Folder<'_, L> {
    /// Ends with `Ok` when nobody takes batches any more.
    async fn run(mut self) -> Result<(), End> {
        let mut fold = self.start().await?;
        let mut changes = Changes::default();
        // When the first message of the batch came.
        let mut since: Option<Instant> = None;
        let batches = self.batches.clone();
        let mut tail = self.log.tail(filter::all(), fold.sequence + 1);
        loop {
            let full =
                changes.messages >= self.pace.messages_max || changes.bytes >= BATCH_BYTES_MAX;
            let due = since.map(|since| since + self.pace.wait);
            let room = async {
                match due {
                    None => std::future::pending().await,
                    Some(_) if full => {}
                    Some(due) => sleep_until(due).await,
                }
                batches.reserve().await
            };
            tokio::select! {
                biased;
                permit = room => {
                    let Ok(permit) = permit else { return Ok(()) };
                    let gathered = std::mem::take(&mut changes);
                    let mut batch = Batch::of(self.committed, &fold, gathered);
                    resolve(self.log, &mut batch, self.status).await;
                    self.committed = batch.to;
                    self.say(batch.to, Phase::Writing);
                    since = None;
                    permit.send(batch);
                }
                item = tail.next(), if !full => match item {
                    None => return Err(LogError::Refused("the tail ended".to_owned()).into()),
                    Some(item) => self.tailed(item?, &mut fold, &mut changes, &mut since).await?,
                },
            }
        }
    }

    /// The state at a sequence at or below the committed one, however long the log is away.
    async fn start(&self) -> Result<Fold, End> {
        loop {
            match start(self.log, &self.info, self.committed).await {
                Ok(fold) => return Ok(fold),
                Err(StartError::Snapshot(SnapshotError::Log(LogError::Unreachable(error)))) => {
                    if self.status.trouble(&error) {
                        warn!(error, "the log cannot be reached; trying on");
                    }
                    sleep(RETRY_PAUSE_MAX).await;
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn tailed(
        &mut self,
        item: Tailed,
        fold: &mut Fold,
        changes: &mut Changes,
        since: &mut Option<Instant>,
    ) -> Result<(), End> {
        match item {
            Tailed::Message(message) => {
                // What is in the tables already is folded and not written.
                let write = message.sequence > self.committed;
                if write {
                    since.get_or_insert_with(Instant::now);
                }
                fold.meet(&message, write.then_some(changes))?;
                if message.sequence.is_multiple_of(STATUS_EVERY) {
                    self.say(fold.sequence, Phase::Folding);
                }
                if message.sequence.is_multiple_of(TURN) {
                    yield_now().await;
                }
            }
            Tailed::CaughtUp => self.say(fold.sequence, Phase::Writing),
            Tailed::Interrupted => warn!(sequence = fold.sequence, "the log does not answer"),
            Tailed::Resumed => {
                let info = info_of(self.log, self.status).await.map_err(End::Fatal)?;
                went_back(fold.sequence, created(&self.info), &info)?;
            }
        }
        Ok(())
    }

    /// Says how far the fold is; `phase` is what it does while it has nothing to write.
    fn say(&self, folded: u64, phase: Phase) {
        self.status.change(|state| {
            state.folded = folded;
            state.log_last = state.log_last.max(folded);
            state.phase = if folded > self.committed {
                Phase::Writing
            } else {
                phase
            };
        });
    }
}

/// How often a fold says how far it is, in messages.
const STATUS_EVERY: u64 = 1_000;
/// How many messages are folded in one go. While the tail has more, folding would never wait for anything, and the thread
/// that it runs on may be the one that has to look for PostgreSQL's answers: a batch then began only when the next one was
/// full (measured: 1.7 ms of the 6.2 that a batch of 150 took, 30 of 96 for one of 5,000). So many take 0.2 ms.
const TURN: u64 = 32;

struct Writer {
    options: PgConnectOptions,
    info: LogInfo,
    status: ProjectorStatus,
    queue: mpsc::Receiver<Batch>,
}

impl Writer {
    /// Writes each batch, however long PostgreSQL is away. Ends when the fold is of no use any more.
    async fn run(mut self, mut session: Session) -> End {
        loop {
            let ended = match timeout(LOOK_INTERVAL, self.queue.recv()).await {
                Ok(Some(batch)) => self.write(&mut session, batch).await,
                Ok(None) => Err(End::Again("nobody folds".to_owned())),
                Err(_) => self.look(&mut session).await,
            };
            if let Err(end) = ended {
                return end;
            }
        }
    }

    async fn write(&self, session: &mut Session, batch: Batch) -> Result<(), End> {
        let mut pause = RETRY_PAUSE_MIN;
        loop {
            let error = match timeout(WRITE_TIMEOUT, write(session, &batch)).await {
                Ok(Ok(())) => break,
                Ok(Err(WriteError::Conflict(at))) => {
                    return Err(End::Again(WriteError::Conflict(at).to_string()));
                }
                Ok(Err(WriteError::Sql(error))) if pg::is_missing_table(&error) => {
                    return Err(End::Again(format!("the tables are gone: {error}")));
                }
                Ok(Err(WriteError::Sql(error))) => error.to_string(),
                Err(_) => format!("a batch took longer than {WRITE_TIMEOUT:?}"),
            };
            self.trouble(&error);
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_PAUSE_MAX);
            *session = open(&self.options, &self.info, &self.status)
                .await
                .map_err(End::Fatal)?;
            let at = session.checkpoint.sequence;
            if at == batch.to {
                // The commit went through, its answer did not.
                break;
            }
            if at != batch.from {
                return Err(End::Again(WriteError::Conflict(batch.from).to_string()));
            }
        }
        self.mended(batch.to);
        self.status.change(|state| {
            state.committed = batch.to;
            state.log_time = Some(batch.log_time);
            state.batches += 1;
            state.messages += batch.messages as u64;
        });
        Ok(())
    }

    /// On a quiet log nothing would tell that the tables are gone, or PostgreSQL is.
    async fn look(&self, session: &mut Session) -> Result<(), End> {
        let error = match timeout(LOOK_TIMEOUT, session.is_intact()).await {
            Ok(Ok(true)) => return Ok(()),
            Ok(Ok(false)) => {
                return Err(End::Again(
                    "the tables are gone or have been changed".to_owned(),
                ));
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("PostgreSQL does not answer within {LOOK_TIMEOUT:?}"),
        };
        self.trouble(&error);
        let left = session.checkpoint.sequence;
        *session = open(&self.options, &self.info, &self.status)
            .await
            .map_err(End::Fatal)?;
        if session.checkpoint.sequence != left {
            return Err(End::Again(WriteError::Conflict(left).to_string()));
        }
        self.mended(left);
        Ok(())
    }

    fn trouble(&self, error: &str) {
        if self.status.trouble(error) {
            warn!(error, "the read models cannot be written; trying on");
        }
    }

    fn mended(&self, sequence: u64) {
        self.status.change(|state| {
            if state.stale_since.take().is_some() {
                info!(sequence, "the projection goes on");
            }
            // It may have stood by for a lock that a lost connection still held.
            state.phase = Phase::Writing;
        });
    }
}

/// Opens a session, however long that takes.
async fn open(
    options: &PgConnectOptions,
    info: &LogInfo,
    status: &ProjectorStatus,
) -> Result<Session, ProjectorError> {
    let mut pause = RETRY_PAUSE_MIN;
    loop {
        match Session::open(options, info).await {
            Ok(session) => return Ok(session),
            Err(OpenError::Locked) => {
                status.change(|state| {
                    if state.phase != Phase::Standby {
                        info!("another projector is active: standing by");
                    }
                    state.phase = Phase::Standby;
                    state.stale_since = None;
                });
                sleep(STANDBY_PAUSE).await;
            }
            Err(OpenError::Migrate(error)) => {
                return Err(ProjectorError::Migrate(error.to_string()));
            }
            Err(error) => {
                if status.trouble(&error.to_string()) {
                    warn!(%error, "PostgreSQL cannot be used; trying on");
                }
                sleep(pause).await;
                pause = (pause * 2).min(RETRY_PAUSE_MAX);
            }
        }
    }
}

/// The log's state, however long that takes.
async fn info_of<L: Log>(log: &L, status: &ProjectorStatus) -> Result<LogInfo, ProjectorError> {
    loop {
        match log.info().await {
            Ok(info) => return Ok(info),
            Err(LogError::Unreachable(error)) => {
                if status.trouble(&error) {
                    warn!(error, "the log cannot be reached; trying on");
                }
                sleep(RETRY_PAUSE_MAX).await;
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Refuses a log that is another one than the tables were made of, or that went back behind them.
fn check(session: &Session, info: &LogInfo) -> Result<(), LogError> {
    let checkpoint = session.checkpoint;
    went_back(checkpoint.sequence, checkpoint.stream_created, info)
}

fn went_back(
    sequence: u64,
    stream_created: chrono::DateTime<chrono::Utc>,
    info: &LogInfo,
) -> Result<(), LogError> {
    let cure = "start it with the log that they were made of, or make them of this one with `swarm projection rebuild`";
    if created(info) != stream_created {
        return Err(LogError::Incompatible(format!(
            "the read models are at sequence {sequence} of the log created at {stream_created}, and this log was created \
             at {} and ends at sequence {}: {cure}",
            created(info),
            info.last_sequence,
        )));
    }
    if info.last_sequence < sequence {
        return Err(LogError::Incompatible(format!(
            "the read models are at sequence {sequence}, and the log, created at {stream_created}, ends at sequence {}: it \
             has gone back behind them; {cure}",
            info.last_sequence,
        )));
    }
    Ok(())
}
