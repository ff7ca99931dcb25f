//! Hosts on which systemd runs: the product's own units, an agent that is a unit of its own package, a broken one that is
//! rolled back, a power cut, an update that fails, and a withdrawal (R84, R86, R87, R97, R98).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use branchline_tests::site::{Site, SiteOptions};
use branchline_tests::{payload, required, return_without_lab, systemd};

const GOOD: &str = "host1";
const BAD: &str = "host4";
const AGENT: &str = "prometheus-node-exporter";
/// A program that starts and ends at once, in a unit that the installer writes.
const BROKEN: &str = "printf '#!/bin/sh\\necho no licence for this till\\nexit 1\\n' >/opt/broken/run; chmod 755 \
                      /opt/broken/run";
const SERVICE: &str = "\n[service]\nname = \"broken\"\nprogram = \"/opt/broken/run\"\n\n[health]\nport = \
                       9300\nhttp_path = \"/\"\ntimeout_seconds = 5\n";

#[test]
fn lab_systemd() -> Result<()> {
    return_without_lab!(Ok(()));
    if let Some(reason) = systemd::obstacle()? {
        required::skip("machines that boot systemd", &reason);
        return Ok(());
    }
    let made = tempfile::tempdir()?;
    let broken = payload::generated(made.path(), "broken", 1, BROKEN, &format!("host.hostname == '{BAD}'"))?;
    let definition = std::fs::read_to_string(&broken.0)?;
    std::fs::write(&broken.0, definition + SERVICE)?;
    let packages = vec![payload::node_exporter(made.path())?, broken];
    let mut options = SiteOptions::new("blunits", 4, packages);
    options.lab.systemd = vec![GOOD.to_owned(), BAD.to_owned()];
    let site = Site::up(&options)?;
    for host in [GOOD, BAD] {
        site.wait_until(120, &format!("systemd on {host} has booted"), || {
            Ok(site.systemctl_says(host, &["is-system-running"])? == "running")
        })?;
    }
    let token = site.token("station", 2)?;
    site.start_host_by_units(GOOD, &token)?;
    site.start_host_by_units(BAD, &token)?;
    site.publish()?;
    runs_as_a_unit(&site)?;
    the_installer_has_no_network(&site)?;
    is_rolled_back(&site)?;
    power_cut(&site)?;
    a_failed_update_brings_the_agent_back(&site)?;
    withdraw(&site)
}

fn runs_as_a_unit(site: &Site) -> Result<()> {
    site.wait_for_stage("station", 120, GOOD, "complete").with_context(|| site.said_of(GOOD, AGENT))?;
    is_active(site)?;
    let process = site.systemctl_says(GOOD, &["show", "--property=MainPID", "--value", AGENT])?;
    let group = site.lab().check(GOOD, &["cat", &format!("/proc/{process}/cgroup")])?;
    ensure!(group.contains(&format!("/system.slice/{AGENT}.service")), "systemd does not run it: {group}");
    let arguments = site.lab().check(GOOD, &["cat", &format!("/proc/{process}/cmdline")])?.replace('\0', " ");
    println!("{GOOD}: {arguments}(process {process})");
    ensure!(arguments.contains("--web.max-requests="), "the survey's thresholds are not there: {arguments}");
    Ok(())
}

fn is_active(site: &Site) -> Result<()> {
    for unit in [AGENT, "branchline", "branchline-installer"] {
        let said =
            (site.systemctl_says(GOOD, &["is-active", unit])?, site.systemctl_says(GOOD, &["is-enabled", unit])?);
        ensure!(said == ("active".to_owned(), "enabled".to_owned()), "{said:?}: {}", site.said_of(GOOD, unit));
    }
    Ok(())
}

/// The privileged half reaches this host's own addresses, for the health check, and nobody else (R87).
fn the_installer_has_no_network(site: &Site) -> Result<()> {
    let (own, station) = (site.lab().address(GOOD)?, site.lab().address("station")?);
    for (service, address, port, expected) in [
        ("branchline", &station, 7400, true),
        ("branchline-installer", &station, 7400, false),
        ("branchline-installer", &station, 7443, false),
        ("branchline-installer", &own, 9100, true),
        ("branchline-installer", &"127.0.0.1".to_owned(), 9100, true),
    ] {
        let reached = site.reaches(GOOD, service, address, port)?;
        ensure!(reached == expected, "{service} to {address}:{port}: {reached}");
    }
    Ok(())
}

