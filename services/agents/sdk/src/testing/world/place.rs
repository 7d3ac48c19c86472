//! What an attempt sees of the world.

use std::sync::Weak;

use async_trait::async_trait;
use bytes::Bytes;
use swarm_events::Timestamp;
use swarm_log::StoredMessage;
use tokio::time::Instant;

use super::{World, wall};
use crate::testing::TestEvent;
use crate::{
    ground::Ground,
    handler::{Report, Voice},
    protocol::Assignment,
};

/// What an attempt sees of the world. It holds no part of it alive: a handler that outlasts its swarm speaks to nobody.
pub(super) struct Place {
    pub(super) world: Weak<World>,
    pub(super) began: Instant,
    pub(super) agent: usize,
}

#[async_trait]
impl Ground for Place {
    async fn object(&self, name: &str) -> Result<Option<Bytes>, String> {
        let world = self.world.upgrade();
        Ok(world.and_then(|world| world.locked().objects.get(name).cloned()))
    }
    async fn put_object(&self, name: &str, bytes: Bytes) -> Result<(), String> {
        if let Some(world) = self.world.upgrade() {
            world.locked().objects.insert(name.to_owned(), bytes);
        }
        Ok(())
    }
    async fn message(&self, _: u64) -> Result<Option<StoredMessage>, String> {
        Ok(None) // nothing is carried by its place in a log
    }
    fn progress(&self, assignment: &Assignment, (percent, message): Report) {
        if let Some(world) = self.world.upgrade() {
            let state = world.locked();
            if let Some(attempt) = state.attempts.get(&assignment.sequence) {
                let event = TestEvent::Progressed { percent, message };
                world.tell(&state.tasks[attempt.task], event);
            }
        }
    }
    fn result_name(&self, assignment: &Assignment) -> String {
        format!("result/{}/{}", assignment.task, assignment.sequence)
    }
    fn wall_clock(&self) -> Timestamp {
        wall(self.began)
    }
    fn voice(&self, assignment: &Assignment) -> Voice {
        let world = self.world.upgrade();
        world.map_or_else(Voice::default, |world| world.voice(self.agent, assignment))
    }
}
