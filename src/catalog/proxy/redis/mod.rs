//! What an ambassador that speaks Redis knows of one session: which replies are due, whether it can be moved to another
//! server, and as whom it speaks there.
//!
//! A session is moved between two commands only, with no reply due. One that holds something at its server which
//! cannot be told again (a transaction, watched keys, subscriptions, what CLIENT TRACKING or REPLY has set) is not.

mod replies;
mod requests;

use std::collections::VecDeque;
use std::fmt;

use serde::{Deserialize, Serialize};

pub(crate) use replies::{Replies, Reply};
pub(crate) use requests::{Request, Requests};

/// Commands under way that mean something for later. Who sends more of them at once is not moved.
const MOST_MEANT: usize = 64;
/// What Redis says to who waits for something at a master that is none any more: nothing was done.
const UNBLOCKED: &[u8] = b"UNBLOCKED";

/// As whom a session speaks, which another server is told.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Identity {
    /// `AUTH`'s words.
    auth: Option<Vec<Vec<u8>>>,
    /// The version of the protocol.
    version: Option<Vec<u8>>,
    /// The database.
    db: Option<Vec<u8>>,
    /// The client's name.
    name: Option<Vec<u8>>,
}

/// What a command means for later, if it is carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Meant {
    Is(Identity),
    Multi,
    Ended,
    Watching,
    Unwatched,
}

/// What is known of one session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ledger {
    identity: Identity,
    /// Commands sent, and replies got.
    sent: u64,
    answered: u64,
    meant: VecDeque<(u64, Meant)>,
    is_in_transaction: bool,
    is_watching: bool,
    /// It holds what cannot be told another server.
    is_fixed: bool,
    is_uncounted: bool,
    is_ending: bool,
    /// The last command, where it may be sent once more.
    last: Option<Vec<Vec<u8>>>,
}

impl Ledger {
    /// A session that another process has left between two commands.
    pub(crate) fn of(identity: Identity) -> Self {
        Self { identity, ..Self::default() }
    }

    /// As whom it speaks.
    pub(crate) fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Whether a reply is due.
    pub(crate) fn is_due(&self) -> bool {
        self.sent != self.answered
    }

    /// Whether another server can be told all that this one knows of it.
    pub(crate) fn is_movable(&self) -> bool {
        !self.is_fixed && !self.is_in_transaction && !self.is_watching
    }

    /// The one command whose reply is due, where it can be sent again.
    pub(crate) fn to_repeat(&self) -> Option<Vec<u8>> {
        let is_only = self.sent == self.answered + 1;
        self.last.as_ref().filter(|_| is_only && self.is_movable()).map(|words| Request::encode(words))
    }

    /// Whether this is the reply of who waited in vain: it is asked again elsewhere, and its client need not know.
    pub(crate) fn is_unblocked(&self, reply: &[u8]) -> bool {
        reply.strip_prefix(b"-").is_some_and(|error| error.starts_with(UNBLOCKED)) && self.to_repeat().is_some()
    }

    /// Its bytes cannot be counted any more.
    pub(crate) fn is_lost(&mut self) {
        (self.is_fixed, self.is_uncounted) = (true, true);
    }

    /// Whether its client has said that it ends.
    pub(crate) fn is_ending(&self) -> bool {
        self.is_ending
    }

    /// Whether commands and replies are still counted.
    pub(crate) fn is_counted(&self) -> bool {
        !self.is_uncounted
    }

    /// Takes a command that is on its way.
    pub(crate) fn asked(&mut self, request: Request) {
        if request.words.is_empty() {
            return; // an empty line has no reply
        }
        self.sent += 1;
        let meant = self.meaning(&request);
        if self.meant.len() >= MOST_MEANT {
            self.is_fixed = true;
        } else if let Some(meant) = meant {
            self.meant.push_back((self.sent, meant));
        }
        self.last = (!request.is_cut).then_some(request.words);
    }

