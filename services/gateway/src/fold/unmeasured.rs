//! What one gateway alone knows of the queues: tasks that it has let in and that no measurement counts yet.

use std::collections::BTreeMap;

use swarm_events::{OrgId, Place, SwarmId};

/// Most submissions of a swarm that are told apart: some hundred a second are measured each second. Further ones are put to the
/// newest, and count a little longer.
const APART_MAX: usize = 1_024;

/// Tasks that are stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Stored {
    /// That exist from one sequence on: a task alone, or those of a graph from its acceptance.
    at_once: u64,
    /// That are stored one by one, the last of them at that sequence.
    one_by_one: u64,
}

/// Of a swarm.
#[derive(Debug, Default)]
struct Count {
    /// Let in, and not stored yet.
    under_way: u64,
    /// By their last sequence. A measurement that has met it counts them.
    stored: BTreeMap<u64, Stored>,
}

impl Count {
    /// What a measurement that has met `counted` does not count; the rest is forgotten.
    fn beyond(&mut self, counted: u64) -> u64 {
        let first = self.stored.first_key_value();
        if first.is_some_and(|(last, _)| *last <= counted) {
            self.stored = self.stored.split_off(&(counted + 1));
        }
        let beyond = |(last, stored): (&u64, &Stored)| {
            // Each has a sequence of its own, so no more of them fit in there.
            stored.at_once + stored.one_by_one.min(last - counted)
        };
        self.under_way + self.stored.iter().map(beyond).sum::<u64>()
    }

    fn add(&mut self, last: u64, more: Stored) {
        let (last, others) = if self.stored.len() < APART_MAX {
            (last, Stored::default())
        } else {
            let newest = self.stored.pop_last().unwrap_or_default();
            (newest.0.max(last), newest.1)
        };
        for more in [others, more] {
            let stored = self.stored.entry(last).or_default();
            stored.at_once += more.at_once;
            stored.one_by_one += more.one_by_one;
        }
    }
}

/// By organization and swarm.
#[derive(Debug, Default)]
pub(super) struct Unmeasured(BTreeMap<OrgId, BTreeMap<SwarmId, Count>>);

impl Unmeasured {
    /// Tasks of a swarm whose last measurement has met `counted`.
    pub(super) fn of_swarm(&mut self, place: Place, counted: u64) -> u64 {
        let of = self.0.get_mut(&place.org);
        let count = of.and_then(|of| of.get_mut(&place.swarm));
        count.map_or(0, |count| count.beyond(counted))
    }

    /// Tasks of all swarms of an organization; `counted` is what a swarm's last measurement has met. Swarms that have nothing
    /// here any more are forgotten, so that as many are looked at as took tasks within about a second.
    pub(super) fn of_organization(&mut self, org: OrgId, counted: impl Fn(SwarmId) -> u64) -> u64 {
        let Some(swarms) = self.0.get_mut(&org) else {
            return 0;
        };
        let mut sum = 0;
        swarms.retain(|swarm, count| {
            let tasks = count.beyond(counted(*swarm));
            sum += tasks;
            tasks > 0
        });
        if swarms.is_empty() {
            self.0.remove(&org);
        }
        sum
    }

    /// Notes that `tasks` tasks are let in.
    pub(super) fn let_in(&mut self, place: Place, tasks: u64) {
        self.count(place).under_way += tasks;
    }

    /// What was let in is stored: all of it exists from `sequence` on.
    pub(super) fn stored(&mut self, place: Place, tasks: u64, sequence: u64) {
        self.given_up(place, tasks);
        let at_once = Stored {
            at_once: tasks,
            one_by_one: 0,
        };
        self.count(place).add(sequence, at_once);
    }

    /// What was let in is stored one by one, the last of it at `sequence`.
    pub(super) fn stored_one_by_one(&mut self, place: Place, tasks: u64, sequence: u64) {
        self.given_up(place, tasks);
        let one_by_one = Stored {
            at_once: 0,
            one_by_one: tasks,
        };
        self.count(place).add(sequence, one_by_one);
    }

    /// What was let in is not stored.
    pub(super) fn given_up(&mut self, place: Place, tasks: u64) {
        let count = self.count(place);
        count.under_way = count.under_way.saturating_sub(tasks);
    }

    fn count(&mut self, place: Place) -> &mut Count {
        let of = self.0.entry(place.org).or_default();
        of.entry(place.swarm).or_default()
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn place(swarm: u128) -> Place {
        Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(swarm)))
    }

    #[test]
    fn tasks_count_from_their_admission_to_the_measurement_that_has_met_them() {
        let mut counts = Unmeasured::default();
        let (a, b) = (place(1), place(2));
        counts.let_in(a, 3);
        counts.let_in(a, 4);
        counts.let_in(b, 5);
        assert_eq!((counts.of_swarm(a, 0), counts.of_swarm(b, 0)), (7, 5));
        assert_eq!(counts.of_organization(a.org, |_| 0), 12);
        // Whatever has been measured meanwhile: what is not stored yet is in no figure.
        assert_eq!(counts.of_swarm(a, 99), 7);
        counts.stored(a, 4, 104);
        counts.stored(a, 3, 102);
        assert_eq!(counts.of_swarm(a, 101), 7);
        assert_eq!(counts.of_swarm(a, 102), 4);
        assert_eq!(counts.of_swarm(a, 103), 4);
        assert_eq!(counts.of_swarm(a, 104), 0);
        counts.given_up(b, 5);
        assert_eq!(counts.of_organization(a.org, |_| 104), 0);
        assert!(counts.0.is_empty(), "nothing is kept: {counts:?}");
    }

    #[test]
    fn of_tasks_that_were_stored_one_by_one_a_measurement_may_count_a_part() {
        let mut counts = Unmeasured::default();
        let place = place(1);
        counts.let_in(place, 5);
        counts.stored_one_by_one(place, 5, 110);
        for (counted, beyond) in [(0, 5), (105, 5), (106, 4), (109, 1), (110, 0)] {
            assert_eq!(counts.of_swarm(place, counted), beyond, "{counted}");
        }
    }

    #[test]
    fn a_flood_of_submissions_is_counted_in_bounded_memory() {
        let mut counts = Unmeasured::default();
        let place = place(1);
        for n in 1..=3 * APART_MAX as u64 {
            counts.let_in(place, 2);
            counts.stored(place, 2, n * 10);
        }
        let stored = &counts.0[&place.org][&place.swarm].stored;
        assert_eq!(stored.len(), APART_MAX);
        let last = 3 * APART_MAX as u64 * 10;
        assert_eq!(counts.of_swarm(place, 0), 6 * APART_MAX as u64);
        // What was put together counts until the newest of it is met.
        let late = 6 * APART_MAX as u64 - 2 * (APART_MAX as u64 - 1);
        assert_eq!(counts.of_swarm(place, last - 10), late);
        assert_eq!(counts.of_swarm(place, last), 0);
    }
}
