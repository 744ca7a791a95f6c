//! The whole way from flags, environment and file to settings, and every problem told at once.

use std::time::Duration;

use super::*;

fn here() -> Surroundings {
    Surroundings { hostname: "core-01".to_owned(), ..Surroundings::default() }
}

fn load(file: &str) -> Result<Config, Vec<String>> {
    load_with(&Raw::default(), file, &here())
}

fn load_with(flags: &Raw, file: &str, surroundings: &Surroundings) -> Result<Config, Vec<String>> {
    Config::load(flags, Some(("wharf.toml", file)), surroundings)
        .map_err(|problems| problems.0.iter().map(ToString::to_string).collect())
}

#[test]
fn nothing_given_serves_one_host() {
    let config = load("").expect("defaults are valid");
    assert_eq!(config.node, "core-01");
    assert_eq!(config.store.etcd, None);
    assert_eq!(config.store.prefix.as_str(), "/services");
    assert_eq!(config.store.lease_ttl, Duration::from_secs(30));
    assert_eq!(config.offer.docker, "unix:///var/run/docker.sock");
    assert_eq!(config.dns.listen, ["127.0.0.1:5300".parse().expect("an address")]);
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let problems = load(
        "lease_ttl = '3 parsecs'\nprefix = 'services'\nprobe-fall = 0\ncolour = 'blue'\nadvertise = ['10.0.0.1', 'not an interface']\n\
         dns = '127.0.0.1'\ninternal = 'maybe'\n[[service]]\nname = 'db'\nprot = 'tcp'",
    );
    assert_eq!(
        problems.expect_err("all of it is wrong"),
        [
            "wharf.toml: advertise: \"not an interface\" is no address, network, interface name or auto",
            "wharf.toml: colour: no such setting",
            "wharf.toml: dns: \"127.0.0.1\" is no address with a port, such as 127.0.0.1:5300 or [::1]:53",
            "wharf.toml: internal: \"maybe\" is neither true nor false",
            "wharf.toml: lease-ttl: \"3 parsecs\" is no time such as 30s or 500ms",
            "wharf.toml: prefix: \"services\" is no key such as /services",
            "wharf.toml: probe-fall: \"0\" is no whole number between 1 and 1000",
            "wharf.toml: service[1].port: is needed",
            "wharf.toml: service[1].prot: no such setting",
        ]
    );
}

