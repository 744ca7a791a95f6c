use super::*;

const T: &str = "2026-01-01T00:00:10Z";
const BEFORE: &str = "2026-01-01T00:00:01Z";

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn me() -> Me {
    Me { node: "a".into(), machine: Some("m1".into()) }
}

/// `number node machine since flags`, where flags are of `t` and `r`, or `-`; the revision is ten times the number.
fn seen(lines: &[&str], agents: &[(&str, &str, Option<u32>)]) -> Seen {
    let stored = |line: &&str| {
        let [number, node, machine, since, flags] = line.split(' ').collect::<Vec<_>>()[..] else { panic!("{line}") };
        let number: u32 = number.parse().expect("a number");
        let entry = Entry {
            node: node.into(),
            machine: Some(machine.into()),
            since: since.into(),
            tentative: flags.contains('t'),
            released: flags.contains('r'),
        };
        let entry = (node != "?").then_some(entry);
        (number, Stored { revision: i64::from(number) * 10, entry })
    };
    let agent = |(node, machine, number): &(&str, &str, Option<u32>)| Agent {
        node: (*node).into(),
        machine: Some((*machine).into()),
        number: *number,
    };
    Seen { numbers: lines.iter().map(stored).collect(), agents: agents.iter().map(agent).collect() }
}

fn kept(number: u32) -> Option<Holding> {
    Some(Holding { number, node: "a".into(), machine: Some("m1".into()), since: BEFORE.into(), lost_to: None })
}

fn looked(kept: Option<Holding>, seen: &Seen) -> Act {
    Claimer::new(me(), kept).look(at(100), T, seen)
}

/// The number that is written, over which revision, and whether tentatively.
fn written(act: &Act) -> Option<(u32, Option<i64>, bool)> {
    match act {
        Act::Write(write) => Some((write.number, write.over, write.entry.tentative)),
        _ => None,
    }
}

#[test]
fn the_lowest_free_number_is_claimed_and_counts_after_five_seconds() {
    let mut claimer = Claimer::new(me(), None);
    let act = claimer.look(at(1), T, &seen(&["1 b m2 x -", "3 c m3 x -"], &[]));
    let Act::Write(write) = act else { panic!("{act:?}") };
    assert_eq!((write.number, write.over, write.entry.tentative), (2, None, true));
    claimer.wrote(at(1), &write, 20);
    let claimed = seen(&["1 b m2 x -", "2 a m1 x t", "3 c m3 x -"], &[]);
    assert_eq!(claimer.look(at(5), T, &claimed), Act::At(at(6)));
    let act = claimer.look(at(6), T, &claimed);
    assert_eq!(written(&act), Some((2, Some(20), false)));
    let Act::Write(write) = act else { panic!("{act:?}") };
    claimer.wrote(at(6), &write, 21);
    assert_eq!(claimer.holding().map(|holding| holding.number), Some(2));
}

#[test]
fn whoever_holds_comes_before_whoever_claims() {
    // The claim was written over: another number is claimed.
    let mut claimer = Claimer::new(me(), None);
    let Act::Write(write) = claimer.look(at(1), T, &seen(&[], &[])) else { panic!("a write") };
    claimer.wrote(at(1), &write, 10);
    let act = claimer.look(at(6), T, &seen(&["1 b m2 x -"], &[]));
    assert_eq!(written(&act), Some((2, None, true)));
    // The holder writes over a claim, over nothing, and over what nobody can read.
    assert_eq!(written(&looked(kept(1), &seen(&["1 b m2 x t"], &[]))), Some((1, Some(10), false)));
    assert_eq!(written(&looked(kept(1), &seen(&[], &[]))), Some((1, None, false)));
    assert_eq!(written(&looked(kept(1), &seen(&["1 ? - - -"], &[]))), Some((1, Some(10), false)));
    // Never over what counts.
    assert_eq!(looked(kept(1), &seen(&["1 b m2 x -"], &[])), Act::Lost { number: 1, to: "b".into() });
}

#[test]
fn right_after_the_store_went_back_a_number_of_anothers_may_be_of_before() {
    let mut claimer = Claimer::new(me(), kept(1));
    claimer.went_back(at(10));
    let later = seen(&["1 b m2 x -"], &[]);
    assert_eq!(claimer.look(at(11), T, &later), Act::At(at(12)));
    let of_before = seen(&["1 b m2 2025-01-01T00:00:00Z -"], &[]);
    assert_eq!(written(&claimer.look(at(11), T, &of_before)), Some((1, Some(10), false)));
    assert_eq!(claimer.look(at(12), T, &of_before), Act::Lost { number: 1, to: "b".into() }, "it saw it all along");
}

