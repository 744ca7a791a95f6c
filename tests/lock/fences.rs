//! `wharf kv`: single keys, and writes that only who has a lock may make.

use crate::ground::Ground;
use crate::program::told;

#[test]
fn keys_are_written_read_and_ensured() {
    let ground = Ground::new();
    let run = |line: &str| told(&ground.wharf(line));
    assert_eq!(run("kv get /config/x").0, Some(1));
    assert_eq!(run("kv ensure /config/x one").1, "one\n");
    assert_eq!(run("kv ensure /config/x two"), (Some(0), "one\n".into(), String::new()));
    assert_eq!(run("kv put /config/x two").0, Some(0));
    assert_eq!(run("kv get /config/x").1, "two\n");
    for wrong in ["kv get config", "kv put /config/ x", "kv put /x y --if-lock db", "kv put /x y --if-lock db=z", "kv"]
    {
        assert_eq!(run(wrong).0, Some(2), "{wrong}");
    }
}

#[test]
fn only_who_has_the_lock_writes() {
    let ground = Ground::new();
    let run = |line: &str| told(&ground.wharf(line));
    let (code, _, err) = run("kv put /config/x y --if-lock db=5");
    assert!(code == Some(1) && err.contains("nobody has db"), "{err}");
    let mut first = ground.stamping("one", "");
    ground.until_lives(1);
    let second = ground.stamping("two", "");
    ground.until("the second waits", || second.log().contains("1 before us"));
    let token = ground.lives()[0].token;
    assert_eq!(run(&format!("kv put /config/x one --if-lock db={token}")).0, Some(0));
    first.stop();
    first.code();
    ground.until_lives(2);
    let (code, _, err) = run(&format!("kv put /config/x late --if-lock db={token}"));
    assert!(code == Some(1) && err.contains("not written"), "{err}");
    let (code, _, err) = run(&format!("kv ensure /config/y late --if-lock db={token}"));
    assert!(code == Some(1) && err.contains("not written"), "{err}");
    assert_eq!(run(&format!("kv ensure /config/x z --if-lock db={}", ground.lives()[1].token)).1, "one\n");
    assert_eq!(run("kv get /config/y").0, Some(1));
}
