//! Images without a registry: a program of this machine, the libraries that it asks for, a few files, imported as one
//! layer. Made once, kept in `.lab/images` under a name that changes when the program does.

use std::collections::BTreeSet;
use std::collections::hash_map::DefaultHasher;
use std::fs::{self, File};
use std::hash::{Hash, Hasher};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use super::process::{run, try_run};

/// The images there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Image {
    /// memcached, 11211/tcp
    Memcached,
    /// redis-server and redis-cli, 6379/tcp
    Redis,
    /// PostgreSQL with a ready data folder, 5432/tcp; honours POSTGRES_PASSWORD as the official image does
    Postgres,
    /// busybox, for anything small: `nc`, `httpd`, `sleep`
    Busybox,
    /// etcd alone, told everything on its command line as the official image is
    Etcd,
}

/// Changed when a recipe below changes.
const RECIPES: u32 = 1;

struct Recipe {
    name: &'static str,
    programs: Vec<String>,
    /// Copied whole.
    folders: Vec<String>,
    /// Dockerfile instructions.
    changes: Vec<String>,
}

impl Image {
    /// Its name as `docker run` wants it; the base name is what wharf guesses a check from.
    pub fn reference(self) -> &'static str {
        match self {
            Self::Memcached => "memcached:lab",
            Self::Redis => "redis:lab",
            Self::Postgres => "postgres:lab",
            Self::Busybox => "busybox:lab",
            Self::Etcd => "etcd:lab",
        }
    }

    /// Its tar file, made now if it is not there yet, and the changes to import it with.
    pub fn archive(self) -> (PathBuf, Vec<String>) {
        let recipe = self.recipe();
        let cache = Path::new(env!("CARGO_MANIFEST_DIR")).join(".lab/images");
        fs::create_dir_all(&cache).expect("the cache folder can be made");
        let door = File::create(cache.join("lock")).expect("the cache folder can be written");
        door.lock().expect("the cache folder can be locked");
        let file = cache.join(format!("{}-{:016x}.tar", recipe.name, recipe.key()));
        if !file.exists() {
            recipe.make(&cache, &file);
        }
        (file, recipe.changes)
    }

    fn recipe(self) -> Recipe {
        let text = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        match self {
            Self::Memcached => Recipe {
                name: "memcached",
                programs: text(&["/usr/bin/memcached"]),
                folders: vec![],
                changes: text(&["EXPOSE 11211", r#"ENTRYPOINT ["/usr/bin/memcached", "-u", "root", "-m", "16"]"#]),
            },
            Self::Redis => Recipe {
                name: "redis",
                programs: text(&["/usr/bin/redis-server", "/usr/bin/redis-cli"]),
                folders: vec![],
                changes: text(&[
                    "EXPOSE 6379",
                    r#"ENTRYPOINT ["/usr/bin/redis-server", "--protected-mode", "no", "--save", "", "--repl-diskless-sync-delay", "0"]"#,
                ]),
            },
            Self::Postgres => {
                let version = newest_postgres();
                let bin = format!("/usr/lib/postgresql/{version}/bin");
                Recipe {
                    name: "postgres",
                    programs: ["postgres", "initdb", "psql", "pg_basebackup"]
                        .map(|program| format!("{bin}/{program}"))
                        .into_iter()
                        .chain(text(&["/bin/sh"]))
                        .collect(),
                    folders: vec![
                        format!("/usr/lib/postgresql/{version}/lib"),
                        format!("/usr/share/postgresql/{version}"),
                        "/usr/share/zoneinfo".into(),
                    ],
                    changes: vec![
                        "EXPOSE 5432".into(),
                        "USER postgres".into(),
                        format!("ENV PATH={bin}:/usr/bin:/bin PGDATA={DATA}"),
                        r#"ENTRYPOINT ["/bin/sh", "/start"]"#.into(),
                    ],
                }
            }
            Self::Busybox => Recipe {
                name: "busybox",
                programs: vec![run(&["sh", "-c", "command -v busybox"]).trim().to_owned()],
                folders: vec![],
                changes: text(&[r#"ENTRYPOINT ["/bin/busybox"]"#]),
            },
            Self::Etcd => Recipe {
                name: "etcd",
                programs: vec![run(&["sh", "-c", "command -v etcd"]).trim().to_owned()],
                folders: vec![],
                changes: text(&["ENV PATH=/usr/bin:/bin"]),
            },
        }
    }
}

const DATA: &str = "/var/lib/postgresql/data";
/// The official image's ids.
const POSTGRES: &str = "999:999";
const POSTGRES_START: &str = r#"
if [ -n "$POSTGRES_PASSWORD" ]; then
  echo "alter role postgres password '$POSTGRES_PASSWORD'" | postgres --single -D "$PGDATA" postgres >/dev/null
fi
exec postgres -D "$PGDATA" -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
"#;

impl Recipe {
    fn key(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (RECIPES, &self.changes, &self.folders).hash(&mut hasher);
        for program in &self.programs {
            let facts = fs::metadata(program)
                .unwrap_or_else(|error| panic!("{program}: {error}; `make setup` installs what the lab needs"));
            (program, facts.len(), facts.mtime()).hash(&mut hasher);
        }
        hasher.finish()
    }

    fn make(&self, cache: &Path, file: &Path) {
        let root = cache.join(format!("{}.root", self.name));
        let _ = fs::remove_dir_all(&root);
        for folder in ["etc", "tmp", "bin"] {
            fs::create_dir_all(root.join(folder)).expect("a new folder can be written");
        }
        fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).expect("ours");
        let users = "root:x:0:0:root:/:/bin/sh\npostgres:x:999:999::/var/lib/postgresql:/bin/sh\n";
        fs::write(root.join("etc/passwd"), users).expect("ours");
        fs::write(root.join("etc/group"), "root:x:0:\npostgres:x:999:\n").expect("ours");
        for program in &self.programs {
            copy_with_libraries(program, &root);
        }
        for folder in &self.folders {
            copy_folder(folder, &root);
        }
        match self.name {
            "postgres" => finish_postgres(&root, self.programs[0].trim_end_matches("/postgres")),
            "busybox" => drop(fs::rename(root.join(&self.programs[0][1..]), root.join("bin/busybox"))),
            _ => {}
        }
        let half = file.with_extension("half");
        run(&["tar", "-C", &text(&root), "-cf", &text(&half), "."]);
        fs::remove_dir_all(&root).expect("ours");
        fs::rename(half, file).expect("the cache folder can be written");
    }
}

/// initdb takes seconds: done once here, not at every container's start.
fn finish_postgres(root: &Path, bin: &str) {
    fs::write(root.join("start"), POSTGRES_START).expect("ours");
    let data = root.join(&DATA[1..]);
    fs::create_dir_all(&data).expect("ours");
    fs::set_permissions(&data, fs::Permissions::from_mode(0o700)).expect("ours");
    run(&["chown", "-R", POSTGRES, &text(&root.join("var/lib/postgresql"))]);
    // initdb's shell talks to it; in the container Docker brings its own.
    fs::create_dir_all(root.join("dev")).expect("ours");
    run(&["mknod", "-m", "666", &text(&root.join("dev/null")), "c", "1", "3"]);
    let initdb = format!(
        "{bin}/initdb -D {DATA} -U postgres -N --auth-local=trust --auth-host=scram-sha-256 -E UTF8 --locale=C"
    );
    run(&["chroot", &format!("--userspec={POSTGRES}"), &text(root), "/bin/sh", "-c", &initdb]);
    let rules = "local all all trust\nhost all all all scram-sha-256\nhost replication all all trust\n";
    fs::write(data.join("pg_hba.conf"), rules).expect("ours");
}

fn newest_postgres() -> String {
    let mut versions: Vec<u32> = fs::read_dir("/usr/lib/postgresql")
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|version| Path::new(&format!("/usr/lib/postgresql/{version}/bin/postgres")).exists())
        .collect();
    versions.sort_unstable();
    versions.last().expect("PostgreSQL is installed (make setup)").to_string()
}

/// Copies a program to the same place below a root, and the libraries that it asks for.
pub fn copy_with_libraries(program: &str, root: &Path) {
    let mut files = libraries(program);
    files.insert(program.into());
    for file in files {
        let to = root.join(&file[1..]);
        fs::create_dir_all(to.parent().expect("below the root")).expect("ours");
        fs::copy(&file, &to).unwrap_or_else(|error| panic!("copy {file}: {error}"));
    }
}

/// Folders keep their links; the libraries of what can be loaded from them come too.
pub fn copy_folder(folder: &str, root: &Path) {
    let to = root.join(&folder[1..]);
    fs::create_dir_all(&to).expect("ours");
    run(&["cp", "-a", &format!("{folder}/."), &text(&to)]);
}

fn libraries(program: &str) -> BTreeSet<String> {
    let listed = try_run(&["ldd", program]).unwrap_or_default(); // a static program has none
    listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned).collect()
}

fn text(path: &Path) -> String {
    path.to_str().expect("the repository's path is text").to_owned()
}
