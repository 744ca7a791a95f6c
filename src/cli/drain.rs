//! `wharf drain` and `wharf undrain`: withdraw what this host offers, or offer it again.

use std::path::PathBuf;

use hyper::Method;

use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;
use super::token;
use crate::catalog::facade::api::Drain;

/// Withdraw everything this host offers, and stay so through restarts
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = "EXIT CODES:\n  0  done\n  1  the agent refuses\n  2  wrong use\n  3  no agent answers")]
pub struct DrainArgs {
    /// File with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

/// Runs `wharf drain` (`drain`) or `wharf undrain`.
pub async fn run(args: DrainArgs, drain: bool, terminal: &mut Terminal) -> Exit {
    let token = match token::read(args.http_token_file.as_deref(), terminal) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    let client = args.agent.client_from_env().with_token(token);
    let method = if drain { Method::POST } else { Method::DELETE };
    let drain = match client.call::<Drain>(method, "/v1/drain").await {
        Ok(drain) => drain,
        Err(error) => return error.report(terminal),
    };
    if let Some(awaits) = &drain.awaits {
        let todo = "leave the host running until `wharf explain` says that it is withdrawn; other hosts may answer for it till then";
        terminal.fail(&format!("not withdrawn yet: {awaits}"), todo);
    }
    for stays in &drain.stays {
        terminal.fail(stays, "`wharf topology switch` gives it away once that is mended");
    }
    terminal.print(match drain.drained {
        true => {
            "drained: nothing of this host is offered until `wharf undrain`
"
        }
        false => {
            "offering again
"
        }
    });
    Exit::Done
}
