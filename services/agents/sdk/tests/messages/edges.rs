//! Who may talk to whom, and how messages reach those who are meant.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use serde_json::{Value, json};
use swarm_agent_sdk::{
    AgentBuilder, ReceivedMessage, Role, SendError, Speaker, Stage, TaskError, To,
};
use swarm_events::{
    configuration::MessagePolicy,
    ids::AgentId,
    message::{MESSAGE_BYTES_MAX, Purpose, TOPIC_BYTES_MAX},
    subject::{Recipient, Sender},
    topology::{Mesh, Routing, Topology},
};
use tokio::sync::{Notify, mpsc};
use uuid::Uuid;

use crate::{
    scene::{PATIENCE, Seats, Talks, ear, forge, other, receipt_of, said, soon, stored},
    support::Swarm,
};

#[tokio::test]
async fn a_message_goes_along_its_edge_and_receipts_say_what_became_of_it() {
    let mut swarm = Swarm::with_permissions().await;
    let mut seats = Seats::star(&swarm).await;
    // Given a hub that handles what it is told, unless it is told to fail
    let (say, mut heard) = mpsc::unbounded_channel();
    let (go, wait) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let (held, gate) = (wait.clone(), go.clone());
    let hub = swarm.agent;
    let builder = swarm.builder().name("hub").on_message(move |message| {
        let (say, gate, held) = (say.clone(), gate.clone(), held.clone());
        async move {
            say.send(message.body.to_value())?;
            if held.load(Ordering::Relaxed) {
                gate.notified().await;
            }
            match message.body.to_value() == json!("fail") {
                true => Err(TaskError::permanent("as it was told")),
                false => Ok(()),
            }
        }
    });
    let (hub_runs, _) = swarm.talks(builder).await;
    // And a worker on the same server, with the rights of nobody in particular
    swarm.creds = swarm.all.clone();
    let (builder, worker) = other(&swarm, "worker");
    let (worker_runs, handle) = swarm.talks(builder).await;
    seats.seat(&swarm, hub, Role::Coordinator).await;
    seats.seat(&swarm, worker, Role::Worker).await;
    let messages = handle.messages().await.expect("runs");

    // When the handler has not come to its end, `delivered` is told, and `handled` is not
    wait.store(true, Ordering::Relaxed);
    let delivered = messages.message(hub).receipt(Stage::Delivered);
    let mut delivered = delivered.send("first").await.expect("sent");
    let receipt = soon("delivered", delivered.receipt(PATIENCE)).await;
    let receipt = receipt.expect("told");
    assert_eq!(
        (receipt.stage, receipt.from),
        (Stage::Delivered, Speaker::Agent(hub))
    );
    let handled = messages.message("hub").receipt(Stage::Handled);
    let mut handled = handled.send("second").await.expect("sent");
    wait.store(false, Ordering::Relaxed);
    go.notify_one();
    let receipt = handled.receipt(PATIENCE).await.expect("told");
    assert_eq!((receipt.stage, receipt.detail), (Stage::Handled, None));
    // When it fails, that is told with its words
    let failed = messages.message(hub).receipt(Stage::Handled);
    let mut failed = failed.send("fail").await.expect("sent");
    let receipt = failed.receipt(PATIENCE).await.expect("told");
    assert_eq!(
        (receipt.stage, receipt.detail.as_deref()),
        (Stage::Failed, Some("as it was told"))
    );
    for wanted in ["first", "second", "fail"] {
        assert_eq!(heard.recv().await, Some(json!(wanted)));
    }
    worker_runs.stop().await.expect("stops");
    hub_runs.stop().await.expect("stops");
}

