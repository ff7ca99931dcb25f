//! Chunk and flow: which is chosen, that neither depends on threads, and how far they are from each other.
use branchline_simulations::capacity::{
    InTurn, Neighbours, Options, Resolution, Scenario, Simulated, calibrate_flow, resolution_of, simulate,
};

use super::threads::Threads;

fn scenario(sites: u64, hosts: u64, resolution: &str) -> Scenario {
    let text = format!(
        "seed = 11\n{resolution}\n[payload]\nsize_bytes = 67108864\nchunk_bytes = 262144\n\
         [headquarters]\nuplink_bits_per_second = 1e9\n[[sites]]\ncount = {sites}\nhosts = {hosts}\n\
         wan_bits_per_second = {{ range = [20e6, 200e6] }}\nlan_bits_per_second = 100e6\nslow_share = 0.1\n\
         slow_factor = 0.5\ninstall_seconds = {{ fixed = 10 }}\noffline = {{ share = 0.1, return_mean_seconds = 30 }}\n"
    );
    Scenario::from_toml(&text).unwrap()
}

fn run(scenario: &Scenario, threads: usize) -> Simulated {
    let options = Options { calibration_sites: 0, lifts: false, ..Options::default() };
    simulate(scenario, &options, &Threads(threads), &|_| {}).unwrap()
}

fn full_view(mut scenario: Scenario) -> Scenario {
    scenario.sites.iter_mut().for_each(|site| site.neighbours = Neighbours::All);
    scenario
}

#[test]
fn frame_by_frame_too_the_answer_does_not_depend_on_threads() {
    let scenario = scenario(6, 20, "resolution = \"chunk\"");
    let (one, four) = (run(&scenario, 1), run(&scenario, 4));
    assert_eq!(one, four);
    assert_eq!(one.outcome.resolution, Resolution::Chunk);
    assert_eq!(one.outcome.completed_hosts, 120);
    assert_eq!(one.outcome.wan_ratio, 1.0);
    let mut ends: Vec<f64> = one.sites.iter().map(|site| site.spread_seconds).collect();
    ends.sort_by(f64::total_cmp);
    ends.dedup();
    assert_eq!(ends.len(), 6, "every site is simulated with its own figures");
}

#[test]
fn what_is_small_is_simulated_frame_by_frame() {
    assert_eq!(resolution_of(&scenario(100, 20, "")), Resolution::Chunk);
    assert_eq!(resolution_of(&scenario(10_000, 100, "")), Resolution::Flow);
    assert_eq!(resolution_of(&scenario(10_000, 100, "resolution = \"chunk\"")), Resolution::Chunk);
    assert_eq!(resolution_of(&scenario(1, 2, "resolution = \"flow\"")), Resolution::Flow);
    // A frame is announced to every neighbour, so that a full view costs more.
    assert_eq!(resolution_of(&scenario(100, 200, "")), Resolution::Chunk);
    assert_eq!(resolution_of(&full_view(scenario(100, 200, ""))), Resolution::Flow);
}

#[test]
fn the_error_of_the_flow_is_measured_on_sites_that_it_was_not_fitted_to() {
    let scenario = scenario(40, 20, "resolution = \"flow\"");
    let found = calibrate_flow(&scenario, 24, &Threads(2)).unwrap();
    println!("{found:?}");
    assert_eq!((found.fitted_sites, found.measured_sites), (12, 12));
    assert!(found.error_half_width > 0.0, "sites differ");
    assert!(found.error_mean.abs() <= 0.05 + found.error_half_width, "{found:?}");
    assert!(found.error_max < 0.25, "{found:?}");
    assert_eq!(found, calibrate_flow(&scenario, 24, &InTurn).unwrap());
    let options = Options { calibration_sites: 24, lifts: false, hosts: false, ..Options::default() };
    let simulated = simulate(&scenario, &options, &InTurn, &|_| {}).unwrap();
    assert_eq!(simulated.calibration, Some(found), "the report states it");
}

#[test]
fn where_every_entry_has_one_site_the_error_is_not_known() {
    let found = calibrate_flow(&scenario(1, 20, "resolution = \"flow\""), 16, &Threads(1)).unwrap();
    assert_eq!((found.fitted_sites, found.measured_sites), (1, 0));
    assert_eq!((found.error_mean, found.error_half_width, found.error_max), (0.0, 0.0, 0.0));
}
