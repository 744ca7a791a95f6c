//! Health: rise, fall and first readiness of one instance, as a machine without sockets or clock.
//!
//! Two voices are heard: what its server answers ([`Outcome`]) and what Docker says of its container. Docker can only
//! veto, or speak alone where nothing is probed. The surprising part: an instance that was paused or sent its stop
//! signal and goes on is taken for a new one, so its next good answer offers it again at once.

pub mod adopted;
pub mod standing;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::model::health::standing::{Standing, State};
use crate::model::offer::instance::DockerStanding;
use crate::model::words::record::Role;

/// How many answers turn an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// Good answers in a row that bring back one that was down.
    pub rise: u32,
    /// Bad ones in a row that take down one that was ready.
    pub fall: u32,
}

impl Default for Rules {
    fn default() -> Self {
        Self { rise: 2, fall: 3 }
    }
}

/// How long what is known of an instance stands that this host cannot ask: no file descriptor, no port, no memory is
/// left. It is twice the lease's default, so that a crowd that passes takes nothing down.
const UNASKED_PATIENCE: Duration = Duration::from_secs(60);

/// What one probe met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it serves.
    pub verdict: Verdict,
    /// What it says of its role.
    pub role: RoleWord,
    /// What is to be said to people, when there is something.
    pub words: Option<Arc<str>>,
}

/// Whether a server serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It does.
    Serves,
    /// It does, and has no room for more.
    Full,
    /// It does not.
    Fails,
}

/// What a server says of its role.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RoleWord {
    /// It was not asked: what is known stays.
    #[default]
    Unasked,
    /// It answered, perhaps that it has none.
    Told(Option<Role>),
    /// It was to be asked and could not be: what is known stays, its age shown, for at most so long.
    Kept(Option<Duration>),
}

impl Outcome {
    /// It serves; nothing else is known.
    pub fn serves() -> Self {
        Self { verdict: Verdict::Serves, role: RoleWord::Unasked, words: None }
    }

    /// It does not serve, and this is why.
    pub fn fails(words: impl Into<Arc<str>>) -> Self {
        Self { verdict: Verdict::Fails, role: RoleWord::Unasked, words: Some(words.into()) }
    }

    /// It serves and is full.
    pub fn full(words: impl Into<Arc<str>>) -> Self {
        Self { verdict: Verdict::Full, ..Self::fails(words) }
    }

    /// The same with what it said of its role.
    #[must_use]
    pub fn with_role(self, role: Option<Role>) -> Self {
        Self { role: RoleWord::Told(role), ..self }
    }

    /// The same, with the role that was known before.
    #[must_use]
    pub fn with_role_kept(self, at_most: Option<Duration>) -> Self {
        Self { role: RoleWord::Kept(at_most), ..self }
    }

    /// The same with something to say to people.
    #[must_use]
    pub fn with_words(self, words: impl Into<Arc<str>>) -> Self {
        Self { words: Some(words.into()), ..self }
    }
}

/// Where an instance is in its life, as far as answers tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// It has never served; so many bad answers so far.
    First { bad: u32 },
    /// It serves; so many bad answers since the last good one.
    Up { bad: u32 },
    /// It does not any more; so many good answers in a row.
    Down { good: u32 },
}

/// The health of one instance.
#[derive(Clone, Debug)]
pub struct Health {
    probed: bool,
    phase: Phase,
    full: bool,
    docker: DockerStanding,
    role: Option<Role>,
    /// When it was told that role.
    role_told: SystemTime,
    error: Option<Arc<str>>,
    shown: State,
    since: SystemTime,
}

impl Health {
    /// The health of an instance that has just appeared.
    pub fn new(probed: bool, docker: DockerStanding, now: SystemTime) -> Self {
        let mut health = Self {
            probed,
            phase: Phase::First { bad: 0 },
            full: false,
            docker,
            role: None,
            role_told: now,
            error: None,
            shown: State::Starting,
            since: now,
        };
        health.settle(now);
        health
    }

    /// Takes over a record that an earlier life of this agent published: ready, since then and with that role, until
    /// answers say otherwise. An instance that has spoken for itself is left alone; one that has failed to often enough
    /// is down: it served once, and does so no longer.
    pub fn adopt(&mut self, since: SystemTime, role: Option<Role>, rules: Rules, now: SystemTime) {
        self.phase = match self.phase {
            _ if !self.probed => Phase::Up { bad: 0 },
            Phase::First { bad } if bad < rules.fall => Phase::Up { bad },
            Phase::First { .. } => Phase::Down { good: 0 },
            Phase::Up { .. } | Phase::Down { .. } => return,
        };
        (self.role, self.role_told) = (role.or(self.role), now);
        self.settle(now);
        if self.shown.serves() {
            self.since = since;
        }
    }

    /// Hears what Docker says now.
    pub fn hear_docker(&mut self, docker: DockerStanding, now: SystemTime) {
        let was_halted = self.is_halted();
        self.docker = docker;
        if self.probed && was_halted && !self.is_halted() {
            self.phase = Phase::First { bad: 0 };
        }
        self.settle(now);
    }

