//! `swarm demo`: the main job on real input, with real processes, of which one is killed, one hangs, and one cannot even start.

mod agents;
mod follow;
mod kills;

use std::{path::PathBuf, process::Stdio, time::Duration};

use anyhow::Context;
use serde_json::{Value, json};
use swarm_events::Place;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::{follow::Followed, kills::Kills};
use crate::{
    api::Api,
    connection::{ServerArgs, Target},
    demo::{count, fold, graph, input},
    exit::{Failure, Outcome},
    output, progress,
};

/// Arguments of `swarm demo`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// Analyse the text files below this folder [default: the files that git tracks in this repository]
    #[arg(long, value_name = "PATH")]
    pub dir: Option<PathBuf>,
    /// Agent processes; one of them is killed, another is made to hang
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(2..=64))]
    pub agents: u16,
    /// Processes of each service in the demo's installation
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "running", value_parser = clap::value_parser!(u16).range(1..=16))]
    pub replicas: u16,
    /// Kill this process too while tasks run (`distributor`, `nats-server`, …; `all`: each in turn), and show what it cost
    #[arg(long, value_name = "NAME")]
    pub kill: Vec<String>,
    /// Leave everything running at the end
    #[arg(long)]
    pub keep: bool,
    /// Use the running installation that --data (or the environment) names, instead of one of its own
    #[arg(long)]
    pub running: bool,
    /// Each task takes at least this long, so that a kill meets one in the middle [default: 40ms, with --kill as long as
    /// tasks must run until the last kill]
    #[arg(long, value_name = "DURATION", value_parser = progress::parse_duration)]
    pub pace: Option<Duration>,
    /// Longest time for the whole job
    #[arg(long, value_name = "DURATION", default_value = "10m", value_parser = progress::parse_duration)]
    pub timeout: Duration,
}

/// How long each task takes unless it is said otherwise.
const PACE: Duration = Duration::from_millis(40);
/// Where the demo works.
struct Stage {
    target: Target,
    api: Api,
    /// Holds the copied input, and an own installation.
    dir: PathBuf,
    /// Its own installation, to be stopped at the end.
    own: bool,
}

/// Runs the demo. Exit code 0 only if everything is equal and was done once.
pub async fn run(args: Args, server: &ServerArgs) -> Outcome {
    let found = input::find(args.dir.as_deref())?;
    say(&format!(
        "{} text files below {}{}",
        found.files.len(),
        found.root.display(),
        if found.skipped > 0 {
            format!(" ({} others are no text and left out)", found.skipped)
        } else {
            String::new()
        }
    ));
    let stop = swarm_runtime::shutdown::on_signals()?;
    // Removed at the end, unless it is of use to somebody.
    let folder = tempfile::Builder::new()
        .prefix("swarm-demo-")
        .tempdir()
        .context("no temporary folder")?;
    let stage = tokio::select! {
        stage = stage(&args, server, folder.path()) => stage,
        () = stop.cancelled() => Err(Failure::failed("stopped")),
    };
    let stage = match stage {
        Ok(stage) => stage,
        Err(failure) => {
            end(folder.path()).await;
            return Err(failure);
        }
    };
    let outcome = tokio::select! {
        outcome = play(&args, &found, &stage) => outcome,
        () = stop.cancelled() => Err(Failure::failed("stopped")),
    };
    if args.keep {
        let kept = folder.keep();
        say(&format!(
            "\nEverything goes on. Look further:\n  {}",
            look_further(&stage)
        ));
        if stage.own {
            say(&format!(
                "To end it: swarm down --data {0}; rm -r {0}",
                kept.display()
            ));
        }
        return outcome;
    }
    if stage.own {
        end(folder.path()).await;
    }
    match &outcome {
        Ok(()) => say(
            "\nTo look further, run it again with --keep: `swarm events`, the API and its key stay.",
        ),
        Err(_) => {
            let kept = folder.keep();
            say(&format!("The logs are in {}", kept.join("logs").display()));
        }
    }
    outcome
}

/// An installation of its own, or the running one.
async fn stage(args: &Args, server: &ServerArgs, folder: &std::path::Path) -> Outcome<Stage> {
    std::fs::create_dir_all(folder.join("logs"))?;
    let target = if args.running {
        server.resolve()?
    } else {
        // PostgreSQL runs as another user if this one is root, and has to reach its part of the folder.
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o711))?;
        let spinner = progress::spinner("starting an installation of its own");
        let up = agents::own_program(folder)?
            .args(["up", "--detach", "--any-ports", "--replicas"])
            .arg(args.replicas.to_string())
            .stdin(Stdio::null())
            .output()
            .await?;
        spinner.finish_and_clear();
        if !up.status.success() {
            let said = String::from_utf8_lossy(&up.stderr);
            return Err(Failure::failed(format!(
                "no installation: {}",
                said.trim().trim_start_matches("swarm: ")
            )));
        }
        let own = ServerArgs {
            data: Some(folder.to_owned()),
            ..ServerArgs::default()
        };
        own.resolve()?
    };
    Ok(Stage {
        api: Api::new(&target)?,
        target,
        dir: folder.to_owned(),
        own: !args.running,
    })
}

