//! Writes records into a message of bounded size.
//!
//! hickory's own writer compresses only the first few hundred names; an answer of 2,000 addresses would then not fit
//! the 64 KiB of a stream. This one compresses every name that may be (targets of SRV may not, RFC 2782), and leaves
//! data of rare types to hickory.

use std::collections::HashMap;

use hickory_server::proto::rr::{Name, RData, Record as Rr};
use hickory_server::proto::serialize::binary::{BinEncodable, BinEncoder, NameEncoding};

use crate::model::dns::Question;

/// Where pointers can reach.
const REACH: usize = 0x4000;
const POINTER: u16 = 0xc000;
const LONGEST_NAME: usize = 255;

/// A message under way.
#[derive(Debug)]
pub(super) struct Writer<'v> {
    out: &'v mut Vec<u8>,
    limit: usize,
    /// Where each end of a name written so far stands.
    ends: HashMap<Box<[u8]>, u16>,
}

/// Something did not fit, or cannot be written.
#[derive(Debug)]
pub(super) struct Full;

impl<'v> Writer<'v> {
    /// Begins with `header` zero bytes; never more than `limit` in all.
    pub(super) fn new(out: &'v mut Vec<u8>, header: usize, limit: usize) -> Self {
        out.clear();
        out.resize(header, 0);
        Self { out, limit, ends: HashMap::new() }
    }

    /// Takes another bound from here on.
    pub(super) fn set_limit(&mut self, limit: usize) {
        self.limit = limit;
    }

    /// The question, in the client's spelling.
    pub(super) fn question(&mut self, question: &Question) -> Result<(), Full> {
        self.name(&question.name, true)?;
        self.u16(question.qtype.into());
        self.u16(question.qclass.into());
        self.fits()
    }

    /// As many records as fit; how many, and whether that was all.
    pub(super) fn records(&mut self, records: &[Rr]) -> (u16, bool) {
        let mut written = 0;
        for record in records {
            let before = self.out.len();
            if self.record(record).is_err() {
                self.out.truncate(before);
                self.ends.retain(|_, at| usize::from(*at) < before);
                return (written, false);
            }
            written += 1;
        }
        (written, true)
    }

    fn record(&mut self, record: &Rr) -> Result<(), Full> {
        self.name(&record.name, true)?;
        self.u16(record.record_type().into());
        self.u16(record.dns_class.into());
        self.u32(record.ttl);
        let length_at = self.out.len();
        self.u16(0);
        self.data(&record.data)?;
        let length = u16::try_from(self.out.len() - length_at - 2).map_err(|_| Full)?;
        self.out[length_at..length_at + 2].copy_from_slice(&length.to_be_bytes());
        self.fits()
    }

    fn data(&mut self, data: &RData) -> Result<(), Full> {
        match data {
            RData::A(address) => self.out.extend_from_slice(&address.0.octets()),
            RData::AAAA(address) => self.out.extend_from_slice(&address.0.octets()),
            RData::SRV(srv) => {
                self.u16(srv.priority);
                self.u16(srv.weight);
                self.u16(srv.port);
                self.name(&srv.target, false)?;
            }
            RData::CNAME(target) => self.name(&target.0, true)?,
            RData::NS(target) => self.name(&target.0, true)?,
            RData::PTR(target) => self.name(&target.0, true)?,
            RData::MX(mx) => {
                self.u16(mx.preference);
                self.name(&mx.exchange, true)?;
            }
            other => {
                let mut encoder = BinEncoder::new(self.out);
                encoder.set_name_encoding(NameEncoding::Uncompressed);
                let at = encoder.len();
                encoder.set_offset(at);
                other.emit(&mut encoder).map_err(|_| Full)?;
            }
        }
        Ok(())
    }

