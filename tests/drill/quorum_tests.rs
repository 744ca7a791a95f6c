//! What etcd's members and the kernel said, and which troubles that makes. Three hosts; times in milliseconds.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::time::Duration;

use crate::query::connected;
use crate::quorum::{Last, Told, moorings, silences, store_troubles, stranded};
use crate::trouble::{Trouble, What};
use crate::truth::Span;

const END: u64 = 30_000;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

const fn span(from: u64, to: u64) -> Span {
    Span { from: ms(from), to: ms(to) }
}

/// A member asked every 150 ms; what it says at a moment.
fn told(term: fn(u64) -> Option<u64>) -> Vec<Told> {
    (0..END / 150).map(|n| n * 150).map(|at| Told { span: span(at, at + 5), term: term(at) }).collect()
}

/// The kinds of trouble found, each with the second that it begins in and the one that it ends in.
fn kinds(troubles: &[Trouble]) -> Vec<(What, u64, u64)> {
    troubles.iter().map(|trouble| (trouble.what, trouble.span.from.as_secs(), trouble.span.to.as_secs())).collect()
}

#[test]
fn another_term_is_a_change_of_leader_and_the_same_one_is_none() {
    let check = |members: [fn(u64) -> Option<u64>; 3], expected: &[(What, u64, u64)]| {
        let all = members.into_iter().flat_map(told).collect();
        assert_eq!(kinds(&store_troubles(&mut None, all, ms(END))), expected);
    };
    check([|_| Some(2); 3], &[]);
    // A follower was cut off: it answers nobody, and the others go on under their leader.
    check([|_| Some(2), |_| Some(2), |at| (at < 8000).then_some(2)], &[]);
    // The leader was: nobody answers until the others have elected another one.
    let others: fn(u64) -> Option<u64> = |at| match at {
        ..8000 => Some(2),
        8000..9500 => None,
        _ => Some(3),
    };
    check([others, others, |at| (at < 8000).then_some(2)], &[(What::Store, 7, 9), (What::Leader, 7, 9)]);
    // It handed over so fast that nobody was kept waiting.
    check([|at| Some(if at < 8000 { 2 } else { 3 }); 3], &[(What::Leader, 7, 8)]);
    // What comes after the last answer is not known.
    check([|at| (at < 20_000).then_some(2); 3], &[(What::Store, 19, 30), (What::Leader, 19, 30)]);
    check([|_| None; 3], &[(What::Store, 0, 30), (What::Leader, 0, 30)]);
}

#[test]
fn a_leader_that_changed_while_nobody_asked_is_noticed() {
    let mut last = Some(Last { at: ms(0), term: 2 });
    let later = |term: fn(u64) -> Option<u64>| told(term).into_iter().filter(|told| told.span.from >= ms(10_000));
    let found = store_troubles(&mut last, later(|_| Some(3)).collect(), ms(END));
    assert_eq!(kinds(&found), [(What::Leader, 0, 10)], "and silence before anybody asked is no trouble");
    assert_eq!(last.map(|last| last.term), Some(3));
    let mut last = Some(Last { at: ms(0), term: 2 });
    assert_eq!(kinds(&store_troubles(&mut last, later(|_| Some(2)).collect(), ms(END))), []);
}

/// Host 1's agent, connected to one member until a moment and to another one after that.
fn moored(first: usize, until: u64, then: usize) -> Vec<(Span, BTreeSet<usize>)> {
    let looks = (0..END / 150).map(|n| n * 150);
    looks.map(|at| (span(at, at + 1), [if at < until { first } else { then }].into())).collect()
}

#[test]
fn an_agent_is_stranded_while_it_is_connected_to_a_member_behind_a_cut_cable() {
    let check = |what: What, looks: Vec<(Span, BTreeSet<usize>)>, expected: &[(What, u64, u64)]| {
        let links = [Trouble { what, span: span(8000, 24_000), sure: ms(8050) }];
        assert_eq!(kinds(&stranded(1, &moorings(looks, ms(END)), &[], &links)), expected);
    };
    check(What::Cut(2), moored(2, 9000, 0), &[(What::Stranded(1), 8, 9)]);
    check(What::Cut(2), moored(0, 9000, 0), &[]);
    // It has to leave it, and whoever comes there late has no excuse.
    check(What::Cut(2), moored(2, END, 2), &[(What::Stranded(1), 8, 15)]);
    check(What::Cut(2), moored(0, 20_000, 2), &[]);
    // A slow link need not be left; its own is told of as such.
    check(What::Links(2), moored(2, END, 2), &[(What::Stranded(1), 8, 24)]);
    check(What::Links(1), moored(1, END, 1), &[]);
    check(What::Agent(2), moored(2, END, 2), &[]);
}

#[test]
fn an_agent_is_stranded_while_its_member_is_silent() {
    let check = |looks: Vec<(Span, BTreeSet<usize>)>, expected: &[(What, u64, u64)]| {
        let silent = silences(2, &told(|at| (!(8000..24_000).contains(&at)).then_some(2)), ms(END));
        assert_eq!(kinds(&stranded(1, &moorings(looks, ms(END)), &silent, &[])), expected);
    };
    check(moored(2, 9000, 0), &[(What::Stranded(1), 7, 9)]);
    check(moored(0, 9000, 0), &[]);
    check(moored(2, END, 2), &[(What::Stranded(1), 7, 14)]);
    assert!(silences(2, &told(|_| Some(2)), ms(END)).is_empty());
    assert!(silences(2, &[], ms(END)).is_empty());
}

#[test]
fn the_kernel_tells_whom_a_process_is_connected_to() {
    let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = server.local_addr().unwrap().port();
    let own = || connected(std::process::id(), port);
    assert_eq!(own(), BTreeSet::new(), "a server is not connected");
    let client = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap();
    assert_eq!(own(), BTreeSet::from([Ipv4Addr::LOCALHOST]));
    assert_eq!(connected(1, port), BTreeSet::new(), "another process of the same network is not");
    drop(client);
    assert_eq!(own(), BTreeSet::new());
}
