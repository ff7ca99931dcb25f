//! Whether every figure of a scenario makes sense.
use branchline_protocol::limits::{
    ADDRESS_BATCH_ADDRESSES_MAX, CHUNK_BYTES_MAX, HEADQUARTERS_SITES_MAX, MANIFEST_CHUNKS_MAX, MEMBERS_MAX,
};

use super::{
    local::{NEIGHBOURS_MAX, NEIGHBOURS_MIN},
    quantity::{Arrivals, InstallTime, Neighbours, Wifi, sigma_fault},
    scenario::{Addresses, Headquarters, Payload, Rollout, Scenario, ScenarioError, Site},
};

/// Highest rate of any line, in bits per second: 10 Tbit/s.
const RATE_MAX: f64 = 1e13;
/// Longest time that a scenario may name, in seconds: about thirty years.
const SECONDS_MAX: f64 = 1e9;
/// Most hosts in all; each takes about 50 bytes.
pub(super) const HOSTS_MAX: f64 = 20e6;

type Checked = Result<(), ScenarioError>;

pub(super) fn check(scenario: &Scenario) -> Checked {
    check_payload(&scenario.payload)?;
    check_headquarters(&scenario.headquarters)?;
    demand(!scenario.sites.is_empty(), "sites", "there are none; write one [[sites]] entry per kind of site")?;
    for (index, site) in scenario.sites.iter().enumerate() {
        check_site(&format!("sites[{}]", index + 1), site)?;
    }
    let sites = scenario.sites_total();
    demand(
        sites <= HEADQUARTERS_SITES_MAX as u64,
        "sites",
        format!("{sites} sites are more than one headquarters serves ({HEADQUARTERS_SITES_MAX})"),
    )?;
    let hosts = scenario.hosts_about();
    demand(
        hosts <= HOSTS_MAX,
        "sites",
        format!("about {hosts} hosts are more than the {HOSTS_MAX} that fit in memory"),
    )?;
    check_rollout(&scenario.rollout)?;
    check_addresses(scenario.addresses)
}

fn demand(holds: bool, key: impl Into<String>, fault: impl Into<String>) -> Checked {
    if holds { Ok(()) } else { Err(ScenarioError::Senseless { key: key.into(), fault: fault.into() }) }
}

fn between(key: impl Into<String>, value: f64, least: f64, most: f64) -> Checked {
    let holds = value.is_finite() && (least..=most).contains(&value);
    demand(holds, key, format!("{value} does not lie between {least} and {most}"))
}

fn check_payload(payload: &Payload) -> Checked {
    between("payload.size_bytes", payload.size_bytes as f64, 1.0, 1e15)?;
    between("payload.patch_share", payload.patch_share, 0.0, 1.0)?;
    demand(payload.patch_share > 0.0, "payload.patch_share", "nothing has to move; 1 moves all of it")?;
    between("payload.chunk_bytes", payload.frame_bytes() as f64, 1.0, CHUNK_BYTES_MAX as f64)?;
    let (frames, most) = (payload.frames(), MANIFEST_CHUNKS_MAX);
    let fault = format!("{frames} frames are more than a manifest holds ({most}); take longer ones");
    demand(frames <= most as u64, "payload.chunk_bytes", fault)
}

fn check_headquarters(headquarters: &Headquarters) -> Checked {
    between("headquarters.uplink_bits_per_second", headquarters.uplink_bits_per_second, 1.0, RATE_MAX)?;
    demand(
        headquarters.concurrent_sites != Some(0),
        "headquarters.concurrent_sites",
        "0 lets no site fetch; leave it out for no limit",
    )
}

