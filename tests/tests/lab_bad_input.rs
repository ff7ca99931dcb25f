//! What an operator or a machine can get wrong: each has a clear reason, and nothing is lost.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result};
use branchline_tests::lab::{Lab, Options};
use branchline_tests::payload;
use branchline_tests::site::{Session, Site, SiteOptions};

const APPROVE_ALL: &str = "[[headquarters.desk.rules]]\nname = \"all\"\naction = \"approve\"\n";

#[test]
fn lab_bad_input() -> Result<()> {
    if let Some(reason) = Lab::obstacle() {
        eprintln!("skipped, there is no site lab: {reason}");
        return Ok(());
    }
    let made = tempfile::tempdir()?;
    let failing =
        payload::generated(made.path(), "failing", 1, "echo no such till >&2; exit 3", "host.hostname == 'host2'")?;
    let large = payload::generated(made.path(), "large", 8, "true", "host.hostname == 'host1'")?;
    let options = SiteOptions {
        lab: Options { id: "blbad".to_owned(), hosts: 4, ..Options::default() },
        packages: vec![payload::node_exporter(made.path())?, failing, large],
        rules: APPROVE_ALL.to_owned(),
        charter: String::new(),
    };
    let site = Site::up(&options)?;
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
    full_disk(&site)
}

fn find<'a>(sessions: &'a [Session], host: &str) -> Option<&'a Session> {
    sessions.iter().find(|session| session.host_name == host)
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
    let sessions = site.wait_for("station", 90, "host2 is rolled back", |sessions| {
        find(sessions, "host2").is_some_and(|session| session.stage == "rolled_back")
    })?;
    let session = find(&sessions, "host2").context("no session")?;
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
    let sessions = site.wait_for("station", 90, "host1 is rolled back", |sessions| {
        find(sessions, "host1").is_some_and(|session| session.stage == "rolled_back")
    })?;
    let session = find(&sessions, "host1").context("no session")?;
    println!("full disk: {}", session.reason);
    site.lab().check("host1", &["mount", "-o", "remount,size=64m", "/opt"])?;
    site.node("station", &["sessions", "retry", "host1"])?;
    site.wait_for("station", 90, "host1 is complete after room was made", |sessions| {
        find(sessions, "host1").is_some_and(|session| session.stage == "complete")
    })
    .map(drop)
}
