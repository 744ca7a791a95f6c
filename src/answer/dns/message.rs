//! One reply as hickory writes it, within our rules of size: never more than the client takes (or 1232 bytes by UDP),
//! glue goes before answers do, TC only when answers are missing, OPT exactly when the question had one.
//!
//! hickory by itself writes until the message is full, then sets TC even for glue and leaves the OPT out. Therefore how
//! much fits is found out first, and hickory is given that much. After 120 names it compresses no more, which a stream
//! with thousands of addresses cannot do without: what does not fit then is written in pieces, each by a fresh encoder,
//! after the records that large sets are made of, whose owner is the question's name and needs no looking for.
//! `hickory_tests.rs` shows all this of hickory, so that what is no longer needed is seen.

use std::slice::Iter;
use std::sync::{Arc, OnceLock};

use async_trait::async_trait;
use hickory_server::net::NetError;
use hickory_server::net::xfer::Protocol;
use hickory_server::proto::ProtoError;
use hickory_server::proto::op::{Edns, Header, HeaderCounts, Metadata};
use hickory_server::proto::rr::{Name, RData, Record as Rr};
use hickory_server::proto::serialize::binary::{BinEncodable, BinEncoder};
use hickory_server::server::{Request, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::{MessageResponse, MessageResponseBuilder, Queries};

use crate::catalog::dns::{Answer, wire_length};

/// The largest reply by UDP, whatever the client says it takes.
pub(super) const UDP_MOST: u16 = 1232;
/// The largest reply to a client that says nothing.
const UDP_PLAIN: u16 = 512;
pub(super) const HEADER: usize = 12;
/// An OPT record without options.
const OPT: usize = 11;
/// Type, class, TTL and length of a record.
const FIXED: usize = 10;
const TYPE_AND_CLASS: usize = 4;
const POINTER: usize = 2;
/// The pointer to the question's name.
const QUESTION: u16 = 0xc000 | HEADER as u16;
/// hickory writes each name in full before it makes it a pointer: it needs so much room for a while.
const LONGEST_NAME: u16 = 255;
/// Records that one encoder writes: it compresses 120 names, and no record that is answered has more than two.
const PIECE: usize = 60;

/// A reply of hickory's with as many records as fit.
pub(super) type Fitted<'a> = MessageResponse<'a, 'a, Iter<'a, Rr>, Iter<'a, Rr>, Iter<'a, Rr>, Iter<'a, Rr>>;

/// What a reply is to say.
#[derive(Clone, Copy, Debug)]
pub(super) struct Draft<'a> {
    pub(super) metadata: Metadata,
    pub(super) queries: &'a Queries,
    pub(super) answer: &'a Answer,
    pub(super) edns: Option<&'a Edns>,
}

/// How many records of each section go into the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) answers: usize,
    authority: usize,
    additional: usize,
}

/// Bytes that the reply to this request may have.
pub(super) fn limit(request: &Request) -> u16 {
    match request.protocol() {
        Protocol::Udp => request.edns.as_ref().map_or(UDP_PLAIN, |edns| edns.max_payload().clamp(UDP_PLAIN, UDP_MOST)),
        _ => u16::MAX,
    }
}

impl<'a> Draft<'a> {
    /// Everything that is to be said.
    pub(super) fn all(&self) -> Counts {
        let Answer { answers, authority, additional, .. } = self.answer;
        Counts { answers: answers.len(), authority: authority.len(), additional: additional.len() }
    }

    /// Whether all of it fits, without a closer look.
    pub(super) fn surely_fits(&self, limit: u16) -> bool {
        self.at_most().is_some_and(|bytes| bytes <= usize::from(limit.min(u16::MAX - LONGEST_NAME)))
    }

    /// As much of it as fits: answers first.
    pub(super) fn fitting(&self, limit: u16) -> Counts {
        let all = self.all();
        if self.surely_fits(limit) {
            return all;
        }
        let mut scratch = Vec::new();
        let room = limit.saturating_sub(u16::try_from(self.opt_length()).unwrap_or(u16::MAX));
        let without_opt = Self { edns: None, ..*self };
        let Ok(info) = encode(without_opt.message(all), self.question(), room, &mut scratch) else {
            return Counts { answers: 0, authority: 0, additional: 0 };
        };
        let HeaderCounts { answers, authorities, additionals, .. } = info.counts();
        let (answers, authority, additional) = (answers.into(), authorities.into(), additionals.into());
        let counts = Counts { answers, authority, additional };
        match counts {
            Counts { answers, .. } if answers < all.answers => Counts { answers, authority: 0, additional: 0 },
            Counts { authority, .. } if authority < all.authority => Counts { additional: 0, ..counts },
            counts => counts,
        }
    }