fn check_site(at: &str, site: &Site) -> Checked {
    let quantity = |key: &str, of: &super::Quantity, least: f64, most: f64| match of.fault(least, most) {
        Some(fault) => Err(ScenarioError::Senseless { key: format!("{at}.{key}"), fault }),
        None => Ok(()),
    };
    let key = |key: &str| format!("{at}.{key}");
    demand(site.count >= 1, key("count"), "0 sites; leave the entry out")?;
    quantity("hosts", &site.hosts, 1.0, f64::from(MEMBERS_MAX))?;
    quantity("wan_bits_per_second", &site.wan_bits_per_second, 1.0, RATE_MAX)?;
    quantity("wan_latency_seconds", &site.wan_latency_seconds, 0.0, 60.0)?;
    quantity("lan_bits_per_second", &site.lan_bits_per_second, 1.0, RATE_MAX)?;
    between(key("slow_share"), site.slow_share, 0.0, 1.0)?;
    let slow = "a slow host carries lan_bits_per_second times slow_factor: write 0.25 for a quarter";
    demand(site.slow_factor > 0.0 && site.slow_factor <= 1.0, key("slow_factor"), slow)?;
    demand(site.sessions_limit >= 1, key("sessions_limit"), "0 lets no host install")?;
    check_neighbours(&key("neighbours"), site.neighbours)?;
    if let Arrivals::PoissonPerSecond(rate) = site.arrivals {
        between(key("arrivals.poisson_per_second"), rate, 1e-9, 1e9)?;
    }
    check_install(&key("install_seconds"), &site.install_seconds)?;
    if let Some(offline) = site.offline {
        between(key("offline.share"), offline.share, 0.0, 1.0)?;
        between(key("offline.return_mean_seconds"), offline.return_mean_seconds, 0.0, SECONDS_MAX)?;
    }
    if let Some(churn) = site.churn {
        between(key("churn.leave_per_hour"), churn.leave_per_hour, 0.0, 3600.0)?;
        between(key("churn.return_mean_seconds"), churn.return_mean_seconds, 1.0, SECONDS_MAX)?;
    }
    between(key("failure_share"), site.failure_share, 0.0, 1.0)?;
    between(key("loss"), site.loss, 0.0, 0.5)?;
    if let Some(seconds) = site.station_fails_at_seconds {
        between(key("station_fails_at_seconds"), seconds, 0.0, SECONDS_MAX)?;
    }
    between(key("station_takeover_seconds"), site.station_takeover_seconds, 10.0, SECONDS_MAX)?;
    if let Some(fail) = site.hosts_fail {
        between(key("hosts_fail.at_seconds"), fail.at_seconds, 0.0, SECONDS_MAX)?;
    }
    if let Wifi::Medium { bits_per_second: Some(rate) } = site.wifi {
        between(key("wifi.bits_per_second"), rate, 1.0, RATE_MAX)?;
    }
    site.linger_seconds.map_or(Ok(()), |seconds| between(key("linger_seconds"), seconds, 0.0, SECONDS_MAX))
}

/// A node has no fewer neighbours than [`NEIGHBOURS_MIN`] and no more than [`NEIGHBOURS_MAX`], as far as there are as many.
fn check_neighbours(key: &str, neighbours: Neighbours) -> Checked {
    let Neighbours::Number(number) = neighbours else { return Ok(()) };
    let fault =
        format!("{number} is not a number of neighbours that a node may have: {NEIGHBOURS_MIN} to {NEIGHBOURS_MAX}");
    demand((NEIGHBOURS_MIN..=NEIGHBOURS_MAX).contains(&number), key, format!("{fault}, or \"all\""))
}

fn check_install(key: &str, install: &InstallTime) -> Checked {
    match install {
        InstallTime::Fixed(seconds) | InstallTime::ExponentialMean(seconds) => between(key, *seconds, 0.0, SECONDS_MAX),
        InstallTime::Lognormal([median, sigma]) => {
            between(key, *median, 0.0, SECONDS_MAX)?;
            sigma_fault(*sigma).map_or(Ok(()), |fault| demand(false, key, fault))
        }
        InstallTime::Range([low, high]) => {
            between(key, *low, 0.0, SECONDS_MAX)?;
            between(key, *high, *low, SECONDS_MAX)
        }
    }
}

fn check_rollout(rollout: &Rollout) -> Checked {
    let waves = &rollout.waves;
    for (index, share) in waves.iter().enumerate() {
        between(format!("rollout.waves[{}]", index + 1), *share, 0.0, 1.0)?;
    }
    let ascending = waves.windows(2).all(|pair| pair[0] < pair[1]) && waves.first().is_none_or(|first| *first > 0.0);
    demand(ascending, "rollout.waves", "the shares must ascend: each says how many sites have begun with its wave")?;
    let last = waves.last().is_none_or(|last| *last == 1.0);
    demand(last, "rollout.waves", "the last wave must end at 1, or some sites never begin")?;
    between("rollout.thresholds.success", rollout.thresholds.success, 0.0, 1.0)?;
    between("rollout.thresholds.error", rollout.thresholds.error, 0.0, 1.0)?;
    for (index, window) in rollout.windows.iter().enumerate() {
        let key = |name: &str| format!("rollout.windows[{}].{name}", index + 1);
        between(key("opens_seconds"), window.opens_seconds, 0.0, SECONDS_MAX)?;
        between(key("every_seconds"), window.every_seconds, 1.0, SECONDS_MAX)?;
        between(key("lasts_seconds"), window.lasts_seconds, 1e-3, window.every_seconds)?;
    }
    Ok(())
}

fn check_addresses(addresses: Addresses) -> Checked {
    between("addresses.batch", f64::from(addresses.batch), 1.0, ADDRESS_BATCH_ADDRESSES_MAX as f64)
}
