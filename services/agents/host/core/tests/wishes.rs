//! Given what the log holds, what a host has to do.

use swarm_agent_host_core::{Fate, Key, Todo, Wishes};
use swarm_events::{
    AgentId, Body, Event, EventId, InstanceId, OrgId, SwarmId, Timestamp,
    agent::{
        CrashLooping, Evidence, Exit, Exited, HostFailed, HostName, LivenessRule, Removed,
        SpawnClaimed, SpawnReason, SpawnRequested, StopThen, Stopping,
    },
    envelope::{Decided, Source},
    subject::{AgentVerb, Place, Service, Subject},
};
use uuid::Uuid;

const GRACE: u64 = 30_000;

fn key() -> Key {
    Key {
        place: Place::new(OrgId(Uuid::from_u128(1)), SwarmId(Uuid::from_u128(2))),
        agent: AgentId(Uuid::from_u128(3)),
    }
}

fn host(n: u128) -> HostName {
    HostName {
        instance: InstanceId(Uuid::from_u128(n)),
        name: format!("host-{n}"),
    }
}

fn requested(spawn: u64) -> Body {
    let spec = serde_json::json!({"agent_type": "t", "adapter": "process", "command": ["sh"]});
    SpawnRequested {
        spawn,
        reason: SpawnReason::Added,
        crashes: 0,
        spec: serde_json::from_value(spec).expect("a spec"),
        grace_ms: GRACE,
    }
    .into()
}

fn claimed(spawn: u64, by: u128) -> Body {
    SpawnClaimed {
        spawn,
        host: host(by),
    }
    .into()
}

fn exited(spawn: u64, by: u128) -> Body {
    Exited {
        spawn,
        host: host(by),
        exit: Exit::default(),
        uptime_ms: 0,
        host_leaving: false,
        left_behind: 0,
        last_output: String::new(),
    }
    .into()
}

fn host_failed(spawn: u64, of: u128) -> Body {
    HostFailed {
        spawn,
        host: host(of),
        evidence: Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 4_000,
            limit_ms: 4_000,
        },
    }
    .into()
}

fn stopping(spawn: u64, grace_ms: u64, then: StopThen) -> Body {
    Stopping {
        incarnation: 1,
        spawn,
        grace_ms,
        then,
        reason: "by order".into(),
    }
    .into()
}

fn removed() -> Body {
    Removed {
        incarnation: 1,
        reason: "past its grace".into(),
    }
    .into()
}

fn event(body: Body) -> Event {
    let source = match &body {
        Body::AgentSpawnClaimed(claim) => Source::Host(claim.host.instance),
        Body::AgentExited(exited) => Source::Host(exited.host.instance),
        _ => Source::Service(Service::Coordinator, InstanceId(Uuid::from_u128(9))),
    };
    let subject = Subject::Agent(key().place, AgentVerb::SpawnRequested, key().agent);
    Event::new(
        EventId(Uuid::nil()),
        source,
        Timestamp::ZERO,
        &subject,
        key().agent.0,
        body,
    )
}

/// The request 1 in the event `id`, the decision with this ordinal.
fn decided(id: u128, ordinal: u64) -> Event {
    let mut event = event(requested(1));
    event.id = EventId(Uuid::from_u128(id));
    event.decided = Some(Decided {
        cause_sequence: 1,
        epoch: 1,
        ordinal,
        decider_version: 1,
    });
    event
}

/// A claim of the request 1 that names the event `id`.
fn naming(id: u128, by: u128) -> Event {
    let mut event = event(claimed(1, by));
    event.causation = Some(Uuid::from_u128(id));
    event
}

/// The host 1 after it has met these at these sequences.
fn met(events: impl IntoIterator<Item = (u64, Event)>) -> Wishes {
    let mut wishes = Wishes::new(host(1).instance);
    for (sequence, event) in events {
        wishes.meet(key(), sequence, &event);
    }
    wishes
}

/// The host 1 after it has met these, from sequence 1 on.
fn given(bodies: impl IntoIterator<Item = Body>) -> Wishes {
    let mut wishes = Wishes::new(host(1).instance);
    for (sequence, body) in (1..).zip(bodies) {
        wishes.meet(key(), sequence, &event(body));
    }
    wishes
}

fn claim_at(wishes: &Wishes) -> Option<(u64, u64)> {
    match wishes.todo(key()) {
        Todo::Claim {
            request,
            last_claim,
            ..
        } => Some((request.spawn, last_claim)),
        _ => None,
    }
}

