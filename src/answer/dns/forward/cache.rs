//! Answers from elsewhere, kept for their own time, in bounded memory: as the bytes of a message, whose size is known.
//!
//! When there is no room, what nobody asked for since the last time goes first. So a flood of names that are asked for
//! once drives out others of its kind, not what is asked for again and again.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use hickory_server::proto::op::{Message, MessageType, OpCode, ResponseCode};
use hickory_server::proto::rr::RData;

use super::{Fetched, Wanted};

/// Bytes of all answers kept: some 5,000 common ones.
pub(super) const MOST: usize = 4 << 20;
/// Records of an answer that is kept.
const RECORDS: usize = 64;
/// What an answer costs beside its bytes and name: its place in a table that is half empty, and what allocating takes.
const OVERHEAD: usize = 2 * size_of::<(Wanted, Kept)>() + 64;
/// An answer is kept no longer, whatever it says itself.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// One that says there is nothing.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(5 * 60);

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: HashMap<Wanted, Kept>,
    /// Bytes kept, for all to see.
    bytes: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Kept {
    message: Box<[u8]>,
    since: Instant,
    until: Instant,
    /// Asked for since room was made last.
    used: bool,
}

impl Cache {
    /// Empty; what it comes to hold is counted in `bytes`.
    pub(super) fn counted(bytes: Arc<AtomicU64>) -> Self {
        Self { kept: HashMap::new(), bytes }
    }

    /// What is known, with the time it has left.
    pub(super) fn get(&mut self, wanted: &Wanted, now: Instant) -> Option<Fetched> {
        let kept = self.kept.get_mut(wanted)?;
        if kept.until <= now {
            self.forget(wanted);
            return None;
        }
        kept.used = true;
        let age = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut fetched = read(&kept.message)?;
        fetched.records().for_each(|record| record.ttl = record.ttl.saturating_sub(age));
        Some(fetched)
    }

    /// Keeps an answer, if it says for how long.
    pub(super) fn put(&mut self, wanted: &Wanted, fetched: &Fetched, now: Instant) {
        let size = fetched.answers.len() + fetched.authority.len() + fetched.additional.len();
        let Some(time) = lifetime(fetched).filter(|time| !time.is_zero() && size <= RECORDS) else { return };
        let Some(message) = written(fetched) else { return };
        self.forget(wanted);
        let kept = Kept { message, since: now, until: now + time, used: false };
        let cost = cost(wanted, &kept);
        if self.bytes() + cost > MOST {
            self.make_room(now);
        }
        self.bytes.fetch_add(cost as u64, Ordering::Relaxed);
        self.kept.insert(wanted.clone(), kept);
    }