#[test]
fn autodiscovery_has_a_table_for_each_service() {
    let wrong = "[[autodiscovery]]\nlisten = 'x'\n[[autodiscovery]]\nservice = 'a'\nlisten = '127.0.0.1:5380'\n\
                 leave-after = '0s'\ntls-cert = 'c'\n[[autodiscovery]]\nservice = 'memcached.cfg'\nport = 1\n\
                 [[autodiscovery]]\nservice = 'b'\n[[autodiscovery]]\nservice = 'b'\nlisten = '127.0.0.1:0'";
    let problems = load(wrong).expect_err("they are wrong").join("\n");
    for part in [
        "autodiscovery[1].service: is needed",
        "autodiscovery[1].listen: \"x\" is no address",
        "autodiscovery[2].leave-after: 0s is not between 1s and 1day",
        "autodiscovery[2].tls-cert: a certificate needs its key",
        "autodiscovery[3].service: \"memcached.cfg\" is no service's name",
        "autodiscovery[3].port: no such setting",
        "autodiscovery: b has more than one table",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
    let twice = "[[autodiscovery]]\nservice = 'a'\n[[autodiscovery]]\nservice = 'b'";
    let problems = load(twice).expect_err("one address").join("\n");
    assert!(problems.contains("127.0.0.1:11311 cannot be served on beside 127.0.0.1:11311"), "{problems}");
}

#[test]
fn ordinals_have_roles_and_exhibitor_lists_by_the_only_one() {
    let config = load("exhibitor = '127.0.0.1:8181'\n[[ordinal]]\nrole = 'nucleus'").expect("valid");
    let exhibitor = config.exhibitor.expect("it is given");
    assert_eq!((exhibitor.service.as_str(), exhibitor.ordinal), ("zookeeper", config.ordinals.first().cloned()));
    let two = load("exhibitor = '127.0.0.1:8181'\n[[ordinal]]\nrole = 'a'\n[[ordinal]]\nrole = 'b'").expect("valid");
    assert_eq!(two.exhibitor.as_ref().expect("it is given").ordinal, None);
    assert_eq!(load("").expect("valid").changed_keys(&two), ["exhibitor", "ordinal"]);
    let wrong = "exhibitor = '127.0.0.1:5380'\n[[ordinal]]\n[[ordinal]]\nrole = 'A'\n[[ordinal]]\nrole = 'b'\n\
                 [[ordinal]]\nrole = 'b'\nnode = 'x'";
    let mut problems = load(wrong).expect_err("they are wrong").join("\n");
    problems.push_str(&load("exhibitor = '127.0.0.1:5380'").expect_err("one address").join("\n"));
    problems.push_str(&load("exhibitor-service = 'zk'").expect_err("nobody is told").join("\n"));
    for part in [
        "ordinal[1].role: is needed",
        "ordinal[2].role: \"A\" is no role",
        "ordinal[4].node: no such setting",
        "ordinal: b has more than one table",
        "exhibitor: 127.0.0.1:5380 cannot be served on beside 127.0.0.1:5380",
        "exhibitor-service: nobody is told",
    ] {
        assert!(problems.contains(part), "{part} in {problems}");
    }
}

#[test]
fn secrets_are_for_containers_by_name() {
    let table = "check-secrets = '/s'\n[[secret]]\nfile = 'redis.pw'\ncontainer = 'redis-*'";
    let config = load(table).expect("valid");
    assert!(config.probe.rules[0].lets("redis-1", "redis.pw"));
    assert_eq!(load("").expect("valid").changed_keys(&config), ["check-secrets", "secret"]);
    let wrong = "[[secret]]\nfile = '../shadow'\ncontainer = '*'\n[[secret]]\nfile = 'a'\nimage = 'redis'\n[[secret]]\nfile = 'a'\ncontainer = '['";
    assert_eq!(
        load(wrong).expect_err("all of it is wrong"),
        [
            "wharf.toml: secret: the directory of these files is missing: give --check-secrets too",
            "wharf.toml: secret[1].file: \"../shadow\" is no bare file name inside --check-secrets",
            "wharf.toml: secret[2].container: is needed",
            "wharf.toml: secret[2].image: no such setting",
            "wharf.toml: secret[3].container: \"[\": unclosed character class; missing ']'",
        ]
    );
}

#[test]
fn a_flag_wins_over_the_file() {
    let flags = Raw { node: Some("flagged".to_owned()), lease_ttl: Some("5s".to_owned()), ..Raw::default() };
    let config = load_with(&flags, "node = 'filed'\nlease-ttl = '9s'\nrate_limit = 7", &here()).expect("valid");
    assert_eq!((config.node.as_str(), config.store.lease_ttl), ("flagged", Duration::from_secs(5)));
    assert_eq!(config.dns.rate_limit, 7);
}

#[test]
fn a_problem_of_a_flag_names_the_flag() {
    let flags = Raw { prefix: Some("nope".to_owned()), ..Raw::default() };
    let problems = load_with(&flags, "prefix = '/fine'", &here()).expect_err("the flag wins");
    assert_eq!(problems, ["--prefix: \"nope\" is no key such as /services"]);
}

#[test]
fn endpoints_choose_etcd_and_get_their_port() {
    let config = load("etcd-endpoints = ['10.0.0.1', 'https://etcd.local:2380/', 'http://[::1]']").expect("valid");
    let etcd = config.store.etcd.expect("etcd");
    assert_eq!(etcd.endpoints, ["http://10.0.0.1:2379", "https://etcd.local:2380", "http://[::1]:2379"]);
}

#[test]
fn localhost_is_no_node_of_a_cluster() {
    let surroundings = Surroundings { hostname: "localhost".to_owned(), ..Surroundings::default() };
    assert!(load_with(&Raw::default(), "", &surroundings).is_ok(), "alone it may be called so");
    assert!(load_with(&Raw::default(), "etcd-endpoints = 'http://10.0.0.1:2379'", &surroundings).is_err());
}

#[test]
fn a_container_must_be_told_who_and_where_it_is() {
    let surroundings = Surroundings { contained: true, ..here() };
    let problems = load_with(&Raw::default(), "", &surroundings).expect_err("two things are missing");
    assert_eq!(problems.len(), 2, "{problems:?}");
    assert!(load_with(&Raw::default(), "node = 'a'\nadvertise = '10.0.0.9'", &surroundings).is_ok());
}

#[test]
fn halves_of_a_pair_are_refused() {
    for file in ["etcd-cert = 'a'", "etcd-key = 'a'", "etcd-user = 'a'", "etcd-password-file = 'a'"] {
        let file = format!("etcd-endpoints = 'http://10.0.0.1:2379'\n{file}");
        assert_eq!(load(&file).expect_err("half of a pair").len(), 1, "{file}");
    }
}

#[test]
fn a_file_that_is_no_toml_is_one_problem() {
    assert_eq!(load("= nonsense").expect_err("no TOML").len(), 1);
    assert_eq!(load("service = 3").expect_err("no table").len(), 1);
}

#[test]
fn what_was_written_differently_is_named_by_its_key() {
    let old = load("node = 'a'\nlog = 'info'").expect("valid");
    let new = load("log = 'debug'\nlease_ttl = '5s'\n[[service]]\nname = 'x'\nport = 1").expect("valid");
    assert_eq!(old.changed_keys(&new), ["lease-ttl", "log", "node", "service"]);
    assert!(old.changed_keys(&old.clone()).is_empty());
}

#[test]
fn a_service_table_is_an_instance_of_this_host() {
    let config =
        load("[[service]]\nname = 'billing.prod'\nport = 8443\nrole = 'master'\ncheck = 'http'\ncheck-http = '/up'");
    let service = &config.expect("valid").offer.services[0];
    assert_eq!((&*service.name, service.port), ("billing.prod", 8443));
    assert_eq!(service.role, Some(crate::model::words::record::Role::Primary));
    assert_eq!(service.attrs.get("check_http").map(|path| &**path), Some("/up"));
}

/// One of the problems begins with this.
fn check_refused(file: &str, expected: &str) {
    let problems = load(file).err().unwrap_or_else(|| panic!("{file} is taken"));
    assert!(problems.iter().any(|problem| problem.starts_with(expected)), "{file}: {problems:?}");
}

#[test]
fn what_no_agent_could_serve_is_refused() {
    for (file, expected) in [
        ("advertise = '999.1.2.3'", "wharf.toml: advertise"),
        ("advertise = '10.0.0'", "wharf.toml: advertise"),
        ("advertise = '224.0.0.0/4'", "wharf.toml: advertise"),
        ("dns = ['127.0.0.1:5300', '127.0.0.1:5300']", "wharf.toml: dns"),
        ("dns = ['0.0.0.0:5300', '127.0.0.2:5300']", "wharf.toml: dns"),
        ("dns = '224.0.0.1:53'", "wharf.toml: dns"),
        ("dns = '[fe80::1]:53'", "wharf.toml: dns"),
        ("http = '127.0.0.1:5300'", "wharf.toml: http"),
        ("http = '0.0.0.0:5300'", "wharf.toml: http"),
        ("http = '[::]:5300'", "wharf.toml: http"),
        ("http-socket = '/var/run/docker.sock'", "wharf.toml: http-socket"),
        ("http-socket = ''", "wharf.toml: http-socket"),
        ("http-socket = '/run/'", "wharf.toml: http-socket"),
        ("forward = '127.0.0.1:5300'", "wharf.toml: forward"),
        ("dns = '0.0.0.0:53'\nforward = ['127.0.0.1', '127.0.0.53']", "wharf.toml: forward"),
        ("forward = '0.0.0.0'", "wharf.toml: forward"),
        ("forward = '10.0.0.1:0'", "wharf.toml: forward"),
        ("lease-ttl = '5s'\nlease_ttl = '6s'", "wharf.toml: lease-ttl: is given twice"),
        ("node = 'a'\nnode = 'b'", "wharf.toml"),
        ("[[service]]\nname = 'a'\nport = 1\ncheck-http = '/'\ncheck_http = '/'", "wharf.toml: service[1]: check-http"),
        ("[[service]]\nname = 'a'\nport = 1\n[[service]]\nname = 'a'\nport = '1'", "wharf.toml: service: "),
        ("node = '--'", "wharf.toml: node"),
        ("state-dir = ''", "wharf.toml: state-dir"),
        ("http-token-file = ''", "wharf.toml: http-token-file"),
        ("docker = 'tcp://host:0'", "wharf.toml: docker"),
        ("docker = 'tcp://a b'", "wharf.toml: docker"),
        ("docker = 'ssh://host'", "wharf.toml: docker"),
    ] {
        check_refused(file, expected);
    }
    for url in [
        "",
        "http://",
        "http://:2379",
        "http://a:0",
        "http://a:99999",
        "http://a:+1",
        "http://a:",
        "http://999.1.2.3",
        "http://1.2.3",
        "http://[::1",
        "http://[zz]:1",
        "http://::1",
        "http://a b",
        "http://a,b",
        "http://a/x",
        "http://u@a",
        "http://-_%",
        "ftp://a",
        "http://a:1:2",
        "unix:///x",
    ] {
        check_refused(&format!("store = 'etcd'\netcd-endpoints = ['{url}']"), "wharf.toml: etcd-endpoints");
    }
}

#[test]
fn what_can_be_served_together_is_taken() {
    for file in [
        "dns = ['0.0.0.0:53', '[::]:53']\nhttp = '127.0.0.1:5380'",
        "dns = ['127.0.0.1:0', '127.0.0.1:0']\nhttp = '127.0.0.1:0'",
        "dns = ['127.0.0.1:53', '127.0.0.2:53']\nhttp = '127.0.0.3:53'",
        "forward = ['127.0.0.1:5300', '10.0.0.1']",
        "forward = 'system'",
        "advertise = ['eth0', '10.0.0.0/8']",
        "advertise = 'br-0123456789'",
        "[[service]]\nname = 'a'\nport = 1\n[[service]]\nname = 'a'\nport = 2",
        "docker = 'tcp://proxy'",
        "docker = 'http://[::1]:2375/'",
    ] {
        assert!(load(file).is_ok(), "{file}: {:?}", load(file));
    }
}

#[test]
fn only_what_is_live_is_taken_while_the_agent_runs() {
    let running = load("tags = ['a']\ninternal = true\nnode = 'one'").expect("valid");
    let read = load("tags = ['b']\nadvertise = '10.0.0.9'\nnode = 'two'").expect("valid");
    let now = running.taking(&read, &["tags"], &here()).expect("valid");
    assert_eq!(
        (now.offer.tags.as_slice(), now.offer.internal, now.node.as_str()),
        (&["b".to_owned()][..], true, "one")
    );
    assert_eq!(now.changed_keys(&running), ["tags"]);
    assert_eq!(read.changed_keys(&now), ["advertise", "internal", "node"]);
    let again = now.taking(&read, &["tags"], &here()).expect("valid");
    assert_eq!(again, now, "read a second time nothing more is taken");
    assert_eq!(read.changed_keys(&again), ["advertise", "internal", "node"], "and it still waits");
}

#[test]
fn an_ambassador_listens_where_nothing_else_does_and_leads_to_nothing_of_its_own() {
    let table = |listen: &str, rest: &str| format!("[[proxy]]\nname = 'a'\nlisten = '{listen}'\n{rest}\n");
    let service = "[[service]]\nname = 'db'\nport = 5432\n";
    let second = "[[proxy]]\nname = 'b'\nlisten = '127.0.0.1:5432'\nservice = 'db'\n";
    let refused = |text: &str, expected: &str| {
        let problems = load(text).expect_err(text);
        assert!(problems.iter().any(|problem| problem.contains(expected)), "{expected}: {problems:?}");
    };
    assert!(load(&format!("{}{service}", table("127.0.0.1:5432", "service = 'db'"))).is_ok());
    refused(&table("127.0.0.1:5300", "service = 'db'"), "table 1: 127.0.0.1:5300 cannot be listened on beside");
    refused(&format!("{}{second}", table("0.0.0.0:5432", "service = 'db'")), "table 2: 127.0.0.1:5432");
    refused(&format!("{}{second}", table("127.0.0.1:1", "service = 'db'\n[[proxy]]\nname = 'a'\n")), "proxy[2].listen");
    refused(&format!("{}{service}", table("0.0.0.0:5432", "service = 'db'")), "is where the service db is");
    let advertised = "advertise = '10.0.0.1'\n";
    refused(&format!("{advertised}{}{service}", table("10.0.0.1:5432", "service = 'db'")), "where the service db");
    assert!(load(&format!("{advertised}{}{service}", table("172.17.0.1:5432", "service = 'db'"))).is_ok());
    let etcd = table("127.0.0.1:2379", "upstream = 'etcd'");
    refused(&etcd, "needs --etcd-endpoints");
    refused(
        &format!("etcd-endpoints = 'http://etcd.example:2379'\n{etcd}"),
        "needs --etcd-endpoints that are addresses",
    );
    let config = load(&format!("etcd-endpoints = ['http://localhost:1', 'http://[::1]:2']\n{etcd}")).expect("valid");
    assert_eq!(config.etcd_addresses().map(|addresses| addresses.len()), Some(2));
}
