//! R116 and R115 on a running site: a host's address changes while its node runs, another machine takes the old one, and
//! rows are deleted and bent in the router behind the station's back, and another member, or a machine that is none,
//! gets the address of a host that is off. What is asked is the router itself, the hosts behind it, and headquarters' list
//! of targets.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use branchline_station_role::router::table_xml;
use branchline_tests::lab::{Mapping, NatTable, Row};
use branchline_tests::site::{Site, SiteOptions, count_at};
use branchline_tests::{payload, return_without_lab};
use serde_json::Value;

/// The host whose address changes.
const MOVED: &str = "host1";
/// The machine that gets the address which the other one had.
const HEIR: &str = "host2";
/// The address that DHCP gives.
const NEW: &str = "10.1.3.77";
/// "Before the next scrape": Prometheus' scrape interval where nobody sets another is a minute, most people's is 15 s.
const SCRAPE: Duration = Duration::from_secs(15);
/// The station reads the router's table at least so often, and has a while to repair it.
const RECONCILIATION: Duration = Duration::from_secs(60 + 15);

#[test]
fn lab_address_changes_while_the_node_runs() -> Result<()> {
    return_without_lab!(Ok(()));
    let made = tempfile::tempdir()?;
    let packages = vec![payload::node_exporter(made.path())?];
    let site = Site::up(&SiteOptions::new("bladdr", 2, packages))?;
    site.publish()?;
    let token = site.token("station", 2)?;
    for host in [MOVED, HEIR] {
        site.start_host(host, &token)?;
    }
    site.wait_for("station", 150, "both complete", |sessions| count_at(sessions, "complete") == 2)?;
    site.wait_until(30, "both are targets", || Ok(site.targets()?.len() == 2))?;
    let mut places: BTreeMap<&str, String> = BTreeMap::new();
    for host in [MOVED, HEIR] {
        places.insert(host, site.lab().address(host)?);
    }
    assert_settled(&site, &places)?;
    move_and_let_another_take_the_address(&site, &mut places)?;
    delete_a_row_and_bend_another(&site, &places)?;
    the_address_of_a_host_that_is_off(&site, &mut places)?;
    a_stranger_at_the_address_of_a_host_that_is_off(&site, &places)
}

/// Where a mapped address leads, by the router's forwarding plane.
fn leads_to(table: &NatTable, mapped: &str) -> Option<String> {
    table.forwarding.inbound.iter().find(|mapping| mapping.global == mapped).map(|mapping| mapping.local.clone())
}

/// The mapped address of a host that headquarters lists.
fn listed(site: &Site, host: &str) -> Result<Option<String>> {
    Ok(site.targets()?.get(host).map(|target| target.split(':').next().unwrap_or_default().to_owned()))
}

/// The name of the machine whose agent answers at a mapped address, as a scrape from headquarters sees it.
fn who_answers(site: &Site, mapped: &str) -> Option<String> {
    let url = format!("http://{mapped}:9100/metrics");
    let said = site.lab().check("headquarters", &["curl", "-s", "--max-time", "2", &url]).ok()?;
    let line = said.lines().find(|line| line.starts_with("node_uname_info"))?;
    Some(line.split_once("nodename=\"")?.1.split('"').next()?.to_owned())
}

