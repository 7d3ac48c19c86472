//! What is handed in: recorded as one JSON object a line, the first for the pool, then one for each task.

use std::{
    io::{BufRead, BufReader, BufWriter, Write},
    path::Path,
};

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};
use swarm_events::topology::Role;

use super::random::{Random, Zipf};

/// One millisecond, in microseconds.
const MS: u64 = 1_000;
/// One second, in microseconds.
const S: u64 = 1_000_000;

/// A pool and its tasks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    pub header: Header,
    /// In the order of their arrival.
    pub tasks: Vec<Entry>,
}

/// First line of a recorded workload.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its name.
    pub workload: String,
    /// What it is, for people.
    pub about: String,
    /// Where its numbers come from.
    pub seed: u64,
    /// The agents, in the order in which they join.
    pub agents: Vec<Crew>,
    /// What an agent keeps of the keys it worked on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Cache>,
    /// What the watched tasks have in common.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watched: Option<String>,
}

/// Agents that are alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Crew {
    pub count: u32,
    pub slots: u32,
    /// Places beyond the slots.
    pub waiting: u32,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub capabilities: Vec<String>,
}

/// The agents' caches: the keys used last stay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cache {
    /// Keys that an agent keeps.
    pub keys: usize,
    /// What a task takes longer whose key is not among them, in microseconds.
    pub cold_micros: u64,
}

/// A task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// When it is submitted, from the beginning on, in microseconds.
    pub at: u64,
    /// What it takes where its key is in the cache, in microseconds.
    pub run: u64,
    pub priority: u8,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub needs: Vec<String>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub watched: bool,
    /// The number of the task that must complete before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<usize>,
    /// Only an agent of this role takes it; the leader if nobody has it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub role: Option<Role>,
    /// It is split into parts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<Split>,
    /// How many messages its agent sends to others, each of which it waits for until it is handled, before the task ends.
    #[serde(default, skip_serializing_if = "is_none")]
    pub talks: u32,
}

/// What becomes of a task that is split.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// What each part takes, in microseconds.
    pub parts: Vec<u64>,
    /// What it takes to make one result of theirs, in microseconds.
    pub reduce: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "the signature is serde's"
)]
const fn is_none(talks: &u32) -> bool {
    *talks == 0
}

