//! Who may know whom: the direction of dependencies between the rooms, and what the pure rooms must
//! not touch. `docs/src/architecture.md` says why.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde::Deserialize;

const PROTOCOL: &str = "branchline-protocol";
const STATION_ROLE: &str = "branchline-station-role";
const SIMULATIONS: &str = "branchline-simulations";
/// Pages of the program: the only crate with unsafe code, of the room `node`.
const RESIDENT: &str = "branchline-resident";
const NODE: &str = "branchline";
const TESTS: &str = "branchline-tests";

/// Rooms that decide and do nothing else: no clock, socket, file, thread or random source.
const PURE: [&str; 3] = [PROTOCOL, STATION_ROLE, SIMULATIONS];

/// Crates that bring sockets, files, clocks, threads or random sources. None may be a normal
/// dependency of a pure room, not even through another crate.
const FORBIDDEN_CRATES: &[&str] = &[
    "async-io",
    "async-snmp",
    "async-std",
    "axum",
    "fastrand",
    "hyper",
    "libp2p",
    "libp2p-core",
    "libp2p-identity",
    "mio",
    "openssl",
    "quinn",
    "rayon",
    "redb",
    "reqwest",
    "rustls",
    "smol",
    "socket2",
    "tempfile",
    "thread_rng",
    "tokio",
    "tokio-rustls",
    "tracing-subscriber",
];

/// Paths that a pure room's source must not name outside its tests. Each is something whose answer
/// differs from run to run, or that waits.
const FORBIDDEN_PATHS: &[&str] = &[
    "std::net::Tcp",
    "std::net::Udp",
    "std::net::ToSocketAddrs",
    "std::fs",
    "std::io::stdin",
    "std::os::unix::net",
    "std::process::Command",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "std::env::var",
    "getrandom::",
    "OsRng",
    "thread_rng",
    "HashMap",
    "HashSet",
];

/// Names that a file may use all the same, and why.
const EXCEPTIONS: &[(&str, &str, &str)] = &[(
    "protocol/src/catalogue/rule.rs",
    "HashMap",
    "cel takes objects in no other form; rules may run macros over lists only, so that its order is never seen",
)];

fn is_excepted(file: &str, path: &str) -> bool {
    EXCEPTIONS.iter().any(|(of, name, _)| *of == file && *name == path)
}

/// What `cargo metadata` says, as far as these tests ask. Its crate would turn on a feature of serde_json that the
/// product does not use, so that everything above serde_json would be built twice.
#[derive(Deserialize)]
struct Metadata {
    packages: Vec<Package>,
    workspace_members: BTreeSet<String>,
    resolve: Resolve,
}

#[derive(Deserialize)]
struct Package {
    id: String,
    name: String,
    dependencies: Vec<Dependency>,
}

