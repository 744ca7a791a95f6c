//! The Vagrant example, read by a stand-in for Vagrant: what it hands to each machine's first boot.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Where its machines would fetch programs from.
pub const SOURCES: [&str; 2] = ["https://files.example.net/wharf.tar.gz", "https://files.example.net/etcd.tar.gz"];

/// The names of its machines and their Ignition. Keys are made in a folder that is gone afterwards, as is the copy of
/// the examples that it was read from.
pub fn machines(addresses: &[String], hashes: [&str; 2]) -> Vec<(String, String)> {
    let dir = tempfile::tempdir().unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for folder in ["ec2", "vagrant"] {
        let from = root.join("systemd/examples").join(folder);
        let copied = Command::new("cp").arg("-r").args([&from, dir.path()]).status().unwrap();
        assert!(copied.success(), "{}", from.display());
    }
    // What somebody has made beside the sources is his.
    let _ = fs::remove_dir_all(dir.path().join("vagrant/.wharf"));
    let told = Command::new("ruby")
        .arg(root.join("tests/provision/vagrant.rb"))
        .arg(dir.path().join("vagrant/Vagrantfile"))
        .envs([("WHARF_SOURCE", SOURCES[0]), ("WHARF_HASH", hashes[0])])
        .envs([("ETCD_SOURCE", SOURCES[1]), ("ETCD_HASH", hashes[1])])
        .env("ADDRESSES", addresses.join(" "))
        .output()
        .expect("ruby comes with Debian's package `ruby-redis` (make setup)");
    let (said, complaint) = (String::from_utf8_lossy(&told.stdout), String::from_utf8_lossy(&told.stderr));
    assert!(told.status.success(), "{said}{complaint}");
    let machine = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [name, path, "true", "1"] => (name.to_owned(), fs::read_to_string(path).unwrap()),
        _ => panic!("{line}: no Ignition, or not one network"),
    };
    said.lines().filter(|line| line.starts_with("core-")).map(machine).collect()
}