#[tokio::test]
async fn off_the_edges_both_sides_refuse_and_name_the_edge() {
    let mut swarm = Swarm::new().await;
    let mut seats = Seats::star(&swarm).await;
    let (say, mut heard) = mpsc::unbounded_channel();
    let hub = AgentId(Uuid::now_v7());
    let (one, two) = (swarm.agent, AgentId(Uuid::now_v7()));
    let (one_runs, handle) = swarm.talks(swarm.builder().name("one")).await;
    let builder = ear(&say, swarm.builder().id(two).name("two"));
    let (two_runs, _) = swarm.talks(builder).await;
    seats.seat(&swarm, hub, Role::Coordinator).await;
    seats.seat(&swarm, one, Role::Worker).await;
    seats.seat(&swarm, two, Role::Worker).await;
    let messages = handle.messages().await.expect("runs");

    // The sender refuses, and nothing is stored.
    let error = messages.tell(two, "psst").await.expect_err("no edge");
    let SendError::NoEdge(missing) = &error else {
        panic!("{error}")
    };
    assert_eq!((missing.from, missing.to), (one, two));
    for part in [
        &one.to_string(),
        &two.to_string(),
        "in a star workers talk to a hub",
    ] {
        assert!(error.to_string().contains(part), "{part}: {error}");
    }
    for (to, words) in [
        (
            To::from("nobody"),
            "nobody is unknown: no agent of this name",
        ),
        (To::from(AgentId(Uuid::now_v7())), "has no seat for it"),
        (To::Leader, "leader is unknown: nobody leads"),
        (
            To::from(Role::Supervisor),
            "supervisor is unknown: this agent has an edge to nobody",
        ),
    ] {
        let error = messages.tell(to, 1).await.expect_err("unknown");
        assert!(
            matches!(error, SendError::UnknownRecipient { .. }),
            "{error}"
        );
        assert!(error.to_string().contains(words), "{error}");
    }
    let error = messages.tell(one, 1).await.expect_err("itself");
    assert!(
        error.to_string().contains("nobody sends to itself"),
        "{error}"
    );
    // Limits, by field.
    let error = messages
        .tell(hub, "x".repeat(MESSAGE_BYTES_MAX - 1))
        .await
        .expect_err("too large");
    assert!(
        error
            .to_string()
            .contains("body: the message has 65537 bytes"),
        "{error}"
    );
    let topic = "t".repeat(TOPIC_BYTES_MAX + 1);
    let error = messages.publish(topic, 1).await.expect_err("too long");
    assert!(
        error.to_string().contains("topic: its name has 201 bytes"),
        "{error}"
    );
    assert_eq!(stored(&swarm).await, 0);
    messages
        .tell(hub, "x".repeat(MESSAGE_BYTES_MAX - 2))
        .await
        .expect("at the limit");

    // Past the sender's checks: the receiver refuses, and says so.
    let mut sent = said(json!("forged"));
    sent.receipt = Some(Stage::Handled);
    let id = forge(&swarm, Sender::Agent(one), Recipient::Agent(two), sent).await;
    let receipt = soon("a refusal", receipt_of(&swarm, id)).await;
    let Purpose::Receipt { stage, detail, .. } = receipt else {
        panic!("{receipt:?}")
    };
    assert_eq!(stage, Stage::Refused);
    let detail = detail.expect("in words");
    assert!(
        detail.contains(&format!("no edge from {one} to {two}")),
        "{detail}"
    );
    // What comes after it is handled: it was the only one left out.
    forge(
        &swarm,
        Sender::People,
        Recipient::Agent(two),
        said(json!("hello")),
    )
    .await;
    assert_eq!(
        heard.recv().await.expect("heard").body.to_value(),
        json!("hello")
    );
    one_runs.stop().await.expect("stops");
    two_runs.stop().await.expect("stops");
}

