//! Messages that cannot be read are said so, and stop nobody.

mod support;

use support::{Given, P, create, org, pair, place};
use swarm_coordinator_core::{PROBLEM_BYTES_MAX, SOURCES_MAX, SUM_MS};
use swarm_events::{
    Body, Input, OrgId, Partition, Place, Subject, SwarmId,
    decider::Verdict,
    subject::{CommandVerb, OrgVerb, SwarmVerb, TaskVerb},
};
use uuid::Uuid;

fn refusals(given: &Given) -> Vec<swarm_events::swarm::Refused> {
    given
        .0
        .inputs()
        .filter_map(|input| match input {
            Input::Event(recorded) => match recorded.event.body {
                Body::SwarmRefused(refused) => Some(refused),
                _ => None,
            },
            Input::Unreadable(_) => None,
        })
        .collect()
}

fn broken(given: &mut Given, source: &str) -> Uuid {
    let id = given.0.id();
    let text =
        format!(r#"{{"specversion": "1.0", "id": "{id}", "source": "{source}", "type": "x"}}"#);
    let subject = Subject::Command(place(1), CommandVerb::Create).to_string();
    given.0.store(&subject, text.into_bytes());
    given.0.settle();
    id
}

#[test]
fn a_malformed_command_is_refused_by_its_id() {
    let mut given = Given::an_organization();
    let id = broken(&mut given, "cli");
    assert!(
        refusals(&given).is_empty(),
        "more may come within the second"
    );
    given.0.later(SUM_MS);
    let answer = given.0.answer(id);
    let Body::SwarmRefused(refused) = answer.body else {
        panic!("{answer:?}")
    };
    assert_eq!(refused.command_id.map(|c| c.0), Some(id));
    assert_eq!(
        (refused.problem.code.as_str(), refused.count),
        ("malformed-event", 1)
    );
    assert_eq!(given.0.state.open_marks(), 0);
}

#[test]
fn garbage_is_summed_up_by_source_and_second() {
    let mut given = Given::an_organization();
    for _ in 0..500 {
        broken(&mut given, "one");
    }
    broken(&mut given, "two");
    let last = given.0.log.last().expect("stored").sequence;
    given.0.later(SUM_MS);
    let said = refusals(&given);
    assert_eq!(said.iter().map(|r| r.count).collect::<Vec<_>>(), [500, 1]);
    assert_eq!(said[1].refused_seq, last);
    assert_eq!(said[0].command_id, None, "it stands for many");
    broken(&mut given, "one");
    given.0.later(SUM_MS);
    assert_eq!(refusals(&given).len(), 3);
    assert_eq!(given.0.state.open_marks(), 0);
}

#[test]
fn sources_beyond_the_limit_share_a_sum() {
    let mut given = Given::an_organization();
    for n in 0..SOURCES_MAX + 10 {
        broken(&mut given, &format!("s{n}"));
    }
    given.0.later(SUM_MS);
    let said = refusals(&given);
    assert_eq!(said.len(), SOURCES_MAX + 1);
    assert_eq!(said.iter().map(|r| r.count).max(), Some(10));
}

#[test]
fn a_long_complaint_is_cut() {
    let mut given = Given::an_organization();
    let id = given.0.id();
    let field = "f".repeat(100_000);
    let subject = Subject::Command(place(1), CommandVerb::Delete);
    let text = format!(
        r#"{{"specversion":"1.0","id":"{id}","source":"x","type":"swarm.cmd.delete.v1","subject":"{0}","org":"{1}","swarm":"{0}","data":{{"{field}":1}}}}"#,
        place(1).swarm,
        org()
    );
    given.0.store(&subject.to_string(), text.into_bytes());
    given.0.later(SUM_MS);
    let said = refusals(&given);
    assert_eq!(said[0].problem.code, "bad-data");
    assert!(said[0].problem.detail.len() <= PROBLEM_BYTES_MAX + '…'.len_utf8());
}

#[test]
fn a_swarm_in_a_wrong_partition_is_told_to_its_organization() {
    let mut given = Given::an_organization();
    let wrong = (1u128..)
        .map(|n| SwarmId(Uuid::from_u128(n)))
        .find(|swarm| Partition::of(swarm.0) != P)
        .expect("ids without end");
    for home in [org(), elsewhere()] {
        let place = Place {
            partition: P,
            org: home,
            swarm: wrong,
        };
        let id = given.0.client(
            Subject::Command(place, CommandVerb::Create),
            wrong.0,
            create("s"),
        );
        given.0.later(SUM_MS);
        assert_eq!(given.refused(id), pair("wrong-partition", "partition"));
        assert!(given.refusal(id).cure.is_some());
    }
    assert_eq!(given.0.state.open_marks(), 0);
}

fn elsewhere() -> OrgId {
    (1u128..)
        .map(|n| OrgId(Uuid::from_u128(n)))
        .find(|org| Partition::of(org.0) != P)
        .expect("ids without end")
}

#[test]
fn an_event_that_only_a_service_may_write_is_refused_to_others() {
    let mut given = Given::an_organization();
    let id = given.0.client(
        Subject::Swarm(place(1), SwarmVerb::Stopping),
        place(1).swarm.0,
        swarm_events::swarm::Stopping {},
    );
    given.0.later(SUM_MS);
    let answer = given.0.answer(id);
    let Body::SwarmRefused(refused) = answer.body else {
        panic!("{answer:?}")
    };
    assert_eq!(
        (refused.problem.code.as_str(), refused.command_id),
        ("wrong-source", None)
    );
    let id = given.0.client(
        Subject::Org(P, org(), OrgVerb::KeyRevoked),
        org().0,
        swarm_events::org::KeyRevoked {
            key_id: swarm_events::KeyId(Uuid::nil()),
        },
    );
    given.0.later(SUM_MS);
    assert_eq!(given.answered_by(id), "swarm.org.refused.v1");
}

#[test]
fn what_concerns_others_or_nobody_opens_nothing() {
    let mut given = Given::an_organization();
    for subject in [
        Subject::Command(place(1), CommandVerb::Cancel).to_string(),
        Subject::Task(place(1), TaskVerb::Submitted, None).to_string(),
        format!("swarm.cmd.{P}.nobody.nothing.create"),
        format!("swarm.ctl.coordinator.{P}.woken"),
    ] {
        assert_eq!(given.0.store(&subject, b"{".to_vec()), Verdict::Ignored);
    }
    assert_eq!(given.0.state.open_marks(), 0);
    assert_eq!(given.0.state.unattributed(), 2);
}
