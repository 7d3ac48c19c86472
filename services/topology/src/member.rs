//! Who is there: what the rules of a topology must know of a swarm's live agents.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use swarm_events::{
    AgentId,
    topology::{Role, Selector},
};
use uuid::Uuid;

/// A live agent, as the rules see it: it has joined, and has neither failed nor gone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its id.
    pub id: AgentId,
    /// Its name.
    pub name: String,
    /// Its type.
    pub agent_type: String,
    /// What it can do.
    pub capabilities: Vec<String>,
    /// The order of arrival: the smaller, the longer it has been there. Ties go by id.
    pub arrived: u64,
    /// Not suspected, not draining: it may be given a role that it does not have.
    pub healthy: bool,
}

impl Member {
    /// Whether its type or one of its capabilities is the role's word: it was made for it.
    pub fn made_for(&self, role: Role) -> bool {
        let word = role.as_str();
        self.agent_type == word || self.capabilities.iter().any(|c| c == word)
    }
    /// Whether all that the selector gives applies to it.
    pub fn matches(&self, selector: &Selector) -> bool {
        selector.agent_id.is_none_or(|id| id == self.id)
            && selector
                .agent_name
                .as_ref()
                .is_none_or(|name| *name == self.name)
            && selector
                .agent_type
                .as_ref()
                .is_none_or(|kind| *kind == self.agent_type)
            && selector
                .capability
                .as_ref()
                .is_none_or(|wanted| self.capabilities.contains(wanted))
    }
    pub(crate) fn age(&self) -> (u64, AgentId) {
        (self.arrived, self.id)
    }
}

/// The roles that agents can be made for.
const MADE: [Role; 2] = [Role::Coordinator, Role::Supervisor];

/// All live agents of a swarm, with what the rules look for found at once.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<Member>", into = "Vec<Member>")]
pub struct Members {
    by_id: BTreeMap<AgentId, Member>,
    by_age: BTreeSet<(u64, AgentId)>,
    by_name: Index,
    by_type: Index,
    by_capability: Index,
    made: [BTreeSet<(u64, AgentId)>; 2],
}
impl From<Vec<Member>> for Members {
    fn from(members: Vec<Member>) -> Self {
        members.into_iter().collect()
    }
}
impl From<Members> for Vec<Member> {
    fn from(members: Members) -> Self {
        members.by_id.into_values().collect()
    }
}
impl FromIterator<Member> for Members {
    fn from_iter<I: IntoIterator<Item = Member>>(members: I) -> Self {
        let mut all = Self::default();
        for member in members {
            all.insert(member);
        }
        all
    }
}

impl Members {
    /// Nobody is older.
    pub(crate) const OLDEST: (u64, AgentId) = (0, AgentId(Uuid::nil()));

    /// Takes it in, or takes note of what has changed about it.
    pub fn insert(&mut self, member: Member) {
        self.remove(member.id);
        let age = member.age();
        self.by_age.insert(age);
        enter(&mut self.by_name, &member.name, age);
        enter(&mut self.by_type, &member.agent_type, age);
        for capability in &member.capabilities {
            enter(&mut self.by_capability, capability, age);
        }
        for (made, role) in self.made.iter_mut().zip(MADE) {
            if member.made_for(role) {
                made.insert(age);
            }
        }
        self.by_id.insert(member.id, member);
    }
    /// Takes it out.
    pub fn remove(&mut self, id: AgentId) -> Option<Member> {
        let member = self.by_id.remove(&id)?;
        let age = member.age();
        self.by_age.remove(&age);
        forget(&mut self.by_name, &member.name, age);
        forget(&mut self.by_type, &member.agent_type, age);
        for capability in &member.capabilities {
            forget(&mut self.by_capability, capability, age);
        }
        for made in &mut self.made {
            made.remove(&age);
        }
        Some(member)
    }
    /// Whether it may be given a role that it does not have. `false`: it is not a member.
    pub fn set_healthy(&mut self, id: AgentId, healthy: bool) -> bool {
        let Some(member) = self.by_id.get_mut(&id) else {
            return false;
        };
        member.healthy = healthy;
        true
    }
    /// The member of this id.
    pub fn get(&self, id: AgentId) -> Option<&Member> {
        self.by_id.get(&id)
    }
    /// Whether it is one.
    pub fn contains(&self, id: AgentId) -> bool {
        self.by_id.contains_key(&id)
    }
    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_id.len()
    }
    /// Whether there is nobody.
    pub fn is_empty(&self) -> bool {
        self.by_id.is_empty()
    }
    /// All, the oldest first.
    pub fn iter(&self) -> impl Iterator<Item = &Member> {
        self.by_age.iter().filter_map(|(_, id)| self.by_id.get(id))
    }
    /// Those made for a role by type or capability, the oldest first, from an age on.
    pub(crate) fn made(&self, role: Role, from: (u64, AgentId)) -> impl Iterator<Item = &Member> {
        let at = MADE.iter().position(|made| *made == role);
        at.into_iter()
            .flat_map(move |at| self.made[at].range(from..))
            .filter_map(|(_, id)| self.by_id.get(id))
    }
    /// Those to whom all that the selector gives applies, the oldest first.
    pub(crate) fn matching<'a>(
        &'a self,
        selector: &'a Selector,
    ) -> Box<dyn Iterator<Item = &'a Member> + 'a> {
        let of = |index: &'a Index, key: &str| {
            let found = index.get(key).into_iter().flatten();
            found.filter_map(|(_, id)| self.by_id.get(id))
        };
        let matches = |member: &&Member| member.matches(selector);
        if let Some(id) = selector.agent_id {
            Box::new(self.get(id).into_iter().filter(matches))
        } else if let Some(name) = &selector.agent_name {
            Box::new(of(&self.by_name, name).filter(matches))
        } else if let Some(kind) = &selector.agent_type {
            Box::new(of(&self.by_type, kind).filter(matches))
        } else if let Some(capability) = &selector.capability {
            Box::new(of(&self.by_capability, capability).filter(matches))
        } else {
            Box::new(self.iter())
        }
    }
    /// Whom a topology's option means: an id, else a name; of several with the name, the oldest.
    pub fn named(&self, text: &str) -> Option<&Member> {
        if let Some(member) = text.parse().ok().and_then(|id| self.by_id.get(&id)) {
            return Some(member);
        }
        let (_, id) = self.by_name.get(text)?.first()?;
        self.by_id.get(id)
    }
}

type Index = BTreeMap<String, BTreeSet<(u64, AgentId)>>;

fn enter(index: &mut Index, key: &str, age: (u64, AgentId)) {
    match index.get_mut(key) {
        Some(same) => {
            same.insert(age);
        }
        None => {
            index.insert(key.to_owned(), BTreeSet::from([age]));
        }
    }
}
fn forget(index: &mut Index, key: &str, age: (u64, AgentId)) {
    if let Some(same) = index.get_mut(key) {
        same.remove(&age);
        if same.is_empty() {
            index.remove(key);
        }
    }
}
