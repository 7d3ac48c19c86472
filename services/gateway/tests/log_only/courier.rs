//! Messages from swarm to swarm, carried by the gateways.

use std::{collections::BTreeMap, sync::Arc};

use async_nats::jetstream::{
    AckKind,
    consumer::{Consumer, pull},
};
use futures::StreamExt;
use serde_json::{Value, json};
use swarm_agent_sdk::{Agent, LinkSettings, ReceivedMessage, TaskContext, TaskError, To};
use swarm_events::{
    AgentId, Event, EventId, Json, OrgId, Place, Subject, SwarmId,
    envelope::Source,
    message::{Purpose, Stage as Reached},
    subject::{Recipient, Sender},
};
use swarm_gateway::{
    app::App,
    bus::Bus,
    courier::{CONSUMER, definition},
    port::Port,
    serve_app,
};
use swarm_projections::pool;
use tokio::{net::TcpListener, time::timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::support::{
    NO_DATABASE, PATIENCE, Stage, open_log,
    talk::{TRACE, abroad, told},
};

async fn two(stage: &Stage) -> (Place, Place) {
    let a = stage.swarm(json!({"name": "a"})).await;
    (a, stage.swarm(json!({"name": "b"})).await)
}

fn from_abroad(item: &Value) -> bool {
    item["from"] == "abroad"
}

/// What is stored in the stream under this sequence.
async fn stored(stage: &Stage, sequence: &Value) -> Value {
    let stream = stage.jetstream().get_stream("swarm_messages").await;
    let sequence = sequence.as_u64().expect("a sequence");
    let stored = stream.expect("there").get_raw_message(sequence).await;
    serde_json::from_slice(&stored.expect("stored").payload).expect("JSON")
}

#[tokio::test]
async fn a_message_goes_to_another_swarm_and_its_answer_comes_back() {
    // With the rights of the gateway's user, and no others.
    let stage = Stage::guarded().await;
    let (a, b) = two(&stage).await;
    let (anna, ben) = (stage.agent(a, "anna").await, stage.agent(b, "ben").await);
    let mut request = abroad(b, Some(ben), json!({"sum": [1, 2]}));
    request.purpose = Purpose::Request;
    request.expires_ms = Some(600_000);
    let (id, _) = stage.say(a, anna, Recipient::Abroad, request).await;
    let came = stage.messages(b, 1, from_abroad).await.remove(0);
    assert_eq!((&came["id"], &came["to"]), (&json!(id), &json!(ben)));
    assert_eq!(
        (&came["purpose"], &came["body"]),
        (&json!("request"), &json!({"sum": [1, 2]}))
    );
    assert_eq!(
        came["abroad"],
        json!({"swarm_id": a.swarm, "agent_id": anna})
    );
    let left = came["expires_ms"].as_u64().expect("a limit");
    assert!((1..=600_000).contains(&left), "{left}");
    let event = stored(&stage, &came["sequence"]).await;
    assert_eq!(
        (&event["traceparent"], &event["correlationid"]),
        (&json!(TRACE), &json!(Uuid::from_u128(77)))
    );
    assert_eq!(event["subject"], json!(anna), "it is who speaks");

    let mut reply = abroad(a, Some(anna), json!(3));
    reply.purpose = Purpose::Reply { to: id };
    stage.say(b, ben, Recipient::Abroad, reply).await;
    let back = stage.messages(a, 1, from_abroad).await.remove(0);
    assert_eq!(
        (&back["to"], &back["in_reply_to"], &back["body"]),
        (&json!(anna), &json!(id), &json!(3))
    );
    let event = stored(&stage, &back["sequence"]).await;
    assert_eq!(event["traceparent"], json!(TRACE));

    // Without an agent it is for the leader; receipts go the same way.
    let (to_leader, _) = stage
        .say(a, anna, Recipient::Abroad, abroad(b, None, json!(1)))
        .await;
    let came = stage.messages(b, 2, from_abroad).await.remove(1);
    assert_eq!(
        (&came["id"], &came["to"]),
        (&json!(to_leader), &json!("leader"))
    );
    let mut receipt = abroad(a, Some(anna), Value::Null);
    receipt.purpose = Purpose::Receipt {
        of: to_leader,
        stage: Reached::Handled,
        detail: None,
    };
    stage.say(b, ben, Recipient::Abroad, receipt).await;
    let back = stage.messages(a, 2, from_abroad).await.remove(1);
    assert_eq!(
        (&back["receipt_of"], &back["stage"]),
        (&json!(to_leader), &json!("handled"))
    );
}

#[tokio::test]
async fn a_message_that_may_not_go_there_comes_back_as_a_refusal() {
    let stage = Stage::guarded().await;
    let (a, b) = two(&stage).await;
    let gone = stage.swarm(json!({"name": "gone"})).await;
    let anna = stage.agent(a, "anna").await;
    let deleted = stage
        .admin
        .delete(&format!("/v1/swarms/{}", gone.swarm))
        .await;
    assert_eq!(deleted.status, 202);
    stage
        .eventually(|app| {
            let fold = app.fold.read();
            let swarm = fold.swarm(gone.org, gone.swarm);
            swarm.is_some_and(|swarm| swarm.deleted_at.is_some())
        })
        .await;
    let (_, stranger) = stage.other_org().await;
    let theirs = stranger
        .post("/v1/swarms", &json!({"name": "theirs"}))
        .await
        .id();
    let theirs = Place::new(OrgId(stage.org.0), SwarmId(theirs));
    let nowhere = Place::new(stage.org, SwarmId(Uuid::now_v7()));
    let nobody = AgentId(Uuid::now_v7());
    let mut old = abroad(b, None, json!(1));
    old.expires_ms = Some(0);
    for (sent, why) in [
        (abroad(nowhere, None, json!(1)), "there is no swarm"),
        (abroad(theirs, None, json!(1)), "there is no swarm"),
        (abroad(gone, None, json!(1)), "was deleted"),
        (abroad(b, Some(nobody), json!(1)), "is not in swarm"),
        (abroad(a, None, json!(1)), "its own swarm"),
        (old, "was to be handled within 0 ms"),
        (told(json!(1)), "does not name the other swarm"),
    ] {
        let (id, _) = stage.say(a, anna, Recipient::Abroad, sent).await;
        let refused = stage
            .messages(a, 1, |item| item["receipt_of"] == json!(id))
            .await
            .remove(0);
        assert_eq!(
            (&refused["stage"], &refused["to"]),
            (&json!("refused"), &json!(anna)),
            "{why}"
        );
        let detail = refused["detail"].as_str().expect("a reason");
        assert!(detail.contains(why), "{detail}");
    }
    // What cannot be read stops nobody, and a receipt that cannot arrive is not answered: the next one goes its way.
    stage
        .say_raw(
            &format!("swarm.msg.{a}.{anna}.abroad"),
            "x",
            b"no event".to_vec(),
        )
        .await;
    let mut receipt = abroad(nowhere, None, Value::Null);
    receipt.purpose = Purpose::Receipt {
        of: Uuid::nil(),
        stage: Reached::Handled,
        detail: None,
    };
    let (silent, _) = stage.say(a, anna, Recipient::Abroad, receipt).await;
    let (id, _) = stage
        .say(a, anna, Recipient::Abroad, abroad(b, None, json!(2)))
        .await;
    let came = stage.messages(b, 1, from_abroad).await;
    assert_eq!((came.len(), &came[0]["id"]), (1, &json!(id)));
    let answers = stage.messages(a, 7, from_abroad).await;
    assert_eq!(answers.len(), 7, "{answers:?}");
    assert!(
        answers
            .iter()
            .all(|item| item["receipt_of"] != json!(silent))
    );
}

/// Another gateway of the same installation, until it is stopped.
async fn another(stage: &Stage) -> Arc<App> {
    let log = open_log(&stage.nats.url).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let pool = pool::reader(NO_DATABASE).expect("a URL");
    let bus = Bus::new(log.client().clone());
    let app = App::new(Port::new(log), pool, recorder.handle(), Default::default());
    let app = Arc::new(app.with_bus(bus));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let mut tail = app.tail.subscribe();
    tokio::spawn(serve_app(app.clone(), listener));
    let caught_up = tail.wait_for(|tail| tail.caught_up);
    timeout(PATIENCE, caught_up)
        .await
        .expect("in time")
        .expect("alive");
    app
}

#[tokio::test]
async fn gateways_share_the_work_and_nothing_is_lost_or_doubled() {
    let mut stage = Stage::without_database().await;
    let (a, b) = two(&stage).await;
    let (anna, ben) = (stage.agent(a, "anna").await, stage.agent(b, "ben").await);
    let (second, third) = (another(&stage).await, another(&stage).await);
    let mut sent = Vec::new();
    for n in 0..300 {
        if n == 100 {
            // One of them goes in the middle of it …
            second.stop.cancel();
        }
        if n == 200 {
            // … and nats-server dies.
            stage.nats.restart().await;
            let client = stage.log.connection().clone();
            timeout(PATIENCE, async {
                while !client.is_connected() {
                    tokio::task::yield_now().await;
                }
            })
            .await
            .expect("connected");
        }
        let (id, _) = stage
            .say(a, anna, Recipient::Abroad, abroad(b, Some(ben), json!(n)))
            .await;
        sent.push(json!(id));
    }
    let came = stage.messages(b, sent.len(), from_abroad).await;
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for item in &came {
        *times
            .entry(item["id"].as_str().expect("an id").to_owned())
            .or_default() += 1;
    }
    assert_eq!(times.len(), sent.len());
    assert!(times.values().all(|times| *times == 1), "{times:?}");
    third.stop.cancel();
}

#[tokio::test]
async fn what_a_courier_stored_before_it_died_is_not_stored_again() {
    let stage = Stage::without_database().await;
    let (a, b) = two(&stage).await;
    let (anna, ben) = (stage.agent(a, "anna").await, stage.agent(b, "ben").await);
    stage.app.stop.cancel();
    let carried = timeout(PATIENCE, stage.gateway).await.expect("in time");
    carried.expect("no panic").expect("in order");
    let context = async_nats::jetstream::new(stage.log.client().clone());
    let consumer: Consumer<pull::Config> = context
        .create_consumer_on_stream(definition(), "swarm_messages")
        .await
        .expect("the couriers' consumer");
    assert_eq!(consumer.cached_info().name, CONSUMER);

    // This courier stores the message there, under no id that nats-server would know it by two minutes later, and goes
    // without a word.
    let subject = Subject::Message(a, Sender::Agent(anna), Recipient::Abroad);
    let event = |subject: &Subject, source: Source, id: Uuid| {
        let sent = abroad(b, Some(ben), json!(1));
        let event = Event::new(EventId(id), source, App::now(), subject, anna.0, sent);
        event.to_json().expect("JSON")
    };
    let ids = [Uuid::now_v7(), Uuid::now_v7()];
    for id in ids {
        let payload = event(&subject, Source::Agent(anna), id);
        let kept = context.publish(subject.to_string(), payload.into()).await;
        kept.expect("sent").await.expect("stored");
    }
    let taken = consumer.fetch().max_messages(2).messages().await;
    let taken: Vec<_> = taken.expect("asked").collect().await;
    assert_eq!(taken.len(), 2);
    let there = Subject::Message(b, Sender::Abroad, Recipient::Agent(ben));
    let payload = event(
        &there,
        Source::Client("/swarm/gateway/dead".to_owned()),
        ids[0],
    );
    let kept = context.publish(there.to_string(), payload.into()).await;
    kept.expect("sent").await.expect("stored");
    for message in taken {
        // As if its time had run out.
        let message = message.expect("a message");
        message.ack_with(AckKind::Nak(None)).await.expect("said");
    }

    let log = open_log(&stage.nats.url).await;
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new().build_recorder();
    let pool = pool::reader(NO_DATABASE).expect("a URL");
    let bus = Bus::new(log.client().clone());
    let app = App::new(Port::new(log), pool, recorder.handle(), Default::default());
    let app = Arc::new(app.with_bus(bus.clone()));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let serving = tokio::spawn(serve_app(app.clone(), listener));
    let mut look = tokio::time::interval(std::time::Duration::from_millis(10));
    let settled = async {
        loop {
            look.tick().await;
            let mut consumer = consumer.clone();
            let info = consumer.info().await.expect("there");
            if info.num_pending == 0 && info.num_ack_pending == 0 {
                return;
            }
        }
    };
    timeout(PATIENCE, settled).await.expect("carried in time");
    let filters = [format!("swarm.msg.{b}.abroad.>")];
    let found = bus
        .page("swarm_messages", &filters, 1, 100)
        .await
        .expect("read");
    let mut found: Vec<Value> = found
        .items
        .iter()
        .map(|stored| serde_json::from_slice::<Value>(&stored.payload).expect("JSON")["id"].clone())
        .collect();
    found.sort_by_key(Value::to_string);
    assert_eq!(found, ids.map(|id| json!(id)), "each of them once");
    app.stop.cancel();
    let served = timeout(PATIENCE, serving).await.expect("in time");
    served.expect("no panic").expect("in order");
}

#[tokio::test]
async fn agents_ask_another_swarm_for_what_a_person_asks_them() {
    let stage = Stage::without_database().await;
    let (a, b) = two(&stage).await;
    let (anna, ben) = (AgentId(Uuid::now_v7()), AgentId(Uuid::now_v7()));
    let stop = CancellationToken::new();
    let agent = |place: Place, id: AgentId| {
        Agent::builder(LinkSettings::new(&stage.nats.url), place.org, place.swarm)
            .id(id)
            .handler("t", async |_: TaskContext, _: Json| Ok::<_, TaskError>(()))
    };
    let ben_does = agent(b, ben).on_message(|message: ReceivedMessage| async move {
        let n: u64 = message.body.to()?;
        message.reply(n + 1).await?;
        Ok(())
    });
    let there = To::Swarm(b.swarm, Some(ben));
    let anna_does = agent(a, anna).on_message(move |message: ReceivedMessage| {
        let there = there.clone();
        async move {
            let body = message.body.clone();
            let answer = message.messages().request(there, body, PATIENCE).await?;
            message.reply(answer).await?;
            Ok(())
        }
    });
    let running = [
        tokio::spawn(ben_does.run(stop.clone())),
        tokio::spawn(anna_does.run(stop.clone())),
    ];
    for (place, agent) in [(a, anna), (b, ben)] {
        stage
            .eventually(|app| {
                let fold = app.fold.read();
                let swarm = fold.swarm(place.org, place.swarm);
                swarm.is_some_and(|swarm| swarm.agents.get(&agent).is_some_and(|a| a.is_live()))
            })
            .await;
    }
    let path = format!("/v1/swarms/{}/messages", a.swarm);
    let asked = json!({"to": anna, "body": 41, "request": true, "receipt": "handled"});
    let sent = stage.admin.post(&path, &asked).await;
    assert_eq!(sent.status, 202, "{}", sent.body);
    let id = sent.body["id"].clone();
    let reply = stage
        .messages(a, 1, |item| item["in_reply_to"] == id)
        .await
        .remove(0);
    assert_eq!(
        (&reply["from"], &reply["to"], &reply["body"]),
        (&json!(anna), &json!("people"), &json!(42))
    );
    let receipt = stage
        .messages(a, 1, |item| {
            item["receipt_of"] == id && item["stage"] == "handled"
        })
        .await
        .remove(0);
    assert_eq!(receipt["to"], "people");
    // One trace from the person's message to the answer from abroad.
    let all = stage.messages(b, 2, |_| true).await;
    let first = stored(&stage, &sent.body["sequence"]).await;
    for message in &all {
        let event = stored(&stage, &message["sequence"]).await;
        assert_eq!(event["correlationid"], first["correlationid"], "{message}");
    }
    stop.cancel();
    for agent in running {
        agent.await.expect("no panic").expect("leaves");
    }
}
