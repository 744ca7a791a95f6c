use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::catalog::facade::api;
use crate::model::words::node::NodeRecord;
use crate::model::words::site::{Site, Standpoint};

/// What is seen when these endpoints are: `service {record}` a line.
fn sight(lines: &str) -> Sight {
    let mut sight = Sight { read: true, nodes: Some(Arc::default()), ..Sight::default() };
    let site = Site::parse("west/a").expect("a site");
    sight.standpoint = Standpoint::new("core-01", Some(site), false);
    for (number, line) in lines.lines().filter(|line| !line.trim().is_empty()).enumerate() {
        let (service, record) = line.trim().split_once(' ').expect("service and record");
        let mut endpoint: api::Endpoint = serde_json::from_str(record).expect("a record");
        if endpoint.key.is_empty() {
            endpoint.key = format!("/services/{service}/{number}").into();
        }
        let mut all = sight.services.get(service).map(|service| (**service).clone()).unwrap_or_default();
        all.name = service.into();
        all.endpoints.push(endpoint);
        all.contested = all.with_role(crate::model::words::record::Role::Primary) > 1;
        sight.services.insert(service.into(), Arc::new(all));
    }
    sight
}

fn source(text: &str) -> Source {
    Source { name: "x.j2".into(), text: text.into(), with: Arc::default() }
}

fn rendered(text: &str, sight: &Sight) -> Result<String, Fault> {
    let environment = BTreeMap::from([("WHARF_RENDER_HOME".to_owned(), "/home".to_owned())]);
    render(&source(text), sight, &environment).text
}

fn check(text: &str, sight: &Sight, expected: &str) {
    assert_eq!(rendered(text, sight).as_deref(), Ok(expected), "{text}");
}

fn wrong(text: &str, sight: &Sight, expected: &str) {
    match rendered(text, sight) {
        Err(Fault::Wrong(what)) => assert!(what.contains(expected), "{text}: {what}"),
        other => panic!("{text}: {other:?}"),
    }
}

const REDIS: &str = r#"
    redis {"host":"10.0.0.1","port":6379,"role":"primary","node":"core-01","tags":["v7"],"attrs":{"x":"a\"b\n"}}
    redis {"host":"2001:db8::2","port":6379,"role":"replica","node":"core-02","site":"west/b"}
    redis {"host":"cache.example.com","port":6380,"role":"replica","node":"core-03","site":"west/a"}
    redis {"host":"10.0.0.9; rm -rf /","port":1}
    web {"host":"10.0.0.5","port":80,"text":"evil\nserver x"}
"#;

#[test]
fn a_template_sees_numbers_of_hosts() {
    let node = |name: &str, number: Option<u32>| NodeRecord {
        node: name.into(),
        addresses: vec!["10.0.0.7".parse().expect("an address")],
        ordinals: number.map(|number| ("nucleus".into(), number)).into_iter().collect(),
        ..NodeRecord::default()
    };
    let mut sight = sight("");
    sight.nodes = Some(Arc::new(vec![node("core-01", Some(2)), node("core-02", Some(1)), node("core-03", None)]));
    check("{{ ordinal('nucleus') }}", &sight, "2");
    check("{{ ordinal('body') | default('none') }}", &sight, "none");
    check(
        "{% for n in nodes if n.ordinals.nucleus is defined %}server.{{ n.ordinals.nucleus }}={{ n.addresses[0] }} {% endfor %}",
        &sight,
        "server.2=10.0.0.7 server.1=10.0.0.7 ",
    );
}

#[test]
fn a_template_sees_services_and_each_field_of_their_endpoints() {
    let sight = sight(REDIS);
    check("{{ services | join(',') }}", &sight, "redis,web");
    check(
        "{% for e in service('redis').endpoints %}\n{{ e | hostport }}\n{% endfor %}",
        &sight,
        "10.0.0.1:6379\n[2001:db8::2]:6379\ncache.example.com:6380\n",
    );
    check("{{ service('redis').primary.host }} {{ service('redis').replicas | length }}", &sight, "10.0.0.1 2");
    check("{{ service('redis', role='replica', node='core-03').endpoints[0].port }}", &sight, "6380");
    check("{{ service('redis', tag='V7').endpoints | map(attribute='node') | join }}", &sight, "core-01");
    check("{{ service('redis', near=true).endpoints | map(attribute='distance') | join(' ') }}", &sight, "0 1 2");
    check("{{ service('none').endpoints | length }}{{ service('none').primary }}", &sight, "0None");
    check("{{ service('web').endpoints[0].role is none }}", &sight, "True");
    check(
        "{{ service('redis').endpoints | sort_by('node', reverse=true) | map(attribute='node') | join(',') }}",
        &sight,
        "core-03,core-02,core-01",
    );
    check(
        "{{ service('redis').endpoints | sort_by('site,node') | map(attribute='node') | join(',') }}",
        &sight,
        "core-03,core-02,core-01",
    );
    check("{{ env('HOME') }}{{ env('WHARF_RENDER_HOME') }}{{ env('PATH') | default('-') }}", &sight, "/home/home-");
    let endpoint = "{{ service('redis').endpoints[0] | json }}";
    let told: serde_json::Value = serde_json::from_str(&rendered(endpoint, &sight).expect("JSON")).expect("JSON");
    assert_eq!((&told["attrs"]["x"], &told["weight"]), (&"a\"b\n".into(), &serde_json::Value::Null));
    for field in [
        "id",
        "service",
        "node",
        "site",
        "owner",
        "proto",
        "priority",
        "ttl",
        "text",
        "group",
        "mail",
        "since",
        "targetstrip",
        "host6",
        "container",
        "image",
        "key",
        "distance",
    ] {
        assert!(told.get(field).is_some(), "{field}");
    }
}

