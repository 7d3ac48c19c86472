//! How a task goes down a tree: at each level to the part with the smallest share of its slots taken, among those that have a
//! place for it. What the parts hold is kept up on the way from an agent to the top, so that an assignment looks at the
//! children of a few agents only.

use std::collections::{BTreeMap, BTreeSet};

use swarm_events::{
    planted::{self, Bug},
    topology::Role,
};

use super::{
    kinds::AgentKey,
    ready::{Class, SwarmPlan},
    spot::{NOBODY, Route},
};
use crate::{strategy::share_of, swarm::Swarm};

/// An agent that has others below it, with the group of agents that work right below it (and itself, if it works).
#[derive(Debug)]
struct Node {
    /// Where its seat is; at the very end without one.
    level: u32,
    place: u64,
    /// The parent that its seat names, and those whose seats name it.
    wants: u32,
    wanted_by: BTreeSet<u32>,
    /// Where it hangs: at the top as long as what it names is not above it.
    parent: Option<u32>,
    children: BTreeSet<u32>,
    /// Tasks held and slots, of its own group and of all below it.
    own: (u64, u64),
    all: (u64, u64),
    /// How many kinds below it have a place for a class.
    room: BTreeMap<u32, u32>,
    /// Kinds of its own group.
    kinds: Vec<u32>,
}
impl Default for Node {
    fn default() -> Self {
        Self {
            level: u32::MAX,
            place: u64::MAX,
            wants: NOBODY,
            wanted_by: BTreeSet::new(),
            parent: None,
            children: BTreeSet::new(),
            own: (0, 0),
            all: (0, 0),
            room: BTreeMap::new(),
            kinds: Vec::new(),
        }
    }
}

/// A tree of agents by number; [`NOBODY`] is above those without a parent.
#[derive(Debug, Default)]
pub(crate) struct Tree {
    nodes: BTreeMap<u32, Node>,
    /// Classes that ask for a part of it.
    pub(super) parted: BTreeSet<u32>,
    /// Rises whenever who works where may have changed.
    pub(super) version: u64,
}

impl Tree {
    fn node(&mut self, at: u32) -> &mut Node {
        let mut fresh = false;
        self.nodes.entry(at).or_insert_with(|| {
            fresh = true;
            Node::default()
        });
        if fresh && at != NOBODY {
            self.attach(at, NOBODY);
        }
        self.nodes.entry(at).or_default()
    }

    /// Changes an agent's group and all that is above it.
    fn up(&mut self, from: u32, mut change: impl FnMut(&mut Node)) {
        self.node(from);
        let mut at = Some(from);
        while let Some(node) = at.and_then(|at| self.nodes.get_mut(&at)) {
            change(node);
            at = node.parent;
        }
    }

    fn attach(&mut self, at: u32, parent: u32) {
        let (all, room) = match self.nodes.get_mut(&at) {
            Some(node) => {
                node.parent = Some(parent);
                (node.all, node.room.clone())
            }
            None => return,
        };
        self.node(parent).children.insert(at);
        self.up(parent, |above| {
            above.all.0 += all.0;
            above.all.1 += all.1;
            for (&class, &kinds) in &room {
                *above.room.entry(class).or_default() += kinds;
            }
        });
    }
    fn detach(&mut self, at: u32) {
        let Some(node) = self.nodes.get_mut(&at) else {
            return;
        };
        let Some(parent) = node.parent.take() else {
            return;
        };
        let (all, room) = (node.all, node.room.clone());
        self.node(parent).children.remove(&at);
        self.up(parent, |above| {
            above.all.0 -= all.0;
            above.all.1 -= all.1;
            for (&class, &kinds) in &room {
                lower(&mut above.room, class, kinds);
            }
        });
    }
    /// Where it hangs: below the agent that its seat names, if that is nearer to the top. So there is no circle, whatever
    /// seats come in which order.
    fn hang(&mut self, at: u32) {
        let Some(node) = self.nodes.get(&at) else {
            return;
        };
        let wanted = self.nodes.get(&node.wants);
        let above = wanted.is_some_and(|wanted| wanted.level < node.level);
        let parent = if above { node.wants } else { NOBODY };
        self.attach(at, parent);
    }

