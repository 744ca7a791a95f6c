//! Three PostgreSQL servers as `docker/units/postgres-node` has them: one leads by the lock, the others follow it by
//! PostgreSQL's own replication, and `primary.postgres` is the one by its role and by `/services/postgres/master`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::PathBuf;

use crate::lab::container::Container;
use crate::lab::{self, Lab, eventually, postgres};

const NODE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docker/units/postgres-node");
const PRIMARY: &str = "primary.postgres.services.internal";
const REPLICAS: &str = "replicas.postgres.services.internal";

/// What the official image has beside PostgreSQL, and the lab's has not.
fn tools(lab: &Lab) -> PathBuf {
    let tools = lab.ground().dir().join("tools");
    let _ = fs::remove_dir_all(&tools);
    fs::create_dir_all(&tools).unwrap();
    let busybox = lab::process::run(&["sh", "-c", "command -v busybox"]);
    fs::copy(busybox.trim(), tools.join("busybox")).unwrap();
    for name in ["cat", "head", "mkdir", "mv", "rm", "sleep", "sync"] {
        symlink("busybox", tools.join(name)).unwrap();
    }
    fs::set_permissions(&tools, fs::Permissions::from_mode(0o755)).unwrap();
    tools
}

fn node<'l>(lab: &'l Lab, n: usize, tools: &std::path::Path) -> Container<'l> {
    let endpoints: Vec<String> = lab.hosts().iter().map(lab::host::Host::etcd_endpoint).collect();
    let mount = |from: &str, to: &str| format!("{from}:{to}:ro");
    let number = n.to_string();
    let wharf = mount(env!("CARGO_BIN_EXE_wharf"), "/wharf");
    let (script, tools) = (mount(NODE, "/postgres-node"), mount(&tools.display().to_string(), "/tools"));
    let mut spec = postgres().name(&format!("postgres-{n}")).publish(5432);
    for option in ["-v", &wharf, "-v", &script, "-v", &tools, "--entrypoint", "/bin/sh"] {
        spec = spec.option(option);
    }
    spec = spec
        .env("POSTGRES_PASSWORD", "secret")
        .env("POSTGRES_BASE", "/tmp/base")
        .env("WHARF_ETCD", &format!("--etcd-endpoints {}", endpoints.join(",")))
        .env("SERVICE_NAME", "postgres")
        .env("SERVICE_ID", &number)
        .env("SERVICE_LAYOUT", "instances");
    // The image's own path, with what it lacks.
    let version = fs::read_dir("/usr/lib/postgresql").unwrap().flatten().map(|entry| entry.path()).max().unwrap();
    spec = spec.env("PATH", &format!("{}/bin:/usr/bin:/bin:/tools", version.display()));
    let arguments = ["/postgres-node", &number, "--ttl", "3s", "--node", lab.host(n).name()];
    lab.host(n).run(spec.arguments(&arguments))
}

fn sql(container: &Container<'_>, text: &str) -> Result<String, String> {
    let id = container.id().to_owned();
    container.host().try_docker(&["exec", &id, "psql", "-U", "postgres", "-h", "/tmp", "-d", "postgres", "-Atqc", text])
}

/// Who leads: by every host's DNS, and by the key.
fn leads(lab: &Lab) -> Option<usize> {
    let master: usize =
        lab.etcd().ctl(&["get", "--print-value-only", "/services/postgres/master"]).trim().parse().ok()?;
    let at = [lab.host(master).at(5432)];
    let all = lab.hosts().iter().all(|of| of.dig(PRIMARY, "SRV").is(&at).is_ok());
    all.then_some(master)
}

fn follow(lab: &Lab, leader: usize) {
    let others: Vec<String> = (1..=3).filter(|n| *n != leader).map(|n| lab.host(n).at(5432)).collect();
    eventually("the others follow", || lab.host(1).dig(REPLICAS, "SRV").is(&others));
}

#[test]
fn one_of_three_leads_the_others_follow_and_take_over() {
    let lab = lab::alone();
    let _agents = lab.wharves();
    let tools = tools(&lab);
    let nodes: Vec<Container<'_>> = (1..=3).map(|n| node(&lab, n, &tools)).collect();
    let logs = || nodes.iter().map(Container::logs).collect::<Vec<_>>().join("\n---\n");
    let first = eventually("one leads", || leads(&lab).ok_or_else(logs));
    follow(&lab, first);
    sql(&nodes[first - 1], "create table deeds (what text); insert into deeds values ('one')").unwrap();
    let deeds = |n: usize| sql(&nodes[n - 1], "select string_agg(what, ' ' order by what) from deeds");
    let all_know = |expected: &str| {
        eventually("all have it", || (1..=3).all(|n| deeds(n).is_ok_and(|said| said.trim() == expected)));
    };
    all_know("one");
    let reign = || lab.etcd().ctl(&["get", "--print-value-only", "/services/postgres/reign"]).trim().to_owned();
    let of_first = reign();
    let said = |n: usize, what: &str| nodes[n - 1].logs().contains(what);
    eventually("the others have the data of its reign", || {
        (1..=3).filter(|n| *n != first).all(|n| said(n, &format!("in the reign of {of_first}")))
    });

    // Its host's container dies; another one has all that it had, and leads.
    nodes[first - 1].kill();
    let second = eventually("another one leads", || leads(&lab).filter(|n| *n != first).ok_or_else(logs));
    sql(&nodes[second - 1], "insert into deeds values ('two')").unwrap();
    assert_ne!(reign(), of_first);

    // It comes back with what it had, and follows.
    nodes[first - 1].start();
    follow(&lab, second);
    all_know("one two");
    assert_eq!(leads(&lab), Some(second));
}
