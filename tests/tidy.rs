//! The house rules that a compiler does not know, held against the files themselves: which floor may import which,
//! what the lowest floor keeps away from, and how a file begins.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

/// What the pure floor does without, and why a value or an argument does instead.
const NOT_IN_MODEL: &[(&str, &str)] = &[
    ("tokio", "no runtime: time and order come in as arguments"),
    ("tracing", "no logging: return what happened"),
    ("hickory_server::server", "no server: only the protocol's plain types"),
    ("hickory_resolver", "no resolver: only the protocol's plain types"),
    ("bollard", "no engine's types: facts are plain values"),
    ("etcd_client", "no store's types: keys and bytes are plain values"),
    ("axum", "no sockets"),
    ("socket2", "no sockets"),
    ("rustix", "no system calls"),
    ("std::fs", "no files"),
    ("std::env", "no environment: settings are arguments"),
    ("std::process", "no processes"),
    ("std::thread", "no threads"),
    ("TcpStream", "no sockets"),
    ("TcpListener", "no sockets"),
    ("UdpSocket", "no sockets"),
    ("Instant::now", "no clock: `now` is an argument"),
    ("SystemTime::now", "no clock: `now` is an argument"),
    ("rand::rng", "no dice: randomness is an argument"),
];

/// What the program's own code does without; tests may.
const NOT_IN_SRC: &[(&str, &str)] = &[
    (
        "tokio::spawn(",
        "a detached task ends unseen: own it in a JoinSet or an AbortOnDropHandle, or let the supervisor start it by name",
    ),
    ("unbounded_channel(", "a slow reader would cost all memory: bound it and state what happens when it is full"),
    ("std::sync::RwLock", "readers would wait for writers: publish a snapshot (watch, arc-swap)"),
];

/// rustfmt's own bound for code.
const WIDTH: usize = 120;

