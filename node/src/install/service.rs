//! Starts what a plan says should run: a systemd unit where systemd runs, a plain supervised process elsewhere (R84).
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use branchline_protocol::{catalogue::SystemdUnit, plan::Service};
use serde::{Deserialize, Serialize};

use super::{
    error::StepError,
    exec::{self, ExecError},
    host::{Confinement, Host},
    undo::Undo,
    users,
    work::Work,
};

/// How long systemd may take for one request.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(120);

/// A plain supervised process, with everything that its start needs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRecord {
    /// The service's name.
    pub name: String,
    /// The program that is started.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its whole environment.
    pub environment: BTreeMap<String, String>,
    /// Numbers of user and group; the installer's own where absent.
    pub user: Option<(u32, u32)>,
    /// Its working directory.
    pub directory: PathBuf,
}

/// Whether systemd manages the services of this host.
pub fn has_systemd(host: &Host) -> bool {
    host.confinement() == Confinement::System && Path::new("/run/systemd/system").is_dir()
}

/// Puts the service in place and starts it; every act is announced to the journal first.
///
/// # Errors
/// It cannot be started.
pub fn start(work: &mut Work<'_>, service: &Service) -> Result<(), StepError> {
    if has_systemd(work.host()) { start_systemd(work, service) } else { start_supervised(work, service) }
}

fn start_supervised(work: &mut Work<'_>, service: &Service) -> Result<(), StepError> {
    let record = record_of(work.host(), service)?;
    let previous = work.host().supervisor().record(&service.name).map(Box::new);
    work.intend(Undo::Supervised { name: service.name.clone(), previous })?;
    Ok(work.host().supervisor().set(record)?)
}

/// The record of a service of a plan on this host.
fn record_of(host: &Host, service: &Service) -> Result<ServiceRecord, StepError> {
    let user = match &service.user {
        None => None,
        Some(name) => {
            let found = users::find(host, name)?.or((!host.is_privileged()).then_some((0, 0)));
            Some(found.ok_or_else(|| StepError::NoUser { name: name.clone() })?)
        }
    };
    let command = host.command(&service.program, &service.arguments, user)?;
    let text = |os: &std::ffi::OsStr| os.to_string_lossy().into_owned();
    let mut environment: BTreeMap<String, String> =
        command.get_envs().filter_map(|(name, value)| Some((text(name), text(value?)))).collect();
    environment.extend(service.environment.clone());
    Ok(ServiceRecord {
        name: service.name.clone(),
        program: command.get_program().into(),
        arguments: command.get_args().map(text).collect(),
        environment,
        // In a chroot the user is changed by chroot itself, after it has entered.
        user: user.filter(|_| host.is_privileged() && host.confinement() != Confinement::Chroot),
        directory: command.get_current_dir().unwrap_or(Path::new("/")).to_owned(),
    })
}

fn start_systemd(work: &mut Work<'_>, service: &Service) -> Result<(), StepError> {
    let unit = format!("{}.service", service.name);
    if service.unit == SystemdUnit::Generated {
        work.intend(Undo::SystemdReload)?;
        let path = format!("/etc/systemd/system/{unit}");
        work.write_file(Path::new(&path), unit_text(service).as_bytes(), 0o644, None)?;
    }
    work.intend(systemd_state(&unit))?;
    for arguments in [&["daemon-reload"][..], &["enable", &unit], &["restart", &unit]] {
        if let Err(error) = systemctl(arguments, &mut |line| work.output(line)) {
            // A service that ends at once fails here already, and only its own words say why.
            log_tail(work.host(), &service.name).iter().for_each(|line| work.output(line));
            return Err(error.into());
        }
    }
    Ok(())
}

/// The text of a generated unit. Arguments are quoted by systemd's rules (`systemd.service(5)`, command lines).
fn unit_text(service: &Service) -> String {
    let mut text = format!("# Written by Branchline; changes are lost.\n[Unit]\nDescription={}\n", service.name);
    text.push_str("After=network-online.target\nWants=network-online.target\n\n[Service]\nType=exec\n");
    let line: Vec<String> =
        std::iter::once(&service.program).chain(&service.arguments).map(|word| quoted(word, true)).collect();
    // Writing into a String cannot fail.
    let _ = writeln!(text, "ExecStart={}", line.join(" "));
    if let Some(user) = &service.user {
        let _ = writeln!(text, "User={user}");
    }
    for (name, value) in &service.environment {
        let _ = writeln!(text, "Environment={}", quoted(&format!("{name}={value}"), false));
    }
    text.push_str("Restart=on-failure\nRestartSec=2\nNoNewPrivileges=yes\n\n[Install]\nWantedBy=multi-user.target\n");
    text
}

