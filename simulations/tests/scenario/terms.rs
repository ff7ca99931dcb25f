//! What binds, and what lifting it would gain: one rollout for each term, in which nothing else comes near.
use branchline_simulations::capacity::{BindingTerm, InTurn, Options, Scenario, Simulated, simulate};

use super::small::{BOTH, MEBIBYTE, near, scenario};
use crate::threads::Threads;

fn simulated(scenario: &Scenario, lifts: bool) -> Simulated {
    let options = Options { calibration_sites: 8, lifts, ..Options::default() };
    simulate(scenario, &options, &Threads(2), &|_| {}).unwrap()
}

/// What must hold of all lifts, whatever binds; the first of them is returned with the whole.
fn with_lifts(resolution: &str, scenario: &Scenario) -> Simulated {
    let found = simulated(scenario, true);
    let (outcome, lifts) = (&found.outcome, &found.lifts);
    let mut terms: Vec<BindingTerm> = lifts.iter().map(|lift| lift.term).collect();
    terms.sort_unstable();
    terms.dedup();
    assert_eq!((lifts.len(), terms.len()), (6, 6), "{resolution}: every term is lifted once: {lifts:?}");
    for pair in lifts.windows(2) {
        assert!(pair[0].gain_seconds >= pair[1].gain_seconds, "{resolution}: the greatest gain first: {lifts:?}");
    }
    for lift in lifts {
        let sum = lift.makespan_seconds + lift.gain_seconds;
        assert!(
            (sum - outcome.makespan_seconds).abs() < 1e-6 && lift.gain_seconds >= 0.0,
            "{resolution}: {lift:?} does not add up to {}",
            outcome.makespan_seconds
        );
    }
    assert_eq!(outcome.binding_term, lifts[0].term, "{resolution}: {lifts:?}");
    found
}

/// With lifts the term gains about so much and most of all, without them the parts of the makespan tell it.
fn binds(term: BindingTerm, gain: f64, share: f64, scenario: impl Fn(&str) -> Scenario) {
    for resolution in BOTH {
        gains(term, gain, share, resolution, &scenario(resolution));
        let parts = simulated(&scenario(resolution), false);
        assert!(parts.lifts.is_empty(), "{resolution}: nothing was to be lifted");
        assert_eq!(parts.outcome.binding_term, term, "{resolution}, by the parts: {:?}", parts.outcome);
    }
}

fn gains(term: BindingTerm, gain: f64, share: f64, resolution: &str, scenario: &Scenario) {
    let found = with_lifts(resolution, scenario);
    assert_eq!(found.outcome.binding_term, term, "{resolution}: {:?}", found.lifts);
    near(&format!("{resolution}, gain without {term:?}"), found.lifts[0].gain_seconds, gain, share);
}

#[test]
fn an_uplink_that_all_sites_share_binds_and_without_it_each_takes_what_its_line_takes() {
    let bits = 16.0 * MEBIBYTE;
    binds(BindingTerm::HeadquartersUplink, bits * (8.0 / 40e6 - 1.0 / 100e6), 0.02, |resolution| {
        scenario(
            resolution,
            16,
            40e6,
            "[[sites]]\ncount = 8\nhosts = 4\nwan_bits_per_second = 100e6\nlan_bits_per_second = 1e9\n",
        )
    });
}

#[test]
fn lines_bind_and_without_them_the_uplink_and_the_cards_are_left() {
    let bits = 16.0 * MEBIBYTE;
    // Two sites share an uplink that is as fast as a card.
    binds(BindingTerm::Wan, bits * (1.0 / 10e6 - 2.0 / 1e9), 0.05, |resolution| {
        scenario(
            resolution,
            16,
            1e9,
            "[[sites]]\ncount = 2\nhosts = 10\nwan_bits_per_second = 10e6\nlan_bits_per_second = 1e9\n",
        )
    });
}

#[test]
fn cards_bind_in_a_site_whose_station_holds_everything() {
    // Sixty-four frames, and four rounds at the most until ten hosts have the last one; without cards nothing is left.
    let rounds = 66.0;
    for resolution in BOTH {
        let scenario = scenario(
            resolution,
            16,
            1e9,
            "[[sites]]\nhosts = 10\nprestaged = true\nwan_bits_per_second = 100e6\nlan_bits_per_second = 20e6\n",
        );
        gains(BindingTerm::Lan, rounds * 0.25 * MEBIBYTE / 20e6, 0.08, resolution, &scenario);
    }
}

#[test]
fn a_radio_medium_binds_where_everything_crosses_it_once_or_twice() {
    // Between ten times the payload and twenty times.
    binds(BindingTerm::Lan, 15.0 * 8.0 * MEBIBYTE / 50e6, 0.34, |resolution| {
        scenario(
            resolution,
            8,
            1e9,
            "[[sites]]\nhosts = 10\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n\
             wifi = { bits_per_second = 50e6 }\n",
        )
    });
}

