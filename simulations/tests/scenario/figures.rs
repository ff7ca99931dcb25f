//! Figures that differ from site to site: their means over many sites are those of their distributions.
use branchline_simulations::capacity::{Options, Simulated, simulate};

use super::small::{BOTH, MEBIBYTE, mean, run, scenario, within};
use crate::threads::Threads;

const SITES: u32 = 2000;

/// So many sites with one figure that differs.
fn sites(key: &str, written: &str, resolution: &str) -> Simulated {
    let figure = |name: &str, value: &str| {
        let value = if name == key { written } else { value };
        format!("{name} = {value}\n")
    };
    let site =
        [("hosts", "1"), ("wan_bits_per_second", "1e9"), ("wan_latency_seconds", "0"), ("lan_bits_per_second", "1e12")];
    let site: String = site.iter().map(|(name, value)| figure(name, value)).collect();
    let count = if resolution == "flow" { SITES } else { 200 };
    let scenario = scenario(resolution, 1, 1e13, &format!("[[sites]]\ncount = {count}\n{site}"));
    let options = Options { calibration_sites: 0, lifts: false, hosts: true, series_moments: 2 };
    simulate(&scenario, &options, &Threads(2), &|_| {}).unwrap()
}

/// What a figure is as a planner writes it, the share of its first value, and its moments.
fn forms(low: f64, high: f64) -> [(String, f64, f64); 4] {
    let (middle, half) = ((low + high) / 2.0, (high - low) / 2.0);
    let median = low;
    let lognormal = median * (0.125_f64).exp();
    [
        (format!("{low}"), low, 0.0),
        (format!("{{ range = [{low}, {high}] }}"), middle, half / 3.0_f64.sqrt()),
        (format!("{{ lognormal = [{median}, 0.5] }}"), lognormal, lognormal * (0.25_f64.exp() - 1.0).sqrt()),
        (format!("{{ one_of = [{low}, {high}] }}"), middle, half),
    ]
}

fn check(key: &str, written: &str, expected: f64, deviation: f64, found: &[f64], rounding: f64) {
    let error = 4.0 * deviation / (found.len() as f64).sqrt();
    within(&format!("{key} = {written}"), mean(found.iter().copied()), expected, error + rounding);
    let square = mean(found.iter().map(|value| (value - expected).powi(2))).sqrt();
    // The deviation of a log-normal figure is itself the most uncertain.
    within(&format!("deviation of {key} = {written}"), square, deviation, 0.15 * deviation + rounding);
}

#[test]
fn hosts_are_as_many_as_written() {
    for (written, expected, deviation) in forms(20.0, 60.0) {
        let found = sites("hosts", &written, "flow");
        let hosts: Vec<f64> = found.sites.iter().map(|site| f64::from(site.hosts)).collect();
        check("hosts", &written, expected, deviation, &hosts, 0.05);
        assert_eq!(found.outcome.sites[0].hosts, found.hosts.len() as u64);
    }
}

#[test]
fn lines_are_as_fast_as_written() {
    for (written, expected, deviation) in forms(4e6, 16e6) {
        let found = sites("wan_bits_per_second", &written, "flow");
        let rate = |site: &branchline_simulations::capacity::SiteResult| {
            MEBIBYTE / (site.fetched_seconds - site.began_seconds)
        };
        check(
            "wan_bits_per_second",
            &written,
            expected,
            deviation,
            &found.sites.iter().map(rate).collect::<Vec<_>>(),
            1.0,
        );
    }
}

#[test]
fn latencies_are_as_long_as_written() {
    for (written, expected, deviation) in forms(0.02, 0.08) {
        let found = sites("wan_latency_seconds", &written, "flow");
        // A request and its answer come first.
        let latencies: Vec<f64> = found.sites.iter().map(|site| site.began_seconds / 2.0).collect();
        check("wan_latency_seconds", &written, expected, deviation, &latencies, 1e-6);
    }
}

#[test]
fn cards_are_as_fast_as_written() {
    for (written, expected, deviation) in forms(4e6, 16e6) {
        // Nothing of a line that is slower than the line itself: the inlet's card is what limits it.
        let found = sites("lan_bits_per_second", &written, "flow");
        let rate = |site: &branchline_simulations::capacity::SiteResult| {
            MEBIBYTE / (site.fetched_seconds - site.began_seconds)
        };
        check(
            "lan_bits_per_second",
            &written,
            expected,
            deviation,
            &found.sites.iter().map(rate).collect::<Vec<_>>(),
            1.0,
        );
    }
}

#[test]
fn both_resolutions_draw_the_same_figures() {
    for key in ["hosts", "wan_bits_per_second", "wan_latency_seconds", "lan_bits_per_second"] {
        let written = match key {
            "hosts" => "{ range = [1, 9] }",
            "wan_latency_seconds" => "{ lognormal = [0.02, 0.5] }",
            _ => "{ one_of = [8e6, 20e6, 50e6] }",
        };
        let (chunk, flow) = (sites(key, written, "chunk"), sites(key, written, "flow"));
        for (number, chunk) in chunk.sites.iter().enumerate() {
            let flow = &flow.sites[number];
            assert_eq!((chunk.hosts, chunk.began_seconds), (flow.hosts, flow.began_seconds), "{key}, site {number}");
            // Frame by frame the station asks for a lease first, which takes a fifth of a millisecond.
            let most = 0.02 * flow.fetched_seconds + 0.000_3;
            within(&format!("{key}, site {number}"), chunk.fetched_seconds, flow.fetched_seconds, most);
        }
    }
}

#[test]
fn a_seed_fixes_every_figure_and_another_changes_all_of_them() {
    for resolution in BOTH {
        let of = |seed: u64| {
            let mut scenario = super::answers::mixed(resolution);
            scenario.seed = seed;
            run(&scenario)
        };
        assert_eq!(of(1), of(1), "{resolution}");
        let (one, two) = (of(1), of(2));
        assert_eq!(one.sites.len(), two.sites.len());
        // The site that is staged has nothing that is drawn.
        let mut drawn = one.sites.iter().zip(&two.sites).filter(|(site, _)| site.entry == 0);
        assert!(drawn.all(|(a, b)| a.makespan_seconds != b.makespan_seconds), "{resolution}");
        assert_eq!(format!("{:?}", one.outcome.resolution).to_lowercase(), resolution, "as it was asked for");
    }
}