    /// Takes a reply.
    pub(crate) fn answered(&mut self, reply: &Reply) {
        let is_good = match reply {
            Reply::Push => return,
            Reply::Good => true,
            Reply::Error(_) => false,
        };
        self.answered += 1;
        if self.answered > self.sent {
            self.is_fixed = true; // it speaks of something that was not understood
        }
        while let Some((number, _)) = self.meant.front()
            && *number <= self.answered
        {
            let Some((_, meant)) = self.meant.pop_front() else { return };
            // A transaction that fails has ended all the same.
            if is_good || meant == Meant::Ended {
                self.means(meant);
            }
        }
        if !self.is_due() {
            self.last = None;
        }
    }

    fn means(&mut self, meant: Meant) {
        match meant {
            Meant::Is(more) => {
                let own = &mut self.identity;
                own.auth = more.auth.or(own.auth.take());
                own.version = more.version.or(own.version.take());
                own.db = more.db.or(own.db.take());
                own.name = more.name.or(own.name.take());
            }
            Meant::Multi => self.is_in_transaction = true,
            Meant::Ended => (self.is_in_transaction, self.is_watching) = (false, false),
            Meant::Watching => self.is_watching = true,
            Meant::Unwatched => self.is_watching = false,
        }
    }

    fn meaning(&mut self, request: &Request) -> Option<Meant> {
        let more = |words: &[Vec<u8>], from: usize| words.get(from).cloned();
        let words = &request.words;
        match &*request.word(0) {
            b"MULTI" => return Some(Meant::Multi),
            b"EXEC" | b"DISCARD" => return Some(Meant::Ended),
            b"WATCH" => return Some(Meant::Watching),
            b"UNWATCH" => return Some(Meant::Unwatched),
            b"QUIT" => {
                self.is_ending = true;
                return None;
            }
            b"SELECT" | b"AUTH" | b"HELLO" | b"CLIENT" => {}
            b"SUBSCRIBE" | b"PSUBSCRIBE" | b"SSUBSCRIBE" | b"UNSUBSCRIBE" | b"PUNSUBSCRIBE" | b"SUNSUBSCRIBE"
            | b"MONITOR" | b"SYNC" | b"PSYNC" | b"REPLCONF" | b"READONLY" | b"READWRITE" | b"ASKING" | b"RESET"
            | b"SWAPDB" | b"FAILOVER" => {
                self.is_fixed = true;
                return None;
            }
            _ => return None,
        }
        // Within a transaction, or with words that were not kept, it is not known what becomes of it.
        if self.is_in_transaction || request.is_cut {
            self.is_fixed = true;
            return None;
        }
        match &*request.word(0) {
            b"SELECT" => Some(Meant::Is(Identity { db: more(words, 1), ..Identity::default() })),
            b"AUTH" => Some(Meant::Is(Identity { auth: Some(words.clone()), ..Identity::default() })),
            b"HELLO" => hello(request).map(Meant::Is),
            _ => self.client(request),
        }
    }

    fn client(&mut self, request: &Request) -> Option<Meant> {
        let name = request.words.get(2).cloned();
        match &*request.word(1) {
            b"SETNAME" => return Some(Meant::Is(Identity { name, ..Identity::default() })),
            b"REPLY" | b"TRACKING" | b"CACHING" | b"NO-EVICT" | b"NO-TOUCH" => self.is_fixed = true,
            _ => {}
        }
        None
    }
}

/// What `HELLO 3 AUTH user password SETNAME name` says of its client.
fn hello(request: &Request) -> Option<Identity> {
    let mut identity = Identity { version: Some(request.words.get(1)?.clone()), ..Identity::default() };
    let mut at = 2;
    while at < request.words.len() {
        match &*request.word(at) {
            b"AUTH" => {
                let who = request.words.get(at + 1..at + 3)?;
                identity.auth = Some([&[b"AUTH".to_vec()], who].concat());
                at += 3;
            }
            b"SETNAME" => {
                identity.name = Some(request.words.get(at + 1)?.clone());
                at += 2;
            }
            _ => return None,
        }
    }
    Some(identity)
}

impl fmt::Debug for Identity {
    /// It has a password in it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Identity")
    }
}

