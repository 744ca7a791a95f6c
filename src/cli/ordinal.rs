//! `wharf ordinal`: this host's number among those of a role. Who claims it is `steer::ordinal`; `app` brings the two
//! together.

use std::path::PathBuf;

use hyper::Method;

use super::client::{Client, ClientError, escaped};
use super::etcd::EtcdArgs;
use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;
use super::token;
use crate::catalog::facade::api;
use crate::model::steer::ordinal::told::Standing;
use crate::model::words::ordinal::RoleName;

const CODES: &str = "EXIT CODES:
  0  the number is printed, or freed
  1  it has no number
  2  wrong use
  3  no agent answers, nor the store
  4  its number belongs to another host, or an agent of this name lives on another machine";

/// Claim and print this host's number among those of a role: the lowest free one, which stays its own
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = CODES)]
pub struct OrdinalArgs {
    /// Role, such as nucleus
    pub role: String,

    /// Free the number of this host, or of another one that will not come back
    #[arg(long, value_name = "NODE", num_args = 0..=1)]
    #[allow(clippy::option_option)] // clap's shape of a flag whose value may be left out
    pub release: Option<Option<String>>,

    /// Claim a new number if the old one belongs to another host now: what ran with the old one must have been stopped
    #[arg(long, conflicts_with = "release")]
    pub renumber: bool,

    /// Where a copy of the number is kept [default: as the agent has it]
    #[arg(long, env = "WHARF_STATE_DIR", value_name = "DIR", help_heading = "Store", hide_env_values = true)]
    pub state_dir: Option<PathBuf>,

    /// File with the agent's token, where it asks for one
    #[arg(long, env = "WHARF_HTTP_TOKEN_FILE", value_name = "FILE")]
    pub http_token_file: Option<PathBuf>,

    #[command(flatten)]
    #[allow(missing_docs)] // a doc comment would become the command's own help
    pub agent: ConnectArgs,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub etcd: EtcdArgs,
}

/// Tells how it ended.
pub fn end(role: &RoleName, standing: &Standing, terminal: &mut Terminal) -> Exit {
    let failed = format!("this host's number of {role} {standing}");
    match standing {
        Standing::Held { number, .. } => {
            terminal.print(&format!("{number}\n"));
            Exit::Done
        }
        Standing::Lost { number, .. } => {
            terminal.fail(
                &failed,
                &format!("stop what runs as {role} {number} here, then wharf ordinal {role} --renumber"),
            );
            Exit::Taken
        }
        Standing::Refused { .. } => {
            terminal.fail(&failed, "give this host a name of its own (--node), or stop the other one's agent");
            Exit::Taken
        }
        Standing::Released => {
            terminal.fail(&failed, "wharf ordinal again claims one");
            Exit::NotMet
        }
        Standing::Claiming { .. } | Standing::Unknown => {
            terminal.fail(&failed, "wharf ordinal again, in a while");
            Exit::NotMet
        }
    }
}

/// Tells that a number was freed.
pub fn freed(role: &RoleName, node: &str, number: u32, is_free: bool, terminal: &mut Terminal) -> Exit {
    let when = if is_free { "" } else { " as soon as its agent has seen that" };
    terminal.note(&format!("{role} {number} of {node} is free{when}"));
    Exit::Done
}

/// The same by the local agent and its store, where no etcd is named.
pub async fn of_agent(args: &OrdinalArgs, role: &RoleName, terminal: &mut Terminal) -> Exit {
    let token = match token::read(args.http_token_file.as_deref(), terminal) {
        Ok(token) => token,
        Err(exit) => return exit,
    };
    let client = args.agent.client_from_env().with_token(token);
    let path = format!("/v1/ordinals/{role}");
    if let Some(node) = &args.release {
        let path = node.as_ref().map_or_else(|| path.clone(), |node| format!("{path}?node={}", escaped(node)));
        return match client.work::<api::Freed>(Method::DELETE, &path).await {
            Ok(told) => freed(role, &told.node, told.number, told.free, terminal),
            Err(error) => error.report(terminal),
        };
    }
    match stands(&client, args.renumber, role, &path).await {
        Ok(standing) => end(role, &standing, terminal),
        Err(error) => error.report(terminal),
    }
}

/// How the host stands once its number is claimed. Whoever only looks at one that it has needs no right to claim.
async fn stands(client: &Client, renumber: bool, role: &RoleName, path: &str) -> Result<Standing, ClientError> {
    let known = client.get::<api::Ordinals>("/v1/ordinals").await?;
    match known.ordinals.get(role.as_str()) {
        Some(Standing::Lost { .. }) if renumber => {}
        Some(standing @ (Standing::Held { .. } | Standing::Lost { .. } | Standing::Refused { .. })) => {
            return Ok(standing.clone());
        }
        _ => {}
    }
    let asked = if renumber { "?renumber=1" } else { "" };
    client.work(Method::POST, &format!("{path}{asked}")).await
}
