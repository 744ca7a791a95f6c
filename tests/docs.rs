//! The reference pages say what the program does.
#![allow(clippy::unwrap_used)]

use clap::{Arg, CommandFactory};
use wharf::cli::Cli;

fn settings() -> Vec<Arg> {
    let mut cli = Cli::command();
    let agent = cli.find_subcommand_mut("agent").unwrap();
    let named = |argument: &&Arg| argument.get_long().is_some_and(|long| !["help", "version"].contains(&long));
    agent.get_arguments().filter(named).cloned().collect()
}

#[test]
fn every_setting_is_in_its_page_with_its_default() {
    let path = format!("{}/docs/configuration.md", env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(path).unwrap();
    for argument in settings() {
        let long = argument.get_long().unwrap();
        let flag = [format!("`--{long}`"), format!("`--{long} FILE`")];
        let row = page.lines().find(|line| flag.iter().any(|flag| line.contains(flag)));
        let row = row.unwrap_or_else(|| panic!("--{long} is not in docs/configuration.md"));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        if let Some((_, default)) = help.rsplit_once("[default: ") {
            let default = default.trim_end_matches(']');
            assert!(row.contains(default), "the row of --{long} does not name its default {default}");
        }
    }
}

#[test]
fn every_setting_has_its_variable() {
    for argument in settings() {
        let long = argument.get_long().unwrap();
        let expected = format!("WHARF_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(argument.get_env().unwrap(), expected.as_str());
    }
}
