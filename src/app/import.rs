//! `wharf import-skydns`: what was asked for is brought together with the two stores of etcd.

use super::lock::{PATIENCE, named, reached, unasked};
use crate::cli::exit::Exit;
use crate::cli::import::{self, ImportArgs};
use crate::cli::terminal::Terminal;
use crate::config::parse;
use crate::model::skydns::plan::root;
use crate::model::words::key::Prefix;
use crate::store::etcd::v2::{Settings, V2};

/// What this program keeps there is no service.
const OURS: &str = "/wharf";

/// Runs the command.
pub(super) async fn run(args: ImportArgs, terminal: &mut Terminal) -> Exit {
    let (from, endpoints) = match asked(&args) {
        Ok(asked) => asked,
        Err(what) => {
            terminal.fail(&what, "see --help");
            return Exit::Usage;
        }
    };
    match named(&args.etcd).and_then(|(etcd, _)| Ok((etcd, reached(&args.etcd, PATIENCE)?))) {
        Ok((etcd, reached)) => {
            let v2 = V2::new(Settings {
                endpoints: if endpoints.is_empty() { etcd.endpoints } else { endpoints },
                ca: etcd.ca,
                identity: etcd.identity,
                // The v3 store's users are others: their passwords are not told to the v2 store.
                user: args.v2_user.clone().zip(args.v2_password_file.clone()),
            });
            import::run(&args, &from, v2, &reached, terminal).await
        }
        Err(why) => unasked(&why, terminal),
    }
}

fn asked(args: &ImportArgs) -> Result<(Prefix, Vec<String>), String> {
    let from = parse::prefix(&args.from).map_err(|what| format!("--from: {what}"))?;
    if root(&from) == OURS {
        return Err(format!("--from: {from} is where wharf keeps what is no service"));
    }
    let endpoints = args.v2_endpoints.iter().map(|endpoint| parse::endpoint(endpoint));
    let endpoints = endpoints.collect::<Result<Vec<_>, _>>().map_err(|what| format!("--v2-endpoints: {what}"))?;
    Ok((from, endpoints))
}
