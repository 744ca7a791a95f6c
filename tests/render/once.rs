//! `wharf render --once`: what it writes, what it refuses, and what scripts can tell from its exit code.

use std::os::unix::fs::PermissionsExt;

use crate::program::{told, wharf};
use crate::town::Town;

const TABLE: &str = "[[render]]\nname = 'web'\ntemplate = 'DIR/web.j2'\ndestination = 'DIR/out/web.conf'\n";

fn town(keys: &str) -> Town {
    let town = Town::new("");
    town.tables(&format!("{TABLE}{keys}").replace("DIR", &town.dir.path().display().to_string()));
    town.write("web.j2", "{% for e in service('web').endpoints %}\n{{ e | hostport }} {{ e.text }}\n{% endfor %}\n");
    let text = r#"{"host":"127.0.0.1","port":80,"text":"x\"; evil {}\nserver y"}"#;
    town.put("/services/web/a", text);
    town.put("/services/web/b", r#"{"host":"10.0.0.1; evil","port":81}"#);
    town.shows("web", 2);
    town
}

#[test]
fn a_file_is_written_once_and_nothing_from_outside_ends_a_line_of_it() {
    let town = town("");
    let (code, said, _) = town.once("--once --dry-run --diff");
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("+127.0.0.1:80 x__ evil ___server y\n") && town.files().is_empty(), "{said}");
    assert_eq!(town.once("--once").0, Some(0));
    assert_eq!(town.read("out/web.conf"), "127.0.0.1:80 x__ evil ___server y\n");
    let mode = std::fs::metadata(town.path("out/web.conf")).unwrap().permissions().mode() & 0o7777;
    assert_eq!((mode, town.files()), (0o640, vec!["web.conf".to_owned()]));
    let before = crate::town::inode(&town.path("out/web.conf"));
    assert_eq!(town.once("--once web").0, Some(0));
    assert_eq!(town.once("--once --dry-run").0, Some(0));
    assert_eq!(crate::town::inode(&town.path("out/web.conf")), before, "what is equal is not touched");
    let by_store = format!("--once --dry-run --etcd-endpoints {}", town.etcd.endpoints().join(","));
    let (code, said, complaint) = town.once(&by_store);
    assert_eq!(code, Some(0), "the store says the same: {said}{complaint}");
}

#[test]
fn a_check_that_fails_leaves_the_old_file_and_tells_what_it_said() {
    let town = town("check = ['/bin/sh', '-c', 'echo no way: $0; grep -q good $0', '{{ candidate }}']\n");
    town.write("out/web.conf", "old");
    let (code, _, complaint) = town.once("--once");
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("exit code 1: no way: ") && complaint.contains(".wharf-new.web.conf"), "{complaint}");
    assert!(!complaint.contains("127.0.0.1:80"), "what the file says is shown by --diff alone: {complaint}");
    assert_eq!((town.read("out/web.conf"), town.files()), ("old".to_owned(), vec!["web.conf".to_owned()]));
    town.write("web.j2", "good\n");
    assert_eq!(town.once("--once").0, Some(0));
    assert_eq!(town.read("out/web.conf"), "good\n");
}

#[test]
fn exit_codes_tell_scripts_what_to_do() {
    let town = town("min = { web = 2 }\n");
    let (code, _, complaint) = town.once("--once");
    assert_eq!(code, Some(3), "{complaint}");
    assert!(complaint.contains("web has 1 endpoint, min is 2") && town.files().is_empty(), "{complaint}");
    town.web("c", 82);
    town.shows("web", 3);
    town.write("web.j2", "a\n  {{ nothing }}\n");
    let (code, _, complaint) = town.once("--once");
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.contains("web.j2:2:6: undefined value"), "{complaint}");
    assert_eq!(town.once("--once nobody").0, Some(2));
    assert_eq!(town.once("nobody").0, Some(1), "the list has no such file");
    let (code, _, complaint) = town.once("--once --http 127.0.0.1:1");
    assert_eq!(code, Some(3), "{complaint}");
    let bad = "[[render]]\nname = 'x'\ntemplate = '/x'\ndestination = '/x'\n".repeat(2);
    town.tables(&bad);
    let (code, _, complaint) = town.once("--once");
    assert_eq!(code, Some(2), "{complaint}");
    assert!(complaint.contains("destination of more than one table"), "{complaint}");
    town.tables("[[render]]\nbuiltin = 'hosts'\ntemplate = '/x'\ndestination = 'x'\nwhat = 1\n");
    let output = wharf().args(["check-config", "--config"]).arg(town.path("wharf.toml")).output().unwrap();
    let (code, _, complaint) = told(&output);
    assert_eq!(code, Some(2), "{complaint}");
    for part in ["render[1].builtin", "render[1].destination", "render[1].what"] {
        assert!(complaint.contains(part), "{part}: {complaint}");
    }
}

#[test]
fn a_reload_that_fails_is_told_and_the_old_file_comes_back_where_that_is_wanted() {
    let town = town("reload = ['/bin/sh', '-c', 'test -e DIR/fine']\nrollback = true\n");
    town.write("out/web.conf", "old");
    let (code, _, complaint) = town.once("--once");
    assert_eq!(code, Some(1), "{complaint}");
    assert!(complaint.contains("reload: exit code 1") && complaint.contains("the old file is back"), "{complaint}");
    assert_eq!(town.read("out/web.conf"), "old");
    town.write("fine", "");
    assert_eq!(town.once("--once").0, Some(0));
    assert_eq!(town.files(), ["web.conf"]);
}

#[test]
fn keys_of_the_store_are_read_and_nothing_else_of_it() {
    let town = town("");
    town.write(
        "web.j2",
        "{{ kv('/config/limit') | default('none') }} {{ nodes | map(attribute='node') | join(',') }}\n",
    );
    assert_eq!(town.once("--once").0, Some(0));
    assert_eq!(town.read("out/web.conf"), "none core-01\n");
    town.put("/config/limit", "17\n");
    assert_eq!(town.once("--once").0, Some(0));
    assert_eq!(town.read("out/web.conf"), "17_ core-01\n");
    town.write("web.j2", "{{ kv('/services/web/a') }}");
    assert_eq!(town.once("--once").0, Some(2));
}
