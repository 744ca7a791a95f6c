//! A request, read from its method, its target and its form; what cannot be read is told in v2's words.

use std::time::Duration;

use super::fault::{Code, Fault};
use super::form::{Form, decoded};
use super::path::NodePath;

/// The longest time that a store of v3 grants, in seconds.
const LONGEST: u64 = 9_000_000_000;

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// What is there.
    Get(Get),
    /// What happens.
    Wait(Wait),
    /// A change.
    Change(Change),
}

/// A question for a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Get {
    /// Which.
    pub path: NodePath,
    /// With all that lies below it.
    pub recursive: bool,
}

/// A question for what happens to a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wait {
    /// Which.
    pub path: NodePath,
    /// Or to one below it.
    pub recursive: bool,
    /// Whether more is told after the first.
    pub stream: bool,
    /// The first index that counts; 0 is the next.
    pub since: u64,
}

/// A change of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which; of [`Deed::Append`] the directory.
    pub path: NodePath,
    /// What becomes of it.
    pub deed: Deed,
    /// How long it stays.
    pub ttl: Option<Duration>,
    /// Whether only its time is new.
    pub refresh: bool,
    /// Whether the reply leaves the nodes out.
    pub quiet: bool,
}

/// What becomes of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deed {
    /// It is made, if it is not there.
    Create(Content),
    /// A file is made in it, named in order.
    Append(Content),
    /// It is made, or replaced.
    Set(Content),
    /// It has another value, if it is there.
    Update(Vec<u8>),
    /// It has another value, if it is as it was.
    Swap(Vec<u8>, Previous),
    /// It goes.
    Delete {
        /// Also if it is a directory.
        dir: bool,
        /// With all that lies below it.
        recursive: bool,
    },
    /// It goes, if it is as it was.
    CompareDelete(Previous),
}

/// What is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// A file with this value.
    File(Vec<u8>),
    /// A directory.
    Dir,
}

/// How a node was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Previous {
    /// Its value; nothing where that is all the same.
    pub value: Vec<u8>,
    /// Its index; 0 where that is all the same.
    pub index: u64,
}

/// The methods that are known; `HEAD` asks as `GET` does.
pub const METHODS: [&str; 5] = ["HEAD", "GET", "PUT", "POST", "DELETE"];

/// Reads a request for what lies behind `/v2/keys`. The path is as it was sent, with its escapes.
pub fn read(method: &str, path: &str, query: &str, body: &[u8]) -> Result<Ask, Fault> {
    let form = Form::parse(body, query).map_err(|why| Fault::new(Code::InvalidForm, why))?;
    let fields = Fields::read(&form, method)?;
    let path = read_path(path)?;
    let Fields { recursive, stream, since, .. } = fields;
    Ok(match method {
        "PUT" | "POST" | "DELETE" => Ask::Change(fields.change(method, path)),
        _ if fields.wait => Ask::Wait(Wait { path, recursive, stream, since }),
        _ => Ask::Get(Get { path, recursive }),
    })
}

/// The path that is asked for, as it was sent.
fn read_path(path: &str) -> Result<NodePath, Fault> {
    let bad = |why: String| Fault::new(Code::InvalidField, why);
    let text = String::from_utf8(decoded(path.as_bytes(), false).map_err(bad)?);
    let text = text.map_err(|_| bad("the key is no UTF-8".to_owned()))?;
    NodePath::parse(&text).map_err(bad)
}

/// The fields of a form, as far as the path does not matter.
struct Fields {
    recursive: bool,
    wait: bool,
    dir: bool,
    stream: bool,
    quiet: bool,
    refresh: bool,
    since: u64,
    ttl: Option<Duration>,
    exists: Option<bool>,
    previous: Previous,
    value: Vec<u8>,
}

impl Fields {
    /// In v2's own order: of several that are wrong, the first is told.
    fn read(form: &Form, method: &str) -> Result<Self, Fault> {
        let index = number(form, "prevIndex", Code::IndexNotNumber)?;
        let since = number(form, "waitIndex", Code::IndexNotNumber)?;
        let (recursive, _sorted) = (flag(form, "recursive")?, flag(form, "sorted")?);
        let (wait, dir) = (flag(form, "wait")?, flag(form, "dir")?);
        let (_quorum, stream) = (flag(form, "quorum")?, flag(form, "stream")?);
        if wait && method != "GET" {
            return Err(Fault::new(Code::InvalidField, "\"wait\" can only be used with GET requests"));
        }
        let before = form.get("prevValue");
        if before.is_some_and(<[u8]>::is_empty) {
            return Err(Fault::new(Code::PrevValueRequired, "\"prevValue\" cannot be empty"));
        }
        let previous = Previous { value: before.unwrap_or_default().to_vec(), index };
        let quiet = flag(form, "noValueOnSuccess")?;
        let ttl = seconds(form)?;
        let exists = bare_flag(form, "prevExist")?;
        let refresh = bare_flag(form, "refresh")?.unwrap_or(false);
        let value = form.get("value").unwrap_or_default().to_vec();
        if refresh && !value.is_empty() {
            return Err(Fault::new(Code::RefreshValue, "A value was provided on a refresh"));
        }
        if refresh && ttl.is_none() {
            return Err(Fault::new(Code::RefreshTtl, "No TTL value set"));
        }
        Ok(Self { recursive, wait, dir, stream, quiet, refresh, since, ttl, exists, previous, value })
    }

