//! The cluster on EC2 as far as it can be tried without a machine: the template and the user data are what AWS and
//! Ignition take, the keys are what etcd takes, the services' settings are what wharf takes. `tests/systemd/ec2` boots
//! it.
#![allow(clippy::unwrap_used, unreachable_pub, missing_docs, dead_code)]

mod cloudformation;
mod ignition;
mod vagrant;

use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use clap::CommandFactory;
use wharf::cli::Cli;

use cloudformation::Stack;
use ignition::Ignition;

const FOLDER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/systemd/examples/ec2");
/// What EC2 takes as user data, once it is decoded.
const LIMIT: usize = 16 * 1024;
const TEMPLATES: [&str; 7] = [
    "Main1Template",
    "Main2Template",
    "Main3Template",
    "Main4Template",
    "Main5Template",
    "WorkerTemplate",
    "DataTemplate",
];

/// A stack in which everything is as long as it may be.
fn largest() -> Stack {
    let url = format!("https://files.example.net/{}", "x".repeat(1024 - 26));
    let hash = format!("sha512-{}", "0".repeat(128));
    let services = vec!["a-service-with-a-rather-long-name"; 20].join(",");
    Stack::new(&[
        ("AllowSSHFrom", "203.0.113.7/32"),
        ("KeyName", "mine"),
        ("ImageId", "ami-0123456789abcdef0"),
        ("WharfSource", &url),
        ("WharfHash", &hash),
        ("EtcdSource", &url),
        ("EtcdHash", &hash),
        ("Mains", "5"),
        ("Services", &services),
        ("ServicesSource", &url),
        ("ServicesHash", &hash),
        ("DataHosts", "3"),
        ("Main1Address", "255.255.255.251"),
        ("Main2Address", "255.255.255.252"),
        ("Main3Address", "255.255.255.253"),
        ("Main4Address", "255.255.255.254"),
        ("Main5Address", "255.255.255.255"),
    ])
}

fn smallest() -> Stack {
    let hash = format!("sha512-{}", "0".repeat(128));
    Stack::new(&[
        ("AllowSSHFrom", "203.0.113.7/32"),
        ("KeyName", "mine"),
        ("ImageId", "ami-0123456789abcdef0"),
        ("WharfSource", vagrant::SOURCES[0]),
        ("WharfHash", &hash),
        ("EtcdSource", vagrant::SOURCES[1]),
        ("EtcdHash", &hash),
    ])
}

/// cfn-lint in an environment of the tests' own, installed now if it is not there yet.
fn cfn_lint() -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/provision");
    let made =
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/provision/tools.sh")).arg(&folder).status();
    assert!(made.unwrap().success(), "cfn-lint could not be installed");
    folder.join("python/bin/cfn-lint")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[test]
fn cfn_lint_has_nothing_to_say_of_the_template() {
    let template = format!("{FOLDER}/template.yaml");
    let linted = Command::new(cfn_lint()).args(["--include-checks", "I", "--", &template]).output().unwrap();
    assert!(linted.status.success(), "{}", said(&linted));
    // It would, were there anything.
    let spoiled =
        std::fs::read_to_string(&template).unwrap().replace("GroupSet: [!Ref Hosts]", "GroupSet: [!Ref Host]");
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("spoiled.yaml");
    std::fs::write(&file, spoiled).unwrap();
    let linted = Command::new(cfn_lint()).arg("--").arg(&file).output().unwrap();
    assert!(!linted.status.success() && said(&linted).contains("Host"), "{}", said(&linted));
}

#[test]
fn the_template_can_be_given_to_aws_as_a_text() {
    let length = std::fs::metadata(format!("{FOLDER}/template.yaml")).unwrap().len();
    assert!(length <= 51_200, "--template-body takes no more than 51,200 bytes, this is {length}");
}

/// What ignition-validate says of a user data.
fn validate(user_data: &str) -> Result<(), String> {
    let mut asked = Command::new("ignition-validate")
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("Debian's package `ignition` has it (make setup)");
    std::io::Write::write_all(&mut asked.stdin.take().unwrap(), user_data.as_bytes()).unwrap();
    let output = asked.wait_with_output().unwrap();
    let text = said(&output);
    // Warnings are findings, too.
    if output.status.success() && text.trim().is_empty() { Ok(()) } else { Err(text) }
}

#[test]
fn ignition_takes_the_user_data_of_every_role_and_ec2_its_length() {
    for stack in [largest(), smallest()] {
        for template in TEMPLATES {
            let data = stack.user_data(template);
            validate(&data).unwrap_or_else(|why| panic!("{template}: {why}\n{data}"));
            assert!(data.len() <= LIMIT, "{template}: {} bytes", data.len());
        }
    }
    let spoiled = smallest().user_data("WorkerTemplate").replace("sha512-0", "sha512-");
    assert!(validate(&spoiled).is_err(), "a hash that is too short is taken");
}

