//! The station's disk is full in the middle of a rollout: it stops and says why, rather than go on from events that may
//! be lost, and goes on where it was once there is room (bad input: a full disk; R24, R115).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Result, ensure};
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

const HOSTS: [&str; 3] = ["host1", "host2", "host3"];
/// Long enough that the disk is full before the host says that it has installed.
const STEPS: &str = "sleep 5";

#[test]
fn lab_full_journal_stops_the_station_and_nothing_is_lost() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::generated(made.path(), "steps", 1, STEPS, "true")?];
    let site = Site::up(&SiteOptions::new("bljournal", HOSTS.len(), packages))?;
    // The station's home gets a disk of its own, which a file fills up.
    site.lab().kill("station", "run", "TERM")?;
    let move_home = "cp -a /var/lib/branchline /var/kept && \
                     mount -t tmpfs -o size=64m,uid=65534,gid=65534 none /var/lib/branchline && \
                     cp -a /var/kept/. /var/lib/branchline/";
    site.lab().check("station", &["sh", "-c", move_home])?;
    site.start_node("station")?;
    let token = site.token("station", HOSTS.len())?;
    for host in HOSTS {
        site.start_host(host, &token)?;
    }
    site.publish()?;
    site.wait_for("station", 120, "a host installs", |sessions| count_at(sessions, "installing") > 0)?;
    let fill = "head -c 100M /dev/zero > /var/lib/branchline/filler";
    ensure!(!site.lab().exec("station", &["sh", "-c", fill])?.status.success(), "the disk is larger than it should be");

    ensure!(site.lab().wait("station", "run", 60)? == 74, "another exit code than that of a journal without room");
    let log = site.lab().log("station", "run")?;
    // Whichever file was to be written first: the journal, or the fence that outdated leases do not pass.
    let says_why = log.contains("No space left on device") && log.contains("the process ends");
    ensure!(says_why, "{}", site.log_end("station", "run"));
    println!("the station says: {}", log.lines().last().unwrap_or_default());

    site.lab().check("station", &["rm", "/var/lib/branchline/filler"])?;
    site.start_node("station")?;
    site.wait_for("station", 180, "all complete", |sessions| count_at(sessions, "complete") == HOSTS.len())?;
    let table = site.lab().nat_table()?;
    ensure!(table.forwarding.inbound.len() == HOSTS.len(), "rows are missing, or doubled: {table:?}");
    let traffic = site.traffic()?.remove(0);
    ensure!(traffic.sent_bytes == traffic.length_bytes, "the pack crossed the line more than once: {traffic:?}");
    Ok(())
}
