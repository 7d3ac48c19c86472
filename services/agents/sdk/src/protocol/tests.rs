use proptest::prelude::*;
use swarm_events::ids::InstanceId;

use super::{
    model::{INCARNATION, JOINED, World, assignment, ids},
    *,
};

fn protocol(slots: usize) -> Protocol {
    Protocol::new(slots, INCARNATION, JOINED, (0, 0), ids())
}
fn assigned(protocol: &mut Protocol, sequence: u64, previous: u64) {
    let fact = Fact::Assigned(assignment(sequence, INCARNATION));
    protocol.heard(Own::Assigned, sequence, Via::Live { previous }, fact);
}
fn withdrawn(protocol: &mut Protocol, sequence: u64, previous: u64, assignment: u64, force: bool) {
    let fact = Fact::Withdrawn {
        assignment,
        incarnation: INCARNATION,
        force,
    };
    protocol.heard(Own::Withdrawn, sequence, Via::Live { previous }, fact);
}
fn appended(actions: &[Do]) -> Vec<(u64, bool, u64)> {
    let writes = actions.iter().find_map(|action| match action {
        Do::Append(writes) => Some(writes),
        _ => None,
    });
    let line = |w: &Write| (w.assignment.sequence, w.kind == WriteKind::Started, w.fence);
    writes
        .map(|writes| writes.iter().map(line).collect())
        .unwrap_or_default()
}
fn runs(actions: &[Do]) -> Vec<u64> {
    actions
        .iter()
        .filter_map(|a| {
            if let Do::Run(a) = a {
                Some(a.sequence)
            } else {
                None
            }
        })
        .collect()
}
fn done() -> Outcome {
    Outcome::Completed(swarm_events::task::Carried::AtSequence(0))
}

#[test]
fn work_is_started_in_the_order_of_arrival_up_to_the_slots() {
    let mut p = protocol(2);
    for (sequence, previous) in [(5, 0), (6, 5), (9, 6)] {
        assigned(&mut p, sequence, previous);
    }
    assert_eq!(appended(&p.next(0)), [(5, true, 0), (6, true, 0)]);
    p.written(1, vec![(5, Written::Stored(10)), (6, Written::Stored(11))]);
    assert_eq!(runs(&p.next(1)), [5, 6]);
    assert_eq!(p.load().1, 1);
}

#[test]
fn a_result_and_the_next_start_go_in_one_call_the_result_first() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    assigned(&mut p, 6, 5);
    p.next(0);
    p.written(0, vec![(5, Written::Stored(7))]);
    p.next(0);
    p.finished(5, done());
    assert_eq!(appended(&p.next(1)), [(5, false, 0), (6, true, 0)]);
}

#[test]
fn a_gap_before_a_live_message_is_caught_up() {
    let mut p = protocol(1);
    assigned(&mut p, 9, 7);
    let actions = p.next(0);
    assert!(
        matches!(
            actions[..],
            [Do::CatchUp {
                own: Own::Assigned,
                from: 1
            }]
        ),
        "{actions:?}"
    );
    for sequence in [7, 9] {
        let fact = Fact::Assigned(assignment(sequence, INCARNATION));
        p.heard(Own::Assigned, sequence, Via::CatchUp, fact);
    }
    p.caught_up(1, Own::Assigned, true);
    assert_eq!(appended(&p.next(1)), [(7, true, 0)]);
}

#[test]
fn messages_met_again_and_those_of_other_incarnations_are_nothing() {
    let mut p = protocol(4);
    assigned(&mut p, 5, 0);
    assigned(&mut p, 5, 0);
    let fact = Fact::Assigned(assignment(6, INCARNATION - 1));
    p.heard(Own::Assigned, 6, Via::Live { previous: 5 }, fact);
    assert_eq!(appended(&p.next(0)), [(5, true, 0)]);
}

#[test]
fn a_withdrawal_met_before_its_assignment_holds() {
    let mut p = protocol(1);
    withdrawn(&mut p, 6, 0, 5, false);
    assigned(&mut p, 5, 0);
    assert!(appended(&p.next(0)).is_empty());
    assert!(p.is_idle());
}

