//! Given what was heard and when, when somebody is judged, then so.

use super::*;
use uuid::Uuid;

fn id(number: u128) -> InstanceId {
    InstanceId(Uuid::from_u128(number))
}
fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}
fn at(ms: u64) -> Timestamp {
    Timestamp::ZERO.plus_millis(ms)
}
fn says(number: u128, counter: u64) -> Announcement {
    Announcement {
        service: "distributor".to_owned(),
        instance: id(number),
        name: None,
        started_at: Timestamp::ZERO,
        counter,
        leaving: false,
        sequence: 0,
        log_time: Timestamp::ZERO,
        partitions: BTreeMap::new(),
        stuck: Vec::new(),
        cut_off_since: None,
    }
}
fn partition() -> Partition {
    Partition::all().next().expect("the first")
}

/// Member 1 beside others that renew, each millisecond time given.
struct Scene {
    members: Members,
    now: u64,
}
impl Scene {
    fn new() -> Self {
        Self {
            members: Members::new(id(1), None, Timestamp::ZERO),
            now: 0,
        }
    }
    fn hear(&mut self, number: u128, counter: u64) -> Option<News> {
        self.members
            .heard(says(number, counter), at(self.now), ms(self.now))
    }
    /// Own renewals are acknowledged every 500 ms up to `to`; the news on the way.
    fn renew_until(&mut self, to: u64) -> Vec<(u64, News)> {
        let mut news = Vec::new();
        while self.now < to {
            self.now += 10;
            if self.now.is_multiple_of(500) {
                self.members.renewed(ms(self.now));
            }
            news.extend(
                self.members
                    .check(ms(self.now))
                    .into_iter()
                    .map(|n| (self.now, n)),
            );
        }
        news
    }
    fn live(&self) -> Vec<InstanceId> {
        let mut order = self.members.order(partition()).to_vec();
        order.sort_unstable();
        order
    }
}

fn died(number: u128, since: u64) -> News {
    News::Died {
        instance: id(number),
        since: at(since),
        replaced: false,
    }
}

#[test]
fn whoever_stands_still_for_two_seconds_is_dead() {
    let mut scene = Scene::new();
    scene.renew_until(1_000);
    scene.hear(2, 1);
    assert_eq!(scene.renew_until(2_990), []);
    assert_eq!(scene.live(), [id(1), id(2)]);
    assert_eq!(scene.renew_until(3_500), [(3_000, died(2, 1_000))]);
    assert_eq!(scene.live(), [id(1)]);
}

#[test]
fn a_repeat_of_an_old_key_is_no_sign_of_life() {
    let mut scene = Scene::new();
    scene.hear(2, 5);
    scene.renew_until(1_500);
    scene.hear(2, 5);
    scene.hear(2, 4);
    assert_eq!(scene.renew_until(2_500), [(2_500, died(2, 0))]);
}

#[test]
fn time_in_which_ones_own_renewals_are_not_acknowledged_does_not_count() {
    let mut scene = Scene::new();
    scene.renew_until(500);
    scene.hear(2, 1);
    // An outage of ten seconds: at most 750 ms of it count.
    scene.now += 10_000;
    assert_eq!(scene.members.check(ms(scene.now)), []);
    scene.members.renewed(ms(scene.now));
    assert_eq!(scene.members.check(ms(scene.now)), []);
    let news = scene.renew_until(14_000);
    assert_eq!(news, [(11_750, died(2, 500))]);
}

#[test]
fn a_closed_connection_leaves_half_a_second_unless_a_renewal_follows() {
    let mut scene = Scene::new();
    scene.renew_until(1_000);
    scene.hear(2, 1);
    scene.hear(3, 1);
    scene.members.noticed(id(2), ms(1_000));
    scene.members.noticed(id(3), ms(1_000));
    scene.renew_until(1_300);
    scene.hear(3, 2);
    assert_eq!(scene.renew_until(2_000), [(1_500, died(2, 1_000))]);
    assert_eq!(scene.live(), [id(1), id(3)]);
}

#[test]
fn a_sign_of_life_brings_a_dead_member_back_and_says_how_long_it_was_away() {
    let mut scene = Scene::new();
    scene.renew_until(500);
    scene.hear(2, 1);
    scene.renew_until(4_000);
    let back = scene.hear(2, 2);
    let expected = News::Returned {
        instance: id(2),
        since: at(500),
        until: at(4_000),
    };
    assert_eq!(back, Some(expected));
    assert_eq!(scene.live(), [id(1), id(2)]);
}

