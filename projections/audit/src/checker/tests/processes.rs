//! Promises on agents' processes, on going, quarantine, scaling and declined tasks.

use swarm_events::{
    AgentId, Body, InstanceId, Subject,
    agent::{
        Added, AgentSpec, Cause, CrashLooping, Evidence, Exit, Exited, Figures, HostFailed,
        HostName, Launched, LimitedBy, LivenessRule, Quarantined, Recovered, Released, Removed,
        SpawnClaimed, SpawnReason, SpawnRequested, StopThen, Stopping, Suspected,
    },
    envelope::Source,
    subject::{AgentVerb, SwarmVerb},
    swarm::{AgentLoad, Measured, Scaled},
};

use super::{given, scene::*};
use crate::Invariant;

fn host(by: InstanceId) -> HostName {
    HostName {
        instance: by,
        name: "h".to_owned(),
    }
}
fn spec() -> AgentSpec {
    let text = r#"{"agent_type": "t", "adapter": "process", "command": ["c"], "restart": {"crash_limit": 2}}"#;
    serde_json::from_str(text).expect("a spec")
}

impl Scene {
    fn agent_event(&mut self, verb: AgentVerb, id: AgentId, body: impl Into<Body>) -> u64 {
        let subject = Subject::Agent(self.place, verb, id);
        let service = if matches!(
            verb,
            AgentVerb::Quarantined | AgentVerb::Released | AgentVerb::HostFailed
        ) {
            HEALTH
        } else {
            COORDINATOR
        };
        self.decide(service, subject, id.0, body)
    }
    fn by_host(
        &mut self,
        verb: AgentVerb,
        id: AgentId,
        by: InstanceId,
        body: impl Into<Body>,
    ) -> u64 {
        let subject = Subject::Agent(self.place, verb, id);
        self.write(subject, Source::Host(by), id.0, body)
    }
    fn add(&mut self, id: AgentId) -> u64 {
        let reason = "by order".to_owned();
        self.agent_event(
            AgentVerb::Added,
            id,
            Added {
                spec: spec(),
                reason,
            },
        )
    }
    fn request(&mut self, id: AgentId, spawn: u64, reason: SpawnReason, crashes: u32) -> u64 {
        let body = SpawnRequested {
            spawn,
            reason,
            crashes,
            spec: spec(),
            grace_ms: 1_000,
        };
        self.agent_event(AgentVerb::SpawnRequested, id, body)
    }
    fn claim_spawn(&mut self, id: AgentId, spawn: u64, by: InstanceId) -> u64 {
        let body = SpawnClaimed {
            spawn,
            host: host(by),
        };
        self.by_host(AgentVerb::SpawnClaimed, id, by, body)
    }
    fn launch(&mut self, id: AgentId, spawn: u64, by: InstanceId) -> u64 {
        let body = Launched {
            spawn,
            host: host(by),
            pid: 7,
            limited_by: LimitedBy::Nothing,
            unlimited: Vec::new(),
        };
        self.by_host(AgentVerb::Launched, id, by, body)
    }
    fn exit(&mut self, id: AgentId, spawn: u64, by: InstanceId) -> u64 {
        let body = Exited {
            spawn,
            host: host(by),
            exit: Exit {
                code: Some(1),
                ..Exit::default()
            },
            uptime_ms: 10,
            host_leaving: false,
            left_behind: 0,
            last_output: String::new(),
        };
        self.by_host(AgentVerb::Exited, id, by, body)
    }
    fn stop(&mut self, id: AgentId, incarnation: u64, spawn: u64) -> u64 {
        let body = Stopping {
            incarnation,
            spawn,
            grace_ms: 1_000,
            then: StopThen::Remove,
            reason: "r".to_owned(),
        };
        self.agent_event(AgentVerb::Stopping, id, body)
    }
}

/// An agent whose first process is in the hands of a host.
fn runs() -> Scene {
    let mut scene = given();
    scene.add(agent(5));
    scene.request(agent(5), 1, SpawnReason::Added, 0);
    scene.claim_spawn(agent(5), 1, OWNER);
    scene.launch(agent(5), 1, OWNER);
    scene.clean();
    scene
}

#[test]
fn spawns_rise_and_only_the_wanted_start() {
    let mut scene = given();
    let stranger = scene.request(agent(5), 1, SpawnReason::Added, 0);
    scene.broken(Invariant::OnlyTheWantedStart, stranger);
    let mut scene = given();
    scene.add(agent(5));
    let second = scene.request(agent(5), 2, SpawnReason::Added, 0);
    scene.broken(Invariant::SpawnsRise, second);
    let mut scene = runs();
    scene.stop(agent(5), 0, 1);
    scene.exit(agent(5), 1, OWNER);
    let again = scene.request(agent(5), 2, SpawnReason::Exited, 0);
    scene.broken(Invariant::OnlyTheWantedStart, again);
}

