//! One suite for every implementation of the log: the simulated one (as a single node and as a cluster) and JetStream (both
//! durability modes on a single node, and a cluster of three).

#[macro_use]
mod support;

use std::collections::BTreeSet;

use futures::StreamExt;
use support::{Fixture, message, messages_until, subject, under};
use swarm_log::{
    AppendError, BATCH_MESSAGES_MAX, Log, LogError, Message, PAYLOAD_BYTES_MAX, StoredMessage,
    Tailed,
};

contract!(
    appends_take_effect_in_call_order,
    a_fence_holds_only_for_the_last_sequence,
    an_old_owner_is_fenced_off,
    one_refusal_says_nothing_of_its_neighbours,
    a_repeated_message_id_is_flagged,
    a_batch_is_stored_as_a_whole_or_not_at_all,
    batches_and_singles_keep_call_order,
    batch_sizes_are_checked,
    bodies_over_the_limit_are_refused,
    strange_subjects_are_refused,
    a_tail_starts_anywhere_and_filters,
    a_tail_of_nothing_is_caught_up,
    a_tail_follows_for_ever,
    single_messages_are_found,
    info_tells_the_range,
    objects_are_kept,
);

async fn appends_take_effect_in_call_order<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut outcomes = Vec::new();
    for call in 0..40 {
        // Calls of different sizes, none awaited before the next.
        let count = call % 7 + 1;
        let messages = (0..count)
            .map(|number| message(&subject("task.submitted"), &format!("{call}-{number}")))
            .collect();
        outcomes.push(log.append(messages));
    }
    let mut sequences = Vec::new();
    for outcome in outcomes {
        sequences.extend(
            outcome
                .await
                .into_iter()
                .map(|outcome| outcome.expect("stored").sequence),
        );
    }
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    let stored = messages_until(
        log,
        vec!["swarm.>".into()],
        0,
        *sequences.last().expect("some"),
    )
    .await;
    assert_eq!(
        stored
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        sequences
    );
    let bodies: Vec<_> = stored
        .iter()
        .map(|message| String::from_utf8_lossy(&message.payload).into_owned())
        .collect();
    let expected: Vec<_> = (0..40)
        .flat_map(|call| (0..call % 7 + 1).map(move |number| format!("{call}-{number}")))
        .collect();
    assert_eq!(bodies, expected);
}

async fn a_fence_holds_only_for_the_last_sequence<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let claimed = "swarm.ctl.distributor.07.claimed";
    let first = append(log, under(message(claimed, "a"), claimed, 0))
        .await
        .expect("nothing there yet");
    let refusal = append(log, under(message(claimed, "b"), claimed, 0))
        .await
        .expect_err("something is there");
    assert!(
        matches!(&refusal, AppendError::Fenced { subject, expected: 0 } if &**subject == claimed),
        "{refusal}"
    );
    let second = append(log, under(message(claimed, "b"), claimed, first))
        .await
        .expect("the last one");
    assert!(second > first);
    let decision = message(&subject("task.assigned.a"), "d");
    let refusal = append(log, under(decision.clone(), claimed, first))
        .await
        .expect_err("superseded");
    assert!(matches!(refusal, AppendError::Fenced { expected, .. } if expected == first));
    append(log, under(decision, claimed, second))
        .await
        .expect("the present claim");
}

async fn an_old_owner_is_fenced_off<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let claimed = "swarm.ctl.coordinator.00.claimed";
    let old = append(log, under(message(claimed, "old"), claimed, 0))
        .await
        .expect("claimed");
    let decisions = |epoch: u64| {
        (0..10)
            .map(|number| {
                under(
                    message(&subject("task.assigned.a"), &format!("{number}")),
                    claimed,
                    epoch,
                )
            })
            .collect::<Vec<_>>()
    };
    let accepted = log.append(decisions(old)).await;
    assert!(accepted.iter().all(Result::is_ok), "{accepted:?}");
    let new = append(log, under(message(claimed, "new"), claimed, old))
        .await
        .expect("claimed again");
    // The old owner and the new one write at once: nothing of the old one is stored, all of the new one.
    let (stale, fresh) = (log.append(decisions(old)), log.append(decisions(new)));
    for outcome in stale.await {
        assert!(
            matches!(outcome, Err(AppendError::Fenced { expected, .. }) if expected == old),
            "{outcome:?}"
        );
    }
    for outcome in fresh.await {
        outcome.expect("the owner's");
    }
}