/// The workloads that are made here.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Open arrivals, heavily skewed durations: who looks at the load wins
    Skewed,
    /// Everything at once, dealt out in advance: who steals wins
    Burst,
    /// Skewed keys and caches: who remembers wins
    Keys,
    /// A few urgent tasks among many, more than the pool can do for a while: who keeps nothing waiting at agents wins
    Urgent,
    /// A few agents can do what the others cannot: who spares them wins
    Specialists,
    /// Tasks as short as a round trip: who hands out in advance wins
    Short,
}
impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Skewed,
        Self::Burst,
        Self::Keys,
        Self::Urgent,
        Self::Specialists,
        Self::Short,
    ];

    /// Makes it with `scale` percent of its tasks and of its time; the pool stays.
    pub fn make(self, seed: u64, scale: u32) -> Workload {
        let random = &mut Random::new(seed);
        let count = |tasks: usize| (tasks * scale as usize / 100).max(1);
        let (about, agents, mut tasks) = match self {
            Self::Skewed => (
                "Poisson arrivals at 75 % of 100 agents; Pareto durations (exponent 1) from 20 ms to 4 s",
                crew(100, 2),
                open(random, count(20_000), (100, 75), |random| Entry {
                    run: random.pareto(20 * MS, 4 * S),
                    ..Entry::plain()
                }),
            ),
            Self::Burst => (
                "all at once; log-normal durations (median 50 ms, one octave), one in 20 ten times as long; 8 waiting places",
                crew(100, 8),
                (0..count(4_000))
                    .map(|_| Entry {
                        run: random.log_normal(50 * MS) * if random.one_in(20) { 10 } else { 1 },
                        ..Entry::plain()
                    })
                    .collect(),
            ),
            Self::Keys => {
                let zipf = Zipf::new(2_000);
                (
                    "Poisson arrivals at 45 % of 100 agents if every key were in the cache, 112 % if none; 20 to 60 ms, 60 ms \
                     more where it is not; Zipf over 2,000 keys, 32 of which an agent keeps",
                    crew(100, 2),
                    open(random, count(20_000), (100, 45), |random| Entry {
                        run: random.between(20 * MS, 60 * MS),
                        key: Some(format!("key-{}", zipf.draw(random))),
                        ..Entry::plain()
                    }),
                )
            }
            Self::Urgent => (
                "Poisson arrivals at 110 % of 100 agents; 50 to 250 ms; every tenth of priority 10, the others of 1 to 5",
                crew(100, 2),
                open(random, count(10_000), (100, 110), |random| {
                    let watched = random.one_in(10);
                    Entry {
                        run: random.between(50 * MS, 250 * MS),
                        priority: if watched {
                            10
                        } else {
                            random.between(1, 5) as u8
                        },
                        watched,
                        ..Entry::plain()
                    }
                }),
            ),
            Self::Specialists => {
                let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
                let group = |count, capabilities| Crew {
                    count,
                    slots: 1,
                    waiting: 2,
                    capabilities,
                };
                let ten = [group(2, words(&["cpu", "gpu"])), group(8, words(&["cpu"]))];
                (
                    "Poisson arrivals at 75 % of 100 agents, 20 of which have gpu beside cpu; every seventh task needs gpu, \
                     the others cpu; log-normal durations (median 100 ms, one octave)",
                    std::iter::repeat_n(ten, 10).flatten().collect(),
                    open(random, count(10_000), (100, 75), |random| {
                        let watched = random.one_in(7);
                        Entry {
                            run: random.log_normal(100 * MS),
                            needs: words(if watched { &["gpu"] } else { &["cpu"] }),
                            watched,
                            ..Entry::plain()
                        }
                    }),
                )
            }
            Self::Short => (
                "all at once; 1 to 5 ms; 4 waiting places",
                crew(100, 4),
                (0..count(20_000))
                    .map(|_| Entry {
                        run: random.between(MS, 5 * MS),
                        ..Entry::plain()
                    })
                    .collect(),
            ),
        };
        tasks.sort_by_key(|task| task.at);
        let header = Header {
            workload: self.name().to_owned(),
            about: about.to_owned(),
            seed,
            agents,
            cache: (self == Self::Keys).then_some(Cache {
                keys: 32,
                cold_micros: 60 * MS,
            }),
            watched: match self {
                Self::Urgent => Some("urgent".to_owned()),
                Self::Specialists => Some("gpu".to_owned()),
                _ => None,
            },
        };
        Workload { header, tasks }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Skewed => "skewed",
            Self::Burst => "burst",
            Self::Keys => "keys",
            Self::Urgent => "urgent",
            Self::Specialists => "specialists",
            Self::Short => "short",
        }
    }
}

impl Entry {
    /// One that is submitted at once.
    pub fn plain() -> Self {
        Self {
            at: 0,
            run: 0,
            priority: swarm_events::task::PRIORITY_DEFAULT,
            key: None,
            needs: Vec::new(),
            watched: false,
            after: None,
            role: None,
            split: None,
            talks: 0,
        }
    }
}

/// Agents with one slot each.
pub fn crew(count: u32, waiting: u32) -> Vec<Crew> {
    vec![Crew {
        count,
        slots: 1,
        waiting,
        capabilities: Vec::new(),
    }]
}

/// `count` tasks that arrive over as long as `agents` need for them at `percent` of their time.
pub fn open(
    random: &mut Random,
    count: usize,
    (agents, percent): (u64, u64),
    make: impl Fn(&mut Random) -> Entry,
) -> Vec<Entry> {
    let mut tasks: Vec<Entry> = (0..count).map(|_| make(random)).collect();
    let work: u64 = tasks.iter().map(|task| task.run).sum();
    let moments = random.moments(count, work * 100 / (agents * percent));
    for (task, at) in tasks.iter_mut().zip(moments) {
        task.at = at;
    }
    tasks
}

