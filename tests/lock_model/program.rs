//! A `wharf lock` of the model: the shell around the rules, as the program's own is, one word at a time.

use std::time::Duration;

use wharf::model::steer::lock::certificate::Certificate;
use wharf::model::steer::lock::hold::{Hold, Terms, Verdict};
use wharf::model::steer::lock::queue::{Keys, Place, in_order};
use wharf::model::steer::lock::start::Next;
use wharf::model::steer::lock::waiter::{Turn, Waiter};

use crate::Mischief;
use crate::store::{Reply, Request};

/// How long a request may take before it is taken for lost.
const PATIENCE: Duration = Duration::from_millis(600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Granting,
    Queueing,
    Waiting,
    Starting,
    Running,
    /// The program is dead; the certificate is to go.
    Ending,
    Over,
}

/// What the world is to do for it.
#[derive(Clone, Debug)]
pub enum Act {
    Send(Request, Duration),
    Start(Hold),
    /// The guard learns how long the program may run.
    Prolong(Hold),
    Kill,
}

#[derive(Clone, Debug)]
pub struct Program {
    pub stage: Stage,
    ttl: Duration,
    pub lease: i64,
    pub token: i64,
    pub hold: Option<Hold>,
    waiter: Waiter,
    history: Option<u64>,
    last: Option<i64>,
    by_time: bool,
    /// From the commit that starts on, only what is acknowledged in time counts.
    used: bool,
    asked: Option<Duration>,
    renewed: Duration,
    looks_at: Duration,
    asks: Option<(i64, Duration)>,
    mischief: Option<Mischief>,
}

impl Program {
    pub fn new(ttl: Duration, strict: bool, mischief: Option<Mischief>) -> Self {
        Self {
            stage: Stage::Granting,
            ttl,
            lease: 0,
            token: 0,
            hold: None,
            waiter: Waiter::new(ttl, strict),
            history: None,
            last: None,
            by_time: false,
            used: false,
            asked: None,
            renewed: Duration::ZERO,
            looks_at: Duration::ZERO,
            asks: None,
            mischief,
        }
    }

    fn is(&self, mischief: Mischief) -> bool {
        self.mischief == Some(mischief)
    }

    /// Whether it has heard of the store once.
    pub fn has_heard(&self) -> bool {
        self.history.is_some()
    }

    pub fn is_by_time(&self) -> bool {
        self.by_time
    }

    /// What time alone has it do.
    pub fn tick(&mut self, now: Duration) -> Vec<Act> {
        let mut acts = vec![];
        self.renew(now, &mut acts);
        if self.stage == Stage::Running && self.hold.is_none_or(|hold| hold.verdict(now, false) == Verdict::Kill) {
            acts.push(Act::Kill);
        }
        if self.asked.is_some_and(|asked| now < asked + PATIENCE) {
            return acts;
        }
        self.asked = None;
        let request = match self.stage {
            Stage::Granting => Some(Request::Grant(self.ttl)),
            Stage::Queueing => Some(Request::Queue(self.lease)),
            Stage::Ending => Some(Request::Finish { lease: self.lease, token: self.token }),
            Stage::Over => None,
            // Of a start whose outcome is unknown the certificate tells.
            Stage::Starting => Some(Request::Look),
            Stage::Waiting if self.asks.is_some_and(|(_, at)| now >= at) => {
                self.asks.take().map(|(lease, _)| Request::Ask(lease))
            }
            Stage::Running if self.is(Mischief::RenewsWithoutItsKey) => None,
            Stage::Waiting | Stage::Running => (now >= self.looks_at).then_some(Request::Look),
        };
        if let Some(request) = request {
            self.asked = Some(now);
            self.looks_at = now + Duration::from_millis(200);
            acts.push(Act::Send(request, now));
        }
        acts
    }

    fn renew(&mut self, now: Duration, acts: &mut Vec<Act>) {
        let Some(hold) = self.hold else { return };
        let may = !self.used || hold.renews(now);
        if may && self.stage != Stage::Over && now >= self.renewed + self.ttl / 6 {
            self.renewed = now;
            let looks = matches!(self.stage, Stage::Waiting | Stage::Starting | Stage::Running);
            let looks = looks && !self.is(Mischief::RenewsWithoutItsKey);
            acts.push(Act::Send(Request::Renew(self.lease, looks.then_some(self.token)), now));
        }
    }

    /// What it does about a reply to what was asked at `sent`.
    pub fn reply(&mut self, reply: Reply, history: u64, sent: Duration, now: Duration) -> Vec<Act> {
        if self.history.replace(history).is_some_and(|known| known != history) {
            return self.went_back(now);
        }
        match reply {
            Reply::Renewed => return self.renewed(sent, now),
            Reply::NoLease if self.stage == Stage::Ending => {}
            Reply::NoLease if matches!(self.stage, Stage::Waiting) && self.asked == Some(sent) => self.asked = None,
            Reply::NoLease => return self.lost(),
            reply => {
                if self.asked == Some(sent) {
                    self.asked = None;
                    return self.answered(reply, sent, now);
                }
            }
        }
        vec![]
    }