    /// Writes a name, with a pointer to its end where that stands already.
    fn name(&mut self, name: &Name, compress: bool) -> Result<(), Full> {
        let mut text = [0; LONGEST_NAME + 1];
        let mut length = 0;
        let mut labels = [0_usize; 128];
        let mut count = 0;
        for label in name.iter() {
            let end = length + 1 + label.len();
            if end >= LONGEST_NAME || count >= labels.len() {
                return Err(Full);
            }
            labels[count] = length;
            text[length] = u8::try_from(label.len()).map_err(|_| Full)?;
            text[length + 1..end].copy_from_slice(label);
            (length, count) = (end, count + 1);
        }
        let begins = self.out.len();
        let known = labels[..count].iter().enumerate();
        let known = known.map(|(place, at)| (place, self.ends.get(&text[*at..length]).copied()));
        let known = known.into_iter().find_map(|(place, at)| Some((place, at?)));
        let fresh = known.map_or(count, |(place, _)| place);
        for at in &labels[..fresh] {
            match u16::try_from(begins + at) {
                Ok(stands) if begins + at < REACH => drop(self.ends.insert(text[*at..length].into(), stands)),
                _ => break,
            }
        }
        match known {
            Some((place, at)) if compress => {
                self.out.extend_from_slice(&text[..labels[place]]);
                self.u16(POINTER | at);
            }
            _ => {
                self.out.extend_from_slice(&text[..length]);
                self.out.push(0);
            }
        }
        self.fits()
    }

    fn u16(&mut self, number: u16) {
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    fn u32(&mut self, number: u32) {
        self.out.extend_from_slice(&number.to_be_bytes());
    }

    fn fits(&self) -> Result<(), Full> {
        if self.out.len() > self.limit { Err(Full) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use hickory_server::proto::op::Message;
    use hickory_server::proto::rr::rdata::{A, MX, SOA, SRV, TXT};
    use hickory_server::proto::rr::{DNSClass, RecordType};

    use super::*;

    fn name(text: &str) -> Name {
        Name::from_ascii(text).expect("a name")
    }

    fn question(text: &str) -> Question {
        Question { name: name(text), qtype: RecordType::SRV, qclass: DNSClass::IN }
    }

    fn written(records: &[Rr], limit: usize) -> (Vec<u8>, u16) {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out, 12, limit);
        writer.question(&question("Web.Example.")).expect("room");
        let (count, _) = writer.records(records);
        out[4..8].copy_from_slice(&[0, 1, 0, 0]);
        out[6..8].copy_from_slice(&count.to_be_bytes());
        (out, count)
    }

    #[test]
    fn hickory_reads_what_is_written() {
        let soa = SOA::new(name("ns.example."), name("host.example."), 1, 2, 3, 4, 5);
        let records = [
            RData::SRV(SRV::new(10, 20, 80, name("a.Web.Example."))),
            RData::A(A::new(192, 0, 2, 1)),
            RData::MX(MX::new(5, name("a.web.example."))),
            RData::SOA(soa),
            RData::TXT(TXT::new(vec!["one".to_owned(), "two".to_owned()])),
            RData::CNAME(hickory_server::proto::rr::rdata::CNAME(name("other."))),
        ]
        .map(|data| Rr::from_rdata(name("Web.Example."), 30, data));
        let (out, _) = written(&records, 512);
        let read = Message::from_vec(&out).expect("well formed");
        assert_eq!(read.answers, records);
        assert_eq!(out.windows(7).filter(|window| *window == b"Example").count(), 2, "the SRV's target stands whole");
    }

    #[test]
    fn what_does_not_fit_leaves_no_trace() {
        let glue =
            |number: u8| Rr::from_rdata(name(&format!("h{number}.example.")), 5, RData::A(A::new(10, 0, 0, number)));
        let records: Vec<Rr> = (0..100).map(glue).collect();
        let (out, count) = written(&records, 512);
        assert!(out.len() <= 512 && count > 20, "{count} records in {} bytes", out.len());
        let read = Message::from_vec(&out).expect("well formed");
        assert_eq!(read.answers, records[..usize::from(count)]);
    }

    #[test]
    fn every_address_of_a_large_set_fits_a_stream() {
        let records: Vec<Rr> =
            (0..2_000).map(|number: u32| Rr::from_rdata(name("Web.Example."), 5, RData::A(A(number.into())))).collect();
        let (out, count) = written(&records, 65_535);
        assert_eq!((count, out.len()), (2_000, 12 + 17 + 2_000 * 16));
    }
}
