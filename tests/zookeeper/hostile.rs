//! What listens where a ZooKeeper should be, and is none.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::cell::{Cell, until};
use crate::program::told;

/// What a server says to whatever it is sent, and whether it goes on for ever.
fn liar(address: &str, port: u16, srvr: &'static [u8], session: &'static [u8]) {
    let listener = TcpListener::bind((address, port)).unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || lie(stream, srvr, session));
        }
    });
}

fn lie(mut stream: TcpStream, srvr: &[u8], session: &[u8]) {
    let mut asked = [0; 64];
    let Ok(length) = stream.read(&mut asked) else { return };
    let said = if asked[..length].starts_with(b"srvr") { srvr } else { session };
    // A greedy one sends until nobody reads any more.
    while stream.write_all(said).is_ok() && said.len() > 1_000 {}
    let _ = stream.read(&mut asked);
}

#[test]
fn liars_do_not_open_it_and_harm_nobody() {
    const LEADER: &[u8] = b"Zookeeper version: 3.8.0\nMode: leader\n";
    let mut cell = Cell::new(74, 2);
    // It says that it leads, and grants no session: garbage without end.
    let endless: &'static [u8] = vec![0xff; 100_000].leak();
    liar(&cell.hosts[1].address, cell.port, LEADER, endless);
    let (closed, _) = cell.barrier("--min 1 --timeout 3s").ended();
    assert_eq!((closed.0, closed.1.as_str()), (Some(1), ""), "{}", closed.2);
    assert!(closed.2.contains("no session is granted by 127.0.74.2"), "{}", closed.2);
    // The honest one beside it is listed; two that lead are no ensemble.
    cell.hosts[0].start("");
    until("it is known", || told(&cell.wharf("services zookeeper")).1.contains("127.0.74.1"));
    let (closed, _) = cell.barrier("--min 1 --stable 0s --timeout 3s").ended();
    assert_eq!(closed.0, Some(1), "{}", closed.2);
    let names = r#"{"host":"a,b:1 $(x)","port":1,"node":"x","role":"replica"}"#;
    cell.cluster.ctl(&["put", "/services/zookeeper/evil", names]);
    until("the record is there", || told(&cell.wharf("services zookeeper -o json")).1.contains("evil"));
    assert!(!told(&cell.wharf("zk-list-nodes --min 1")).1.contains("$(x)"));
    assert!(!cell.hosts[0].exhibitor("list", "Accept: application/x-www-form-urlencoded").1.contains("(x)"));
}
