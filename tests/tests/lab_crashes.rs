//! Processes that end without a word, in the middle of things, and come back.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use branchline_protocol::limits::LEASED_BYTES_DEFAULT;
use branchline_tests::resumption::{Interrupted, kept_bytes, received};
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};

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
    let mut kept = BTreeMap::new();
    for (pack, bytes) in kept_bytes(&site.lab().log("station", "run")?)? {
        let sent = crossed.iter().find(|traffic| traffic.pack == pack).context("a pack that is in no catalogue")?;
        kept.insert(pack, (sent.sent_bytes, bytes));
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
    let before = received(&site.account(VICTIM)?);
    for traffic in site.traffic()? {
        assert!(before.get(&traffic.pack).is_some_and(|bytes| *bytes >= traffic.length_bytes), "{before:?}");
    }
    site.lab().kill(VICTIM, "installer", "KILL")?;
    site.lab().kill(VICTIM, "run", "KILL")?;
    let status = site.lab().check(VICTIM, &["dpkg-query", "-W", "-f", "${db:Status-Status}", "ballast"])?;
    println!("{VICTIM} is killed while ballast is {status:?}, after it got {before:?}");
    assert!(status.starts_with("half-") || status == "unpacked", "not in the middle of installing: {status}");
    std::thread::sleep(std::time::Duration::from_secs(1));
    let written = received(&site.written_account(VICTIM)?);
    site.start_installer(VICTIM).context("starting the installer again")?;
    site.start_node(VICTIM)?;
    Ok(written)
}

/// The new process of the host that was killed goes on with the account that the old one had written, and adds nothing:
/// it had all frames.
fn fetches_nothing_twice(site: &Site, written: &BTreeMap<String, u64>) -> Result<()> {
    let at_the_end = received(&site.account(VICTIM)?);
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

/// A pack that needs some seconds at the rate of a host's port, so that there is a middle of fetching.
const MEGABYTES: u32 = 32;
const PORT_MBIT: u32 = 40;
const PORT_BYTES_PER_SECOND: f64 = PORT_MBIT as f64 * 1e6 / 8.0;

#[test]
fn lab_crashes_of_a_host_that_fetches_from_its_site() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::generated(made.path(), "ballast", MEGABYTES, ":", "false")?];
    let mut options = SiteOptions { rules: String::new(), ..SiteOptions::new("blmidway", 1, packages) };
    (options.lab.wan_rate, options.lab.lan_rate) = ("100mbit".to_owned(), format!("{PORT_MBIT}mbit"));
    let site = Site::up(&options)?;
    site.publish()?;
    let token = site.token("station", 1)?;
    site.start_host(VICTIM, &token)?;
    for machine in ["station", VICTIM] {
        let knows = || Ok(site.node(machine, &["packs", "show", "ballast"]).is_ok());
        site.wait_until(60, "it knows the catalogue", knows)?;
    }
    site.node("station", &["packs", "stage", "ballast", "--here"])?;
    site.node("station", &["packs", "wait", "ballast"])?;
    let pack = site.traffic()?.remove(0);
    assert_eq!(pack.sent_bytes, pack.length_bytes);

    site.node(VICTIM, &["packs", "stage", "ballast", "--here"])?;
    let here = || site.bytes_here(VICTIM, "ballast");
    site.wait_until(60, "the host has half of the pack", || Ok(here()? >= pack.length_bytes / 2))?;
    let had = here()?;
    site.lab().kill(VICTIM, "run", "KILL")?;
    assert!(had < pack.length_bytes, "too late for a crash in the middle");
    let interrupted = Interrupted::read(&site, VICTIM, &pack, had)?;
    site.start_node(VICTIM)?;
    site.node(VICTIM, &["packs", "wait", "ballast"])?;
    interrupted.went_on(&site, PORT_BYTES_PER_SECOND)?;
    assert_eq!(site.traffic()?.remove(0).sent_bytes, pack.length_bytes, "nothing came over the line again");

    let image = |machine: &str| -> Result<Vec<u8>> {
        site.node(machine, &["packs", "export", &pack.pack, "--out", "/var/lib/branchline/image"])?;
        Ok(std::fs::read(site.home(machine)?.join("image"))?)
    };
    let whole = image("station")?;
    assert!(whole.len() as u64 > u64::from(MEGABYTES) << 20, "{} bytes", whole.len());
    assert!(image(VICTIM)? == whole, "the image is not the one that the station has");
    Ok(())
}
