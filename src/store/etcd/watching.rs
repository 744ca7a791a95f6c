//! Watches: from a revision, with a word from etcd at least every 2 s.
//!
//! The surprising part: the answer to a progress request is taken for a sign of life only. Before 3.4.25 and 3.5.8 etcd
//! answers it with its own revision even to a watch that has not yet got that far, so resuming from it could lose
//! events.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::connect::Link;
use super::{Core, History, Revision, StoreError, Watch, error, kv};
use crate::model::words::key;
use crate::store::{Batch, Event};

/// How often etcd is asked for a word.
const ASK: Duration = Duration::from_secs(2);
/// A watch without a word for so long is out of step.
const SILENCE: Duration = Duration::from_secs(5);
/// The largest batch taken: a relist's worth of one revision.
const LARGEST: usize = 256 * 1024 * 1024;
/// The id that answers to progress requests carry.
const NO_WATCH: i64 = -1;

pub(super) async fn watch(core: &Arc<Core>, prefix: &str, from: Revision) -> Result<Box<dyn Watch>, StoreError> {
    core.settled().await?;
    let (history, generation) = (core.chronicle.history(), core.chronicle.generation());
    let link = core.pool.link().await.map_err(|unlinked| unlinked.error)?;
    match timeout(core.attempt, created(core, &link, prefix, from)).await {
        Ok(Ok(stream)) => {
            let now = Instant::now();
            let watch = EtcdWatch {
                core: Arc::clone(core),
                link,
                stream,
                generation,
                history,
                revision: from - 1,
                heard: now,
                asked: now,
            };
            Ok(Box::new(watch))
        }
        Ok(Err(error)) => Err(error),
        Err(_) => {
            core.broken(&link);
            let tried = format!("a watch at {}, unanswered for {:?}", link.name, core.attempt);
            Err(StoreError::Away { tried, source: None })
        }
    }
}

async fn created(core: &Core, link: &Arc<Link>, prefix: &str, from: Revision) -> Result<WatchStream, StoreError> {
    let options = WatchOptions::new().with_prefix().with_start_revision(from).with_progress_notify();
    let mut client = link.client().watch_client().max_decoding_message_size(LARGEST);
    let fail = |error: etcd_client::Error| match error::judge(&error) {
        error::Verdict::Broken => {
            core.broken(link);
            error::into_away(error, "a watch", &link.name)
        }
        error::Verdict::Login => {
            core.pool.renew(link);
            error::into_away(error, "a watch", &link.name)
        }
        error::Verdict::Final => error::into_store(error, "a watch", &link.name),
    };
    let mut stream = client.watch(prefix, Some(options)).await.map_err(fail)?;
    match stream.message().await.map_err(fail)? {
        Some(answer) if answer.canceled() => Err(cancelled(core, link, &answer)),
        Some(_) => Ok(stream),
        None => {
            core.broken(link);
            Err(StoreError::Away { tried: format!("a watch at {}, ended at once", link.name), source: None })
        }
    }
}

fn cancelled(core: &Core, link: &Arc<Link>, answer: &WatchResponse) -> StoreError {
    if answer.compact_revision() > 0 {
        return StoreError::Compacted(answer.compact_revision());
    }
    // A token that has run out shows here as a refusal: the next watch logs in again.
    core.pool.renew(link);
    let tried = format!("a watch at {}", link.name);
    StoreError::Refused { tried, why: answer.cancel_reason().to_owned() }
}

struct EtcdWatch {
    core: Arc<Core>,
    link: Arc<Link>,
    stream: WatchStream,
    history: watch::Receiver<History>,
    generation: u64,
    /// Everything up to here has been handed on.
    revision: Revision,
    heard: Instant,
    asked: Instant,
}

/// What a watch wakes for.
enum Word {
    Answer(Result<Option<WatchResponse>, etcd_client::Error>),
    Gone,
    Rewound,
    Ask,
    Silence,
}

impl EtcdWatch {
    async fn next_batch(&mut self) -> Result<Batch, StoreError> {
        loop {
            match self.word().await {
                Word::Answer(Ok(Some(answer))) => {
                    self.heard = Instant::now();
                    return self.batch(&answer);
                }
                Word::Answer(Ok(None)) => return Err(self.broken("ended", None)),
                Word::Answer(Err(error)) => return Err(self.broken("broke", Some(error))),
                Word::Gone => return Err(self.broken("ended with its connection", None)),
                Word::Rewound => return Err(StoreError::Rewound),
                Word::Ask => {
                    self.asked = Instant::now();
                    // When the queue is full, etcd reads none of it, and the silence tells.
                    drop(self.stream.request_progress().now_or_never());
                    self.look_whether_away().await?;
                }
                Word::Silence => {
                    self.core.chronicle.met(&self.link.name, "a watch is silent for 5 s");
                    self.core.chronicle.away(&self.link.name);
                    return Err(self.broken("silent for 5 s", None));
                }
            }
        }
    }

    /// Whoever found the store away may have given up since, and this watch has outlived it: then nobody else would
    /// find out that the store answers again. Nothing is in hand here that would be lost when the caller stops waiting.
    async fn look_whether_away(&self) -> Result<(), StoreError> {
        if self.core.chronicle.is_away()
            && let Err(StoreError::Rewound) = self.core.verify().await
        {
            return Err(StoreError::Rewound);
        }
        Ok(())
    }

    async fn word(&mut self) -> Word {
        let generation = self.generation;
        tokio::select! {
            // What has been said counts before how long ago it was.
            biased;
            answer = self.stream.message() => Word::Answer(answer),
            () = self.link.gone.cancelled() => Word::Gone,
            _ = self.history.wait_for(|history| history.generation != generation) => Word::Rewound,
            () = sleep_until(self.asked + ASK) => Word::Ask,
            () = sleep_until(self.heard + SILENCE) => Word::Silence,
        }
    }

    fn batch(&mut self, answer: &WatchResponse) -> Result<Batch, StoreError> {
        if answer.canceled() {
            return Err(cancelled(&self.core, &self.link, answer));
        }
        let events: Vec<Event> = answer.events().iter().filter_map(event).collect();
        let newest = answer.events().iter().filter_map(|event| event.kv()).map(|kv| kv.mod_revision()).max();
        let told = match newest {
            // A periodic word about this watch alone comes only when it is in step.
            None if answer.watch_id() != NO_WATCH => answer.header().map(|header| header.revision()),
            newest => newest,
        };
        self.revision = self.revision.max(told.unwrap_or(0));
        if newest.is_some() {
            self.core.chronicle.seen(self.revision);
        }
        Ok(Batch { events, revision: self.revision })
    }

    fn broken(&self, how: &str, error: Option<etcd_client::Error>) -> StoreError {
        self.core.broken(&self.link);
        let tried = format!("a watch at {} {how}", self.link.name);
        StoreError::Away { tried, source: error.map(|error| Box::new(error) as _) }
    }
}

fn event(event: &etcd_client::Event) -> Option<Event> {
    let kv = event.kv()?;
    Some(match event.event_type() {
        EventType::Put => Event::Put(kv::item(kv.clone())),
        EventType::Delete => Event::Delete { key: key::text(kv.key().to_vec()), revision: kv.mod_revision() },
    })
}

impl Watch for EtcdWatch {
    fn next(&mut self) -> BoxFuture<'_, Result<Batch, StoreError>> {
        self.next_batch().boxed()
    }
}