impl Identity {
    /// What another server is told, and asked whether it is the master, in this order.
    pub(crate) fn introduction(&self) -> Vec<Vec<u8>> {
        let say = |words: &[&[u8]]| Request::encode(&words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
        let mut said = Vec::new();
        said.extend(self.auth.as_ref().map(|words| Request::encode(words)));
        said.push(say(&[b"ROLE"]));
        said.extend(self.version.as_ref().map(|version| say(&[b"HELLO", version])));
        said.extend(self.db.as_ref().map(|db| say(&[b"SELECT", db])));
        said.extend(self.name.as_ref().map(|name| say(&[b"CLIENT", b"SETNAME", name])));
        said
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Commands are given as `> word word`, replies as `<` what is meant, `<!` an error.
    fn ledger(story: &[&str]) -> Ledger {
        let mut ledger = Ledger::default();
        for line in story {
            match line.split_at(2) {
                ("> ", words) => ledger.asked(Request {
                    words: words.split(' ').map(|word| word.as_bytes().to_vec()).collect(),
                    is_cut: false,
                }),
                ("<!", _) => ledger.answered(&Reply::Error(b"ERR".to_vec())),
                ("<p", _) => ledger.answered(&Reply::Push),
                _ => ledger.answered(&Reply::Good),
            }
        }
        ledger
    }

    #[test]
    fn who_holds_nothing_and_waits_for_nothing_can_be_moved() {
        let check = |story: &[&str], is_due: bool, is_movable: bool| {
            let ledger = ledger(story);
            assert_eq!((ledger.is_due(), ledger.is_movable()), (is_due, is_movable), "{story:?}");
        };
        check(&["> GET a", "< "], false, true);
        check(&["> GET a"], true, true);
        check(&["> GET a", "<p", "< "], false, true);
        check(&["> MULTI", "< "], false, false);
        check(&["> MULTI", "< ", "> SET a b", "< ", "> EXEC", "<!"], false, true);
        check(&["> watch a", "< "], false, false);
        check(&["> WATCH a", "< ", "> UNWATCH", "< "], false, true);
        check(&["> WATCH a", "<!"], false, true);
        for held in ["SUBSCRIBE a", "MONITOR", "client reply off", "CLIENT TRACKING on", "CLIENT NO-EVICT on"] {
            check(&[&format!("> {held}"), "< "], false, false);
        }
        check(&["< "], true, false);
    }

    #[test]
    fn another_server_is_told_what_this_one_took() {
        let told = |story: &[&str]| {
            let said = ledger(story).identity().introduction().concat();
            let text = String::from_utf8(said).expect("text");
            text.lines().filter(|line| !line.starts_with(['*', '$'])).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(told(&[]), "ROLE");
        assert_eq!(
            told(&["> HELLO 3 AUTH u p SETNAME n", "< ", "> SELECT 3", "< ", "> SELECT 99", "<!"]),
            "AUTH u p ROLE HELLO 3 SELECT 3 CLIENT SETNAME n"
        );
        assert_eq!(told(&["> AUTH p", "< ", "> AUTH q", "<!", "> CLIENT SETNAME x"]), "AUTH p ROLE");
        let within = ledger(&["> MULTI", "< ", "> SELECT 3", "< ", "> EXEC", "< "]);
        assert!(!within.is_movable(), "what a transaction selects is not followed");
    }

    #[test]
    fn one_command_whose_reply_is_due_can_be_sent_again() {
        let blocked = ledger(&["> BLPOP a 0"]);
        assert_eq!(
            blocked.to_repeat().map(|bytes| bytes.len()),
            Some(b"*3\r\n$5\r\nBLPOP\r\n$1\r\na\r\n$1\r\n0\r\n".len())
        );
        assert!(blocked.is_unblocked(b"-UNBLOCKED force unblock") && !blocked.is_unblocked(b"-ERR"));
        assert_eq!(ledger(&["> BLPOP a 0", "> GET a"]).to_repeat(), None);
        assert_eq!(ledger(&["> BLPOP a 0", "< "]).to_repeat(), None);
    }

    #[test]
    fn who_changes_much_at_once_stays_where_it_is() {
        let mut story = vec!["> SELECT 1"; MOST_MEANT + 1];
        story.extend(vec!["< "; MOST_MEANT + 1]);
        assert!(!ledger(&story).is_movable());
    }
}
