//! What the simulator once did wrong, found by tests of every key: each of these failed before it was mended.
use std::sync::atomic::{AtomicU64, Ordering};

use branchline_simulations::capacity::{BindingTerm, Options, Scenario, Simulated, calibrate_flow, simulate};

use super::small::{BOTH, MEBIBYTE, near, ready, run, run_fitted, scenario};
use crate::threads::Threads;

fn lifted(scenario: &Scenario) -> Simulated {
    let options = Options { calibration_sites: 8, ..Options::default() };
    simulate(scenario, &options, &Threads(2), &|_| {}).unwrap()
}

const FAST: &str = "wan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n";

// Chunk: a station that fails before its site begins to fetch.

#[test]
fn a_site_whose_station_fails_at_once_is_served_by_a_host() {
    for resolution in BOTH {
        let rest = "[[sites]]\nhosts = 4\nwan_bits_per_second = 2e6\nlan_bits_per_second = 1e9\nstation_fails_at_seconds = 0\n";
        let found = run(&scenario(resolution, 2, 1e9, rest));
        assert_eq!(found.outcome.completed_hosts, 4, "{resolution}");
    }
}

#[test]
fn a_site_whose_station_fails_before_its_wave_is_served_by_a_host() {
    for resolution in BOTH {
        let rest = "[[sites]]\ncount = 2\nhosts = 4\nwan_bits_per_second = 2e6\nlan_bits_per_second = 1e9\n\
             station_fails_at_seconds = 12\nstation_takeover_seconds = 10\ninstall_seconds = { fixed = 30 }\n\
             [rollout]\nwaves = [0.5, 1.0]\n";
        let found = run(&scenario(resolution, 2, 1e9, rest));
        assert_eq!(found.outcome.completed_hosts, 8, "{resolution}");
    }
}

#[test]
fn a_site_whose_station_fails_before_its_place_is_served_by_a_host() {
    for resolution in BOTH {
        let rest = "concurrent_sites = 1\n[[sites]]\ncount = 2\nhosts = 4\nwan_bits_per_second = 2e6\n\
             lan_bits_per_second = 1e9\nstation_fails_at_seconds = 5\nstation_takeover_seconds = 10\n";
        let found = run(&scenario(resolution, 8, 1e9, rest));
        assert_eq!(found.outcome.completed_hosts, 8, "{resolution}: {:?}", found.sites);
    }
}

// Chunk: a prestaged station that fails before everything is out, where the demand thinks that it was.

#[test]
fn what_a_staged_station_had_not_sent_comes_over_the_line() {
    for site in [
        "hosts = 2\nlan_bits_per_second = 100e6\nslow_share = 1.0\nslow_factor = 0.1\nstation_fails_at_seconds = 2",
        "hosts = 10\nlan_bits_per_second = 100e6\nwifi = { bits_per_second = 20e6 }\nstation_fails_at_seconds = 5",
    ] {
        for resolution in BOTH {
            let rest = format!("[[sites]]\nprestaged = true\nwan_bits_per_second = 20e6\n{site}\n");
            let found = run(&scenario(resolution, 16, 1e9, &rest)).outcome;
            assert!(found.completed_hosts > 0 && found.bytes.headquarters > 0, "{resolution}, {site}: {found:?}");
        }
    }
}

// Chunk: a frame that takes more than 30 s over the line never comes (the machine's ORIGIN_SILENCE), in a calibration too.

#[test]
fn a_thin_line_takes_its_time() {
    for seconds in [29.0, 31.0] {
        let line = 0.25 * MEBIBYTE / seconds;
        let rest = format!("[[sites]]\nhosts = 3\nwan_bits_per_second = {line}\nlan_bits_per_second = 1e9\n");
        let found = run(&scenario("chunk", 2, 1e9, &rest)).outcome;
        assert_eq!(found.completed_hosts, 3, "{seconds} s for each frame: {:?}", found.bytes);
    }
}

#[test]
fn a_fit_to_sites_that_never_ended_is_no_fit() {
    let rest = format!(
        "[[sites]]\ncount = 4\nhosts = 3\nwan_bits_per_second = {}\nlan_bits_per_second = 1e9\n",
        0.25 * MEBIBYTE / 40.0
    );
    let found = calibrate_flow(&scenario("flow", 2, 1e9, &rest), 4, &Threads(2)).unwrap();
    assert!((found.stretch[0] - 0.5).abs() > 1e-3 || found.error_max > 0.0, "{found:?}");
}

// The session limit never gains most.

#[test]
fn sessions_bind_where_hosts_take_turns() {
    for resolution in BOTH {
        let rest = format!("[[sites]]\nhosts = 20\n{FAST}sessions_limit = 2\ninstall_seconds = {{ fixed = 60 }}\n");
        let found = lifted(&scenario(resolution, 4, 1e9, &rest));
        assert_eq!(found.outcome.binding_term, BindingTerm::SessionLimit, "{resolution}: {:?}", found.lifts);
    }
}

