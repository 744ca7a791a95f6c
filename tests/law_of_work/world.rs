//! What the store holds, as lines of a readable notation: `4000 × /services/web/i{n} {"host":"10.0.0.1"}`.
//!
//! A line is many records of one shape, `{n}` being the number of each. A world has lines beside what is plain in it: a
//! service that has nothing to do with them, and one record among those of each.

use std::fmt;
use std::sync::LazyLock;
use std::time::Duration;

use wharf::catalog::index::{Catalog, LeaseTimes};
use wharf::model::words::key::Prefix;
use wharf::model::words::zone::Zones;

use super::chance::Chance;

/// Records of one world at most, beside the large service that stands in all of them.
const MOST_RECORDS: usize = 9_000;
const MOST_LINES: usize = 5;
/// More than any window, so that there is always something to be cut.
const LARGE: usize = 9_000;

/// The zones that are served, with their prefixes.
pub const ZONES: [(&str, &str); 8] = [
    ("services.internal", "/services"),
    ("services.internal", "/old"),
    ("services.internal", "/services/web"),
    ("many.test", "/services"),
    ("many.test", "/m1"),
    ("many.test", "/m2"),
    ("10.in-addr.arpa", "/ptr"),
    ("2.ip6.arpa", "/ptr6"),
];
const PREFIXES: [&str; 6] = ["/services", "/services", "/old", "/m1", "/m2", "/ptr"];
const SEGMENTS: [&str; 20] = [
    "web", "web", "web", "a", "a", "b", "i{n}", "x{n}", "n{n%7}", "{n}.b", "A{n}", "aA", "any", "*", "_tcp", "_web",
    "primary", "ns", "dns", "{63}{n}",
];
const HOSTS: [&str; 22] = [
    "10.{n}",
    "10.{n}",
    "10.{n}",
    "10.0.0.1",
    "2001:db8::{n:x}",
    "",
    "web.services.internal",
    "a.services.internal",
    "i{n+1}.web.services.internal",
    "x{n+1}.a.services.internal",
    "n{n%7}.web.services.internal",
    "b.many.test",
    "primary.web.services.internal",
    "blue.web.services.internal",
    "core-1.blue.web.services.internal",
    "_web._tcp.services.internal",
    "*.web.services.internal",
    "any.any.services.internal",
    "{127}.services.internal",
    "{253}{n}.services.internal",
    "www{n}.example.com",
    "bad..{n}",
];
const FIELDS: [&str; 37] = [
    r#""host6":"2001:db8::{n:x}""#,
    r#""host6":"2001:db8::1""#,
    r#""port":{n}"#,
    r#""port":80"#,
    r#""priority":{n}"#,
    r#""priority":{n%7}"#,
    r#""weight":{n}"#,
    r#""ttl":4294967295"#,
    r#""ttl":{n%7}"#,
    r#""role":"primary""#,
    r#""role":"replica""#,
    r#""node":"core-{n%7}""#,
    r#""node":"Core {n}""#,
    r#""node":"{500}{n}""#,
    r#""site":"eu/z{n%7}/k{n%700}""#,
    r#""site":"eu/z{n%7}/k{n}""#,
    r#""site":"eu/z1/k1/{63}/{63}/{63}""#,
    r#""attrs":{"near":"true"}"#,
    r#""attrs":{"near":"true","near_min":"64"}"#,
    r#""tags":["blue"]"#,
    r#""tags":["blue","t{n%7}"]"#,
    r#""tags":["Blue {n}","{500}{n}","green"]"#,
    r#""tags":[{60 tags},"blue"]"#,
    r#""tags":[{60 texts},"blue"]"#,
    r#""group":"g""#,
    r#""group":"g{n}""#,
    r#""group":"{500}{n}""#,
    r#""text":"t{n}""#,
    r#""text":"{500}""#,
    r#""text":"{500}{n}""#,
    r#""mail":true"#,
    r#""targetstrip":1"#,
    r#""targetstrip":2"#,
    r#""targetstrip":{n%7}"#,
    r#""targetstrip":255"#,
    r#""proto":"udp""#,
    r#""owner":"o""#,
];

/// The host that PTR and NS lead to, and other places whose names mean something.
const ROOTS: [&str; 5] = ["/services/dns/ns", "/services/dns/apex", "/ptr/0/0", "/m1/dns/ns", "/services/web"];

