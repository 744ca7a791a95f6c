//! Question → answer, without sockets, clock or waiting.
//!
//! [`answer`] says what the catalog knows of a name. Where another server must be asked to finish (a CNAME that leads
//! out of every zone), it says whom to ask for. No answer takes more than [`steps::MOST`] steps,
//! whatever the catalog holds and whatever is asked: what a name's own labels want beyond that is refused
//! ([`Answer::spent`]), what records make costly is cut or left out ([`Answer::left_out`]).

mod address;
mod apex;
mod glue;
mod numbered;
mod reverse;
mod service;
mod work;

use std::time::Duration;

pub use hickory_server::proto::op::ResponseCode;
pub use hickory_server::proto::rr::{DNSClass, Name, RData, Record as Rr, RecordType};

use self::work::Work;
pub(crate) use self::work::wire_length;
use crate::catalog::index::{Catalog, Dependency, LeaseId};
use crate::catalog::steps;
use crate::model::steer::names::Steered;
use crate::model::words::site::Standpoint;
use crate::model::words::zone::Zones;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Question {
    /// The name, in the case that the client wrote.
    pub name: Name,
    /// The type asked for.
    pub qtype: RecordType,
    /// The class asked for.
    pub qclass: DNSClass,
}

/// What an answer depends on beside the catalog.
#[derive(Clone, Copy, Debug)]
pub struct Context<'c> {
    /// Seconds that an answer may be kept when its record does not say.
    pub dns_ttl: u32,
    /// Seconds that a negative answer may be kept.
    pub negative_ttl: u32,
    /// What answers are rotated by; another one for each question.
    pub seed: u64,
    /// The time, on the clock that lease times are given in.
    pub now: Duration,
    /// How large the message may be: more records than fit are not made.
    pub room: usize,
    /// Where it is asked: what is near is near to that.
    pub standpoint: &'c Standpoint,
}

/// What the catalog says of a question.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// This is the answer.
    Answer(Answer),
    /// This is the beginning of the answer: its last CNAME leads to a name outside every zone. With forwarding, the
    /// target's records of the question's type follow; without, it stands as it is.
    Chase {
        /// The part that is known here.
        answer: Answer,
        /// The name to be resolved elsewhere.
        target: Name,
    },
    /// The name is in no zone: forward it, or refuse.
    Foreign,
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its response code.
    pub rcode: ResponseCode,
    /// Whether it comes from data of our own.
    pub authoritative: bool,
    /// The answer section, in the order to be sent: already rotated.
    pub answers: Vec<Rr>,
    /// The authority section: the SOA of a negative answer.
    pub authority: Vec<Rr>,
    /// Addresses of the targets; may be left out, from the end, where there is no room.
    pub additional: Vec<Rr>,
    /// They stand in the order of their priorities, and are turned only among those of one.
    pub in_order: bool,
    /// There are more answers than `room` or the window let in.
    pub cut: bool,
    /// The name's zone, by its place in [`Zones`].
    pub zone: Option<usize>,
    /// Several endpoints claim the role asked for, so none is named.
    pub contested: bool,
    /// A role is asked for that goes by a topology, and how that stands.
    pub steered: Option<Steered>,
    /// What the answer rests on: see [`Catalog::holds_still`].
    pub dependencies: Vec<Dependency>,
    /// When its TTLs have to be told anew, on the clock of [`Context::now`]; `None` is never.
    pub fresh_until: Option<Duration>,
    /// The leases of foreign records that are answered here: their remainder should be known.
    pub leases: Vec<LeaseId>,
    /// What the answer cost, counted as [`steps`] does.
    pub steps: usize,
    /// The name's labels ask for more than a question may cost: hence the SERVFAIL.
    pub spent: bool,
    /// Targets of records that cost too much to be followed, so that their addresses are not told.
    pub left_out: usize,
}

/// What the catalog says of a question.
pub fn answer(catalog: &Catalog, zones: &Zones, question: &Question, context: &Context<'_>) -> Outcome {
    if question.qclass != DNSClass::IN || is_meta(question.qtype) {
        return Outcome::Answer(Answer::empty(ResponseCode::Refused));
    }
    let labels: Vec<Vec<u8>> = question.name.iter().map(<[u8]>::to_ascii_lowercase).collect();
    let work = Work::new(catalog, zones, question, context);
    work.steps.take(steps::read(labels.len()));
    if question.qtype == RecordType::PTR
        && let Some(address) = reverse::address_of(&labels)
    {
        return work.reverse(&labels, address);
    }
    let Some(place) = zones.find(&labels) else { return Outcome::Foreign };
    work.in_zone(place, &labels)
}

/// Types that ask for something else than records: transfers, signatures of messages.
fn is_meta(qtype: RecordType) -> bool {
    let number = u16::from(qtype);
    number == 41 || number == 0 || (128..=254).contains(&number)
}

impl Answer {
    /// The same, to be kept no longer than so many seconds.
    #[must_use]
    pub fn kept_for(mut self, most: u32) -> Self {
        for record in self.answers.iter_mut().chain(&mut self.authority).chain(&mut self.additional) {
            record.ttl = record.ttl.min(most);
        }
        self
    }

    /// An answer without records.
    pub fn empty(rcode: ResponseCode) -> Self {
        Self {
            rcode,
            authoritative: false,
            answers: Vec::new(),
            authority: Vec::new(),
            additional: Vec::new(),
            in_order: false,
            cut: false,
            zone: None,
            contested: false,
            steered: None,
            dependencies: Vec::new(),
            fresh_until: None,
            leases: Vec::new(),
            steps: 0,
            spent: false,
            left_out: 0,
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod costs_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod laws;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod near_tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod units_tests;
