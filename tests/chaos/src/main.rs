//! `./dev chaos`: plays scenes and prints the kill matrix.

use std::{io::Write, path::PathBuf, process::ExitCode};

use clap::Parser;
use swarm_chaos::{
    Options, catalog,
    report::{Matrix, Row, Verdict},
};
use tokio::signal::unix::{SignalKind, signal};

/// Starts the real system, loads it, kills, pauses and cuts off parts of it, and judges what its log says.
#[derive(Parser)]
#[command(name = "./dev chaos")]
struct Cli {
    /// Scenes by name, or by the beginning of their names; all of them if none is given
    #[arg(value_name = "SCENE")]
    scenes: Vec<String>,
    /// Draw scenes at random from this seed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// How many to draw [default: 10 with --seed]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
    /// Only say which scenes there are
    #[arg(long)]
    list: bool,
    /// A fresh installation for each scene, not only after one that failed
    #[arg(long)]
    fresh: bool,
    /// Leave the data folders where they are
    #[arg(long)]
    keep: bool,
    /// Processes of each service
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=16))]
    replicas: u16,
    /// The `swarm` program [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    swarm: Option<PathBuf>,
    /// Where the matrix goes as JSON, and beside it the logs of scenes that failed
    #[arg(long, value_name = "FILE", default_value = "target/chaos/matrix.json")]
    report: PathBuf,
    /// Where data folders are made [default: the system's folder for temporary files]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Rounds of a random run that names none.
const ROUNDS: usize = 10;

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<bool> {
    let mut scenes = catalog::chosen(&cli.scenes).map_err(anyhow::Error::msg)?;
    if cli.list {
        for scene in scenes {
            println!("{}", scene.name);
        }
        return Ok(true);
    }
    let mut again = format!("./dev chaos {}", cli.scenes.join(" "));
    if cli.seed.is_some() || cli.rounds.is_some() {
        let seed = cli.seed.unwrap_or_else(rand::random);
        let rounds = cli.rounds.unwrap_or(ROUNDS);
        // First of all, so that a run that never ends can be repeated too.
        println!("seed {seed}");
        again = format!("{again} --seed {seed} --rounds {rounds}");
        scenes = catalog::drawn(&scenes, seed, rounds);
    }
    let beside = std::env::current_exe()?.with_file_name("swarm");
    let options = Options {
        program: cli.swarm.clone().unwrap_or(beside),
        root: cli.dir.clone().unwrap_or_else(std::env::temp_dir),
        evidence: cli
            .report
            .parent()
            .map_or_else(PathBuf::new, Into::into)
            .join("logs"),
        replicas: cli.replicas,
        keep: cli.keep,
        fresh: cli.fresh,
    };
    anyhow::ensure!(
        options.program.is_file(),
        "{} is not there: build it first (cargo build -p swarm), or name another with --swarm",
        options.program.display()
    );
    let mut matrix = Matrix {
        again,
        program: options.program.display().to_string(),
        rows: Vec::new(),
    };
    let count = scenes.len();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let (mut interrupt, mut terminate) = (
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
        );
        let rows = &mut matrix.rows;
        let playing = swarm_chaos::run(&scenes, &options, |row| {
            rows.push(row.clone());
            say(row, rows.len(), count);
        });
        // Dropped, the installation ends all that it started.
        tokio::select! {
            _ = playing => Ok(()),
            _ = interrupt.recv() => Err(anyhow::anyhow!("interrupted")),
            _ = terminate.recv() => Err(anyhow::anyhow!("told to end")),
        }
    })?;
    println!("\n{}", matrix.markdown());
    matrix.write(&cli.report)?;
    let sum = |count: fn(&Row) -> usize| matrix.rows.iter().map(count).sum::<usize>();
    let are = |verdict| {
        matrix
            .rows
            .iter()
            .filter(|row| row.verdict == verdict)
            .count()
    };
    println!(
        "{count} scenes: {} passed, {} failed, {} skipped; {} tasks, {} lost, {} doubled; {}\nagain: {}",
        are(Verdict::Passed),
        are(Verdict::Failed),
        are(Verdict::Skipped),
        sum(|row| row.tasks),
        sum(|row| row.lost),
        sum(|row| row.doubled),
        cli.report.display(),
        matrix.again
    );
    Ok(matrix.passed())
}

/// One line for each scene as soon as it is over, and what is to be known about one that failed.
fn say(row: &Row, number: usize, count: usize) {
    let gap = row
        .without_decisions_ms
        .map_or(String::new(), |ms| format!(", {ms} ms without decisions"));
    println!(
        "{number:>3}/{count} {:<28} {:<7} {} tasks, {} lost, {} doubled{gap}, {:.1} s",
        row.scene,
        row.verdict.to_string(),
        row.tasks,
        row.lost,
        row.doubled,
        row.took_ms as f64 / 1_000.0
    );
    if let Some(reason) = &row.reason {
        println!("        {reason}");
    }
    for note in &row.notes {
        println!("        {note}");
    }
    // Piped into a file, each line is there at once.
    let _ = std::io::stdout().flush();
}
