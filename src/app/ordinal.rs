//! `[[ordinal]]` tables and `wharf ordinal`: who claims is brought together with the store and the state directory.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures_util::FutureExt;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};

use super::build::Ground;
use super::lock::{PATIENCE, Unasked, reached, unasked};
use crate::answer::http::{OrdinalAsk, OrdinalDone, OrdinalSource};
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
use crate::steer::ordinal::{self, Anew, Desk, Metrics, Place, Release, Released, Settings};
use crate::store::StoreError;
use crate::supervisor::{Half, Supervisor};

/// Words of people that an agent acts on at a time: each may take some seconds.
const AT_A_TIME: usize = 4;

/// What the rest of the agent needs of it.
pub(super) struct Ordinals {
    pub(super) roles: watch::Sender<Arc<BTreeSet<RoleName>>>,
    pub(super) standings: watch::Receiver<Arc<Standings>>,
    pub(super) asked: OrdinalSource,
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
    let (place, state_dir) = (settings.place.clone(), settings.state_dir.clone());
    let (worker, standings, anew) = ordinal::Ordinals::new(settings, wanted, Metrics::register(registry));
    supervisor.spawn("ordinals", Half::Offer, worker.run(supervisor.stop_of(Half::Offer)));
    let counter = Arc::new(Counter { place, state_dir, standings: standings.clone(), anew });
    let turns = Arc::new(Semaphore::new(AT_A_TIME));
    let asked = OrdinalSource::new(move |role, ask| {
        let (counter, turns) = (Arc::clone(&counter), Arc::clone(&turns));
        let work = async move {
            let _turn = turns.try_acquire().map_err(|_| "too much is asked for at once".to_owned())?;
            counter.take(&role, ask).await.map_err(|error| error.to_string())
        };
        work.boxed()
    });
    Ordinals { roles, standings, asked }
}

/// Where an agent takes the words of people about numbers.
struct Counter {
    place: Place,
    state_dir: Option<PathBuf>,
    standings: watch::Receiver<Arc<Standings>>,
    anew: Anew,
}

impl Counter {
    async fn take(&self, role: &RoleName, ask: OrdinalAsk) -> Result<OrdinalDone, StoreError> {
        match ask {
            OrdinalAsk::Claim { renumber } => self.claim(role, renumber).await.map(OrdinalDone::Stands),
            OrdinalAsk::Release { node } => self.release(role, node).await,
        }
    }

    fn kept(&self, role: &RoleName) -> Option<KeptOrdinal> {
        self.state_dir.as_ref().map(|dir| KeptOrdinal::new(dir, role))
    }

    fn number(&self, role: &RoleName) -> Option<u32> {
        self.standings.borrow().get(role.as_str()).and_then(Standing::number)
    }

    async fn claim(&self, role: &RoleName, renumber: bool) -> Result<Standing, StoreError> {
        let mut desk = Desk::new(self.place.clone(), role.clone(), self.kept(role));
        let note = |text| tracing::warn!(%role, text, "by a person's word");
        let standing = ordinal::claim(&mut desk, renumber, note).await?;
        if standing.number() != self.number(role) {
            self.anew.begin(role).await;
        }
        Ok(standing)
    }

    async fn release(&self, role: &RoleName, node: Option<String>) -> Result<OrdinalDone, StoreError> {
        let own = &*self.place.me.node;
        let node = node.unwrap_or_else(|| own.to_owned());
        let Place { store, prefix, .. } = self.place.clone();
        let lives = node == own && self.number(role).is_some();
        let released = Release { store, prefix, role: role.clone(), lives }.of(&node).await?;
        if let (true, Released::Free(_), Some(kept)) = (node == own, &released, self.kept(role))
            && let Err(error) = kept.write(None).await
        {
            tracing::warn!(%role, %error, "the copy of a number that was freed is still there");
        }
        Ok(match released {
            Released::Free(number) => OrdinalDone::Freed { node, number, is_free: true },
            Released::Told(number) => OrdinalDone::Freed { node, number, is_free: false },
            Released::None => OrdinalDone::None { node },
        })
    }
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
        let exit = release(&Release { store, prefix, role: role.clone(), lives: false }, of, terminal).await?;
        if of == node
            && exit == Exit::Done
            && let Err(error) = kept.write(None).await
        {
            terminal.note(&format!("wharf: the copy of the number is still there: {error}"));
        }
        return Ok(exit);
    }
    let mut desk = Desk::new(Place { store, prefix, me: me(&node) }, role.clone(), Some(kept));
    let standing = ordinal::claim(&mut desk, args.renumber, |text| terminal.note(&text)).await?;
    desk.unkept().into_iter().for_each(|why| terminal.note(&format!("wharf: {why}")));
    Ok(asked::end(role, &standing, terminal))
}

async fn release(release: &Release, node: &str, terminal: &mut Terminal) -> Result<Exit, StoreError> {
    let role = &release.role;
    Ok(match release.of(node).await? {
        Released::Free(number) => asked::freed(role, node, number, true, terminal),
        Released::Told(number) => asked::freed(role, node, number, false, terminal),
        Released::None => {
            terminal.fail(&format!("{node} has no number of {role}"), "etcdctl get --prefix /wharf lists them");
            Exit::NotMet
        }
    })
}