/// Stops the installation of the demo. What goes wrong here is shown, and no reason to hide how the demo went.
async fn end(folder: &std::path::Path) {
    let spinner = progress::spinner("stopping");
    let down = async {
        agents::own_program(folder)?
            .arg("down")
            .stdin(Stdio::null())
            .output()
            .await
    };
    match down.await {
        Ok(down) if down.status.success() => {}
        Ok(down) => say(String::from_utf8_lossy(&down.stderr).trim()),
        Err(error) => say(&format!("cannot stop the installation: {error}")),
    }
    spinner.finish_and_clear();
}

async fn play(args: &Args, found: &input::Input, stage: &Stage) -> Outcome {
    let api = &stage.api;
    say(&format!("gateway {}", api.base()));
    let copied = stage.dir.join("input");
    input::copy(found, &copied)?;
    let title = found
        .root
        .file_name()
        .map_or_else(|| "Report".into(), |name| name.to_string_lossy());
    let graph = graph::of(&copied.display().to_string(), &title, &found.files);

    let name = format!("demo-{}", std::process::id());
    let swarm = api
        .post(
            "/v1/swarms",
            &json!({"name": name, "configuration": {"min_agents": 1}}),
            None,
        )
        .await?;
    let swarm = swarm["id"]
        .as_str()
        .context("the swarm has no id")?
        .to_owned();
    say(&format!("swarm {name} {swarm}"));
    let names = kills::names(&args.kill, &stage.target.data)?;
    let pace = args
        .pace
        .unwrap_or_else(|| kills::pace(PACE, names.len(), args.agents, graph.tasks));
    agents::add(api, &swarm, args.agents, pace).await?;

    let began = Instant::now();
    let submitted = api
        .post(&format!("/v1/swarms/{swarm}/tasks"), &graph.body, None)
        .await?;
    let ids = ids_by_key(&submitted)?;
    say(&format!(
        "{} tasks: {} that count {}, {} that fold a folder, 1 report",
        graph.tasks,
        graph.counting,
        if graph.files_per_task == 1 {
            "a file".to_owned()
        } else {
            format!("up to {} files", graph.files_per_task)
        },
        graph.folders.len()
    ));
    let (followed, kills) = follow_and_kill(args, stage, &swarm, &ids, &names).await?;
    let took = began.elapsed();
    if !stage.own && !args.keep {
        agents::remove_all(api, &swarm).await?;
    }

    let report = ids.get("report").context("the report has no id")?;
    let query = [("min_seq", followed.last_sequence.to_string())];
    let report = api.get(&format!("/v1/tasks/{report}"), &query).await?;
    let report: fold::Report =
        serde_json::from_value(report["result"].clone()).context("the report cannot be read")?;
    output::line(&format!("\n{}", report.markdown))?;

    let mut problems = compare(&graph, &copied, &report)?;
    problems.extend(followed.problems(&ids));
    problems.extend(read_model(api, &swarm, &ids, &followed).await?);
    verdict(&problems, &followed, &kills, graph.tasks, took)
}

/// Follows the tasks to their end. Agents are struck first, then what else is to be.
async fn follow_and_kill(
    args: &Args,
    stage: &Stage,
    swarm: &str,
    ids: &std::collections::BTreeMap<String, String>,
    names: &[String],
) -> Outcome<(Followed, Kills)> {
    let (first, over) = (CancellationToken::new(), CancellationToken::new());
    let org = follow::org_of(stage, swarm).await?;
    let place = Place::new(org, swarm.parse().context("the swarm's id is none")?);
    let plan = follow::Plan {
        at_percent: if names.is_empty() {
            (follow::KILL_AT_PERCENT, follow::HANG_AT_PERCENT)
        } else {
            follow::EARLY_AT_PERCENT
        },
        broken: agents::add_broken(&stage.api, swarm).await?,
        struck: first.clone(),
        patience: args.timeout,
    };
    let follow = async {
        let _over = over.clone().drop_guard();
        follow::until_ended(stage, place, ids, plan).await
    };
    let kill = async {
        tokio::select! {
            () = first.cancelled() => {}
            () = over.cancelled() => return Ok(Kills::default()),
        }
        kills::in_turn(stage, place, names, over.clone()).await
    };
    tokio::try_join!(follow, kill)
}

/// Ids of the tasks by the key under which they were submitted.
fn ids_by_key(submitted: &Value) -> Outcome<std::collections::BTreeMap<String, String>> {
    let items = submitted["items"]
        .as_array()
        .context("the graph's answer has no items")?;
    let pairs = items.iter().filter_map(|task| {
        Some((
            task["key"].as_str()?.to_owned(),
            task["id"].as_str()?.to_owned(),
        ))
    });
    Ok(pairs.collect())
}

