//! What each user of the bus can do with presence and objects, with real credentials on a real server.

mod support;

use futures::StreamExt;
use swarm_events::{
    AgentId, OrgId, Place, SwarmId,
    permissions::{Permissions, User},
    subject::Service,
};
use swarm_log::{
    Log, PresenceNews,
    connect::{ConnectSettings, Credentials, connect},
    definitions::Provision,
    jetstream::{Durability, JetStreamLog, LogSettings},
    provision::provision,
};
use swarm_servers::{Authority, testing::nats_with_auth};
use uuid::Uuid;

const SERVICES: [User; 5] = [
    User::Service(Service::Coordinator),
    User::Service(Service::Distributor),
    User::Service(Service::Health),
    User::Projector,
    User::Gateway,
];

/// A refusal is known by no answer: what is refused is asked at the same time, each on a connection of its own.
async fn log_of(url: &str, creds: String) -> JetStreamLog {
    let settings = ConnectSettings {
        creds: Some(Credentials::Text(creds)),
        ..ConnectSettings::new(url, "test")
    };
    let connection = connect(settings).await.expect("connects");
    JetStreamLog::open(&connection, LogSettings::new(Durability::Always, 1))
        .await
        .unwrap_or_else(|error| panic!("{error}"))
}

fn creds(authority: &Authority, user: User) -> String {
    let Permissions {
        publish,
        subscribe,
        responses,
    } = user.permissions();
    let may = swarm_servers::Permissions {
        publish,
        subscribe,
        responses,
    };
    authority.mint("user", &may).expect("mints")
}

#[tokio::test]
async fn services_keep_snapshots_and_announce_themselves_and_agents_do_not() {
    let (server, authority) = nats_with_auth().await;
    let all = authority
        .mint("admin", &swarm_servers::Permissions::all())
        .expect("mints");
    let settings = ConnectSettings {
        creds: Some(Credentials::Text(all.clone())),
        ..ConnectSettings::new(&server.url, "admin")
    };
    let connection = connect(settings).await.expect("connects");
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, &Provision::default())
        .await
        .expect("provisioned");
    let admin = log_of(&server.url, all).await;
    let mut forgers = Vec::new();

    for user in SERVICES {
        let log = log_of(&server.url, creds(&authority, user)).await;
        let own = user.presence().expect("a service");

        // Snapshots: put, replaced, read, listed, deleted.
        let name = format!("snapshot.{own}.07.00000000000000000012");
        for text in ["old", "new"] {
            log.put_object(&name, text.into()).await.expect("put");
        }
        let read = log.get_object(&name).await.expect("read");
        assert_eq!(read, Some("new".into()), "{own}");
        let listed = log.list_objects("snapshot.").await.expect("listed");
        assert_eq!(listed, [name.as_str()], "{own}");
        log.delete_object(&name).await.expect("deleted");
        let listed = log.list_objects("snapshot.").await.expect("listed");
        assert!(listed.is_empty(), "{own}: {listed:?}");

        // Presence: its own key, seen by itself, and nobody else's.
        let mut watch = log.watch_presence("");
        let key = format!("{own}.0190");
        log.put_presence(&key, "1".into()).await.expect("put");
        loop {
            match watch.next().await.expect("never ends") {
                PresenceNews::Put { key: seen, .. } if seen == key => break,
                _ => {}
            }
        }
        log.remove_presence(&key).await.expect("removed");
        let other = if own == "health" { "gateway" } else { "health" };
        forgers.push((log, other));
    }

    // A person reads who is there, and announces nobody.
    let log = log_of(&server.url, creds(&authority, User::Operator)).await;
    let mut watch = log.watch_presence("");
    admin
        .put_presence("health.0191", "1".into())
        .await
        .expect("put");
    loop {
        match watch.next().await.expect("never ends") {
            PresenceNews::Put { key, .. } if key == "health.0191" => break,
            _ => {}
        }
    }
    forgers.push((log, "health"));

    // An agent may store what is too large for its result, and nothing else.
    let snapshot = "snapshot.distributor.07.00000000000000000012";
    admin
        .put_object(snapshot, "state".into())
        .await
        .expect("put");
    let place = Place::new(OrgId(Uuid::from_u128(7)), SwarmId(Uuid::from_u128(1)));
    let agent = User::Agent(place, AgentId(Uuid::from_u128(3)));
    let logs = (0..4).map(|_| log_of(&server.url, creds(&authority, agent)));
    let logs = futures::future::join_all(logs).await;
    logs[0]
        .put_object("result/1", "large".into())
        .await
        .expect("put");
    forgers.push((logs[0].clone(), "distributor"));

    let announced = forgers.iter().map(|(log, name)| async move {
        let key = format!("{name}.0190");
        (log.put_presence(&key, "1".into()).await, name)
    });
    let (forged, read, listed, deleted, announced) = tokio::join!(
        logs[0].put_object(snapshot, "forged".into()),
        logs[1].get_object(snapshot),
        logs[2].list_objects("snapshot."),
        logs[3].delete_object(snapshot),
        futures::future::join_all(announced),
    );
    assert!(forged.is_err() && deleted.is_err());
    assert!(read.is_err() && listed.is_err(), "{read:?} {listed:?}");
    assert_eq!(announced.len(), 7);
    for (outcome, name) in announced {
        assert!(outcome.is_err(), "announced as {name}");
    }
    let kept = admin.get_object(snapshot).await.expect("read");
    assert_eq!(kept, Some("state".into()));
}

/// Limit for a restarted server to take presence again, on a busy machine.
const AGAIN: std::time::Duration = std::time::Duration::from_secs(20);

#[tokio::test]
async fn a_restarted_server_has_presence_again_without_anybodys_help() {
    let (mut server, authority) = nats_with_auth().await;
    let all = authority
        .mint("admin", &swarm_servers::Permissions::all())
        .expect("mints");
    let settings = ConnectSettings {
        creds: Some(Credentials::Text(all)),
        ..ConnectSettings::new(&server.url, "admin")
    };
    let connection = connect(settings).await.expect("connects");
    let context = async_nats::jetstream::new(connection.client().clone());
    provision(&context, &Provision::default())
        .await
        .expect("provisioned");
    let service = User::Service(Service::Distributor);
    let log = log_of(&server.url, creds(&authority, service)).await;
    log.put_presence("distributor.a", "1".into())
        .await
        .expect("put");
    // When the only server is killed, it forgets what it kept in memory, definitions included.
    server.kill();
    server.restart().await;
    // Then whoever puts its key makes the bucket anew, and everybody sees the key.
    let put = async {
        while log.put_presence("distributor.a", "2".into()).await.is_err() {
            tokio::task::yield_now().await;
        }
        let mut watch = log.watch_presence("distributor.");
        loop {
            match watch.next().await.expect("never ends") {
                PresenceNews::Put { value, .. } if value == "2" => break,
                _ => {}
            }
        }
    };
    tokio::time::timeout(AGAIN, put).await.expect("in time");
    for stream in ["KV_swarm_presence", "swarm_heartbeats"] {
        context.get_stream(stream).await.expect(stream);
    }
}
