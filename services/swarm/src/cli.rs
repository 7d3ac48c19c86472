//! The arguments, as a whole. Each command's own are beside its code in `commands/`.

use clap::{Parser, Subcommand};

use crate::{
    commands::{
        agent, apply, ask, audit, blackboard, completions, create, delete, demo, demo_worker,
        doctor, down, events, explain, health, list, message, metrics, org, projection, replay,
        scale, service, show, status, task, topology, up, update,
    },
    connection::ServerArgs,
    exit::Outcome,
    output::{Format, Output},
};

/// Swarms of agents on an event log: starts an installation, runs agents, submits and follows tasks.
#[derive(Parser, Debug)]
#[command(
    name = "swarm",
    version,
    propagate_version = true,
    max_term_width = 100
)]
pub struct Cli {
    /// Which server
    #[command(flatten)]
    pub server: ServerArgs,
    /// For people or for programs
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORMAT"
    )]
    pub output: Output,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Subcommand, Debug)]
pub enum Command {
    /// Start an installation: nats-server, PostgreSQL and every service
    Up(up::Args),
    /// Stop the installation of the data folder
    Down(down::Args),
    /// Show the installation of the data folder
    Status(status::Args),
    /// Check what an installation stands on
    Doctor(doctor::Args),
    /// Run one service in the foreground
    Service(service::Args),
    /// Create a swarm
    Create(create::Args),
    /// List swarms
    List(list::Args),
    /// Show a swarm
    Show(show::Args),
    /// Change a swarm
    Update(update::Args),
    /// Terminate a swarm; it stays readable
    Delete(delete::Args),
    /// Make a swarm and its agents what a file says
    Apply(apply::Args),
    /// Show, change and keep topologies
    #[command(subcommand)]
    Topology(topology::Command),
    /// Run, add, list, change, restart and remove agents
    #[command(subcommand)]
    Agent(agent::Command),
    /// Submit, follow and end tasks
    #[command(subcommand)]
    Task(task::Command),
    /// Say something to agents, and hear what they say to each other
    #[command(subcommand)]
    Message(message::Command),
    /// Read and answer the questions that agents ask
    #[command(subcommand)]
    Ask(ask::Command),
    /// Read, write and watch what the agents of a swarm share
    #[command(subcommand)]
    Blackboard(blackboard::Command),
    /// Say why a task is where it is, and what would change that
    Explain(explain::Args),
    /// Show the health of a swarm
    Health(health::Args),
    /// Have as many agents as wanted
    Scale(scale::Args),
    /// Show the figures of a swarm
    Metrics(metrics::Args),
    /// Show and change the organization
    #[command(subcommand)]
    Org(org::Command),
    /// Follow the events of a swarm as they happen
    Events(events::Args),
    /// Print the log's history, one JSON object per line
    Replay(replay::Args),
    /// Check the promises over the log: exit code 1 if one is broken
    Audit(audit::Args),
    /// Read models
    #[command(subcommand)]
    Projection(projection::Command),
    /// Let a swarm of real agents analyse files, kill one agent, and check the result
    Demo(demo::Args),
    /// Analyse one file or fold results: the worker that the demo's agents start
    #[command(hide = true)]
    DemoWorker(demo_worker::Args),
    /// Print the completion script of a shell
    Completions(completions::Args),
}

