//! The agent as a whole: reads its settings, binds and builds every worker, and lives until it is told to stop.

mod adoption;
mod build;
mod drain;
mod lifecycle;
pub mod pulse;
mod ready;
mod settings;
mod shutdown;
mod translate;
pub mod watchdog;

use std::process::ExitCode;

use crate::cli::{AgentArgs, Cli, Command};
use crate::config::Config;
use crate::telemetry;

/// Wrong use: a flag, a key of the file, a state directory that another agent holds.
const WRONG_USE: u8 = 2;

/// Runs the command and tells the exit code.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Agent(args) => agent(&args),
        Command::CheckConfig(args) => check_config(&args),
    }
}

#[allow(clippy::print_stdout, clippy::print_stderr)]
fn check_config(args: &AgentArgs) -> ExitCode {
    match settings::read(args) {
        Ok(config) => {
            println!("valid: node {}, {}", config.node, store_name(&config));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            eprintln!("{problems}");
            ExitCode::from(WRONG_USE)
        }
    }
}

#[allow(clippy::print_stderr)]
fn agent(args: &AgentArgs) -> ExitCode {
    let config = match settings::read(args) {
        Ok(config) => config,
        Err(problems) => {
            eprintln!("{problems}");
            return ExitCode::from(WRONG_USE);
        }
    };
    let log = telemetry::start(&config.log.filter, config.log.json);
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "threads cannot be started");
            return ExitCode::FAILURE;
        }
    };
    runtime.block_on(lifecycle::run(args, config, &log))
}

/// The store in words.
fn store_name(config: &Config) -> String {
    match &config.store.etcd {
        Some(etcd) => format!("etcd at {}", etcd.endpoints.join(", ")),
        None => "embedded store".to_owned(),
    }
}
