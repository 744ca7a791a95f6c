//! Compares one reply with what a question of the cases expects.

use hickory_server::proto::op::ResponseCode;
use hickory_server::proto::rr::{Name, RData, Record, RecordType};
use serde_json::Value;

use super::Query;

/// A reply, however it was got.
#[derive(Debug)]
pub struct Reply {
    pub rcode: ResponseCode,
    pub authoritative: bool,
    /// `None` when the reply never was a message.
    pub truncated: Option<bool>,
    pub answers: Vec<Record>,
    pub authority: Vec<Record>,
    /// Without OPT.
    pub additional: Vec<Record>,
    /// Whether OPT was there; `None` when the reply never was a message.
    pub edns: Option<bool>,
    /// Its size; `None` when the reply never was a message.
    pub size: Option<usize>,
}

/// One record that is expected, or stands in a fixture.
#[derive(Clone, Debug)]
pub struct Expected {
    pub name: String,
    pub rtype: String,
    pub data: String,
    /// `None`: any will do.
    pub ttl: Option<u32>,
    pub nocase: bool,
}

impl Expected {
    pub fn read(value: &Value) -> Self {
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        Self {
            name: text("name"),
            rtype: text("type"),
            data: text("data"),
            ttl: value["ttl"].as_u64().map(|ttl| u32::try_from(ttl).unwrap()),
            nocase: value["name_nocase"] == true,
        }
    }
}

/// What is wrong with a reply; empty when one of the accepted outcomes is met. `own_ttl` is the server's default.
pub fn judge(query: &Query, reply: &Reply, own_ttl: u32) -> Vec<String> {
    let outcomes = query.accepted();
    let verdicts = outcomes.iter().map(|wanted| judge_one(query, wanted, reply, own_ttl));
    let mut complaints: Vec<Vec<String>> = verdicts.collect();
    if complaints.iter().any(Vec::is_empty) {
        return Vec::new();
    }
    complaints.swap_remove(0)
}

fn judge_one(query: &Query, wanted: &Value, reply: &Reply, own_ttl: u32) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut check = |holds: bool, complaint: String| {
        if !holds {
            complaints.push(complaint);
        }
    };
    let rcode = rcode_text(reply.rcode);
    let rcodes: Vec<&str> = match wanted["rcode_in"].as_array() {
        Some(any) => any.iter().map(|one| one.as_str().unwrap()).collect(),
        None => wanted["rcode"].as_str().into_iter().collect(),
    };
    check(rcodes.is_empty() || rcodes.contains(&rcode.as_str()), format!("rcode {rcode}, not {rcodes:?}"));
    if let Some(aa) = wanted["aa"].as_bool() {
        check(reply.authoritative == aa, format!("aa {}", reply.authoritative));
    }
    if let (Some(expected), Some(tc)) = (wanted["expect_tc"].as_bool(), reply.truncated) {
        check(tc == expected, format!("tc {tc}"));
    }
    if let (Some(full), Some(tc)) = (wanted["tc_below"].as_u64(), reply.truncated) {
        check(tc == ((reply.answers.len() as u64) < full), format!("tc {tc} with {} answers", reply.answers.len()));
    }
    if let (Some(most), Some(size)) = (wanted["max_wire"].as_u64(), reply.size) {
        check(size as u64 <= most, format!("{size} bytes"));
    }
    let count = reply.answers.len() as u64;
    check(count >= wanted["min_answers"].as_u64().unwrap_or(0), format!("only {count} answers"));
    check(count <= wanted["max_answers"].as_u64().unwrap_or(u64::MAX), format!("{count} answers"));
    if let Some(most) = wanted["ttl_max"].as_u64() {
        check(reply.answers.iter().all(|record| u64::from(record.ttl) <= most), "a TTL above ttl_max".to_owned());
    }
    if let Some(least) = wanted["all_srv_weight_min"].as_u64() {
        let heavy = |record: &Record| !matches!(&record.data, RData::SRV(srv) if u64::from(srv.weight) < least);
        check(reply.answers.iter().all(heavy), "a weight too small".to_owned());
    }
    check(wanted["ordered"] != true || aliases_come_first(&reply.answers), "a CNAME after its target".to_owned());
    let sections =
        [("answer", &reply.answers, true), ("ns", &reply.authority, false), ("extra", &reply.additional, false)];
    for (section, records, ttls) in sections {
        let compare_ttls = ttls && wanted["no_ttl"] != true;
        complaints.extend(judge_section(query, wanted, section, records, compare_ttls.then_some(own_ttl)));
    }
    complaints.extend(judge_always(query, wanted, reply));
    complaints
}

/// What holds for every reply.
fn judge_always(query: &Query, wanted: &Value, reply: &Reply) -> Vec<String> {
    let mut complaints = Vec::new();
    let negative = wanted["ns"].as_array().is_some_and(|ns| ns.iter().any(|record| record["type"] == "SOA"));
    if negative && !reply.authoritative {
        complaints.push("a negative answer without aa".to_owned());
    }
    if reply.edns.is_some_and(|edns| edns != query.edns()) {
        complaints.push(format!("OPT in the reply: {:?}", reply.edns));
    }
    if query.transport() != Some("tcp") && reply.size.is_some_and(|size| size > 65_535) {
        complaints.push("a message too large".to_owned());
    }
    let asked = query.qname();
    for record in &reply.answers {
        let name = name_text(&record.name);
        if name.eq_ignore_ascii_case(asked) && name != asked {
            complaints.push(format!("{name} for {asked}"));
        }
    }
    complaints
}