/// All views agree: one row for each host, in the router as in the station's list and file, and the right agent behind it.
fn assert_settled(site: &Site, places: &BTreeMap<&str, String>) -> Result<()> {
    let table = site.lab().nat_table()?;
    let sessions = site.sessions("station")?;
    let mut wanted = Vec::new();
    for session in &sessions {
        let mapped = session.mapped.clone().with_context(|| format!("{session:?} is not mapped"))?;
        assert_eq!((session.stage.as_str(), session.verified), ("complete", true), "{session:?}");
        assert_eq!(listed(site, &session.host_name)?.as_ref(), Some(&mapped), "{session:?}");
        assert_eq!(who_answers(site, &mapped).as_deref(), Some(session.host_name.as_str()), "at {mapped}");
        wanted.push(Mapping { global: mapped, local: places[session.host_name.as_str()].clone() });
    }
    wanted.sort_by(|a, b| a.global.cmp(&b.global));
    assert_eq!(table.forwarding.inbound, wanted, "the forwarding plane, inwards");
    let mut outwards = wanted.clone();
    outwards.sort_by(|a, b| a.local.cmp(&b.local));
    assert_eq!(table.forwarding.outbound, outwards, "the forwarding plane, outwards");

    let rows = table.snmp.context("the router does not answer")?;
    let pair = |row: &Row| Some((row.global.clone()?, row.local.clone()?));
    let mut by_snmp: Vec<_> = rows.iter().filter_map(pair).collect();
    by_snmp.sort();
    let wanted: Vec<_> = wanted.into_iter().map(|mapping| (mapping.global, mapping.local)).collect();
    assert!(rows.iter().all(|row| row.status == "active"), "{rows:?}");
    assert_eq!(by_snmp, wanted, "by SNMP, {} rows", rows.len());

    let shown: Value = site.node_json("station", &["nat", "show"])?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mappings = shown["mappings"].as_array().context("no mappings")?;
    assert!(mappings.iter().all(|mapping| mapping["confirmed"] == true), "{shown:#}");
    let mut by_station: Vec<_> =
        mappings.iter().map(|mapping| (text(&mapping["mapped"]), text(&mapping["inside"]))).collect();
    by_station.sort();
    assert_eq!(by_station, wanted, "nat show");

    site.wait_until(70, "nat-table.xml says what the router says", || Ok(in_file(site)? == wanted))
}

/// Pairs of mapped and inside address in the station's file.
fn in_file(site: &Site) -> Result<Vec<(String, String)>> {
    let file = site.lab().root("station")?.join("var/lib/branchline/nat-table.xml");
    let kept = table_xml::parse(&std::fs::read_to_string(file)?)?;
    let pair = |row: &branchline_station_role::router::NatRow| {
        Some((row.mapped?.first.to_string(), row.inside?.first.to_string()))
    };
    let mut pairs: Vec<_> = kept.table.rows.values().filter_map(pair).collect();
    pairs.sort();
    Ok(pairs)
}

/// What was seen first when, in seconds after a change.
struct Seen {
    since: Instant,
    first: BTreeMap<&'static str, f64>,
}

impl Seen {
    fn new() -> Self {
        Self { since: Instant::now(), first: BTreeMap::new() }
    }

    fn note(&mut self, what: &'static str, is_so: bool) {
        if is_so {
            let seconds = self.since.elapsed().as_secs_f64();
            self.first.entry(what).or_insert(seconds);
        }
    }

    fn print(&self, title: &str) {
        println!("{title}:");
        let mut lines: Vec<_> = self.first.iter().collect();
        lines.sort_by(|a, b| a.1.total_cmp(b.1));
        for (what, seconds) in lines {
            println!("  {seconds:6.2} s {what}");
        }
    }
}

fn change_address(site: &Site, host: &str, old: &str, new: &str) -> Result<()> {
    let change = format!(
        "ip addr del {old}/16 dev eth0 && ip addr add {new}/16 dev eth0 && ip route replace default via 10.1.0.1"
    );
    site.lab().check(host, &["sh", "-c", &change])?;
    // What the new owner's announcement (RFC 5227) does at the router.
    site.lab().check("router", &["ip", "neigh", "flush", "dev", "lan0"]).map(drop)
}

