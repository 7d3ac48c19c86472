//! Model projectors: they fold as the real one does, write each batch with its checkpoint in one transaction, crash in
//! between, and take over from each other. The database is a few ordered maps.

use std::collections::BTreeMap;

use rand::{Rng, rngs::StdRng};
use swarm_audit::{Invariant, Violation};
use swarm_coordinator_core::{Coordinator, Touched as Members};
use swarm_distributor_core::{Distributor, TaskView, Touched as Tasks};
use swarm_events::{
    AgentId, OrgId, Partition, Place, Service, SwarmId, TaskId,
    decider::Decider,
    planted::{self, Bug},
};

use crate::journal::{Journal, Met};

/// Most messages of a batch.
const BATCH_MAX: usize = 60;

/// A row is what a reader would see of it.
type Row = String;

/// What is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Tables {
    tasks: BTreeMap<(Place, TaskId), Row>,
    agents: BTreeMap<(OrgId, SwarmId, AgentId), Row>,
    swarms: BTreeMap<(OrgId, SwarmId), Row>,
    /// One row for each message, in the order in which they were written.
    events: Vec<(u64, bool)>,
}

/// The database: tables, the checkpoint, and who holds the lock of the active projector.
#[derive(Default)]
pub struct Database {
    tables: Tables,
    checkpoint: u64,
    holder: Option<u64>,
}

struct Fold {
    coordinators: Vec<Coordinator>,
    distributors: Vec<Distributor>,
    members: Members,
    tasks: Tasks,
    sequence: u64,
}

/// A projector process.
pub struct Projector {
    partitions: Vec<Partition>,
    /// Its session with the database: a new one after each start.
    session: u64,
    fold: Option<Fold>,
    /// A batch that was folded and is not committed.
    batch: Option<Tables>,
    next_session: Option<u64>,
    pub paused_until: u64,
    pub commits: u64,
}

impl Database {
    /// The connection of a session breaks, and with it its lock.
    pub fn drop_session(&mut self, session: u64) {
        if self.holder == Some(session) {
            self.holder = None;
        }
    }

    /// Whether the tables are what the log gives, read at once by somebody else.
    pub fn judge(&self, journal: &Journal, partitions: &[Partition]) -> Option<Violation> {
        let mut fold = Fold::new(partitions);
        let mut rows = Tables::default();
        for met in journal.after(0) {
            if met.sequence() > self.checkpoint {
                break;
            }
            let void = fold.meet(met);
            rows.events.push((met.sequence(), void));
            fold.rows(&mut rows);
        }
        let differs = [
            ("swarm_tasks", self.tables.tasks == rows.tasks),
            ("swarm_agents", self.tables.agents == rows.agents),
            ("swarms", self.tables.swarms == rows.swarms),
            ("swarm_events", self.tables.events == rows.events),
        ];
        let table = differs.iter().find(|(_, same)| !same)?.0;
        Some(Violation {
            invariant: Invariant::ReadModelEqualsFold,
            sequence: self.checkpoint,
            detail: format!("{table} is not what the log gives"),
        })
    }
}

impl Projector {
    pub fn new(partitions: &[Partition], session: u64) -> Self {
        Self {
            partitions: partitions.to_vec(),
            session,
            fold: None,
            batch: None,
            next_session: None,
            paused_until: 0,
            commits: 0,
        }
    }

    pub fn session(&self) -> u64 {
        self.session
    }

    /// SIGKILL, and a new process.
    pub fn restart(&mut self, session: u64) {
        self.session = session;
        self.fold = None;
        self.batch = None;
        self.next_session = None;
    }

    /// Its session ends without its knowing; it opens `next` when it finds out.
    pub fn lose_session(&mut self, next: u64) {
        self.next_session = Some(next);
    }

