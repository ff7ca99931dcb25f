//! `branchline demo`: the whole path on one machine, with real parts and no privileges.
//!
//! | module | holds |
//! | --- | --- |
//! | `network` | loopback addresses that no other demo uses |
//! | `roots` | the hosts' root directories |
//! | `payload` | what is installed |
//! | `processes` | the children: started, watched, ended |
//! | `waiting` | deadline and signals |
//! | `site` | sets the site up by the commands that an operator gives |
//! | `observed` | what the site's nodes say |
//! | `progress`, `outcome` | what people and programs see |
//! | `router` | a router of our own, a process like the others |
mod network;
mod observed;
mod outcome;
mod payload;
mod processes;
mod progress;
mod roots;
pub mod router;
mod site;
mod waiting;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, anyhow, ensure};
use branchline_protocol::session::Stage;

use self::{
    observed::{Session, Traffic},
    outcome::{HostOutcome, Outcome},
    processes::{Processes, log_tail},
    progress::{Progress, stage_name},
    site::Site,
    waiting::{PAUSE, Watchdog},
};
pub use self::{payload::FailingAgent, processes::end_with_parent};
use crate::config::open_input;

/// After this the demo fails, with a few seconds more for each host.
const LIMIT: Duration = Duration::from_secs(110);
const LIMIT_FOR_EACH_HOST: Duration = Duration::from_secs(2);
/// How long the demo waits for the report of a host that did not become complete.
const PATIENCE_WITH_FAILED: Duration = Duration::from_secs(5);
/// Lines of a log that a failure shows.
const LOG_LINES: usize = 4;

/// What the command line asks for.
#[derive(Clone, Debug)]
pub struct Options {
    /// Hosts, 1 to 50.
    pub hosts: u8,
    /// A file to install beside the sample agent.
    pub payload: Option<PathBuf>,
    /// An agent that is told to fail.
    pub fail_agent: Option<FailingAgent>,
    /// Leave everything running.
    pub keep: bool,
    /// Print JSON.
    pub json: bool,
}

/// Runs the demo; true if every host is complete.
///
/// # Errors
/// It could not be carried out; the message says where it hung, and where the logs are.
pub fn run(options: &Options) -> Result<bool> {
    if let Some(file) = &options.payload {
        open_input("the payload", file)?;
    }
    if let Some(failing) = &options.fail_agent {
        let names: Vec<String> = (1..=options.hosts).map(site::host_name).collect();
        ensure!(names.contains(&failing.host), "{} is none of the demo's hosts: {}", failing.host, names.join(", "));
    }
    let limit = LIMIT + LIMIT_FOR_EACH_HOST * u32::from(options.hosts);
    let watchdog = Watchdog::start(limit)?;
    let directory = tempfile::Builder::new().prefix("branchline-demo-").tempdir().context("making a directory")?.keep();
    let site = match Site::plan(&directory, options.hosts) {
        Ok(site) => site,
        Err(error) => {
            let _ = fs::remove_dir_all(&directory);
            return Err(error);
        }
    };
    let program = std::env::current_exe().context("finding this program's own file")?;
    let mut processes = Processes::new(program.clone(), site.path("logs"), options.keep);
    let mut progress = Progress::new(options.json);
    let carried = carry_out(&site, options, &program, &mut processes, &mut progress, &watchdog);
    let seconds = watchdog.elapsed().as_secs_f64();
    let sessions = observed::sessions(&site);
    let traffic = observed::traffic(&site).unwrap_or_default();
    progress.finish();
    let outcome = outcome(&site, &sessions, traffic, seconds);
    if options.json {
        println!("{}", serde_json::to_string_pretty(&outcome)?);
    } else if !sessions.is_empty() {
        print!("{}", outcome.text());
    }
    match carried {
        Ok(()) if options.keep => {
            let stop = write_stop(&site, &processes)?;
            processes.release();
            eprint!("{}", where_to_look(&site, &stop));
        }
        Ok(()) => {
            processes.end();
            remove_all_but_reports(&site);
        }
        Err(error) => {
            processes.end();
            return Err(failure(error, &site, &outcome));
        }
    }
    Ok(outcome.is_complete())
}

fn carry_out(
    site: &Site,
    options: &Options,
    program: &Path,
    processes: &mut Processes,
    progress: &mut Progress,
    watchdog: &Watchdog,
) -> Result<()> {
    progress.step("Making keys, a charter, and a signed catalogue with this program as the payload");
    let packing = site.found(processes, options, program)?;
    progress.step("Starting headquarters, a router and the station");
    site.start_center(processes, watchdog)?;
    let (token, owner) = site.token(processes, watchdog)?;
    for number in 0..options.hosts {
        progress.step(&format!("{} joins and surveys itself", site.hosts[usize::from(number)]));
        watchdog.check(processes, "the hosts to join")?;
        site.start_host(processes, number, &token, &owner)?;
        progress.show(&observed::sessions(site));
    }
    progress.step("Packing and signing the payload");
    processes.finish(packing)?;
    site.publish(processes)?;
    progress.step("Hosts select, spread, install; headquarters approves; the router maps; both sides verify");
    follow(site, processes, progress, watchdog)
}

