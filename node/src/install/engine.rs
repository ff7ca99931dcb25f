//! Carries a plan out step by step, and takes it back (R80-R86).
use std::{collections::BTreeSet, fs, path::Path};

use branchline_protocol::{
    catalogue::{PayloadFormat, StepAction},
    ids::PlanHash,
    plan::{ConfigurationFile, HealthCheck, Plan, PlannedPackage, Service, Step, StepUndo},
    report::{EventBody, StepOutcome},
};

use super::{
    acts::{Act, acts, tar_title},
    deb,
    error::StepError,
    events::EventLog,
    files, health,
    host::Host,
    images,
    journal::{Entry, Journal, JournalError},
    plans, removal, service,
    socket::{InstalledPlan, OfferedPack},
    tar,
    undo::Undo,
    users,
    work::Work,
};

/// Undos that are applied between two entries of the journal; each may be applied again after a crash.
const UNDOS_AT_ONCE: usize = 32;
/// Ends of an agent after which its start has failed.
const ENDS_MAX: u32 = 2;
/// Space that is given back at the begin of a rollback, so that a full disk cannot prevent it, in bytes.
const BALLAST_BYTES: usize = 1 << 20;

/// How an installation ended.
#[derive(Debug)]
pub enum Ended {
    /// Installed, and the agents run.
    Installed(InstalledPlan),
    /// Failed; whether everything was put back.
    Failed {
        /// What failed.
        reason: String,
        /// Everything is as before.
        rolled_back: bool,
    },
    /// A test stopped the process in the middle.
    Stopped,
}

/// Carries `plan` out, or carries it on where a crash interrupted it. Other unfinished work is undone first.
pub fn install(host: &Host, journal: &mut Journal, events: &EventLog, plan: &Plan, packs: &[OfferedPack]) -> Ended {
    let hash = plan.hash();
    let unfinished = journal.state().unfinished.as_ref();
    if unfinished.is_some_and(|layer| layer.plan != hash || layer.rolling_back.is_some())
        && let Err(JournalError::Stopped(_)) = roll_back(host, journal, events, "another plan was ordered").0
    {
        return Ended::Stopped;
    }
    let result = carry_out(host, journal, events, plan, packs);
    match result {
        Ok(()) => {
            let installed = InstalledPlan { plan: hash, images: plan.images() };
            events.push(EventBody::Installed { plan: hash, images: installed.images.clone() });
            tidy(host, journal);
            Ended::Installed(installed)
        }
        Err(error) if error.ends_the_process() => Ended::Stopped,
        Err(error) => {
            let reason = error.to_string();
            let (journaled, rolled_back) = roll_back(host, journal, events, &reason);
            if matches!(journaled, Err(JournalError::Stopped(_))) {
                return Ended::Stopped;
            }
            events.push(EventBody::InstallFailed { reason: reason.clone(), rolled_back });
            tidy(host, journal);
            Ended::Failed { reason, rolled_back }
        }
    }
}

fn carry_out(
    host: &Host,
    journal: &mut Journal,
    events: &EventLog,
    plan: &Plan,
    packs: &[OfferedPack],
) -> Result<(), StepError> {
    let resumed = journal.state().unfinished.is_some();
    if !resumed {
        images::check_space(host, plan)?;
        plans::store(host, plan)?;
        journal.append(vec![Entry::Begun { plan: plan.hash(), images: plan.images() }])?;
    } else {
        events.push(EventBody::Note("the installer was interrupted, and carries the installation on".to_owned()));
    }
    let before = journal.state().committed.last().map(|layer| plans::load(host, layer.plan)).transpose()?;
    let acts = acts(plan, before.as_ref());
    let steps = u32::try_from(acts.len()).unwrap_or(u32::MAX);
    for (step, act) in (1..).zip(&acts) {
        if journal.state().unfinished.as_ref().is_some_and(|layer| layer.steps_done >= step) {
            continue;
        }
        undo_interrupted_step(host, journal, events, step)?;
        events.push(EventBody::StepStarted { step, steps, title: act.title() });
        let mut work = Work::new(host, journal, events);
        work.turn_to(step);
        let done = perform(&mut work, act, plan, packs);
        if let Err(error) = &done
            && !error.ends_the_process()
        {
            events.push(EventBody::StepEnded { step, outcome: StepOutcome::Failed(error.to_string()) });
        }
        done?;
        journal.append(vec![Entry::StepDone { step }])?;
        events.push(EventBody::StepEnded { step, outcome: StepOutcome::Done });
    }
    Ok(journal.append(vec![Entry::Committed])?)
}