async fn one_refusal_says_nothing_of_its_neighbours<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let fence = "swarm.ctl.health.01.claimed";
    let mut messages: Vec<_> = (0..12)
        .map(|number| message(&subject("task.submitted"), &format!("{number}")))
        .collect();
    messages[5] = under(messages[5].clone(), fence, 99);
    messages[8].payload = vec![0; PAYLOAD_BYTES_MAX + 1].into();
    let outcomes = log.append(messages).await;
    assert_eq!(outcomes.len(), 12);
    for (index, outcome) in outcomes.iter().enumerate() {
        match index {
            5 => assert!(
                matches!(outcome, Err(AppendError::Fenced { .. })),
                "{outcome:?}"
            ),
            8 => assert!(
                matches!(outcome, Err(AppendError::TooLarge { .. })),
                "{outcome:?}"
            ),
            _ => assert!(outcome.is_ok(), "{index}: {outcome:?}"),
        }
    }
    let sequences: Vec<_> = outcomes
        .iter()
        .flatten()
        .map(|appended| appended.sequence)
        .collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
}

async fn a_repeated_message_id_is_flagged<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut once = message(&subject("task.submitted"), "once");
    once.message_id = Some("id-1".into());
    let first = log
        .append(vec![once.clone()])
        .await
        .remove(0)
        .expect("stored");
    assert!(!first.duplicate);
    let again = log
        .append(vec![once.clone()])
        .await
        .remove(0)
        .expect("known");
    assert_eq!((again.sequence, again.duplicate), (first.sequence, true));
    // Among others, as a retry is.
    let mut group: Vec<_> = (0..8)
        .map(|number| message(&subject("task.submitted"), &format!("{number}")))
        .collect();
    group.insert(3, once);
    let outcomes = log.append(group).await;
    for (index, outcome) in outcomes.iter().enumerate() {
        let appended = outcome.as_ref().expect("stored");
        assert_eq!(appended.duplicate, index == 3, "{index}");
        assert_eq!(appended.sequence == first.sequence, index == 3, "{index}");
    }
    let stored = log
        .get(first.sequence)
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(stored.message_id.as_deref(), Some("id-1"));
}

async fn a_batch_is_stored_as_a_whole_or_not_at_all<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let claimed = "swarm.ctl.distributor.02.claimed";
    let epoch = append(log, under(message(claimed, "a"), claimed, 0))
        .await
        .expect("claimed");
    let batch = |epoch_of_fourth: u64| -> Vec<Message> {
        (0..7)
            .map(|number| {
                let fence = if number == 4 { epoch_of_fourth } else { epoch };
                under(
                    message(&subject("task.submitted"), &format!("{number}")),
                    claimed,
                    fence,
                )
            })
            .collect()
    };
    let refusal = log
        .append_atomic(batch(epoch + 100))
        .await
        .expect_err("the middle is fenced");
    assert!(
        matches!(refusal, AppendError::Fenced { expected, .. } if expected == epoch + 100),
        "{refusal:?}"
    );
    assert_eq!(log.info().await.expect("readable").last_sequence, epoch);
    let appended = log.append_atomic(batch(epoch)).await.expect("stored");
    assert_eq!(appended.sequence, epoch + 7);
    let stored = messages_until(log, vec!["swarm.>".into()], epoch + 1, appended.sequence).await;
    assert_eq!(
        stored
            .iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        (epoch + 1..=epoch + 7).collect::<Vec<_>>()
    );
}

async fn batches_and_singles_keep_call_order<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let one = |body: &str| message(&subject("task.submitted"), body);
    let before = log.append(
        (0..5)
            .map(|number| one(&format!("before {number}")))
            .collect(),
    );
    let batch = log.append_atomic(
        (0..20)
            .map(|number| one(&format!("batch {number}")))
            .collect(),
    );
    let after = log.append(
        (0..5)
            .map(|number| one(&format!("after {number}")))
            .collect(),
    );
    let before: Vec<_> = before
        .await
        .into_iter()
        .map(|outcome| outcome.expect("stored").sequence)
        .collect();
    let batch = batch.await.expect("stored").sequence;
    let after: Vec<_> = after
        .await
        .into_iter()
        .map(|outcome| outcome.expect("stored").sequence)
        .collect();
    assert_eq!(batch, before[4] + 20);
    assert_eq!(after, (batch + 1..=batch + 5).collect::<Vec<_>>());
}

