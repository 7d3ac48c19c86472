//! Following the simulated stream.

use std::{
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use futures::Stream;

use super::stream::World;
use crate::{LogError, Tailed, filter};

pub(super) struct Tail {
    world: Arc<Mutex<World>>,
    handle: Arc<str>,
    filters: Vec<String>,
    /// Next sequence to look at.
    next: u64,
    /// The handle's losses as last seen, and whether the tail is running or interrupted.
    losses: Option<u64>,
    interrupted: bool,
    /// Last sequence that was stored when the tail was made or resumed, until [`Tailed::CaughtUp`] is told.
    behind: Option<u64>,
}

impl Tail {
    pub(super) fn new(
        world: Arc<Mutex<World>>,
        handle: Arc<str>,
        filters: Vec<String>,
        from: u64,
    ) -> Self {
        let first = world
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .settings
            .first_sequence;
        Self {
            world,
            handle,
            filters,
            next: from.max(first),
            losses: None,
            interrupted: false,
            behind: None,
        }
    }

    fn matches(&self, subject: &str) -> bool {
        self.filters.is_empty()
            || self
                .filters
                .iter()
                .any(|filter| filter::matches(filter, subject))
    }
}

impl Stream for Tail {
    type Item = Result<Tailed, LogError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let shared = self.world.clone();
        let mut world = shared.lock().unwrap_or_else(PoisonError::into_inner);
        let handle = world.handle(&self.handle);
        let (connected, losses, visible_to) = (handle.connected, handle.losses, handle.visible_to);
        if self.losses.is_some_and(|seen| seen != losses) && !self.interrupted {
            self.interrupted = true;
            return Poll::Ready(Some(Ok(Tailed::Interrupted)));
        }
        if !connected {
            world.await_change(context.waker());
            return Poll::Pending;
        }
        let resumed = std::mem::take(&mut self.interrupted);
        if self.losses.replace(losses) != Some(losses) {
            self.behind = Some(world.last_sequence());
        }
        if resumed {
            return Poll::Ready(Some(Ok(Tailed::Resumed)));
        }
        let visible = visible_to.unwrap_or(u64::MAX).min(world.last_sequence());
        while self.next <= visible {
            let Some(message) = world.get(self.next) else {
                break;
            };
            if self.behind.is_some_and(|last| last < self.next) {
                break; // caught up before this one
            }
            self.next += 1;
            if self.matches(&message.subject) {
                return Poll::Ready(Some(Ok(Tailed::Message(message.clone()))));
            }
        }
        if self.behind.is_some_and(|last| last < self.next) {
            self.behind = None;
            return Poll::Ready(Some(Ok(Tailed::CaughtUp)));
        }
        world.await_change(context.waker());
        Poll::Pending
    }
}
