//! Random walks of joins, leaves, failures, recoveries and changes: what must hold after each step.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use serde_json::json;
use swarm_events::{
    AgentId,
    topology::{ConnectionStrategy, Hierarchical, Mesh, Role, Star, Topology},
};
use swarm_topology::{Change, Member, Shape};

use crate::world::{NOBODY, World, bare, id, made, mesh, number, plain, ring, star, tree};

#[derive(Clone, Debug)]
enum Step {
    Join(u64, &'static str, bool),
    Leave(prop::sample::Index),
    /// It goes and is there again at once.
    Restart(prop::sample::Index),
    Health(prop::sample::Index, bool),
    /// Several at once, before anything is written.
    Burst(Vec<u64>, Vec<prop::sample::Index>),
    Change(Topology),
    /// A change during which somebody comes and somebody goes; completed or kept.
    Staged(Topology, u64, prop::sample::Index, bool),
}

fn topologies() -> impl Strategy<Value = Topology> {
    let named = json!({"agent-3": "agent-2", "agent-4": "agent-2", "agent-2": "agent-1", "agent-9": "agent-1",
        "agent-6": "agent-5", "agent-7": "agent-5"});
    let levels = |counts: &[u32]| {
        let last = counts.len() - 1;
        let level = |(at, count)| {
            let role = match at {
                0 => "coordinator",
                at if at == last => "worker",
                _ => "supervisor",
            };
            json!({"role": role, "count": count})
        };
        serde_json::Value::from(counts.iter().enumerate().map(level).collect::<Vec<_>>())
    };
    prop_oneof![
        (0u32..4, any::<bool>(), prop::option::of(1u32..6)).prop_map(|(hubs, failover, most)| {
            star(json!({"coordinator_count": hubs, "failover_coordinator": failover, "max_workers": most}))
        }),
        Just(star(json!({"coordinator": {"agent_type": "boss"}, "coordinator_count": 2}))),
        Just(star(json!({"coordinator": {"agent_name": "agent-3"}, "failover_coordinator": false}))),
        Just(star(json!({"workers": ["agent-1", "agent-4", "agent-6"], "max_workers": 2}))),
        Just(mesh(json!({}))),
        (1u32..4).prop_map(|half| mesh(json!({"connection_strategy": "nearest", "neighbours": 2 * half}))),
        Just(mesh(json!({"connections": [["agent-1", "agent-2"], ["agent-3", "agent-1"], ["agent-7", "agent-8"]]}))),
        Just(ring()),
        (prop::collection::vec(1u32..4, 2..5), 1u32..5, any::<bool>()).prop_map(move |(counts, ratio, by_name)| {
            let parents = if by_name { named.clone() } else { json!({}) };
            tree(json!({"levels": levels(&counts), "parent_child_ratio": ratio, "parents": parents}))
        }),
    ]
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = prop::sample::select(vec![
        "exec",
        "exec",
        "exec",
        "coordinator",
        "supervisor",
        "boss",
    ]);
    let index = any::<prop::sample::Index>;
    prop_oneof![
        6 => (1u64..16, kind, prop::bool::weighted(0.9)).prop_map(|(n, kind, healthy)| Step::Join(n, kind, healthy)),
        4 => index().prop_map(Step::Leave),
        1 => index().prop_map(Step::Restart),
        2 => (index(), any::<bool>()).prop_map(|(at, healthy)| Step::Health(at, healthy)),
        2 => (prop::collection::vec(1u64..16, 0..6), prop::collection::vec(index(), 0..4))
            .prop_map(|(come, go)| Step::Burst(come, go)),
        1 => topologies().prop_map(Step::Change),
        1 => (topologies(), 1u64..16, index(), any::<bool>()).prop_map(|(t, n, at, done)| Step::Staged(t, n, at, done)),
    ]
}

fn pick(world: &World, at: prop::sample::Index) -> Option<u64> {
    let there: Vec<u64> = world
        .members
        .iter()
        .map(|member| number(member.id))
        .collect();
    (!there.is_empty()).then(|| there[at.index(there.len())])
}

fn walk(world: &mut World, step: Step) {
    match step {
        Step::Join(n, kind, healthy) => {
            let member = Member {
                healthy,
                ..made(n, kind)
            };
            let new = !world.members.contains(id(n));
            let before = world.shape.clone();
            let changes = world.join(member);
            if new && kind == "exec" && healthy {
                few(&before, &changes);
            }
        }
        Step::Leave(at) => {
            if let Some(n) = pick(world, at) {
                let before = world.shape.clone();
                let changes = world.leave(n);
                few(&before, &changes);
            }
        }
        Step::Restart(at) => {
            if let Some(n) = pick(world, at) {
                let member = world.members.get(id(n)).expect("there").clone();
                world.leave(n);
                world.join(member);
            }
        }
        Step::Health(at, healthy) => {
            if let Some(n) = pick(world, at) {
                world.health(n, healthy);
            }
        }
        Step::Burst(come, go) => {
            let mut around = BTreeSet::new();
            for at in go {
                if let Some(n) = pick(world, at) {
                    world.members.remove(id(n));
                    around.insert(id(n));
                }
            }
            for n in come {
                world.come(plain(n));
                around.insert(id(n));
            }
            let whole = world.shape.changes(&world.members);
            let some = world.shape.changes_around(&around, &world.members);
            assert_eq!(bare(&some), bare(&whole));
            world.write(&some);
            world.elect();
        }
        Step::Change(topology) => world.change(&topology),
        Step::Staged(topology, comes, goes, done) => {
            world.plan(&topology);
            world.stage();
            world.join(plain(comes));
            if let Some(n) = pick(world, goes) {
                world.leave(n);
            }
            world.stage();
            if done {
                world.changed();
            } else {
                world.kept();
            }
            world.settle();
        }
    }
}

/// A join or a leave changes only what it must.
fn few(before: &Shape, changes: &[Change]) {
    let most = match before.topology() {
        // Who came or went, the hub, who stands by, and who begins or stops to work; without anybody else the hubs work.
        Topology::Star(star) => 5 + star.coordinator_count as usize,
        Topology::Mesh(_) | Topology::Ring(_) => 1,
        // At each level one that rises or steps down, its children, and one more for each.
        Topology::Hierarchical(tree) if tree.parents.is_empty() => {
            1 + tree.levels.len() * (2 + 2 * tree.parent_child_ratio as usize)
        }
        // Names can move whoever is named.
        Topology::Hierarchical(_) => usize::MAX,
    };
    assert!(
        changes.len() <= most,
        "{} changes: {changes:?}",
        changes.len()
    );
    for change in changes {
        let old = before.seat(change.agent);
        assert!(
            old.is_none() || old != change.seat.as_ref(),
            "it says nothing new: {change:?}"
        );
    }
}

fn holds(world: &World) {
    let shape = &world.shape;
    let members: BTreeSet<AgentId> = world.members.iter().map(|member| member.id).collect();
    let seated: BTreeSet<AgentId> = shape.seats().map(|(id, _)| id).collect();
    assert_eq!(seated, members, "every member is seated, and nobody else");
    let places: BTreeSet<u64> = shape.seats().map(|(_, seat)| seat.place).collect();
    assert_eq!(places.len(), members.len(), "no two have the same place");
    assert_eq!(shape.changes(&world.members), [], "it is settled");
    let leader = shape.leader();
    assert!(
        leader.is_none_or(|leader| members.contains(&leader)),
        "the leader is there"
    );
    assert_eq!(
        leader.is_none(),
        !world.members.iter().any(|m| m.healthy) && leader.is_none()
    );
    let healthy = world.members.iter().any(|member| member.healthy);
    assert!(leader.is_some() || !healthy, "somebody leads");
    match shape.topology() {
        Topology::Star(star) => star_holds(world, star),
        Topology::Mesh(mesh) => mesh_holds(world, mesh),
        Topology::Hierarchical(tree) => tree_holds(world, tree),
        Topology::Ring(_) => ring_holds(world),
    }
    edges_agree(shape);
}

fn star_holds(world: &World, star: &Star) {
    let shape = &world.shape;
    let may = |member: &&Member| {
        let s = &star.coordinator;
        s.agent_type
            .as_ref()
            .is_none_or(|t| *t == member.agent_type)
            && s.agent_name.as_ref().is_none_or(|n| *n == member.name)
    };
    let hubs = world.hubs();
    let eligible = world.members.iter().filter(may).count();
    let healthy = world
        .members
        .iter()
        .filter(may)
        .filter(|m| m.healthy)
        .count();
    let wanted = star.coordinator_count as usize;
    assert!(hubs.len() <= wanted.min(eligible));
    if star.failover_coordinator {
        assert!(
            hubs.len() >= wanted.min(healthy),
            "exactly the hubs wanted: {hubs:?}"
        );
        let standby = world.who(|seat| seat.standby);
        assert!(standby.len() <= 1 && !standby.iter().any(|s| hubs.contains(s)));
        assert!(
            !standby.is_empty() || wanted == 0 || healthy <= hubs.len(),
            "{hubs:?} {standby:?}"
        );
    } else {
        assert_eq!(world.who(|seat| seat.standby), NOBODY);
    }
    let most = star.max_workers.unwrap_or(u32::MAX) as usize;
    assert!(shape.working() <= most);
    if star.workers.is_empty() {
        assert!(shape.seated() == 0 || shape.working() > 0, "somebody works");
        let working: Vec<u64> = shape
            .seats()
            .filter(|(_, s)| s.works && s.role == Role::Worker)
            .map(|(_, s)| s.place)
            .collect();
        let idle = shape
            .seats()
            .filter(|(_, s)| !s.works && s.role == Role::Worker)
            .map(|(_, s)| s.place);
        assert!(
            idle.min()
                .is_none_or(|idle| working.iter().all(|w| *w < idle)),
            "the youngest wait"
        );
    } else {
        assert!(
            world
                .workers()
                .iter()
                .all(|n| star.workers.contains(&format!("agent-{n}")))
        );
    }
    if !hubs.is_empty() {
        reachable(shape);
    }
}

fn mesh_holds(world: &World, mesh: &Mesh) {
    let shape = &world.shape;
    assert_eq!(shape.working(), shape.seated(), "everybody works");
    if !mesh.connections.is_empty() {
        for (a, b) in shape.edges() {
            let name = |id| format!("agent-{}", number(id));
            let pair = [name(a), name(b)];
            let back = [name(b), name(a)];
            assert!(
                mesh.connections.iter().any(|c| *c == pair || *c == back),
                "{pair:?}"
            );
        }
        return;
    }
    reachable(shape);
    let n = shape.seated();
    let degree = match mesh.connection_strategy {
        ConnectionStrategy::Full => n.saturating_sub(1),
        ConnectionStrategy::Nearest => n.saturating_sub(1).min(mesh.neighbours as usize),
    };
    for (agent, _) in shape.seats() {
        assert_eq!(shape.neighbours(agent).count(), degree);
    }
}

fn ring_holds(world: &World) {
    let shape = &world.shape;
    assert_eq!(shape.working(), shape.seated(), "everybody works");
    let n = shape.seated();
    let mut at = shape.seats().next().map(|(id, _)| id);
    let mut seen = BTreeSet::new();
    while let Some(agent) = at.filter(|agent| seen.insert(*agent)) {
        let next: Vec<AgentId> = shape.neighbours(agent).collect();
        assert_eq!(next.len(), usize::from(n > 1), "one edge each");
        assert_eq!(
            shape.next_in_ring(Some(agent), |_| true),
            next.first().copied().or(Some(agent))
        );
        at = next.first().copied();
    }
    assert_eq!(seen.len(), n, "one circle through everybody");
}

fn tree_holds(world: &World, tree: &Hierarchical) {
    let shape = &world.shape;
    let last = u32::try_from(tree.levels.len() - 1).expect("few levels");
    let mut sizes: BTreeMap<u32, usize> = BTreeMap::new();
    for (agent, seat) in shape.seats() {
        *sizes.entry(seat.level).or_default() += 1;
        assert_eq!(seat.role, tree.levels[seat.level as usize].role);
        assert!(
            shape.children(agent).count() <= tree.parent_child_ratio as usize,
            "the ratio is kept"
        );
        assert!(seat.works || seat.role != Role::Worker, "workers work");
        match seat.parent {
            Some(parent) => {
                let above = shape.seat(parent).expect("a parent that is there");
                assert!(above.level < seat.level, "no circle of parents");
                assert_ne!(above.role, Role::Worker);
            }
            None => assert!(
                seat.level == 0 || shape.seated() == 1,
                "only the top has no parent: {seat:?}"
            ),
        }
    }
    assert!(
        shape.seated() == 0 || sizes.get(&last).is_some_and(|n| *n > 0),
        "there are workers"
    );
    let inner = shape.seated() - sizes.get(&last).copied().unwrap_or(0);
    let wanted: usize = tree
        .levels
        .iter()
        .take(tree.levels.len() - 1)
        .map(|l| l.count as usize)
        .sum();
    assert!(
        inner >= wanted.min(shape.seated().saturating_sub(1)),
        "the levels are as full as they can be"
    );
    reachable(shape);
    for (child, parent) in &tree.parents {
        let found = |name: &str| world.members.named(name).map(|m| m.id);
        let (Some(child), Some(parent)) = (found(child), found(parent)) else {
            continue;
        };
        let (below, above) = (
            shape.seat(child).expect("seated"),
            shape.seat(parent).expect("seated"),
        );
        let full = shape.children(parent).count() >= tree.parent_child_ratio as usize;
        let adjacent = above.role != Role::Worker && above.level + 1 == below.level;
        assert!(
            !adjacent || full || below.parent == Some(parent),
            "the named parent is kept: {below:?} {above:?}"
        );
    }
}

/// From the leader everybody can be reached over edges.
fn reachable(shape: &Shape) {
    let Some(leader) = shape.leader() else { return };
    let mut seen = BTreeSet::from([leader]);
    let mut next = vec![leader];
    while let Some(agent) = next.pop() {
        next.extend(shape.neighbours(agent).filter(|id| seen.insert(*id)));
    }
    assert_eq!(seen.len(), shape.seated(), "all are reachable");
}

/// Neighbours, edges and the messaging rule say the same, and each edge follows from the rule of its topology.
fn edges_agree(shape: &Shape) {
    let directed = matches!(shape.topology(), Topology::Ring(_));
    let all: Vec<AgentId> = shape.seats().map(|(id, _)| id).collect();
    let edges: BTreeSet<(AgentId, AgentId)> = shape.edges().collect();
    assert_eq!(edges.len(), shape.edges().count(), "each edge once");
    for a in &all {
        let neighbours: Vec<AgentId> = shape.neighbours(*a).collect();
        let unique: BTreeSet<AgentId> = neighbours.iter().copied().collect();
        assert_eq!(unique.len(), neighbours.len(), "each neighbour once");
        for b in &all {
            let may = shape.may_message(*a, *b).is_ok();
            assert_eq!(may, unique.contains(b), "{a} {b}");
            let edge = edges.contains(&(*a, *b)) || (!directed && edges.contains(&(*b, *a)));
            assert_eq!(may, edge, "{a} {b}");
            if may {
                justified(shape, *a, *b);
            }
            if shape.may_steal(*a, *b) && !matches!(shape.topology(), Topology::Star(_)) {
                assert!(may || shape.group(*a) == shape.group(*b));
            }
        }
    }
}

fn justified(shape: &Shape, a: AgentId, b: AgentId) {
    let (from, to) = (
        shape.seat(a).expect("seated"),
        shape.seat(b).expect("seated"),
    );
    let fine = match shape.topology() {
        Topology::Star(_) => from.role == Role::Coordinator || to.role == Role::Coordinator,
        Topology::Hierarchical(_) => {
            from.parent == Some(b)
                || to.parent == Some(a)
                || (from.parent.is_none() && to.parent.is_none())
        }
        Topology::Ring(_) => {
            let between = shape.seats().filter(|(_, seat)| {
                if from.place < to.place {
                    seat.place > from.place && seat.place < to.place
                } else {
                    seat.place > from.place || seat.place < to.place
                }
            });
            between.count() == 0
        }
        Topology::Mesh(mesh) if !mesh.connections.is_empty() => true,
        Topology::Mesh(mesh) => {
            let places: Vec<u64> = shape.seats().map(|(_, seat)| seat.place).collect();
            let at = |place| places.iter().position(|p| *p == place).expect("a place");
            let far = at(from.place).abs_diff(at(to.place));
            let far = far.min(places.len() - far);
            mesh.connection_strategy == ConnectionStrategy::Full
                || far <= mesh.neighbours as usize / 2
        }
    };
    assert!(fine && a != b, "an edge without a rule: {a} {b}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_the_rules_hold_and_little_changes(
        topology in topologies(),
        steps in prop::collection::vec(steps(), 1..40),
    ) {
        let mut world = World::new(topology);
        for step in steps {
            walk(&mut world, step);
            holds(&world);
        }
    }
}
