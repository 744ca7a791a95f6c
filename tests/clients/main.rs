//! `docs/clients.md`, line by line: its files are written, its commands are run on a host as it describes, by the programs
//! that it names, and what they print is what stands there.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, missing_docs)] // blocking is what a test does here

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const PATIENCE: Duration = Duration::from_secs(60);

/// What a section of the page has its reader do, in order.
#[derive(Debug)]
enum Step {
    File {
        name: String,
        text: String,
    },
    /// A program that runs on.
    Start(String),
    Run {
        command: String,
        prints: String,
    },
}

/// The sections of the page with their steps.
fn sections() -> Vec<(String, Vec<Step>)> {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/clients.md")).unwrap();
    let mut sections = vec![("the host".to_owned(), vec![])];
    let mut lines = page.lines();
    let mut file = None;
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push((title.to_owned(), vec![]));
        } else if let Some(name) = line.strip_prefix("<!-- file: ") {
            file = Some(name.trim_end_matches(" -->").to_owned());
        } else if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let steps = &mut sections.last_mut().unwrap().1;
            match file.take() {
                Some(name) => steps.push(Step::File { name, text: block.join("\n") + "\n" }),
                None if kind == "console" => steps.extend(session(&block)),
                None => panic!("a block of {kind:?} that nobody tries: {block:?}"),
            }
        }
    }
    sections
}

/// Lines that begin with `$ ` are commands; what follows is what they print.
fn session(block: &[&str]) -> Vec<Step> {
    let mut steps = vec![];
    for line in block {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) if command.ends_with(" &") => {
                steps.push(Step::Start(command.trim_end_matches(" &").to_owned()));
            }
            (Some(command), _) => steps.push(Step::Run { command: command.to_owned(), prints: String::new() }),
            (None, Some(Step::Run { prints, .. })) => *prints += &format!("{line}\n"),
            (None, _) => panic!("{line:?} is printed by nothing"),
        }
    }
    steps
}

/// The host; it ends with its handle.
struct Host {
    folder: tempfile::TempDir,
    tools: PathBuf,
    ground: Child,
    started: Vec<Child>,
}

impl Host {
    fn start(settings: &[Step]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        open_to_all(folder.path());
        let tools = Path::new(ROOT).join("target/clients");
        let made = Command::new(format!("{ROOT}/tests/clients/tools.sh")).arg(&tools).status().unwrap();
        assert!(made.success(), "what the page has its readers install could not be installed");
        for step in settings {
            let Step::File { name, text } = step else { panic!("the host is files alone: {step:?}") };
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        let ground = Command::new("unshare")
            .args(["--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
            .arg(format!("{ROOT}/tests/clients/ground.sh"))
            .arg(folder.path())
            .arg(env!("CARGO_BIN_EXE_wharf"))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(std::fs::File::create(folder.path().join("ground.log")).unwrap())
            .spawn()
            .unwrap();
        Self { folder, tools, ground, started: vec![] }
    }

    /// A line of shell on the host, to be started.
    fn shell(&self, line: &str) -> Command {
        let inside = self.inside();
        let path = [
            self.tools.join("python/bin").display().to_string(),
            Path::new(env!("CARGO_BIN_EXE_wharf")).parent().unwrap().display().to_string(),
            "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin".into(),
        ];
        let mut command = Command::new("nsenter");
        command.args(["--net", "--mount", "-t", &inside.to_string(), "--", "bash", "-c"]);
        command.arg(format!("cd '{}' && {line}", self.folder.path().display())).env("PATH", path.join(":"));
        command.stdin(Stdio::null());
        command
    }

    /// The script's process: the child of `unshare`.
    fn inside(&self) -> u32 {
        let of = self.ground.id();
        let file = format!("/proc/{of}/task/{of}/children");
        let deadline = Instant::now() + PATIENCE;
        loop {
            let children = std::fs::read_to_string(&file).unwrap_or_default();
            if let Some(child) = children.split_whitespace().next() {
                return child.parse().unwrap();
            }
            assert!(Instant::now() < deadline, "the host does not come up: {}", self.told());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn take(&mut self, step: &Step) {
        match step {
            Step::File { name, text } => std::fs::write(self.folder.path().join(name), text).unwrap(),
            Step::Start(line) => {
                let log = std::fs::File::create(self.folder.path().join("started.log")).unwrap();
                let mut command = self.shell(&format!("exec {line}"));
                let started = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
                self.started.push(started);
            }
            Step::Run { command, prints } => self.prints(command, prints),
        }
    }

    /// Sooner or later the command prints just this.
    fn prints(&self, line: &str, expected: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = self.shell(line).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            if printed == expected {
                return;
            }
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(
                Instant::now() < deadline,
                "`{line}` prints\n{printed}{said}\nand not\n{expected}\n{}",
                self.told()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Ends what a section has started.
    fn end_started(&mut self) {
        for mut child in self.started.drain(..) {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn told(&self) -> String {
        let logs = ["ground.log", "started.log", "wharf.log"].map(|name| {
            let text = std::fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            format!("--- {name}\n{}\n", lines[lines.len().saturating_sub(20)..].join("\n"))
        });
        logs.concat()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        for child in &mut self.started {
            let _ = child.kill();
            let _ = child.wait();
        }
        // Its standard input ends, and so does it, with all that it has started.
        drop(self.ground.stdin.take());
        let _ = self.ground.wait();
    }
}

/// Servers that run as nobody look at what is in it.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn every_line_of_the_page_for_clients_does_what_it_says() {
    let sections = sections();
    let ((_, settings), rest) = sections.split_first().unwrap();
    assert!(rest.len() >= 9, "the page has {} sections", rest.len());
    let mut host = Host::start(settings);
    for (title, steps) in rest {
        assert!(steps.iter().any(|step| matches!(step, Step::Run { .. })), "nothing is tried of {title}");
        println!("{title}");
        for step in steps {
            host.take(step);
        }
        host.end_started();
    }
}
