//! Only the ports that packages declare are reachable through a mapping (R94): a router's filter sees to it, and the
//! product notices where it does not.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use branchline_tests::site::{SITE, Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

const FILTERED: [&str; 2] = ["host1", "host2"];
/// A host with a listener of its own, and its port.
const OPEN: &str = "host3";
/// The port of its listener.
const PORT: &str = "2222";

#[test]
fn lab_undeclared_ports() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::node_exporter(made.path())?];
    let site = Site::up(&SiteOptions::new("blports", FILTERED.len() + 1, packages))?;
    site.publish()?;
    let token = site.token("station", FILTERED.len() + 1)?;
    for host in FILTERED {
        listen(&site, host)?;
        site.start_host(host, &token)?;
    }
    // The same listener behind a filter that passes the agents' port only is nobody's business.
    site.wait_for("station", 120, "two complete behind the filter", |sessions| count_at(sessions, "complete") == 2)?;
    let html = site.node("station", &["report", FILTERED[0]])?;
    ensure!(html.contains("besides, 3 in number: none answers."), "the report does not say what was tried:\n{html}");
    println!("behind the filter: {}", last_lines(&site, FILTERED[0])?);

    site.lab().pass("all")?;
    listen(&site, OPEN)?;
    site.start_host(OPEN, &token)?;
    let refused = site.wait_for_stage("station", 120, OPEN, "attention")?;
    println!("opened: {}", refused.reason);
    let inside = site.lab().address(OPEN)?;
    let wanted =
        format!("ports {PORT}, 7400, 7401 of {inside} answer through the mapping, but no package declares them");
    ensure!(refused.reason.contains(&wanted), "{}", refused.reason);
    ensure!(refused.reason.contains(&format!("pass only 9100/tcp to {inside}")), "{}", refused.reason);
    ensure!(!refused.verified && !refused.has_report, "{refused:?}");
    site.wait_until(30, "the router has no row for it", || Ok(mapped_inside(&site)?.iter().all(|a| *a != inside)))?;

    // An operator who knows of it has it reported: the same session goes on.
    publish_report(&site)?;
    site.node("station", &["sessions", "retry", OPEN])?;
    let reported = site.wait_for_stage("station", 60, OPEN, "complete")?;
    ensure!(reported.verified && reported.mapped.is_some(), "{reported:?}");
    let shown: serde_json::Value = site.node_json("station", &["sessions", "show", OPEN])?;
    ensure!(shown["findings"].to_string().contains(&wanted), "{shown}");
    let status: serde_json::Value = site.node_json("station", &["status"])?;
    ensure!(status["findings"].to_string().contains(&format!("{OPEN}: {wanted}")), "{status}");
    let html = site.node("station", &["report", OPEN])?;
    ensure!(html.contains("besides, 3 in number: 3 of them answer."), "the report lacks what answered:\n{html}");
    ensure!(html.contains(&wanted), "the report lacks the finding:\n{html}");
    println!("reported: {}", status["findings"]);
    Ok(())
}

/// Another program of the host that listens on the network.
fn listen(site: &Site, host: &str) -> Result<()> {
    let program = format!(
        "use Socket; socket(S, PF_INET, SOCK_STREAM, 0); setsockopt(S, SOL_SOCKET, SO_REUSEADDR, 1); \
         bind(S, sockaddr_in({PORT}, INADDR_ANY)) or die; listen(S, 8); accept(C, S) while 1"
    );
    site.lab().spawn(host, "other", &["perl", "-e", &program])?;
    let ready = ["bash", "-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{PORT}")];
    site.wait_until(10, "the other program listens", || Ok(site.lab().exec(host, &ready)?.status.success()))
}

fn mapped_inside(site: &Site) -> Result<Vec<String>> {
    Ok(site.lab().nat_table()?.forwarding.inbound.into_iter().map(|mapping| mapping.local).collect())
}

/// Publishes a policy under which undeclared ports are findings, and waits until the station has it.
fn publish_report(site: &Site) -> Result<()> {
    let file = site.path("report.toml");
    std::fs::write(&file, format!("site = \"{SITE}\"\nversion = 7\nundeclared_ports = \"report\"\n"))?;
    let (file, bundle) = (file.display().to_string(), site.path("bundle").display().to_string());
    site.headquarters(&["publish", "--bundle", &bundle, "--policy", &file])?;
    site.wait_until(30, "the station has the policy", || {
        let status: serde_json::Value = site.node_json("station", &["status"])?;
        Ok(status["sites"][0]["policy_version"] == 7)
    })
}

/// The lines of a session's history from its mapping to its end, for people to read the times of.
fn last_lines(site: &Site, host: &str) -> Result<String> {
    let shown: serde_json::Value = site.node_json("station", &["sessions", "show", host])?;
    let lines = shown["history"].as_array().context("a session has no history")?;
    let lines = lines.iter().map(|line| format!("{} {}", line["at"], line["text"])).collect::<Vec<_>>();
    Ok(lines[lines.len().saturating_sub(7)..].join(" | "))
}
