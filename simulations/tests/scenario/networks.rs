//! The network inside a site: cards, slow hosts, radio, neighbours, and hosts that go once they are complete.
use branchline_simulations::capacity::{Scenario, Simulated};

use super::small::{BOTH, MEBIBYTE, four_sigma, mean, near, ready, run, run_fitted, scenario};

/// A site whose station holds everything.
fn staged(resolution: &str, mebibytes: u64, site: &str) -> Scenario {
    scenario(resolution, mebibytes, 1e9, &format!("[[sites]]\nprestaged = true\nwan_bits_per_second = 1e9\n{site}\n"))
}

fn last_ready(found: &Simulated) -> f64 {
    ready(found).into_iter().fold(0.0, f64::max)
}

#[test]
fn cards_take_the_payload_and_some_rounds() {
    for resolution in BOTH {
        for (hosts, rate) in [(1, 50e6), (10, 50e6), (30, 200e6)] {
            let site = format!("hosts = {hosts}\nlan_bits_per_second = {rate}");
            let found = last_ready(&run(&staged(resolution, 16, &site)));
            let least = 16.0 * MEBIBYTE / rate;
            // Rounds that the last frame needs, and what rarest first with ten neighbours is above the bound.
            let rounds = 64.0 + (f64::from(hosts) + 1.0_f64).log2().ceil();
            let most = 1.15 * rounds / 64.0 * least;
            assert!(found >= least && found <= most, "{resolution}, {hosts} hosts: {found}, {least} to {most}");
        }
    }
}

#[test]
fn with_a_full_view_a_planners_site_is_within_a_twentieth_of_theory() {
    // M + floor(log2 N) rounds (Mundinger, Weber, Weiss): 256 frames, cards the same both ways, as a scenario has them.
    for hosts in [10, 20, 50, 100] {
        let site = format!("hosts = {hosts}\nlan_bits_per_second = 100e6\nneighbours = \"all\"");
        let mut scenario = staged("chunk", 64, &site);
        scenario.payload.chunk_bytes = Some(262_144);
        let rounds = last_ready(&run(&scenario)) / (0.25 * MEBIBYTE / 100e6);
        let least = 256.0 + f64::from(hosts).log2().floor();
        println!("{hosts} hosts: {:.3}", rounds / least);
        assert!(rounds >= least && rounds <= 1.05 * least, "{hosts} hosts: {rounds} rounds, at least {least}");
    }
}

#[test]
fn slow_hosts_are_as_slow_as_their_cards_and_as_many_as_their_share() {
    for resolution in BOTH {
        let site = "count = 10\nhosts = 20\nlan_bits_per_second = 100e6\nslow_share = 0.25\nslow_factor = 0.1";
        let found = run(&staged(resolution, 16, site));
        let least = 16.0 * MEBIBYTE / 10e6;
        // A fast host is done long before a slow one can be.
        let slow = found.hosts.iter().filter(|host| host.ready_seconds.unwrap() >= least).count();
        let most = four_sigma(0.25, 200);
        assert!((slow as f64 / 200.0 - 0.25).abs() < most, "{resolution}: {slow} of 200");
        let between = ready(&found).into_iter().filter(|at| (0.6 * least..least).contains(at)).count();
        assert_eq!(between, 0, "{resolution}: neither slow nor fast");
        let most = found.hosts.iter().map(|host| host.ready_seconds.unwrap()).fold(0.0, f64::max);
        assert!(most < 1.25 * least, "{resolution}: {most} s, a slow card takes {least}");
    }
}

#[test]
fn hosts_that_are_all_slow_are_a_site_of_slow_cards() {
    for resolution in BOTH {
        let slow =
            run(&staged(resolution, 8, "hosts = 10\nlan_bits_per_second = 100e6\nslow_share = 1.0\nslow_factor = 0.2"));
        let found = last_ready(&slow);
        let least = 8.0 * MEBIBYTE / 20e6;
        assert!(found >= least && found <= 1.15 * least, "{resolution}: {found}, at least {least}");
        let even = run(&staged(resolution, 8, "hosts = 10\nlan_bits_per_second = 100e6\nslow_share = 1.0"));
        let fast = run(&staged(resolution, 8, "hosts = 10\nlan_bits_per_second = 100e6"));
        assert_eq!(even.hosts, fast.hosts, "{resolution}: by default a slow host is as fast as the others");
    }
}

