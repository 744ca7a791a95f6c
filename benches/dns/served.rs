//! The server's side: the mirror and the DNS server of an agent, alone in a process.

use std::io::{BufRead, Write};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use wharf::answer::dns::{DnsServer, Settings};
use wharf::follow::mirror::{self, Mirror};
use wharf::model::publish::local::Overlay;
use wharf::model::words::key::Prefix;
use wharf::model::words::site::{Site, Standpoint};
use wharf::model::words::zone::Zones;
use wharf::store::embedded::Embedded;
use wharf::store::etcd::Etcd;
use wharf::store::{Store, Write as Put};
use wharf::view::{CatalogView, Progress};

use super::records;

pub(crate) fn run(args: &[String]) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(serve(args))
}

async fn serve(args: &[String]) -> ExitCode {
    let store: Arc<dyn Store> = match args {
        [kind, count, ..] if is_embedded(kind) => Arc::new(filled(count.parse().unwrap(), kind == NEAR).await),
        [_, endpoint, ..] => Arc::new(Etcd::new(wharf::store::etcd::Settings {
            endpoints: vec![endpoint.clone()],
            ca: None,
            identity: None,
            user: None,
            lease_ttl: Duration::from_secs(30),
            probe: "/wharf/services/nodes/".into(),
        })),
        _ => return ExitCode::FAILURE,
    };
    let mut registry = Registry::default();
    let zones = Zones::new("services.internal", Prefix::parse("/services").unwrap(), []).unwrap();
    let (_overlay, overlaid) = watch::channel(Arc::new(Overlay::default()));
    let settings = mirror::Settings {
        prefixes: zones.prefixes().into_iter().cloned().collect(),
        node: "bench".into(),
        owner: "bench".into(),
        lease_ttl: Duration::from_secs(30),
    };
    let (mirror, view) = Mirror::new(settings, store.clone(), overlaid, None, &mut registry);
    let settings = Settings {
        listen: vec!["127.0.0.1:0".parse().unwrap()],
        passed: Vec::new(),
        zones,
        ttl: Duration::from_secs(5),
        negative_ttl: Duration::from_secs(5),
        forward: Vec::new(),
        standpoint: if args[0] == NEAR { standpoint() } else { Standpoint::default() },
        forward_allow: vec!["127.0.0.0/8".parse().unwrap()],
        allow: Vec::new(),
        rate_limit: 100,
    };
    let server = DnsServer::bind(settings, view.clone(), &mut registry).unwrap();
    let port = server.addresses()[0].port();
    let stop = CancellationToken::new();
    let begun = Instant::now();
    tokio::spawn(mirror.run(stop.clone()));
    tokio::spawn(server.run(stop.clone()));
    view.changed().wait_for(|change| change.progress == Progress::Read).await.unwrap();
    let read = begun.elapsed();
    let counts = view.load().counts();
    assert_eq!((counts.records, counts.bad), (expected(args), 0), "records read, and bad ones");
    say(&port.to_string());
    let talk = tokio::task::spawn_blocking(move || {
        for line in std::io::stdin().lock().lines().map_while(Result::ok) {
            let answer = match line.as_str() {
                "read" => read.as_millis().to_string(),
                "change" => {
                    let (time, work) = tokio::runtime::Handle::current().block_on(change(&*store, &view));
                    format!("{} {}", time.as_micros(), work.as_micros())
                }
                _ => tokio::runtime::Handle::current().block_on(relisted(&view)),
            };
            say(&answer);
        }
    });
    let _ = talk.await;
    ExitCode::SUCCESS
}

/// The store of a host that prefers what is near, with hosts in three zones.
const NEAR: &str = "near";

fn is_embedded(kind: &str) -> bool {
    kind == "embedded" || kind == NEAR
}

fn standpoint() -> Standpoint {
    Standpoint::new("core-7", Some(Site::parse("eu/zone-1").unwrap()), true)
}

/// The record of a host that says where it is.
fn placed(number: usize, (key, value): (String, String)) -> (String, String) {
    let open = value.strip_suffix('}').unwrap();
    (key, format!(r#"{open},"site":"eu/zone-{}"}}"#, number % 3))
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

/// How many records there are to be read.
fn expected(args: &[String]) -> usize {
    let count: usize = args.last().unwrap().parse().unwrap();
    if is_embedded(&args[0]) { count + MANY.iter().map(|(_, count)| count).sum::<usize>() } else { count }
}

/// Services of many endpoints, beside the others.
const MANY: [(&str, usize); 2] = [("hundreds", 200), ("thousands", 2_000)];

async fn filled(count: usize, says_where: bool) -> Embedded {
    let store = Embedded::new();
    let many = MANY.iter().flat_map(|(service, count)| (0..*count).map(|number| records::of_many(service, number)));
    let all: Vec<(String, String)> = (0..count).map(records::plain).chain(many).collect();
    let place = |(number, record)| if says_where { placed(number, record) } else { record };
    let all: Vec<(String, String)> = all.into_iter().enumerate().map(place).collect();
    for chunk in all.chunks(100) {
        let put =
            |(key, value): &(String, String)| Put::Put { key: key.clone(), value: value.clone().into(), lease: 0 };
        let writes: Vec<Put> = chunk.iter().map(put).collect();
        store.commit(&[], &writes).await.unwrap();
    }
    store
}

/// Writes one record; the time until it is in the snapshot that answers are made from, and the CPU used meanwhile.
async fn change(store: &dyn Store, view: &CatalogView) -> (Duration, Duration) {
    let port = rand::random_range(1..60_000_u16);
    let value = format!(r#"{{"host":"10.9.9.9","port":{port}}}"#);
    let write = Put::Put { key: "/services/changed/one".into(), value: value.into(), lease: 0 };
    let mut changed = view.changed();
    let (begun, before) = (Instant::now(), worked());
    store.commit(&[], &[write]).await.unwrap();
    while view.load().get("/services/changed/one").is_none_or(|found| found.port() != port) {
        changed.changed().await.unwrap();
    }
    (begun.elapsed(), worked().saturating_sub(before))
}

/// The time that this process's threads have run so far.
fn worked() -> Duration {
    let threads = std::fs::read_dir("/proc/self/task").unwrap();
    let of_thread = |thread: std::io::Result<std::fs::DirEntry>| {
        let times = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap_or_default();
        times.split(' ').next().and_then(|time| time.parse().ok()).unwrap_or(0)
    };
    Duration::from_nanos(threads.map(of_thread).sum())
}

async fn relisted(view: &CatalogView) -> String {
    let mut changed = view.changed();
    while view.load().get("/services/again/relisted").is_none() {
        let _ = tokio::time::timeout(Duration::from_millis(100), changed.changed()).await;
    }
    "done".to_owned()
}
