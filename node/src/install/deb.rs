//! Debian packages, by the system's own dpkg (R80): unattended, captured, and taken back by a purge or by the earlier
//! image.
use std::{
    fs::{self, File, OpenOptions},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::Command,
    thread,
    time::{Duration, Instant},
};

use branchline_protocol::{
    ids::{Hash, ImageId},
    plan::PlannedPackage,
};
use rustix::fs::FlockOperation;

use super::{
    error::StepError,
    exec::{self, ExecError},
    files::{self, at},
    host::{Confinement, Host, SYSTEM_PATH},
    undo::{Undo, observe},
    watch,
    work::Work,
};

/// How long one run of dpkg may take.
const DPKG_LIMIT: Duration = Duration::from_secs(1800);
/// How long another package manager may hold the database before the installation is given up.
const LOCK_LIMIT: Duration = Duration::from_secs(120);
/// What dpkg needs to find in its database's directory.
const DATABASE_DIRECTORIES: [&str; 4] = ["info", "updates", "triggers", "alternatives"];
/// Tells maintainer scripts not to start services themselves (Debian policy 9.3.3.1; 101: action forbidden).
const NO_STARTS: &str = "#!/bin/sh\n# Written by Branchline for the time of an installation.\nexit 101\n";
const NO_STARTS_PATH: &str = "/usr/sbin/policy-rc.d";

/// What the package manager says about a package.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Standing {
    Absent,
    Installed {
        version: String,
    },
    /// Removed; only its configuration is left.
    Removed,
    Other {
        status: String,
    },
}

/// The lock that apt and its like hold while they work (`lock-frontend`), held by us for the same reason.
struct FrontendLock(#[allow(dead_code)] File);

fn database(host: &Host) -> PathBuf {
    host.root().directory().join("var/lib/dpkg")
}

fn lock(host: &Host) -> Result<FrontendLock, StepError> {
    let frontend = wait_for_lock(host, "lock-frontend")?;
    // dpkg holds this one itself: one that outlived an installer that was killed has to end before anything is concluded
    // from what it leaves. The next dpkg takes the lock for itself, so it is let go at once.
    drop(wait_for_lock(host, "lock")?);
    Ok(FrontendLock(frontend))
}

fn wait_for_lock(host: &Host, name: &str) -> Result<File, StepError> {
    let path = database(host).join(name);
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o640).open(&path);
    let file = file.map_err(at("open", &path))?;
    let started = Instant::now();
    while rustix::fs::fcntl_lock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        if started.elapsed() > LOCK_LIMIT {
            return Err(StepError::PackageManagerBusy { path, seconds: LOCK_LIMIT.as_secs() });
        }
        thread::sleep(Duration::from_millis(250));
    }
    Ok(file)
}

/// dpkg on the host's root, with the environment of an unattended run.
fn dpkg(host: &Host) -> Command {
    let mut command = Command::new("dpkg");
    command.env_clear().env("PATH", SYSTEM_PATH).env("LANG", "C.UTF-8").env("HOME", "/");
    command.env("DEBIAN_FRONTEND", "noninteractive").env("DEBCONF_NONINTERACTIVE_SEEN", "true");
    command.env("DPKG_FRONTEND_LOCKED", "1").env("UCF_FORCE_CONFFOLD", "1").env("NEEDRESTART_SUSPEND", "1");
    if !host.root().is_system() {
        command.arg(format!("--root={}", host.root().directory().display()));
        command.arg(format!("--log={}", host.state().join("logs/dpkg.log").display()));
    }
    if host.confinement() == Confinement::Outside {
        command.args(["--force-script-chrootless", "--force-bad-path"]);
        if !host.is_privileged() {
            command.arg("--force-not-root");
        }
    }
    command
}

fn standing(host: &Host, name: &str) -> Result<Standing, ExecError> {
    let mut command = Command::new("dpkg-query");
    command.arg(format!("--admindir={}", database(host).display()));
    command.args(["-W", "-f", "${db:Status-Want} ${db:Status-Eflag} ${db:Status-Status} ${Version}\n", name]);
    let mut text = String::new();
    match exec::run(command, Duration::from_secs(60), &mut |line| text.push_str(line)) {
        Err(ExecError::Failed { .. }) => return Ok(Standing::Absent),
        other => other?,
    }
    let words: Vec<&str> = text.split_whitespace().collect();
    Ok(match words.as_slice() {
        [_, "ok", "installed", version] => Standing::Installed { version: (*version).to_owned() },
        [_, "ok", "not-installed", ..] => Standing::Absent,
        [_, "ok", "config-files", ..] => Standing::Removed,
        _ => Standing::Other { status: text },
    })
}