#[derive(Deserialize)]
struct Dependency {
    name: String,
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Resolve {
    nodes: Vec<Node>,
}

#[derive(Deserialize)]
struct Node {
    id: String,
    deps: Vec<NodeDependency>,
}

#[derive(Deserialize)]
struct NodeDependency {
    pkg: String,
    dep_kinds: Vec<Kind>,
}

/// `None` is an ordinary dependency; the others are "dev" and "build".
#[derive(Deserialize)]
struct Kind {
    kind: Option<String>,
}

impl Metadata {
    fn workspace_packages(&self) -> impl Iterator<Item = &Package> {
        self.packages.iter().filter(|package| self.workspace_members.contains(&package.id))
    }
}

fn metadata() -> Metadata {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--locked", "--manifest-path"])
        .arg(workspace().join("Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_path_buf()
}

/// For each room, the rooms that it names as a normal or build dependency.
fn rooms(metadata: &Metadata) -> BTreeMap<String, BTreeSet<String>> {
    let names: BTreeSet<&str> = metadata.workspace_packages().map(|package| package.name.as_str()).collect();
    let uses = |package: &Package| {
        let built_in = package.dependencies.iter().filter(|dependency| dependency.kind.as_deref() != Some("dev"));
        built_in.map(|dependency| dependency.name.clone()).filter(|name| names.contains(name.as_str())).collect()
    };
    metadata.workspace_packages().map(|package| (package.name.clone(), uses(package))).collect()
}

/// Every package that `root` reaches by normal dependencies, by name, with one path that leads there.
fn reachable(metadata: &Metadata, root: &str) -> BTreeMap<String, String> {
    let names: BTreeMap<&str, &str> =
        metadata.packages.iter().map(|package| (package.id.as_str(), package.name.as_str())).collect();
    let nodes: BTreeMap<&str, &Node> = metadata.resolve.nodes.iter().map(|node| (node.id.as_str(), node)).collect();
    let mut found = BTreeMap::new();
    let start = metadata.workspace_packages().find(|package| package.name == root).unwrap();
    let mut pending = vec![(start.id.as_str(), root.to_owned())];
    while let Some((id, path)) = pending.pop() {
        for dependency in &nodes[id].deps {
            let normal = dependency.dep_kinds.iter().any(|kind| kind.kind.is_none());
            let reached = names[dependency.pkg.as_str()];
            if normal && !found.contains_key(reached) {
                let path = format!("{path} -> {reached}");
                found.insert(reached.to_owned(), path.clone());
                pending.push((dependency.pkg.as_str(), path));
            }
        }
    }
    found
}

#[test]
fn rooms_depend_in_one_direction() {
    let metadata = metadata();
    let order = [PROTOCOL, STATION_ROLE, SIMULATIONS, RESIDENT, NODE, TESTS];
    let rooms = rooms(&metadata);
    assert_eq!(
        rooms.keys().map(String::as_str).collect::<BTreeSet<_>>(),
        order.into_iter().collect::<BTreeSet<_>>(),
        "a new room needs a place in the order, here and in docs/src/architecture.md",
    );
    for (room, uses) in &rooms {
        let place = order.iter().position(|name| name == room).unwrap();
        for used in uses {
            let used_place = order.iter().position(|name| name == used).unwrap();
            assert!(used_place < place, "{room} must not depend on {used}: the direction is {}", order.join(" <- "),);
        }
    }
}

#[test]
fn pure_rooms_reach_no_input_or_output_crate() {
    let metadata = metadata();
    let mut faults = Vec::new();
    for room in PURE {
        for (name, path) in reachable(&metadata, room) {
            if FORBIDDEN_CRATES.contains(&name.as_str()) {
                faults.push(path);
            }
        }
    }
    assert!(faults.is_empty(), "pure rooms take time, randomness and data as inputs; remove:\n{}", faults.join("\n"),);
}

#[test]
fn the_walk_over_dependencies_does_find_them() {
    // Guards the test above: a walk that finds nothing would let everything pass.
    let metadata = metadata();
    let reached = reachable(&metadata, NODE);
    assert!(reached.contains_key("tokio"), "node uses tokio");
    assert!(reached.contains_key(PROTOCOL), "node uses protocol");
}

#[test]
fn pure_rooms_name_no_clock_file_socket_thread_or_random_source() {
    let mut faults = Vec::new();
    let mut lines_read = 0;
    for room in ["protocol", "station-role", "simulations"] {
        for file in sources(&workspace().join(room).join("src")) {
            let text = std::fs::read_to_string(&file).unwrap();
            for (number, line) in production_lines(&text) {
                lines_read += 1;
                for path in FORBIDDEN_PATHS {
                    let file = file.strip_prefix(workspace()).unwrap().display().to_string();
                    if line.contains(path) && !is_excepted(&file, path) {
                        faults.push(format!("{file}:{number}: {path}"));
                    }
                }
            }
        }
    }
    assert!(lines_read > 0, "no source was read: the paths are wrong");
    assert!(faults.is_empty(), "pure rooms must not name these:\n{}", faults.join("\n"),);
}

/// Lines of code that are neither comments nor after the file's test module, with their numbers.
fn production_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .take_while(|(_, line)| line.trim() != "#[cfg(test)]")
        .filter(|(_, line)| !line.trim_start().starts_with("//"))
        .map(|(index, line)| (index + 1, line))
}

/// Every Rust file under `directory` that is not a test of its own (`tests.rs`, `tests/`).
fn sources(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut pending = vec![directory.to_path_buf()];
    while let Some(directory) = pending.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            if stem == "tests" || stem.ends_with("_tests") {
                continue;
            }
            if path.is_dir() {
                pending.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}
