//! Small scenarios, and what is read from the rows of their hosts.
use branchline_simulations::capacity::{HostResult, Options, Scenario, Simulated, simulate};

use crate::threads::Threads;

/// Bits of a mebibyte: payloads are written in these.
pub const MEBIBYTE: f64 = 8.0 * 1_048_576.0;
pub const BOTH: [&str; 2] = ["chunk", "flow"];

/// A scenario with a payload of so many mebibytes in frames of 256 KiB. `rest` goes on within `[headquarters]`.
pub fn scenario(resolution: &str, mebibytes: u64, uplink: f64, rest: &str) -> Scenario {
    let text = format!(
        "seed = 5\nresolution = \"{resolution}\"\n[payload]\nsize_bytes = {}\nchunk_bytes = 262144\n\
         [headquarters]\nuplink_bits_per_second = {uplink}\n{rest}",
        mebibytes << 20
    );
    Scenario::from_toml(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// Simulates without calibration and lifts, with a row for each host.
pub fn run(scenario: &Scenario) -> Simulated {
    let options = Options { calibration_sites: 0, lifts: false, ..Options::default() };
    simulate(scenario, &options, &Threads(2), &|_| {}).unwrap()
}

/// The same with the flow fitted to so many sites.
pub fn run_fitted(scenario: &Scenario, calibration_sites: u32) -> Simulated {
    let options = Options { calibration_sites, lifts: false, ..Options::default() };
    simulate(scenario, &options, &Threads(2), &|_| {}).unwrap()
}

/// Whether a figure is within a share of the expected one.
pub fn near(what: &str, found: f64, expected: f64, share: f64) {
    let off = found / expected - 1.0;
    assert!(off.abs() <= share, "{what}: {found} is {off:+.4} off {expected}, more than {share}");
}

/// Whether a figure is within so much of the expected one.
pub fn within(what: &str, found: f64, expected: f64, most: f64) {
    assert!((found - expected).abs() <= most, "{what}: {found} is not within {most} of {expected}");
}

pub fn mean(values: impl IntoIterator<Item = f64>) -> f64 {
    let (count, sum) = values.into_iter().fold((0_u32, 0.0), |(count, sum), value| (count + 1, sum + value));
    assert!(count > 0, "there is nothing to take the mean of");
    sum / f64::from(count)
}

/// When each host held everything, where it ever did.
pub fn ready(simulated: &Simulated) -> Vec<f64> {
    simulated.hosts.iter().filter_map(|host| host.ready_seconds).collect()
}

/// When the hosts that are complete were, in ascending order.
pub fn ends(hosts: &[HostResult]) -> Vec<f64> {
    let mut ends: Vec<f64> =
        hosts.iter().filter(|host| host.completed).map(|host| host.ended_seconds.unwrap()).collect();
    ends.sort_by(f64::total_cmp);
    ends
}

/// The most of some spans that hold at one moment; a span holds from its beginning until before its end.
pub fn most_at_once(spans: impl IntoIterator<Item = (f64, f64)>) -> i64 {
    let mut changes: Vec<(f64, i64)> = spans.into_iter().flat_map(|(from, until)| [(from, 1), (until, -1)]).collect();
    // What ends at a moment ends before anything begins at it.
    changes.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
    let (mut now, mut most) = (0, 0);
    for (_, change) in changes {
        now += change;
        most = most.max(now);
    }
    most
}

/// Four standard deviations of the share of successes in `count` trials.
pub fn four_sigma(share: f64, count: usize) -> f64 {
    4.0 * (share * (1.0 - share) / count as f64).sqrt()
}
