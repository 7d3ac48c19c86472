//! What may happen, and how often.

use proptest::prelude::*;
use swarm_events::configuration::TopologyKind;

#[derive(Clone, Debug)]
pub enum Step {
    CreateOrg,
    UpdateOrg(u8),
    Key(u8, bool),
    Create(usize, u8),
    Update(usize, u8),
    Delete(usize),
    Join(usize, u128, u128, u8),
    Leave(usize, u128, u64),
    Remove(usize, u128, bool),
    Add(usize, u128, u8),
    Restart(usize, u128, bool),
    Change(usize, u128, u8),
    Scale(usize, i64),
    Host(usize, u128, u64, u8, u128),
    Judge(usize, u128, u64, u8),
    Measured(usize, u64),
    Topology(usize, u8),
    Ask(usize, u128, u64, u8),
    Answer(usize, u8, u128),
    Template(u8, bool),
    Garbage(usize),
    Repeat(usize),
    Decide(usize),
    DecideTwice,
    Deliver(usize),
    Claim,
    Later(u64),
}

pub fn step() -> impl Strategy<Value = Step> {
    let swarm = 1usize..4;
    let agents = 1u128..5;
    prop_oneof![
        1 => Just(Step::CreateOrg),
        1 => (0u8..4).prop_map(Step::UpdateOrg),
        1 => (2u8..5, any::<bool>()).prop_map(|(n, revoke)| Step::Key(n, revoke)),
        3 => (swarm.clone(), 0u8..3).prop_map(|(s, n)| Step::Create(s, n)),
        2 => (swarm.clone(), 0u8..3).prop_map(|(s, n)| Step::Update(s, n)),
        1 => swarm.clone().prop_map(Step::Delete),
        6 => (swarm.clone(), agents.clone(), 1u128..9, 0u8..4)
            .prop_map(|(s, a, i, n)| Step::Join(s, a, i, n)),
        2 => (swarm.clone(), agents.clone(), 1u64..4).prop_map(|(s, a, i)| Step::Leave(s, a, i)),
        2 => (swarm.clone(), agents.clone(), any::<bool>()).prop_map(|(s, a, f)| Step::Remove(s, a, f)),
        4 => (swarm.clone(), agents.clone(), 0u8..6).prop_map(|(s, a, n)| Step::Add(s, a, n)),
        2 => (swarm.clone(), agents.clone(), any::<bool>()).prop_map(|(s, a, f)| Step::Restart(s, a, f)),
        1 => (swarm.clone(), agents.clone(), 0u8..4).prop_map(|(s, a, n)| Step::Change(s, a, n)),
        2 => (swarm.clone(), -2i64..3).prop_map(|(s, n)| Step::Scale(s, n)),
        10 => (swarm.clone(), agents.clone(), 1u64..4, 0u8..6, 1u128..3)
            .prop_map(|(s, a, n, v, h)| Step::Host(s, a, n, v, h)),
        6 => (swarm.clone(), agents, 1u64..4, 0u8..6).prop_map(|(s, a, i, v)| Step::Judge(s, a, i, v)),
        2 => (swarm.clone(), 0u64..2).prop_map(|(s, open)| Step::Measured(s, open)),
        5 => (swarm.clone(), 0u8..7).prop_map(|(s, n)| Step::Topology(s, n)),
        3 => (swarm.clone(), 1u128..5, 1u64..4, 0u8..4).prop_map(|(s, a, i, n)| Step::Ask(s, a, i, n)),
        3 => (swarm.clone(), 0u8..3, 0u128..5).prop_map(|(s, n, by)| Step::Answer(s, n, by)),
        1 => (0u8..3, any::<bool>()).prop_map(|(n, delete)| Step::Template(n, delete)),
        1 => swarm.prop_map(Step::Garbage),
        1 => (0usize..100).prop_map(Step::Repeat),
        8 => (1usize..6).prop_map(Step::Decide),
        8 => (1usize..6).prop_map(Step::Deliver),
        4 => Just(Step::DecideTwice),
        2 => Just(Step::Claim),
        2 => (1u64..3_000).prop_map(Step::Later),
    ]
}

/// Topologies that three agents can have, and one that cannot be.
pub const TOPOLOGIES: [(TopologyKind, &str); 7] = [
    (TopologyKind::Star, "{}"),
    (
        TopologyKind::Mesh,
        r#"{"connection_strategy": "nearest", "neighbours": 2}"#,
    ),
    (
        TopologyKind::Hierarchical,
        r#"{"levels": [{"role": "coordinator", "count": 1}, {"role": "worker", "count": 1}],
            "parent_child_ratio": 2}"#,
    ),
    (TopologyKind::Ring, "{}"),
    (TopologyKind::Star, r#"{"failover_coordinator": false}"#),
    (TopologyKind::Star, r#"{"workers": ["a1"]}"#),
    (TopologyKind::Hierarchical, r#"{"parent_child_ratio": 0}"#),
];
