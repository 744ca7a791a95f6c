//! Publishing to an etcd that asks who one is: users with the least rights, certificates that are rotated.
#![allow(clippy::unwrap_used, missing_docs)]

mod etcd;
mod harness;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use etcd::{Cluster, Options, Tls};
use harness::{Host, Setup, eventually, instance};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use wharf::store::etcd::{Etcd, Settings};
use wharf::store::{Commit, Reach, Store, StoreError, Write};

/// Long, so that no busy machine ends a lease while etcd is started again.
const TTL: Duration = Duration::from_secs(30);

fn setup() -> Setup {
    Setup { ttl: TTL, ..Setup::default() }
}

/// The store says no to a write there. A busy machine may take longer over a login than one request may.
async fn refuses(store: &Etcd, key: &str) {
    eventually(&format!("a write at {key} is refused"), || async {
        matches!(store.commit(&[], &[put(key)]).await, Err(StoreError::Refused { .. }))
    })
    .await;
}

/// Runs every command of the page's section on rights.
fn grant_rights(cluster: &Cluster) {
    let page = include_str!("../docs/operations.md");
    let block =
        page.split("<!-- roles").nth(1).and_then(|rest| rest.split("```").nth(1)).expect("the page names roles");
    let commands: Vec<Vec<&str>> = block
        .lines()
        .filter_map(|line| line.strip_prefix("etcdctl "))
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert!(commands.len() > 10, "{commands:?}");
    for command in commands {
        cluster.ctl(&command);
    }
}

fn with_password(cluster: &Cluster, user: &str, password: &str) -> Settings {
    let file = cluster.directory.path().join(format!("{user}-password"));
    std::fs::write(&file, format!("{password}\n")).unwrap();
    Settings { user: Some((user.into(), file)), ..cluster.settings(TTL) }
}

fn put(key: &str) -> Write {
    Write::Put { key: key.into(), value: "v".into(), lease: 0 }
}

