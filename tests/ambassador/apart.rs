//! The ambassadors as a process of their own: the agent comes and goes, and no connection notices.

use std::process::{Child, Stdio};

use crate::etcd::Cluster;
use crate::program::{Agent, Options, wharf};
use crate::town::{Client, Server, own_address};

/// `wharf proxy`, ended with the test.
struct Apart(Child);

impl Drop for Apart {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agents_restart_touches_no_connection_of_a_process_apart() {
    let etcd = Cluster::start(1);
    etcd.wait_healthy();
    let at = own_address();
    let table = format!("[[proxy]]\nname = 'db'\nlisten = '{at}'\nservice = 'db'\nrole = 'primary'\nwait = '20s'\n");
    let settings = format!("proxy-apart = true\n{table}");
    let flags = vec!["--etcd-endpoints".to_owned(), etcd.endpoints().join(",")];
    let mut agent = Agent::start_with(&Options { settings: &settings, flags, ..Options::default() });
    assert!(std::net::TcpStream::connect(at).is_err(), "the agent leaves them alone");
    let log = tempfile::NamedTempFile::new().unwrap();
    let mut command = wharf();
    command.args(["proxy", "--node", "core-01", "--etcd-endpoints", &etcd.endpoints().join(",")]);
    command.arg("--config").arg(agent.settings()).arg("--http-socket").arg(agent.socket());
    command.stderr(log.reopen().unwrap()).stdout(Stdio::null());
    let mut apart = Apart(command.spawn().unwrap());
    let (a, b) = (Server::start("a").await, Server::start("b").await);
    let put = |server: &Server, role: &str| {
        let value = format!(r#"{{"host":"127.0.0.1","port":{},"role":"{role}"}}"#, server.at.port());
        etcd.ctl(&["put", &format!("/services/db/{}", server.name), &value]);
    };
    put(&a, "primary");
    let shown = |agent: &Agent, at: &str| {
        agent.prints("proxies db", "the table of the process apart", |text| text.contains(at));
    };
    shown(&agent, &a.at.to_string());
    let mut client = Client::open(at).await;
    assert_eq!(client.line().await.unwrap(), "a");
    agent.restart();
    assert!(client.echoes().await);
    shown(&agent, &a.at.to_string());
    put(&a, "replica");
    client.is_reset().await;
    put(&b, "primary");
    let mut client = Client::open(at).await;
    assert_eq!(client.line().await.unwrap(), "b");
    let pid = rustix::process::Pid::from_child(&apart.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    client.is_reset().await;
    let status = apart.0.wait().unwrap();
    assert!(status.success(), "{status}: {}", std::fs::read_to_string(log.path()).unwrap());
    agent.prints("proxies", "nothing of a process that is gone", |text| text.starts_with("no ambassador"));
}

#[test]
fn without_etcd_only_an_agent_finds_services() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let table = format!("[[proxy]]\nname = 'db'\nlisten = '{}'\nservice = 'db'\n", own_address());
    std::fs::write(file.path(), table).unwrap();
    let output = wharf().args(["proxy", "--node", "core-01", "--config"]).arg(file.path()).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--etcd-endpoints"), "{said}");
}
