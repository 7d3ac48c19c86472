//! The layout of the state in snapshots.

mod support;

use sha2::{Digest, Sha256};
use support::{
    Given, P, agent, create,
    hosts::{code, slot, spec, webhook},
    join, org, place,
    topologies::{json, order, outcomes},
    user,
};
use swarm_coordinator_core::Coordinator;
use swarm_events::{
    Json, KeyId, Subject,
    command::{CreateKey, RevokeKey, SaveTemplate, UpdateOrg},
    configuration::TopologyKind,
    decider::Decider,
    message::{Answerer, Ask},
    org::Role,
    subject::CommandVerb,
};
use uuid::Uuid;

/// [`Decider::FORMAT`], and the SHA-256 of the world's state in postcard.
const GOLDEN: (u32, &str) = (
    4,
    "cf0e87e92ad07535699319c345699b8e974a31010bb18944df3601ddb3ba5051",
);

/// A state with something in every field: keys, swarms in each status, agents that are well, suspected, failed,
/// gone, and managed ones in every phase; open marks, sums, remembered commands.
fn world() -> Given {
    let mut given =
        Given::a_swarm(r#"{"agent_slots": 2, "agent_waiting": 0, "retry": {"base_ms": 10}}"#);
    // Of no default that may change.
    let create = |name| {
        let mut order = create(name);
        order.configuration = Json::parse(r#"{"agent_waiting": 0}"#).expect("JSON");
        order
    };
    let key = |n| KeyId(Uuid::from_u128(n));
    for n in [911, 912] {
        given.org_command(
            CommandVerb::CreateKey,
            CreateKey {
                key_id: key(n),
                user_id: user(),
                name: "laptop".into(),
                sha256: support::sha(n as u8),
                role: Role::Operator,
            },
        );
    }
    given.org_command(CommandVerb::RevokeKey, RevokeKey { key_id: key(912) });
    let patch = Json::parse(r#"{"queue_limit": 500}"#).expect("JSON");
    let update = UpdateOrg { patch };
    given.org_command(CommandVerb::UpdateOrg, update.clone());
    for n in 1..=5 {
        given.join(n, join(n, None));
    }
    given.add(11, slot("worker"));
    given.running(12);
    given.quarantine(12, 1, swarm_events::agent::Cause::Stuck);
    given.drain(12, 86_400_000);
    given.add(13, webhook());
    given.decline(13, 1, 1);
    given.add(14, spec("worker"));
    given.claim(14, 2, 1);
    for n in [15, 16] {
        let mut wanted = spec("worker");
        wanted.restart.crash_limit = u32::from(n == 15);
        wanted.restart.backoff_ms = 86_400_000;
        wanted.restart.backoff_cap_ms = 86_400_000;
        given.add(n, wanted);
        given.runs(n);
        given.exit(n, 1, 1, code(3), 5);
    }
    given.scale(None, Some(1), None);
    given.save_something();
    given.measured(0);
    given.suspected(2, 1);
    given.failed(3, 1);
    given.leave(4, 1);
    given.remove(5);
    given.update(1, r#"{"description": "the first"}"#);
    given.command(2, CommandVerb::Create, create("s2"));
    given.delete(2);
    given.0.later(60_000);
    given.0.settle();
    given.command(3, CommandVerb::Create, create("s3"));
    given.delete(1);
    given.a_topology_in_between();
    // From here on nothing is answered.
    given.send(
        1,
        CommandVerb::Scale,
        place(1).swarm.0,
        swarm_events::command::Scale {
            desired: Some(1),
            delta: None,
            agent_type: None,
            reason: None,
        },
    );
    given.send(4, CommandVerb::Create, place(4).swarm.0, create("s4"));
    given.send(3, CommandVerb::Join, agent(9).0, join(9, Some("nine")));
    given.0.client(
        Subject::OrgCommand(P, org(), CommandVerb::UpdateOrg),
        org().0,
        update,
    );
    let subject = Subject::Command(place(3), CommandVerb::Create).to_string();
    given.0.store(&subject, br#"{"source": "broken"}"#.to_vec());
    given
}

impl Given {
    /// A template, questions that are open and answered, and figures that made a rule speak.
    fn save_something(&mut self) {
        let save = SaveTemplate {
            name: "night".into(),
            description: Some("few agents".into()),
            best_for: None,
            topology: TopologyKind::Mesh,
            configuration: json(r#"{"connections": [["a", "b"]]}"#),
        };
        self.org_command(CommandVerb::SaveTemplate, save);
        let ask = |timeout_ms| Ask {
            incarnation: 1,
            assignment: Some(7),
            answerer: Answerer::Role(swarm_events::topology::Role::Worker),
            question: "well?".into(),
            choices: vec!["yes".into(), "no".into()],
            default: Some(json(r#""no""#)),
            timeout_ms,
        };
        for timeout_ms in [1, 86_400_000] {
            self.send(1, CommandVerb::Ask, agent(2).0, ask(timeout_ms));
        }
        self.settle();
        self.later(1);
        self.change(TopologyKind::Ring, "{}");
        self.update(
            1,
            r#"{"configuration": {"adaptation": {"mode": "suggest", "sustain_ms": 1000, "cooldown_ms": 1000}}}"#,
        );
        for n in 1..=4 {
            self.0.now = self.0.now.plus_millis(1_000);
            self.sampled(&[(1, 1, n * 20_000)]);
            self.told(outcomes(n * 10, n, n));
        }
        assert!(self.swarm(1).suggested.is_some());
    }

    /// A change of swarm 3's topology of which two seats are stored.
    fn a_topology_in_between(&mut self) {
        for n in 21..=24 {
            self.send(3, CommandVerb::Join, agent(n).0, join(n, None));
        }
        self.0.settle();
        let about = place(3).swarm.0;
        let change = order(TopologyKind::Hierarchical, "{}");
        self.send(3, CommandVerb::ChangeTopology, about, change);
        for _ in 0..3 {
            assert_eq!(self.0.decide(1), 1);
            self.0.deliver();
        }
        let staged = self.swarm(3).shape.staged().expect("staged");
        assert_eq!(staged.len(), 2);
    }
}

#[test]
fn a_changed_layout_needs_a_higher_format() {
    let given = world();
    let state = &given.0.state;
    assert!(state.open_marks() >= 3, "{}", state.open_marks());
    assert_eq!(state.swarms().count(), 3);
    assert!(state.organization(org()).is_some());
    assert_eq!(state.head().partition, P);
    let bytes = postcard::to_stdvec(state).expect("encoded");
    let back: Coordinator = postcard::from_bytes(&bytes).expect("decoded");
    assert_eq!(&back, state);
    let hash: String = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    assert_eq!(
        (Coordinator::FORMAT, hash.as_str()),
        GOLDEN,
        "if the layout of the state has changed, raise Coordinator::FORMAT, so that snapshots of the old layout are passed \
         over; if only what this world leads to has changed, leave it; then set GOLDEN to what is on the left"
    );
}
