//! DNS as the tests see it: `dig`, read back. Somebody else's resolver, so that a mistake is not made twice.

use std::net::Ipv4Addr;

use super::host::Host;
use super::process::try_run;

/// What `dig` got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// `NOERROR`, `NXDOMAIN`, …; `TIMEOUT` when nothing came.
    pub status: String,
    /// The answer section.
    pub answers: Vec<Row>,
    /// The additional section, without OPT.
    pub additional: Vec<Row>,
}

/// One resource record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Row {
    /// Owner name.
    pub name: String,
    /// Seconds.
    pub ttl: u32,
    /// `SRV`, `A`, …
    pub kind: String,
    /// As zone files have it.
    pub data: String,
}

impl Answer {
    /// The `address:port` of every SRV answer, by its glue, sorted; what a client would connect to.
    pub fn targets(&self) -> Vec<String> {
        let mut targets: Vec<String> = self.answers.iter().filter_map(|row| self.target(row)).collect();
        targets.sort();
        targets
    }

    fn target(&self, row: &Row) -> Option<String> {
        let words: Vec<&str> = row.data.split_whitespace().collect();
        let [_, _, port, target] = words[..] else { return None };
        let glue = self.additional.iter().find(|other| other.kind == "A" && other.name.eq_ignore_ascii_case(target))?;
        Some(format!("{}:{port}", glue.data))
    }

    /// The data of every answer, sorted.
    pub fn data(&self) -> Vec<String> {
        let mut data: Vec<String> = self.answers.iter().map(|row| row.data.clone()).collect();
        data.sort();
        data
    }

    /// The targets are just these (`address:port`), in any order.
    pub fn is(&self, expected: &[String]) -> Result<(), String> {
        let mut expected = expected.to_vec();
        expected.sort();
        if self.status == "NOERROR" && self.targets() == expected {
            return Ok(());
        }
        Err(format!("{} {:?} {:?}", self.status, self.targets(), self.answers))
    }

    /// No such name, or nothing under it.
    pub fn is_nothing(&self) -> Result<(), String> {
        let known = self.status == "NXDOMAIN" || self.status == "NOERROR";
        if known && self.answers.is_empty() { Ok(()) } else { Err(format!("{} {:?}", self.status, self.answers)) }
    }
}

pub(crate) fn dig(from: &Host, server: Ipv4Addr, question: &[&str]) -> Answer {
    let argv = argv(server, question);
    answered(from.try_exec(&argv.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// The agent on `server`, asked from this machine.
pub(crate) fn dig_from_here(server: Ipv4Addr, question: &[&str]) -> Answer {
    let mut argv = argv(server, question);
    argv.extend(["-p", "5300"].map(str::to_owned));
    answered(try_run(&argv.iter().map(String::as_str).collect::<Vec<_>>()))
}

/// What serves on port 53 of `server`, asked from this machine.
pub fn dig_on_53(server: Ipv4Addr, question: &[&str]) -> Answer {
    let argv = argv(server, question);
    answered(try_run(&argv.iter().map(String::as_str).collect::<Vec<_>>()))
}

fn argv(server: Ipv4Addr, question: &[&str]) -> Vec<String> {
    let server = format!("@{server}");
    let argv = ["dig", "+tries=1", "+time=2", "+noall", "+comments", "+answer", "+additional", &server];
    argv.iter().chain(question).map(|word| (*word).to_owned()).collect()
}

fn answered<E>(told: Result<String, E>) -> Answer {
    let nothing = Answer { status: "TIMEOUT".into(), answers: vec![], additional: vec![] };
    told.map_or(nothing, |text| read(&text))
}

fn read(text: &str) -> Answer {
    let mut answer = Answer { status: "TIMEOUT".into(), answers: vec![], additional: vec![] };
    let mut additional = false;
    for line in text.lines() {
        if let Some((_, rest)) = line.split_once("status: ") {
            answer.status = rest.split(',').next().unwrap_or_default().to_owned();
        } else if line.starts_with(";; ") {
            additional = line.contains("ADDITIONAL SECTION");
        } else if let Some(row) = read_row(line) {
            if additional { answer.additional.push(row) } else { answer.answers.push(row) }
        }
    }
    answer
}

fn read_row(line: &str) -> Option<Row> {
    if line.starts_with(';') {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    let [name, ttl, _class, kind, ..] = words[..] else { return None };
    Some(Row { name: name.into(), ttl: ttl.parse().ok()?, kind: kind.into(), data: words[4..].join(" ") })
}