    fn change(self, method: &str, path: NodePath) -> Change {
        let (ttl, refresh, quiet) = (self.ttl, self.refresh, self.quiet);
        Change { path, deed: self.deed(method), ttl, refresh, quiet }
    }

    fn deed(self, method: &str) -> Deed {
        let compares = self.previous != Previous::default();
        match method {
            "POST" => Deed::Append(self.content()),
            "DELETE" if compares => Deed::CompareDelete(self.previous),
            "DELETE" => Deed::Delete { dir: self.dir || self.recursive, recursive: self.recursive },
            _ if self.exists == Some(false) => Deed::Create(self.content()),
            _ if compares => Deed::Swap(self.value, self.previous),
            _ if self.exists == Some(true) => Deed::Update(self.value),
            _ => Deed::Set(self.content()),
        }
    }

    fn content(self) -> Content {
        if self.dir { Content::Dir } else { Content::File(self.value) }
    }
}

fn number(form: &Form, name: &str, code: Code) -> Result<u64, Fault> {
    let Some(value) = form.get(name) else { return Ok(0) };
    digits(value).ok_or_else(|| Fault::new(code, format!("invalid value for {name:?}")))
}

fn digits(value: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(value).ok()?;
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// An empty one is none.
fn seconds(form: &Form) -> Result<Option<Duration>, Fault> {
    let Some(value) = form.get("ttl").filter(|value| !value.is_empty()) else { return Ok(None) };
    let bad = || Fault::new(Code::TtlNotNumber, "invalid value for \"ttl\"");
    let seconds = digits(value).filter(|seconds| *seconds <= LONGEST).ok_or_else(bad)?;
    Ok(Some(Duration::from_secs(seconds)))
}

fn flag(form: &Form, name: &str) -> Result<bool, Fault> {
    let bad = || Fault::new(Code::InvalidField, format!("invalid value for {name:?}"));
    form.get(name).map_or(Ok(false), |value| truth(value).ok_or_else(bad))
}

fn bare_flag(form: &Form, name: &str) -> Result<Option<bool>, Fault> {
    let bad = || Fault::new(Code::InvalidField, format!("invalid value for {name}"));
    form.get(name).map(|value| truth(value).ok_or_else(bad)).transpose()
}

/// The words that etcd takes.
fn truth(value: &[u8]) -> Option<bool> {
    match value {
        b"1" | b"t" | b"T" | b"true" | b"TRUE" | b"True" => Some(true),
        b"0" | b"f" | b"F" | b"false" | b"FALSE" | b"False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, query: &str, expected: &Deed) {
        match read(method, "/a", query, b"") {
            Ok(Ask::Change(change)) => assert_eq!(change.deed, *expected, "{method} {query}"),
            other => panic!("{method} {query}: {other:?}"),
        }
    }

    #[test]
    fn a_method_and_its_conditions_say_what_is_done() {
        let (file, was) = (|| Content::File(b"x".to_vec()), |index| Previous { value: b"w".to_vec(), index });
        check("PUT", "value=x", &Deed::Set(file()));
        check("PUT", "dir=true", &Deed::Set(Content::Dir));
        check("PUT", "value=x&prevExist=false&prevIndex=7", &Deed::Create(file()));
        check("PUT", "value=x&prevExist=true", &Deed::Update(b"x".to_vec()));
        check("PUT", "value=x&prevExist=true&prevValue=w", &Deed::Swap(b"x".to_vec(), was(0)));
        check("PUT", "value=x&prevValue=w&prevIndex=9", &Deed::Swap(b"x".to_vec(), was(9)));
        check("POST", "value=x&prevExist=true", &Deed::Append(file()));
        check("DELETE", "", &Deed::Delete { dir: false, recursive: false });
        check("DELETE", "recursive=true", &Deed::Delete { dir: true, recursive: true });
        check("DELETE", "dir=1&prevValue=w", &Deed::CompareDelete(was(0)));
    }

    #[test]
    fn what_cannot_be_read_is_told_by_its_code() {
        for (method, query, code) in [
            ("PUT", "prevIndex=-1", 203),
            ("GET", "waitIndex=", 203),
            ("GET", "recursive=yes", 209),
            ("PUT", "wait=true", 209),
            ("PUT", "prevValue=", 201),
            ("PUT", "ttl=soon", 202),
            ("PUT", "ttl=99999999999", 202),
            ("PUT", "refresh=true", 212),
            ("PUT", "refresh=true&ttl=5&value=x", 211),
            ("PUT", "prevExist=maybe", 209),
            ("PUT", "value=%zz", 210),
        ] {
            let fault = read(method, "/a", query, b"").expect_err(query);
            assert_eq!(fault.code as u16, code, "{query}");
        }
        assert!(read("GET", "/a%ff", "", b"").is_err() && read("GET", "/a%zz", "", b"").is_err());
    }

    #[test]
    fn a_question_is_read_with_its_escapes() {
        let Ok(Ask::Get(get)) = read("GET", "/a%2Fb%20c/", "recursive=t&sorted=true&quorum=true", b"") else {
            panic!()
        };
        assert_eq!((get.path.as_str(), get.recursive), ("/a/b c", true));
        let Ok(Ask::Wait(wait)) = read("GET", "/a", "wait=true&waitIndex=7&stream=1", b"") else { panic!() };
        assert_eq!((wait.since, wait.stream, wait.recursive), (7, true, false));
        let Ok(Ask::Change(change)) = read("PUT", "/a", "", b"value=x&ttl=&ttl=7") else { panic!() };
        assert_eq!(change.ttl, None, "the first one counts");
    }
}