    /// Takes over the seat of an agent that has others below it: level, place, parent. True: it is another one.
    fn seat(&mut self, at: u32, seat: Option<(u32, u64, u32)>) -> bool {
        if seat.is_none() && !self.nodes.contains_key(&at) {
            return false;
        }
        let (level, place, wants) = seat.unwrap_or((u32::MAX, u64::MAX, NOBODY));
        let node = self.node(at);
        if (node.level, node.place, node.wants) == (level, place, wants) {
            return false;
        }
        let before = std::mem::replace(&mut node.wants, wants);
        (node.level, node.place) = (level, place);
        let below: Vec<u32> = node.wanted_by.iter().copied().collect();
        if before != wants {
            if before != NOBODY {
                self.node(before).wanted_by.remove(&at);
            }
            if wants != NOBODY {
                self.node(wants).wanted_by.insert(at);
            }
        }
        below.iter().for_each(|&child| self.detach(child));
        self.detach(at);
        self.hang(at);
        below.iter().for_each(|&child| self.hang(child));
        true
    }

    /// A kind of agents that work among the children of `group`.
    pub(super) fn add_kind(&mut self, group: u32, kind: u32) {
        self.node(group).kinds.push(kind);
    }
    /// What an agent among the children of `group` holds, and its slots.
    pub(super) fn carry(&mut self, group: u32, before: (u32, u32), after: (u32, u32)) {
        let change = |sum: &mut (u64, u64)| {
            sum.0 = sum.0 - u64::from(before.0) + u64::from(after.0);
            sum.1 = sum.1 - u64::from(before.1) + u64::from(after.1);
        };
        change(&mut self.node(group).own);
        self.up(group, |node| change(&mut node.all));
    }
    /// A kind among the children of `group` has a place for a class, or no more.
    pub(super) fn open(&mut self, group: u32, class: u32, opened: bool) {
        self.up(group, |node| {
            if opened {
                *node.room.entry(class).or_default() += 1;
            } else {
                lower(&mut node.room, class, 1);
            }
        });
    }
    /// Whether a group is that of an agent, or of one below it.
    pub(super) fn is_in(&self, group: u32, top: u32) -> bool {
        let mut at = Some(group);
        while let Some(node) = at {
            if node == top {
                return true;
            }
            at = self.nodes.get(&node).and_then(|node| node.parent);
        }
        false
    }
    /// Kinds of the agents that work among the children of an agent.
    pub(super) fn kinds(&self, group: u32) -> &[u32] {
        self.nodes.get(&group).map_or(&[], |node| &node.kinds)
    }
}

fn lower(room: &mut BTreeMap<u32, u32>, class: u32, by: u32) {
    if let Some(kinds) = room.get_mut(&class) {
        *kinds -= by;
        if *kinds == 0 {
            room.remove(&class);
        }
    }
}

impl SwarmPlan {
    /// Takes over an agent's seat into the tree, if there is one.
    pub(super) fn place_in_tree(&mut self, swarm: &Swarm, at: u32) {
        let Route::Tree(tree) = &mut self.route else {
            return;
        };
        let Some(agent) = swarm.agents.get(at as usize) else {
            return;
        };
        let seat = swarm.shape.seat(agent.id);
        let seat = seat.filter(|seat| seat.role != Role::Worker).map(|seat| {
            let parent = seat.parent.and_then(|id| swarm.agent_numbers.get(&id));
            (seat.level, seat.place, parent.copied().unwrap_or(NOBODY))
        });
        if tree.seat(at, seat) {
            self.parts_changed();
        }
    }