#[test]
fn a_start_that_the_server_refuses_waits_for_the_withdrawal_and_is_dropped() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    assigned(&mut p, 6, 5);
    p.next(0);
    p.written(0, vec![(5, Written::Fenced)]);
    assert!(
        appended(&p.next(0)).is_empty(),
        "nothing may be started while a withdrawal is unseen"
    );
    let later = p.next(HINT_WAIT_MS);
    assert!(
        matches!(
            later[..],
            [Do::CatchUp {
                own: Own::Withdrawn,
                ..
            }]
        ),
        "{later:?}"
    );
    let fact = Fact::Withdrawn {
        assignment: 5,
        incarnation: INCARNATION,
        force: false,
    };
    p.heard(Own::Withdrawn, 7, Via::CatchUp, fact);
    p.caught_up(30, Own::Withdrawn, true);
    assert_eq!(appended(&p.next(30)), [(6, true, 7)]);
}

#[test]
fn the_live_withdrawal_spares_the_catch_up() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    p.next(0);
    p.written(0, vec![(5, Written::Fenced)]);
    withdrawn(&mut p, 7, 0, 4, false);
    assert_eq!(appended(&p.next(1)), [(5, true, 7)]);
}

#[test]
fn a_steal_loses_against_a_start_that_stands_before_it() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    p.next(0);
    withdrawn(&mut p, 8, 0, 5, false);
    p.written(0, vec![(5, Written::Stored(7))]);
    assert_eq!(runs(&p.next(0)), [5]);
}

#[test]
fn force_kills_what_runs_and_drops_its_result() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    p.next(0);
    p.written(0, vec![(5, Written::Stored(7))]);
    p.next(0);
    withdrawn(&mut p, 8, 0, 5, true);
    let actions = p.next(0);
    assert!(
        matches!(actions[..], [Do::Kill { assignment: 5 }]),
        "{actions:?}"
    );
    p.finished(5, done());
    assert!(p.next(0).is_empty() && p.is_idle());
}

#[test]
fn a_result_refused_by_the_check_is_sent_again_unless_it_was_withdrawn_with_force() {
    for (about, force, again) in [(5, true, false), (4, true, true), (5, false, true)] {
        let mut p = protocol(1);
        assigned(&mut p, 5, 0);
        p.next(0);
        p.written(0, vec![(5, Written::Stored(7))]);
        p.next(0);
        p.finished(5, done());
        p.next(0);
        p.written(0, vec![(5, Written::Fenced)]);
        withdrawn(&mut p, 9, 0, about, force);
        assert_eq!(
            !appended(&p.next(0)).is_empty(),
            again,
            "about {about}, force {force}"
        );
    }
}

#[test]
fn a_write_without_an_ack_is_sent_again_as_it_was_and_looked_up_when_refused() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    let Some(Do::Append(first)) = p.next(0).pop() else {
        panic!("no append")
    };
    p.written(0, vec![(5, Written::Unknown)]);
    assert!(p.next(0).is_empty(), "it pauses");
    withdrawn(&mut p, 9, 0, 5, false);
    let Some(Do::Append(second)) = p.next(UNKNOWN_PAUSE_MS.0).pop() else {
        panic!("no append")
    };
    assert_eq!(
        (first[0].id, first[0].fence),
        (second[0].id, second[0].fence)
    );
    p.written(200, vec![(5, Written::Fenced)]);
    let actions = p.next(200);
    assert!(
        matches!(&actions[..], [Do::LookUp(write)] if write.id == first[0].id),
        "{actions:?}"
    );
    p.looked_up(201, 5, Some(Some(8)));
    assert_eq!(runs(&p.next(201)), [5], "it stood before the withdrawal");
}

#[test]
fn a_result_that_the_server_will_not_take_becomes_a_failed_attempt() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    p.next(0);
    p.written(0, vec![(5, Written::Stored(7))]);
    p.next(0);
    p.finished(5, done());
    p.next(0);
    p.written(0, vec![(5, Written::Refused("too large".to_owned()))]);
    let actions = p.next(REFUSED_PAUSE_MS);
    let Some(Do::Append(writes)) = actions.iter().find(|a| matches!(a, Do::Append(_))) else {
        panic!("{actions:?}")
    };
    assert_eq!(
        writes[0].kind,
        WriteKind::Ended(Outcome::failed(
            "the result could not be stored: too large",
            false
        ))
    );
}

#[test]
fn a_free_slot_looks_after_1_2_4_5_and_5_seconds() {
    let mut p = protocol(1);
    p.next(0);
    let mut at = 0;
    let mut pauses = Vec::new();
    for _ in 0..5 {
        let wake = p.wake_at();
        assert!(p.next(wake - 1).is_empty());
        assert!(matches!(
            p.next(wake)[..],
            [Do::Check { assigned: true, .. }]
        ));
        p.checked(wake, Some((Some(0), 0)));
        pauses.push(wake - at);
        at = wake;
    }
    assert_eq!(pauses, [1_000, 2_000, 4_000, 5_000, 5_000]);
}

