//! A log in memory with the rules of nats-server, for tests and for the simulation.
//!
//! It has no clock, no randomness and no tasks of its own: a call to `append` takes effect before it returns, time stands
//! where [`SimulatedLog::set_time`] put it, and what goes wrong is what a [`Faults`] plan says. The same calls in the same
//! order give the same log.

mod faults;
mod presence;
mod stream;
mod tail;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::{
    FutureExt,
    future::{BoxFuture, ready},
    stream::BoxStream,
};

pub use faults::{Fault, FaultRates, Faults};

use crate::{
    AppendError, Appended, Log, LogError, LogInfo, Message, PresenceNews, StoredMessage, Tailed,
    jetstream::{batch_size_refusal, wire},
};
use stream::World;

/// What the simulated server is like.
#[derive(Clone, Debug)]
pub struct SimulatedSettings {
    /// Rules of a cluster: one checked write in flight per subject, and duplicates are recognized before fences are checked.
    pub cluster: bool,
    /// Upper bound of the stream in bytes (payloads and subjects are counted), -1 for none.
    pub bytes_max: i64,
    /// Sequence of the first message: no code may assume 1.
    pub first_sequence: u64,
    /// Creation time, and the time at the start, in microseconds since the Unix epoch.
    pub created_micros: i64,
}

impl Default for SimulatedSettings {
    fn default() -> Self {
        // 2024-01-01T00:00:00Z, an arbitrary instant.
        Self {
            cluster: false,
            bytes_max: -1,
            first_sequence: 1,
            created_micros: 1_704_067_200_000_000,
        }
    }
}

/// A handle to a simulated log. Clones are the same process; [`SimulatedLog::handle`] makes another one on the same log.
#[derive(Clone)]
pub struct SimulatedLog {
    world: Arc<Mutex<World>>,
    handle: Arc<str>,
}

impl Default for SimulatedLog {
    fn default() -> Self {
        Self::new(SimulatedSettings::default())
    }
}

impl SimulatedLog {
    /// An empty log; the handle is called `main`.
    pub fn new(settings: SimulatedSettings) -> Self {
        Self {
            world: Arc::new(Mutex::new(World::new(settings))),
            handle: "main".into(),
        }
    }

    /// The same log as seen by the process `name`, which can be cut off by that name.
    pub fn handle(&self, name: &str) -> Self {
        Self {
            world: self.world.clone(),
            handle: name.into(),
        }
    }

    /// Sets the server's clock, in microseconds since the Unix epoch. It may step back, as real ones do.
    pub fn set_time(&self, micros: i64) {
        self.world().time_micros = micros;
    }

    /// The server's clock.
    pub fn time(&self) -> i64 {
        self.world().time_micros
    }

    /// Cuts `handle` off: its tails are interrupted, its reads fail and its appends are not stored (outcome unknown).
    pub fn disconnect(&self, handle: &str) {
        self.world().set_connected(handle, false);
    }

    /// Ends [`SimulatedLog::disconnect`]: its tails resume.
    pub fn reconnect(&self, handle: &str) {
        self.world().set_connected(handle, true);
    }

    /// The plan of what goes wrong with the appends of `handle` from now on. A seeded plan holds for its presence too, with
    /// draws of its own; a script does not.
    pub fn set_faults(&self, handle: &str, faults: Faults) {
        let mut world = self.world();
        let handle = world.handle(handle);
        handle.presence_faults = faults.beside();
        handle.faults = faults;
    }

    /// The plan of what goes wrong with the presence puts and removals of `handle` from now on.
    pub fn set_presence_faults(&self, handle: &str, faults: Faults) {
        self.world().handle(handle).presence_faults = faults;
    }

    /// Loses every presence key, as a restart of the only nats-server does. Nobody is told: interrupt the handles too.
    pub fn forget_presence(&self) {
        self.world().presence.forget();
    }

    /// Stores, in their order, the messages held back by [`Fault::Ghost`] whose checks hold now, and late presence. Returns
    /// how many messages were stored.
    pub fn release_ghosts(&self) -> usize {
        self.world().release_ghosts()
    }

    /// Drops the messages and the presence held back by [`Fault::Ghost`]: they never arrive.
    pub fn drop_ghosts(&self) {
        let mut world = self.world();
        world.ghosts.clear();
        world.presence.drop_ghosts();
    }