#[test]
fn user_data_says_who_a_host_is() {
    let stack = largest();
    for (n, template) in (1..).zip(&TEMPLATES[..5]) {
        let facts = Ignition::read(&stack.user_data(template)).written("/etc/wharf-ec2.env");
        let volume = Stack::id(&format!("Main{n}Volume"));
        for line in [
            format!("NODE=main-{n}"),
            format!("ADDRESS=255.255.255.25{n}"),
            format!("VOLUME={volume}"),
            format!("GROUP=cellar-main-{n}"),
            format!("RESOURCE=Main{n}Group"),
        ] {
            assert!(facts.lines().any(|found| found == line), "{template} has no {line}:\n{facts}");
        }
        let name = stack.property(&format!("Main{n}Group"), "AutoScalingGroupName");
        assert_eq!(name.as_str().unwrap(), format!("cellar-main-{n}"));
    }
    let own = Ignition::read(&stack.user_data("WorkerTemplate"));
    assert!(own.storage.files.iter().any(|file| file.path == "/opt/services.tar.gz"));
    let examples = Ignition::read(&smallest().user_data("WorkerTemplate"));
    assert!(!examples.storage.files.iter().any(|file| file.path == "/opt/services.tar.gz"));
}

/// Vagrant's three are the template's mains: the same files, units and facts, but for what AWS would have.
#[test]
fn vagrants_three_machines_are_the_templates_mains() {
    let addresses = [101, 102, 103].map(|n| format!("172.17.8.{n}"));
    let hash = format!("sha512-{}", "0".repeat(128));
    let machines = vagrant::machines(&addresses, [&hash, &hash]);
    assert_eq!(machines.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>(), ["core-01", "core-02", "core-03"]);
    let template = Ignition::read(&smallest().user_data("Main1Template"));
    for ((name, text), address) in machines.iter().zip(&addresses) {
        validate(text).unwrap_or_else(|why| panic!("{name}: {why}\n{text}"));
        let made = Ignition::read(text);
        for file in &template.storage.files {
            let own = made.storage.files.iter().find(|own| own.path == file.path);
            let own = own.unwrap_or_else(|| panic!("{name} has no {}", file.path));
            assert!(file.path == "/etc/wharf-ec2.env" || own.source() == file.source(), "{name}: {}", file.path);
        }
        assert_eq!(format!("{:?}", made.systemd), format!("{:?}", template.systemd), "{name}");
        let (facts, of_template) = (made.written("/etc/wharf-ec2.env"), template.written("/etc/wharf-ec2.env"));
        let known = |facts: &str| -> Vec<String> {
            facts.lines().map(|line| line.split('=').next().unwrap().to_owned()).collect()
        };
        assert!(known(&facts).starts_with(&known(&of_template)), "{facts}");
        let own = format!("NODE={name}\nADDRESS={address}\nKEYS=/opt/keys\n");
        assert!(facts.ends_with(&own) && facts.contains(&addresses.join(" ")), "{facts}");
        // The authority's key stays where it was made.
        assert!(!made.storage.files.iter().any(|file| file.path.contains("ca.key")));
        assert!(made.written("/opt/keys/main/member.key").contains("PRIVATE KEY"));
    }
}

#[test]
fn a_cluster_of_three_has_three_of_everything_and_one_of_five_has_five() {
    for (stack, mains) in [(smallest(), 3), (largest(), 5)] {
        for kind in ["AWS::EC2::NetworkInterface", "AWS::EC2::Volume", "AWS::EC2::EIP", "AWS::EC2::EIPAssociation"] {
            assert_eq!(stack.resources(kind).len(), mains, "{kind}");
        }
        let groups = stack.resources("AWS::AutoScaling::AutoScalingGroup");
        let of_mains = groups.iter().filter(|name| name.starts_with("Main")).count();
        assert_eq!(of_mains, mains);
    }
}

#[test]
fn ssh_is_open_to_the_operator_alone_and_all_else_to_the_hosts_alone() {
    let stack = smallest();
    assert_eq!(stack.resources("AWS::EC2::SecurityGroup"), ["Hosts"]);
    assert_eq!(stack.resources("AWS::EC2::SecurityGroupIngress"), ["HostsAmongThemselves"]);
    let ingress = stack.property("Hosts", "SecurityGroupIngress");
    let rules = ingress.as_sequence().unwrap();
    assert_eq!(rules.len(), 1);
    assert_eq!((rules[0]["FromPort"].as_u64(), rules[0]["ToPort"].as_u64()), (Some(22), Some(22)));
    assert_eq!(rules[0]["CidrIp"].as_str(), Some("203.0.113.7/32"));
    let source = stack.property("HostsAmongThemselves", "SourceSecurityGroupId");
    assert_eq!(source, stack.property("HostsAmongThemselves", "GroupId"));
}

