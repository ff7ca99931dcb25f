//! The flow fitted to chunks where sites come in waves, and where some never come.
use branchline_simulations::capacity::{BindingTerm, InTurn, Options, Scenario, calibrate_flow, simulate};

use super::small::{BOTH, near, run, run_fitted, scenario};
use crate::threads::Threads;

/// Sites of one kind in two waves; in the second the uplink is shared by many, in the first it is not.
fn two_waves(resolution: &str, uplink: f64) -> Scenario {
    scenario(
        resolution,
        8,
        uplink,
        "[[sites]]\ncount = 24\nhosts = 12\nwan_bits_per_second = { range = [20e6, 60e6] }\n\
         lan_bits_per_second = 50e6\ninstall_seconds = { fixed = 5 }\n\
         [rollout]\nwaves = [0.125, 1.0]\nthresholds = { success = 0.9 }\n",
    )
}

#[test]
fn the_error_is_small_where_waves_share_the_uplink_in_turn() {
    for seed in 1..=4 {
        let scenario = Scenario { seed, ..two_waves("flow", 60e6) };
        let found = calibrate_flow(&scenario, 16, &Threads(2)).unwrap();
        assert_eq!((found.fitted_sites, found.measured_sites), (8, 8), "seed {seed}: {found:?}");
        // The first wave has the uplink for three sites, the second for twenty-one.
        assert!(found.error_mean.abs() <= 0.01, "seed {seed}: {found:?}");
        assert!(found.error_half_width < 0.02 && found.error_max < 0.05, "seed {seed}: {found:?}");
        assert_eq!(found, calibrate_flow(&scenario, 16, &InTurn).unwrap(), "seed {seed}");
    }
}

#[test]
fn where_sites_share_nothing_it_is_all_one_to_the_fit_when_they_begin() {
    // Times count from the begin of a site's wave: a late site is not the nearer for being late.
    let waves = two_waves("flow", 10e9);
    let mut at_once = waves.clone();
    at_once.rollout.waves.clear();
    let found = calibrate_flow(&waves, 16, &Threads(2)).unwrap();
    let other = calibrate_flow(&at_once, 16, &Threads(2)).unwrap();
    assert_eq!((found.fitted_sites, found.measured_sites), (other.fitted_sites, other.measured_sites));
    near("stretch", found.stretch[0], other.stretch[0], 1e-3);
    for (found, other) in [
        (found.error_mean, other.error_mean),
        (found.error_half_width, other.error_half_width),
        (found.error_max, other.error_max),
    ] {
        assert!((found - other).abs() < 1e-4, "{found} in waves, {other} at once");
    }
    assert!(other.error_max > 0.01, "sites differ: {other:?}");
}

#[test]
fn a_flow_that_is_fitted_says_what_the_chunks_say_of_every_wave() {
    for uplink in [60e6, 10e9] {
        let chunk = run(&two_waves("chunk", uplink));
        let flow = run_fitted(&two_waves("flow", uplink), 16);
        near("second wave", flow.waves[1].began_seconds.unwrap(), chunk.waves[1].began_seconds.unwrap(), 0.03);
        near("makespan", flow.outcome.makespan_seconds, chunk.outcome.makespan_seconds, 0.03);
        near("median", flow.outcome.completion_seconds.p50, chunk.outcome.completion_seconds.p50, 0.03);
        assert_eq!(flow.outcome.bytes.headquarters, chunk.outcome.bytes.headquarters);
    }
}

#[test]
fn a_flow_that_is_fitted_answers_a_rollout_with_everything_in_it_as_the_chunks_do() {
    let [chunk, flow] = BOTH.map(|resolution| run_fitted(&super::answers::mixed(resolution), 12));
    for (chunk, flow) in chunk.sites.iter().zip(&flow.sites) {
        assert_eq!((flow.hosts, flow.completed), (chunk.hosts, chunk.completed));
        near("spread of a site", flow.spread_seconds, chunk.spread_seconds, 0.01);
    }
    let (chunk, flow) = (chunk.outcome, flow.outcome);
    assert_eq!(flow.completed_hosts, chunk.completed_hosts);
    assert_eq!(flow.addresses, chunk.addresses);
    assert_eq!((flow.bytes.headquarters, flow.bytes.wan), (chunk.bytes.headquarters, chunk.bytes.wan));
    near("waited", flow.queue.waited_share, chunk.queue.waited_share, 0.02);
    near("mean wait", flow.queue.wait_mean_seconds, chunk.queue.wait_mean_seconds, 0.1);
    // Who of a site is ready first is for each resolution to find, and with it whose installation comes first.
    near("makespan", flow.makespan_seconds, chunk.makespan_seconds, 0.1);
    near("median", flow.completion_seconds.p50, chunk.completion_seconds.p50, 0.15);
    near("p95", flow.completion_seconds.p95, chunk.completion_seconds.p95, 0.1);
}

