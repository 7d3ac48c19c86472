//! The fold: what each event does to a shape, and when it is void.

use swarm_events::{
    AgentId, Body,
    topology::{LeaderElected, Seated, TopologyChanged, TopologyKept, TopologyPlanned},
};

use crate::{Generation, Shape, links::Links, rule};

impl Shape {
    /// Applies an event of the swarm; `about` is the agent that it is about, if it is about one. `false`: it is not about the
    /// shape.
    ///
    /// # Errors
    /// Why it is void. Then it has changed nothing.
    pub fn apply(&mut self, about: Option<AgentId>, body: &Body) -> Result<bool, &'static str> {
        match body {
            Body::SwarmCreated(created) => {
                if self.generation() == 1 && self.seated() == 0 && self.staged.is_none() {
                    *self = Self {
                        partial: self.partial,
                        ..Self::of(created)
                    };
                } else if !self.partial {
                    return Err("the swarm was created before");
                }
                self.max_workers = created.configuration.max_workers;
            }
            Body::SwarmUpdated(updated) => self.max_workers = updated.configuration.max_workers,
            Body::SwarmTopologyPlanned(planned) => self.planned(planned)?,
            Body::AgentSeated(seated) => {
                self.seated_at(about.ok_or("no agent is named")?, seated)?
            }
            Body::SwarmTopologyChanged(changed) => self.changed(changed)?,
            Body::SwarmTopologyKept(kept) => self.kept(kept)?,
            Body::SwarmLeaderElected(elected) => self.elected(elected)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn planned(&mut self, planned: &TopologyPlanned) -> Result<(), &'static str> {
        if !self.partial {
            if self.staged.is_some() {
                return Err("another change of the topology is under way");
            }
            if planned.generation != self.next_generation() {
                return Err("not the next generation of the topology");
            }
            if planned.before != *self.topology() {
                return Err("planned for another topology than the one in force");
            }
        } else if planned.generation <= self.generation() {
            return Err("planned for a generation that is past");
        }
        self.used = planned.generation;
        self.staged = Some(Generation::new(planned.after.clone(), planned.generation));
        Ok(())
    }

    fn seated_at(&mut self, agent: AgentId, seated: &Seated) -> Result<(), &'static str> {
        if self.partial && seated.generation > self.generation() {
            // The plan itself was not read: what topology it is shows when it has changed.
            let known = self.staged.as_ref().map(Generation::number);
            if known.is_none_or(|number| number < seated.generation) {
                self.used = seated.generation;
                self.staged = Some(Generation::new(self.topology().clone(), seated.generation));
            }
        }
        let generation = if seated.generation == self.standing.number {
            &mut self.standing
        } else {
            match &mut self.staged {
                Some(staged) if staged.number == seated.generation => staged,
                _ => return Err("a seat of a generation that is neither in force nor planned"),
            }
        };
        let before = generation.seat(agent).copied();
        match seated.seat {
            Some(seat) => {
                if generation
                    .seats
                    .at(seat.place)
                    .is_some_and(|holder| holder != agent)
                {
                    return Err("another agent has this place");
                }
                if seat.parent == Some(agent) {
                    return Err("an agent cannot be its own parent");
                }
                generation.last_place = generation.last_place.max(seat.place);
                generation.seats.set(agent, seat, seated.named.clone());
            }
            None => {
                if before.is_none() {
                    return Err("it has no seat");
                }
                generation.seats.take(agent);
            }
        }
        rule::remember(generation, agent, before, seated.seat);
        Ok(())
    }

    fn changed(&mut self, changed: &TopologyChanged) -> Result<(), &'static str> {
        if self.partial {
            if changed.generation <= self.generation() {
                return Err("a generation that is past");
            }
            let mut next = self
                .staged
                .take_if(|staged| staged.number <= changed.generation)
                .filter(|staged| staged.number == changed.generation)
                .unwrap_or_else(|| Generation::new(changed.after.clone(), changed.generation));
            next.links = Links::of(&changed.after);
            next.topology = changed.after.clone();
            self.used = self.used.max(changed.generation);
            self.standing = next;
            return Ok(());
        }
        match self.staged.take() {
            Some(staged)
                if staged.number == changed.generation && staged.topology == changed.after =>
            {
                self.standing = staged;
                Ok(())
            }
            staged => {
                self.staged = staged;
                Err("no such change of the topology is under way")
            }
        }
    }

    fn kept(&mut self, kept: &TopologyKept) -> Result<(), &'static str> {
        match &self.staged {
            Some(staged) if staged.number == kept.generation => {
                self.staged = None;
                Ok(())
            }
            _ if self.partial => {
                self.used = self.used.max(kept.generation);
                Ok(())
            }
            _ => Err("no such change of the topology is under way"),
        }
    }

    fn elected(&mut self, elected: &LeaderElected) -> Result<(), &'static str> {
        if !self.partial && elected.before != self.leader {
            return Err("another one led before");
        }
        self.leader = elected.leader;
        Ok(())
    }
}
