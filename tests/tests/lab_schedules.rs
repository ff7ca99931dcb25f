//! Limits by the clock, by node and by rollout (R71): a window that begins while a transfer runs, `[host]` and `[[rollouts]]`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::thread::sleep;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use branchline_tests::site::{SITE, Site, SiteOptions};
use branchline_tests::{payload, return_without_lab};
use serde_json::Value;

/// How long the transfer is measured on each side of the boundary.
const MEASURE: Duration = Duration::from_secs(8);
/// What a transfer needs to begin, and what a new rate may take to hold.
const SETTLE: Duration = Duration::from_secs(3);
/// More than crosses in all: 80 s at the rate outside the window, and what follows.
const MEGABYTES: u32 = 100;

fn publish_rules(site: &Site, version: u64, rules: &str) -> Result<()> {
    let (file, bundle) = (site.path("bandwidth.toml"), site.path("bundle").display().to_string());
    std::fs::write(&file, format!("site = \"{SITE}\"\nversion = {version}\ntime_zone = \"UTC\"\n{rules}\n"))?;
    let file = file.display().to_string();
    site.headquarters(&["publish", "--bandwidth", &file, "--bundle", &bundle]).map(drop)
}

fn wall() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// A time of day, by UTC.
fn time_of_day(minute: u64) -> String {
    format!("{:02}:{:02}", minute / 60 % 24, minute % 60)
}

/// Bytes per second of the transfer: at least, and at most. The meter is read at some moment while it is asked.
fn rate_between(site: &Site, time: Duration) -> Result<(f64, f64)> {
    let sent = || -> Result<u64> { Ok(site.traffic()?.iter().map(|pack| pack.sent_bytes).sum()) };
    let (asked, before, answered) = (Instant::now(), sent()?, Instant::now());
    sleep(time);
    let (shortest, after) = (answered.elapsed(), sent()?);
    let bytes = (after - before) as f64;
    Ok((bytes / asked.elapsed().as_secs_f64(), bytes / shortest.as_secs_f64()))
}

fn is_about(what: &str, (least, most): (f64, f64), bytes_per_second: f64) {
    let (least, most) = (least / bytes_per_second, most / bytes_per_second);
    println!("{what}: {least:.3} to {most:.3} of the rate");
    assert!(most >= 0.85 && least <= 1.08, "{what}: {least:.3} to {most:.3} of the rate");
}

#[test]
fn lab_a_window_that_begins_during_a_transfer_changes_its_rate() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::generated(made.path(), "ballast", MEGABYTES, ":", "false")?];
    let options = SiteOptions::new("blwindow", 1, packages);
    let site = Site::up(&SiteOptions { rules: String::new(), ..options })?;
    site.publish()?;
    site.wait_until(60, "the station knows the catalogue", || {
        Ok(site.node("station", &["packs", "show", "ballast"]).is_ok())
    })?;
    // The first minute's boundary before which there is time to see the rate outside the window.
    let minute = (wall() + SETTLE + MEASURE + Duration::from_secs(20)).as_secs() / 60 + 1;
    let (from, to) = (time_of_day(minute), time_of_day(minute + 10));
    let window = format!("{{ days = \"daily\", from = \"{from}\", to = \"{to}\", rate = \"2mbit\" }}");
    publish_rules(&site, 1, &format!("[line]\nrate = \"6mbit\"\nwindows = [{window}]"))?;
    let shows = |rate: &str| {
        let status: Value = site.node_json("station", &["status"])?;
        let lines = status["bandwidth"].as_array().context("no bandwidth")?;
        Ok(lines.iter().any(|line| line["limit"] == "line from headquarters" && line["rate"] == rate))
    };
    site.wait_until(10, "the station knows the rules", || shows("6mbit"))?;
    site.node("station", &["packs", "stage", "ballast", "--here"])?;
    sleep(SETTLE);

    let boundary = Duration::from_secs(minute * 60);
    let before = rate_between(&site, MEASURE)?;
    assert!(wall() < boundary, "the window began while the rate before it was measured");
    is_about("before the window", before, 6e6 / 8.0);
    assert!(shows("6mbit")?, "not before its time");
    sleep(boundary.saturating_sub(wall()) + SETTLE);
    let within = rate_between(&site, MEASURE)?;
    is_about("in the window", within, 2e6 / 8.0);
    assert!(shows("2mbit")?, "status shows the rate that holds now");
    let traffic = site.traffic()?.remove(0);
    assert!(traffic.sent_bytes < traffic.length_bytes, "it is under way all the time: {traffic:?}");
    Ok(())
}

