//! Who wants a password: a container by its labels, a process that listens where another should, a server that asks for
//! more than a proof. Each has ears, and none hears one.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::engine::container;
use crate::town::{Charter, Town};

const PASSWORD: &str = "s3cret-of-the-redis";

/// What a redis says that wants a login, to the three commands of a probe.
const NO_AUTH: &[u8] = b"-NOAUTH Authentication required.\r\n-NOAUTH x\r\n-NOAUTH x\r\n";
/// What a postgres says that wants the password itself.
const CLEAR_TEXT: &[u8] = b"R\0\0\0\x08\0\0\0\x03";

/// A listener that answers whatever it is told with the same words; its thread ends with the test's process.
struct Thief {
    port: u16,
    heard: Arc<Mutex<Vec<u8>>>,
}

impl Thief {
    fn lurk(answer: &'static [u8]) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let (port, heard) = (listener.local_addr().unwrap().port(), Arc::new(Mutex::new(Vec::new())));
        let notes = Arc::clone(&heard);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                listen(stream, answer, &notes);
            }
        });
        Self { port, heard }
    }

    fn heard(&self) -> String {
        self.heard.lock().unwrap().escape_ascii().to_string()
    }

    #[track_caller]
    fn knows_nothing(&self) {
        let heard = self.heard();
        assert!(!heard.contains(PASSWORD) && !heard.contains("AUTH"), "{heard}");
    }
}

fn listen(mut stream: TcpStream, answer: &[u8], notes: &Mutex<Vec<u8>>) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = stream.read(&mut buffer) {
        notes.lock().unwrap().extend_from_slice(&buffer[..read]);
        if stream.write_all(answer).is_err() {
            return;
        }
    }
}

/// A container that asks for the file by its labels.
fn wants_file(number: usize, port: u16) -> Value {
    let mut facts = container(number, "redis:7", port, port);
    facts["State"]["Pid"] = json!(std::process::id());
    facts["Config"]["Labels"] =
        json!({"SERVICE_CHECK": "redis", "SERVICE_CHECK_PASSWORD_FILE": "redis.pw", "SERVICE_NAME": "honest"});
    facts
}

/// Settings with a secret for the container `c1` and whichever is called `honest-…`, and a table that names it.
fn settings(secrets: &Path, table: u16) -> String {
    std::fs::write(secrets.join("redis.pw"), PASSWORD).unwrap();
    let names = ["c1", "c2", "honest-*"].map(|name| format!("[[secret]]\nfile = 'redis.pw'\ncontainer = '{name}'\n"));
    format!(
        "check-secrets = '{}'\n{}[[service]]\nname = 'ledger'\nport = {table}\naddress = '127.0.0.1'\n\
         check = 'postgres'\ncheck-password-file = 'redis.pw'\n",
        secrets.display(),
        names.concat()
    )
}

#[test]
fn no_thief_hears_a_password_and_neighbours_are_offered() {
    let secrets = tempfile::tempdir().unwrap();
    let (port, host, label, table) =
        (Thief::lurk(NO_AUTH), Thief::lurk(NO_AUTH), Thief::lurk(NO_AUTH), Thief::lurk(CLEAR_TEXT));
    let settings = settings(secrets.path(), table.port);
    let town = Town::found_with(&Charter { settings: &settings, ..Charter::default() });
    // It holds the published port of a container that may have the file.
    town.run(wants_file(1, port.port));
    // It holds the port of a container on the host's network that may have the file.
    let mut on_host = wants_file(2, host.port);
    on_host["HostConfig"]["NetworkMode"] = json!("host");
    on_host["NetworkSettings"] = json!({"Ports": {}, "Networks": {"host": {}}});
    town.run(on_host);
    // It names another's file, and calls itself like it everywhere but in its name.
    town.run(wants_file(3, label.port));
    // It is bound to an address that has moved away, to another machine.
    let mut moved = wants_file(4, 7);
    moved["NetworkSettings"]["Ports"]["7/tcp"][0]["HostIp"] = json!("203.0.113.77");
    town.run(moved);

    let explained = |container: &str, words: &str| {
        town.until(&format!("{container}: {words}"), || town.wharf(&format!("explain {container}")).contains(words));
    };
    explained("c1", "nobody logs in: its process is not to be seen from here: role unknown");
    explained("c2", "nobody logs in: its process is not to be seen from here: role unknown");
    explained("c3", "no [[secret]] table lets a container called \"c3\" have it");
    explained("c4", "bound to 203.0.113.77, which is no address of this host now");
    explained("ledger", "wants the password in clear text, which is not told");
    // They serve, as far as anybody knows without a login: that is no reason not to offer them.
    town.until("all but the moved one are offered", || town.answers("honest") == 3 && town.answers("ledger") == 1);
    let before = port.heard().len();
    town.until("they are asked again", || port.heard().len() > before + 200);
    for thief in [&port, &host, &label, &table] {
        assert!(!thief.heard().is_empty(), "it was asked");
        thief.knows_nothing();
    }
    assert!(!town.agent.log().contains(PASSWORD));
    assert!(!town.get("/v1/local").1.contains(PASSWORD));
    town.neighbours_are_offered();
    town.beats_never_missed();
}
