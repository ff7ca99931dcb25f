//! A full disk, a slow one and one that fails stall only the node that has it (R72).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

const FULL: &str = "host1";
const FAILING: &str = "host2";
const SLOW: &str = "host3";
const WELL: [&str; 2] = ["host4", "host5"];

#[test]
fn lab_store_faults_stall_only_the_node_that_has_them() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::generated(made.path(), "ballast", 12, "true", "true")?];
    let site = Site::up(&SiteOptions::new("bldisk", 5, packages))?;
    let token = site.token("station", 5)?;
    for host in [FULL, FAILING, SLOW].into_iter().chain(WELL) {
        site.join(host, &token)?;
        site.start_installer(host)?;
    }
    let small = "mkdir -p /var/lib/branchline/packs && mount -t tmpfs -o size=4m,uid=65534,gid=65534 none /var/lib/branchline/packs";
    site.lab().check(FULL, &["sh", "-c", small])?;
    for host in [FULL, FAILING, SLOW].into_iter().chain(WELL) {
        site.start_node(host)?;
    }
    // Only the pack's file fails: a journal that cannot be written ends the process, and that is another story.
    let file = format!("/var/lib/branchline/packs/{}.pack", site.traffic()?.remove(0).pack);
    let failing = Injection::start(&site, FAILING, "fdatasync:error=EIO", &file)?;
    let slow = Injection::start(&site, SLOW, "pwrite64:delay_enter=30000", &file)?;
    let begun = Instant::now();
    site.publish()?;
    for host in WELL {
        site.wait_for_stage("station", 120, host, "complete")?;
    }
    println!("hosts with good disks are complete after {:.1} s", begun.elapsed().as_secs_f64());
    site.wait_for_stage("station", 120, SLOW, "complete")?;
    println!("the host with the slow disk after {:.1} s", begun.elapsed().as_secs_f64());
    drop(slow);
    let sessions = site.sessions("station")?;
    for host in [FULL, FAILING] {
        let stage = &sessions.iter().find(|session| session.host_name == host).context("no session")?.stage;
        ensure!(stage == "spreading", "{host} with a bad disk is {stage}");
    }
    for (host, words) in [(FULL, "No space left"), (FAILING, "Input/output error")] {
        let log = site.lab().log(host, "run")?;
        ensure!(log.contains(words), "{host} does not say what is wrong:\n{}", site.log_end(host, "run"));
    }
    // What a failing sync may have lost does not count, and is not fetched over the line again once the disk works.
    drop(failing);
    site.lab().check(FULL, &["mount", "-o", "remount,size=64m", "/var/lib/branchline/packs"])?;
    site.wait_for("station", 120, "all complete", |sessions| count_at(sessions, "complete") == 5)?;
    println!("all are complete after {:.1} s", begun.elapsed().as_secs_f64());
    let traffic = site.traffic()?.remove(0);
    assert_eq!(traffic.sent_bytes, traffic.length_bytes);
    Ok(())
}

/// System calls of one node's network process that are made to fail or to wait, by strace from outside its machine.
struct Injection(Child);

impl Injection {
    fn start(site: &Site, host: &str, fault: &str, file: &str) -> Result<Self> {
        let process = site.network_process(host)?;
        let call = fault.split(':').next().unwrap_or_default();
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-o", "/dev/null", "-p", &process.to_string()]);
        command.args(["-P", file, "-e", &format!("trace={call}"), "-e", &format!("inject={fault}")]);
        let child =
            command.stdin(Stdio::null()).spawn().context("strace cannot be started; tests/packages.txt names it")?;
        let injection = Self(child);
        site.wait_until(20, &format!("strace is attached to {host}"), || {
            Ok(!std::fs::read_to_string(format!("/proc/{process}/status"))?.contains("TracerPid:\t0\n"))
        })?;
        Ok(injection)
    }
}

impl Drop for Injection {
    /// strace lets go of what it traces when it is told to end.
    fn drop(&mut self) {
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}