impl Cli {
    /// Runs the command.
    pub async fn run(self) -> Outcome {
        let Self {
            server,
            output,
            command,
        } = self;
        let asked = output;
        let output = match &command {
            // It alone draws graphs.
            Command::Topology(_) => Format::Table,
            _ => Format::of(asked)?,
        };
        match command {
            Command::Topology(command) => topology::run(command, &server, asked).await,
            Command::Apply(args) => apply::run(args, &server, output).await,
            Command::Up(args) => up::run(args, &server).await,
            Command::Down(args) => down::run(args, &server).await,
            Command::Status(args) => status::run(args, &server, output).await,
            Command::Doctor(args) => doctor::run(args, &server, output).await,
            Command::Service(args) => service::run(args, &server).await,
            Command::Create(args) => create::run(args, &server, output).await,
            Command::List(args) => list::run(args, &server, output).await,
            Command::Show(args) => show::run(args, &server, output).await,
            Command::Update(args) => update::run(args, &server, output).await,
            Command::Delete(args) => delete::run(args, &server, output).await,
            Command::Agent(command) => agent::run(command, &server, output).await,
            Command::Task(command) => task::run(command, &server, output).await,
            Command::Message(command) => message::run(command, &server, output).await,
            Command::Ask(command) => ask::run(command, &server, output).await,
            Command::Blackboard(command) => blackboard::run(command, &server, output).await,
            Command::Explain(args) => explain::run(args, &server, output).await,
            Command::Health(args) => health::run(args, &server, output).await,
            Command::Scale(args) => scale::run(args, &server, output).await,
            Command::Metrics(args) => metrics::run(args, &server, output).await,
            Command::Org(command) => org::run(command, &server, output).await,
            Command::Events(args) => events::run(args, &server, output).await,
            Command::Replay(args) => replay::run(args, &server).await,
            Command::Audit(args) => audit::run(args, &server, output).await,
            Command::Projection(command) => projection::run(command, &server).await,
            Command::Demo(args) => demo::run(args, &server).await,
            Command::DemoWorker(args) => demo_worker::run(args),
            Command::Completions(args) => completions::run(args),
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, error::ErrorKind};

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_example_of_the_readme_style_parses() {
        for line in [
            "swarm up",
            "swarm up --data /d --detach --durability speed --any-ports",
            "swarm down",
            "swarm status -o json",
            "swarm doctor",
            "swarm service coordinator",
            "swarm service agent-host",
            "swarm service gateway --until-stdin-closes",
            "swarm create s --topology star --set max_agents=3",
            "swarm list -o json",
            "swarm show s",
            "swarm update s --name t --unset max_agents",
            "swarm delete s",
            "swarm create s --topology hierarchical --topology-set parent_child_ratio=8 --topology-config {}",
            "swarm create s --template pipeline",
            "swarm apply -f swarm.yaml",
            "swarm apply -f - --dry-run -o json",
            "swarm apply -f swarm.yaml --timeout 5s",
            "swarm topology show s -o dot",
            "swarm topology show s -o mermaid",
            "swarm topology set s ring --set token_timeout_ms=100 --reason r",
            "swarm topology set s --unset max_workers --dry-run",
            "swarm topology set s --template pipeline --config {}",
            "swarm topology template list",
            "swarm topology template show star",
            "swarm topology template save t --topology mesh --set neighbours=6 --description d --best-for b",
            "swarm topology template save t --from s",
            "swarm topology template delete t",
            "swarm topology template export",
            "swarm topology template export t --file t.yaml",
            "swarm topology template import --file t.yaml",
            "swarm agent run --swarm s --name n --capability a --capability b --slots 2 --waiting 0 -- wc -l",
            "swarm agent add s --type t -- wc -l",
            "swarm agent add s --name n --count 3 --slots 2 --capability a --restart on-failure --memory 512M --cpu 50 --env K=V -- worker --fast",
            "swarm agent add s --url http://127.0.0.1:1/hook -o json",
            "swarm agent list s",
            "swarm agent list s --status idle",
            "swarm agent update s n --capability a --slots 3",
            "swarm agent restart s n --reason r",
            "swarm agent logs s n -n 10 -f",
            "swarm agent remove s n",
            "swarm agent remove s n --force",
            "swarm scale s 5",
            "swarm scale s +5 --type t",
            "swarm scale s -2 --wait --timeout 30s -o json",
            "swarm task submit s --type t --payload {\"a\":1} --wait",
            "swarm task submit s --file graph.json",
            "swarm task submit s --file tasks.jsonl --key k --skip-invalid bad.jsonl --ids ids.txt",
            "swarm task submit s --file - --lines --chunk-lines 10000",
            "swarm task list s --status completed",
            "swarm task list s --dead --type t --graph 1 --parent 2 --agent anna",
            "swarm task dead s --type t --limit 5",
            "swarm task show 1",
            "swarm task cancel 1 2 --reason r",
            "swarm task cancel --swarm s --graph 1 --reason r",
            "swarm task cancel --swarm s --file ids.txt",
            "swarm task retry 1 2 3",
            "swarm task retry --swarm s --dead --type t --yes",
            "swarm task discard --swarm s --file -",
            "swarm task submit s --type t --role supervisor --hand-to other",
            "swarm message send s hello --to anna --receipt handled --expires 60s",
            "swarm message send s {\"n\":1} --topic news",
            "swarm message send s x --to anna --topic news",
            "swarm message send s {} --to leader --request --wait 5s -o json",
            "swarm message list s --from anna --to leader --limit 5",
            "swarm message follow s --topic news --after 0 --limit 3",
            "swarm ask list s",
            "swarm ask list s --status all -o json",
            "swarm ask show s 1",
            "swarm ask answer s 1 yes",
            "swarm blackboard get s plan.step",
            "swarm blackboard put s plan.step {\"n\":1} --if-revision 7",
            "swarm blackboard put s plan.step 3 --create",
            "swarm blackboard delete s plan.step --if-revision 7",
            "swarm blackboard list s --prefix plan. -o json",
            "swarm blackboard watch s --prefix plan. --limit 3",
            "swarm explain 1 --swarm s",
            "swarm metrics s",
            "swarm org show",
            "swarm org set --queue-limit none --name n",
            "swarm create s --algorithm affinity",
            "swarm update s --algorithm priority_queue --set stealing=false",
            "swarm task wait 0190f7a0-0000-7000-8000-000000000001 --timeout 5s",
            "swarm health s",
            "swarm events s --from 7 --limit 3",
            "swarm replay --from 1 --to 9 --swarm 0190f7a0-0000-7000-8000-000000000001 --type task.completed",
            "swarm audit",
            "swarm audit --list",
            "swarm audit --from 5 --to 9 --settled --read-model --gaps distributor -o json",
            "swarm audit --since 2026-01-01T00:00:00Z --until 2026-01-02T00:00:00+01:00",
            "swarm projection rebuild",
            "swarm demo --agents 3 --keep",
            "swarm completions bash",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_not_there_yet_is_not_offered() {
        for line in ["swarm top", "swarm service scaler"] {
            assert!(parse(line).is_err(), "{line}");
        }
    }

    #[test]
    fn mistakes_in_arguments_end_with_code_2() {
        for line in [
            "swarm",
            "swarm task submit s",
            "swarm agent run --swarm s",
            "swarm agent add s --count 0 -- wc",
            "swarm agent add s --url http://h -- wc",
            "swarm agent remove s n --force --grace 5s",
            "swarm task submit s --type t --role boss",
            "swarm message send s x",
            "swarm ask list s --status never",
            "swarm blackboard put s k 1 --create --if-revision 7",
            "swarm scale s",
            "swarm scale s some",
            "swarm scale s 5 --timeout 5s",
            "swarm create s -o yaml",
            "swarm create s --template t --topology star",
            "swarm apply",
            "swarm topology set s cube",
            "swarm topology set s ring --template t",
            "swarm topology template save t --topology mesh --from s",
            "swarm topology template import",
            "swarm replay --from x",
            "swarm audit --gaps nobody",
            "swarm task submit s --type t --skip-invalid bad",
            "swarm task submit s --file f --chunk-lines 0",
            "swarm task submit s --file f --chunk-lines 10001",
            "swarm task cancel --graph 1",
            "swarm task cancel 1 --graph 2 --swarm s",
            "swarm task retry --dead",
            "swarm task retry --swarm s --yes",
            "swarm task discard --file ids.txt",
            "swarm create s --algorithm fastest",
            "swarm audit --since yesterday",
            "swarm audit --from 5 --since 2026-01-01T00:00:00Z",
        ] {
            let error = parse(line).expect_err(line);
            let code = error.exit_code();
            assert!(code == 2, "{line}: {code}");
        }
        assert_eq!(
            parse("swarm --help").expect_err("help").kind(),
            ErrorKind::DisplayHelp
        );
        assert_eq!(parse("swarm --help").expect_err("help").exit_code(), 0);
    }

    #[test]
    fn the_worker_is_not_shown() {
        let help = Cli::command().render_long_help().to_string();
        assert!(!help.contains("demo-worker"), "{help}");
    }
}
