//! `wharf render --follow`: when a file is made again, when not, and what becomes of what fails.

use rustix::process::Signal;

use crate::town::{Town, inode};

const WEB: &str = "{% for e in service('web').endpoints %}\n{{ e | hostport }}\n{% endfor %}\n";

/// One with this table for `web.j2`, which lists the endpoints of `web`.
fn town(keys: &str) -> Town {
    let town = Town::new("");
    town.write("web.j2", WEB);
    tables(&town, keys);
    town.web("a", 80);
    town.shows("web", 1);
    town
}

fn tables(town: &Town, keys: &str) {
    let table =
        format!("[[render]]\nname = 'web'\ntemplate = 'DIR/web.j2'\ndestination = 'DIR/out/web.conf'\n{keys}\n");
    town.tables(&table.replace("DIR", &town.dir.path().display().to_string()));
}

#[test]
fn a_file_follows_what_its_template_calls_and_nothing_else() {
    let town = town("wait = '10ms:1s'\nmin = { web = 1 }\n");
    let follow = town.follow();
    town.until_file("out/web.conf", "made", |text| text == "127.0.0.1:80\n");
    let first = inode(&town.path("out/web.conf"));
    town.put("/services/other/a", r#"{"host":"10.0.0.1","port":1}"#);
    town.web("b", 81);
    town.until_file("out/web.conf", "made again", |text| text == "127.0.0.1:80\n127.0.0.1:81\n");
    assert_ne!(inode(&town.path("out/web.conf")), first);
    town.delete("/services/web/a");
    town.delete("/services/web/b");
    town.until_stands("web", "waits", |told| {
        told["state"] == "waiting" && told["reason"].to_string().contains("min is 1")
    });
    assert!(
        town.read("out/web.conf").contains(":81") || town.read("out/web.conf").contains(":80"),
        "the last good file"
    );
    town.agent.prints("explain", "why the file waits", |text| {
        text.contains("(web) is waiting: web has 0 endpoints, min is 1")
    });
    town.web("c", 83);
    town.until_file("out/web.conf", "made again", |text| text == "127.0.0.1:83\n");
    town.until_stands("web", "is current", |told| told["state"] == "current" && told["writes"].as_u64() >= Some(3));
    let metrics = town.agent.wharf("render web");
    let shown = String::from_utf8_lossy(&metrics.stdout).into_owned();
    assert!(shown.contains("depends on  service web"), "{shown}");
    assert!(follow.stop().success());
    assert_eq!(town.files(), ["web.conf"]);
}

#[test]
fn templates_that_are_edited_and_tables_that_are_read_again_count_at_once() {
    let town = town("");
    let follow = town.follow();
    town.until_file("out/web.conf", "made", |text| text == "127.0.0.1:80\n");
    town.write("web.j2", "{{ nothing }}");
    town.until_stands("web", "is wrong", |told| {
        told["state"] == "wrong" && told["reason"].to_string().contains("web.j2:1:4")
    });
    town.write("new.j2", "by rename\n");
    std::fs::rename(town.path("new.j2"), town.path("web.j2")).unwrap();
    town.until_file("out/web.conf", "of the new template", |text| text == "by rename\n");
    let second = "[[render]]\nname = 'second'\nbuiltin = 'hosts'\ndestination = 'DIR/out/hosts'\n";
    tables(&town, &second.replace("DIR", &town.dir.path().display().to_string()));
    follow.signal(Signal::HUP);
    town.until_file("out/hosts", "made", |text| text.contains("127.0.0.1 web.services.internal\n"));
    town.tables("[[render]]\nname = 'x'\n");
    follow.signal(Signal::HUP);
    town.until_file("log", "told of the bad table", |text| text.contains("reload refused"));
    town.write("web.j2", "still at work\n");
    town.until_file("out/web.conf", "made", |text| text == "still at work\n");
}

#[test]
fn equal_reloads_are_run_once_and_one_that_fails_again_until_it_works() {
    let reload = "reload = ['/bin/sh', '-c', 'echo x >> DIR/reloads; test -e DIR/fine']\nwait = '300ms:5s'\n";
    let second =
        format!("[[render]]\nname = 'other'\ntemplate = 'DIR/web.j2'\ndestination = 'DIR/out/other.conf'\n{reload}");
    let town = town(&format!("{reload}{second}"));
    let _follow = town.follow();
    let reloads = || town.read("reloads").lines().count();
    town.until_stands("web", "owes a reload", |told| told["reload_owed"] == true && told["state"] == "failed");
    town.write("fine", "");
    for name in ["web", "other"] {
        town.until_stands(name, "is loaded", |told| told["reload_owed"] == false && told["state"] == "current");
    }
    assert_eq!(town.files(), ["other.conf", "web.conf"]);
    let before = reloads();
    town.web("b", 81);
    town.until_file("out/web.conf", "made again", |text| text.contains(":81"));
    town.until_stands("other", "is loaded", |told| told["writes"] == 2 && told["reload_owed"] == false);
    town.until_stands("web", "is loaded", |told| told["writes"] == 2 && told["reload_owed"] == false);
    assert_eq!(reloads(), before + 1, "both changed together");
}

#[test]
fn a_store_that_is_away_leaves_the_last_good_file_and_one_that_is_not_there_is_made_of_what_there_is() {
    let mut town = town("wait = '10ms:1s'\n");
    let follow = town.follow();
    town.until_file("out/web.conf", "made", |text| text == "127.0.0.1:80\n");
    town.etcd.members[0].kill();
    town.until_stands("web", "is current while nothing changes", |told| told["state"] == "current");
    town.agent.until("the agent is stale", |agent| {
        String::from_utf8_lossy(&agent.wharf("services -o json").stdout).contains("\"stale\": true")
    });
    town.write("web.j2", &format!("# new\n{WEB}"));
    town.until_stands("web", "waits", |told| told["state"] == "waiting" && told["reason"].to_string().contains("away"));
    assert_eq!(town.read("out/web.conf"), "127.0.0.1:80\n");
    assert_eq!(town.once("--once").0, Some(3));
    follow.kill();
    std::fs::remove_file(town.path("out/web.conf")).unwrap();
    let _follow = town.follow();
    town.until_file("out/web.conf", "made of what there is", |text| text == "# new\n127.0.0.1:80\n");
}
