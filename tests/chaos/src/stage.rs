//! What every scene is played on: a swarm of its own with agents that work and clients that submit.

use std::time::Duration;

use anyhow::{Context, ensure};
use swarm_events::{Partition, Place};
use swarm_log::Log;
use tokio::time::Instant;

use crate::{
    agents::{Inside, Outside},
    bus::{Bus, new_place},
    fold::End,
    follow::Follower,
    installation::Installation,
    load::{Load, Pace, Submitted},
};

/// Agents of the SDK in this process.
const INSIDE: usize = 4;
/// Agents that are processes of their own.
const OUTSIDE: usize = 2;
/// Tasks that end before a fault: it hits a system at work.
const WARM_UP: usize = 30;
/// Tasks, submitted after a fault is over, that must end before the load stops.
const FRESH: usize = 30;
/// Limit for anything that takes moments when all is well; a cluster's election takes 4 to 9 s.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How a scene wants its load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Needs {
    /// The swarm's partition; any if not given.
    pub partition: Option<Partition>,
    /// How much is submitted.
    pub pace: Pace,
}

/// A swarm at work.
pub struct Stage<'a> {
    /// Where it runs.
    pub installation: &'a Installation,
    /// The runner's way to the log.
    pub bus: &'a Bus,
    /// The swarm.
    pub place: Place,
    /// The log before it.
    pub from: u64,
    /// What the log says of it.
    pub follower: Follower,
    /// Agents of this process.
    pub inside: Vec<Inside>,
    /// Agents that are processes of their own.
    pub outside: Vec<Outside>,
    /// The clients.
    pub load: Load,
}

/// What a scene comes to, by the log.
#[derive(Clone, Debug)]
pub struct Figures {
    /// The swarm.
    pub place: Place,
    /// The log before it.
    pub from: u64,
    /// Tasks whose submission was acknowledged.
    pub tasks: usize,
    /// Those of them that have not ended, in words.
    pub lost: Vec<String>,
    /// Decisions about tasks that had ended already.
    pub doubled: Vec<String>,
    /// Tasks that ended without a result and without having been called off.
    pub failed: usize,
    /// Tasks that were called off.
    pub cancelled: usize,
    /// The longest time in which work waited, an agent had room, and the distributor decided nothing.
    pub gap: Duration,
    /// Commands without an answer.
    pub unanswered: usize,
}

impl<'a> Stage<'a> {
    /// Makes a swarm, starts agents and clients, and waits until tasks end.
    ///
    /// # Errors
    /// Something of it does not come about.
    pub async fn set(
        installation: &'a Installation,
        bus: &'a Bus,
        name: &str,
        needs: Needs,
    ) -> anyhow::Result<Self> {
        let address = installation.address()?;
        let org = address
            .org_id
            .context("the installation has no organization")?;
        let place = new_place(org, |p| needs.partition.is_none_or(|wanted| wanted == p));
        let from = bus.log().info().await?.last_sequence;
        let follower = Follower::start(bus.log(), place).await?;
        bus.create_swarm(place, name).await?;
        follower
            .until("the swarm is created", PATIENCE, |fold| {
                (fold.created() || !fold.refused().is_empty()).then_some(())
            })
            .await?;
        ensure!(
            follower.see(super::fold::Fold::created),
            "the swarm is refused: {:?}",
            follower.see(|fold| fold.refused().to_vec())
        );
        let inside: Vec<Inside> = (0..INSIDE).map(|_| Inside::start(bus, place)).collect();
        let mut outside = Vec::new();
        for _ in 0..OUTSIDE {
            outside.push(Outside::start(installation, place)?);
        }
        let ids: Vec<_> = inside
            .iter()
            .map(|agent| agent.id)
            .chain(outside.iter().map(|agent| agent.id))
            .collect();
        follower
            .until("all agents have joined", PATIENCE, |fold| {
                ids.iter().all(|id| fold.is_member(*id)).then_some(())
            })
            .await?;
        let load = Load::start(
            bus,
            place,
            needs.pace,
            installation.gateways()?,
            &address.api_key,
        );
        let stage = Self {
            installation,
            bus,
            place,
            from,
            follower,
            inside,
            outside,
            load,
        };
        stage
            .follower
            .until("the swarm is at work", PATIENCE, |fold| {
                (fold.ended_since(0) >= WARM_UP).then_some(())
            })
            .await?;
        Ok(stage)
    }

    /// After a fault: an agent joins, and tasks that are submitted from here on end.
    ///
    /// # Errors
    /// They do not.
    pub async fn recovered(&mut self) -> anyhow::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut late = Inside::start(self.bus, self.place);
            let id = late.id;
            let joined = self
                .follower
                .until("an agent joins after the fault", PATIENCE, |fold| {
                    fold.is_member(id).then_some(())
                });
            tokio::select! {
                joined = joined => {
                    joined?;
                    self.inside.push(late);
                    break;
                }
                // An agent gives up if its first connection fails; whoever runs it starts it again.
                ended = late.ended() => ensure!(
                    Instant::now() < deadline,
                    "an agent that comes after the fault ends: {ended:?}"
                ),
            }
        }
        let from = self.bus.log().info().await?.last_sequence;
        self.follower
            .until("tasks end that came after the fault", PATIENCE, |fold| {
                (fold.ended_since(from) >= FRESH).then_some(())
            })
            .await
    }

    /// Ends the load, waits until everything that was accepted has ended, and lets the agents go.
    ///
    /// # Errors
    /// A client has no answer, or an agent does not leave. Tasks that do not end are in the figures.
    pub async fn close(self) -> anyhow::Result<Figures> {
        let submitted = self.load.stop().await?;
        let all_ended = self
            .follower
            .until("every accepted task has ended", PATIENCE, |fold| {
                let open = submitted.tasks.iter().any(|id| fold.end_of(*id).is_none());
                let unanswered = submitted.commands.iter().any(|id| !fold.is_answered(id.0));
                (!open && !unanswered).then_some(())
            })
            .await;
        let figures = figures(self.place, self.from, &self.follower, &submitted);
        // Without an end there is nothing more to wait for: what is missing is in the figures.
        if all_ended.is_ok() {
            let mut ids = Vec::new();
            for agent in self.inside {
                ids.push(agent.id);
                agent.leave().await?;
            }
            for agent in self.outside {
                ids.push(agent.id);
                agent.leave().await?;
            }
            self.follower
                .until("every agent has left", PATIENCE, |fold| {
                    (!ids.iter().any(|id| fold.is_member(*id))).then_some(())
                })
                .await?;
        }
        Ok(figures)
    }
}

fn figures(place: Place, from: u64, follower: &Follower, submitted: &Submitted) -> Figures {
    follower.see(|fold| {
        let ended = |end: End| {
            let of = |id: &&swarm_events::TaskId| fold.end_of(**id) == Some(end);
            submitted.tasks.iter().filter(of).count()
        };
        Figures {
            place,
            from,
            tasks: submitted.tasks.len(),
            lost: submitted
                .tasks
                .iter()
                .filter(|id| fold.end_of(**id).is_none())
                .map(|id| fold.describe(*id))
                .collect(),
            doubled: fold.doubled().to_vec(),
            failed: ended(End::Failed) + ended(End::Rejected),
            cancelled: ended(End::Cancelled),
            gap: Duration::from_micros(u64::try_from(fold.gap_micros()).unwrap_or(0)),
            unanswered: submitted
                .commands
                .iter()
                .filter(|id| !fold.is_answered(id.0))
                .count(),
        }
    })
}
