//! Every scene, by name.

use std::fmt;

use rand::{SeedableRng, rngs::StdRng, seq::IndexedRandom};

use crate::proxy::Cut;

/// What can be killed or paused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// Decides on swarms and members.
    Coordinator,
    /// Decides on tasks.
    Distributor,
    /// Decides on liveness.
    Health,
    /// Writes the read models.
    Projector,
    /// Serves the API.
    Gateway,
    /// Holds the log.
    Nats,
    /// Holds the read models.
    Postgres,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Coordinator,
        Self::Distributor,
        Self::Health,
        Self::Projector,
        Self::Gateway,
        Self::Nats,
        Self::Postgres,
    ];
    /// Those with replicas on a single node.
    pub const SERVICES: [Self; 5] = [
        Self::Coordinator,
        Self::Distributor,
        Self::Health,
        Self::Projector,
        Self::Gateway,
    ];
    /// Its name in `connection.json`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Coordinator => "coordinator",
            Self::Distributor => "distributor",
            Self::Health => "health",
            Self::Projector => "projector",
            Self::Gateway => "gateway",
            Self::Nats => "nats-server",
            Self::Postgres => "postgres",
        }
    }
}
impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One process of a part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Target {
    /// Of what.
    pub part: Part,
    /// The replica that stands by instead of the one that works on the scene's swarm.
    pub standby: bool,
}

/// Which servers of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// One that does not lead the log's stream.
    Follower,
    /// The one that leads it.
    Leader,
    /// The leader and another: no majority is left until one is back.
    Two,
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// SIGKILL to all of them at the same moment; the supervisor starts them again.
    Kill(Vec<Target>),
    /// SIGSTOP, and SIGCONT after a while: what wakes up is a zombie.
    Pause(Target),
    /// SIGKILL of the supervisor: all of its children must go. Then `swarm up` again.
    KillSupervisor,
    /// SIGKILL of an agent's process.
    KillAgent,
    /// SIGSTOP and SIGCONT of an agent's process.
    PauseAgent,
    /// The wire between a service that owns the swarm's partition and nats-server is cut and mended.
    CutService(Part, Cut),
    /// SIGKILL of servers of a cluster.
    KillNodes(Nodes),
    /// The wires between the stream's leader and the other servers of a cluster are cut and mended.
    CutNode(Cut),
    /// The disk below nats-server is full, and is made larger.
    FillDisk,
    /// Repeats, garbage, wrong places and over-long payloads while a service is killed.
    Noise,
    /// A third replica comes and is told to go; then the owner is told to go.
    Replicas,
}

/// What a scene is played on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ground {
    /// One nats-server, two replicas of each service.
    Single,
    /// Three nats-servers of the installation's own.
    Cluster,
    /// Three nats-servers of the runner's own, with a proxy before each route.
    Wired,
    /// One nats-server on a small file system.
    SmallDisk,
}

/// A scene.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scene {
    /// Its name.
    pub name: String,
    /// What it is played on.
    pub ground: Ground,
    /// What happens.
    pub act: Act,
}

impl Scene {
    fn new(name: impl Into<String>, ground: Ground, act: Act) -> Self {
        Self {
            name: name.into(),
            ground,
            act,
        }
    }
}

/// All scenes, in the order in which they are played.
pub fn all() -> Vec<Scene> {
    use Ground::{Cluster, Single, SmallDisk, Wired};
    let active = |part| Target {
        part,
        standby: false,
    };
    let standby = |part| Target {
        part,
        standby: true,
    };
    let mut scenes = Vec::new();
    for part in Part::ALL {
        let act = Act::Kill(vec![active(part)]);
        scenes.push(Scene::new(format!("kill-{part}"), Single, act));
    }
    for part in Part::SERVICES {
        let act = Act::Kill(vec![standby(part)]);
        scenes.push(Scene::new(format!("kill-{part}-standby"), Single, act));
    }
    scenes.push(Scene::new("kill-agent", Single, Act::KillAgent));
    scenes.push(Scene::new("kill-supervisor", Single, Act::KillSupervisor));
    for part in Part::ALL {
        let act = Act::Pause(active(part));
        scenes.push(Scene::new(format!("pause-{part}"), Single, act));
    }
    scenes.push(Scene::new("pause-agent", Single, Act::PauseAgent));
    for (a, b) in pairs() {
        let act = Act::Kill(vec![active(a), active(b)]);
        scenes.push(Scene::new(format!("pair-{a}+{b}"), Single, act));
    }
    for part in Part::SERVICES {
        let act = Act::Kill(vec![active(part), standby(part)]);
        scenes.push(Scene::new(format!("pair-{part}+{part}"), Single, act));
    }
    for (name, cut) in [("silent", Cut::Silent), ("closed", Cut::Closed)] {
        let act = Act::CutService(Part::Distributor, cut);
        scenes.push(Scene::new(format!("cut-{name}-distributor"), Single, act));
    }
    for part in [Part::Coordinator, Part::Health] {
        let act = Act::CutService(part, Cut::Silent);
        scenes.push(Scene::new(format!("cut-silent-{part}"), Single, act));
    }
    scenes.push(Scene::new("noise", Single, Act::Noise));
    scenes.push(Scene::new("replicas", Single, Act::Replicas));
    for (name, nodes) in [
        ("follower", Nodes::Follower),
        ("leader", Nodes::Leader),
        ("two", Nodes::Two),
    ] {
        let act = Act::KillNodes(nodes);
        scenes.push(Scene::new(format!("cluster-kill-{name}"), Cluster, act));
    }
    for (name, cut) in [("silent", Cut::Silent), ("closed", Cut::Closed)] {
        let act = Act::CutNode(cut);
        scenes.push(Scene::new(format!("cluster-cut-{name}"), Wired, act));
    }
    scenes.push(Scene::new("disk-full", SmallDisk, Act::FillDisk));
    scenes
}

