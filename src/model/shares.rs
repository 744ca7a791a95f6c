//! Who makes room when every place is taken: the peer that has most.
//!
//! Whatever a server lends out (connections, answers under way) is counted by peer. While there is room everybody gets
//! what he asks for. When there is none, one who takes more than the others loses a place to the newcomer, so that no
//! peer, however many places it asks for, keeps another one out.

use std::collections::HashMap;
use std::hash::Hash;

/// What is lent out, by peer.
#[derive(Clone, Debug)]
pub struct Shares<P, V> {
    limit: usize,
    next: u64,
    lent: HashMap<u64, (P, V)>,
}

/// Who has to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowding {
    /// The number of the place.
    pub number: u64,
    /// It is one of the newcomer's own.
    pub own: bool,
}

impl<P: Clone + Eq + Hash, V> Shares<P, V> {
    /// Nothing lent yet, of `limit` places.
    pub fn new(limit: usize) -> Self {
        Self { limit, next: 0, lent: HashMap::new() }
    }

    /// Lends so many places from now on; whoever has one keeps it.
    pub fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The place that a newcomer of this peer displaces: of the peer that has most, the one of the lowest rank. `None`
    /// while there is room.
    pub fn crowding<K: Ord>(&self, newcomer: &P, rank: impl Fn(&V) -> K) -> Option<Crowding> {
        (self.lent.len() >= self.limit).then(|| self.most(Some(newcomer), rank)).flatten()
    }

    /// The place that is given up first, whether there is room or not: something else than places has run out.
    pub fn dearest<K: Ord>(&self, rank: impl Fn(&V) -> K) -> Option<u64> {
        self.most(None, rank).map(|crowding| crowding.number)
    }

    fn most<K: Ord>(&self, newcomer: Option<&P>, rank: impl Fn(&V) -> K) -> Option<Crowding> {
        let mut counts: HashMap<&P, usize> = HashMap::new();
        for (peer, _) in self.lent.values() {
            *counts.entry(peer).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        // Who has as many as the greediest gives up his own: two that are alike do not take turns in pushing each other
        // out.
        let own = newcomer.filter(|peer| counts.get(peer).is_some_and(|count| count + 1 >= most));
        let gives = |peer: &P| own.map_or_else(|| counts.get(peer) == Some(&most), |own| own == peer);
        let candidates = self.lent.iter().filter(|(_, (peer, _))| gives(peer));
        let (number, _) = candidates.min_by_key(|(number, (_, value))| (rank(value), **number))?;
        Some(Crowding { number: *number, own: own.is_some() })
    }

    /// Lends a place, and tells its number.
    pub fn lend(&mut self, peer: P, value: V) -> u64 {
        self.next += 1;
        self.lent.insert(self.next, (peer, value));
        self.next
    }

    /// Takes a place back.
    pub fn give_back(&mut self, number: u64) -> Option<V> {
        self.lent.remove(&number).map(|(_, value)| value)
    }

    /// One of the places of a peer.
    pub fn any_of(&self, peer: &P) -> Option<&V> {
        self.lent.values().find(|(of, _)| of == peer).map(|(_, value)| value)
    }

    /// How many places are lent.
    pub fn len(&self) -> usize {
        self.lent.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.lent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Lends places to these peers in turn, as a server does, and tells who has how many then.
    fn lent(limit: usize, peers: &str) -> String {
        let mut shares = Shares::new(limit);
        for peer in peers.chars() {
            if let Some(crowding) = shares.crowding(&peer, |()| ()) {
                shares.give_back(crowding.number);
            }
            shares.lend(peer, ());
        }
        let mut all: Vec<char> = shares.lent.values().map(|(peer, ())| *peer).collect();
        all.sort_unstable();
        all.into_iter().collect()
    }

    #[test]
    fn who_has_most_makes_room() {
        for (peers, left) in
            [("aaaa", "aaaa"), ("aaaaaaaab", "aaab"), ("aaaabbbbbb", "aabb"), ("aaabc", "aabc"), ("abcde", "bcde")]
        {
            assert_eq!(lent(4, peers), left, "{peers}");
        }
    }

    #[test]
    fn the_lowest_rank_goes_first() {
        let mut shares = Shares::new(2);
        let idle = shares.lend('a', 0);
        shares.lend('a', 7);
        assert_eq!(shares.crowding(&'b', |rank| *rank), Some(Crowding { number: idle, own: false }));
        assert_eq!(shares.crowding(&'a', |rank| *rank), Some(Crowding { number: idle, own: true }));
    }

    proptest! {
        /// Whoever has asked for no more than a fair share has all of it, whatever the others do.
        #[test]
        fn a_fair_share_is_never_taken_away(others in "[a-d]{0,200}", more in "[a-d]{0,200}") {
            let left = lent(20, &format!("{others}zzz{more}"));
            prop_assert_eq!(left.matches('z').count(), 3, "{}", left);
        }
    }
}