fn quoted(word: &str, command: bool) -> String {
    let escaped = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n").replace('%', "%%");
    let escaped = if command { escaped.replace('$', "$$") } else { escaped };
    format!("\"{escaped}\"")
}

fn systemctl(arguments: &[&str], output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
    let mut command = Command::new("systemctl");
    command.arg("--no-ask-password").args(arguments);
    exec::run(command, SYSTEMCTL_LIMIT, output)
}

fn systemctl_says(arguments: &[&str]) -> bool {
    systemctl(arguments, &mut |_| ()).is_ok()
}

/// What puts a unit's present state back.
pub fn systemd_state(unit: &str) -> Undo {
    Undo::SystemdUnit {
        unit: unit.to_owned(),
        active: systemctl_says(&["is-active", "--quiet", unit]),
        enabled: systemctl_says(&["is-enabled", "--quiet", unit]),
    }
}

/// Has systemd read its units again, where it runs.
///
/// # Errors
/// It refuses.
pub fn systemd_reload(output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
    if Path::new("/run/systemd/system").is_dir() { systemctl(&["daemon-reload"], output) } else { Ok(()) }
}

/// Puts the state of a unit back.
///
/// # Errors
/// systemd refuses.
pub fn systemd_restore(unit: &str, active: bool, enabled: bool, output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
    let mut state = String::new();
    systemctl(&["show", "--property=ActiveState", "--value", unit], &mut |line| line.trim().clone_into(&mut state))?;
    let is_enabled = systemctl_says(&["is-enabled", "--quiet", unit]);
    if !active && state != "inactive" {
        // Also what waits for its next start, which systemd would go on trying, and what has failed, of which it would tell
        // for ever.
        systemctl(&["stop", unit], output)?;
        systemctl_says(&["reset-failed", unit]);
    }
    if is_enabled != enabled {
        systemctl(&[if enabled { "enable" } else { "disable" }, unit], output)?;
    }
    if active && state != "active" {
        systemctl(&["start", unit], output)?;
    }
    Ok(())
}

/// Starts a unit anew.
///
/// # Errors
/// systemd refuses.
pub fn systemd_restart(unit: &str, output: &mut dyn FnMut(&str)) -> Result<(), ExecError> {
    systemctl(&["restart", unit], output)
}

/// Whether the service runs, its process where that is known, and its restarts.
pub fn status(host: &Host, name: &str) -> super::socket::ServiceStatus {
    if has_systemd(host) {
        let unit = format!("{name}.service");
        let running = systemctl_says(&["is-active", "--quiet", &unit]);
        let wanted = systemctl_says(&["is-enabled", "--quiet", &unit]);
        return super::socket::ServiceStatus { name: name.to_owned(), wanted, running, process: None, restarts: 0 };
    }
    host.supervisor().status(name).unwrap_or(super::socket::ServiceStatus {
        name: name.to_owned(),
        wanted: false,
        running: false,
        process: None,
        restarts: 0,
    })
}

/// The last lines that the service wrote, for the report of a failure.
pub fn log_tail(host: &Host, name: &str) -> Vec<String> {
    if !has_systemd(host) {
        return host.supervisor().log_tail(name);
    }
    let mut lines = Vec::new();
    // What a service said just before it ended may still wait for systemd's journal.
    let mut sync = Command::new("journalctl");
    sync.arg("--sync");
    let _ = exec::run(sync, Duration::from_secs(10), &mut |_| {});
    let mut command = Command::new("journalctl");
    command.args(["--no-pager", "-n", "12", "-o", "cat", "-u", name]);
    // A log that cannot be read is no reason to fail: the fault itself is reported.
    let _ = exec::run(command, Duration::from_secs(10), &mut |line| lines.push(line.to_owned()));
    lines
}

/// Stops or starts the services of these names and keeps them so over a restart (R92).
///
/// # Errors
/// One does not stop or start.
pub fn want_all(host: &Host, names: &[String], wanted: bool, output: &mut dyn FnMut(&str)) -> Result<(), StepError> {
    if has_systemd(host) {
        for name in names {
            let unit = format!("{name}.service");
            systemctl(&[if wanted { "enable" } else { "disable" }, "--now", &unit], output)?;
        }
        return Ok(());
    }
    Ok(host.supervisor().want_all(wanted)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_generated_unit_quotes_what_it_is_given() {
        let service = Service {
            name: "agent".into(),
            program: "/opt/agent/bin/agent".into(),
            arguments: vec!["--text".into(), "a \"b\" $HOME 100%\nExecStart=/bin/evil".into()],
            user: Some("agent".into()),
            environment: BTreeMap::from([("LEVEL".into(), "info".into())]),
            unit: SystemdUnit::Generated,
        };
        insta::assert_snapshot!(unit_text(&service));
    }
}
