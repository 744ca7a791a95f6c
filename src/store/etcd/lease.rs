//! Leases: one keepalive stream each, a third of the lease's time apart.
//!
//! A lease is lost when etcd says so, or when the store turns out to be another one; silence alone never loses it,
//! since a hung or leaderless etcd does not end leases either, and one that has come back may have given it more time.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{LeaseKeepAliveStream, LeaseKeeper};
use futures_util::FutureExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::connect::Link;
use super::{Core, LeaseId, Session, StoreError};

/// Pause between attempts while the store is away.
const RETRY: Duration = Duration::from_millis(200);

pub(super) async fn session(core: &Arc<Core>, ttl: Duration, adopt: Option<LeaseId>) -> Result<Session, StoreError> {
    core.settled().await?;
    let generation = core.chronicle.generation();
    if let Some(lease) = adopt {
        match adopted(core, lease).await {
            Ok((granted, stream)) => return Ok(start(core, lease, granted, Some(stream), generation)),
            Err(StoreError::NoLease(_)) => {}
            Err(error) => return Err(error),
        }
    }
    let (lease, granted) = grant(core, ttl).await?;
    Ok(start(core, lease, granted, None, generation))
}

/// A new lease, and the time granted; nobody keeps it alive yet.
pub(super) async fn grant(core: &Core, ttl: Duration) -> Result<(LeaseId, Duration), StoreError> {
    let seconds = i64::try_from(ttl.as_secs_f64().ceil() as u64).unwrap_or(i64::MAX).max(1);
    let grant = core
        .call_aside("to get a lease", move |client| {
            let mut client = client.lease_client();
            async move { client.grant(seconds, None).await }.boxed()
        })
        .await?;
    Ok((grant.id(), Duration::from_secs(u64::try_from(grant.ttl()).unwrap_or(0).max(1))))
}

/// Keeps a lease alive once.
pub(super) async fn renew(core: &Core, lease: LeaseId) -> Result<(), StoreError> {
    core.settled().await?;
    open(core, lease).await.map(drop)
}

async fn adopted(core: &Core, lease: LeaseId) -> Result<(Duration, Stream), StoreError> {
    let stream = open(core, lease).await?;
    Ok((core.lease_info(lease, false).await?.granted, stream))
}

/// A running keepalive stream, and the connection it is on.
struct Stream {
    keeper: LeaseKeeper,
    answers: LeaseKeepAliveStream,
    link: Option<Arc<Link>>,
}

/// Opens a stream, which keeps the lease alive once.
async fn open(core: &Core, lease: LeaseId) -> Result<Stream, StoreError> {
    let link = core.pool.link().await.ok();
    let result = core
        .call_aside("a keepalive", move |client| {
            let mut client = client.lease_client();
            async move { client.keep_alive(lease).await }.boxed()
        })
        .await;
    match result {
        Ok((keeper, answers)) => Ok(Stream { keeper, answers, link }),
        Err(StoreError::NoLease(_)) => Err(StoreError::NoLease(lease)),
        Err(error) => Err(error),
    }
}

/// The session of a lease, which runs its keepalive.
fn start(core: &Arc<Core>, lease: LeaseId, granted: Duration, stream: Option<Stream>, generation: u64) -> Session {
    let adopted = stream.is_some();
    let (sender, lost) = watch::channel(false);
    let keeper = Keeper { core: Arc::clone(core), lease, pause: granted / 3, generation };
    let span = tracing::info_span!("keepalive", lease = format_args!("{lease:x}"));
    let keeping = async move {
        keeper.run(stream).await;
        sender.send_replace(true);
    };
    let keeping = AbortOnDropHandle::new(tokio::spawn(keeping.instrument(span)));
    Session::new((lease, granted), adopted, lost, keeping)
}

struct Keeper {
    core: Arc<Core>,
    lease: LeaseId,
    pause: Duration,
    generation: u64,
}

impl Keeper {
    /// Returns when the lease is lost.
    async fn run(self, stream: Option<Stream>) {
        let mut history = self.core.chronicle.history();
        tokio::select! {
            () = self.keep(stream) => {}
            // Another history knows nothing of this lease, or another one by its number.
            _ = history.wait_for(|history| history.generation != self.generation) => {}
        }
    }

    async fn keep(&self, mut stream: Option<Stream>) {
        let mut next = Instant::now() + self.pause;
        loop {
            if let Some(open) = &stream {
                tokio::select! {
                    () = sleep_until(next) => {}
                    // Its connection was given up: ask on another one at once.
                    () = gone(open.link.as_ref()) => stream = None,
                }
            } else {
                sleep_until(next).await;
            }
            next = Instant::now() + self.pause;
            match self.once(&mut stream).await {
                Ok(()) => {}
                Err(StoreError::NoLease(_)) => return,
                Err(error) => {
                    tracing::debug!(?error, "keepalive failed");
                    stream = None;
                    next = Instant::now() + RETRY;
                }
            }
        }
    }

    /// Keeps the lease alive once, on the stream that is there or on a new one.
    async fn once(&self, stream: &mut Option<Stream>) -> Result<(), StoreError> {
        if let Some(open) = stream {
            match timeout(self.core.attempt, ask(open)).await {
                Ok(Ok(left)) if left > 0 => return Ok(()),
                Ok(Ok(_)) => return Err(StoreError::NoLease(self.lease)),
                Ok(Err(())) | Err(_) => {
                    if let Some(link) = &open.link {
                        self.core.broken(link);
                    }
                    *stream = None;
                }
            }
        }
        self.core.settled().await?;
        *stream = Some(open(&self.core, self.lease).await?);
        Ok(())
    }
}

/// One keepalive; the answer is the time left, none when the lease is gone.
async fn ask(stream: &mut Stream) -> Result<i64, ()> {
    stream.keeper.keep_alive().await.map_err(drop)?;
    match stream.answers.message().await {
        Ok(Some(answer)) => Ok(answer.ttl()),
        Ok(None) | Err(_) => Err(()),
    }
}

async fn gone(link: Option<&Arc<Link>>) {
    match link {
        Some(link) => link.gone.cancelled().await,
        None => std::future::pending().await,
    }
}
