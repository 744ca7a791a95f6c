//! Datagrams whose answers take work: who waits, and who is next.
//!
//! Whoever was answered last lets the others go first, so that many questions of one client cost another one of them.

use std::collections::VecDeque;
use std::net::IpAddr;

use super::socket::Peer;

/// Questions that wait at one thread. More stay in the socket.
const MOST: usize = 128;

/// Questions that wait, in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    questions: VecDeque<(Box<[u8]>, Peer)>,
    last: Option<IpAddr>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.questions.is_empty()
    }

    /// How many more may wait.
    pub(super) fn room(&self) -> usize {
        MOST - self.questions.len()
    }

    pub(super) fn push(&mut self, question: Box<[u8]>, from: Peer) {
        self.questions.push_back((question, from));
    }

    /// The oldest question of another client than the last one, if there is one.
    pub(super) fn next(&mut self) -> Option<(Box<[u8]>, Peer)> {
        let of_another = |(_, peer): &(_, Peer)| Some(peer.from.ip()) != self.last;
        let next = self.questions.iter().position(of_another).unwrap_or(0);
        let (question, peer) = self.questions.remove(next)?;
        self.last = Some(peer.from.ip());
        Some((question, peer))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_questions_of_one_client_cost_another_one_of_them() {
        let mut waiting = Waiting::default();
        let crowd = ["10.0.0.1:1"; 5];
        for from in [&crowd[..], &["10.0.0.2:1", "10.0.0.3:1", "10.0.0.3:2"]].concat() {
            waiting.push(Box::default(), Peer::at(from.parse().expect("an address")));
        }
        assert_eq!(waiting.room(), MOST - 8);
        let order: Vec<String> = std::iter::from_fn(|| waiting.next()).map(|(_, peer)| peer.from.to_string()).collect();
        let wanted = [1, 2, 1, 3, 1, 3, 1, 1].map(|client| format!("10.0.0.{client}"));
        assert_eq!(order.iter().map(|from| &from[..8]).collect::<Vec<_>>(), wanted);
        assert!(waiting.is_empty());
    }
}