/// One field of a package's control file.
fn control_field(image: &Path, name: &str) -> Result<String, ExecError> {
    let mut command = Command::new("dpkg-deb");
    command.arg("-f").arg(image).arg(name);
    let mut text = String::new();
    exec::run(command, Duration::from_secs(60), &mut |line| text.push_str(line))?;
    Ok(text.trim().to_owned())
}

/// Whether the package has scripts that would run outside of the root with the rights of root.
fn has_scripts(image: &Path) -> Result<bool, ExecError> {
    let mut command = Command::new("dpkg-deb");
    command.arg("-I").arg(image);
    let mut found = false;
    exec::run(command, Duration::from_secs(60), &mut |line| {
        found |= ["preinst", "postinst", "prerm", "postrm"].iter().any(|script| line.trim_end().ends_with(script));
    })?;
    Ok(found)
}

fn prepare_database(work: &mut Work<'_>) -> Result<(), StepError> {
    for directory in DATABASE_DIRECTORIES {
        work.make_directory(&Path::new("/var/lib/dpkg").join(directory), 0o755, None)?;
    }
    let status = Path::new("/var/lib/dpkg/status");
    if !work.host().root().place(status)?.exists() {
        work.write_file(status, b"", 0o644, None)?;
    }
    Ok(())
}

/// Installs `package` from its verified image.
///
/// # Errors
/// dpkg fails, is busy, or the package could not be taken back.
pub fn install(work: &mut Work<'_>, package: &PlannedPackage) -> Result<(), StepError> {
    let image = work.host().image(package.image);
    let name = control_field(&image, "Package")?;
    let version = control_field(&image, "Version")?;
    if work.host().confinement() == Confinement::Chroot
        && !work.host().program("/bin/sh")?.exists()
        && has_scripts(&image)?
    {
        return Err(StepError::NoShell { name });
    }
    prepare_database(work)?;
    let _lock = lock(work.host())?;
    let undo = match standing(work.host(), &name)? {
        Standing::Absent => Undo::PurgePackage { name: name.clone() },
        Standing::Removed => Undo::RemovePackage { name: name.clone() },
        Standing::Installed { version: found } if found == version => {
            work.output(&format!("{name} {version} is installed already and stays as it is"));
            return Ok(());
        }
        Standing::Installed { version: found } => match work.earlier(package) {
            Some(earlier) => Undo::ReinstallPackage { name: name.clone(), image: earlier.image },
            None => return Err(StepError::NotOurs { name, version: found }),
        },
        Standing::Other { status } => return Err(StepError::NotOurs { name, version: status }),
    };
    for directory in bare_directories(work.host(), &image)? {
        let before = observe(work.host(), &directory)?;
        work.intend(before)?;
    }
    let watched = watch::begin(work.host())?;
    work.intend(watched.clone())?;
    work.intend(undo)?;
    forbid_starts(work)?;
    let mut command = dpkg(work.host());
    command.args(["--force-confdef", "--force-confold", "--install"]).arg(&image);
    exec::run(command, DPKG_LIMIT, &mut |line| work.output(line))?;
    files::remove_if_there(&work.host().root().place(Path::new(NO_STARTS_PATH))?)?;
    if let Some(found) = watch::end(work.host(), &watched)? {
        work.narrow(found)?;
    }
    Ok(())
}

/// The directories of an image that are here already and hold nothing but each other, as paths from the root. dpkg would
/// remove them with the package: it takes every directory away that is empty then and belongs to no other package, such
/// as the `/opt` that Debian's base-files makes and does not own.
fn bare_directories(host: &Host, image: &Path) -> Result<Vec<PathBuf>, StepError> {
    let mut command = Command::new("dpkg-deb");
    command.arg("--contents").arg(image);
    let mut listed = Vec::new();
    exec::run(command, Duration::from_secs(60), &mut |line| {
        // The root itself is there, too, as `./`.
        let path = line.split_once(" ./").map_or("", |(_, path)| path.trim_end_matches('/'));
        if line.starts_with('d') && !path.is_empty() {
            listed.push(Path::new("/").join(path));
        }
    })?;
    // What lies inside a directory is looked at before it.
    listed.sort();
    let mut bare = Vec::new();
    for directory in listed.into_iter().rev() {
        let place = host.root().place(&directory)?;
        if !fs::symlink_metadata(&place).is_ok_and(|metadata| metadata.is_dir()) {
            continue;
        }
        let entries = fs::read_dir(&place).map_err(at("list", &place))?;
        if entries.flatten().all(|entry| bare.contains(&directory.join(entry.file_name()))) {
            bare.push(directory);
        }
    }
    Ok(bare)
}

