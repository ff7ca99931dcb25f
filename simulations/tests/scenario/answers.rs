//! Percentiles, queue, addresses and bytes, beside what the rows of the hosts say.
use branchline_simulations::capacity::{HostResult, Scenario, Simulated};

use super::small::{BOTH, MEBIBYTE, ends, most_at_once, near, run, scenario, within};

/// Hosts of many kinds: some late, some fail, few slots, lines of all rates.
pub fn mixed(resolution: &str) -> Scenario {
    scenario(
        resolution,
        4,
        50e6,
        "concurrent_sites = 3\n[[sites]]\ncount = 6\nhosts = { range = [3, 24] }\n\
         wan_bits_per_second = { range = [5e6, 50e6] }\nlan_bits_per_second = 1e9\nsessions_limit = 3\n\
         install_seconds = { lognormal = [6, 0.5] }\nfailure_share = 0.1\n\
         offline = { share = 0.2, return_mean_seconds = 20 }\n\
         [[sites]]\nhosts = 7\nprestaged = true\nwan_bits_per_second = 1e6\nlan_bits_per_second = 1e8\n\
         install_seconds = { fixed = 3 }\n",
    )
}

/// One host after another installs for ten seconds, from the start on: a payload of a mebibyte takes no time.
fn one_after_another(resolution: &str, hosts: u32) -> Simulated {
    run(&scenario(
        resolution,
        1,
        1e9,
        &format!(
            "[[sites]]\nhosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e12\n\
             sessions_limit = 1\ninstall_seconds = {{ fixed = 10 }}\n"
        ),
    ))
}

#[test]
fn percentiles_are_those_of_a_queue_that_can_be_counted_out() {
    for resolution in BOTH {
        // By nearest rank: of seven hosts 95 of 100 are seven, of 20 nineteen, of 200 hundred and ninety.
        for (hosts, ranks) in [(1, [1, 1, 1]), (7, [4, 7, 7]), (20, [10, 19, 20]), (200, [100, 190, 198])] {
            let found = one_after_another(resolution, hosts).outcome;
            let completion = found.completion_seconds;
            let of = [completion.p50, completion.p95, completion.p99, completion.last];
            for (found, rank) in of.into_iter().zip([ranks[0], ranks[1], ranks[2], hosts]) {
                within(&format!("{resolution}, {rank} of {hosts}"), found, 10.0 * f64::from(rank), 0.1);
            }
            assert_eq!(found.makespan_seconds, completion.last);
        }
    }
}

#[test]
fn the_queue_is_the_one_that_can_be_counted_out() {
    for resolution in BOTH {
        let queue = one_after_another(resolution, 20).outcome.queue;
        // The first host that is ready never waits; the frame by frame world has them ready one by one.
        assert_eq!(queue.length_max, 19, "{resolution}: {queue:?}");
        within(resolution, queue.wait_mean_seconds, 10.0 * 9.5, 0.1);
        assert_eq!(queue.waited_share, 19.0 / 20.0, "{resolution}: {queue:?}");
    }
}

#[test]
fn percentiles_are_of_the_rows_of_completed_hosts_by_nearest_rank() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let ends = ends(&found.hosts);
        assert_eq!(found.outcome.completed_hosts, ends.len() as u64, "{resolution}");
        assert!(
            found.hosts.len() > ends.len() && ends.len() > 30,
            "{resolution}: {} of {}",
            ends.len(),
            found.hosts.len()
        );
        let completion = found.outcome.completion_seconds;
        let of = [(50, completion.p50), (95, completion.p95), (99, completion.p99), (100, completion.last)];
        for (percent, found) in of {
            // The smallest that so many of a hundred do not exceed, found by counting.
            let rank = (1..=ends.len()).find(|rank| 100 * rank >= percent * ends.len()).unwrap();
            assert_eq!(found, ends[rank - 1], "{resolution}: p{percent} of {} hosts", ends.len());
        }
        assert_eq!(found.outcome.makespan_seconds, *ends.last().unwrap(), "{resolution}");
    }
}

#[test]
fn the_queue_is_that_of_the_rows() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let started: Vec<&HostResult> = found.hosts.iter().filter(|host| host.started_seconds.is_some()).collect();
        let wait = |host: &HostResult| host.started_seconds.unwrap() - host.ready_seconds.unwrap();
        let mean = started.iter().map(|host| wait(host)).sum::<f64>() / started.len() as f64;
        let waited = started.iter().filter(|host| wait(host) > 0.0).count();
        let queue = found.outcome.queue;
        assert!(mean > 1.0 && waited < started.len(), "{resolution}: some wait and some do not: {queue:?}");
        near(&format!("{resolution}, mean wait"), queue.wait_mean_seconds, mean, 1e-9);
        near(&format!("{resolution}, share"), queue.waited_share, waited as f64 / started.len() as f64, 1e-12);
        let mut longest = 0;
        for (number, site) in found.sites.iter().enumerate() {
            let of_site = || found.hosts.iter().filter(|host| host.site as usize == number);
            let spans = of_site().map(|host| (host.ready_seconds.unwrap(), host.started_seconds.unwrap()));
            let most = most_at_once(spans.filter(|(ready, started)| ready < started));
            assert_eq!(i64::from(site.queue_length_max), most, "{resolution}, site {number}");
            longest = longest.max(most);
        }
        assert_eq!(queue.length_max as i64, longest, "{resolution}");
    }
}