#[test]
fn the_same_name_has_the_same_number() {
    // State is lost; nothing else.
    assert!(matches!(looked(None, &seen(&["2 a m1 x -"], &[])), Act::Have(Holding { number: 2, .. })));
    // Installed anew: another machine, and nobody of that name lives.
    assert_eq!(written(&looked(None, &seen(&["2 a m9 x -"], &[("b", "m2", None)]))), Some((2, Some(20), true)));
    // Two hosts of one name.
    let refused = Act::Refused { machine: "m9".into() };
    assert_eq!(looked(None, &seen(&["2 a m9 x -"], &[("a", "m9", Some(2))])), refused);
    assert_eq!(looked(None, &seen(&[], &[("a", "m9", None)])), refused);
    // The one who has it keeps it, whoever else bears its name.
    assert!(matches!(looked(kept(2), &seen(&["2 a m1 x -"], &[("a", "m9", None)])), Act::Have(_)));
    // What was remembered of another machine or name is not of this host.
    let clone = Holding { machine: Some("m9".into()), ..kept(2).expect("some") };
    assert_eq!(written(&looked(Some(clone), &seen(&["2 b m2 x -"], &[]))), Some((1, None, true)));
    let renamed = Holding { node: "old".into(), ..kept(2).expect("some") };
    assert_eq!(written(&looked(Some(renamed), &seen(&["2 old m1 x -"], &[]))), Some((1, None, true)));
}

#[test]
fn the_later_of_two_numbers_is_right() {
    // The store went back to a time when the host had another number.
    let act = looked(kept(3), &seen(&["5 a m1 2025-01-01T00:00:00Z -"], &[]));
    assert_eq!(written(&act), Some((3, None, false)));
    assert!(matches!(act, Act::Write(Write { instead_of: Some((5, 50)), .. })));
    // The other one is a host of the same name, not this one of before.
    assert!(matches!(looked(kept(3), &seen(&["3 a m1 x -", "5 a m9 2025-01-01T00:00:00Z -"], &[])), Act::Have(_)));
    // The copy is of before the host was given another number.
    assert!(matches!(looked(kept(3), &seen(&[&format!("5 a m1 {T} -")], &[])), Act::Have(Holding { number: 5, .. })));
    // A claim that does not count yet goes on from there.
    assert_eq!(looked(kept(3), &seen(&["3 b m2 x -", &format!("5 a m1 {T} t")], &[])), Act::At(at(105)));
}

#[test]
fn a_host_with_several_keys_keeps_one_and_the_others_go() {
    let odd = seen(&["2 a m1 x -", &format!("5 a m1 {T} t")], &[]);
    assert!(matches!(looked(None, &odd), Act::Write(Write { number: 2, instead_of: Some((5, 50)), .. })));
    assert!(matches!(looked(kept(2), &odd), Act::Write(Write { number: 2, instead_of: Some((5, 50)), .. })));
}

#[test]
fn what_is_freed_is_forgotten_by_its_host_before_others_take_it() {
    let freed = seen(&["1 a m1 x r"], &[]);
    assert_eq!(looked(kept(1), &freed), Act::Released { number: 1, revision: 10 });
    let others = seen(&["1 b m2 x r"], &[("b", "m2", Some(1))]);
    assert_eq!(written(&looked(None, &others)), Some((2, None, true)), "its host lives and has not seen it");
    assert_eq!(written(&looked(None, &seen(&["1 b m2 x r"], &[]))), Some((1, Some(10), true)));
}

#[test]
fn a_number_that_a_living_agent_tells_is_not_free_though_the_store_lost_it() {
    assert_eq!(written(&looked(None, &seen(&[], &[("b", "m2", Some(1))]))), Some((2, None, true)));
}

#[test]
fn what_nobody_can_read_is_not_free_and_full_is_full() {
    assert_eq!(written(&looked(None, &seen(&["1 ? - - -"], &[]))), Some((2, None, true)));
    let all: Vec<String> = (1..=HIGHEST).map(|number| format!("{number} b m2 x -")).collect();
    let all: Vec<&str> = all.iter().map(String::as_str).collect();
    assert_eq!(looked(None, &seen(&all, &[])), Act::Full);
}

#[test]
fn a_lost_number_is_given_up_by_word_only() {
    let mut claimer = Claimer::new(me(), kept(1));
    let taken = seen(&["1 b m2 x -"], &[]);
    assert!(matches!(claimer.look(at(1), T, &taken), Act::Lost { .. }));
    assert!(
        matches!(claimer.look(at(2), T, &seen(&[], &[])), Act::Lost { .. }),
        "its new holder may be about to write"
    );
    let mut rebooted = Claimer::new(me(), claimer.holding().cloned());
    assert!(matches!(rebooted.look(at(3), T, &seen(&[], &[])), Act::Lost { .. }));
    claimer.forget();
    assert_eq!(written(&claimer.look(at(1), T, &taken)), Some((2, None, true)));
}