#[test]
fn a_floor_imports_only_from_below() {
    let mut broken = vec![];
    for file in rust_files("src") {
        let own = top(&file);
        let floor = floor_of(&own).unwrap_or_else(|| panic!("{}: src/lib.rs gives `{own}` no floor", file.display()));
        for (line, name) in imports(&program_text(&file)) {
            let Some(other) = floor_of(&name) else { continue };
            if !may_import(floor, &own, other, &name) {
                broken.push(format!("{}:{line}: {own} (floor {floor}) imports {name} (floor {other})", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

#[test]
fn the_pure_floor_is_pure() {
    forbid("src/model", NOT_IN_MODEL);
    forbid("src/catalog", NOT_IN_MODEL);
}

/// The rooms of the pure floor, and which others each of them may know.
const ROOMS: &[(&str, &[&str])] = &[
    ("model::words", &[]),
    ("model::shares", &[]),
    ("model::offer", &["model::words"]),
    ("model::health", &["model::words", "model::offer"]),
    ("model::publish", &["model::words", "model::offer", "model::health"]),
    ("model::etcd_v2", &["model::words"]),
    ("model::steer", &["model::words"]),
    ("model::skydns", &["model::words"]),
    ("catalog::steps", &[]),
    ("catalog::index", &["model::words", "model::steer", "catalog::steps"]),
    ("catalog::layouts", &["model::words", "catalog::index"]),
    ("catalog::fold", &["model::words", "catalog::index"]),
    ("catalog::select", &["model::words", "model::steer", "catalog::index", "catalog::steps"]),
    ("catalog::dns", &["model::words", "model::steer", "catalog::index", "catalog::select", "catalog::steps"]),
    ("catalog::proxy", &["model::words", "model::steer", "catalog::index"]),
    ("catalog::render", &["model::words", "catalog::facade"]),
    ("catalog::facade", &["model::words", "model::steer", "catalog::index", "catalog::select"]),
];

#[test]
fn a_room_of_the_pure_floor_knows_only_those_before_it() {
    let mut broken = vec![];
    for file in ["src/model", "src/catalog"].into_iter().flat_map(rust_files) {
        let Some(own) = room_of(&file) else { continue };
        let (_, may) =
            ROOMS.iter().find(|(room, _)| *room == own).unwrap_or_else(|| panic!("tests/tidy.rs: no room {own}"));
        for (line, other) in rooms(&program_text(&file)) {
            if other != own && !may.contains(&other.as_str()) {
                broken.push(format!("{}:{line}: {own} imports {other}", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}

/// The room that a file of the pure floor is in; none for the lists of rooms themselves.
fn room_of(file: &Path) -> Option<String> {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    let mut parts = inside.components().map(|part| part.as_os_str().to_str().unwrap().trim_end_matches(".rs"));
    let (floor, room) = (parts.next()?, parts.next()?);
    (room != "mod").then(|| format!("{floor}::{room}"))
}

/// Each use of a path that leads into a room: its line, and the room.
fn rooms(text: &str) -> Vec<(usize, String)> {
    let mut found = vec![];
    for (number, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        for floor in ["model", "catalog"] {
            for (at, path) in code.match_indices(&format!("crate::{floor}::")) {
                let names = first_names(&code[at + path.len()..]);
                found.extend(names.into_iter().map(|name| (number + 1, format!("{floor}::{name}"))));
            }
        }
    }
    found
}

#[test]
fn the_program_spawns_nothing_detached_and_queues_nothing_unbounded() {
    forbid("src", NOT_IN_SRC);
}

#[test]
fn every_file_says_what_it_is_for() {
    let mut silent = vec![];
    for folder in ["src", "tests", "benches", "fuzz", "examples"] {
        for file in rust_files(folder) {
            let text = fs::read_to_string(&file).unwrap();
            let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            // A module's own tests.rs is a part of that module, which says it.
            if !first.starts_with("//!") && !file.ends_with("tests.rs") {
                silent.push(file.display().to_string());
            }
        }
    }
    assert!(silent.is_empty(), "these do not begin with //!:\n{}", silent.join("\n"));
}

/// Whoever stands at a type wants a sentence about it, not a way to walk.
#[test]
fn no_doc_comment_only_points_elsewhere() {
    for folder in ["src", "tests", "benches"] {
        for file in rust_files(folder) {
            let text = fs::read_to_string(&file).expect("a source file");
            let lines = text.lines().map(str::trim);
            let empty = lines.filter(|line| line.starts_with("/// See ") && line.ends_with("module.")).count();
            assert_eq!(empty, 0, "{}: a doc comment says what the item is", file.display());
        }
    }
}

/// As wide as code is. A table's row has no place to break, and neither has a drawing.
#[test]
fn a_comment_is_as_wide_as_code() {
    let mut wide = vec![];
    for folder in ["src", "tests", "benches", "fuzz", "examples"] {
        for file in rust_files(folder) {
            let (text, mut is_drawing) = (fs::read_to_string(&file).expect("a source file"), false);
            for (number, line) in text.lines().enumerate() {
                let Some(said) = line.trim_start().strip_prefix("//") else { continue };
                let said = said.trim_start_matches(['/', '!']).trim_start();
                is_drawing ^= said.starts_with("```");
                if line.chars().count() > WIDTH && !is_drawing && !said.starts_with('|') {
                    wide.push(format!("{}:{}", file.display(), number + 1));
                }
            }
        }
    }
    assert!(wide.is_empty(), "comments wider than {WIDTH} columns:\n{}", wide.join("\n"));
}

#[test]
fn no_test_is_ignored() {
    let ignored: Vec<String> = ["src", "tests"]
        .into_iter()
        .flat_map(rust_files)
        .filter(|file| fs::read_to_string(file).unwrap().lines().any(|line| line.trim_start().starts_with(IGNORE)))
        .map(|file| file.display().to_string())
        .collect();
    assert!(ignored.is_empty(), "run it or remove it: {ignored:?}");
}

const IGNORE: &str = concat!("#[", "ignore");

#[test]
fn every_ban_and_every_make_target_says_why() {
    let clippy = fs::read_to_string(root().join("clippy.toml")).unwrap();
    for ban in clippy.lines().filter(|line| line.contains("path = ")) {
        assert!(ban.contains("reason = "), "clippy.toml: {ban}");
    }
    let make = fs::read_to_string(root().join("Makefile")).unwrap();
    let phony = make.lines().find(|line| line.starts_with(".PHONY:")).unwrap();
    for target in phony.split_whitespace().skip(1).filter(|target| *target != "help") {
        assert!(
            make.lines().any(|line| line.starts_with(&format!("{target}: ## "))),
            "make {target} has no description"
        );
    }
}

/// Else `make fuzz` writes it anew, with whatever versions there are that day.
#[test]
fn the_fuzz_crates_lock_has_every_dependency() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let wanted = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]\n")).unwrap();
    let wanted: Vec<&str> = wanted.lines().filter_map(|line| line.split_once(" = ")).map(|(name, _)| name).collect();
    let lock = fs::read_to_string(root().join("fuzz/Cargo.lock")).unwrap();
    let locked = lock.split("[[package]]").find(|package| package.contains("\nname = \"wharf\"\n")).unwrap();
    let locked: Vec<&str> =
        locked.lines().filter_map(|line| line.trim().strip_prefix('"')?.split([' ', '"']).next()).collect();
    assert!(wanted.len() > 10 && locked.len() > 10, "{wanted:?} {locked:?}");
    let missing: Vec<_> = wanted.iter().filter(|name| !locked.contains(name)).collect();
    assert!(missing.is_empty(), "in fuzz, cargo metadata writes them into its lock: {missing:?}");
}

// The readers are tested too: a rule that sees nothing holds for everything.

#[test]
fn imports_are_seen_however_they_are_written() {
    let check = |text: &str, expected: &[&str]| {
        let found: Vec<String> = imports(text).into_iter().map(|(_, name)| name).collect();
        assert_eq!(found, expected, "{text}");
    };
    check("use crate::model::Key;", &["model"]);
    check("use crate::{docker::watch, model::{Key, Name}};", &["docker", "model"]);
    check("use crate::{\n    docker::watch,\n    store,\n};", &["docker", "store"]);
    check("pub(crate) use crate::store;", &["store"]);
    check("let key = crate::model::Key::new();", &["model"]);
    check("fn f(x: &wharf::cli::Cli) {}", &["cli"]);
    check("// crate::app is above\n/// [`crate::app`]\nlet a = 1; // crate::app", &[]);
    check("macro_crate::app(); mycrate::app();", &[]);
}

#[test]
fn rooms_are_seen_however_they_are_written() {
    let text = "use crate::model::words::key;\nuse crate::catalog::{index, select::near};\n// crate::model::offer\n";
    let seen = ["model::words", "catalog::index", "catalog::select"];
    assert_eq!(rooms(text).into_iter().map(|(_, room)| room).collect::<Vec<_>>(), seen);
}

#[test]
fn the_floors_are_what_the_map_says() {
    let check = |own: &str, other: &str, expected: bool| {
        let floors = (floor_of(own).unwrap(), floor_of(other).unwrap());
        assert_eq!(may_import(floors.0, own, floors.1, other), expected, "{own} imports {other}");
    };
    check("model", "model", true);
    check("model", "store", false);
    check("store", "model", true);
    check("store", "docker", false);
    check("offer", "store", true);
    check("offer", "answer", false);
    check("cli", "cli", true);
    check("follow", "app", false);
    check("app", "follow", true);
    check("app", "supervisor", true);
}

#[test]
fn tests_inside_a_file_are_not_the_program() {
    let text = "fn a() {}\n#[cfg(test)]\nmod tests {\n    use crate::app;\n}\nfn b() {}\n";
    let program = without_tests(text);
    assert!(program.contains("fn a()") && program.contains("fn b()") && !program.contains("crate::app"));
    assert!(without_tests("#[cfg(test)]\nmod tests;\nuse crate::model;\n").contains("crate::model"));
}

/// The two halves of the pure floor have a rule of their own, by rooms.
fn may_import(floor: u8, own: &str, other_floor: u8, other: &str) -> bool {
    own == other || (floor == 0 && other_floor == 0) || other_floor < floor || (floor == TOP && other_floor == TOP)
}

/// The floors are written once: as the headings of the module map in `src/lib.rs`.
fn floor_of(name: &str) -> Option<u8> {
    if name == "main" || name == "lib" {
        return Some(TOP);
    }
    let map = fs::read_to_string(root().join("src/lib.rs")).unwrap();
    let mut floor = None;
    for line in map.lines() {
        if let Some(heading) = line.strip_prefix("// Floor ") {
            floor = heading.chars().next().and_then(|digit| digit.to_string().parse().ok());
        }
        let module = line.trim_start_matches("pub ").strip_prefix("mod ").and_then(|rest| rest.strip_suffix(';'));
        if module == Some(name) {
            return floor;
        }
    }
    None
}

const TOP: u8 = 3;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The folder or file right below `src` that a file belongs to.
fn top(file: &Path) -> String {
    let inside = file.strip_prefix(root().join("src")).unwrap();
    inside.components().next().unwrap().as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
}

fn rust_files(folder: &str) -> Vec<PathBuf> {
    let mut found = vec![];
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() && !path.ends_with("target") {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// A file without its comments and tests; nothing of a file that is all tests.
fn program_text(file: &Path) -> String {
    let tests_only = file.components().any(|part| part.as_os_str() == "tests") || file.ends_with("tests.rs");
    if tests_only && file.starts_with(root().join("src")) {
        return String::new();
    }
    without_tests(&fs::read_to_string(file).unwrap())
}

/// Leaves out each item under `#[cfg(test)]`: up to its `;`, or to the brace that closes it. Line by line, which
/// rustfmt makes possible: an item's last line is indented as its first is.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if line.trim_start().starts_with("#[cfg(test)]") {
            let indent = line.len() - line.trim_start().len();
            kept.push('\n');
            for skipped in lines.by_ref() {
                kept.push('\n');
                let depth = skipped.len() - skipped.trim_start().len();
                let ends = skipped.ends_with(';') || skipped.trim_start().starts_with('}');
                if depth == indent && ends {
                    break;
                }
            }
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// Each use of a path that begins with this crate: its line, and the first name below the crate.
fn imports(text: &str) -> Vec<(usize, String)> {
    let code: String = text.lines().map(|line| line.split("//").next().unwrap_or_default().to_owned() + "\n").collect();
    let mut found = vec![];
    for start in ["crate::", "wharf::"] {
        for (at, _) in code.match_indices(start) {
            let before = code[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let line = code[..at].matches('\n').count() + 1;
            found.extend(first_names(&code[at + start.len()..]).into_iter().map(|name| (line, name)));
        }
    }
    found
}

/// `a::b` gives a; `{a::b, c::{d, e}}` gives a and c.
fn first_names(path: &str) -> Vec<String> {
    let word =
        |text: &str| text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect::<String>();
    if !path.starts_with('{') {
        return vec![word(path)];
    }
    let mut names = vec![];
    let mut depth = 0;
    for (at, c) in path.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if depth == 1 && (c == '{' || c == ',') {
            names.push(word(&path[at + 1..]));
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[track_caller]
fn forbid(folder: &str, words: &[(&str, &str)]) {
    let mut broken = vec![];
    for file in rust_files(folder) {
        let text = program_text(&file);
        for (number, line) in text.lines().enumerate() {
            // A task that ends with its owner is not detached.
            let code = line.split("//").next().unwrap_or_default().replace("AbortOnDropHandle::new(tokio::spawn(", "");
            for (word, why) in words.iter().filter(|(word, _)| code.contains(word)) {
                broken.push(format!("{}:{}: {word}: {why}", file.display(), number + 1));
            }
        }
    }
    assert!(broken.is_empty(), "\n{}", broken.join("\n"));
}