/// A step that a crash interrupted is undone and done again: half a step is no state to build on.
fn undo_interrupted_step(host: &Host, journal: &mut Journal, events: &EventLog, step: u32) -> Result<(), StepError> {
    loop {
        let last = journal.state().unfinished.as_ref().and_then(|layer| layer.undos.last().cloned());
        let Some((_, undo)) = last.filter(|(of, _)| *of == step) else { return Ok(()) };
        let mut note = |text: &str| events.push(EventBody::Output { step, text: text.to_owned() });
        if let Err(fault) = undo.apply(host, &mut note) {
            note(&fault);
        }
        journal.append(vec![Entry::Undone])?;
    }
}

fn perform(work: &mut Work<'_>, act: &Act<'_>, plan: &Plan, packs: &[OfferedPack]) -> Result<(), StepError> {
    match act {
        Act::Payloads => plan.packages.iter().try_for_each(|package| {
            images::make(work.host(), package, packs)?;
            work.output(&format!(
                "{} {}: image {} is verified",
                package.name,
                package.version,
                package.image.0.short()
            ));
            Ok(())
        }),
        Act::Remove(package) => removal::remove(work, package),
        Act::Retire(package) => removal::retire(work, package),
        Act::Deb(package) => deb::install(work, package),
        Act::Rpm(package) => Err(StepError::Format { name: package.name.clone() }),
        Act::Tar(package, step) => perform_tar(work, package, step),
        Act::Configure(package) => package.files.iter().try_for_each(|file| configure(work, file)),
        Act::Start(_, service) => service::start(work, service),
        Act::Check(package, check) => check_health(work.host(), check, package.service.as_ref()),
    }
}

fn configure(work: &mut Work<'_>, file: &ConfigurationFile) -> Result<(), StepError> {
    work.write_file(Path::new(&file.path), file.content.as_bytes(), file.mode, file.owner.as_deref())?;
    work.output(&format!("{} is written ({} bytes)", file.path, file.content.len()));
    Ok(())
}

fn perform_tar(work: &mut Work<'_>, package: &PlannedPackage, step: &Step) -> Result<(), StepError> {
    if step.is_final() {
        work.intend(Undo::Final { title: tar_title(&step.action) })?;
    }
    match &step.action {
        StepAction::Unpack { prefix } => {
            let image = work.host().image(package.image);
            tar::unpack(work, &image, Path::new(prefix))?;
            removal::remove_leftovers(work, package, prefix)
        }
        StepAction::CreateUser { name, home } => {
            if users::find(work.host(), name)?.is_some() {
                work.output(&format!("the user {name} exists already and stays as it is"));
                return Ok(());
            }
            let group_existed = users::group_exists(work.host(), name)?;
            work.intend(Undo::User { name: name.clone(), group_existed })?;
            Ok(users::create(work.host(), name, home)?)
        }
        StepAction::CreateDirectory { path, mode, owner } => {
            work.make_directory(Path::new(path), *mode, owner.as_deref())
        }
        StepAction::WriteFile { path, mode, owner, content } => {
            work.write_file(Path::new(path), content.as_bytes(), *mode, owner.as_deref())
        }
        StepAction::RunCommand(line) => {
            if let StepUndo::RunCommand(undo) = &step.undo {
                work.intend(Undo::Command(undo.clone()))?;
            }
            Ok(work.host().run_payload_command(line, &mut |text| work.output(text))?)
        }
    }
}

