//! Shapes of records: how the keys and values of very many are made, each by its number.

use std::fmt;

use rand::RngExt;
use rand::rngs::StdRng;
use serde_json::{Map, Value, json};

/// How many of the records have a text in common.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Shared {
    /// Each has its own.
    #[default]
    Own,
    /// So many share one.
    By(usize),
    /// All have the same.
    All,
}

/// How texts of a record are made.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Texts {
    pub count: usize,
    pub length: usize,
    pub shared: Shared,
    /// 0: letters; 1: capitals; 2: what is slugged; 3: two-byte letters; 4: labels of other layouts.
    pub letters: u8,
}

/// A shape.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Shape {
    /// The labels of a key below the prefix, and which of them are the record's own.
    pub labels: Texts,
    /// The first labels that all have in common.
    pub trunk: usize,
    /// Labels of one letter behind them.
    pub tail: usize,
    /// Labels are parted by dots, in segments of so many; 0 is by slashes alone.
    pub dotted: usize,
    pub tags: Texts,
    pub attrs: Texts,
    pub attr_value: usize,
    /// host, host6, text, group, id, service, node, owner, container, image, since: their lengths, 0 for none.
    pub fields: [Texts; 11],
    /// 0: IPv4; 1: IPv6; 2: a name; 3: none; 4: `host:port`.
    pub host: u8,
    pub leases: Shared,
    /// 0: none; 1: primary; 2: replica; 3: no role at all, so that it is a bad record.
    pub role: u8,
    /// 0: one after the other; 1: from both ends; 2: backwards; 3: mixed.
    pub order: u8,
    /// One of so many is not deleted with the others; 0 deletes none.
    pub stays: usize,
}

const FIELDS: [&str; 11] =
    ["host", "host6", "text", "group", "id", "service", "node", "owner", "container", "image", "since"];

impl Shape {
    pub fn key(&self, number: usize) -> String {
        let mut key = String::from("/services");
        for place in 0..self.labels.count.max(1) {
            let dot = self.dotted > 0 && place % self.dotted != 0;
            key.push(if dot { '.' } else { '/' });
            let trunk = place < self.trunk && place + 1 < self.labels.count;
            key.push_str(&self.labels.text(place, if trunk { 0 } else { number }));
        }
        key + &"/x".repeat(self.tail)
    }

    pub fn value(&self, number: usize) -> String {
        if self.host == 4 {
            return format!("{}:{}", self.fields[0].text(0, number), 1 + number % 65_535);
        }
        let mut value = Map::new();
        for (place, (name, texts)) in FIELDS.iter().zip(&self.fields).enumerate() {
            if texts.length > 0 {
                value.insert((*name).to_owned(), json!(texts.text(place, number)));
            }
        }
        match self.host {
            0 => drop(value.insert(
                "host".into(),
                json!(format!("10.{}.{}.{}", number >> 16 & 255, number >> 8 & 255, number & 255)),
            )),
            1 => {
                value.insert("host".into(), json!(format!("2001:db8::{:x}:{:x}", number >> 16, number & 0xffff)));
                value.insert("host6".into(), json!(format!("fd00::{:x}:{:x}", number >> 16, number & 0xffff)));
            }
            _ => {}
        }
        value.insert("port".into(), json!(number % 65_536));
        let tags: Vec<String> = (0..self.tags.count).map(|place| self.tags.text(place, number)).collect();
        if !tags.is_empty() {
            value.insert("tags".into(), json!(tags));
        }
        let long = "v".repeat(self.attr_value);
        let attrs =
            (0..self.attrs.count).map(|place| (self.attrs.text(place, number), json!(format!("{number}{long}"))));
        let attrs: Map<String, Value> = attrs.collect();
        if !attrs.is_empty() {
            value.insert("attrs".into(), Value::Object(attrs));
        }
        match self.role {
            0 => {}
            role => {
                drop(value.insert("role".into(), json!(["", "primary", "replica", "none"][usize::from(role.min(3))])));
            }
        }
        Value::Object(value).to_string()
    }

    /// Of how many parts a record is: its labels, tags and attrs, and some others.
    pub fn parts(&self) -> usize {
        5 + self.labels.count + self.tail + self.tags.count + 2 * self.attrs.count
    }

    pub fn lease(&self, number: usize) -> i64 {
        1 + self.leases.of(number) as i64
    }

    /// In what order so many are put.
    pub fn order(&self, count: usize) -> Vec<usize> {
        match self.order {
            0 => (0..count).collect(),
            1 => (0..count).map(|at| if at % 2 == 0 { at / 2 } else { count - 1 - at / 2 }).collect(),
            2 => (0..count).rev().collect(),
            // A prime, so that it has no factor in common with a count.
            _ => (0..count).map(|at| (at * 7_919 + 13) % count).collect(),
        }
    }

