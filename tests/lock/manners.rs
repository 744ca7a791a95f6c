//! How it behaves while nothing is wrong: order, exit codes, signals, what is told.

use std::time::{Duration, Instant};

use rustix::process::{Signal, kill_process};

use crate::ground::{DEAF, Ground, script};
use crate::program::{told, wharf};

#[test]
fn the_next_runs_at_once_after_a_clean_end() {
    let ground = Ground::new();
    let mut first = ground.stamping("one", "");
    ground.until_lives(1);
    let mut second = ground.stamping("two", "");
    ground.until("the second waits", || second.log().contains("held by one since"));
    let third = ground.stamping("three", "");
    ground.until("the third waits", || third.log().contains("2 before us"));
    let status = ground.status("db");
    assert_eq!(
        (&status["holder"]["node"], &status["waiting"][1]["node"]),
        (&"one".into(), &"three".into()),
        "{status}"
    );
    let (code, out, _) = told(&ground.wharf("lock --status db"));
    assert!(code == Some(0) && out.contains("one has it for") && out.contains("  2. three"), "{out}");

    first.stop();
    assert_eq!(first.code(), 7, "the program's own");
    ground.until_lives(2);
    second.stop();
    assert_eq!(second.code(), 7);
    ground.until_lives(3);
    ground.no_two_overlap();
    let lives = ground.lives();
    for pair in lives.windows(2) {
        assert!(pair[0].token < pair[1].token, "tokens grow");
        let gap = pair[1].first - pair[0].last;
        eprintln!("handed over in {gap} ms");
        assert!(gap <= 300, "{lives:?}");
    }
    drop(third);
}

#[test]
fn a_key_is_there_while_its_program_runs() {
    let ground = Ground::new();
    ground.cluster.ctl(&["put", "/services/pg/master", "by hand"]);
    let flags = ["--key", "/services/pg/master", "--value", "2", "--ttl", "2s"];
    let mut lock = ground.lock("one", &flags, &["bash", "-c", &script("")]);
    ground.until("it says that this does not end", || lock.log().contains("will not end by itself"));
    ground.cluster.ctl(&["del", "/services/pg/master"]);
    ground.until_lives(1);
    assert_eq!(ground.cluster.ctl(&["get", "--print-value-only", "/services/pg/master"]), "2\n");
    let (code, out, _) = told(&ground.wharf("lock --status /services/pg/master"));
    assert!(code == Some(0) && out.contains("one has it"), "{out}");
    lock.stop();
    assert_eq!(lock.code(), 7);
    assert_eq!(ground.cluster.ctl(&["get", "/services/pg/master"]), "");

    // Overwritten, it is not held any more.
    std::fs::remove_file(ground.path("one.stop")).unwrap();
    let mut lock = ground.lock("one", &flags, &["bash", "-c", &script("")]);
    ground.until_lives(2);
    ground.cluster.ctl(&["put", "/services/pg/master", "3"]);
    assert_eq!(lock.code(), 125, "{}", lock.log());
}

#[test]
fn exit_codes_are_those_of_timeout_and_docker() {
    let ground = Ground::new();
    let text = ground.path("text");
    std::fs::write(&text, "no program").unwrap();
    let text = text.display().to_string();
    for (flags, command, code) in [
        (&["a"][..], &["true"][..], 0),
        (&["a"], &["false"], 1),
        (&["a"], &["bash", "-c", "exit 42"], 42),
        (&["a"], &["bash", "-c", "kill -KILL $$"], 137),
        (&["a"], &["/nowhere/program"], 127),
        (&["a"], &[&text], 126),
        (&["a"], &["docker", "run", "postgres"], 125),
        (&["a b"], &["true"], 2),
    ] {
        let mut lock = ground.lock("one", flags, command);
        assert_eq!(lock.code(), code, "{flags:?} {command:?}: {}", lock.log());
    }
    let output = wharf().args(["lock", "a", "--", "true"]).output().unwrap();
    let (code, _, err) = told(&output);
    assert!(code == Some(125) && err.contains("flock(1)"), "{err}");
    let away = ["lock", "a", "--etcd-endpoints", "http://127.0.0.1:1", "--wait", "1s", "--", "true"];
    let (code, _, err) = told(&wharf().args(away).output().unwrap());
    assert!(code == Some(125) && err.contains("etcd cannot be had"), "{err}");
}

