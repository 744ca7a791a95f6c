//! A thousand endpoints that come, go and change, and ten files that list them: whenever the cluster rests, every file
//! is as the cluster is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::town::{Town, until};

const ENDPOINTS: usize = 1_000;
const FILES: usize = 10;
/// Quiet for so long before a file is made.
const WAIT: Duration = Duration::from_millis(20);

/// What is at rest is in every file within that, once it was quiet for so long. Held on an optimized build alone, with
/// the machine to itself.
const BUDGET: Duration = Duration::from_millis(200);

fn is_drill() -> bool {
    std::env::var_os("WHARF_DRILL").is_some()
}

/// Bursts of changes, and changes in each.
fn bounds() -> (usize, usize) {
    if is_drill() { (100, 400) } else { (4, 100) }
}

/// The cluster as the test has it: ports by key.
#[derive(Default)]
struct Cluster {
    ports: BTreeMap<String, usize>,
    dice: u64,
}

impl Cluster {
    fn roll(&mut self, sides: usize) -> usize {
        self.dice = self.dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.dice >> 33) as usize % sides
    }

    /// One change: another port, or an endpoint that goes or comes.
    fn change(&mut self, town: &Town) {
        let key = format!("/services/web/i{:04}", self.roll(ENDPOINTS));
        if self.roll(3) == 0 && self.ports.remove(&key).is_some() {
            town.delete(&key);
        } else {
            let port = 1 + self.roll(60_000);
            town.put(&key, &format!(r#"{{"host":"10.0.0.1","port":{port}}}"#));
            self.ports.insert(key, port);
        }
    }

    fn text(&self, file: usize) -> String {
        let lines = self.ports.iter().map(|(key, port)| format!("{file} {} {port}\n", key.rsplit('/').next().unwrap()));
        lines.collect()
    }
}

#[test]
fn ten_files_of_a_thousand_endpoints_are_right_whenever_the_cluster_rests() {
    let town = Town::new("");
    let mut tables = String::new();
    for file in 0..FILES {
        let text = "{% for e in service('web').endpoints %}\nFILE {{ e.key | split('/') | last }} {{ e.port }}\n{% endfor %}\n";
        town.write(&format!("{file}.j2"), &text.replace("FILE", &file.to_string()));
        tables.push_str(&format!(
            "[[render]]\nname = 'f{file}'\ntemplate = 'DIR/{file}.j2'\ndestination = 'DIR/out/{file}'\nwait = '20ms:1s'\n"
        ));
    }
    town.tables(&tables.replace("DIR", &town.dir.path().display().to_string()));
    let mut cluster = Cluster::default();
    for number in 0..ENDPOINTS {
        cluster.ports.insert(format!("/services/web/i{number:04}"), 80);
    }
    let puts: Vec<_> =
        cluster.ports.keys().map(|key| (key.clone(), r#"{"host":"10.0.0.1","port":80}"#.to_owned())).collect();
    town.put_all(&puts);
    let _follow = town.follow();
    let (bursts, changes) = bounds();
    let mut late = Vec::new();
    for burst in 0..=bursts {
        for _ in 0..if burst == 0 { 0 } else { changes } {
            cluster.change(&town);
        }
        let rests = Instant::now();
        let texts: Vec<String> = (0..FILES).map(|file| cluster.text(file)).collect();
        let is_right = || texts.iter().enumerate().all(|(file, text)| town.read(&format!("out/{file}")) == *text);
        until("every file is as the cluster is", is_right, || town.read("log"));
        late.extend((burst > 0).then(|| rests.elapsed().saturating_sub(WAIT)));
    }
    late.sort_unstable();
    let (median, latest) = (late[late.len() / 2], late[late.len() - 1]);
    println!(
        "{bursts} bursts of {changes} changes: the last file is right {median:?} after the quiet time, {latest:?} at the latest"
    );
    assert!(!is_drill() || latest <= BUDGET, "{late:?}");
}