    /// Whether a record stays when most are deleted.
    pub fn stays(&self, number: usize) -> bool {
        number.is_multiple_of(self.stays.max(1))
    }

    /// The same with one thing changed.
    pub fn mutate(&mut self, random: &mut StdRng) {
        match random.random_range(0..14) {
            13 => self.stays = random.random_range(0..=24),
            12 => self.tail = if random.random_bool(0.5) { random.random_range(0..=126) } else { 0 },
            0 | 1 => self.labels.mutate(random, 127, 63),
            2 => self.trunk = random.random_range(0..=self.labels.count),
            3 => self.dotted = random.random_range(0..5),
            4 | 5 => self.tags.mutate(random, 64, 200),
            6 => self.attrs.mutate(random, 64, 200),
            7 => self.attr_value = random.random_range(0..200),
            8 | 9 => self.fields[random.random_range(0..11_usize)].mutate(random, 1, 2_000),
            10 => (self.host, self.role) = (random.random_range(0..5), random.random_range(0..3)),
            _ => (self.leases, self.order) = (Shared::random(random), random.random_range(0..4)),
        }
    }

    /// Takes each part from one of both.
    pub fn cross(&self, other: &Self, random: &mut StdRng) -> Self {
        let mut child = self.clone();
        let mut coin = || random.random_bool(0.5);
        if coin() {
            (child.labels, child.trunk, child.tail, child.dotted) =
                (other.labels, other.trunk, other.tail, other.dotted);
        }
        if coin() {
            child.tags = other.tags;
        }
        if coin() {
            (child.attrs, child.attr_value) = (other.attrs, other.attr_value);
        }
        if coin() {
            (child.fields, child.host) = (other.fields, other.host);
        }
        if coin() {
            (child.leases, child.role) = (other.leases, other.role);
        }
        if coin() {
            (child.order, child.stays) = (other.order, other.stays);
        }
        child
    }

    /// Keeps within what is a record, so that the search is not for the cheapest way to be none.
    pub fn fit(&mut self) {
        self.labels.count = self.labels.count.clamp(1, 127);
        // The last label tells the records apart.
        self.labels.length = self.labels.length.clamp(6, 63).min((255 / self.labels.count).saturating_sub(1)).max(1);
        if self.labels.length < 6 {
            self.labels.count = self.labels.count.min(36);
            self.labels.length = 6;
        }
        let room = 255_usize.saturating_sub(self.labels.count * (self.labels.length + 1));
        self.tail = self.tail.min(room / 2).min(127 - self.labels.count);
        self.labels.shared = Shared::Own;
        self.labels.letters %= 2;
        self.fields[0].length = self.fields[0].length.min(120);
        self.fields[1].length = self.fields[1].length.min(120);
        while self.value(123_456).len() > 8_000 {
            for texts in self.fields.iter_mut().chain([&mut self.tags, &mut self.attrs]) {
                texts.length = texts.length * 3 / 4;
            }
            self.attr_value = self.attr_value * 3 / 4;
            if self.tags.length < 8 {
                self.tags.count = self.tags.count * 3 / 4;
            }
        }
    }
}

impl Shared {
    fn of(self, number: usize) -> usize {
        match self {
            Self::Own => number,
            Self::By(by) => number / by.max(1),
            Self::All => 0,
        }
    }

    fn random(random: &mut StdRng) -> Self {
        match random.random_range(0..4) {
            0 => Self::All,
            1 => Self::By(random.random_range(2..50)),
            _ => Self::Own,
        }
    }
}

impl Texts {
    pub const fn of(count: usize, length: usize) -> Self {
        Self { count, length, shared: Shared::Own, letters: 0 }
    }

    /// The text at a place of a record.
    fn text(&self, place: usize, number: usize) -> String {
        let number = self.shared.of(number);
        let (fill, start) = match self.letters {
            1 => ("X", "X"),
            2 => (" ", "%"),
            3 => ("ä", "ä"),
            4 => ("_", "_"),
            _ => ("x", ""),
        };
        let mut text = format!("{start}{}{}", base36(place), format_args!("{:0>4}", base36(number)));
        while text.len() < self.length {
            text.push_str(fill);
        }
        text
    }

    fn mutate(&mut self, random: &mut StdRng, most: usize, longest: usize) {
        match random.random_range(0..5) {
            0 => self.count = random.random_range(0..=most),
            1 => self.count = if random.random_bool(0.5) { most } else { 1 },
            2 => self.length = random.random_range(0..=longest),
            3 => self.shared = Shared::random(random),
            _ => (self.letters, self.length) = (random.random_range(0..5), random.random_range(0..40)),
        }
    }
}

