//! What an operator or a machine can get wrong: each has a clear reason, and nothing is lost.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use branchline::install::is_exception;
use branchline_protocol::charter::{JoinToken, PublicKey, Signed};
use branchline_tests::site::{Session, Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};
use ed25519_dalek::SigningKey;

/// Where the product itself keeps what it does. What else is not put back, the book lists (`is_exception`).
const OWN: [&str; 3] = [
    "/var/lib/branchline",
    "/run/branchline",
    // dpkg writes it anew with every package; what it says is asked below.
    "/var/lib/dpkg/status",
];
/// What is no disk of the host.
const NO_DISK: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];

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
    let before = (files(&site, "host1")?, files(&site, "host2")?);
    for host in ["host1", "host2"] {
        site.start_host(host, &token)?;
    }
    failing_package(&site, &before.1)?;
    full_disk(&site, &before.0)?;
    two_machines(&site)
}

/// The command fails with code 1 and one error that says `words`; the host has joined nothing, and the station knows of
/// nobody more.
fn is_not_let_in(site: &Site, what: &str, host: &str, token: &str, words: &str) -> Result<()> {
    let known = site.sessions("station")?.len();
    let line = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/usr/local/bin/branchline", "join"];
    let output = site.lab().exec(host, &[&line[..], &[token]].concat())?;
    let said = String::from_utf8_lossy(&output.stderr);
    println!("{what}: {said}");
    assert_eq!(output.status.code(), Some(1), "{what}: {said}");
    ensure!(said.starts_with("error: ") && said.contains(words), "{what} does not say {words:?}: {said}");
    assert!(!site.lab().exec(host, &["test", "-e", "/var/lib/branchline/sites"])?.status.success(), "{what}");
    assert_eq!(site.sessions("station")?.len(), known, "{what}");
    Ok(())
}

/// Tokens that are damaged, that nobody of this site made, and one that was used.
fn tokens(site: &Site) -> Result<()> {
    let token = site.token("station", 1)?;
    for host in ["host3", "host4"] {
        site.make_seat(host)?;
        site.configure_router(host)?;
    }
    let mut damaged = token.clone();
    let last = if damaged.pop() == Some('a') { 'b' } else { 'a' };
    damaged.push(last);
    let words = "the join token is damaged";
    is_not_let_in(site, "a damaged token", "host3", &damaged, words)?;
    is_not_let_in(site, "half a token", "host3", &token[..token.len() / 2], words)?;

    // The right door and the right site, but not the station's own hand; then a stranger who is honest about that.
    let (_, body) = Signed::<JoinToken>::from_text(&token)?;
    let stranger = SigningKey::from_bytes(&[9; 32]);
    let forged = JoinToken { identifier: [7; 16], ..body.clone() };
    let forged = Signed::sign(&forged, &stranger).to_text();
    is_not_let_in(site, "a forged token", "host3", &forged, "it is not signed by the station that it names")?;
    let foreign = JoinToken { identifier: [7; 16], station: PublicKey::of(&stranger).0, ..body };
    let foreign = Signed::sign(&foreign, &stranger).to_text();
    is_not_let_in(site, "a stranger's token", "host3", &foreign, "of site lab; ask its operator for one")?;

    // None of that has used up the true one.
    site.start_host("host3", &token)?;
    let words = "the token was used 1 times, as often as it may be; ask for a new one";
    is_not_let_in(site, "a used token", "host4", &token, words)
}

/// Every path of a host with its kind, mode, owner and content, without what is the product's own or never put back; and
/// every package that dpkg knows.
fn files(site: &Site, host: &str) -> Result<BTreeSet<String>> {
    let mut find = vec!["find", "/", "("];
    for path in NO_DISK {
        find.extend(["-path", path, "-o"]);
    }
    find.extend(["-false", ")", "-prune", "-o"]);
    let kinds = site.lab().check(host, &[&find[..], &["-printf", "%p\\t%y %m %U:%G %l\\n"]].concat())?;
    let hashes = site.lab().check(host, &[&find[..], &["-type", "f", "-exec", "sha256sum", "{}", "+"]].concat())?;
    let kinds = kinds.lines().filter_map(|line| line.split_once('\t'));
    let contents = hashes.lines().filter_map(|line| line.split_once("  ").map(|(hash, path)| (path, hash)));
    let is_judged = |path: &str| !is_exception(Path::new(path)) && !OWN.iter().any(|own| path.starts_with(own));
    let packages =
        site.lab().check(host, &["dpkg-query", "-W", "-f", "${Package} ${Version} ${db:Status-Status}\\n"])?;
    let packages = packages.lines().filter(|line| !line.ends_with(" not-installed")).map(|line| ("dpkg:", line));
    let found: BTreeSet<String> = kinds
        .chain(contents)
        .filter(|(path, _)| is_judged(path))
        .chain(packages)
        .map(|(path, found)| format!("{path} {found}"))
        .collect();
    ensure!(found.len() > 1000, "{host} has {} paths only", found.len());
    Ok(found)
}