#[test]
fn whoever_does_not_win_leaves_the_queue() {
    let ground = Ground::new();
    let first = ground.stamping("one", "");
    ground.until_lives(1);
    let mut late = ground.lock("late", &["db", "--wait", "500ms"], &["true"]);
    assert_eq!(late.code(), 124, "{}", late.log());
    let mut gone = ground.lock("gone", &["db"], &["true"]);
    ground.until("it waits", || gone.log().contains("1 before us"));
    gone.signal(Signal::TERM);
    assert_eq!(gone.code(), 143, "{}", gone.log());
    assert_eq!(ground.status("db")["waiting"], serde_json::json!([]));
    drop(first);
}

#[test]
fn signals_go_to_the_program_and_its_end_is_its_own() {
    let ground = Ground::new();
    let script = "trap 'exit 9' TERM; trap 'echo hello' USR1; echo ready; while :; do sleep 0.05; done";
    let mut lock = ground.lock("one", &["db"], &["bash", "-c", script]);
    let out = || std::fs::read_to_string(ground.path("one.out")).unwrap();
    ground.until("it runs", || out().contains("ready"));
    lock.signal(Signal::USR1);
    ground.until("it heard", || out().contains("hello"));
    lock.signal(Signal::TERM);
    assert_eq!(lock.code(), 9);
    assert_eq!(told(&ground.wharf("lock --status db")).0, Some(1), "nobody has it, and nothing is left of it");
}

#[test]
fn the_program_is_told_what_fences_it_and_nothing_of_systemd() {
    let ground = Ground::new();
    let mut lock = ground.lock("one", &["db", "--ttl", "20s"], &["bash", "-c", "env; cat"]);
    assert_eq!(lock.code(), 0, "{}", lock.log());
    let out = std::fs::read_to_string(ground.path("one.out")).unwrap();
    for name in ["NAME=db", "VALUE=one", "TTL=20", "TOKEN=", "DEADLINE=", "KEY=/wharf/services/locks/db/queue/"] {
        assert!(out.contains(&format!("WHARF_LOCK_{name}")), "{name}: {out}");
    }
    assert!(out.contains("ETCD_LOCK_KEY=/wharf/services/locks/db/queue/") && out.contains("ETCD_LOCK_REV="), "{out}");
    assert!(!out.contains("WHARF_LOCK_GUARDED"), "{out}");
}

#[test]
fn what_the_program_leaves_behind_ends_with_it() {
    let ground = Ground::new();
    let mut lock = ground.lock("one", &["db"], &["bash", "-c", "setsid sleep 1000 & echo $!; exit 3"]);
    assert_eq!(lock.code(), 3);
    let pid = std::fs::read_to_string(ground.path("one.out")).unwrap();
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim())).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn a_person_who_knows_clears_a_strict_lock() {
    let ground = Ground::new();
    let first = ground.stamping("one", "");
    ground.until_lives(1);
    let (code, _, err) = told(&ground.wharf("lock --clear db"));
    assert!(code == Some(1) && err.contains("its holder lives"), "{err}");
    let flags = ["db", "--ttl", "2s", "--strict"];
    let second = ground.lock("two", &flags, &["bash", "-c", &script("")]);
    ground.until("it waits", || second.log().contains("1 before us"));
    first.signal(Signal::KILL);
    ground.until("it waits for the certificate", || second.log().contains("--strict waits"));
    let (_, out, _) = told(&ground.wharf("lock --status db"));
    assert!(out.contains("a program that one started") && out.contains("two is next"), "{out}");
    assert_eq!(ground.lives().len(), 1);
    let (code, out, err) = told(&ground.wharf("lock --clear db"));
    assert!(code == Some(0) && out.contains("cleared"), "{out}{err}");
    ground.until_lives(2);
    ground.no_two_overlap();
}

