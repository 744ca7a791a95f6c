//! Follows what Patroni keeps in the store, below one namespace. Its leader key is written once and then only kept
//! alive, so no later event makes good for a watch that missed it: when the watch breaks, all is read afresh.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::few::{self, Kept, Known};
use crate::catalog::index::Laid;
use crate::catalog::layouts::patroni::{Said, Scopes};
use crate::model::words::key::Prefix;
use crate::store::{Item, Store};

/// How often it is looked whether a hold is over.
const LOOK: Duration = Duration::from_secs(1);

/// Keeps what one namespace amounts to.
#[derive(Debug)]
pub struct Patroni {
    store: Arc<dyn Store>,
    namespace: String,
    prefix: Prefix,
    /// How long is held what the store lost in its return.
    hold: Duration,
    shown: watch::Sender<Arc<Laid>>,
}

impl Patroni {
    /// A follower of `namespace`, whose scopes become services below `prefix`, and where they are read.
    pub fn new(
        store: Arc<dyn Store>,
        namespace: &Prefix,
        prefix: &Prefix,
        hold: Duration,
    ) -> (Self, watch::Receiver<Arc<Laid>>) {
        let (shown, seen) = watch::channel(Arc::default());
        (Self { store, namespace: namespace.below(), prefix: prefix.clone(), hold, shown }, seen)
    }

    /// Follows the store until `stop`; what was known last stands while it is away.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let Self { store, namespace, prefix, hold, shown } = self;
        let begun = Instant::now();
        let scopes = Mutex::new(Scopes::default());
        let send = |scopes: &Scopes| {
            few::send_changed(&shown, Laid { found: scopes.found().cloned().collect(), ..Laid::default() });
        };
        let mut away = false;
        let take = |known: &Known<Said>, in_step: bool| {
            // A list that follows an outage may lack what will be written again in a moment.
            let until = (std::mem::replace(&mut away, !in_step) && in_step).then(|| begun.elapsed() + hold);
            if in_step {
                let mut scopes = scopes.lock().unwrap_or_else(PoisonError::into_inner);
                scopes.take((&namespace, &prefix), known.all(), until);
                send(&scopes);
            }
        };
        let look = async {
            loop {
                sleep(LOOK).await;
                let mut scopes = scopes.lock().unwrap_or_else(PoisonError::into_inner);
                scopes.expire(begun.elapsed());
                send(&scopes);
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = few::follow(store, namespace.clone(), take) => {}
            () = look => {}
        }
        Ok(())
    }
}

impl Kept for Said {
    const NAME: &str = "keys of Patroni's";

    fn read(item: &Item) -> Result<Self, String> {
        Self::read(&item.key, &item.value, (item.lease, item.revision))
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;
    use crate::model::words::record::Role;
    use crate::store::Write;
    use crate::store::embedded::Embedded;

    #[tokio::test]
    async fn a_switchover_leaves_nobody_primary_between_two_leaders() {
        let store = Embedded::new();
        let parse = |text| Prefix::parse(text).expect("a prefix");
        let hold = Duration::from_secs(30);
        let (patroni, mut seen) = Patroni::new(Arc::new(store.clone()), &parse("/service"), &parse("/services"), hold);
        let stop = CancellationToken::new();
        let running = tokio::spawn(patroni.run(stop.clone()));
        let put = |key: &str, value: &str| Write::Put {
            key: format!("/service/orders/{key}"),
            value: value.to_owned().into(),
            lease: 0,
        };
        let member = |name: &str, host: &str| {
            let value = format!(r#"{{"conn_url":"postgres://{host}/postgres","state":"running","role":"replica"}}"#);
            put(&format!("members/{name}"), &value)
        };
        let over = Write::Delete("/service/orders/leader".to_owned());
        for (writes, expected) in [
            (vec![member("pg1", "10.0.0.1"), member("pg2", "10.0.0.2")], None),
            (vec![put("leader", "pg2")], Some("10.0.0.2")),
            (vec![over], None),
            (vec![put("leader", "pg1")], Some("10.0.0.1")),
        ] {
            store.commit(&[], &writes).await.expect("it takes writes");
            let is_so = |laid: &Arc<Laid>| {
                let leads = laid.found.iter().find(|found| found.record.role == Some(Role::Primary));
                laid.found.len() == 2 && leads.map(|found| &*found.record.host) == expected
            };
            timeout(Duration::from_secs(10), seen.wait_for(is_so)).await.expect("in time").expect("it runs");
        }
        stop.cancel();
        running.await.expect("no panic").expect("no error");
    }
}