#[tokio::test]
async fn all_roles_the_leader_and_topics_reach_those_who_are_meant() {
    let mut swarm = Swarm::new().await;
    let mesh = |routing| {
        Topology::Mesh(Mesh {
            routing,
            ..Mesh::default()
        })
    };
    let mut seats = Seats::of(&swarm, mesh(Routing::Broadcast), MessagePolicy::default()).await;
    let (say, mut heard) = mpsc::unbounded_channel::<(&str, String, Value)>();
    let listener = |name: &'static str, builder: AgentBuilder| {
        let (others, topics) = (say.clone(), say.clone());
        builder
            .on_message(move |message: ReceivedMessage| {
                let say = others.clone();
                async move {
                    say.send((name, message.to.to_string(), message.body.to_value()))?;
                    Ok(())
                }
            })
            .on_topic("news", move |message: ReceivedMessage| {
                let say = topics.clone();
                async move {
                    say.send((name, "news".to_owned(), message.body.to_value()))?;
                    Ok(())
                }
            })
    };
    let (one, (builder, two)) = (swarm.agent, other(&swarm, "two"));
    let (one_runs, handle) = swarm.talks(listener("one", swarm.builder())).await;
    let (two_runs, second) = swarm.talks(listener("two", builder)).await;
    let (builder, three) = other(&swarm, "three");
    let (three_runs, third) = swarm.talks(builder).await;
    for agent in [one, two, three] {
        seats.seat(&swarm, agent, Role::Worker).await;
    }
    seats.lead(&swarm, two).await;
    let messages = handle.messages().await.expect("runs");
    let third = third.messages().await.expect("runs");
    // `three` has subscribed while it runs; what it has no handler for is not for it.
    let mut news = third.subscribe("news").await.expect("subscribed");
    messages.broadcast("to all").await.expect("sent");
    messages.tell(Role::Worker, "to role").await.expect("sent");
    messages.tell(To::Leader, "to leader").await.expect("sent");
    messages.publish("news", "to topic").await.expect("sent");
    messages.publish("other", "to nobody").await.expect("sent");
    messages
        .message(two)
        .topic("news")
        .send("about it")
        .await
        .expect("sent");
    let mut came = Vec::new();
    for _ in 0..5 {
        came.push(soon("a message", heard.recv()).await.expect("heard"));
    }
    let text = |words: &[(&'static str, &str, &str)]| {
        let of = words.iter();
        of.map(|(who, to, body)| (*who, (*to).to_owned(), json!(body)))
            .collect::<Vec<_>>()
    };
    let expected = text(&[
        ("two", "all", "to all"),
        ("two", "worker", "to role"),
        ("two", "leader", "to leader"),
        ("two", "news", "to topic"),
        ("two", "news", "about it"),
    ]);
    assert_eq!(came, expected);
    let followed = soon("news", news.next()).await.expect("runs");
    assert_eq!(
        (followed.body.to_value(), followed.from),
        (json!("to topic"), Speaker::Agent(one))
    );
    // Nobody hears itself, and the leader is told no more by itself.
    let second = second.messages().await.expect("runs");
    let error = second.tell(To::Leader, 1).await.expect_err("itself");
    assert!(
        error.to_string().contains("nobody sends to itself"),
        "{error}"
    );
    assert!(heard.try_recv().is_err());
    for running in [one_runs, two_runs, three_runs] {
        running.stop().await.expect("stops");
    }
}

#[tokio::test]
async fn targeted_routing_refuses_all_and_nothing_else() {
    let mut swarm = Swarm::new().await;
    let mesh = Topology::Mesh(Mesh {
        routing: Routing::Targeted,
        ..Mesh::default()
    });
    let mut seats = Seats::of(&swarm, mesh, MessagePolicy::default()).await;
    let peer = AgentId(Uuid::now_v7());
    seats.seat(&swarm, swarm.agent, Role::Worker).await;
    seats.seat(&swarm, peer, Role::Worker).await;
    let (running, handle) = swarm.talks(swarm.builder()).await;
    let messages = handle.messages().await.expect("runs");
    let error = messages.broadcast(1).await.expect_err("refused");
    let SendError::Refused(problem) = &error else {
        panic!("{error}")
    };
    assert_eq!(
        (problem.code.as_str(), problem.field.as_deref()),
        ("targeted-only", Some("to"))
    );
    messages.tell(peer, 1).await.expect("sent");
    messages.tell(Role::Worker, 1).await.expect("sent");
    messages.tell(To::People, 1).await.expect("sent");
    // When the neighbour has no seat any more, there is nobody to talk to but people.
    seats.write(&swarm, peer, None).await;
    let gone = soon("the seat's end", async {
        loop {
            if let Err(error) = messages.tell(peer, 2).await {
                return error;
            }
        }
    });
    let gone = gone.await;
    assert!(matches!(gone, SendError::UnknownRecipient { .. }), "{gone}");
    messages.tell(To::People, 3).await.expect("sent");
    running.stop().await.expect("stops");
}
