//! Throw-away servers for integration tests: free ports, a temporary folder, gone on drop.
//!
//! Each test starts its own; a nats-server takes about 50 ms, a PostgreSQL about a second.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use crate::{
    Authority, ClusterSettings, Durability, NatsServer, NatsSettings, PgSettings, Postgres, ports,
};

/// A nats-server with JetStream and without authentication.
pub async fn nats() -> TestNats {
    nats_with(|_| ()).await
}

/// The same with settings of the test's own. The data is synced every two minutes unless
/// `change` says otherwise: most tests ask nothing of the disk.
pub async fn nats_with(change: impl FnOnce(&mut NatsSettings)) -> TestNats {
    let dir = folder();
    let mut settings = nats_settings(&dir);
    change(&mut settings);
    let server = NatsServer::start(settings)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    TestNats {
        url: server.url(),
        server,
        dir,
    }
}

/// A nats-server that asks for credentials, and the authority that makes them.
pub async fn nats_with_auth() -> (TestNats, Authority) {
    let mut made = None;
    let nats = nats_with(|settings| {
        let authority = Authority::load_or_create(&settings.data_dir.join("keys"))
            .unwrap_or_else(|error| panic!("{error}"));
        settings.auth = Some(authority.clone());
        made = Some(authority);
    })
    .await;
    (nats, made.expect("made above"))
}

/// Three nats-servers in a cluster, healthy when this returns.
pub async fn nats_cluster() -> TestNatsCluster {
    nats_cluster_with(|_, _| ()).await
}

/// The same with settings of the test's own: `change` is given the number of a server (from 0) and its settings.
pub async fn nats_cluster_with(
    mut change: impl FnMut(usize, &mut NatsSettings),
) -> TestNatsCluster {
    let any = || ports::free("127.0.0.1").expect("a free port");
    let cluster_ports = [any(), any(), any()];
    let routes = cluster_ports
        .map(|port| format!("nats://127.0.0.1:{port}"))
        .to_vec();
    let mut nodes = Vec::new();
    for (number, port) in cluster_ports.into_iter().enumerate() {
        let dir = folder();
        let mut settings = nats_settings(&dir);
        settings.name = format!("swarm-{number}");
        settings.cluster = Some(ClusterSettings {
            port,
            routes: routes.clone(),
        });
        change(number, &mut settings);
        let server = NatsServer::launch(settings)
            .await
            .unwrap_or_else(|error| panic!("{error}"));
        nodes.push(TestNats {
            url: server.url(),
            server,
            dir,
        });
    }
    for node in &mut nodes {
        let healthy = node.server.until_healthy().await;
        healthy.unwrap_or_else(|error| panic!("{error}"));
    }
    TestNatsCluster { nodes }
}

/// A PostgreSQL with an empty database `swarm`.
pub async fn postgres() -> TestPostgres {
    let dir = folder();
    let mut settings = PgSettings::new(dir.path().join("postgres"));
    settings.port = 0;
    settings.throw_away = true;
    let server = Postgres::start(settings)
        .await
        .unwrap_or_else(|error| panic!("{error}"));
    TestPostgres {
        url: server.url(),
        server: Some(server),
        dir,
    }
}

/// A running nats-server of a test.
pub struct TestNats {
    /// Where clients connect.
    pub url: String,
    /// The server itself.
    pub server: NatsServer,
    // After the server: it is dropped last.
    dir: TempDir,
}

impl TestNats {
    /// SIGKILL; the data and the port stay for `restart`.
    pub fn kill(&mut self) {
        self.server.kill();
    }

    /// Stops it if it runs, and starts it again on the same ports and data.
    pub async fn restart(&mut self) {
        let done = self.server.restart().await;
        done.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Its temporary folder.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

/// Three running nats-servers of a test.
pub struct TestNatsCluster {
    /// The servers; any of them can be killed and restarted.
    pub nodes: Vec<TestNats>,
}

impl TestNatsCluster {
    /// All addresses, separated by commas.
    pub fn url(&self) -> String {
        let urls: Vec<&str> = self.nodes.iter().map(|node| node.url.as_str()).collect();
        urls.join(",")
    }
}

/// A running PostgreSQL of a test.
pub struct TestPostgres {
    /// Where clients connect, database `swarm`.
    pub url: String,
    server: Option<Postgres>,
    dir: TempDir,
}

impl TestPostgres {
    /// Makes an empty database and returns its URL.
    pub async fn fresh_database(&self, name: &str) -> String {
        let made = self.server().create_database(name).await;
        made.unwrap_or_else(|error| panic!("{error}"))
    }

    /// SIGKILL; the data and the port stay for `restart`.
    pub fn kill(&mut self) {
        if let Some(server) = &mut self.server {
            server.kill();
        }
    }

    /// Stops it if it runs, and starts it again on the same port and data.
    pub async fn restart(&mut self) {
        if let Some(server) = &mut self.server {
            let done = server.restart().await;
            done.unwrap_or_else(|error| panic!("{error}"));
        }
    }

    /// The server itself.
    pub fn server(&self) -> &Postgres {
        self.server.as_ref().expect("there until it is dropped")
    }

    /// Its temporary folder.
    pub fn dir(&self) -> &std::path::Path {
        self.dir.path()
    }
}

impl Drop for TestPostgres {
    fn drop(&mut self) {
        // Its children must be gone before the folder: they notice the death of the
        // postmaster only when they next wait.
        self.server.take();
    }
}

fn nats_settings(dir: &TempDir) -> NatsSettings {
    let mut settings = NatsSettings::new(dir.path().join("nats"));
    settings.port = 0;
    settings.ws_port = 0;
    settings.monitor_port = 0;
    settings.durability = Durability::Speed;
    settings
}

fn folder() -> TempDir {
    let dir = tempfile::Builder::new()
        .prefix("swarm-test-")
        .tempdir()
        .expect("a temporary folder");
    // Open to the user that PostgreSQL runs as when the tests run as root.
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o711)).expect("it is ours");
    dir
}
