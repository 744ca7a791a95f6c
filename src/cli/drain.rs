//! `wharf drain` and `wharf undrain`: withdraw what this host offers, or offer it again.

use std::path::PathBuf;

use hyper::Method;

use super::client::escaped;
use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;
use super::token;
use crate::catalog::facade::api::Drain;

/// Withdraw what this host offers, or one service of it, until `wharf undrain`
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  done\n  1  the agent refuses, or has nothing of that name\n  2  wrong use\n  3  no agent answers"
)]
pub struct DrainArgs {
    /// Service, instance id or container of this host; all of it when left out
    #[arg(value_name = "SERVICE|ID")]
    pub what: Option<String>,

    /// Why: shown wherever the drain is shown
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,

    /// File with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

/// Offer what was drained again
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  done\n  1  the agent refuses, or nothing of that name is drained\n  2  wrong use\n  3  no agent answers"
)]
pub struct UndrainArgs {
    /// Service, instance id or container that was drained; the host when left out
    #[arg(value_name = "SERVICE|ID")]
    pub what: Option<String>,

    /// File with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,
}

impl From<UndrainArgs> for DrainArgs {
    fn from(args: UndrainArgs) -> Self {
        let UndrainArgs { what, http_token_file, agent } = args;
        Self { what, reason: None, http_token_file, agent }
    }
}

/// Runs `wharf drain` (`drain`) or `wharf undrain`.
pub async fn run(args: DrainArgs, drain: bool, terminal: &mut Terminal) -> Exit {
    let token = match token::read(args.http_token_file.as_deref(), terminal) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    let client = args.agent.client_from_env().with_token(token);
    let method = if drain { Method::POST } else { Method::DELETE };
    let who = if drain { who() } else { None };
    let drain =
        match client.call::<Drain>(method, &path(args.what.as_deref(), args.reason.as_deref(), who.as_deref())).await {
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
    let what = args.what.as_deref();
    terminal.print(&match (drain.drained, what) {
        (true, None) => "drained: nothing of this host is offered until `wharf undrain`\n".to_owned(),
        (true, Some(what)) => format!("drained: {what} is not offered by this host until `wharf undrain {what}`\n"),
        (false, None) => "offering again\n".to_owned(),
        (false, Some(what)) => format!("offering {what} again\n"),
    });
    Exit::Done
}

/// Who is asking, for whoever finds it drained.
fn who() -> Option<String> {
    ["SUDO_USER", "USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok().filter(|who| !who.is_empty()))
}

fn path(what: Option<&str>, reason: Option<&str>, who: Option<&str>) -> String {
    let given = [("what", what), ("reason", reason), ("who", who)];
    let pairs: Vec<String> =
        given.iter().filter_map(|(name, value)| Some(format!("{name}={}", escaped((*value)?)))).collect();
    if pairs.is_empty() { "/v1/drain".to_owned() } else { format!("/v1/drain?{}", pairs.join("&")) }
}