#[test]
fn etcdctl_and_wharf_exclude_each_other() {
    let ground = Ground::new();
    let path = "/wharf/services/locks/db/queue";
    let endpoints = ground.cluster.endpoints().join(",");
    let etcdctl = |name: &str| {
        let mut command = std::process::Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").args(["--endpoints", &endpoints, "lock", path, "bash"]);
        let (begun, stop) = (ground.path(&format!("{name}.begun")), ground.path(&format!("{name}.stop")));
        let script = format!("touch {}; while [ ! -e {} ]; do sleep 0.02; done", begun.display(), stop.display());
        // etcdctl takes the flags of its program for its own.
        let file = ground.path(&format!("{name}.sh"));
        std::fs::write(&file, script).unwrap();
        (command.arg(file).spawn().unwrap(), begun, stop)
    };
    let (mut first, begun, stop) = etcdctl("first");
    ground.until("etcdctl has it", || begun.exists());
    let lock = ground.stamping("one", "");
    ground.until("wharf waits", || lock.log().contains("held by somebody; 1 before us"));
    let (mut second, begun, stop_second) = etcdctl("second");
    std::fs::write(stop, "").unwrap();
    ground.until_lives(1);
    first.wait().unwrap();
    assert!(!begun.exists(), "the second etcdctl waits for wharf");
    lock.stop();
    ground.until("etcdctl has it again", || begun.exists());
    let lives = ground.lives();
    assert_eq!(lives.len(), 1);
    std::fs::write(stop_second, "").unwrap();
    second.wait().unwrap();
}

#[test]
fn as_process_one_its_end_ends_everything() {
    let ground = Ground::new();
    let endpoints = ground.cluster.endpoints().join(",");
    let run = |script: &str| {
        let mut command = std::process::Command::new("unshare");
        command.args(["--fork", "--pid", "--mount-proc", "--kill-child", env!("CARGO_BIN_EXE_wharf"), "lock", "db"]);
        command.args(["--ttl", "2s", "--node", "one", "--etcd-endpoints", &endpoints, "--", "bash", "-c", script]);
        command.env("STAMPS", ground.path("stamps")).env("STOP", ground.path("one.stop"));
        command.stderr(std::fs::File::create(ground.path("one.log")).unwrap()).spawn().unwrap()
    };
    // Its own end is the container's, with its code.
    let mut first = run("exit 5");
    assert_eq!(first.wait().unwrap().code(), Some(5), "{}", ground.logs());

    // What stops a container asks the program to end.
    let mut second = run(&script("trap 'exit 6' TERM"));
    ground.until_lives(1);
    let init = crate::ground::children(i32::try_from(second.id()).unwrap())[0];
    kill_process(rustix::process::Pid::from_raw(init).unwrap(), Signal::TERM).unwrap();
    assert_eq!(second.wait().unwrap().code(), Some(6), "{}", ground.logs());

    // And the end of process 1 ends the program, whatever it thinks of it.
    let mut third = run(&script(&format!("{DEAF}\nsetsid sleep 100 &")));
    ground.until_lives(2);
    let init = crate::ground::children(i32::try_from(third.id()).unwrap())[0];
    kill_process(rustix::process::Pid::from_raw(init).unwrap(), Signal::KILL).unwrap();
    third.wait().unwrap();
    let ended = ground.lives()[1].last;
    let began = Instant::now();
    let next = ground.stamping("two", "");
    ground.until_lives(3);
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    assert!(ground.lives()[1].last <= ended + 20);
    ground.no_two_overlap();
    drop(next);
}
