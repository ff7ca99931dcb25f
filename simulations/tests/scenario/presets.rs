//! Every preset has an answer in both resolutions.
use branchline_simulations::capacity::{
    Options, PRESETS, Preset, Quantity, Resolution, Scenario, Simulated, calibrate_flow, simulate,
};

use crate::threads::Threads;

fn read(preset: &Preset) -> Scenario {
    Scenario::from_toml(preset.text).unwrap_or_else(|error| panic!("{}: {error}", preset.name))
}

fn simulated(scenario: &Scenario, calibration_sites: u32) -> Simulated {
    let options = Options { calibration_sites, lifts: false, hosts: false, series_moments: 20 };
    simulate(scenario, &options, &Threads(2), &|_| {}).unwrap()
}

/// What holds of every preset: nothing in it keeps a host from its turn but an installation that fails.
fn holds(name: &str, scenario: &Scenario, found: &Simulated) {
    let outcome = &found.outcome;
    let hosts: u64 = found.sites.iter().map(|site| u64::from(site.hosts)).sum();
    assert!(found.waves.iter().all(|wave| wave.began_seconds.is_some()), "{name}: {:?}", found.waves);
    let fails = scenario.sites.iter().any(|site| site.failure_share > 0.0);
    let least = if fails { hosts * 95 / 100 } else { hosts };
    let complete = outcome.completed_hosts;
    assert!(complete > 0 && (least..=hosts).contains(&complete), "{name}: {complete} of {hosts}");
    assert_eq!(outcome.wan_ratio, 1.0, "{name}: no station fails");
    let payload = scenario.payload.moved_bytes();
    assert_eq!(outcome.bytes.headquarters, payload * found.sites.len() as u64, "{name}");
    let loses = scenario.sites.iter().any(|site| site.loss > 0.0);
    assert_eq!(outcome.bytes.wan > outcome.bytes.headquarters, loses, "{name}: {:?}", outcome.bytes);
    assert!(outcome.bytes.lan >= hosts * payload, "{name}: {:?}", outcome.bytes);
    let completion = outcome.completion_seconds;
    let in_order =
        completion.p50 <= completion.p95 && completion.p95 <= completion.p99 && completion.p99 <= completion.last;
    assert!(completion.p50 > 0.0 && in_order, "{name}: {completion:?}");
    // No line is faster than itself, and no rollout than the payload over the fastest line.
    for (entry, site) in outcome.sites.iter().zip(&scenario.sites) {
        let line = match &site.wan_bits_per_second {
            Quantity::OneOf(lines) => lines.iter().copied().fold(0.0, f64::max),
            line => line.typical(),
        };
        assert!(entry.rate_bits_per_second > 0.0 && entry.rate_bits_per_second <= line, "{name}: {entry:?}");
        assert!(entry.makespan_seconds >= 8.0 * payload as f64 / line, "{name}: {entry:?}");
    }
}

fn is_simulated_as_a_flow(name: &str) {
    let preset = Preset::named(name).unwrap();
    let scenario = Scenario { resolution: Some(Resolution::Flow), ..read(preset) };
    holds(name, &scenario, &simulated(&scenario, 0));
    // Fitting simulates sites frame by frame: a smaller payload shows as well that every entry can be fitted.
    let mut small = scenario.clone();
    small.payload.size_bytes = 8 << 20;
    for site in &mut small.sites {
        site.count = site.count.min(2);
    }
    let found = calibrate_flow(&small, 1, &Threads(2)).unwrap();
    let sites: u64 = small.sites.iter().map(|site| site.count).sum();
    assert_eq!(found.fitted_sites + found.measured_sites, sites, "{name}: two of each entry at least: {found:?}");
    assert!(found.error_max < 0.1, "{name}: {found:?}");
}

/// Two sites of each kind and a payload of some frames.
fn is_simulated_frame_by_frame(name: &str, mebibytes: u64) {
    let mut scenario = read(Preset::named(name).unwrap());
    scenario.resolution = Some(Resolution::Chunk);
    scenario.payload.size_bytes = mebibytes << 20;
    for site in &mut scenario.sites {
        site.count = site.count.min(2);
    }
    let found = simulated(&scenario, 0);
    assert_eq!(found.outcome.resolution, Resolution::Chunk);
    holds(name, &scenario, &found);
    assert!(
        found.outcome.inputs > found.outcome.completed_hosts * scenario.payload.frames(),
        "every frame is an input"
    );
}

#[test]
fn there_is_a_test_for_every_preset() {
    let names = PRESETS.map(|preset| preset.name);
    assert_eq!(names, ["large-retail", "restaurants", "mid-enterprise", "global-wan", "branch-office", "flash-crowd"]);
}

#[test]
fn large_retail() {
    is_simulated_as_a_flow("large-retail");
    is_simulated_frame_by_frame("large-retail", 16);
}

#[test]
fn restaurants() {
    is_simulated_as_a_flow("restaurants");
    is_simulated_frame_by_frame("restaurants", 64);
}

#[test]
fn mid_enterprise() {
    is_simulated_as_a_flow("mid-enterprise");
    is_simulated_frame_by_frame("mid-enterprise", 4);
}

#[test]
fn global_wan() {
    is_simulated_as_a_flow("global-wan");
    is_simulated_frame_by_frame("global-wan", 8);
}

#[test]
fn branch_office() {
    is_simulated_as_a_flow("branch-office");
    is_simulated_frame_by_frame("branch-office", 64);
}

#[test]
fn flash_crowd() {
    is_simulated_as_a_flow("flash-crowd");
    is_simulated_frame_by_frame("flash-crowd", 8);
}
