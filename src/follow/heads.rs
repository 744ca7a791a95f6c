//! What the store has of the topologies of all services, kept as it changes: role names go by it on every host, also on
//! those that steer nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::model::steer::journal::{Journal, Stage};
use crate::model::steer::marks::{Coming, Switches};
use crate::model::steer::names::{Head, Heads};
use crate::model::steer::topology::Applied;
use crate::model::words::key::Prefix;
use crate::store::{Item, LeaseId, Revision, Store};

/// Keeps them.
#[derive(Debug)]
pub struct HeadKeeper {
    store: Arc<dyn Store>,
    prefix: String,
    shown: watch::Sender<Arc<Heads>>,
    switches: watch::Sender<Arc<Switches>>,
}

impl HeadKeeper {
    /// A keeper of the topologies beside `prefix`, and where they are read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<Heads>>) {
        let (shown, seen) = watch::channel(Arc::default());
        (Self { store, prefix: prefix.topologies(), shown, switches: watch::Sender::default() }, seen)
    }

    /// Where the switches are read that are about to begin.
    pub fn switches(&self) -> watch::Receiver<Arc<Switches>> {
        self.switches.subscribe()
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Self { store, prefix, shown, switches } = self;
        let below = prefix.clone();
        let show = |known: &Known<Said>, _in_step: bool| {
            few::send_changed(&shown, heads(&prefix, known));
            few::send_changed(&switches, coming(&prefix, known));
        };
        stop.run_until_cancelled(few::follow(store, below, show)).await;
        Ok(())
    }
}

/// What one key of a topology says of names.
enum Said {
    Applied(Revision, Box<Applied>),
    AtWork(Box<Journal>),
    /// The lease of who is at work.
    Held(LeaseId),
    /// Nothing: it is for those who steer.
    Else,
}

impl Kept for Said {
    const NAME: &str = "keys of topologies";

    fn read(item: &Item) -> Result<Self, String> {
        let said = match item.key.rsplit('/').next() {
            Some("applied") => Applied::decode(&item.value).map(|applied| Self::Applied(item.revision, applied.into())),
            Some("journal") => Journal::decode(&item.value).map(|journal| Self::AtWork(journal.into())),
            Some("hold") => Ok(Self::Held(item.lease)),
            _ => Ok(Self::Else),
        };
        said.map_err(|reason| reason.to_string())
    }
}

fn heads(prefix: &str, known: &Known<Said>) -> Heads {
    let mut heads: BTreeMap<String, Head> = BTreeMap::new();
    for (service, said) in by_service(prefix, known) {
        let head = heads.entry(service.to_owned()).or_default();
        match said {
            Said::Applied(revision, applied) => {
                (head.applied, head.revision) = (Some(Applied::clone(applied)), *revision);
            }
            Said::AtWork(journal) => head.at_work(journal),
            Said::Held(_) | Said::Else => {}
        }
    }
    Heads(heads)
}

/// The switches before their decision: with it, it is too late to be waited for.
fn coming(prefix: &str, known: &Known<Said>) -> Switches {
    let (mut numbers, mut holds) = (BTreeMap::new(), BTreeMap::new());
    for (service, said) in by_service(prefix, known) {
        match said {
            Said::AtWork(journal) if journal.stage == Stage::Intent => _ = numbers.insert(service, journal.number),
            Said::Held(lease) => _ = holds.insert(service, *lease),
            Said::AtWork(_) | Said::Applied(..) | Said::Else => {}
        }
    }
    let with_hold = |(service, number): (&str, u64)| {
        let coming = Coming { number, hold: *holds.get(service)? };
        Some((service.to_owned(), coming))
    };
    numbers.into_iter().filter_map(with_hold).collect()
}

fn by_service<'k>(prefix: &str, known: &'k Known<Said>) -> impl Iterator<Item = (&'k str, &'k Said)> {
    known.all().filter_map(move |(key, said)| {
        let (service, what) = key.strip_prefix(prefix)?.split_once('/')?;
        (!what.contains('/')).then_some((service, said))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn topologies_come_and_go_with_their_keys() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        let (keeper, mut seen) = HeadKeeper::new(Arc::new(store.clone()), &prefix);
        let switches = keeper.switches();
        let session = store.session(Duration::from_secs(5), None).await.expect("it takes writes");
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let below = |key: &str| format!("/wharf/services/topology/redis-1/{key}");
        let put = |key: &str, value: &str| Write::Put { key: below(key), value: value.to_owned().into(), lease: 0 };
        let journal = |stage: &str| {
            put("journal", &format!(r#"{{"number":4,"kind":"switch","stage":"{stage}","target":{{"name":"b"}}}}"#))
        };
        let applied = put("applied", r#"{"epoch":2,"master":{"name":"a"}}"#);
        for (write, switching, master) in [
            (journal("promote"), true, None),
            (applied, true, Some("a")),
            (journal("publish"), false, Some("a")),
            (journal("{"), false, Some("a")),
        ] {
            store.commit(&[], &[write]).await.expect("it takes writes");
            let is_so = |heads: &Arc<Heads>| {
                heads.0.get("redis-1").is_some_and(|head| {
                    let named = head.applied.as_ref().map(|applied| applied.master.name.as_str());
                    head.switching == switching && named == master
                })
            };
            timeout(Duration::from_secs(10), seen.wait_for(is_so)).await.expect("in time").expect("it runs");
        }
        let mut switches = switches;
        let writes = [journal("intent"), Write::Put { key: below("hold"), value: "x".into(), lease: session.lease() }];
        store.commit(&[], &writes).await.expect("it takes writes");
        let coming = Switches::from([("redis-1".to_owned(), Coming { number: 4, hold: session.lease() })]);
        let is_so = |switches: &Arc<Switches>| **switches == coming;
        timeout(Duration::from_secs(10), switches.wait_for(is_so)).await.expect("in time").expect("it runs");
        store.revoke(session.lease()).await.expect("it takes writes");
        let is_over = |switches: &Arc<Switches>| switches.is_empty();
        timeout(Duration::from_secs(10), switches.wait_for(is_over)).await.expect("in time").expect("it runs");
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
