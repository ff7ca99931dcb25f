//! The sessions of one station as M/M/c (Erlang C), and all hosts at once.
use branchline_simulations::capacity::{HostResult, Options, Scenario, simulate};

use super::{near, threads::Threads};

/// The probability of waiting with `c` servers and offered load `a`.
fn erlang_c(c: u32, a: f64) -> f64 {
    // The recursion of Erlang B keeps all terms small.
    let b = (1..=c).fold(1.0, |b, k| a * b / (f64::from(k) + a * b));
    let c = f64::from(c);
    c * b / (c - a * (1.0 - b))
}

/// Hosts of `sites` stations that come one after another, each with a service of mean 1 s; the payload takes no time.
fn queue_of(sites: u32, hosts: u32, c: u32, load: f64, install: &str, seed: u64) -> Vec<Vec<HostResult>> {
    let text = format!(
        "seed = {seed}\nresolution = \"flow\"\n[payload]\nsize_bytes = 1\n[headquarters]\nuplink_bits_per_second = 10e9\n[[sites]]\n\
         count = {sites}\nhosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e13\n\
         sessions_limit = {c}\narrivals = {{ poisson_per_second = {load} }}\ninstall_seconds = {install}\n"
    );
    let options = Options { calibration_sites: 0, lifts: false, hosts: true, series_moments: 2 };
    let hosts_of = simulate(&Scenario::from_toml(&text).unwrap(), &options, &Threads(2), &|_| {}).unwrap().hosts;
    hosts_of.chunks(hosts as usize).map(<[HostResult]>::to_vec).collect()
}

fn wait(host: &HostResult) -> f64 {
    host.started_seconds.unwrap() - host.ready_seconds.unwrap()
}

/// Mean and half the width of the 95 % confidence interval over independent stations.
fn interval(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (n - 1.0);
    (mean, 1.98 * (variance / n).sqrt())
}

#[test]
fn the_formula_gives_the_figures_of_the_book() {
    near(erlang_c(3, 2.0), 4.0 / 9.0, 1e-12);
    near(erlang_c(10, 6.0), 0.1013, 1e-3);
    for (load, waits, wait) in [(80.0, 0.0196, 0.00098), (95.0, 0.506, 0.101), (99.0, 0.883, 0.883)] {
        near(erlang_c(100, load), waits, 0.01);
        near(erlang_c(100, load) / (100.0 - load), wait, 0.01);
    }
}

#[test]
fn sessions_wait_as_erlang_c_has_it() {
    // 15.6 service times are one relaxation time at this load: 100 s of warm-up are more than six.
    let (warm_up, sites, hosts) = (100.0, 50, 100_000);
    let (mut waits, mut shares) = (Vec::new(), Vec::new());
    for seed in 1..=2 {
        for hosts in queue_of(sites, hosts, 100, 95.0, "{ exponential_mean = 1 }", seed) {
            let steady: Vec<f64> =
                hosts.iter().filter(|host| host.arrived_seconds.unwrap() > warm_up).map(wait).collect();
            let n = steady.len() as f64;
            waits.push(steady.iter().sum::<f64>() / n);
            shares.push(steady.iter().filter(|wait| **wait > 0.0).count() as f64 / n);
        }
    }
    let ((wait, wait_half), (share, share_half)) = (interval(&waits), interval(&shares));
    assert!(wait_half <= 0.05 * 0.1013 && share_half <= 0.05 * 0.506, "{wait} +- {wait_half}, {share} +- {share_half}");
    assert!((wait - 0.1013).abs() <= wait_half, "{wait} +- {wait_half}");
    assert!((share - 0.506).abs() <= share_half, "{share} +- {share_half}");
}

#[test]
fn sessions_of_fixed_length_wait_about_half_as_long() {
    let hosts = queue_of(40, 100_000, 100, 95.0, "{ fixed = 1 }", 3);
    let mean = |hosts: &Vec<HostResult>| {
        let steady: Vec<f64> = hosts.iter().filter(|host| host.arrived_seconds.unwrap() > 100.0).map(wait).collect();
        steady.iter().sum::<f64>() / steady.len() as f64
    };
    let (wait, half) = interval(&hosts.iter().map(mean).collect::<Vec<_>>());
    assert!(half < 0.05 * 0.0536 && (wait - 0.0536).abs() <= half + 0.0001, "{wait} +- {half}");
}

#[test]
fn all_at_once_take_as_many_turns_as_it_needs() {
    let run = |hosts: u32, c: u32, install: &str, sites: u32| {
        let text = format!(
            "resolution = \"flow\"\n[payload]\nsize_bytes = 1\n[headquarters]\nuplink_bits_per_second = 10e9\n[[sites]]\ncount = {sites}\n\
             hosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e13\nsessions_limit = {c}\n\
             install_seconds = {install}\n"
        );
        let options = Options { calibration_sites: 0, lifts: false, hosts: false, series_moments: 2 };
        simulate(&Scenario::from_toml(&text).unwrap(), &options, &Threads(2), &|_| {}).unwrap()
    };
    for (hosts, c) in [(1000_u32, 100_u32), (1001, 100), (99, 100), (7, 3)] {
        let (found, least) =
            (run(hosts, c, "{ fixed = 60 }", 1).outcome.makespan_seconds, 60.0 * f64::from(hosts.div_ceil(c)));
        assert!(found >= least && found <= 1.01 * least, "{hosts} hosts, {c} at a time: {found}, at least {least}");
    }
    // Exponential: ((N - c) / c + H_c) S.
    let sites = run(1000, 100, "{ exponential_mean = 1 }", 400).sites;
    let (mean, half) = interval(&sites.iter().map(|site| site.makespan_seconds).collect::<Vec<_>>());
    let expected = 9.0 + (1..=100).map(|k| 1.0 / f64::from(k)).sum::<f64>();
    assert!((expected - 14.19).abs() < 0.01 && half < 0.02 * expected, "{expected} {half}");
    assert!((mean - expected).abs() <= 1.5 * half, "{mean} +- {half}, expected {expected}");
}