async fn batch_sizes_are_checked<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let batch = |count| {
        (0..count)
            .map(|number| message(&subject("task.submitted"), &format!("{number}")))
            .collect::<Vec<_>>()
    };
    assert!(matches!(
        log.append_atomic(batch(0)).await,
        Err(AppendError::Refused { .. })
    ));
    assert!(matches!(
        log.append_atomic(batch(BATCH_MESSAGES_MAX + 1)).await,
        Err(AppendError::Refused { .. })
    ));
    let before = log.info().await.expect("readable").last_sequence;
    let one = log.append_atomic(batch(1)).await.expect("stored");
    assert!(one.sequence > before);
    let most = log
        .append_atomic(batch(BATCH_MESSAGES_MAX))
        .await
        .expect("stored");
    assert_eq!(most.sequence, one.sequence + BATCH_MESSAGES_MAX as u64);
    assert!(log.append(vec![]).await.is_empty());
}

async fn bodies_over_the_limit_are_refused<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut largest = message(&subject("task.submitted"), "");
    largest.payload = vec![b'x'; PAYLOAD_BYTES_MAX].into();
    let sequence = append(log, largest.clone()).await.expect("just fits");
    assert_eq!(
        log.get(sequence)
            .await
            .expect("readable")
            .expect("there")
            .payload
            .len(),
        PAYLOAD_BYTES_MAX
    );
    largest.payload = vec![b'x'; PAYLOAD_BYTES_MAX + 1].into();
    let refusal = append(log, largest.clone()).await.expect_err("too large");
    assert!(
        matches!(
            refusal,
            AppendError::TooLarge {
                limit: PAYLOAD_BYTES_MAX,
                ..
            }
        ),
        "{refusal:?}"
    );
    let refusal = log
        .append_atomic(vec![message(&subject("task.submitted"), "a"), largest])
        .await
        .expect_err("too large");
    assert!(
        matches!(refusal, AppendError::TooLarge { .. }),
        "{refusal:?}"
    );
    assert_eq!(log.info().await.expect("readable").last_sequence, sequence);
}

async fn strange_subjects_are_refused<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    for strange in [
        "",
        "swarm",
        "swarm.evt",
        "swarm.evt.>",
        "swarm.evt.a.*",
        "swarm.evt..a",
        "swarm.evt.a b",
        "swarm.live.evt.a",
        "other",
    ] {
        let refusal = append(log, message(strange, "a")).await.expect_err(strange);
        assert!(
            matches!(refusal, AppendError::Refused { .. }),
            "{strange}: {refusal:?}"
        );
    }
    let wildcard = under(
        message(&subject("task.submitted"), "a"),
        "swarm.ctl.distributor.*.claimed",
        0,
    );
    assert!(matches!(
        append(log, wildcard).await,
        Err(AppendError::Refused { .. })
    ));
}

async fn a_tail_starts_anywhere_and_filters<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut sequences = Vec::new();
    for number in 0..30 {
        let verb = ["task.submitted", "task.completed.a", "agent.joined.a"][number % 3];
        sequences.push(
            append(log, message(&subject(verb), &format!("{number}")))
                .await
                .expect("stored"),
        );
    }
    let filters = vec![subject("task.submitted"), subject("agent.*.a")];
    let from = sequences[10];
    let mut tail = log.tail(filters, from);
    let mut met = Vec::new();
    while let Some(item) = tail.next().await {
        match item.expect("goes on") {
            Tailed::Message(message) => met.push(message),
            Tailed::CaughtUp => break,
            Tailed::Interrupted | Tailed::Resumed => {}
        }
    }
    let expected: Vec<_> = (10..30)
        .filter(|number| number % 3 != 1)
        .map(|number| sequences[number])
        .collect();
    assert_eq!(
        met.iter()
            .map(|message| message.sequence)
            .collect::<Vec<_>>(),
        expected
    );
    assert!(
        met.iter()
            .all(|message| message.time_micros > 1_600_000_000_000_000),
        "microseconds since 1970"
    );
    let subjects: BTreeSet<_> = met
        .iter()
        .map(|message| message.subject.to_string())
        .collect();
    assert_eq!(
        subjects,
        BTreeSet::from([subject("task.submitted"), subject("agent.joined.a")])
    );
}

async fn a_tail_of_nothing_is_caught_up<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut empty = log.tail(vec!["swarm.>".into()], 0);
    assert!(matches!(empty.next().await, Some(Ok(Tailed::CaughtUp))));
    let stored = append(log, message(&subject("task.submitted"), "a"))
        .await
        .expect("stored");
    let mut other = log.tail(vec!["swarm.cmd.>".into()], 0);
    assert!(matches!(other.next().await, Some(Ok(Tailed::CaughtUp))));
    let mut beyond = log.tail(
        vec!["swarm.evt.>".into()],
        log.info().await.expect("readable").last_sequence + 1,
    );
    assert!(matches!(beyond.next().await, Some(Ok(Tailed::CaughtUp))));
    assert_eq!(next_message(&mut empty).await.sequence, stored);
}

