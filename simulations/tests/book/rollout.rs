//! Rollouts limited by lines, sessions at headquarters or the uplink; max-min shares; stragglers.
use branchline_simulations::capacity::{
    BindingTerm, InTurn, Options, Outcome, Scenario, Simulated, maxmin::max_min_shares, simulate,
};

use super::{near, threads::Threads};

const GIB: f64 = 1_073_741_824.0 * 8.0;

fn run(text: &str) -> Outcome {
    let scenario = Scenario::from_toml(text).unwrap();
    let options = Options { calibration_sites: 0, lifts: false, hosts: false, series_moments: 2 };
    simulate(&scenario, &options, &Threads(2), &|_| {}).unwrap().outcome
}

/// `sites` sites of one host whose network hardly counts.
fn identical(sites: u64, uplink: f64, line: f64, concurrent: Option<u64>) -> String {
    let concurrent = concurrent.map_or(String::new(), |sites| format!("concurrent_sites = {sites}"));
    format!(
        "resolution = \"flow\"\n[payload]\nsize_bytes = 1073741824\n[headquarters]\nuplink_bits_per_second = {uplink}\n\
         {concurrent}\n[[sites]]\ncount = {sites}\nhosts = 1\nwan_bits_per_second = {line}\nlan_bits_per_second = 10e9\n"
    )
}

#[test]
fn a_rollout_takes_as_long_as_its_line_its_sessions_or_its_uplink() {
    let cases = [
        (10_000, 10e9, 20e6, Some(100), 42_950.0),
        (10_000, 10e9, 20e6, Some(1_000), 8_590.0),
        (10_000, 10e9, 20e6, None, 8_590.0),
        (100, 10e9, 20e6, None, 429.5),
        (1_000, 10e9, 1.544e6, Some(100), 10.0 * GIB / 1.544e6),
    ];
    for (sites, uplink, line, concurrent, expected) in cases {
        let (n, c) = (sites as f64, concurrent.unwrap_or(sites) as f64);
        let formula = (GIB / line).max(n * GIB / (c * line)).max(n * GIB / uplink);
        near(formula, expected, 0.001);
        let outcome = run(&identical(sites, uplink, line, concurrent));
        near(outcome.makespan_seconds, formula, 0.02);
        assert_eq!(outcome.completed_hosts, sites);
        assert_eq!(outcome.bytes.headquarters, sites << 30);
        assert_eq!(outcome.wan_ratio, 1.0);
    }
}

/// Sites, headquarters' uplink, lines, and sites that fetch at a time: a tenth of the row's sites, because a hundred
/// fetch at a time with any number of them. Over lines of 1.544 Mbit/s these use 154 Mbit/s of 10 Gbit/s.
const FEW_AT_A_TIME: (u64, f64, f64, u64) = (1_000, 10e9, 1.544e6, 100);

fn with_lifts(text: &str) -> Simulated {
    // Each turn takes as long as the others, so that these moments are their ends.
    let series_moments = 1 + (FEW_AT_A_TIME.0 / FEW_AT_A_TIME.3) as u32;
    let options = Options { calibration_sites: 0, lifts: true, hosts: false, series_moments };
    simulate(&Scenario::from_toml(text).unwrap(), &options, &Threads(2), &|_| {}).unwrap()
}

#[test]
fn where_headquarters_serves_too_few_sites_its_uplink_is_idle_and_the_limit_is_named() {
    let (sites, uplink, line, c) = FEW_AT_A_TIME;
    assert!((c as f64) < uplink / line, "fewer sites than would fill the uplink");
    let text = identical(sites, uplink, line, Some(c));
    let simulated = with_lifts(&text);
    for sent in &simulated.series.headquarters_bits_per_second[1..] {
        near(*sent, 154.4e6, 0.01);
    }
    // What it gains to serve all of them at a time: then the lines or the uplink limit.
    let formula = |c: u64| (GIB / line).max(sites as f64 * GIB / (c as f64 * line)).max(sites as f64 * GIB / uplink);
    let lift = simulated.lifts.iter().find(|lift| lift.term == BindingTerm::SessionLimit).unwrap();
    near(lift.makespan_seconds, formula(sites), 0.01);
    near(lift.gain_seconds, formula(c) - formula(sites), 0.01);
    // By the parts of its makespan: the last site waits nine turns of ten.
    assert_eq!(run(&text).binding_term, BindingTerm::SessionLimit);
    // By what lifting a term gains, too.
    let slower = with_lifts(&text.replace("lan_bits_per_second = 10e9", "lan_bits_per_second = 10e6"));
    assert_eq!(slower.outcome.binding_term, BindingTerm::SessionLimit, "{:?}", slower.lifts);
}

