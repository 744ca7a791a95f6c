//! Does to a machine what Ignition does before its first boot, as `systemd/flatcar/wharf.bu` says. The file is read by
//! Butane's specification (variant flatcar, 1.1.0): whatever is not in that stops the test.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::Deserialize;
use serde_yaml_ng::Value;

use crate::machine::Machine;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Butane {
    variant: String,
    version: String,
    storage: Storage,
    systemd: Systemd,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    files: Vec<Entry>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    path: String,
    mode: Value,
    contents: Contents,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    local: Option<String>,
    inline: Option<String>,
    source: Option<String>,
    verification: Option<Verification>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: String,
    target: String,
    overwrite: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Systemd {
    units: Vec<Unit>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Unit {
    name: String,
    enabled: bool,
    contents_local: Option<String>,
}

/// Writes the files, links and units of `text` to a machine that has not booted yet. `files` is the folder of the
/// distribution; `program` stands for what would be fetched from the place that the user fills in. What it returns
/// makes the links: that is for after the boot, since Docker keeps `/etc/resolv.conf` for itself until then.
pub fn ignite(machine: &Machine<'_>, text: &str, files: &Path, program: &Path) -> String {
    let butane: Butane = serde_yaml_ng::from_str(text).unwrap();
    assert_eq!((butane.variant.as_str(), butane.version.as_str()), ("flatcar", "1.1.0"));
    let local = |name: &str| fs::read(files.join(name)).unwrap_or_else(|error| panic!("{name}: {error}"));
    for file in &butane.storage.files {
        let content = match &file.contents {
            Contents { local: Some(name), inline: None, source: None, verification: None } => local(name),
            Contents { local: None, inline: Some(text), source: None, verification: None } => text.clone().into_bytes(),
            Contents { local: None, inline: None, source: Some(url), verification: Some(Verification { hash }) } => {
                assert!(url.starts_with("https://") && hash.starts_with("sha256-"), "{url} {hash}");
                fs::read(program).unwrap()
            }
            _ => panic!("{}: not one source of its content", file.path),
        };
        machine.put_as(&file.path, &content, mode(&file.mode));
    }
    let mut links = String::new();
    for link in &butane.storage.links {
        assert!(link.overwrite, "{} is there before", link.path);
        writeln!(links, "ln -sfn {} {}", link.target, link.path).unwrap();
    }
    let mut preset = String::new();
    for unit in &butane.systemd.units {
        if let Some(name) = &unit.contents_local {
            machine.put_as(&format!("/etc/systemd/system/{}", unit.name), &local(name), 0o644);
        }
        writeln!(preset, "{} {}", if unit.enabled { "enable" } else { "disable" }, unit.name).unwrap();
    }
    machine.put("/etc/systemd/system-preset/20-ignition.preset", &preset);
    // systemd takes this for the first boot, enables what the presets say, and would ask for a keyboard, too.
    machine.put("/etc/machine-id", "uninitialized\n");
    machine.link("/etc/systemd/system/systemd-firstboot.service", "/dev/null");
    links
}

/// Butane's YAML reads a leading zero as octal.
fn mode(value: &Value) -> u32 {
    let digits = match value {
        Value::String(text) => text.clone(),
        other => other.as_u64().unwrap().to_string(),
    };
    assert!(["0644", "0755", "644", "755"].contains(&digits.as_str()), "mode {digits}");
    u32::from_str_radix(&digits, 8).unwrap()
}
