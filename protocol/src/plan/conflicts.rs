//! What stops what was chosen, before any download (R61).
use std::collections::BTreeMap;

use super::{
    select::{Conflict, Scope, SelectionError},
    types::PlannedPackage,
};
use crate::{
    catalogue::{ConflictKind, ConflictRule, Package, StepAction, rule::PortNumber},
    survey::words::{Severity, Vocabulary},
};

/// Where packs and images lie until they are installed.
const STORE_PATH: &str = "/var/lib";

/// All conflicts between the host and what was chosen for it.
pub(super) fn find(scope: &mut Scope<'_>, chosen: &[&Package]) -> Result<Vec<Conflict>, SelectionError> {
    let mut conflicts = Vec::new();
    if chosen.is_empty() {
        return Ok(conflicts);
    }
    conflicts.extend(blocking(scope));
    conflicts.extend(store_space(scope, chosen));
    for package in chosen {
        let definition = &package.definition;
        let present = is_present(scope, package);
        for port in definition.ports.iter().filter_map(|port| fixed(&port.port)) {
            let text = format!("something listens on TCP port {port}, which the package needs; stop it, or move it");
            let rule = ConflictRule { with: ConflictKind::Port(port), text };
            conflicts.extend(check(scope, package, &rule, (usize::MAX, present), chosen)?);
        }
        for (index, rule) in definition.conflicts.iter().enumerate() {
            conflicts.extend(check(scope, package, rule, (index, present), chosen)?);
        }
    }
    conflicts.dedup();
    Ok(conflicts)
}

fn fixed(port: &PortNumber) -> Option<u16> {
    match port {
        PortNumber::Number(number) => Some(*number),
        PortNumber::Rule(_) => None,
    }
}

fn has(scope: &Scope<'_>, list: &str, name: &str) -> bool {
    match list {
        "packages" => scope.descriptor.host.packages.list.iter().any(|package| package.name == name),
        _ => scope.descriptor.host.software.list.iter().any(|process| process.name == name),
    }
}

/// An update finds its predecessor running: its own port and processes are no conflict then (R97).
fn is_present(scope: &Scope<'_>, package: &Package) -> bool {
    let definition = &package.definition;
    let program = definition.service.as_ref().and_then(|service| service.program.rsplit('/').next());
    has(scope, "packages", &definition.name) || program.is_some_and(|program| has(scope, "software", program))
}

/// Checks one rule; `place` is its index, and whether the package is there already.
fn check(
    scope: &Scope<'_>,
    package: &Package,
    rule: &ConflictRule,
    (index, present): (usize, bool),
    chosen: &[&Package],
) -> Result<Option<Conflict>, SelectionError> {
    let name = &package.definition.name;
    let found = match &rule.with {
        ConflictKind::Package(other) => {
            let planned = chosen.iter().any(|other_package| other_package.definition.name == *other && other != name);
            let installed = has(scope, "packages", other) && other != name;
            let fact = if installed { format!("packages has {other:?}") } else { format!("{other} is chosen too") };
            (planned || installed).then_some((format!("package {other}"), fact))
        }
        ConflictKind::Software(process) => (!present && has(scope, "software", process))
            .then(|| (format!("software {process}"), format!("software has {process:?}"))),
        ConflictKind::Port(port) => {
            let taken = scope.descriptor.host.listening_ports.iter().any(|listening| listening.number == *port);
            (taken && !present).then(|| (format!("port {port}"), format!("ports.listening has {port}")))
        }
        ConflictKind::DiskSpace { path, bytes } => space(scope, path, *bytes),
        ConflictKind::OperatingSystemOtherThan { id, versions } => system(scope, id, versions),
        ConflictKind::When(when) => {
            let (holds, fact) = scope.holds(when, &format!("package {name}, conflicts[{index}].with.when"))?;
            holds.then(|| (when.to_string(), fact))
        }
    };
    Ok(found.map(|(found_by, fact)| Conflict { package: name.clone(), rule: found_by, fact, text: rule.text.clone() }))
}

