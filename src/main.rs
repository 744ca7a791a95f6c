//! The `wharf` program: parse, run, exit.

use std::process::ExitCode;

use wharf::app;
use wharf::cli::Cli;

fn main() -> ExitCode {
    app::main(Cli::of_this_process())
}
