//! What waits for an agent: in order, once, and nobody keeps the others waiting.

use std::{sync::Arc, time::Duration};

use serde_json::{Value, json};
use swarm_agent_sdk::{Role, Stage};
use swarm_events::{
    configuration::{MessagePolicy, TopologyKind},
    ids::AgentId,
    message::Purpose,
    subject::{Recipient, Sender},
    topology::Topology,
};
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::{
    scene::{Seats, Talks, ear, forge, receipt_of, said, soon, stored},
    support::Swarm,
};

#[tokio::test]
async fn nothing_that_has_expired_is_handled() {
    let mut swarm = Swarm::new().await;
    Seats::star(&swarm).await;
    let hub = swarm.agent;
    let (say, mut heard) = mpsc::unbounded_channel();
    let (hub_runs, _) = swarm.talks(ear(&say, swarm.builder())).await;
    soon("a first message", async {
        forge(
            &swarm,
            Sender::People,
            Recipient::Agent(hub),
            said(json!("first")),
        )
        .await;
        heard.recv().await
    })
    .await;
    hub_runs.stop().await.expect("stops");
    // Given what is said while it is away, one of it for no time at all
    let mut expired = said(json!("old"));
    expired.expires_ms = Some(0);
    expired.receipt = Some(Stage::Handled);
    let id = forge(&swarm, Sender::People, Recipient::Agent(hub), expired).await;
    forge(
        &swarm,
        Sender::People,
        Recipient::Agent(hub),
        said(json!("new")),
    )
    .await;
    // When it is back
    let running = swarm.run(ear(&say, swarm.builder()));
    swarm.let_join(2).await;
    // Then that is refused, and the other one is handled
    assert_eq!(
        heard.recv().await.expect("heard").body.to_value(),
        json!("new")
    );
    let Purpose::Receipt { stage, detail, .. } = soon("refused", receipt_of(&swarm, id)).await
    else {
        panic!("no receipt")
    };
    assert_eq!(stage, Stage::Refused);
    assert!(
        detail
            .expect("words")
            .contains("it had expired: its 0 ms were over")
    );
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn what_was_said_while_an_agent_was_away_is_handled_once_and_in_order() {
    let mut swarm = Swarm::new().await;
    Seats::star(&swarm).await;
    let agent = swarm.agent;
    let (say, mut heard) = mpsc::unbounded_channel();
    let (running, _) = swarm.talks(ear(&say, swarm.builder())).await;
    let tell = async |swarm: &Swarm, number: u64| {
        let to = Recipient::Agent(agent);
        forge(swarm, Sender::People, to, said(json!(number))).await;
    };
    for number in 0..3 {
        tell(&swarm, number).await;
        let came = soon("a message", heard.recv()).await.expect("heard");
        assert_eq!(came.body.to_value(), json!(number));
    }
    running.stop().await.expect("stops");
    for number in 3..2_200 {
        tell(&swarm, number).await;
    }
    // When it comes back with a small inbox, what was handled before does not come again.
    let running = swarm.run(ear(&say, swarm.builder()));
    swarm.let_join(2).await;
    for number in 3..2_200 {
        let came = soon("a message", heard.recv()).await.expect("heard");
        assert_eq!(came.body.to_value(), json!(number));
    }
    tell(&swarm, 2_200).await;
    let came = soon("a message", heard.recv()).await.expect("heard");
    assert_eq!(came.body.to_value(), json!(2_200));
    assert!(heard.try_recv().is_err());
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_chatty_agent_does_not_starve_another() {
    let mut swarm = Swarm::new().await;
    let policy = MessagePolicy {
        per_second_max: 100_000,
        inbox_max: 10,
    };
    let mut seats = Seats::of(&swarm, Topology::of(TopologyKind::Star), policy).await;
    let hub = swarm.agent;
    let (chatty, quiet) = (AgentId(Uuid::now_v7()), AgentId(Uuid::now_v7()));
    seats.seat(&swarm, hub, Role::Coordinator).await;
    seats.seat(&swarm, chatty, Role::Worker).await;
    seats.seat(&swarm, quiet, Role::Worker).await;
    // Given a hub that handles one message whenever it is let
    let (go, order) = (
        Arc::new(tokio::sync::Semaphore::new(0)),
        mpsc::unbounded_channel(),
    );
    let (say, mut heard) = order;
    let gate = go.clone();
    let builder = swarm.builder().on_message(move |message| {
        let (say, gate) = (say.clone(), gate.clone());
        async move {
            gate.acquire().await?.forget();
            say.send(message)?;
            Ok(())
        }
    });
    let (running, _) = swarm.talks(builder).await;
    // When one agent has sent 500 messages, fifty times what the inbox holds, and another sends one
    for number in 0..500 {
        let to = Recipient::Agent(hub);
        forge(&swarm, Sender::Agent(chatty), to, said(json!(number))).await;
    }
    let to = Recipient::Agent(hub);
    forge(&swarm, Sender::Agent(quiet), to, said(json!("quiet"))).await;
    // Then it is among the first that are handled, without any of the others being lost or out of order
    go.add_permits(501);
    let (mut numbers, mut at) = (Vec::new(), None);
    for count in 0..501 {
        let came = soon("a message", heard.recv()).await.expect("heard");
        match came.body.to_value() {
            Value::String(_) => at = Some(count),
            number => numbers.push(number.as_u64().expect("a number")),
        }
    }
    let at = at.expect("it was handled");
    assert!(at <= 50, "the quiet one was number {at}");
    assert_eq!(numbers, (0..500).collect::<Vec<_>>());
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn who_sends_more_than_the_swarm_allows_waits() {
    let mut swarm = Swarm::new().await;
    let policy = MessagePolicy {
        per_second_max: 20,
        inbox_max: 100,
    };
    let mut seats = Seats::of(&swarm, Topology::of(TopologyKind::Star), policy).await;
    let hub = AgentId(Uuid::now_v7());
    seats.seat(&swarm, hub, Role::Coordinator).await;
    seats.seat(&swarm, swarm.agent, Role::Worker).await;
    let (running, handle) = swarm.talks(swarm.builder()).await;
    let messages = handle.messages().await.expect("runs");
    // The settings are read beside everything else: the limit holds once they have been.
    let began = std::time::Instant::now();
    for number in 0..61 {
        messages.tell(hub, number).await.expect("sent");
    }
    // 61 messages at 20 in a second, none of them dropped: three seconds at the least, from the first that was counted on.
    assert!(
        began.elapsed() >= Duration::from_millis(2_900),
        "{:?}",
        began.elapsed()
    );
    assert_eq!(stored(&swarm).await, 61);
    running.stop().await.expect("stops");
}