    /// So much of it as a message of hickory's.
    pub(super) fn message(&self, counts: Counts) -> Fitted<'a> {
        let Answer { answers, authority, additional, .. } = self.answer;
        let builder = MessageResponseBuilder::new(self.queries, self.edns);
        let no_soa: &[Rr] = &[];
        builder.build(
            self.metadata,
            &answers[..counts.answers],
            &authority[..counts.authority],
            no_soa,
            &additional[..counts.additional],
        )
    }

    /// The question as the client wrote it, when there is one.
    fn question(&self) -> &'a [u8] {
        if self.queries.len() == 1 { self.queries.as_bytes() } else { &[] }
    }

    fn opt_length(&self) -> usize {
        let options = self.edns.into_iter().flat_map(|edns| &edns.options().options);
        self.edns.map_or(0, |_| OPT) + options.map(|(_, option)| 4 + usize::from(option.len())).sum::<usize>()
    }

    /// The question's name, which stands behind the header in full.
    fn asked(&self) -> Option<&'a Name> {
        let name = self.queries.queries().first().map(|query| query.original().name());
        name.filter(|name| self.question().len() == wire_length(name) + TYPE_AND_CLASS)
    }

    /// A size that the message certainly does not exceed; unknown with data of rare types.
    fn at_most(&self) -> Option<usize> {
        let asked = self.asked();
        let Answer { answers, authority, additional, .. } = self.answer;
        let mut bytes = HEADER + self.queries.as_bytes().len() + self.opt_length();
        for (place, record) in answers.iter().chain(authority).chain(additional).enumerate() {
            let compressed = place < PIECE && asked.is_some_and(|asked| asked.eq_case(&record.name));
            bytes += if compressed { POINTER } else { wire_length(&record.name) };
            bytes += FIXED + data_length(&record.data)?;
        }
        Some(bytes)
    }

    /// As much of it as `limit` bytes hold, with names compressed throughout.
    pub(super) fn in_pieces(&self, limit: u16) -> Result<Vec<u8>, ProtoError> {
        let mut bytes = Vec::new();
        let nothing = Counts { answers: 0, authority: 0, additional: 0 };
        let without_opt = Self { edns: None, ..*self };
        let info = encode(without_opt.message(nothing), self.question(), limit, &mut bytes)?;
        let mut counts = info.counts();
        let room = limit.saturating_sub(u16::try_from(self.opt_length()).unwrap_or(u16::MAX));
        let sections = [
            (&self.answer.answers, &mut counts.answers),
            (&self.answer.authority, &mut counts.authorities),
            (&self.answer.additional, &mut counts.additionals),
        ];
        for (records, count) in sections {
            let own = append_own(&mut bytes, records, self.asked(), room);
            let written = own + append(&mut bytes, &records[own..], self.question(), room)?;
            *count = u16::try_from(written).unwrap_or(u16::MAX);
            if written < records.len() {
                break;
            }
        }
        if let Some(edns) = self.edns {
            let mut edns = edns.clone();
            edns.set_rcode_high(self.metadata.response_code.high());
            let written = append(&mut bytes, &[Rr::from(&edns)], self.question(), limit)?;
            counts.additionals += u16::try_from(written).unwrap_or(0);
        }
        let header = Header { metadata: self.metadata, counts };
        let mut head = Vec::with_capacity(HEADER);
        header.emit(&mut BinEncoder::new(&mut head))?;
        bytes[..HEADER].copy_from_slice(&head);
        Ok(bytes)
    }
}

/// Writes the first records as far as they stand under the name asked for and fit; how many. What large sets are made
/// of: hickory would look for each owner among all names that it has written.
fn append_own(bytes: &mut Vec<u8>, records: &[Rr], asked: Option<&Name>, limit: u16) -> usize {
    let own = |record: &&Rr| asked.is_some_and(|asked| asked.eq_case(&record.name));
    let mut written = 0;
    for record in records.iter().take_while(own) {
        let end = bytes.len();
        if put_own(bytes, record).is_none() || bytes.len() > usize::from(limit) {
            bytes.truncate(end);
            break;
        }
        written += 1;
    }
    written
}

