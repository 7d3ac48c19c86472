//! What an agent's settings may hold: each wrong one is refused by its field, each limit holds, and nothing is passed over.

mod support;

use std::collections::BTreeMap;

use support::{
    Given,
    hosts::{slot, spec, webhook},
    pair,
};
use swarm_coordinator_core::{
    CPU_PERCENT_MAX, CRASH_LIMIT_MAX, MEMORY_KIB_MAX, MEMORY_KIB_MIN, METADATA_BYTES_MAX,
    PROCESSES_MAX, RESTART_MS_MIN, URL_BYTES_MAX, WORKING_DIR_BYTES_MAX,
};
use swarm_events::{
    Json,
    agent::{
        Adapter, AgentSpec, CAPABILITIES_MAX, COMMAND_BYTES_MAX, ENV_BYTES_MAX, ENV_MAX,
        NAME_CHARS_MAX, Restart, TYPE_CHARS_MAX,
    },
    configuration::{SLOTS_MAX, TIMEOUT_MS_MAX, WAITING_MAX},
};

fn with(change: impl FnOnce(&mut AgentSpec)) -> AgentSpec {
    let mut changed = spec("worker");
    change(&mut changed);
    changed
}
fn url(url: &str) -> AgentSpec {
    AgentSpec {
        url: Some(url.into()),
        ..webhook()
    }
}
fn place_with(change: impl FnOnce(&mut AgentSpec)) -> AgentSpec {
    let mut changed = slot("worker");
    change(&mut changed);
    changed
}
fn env(count: usize, bytes: usize) -> BTreeMap<String, String> {
    let mut env: BTreeMap<_, _> = (0..count)
        .map(|n| (format!("V{n:03}"), String::new()))
        .collect();
    let names = count * 4;
    if let Some(first) = env.values_mut().next() {
        *first = "x".repeat(bytes - names);
    }
    env
}

fn refused(cases: Vec<(AgentSpec, &str, &str)>) {
    let mut given = Given::a_swarm("{}");
    for (spec, code, field) in cases {
        let told = format!("{spec:?}");
        let told = told.chars().take(300).collect::<String>();
        let id = given.add(1, spec);
        assert_eq!(given.refused(id), pair(code, field), "{told}");
    }
    assert!(given.swarm(1).agents.is_empty());
}

