//! Images under the names that the examples ask a registry for, and the engine as a machine of the stack has it.
//!
//! No registry is at hand: each image is made of this machine's own programs, and takes from its environment what the
//! official one takes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::lab::host::Host;
use crate::lab::image::{Image, copy_folder, copy_with_libraries};
use crate::lab::process::run;
use crate::machine::Machine;

/// The engine runs outside of the machine: files that a unit mounts lie there below the machine's own tree, and
/// containers ask the server that the machine's `daemon.json` names.
const CLIENT: &str = r#"#!/bin/bash
[ "${1:-}" = run ] || exec /mnt/docker "$@"
shift
dns=$(sed -n 's/.*"dns": *\["\([^"]*\)".*/\1/p' /etc/docker/daemon.json)
arguments=(run ${dns:+--dns "$dns"})
while [ $# -gt 0 ]; do
  case $1:${2:-} in
    -v:/*) arguments+=(-v "ROOT$2") && shift ;;
    *) arguments+=("$1") ;;
  esac
  shift
done
exec /mnt/docker "${arguments[@]}"
"#;

/// Begins as root and gives that up, as the official image's does.
const POSTGRES: &str = r#"#!/bin/bash
set -e
as_postgres() { setpriv --reuid 999 --regid 999 --clear-groups "$@"; }
echo "alter role postgres password '$POSTGRES_PASSWORD'" | as_postgres postgres --single -D "$PGDATA" postgres >/dev/null
exec setpriv --reuid 999 --regid 999 --clear-groups postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp
"#;

/// Writes the settings that the official image writes, as far as the example asks for them.
const ZOOKEEPER: &str = r#"#!/bin/bash
set -e
echo "$ZOO_MY_ID" >/data/myid
{
  printf 'dataDir=/data\ndataLogDir=/datalog\ntickTime=1000\ninitLimit=20\nsyncLimit=5\nadmin.enableServer=false\n'
  printf '4lw.commands.whitelist=%s\n' "$ZOO_4LW_COMMANDS_WHITELIST"
  for server in $ZOO_SERVERS; do echo "$server"; done
} >/zoo.cfg
exec JAVA -Xmx64m -XX:-UseContainerSupport -XX:TieredStopAtLevel=1 -XX:+UseSerialGC -cp /etc/zookeeper/conf:/usr/share/java/zookeeper.jar \
  org.apache.zookeeper.server.quorum.QuorumPeerMain /zoo.cfg
"#;

/// Gives a machine the client of an engine that is, for its units, its own.
pub fn bring_engine(machine: &Machine<'_>) {
    let root = machine.tree();
    machine.put_as("/usr/bin/docker", CLIENT.replace("ROOT", &root).as_bytes(), 0o755);
}

/// `postgres:16` of the lab's PostgreSQL, in which a shell and wharf run, too.
pub fn bring_postgres(host: &Host) {
    host.bring(Image::Postgres);
    let _ = host.try_docker(&["volume", "rm", "postgres"]); // of a test before
    let root = fresh(host, "postgres");
    for program in ["/bin/bash", "/usr/bin/setpriv", "/usr/bin/sleep"] {
        copy_with_libraries(program, &root);
    }
    // The program itself is mounted.
    copy_with_libraries(env!("CARGO_BIN_EXE_wharf"), &root);
    write(&root.join("usr/bin/docker-entrypoint.sh"), POSTGRES);
    host.docker(&["create", "--name", "stock", Image::Postgres.reference()]);
    host.docker(&["cp", &format!("{}/.", root.display()), "stock:/"]);
    let entry = r#"ENTRYPOINT ["docker-entrypoint.sh"]"#;
    host.docker(&["commit", "-c", "USER root", "-c", entry, "stock", "postgres:16"]);
    host.docker(&["rm", "stock"]);
}

/// `zookeeper:3.9` of this machine's ZooKeeper and Java.
pub fn bring_zookeeper(host: &Host) {
    let _ = host.try_docker(&["volume", "rm", "zookeeper-data", "zookeeper-log"]); // of a test before
    let root = fresh(host, "zookeeper");
    for folder in ["etc", "tmp", "data", "datalog"] {
        fs::create_dir_all(root.join(folder)).unwrap();
    }
    fs::write(root.join("etc/passwd"), "root:x:0:0:root:/:/bin/sh\n").unwrap();
    let java = run(&["sh", "-c", "readlink -f \"$(command -v java)\""]);
    let home = java.trim().trim_end_matches("/bin/java").to_owned();
    let settings = format!("/etc/{}", Path::new(&home).file_name().unwrap().to_str().unwrap().replace("-amd64", ""));
    let jvm = format!("{home}/lib/server/libjvm.so");
    for program in ["/bin/bash", java.trim(), &jvm] {
        copy_with_libraries(program, &root);
    }
    for folder in
        [&format!("{home}/lib"), &format!("{home}/conf"), &settings, "/usr/share/java", "/etc/zookeeper/conf_example"]
    {
        copy_folder(folder, &root);
    }
    fs::create_dir_all(root.join("etc/zookeeper")).unwrap();
    fs::rename(root.join("etc/zookeeper/conf_example"), root.join("etc/zookeeper/conf")).unwrap();
    write(&root.join("start"), &ZOOKEEPER.replace("JAVA", java.trim()));
    let file = root.with_extension("tar");
    run(&["tar", "-C", &root.display().to_string(), "-cf", &file.display().to_string(), "."]);
    let (entry, ports) = (r#"ENTRYPOINT ["/start"]"#, "EXPOSE 2181 2888 3888");
    let volumes = "VOLUME /data /datalog";
    host.docker(&["import", "-c", entry, "-c", ports, "-c", volumes, &file.display().to_string(), "zookeeper:3.9"]);
    fs::remove_file(file).unwrap();
    fs::remove_dir_all(root).unwrap();
}

/// `solr:9`, of which the example wants a port that answers.
pub fn bring_solr(host: &Host) {
    let (file, _) = Image::Busybox.archive();
    let entry = r#"ENTRYPOINT ["/bin/busybox", "httpd", "-f", "-p", "8983"]"#;
    host.docker(&["import", "-c", entry, "-c", "EXPOSE 8983", &file.display().to_string(), "solr:9"]);
}

fn fresh(host: &Host, name: &str) -> PathBuf {
    let root = host.dir().join(format!("stock-{name}"));
    let _ = fs::remove_dir_all(&root);
    fs::create_dir_all(root.join("usr/bin")).unwrap();
    root
}

fn write(file: &Path, script: &str) {
    fs::write(file, script).unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