/// Waits until the agent answers as it should; an agent that ends again and again is not waited for.
fn check_health(host: &Host, check: &HealthCheck, of: Option<&Service>) -> Result<(), StepError> {
    let name = of.map_or("agent", |service| service.name.as_str());
    let alive = |answered: bool| match of.map(|service| service::status(host, &service.name)) {
        Some(status) if !status.running && answered => Err("another process answers at its port".to_owned()),
        Some(status) if !status.running && status.restarts >= ENDS_MAX => {
            Err(format!("it ended by itself {} times", status.restarts + 1))
        }
        _ => Ok(()),
    };
    health::wait(check, alive).map_err(|fault| StepError::Unhealthy {
        name: name.to_owned(),
        fault,
        log: service::log_tail(host, name).join(" | "),
    })
}

/// Undoes the unfinished layer. The first result is the journal's; the second says whether everything is as before.
pub fn roll_back(
    host: &Host,
    journal: &mut Journal,
    events: &EventLog,
    reason: &str,
) -> (Result<(), JournalError>, bool) {
    drop_ballast(host);
    let mut all_back = true;
    if journal.state().unfinished.is_none() {
        return (Ok(()), all_back);
    }
    let mut journaled = journal.append(vec![Entry::RollingBack { reason: reason.to_owned() }]);
    let layer = journal.state().unfinished.clone();
    let (undos, started_before) = layer.map(|layer| (layer.undos, layer.start_anew)).unwrap_or_default();
    let mut waiting = Vec::new();
    for (index, (step, undo)) in undos.iter().enumerate().rev() {
        if matches!(journaled, Err(JournalError::Stopped(_))) {
            return (journaled, false);
        }
        let mut note = |text: &str| events.push(EventBody::Output { step: *step, text: text.to_owned() });
        if let Err(fault) = undo.apply(host, &mut note) {
            note(&fault);
            all_back = false;
        }
        waiting.push(Entry::Undone);
        let step_ends = index == 0 || undos.get(index - 1).is_some_and(|(of, _)| of != step);
        if step_ends || waiting.len() >= UNDOS_AT_ONCE {
            // On a full disk the undos go on without the journal: they free space, and may be applied again.
            journaled = journal.append(std::mem::take(&mut waiting));
        }
        if step_ends {
            events.push(EventBody::StepEnded { step: *step, outcome: StepOutcome::Undone });
        }
    }
    for (step, undo) in undos.iter().chain(&started_before) {
        let mut note = |text: &str| events.push(EventBody::Output { step: *step, text: text.to_owned() });
        if let Err(fault) = undo.start_anew(host, &mut note) {
            note(&fault);
            all_back = false;
        }
    }
    if !matches!(journaled, Err(JournalError::Stopped(_))) {
        journaled = journal.append(vec![Entry::RolledBack]);
    }
    restore_ballast(host);
    (journaled, all_back)
}

/// Removes all committed layers, the newest first (R98), or the newest where it is of the plan `only` (R97). Whether
/// everything is as before.
///
/// # Errors
/// The journal cannot be written.
pub fn uninstall(
    host: &Host,
    journal: &mut Journal,
    events: &EventLog,
    only: Option<PlanHash>,
) -> Result<bool, JournalError> {
    let mut all_back = true;
    loop {
        if journal.state().unfinished.is_some() {
            let (journaled, back) = roll_back(host, journal, events, "the plan is taken back");
            journaled?;
            all_back &= back;
        }
        let newest = journal.state().committed.last().map(|layer| layer.plan);
        if newest.is_none() || only.is_some_and(|only| newest != Some(only)) {
            tidy(host, journal);
            return Ok(all_back);
        }
        journal.append(vec![Entry::Removing])?;
    }
}