/// As DHCP does it: the old address goes, the new one comes; and the server gives the old one to another machine, whose
/// agent answers there at once.
fn move_and_let_another_take_the_address(site: &Site, places: &mut BTreeMap<&str, String>) -> Result<()> {
    let old = places[MOVED].clone();
    let mapped = listed(site, MOVED)?.context("no target")?;
    let lab = site.lab();
    let mut seen = Seen::new();
    change_address(site, MOVED, &old, NEW)?;
    lab.check(HEIR, &["ip", "addr", "add", &format!("{old}/16"), "dev", "eth0"])?;
    // What the heir's announcement (RFC 5227) does at the router.
    lab.check("router", &["ip", "neigh", "flush", "dev", "lan0"])?;
    places.insert(MOVED, NEW.to_owned());

    let (mut wrong_since, mut wrong_longest): (Option<Instant>, f64) = (None, 0.0);
    loop {
        let is_listed = listed(site, MOVED)?.is_some();
        let table = lab.nat_table()?;
        let place = leads_to(&table, &mapped);
        let wrong = is_listed && place.as_deref().is_some_and(|place| place != NEW);
        match (wrong, wrong_since) {
            (true, None) => wrong_since = Some(Instant::now()),
            (false, Some(since)) => {
                wrong_longest = wrong_longest.max(since.elapsed().as_secs_f64());
                wrong_since = None;
            }
            _ => {}
        }
        if wrong {
            seen.note(
                "a scrape gets the heir's figures as the moved host's",
                who_answers(site, &mapped).as_deref() == Some(HEIR),
            );
        }
        let globals: std::collections::BTreeSet<_> =
            table.forwarding.inbound.iter().map(|found| &found.global).collect();
        assert_eq!(globals.len(), table.forwarding.inbound.len(), "an address is doubled: {table:?}");
        seen.note("headquarters lists the host no more", !is_listed);
        seen.note("no row leads to the old address", table.forwarding.inbound.iter().all(|found| found.local != old));
        seen.note("a row leads to the new address", place.as_deref() == Some(NEW));
        let sessions = site.sessions("station")?;
        let of_host = sessions.iter().find(|session| session.host_name == MOVED).context("no session")?;
        seen.note("the station knows the new address", of_host.inside == NEW);
        if of_host.inside == NEW && of_host.stage == "complete" && is_listed && place.as_deref() == Some(NEW) {
            seen.note("complete and listed again", true);
            break;
        }
        if seen.since.elapsed() > Duration::from_secs(60) {
            seen.print("so far");
            let said = site.node("station", &["sessions", "show", MOVED])?;
            anyhow::bail!("{of_host:?}\n{said}\n{}\n{}", site.log_end("station", "run"), site.log_end(MOVED, "run"));
        }
    }
    seen.print("another address");
    println!("listed while it leads elsewhere: {wrong_longest:.2} s (each look takes about a second)");
    ensure!(wrong_longest < SCRAPE.as_secs_f64(), "it must be less than {SCRAPE:?}");
    for other in ["headquarters lists the host no more", "no row leads to the old address"] {
        assert!(seen.first.contains_key(other), "never seen: {other}");
    }
    let shown: Value = site.node_json("station", &["sessions", "show", MOVED])?;
    let history = shown["history"].to_string();
    assert!(history.contains(&format!("Inside address is {NEW} now.")), "{history}");
    assert_eq!(history.matches("Probed by headquarters").count(), 2, "probed at the new place as well: {history}");
    assert!(lab.running(MOVED, "run")?, "the same process goes on");
    assert_settled(site, places)?;
    // The heir's own mapping leads to its own address all the time; it gives the other one back.
    lab.check(HEIR, &["ip", "addr", "del", &format!("{old}/16"), "dev", "eth0"])?;
    assert_settled(site, places)
}

fn row_of(site: &Site, inside: &str) -> Result<Row> {
    let rows = site.lab().nat_table()?.snmp.context("the router does not answer")?;
    rows.into_iter().find(|row| row.local.as_deref() == Some(inside)).with_context(|| format!("no row of {inside}"))
}

/// Writes into the router's table as an operator would, with the tools of net-snmp.
fn set(site: &Site, bindings: &[(u32, &Row, &str, &str)]) -> Result<()> {
    let facts = site.lab().facts();
    let router = facts.router_address.clone();
    let mut line =
        vec!["env", "MIBS=", "snmpset", "-v3", "-u", &facts.snmp_user, "-l", "authPriv", "-a", "SHA-256", "-A"];
    line.extend([facts.snmp_auth_passphrase.as_str(), "-x", "AES", "-X", &facts.snmp_privacy_passphrase, &router]);
    let names: Vec<String> = bindings
        .iter()
        .map(|(column, row, _, _)| format!("1.3.6.1.2.1.123.1.4.1.{column}.{}.{}", row.interface, row.index))
        .collect();
    for (name, (_, _, kind, value)) in names.iter().zip(bindings) {
        line.extend([name.as_str(), kind, value]);
    }
    site.lab().check("router", &line).map(drop)
}

