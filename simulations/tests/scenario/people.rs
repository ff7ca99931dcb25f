//! Hosts that are off, come one after another, leave and come back, and what their installations take.
use branchline_simulations::capacity::{Scenario, Simulated};

use super::small::{BOTH, MEBIBYTE, four_sigma, mean, most_at_once, near, ready, run, run_fitted, scenario, within};

fn staged(resolution: &str, site: &str) -> Scenario {
    scenario(
        resolution,
        1,
        1e9,
        &format!("[[sites]]\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 10e9\n{site}\n"),
    )
}

fn arrived(found: &Simulated) -> Vec<f64> {
    found.hosts.iter().map(|host| host.arrived_seconds.unwrap()).collect()
}

#[test]
fn so_many_hosts_are_off_and_come_back_after_the_mean() {
    let found = run(&staged("flow", "count = 100\nhosts = 50\noffline = { share = 0.3, return_mean_seconds = 200 }"));
    let late: Vec<f64> = arrived(&found).into_iter().filter(|at| *at > 0.0).collect();
    within("share of hosts that are off", late.len() as f64 / 5000.0, 0.3, four_sigma(0.3, 5000));
    // The standard deviation of an exponential time is its mean.
    near("mean return", mean(late.iter().copied()), 200.0, 4.0 / (late.len() as f64).sqrt());
    assert_eq!(found.outcome.completed_hosts, 5000, "everybody comes back");
    for host in &found.hosts {
        assert!(host.ready_seconds.unwrap() > host.arrived_seconds.unwrap(), "{host:?}");
    }
}

#[test]
fn hosts_ask_one_after_another_at_the_rate_of_one_site() {
    let found = run(&staged("flow", "count = 50\nhosts = 100\narrivals = { poisson_per_second = 0.25 }"));
    let all = arrived(&found);
    let mut gaps = Vec::new();
    for site in all.chunks(100) {
        assert!(site.is_sorted() && site[0] > 0.0, "host after host: {site:?}");
        gaps.push(site[0]);
        gaps.extend(site.windows(2).map(|pair| pair[1] - pair[0]));
    }
    near("mean gap", mean(gaps.iter().copied()), 4.0, 4.0 / (gaps.len() as f64).sqrt());
    // Of exponential gaps e^-1 are longer than their mean.
    let long = gaps.iter().filter(|gap| **gap > 4.0).count() as f64 / gaps.len() as f64;
    within("share of long gaps", long, (-1.0_f64).exp(), four_sigma((-1.0_f64).exp(), gaps.len()));
}

#[test]
fn both_resolutions_draw_the_same_people() {
    let site = "count = 4\nhosts = 10\nlan_bits_per_second = 1e9\narrivals = { poisson_per_second = 0.5 }\n\
         offline = { share = 0.3, return_mean_seconds = 60 }\ninstall_seconds = { lognormal = [20, 0.5] }\n\
         failure_share = 0.2\nwan_bits_per_second = 1e9\nprestaged = true\n";
    let [chunk, flow] = BOTH.map(|resolution| run(&scenario(resolution, 1, 1e9, &format!("[[sites]]\n{site}"))));
    for (a, b) in chunk.hosts.iter().zip(&flow.hosts) {
        assert_eq!((a.arrived_seconds, a.completed), (b.arrived_seconds, b.completed), "{a:?} {b:?}");
        let took = |host: &branchline_simulations::capacity::HostResult| {
            host.ended_seconds.unwrap() - host.started_seconds.unwrap()
        };
        within("installation", took(a), took(b), 1e-6);
        within("ready", a.ready_seconds.unwrap(), b.ready_seconds.unwrap(), 0.3);
    }
}

#[test]
fn installations_take_what_their_distribution_has_in_the_mean() {
    let lognormal = 60.0 * (0.5_f64 * 0.5 / 2.0).exp();
    let deviation = lognormal * ((0.5_f64 * 0.5).exp() - 1.0).sqrt();
    let cases = [
        ("{ fixed = 60 }", 60.0, 0.0),
        ("{ exponential_mean = 60 }", 60.0, 60.0),
        ("{ lognormal = [60, 0.5] }", lognormal, deviation),
        ("{ range = [30, 90] }", 60.0, 60.0 / 12.0_f64.sqrt()),
    ];
    for (install, expected, deviation) in cases {
        let found = run(&staged("flow", &format!("count = 50\nhosts = 100\ninstall_seconds = {install}")));
        let times: Vec<f64> =
            found.hosts.iter().map(|host| host.ended_seconds.unwrap() - host.started_seconds.unwrap()).collect();
        within(install, mean(times.iter().copied()), expected, 4.0 * deviation / 5000.0_f64.sqrt() + 1e-6);
        let square = mean(times.iter().map(|time| (time - expected).powi(2)));
        within(&format!("deviation of {install}"), square.sqrt(), deviation, 0.1 * deviation + 1e-5);
        if install.contains("range") {
            assert!(times.iter().all(|time| (30.0..=90.0).contains(time)), "outside of {install}");
        }
    }
    // Left out, an installation takes no time.
    let found = run(&staged("flow", "hosts = 10\nsessions_limit = 1"));
    assert!(found.hosts.iter().all(|host| host.started_seconds == host.ended_seconds));
}