fn judge_section(
    query: &Query,
    wanted: &Value,
    section: &str,
    records: &[Record],
    own_ttl: Option<u32>,
) -> Vec<String> {
    let Some(list) = wanted[section].as_array() else { return Vec::new() };
    let mut missing: Vec<Expected> = list.iter().map(Expected::read).filter(|record| record.rtype != "OPT").collect();
    replace_alternatives(wanted, section, &mut missing, records);
    let mut surplus = Vec::new();
    for record in records {
        let met = missing.iter().position(|expected| meets(query, wanted, expected, record, own_ttl));
        match met {
            Some(place) => drop(missing.swap_remove(place)),
            None => surplus.push(record_text(record)),
        }
    }
    let may_lack = section == "extra" && wanted["extra_subset"] == true;
    let mut complaints: Vec<String> = surplus.iter().map(|record| format!("{section}: unexpected {record}")).collect();
    if !may_lack {
        complaints.extend(missing.iter().map(|record| format!("{section}: missing {record:?}")));
    }
    complaints
}

/// Where one record may have another value, takes the one that is there.
fn replace_alternatives(wanted: &Value, section: &str, expected: &mut [Expected], records: &[Record]) {
    for alternative in wanted["alternatives"].as_array().into_iter().flatten() {
        if alternative["section"] != section {
            continue;
        }
        for (which, values) in alternative["replace"].as_object().into_iter().flatten() {
            let (name, rtype) = which.split_once(' ').unwrap();
            let there = |value: &&Value| {
                records.iter().any(|record| name_text(&record.name) == name && data_text(&record.data) == **value)
            };
            if let Some(value) = values.as_array().unwrap().iter().find(there) {
                let concerned = expected.iter_mut().filter(|own| own.name == name && own.rtype == rtype);
                concerned.for_each(|own| own.data = value.as_str().unwrap().to_owned());
            }
        }
    }
}

fn meets(query: &Query, wanted: &Value, expected: &Expected, record: &Record, own_ttl: Option<u32>) -> bool {
    let name = name_text(&record.name);
    let same_name = if expected.nocase { name.eq_ignore_ascii_case(&expected.name) } else { name == expected.name };
    let data = data_text(&record.data);
    let same_data = if expected.rtype == "SOA" {
        data.split(' ').next() == expected.data.split(' ').next()
    } else {
        data == expected.data
    };
    let tolerance = u32::try_from(wanted["ttl_tolerance"].as_u64().unwrap_or(0)).unwrap();
    let same_ttl = match (own_ttl, expected.ttl) {
        (Some(own), Some(ttl)) => {
            let ttl = if ttl == query.default_ttl() { own } else { ttl };
            record.ttl.abs_diff(ttl) <= tolerance
        }
        _ => true,
    };
    same_name && same_data && same_ttl && record.record_type().to_string() == expected.rtype
}

fn aliases_come_first(records: &[Record]) -> bool {
    records.iter().enumerate().all(|(place, record)| match &record.data {
        RData::CNAME(target) => records[..place].iter().all(|earlier| earlier.name != target.0),
        _ => true,
    })
}

fn rcode_text(rcode: ResponseCode) -> String {
    match rcode {
        ResponseCode::NoError => "NOERROR",
        ResponseCode::NXDomain => "NXDOMAIN",
        ResponseCode::ServFail => "SERVFAIL",
        ResponseCode::Refused => "REFUSED",
        ResponseCode::NotImp => "NOTIMP",
        ResponseCode::FormErr => "FORMERR",
        _ => return format!("{rcode:?}"),
    }
    .to_owned()
}

/// A name as the cases write it.
pub fn name_text(name: &Name) -> String {
    let labels: Vec<String> = name.iter().map(|label| String::from_utf8_lossy(label).into_owned()).collect();
    format!("{}.", labels.join("."))
}

/// A record's data as the cases write it.
pub fn data_text(data: &RData) -> String {
    match data {
        RData::SRV(srv) => format!("{} {} {} {}", srv.priority, srv.weight, srv.port, name_text(&srv.target)),
        RData::MX(mx) => format!("{} {}", mx.preference, name_text(&mx.exchange)),
        RData::CNAME(name) => name_text(&name.0),
        RData::NS(name) => name_text(&name.0),
        RData::PTR(name) => name_text(&name.0),
        RData::SOA(soa) => format!("{} {}", name_text(&soa.mname), name_text(&soa.rname)),
        RData::TXT(txt) => {
            let strings = txt.txt_data.iter().map(|text| format!("\"{}\"", String::from_utf8_lossy(text)));
            strings.collect::<Vec<_>>().join(" ")
        }
        other => other.to_string(),
    }
}

/// A record as a line.
pub fn record_text(record: &Record) -> String {
    let rtype: RecordType = record.record_type();
    format!("{} {} {rtype} {}", name_text(&record.name), record.ttl, data_text(&record.data))
}
