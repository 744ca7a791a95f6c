//! What a release says of itself: what it is made of, and who may come in.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

const TARGET: &str = "x86_64-unknown-linux-gnu";

fn cargo(arguments: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO"));
    // Build scripts would see another surrounding, and be built anew.
    let is_ours =
        |name: &str| name == "OUT_DIR" || ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|begin| name.starts_with(begin));
    for (name, _) in std::env::vars().filter(|(name, _)| is_ours(name)) {
        command.env_remove(name);
    }
    let ran = command.args(arguments).current_dir(env!("CARGO_MANIFEST_DIR")).output().unwrap();
    assert!(ran.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&ran.stderr));
    String::from_utf8(ran.stdout).unwrap()
}

fn bill() -> Value {
    let said = cargo(&["run", "--quiet", "--locked", "--example", "sbom", "--", TARGET, "2026-01-02T03:04:05Z"]);
    serde_json::from_str(&said).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

#[test]
fn the_bill_of_materials_names_each_package_once_with_its_hash_licence_and_use() {
    let bill = bill();
    assert_eq!((text(&bill["bomFormat"]), text(&bill["specVersion"])), ("CycloneDX", "1.5"));
    assert_eq!(text(&bill["metadata"]["component"]["name"]), "wharf");
    let components = bill["components"].as_array().unwrap();
    let references: BTreeSet<_> = components.iter().map(|component| text(&component["bom-ref"])).collect();
    assert_eq!(references.len(), components.len(), "each once");
    let lock = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.lock")).unwrap();
    for component in components {
        let hash = text(&component["hashes"][0]["content"]);
        assert!(lock.contains(hash) && hash.len() == 64, "{component}");
        assert!(!text(&component["licenses"][0]["expression"]).contains('/'), "{component}");
    }
    // What answers DNS is in the program; what writes its code runs while it is built; what only tests use is neither.
    let scope = |name: &str| components.iter().find(|of| text(&of["name"]) == name).map(|of| text(&of["scope"]));
    assert_eq!(scope("hickory-server"), Some("required"));
    assert_eq!(scope("serde_derive"), Some("excluded"));
    assert_eq!(scope("proptest"), None);
    // Whoever is used is there, and all that is there is used by somebody.
    let uses = bill["dependencies"].as_array().unwrap();
    let used: BTreeSet<_> = uses.iter().flat_map(|of| of["dependsOn"].as_array().unwrap()).map(text).collect();
    assert_eq!(used, references);
}

/// The commands of the page's blocks that have this word, without their prompts.
fn blocks_with(page: &str, word: &str) -> String {
    let page = std::fs::read_to_string(format!("{}/{page}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    let blocks = page.split("```\n").skip(1).step_by(2);
    blocks.filter(|block| block.contains(word)).collect()
}

#[test]
fn a_signature_is_made_and_checked_as_the_pages_say_and_no_other_file_has_it() {
    let directory = tempfile::tempdir().unwrap();
    let sh = |script: &str| {
        let ran = Command::new("sh").args(["-ec", script]).current_dir(&directory).output().unwrap();
        (
            ran.status.success(),
            format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr)),
        )
    };
    let make = blocks_with("SECURITY.md", "-t ed25519").replace("-t ed25519", "-q -N '' -t ed25519");
    let (made, said) = sh(&make);
    assert!(made, "{said}");
    // As docker/dist.sh does it.
    let script = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docker/dist.sh")).unwrap();
    let sign = script.lines().find(|line| line.contains("-Y sign")).unwrap();
    let sign = sign.replace("$WHARF_SIGN_KEY", "wharf-release").replace("$out/", "");
    let (signed, said) = sh(&format!("echo wharf >wharf; sha256sum wharf >SHA256SUMS; {sign}"));
    assert!(signed, "{said}");
    let check = blocks_with("SECURITY.md", "-Y verify");
    let (good, said) = sh(&check);
    assert!(good && said.contains("Good \"wharf-release\" signature") && said.contains("wharf: OK"), "{said}");
    let (good, said) = sh(&format!("echo other >wharf; sha256sum wharf >SHA256SUMS; {check}"));
    assert!(!good, "{said}");
}
