//! The workloads: each is there for one topology, and the others show what that one costs.

use swarm_events::{
    configuration::{Algorithm, TopologyKind},
    topology::{Hierarchical, Level, Role, Topology},
};

use crate::distribution::{
    random::{Random, Zipf},
    workload::{Cache, Entry, Header, Split, Workload, crew, open},
};

/// One millisecond, in microseconds.
const MS: u64 = 1_000;
/// Agents.
const AGENTS: u32 = 100;

/// The four, each with the options that its row in the tables stands for.
pub fn topologies() -> [Topology; 4] {
    let level = |role, count| Level { role, count };
    [
        Topology::of(TopologyKind::Star),
        Topology::of(TopologyKind::Mesh),
        Topology::Hierarchical(Hierarchical {
            levels: vec![
                level(Role::Coordinator, 5),
                level(Role::Supervisor, 20),
                level(Role::Worker, 75),
            ],
            ..Hierarchical::default()
        }),
        Topology::of(TopologyKind::Ring),
    ]
}

/// What is handed in.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Independent tasks, all at once: who lets everybody take from everybody does best
    Independent,
    /// A loop through a hundred stages, each after the one before, each with a state of its own: who goes round wins
    Pipeline,
    /// Tasks that are to run one after another as they come, although nothing says so: who keeps the order wins
    Stream,
    /// Jobs that supervisors split, and whose results they make one: who has many of them wins
    Fan,
    /// Skewed durations and sticky keys, handed out by affinity: who takes from everybody waits the shortest
    Sticky,
    /// Tasks whose agents talk to each other: who has direct edges wins
    Talk,
}
impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Independent,
        Self::Pipeline,
        Self::Stream,
        Self::Fan,
        Self::Sticky,
        Self::Talk,
    ];

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Independent => "independent",
            Self::Pipeline => "pipeline",
            Self::Stream => "stream",
            Self::Fan => "fan",
            Self::Sticky => "sticky",
            Self::Talk => "talk",
        }
    }
    /// What it is, for people.
    pub const fn about(self) -> &'static str {
        match self {
            Self::Independent => {
                "all at once; log-normal durations (median 50 ms, one octave), one in 20 ten times as long; 8 waiting places"
            }
            Self::Pipeline => {
                "20 rounds through 100 stages, each task after the one before; 10 ms, and 50 ms more where the stage's state is \
                 not among the 4 that an agent keeps"
            }
            Self::Stream => {
                "Poisson arrivals at 50 % of one agent; 5 to 15 ms; each is to begin after the one before has ended, which no \
                 dependency says"
            }
            Self::Fan => {
                "60 jobs for supervisors at once: 20 ms to split, 16 parts of 50 to 150 ms, 20 ms to make one of the results"
            }
            Self::Sticky => {
                "Poisson arrivals at 50 % of 100 agents if every key were in the cache; Pareto durations (exponent 1) from 10 to \
                 500 ms, 60 ms more where the key is not; Zipf over 2,000 keys, 32 of which an agent keeps; algorithm affinity"
            }
            Self::Talk => {
                "all at once; 40 to 60 ms of work, then 8 messages to any agents, which must be handled before the task ends"
            }
        }
    }
    /// By what tasks are handed out where the topology leaves a choice.
    pub const fn algorithm(self) -> Algorithm {
        match self {
            Self::Sticky => Algorithm::Affinity,
            _ => Algorithm::LeastLoaded,
        }
    }

    /// Makes it with `scale` percent of its tasks; the pool stays.
    pub fn make(self, seed: u64, scale: u32) -> Workload {
        let random = &mut Random::new(seed);
        let count = |tasks: usize| (tasks * scale as usize / 100).max(1);
        let mut cache = None;
        let mut tasks: Vec<Entry> = match self {
            Self::Independent => (0..count(4_000))
                .map(|_| Entry {
                    run: random.log_normal(50 * MS) * if random.one_in(20) { 10 } else { 1 },
                    ..Entry::plain()
                })
                .collect(),
            Self::Pipeline => {
                cache = Some(Cache {
                    keys: 4,
                    cold_micros: 50 * MS,
                });
                (0..count(2_000))
                    .map(|number| Entry {
                        run: 10 * MS,
                        key: Some(format!("stage-{}", number % AGENTS as usize)),
                        after: number.checked_sub(1),
                        ..Entry::plain()
                    })
                    .collect()
            }
            Self::Stream => open(random, count(2_000), (1, 50), |random| Entry {
                run: random.between(5 * MS, 15 * MS),
                ..Entry::plain()
            }),
            Self::Fan => (0..count(60))
                .map(|_| Entry {
                    run: 20 * MS,
                    role: Some(Role::Supervisor),
                    split: Some(Split {
                        parts: (0..16).map(|_| random.between(50 * MS, 150 * MS)).collect(),
                        reduce: 20 * MS,
                    }),
                    ..Entry::plain()
                })
                .collect(),
            Self::Sticky => {
                cache = Some(Cache {
                    keys: 32,
                    cold_micros: 60 * MS,
                });
                let zipf = Zipf::new(2_000);
                let load = (u64::from(AGENTS), 50);
                open(random, count(10_000), load, |random| Entry {
                    run: random.pareto(10 * MS, 500 * MS),
                    key: Some(format!("key-{}", zipf.draw(random))),
                    ..Entry::plain()
                })
            }
            Self::Talk => (0..count(2_000))
                .map(|_| Entry {
                    run: random.between(40 * MS, 60 * MS),
                    talks: 8,
                    ..Entry::plain()
                })
                .collect(),
        };
        tasks.sort_by_key(|task| task.at);
        let header = Header {
            workload: self.name().to_owned(),
            about: self.about().to_owned(),
            seed,
            agents: crew(AGENTS, if self == Self::Independent { 8 } else { 2 }),
            cache,
            watched: None,
        };
        Workload { header, tasks }
    }
}
