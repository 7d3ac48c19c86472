//! What a process finds: environment, folders, credentials, and what its host says of it.

use std::{collections::BTreeMap, os::unix::fs::MetadataExt, path::Path, sync::Arc};

use futures::StreamExt;
use swarm_agent_host::{Allow, RunUser};
use swarm_events::{
    permissions::User,
    subject::{host_beat, host_connection_name},
    swarm::HostBeat,
};
use swarm_log::connect::{ConnectSettings, Credentials, connect};
use swarm_servers::{Permissions, testing::nats_with_auth};
use tokio::time::timeout;

use crate::ground::{Ground, Host, PATIENCE, agent, open};

fn permissions(user: User) -> Permissions {
    let swarm_events::permissions::Permissions {
        publish,
        subscribe,
        responses,
    } = user.permissions();
    Permissions {
        publish,
        subscribe,
        responses,
    }
}

fn variables(text: &str) -> BTreeMap<String, String> {
    let pairs = text.lines().filter_map(|line| line.split_once('='));
    pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_has_a_clean_environment_and_folders_of_its_own() {
    let mut ground = Ground::new().await;
    let mut settings = ground.settings("one");
    settings.allow = Allow::new("*", "CARGO_PKG_NAME");
    let host = ground.host(settings).await;
    let agent = agent();
    let out = ground.dir.path().join("out");
    let script = format!(
        "env > {0}/env; pwd > {0}/pwd; ls -ld . > {0}/ls; exit 0",
        out.display()
    );
    std::fs::create_dir(&out).expect("made");
    ground
        .request_spec(
            agent,
            3,
            serde_json::json!({
                "command": ["sh", "-c", script], "agent_name": "Ada", "capabilities": ["a", "b c"],
                "slots": 2, "env": {"COLOR": "red", "LANG": "C"}, "pass_env": ["CARGO_PKG_NAME"],
                "metadata": {"k": [1]},
            }),
        )
        .await;
    ground.launched(agent).await;
    assert_eq!(ground.exited(agent).await.exit.code, Some(0));
    let read = |name: &str| std::fs::read_to_string(out.join(name)).expect("written");
    let mut env = variables(&read("env"));
    for (name, value) in [
        ("SWARM_NATS_URL", ground.nats.url.clone()),
        ("SWARM_ORG_ID", ground.place.org.to_string()),
        ("SWARM_SWARM_ID", ground.place.swarm.to_string()),
        ("SWARM_AGENT_ID", agent.to_string()),
        ("SWARM_AGENT_NAME", "Ada".into()),
        ("SWARM_AGENT_TYPE", "t".into()),
        ("SWARM_AGENT_CAPABILITIES", r#"["a","b c"]"#.into()),
        ("SWARM_AGENT_SLOTS", "2".into()),
        ("SWARM_AGENT_METADATA", r#"{"k":[1]}"#.into()),
        ("SWARM_AGENT_SPAWN", "3".into()),
        ("SWARM_DRAIN_GRACE_MS", crate::ground::GRACE_MS.to_string()),
        ("COLOR", "red".into()),
        ("LANG", "C".into()),
        ("CARGO_PKG_NAME", "swarm-agent-host".into()),
    ] {
        assert_eq!(env.remove(name), Some(value), "{name}");
    }
    let home = env.remove("HOME").expect("a home");
    let (pwd, tmp) = (read("pwd"), env.remove("TMPDIR").expect("a folder"));
    assert!(Path::new(&home).starts_with(ground.dir.path()));
    assert!(Path::new(&tmp).starts_with(ground.dir.path()));
    assert!(pwd.trim().ends_with("/work"), "{pwd}");
    assert!(read("ls").starts_with("drwx------"));
    // The shell adds what it keeps for itself.
    for name in ["PATH", "PWD", "OLDPWD", "SHLVL", "_"] {
        env.remove(name);
    }
    assert_eq!(env, BTreeMap::new(), "nothing of the host's own");
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_works_within_its_rights_and_hands_out_an_agents_own() {
    let (nats, authority) = nats_with_auth().await;
    let mint = |user: User| authority.mint("x", &permissions(user)).expect("minted");
    let all = authority.mint("test", &Permissions::all()).expect("minted");
    let mut settings = ConnectSettings::new(&nats.url, "test");
    settings.creds = Some(Credentials::Text(all));
    let mut ground = Ground::on(nats, settings).await;
    let mut settings = ground.settings("one");
    let minting = authority.clone();
    settings.mint = Arc::new(move |place, agent| {
        let may = permissions(User::Agent(place, agent));
        let text = minting
            .mint("agent", &may)
            .map_err(|error| error.to_string())?;
        Ok(Some(text))
    });
    let name = host_connection_name(settings.instance);
    let mut own = ConnectSettings::new(&ground.nats.url, name);
    own.creds = Some(Credentials::Text(mint(User::Host)));
    let host = Host::start(open(own).await, settings);
    let beats = ground.log.client().subscribe(host_beat(host.instance));
    let mut beats = beats.await.expect("subscribed");
    let agent = agent();
    let copy = ground.dir.path().join("copy");
    let script = format!(
        "stat -c %a $SWARM_NATS_CREDS > {0}.mode; cat $SWARM_NATS_CREDS > {0}; echo hello; exec sleep 1000",
        copy.display()
    );
    ground.request(agent, 1, &script).await;
    ground.launched(agent).await;
    // Its beat tells of the process, by the operating system's figures.
    let seen = timeout(PATIENCE, async {
        loop {
            let beat = beats.next().await.expect("a beat");
            let beat: HostBeat = serde_json::from_slice(&beat.payload).expect("JSON");
            if let Some(figures) = beat.agents.get(&agent)
                && figures.memory_kib > 0
            {
                return (beat.room, figures.processes, beat.name);
            }
        }
    });
    let seen = seen.await.expect("in time");
    assert_eq!(seen, (99, 1, "one".to_owned()));
    let tail = swarm_events::subject::agent_log_tail(ground.place.org, ground.place.swarm, agent);
    let answer = ground.log.client().request(tail, "{}".into()).await;
    let answer = String::from_utf8_lossy(&answer.expect("it may answer").payload).into_owned();
    assert!(answer.contains("hello"), "{answer}");
    ground.stop(agent, 1, 0).await;
    ground.exited(agent).await;
    let mode = std::fs::read_to_string(copy.with_extension("mode")).expect("written");
    assert_eq!(mode, "600\n");
    let creds = std::fs::read_to_string(&copy).expect("written");
    let mut as_agent = ConnectSettings::new(&ground.nats.url, "agent");
    as_agent.creds = Some(Credentials::Text(creds));
    let connected = connect(as_agent).await;
    connected.expect("they are an agent's credentials");
    host.stop().await;
    ground.assert_clean().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn root_runs_agents_as_somebody_else() {
    if !rustix::process::geteuid().is_root() {
        return eprintln!("SKIPPED: only root can run agents as another user");
    }
    let mut ground = Ground::new().await;
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o711);
    std::fs::set_permissions(ground.dir.path(), open).expect("ours");
    let mut settings = ground.settings("one");
    settings.user = Some(RunUser::parse("65534:65534").expect("numbers"));
    let host = ground.host(settings).await;
    let agent = agent();
    ground
        .request(
            agent,
            1,
            "id -u; id -G; touch x && ls -n x; echo up; exec sleep 1000",
        )
        .await;
    let pid = ground.launched(agent).await.pid;
    ground.up(agent).await;
    let owner = std::fs::metadata(format!("/proc/{pid}"))
        .expect("it runs")
        .uid();
    assert_eq!(owner, 65_534);
    ground.stop(agent, 1, 2_000).await;
    let said = ground.exited(agent).await.last_output;
    assert!(
        said.starts_with("65534\n65534\n"),
        "no group of root's: {said}"
    );
    assert!(said.contains("65534 65534"), "{said}");
    host.stop().await;
    ground.assert_clean().await;
}