/// Many records of one shape.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub count: usize,
    pub key: String,
    pub host: String,
    pub fields: Vec<String>,
    /// They hang on leases, one each or one together; or are held.
    pub bound: String,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { count, key, host, fields, bound } = self;
        let fields: String = fields.iter().map(|field| format!(",{field}")).collect();
        write!(f, "{count} × {key} {{\"host\":\"{host}\"{fields}}} {bound}")
    }
}

impl Line {
    /// Reads what it is shown as.
    pub fn read(text: &str) -> Self {
        let (count, rest) = text.trim().split_once(" × ").unwrap();
        let (key, rest) = rest.split_once(" {\"host\":\"").unwrap();
        let (value, bound) = rest.rsplit_once('}').unwrap();
        let (host, fields) = value.split_once('"').unwrap();
        let fields = fields.strip_prefix(',').map(str::to_owned).into_iter().collect();
        let (key, host, bound) = (key.to_owned(), host.to_owned(), bound.trim().to_owned());
        Self { count: count.parse().unwrap(), key, host, fields, bound }
    }

    pub fn any(chance: &mut Chance) -> Self {
        let mut line = Self {
            count: Self::some(chance),
            key: Self::some_key(chance),
            host: (*chance.of(&HOSTS)).to_owned(),
            fields: Vec::new(),
            bound: (*chance.of(&["", "", "", "leases", "lease", "owned", "held"])).to_owned(),
        };
        for _ in 0..chance.below(5) {
            line.add_field(chance);
        }
        line
    }

    fn some(chance: &mut Chance) -> usize {
        *chance.of(&[1, 3, 40, 300, 1_000, 2_000, 4_000, 4_000, 4_096, 5_000])
    }

    fn some_key(chance: &mut Chance) -> String {
        let mut key = if chance.one_in(4) { *chance.of(&ROOTS) } else { *chance.of(&PREFIXES) }.to_owned();
        for _ in 0..=chance.below(3) {
            key = format!("{key}/{}", chance.of(&SEGMENTS));
        }
        if chance.one_in(8) {
            key.push_str(&"/a".repeat(*chance.of(&[5, 40, 110])));
        }
        if !key.contains("{n") {
            key.push_str(chance.of::<&str>(&["/i{n}", "/i{n}", "/x{n}", "/{n}/a", "/{63}{n}", "/{n}/{63}/{63}"]));
        }
        key
    }

    fn add_field(&mut self, chance: &mut Chance) {
        let field = *chance.of(&FIELDS);
        let name = |field: &str| field.split(':').next().map(str::to_owned);
        self.fields.retain(|own| name(own) != name(field));
        self.fields.push(field.to_owned());
    }

    fn mutate(&mut self, chance: &mut Chance) {
        match chance.below(7) {
            0 => self.count = Self::some(chance),
            1 => self.key = Self::some_key(chance),
            2 => (*chance.of(&HOSTS)).clone_into(&mut self.host),
            3 | 4 => self.add_field(chance),
            5 if !self.fields.is_empty() => drop(self.fields.remove(chance.below(self.fields.len()))),
            _ => (*chance.of(&["", "leases", "lease", "owned", "held"])).clone_into(&mut self.bound),
        }
    }

    /// What the store holds of it.
    pub fn records(&self) -> impl Iterator<Item = (String, String)> + '_ {
        let fields: String = self.fields.iter().map(|field| format!(",{field}")).collect();
        let owned = if self.bound == "owned" { r#","owner":"me""# } else { "" };
        let value = format!("{{\"host\":\"{}\"{fields}{owned}}}", self.host);
        (0..self.count).map(move |number| (filled(&self.key, number), filled(&value, number)))
    }

    /// The folder of its first record.
    pub fn folder(&self) -> String {
        let key = filled(&self.key, 0);
        key.rsplit_once('/').map(|(folder, _)| folder.to_owned()).unwrap_or(key)
    }

    fn lease(&self, number: usize) -> i64 {
        match self.bound.as_str() {
            "leases" => i64::try_from(number).unwrap() + 1,
            "lease" | "owned" => 1,
            _ => 0,
        }
    }
}