/// Waits until every session has ended, and headquarters and hosts have what belongs to a complete one.
fn follow(site: &Site, processes: &mut Processes, progress: &mut Progress, watchdog: &Watchdog) -> Result<()> {
    loop {
        let sessions = observed::sessions(site);
        progress.show(&sessions);
        if sessions.len() == site.hosts.len() && sessions.values().all(|session| session.stage.is_end()) {
            break;
        }
        watchdog.check(processes, "every host to be complete")?;
        std::thread::sleep(PAUSE);
    }
    let ended = observed::sessions(site);
    let complete = |name: &&String| ended.get(*name).is_some_and(|session| session.stage == Stage::Complete);
    let complete: Vec<&String> = site.hosts.iter().filter(complete).collect();
    let reports = |name: &String| site.host_home(name).join("reports/report.html");
    let all_there = || {
        let is_there = complete.iter().all(|name| reports(name).exists());
        (is_there && observed::targets(site) == complete.len()).then_some(())
    };
    watchdog.wait(processes, all_there, "the reports on the hosts, and the hosts in service discovery")?;
    let patience = watchdog.elapsed() + PATIENCE_WITH_FAILED;
    while !site.hosts.iter().all(|name| reports(name).exists()) && watchdog.elapsed() < patience {
        watchdog.check(processes, "the reports of the hosts that failed")?;
        std::thread::sleep(PAUSE);
    }
    for name in site.hosts.iter().filter(|name| reports(name).exists()) {
        let to = site.path("reports").join(format!("{name}.html"));
        fs::copy(reports(name), &to).with_context(|| format!("copying the report to {}", to.display()))?;
    }
    match ended.values().find(|session| session.stage != Stage::Complete) {
        Some(session) => {
            Err(anyhow!("{} ended as {}: {}", session.host_name, stage_name(session.stage), session.reason))
        }
        None => Ok(()),
    }
}

fn outcome(site: &Site, sessions: &BTreeMap<String, Session>, traffic: Traffic, seconds: f64) -> Outcome {
    let reports = site.path("reports");
    let hosts = site.hosts.iter().map(|name| HostOutcome::of(name, sessions.get(name), &reports)).collect();
    Outcome::new(hosts, traffic, seconds)
}

/// Which host hung where and why, and where more is written.
fn failure(error: anyhow::Error, site: &Site, outcome: &Outcome) -> anyhow::Error {
    let mut text = error.to_string();
    for host in outcome.hosts.iter().filter(|host| !host.is_complete()) {
        let reason = if host.reason.is_empty() { "under way".to_owned() } else { host.reason.clone() };
        text.push_str(&format!("\n  {}: {} ({reason})", host.name, host.state));
        for line in log_tail(&site.path(&format!("logs/{}.log", host.name)), LOG_LINES) {
            text.push_str(&format!("\n      {line}"));
        }
    }
    text.push_str(&format!("\nEverything is ended; logs and homes are kept in {}", site.directory.display()));
    error.context(text)
}

fn remove_all_but_reports(site: &Site) {
    let Ok(entries) = fs::read_dir(&site.directory) else { return };
    for path in entries.flatten().map(|entry| entry.path()).filter(|path| !path.ends_with("reports")) {
        let _ = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
    }
}

/// A script that ends a demo that was kept running.
fn write_stop(site: &Site, processes: &Processes) -> Result<PathBuf> {
    let path = site.path("stop");
    let numbers: Vec<String> = processes.numbers().iter().map(u32::to_string).collect();
    let numbers = numbers.join(" ");
    let script = format!(
        "#!/bin/sh\n# Ends the processes of this demo, by their own numbers, and removes its directory.\n\
         for process in {numbers}; do kill -s TERM -- \"-$process\" 2>/dev/null; done\n\
         for look in $(seq 150); do\n    alive=0\n    for process in {numbers}; do\n        \
         kill -s 0 -- \"-$process\" 2>/dev/null && alive=1\n    done\n    [ $alive = 0 ] && break\n    sleep 0.1\ndone\n\
         rm -rf -- '{}'\n",
        site.directory.display()
    );
    crate::config::write_atomically(&path, script.as_bytes(), 0o755)?;
    Ok(path)
}

fn where_to_look(site: &Site, stop: &Path) -> String {
    let (station, headquarters) = (site.station(), site.headquarters());
    let first = &site.hosts[0];
    format!(
        "\nEverything is still running, in {directory} (the approval key lies at headquarters here, for the automatic\n\
         rule; a real site keeps it with its approvers).\n\n\
         Service discovery for Prometheus   http://{http}/targets\n\
         Hosts as headquarters knows them   http://{http}/hosts\n\
         The password for both (any user)   {headquarters}/http.token\n\
         All that the demo did              {directory}/logs/commands.log\n\n\
         branchline sessions list --home {station}\n\
         branchline sessions show {first} --home {station}\n\
         branchline nat show --home {station}\n\
         branchline status --transfers --home {headquarters}\n\
         branchline sessions withdraw {first} --home {station}\n\n\
         End it and remove it: {stop}\n",
        directory = site.directory.display(),
        http = site.network.http(),
        station = station.display(),
        headquarters = headquarters.display(),
        stop = stop.display(),
    )
}
