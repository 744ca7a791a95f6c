//! `wharf lock` and `wharf kv`: what was asked for is brought together with etcd and with who runs programs.

use std::time::Duration;

use crate::cli::AgentArgs;
use crate::cli::etcd::{EtcdArgs, Reached};
use crate::cli::exit::Exit;
use crate::cli::kv::{self, KvArgs};
use crate::cli::lock::{self as asked, LockArgs};
use crate::cli::terminal::Terminal;
use crate::config::{Config, EtcdConfig};
use crate::host::identity;
use crate::lock::{self, Job, LOST};
use crate::model::steer::lock::command::refusal;
use crate::model::steer::lock::queue::{Keys, LockName};
use crate::model::words::plain::plain;
use crate::notify::Notify;
use crate::store::etcd::{Etcd, Settings};

use super::settings;

/// What bounds how long a call of a command that keeps nothing may try.
pub(super) const PATIENCE: Duration = Duration::from_secs(15);
/// How the guardian tells `wharf lock` that it is its child.
pub(super) const GUARDED: &str = "WHARF_LOCK_GUARDED";

/// Why etcd cannot be asked.
pub(super) enum Unasked {
    Wrong(String),
    /// None is named.
    None,
}

/// The store; `lease` bounds how long a call may try, a third of it.
pub(super) fn reached(args: &EtcdArgs, lease: Duration) -> Result<Reached, Unasked> {
    let (etcd, config) = named(args)?;
    let prefix = config.store.prefix;
    let store = Etcd::new(Settings {
        endpoints: etcd.endpoints,
        ca: etcd.ca,
        identity: etcd.identity,
        user: etcd.user,
        lease_ttl: lease,
        probe: prefix.locks(),
    });
    Ok(Reached { store, prefix, node: config.node, state_dir: config.store.state_dir })
}

/// How etcd is reached, and all else that is set.
pub(super) fn named(args: &EtcdArgs) -> Result<(EtcdConfig, Config), Unasked> {
    let args = AgentArgs { config: args.config.clone(), settings: args.settings() };
    let config = settings::join(&args).map_err(|problems| Unasked::Wrong(problems.to_string()))?;
    let etcd = config.store.etcd.clone().ok_or(Unasked::None)?;
    Ok((etcd, config))
}

/// Runs `wharf kv`.
pub(super) async fn kv(args: KvArgs, terminal: &mut Terminal) -> Exit {
    match reached(args.etcd(), PATIENCE) {
        Ok(reached) => kv::run(&args, &reached, terminal).await,
        Err(why) => unasked(&why, terminal),
    }
}

pub(super) fn unasked(why: &Unasked, terminal: &mut Terminal) -> Exit {
    match why {
        Unasked::Wrong(what) => terminal.fail(what, "see --help"),
        Unasked::None => terminal.fail("no etcd is named", "--etcd-endpoints, or --config with the agent's settings"),
    }
    Exit::Usage
}

/// Runs `wharf lock`, and tells the exit code.
pub(super) async fn lock(args: LockArgs, terminal: &mut Terminal) -> u8 {
    let name = match args.lock() {
        Ok(name) => name,
        Err(what) => {
            terminal.fail(&what, "see --help");
            return Exit::Usage as u8;
        }
    };
    let shows = args.status || args.clear;
    let patience = if shows { PATIENCE } else { args.ttl / 2 };
    match reached(&args.etcd, patience) {
        Ok(reached) if shows => asked::run(&args, &name, &reached, terminal).await as u8,
        Ok(reached) => match refusal(&args.command) {
            None => lock::run(job(args, name, reached)).await,
            Some(why) => failed(&why, "docker/units/postgres@.service shows how", terminal),
        },
        Err(why) if shows => unasked(&why, terminal) as u8,
        Err(Unasked::Wrong(what)) => failed(&what, "see --help", terminal),
        Err(Unasked::None) => {
            failed("no etcd is named: --etcd-endpoints does, or --config", "one host alone has flock(1)", terminal)
        }
    }
}

fn failed(what: &str, todo: &str, terminal: &mut Terminal) -> u8 {
    terminal.fail(what, todo);
    LOST
}

fn job(args: LockArgs, name: LockName, reached: Reached) -> Job {
    let Reached { store, prefix, node, .. } = reached;
    let told = name.as_str().to_owned();
    Job {
        keys: Keys::new(&prefix, &name),
        value: args.value.unwrap_or_else(|| node.clone()),
        name,
        store,
        node,
        boot: identity::boot_id().unwrap_or_default().to_string(),
        ttl: args.ttl,
        grace: args.grace,
        wait: args.wait,
        strict: args.strict,
        guarded: std::env::var_os(GUARDED).is_some(),
        command: args.command,
        tell: Box::new(move |text| tell(&told, text)),
        beat: Box::new(|left| Notify.alive_for(left)),
    }
}

#[allow(clippy::print_stderr)] // the program has standard output for itself
fn tell(name: &str, text: &str) {
    let text = format!("wharf lock {name}: {text}");
    eprintln!("{}", plain(&text));
    Notify.status(&plain(&text));
}