/// The same, computed here and now, one file after the other.
fn compare(
    graph: &graph::Graph,
    root: &std::path::Path,
    report: &fold::Report,
) -> Outcome<Vec<String>> {
    let mut folders = Vec::new();
    for (folder, paths) in &graph.folders {
        let mut files = Vec::new();
        for path in paths {
            let bytes =
                std::fs::read(root.join(path)).with_context(|| format!("cannot read {path}"))?;
            files.push(count::count(path, &bytes));
        }
        folders.push(fold::folder(folder, &files));
    }
    let json =
        |folded: &fold::Folded| serde_json::to_value(folded).context("figures that are no JSON");
    Ok(fold::differences(
        "totals",
        &json(&report.totals)?,
        &json(&fold::whole(&folders))?,
    ))
}

/// What the API says of the tasks in the end.
async fn read_model(
    api: &Api,
    swarm: &str,
    ids: &std::collections::BTreeMap<String, String>,
    followed: &Followed,
) -> Outcome<Vec<String>> {
    let query = [("min_seq", followed.last_sequence.to_string())];
    let tasks = api
        .list(&format!("/v1/swarms/{swarm}/tasks"), &query, None)
        .await?;
    let mut problems = Vec::new();
    if tasks.len() != ids.len() {
        problems.push(format!(
            "the API lists {} tasks, {} were submitted",
            tasks.len(),
            ids.len()
        ));
    }
    for task in tasks.iter().filter(|task| task["status"] != "completed") {
        problems.push(format!(
            "task {} is {}: {}",
            task["id"], task["status"], task["error_message"]
        ));
    }
    Ok(problems)
}

fn verdict(
    problems: &[String],
    followed: &Followed,
    kills: &Kills,
    tasks: usize,
    took: Duration,
) -> Outcome {
    if !problems.is_empty() {
        return Err(Failure::failed(format!(
            "THE RESULT IS WRONG:\n  {}",
            problems.join("\n  ")
        )));
    }
    say(&format!(
        "{tasks} tasks in {:.1} s, each completed once.",
        took.as_secs_f64()
    ));
    for strike in &followed.strikes {
        say(&format!(
            "Agent {} (process {}) {} while it ran task {}; that task ran elsewhere {:.2} s later, and a new process of the agent had joined after {:.2} s.",
            strike.agent,
            strike.pid,
            strike.how.words(),
            strike.task,
            strike.elsewhere.unwrap_or_default().as_secs_f64(),
            strike.replaced.unwrap_or_default().as_secs_f64()
        ));
    }
    let broken = &followed.broken;
    say(&format!(
        "Agent demo-broken ended {} times right after its start (\"{}\") and was given up; nobody waited for it.",
        broken.exits, broken.said
    ));
    if !kills.killed.is_empty() {
        let usual = kills.usual;
        say(&format!(
            "Longest times without an assignment and without an end of a task: {:.2} s and {:.2} s before the first of these kills, then",
            usual.assigned.as_secs_f64(),
            usual.ended.as_secs_f64()
        ));
        for killed in &kills.killed {
            say(&format!(
                "  {:<16} {:>6.2} s {:>6.2} s  (process {})",
                killed.name,
                killed.gaps.assigned.as_secs_f64(),
                killed.gaps.ended.as_secs_f64(),
                killed.pid
            ));
        }
    }
    say("The report's totals equal a direct sequential computation.");
    Ok(())
}

fn look_further(stage: &Stage) -> String {
    let data = stage.target.data.display();
    format!(
        "swarm list --data {data}\n  swarm events SWARM --from 0 --data {data}\n  curl -H 'Authorization: Bearer {}' {}/v1/swarms",
        stage.target.api_key.as_deref().unwrap_or_default(),
        stage.api.base()
    )
}

/// The demo's own words go to stderr; the report alone is on stdout.
fn say(text: &str) {
    eprintln!("{text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wrong_total_is_found() {
        let dir = tempfile::tempdir().expect("a folder");
        std::fs::write(dir.path().join("a.rs"), "one\ntwo\n").expect("written");
        let graph = graph::of("/", "t", &["a.rs".to_owned()]);
        let facts = count::count("a.rs", b"one\ntwo\n");
        let mut report = fold::report("t", &[fold::folder(".", &[facts])]);
        assert!(
            compare(&graph, dir.path(), &report)
                .expect("compared")
                .is_empty()
        );
        report.totals.sums.lines += 1;
        let problems = compare(&graph, dir.path(), &report).expect("compared");
        assert_eq!(
            problems,
            ["totals.sums.lines: the swarm says 3, the direct computation 2"]
        );
    }
}
