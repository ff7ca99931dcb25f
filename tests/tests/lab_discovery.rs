//! Who finds whom: by mDNS where neither the station nor headquarters is there, and through the station's exchange of
//! addresses where there is no multicast.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used)]

use std::thread::sleep;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use branchline_tests::site::Site;
use serde_json::Value;

const HOSTS: [&str; 2] = ["host1", "host2"];

fn status(site: &Site, machine: &str) -> Result<Value> {
    site.node_json(machine, &["status"])
}

/// Whether each host is connected with the other.
fn are_connected(site: &Site) -> Result<bool> {
    let seen: Vec<Value> = HOSTS.iter().map(|host| status(site, host)).collect::<Result<_>>()?;
    let sees = |one: &Value, other: &Value| {
        one["neighbours"].as_array().is_some_and(|neighbours| neighbours.contains(&other["node"]))
    };
    ensure!(seen.iter().all(|seen| seen["node"].is_string()), "no identity in {seen:?}");
    Ok(sees(&seen[0], &seen[1]) && sees(&seen[1], &seen[0]))
}

fn start_anew(site: &Site, machines: &[&str]) -> Result<()> {
    for machine in machines {
        if site.lab().running(machine, "run")? {
            site.lab().kill(machine, "run", "KILL")?;
        }
    }
    machines.iter().try_for_each(|machine| site.start_node(machine))
}

#[test]
fn lab_discovery_by_mdns_and_by_the_station() -> Result<()> {
    let Some(site) = Site::with_ballast("blfind", &HOSTS, 1, "true")? else { return Ok(()) };
    for machine in ["station", "headquarters"] {
        site.lab().kill(machine, "run", "KILL").with_context(|| format!("ending {machine}"))?;
    }
    // Addresses are not kept across a start: each knows the station's from its charter, and nobody else's.
    start_anew(&site, &HOSTS)?;
    site.wait_until(60, "the hosts find each other by mDNS", || are_connected(&site))?;
    println!("without station and headquarters the hosts find each other by mDNS");

    for machine in ["host1", "host2", "station"] {
        site.lab().check(machine, &["sed", "-i", "1i mdns = false", "/var/lib/branchline/node.toml"])?;
    }
    start_anew(&site, &HOSTS)?;
    sleep(Duration::from_secs(15));
    ensure!(!are_connected(&site)?, "they find each other by something else than mDNS");
    println!("without mDNS they do not");

    site.start_node("station")?;
    site.wait_until(60, "the hosts find each other through the station", || are_connected(&site))?;
    println!("once the station is there, they learn of each other from it");
    Ok(())
}
