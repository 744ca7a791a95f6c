//! Redis: passwords, loading, replication live, cluster mode, TLS.

use std::time::Duration;

use wharf::model::health::standing::State;
use wharf::model::offer::instance::{CheckKind, Confidant, Secret};
use wharf::model::words::record::Role;
use wharf::offer::probe::Settings;

use crate::dump::{SLOWLY, dump};
use crate::harness::{Host, eventually, instance, quick, with_login};
use crate::servers::{certificate, directory, free_port, redis, redis_cli, redis_in};

#[tokio::test]
async fn a_fresh_redis_is_a_primary() {
    let (server, host) = (redis(&[]), Host::new(quick()));
    let key = host.put(instance(CheckKind::Redis, server.target));
    let standing = host.until_role(&key, Some(Role::Primary)).await;
    assert_eq!(standing.error, None);
}

#[tokio::test]
async fn a_password_hides_the_role_until_it_is_given() {
    let (server, host) = (redis(&["--requirepass", "s3cr et"]), Host::new(quick()));
    let asked = instance(CheckKind::Redis, server.target);
    let key = host.put(asked.clone());
    let standing = host.until_role(&key, None).await;
    assert_eq!(standing.error.as_deref(), Some("wants a login: role unknown"));
    host.put(with_login(asked.clone(), None, "wrong"));
    let refused = host.until(&key, |standing| standing.error.as_deref() == Some("login refused: role unknown")).await.0;
    assert_eq!(refused.state, State::Ready);
    host.put(with_login(asked, None, "s3cr et"));
    host.until_role(&key, Some(Role::Primary)).await;
}

#[tokio::test]
async fn a_user_of_the_access_list_may_know_less() {
    let (server, host) = (redis(&["--requirepass", "other"]), Host::new(quick()));
    let acl = |words: &[&str]| redis_cli(&server, &[&["-a", "other", "ACL", "SETUSER", "probe"], words].concat());
    eventually("a user", || acl(&["on", ">secret", "+ping"]).contains("OK").then_some(())).await;
    let asked = instance(CheckKind::Redis, server.target);
    let key = host.put(with_login(asked, Some("probe"), "secret"));
    let standing = host.until_role(&key, None).await;
    assert_eq!(standing.error, None, "it is logged in and may not ask for the role");
    acl(&["+info"]);
    host.until_role(&key, Some(Role::Primary)).await;
}

#[tokio::test]
async fn a_password_is_not_told_to_a_server_that_wants_none() {
    let (server, host) = (redis(&[]), Host::new(quick()));
    let key = host.put(with_login(instance(CheckKind::Redis, server.target), None, "s3cret"));
    host.until_role(&key, Some(Role::Primary)).await;
    host.stays(&key, State::Ready, quick().interval * 5).await;
    let told = redis_cli(&server, &["INFO", "commandstats"]);
    assert!(told.contains("cmdstat_ping") && !told.contains("cmdstat_auth"), "{told}");
}

#[tokio::test]
async fn a_password_file_is_read_from_its_directory_only() {
    let server = redis(&["--requirepass", "secret"]);
    let secrets = tempfile::tempdir().unwrap();
    std::fs::write(secrets.path().join("redis"), "secret\n").unwrap();
    let mut asked = instance(CheckKind::Redis, server.target);
    asked.check.detail.password = Some(Secret::File("redis".into()));
    asked.check.confidant = Confidant::Table;
    let with = Host::new(Settings { secrets_dir: Some(secrets.path().to_owned()), ..quick() });
    with.until_role(&with.put(asked.clone()), Some(Role::Primary)).await;
    let without = Host::new(quick());
    let standing = without.until_state(&without.put(asked), State::Ready).await;
    assert_eq!(standing.error.as_deref(), Some("password files are refused without --check-secrets"));
}

#[tokio::test]
async fn a_loading_redis_is_starting() {
    let (folder, host) = (directory(), Host::new(quick()));
    dump(folder.path(), 2_000);
    let server = redis_in(folder, free_port(), &SLOWLY);
    let key = host.put(instance(CheckKind::Redis, server.target));
    let loading = host.until(&key, |standing| standing.error.as_deref() == Some("loading its data")).await.0;
    assert_eq!((loading.state, loading.role), (State::Starting, None));
    host.until_role(&key, Some(Role::Primary)).await;
}

