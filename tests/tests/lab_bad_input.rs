//! What an operator or a machine can get wrong: each has a clear reason, and nothing is lost.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use branchline_tests::site::{Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};

#[test]
fn lab_bad_input() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let failing =
        payload::generated(made.path(), "failing", 1, "echo no such till >&2; exit 3", "host.hostname == 'host2'")?;
    let large = payload::generated(made.path(), "large", 8, "true", "host.hostname == 'host1'")?;
    let packages = vec![payload::node_exporter(made.path())?, failing, large];
    let site = Site::up(&SiteOptions::new("blbad", 4, packages))?;
    site.publish()?;
    tokens(&site)?;
    let token = site.token("station", 2)?;
    // There is no room for the large package where it wants to go.
    let full = ["mount", "-t", "tmpfs", "-o", "size=4m", "small", "/opt"];
    site.lab().check("host1", &full)?;
    for host in ["host1", "host2"] {
        site.start_host(host, &token)?;
    }
    failing_package(&site)?;
    full_disk(&site)?;
    two_machines(&site)
}

/// A token that nobody made, and one that was used.
fn tokens(site: &Site) -> Result<()> {
    let token = site.token("station", 1)?;
    let mut wrong = token.clone();
    let last = if wrong.pop() == Some('a') { 'b' } else { 'a' };
    wrong.push(last);
    let said = site.join("host3", &wrong).err().context("a wrong token lets a host in")?.to_string();
    println!("wrong token: {}", said.lines().last().unwrap_or_default());
    site.start_host("host3", &token)?;
    let said = site.join("host4", &token).err().context("a used token lets a second host in")?.to_string();
    println!("used token: {}", said.lines().last().unwrap_or_default());
    assert!(said.contains("used"), "{said}");
    Ok(())
}

/// Its maintainer script fails: everything is put back, also the package that was installed before it.
fn failing_package(site: &Site) -> Result<()> {
    let session = site.wait_for_stage("station", 90, "host2", "rolled_back")?;
    println!("failing package: {}", session.reason);
    assert!(session.reason.contains("failing"), "{session:?}");
    let state = |package: &str| {
        let command = format!("dpkg-query -W -f '${{db:Status-Status}}' {package} 2>/dev/null || true");
        site.lab().check("host2", &["sh", "-c", &command])
    };
    for package in ["failing", "prometheus-node-exporter"] {
        assert_ne!(state(package)?, "installed", "{package} is left over");
    }
    assert!(!site.lab().exec("host2", &["test", "-e", "/opt/failing/data"])?.status.success());
    Ok(())
}

/// The disk is full in the middle: the same, and after room was made the host is tried again.
fn full_disk(site: &Site) -> Result<()> {
    let session = site.wait_for_stage("station", 90, "host1", "rolled_back")?;
    println!("full disk: {}", session.reason);
    site.lab().check("host1", &["mount", "-o", "remount,size=64m", "/opt"])?;
    site.node("station", &["sessions", "retry", "host1"])?;
    site.wait_for_stage("station", 90, "host1", "complete").context("after room was made").map(drop)
}

/// The disk of host3 is copied to host4, which has another machine identifier and another address (R99): the copy is
/// turned away, host3 goes on, and station, headquarters and the copy say so.
fn two_machines(site: &Site) -> Result<()> {
    let words = "one identity on two machines";
    site.wait_for_stage("station", 90, "host3", "complete")?;
    let home = "var/lib/branchline";
    let (from, to) = (site.lab().root("host3")?.join(home), site.lab().root("host4")?.join(home));
    let copied = std::process::Command::new("cp").arg("-aT").args([&from, &to]).status()?;
    assert!(copied.success());
    // Its node.toml still names host3's address, which host4 does not have: the process ends and says so.
    let said = site.start_node("host4").err().context("a copy listens at an address that it does not have")?;
    let said = format!("{said:#}");
    println!("copy as it is: {}", said.lines().find(|line| line.contains("error: ")).unwrap_or_default());
    assert!(said.contains("error: listening at 10.1.1.3:7400") && said.contains("Cannot assign"), "{said}");
    site.configure_router("host4")?;
    site.lab().wait("host4", "run", 10)?;
    site.start_node("host4")?;
    let says = |status: serde_json::Value| Ok(status["notices"].to_string().contains(words));
    site.wait_until(30, "the station tells of a copy", || says(site.node_json("station", &["status"])?))?;
    site.wait_until(30, "the copy tells why it is refused", || says(site.node_json("host4", &["status"])?))?;
    site.wait_until(30, "headquarters tells of a copy", || says(site.headquarters_json(&["status"])?))?;
    let present = site.sessions("station")?;
    let host3 = present.iter().find(|session| session.host_name == "host3").context("no session")?;
    assert_eq!((host3.stage.as_str(), host3.mapped.is_some()), ("complete", true), "{host3:?}");
    assert!(host3.warnings.iter().any(|text| text.contains(words)), "{host3:?}");
    println!("two machines: {}", host3.warnings[0]);
    Ok(())
}
