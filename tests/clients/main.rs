//! Pages of `docs/`, line by line: their files are written, their commands are run on a host as they describe, by the
//! programs that they name, and what these print is what stands there (`…` for what differs each time).
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

/// The sections of a page with their steps.
fn sections(page: &str) -> Vec<(String, Vec<Step>)> {
    let page = std::fs::read_to_string(format!("{ROOT}/docs/{page}")).unwrap();
    let mut sections = vec![("the host".to_owned(), vec![])];
    let mut lines = page.lines();
    let (mut file, mut is_shown_only) = (None, false);
    while let Some(line) = lines.next() {
        if let Some(title) = line.strip_prefix("## ") {
            sections.push((title.to_owned(), vec![]));
        } else if let Some(name) = line.strip_prefix("<!-- file: ") {
            file = Some(name.trim_end_matches(" -->").to_owned());
        } else if line.starts_with("<!-- not run: ") {
            is_shown_only = true;
        } else if let Some(kind) = line.strip_prefix("```") {
            let block: Vec<&str> = lines.by_ref().take_while(|line| *line != "```").collect();
            let steps = &mut sections.last_mut().unwrap().1;
            match file.take() {
                Some(name) => steps.push(Step::File { name, text: block.join("\n") + "\n" }),
                None if is_shown_only => is_shown_only = false,
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
        // What Go has compiled of its library stays for the next time.
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("go");
        command.env("GOCACHE", cache).env("GO111MODULE", "off");
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
            // What a reader sees on a terminal, errors among it.
            let output = self.shell(&format!("{{ {line}; }} 2>&1")).output().unwrap();
            let printed = String::from_utf8_lossy(&output.stdout).into_owned();
            if is_as(&printed, expected) {
                return;
            }
            assert!(Instant::now() < deadline, "`{line}` prints\n{printed}\nand not\n{expected}\n{}", self.told());
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

/// Whether lines are as expected; `…` stands for any text within one.
fn is_as(printed: &str, expected: &str) -> bool {
    let lines = |text: &str| text.lines().map(str::trim_end).map(str::to_owned).collect::<Vec<_>>();
    let (printed, expected) = (lines(printed), lines(expected));
    printed.len() == expected.len() && printed.iter().zip(&expected).all(|(line, pattern)| fits(line, pattern))
}

fn fits(line: &str, pattern: &str) -> bool {
    let parts: Vec<&str> = pattern.split('…').collect();
    let [first, middle @ .., last] = &parts[..] else { return line == pattern };
    let Some(mut rest) = line.strip_prefix(first) else { return false };
    for part in middle {
        let Some((_, after)) = rest.split_once(part) else { return false };
        rest = after;
    }
    rest.ends_with(last)
}

/// Servers that run as nobody look at what is in it.
fn open_to_all(folder: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

/// Does what a page says from its beginning to its end.
fn follow(page: &str, at_least: usize) {
    let sections = sections(page);
    let ((_, settings), rest) = sections.split_first().unwrap();
    let mut host = Host::start(settings);
    let mut tried = 0;
    for (_, steps) in rest {
        for step in steps {
            tried += usize::from(matches!(step, Step::Run { .. }));
            host.take(step);
        }
        host.end_started();
    }
    assert!(tried >= at_least, "only {tried} commands of {page} were tried");
}

#[test]
fn every_line_for_clients_does_what_it_says() {
    follow("clients.md", 15);
}

#[test]
fn every_line_of_trouble_is_what_is_seen() {
    follow("troubleshooting.md", 10);
}

#[test]
fn names_of_consul_are_answered_as_the_page_says() {
    follow("migrating-from-consul.md", 5);
}

#[test]
fn names_and_records_of_skydns_come_over_as_the_page_says() {
    follow("migrating-from-skydns.md", 12);
}

#[test]
fn registrators_records_stand_beside_ours_as_the_page_says() {
    follow("migrating-from-registrator.md", 10);
}

#[test]
fn a_pattern_is_a_pattern() {
    assert!(is_as("a 5s b\n", "a … b\n") && is_as("a\n", "a\n") && is_as("for 5s\n", "for …"));
    assert!(!is_as("a b c\n", "a …d") && !is_as("a\nb\n", "a\n") && !is_as("ab\n", "a\n") && !is_as("a", "ab"));
}