fn start(wishes: &Wishes) -> Option<u64> {
    match wishes.todo(key()) {
        Todo::Start(request) => Some(request.spawn),
        _ => None,
    }
}

fn stop(wishes: &Wishes, spawn: u64) -> Option<u64> {
    match wishes.fate(key(), spawn) {
        Fate::Stop { grace_ms, .. } => Some(grace_ms),
        Fate::Keep => None,
    }
}

#[test]
fn an_open_request_is_claimed_under_the_last_claim_met() {
    assert_eq!(claim_at(&given([requested(1)])), Some((1, 0)));
    let again = given([requested(1), claimed(1, 2), exited(1, 2), requested(2)]);
    assert_eq!(claim_at(&again), Some((2, 2)));
}

#[test]
fn the_first_claim_is_the_one_that_holds() {
    let mine = given([requested(1), claimed(1, 1), claimed(1, 2)]);
    assert_eq!(start(&mine), Some(1));
    let others = given([requested(1), claimed(1, 2), claimed(1, 1)]);
    assert_eq!(others.todo(key()), Todo::Nothing);
    assert!(others.elsewhere(key()) && !mine.elsewhere(key()));
    assert_eq!(stop(&others, 1), Some(0), "what runs here is not ours");
}

#[test]
fn nobody_claims_in_the_name_of_another() {
    let mut wishes = given([requested(1)]);
    let mut forged = event(claimed(1, 1));
    forged.source = Source::Host(host(2).instance);
    wishes.meet(key(), 2, &forged);
    assert_eq!(
        claim_at(&wishes),
        Some((1, 2)),
        "it counts for the check alone"
    );
}

#[test]
fn a_claim_of_an_older_request_says_nothing() {
    // The two last messages of their subjects, as a host meets them at its start.
    let old_first = given([claimed(4, 2), requested(5)]);
    assert_eq!(claim_at(&old_first), Some((5, 1)));
    let late = given([requested(4), requested(5), claimed(4, 1)]);
    assert_eq!(claim_at(&late), Some((5, 3)));
}

#[test]
fn a_process_is_started_once() {
    let mut wishes = given([requested(1), claimed(1, 1)]);
    wishes.started(key(), 1);
    assert_eq!(wishes.todo(key()), Todo::Nothing);
    wishes.meet(key(), 9, &event(claimed(1, 1)));
    assert_eq!(wishes.todo(key()), Todo::Nothing, "a repeat is nothing");
    wishes.meet(key(), 10, &event(requested(1)));
    assert_eq!(wishes.todo(key()), Todo::Nothing, "so is that of a request");
    assert_eq!(stop(&wishes, 1), None);
}

#[test]
fn a_request_that_was_answered_is_not_claimed_again() {
    for end in [
        exited(1, 2),
        host_failed(1, 2),
        CrashLooping {
            spawn: 1,
            crashes: 5,
            exit: Exit::default(),
        }
        .into(),
    ] {
        let wishes = given([requested(1), claimed(1, 2), end]);
        assert_eq!(wishes.todo(key()), Todo::Nothing);
    }
    // The word of a host that had no claim.
    assert_eq!(claim_at(&given([requested(1), exited(1, 2)])), Some((1, 0)));
}

#[test]
fn what_is_told_to_go_goes_within_its_grace_and_is_not_claimed() {
    let running = [requested(1), claimed(1, 1)];
    let told = given(
        running
            .clone()
            .into_iter()
            .chain([stopping(1, 700, StopThen::Remove)]),
    );
    assert_eq!(stop(&told, 1), Some(700));
    let forced = given(running.clone().into_iter().chain([
        stopping(1, 700, StopThen::Remove),
        stopping(1, 0, StopThen::Remove),
    ]));
    assert_eq!(stop(&forced, 1), Some(0));
    let late = given(
        running
            .into_iter()
            .chain([stopping(1, 700, StopThen::Restart), removed()]),
    );
    assert_eq!(stop(&late, 1), Some(0), "past its grace it is removed");
    let open = given([requested(1), stopping(1, 0, StopThen::Remove)]);
    assert_eq!(open.todo(key()), Todo::Nothing);
    let other = given([requested(1), stopping(0, 0, StopThen::Restart)]);
    assert_eq!(claim_at(&other), Some((1, 0)), "it was about no process");
}

