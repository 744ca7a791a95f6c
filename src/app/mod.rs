//! The agent as a whole: reads its settings, binds and builds every worker, and lives until it is told to stop.

mod apart;
mod autodiscovery;
mod build;
mod drain;
mod etcd_v2;
mod import;
mod lifecycle;
mod lock;
mod neighbours;
mod ordinal;
mod proxies;
mod ready;
mod render_once;
mod renders;
mod settings;
mod shutdown;
mod sight;
mod sources;
mod topology;
mod translate;
pub mod watchdog;

use std::process::ExitCode;

use clap::CommandFactory;

use crate::cli::exit::Exit;
use crate::cli::render::RenderArgs;
use crate::cli::terminal::Terminal;
use crate::cli::{self, AgentArgs, Cli, Command};
use crate::config::Problems;
use crate::host::{descriptors, sockets};
use crate::lock::{guardian, held};
use crate::model::words::plain::plain;
use crate::telemetry;

/// Wrong use: a flag, a key of the file, a state directory that another agent holds.
const WRONG_USE: u8 = 2;
/// What a second signal exits with, as a shell would show it.
const ABORTED: u8 = 130;

/// Runs the command and tells the exit code.
pub fn main(cli: Cli) -> ExitCode {
    match cli.command {
        Command::Agent(args) => daemon(&args, Daemon::Agent),
        Command::Proxy(args) => daemon(&args, Daemon::Proxy),
        Command::Render(args) if args.follow => daemon(&renders::agent_args(&args), Daemon::Render(&args)),
        Command::CheckConfig(args) => check_config(&args),
        Command::LockGuardian(args) => guardian::run(&args.command),
        Command::LockHeld(args) => held::run(args.parent, &args.command),
        // Process 1 of a container is the guardian, and starts the rest.
        Command::Lock(args) if std::process::id() == 1 && !args.command.is_empty() => first(&args.command),
        command => ask(command),
    }
}

/// The guardian as process 1, which starts this very command once more.
fn first(command: &[String]) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    guardian::run_first((lock::GUARDED, &arguments), command)
}

/// The commands that ask an agent or a store.
fn ask(command: Command) -> ExitCode {
    let Some(runtime) = runtime(&mut tokio::runtime::Builder::new_current_thread()) else { return ExitCode::FAILURE };
    let terminal = &mut Terminal::stdio();
    runtime.block_on(async {
        match command {
            Command::Agent(_) | Command::Proxy(_) | Command::CheckConfig(_) => Exit::Usage,
            Command::LockGuardian(_) | Command::LockHeld(_) => Exit::Usage,
            Command::Lock(args) => return ExitCode::from(lock::lock(*args, terminal).await),
            Command::Ordinal(args) => ordinal::run(*args, terminal).await,
            Command::ZkBarrier(args) => return ExitCode::from(cli::zk::barrier(*args, terminal).await),
            Command::ZkListNodes(args) => cli::zk::list_nodes(*args, terminal).await,
            Command::Kv(args) => lock::kv(*args, terminal).await,
            Command::ImportSkydns(args) => import::run(*args, terminal).await,
            Command::Services(args) => cli::services::run(args, terminal).await,
            Command::Wait(args) => cli::wait::run(args, terminal).await,
            Command::Resolve(args) => cli::resolve::run(args, terminal).await,
            Command::Explain(args) => cli::explain::run(args, terminal).await,
            Command::Nodes(args) => cli::nodes::run(args, terminal).await,
            Command::Proxies(args) => cli::proxies::run(args, terminal).await,
            Command::Render(args) if args.once => render_once::once(&args, terminal).await,
            Command::Render(args) => cli::render::list(&args, &renders::asked(&args), terminal).await,
            Command::Drain(args) => cli::drain::run(args, true, terminal).await,
            Command::Undrain(args) => cli::drain::run(args.into(), false, terminal).await,
            Command::Topology(args) => cli::topology::run(args, terminal).await,
            Command::Completions(args) => cli::completions::run(&args, Cli::command(), terminal),
            Command::Healthcheck(args) => cli::healthcheck::run(args, terminal).await,
        }
        .into()
    })
}

fn runtime(builder: &mut tokio::runtime::Builder) -> Option<tokio::runtime::Runtime> {
    let built = builder.enable_all().build();
    built.inspect_err(|error| tracing::error!(%error, "threads cannot be started")).ok()
}

#[allow(clippy::print_stdout)]
fn check_config(args: &AgentArgs) -> ExitCode {
    match settings::read(args) {
        Ok(config) => {
            let problems = renders::template_problems(&config);
            if !problems.is_empty() {
                refuse(&Problems::new(problems.into_iter().map(|what| config.problem("render", what)).collect()));
                return ExitCode::from(WRONG_USE);
            }
            println!("{}", plain(&format!("valid: node {}, {} store", config.node, translate::store_name(&config))));
            ExitCode::SUCCESS
        }
        Err(problems) => {
            refuse(&problems);
            ExitCode::from(WRONG_USE)
        }
    }
}

/// Tells every problem, each in a line of its own.
#[allow(clippy::print_stderr)]
fn refuse(problems: &Problems) {
    for problem in &problems.0 {
        eprintln!("{}", plain(&problem.to_string()));
    }
}

/// What runs until it is told to stop.
#[derive(Clone, Copy)]
enum Daemon<'a> {
    Agent,
    Proxy,
    Render(&'a RenderArgs),
}

fn daemon(args: &AgentArgs, kind: Daemon<'_>) -> ExitCode {
    // A renderer opens none of what the settings name for an agent.
    let read = if matches!(kind, Daemon::Render(_)) { settings::join(args) } else { settings::read(args) };
    let config = match read {
        Ok(config) => config,
        Err(problems) => {
            refuse(&problems);
            return ExitCode::from(WRONG_USE);
        }
    };
    if !config.proxies.is_empty() {
        descriptors::raise_descriptors();
    }
    let passed = sockets::passed(); // before the first thread
    let log = telemetry::start(&config.log.filter, config.log.json);
    // With one thread alone a worker that hangs would keep even a signal from being heard.
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if std::thread::available_parallelism().is_ok_and(|threads| threads.get() < 2) {
        builder.worker_threads(2);
    }
    let Some(runtime) = runtime(&mut builder) else { return ExitCode::FAILURE };
    let code = match kind {
        Daemon::Agent => runtime.block_on(lifecycle::run(args, config, passed, &log)),
        Daemon::Proxy => runtime.block_on(apart::run(args, config, passed, &log)),
        Daemon::Render(asked) => runtime.block_on(renders::follow(asked, config, &log)),
    };
    runtime.shutdown_background(); // after a second signal nothing is waited for
    code
}