    /// Number of ghosts still on their way.
    pub fn ghosts(&self) -> usize {
        self.world().ghosts.len()
    }

    /// Lets the tails of `handle` see messages only up to and including `sequence` (`None`: all of them). Models delayed
    /// delivery, and the visible prefix of a batch when `sequence` is in the middle of one.
    pub fn limit_tails(&self, handle: &str, sequence: Option<u64>) {
        let mut world = self.world();
        world.handle(handle).visible_to = sequence;
        world.wake();
    }

    /// Interrupts the tails of `handle` once, as a missed heartbeat does; they resume at their next poll.
    pub fn interrupt_tails(&self, handle: &str) {
        let mut world = self.world();
        world.handle(handle).losses += 1;
        world.wake();
    }

    /// Every message stored so far.
    pub fn messages(&self) -> Vec<StoredMessage> {
        self.world().messages.clone()
    }

    /// Last sequence (one below the first, if empty).
    pub fn last_sequence(&self) -> u64 {
        self.world().last_sequence()
    }

    fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The world, if this handle is connected.
    fn reachable(&self) -> Result<MutexGuard<'_, World>, LogError> {
        let mut world = self.world();
        if world.handle(&self.handle).connected {
            Ok(world)
        } else {
            Err(LogError::Unreachable(format!(
                "{} is disconnected",
                self.handle
            )))
        }
    }
}

impl Log for SimulatedLog {
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>> {
        let mut world = self.world();
        let outcomes: Vec<_> = messages
            .into_iter()
            .map(|message| match wire::check(&message) {
                Ok(()) => world.append(&self.handle, vec![message]),
                Err(refusal) => Err(refusal),
            })
            .collect();
        world.wake();
        ready(outcomes).boxed()
    }

    fn append_atomic(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Result<Appended, AppendError>> {
        let subject = messages
            .first()
            .map(|message| message.subject.clone())
            .unwrap_or_default();
        let refusal = batch_size_refusal(&subject, messages.len()).or_else(|| {
            messages
                .iter()
                .find_map(|message| wire::check(message).err())
        });
        let mut world = self.world();
        let outcome = match refusal {
            Some(refusal) => Err(refusal),
            None => world.append(&self.handle, messages),
        };
        world.wake();
        ready(outcome).boxed()
    }

    fn tail(
        &self,
        filters: Vec<String>,
        from: u64,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        Box::pin(tail::Tail::new(
            self.world.clone(),
            self.handle.clone(),
            filters,
            from,
        ))
    }

    async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, LogError> {
        Ok(self.reachable()?.get(sequence).cloned())
    }

    async fn last_of(&self, subject: &str) -> Result<Option<StoredMessage>, LogError> {
        let world = self.reachable()?;
        Ok(world.get(world.last_of(subject)).cloned())
    }

    async fn info(&self) -> Result<LogInfo, LogError> {
        let world = self.reachable()?;
        Ok(LogInfo {
            first_sequence: world.settings.first_sequence,
            last_sequence: world.last_sequence(),
            created_micros: world.settings.created_micros,
            bytes: world.bytes,
            bytes_max: world.settings.bytes_max,
        })
    }

    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), LogError> {
        self.reachable()?.objects.insert(name.to_owned(), bytes);
        Ok(())
    }

    async fn get_object(&self, name: &str) -> Result<Option<Bytes>, LogError> {
        Ok(self.reachable()?.objects.get(name).cloned())
    }

    async fn list_objects(&self, prefix: &str) -> Result<Vec<String>, LogError> {
        let world = self.reachable()?;
        Ok(world
            .objects
            .keys()
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect())
    }

    async fn delete_object(&self, name: &str) -> Result<(), LogError> {
        self.reachable()?.objects.remove(name);
        Ok(())
    }
    async fn put_presence(&self, key: &str, value: Bytes) -> Result<(), LogError> {
        crate::presence::check(key, value.len())?;
        self.reachable()?
            .write_presence(&self.handle, key, Some(value))
    }

    async fn remove_presence(&self, key: &str) -> Result<(), LogError> {
        crate::presence::check(key, 0)?;
        self.reachable()?.write_presence(&self.handle, key, None)
    }

    fn watch_presence(&self, prefix: &str) -> BoxStream<'static, PresenceNews> {
        Box::pin(presence::Watch::new(
            self.world.clone(),
            self.handle.clone(),
            prefix.to_owned(),
        ))
    }
}
