//! Which version of which package, if any.
use std::collections::{BTreeMap, BTreeSet};

use super::{
    select::{Conflict, Scope, SelectionError},
    version,
};
use crate::{
    catalogue::{Catalogue, Package, PackageWish, PayloadFormat, Wish},
    survey::words::PackageManager,
};

type Chosen<'a> = (Vec<&'a Package>, Vec<Conflict>);

/// Chooses at most one entry of every package name, ordered by name.
pub(super) fn choose<'a>(scope: &mut Scope<'_>, catalogue: &'a Catalogue) -> Result<Chosen<'a>, SelectionError> {
    let mut names: BTreeMap<&str, Vec<&Package>> = BTreeMap::new();
    for package in &catalogue.packages {
        names.entry(&package.definition.name).or_default().push(package);
    }
    let (mut chosen, mut conflicts) = (Vec::new(), Vec::new());
    for (name, mut versions) in names.clone() {
        versions.sort_by(|a, b| order(a, b));
        let (package, found) = choose_version(scope, name, &versions)?;
        chosen.extend(package);
        conflicts.extend(found);
    }
    conflicts.extend(wanted_but_absent(scope, &names.into_keys().collect())?);
    Ok((chosen, conflicts))
}

/// Highest version first; where one version comes in several forms, the system's own package formats first.
fn order(a: &Package, b: &Package) -> std::cmp::Ordering {
    version::compare(&b.definition.version, &a.definition.version)
        .then_with(|| a.definition.format.cmp(&b.definition.format))
        .then_with(|| a.definition.architectures.cmp(&b.definition.architectures))
}

fn subject(package: &Package) -> String {
    format!("package {} {}", package.definition.name, package.definition.version)
}

fn choose_version<'a>(
    scope: &mut Scope<'_>,
    name: &str,
    versions: &[&'a Package],
) -> Result<(Option<&'a Package>, Vec<Conflict>), SelectionError> {
    let wish = wish(scope, name)?;
    let mut chosen: Option<&Package> = None;
    let mut misfits = Vec::new();
    for package in versions {
        let (suits, rule, fact, text) = suits(scope, package, wish.as_ref())?;
        if !suits {
            scope.explain(false, subject(package), &rule, fact, text);
        } else if let Some(better) = chosen {
            let text = format!("version {} is chosen", better.definition.version);
            scope.explain(false, subject(package), "the highest version that fits", String::new(), text);
        } else if let Some(misfit) = misfit(scope, package) {
            misfits.push(misfit);
        } else {
            scope.explain(true, subject(package), &rule, fact, text);
            chosen = Some(package);
        }
    }
    if chosen.is_none() {
        let wanted = wish.filter(|wish| wish.wish == Wish::Wanted);
        let absent = wanted.filter(|wish| wish.version.as_ref().is_some_and(|version| !has(versions, version)));
        misfits.extend(absent.map(|wish| absent_conflict(&wish)));
        return Ok((None, misfits));
    }
    for misfit in misfits {
        scope.explain(false, format!("package {}", misfit.package), &misfit.rule, misfit.fact, misfit.text);
    }
    Ok((chosen, Vec::new()))
}

fn has(versions: &[&Package], version: &str) -> bool {
    versions.iter().any(|package| package.definition.version == version)
}

/// The first wish of the site that applies to this host.
fn wish(scope: &Scope<'_>, name: &str) -> Result<Option<PackageWish>, SelectionError> {
    for (index, wish) in scope.policy.packages.iter().enumerate().filter(|(_, wish)| wish.package == name) {
        if scope.applies(wish.when.as_ref(), &format!("site policy, packages[{index}].when"))? {
            return Ok(Some(wish.clone()));
        }
    }
    Ok(None)
}

/// Whether policy and `select` rule are for it, with rule, fact and text of the explanation.
fn suits(
    scope: &Scope<'_>,
    package: &Package,
    wish: Option<&PackageWish>,
) -> Result<(bool, String, String, String), SelectionError> {
    let definition = &package.definition;
    let policy =
        |wish: &PackageWish| wish.when.as_ref().map_or("site policy".to_owned(), |when| format!("site policy: {when}"));
    if let Some(wish) = wish {
        if wish.wish == Wish::Forbidden {
            return Ok((false, policy(wish), String::new(), format!("the site forbids it: {}", wish.reason)));
        }
        if let Some(version) = wish.version.as_ref().filter(|version| **version != definition.version) {
            let text = format!("the site wants version {version} only: {}", wish.reason);
            return Ok((false, policy(wish), String::new(), text));
        }
        if wish.wish == Wish::Wanted {
            return Ok((true, policy(wish), String::new(), format!("the site wants it: {}", wish.reason)));
        }
    }
    let (holds, fact) = scope.holds(&definition.select, &format!("{}, select", subject(package)))?;
    let text = if holds { "it suits this host" } else { "it does not suit this host" };
    Ok((holds, definition.select.to_string(), fact, text.to_owned()))
}

/// Why a package that suits cannot run here.
fn misfit(scope: &Scope<'_>, package: &Package) -> Option<Conflict> {
    let definition = &package.definition;
    let host = &scope.descriptor.host;
    let conflict = |rule: &str, fact: String, text: String| Conflict {
        package: format!("{} {}", definition.name, definition.version),
        rule: rule.to_owned(),
        fact,
        text,
    };
    let architecture = &host.hardware.architecture;
    if !definition.architectures.iter().any(|supported| supported == architecture || supported == "all") {
        let text = format!("it runs on {} only", definition.architectures.join(", "));
        return Some(conflict("architecture", format!("host.architecture = {architecture:?}"), text));
    }
    let (manager, needed) = (host.operating_system.package_manager, definition.format);
    let fits = match needed {
        PayloadFormat::Deb => manager == PackageManager::Dpkg,
        PayloadFormat::Rpm => manager == PackageManager::Rpm,
        PayloadFormat::Tar => true,
    };
    let tool = if needed == PayloadFormat::Deb { "dpkg" } else { "rpm" };
    let fact = || {
        format!("package_manager = {:?}", scope.facts.at(&["package_manager"]).and_then(|v| v.as_str()).unwrap_or(""))
    };
    (!fits).then(|| {
        conflict("package manager", fact(), format!("it is installed by {tool}, which this host does not use"))
    })
}

/// Wishes for names that the catalogue does not have at all.
fn wanted_but_absent(scope: &Scope<'_>, names: &BTreeSet<&str>) -> Result<Vec<Conflict>, SelectionError> {
    let mut conflicts = Vec::new();
    for (index, wish) in scope.policy.packages.iter().enumerate() {
        let absent = wish.wish == Wish::Wanted && !names.contains(wish.package.as_str());
        if absent && scope.applies(wish.when.as_ref(), &format!("site policy, packages[{index}].when"))? {
            conflicts.push(absent_conflict(wish));
        }
    }
    Ok(conflicts)
}

fn absent_conflict(wish: &PackageWish) -> Conflict {
    let version = wish.version.as_ref().map(|version| format!(" {version}")).unwrap_or_default();
    Conflict {
        package: format!("{}{version}", wish.package),
        rule: "site policy".to_owned(),
        fact: "the catalogue does not have it".to_owned(),
        text: format!("the site wants it ({}); add it to the catalogue, or change the policy", wish.reason),
    }
}
