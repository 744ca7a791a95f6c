//! The program's own word on its settings: what it prints, and how it exits.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use clap::CommandFactory;

fn wharf(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(arguments).env_clear();
    command.output().unwrap()
}

fn check_refused(arguments: &[&str], expected: &[&str]) {
    let output = wharf(arguments);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{arguments:?} said {told}");
    for line in expected {
        assert!(told.lines().any(|told| told.contains(line)), "{line:?} is missing in {told}");
    }
}

#[test]
fn valid_settings_are_said_to_be_valid() {
    let output = wharf(&["check-config", "--node", "core-01", "--advertise", "192.0.2.10"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8_lossy(&output.stdout).contains("core-01"));
}

#[test]
fn every_problem_of_flags_and_file_is_printed_and_exits_with_2() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("wharf.toml");
    std::fs::write(&file, "lease-ttl = 'soon'\nnonsense = 1\n[[service]]\nport = 1\nwat = 2\n").unwrap();
    let file = file.to_str().unwrap();
    let arguments = ["check-config", "--config", file, "--prefix", "services", "--node", "a b"];
    check_refused(&arguments, &["lease-ttl", "nonsense: no such setting", "service[1].wat", "--prefix", "--node"]);
}

#[test]
fn the_agent_refuses_the_same_settings_before_it_opens_anything() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("state");
    check_refused(
        &["agent", "--state-dir", state.to_str().unwrap(), "--store", "zookeeper", "--node", "a"],
        &["--store: \"zookeeper\" is neither embedded nor etcd"],
    );
    assert!(!state.exists(), "nothing is made before the settings are valid");
}

#[test]
fn a_file_that_is_not_there_is_a_problem_of_its_own() {
    check_refused(
        &["check-config", "--config", "/nonexistent/wharf.toml", "--node", "a"],
        &["/nonexistent/wharf.toml"],
    );
}

/// Units and compose files pass variables on whether or not their user has filled them in.
#[test]
fn a_variable_that_is_set_to_nothing_counts_as_not_given() {
    let cli = wharf::cli::Cli::command();
    let arguments = cli.find_subcommand("agent").unwrap().get_arguments();
    let variables: Vec<&str> = arguments.filter_map(|argument| argument.get_env()?.to_str()).collect();
    assert!(variables.len() > 30, "{variables:?}");
    let check = |command: &str, more: &[&str]| {
        let mut asked = Command::new(env!("CARGO_BIN_EXE_wharf"));
        asked.arg(command).args(more).env_clear().envs(variables.iter().map(|name| (*name, "")));
        asked.output().unwrap()
    };
    let agent = check("check-config", &["--node", "core-01"]);
    let said = String::from_utf8_lossy(&agent.stdout).into_owned();
    assert!(agent.status.success(), "{agent:?}");
    assert!(said.contains("node core-01, embedded store"), "{said}");
    // Not 2, the code of wrong use: it asks an agent that is not there.
    assert_eq!(check("drain", &["--http", "127.0.0.1:1"]).status.code(), Some(3));

    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "node = \"core-02\"\n").unwrap();
    let from_file = check("check-config", &["--config", file.path().to_str().unwrap()]);
    assert!(String::from_utf8_lossy(&from_file.stdout).contains("node core-02"), "{from_file:?}");
}

#[test]
fn a_flag_that_is_not_known_exits_with_2() {
    check_refused(&["agent", "--colour", "blue"], &["--colour"]);
}

/// A directory with files that settings may name.
fn files() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("token", "s3cret"),
        ("empty", " \n"),
        ("ca.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"),
        ("key.pem", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
    ] {
        std::fs::write(directory.path().join(name), text).unwrap();
    }
    directory
}

