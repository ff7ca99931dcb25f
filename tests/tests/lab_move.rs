//! The station role moves in the middle of a rollout; a host is withdrawn.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use anyhow::{Context, Result, ensure};
use branchline_tests::site::{Site, count_at};

const HOSTS: [&str; 3] = ["host1", "host2", "host3"];
/// The machine that becomes station: it is a host as well.
const NEW_STATION: &str = "host3";
const WITHDRAWN: &str = "host1";

#[test]
fn lab_move_and_withdraw() -> Result<()> {
    let Some(site) = Site::with_ballast("blmove", &HOSTS, 12, "true")? else { return Ok(()) };
    site.publish()?;
    move_the_role(&site)?;
    site.wait_for(NEW_STATION, 180, "all complete at the new station", |sessions| count_at(sessions, "complete") == 3)?;
    for pack in site.traffic()? {
        println!(
            "pack of {} bytes: headquarters sent {} bytes, wan_ratio {:.4}",
            pack.length_bytes,
            pack.sent_bytes,
            pack.wan_ratio()
        );
        assert_eq!(pack.sent_bytes, pack.length_bytes);
    }
    old_station_is_refused(&site)?;
    withdraw(&site)
}

/// Signs a charter that designates another machine, half way through the payload.
fn move_the_role(site: &Site) -> Result<()> {
    let length: u64 = site.traffic()?.iter().map(|pack| pack.length_bytes).sum();
    let sent = || -> Result<u64> { Ok(site.traffic()?.iter().map(|pack| pack.sent_bytes).sum()) };
    site.lab().check("station", &["cp", "-a", "/var/lib/branchline/sites", "/var/lib/branchline/sites-before"])?;
    site.wait_until(60, "a third of the payload is in the site", || Ok(sent()? >= length / 3))?;
    let seat = site.path("new.seat").display().to_string();
    std::fs::write(&seat, site.node(NEW_STATION, &["identity", "--json"])?)?;
    let bundle = site.path("bundle").display().to_string();
    let at = sent()?;
    println!("the role moves after {at} of {length} bytes");
    ensure!(at < length, "too late for a move in the middle: {at} of {length} bytes");
    site.command(&["charter", "move", "--bundle", &bundle, "--station", &seat])?;
    site.headquarters(&["charter", "take", &site.charter().display().to_string()]).map(drop)
}

/// With its old charter in its hands again, the old station gets nowhere.
fn old_station_is_refused(site: &Site) -> Result<()> {
    site.lab().kill("station", "run", "TERM")?;
    let restore = "rm -rf /var/lib/branchline/sites && mv /var/lib/branchline/sites-before /var/lib/branchline/sites";
    site.lab().check("station", &["sh", "-c", restore])?;
    site.start_node("station")?;
    // Just after its start no command is answered, and nothing is the station yet.
    site.wait_until(60, "the old station knows the new charter", || {
        let status = site.node_json::<serde_json::Value>("station", &["status"]);
        Ok(status.is_ok_and(|status| status["sites"].to_string().contains("\"charter_version\":2")))
    })?;
    let refusal = || site.node("station", &["token"]).err().map(|error| error.to_string());
    site.wait_until(30, "the old station stands down", || {
        Ok(refusal().is_some_and(|said| said.contains("not station")))
    })?;
    let said = refusal().context("the old station gives tokens")?;
    ensure!(said.contains("not station"), "{said}");
    println!("the old station says: {}", said.lines().last().unwrap_or_default());
    Ok(())
}

/// R98: agent, target, mapping and membership go; the report stays.
fn withdraw(site: &Site) -> Result<()> {
    let node: serde_json::Value = site.node_json(WITHDRAWN, &["identity"])?;
    let node = node["node"].as_str().context("no identity")?.to_owned();
    let inside = site.lab().address(WITHDRAWN)?;
    site.node(NEW_STATION, &["sessions", "withdraw", WITHDRAWN])?;
    site.wait_for(NEW_STATION, 60, "the host is withdrawn", |sessions| count_at(sessions, "withdrawn") == 1)?;
    let gone = || Ok(!site.lab().exec(WITHDRAWN, &["bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/9100"])?.status.success());
    site.wait_until(20, "the agent is gone", gone)?;
    let package = ["dpkg-query", "-W", "-f", "${db:Status-Status}", "prometheus-node-exporter"];
    site.wait_until(30, "dpkg knows the package no more", || {
        let status = site.lab().exec(WITHDRAWN, &package)?.stdout;
        Ok(status.is_empty() || status == b"not-installed")
    })?;
    site.wait_until(30, "the target is gone", || {
        Ok(site.mirror()?.iter().all(|host| host.is_target == (host.host_name != WITHDRAWN)))
    })?;
    assert_eq!(site.targets()?.into_keys().collect::<Vec<_>>(), ["host2", "host3"], "headquarters' own list");
    let table = site.lab().nat_table()?;
    assert!(table.forwarding.inbound.iter().all(|mapping| mapping.local != inside), "{table:?}");
    assert_eq!(table.forwarding.inbound.len(), 2, "{table:?}");
    site.wait_until(30, "the membership is revoked", || {
        let status: serde_json::Value = site.node_json(NEW_STATION, &["status"])?;
        Ok(!status["neighbours"].to_string().contains(&node))
    })?;
    assert!(site.headquarters(&["report", WITHDRAWN])?.contains(WITHDRAWN));
    println!("{WITHDRAWN} is withdrawn: no agent, no target, no mapping, no membership; its report stays");
    Ok(())
}