/// Seconds that a machine needs to get a package, and those that it needs at the rate.
fn seconds(site: &Site, machine: &str, package: &str, megabytes: u32, rate: f64) -> Result<(f64, f64)> {
    let begun = Instant::now();
    site.node(machine, &["packs", "stage", package, "--here"])?;
    site.node(machine, &["packs", "wait", package])?;
    let (seconds, at_rate) = (begun.elapsed().as_secs_f64(), f64::from(megabytes << 20) * 8.0 / rate);
    println!("{package} to {machine}: {seconds:.1} s, {at_rate:.1} s at the rate");
    Ok((seconds, at_rate))
}

fn keeps_to((seconds, at_rate): (f64, f64)) {
    assert!(seconds >= at_rate * 0.95, "faster than the limit: {seconds:.1} s instead of {at_rate:.1}");
    assert!(seconds <= at_rate * 1.5 + 3.0, "much slower than the limit: {seconds:.1} s instead of {at_rate:.1}");
}

#[test]
fn lab_limits_of_nodes_and_of_rollouts_are_kept() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = [("first", 6), ("second", 6), ("slow", 2)]
        .map(|(name, megabytes)| payload::generated(made.path(), name, megabytes, ":", "false"))
        .into_iter()
        .collect::<Result<_>>()?;
    let options = SiteOptions::new("bllimits", 1, packages);
    let site = Site::up(&SiteOptions { rules: String::new(), ..options })?;
    site.publish()?;
    let token = site.token("station", 1)?;
    site.start_host("host1", &token)?;
    for machine in ["station", "host1"] {
        site.wait_until(60, "it knows the catalogue", || Ok(site.node(machine, &["packs", "show", "slow"]).is_ok()))?;
    }
    let knows = |machine: &str, limit: &str, rate: &str| {
        site.wait_until(20, "the rules are known", || {
            let status: Value = site.node_json(machine, &["status"])?;
            let lines = status["bandwidth"].as_array().context("no bandwidth")?;
            Ok(lines.iter().any(|line| line["limit"] == limit && line["rate"] == rate))
        })
    };

    publish_rules(&site, 1, "[[rollouts]]\npackage = \"slow\"\nrate = \"2mbit\"")?;
    // Headquarters looks its rules up every second.
    sleep(SETTLE);
    keeps_to(seconds(&site, "station", "slow", 2, 2e6)?);
    // What is no part of the rollout has the line's 20 Mbit/s.
    let (quick, at_rate) = seconds(&site, "station", "first", 6, 2e6)?;
    assert!(quick < at_rate / 2.0, "the rollout's limit is not the line's: {quick:.1} s");
    seconds(&site, "station", "second", 6, 20e6)?;

    publish_rules(&site, 2, "[host]\ndownload = { rate = \"8mbit\" }")?;
    knows("host1", "download of every node", "8mbit")?;
    keeps_to(seconds(&site, "host1", "first", 6, 8e6)?);
    publish_rules(&site, 3, "[host]\nupload = { rate = \"8mbit\" }")?;
    knows("station", "upload of every node", "8mbit")?;
    keeps_to(seconds(&site, "host1", "second", 6, 8e6)?);
    // With no limit the same link carries it in half a second or so: it was the limits that took the time.
    publish_rules(&site, 4, "")?;
    for machine in ["station", "host1"] {
        site.wait_until(20, "the limits are over", || {
            let status: Value = site.node_json(machine, &["status"])?;
            let lines = status["bandwidth"].as_array().context("no bandwidth")?;
            Ok(lines.iter().all(|line| line["rate"] != "8mbit"))
        })?;
    }
    let (quick, at_rate) = seconds(&site, "host1", "slow", 2, 8e6)?;
    assert!(quick < at_rate, "the limits are over: {quick:.1} s");
    Ok(())
}
