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