async fn a_tail_follows_for_ever<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let mut tail = log.tail(vec!["swarm.evt.>".into()], 0);
    assert!(matches!(tail.next().await, Some(Ok(Tailed::CaughtUp))));
    // More than several pull requests' worth.
    let mut outcomes = Vec::new();
    for call in 0..50 {
        outcomes.push(
            log.append(
                (0..70)
                    .map(|number| message(&subject("task.submitted"), &format!("{call} {number}")))
                    .collect(),
            ),
        );
    }
    let mut expected = Vec::new();
    for outcome in outcomes {
        expected.extend(
            outcome
                .await
                .into_iter()
                .map(|outcome| outcome.expect("stored").sequence),
        );
    }
    let mut met = Vec::new();
    while met.len() < expected.len() {
        met.push(next_message(&mut tail).await.sequence);
    }
    assert_eq!(met, expected);
}

/// The next message. A tail may be interrupted and go on at any time, on a busy machine above all: what a reader relies on
/// is that no message is skipped or repeated over it.
async fn next_message(
    tail: &mut (impl futures::Stream<Item = Result<Tailed, LogError>> + Unpin),
) -> StoredMessage {
    loop {
        match tail.next().await.expect("never ends").expect("goes on") {
            Tailed::Message(message) => return message,
            Tailed::CaughtUp | Tailed::Interrupted | Tailed::Resumed => {}
        }
    }
}

async fn single_messages_are_found<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let claimed = "swarm.ctl.distributor.03.claimed";
    assert_eq!(log.last_of(claimed).await.expect("readable"), None);
    let first = append(log, message(claimed, "first"))
        .await
        .expect("stored");
    let second = append(log, message(claimed, "second"))
        .await
        .expect("stored");
    let last = log
        .last_of(claimed)
        .await
        .expect("readable")
        .expect("there");
    assert_eq!(
        (last.sequence, &last.payload[..], &*last.subject),
        (second, &b"second"[..], claimed)
    );
    let got = log.get(first).await.expect("readable").expect("there");
    assert_eq!((got.sequence, &got.payload[..]), (first, &b"first"[..]));
    assert!(got.time_micros > 1_600_000_000_000_000);
    assert_eq!(log.get(second + 1).await.expect("readable"), None);
}

async fn info_tells_the_range<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    let created = log.info().await.expect("readable").created_micros;
    assert!(created > 1_600_000_000_000_000);
    let sequence = append(log, message(&subject("task.submitted"), "a"))
        .await
        .expect("stored");
    let info = log.info().await.expect("readable");
    assert_eq!(
        (info.first_sequence, info.last_sequence, info.created_micros),
        (sequence, sequence, created)
    );
    assert!(info.bytes > 0);
}

async fn objects_are_kept<L: Log>(fixture: Fixture<L>) {
    let log = &fixture.log;
    assert_eq!(log.get_object("snapshots/a").await.expect("readable"), None);
    assert!(log.list_objects("").await.expect("readable").is_empty());
    log.delete_object("snapshots/a")
        .await
        .expect("nothing to delete");
    let large = bytes::Bytes::from(vec![7; 700_000]);
    log.put_object("snapshots/distributor-07/12", large.clone())
        .await
        .expect("put");
    log.put_object("snapshots/distributor-07/9", "old".into())
        .await
        .expect("put");
    log.put_object("inputs/x", "".into()).await.expect("put");
    assert_eq!(
        log.get_object("snapshots/distributor-07/12")
            .await
            .expect("readable"),
        Some(large)
    );
    assert_eq!(
        log.get_object("inputs/x").await.expect("readable"),
        Some("".into())
    );
    let names = log
        .list_objects("snapshots/distributor-07/")
        .await
        .expect("readable");
    assert_eq!(
        names,
        ["snapshots/distributor-07/12", "snapshots/distributor-07/9"]
    );
    log.put_object("snapshots/distributor-07/9", "new".into())
        .await
        .expect("replaced");
    assert_eq!(
        log.get_object("snapshots/distributor-07/9")
            .await
            .expect("readable"),
        Some("new".into())
    );
    log.delete_object("snapshots/distributor-07/9")
        .await
        .expect("deleted");
    assert_eq!(
        log.get_object("snapshots/distributor-07/9")
            .await
            .expect("readable"),
        None
    );
    assert_eq!(
        log.list_objects("snapshots/").await.expect("readable"),
        ["snapshots/distributor-07/12"]
    );
}

async fn append<L: Log>(log: &L, message: Message) -> Result<u64, AppendError> {
    let mut outcomes = log.append(vec![message]).await;
    assert_eq!(outcomes.len(), 1);
    outcomes.remove(0).map(|appended| appended.sequence)
}
