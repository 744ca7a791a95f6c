//! A model of a Redis server: histories with ids and offsets, partial and full resyncs, freezes, pauses, restarts.
//!
//! Data is a set of writes, one bit each. The stream holds the writes and the pings, so an offset is a length.

use std::time::Duration;

use wharf::model::steer::command::{Command, Mark};
use wharf::model::steer::server::{Follows as Seen, Position, ServerState, Upstream};

pub type Writes = u64;
const PING: u8 = 255;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Follows {
    NoOne,
    Frozen(Mark),
    At(usize),
}

/// How a server comes back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restart {
    /// With all that it acknowledged, and a replication id that tells nothing.
    AppendOnly,
    /// The same, but its host rebooted, and what was not on the disk is gone.
    Rebooted,
    /// As it was at its last snapshot, whose replication id and offset it has.
    Snapshot,
    /// With nothing.
    Empty,
}

#[derive(Clone, Debug)]
struct Kept {
    data: Writes,
    id: u32,
    offset: u64,
}

#[derive(Clone, Debug)]
pub struct Machine {
    pub up: bool,
    pub run: u64,
    pub follows: Follows,
    pub link: bool,
    pub id: u32,
    pub second: Option<(u32, u64)>,
    /// Offset at which `log` begins: of what came before, only the data is left.
    pub base: u64,
    pub log: Vec<u8>,
    pub data: Writes,
    pub paused_until: u64,
    pub append_only: bool,
    pub rebooted: Option<bool>,
    snapshot: Kept,
}

/// What a command or a resync did that the witness wants to know.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Effect {
    /// It became a master.
    pub promoted: bool,
}

impl Machine {
    pub fn new(id: u32, run: u64, append_only: bool) -> Self {
        Self {
            up: true,
            run,
            follows: Follows::NoOne,
            link: false,
            id,
            second: None,
            base: 0,
            log: vec![],
            data: 0,
            paused_until: 0,
            append_only,
            rebooted: Some(false),
            snapshot: Kept { data: 0, id, offset: 0 },
        }
    }

    pub fn offset(&self) -> u64 {
        self.base + self.log.len() as u64
    }

    pub fn is_master(&self) -> bool {
        self.up && self.follows == Follows::NoOne
    }

    pub fn takes_writes(&self, now: u64) -> bool {
        self.is_master() && now >= self.paused_until
    }

    pub fn write(&mut self, bit: u8) {
        self.data |= 1 << bit;
        self.log.push(bit);
    }

    pub fn ping(&mut self) {
        self.log.push(PING);
    }

    pub fn save(&mut self) {
        self.snapshot = Kept { data: self.data, id: self.id, offset: self.offset() };
    }

    /// Comes back frozen, as the units start it.
    pub fn restart(&mut self, how: Restart, run: u64, fresh: u32) {
        let Kept { data, id, offset } = self.snapshot.clone();
        (self.up, self.run, self.follows, self.link) = (true, run, Follows::Frozen(Mark::START), false);
        (self.second, self.paused_until, self.log) = (None, 0, vec![]);
        (self.id, self.base) = (fresh, 0);
        match how {
            Restart::AppendOnly => {}
            Restart::Rebooted => (self.data, self.rebooted) = (data, Some(true)),
            Restart::Snapshot => (self.data, self.id, self.base) = (data, id, offset),
            Restart::Empty => self.data = 0,
        }
        self.save();
    }

    /// Executes one transaction.
    pub fn execute(&mut self, command: &Command, now: u64, fresh: u32) -> Effect {
        let was_master = self.follows == Follows::NoOne;
        match command {
            Command::Pause => self.paused_until = self.paused_until.max(now + 10_000),
            Command::Unpause => self.paused_until = 0,
            Command::Freeze(mark) => self.follow(Follows::Frozen(*mark)),
            Command::Undo => {
                self.promote(fresh);
                self.paused_until = 0;
            }
            Command::Promote => self.promote(fresh),
            Command::Release { host, .. } => {
                self.follow(Follows::At(host.parse().unwrap()));
                self.paused_until = 0;
            }
            Command::Attach { host, .. } => self.follow(Follows::At(host.parse().unwrap())),
        }
        Effect { promoted: !was_master && self.follows == Follows::NoOne }
    }

    fn follow(&mut self, whom: Follows) {
        if self.follows != whom {
            (self.follows, self.link) = (whom, false);
        }
    }

    fn promote(&mut self, fresh: u32) {
        if self.follows != Follows::NoOne {
            self.second = Some((self.id, self.offset() + 1));
            (self.follows, self.link, self.id) = (Follows::NoOne, false, fresh);
        }
    }

    /// Whether it answers a replica that wants to begin.
    pub fn feeds(&self) -> bool {
        self.up && (self.follows == Follows::NoOne || self.link)
    }

    /// Becomes a replica of `master` in fact: partially where the master's history allows, else it is overwritten.
    /// Tells whether it began another history, by which its own replicas are dropped.
    pub fn sync(&mut self, master: &Self) -> bool {
        let (id, offset) = (self.id, self.offset());
        let kept = offset >= master.base && offset <= master.offset();
        let in_second = master.second.is_some_and(|(second, end)| second == id && offset < end);
        self.link = true;
        if kept && master.id == id {
            return false;
        }
        if kept && in_second {
            (self.second, self.id) = (Some((id, offset + 1)), master.id);
            return true;
        }
        (self.id, self.second, self.base) = (master.id, None, master.base);
        (self.log, self.data) = (master.log.clone(), master.data);
        self.save();
        true
    }

    /// Takes up to `most` of what its master has and it has not.
    pub fn pull(&mut self, master: &Self, most: usize) {
        let from = (self.offset().saturating_sub(master.base)) as usize;
        for entry in master.log.iter().skip(from).take(most) {
            self.log.push(*entry);
            if *entry != PING {
                self.data |= 1 << entry;
            }
        }
    }

    /// What `INFO` tells.
    pub fn state(&self) -> ServerState {
        let follows = match self.follows {
            Follows::NoOne => Seen::NoOne,
            Follows::Frozen(mark) => Seen::Frozen(mark),
            Follows::At(index) => Seen::At { host: index.to_string(), port: 1, up: self.link },
        };
        let second = self.second.map(|(id, end)| (id.to_string(), end));
        ServerState {
            run: self.run.to_string(),
            follows,
            position: Position { id: self.id.to_string(), offset: self.offset(), second },
            keys: u64::from(self.data.count_ones()),
            bytes: 0,
            append_only: self.append_only,
            rebooted: self.rebooted,
            hindrances: vec![],
            paused: None::<(Duration, u64)>,
            frozen: None,
            unpaused: false,
            upstream: Upstream::default(),
        }
    }
}
