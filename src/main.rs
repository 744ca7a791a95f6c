//! The `wharf` program: parse, run, exit.

use std::process::ExitCode;

use clap::Parser;
use wharf::app;
use wharf::cli::Cli;

fn main() -> ExitCode {
    app::main(Cli::parse())
}
