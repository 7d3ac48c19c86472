//! Messages, blackboard, questions and splits of agents against a real nats-server.

mod support;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::StreamExt;
use serde_json::{Value, json};
use swarm_agent_sdk::{
    AgentBuilder, AgentHandle, AnsweredBy, BoardChange, BoardError, Part, ReceivedMessage,
    RequestError, Role, SendError, Speaker, Stage, Step, TaskContext, TaskError, To,
};
use swarm_events::{
    Body, Event, Json, Timestamp,
    configuration::{Configuration, MessagePolicy, TopologyKind},
    envelope::Source,
    ids::{AgentId, EventId},
    message::{Answered, MESSAGE_BYTES_MAX, Purpose, Sent, TOPIC_BYTES_MAX, Unanswered},
    subject::{AgentVerb, Recipient, Sender, Service, Subject, SwarmVerb},
    swarm::Created,
    topology::{LeaderElected, Mesh, Routing, Seat, Seated, Topology},
};
use swarm_log::definitions::{BLACKBOARD_BYTES_MAX, MESSAGES_STREAM};
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};
use uuid::Uuid;

use support::{Running, Swarm};

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

async fn soon<T>(what: &str, wanted: impl Future<Output = T>) -> T {
    let waited = timeout(PATIENCE, wanted).await;
    waited.unwrap_or_else(|_| panic!("{what} did not come"))
}

/// What the coordinator writes of a topology, by hand.
struct Seats(u64);
impl Seats {
    async fn of(swarm: &Swarm, topology: Topology, messages: MessagePolicy) -> Self {
        let created = Created {
            name: "talk".to_owned(),
            description: None,
            topology,
            configuration: Configuration {
                messages,
                ..Configuration::default()
            },
            partition: swarm.place.partition.number(),
            created_by: None,
        };
        let subject = Subject::Swarm(swarm.place, SwarmVerb::Created);
        let about = swarm.place.swarm.0;
        let created = swarm.decision(Service::Coordinator, subject, about, None, created);
        swarm.append(created).await;
        Self(0)
    }
    async fn star(swarm: &Swarm) -> Self {
        let star = Topology::of(TopologyKind::Star);
        Self::of(swarm, star, MessagePolicy::default()).await
    }
    async fn seat(&mut self, swarm: &Swarm, agent: AgentId, role: Role) {
        self.0 += 1;
        let seat = Seat {
            role,
            level: u32::from(role == Role::Worker),
            place: self.0,
            works: true,
            ..Seat::default()
        };
        self.write(swarm, agent, Some(seat)).await;
    }
    async fn write(&self, swarm: &Swarm, agent: AgentId, seat: Option<Seat>) {
        let seated = serde_json::from_value::<Seated>(json!({
            "generation": 1, "seat": seat, "reason": "by hand"
        }))
        .expect("a seat");
        let subject = Subject::Agent(swarm.place, AgentVerb::Seated, agent);
        swarm
            .append(swarm.decision(Service::Coordinator, subject, agent.0, None, seated))
            .await;
    }
    async fn lead(&self, swarm: &Swarm, agent: AgentId) {
        let elected = LeaderElected {
            leader: Some(agent),
            incarnation: 1,
            before: None,
            reason: "by hand".to_owned(),
            eligible: 1,
        };
        let subject = Subject::Swarm(swarm.place, SwarmVerb::LeaderElected);
        let about = swarm.place.swarm.0;
        swarm
            .append(swarm.decision(Service::Coordinator, subject, about, None, elected))
            .await;
    }
}

/// Another agent of the swarm than the one of `support`.
fn other(swarm: &Swarm, name: &str) -> (AgentBuilder, AgentId) {
    let id = AgentId(Uuid::now_v7());
    (swarm.builder().id(id).name(name), id)
}

trait Talks {
    /// Runs an agent that has joined; what it speaks with.
    async fn talks(&mut self, builder: AgentBuilder) -> (Running, AgentHandle);
}
impl Talks for Swarm {
    async fn talks(&mut self, builder: AgentBuilder) -> (Running, AgentHandle) {
        let (builder, handle) = builder.with_handle();
        let running = self.joined(builder).await;
        (running, handle)
    }
}

