//! Waves, their thresholds, and windows.
use branchline_simulations::capacity::{HostResult, Scenario, Simulated};

use super::small::{BOTH, MEBIBYTE, ends, most_at_once, run, scenario, within};

fn in_waves(resolution: &str, failure_share: f64, thresholds: &str) -> Scenario {
    scenario(
        resolution,
        1,
        100e6,
        &format!(
            "[[sites]]\ncount = 10\nhosts = 16\nwan_bits_per_second = {{ range = [2e6, 20e6] }}\n\
             lan_bits_per_second = 1e9\ninstall_seconds = {{ range = [5, 15] }}\nfailure_share = {failure_share}\n\
             [rollout]\nwaves = [0.1, 0.4, 1.0]\nthresholds = {{ {thresholds} }}\n"
        ),
    )
}

fn of_wave(found: &Simulated, wave: u32) -> Vec<HostResult> {
    let of = |host: &&HostResult| found.sites[host.site as usize].wave == wave;
    found.hosts.iter().filter(of).copied().collect()
}

#[test]
fn a_wave_begins_when_the_share_of_the_one_before_is_complete() {
    for resolution in BOTH {
        for (success, needed) in [("0.5", [8, 24]), ("0.875", [14, 42]), ("1.0", [16, 48]), ("0.51", [9, 25])] {
            let found = run(&in_waves(resolution, 0.0, &format!("success = {success}")));
            let sites: Vec<u64> = found.waves.iter().map(|wave| wave.sites).collect();
            assert_eq!(sites, [1, 3, 6], "{resolution}: a tenth, four tenths and all of ten sites");
            assert_eq!(found.waves[0].began_seconds, Some(0.0));
            for (wave, needed) in (0..).zip(needed) {
                let completions = ends(&of_wave(&found, wave));
                let began = found.waves[wave as usize + 1].began_seconds;
                assert_eq!(began, Some(completions[needed - 1]), "{resolution}: {success} of wave {wave}");
                // Nobody of a wave asks for anything before it begins.
                let first =
                    of_wave(&found, wave + 1).iter().map(|host| host.arrived_seconds.unwrap()).fold(1e9, f64::min);
                assert_eq!(Some(first), began, "{resolution}: wave {}", wave + 1);
            }
            assert_eq!(found.outcome.completed_hosts, 160, "{resolution}");
            assert_eq!(found.outcome.wan_ratio, 1.0, "{resolution}");
        }
    }
}

#[test]
fn a_success_of_nothing_has_all_waves_begin_at_once() {
    for resolution in BOTH {
        let found = run(&in_waves(resolution, 0.0, "success = 0.0"));
        let began: Vec<Option<f64>> = found.waves.iter().map(|wave| wave.began_seconds).collect();
        assert_eq!(began, [Some(0.0); 3], "{resolution}");
    }
}

#[test]
fn too_many_failures_stop_the_rollout_and_the_wave_after_it_never_begins() {
    for resolution in BOTH {
        // So many of the first wave's sixteen hosts fail; the wave is through when all that do not are complete.
        let all = run(&in_waves(resolution, 0.4, "success = 0.25"));
        let failed = of_wave(&all, 0).iter().filter(|host| !host.completed).count();
        assert!((3..=12).contains(&failed), "{resolution}: {failed} of 16 fail");
        let stopped = run(&in_waves(resolution, 0.4, "success = 0.25, error = 0.0"));
        assert_eq!(stopped.waves[0].began_seconds, Some(0.0));
        assert_eq!(stopped.waves[1].began_seconds, None, "{resolution}: {failed} failures where none is allowed");
        assert_eq!(stopped.waves[2].began_seconds, None, "{resolution}");
        for host in of_wave(&stopped, 1).iter().chain(&of_wave(&stopped, 2)) {
            let times = [host.arrived_seconds, host.ready_seconds, host.started_seconds, host.ended_seconds];
            assert_eq!((times, host.completed), ([None; 4], false), "{resolution}: {host:?}");
        }
        assert_eq!(stopped.outcome.completed_hosts, 16 - failed as u64, "{resolution}");
        assert_eq!(stopped.outcome.bytes.headquarters, 1 << 20, "{resolution}: one site of ten has fetched");
        assert_eq!(stopped.outcome.wan_ratio, 1.0, "{resolution}");
    }
}

