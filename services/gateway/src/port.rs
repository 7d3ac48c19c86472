//! The log behind one plain type, so that nothing else here is generic over it.

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture, stream::BoxStream};
use swarm_log::{AppendError, Appended, Log, LogError, LogInfo, Message, StoredMessage, Tailed};

trait Erased: Send + Sync {
    fn append(
        &self,
        messages: Vec<Message>,
    ) -> BoxFuture<'static, Vec<Result<Appended, AppendError>>>;
    fn tail(&self, filters: Vec<String>, from: u64)
    -> BoxStream<'static, Result<Tailed, LogError>>;
    fn get(&self, sequence: u64) -> BoxFuture<'static, Result<Option<StoredMessage>, LogError>>;
    fn info(&self) -> BoxFuture<'static, Result<LogInfo, LogError>>;
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
}