#[test]
fn a_medium_carries_everything_once_or_twice_and_takes_longer_than_wire() {
    let on_air = |resolution: &str, wifi: &str| {
        staged(resolution, 8, &format!("count = 2\nhosts = 10\nlan_bits_per_second = 50e6\n{wifi}"))
    };
    for resolution in BOTH {
        let found = run_fitted(&on_air(resolution, "wifi = true"), 4);
        let once = 10.0 * 8.0 * MEBIBYTE / 50e6;
        let last = last_ready(&found);
        assert!(last >= once && last <= 2.1 * once, "{resolution}: {last}, all that hosts receive takes {once}");
        let wire = last_ready(&run(&on_air(resolution, "wifi = false")));
        assert!(last > 5.0 * wire, "{resolution}: {last} on air, {wire} on wire");
        let named = run_fitted(&on_air(resolution, "wifi = { bits_per_second = 50e6 }"), 4);
        assert_eq!(named.hosts, found.hosts, "{resolution}: by default a medium carries what a card does");
        let twice = run_fitted(&on_air(resolution, "wifi = { bits_per_second = 100e6 }"), 4);
        near(resolution, last_ready(&twice), last / 2.0, 0.1);
    }
    let last = BOTH.map(|resolution| last_ready(&run_fitted(&on_air(resolution, "wifi = true"), 4)));
    near("fitted flow beside chunk", last[1], last[0], 0.02);
    let last = BOTH.map(|resolution| last_ready(&run(&on_air(resolution, "wifi = true"))));
    near("flow as theory has it beside chunk", last[1], last[0], 0.1);
}

#[test]
fn a_station_that_is_wired_sends_everything_over_the_air_once() {
    // To one host all frames come from the station. With a second it depends on who sends them.
    for resolution in BOTH {
        let found =
            run(&staged(resolution, 8, "hosts = 1\nlan_bits_per_second = 1e9\nwifi = { bits_per_second = 50e6 }"));
        near(resolution, last_ready(&found), 8.0 * MEBIBYTE / 50e6, 0.02);
    }
}

#[test]
fn more_neighbours_are_faster_and_all_of_them_fastest() {
    let of = |neighbours: &str| {
        let site = format!("count = 3\nhosts = 40\nlan_bits_per_second = 100e6\nneighbours = {neighbours}");
        let found = run(&staged("chunk", 16, &site));
        assert_eq!(found.outcome.completed_hosts, 120, "{neighbours} neighbours");
        let makespans: Vec<f64> = found.sites.iter().map(|site| site.spread_seconds).collect();
        (mean(makespans), found)
    };
    let ((two, _), (ten, of_ten), (all, of_all)) = (of("2"), of("10"), of("\"all\""));
    let least = 16.0 * MEBIBYTE / 100e6;
    assert!(two > 1.1 * ten, "two neighbours {two}, ten {ten}, at least {least}");
    assert!(all < 1.01 * ten && all >= least, "ten neighbours {ten}, all {all}, at least {least}");
    assert_ne!(of_ten.hosts, of_all.hosts);
    assert_eq!(of("40").1.hosts, of_all.hosts, "forty are all that there are");
    let default = run(&staged("chunk", 16, "count = 3\nhosts = 40\nlan_bits_per_second = 100e6"));
    assert_eq!(default.hosts, of_ten.hosts, "ten is what the product takes");
}

#[test]
fn the_flow_learns_of_neighbours_from_the_chunks() {
    let of = |resolution: &str, neighbours: &str| {
        let site = format!("count = 6\nhosts = 30\nlan_bits_per_second = 100e6\nneighbours = {neighbours}");
        let found = run_fitted(&staged(resolution, 16, &site), 6);
        mean(found.sites.iter().map(|site| site.spread_seconds))
    };
    for neighbours in ["2", "10"] {
        near(&format!("{neighbours} neighbours"), of("flow", neighbours), of("chunk", neighbours), 0.06);
    }
}

#[test]
fn hosts_that_go_when_they_are_complete_leave_the_others_to_the_station() {
    let of = |linger: &str| {
        let site = format!(
            "count = 3\nhosts = 30\nlan_bits_per_second = 20e6\narrivals = {{ poisson_per_second = 2.0 }}\n{linger}"
        );
        let found = run(&staged("chunk", 4, &site));
        assert_eq!(found.outcome.completed_hosts, 90, "{linger}");
        (mean(found.hosts.iter().map(|host| host.ready_seconds.unwrap() - host.arrived_seconds.unwrap())), found)
    };
    let ((at_once, _), (a_second, _), (for_good, stays)) = (of("linger_seconds = 0"), of("linger_seconds = 2"), of(""));
    assert!(at_once > 1.05 * for_good, "{at_once} s where hosts go at once, {for_good} where they stay");
    assert!(a_second < at_once && a_second >= 0.98 * for_good, "{at_once} {a_second} {for_good}");
    assert_eq!(of("linger_seconds = 100000").1.hosts, stays.hosts, "who stays longer than it takes stays for good");
}
