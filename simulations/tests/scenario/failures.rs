//! Stations and hosts that fail for good.
use branchline_simulations::capacity::{Scenario, Simulated};

use super::small::{BOTH, MEBIBYTE, near, ready, run, scenario, within};

const FRAME: u64 = 262_144;

/// Two sites whose line takes 67 s for 16 MiB.
fn behind(resolution: &str, more: &str) -> Scenario {
    scenario(
        resolution,
        16,
        1e9,
        &format!("[[sites]]\ncount = 2\nhosts = 20\nwan_bits_per_second = 2e6\nlan_bits_per_second = 100e6\n{more}\n"),
    )
}

const LINE: f64 = 16.0 * MEBIBYTE / 2e6;

#[test]
fn where_the_line_binds_a_station_that_fails_costs_what_the_takeover_takes() {
    for resolution in BOTH {
        let without = run(&behind(resolution, "")).outcome;
        near(resolution, without.makespan_seconds, LINE, 0.02);
        for takeover in [10.0, 60.0, 300.0] {
            let more = format!("station_fails_at_seconds = 20\nstation_takeover_seconds = {takeover}");
            let found = run(&behind(resolution, &more)).outcome;
            let delay = found.makespan_seconds - without.makespan_seconds;
            // The frame that was under way crosses again, and a host asks for the lease some seconds after it could.
            assert!(delay >= takeover && delay <= takeover + 5.0, "{resolution}: {delay} s after {takeover}");
            assert_eq!(found.completed_hosts, 40, "{resolution}");
            let twice = found.bytes.headquarters - without.bytes.headquarters;
            assert!(twice <= 2 * FRAME, "{resolution}: {twice} bytes of two sites crossed twice");
        }
    }
}

#[test]
fn a_minute_passes_until_a_host_takes_over_where_nothing_else_is_said() {
    for resolution in BOTH {
        let default = run(&behind(resolution, "station_fails_at_seconds = 20"));
        let minute = run(&behind(resolution, "station_fails_at_seconds = 20\nstation_takeover_seconds = 60"));
        assert_eq!(default, minute, "{resolution}");
        let alone = run(&behind(resolution, "station_takeover_seconds = 900"));
        assert_eq!(alone, run(&behind(resolution, "")), "{resolution}: where no station fails nobody takes over");
    }
}

#[test]
fn nobody_gets_a_slot_while_nobody_has_taken_over() {
    for resolution in BOTH {
        let rest = "[[sites]]\nhosts = 20\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n\
             sessions_limit = 2\ninstall_seconds = { fixed = 10 }\nstation_fails_at_seconds = 35\n\
             station_takeover_seconds = 100\n";
        let found = run(&scenario(resolution, 1, 1e9, rest));
        let mut starts: Vec<f64> = found.hosts.iter().map(|host| host.started_seconds.unwrap()).collect();
        starts.sort_by(f64::total_cmp);
        assert!(starts.iter().all(|at| !(35.0..135.0).contains(at)), "{resolution}: {starts:?}");
        // Four pairs before it fails, six after.
        within(resolution, starts[7], 30.0, 0.1);
        assert_eq!(starts[8], 135.0, "{resolution}: {starts:?}");
        within(resolution, found.outcome.makespan_seconds, 135.0 + 60.0, 0.1);
    }
}

#[test]
fn hosts_that_fail_are_never_complete_and_the_others_are() {
    for resolution in BOTH {
        let without = run(&behind(resolution, ""));
        let found = run(&behind(resolution, "hosts_fail = { count = 5, at_seconds = 30 }"));
        assert_eq!(found.outcome.completed_hosts, 30, "{resolution}: five of twenty fail in each of two sites");
        for host in &found.hosts {
            assert_eq!(host.completed, host.host < 15, "{resolution}: the last five of each site: {host:?}");
            if !host.completed {
                let times = [host.ready_seconds, host.started_seconds, host.ended_seconds];
                assert_eq!(times, [None; 3], "{resolution}: {host:?}");
            }
        }
        near(resolution, found.outcome.makespan_seconds, without.outcome.makespan_seconds, 0.02);
        assert_eq!(found.outcome.wan_ratio, 1.0, "{resolution}");
        assert_eq!((found.outcome.addresses.needed, found.outcome.addresses.forecast), (30, 40), "{resolution}");
    }
}

#[test]
fn who_was_complete_before_it_failed_stays_complete() {
    for resolution in BOTH {
        let rest = |more: &str| {
            format!(
                "[[sites]]\ncount = 3\nhosts = 30\nprestaged = true\nwan_bits_per_second = 1e9\n\
                 lan_bits_per_second = 1e9\narrivals = {{ poisson_per_second = 0.1 }}\n{more}\n"
            )
        };
        let without = run(&scenario(resolution, 1, 1e9, &rest("")));
        let found = run(&scenario(resolution, 1, 1e9, &rest("hosts_fail = { count = 20, at_seconds = 200 }")));
        let mut both = [0, 0];
        for (before, after) in without.hosts.iter().zip(&found.hosts) {
            // A host is complete a moment after it came, so that nobody is half done when the others fail.
            let stays = before.host < 10 || before.ended_seconds.unwrap() <= 200.0;
            assert_eq!(after.completed, stays, "{resolution}: {before:?} {after:?}");
            both[usize::from(stays)] += usize::from(before.host >= 10);
        }
        assert!(both.iter().all(|count| *count >= 10), "{resolution}: both happen: {both:?}");
        let late = run(&scenario(resolution, 1, 1e9, &rest("hosts_fail = { count = 20, at_seconds = 100000 }")));
        assert_eq!(late.outcome.completed_hosts, 90, "{resolution}: after the end nothing is lost");
    }
}

#[test]
fn a_site_whose_hosts_all_fail_has_nobody_complete() {
    for resolution in BOTH {
        for (count, at) in [(20, 0), (20, 30), (1000, 30)] {
            let found = run(&behind(resolution, &format!("hosts_fail = {{ count = {count}, at_seconds = {at} }}")));
            assert_eq!(found.outcome.completed_hosts, 0, "{resolution}: {count} at {at}");
            assert_eq!(ready(&found), [0.0; 0], "{resolution}: {count} at {at}");
        }
        let none = run(&behind(resolution, "hosts_fail = { count = 0, at_seconds = 0 }"));
        assert_eq!(none.hosts, run(&behind(resolution, "")).hosts, "{resolution}: none fails");
    }
}

#[test]
fn a_wave_waits_for_hosts_that_fail_only_as_far_as_its_threshold_does() {
    let of = |resolution: &str, success: f64| -> Simulated {
        let rest = format!(
            "[[sites]]\ncount = 4\nhosts = 16\nwan_bits_per_second = 8e6\nlan_bits_per_second = 1e9\n\
             hosts_fail = {{ count = 4, at_seconds = 1 }}\n[rollout]\nwaves = [0.5, 1.0]\n\
             thresholds = {{ success = {success} }}\n"
        );
        run(&scenario(resolution, 2, 1e9, &rest))
    };
    for resolution in BOTH {
        let goes_on = of(resolution, 0.75);
        near(resolution, goes_on.waves[1].began_seconds.unwrap(), 2.0 * MEBIBYTE / 8e6, 0.05);
        // In the second wave they have failed before they come.
        assert_eq!(goes_on.outcome.completed_hosts, 48, "{resolution}");
        let waits = of(resolution, 0.8125);
        assert_eq!(waits.waves[1].began_seconds, None, "{resolution}: twelve of sixteen are less than thirteen");
        assert_eq!(waits.outcome.completed_hosts, 24, "{resolution}");
    }
}
