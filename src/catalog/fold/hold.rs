//! Holding: which records that vanish from the store are still answered for a while, and until when.
//!
//! A store that returns from an outage may have lost records whose instances serve as before: restored from a backup,
//! emptied, or thawed with every lease overdue. Their owners publish again within seconds; until then no name may turn
//! NXDOMAIN for the store's sake. A delete in quiet times, or one under a living lease, is meant and counts at once.
//!
//! The surprising part: what is held is a claim of an owner, not a key. In the return another owner may take the key
//! first; then the record is shown under another one until its own owner has published, under whatever key.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::model::words::record::{Proto, Record, Text};

/// A lease as the store names it; 0 is none.
pub type Lease = i64;

/// A lease found dead so soon after the store's return died of the outage.
pub const RETURN: Duration = Duration::from_secs(10);
/// From the first put of an owner who knows of the loss to the end of what it did not put: its puts come in a burst.
pub const BURST: Duration = Duration::from_secs(1);

/// Which instance of which owner a record is of, under whatever key it stands.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Claim {
    /// The agent that published it.
    pub owner: Text,
    container: Option<Text>,
    id: Text,
    service: Option<Text>,
    proto: Option<Proto>,
    port: u16,
}

impl Claim {
    /// What the record under `key` claims; `None` when it names no owner. One without an id is told by its key.
    pub fn of(key: &Text, record: &Record) -> Option<Self> {
        Some(Self {
            owner: record.owner.clone()?,
            container: record.container.clone(),
            id: record.id.as_ref().unwrap_or(key).clone(),
            service: record.service.clone(),
            proto: record.proto,
            port: record.port,
        })
    }

    /// Whether the record under `key` claims the same.
    pub fn is_of(&self, key: &str, record: &Record) -> bool {
        record.owner.as_ref() == Some(&self.owner)
            && record.container == self.container
            && record.id.as_deref().unwrap_or(key) == &*self.id
            && record.service == self.service
            && (record.proto, record.port) == (self.proto, self.port)
    }
}

/// A record that is no longer in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vanished {
    /// Its key.
    pub key: Text,
    /// Whose it was, if it had an owner.
    pub claim: Option<Claim>,
    /// Its lease; 0 is none.
    pub lease: Lease,
    /// For a record of this agent's own, once it knows what it offers: whether it still offers this.
    pub offered: Option<bool>,
}

impl Vanished {
    fn owner(&self) -> Option<&str> {
        self.claim.as_ref().map(|claim| &*claim.owner)
    }
}

/// How records came to vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// A list lacked them.
    Relist {
        /// The store is another one, or went back in its history.
        rewound: bool,
        /// Time since the store came back from being away; `None` when it has not been away.
        returned: Option<Duration>,
    },
    /// One revision deleted them all.
    Deleted {
        /// Time since the store came back.
        returned: Option<Duration>,
    },
    /// Another owner's record was put in its place. No agent does that in one history: the store went back, and that
    /// has not been told yet, or it was done by hand.
    Overwritten,
}

/// What to do about one of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It goes.
    Gone,
    /// It stays for a while.
    Held,
    /// It stays for a while, unless its lease turns out to live.
    HeldUnlessLeaseLives,
}

/// Judges what one relist or one revision took away.
pub fn judge(vanished: &[Vanished], how: How) -> Vec<Verdict> {
    let owners: HashSet<&str> = vanished.iter().filter_map(Vanished::owner).collect();
    let several = owners.len() > 1;
    vanished.iter().map(|record| judge_one(record, how, several)).collect()
}

fn judge_one(record: &Vanished, how: How, several: bool) -> Verdict {
    match record.offered {
        // This agent let it go itself.
        Some(false) => return Verdict::Gone,
        // It will hear that its lease is lost, and say then what is to be answered; until then nothing has changed.
        Some(true) if !matches!(how, How::Relist { rewound: true, .. }) => return Verdict::HeldUnlessLeaseLives,
        Some(true) | None => {}
    }
    let recent = |returned: Option<Duration>| returned.is_some_and(|since| since <= RETURN);
    match how {
        How::Relist { rewound: true, .. } => Verdict::Held,
        How::Deleted { .. } if several && record.claim.is_some() => Verdict::Held,
        How::Relist { returned, .. } if returned.is_some() && record.lease != 0 => Verdict::HeldUnlessLeaseLives,
        How::Deleted { returned } if recent(returned) && record.lease != 0 => Verdict::HeldUnlessLeaseLives,
        How::Overwritten if record.lease != 0 => Verdict::HeldUnlessLeaseLives,
        How::Relist { .. } | How::Deleted { .. } | How::Overwritten => Verdict::Gone,
    }
}

