//! MongoDB in every state that a member can say it is in. Debian has no server, so a stand-in speaks its protocol from
//! the bytes up: it takes OP_MSG apart, wants `isMaster` of the database `admin`, and answers in BSON.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use wharf::model::health::standing::State;
use wharf::model::offer::instance::CheckKind;
use wharf::model::words::record::Role;

use crate::harness::{Host, eventually, instance, quick};

/// What the stand-in is.
#[derive(Clone, Copy, Debug)]
pub enum Member {
    Alone,
    Router,
    Primary,
    Secondary,
    /// STARTUP2, RECOVERING, ROLLBACK: of a set, and neither the one nor the other.
    Recovering,
    Arbiter,
    /// It answers with an error, as one that is shutting down does.
    Refusing,
    /// It reads and says nothing.
    Frozen,
    /// It closes at once.
    Gone,
}

/// A stand-in for a MongoDB server.
pub struct Mongo {
    pub target: SocketAddr,
    member: watch::Sender<Member>,
    open: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Mongo {
    pub async fn start(member: Member) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        let (member, now) = watch::channel(member);
        let (mut tasks, open) = (JoinSet::new(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&open);
        tasks.spawn(async move {
            let mut visitors = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (now, count) = (now.clone(), Arc::clone(&count));
                visitors.spawn(async move {
                    count.fetch_add(1, Ordering::SeqCst);
                    // A visitor that leaves in the middle is no failure of the server.
                    converse(stream, now).await.ok();
                    count.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        Self { target, member, open, _tasks: tasks }
    }

    pub fn becomes(&self, member: Member) {
        self.member.send_replace(member);
    }

    /// How many visitors have not closed.
    pub fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }
}

async fn converse(mut stream: TcpStream, now: watch::Receiver<Member>) -> std::io::Result<()> {
    loop {
        let length = stream.read_u32_le().await?;
        let mut message = vec![0; length as usize - 4];
        stream.read_exact(&mut message).await?;
        let word = |at: usize| u32::from_le_bytes(message[at..at + 4].try_into().unwrap());
        // Header: request id, response to, opcode; then the flags, a section of kind 0 and its document.
        assert_eq!((word(8), word(12), message[16]), (2013, 0, 0), "OP_MSG with one document");
        assert_eq!(word(17) as usize, message.len() - 17, "the document is all of the rest");
        let asked = String::from_utf8_lossy(&message[17..]).into_owned();
        assert!(asked.contains("isMaster\0") && asked.contains("$db\0\u{6}\0\0\0admin\0"), "{asked:?}");
        let member = *now.borrow();
        match member {
            Member::Gone => return Ok(()),
            // Its kernel still sees the visitor leave.
            Member::Frozen => while stream.read(&mut message).await? > 0 {},
            _ => stream.write_all(&reply(word(0), &document(member))).await?,
        }
    }
}

fn reply(request: u32, document: &[u8]) -> Vec<u8> {
    let mut message = Vec::new();
    for word in [u32::try_from(21 + document.len()).unwrap(), 4_711, request, 2013, 0] {
        message.extend_from_slice(&word.to_le_bytes());
    }
    message.push(0);
    message.extend_from_slice(document);
    message
}

/// What a server of version 6 tells, in its order, as far as it differs from member to member.
fn document(member: Member) -> Vec<u8> {
    let truth = |name: &str, value: bool| [b"\x08", name.as_bytes(), &[0, u8::from(value)]].concat();
    let text = |name: &str, value: &str| {
        let length = u32::try_from(value.len() + 1).unwrap().to_le_bytes();
        [b"\x02", name.as_bytes(), b"\0", &length, value.as_bytes(), b"\0"].concat()
    };
    let number = |name: &str, value: i32| [b"\x10", name.as_bytes(), b"\0", &value.to_le_bytes()[..]].concat();
    let ok = |value: f64| [b"\x01ok\0", &value.to_le_bytes()[..]].concat();
    let hosts = {
        let list = closed(&text("0", "db-1:27017"));
        [&b"\x04hosts\0"[..], &list].concat()
    };
    let version = closed(&[&b"\x07processId\0"[..], &[7; 12], b"\x12counter\0", &[0; 8]].concat());
    let topology = [&b"\x03topologyVersion\0"[..], &version].concat();
    let of_set = |primary: bool, secondary: bool| {
        [hosts.clone(), text("setName", "rs0"), truth("ismaster", primary), truth("secondary", secondary)].concat()
    };
    let state = match member {
        Member::Alone => truth("ismaster", true),
        Member::Router => [truth("ismaster", true), text("msg", "isdbgrid")].concat(),
        Member::Primary => of_set(true, false),
        Member::Secondary => of_set(false, true),
        Member::Recovering => of_set(false, false),
        Member::Arbiter => [of_set(false, false), truth("arbiterOnly", true)].concat(),
        Member::Refusing => {
            let words = [text("errmsg", "the server is in quiesce mode"), number("code", 91)];
            return closed(&[ok(0.0), words.concat()].concat());
        }
        Member::Frozen | Member::Gone => unreachable!("it does not answer"),
    };
    let time = [&b"\x09localTime\0"[..], &[1; 8]].concat();
    closed(&[topology, state, number("maxWireVersion", 17), time, truth("readOnly", false), ok(1.0)].concat())
}

fn closed(elements: &[u8]) -> Vec<u8> {
    let length = u32::try_from(elements.len() + 5).unwrap().to_le_bytes();
    [&length, elements, &[0]].concat()
}

#[tokio::test]
async fn mongodb_is_ready_with_the_role_that_it_tells() {
    let host = Host::new(quick());
    for (member, role) in [
        (Member::Alone, None),
        (Member::Router, None),
        (Member::Primary, Some(Role::Primary)),
        (Member::Secondary, Some(Role::Replica)),
    ] {
        let server = Mongo::start(member).await;
        let key = host.put(instance(CheckKind::Mongodb, server.target));
        let standing = host.until_state(&key, State::Ready).await;
        assert_eq!((standing.role, standing.error), (role, None), "{member:?}");
        host.remove(&key);
    }
}

#[tokio::test]
async fn mongodb_that_does_not_serve_is_starting_and_says_why() {
    let host = Host::new(quick());
    for (member, words) in [
        (Member::Recovering, "neither primary nor secondary"),
        (Member::Arbiter, "neither primary nor secondary"),
        (Member::Refusing, "refused to say hello"),
        (Member::Frozen, "no answer within 500ms"),
        (Member::Gone, "closed the connection before answering"),
    ] {
        let server = Mongo::start(member).await;
        let key = host.put(instance(CheckKind::Mongodb, server.target));
        let standing = host.until(&key, |standing| standing.error.as_deref() == Some(words)).await.0;
        assert_eq!((standing.state, standing.role), (State::Starting, None), "{member:?}");
        host.remove(&key);
    }
}

#[tokio::test]
async fn mongodb_is_followed_through_election_recovery_and_shutdown() {
    let host = Host::new(quick());
    let server = Mongo::start(Member::Recovering).await;
    let key = host.put(instance(CheckKind::Mongodb, server.target));
    host.until_state(&key, State::Starting).await;
    server.becomes(Member::Secondary);
    let first = host.until_role(&key, Some(Role::Replica)).await;
    server.becomes(Member::Primary);
    let elected = host.until_role(&key, Some(Role::Primary)).await;
    assert_eq!(elected.since, first.since, "a new role is no break");
    for trouble in [Member::Recovering, Member::Refusing, Member::Frozen, Member::Gone] {
        server.becomes(trouble);
        host.until_state(&key, State::Down).await;
        server.becomes(Member::Secondary);
        host.until_role(&key, Some(Role::Replica)).await;
    }
    host.remove(&key);
    eventually("every visitor has left", || (server.open() == 0).then_some(())).await;
}
