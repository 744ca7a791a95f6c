//! What is known of etcd as a whole: whether it answers, which cluster it is, and how far its history had come.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::watch;

use crate::model::words::record::Text;
use crate::model::words::trouble::Trouble;
use crate::store::{History, Reach, Revision, StoreError};

#[derive(Debug, Default)]
struct Known {
    cluster: Option<u64>,
    /// The newest revision seen in any answer.
    newest: Revision,
    /// Something broke since the last linearizable answer.
    doubtful: bool,
    /// Which endpoint was of no use last, and why.
    met: Option<(Text, Text)>,
    /// When it was last said that it is away.
    said: Option<Instant>,
}

/// How often it is said that it is still away.
const AGAIN: Duration = Duration::from_secs(60);

/// What all users of one etcd share: whether it answers, its history, and what is wrong with it.
#[derive(Debug)]
pub struct Chronicle {
    known: Mutex<Known>,
    reach: watch::Sender<Reach>,
    history: watch::Sender<History>,
    trouble: watch::Sender<Option<Trouble>>,
}

impl Default for Chronicle {
    fn default() -> Self {
        Self {
            known: Mutex::new(Known { doubtful: true, ..Known::default() }),
            reach: watch::Sender::new(Reach::Unknown),
            history: watch::Sender::new(History::default()),
            trouble: watch::Sender::new(None),
        }
    }
}

impl Chronicle {
    /// Whether it answers, as it changes.
    pub fn reach(&self) -> watch::Receiver<Reach> {
        self.reach.subscribe()
    }

    /// Which history it tells, as it changes.
    pub fn history(&self) -> watch::Receiver<History> {
        self.history.subscribe()
    }

    /// The number of that history.
    pub fn generation(&self) -> u64 {
        self.history.borrow().generation
    }

    /// The newest revision known: what an answer to something asked now is held against.
    pub fn newest(&self) -> Revision {
        self.known().newest
    }

    /// Whether a stream is to be opened only after a linearizable answer.
    pub fn doubtful(&self) -> bool {
        self.known().doubtful
    }

    /// Whether it has not answered lately.
    pub fn is_away(&self) -> bool {
        *self.reach.borrow() == Reach::Away
    }

    /// Something broke: the next stream is opened only after a linearizable answer.
    pub fn doubt(&self) {
        self.known().doubtful = true;
    }

    /// What stands in the way while it does not answer, as that changes.
    pub fn trouble(&self) -> watch::Receiver<Option<Trouble>> {
        self.trouble.subscribe()
    }

    /// A call came to nothing at this endpoint. While the store is away, that is what is told of it.
    pub fn met(&self, endpoint: &str, why: &str) {
        self.known().met = Some((endpoint.into(), why.into()));
        if self.is_away() {
            self.tell_trouble(endpoint);
        }
    }

    /// The store does not answer; `endpoint` is asked now.
    pub fn away(&self, endpoint: &str) {
        self.doubt();
        let is_new = send_changed(&self.reach, Reach::Away);
        self.tell_trouble(endpoint);
        let is_due = |told: &mut Known| {
            let due = is_new || told.said.is_none_or(|said| said.elapsed() >= AGAIN);
            due.then(|| told.said = Some(Instant::now())).is_some()
        };
        if is_due(&mut self.known())
            && let Some(trouble) = &*self.trouble.borrow()
        {
            let since = trouble.since.elapsed().unwrap_or_default();
            let since = Duration::from_secs(since.as_secs());
            tracing::warn!("etcd is away since {}: {trouble}", humantime::format_duration(since));
        }
    }

    fn tell_trouble(&self, endpoint: &str) {
        let (endpoint, why) = self.known().met.clone().unwrap_or_else(|| (endpoint.into(), "no answer yet".into()));
        self.trouble.send_if_modified(|told| {
            let since = told.as_ref().map_or_else(SystemTime::now, |told| told.since);
            let now = Some(Trouble { endpoint, why, since });
            let is_new = *told != now;
            *told = now;
            is_new
        });
    }

    /// A watch has brought everything up to here.
    pub fn seen(&self, revision: Revision) {
        let mut known = self.known();
        known.newest = known.newest.max(revision);
    }

    /// A linearizable answer to something asked when `before` was the newest revision known. Answers that overtake one
    /// another are no step back: each is held only against what was known when it was asked for.
    pub fn told(&self, cluster: u64, revision: Revision, before: Revision) -> Result<(), StoreError> {
        let mut known = self.known();
        let stranger = known.cluster.is_some_and(|known| known != cluster);
        let rewound = stranger || revision < before;
        known.newest = if rewound { revision } else { known.newest.max(revision) };
        known.doubtful = false;
        let first = known.cluster.replace(cluster).is_none();
        drop(known);
        if rewound {
            tracing::warn!(
                cluster = format_args!("{cluster:x}"),
                revision,
                before,
                stranger,
                "etcd went back, or is another"
            );
            self.history.send_modify(|history| {
                *history = History { cluster: Some(cluster), generation: history.generation + 1, begun: revision };
            });
        } else if first {
            self.history.send_modify(|history| history.cluster = Some(cluster));
        }
        if send_changed(&self.reach, Reach::There) {
            self.known().met = None;
            self.trouble.send_if_modified(|told| told.take().is_some());
            tracing::info!(cluster = format_args!("{cluster:x}"), revision, "etcd is there");
        }
        if rewound { Err(StoreError::Rewound) } else { Ok(()) }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn send_changed(reach: &watch::Sender<Reach>, value: Reach) -> bool {
    reach.send_if_modified(|now| std::mem::replace(now, value) != value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_cluster_or_an_older_one_is_another_history() {
        let chronicle = Chronicle::default();
        assert!(chronicle.told(1, 10, 0).is_ok());
        assert!(chronicle.told(1, 12, 10).is_ok());
        assert_eq!(chronicle.generation(), 0);
        assert!(chronicle.told(1, 5, 12).is_err(), "restored from a backup");
        assert!(chronicle.told(1, 6, 5).is_ok());
        assert!(chronicle.told(2, 90, 6).is_err(), "another cluster");
        assert_eq!((chronicle.generation(), chronicle.newest()), (2, 90));
    }

    #[test]
    fn answers_that_overtake_one_another_are_no_step_back() {
        let chronicle = Chronicle::default();
        assert!(chronicle.told(1, 10, 0).is_ok());
        let before = chronicle.newest();
        chronicle.seen(11);
        assert!(chronicle.told(1, 10, before).is_ok());
        assert_eq!((chronicle.generation(), chronicle.newest()), (0, 11));
    }
}
