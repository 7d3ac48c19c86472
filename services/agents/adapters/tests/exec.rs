//! The exec adapter with real commands, and the process table after them.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{Pid, test_kill_process_group},
};
use serde_json::{Value, json};
use swarm_agent_adapters::{
    ExecAdapter, KILL_GRACE, NoCommand, STDERR_TAIL_BYTES, STDOUT_BYTES_MAX,
};
use swarm_agent_sdk::{Handler, TaskContext, TaskError};
use swarm_events::Json;
use tempfile::TempDir;

/// Nothing here takes this long unless it hangs.
const PATIENCE: Duration = Duration::from_secs(60);

fn command(words: &[&str]) -> ExecAdapter {
    ExecAdapter::new(words.iter().map(|word| (*word).to_owned()).collect()).expect("a command")
}
fn sh(script: &str) -> ExecAdapter {
    command(&["sh", "-c", script])
}
fn context(payload: Value) -> TaskContext {
    TaskContext::detached("count", payload.into(), PATIENCE).0
}
async fn run(adapter: &ExecAdapter) -> Result<Value, TaskError> {
    adapter
        .handle(context(json!({})))
        .await
        .map(|json| json.to_value())
}
async fn error(adapter: &ExecAdapter) -> TaskError {
    run(adapter).await.expect_err("it fails")
}

/// Whether a process of the group is in the process table, dead ones that nobody reaped included.
fn lives(group: i32) -> bool {
    test_kill_process_group(Pid::from_raw(group).expect("a group")) != Err(Errno::SRCH)
}
fn group_in(file: &Path) -> Option<i32> {
    fs::read_to_string(file)
        .ok()?
        .strip_suffix('\n')?
        .parse()
        .ok()
}
async fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < PATIENCE, "{what} did not come");
        tokio::time::sleep(Duration::from_millis(2)).await; // between looks at the operating system
    }
}
fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder")
}

#[tokio::test]
async fn a_command_made_for_people_works_as_it_is() {
    assert_eq!(
        run(&command(&["wc", "-l"])).await,
        Ok(json!({"stdout": "1\n"}))
    );
}

#[tokio::test]
async fn stdin_is_one_json_object() {
    let task = context(json!({"path": "a b"}));
    let (id, deadline) = (task.id, task.deadline);
    let read = command(&["cat"])
        .handle(task)
        .await
        .expect("it succeeds")
        .to_value();
    let expected = json!({
        "id": id, "task_type": "count", "payload": {"path": "a b"}, "inputs": {}, "attempt": 1, "fencing_token": 1, "deadline": deadline
    });
    assert_eq!(read, expected);
}

#[tokio::test]
async fn a_python_script_reads_its_payload_and_prints_its_result() {
    let script = "
import json, sys
task = json.load(sys.stdin)
print('working')
print(json.dumps({'progress': 50, 'message': 'half'}), flush=True)
print(json.dumps({'sum': sum(task['payload'])}))
";
    let (task, told) = TaskContext::detached("sum", json!([1, 2, 3]).into(), PATIENCE);
    let result = command(&["python3", "-c", script])
        .handle(task)
        .await
        .expect("it succeeds");
    assert_eq!(result.to_value(), json!({"sum": 6}));
    assert_eq!(*told.borrow(), (Some(50), Some("half".to_owned())));
}

#[tokio::test]
async fn the_environment_is_clean_and_names_the_task() {
    let task = context(json!({}));
    let id = task.id.to_string();
    let adapter = command(&["env"]).env("EXTRA", "yes");
    let printed = adapter.handle(task).await.expect("it succeeds").to_value();
    let lines: Vec<&str> = printed["stdout"].as_str().expect("text").lines().collect();
    for wanted in [
        format!("SWARM_TASK_ID={id}"),
        "SWARM_ATTEMPT=1".into(),
        "SWARM_FENCING_TOKEN=1".into(),
        "EXTRA=yes".into(),
    ] {
        assert!(
            lines.contains(&wanted.as_str()),
            "{wanted} is not in {lines:?}"
        );
    }
    assert!(
        std::env::vars().any(|(name, _)| name.starts_with("CARGO")),
        "this test runs below cargo"
    );
    for line in lines {
        let name = line.split('=').next().unwrap_or_default();
        let known = [
            "PATH",
            "HOME",
            "LANG",
            "TMPDIR",
            "SWARM_TASK_ID",
            "SWARM_ATTEMPT",
            "SWARM_FENCING_TOKEN",
            "EXTRA",
            // What a shell sets for itself: bash does, dash does not.
            "PWD",
            "SHLVL",
            "_",
        ];
        assert!(known.contains(&name), "{line}");
    }
}