#[test]
fn no_more_hosts_install_at_a_time_than_the_limit_allows_and_the_limit_is_reached() {
    for resolution in BOTH {
        for limit in [1, 3, 25] {
            let site =
                format!("count = 2\nhosts = 25\nsessions_limit = {limit}\ninstall_seconds = {{ range = [5, 15] }}");
            let found = run(&staged(resolution, &site));
            for rows in found.hosts.chunks(25) {
                let spans = rows.iter().map(|host| (host.started_seconds.unwrap(), host.ended_seconds.unwrap()));
                assert_eq!(most_at_once(spans), limit, "{resolution}");
                // Slots go to hosts in the order in which they were ready.
                let mut rows = rows.to_vec();
                rows.sort_by(|a, b| (a.ready_seconds, a.host).partial_cmp(&(b.ready_seconds, b.host)).unwrap());
                assert!(rows.iter().map(|host| host.started_seconds.unwrap()).is_sorted(), "{resolution}");
            }
        }
        let default = run(&staged(resolution, "hosts = 150\ninstall_seconds = { fixed = 10 }"));
        let spans = default.hosts.iter().map(|host| (host.started_seconds.unwrap(), host.ended_seconds.unwrap()));
        assert_eq!(most_at_once(spans), 100, "{resolution}: what the product allows by default");
    }
}

#[test]
fn so_many_installations_fail_and_hold_their_slots_all_the_same() {
    for (resolution, sites) in [("chunk", 4), ("flow", 100)] {
        let site = |failure_share: f64| {
            format!(
                "count = {sites}\nhosts = 50\nsessions_limit = 5\ninstall_seconds = {{ range = [5, 15] }}\n\
                 failure_share = {failure_share}"
            )
        };
        let (found, without) = (run(&staged(resolution, &site(0.2))), run(&staged(resolution, &site(0.0))));
        let failed = found.hosts.iter().filter(|host| !host.completed).count();
        let share = failed as f64 / found.hosts.len() as f64;
        within(resolution, share, 0.2, four_sigma(0.2, found.hosts.len()));
        assert_eq!(found.outcome.completed_hosts as usize, found.hosts.len() - failed, "{resolution}");
        assert_eq!(
            found.outcome.addresses.needed, found.outcome.completed_hosts,
            "{resolution}: a failed host has none"
        );
        for (a, b) in found.hosts.iter().zip(&without.hosts) {
            let times =
                |host: &branchline_simulations::capacity::HostResult| (host.started_seconds, host.ended_seconds);
            assert_eq!(times(a), times(b), "{resolution}: whether it fails changes nothing of when");
        }
        assert!(without.hosts.iter().all(|host| host.completed), "{resolution}");
        let none = run(&staged(resolution, &site(1.0))).outcome;
        assert_eq!((none.completed_hosts, none.makespan_seconds), (0, 0.0), "{resolution}");
        assert_eq!((none.completion_seconds.p50, none.addresses.needed), (0.0, 0), "{resolution}");
    }
}

/// Six sites whose hosts leave so often while the payload crosses the line.
fn churning(resolution: &str, per_hour: f64) -> Simulated {
    let site = format!(
        "[[sites]]\ncount = 6\nhosts = 15\nwan_bits_per_second = 2e6\nlan_bits_per_second = 100e6\n\
         churn = {{ leave_per_hour = {per_hour}, return_mean_seconds = 30 }}\n"
    );
    run_fitted(&scenario(resolution, 8, 1e9, &site), 4)
}

#[test]
fn hosts_that_leave_and_come_back_are_complete_later_the_more_often_they_leave() {
    for resolution in BOTH {
        let none = scenario(
            resolution,
            8,
            1e9,
            "[[sites]]\ncount = 6\nhosts = 15\nwan_bits_per_second = 2e6\nlan_bits_per_second = 100e6\n",
        );
        let mut before = mean(ready(&run_fitted(&none, 4)));
        near(resolution, before, 8.0 * MEBIBYTE / 2e6, 0.03);
        assert_eq!(mean(ready(&churning(resolution, 0.0))), before, "{resolution}: who never leaves does not churn");
        for per_hour in [20.0, 80.0, 320.0] {
            let found = churning(resolution, per_hour);
            assert_eq!(found.outcome.completed_hosts, 90, "{resolution}: everybody comes back");
            assert_eq!(found.outcome.wan_ratio, 1.0, "{resolution}: the station stays");
            let after = mean(ready(&found));
            assert!(after > 1.005 * before, "{resolution}: {after} with {per_hour} leaves an hour, {before} before");
            before = after;
        }
    }
}

#[test]
fn hosts_that_stay_away_longer_are_complete_later_and_ten_minutes_are_the_default() {
    for resolution in BOTH {
        let away = |churn: &str| {
            let site = format!(
                "[[sites]]\ncount = 6\nhosts = 15\nwan_bits_per_second = 2e6\nlan_bits_per_second = 100e6\n\
                 churn = {{ leave_per_hour = 80{churn} }}\n"
            );
            run(&scenario(resolution, 8, 1e9, &site))
        };
        let means =
            ["10", "60", "600"].map(|seconds| mean(ready(&away(&format!(", return_mean_seconds = {seconds}")))));
        assert!(means[1] > 1.05 * means[0] && means[2] > 2.0 * means[1], "{resolution}: {means:?}");
        assert_eq!(mean(ready(&away(""))), means[2], "{resolution}");
    }
}

#[test]
fn both_resolutions_agree_on_what_churn_costs() {
    for per_hour in [20.0, 80.0] {
        let [chunk, flow] = BOTH.map(|resolution| mean(ready(&churning(resolution, per_hour))));
        near(&format!("flow beside chunk, {per_hour} leaves an hour"), flow, chunk, 0.05);
    }
}