#[test]
fn a_role_may_do_what_its_hosts_do_and_nothing_else() {
    let stack = smallest();
    let mut may: Vec<String> = vec![];
    for (resource, name) in [("HostPolicy", "PolicyDocument"), ("MainRole", "Policies")] {
        let found = stack.property(resource, name);
        let document = if name == "Policies" { found[0]["PolicyDocument"].clone() } else { found };
        for statement in document["Statement"].as_sequence().unwrap() {
            may.push(statement["Action"].as_str().unwrap().to_owned());
        }
    }
    may.sort();
    may.dedup();
    let actions = [
        "autoscaling:CompleteLifecycleAction",
        "cloudformation:SignalResource",
        "ec2:AttachVolume",
        "ssm:GetParameter",
    ];
    assert_eq!(may, actions);
    let script = std::fs::read_to_string(format!("{FOLDER}/host/wharf-ec2")).unwrap();
    for action in actions {
        let (_, call) = action.split_once(':').unwrap();
        assert!(
            script.contains(&format!("Action={call}")) || script.contains(&format!("AmazonSSM.{call}")),
            "{action}"
        );
    }
    assert_eq!(script.matches("Action=").count() + script.matches("AmazonSSM.").count(), actions.len());
}

/// Runs make-ca.sh.
fn make_ca(arguments: &[&str]) -> Output {
    Command::new(format!("{FOLDER}/make-ca.sh")).args(arguments).output().unwrap()
}

#[test]
fn make_ca_makes_keys_that_only_their_owner_reads_and_ssm_takes() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca").display().to_string();
    let three = [path.as_str(), "10.20.0.11", "10.20.16.11", "10.20.32.11"];
    let made = make_ca(&three);
    assert!(made.status.success(), "{}", said(&made));
    let authority = std::fs::read(format!("{path}/ca.crt")).unwrap();
    for entry in std::fs::read_dir(&path).unwrap() {
        let entry = entry.unwrap();
        let metadata = entry.metadata().unwrap();
        assert_eq!(metadata.permissions().mode() & 0o077, 0, "{:?}", entry.file_name());
        assert!(metadata.len() <= 4096, "{:?} is more than a parameter holds", entry.file_name());
    }
    // Again: new certificates from the same authority.
    let before = std::fs::read(format!("{path}/member.crt")).unwrap();
    assert!(make_ca(&three).status.success());
    assert_eq!(std::fs::read(format!("{path}/ca.crt")).unwrap(), authority);
    assert_ne!(std::fs::read(format!("{path}/member.crt")).unwrap(), before);
    for wrong in [&three[..2], &three[..3], &[path.as_str(), "10.20.0.11", "x", "y"][..]] {
        assert!(!make_ca(wrong).status.success(), "{wrong:?}");
    }
}

#[test]
fn make_ca_puts_what_hosts_read_and_never_the_authoritys_key() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("ca").display().to_string();
    assert!(make_ca(&[&path, "10.20.0.11", "10.20.16.11", "10.20.32.11"]).status.success());
    // AWS's own tool, which writes down what it was asked for.
    let tool = dir.path().join("aws");
    std::fs::write(&tool, format!("#!/bin/sh\necho \"$*\" >>{}/asked\n", dir.path().display())).unwrap();
    std::fs::set_permissions(&tool, std::fs::Permissions::from_mode(0o755)).unwrap();
    let search = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
    let script = format!("{FOLDER}/make-ca.sh");
    let put = Command::new(script).args([&path, "--put", "cellar"]).env("PATH", search).output().unwrap();
    assert!(put.status.success(), "{}", said(&put));
    let asked = std::fs::read_to_string(dir.path().join("asked")).unwrap();
    let names = ["ca.crt", "main/member.crt", "main/member.key", "agent.crt", "agent.key"];
    assert_eq!(asked.lines().count(), names.len(), "{asked}");
    for (line, name) in asked.lines().zip(names) {
        assert!(line.contains("--type SecureString") && line.contains(&format!("--name /cellar/{name} ")), "{line}");
    }
    assert!(!asked.contains("ca.key") && !asked.contains("PRIVATE"), "{asked}");
}

#[test]
fn the_services_are_settings_and_units_that_their_readers_take() {
    let mut checked = 0;
    let has_ordinals = Cli::command().find_subcommand("ordinal").is_some();
    for entry in walk(&Path::new(FOLDER).join("services")).into_iter().chain(walk(&Path::new(FOLDER).join("host"))) {
        let path = entry.display().to_string();
        let text = std::fs::read_to_string(&entry).unwrap();
        if text.starts_with("#!/bin/bash") {
            let parsed = Command::new("bash").args(["-n", &path]).output().unwrap();
            assert!(parsed.status.success(), "{}", said(&parsed));
            checked += 1;
        } else if path.ends_with("wharf.toml") && (!text.contains("[[ordinal]]") || has_ordinals) {
            let asked = Command::new(env!("CARGO_BIN_EXE_wharf")).args(["check-config", "--config", &path]).output();
            let asked = asked.unwrap();
            assert!(asked.status.success(), "{path}: {}", said(&asked));
            checked += 1;
        }
    }
    assert!(checked >= 4, "only {checked} files were looked at");
}

fn walk(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { walk(&path) } else { vec![path] }).collect()
}