#[test]
fn places_at_headquarters_bind_where_its_uplink_is_nearly_idle() {
    // Theory: 100 sessions over lines of 1.544 Mbit/s use 154 Mbit/s of 10 Gbit/s; the report should name such a term.
    let text = "resolution = \"flow\"\n[payload]\nsize_bytes = 1073741824\n[headquarters]\nuplink_bits_per_second = 10e9\n\
         concurrent_sites = 100\n[[sites]]\ncount = 1000\nhosts = 1\nwan_bits_per_second = 1.544e6\nlan_bits_per_second = 10e9\n";
    let options = Options { calibration_sites: 0, ..Options::default() };
    let found = simulate(&Scenario::from_toml(text).unwrap(), &options, &Threads(2), &|_| {}).unwrap();
    assert_eq!(found.outcome.binding_term, BindingTerm::SessionLimit, "{:?}", found.lifts);
}

// Hosts that fail while they wait for a slot, or while they install, complete all the same.

#[test]
fn a_host_that_fails_while_it_waits_for_a_slot_never_gets_one() {
    for resolution in BOTH {
        let rest = format!(
            "[[sites]]\nhosts = 10\nprestaged = true\n{FAST}sessions_limit = 1\ninstall_seconds = {{ fixed = 60 }}\n\
             hosts_fail = {{ count = 5, at_seconds = 100 }}\n"
        );
        let found = run(&scenario(resolution, 1, 1e9, &rest));
        for host in found.hosts.iter().filter(|host| host.host >= 5 && host.completed) {
            assert!(host.ended_seconds.unwrap() <= 100.0, "{resolution}: {host:?}");
        }
    }
}

#[test]
fn a_host_that_fails_while_it_installs_is_not_complete() {
    for resolution in BOTH {
        let rest = format!(
            "[[sites]]\nhosts = 10\nprestaged = true\n{FAST}install_seconds = {{ fixed = 60 }}\n\
             hosts_fail = {{ count = 5, at_seconds = 30 }}\n"
        );
        let found = run(&scenario(resolution, 1, 1e9, &rest)).outcome;
        assert_eq!(found.completed_hosts, 5, "{resolution}");
    }
}

#[test]
fn a_host_on_the_air_that_fails_has_not_what_it_would_have_had_later() {
    for resolution in BOTH {
        let rest = "[[sites]]\ncount = 2\nhosts = 10\nprestaged = true\nwan_bits_per_second = 20e6\nlan_bits_per_second = 1e9\n\
             wifi = { bits_per_second = 50e6 }\nhosts_fail = { count = 5, at_seconds = 5 }\n";
        let found = run_fitted(&scenario(resolution, 8, 1e9, rest), 4);
        assert_eq!(found.outcome.completed_hosts, 10, "{resolution}: {:?}", ready(&found));
    }
}

// Chunk: round trips between frames are counted in the line's rate and once more frame by frame.

#[test]
fn a_round_trip_between_two_frames_is_counted_once() {
    for (chunk_bytes, latency, line) in [(1 << 20, 0.1, 100e6), (1 << 20, 0.03, 20e6), (262_144, 0.1, 100e6)] {
        let [chunk, flow] = BOTH.map(|resolution| {
            let rest = format!(
                "[[sites]]\nhosts = 2\nwan_bits_per_second = {line}\nwan_latency_seconds = {latency}\nlan_bits_per_second = 10e9\n"
            );
            let mut scenario = scenario(resolution, 32, 10e9, &rest);
            scenario.payload.chunk_bytes = Some(chunk_bytes);
            run(&scenario).outcome.makespan_seconds
        });
        near(&format!("frames of {chunk_bytes}, {latency} s, {line}"), chunk, flow, 0.03);
    }
}

// Flow: a frame is lost wherever a station fails, however long after the end.

#[test]
fn a_station_that_fails_long_after_the_end_costs_nothing() {
    for resolution in BOTH {
        let rest = format!("[[sites]]\nhosts = 20\n{FAST}station_fails_at_seconds = 1000\n");
        let found = run(&scenario(resolution, 4, 1e9, &rest)).outcome;
        assert_eq!(found.wan_ratio, 1.0, "{resolution}: {:?}", found.bytes);
    }
}

// The term by the parts of the makespan.

#[test]
fn by_the_parts_a_staged_site_is_not_bound_by_sessions() {
    for resolution in BOTH {
        let site = |more: &str| format!("[[sites]]\nhosts = 20\nprestaged = true\nwan_bits_per_second = 1e9\n{more}\n");
        let cards = run(&scenario(resolution, 16, 1e9, &site("lan_bits_per_second = 20e6"))).outcome;
        assert_eq!(cards.binding_term, BindingTerm::Lan, "{resolution}");
        let off = "lan_bits_per_second = 1e9\noffline = { share = 1.0, return_mean_seconds = 600 }";
        let late = run(&scenario(resolution, 1, 1e9, &site(off))).outcome;
        assert_eq!(late.binding_term, BindingTerm::Stragglers, "{resolution}");
    }
}