#[test]
fn a_look_that_finds_an_unseen_sequence_leads_to_a_catch_up() {
    let mut p = protocol(1);
    p.doubt(3);
    assert!(matches!(
        p.next(3)[..],
        [Do::Check {
            assigned: true,
            verdicts: true
        }]
    ));
    p.checked(4, Some((Some(8), 0)));
    assert!(matches!(
        p.next(4)[..],
        [Do::CatchUp {
            own: Own::Assigned,
            from: 1
        }]
    ));
}

#[test]
fn verdicts_on_this_incarnation_end_it_and_others_do_not() {
    let mut p = protocol(1);
    p.verdict(Verdict::Failed {
        incarnation: INCARNATION - 1,
    });
    p.verdict(Verdict::Joined {
        incarnation: INCARNATION,
        instance: InstanceId(uuid::Uuid::nil()),
    });
    assert_eq!(p.over(), None);
    p.verdict(Verdict::Failed {
        incarnation: INCARNATION,
    });
    assert_eq!(p.over(), Some(&Over::Failed));
    assigned(&mut p, 5, 0);
    assert!(p.next(9_999).is_empty());
}

#[test]
fn a_draining_agent_starts_nothing_more() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    p.drain();
    assert!(appended(&p.next(0)).is_empty());
    assert!(p.is_idle());
}

#[test]
fn it_holds_no_more_than_the_largest_agent() {
    let mut p = protocol(1);
    for sequence in 2..(HELD_MAX as u64 + 10) {
        assigned(
            &mut p,
            sequence,
            if sequence == 2 { 0 } else { sequence - 1 },
        );
    }
    assert_eq!(p.load().1 as usize, HELD_MAX);
}

#[test]
fn an_error_is_cut_at_its_limit_and_not_inside_a_character() {
    let limit = swarm_events::task::ERROR_BYTES_MAX;
    let text = |outcome| match outcome {
        Outcome::Failed { error, .. } => error,
        Outcome::Declined { reason } => reason,
        Outcome::Completed(_) | Outcome::Split(_) => String::new(),
    };
    assert_eq!(text(Outcome::failed("x".repeat(limit), true)).len(), limit);
    let cut = text(Outcome::failed("ä".repeat(limit), true));
    assert!(cut.len() <= limit && cut.ends_with('…'));
    let limit = swarm_events::task::DECLINE_REASON_BYTES_MAX;
    assert_eq!(text(Outcome::declined("x".repeat(limit))).len(), limit);
    let cut = text(Outcome::declined("ä".repeat(limit)));
    assert!(cut.len() <= limit && cut.ends_with('…'));
}

#[test]
fn a_task_that_is_given_back_is_written_under_the_same_check_and_frees_its_slot() {
    let mut p = protocol(1);
    assigned(&mut p, 5, 0);
    assigned(&mut p, 6, 5);
    p.next(0);
    p.written(0, vec![(5, Written::Stored(7))]);
    p.next(0);
    p.finished(5, Outcome::declined("not mine"));
    // Taken away without force meanwhile: void, the start stands; the check must know of it all the same.
    withdrawn(&mut p, 8, 0, 5, false);
    assert_eq!(appended(&p.next(1)), [(5, false, 8), (6, true, 8)]);
    // Taken away with force before it was stored: nothing more is written of it.
    p.written(2, vec![(5, Written::Fenced), (6, Written::Fenced)]);
    withdrawn(&mut p, 9, 8, 5, true);
    assert_eq!(appended(&p.next(3)), [(6, true, 9)]);
}

fn stop(grace_ms: Millis) -> Stop {
    Stop {
        grace_ms,
        then: swarm_events::agent::StopThen::Remove,
        reason: "r".to_owned(),
    }
}

