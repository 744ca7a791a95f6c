//! What the store has of the topologies of all services, kept as it changes: role names go by it on every host, also on
//! those that steer nothing.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::model::steer::journal::Journal;
use crate::model::steer::names::{Head, Heads};
use crate::model::steer::topology::Applied;
use crate::model::words::key::Prefix;
use crate::store::{Item, Revision, Store};

/// Keeps them.
#[derive(Debug)]
pub struct HeadKeeper {
    store: Arc<dyn Store>,
    prefix: String,
    shown: watch::Sender<Arc<Heads>>,
}

impl HeadKeeper {
    /// A keeper of the topologies beside `prefix`, and where they are read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<Heads>>) {
        let (shown, seen) = watch::channel(Arc::default());
        (Self { store, prefix: prefix.topologies(), shown }, seen)
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let (shown, prefix) = (self.shown, self.prefix.clone());
        let show = |known: &Known<Said>, _in_step: bool| few::send_changed(&shown, heads(&prefix, known));
        stop.run_until_cancelled(few::follow(self.store, self.prefix, show)).await;
        Ok(())
    }
}

/// What one key of a topology says of names.
enum Said {
    Applied(Revision, Box<Applied>),
    AtWork(Box<Journal>),
    /// Nothing: it is for those who steer.
    Else,
}

impl Kept for Said {
    const NAME: &str = "keys of topologies";

    fn read(item: &Item) -> Result<Self, String> {
        let said = match item.key.rsplit('/').next() {
            Some("applied") => Applied::decode(&item.value).map(|applied| Self::Applied(item.revision, applied.into())),
            Some("journal") => Journal::decode(&item.value).map(|journal| Self::AtWork(journal.into())),
            _ => Ok(Self::Else),
        };
        said.map_err(|reason| reason.to_string())
    }
}

fn heads(prefix: &str, known: &Known<Said>) -> Heads {
    let mut heads: BTreeMap<String, Head> = BTreeMap::new();
    for (key, said) in known.all() {
        let Some((service, what)) = key.strip_prefix(prefix).and_then(|rest| rest.split_once('/')) else { continue };
        if what.contains('/') {
            continue;
        }
        let head = heads.entry(service.to_owned()).or_default();
        match said {
            Said::Applied(revision, applied) => {
                (head.applied, head.revision) = (Some(Applied::clone(applied)), *revision);
            }
            Said::AtWork(journal) => head.at_work(journal),
            Said::Else => {}
        }
    }
    Heads(heads)
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
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let put = |key: &str, value: &str| Write::Put {
            key: format!("/wharf/services/topology/redis-1/{key}"),
            value: value.to_owned().into(),
            lease: 0,
        };
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
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