/// What `check-config` says of these lines of a file; `DIR` stands for the directory.
fn checked(directory: &std::path::Path, lines: &str) -> (bool, String) {
    let file = settings_file(directory, lines);
    let output = wharf(&["check-config", "--config", &file]);
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn settings_file(directory: &std::path::Path, lines: &str) -> String {
    let file = directory.join("wharf.toml");
    let always = "node = 'core-01'\ndocker = 'unix:///nowhere/docker.sock'\nstate-dir = 'DIR/state'\n";
    std::fs::write(&file, format!("{always}{lines}").replace("DIR", directory.to_str().unwrap())).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Whether the agent starts: it says that it serves. What it says when it ends instead, and with which code.
fn started(directory: &std::path::Path, lines: &str) -> Result<(), (Option<i32>, String)> {
    use std::io::{BufRead, BufReader};
    let file = settings_file(directory, lines);
    let mut command = Command::new(env!("CARGO_BIN_EXE_wharf"));
    command.args(["agent", "--config", &file]).env_clear().stderr(std::process::Stdio::piped());
    let mut agent = command.spawn().unwrap();
    let mut said = String::new();
    for line in BufReader::new(agent.stderr.take().unwrap()).lines().map_while(Result::ok) {
        if line.contains("serving") {
            agent.kill().unwrap();
            agent.wait().unwrap();
            return Ok(());
        }
        said.push_str(&line);
        said.push('\n');
    }
    Err((agent.wait().unwrap().code(), said))
}

#[test]
fn files_that_the_settings_name_are_looked_at() {
    let directory = files();
    for (lines, expected) in [
        ("http-token-file = 'DIR/nothing'", "http-token-file"),
        ("http-token-file = 'DIR/empty'", "is empty"),
        ("http-token-file = 'DIR'", "http-token-file"),
        ("etcd-endpoints = 'https://10.0.0.1'\netcd-ca = 'DIR/nothing'", "etcd-ca"),
        ("etcd-endpoints = 'https://10.0.0.1'\netcd-ca = 'DIR/token'", "holds no certificate"),
        (
            "etcd-endpoints = 'https://10.0.0.1'\netcd-cert = 'DIR/ca.pem'\netcd-key = 'DIR/ca.pem'",
            "holds no private key",
        ),
        ("etcd-endpoints = 'http://10.0.0.1'\netcd-user = 'a'\netcd-password-file = 'DIR/empty'", "etcd-password-file"),
        ("http-socket = 'DIR/nothing/http.sock'", "is no directory"),
        ("http-socket = 'DIR/token'", "is no socket"),
        ("http = '192.0.2.1:5380'", "is no address of this host"),
    ] {
        let (valid, said) = checked(directory.path(), lines);
        assert!(!valid && said.contains(expected), "{lines}: {said}");
        assert_eq!(started(directory.path(), lines), Err((Some(2), said)), "{lines}");
    }
}

#[test]
fn a_problem_is_one_line_whatever_the_file_holds() {
    let directory = tempfile::tempdir().unwrap();
    let (valid, said) = checked(directory.path(), "\"evil\\u001b[2J\\nforged: key\" = 1\n");
    assert!(!valid);
    assert_eq!(said.lines().count(), 1, "{said:?}");
    assert!(!said.trim_end().chars().any(char::is_control), "{said:?}");
}

/// Each setting with values that are fine, odd or wrong.
const CHOICES: &[(&str, &[&str])] = &[
    (
        "advertise",
        &["'auto'", "'127.0.0.1'", "'lo'", "'999.1.2.3'", "'10.0.0.0/8'", "['lo', 'auto', 'lo']", "'224.0.0.1'"],
    ),
    ("dns", &["'127.0.0.1:0'", "['127.0.0.1:0', '127.0.0.2:0']", "'127.0.0.1'", "[]", "'224.0.0.1:53'", "'[::1]:0'"]),
    ("http", &["'127.0.0.1:0'", "'192.0.2.1:0'", "'0.0.0.0:0'", "'localhost:1'", "'239.1.1.1:0'"]),
    ("http-socket", &["'DIR/http.sock'", "'DIR/no/http.sock'", "''", "'DIR/token'", "'DIR/'"]),
    ("http-token-file", &["'DIR/token'", "'DIR/empty'", "'DIR/nothing'", "'DIR'"]),
    ("sentinel", &["'127.0.0.1:0'", "'192.0.2.1:0'", "'26379'"]),
    ("zone", &["'skydns.local=/skydns'", "'a..b=/x'", "'x=/services'", "'x'"]),
    ("prefix", &["'/services'", "'/a/b'", "'/'", "'/wharf'", "'a'"]),
    ("domain", &["'services.internal'", "'.'", "'a b'", "'x.'"]),
    ("forward", &["'system'", "'10.0.0.1'", "'0.0.0.0'", "'nobody'"]),
    ("rate-limit", &["0", "100", "-1"]),
    ("lease-ttl", &["'30s'", "'1s'", "'2h'"]),
    (
        "etcd-endpoints",
        &["'http://127.0.0.1:1'", "['http://127.0.0.1:1', 'https://[::1]:2']", "'http://999.9.9.9'", "'http://[::1'"],
    ),
    ("log", &["'info'", "'wharf=debug'", "'not=a=filter'"]),
    ("on-stop", &["'keep'", "'withdraw'", "'stay'"]),
    ("allow-name", &["'*'", "['a*', 'b']", "'['"]),
    ("[[service]]\nport = 1\nname", &["'web'", "''", "'a,b'", "'/'"]),
];

/// A sample of all combinations; the same in every run.
#[test]
fn what_check_config_calls_valid_starts_and_what_it_refuses_is_refused_in_the_same_words() {
    use rand::{RngExt, SeedableRng};
    let mut dice = rand::rngs::StdRng::seed_from_u64(14);
    let directory = files();
    let (mut valid, mut refused) = (0, 0);
    for _ in 0..60 {
        // Tables come last in a file. The addresses are always given, as those of others may be in use here.
        let mut lines = Vec::new();
        for (key, values) in CHOICES {
            let always = ["dns", "http"].contains(key);
            if always || dice.random_range(0..3) == 0 {
                // Mostly fine, so that whole files are.
                let place = if dice.random_range(0..6) > 0 { 0 } else { dice.random_range(0..values.len()) };
                lines.push(format!("{key} = {}", values[place]));
            }
        }
        let lines = lines.join("\n");
        let (is_valid, said) = checked(directory.path(), &lines);
        if is_valid {
            valid += 1;
            assert_eq!(started(directory.path(), &lines), Ok(()), "valid, and does not start:\n{lines}");
        } else {
            refused += 1;
            assert_eq!(started(directory.path(), &lines), Err((Some(2), said)), "{lines}");
        }
    }
    assert!(valid >= 10 && refused >= 10, "{valid} valid, {refused} refused");
}
