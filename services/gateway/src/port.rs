//! The log behind one plain type, so that nothing else here is generic over it.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use swarm_events::Partition;
use swarm_log::{AppendError, Appended, Log, LogError, LogInfo, Message, StoredMessage, Tailed};
use swarm_runtime::snapshots::{Meta, SnapshotError};

use crate::{
    explain::followers::{Begun, begin},
    snapshot::{self, Start},
};

trait Erased: Send + Sync {
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>>;
    fn tail(&self, filters: Vec<String>, from: u64)
    -> BoxStream<'static, Result<Tailed, LogError>>;
    fn get(&self, sequence: u64) -> BoxFuture<'static, Result<Option<StoredMessage>, LogError>>;
    fn info(&self) -> BoxFuture<'static, Result<LogInfo, LogError>>;
    fn start(&self) -> BoxFuture<'static, Result<Start, SnapshotError>>;
    fn newest_snapshot(&self) -> BoxFuture<'static, Result<Option<u64>, LogError>>;
    fn put_snapshot(&self, meta: Meta, bytes: Vec<u8>) -> BoxFuture<'static, Result<(), LogError>>;
    fn tasks(&self, partition: Partition) -> BoxFuture<'static, Result<Begun, SnapshotError>>;
}

impl<L: Log> Erased for L {
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>> {
        Log::append(self, messages)
    }
    fn tail(
        &self,
        filters: Vec<String>,
        from: u64,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        Log::tail(self, filters, from)
    }
    fn get(&self, sequence: u64) -> BoxFuture<'static, Result<Option<StoredMessage>, LogError>> {
        let log = self.clone();
        async move { Log::get(&log, sequence).await }.boxed()
    }
    fn info(&self) -> BoxFuture<'static, Result<LogInfo, LogError>> {
        let log = self.clone();
        async move { Log::info(&log).await }.boxed()
    }
    fn start(&self) -> BoxFuture<'static, Result<Start, SnapshotError>> {
        let log = self.clone();
        async move { snapshot::start(&log).await }.boxed()
    }
    fn newest_snapshot(&self) -> BoxFuture<'static, Result<Option<u64>, LogError>> {
        snapshot::newest(self.clone()).boxed()
    }
    fn put_snapshot(&self, meta: Meta, bytes: Vec<u8>) -> BoxFuture<'static, Result<(), LogError>> {
        snapshot::put(self.clone(), meta, bytes).boxed()
    }
    fn tasks(&self, partition: Partition) -> BoxFuture<'static, Result<Begun, SnapshotError>> {
        begin(self.clone(), partition).boxed()
    }
}

/// Any [`Log`].
#[derive(Clone)]
pub struct Port(Arc<dyn Erased>);

impl Port {
    /// Wraps `log`.
    pub fn new<L: Log>(log: L) -> Self {
        Self(Arc::new(log))
    }
    /// As [`Log::append`].
    pub fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>> {
        self.0.append(messages)
    }
    /// As [`Log::tail`].
    pub fn tail(
        &self,
        filters: Vec<String>,
        from: u64,
    ) -> BoxStream<'static, Result<Tailed, LogError>> {
        self.0.tail(filters, from)
    }
    /// As [`Log::get`].
    ///
    /// # Errors
    /// As [`Log::get`].
    pub async fn get(&self, sequence: u64) -> Result<Option<StoredMessage>, LogError> {
        self.0.get(sequence).await
    }
    /// As [`Log::info`].
    ///
    /// # Errors
    /// As [`Log::info`].
    pub async fn info(&self) -> Result<LogInfo, LogError> {
        self.0.info().await
    }
    /// Where the fold begins.
    ///
    /// # Errors
    /// As [`snapshot::start`].
    pub async fn start(&self) -> Result<Start, SnapshotError> {
        self.0.start().await
    }
    /// Sequence of the newest snapshot of a gateway that is there.
    ///
    /// # Errors
    /// The object store cannot be read.
    pub async fn newest_snapshot(&self) -> Result<Option<u64>, LogError> {
        self.0.newest_snapshot().await
    }
    /// Stores a snapshot.
    ///
    /// # Errors
    /// It could not be stored.
    pub async fn put_snapshot(&self, meta: Meta, bytes: Vec<u8>) -> Result<(), LogError> {
        self.0.put_snapshot(meta, bytes).await
    }
    /// Where the fold of a partition's tasks begins.
    ///
    /// # Errors
    /// As [`begin`].
    pub async fn tasks(&self, partition: Partition) -> Result<Begun, SnapshotError> {
        self.0.tasks(partition).await
    }
}