#[test]
fn with_any_cards_the_limit_is_named_where_it_keeps_the_uplink_idle() {
    // Twice as fast lines and twice as many sites at a time make a rollout of c sites at a time equally fast, so that a
    // gain alone could not tell which of the two to name: lines are judged beside a limit that is lifted.
    let named = [(1_000, 1.544e6), (10_000, 1.544e6), (10_000, 20e6)].map(|(sites, line)| {
        let (_, uplink, _, c) = FEW_AT_A_TIME;
        let simulated = with_lifts(&identical(sites, uplink, line, Some(c)));
        println!("{sites} sites, lines of {line}: {:?}", &simulated.lifts[..3]);
        simulated.outcome.binding_term
    });
    assert_eq!(named, [BindingTerm::SessionLimit; 3], "what the reports name");
}

#[test]
fn the_exact_solver_has_the_shares_of_the_row() {
    let shares = |capacities: &[u64], flows: &[Vec<usize>]| -> Vec<f64> {
        max_min_shares(capacities, flows).into_iter().map(|share| share.value()).collect()
    };
    // Uplinks A and B, downlinks X and Y; the flows AX, AY, BX, BY.
    let both = [vec![0, 2], vec![0, 3], vec![1, 2], vec![1, 3]];
    assert_eq!(shares(&[10, 20, 15, 15], &both), [5.0, 5.0, 10.0, 10.0]);
    assert_eq!(shares(&[2, 10, 10, 15], &[vec![0, 3], vec![1, 3], vec![2, 3]]), [2.0, 6.5, 6.5]);
    // Headquarters at 100 Mbit/s and lines into six sites, in kbit/s.
    let capacities = [100_000, 1_544, 8_000, 10_000, 20_000, 50_000, 100_000];
    let flows: Vec<Vec<usize>> = (1..capacities.len()).map(|site| vec![0, site]).collect();
    assert_eq!(shares(&capacities, &flows), [1_544.0, 8_000.0, 10_000.0, 20_000.0, 30_228.0, 30_228.0]);
}

#[test]
fn sites_share_the_uplink_max_min_fair() {
    let lines = [1.544e6, 8e6, 10e6, 20e6, 50e6, 100e6];
    let head = |uplink: f64| {
        format!(
            "resolution = \"flow\"\n[payload]\nsize_bytes = 1000000000\n[headquarters]\nuplink_bits_per_second = {uplink}\n"
        )
    };
    let sites: String = lines
        .iter()
        .map(|line| format!("[[sites]]\nhosts = 1\nlan_bits_per_second = 10e9\nwan_bits_per_second = {line}\n"))
        .collect();
    let outcome = run(&(head(100e6) + &sites));
    // When the fast ones are done the others go on at their own limits, so their mean rates are these.
    let ends = [5181.347, 1000.0, 800.0, 400.0, 264.655, 264.655];
    for (site, end) in outcome.sites.iter().zip(ends) {
        near(site.makespan_seconds, end, 0.002);
        near(site.rate_bits_per_second, 8e9 / end, 0.001);
    }
    let shares = run(&(head(50e6) + &sites));
    let expected = [1.544e6, 8e6, 10e6, 8e9 / 788.0];
    // At 50 Mbit/s the three fastest share what is left, 10.152 Mbit/s each, until they are done at the same time.
    let done = 8e9 / 10.152e6;
    for site in &shares.sites[3..] {
        near(site.makespan_seconds, done, 0.002);
        near(site.rate_bits_per_second, 10.152e6, 0.001);
    }
    for (site, rate) in shares.sites.iter().zip(expected) {
        near(site.rate_bits_per_second, rate, 0.001);
    }
}

