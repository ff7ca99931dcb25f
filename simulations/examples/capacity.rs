//! The figures of the simulator: time, memory and machine inputs over the number of hosts.
//!
//! `cargo run --release -p branchline-simulations --example capacity -- [chunk|flow|answer] [sites...]`
//!
//! `answer` is what a planner waits for: the flow with its calibration and with every limit lifted in turn.
use std::time::Instant;

use branchline_simulations::capacity::{Options, Scenario, simulate};
use threads::Threads;

#[path = "../tests/book/threads.rs"]
mod threads;

fn peak_memory_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = arguments.first().map_or("flow", String::as_str);
    let (resolution, whole) = if asked == "answer" { ("flow", true) } else { (asked, false) };
    let mut sites: Vec<u64> = arguments.iter().skip(1).filter_map(|text| text.parse().ok()).collect();
    if sites.is_empty() {
        sites = vec![10, 100, 1_000, 10_000];
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    println!("{asked}, {threads} threads, sites of 100 hosts, 1 GiB in frames of 4 MiB");
    println!(
        "{:>9} {:>9} {:>12} {:>14} {:>16} {:>12} {:>10}",
        "hosts", "seconds", "us per host", "inputs", "inputs/s/thread", "per frame", "peak MiB"
    );
    for count in sites {
        let text = format!(
            "seed = 1\nresolution = \"{resolution}\"\n[payload]\nsize_bytes = 1073741824\nchunk_bytes = 4194304\n\
             [headquarters]\nuplink_bits_per_second = 100e9\n[[sites]]\ncount = {count}\nhosts = 100\n\
             wan_bits_per_second = {{ range = [10e6, 100e6] }}\nlan_bits_per_second = 1e9\nslow_share = 0.05\nslow_factor = 0.2\n\
             install_seconds = {{ lognormal = [120, 0.4] }}\n"
        );
        let scenario = Scenario::from_toml(&text).expect("the benchmark's own scenario");
        let calibration_sites = if whole { Options::default().calibration_sites } else { 0 };
        let options = Options { calibration_sites, lifts: whole, hosts: false, ..Options::default() };
        let begun = Instant::now();
        let outcome =
            simulate(&scenario, &options, &Threads(threads), &|_| {}).expect("the benchmark's own scenario").outcome;
        let seconds = begun.elapsed().as_secs_f64();
        let (hosts, inputs) = (count * 100, outcome.inputs as f64);
        let frames = (hosts * 256) as f64;
        println!(
            "{hosts:>9} {seconds:>9.2} {:>12.2} {:>14} {:>16.0} {:>12.2} {:>10}",
            seconds * 1e6 / hosts as f64,
            outcome.inputs,
            inputs / seconds / threads as f64,
            inputs / frames,
            peak_memory_bytes() >> 20,
        );
    }
}