/// Writes a record of the name asked for; `None`, and something half, where its data is not plain.
fn put_own(bytes: &mut Vec<u8>, record: &Rr) -> Option<()> {
    let length = u16::try_from(data_length(&record.data)?).ok()?;
    for field in [QUESTION, record.record_type().into(), record.dns_class.into()] {
        bytes.extend_from_slice(&field.to_be_bytes());
    }
    bytes.extend_from_slice(&record.ttl.to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    match &record.data {
        RData::A(address) => bytes.extend_from_slice(&address.octets()),
        RData::AAAA(address) => bytes.extend_from_slice(&address.octets()),
        RData::SRV(srv) => {
            for field in [srv.priority, srv.weight, srv.port] {
                bytes.extend_from_slice(&field.to_be_bytes());
            }
            for label in &srv.target {
                bytes.push(u8::try_from(label.len()).ok()?);
                bytes.extend_from_slice(label);
            }
            bytes.push(0);
        }
        _ => return None,
    }
    Some(())
}

/// Writes as many records as fit behind what is there; how many.
fn append(bytes: &mut Vec<u8>, records: &[Rr], question: &[u8], limit: u16) -> Result<usize, ProtoError> {
    let mut written = 0;
    for piece in records.chunks(PIECE) {
        let end = bytes.len();
        let mut encoder = BinEncoder::with_offset(bytes, u32::try_from(HEADER + question.len()).unwrap_or(u32::MAX));
        encoder.set_max_size(limit);
        // Stored where the question is: no pointer reaches a name that is stored far behind.
        store_name(&mut encoder, question);
        encoder.set_offset(end);
        let done = match encoder.emit_all(piece.iter()) {
            Ok(count) => count,
            Err(ProtoError::NotAllRecordsWritten { count, .. }) => count,
            Err(error) => return Err(error),
        };
        let end = encoder.offset();
        bytes.truncate(end);
        written += done;
        if done < piece.len() {
            break;
        }
    }
    Ok(written)
}

/// The bytes that a record's data takes at most; unknown for rare types.
fn data_length(data: &RData) -> Option<usize> {
    Some(match data {
        RData::A(_) => 4,
        RData::AAAA(_) => 16,
        RData::SRV(srv) => 6 + wire_length(&srv.target),
        RData::CNAME(name) => wire_length(&name.0),
        RData::NS(name) => wire_length(&name.0),
        RData::PTR(name) => wire_length(&name.0),
        RData::MX(mx) => 2 + wire_length(&mx.exchange),
        RData::SOA(soa) => 20 + [&soa.mname, &soa.rname].into_iter().map(wire_length).sum::<usize>(),
        _ => return None,
    })
}

/// Has hickory write a message of `limit` bytes at most into `bytes`.
fn encode<'a>(
    message: MessageResponse<
        '_,
        'a,
        impl Iterator<Item = &'a Rr> + Send + 'a,
        impl Iterator<Item = &'a Rr> + Send + 'a,
        impl Iterator<Item = &'a Rr> + Send + 'a,
        impl Iterator<Item = &'a Rr> + Send + 'a,
    >,
    question: &[u8],
    limit: u16,
    bytes: &mut Vec<u8>,
) -> Result<ResponseInfo, ProtoError> {
    let mut encoder = BinEncoder::new(bytes);
    // hickory remembers the question with its type and class as one name, which no owner's name equals. What it will
    // write is shown to it beforehand, so that owners become pointers, in whatever letters the question is.
    encoder.emit_vec(&[0; HEADER])?;
    encoder.emit_vec(question)?;
    store_name(&mut encoder, question);
    encoder.set_offset(0);
    encoder.set_max_size(limit);
    let info = message.destructive_emit(&mut encoder)?;
    let end = encoder.offset();
    bytes.truncate(end);
    Ok(info)
}

/// Lets an encoder know of the question's name, which stands behind the header.
fn store_name(encoder: &mut BinEncoder<'_>, question: &[u8]) {
    let mut starts = Vec::new();
    let mut at = 0;
    while let Some(length) = question.get(at).copied().filter(|length| *length > 0) {
        starts.push(HEADER + at);
        at += 1 + usize::from(length);
    }
    starts.into_iter().for_each(|start| encoder.store_label_pointer(start, HEADER + at));
}

/// A message written for one client, left to whoever brings it there.
#[derive(Clone, Debug)]
pub(super) struct Written {
    /// The question as the client wrote it.
    question: Arc<[u8]>,
    limit: u16,
    message: Arc<OnceLock<Vec<u8>>>,
}

impl Written {
    /// Nothing yet, for this request.
    pub(super) fn reply_to(request: &Request) -> Self {
        let question: &[u8] = if request.queries.len() == 1 { request.queries.as_bytes() } else { &[] };
        Self { question: question.into(), limit: limit(request), message: Arc::default() }
    }

    /// The message, once it is written.
    pub(super) fn take(self) -> Option<Vec<u8>> {
        let Self { message, .. } = self;
        Arc::into_inner(message).and_then(OnceLock::into_inner)
    }
}

#[async_trait]
impl ResponseHandler for Written {
    async fn send_response<'a>(
        &mut self,
        response: MessageResponse<
            '_,
            'a,
            impl Iterator<Item = &'a Rr> + Send + 'a,
            impl Iterator<Item = &'a Rr> + Send + 'a,
            impl Iterator<Item = &'a Rr> + Send + 'a,
            impl Iterator<Item = &'a Rr> + Send + 'a,
        >,
    ) -> Result<ResponseInfo, NetError> {
        let mut bytes = Vec::new();
        // What fits was found out before; for a while, more room is needed.
        let info = encode(response, &self.question, self.limit.saturating_add(LONGEST_NAME), &mut bytes)?;
        debug_assert!(bytes.len() <= usize::from(self.limit), "{} of {} bytes", bytes.len(), self.limit);
        let _ = self.message.set(bytes);
        Ok(info)
    }
}
