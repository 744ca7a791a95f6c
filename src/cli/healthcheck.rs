//! `wharf healthcheck`: whether the agent moves, for a container's HEALTHCHECK. An image made from nothing has no other
//! program that could ask.

use serde::Deserialize;

use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;

/// Tell by the exit code whether the agent answers (0) or not (3)
#[derive(Clone, Debug, Default, clap::Args)]
pub struct HealthcheckArgs {
    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

#[derive(Deserialize)]
struct Alive {
    status: String,
}

/// Runs the command.
pub async fn run(args: HealthcheckArgs, terminal: &mut Terminal) -> Exit {
    match args.agent.client_from_env().get::<Alive>("/healthz").await {
        Ok(alive) => {
            terminal.print(&format!("{}\n", alive.status));
            Exit::Done
        }
        Err(error) => error.report(terminal),
    }
}