fn base36(mut number: usize) -> String {
    let mut text = Vec::new();
    loop {
        text.push(b"0123456789abcdefghijklmnopqrstuvwxyz"[number % 36]);
        number /= 36;
        if number == 0 {
            text.reverse();
            return String::from_utf8_lossy(&text).into_owned();
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without all that is as in the simplest one, it can be written down again.
        let none = format!("{:?}", Texts::default());
        let shape = format!("{self:?}").replace(&none, "-");
        let shown: String = self.value(1).chars().take(200).collect();
        write!(f, "{shape}, such as {:?} = {shown}", self.key(1))
    }
}

/// What is to be looked at first: ordinary records, what was found worst, and what was once very costly.
pub fn known() -> Vec<(&'static str, Shape)> {
    let plain = Shape { labels: Texts::of(2, 10), trunk: 1, ..Shape::default() };
    vec![
        ("a plain record", plain.clone()),
        (
            "a record with everything",
            Shape { tags: Texts::of(2, 8), attrs: Texts::of(1, 8), fields: [Texts::of(1, 12); 11], ..plain.clone() },
        ),
        ("a service of its own for each", Shape { labels: Texts::of(2, 6), ..Shape::default() }),
        ("a deep key", Shape { labels: Texts::of(36, 6), ..Shape::default() }),
        (
            "a deep key with dots and capitals",
            Shape { labels: Texts { letters: 1, ..Texts::of(36, 6) }, dotted: 3, ..Shape::default() },
        ),
        ("64 tags", Shape { tags: Texts::of(64, 6), ..plain.clone() }),
        ("64 tags that are slugged", Shape { tags: Texts { letters: 4, ..Texts::of(64, 6) }, ..plain.clone() }),
        ("a key of 124 labels", Shape { labels: Texts::of(1, 6), tail: 123, ..Shape::default() }),
        (
            "a long key of 69 labels, of which most are deleted",
            Shape {
                labels: Texts::of(2, 60),
                trunk: 1,
                tail: 66,
                host: 4,
                role: 2,
                order: 1,
                stays: 5,
                ..plain.clone()
            },
        ),
        (
            "40 tags, of which most records are deleted",
            Shape {
                labels: Texts::of(2, 10),
                trunk: 1,
                dotted: 1,
                tags: Texts::of(40, 0),
                attrs: Texts::of(1, 8),
                host: 1,
                role: 1,
                stays: 11,
                ..plain.clone()
            },
        ),
        (
            "a key of 124 labels, of which most are deleted",
            Shape { labels: Texts::of(1, 6), tail: 123, stays: 5, ..Shape::default() },
        ),
        ("nine labels of its own", Shape { labels: Texts::of(9, 8), ..Shape::default() }),
        ("64 attrs", Shape { attrs: Texts::of(64, 6), ..plain.clone() }),
        (
            "an owner and a lease of its own for each",
            Shape { fields: fields(&[(7, Texts::of(1, 6))]), ..plain.clone() },
        ),
        ("host:port", Shape { host: 4, ..plain.clone() }),
        ("a long text", Shape { fields: fields(&[(2, Texts::of(1, 4_000))]), ..plain }),
    ]
}

fn fields(some: &[(usize, Texts)]) -> [Texts; 11] {
    let mut all = [Texts::default(); 11];
    some.iter().for_each(|(place, texts)| all[*place] = *texts);
    all
}

/// Shapes of what is no record.
pub fn bad() -> Vec<(&'static str, Shape)> {
    let plain = Shape { labels: Texts::of(2, 10), trunk: 1, ..Shape::default() };
    vec![
        ("a key of 24 kB with very many segments", Shape { labels: Texts::of(2_000, 11), ..plain.clone() }),
        ("a key of 33 kB", Shape { labels: Texts::of(1, 33_000), ..plain.clone() }),
        ("a segment of more than 63", Shape { labels: Texts::of(2, 64), ..plain.clone() }),
        ("a label of more than 63 between dots", Shape { labels: Texts::of(3, 64), dotted: 2, ..plain.clone() }),
        ("880 tags", Shape { tags: Texts::of(880, 5), ..plain.clone() }),
        ("65 attrs", Shape { attrs: Texts::of(65, 5), ..plain.clone() }),
        ("a value of more than 8 KiB", Shape { fields: fields(&[(2, Texts::of(1, 9_000))]), ..plain.clone() }),
        ("a host of 8,100 bytes", Shape { host: 4, fields: fields(&[(0, Texts::of(1, 8_100))]), ..plain.clone() }),
        ("a role that is none", Shape { role: 3, ..plain }),
    ]
}
