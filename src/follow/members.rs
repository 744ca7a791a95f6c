//! What the store has of the member lists of all services, kept as it changes: every host tells clients the list that
//! stands there.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::catalog::facade::autodiscovery::{MemberList, MemberLists};
use crate::model::words::key::Prefix;
use crate::store::{Item, Store};

/// Keeps them.
#[derive(Debug)]
pub struct MemberKeeper {
    store: Arc<dyn Store>,
    prefix: String,
    shown: watch::Sender<Arc<MemberLists>>,
}

impl MemberKeeper {
    /// A keeper of the lists beside `prefix`, and where they are read.
    pub fn new(store: Arc<dyn Store>, prefix: &Prefix) -> (Self, watch::Receiver<Arc<MemberLists>>) {
        let (shown, seen) = watch::channel(Arc::default());
        (Self { store, prefix: prefix.members(), shown }, seen)
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let (shown, prefix) = (self.shown, self.prefix.clone());
        let show = |known: &Known<MemberList>, in_step: bool| {
            let service =
                |(key, list): (&str, &MemberList)| Some((key.strip_prefix(&prefix)?.to_owned(), list.clone()));
            let lists: BTreeMap<_, _> = known.all().filter_map(service).collect();
            few::send_changed(&shown, MemberLists { lists, in_step });
        };
        stop.run_until_cancelled(few::follow(self.store, self.prefix, show)).await;
        Ok(())
    }
}

impl Kept for MemberList {
    const NAME: &str = "member lists";

    fn read(item: &Item) -> Result<Self, String> {
        Self::decode(&item.value).map_err(|reason| reason.to_string())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn lists_come_and_go_with_their_keys() {
        let store = Embedded::new();
        let prefix = Prefix::parse("/services").expect("a prefix");
        let (keeper, mut seen) = MemberKeeper::new(Arc::new(store.clone()), &prefix);
        let stop = CancellationToken::new();
        let running = tokio::spawn(keeper.run(stop.clone()));
        let key = prefix.member_list("cache.prod");
        assert_eq!(key, "/wharf/services/members/cache.prod");
        let list = r#"{"version":7,"members":[{"id":"a","address":"10.0.0.1","port":11211}]}"#;
        for (value, expected) in [(list, Some(7)), ("{", None), (list, Some(7))] {
            let put = Write::Put { key: key.clone(), value: value.into(), lease: 0 };
            store.commit(&[], &[put]).await.expect("it takes writes");
            let is_so = |seen: &Arc<MemberLists>| {
                seen.in_step && seen.lists.get("cache.prod").map(|list| list.version) == expected
            };
            timeout(Duration::from_secs(10), seen.wait_for(is_so)).await.expect("in time").expect("it runs");
        }
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