#[test]
fn an_incarnation_that_is_to_go_starts_nothing_more_and_ends_what_runs() {
    let mut p = protocol(2);
    assigned(&mut p, 5, 0);
    p.next(0);
    p.written(0, vec![(5, Written::Stored(6))]);
    p.next(0);
    p.verdict(Verdict::Stopping {
        incarnation: INCARNATION - 1,
        stop: stop(1),
    });
    assert_eq!(p.stop(), None);
    for grace_ms in [2, 3] {
        p.verdict(Verdict::Stopping {
            incarnation: INCARNATION,
            stop: stop(grace_ms),
        });
        assert_eq!(p.stop(), Some(&stop(grace_ms)));
    }
    assigned(&mut p, 7, 5);
    assert!(appended(&p.next(1)).is_empty());
    assert!(!p.is_idle());
    assert_eq!(p.over(), None);
    p.finished(5, done());
    assert_eq!(appended(&p.next(2)), [(5, false, 0)]);
    p.written(3, vec![(5, Written::Stored(8))]);
    assert!(p.is_idle());
}

#[test]
fn another_number_of_slots_holds_from_the_next_start_on() {
    let slots = |incarnation, slots| Verdict::Slots { incarnation, slots };
    let mut p = protocol(1);
    for (sequence, previous) in [(5, 0), (6, 5), (7, 6), (8, 7)] {
        assigned(&mut p, sequence, previous);
    }
    p.verdict(slots(INCARNATION + 1, 4));
    assert_eq!(appended(&p.next(0)), [(5, true, 0)]);
    p.written(0, vec![(5, Written::Stored(10))]);
    p.verdict(slots(INCARNATION, 2));
    assert_eq!(appended(&p.next(0)), [(6, true, 0)]);
    p.written(0, vec![(6, Written::Stored(11))]);
    // Fewer than run: nothing new until as many have ended; never none at all.
    p.verdict(slots(INCARNATION, 0));
    p.finished(5, done());
    assert_eq!(appended(&p.next(1)), [(5, false, 0)]);
    p.written(1, vec![(5, Written::Stored(12))]);
    assert!(appended(&p.next(1)).is_empty());
    p.finished(6, done());
    assert_eq!(appended(&p.next(2)), [(6, false, 0), (7, true, 0)]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_500))]
    #[test]
    fn whatever_is_lost_late_or_repeated_each_assignment_runs_at_most_once_and_ends(
        slots in 1usize..4,
        steps in proptest::collection::vec((0u8..24, 0usize..8), 0..120),
    ) {
        let mut world = World::new(slots);
        for (step, pick) in steps {
            match step {
                0..=3 => world.assign(slots + 2),
                4 => world.withdraw(pick, false),
                5 => world.withdraw(pick, true),
                6..=8 => world.hint(Own::Assigned, true),
                9 => world.hint(Own::Assigned, false),
                10 | 11 => world.hint(Own::Withdrawn, true),
                12 => world.hint(Own::Withdrawn, false),
                13..=15 => world.append(0),
                16 => world.append(pick as u8),
                17 => world.ghost(),
                18 => world.finish(pick),
                19 => world.catch_up(),
                20 => world.check(pick == 0),
                21 => world.look_up(),
                22 => world.now += [1, 5, 25, 200, 1_200, 6_000, 0, 0][pick],
                _ => world.protocol.doubt(world.now),
            }
            world.act();
            prop_assert!(world.running.len() <= slots, "more runs than there are slots");
        }
        world.heal();
        for a in world.assignments() {
            let (started, taken, ended) = (world.started(a), world.taken(a), world.ended(a));
            let runs = world.runs.get(&a).copied().unwrap_or(0);
            prop_assert!(runs <= 1, "{a} ran {runs} times: {:?}", world.log);
            prop_assert!(runs == 0 || started.is_some(), "{a} ran without its start in the log");
            if let Some(taken) = taken {
                prop_assert!(started.is_none_or(|s| s < taken), "{a} started after it was taken: {:?}", world.log);
            } else {
                prop_assert_eq!(ended, 1, "{} ended {} times: {:?}", a, ended, &world.log);
            }
            prop_assert!(ended <= 1);
        }
        prop_assert!(world.running.is_empty() && world.protocol.is_idle() && world.protocol.load().1 == 0);
    }
}

#[test]
fn a_start_that_was_surely_not_stored_is_dropped_once_withdrawn() {
    for answer in [Written::Busy, Written::Full, Written::Fenced] {
        let mut p = protocol(1);
        assigned(&mut p, 2, 0);
        p.next(0);
        withdrawn(&mut p, 3, 0, 2, false);
        p.written(0, vec![(2, answer)]);
        assert!(p.is_idle());
        assert!(appended(&p.next(REFUSED_PAUSE_MS)).is_empty());
    }
}