#[test]
fn keys_that_were_old_when_this_replica_came_are_those_of_the_dead() {
    let mut scene = Scene::new();
    scene.members.heard(says(2, 9), at(5_000), ms(0));
    scene.members.heard(says(3, 9), at(7_900), ms(0));
    scene.members.heard(says(1, 1), at(8_000), ms(0));
    scene.members.complete(ms(0));
    assert_eq!(scene.live(), [id(1), id(3)]);
}

#[test]
fn of_two_processes_with_one_name_the_later_lives() {
    let mut scene = Scene::new();
    let named = |number, started, counter| Announcement {
        name: Some("a".to_owned()),
        started_at: at(started),
        ..says(number, counter)
    };
    scene.members.heard(named(2, 10, 1), at(0), ms(0));
    scene.members.heard(named(3, 20, 1), at(0), ms(0));
    let news = scene.members.check(ms(0));
    assert!(
        matches!(news[..], [News::Died { instance, replaced: true, .. }] if instance == id(2)),
        "{news:?}"
    );
    // A sign of life of the older one changes nothing.
    assert_eq!(scene.members.heard(named(2, 10, 2), at(0), ms(0)), None);
    assert_eq!(scene.members.check(ms(0)), []);
    assert_eq!(scene.live(), [id(1), id(3)]);
}

/// Found by a seed: for as long as the dead one's key was there, both that were left took each other for dead or replaced.
#[test]
fn a_dead_process_replaces_nobody_though_its_clock_was_ahead() {
    // Given: 2 dies, whose clock was a minute ahead.
    let named = |number, counter, started| Announcement {
        name: Some("distributor-2".to_owned()),
        started_at: at(started),
        ..says(number, counter)
    };
    let mut s = Scene::new();
    s.members.heard(named(2, 1, 60_000), at(0), ms(0));
    s.renew_until(2_500);
    assert_eq!(s.live(), [id(1)]);
    // When its successor comes, which started before it by the clocks.
    s.members.heard(named(3, 1, 2_400), at(2_500), ms(2_500));
    s.renew_until(3_000);
    // Then
    assert_eq!(s.live(), [id(1), id(3)]);
}

#[test]
fn a_stuck_partition_alone_moves_on_and_not_if_it_sticks_everywhere() {
    let mut scene = Scene::new();
    let stuck = |number| Announcement {
        stuck: vec![partition()],
        ..says(number, 1)
    };
    scene.members.heard(stuck(2), at(0), ms(0));
    assert_eq!(scene.live(), [id(1)]);
    let other = Partition::all().nth(1).expect("another");
    assert_eq!(scene.members.order(other).len(), 2);
    scene.members.set_stuck(vec![partition()]);
    assert_eq!(scene.live(), [id(1), id(2)]);
}

#[test]
fn whoever_leaves_owns_nothing_and_is_not_dead() {
    let mut scene = Scene::new();
    let leaving = Announcement {
        leaving: true,
        ..says(2, 1)
    };
    scene.members.heard(leaving, at(0), ms(0));
    assert_eq!(scene.live(), [id(1)]);
    scene.members.leave();
    assert_eq!(scene.live(), []);
}

#[test]
fn a_dead_members_key_is_removed_after_a_minute_by_one_of_the_living() {
    let mut scene = Scene::new();
    scene.renew_until(500);
    scene.hear(2, 1);
    scene.renew_until(2_500);
    assert_eq!(scene.members.forgettable(ms(scene.now)), None);
    scene.renew_until(62_500);
    assert_eq!(scene.members.forgettable(ms(scene.now)), Some(id(2)));
    // Another one, which comes first, does it for all.
    scene.hear(0, 1);
    assert_eq!(scene.members.forgettable(ms(scene.now)), None);
}

#[test]
fn a_member_that_goes_moves_only_its_own_partitions() {
    let mut scene = Scene::new();
    for number in 2..6 {
        scene.hear(number, 1);
    }
    let before: Vec<_> = Partition::all()
        .map(|p| scene.members.order(p).to_vec())
        .collect();
    scene.members.removed(id(4));
    for (partition, order) in Partition::all().zip(before) {
        let rest: Vec<_> = order.into_iter().filter(|i| *i != id(4)).collect();
        assert_eq!(scene.members.order(partition), rest);
    }
}

#[test]
fn partitions_are_spread_about_evenly() {
    let mut scene = Scene::new();
    scene.hear(2, 1);
    scene.hear(3, 1);
    let mut owned = BTreeMap::new();
    for partition in Partition::all() {
        *owned.entry(scene.members.order(partition)[0]).or_insert(0) += 1;
    }
    assert!(owned.values().all(|n| (10..=33).contains(n)), "{owned:?}");
}
