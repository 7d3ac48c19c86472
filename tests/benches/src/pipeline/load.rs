//! How tasks are handed in: at full speed with a bounded number open, or at a fixed rate whatever happens.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::bail;
use tokio::{
    sync::{Notify, Semaphore},
    time::{Instant, sleep_until, timeout},
};

/// A run without any result for this long has stalled.
const STALL: Duration = Duration::from_secs(60);

/// How fast.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// Closed loop: as fast as results come, with at most this many tasks open.
    Open(usize),
    /// Open loop: this many a second, each at its own time, however late the ones before are.
    PerSecond(u32),
}

/// What is handed in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// How many tasks.
    pub tasks: u64,
    /// How fast.
    pub pace: Pace,
}

/// Counts results and opens the gate for the next task. Clones are one.
#[derive(Clone, Debug)]
pub struct Gate {
    room: Arc<Semaphore>,
    done: Arc<AtomicU64>,
    news: Arc<Notify>,
}

impl Gate {
    /// A gate for `load`.
    pub fn new(load: Load) -> Self {
        let room = match load.pace {
            Pace::Open(tasks) => tasks,
            Pace::PerSecond(_) => 0,
        };
        Self {
            room: Arc::new(Semaphore::new(room)),
            done: Arc::default(),
            news: Arc::default(),
        }
    }

    /// A task has its result.
    pub fn result(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
        self.room.add_permits(1);
        self.news.notify_one();
    }

    /// Calls `submit` with each task's number, at the load's pace.
    pub async fn pace(&self, load: Load, mut submit: impl FnMut(u64)) {
        let began = Instant::now();
        for number in 0..load.tasks {
            match load.pace {
                Pace::Open(_) => match self.room.acquire().await {
                    Ok(permit) => permit.forget(),
                    Err(_) => return, // never closed
                },
                Pace::PerSecond(rate) => {
                    let due = Duration::from_secs_f64(number as f64 / f64::from(rate));
                    sleep_until(began + due).await;
                }
            }
            submit(number);
        }
    }

    /// Waits until `tasks` results are there.
    ///
    /// # Errors
    /// None came for a minute.
    pub async fn all(&self, tasks: u64) -> anyhow::Result<()> {
        loop {
            let done = self.done.load(Ordering::Relaxed);
            if done >= tasks {
                return Ok(());
            }
            if timeout(STALL, self.news.notified()).await.is_err() {
                bail!(
                    "no result for {} s: {done} of {tasks} are there",
                    STALL.as_secs()
                );
            }
        }
    }
}