#[test]
fn by_the_parts_who_waits_for_a_window_is_late() {
    for resolution in BOTH {
        let rest = format!(
            "[[sites]]\nhosts = 4\n{FAST}install_seconds = {{ fixed = 13 }}\n\
             [rollout]\nwindows = [{{ opens_seconds = 1000, lasts_seconds = 100 }}]\n"
        );
        let found = run(&scenario(resolution, 4, 1e9, &rest)).outcome;
        assert_eq!(found.binding_term, BindingTerm::Stragglers, "{resolution}");
    }
}

#[test]
fn by_the_parts_an_inlet_whose_card_is_slower_than_its_line_is_bound_by_the_network() {
    for resolution in BOTH {
        let rest = "[[sites]]\nhosts = 10\nwan_bits_per_second = 1e9\nlan_bits_per_second = 10e6\n";
        let found = run(&scenario(resolution, 16, 1e9, rest)).outcome;
        assert_eq!(found.binding_term, BindingTerm::Lan, "{resolution}");
    }
}

// A share that is no binary fraction.

#[test]
fn fifty_five_of_a_hundred_are_fifty_five() {
    for resolution in BOTH {
        let rest = format!(
            "[[sites]]\ncount = 2\nhosts = 100\nprestaged = true\n{FAST}sessions_limit = 1\ninstall_seconds = {{ fixed = 10 }}\n\
             [rollout]\nwaves = [0.5, 1.0]\nthresholds = {{ success = 0.55 }}\n"
        );
        let found = run(&scenario(resolution, 1, 1e9, &rest));
        near(resolution, found.waves[1].began_seconds.unwrap(), 550.0, 0.001);
    }
}

// Every wave simulates all sites again.

#[test]
fn no_more_sites_are_done_than_there_are() {
    let rest = format!(
        "[[sites]]\ncount = 100\nhosts = 5\n{FAST}install_seconds = {{ fixed = 10 }}\n[rollout]\nwaves = [0.25, 0.5, 0.75, 1.0]\n\
         thresholds = {{ success = 1.0 }}\n"
    );
    let (most, options) = (AtomicU64::new(0), Options { calibration_sites: 0, lifts: false, ..Options::default() });
    let told = |progress: branchline_simulations::capacity::Progress| {
        most.fetch_max(progress.done, Ordering::Relaxed);
    };
    simulate(&scenario("flow", 1, 1e9, &rest), &options, &Threads(2), &told).unwrap();
    assert_eq!(most.into_inner(), 100, "a wave begins when all of the one before is done: nothing is stale");
}

// A host that comes where only the station is left finds nobody.

#[test]
fn a_host_that_comes_to_a_station_alone_is_served() {
    let mut never = 0;
    for seed in 0..50 {
        let rest = format!(
            "[[sites]]\ncount = 4\nhosts = 40\n{FAST}offline = {{ share = 1.0, return_mean_seconds = 600 }}\nlinger_seconds = 10\n"
        );
        let found = run(&Scenario { seed, ..scenario("chunk", 1, 1e9, &rest) });
        never += found.hosts.iter().filter(|host| host.ready_seconds.is_none()).count();
    }
    assert_eq!(never, 0, "of 8000 hosts");
}

// A fitted flow is faster than its cards.

#[test]
fn a_fitted_flow_is_never_below_what_a_card_takes() {
    let rest = "[[sites]]\ncount = 8\nhosts = 20\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 100e6\n\
         slow_share = 0.25\nslow_factor = 0.1\n";
    let [chunk, flow] = BOTH.map(|resolution| run_fitted(&scenario(resolution, 4, 1e9, rest), 8).outcome);
    let least = 4.0 * MEBIBYTE / 100e6;
    assert!(
        flow.completion_seconds.p50 >= least,
        "{:?}, chunk {:?}, a card takes {least}",
        flow.completion_seconds,
        chunk.completion_seconds
    );
}

// Small things.

#[test]
fn nothing_is_not_less_than_nothing() {
    let rest = format!("[[sites]]\nhosts = 2\nprestaged = true\n{FAST}");
    let json = serde_json::to_string(&run(&scenario("flow", 1, 1e9, &rest)).outcome).unwrap();
    assert!(!json.contains("-0.0"), "{json}");
}

#[test]
fn a_site_that_never_begins_asks_for_no_addresses() {
    let rest = format!(
        "[[sites]]\ncount = 10\nhosts = 5\nprestaged = true\n{FAST}failure_share = 1.0\n[rollout]\nwaves = [0.1, 1.0]\n"
    );
    let found = run(&scenario("flow", 1, 1e9, &rest)).outcome.addresses;
    assert!(found.batches <= 1, "{found:?}");
}