#[test]
fn what_is_said_of_sites_and_entries_is_what_their_rows_say() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let mut of_entries = [(0, 0.0_f64), (0, 0.0)];
        for (number, site) in found.sites.iter().enumerate() {
            let rows: Vec<HostResult> =
                found.hosts.iter().filter(|host| host.site as usize == number).copied().collect();
            let last = ends(&rows).last().copied().unwrap_or(0.0);
            assert_eq!((site.hosts as usize, site.completed as usize), (rows.len(), ends(&rows).len()));
            assert_eq!(site.makespan_seconds, last, "{resolution}, site {number}");
            let ready = rows.iter().filter_map(|host| host.ready_seconds).fold(0.0, f64::max);
            assert_eq!(site.spread_seconds, ready, "{resolution}, site {number}");
            assert!(rows.iter().all(|host| host.entry == site.entry), "{resolution}, site {number}");
            let of_entry = &mut of_entries[site.entry as usize];
            *of_entry = (of_entry.0 + rows.len() as u64, of_entry.1.max(last));
        }
        for (entry, (hosts, last)) in found.outcome.sites.iter().zip(of_entries) {
            assert_eq!((entry.hosts, entry.makespan_seconds), (hosts, last), "{resolution}");
        }
        assert_eq!(found.outcome.sites[1].rate_bits_per_second, 0.0, "a station that held everything fetched nothing");
        assert!(found.outcome.sites[0].rate_bits_per_second > 4e6, "{resolution}: {:?}", found.outcome.sites);
    }
}

#[test]
fn the_rate_of_an_entry_is_the_mean_of_its_sites_while_they_fetch() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let fetched = found.sites.iter().filter(|site| site.entry == 0);
        let rates: Vec<f64> =
            fetched.map(|site| 4.0 * MEBIBYTE / (site.fetched_seconds - site.began_seconds)).collect();
        let mean = rates.iter().sum::<f64>() / rates.len() as f64;
        near(resolution, found.outcome.sites[0].rate_bits_per_second, mean, 0.005);
    }
}

#[test]
fn headquarters_sends_each_site_that_fetches_the_payload_once() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let bytes = found.outcome.bytes;
        assert_eq!(bytes.headquarters, 6 * (4 << 20), "{resolution}: six sites fetch, one is staged");
        assert_eq!(bytes.wan, bytes.headquarters, "{resolution}: no line loses anything");
        assert_eq!(found.outcome.wan_ratio, 1.0, "{resolution}");
        let needed = found.hosts.len() as u64 * (4 << 20);
        assert!(bytes.lan >= needed && bytes.lan < needed + needed / 20, "{resolution}: {} of {needed}", bytes.lan);
        let sum =
            |of: fn(&branchline_simulations::capacity::SiteResult) -> u64| found.sites.iter().map(of).sum::<u64>();
        assert_eq!(sum(|site| site.headquarters_bytes), bytes.headquarters, "{resolution}");
        assert_eq!(sum(|site| site.lan_bytes), bytes.lan, "{resolution}");
        let staged = scenario(
            resolution,
            4,
            1e9,
            "[[sites]]\nhosts = 5\nprestaged = true\nwan_bits_per_second = 1e6\nlan_bits_per_second = 1e9\n",
        );
        let outcome = run(&staged).outcome;
        assert_eq!((outcome.bytes.headquarters, outcome.wan_ratio), (0, 0.0), "{resolution}: nobody had to fetch");
    }
}

#[test]
fn batches_come_before_a_fifth_of_the_addresses_is_left() {
    let (sites, hosts) = (3_u64, 20_u64);
    for resolution in BOTH {
        for batch in [1, 10, 256] {
            let rest = format!(
                "[[sites]]\ncount = {sites}\nhosts = {hosts}\nprestaged = true\nwan_bits_per_second = 1e9\n\
                 lan_bits_per_second = 1e9\n[addresses]\nbatch = {batch}\n"
            );
            let found = run(&scenario(resolution, 1, 1e9, &rest));
            // More than a fifth of what n batches have is free once n batch > 5/4 of the hosts.
            let each = (5 * hosts) / (4 * batch) + 1;
            let addresses = found.outcome.addresses;
            assert_eq!((addresses.needed, addresses.forecast, addresses.beyond_forecast), (60, 60, 0), "{resolution}");
            let expected = (sites * each, sites * each * batch);
            assert_eq!((addresses.batches, addresses.granted), expected, "{resolution}, batches of {batch}");
            assert!(found.sites.iter().all(|site| u64::from(site.address_batches) == each), "{resolution}");
        }
    }
}

#[test]
fn a_forecast_below_the_need_is_told_by_how_much() {
    for resolution in BOTH {
        for (forecast, beyond) in [(40, 20), (60, 0), (1000, 0), (0, 60)] {
            let rest = format!(
                "[[sites]]\ncount = 3\nhosts = 20\nprestaged = true\nwan_bits_per_second = 1e9\n\
                 lan_bits_per_second = 1e9\n[addresses]\nforecast = {forecast}\n"
            );
            let addresses = run(&scenario(resolution, 1, 1e9, &rest)).outcome.addresses;
            let found = (addresses.needed, addresses.forecast, addresses.beyond_forecast);
            assert_eq!(found, (60, forecast, beyond), "{resolution}");
            let batches = (addresses.batches, addresses.granted);
            assert_eq!(
                batches,
                (3, 3 * 256),
                "{resolution}: a forecast changes no batch, of which each has 256 addresses"
            );
        }
    }
}