#[tokio::test]
async fn a_command_need_not_read_its_input() {
    let task = context(json!("x".repeat(1_000_000)));
    assert_eq!(
        command(&["true"])
            .handle(task)
            .await
            .map(|json| json.to_value()),
        Ok(json!({"stdout": ""}))
    );
}

#[tokio::test]
async fn a_failure_shows_the_exit_code_and_the_end_of_stderr() {
    let failed = error(&sh("echo the cause >&2; exit 3")).await;
    assert_eq!(
        failed,
        TaskError::retryable("sh exited with code 3: the cause")
    );
    assert_eq!(
        error(&command(&["false"])).await,
        TaskError::retryable("false exited with code 1")
    );
    let failed = error(&sh("kill -SEGV $$")).await;
    assert_eq!(
        failed,
        TaskError::retryable("sh was killed by signal 11 (SIGSEGV)")
    );
}

#[tokio::test]
async fn a_command_can_say_that_no_other_attempt_will_help() {
    for (script, message, retryable) in [
        (
            r#"echo working; echo '{"error": "no such user", "retryable": false}'; exit 1"#,
            "sh exited with code 1: no such user",
            false,
        ),
        (
            "echo bad input >&2; exit 65",
            "sh exited with code 65: bad input",
            false,
        ),
        // Its own word counts for more than its exit code.
        (
            r#"echo '{"error": "try later", "retryable": true}'; exit 65"#,
            "sh exited with code 65: try later",
            true,
        ),
        (
            r#"echo '{"error": "x"}'; exit 64"#,
            "sh exited with code 64: x",
            true,
        ),
        (
            r#"echo '{"error": "x", "retryable": false}'; kill -KILL $$"#,
            "sh was killed by signal 9 (SIGKILL; out of memory?)",
            true,
        ),
    ] {
        let failed = error(&sh(script)).await;
        assert_eq!(
            (failed.message.as_str(), failed.retryable),
            (message, retryable),
            "{script}"
        );
    }
    assert_eq!(swarm_agent_adapters::EXIT_NOT_RETRYABLE, 65);
    // With exit code 0 it is a result like any other.
    let line = r#"echo '{"error": "none", "retryable": false}'"#;
    assert_eq!(
        run(&sh(line)).await,
        Ok(json!({"error": "none", "retryable": false}))
    );
}

#[tokio::test]
async fn of_a_flood_on_stderr_only_the_end_is_kept() {
    let failed = error(&sh(
        "yes error | head -c 10000000 >&2; echo last >&2; exit 1",
    ))
    .await;
    assert!(failed.message.ends_with("last"), "{failed}");
    assert!(
        failed.message.len() <= STDERR_TAIL_BYTES + 40,
        "{}",
        failed.message.len()
    );
}