    /// Who works where may have changed: whoever asks for a part of the tree is looked at again.
    pub(super) fn parts_changed(&mut self) {
        let Route::Tree(tree) = &mut self.route else {
            return;
        };
        tree.version += 1;
        if tree.parted.is_empty() {
            return;
        }
        for class in tree.parted.clone() {
            self.unblock_class(class);
        }
    }

    /// Whether tasks of a class are kept to the part of the tree that they ask for: as long as there is a live agent that can
    /// do them. Otherwise anybody may.
    fn is_confined(&self, tree: &Tree, waiting: &Class, top: u32) -> bool {
        waiting.kinds.iter().any(|&number| {
            let kind = &self.kinds[number as usize];
            if kind.tally.live == 0 || !tree.is_in(kind.spot.group, top) {
                return false;
            }
            // The agent itself is not below itself, and who has declined it does not count.
            let not = waiting.excluded.iter().chain([&top]).filter(|&&at| {
                let entry = self.agents.get(at as usize);
                entry.is_some_and(|e| e.kind == Some(number) && e.standing.is_live())
            });
            let not: BTreeSet<&u32> = not.collect();
            kind.tally.live > not.len() as u32
        })
    }

    /// Finds that out anew if who works where may have changed.
    pub(super) fn confine(&mut self, class: u32) {
        let (Route::Tree(tree), Some(waiting)) = (&self.route, self.classes.get(class as usize))
        else {
            return;
        };
        let Some(top) = waiting
            .within
            .filter(|_| waiting.confined_at != tree.version)
        else {
            return;
        };
        let confined = self.is_confined(tree, waiting, top);
        let version = tree.version;
        let waiting = &mut self.classes[class as usize];
        waiting.confined = confined;
        waiting.confined_at = version;
    }

    /// The agent below which tasks of a class are kept, if they are.
    pub(crate) fn confined_to(&self, class: u32) -> Option<u32> {
        let (Route::Tree(tree), waiting) = (&self.route, self.classes.get(class as usize)?) else {
            return None;
        };
        let top = waiting.within?;
        let confined = if waiting.confined_at == tree.version {
            waiting.confined
        } else {
            self.is_confined(tree, waiting, top)
        };
        (confined && !planted::is(Bug::WithinIgnored)).then_some(top)
    }

    /// The best agents of the part of the tree to which a task of a class goes down.
    pub(super) fn down_the_tree(&self, tree: &Tree, class: u32) -> Vec<(AgentKey, u32)> {
        let within = self.confined_to(class);
        self.go_down(tree, class, within.unwrap_or(NOBODY), within)
            .unwrap_or_default()
    }

    fn go_down(
        &self,
        tree: &Tree,
        class: u32,
        at: u32,
        within: Option<u32>,
    ) -> Option<Vec<(AgentKey, u32)>> {
        let node = tree.nodes.get(&at)?;
        let has_room = |node: &Node| node.room.contains_key(&class);
        if !has_room(node) {
            return None;
        }
        let share = |(held, slots): (u64, u64)| share_of(held, slots);
        // Its own group is one of its parts.
        let mut parts = vec![(share(node.own), node.place, None)];
        parts.extend(node.children.iter().filter_map(|&child| {
            let node = tree.nodes.get(&child).filter(|node| has_room(node))?;
            Some((share(node.all), node.place, Some(child)))
        }));
        parts.sort_unstable();
        // The first one that has room has somebody for it, unless that one is not to get it.
        parts.into_iter().find_map(|(_, _, part)| match part {
            Some(child) => self.go_down(tree, class, child, within),
            None => {
                let kinds = node.kinds.iter().copied();
                let kinds = kinds.filter(|&kind| self.fits(class, &self.kinds[kind as usize]));
                let mut found = self.best_of(class, kinds);
                found.retain(|&(_, agent)| Some(agent) != within);
                (!found.is_empty()).then_some(found)
            }
        })
    }
}