#[test]
fn the_last_of_n_hosts_that_were_off_is_back_after_the_harmonic_number_of_means() {
    for (hosts, mean_hours, expected_hours) in [(30_u32, 8.0, 31.96), (10_000, 8.0, 78.3)] {
        let harmonic: f64 = (1..=hosts).map(|k| 1.0 / f64::from(k)).sum();
        near(harmonic * mean_hours, expected_hours, 0.001);
        let seeds = if hosts > 1000 { 200 } else { 2000 };
        let text = format!(
            "resolution = \"flow\"\n[payload]\nsize_bytes = 1000\n[headquarters]\nuplink_bits_per_second = 10e9\n[[sites]]\n\
             count = {seeds}\nhosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 10e9\n\
             offline = {{ share = 1.0, return_mean_seconds = {} }}\n",
            mean_hours * 3600.0
        );
        let scenario = Scenario::from_toml(&text).unwrap();
        let options = Options { calibration_sites: 0, lifts: false, hosts: false, series_moments: 2 };
        let sites = simulate(&scenario, &options, &Threads(2), &|_| {}).unwrap().sites;
        let hours: Vec<f64> = sites.iter().map(|site| site.makespan_seconds / 3600.0).collect();
        let mean = hours.iter().sum::<f64>() / hours.len() as f64;
        // The variance of the last is (pi^2 / 6) / r^2: three standard errors.
        let error = 3.0 * 1.2825 * mean_hours / f64::from(seeds).sqrt();
        assert!(
            (mean - harmonic * mean_hours).abs() < error,
            "{mean} h, expected {} +- {error}",
            harmonic * mean_hours
        );
        assert!(error < 0.1 * harmonic * mean_hours);
    }
}

#[test]
fn the_same_seed_gives_the_same_bytes_on_any_number_of_threads() {
    let text = "seed = 11\nresolution = \"flow\"\n[payload]\nsize_bytes = 300000000\n[headquarters]\n\
        uplink_bits_per_second = 400e6\nconcurrent_sites = 30\n[[sites]]\ncount = 60\nhosts = { range = [3, 40] }\n\
        wan_bits_per_second = { lognormal = [20e6, 0.8] }\nwan_latency_seconds = 0.02\nlan_bits_per_second = { one_of = [1e8, 1e9] }\n\
        slow_share = 0.1\nslow_factor = 0.2\nsessions_limit = 4\ninstall_seconds = { lognormal = [60, 0.5] }\n\
        offline = { share = 0.1, return_mean_seconds = 3600 }\nchurn = { leave_per_hour = 1 }\nfailure_share = 0.02\n\
        loss = 0.0001\n[[sites]]\ncount = 9\nhosts = 20\nwan_bits_per_second = 5e6\nlan_bits_per_second = 1e8\nwifi = true\n\
        arrivals = { poisson_per_second = 0.1 }\nstation_fails_at_seconds = 100\n[rollout]\nwaves = [0.1, 0.5, 1.0]\n\
        thresholds = { success = 0.9, error = 0.2 }\nwindows = [{ opens_seconds = 1000, lasts_seconds = 20000 }]\n";
    let scenario = Scenario::from_toml(text).unwrap();
    let options = Options { calibration_sites: 0, ..Options::default() };
    let json = |simulated| serde_json::to_string(&simulated).unwrap();
    let one = json(simulate(&scenario, &options, &InTurn, &|_| {}).unwrap());
    let three = json(simulate(&scenario, &options, &Threads(3), &|_| {}).unwrap());
    assert_eq!(one, three);
    let other = Scenario { seed: 12, ..scenario };
    assert_ne!(one, json(simulate(&other, &options, &Threads(2), &|_| {}).unwrap()));
}