/// R115: a row is deleted, as a router does that forgets one, or an operator who clears up; and another is bent: a row that
/// leads to somebody else is worse than none. The next reading of the table finds both.
fn delete_a_row_and_bend_another(site: &Site, places: &BTreeMap<&str, String>) -> Result<()> {
    let (deleted, bent) = (row_of(site, &places[MOVED])?, row_of(site, &places[HEIR])?);
    let mapped = |row: &Row| row.global.clone().context("no mapped address");
    let (of_deleted, of_bent) = (mapped(&deleted)?, mapped(&bent)?);
    set(site, &[(21, &deleted, "i", "6")])?;
    let elsewhere = "0A010002";
    set(site, &[(21, &bent, "i", "2")])?;
    set(site, &[(6, &bent, "x", elsewhere), (7, &bent, "x", elsewhere)])?;
    set(site, &[(21, &bent, "i", "1")])?;
    let table = site.lab().nat_table()?;
    assert_eq!(leads_to(&table, &of_deleted), None, "the row is gone");
    assert_eq!(leads_to(&table, &of_bent).as_deref(), Some("10.1.0.2"), "the row leads to the station");

    let mut seen = Seen::new();
    while seen.first.len() < 2 {
        let table = site.lab().nat_table()?;
        for (what, mapped, host) in [
            ("the deleted row leads to its host again", &of_deleted, MOVED),
            ("the bent row leads to its host again", &of_bent, HEIR),
        ] {
            seen.note(what, leads_to(&table, mapped).as_ref() == Some(&places[host]));
        }
        ensure!(seen.since.elapsed() < RECONCILIATION, "{table:?}\n{}", site.log_end("station", "run"));
        std::thread::sleep(Duration::from_millis(200));
    }
    seen.print("a deleted row and a bent one");
    let status: Value = site.node_json("station", &["status"])?;
    let notices = status["notices"].to_string();
    assert!(notices.contains("the router's table differed from the journal"), "{notices}");
    assert_settled(site, places)
}

/// Who is off says nothing; the other member's first report from there does. No row leads to it as to the host.
fn the_address_of_a_host_that_is_off(site: &Site, places: &mut BTreeMap<&str, String>) -> Result<()> {
    let lab = site.lab();
    let (free, mapped) = (places[HEIR].clone(), listed(site, MOVED)?.context("no target")?);
    let own = listed(site, HEIR)?.context("no target")?;
    lab.kill(MOVED, "run", "KILL")?;
    lab.check(MOVED, &["ip", "addr", "del", &format!("{NEW}/16"), "dev", "eth0"])?;
    let mut seen = Seen::new();
    change_address(site, HEIR, &free, NEW)?;
    while !seen.first.contains_key("the heir is complete and listed at its new place") {
        let (table, sessions) = (lab.nat_table()?, site.sessions("station")?);
        seen.note("headquarters lists the host that is off no more", listed(site, MOVED)?.is_none());
        seen.note("its mapped address leads nowhere", leads_to(&table, &mapped).is_none());
        let is_complete = count_at(&sessions, "complete") == 1 && listed(site, HEIR)?.as_ref() == Some(&own);
        let leads = leads_to(&table, &own).as_deref() == Some(NEW);
        seen.note("the heir is complete and listed at its new place", leads && is_complete);
        ensure!(seen.since.elapsed() < Duration::from_secs(60), "{sessions:#?}\n{}", site.log_end("station", "run"));
    }
    seen.print("the address of a host that is off");
    for what in ["headquarters lists the host that is off no more", "its mapped address leads nowhere"] {
        let seconds = seen.first.get(what).with_context(|| format!("never seen: {what}"))?;
        ensure!(*seconds < SCRAPE.as_secs_f64(), "{what} after {seconds:.1} s only");
    }
    let history = site.node_json::<Value>("station", &["sessions", "show", MOVED])?["history"].to_string();
    let by_its_report = history.contains("reports from its inside address");
    assert!(by_its_report || history.contains("answers at its inside address"), "{history}");

    lab.check(MOVED, &["ip", "addr", "add", &format!("{free}/16"), "dev", "eth0"])?;
    lab.check(MOVED, &["ip", "route", "replace", "default", "via", "10.1.0.1"])?;
    lab.check("router", &["ip", "neigh", "flush", "dev", "lan0"])?;
    site.start_node(MOVED)?;
    places.insert(MOVED, free);
    places.insert(HEIR, NEW.to_owned());
    site.wait_for("station", 60, "both are complete again", |sessions| count_at(sessions, "complete") == 2)?;
    site.wait_until(30, "both are targets again", || Ok(site.targets()?.len() == 2))?;
    assert_eq!(listed(site, MOVED)?, Some(mapped), "the mapped address is the same as before");
    assert_settled(site, places)
}

