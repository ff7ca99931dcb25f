//! Processes that end without a word, in the middle of things, and come back.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use branchline_protocol::limits::LEASED_BYTES_DEFAULT;
use branchline_tests::site::{Site, count_at};

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];

#[test]
fn lab_crashes() -> Result<()> {
    // The maintainer script takes its time, so that there is a middle of installing.
    let Some(site) = Site::with_ballast("blcrash", &HOSTS, 14, "sleep 4")? else { return Ok(()) };
    site.publish()?;
    let crossing = crash_the_station(&site)?;
    crash_a_host(&site)?;
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

/// Ends both processes of a host while its package manager works.
fn crash_a_host(site: &Site) -> Result<()> {
    let victim = "host1";
    let at_work =
        || Ok(site.lab().exec(victim, &["test", "-e", "/var/lib/dpkg/info/ballast.postinst"])?.status.success());
    site.wait_until(90, "the package manager works at host1", at_work)?;
    site.lab().kill(victim, "installer", "KILL")?;
    site.lab().kill(victim, "run", "KILL")?;
    let status = site.lab().check(victim, &["sh", "-c", "dpkg-query -W -f '${db:Status-Status}' ballast || true"])?;
    println!("{victim} is killed while ballast is {status:?}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    site.start_installer(victim).context("starting the installer again")?;
    site.start_node(victim)
}
