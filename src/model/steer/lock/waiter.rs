//! One who waits: what it makes of queue, certificate and the holder's lease, whenever it has looked at them.

use std::time::Duration;

use super::certificate::{Certificate, Entry};
use super::queue::{Place, before};
use super::sight::Sight;
use super::start::{Gone, Next, next};

/// What one who waits is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Its own place is gone: it queues again.
    Lost,
    /// Others come before it.
    Behind {
        /// How many.
        count: usize,
        /// The key whose going is waited for.
        key: String,
        /// The holder's lease, which is to be asked about at that time: only by the first who waits.
        ask: Option<(i64, Duration)>,
    },
    /// Nobody does.
    Head(Next),
}

/// The holder as it was last seen.
#[derive(Clone, Copy, Debug)]
struct Holder {
    token: i64,
    lease: i64,
    granted: Duration,
    sight: Option<Sight>,
}

/// What one who waits for a lock knows of its holder and of those before it.
#[derive(Clone, Debug)]
pub struct Waiter {
    /// The time that our own lease was granted: what is thought of one that tells nothing.
    ours: Duration,
    strict: bool,
    holder: Option<Holder>,
    /// Whose certificate is left, and since when without its key.
    gone: Option<(i64, Gone)>,
    floor: Option<Duration>,
}

impl Waiter {
    /// One that has seen nothing yet.
    pub fn new(ours: Duration, strict: bool) -> Self {
        Self { ours, strict, holder: None, gone: None, floor: None }
    }

    /// Takes in what was read by `now`; `key` is its own place.
    pub fn looked(&mut self, now: Duration, line: &[Place], certificate: Option<&Certificate>, key: &str) -> Turn {
        let Some(others) = before(line, key) else { return Turn::Lost };
        match (others.first(), others.last()) {
            (Some(head), Some(last)) => {
                self.gone = None;
                let ask = self.sees(head, now).filter(|_| others.len() == 1);
                Turn::Behind { count: others.len(), key: last.key.clone(), ask }
            }
            _ => Turn::Head(next(now, self.left_behind(now, certificate), self.floor, self.strict)),
        }
    }

    /// Takes in what etcd tells of the holder's lease; when it is to be asked again.
    pub fn told(
        &mut self,
        lease: i64,
        granted: Duration,
        left: Duration,
        asked: Duration,
        answered: Duration,
    ) -> Duration {
        let Some(holder) = self.holder.as_mut().filter(|holder| holder.lease == lease) else { return asked + granted };
        holder.granted = holder.granted.max(granted);
        let sight = match holder.sight {
            Some(mut sight) => {
                sight.told(left, asked, answered);
                sight
            }
            None => Sight::first(granted, left, asked, answered),
        };
        holder.sight = Some(sight);
        sight.ask_at()
    }

    /// The store went back, or is another one: whoever held it may not know yet, whether or not he was seen here.
    pub fn went_back(&mut self, now: Duration) {
        let held = self.holder.map(|holder| holder.granted);
        let left = self.gone.map(|(_, gone)| gone.granted);
        let granted = held.max(left).unwrap_or_default().max(self.ours);
        self.floor = self.floor.max(Some(Gone { seen: now, due: false, granted }.over()));
        (self.holder, self.gone) = (None, None);
    }

    /// The head is there; when its lease is to be asked about, and which it is.
    fn sees(&mut self, head: &Place, now: Duration) -> Option<(i64, Duration)> {
        if self.holder.is_none_or(|holder| holder.token != head.created) {
            let granted = Entry::decode(&head.value).granted(self.ours);
            self.holder = Some(Holder { token: head.created, lease: head.lease, granted, sight: None });
        }
        let sight = self.holder.and_then(|holder| holder.sight);
        (head.lease != 0).then(|| (head.lease, sight.map_or(now, |sight| sight.ask_at())))
    }

    /// The one whose certificate is there without its key.
    fn left_behind(&mut self, now: Duration, certificate: Option<&Certificate>) -> Option<Gone> {
        let certificate = certificate?;
        if let Some((token, gone)) = self.gone
            && token == certificate.token
        {
            return Some(gone);
        }
        let holder = self.holder.filter(|holder| holder.token == certificate.token);
        let granted = holder.map_or(Duration::ZERO, |holder| holder.granted).max(certificate.granted(self.ours));
        let due = holder.and_then(|holder| holder.sight).is_some_and(|sight| sight.is_due());
        let gone = Gone { seen: now, due, granted };
        self.gone = Some((certificate.token, gone));
        Some(gone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::steer::lock::queue::{Keys, LockName, in_order};
    use crate::model::words::key::Prefix;

    const TTL: Duration = Duration::from_secs(12);

    fn keys() -> Keys {
        let name = LockName::parse("x").unwrap_or_else(|error| panic!("{error}"));
        Keys::new(&Prefix::parse("/services").expect("a prefix"), &name)
    }

    fn line(leases: &[i64]) -> Vec<Place> {
        let keys = keys();
        let place = |lease: &i64| Place::new(keys.of_lease(*lease).into_bytes(), *lease, *lease, vec![]);
        in_order(&keys, leases.iter().map(place).collect())
    }

    fn certificate(token: i64) -> Certificate {
        Certificate { token, ttl: 12_000, ..Certificate::default() }
    }

    const fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn whoever_ended_cleanly_is_followed_at_once() {
        let (mut waiter, own) = (Waiter::new(TTL, false), keys().of_lease(5));
        let turn = waiter.looked(at(1), &line(&[4, 5]), Some(&certificate(4)), &own);
        assert_eq!(turn, Turn::Behind { count: 1, key: keys().of_lease(4), ask: Some((4, at(1))) });
        assert_eq!(waiter.looked(at(2), &line(&[5]), None, &own), Turn::Head(Next::Start));
        assert_eq!(waiter.looked(at(2), &line(&[4]), None, &own), Turn::Lost);
    }

    #[test]
    fn a_certificate_that_stays_is_outwaited() {
        let (mut waiter, own) = (Waiter::new(TTL, false), keys().of_lease(5));
        let until = Duration::from_millis(10_000 + 12_000 + 120 + 1_000);
        for now in [10, 15] {
            let turn = waiter.looked(at(now), &line(&[5]), Some(&certificate(4)), &own);
            assert_eq!(turn, Turn::Head(Next::At(until)), "an end that nobody saw is an early one");
        }
        assert_eq!(waiter.looked(at(24), &line(&[5]), Some(&certificate(4)), &own), Turn::Head(Next::Start));
    }

    #[test]
    fn after_the_store_went_back_a_holder_is_outwaited() {
        let (mut waiter, own) = (Waiter::new(TTL, true), keys().of_lease(5));
        waiter.looked(at(1), &line(&[4, 5]), Some(&certificate(4)), &own);
        waiter.went_back(at(10));
        let turn = waiter.looked(at(11), &line(&[5]), None, &own);
        assert_eq!(turn, Turn::Head(Next::At(Duration::from_millis(10_000 + 12_000 + 120 + 1_000))));
        let mut blind = Waiter::new(TTL, true);
        blind.went_back(at(10));
        assert!(
            matches!(blind.looked(at(11), &line(&[5]), None, &own), Turn::Head(Next::At(_))),
            "it had not looked yet"
        );
    }
}
