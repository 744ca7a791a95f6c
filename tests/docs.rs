//! The reference pages say what the program does.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use clap::{Arg, Command, CommandFactory};
use wharf::cli::Cli;

/// The pages that speak of nothing but this program.
const PAGES: [&str; 12] = [
    "README.md",
    "docs/checks.md",
    "docs/cli.md",
    "docs/configuration.md",
    "docs/dns.md",
    "docs/glossary.md",
    "docs/http.md",
    "docs/metrics.md",
    "docs/troubleshooting.md",
    "docs/records.md",
    "docs/security.md",
    "docs/service.md",
];

fn page(name: &str) -> String {
    std::fs::read_to_string(format!("{}/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The long flags of a command and of those below it, but for those that every one has.
fn flags(command: &Command) -> Vec<String> {
    let longs = command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned));
    let own = longs.filter(|long| !["help", "version"].contains(&long.as_str()));
    own.chain(command.get_subcommands().flat_map(flags)).collect()
}

/// Every `--flag` that a text speaks of.
fn flags_in(text: &str) -> BTreeSet<String> {
    let is_part = |character: char| character.is_ascii_alphanumeric() || character == '-';
    let words = text.split(|character: char| !is_part(character));
    let named = words.filter_map(|word| word.strip_prefix("--"));
    named.filter(|name| name.starts_with(|first: char| first.is_ascii_lowercase())).map(str::to_owned).collect()
}

#[test]
fn flags_in_the_pages_are_flags_of_the_program() {
    let mut known: BTreeSet<String> = Cli::command().get_subcommands().flat_map(flags).collect();
    known.extend(["help", "version"].map(str::to_owned));
    for name in PAGES {
        let unknown: Vec<String> = flags_in(&page(name)).into_iter().filter(|flag| !known.contains(flag)).collect();
        assert!(unknown.is_empty(), "{name} speaks of --{}", unknown.join(", --"));
    }
}

#[test]
fn every_flag_of_every_command_is_in_its_page() {
    let in_page = flags_in(&page("docs/cli.md"));
    for command in Cli::command().get_subcommands() {
        if !["agent", "proxy", "check-config"].contains(&command.get_name()) {
            let missing: Vec<String> = flags(command).into_iter().filter(|flag| !in_page.contains(flag)).collect();
            assert!(missing.is_empty(), "docs/cli.md lacks --{} of {}", missing.join(", --"), command.get_name());
        }
    }
}

#[test]
fn every_path_and_parameter_of_http_is_in_its_page() {
    let api: serde_json::Value = serde_json::from_str(&page("src/answer/http/openapi.json")).unwrap();
    let text = page("docs/http.md");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    let in_page: BTreeSet<String> = rows
        .flat_map(|row| row.split('|').nth(1).unwrap().split('`').skip(1).step_by(2))
        .map(|path| path.rsplit(' ').next().unwrap().replace("NAME", "{name}"))
        .collect();
    let described = api["paths"].as_object().unwrap();
    let described_paths: BTreeSet<String> = described.keys().filter(|path| *path != "/openapi.json").cloned().collect();
    assert_eq!(in_page, described_paths);
    for (path, methods) in described {
        for method in methods.as_object().unwrap().values() {
            for parameter in method["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let shown = [format!("?{name}="), format!("`{name}`"), name.to_uppercase()];
                assert!(shown.iter().any(|shown| text.contains(shown)), "{name} of {path} is not in docs/http.md");
            }
        }
    }
}

fn settings() -> Vec<Arg> {
    let mut cli = Cli::command();
    let agent = cli.find_subcommand_mut("agent").unwrap();
    let named = |argument: &&Arg| argument.get_long().is_some_and(|long| !["help", "version"].contains(&long));
    agent.get_arguments().filter(named).cloned().collect()
}

#[test]
fn every_setting_is_in_its_page_with_its_default() {
    let page = page("docs/configuration.md");
    for argument in settings() {
        let long = argument.get_long().unwrap();
        let flag = [format!("`--{long}`"), format!("`--{long} FILE`")];
        let row = page.lines().find(|line| flag.iter().any(|flag| line.contains(flag)));
        let row = row.unwrap_or_else(|| panic!("--{long} is not in docs/configuration.md"));
        let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
        let meaning = help.split(" [default: ").next().unwrap();
        assert!(
            long == "config" || row.contains(meaning),
            "the row of --{long} does not say what --help does: {meaning}"
        );
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

/// Of its last version, and of those before.
const OF_SKYDNS: &str = "-addr -ca-cert -discover -dnssec -domain -etcd3 -hostmaster -kubernetes -local -machines \
    -master -nameservers -ndots -netlookup -no-rec -ns-rotate -password -path-prefix -rcache -rcache-ttl -round-robin -rtimeout \
    -scache -stubzones -systemd -tls-key -tls-pem -username -verbose -version \
    ETCD_CACERT ETCD_MACHINES ETCD_PASSWORD ETCD_TLSKEY ETCD_TLSPEM ETCD_USERNAME SKYDNS_ADDR SKYDNS_DOMAIN SKYDNS_NAMESERVERS \
    SKYDNS_NDOTS SKYDNS_PATH_PREFIX SKYDNS_SYSTEMD GRAPHITE_PREFIX GRAPHITE_SERVER INFLUX_DATABASE INFLUX_PASSWORD \
    INFLUX_SERVER INFLUX_USER STATHAT_USER \
    dns_addr dnssec domain hostmaster local min_ttl nameservers ndot no_rec ns_rotate priority rcache rcache_ttl read_timeout \
    round_robin scache systemd ttl";

#[test]
fn each_flag_variable_and_setting_of_skydns_has_its_row() {
    let page = page("docs/migrating-from-skydns.md");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .skip_while(|line| !line.starts_with("| flag | variable | key |"))
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.split('|').collect())
        .collect();
    for name in OF_SKYDNS.split_whitespace() {
        let column = match name {
            flag if flag.starts_with('-') => 1,
            variable if variable.starts_with(|first: char| first.is_ascii_uppercase()) => 2,
            _ => 3,
        };
        let row = rows.iter().find(|row| row[column].contains(&format!("`{name}`")));
        assert!(row.is_some_and(|row| !row[4].trim().is_empty()), "{name} has no row with what wharf has for it");
    }
    let known: BTreeSet<String> =
        Cli::command().get_subcommands().flat_map(flags).chain(["version".to_owned()]).collect();
    let ours: String = rows.iter().map(|row| row[4]).collect();
    let unknown: Vec<String> = flags_in(&ours).into_iter().filter(|flag| !known.contains(flag)).collect();
    assert!(unknown.is_empty(), "the table speaks of --{}", unknown.join(", --"));
}
