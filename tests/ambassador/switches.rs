//! A hundred changes of role while clients write without a pause: nothing reaches a server after its connections were
//! cut.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::io::AsyncWriteExt;
use wharf::store::{Store, Write};

use crate::town::{Client, PATIENCE, Server, Town};

const CHANGES: usize = 100;
const CLIENTS: usize = 4;
/// How long the word may take to reach both ends, on a machine that has much else to do.
const SLOWEST: Duration = Duration::from_secs(1);

fn record(server: &Server, role: &str) -> Write {
    let name = &server.name;
    let value = format!(
        r#"{{"host":"127.0.0.1","port":{},"node":"n-{name}","owner":"o-{name}","role":"{role}"}}"#,
        server.at.port()
    );
    Write::Put { key: format!("/services/db/{name}"), value: value.into(), lease: 0 }
}

/// Writes to whoever is reached, and connects again once that is cut; how often it was.
async fn hammer(at: std::net::SocketAddr, over: Arc<AtomicBool>) -> usize {
    let mut cut = 0;
    while !over.load(Ordering::Relaxed) {
        let mut client = Client::open(at).await;
        if client.line().await.is_err() {
            continue; // it was opened just before the word came
        }
        while !over.load(Ordering::Relaxed) && client.echoes().await {}
        cut += 1;
    }
    cut
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_changes_of_role_and_no_byte_reaches_the_old_one_after_the_cut() {
    let town = Town::new("service = 'db'\nrole = 'primary'\nwait = '20s'");
    let store = town.etcd.store(Duration::from_secs(30));
    let servers = [Server::start("a").await, Server::start("b").await];
    let change = async |to: usize| {
        let writes = [record(&servers[1 - to], "replica"), record(&servers[to], "primary")];
        store.commit(&[], &writes).await.expect("etcd takes writes");
        Instant::now()
    };
    change(0).await;
    town.leads_to(&servers[0]);
    let over = Arc::new(AtomicBool::new(false));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS {
        clients.spawn(hammer(town.at, Arc::clone(&over)));
    }
    let mut took = Vec::new();
    for round in 0..CHANGES {
        let (old, new) = (&servers[round % 2], &servers[(round + 1) % 2]);
        let mut witness = Client::open(town.at).await;
        assert_eq!(witness.line().await.unwrap(), old.name);
        let begun = change((round + 1) % 2).await;
        witness.is_reset().await;
        took.push(begun.elapsed());
        let alone = async {
            while old.open.load(Ordering::SeqCst) > 0 {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, alone).await.expect("every connection to the old one is cut");
        let taken = old.taken.load(Ordering::SeqCst);
        for _ in 0..5 {
            witness_of(new, town.at).await;
        }
        assert_eq!(old.taken.load(Ordering::SeqCst), taken, "change {round}: bytes after the cut");
    }
    over.store(true, Ordering::Relaxed);
    let cut: usize = clients.join_all().await.into_iter().sum();
    took.sort();
    eprintln!("from the word to the reset: median {:?}, slowest {:?}; {cut} cut", took[CHANGES / 2], took[CHANGES - 1]);
    assert!(took[CHANGES - 1] < SLOWEST, "{took:?}");
}

/// A connection reaches the new one, and goes on.
async fn witness_of(server: &Server, at: std::net::SocketAddr) {
    let mut client = Client::open(at).await;
    assert_eq!(client.line().await.unwrap(), server.name);
    client.stream.get_mut().write_all(b"x\n").await.unwrap();
    assert_eq!(client.line().await.unwrap(), "x");
}
