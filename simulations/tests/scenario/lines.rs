//! The line into a site: latency, TCP, loss, and what has to cross it.
use branchline_simulations::capacity::Scenario;

use super::small::{BOTH, MEBIBYTE, near, run, scenario};

/// One site of two hosts whose network hardly counts.
fn behind(resolution: &str, mebibytes: u64, line: &str) -> Scenario {
    scenario(resolution, mebibytes, 10e9, &format!("[[sites]]\nhosts = 2\nlan_bits_per_second = 10e9\n{line}\n"))
}

fn makespan(resolution: &str, mebibytes: u64, line: &str) -> f64 {
    run(&behind(resolution, mebibytes, line)).outcome.makespan_seconds
}

#[test]
fn a_line_takes_the_payload_over_its_rate() {
    for resolution in BOTH {
        for rate in [1.544e6, 20e6, 200e6] {
            let found = makespan(resolution, 16, &format!("wan_bits_per_second = {rate}"));
            near(resolution, found, 16.0 * MEBIBYTE / rate, 0.03);
        }
    }
}

#[test]
fn a_request_and_its_answer_come_before_the_first_byte() {
    for resolution in BOTH {
        // A mebibyte is under way at a time, so that only the first round trip is waited for.
        let line = "wan_bits_per_second = 8e6\nwan_latency_seconds = 0.5";
        near(resolution, makespan(resolution, 1, line), 1.0 + MEBIBYTE / 8e6, 0.02);
    }
}

#[test]
fn the_model_of_simgrid_takes_thirteen_latencies_and_a_share_of_the_rate() {
    for resolution in BOTH {
        for (latency, most) in [(0.05, 0.005), (0.5, 0.002)] {
            let line = format!("wan_bits_per_second = 8e6\nwan_latency_seconds = {latency}\nwan_tcp = \"lv08\"");
            let expected = 13.01 * latency + 1.05 * MEBIBYTE / (0.97 * 8e6);
            near(&format!("{resolution}, {latency} s"), makespan(resolution, 1, &line), expected, most);
        }
        // By default the rate is what TCP gets through, and only the round trip comes before it.
        let goodput = "wan_bits_per_second = 8e6\nwan_latency_seconds = 0.05";
        near(resolution, makespan(resolution, 4, goodput), 0.1 + 4.0 * MEBIBYTE / 8e6, 0.02);
    }
}

#[test]
fn a_far_line_carries_no_more_than_a_window_in_each_round_trip() {
    // 4 MiB in 0.2 s, and a payload of which all may be under way at once.
    let window = 4.0 * MEBIBYTE / 0.2;
    for resolution in BOTH {
        let line = "wan_bits_per_second = 10e9\nwan_latency_seconds = 0.1";
        near(resolution, makespan(resolution, 1, line), 0.2 + MEBIBYTE / window, 0.03);
    }
}

#[test]
fn what_is_lost_crosses_the_line_again() {
    for resolution in BOTH {
        for loss in [0.0, 0.1, 0.5] {
            let line = format!("wan_bits_per_second = 8e6\nloss = {loss}");
            let outcome = run(&behind(resolution, 4, &line)).outcome;
            assert_eq!(outcome.bytes.headquarters, 4 << 20, "{resolution}, {loss}");
            let wan = (f64::from(4 << 20) / (1.0 - loss)).round() as u64;
            assert_eq!(outcome.bytes.wan, wan, "{resolution}, {loss}");
            assert_eq!(outcome.wan_ratio, 1.0, "{resolution}: what headquarters sends is counted");
            near(resolution, outcome.makespan_seconds, 4.0 * MEBIBYTE / (8e6 * (1.0 - loss)), 0.02);
        }
    }
}

#[test]
fn a_far_line_that_loses_packets_is_as_fast_as_mathis_has_it() {
    for resolution in BOTH {
        for loss in [0.0001, 0.01] {
            let line = format!("wan_bits_per_second = 100e6\nwan_latency_seconds = 0.05\nloss = {loss}");
            let mathis = 8.0 * 1448.0 / 0.1 * (1.5_f64 / loss).sqrt();
            let found = makespan(resolution, 4, &line);
            near(&format!("{resolution}, {loss}"), found, 0.1 + 4.0 * MEBIBYTE / mathis, 0.04);
        }
    }
}

#[test]
fn a_patch_moves_its_share_of_the_payload() {
    for resolution in BOTH {
        let mut whole = behind(resolution, 16, "wan_bits_per_second = 8e6");
        let all = run(&whole).outcome;
        whole.payload.patch_share = 0.25;
        let patch = run(&whole).outcome;
        assert_eq!(all.bytes.headquarters, 16 << 20, "{resolution}");
        assert_eq!(patch.bytes.headquarters, 4 << 20, "{resolution}");
        assert_eq!(patch.wan_ratio, 1.0, "{resolution}: of what has to move");
        near(resolution, patch.bytes.lan as f64, all.bytes.lan as f64 / 4.0, 0.02);
        near(resolution, patch.makespan_seconds, all.makespan_seconds / 4.0, 0.02);
    }
}

#[test]
fn a_station_that_holds_the_payload_needs_no_line() {
    for resolution in BOTH {
        let line = "wan_bits_per_second = 1000\nprestaged = true";
        let found = run(&behind(resolution, 16, line));
        assert!(found.outcome.makespan_seconds < 0.1, "{resolution}: {}", found.outcome.makespan_seconds);
        assert_eq!(found.outcome.bytes.headquarters, 0, "{resolution}");
        assert_eq!(found.outcome.sites[0].rate_bits_per_second, 0.0, "{resolution}");
    }
}

#[test]
fn both_resolutions_agree_on_what_a_line_takes_however_long_a_frame_is() {
    // Where a round trip lies between two frames, both have to count it once.
    for (chunk_bytes, latency, most) in [(65_536, 0.0, 0.01), (262_144, 0.01, 0.02), (1_048_576, 0.001, 0.02)] {
        let [chunk, flow] = BOTH.map(|resolution| {
            let line = format!("wan_bits_per_second = 20e6\nwan_latency_seconds = {latency}");
            let mut scenario = behind(resolution, 16, &line);
            scenario.payload.chunk_bytes = Some(chunk_bytes);
            run(&scenario).outcome.makespan_seconds
        });
        near(&format!("flow beside chunk, frames of {chunk_bytes}, {latency} s"), flow, chunk, most);
    }
}
