//! `wharf kv`: single keys of etcd for scripts, and writes that only who has a lock may make.

use bytes::Bytes;
use clap::Subcommand;

use super::etcd::{EtcdArgs, Reached, trouble};
use super::exit::Exit;
use super::terminal::Terminal;
use crate::model::steer::lock::queue::{Keys, LockName, in_order};
use crate::model::words::key::Prefix;
use crate::store::{Commit, Condition, Store, StoreError, Write};

/// The longest value that is written: etcd takes little more in one request.
const LONGEST: usize = 1 << 20;

/// Read and write single keys of etcd, also only while a lock is held
#[derive(Clone, Debug, clap::Args)]
#[command(
    after_help = "EXIT CODES:\n  0  done, or shown\n  1  no such key; the lock is not held by that token\n  2  wrong use\n  3  etcd does not answer"
)]
pub struct KvArgs {
    #[command(subcommand)]
    #[allow(missing_docs)]
    pub verb: Verb,
}

/// What is to be done.
#[derive(Clone, Debug, Subcommand)]
#[allow(missing_docs)] // a doc comment here would replace the command's own help
pub enum Verb {
    /// Print a key's value
    Get(GetArgs),
    /// Write a key
    Put(PutArgs),
    /// Write a key unless it exists, and print its value
    Ensure(PutArgs),
}

/// Which key.
#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    /// Key, such as /config/x
    pub key: String,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub etcd: EtcdArgs,
}

/// Which key, and its value.
#[derive(Clone, Debug, clap::Args)]
pub struct PutArgs {
    /// Key, such as /config/x
    pub key: String,

    /// Its value
    pub value: String,

    /// Write only while this token has this lock: WHARF_LOCK_NAME=WHARF_LOCK_TOKEN of its program
    #[arg(long, value_name = "NAME=TOKEN", value_parser = fence)]
    pub if_lock: Option<Fence>,

    #[command(flatten)]
    #[allow(missing_docs)]
    pub etcd: EtcdArgs,
}

/// A lock, and who must have it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    name: LockName,
    token: i64,
}

fn fence(text: &str) -> Result<Fence, String> {
    let (name, token) = text.rsplit_once('=').ok_or_else(|| format!("{text:?} is not NAME=TOKEN"))?;
    let token = token.parse().map_err(|_| format!("{token:?} is no token: a whole number is"))?;
    Ok(Fence { name: LockName::parse(name)?, token })
}

impl KvArgs {
    /// Where etcd is.
    pub fn etcd(&self) -> &EtcdArgs {
        match &self.verb {
            Verb::Get(args) => &args.etcd,
            Verb::Put(args) | Verb::Ensure(args) => &args.etcd,
        }
    }
}

/// Runs the command.
pub async fn run(args: &KvArgs, reached: &Reached, terminal: &mut Terminal) -> Exit {
    let key = match &args.verb {
        Verb::Get(args) => &args.key,
        Verb::Put(args) | Verb::Ensure(args) => &args.key,
    };
    if let Some(what) = unfit(key, &args.verb) {
        terminal.fail(&what, "a key such as /config/x");
        return Exit::Usage;
    }
    let done = match &args.verb {
        Verb::Get(args) => get(args, reached, terminal).await,
        Verb::Put(args) => put(args, false, reached, terminal).await,
        Verb::Ensure(args) => put(args, true, reached, terminal).await,
    };
    done.unwrap_or_else(|error| trouble(&error, terminal))
}

fn unfit(key: &str, verb: &Verb) -> Option<String> {
    if Prefix::parse(key).is_none() || key.ends_with('/') {
        return Some(format!("{key:?} is no key"));
    }
    match verb {
        Verb::Put(args) | Verb::Ensure(args) if args.value.len() > LONGEST => {
            Some(format!("a value of {} bytes is too long", args.value.len()))
        }
        _ => None,
    }
}

async fn value(reached: &Reached, key: &str) -> Result<Option<Bytes>, StoreError> {
    let page = reached.store.get(&[key.to_owned()]).await?;
    Ok(page.items.into_iter().next().map(|item| item.value))
}

async fn get(args: &GetArgs, reached: &Reached, terminal: &mut Terminal) -> Result<Exit, StoreError> {
    let Some(value) = value(reached, &args.key).await? else {
        terminal.fail(&format!("no key {}", args.key), "wharf kv ensure writes it unless it is there");
        return Ok(Exit::NotMet);
    };
    terminal.print(&format!("{}\n", String::from_utf8_lossy(&value)));
    Ok(Exit::Done)
}

async fn put(args: &PutArgs, ensure: bool, reached: &Reached, terminal: &mut Terminal) -> Result<Exit, StoreError> {
    let mut conditions = match &args.if_lock {
        None => vec![],
        Some(fence) => match held(fence, reached).await? {
            Ok(condition) => vec![condition],
            Err(why) => return Ok(refused(&why, terminal)),
        },
    };
    let write = Write::Put { key: args.key.clone(), value: args.value.clone().into(), lease: 0 };
    if ensure {
        conditions.push(Condition::Absent(args.key.clone()));
    }
    match reached.store.commit(&conditions, &[write]).await? {
        Commit::Done(_) if ensure => terminal.print(&format!("{}\n", args.value)),
        Commit::Done(_) => {}
        Commit::Refused(_) => match value(reached, &args.key).await?.filter(|_| ensure) {
            Some(value) => terminal.print(&format!("{}\n", String::from_utf8_lossy(&value))),
            None => return Ok(refused("the lock was lost just now", terminal)),
        },
    }
    Ok(Exit::Done)
}

fn refused(why: &str, terminal: &mut Terminal) -> Exit {
    terminal.fail(&format!("not written: {why}"), "wharf lock --status NAME");
    Exit::NotMet
}

/// On what condition the token has the lock: its key is the head of the queue, which it stays until it goes.
async fn held(fence: &Fence, reached: &Reached) -> Result<Result<Condition, String>, StoreError> {
    let keys = Keys::new(&reached.prefix, &fence.name);
    let (places, _) = reached.store.queue(&keys.queue).await?;
    let line = in_order(&keys, places);
    let name = fence.name.as_str();
    Ok(match line.first() {
        Some(head) if head.created == fence.token => Ok(Condition::Unchanged(head.key.clone(), fence.token)),
        Some(head) => Err(format!("token {} has {name}, not {}", head.created, fence.token)),
        None => Err(format!("nobody has {name}")),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fence_is_a_lock_and_a_token() {
        let check = |text: &str| fence(text).map(|fence| (fence.name.as_str().to_owned(), fence.token)).ok();
        assert_eq!(check("postgres=17"), Some(("postgres".into(), 17)));
        assert_eq!(check("/services/postgres/master=17"), Some(("/services/postgres/master".into(), 17)));
        for bad in ["postgres", "=1", "postgres=", "postgres=x", "a b=1"] {
            assert_eq!(check(bad), None, "{bad}");
        }
    }
}
