//! Notices of nats-server's system account.

use std::time::Duration;

use futures::{StreamExt, stream::BoxStream};
use swarm_log::{
    connect::{ConnectSettings, Credentials, connect},
    notices,
};
use swarm_servers::{Permissions, testing::nats_with_auth};

/// Connects and leaves as `name` until that is heard of: a subscription may not stand yet.
async fn heard(settings: &ConnectSettings, closed: &mut BoxStream<'static, String>) {
    for _ in 0..100 {
        let connection = connect(settings.clone()).await.expect("connects");
        connection.client().drain().await.expect("drains");
        drop(connection);
        // Our own system connection is told of as well, when the server comes back.
        while let Ok(name) = tokio::time::timeout(Duration::from_millis(100), closed.next()).await {
            if name.expect("never ends") == settings.name {
                return;
            }
        }
    }
    panic!("no notice of {}", settings.name);
}

#[tokio::test]
async fn the_server_tells_whose_connection_closed_also_after_its_restart() {
    let (mut nats, authority) = nats_with_auth().await;
    let user = |name: &str, creds: String| ConnectSettings {
        creds: Some(Credentials::Text(creds)),
        ..ConnectSettings::new(&nats.url, name)
    };
    let creds = authority
        .mint("distributor", &Permissions::all())
        .expect("mints");
    let replica = user("distributor/0190", creds);
    let system = user("listener", authority.mint_system().expect("mints"));

    let mut closed = notices::follow(system);
    heard(&replica, &mut closed).await;

    nats.restart().await;
    heard(&replica, &mut closed).await;
}
