//! What is told of the drills: a line for each while they run, a table at the end, and all that was seen around each
//! violation.

use std::fmt::Write as _;
use std::time::Duration;

use crate::bounds;
use crate::field::{Field, KINDS};
use crate::judge::{Offence, Record, Said, Verdict, Violation};
use crate::soak::Growth;
use crate::trouble::What;
use crate::truth::{Moment, Span};

/// One drill's row.
#[derive(Clone, Debug)]
pub struct Row {
    pub name: String,
    pub took: Duration,
    pub verdict: Verdict,
    /// Why not every host found everything in the end, if so.
    pub unsettled: Option<String>,
    /// What became of the agents' sizes, by host, in a soak.
    pub sizes: Vec<(String, Growth)>,
}

impl Row {
    /// Whether nothing can be held against it.
    pub fn clean(&self) -> bool {
        self.verdict.violations.is_empty() && self.unsettled.is_none()
    }

    /// This one and the next as one.
    pub fn and(mut self, next: Self) -> Self {
        self.took += next.took;
        self.verdict.asked += next.verdict.asked;
        self.verdict.decided += next.verdict.decided;
        self.verdict.violations.extend(next.verdict.violations);
        self.verdict.to_truth = self.verdict.to_truth.zip(next.verdict.to_truth).map(|(one, other)| one.max(other));
        self.unsettled = self.unsettled.or(next.unsettled);
        self
    }

    /// Its line of the table.
    pub fn line(&self) -> String {
        let count = |offence| self.verdict.count(offence);
        let truth = self.verdict.to_truth.map_or("never".into(), |length| format!("{:.1}", length.as_secs_f64()));
        format!(
            "{:>5} {:>7} {:>8} {:>5} {:>7} {:>6} {:>6} {:>8}  {}",
            self.took.as_secs(),
            self.verdict.asked,
            self.verdict.decided,
            count(Offence::Wrong),
            count(Offence::Missing),
            count(Offence::Failed),
            count(Offence::Blink),
            truth,
            self.name
        )
    }
}

/// The head of the table.
pub const HEAD: &str = "    s   asked  decided wrong missing failed blinks  truth s  drill";

/// The table, its sums, and the bounds that it was judged by.
pub fn summary(rows: &[Row]) -> String {
    let sum = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let mut text = format!("{HEAD}\n");
    for row in rows {
        let _ = writeln!(text, "{}", row.line());
    }
    let mut truths: Vec<Duration> = rows.iter().filter_map(|row| row.verdict.to_truth).collect();
    truths.sort();
    let at = |share: usize| truths.get((truths.len() * share / 100).min(truths.len().saturating_sub(1))).copied();
    let _ = writeln!(
        text,
        "\n{} drills, {} clean; {} questions, {} decided; {} wrong, {} missing, {} failed, {} blinks; \
         time to truth: median {:.1?}, p95 {:.1?}, longest {:.1?}",
        rows.len(),
        rows.iter().filter(|row| row.clean()).count(),
        sum(&|row| row.verdict.asked),
        sum(&|row| row.verdict.decided),
        sum(&|row| row.verdict.count(Offence::Wrong)),
        sum(&|row| row.verdict.count(Offence::Missing)),
        sum(&|row| row.verdict.count(Offence::Failed)),
        sum(&|row| row.verdict.count(Offence::Blink)),
        at(50).unwrap_or_default(),
        at(95).unwrap_or_default(),
        truths.last().copied().unwrap_or_default()
    );
    let _ = writeln!(text, "\nJudged by (each with {:?} of room and what the machine was late by):", bounds::ROOM);
    for bound in bounds::ALL {
        let _ = writeln!(text, "{:>18} {:>8.2?}  {}", bound.name, bound.length, bound.says);
    }
    text
}

