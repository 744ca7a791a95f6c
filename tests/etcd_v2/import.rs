//! `wharf import-skydns` against a real etcd that has both stores: what SkyDNS keeps in the v2 one stands in the v3 one
//! afterwards, and a real agent answers it.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use serde_json::Value;
use wharf::model::words::key::flaw;
use wharf::model::words::record::Record;

use crate::ask::{delete, put, request};
use crate::etcd::{Cluster, Options, Tls};
use crate::program::{told, wharf};
use crate::skydns::{Suite, suites};
use crate::{PATIENCE, cluster, start, until};

struct Ground {
    cluster: Cluster,
    at: String,
}

impl Ground {
    fn start() -> Self {
        let cluster = cluster();
        let at = format!("127.0.0.1:{}", cluster.members[0].client);
        Self { cluster, at }
    }

    fn put(&self, key: &str, value: &str) {
        assert_eq!(put(&self.at, key, &[("value", value)]).status, 201, "{key}");
    }

    /// Runs the command; its exit code, what it prints, and what it says on standard error.
    fn import(&self, flags: &[&str]) -> (Option<i32>, String, String) {
        import(&[&["--etcd-endpoints", &format!("http://{}", self.at)], flags].concat())
    }

    /// The keys of the v3 store with their values and the seconds that each has left.
    fn v3(&self) -> BTreeMap<String, (String, Option<u64>)> {
        let read: Value = serde_json::from_str(&self.cluster.ctl(&["get", "--prefix", "/", "-w", "json"])).unwrap();
        let mut times = BTreeMap::new();
        let mut left = |lease: i64| {
            let ask = || self.cluster.ctl(&["lease", "timetolive", &format!("{lease:x}"), "-w", "json"]);
            let told: Value = serde_json::from_str(times.entry(lease).or_insert_with(ask)).unwrap();
            told["ttl"].as_u64().unwrap()
        };
        let text = |value: &Value| String::from_utf8(unbase64(value.as_str().unwrap_or(""))).unwrap();
        let items = read["kvs"].as_array().into_iter().flatten();
        items.map(|kv| (text(&kv["key"]), (text(&kv["value"]), kv["lease"].as_i64().map(&mut left)))).collect()
    }
}

fn import(flags: &[&str]) -> (Option<i32>, String, String) {
    told(&wharf().args(["import-skydns", "--node", "core-01"]).args(flags).output().unwrap())
}

fn unbase64(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.decode(text).unwrap()
}

fn dig(agent: &str, question: &str) -> String {
    let (host, port) = agent.rsplit_once(':').unwrap();
    let asked = [&["+short", "+tries=1", &format!("@{host}"), "-p", port], &*question.split(' ').collect::<Vec<_>>()];
    told(&Command::new("dig").args(asked.concat()).output().unwrap()).1
}

