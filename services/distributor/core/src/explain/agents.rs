//! The swarm's agents, seen from a task that waits.

use std::cmp::Reverse;

use swarm_events::Timestamp;

use super::{
    AgentCounts, AgentLine, ITEMS_MAX, Lacking, LackingCapability, Look, NearestAgent,
    QuarantineLine, Standing,
};
use crate::{
    agent::{Agent, Health, LAPSES_MAX, Membership, Rest, has},
    plan::turn::Turn,
    strategy::{self, Strategy},
};

/// A member and what speaks against it.
pub(super) struct Seen<'a> {
    /// Its number in the swarm.
    pub(super) number: u32,
    pub(super) agent: &'a Agent,
    pub(super) standing: Standing,
    /// Places that are left at it, whether it is well or not.
    pub(super) room: u32,
}

/// The agents of a swarm.
pub(super) struct Pool<'a> {
    /// Those with all that the task needs.
    pub(super) able: Vec<Seen<'a>>,
    pub(super) counts: AgentCounts,
    pub(super) items: Vec<AgentLine>,
    /// Set if no agent is able.
    pub(super) lacking: Option<Lacking>,
    /// What the nearest of the others lack, for one that could be added.
    pub(super) nearest_missing: Vec<String>,
}

/// Places at an agent that the algorithm uses and that are not taken.
fn room(agent: &Agent, strategy: &dyn Strategy, fast_failures_max: u32) -> u32 {
    let (slots, places) = agent.limits(strategy.fills_places(), fast_failures_max);
    let held = (agent.running.len() + agent.waiting.len()) as u32;
    slots.saturating_add(places).saturating_sub(held)
}

fn standing(agent: &Agent, room: u32) -> Standing {
    if agent.health == Health::Failed {
        Standing::Unhealthy
    } else if let Some(rest) = agent.rests() {
        match rest {
            Rest::Draining => Standing::Draining,
            Rest::Quarantined => Standing::Quarantined,
            Rest::FailedFast => Standing::FailedFast,
        }
    } else if agent.health == Health::Suspected {
        Standing::Unhealthy
    } else if agent.lapses >= LAPSES_MAX {
        Standing::Unresponsive
    } else if room == 0 {
        Standing::Full
    } else {
        Standing::Free
    }
}

fn line(agent: &Agent, standing: Standing, missing: Vec<String>) -> AgentLine {
    AgentLine {
        agent_id: agent.id,
        standing,
        slots: agent.slots,
        waiting_limit: agent.places,
        running: agent.running.len() as u32,
        waiting: agent.waiting.len() as u32,
        missing,
        quarantine: agent
            .quarantine
            .iter()
            .map(|(&cause, &until)| QuarantineLine { cause, until })
            .collect(),
        barred_until: (agent.barred_until != Timestamp::ZERO).then_some(agent.barred_until),
        fast_failures: agent.fast_failures,
    }
}

fn missing<'w>(agent: &Agent, required: &'w [String]) -> impl Iterator<Item = &'w String> {
    required
        .iter()
        .filter(|word| !has(&agent.capabilities, word))
}

impl Look<'_> {
    /// The agents, seen from a task that needs these capabilities and that those of `excluded` are not to get.
    pub(super) fn pool(
        &self,
        required: &[String],
        excluded: &[u32],
        (at, class): (u32, u32),
    ) -> Pool<'_> {
        let ring = self.swarm.ring().is_some();
        let strategy = strategy::within(ring, self.swarm.settings.algorithm);
        let turn = self.turn();
        let placed = |number| {
            self.index()
                .is_none_or(|index| index.is_placed(class, number))
        };
        let mut counts = AgentCounts::default();
        let mut able = Vec::new();
        let mut others = Vec::new();
        let mut lack: Vec<u32> = vec![0; required.len()];
        for (number, agent) in (0u32..).zip(&self.swarm.agents) {
            if agent.membership != Membership::Member {
                continue;
            }
            counts.members += 1;
            let mut lacks = 0;
            for (word, agents) in required.iter().zip(&mut lack) {
                if !has(&agent.capabilities, word) {
                    *agents += 1;
                    lacks += 1;
                }
            }
            if lacks > 0 {
                counts.missing_capability += 1;
                others.push((lacks, agent));
                continue;
            }
            let room = room(agent, strategy, self.swarm.settings.fast_failures_max);
            let standing = match standing(agent, room) {
                // What else speaks against an agent says more: it may be over, and then this is left.
                _ if !placed(number) => Standing::Misplaced,
                Standing::Free | Standing::Full if excluded.contains(&number) => Standing::Declined,
                Standing::Free
                    if turn.is_some_and(|turn| {
                        turn != Turn::Now {
                            task: at,
                            agent: number,
                        }
                    }) =>
                {
                    Standing::NotItsTurn
                }
                standing => standing,
            };
            *match standing {
                Standing::Free => &mut counts.free,
                Standing::Full => &mut counts.full,
                Standing::Unresponsive => &mut counts.unresponsive,
                Standing::Unhealthy => &mut counts.unhealthy,
                Standing::Draining => &mut counts.draining,
                Standing::Quarantined => &mut counts.quarantined,
                Standing::FailedFast => &mut counts.failed_fast,
                Standing::Declined => &mut counts.declined,
                Standing::Misplaced => &mut counts.misplaced,
                Standing::NotItsTurn => &mut counts.not_its_turn,
                Standing::MissingCapability => &mut counts.missing_capability,
            } += 1;
            able.push(Seen {
                number,
                agent,
                standing,
                room,
            });
        }
        let rest = ITEMS_MAX.saturating_sub(able.len());
        let by_lack = |&(lacks, agent): &(u32, &Agent)| (lacks, agent.joined);
        select(&mut others, ITEMS_MAX, by_lack);
        let mut first: Vec<&Seen<'_>> = able.iter().collect();
        select(&mut first, ITEMS_MAX, |seen| {
            (seen.standing, Reverse(seen.room), seen.agent.joined)
        });
        let named = |agent: &Agent| missing(agent, required).cloned().collect::<Vec<_>>();
        let items = first
            .iter()
            .map(|seen| line(seen.agent, seen.standing, Vec::new()))
            .chain(
                others
                    .iter()
                    .take(rest)
                    .map(|(_, agent)| line(agent, Standing::MissingCapability, named(agent))),
            )
            .collect();
        let fewest = others.first().map(|&(lacks, _)| lacks);
        let nearest: Vec<NearestAgent> = others
            .iter()
            .filter(|&&(lacks, _)| Some(lacks) == fewest)
            .map(|(_, agent)| NearestAgent {
                agent_id: agent.id,
                missing: named(agent),
            })
            .collect();
        let nearest_missing = nearest
            .first()
            .map(|agent| agent.missing.clone())
            .unwrap_or_default();
        let lacking = able.is_empty().then(|| {
            let mut capabilities: Vec<LackingCapability> = required
                .iter()
                .zip(&lack)
                .map(|(word, &agents)| LackingCapability {
                    capability: word.clone(),
                    agents,
                })
                .collect();
            capabilities.sort_by_key(|lacking| Reverse(lacking.agents));
            Lacking {
                capabilities,
                fewest,
                nearest,
            }
        });
        Pool {
            able,
            counts,
            items,
            lacking,
            nearest_missing,
        }
    }
}

/// The first `n` by `key`, in its order.
fn select<T, K: Ord>(items: &mut Vec<T>, n: usize, key: impl Fn(&T) -> K) {
    if items.len() > n && n > 0 {
        items.select_nth_unstable_by_key(n - 1, &key);
        items.truncate(n);
    }
    items.sort_by_key(key);
}