/// A template with its number in.
fn filled(template: &str, number: usize) -> String {
    let address = format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255);
    template
        .replace("{63}{n}", &format!("{}{number:05}", "l".repeat(58)))
        .replace("10.{n}", &address)
        .replace("{n}", &number.to_string())
        .replace("{n:x}", &format!("{number:x}"))
        .replace("{n+1}", &(number + 1).to_string())
        .replace("{n%700}", &(number % 700).to_string())
        .replace("{n%7}", &(number % 7).to_string())
        .replace("{63}", &"l".repeat(63))
        .replace("{127}", "a.".repeat(116).trim_end_matches('.'))
        .replace("{253}", &format!("{0}.{0}.{0}.", "l".repeat(61)))
        .replace("{500}", &"T".repeat(500))
        .replace("{60 tags}", &(0..60).map(|tag| format!("\"tag{tag}\"")).collect::<Vec<_>>().join(","))
        .replace("{60 texts}", &(0..60).map(|tag| format!("\"Tag {tag} of {number}\"")).collect::<Vec<_>>().join(","))
}

/// A service of plain records that stands in every world.
static PLAIN: LazyLock<Catalog> = LazyLock::new(|| {
    let mut catalog = Catalog::default();
    for number in 0..LARGE {
        let value = filled(r#"{"host":"10.{n}","port":80,"node":"core-{n%7}","tags":["blue"],"proto":"tcp"}"#, number);
        catalog.put(&format!("/services/large/i{number}"), value.as_bytes(), 0, 1).unwrap();
    }
    for number in 1..=3 {
        catalog.put(&format!("/services/plain/p{number}"), format!("10.9.9.{number}:80").as_bytes(), 0, 1).unwrap();
    }
    for lease in 1..5_001 {
        let times = LeaseTimes { granted: Duration::from_secs(30), until: Duration::from_secs(20) };
        catalog.set_lease(lease, times);
    }
    catalog
});

/// A world.
#[derive(Clone, Debug)]
pub struct World {
    pub lines: Vec<Line>,
    pub catalog: Catalog,
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "    {line}"))
    }
}

impl World {
    pub fn of(lines: Vec<Line>) -> Self {
        let mut catalog = PLAIN.clone();
        for line in &lines {
            put(&mut catalog, line);
        }
        let mut world = Self { lines, catalog };
        world.put_plain();
        world
    }

    pub fn any(chance: &mut Chance) -> Self {
        let mut lines = Vec::new();
        for _ in 0..=chance.below(3) {
            lines.push(Line::any(chance));
        }
        Self::of(Self::bounded(lines))
    }

    fn bounded(mut lines: Vec<Line>) -> Vec<Line> {
        lines.truncate(MOST_LINES);
        let mut left = MOST_RECORDS;
        for line in &mut lines {
            line.count = line.count.min(left);
            left -= line.count;
        }
        lines
    }

    pub fn mutated(&self, chance: &mut Chance) -> Self {
        let mut lines = self.lines.clone();
        let place = chance.below(lines.len().max(1));
        match chance.below(6) {
            0 => lines.push(Line::any(chance)),
            1 if lines.len() > 1 => drop(lines.remove(place)),
            2 if !lines.is_empty() => {
                let mut line = lines[place].clone();
                line.mutate(chance);
                lines.push(line);
            }
            _ if !lines.is_empty() => lines[place].mutate(chance),
            _ => lines.push(Line::any(chance)),
        }
        Self::of(Self::bounded(lines))
    }

    /// A plain record in the folder of each line.
    fn put_plain(&mut self) {
        for (key, address) in self.plain() {
            let _too_long_a_key = self.catalog.put(&key, format!("{address}:80").as_bytes(), 0, 1);
        }
    }

    /// The plain record in the folder of each line, and its address.
    pub fn plain(&self) -> Vec<(String, String)> {
        let folders = self.lines.iter().enumerate();
        let all = folders.map(|(place, line)| (format!("{}/inside{place}", line.folder()), format!("10.8.8.{place}")));
        all.filter(|(key, _)| self.catalog.bad_at(key).is_none()).collect()
    }
}

fn put(catalog: &mut Catalog, line: &Line) {
    for (number, (key, value)) in line.records().enumerate() {
        let _bad_ones_too = catalog.put(&key, value.as_bytes(), line.lease(number), 1);
        if line.bound == "held" {
            catalog.hold(&key, Duration::from_secs(9));
        }
    }
}

/// The zones of every world.
pub fn zones() -> Zones {
    let prefix = |text: &str| Prefix::parse(text).unwrap();
    let others = ZONES[1..].iter().map(|(name, path)| ((*name).to_owned(), prefix(path)));
    Zones::new(ZONES[0].0, prefix(ZONES[0].1), others).unwrap()
}
