//! The same scenario gives the same bytes on every machine, and on any number of threads.
//!
//! The hashes below are of two answers in full: rows, series, lifts and all. They do not depend on the machine, the
//! system or the way it was compiled, because every logarithm comes from a software library and every order is that of
//! sites, hosts and causes. Where one of them changes though nobody meant to change an answer, something has come to
//! depend on the machine, or an answer has changed by accident.
use branchline_protocol::ids::Hash;
use branchline_simulations::capacity::{InTurn, Options, Scenario, Simulated, Workers, simulate};

use crate::threads::Threads;

/// A small rollout frame by frame.
const CHUNK: &str = r#"
    seed = 20
    resolution = "chunk"
    [payload]
    size_bytes = 5_000_001
    chunk_bytes = 65536
    [headquarters]
    uplink_bits_per_second = 30e6
    concurrent_sites = 3
    [[sites]]
    count = 5
    hosts = { range = [3, 18] }
    wan_bits_per_second = { lognormal = [20e6, 0.8] }
    wan_latency_seconds = 0.004
    lan_bits_per_second = { one_of = [5e7, 1e9] }
    slow_share = 0.1
    slow_factor = 0.2
    sessions_limit = 4
    neighbours = 5
    install_seconds = { lognormal = [6, 0.5] }
    offline = { share = 0.1, return_mean_seconds = 20 }
    churn = { leave_per_hour = 100, return_mean_seconds = 5 }
    failure_share = 0.05
    loss = 0.0001
    linger_seconds = 3
    [[sites]]
    count = 2
    hosts = 6
    wan_bits_per_second = 5e6
    lan_bits_per_second = 1e8
    wifi = true
    neighbours = "all"
    arrivals = { poisson_per_second = 0.5 }
    install_seconds = { exponential_mean = 4 }
    hosts_fail = { count = 1, at_seconds = 20 }
    [rollout]
    waves = [0.4, 1.0]
    thresholds = { success = 0.7, error = 0.5 }
    windows = [{ opens_seconds = 5, lasts_seconds = 60, every_seconds = 90 }]
    [addresses]
    batch = 8
    forecast = 30
"#;

/// A larger one as a flow that is fitted to some of its sites.
const FLOW: &str = r#"
    seed = 11
    resolution = "flow"
    [payload]
    size_bytes = 60_000_000
    patch_share = 0.2
    [headquarters]
    uplink_bits_per_second = 400e6
    concurrent_sites = 30
    [[sites]]
    count = 60
    hosts = { range = [3, 40] }
    wan_bits_per_second = { lognormal = [20e6, 0.8] }
    wan_latency_seconds = { range = [0.001, 0.01] }
    lan_bits_per_second = { one_of = [1e8, 1e9] }
    slow_share = 0.1
    slow_factor = 0.2
    sessions_limit = 4
    install_seconds = { lognormal = [60, 0.5] }
    offline = { share = 0.1, return_mean_seconds = 600 }
    churn = { leave_per_hour = 1 }
    failure_share = 0.02
    loss = 0.0001
    [[sites]]
    count = 9
    hosts = 20
    wan_bits_per_second = 5e6
    wan_latency_seconds = 0.02
    wan_tcp = "lv08"
    lan_bits_per_second = 1e8
    wifi = { bits_per_second = 5e7 }
    arrivals = { poisson_per_second = 0.1 }
    install_seconds = { range = [20, 90] }
    hosts_fail = { count = 2, at_seconds = 300 }
    [[sites]]
    count = 4
    hosts = 12
    prestaged = true
    wan_bits_per_second = 5e6
    lan_bits_per_second = 1e8
    install_seconds = { fixed = 30 }
    [rollout]
    waves = [0.1, 0.5, 1.0]
    thresholds = { success = 0.75, error = 0.25 }
    windows = [{ opens_seconds = 100, lasts_seconds = 20000 }]
    [addresses]
    batch = 16
"#;

const CHUNK_HASH: &str = "6e41735503e4f1790d20e22eca61e9d9890096e35de380d37eca0bd0c02f7281";
const FLOW_HASH: &str = "166e3ad1da1c395c96edee1d6623a859288a6a1a11975135d75cd025f6ef87f9";

fn simulated(text: &str, workers: &dyn Workers) -> Simulated {
    let options = Options { calibration_sites: 6, ..Options::default() };
    simulate(&Scenario::from_toml(text).unwrap(), &options, workers, &|_| {}).unwrap()
}

fn is_golden(name: &str, text: &str, golden: &str) {
    let one = simulated(text, &Threads(1));
    assert!(one.outcome.completed_hosts > 50 && one.hosts.iter().any(|host| !host.completed), "{:?}", one.outcome);
    let bytes = serde_json::to_string(&one).unwrap();
    for (workers, others) in [("three threads", &Threads(3) as &dyn Workers), ("one part after the other", &InTurn)] {
        let other = serde_json::to_string(&simulated(text, others)).unwrap();
        assert!(other == bytes, "{name}: {workers} give other bytes than one thread");
    }
    let found = Hash::of(bytes.as_bytes()).to_string();
    assert_eq!(
        found, golden,
        "{name}: the answer has changed. If that was meant, write {name} = \"{found}\" in this file, and a line in \
         CHANGELOG.md: planners compare answers of today with those of last week. If it was not, find out what has \
         come to depend on the machine or on the order of threads."
    );
}

#[test]
fn an_answer_frame_by_frame_is_the_same_bytes_everywhere() {
    is_golden("CHUNK_HASH", CHUNK, CHUNK_HASH);
}

#[test]
fn an_answer_as_a_flow_is_the_same_bytes_everywhere() {
    is_golden("FLOW_HASH", FLOW, FLOW_HASH);
}