#[tokio::test]
async fn roles_follow_promotion_and_demotion() {
    let (one, other, host) = (redis(&[]), redis(&[]), Host::new(quick()));
    let (first, second) = (instance(CheckKind::Redis, one.target), instance(CheckKind::Redis, other.target));
    let (first, second) = (host.put(first), host.put(second));
    host.until_role(&first, Some(Role::Primary)).await;
    host.until_role(&second, Some(Role::Primary)).await;
    let since = host.standing(&first).unwrap().since;
    redis_cli(&other, &["REPLICAOF", "127.0.0.1", &one.target.port().to_string()]);
    host.until_role(&second, Some(Role::Replica)).await;
    redis_cli(&other, &["REPLICAOF", "NO", "ONE"]);
    redis_cli(&one, &["REPLICAOF", "127.0.0.1", &other.target.port().to_string()]);
    host.until_role(&second, Some(Role::Primary)).await;
    let demoted = host.until_role(&first, Some(Role::Replica)).await;
    assert!(demoted.since >= since);
}

#[tokio::test]
async fn a_replica_whose_primary_is_gone_is_not_ready() {
    for stale in ["yes", "no"] {
        let (primary, replica, host) = (redis(&[]), redis(&["--replica-serve-stale-data", stale]), Host::new(quick()));
        let port = primary.target.port().to_string();
        eventually("a replica", || {
            redis_cli(&replica, &["REPLICAOF", "127.0.0.1", &port]).contains("OK").then_some(())
        })
        .await;
        let key = host.put(instance(CheckKind::Redis, replica.target));
        host.until_role(&key, Some(Role::Replica)).await;
        drop(primary);
        let down = host.until_state(&key, State::Down).await;
        assert_eq!(down.role, Some(Role::Replica), "serving stale data: {stale}");
        assert!(down.error.unwrap().starts_with("a replica whose"));
    }
}

#[tokio::test]
async fn cluster_mode_has_no_role() {
    let (server, host) = (redis(&["--cluster-enabled", "yes"]), Host::new(quick()));
    let key = host.put(instance(CheckKind::Redis, server.target));
    let standing = host.until_state(&key, State::Ready).await;
    assert_eq!((standing.role, standing.error), (None, None));
}

#[tokio::test]
async fn a_full_redis_is_saturated() {
    let (server, host) = (redis(&["--maxclients", "4"]), Host::new(quick()));
    let key = host.put(instance(CheckKind::Redis, server.target));
    host.until_state(&key, State::Ready).await;
    let crowd: Vec<_> = (0..8).map(|_| std::net::TcpStream::connect(server.target).unwrap()).collect();
    host.until_state(&key, State::Saturated).await;
    drop(crowd);
    host.until_role(&key, Some(Role::Primary)).await;
}

#[tokio::test]
async fn redis_over_tls_alone_is_asked_over_tls() {
    for clients in ["no", "yes"] {
        let folder = directory();
        let (cert, key) = certificate(folder.path());
        let (cert, key, target) = (cert.to_str().unwrap().to_owned(), key.to_str().unwrap().to_owned(), free_port());
        let tls = ["--tls-cert-file", &cert, "--tls-key-file", &key, "--tls-ca-cert-file", &cert];
        let port = target.port().to_string();
        let mut extra = vec!["--tls-port", &port, "--tls-auth-clients", clients];
        extra.extend(tls);
        let server = redis_in(folder, "127.0.0.1:0".parse().unwrap(), &extra);
        let host = Host::new(quick());
        let key = host.put(instance(CheckKind::Redis, target));
        let standing = host.until_state(&key, State::Ready).await;
        let (role, error) = match clients {
            "no" => (Some(Role::Primary), None),
            _ => (None, Some("wants a client certificate: role unknown")),
        };
        assert_eq!((standing.role, standing.error.as_deref()), (role, error), "{}", server.log());
    }
}

#[tokio::test]
async fn probes_leave_no_line_in_the_log() {
    let (server, host) = (redis(&[]), Host::new(Settings { interval: Duration::from_millis(100), ..quick() }));
    let key = host.put(instance(CheckKind::Redis, server.target));
    host.until_state(&key, State::Ready).await;
    let before = server.log();
    let asked = || {
        host.metrics().lines().find_map(|line| {
            line.strip_prefix("wharf_probes_total{check=\"redis\",outcome=\"serves\"} ")
                .and_then(|count| count.parse().ok())
        })
    };
    eventually("twenty probes", || asked().filter(|count: &u32| *count > 20)).await;
    assert_eq!(server.log(), before);
}