/// The agent of the first package runs when the second one's does not start: both go, and systemd knows neither any more.
fn is_rolled_back(site: &Site) -> Result<()> {
    let session =
        site.wait_for_stage("station", 120, BAD, "rolled_back").with_context(|| site.said_of(BAD, "broken"))?;
    println!("{BAD}: {}", session.reason);
    ensure!(session.reason.contains("broken"), "{session:?}");
    for unit in ["broken", AGENT] {
        let said = site.systemctl_says(BAD, &["show", "--property=LoadState,ActiveState", "--value", unit])?;
        ensure!(said == "not-found\ninactive", "{unit}: {said:?}: {}", site.said_of(BAD, unit));
        let links = format!("find /etc/systemd /run/systemd/system /usr/lib/systemd -name '{unit}*'");
        let left = site.lab().check(BAD, &["sh", "-c", &links])?;
        ensure!(left.is_empty(), "{unit} left {left}");
    }
    let failed = site.systemctl_says(BAD, &["--failed", "--plain", "--no-legend"])?;
    ensure!(failed.is_empty(), "systemd still tells of {failed}");
    ensure!(site.systemctl_says(BAD, &["is-system-running"])? == "running", "{failed}");
    let report = site.node("station", &["report", BAD])?;
    ensure!(report.contains("no licence for this till"), "the report does not have what the agent said");
    Ok(())
}

/// The plug is pulled: systemd boots anew and brings everything back by itself.
fn power_cut(site: &Site) -> Result<()> {
    site.lab().power_off(GOOD)?;
    site.lab().power_on(GOOD)?;
    site.wait_until(60, "all services are back after a power cut", || is_active(site).map(|()| true))?;
    site.wait_until(60, "the host is at its station again", || {
        let status = site.lab().check(GOOD, &["branchline", "status", "--json"])?;
        let status: serde_json::Value = serde_json::from_str(&status)?;
        Ok(status["host"]["stage"] == "complete" && !status["neighbours"].as_array().context("none")?.is_empty())
    })
}

/// An update leaves the agent's package out and brings one whose service does not start: the agent's package, its unit and its
/// mapping are as before (R97).
fn a_failed_update_brings_the_agent_back(site: &Site) -> Result<()> {
    let wish = |package: &str, wish: &str| {
        format!(
            "[[packages]]\npackage = \"{package}\"\nwish = \"{wish}\"\nwhen = \"host.hostname == '{GOOD}'\"\n\
             reason = \"the tills get another agent\"\n"
        )
    };
    let policy = format!("site = \"lab\"\nversion = 2\n{}{}", wish(AGENT, "forbidden"), wish("broken", "wanted"));
    let (file, bundle) = (site.path("policy.toml"), site.path("bundle").display().to_string());
    std::fs::write(&file, policy)?;
    site.headquarters(&["publish", "--policy", &file.display().to_string(), "--bundle", &bundle])?;
    let session = || -> Result<branchline_tests::site::Session> {
        let sessions = site.sessions("station")?;
        sessions.into_iter().find(|session| session.host_name == GOOD).context("no session")
    };
    let target = site.targets()?.remove(GOOD).context("no target")?;
    site.wait_until(60, "the update is taken back", || {
        // The station may not have the policy yet: then the plan is the same, and is complete again at once.
        let present = session()?;
        if present.stage == "complete" {
            site.node("station", &["sessions", "update", GOOD])?;
        }
        Ok(present.stage == "rolled_back")
    })
    .with_context(|| site.said_of(GOOD, "broken"))?;
    let session = session()?;
    ensure!(session.reason.contains("broken"), "{session:?}");
    let report = site.node("station", &["report", GOOD])?;
    ensure!(report.contains(&format!("Remove {AGENT}")), "the report does not tell of the removal");
    is_active(site)?;
    let said = site.systemctl_says(GOOD, &["show", "--property=LoadState,ActiveState", "--value", "broken"])?;
    ensure!(said == "not-found\ninactive", "broken: {said:?}");
    let status = site.lab().check(GOOD, &["dpkg-query", "-W", "-f", "${db:Status-Status}", AGENT])?;
    ensure!(status == "installed", "{AGENT}: {status}");
    ensure!(site.targets()?.get(GOOD) == Some(&target), "it is not monitored as before");
    let own = site.lab().address(GOOD)?;
    ensure!(site.reaches(GOOD, "branchline-installer", &own, 9100)?, "the agent does not answer");
    Ok(())
}

fn withdraw(site: &Site) -> Result<()> {
    site.node("station", &["sessions", "withdraw", GOOD])?;
    site.wait_for_stage("station", 60, GOOD, "withdrawn")?;
    site.wait_until(60, "the agent's unit is gone", || {
        let said = site.systemctl_says(GOOD, &["show", "--property=LoadState,ActiveState", "--value", AGENT])?;
        ensure!(said == "not-found\ninactive", "{said:?}");
        Ok(true)
    })
}