#[tokio::test]
async fn a_command_that_cannot_run_is_told_and_not_retried() {
    assert_eq!(ExecAdapter::new(Vec::new()).err(), Some(NoCommand));
    assert_eq!(ExecAdapter::new(vec![String::new()]).err(), Some(NoCommand));
    let dir = folder();
    let plain = dir.path().join("plain");
    fs::write(&plain, "no program").expect("written");
    let script = dir.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").expect("written");
    fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755))
        .expect("it is ours");
    for (adapter, words) in [
        (
            command(&["no-such-command-anywhere"]),
            "the command no-such-command-anywhere does not exist",
        ),
        (
            command(&["/no/such/path"]),
            "the command /no/such/path does not exist",
        ),
        (
            command(&[plain.to_str().expect("text")]),
            "is not executable",
        ),
        (
            command(&[script.to_str().expect("text")]),
            "the interpreter of",
        ),
        (
            command(&["true"]).current_dir("/no/such/folder"),
            "the directory /no/such/folder does not exist",
        ),
    ] {
        let failed = error(&adapter).await;
        assert!(
            failed.message.contains(words) && !failed.retryable,
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn stdout_up_to_the_limit_is_a_result_and_one_byte_more_is_a_flood() {
    let print = |bytes: usize| sh(&format!("head -c {bytes} /dev/zero | tr '\\0' x"));
    let result = run(&print(STDOUT_BYTES_MAX)).await.expect("it fits");
    assert_eq!(
        result["stdout"].as_str().map(str::len),
        Some(STDOUT_BYTES_MAX)
    );
    for adapter in [print(STDOUT_BYTES_MAX + 1), command(&["yes"])] {
        let failed = error(&adapter).await;
        assert!(
            failed.message.contains("printed more than") && !failed.retryable,
            "{failed:?}"
        );
    }
}

#[tokio::test]
async fn what_a_command_leaves_running_is_killed_when_it_ends() {
    let dir = folder();
    let file = dir.path().join("group");
    // Background children that hold the pipes and ignore SIGTERM.
    let script = format!(
        "trap '' TERM; (sleep 1000; echo late) & (sleep 1000 | cat) & echo $$ > {}; echo done",
        file.display()
    );
    assert_eq!(run(&sh(&script)).await, Ok(json!({"stdout": "done\n"})));
    assert!(!lives(group_in(&file).expect("written")));
}

#[tokio::test]
async fn output_counts_even_if_a_process_that_left_the_group_holds_the_pipe() {
    let dir = folder();
    let file = dir.path().join("stray");
    let script = format!(
        "setsid sh -c 'echo $$ > {0}; exec sleep 1000' & while ! [ -s {0} ]; do :; done; echo done",
        file.display()
    );
    assert_eq!(run(&sh(&script)).await, Ok(json!({"stdout": "done\n"})));
    let stray = Pid::from_raw(group_in(&file).expect("written")).expect("a process");
    rustix::process::kill_process(stray, rustix::process::Signal::KILL)
        .expect("it lives on: it left the group");
}

/// Runs a command that tells its group, cancels it, and says how long that took.
async fn cancelled(script: &str, grace: Duration) -> (TaskError, i32, Duration) {
    let dir = folder();
    let file = dir.path().join("group");
    let adapter = sh(&format!(
        "{script}\necho $$ > {}\nwhile :; do sleep 0.01; done",
        file.display()
    ))
    .kill_grace(grace);
    let task = context(json!({}));
    let token = task.cancelled.clone();
    let handling = tokio::spawn(async move { adapter.handle(task).await });
    let group = until("the command's start", || group_in(&file)).await;
    assert!(lives(group));
    let began = Instant::now();
    token.cancel();
    let failed = handling
        .await
        .expect("no panic")
        .expect_err("it was cancelled");
    (failed, group, began.elapsed())
}

#[tokio::test]
async fn cancel_means_sigterm_and_then_sigkill_for_the_whole_group() {
    let (failed, group, took) = cancelled("", KILL_GRACE).await;
    assert_eq!(failed, TaskError::retryable("cancelled"));
    assert!(!lives(group) && took < KILL_GRACE, "{took:?}");

    let dir = folder();
    let file = dir.path().join("cleaned");
    let (_, group, _) = cancelled(
        &format!("trap 'echo bye > {}; exit 0' TERM", file.display()),
        KILL_GRACE,
    )
    .await;
    assert!(
        !lives(group) && file.exists(),
        "a command can clean up on SIGTERM"
    );

    let grace = Duration::from_millis(200);
    let (_, group, took) = cancelled(
        "trap '' TERM; (trap '' TERM; while :; do sleep 0.01; done) &",
        grace,
    )
    .await;
    assert!(!lives(group) && took >= grace, "{took:?}");
}

#[tokio::test]
async fn dropping_the_handler_kills_the_group() {
    let dir = folder();
    let file = dir.path().join("group");
    let adapter = sh(&format!("sleep 1000 & echo $$ > {}; wait", file.display()));
    let handling = tokio::spawn(async move { adapter.handle(context(json!({}))).await });
    let group = until("the command's start", || group_in(&file)).await;
    handling.abort();
    until("the end of the group", || (!lives(group)).then_some(())).await;
}

#[tokio::test]
async fn tasks_run_side_by_side_each_with_its_own_group() {
    let dir = folder();
    let file = dir.path().join("there");
    // Each waits until all are there.
    let script = format!(
        "echo $$ | tee -a {0}; while [ $(wc -l < {0}) -lt 8 ]; do sleep 0.01; done",
        file.display()
    );
    let adapter = Arc::new(sh(&script));
    let mut runs = tokio::task::JoinSet::new();
    for _ in 0..8 {
        let adapter = adapter.clone();
        runs.spawn(async move { run(&adapter).await });
    }
    let mut groups = Vec::new();
    while let Some(printed) = runs.join_next().await {
        let printed = printed.expect("no panic").expect("it succeeds");
        groups.push(
            printed["stdout"]
                .as_str()
                .expect("text")
                .trim()
                .parse::<i32>()
                .expect("a number"),
        );
    }
    let all = groups.len();
    groups.sort_unstable();
    groups.dedup();
    assert_eq!(groups.len(), all);
    assert!(groups.into_iter().all(|group| !lives(group)));
}

/// The agent of the test below, which runs it as a process of its own.
#[tokio::test]
#[ignore = "runs until it is killed"]
async fn an_agent_to_be_killed() {
    let file = std::env::var("SWARM_TEST_GROUP_FILE").expect("told by the test below");
    // The first is over and forgotten, the second runs: command and children.
    run(&command(&["true"])).await.expect("it succeeds");
    let adapter = sh(&format!(
        "(trap '' TERM; sleep 1000) & sleep 1000 | cat & echo $$ > {file}; wait"
    ));
    let _: Result<Json, TaskError> = adapter.handle(context(json!({}))).await;
}

#[tokio::test]
async fn nothing_outlives_an_agent_that_is_killed() {
    let dir = folder();
    let file = dir.path().join("group");
    let mut agent = Command::new(std::env::current_exe().expect("this program"))
        .args(["--ignored", "--exact", "an_agent_to_be_killed"])
        .env("SWARM_TEST_GROUP_FILE", &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    let group = until("the command's start", || group_in(&file)).await;
    assert!(lives(group));
    agent.kill().expect("SIGKILL");
    agent.wait().expect("it is ours");
    // Orphans are reaped by the system's init; what counts is that none runs any more.
    until("the end of the group", || (!runs(group)).then_some(())).await;
}

/// The agent of the test below.
#[tokio::test]
#[ignore = "runs until its command kills it"]
async fn an_agent_to_be_killed_by_its_command() {
    let file = std::env::var("SWARM_TEST_GROUP_FILE").expect("told by the test below");
    let adapter = sh(&format!(
        "echo $$ > {file}; kill -KILL $PPID; exec sleep 1000"
    ));
    let _: Result<Json, TaskError> = adapter.handle(context(json!({}))).await;
}

#[tokio::test]
async fn a_command_is_guarded_before_its_first_step() {
    let dir = folder();
    let file = dir.path().join("group");
    let mut agent = Command::new(std::env::current_exe().expect("this program"))
        .args([
            "--ignored",
            "--exact",
            "an_agent_to_be_killed_by_its_command",
        ])
        .env("SWARM_TEST_GROUP_FILE", &file)
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    agent.wait().expect("it is ours");
    let group = group_in(&file).expect("the command ran");
    until("the end of the group", || (!runs(group)).then_some(())).await;
}

/// Whether a process of the group runs; one that is dead and not reaped does not.
fn runs(group: i32) -> bool {
    let Ok(processes) = fs::read_dir("/proc") else {
        return true;
    };
    processes.flatten().any(|entry| {
        let Ok(stat) = fs::read_to_string(entry.path().join("stat")) else {
            return false;
        };
        // After the name in parentheses: state, parent, group.
        let mut fields = stat
            .rsplit(')')
            .next()
            .unwrap_or_default()
            .split_whitespace();
        let state = fields.next();
        fields.nth(1) == Some(&group.to_string()) && !matches!(state, Some("Z" | "X"))
    })
}

#[tokio::test]
async fn a_command_that_gives_the_task_back_says_so_and_no_attempt_failed() {
    let refused = error(&sh("echo '{\"declined\": \"no such file here\"}'; exit 1")).await;
    assert_eq!(refused, TaskError::decline("no such file here"));
}

/// 64 MiB: a shell and Python start in it, and what the tests ask for does not fit.
const LIMIT_KIB: u64 = 64 * 1024;

#[tokio::test]
async fn a_command_that_uses_all_memory_ends_with_an_error_that_names_its_limit() {
    let greedy = "x = bytearray(256 * 1024 * 1024); print(len(x))";
    let free = run(&command(&["python3", "-c", greedy])).await;
    assert_eq!(free, Ok(json!({"stdout": "268435456\n"})));
    let limited = command(&["python3", "-c", greedy]).memory_limit_kib(LIMIT_KIB);
    let failed = error(&limited).await;
    assert!(failed.message.contains("MemoryError"), "{failed}");
    assert!(
        failed.message.contains("it may use 65536 KiB of memory"),
        "{failed}"
    );
    assert!(failed.retryable, "{failed}");
    // Its children are held to it, too.
    let child = sh(&format!("python3 -c '{greedy}'")).memory_limit_kib(LIMIT_KIB);
    assert!(error(&child).await.message.contains("MemoryError"));
}

#[tokio::test]
async fn under_a_limit_arguments_and_signals_reach_the_command_as_they_are() {
    let words = ["printf", "%s|", "a b", "$(x)", "-n", "\"'"];
    let limited = command(&words).memory_limit_kib(LIMIT_KIB);
    assert_eq!(
        run(&limited).await,
        Ok(json!({"stdout": "a b|$(x)|-n|\"'|"}))
    );
    let shows = sh("ulimit -v").memory_limit_kib(LIMIT_KIB);
    assert_eq!(run(&shows).await, Ok(json!({"stdout": "65536\n"})));
    let killed = sh("kill -TERM $$").memory_limit_kib(LIMIT_KIB);
    assert!(error(&killed).await.message.contains("signal 15 (SIGTERM)"));
}

#[tokio::test]
async fn under_a_limit_a_command_that_cannot_start_is_told_like_any_other() {
    let folder = folder();
    let plain = folder.path().join("plain");
    fs::write(&plain, "#!/bin/sh\n").expect("written");
    let script = folder.path().join("script");
    fs::write(&script, "#!/no/such/interpreter\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    fs::set_permissions(&script, mode).expect("changed");
    for (program, words) in [
        ("no-such-command", "does not exist"),
        ("/no/such/command", "does not exist"),
        (plain.to_str().expect("text"), "is not executable"),
        (script.to_str().expect("text"), "the interpreter of"),
    ] {
        let failed = error(&command(&[program]).memory_limit_kib(LIMIT_KIB)).await;
        assert!(failed.message.contains(words), "{failed}");
        assert!(!failed.retryable, "{failed}");
    }
}

#[tokio::test]
async fn a_hosts_environment_is_passed_on_but_for_what_speaks_as_the_agent() {
    let given = [
        ("SWARM_NATS_URL", false),
        ("SWARM_NATS_CREDS", false),
        ("SWARM_LIMIT_MEMORY_KIB", false),
        ("SWARM_WEBHOOK_SECRET", false),
        ("SWARM_AGENT_NAME", true),
        ("TOKEN", true),
    ];
    if std::env::var("SWARM_NATS_CREDS").is_err() {
        // Once more, in an environment as a host makes it.
        let name = "a_hosts_environment_is_passed_on_but_for_what_speaks_as_the_agent";
        let again = Command::new(std::env::current_exe().expect("this test"))
            .args([name, "--exact"])
            .envs(given.map(|(name, _)| (name, "given")))
            .output()
            .expect("it runs");
        let said = String::from_utf8_lossy(&again.stdout);
        assert!(
            again.status.success() && said.contains("1 passed"),
            "{said}"
        );
        return;
    }
    let printed = run(&command(&["env"]).inherit_environment())
        .await
        .expect("it succeeds");
    let printed = printed["stdout"].as_str().expect("text").to_owned();
    for (name, passed) in given {
        let there = printed.lines().any(|line| line == format!("{name}=given"));
        assert_eq!(there, passed, "{name}");
    }
}
