//! Messages that want a reply.

use std::time::Duration;

use serde_json::json;
use swarm_agent_sdk::{RequestError, Role, Stage, TaskError};
use swarm_events::{
    message::Purpose,
    subject::{Recipient, Sender},
};

use crate::{
    scene::{PATIENCE, Seats, Talks, forge, other, receipt_of, said, soon},
    support::Swarm,
};

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
