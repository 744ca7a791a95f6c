//! Writes the bill of materials of a release to standard output: CycloneDX 1.5 in JSON, made from what cargo says of
//! the locked dependencies. The same sources give the same text.
//!
//!     sbom TARGET [MOMENT]        a target triple; the time to name in it, as RFC 3339 has it
#![allow(clippy::print_stderr, clippy::print_stdout)]

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::process::{Command, ExitCode};

use serde_json::{Value, json};

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(target) = arguments.next() else {
        eprintln!("usage: sbom TARGET [MOMENT]");
        return ExitCode::from(2);
    };
    match bill(&target, arguments.next().as_deref()) {
        Ok(bill) => {
            println!("{bill:#}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("sbom: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bill(target: &str, moment: Option<&str>) -> Result<Value, Failure> {
    let graph = cargo(&["metadata", "--locked", "--format-version", "1", "--filter-platform", target])?;
    let graph = Graph::read(&serde_json::from_str(&graph)?)?;
    let sums = checksums(&std::fs::read_to_string("Cargo.lock")?)?;
    // Macros run while it is built, and so does all that they use.
    let (built, shipped) = (tree(target, "normal,build")?, tree(target, "normal,no-proc-macro")?);
    let (mut components, mut dependencies) = (Vec::new(), Vec::new());
    for (name, package) in graph.packages.iter().filter(|(name, _)| built.contains(*name)) {
        let used: Vec<_> = package.uses.iter().filter(|used| built.contains(*used)).map(reference).collect();
        dependencies.push(json!({ "ref": reference(name), "dependsOn": used }));
        if *name != graph.root {
            let mut component = described("library", name, package);
            component["scope"] = if shipped.contains(name) { "required" } else { "excluded" }.into();
            if let Some(sum) = sums.get(name) {
                component["hashes"] = json!([{ "alg": "SHA-256", "content": sum }]);
            }
            components.push(component);
        }
    }
    let ours = graph.packages.get(&graph.root).ok_or("no package of ours")?;
    let mut about = json!({ "component": described("application", &graph.root, ours) });
    if let Some(moment) = moment {
        about["timestamp"] = moment.into();
    }
    Ok(json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": about,
        "components": components,
        "dependencies": dependencies,
    }))
}

fn cargo(arguments: &[&str]) -> Result<String, Failure> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let said = Command::new(cargo).args(arguments).output()?;
    if !said.status.success() {
        return Err(String::from_utf8_lossy(&said.stderr).into_owned().into());
    }
    Ok(String::from_utf8(said.stdout)?)
}

/// A package's name and version.
type Name = (String, String);

/// What the program is made of along such edges, never what only tests use.
fn tree(target: &str, edges: &str) -> Result<BTreeSet<Name>, Failure> {
    let form = ["--prefix", "none", "--format", "{p}"];
    let said = cargo(&[&["tree", "--locked", "--target", target, "--edges", edges][..], &form[..]].concat())?;
    let name = |line: &str| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.strip_prefix('v')?.to_owned()))
    };
    said.lines().map(|line| name(line).ok_or_else(|| format!("no package: {line}").into())).collect()
}

/// The hashes of the packages as they were fetched.
fn checksums(lock: &str) -> Result<HashMap<Name, String>, Failure> {
    #[derive(serde::Deserialize)]
    struct Lock {
        package: Vec<Locked>,
    }
    #[derive(serde::Deserialize)]
    struct Locked {
        name: String,
        version: String,
        checksum: Option<String>,
    }
    let lock: Lock = toml::from_str(lock)?;
    let with_sum = |of: Locked| Some(((of.name, of.version), of.checksum?));
    Ok(lock.package.into_iter().filter_map(with_sum).collect())
}

/// Which package uses which.
struct Graph {
    root: Name,
    packages: BTreeMap<Name, Package>,
}

struct Package {
    license: Option<String>,
    uses: BTreeSet<Name>,
}

impl Graph {
    fn read(metadata: &Value) -> Result<Self, Failure> {
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let packages = list(&metadata["packages"]);
        let names: HashMap<_, _> =
            packages.iter().map(|of| (&of["id"], (text(&of["name"]), text(&of["version"])))).collect();
        let name = |id: &Value| names.get(id).and_then(|(name, version)| name.clone().zip(version.clone()));
        let licenses: HashMap<_, _> = packages.iter().map(|of| (&of["id"], text(&of["license"]))).collect();
        let nodes = list(&metadata["resolve"]["nodes"]);
        let package = |node: &Value| {
            let uses = list(&node["deps"]).iter().filter_map(|used| name(&used["pkg"])).collect();
            Some((name(&node["id"])?, Package { license: licenses.get(&node["id"]).cloned().flatten(), uses }))
        };
        let root = name(&metadata["resolve"]["root"]).ok_or("no package here")?;
        Ok(Self { root, packages: nodes.iter().filter_map(package).collect() })
    }
}

fn reference((name, version): &Name) -> String {
    format!("pkg:cargo/{name}@{}", version.replace('+', "%2B"))
}

fn described(kind: &str, name: &Name, package: &Package) -> Value {
    let reference = reference(name);
    let mut described =
        json!({ "type": kind, "bom-ref": reference, "name": name.0, "version": name.1, "purl": reference });
    // Some still write "A/B" for "A OR B".
    if let Some(license) = &package.license {
        described["licenses"] = json!([{ "expression": license.replace('/', " OR ") }]);
    }
    described
}
