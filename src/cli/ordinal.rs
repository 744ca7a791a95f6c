//! `wharf ordinal`: this host's number among those of a role. Who claims it is `steer::ordinal`; `app` brings the two
//! together.

use std::path::PathBuf;

use super::etcd::EtcdArgs;
use super::exit::Exit;
use super::place::ConnectArgs;
use super::terminal::Terminal;
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

/// The number that the local agent has claimed, where no etcd is named.
pub async fn of_agent(args: &OrdinalArgs, role: &RoleName, terminal: &mut Terminal) -> Exit {
    if args.release.is_some() || args.renumber {
        terminal.fail("no etcd is named", "--etcd-endpoints, or --config with the agent's settings");
        return Exit::Usage;
    }
    match args.agent.client_from_env().get::<api::Ordinals>("/v1/ordinals").await {
        Err(error) => error.report(terminal),
        Ok(told) => match told.ordinals.get(role.as_str()) {
            Some(standing) => end(role, standing, terminal),
            None => {
                let table =
                    format!("[[ordinal]] with role = \"{role}\" in its settings, or name etcd by --etcd-endpoints");
                terminal.fail(&format!("the agent claims no number of {role}"), &table);
                Exit::NotMet
            }
        },
    }
}
