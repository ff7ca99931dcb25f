//! `tests/bench bulk`: the bulk plane beside raw TCP and plain tokio-rustls, on loopback, in one run.
//!
//! Prints a table, or with `--json` one line: `{"results": [{"transport", "frame_bytes", "megabytes_per_second",
//! "cpu_seconds_per_gb"}]}`, medians over the runs; CPU seconds are those of both ends together.

use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use branchline::bulk::loopback::{self, Carried};
use serde_json::json;
use tokio::runtime::{Builder, Runtime};

const USAGE: &str = "usage: tests/bench bulk [--bytes GIB] [--runs N] [--only tcp|tls|branchline] [--json]";

struct Options {
    bytes: u64,
    runs: usize,
    /// One transport alone: for a profiler.
    only: Option<String>,
    json: bool,
}

fn options() -> Result<Options> {
    let mut options = Options { bytes: 2 << 30, runs: 3, only: None, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || words.next().and_then(|text| text.parse::<u64>().ok()).context(USAGE);
        match word.as_str() {
            "--bytes" => options.bytes = number()? << 30,
            "--runs" => options.runs = usize::try_from(number()?)?.max(1),
            "--only" => options.only = Some(words.next().context(USAGE)?),
            "--json" => options.json = true,
            _ => bail!("{USAGE}"),
        }
    }
    Ok(options)
}

/// What this process has used so far, of both kinds of time.
fn processor_seconds() -> Result<f64> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace().skip(11).take(2);
    let ticks = fields.map(str::parse::<u64>).sum::<Result<u64, _>>()?;
    // USER_HZ of Linux, on every architecture that Debian has.
    Ok(ticks as f64 / 100.0)
}

fn measure(runtime: &Runtime, transport: &str, frame_bytes: usize, bytes: u64) -> Result<(f64, f64)> {
    let memory = if frame_bytes > 0 { Some(loopback::memory(frame_bytes)?) } else { None };
    let before = processor_seconds()?;
    let Carried { bytes, seconds } = runtime.block_on(async {
        match (transport, memory) {
            (_, Some(memory)) => loopback::bulk(bytes, memory).await,
            ("tcp", _) => loopback::tcp(bytes).await,
            _ => loopback::tls(bytes).await,
        }
    })?;
    let used = processor_seconds()? - before;
    Ok((bytes as f64 / 1e6 / seconds, used / (bytes as f64 / 1e9)))
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn run() -> Result<()> {
    let options = options()?;
    // As `branchline run` has it.
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut kinds = vec![("tcp", 0), ("tls", 0), ("branchline", 64 << 10), ("branchline", 256 << 10)];
    kinds.retain(|(transport, _)| options.only.as_ref().is_none_or(|only| only == transport));
    if kinds.is_empty() {
        bail!("{USAGE}");
    }
    let mut figures = vec![(Vec::new(), Vec::new()); kinds.len()];
    for _ in 0..options.runs {
        for ((transport, frame_bytes), (rates, costs)) in kinds.iter().zip(&mut figures) {
            let (rate, cost) = measure(&runtime, transport, *frame_bytes, options.bytes)?;
            rates.push(rate);
            costs.push(cost);
        }
    }
    let mut results = Vec::new();
    for ((transport, frame_bytes), (rates, costs)) in kinds.iter().zip(&mut figures) {
        let (rate, cost) = (median(rates), median(costs));
        if !options.json {
            let frames = if *frame_bytes > 0 { format!("{} KiB frames", frame_bytes >> 10) } else { String::new() };
            println!("{transport:<11} {frames:<15} {rate:>7.0} MB/s   {cost:.2} CPU-s/GB, both ends");
        }
        let rounded = |value: f64| (value * 1000.0).round() / 1000.0;
        results.push(json!({
            "transport": transport, "frame_bytes": frame_bytes, "megabytes_per_second": rounded(rate),
            "cpu_seconds_per_gb": rounded(cost),
        }));
    }
    if options.json {
        println!("{}", json!({ "results": results }));
    }
    Ok(())
}

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bulk: {error:#}");
            ExitCode::FAILURE
        }
    }
}
