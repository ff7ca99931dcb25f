//! Processes that end without a word, in the middle of things, and come back.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use branchline_tests::site::{Site, count_at};

const HOSTS: [&str; 4] = ["host1", "host2", "host3", "host4"];
/// B of R70: what may be under way to a station that ends without a word, in bytes; the charter's default.
const LEASED_BYTES_MAX: u64 = 4 << 20;

#[test]
fn lab_crashes() -> Result<()> {
    // The maintainer script takes its time, so that there is a middle of installing.
    let Some(site) = Site::with_ballast("blcrash", &HOSTS, 14, "sleep 4")? else { return Ok(()) };
    site.publish()?;
    crash_the_station(&site)?;
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
            pack.sent_bytes >= pack.length_bytes && pack.sent_bytes <= pack.length_bytes + LEASED_BYTES_MAX,
            "{pack:?}"
        );
    }
    let inbound = site.lab().nat_table()?.forwarding.inbound;
    let inside: BTreeSet<_> = inbound.iter().map(|mapping| mapping.local.clone()).collect();
    let outside: BTreeSet<_> = inbound.iter().map(|mapping| mapping.global.clone()).collect();
    let told: BTreeSet<_> = sessions.into_iter().filter_map(|session| session.mapped).collect();
    assert_eq!((inbound.len(), inside.len(), &outside), (4, 4, &told), "{inbound:?}");
    println!("four mappings, none doubled: {outside:?}");
    Ok(())
}

/// Ends the station when about half of the payload has come over the line.
fn crash_the_station(site: &Site) -> Result<()> {
    let half = site.traffic()?.iter().map(|pack| pack.length_bytes).sum::<u64>() / 2;
    let sent = || -> Result<u64> { Ok(site.traffic()?.iter().map(|pack| pack.sent_bytes).sum()) };
    site.wait_until(60, "half of the payload is in the site", || Ok(sent()? >= half))?;
    let at = sent()?;
    site.lab().kill("station", "run", "KILL")?;
    println!("the station is killed after {at} of {} bytes", 2 * half);
    assert!(at < 2 * half, "too late for a crash in the middle: {at} bytes");
    std::thread::sleep(std::time::Duration::from_secs(1));
    site.start_node("station")
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
