//! A real cluster of three that loses servers: what was acknowledged stays, nothing fenced takes effect twice, a tail has no
//! gap.

mod support;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use futures::StreamExt;
use support::{Fixture, Server, connection, jetstream_cluster, message, subject, under};
use swarm_log::{
    AppendError, Log, Message, StoredMessage, Tailed,
    definitions::{EVENTS_STREAM, Provision},
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::testing::{TestNatsCluster, nats_cluster};

const CLAIMED: &str = "swarm.ctl.distributor.07.claimed";
/// Decisions in one call.
const GROUP: usize = 5;
/// A cluster's election takes 4 to 9 s, and its end is noticed a few later.
const OUTAGE_MAX: Duration = Duration::from_secs(30);

/// An owner as the deciding services have it: every decision under the fence of its claim, and doubt settled by claiming
/// again and reading up to that claim.
struct Owner {
    log: JetStreamLog,
    epoch: u64,
    next: u64,
    /// Sequence by body, as acknowledged or as read after doubt.
    stored: BTreeMap<String, u64>,
    claims: u64,
}

impl Owner {
    async fn start(log: JetStreamLog) -> Self {
        let mut owner = Self {
            log,
            epoch: 0,
            next: 0,
            stored: BTreeMap::new(),
            claims: 0,
        };
        owner.claim().await;
        owner
    }

    /// Claims until it meets its own claim. The outcome is learnt from the log, not from the acknowledgement.
    async fn claim(&mut self) {
        let began = Instant::now();
        loop {
            assert!(began.elapsed() < OUTAGE_MAX, "no claim got through");
            let Ok(last) = self.log.last_of(CLAIMED).await else {
                continue;
            };
            self.epoch = last.map_or(0, |claim| claim.sequence);
            self.claims += 1;
            let claim = message(CLAIMED, &format!("claim {}", self.claims));
            let outcome = self
                .log
                .append(vec![under(claim, CLAIMED, self.epoch)])
                .await;
            if let [Ok(appended)] = outcome[..] {
                self.epoch = appended.sequence;
                return;
            }
        }
    }

    /// Stores the next decisions, whatever it takes.
    async fn decide(&mut self) {
        let mut open: Vec<String> = (0..GROUP)
            .map(|_| {
                self.next += 1;
                format!("decision {}", self.next)
            })
            .collect();
        while !open.is_empty() {
            let messages = open.iter().map(|body| decision(body, self.epoch)).collect();
            let outcomes = self.log.append(messages).await;
            let mut doubt = false;
            let mut left = Vec::new();
            for (body, outcome) in open.into_iter().zip(outcomes) {
                match outcome {
                    Ok(appended) => {
                        self.stored.insert(body, appended.sequence);
                    }
                    Err(
                        AppendError::Unknown { .. }
                        | AppendError::Fenced { .. }
                        | AppendError::FenceBusy { .. },
                    ) => {
                        doubt = true;
                        left.push(body);
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            open = left;
            if doubt {
                self.claim().await;
                // Nothing of the older epoch can be stored from here on: what is read now is the whole truth.
                let met = bodies(&self.log, self.epoch).await;
                open.retain(|body| match met.get(body) {
                    Some(sequences) => {
                        self.stored.insert(body.clone(), sequences[0]);
                        false
                    }
                    None => true,
                });
            }
        }
    }

    async fn decide_until(&mut self, mut done: impl FnMut(&Self) -> bool) {
        let began = Instant::now();
        while !done(self) {
            assert!(began.elapsed() < OUTAGE_MAX, "appends do not come back");
            self.decide().await;
        }
    }
}

fn decision(body: &str, epoch: u64) -> Message {
    under(
        message(&subject("task.assigned.a"), &format!("{body} @ {epoch}")),
        CLAIMED,
        epoch,
    )
}

/// The decisions up to `last` that hold, read by a tail and judged as every fold does it: under the last claim met, and with
/// a number above the last one met. A repeat under the same claim is void: a leader that comes back from a hang may answer
/// 10164 to what its successor stores, and the writer sends it again.
async fn bodies(log: &JetStreamLog, last: u64) -> BTreeMap<String, Vec<u64>> {
    let mut found: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    let (mut epoch, mut number) = (0, 0);
    for message in support::messages_until(log, vec!["swarm.>".into()], 0, last).await {
        if &*message.subject == CLAIMED {
            (epoch, number) = (message.sequence, 0);
            continue;
        }
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let (body, under) = text.split_once(" @ ").expect("as written");
        assert_eq!(
            under,
            epoch.to_string(),
            "stored under an older claim: {text}"
        );
        let its: u64 = body
            .strip_prefix("decision ")
            .and_then(|number| number.parse().ok())
            .unwrap_or_else(|| panic!("the rival's is stored: {text}"));
        let sequences = found.entry(body.to_owned()).or_default();
        assert!(
            sequences.is_empty() || its <= number,
            "{text} holds twice, at {sequences:?} and {}",
            message.sequence
        );
        sequences.push(message.sequence);
        number = number.max(its);
    }
    found
}

async fn leader(log: &JetStreamLog) -> String {
    loop {
        if let Ok(stream) = log.context().get_stream(EVENTS_STREAM).await
            && let Some(cluster) = &stream.cached_info().cluster
            && let Some(leader) = &cluster.leader
        {
            return leader.clone();
        }
    }
}

fn number_of(cluster: &TestNatsCluster, name: &str) -> usize {
    cluster
        .nodes
        .iter()
        .position(|node| node.server.settings().name == name)
        .expect("one of ours")
}

async fn open_at(url: &str) -> JetStreamLog {
    let connection = connection(url).await;
    JetStreamLog::open(&connection, LogSettings::new(Durability::Always, 3))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Follows everything, and answers with what it met once it has met `last`.
fn follow(
    log: &JetStreamLog,
    mut last: tokio::sync::watch::Receiver<Option<u64>>,
) -> tokio::task::JoinHandle<Vec<StoredMessage>> {
    let mut tail = log.tail(vec!["swarm.>".into()], 0);
    tokio::spawn(async move {
        let mut met: Vec<StoredMessage> = Vec::new();
        loop {
            let end = *last.borrow_and_update();
            if end.is_some_and(|end| met.last().is_some_and(|m| m.sequence >= end)) {
                return met;
            }
            tokio::select! {
                item = tail.next() => {
                    if let Tailed::Message(message) = item.expect("never ends").expect("mends itself") {
                        met.push(message);
                    }
                }
                changed = last.changed() => changed.expect("the test goes on"),
            }
        }
    })
}

/// What is done to the cluster.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outage {
    /// Killed and restarted.
    Killed,
    /// Hangs with its connections open, then goes on as if nothing had been.
    Paused,
}

/// Given an owner that writes, a rival with an older claim that keeps trying, and a reader; when the stream's leader goes and
/// comes back, then nothing is lost, doubled or skipped.
async fn the_leader_goes(outage: Outage, beside_the_leader: bool) {
    let mut fixture: Fixture<JetStreamLog> = jetstream_cluster().await;
    let Server::Cluster(cluster) = &mut fixture.server else {
        panic!("a cluster")
    };
    let gone = leader(&fixture.log).await;
    let gone = number_of(cluster, &gone);
    // Connected to the server that goes, or to another one.
    let first = if beside_the_leader {
        (gone + 1) % 3
    } else {
        gone
    };
    let log = open_at(&cluster.nodes[first].url).await;
    let rival = open_at(&cluster.nodes[(gone + 2) % 3].url).await;

    let stale = Owner::start(rival.clone()).await.epoch;
    let mut owner = Owner::start(log.clone()).await;
    assert!(owner.epoch > stale);
    let (end, last) = tokio::sync::watch::channel(None);
    let (near, far) = (follow(&log, last.clone()), follow(&rival, last.clone()));
    let stopped = last.clone();
    let refused = tokio::spawn(async move {
        let mut refused = 0_u64;
        // While the cluster mends itself no answer may come: it is asked until it has answered.
        while stopped.borrow().is_none() || refused == 0 {
            let outcome = rival
                .append(vec![decision("decision of the rival", stale)])
                .await;
            match &outcome[..] {
                [Err(AppendError::Fenced { .. })] => refused += 1,
                [Err(AppendError::Unknown { .. } | AppendError::FenceBusy { .. })] => {}
                other => panic!("{other:?}"),
            }
        }
    });

    owner.decide_until(|owner| owner.stored.len() >= 50).await;
    match outage {
        Outage::Killed => cluster.nodes[gone].kill(),
        Outage::Paused => cluster.nodes[gone].server.pause(),
    }
    // Two servers are enough to go on.
    let before = owner.stored.len();
    owner
        .decide_until(|owner| owner.stored.len() >= before + 50)
        .await;
    match outage {
        Outage::Killed => cluster.nodes[gone].restart().await,
        Outage::Paused => cluster.nodes[gone].server.resume(),
    }
    let before = owner.stored.len();
    owner
        .decide_until(|owner| owner.stored.len() >= before + 50)
        .await;
    owner.claim().await; // an end that is met: nothing comes after it
    end.send(Some(owner.epoch)).expect("followed");

    refused
        .await
        .expect("it is refused, and nothing of it is stored");
    let expected = bodies(&owner.log, owner.epoch).await;
    assert!(
        expected.keys().eq(owner.stored.keys()),
        "what is stored is what was acknowledged or read"
    );
    for (body, sequence) in &owner.stored {
        assert!(
            expected[body].contains(sequence),
            "{body} is not at {sequence}"
        );
    }
    assert_eq!(
        owner.stored.len(),
        usize::try_from(owner.next).expect("small")
    );
    for met in [near, far] {
        let met = met.await.expect("no panic");
        let last = met.last().expect("some").sequence;
        let sequences = met.iter().map(|message| message.sequence);
        assert!(sequences.eq(1..=last), "a gap or a repeat");
    }
}

#[tokio::test]
async fn a_killed_leader_takes_nothing_with_it() {
    the_leader_goes(Outage::Killed, false).await;
}

#[tokio::test]
async fn a_hanging_leader_takes_nothing_with_it() {
    the_leader_goes(Outage::Paused, true).await;
}

#[tokio::test]
async fn clients_of_a_hanging_server_move_to_another() {
    the_leader_goes(Outage::Paused, false).await;
}

/// Limit for a server's absence to be noticed, and for its return, on a busy machine.
const GATHERED: Duration = Duration::from_secs(60);

#[tokio::test]
async fn provisioning_waits_for_a_server_that_comes_late() {
    let mut cluster = nats_cluster().await;
    let at_first = connection(&cluster.nodes[0].url).await;
    let context = async_nats::jetstream::new(at_first.client().clone());
    // Given a cluster that knows of a server which is not there.
    cluster.nodes[2].kill();
    let noticed = async {
        for number in 0.. {
            let scratch = async_nats::jetstream::stream::Config {
                name: format!("scratch_{number}"),
                num_replicas: 3,
                ..Default::default()
            };
            if context.create_stream(scratch).await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(GATHERED, noticed)
        .await
        .expect("noticed");
    // When an installation is made, and the server comes.
    let wanted = Provision {
        replicas: 3,
        max_bytes: 64 * 1024 * 1024,
        ..Provision::default()
    };
    let provisioning = {
        let context = context.clone();
        tokio::spawn(async move { provision(&context, &wanted).await })
    };
    cluster.nodes[2].restart().await;
    // Then it is made.
    let made = tokio::time::timeout(GATHERED, provisioning)
        .await
        .expect("in time");
    made.expect("joined").expect("provisioned");
    context.get_stream(EVENTS_STREAM).await.expect("there");
}
