//! The steps of a plan, in their order. A committed plan's steps can be computed again from it and the plan before it, so
//! that it is known which package an undo belongs to.
use std::collections::BTreeSet;

use branchline_protocol::{
    catalogue::{PayloadFormat, StepAction},
    plan::{HealthCheck, Plan, PlannedPackage, Service, Step},
};

/// One step of a plan.
pub(super) enum Act<'p> {
    Payloads,
    Remove(&'p PlannedPackage),
    Retire(&'p PlannedPackage),
    Deb(&'p PlannedPackage),
    Rpm(&'p PlannedPackage),
    Tar(&'p PlannedPackage, &'p Step),
    Configure(&'p PlannedPackage),
    Start(&'p PlannedPackage, &'p Service),
    Check(&'p PlannedPackage, &'p HealthCheck),
}

impl<'p> Act<'p> {
    pub(super) fn title(&self) -> String {
        match self {
            Self::Payloads => "Verify the payloads".to_owned(),
            Self::Remove(package) => {
                format!("Remove {} {}, which the plan leaves out", package.name, package.version)
            }
            Self::Retire(package) => {
                format!("Stop the service of {} {}, which the plan leaves out", package.name, package.version)
            }
            Self::Deb(package) => format!("Install {} {} with dpkg", package.name, package.version),
            Self::Rpm(package) => format!("Install {} {} with rpm", package.name, package.version),
            Self::Tar(package, step) => format!("{}: {}", package.name, tar_title(&step.action)),
            Self::Configure(package) => format!("Write the configuration of {}", package.name),
            Self::Start(_, service) => format!("Start {}", service.name),
            Self::Check(_, check) => format!("Ask http://{}:{}{}", check.address, check.port, check.http_path),
        }
    }

    /// The package that it installs.
    pub(super) fn installs(&self) -> Option<&'p PlannedPackage> {
        match self {
            Self::Payloads | Self::Remove(_) | Self::Retire(_) => None,
            Self::Deb(package)
            | Self::Rpm(package)
            | Self::Tar(package, _)
            | Self::Configure(package)
            | Self::Start(package, _)
            | Self::Check(package, _) => Some(package),
        }
    }
}

pub(super) fn tar_title(action: &StepAction) -> String {
    match action {
        StepAction::Unpack { prefix } => format!("unpack under {prefix}"),
        StepAction::CreateUser { name, .. } => format!("create the user {name}"),
        StepAction::CreateDirectory { path, .. } => format!("create the directory {path}"),
        StepAction::WriteFile { path, .. } => format!("write {path}"),
        StepAction::RunCommand(line) => format!("run {} {}", line.program, line.arguments.join(" ")),
    }
}

/// Whether these are two versions of one package.
pub(super) fn is_same(one: &PlannedPackage, other: &PlannedPackage) -> bool {
    (&one.name, one.format) == (&other.name, other.format)
}

/// The steps of `plan`. Packages that `before` has in the same form stay untouched; those that it has and `plan` leaves
/// out go first, since what comes instead of them may want their port, and in the order in which packages can do without
/// each other: the last first (R97).
pub(super) fn acts<'p>(plan: &'p Plan, before: Option<&'p Plan>) -> Vec<Act<'p>> {
    let mut acts = vec![Act::Payloads];
    let services: BTreeSet<&str> =
        plan.packages.iter().filter_map(|package| Some(package.service.as_ref()?.name.as_str())).collect();
    for package in before.into_iter().flat_map(|before| &before.packages).rev() {
        let is_kept = plan.packages.iter().any(|kept| is_same(kept, package));
        let has_service = package.service.as_ref().is_some_and(|service| !services.contains(service.name.as_str()));
        match (is_kept, has_service) {
            (false, _) => acts.push(Act::Remove(package)),
            (true, true) => acts.push(Act::Retire(package)),
            (true, false) => {}
        }
    }
    let same = |package: &PlannedPackage| before.is_some_and(|before| before.packages.contains(package));
    for package in plan.packages.iter().filter(|package| !same(package)) {
        match package.format {
            PayloadFormat::Deb => acts.push(Act::Deb(package)),
            PayloadFormat::Rpm => acts.push(Act::Rpm(package)),
            PayloadFormat::Tar => acts.extend(package.steps.iter().map(|step| Act::Tar(package, step))),
        }
        if !package.files.is_empty() {
            acts.push(Act::Configure(package));
        }
        acts.extend(package.service.as_ref().map(|service| Act::Start(package, service)));
        acts.extend(package.health.as_ref().map(|check| Act::Check(package, check)));
    }
    acts
}