/// The post-install check from inside (R94): what was looked at, and what was not well.
pub fn check(host: &Host, plan: &Plan) -> Vec<(String, Option<String>)> {
    let mut checks = Vec::new();
    for package in &plan.packages {
        let image = host.image(package.image);
        let faults = match package.format {
            PayloadFormat::Deb => deb::faults(host, &image),
            PayloadFormat::Tar => tar_faults(host, package),
            PayloadFormat::Rpm => Ok(Vec::new()),
        };
        let faults = faults.unwrap_or_else(|error| vec![error.to_string()]);
        let fault = (!faults.is_empty()).then(|| faults.join("; "));
        checks.push((format!("files of {} {}", package.name, package.version), fault));
        checks
            .extend(package.files.iter().map(|file| (format!("configuration {}", file.path), file_fault(host, file))));
        if let Some(service) = &package.service {
            let running = service::status(host, &service.name).running;
            checks.push((format!("service {} runs", service.name), (!running).then(|| "it does not run".to_owned())));
        }
        if let Some(check) = &package.health {
            let title = format!("http://{}:{}{} answers", check.address, check.port, check.http_path);
            checks.push((title, health::ask(check).err()));
        }
    }
    checks
}

fn tar_faults(host: &Host, package: &PlannedPackage) -> Result<Vec<String>, StepError> {
    let mut faults = Vec::new();
    for step in &package.steps {
        if let StepAction::Unpack { prefix } = &step.action {
            faults.extend(tar::faults(host, &host.image(package.image), Path::new(prefix))?);
        }
    }
    // A file that the plan itself writes over the payload is judged as configuration.
    faults.retain(|fault| !package.files.iter().any(|file| fault.starts_with(&format!("{} ", file.path))));
    Ok(faults)
}

fn file_fault(host: &Host, file: &ConfigurationFile) -> Option<String> {
    let place = match host.root().place(Path::new(&file.path)) {
        Ok(place) => place,
        Err(error) => return Some(error.to_string()),
    };
    match fs::read(&place) {
        Ok(bytes) if bytes == file.content.as_bytes() => None,
        Ok(_) => Some("it was changed after the installation".to_owned()),
        Err(error) => Some(format!("it cannot be read: {error}")),
    }
}

/// Names of all services of the plan in force. What earlier plans had and this one leaves out is gone.
pub fn service_names(host: &Host, journal: &Journal) -> Vec<String> {
    let plan = journal.state().committed.last().and_then(|layer| plans::load(host, layer.plan).ok());
    let packages = plan.into_iter().flat_map(|plan| plan.packages);
    let names: BTreeSet<String> = packages.filter_map(|package| Some(package.service?.name)).collect();
    names.into_iter().collect()
}

/// Throws away images and backups that nothing refers to any more.
fn tidy(host: &Host, journal: &Journal) {
    restore_ballast(host);
    let state = journal.state();
    let layers = || state.committed.iter().chain(&state.unfinished);
    images::collect(host, &layers().flat_map(|layer| layer.images.iter().copied()).collect());
    if layers().next().is_none() {
        // Without a layer no undo refers to a backup.
        for entry in fs::read_dir(host.state().join("backup")).into_iter().flatten().flatten() {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Puts a file aside whose space a rollback gives back; without it the installer works, only with less to spare.
pub fn restore_ballast(host: &Host) {
    let place = host.state().join("ballast");
    if !place.exists() {
        let _ = files::write_atomically(&place, &vec![0x55; BALLAST_BYTES], 0o600);
    }
}

fn drop_ballast(host: &Host) {
    let _ = fs::remove_file(host.state().join("ballast"));
}

/// Whether `plan` is installed and nothing is unfinished.
pub fn is_installed(journal: &Journal, plan: PlanHash) -> bool {
    let state = journal.state();
    state.unfinished.is_none() && state.committed.last().is_some_and(|layer| layer.plan == plan)
}
