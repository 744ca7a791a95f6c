//! Writes what a distribution carries beside the program: man pages (`DIR/man/man1/`) and shell completions
//! (`DIR/completions/`), both from the command line's own definition.
#![allow(clippy::print_stderr)]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;
use wharf::cli::Cli;

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1).map(PathBuf::from) else {
        eprintln!("usage: pages DIR");
        return ExitCode::from(2);
    };
    match man_pages(&dir.join("man/man1")).and_then(|()| completions(&dir.join("completions"))) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{}: {error}", dir.display());
            ExitCode::FAILURE
        }
    }
}

/// One page for the program and one for each command that is not hidden.
fn man_pages(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

/// Named as each shell looks for them.
fn completions(dir: &Path) -> std::io::Result<()> {
    fs::create_dir_all(dir)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut Cli::command(), "wharf", dir)?;
    }
    Ok(())
}
