//! Answers from elsewhere, kept for their own time, in bounded number.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::RData;

use super::{Fetched, Wanted};

/// Answers kept.
const MOST: usize = 4_096;
/// Records of an answer that is kept.
const RECORDS: usize = 64;
/// An answer is kept no longer, whatever it says itself.
const LONGEST: Duration = Duration::from_secs(60 * 60);
/// One that says there is nothing.
const LONGEST_NEGATIVE: Duration = Duration::from_secs(5 * 60);

/// The answers.
#[derive(Debug, Default)]
pub(super) struct Cache {
    kept: HashMap<Wanted, Kept>,
}

#[derive(Debug)]
struct Kept {
    fetched: Fetched,
    since: Instant,
    until: Instant,
}

impl Cache {
    /// What is known, with the time it has left.
    pub(super) fn get(&mut self, wanted: &Wanted, now: Instant) -> Option<Fetched> {
        let kept = self.kept.get(wanted)?;
        if kept.until <= now {
            self.kept.remove(wanted);
            return None;
        }
        let age = u32::try_from(now.duration_since(kept.since).as_secs()).unwrap_or(u32::MAX);
        let mut fetched = kept.fetched.clone();
        let sections = [&mut fetched.answers, &mut fetched.authority, &mut fetched.additional];
        for record in sections.into_iter().flatten() {
            record.ttl = record.ttl.saturating_sub(age);
        }
        Some(fetched)
    }

    /// Keeps an answer, if it says for how long.
    pub(super) fn put(&mut self, wanted: &Wanted, fetched: &Fetched, now: Instant) {
        let size = fetched.answers.len() + fetched.authority.len() + fetched.additional.len();
        let Some(time) = lifetime(fetched).filter(|time| !time.is_zero() && size <= RECORDS) else { return };
        if self.kept.len() >= MOST {
            self.kept.retain(|_, kept| kept.until > now);
        }
        if self.kept.len() >= MOST {
            // Full of what is still good: half of it goes, whichever.
            let mut number = 0_usize;
            self.kept.retain(|_, _| {
                number += 1;
                number.is_multiple_of(2)
            });
        }
        let kept = Kept { fetched: fetched.clone(), since: now, until: now + time };
        self.kept.insert(wanted.clone(), kept);
    }
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

    use hickory_server::proto::rr::rdata::{A, SOA};
    use hickory_server::proto::rr::{DNSClass, Name, Record, RecordType};

    use super::*;

    fn wanted(name: &str) -> Wanted {
        let name = Name::from_str(name).expect("a name");
        Wanted { name, qtype: RecordType::A, qclass: DNSClass::IN, dnssec: false, unchecked: false, stream: false }
    }

    fn address(ttl: u32) -> Fetched {
        let record = Record::from_rdata(Name::root(), ttl, RData::A(A::new(192, 0, 2, 1)));
        Fetched {
            rcode: ResponseCode::NoError,
            answers: vec![record],
            authority: vec![],
            additional: vec![],
            truncated: false,
        }
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
    }

    #[test]
    fn what_says_nothing_of_its_time_is_not_kept() {
        let negative = |authority| Fetched {
            rcode: ResponseCode::NXDomain,
            answers: vec![],
            authority,
            additional: vec![],
            truncated: false,
        };
        let soa = SOA::new(Name::root(), Name::root(), 1, 1, 1, 1, 7);
        let soa = Record::from_rdata(Name::root(), 60, RData::SOA(soa));
        assert_eq!(lifetime(&negative(vec![soa])), Some(Duration::from_secs(7)));
        assert_eq!(lifetime(&negative(vec![])), None);
        assert_eq!(lifetime(&Fetched { truncated: true, ..address(30) }), None);
        assert_eq!(lifetime(&Fetched { rcode: ResponseCode::ServFail, ..address(30) }), None);
    }

    #[test]
    fn the_number_kept_is_bounded() {
        let (mut cache, now) = (Cache::default(), Instant::now());
        for number in 0..3 * MOST {
            cache.put(&wanted(&format!("n{number}.example.")), &address(60), now);
        }
        assert!(cache.kept.len() <= MOST);
        assert!(cache.get(&wanted(&format!("n{}.example.", 3 * MOST - 1)), now).is_some());
    }
}