/// Has maintainer scripts leave services alone: the installer starts them, after their configuration is written. A
/// policy that the host has already is put back afterwards by the step's own undo at the latest.
fn forbid_starts(work: &mut Work<'_>) -> Result<(), StepError> {
    let place = work.host().root().place(Path::new(NO_STARTS_PATH))?;
    if place.exists() {
        work.output("the host has a policy-rc.d of its own, which decides about starts");
        return Ok(());
    }
    work.make_parents(Path::new(NO_STARTS_PATH))?;
    let content = Hash::of(NO_STARTS.as_bytes());
    work.intend(Undo::OwnFile { path: NO_STARTS_PATH.into(), content })?;
    files::write_atomically(&place, NO_STARTS.as_bytes(), 0o755)?;
    Ok(())
}

/// Removes a package with its configuration. Where its own scripts prevent that, they are set aside: a package whose
/// installation failed must not keep the host half installed.
///
/// # Errors
/// dpkg cannot remove it either way.
pub fn purge(host: &Host, name: &str, output: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    leave(host, name, "--purge", output)
}

/// Removes a package and leaves its configuration and its data; see [`purge`].
///
/// # Errors
/// As for [`purge`].
pub fn take_away(host: &Host, name: &str, output: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    leave(host, name, "--remove", output)
}

fn leave(host: &Host, name: &str, how: &str, output: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    if !database(host).exists() {
        return Ok(());
    }
    let _lock = lock(host)?;
    match standing(host, name)? {
        Standing::Absent => return Ok(()),
        Standing::Removed if how == "--remove" => return Ok(()),
        _ => {}
    }
    let leave = |output: &mut dyn FnMut(&str)| {
        let mut command = dpkg(host);
        command.args(["--force-remove-reinstreq", how, name]);
        exec::run(command, DPKG_LIMIT, output)
    };
    if let Err(error) = leave(output) {
        output(&format!("{error}; its removal scripts are set aside"));
        for script in ["prerm", "postrm"] {
            files::remove_if_there(&database(host).join("info").join(format!("{name}.{script}")))?;
        }
        leave(output)?;
    }
    Ok(())
}

/// Removes a package that a newer plan leaves out; `before` is what its installation would be taken back by. Its
/// configuration and data stay until everything is uninstalled, so that nothing is lost where the newer plan fails.
///
/// # Errors
/// dpkg fails or is busy, or the disk is full.
pub fn leave_out(work: &mut Work<'_>, image: ImageId, before: &Undo) -> Result<(), StepError> {
    let (Undo::PurgePackage { name } | Undo::RemovePackage { name } | Undo::ReinstallPackage { name, .. }) = before
    else {
        return Ok(());
    };
    let watched = watch::begin(work.host())?;
    work.intend(watched.clone())?;
    work.intend(Undo::ReinstallPackage { name: name.clone(), image })?;
    let (host, mut output) = (work.host(), |line: &str| work.output(line));
    match before {
        Undo::ReinstallPackage { image, .. } => reinstall(host, name, *image, &mut output)?,
        _ => {
            let _lock = lock(host)?;
            let mut command = dpkg(host);
            command.args(["--remove", name]);
            match exec::run(command, DPKG_LIMIT, &mut output) {
                // Another package may need it by now. Its own scripts decide here, unlike where an installation is undone.
                Err(ExecError::Failed { .. }) => output(&format!("dpkg does not remove {name}, so it stays")),
                done => done?,
            }
        }
    }
    if let Some(found) = watch::end(work.host(), &watched)? {
        work.narrow(found)?;
    }
    Ok(())
}

/// Installs the kept earlier image again.
///
/// # Errors
/// The image is gone, or dpkg fails.
pub fn reinstall(host: &Host, name: &str, image: ImageId, output: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    let image = host.image(image);
    if !image.exists() {
        return Err(StepError::NotOurs { name: name.to_owned(), version: "of an image that is gone".into() });
    }
    let _lock = lock(host)?;
    let mut command = dpkg(host);
    command.args(["--force-confdef", "--force-confold", "--force-downgrade", "--install"]).arg(&image);
    Ok(exec::run(command, DPKG_LIMIT, output)?)
}

/// Faults of the package's files as dpkg sees them, besides configuration files (those are the plan's matter).
///
/// # Errors
/// dpkg does not know the package.
pub fn faults(host: &Host, image: &Path) -> Result<Vec<String>, StepError> {
    let name = control_field(image, "Package")?;
    match standing(host, &name)? {
        Standing::Installed { .. } => {}
        other => return Ok(vec![format!("dpkg does not list {name} as installed ({other:?})")]),
    }
    let mut command = dpkg(host);
    command.args(["--verify", &name]);
    let mut faults = Vec::new();
    let result = exec::run(command, DPKG_LIMIT, &mut |line| {
        // A line is nine marks, an attribute letter (c: configuration) and the path; dpkg-verify(1).
        if !line.contains(" c /") {
            faults.push(line.to_owned());
        }
    });
    match result {
        Ok(()) | Err(ExecError::Failed { .. }) => Ok(faults),
        Err(error) => Err(error.into()),
    }
}