#[derive(Clone, Debug)]
struct Hold {
    claim: Option<Claim>,
    lease: Lease,
    unless_lives: bool,
    until: Duration,
}

/// The records held now. Times are on any one clock that never steps.
#[derive(Clone, Debug, Default)]
pub struct Holds {
    held: BTreeMap<Text, Hold>,
    owners: BTreeMap<Text, Owned>,
    /// The keys held for each claim.
    claims: HashMap<Claim, BTreeSet<Text>>,
    /// Every key by when its hold is over.
    times: BTreeSet<(Duration, Text)>,
}

/// What is held for one owner.
#[derive(Clone, Debug, Default)]
struct Owned {
    keys: BTreeSet<Text>,
    /// Those whose time no put has shortened yet, by lease: none is looked at again for each put of a burst.
    lasting: BTreeMap<Lease, BTreeSet<Text>>,
}

/// What a put means for what is held.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Put {
    /// Keys elsewhere whose hold is over: the put was of what they are held for.
    pub over: Vec<Text>,
    /// The key itself is held for another claim: that is to be shown under another one from now on.
    pub displaced: bool,
}

impl Holds {
    /// Holds a record until `until`, as `verdict` says; `false` when it is not to be held.
    pub fn hold(&mut self, record: &Vanished, verdict: Verdict, until: Duration) -> bool {
        if verdict == Verdict::Gone {
            return false;
        }
        let unless_lives = verdict == Verdict::HeldUnlessLeaseLives;
        let hold = Hold { claim: record.claim.clone(), lease: record.lease, unless_lives, until };
        self.insert(record.key.clone(), hold);
        true
    }

    fn insert(&mut self, key: Text, hold: Hold) {
        self.remove(&key);
        if let Some(claim) = &hold.claim {
            let owned = self.owners.entry(claim.owner.clone()).or_default();
            owned.keys.insert(key.clone());
            owned.lasting.entry(hold.lease).or_default().insert(key.clone());
            self.claims.entry(claim.clone()).or_default().insert(key.clone());
        }
        self.times.insert((hold.until, key.clone()));
        self.held.insert(key, hold);
    }

    fn remove(&mut self, key: &str) -> Option<Hold> {
        let (key, hold) = self.held.remove_entry(key)?;
        if let Some(claim) = &hold.claim {
            if let Some(owned) = self.owners.get_mut(&claim.owner) {
                owned.keys.remove(&key);
                take_out(&mut owned.lasting, &hold.lease, &key);
                if owned.keys.is_empty() {
                    self.owners.remove(&claim.owner);
                }
            }
            if let Some(keys) = self.claims.get_mut(claim) {
                keys.remove(&key);
                if keys.is_empty() {
                    self.claims.remove(claim);
                }
            }
        }
        self.times.remove(&(hold.until, key));
        Some(hold)
    }