#[test]
fn one_process_wanted() {
    let mut scene = runs();
    let second = scene.request(agent(5), 2, SpawnReason::Exited, 0);
    scene.broken(Invariant::OneProcessWanted, second);
}

/// A host that begins reads the last request alone: an older one that is stored again hides the one that is open.
#[test]
fn a_request_that_is_hidden_is_made_anew_and_no_other() {
    let open = || {
        let mut scene = runs();
        scene.exit(agent(5), 1, OWNER);
        scene.later(500);
        scene.measure(0);
        scene.request(agent(5), 2, SpawnReason::Exited, 1);
        scene
    };
    let added = given().add(agent(5));
    let repeat = |scene: &mut Scene| {
        // The decision before the last one, with what it was decided on.
        scene.forged.ordinal = Some(scene.epochs[&COORDINATOR].1 - 1);
        scene.forged.cause = Some(added);
        scene.request(agent(5), 1, SpawnReason::Added, 0);
        assert_eq!(scene.checker.voids()["repeated-decision"], 1);
    };
    let mut scene = open();
    let third = scene.request(agent(5), 3, SpawnReason::Exited, 1);
    scene.broken(Invariant::OneProcessWanted, third);
    let mut scene = open();
    repeat(&mut scene);
    // In good faith, by one that met the second.
    scene.claim_spawn(agent(5), 2, OWNER);
    scene.launch(agent(5), 2, OWNER);
    scene.request(agent(5), 3, SpawnReason::Exited, 1);
    scene.claim_spawn(agent(5), 3, OWNER);
    scene.launch(agent(5), 3, OWNER);
    scene.clean();
    // Nothing was open.
    let mut scene = open();
    scene.claim_spawn(agent(5), 2, OWNER);
    repeat(&mut scene);
    let third = scene.request(agent(5), 3, SpawnReason::Exited, 1);
    scene.broken(Invariant::OneProcessWanted, third);
}

#[test]
fn one_process_wanted_beside_one_that_an_earlier_request_made() {
    let evidence = || Evidence {
        rule: LivenessRule::Silence,
        last_heartbeat_at: None,
        age_ms: 4_000,
        limit_ms: 4_000,
    };
    let lost = |scene: &mut Scene, spawn, by| {
        let (host, evidence) = (host(by), evidence());
        let body = HostFailed {
            spawn,
            host,
            evidence,
        };
        scene.agent_event(AgentVerb::HostFailed, agent(5), body)
    };
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    lost(&mut scene, 1, OWNER);
    let second = scene.request(agent(5), 2, SpawnReason::HostLost, 0);
    scene.broken(Invariant::OneProcessWanted, second);
    // It is silent, and another process is asked for; then it is heard again, and the other one's host is lost.
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    lost(&mut scene, 1, OWNER);
    let about = |scene: &Scene, verb| Subject::Agent(scene.place, verb, agent(5));
    let (incarnation, subject) = (1, about(&scene, AgentVerb::Suspected));
    let suspected = Suspected {
        incarnation,
        evidence: evidence(),
    };
    scene.decide(HEALTH, subject, agent(5).0, suspected);
    scene.request(agent(5), 2, SpawnReason::HostLost, 0);
    scene.claim_spawn(agent(5), 2, OTHER);
    scene.launch(agent(5), 2, OTHER);
    let subject = about(&scene, AgentVerb::Recovered);
    let recovered = Recovered {
        incarnation,
        evidence: evidence(),
    };
    scene.decide(HEALTH, subject, agent(5).0, recovered);
    lost(&mut scene, 2, OTHER);
    scene.request(agent(5), 3, SpawnReason::HostLost, 0);
    scene.clean();
}

#[test]
fn launched_by_the_claimant() {
    let mut scene = given();
    scene.add(agent(5));
    scene.request(agent(5), 1, SpawnReason::Added, 0);
    scene.claim_spawn(agent(5), 1, OWNER);
    scene.claim_spawn(agent(5), 1, OTHER);
    scene.clean();
    let second = scene.launch(agent(5), 1, OTHER);
    scene.broken(Invariant::LaunchedByTheClaimant, second);
}