/// A handler that tells what came.
fn ear(said: &mpsc::UnboundedSender<ReceivedMessage>, builder: AgentBuilder) -> AgentBuilder {
    let said = said.clone();
    builder.on_message(move |message| {
        let said = said.clone();
        async move {
            said.send(message)?;
            Ok(())
        }
    })
}

/// How many messages the stream holds.
async fn stored(swarm: &Swarm) -> u64 {
    let stream = swarm.log.context().get_stream(MESSAGES_STREAM).await;
    stream.expect("there").cached_info().state.messages
}

/// A message as some process with rights writes it, past the SDK's checks.
async fn forge(swarm: &Swarm, from: Sender, to: Recipient, mut sent: Sent) -> Uuid {
    let (id, subject) = (Uuid::now_v7(), Subject::Message(swarm.place, from, to));
    let (source, about) = match from {
        Sender::Agent(agent) => (Source::Agent(agent), agent.0),
        _ => (Source::Client("test".to_owned()), swarm.place.swarm.0),
    };
    sent.incarnation = 1;
    let time = Timestamp::from_micros(1);
    let event = Event::new(EventId(id), source, time, &subject, about, sent);
    let payload = event.to_json().expect("JSON").into();
    let context = swarm.log.context();
    let ack = context.publish(subject.to_string(), payload).await;
    ack.expect("sent").await.expect("stored");
    id
}
fn said(body: Value) -> Sent {
    Sent {
        incarnation: 0,
        purpose: Purpose::Tell,
        topic: None,
        receipt: None,
        expires_ms: None,
        abroad: None,
        body: body.into(),
    }
}

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

/// The purpose of the first receipt of `id` in the stream.
async fn receipt_of(swarm: &Swarm, id: Uuid) -> Purpose {
    loop {
        for sent in all_sent(swarm).await {
            if matches!(&sent.purpose, Purpose::Receipt { of, .. } if *of == id) {
                return sent.purpose;
            }
        }
        tokio::task::yield_now().await;
    }
}