    /// Lets what is held for an owner last until `over` at most, but for what hung on the lease `except`. Later puts
    /// would shorten it no more.
    fn shorten(&mut self, owner: &str, except: Option<Lease>, over: Duration) {
        let Some(owned) = self.owners.get_mut(owner) else { return };
        let stays = except.and_then(|lease| owned.lasting.remove_entry(&lease));
        let shortened = std::mem::replace(&mut owned.lasting, stays.into_iter().collect());
        for key in shortened.into_values().flatten() {
            let Some(hold) = self.held.get_mut(&key).filter(|hold| hold.until > over) else { continue };
            self.times.remove(&(hold.until, key.clone()));
            hold.until = over;
            self.times.insert((over, key));
        }
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Whether this one is.
    pub fn contains(&self, key: &str) -> bool {
        self.held.contains_key(key)
    }

    /// Something was put under a key and a lease, of this claim if it is a record with an owner. What is held for that
    /// claim is held no more; and if its owner has put it just now, knowing what it lost, its other records only as
    /// long as a burst of puts may take. A put of something else under the lease of before may have been under way
    /// already.
    pub fn put(&mut self, key: &str, lease: Lease, claim: Option<&Claim>, now: Option<Duration>) -> Put {
        let mut put = Put::default();
        if let Some(claim) = claim {
            let same: Vec<Text> = self.claims.get(claim).into_iter().flatten().cloned().collect();
            for known in &same {
                self.remove(known);
            }
            if let Some(now) = now {
                self.shorten(&claim.owner, Some(lease).filter(|_| same.is_empty()), now + BURST);
            }
            put.over = same.into_iter().filter(|known| **known != *key).collect();
        }
        match self.held.get(key).map(|hold| hold.claim.is_some()) {
            // Nobody would move what has no owner: who puts there means to.
            Some(false) => drop(self.remove(key)),
            there => put.displaced = there.is_some(),
        }
        put
    }

    /// What is held under `key` is shown under `to` from now on, or, with none, no more; until when.
    pub fn moved(&mut self, key: &str, to: Option<&Text>) -> Option<Duration> {
        let hold = self.remove(key)?;
        let until = hold.until;
        self.insert(to?.clone(), hold);
        Some(until)
    }

    /// Whether any is of this owner.
    pub fn any_of(&self, owner: &str) -> bool {
        self.owners.contains_key(owner)
    }

    /// An owner says which of its records it still means: the keys held for its others, which are held no more.
    pub fn release(&mut self, owner: &str, means: impl Fn(&Claim) -> bool) -> Vec<Text> {
        let keys = self.owners.get(owner).into_iter().flat_map(|owned| &owned.keys);
        let meant = |key: &Text| self.held.get(key).and_then(|hold| hold.claim.as_ref()).is_some_and(&means);
        let over: Vec<Text> = keys.filter(|key| !meant(key)).cloned().collect();
        for key in &over {
            self.remove(key);
        }
        over
    }

    /// The leases whose life decides about records held, each once.
    pub fn doubtful(&self) -> Vec<Lease> {
        let mut leases: Vec<_> = self.held.values().filter(|hold| hold.unless_lives).map(|hold| hold.lease).collect();
        leases.sort_unstable();
        leases.dedup();
        leases
    }

    /// A lease lives, and these keys hang on it: the keys whose deletion was meant are returned and held no more. One
    /// that does hang on it has come back with another history, or been put again, and will be told.
    pub fn lease_lives(&mut self, lease: Lease, keys: &HashSet<&str>) -> Vec<Text> {
        self.take(|key, hold| hold.unless_lives && hold.lease == lease && !keys.contains(key))
    }

    /// A lease is dead: what hung on it went with it.
    pub fn lease_is_dead(&mut self, lease: Lease) {
        self.held.values_mut().filter(|hold| hold.lease == lease).for_each(|hold| hold.unless_lives = false);
    }

    /// The store is another one, or went back: that a lease lives in it says nothing of what another history lost.
    pub fn lease_says_nothing(&mut self) {
        self.held.values_mut().for_each(|hold| hold.unless_lives = false);
    }

    /// The keys whose time is over; they are held no more.
    pub fn expire(&mut self, now: Duration) -> Vec<Text> {
        let over: Vec<Text> =
            self.times.iter().take_while(|(until, _)| *until <= now).map(|(_, key)| key.clone()).collect();
        for key in &over {
            self.remove(key);
        }
        over
    }

    /// When the next one is over.
    pub fn next(&self) -> Option<Duration> {
        self.times.first().map(|(until, _)| *until)
    }

    fn take(&mut self, over: impl Fn(&str, &Hold) -> bool) -> Vec<Text> {
        let taken: Vec<_> =
            self.held.iter().filter(|(key, hold)| over(key, hold)).map(|(key, _)| key.clone()).collect();
        for key in &taken {
            self.remove(key);
        }
        taken
    }
}

fn take_out(keys: &mut BTreeMap<Lease, BTreeSet<Text>>, lease: &Lease, key: &str) {
    if let Some(of_lease) = keys.get_mut(lease) {
        of_lease.remove(key);
        if of_lease.is_empty() {
            keys.remove(lease);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `key owner lease`, where the owner `me` still offers it and `was-me` does not.
    fn vanished(text: &str) -> Vanished {
        let mut parts = text.split_whitespace();
        let mut next = || parts.next().expect("key owner lease");
        let (key, owner, lease) = (next(), next(), next());
        let claim = (owner != "-").then(|| claim(owner, key));
        let offered = owner.ends_with("me").then_some(owner == "me");
        Vanished { key: key.into(), claim, lease: lease.parse().expect("a number"), offered }
    }

    fn claim(owner: &str, id: &str) -> Claim {
        let record = Record { owner: Some(owner.into()), id: Some(id.into()), ..Record::default() };
        Claim::of(&id.into(), &record).expect("an owner")
    }

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_vanishes_in_the_stores_return_is_held() {
        use Verdict::{Gone, Held, HeldUnlessLeaseLives};
        let relist = |rewound, returned: Option<u64>| How::Relist { rewound, returned: returned.map(secs) };
        let deleted = |returned: Option<u64>| How::Deleted { returned: returned.map(secs) };
        let cases: &[(&str, How, &[&str], &[Verdict])] = &[
            ("a delete in quiet times", deleted(None), &["a one 1"], &[Gone]),
            ("one owner's records in one revision", deleted(None), &["a one 1", "b one 1"], &[Gone, Gone]),
            ("several owners' in one revision", deleted(None), &["a one 1", "b two 2", "c - 3"], &[Held, Held, Gone]),
            ("a lease that died in the outage", deleted(Some(10)), &["a one 1"], &[HeldUnlessLeaseLives]),
            ("a lease that died later", deleted(Some(11)), &["a one 1"], &[Gone]),
            ("no lease to die", deleted(Some(1)), &["a - 0"], &[Gone]),
            ("a compacted watch", relist(false, None), &["a one 1", "b two 2"], &[Gone, Gone]),
            ("a list after an outage", relist(false, Some(0)), &["a one 1", "b - 0"], &[HeldUnlessLeaseLives, Gone]),
            ("another store", relist(true, None), &["a one 1", "b - 0"], &[Held, Held]),
            ("another store that lacks our own", relist(true, None), &["a me 1", "b was-me 1"], &[Held, Gone]),
            ("our own lease was ended", deleted(None), &["a me 1", "b me 1"], &[HeldUnlessLeaseLives; 2]),
            ("another owner's put", How::Overwritten, &["a one 1", "b - 0"], &[HeldUnlessLeaseLives, Gone]),
            ("our own delete", deleted(Some(1)), &["a was-me 1"], &[Gone]),
        ];
        for (name, how, records, verdicts) in cases {
            let records: Vec<_> = records.iter().map(|record| vanished(record)).collect();
            assert_eq!(judge(&records, *how), *verdicts, "{name}");
        }
    }

    fn three() -> Holds {
        let mut holds = Holds::default();
        holds.hold(&vanished("a one 1"), Verdict::Held, secs(30));
        holds.hold(&vanished("b one 1"), Verdict::HeldUnlessLeaseLives, secs(30));
        holds.hold(&vanished("c two 2"), Verdict::HeldUnlessLeaseLives, secs(40));
        holds
    }

    fn sorted(mut keys: Vec<Text>) -> Vec<Text> {
        keys.sort();
        keys
    }

    #[test]
    fn a_lease_time_ends_it() {
        let mut holds = three();
        assert_eq!(holds.next(), Some(secs(30)));
        assert_eq!(sorted(holds.expire(secs(30))), ["a".into(), "b".into()] as [Text; 2]);
        assert_eq!(holds.len(), 1);
    }

    #[test]
    fn the_owners_return_ends_it_once_its_burst_is_over() {
        let mut holds = three();
        assert_eq!(holds.put("a", 9, Some(&claim("one", "a")), Some(secs(5))), Put::default());
        assert!(!holds.contains("a") && holds.contains("b"));
        assert!(holds.expire(secs(5)).is_empty());
        assert_eq!(holds.expire(secs(6)), ["b".into()] as [Text; 1]);
        assert!(holds.contains("c"));
    }

    #[test]
    fn what_was_under_way_before_the_loss_is_no_return_of_its_owner() {
        let mut holds = three();
        holds.put("d", 1, Some(&claim("one", "d")), Some(secs(5)));
        assert_eq!(holds.next(), Some(secs(30)), "under the lease of before, and none of what is held");
        holds.put("a", 1, Some(&claim("one", "a")), Some(secs(6)));
        assert_eq!(holds.next(), Some(secs(7)), "it publishes again what it lost");
        let mut holds = three();
        holds.put("d", 9, Some(&claim("one", "d")), Some(secs(5)));
        assert_eq!(holds.next(), Some(secs(6)), "under another lease, so it knows");
    }

    #[test]
    fn no_put_of_a_burst_looks_at_what_another_has_shortened() {
        let mut holds = Holds::default();
        for number in 0..1_000 {
            holds.hold(&vanished(&format!("{number} one {}", number % 2)), Verdict::Held, secs(30));
        }
        let lasting = |holds: &Holds| holds.owners["one"].lasting.values().map(BTreeSet::len).sum::<usize>();
        holds.put("new", 1, Some(&claim("one", "new")), Some(secs(5)));
        assert_eq!((lasting(&holds), holds.next()), (500, Some(secs(6))), "those of its own lease stay");
        holds.put("1", 1, Some(&claim("one", "1")), Some(secs(6)));
        assert_eq!((lasting(&holds), holds.len()), (0, 999));
        assert_eq!((holds.expire(secs(6)).len(), holds.expire(secs(7)).len(), holds.len()), (500, 499, 0));
        assert!(holds.owners.is_empty() && holds.claims.is_empty() && holds.times.is_empty());
    }

    #[test]
    fn who_publishes_under_another_key_is_held_no_more() {
        let mut holds = three();
        let put = holds.put("a-1f", 9, Some(&claim("one", "a")), Some(secs(5)));
        assert_eq!(put, Put { over: vec!["a".into()], displaced: false });
        assert!(!holds.contains("a"));
    }

    #[test]
    fn what_is_held_under_a_key_that_another_takes_is_moved() {
        let mut holds = three();
        let put = holds.put("a", 9, Some(&claim("three", "a")), Some(secs(5)));
        assert_eq!(put, Put { over: vec![], displaced: true });
        assert_eq!(holds.moved("a", Some(&"a-1f".into())), Some(secs(30)));
        assert!(holds.contains("a-1f") && !holds.contains("a"));
        let put = holds.put("a-2e", 9, Some(&claim("one", "a")), Some(secs(6)));
        assert_eq!(put.over, ["a-1f".into()] as [Text; 1]);
    }

    #[test]
    fn what_has_no_owner_gives_way() {
        let mut holds = three();
        holds.hold(&vanished("d - 0"), Verdict::Held, secs(30));
        assert_eq!(holds.put("d", 9, Some(&claim("one", "d")), Some(secs(5))), Put::default());
        assert!(!holds.contains("d"));
    }

    #[test]
    fn a_delete_under_a_living_lease_counts() {
        let mut holds = three();
        assert_eq!(holds.doubtful(), [1, 2]);
        assert!(holds.lease_lives(1, &HashSet::from(["b"])).is_empty(), "the store has it again");
        assert_eq!(holds.lease_lives(1, &HashSet::from(["e"])), ["b".into()] as [Text; 1]);
        holds.lease_is_dead(2);
        assert!(holds.doubtful().is_empty());
        assert!(holds.contains("a") && holds.contains("c"));
    }

    #[test]
    fn a_lease_of_another_history_says_nothing() {
        let mut holds = three();
        holds.lease_says_nothing();
        assert!(holds.doubtful().is_empty() && holds.lease_lives(1, &HashSet::new()).is_empty());
        assert_eq!(holds.len(), 3);
    }

    #[test]
    fn what_its_owner_no_longer_means_is_held_no_more() {
        let mut holds = three();
        let meant = claim("one", "b");
        assert_eq!(holds.release("one", |claim| *claim == meant), ["a".into()] as [Text; 1]);
        assert!(!holds.contains("a") && holds.contains("b") && holds.contains("c"));
        assert!(holds.any_of("one") && !holds.any_of("three"));
    }

    #[test]
    fn what_is_gone_is_not_held() {
        assert!(!Holds::default().hold(&vanished("a one 1"), Verdict::Gone, secs(30)));
    }
}
