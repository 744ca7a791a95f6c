//! What an operator tells a server, and the address that nobody serves by which a server is frozen.
//!
//! A server is frozen by making it the replica of nobody: it takes no write, and a replica without a link feeds no
//! other. Whose freeze it is shows in the address, `127.87.<hi>.<lo>` with the operation's number modulo 65,536; the
//! units start servers with number 0, which no operation has.

use std::net::Ipv4Addr;

/// The port that nobody serves.
pub const FREEZE_PORT: u16 = 1;
/// How long a pause lasts if nobody ends it: only the dead man's switch, the end is always `CLIENT UNPAUSE`.
pub const PAUSE_MS: u64 = 10_000;

/// The mark of a freeze: the operation's number as far as an address can carry it, and 0 for a server's own start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark(pub u16);

impl Mark {
    /// What the units start servers with.
    pub const START: Self = Self(0);

    /// The mark of operation `number`.
    pub fn of(number: u64) -> Self {
        Self((number % 65_536) as u16)
    }

    /// The address that stands for it.
    pub fn address(self) -> Ipv4Addr {
        let [high, low] = self.0.to_be_bytes();
        Ipv4Addr::new(127, 87, high, low)
    }

    /// Whose freeze an address shows, when it is one.
    pub fn read(host: &str) -> Option<Self> {
        match host.parse::<Ipv4Addr>().ok()?.octets() {
            [127, 87, high, low] => Some(Self(u16::from_be_bytes([high, low]))),
            _ => None,
        }
    }
}

/// One command, or one transaction, to one server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `CLIENT PAUSE 10000 WRITE`, then `INFO replication`: writes are held, and this is how far they had come.
    Pause,
    /// `MULTI / REPLICAOF 127.87.<hi>.<lo> 1 / INFO replication / CLIENT KILL TYPE normal SKIPME yes / EXEC`: no write
    /// from here on, and this is the final offset. The kill spares clients a `READONLY`.
    Freeze(Mark),
    /// `MULTI / REPLICAOF NO ONE / CLIENT UNPAUSE / EXEC`: the freeze of an operation that was given up.
    Undo,
    /// `CLIENT UNPAUSE`.
    Unpause,
    /// `MULTI / REPLICAOF NO ONE / INFO replication / EXEC`: the one command that makes a master.
    Promote,
    /// `MULTI / REPLICAOF … / CLIENT KILL TYPE normal SKIPME yes / CLIENT KILL TYPE pubsub / CLIENT UNPAUSE / EXEC`:
    /// writers that were held are closed unexecuted, and may send again elsewhere.
    Release {
        /// Whom to follow.
        host: String,
        /// Its port.
        port: u16,
    },
    /// `REPLICAOF …`.
    Attach {
        /// Whom to follow.
        host: String,
        /// Its port.
        port: u16,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_of_a_freeze_tells_whose_it_is() {
        assert_eq!(Mark::of(0x1_02_03).address().to_string(), "127.87.2.3");
        assert_eq!(Mark::read("127.87.2.3"), Some(Mark::of(0x1_02_03)));
        assert_eq!(Mark::read("127.87.0.0"), Some(Mark::START));
        for other in ["127.88.0.0", "10.87.0.0", "redis-1", "", "127.87.0.256"] {
            assert_eq!(Mark::read(other), None, "{other}");
        }
    }
}
