//! Churn: targets come and go, clients and servers end halfway, never read, or hang, and whoever is well notices
//! nothing; descriptors and memory stay as they were.
//!
//! `WHARF_SOAK=1h` says for how long; with `WHARF_DRILL=1` it is an hour.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use wharf::store::{Store, Write};

use crate::town::{Client, PATIENCE, Server, Town, own_address};

/// How long `make test` churns.
const SHORT: Duration = Duration::from_secs(12);
/// What memory may grow by once it has been through everything: arenas of the C library differ by that much.
const GROWTH_MB: f64 = 12.0;

fn length() -> Duration {
    let long = std::env::var_os("WHARF_DRILL").map(|_| Duration::from_secs(3600));
    let asked = std::env::var("WHARF_SOAK").ok().and_then(|text| humantime::parse_duration(&text).ok());
    asked.or(long).unwrap_or(SHORT)
}

/// What a client may do to others.
async fn misbehave(at: SocketAddr, kind: u64) {
    // One that is reset at once may learn of it before it knows that it was connected.
    let Ok(mut client) = Client::try_from([127, 0, 0, 1], at).await else { return };
    let stream = client.stream.get_mut();
    match kind % 5 {
        // It asks, ends its half, and hears the other out.
        0 => {
            let _ = stream.write_all(b"half\n").await;
            let _ = stream.shutdown().await;
            let _ = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
        }
        // It sends without ever reading, until nobody takes more, and goes.
        1 => {
            let flood = vec![b'x'; 64 * 1024];
            let _ =
                timeout(Duration::from_millis(300), async { while stream.write_all(&flood).await.is_ok() {} }).await;
        }
        // It is reset in the middle.
        2 => {
            let _ = stream.write_all(b"gone").await;
            let _ = socket2::SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
        }
        // It hangs for a while.
        3 => sleep(Duration::from_millis(500)).await,
        // It goes at once.
        _ => {}
    }
}

/// One that is well: what it sends comes back, until its server is taken away.
async fn behave(at: SocketAddr, over: Arc<AtomicBool>, echoed: Arc<AtomicU64>) {
    while !over.load(Ordering::Relaxed) {
        let Ok(mut client) = Client::try_from([127, 0, 0, 1], at).await else { continue };
        if client.line().await.is_err() {
            continue;
        }
        while !over.load(Ordering::Relaxed) && client.echoes().await {
            echoed.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(2)).await;
        }
    }
}

struct Size {
    descriptors: usize,
    memory: f64,
}

fn size(town: &Town) -> Size {
    let pid = town.agent.pid();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    let memory = line.split_whitespace().next().unwrap().parse::<f64>().unwrap() / 1_000.0;
    Size { descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(), memory }
}

/// Churns for so long.
async fn churn(town: &Town, servers: &[Server; 2], hung: SocketAddr, time: Duration) -> (u64, u64, u64) {
    let store = town.etcd.store(Duration::from_secs(30));
    let (over, echoed) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut well = JoinSet::new();
    for _ in 0..4 {
        well.spawn(behave(town.at, Arc::clone(&over), Arc::clone(&echoed)));
    }
    let record = |server: &Server, role: &str| {
        let value = format!(
            r#"{{"host":"127.0.0.1","port":{},"node":"n","owner":"o-{}","role":"{role}"}}"#,
            server.at.port(),
            server.name
        );
        Write::Put { key: format!("/services/db/{}", server.name), value: value.into(), lease: 0 }
    };
    let (begun, mut bad, mut clients, mut changes) = (Instant::now(), JoinSet::new(), 0_u64, 0_usize);
    while begun.elapsed() < time {
        for _ in 0..10 {
            bad.spawn(misbehave(town.at, clients));
            clients += 1;
            sleep(Duration::from_millis(5)).await;
        }
        while bad.len() > 200 {
            bad.join_next().await;
        }
        if clients % 50 == 0 {
            changes += 1;
            let (old, new) = (&servers[changes % 2], &servers[(changes + 1) % 2]);
            store.commit(&[], &[record(old, "replica"), record(new, "primary")]).await.unwrap();
            // One that takes connections and answers nothing comes and goes.
            if changes % 3 == 0 {
                town.put_at("hung", hung, "replica");
            } else {
                town.delete("hung");
            }
        }
    }
    over.store(true, Ordering::Relaxed);
    well.join_all().await;
    bad.join_all().await;
    (clients, changes as u64, echoed.load(Ordering::Relaxed))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn churn_leaves_neither_descriptors_nor_memory_behind() {
    let (at, reads) = (own_address(), own_address());
    let table = |name: &str, at: SocketAddr, role: &str| {
        format!("[[proxy]]\nname = '{name}'\nlisten = '{at}'\nservice = 'db'\nrole = '{role}'\nwait = '5s'\n")
    };
    let town = Town::with(at, &(table("db", at, "primary") + &table("reads", reads, "replica")));
    let servers = [Server::start("a").await, Server::start("b").await];
    town.put(&servers[0], "primary");
    town.put(&servers[1], "replica");
    town.leads_to(&servers[0]);
    let hung_at = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let hung = hung_at.local_addr().unwrap();
    // Readers hang on whoever answers nothing; they are there all the time.
    let readers: Vec<_> = (0..20).map(|_| std::net::TcpStream::connect(reads).unwrap()).collect();
    let all = length();
    // First through everything once, so that what is kept for later is there.
    churn(&town, &servers, hung, all / 4).await;
    town.until("connections", &0.into());
    let before = size(&town);
    let (clients, changes, echoed) = churn(&town, &servers, hung, all - all / 4).await;
    town.until("connections", &0.into());
    town.until("parked", &0.into());
    let after = size(&town);
    eprintln!(
        "{all:?}: {clients} bad clients, {changes} changes, {echoed} echoes; descriptors {} then {}, memory {:.1} MB then {:.1} MB",
        before.descriptors, after.descriptors, before.memory, after.memory
    );
    assert!(echoed > changes, "who is well was served");
    // The pipes that are kept for later, and what the store's own connections vary by.
    assert!(after.descriptors <= before.descriptors + 20, "{} then {}", before.descriptors, after.descriptors);
    assert!(after.memory <= before.memory + GROWTH_MB, "{} MB then {} MB", before.memory, after.memory);
    drop(readers);
}
