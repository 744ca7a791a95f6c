//! What fails is run a second time by itself, and a pass at the second time is told: `tests/setup/second_look.sh`, with
//! a stand-in for cargo.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Plays the runs of `played` one after another; a run is what it prints and its exit code.
fn look(played: &[(&str, i32)]) -> (bool, String, Vec<String>) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    for (turn, (said, code)) in played.iter().enumerate() {
        fs::write(path(&format!("said-{turn}")), said).expect("written");
        fs::write(path(&format!("code-{turn}")), code.to_string()).expect("written");
    }
    let stand_in = "#!/bin/bash\ncd \"$(dirname \"$0\")\"\nturn=$(cat turn 2>/dev/null || echo 0)\necho $((turn + 1)) >turn\n\
                    echo \"$*\" >>asked\ncat said-$turn\nexit $(cat code-$turn)\n";
    fs::write(path("cargo"), stand_in).expect("written");
    fs::set_permissions(path("cargo"), fs::Permissions::from_mode(0o755)).expect("made a program");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/setup/second_look.sh");
    let ran = Command::new(script)
        .env("CARGO", path("cargo"))
        .args([path("flaky").as_os_str(), "60".as_ref(), "--test".as_ref(), "one".as_ref()])
        .output()
        .expect("bash runs it");
    let read = |name: &str| fs::read_to_string(path(name)).unwrap_or_default();
    (ran.status.success(), read("flaky"), read("asked").lines().map(str::to_owned).collect())
}

const GOOD: &str = "     Running tests/one.rs (target/debug/deps/one-1)\n\ntest result: ok. 2 passed; 0 failed\n";
const BAD: &str = "     Running tests/one.rs (target/debug/deps/one-1)\n\nfailures:\n\n---- a::b stdout ----\n    left\n\n\
                   failures:\n    a::b\n\ntest result: FAILED. 1 passed; 1 failed\n     Running tests/two/main.rs (t/two-1)\n\n\
                   test result: ok. 1 passed\nerror: 1 target failed:\n    `--test one`\n";

#[test]
fn what_passes_is_run_once() {
    let (passed, flaky, asked) = look(&[(GOOD, 0)]);
    assert!(passed && flaky.is_empty() && asked.len() == 1, "{asked:?}");
}

#[test]
fn a_run_of_no_test_is_no_pass() {
    let none = "     Running tests/one.rs (target/debug/deps/one-1)\n\nrunning 0 tests\n\n\
                test result: ok. 0 passed; 0 failed; 0 ignored; 0 measured; 21 filtered out\n";
    let (passed, flaky, asked) = look(&[(none, 0)]);
    assert!(!passed && flaky.is_empty() && asked.len() == 1, "{asked:?}");
    let ten = none.replace("running 0", "running 10");
    assert!(look(&[(&ten, 0)]).0, "ten are some");
}

#[test]
fn what_passes_alone_is_passed_and_told() {
    let (passed, flaky, asked) = look(&[(BAD, 101), (GOOD, 0)]);
    assert!(passed, "{asked:?}");
    assert_eq!(flaky, "one a::b\n");
    assert_eq!(asked[1], "test --locked --test one -- --exact a::b --test-threads=1");
}

#[test]
fn what_fails_twice_fails() {
    let (passed, flaky, asked) = look(&[(BAD, 101), (BAD, 101)]);
    assert!(!passed && flaky.is_empty() && asked.len() == 2, "{asked:?}");
}

#[test]
fn a_program_that_died_is_run_again_whole() {
    let died = "     Running tests/two/main.rs (t/two-1)\n\nrunning 3 tests\nerror: test failed (signal: 6)\n";
    let (passed, flaky, asked) = look(&[(died, 101), (GOOD, 0)]);
    assert!(passed && flaky == "two -\n", "{flaky:?}");
    assert_eq!(asked[1].trim_end(), "test --locked --test two -- --test-threads=1");
}

#[test]
fn what_does_not_build_fails_at_once() {
    let (passed, _, asked) = look(&[("error: could not compile `wharf`\n", 101)]);
    assert!(!passed && asked.len() == 1, "{asked:?}");
}

#[test]
fn many_failures_are_no_accident() {
    let names: String = (0..5).map(|number| format!("    test_{number}\n")).collect();
    let many = format!("     Running tests/one.rs (t/one-1)\n\nfailures:\n{names}\ntest result: FAILED.\n");
    let (passed, _, asked) = look(&[(&many, 101)]);
    assert!(!passed && asked.len() == 1, "{asked:?}");
}
