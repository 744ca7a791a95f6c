//! `wharf completions SHELL`: what a shell needs to complete commands and flags.

use clap_complete::Shell;

use super::exit::Exit;
use super::terminal::Terminal;

/// Print what a shell needs to complete commands and flags
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "EXAMPLE:\n  wharf completions bash > /etc/bash_completion.d/wharf")]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Runs the command for the whole command line `cli`.
pub fn run(args: &CompletionsArgs, mut cli: clap::Command, terminal: &mut Terminal) -> Exit {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut cli, "wharf", &mut text);
    terminal.print_raw(&String::from_utf8_lossy(&text));
    Exit::Done
}