impl Workload {
    /// Records it.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, file: &Path) -> anyhow::Result<()> {
        let to = std::fs::File::create(file)
            .with_context(|| format!("cannot write {}", file.display()))?;
        let mut to = BufWriter::new(to);
        serde_json::to_writer(&mut to, &self.header)?;
        for task in &self.tasks {
            to.write_all(b"\n")?;
            serde_json::to_writer(&mut to, task)?;
        }
        to.write_all(b"\n")?;
        Ok(to.flush()?)
    }

    /// Reads a recorded one.
    ///
    /// # Errors
    /// A line that is not what it must be, by its number.
    pub fn read(file: &Path) -> anyhow::Result<Self> {
        let from =
            std::fs::File::open(file).with_context(|| format!("cannot read {}", file.display()))?;
        let mut lines = BufReader::new(from).lines();
        let first = lines.next().context("the file is empty")??;
        let header: Header = serde_json::from_str(&first).context("line 1")?;
        let mut tasks: Vec<Entry> = Vec::new();
        for (number, line) in (2..).zip(lines) {
            let task: Entry =
                serde_json::from_str(&line?).with_context(|| format!("line {number}"))?;
            let before = tasks.last().map_or(0, |task| task.at);
            ensure!(
                task.at >= before,
                "line {number}: it arrives before the one above"
            );
            tasks.push(task);
        }
        ensure!(!tasks.is_empty(), "the file has no tasks");
        ensure!(
            header.agents.iter().any(|crew| crew.count > 0),
            "line 1: no agents"
        );
        Ok(Self { header, tasks })
    }

    /// Its agents, one by one.
    pub fn agents(&self) -> impl Iterator<Item = &Crew> {
        let crews = self.header.agents.iter();
        crews.flat_map(|crew| std::iter::repeat_n(crew, crew.count as usize))
    }

    /// Its work with every key in the cache, in microseconds.
    pub fn work(&self) -> u64 {
        let split = |split: &Split| split.parts.iter().sum::<u64>() + split.reduce;
        let run = |task: &Entry| task.run + task.split.as_ref().map_or(0, split);
        self.tasks.iter().map(run).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_workload() {
        for kind in Kind::ALL {
            let made = kind.make(7, 5);
            assert_eq!(made, kind.make(7, 5), "{kind:?}");
            assert_ne!(made.tasks, kind.make(8, 5).tasks, "{kind:?}");
            assert!(made.tasks.is_sorted_by_key(|task| task.at), "{kind:?}");
            assert_eq!(made.agents().count(), 100, "{kind:?}");
        }
    }

    #[test]
    fn what_is_recorded_is_read_again() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        for kind in Kind::ALL {
            let file = dir.path().join(format!("{}.jsonl", kind.name()));
            let made = kind.make(7, 5);
            made.write(&file)?;
            assert_eq!(made, Workload::read(&file)?, "{kind:?}");
        }
        Ok(())
    }

    #[test]
    fn a_bad_line_is_named() -> anyhow::Result<()> {
        let dir = tempfile::tempdir()?;
        let file = dir.path().join("bad.jsonl");
        Kind::Short.make(7, 1).write(&file)?;
        let text = std::fs::read_to_string(&file)?.replacen("\"run\"", "\"runs\"", 1);
        std::fs::write(&file, text)?;
        let error = Workload::read(&file).expect_err("an unknown field");
        assert_eq!(error.to_string(), "line 2");
        Ok(())
    }

    #[test]
    fn open_arrivals_keep_the_pool_as_busy_as_they_say() {
        let made = Kind::Skewed.make(7, 100);
        let last = made.tasks.last().map_or(0, |task| task.at);
        let busy = made.work() * 100 / (last * 100);
        assert!((74..=76).contains(&busy), "{busy} %");
    }
}