/// Every pair of parts, in the order of a tournament in which nobody plays twice in a row: a process that is killed again
/// within ten seconds is started again later each time, which would be measured instead of the fault.
fn pairs() -> Vec<(Part, Part)> {
    let count = Part::ALL.len();
    let mut pairs = Vec::new();
    for round in 0..count {
        for step in 1..=count / 2 {
            let (a, b) = ((round + step) % count, (round + count - step) % count);
            pairs.push((Part::ALL[a.min(b)], Part::ALL[a.max(b)]));
        }
    }
    pairs
}

/// The scenes whose name is, or begins with, one of `wanted`; all for none.
///
/// # Errors
/// Something that is wanted is no scene.
pub fn chosen(wanted: &[String]) -> Result<Vec<Scene>, String> {
    let all = all();
    if let Some(unknown) = wanted
        .iter()
        .find(|wanted| !all.iter().any(|scene| scene.name.starts_with(*wanted)))
    {
        return Err(format!("there is no scene {unknown}: see --list"));
    }
    let is_wanted = |scene: &Scene| {
        // A whole name means itself alone: `kill-distributor` not `kill-distributor-standby`.
        let whole = |wanted: &&String| all.iter().any(|scene| scene.name == **wanted);
        wanted.is_empty()
            || wanted.iter().any(|wanted| match whole(&wanted) {
                true => scene.name == *wanted,
                false => scene.name.starts_with(wanted),
            })
    };
    Ok(all
        .iter()
        .filter(|scene| is_wanted(scene))
        .cloned()
        .collect())
}

/// `rounds` scenes drawn from `scenes` by `seed`.
pub fn drawn(scenes: &[Scene], seed: u64, rounds: usize) -> Vec<Scene> {
    let mut random = StdRng::seed_from_u64(seed);
    (0..rounds)
        .filter_map(|_| scenes.choose(&mut random).cloned())
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_pair_is_there_once_and_nobody_plays_twice_in_a_row() {
        let pairs = pairs();
        let distinct: BTreeSet<_> = pairs.iter().collect();
        assert_eq!((pairs.len(), distinct.len()), (21, 21));
        for two in pairs.windows(2) {
            let [(a, b), (c, d)] = [two[0], two[1]];
            assert!(a != c && a != d && b != c && b != d, "{two:?}");
        }
    }

    #[test]
    fn names_are_unique_and_choose_scenes() {
        let all = all();
        let names: BTreeSet<&str> = all.iter().map(|scene| scene.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        let count = |wanted: &[&str]| {
            let wanted: Vec<String> = wanted.iter().map(|&name| name.to_owned()).collect();
            chosen(&wanted).map(|scenes| scenes.len())
        };
        assert_eq!(count(&[]), Ok(all.len()));
        assert_eq!(count(&["kill-distributor"]), Ok(1));
        assert_eq!(count(&["pair"]), Ok(26));
        assert_eq!(count(&["noise", "disk"]), Ok(2));
        assert!(count(&["noise", "nothing"]).is_err());
    }

    #[test]
    fn a_seed_draws_the_same_scenes_again() {
        let all = all();
        let names = |seed| -> Vec<String> {
            let drawn = drawn(&all, seed, 20);
            drawn.into_iter().map(|scene| scene.name).collect()
        };
        assert_eq!(names(1), names(1));
        assert_ne!(names(1), names(2));
    }
}
