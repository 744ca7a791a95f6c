//! The story of an ensemble.

use std::time::Duration;

use crate::cell::{Cell, until};
use crate::kazoo::{Asking, has_sessions, of_exhibitor};
use crate::program::told;

#[test]
fn list_barrier_and_api_say_what_a_client_can_do() {
    let mut cell = Cell::new(71, 3);
    let servers = cell.servers(3);
    let all = cell.listed(&[0, 1, 2]);
    let mut barrier = cell.barrier("--min 3 --ordinal nucleus --timeout 300s");

    // Two of three: a quorum, and not the whole.
    cell.hosts[0].start(&servers);
    cell.hosts[1].start(&servers);
    cell.until_listed(&[0, 1]);
    let two = cell.listed(&[0, 1]);
    assert!(has_sessions(&two));
    let few = told(&cell.wharf("zk-list-nodes"));
    assert_eq!(few.0, Some(1), "{few:?}");
    assert!(few.2.contains("not enough servers found (2 out of 3)"), "{few:?}");
    assert!(!barrier.is_open());
    let (opened, _) = cell.barrier("--min 2 --ordinal nucleus --timeout 60s").ended();
    assert_eq!((opened.0, opened.1), (Some(0), format!("{two}\n")));

    // The third one joins late: the barrier opens when a client first gets sessions from each.
    let kazoo = Asking::of(&all);
    cell.hosts[2].start(&servers);
    let client = kazoo.ended();
    let (opened, at) = barrier.ended();
    let late = at.saturating_duration_since(client);
    eprintln!(
        "the barrier opened {late:?} after a client had its sessions ({:?} before)",
        client.saturating_duration_since(at)
    );
    assert_eq!((opened.0, opened.1.as_str()), (Some(0), format!("{all}\n").as_str()), "{}", opened.2);
    assert!(opened.2.contains("waiting for zookeeper: 2 of 3 serve"), "{}", opened.2);
    assert!(late < Duration::from_secs(1), "{late:?}");
    assert!(has_sessions(&all));
    cell.until_listed(&[0, 1, 2]);
    let ready = ["--", "sh", "-c", "echo $ZK_NODES; exit 7"];
    let become_it = crate::program::wharf()
        .args(["zk-barrier", "--ordinal", "nucleus", "--http-socket"])
        .arg(cell.hosts[0].agent.socket())
        .args(ready)
        .output()
        .unwrap();
    assert_eq!((told(&become_it).0, told(&become_it).1), (Some(7), format!("{all}\n")));
    until("one leads", || cell.hosts[1].status().iter().filter(|it| it["isLeader"] == true).count() == 1);
    assert!(cell.hosts.iter().all(|host| host.serving() == 200));
    let mut by_address: Vec<&str> = all.split(',').collect();
    by_address.sort_unstable();
    assert_eq!(of_exhibitor(&cell.hosts[1].agent.address("exhibitor")), by_address.join(","), "as Patroni reads it");

    // One is killed.
    cell.hosts[2].kill();
    cell.until_listed(&[0, 1]);
    until("load balancers see it", || cell.hosts[2].serving() == 503);
    let third = cell.hosts[2].address.clone();
    let code = |cell: &Cell, address: &str| {
        cell.hosts[0].status().iter().find(|it| it["hostname"] == address).map(|it| it["code"].clone())
    };
    until("it is down", || code(&cell, &third) == Some(1.into()));
    assert!(has_sessions(&two) && !has_sessions(&cell.hosts[2].place()));

    // Quorum is lost: the last one answers, and serves nobody.
    cell.hosts[1].kill();
    let last = cell.hosts[0].place();
    until("nobody is listed", || {
        let told = told(&cell.wharf("zk-list-nodes --min 1"));
        told.0 == Some(1) && told.2.contains("not enough servers found (0 out of 1)")
    });
    let first = cell.hosts[0].address.clone();
    until("it answers and does not serve", || code(&cell, &first) == Some(2.into()));
    assert_eq!((cell.hosts[0].serving(), has_sessions(&last)), (503, false));
    let (closed, _) = cell.barrier("--min 1 --timeout 2s").ended();
    assert_eq!((closed.0, closed.1.as_str()), (Some(1), ""), "{}", closed.2);
    assert!(closed.2.contains("has no quorum"), "{}", closed.2);

    // It comes back.
    let barrier = cell.barrier("--min 2 --ordinal nucleus --timeout 120s");
    cell.hosts[1].start(&servers);
    assert_eq!(barrier.ended().0.1, format!("{two}\n"));
    assert!(has_sessions(&two));
    cell.until_listed(&[0, 1]);

    // One that stands alone grants sessions, and has not joined.
    cell.hosts[2].start("");
    let third = cell.hosts[2].place();
    until("it grants sessions", || has_sessions(&third));
    let address = cell.hosts[2].address.clone();
    until("it is known as one that does not serve", || code(&cell, &address) == Some(2.into()));
    assert_eq!(told(&cell.wharf("zk-list-nodes --min 2 --ordinal nucleus")).1, format!("{two}\n"));
    assert_eq!((cell.hosts[2].serving(), cell.hosts[0].serving()), (503, 200));
    let (closed, _) = cell.barrier("--min 3 --stable 1s --timeout 4s").ended();
    assert_eq!(closed.0, Some(1), "{closed:?}");
    assert!(closed.2.contains("stands alone"), "{closed:?}");
}

#[test]
fn a_cell_of_one_says_one() {
    let mut cell = Cell::new(72, 1);
    cell.hosts[0].start("");
    let alone = cell.hosts[0].place();
    let (opened, _) = cell.barrier("--min 1 --timeout 120s").ended();
    assert_eq!((opened.0, opened.1), (Some(0), format!("{alone}\n")), "{}", opened.2);
    cell.until_listed(&[0]);
    assert!(has_sessions(&alone));
    until("it serves", || cell.hosts[0].serving() == 200);
    // The store is away: what was known last is told, and said to be that.
    let form = "Accept: application/x-www-form-urlencoded";
    let list = cell.hosts[0].exhibitor("list", form);
    assert!(list.1.starts_with("count=1&") && !cell.hosts[0].is_stale(), "{list:?}");
    cell.cluster.members[0].kill();
    until("it is said", || cell.hosts[0].is_stale());
    assert_eq!(cell.hosts[0].exhibitor("list", form), list);
    let told = told(&cell.wharf("zk-list-nodes --min 1"));
    assert_eq!((told.0, told.1), (Some(0), format!("{alone}\n")));
    assert!(told.2.contains("stale: the store is away"), "{}", told.2);
    assert!(cell.hosts[0].serving() == 200 && has_sessions(&alone));
}