#[test]
fn a_rollout_goes_on_with_as_many_failures_as_are_allowed_and_stops_with_one_more() {
    for resolution in BOTH {
        let thresholds = |success: usize, error: usize| {
            // Sixteenths are exact.
            format!("success = {}, error = {}", success as f64 / 16.0, error as f64 / 16.0)
        };
        let failed = 16 - ends(&of_wave(&run(&in_waves(resolution, 0.4, "success = 0.0")), 0)).len();
        let all = 16 - failed;
        let goes_on = run(&in_waves(resolution, 0.4, &thresholds(all, failed)));
        assert!(goes_on.waves[1].began_seconds.is_some(), "{resolution}: {failed} of {failed} failures");
        let never = run(&in_waves(resolution, 0.4, &thresholds(all + 1, failed)));
        assert_eq!(never.waves[1].began_seconds, None, "{resolution}: {all} never become one more");
        // Whether the failure that is one too many comes before the last success is for the rows to say.
        let rows = of_wave(&goes_on, 0);
        let mut failures: Vec<f64> =
            rows.iter().filter(|host| !host.completed).map(|host| host.ended_seconds.unwrap()).collect();
        failures.sort_by(f64::total_cmp);
        let passed = ends(&rows)[all - 1];
        for (allowed, one_too_many) in failures.into_iter().enumerate() {
            let found = run(&in_waves(resolution, 0.4, &thresholds(all, allowed)));
            let expected = (one_too_many > passed).then_some(passed);
            assert_eq!(found.waves[1].began_seconds, expected, "{resolution}: {allowed} of {failed} allowed");
        }
    }
}

/// A window of 50 s in every 200, in which each of two slots is given three times: at 0, 20 and 40 s.
fn in_windows(resolution: &str) -> Scenario {
    scenario(
        resolution,
        4,
        1e9,
        "[[sites]]\nhosts = 20\nwan_bits_per_second = 1e6\nlan_bits_per_second = 1e9\nsessions_limit = 2\n\
         install_seconds = { fixed = 20 }\n[rollout]\n\
         windows = [{ opens_seconds = 100, lasts_seconds = 50, every_seconds = 200 }]\n",
    )
}

#[test]
fn nobody_begins_to_install_outside_a_window_and_staging_goes_on() {
    for resolution in BOTH {
        let found = run(&in_windows(resolution));
        let site = found.sites[0];
        within(&format!("{resolution}, fetched"), site.fetched_seconds, 4.0 * MEBIBYTE / 1e6, 0.1);
        assert!(site.spread_seconds < 100.0, "{resolution}: staged before the first window, {site:?}");
        let mut starts = Vec::new();
        for host in &found.hosts {
            let started = host.started_seconds.unwrap();
            let since = (started - 100.0).rem_euclid(200.0);
            assert!(started >= 100.0 && since < 50.0, "{resolution}: {host:?}");
            // Who began within may end after it has closed.
            assert_eq!(host.ended_seconds, Some(started + 20.0), "{resolution}");
            starts.push(started);
        }
        starts.sort_by(f64::total_cmp);
        let expected: Vec<f64> = (0..20).map(|turn| f64::from(100 + turn / 6 * 200 + turn % 6 / 2 * 20)).collect();
        assert_eq!(starts, expected, "{resolution}: six in each window");
        assert_eq!(found.outcome.makespan_seconds, 720.0, "{resolution}");
    }
}

#[test]
fn of_several_windows_the_next_counts_and_a_day_is_between_two_openings() {
    for resolution in BOTH {
        let rest = "[[sites]]\nhosts = 6\nprestaged = true\nwan_bits_per_second = 1e6\nlan_bits_per_second = 1e9\n\
             sessions_limit = 1\ninstall_seconds = { fixed = 20 }\n[rollout]\nwindows = [\n\
             { opens_seconds = 500, lasts_seconds = 30 }, { opens_seconds = 100, lasts_seconds = 30 }]\n";
        let found = run(&scenario(resolution, 1, 1e9, rest));
        let mut starts: Vec<f64> = found.hosts.iter().map(|host| host.started_seconds.unwrap()).collect();
        starts.sort_by(f64::total_cmp);
        assert_eq!(starts, [100.0, 120.0, 500.0, 520.0, 86_500.0, 86_520.0], "{resolution}");
    }
}

#[test]
fn no_more_sites_fetch_at_a_time_than_headquarters_serves() {
    for resolution in BOTH {
        for concurrent in [1, 2, 5] {
            let found = run(&scenario(
                resolution,
                1,
                1e9,
                &format!(
                    "concurrent_sites = {concurrent}\n[[sites]]\ncount = 8\nhosts = 3\n\
                     wan_bits_per_second = {{ range = [1e6, 4e6] }}\nlan_bits_per_second = 1e9\n"
                ),
            ));
            // Frame by frame a site is the fifth of a millisecond behind that its station's lease takes.
            let spans = found.sites.iter().map(|site| (site.began_seconds, site.fetched_seconds - 0.001));
            assert_eq!(most_at_once(spans), concurrent, "{resolution}: {:?}", found.sites);
            let order: Vec<f64> = found.sites.iter().map(|site| site.began_seconds).collect();
            assert!(order.is_sorted(), "{resolution}: sites wait in the order of entries: {order:?}");
        }
    }
}