    /// One step: it takes the lock, folds up to the checkpoint, gathers a batch, or commits one.
    pub fn step(&mut self, database: &mut Database, journal: &Journal, rng: &mut StdRng) {
        if let Some(next) = self.next_session {
            // Whatever it tries under the old one fails.
            self.restart(next);
            return;
        }
        if *database.holder.get_or_insert(self.session) != self.session {
            // Stands by. What it had gathered while it was the active one is void.
            self.fold = None;
            self.batch = None;
            return;
        }
        if let Some(rows) = self.batch.take() {
            if planted::is(Bug::CheckpointApart) && rng.random_ratio(1, 20) {
                database.write(rows, None);
                self.fold = None;
            } else {
                let to = self.fold.as_ref().map(|fold| fold.sequence);
                database.write(rows, to);
                self.commits += 1;
            }
            return;
        }
        let partitions = &self.partitions;
        let fold = self.fold.get_or_insert_with(|| {
            // Silently up to the checkpoint.
            let mut fold = Fold::new(partitions);
            for met in journal.all() {
                if met.sequence() > database.checkpoint {
                    break;
                }
                fold.meet(met);
            }
            fold.members.clear();
            fold.tasks.clear();
            fold
        });
        let mut rows = Tables::default();
        for met in journal
            .after(fold.sequence)
            .iter()
            .take(rng.random_range(1..BATCH_MAX))
        {
            let void = fold.meet(met);
            rows.events.push((met.sequence(), void));
        }
        fold.rows(&mut rows);
        self.batch = (!rows.events.is_empty()).then_some(rows);
    }
}

impl Database {
    fn write(&mut self, rows: Tables, checkpoint: Option<u64>) {
        self.tables.tasks.extend(rows.tasks);
        self.tables.agents.extend(rows.agents);
        self.tables.swarms.extend(rows.swarms);
        self.tables.events.extend(rows.events);
        if let Some(checkpoint) = checkpoint {
            self.checkpoint = checkpoint;
        }
    }
}

impl Fold {
    fn new(partitions: &[Partition]) -> Self {
        Self {
            coordinators: partitions.iter().map(|p| Coordinator::new(*p)).collect(),
            distributors: partitions.iter().map(|p| Distributor::new(*p)).collect(),
            members: Members::default(),
            tasks: Tasks::default(),
            sequence: 0,
        }
    }

    /// Whether the message was void for the distributor, which judges most of them.
    fn meet(&mut self, met: &Met) -> bool {
        self.sequence = met.sequence();
        let mut void = false;
        for core in &mut self.coordinators {
            if met.is_for(Service::Coordinator, core.head().partition) {
                core.evolve_traced(&met.input, &mut self.members);
            }
        }
        for core in &mut self.distributors {
            if met.is_for(Service::Distributor, core.head().partition) {
                let verdict = core.evolve_traced(&met.input, &mut self.tasks);
                void |= matches!(verdict, swarm_events::decider::Verdict::Void(_));
            }
        }
        void
    }

    /// The rows that were touched, as they are now.
    fn rows(&mut self, rows: &mut Tables) {
        for (place, id) in &self.tasks.tasks {
            let live = || {
                let core = self
                    .distributors
                    .iter()
                    .find(|d| d.head().partition == place.partition);
                core.and_then(|core| core.task(*place, *id))
            };
            let view: Option<TaskView> = self.tasks.ended.remove(&(*place, *id)).or_else(live);
            if let Some(view) = view {
                rows.tasks.insert((*place, *id), format!("{view:?}"));
            }
        }
        let swarm = |org: OrgId, swarm: SwarmId| {
            let partition = Partition::of(swarm.0);
            let core = self
                .coordinators
                .iter()
                .find(|c| c.head().partition == partition);
            core.and_then(|core| core.swarm(org, swarm))
        };
        for (org, id) in &self.members.swarms {
            if let Some(found) = swarm(*org, *id) {
                let row = format!("{} {:?} {:?}", found.name, found.stopping, found.deleted_at);
                rows.swarms.insert((*org, *id), row);
            }
        }
        for key @ (org, id, agent) in &self.members.agents {
            if let Some(found) = swarm(*org, *id).and_then(|s| s.agents.get(agent)) {
                rows.agents.insert(*key, format!("{found:?}"));
            }
        }
        self.members.clear();
        self.tasks.clear();
    }
}