/// The host is as it was before: no package is known to dpkg that was not, no file is there that was not, nothing runs.
fn is_put_back(site: &Site, host: &str, before: &BTreeSet<String>, session: &Session) -> Result<()> {
    assert_eq!((session.mapped.as_deref(), session.verified), (None, false), "{session:?}");
    for package in ["failing", "large", "prometheus-node-exporter"] {
        // dpkg has never heard of it, or knows that it is gone; a half installed one would say so.
        let output = site.lab().exec(host, &["dpkg-query", "-W", "-f", "${Status}", package])?;
        let (status, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let unknown = format!("dpkg-query: no packages found matching {package}");
        let is_gone = said.trim() == unknown || status.ends_with(" ok not-installed");
        assert!(is_gone, "{package} on {host}: {status:?} {said}");
    }
    assert_eq!(site.lab().check(host, &["dpkg", "--audit"])?, "", "{host}");
    let after = files(site, host)?;
    let (more, less): (Vec<_>, Vec<_>) = (after.difference(before).collect(), before.difference(&after).collect());
    assert_eq!((more, less), (Vec::new(), Vec::new()), "{host} is not as it was");
    assert!(site.command_lines(host, "/usr/bin/prometheus-node-exporter")?.is_empty(), "{host}");
    let inside = site.lab().address(host)?;
    assert!(site.lab().nat_table()?.forwarding.inbound.iter().all(|mapping| mapping.local != inside), "{host}");
    assert!(!site.targets()?.contains_key(host));
    Ok(())
}

/// The reason stands in the session, in the host's own status, and in the reports at the station and at headquarters.
fn is_told_everywhere(site: &Site, host: &str, words: &str) -> Result<()> {
    let session = site.wait_for_stage("station", 90, host, "rolled_back")?;
    println!("{host}: {}", session.reason);
    ensure!(session.reason.contains(words), "{session:?} does not say {words:?}");
    site.wait_until(20, &format!("{host} says why by itself"), || {
        let status: serde_json::Value = site.node_json(host, &["status"])?;
        Ok(status["host"].to_string().contains(words))
    })?;
    ensure!(site.node("station", &["report", host])?.contains(words), "the report of {host} does not say {words:?}");
    site.wait_until(30, &format!("headquarters has the report of {host}"), || {
        Ok(site.headquarters(&["report", host])?.contains(words))
    })
}

/// Its maintainer script fails: everything is put back, also the package that was installed before it.
fn failing_package(site: &Site, before: &BTreeSet<String>) -> Result<()> {
    is_told_everywhere(site, "host2", "no such till")?;
    let session = site.wait_for_stage("station", 1, "host2", "rolled_back")?;
    for words in ["ended with exit status: 1", "post-installation script subprocess returned error exit status 3"] {
        ensure!(session.reason.contains(words), "{session:?} does not say {words:?}");
    }
    is_put_back(site, "host2", before, &session)
}

/// The disk is full in the middle: the same, and after room was made the host is tried again.
fn full_disk(site: &Site, before: &BTreeSet<String>) -> Result<()> {
    is_told_everywhere(site, "host1", "No space left on device")?;
    let session = site.wait_for_stage("station", 1, "host1", "rolled_back")?;
    is_put_back(site, "host1", before, &session)?;
    site.lab().check("host1", &["mount", "-o", "remount,size=64m", "/opt"])?;
    site.node("station", &["sessions", "retry", "host1"])?;
    site.wait_for_stage("station", 90, "host1", "complete").context("after room was made")?;
    let status = site.lab().check("host1", &["dpkg-query", "-W", "-f", "${Status}", "large"])?;
    assert_eq!(status, "install ok installed");
    assert_eq!(site.lab().check("host1", &["stat", "-c", "%s", "/opt/large/data"])?.trim(), (8 << 20).to_string());
    Ok(())
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
    // Its node.toml names host3's address, which host4 does not have: it listens at its own, as a machine that has moved
    // (R116), and is turned away all the same.
    site.start_node("host4")?;
    let (own, status) = (site.lab().address("host4")?, site.node_json::<serde_json::Value>("host4", &["status"])?);
    assert!(status["addresses"].to_string().contains(&own), "{status:#}");
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
