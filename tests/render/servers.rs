//! HAProxy and nginx, for real, reloaded under load whenever their endpoints change: no request fails.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use crate::town::{PATIENCE, Town, until};

/// How often endpoints come and go.
fn turns() -> usize {
    if std::env::var_os("WHARF_DRILL").is_some() { 100 } else { 12 }
}

/// A server that answers every request.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || answer(stream));
        }
    });
    port
}

fn answer(mut stream: TcpStream) {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    while !request.windows(4).any(|end| end == b"\r\n\r\n") {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(read) => request.extend_from_slice(&buffer[..read]),
        }
    }
    let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\nConnection: close\r\n\r\nok\n");
}

/// One request over a connection of its own; what was wrong with it.
fn request(port: u16) -> Result<(), String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).map_err(|error| format!("connect: {error}"))?;
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    asked.map_err(|error| format!("write: {error}"))?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).map_err(|error| format!("read: {error}"))?;
    if answer.starts_with("HTTP/1.1 200") && answer.ends_with("ok\n") { Ok(()) } else { Err(format!("{answer:?}")) }
}

/// Clients that ask all the time.
struct Load {
    stop: Arc<AtomicBool>,
    done: Arc<AtomicUsize>,
    clients: Vec<std::thread::JoinHandle<Vec<String>>>,
}

impl Load {
    fn start(port: u16) -> Self {
        let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let client = || {
            let (stop, done) = (Arc::clone(&stop), Arc::clone(&done));
            std::thread::spawn(move || {
                let mut failures = Vec::new();
                while !stop.load(Ordering::Relaxed) {
                    failures.extend(request(port).err());
                    done.fetch_add(1, Ordering::Relaxed);
                    std::thread::sleep(Duration::from_millis(2));
                }
                failures
            })
        };
        let clients = (0..4).map(|_| client()).collect();
        Self { stop, done, clients }
    }

    /// So many requests, and what went wrong.
    fn end(self) -> (usize, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        let failures = self.clients.into_iter().flat_map(|client| client.join().unwrap()).collect();
        (self.done.load(Ordering::Relaxed), failures)
    }
}

/// A server of this machine, ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
        let _ = self.0.wait();
    }
}

/// Endpoints come and go while clients ask: the file and its reload follow each time.
fn churned(town: &Town, file: &str, table: &str, port: u16) {
    until("it serves", || request(port).is_ok(), || format!("{:?}\n{}", request(port), town.read("log")));
    let load = Load::start(port);
    let (second, third) = (server(), server());
    for turn in 0..turns() {
        let (name, port) = if turn % 4 < 2 { ("b", second) } else { ("c", third) };
        let is_there = turn % 2 == 0;
        if is_there {
            town.web(name, port);
        } else {
            town.delete(&format!("/services/web/{name}"));
        }
        town.until_file(file, "as the cluster is", |text| text.contains(&format!(":{port}")) == is_there);
        town.until_stands(table, "is loaded", |told| {
            told["reload_owed"] == false && told["reloads"].as_u64() > Some(turn as u64)
        });
    }
    let (requests, failures) = load.end();
    println!("{table}: {requests} requests, {} reloads, {} failures", turns(), failures.len());
    assert!(failures.is_empty(), "{} of {requests}: {:?}", failures.len(), &failures[..failures.len().min(5)]);
    assert!(requests > 100, "there was load: {requests}");
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn haproxy_is_reloaded_under_load_without_a_failed_request() {
    let port = free_port();
    let town = Town::new("");
    let table = format!(
        "[[render]]\nbuiltin = 'haproxy'\ndestination = 'DIR/out/haproxy.cfg'\nwait = '20ms:1s'\nmin = {{ web = 1 }}\n\
         check = ['haproxy', '-c', '-f', '{{{{ candidate }}}}']\n\
         reload = ['/bin/sh', '-c', 'test ! -e DIR/pid || kill -USR2 $(cat DIR/pid)']\n\
         with = {{ stats = 'DIR/stats', listen = {{ web = {{ bind = '127.0.0.1:{port}', mode = 'http' }} }} }}\n"
    );
    town.tables(&table.replace("DIR", &town.dir.path().display().to_string()));
    town.web("a", server());
    let _follow = town.follow();
    town.until_file("out/haproxy.cfg", "made", |text| text.contains("listen web"));
    town.until_stands("haproxy", "is current", |told| told["state"] == "current" && told["reload_owed"] == false);
    let mut command = Command::new("haproxy");
    command.arg("-W").arg("-p").arg(town.path("pid")).arg("-f").arg(town.path("out/haproxy.cfg"));
    let log = std::fs::File::create(town.path("haproxy.log")).unwrap();
    let _haproxy = Running(command.stdout(Stdio::null()).stderr(log).spawn().expect("apt-get install haproxy"));
    churned(&town, "out/haproxy.cfg", "haproxy", port);
}

#[test]
fn nginx_is_reloaded_under_load_without_a_failed_request_and_a_bad_snippet_is_taken_back() {
    let port = free_port();
    let town = Town::new("");
    town.write(
        "nginx.conf",
        &format!(
            "pid DIR/nginx.pid;\nerror_log DIR/nginx.log;\nevents {{}}\nhttp {{\naccess_log off;\n\
             client_body_temp_path DIR/t1; proxy_temp_path DIR/t2; fastcgi_temp_path DIR/t3; uwsgi_temp_path DIR/t4; \
             scgi_temp_path DIR/t5;\ninclude DIR/out/*.conf;\n\
             server {{ listen 127.0.0.1:{port}; location / {{ proxy_pass http://web; }} }}\n}}\n"
        ),
    );
    let table = "[[render]]\nname = 'nginx'\nbuiltin = 'nginx'\ndestination = 'DIR/out/web.conf'\nwait = '20ms:1s'\n\
                 min = { web = 1 }\nwith = { services = ['web'] }\ncheck-in-place = true\n\
                 check = ['nginx', '-t', '-q', '-c', 'DIR/nginx.conf']\n\
                 reload = ['/bin/sh', '-c', 'test ! -s DIR/nginx.pid || nginx -s reload -c DIR/nginx.conf']\n";
    let tables = table.replace("DIR", &town.dir.path().display().to_string());
    town.tables(&tables);
    town.web("a", server());
    let follow = town.follow();
    town.until_file("out/web.conf", "made", |text| text.contains("upstream web"));
    town.until_stands("nginx", "is current", |told| told["state"] == "current" && told["reload_owed"] == false);
    let mut command = Command::new("nginx");
    command.args(["-g", "daemon off;"]).arg("-c").arg(town.path("nginx.conf"));
    let nginx =
        Running(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("apt-get install nginx-light"));
    churned(&town, "out/web.conf", "nginx", port);
    let good = town.read("out/web.conf");
    town.write("bad.j2", "upstream web { nonsense; }\n");
    town.tables(&tables.replace("builtin = 'nginx'", &format!("template = '{}'", town.path("bad.j2").display())));
    follow.signal(rustix::process::Signal::HUP);
    town.until_stands("nginx", "refuses it", |told| told["state"] == "refused");
    until("the good one is back", || town.read("out/web.conf") == good, || town.read("out/web.conf"));
    assert!(town.stands("nginx")["reason"].to_string().contains("nonsense"), "{}", town.stands("nginx"));
    assert!(request(port).is_ok());
    assert!(follow.stop().success());
    assert_eq!(town.files(), ["web.conf"]);
    drop(nginx);
}