#[test]
fn a_large_service_is_within_the_bounds() {
    let mut sight = sight("web {\"host\":\"10.0.0.1\",\"port\":80,\"node\":\"core-01\"}");
    let web = Arc::make_mut(sight.services.get_mut("web").expect("it is there"));
    web.endpoints = vec![web.endpoints[0].clone(); 20_000];
    let field = "{{ e.host }}{{ e.port }}";
    let text = format!("{{% for e in service('web').endpoints %}}{}{{% endfor %}}", field.repeat(5));
    assert_eq!(rendered(&text, &sight).map(|text| text.len()), Ok(20_000 * 5 * "10.0.0.180".len()));
}

#[test]
fn whitespace_is_as_configuration_files_want_it() {
    let sight = sight("");
    check("a\n  {% if true %}\n  b\n  {% endif %}\nc\n", &sight, "a\n  b\nc\n");
    check("{# x #}\na\n\n", &sight, "a\n\n");
}

#[test]
fn what_others_wrote_is_harmless_unless_it_is_quoted_or_raw() {
    let sight = sight(REDIS);
    check("{{ service('web').endpoints[0].text }}", &sight, "evil_server x");
    check("{{ service('web').endpoints[0].text | upper ~ '\n;' }}", &sight, "EVIL_SERVER X\n;");
    check("{{ [service('web').endpoints[0].text, 'y'] | join(';\n') }}", &sight, "evil_server x;\ny");
    check("{{ service('web').endpoints[0].text | raw }}", &sight, "evil\nserver x");
    check("{{ service('web').endpoints[0].text | sh }}", &sight, "'evil\nserver x'");
    check("{{ service('web').endpoints[0].text | haproxy }}", &sight, "\"evil\\x0aserver x\"");
    check("{{ service('redis').endpoints[0].attrs.x | json }}", &sight, r#""a\"b\n""#);
    check("{{ service('redis').endpoints[0].attrs | toml }}", &sight, r#"{"x" = "a\"b\n"}"#);
    check("{{ service('redis').endpoints[0].attrs }}", &sight, "{'x': 'a_b_'}");
}

#[test]
fn what_is_wrong_is_told_with_file_line_and_column() {
    let sight = sight(REDIS);
    wrong("a\nb {{ nothing }}", &sight, "x.j2:2:6: undefined value");
    wrong("{{ service('redis').endpoints[0].nothing }}", &sight, "x.j2:1:4: undefined value");
    wrong("{% if nothing %}{% endif %}", &sight, "x.j2:1:7");
    wrong("a\n\n{% for %}", &sight, "x.j2:3:8");
    wrong("{{ service('redis', roll='x') }}", &sight, "x.j2:1:4");
    wrong("{{ service('redis', role='king') }}", &sight, "neither primary nor replica");
    wrong("{{ kv('/secret/x') }}", &sight, "below /config/");
    wrong("{{ kv('/config/x') }}", &sight, "etcd");
    wrong("{{ env('PATH') }}", &sight, "undefined value");
    wrong("{% include 'y' %}", &sight, "x.j2:1:4");
    wrong(
        "{% set ns = namespace(x=0) %}{% for a in range(100000) %}{% for b in range(100000) %}{% set ns.x = a %}{% endfor %}{% endfor %}",
        &sight,
        "fuel",
    );
    wrong("{{ 'x' * 100000000000 }}", &sight, "x.j2:1:4");
}

#[test]
fn it_is_rendered_again_only_for_what_it_called() {
    let (before, text) = (sight(REDIS), "{{ service('redis', role='replica').endpoints | length }}");
    let mut needs = render(&source(text), &before, &BTreeMap::new()).needs;
    let mut check = |now: &str, expected: bool| {
        assert_eq!(needs.look(&sight(now)), expected, "{now}");
        assert!(!needs.look(&sight(now)), "it was taken in");
    };
    check(REDIS, false);
    check(&REDIS.replace("10.0.0.5", "10.0.0.6"), false);
    check(&REDIS.replace("10.0.0.1\"", "10.0.0.7\""), false);
    check(&REDIS.replace("6380", "6381"), true);
    check("", true);
    check("", false);
}

#[test]
fn a_file_waits_only_for_what_its_template_lists() {
    let whole = sight(REDIS);
    let needs = |text: &str| render(&source(text), &whole, &BTreeMap::new()).needs;
    let (redis, nothing) = (needs("{{ service('redis').name }}"), needs("fixed"));
    let none = BTreeMap::new();
    let stale = Sight { stale: true, ..whole.clone() };
    let unread = Sight { read: false, stale: true, ..Sight::default() };
    let held = sight(&REDIS.replace("\"port\":6379", "\"held\":true,\"port\":6379"));
    assert_eq!(hold(&redis, &none, &whole), None);
    assert!(matches!(hold(&redis, &none, &stale), Some(Hold::Stale(_))));
    assert!(matches!(hold(&redis, &none, &unread), Some(Hold::Unread(_))));
    assert_eq!(hold(&redis, &none, &held), Some(Hold::Held("redis".into())));
    assert_eq!(hold(&needs("{{ service('web').name }}"), &none, &held), None);
    for sight in [&stale, &unread, &held] {
        assert_eq!(hold(&nothing, &none, sight), None);
    }
    let min = BTreeMap::from([("redis".to_owned(), 3)]);
    assert_eq!(hold(&nothing, &min, &whole), None, "three can be written");
    let min = BTreeMap::from([("redis".to_owned(), 4)]);
    assert_eq!(
        hold(&nothing, &min, &whole).map(|hold| hold.to_string()).as_deref(),
        Some("redis has 3 endpoints, min is 4")
    );
}

#[test]
fn keys_are_waited_for_until_they_are_read() {
    let mut sight = sight("");
    sight.has_keys = true;
    let text = "{% if kv('/config/x') is defined %}{{ kv('/config/x') }}{% else %}-{% endif %}";
    assert_eq!(rendered(text, &sight), Err(Fault::Unread));
    for (value, expected) in [(Some("a\n"), "a_"), (None, "-")] {
        let seen = Seen::Known(value.map(Into::into));
        sight.keys = Arc::new(BTreeMap::from([("/config/x".to_owned(), seen)]));
        check(text, &sight, expected);
    }
}

#[test]
fn built_ins_are_what_their_programs_read() {
    let sight = sight(REDIS);
    let of = |builtin: Builtin, with: &str| {
        let with: toml::Table = with.parse().expect("TOML");
        assert_eq!(builtin.problems(&with), [], "{with}");
        render(&builtin.source(&Arc::new(with)), &sight, &BTreeMap::new()).text.expect("it renders")
    };
    let haproxy = of(
        Builtin::Haproxy,
        "stats = '/run/h.sock'\n[listen]\nweb = '*:80'\nredis = {bind='127.0.0.1:6379', role='replica'}\n",
    );
    assert!(haproxy.contains("listen redis\n    bind 127.0.0.1:6379\n    balance roundrobin\n    server 2001-db8--2-6379 [2001:db8::2]:6379 check\n    server cache.example.com-6380 cache.example.com:6380 check\n\nlisten web\n"), "{haproxy}");
    let nginx = of(Builtin::Nginx, "services = ['redis', 'none']\nkeepalive = 8\n");
    assert!(nginx.ends_with("upstream redis {\n    server 10.0.0.1:6379;\n    server [2001:db8::2]:6379;\n    keepalive 8;\n}\nupstream none {\n    server 127.0.0.1:1 down; # nobody serves now, and an upstream needs one\n    keepalive 8;\n}\n"), "{nginx}");
    let hosts = of(Builtin::Hosts, "lines = ['10.1.1.1 gw']\n");
    assert!(hosts.ends_with("ip6-loopback\n10.1.1.1 gw\n10.0.0.1 redis.services.internal\n2001:db8::2 redis.services.internal\n10.0.0.5 web.services.internal\n"), "{hosts}");
    let mcrouter = of(Builtin::Mcrouter, "service = 'web'\nlocal = '127.0.0.1:11212'\ncentral = ['10.0.9.1:11211']\n");
    let told: serde_json::Value = serde_json::from_str(&mcrouter).expect("JSON");
    assert_eq!(told["pools"]["peers"]["servers"], serde_json::json!(["10.0.0.5:80"]), "{mcrouter}");
    assert!(mcrouter.ends_with("}\n"));
    let problems = Builtin::Mcrouter.problems(&"service = 'a b'\nlocal = 'x'\nmore = 1\n".parse().expect("TOML"));
    assert_eq!(problems.len(), 4, "{problems:?}");
}