    /// Hears what a probe met.
    pub fn hear_probe(&mut self, outcome: Outcome, rules: Rules, now: SystemTime) {
        if outcome.verdict != Verdict::Fails {
            self.full = outcome.verdict == Verdict::Full;
        }
        self.error = outcome.words;
        match outcome.role {
            RoleWord::Unasked => {}
            RoleWord::Told(role) => (self.role, self.role_told) = (role, now),
            RoleWord::Kept(at_most) => self.keep_role(at_most, now),
        }
        let good = outcome.verdict != Verdict::Fails;
        self.phase = match self.phase {
            Phase::First { .. } | Phase::Up { .. } if good => Phase::Up { bad: 0 },
            Phase::First { bad } => Phase::First { bad: bad.saturating_add(1) },
            Phase::Up { bad } if bad + 1 >= rules.fall => Phase::Down { good: 0 },
            Phase::Up { bad } => Phase::Up { bad: bad + 1 },
            Phase::Down { good: before } if good && before + 1 >= rules.rise => Phase::Up { bad: 0 },
            Phase::Down { good: before } if good => Phase::Down { good: before + 1 },
            Phase::Down { .. } => Phase::Down { good: 0 },
        };
        self.settle(now);
    }

    /// Hears that this host itself could not ask, as it has not been able to since then, for so long. What is known
    /// stays for a while; after that an instance that nobody can ask serves no more than one that does not answer.
    pub fn hear_nothing(&mut self, why: &str, (since, length): (SystemTime, Duration), rules: Rules, now: SystemTime) {
        let words = format!("not asked since {}: {why}", time(since));
        if length < UNASKED_PATIENCE {
            self.error = Some(words.into());
        } else {
            self.hear_probe(Outcome::fails(words), rules, now);
        }
    }

    /// Leaves the role as it was told, and says when that was.
    fn keep_role(&mut self, at_most: Option<Duration>, now: SystemTime) {
        let age = now.duration_since(self.role_told).unwrap_or_default();
        self.role = self.role.filter(|_| at_most.is_none_or(|most| age <= most));
        let told = match self.role {
            Some(_) => format!("role as told at {}", time(self.role_told)),
            None => "role unknown".to_owned(),
        };
        let words = self.error.take();
        self.error = Some(words.map_or(told.clone(), |words| format!("{words}: {told}")).into());
    }

    /// Begins or ends probing; an instance that serves goes on serving until answers say otherwise.
    pub fn set_probed(&mut self, probed: bool, now: SystemTime) {
        self.probed = probed;
        if !probed {
            self.error = None;
            self.full = false;
            if !matches!(self.phase, Phase::Up { .. }) {
                self.phase = Phase::First { bad: 0 };
            }
        }
        self.settle(now);
    }

    /// Whether there is any use in asking its server now.
    pub fn wants_probes(&self) -> bool {
        self.probed && !self.is_halted()
    }

    /// Whether it has never served, and is therefore asked often.
    pub fn is_first(&self) -> bool {
        matches!(self.phase, Phase::First { .. })
    }

    /// Whether its answers say that it does not serve any more.
    pub fn is_down(&self) -> bool {
        matches!(self.phase, Phase::Down { .. })
    }

    /// What people and the registrar are shown. `role`, when given on the container, overrides what its server says.
    pub fn standing(&self, role: Option<Role>) -> Standing {
        Standing { state: self.shown, role: role.or(self.role), since: self.since, error: self.error.clone() }
    }

    /// Whether its processes cannot answer, or are about to end.
    fn is_halted(&self) -> bool {
        matches!(self.docker, DockerStanding::Paused | DockerStanding::Stopping)
    }

    /// Makes the state shown that of the two voices. Ready and saturated are one for the time since when it serves.
    fn settle(&mut self, now: SystemTime) {
        if !self.probed && matches!(self.docker, DockerStanding::Running | DockerStanding::Healthy) {
            self.phase = Phase::Up { bad: 0 };
        }
        let state = self.state();
        let still_serves = state.serves() && self.shown.serves();
        if state != self.shown && !still_serves {
            self.since = now;
        }
        self.shown = state;
    }

    fn state(&self) -> State {
        match (self.docker, self.phase) {
            (DockerStanding::Paused, _) => State::Paused,
            (DockerStanding::Stopping, _) => State::Stopping,
            (DockerStanding::Unhealthy, _) => State::Unhealthy,
            (_, Phase::First { .. }) => State::Starting,
            (_, Phase::Down { .. }) => State::Down,
            (_, Phase::Up { .. }) if self.full => State::Saturated,
            (_, Phase::Up { .. }) => State::Ready,
        }
    }
}

/// A time in text that stays the same: what is told changes only with what is known.
fn time(time: SystemTime) -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_seconds(time)
}

#[cfg(test)]
mod tests;
