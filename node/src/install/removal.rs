//! Takes out what the plan in force has and the new one leaves out (R97): whole packages, and single files of an archive.
//!
//! What takes a package's installation back is known: its undos stand in the layers of the journal. They are applied here
//! out of their turn, and each is announced like any other act, with what takes *it* back: where the new plan fails,
//! the package comes back, and runs. Where everything is uninstalled, it comes back for a moment and goes again.
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use branchline_protocol::{
    catalogue::{CommandLine, PayloadFormat, StepAction},
    plan::{Plan, PlannedPackage, Step},
};

use super::{
    acts::{Act, acts, is_same},
    deb,
    error::StepError,
    files,
    host::Host,
    journal::Layer,
    plans, service, tar,
    undo::{self, Before, Undo},
    work::Work,
};

/// One undo of a package's installation.
struct Part {
    undo: Undo,
    /// The program that it is the undo of, if it is one.
    line: Option<CommandLine>,
    /// Whether it belongs to the start of the package's service.
    of_start: bool,
}

/// What an undo is about. Of one package's undos the oldest leads to what was there before it, and of several packages' the
/// last one to write has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Path(PathBuf),
    Service(String),
    Unit(String),
    Package(String),
    Program,
    Units,
}

impl Subject {
    fn of(undo: &Undo) -> Option<Self> {
        Some(match undo {
            Undo::Path { path, .. } | Undo::OwnFile { path, .. } => Self::Path(path.clone()),
            Undo::Supervised { name, .. } => Self::Service(name.clone()),
            Undo::SystemdUnit { unit, .. } => Self::Unit(unit.clone()),
            Undo::PurgePackage { name } | Undo::RemovePackage { name } | Undo::ReinstallPackage { name, .. } => {
                Self::Package(name.clone())
            }
            Undo::Command(_) => Self::Program,
            Undo::SystemdReload => Self::Units,
            // Users own files elsewhere; what scripts of a package left is its data; and what is final stays. All of them but
            // the last go when everything is uninstalled.
            Undo::User { .. } | Undo::Watched { .. } | Undo::Found { .. } | Undo::Final { .. } => return None,
        })
    }

    fn is_shared(&self) -> bool {
        matches!(self, Self::Path(_) | Self::Service(_) | Self::Unit(_))
    }
}

/// An undo with the act that it takes back, and the number of its layer.
struct Record<'p> {
    layer: usize,
    act: Act<'p>,
    undo: Undo,
}

impl Record<'_> {
    fn is_of(&self, package: &PlannedPackage) -> bool {
        self.act.installs().is_some_and(|installed| is_same(installed, package))
    }
}

/// All undos of these layers that belong to a package, oldest first.
fn records<'p>(layers: &[Layer], plans: &'p [Plan]) -> Vec<Record<'p>> {
    let mut records = Vec::new();
    for (layer, (of_layer, plan)) in layers.iter().zip(plans).enumerate() {
        let before = layer.checked_sub(1).and_then(|before| plans.get(before));
        for (step, undo) in &of_layer.undos {
            let act = acts(plan, before).into_iter().nth((*step as usize).wrapping_sub(1));
            records.extend(act.map(|act| Record { layer, act, undo: undo.clone() }));
        }
    }
    records
}

