//! The command line: one file per subcommand. Only the shape of `agent` and `check-config` is here; what they start is
//! the business of [`crate::app`].

pub mod age;
pub mod client;
pub mod completions;
pub mod direct;
pub mod drain;
mod elsewhere;
pub mod etcd;
pub mod events;
pub mod exit;
pub mod explain;
pub mod healthcheck;
pub mod import;
pub mod kv;
pub mod lock;
pub mod nodes;
pub mod ordinal;
pub mod output;
pub mod place;
pub mod proxies;
pub mod render;
pub mod resolve;
pub mod services;
pub mod source;
pub mod spread;
pub mod table;
pub mod terminal;
mod token;
pub mod topology;
pub mod wait;
pub mod zk;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::builder::Resettable;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::Raw;

/// The version, with its commit in a distributed build.
pub const VERSION: &str = env!("WHARF_VERSION");

/// Tells the programs of a cluster where the services they need are, right now.
#[derive(Debug, Parser)]
#[command(name = "wharf", version = VERSION, propagate_version = true, arg_required_else_help = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// What this process was started with. A variable that is set to nothing counts as not given: unit and compose
    /// files pass on whatever their user has left empty.
    pub fn of_this_process() -> Self {
        let mut matches = without_empty_variables(Self::command()).get_matches_from(arguments(std::env::args_os()));
        Self::from_arg_matches_mut(&mut matches).unwrap_or_else(|error| error.format(&mut Self::command()).exit())
    }
}

/// What was asked for; by a link of its name a command needs no other word.
fn arguments(given: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = given.collect();
    let name = arguments.first().and_then(|path| Path::new(path).file_name()).map(ToOwned::to_owned);
    if let Some(name) = name.filter(|name| LINKS.iter().any(|link| *name == **link)) {
        arguments.splice(..1, ["wharf".into(), name]);
    }
    arguments
}

/// Commands that a link may be called by: scripts of before know them as programs.
const LINKS: [&str; 2] = ["zk-list-nodes", "zk-barrier"];

fn without_empty_variables(command: clap::Command) -> clap::Command {
    let empty = |name: &std::ffi::OsStr| std::env::var_os(name).is_some_and(|value| value.is_empty());
    command
        .mut_args(|arg| if arg.get_env().is_some_and(empty) { arg.env(Resettable::Reset) } else { arg })
        .mut_subcommands(without_empty_variables)
}

/// The subcommands.
#[derive(Debug, Subcommand)]
#[allow(missing_docs)] // a doc comment here would replace the command's own help
pub enum Command {
    /// Run the daemon: offer what serves on this host, answer for the whole cluster
    Agent(Box<AgentArgs>),
    /// Serve the `[[proxy]]` tables apart from the agent, whose restart then touches no connection
    Proxy(Box<AgentArgs>),
    /// Read the settings as `agent` would, print every problem, start nothing
    CheckConfig(Box<AgentArgs>),
    Services(services::ServicesArgs),
    Wait(wait::WaitArgs),
    Resolve(resolve::ResolveArgs),
    Explain(explain::ExplainArgs),
    Nodes(nodes::NodesArgs),
    Proxies(proxies::ProxiesArgs),
    Render(Box<render::RenderArgs>),
    Drain(drain::DrainArgs),
    Undrain(drain::UndrainArgs),
    Topology(topology::TopologyArgs),
    Lock(Box<lock::LockArgs>),
    Ordinal(Box<ordinal::OrdinalArgs>),
    Kv(Box<kv::KvArgs>),
    ImportSkydns(Box<import::ImportArgs>),
    ZkListNodes(Box<zk::ListArgs>),
    ZkBarrier(Box<zk::BarrierArgs>),
    Completions(completions::CompletionsArgs),
    #[command(hide = true)]
    Healthcheck(healthcheck::HealthcheckArgs),
    #[command(hide = true)]
    LockGuardian(lock::GuardianArgs),
    #[command(hide = true)]
    LockHeld(lock::HeldArgs),
}

/// Settings of the agent: each flag is also a `WHARF_*` variable and a key of the file.
#[derive(Clone, Debug, Args)]
#[command(next_line_help = false, after_help = "A flag wins over its variable, which wins over the file.")]
pub struct AgentArgs {
    /// File with settings, as TOML
    #[arg(long, env = "WHARF_CONFIG", value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// The settings.
    #[command(flatten)]
    pub settings: Raw,
}

impl AgentArgs {
    /// What the environment alone says. One that says what cannot be read says nothing.
    pub fn of_environment() -> Self {
        let command = without_empty_variables(Self::augment_args(clap::Command::new("wharf")));
        let matches = command.try_get_matches_from(["wharf"]);
        let read = matches.and_then(|mut matches| Self::from_arg_matches_mut(&mut matches));
        read.unwrap_or_else(|_| Self { config: None, settings: Raw::default() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_is_the_command_of_its_name() {
        let check = |given: &str, expected: &str| {
            let words = arguments(given.split(' ').map(OsString::from));
            assert_eq!(words.join(std::ffi::OsStr::new(" ")), OsString::from(expected), "{given}");
        };
        check("/usr/local/bin/zk-barrier --min 1", "wharf zk-barrier --min 1");
        check("zk-list-nodes", "wharf zk-list-nodes");
        check("/usr/bin/wharf zk-barrier", "/usr/bin/wharf zk-barrier");
        check("wharf-zk-barrier services", "wharf-zk-barrier services");
    }
}