/// All messages of the stream.
async fn all_sent(swarm: &Swarm) -> Vec<Sent> {
    let stream = swarm.log.context().get_stream(MESSAGES_STREAM).await;
    let stream = stream.expect("there");
    let state = &stream.cached_info().state;
    let mut all = Vec::new();
    for sequence in state.first_sequence.max(1)..=state.last_sequence {
        let message = stream.get_raw_message(sequence).await.expect("there");
        let time = Timestamp::from_micros(1);
        let subject = message.subject.to_string();
        match swarm_events::read(sequence, time, &subject, &message.payload) {
            swarm_events::Input::Event(recorded) => match recorded.event.body {
                Body::MessageSent(sent) => all.push(sent),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
    all
}

#[tokio::test]
async fn requests_are_replied_to_refused_failed_or_time_out() {
    let mut swarm = Swarm::new().await;
    let mut seats = Seats::star(&swarm).await;
    let (hub, (builder, worker)) = (swarm.agent, other(&swarm, "worker"));
    let (worker_runs, handle) = swarm.talks(builder).await;
    let answering = swarm
        .builder()
        .name("hub")
        .on_message(|message| async move {
            match message.body.to_value().as_str() {
                Some("fail") => Err(TaskError::permanent("no")),
                Some("silent") => Ok(()),
                Some("hang") => std::future::pending().await,
                _ => Ok(message.reply(json!({"got": message.body})).await?),
            }
        });
    let (hub_runs, _) = swarm.talks(answering).await;
    seats.seat(&swarm, hub, Role::Coordinator).await;
    seats.seat(&swarm, worker, Role::Worker).await;
    let messages = handle.messages().await.expect("runs");

    let reply = messages.request(hub, 7, PATIENCE).await.expect("replied");
    assert_eq!(reply.to_value(), json!({"got": 7}));
    let failed = messages.request(hub, "fail", PATIENCE).await;
    assert!(
        matches!(&failed, Err(RequestError::Failed(why)) if why == "no"),
        "{failed:?}"
    );
    let silent = messages.request(hub, "silent", PATIENCE).await;
    assert!(matches!(silent, Err(RequestError::NoReply)), "{silent:?}");
    let short = Duration::from_millis(200);
    let hanging = messages.request(hub, "hang", short).await;
    assert!(
        matches!(hanging, Err(RequestError::TimedOut(after)) if after == short),
        "{hanging:?}"
    );
    // It hangs in the handler of this sender; what others say is handled all the same.
    let mut sent = said(json!("people"));
    sent.receipt = Some(Stage::Handled);
    let id = forge(&swarm, Sender::People, Recipient::Agent(hub), sent).await;
    let Purpose::Receipt { stage, .. } = soon("handled", receipt_of(&swarm, id)).await else {
        panic!("no receipt")
    };
    assert_eq!(stage, Stage::Handled);
    worker_runs.stop().await.expect("stops");
    hub_runs.stop().await.expect("stops");
}

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

#[tokio::test]
async fn a_blackboard_is_of_one_swarm_and_of_several_writers_one_succeeds() {
    let mut swarm = Swarm::with_permissions().await;
    let (running, handle) = swarm.talks(swarm.builder()).await;
    let board = handle.blackboard().await.expect("runs");
    let mut watch = board.watch("plan.").await.expect("watched");
    let first = board.create("plan.a", json!({"v": 1})).await.expect("new");
    let error = board.create("plan.a", 2).await.expect_err("there is one");
    assert!(
        matches!(&error, BoardError::Exists { key } if key == "plan.a"),
        "{error}"
    );
    let (a, b) = tokio::join!(
        board.update("plan.a", "a", first),
        board.update("plan.a", "b", first)
    );
    let error = match (a, b) {
        (Ok(_), Err(error)) | (Err(error), Ok(_)) => error,
        other => panic!("{other:?}"),
    };
    assert!(
        matches!(error, BoardError::Changed { revision, .. } if revision == first),
        "{error}"
    );
    board.put("other", 1).await.expect("put");
    board.put("plan.b", 2).await.expect("put");
    // Another swarm's keys are nobody's business here.
    let bucket = swarm.log.context().get_key_value("swarm_blackboard").await;
    let foreign = format!("{}.{}.plan.x", swarm.place.org, Uuid::now_v7());
    bucket
        .expect("there")
        .put(foreign, "1".into())
        .await
        .expect("put");
    assert_eq!(
        board.keys("").await.expect("listed"),
        ["other", "plan.a", "plan.b"]
    );
    assert_eq!(
        board.keys("plan.").await.expect("listed"),
        ["plan.a", "plan.b"]
    );
    board.delete("plan.a", Some(1)).await.expect_err("old");
    board.delete("plan.a", None).await.expect("deleted");
    assert_eq!(board.get("plan.a").await.expect("read"), None);
    assert_eq!(board.keys("plan.").await.expect("listed"), ["plan.b"]);
    // Limits, by field.
    let largest = "x".repeat(BLACKBOARD_BYTES_MAX - 2);
    board
        .put("plan.large", &largest)
        .await
        .expect("at the limit");
    let error = board.put("plan.large", format!("{largest}x")).await;
    assert!(
        matches!(error, Err(BoardError::TooLarge { bytes }) if bytes == BLACKBOARD_BYTES_MAX + 1)
    );
    let error = board.put("_cursor.x", 1).await.expect_err("reserved");
    assert!(error.to_string().starts_with("key: "), "{error}");
    let mut seen = Vec::new();
    while seen.len() < 5 {
        let change = soon("a change", watch.next()).await.expect("goes on");
        match change.expect("readable") {
            BoardChange::Put(entry) => seen.push(entry.key),
            BoardChange::Deleted { key, .. } => seen.push(format!("-{key}")),
        }
    }
    assert_eq!(
        seen,
        ["plan.a", "plan.a", "plan.b", "-plan.a", "plan.large"]
    );
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_question_waits_for_its_answer_and_says_who_gave_it() {
    let mut swarm = Swarm::new().await;
    let asking = swarm.builder().handler("ask", async |task: TaskContext, mode: String| {
        let mut question = task.ask("Go on?").choices(["yes", "no"]);
        if mode == "wrong" {
            question = question.default("perhaps");
        }
        let answered = question.timeout(Duration::from_secs(5)).await?;
        Ok::<_, TaskError>(json!({"answer": answered.answer, "person": answered.by == AnsweredBy::Person(None)}))
    });
    let (running, _) = swarm.talks(asking).await;
    let agent = swarm.agent;
    // A default that cannot be chosen never reaches the swarm.
    let wrong = swarm.assign("ask", json!("wrong"), 1).await;
    let (error, _) = swarm.until_failed(wrong).await;
    assert!(
        error.contains("default: it is none of the choices"),
        "{error}"
    );
    for answers in [true, false] {
        let assignment = swarm.assign("ask", json!(""), 1).await;
        let (id, ask) = swarm
            .until("a question", |r| match &r.event.body {
                Body::Ask(ask) => Some((r.event.id, ask.clone())),
                _ => None,
            })
            .await;
        assert_eq!((ask.assignment, ask.timeout_ms), (Some(assignment), 5_000));
        let (verb, body): (_, Body) = if answers {
            let answered = Answered {
                question_id: id.0.into(),
                answer: json!("yes").into(),
                by: AnsweredBy::Person(None),
            };
            (AgentVerb::Answered, answered.into())
        } else {
            let reason = "nobody was there".to_owned();
            let question_id = id.0.into();
            let none = Unanswered {
                question_id,
                reason,
            };
            (AgentVerb::Unanswered, none.into())
        };
        let subject = Subject::Agent(swarm.place, verb, agent);
        swarm
            .append(swarm.decision(Service::Coordinator, subject, agent.0, None, body))
            .await;
        if answers {
            let result = swarm.until_completed(assignment).await;
            assert_eq!(
                support::json(&result),
                json!({"answer": "yes", "person": true})
            );
        } else {
            let (error, _) = swarm.until_failed(assignment).await;
            assert!(
                error.contains("nobody answered: nobody was there"),
                "{error}"
            );
        }
    }
    running.stop().await.expect("stops");
}

#[tokio::test]
async fn a_task_is_handed_on_in_parts() {
    let mut swarm = Swarm::new().await;
    let splitting = swarm
        .builder()
        .handler("sum", async |task: TaskContext, numbers: Vec<u64>| {
            assert_eq!(task.step(), Step::Work);
            let part = |(at, number): (usize, &u64)| Part {
                key: if numbers.len() == 2 {
                    "same".to_owned()
                } else {
                    format!("p{at}")
                },
                task_type: "one".to_owned(),
                payload: json!(number).into(),
                priority: None,
                required_capabilities: Vec::new(),
                required_role: None,
                max_attempts: None,
                timeout_ms: None,
            };
            task.split(numbers.iter().enumerate().map(part).collect())?;
            Ok::<_, TaskError>("this does not count")
        });
    let (running, _) = swarm.talks(splitting).await;
    let assignment = swarm.assign("sum", json!([1, 2, 3]), 1).await;
    let parts = swarm
        .until("a split", |r| match &r.event.body {
            Body::TaskSplit(split) if split.assignment == assignment => Some(split.parts.clone()),
            _ => None,
        })
        .await;
    let keys: Vec<_> = parts.iter().map(|part| part.key.as_str()).collect();
    assert_eq!(keys, ["p0", "p1", "p2"]);
    assert_eq!(parts[2].payload, Json::from(json!(3)));
    // What cannot be parts fails for good, by field.
    for (numbers, words) in [
        (json!([]), "parts: 0 parts, 1 to 1000 are taken"),
        (json!([1, 2]), "parts[1].key: same stands there twice"),
    ] {
        let assignment = swarm.assign("sum", numbers, 1).await;
        let (error, retryable) = swarm.until_failed(assignment).await;
        assert!(error.contains(words), "{error}");
        assert!(!retryable);
    }
    running.stop().await.expect("stops");
}
