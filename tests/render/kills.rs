//! A reader that opens the file all the time, through changes and kills: it never sees half of one, and whatever was
//! killed when, the last content ends up in the file, loaded, with nothing left beside it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use crate::town::Town;

/// Enough lines that a file written in place would be seen half written.
const LINES: usize = 2_000;

/// How many kills, and changes before each.
fn bounds() -> (usize, usize) {
    if std::env::var_os("WHARF_DRILL").is_some() { (100, 100) } else { (10, 12) }
}

/// Whether a file is one content from its first line to its last; then the number that it has.
fn whole(text: &str) -> Option<u64> {
    let first = text.lines().next()?;
    let is_whole = text.lines().count() == LINES && text.ends_with('\n') && text.lines().all(|line| line == first);
    first.parse().ok().filter(|_| is_whole)
}

#[test]
fn a_reader_never_sees_half_a_file_and_after_each_kill_the_last_one_is_there_and_loaded() {
    let town = Town::new("");
    town.write("seq.j2", "{% for i in range(2000) %}\n{{ service('seq').endpoints[0].port }}\n{% endfor %}\n");
    let table = "[[render]]\nname = 'seq'\ntemplate = 'DIR/seq.j2'\ndestination = 'DIR/out/seq'\nwait = '0ms:0ms'\nmin = { seq = 1 }\n\
                 check = ['/bin/grep', '-q', '.', '{{ candidate }}']\n\
                 reload = ['/bin/sh', '-c', 'cp DIR/out/seq DIR/loaded.new && mv DIR/loaded.new DIR/loaded']\n";
    town.tables(&table.replace("DIR", &town.dir.path().display().to_string()));
    let put = |number: usize| {
        town.put("/services/seq/a", &format!(r#"{{"host":"10.0.0.1","port":{number}}}"#));
    };
    put(1);
    let (file, stop, reads) = (town.path("out/seq"), Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (stopped, counted) = (Arc::clone(&stop), Arc::clone(&reads));
    let reader = std::thread::spawn(move || {
        let mut seen = 0;
        while !stopped.load(Ordering::Relaxed) {
            let Ok(text) = std::fs::read_to_string(&file) else { continue };
            let number = whole(&text).unwrap_or_else(|| panic!("half a file: {} bytes", text.len()));
            assert!(number >= seen, "an older file has come back: {number} after {seen}");
            seen = number;
            counted.fetch_add(1, Ordering::Relaxed);
            std::thread::sleep(Duration::from_micros(200));
        }
    });
    let (kills, changes) = bounds();
    let mut number = 1;
    let mut dice = 1_u64;
    let mut follow = town.follow();
    town.until_file("loaded", "loaded", |text| whole(text).is_some());
    for _ in 0..kills {
        for _ in 0..changes {
            number += 1;
            put(number);
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            std::thread::sleep(Duration::from_millis(dice >> 59)); // up to 31 ms: a kill hits any step
        }
        follow.kill();
        follow = town.follow();
        let is_last = |text: &str| whole(text) == Some(number as u64);
        town.until_file("out/seq", "the last", is_last);
        town.until_file("loaded", "loaded", is_last);
        crate::town::until("nothing is left beside it", || town.files() == ["seq"], || format!("{:?}", town.files()));
    }
    stop.store(true, Ordering::Relaxed);
    reader.join().unwrap();
    assert!(follow.stop().success());
    println!("{} reads, {number} changes, {kills} kills", reads.load(Ordering::Relaxed));
    assert!(reads.load(Ordering::Relaxed) > 100);
}
