//! `branchline faults`: does everything stay correct, whatever goes wrong?
use std::{
    collections::BTreeMap,
    io::IsTerminal,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::{
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc,
    },
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use branchline_simulations::faults::{Report, Sabotage, record, run as run_seed, run::run_twice};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::without_panic_messages;
use crate::recordings;

/// Let everything go wrong in simulated sites, and check that nothing wrong happens
///
/// Each seed draws the size of a site and which faults it meets: lost and late messages, partitions, crashes, full disks,
/// frozen processes, jumping clocks, lying peers, a failing router, moves of the station, people who delay, deny, cancel
/// and withdraw. The machines in it are the ones that this program runs. While the faults last nothing wrong may happen;
/// then they stop for a core of the site, and everybody in the core must get done. A seed that fails leaves a recording.
#[derive(Debug, clap::Args)]
#[command(after_help = "Exit codes:
   0  everything held
   1  the run itself failed, for example a recording could not be written
   2  a wrong command line
  10  integrity: bytes counted that were not proven, or a corrupt byte was kept
  11  sessions: slots or the order of the queue
  12  durability: what was acknowledged was lost
  13  approvals: something passed without an approval that is bound to it
  14  addresses: a doubled mapping, a row index used twice, a table other than planned
  15  bounds: a message, a table or the bytes over the line exceeded their bound
  16  liveness: the healthy core did not get done
  17  machine: a machine broke an invariant of its own
  18  determinism: one seed gave two runs (--twice)
Where several seeds fail, the lowest of them decides.

Examples:
  branchline faults                                500 seeds
  branchline faults --from 1000000 --hours 8       all night, other seeds
  branchline faults --from 4711 --seeds 1          one seed
  branchline faults --sabotage doubled-mapping     see a checker find what is broken on purpose")]
pub struct Args {
    /// How many seeds
    #[arg(long, value_name = "COUNT", default_value_t = 500, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    from: u64,
    /// Go on for so many hours, however many seeds that are
    #[arg(long, value_name = "HOURS", conflicts_with = "seeds", value_parser = hours)]
    hours: Option<Duration>,
    /// Go on after a seed has failed
    #[arg(long)]
    keep_going: bool,
    /// Run each seed twice and compare
    #[arg(long)]
    twice: bool,
    /// Break one thing on purpose, to see that it is found
    #[arg(long, value_name = "WHAT")]
    sabotage: Option<Sabotage>,
    /// Seeds that run beside each other; all processors unless said otherwise
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    threads: Option<u16>,
    /// Where recordings of failed seeds go
    #[arg(long, value_name = "DIRECTORY", default_value = ".")]
    recordings: PathBuf,
    /// Print one JSON object and nothing else
    #[arg(long)]
    json: bool,
}

fn hours(text: &str) -> Result<Duration, String> {
    let hours: f64 = text.parse().map_err(|_| "it is not a number of hours".to_owned())?;
    let seconds = hours * 3600.0;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|hours| !hours.is_zero())
        .ok_or("it must be above 0, and finite".to_owned())
}

/// Runs the command. The exit code says what kind of failure was found first.
///
/// # Errors
/// A recording cannot be written.
pub fn run(args: Args) -> Result<ExitCode> {
    let started = Instant::now();
    // Before the first seed: a night's findings are not lost for a directory that cannot be made.
    std::fs::create_dir_all(&args.recordings)
        .with_context(|| format!("making the directory for recordings, {}", args.recordings.display()))?;
    let reports = without_panic_messages(|| run_all(&args, started));
    let mut failures = Vec::new();
    for report in reports.values().filter(|report| report.failure.is_some()) {
        failures.push((report, keep_recording(&args, report.seed)?));
    }
    let code = failures.first().and_then(|(report, _)| report.failure.as_ref()).map(|failure| failure.kind.exit_code());
    let seconds = started.elapsed().as_secs_f64();
    if args.json {
        println!("{:#}", as_json(&args, &reports, &failures, seconds));
    } else {
        say(&reports, &failures, seconds);
    }
    Ok(ExitCode::from(code.unwrap_or(0)))
}

/// Hands seeds to threads until there are none left, time is up, or one has failed.
fn run_all(args: &Args, started: Instant) -> BTreeMap<u64, Report> {
    let end = if args.hours.is_some() { u64::MAX } else { args.from.saturating_add(args.seeds) };
    let (next, stop) = (AtomicU64::new(args.from), AtomicBool::new(false));
    let processors = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let threads = args.threads.map_or(processors, usize::from);
    let bar = progress_bar(args);
    let mut reports = BTreeMap::new();
    std::thread::scope(|scope| {
        let (sender, receiver) = mpsc::channel();
        for _ in 0..threads {
            let (sender, next, stop) = (sender.clone(), &next, &stop);
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    let late = args.hours.is_some_and(|hours| started.elapsed() >= hours);
                    if seed >= end || late || stop.load(Ordering::Relaxed) {
                        return;
                    }
                    let report =
                        if args.twice { run_twice(seed, args.sabotage) } else { run_seed(seed, args.sabotage) };
                    if sender.send(report).is_err() {
                        return;
                    }
                }
            });
        }
        drop(sender);
        for report in receiver {
            if let Some(failure) = &report.failure {
                bar.println(format!("seed {}: {}: {}", report.seed, failure.kind.word(), failure.property));
                stop.fetch_or(!args.keep_going, Ordering::Relaxed);
            }
            bar.inc(1);
            reports.insert(report.seed, report);
        }
    });
    bar.finish_and_clear();
    reports
}

