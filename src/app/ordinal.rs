//! `[[ordinal]]` tables and `wharf ordinal`: who claims is brought together with the store and the state directory.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::build::Ground;
use super::lock::{PATIENCE, Unasked, reached, unasked};
use crate::cli::etcd::{Reached, trouble};
use crate::cli::exit::Exit;
use crate::cli::ordinal::{self as asked, OrdinalArgs};
use crate::cli::terminal::Terminal;
use crate::config::Config;
use crate::host::identity;
use crate::model::steer::ordinal::claim::Me;
use crate::model::steer::ordinal::told::{Standing, Standings};
use crate::model::words::ordinal::RoleName;
use crate::state::ordinal::{EnvironmentFile, KeptOrdinal};
use crate::steer::ordinal::{self, Desk, Metrics, Place, Release, Released, Settings};
use crate::store::StoreError;
use crate::supervisor::{Half, Supervisor};

/// So long the command asks a store that does not answer,
const DEAF: Duration = Duration::from_secs(10);
/// and so often.
const AGAIN: Duration = Duration::from_millis(200);

/// What the rest of the agent needs of it.
pub(super) struct Ordinals {
    pub(super) roles: watch::Sender<Arc<BTreeSet<RoleName>>>,
    pub(super) standings: watch::Receiver<Arc<Standings>>,
}

/// Starts the worker; without tables it does nothing.
pub(super) fn start(
    config: &Config,
    ground: &Ground,
    supervisor: &mut Supervisor,
    registry: &mut Registry,
) -> Ordinals {
    let settings = Settings {
        place: Place { store: Arc::clone(&ground.store), prefix: config.store.prefix.clone(), me: me(&config.node) },
        state_dir: ground.state.writable().then(|| config.store.state_dir.clone()),
        environment: config.runtime_dir.as_deref().map(EnvironmentFile::new),
    };
    let (roles, wanted) = watch::channel(Arc::new(config.ordinals.clone()));
    let (worker, standings) = ordinal::Ordinals::new(settings, wanted, Metrics::register(registry));
    supervisor.spawn("ordinals", Half::Offer, worker.run(supervisor.stop_of(Half::Offer)));
    Ordinals { roles, standings }
}

fn me(node: &str) -> Me {
    Me { node: node.into(), machine: identity::derived_machine_id() }
}

/// Runs `wharf ordinal`.
pub(super) async fn run(args: OrdinalArgs, terminal: &mut Terminal) -> Exit {
    let role = match RoleName::parse(&args.role) {
        Ok(role) => role,
        Err(what) => {
            terminal.fail(&what, "see --help");
            return Exit::Usage;
        }
    };
    match reached(&args.etcd, PATIENCE) {
        Ok(reached) => {
            let state_dir = args.state_dir.clone().unwrap_or_else(|| reached.state_dir.clone());
            let done = directly(&args, &role, reached, &state_dir, terminal).await;
            done.unwrap_or_else(|error| trouble(&error, terminal))
        }
        Err(Unasked::None) => asked::of_agent(&args, &role, terminal).await,
        Err(why) => unasked(&why, terminal),
    }
}

/// With etcd itself.
async fn directly(
    args: &OrdinalArgs,
    role: &RoleName,
    reached: Reached,
    state_dir: &Path,
    terminal: &mut Terminal,
) -> Result<Exit, StoreError> {
    let Reached { store, prefix, node, .. } = reached;
    let store = Arc::new(store);
    let kept = KeptOrdinal::new(state_dir, role);
    if let Some(named) = &args.release {
        let of = named.as_ref().map_or(&*node, |named| named.as_str());
        let exit = release(&Release { store, prefix, role: role.clone() }, of, terminal).await?;
        if of == node
            && exit == Exit::Done
            && let Err(error) = kept.write(None).await
        {
            terminal.note(&format!("wharf: the copy of the number is still there: {error}"));
        }
        return Ok(exit);
    }
    let mut desk = Desk::new(Place { store, prefix, me: me(&node) }, role.clone(), Some(kept));
    let mut heard = Instant::now();
    loop {
        let looked = match desk.look().await {
            Ok(looked) => looked,
            // A hundred hosts ask at once, or the store is just restored: it is asked again for a while.
            Err(StoreError::Away { .. } | StoreError::Rewound) if heard.elapsed() < DEAF => {
                sleep(AGAIN).await;
                continue;
            }
            Err(error) => return Err(error),
        };
        heard = Instant::now();
        match &looked.standing {
            Standing::Lost { number, to } if args.renumber => {
                terminal.note(&format!("{role} {number} is {to}'s: a new number is claimed"));
                desk.forget().await;
                continue;
            }
            Standing::Claiming { reason: None } | Standing::Unknown => {}
            standing => {
                desk.unkept().into_iter().for_each(|why| terminal.note(&format!("wharf: {why}")));
                return Ok(asked::end(role, standing, terminal));
            }
        }
        desk.wait(&looked).await;
    }
}

async fn release(release: &Release, node: &str, terminal: &mut Terminal) -> Result<Exit, StoreError> {
    let role = &release.role;
    Ok(match release.of(node).await? {
        Released::Free(number) => {
            terminal.note(&format!("{role} {number} of {node} is free"));
            Exit::Done
        }
        Released::Told(number) => {
            terminal.note(&format!("{role} {number} of {node} is free as soon as its agent has seen that"));
            Exit::Done
        }
        Released::None => {
            terminal.fail(&format!("{node} has no number of {role}"), "etcdctl get --prefix /wharf lists them");
            Exit::NotMet
        }
    })
}