/// Paths and services that another package has had last than this one.
fn taken_by_others(records: &[Record<'_>], package: &PlannedPackage) -> BTreeSet<Subject> {
    let mut owners: BTreeMap<Subject, bool> = BTreeMap::new();
    for record in records.iter().filter(|record| record.act.installs().is_some()) {
        let shared = Subject::of(&record.undo).filter(Subject::is_shared);
        owners.extend(shared.map(|subject| (subject, record.is_of(package))));
    }
    owners.into_iter().filter(|(_, own)| !own).map(|(subject, _)| subject).collect()
}

fn load_plans(host: &Host, layers: &[Layer]) -> Result<Vec<Plan>, StepError> {
    Ok(layers.iter().map(|layer| plans::load(host, layer.plan)).collect::<Result<Vec<_>, _>>()?)
}

/// Removes `package`, which the plan in force has installed.
///
/// # Errors
/// Something does not go, or cannot be kept for the way back.
pub fn remove(work: &mut Work<'_>, package: &PlannedPackage) -> Result<(), StepError> {
    let parts = parts(work, package)?;
    take_out(work, package, parts)
}

/// Stops the service of `package` for good: the package stays, in another version without it.
///
/// # Errors
/// As for [`remove`].
pub fn retire(work: &mut Work<'_>, package: &PlannedPackage) -> Result<(), StepError> {
    let parts = parts(work, package)?.into_iter().filter(|part| part.of_start).collect();
    take_out(work, package, parts)
}

/// The undos of a package's installation over all layers that it was in without a break: services first, then programs,
/// then the newest first.
fn parts(work: &Work<'_>, package: &PlannedPackage) -> Result<Vec<Part>, StepError> {
    let layers = work.layers();
    let plans = load_plans(work.host(), &layers)?;
    // The last layer is the one under way.
    let installed = plans.len().saturating_sub(1);
    let has_it = |plan: &Plan| plan.packages.iter().any(|other| is_same(other, package));
    let since = plans[..installed].iter().rposition(|plan| !has_it(plan)).map_or(0, |before| before + 1);
    let records = records(&layers, &plans);
    let others = taken_by_others(&records, package);
    let own = |record: &&Record<'_>| record.layer >= since && record.layer < installed && record.is_of(package);
    let newest = records.iter().filter(own).map(|record| record.layer).max();
    let mut seen = BTreeSet::new();
    let (mut services, mut programs, mut rest) = (Vec::new(), Vec::new(), Vec::new());
    for record in records.iter().filter(own).filter(|record| counts(record)) {
        let Some(subject) = Subject::of(&record.undo).filter(|subject| !others.contains(subject)) else { continue };
        match subject {
            // Only the newest version's programs are there.
            Subject::Program if Some(record.layer) == newest => programs.push(part(record)),
            Subject::Program => {}
            subject if !seen.insert(subject.clone()) => {}
            Subject::Service(_) | Subject::Unit(_) => services.push(part(record)),
            _ => rest.push(part(record)),
        }
    }
    Ok(services.into_iter().rev().chain(programs.into_iter().rev()).chain(rest.into_iter().rev()).collect())
}

/// Of a Debian package only dpkg knows what belongs to it; the database that the first package needed is not its own, but
/// directories that were there before it are put back.
fn counts(record: &Record<'_>) -> bool {
    let is_deb = matches!(record.act, Act::Deb(_));
    match &record.undo {
        Undo::Path { before, .. } => !is_deb || matches!(before, Before::Directory { .. }),
        Undo::OwnFile { .. } => !is_deb,
        _ => true,
    }
}

fn part(record: &Record<'_>) -> Part {
    let line = match &record.act {
        Act::Tar(_, step) => match &step.action {
            StepAction::RunCommand(line) => Some(line.clone()),
            _ => None,
        },
        _ => None,
    };
    // A process that the installer looks after is nobody else's: what ran before it under its name was another version's.
    let undo = match &record.undo {
        Undo::Supervised { name, .. } => Undo::Supervised { name: name.clone(), previous: None },
        undo => undo.clone(),
    };
    Part { undo, line, of_start: matches!(record.act, Act::Start(..)) }
}

/// Takes parts out in their order. What is at their paths is kept first, all at once.
fn take_out(work: &mut Work<'_>, package: &PlannedPackage, parts: Vec<Part>) -> Result<(), StepError> {
    let host = work.host();
    let mut announced = false;
    for part in parts.iter() {
        let not_removed = |fault| StepError::NotRemoved { name: package.name.clone(), fault };
        match &part.undo {
            Undo::Path { .. } | Undo::OwnFile { .. } if announced => {}
            Undo::Path { .. } | Undo::OwnFile { .. } => {
                let paths = parts.iter().filter_map(|part| match &part.undo {
                    Undo::Path { path, .. } | Undo::OwnFile { path, .. } => Some(path),
                    _ => None,
                });
                let undos = paths.map(|path| undo::observe(host, path)).collect::<Result<Vec<_>, _>>()?;
                work.intend_all(undos)?;
                announced = true;
            }
            Undo::Supervised { name, .. } => {
                let previous = host.supervisor().record(name).map(Box::new);
                work.intend(Undo::Supervised { name: name.clone(), previous })?;
            }
            Undo::SystemdUnit { unit, .. } => {
                // On the way back the unit's file comes first, then systemd reads it, then the unit starts.
                work.intend_all(vec![service::systemd_state(unit), Undo::SystemdReload])?;
            }
            Undo::Command(_) => {
                work.intend_all(part.line.clone().into_iter().map(Undo::Command).collect())?;
                // The version that had this program may be the last that did; the package goes all the same.
                if let Err(fault) = part.undo.apply(host, &mut |text| work.output(text)) {
                    work.output(&fault);
                }
                continue;
            }
            Undo::SystemdReload => {}
            undo => {
                deb::leave_out(work, package.image, undo)?;
                continue;
            }
        }
        part.undo.apply(host, &mut |text| work.output(text)).map_err(not_removed)?;
    }
    Ok(())
}

/// Removes what the earlier version of an archive has put under `prefix` and this one has not. What the plan writes there
/// itself stays, and what another package has put there.
///
/// # Errors
/// Something does not go, or cannot be kept for the way back.
pub fn remove_leftovers(work: &mut Work<'_>, package: &PlannedPackage, prefix: &str) -> Result<(), StepError> {
    let unpacks = |step: &Step| step.action == StepAction::Unpack { prefix: prefix.to_owned() };
    let earlier = work.earlier(package).filter(|earlier| {
        earlier.format == PayloadFormat::Tar && earlier.image != package.image && earlier.steps.iter().any(unpacks)
    });
    let Some(earlier) = earlier else { return Ok(()) };
    let host = work.host();
    let layers = work.layers();
    let plans = load_plans(host, &layers)?;
    let others = taken_by_others(&records(&layers, &plans), package);
    let of_steps = package.steps.iter().filter_map(|step| match &step.action {
        StepAction::WriteFile { path, .. } | StepAction::CreateDirectory { path, .. } => Some(Path::new(path)),
        _ => None,
    });
    let written: BTreeSet<&Path> = package.files.iter().map(|file| Path::new(&file.path)).chain(of_steps).collect();
    let mut left = tar::leftovers(&host.image(earlier.image), &host.image(package.image), Path::new(prefix))?;
    left.retain(|path| !written.contains(path.as_path()) && !others.contains(&Subject::Path(path.clone())));
    let places = left.iter().map(|path| host.root().place(path)).collect::<Result<Vec<_>, _>>()?;
    let undos = left.iter().map(|path| undo::observe(host, path)).collect::<Result<Vec<_>, _>>()?;
    work.intend_all(undos)?;
    for place in &places {
        match fs::symlink_metadata(place) {
            Ok(metadata) if metadata.is_dir() => undo::remove_empty(place, &mut |text| work.output(text))?,
            Ok(_) => files::remove_if_there(place)?,
            Err(_) => {}
        }
    }
    if !left.is_empty() {
        work.output(&format!("{} paths of {} {} are removed", left.len(), earlier.name, earlier.version));
    }
    Ok(())
}