/// Who gets the address need not be a member: its link address is another one, which is heard with its first packet. The heir
/// serves as that machine: it has the address besides its own, its node says nothing of it, and its agent answers there.
fn a_stranger_at_the_address_of_a_host_that_is_off(site: &Site, places: &BTreeMap<&str, String>) -> Result<()> {
    let lab = site.lab();
    let (address, mapped) = (places[MOVED].clone(), listed(site, MOVED)?.context("no target")?);
    lab.kill(MOVED, "run", "KILL")?;
    std::thread::sleep(Duration::from_secs(8));
    assert!(listed(site, MOVED)?.is_some(), "a node that is off leaves its machine where it is");
    lab.check(MOVED, &["ip", "addr", "del", &format!("{address}/16"), "dev", "eth0"])?;
    let mut seen = Seen::new();
    lab.check(HEIR, &["ip", "addr", "add", &format!("{address}/16"), "dev", "eth0"])?;
    lab.check("router", &["ip", "neigh", "flush", "dev", "lan0"])?;
    // The first packet that the machine sends from there: its question for the receiver is heard in the whole segment.
    let first_packet = format!(
        "ip route add 10.1.9.9 dev eth0 src {address} && echo >/dev/udp/10.1.9.9/9; ip route del 10.1.9.9 dev eth0"
    );
    lab.check(HEIR, &["bash", "-c", &first_packet])?;
    while !seen.first.contains_key("headquarters lists the host no more")
        || !seen.first.contains_key("no row leads there")
    {
        let is_listed = listed(site, MOVED)?.is_some();
        if is_listed {
            let is_wrong = who_answers(site, &mapped).as_deref() == Some(HEIR);
            seen.note("a scrape gets the other machine's figures as the host's", is_wrong);
        }
        seen.note("headquarters lists the host no more", !is_listed);
        seen.note("no row leads there", leads_to(&lab.nat_table()?, &mapped).is_none());
        ensure!(seen.since.elapsed() < Duration::from_secs(60), "{}", site.log_end("station", "run"));
    }
    seen.print("a stranger at the address of a host that is off");
    for (what, seconds) in seen.first.iter().filter(|(what, _)| !what.starts_with("a scrape")) {
        ensure!(*seconds < SCRAPE.as_secs_f64(), "{what} after {seconds:.1} s only");
    }
    let history = site.node_json::<Value>("station", &["sessions", "show", MOVED])?["history"].to_string();
    assert!(history.contains("answers at its inside address: not mapped there"), "{history}");
    assert!(
        site.node_json::<Value>("station", &["status"])?["notices"]
            .to_string()
            .contains("is off, and the machine with")
    );

    lab.check(HEIR, &["ip", "addr", "del", &format!("{address}/16"), "dev", "eth0"])?;
    lab.check(MOVED, &["ip", "addr", "add", &format!("{address}/16"), "dev", "eth0"])?;
    lab.check(MOVED, &["ip", "route", "replace", "default", "via", "10.1.0.1"])?;
    lab.check("router", &["ip", "neigh", "flush", "dev", "lan0"])?;
    site.start_node(MOVED)?;
    site.wait_for("station", 60, "both are complete again", |sessions| count_at(sessions, "complete") == 2)?;
    site.wait_until(30, "both are targets again", || Ok(site.targets()?.len() == 2))?;
    assert_eq!(listed(site, MOVED)?, Some(mapped), "the mapped address is the same as before");
    assert_settled(site, places)
}
