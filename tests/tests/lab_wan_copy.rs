//! One copy over the line (R70): all hosts at once, one that comes when the line is cut, an inlet that is lost half way; and
//! the account that says why bytes crossed and who served whom (R126).
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::{thread::sleep, time::Duration};

use anyhow::{Context, Result, ensure};
use branchline_protocol::limits::LEASED_BYTES_DEFAULT;
use branchline_tests::observed::PackAccount;
use branchline_tests::resumption::Interrupted;
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

/// Beyond the frames: TCP, IP and Ethernet headers, TLS, acknowledgements of the other direction and the control plane.
const LINE_OVERHEAD: f64 = 1.12;
/// The lab's line to headquarters.
const LINE_BYTES_PER_SECOND: f64 = 20e6 / 8.0;

fn accounts(site: &Site) -> Result<Vec<PackAccount>> {
    site.headquarters_json(&["transfers"])
}

fn options(id: &str, hosts: usize, megabytes: u32, directory: &std::path::Path) -> Result<SiteOptions> {
    let packages = vec![payload::generated(directory, "ballast", megabytes, "true", "true")?];
    Ok(SiteOptions::new(id, hosts, packages))
}

#[test]
fn lab_wan_copy_at_once_and_a_day_later() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let hosts = ["host1", "host2", "host3", "host4"];
    let late = "host5";
    let site = Site::up(&options("blonce", 5, 16, made.path())?)?;
    let token = site.token("station", 5)?;
    for host in hosts {
        site.join(host, &token)?;
        site.start_installer(host)?;
    }
    // The joining is done; every node starts, and wants the pack, at the same time.
    site.publish()?;
    let before = site.lab().counters()?.wan;
    std::thread::scope(|scope| {
        let started: Vec<_> = hosts.map(|host| scope.spawn(|| site.start_node(host))).into_iter().collect();
        started.into_iter().try_for_each(|started| started.join().unwrap())
    })?;
    site.wait_for("station", 240, "all complete", |sessions| count_at(sessions, "complete") == hosts.len())?;
    let over_the_line = site.lab().counters()?.wan.received_bytes - before.received_bytes;
    let traffic = site.traffic()?.remove(0);
    println!(
        "{} hosts at once: pack of {} bytes, wan_ratio {:.4}, {over_the_line} bytes on the line's interface",
        hosts.len(),
        traffic.length_bytes,
        traffic.wan_ratio()
    );
    assert_eq!(traffic.sent_bytes, traffic.length_bytes);
    assert!(over_the_line as f64 <= traffic.length_bytes as f64 * LINE_OVERHEAD, "{over_the_line}");

    // The line is cut; a host that comes now gets all from the site (R74).
    site.lab().fault("wan-cut", "on")?;
    site.start_host(late, &token)?;
    let session = site.wait_for_stage("station", 120, late, "awaiting_approval")?;
    println!(
        "{late}, with the line cut: {} bytes over the line, {} from the site",
        session.wan_bytes, session.lan_bytes
    );
    assert_eq!((session.wan_bytes, session.lan_bytes >= traffic.length_bytes), (0, true), "{session:?}");
    site.lab().fault("wan-cut", "off")?;
    site.wait_for_stage("station", 120, late, "complete")?;
    assert_eq!(site.traffic()?.remove(0).sent_bytes, traffic.length_bytes);
    the_account_says_so(&site, traffic.length_bytes, late)
}

