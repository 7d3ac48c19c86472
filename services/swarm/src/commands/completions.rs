//! `swarm completions`

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{cli::Cli, exit::Outcome, output};

/// Arguments of `swarm completions`.
#[derive(clap::Args, Debug)]
pub struct Args {
    /// The shell
    pub shell: Shell,
}

/// Prints the script.
pub fn run(args: Args) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "swarm", &mut script);
    output::line(&String::from_utf8_lossy(&script))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "swarm", &mut script);
            let script = String::from_utf8(script).expect("text");
            assert!(script.contains("projection"), "{shell}");
        }
    }
}
