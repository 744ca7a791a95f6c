//! What is needed while everything is read once more: a third more than is kept, at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use wharf::follow::mirror::{self, Mirror};
use wharf::model::words::key::Prefix;
use wharf::store::{
    Batch, Commit, Condition, History, Item, LeaseId, LeaseInfo, Page, Reach, Revision, Session, Store, StoreError,
    Watch, Write,
};
use wharf::view::CatalogView;

use crate::heap;
use crate::shape::{self, Shape};

const COUNT: usize = 3_000;
const PAGE: usize = 100;

/// A store that makes its items when they are read, so that it has no memory of its own, and forgets its history when
/// it is told to.
#[derive(Debug)]
struct Made {
    shape: Shape,
    /// Numbers in the order of keys.
    order: Vec<usize>,
    forget: Arc<Notify>,
    revision: AtomicI64,
    history: watch::Sender<History>,
    reach: watch::Sender<Reach>,
}

impl Made {
    fn new(shape: Shape) -> Self {
        let mut order: Vec<usize> = (0..COUNT).collect();
        order.sort_by_key(|number| shape.key(*number));
        let (history, reach) = (watch::Sender::new(History::default()), watch::Sender::new(Reach::There));
        Self { shape, order, forget: Arc::default(), revision: AtomicI64::new(1), history, reach }
    }

    fn page(&self, after: Option<&str>) -> Page {
        let start =
            after.map_or(0, |after| self.order.partition_point(|number| self.shape.key(*number).as_str() <= after));
        let item = |number: &usize| Item {
            key: self.shape.key(*number),
            value: Bytes::from(self.shape.value(*number)),
            lease: 0,
            revision: 1,
            created: 1,
        };
        let items = self.order[start..].iter().take(PAGE).map(item).collect();
        Page { items, revision: self.revision.load(Ordering::Relaxed), more: start + PAGE < COUNT }
    }
}

impl Store for Made {
    fn read<'a>(
        &'a self,
        _prefix: &'a str,
        after: Option<&'a str>,
        _at: Option<Revision>,
    ) -> BoxFuture<'a, Result<Page, StoreError>> {
        let page = self.page(after);
        Box::pin(async { Ok(page) })
    }

    fn watch<'a>(&'a self, _prefix: &'a str, _from: Revision) -> BoxFuture<'a, Result<Box<dyn Watch>, StoreError>> {
        let watch: Box<dyn Watch> = Box::new(Silent(self.forget.clone()));
        Box::pin(async { Ok(watch) })
    }

    fn session(&self, _ttl: Duration, _adopt: Option<LeaseId>) -> BoxFuture<'_, Result<Session, StoreError>> {
        Box::pin(async { Err(StoreError::NoLease(0)) })
    }

    fn get<'a>(&'a self, _keys: &'a [String]) -> BoxFuture<'a, Result<Page, StoreError>> {
        Box::pin(async { Err(StoreError::NoLease(0)) })
    }

    fn commit<'a>(
        &'a self,
        _conditions: &'a [Condition],
        _writes: &'a [Write],
    ) -> BoxFuture<'a, Result<Commit, StoreError>> {
        Box::pin(async { Err(StoreError::NoLease(0)) })
    }

    fn lease(&self, id: LeaseId) -> BoxFuture<'_, Result<LeaseInfo, StoreError>> {
        Box::pin(async move { Err(StoreError::NoLease(id)) })
    }

    fn revoke(&self, id: LeaseId) -> BoxFuture<'_, Result<(), StoreError>> {
        Box::pin(async move { Err(StoreError::NoLease(id)) })
    }

    fn history(&self) -> watch::Receiver<History> {
        self.history.subscribe()
    }

    fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }
}

struct Silent(Arc<Notify>);

impl Watch for Silent {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        Box::pin(async {
            self.0.notified().await;
            Err(StoreError::Compacted(1))
        })
    }
}

#[test]
fn reading_all_again_takes_a_third_more_at_most() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    for (text, shape) in shape::known()
        .into_iter()
        .filter(|(text, _)| ["a plain", "a record with", "64 tags"].iter().any(|of| text.starts_with(of)))
    {
        let store = Arc::new(Made::new(shape));
        let before = heap::live();
        let (kept, most) = runtime.block_on(read_twice(&store));
        let (kept, most) = (kept - before, most - before);
        println!("  {kept} bytes, {most} while read again: {text}");
        // A few pages are under way, however little is kept.
        let pages = 4 * PAGE * (store.shape.key(1).len() + store.shape.value(1).len() + 100);
        assert!(most <= kept * 13 / 10 + pages, "{kept} bytes, {most} while read again: {text}");
    }
}

/// Bytes allocated once all is read, and at most while it is read again.
async fn read_twice(store: &Arc<Made>) -> (usize, usize) {
    let settings = mirror::Settings {
        prefixes: vec![Prefix::parse("/services").expect("a prefix")],
        node: "core-01".into(),
        owner: "own".into(),
        lease_ttl: Duration::from_secs(30),
    };
    let (_overlay, overlaid) = watch::channel(Arc::default());
    let reading: Arc<dyn Store> = store.clone();
    let (mirror, view) = Mirror::new(settings, reading, overlaid, None, &mut Registry::default());
    let stop = CancellationToken::new();
    let running = tokio::spawn(mirror.run(stop.clone()));
    listed(&view, 1).await;
    let kept = heap::live();
    heap::most();
    store.revision.store(2, Ordering::Relaxed);
    store.forget.notify_one();
    listed(&view, 2).await;
    let most = heap::most();
    stop.cancel();
    running.await.expect("no panic").expect("no error");
    (kept, most)
}

/// Waits until a whole list of this revision has been taken in: what is the same makes no other snapshot.
async fn listed(view: &CatalogView, revision: i64) {
    while view.load().revision() < revision {
        tokio::task::yield_now().await;
    }
    assert_eq!(view.load().counts().records, COUNT);
}
