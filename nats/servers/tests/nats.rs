//! nats-server as this crate runs it, against the real binary.

use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use async_nats::jetstream::{self, stream};
use async_nats::{Client, ConnectOptions};
use futures::StreamExt;
use swarm_servers::{
    Authority, ClusterSettings, Durability, NatsServer, NatsSettings, Permissions, ServerError,
    testing,
};

async fn store_one(url: &str) -> u64 {
    let client = async_nats::connect(url).await.expect("connects");
    let context = jetstream::new(client);
    context
        .get_or_create_stream(stream::Config {
            name: "kept".into(),
            subjects: vec!["kept.>".into()],
            ..Default::default()
        })
        .await
        .expect("makes the stream");
    let ack = context
        .publish("kept.x", "1".into())
        .await
        .expect("publishes");
    ack.await.expect("is stored").sequence
}

#[tokio::test]
async fn a_restart_keeps_the_port_and_what_was_stored() {
    let mut nats = testing::nats().await;
    let url = nats.url.clone();
    assert_eq!(store_one(&url).await, 1);
    nats.restart().await;
    assert_eq!(nats.url, url);
    assert_eq!(store_one(&url).await, 2);
}

#[tokio::test]
async fn a_kill_loses_nothing_that_was_acknowledged() {
    let mut nats = testing::nats_with(|settings| settings.durability = Durability::Always).await;
    assert_eq!(store_one(&nats.url).await, 1);
    nats.kill();
    assert!(async_nats::connect(&nats.url).await.is_err());
    nats.restart().await;
    assert_eq!(store_one(&nats.url).await, 2);
}