fn system(scope: &Scope<'_>, id: &str, versions: &[String]) -> Option<(String, String)> {
    let system = &scope.descriptor.host.operating_system;
    let version = system.version_id.as_deref().unwrap_or("");
    let supported = system.id == id && (versions.is_empty() || versions.iter().any(|known| known == version));
    let rule = format!("operating system {id} {}", versions.join(", "));
    (!supported).then(|| (rule.trim_end().to_owned(), format!("os.id = {:?}, os.version_id = {version:?}", system.id)))
}

/// Too little space at a path; where the survey knows no file system that holds it, nothing is said.
fn space(scope: &Scope<'_>, path: &str, bytes: u64) -> Option<(String, String)> {
    let holds = |mount: &str| {
        let mount = mount.trim_end_matches('/');
        path == mount || path.strip_prefix(mount).is_some_and(|rest| rest.starts_with('/'))
    };
    let filesystems = scope.descriptor.host.filesystems.iter().filter(|filesystem| holds(&filesystem.mount_point));
    let filesystem = filesystems.max_by_key(|filesystem| filesystem.mount_point.len())?;
    let fact = format!("{} bytes are free on {}", filesystem.free_bytes, filesystem.mount_point);
    (filesystem.free_bytes < bytes).then(|| (format!("{bytes} bytes free at {path}"), fact))
}

/// Packs and images need their space before anything is installed (R102 in its first form).
fn store_space(scope: &Scope<'_>, chosen: &[&Package]) -> Option<Conflict> {
    let bytes = |package: &&Package| package.payload.pack_bytes.saturating_add(package.payload.raw_bytes);
    let needed = chosen.iter().map(bytes).fold(0_u64, u64::saturating_add);
    let (rule, fact) = space(scope, STORE_PATH, needed)?;
    let text = "there is too little space for the payloads; free some, or move the store".to_owned();
    Some(Conflict { package: "all packages".to_owned(), rule, fact, text })
}

/// What the survey itself calls blocking.
fn blocking(scope: &Scope<'_>) -> Vec<Conflict> {
    let conflicts = scope.descriptor.installation.conflicts.iter();
    let blocking = conflicts.filter(|conflict| conflict.severity == Severity::Blocking);
    let conflict = |found: &crate::survey::descriptor::Conflict| Conflict {
        package: "all packages".to_owned(),
        rule: "survey".to_owned(),
        fact: format!("{} {:?} is {}", found.kind, found.subject, found.severity.word()),
        text: found.reason.clone(),
    };
    blocking.map(conflict).collect()
}

/// Packages of one plan that want the same port, file or service.
pub(super) fn between(packages: &[PlannedPackage]) -> Vec<Conflict> {
    let mut owners: BTreeMap<String, &str> = BTreeMap::new();
    let mut conflicts = Vec::new();
    for package in packages {
        let ports = package.ports.iter().map(|port| format!("TCP port {}", port.port));
        let files = package.files.iter().map(|file| format!("file {}", file.path));
        let written = package.steps.iter().filter_map(|step| match &step.action {
            StepAction::WriteFile { path, .. } => Some(format!("file {path}")),
            _ => None,
        });
        let services = package.service.iter().map(|service| format!("service {}", service.name));
        for thing in ports.chain(files).chain(written).chain(services) {
            let owner = *owners.entry(thing.clone()).or_insert(&package.name);
            if owner != package.name {
                conflicts.push(Conflict {
                    package: package.name.clone(),
                    rule: "one owner for each port, file and service".to_owned(),
                    fact: format!("{thing} belongs to {owner}"),
                    text: format!(
                        "{owner} and {} cannot be installed together; forbid one in the site policy",
                        package.name
                    ),
                });
            }
        }
    }
    conflicts
}