    fn renewed(&mut self, sent: Duration, now: Duration) -> Vec<Act> {
        let terms = Terms::new(self.ttl, None);
        let counted = if self.is(Mischief::CountsFromAcknowledgement) { now } else { sent };
        let Some(hold) = &mut self.hold else { return vec![] };
        if !self.used || self.mischief == Some(Mischief::CountsFromAcknowledgement) {
            if counted > hold.deadline() - terms.usable() {
                *hold = Hold::idle(terms, counted);
            }
        } else {
            hold.acknowledge(counted, now);
        }
        if self.stage == Stage::Running { vec![Act::Prolong(*hold)] } else { vec![] }
    }

    fn answered(&mut self, reply: Reply, sent: Duration, now: Duration) -> Vec<Act> {
        match (reply, self.stage) {
            (Reply::Granted(lease, ttl), Stage::Granting) => {
                self.lease = lease;
                self.hold = Some(Hold::idle(Terms::new(ttl, None), sent));
                (self.renewed, self.stage) = (sent, Stage::Queueing);
            }
            (Reply::Queued(token), Stage::Queueing) => (self.token, self.stage) = (token, Stage::Waiting),
            (Reply::Left { lease, granted, left }, Stage::Waiting) => {
                self.waiter.told(lease, granted, left, sent, now);
            }
            (Reply::Line(line, certificate), Stage::Waiting) => return self.looked(line, certificate, now),
            (Reply::Line(line, Some((certificate, _))), Stage::Starting)
                if (certificate.token, certificate.lease) == (self.token, self.lease) =>
            {
                let is_there = line.iter().any(|place| place.lease == self.lease);
                return if is_there { self.started(now) } else { self.lost() };
            }
            (Reply::Line(..), Stage::Starting) => self.stage = Stage::Waiting,
            (Reply::Line(line, _), Stage::Running) if !line.iter().any(|place| place.lease == self.lease) => {
                return vec![Act::Kill];
            }
            (Reply::Started(true), Stage::Starting) => return self.started(now),
            (Reply::Started(false), Stage::Starting) => self.stage = Stage::Waiting,
            (Reply::Finished, Stage::Ending) => self.stage = Stage::Over,
            _ => {}
        }
        vec![]
    }

    fn looked(&mut self, line: Vec<Place>, certificate: Option<(Certificate, i64)>, now: Duration) -> Vec<Act> {
        let keys = keys();
        let line = in_order(&keys, line);
        let (shown, last) = certificate.unzip();
        let hidden = self.is(Mischief::IgnoresCertificate);
        let shown = shown.filter(|_| !hidden);
        let turn = self.waiter.looked(now, &line, shown.as_ref(), &keys.of_lease(self.lease));
        match turn {
            Turn::Lost => return self.lost(),
            Turn::Behind { ask, .. } => self.asks = ask,
            Turn::Head(Next::Start) => {
                self.by_time = shown.is_some();
                return self.start(last, now);
            }
            Turn::Head(Next::At(_)) if self.is(Mischief::EveryEndIsDue) => return self.start(last, now),
            Turn::Head(_) => {}
        }
        vec![]
    }

    fn start(&mut self, last: Option<i64>, now: Duration) -> Vec<Act> {
        if self.hold.is_none_or(|hold| hold.verdict(now, false) != Verdict::Run) {
            return vec![];
        }
        (self.last, self.stage, self.asked, self.used) = (last, Stage::Starting, Some(now), true);
        let ttl = self.ttl.as_millis() as u64;
        let certificate = Certificate { token: self.token, lease: self.lease, ttl, ..Certificate::default() };
        let start = Request::Start { lease: self.lease, token: self.token, last, certificate };
        vec![Act::Send(start, now)]
    }

    /// Its commit was made.
    fn started(&mut self, now: Duration) -> Vec<Act> {
        let Some(hold) = self.hold else { return self.lost() };
        if hold.verdict(now, false) != Verdict::Run {
            self.stage = Stage::Ending;
            return vec![];
        }
        self.stage = Stage::Running;
        vec![Act::Start(hold)]
    }

    /// Key or lease are gone.
    fn lost(&mut self) -> Vec<Act> {
        match self.stage {
            Stage::Running => vec![Act::Kill],
            Stage::Ending | Stage::Over => vec![],
            // What was committed and not started leaves a certificate.
            Stage::Starting => {
                self.stage = Stage::Ending;
                vec![]
            }
            _ => self.again(),
        }
    }

    fn again(&mut self) -> Vec<Act> {
        (self.stage, self.hold, self.asked, self.asks) = (Stage::Granting, None, None, None);
        self.used = false;
        vec![]
    }

    fn went_back(&mut self, now: Duration) -> Vec<Act> {
        if !self.is(Mischief::BelievesEmptyStore) {
            self.waiter.went_back(now);
        }
        self.lost()
    }

    /// Its program is dead, as it knows.
    pub fn ended(&mut self) {
        (self.stage, self.asked) = (Stage::Ending, None);
    }
}

/// The keys of the model's only lock.
pub fn keys() -> Keys {
    let name = wharf::model::steer::lock::queue::LockName::parse("x").unwrap();
    Keys::new(&wharf::model::words::key::Prefix::parse("/services").unwrap(), &name)
}
