//! `tests/setup/setup.sh` is gentle: it installs only what is missing and only where it may, keeps servers from
//! starting, replaces no engine, and elsewhere says what is missing and changes nothing. It sees a small world of
//! stand-ins here.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use tempfile::TempDir;

/// What the script needs of a system; protoc is not among it.
const TOOLS: [&str; 17] = [
    "bash", "cat", "cc", "chmod", "cut", "dirname", "env", "grep", "head", "mkdir", "mv", "printf", "rm", "sed", "sh",
    "sort", "tr",
];

/// A system of stand-ins: its programs, its files, and what was asked of apt-get.
struct World {
    folder: TempDir,
}

impl World {
    fn new(system: &str, user: u32) -> Self {
        let world = Self { folder: tempfile::tempdir().expect("a folder") };
        for folder in ["bin", "etc", "usr/sbin"] {
            fs::create_dir_all(world.path(folder)).expect("made");
        }
        fs::write(world.path("etc/os-release"), format!("ID={system}\n")).expect("written");
        for tool in TOOLS {
            let real = ["/usr/bin", "/bin"].iter().map(|at| Path::new(at).join(tool)).find(|at| at.exists());
            symlink(real.expect("every system has it"), world.path(&format!("bin/{tool}"))).expect("linked");
        }
        world.program("id", &format!("echo {user}"));
        world.program("cargo", "echo cargo 9.99.0");
        world.program("dpkg-query", "exit 1");
        // What it installs is there afterwards; what rules the start of servers is noted as it is meanwhile.
        world.program(
            "apt-get",
            "here=${0%/bin/*}\necho \"$*\" >>$here/asked\ncat $here/usr/sbin/policy-rc.d >>$here/policy 2>/dev/null\n\
             case \"$*\" in *-s\\ *) ;; *) ln -sf ../bin/cat $here/bin/protoc ;; esac",
        );
        symlink("/bin/ln", world.path("bin/ln")).expect("linked");
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn program(&self, name: &str, text: &str) {
        let at = self.path(&format!("bin/{name}"));
        fs::write(&at, format!("#!/bin/bash\n{text}\n")).expect("written");
        fs::set_permissions(&at, fs::Permissions::from_mode(0o755)).expect("made a program");
    }

    fn setup(&self, words: &[&str]) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/setup.sh"))
            .args(words)
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("WHARF_SETUP_ROOT", self.folder.path())
            .env("DOCKER_HOST", "tcp://192.0.2.1:2375")
            .output()
            .expect("bash runs it")
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }
}

fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn elsewhere_it_says_what_is_missing_and_changes_nothing() {
    for (system, user) in [("fedora", 0), ("debian", 1000)] {
        let world = World::new(system, user);
        let output = world.setup(&["build"]);
        assert_eq!(output.status.code(), Some(1), "{}", told(&output));
        assert!(told(&output).contains("\n  protobuf-compiler\n"), "{}", told(&output));
        assert!(told(&output).contains("apt-get install --no-install-recommends"), "{}", told(&output));
        assert_eq!(world.read("asked"), "", "nothing is installed");
    }
}

#[test]
fn on_debian_as_root_it_installs_gently_and_only_what_is_missing() {
    let world = World::new("debian", 0);
    let output = world.setup(&["build"]);
    assert!(output.status.success(), "{}", told(&output));
    let asked = world.read("asked");
    assert!(asked.lines().all(|line| line.contains("--no-remove --no-install-recommends")), "{asked}");
    assert!(asked.contains(" protobuf-compiler") && !asked.contains(" gcc") && !asked.contains("etcd"), "{asked}");
    assert!(world.read("policy").contains("exit 101"), "servers are kept from starting");
    assert!(!world.path("usr/sbin/policy-rc.d").exists(), "and only for so long");
    let again = world.setup(&["build"]);
    assert!(again.status.success() && world.read("asked") == asked, "what is there is not installed again");
}

#[test]
fn a_policy_that_was_there_comes_back() {
    let world = World::new("debian", 0);
    fs::write(world.path("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 0\n").expect("written");
    assert!(world.setup(&["build"]).status.success());
    assert_eq!(world.read("usr/sbin/policy-rc.d"), "#!/bin/sh\nexit 0\n");
    assert!(world.read("policy").contains("exit 101"));
}

#[test]
fn no_engine_is_installed_where_one_is_named() {
    let world = World::new("debian", 0);
    let output = world.setup(&["--engine", "build"]);
    assert!(output.status.success(), "{}", told(&output));
    assert!(!world.read("asked").contains("docker"), "{}", world.read("asked"));
}

#[test]
fn an_old_toolchain_is_told_with_what_to_do() {
    let world = World::new("debian", 0);
    world.program("cargo", "echo cargo 1.60.0");
    let output = world.setup(&["build"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("this is 1.60.0: rustup update stable"), "{}", told(&output));
}

/// A repository with one commit on its main branch and the script that looks at further ones.
fn repository() -> TempDir {
    let folder = tempfile::tempdir().expect("a folder");
    fs::create_dir_all(folder.path().join("tests/setup")).expect("made");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/commits.sh");
    fs::copy(script, folder.path().join("tests/setup/commits.sh")).expect("copied");
    in_it(&folder, "git init -q -b main && git add -A && git commit -q -m First && git switch -q -c topic");
    folder
}

fn in_it(folder: &TempDir, script: &str) -> Output {
    let mut shell = Command::new("bash");
    for who in ["AUTHOR", "COMMITTER"] {
        shell.env(format!("GIT_{who}_NAME"), "somebody").env(format!("GIT_{who}_EMAIL"), "somebody@example.com");
    }
    shell.args(["-ec", script]).current_dir(folder).output().expect("it runs")
}

#[test]
fn a_commit_larger_than_a_page_says_problem_solution_and_how_it_was_checked() {
    let folder = repository();
    let look = |script: &str| {
        let looked = in_it(&folder, &format!("{script}; tests/setup/commits.sh"));
        (looked.status.success(), String::from_utf8(looked.stderr).expect("text"))
    };
    assert_eq!(look("seq 60 >small; git add small; git commit -q -m Small"), (true, String::new()));
    let (good, said) = look("seq 61 >large; git add large; git commit -q -m Large");
    assert!(!good && said.contains("changes 61 lines") && said.contains(": Large"), "{said}");
    let (good, said) = look("git commit -q --amend -m Large -m Problem. -m Solution.");
    assert!(!good, "{said}");
    assert_eq!(look("git commit -q --amend -m Large -m Problem. -m Solution. -m Checked."), (true, String::new()));
}