#[test]
fn what_skydns_serves_is_served_once_it_is_imported() {
    let ground = Ground::start();
    // As SkyDNS's own README writes them.
    ground.put("/skydns/local/skydns/east/production/rails/1", r#"{"host":"service1.example.com","port":8080}"#);
    ground.put("/skydns/local/skydns/east/staging/rails/4", r#"{"host":"10.0.1.125","port":8080}"#);
    ground.put("/skydns/local/skydns/db/x1", r#"{"Host":"127.0.0.1"}"#);
    ground.put("/skydns/local/skydns/bad", r#"{"Host": "127.0.0.2"'}"#);
    ground.put("/skydns/arpa/in-addr/10/0/1/125", r#"{"host":"4.rails.staging.east.skydns.local"}"#);
    put(&ground.at, "/skydns/local/skydns/web/a", &[("value", r#"{"host":"10.0.0.7","port":80}"#), ("ttl", "600")]);
    let settings = r#"{"dns_addr":"127.0.0.1:5354","ttl":3600,"nameservers":["8.8.8.8:53","8.8.4.4:53"]}"#;
    ground.put("/skydns/config", settings);

    let (code, dry, _) = ground.import(&["--dry-run"]);
    assert_eq!(code, Some(1), "{dry}");
    assert!(dry.starts_with("/skydns: 6 read, 5 would be written, 0 there already, 1 left out\n"), "{dry}");
    assert!(ground.v3().is_empty(), "a dry run writes nothing");

    let (code, done, _) = ground.import(&[]);
    assert_eq!(code, Some(1), "{done}");
    for line in [
        "/skydns: 6 read, 5 written, 0 there already, 1 left out",
        "1 of them on a lease (9m",
        "left out /skydns/local/skydns/bad: ",
        "--zone skydns.local=/skydns/local/skydns",
        "--dns 127.0.0.1:5354",
        "--forward 8.8.8.8:53,8.8.4.4:53",
        "--dns-ttl 3600s",
        "--zone in-addr.arpa=/skydns/arpa/in-addr",
    ] {
        assert!(done.contains(line), "{line:?} is not in\n{done}");
    }
    let v3 = ground.v3();
    assert_eq!(v3.len(), 5);
    let (value, left) = &v3["/skydns/local/skydns/web/a"];
    assert_eq!(value, r#"{"host":"10.0.0.7","port":80}"#);
    assert!((500..=600).contains(&left.unwrap()), "{left:?}");
    assert_eq!(v3["/skydns/local/skydns/db/x1"], (r#"{"Host":"127.0.0.1"}"#.to_owned(), None));

    let flags = ["--zone", "skydns.local=/skydns/local/skydns", "--zone", "in-addr.arpa=/skydns/arpa/in-addr"];
    let mut flags: Vec<String> = flags.map(str::to_owned).to_vec();
    flags.extend(["--etcd-endpoints".to_owned(), format!("http://{}", ground.at)]);
    let agent = start("core-01", &flags, "");
    let dns = agent.address("dns");
    for (question, answer) in [
        ("staging.east.skydns.local SRV", "10 100 8080 4.rails.staging.east.skydns.local.\n"),
        ("1.rails.production.east.skydns.local CNAME", "service1.example.com.\n"),
        ("db.skydns.local A", "127.0.0.1\n"),
        ("web.skydns.local SRV", "10 100 80 a.web.skydns.local.\n"),
        ("-x 10.0.1.125", "4.rails.staging.east.skydns.local.\n"),
    ] {
        until(question, || dig(&dns, question) == answer);
    }

    let (code, again, _) = ground.import(&[]);
    assert!(code == Some(1) && again.contains(" 0 written, 5 there already, 1 left out"), "{again}");
    delete(&ground.at, "/skydns/local/skydns/bad");
    assert_eq!(ground.import(&[]).0, Some(0), "all of it is there");
}

#[test]
fn nothing_that_others_wrote_is_written_over_unless_it_is_asked_for() {
    let ground = Ground::start();
    ground.put("/skydns/local/skydns/a", r#"{"host":"10.0.0.1"}"#);
    ground.put("/skydns/local/skydns/b", r#"{"host":"10.0.0.1"}"#);
    put(&ground.at, "/skydns/local/skydns/c", &[("value", r#"{"host":"10.0.0.1"}"#), ("ttl", "900")]);
    ground.cluster.ctl(&["put", "/skydns/local/skydns/a", r#"{"host":"10.0.0.2"}"#]);
    let owned = r#"{"host":"10.0.0.3","owner":"ab12","node":"core-02"}"#;
    ground.cluster.ctl(&["put", "/skydns/local/skydns/b", owned]);
    let lease = ground.cluster.ctl(&["lease", "grant", "100"]);
    let lease = lease.split(' ').nth(1).unwrap();
    ground.cluster.ctl(&["put", "--lease", lease, "/skydns/local/skydns/c", r#"{"host":"10.0.0.1"}"#]);

    let (code, told, _) = ground.import(&["-o", "json"]);
    let told: Value = serde_json::from_str(&told).unwrap();
    assert_eq!((code, &told["written"], &told["there"], &told["left_out"]), (Some(1), &0.into(), &1.into(), &2.into()));
    let reasons: Vec<&str> =
        told["reasons"].as_array().unwrap().iter().map(|it| it["reason"].as_str().unwrap()).collect();
    assert_eq!(
        reasons,
        ["the v3 store has another value: --overwrite writes over it", "it belongs to the agent of core-02"]
    );
    assert_eq!(ground.v3()["/skydns/local/skydns/a"].0, r#"{"host":"10.0.0.2"}"#);

    let (code, told, _) = ground.import(&["--overwrite"]);
    assert!(code == Some(1) && told.contains("2 written (2 of them over others)"), "{told}");
    let v3 = ground.v3();
    assert_eq!(v3["/skydns/local/skydns/a"].0, r#"{"host":"10.0.0.1"}"#);
    assert_eq!(v3["/skydns/local/skydns/b"].0, owned, "an agent's record is never written over");
    assert!(v3["/skydns/local/skydns/c"].1.unwrap() > 800, "it has its new time");
}

/// Loads a suite into the v2 store. What that cannot hold, since a key is a value or a directory there, and what it
/// never lists is left out.
fn load(ground: &Ground, suite: &Suite) -> BTreeMap<String, (String, Option<u64>)> {
    let mut held = BTreeMap::new();
    for service in suite.services() {
        let lease = service.lease.map(|lease| lease.to_string());
        let mut fields = vec![("value", service.value.as_str())];
        fields.extend(lease.as_deref().map(|lease| ("ttl", lease)));
        let is_held = put(&ground.at, &service.path, &fields).status == 201;
        if is_held && !service.path.contains("/_") && flaw(&service.path["/skydns/".len()..]).is_none() {
            held.insert(service.path, (service.value, service.lease));
        }
    }
    held.retain(|_, (value, _)| Record::decode(value.as_bytes()).is_ok());
    held
}

/// They are the keys and values that tests/dns_corpus.rs has a server answer.
#[test]
fn the_records_of_every_suite_of_skydns_come_over_as_they_are() {
    let ground = Ground::start();
    let (mut records, mut leased) = (0, 0);
    for suite in suites() {
        let held = load(&ground, &suite);
        let (_, told, error) = ground.import(&["-o", "json"]);
        let nothing = held.is_empty() && error.contains("the v2 store has no key /skydns");
        assert!(nothing || told.contains(&format!("\"written\": {}", held.len())), "{}: {told}{error}", suite.id());
        let v3 = ground.v3();
        let values = |of: &BTreeMap<String, (String, Option<u64>)>| -> BTreeMap<String, String> {
            of.iter().map(|(key, (value, _))| (key.clone(), value.clone())).collect()
        };
        assert_eq!(values(&v3), values(&held), "{}", suite.id());
        for (key, (_, wanted)) in &held {
            let left = v3[key].1;
            assert_eq!(left.is_some(), wanted.is_some(), "{key}");
            // etcd grants no lease shorter than an election takes.
            assert!(left <= wanted.map(|wanted| wanted.max(2)), "{key}: {left:?} of {wanted:?}");
            leased += usize::from(left.is_some());
        }
        records += held.len();
        delete(&ground.at, "/skydns?recursive=true");
        ground.cluster.ctl(&["del", "--prefix", "/skydns/"]);
    }
    assert!(records > 2_000 && leased > 0, "{records} records, {leased} of them with a lease");
}

#[test]
fn a_tree_that_no_reply_holds_is_read_in_pieces() {
    let ground = Ground::start();
    let deep = format!("/skydns/local/skydns/{}", vec!["d"; 100].join("/"));
    ground.put(&deep, r#"{"host":"10.0.0.1"}"#);
    let deeper = format!("/skydns/local/{}", vec!["d"; 300].join("/"));
    ground.put(&deeper, r#"{"host":"10.0.0.2"}"#);
    ground.put("/skydns/local/skydns/web/1", r#"{"host":"10.0.0.3"}"#);
    let (code, told, _) = ground.import(&[]);
    assert!(code == Some(1) && told.contains("2 written") && told.contains("directories deep"), "{told}");
    assert!(ground.v3().contains_key(&deep));
    // etcd lists nothing that begins with `_`: it has to be named.
    ground.put("/skydns/local/skydns/web/_tcp/_http", r#"{"host":"10.0.0.4","port":80}"#);
    assert!(ground.import(&[]).1.contains(" 0 written"));
    let (code, told, _) = ground.import(&["--from", "/skydns/local/skydns/web/_tcp/_http"]);
    assert!(code == Some(0) && told.contains("1 read, 1 written"), "{told}");
}

#[test]
fn who_cannot_be_asked_is_named_with_what_to_do() {
    let ground = Ground::start();
    let check = |(code, _, error): (Option<i32>, String, String), expected: i32, words: &str| {
        assert!(code == Some(expected) && error.contains(words), "{code:?}: {error}");
    };
    check(ground.import(&[]), 1, "the v2 store has no key /skydns");
    check(ground.import(&["--from", "/wharf/services"]), 2, "what is no service");
    check(ground.import(&["--from", "skydns"]), 2, "is no key such as");
    check(ground.import(&["--v2-endpoints", "ftp://a"]), 2, "--v2-endpoints");
    check(ground.import(&["--v2-endpoints", "http://127.0.0.1:1"]), 3, "the v2 store at http://127.0.0.1:1");
    check(import(&[]), 2, "no etcd is named");
    let without = Cluster::start(1);
    check(ground.import(&["--v2-endpoints", &without.endpoints()[0]]), 3, "has no v2 store");
    for (reply, expected, words) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 3, "no reply of etcd's v2 API"),
        (
            "HTTP/1.1 401 Unauthorized\r\nContent-Length: 42\r\n\r\n{\"errorCode\":110,\"message\":\"who are you?\"} ",
            1,
            "who are you?",
        ),
        ("SSH-2.0-OpenSSH\r\n", 3, "the v2 store at"),
        (
            r#"HTTP/1.1 200 OK

{"node":{"key":"/skydns","dir":true,"nodes":[{"key":"/wharf/services/nodes/a","value":"{}"}]}}"#,
            3,
            "not below /skydns",
        ),
    ] {
        let strange = strange(move |_| reply.as_bytes().to_vec());
        check(ground.import(&["--v2-endpoints", &strange]), expected, words);
    }
    assert!(ground.v3().is_empty());
}

/// A server that replies what it is told to, by the request's first line.
fn strange(reply: impl Fn(&str) -> Vec<u8> + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let at = format!("http://{}", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
            let mut request = [0; 4096];
            let length = stream.read(&mut request).unwrap_or(0);
            let request = String::from_utf8_lossy(&request[..length]).into_owned();
            drop(stream.write_all(&reply(request.lines().next().unwrap_or_default())));
        }
    });
    at
}

#[test]
fn a_reply_that_is_longer_than_is_read_is_asked_for_in_pieces() {
    let ground = Ground::start();
    let body = |text: &str| format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()).into_bytes();
    let at = strange(move |request| match request.split(' ').nth(1).unwrap_or_default() {
        "/v2/keys/skydns?quorum=true&recursive=true" => body(&" ".repeat(65 << 20)),
        "/v2/keys/skydns?quorum=true&recursive=false" => {
            body(r#"{"node":{"key":"/skydns","dir":true,"nodes":[{"key":"/skydns/local","dir":true,"ttl":90}]}}"#)
        }
        "/v2/keys/skydns/local?quorum=true&recursive=true" => body(
            r#"{"node":{"key":"/skydns/local","dir":true,"nodes":[{"key":"/skydns/local/a","value":"{\"host\":\"10.0.0.1\"}"}]}}"#,
        ),
        _ => body(r#"{"errorCode":100,"message":"Key not found"}"#),
    });
    let (code, told, error) = ground.import(&["--v2-endpoints", &at]);
    assert!(code == Some(0) && told.contains("1 read, 1 written"), "{told}{error}");
    assert!(ground.v3()["/skydns/local/a"].1.is_some(), "it ends with its directory");
    let endless = strange(move |_| body(&" ".repeat(65 << 20)));
    let (code, _, error) = ground.import(&["--v2-endpoints", &endless]);
    assert!(code == Some(1) && error.contains("/skydns is more than is read"), "{error}");
}

#[test]
fn the_v2_stores_users_are_its_own() {
    let ground = Ground::start();
    ground.put("/skydns/local/skydns/a", r#"{"host":"10.0.0.1"}"#);
    let json = |target: &str, head: &str, body: &str| {
        let head = format!("Content-Type: application/json\r\n{head}");
        request(&ground.at, "PUT", target, &head, body, PATIENCE).unwrap().status
    };
    assert_eq!(json("/v2/auth/users/root", "", r#"{"user":"root","password":"s3cret"}"#), 201);
    assert_eq!(json("/v2/auth/enable", "", ""), 200);
    let root = "Authorization: Basic cm9vdDpzM2NyZXQ=\r\n";
    assert_eq!(
        json("/v2/auth/roles/guest", root, r#"{"role":"guest","revoke":{"kv":{"read":["/*"],"write":["/*"]}}}"#),
        200
    );
    let (code, _, error) = ground.import(&[]);
    assert!(code == Some(1) && error.contains("--v2-user"), "{error}");
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("password");
    std::fs::write(&file, "s3cret\n").unwrap();
    let (code, told, error) = ground.import(&["--v2-user", "root", "--v2-password-file", file.to_str().unwrap()]);
    assert!(code == Some(0) && told.contains("1 written"), "{told}{error}");
}

/// Certificates of one authority in a folder: its own, a server's and a client's.
fn certificates(folder: &Path) -> Tls {
    let path = |name: &str| folder.join(name);
    let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(path("ca.pem"), authority.pem()).unwrap();
    let issue = |name: &str| -> (PathBuf, PathBuf) {
        let mut params = CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let pair = KeyPair::generate().unwrap();
        let files = (path(&format!("{name}.pem")), path(&format!("{name}.key")));
        std::fs::write(&files.0, params.signed_by(&pair, &authority).unwrap().pem()).unwrap();
        std::fs::write(&files.1, pair.serialize_pem()).unwrap();
        files
    };
    Tls { server_ca: path("ca.pem"), server: issue("server"), client_ca: path("ca.pem"), client: issue("client") }
}

#[test]
fn both_stores_are_reached_with_the_agents_certificate_and_a_stranger_is_not_trusted() {
    let folder = tempfile::tempdir().unwrap();
    let tls = certificates(folder.path());
    let flags = vec!["--enable-v2".to_owned()];
    let cluster = Cluster::start_with(1, Options { tls: Some(tls.clone()), flags });
    let at = &cluster.endpoints()[0];
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let (ca, certificate, key) = (text(&tls.server_ca), text(&tls.client.0), text(&tls.client.1));
    let put = Command::new("curl")
        .args(["-s", "--fail", "--insecure", "--cert", &certificate, "--key", &key, "-XPUT"])
        .args(["--data-urlencode", r#"value={"host":"10.0.0.1"}"#, &format!("{at}/v2/keys/skydns/local/skydns/a")])
        .output()
        .unwrap();
    assert!(put.status.success(), "{put:?}");
    let ours = ["--etcd-endpoints", at, "--etcd-cert", &certificate, "--etcd-key", &key];
    let (code, _, error) = import(&ours);
    assert!(code == Some(3) && error.contains("invalid peer certificate"), "{error}");
    let (code, told, error) = import(&[&ours[..], &["--etcd-ca", &ca]].concat());
    assert!(code == Some(0) && told.contains("1 read, 1 written"), "{told}{error}");
    assert!(cluster.ctl(&["get", "/skydns/local/skydns/a"]).contains("10.0.0.1"));
}