/// The sums as rows of the page of all benchmarks, each with its budget.
pub fn benchmark(rows: &[Row]) -> String {
    let sum = |of: &dyn Fn(&Row) -> usize| rows.iter().map(of).sum::<usize>();
    let (asked, decided) = (sum(&|row| row.verdict.asked), sum(&|row| row.verdict.decided));
    let mut text = String::new();
    let mut row = |what: &str, figure: u64, budget: u64, compared: &str| {
        let verdict = if figure <= budget { "kept" } else { "**missed**" };
        let _ = writeln!(text, "| {what} | {figure} | {budget} | {verdict} | {compared} |");
    };
    let clean = rows.iter().filter(|row| row.clean()).count();
    row("drills that were not clean", (rows.len() - clean) as u64, 0, &format!("{} drills", rows.len()));
    let truth = format!("the servers themselves, {asked} questions, {decided} times decided");
    for (what, offence) in [
        ("wrong answers", Offence::Wrong),
        ("missing answers", Offence::Missing),
        ("failed queries", Offence::Failed),
        ("blinks", Offence::Blink),
    ] {
        row(what, sum(&|row| row.verdict.count(offence)) as u64, 0, &truth);
    }
    for (host, Growth { what, before, after, room }) in rows.iter().flat_map(|row| &row.sizes) {
        row(
            &format!("soak, {host}: {what}, last third"),
            *after,
            before + room,
            &format!("{before} in the first third"),
        );
    }
    text
}

/// What was seen of the store since a moment, on a line of its own.
pub fn store(record: &Record, from: Moment) -> String {
    let its = |what| matches!(what, What::Store | What::Leader | What::Stranded(_));
    let seen = record.troubles.list.iter().filter(|trouble| its(trouble.what) && trouble.span.to >= from);
    let seen: Vec<String> = seen
        .map(|trouble| format!("{:?} {:.1?} to {:.1?}", trouble.what, trouble.span.from, trouble.span.to))
        .collect();
    if seen.is_empty() { String::new() } else { format!("\n        store: {}", seen.join(", ")) }
}

/// Everything around one violation: what was asked and answered, what served, what was broken.
pub fn around(record: &Record, violation: &Violation) -> String {
    let near = Span {
        from: violation.span.from.saturating_sub(Duration::from_secs(10)),
        to: violation.span.to + Duration::from_secs(3),
    };
    let service = KINDS[violation.service].service();
    let label = violation.endpoint.map_or(service, |number| &record.endpoints[number].label);
    let length = violation.span.to.saturating_sub(violation.span.from);
    let (offence, viewer) = (violation.offence, violation.viewer + 1);
    let mut told = format!("{offence:?} for {length:.3?}: h{viewer} of {label}: {}\n", violation.why);
    let mut lines: Vec<(Moment, String)> = vec![];
    let mut last = String::new();
    let its = |answer: &&crate::judge::Answer| answer.viewer == violation.viewer && answer.service == violation.service;
    for answer in record.answers.iter().filter(its).filter(|answer| answer.span.meets(near)) {
        let said = match &answer.said {
            Said::Failed(why) => format!("failed: {why}"),
            Said::Found(found) => {
                format!("{:?}", found.iter().map(|n| record.endpoints[*n].label.as_str()).collect::<Vec<_>>())
            }
        };
        if said != last {
            lines.push((answer.span.from, format!("answer until {:.3?}: {said}", answer.span.to)));
            last = said;
        }
    }
    for endpoint in violation.endpoint.iter().map(|number| &record.endpoints[*number]) {
        let looks = endpoint.life.looks.iter().filter(|look| look.span.meets(near));
        let mut last = None;
        for look in looks {
            if last.replace(look.seen) != Some(look.seen) {
                lines.push((look.span.from, format!("server until {:.3?}: {:?}", look.span.to, look.seen)));
            }
        }
        for act in endpoint.life.acts.iter().filter(|act| act.span.meets(near)) {
            lines.push((act.span.from, format!("done to it until {:.3?}: {:?}", act.span.to, act.deed)));
        }
    }
    for trouble in record.troubles.list.iter().filter(|trouble| trouble.span.meets(near)) {
        lines.push((trouble.span.from, format!("broken until {:.3?}: {:?}", trouble.span.to, trouble.what)));
    }
    for pace in record.troubles.pace.iter().filter(|pace| pace.span.meets(near) && pace.late.as_millis() > 50) {
        lines.push((pace.span.from, format!("machine late by {:?}", pace.late)));
    }
    lines.sort();
    for (at, line) in lines {
        let _ = writeln!(told, "  {at:.3?} {line}");
    }
    told
}

/// What the hosts' agents logged last.
pub fn logs(field: &Field<'_>) -> String {
    field.agents.iter().enumerate().fold(String::new(), |mut told, (n, agent)| {
        let log = crate::lab::host::lock(agent).log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = &lines[lines.len().saturating_sub(200)..];
        let _ = writeln!(told, "--- h{}\n{}", n + 1, tail.join("\n"));
        told
    })
}