fn the_account_says_so(site: &Site, length: u64, late: &str) -> Result<()> {
    let account = accounts(site)?.remove(0);
    assert_eq!((account.wan_bytes, account.wan_ratio, account.remark.as_deref()), (length, Some(1.0), None));
    assert_eq!(account.line.len(), 1, "one inlet: {account:?}");
    assert!(account.line[0].why.contains("first inlet"), "{account:?}");

    let in_site = || site.node_json::<Vec<PackAccount>>("station", &["transfers"]);
    // A member that is busy for five seconds is named as one that did not answer.
    site.wait_until(60, "every member says what it has", || Ok(in_site()?[0].unanswered.is_empty()))?;
    let in_site = in_site()?;
    let account = &in_site[0];
    assert!(account.unanswered.is_empty(), "{account:?}");
    assert_eq!(account.wan_bytes, length);
    for host in ["host1", "host2", "host3", "host4", late] {
        let got: u64 = account.inside.iter().filter(|entry| entry.to == host).map(|entry| entry.bytes).sum();
        let twice: u64 =
            account.inside.iter().filter(|entry| entry.to == host).map(|entry| entry.duplicate_bytes).sum();
        assert_eq!(got - twice, length, "{host}: {account:?}");
    }
    let text = site.node("station", &["transfers"])?;
    println!("{text}");
    ensure!(text.contains("ballast 1.0") && text.contains("wan_ratio 1.0000") && text.contains("FROM"), "{text}");
    Ok(())
}

#[test]
fn lab_wan_copy_when_the_inlet_is_lost() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let hosts = ["host1", "host2", "host3", "host4"];
    let site = Site::up(&options("bllost", 4, 24, made.path())?)?;
    // The station's disk is full: it gives out leases and cannot be the inlet itself.
    site.lab().kill("station", "run", "TERM")?;
    let full = "mkdir -p /var/lib/branchline/packs && mount -t tmpfs -o size=1m,uid=65534,gid=65534 none /var/lib/branchline/packs";
    site.lab().check("station", &["sh", "-c", full])?;
    site.start_node("station")?;
    let token = site.token("station", hosts.len())?;
    for host in hosts {
        site.start_host(host, &token)?;
    }
    site.publish()?;
    let length = site.traffic()?.remove(0).length_bytes;
    site.wait_until(120, "half of the pack is in the site", || Ok(site.traffic()?.remove(0).sent_bytes >= length / 2))?;
    let inlet = accounts(&site)?.remove(0).line.pop().context("nobody is the inlet")?.to;
    let victim = hosts
        .into_iter()
        .find(|host| *host == inlet || node_of(&site, host).is_ok_and(|node| node == inlet))
        .with_context(|| format!("the inlet is {inlet}, no host"))?;
    let pack = site.traffic()?.remove(0);
    let had = site.bytes_here(victim, &pack.pack)?;
    site.lab().power_off(victim)?;
    let at = site.traffic()?.remove(0).sent_bytes;
    println!("{victim} was the inlet and lost its power after {at} of {length} bytes");
    assert!(at < length, "too late for a loss half way");
    site.wait_for("station", 240, "the others are complete", |sessions| count_at(sessions, "complete") == 3)?;
    let account = accounts(&site)?.remove(0);
    println!(
        "headquarters sent {} bytes, {} more than once; by inlets: {:?}",
        account.wan_bytes,
        account.wan_bytes - length,
        account.line
    );
    assert!((length..=length + LEASED_BYTES_DEFAULT).contains(&account.wan_bytes), "{account:?}");
    assert!(account.line.len() >= 2 && account.line[1].why.contains("had lost the lease"), "{account:?}");
    assert_eq!(account.remark.is_some(), account.wan_bytes > length, "{account:?}");

    // Its disk comes back with it, and what it had kept is not fetched again.
    site.lab().power_on(victim)?;
    let interrupted = Interrupted::read(&site, victim, &pack, had)?;
    site.start_installer(victim)?;
    site.start_node(victim)?;
    site.wait_for("station", 120, "the lost host is complete too", |sessions| count_at(sessions, "complete") == 4)?;
    interrupted.went_on(&site, LINE_BYTES_PER_SECOND)?;
    assert_eq!(accounts(&site)?.remove(0).wan_bytes, account.wan_bytes);
    sleep(Duration::from_secs(1));
    let log = site.lab().log("station", "run")?;
    ensure!(
        log.contains("No space left"),
        "the station says nothing of its full disk:\n{}",
        site.log_end("station", "run")
    );
    Ok(())
}

fn node_of(site: &Site, host: &str) -> Result<String> {
    let identity: serde_json::Value = site.node_json(host, &["identity"])?;
    Ok(identity["node"].as_str().context("no identity")?.to_owned())
}