fn progress_bar(args: &Args) -> ProgressBar {
    if args.json || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = |text| ProgressStyle::with_template(text).unwrap_or_else(|_| ProgressStyle::default_bar());
    if args.hours.is_some() {
        ProgressBar::new_spinner().with_style(style("{spinner} {pos} seeds, {elapsed}"))
    } else {
        ProgressBar::new(args.seeds).with_style(style("{bar:40} {pos} of {len} seeds, {eta} left"))
    }
}

/// Runs a failed seed again and writes down all that happens.
fn keep_recording(args: &Args, seed: u64) -> Result<PathBuf> {
    let name = match args.sabotage {
        Some(sabotage) => format!("faults-{seed}-{sabotage}.jsonl"),
        None => format!("faults-{seed}.jsonl"),
    };
    let path = args.recordings.join(name);
    recordings::write(&path, &without_panic_messages(|| record(seed, args.sabotage)))?;
    Ok(path)
}

fn replay_command(path: &Path) -> String {
    format!("branchline replay {} --step", path.display())
}

fn total(reports: &BTreeMap<u64, Report>, of: fn(&Report) -> u64) -> u64 {
    reports.values().map(of).sum()
}

/// Healing times of the seeds that held, in seconds, shortest first.
fn healing(reports: &BTreeMap<u64, Report>) -> Vec<u64> {
    let held = reports.values().filter(|report| report.failure.is_none());
    let mut seconds: Vec<u64> = held.map(|report| report.healing_seconds).collect();
    seconds.sort_unstable();
    seconds
}

fn say(reports: &BTreeMap<u64, Report>, failures: &[(&Report, PathBuf)], seconds: f64) {
    for (report, path) in failures {
        let Some(failure) = &report.failure else { continue };
        println!("seed {} failed after {} s of its world: {}", report.seed, report.seconds, failure.kind.word());
        println!("  {}: {:.2000}", failure.property, failure.what);
        println!("  step through it with: {}", replay_command(path));
    }
    let healing = healing(reports);
    let (count, failed) = (reports.len(), failures.len());
    let happenings = total(reports, |report| report.happenings);
    let hours = total(reports, |report| report.seconds) / 3600;
    println!(
        "{} of {count} seeds held; {happenings} things happened in {hours} hours of their worlds, {} processes died; \
         {seconds:.1} s",
        count - failed,
        total(reports, |report| report.crashes)
    );
    if let (Some(median), Some(worst)) = (healing.get(healing.len() / 2), healing.last()) {
        println!("the core got done {median} s after the faults had stopped (median), {worst} s at the latest");
    }
}

fn as_json(args: &Args, reports: &BTreeMap<u64, Report>, failures: &[(&Report, PathBuf)], seconds: f64) -> Value {
    let healing = healing(reports);
    let failures: Vec<Value> = failures
        .iter()
        .filter_map(|(report, path)| {
            let failure = report.failure.as_ref()?;
            Some(json!({
                "seed": report.seed,
                "kind": failure.kind,
                "exit_code": failure.kind.exit_code(),
                "property": failure.property,
                "what": failure.what,
                "world_seconds": report.seconds,
                "recording": path,
                "replay": replay_command(path),
            }))
        })
        .collect();
    json!({
        "from": args.from,
        "seeds": reports.len(),
        "failures": failures,
        "happenings": total(reports, |report| report.happenings),
        "crashes": total(reports, |report| report.crashes),
        "world_seconds": total(reports, |report| report.seconds),
        "healing_seconds": {
            "p50": healing.get(healing.len() / 2),
            "p99": healing.get(healing.len() * 99 / 100),
            "last": healing.last(),
        },
        "bytes": {
            "wan": total(reports, |report| report.wan_bytes),
            "packs": total(reports, |report| report.pack_bytes),
        },
        "run": { "wall_seconds": seconds },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use branchline_simulations::checkers::Kind;
    use clap::Parser;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        args: Args,
    }

    #[test]
    fn the_help_names_every_exit_code() {
        let help = <Command as clap::CommandFactory>::command().render_long_help().to_string();
        for kind in Kind::ALL {
            let line = format!("  {}  {}:", kind.exit_code(), kind.word());
            assert!(help.contains(&line), "{line}\n{help}");
        }
    }

    #[test]
    fn a_failure_leaves_a_recording_and_its_kind_as_exit_code() {
        let directory = tempfile::tempdir().unwrap();
        let recordings = directory.path().to_str().unwrap();
        let parse = |words: &[&str]| {
            let fixed = ["faults", "--threads", "2", "--recordings", recordings];
            let line = fixed.iter().chain(words);
            Command::try_parse_from(line).map(|command| command.args)
        };
        assert_eq!(run(parse(&["--seeds", "2"]).unwrap()).unwrap(), ExitCode::SUCCESS);
        let args = parse(&["--seeds", "2", "--sabotage", "doubled-mapping"]).unwrap();
        assert_eq!(run(args).unwrap(), ExitCode::from(14));
        let recording = crate::recordings::read(&directory.path().join("faults-0-doubled-mapping.jsonl")).unwrap();
        assert_eq!(recording.header.failure.unwrap().kind, Kind::Addresses);
        assert!(parse(&["--sabotage", "nothing"]).is_err());
        assert!(parse(&["--hours", "0"]).is_err());
        assert!(parse(&["--hours", "1", "--seeds", "3"]).is_err());
    }
}
