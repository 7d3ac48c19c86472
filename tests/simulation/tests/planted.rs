//! A test of the test: each known defect is found, and by the promise that it breaks. `./dev sim --planted` prints the same
//! as a table.

use std::process::Command;

use swarm_simulation::{Bug, FOUND_BY_UNIT_TESTS, Invariant, Options, hunt};

/// A defect that takes more seeds than this to find would be found by chance.
const SEEDS_MAX: u64 = 200;

/// The same seeds run clean without a defect.
const FIRST: u64 = 1;

fn found(bug: Bug, by: &[Invariant]) {
    let caught = hunt(bug, FIRST, SEEDS_MAX, &Options::default())
        .unwrap_or_else(|| panic!("{bug:?} was not found in {SEEDS_MAX} seeds"));
    println!("{caught}");
    let Some(violation) = &caught.violation else {
        panic!("{caught}: it was not a promise that found it");
    };
    assert!(
        by.contains(&violation.invariant),
        "found by another promise than {by:?}: {caught}"
    );
}

macro_rules! planted {
    ($($name:ident: $bug:ident by $($invariant:ident)|+;)+) => {
        $(
            #[test]
            fn $name() {
                found(Bug::$bug, &[$(Invariant::$invariant),+]);
            }
        )+
        #[test]
        fn every_known_defect_is_planted_here() {
            let mut here = vec![$(Bug::$bug),+];
            here.extend(FOUND_BY_UNIT_TESTS);
            let missing: Vec<Bug> = Bug::ALL.into_iter().filter(|bug| !here.contains(bug)).collect();
            assert_eq!(missing, []);
        }
    };
}
planted! {
    no_fence: NoFence by EpochsRise;
    no_start_check: NoStartCheck by NoStartAfterWithdrawal;
    repair_skipped: RepairSkipped by CommandsAnswered | EveryTaskEnds;
    stale_result_accepted: StaleResultAccepted by
        ResultOfStandingAssignment | OneStandingAssignment | OneTerminal | EveryTaskEnds
        | NothingWaitsUnderPriorityQueue;
    dependency_resolved_twice: DependencyResolvedTwice by DependenciesRespected;
    decisions_applied_at_their_cause: AppliedAtCause by FoldsAgree;
    resend_without_a_new_claim: ResendWithoutClaim by
        EveryTaskEnds | CommandsAnswered | GraphsDecided | GraphsCalledOff | LaunchedByTheClaimant
        | SeatsFollowTheRule;
    a_repeat_of_a_decision_not_void: RepeatedDecisionCounts by
        ResultOfStandingAssignment | OneStandingAssignment | OneTerminal | EveryTaskEnds | PriorityOrder
        | QuarantinesHaveFigures;
    a_repeat_of_a_command_not_void: RepeatedCommandCounts by CommandsAnsweredOnce;
    plan_not_emptied_at_a_claim: PlanKeptAtClaim by
        EveryTaskEnds | CommandsAnswered | GraphsDecided | PriorityOrder | QueueLimitsKept;
    deciding_under_anothers_claim: DecidesUnderAnothersClaim by OneOwnerPerEpoch;
    what_has_started_is_withdrawn:
        WithdrawsTheStarted by
        OneStandingAssignment | ResultOfStandingAssignment | OneTerminal | EveryTaskEnds;
    nobody_wakes_at_deadlines: NeverWakes by
        EveryTaskEnds | GraphsDecided | CommandsAnswered | QuestionsEndOnce;
    a_snapshot_that_says_it_is_ahead: SnapshotAhead by FoldsAgree;
    a_checkpoint_apart_from_its_rows: CheckpointApart by ReadModelEqualsFold;
    an_assignment_started_twice: StartsTwice by OneStart | NoStartAfterWithdrawal;
    what_a_newer_version_wrote_is_skipped: NewerSkipped by FoldsAgree;
    priority_ignored: PriorityIgnored by PriorityOrder;
    an_agent_is_given_more_than_it_has_places: PlacesExceeded by SlotsKept;
    a_circle_that_forgets_whose_turn_it_is: CircleBroken by CircleKept;
    a_steal_of_what_was_assigned_just_now: StealsTooSoon by StealsFair;
    a_steal_with_force: StealsWithForce by StealsFair;
    nothing_ever_waits_too_long: QueueTimeoutNever by QueueLimitsKept;
    progress_not_heard: ProgressIgnored by TimeoutsDue;
    a_failure_without_its_path: FailurePathLost by FailurePaths;
    a_graph_that_was_called_off_goes_on: CalledOffGoesOn by GraphsCalledOff;
    what_was_put_away_is_retried: DiscardedRetried by DiscardedStays;
    what_waits_under_priority_queue: WaitsUnderPriorityQueue by NothingWaitsUnderPriorityQueue;
    homes_that_are_forgotten: HomesForgotten by AffinityTold;
    work_for_the_quarantined: QuarantinedGetsWork by NothingToTheQuarantined;
    work_for_those_that_go: DrainingGetsWork by NothingToTheLeaving;
    what_was_declined_goes_back: DeclineGoesBackToSame by DeclinesKept | DeclinesWait;
    what_was_declined_costs_an_attempt: DeclineCountsAttempt by DeclinesKept;
    an_update_that_is_not_heard: UpdateNotHeard by AssignedToTheAble | SlotsKept | CircleKept | RingOrder;
    the_second_claim_starts: SecondClaimStarts by LaunchedByTheClaimant;
    the_end_of_an_old_process_counts: OldSpawnExitCounts by OneProcessWanted | ExitsJudged | WantedAgentsRun;
    a_claim_that_outlives_its_host: HostFailedKeepsClaim by WantedAgentsRun;
    crashes_without_an_end: CrashLoopForever by RestartsByPolicy;
    no_wait_after_a_crash: BackoffSkipped by RestartsByPolicy;
    a_policy_that_is_not_heeded: PolicyIgnored by OnlyTheWantedStart;
    the_stopped_start_again: StoppedRespawns by OnlyTheWantedStart;
    grace_without_an_end: RemovedStillDrains by GraceKept;
    too_few_agents: MinAgentsForgotten by MinAgentsKept;
    more_agents_than_were_told: ScaleAddsTwice by OnlyTheWantedStart;
    an_end_that_is_not_judged: ExitNotJudged by ExitsJudged;
    a_quarantine_without_an_end: QuarantineNeverEnds by QuarantinesEnd | EveryTaskEnds;
    an_election_without_need: ElectsAnyway by OneLeader;
    a_seat_that_outlives_its_agent: GoneKeepsSeat by SeatsFollowTheRule;
    a_change_before_all_have_seats: ChangedTooSoon by SeatsFollowTheRule;
    work_for_those_whose_seats_give_none: SeatsIgnored by RoutesByTopology;
    a_role_that_is_not_heeded: RoleIgnored by RoutesByTopology;
    parts_outside_their_part_of_the_tree: WithinIgnored by RoutesByTopology;
    a_steal_from_strangers: StealsFromStrangers by RoutesByTopology;
    a_turn_for_anybody: TurnToAnybody by RingOrder;
    a_turn_before_the_last_is_over: TurnTooSoon by RingOrder;
    turns_in_another_order: TurnsOutOfOrder by RingOrder;
    a_change_that_takes_what_has_started: ChangeTakesTheStarted by NoTaskLostByAChange;
    a_change_that_loses_tasks: ChangeLosesTasks by NoTaskLostByAChange;
    the_end_of_a_part_counts_twice: PartCountsTwice by PartsEndOnce;
    parts_that_outlive_a_failure: PartsOutliveFailure by PartsEndOnce;
    what_was_handed_over_is_done_here: HandedOverStaysHere by HandedBackOnce;
    a_failure_comes_back_as_a_result: HandedBackAsDone by HandedBackOnce;
    what_is_not_there_comes_back: HandBackCountsAlways by HandedBackOnce | OneTerminal;
    letters_that_are_said_once: LettersForgotten by EveryTaskEnds;
    a_second_answer_counts: AnsweredTwice by QuestionsEndOnce;
    no_wait_after_a_decline: DeclineWaitSkipped by DeclinesWait;
}

/// The defects are in no build of the product.
#[test]
fn production_has_no_planted_defects() {
    let tree = Command::new(env!("CARGO"))
        .args([
            "tree",
            "--offline",
            "--locked",
            "--edges",
            "features",
            "-p",
            "swarm",
        ])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    let text = String::from_utf8_lossy(&tree.stdout);
    assert!(
        tree.status.success(),
        "{}",
        String::from_utf8_lossy(&tree.stderr)
    );
    assert!(text.contains("swarm-events"), "{text}");
    assert!(!text.contains("planted"), "{text}");
}