#[test]
fn restarts_by_policy() {
    let mut scene = runs();
    scene.exit(agent(5), 1, OWNER);
    // Half a second is the first wait.
    scene.later(500);
    scene.measure(0);
    scene.request(agent(5), 2, SpawnReason::Exited, 1);
    scene.clean();
    let mut scene = runs();
    scene.exit(agent(5), 1, OWNER);
    scene.later(499);
    scene.measure(0);
    let early = scene.request(agent(5), 2, SpawnReason::Exited, 1);
    scene.broken(Invariant::RestartsByPolicy, early);
    let mut scene = runs();
    scene.exit(agent(5), 1, OWNER);
    let body = CrashLooping {
        spawn: 1,
        crashes: 1,
        exit: Exit::default(),
    };
    let soon = scene.agent_event(AgentVerb::CrashLooping, agent(5), body);
    scene.broken(Invariant::RestartsByPolicy, soon);
}

#[test]
fn wanted_agents_run_and_grace_kept() {
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    scene.checker.finish(scene.sequence);
    scene.clean();
    scene.stop(agent(5), 1, 1);
    scene.later(7_000);
    let last = scene.measure(0);
    scene.checker.finish(last);
    scene.broken(Invariant::GraceKept, last);
    let mut scene = given();
    scene.add(agent(5));
    scene.later(6_000);
    let last = scene.measure(0);
    scene.checker.finish(last);
    scene.broken(Invariant::WantedAgentsRun, last);
}

#[test]
fn removals_have_causes() {
    let body = || Removed {
        incarnation: 1,
        reason: "r".to_owned(),
    };
    let mut scene = given();
    scene.fail_agent(agent(1), 1);
    scene.agent_event(AgentVerb::Removed, agent(1), body());
    scene.clean();
    let mut scene = given();
    let bare = scene.agent_event(AgentVerb::Removed, agent(1), body());
    scene.broken(Invariant::RemovalsHaveCauses, bare);
}

#[test]
fn exits_judged() {
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    scene.exit(agent(5), 1, OWNER);
    // It goes by a silence, and the end had been reported.
    let late = scene.fail_agent(agent(5), 1);
    scene.broken(Invariant::ExitsJudged, late);
}

#[test]
fn the_word_of_a_host_that_was_held_to_be_dead_is_not_judged() {
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    let body = HostFailed {
        spawn: 1,
        host: host(OWNER),
        evidence: Evidence {
            rule: LivenessRule::Silence,
            last_heartbeat_at: None,
            age_ms: 4_000,
            limit_ms: 4_000,
        },
    };
    scene.agent_event(AgentVerb::HostFailed, agent(5), body);
    // Its claim is void, so its report is, and the silence is what there is to go by.
    scene.exit(agent(5), 1, OWNER);
    let late = scene.fail_agent(agent(5), 1);
    assert!(!scene.found().contains(&(Invariant::ExitsJudged, late)));
}

fn quarantine(until: swarm_events::Timestamp, value: u64) -> Quarantined {
    Quarantined {
        incarnation: 1,
        cause: Cause::FastFailures,
        figures: Figures {
            value,
            limit: 5,
            attempts: value,
        },
        until: Some(until),
    }
}

#[test]
fn quarantines_have_figures_and_end_and_give_nothing() {
    let mut scene = given();
    let load = AgentLoad {
        fast_failures: 5,
        ..AgentLoad::default()
    };
    let measured = Measured {
        agents: [(agent(1), load)].into(),
        ..Measured::default()
    };
    let (place, until) = (scene.place, scene.now.plus_millis(1_000));
    let subject = Subject::Swarm(place, SwarmVerb::Measured);
    scene.decide(DISTRIBUTOR, subject, place.swarm.0, measured);
    scene.agent_event(AgentVerb::Quarantined, agent(1), quarantine(until, 5));
    scene.clean();
    scene.submit(task(1));
    let given_work = scene.assign(task(1), agent(1));
    scene.broken(Invariant::NothingToTheQuarantined, given_work);
    scene.checker.violations.clear();
    let released = Released {
        incarnation: 1,
        cause: Cause::FastFailures,
        figures: quarantine(until, 5).figures,
    };
    let early = scene.agent_event(AgentVerb::Released, agent(1), released);
    scene.broken(Invariant::QuarantinesEnd, early);
    let mut scene = given();
    let bare = scene.agent_event(AgentVerb::Quarantined, agent(1), quarantine(until, 5));
    scene.broken(Invariant::QuarantinesHaveFigures, bare);
}

