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
    plan::PlannedPackage,
};

use super::{
    acts::{Act, acts},
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
}

/// What two undos of one package are about: only the older one leads to what was there before the package.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Path(PathBuf),
    Service(String),
    Unit(String),
    Package(String),
    Command(String, Vec<String>),
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
            Undo::Command(line) => Self::Command(line.program.clone(), line.arguments.clone()),
            Undo::SystemdReload => Self::Units,
            // Users own files elsewhere; what scripts of a package left is its data; and what is final stays. All of them but
            // the last go when everything is uninstalled.
            Undo::User { .. } | Undo::Watched { .. } | Undo::Found { .. } | Undo::Final { .. } => return None,
        })
    }
}

/// Removes `package`, which the plan in force has installed.
///
/// # Errors
/// Something does not go, or cannot be kept for the way back.
pub fn remove(work: &mut Work<'_>, package: &PlannedPackage) -> Result<(), StepError> {
    for part in parts(work.host(), work.committed(), package)? {
        take_out(work, package, part)?;
    }
    Ok(())
}

/// The undos of a package's installation over all layers that it was in without a break: services first, then the newest
/// first.
fn parts(host: &Host, layers: &[Layer], package: &PlannedPackage) -> Result<Vec<Part>, StepError> {
    let plans = layers.iter().map(|layer| plans::load(host, layer.plan)).collect::<Result<Vec<_>, _>>()?;
    let is_it = |other: &PlannedPackage| (&other.name, other.format) == (&package.name, package.format);
    let since = plans.iter().rposition(|plan| !plan.packages.iter().any(is_it)).map_or(0, |before| before + 1);
    // The last owner of every path; another package may have written there since.
    let mut owners: BTreeMap<PathBuf, bool> = BTreeMap::new();
    let mut found = Vec::new();
    for (index, (layer, plan)) in layers.iter().zip(&plans).enumerate() {
        let acts = acts(plan, index.checked_sub(1).and_then(|before| plans.get(before)));
        for (step, undo) in &layer.undos {
            let act = acts.get((*step as usize).wrapping_sub(1));
            let own = act.is_some_and(|act| act.installs().is_some_and(is_it)) && index >= since;
            if let Undo::Path { path, .. } | Undo::OwnFile { path, .. } = undo {
                owners.insert(path.clone(), own);
            }
            found.extend(act.filter(|act| own && counts(act, undo)).map(|act| part(act, undo)));
        }
    }
    found.retain(|part| match Subject::of(&part.undo) {
        Some(Subject::Path(path)) => owners.get(&path) == Some(&true),
        subject => subject.is_some(),
    });
    let mut seen = BTreeSet::new();
    // The oldest of each subject, but the newest of each program: it is the one that is there now.
    let (programs, mut rest): (Vec<Part>, Vec<Part>) =
        found.into_iter().partition(|part| matches!(part.undo, Undo::Command(_)));
    rest.retain(|part| Subject::of(&part.undo).is_some_and(|subject| seen.insert(subject)));
    let mut programs: Vec<Part> = programs.into_iter().rev().collect();
    programs.retain(|part| Subject::of(&part.undo).is_some_and(|subject| seen.insert(subject)));
    let (mut ordered, rest): (Vec<Part>, Vec<Part>) = rest.into_iter().rev().partition(|part| is_service(&part.undo));
    ordered.extend(programs);
    ordered.extend(rest);
    Ok(ordered)
}

fn is_service(undo: &Undo) -> bool {
    matches!(undo, Undo::Supervised { .. } | Undo::SystemdUnit { .. })
}

/// Of a Debian package only dpkg knows what belongs to it; the database that the first package needed is not its own, but
/// directories that were there before it are put back.
fn counts(act: &Act<'_>, undo: &Undo) -> bool {
    let is_deb = matches!(act, Act::Deb(_));
    match undo {
        Undo::Path { before, .. } => !is_deb || matches!(before, Before::Directory { .. }),
        Undo::OwnFile { .. } => !is_deb,
        _ => true,
    }
}

fn part(act: &Act<'_>, undo: &Undo) -> Part {
    let line = match act {
        Act::Tar(_, step) => match &step.action {
            StepAction::RunCommand(line) => Some(line.clone()),
            _ => None,
        },
        _ => None,
    };
    Part { undo: undo.clone(), line }
}

fn take_out(work: &mut Work<'_>, package: &PlannedPackage, part: Part) -> Result<(), StepError> {
    let host = work.host();
    match &part.undo {
        Undo::Path { path, .. } | Undo::OwnFile { path, .. } => work.intend(undo::observe(host, path)?)?,
        Undo::Supervised { name, .. } => {
            let previous = host.supervisor().record(name).map(Box::new);
            work.intend(Undo::Supervised { name: name.clone(), previous })?;
        }
        Undo::SystemdUnit { unit, .. } => {
            // On the way back the unit's file comes first, then systemd reads it, then the unit starts.
            work.intend_all(vec![service::systemd_state(unit), Undo::SystemdReload])?;
        }
        Undo::Command(_) => work.intend_all(part.line.into_iter().map(Undo::Command).collect())?,
        undo => {
            deb::leave_out(work, package.image, undo)?;
            if !matches!(undo, Undo::SystemdReload) {
                return Ok(());
            }
        }
    }
    let applied = part.undo.apply(host, &mut |text| work.output(text));
    applied.map_err(|fault| StepError::NotRemoved { name: package.name.clone(), fault })
}

/// Removes what the earlier version of an archive has put under `prefix` and this one has not. What the plan writes there
/// itself stays.
///
/// # Errors
/// Something does not go, or cannot be kept for the way back.
pub fn remove_leftovers(work: &mut Work<'_>, package: &PlannedPackage, prefix: &str) -> Result<(), StepError> {
    let unpacks =
        |step: &branchline_protocol::plan::Step| step.action == StepAction::Unpack { prefix: prefix.to_owned() };
    let earlier = work.earlier(&package.name).filter(|earlier| {
        earlier.format == PayloadFormat::Tar && earlier.image != package.image && earlier.steps.iter().any(unpacks)
    });
    let Some(earlier) = earlier else { return Ok(()) };
    let host = work.host();
    let written: BTreeSet<&Path> = package.files.iter().map(|file| Path::new(&file.path)).collect();
    let left = tar::leftovers(&host.image(earlier.image), &host.image(package.image), Path::new(prefix))?;
    let mut count = 0;
    for path in left.iter().filter(|path| !written.contains(path.as_path())) {
        let place = host.root().place(path)?;
        let Ok(metadata) = fs::symlink_metadata(&place) else { continue };
        let undo = undo::observe(host, path)?;
        work.intend(undo)?;
        if metadata.is_dir() {
            undo::remove_empty(&place, &mut |text| work.output(text))?;
        } else {
            files::remove_if_there(&place)?;
        }
        count += 1;
    }
    if count > 0 {
        work.output(&format!("{count} paths of {} {} are removed", earlier.name, earlier.version));
    }
    Ok(())
}