#[test]
fn installations_bind_where_every_host_has_a_slot() {
    binds(BindingTerm::InstallTime, 120.0, 1e-6, |resolution| {
        scenario(
            resolution,
            16,
            1e9,
            "[[sites]]\ncount = 2\nhosts = 10\nwan_bits_per_second = 100e6\nlan_bits_per_second = 1e9\n\
             install_seconds = { fixed = 120 }\n",
        )
    });
}

/// Hosts of one site that install two at a time; beside it a site whose line takes longer than one installation does.
fn two_at_a_time(resolution: &str) -> Scenario {
    scenario(
        resolution,
        4,
        1e9,
        "[[sites]]\nhosts = 20\nwan_bits_per_second = 100e6\nlan_bits_per_second = 1e9\nsessions_limit = 2\n\
         install_seconds = { fixed = 60 }\n\
         [[sites]]\nhosts = 2\nwan_bits_per_second = 0.25e6\nlan_bits_per_second = 1e9\n",
    )
}

#[test]
fn sessions_bind_where_hosts_take_turns_and_another_site_is_done_later_than_one_turn() {
    // Ten turns of a minute, or what the other site's line takes.
    let left = 4.0 * MEBIBYTE / 0.25e6;
    binds(BindingTerm::SessionLimit, 600.0 - left, 0.01, two_at_a_time);
}

/// Theory: F each over lines of w, c sites at a time, from an uplink that is far from full.
fn sites_in_turns(resolution: &str) -> Scenario {
    scenario(
        resolution,
        1,
        10e9,
        "concurrent_sites = 2\n[[sites]]\ncount = 10\nhosts = 3\nwan_bits_per_second = 1.544e6\n\
         lan_bits_per_second = 1e9\n",
    )
}

#[test]
fn lifting_the_limit_of_sites_leaves_one_turn_of_five() {
    for resolution in BOTH {
        let found = with_lifts(resolution, &sites_in_turns(resolution));
        let lift = found.lifts.iter().find(|lift| lift.term == BindingTerm::SessionLimit).unwrap();
        near(&format!("{resolution}, gain"), lift.gain_seconds, 4.0 * MEBIBYTE / 1.544e6, 0.01);
        near(&format!("{resolution}, left"), lift.makespan_seconds, MEBIBYTE / 1.544e6, 0.02);
        let parts = simulated(&sites_in_turns(resolution), false);
        assert_eq!(parts.outcome.binding_term, BindingTerm::SessionLimit, "{resolution}, by the parts");
    }
}

#[test]
fn hosts_that_are_off_bind_for_as_long_as_the_last_of_them_is_off() {
    straggles(
        "[[sites]]\nhosts = 20\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n\
         offline = { share = 1.0, return_mean_seconds = 600 }\n",
    );
}

#[test]
fn hosts_that_ask_one_after_another_bind_until_the_last_has_asked() {
    straggles(
        "[[sites]]\nhosts = 20\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n\
         arrivals = { poisson_per_second = 0.05 }\n",
    );
}

/// Nothing takes any time but waiting for hosts: what is gained is when the last one comes.
fn straggles(sites: &str) {
    let last = |resolution: &str| {
        let hosts = simulated(&scenario(resolution, 1, 1e9, sites), false).hosts;
        hosts.iter().map(|host| host.arrived_seconds.unwrap()).fold(0.0, f64::max)
    };
    assert!(last("chunk") > 100.0 && last("chunk") == last("flow"), "{} {}", last("chunk"), last("flow"));
    binds(BindingTerm::Stragglers, last("flow"), 0.01, |resolution| scenario(resolution, 1, 1e9, sites));
}

#[test]
fn waves_bind_where_a_site_waits_for_three_others() {
    let of_one = 16.0 * MEBIBYTE / 10e6 + 13.0;
    binds(BindingTerm::Stragglers, 3.0 * of_one, 0.03, |resolution| {
        scenario(
            resolution,
            16,
            1e9,
            "[[sites]]\ncount = 4\nhosts = 4\nwan_bits_per_second = 10e6\nlan_bits_per_second = 1e9\n\
             install_seconds = { fixed = 13 }\n[rollout]\nwaves = [0.25, 0.5, 0.75, 1.0]\n",
        )
    });
}

#[test]
fn a_window_binds_that_opens_long_after_everything_is_there() {
    for resolution in BOTH {
        let scenario = scenario(
            resolution,
            4,
            1e9,
            "[[sites]]\nhosts = 4\nwan_bits_per_second = 10e6\nlan_bits_per_second = 1e9\n\
             install_seconds = { fixed = 13 }\n[rollout]\nwindows = [{ opens_seconds = 1000, lasts_seconds = 100 }]\n",
        );
        gains(BindingTerm::Stragglers, 1000.0 - 4.0 * MEBIBYTE / 10e6, 0.001, resolution, &scenario);
    }
}

#[test]
fn terms_and_gains_do_not_depend_on_who_carries_the_work_out() {
    let scenario = two_at_a_time("flow");
    let options = Options { calibration_sites: 4, ..Options::default() };
    let in_turn = simulate(&scenario, &options, &InTurn, &|_| {}).unwrap();
    assert_eq!(in_turn, simulate(&scenario, &options, &Threads(3), &|_| {}).unwrap());
}