    fn bytes(&self) -> usize {
        usize::try_from(self.bytes.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    fn forget(&mut self, wanted: &Wanted) {
        if let Some(kept) = self.kept.remove(wanted) {
            self.bytes.fetch_sub(cost(wanted, &kept) as u64, Ordering::Relaxed);
        }
    }

    /// Keeps half of what fits at most: what is still good, and was asked for if that is too much.
    fn make_room(&mut self, now: Instant) {
        self.keep(|_, kept| kept.until > now);
        if self.bytes() > MOST / 2 {
            self.keep(|_, kept| std::mem::replace(&mut kept.used, false));
        }
        let mut left = MOST / 2;
        self.keep(|wanted, kept| {
            let fits = left.checked_sub(cost(wanted, kept));
            left = fits.unwrap_or(0);
            fits.is_some()
        });
    }

    fn keep(&mut self, mut is_kept: impl FnMut(&Wanted, &mut Kept) -> bool) {
        let mut bytes = 0;
        self.kept.retain(|wanted, kept| {
            let stays = is_kept(wanted, kept);
            bytes += if stays { cost(wanted, kept) as u64 } else { 0 };
            stays
        });
        self.bytes.store(bytes, Ordering::Relaxed);
    }
}

/// Bytes that an answer takes here.
fn cost(wanted: &Wanted, kept: &Kept) -> usize {
    // A long name has its labels and their ends in memory of its own.
    OVERHEAD + 2 * wanted.name.len() + kept.message.len()
}

/// The message that says so, if it can be said in one.
fn written(fetched: &Fetched) -> Option<Box<[u8]>> {
    let mut message = Message::new(0, MessageType::Response, OpCode::Query);
    message.metadata.response_code = fetched.rcode;
    message.answers.clone_from(&fetched.answers);
    message.authorities.clone_from(&fetched.authority);
    message.additionals.clone_from(&fetched.additional);
    let bytes = message.to_vec().ok()?;
    // hickory cuts what is too long.
    let whole = read(&bytes).is_some_and(|read| !read.truncated && read.answers.len() == fetched.answers.len());
    whole.then(|| bytes.into_boxed_slice())
}

fn read(bytes: &[u8]) -> Option<Fetched> {
    let message = Message::from_vec(bytes).ok()?;
    Some(Fetched {
        rcode: message.metadata.response_code,
        answers: message.answers,
        authority: message.authorities,
        additional: message.additionals,
        truncated: message.metadata.truncation,
    })
}

fn lifetime(fetched: &Fetched) -> Option<Duration> {
    let known = matches!(fetched.rcode, ResponseCode::NoError | ResponseCode::NXDomain);
    if fetched.truncated || !known {
        return None;
    }
    let seconds = |ttl: u32| Duration::from_secs(u64::from(ttl));
    if fetched.rcode == ResponseCode::NoError && !fetched.answers.is_empty() {
        let shortest = fetched.answers.iter().map(|record| record.ttl).min()?;
        return Some(seconds(shortest).min(LONGEST));
    }
    let soa = fetched.authority.iter().find_map(|record| match &record.data {
        RData::SOA(soa) => Some(soa.minimum.min(record.ttl)),
        _ => None,
    });
    soa.map(|ttl| seconds(ttl).min(LONGEST_NEGATIVE))
}

#[cfg(test)]
mod tests {
    use std::str::FromStr;

    use hickory_server::proto::rr::rdata::{A, SOA, TXT};
    use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};

    use super::*;

    fn wanted(name: &str) -> Wanted {
        let name = Name::from_str(name).expect("a name");
        Wanted { name, qtype: RecordType::A, qclass: DNSClass::IN, dnssec: false, unchecked: false, stream: false }
    }

    fn saying(answers: Vec<Record>) -> Fetched {
        Fetched { rcode: ResponseCode::NoError, answers, authority: vec![], additional: vec![], truncated: false }
    }

    fn address(ttl: u32) -> Fetched {
        saying(vec![Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1)))])
    }

    #[test]
    fn an_answer_is_kept_for_its_time_and_its_ttl_goes_down() {
        let (mut cache, start) = (Cache::default(), Instant::now());
        cache.put(&wanted("a.example."), &address(30), start);
        let later = |secs| start + Duration::from_secs(secs);
        let ttl = |fetched: Option<Fetched>| fetched.map(|fetched| fetched.answers[0].ttl);
        assert_eq!(ttl(cache.get(&wanted("a.example."), later(10))), Some(20));
        assert_eq!(ttl(cache.get(&wanted("b.example."), later(10))), None);
        assert_eq!(ttl(cache.get(&wanted("a.example."), later(30))), None);
        assert_eq!(cache.bytes(), 0, "what is gone takes no room");
    }

    #[test]
    fn what_says_nothing_of_its_time_is_not_kept() {
        let negative = |authority| Fetched { rcode: ResponseCode::NXDomain, authority, ..saying(vec![]) };
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 7);
        let soa = Record::from_rdata(Name::root(), 60, RData::SOA(soa));
        assert_eq!(lifetime(&negative(vec![soa])), Some(Duration::from_secs(7)));
        assert_eq!(lifetime(&negative(vec![])), None);
        assert_eq!(lifetime(&Fetched { truncated: true, ..address(30) }), None);
        assert_eq!(lifetime(&Fetched { rcode: ResponseCode::ServFail, ..address(30) }), None);
    }

    #[test]
    fn the_bytes_kept_are_bounded_whatever_the_answers() {
        let text = RData::TXT(TXT::from_bytes(vec![&[b'x'; 255][..]; 32]));
        let large = saying(vec![Record::from_rdata(Name::root(), 60, text); 4]);
        let long = format!("{}.", ["x".repeat(60), "y".repeat(60), "z".repeat(60)].join("."));
        for (name, fetched) in [(".", &address(60)), (long.as_str(), &address(60)), (".", &large)] {
            let (mut cache, now) = (Cache::default(), Instant::now());
            for number in 0..20_000 {
                cache.put(&wanted(&format!("n{number}.{name}").replace("..", ".")), fetched, now);
                assert!(cache.bytes() <= MOST, "{} bytes", cache.bytes());
            }
            assert!(
                cache.bytes() > MOST / 4
                    && cache.get(&wanted(&format!("n19999.{name}").replace("..", ".")), now).is_some()
            );
            let counted: usize = cache.kept.iter().map(|(wanted, kept)| cost(wanted, kept)).sum();
            assert_eq!(cache.bytes(), counted);
        }
    }

    #[test]
    fn a_flood_of_names_asked_for_once_leaves_what_is_asked_for() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        cache.put(&wanted("popular.example."), &address(60), now);
        for number in 0..50_000 {
            cache.put(&wanted(&format!("n{number}.example.")), &address(60), now);
            assert!(number % 100 > 0 || cache.get(&wanted("popular.example."), now).is_some(), "gone after {number}");
        }
    }

    #[test]
    fn every_record_comes_back_as_it_was() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        let mut fetched = address(60);
        let name = Name::from_str("A.Example.").expect("a name");
        fetched.answers.push(Record::from_rdata(name.clone(), 60, RData::TXT(TXT::new(vec!["one".into()]))));
        fetched.authority.push(Record::from_rdata(
            name.clone(),
            60,
            RData::NS(hickory_server::proto::rr::rdata::NS(name)),
        ));
        cache.put(&wanted("a.example."), &fetched, now);
        let kept = cache.get(&wanted("a.example."), now).expect("kept");
        assert_eq!((kept.rcode, kept.answers, kept.authority), (fetched.rcode, fetched.answers, fetched.authority));
    }
}