async fn publishes(host: &Host, count: usize) {
    eventually(&format!("{count} records stand"), || async {
        host.outputs.local.borrow().instances.iter().filter(|it| it.published).count() == count
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_documented_rights_are_enough_and_no_more() {
    let flags = ["--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let cluster = Cluster::start_with(1, Options { flags, ..Options::default() });
    grant_rights(&cluster);
    let directory = tempfile::tempdir().unwrap();
    let store = Etcd::new(with_password(&cluster, "wharf", "agent-password"));
    let host = Host::start(Arc::new(store.clone()), directory.path(), setup());
    host.ready([instance("redis", 1), instance("redis", 2)]);
    publishes(&host, 2).await;
    refuses(&store, "/elsewhere/a").await;

    // A restart takes the lease over, withdrawing ends it.
    host.stop().await;
    let setup = Setup { on_stop: wharf::offer::registrar::OnStop::Withdraw, ..setup() };
    let host = Host::start(Arc::new(store.clone()), directory.path(), setup);
    host.ready([instance("redis", 1)]);
    publishes(&host, 1).await;
    // The record of the one that is gone goes with the next write.
    eventually("one key is left", || async { host.own_keys().await.len() == 1 }).await;
    host.stop().await;
    assert!(harness::items(&store, "/services").await.is_empty());

    let probe = "/services/".to_owned();
    let reader = Etcd::new(Settings { probe, ..with_password(&cluster, "reader", "reader-password") });
    eventually("the reader may read", || async { reader.read("/services/", None, None).await.is_ok() }).await;
    refuses(&reader, "/services/a/b").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_that_ran_out_is_renewed() {
    let flags = ["--auth-token-ttl", "1", "--bcrypt-cost", "4"].map(str::to_owned).to_vec();
    let mut cluster = Cluster::start_with(1, Options { flags, ..Options::default() });
    grant_rights(&cluster);
    let directory = tempfile::tempdir().unwrap();
    let settings = with_password(&cluster, "wharf", "agent-password");
    let store = Etcd::new(settings.clone());
    let host = Host::start(Arc::new(store.clone()), directory.path(), setup());
    host.ready([instance("redis", 1)]);
    publishes(&host, 1).await;
    let lease = host.outputs.local.borrow().lease;
    // Longer than the token lives; then it is used again, by commits and by a new watch.
    tokio::time::sleep(Duration::from_secs(4)).await;
    host.ready([instance("redis", 1), instance("redis", 2)]);
    publishes(&host, 2).await;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let revision = store.get(&["/services/x".into()]).await.unwrap().revision;
    let mut watch = store.watch("/services/", revision + 1).await.unwrap();
    assert!(matches!(store.commit(&[], &[put("/services/x/y")]).await, Ok(Commit::Done(_))));
    let mut seen = 0;
    while seen == 0 {
        seen = watch.next().await.unwrap().events.len(); // an empty one is a sign of life
    }
    assert_eq!(seen, 1);
    // A restarted member knows no token at all.
    cluster.members[0].kill();
    cluster.run(0);
    host.ready([instance("redis", 2)]);
    eventually("published after the restart", || async { host.own_keys().await.len() == 1 }).await;
    assert_eq!(host.outputs.local.borrow().lease, lease);
}

struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn save(&self, path: &Path) {
        std::fs::write(path, self.0.pem()).unwrap();
    }

    /// Writes a certificate for loopback and its key.
    fn issue(&self, (certificate, key): &(PathBuf, PathBuf)) {
        let mut params = CertificateParams::new(vec!["localhost".into(), "127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair = KeyPair::generate().unwrap();
        let signed = params.signed_by(&pair, &self.0).unwrap();
        std::fs::write(certificate, signed.pem()).unwrap();
        std::fs::write(key, pair.serialize_pem()).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_rotated_on_disk_is_used_without_a_restart() {
    let files = tempfile::tempdir().unwrap();
    let path = |name: &str| files.path().join(name);
    let tls = Tls {
        server_ca: path("ca.pem"),
        server: (path("server.pem"), path("server-key.pem")),
        client_ca: path("clients.pem"),
        client: (path("client.pem"), path("client-key.pem")),
    };
    let (servers, clients) = (Authority::new(), Authority::new());
    servers.save(&tls.server_ca);
    servers.issue(&tls.server);
    clients.save(&tls.client_ca);
    clients.issue(&tls.client);
    let mut cluster = Cluster::start_with(1, Options { tls: Some(tls.clone()), ..Options::default() });
    let directory = tempfile::tempdir().unwrap();
    let store = Arc::new(cluster.store(TTL));
    let host = Host::start(Arc::clone(&store) as _, directory.path(), setup());
    host.ready([instance("redis", 1)]);
    publishes(&host, 1).await;
    let lease = host.outputs.local.borrow().lease;

    // Other authorities from now on: what the agent began with is no longer let in.
    cluster.members[0].kill();
    let clients = Authority::new();
    clients.save(&tls.client_ca);
    clients.issue(&tls.client);
    cluster.run(0);
    cluster.wait_healthy();
    host.ready([instance("redis", 1), instance("redis", 2)]);
    eventually("published with the new certificate", || async { host.own_keys().await.len() == 2 }).await;
    assert_eq!(host.outputs.local.borrow().lease, lease);

    // A certificate that nobody knows keeps it out, while another client is let in.
    cluster.members[0].kill();
    let known = (path("known.pem"), path("known-key.pem"));
    std::fs::copy(&tls.client.0, &known.0).unwrap();
    std::fs::copy(&tls.client.1, &known.1).unwrap();
    Authority::new().issue(&tls.client);
    cluster.run(0);
    let other = Etcd::new(Settings { identity: Some(known.clone()), ..cluster.settings(TTL) });
    eventually("the other client is let in", || async { other.get(&[]).await.is_ok() }).await;
    let refused = store.get(&[]).await;
    assert!(matches!(refused, Err(StoreError::Away { .. })), "{refused:?}");
    assert_eq!((*store.reach().borrow(), *other.reach().borrow()), (Reach::Away, Reach::There));

    // And the right one lets it in again.
    std::fs::copy(&known.0, &tls.client.0).unwrap();
    std::fs::copy(&known.1, &tls.client.1).unwrap();
    host.ready([instance("redis", 2)]);
    eventually("it is let in again", || async { host.own_keys().await.len() == 1 }).await;
}