/// Every installation fails, and none may: of the ten sites of the first entry one begins, the second entry never does.
fn stopped(resolution: &str) -> Scenario {
    scenario(
        resolution,
        2,
        1e9,
        "[[sites]]\ncount = 10\nhosts = 8\nwan_bits_per_second = 20e6\nlan_bits_per_second = 50e6\n\
         failure_share = 1.0\n\
         [[sites]]\ncount = 3\nhosts = 8\nwan_bits_per_second = 20e6\nlan_bits_per_second = 50e6\n\
         [rollout]\nwaves = [0.1, 1.0]\nthresholds = { success = 0.5, error = 0.25 }\n",
    )
}

#[test]
fn where_thresholds_stop_a_rollout_entries_that_never_begin_are_not_fitted() {
    let found = calibrate_flow(&stopped("flow"), 16, &Threads(2)).unwrap();
    assert_eq!((found.fitted_sites, found.measured_sites), (1, 0), "{found:?}");
    assert_eq!(found.stretch[1], 1.0, "{found:?}");
    assert!((0.5..=8.0).contains(&found.stretch[0]), "{found:?}");
    assert_eq!((found.error_mean, found.error_half_width, found.error_max), (0.0, 0.0, 0.0));
}

#[test]
fn a_rollout_that_is_stopped_has_an_answer_with_lifts_in_both_resolutions() {
    for resolution in BOTH {
        let options = Options { calibration_sites: 8, ..Options::default() };
        let found = simulate(&stopped(resolution), &options, &Threads(2), &|_| {}).unwrap();
        assert_eq!((found.outcome.completed_hosts, found.outcome.makespan_seconds), (0, 0.0), "{resolution}");
        assert_eq!(found.waves[1].began_seconds, None, "{resolution}");
        assert_eq!(found.lifts.len(), 6, "{resolution}");
        assert!(
            found.lifts.iter().all(|lift| lift.gain_seconds == 0.0 && lift.makespan_seconds == 0.0),
            "{resolution}: {:?}",
            found.lifts
        );
        assert_eq!(found.outcome.bytes.headquarters, 2 << 20, "{resolution}: one site began");
    }
}

#[test]
fn what_is_gained_without_a_limit_of_chunks_is_near_what_the_chunks_themselves_gain() {
    // The lifts of a rollout frame by frame come from a flow that is fitted to it; here chunks say what is left.
    let rollout = |uplink: f64, line: f64| {
        scenario(
            "chunk",
            8,
            uplink,
            &format!(
                "[[sites]]\ncount = 4\nhosts = 12\nwan_bits_per_second = {line}\nlan_bits_per_second = 50e6\n\
                 install_seconds = {{ fixed = 5 }}\n"
            ),
        )
    };
    let options = Options { calibration_sites: 0, ..Options::default() };
    let found = simulate(&rollout(30e6, 10e6), &options, &Threads(2), &|_| {}).unwrap();
    for (term, without) in
        [(BindingTerm::HeadquartersUplink, rollout(1e13, 10e6)), (BindingTerm::Wan, rollout(30e6, 1e13))]
    {
        let gain = found.outcome.makespan_seconds - run(&without).outcome.makespan_seconds;
        let lift = found.lifts.iter().find(|lift| lift.term == term).unwrap();
        let most = 0.02 * found.outcome.makespan_seconds;
        assert!(
            (lift.gain_seconds - gain).abs() < most,
            "{term:?}: {} for {gain}, {:?}",
            lift.gain_seconds,
            found.lifts
        );
    }
}