#[test]
fn a_claim_that_is_met_after_the_stop_is_answered_and_not_started() {
    let wishes = given([
        requested(1),
        stopping(1, 0, StopThen::Remove),
        claimed(1, 1),
    ]);
    assert_eq!(wishes.todo(key()), Todo::NeverMind { spawn: 1 });
}

#[test]
fn a_removal_without_a_stop_is_not_about_the_process() {
    let wishes = given([requested(1), claimed(1, 1), removed()]);
    assert_eq!(stop(&wishes, 1), None);
}

#[test]
fn a_newer_request_ends_the_older_process_at_once() {
    let mut wishes = given([requested(1), claimed(1, 1)]);
    wishes.started(key(), 1);
    wishes.meet(key(), 3, &event(requested(2)));
    assert_eq!(stop(&wishes, 1), Some(0));
    assert_eq!(claim_at(&wishes), Some((2, 2)));
}

#[test]
fn a_host_that_was_held_to_be_dead_lets_its_processes_end_in_good_order() {
    let own = given([requested(1), claimed(1, 1), host_failed(1, 1)]);
    assert_eq!(stop(&own, 1), Some(GRACE));
    assert_eq!(own.todo(key()), Todo::Nothing);
    let others = given([requested(1), claimed(1, 1), host_failed(1, 2)]);
    assert_eq!(stop(&others, 1), None, "it was about another");
    let older = given([
        requested(1),
        claimed(1, 1),
        exited(1, 1),
        requested(2),
        claimed(2, 1),
        host_failed(1, 1),
    ]);
    assert_eq!(stop(&older, 2), None);
}

#[test]
fn an_agent_that_is_gone_for_good_is_forgotten_and_may_come_back() {
    let mut wishes = given([
        requested(1),
        claimed(1, 1),
        stopping(1, 0, StopThen::Remove),
        exited(1, 1),
    ]);
    wishes.forget_if_gone(key());
    assert!(!wishes.knows(key()));
    wishes.meet(key(), 9, &event(removed()));
    assert!(!wishes.knows(key()), "what follows says nothing new");
    wishes.meet(key(), 10, &event(requested(2)));
    assert_eq!(claim_at(&wishes), Some((2, 0)));
    let mut restarted = given([
        requested(1),
        claimed(1, 1),
        stopping(1, 0, StopThen::Restart),
        exited(1, 1),
    ]);
    restarted.forget_if_gone(key());
    assert!(restarted.knows(key()));
}