#[tokio::test]
async fn a_used_port_is_named_with_its_cure() {
    let first = testing::nats().await;
    let mut settings = NatsSettings::new(first.dir().join("second"));
    settings.port = first.server.settings().port;
    settings.ws_port = 0;
    settings.monitor_port = 0;
    let Err(error) = NatsServer::start(settings).await else {
        panic!("two servers on one port")
    };
    assert!(matches!(error, ServerError::PortInUse { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("SWARM_NATS_PORT"), "{text}");
    assert!(
        text.contains(&first.server.settings().port.to_string()),
        "{text}"
    );
}

#[tokio::test]
async fn streams_are_taken_whatever_else_lies_on_the_disk() {
    let nats = testing::nats().await;
    let disk = rustix::fs::statvfs(nats.dir()).expect("a disk");
    let free = disk.f_bavail * disk.f_frsize;
    // By itself the server would refuse what exceeds three quarters of it.
    let wanted = (free / 8 * 7).min(32 << 30);
    let client = async_nats::connect(&nats.url).await.expect("connects");
    let stream = async_nats::jetstream::stream::Config {
        name: "large".into(),
        max_bytes: wanted.try_into().expect("below 32 GiB"),
        ..Default::default()
    };
    let made = async_nats::jetstream::new(client)
        .create_stream(stream)
        .await;
    made.expect("the stream is taken");
}

#[tokio::test]
async fn a_stale_pid_file_does_not_matter() {
    let nats = testing::nats().await;
    let settings = nats.server.settings().clone();
    let pid_file = settings.data_dir.join("nats-server.pid");
    nats.server.stop().await;
    assert!(!pid_file.exists(), "a stopped server leaves none");
    // Our own pid: alive, but no server of ours.
    std::fs::write(&pid_file, format!("{}\n", std::process::id())).expect("writes");
    let server = NatsServer::start(settings).await.expect("starts");
    assert_ne!(server.pid(), std::process::id());
}

#[tokio::test]
async fn a_folder_in_use_is_refused_and_its_server_left_alone() {
    let nats = testing::nats().await;
    let Err(error) = NatsServer::start(nats.server.settings().clone()).await else {
        panic!("two servers on one folder")
    };
    assert!(matches!(error, ServerError::FolderInUse { .. }), "{error}");
    assert_eq!(store_one(&nats.url).await, 1);
}

#[tokio::test]
async fn a_server_left_by_a_killed_parent_is_replaced() {
    let nats = testing::nats().await;
    let settings = nats.server.settings().clone();
    nats.server.stop().await;
    // What a parent that was killed leaves where the kernel does not end its children.
    let mut left = std::process::Command::new(settings.bin.as_ref().expect("was found"))
        .arg("-c")
        .arg(settings.data_dir.join("nats-server.conf"))
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("starts");
    let pid_file = settings.data_dir.join("nats-server.pid");
    std::fs::write(pid_file, left.id().to_string()).expect("writes");
    // At work, as one that was left is: right after its start a process has no command line yet to know it by.
    let address = (settings.host.clone(), settings.port);
    while tokio::net::TcpStream::connect(&address).await.is_err() {
        assert!(
            left.try_wait().expect("is ours").is_none(),
            "it ended by itself"
        );
        tokio::task::yield_now().await;
    }
    let server = NatsServer::start(settings)
        .await
        .expect("starts on the same port");
    assert!(
        left.try_wait().expect("is ours").is_some(),
        "the old one has ended"
    );
    assert_eq!(store_one(&server.url()).await, 1);
}

#[tokio::test]
async fn a_server_that_cannot_start_says_why() {
    let nats = testing::nats().await;
    let mut settings = NatsSettings::new(nats.dir().join("bad"));
    (settings.port, settings.ws_port, settings.monitor_port) = (0, 0, 0);
    settings.host = "192.0.2.1".into(); // reserved for documents: nobody's address
    let Err(error) = NatsServer::start(settings).await else {
        panic!("it listens on an address that is not ours")
    };
    let text = error.to_string();
    assert!(
        text.contains("192.0.2.1") || text.contains("port"),
        "{text}"
    );
}

#[tokio::test]
async fn three_servers_hold_a_stream_three_times() {
    let cluster = testing::nats_cluster().await;
    let client = async_nats::connect(&cluster.nodes[1].url)
        .await
        .expect("connects");
    let context = jetstream::new(client);
    let made = context
        .create_stream(stream::Config {
            name: "thrice".into(),
            num_replicas: 3,
            ..Default::default()
        })
        .await
        .expect("makes the stream");
    assert_eq!(made.cached_info().config.num_replicas, 3);
}

#[tokio::test]
async fn servers_join_a_cluster_with_its_secret_alone() {
    // Given a cluster whose servers hold the same keys.
    let keys = tempfile::tempdir().expect("a folder");
    let authority = Authority::load_or_create(keys.path()).expect("makes keys");
    let cluster =
        testing::nats_cluster_with(|_, settings| settings.auth = Some(authority.clone())).await;
    let admin = authority.mint("admin", &Permissions::all()).expect("mints");
    let context = jetstream::new(with_creds(&cluster.nodes[0].url, &admin).await);
    let made = context
        .create_stream(stream::Config {
            name: "thrice".into(),
            num_replicas: 3,
            ..Default::default()
        })
        .await
        .expect("makes the stream");
    let others = made
        .cached_info()
        .cluster
        .as_ref()
        .map(|found| found.replicas.len());
    assert_eq!(others, Some(2));

    // When a server with other keys wants to join, then it is refused.
    let others_keys = tempfile::tempdir().expect("a folder");
    let other = Authority::load_or_create(others_keys.path()).expect("makes keys");
    let joined = cluster.nodes[0].server.settings().cluster.clone();
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .and_then(|free| free.local_addr())
        .expect("a free port")
        .port();
    let stranger = tokio::spawn(testing::nats_with(move |settings| {
        settings.name = "stranger".into();
        settings.auth = Some(other);
        settings.cluster = joined.map(|cluster| ClusterSettings { port, ..cluster });
    }));
    let log = cluster.nodes[0]
        .server
        .settings()
        .data_dir
        .join("nats-server.log");
    let refused = async {
        loop {
            let said = std::fs::read_to_string(&log).expect("a log");
            if said.contains("authentication error") {
                break said;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(10), refused)
        .await
        .unwrap_or_else(|_| panic!("{}", std::fs::read_to_string(&log).unwrap_or_default()));
    assert!(
        !said.contains("Registering remote route \"stranger"),
        "{said}"
    );
    stranger.abort();
}

async fn with_creds(url: &str, creds: &str) -> Client {
    ConnectOptions::with_credentials(creds)
        .expect("creds are read")
        .connect(url)
        .await
        .expect("connects")
}

fn may(publish: &[&str], subscribe: &[&str]) -> Permissions {
    let list = |subjects: &[&str]| subjects.iter().map(|s| (*s).to_owned()).collect();
    Permissions {
        publish: list(publish),
        subscribe: list(subscribe),
        responses: false,
    }
}

/// What arrives within a moment; a refused publish shows only by not arriving.
async fn next(messages: &mut async_nats::Subscriber) -> Option<String> {
    let message = tokio::time::timeout(Duration::from_millis(300), messages.next()).await;
    message
        .ok()
        .flatten()
        .map(|message| message.subject.to_string())
}

#[tokio::test]
async fn a_user_speaks_and_hears_only_what_its_credentials_allow() {
    let (nats, authority) = testing::nats_with_auth().await;
    assert!(
        async_nats::connect(&nats.url).await.is_err(),
        "nobody comes in without credentials"
    );

    let admin = authority.mint("admin", &Permissions::all()).expect("mints");
    let admin = with_creds(&nats.url, &admin).await;
    let mut all = admin.subscribe(">").await.expect("subscribes");
    admin.publish("ready", "".into()).await.expect("sends");
    assert_eq!(next(&mut all).await.as_deref(), Some("ready"));

    let agent = authority
        .mint("agent", &may(&["mine.>"], &["for.me"]))
        .expect("mints");
    let agent = with_creds(&nats.url, &agent).await;
    let mut heard = agent.subscribe("for.me").await.expect("subscribes");
    let mut overheard = agent
        .subscribe("for.you")
        .await
        .expect("the refusal comes later");
    agent.publish("yours.x", "".into()).await.expect("sends");
    agent.publish("mine.x", "".into()).await.expect("sends");
    agent.flush().await.expect("flushes");
    assert_eq!(
        next(&mut all).await.as_deref(),
        Some("mine.x"),
        "yours.x was refused"
    );

    admin.publish("for.you", "".into()).await.expect("sends");
    admin.publish("for.me", "".into()).await.expect("sends");
    assert_eq!(next(&mut heard).await.as_deref(), Some("for.me"));
    assert_eq!(next(&mut overheard).await, None);

    let mute = authority.mint("mute", &may(&[], &[])).expect("mints");
    let mute = with_creds(&nats.url, &mute).await;
    mute.publish("mine.y", "".into()).await.expect("sends");
    mute.flush().await.expect("flushes");
    while let Some(subject) = next(&mut all).await {
        assert_ne!(subject, "mine.y", "an empty list allows nothing");
    }
}

#[tokio::test]
async fn one_who_may_respond_may_answer_at_any_inbox() {
    let (nats, authority) = testing::nats_with_auth().await;
    let admin = authority.mint("admin", &Permissions::all()).expect("mints");
    let admin = with_creds(&nats.url, &admin).await;
    let mut permissions = may(&[], &["ask"]);
    permissions.responses = true;
    let answerer = authority.mint("answerer", &permissions).expect("mints");
    let answerer = with_creds(&nats.url, &answerer).await;
    let mut asked = answerer.subscribe("ask").await.expect("subscribes");
    answerer.flush().await.expect("flushes");
    tokio::spawn(async move {
        let question = asked.next().await.expect("is asked");
        let reply = question.reply.expect("wants an answer");
        answerer
            .publish(reply, "yes".into())
            .await
            .expect("answers");
        answerer.flush().await.expect("flushes");
    });
    // The subscription may still be on its way to the server.
    for _ in 0..100 {
        match admin.request("ask", "".into()).await {
            Ok(answer) => return assert_eq!(answer.payload, "yes"),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("no answer");
}

#[tokio::test]
async fn the_system_user_hears_who_disconnects_and_the_streams_are_the_admins() {
    let (mut nats, authority) = testing::nats_with_auth().await;
    let creds = authority.write_system_creds().expect("writes");
    let mode = creds.metadata().expect("is there").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let system = ConnectOptions::with_credentials_file(&creds)
        .await
        .expect("reads")
        .connect(&nats.url)
        .await
        .expect("connects");
    let mut notices = system
        .subscribe("$SYS.ACCOUNT.*.DISCONNECT")
        .await
        .expect("subscribes");
    system.flush().await.expect("flushes");

    let admin_creds = authority.write_admin_creds().expect("writes");
    let admin_creds = std::fs::read_to_string(admin_creds).expect("reads");
    let admin = with_creds(&nats.url, &admin_creds).await;
    let context = jetstream::new(admin.clone());
    let config = stream::Config {
        name: "theirs".into(),
        ..Default::default()
    };
    context
        .create_stream(config)
        .await
        .expect("JetStream is theirs");
    drop(context);
    admin.drain().await.expect("drains");
    drop(admin);
    assert!(
        next(&mut notices).await.is_some(),
        "a notice of the disconnect"
    );

    // The same keys after a restart: old credentials still hold.
    nats.restart().await;
    let again = Authority::load_or_create(&nats.server.settings().data_dir.join("keys"));
    assert_eq!(
        again.expect("reads").swarm_account_seed(),
        authority.swarm_account_seed()
    );
    with_creds(&nats.url, &admin_creds).await;
}

/// The other process of the test below; does nothing when run by itself.
#[tokio::test]
async fn parent_that_never_stops() {
    if std::env::var_os("BE_THE_PARENT").is_none() {
        return;
    }
    let nats = testing::nats().await;
    println!("server {} {}", nats.server.pid(), nats.dir().display());
    std::future::pending::<()>().await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_server_ends_when_its_parent_is_killed() {
    use std::io::{BufRead, BufReader};
    use std::process::{Command, Stdio};

    let mut parent = Command::new(std::env::current_exe().expect("is known"))
        .args(["--exact", "parent_that_never_stops", "--nocapture"])
        .env("BE_THE_PARENT", "1")
        .stdout(Stdio::piped())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(parent.stdout.take().expect("is piped")).lines();
    let said = lines
        .map_while(Result::ok)
        .find_map(|line| line.split_once("server ").map(|(_, said)| said.to_owned()))
        .expect("says which process the server is");
    let (pid, dir) = said.split_once(' ').expect("and where");
    parent.kill().expect("is killed");
    parent.wait().expect("has ended");
    let stat = format!("/proc/{pid}/stat");
    for _ in 0..200 {
        // Gone, or ended and not yet collected by whoever inherited it.
        match std::fs::read_to_string(&stat) {
            Ok(text) if !text.contains(") Z ") => {}
            _ => return std::fs::remove_dir_all(dir).expect("removes what the parent could not"),
        }
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    panic!("nats-server {pid} outlived its parent");
}
