//! Processes that end without a word, in the middle of things, and come back.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use branchline::bulk::{Accounts, Direction};
use branchline_protocol::limits::LEASED_BYTES_DEFAULT;
use branchline_tests::site::{Site, count_at};

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];
/// The host that is killed.
const VICTIM: &str = "host1";

#[test]
fn lab_crashes() -> Result<()> {
    // The maintainer script takes its time, so that there is a middle of installing.
    let Some(site) = Site::with_ballast("blcrash", &HOSTS, 14, "sleep 4")? else { return Ok(()) };
    site.publish()?;
    let crossing = crash_the_station(&site)?;
    let written = crash_a_host(&site)?;
    let sessions = site.wait_for("station", 180, "all complete", |sessions| count_at(sessions, "complete") == 4)?;
    for pack in site.traffic()? {
        println!(
            "pack of {} bytes: headquarters sent {} bytes, {} more than once",
            pack.length_bytes,
            pack.sent_bytes,
            pack.sent_bytes - pack.length_bytes
        );
        assert!(
            pack.sent_bytes >= pack.length_bytes && pack.sent_bytes <= pack.length_bytes + LEASED_BYTES_DEFAULT,
            "{pack:?}"
        );
        let Some((before, kept)) = crossing.get(&pack.pack) else { continue };
        let after = pack.sent_bytes - before;
        println!("the station came back with {kept} bytes; {after} crossed after that");
        assert!(after + kept <= pack.length_bytes, "a kept frame crossed again: {pack:?}");
    }
    assert!(!crossing.is_empty(), "no pack was half there when the station came back");
    fetches_nothing_twice(&site, &written)?;
    packages_are_whole(&site)?;
    let inbound = site.lab().nat_table()?.forwarding.inbound;
    let inside: BTreeSet<_> = inbound.iter().map(|mapping| mapping.local.clone()).collect();
    let outside: BTreeSet<_> = inbound.iter().map(|mapping| mapping.global.clone()).collect();
    let told: BTreeSet<_> = sessions.into_iter().filter_map(|session| session.mapped).collect();
    assert_eq!((inbound.len(), inside.len(), &outside), (4, 4, &told), "{inbound:?}");
    let rows = site.lab().nat_table()?.snmp.context("the router tells no rows")?;
    assert!(rows.len() == 4 && rows.iter().all(|row| row.status == "active"), "{rows:?}");
    println!("four mappings, none doubled: {outside:?}");
    Ok(())
}

/// Ends the station when about half of the payload has come over the line. Gives, for every pack that it has a part of when it
/// comes back, the bytes that had crossed by then and the bytes that it kept.
fn crash_the_station(site: &Site) -> Result<BTreeMap<String, (u64, u64)>> {
    let half = site.traffic()?.iter().map(|pack| pack.length_bytes).sum::<u64>() / 2;
    let sent = || -> Result<u64> { Ok(site.traffic()?.iter().map(|pack| pack.sent_bytes).sum()) };
    site.wait_until(60, "half of the payload is in the site", || Ok(sent()? >= half))?;
    let at = sent()?;
    site.lab().kill("station", "run", "KILL")?;
    println!("the station is killed after {at} of {} bytes", 2 * half);
    assert!(at < 2 * half, "too late for a crash in the middle: {at} bytes");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let crossed = site.traffic()?;
    site.start_node("station")?;
    let log = site.lab().log("station", "run")?;
    let told = |line: &str, name: &str| {
        let value = line.split_once(&format!(" {name}="))?.1.split_whitespace().next()?;
        Some(value.to_owned())
    };
    let mut kept = BTreeMap::new();
    for line in log.lines().filter(|line| line.contains("a pack goes on from what is kept")) {
        let (pack, bytes) = told(line, "pack").zip(told(line, "kept_bytes")).with_context(|| line.to_owned())?;
        let sent = crossed.iter().find(|traffic| traffic.pack == pack).context("a pack that is in no catalogue")?;
        kept.insert(pack, (sent.sent_bytes, bytes.parse()?));
    }
    Ok(kept)
}

/// Ends both processes of a host while its package manager works. Gives the account that its new network process goes on
/// from: the frame bytes of each pack.
fn crash_a_host(site: &Site) -> Result<BTreeMap<String, u64>> {
    let at_work =
        || Ok(site.lab().exec(VICTIM, &["test", "-e", "/var/lib/dpkg/info/ballast.postinst"])?.status.success());
    site.wait_until(90, "the package manager works at host1", at_work)?;
    // It installs what it has got as a whole: every byte of it is kept.
    let before = received(&asked(site)?);
    for traffic in site.traffic()? {
        assert!(before.get(&traffic.pack).is_some_and(|bytes| *bytes >= traffic.length_bytes), "{before:?}");
    }
    site.lab().kill(VICTIM, "installer", "KILL")?;
    site.lab().kill(VICTIM, "run", "KILL")?;
    let status = site.lab().check(VICTIM, &["dpkg-query", "-W", "-f", "${db:Status-Status}", "ballast"])?;
    println!("{VICTIM} is killed while ballast is {status:?}, after it got {before:?}");
    assert!(status.starts_with("half-") || status == "unpacked", "not in the middle of installing: {status}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let file = site.lab().root(VICTIM)?.join("var/lib/branchline/accounts.json");
    let written = received(&serde_json::from_slice(&std::fs::read(file).context("reading the host's accounts")?)?);
    site.start_installer(VICTIM).context("starting the installer again")?;
    site.start_node(VICTIM)?;
    Ok(written)
}

/// The victim's account as it tells it.
fn asked(site: &Site) -> Result<Accounts> {
    let mut answer: serde_json::Value = site.node_json(VICTIM, &["status", "--transfers"])?;
    Ok(serde_json::from_value(answer["transfers"].take())?)
}

/// Frame bytes that came in, by pack, over the line and from inside the site.
fn received(accounts: &Accounts) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for (key, transfer) in accounts.transfers.iter().filter(|(key, _)| key.direction == Direction::Received) {
        *sums.entry(key.pack.to_string()).or_default() += transfer.bytes;
    }
    sums
}

/// The new process of the host that was killed goes on with the account that the old one had written, and adds nothing:
/// it had all frames.
fn fetches_nothing_twice(site: &Site, written: &BTreeMap<String, u64>) -> Result<()> {
    let at_the_end = received(&asked(site)?);
    assert_eq!(&at_the_end, written, "{VICTIM} got frames that it had kept");
    println!("{VICTIM} went on from {written:?} and fetched nothing more");
    Ok(())
}

/// Whatever the kills interrupted, dpkg has nothing to complain of, on any host.
fn packages_are_whole(site: &Site) -> Result<()> {
    for host in HOSTS {
        assert_eq!(site.lab().check(host, &["dpkg", "--audit"])?, "", "{host}");
        for package in ["ballast", "prometheus-node-exporter"] {
            let status = site.lab().check(host, &["dpkg-query", "-W", "-f", "${Status}", package])?;
            assert_eq!(status, "install ok installed", "{package} on {host}");
        }
        assert_eq!(site.lab().check(host, &["dpkg", "--verify", "ballast"])?, "", "{host}");
    }
    Ok(())
}