#[test]
fn what_an_agent_is_is_checked() {
    let many = |n: usize| (0..n).map(|i| format!("c{i}")).collect::<Vec<_>>();
    refused(vec![
        (
            with(|s| s.agent_type = String::new()),
            "empty",
            "agent_type",
        ),
        (
            with(|s| s.agent_type = "x".repeat(TYPE_CHARS_MAX + 1)),
            "too-long",
            "agent_type",
        ),
        (
            with(|s| s.agent_name = Some(" ".into())),
            "empty",
            "agent_name",
        ),
        (
            with(|s| s.agent_name = Some("x".repeat(NAME_CHARS_MAX + 1))),
            "too-long",
            "agent_name",
        ),
        (
            with(|s| s.capabilities = many(CAPABILITIES_MAX + 1)),
            "too-many",
            "capabilities",
        ),
        (
            with(|s| s.capabilities = vec!["\n".into()]),
            "empty",
            "capabilities[0]",
        ),
        (with(|s| s.slots = Some(0)), "out-of-range", "slots"),
        (
            with(|s| s.slots = Some(SLOTS_MAX + 1)),
            "out-of-range",
            "slots",
        ),
        (
            with(|s| s.waiting = Some(WAITING_MAX + 1)),
            "out-of-range",
            "waiting",
        ),
        (
            with(|s| s.metadata = Json::parse("3").expect("JSON")),
            "wrong-type",
            "metadata",
        ),
        (
            with(|s| {
                s.metadata =
                    Json::parse(&format!(r#"{{"a":"{}"}}"#, "x".repeat(METADATA_BYTES_MAX)))
                        .expect("JSON")
            }),
            "too-long",
            "metadata",
        ),
    ]);
}

#[test]
fn command_and_url_fit_the_adapter() {
    let process = |s: &mut AgentSpec| s.adapter = Some(Adapter::Process);
    refused(vec![
        (with(|s| s.command.clear()), "missing", "command"),
        (
            with(|s| {
                process(s);
                s.command.clear();
            }),
            "missing",
            "command",
        ),
        (
            with(|s| s.command = vec![" ".into(), "a".into()]),
            "missing",
            "command",
        ),
        (
            with(|s| s.command = vec!["a".into(), "b\0".into()]),
            "control-character",
            "command[1]",
        ),
        (
            with(|s| s.command = vec!["x".repeat(COMMAND_BYTES_MAX), "y".into()]),
            "too-long",
            "command",
        ),
        (
            with(|s| s.url = Some("https://a".into())),
            "not-for-adapter",
            "url",
        ),
        (
            with(|s| {
                process(s);
                s.url = Some("https://a".into());
            }),
            "not-for-adapter",
            "url",
        ),
        (
            AgentSpec {
                url: None,
                ..webhook()
            },
            "missing",
            "url",
        ),
        (
            AgentSpec {
                command: vec!["wc".into()],
                ..webhook()
            },
            "not-for-adapter",
            "command",
        ),
    ]);
}

#[test]
fn a_webhook_is_an_http_address_without_secrets() {
    let long = format!("http://a/{}", "x".repeat(URL_BYTES_MAX - 8));
    refused(vec![
        (url(""), "wrong-scheme", "url"),
        (url("example.org"), "wrong-scheme", "url"),
        (url("ftp://example.org"), "wrong-scheme", "url"),
        (url("file:///etc/passwd"), "wrong-scheme", "url"),
        (url("https://"), "wrong-format", "url"),
        (url("https:///path"), "wrong-format", "url"),
        (url("https://:80/"), "wrong-format", "url"),
        (url("https://a:0/"), "wrong-format", "url"),
        (url("https://a:65536/"), "wrong-format", "url"),
        (url("https://a:b/"), "wrong-format", "url"),
        (url("https://a b/"), "wrong-format", "url"),
        (url("https://a/\u{e9}"), "wrong-format", "url"),
        (url("https://a/\n"), "wrong-format", "url"),
        (url("https://a/#there"), "wrong-format", "url"),
        (url("https://me:secret@a/"), "credentials", "url"),
        (url(&long), "too-long", "url"),
    ]);
    let mut given = Given::a_swarm("{}");
    for (n, good) in [
        "http://a",
        "HTTPS://example.org:8443/work?x=1&y=a@b",
        "http://[::1]:80/",
        "http://[::1]",
        &long[..URL_BYTES_MAX],
    ]
    .into_iter()
    .enumerate()
    {
        let id = given.add(n as u128, url(good));
        assert_eq!(given.answered_by(id), "swarm.agent.added.v1", "{good}");
    }
}

#[test]
fn the_environment_is_checked_by_name_and_size() {
    let one = |name: &str, value: &str| {
        let (name, value) = (name.to_owned(), value.to_owned());
        with(|s| {
            s.env.insert(name, value);
        })
    };
    let pass = |names: &[&str]| {
        let names = names.iter().map(|n| (*n).to_owned()).collect();
        with(|s| s.pass_env = names)
    };
    refused(vec![
        (one("", "x"), "wrong-format", "env."),
        (one("A=B", "x"), "wrong-format", "env.A=B"),
        (one("1A", "x"), "wrong-format", "env.1A"),
        (one("A-B", "x"), "wrong-format", "env.A-B"),
        (one("\u{c4}", "x"), "wrong-format", "env.\u{c4}"),
        (one("SWARM_AGENT_ID", "x"), "reserved", "env.SWARM_AGENT_ID"),
        (one("A", "\0"), "control-character", "env.A"),
        (with(|s| s.env = env(ENV_MAX + 1, 2_000)), "too-many", "env"),
        (
            with(|s| s.env = env(2, ENV_BYTES_MAX + 1)),
            "too-long",
            "env",
        ),
        (pass(&["A B"]), "wrong-format", "pass_env[0]"),
        (pass(&["A", "SWARM_NATS_CREDS"]), "reserved", "pass_env[1]"),
        (pass(&["A", "A"]), "repeated", "pass_env[1]"),
        (
            with(|s| {
                s.env.insert("A".into(), "1".into());
                s.pass_env = vec!["A".into()];
            }),
            "repeated",
            "pass_env[0]",
        ),
        (
            with(|s| {
                s.env = env(ENV_MAX, 2_000);
                s.pass_env = vec!["A".into()];
            }),
            "too-many",
            "pass_env",
        ),
        (
            pass(&[&"X".repeat(ENV_BYTES_MAX + 1)]),
            "too-long",
            "pass_env",
        ),
    ]);
}

#[test]
fn folder_policy_and_limits_are_checked() {
    let long = format!("/{}", "x".repeat(WORKING_DIR_BYTES_MAX));
    refused(vec![
        (
            with(|s| s.working_dir = Some("work".into())),
            "wrong-format",
            "working_dir",
        ),
        (
            with(|s| s.working_dir = Some(String::new())),
            "wrong-format",
            "working_dir",
        ),
        (
            with(|s| s.working_dir = Some("/a\0".into())),
            "control-character",
            "working_dir",
        ),
        (
            with(|s| s.working_dir = Some(long)),
            "too-long",
            "working_dir",
        ),
        (
            with(|s| s.restart.backoff_ms = RESTART_MS_MIN - 1),
            "out-of-range",
            "restart.backoff_ms",
        ),
        (
            with(|s| s.restart.backoff_ms = TIMEOUT_MS_MAX + 1),
            "out-of-range",
            "restart.backoff_ms",
        ),
        (
            with(|s| s.restart.backoff_cap_ms = s.restart.backoff_ms - 1),
            "out-of-range",
            "restart.backoff_cap_ms",
        ),
        (
            with(|s| s.restart.backoff_cap_ms = TIMEOUT_MS_MAX + 1),
            "out-of-range",
            "restart.backoff_cap_ms",
        ),
        (
            with(|s| s.restart.stable_ms = RESTART_MS_MIN - 1),
            "out-of-range",
            "restart.stable_ms",
        ),
        (
            with(|s| s.restart.stable_ms = TIMEOUT_MS_MAX + 1),
            "out-of-range",
            "restart.stable_ms",
        ),
        (
            with(|s| s.restart.crash_limit = CRASH_LIMIT_MAX + 1),
            "out-of-range",
            "restart.crash_limit",
        ),
        (
            with(|s| s.limits.memory_kib = Some(MEMORY_KIB_MIN - 1)),
            "out-of-range",
            "limits.memory_kib",
        ),
        (
            with(|s| s.limits.memory_kib = Some(MEMORY_KIB_MAX + 1)),
            "out-of-range",
            "limits.memory_kib",
        ),
        (
            with(|s| s.limits.cpu_percent = Some(0)),
            "out-of-range",
            "limits.cpu_percent",
        ),
        (
            with(|s| s.limits.cpu_percent = Some(CPU_PERCENT_MAX + 1)),
            "out-of-range",
            "limits.cpu_percent",
        ),
        (
            with(|s| s.limits.processes = Some(0)),
            "out-of-range",
            "limits.processes",
        ),
        (
            with(|s| s.limits.processes = Some(PROCESSES_MAX + 1)),
            "out-of-range",
            "limits.processes",
        ),
    ]);
}

#[test]
fn what_a_place_for_a_process_by_hand_cannot_heed_is_refused() {
    refused(vec![
        (
            place_with(|s| s.command = vec!["wc".into()]),
            "not-for-adapter",
            "command",
        ),
        (
            place_with(|s| s.url = Some("https://a".into())),
            "not-for-adapter",
            "url",
        ),
        (place_with(|s| s.env = env(1, 5)), "not-for-adapter", "env"),
        (
            place_with(|s| s.pass_env = vec!["A".into()]),
            "not-for-adapter",
            "pass_env",
        ),
        (
            place_with(|s| s.working_dir = Some("/".into())),
            "not-for-adapter",
            "working_dir",
        ),
        (
            place_with(|s| s.restart.restart = Restart::Never),
            "not-for-adapter",
            "restart",
        ),
        (
            place_with(|s| s.limits.processes = Some(1)),
            "not-for-adapter",
            "limits",
        ),
    ]);
}

#[test]
fn at_every_limit_an_agent_is_taken() {
    let mut given = Given::a_swarm("{}");
    let long = format!("/{}", "x".repeat(WORKING_DIR_BYTES_MAX - 1));
    let most = with(|s| {
        s.agent_type = "x".repeat(TYPE_CHARS_MAX);
        s.agent_name = Some("x".repeat(NAME_CHARS_MAX));
        s.slots = Some(SLOTS_MAX);
        s.waiting = Some(WAITING_MAX);
        s.command = vec!["x".repeat(COMMAND_BYTES_MAX - 1), "y".into()];
        s.env = env(ENV_MAX - 1, ENV_BYTES_MAX);
        s.pass_env = vec!["A".into()];
        s.working_dir = Some(long);
        s.restart.backoff_ms = TIMEOUT_MS_MAX;
        s.restart.backoff_cap_ms = TIMEOUT_MS_MAX;
        s.restart.stable_ms = TIMEOUT_MS_MAX;
        s.restart.crash_limit = CRASH_LIMIT_MAX;
        s.limits.memory_kib = Some(MEMORY_KIB_MAX);
        s.limits.cpu_percent = Some(CPU_PERCENT_MAX);
        s.limits.processes = Some(PROCESSES_MAX);
    });
    let least = with(|s| {
        s.restart.backoff_ms = RESTART_MS_MIN;
        s.restart.backoff_cap_ms = RESTART_MS_MIN;
        s.restart.stable_ms = RESTART_MS_MIN;
        s.restart.crash_limit = 0;
        s.limits.memory_kib = Some(MEMORY_KIB_MIN);
        s.limits.cpu_percent = Some(1);
        s.limits.processes = Some(1);
        s.waiting = Some(0);
        s.metadata = Json::null();
    });
    for (n, spec) in [most, least].into_iter().enumerate() {
        let id = given.add(n as u128, spec);
        assert_eq!(given.answered_by(id), "swarm.agent.added.v1");
    }
    assert_eq!(given.agent(1).profile.metadata, Json::object());
    let largest = given.0.log.iter().map(|stored| stored.payload.len()).max();
    assert!(largest.expect("some") < 200_000, "{largest:?}");
}