/// The distributor finds a measurement void that an assignment overtook. Health meets no assignments, and cannot know.
#[test]
fn an_overtaken_measurement_counts_for_whoever_does_not_meet_what_overtook_it() {
    let measured = |fast_failures| {
        let load = AgentLoad {
            fast_failures,
            ..AgentLoad::default()
        };
        Measured {
            agents: [(agent(1), load)].into(),
            ..Measured::default()
        }
    };
    let mut scene = given();
    let (place, until) = (scene.place, scene.now.plus_millis(1_000));
    let subject = Subject::Swarm(place, SwarmVerb::Measured);
    scene.submit(task(1));
    let first = scene.epochs[&DISTRIBUTOR].1 + 1;
    scene.epochs.entry(DISTRIBUTOR).and_modify(|e| e.1 += 2);
    scene.assign(task(1), agent(1));
    let overtaken = |scene: &mut Scene, ordinal, fast_failures| {
        scene.forged.ordinal = Some(ordinal);
        let body = measured(fast_failures);
        scene.decide(DISTRIBUTOR, subject, place.swarm.0, body)
    };
    overtaken(&mut scene, first + 1, 5);
    assert_eq!(scene.checker.voids()["repeated-decision"], 1);
    // What another measurement overtook is void for health, too.
    overtaken(&mut scene, first, 7);
    assert_eq!(scene.checker.voids()["repeated-decision"], 2);
    scene.agent_event(AgentVerb::Quarantined, agent(1), quarantine(until, 5));
    scene.clean();
    let other = scene.agent_event(AgentVerb::Quarantined, agent(1), quarantine(until, 7));
    scene.broken(Invariant::QuarantinesHaveFigures, other);
}

#[test]
fn nothing_to_the_leaving() {
    let mut scene = given();
    let before = scene.submit(task(1));
    scene.submit(task(2));
    scene.stop(agent(1), 1, 0);
    // Decided before that was met: repaired, not forbidden.
    scene.forged.cause = Some(before);
    scene.assign(task(1), agent(1));
    scene.clean();
    let knowing = scene.assign(task(2), agent(1));
    scene.broken(Invariant::NothingToTheLeaving, knowing);
}

#[test]
fn scales_add_up_and_min_agents_kept() {
    let scaled = |add: u128| Scaled {
        before: 2,
        desired: 4,
        like: Some(agent(5)),
        add: (0..add).map(|n| agent(50 + n)).collect(),
        remove: Vec::new(),
        reason: "r".to_owned(),
    };
    for (add, right) in [(2, true), (3, false)] {
        let mut scene = runs();
        let (place, subject) = (scene.place, Subject::Swarm(scene.place, SwarmVerb::Scaled));
        let at = scene.decide(COORDINATOR, subject, place.swarm.0, scaled(add));
        if right {
            scene.clean();
        } else {
            scene.broken(Invariant::ScalesAddUp, at);
        }
    }
    let mut scene = runs();
    scene.join(agent(5), 1, 1);
    scene.set(|c| c.min_agents = 3);
    scene.later(6_000);
    let last = scene.measure(0);
    scene.checker.finish(last);
    scene.broken(Invariant::MinAgentsKept, last);
}

#[test]
fn one_that_has_ended_counts_again_from_the_order_to_start_it_anew() {
    let ended = || {
        let mut scene = given();
        let once = r#"{"agent_type": "t", "adapter": "process", "command": ["c"], "restart": {"restart": "never"}}"#;
        let added = Added {
            spec: serde_json::from_str(once).expect("a spec"),
            reason: "by order".to_owned(),
        };
        scene.agent_event(AgentVerb::Added, agent(5), added);
        scene.request(agent(5), 1, SpawnReason::Added, 0);
        scene.claim_spawn(agent(5), 1, OWNER);
        scene.launch(agent(5), 1, OWNER);
        scene.exit(agent(5), 1, OWNER);
        scene
    };
    let scale = |scene: &mut Scene| {
        let body = Scaled {
            before: 2,
            desired: 3,
            like: Some(agent(5)),
            add: vec![agent(50)],
            remove: Vec::new(),
            reason: "r".to_owned(),
        };
        let subject = Subject::Swarm(scene.place, SwarmVerb::Scaled);
        scene.decide(COORDINATOR, subject, scene.place.swarm.0, body)
    };
    let mut scene = ended();
    let wrong = scale(&mut scene);
    scene.broken(Invariant::ScalesAddUp, wrong);
    let mut scene = ended();
    let body = Stopping {
        incarnation: 0,
        spawn: 0,
        grace_ms: 1_000,
        then: StopThen::Restart,
        reason: "r".to_owned(),
    };
    scene.agent_event(AgentVerb::Stopping, agent(5), body);
    scale(&mut scene);
    scene.clean();
}
