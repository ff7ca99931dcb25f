//! Figures over time, beside what the rows of the hosts and the other figures say.
use branchline_simulations::capacity::{HostResult, Options, Simulated, simulate};

use super::{
    answers::mixed,
    small::{BOTH, near, run, scenario, within},
};
use crate::threads::Threads;

fn held(hosts: &[HostResult], at: f64, span: impl Fn(&HostResult) -> (Option<f64>, Option<f64>)) -> u64 {
    let holds = |host: &&HostResult| {
        let (from, until) = span(host);
        from.is_some_and(|from| from <= at) && until.is_none_or(|until| at < until)
    };
    hosts.iter().filter(holds).count() as u64
}

#[test]
fn at_every_moment_the_counts_are_those_of_the_rows() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let (series, hosts) = (&found.series, &found.hosts);
        let end = found.outcome.makespan_seconds;
        assert_eq!((series.at_seconds.len(), series.at_seconds[0]), (241, 0.0), "{resolution}");
        assert_eq!(series.at_seconds[240], end, "{resolution}");
        for (index, at) in series.at_seconds.iter().copied().enumerate() {
            within(&format!("{resolution}, moment {index}"), at, end * index as f64 / 240.0, 1e-6);
            let completed = hosts.iter().filter(|host| host.completed && host.ended_seconds.unwrap() <= at).count();
            assert_eq!(series.completed_hosts[index], completed as u64, "{resolution}: complete at {at}");
            let waiting = held(hosts, at, |host| (host.ready_seconds, host.started_seconds));
            assert_eq!(series.queue_length[index], waiting, "{resolution}: waiting at {at}");
            let installing = held(hosts, at, |host| (host.started_seconds, host.ended_seconds));
            assert_eq!(series.slots_held[index], installing, "{resolution}: installing at {at}");
            // Six sites of three slots and one whose seven hosts may install at the same time.
            assert!(installing <= 6 * 3 + 7, "{resolution}: {installing} slots at {at}");
        }
        assert_eq!(series.completed_hosts[240], found.outcome.completed_hosts, "{resolution}");
        assert!(series.queue_length.iter().any(|length| *length > 5), "{resolution}: {:?}", series.queue_length);
    }
}

#[test]
fn waits_over_time_weighted_by_those_who_waited_are_the_mean_wait() {
    for resolution in BOTH {
        let found = run(&mixed(resolution));
        let at = &found.series.at_seconds;
        let (mut sum, mut starts) = (0.0, 0);
        for index in 0..at.len() {
            let since = |host: &&HostResult| {
                let started = host.started_seconds.unwrap();
                started <= at[index] && (index == 0 || started > at[index - 1])
            };
            let waits: Vec<f64> = found
                .hosts
                .iter()
                .filter(since)
                .map(|host| host.started_seconds.unwrap() - host.ready_seconds.unwrap())
                .collect();
            let mean = waits.iter().sum::<f64>() / waits.len().max(1) as f64;
            let told = found.series.wait_seconds[index];
            assert!((told - mean).abs() < 1e-6, "{resolution}: {told} at {}, the rows have {mean}", at[index]);
            sum += told * waits.len() as f64;
            starts += waits.len();
        }
        // All of them began before the last host was complete.
        assert_eq!(starts, found.hosts.len(), "{resolution}");
        near(resolution, sum / starts as f64, found.outcome.queue.wait_mean_seconds, 1e-9);
    }
}

#[test]
fn what_headquarters_sends_over_time_adds_up_and_is_never_more_than_uplink_and_lines_carry() {
    for resolution in BOTH {
        let Simulated { outcome, series, .. } = run(&mixed(resolution));
        let mut sent = 0.0;
        for index in 1..series.at_seconds.len() {
            let rate = series.headquarters_bits_per_second[index];
            let capacity = series.wan_capacity_bits_per_second[index];
            sent += rate * (series.at_seconds[index] - series.at_seconds[index - 1]);
            assert!(rate <= 50e6 * 1.0001, "{resolution}: {rate} of an uplink of 50 Mbit/s");
            assert!(rate <= capacity * 1.0001 + 1.0, "{resolution}: {rate} over lines of {capacity}");
        }
        near(resolution, sent / 8.0, outcome.bytes.headquarters as f64, 1e-4);
        assert!(series.headquarters_bits_per_second.contains(&0.0), "{resolution}: in the end nobody fetches");
    }
}

#[test]
fn slots_reach_the_limit_and_stay_there_while_hosts_wait() {
    for resolution in BOTH {
        let found = run(&scenario(
            resolution,
            1,
            1e9,
            "[[sites]]\nhosts = 30\nprestaged = true\nwan_bits_per_second = 1e9\nlan_bits_per_second = 1e9\n\
             sessions_limit = 4\ninstall_seconds = { range = [5, 15] }\n",
        ));
        let series = &found.series;
        assert_eq!(series.slots_held.iter().max(), Some(&4), "{resolution}");
        let waiting = series.queue_length.iter().zip(&series.slots_held).filter(|(length, _)| **length > 0);
        assert!(waiting.clone().count() > 100, "{resolution}: {:?}", series.queue_length);
        assert!(waiting.clone().all(|(_, slots)| *slots == 4), "{resolution}: somebody waits beside a free slot");
    }
}

#[test]
fn the_number_of_moments_changes_nothing_but_the_series() {
    let scenario = mixed("flow");
    let options = |series_moments| Options { calibration_sites: 0, lifts: false, hosts: true, series_moments };
    let two = simulate(&scenario, &options(0), &Threads(2), &|_| {}).unwrap();
    let many = simulate(&scenario, &options(1000), &Threads(2), &|_| {}).unwrap();
    assert_eq!((two.series.at_seconds.len(), many.series.at_seconds.len()), (2, 1000), "at least two moments");
    assert_eq!((&two.outcome, &two.sites, &two.hosts), (&many.outcome, &many.sites, &many.hosts));
    let without = simulate(&scenario, &Options { hosts: false, ..options(0) }, &Threads(2), &|_| {}).unwrap();
    assert!(without.hosts.is_empty() && without.outcome == two.outcome && without.series == two.series);
}
