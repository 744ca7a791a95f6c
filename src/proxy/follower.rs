//! Tells one table where its connections go, as snapshots and nodes' words change.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::{Sights, Table, Upstream};
use crate::catalog::proxy::{Aim, OwnListeners, Reports};
use crate::host::read_addresses;
use crate::view::Progress;

/// The share of one core that looking may take is one in so many: under a flood of changes several become one.
const SHARE: u32 = 10;

/// The follower of one table.
#[derive(Debug)]
pub(super) struct Follower {
    sights: Sights,
    tables: watch::Receiver<Arc<Table>>,
    listeners: watch::Receiver<Arc<Vec<SocketAddr>>>,
    unwell: watch::Receiver<HashSet<SocketAddr>>,
    aim: watch::Sender<Arc<Aim>>,
    /// The store was read once; that it is away since takes nothing back.
    is_known: bool,
}

impl Follower {
    /// A follower of a table that may change, beside all `listeners` of this process, and members of etcd that are
    /// unwell; and what it tells.
    pub(super) fn new(
        sights: Sights,
        tables: watch::Receiver<Arc<Table>>,
        listeners: watch::Receiver<Arc<Vec<SocketAddr>>>,
        unwell: watch::Receiver<HashSet<SocketAddr>>,
    ) -> (Self, watch::Receiver<Arc<Aim>>) {
        let (aim, told) = watch::channel(Arc::default());
        let mut follower = Self { sights, tables, listeners, unwell, aim, is_known: false };
        follower.look();
        (follower, told)
    }

    /// Works as long as it is polled.
    pub(super) async fn run(mut self) {
        let mut changed = self.sights.view.changed();
        loop {
            changed.mark_unchanged();
            let begun = Instant::now();
            self.look();
            sleep(begun.elapsed() * SHARE).await;
            // No branch takes anything: what is dropped is seen by the next look.
            let seen = tokio::select! {
                seen = changed.changed() => seen,
                seen = self.sights.reports.changed() => seen,
                seen = self.tables.changed() => seen,
                seen = self.listeners.changed() => seen,
                seen = self.unwell.changed() => seen,
            };
            if seen.is_err() {
                return std::future::pending().await; // what it stands on is gone, and soon we are
            }
        }
    }

    fn look(&mut self) {
        let table = Arc::clone(&self.tables.borrow_and_update());
        let own = own_listeners(&self.listeners.borrow_and_update());
        let reports: Arc<Reports> = Arc::clone(&self.sights.reports.borrow_and_update());
        self.is_known |= reports.are_read && self.sights.view.progress() == Progress::Read;
        let mut aim = match &table.upstream {
            Upstream::Fixed(addresses) => Aim::fixed(addresses, &own),
            Upstream::Members(addresses, _) => Aim::members(addresses, &self.unwell.borrow_and_update(), &own),
            Upstream::Service(wanted) => Aim::of(wanted, &self.sights.view.load(), &self.sights.zones, &reports, &own),
        };
        aim.is_known |= self.is_known;
        self.aim.send_if_modified(|shown| {
            let is_new = **shown != aim;
            if is_new {
                *shown = Arc::new(aim);
            }
            is_new
        });
    }
}

fn own_listeners(listeners: &[SocketAddr]) -> OwnListeners {
    let is_everywhere = listeners.iter().any(|listener| listener.ip().is_unspecified());
    let here: Vec<IpAddr> = if is_everywhere {
        read_addresses().interfaces.into_iter().map(|(_, address)| address).collect()
    } else {
        Vec::new()
    };
    OwnListeners { listeners: listeners.to_vec(), here }
}