#[test]
fn a_claim_names_its_request() {
    let wishes = met([(4, decided(70, 3))]);
    match wishes.todo(key()) {
        Todo::Claim {
            id, requested_at, ..
        } => assert_eq!((id, requested_at), (EventId(Uuid::from_u128(70)), 4)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_request_that_is_decided_again_is_claimed_again_behind_it() {
    // Another host's claim of the first decision, which did not count, does not count either.
    let others = met([(4, decided(70, 3)), (5, naming(70, 2)), (6, decided(71, 4))]);
    assert_eq!(claim_at(&others), Some((1, 5)));
    assert!(!others.elsewhere(key()));
    // A claim that was under way counts where it came to stand.
    for (by, starts) in [(1, Some(1)), (2, None)] {
        let behind = met([
            (4, decided(70, 3)),
            (6, decided(71, 4)),
            (7, naming(70, by)),
        ]);
        assert_eq!(start(&behind), starts);
        assert_eq!(claim_at(&behind), None);
    }
    // What was said of the first decision says nothing of the second.
    for end in [
        exited(1, 1),
        stopping(1, 0, StopThen::Restart),
        CrashLooping {
            spawn: 1,
            crashes: 5,
            exit: Exit::default(),
        }
        .into(),
    ] {
        let ended = met([
            (4, decided(70, 3)),
            (5, naming(70, 1)),
            (6, event(end)),
            (7, decided(71, 4)),
        ]);
        assert_eq!(claim_at(&ended), Some((1, 5)));
    }
}

#[test]
fn a_request_that_is_decided_again_ends_what_runs_for_the_first_decision() {
    let mut wishes = met([(4, decided(70, 3)), (5, naming(70, 1))]);
    wishes.started(key(), 1);
    assert_eq!(stop(&wishes, 1), None);
    wishes.meet(key(), 6, &decided(71, 4));
    assert_eq!(stop(&wishes, 1), Some(0));
    // Also when its own claim of the second is met before the process has ended.
    wishes.meet(key(), 7, &naming(71, 1));
    assert_eq!(stop(&wishes, 1), Some(0));
    // And through a third decision.
    wishes.meet(key(), 8, &decided(72, 5));
    wishes.meet(key(), 9, &naming(72, 1));
    assert_eq!(stop(&wishes, 1), Some(0));
    assert_eq!(start(&wishes), Some(1), "once that is gone");
    wishes.started(key(), 1);
    assert_eq!(wishes.todo(key()), Todo::Nothing);
    assert_eq!(stop(&wishes, 1), None, "this is what was asked for");
}

#[test]
fn a_repeat_or_a_late_older_decision_takes_nobodys_place() {
    for again in [decided(71, 4), decided(70, 3)] {
        let mut wishes = met([(4, decided(71, 4)), (5, naming(71, 1))]);
        wishes.started(key(), 1);
        wishes.meet(key(), 6, &again);
        assert_eq!(stop(&wishes, 1), None);
        assert_eq!(wishes.todo(key()), Todo::Nothing);
    }
    // A later epoch comes after every ordinal of an earlier one.
    let mut later = decided(72, 1);
    later.decided = later.decided.map(|by| Decided { epoch: 2, ..by });
    let wishes = met([(4, decided(71, 4)), (5, naming(71, 2)), (6, later)]);
    assert_eq!(claim_at(&wishes), Some((1, 5)));
}

#[test]
fn a_claim_that_is_met_before_its_request_counts_if_it_names_it() {
    // The last of each subject: the request was stored a second time behind its claim.
    let repeated = met([(5, naming(70, 2)), (6, decided(70, 3))]);
    assert_eq!(repeated.todo(key()), Todo::Nothing);
    assert!(repeated.elsewhere(key()));
    // The request was decided a second time behind a claim of the first decision.
    let again = met([(5, naming(70, 2)), (6, decided(71, 4))]);
    assert_eq!(claim_at(&again), Some((1, 5)));
    assert!(!again.elsewhere(key()));
    // The claim stands behind the request: it counts, whichever decision it names.
    let behind = met([(6, decided(71, 4)), (7, naming(70, 2))]);
    assert!(behind.elsewhere(key()));
    // In the name of another it never does.
    let mut forged = naming(70, 2);
    forged.source = Source::Host(host(3).instance);
    let wishes = met([(5, forged), (6, decided(70, 3))]);
    assert_eq!(claim_at(&wishes), Some((1, 5)));
}

#[test]
fn an_agent_that_is_given_up_is_killed() {
    let crashes: fn(u64) -> Body = |spawn| {
        CrashLooping {
            spawn,
            crashes: 5,
            exit: Exit::default(),
        }
        .into()
    };
    let current = given([requested(1), claimed(1, 1), crashes(1)]);
    assert_eq!(stop(&current, 1), Some(0));
    assert_eq!(current.todo(key()), Todo::Nothing);
    let older = given([requested(2), claimed(2, 1), crashes(1)]);
    assert_eq!(stop(&older, 2), None);
    assert_eq!(start(&older), Some(2));
}

#[test]
fn an_open_request_that_was_withdrawn_stays_withdrawn() {
    for then in [StopThen::Remove, StopThen::Restart] {
        let mut wishes = met([(4, decided(70, 3)), (5, event(stopping(1, 0, then)))]);
        assert_eq!(wishes.todo(key()), Todo::Nothing);
        wishes.meet(key(), 6, &decided(70, 3));
        assert_eq!(wishes.todo(key()), Todo::Nothing, "a repeat is nothing");
        wishes.meet(key(), 7, &event(requested(2)));
        assert_eq!(claim_at(&wishes), Some((2, 0)));
    }
}

#[test]
fn a_repeat_of_an_older_request_is_not_claimed_once_a_newer_one_was() {
    // The last of each subject: a late copy of the request 1, and the claim of the request 2, in both orders.
    for (copy, claim) in [(6, 8), (8, 6)] {
        let mut events = vec![(copy, decided(70, 3)), (claim, event(claimed(2, 2)))];
        events.sort_by_key(|(sequence, _)| *sequence);
        let mut wishes = met(events);
        assert_eq!(wishes.todo(key()), Todo::Nothing);
        wishes.meet(key(), 9, &event(requested(3)));
        assert_eq!(claim_at(&wishes), Some((3, claim)));
    }
}
